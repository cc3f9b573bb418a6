"""Runs of packets of one size leave by one call, cut by the kernel (UDP_SEGMENT), in order."""

import random

import micropython
from plane_rig import AGENT, LOCAL, Rig, inner, marked

from haaro.dataplane import leaves
from haaro.wire import ipv4
from haaro.wire.ipv4 import address

try:
    from haaro.dataplane import leaves_viper
except (ImportError, SyntaxError):
    leaves_viper = None

PEER = address("203.0.113.10")


class Cutter(Rig):
    """A link that takes runs, cut here as the kernel does; `refuses`: the link takes none."""

    refuses = unknown = False

    def takes_runs(self, interface, on=False):
        return 1

    def tunnel(self, interface, local, remote, port):
        writer = super().tunnel(interface, local, remote, port)
        return Sender(self, writer, self.sinks[(remote, port)])

    def segment(self, sender, octets):
        if self.unknown:
            raise OSError(92)
        sender.octets = octets


class Sender:
    """The kernel's side of a tunnel's socket: keeps what was written and how it is to be cut."""

    def __init__(self, rig, writer, sink):
        self.rig, self.writer, self.sink = rig, writer, sink
        self.octets = 0
        self.calls = 0

    def write(self, buffer, at, octets):
        self.calls += 1
        size = self.octets or octets
        if octets > size and self.rig.refuses:
            raise OSError(5)
        assert octets <= size or octets <= 65507
        end = at + octets
        while at < end:
            self.writer.write(buffer, at, min(size, end - at))
            at += size
        return octets

    def close(self):
        self.writer.close()


def registered():
    if leaves_viper is None:
        return None
    rig = Cutter(ahead=14)
    assert rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)
    assert rig.plane.set_tunnel(1, 0, LOCAL, PEER, 434, 1468, address("192.0.2.131"))
    rig.plane.swap([(bytes(4), 0, 0, -1), (address("10.3.0.0"), 24, 1, -1)], [])
    return rig


def sent(rig, packets):
    """Have the LAN send them in one batch; return {remote: packets that left}, in order."""
    for packet in packets:
        rig.from_lan(packet)
    rig.turn()
    found = {}
    for remote, data in rig.to_tunnels():
        assert data[:4] == b"\x04\x04\0\0"
        found.setdefault(remote, []).append(data[4:])
    return found


def numbered(count, octets, host="10.0.0.10"):
    return [
        inner("10.1.0.%d" % (10 + i % 20), host, payload=bytes([i]) * (octets - 20))
        for i in range(count)
    ]


def sender_of(rig, tunnel=0):
    return rig.plane._send[tunnel]


def test_a_run_is_one_call_and_arrives_whole():
    rig = registered()
    if rig is None:
        return
    # A socket of the rig keeps no more than some ten datagrams.
    for octets in (64, 1468, 21, 333):
        packets = numbered(8, octets)
        before = sender_of(rig).calls
        assert sent(rig, packets) == {AGENT: packets}
        assert sender_of(rig).calls == before + 1
    assert rig.plane.user_tx(0) == rig.plane.counters()["out_forwarded"] == 32


class Counting:
    """A socket that takes everything and keeps the sizes."""

    def __init__(self):
        self.sizes = []

    def write(self, buffer, at, octets):
        self.sizes.append(octets)
        return octets


def test_a_run_is_no_longer_than_a_keepalive_may_wait():
    """F15 of the threats: a link sends a run as a whole before anything else."""
    rig = registered()
    if rig is None:
        return
    plane = rig.plane
    for octets, wanted in ((1468, [11 * 1472, 11 * 1472, 8 * 1472]), (64, [30 * 68])):
        sender = plane._send[0] = Counting()
        at = 0
        for packet in numbered(30, octets):
            plane._batch[at + 14 : at + 14 + octets] = packet
            at += 14 + octets
        assert plane._out(0, 30) == at
        assert sender.sizes == wanted


