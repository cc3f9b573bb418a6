"""A LAN port on a W5500 allocates nothing for a frame, either way, and its imports have a bound."""

import gc

import micropython

gc.collect()
_BEFORE = gc.mem_alloc()

from haaro.lan.w5500 import W5500Lan  # noqa: E402

gc.collect()
_IMPORTS = gc.mem_alloc() - _BEFORE

_MAC = b"\x02\x68\x61\x61\x72\x01"
_HOST_MAC = b"\x02\x00\x00\x00\x00\x10"


class Chip:
    """Registers of a W5500 with one frame in the ring, again and again; makes nothing itself."""

    def __init__(self, frame):
        length = len(frame) + 2
        self.frame = bytearray(bytes((length >> 8, length & 255)) + frame)
        self.sent = 0
        self.received = 0
        self._command = bytearray(3)
        self._phase = 0
        self._offset = 0

    def select(self, level):
        self._phase = self._offset = 0

    def write(self, buffer):
        if self._phase:
            # SEND to Sn_CR.
            if self._command[2] == 0x0C and self._command[1] == 1 and buffer[0] == 0x20:
                self.sent += 1
            return
        self._phase = 1
        i = 0
        while i < 3:
            self._command[i] = buffer[i]
            i += 1

    def readinto(self, buffer):
        control = self._command[2]
        address = self._command[1]
        n = len(buffer)
        i = 0
        if control == 0x18:
            size = len(self.frame)
            while i < n:
                buffer[i] = self.frame[self._offset] if self._offset < size else 0
                self._offset += 1
                i += 1
            self.received += 1
            return
        value = 0
        if control == 0:
            value = 4 if address == 0x39 else 0xBF
        elif address == 0x03:
            value = 0x42
        elif address == 0x02:
            value = 0x10
        buffer[0] = value
        if n == 2:
            buffer[0] = len(self.frame) >> 8 if address == 0x26 else 0
            buffer[1] = len(self.frame) & 255 if address == 0x26 else 0


def _ipv4(source, destination, octets):
    head = bytearray(20)
    head[0] = 0x45
    head[2] = octets >> 8
    head[3] = octets & 255
    head[8] = 64
    head[9] = 17
    head[12:16] = source
    head[16:20] = destination
    return bytes(head) + bytes(octets - 20)


def _port(frame, vlan=None):
    chip = Chip(frame)
    port = W5500Lan(
        chip, chip.select, b"\x0a\x01\x00\x01", 24, _MAC, 0, lambda n: bytes(n), vlan=vlan
    )
    for now in range(100, 2000, 100):
        port.tick(now)
    assert port.status()["link"], port.status()
    return chip, port


def _passes_without_a_byte(octets, vlan=None):
    tag = b"" if vlan is None else bytes((0x81, 0, 0, vlan))
    host, far = b"\x0a\x01\x00\x0a", b"\x0a\x02\x00\x0a"
    frame = _MAC + _HOST_MAC + tag + b"\x08\x00" + _ipv4(host, far, octets)
    chip, port = _port(frame, vlan)
    arp = b"\x00\x01\x08\x00\x06\x04\x00\x02" + _HOST_MAC + host + _MAC + b"\x0a\x01\x00\x01"
    port.office.neighbours.receive(arp, 0, 28)
    buffer = bytearray(2048)
    back = bytearray(port.ethernet + _ipv4(far, host, octets))
    got = out = 0
    read, write, pending, length = port.read, port.write, port.pending, len(back)
    read(buffer, 40)
    sent = chip.sent
    micropython.heap_lock()
    try:
        for _ in range(20):
            if pending():
                got += read(buffer, 40)
            out += write(back, 0, length)
    finally:
        micropython.heap_unlock()
    assert (got, out) == (20 * (14 + octets), 20 * (14 + octets)), (got, out)
    assert chip.sent - sent == 20
    assert buffer[40:46] == _MAC and buffer[54:56] == b"\x45\x00"


def test_a_full_frame_passes_both_ways_without_a_byte_of_heap():
    _passes_without_a_byte(1500)


def test_a_short_frame_passes_both_ways_without_a_byte_of_heap():
    _passes_without_a_byte(46)


def test_a_tagged_frame_passes_both_ways_without_a_byte_of_heap():
    _passes_without_a_byte(1500, 10)


def test_the_port_and_its_imports_fit():
    """Octets of a 64-bit heap, without the DHCP server; on 32 bits it is about half."""
    gc.collect()
    before = gc.mem_alloc()
    kept = _port(bytes(60))
    gc.collect()
    state = gc.mem_alloc() - before
    print("     imports %d, one port %d octets" % (_IMPORTS, state))
    assert kept and _IMPORTS < 60000 and state < 16000, (_IMPORTS, state)
