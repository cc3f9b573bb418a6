"""Keys are rotated and a box is revoked under traffic, as docs/keys.md tells to; tests in order."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from haaro_host.lab import plan, processes, system
from haaro_host.lab.lab import Lab, ask
from haaro_host.lab.traffic import Hosts, Probe
from tests.fleet.terminal import Terminal

from .conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.timeout(240)
_RATE = 100.0
# What the home agent grants: renewals come after 15 s.
_LIFETIME_S = 20
_RENEWED_S = 40.0
_PASSPHRASE = "a fleet in a lab"
A, B, C = plan.OFFICES


@dataclass
class Fleet:
    """The lab, run from files that `haaro fleet export` wrote."""

    lab: Lab
    hosts: Hosts
    directory: Path
    probe: Probe | None = None
    bindings: list[int] = field(default_factory=list)

    def haaro(self, *arguments: str, status: int = 0) -> str:
        """Run the command line on this fleet; what it printed."""
        done = subprocess.run(
            [*system.haaro_command(), *arguments],
            env={
                **os.environ,
                "HAARO_FLEET": str(self.directory / "fleet.toml"),
                "HAARO_PASSPHRASE": _PASSPHRASE,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def deliver(self, *nodes: str) -> None:
        """Hand boxes their files, and let each take its keys."""
        self.haaro("fleet", "export", "router", *nodes, "--out", str(self.lab.run))
        for node in nodes:
            assert ask(self.lab.files.socket(node), "reload") == {"reloaded": True}

    def reload_home_agent(self) -> None:
        """Hand the home agent its files."""
        self.haaro("fleet", "export", "ha", "--out", str(self.lab.run / "ha"))
        done = self.haaro("ha", "reload", "--json", "--config", str(self.lab.files.ha_config))
        assert (json.loads(done)["schema"], json.loads(done)["reloaded"]) == (
            "haaro.ha.reload/1",
            True,
        )

    def keys(self, node: str) -> dict[int, dict[str, Any]]:
        """The live keys of a site by SPI, as `haaro keys show` tells them."""
        shown = json.loads(self.haaro("keys", "show", node, "--json"))
        return {each["spi"]: each for each in shown["sites"][node] if each["state"] != "retired"}

    def home_agent(self) -> dict[str, Any]:
        """Its status."""
        until(lambda: self.lab.node_status("ha"), 10.0, "the home agent does not answer")
        found = self.lab.node_status("ha")
        assert found is not None
        return found

    def binding(self, node: str) -> dict[str, Any] | None:
        """The home agent's binding of a site."""
        (found,) = [each for each in self.home_agent()["routers"] if each["name"] == node]
        return found["binding"]

    def peer(self, node: str, other: plan.Office) -> dict[str, Any]:
        """What a router says of another one; empty when it says nothing, or not in time."""
        status = self.lab.node_status(node) or {"peers": []}
        found = [each for each in status["peers"] if each["cr_hoa"] == other.home_address]
        return dict(found[0]) if found else {}

    def lost(self, since: float, until_: float) -> list[int]:
        """Datagrams between A and C that never arrived, each way."""
        assert self.probe is not None
        series = [self.probe.series(*pair) for pair in (("ch", "ah"), ("ah", "ch"))]
        for one in series:
            sent = sum(since <= at <= until_ for at in one.sent.values())
            assert sent > 0.8 * _RATE * (until_ - since), "the probe did not run"
        return [one.lost(since, until_) for one in series]


def _fleet_file(lab: Lab) -> str:
    sites = "".join(
        f'[site.{o.node}]\nhome_address = "{o.home_address}"\nprefixes = ["{o.lan_net}"]\n'
        f'realm = "{o.realm}"\npriority = {o.priority}\n'
        f'[site.{o.node}.router]\nsocket = "{lab.files.socket(o.node)}"\n'
        for o in plan.OFFICES
    )
    return (
        'version = 1\n[fleet]\nname = "lab"\nask_router = '
        f'"{" ".join(system.haaro_command())} status --json --socket {lab.run}/{{site}}.sock"\n'
        f'[home_agent]\naddress = "{plan.HOME_AGENT}"\n'
        f'home_addresses = ["{plan.HOME_ADDRESSES}"]\nhome_networks = ["{plan.HOME_NETWORK}"]\n'
        f'udp_lifetime_max = {_LIFETIME_S}\nstate = "{lab.files.ha_state}"\n'
        f'socket = "{lab.files.ha_socket}"\n'
        f'[defaults]\npeers = "all"\n[defaults.router]\n'
        'dataplane = "userspace"\n'
        'uplinks = [{ name = "wan", driver = "linux_netdev", interface = "wan" }]\n' + sites
    )


