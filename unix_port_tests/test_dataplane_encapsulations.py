"""Tunnels in IP in IP, GRE and minimal encapsulation: checks, counters and heap as in UDP."""

import random

import micropython
from plane_rig import (
    AGENT,
    ETHERNET,
    HOME,
    LOCAL,
    Inlet,
    Rig,
    datagram_pair,
    inner,
    marked,
    read_all,
    reseal,
)
from test_dataplane_marks import DECAPSULATED
from test_dataplane_refusals import GOOD_IN_B, GOOD_IN_HA, GOOD_OUT, INBOUND, OUTBOUND

from haaro.dataplane import leaves_encapsulation
from haaro.dataplane.chosen import leaves
from haaro.dataplane.other_encapsulations import RECORD
from haaro.wire import encapsulation, ipv4
from haaro.wire.errors import WireError
from haaro.wire.ipv4 import address

try:
    from haaro.dataplane import leaves_encapsulation_viper
except (ImportError, SyntaxError):
    leaves_encapsulation_viper = None

PEER_B = address("203.0.113.10")
HOME_B = address("192.0.2.130")
KINDS = (4, 47, 55)
OVERHEAD = {4: 20, 47: 24, 55: 20}
_WRAP = {
    4: encapsulation.encapsulate_ipip,
    47: encapsulation.encapsulate_gre,
    55: encapsulation.encapsulate_minimal,
}


def wrapped(kind, src, packet, dst=LOCAL):
    return _WRAP[kind](src, dst, packet)


class OtherRig(Rig):
    """A rig whose tunnels 0 and 1 are of one IP protocol; an inlet for each protocol."""

    def __init__(self, kind, ttl_step=0, mtu=None):
        self.kind = kind
        self.inlets = {}
        super().__init__(ttl_step=ttl_step)
        plane = self.plane
        mtu = mtu or 1500 - OVERHEAD[kind]
        assert plane.set_tunnel(0, 0, LOCAL, AGENT, kind << 16, mtu, AGENT)
        assert plane.set_tunnel(1, 0, LOCAL, PEER_B, kind << 16, mtu, HOME_B)
        sources = [(address("10.2.0.0"), 24, 1), (HOME_B, 32, 1)]
        routes = [(bytes(4), 0, 0, -1), (address("10.66.0.0"), 16, -1, -1)]
        routes.append((address("10.67.0.0"), 16, 9, -1))
        plane.swap(routes + [row + (-1,) for row in sources], sources)

    def raw_pairs(self, protocol, interface, local):
        self.inlets[protocol] = Inlet(RECORD, 0)
        return [self.inlets[protocol].pair]

    def raw_sender(self, protocol, interface, local, remote, whole=False):
        writer, reader = datagram_pair()
        self.sinks[(remote, protocol << 16 | whole)] = reader
        return writer

    def feed(self, frame):
        self.inlets[frame[9]].feed(frame)

    def from_tunnel(self, packet, src=AGENT, sport=0):
        self.feed(wrapped(self.kind, src, packet))

    def turn(self):
        super().turn()
        for inlet in self.inlets.values():
            self.plane.handle(inlet.pair[0], 1)

    def outer_packets(self):
        """Return the outer packets sent since the last call, with the header of the kernel."""
        found = []
        for (remote, key), reader in self.sinks.items():
            for data in read_all(reader):
                if key & 1:
                    packet = bytearray(data)
                    packet[2] = len(data) >> 8
                    packet[3] = len(data) & 255
                    reseal(packet)
                    found.append(bytes(packet))
                else:
                    header = bytearray(20)
                    ipv4.build_ipv4_into(header, 0, key >> 16, LOCAL, remote, len(data), 64)
                    found.append(bytes(header) + data)
        return found


def test_a_packet_goes_out_and_comes_back_in_each_encapsulation():
    """R3.3.4-i6; RFC 2003 3.1, RFC 2784 2, RFC 2004 3: as the wire layer has them."""
    for kind in KINDS:
        rig = OtherRig(kind)
        for octets in (64, 65, 1001, 1500 - OVERHEAD[kind]):
            packet = inner("10.1.0.10", "10.2.0.10", octets, df=True, ttl=9)
            rig.from_lan(packet)
            rig.turn()
            (sent,) = rig.outer_packets()
            assert (sent[9], sent[12:16], sent[16:20]) == (kind, LOCAL, PEER_B)
            assert encapsulation.decapsulate(sent) == packet
            if kind == 55:
                assert sent == wrapped(kind, LOCAL, packet, PEER_B)
            back = inner("10.2.0.10", "10.1.0.10", octets)
            rig.from_tunnel(back, PEER_B)
            rig.turn()
            assert rig.to_lan() == [ETHERNET + back]
        assert (rig.plane.user_rx(1), rig.plane.user_tx(1)) == (4, 4)


