"""One line of text that says all the wire layer makes of some octets, the same on every runtime.

As a program inside MicroPython: a report for each line "kind hex" of the file named, in order.
Kinds: "v" a message as a sender of ours makes it (it is built again from what was read), "m" any
UDP payload, "p" any IPv4 packet.
"""

import sys

if __name__ == "__main__":
    HERE = __file__.rsplit("/", 1)[0] if "/" in __file__ else "."
    sys.path.append(HERE + "/../firmware")

import vector_checks

from haaro.wire import auth, encapsulation, ipv4, message
from haaro.wire.errors import WireError
from haaro.wire.registration import ExtendedMessage, MobileHomeAuthentication

KEYS = {"mobile_home": bytes(range(16)), "krm": bytes(range(20)), "spi": 256}


def canonical(value) -> str:
    """Return `value` as text; dicts sorted, characters and octets in hexadecimal."""
    if isinstance(value, dict):
        return "{%s}" % ",".join([k + ":" + canonical(value[k]) for k in sorted(value)])
    if isinstance(value, (list, tuple)):
        return "[%s]" % ",".join([canonical(v) for v in value])
    if isinstance(value, str):
        return "'%s'" % "".join(["%02x" % ord(c) for c in value])
    if isinstance(value, (bytes, bytearray)):
        return "x" + bytes(value).hex()
    return str(value)


def report(kind: str, data: bytes) -> str:
    """Return the line for `data`."""
    if kind == "p":
        return of_packet(data)
    try:
        m = message.parse(data)
    except WireError as e:
        return "discard " + e.reason
    parts = [m.type, vector_checks.fields(m)]
    if isinstance(m, ExtendedMessage):
        parts += of_extended(m)
    if kind == "v":
        parts.append(vector_checks.build(m, KEYS, KEYS["krm"]))
    return canonical(parts)


def of_extended(m) -> list:
    parts = [m.authenticators, m.unauthenticated, m.ignored, m.bad]
    parts.append([[e.plen, e.prefix] for e in m.invalid_networks])
    parts.append([of_extension(e) for e in m.extensions])
    a = m.authenticator
    if a is None:
        return parts
    spi = a.spi if isinstance(a, MobileHomeAuthentication) else None
    parts += [a.offset, spi, a.value]
    parts += [auth.verify_mobile_home(m, name, KEYS["mobile_home"]) for name in auth.ALGORITHMS]
    parts.append(auth.verify_mobile_correspondent(m, KEYS["krm"]))
    return parts


def of_extension(e) -> dict:
    named = vector_checks.ext_fields(e)
    return {"nai": e.value} if "unexpected" in named else named


def of_packet(data: bytes) -> str:
    parts = []
    for step in (of_header, of_udp, of_echo, encapsulation.decapsulate):
        try:
            parts.append(step(data))
        except WireError as e:
            parts.append(e.reason)
    return canonical(parts)


def of_header(data: bytes) -> list:
    ip = ipv4.parse_ipv4(data)
    numbers = [ip.header_length, ip.tos, ip.total_length, ip.ident, ip.fragment_offset, ip.ttl]
    return numbers + [ip.df, ip.more_fragments, ip.protocol, ip.src, ip.dst]


def of_udp(data: bytes) -> tuple:
    return ipv4.parse_udp(data, ipv4.parse_ipv4(data))


def of_echo(data: bytes) -> tuple | None:
    return ipv4.parse_icmp_echo(data, ipv4.parse_ipv4(data))


if __name__ == "__main__":
    with open(sys.argv[1]) as lines:
        for line in lines:
            print(report(line[0], bytes.fromhex(line[2:].strip())))
