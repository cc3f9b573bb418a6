"""Office A behind a modem on a serial line: simulated modem, foreign PPP and NAT, real router.

    host ah - A (unix port) - pty - modem - slirp - internet - home agent, C

Tests run in order.
"""

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haaro_host.lab import plan, processes, system
from haaro_host.lab.lab import Lab, registered
from haaro_host.lab.traffic import Hosts, Transfer
from tests.modem_sim import peer

from .conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.timeout(180)
A, C = plan.office("a"), plan.office("c")
_ROOT = Path(__file__).resolve().parents[2]
_REGISTER_MS = 700
# docs/cellular.md: what the driver takes until it finds a dead call, hangs up and dials again.
_SILENT_CALL_S = 20 + 7
_PIN = "4711"
_SLIRP_ADDRESS = "10.0.2.15"


class Cellular:
    """The lab with A's only uplink through the modem."""

    def __init__(self, lab: Lab, modem: Path) -> None:
        self.lab = lab
        self.modem = modem

    def order(self, **what: object) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(json.dumps(what).encode(), str(self.modem / "control"))

    def uplink(self) -> dict[str, Any]:
        found = self.lab.node_status("a")
        assert found is not None, "A does not answer"
        return dict(found["uplinks"][0])

    def said(self) -> list[dict[str, Any]]:
        """What the modem has printed."""
        log = Path(self.lab.state.processes["cell"].log).read_text().splitlines()
        return [json.loads(line) for line in log if line.startswith("{")]


def _layout(modem: Path) -> plan.Layout:
    """A has no wire to the internet: the modem's node has it."""
    nodes = [replace(node, gateway=None) if node.name == "a" else node for node in plan.NODES]
    nodes.append(plan.Node("cell", gateway=A.gateway))
    links = []
    for link in plan.LINKS:
        if link.right[0] == "a":
            link = replace(link, right=("cell", *link.right[1:]))
        links.append(link)
    uplink = {
        "name": "lte",
        "driver": "cellular",
        "port": str(modem / "port"),
        "baud": 921600,
        "apn": "internet",
        "power_key": str(modem / "power_key"),
        "reset": str(modem / "reset"),
    }
    return plan.Layout(
        offices=(A, C), nodes=tuple(nodes), links=tuple(links), uplinks={"a": [uplink]}
    )


@pytest.fixture(scope="module")
def office(request: pytest.FixtureRequest, privileged: None) -> Iterator[Cellular]:
    """The lab with its home agent and C; the modem has power, A is not started."""
    if peer.why_not_here():
        pytest.skip(str(peer.why_not_here()))
    out = ARTIFACTS / request.module.__name__.rpartition(".")[2]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    modem = out / "modem"
    lab = Lab(f"{NAME}m", out / "logs", True, _layout(modem))
    before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            _give_pin(lab.files.router_secrets("a"))
            _behind_slirp(lab.files.router_config("a"))
            lab.environment["cell"] = {"PYTHONPATH": str(_ROOT)}
            words = [sys.executable, "-m", "tests.modem_sim", str(modem)]
            words += ["--set", 'sim="pin"', "--set", f"register_ms={_REGISTER_MS}"]
            words += ["--set", 'chatter="+CREG: 2"']
            lab.start("cell", words)
            lab.start_home_agent()
            lab.start_router("c")
            lab.wait_registered("c")
        until(lambda: (modem / "port").exists(), 5.0, "the modem does not start")
        yield Cellular(lab, modem)
        broken = request.session.testsfailed > before
    finally:
        lab.down()
        if not broken:
            shutil.rmtree(out)


def _behind_slirp(path: Path) -> None:
    whole = {**json.loads(path.read_text()), **peer.SETTINGS}
    processes.write_atomically(path, json.dumps(whole))


def _give_pin(path: Path) -> None:
    whole = {**json.loads(path.read_text()), "modems": [{"uplink": "lte", "pin": _PIN}]}
    processes.write_atomically(path, json.dumps(whole), 0o600)


def test_router_comes_onto_the_home_agent_through_the_modem(office: Cellular) -> None:
    office.lab.start_router("a")
    until(lambda: office.lab.node_status("a"), 10.0, "A does not answer")
    assert "modem" in office.uplink()  # also before the first call
    office.lab.wait_registered("a", 20.0)
    status = office.lab.node_status("a")
    assert status is not None
    assert status["registration"]["care_of_address"] == _SLIRP_ADDRESS
    modem = office.uplink()["modem"]
    assert (modem["state"], modem["operator"], modem["signal_dbm"]) == ("up", "Testnet", -79)
    home_agent = office.lab.node_status("ha")
    assert home_agent is not None
    bound = {each["name"]: each["binding"] for each in home_agent["routers"]}
    # The home agent sees the address of the network's NAT.
    assert bound["A"]["nat"] is True
    assert bound["A"]["tunnel_end"] == A.care_of_address


def test_the_pin_was_given_once_and_its_mark_is_gone(office: Cellular) -> None:
    given = [each["event"] for each in office.said() if each["event"].startswith("AT+CPIN=")]
    assert given == [f'AT+CPIN="{_PIN}"']
    secrets = office.lab.files.router_secrets("a")
    assert not secrets.with_name(secrets.name + ".lte.pin").exists()


def test_user_traffic_passes_both_ways(office: Cellular) -> None:
    hosts = Hosts(office.lab.name, plan.HOST_ADDRESS, ARTIFACTS / "cellular-hosts")
    try:
        assert hosts.ping(A.host, C.host, count=5) > 0
        assert hosts.ping(C.host, A.host, count=5) > 0
        for source, sink in ((A.host, C.host), (C.host, A.host)):
            transfer = Transfer(hosts, source, sink, 300_000, None, f"{source}-{sink}")
            assert transfer.result().match
    finally:
        shutil.rmtree(ARTIFACTS / "cellular-hosts", ignore_errors=True)


def test_a_call_that_dies_unseen_is_dialled_again(office: Cellular) -> None:
    office.order(hang="escape")
    within = _SILENT_CALL_S + 5.0
    until(lambda: not office.uplink()["up"], within, "the dead call is not seen")
    until(lambda: office.uplink()["up"], within, "the modem is not brought back")
    until(lambda: registered(office.lab.node_status("a")), 10.0, "A does not register again")
    assert office.uplink()["modem"]["recoveries"] == 1


def test_the_network_that_goes_and_comes_back_is_found_again(office: Cellular) -> None:
    office.order(lost=True)
    until(lambda: not office.uplink()["up"], 5.0, "the end of the call is not seen")
    office.order(lost=False)
    until(lambda: office.uplink()["up"], 15.0, "the call is not made anew")
    until(lambda: registered(office.lab.node_status("a")), 10.0, "A does not register again")


def test_the_router_that_ends_takes_its_link_along(office: Cellular) -> None:
    assert office.lab.stop_node("a") == "a: stopped"
    assert "modem0" not in system.run(office.lab.inside("a", ["ip", "-o", "link"]))
