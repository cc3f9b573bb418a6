"""Superframes: what leaves, and what the LAN gets, is what single packets would have been.

The judge is `plane_rig.cut`, which makes packets of a superframe with the checksums of wire/ipv4.
"""

# heapsize: 1m

import random
import struct

import micropython
from plane_rig import (
    AGENT,
    DEFAULT,
    ETHERNET,
    LOCAL,
    Rig,
    cut,
    inner,
    marked,
    outer,
    packets_of,
    reseal,
    sealed,
)
from test_dataplane_encapsulations import KINDS, OtherRig
from test_dataplane_runs import Cutter

from haaro.dataplane import leaves_superframes
from haaro.wire import encapsulation

try:
    from haaro.dataplane import leaves_superframes_viper
except (ImportError, SyntaxError):
    leaves_superframes_viper = None

OUT, IN = ("10.1.0.10", "10.0.0.10"), ("10.0.0.10", "10.1.0.10")
TIMESTAMPS = b"\1\1\x08\x0a\x12\x34\x56\x78\x9a\xbc\xde\xf0"
FIN, SYN, PSH, ACK, URG, ECE, CWR = 1, 2, 8, 16, 32, 64, 128


def tcp(ends, payload, sequence=0xFFFFF000, flags=ACK, options=TIMESTAMPS, number=65533, **changes):
    """Return a TCP packet with right checksums, don't fragment set."""
    head = struct.pack(">HHIIBB", 5001, 443, sequence, 77, (20 + len(options)) << 2, flags)
    payload = head + struct.pack(">HHH", 500, 0, 0) + options + payload
    packet = bytearray(
        inner(*ends, protocol=6, df=True, ttl=changes.get("ttl", 64), payload=payload)
    )
    packet[1] = changes.get("tos", 0)
    packet[4:6] = struct.pack(">H", number & 0xFFFF)
    return sealed(packet)


def udp(ends, payload, number=1, ports=(5000, 5001)):
    head = struct.pack(">HHHH", ports[0], ports[1], 8 + len(payload), 0)
    packet = bytearray(inner(*ends, df=True, payload=head + payload))
    packet[4:6] = struct.pack(">H", number & 0xFFFF)
    return sealed(packet)


def noise(octets):
    return bytes([random.getrandbits(8) for _ in range(octets)])


def vnet(packet, size):
    """Return the vnet header of a TCP superframe."""
    data = 34 + (packet[32] >> 4) * 4
    return struct.pack("<BBHHHH", 1, 1, data, size, 34, 16)


def rig_with(kind=Rig, mtu=1468):
    if leaves_superframes_viper is None:
        return None
    rig = kind(ahead=24)
    assert rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, mtu, AGENT)
    rig.plane.swap([(bytes(4), 0, 0, 3)], [])
    return rig


def tunnelled(rig):
    return [data[4:] for _, data in rig.to_tunnels() if data[:4] == b"\x04\x04\0\0"]


def data_of(packet):
    return 20 + (packet[32] >> 4) * 4


def test_a_superframe_leaves_as_the_packets_it_stands_for():
    for kind in (Rig, Cutter):
        rig = rig_with(kind)
        if rig is None:
            return
        total = 0
        for octets, size, options, flags in (
            (8 * 1416, 1416, TIMESTAMPS, ACK),
            (8 * 1416 - 5, 1416, TIMESTAMPS, ACK | PSH),
            (1429, 1428, b"", ACK | FIN | PSH | CWR | ECE),
            (5 * 99 + 1, 99, b"\1" * 40, ACK | PSH),
            (7, 1, b"", ACK),
            (300, 1416, TIMESTAMPS, ACK),
        ):
            packet = tcp(OUT, noise(octets), flags=flags, options=options, tos=0xB9)
            rig.from_lan(packet, vnet(packet, size))
            rig.turn()
            wanted = cut(packet, data_of(packet), size)
            assert tunnelled(rig) == wanted
            total += len(wanted)
            counters, loss = rig.plane.counters(), rig.plane.own_loss()
            assert counters["out_forwarded"] == rig.plane.user_tx(0) == total
            assert loss["received"] == loss["handled"] == total
        assert rig.tos == 0xB9 and rig.plane.wanted[3] == 1


def test_a_run_leaves_by_one_call():
    rig = rig_with(Cutter)
    if rig is None:
        return
    packet = tcp(OUT, noise(9 * 1416))
    rig.from_lan(packet, vnet(packet, 1416))
    rig.turn()
    # The first alone: it makes the room for the others' headers.
    assert rig.plane._send[0].calls == 2
    assert tunnelled(rig) == cut(packet, data_of(packet), 1416)