@pytest.fixture(scope="module")
def fleet(request: pytest.FixtureRequest, privileged: None) -> Iterator[Fleet]:
    """The lab, up, with traffic between A and C on the direct path, and its bindings watched."""
    out = ARTIFACTS / request.module.__name__.rpartition(".")[2]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True)
    made = Fleet(lab, Hosts(NAME, plan.HOST_ADDRESS, out / "logs"), lab.run / "fleet")
    failed_before = request.session.testsfailed
    broken = True
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            status = lab.node_status("ha")
            if status is not None:
                made.bindings.append(status["registered"])

    watcher = threading.Thread(target=watch)
    try:
        with lab.exclusively():
            lab.build()
            made.directory.mkdir()
            (made.directory / "fleet.toml").write_text(_fleet_file(lab))
            made.haaro("keys", "new")
            made.haaro("fleet", "export", "ha", "--out", str(lab.run / "ha"))
            made.haaro("fleet", "export", "router", "--all", "--out", str(lab.run))
            lab.start_all()
        watcher.start()
        made.probe = Probe(made.hosts, "ch", "ah", _RATE)
        yield made
        broken = request.session.testsfailed > failed_before
    finally:
        over.set()
        if made.probe:
            made.probe.stop()
        if watcher.ident is not None:
            watcher.join()
        lab.down()
        if not broken:
            shutil.rmtree(out)
        if ARTIFACTS.exists() and not os.listdir(ARTIFACTS):
            ARTIFACTS.rmdir()


def _why(fleet: Fleet) -> str:
    return f"not direct: {fleet.peer('a', C)} {fleet.peer('c', A)}"


def test_a_fleet_with_keys_of_its_pairs_goes_direct(fleet: Fleet) -> None:
    """A58: the exported rows agree at both ends, and return routability is not asked for."""
    until(
        lambda: _path(fleet) == fleet.peer("a", C).get("path") == "direct",
        20.0,
        "the exported keys made no direct path",
    )
    assert fleet.peer("a", C)["static_krm"]


def test_top_shows_the_fleet_as_it_is(fleet: Fleet) -> None:
    """On a terminal of 80 columns: who is registered, from where, and that A and C are direct."""
    environment = {**os.environ, "HAARO_FLEET": str(fleet.directory / "fleet.toml")}
    window = Terminal([*system.haaro_command(), "top", "--interval", "0.5"], environment)
    try:
        seen = window.until(lambda lines: sum(" 1/" in line for line in lines) >= 2)
        assert any("3 of 3 registered" in line for line in seen)
        assert all(len(line) <= 80 for line in seen)
        assert window.end() == 0
    finally:
        window.close()
    shown = json.loads(fleet.haaro("top", "--once", "--json"))
    by_name = {site["name"]: site for site in shown["sites"]}
    assert [by_name[o.node]["care_of_address"] for o in plan.OFFICES] == [
        o.care_of_address for o in plan.OFFICES
    ]
    assert (by_name["a"]["uplink"], by_name["a"]["direct"]) == ("wan", 1)
    assert by_name["a"]["off_home_agent_percent"] > 0
    assert 0 <= by_name["a"]["registered_s"] <= shown["home_agent"]["uptime_s"]


def test_a_rotation_under_traffic_loses_no_registration_and_no_packet(fleet: Fleet) -> None:
    """Issue: two keys live at once through a rotation without a lost registration."""
    began = time.time()
    mark = len(fleet.bindings)
    fleet.haaro("keys", "stage", "--all")
    fleet.haaro("keys", "stage", "--peers")
    assert "does not have SPI 257 yet" in fleet.haaro("keys", "activate", "--all", status=1)
    fleet.reload_home_agent()
    fleet.deliver("a", "b", "c")
    assert set(fleet.keys("a")) == {256, 257}
    fleet.haaro("keys", "activate", "--all")
    fleet.haaro("keys", "activate", "--peers")
    # B sleeps through it: it is refused nothing, and its old key is not taken away.
    fleet.deliver("a", "c")
    until(
        lambda: all(fleet.keys(node)[257]["last_used_s"] is not None for node in ("a", "c")),
        _RENEWED_S,
        "the new key was not used",
    )
    assert "has not registered with SPI 257" in fleet.haaro("keys", "retire", "b", status=1)
    fleet.deliver("b")
    until(lambda: fleet.keys("b")[257]["last_used_s"] is not None, _RENEWED_S, "B did not follow")
    fleet.haaro("keys", "retire", "--all")
    fleet.haaro("keys", "retire", "--peers")
    fleet.reload_home_agent()
    fleet.deliver("a", "b", "c")
    retired = time.monotonic()
    until(
        lambda: (
            fleet.keys("a")[257]["last_used_s"] < time.monotonic() - retired - 1
            and fleet.keys("c")[257]["last_used_s"] < time.monotonic() - retired - 1
        ),
        _RENEWED_S,
        "no renewal after the old key was retired",
    )
    assert set(fleet.keys("a")) == {257}
    ended = time.time() - 1.0
    assert set(fleet.bindings[mark:]) == {3}
    assert fleet.lost(began, ended) == [0, 0]
    counters = fleet.home_agent()["counters"]
    assert not {"unknown_spi", "bad_authenticator", "binding_expired"} & set(counters)
    until(lambda: _path(fleet) == "direct", 5.0, "the direct path was lost")


