"""What holds for every test: keys bear a mark that must be found nowhere (tests/canary)."""

from tests.canary.plugin import (  # noqa: F401
    pytest_configure,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)
