"""Updates end to end: boxes with slots, the operator's server behind the home agent, programs that
are good, that crash, and that never register.

Each box is MicroPython on a folder of its own, started again whenever it ends, as systemd does.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haaro_host.fleet import inventory, store
from haaro_host.lab import configuration, plan, processes, system
from haaro_host.lab.lab import HEAP, Lab, ask, registered
from haaro_host.ota import bundle as bundles
from haaro_host.ota import key as keys
from haaro_host.ota import tree
from tests.topology.conftest import ARTIFACTS, NAME, until

_PASSPHRASE = "correct horse battery"
_CLI = Path(sys.executable).parent / "haaro"
_URL = f"http://{plan.HOST_ADDRESS['hq']}:8434"
# As systemd's Restart=always with RestartPreventExitStatus=2.
_SERVICE = (
    'while :; do "$1" -X heapsize="$2" "$3/main.py" --config "$4" run; s=$?;'
    ' [ "$s" = 2 ] && exit 2; [ "$s" = 0 ] && exit 0; sleep 0.2; done'
)


class Fleet:
    """Boxes of the lab's offices, their operator's machine, and the commands given there."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.directory = lab.run / "fleet"
        self.files: dict[str, bytes] = {}
        self.key: Ed25519PrivateKey | None = None

    def haaro(self, *arguments: str, status: int = 0) -> str:
        done = subprocess.run(
            [_CLI, *arguments],
            cwd=self.directory,
            env={**os.environ, "HAARO_PASSPHRASE": _PASSPHRASE},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=150,
        )
        assert done.returncode == status, (arguments, done.stdout, done.stderr)
        return done.stdout

    def bundle(self, release: int, **replaced: str) -> str:
        """Make and sign a bundle, with `old=new` texts of files replaced as {file: text}."""
        files = {**self.files, **{name: text.encode() for name, text in replaced.items()}}
        assert self.key is not None
        data = bundles.make(files, tree.version(release), "UNIX", tree.SOURCES, self.key)
        path = self.directory / f"{release}.haaro"
        path.write_bytes(data)
        return path.name

    def roll_out(self, bundle: str, *more: str, status: int = 0) -> dict:
        said = self.haaro("ota", "roll-out", "start", bundle, *more, "--json", status=status)
        return dict(json.loads(said)["rollouts"][0])

    def status(self, node: str) -> dict:
        try:
            return dict(ask(self.lab.files.socket(node), "status"))
        except (OSError, ValueError):
            return {}

    def program(self, node: str) -> tuple:
        """(version, slot, state) of a box that is registered, () otherwise."""
        found = self.status(node)
        if not found or not registered(found):
            return ()
        return tuple(found["program"][key] for key in ("version", "slot", "state"))

    def boot_file(self, node: str) -> str:
        path = self.lab.run / f"box-{node}" / "slots" / "boot"
        return path.read_text().strip() if path.exists() else ""


def _fleet_file(lab: Lab) -> str:
    text = (
        f'version = 1\n[fleet]\nname = "lab"\n[home_agent]\naddress = "{plan.HOME_AGENT}"\n'
        f'home_addresses = ["{plan.HOME_ADDRESSES}"]\nhome_networks = ["{plan.HOME_NETWORK}"]\n'
        f'state = "{lab.files.ha_state}"\nsocket = "{lab.files.ha_socket}"\n'
        '[defaults.router]\nlifetime = 60\ndataplane = "userspace"\n'
        f'update = {{ url = "{_URL}", interval_s = 5, rate_kbit = 20000 }}\n'
        'uplinks = [{ name = "wan", driver = "linux_netdev", interface = "wan" }]\n'
    )
    for office in plan.OFFICES:
        text += (
            f'[site.{office.node}]\nhome_address = "{office.home_address}"\n'
            f'prefixes = ["{office.lan_net}"]\n'
            f'router.socket = "{lab.files.socket(office.node)}"\n'
        )
    return text


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, privileged: None) -> Iterator[Fleet]:
    """Three boxes with release 1, registered, and the update server in the home network."""
    out = ARTIFACTS / "test_ota"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True)
    made = Fleet(lab)
    failed_before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively(), pytest.MonkeyPatch.context() as patch:
            patch.setenv("HAARO_PASSPHRASE", _PASSPHRASE)
            lab.build()
            made.directory.mkdir()
            (made.directory / "fleet.toml").write_text(_fleet_file(lab))
            made.haaro("keys", "new")
            made.haaro("ota", "key", "new")
            loaded = inventory.load(made.directory / "fleet.toml")
            made.key = keys.signing(store.open_store(loaded, None).keys)
            made.files = _program()
            made.haaro("fleet", "export", "ha", "--out", str(lab.run / "ha"))
            made.haaro("fleet", "export", "router", "--all", "--out", str(lab.run))
            lab.start_home_agent()
            serve = [str(_CLI), "ota", "serve", "--fleet", str(made.directory / "fleet.toml")]
            started = processes.start(lab.inside("hq", serve), lab.logs / "serve.log", True)
            lab.state.processes["server"] = started
            for office in plan.OFFICES:
                _start_box(made, office.node)
            lab.state.save()
        for office in plan.OFFICES:
            until(lambda node=office.node: made.program(node), 30.0, f"{office.node} is not up")
        yield made
        broken = request.session.testsfailed > failed_before
    finally:
        lab.down()
        if not broken:
            shutil.rmtree(out)
        if ARTIFACTS.exists() and not os.listdir(ARTIFACTS):
            ARTIFACTS.rmdir()


