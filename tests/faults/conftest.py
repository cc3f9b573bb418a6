"""Runs the cases of the selected tests side by side, each in a lab of its own.

Captures and logs of a missed bound stay in build/test-artifacts/faults.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from haaro_host.lab import system
from haaro_host.lab.faults import cases
from haaro_host.lab.faults.cases import Result
from haaro_host.lab.faults.outages import remove_leftovers

ARTIFACTS = Path(__file__).resolve().parents[2] / "build" / "test-artifacts" / "faults"
PREFIX = "haaro-f"
NAME = f"{PREFIX}{os.getpid()}"
# Another one finds the faults at other phases of the timers: HAARO_FAULT_SEED=7 make test.
SEED = int(os.environ.get("HAARO_FAULT_SEED", "1"))


def why_not_here() -> str | None:
    """Why this process can't make namespaces, in one line; None if it can."""
    if not system.has_privileges():
        return "not root: test_without_root runs these tests inside `unshare -Urnm`"
    absent = system.missing(system.TOOLS_FOR_DEMO)
    if absent:
        return f"missing: {', '.join(absent)}"
    return None if os.access("/dev/net/tun", os.R_OK | os.W_OK) else "/dev/net/tun is not open"


@pytest.fixture(scope="session")
def privileged() -> None:
    """Skip, with the reason, where namespaces can't be made; remove what killed runs left."""
    reason = why_not_here()
    if reason:
        pytest.skip(reason)
    system.prepare_run()
    remove_leftovers(PREFIX)


@pytest.fixture(scope="session")
def result(request: pytest.FixtureRequest, privileged: None) -> Iterator[Callable[[str], Result]]:
    """Start every selected case once, a few at a time; give back a function that waits for one."""
    selected = {
        item.callspec.params["key"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and "result" in item.fixturenames
        and hasattr(item, "callspec")
    }
    running: dict[str, Future[Result]] = {}
    with ThreadPoolExecutor(cases.SIDE_BY_SIDE) as pool:
        for number, case in enumerate(cases.CASES):
            if case.key in selected:
                running[case.key] = pool.submit(
                    cases.run_apart, case.key, SEED, ARTIFACTS, f"{NAME}-{number}"
                )
        yield lambda key: running[key].result()
        for each in running.values():
            each.cancel()
