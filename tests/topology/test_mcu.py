"""Office A on a simulated microcontroller: device_main.py, Wi-Fi by a simulated `network`, the LAN
by a simulated W5500 chip that real hosts talk through.

    host ah - chip - SPI - A (unix port) - Wi-Fi "Office" or "Guest" - internet - home agent, C

A's program sees tuples for addresses, no local sockets, no kernel networking; its console is a pty.
Tests run in order.
"""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from haaro_host.lab import plan, processes, system
from haaro_host.lab.faults import layouts
from haaro_host.lab.lab import Lab
from haaro_host.lab.traffic import Hosts, Transfer

from .conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.timeout(240)
A, C = layouts.A, layouts.C
_ROOT = Path(__file__).resolve().parents[2]
_HEAP = "448k"
_PASSWORD = "canary-of-the-office"
_OFFICE_AP = {"ssid": "Office", "key": _PASSWORD, "bssid": "020000000001", "rssi": -60,
              "address": A.care_of_address, "mask": "255.255.255.192", "gateway": A.gateway,
              "interface": "wan"}  # fmt: skip
_GUEST_AP = {**_OFFICE_AP, "ssid": "Guest", "key": "", "bssid": "020000000002",
             "address": layouts.A_SECOND, "gateway": layouts.A_SECOND_GATEWAY,
             "interface": "wan2"}  # fmt: skip
_PINS = {"W5500_CS": 5, "W5500_SCK": 18, "W5500_MISO": 19, "W5500_MOSI": 23, "W5500_INT": 34,
         "W5500_RST": 27, "UPLINK_CS": 15, "UPLINK_SCK": 14, "UPLINK_MISO": 12, "UPLINK_MOSI": 13,
         "UPLINK_INT": 4, "UPLINK_RST": 2, "MODEM_TX": 17, "MODEM_RX": 16, "MODEM_KEY": 25,
         "MODEM_RESET": 26}  # fmt: skip
_WIFI = {"name": "wlan", "driver": "wifi",
         "networks": [{"ssid": "Office"}, {"ssid": "Guest", "open": True}]}  # fmt: skip


