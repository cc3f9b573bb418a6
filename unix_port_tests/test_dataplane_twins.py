"""The plain and the viper leaves give the same results and leave the same octets."""

import random

from plane_rig import HOME, NETWORKS, ipv4

from haaro.dataplane import base, leaves, table
from haaro.wire.ipv4 import address

try:
    from haaro.dataplane import leaves_viper
except (ImportError, SyntaxError):
    leaves_viper = None

# fmt: off
ADDRESSES = (
    "10.1.0.10", "10.2.0.10", "10.3.0.10", "192.0.2.129", "192.0.2.130", "203.0.113.10",
    "192.0.2.1", "198.51.100.10", "224.0.0.1", "127.0.0.1", "0.0.0.0", "255.255.255.255",
    "128.0.0.0", "127.255.255.255", "10.2.255.255", "8.8.8.8",
)
# fmt: on


def state_and_table(step, others):
    state = bytearray(base.STATE_SIZE)
    for tunnel, remote, peer in ((0, "192.0.2.1", "192.0.2.1"), (3, "203.0.113.10", "192.0.2.130")):
        at = tunnel * base.SLOT
        state[at : at + 4] = address(remote)
        state[at + base.SLOT_PORT] = 434 >> 8
        state[at + base.SLOT_PORT + 1] = 434 & 255
        state[at + base.SLOT_UP] = 1
        state[at + base.SLOT_MTU] = 600 >> 8
        state[at + base.SLOT_MTU + 1] = 600 & 255
        state[at + base.SLOT_PEER : at + base.SLOT_PEER + 4] = address(peer)
    # Tunnel 3 is received from one more end, by another uplink.
    at = 3 * base.SLOT + base.SLOT_OTHER
    state[at : at + 4] = address("203.0.113.10")
    state[at + base.SLOT_PORT] = 434 >> 8
    state[at + base.SLOT_PORT + 1] = 435 & 255
    state[at + base.SLOT_UPLINK] = 1
    state[at + base.SLOT_UP] = 1
    state[base.STATE_OTHERS] = others
    state[base.STATE_TTL_STEP] = step
    builder = table.Builder(bytearray(4000))
    networks = [(address("10.2.0.0"), 16, 3), (address("192.0.2.130"), 32, 3)]
    routes = [
        (bytes(4), 0, 0, 7),
        (address("128.0.0.0"), 1, 0, -1),
        (address("10.3.0.0"), 16, 5, -1),
    ]
    ends = [address("192.0.2.1"), address("203.0.113.10"), address("198.51.100.10")]
    builder.build(routes + [n + (-1,) for n in networks], networks, NETWORKS, HOME, ends)
    return state, builder


def packet_like(choice, number):
    """Return an IPv4 packet that is often right and sometimes broken."""
    protocol = choice((1, 6, 17))
    packet = bytearray(68)
    source, destination = address(choice(ADDRESSES)), address(choice(ADDRESSES))
    ipv4.build_ipv4_into(packet, 0, protocol, source, destination, 48, choice((0, 1, 2, 64)), 0, 1)
    packet[20] = choice((0, 8, 3))
    packet[22] = choice((1, 0))
    packet[23] = 178
    packet[3] = choice((68, 68, 68, 20, 19, 27))
    packet[2] = choice((0, 0, 0, 4))
    packet[6] = choice((0, 0, 0x40, 0x20))
    packet[1] = random.getrandbits(2)
    packet[0] = choice((0x45, 0x45, 0x45, 0x45, 0x46, 0x4F, 0x44, 0x65))
    packet[10] = packet[11] = 0
    total = ipv4.checksum(packet, 0, (packet[0] & 15) * 4)
    packet[10] = total >> 8
    packet[11] = total & 255
    if number % 7 == 0:
        packet[choice(range(20))] = choice(range(256))
    return packet


def test_twins_agree_on_ten_thousand_packets():
    if leaves_viper is None:
        print("no code emitter: nothing to compare")
        return
    seed = random.getrandbits(30)
    print("seed", seed)
    random.seed(seed)
    choice = random.choice
    seen = set()
    for step in (0, 1):
        state, built = state_and_table(step, 1 - step)
        for number in range(5000):
            packet = bytearray(32) + packet_like(choice, number)
            packet[12:16] = address(choice(("192.0.2.1", "203.0.113.10", "8.8.8.8")))
            packet[1] = random.getrandbits(2)
            packet[20] = 1
            packet[21] = choice((178, 178, 179))  # port 434 or 435
            results = []
            last, uplink = choice((0, 3, 64)), choice((0, 0, 0, 1))
            for twin in (leaves, leaves_viper):
                a, b, wanted = bytearray(packet), bytearray(packet), bytearray(256)
                out = twin.outbound(a, 32, built.data, built.entries, state, wanted)
                tunnel = twin.tunnel_of(b, 0, state, last, uplink)
                inn = twin.inbound(b, 32, built.data, built.entries, state, max(0, tunnel))
                results.append(
                    (
                        (out, tunnel, inn, bytes(a), bytes(b), bytes(wanted)),
                        twin.header(packet, 32),
                        twin.find(built.data, built.entries, packet, 48),
                        twin.control(packet, 32, 68),
                        twin.checksum(packet, 0, 100),
                    )
                )
                seen.add(out if out < 0 else "out")
                seen.add(inn if inn < 0 else "in")
                seen.add(tunnel)
            assert results[0] == results[1], (seed, number, packet.hex())
    for reason in (-1, -2, -3, -4, -5, -6, -8, -9, "out", -11, -12, 0, 3):
        assert reason in seen, reason
    for reason in (-13, -14, -15, -16, -17, -18, -19, -20, -21, -24, "in"):
        assert reason in seen, reason