def _program() -> dict[str, bytes]:
    """This checkout's router; it holds a registration for 2 s, so that less is waited for."""
    files = {name: data for name, data in tree.sources().items() if name.endswith(".py")}
    judge = files["haaro/ota/updater.py"]
    quick = judge.replace(b"_HOLD_MS = const(10000)", b"_HOLD_MS = const(2000)")
    assert quick != judge
    return {**files, "haaro/ota/updater.py": quick}


def _start_box(fleet: Fleet, node: str) -> None:
    lab = fleet.lab
    folder = lab.run / f"box-{node}"
    for name, data in tree.initial(fleet.files, "UNIX", tree.SOURCES, tree.version(1)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    config = configuration.Files(lab.run).router_config(node)
    service = ["sh", "-c", _SERVICE, "box", system.micropython(), HEAP, str(folder), str(config)]
    lab.start(node, service)


def test_a_box_is_born_with_its_program_in_slot_a(fleet: Fleet) -> None:
    assert fleet.program("a") == (tree.version(1), "a", "running")


@pytest.mark.timeout(180)
def test_an_update_comes_by_the_tunnel_and_is_kept_once_it_has_registered(fleet: Fleet) -> None:
    """The server believes only who asks from the home address, which only the tunnel brings."""
    found = fleet.roll_out(fleet.bundle(2), "--site", "a", "--wait", "120")
    assert (found["state"], found["sites"]) == ("running", {"a": "done"})
    until(lambda: fleet.program("a") == (tree.version(2), "b", "running"), 20.0, "a has not r2")
    assert fleet.boot_file("a") == "b"
    assert fleet.program("b") == (tree.version(1), "a", "running"), "nobody else was offered it"
    slot = fleet.lab.run / "box-a" / "slots" / "b"
    assert (slot / "haaro/core/router.py").read_bytes() == fleet.files["haaro/core/router.py"]
    assert not list(slot.parent.glob("*.part"))


@pytest.mark.timeout(180)
def test_a_program_that_crashes_is_given_back_and_the_roll_out_stops(fleet: Fleet) -> None:
    until(lambda: fleet.program("a"), 30.0, "a is not up")
    before = fleet.program("a")
    broken = fleet.bundle(3, **{"haaro_router.py": "raise ValueError('broken')\n"})
    found = fleet.roll_out(broken, "--site", "a", "--wait", "120", status=1)
    assert (found["state"], found["sites"]) == ("stopped", {"a": "failed"})
    assert found["reason"].startswith("a failed")
    until(lambda: fleet.program("a")[:2] == before[:2], 30.0, "a is not back")
    assert fleet.boot_file("a") == f"{before[1]} failed"


@pytest.mark.timeout(180)
def test_a_program_that_never_registers_gives_itself_back(fleet: Fleet) -> None:
    """Its trial is shortened and it is told another home agent; the judge is the one it brings."""
    until(lambda: fleet.program("b"), 30.0, "b is not up")
    deaf = {
        "haaro/ota/updater.py": fleet.files["haaro/ota/updater.py"]
        .decode()
        .replace("_TRIAL_MS = const(180000)", "_TRIAL_MS = const(4000)"),
        "haaro_router.py": fleet.files["haaro_router.py"]
        .decode()
        .replace("    loaded = config.load(path, staged)\n",
                 "    loaded = config.load(path, staged)\n"
                 "    loaded[0].home_agent = bytes((192, 0, 2, 99))\n"),
    }  # fmt: skip
    assert all(text.encode() != fleet.files[name] for name, text in deaf.items())
    found = fleet.roll_out(fleet.bundle(4, **deaf), "--site", "b", "--wait", "120", status=1)
    assert (found["state"], found["sites"]) == ("stopped", {"b": "failed"})
    until(lambda: fleet.program("b")[:2] == (tree.version(1), "a"), 30.0, "b is not back")


@pytest.mark.timeout(180)
def test_after_a_failure_the_next_release_goes_to_all(fleet: Fleet) -> None:
    found = fleet.roll_out(fleet.bundle(5), "--percent", "100", "--wait", "140")
    assert found["sites"] == {"a": "done", "b": "done", "c": "done"}
    until(
        lambda: all(fleet.program(node)[:1] == (tree.version(5),) for node in "abc"),
        30.0,
        "not all have release 5",
    )
    assert fleet.status("c")["heap"]["free"] > 20000
