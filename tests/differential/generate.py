"""Messages and packets for the differential run: legal ones of every kind, and damaged ones.

Everything comes from one `random.Random`, so a seed and a count give the same lines again.
"""

import random
from collections.abc import Callable, Iterator

from haaro.wire import auth, encapsulation, extensions, ipv4, message, registration, revocation
from haaro.wire import return_routability as rr
from haaro.wire.prefixes import build_advertisement

KEY = bytes(range(16))
KRM = bytes(range(20))
_LABELS = ["a", "b", "example", "com", "org", "office", "site-7", "\xfc\xff", "x" * 40]


def lines(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, octets); kinds as in unix_port_tests/wire_report.py."""
    r = random.Random(seed)
    for _ in range(count):
        choice = r.random()
        if choice < 0.45:
            yield "v", legal(r)
        elif choice < 0.75:
            yield "m", damaged(r, legal(r))
        elif choice < 0.82:
            yield "m", other_keys(r)
        elif choice < 0.87:
            first = r.choice([0, 1, 3, 4, 7, 15, 24, 26, 27, 255])
            yield "m", bytes([first]) + r.randbytes(r.randrange(80))
        elif choice < 0.93:
            yield "p", packet(r)
        else:
            yield "p", damaged(r, packet(r))


def legal(r: random.Random) -> bytes:
    """Return a message that our own senders could make, signed with the keys above."""
    kind = r.choice([1, 1, 1, 3, 3, 3, 3, 4, 7, 15, 24, 25, 26, 27])
    if kind == 4:
        return bytes([4, r.choice([4, 47, 55]), 0, 0]) + r.randbytes(r.randrange(60))
    if kind in (message.HOTI, message.COTI):
        return rr.build_init(kind, r.randbytes(8))
    if kind in (message.HOT, message.COT):
        return rr.build_test(kind, r.randrange(65536), r.randbytes(8), r.randbytes(8))
    m = fixed(r, kind)
    for append in r.sample(appenders(r, kind), r.randrange(6)):
        append(m)
    if r.random() < 0.3:
        auth.append_mobile_correspondent(m, KRM, r.randrange(65536), r.randrange(65536))
    else:
        spi = 256 if r.random() < 0.8 else r.getrandbits(32)
        auth.append_mobile_home(m, spi, auth.HMAC_MD5, KEY)
    return bytes(m)


def fixed(r: random.Random, kind: int) -> bytearray:
    four = [r.randbytes(4) for _ in range(4)]
    lifetime = r.choice([0, 300, 0xFFFF, r.randrange(65536)])
    if kind == message.REGISTRATION_REQUEST:
        flags = r.randrange(256) & 0xFA
        return registration.build_request(flags, lifetime, *four[:3], r.randbytes(8))
    if kind == message.REGISTRATION_REPLY:
        return registration.build_reply(r.randrange(256), lifetime, *four[:2], r.randbytes(8))
    if kind == message.REVOCATION:
        return revocation.build_revocation(
            r.random() < 0.5, r.random() < 0.5, *four[:3], r.getrandbits(32)
        )
    return revocation.build_revocation_ack(r.random() < 0.5, four[0], r.getrandbits(32))


def appenders(r: random.Random, kind: int) -> list[Callable[[bytearray], None]]:
    """Return calls `f(message)`, each with random fields; none twice but those that may repeat."""
    e = extensions
    flag = [r.random() < 0.5 for _ in range(8)]
    octet = r.randrange(256)
    networks = [network(r) for _ in range(4)]
    coas = [r.randbytes(4) for _ in range(r.randrange(1, 64))]
    calls: list[Callable[[bytearray], None]] = [
        lambda m: e.append_mobile_network_request(m, *networks[0]),
        lambda m: e.append_mobile_network_request(m, *networks[1]),
        lambda m: e.append_mobile_network_ack(m, octet, *networks[2], flag[0]),
        lambda m: e.append_mobile_network_ack(m, octet & 3, *networks[3], flag[1]),
        lambda m: e.append_udp_tunnel_request(m, flag[2], r.choice([0, 4, 47, 55]), flag[3]),
        lambda m: e.append_udp_tunnel_reply(m, octet, flag[2], r.randrange(65536)),
        lambda m: e.append_route_optimization_capability(
            m, flag[4], flag[5], flag[6], r.randbytes(4) if flag[7] else None
        ),
        lambda m: e.append_route_optimization_reply(m, flag[4], flag[5], flag[6], octet & 31),
        lambda m: e.append_care_of_addresses(m, coas),
        lambda m: e.append_revocation_support(m, flag[0], r.getrandbits(32)),
    ]
    if kind == message.REGISTRATION_REPLY:
        data, _ = build_advertisement(routers(r))
        calls.append(lambda m: e.append_prefix_advertisement(m, data))
    calls.append(lambda m: e.append_nai(m, r.randbytes(r.randrange(1, 60))))
    return calls


def network(r: random.Random) -> tuple[bytes, int]:
    plen = r.choice([0, 8, 12, 16, 22, 24, 24, 24, 28, 32, r.randrange(33)])
    base = r.choice([b"\x0a\x01", b"\x0a\x02", r.randbytes(2)])
    return ipv4.mask(base + r.randbytes(2), plen), plen


def routers(r: random.Random) -> list:
    most = r.choice([1, 3, 3, 10, 40])
    return [
        (
            r.randbytes(4),
            r.random() < 0.3,
            [(*network(r), realm(r)) for _ in range(r.randrange(5))],
        )
        for _ in range(r.randrange(1, most + 1))
    ]


def realm(r: random.Random) -> str:
    labels = [r.choice(_LABELS) for _ in range(r.randrange(5))]
    if r.random() < 0.2:
        labels.append(f"n{r.randrange(200)}")
    return ".".join(labels)


def other_keys(r: random.Random) -> bytes:
    """Return a message of another algorithm, or with two authenticators."""
    m = fixed(r, r.choice([1, 3, 7, 15]))
    for append in r.sample(appenders(r, 3), r.randrange(4)):
        append(m)
    for _ in range(r.randrange(3)):
        auth.append_mobile_home(m, 256, r.choice(auth.ALGORITHMS), r.choice([KEY, KRM]))
    return bytes(m)


def damaged(r: random.Random, data: bytes) -> bytes:
    """Return `data` with one to three changes: bits, octets, cuts, insertions, repetitions."""
    out = bytearray(data)
    for _ in range(r.randrange(1, 4)):
        at = r.randrange(len(out) + 1)
        change = r.randrange(6)
        if change == 0 and at < len(out):
            out[at] ^= 1 << r.randrange(8)
        elif change == 1 and at < len(out):
            out[at] = r.choice([0, 1, 0x40, 0x7F, 0x80, 0xFF, r.randrange(256)])
        elif change == 2:
            del out[at:]
        elif change == 3:
            out[at:at] = r.choice([b"\0", b"\0\0\0", b"\xc8\x01x", b"\x31", r.randbytes(3)])
        elif change == 4:
            out += out[at : at + r.randrange(30)]
        else:
            del out[at : at + r.randrange(4)]
    return bytes(out)


def packet(r: random.Random) -> bytes:
    """Return an IPv4 packet: UDP, ICMP echo or error, perhaps encapsulated."""
    src, dst = r.randbytes(4), r.randbytes(4)
    body = r.randbytes(r.randrange(40))
    choice = r.randrange(3)
    if choice == 0:
        ports = r.randrange(65536), r.randrange(65536)
        data = ipv4.build_udp(src, dst, *ports, body, r.randrange(256), r.randrange(256))
    else:
        data = ipv4.build_icmp_echo(src, dst, r.random() < 0.5, *r.sample(range(65536), 2), body)
        if choice == 2:
            data = ipv4.build_icmp_error(src, 3, 4, r.randrange(65536), data)
    ends = r.choice([src, r.randbytes(4)]), r.randbytes(4)
    wrap = r.randrange(8)
    if wrap == 0:
        return encapsulation.encapsulate_ipip(*ends, data, r.randrange(256))
    if wrap == 1:
        return encapsulation.encapsulate_gre(*ends, data, 64, r.random() < 0.5)
    if wrap == 2:
        return encapsulation.encapsulate_minimal(*ends, data)
    return data
