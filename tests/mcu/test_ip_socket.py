"""UDP of our own on a link without a stack: what leaves, what is taken, what is dropped and why."""

import select
import struct

import pytest

from haaro.uplink.ip_socket import IpSocket
from tests.lan.conftest import checksum

OURS, PEER = bytes([10, 0, 2, 15]), bytes([203, 0, 113, 9])


def packet(data=b"data", dst=OURS, dport=434, flags=0, protocol=17, options=b"", length=None):
    """A packet of the peer's port 4340, by hand."""
    size = 8 + len(data) if length is None else length
    udp = struct.pack(">HHHH", 4340, dport, size, 0) + data
    pseudo = PEER + dst + b"\0\x11" + struct.pack(">H", size)
    udp = udp[:6] + struct.pack(">H", checksum(pseudo + udp)) + udp[8:]
    first = 0x45 + len(options) // 4
    head = struct.pack(">BBHHHBBH", first, 0, 20 + len(options) + len(udp), 7, flags, 64,
                       protocol, 0) + PEER + dst + options  # fmt: skip
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + udp


class Rig:
    def __init__(self, mtu=1500):
        self.sent = []
        self.socket = IpSocket(OURS, mtu, lambda *words: self.sent.append(words))

    def come(self, octets):
        """It comes in the middle of a buffer."""
        self.socket.take(bytearray(b"head" + octets + b"tail"), 4, 4 + len(octets))
        return self.all()

    def all(self):
        found = []
        while self.socket.ioctl(3, 1):
            found.append(self.socket.recvfrom(1536))
        with pytest.raises(OSError, match="11"):
            self.socket.recvfrom(1536)
        return found

    @property
    def counted(self):
        s = self.socket
        return (s.fragments, s.malformed, s.strangers, s.lost)


def test_what_leaves_has_both_checksums_port_434_and_a_number_of_its_own():
    rig = Rig()
    assert rig.socket.sendto(b"\4\4\0\0odd", (PEER, 4340), 0x28) == 7
    assert rig.socket.urgent(b"request", (PEER, 434)) == 7
    (data, later), (request, first) = rig.sent
    assert (later, first) == (False, True)
    for octets in (data, request):
        assert octets[:1] == b"\x45" and octets[2:4] == bytes((0, 35)) and octets[8] == 64
        assert octets[6:8] == b"\0\0", "no fragment"
        assert (octets[9], octets[12:20]) == (17, OURS + PEER)
        assert checksum(octets[:20]) == 0
        assert checksum(octets[12:20] + b"\0\x11" + octets[24:26] + octets[20:]) == 0
    assert (data[1], request[1]) == (0x28, 0xC0)
    assert struct.unpack(">HHH", data[20:26]) == (434, 4340, 15)
    assert data[4:6] != request[4:6]


def test_what_does_not_fit_is_refused_never_cut():
    rig = Rig(mtu=600)
    rig.socket.sendto(bytes(572), (PEER, 434))
    with pytest.raises(OSError, match="90"):
        rig.socket.sendto(bytes(573), (PEER, 434))
    assert [len(octets) for octets, _ in rig.sent] == [600]


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(packet(), id="plain"),
        pytest.param(packet(options=b"\1\1\1\0"), id="with options"),
        pytest.param(packet() + b"\0\0", id="padded"),
        pytest.param(packet()[:26] + b"\0\0" + packet()[28:], id="no UDP checksum"),
    ],
)
def test_a_datagram_to_us_is_given_with_where_it_is_from(octets):
    rig = Rig()
    assert rig.come(octets) == [(b"data", ("203.0.113.9", 4340))]
    assert rig.counted == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("octets", "counted"),
    [
        pytest.param(packet(flags=0x2000), (1, 0, 0, 0), id="first fragment"),
        pytest.param(packet(flags=5), (1, 0, 0, 0), id="later fragment"),
        pytest.param(packet()[:-1] + b"?", (0, 1, 0, 0), id="UDP checksum"),
        pytest.param(packet()[:8] + b"\1" + packet()[9:], (0, 1, 0, 0), id="header checksum"),
        pytest.param(packet(length=40), (0, 1, 0, 0), id="longer than it is"),
        pytest.param(packet()[:19], (0, 1, 0, 0), id="cut"),
        pytest.param(b"", (0, 1, 0, 0), id="nothing"),
        pytest.param(packet(dport=53), (0, 0, 1, 0), id="another port"),
        pytest.param(packet(dst=PEER), (0, 0, 1, 0), id="another address"),
        pytest.param(packet(protocol=1), (0, 0, 1, 0), id="no UDP"),
        pytest.param(packet(b""), (0, 0, 1, 0), id="no content"),
    ],
)
def test_all_else_is_dropped_and_counted(octets, counted):
    rig = Rig()
    assert rig.come(octets) == []
    assert rig.counted == counted


def test_more_than_waits_is_counted_and_poll_is_told():
    rig = Rig()
    for i in range(20):
        rig.socket.take(packet(bytes([i + 1])), 0, 29)
    assert rig.counted == (0, 0, 0, 4)
    assert rig.socket.ioctl(3, select.POLLOUT) == 0
    assert [data[0] for data, _ in rig.all()] == list(range(1, 17))
    rig.socket.take(packet(), 0, 32)
    rig.socket.close()
    assert rig.all() == []
