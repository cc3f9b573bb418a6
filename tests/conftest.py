"""What holds for every test: keys bear a mark that must be found nowhere (tests/canary)."""

import sys
from collections.abc import Iterator

import pytest

from haaro.ota import bundle, ed25519, fetch, install, part, pull  # noqa: F401 (see below)
from haaro.shell import config, config_lan, config_uplinks, config_values, secrets  # noqa: F401
from tests.canary.plugin import (  # noqa: F401
    pytest_configure,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

_UNLOADED = ("haaro.shell.", "haaro.ota.")


@pytest.fixture(autouse=True)
def one_copy_of_each_module() -> Iterator[None]:
    """Undo `unload` of haaro.shell and haaro.ota, by which a router gets its heap back.

    In a process of many tests it would make a second ConfigError, which nobody catches who has
    imported the first. All that `unload` names was imported above.
    """
    before = {name: module for name, module in sys.modules.items() if name.startswith(_UNLOADED)}
    yield
    for name, module in before.items():
        package, _, last = name.rpartition(".")
        sys.modules[name] = module
        setattr(sys.modules[package], last, module)
