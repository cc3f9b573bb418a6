"""A data plane on sockets of this process: a test writes what it reads and keeps what it sends.

The sockets are AF_UNIX datagram sockets, so reading glues and cuts as on the real ones. `ahead` of
a Rig is that of lan/base.py: 0 plain loops, 14 the fast path, 24 superframes, which `to_lan` cuts
as the kernel does. Where it is not given it is DEFAULT["ahead"].
"""

# Pools before everything else, as main.py does.
from haaro.dataplane.pools import make_pools

POOLS = make_pools()

import os  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402

from haaro.dataplane.base import LAN_RECORD, UPLINK_RECORD  # noqa: E402
from haaro.dataplane.userspace import UserspacePlane  # noqa: E402
from haaro.wire import ipv4  # noqa: E402
from haaro.wire.ipv4 import address  # noqa: E402

HOME = address("192.0.2.129")
NETWORKS = [(address("10.1.0.0"), 24)]
LOCAL = address("198.51.100.10")
AGENT = address("192.0.2.1")
ETHERNET = b"\x02\x68\xc0\x00\x02\x81\x02\x69\xc0\x00\x02\x81\x08\x00"

DEFAULT = {"ahead": 0}

_PATTERN = bytes([i & 255 for i in range(256)]) * 6

_RUN = os.urandom(6).hex()
_names = 0


def datagram_pair():
    """Return (writer, reader), both non-blocking."""
    global _names
    _names += 1
    name = struct.pack("@H", 1) + b"\0haaro-rig-%s-%d" % (_RUN, _names)
    reader = socket.socket(1, socket.SOCK_DGRAM)
    reader.bind(name)
    writer = socket.socket(1, socket.SOCK_DGRAM)
    writer.connect(name)
    for one in (reader, writer):
        one.setblocking(False)
    return writer, reader


def read_all(reader, octets=2048):
    """Return all datagrams that are queued."""
    found = []
    while True:
        try:
            data = reader.recv(octets)
        except OSError:
            return found
        if not data:
            return found
        found.append(data)


class Inlet:
    """The test's end of a receiving port."""

    def __init__(self, record, base):
        self._record = record
        self._base = base
        self.lengths_in, lengths = datagram_pair()
        self.packets_in, packets = datagram_pair()
        self.pair = (lengths, packets)

    def feed(self, frame):
        """The kernel got a packet: whole to one socket, a record to the other."""
        self.packets_in.send(frame)
        self.record(frame)

    def record(self, frame):
        padded = frame if len(frame) >= self._record else frame + bytes(self._record)
        self.lengths_in.send(padded[: self._record])


class Lan:
    ttl_step = 0
    ethernet = ETHERNET

    def __init__(self, pair, ahead):
        if ahead:
            self.ahead = ahead
            self.joins_udp = ahead == 24
        self.pairs = [pair]
        writer, self.sink = datagram_pair()
        self.write = writer.write

    def close(self):
        self.sink.close()


class Rig:
    """Plane, LAN inlet, one uplink inlet, and what came out."""

    def __init__(self, ttl_step=0, ahead=None):
        self.ahead = DEFAULT["ahead"] if ahead is None else ahead
        vnet = 10 if self.ahead == 24 else 0
        self.sinks = {}
        self.tos = self.marks = 0
        self.dropped = {}  # {receiving socket of whole packets: by the kernel's count}
        self.errors_in, self._errors = datagram_pair()
        self.controls = []
        self.lan_inlet = Inlet(LAN_RECORD + vnet, 14 + vnet)
        self.uplink_inlet = Inlet(UPLINK_RECORD, 32)
        self.lan = Lan(self.lan_inlet.pair, self.ahead)
        self.lan.ttl_step = ttl_step
        self.plane = UserspacePlane(POOLS, self, HOME, NETWORKS)
        self.plane.control = self.control
        self.plane.attach_lan(self.lan)
        self.plane.open_uplink(0, "wan", LOCAL, 1500)
        self.wanted_remote = None

    # The platform's factory of sockets.

    def tunnel_pairs(self, interface, local, home_address):
        return [self.uplink_inlet.pair]

    def tunnel(self, interface, local, remote, port):
        writer, reader = datagram_pair()
        self.sinks[(remote, port)] = reader
        return writer

    def takes_runs(self, interface, on=False):
        return 0

    def icmp_errors(self):
        return self._errors

    def drops(self, sockets):
        return sum([self.dropped.get(one, 0) for one in sockets])

    def mark(self, sender, tos):
        self.tos = tos
        self.marks += 1

    def control(self, uplink, remote, port, data):
        self.controls.append((uplink, remote, port, data))
        return True

    # What a test does.

    def turn(self):
        """Handle one batch of each port."""
        self.plane.handle(self.lan_inlet.pair[0], 1)
        self.plane.handle(self.uplink_inlet.pair[0], 1)

    def path_says(self, mtu, remote=AGENT, port=434, local=LOCAL, length=1500):
        """A router of the path sends "fragmentation needed" about a packet of ours."""
        quoted = ipv4.build_udp(local, remote, 434, port, bytes(length - 28))[:28]
        error = b"\x03\x04" + bytes(4) + bytes((mtu >> 8, mtu & 255)) + quoted
        self.errors_in.send(bytes(20) + error)
        self.plane.handle(self._errors, 1)

    def from_lan(self, packet, vnet=bytes(10)):
        self.lan_inlet.feed((vnet if self.ahead == 24 else b"") + ETHERNET + packet)

    def from_tunnel(self, packet, src=AGENT, sport=434):
        self.uplink_inlet.feed(outer(packet, src, sport))

    def to_tunnels(self):
        """Return [(remote, datagram payload)] sent since the last call."""
        found = []
        for (remote, _), reader in self.sinks.items():
            found.extend([(remote, data) for data in read_all(reader)])
        return found

    def to_lan(self):
        """Return the frames sent to the LAN since the last call, superframes cut."""
        if self.ahead != 24:
            return read_all(self.lan.sink)
        found = []
        for frame in self.superframes():
            found.extend([frame[10:24] + packet for packet in packets_of(frame)])
        return found

    def superframes(self):
        """Return the frames sent to the LAN since the last call, vnet headers in front."""
        return read_all(self.lan.sink, 50000)

    def changed(self, before):
        """Return {counter: growth} of all counters that grew since `before`."""
        now = self.plane.counters()
        return {name: now[name] - before[name] for name in now if now[name] != before[name]}


