"""Two uplinks on real processes: drained, unplugged, returned to, under traffic; tests in order."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from haaro_host.lab import processes, system
from haaro_host.lab.faults import layouts
from haaro_host.lab.lab import Lab
from haaro_host.lab.traffic import Hosts, Probe

from .conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.timeout(180)
_RATE = 100.0
_RETURN_S = 4
A, C = layouts.A, layouts.C


class Office:
    """A with uplinks `wan` and `wan2`, and C; a probe between their hosts."""

    def __init__(self, lab: Lab, hosts: Hosts) -> None:
        self.lab = lab
        self.hosts = hosts
        self.probes: list[Probe] = []

    def router(self, *words: str, status: int = 0) -> str:
        """Run `haaro router ...` on A; what it printed."""
        config = str(self.lab.files.router_config(A.node))
        done = subprocess.run(
            [*system.haaro_command(), "router", *words, "--config", config],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def uplinks(self) -> dict[str, dict[str, Any]]:
        """What A says of its uplinks, by name."""
        found = self.lab.node_status(A.node)
        assert found is not None
        return {uplink["name"]: uplink for uplink in found["uplinks"]}

    def in_use(self, name: str) -> bool:
        return bool(self.uplinks()[name]["in_use"])

    def direct_by(self, care_of_address: str) -> bool:
        """Whether A and C are direct both ways, A from this address."""
        ends = []
        for node, other in ((A.node, C), (C.node, A)):
            status = self.lab.node_status(node)
            assert status is not None
            peers = {peer["cr_hoa"]: peer for peer in status["peers"]}
            peer = peers.get(other.home_address)
            if peer is None or peer["path"] != "direct":
                return False
            ends.append(peer["tunnel"])
        return bool(ends[0]["local"] == care_of_address)

    def flowed(self, seconds: float) -> None:
        """Wait until what was sent so much later arrived both ways, and half a second more."""
        then = time.time() + seconds

        def arrived() -> bool:
            ways = ((A.host, C.host), (C.host, A.host))
            series = [self.probes[-1].series(one, other) for one, other in ways]
            return all(max(each.received.values(), default=0.0) > then + 0.5 for each in series)

        until(arrived, seconds + 10.0, "the probe does not go on")

    def lost(self, since: float, until_s: float) -> list[int]:
        """Datagrams lost both ways between two times."""
        ways = ((A.host, C.host), (C.host, A.host))
        series = [self.probes[-1].series(one, other) for one, other in ways]
        assert all(max(each.sent.values()) > until_s - 1 for each in series)
        return [each.lost(since, until_s) for each in series]


@pytest.fixture(scope="module")
def office(request: pytest.FixtureRequest, privileged: None) -> Iterator[Office]:
    """The lab, A and C direct, the probe running."""
    out = ARTIFACTS / request.module.__name__.rpartition(".")[2]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    layout = layouts.layout(layouts.Wants(second_uplink=True))
    lab = Lab(f"{NAME}u", out / "logs", True, layout)
    hosts = Hosts(lab.name, layouts.HOSTS, out / "logs")
    made = Office(lab, hosts)
    before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            path = lab.files.router_config(A.node)
            whole = {**json.loads(path.read_text()), "policy": {"return_s": _RETURN_S}}
            processes.write_atomically(path, json.dumps(whole))
            lab.start_all()
        hosts.ping(C.host, A.host, count=3)
        made.probes.append(Probe(hosts, A.host, C.host, _RATE))
        until(lambda: made.direct_by(A.care_of_address), 20.0, "A and C are not direct")
        made.flowed(1.0)
        yield made
        broken = request.session.testsfailed > before
    finally:
        for probe in made.probes:
            probe.stop()
        lab.down()
        if not broken:
            shutil.rmtree(out)


def test_drain_moves_everything_without_loss(office: Office) -> None:
    """R3.3.6-4: both care-of addresses, on real processes."""
    start = time.time()
    answer = json.loads(office.router("drain", "wan"))
    assert (answer["uplink"], answer["drained"]) == ("wan", True)
    until(lambda: office.in_use("wan2"), 10.0, "A keeps the drained uplink")
    until(lambda: office.direct_by(layouts.A_SECOND), 15.0, "not direct by the other uplink")
    assert office.uplinks()["wan"]["why"] == "the operator drains it"
    office.flowed(1.0)
    assert office.lost(start, time.time() - 0.5) == [0, 0]


def test_drained_uplink_can_be_unplugged_and_plugged_in_without_loss(office: Office) -> None:
    office.flowed(10.0)  # packets in flight to the old address have had their time
    start = time.time()
    office.hosts.run(A.node, ["ip", "link", "set", "wan", "down"], 5)
    until(lambda: not office.uplinks()["wan"]["up"], 5.0, "A does not see that wan is down")
    office.hosts.run(A.node, ["ip", "link", "set", "wan", "up"], 5)
    words = ["ip", "route", "replace", "default", "via", A.gateway, "dev", "wan"]
    office.hosts.run(A.node, words, 5)
    until(lambda: office.uplinks()["wan"]["up"], 5.0, "A does not see that wan is back")
    office.flowed(_RETURN_S + 1.0)
    assert office.in_use("wan2")  # still drained
    assert office.lost(start, time.time() - 0.5) == [0, 0]


def test_uplink_that_is_given_back_is_returned_to_without_loss(office: Office) -> None:
    """U5 of the users."""
    start = time.time()
    assert json.loads(office.router("drain", "wan", "--undo"))["drained"] is False
    until(lambda: office.in_use("wan"), _RETURN_S + 10.0, "A does not return")
    assert time.time() - start >= _RETURN_S
    until(lambda: office.direct_by(A.care_of_address), 15.0, "not direct by the first uplink")
    office.flowed(1.0)
    assert office.lost(start, time.time() - 0.5) == [0, 0]


def test_unknown_uplink_is_refused_with_the_names(office: Office) -> None:
    said = office.router("drain", "dsl", status=2)
    assert said.strip().endswith("no uplink dsl; its uplinks: wan, wan2")


def test_status_says_why(office: Office) -> None:
    shown = office.router("status")
    assert "in use" in shown and "standby" in shown