def test_what_differs_ends_a_run_and_order_holds():
    """Another size, tunnel or TOS, a packet that is cut, and one that is refused."""
    rig = registered()
    if rig is None:
        return
    a, b = numbered(3, 200), numbered(3, 100)
    direct = numbered(2, 200, "10.3.0.10")
    ef = [marked(packet, 0xB8) for packet in a[:2]]
    assert sent(rig, a + b) == {AGENT: a + b}
    assert sent(rig, a[:2] + direct + a[2:]) == {AGENT: a, PEER: direct}
    assert sent(rig, a[:1] + ef + a[1:]) == {AGENT: a[:1] + ef + a[1:]}
    bad = [inner("10.9.0.10", "10.0.0.10")]
    assert sent(rig, a[:2] + bad + a[2:]) == {AGENT: a}
    assert rig.plane.counters()["out_foreign_source"] == 1
    long = [inner("10.1.0.10", "10.0.0.10", 1500)]
    packets = sent(rig, a + long + b)[AGENT]
    assert packets[:3] == a and packets[5:] == b
    first, second = [ipv4.parse_ipv4(packet) for packet in packets[3:5]]
    assert (first.total_length, second.fragment_offset) == (1468, 1448)
    # One longer than what runs were cut into, alone: it is not cut.
    assert sent(rig, b + a[:1]) == {AGENT: b + a[:1]}


def test_any_mix_arrives_as_it_was_sent():
    rig = registered()
    if rig is None:
        return
    seed = random.getrandbits(30)
    print("seed", seed)
    random.seed(seed)
    for _ in range(150):
        packets = []
        while len(packets) < 10:
            octets = random.choice((21, 40, 52, 333, 1467, 1468))
            host = random.choice(("10.0.0.10", "10.3.0.10"))
            tos = random.choice((0, 0, 0, 0xB8))
            run = numbered(min(random.randrange(1, 6), 10 - len(packets)), octets, host)
            packets += [marked(packet, tos) for packet in run] if tos else run
        wanted = {}
        for packet in packets:
            remote = PEER if packet[17] == 3 else AGENT
            wanted.setdefault(remote, []).append(packet)
        assert sent(rig, packets) == wanted, seed


def test_a_link_or_a_kernel_that_takes_no_runs_loses_nothing():
    rig = registered()
    if rig is None:
        return
    packets = numbered(6, 500)
    rig.refuses = True
    assert sent(rig, packets) == {AGENT: packets}
    calls = sender_of(rig).calls
    assert sent(rig, packets) == {AGENT: packets}
    # It is not asked again.
    assert sender_of(rig).calls == calls + 6 and rig.plane.own_loss()["send_errors"] == 0
    rig.unknown = True
    assert sent(rig, numbered(6, 500, "10.3.0.10")) == {PEER: numbered(6, 500, "10.3.0.10")}
    assert rig.plane.user_tx(0) == 12 and rig.plane.user_tx(1) == 6


def test_a_run_allocates_nothing():
    """With the heap locked: runs of three sizes, two tunnels, and the sockets' own writes."""
    rig = registered()
    if rig is None:
        return
    packets = numbered(4, 64) + numbered(4, 1400, "10.3.0.10")
    for packet in packets:
        rig.from_lan(packet)
    for tunnel in (0, 1):
        rig.plane._send[tunnel] = rig.plane._send[tunnel].writer
    rig.segment = none
    micropython.heap_lock()
    rig.plane.handle(rig.lan_inlet.pair[0], 1)
    micropython.heap_unlock()
    for sink, octets in ((rig.sinks[(AGENT, 434)], 4 * 68), (rig.sinks[(PEER, 434)], 4 * 1404)):
        assert len(sink.recv(6000)) == octets
    assert rig.plane.counters()["out_forwarded"] == 8


def none(sender, octets):
    pass


def test_twins_copy_the_same():
    if leaves_viper is None:
        return
    for _ in range(500):
        octets = random.randrange(0, 80)
        to = random.randrange(0, 20)
        at = to + random.randrange(10, 40)
        a = bytearray([random.getrandbits(8) for _ in range(160)])
        b, wanted = bytearray(a), bytearray(a)
        wanted[to : to + octets] = a[at : at + octets]
        leaves.move(a, to, at, octets)
        leaves_viper.move(b, to, at, octets)
        assert a == b == wanted