def test_a_source_that_is_the_tunnel_end_is_not_there_twice():
    """RFC 2004 3: without S the original source is the outer one; here it is a tunnel end."""
    rig = OtherRig(55)
    before = rig.plane.counters()
    rig.from_tunnel(inner("203.0.113.10", "10.1.0.10"), PEER_B)
    rig.turn()
    assert rig.changed(before) == {"in_tunnel_end_source": 1} and rig.to_lan() == []


def test_gre_with_a_checksum_is_taken_if_it_is_right():
    """RFC 2784 2.2: MUST accept and process; 2.3: bits 1 to 5, version, protocol type."""
    rig = OtherRig(47)
    for octets in (64, 65, 1500):
        packet = inner("10.0.0.10", "10.1.0.10", octets)
        frame = encapsulation.encapsulate_gre(AGENT, LOCAL, packet, 64, True)
        rig.feed(frame)
        rig.turn()
        assert rig.to_lan() == [ETHERNET + packet]
        bad = bytearray(frame)
        bad[len(bad) - 1] ^= 1
        rig.feed(bytes(bad))
    plain = wrapped(47, AGENT, inner("10.0.0.10", "10.1.0.10"))
    for at, value in ((20, 0x40), (20, 0x20), (20, 0x10), (20, 8), (20, 4), (21, 1), (22, 0x86)):
        bad = bytearray(plain)
        bad[at] = value
        rig.feed(bytes(bad))
    rig.turn()
    assert rig.to_lan() == [] and rig.plane.counters()["in_bad_encapsulation"] == 10
    # Reserved bits that are ignored.
    ignored = bytearray(plain)
    ignored[20] = 2
    ignored[21] = 0xF8
    rig.feed(bytes(ignored))
    rig.turn()
    assert len(rig.to_lan()) == 1


def test_what_is_wrong_is_dropped_under_the_name_it_has_in_udp():
    """Threats D1 to D6, in all three: nothing of the matrix is forwarded."""
    tried = 0
    for kind in KINDS:
        rig = OtherRig(kind, ttl_step=1)
        for packet in (GOOD_IN_HA, inner("192.0.2.1", "10.1.0.10")):
            rig.from_tunnel(packet)
        rig.from_tunnel(GOOD_IN_B, PEER_B)
        rig.from_lan(GOOD_OUT)
        rig.turn()
        assert len(rig.outer_packets()) == 1 and len(rig.to_lan()) == 3
        for i, (packet, name) in enumerate(OUTBOUND):
            # C has no tunnel here, and the size that fits is another one.
            if packet[16:20] == address("203.0.113.20") or name == "out_too_big":
                continue
            before = rig.plane.counters()
            rig.from_lan(packet)
            rig.turn()
            assert rig.outer_packets() == [] and rig.changed(before) == {name: 1}, (kind, i, name)
            tried += 1
        rig.to_lan()  # ICMP errors
        for i, (packet, source, port, name) in enumerate(INBOUND):
            if port != 434 or source == "203.0.113.20" or packet[12:16] == address("203.0.113.20"):
                continue
            try:
                frame = wrapped(kind, address(source), packet)
            except WireError:
                continue  # minimal encapsulation begins with a header that is right
            before = rig.plane.counters()
            rig.feed(frame)
            rig.turn()
            changed = rig.changed(before)
            assert rig.to_lan() == [], (kind, i, name)
            assert changed == {name: 1} or changed == {"in_bad_encapsulation": 1}, (
                kind,
                i,
                changed,
            )
            tried += 1
    assert tried > 200


def test_without_quick_copying_each_packet_is_given_on_by_itself():
    """A port without a code emitter: what lies behind a packet is not yet touched."""
    fast = leaves.FAST
    try:
        for quick in (False, True):
            for kind in KINDS:
                leaves.FAST = fast
                rig = OtherRig(kind)
                leaves.FAST = quick
                sizes = (64, 1480, 65, 300, 41, 1000)
                packets = [inner("10.2.0.10", "10.1.0.10", octets) for octets in sizes]
                for packet in packets:
                    rig.from_tunnel(packet, PEER_B)
                rig.turn()
                assert rig.to_lan() == [ETHERNET + packet for packet in packets]
    finally:
        leaves.FAST = fast


def test_only_the_protocols_in_use_are_received():
    for kind in KINDS:
        rig = OtherRig(kind)
        assert sorted(rig.inlets) == ([4, 55] if kind == 55 else [kind])
        # In UDP, from the same end.
        before = rig.plane.counters()
        super(OtherRig, rig).from_tunnel(GOOD_IN_B, PEER_B)
        rig.turn()
        assert rig.to_lan() == [] and rig.changed(before) == {"in_unknown_tunnel_end": 1}