def test_twins_agree_on_batches():
    if leaves_viper is None:
        return
    for record, ahead in ((base.LAN_RECORD, 14), (base.UPLINK_RECORD, 32)):
        for _ in range(300):
            lengths = [random.choice((20, 64, 300, 1500)) for _ in range(random.randrange(1, 8))]
            batch = bytearray()
            records = bytearray()
            for i, length in enumerate(lengths):
                packet = bytearray(ahead + length)
                packet[ahead + 2] = length >> 8
                packet[ahead + 3] = length & 255
                packet[ahead + 5] = i
                batch += packet
                records += packet[:record]
            if random.getrandbits(1):
                records[random.randrange(len(lengths)) * record + ahead + 5] = 77
            octets = len(batch) - random.choice((0, 0, 1, 30))
            results = []
            for twin in (leaves, leaves_viper):
                count = len(lengths)
                total = twin.total(records, 0, count, record, ahead)
                assert total == len(batch)
                part = twin.total(records, 1, count - 1, record, ahead)
                whole = twin.aligned(batch, 0, octets, records, 0, count, record, ahead)
                second = ahead + lengths[0]
                places = (0, second) if count > 1 else (0,)
                found = [
                    twin.seek(batch, at, records, first, count, record, ahead)
                    for at in places
                    for first in (0, 1)
                ]
                if found[-1] > 0:
                    found.append(
                        twin.aligned(batch, second, octets, records, 1, count - 1, record, ahead)
                    )
                results.append((part, whole, found))
            assert results[0] == results[1]


def contains(prefix, plen, number):
    return plen == 0 or prefix >> (32 - plen) == number >> (32 - plen)


def number_of(four):
    return int.from_bytes(four, "big")


def test_the_table_finds_the_longest_match():
    """R3.3.2-1, R3.3.2-2: against a plain search over the prefixes, at and beside every edge."""
    for _ in range(6):
        routes, sources = [], []
        for i in range(60):
            plen = random.choice((0, 1, 8, 9, 16, 24, 30, 31, 32))
            prefix = random.getrandbits(30) << 2 >> (32 - plen) << (32 - plen) if plen else 0
            if i % 3:
                prefix = (0x0A000000 | prefix & 0x0003FFFF) >> (32 - plen) << (32 - plen)
            four = prefix.to_bytes(4, "big")
            routes.append((four, plen, i, i if i % 2 else -1))
            if i % 2:
                sources.append((four, plen, i))
        networks = [(address("10.1.0.0"), 16)]
        ends = [address("10.3.3.3"), address("255.255.255.255")]
        builder = table.Builder(bytearray(10000))
        builder.build(routes, sources, networks, address("10.1.0.1"), ends)
        assert builder.omitted == 0
        probes = [0, 0xFFFFFFFF, 0x0A010001, 0x0A010000, 0x0A020000, 0x0A030303, 0x0A030304]
        for four, plen, _, _ in routes:
            low = number_of(four)
            probes += [low, low + (1 << (32 - plen)) - 1, max(low - 1, 0)]
        for probe in probes:
            at = leaves.find(builder.data, builder.entries, probe.to_bytes(4, "big"), 0)
            for field, rows in ((4, routes), (5, sources)):
                best = None
                for row in rows:
                    inside = contains(number_of(row[0]), row[1], probe)
                    if inside and (best is None or row[1] > best[1]):
                        best = row
                assert builder.data[at + field] == (best[2] if best else 255), (probe, field)
                if field == 4:
                    hint = builder.data[at + 8] << 8 | builder.data[at + 9]
                    assert hint == (best[3] & 0xFFFF if best else 0xFFFF)
            flags = table.OWN_NETWORK if probe >> 16 == 0x0A01 else 0
            flags |= table.OWN_HOME_ADDRESS if probe == 0x0A010001 else 0
            flags |= table.TUNNEL_END if probe in (0x0A030303, 0xFFFFFFFF) else 0
            assert builder.data[at + 6] == flags, probe


def test_new_tunnel_ends_replace_the_old_ones():
    built, aside = table.Builder(bytearray(300)), table.Builder(bytearray(300))
    built.build([(bytes(4), 0, 0, -1)], [], NETWORKS, HOME, [address("203.0.113.10")])
    aside.renew_ends(built, [address("203.0.113.11")])

    def flags(builder, text):
        return builder.data[leaves.find(builder.data, builder.entries, address(text), 0) + 6]

    assert flags(built, "203.0.113.10") == table.TUNNEL_END
    assert flags(aside, "203.0.113.10") == 0
    assert flags(aside, "203.0.113.11") == table.TUNNEL_END
    assert flags(aside, "10.1.0.9") == table.OWN_NETWORK


def test_a_full_table_leaves_out_the_longest_prefixes_and_counts_them():
    builder = table.Builder(bytearray(300))
    rows = [(bytes((20, i, 0, 0)), 16, 1, -1) for i in range(40)]
    builder.build([(bytes(4), 0, 0, -1)] + rows, [], NETWORKS, HOME, [])
    assert 0 < builder.omitted < 40
    assert builder.entries <= 30
    at = leaves.find(builder.data, builder.entries, address("8.8.8.8"), 0)
    assert builder.data[at + 4] == 0