def test_superframes_and_packets_leave_in_their_order():
    rig = rig_with(Cutter)
    if rig is None:
        return
    frame = tcp(OUT, noise(3000))
    first, last = tcp(OUT, b"first"), tcp(OUT, b"last one")
    for packet, header in ((first, bytes(10)), (frame, vnet(frame, 1400)), (last, bytes(10))):
        rig.from_lan(packet, header)
    rig.turn()
    assert tunnelled(rig) == [first] + cut(frame, data_of(frame), 1400) + [last]


def test_a_refused_superframe_counts_its_packets():
    """The checks of a single packet: source, destination, TTL, MTU, header checksum."""
    rig = rig_with()
    if rig is None:
        return
    rig.lan.ttl_step = rig.plane._state[24 * 65 + 14] = 1
    payload = bytes(5000)
    for packet, size, reason in (
        (tcp(("10.9.0.10", OUT[1]), payload), 1000, "out_foreign_source"),
        (tcp((OUT[0], "224.0.0.1"), payload), 1000, "out_not_unicast"),
        (tcp((OUT[0], "10.1.0.99"), payload), 1000, "out_own_destination"),
        (tcp(OUT, payload, ttl=1), 1000, "out_ttl_exceeded"),
        (tcp(OUT, payload), 1418, "out_too_big"),
        (tcp(OUT, payload)[:10] + b"\x12\x34" + tcp(OUT, payload)[12:], 1000, "out_bad_checksum"),
    ):
        before = rig.plane.counters()
        rig.from_lan(packet, vnet(packet, size))
        rig.turn()
        assert rig.changed(before) == {reason: -(-5000 // size)}, reason
        assert tunnelled(rig) == []
        rig.plane._icmp_at -= 1000
        errors = rig.to_lan()
        assert len(errors) == (reason in ("out_ttl_exceeded", "out_too_big"))
        # Quoted is the first packet, as if it had come alone.
        wanted = cut(packet, data_of(packet), size)[0]
        assert not errors or errors[0][42:62] == wanted[:20]
    loss = rig.plane.own_loss()
    assert loss["received"] == loss["handled"] == 5 * 5 + 4


def test_a_superframe_leaves_in_each_encapsulation():
    """Minimal encapsulation writes its headers in front of where the packet began."""
    if leaves_superframes_viper is None:
        return
    for kind in KINDS:
        DEFAULT["ahead"] = 24
        try:
            rig = OtherRig(kind)
        finally:
            DEFAULT["ahead"] = 0
        packet = tcp(OUT, noise(4000))
        rig.from_lan(packet, vnet(packet, 1000))
        rig.turn()
        sent = [encapsulation.decapsulate(each) for each in rig.outer_packets()]
        assert sent == cut(packet, data_of(packet), 1000)


def test_packets_that_may_be_fragmented_are():
    rig = rig_with(mtu=600)
    if rig is None:
        return
    packet = bytearray(tcp(OUT, noise(2500)))
    packet[6] = 0
    packet = sealed(packet)
    rig.from_lan(packet, vnet(packet, 1000))
    rig.turn()
    found = {}
    for part in tunnelled(rig):
        assert len(part) <= 600
        offset = (part[6] << 8 | part[7]) & 0x1FFF
        found.setdefault(part[4] << 8 | part[5], {})[offset * 8] = part[20:]
    for whole in cut(packet, data_of(packet), 1000):
        parts = found.pop(whole[4] << 8 | whole[5])
        assert b"".join([parts[at] for at in sorted(parts)]) == whole[20:]
    assert not found and rig.plane.user_tx(0) == 3


def test_a_checksum_that_the_kernel_left_is_made():
    rig = rig_with()
    if rig is None:
        return
    zero = bytearray(udp(OUT, bytes(32)))
    # A sum of 0 must be sent as 0xFFFF, for 0 means none (RFC 768).
    zero[28:30] = zero[26:28]
    zero = sealed(zero)
    assert zero[26:28] == b"\xff\xff"
    for packet, field in ((tcp(OUT, b"odd"), 36), (udp(OUT, noise(64)), 26), (zero, 26)):
        left = bytearray(packet)
        pseudo = packet[12:20] + bytes((0, packet[9])) + struct.pack(">H", len(packet) - 20)
        s = sum(struct.unpack(">6H", pseudo))
        left[field : field + 2] = struct.pack(">H", (s & 0xFFFF) + (s >> 16))
        rig.from_lan(bytes(left), struct.pack("<BBHHHH", 1, 0, 0, 0, 34, field - 20))
    rig.turn()
    assert tunnelled(rig)[2] == zero and len(rig.to_tunnels()) == 0
    rig.from_lan(bytes(left), struct.pack("<BBHHHH", 1, 0, 0, 0, 34, 60000))
    rig.turn()
    assert tunnelled(rig) == [bytes(left)]


def arrive(rig, packets, tos=()):
    """Have the packets come by the tunnel in one batch; return (frames, packets in them)."""
    for i, packet in enumerate(packets):
        rig.uplink_inlet.feed(outer(packet, tos=tos[i] if tos else 0))
    rig.turn()
    frames = rig.superframes()
    found = []
    for frame in frames:
        assert frame[10:24] == ETHERNET
        found.extend(packets_of(frame))
    return len(frames), found


def segments(octets, size, **changes):
    packet = tcp(IN, noise(octets), **changes)
    return cut(packet, data_of(packet), size)


def test_segments_in_order_reach_the_lan_as_one_frame_and_are_the_same_afterwards():
    rig = rig_with()
    if rig is None:
        return
    for octets, size, changes in (
        (8 * 1416, 1416, {}),
        (9 * 100 + 1, 100, {"flags": ACK | PSH, "tos": 2}),
        (3000, 1000, {"flags": ACK | FIN | PSH | ECE, "options": b""}),
        (9, 1, {"options": b"\1" * 40}),
    ):
        packets = segments(octets, size, **changes)
        assert arrive(rig, packets) == (1, packets)
    datagrams = [udp(IN, noise(64), number=i) for i in range(65534, 65544)]
    datagrams.append(udp(IN, noise(3), number=65544))
    assert arrive(rig, datagrams[2:]) == (1, datagrams[2:])
    assert rig.plane.counters()["in_forwarded"] == rig.plane.user_rx(0) == 8 + 10 + 3 + 9 + 9


def changed(packet, at, value):
    packet = bytearray(packet)
    packet[at] = value
    return sealed(packet)


def test_what_a_host_could_tell_apart_is_not_joined():
    """Each field that GRO looks at, in the second of four segments."""
    rig = rig_with()
    if rig is None:
        return
    one, two, three, four = segments(4000, 1000)
    for at, bits in ((1, 4), (1, 1), (5, 1), (6, 0x40), (8, 1), (15, 1), (20, 1), (23, 1), (24, 1),
                     (27, 1), (28, 1), (31, 1), (33, SYN), (33, ECE), (33, URG), (33, CWR),
                     (33, ACK), (34, 1), (35, 1), (39, 1), (44, 1), (51, 1)):  # fmt: skip
        other = changed(two, at, two[at] ^ bits)
        number, packets = arrive(rig, [one, other, three, four])
        assert packets == [one, other, three, four] and number == 3, (at, bits)
    longer = tcp(IN, bytes(1001), 0xFFFFF000 + 1000, number=65534)
    assert arrive(rig, [one, longer]) == (2, [one, longer])
    # Behind a shorter one, and behind PSH or FIN, a new frame begins.
    short = segments(500, 1000)
    for packets in ([short[0], three], segments(2000, 1000, flags=ACK | PSH)[1:] + [three]):
        assert arrive(rig, packets) == (2, packets)
    assert arrive(rig, [two, one]) == (2, [two, one])
    empty = tcp(IN, b"")
    assert arrive(rig, [empty, empty]) == (2, [empty, empty])
    fragment = bytearray(one)
    fragment[6] = 0x20
    reseal(fragment)
    assert arrive(rig, [bytes(fragment)] * 2) == (2, [bytes(fragment)] * 2)


def test_congestion_experienced_stays_on_its_packet():
    """RFC 6040 4.2: a CE mark of the path is of one packet, and none is joined over it."""
    rig = rig_with()
    if rig is None:
        return
    packets = segments(4000, 1000, tos=2)
    wanted = packets[:]
    wanted[1] = marked(packets[1], 3)
    assert arrive(rig, packets, (2, 3, 2, 2)) == (3, wanted)


def test_a_damaged_packet_is_neither_joined_nor_mended():
    rig = rig_with()
    if rig is None:
        return
    for packets in (segments(3000, 1000), [udp(IN, noise(99), number=i) for i in range(3)]):
        for bad in range(3):
            damaged = packets[:]
            damaged[bad] = damaged[bad][:-1] + bytes((damaged[bad][-1] ^ 1,))
            number, found = arrive(rig, damaged)
            assert found == damaged and number == (3 if bad == 1 else 2)
    none = bytearray(udp(IN, noise(99)))
    none[26] = none[27] = 0
    assert arrive(rig, [bytes(none)] * 2) == (2, [bytes(none)] * 2)


def test_flows_between_each_other_are_whole():
    rig = rig_with()
    if rig is None:
        return
    seed = random.getrandbits(30)
    print("seed", seed)
    random.seed(seed)
    for _ in range(200):
        waiting = [
            segments(random.randrange(1, 5) * 300 - random.randrange(2), 300),
            [udp(IN, noise(50), number=i) for i in range(random.randrange(1, 5))],
            segments(500, 500, flags=ACK | PSH),
        ]
        packets = []
        while len(packets) < 9 and any(waiting):
            flow = random.choice([flow for flow in waiting if flow])
            for _ in range(random.randrange(1, 4)):
                if flow and len(packets) < 9:
                    packets.append(flow.pop(0))
        assert arrive(rig, packets)[1] == packets, seed


def test_superframes_allocate_nothing():
    """With the heap locked: one is cut and one is joined, packets before and behind."""
    rig = rig_with()
    if rig is None:
        return
    frame = tcp(OUT, noise(4 * 1000))
    for packet, header in ((tcp(OUT, b"a"), bytes(10)), (frame, vnet(frame, 1000))):
        rig.from_lan(packet, header)
    for packet in segments(4000, 1000) + [tcp(IN, b"")]:
        rig.uplink_inlet.feed(outer(packet))
    micropython.heap_lock()
    rig.plane.handle(rig.lan_inlet.pair[0], 1)
    rig.plane.handle(rig.uplink_inlet.pair[0], 1)
    micropython.heap_unlock()
    assert len(tunnelled(rig)) == 5 and len(rig.superframes()) == 2


def test_twins_agree_on_ten_thousand_packets():
    if leaves_superframes_viper is None:
        return
    seed = random.getrandbits(30)
    print("seed", seed)
    random.seed(seed)
    twins = (leaves_superframes, leaves_superframes_viper)
    seen = set()
    for number in range(1500):
        batch, places = line_of_packets()
        for count in range(2, 7):
            results = []
            for twin in twins:
                mine = bytearray(batch)
                results.append((joined(twin, mine, places, count), bytes(mine)))
            seen.add(results[0][0][1])
            assert results[0] == results[1], (seed, number)
        frame = tcp(OUT, noise(random.randrange(1, 700)), flags=random.getrandbits(8))
        results = []
        header, size = 4 + data_of(frame), random.randrange(1, 300)
        done = random.randrange(1, 300)
        for twin in twins:
            mine, head = bytearray(2000) + frame, bytearray(124)
            twin.keep(mine, 1996, header, head)
            stop, octets = 0, min(done, len(frame) - header + 4)
            if header * (done // size + 2) < 2000:
                stop = twin.cut(mine, 0, 2000 + header - 4, octets, size, head, done & 1)
            results.append((stop, bytes(mine), bytes(head)))
        assert results[0] == results[1], (seed, number)
        left = bytearray(10) + ETHERNET + frame
        left[0], left[1] = number & 3, random.choice((0, 0, 0, 1, 5))
        left[6], left[8] = 34, 16
        results = []
        for twin in twins:
            mine = bytearray(left)
            results.append((twin.opened(mine, 0), bytes(mine)))
        assert results[0] == results[1], (seed, number)
    assert min(seen) < 0 and 0 in seen and max(seen) > 0


def line_of_packets():
    """Return (batch, offsets): packets with room in front, often of one flow, often changed."""
    if random.getrandbits(1):
        packets = segments(6 * 40 - random.randrange(3), 40, flags=ACK | random.choice((0, PSH)))
    else:
        packets = [udp(IN, noise(random.choice((40, 40, 40, 39, 41))), i) for i in range(7)]
    batch, places = bytearray(), []
    for packet in packets:
        if not random.randrange(6):
            packet = changed(packet, random.randrange(1, 52), random.getrandbits(8))
        batch += bytes(32)
        places.append(len(batch))
        batch += packet
    return batch, places


def joined(twin, batch, places, count):
    start, total = places[0], batch[places[0] + 2] << 8 | batch[places[0] + 3]
    size = twin.joinable(batch, start, count & 1)
    if not size or total > 100:
        return size, 0
    done = 0
    for at in places[1:count]:
        if batch[at + 2]:
            break
        done = twin.join(batch, start, total, at, size)
        if done <= 0:
            break
        total = done
    twin.seal(batch, start, abs(done) or total, size)
    twin.single(batch, places[-1])
    return size, done


def test_twins_add_and_copy_the_same():
    if leaves_superframes_viper is None:
        return
    viper = leaves_superframes_viper
    for _ in range(500):
        octets, at, to = random.randrange(0, 150), random.randrange(50, 90), random.randrange(0, 50)
        a = bytearray(noise(300))
        b, c = bytearray(a), bytearray(a)
        wanted = leaves_superframes.add(a, at, octets)
        assert viper.add_wide(a, at, octets) == viper.add_narrow(a, at, octets) == wanted
        assert leaves_superframes.copy(a, to, at, octets) == wanted
        assert viper.copy_wide(b, to, at, octets) == viper.copy_narrow(c, to, at, octets) == wanted
        assert a == b == c
