"""Office A on a simulated microcontroller whose modem has a UDP socket of its own: no PPP.

    host ah - chip - SPI - A (unix port) - UART - modem with its stack - internet - home agent, C

The modem's address is private; its node is the NAT. Tests run in order.
"""

from collections.abc import Iterator

import pytest

from haaro_host.lab import plan
from haaro_host.lab.traffic import Transfer

from .conftest import until
from .test_mcu import Board
from .test_mcu_cellular import board_with_modem

pytestmark = pytest.mark.timeout(180)
A, C = plan.office("a"), plan.office("c")
_ADDRESS = "10.64.0.2"
_UPLINK: dict[str, object] = {
    "name": "lte", "driver": "cellular", "port": "UART1", "baud": 921600, "apn": "internet",
    "profile": "ec25", "data": "sockets", "power_key": "MODEM_KEY", "reset": "MODEM_RESET",
}  # fmt: skip


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest, privileged: None) -> Iterator[Board]:
    """Its modem's network is the modem's own stack; the line is not multiplexed."""
    yield from board_with_modem(request, "w", {**_UPLINK, "mux": False}, f'stack="{_ADDRESS}"')


def test_the_board_registers_by_the_modems_socket(board: Board) -> None:
    until(lambda: board.registered(_ADDRESS), 40.0, "A does not register")
    (uplink,) = board.status()["uplinks"]
    modem = uplink["modem"]
    assert (modem["state"], modem["stage"], modem["operator"]) == ("up", "up", "Testnet")
    home_agent = board.lab.node_status("ha")
    assert home_agent is not None
    bound = {each["name"]: each["binding"] for each in home_agent["routers"]}
    assert bound["A"]["nat"] is True and bound["A"]["tunnel_end"] == A.care_of_address


def test_transfers_pass_both_ways_by_the_socket(board: Board) -> None:
    """Each is compared by its digest."""
    board.reaches(A.host, C.host)
    for source, sink in ((A.host, C.host), (C.host, A.host)):
        transfer = Transfer(board.hosts, source, sink, 50_000, None, f"{source}-{sink}")
        assert transfer.result().match
    modem = board.status()["uplinks"][0]["modem"]
    assert modem["octets"] > 100_000 and modem["bad_frames"] == 0 and modem["recoveries"] == 0
    assert modem["ip"]["fragments"] == modem["ip"]["malformed"] == 0