def _path(fleet: Fleet) -> str:
    return str(fleet.peer("c", A).get("path"))


def test_a_box_that_starts_with_the_new_keys_only_goes_direct(fleet: Fleet) -> None:
    """The next epoch of KRm is in use at both ends; the home agent knows the new SPI alone."""
    fleet.lab.stop_node("c")
    fleet.lab.start_router("c")
    fleet.lab.wait_registered("c")
    until(lambda: _path(fleet) == "direct", 20.0, _why(fleet))
    for node in ("a", "c"):
        until(lambda n=node: fleet.lab.node_status(n), 5.0, f"{node} does not answer")
        status = fleet.lab.node_status(node) or {}
        assert status["counters"].get("peer_request_bad_authenticator", 0) == 0


def test_a_bad_secrets_file_is_refused_and_the_old_keys_stay(fleet: Fleet) -> None:
    """`haaro router reload` says what is wrong, shows no key, and changes nothing."""
    secrets = fleet.lab.files.router_secrets("b")
    good = secrets.read_text()
    config = str(fleet.lab.files.router_config("b"))
    for bad in (good[:-4], good.replace('"spi": 257', '"spi": 255'), good.replace('"key"', '"k"')):
        secrets.write_text(bad)
        said = fleet.haaro("router", "reload", "--config", config, status=1)
        assert str(secrets) in said
        assert not any(word in said for word in re.findall("[0-9a-f]{40,}", good))
    secrets.write_text(good)
    secrets.chmod(0o644)
    assert "chmod 600" in fleet.haaro("router", "reload", "--config", config, status=1)
    secrets.chmod(0o600)
    began = time.monotonic()
    until(
        lambda: fleet.keys("b")[257]["last_used_s"] < time.monotonic() - began - 1,
        _RENEWED_S,
        "B did not renew with its old keys",
    )
    assert fleet.haaro("router", "reload", "--config", config) == "reloaded\n"


def test_one_command_revokes_a_stolen_box_within_five_seconds(fleet: Fleet) -> None:
    """P1: one theft is one router revoked, effective at the home agent in less than 5 s."""
    began = time.monotonic()
    worker = threading.Thread(
        target=fleet.haaro, args=("keys", "revoke", "c", "--reason", "stolen from a van")
    )
    worker.start()
    until(lambda: fleet.binding("c") is None, 5.0, "the binding is still there")
    assert time.monotonic() - began < 5.0
    worker.join(30)
    shown = json.loads(fleet.haaro("fleet", "list", "--json"))["sites"]
    assert {s["name"]: bool(s["revoked"]) for s in shown} == {"a": False, "b": False, "c": True}
    assert fleet.keys("c") == {}
    assert "revoked" in fleet.haaro("fleet", "export", "router", "c", status=1)
    # Its keys are still in its flash: it goes on asking and is refused.
    counters = fleet.home_agent()["counters"]
    assert processes.wait_until(
        lambda: (
            fleet.home_agent()["counters"].get("router_revoked", 0)
            > counters.get("router_revoked", 0)
            or fleet.lab.node_status("c") is None
        ),
        40.0,
    )
    assert fleet.binding("c") is None
    fleet.reload_home_agent()
    fleet.deliver("a", "b")
    assert [r["name"] for r in fleet.home_agent()["routers"]] == ["a", "b"]
    until(lambda: fleet.lab.node_status("a"), 5.0, "A does not answer")
    assert fleet.peer("a", C).get("path") != "direct", "the stolen box keeps its registration"
    rows = json.loads(fleet.lab.files.router_secrets("a").read_text())["peers"]
    assert [row["home_address"] for row in rows] == [B.home_address]


def test_a_new_box_takes_the_place_of_the_revoked_one(fleet: Fleet) -> None:
    """New keys with the home agent and with every peer, at the same home address."""
    fleet.lab.stop_node("c")
    before = json.loads(fleet.lab.files.router_secrets("c").read_text())
    fleet.haaro("keys", "new", "c", "--replacement")
    fleet.reload_home_agent()
    done = fleet.haaro("ha", "allow", "c", "--json", "--config", str(fleet.lab.files.ha_config))
    assert json.loads(done)["was_revoked"] is True
    fleet.deliver("a", "b")
    fleet.haaro("fleet", "export", "router", "c", "--out", str(fleet.lab.run))
    after = json.loads(fleet.lab.files.router_secrets("c").read_text())
    assert before["mobile_home"] != after["mobile_home"]
    assert not {row["krm"][0] for row in before["peers"]} & {r["krm"][0] for r in after["peers"]}
    fleet.lab.start_router("c")
    fleet.lab.wait_registered("c")
    until(lambda: _path(fleet) == "direct", 20.0, _why(fleet))
