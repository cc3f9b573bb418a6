"""The lab for tests: one per module, captures and logs kept in build/test-artifacts on failure."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from haaro_host.lab import plan, processes, system
from haaro_host.lab.capture import Captures
from haaro_host.lab.evidence import Evidence
from haaro_host.lab.lab import RUN, Lab
from haaro_host.lab.traffic import Hosts, Probe

ARTIFACTS = Path(__file__).resolve().parents[2] / "build" / "test-artifacts"
_PREFIX = "haaro-t"
# Several runs at once don't meet, and a run that was killed can be told by its process id.
NAME = f"{_PREFIX}{os.getpid()}"


def why_not_here() -> str | None:
    """Why this process can't make namespaces, in one line; None if it can."""
    if not system.has_privileges():
        return "not root: test_without_root runs this module inside `unshare -Urnm`"
    absent = system.missing(system.TOOLS_FOR_DEMO)
    return f"missing: {', '.join(absent)}" if absent else None


@pytest.fixture(scope="session")
def privileged() -> None:
    """Skip, with the reason, where namespaces can't be made."""
    reason = why_not_here()
    if reason:
        pytest.skip(reason)
    system.prepare_run()
    for left in RUN.glob(f"{_PREFIX}[0-9]*"):
        owner = left.name.removeprefix(_PREFIX).rstrip("uv")
        if left.is_dir() and owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            Lab(left.name).down()


@dataclass
class Stage:
    """The lab that the tests of a module share, with everything to look at it."""

    lab: Lab
    captures: Captures
    hosts: Hosts
    seen: Evidence
    registered_s: dict[str, float] = field(default_factory=dict)
    probe: Probe | None = None

    def status(self, node: str) -> dict[str, Any]:
        """A router's or the home agent's status; fails when it doesn't answer."""
        found = self.lab.node_status(node)
        assert found is not None, f"{node} does not answer"
        return found

    def peer(self, node: str, other: str) -> dict[str, Any] | None:
        """What a router says of another one; None when it doesn't know it."""
        home_address = plan.office(other).home_address
        for peer in self.status(node)["peers"]:
            if peer["cr_hoa"] == home_address:
                return dict(peer)
        return None


def until(condition: Callable[[], object], deadline_s: float, what: str) -> None:
    """Fail with `what` unless `condition` holds within `deadline_s` seconds."""
    assert processes.wait_until(lambda: bool(condition()), deadline_s, 0.05), what


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, privileged: None) -> Iterator[Stage]:
    """A lab that is up, with captures running."""
    out = ARTIFACTS / request.module.__name__.rpartition(".")[2]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True)
    captures = Captures(lab, out)
    hosts = Hosts(NAME, plan.HOST_ADDRESS, out / "logs")
    seen = Evidence(captures.path, plan.office("a"), plan.office("c"))
    made = Stage(lab, captures, hosts, seen)
    failed_before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            captures.start()
            made.registered_s = lab.start_all()
        yield made
        broken = request.session.testsfailed > failed_before
    finally:
        if made.probe:
            made.probe.stop()
        captures.stop()
        lab.down()
        if not broken:
            shutil.rmtree(out)
        elif out.exists():
            print(f"\ncaptures and logs: {out}", flush=True)
        if ARTIFACTS.exists() and not os.listdir(ARTIFACTS):
            ARTIFACTS.rmdir()
