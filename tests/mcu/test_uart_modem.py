"""A modem at a board's UART: octets as the UART sends them, on a fake clock, behind it slirp."""

import types
from pathlib import Path

import pytest

from haaro.platform.lwip_sockets import LwipSockets
from haaro.uplink import base, uart_modem
from tests.lan.conftest import checksum
from tests.modem_sim import peer
from tests.modem_sim.modem import Behaviour, Modem

SOURCE = Path(uart_modem.__file__)
SLIRP, FAR = bytes([10, 0, 2, 15]), bytes([203, 0, 113, 9])
UPLINK = {
    "name": "lte", "driver": "cellular", "interface": "modem0", "port": "uart1", "baud": 9600,
    "apn": "", "user": "", "profile": "generic", "roaming": False, "mux": True, "data": "ppp",
    "data_cap_mb": 0, "power_key": "MODEM_KEY", "reset": None,
}  # fmt: skip


class Uart:
    """A UART on a clock of milliseconds; a write that would have to wait is a failure."""

    def __init__(self, clock, baud):
        self.clock = clock
        self.ms = 10000 / baud
        self.done_at = 0.0
        self.out = []  # (when it has left, octets)
        self.came = b""

    def any(self):
        return len(self.came)

    def readinto(self, buffer):
        part, self.came = self.came[: len(buffer)], self.came[len(buffer) :]
        buffer[: len(part)] = part
        return len(part) or None

    def txdone(self):
        return self.clock.now >= self.done_at

    def write(self, octets):
        assert len(octets) <= uart_modem.TX_OCTETS, "it would wait for room"
        assert self.txdone(), "it would wait for what was written before"
        self.done_at = max(self.done_at, self.clock.now) + len(octets) * self.ms
        self.out.append((self.done_at, bytes(octets)))
        return len(octets)


class Pin:
    def __init__(self):
        self.levels = []

    def value(self, level):
        self.levels.append(level)


class Rig:
    """The link, its cable, a simulated modem and slirp."""

    def __init__(self, path, module=uart_modem, behaviour=None, **change):
        self.now = 0
        self.sim = Modem(behaviour or Behaviour())
        uplink = {**UPLINK, **change}
        self.uart = Uart(self, uplink["baud"])
        self.key = Pin()
        secrets = {"password": "", "pin": ""}
        self.link = module.UartModem(
            self.uart, {"power_key": self.key}, uplink, secrets, str(path / "lte"),
            lambda octets: bytes(range(octets)),
        )  # fmt: skip
        self.peer = None
        self.line = bytearray()  # all that was sent, when it has left

    def step(self):
        self.now += 1
        if self.link.event.ioctl(3, 1):
            self.link.handle(self.now)
        if self.link.next_deadline() <= self.now:
            self.link.handle_timer(self.now)
        while self.key.levels:
            self.sim.set_line(self.now, "power_key", self.key.levels.pop(0))
        while self.uart.out and self.uart.out[0][0] <= self.now:
            octets = self.uart.out.pop(0)[1]
            self.line += octets
            self.sim.receive(self.now, octets)
        self._network()
        self.uart.came += self.sim.poll(self.now)

    def _network(self):
        if not self.sim.data_mode:
            return
        if self.peer is None:
            self.peer = peer.Peer()
        sent = bytes(self.sim.to_network)
        self.sim.to_network.clear()
        if sent:
            self.peer.write(sent)
        came = self.peer.read(0.05 if sent else 0.0)
        if came:
            self.sim.from_network(self.now, came)

    def until(self, condition, within_ms):
        end = self.now + within_ms
        while not condition():
            assert self.now < end, (self.link.state, self.link.reason, self.sim.commands[-5:])
            self.step()

    def until_up(self, within_ms=30000):
        self.link.start(self.now)
        self.until(lambda: self.link.state == base.UP, within_ms)
        assert self.link.address == SLIRP
        self.line.clear()
        return self.link.open(SLIRP)

    def packets(self):
        """The IPv4 packets that have left, out of their frames (RFC 1662)."""
        found = []
        for frame in bytes(self.line).split(b"\x7e"):
            octets = bytearray()
            escaped = False
            for octet in frame:
                if octet == 0x7D:
                    escaped = True
                    continue
                octets.append(octet ^ 0x20 if escaped else octet)
                escaped = False
            if octets[:4] == b"\xff\x03\x00\x21":
                found.append(bytes(octets[4:-2]))
        return found

    def close(self):
        if self.peer:
            self.peer.close()