def test_what_does_not_fit_is_cut_and_a_fragment_of_minimal_goes_as_ip_in_ip():
    """RFC 2004 3: MUST NOT be used for a fragment; RFC 2003 5.1."""
    for kind in KINDS:
        rig = OtherRig(kind, mtu=600)
        packet = inner("10.1.0.10", "10.2.0.10", 1500)
        rig.from_lan(packet)
        rig.turn()
        data = bytearray(1480)
        parts = rig.outer_packets()
        assert len(parts) == 3
        for part in parts:
            assert part[9] == (4 if kind == 55 else kind)
            inside = encapsulation.decapsulate(part)
            ip = ipv4.parse_ipv4(inside)
            assert len(inside) <= 600
            data[ip.fragment_offset : ip.fragment_offset + len(inside) - 20] = inside[20:]
        assert data == packet[20:]
        rig.from_lan(inner("10.1.0.10", "10.2.0.10", 601, df=True))
        rig.turn()
        (error,) = rig.to_lan()
        assert error[34:36] == b"\x03\x04" and error[40:42] == bytes((600 >> 8, 600 & 255))
    # Fragments come in as IP in IP, too.
    rig.feed(wrapped(4, PEER_B, inner("10.2.0.10", "10.1.0.10", 200, offset=0x2000)))
    rig.turn()
    assert len(rig.to_lan()) == 1


def test_the_path_lowers_the_mtu_by_the_overhead_of_the_encapsulation():
    """RFC 2003 5.1: soft state of what ICMP says about our packets, by protocol and addresses."""
    for kind in KINDS:
        rig = OtherRig(kind)
        for protocol, remote, mtu in ((17, PEER_B, 0), (kind, AGENT, 0), (kind, PEER_B, 1200)):
            quoted = bytearray(28)
            ipv4.build_ipv4_into(quoted, 0, protocol, LOCAL, remote, 1480, 64)
            said = b"\x03\x04" + bytes(4) + bytes((1200 >> 8, 1200 & 255)) + bytes(quoted)
            rig.errors_in.send(bytes(20) + said)
            rig.plane.handle(rig._errors, 1)
            limit = mtu - OVERHEAD[kind] if mtu else 1500 - OVERHEAD[kind]
            assert rig.plane.mtu(1) == limit, (kind, protocol)


def test_marks_go_out_and_congestion_comes_in():
    """RFC 6040 4.1 and the table of 4.2; minimal encapsulation has one field for both."""
    for kind in (4, 47):
        rig = OtherRig(kind)
        for inside, row in DECAPSULATED.items():
            packet = marked(inner("10.1.0.10", "10.2.0.10"), 0xB8 | inside)
            rig.from_lan(packet)
            rig.turn()
            assert rig.tos == 0xB8 | inside
            for outside, wanted in zip((0, 2, 1, 3), row):
                packet = marked(GOOD_IN_B, 0xB8 | inside)
                rig.feed(marked(wrapped(kind, PEER_B, packet), 0x28 | outside))
                rig.turn()
                frames = rig.to_lan()
                assert [frame[15] for frame in frames] == (
                    [] if wanted is None else [0xB8 | wanted]
                )
    rig = OtherRig(55)
    for tos in (0, 0xBB, 0x29):
        rig.from_lan(marked(inner("10.1.0.10", "10.2.0.10"), tos))
        rig.feed(marked(wrapped(55, PEER_B, GOOD_IN_B), tos))
        rig.turn()
        assert rig.outer_packets()[0][1] == tos and rig.to_lan()[0][15] == tos


def test_control_packets_are_diverted_and_sent_in_the_tunnel():
    """R3.3.4-3: a keepalive goes the way of the data, marked CS6, and that mark stays with it."""
    for kind in KINDS:
        rig = OtherRig(kind)
        echo = ipv4.build_icmp_echo(HOME_B, HOME, False, 1, 2, b"token")
        rig.from_tunnel(echo, PEER_B)
        rig.turn()
        assert rig.plane.next_control() == (1, echo, PEER_B, 0, 0)
        answer = ipv4.build_icmp_echo(HOME, HOME_B, True, 1, 2, b"token", 0xC0)
        assert rig.plane.send(1, answer)
        (sent,) = rig.outer_packets()
        assert sent[9] == kind and encapsulation.decapsulate(sent) == answer
        assert rig.controls == [] and rig.tos == 0
        assert (rig.plane.user_rx(1), rig.plane.user_tx(1)) == (0, 0)


