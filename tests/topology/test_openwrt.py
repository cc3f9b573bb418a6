"""An OpenWrt box in the lab: its package's own init script brings the router up, and takes it down.

Real: the .ipk, busybox' shell, MicroPython, the router, its home agent, the packets. Stand-ins:
rc.common, functions.sh, procd (tests/openwrt/box). The box is a root directory in C's namespace.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from haaro_host.flash import openwrt
from haaro_host.fleet import uci_cli
from haaro_host.lab import plan, processes, system, topology
from haaro_host.lab.lab import Lab, ask, registered
from haaro_host.lab.traffic import Hosts
from tests.openwrt.conftest import box, of_this_machine

from .conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.timeout(240)


class Box:
    """The root directory, and what its operator does there."""

    def __init__(self, lab: Lab, root: Path) -> None:
        self.lab = lab
        self.root = root
        self.hosts = Hosts(NAME, plan.HOST_ADDRESS, lab.logs)
        self.socket = root / "var/run/haaro/office_c.sock"

    def run(self, *words: str, status: int = 0) -> str:
        """Run a command on the box; what it printed."""
        folders = ["/proc", "/sys", "/dev", *of_this_machine()]
        mounts = "".join(f"mount --rbind {each} {self.root}{each} && " for each in folders)
        inner = f'{mounts} exec chroot {self.root} "$@"'
        command = ["unshare", "-m", "sh", "-c", inner, "sh", *words]
        # The variables of this machine are not the box's: no other shell start files, no locale.
        clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        done = subprocess.run(
            topology.inside(NAME, "c", [*clean, *command]),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == status, (words, done.stdout, done.stderr, self.output())
        return done.stdout + done.stderr

    def service(self, action: str) -> str:
        return self.run("/etc/init.d/haaro", action)

    def output(self) -> str:
        """What the router printed."""
        path = self.root / "var/run/procd/output"
        return path.read_text() if path.exists() else ""

    def calls(self) -> list[str]:
        """What the init script told procd."""
        return (self.root / "var/run/procd/log").read_text().splitlines()

    def process(self) -> int:
        return int((self.root / "var/run/haaro/office_c/pid").read_text())

    def wait_up(self, other_than: int = 0) -> None:
        """Wait until the router, another process than that one, is registered."""
        up = processes.wait_until(lambda: self.up() and self.process() != other_than, 30.0, 0.05)
        assert up, (self.output(), self.calls())

    def up(self) -> bool:
        try:
            return registered(ask(self.socket, "status"))
        except (OSError, ValueError):
            return False  # nobody listens

    def reaches(self) -> bool:
        """Whether a few echoes from its office come back from A's."""
        try:
            return self.hosts.ping("ch", "ah", 3) > 0
        except system.LabError:
            return False

    def edit(self, old: str, new: str) -> None:
        path = self.root / "etc/config/haaro"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def links(self) -> str:
        return system.run(topology.inside(NAME, "c", ["ip", "-o", "link"]))


@pytest.fixture(scope="module")
def openwrt_box(request: pytest.FixtureRequest, privileged: None) -> Iterator[Box]:
    out = ARTIFACTS / "test_openwrt"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True)
    made = None
    failed_before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            (lab.run / "haaro.ipk").write_bytes(openwrt.ipk(openwrt.tree()))
            made = Box(lab, box(lab.run / "haaro.ipk", lab.run / "box"))
            _configure(lab, made.root)
            lab.start_home_agent()
            lab.start_router("a")
            lab.wait_registered("a")
        yield made
        broken = request.session.testsfailed > failed_before
    finally:
        if made is not None:
            _end(made)
        lab.down()
        if not broken:
            shutil.rmtree(out)
        if ARTIFACTS.exists() and not os.listdir(ARTIFACTS):
            ARTIFACTS.rmdir()


