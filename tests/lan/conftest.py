"""The port and the simulated chip in one process, on one fake clock."""

import time

import pytest

from haaro.lan.w5500 import W5500Lan
from tests.w5500_sim.chip import W5500

OURS = bytes((10, 1, 0, 1))
MAC = bytes.fromhex("026861617201")
HOST = bytes((10, 1, 0, 10))
HOST_MAC = bytes.fromhex("020000000010")
FAR = bytes((10, 2, 0, 10))
ALL = b"\xff" * 6


class Spi:
    """machine.SPI on the chip's pins."""

    def __init__(self, rig) -> None:
        self._rig = rig
        self.fails = 0

    def _error(self) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError(5)

    def write(self, buffer) -> None:
        self._error()
        self._rig.chip.transfer(bytes(buffer))
        self._rig.pass_time(len(buffer))

    def readinto(self, buffer, write=0) -> None:
        self._error()
        buffer[:] = self._rig.chip.transfer(bytes(len(buffer)))
        self._rig.pass_time(len(buffer))


class Rig:
    """One port, its chip, and what has left by the wire. SPI at 20 MHz passes the time."""

    def __init__(self, link_s: float = 0.0, first: int = 0xFF00, pins: bool = True, **options):
        self.seconds = 1000.0
        self.wire: list[bytes] = []
        self.chip = W5500(self.wire.append, lambda: self.seconds, link_s, first, 1)
        self.spi = Spi(self)
        options.setdefault("reset", self.chip.reset_pin if pins else None)
        options.setdefault("interrupt", self.chip.interrupt if pins else None)
        self.seconds += 0.01
        self.port = W5500Lan(
            self.spi, self.chip.select, OURS, 24, MAC, self.now, lambda n: bytes(n), **options
        )
        self.buffer = bytearray(4096)

    @property
    def now(self) -> int:
        """Milliseconds of the loop's clock."""
        return int(self.seconds * 1000)

    def pass_time(self, octets: int) -> None:
        """What a transfer and the code around it take."""
        self.seconds += octets * 0.4e-6 + 10e-6

    def run(self, seconds: float, step: float = 0.02) -> None:
        """Let the loop turn for a while, as the shell's does; nothing is read."""
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds = min(end, self.seconds + step)
            if self.now >= self.port.next_deadline():
                self.port.tick(self.now)

    def read(self) -> list[bytes]:
        """All frames that the port gives the data plane."""
        found = []
        for _ in range(1000):
            if not self.port.pending():
                return found
            octets = self.port.read(self.buffer, 100)
            if octets:
                found.append(bytes(self.buffer[100 : 100 + octets]))
        raise AssertionError("the port is never done")

    def write(self, packet: bytes) -> object:
        """An IPv4 packet from the data plane to the LAN."""
        frame = self.port.ethernet + packet
        self.buffer[50 : 50 + len(frame)] = frame
        return self.port.write(self.buffer, 50, len(frame))

    def meet(self, address: bytes = HOST, mac: bytes = HOST_MAC, tag: bytes = b"") -> None:
        """A host makes itself known by asking for us."""
        self.chip.frame_in(arp(1, mac, address, bytes(6), OURS, ALL, tag))
        self.read()


@pytest.fixture
def rig(monkeypatch):
    """Return a function that makes a rig; `open_` waits until the port is up."""
    made: list[Rig] = []

    def ticks_us() -> int:
        made[-1].seconds += 5e-6
        return int(made[-1].seconds * 1e6)

    def sleep_us(microseconds: int) -> None:
        made[-1].seconds += microseconds / 1e6

    def make(open_: bool = True, **options) -> Rig:
        one = Rig.__new__(Rig)
        made.append(one)
        one.__init__(**options)
        if open_:
            one.run(2.0)
            one.wire.clear()
        return one

    monkeypatch.setattr(time, "ticks_us", ticks_us, raising=False)
    monkeypatch.setattr(time, "ticks_diff", lambda a, b: a - b, raising=False)
    monkeypatch.setattr(time, "sleep_us", sleep_us, raising=False)
    return make


def checksum(octets: bytes) -> int:
    """RFC 1071."""
    octets += bytes(len(octets) & 1)
    total = sum(octets[i] << 8 | octets[i + 1] for i in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ipv4(
    source: bytes, destination: bytes, protocol: int, data: bytes, tos: int = 0, flags: int = 0
) -> bytes:
    """An IPv4 packet."""
    head = bytes((0x45, tos)) + (20 + len(data)).to_bytes(2, "big") + b"\x12\x34"
    head += flags.to_bytes(2, "big") + bytes((64, protocol)) + b"\0\0" + source + destination
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + data


def udp(source: bytes, destination: bytes, octets: int = 100, tos: int = 0) -> bytes:
    """A UDP packet with `octets` octets of data and no checksum."""
    head = b"\x10\x00\x10\x01" + (8 + octets).to_bytes(2, "big") + b"\0\0"
    return ipv4(source, destination, 17, head + bytes(i & 255 for i in range(octets)), tos)


def echo(source: bytes, destination: bytes, data: bytes = b"abcdefgh", kind: int = 8) -> bytes:
    """An ICMP echo request."""
    icmp = bytes((kind, 0, 0, 0, 0x77, 0x01, 0, 5)) + data
    return ipv4(source, destination, 1, icmp[:2] + checksum(icmp).to_bytes(2, "big") + icmp[4:])


def ethernet(
    destination: bytes, source: bytes, payload: bytes, kind: int = 0x0800, tag: bytes = b""
) -> bytes:
    """A frame, padded as a host's card does."""
    made = destination + source + tag + kind.to_bytes(2, "big") + payload
    return made + bytes(max(0, 60 - len(made)))


def arp(
    operation: int,
    mac: bytes,
    sender: bytes,
    target_mac: bytes,
    target: bytes,
    to: bytes = ALL,
    tag: bytes = b"",
) -> bytes:
    """A frame with an ARP packet (RFC 826)."""
    payload = b"\x00\x01\x08\x00\x06\x04\x00" + bytes((operation,))
    return ethernet(to, mac, payload + mac + sender + target_mac + target, 0x0806, tag)