def test_a_lost_packet_costs_at_most_one_more_and_the_count_is_true():
    for kind in KINDS:
        rig = OtherRig(kind)
        inlet = rig.inlets[kind]
        for turn in range(20):
            for octets in (64, 1400, 700, 64, 1000, 80):
                frame = wrapped(kind, AGENT, inner("10.0.0.10", "10.1.0.10", octets))
                inlet.record(frame)
                if turn % 4 or octets != 1400:
                    inlet.packets_in.send(frame)
            rig.turn()
            rig.to_lan()
        loss = rig.plane.own_loss()
        assert loss["received"] == 120
        assert loss["handled"] + loss["cut"] + loss["missing"] == 120 and loss["missing"] == 5
        assert rig.plane.counters()["in_forwarded"] == loss["handled"]


def test_a_tunnel_that_changes_its_encapsulation_is_received_from_in_both_for_a_while():
    """RFC 6521 3.3.6: the end before, here the one in UDP, and back."""
    rig = OtherRig(47)
    plane = rig.plane
    assert plane.set_tunnel(1, 0, LOCAL, PEER_B, 434, 1468, HOME_B, (0, PEER_B, 47 << 16))
    rig.from_tunnel(GOOD_IN_B, PEER_B)
    super(OtherRig, rig).from_tunnel(GOOD_IN_B, PEER_B, 434)
    rig.turn()
    assert len(rig.to_lan()) == 2
    assert plane.set_tunnel(1, 0, LOCAL, PEER_B, 434, 1468, HOME_B)
    rig.from_tunnel(GOOD_IN_B, PEER_B)
    rig.turn()
    assert rig.to_lan() == []
    plane.close_uplink(0)
    assert [port for port in plane._ports if port.uplink == 0] == []


def test_packets_both_ways_allocate_nothing():
    """64 to 1500 octets, some cut, heap locked at each packet."""
    for kind in KINDS:
        rig = OtherRig(kind)
        plane = rig.plane
        polled = (rig.lan_inlet.pair[0], rig.inlets[kind].pair[0])
        octets, sent, got, cut = 64, 0, 0, 0
        for turn in range(800):
            octets = 64 + (octets - 64 + 211) % 1437
            rig.from_lan(inner("10.1.0.10", "10.2.0.10", octets))
            if octets <= 1480:
                rig.from_tunnel(inner("10.2.0.10", "10.1.0.10", octets), PEER_B)
            cut += octets > 1500 - OVERHEAD[kind]
            if turn:
                micropython.heap_lock()
            for obj in polled:
                plane.handle(obj, 1)
            if turn:
                micropython.heap_unlock()
            got += len(read_all(rig.lan.sink))
            sent += len(rig.outer_packets())
        assert sent == 800 + cut and cut and got == plane.user_rx(1)
        loss = plane.own_loss()
        assert loss["received"] == loss["handled"] and not loss["cut"] and not loss["send_errors"]


def mutated(rng, kind):
    """Return a packet of this protocol that is right, nearly right or wrong."""
    packet = bytearray(
        inner("10.2.0.10", "10.1.0.10", rng.randrange(40, 200), ttl=rng.randrange(256))
    )
    packet[1] = rng.randrange(256)
    source = PEER_B if rng.randrange(4) else address("10.2.0.10")
    reseal(packet)
    if kind == 47:
        frame = encapsulation.encapsulate_gre(source, LOCAL, bytes(packet), 64, rng.randrange(2))
    else:
        frame = wrapped(kind, source, bytes(packet))
    frame = bytearray(frame)
    for _ in range(rng.randrange(3)):
        frame[rng.randrange(48)] = rng.randrange(256)
    if not rng.randrange(4):
        frame = frame[: rng.randrange(20, 64)]
    frame[2] = len(frame) >> 8
    frame[3] = len(frame) & 255
    return frame


def test_twins_agree():
    """The viper leaves and the plain ones, on 10 000 packets."""
    if leaves_encapsulation_viper is None:
        return
    rng = random
    rng.seed(5)
    taken = 0
    for i in range(10000):
        kind = KINDS[i % 3]
        frame = mutated(rng, kind)
        both = []
        for twin in (leaves_encapsulation, leaves_encapsulation_viper):
            batch = bytearray(24) + frame + bytes(64)
            both.append((twin.unwrap(batch, 24, kind), bytes(batch)))
        assert both[0] == both[1], (i, kind)
        taken += both[0][0] > 0
        if kind == 55:
            both = []
            for twin in (leaves_encapsulation, leaves_encapsulation_viper):
                batch = bytearray(24) + frame + bytes(64)
                twin.minimal(batch, 24, LOCAL + AGENT)
                both.append(bytes(batch))
            assert both[0] == both[1], i
    assert 2000 < taken < 9000
