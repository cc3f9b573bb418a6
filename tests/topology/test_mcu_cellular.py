"""Office A on a simulated microcontroller behind a modem at its UART.

    host ah - chip - SPI - A (unix port) - UART - modem - slirp - internet - home agent, C

The modem is tests/modem_sim, the network somebody else's PPP and NAT, the UART as fast as its baud
rate. Tests run in order.
"""

import contextlib
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from haaro_host.lab import plan
from haaro_host.lab.lab import Lab
from haaro_host.lab.traffic import Hosts, Transfer
from tests.modem_sim import peer

from .conftest import ARTIFACTS, NAME, until
from .test_mcu import Board

pytestmark = pytest.mark.timeout(180)
A, C = plan.office("a"), plan.office("c")
_ROOT = Path(__file__).resolve().parents[2]
_PIN = "4711"
_HEAP = "528k"  # the modem's modules and buffers: docs/cellular.md
_SLIRP_ADDRESS = "10.0.2.15"
_UPLINK: dict[str, object] = {
    "name": "lte", "driver": "cellular", "port": "UART1", "baud": 921600, "apn": "internet",
    "profile": "sim7600", "power_key": "MODEM_KEY", "reset": "MODEM_RESET",
}  # fmt: skip


def _layout() -> plan.Layout:
    """A has no wire to the internet: the modem's node has it; the chip has the LAN's address."""
    nodes = [
        replace(node, gateway=None, forwards=False, routes=()) if node.name == "a" else node
        for node in plan.NODES
    ]
    nodes.append(plan.Node("cell", gateway=A.gateway))
    links = []
    for link in plan.LINKS:
        if link.right[0] == "a":
            link = replace(link, right=("cell", *link.right[1:]))
        if link.left[0] == "a":
            link = replace(link, left=(*link.left[:2], ""))
        links.append(link)
    return plan.Layout(offices=(A, C), nodes=tuple(nodes), links=tuple(links), uplinks={})


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest, privileged: None) -> Iterator[Board]:
    """Its modem's network is slirp."""
    if peer.why_not_here():
        pytest.skip(peer.why_not_here())
    yield from board_with_modem(request, "u", _UPLINK, 'mux="yes"', settings=peer.SETTINGS)


def board_with_modem(
    request: pytest.FixtureRequest,
    suffix: str,
    uplink: dict[str, object],
    *modem_is: str,
    settings: dict[str, object] | None = None,
) -> Iterator[Board]:
    """The lab with its home agent and C; A has power, its modem asks for a PIN.

    suffix: of the lab's name; modem_is: KEY=JSON of the simulated modem's Behaviour;
    settings: more of router.json.
    """
    if not shutil.which("ethtool"):
        pytest.skip("needs the Debian package ethtool")
    out = ARTIFACTS / request.module.__name__.rpartition(".")[2]
    shutil.rmtree(out, ignore_errors=True)
    place, modem = out / "board", out / "modem"
    place.mkdir(parents=True)
    lab = Lab(f"{NAME}{suffix}", out / "logs", True, _layout())
    made = Board(lab, Hosts(lab.name, plan.HOST_ADDRESS, out / "logs"), place)
    before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            lab.environment["cell"] = {"PYTHONPATH": str(_ROOT)}
            words = [sys.executable, "-m", "tests.modem_sim", str(modem)]
            for each in ('sim="pin"', *modem_is):
                words += ["--set", each]
            lab.start("cell", words)
            made.modem_secrets = [{"uplink": "lte", "pin": _PIN}]
            made.more_environment = {
                "MCU_SIM_UART": str(modem / "port"),
                "MCU_SIM_LINES": f"25={modem}/power_key 26={modem}/reset",
            }
            made.heap = _HEAP
            made.more_settings = settings or {}
            made.write_files(uplink)
            made.around()
            made.start_chip()
            lab.start_home_agent()
            lab.start_router("c")
            lab.wait_registered("c")
            until(lambda: (modem / "port").exists(), 5.0, "the modem does not start")
            made.start()
        yield made
        broken = request.session.testsfailed > before
    finally:
        lab.down()
        made.console.close()
        if not broken:
            shutil.rmtree(out)


def _order(board: Board, **what: object) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(json.dumps(what).encode(), str(board.place.parent / "modem" / "control"))


def test_the_board_comes_onto_the_home_agent_through_the_modem(board: Board) -> None:
    until(lambda: board.registered(_SLIRP_ADDRESS), 40.0, "A does not register")
    status = board.status()
    (uplink,) = status["uplinks"]
    modem = uplink["modem"]
    assert (modem["state"], modem["operator"], modem["signal_dbm"]) == ("up", "Testnet", -79)
    assert uplink["link"]["bound_to"] == "modem0"
    home_agent = board.lab.node_status("ha")
    assert home_agent is not None
    bound = {each["name"]: each["binding"] for each in home_agent["routers"]}
    assert bound["A"]["nat"] is True and bound["A"]["tunnel_end"] == A.care_of_address
    assert not (board.place / "router.secrets.json.lte.pin").exists()


def test_traffic_passes_both_ways_by_the_home_agent(board: Board) -> None:
    """There is no direct path behind slirp: tests/modem_sim/peer.py."""
    board.reaches(A.host, C.host)
    board.reaches(C.host, A.host)
    for source, sink in ((A.host, C.host), (C.host, A.host)):
        transfer = Transfer(board.hosts, source, sink, 50_000, None, f"{source}-{sink}")
        assert transfer.result().match
    counted = board.status()["uplinks"][0]["modem"]
    assert counted["octets"] > 100_000 and counted["bad_frames"] == 0
    assert counted["ip"]["fragments"] == counted["ip"]["malformed"] == 0


def test_the_network_that_goes_and_comes_back_is_found_again(board: Board) -> None:
    _order(board, lost=True)

    def seen() -> bool:
        # On a busy machine the console's answer may be late.
        with contextlib.suppress(AssertionError, ValueError):
            return not board.status()["uplinks"][0]["up"]
        return False

    until(seen, 15.0, "the end of the call is not seen")
    _order(board, lost=False)
    until(lambda: board.registered(_SLIRP_ADDRESS), 40.0, "A does not register again")


def test_traffic_comes_back_with_the_network(board: Board) -> None:
    """After the test above."""
    board.reaches(A.host, C.host)
