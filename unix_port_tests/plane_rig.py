"""A data plane on sockets of this process: a test writes what it reads and keeps what it sends.

The sockets are AF_UNIX datagram sockets, so reading glues and cuts as on the real ones.
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


def read_all(reader):
    """Return all datagrams that are queued."""
    found = []
    while True:
        try:
            data = reader.recv(2048)
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

    def __init__(self, pair):
        self.pairs = [pair]
        writer, self.sink = datagram_pair()
        self.write = writer.write

    def close(self):
        self.sink.close()


class Rig:
    """Plane, LAN inlet, one uplink inlet, and what came out."""

    def __init__(self, ttl_step=0):
        self.sinks = {}
        self.tos = self.marks = 0
        self.dropped = {}  # {receiving socket of whole packets: by the kernel's count}
        self.errors_in, self._errors = datagram_pair()
        self.controls = []
        self.lan_inlet = Inlet(LAN_RECORD, 14)
        self.uplink_inlet = Inlet(UPLINK_RECORD, 32)
        self.lan = Lan(self.lan_inlet.pair)
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

    def from_lan(self, packet):
        self.lan_inlet.feed(ETHERNET + packet)

    def from_tunnel(self, packet, src=AGENT, sport=434):
        self.uplink_inlet.feed(outer(packet, src, sport))

    def to_tunnels(self):
        """Return [(remote, datagram payload)] sent since the last call."""
        found = []
        for (remote, _), reader in self.sinks.items():
            found.extend([(remote, data) for data in read_all(reader)])
        return found

    def to_lan(self):
        """Return the frames sent to the LAN since the last call."""
        return read_all(self.lan.sink)

    def changed(self, before):
        """Return {counter: growth} of all counters that grew since `before`."""
        now = self.plane.counters()
        return {name: now[name] - before[name] for name in now if now[name] != before[name]}


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