def packets_of(frame):
    """Return the packets that Linux makes of a frame with a vnet header, its checksums made."""
    flags, kind = frame[0], frame[1]
    packet = frame[24:]
    if not kind:
        assert frame[:10] == bytes(10)
        return [packet]
    size = frame[4] | frame[5] << 8
    data = (frame[2] | frame[3] << 8) - 14
    field = 20 + (16 if kind == 1 else 6)
    assert flags == 1 and kind == {6: 1, 17: 5}[packet[9]]
    assert frame[6:10] == bytes((34, 0, field - 20, 0))
    assert data == (20 + (packet[32] >> 4) * 4 if kind == 1 else 28)
    assert len(packet) == packet[2] << 8 | packet[3]
    assert ipv4.checksum(packet, 0, 20) == 0
    assert kind == 1 or packet[24] << 8 | packet[25] == len(packet) - 20
    pseudo = packet[12:20] + bytes((0, packet[9])) + struct.pack(">H", len(packet) - 20)
    assert ipv4.checksum(pseudo, 0, 12) ^ 0xFFFF == packet[field] << 8 | packet[field + 1]
    return cut(packet, data, size)


def cut(packet, data, size):
    """Return the packets of `size` octets of payload that a superframe stands for."""
    found = []
    udp = packet[9] == 17
    for at in range(data, len(packet), size):
        part = packet[at : at + size]
        one = bytearray(packet[:data])
        one[2:4] = struct.pack(">H", data + len(part))
        number = (packet[4] << 8 | packet[5]) + len(found)
        one[4:6] = struct.pack(">H", number & 0xFFFF)
        if udp:
            one[24:26] = struct.pack(">H", data + len(part) - 20)
        else:
            sequence = int.from_bytes(packet[24:28], "big") + at - data
            one[24:28] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if at + size < len(packet):
                one[33] &= 0xF6
            if found:
                one[33] &= 0x7F
        found.append(sealed(one + part))
    return found


def sealed(packet):
    """Return the TCP or UDP packet, IPv4 header without options, with right checksums."""
    packet = bytearray(packet)
    reseal(packet)
    field = 36 if packet[9] == 6 else 26
    packet[field] = packet[field + 1] = 0
    pseudo = packet[12:20] + bytes((0, packet[9])) + struct.pack(">H", len(packet) - 20)
    whole = pseudo + packet[20:] + bytes(len(packet) & 1)
    s = ipv4.checksum(whole, 0, len(whole))
    if packet[9] == 17 and not s:
        s = 0xFFFF
    packet[field] = s >> 8
    packet[field + 1] = s & 255
    return bytes(packet)


def outer(packet, src=AGENT, sport=434, header=b"\x04\x04\x00\x00", tos=0):
    """Return the packet as it arrives from a tunnel."""
    datagram = ipv4.build_udp(src, LOCAL, sport, 434, header + packet)
    return marked(datagram, tos) if tos else datagram


def marked(packet, tos):
    """Return the packet with this TOS."""
    packet = bytearray(packet)
    packet[1] = tos
    reseal(packet)
    return bytes(packet)


def inner(src, dst, octets=64, protocol=17, ttl=64, df=False, payload=None, offset=0):
    """Return an IPv4 packet of `octets` octets; its payload counts up."""
    if payload is None:
        payload = b"\x13\x88\x13\x89\0\0\0\0" + _PATTERN[: octets - 28]
    buffer = bytearray(20 + len(payload))
    ipv4.build_ipv4_into(
        buffer, 0, protocol, address(src), address(dst), len(payload), ttl, 0, 7, df
    )
    buffer[20:] = payload
    if offset:
        buffer[6] = offset >> 8
        buffer[7] = offset & 255
        reseal(buffer)
    return bytes(buffer)


def reseal(packet):
    """Mend the header checksum of a bytearray."""
    packet[10] = packet[11] = 0
    s = ipv4.checksum(packet, 0, (packet[0] & 15) * 4)
    packet[10] = s >> 8
    packet[11] = s & 255
