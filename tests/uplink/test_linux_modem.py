"""The tty, the files of power and reset, and the count of octets, in real MicroPython."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.meta.repository import FIRMWARE, ROOT, micropython
from tests.modem_sim import peer

pytestmark = pytest.mark.skipif(
    bool(peer.why_not_here()) or not micropython(), reason="needs slirp and MicroPython"
)
NODE = Path(__file__).with_name("modem_node.py")
_WITHIN_MS = 30000
_DEADLINE_S = 10.0


@pytest.fixture
def start(tmp_path):
    """Start simulated modems in `tmp_path`; the last one is ended with the test."""
    made = []

    def begin(**behaviour):
        words = []
        for key, value in behaviour.items():
            words += ["--set", f"{key}={json.dumps(value)}"]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.modem_sim", str(tmp_path), *words],
            stdout=subprocess.PIPE, cwd=ROOT, text=True,
        )  # fmt: skip
        made.append(process)
        assert json.loads(process.stdout.readline())["event"] == "ready"
        return process

    yield begin
    for process in made:
        process.kill()
        process.wait()
        process.stdout.close()


def node(directory, *states, cap_mb=0, profile="generic"):
    return subprocess.Popen(
        [micropython(), str(NODE), str(FIRMWARE), str(directory / "port"), str(directory),
         str(cap_mb), str(_WITHIN_MS), profile, *states],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def ended(process) -> str:
    said, _ = process.communicate(timeout=_WITHIN_MS / 1000 + _DEADLINE_S)
    assert process.returncode == 0, said
    return said


def test_a_modem_that_is_off_is_switched_on_by_the_file_of_its_key(start, tmp_path):
    start(powered=False, on_ms=500)
    said = ended(node(tmp_path, "up"))
    assert "the modem does not answer; power_on" in said
    assert (tmp_path / "power_key").read_text() == "0"


def test_a_port_that_comes_later_goes_and_comes_back_is_used(start, tmp_path):
    running = node(tmp_path, "up", "failed", "up")
    lines = iter(running.stdout.readline, "")
    assert "port" in next(lines)  # no such file yet
    first = start()
    assert any(line.startswith("up") for line in lines)
    first.kill()
    first.wait()
    assert any("port is gone" in line for line in lines)
    start()
    said = ended(running)
    assert "up: " in said


def test_at_the_data_cap_the_call_ends(start, tmp_path):
    year, month = time.gmtime()[:2]
    known = {"month": year * 100 + month, "octets": 999_999_999}
    (tmp_path / "lte.octets").write_text(json.dumps(known))
    start()
    said = ended(node(tmp_path, "failed", cap_mb=1))
    assert "the data cap of 1 MB is used up" in said
    assert "up: " not in said
    assert os.path.exists(tmp_path / "lte.octets")


def test_a_multiplexed_line_comes_up_in_micropython(start, tmp_path):
    sim = start(mux="yes")
    said = ended(node(tmp_path, "up", profile="sim7600"))
    assert "up: " in said
    sim.terminate()
    events = [json.loads(line)["event"] for line in sim.stdout]
    assert "AT+CMUX=0,0,5,127" in events
    assert events.index("AT+CMUX=0,0,5,127") < events.index("AT+CPIN?")
    assert sum(event == "AT" for event in events) == 1
