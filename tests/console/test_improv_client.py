"""The published Improv client (npm improv-wifi-serial-sdk) talks with the console."""

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from haaro.shell import console as consoles
from tests.console.test_improv import Box

_PACKAGE = "improv-wifi-serial-sdk@2.8.1"
_BASE = Path(__file__).parents[2] / "build" / "npm" / "improv"
_CLIENT = Path(__file__).with_name("improv_client.mjs")


@pytest.fixture(scope="module")
def client():
    """The folder of the package, fetched once into build/."""
    folder = _BASE / "node_modules" / _PACKAGE.rpartition("@")[0]
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not here: as root on Debian or Ubuntu: apt-get install npm")
    if not folder.exists():
        _BASE.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
        try:
            done = subprocess.run(
                [*command, _PACKAGE], cwd=_BASE, capture_output=True, text=True, timeout=60
            )
            why = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        except subprocess.TimeoutExpired:
            why = ["no answer in 60 s"]
        if why or not folder.exists():
            pytest.skip(f"npm cannot fetch {_PACKAGE}: {why}")
    return folder


def conversation(box, client, outcome, patience_ms=20000):
    """Let the client talk with `box`; `outcome(box)` is what becomes of the trial."""
    process = subprocess.Popen(
        ["node", _CLIENT, client, "MyWirelessAP", "mysecurepassword", str(patience_ms)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 60
    tried = False
    try:
        while process.poll() is None:
            assert time.monotonic() < end, "the client does not end"
            if select.select([process.stdout], [], [], 0.05)[0]:
                said = box.raw(os.read(process.stdout.fileno(), 4096))
            else:
                said = box.raw(b"")
            if box.console.trial_until is not None and not tried:
                tried = True
                process.stdin.write(said)
                outcome(box)
                said = bytes(box.door.said)
                box.door.said.clear()
            process.stdin.write(said)
            process.stdin.flush()
    finally:
        process.kill()
    return json.loads(process.communicate()[1].decode().splitlines()[-1])


def test_the_client_finds_the_box_and_gives_it_a_network_that_works(tmp_path, monkeypatch, client):
    def works(box):
        box.next_box(registered=True)
        box.turn(1000)

    box = Box(tmp_path, monkeypatch)
    found = conversation(box, client, works)
    assert found["info"]["firmware"] == "haaro" and found["info"]["name"] == "office-a"
    assert found["networks"] == []
    assert (found["provisioned"], found["states"], found["error"]) == (True, [2, 3, 4], 0)
    assert "MyWirelessAP" in box.config.read_text()


def test_the_client_is_told_that_the_network_did_not_work(tmp_path, monkeypatch, client):
    def fails(box):
        box.next_box()
        box.turn(consoles.TRIAL_MS)

    box = Box(tmp_path, monkeypatch)
    found = conversation(box, client, fails)
    assert "UNABLE_TO_CONNECT" in found["failure"] or found["error"] == 3
    assert found["states"][-1] == 2 and "MyWirelessAP" not in box.config.read_text()


def test_a_locked_box_tells_the_client_nothing(tmp_path, monkeypatch, client):
    found = conversation(Box(tmp_path, monkeypatch, improv=False), client, None, 2000)
    assert found["failure"] and "office-a" not in str(found) and found["states"] == []
