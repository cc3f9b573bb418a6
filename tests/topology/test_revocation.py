"""`haaro ha revoke` and `allow` on real processes: gone within 5 s, denied, back."""

import json
import subprocess
import time

from haaro_host.lab import plan, system
from haaro_host.lab.lab import registered
from haaro_host.lab.system import LabError

from .conftest import Stage, until

_BOUND_S = 5.0
_BACK_S = 60.0
A, B, C = plan.OFFICES


def _order(stage: Stage, verb: str) -> str:
    lab = stage.lab
    done = subprocess.run(
        [*system.haaro_command(), "ha", "--config", str(lab.files.ha_config), verb, C.home_address],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip
    return done.stdout


def _binding(stage: Stage) -> object:
    each = next(r for r in stage.status("ha")["routers"] if r["home_address"] == C.home_address)
    return each["binding"]


def _reaches(stage: Stage) -> bool:
    try:
        return stage.hosts.ping("ah", "ch", count=2) > 0
    except LabError:
        return False


def test_revoked_router_is_off_the_net_within_five_seconds(stage: Stage) -> None:
    """threats R15: binding gone, no traffic either way, denied and told; a peer loses its path."""
    until(lambda: _reaches(stage), 10.0, "A and C do not reach each other before")
    until(lambda: (stage.peer("a", "c") or {}).get("path") == "direct", 20.0, "not direct before")
    start = time.monotonic()
    assert "its registration is over" in _order(stage, "revoke")
    assert _binding(stage) is None
    until(lambda: not registered(stage.lab.node_status("c")), _BOUND_S, "C believes it is there")
    until(lambda: stage.peer("a", "c")["path"] != "direct", _BOUND_S, "A keeps the direct path")  # type: ignore[index]
    assert time.monotonic() - start <= _BOUND_S
    assert not _reaches(stage)
    status = stage.status("ha")
    assert status["counters"]["revocation_acknowledged"] == 1
    log = stage.lab.logs / "c.log"
    until(
        lambda: "denied the registration: administratively_prohibited" in log.read_text(),
        15.0,
        "C does not say why: " + json.dumps(status["counters"]),
    )
    assert "the home agent revoked our registration" in log.read_text()


def test_allowed_router_comes_back_by_itself(stage: Stage) -> None:
    """threats R15: allow is all it takes."""
    assert "may register" in _order(stage, "allow")
    until(lambda: registered(stage.lab.node_status("c")), _BACK_S, "C is not back")
    until(lambda: _reaches(stage), 15.0, "traffic does not flow again")
    assert _binding(stage) is not None