def _configure(lab: Lab, root: Path) -> None:
    """Give the box the lab's files for C: the UCI text by `haaro uci`, the secrets beside it."""
    document = json.loads(lab.files.router_config("c").read_text())
    document["dataplane"] = "userspace"
    text = uci_cli.section_text(document, "office_c", "router.json")
    (root / "etc/config/haaro").write_text(text)
    target = root / "etc/haaro/office_c/router.secrets.json"
    target.parent.mkdir(parents=True)
    shutil.copy(lab.files.router_secrets("c"), target)
    target.chmod(0o600)


def _end(made: Box) -> None:
    """End supervisor and router of a test that failed, by the ids that the stand-in has noted."""
    for path in made.root.glob("var/run/procd/run/*/*"):
        if path.name in ("supervisor", "process"):
            with suppress(OSError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)


def test_start_brings_the_router_up_and_its_office_reaches_the_other(openwrt_box: Box) -> None:
    box = openwrt_box
    box.run("/bin/sh", "/control/postinst")
    assert (box.root / "etc/rc.d/S95haaro").is_symlink()
    box.service("start")
    box.wait_up()
    assert box.hosts.ping("ch", "ah", 20) > 0
    calls = box.calls()
    assert "set_param respawn 3600 5 0" in calls and "reload_trigger haaro" in calls
    assert "set_param file /var/run/haaro/office_c/router.json" in calls
    status = json.loads(box.run("/usr/sbin/haaro-router", "office_c"))
    assert status["registration"]["registered"]
    said = box.run("/usr/sbin/haaro-router", "nobody", status=2)
    assert "no router runs as section 'nobody'; there are: office_c" in said


def test_reload_without_a_change_leaves_the_process_alone(openwrt_box: Box) -> None:
    box = openwrt_box
    before = box.process()
    box.service("reload")
    assert (box.process(), box.up()) == (before, True)


def test_a_bad_change_is_said_and_the_router_goes_on_as_it_was(openwrt_box: Box) -> None:
    box = openwrt_box
    before = box.process()
    box.edit("option lifetime '300'", "option lifetime 'soon'")
    said = box.service("reload")
    assert "lifetime: 'soon': must be a whole number" in said
    assert "office_c: its configuration is refused" in said
    assert (box.process(), box.up()) == (before, True)
    box.edit("option lifetime 'soon'", "option lifetime '300'")


def test_a_changed_option_restarts_it_in_order(openwrt_box: Box) -> None:
    box = openwrt_box
    before = box.process()
    box.edit("option lifetime '300'", "option lifetime '240'")
    box.service("reload")
    box.wait_up(before)
    ended = [line for line in box.calls() if line.startswith("ended office_c")]
    assert ended == ["ended office_c 0"], "it was asked to stop, not killed"
    made = json.loads((box.root / "var/run/haaro/office_c/router.json").read_text())
    assert made["lifetime"] == 240
    until(box.reaches, 15.0, "no traffic after the restart")


def test_a_router_that_died_is_started_again(openwrt_box: Box) -> None:
    box = openwrt_box
    before = box.process()
    os.kill(before, signal.SIGKILL)
    box.wait_up(before)


def test_a_disabled_section_is_stopped_and_leaves_no_link_behind(openwrt_box: Box) -> None:
    box = openwrt_box
    assert "haaro0" in box.links()
    box.edit("option enabled '1'", "option enabled '0'")
    box.service("reload")
    until(lambda: "haaro0" not in box.links(), 10.0, "haaro0 is still there")
    assert not box.up()
    box.edit("option enabled '0'", "option enabled '1'")


def test_stop_takes_everything_back(openwrt_box: Box) -> None:
    box = openwrt_box
    box.service("start")
    box.wait_up()
    box.service("stop")
    until(lambda: "haaro0" not in box.links(), 10.0, "haaro0 is still there")
    rules = system.run(topology.inside(NAME, "c", ["ip", "rule"]))
    assert "434" not in rules
    assert not list((box.root / "var/run/procd/run").iterdir())
    assert "Traceback" not in box.output()
