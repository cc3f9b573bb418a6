"""F1 to F14 on real processes: every case once, its outage within the bound of docs/threats.md.

Each outage is what a probe between two hosts saw; a path is what captures on the internet router's
links show. F13 takes ten minutes and is run by `make outages`; in full it is in the simulation.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from haaro_host.lab import system
from haaro_host.lab.faults import cases
from tests.meta.repository import ROOT

KEYS = [case.key for case in cases.CASES if not case.long]
# Bound by fault and path, as docs/threats.md has them.
BOUNDS = {
    ("F1", "direct"): 30, ("F1", "rr"): 30, ("F2", "direct"): 5, ("F3", "ha"): 3,
    ("F3", "direct"): 10, ("F4", "direct"): 5, ("F4", "ha"): 45, ("F5", "ha"): 45,
    ("F5", "direct"): 5, ("F6", "ha"): 45, ("F6", "direct"): 45, ("F7", "direct"): 0.25,
    ("F7", "ha"): 15, ("F8", "ha"): 60, ("F8", "replay"): 0, ("F9", "ha"): 10,
    ("F10", "ha"): 10, ("F10", "direct"): 30, ("F11", "ha"): 60, ("F11", "direct"): 60,
    ("F12", "direct"): 5, ("F14", "ha"): 10, ("handover", "away"): 0, ("handover", "back"): 0,
    ("handover", "better"): 0,
    ("nat", "2 s"): 0, ("nat", "shared"): 60, ("nat", "two"): 1,
}  # fmt: skip
_WHOLE_SHARE_S = 480


@pytest.mark.timeout(_WHOLE_SHARE_S)
@pytest.mark.parametrize("key", KEYS)
def test_the_outage_stays_within_its_bound(key, result):
    """What the probe saw is within the bound, and the case came to its end."""
    found = result(key)
    assert found.error == "", f"{found.error}; see {found.out}"
    assert found.rows
    for row in found.rows:
        assert BOUNDS[row.fault, row.path] == row.bound_s
    missed = [row for row in found.rows if not row.met]
    assert missed == [], f"seed {found.seed}, captures and logs in {found.out}"


def test_every_fault_of_the_document_has_a_case_and_every_bound_a_fault():
    """docs/threats.md lists F1 to F14; each is run, F13 outside of `make test`."""
    text = (ROOT / "docs" / "threats.md").read_text()
    listed = set(re.findall(r"^\| (F\d+) \|", text, re.MULTILINE))
    run = {case.fault for case in cases.CASES}
    # F15 is no outage: tests/topology/test_priority.py.
    assert listed - {"F15"} == {f"F{number}" for number in range(1, 15)}
    assert listed - {"F15"} == run - {"handover", "nat"}
    assert {fault for fault, _ in BOUNDS} == {case.fault for case in cases.CASES if not case.long}


@pytest.mark.timeout(2 * _WHOLE_SHARE_S)
def test_without_root(tmp_path: Path):
    """Without root these tests run inside `unshare -Urnm`; with root they ran already."""
    if os.geteuid() == 0:
        pytest.skip("root: the fault tests run directly")
    if not system.user_namespaces_allowed():
        pytest.skip(system.explain_privileges())
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun is not open to this user")
    # A base of its own: inside, the user is called root, and root's is not ours to write.
    base = f"--basetemp={tmp_path / 'inside'}"
    here = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", base, here]
    done = subprocess.run(["unshare", "-Urnm", *command], check=False, timeout=900)
    assert done.returncode == 0