class Console:
    """The board's serial line."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave, termios.TCSANOW)
        self.path = os.ttyname(self._slave)
        self.said = b""

    def ask(self, command: str, wait_s: float = 10.0) -> str:
        """The answer to one command."""
        begin = len(self.said)
        os.write(self._master, b"\x15" + command.encode() + b"\r")
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            if select.select([self._master], [], [], 0.2)[0]:
                piece = os.read(self._master, 65536)
                self.said += piece
                with self._log.open("ab") as file:
                    file.write(piece)
            found = re.search(rb"(?s)(.*)\r?\n(ok|error: [^\r\n]*)\r?\n", self.said[begin:])
            if found:
                return found[1].decode(errors="replace")
        raise AssertionError(f"no answer to {command}: {self.said[-2000:]!r}")

    def close(self) -> None:
        os.close(self._master)
        os.close(self._slave)


class Board:
    """A's box and what is around it."""

    def __init__(self, lab: Lab, hosts: Hosts, place: Path) -> None:
        self.lab = lab
        self.hosts = hosts
        self.place = place
        self.console = Console(place / "console.log")
        self.modem_secrets: list[dict[str, str]] = []
        self.more_environment: dict[str, str] = {}
        self.more_settings: dict[str, object] = {}  # of router.json
        self.heap = _HEAP

    def around(
        self, *access_points: dict[str, object], cable: object = None, port: str = "esp32"
    ) -> None:
        world = {"port": port, "access_points": list(access_points), "cable": cable}
        processes.write_atomically(self.place / "world.json", json.dumps(world))

    def status(self) -> dict[str, Any]:
        text = self.console.ask("status json")
        return dict(json.loads(text[text.index("{") : text.rindex("}") + 1]))

    def registered(self, care_of_address: str) -> bool:
        """Whether the home agent is reached from there now: a registration outlives its uplink."""
        with contextlib.suppress(AssertionError, ValueError):
            status = self.status()
            registration = status["registration"]
            return bool(
                registration["registered"]
                and registration["care_of_address"] == care_of_address
                and registration["tunnel"]["up"]
                and any(each["up"] and each["in_use"] for each in status["uplinks"])
            )
        return False

    def reaches(self, source: str, destination: str) -> None:
        """Wait until pings pass."""

        def passes() -> bool:
            with contextlib.suppress(system.LabError):
                return self.hosts.ping(source, destination, count=2) > 0
            return False

        if not processes.wait_until(passes, 30.0, 0.05):
            raise AssertionError(f"{source} does not reach {destination}: {self._facts()}")

    def _facts(self) -> str:
        """What both ends of A's tunnel say, for a failure that nobody has seen yet."""
        facts: dict[str, Any] = {"home agent": self.lab.node_status("ha")}
        with contextlib.suppress(AssertionError, ValueError):
            facts["A"] = self.status()
        return json.dumps(facts)

    def path_to_c(self) -> str | None:
        peers = {peer["cr_hoa"]: peer["path"] for peer in self.status()["peers"]}
        return peers.get(C.home_address)

    def write_files(self, uplink: dict[str, object]) -> None:
        """What `haaro flash` puts on a board, and its pins."""
        whole = json.loads(self.lab.files.router_config("a").read_text())
        for key in ("socket", "tunnel_interface", "fast_lan"):
            whole.pop(key, None)
        whole.update(self.more_settings)
        whole["uplinks"] = [uplink]
        whole["lan"] = {"driver": "w5500", "address": f"{A.lan_router}/24"}
        whole["secrets"] = "router.secrets.json"
        whole["console"] = {"port": "stdin", "profile": "bench"}
        secrets = json.loads(self.lab.files.router_secrets("a").read_text())
        secrets["wifi"] = [{"ssid": "Office", "password": _PASSWORD}]
        secrets["modems"] = self.modem_secrets
        (self.place / "router.json").write_text(json.dumps(whole))
        processes.write_atomically(self.place / "router.secrets.json", json.dumps(secrets), 0o600)
        lines = [f"{name},GPIO{number}\n" for name, number in _PINS.items()]
        (self.place / "pins.csv").write_text("".join(lines))
        shutil.copy(_ROOT / "firmware" / "main.py", self.place / "haaro_router.py")
        shutil.copy(_ROOT / "firmware" / "device_main.py", self.place / "device_main.py")

    def start_chip(self) -> None:
        """The chip at A's LAN wire."""
        words = [sys.executable, "-m", "tests.w5500_sim.bridge", "--interface", "lan"]
        words += ["--socket", str(self.place / "spi"), "--control", str(self.place / "chip")]
        self.lab.environment["a"] = {"PYTHONPATH": str(_ROOT)}
        made = processes.start(
            self.lab.inside("a", words), self.place / "chip.log", True, self.lab.environment["a"]
        )
        self.lab.state.processes["a-chip"] = made
        until(lambda: (self.place / "spi").exists(), 10.0, "the chip does not start")
        # A chip sees whole packets with their checksums.
        off = [word for name in ("tx", "rx", "gso", "tso", "gro") for word in (name, "off")]
        system.run(self.lab.inside(A.host, ["ethtool", "-K", "eth0", *off]))

    def start(self, port: str = "esp32") -> None:
        """Power to a board of this port."""
        path = [_ROOT / "tests/mcu_sim/fakes", _ROOT / "tests/mcu_sim", _ROOT / "tests/w5500_sim",
                _ROOT / "firmware", self.place]  # fmt: skip
        self.lab.environment["a"] = {
            "MICROPYPATH": ":".join(map(str, path)),
            "MCU_SIM": str(self.place / "world.json"),
            "MCU_SIM_PORT": port,
            "MCU_SIM_SPI": str(self.place / "spi"),
            "MCU_SIM_PINS": "S={W5500_CS} P={W5500_RST} I={W5500_INT}".format(**_PINS),
            **self.more_environment,
        }
        run = f"exec {system.micropython()} -X heapsize={self.heap} device_main.py"
        line = f"cd {self.place} && {run} <{self.console.path} >{self.console.path}"
        self.lab.start("a", ["sh", "-c", line])


def _layout() -> plan.Layout:
    """A has no address of its own: Wi-Fi brings it, and the chip has the LAN's."""
    layout = layouts.layout(layouts.Wants(second_uplink=True))
    nodes = [
        replace(node, gateway=None, forwards=False, routes=()) if node.name == "a" else node
        for node in layout.nodes
    ]
    links = []
    for link in layout.links:
        left, right = [
            (node, port, "" if node == "a" else address)
            for node, port, address in (link.left, link.right)
        ]
        links.append(replace(link, left=left, right=right))
    return replace(layout, nodes=tuple(nodes), links=tuple(links), uplinks={})


@pytest.fixture(scope="module")
def board(request: pytest.FixtureRequest, privileged: None) -> Iterator[Board]:
    """The lab with its home agent and C; A has power and hears "Office"."""
    if not shutil.which("ethtool"):
        pytest.skip("needs the Debian package ethtool")
    out = ARTIFACTS / request.module.__name__.rpartition(".")[2]
    shutil.rmtree(out, ignore_errors=True)
    place = out / "board"
    place.mkdir(parents=True)
    lab = Lab(f"{NAME}b", out / "logs", True, _layout())
    made = Board(lab, Hosts(lab.name, layouts.HOSTS, out / "logs"), place)
    before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            made.write_files(_WIFI)
            made.around(_OFFICE_AP)
            made.start_chip()
            lab.start_home_agent()
            lab.start_router("c")
            lab.wait_registered("c")
            made.start()
        yield made
        broken = request.session.testsfailed > before
    finally:
        lab.down()
        made.console.close()
        if not broken:
            shutil.rmtree(out)


