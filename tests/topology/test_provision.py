"""From a blank board to a router that is registered, by one command; and a trial that registers.

The board is in the namespace of A; what is sent into it is `haaro provision` alone.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from haaro_host.flash import build
from haaro_host.fleet import inventory, store
from haaro_host.lab import plan, processes, system
from haaro_host.lab.lab import Lab, ask, registered
from haaro_host.ota import bundle as bundles
from haaro_host.ota import key as ota_key
from haaro_host.provision.bugreport import secrets_of
from tests.topology.conftest import ARTIFACTS, NAME, until

A = plan.office("a")
_PASSPHRASE = "correct horse battery"
_UNIQUE_ID = "00c0ffee00a1"
_CLI = Path(sys.executable).parent / "haaro"


class Workshop:
    """A lab with a home agent and a blank board at the place of A, and the fleet of both."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.run / "fleet"
        self.flash = lab.run / "flash"
        self.port = lab.run / "board"
        self.said: list[str] = []

    def haaro(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [_CLI, *arguments],
            cwd=self.directory,
            env={**os.environ, "HAARO_PASSPHRASE": _PASSPHRASE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        self.said += [done.stdout, done.stderr]
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout

    def provision(self, *options: str) -> dict:
        return dict(json.loads(self.haaro("provision", "a", "--port", str(self.port), "--json",
                                          *options)))  # fmt: skip

    def status(self) -> dict | None:
        try:
            return dict(ask(self.lab.files.socket("a"), "status"))
        except (OSError, ValueError):
            return None

    def home_agent(self) -> dict:
        until(lambda: self.lab.node_status("ha"), 10.0, "the home agent does not answer")
        (found,) = [r for r in (self.lab.node_status("ha") or {})["routers"] if r["name"] == "a"]
        return dict(found)

    def everything_written(self) -> str:
        """All that the run printed or wrote, but for the files that are made to hold keys."""
        texts = list(self.said)
        for path in [*self.lab.logs.rglob("*"), self.directory / "provision.log"]:
            if path.is_file():
                texts.append(path.read_text(errors="replace"))
        return "\n".join(texts)


def _fleet_file(lab: Lab) -> str:
    return (
        f'version = 1\n[fleet]\nname = "lab"\n[home_agent]\naddress = "{plan.HOME_AGENT}"\n'
        f'home_addresses = ["{plan.HOME_ADDRESSES}"]\nhome_networks = ["{plan.HOME_NETWORK}"]\n'
        f'state = "{lab.files.ha_state}"\nsocket = "{lab.files.ha_socket}"\n'
        f'[defaults.router]\nlifetime = 30\ndataplane = "userspace"\n'
        f'socket = "{lab.files.socket("a")}"\nupdate = {{ url = "" }}\n'
        'uplinks = [{ name = "wan", driver = "linux_netdev", interface = "wan" }]\n'
        f'[site.a]\nhome_address = "{A.home_address}"\nprefixes = ["{A.lan_net}"]\n'
        f'unique_id = "{_UNIQUE_ID}"\n'
    )


@pytest.fixture(scope="module")
def workshop(request: pytest.FixtureRequest, privileged: None) -> Iterator[Workshop]:
    out = ARTIFACTS / "test_provision"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True)
    made = Workshop(lab)
    failed_before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            made.directory.mkdir()
            made.flash.mkdir()
            (made.directory / "fleet.toml").write_text(_fleet_file(lab))
            made.haaro("keys", "new")
            made.haaro("ota", "key", "new")
            made.haaro("fleet", "export", "ha", "--out", str(lab.run / "ha"))
            lab.start_home_agent()
            # Not as "a": the lab would stop it as a router that the lab itself had started.
            board = [sys.executable, "-m", "haaro_host.lab.board", str(made.flash)]
            board += [str(made.port), "--unique-id", _UNIQUE_ID, "--same-network"]
            started = processes.start(lab.inside("a", board), lab.logs / "board.log", True)
            lab.state.processes["board"] = started
            lab.state.save()
            until(made.port.exists, 10.0, "the board does not start")
        yield made
        broken = request.session.testsfailed > failed_before
    finally:
        lab.down()
        if not broken:
            shutil.rmtree(out)
        if ARTIFACTS.exists() and not os.listdir(ARTIFACTS):
            ARTIFACTS.rmdir()


@pytest.mark.timeout(180)
def test_one_command_makes_a_blank_board_a_registered_router(workshop: Workshop) -> None:
    assert list(workshop.flash.iterdir()) == []
    done = workshop.provision()
    assert (done["way"], done["result"]) == ("raw REPL", "in place")
    until(lambda: registered(workshop.status()), 20.0, "it does not register")
    assert workshop.home_agent()["binding"] is not None
    assert workshop.provision()["result"] == "unchanged"


@pytest.mark.timeout(180)
def test_new_keys_are_tried_and_kept_because_the_box_registers_with_them(
    workshop: Workshop,
) -> None:
    """A rotation by the cable alone: nobody confirms, the home agent's answer does."""
    workshop.haaro("keys", "stage", "a")
    workshop.haaro("fleet", "export", "ha", "--out", str(workshop.lab.run / "ha"))
    workshop.haaro("ha", "reload", "--config", str(workshop.lab.files.ha_config))
    workshop.haaro("keys", "activate", "a")
    done = workshop.provision()
    assert (done["way"], done["result"]) == ("console", "kept")
    assert done["changed"] == ["router.secrets.json"]
    until(lambda: registered(workshop.status()), 10.0, "it is not registered")
    used = {key["spi"]: key["last_used_s"] for key in workshop.home_agent()["keys"]}
    assert used[257] is not None, "the new key is the one it registered with"
    assert {path.name for path in workshop.flash.iterdir()} == {
        "main.py", "slots", "router.json", "router.secrets.json"
    }  # fmt: skip


@pytest.mark.timeout(240)
def test_a_new_program_comes_by_the_cable_and_is_kept_because_it_registers(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled files for this MicroPython, in frames over the console; the trial is watched."""
    monkeypatch.setenv("HAARO_PASSPHRASE", _PASSPHRASE)
    fleet = inventory.load(workshop.directory / "fleet.toml")
    key = ota_key.signing(store.open_store(fleet, None).keys)
    root = system.firmware().parent
    sources = {
        path.relative_to(root).with_suffix(".mpy").as_posix(): path
        for path in sorted((root / "haaro").rglob("*.py"))
    }
    sources["haaro_router.mpy"] = root / "main.py"
    number, arch = _mpy()
    files = build.compiled(sources, arch)
    data = bundles.make(files, "7.0.0-r1", "UNIX", f"{number} {arch}", key)
    (workshop.directory / "seven.haaro").write_bytes(data)
    workshop.haaro("ota", "install", "a", "seven.haaro", "--port", str(workshop.port), "--json")
    found = workshop.status()
    assert found is not None and registered(found)
    assert found["program"] == {
        "version": "7.0.0-r1", "slot": "b", "state": "running", "problem": ""
    }  # fmt: skip
    assert (workshop.flash / "slots" / "boot").read_text() == "b\n"
    # The same once more is no work; an older one is refused, and the box says why.
    again = workshop.haaro("ota", "install", "a", "seven.haaro", "--port", str(workshop.port))
    assert "7.0.0-r1 is what it has" in again
    old = bundles.make({"haaro_router.py": b""}, "6.0.0-r1", "UNIX", f"{number} {arch}", key)
    (workshop.directory / "six.haaro").write_bytes(old)
    workshop.haaro("ota", "install", "a", "six.haaro", "--port", str(workshop.port), status=1)
    assert "6.0.0-r1 is not newer than 7.0.0-r1" in workshop.said[-1]


def _mpy() -> list[str]:
    program = (
        f"import sys; sys.path.insert(0, {str(system.firmware().parent)!r})\n"
        "from haaro.ota.bundle import mpy; print(*mpy())"
    )
    done = subprocess.run(
        [system.micropython(), "-c", program], capture_output=True, text=True, timeout=30
    )
    return done.stdout.split()


def test_ping_by_the_console_goes_through_the_tunnel_or_out_of_an_uplink(
    workshop: Workshop,
) -> None:
    target = str(plan.HOME_AGENT)
    done = subprocess.run(
        [_CLI, "console", "a", "--port", str(workshop.port)],
        cwd=workshop.directory,
        env={**os.environ, "HAARO_PASSPHRASE": _PASSPHRASE},
        input=f"ping {target}\nping {target} via wan\nshow uplinks\nshow counters\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    workshop.said += [done.stdout, done.stderr]
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ping: {target} by the home agent's tunnel" in done.stdout
    assert f"ping: {target} by uplink wan, in the clear" in done.stdout
    assert done.stdout.count("4 of 4 answered") == 2
    assert "wan up " in done.stdout and "table_omitted 0" in done.stdout


def test_the_log_is_followed_with_the_messages_of_a_renewal(workshop: Workshop) -> None:
    """`logs -f` names the Request and the Reply, and Ctrl-C ends it in order."""
    follower = subprocess.Popen(
        [_CLI, "logs", "a", "-f", "--port", str(workshop.port)],
        cwd=workshop.directory,
        env={**os.environ, "HAARO_PASSPHRASE": _PASSPHRASE},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert follower.stdout is not None
    giving_up = threading.Timer(60.0, follower.kill)
    giving_up.start()
    said = []
    for line in follower.stdout:
        said.append(line)
        if f"from {plan.HOME_AGENT}:434 type 3, " in line:
            break
    follower.send_signal(signal.SIGINT)
    said += list(follower.stdout)
    status = follower.wait(20)
    giving_up.cancel()
    workshop.said += said
    assert status == 0, said
    request = [line for line in said if f"to {plan.HOME_AGENT}:434 type 1, " in line]
    assert request and "registered with home agent" in "".join(said)


def test_no_key_of_the_fleet_is_in_anything_that_was_printed_or_logged(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3 of the threats: the keys of the whole store are the canaries."""
    from haaro_host.fleet import inventory, store

    monkeypatch.setenv("HAARO_PASSPHRASE", _PASSPHRASE)
    fleet = inventory.load(workshop.directory / "fleet.toml")
    secrets = secrets_of(store.open_store(fleet, None).keys, fleet)
    written = workshop.everything_written()
    assert len(secrets) >= 6 and len(written) > 1000
    assert [secret for secret in secrets if secret in written] == []