@pytest.fixture
def rig(tmp_path):
    """Make a link and what is around it."""
    if peer.why_not_here():
        pytest.skip(str(peer.why_not_here()))
    made = []

    def make(*arguments, **change):
        made.append(Rig(tmp_path, *arguments, **change))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _urgent_passes_data(one):
    """On 9600 baud a packet of 1028 takes a second; three wait when a control packet comes."""
    udp = one.until_up()
    for i in range(3):
        udp.sendto(bytes([i]) * 900, (FAR, 434))
    one.until(lambda: len(one.line) > 100, 2000)
    udp.urgent(b"keepalive", (FAR, 4340))
    one.until(lambda: len(one.packets()) >= 4, 10000)
    order = [packet[28:30] for packet in one.packets()]
    assert order == [b"\0\0", b"ke", b"\1\1", b"\2\2"], "behind one packet, the one on the line"
    return one.packets()


def test_a_control_packet_waits_for_one_packet_at_most_on_a_slow_line(rig):
    packets = _urgent_passes_data(rig())
    assert [packet[1] for packet in packets] == [0, 0xC0, 0, 0], "CS6, as on Linux"


@pytest.mark.parametrize(
    ("search", "replace"),
    [
        ("self._urgent.pop(0) if self._urgent else self._take_data()",
         "self._take_data() if self._data else self._urgent.pop(0)"),
        ("self._full = not self._uart.txdone()", "self._full = False"),
    ],
    ids=["urgent", "full"],
)  # fmt: skip
def test_a_fault_in_the_driver_turns_its_test_red(rig, search, replace):
    text = SOURCE.read_text()
    assert text.count(search) == 1
    faulty = types.ModuleType("haaro.uplink.uart_modem")
    exec(compile(text.replace(search, replace), "faulty uart_modem.py", "exec"), faulty.__dict__)
    with pytest.raises(AssertionError):
        _urgent_passes_data(rig(faulty))


def test_data_that_finds_the_queue_full_is_refused_and_control_is_not(rig):
    one = rig()
    udp = one.until_up()
    for _ in range(4):
        udp.sendto(bytes(900), (FAR, 434))
    with pytest.raises(OSError, match="12"):
        udp.sendto(bytes(900), (FAR, 434))
    assert udp.urgent(b"keepalive", (FAR, 434)) == 9
    one.until(lambda: len(one.packets()) >= 5, 10000)
    assert udp.sendto(bytes(900), (FAR, 434)) == 900, "there is room again"


def test_a_modem_that_is_off_is_switched_on_by_its_pin(rig):
    rig(behaviour=Behaviour(powered=False), baud=115200).until_up(60000)


def test_what_was_sent_and_came_is_counted_and_the_cap_ends_the_call(rig, tmp_path):
    one = rig(baud=115200, data_cap_mb=1)
    udp = one.until_up()
    udp.sendto(bytes(972), (FAR, 434))
    assert one.link.status()["octets"] == 1000
    one.link._meter.count(999_000)
    one.link.handle_timer(one.now)
    assert one.link.state == base.FAILED and "data cap of 1 MB" in one.link.reason
    with pytest.raises(OSError, match="128"):
        udp.sendto(b"data", (FAR, 434))
    one.link.stop(one.now)
    assert (tmp_path / "lte.octets").exists()


def test_a_socket_is_had_for_the_links_address_only(rig):
    one = rig(baud=115200)
    with pytest.raises(OSError, match="128"):
        one.link.open(SLIRP)
    one.until_up()
    with pytest.raises(OSError, match="128"):
        one.link.open(FAR)


def test_a_tunnel_and_signalling_over_the_modem(rig):
    """What the plane does with lwIP's sockets goes over this link instead."""
    one = rig(baud=115200)
    one.until_up()
    sockets = LwipSockets()
    sockets.own["modem0"] = one.link
    sockets.view = memoryview(b"....\x04\x04\0\0inner packet....")
    sockets.open("modem0", SLIRP)
    sender = sockets.tunnel("modem0", SLIRP, FAR, 4340)
    sockets.mark(sender, 0xB8)
    assert sender.write(None, 4, 16) == 16
    assert sockets.send(("modem0", SLIRP), FAR, 434, b"request")
    one.until(lambda: len(one.packets()) >= 2, 2000)
    data, request = one.packets()
    assert (data[1], data[20:24], data[28:]) == (0xB8, b"\x01\xb2\x10\xf4", b"\4\4\0\0inner packet")
    assert (request[1], request[22:24], request[28:]) == (0xC0, b"\x01\xb2", b"request")
    for packet in (data, request):
        assert checksum(packet[:20]) == 0
        pseudo = packet[12:20] + b"\0\x11" + packet[24:26]
        assert checksum(pseudo + packet[20:]) == 0
    sockets.close(("modem0", SLIRP))
    assert sockets.of(("modem0", SLIRP)) is None