def test_the_board_joins_wifi_and_registers(board: Board) -> None:
    until(lambda: board.registered(A.care_of_address), 30.0, "A does not register")
    status = board.status()
    (uplink,) = status["uplinks"]
    assert uplink["link"]["ssid"] == "Office" and uplink["link"]["signal_dbm"] == -60
    assert uplink["link"]["bound_to"] == "st1", "its socket is pinned to the interface"
    assert status["data_plane"]["plane"] == "userspace"
    assert status["lan"]["link"] is True
    assert "local internet access (NAT)" in status["port"]["lacks"]
    assert _PASSWORD not in json.dumps(status)


def test_hosts_reach_each_other_by_the_home_agent_and_then_directly(board: Board) -> None:
    assert board.hosts.ping(A.host, C.host, count=5) > 0
    until(lambda: board.path_to_c() == "direct", 20.0, "A and C are not direct")
    assert board.hosts.ping(C.host, A.host, count=5) > 0
    for source, sink in ((A.host, C.host), (C.host, A.host)):
        transfer = Transfer(board.hosts, source, sink, 200_000, None, f"{source}-{sink}")
        assert transfer.result().match
    counters = board.status()["data_plane"]["counters"]
    assert counters["out_forwarded"] > 100 and counters["in_forwarded"] > 100


def test_an_empty_datagram_of_a_stranger_ends_nothing(board: Board) -> None:
    """esp32's socket is dead after one; anybody could send it."""
    code = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
    code += f"s.sendto(b'', ('{A.care_of_address}', 434))"
    system.run(board.lab.inside("c", [sys.executable, "-c", code]))
    until(lambda: board.status()["data_plane"]["own_loss"]["empty"], 10.0, "it did not arrive")
    board.reaches(A.host, C.host)
    board.reaches(C.host, A.host)


def test_wifi_that_drops_and_comes_back_is_registered_by_again(board: Board) -> None:
    board.around()
    until(lambda: not board.status()["uplinks"][0]["up"], 10.0, "the loss is not seen")
    assert "Office" in board.console.ask("show uplinks"), "the driver's reason, not only the core's"
    board.around(_OFFICE_AP)
    until(lambda: board.registered(A.care_of_address), 40.0, "A does not register again")
    board.reaches(A.host, C.host)


def test_the_second_network_is_taken_when_the_first_is_gone(board: Board) -> None:
    board.around(_GUEST_AP)
    until(lambda: board.registered(layouts.A_SECOND), 40.0, "A does not register by Guest")
    assert board.status()["uplinks"][0]["link"]["ssid"] == "Guest"
    board.reaches(C.host, A.host)
    until(lambda: board.path_to_c() == "direct", 30.0, "A and C are not direct again")


def test_what_a_board_cannot_do_is_said_and_the_console_goes_on(board: Board) -> None:
    before = str(board.status()["registration"]["care_of_address"])
    answer = board.console.ask('set internet "local"')
    assert "staged" in answer
    board.console.ask("apply")

    def said() -> bool:
        with contextlib.suppress(AssertionError):
            return "no NAT" in board.console.ask("show log")
        return False

    until(said, 20.0, "the refusal is not said")
    until(lambda: board.registered(before), 40.0, "the trial is not taken back")


@pytest.mark.parametrize(
    ("port", "driver", "bound_to"),
    [
        ("esp32", "ethernet", "eth0"),
        ("rp2", "ethernet", "the default route only"),
        ("rp2", "wifi", "the default route only"),
    ],
)
def test_other_uplinks_and_the_other_port(
    board: Board, port: str, driver: str, bound_to: str
) -> None:
    board.lab.kill("a")
    if driver == "wifi":
        board.around(_OFFICE_AP, port=port)
        board.write_files(_WIFI)
    else:
        board.around(cable=_OFFICE_AP, port=port)
        board.write_files({"name": "wire", "driver": driver})
    system.run(board.lab.inside("a", ["ip", "addr", "flush", "dev", "wan2"]))
    board.start(port)
    until(lambda: board.registered(A.care_of_address), 40.0, "A does not register")
    (uplink,) = board.status()["uplinks"]
    assert uplink["link"]["bound_to"] == bound_to
    board.reaches(A.host, C.host)
