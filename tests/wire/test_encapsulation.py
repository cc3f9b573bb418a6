"""IP in IP, minimal and GRE encapsulation: octets of the RFCs, round trips, refusals."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire import encapsulation as enc
from haaro.wire import ipv4
from haaro.wire.errors import WireError
from tests.wire.strategies import octets4
from tests.wire.test_ipv4 import changed, ones_complement

SRC, DST = b"\x0a\x01\0\x0a", b"\x0a\x02\0\x0a"
ENTRY, EXIT = b"\xc6\x33\x64\x0a", b"\xcb\0\x71\x0a"
INNER = ipv4.build_udp(SRC, DST, 1, 2, b"abc", 17, 0xB8)
WITH_OPTIONS = changed(
    b"\x46" + INNER[1:20] + b"\1\1\1\0" + INNER[20:], 2, struct.pack(">H", len(INNER) + 4)
)
ALL = [
    lambda p: enc.encapsulate_ipip(ENTRY, EXIT, p),
    lambda p: enc.encapsulate_gre(ENTRY, EXIT, p),
    lambda p: enc.encapsulate_gre(ENTRY, EXIT, p, 64, True),
    lambda p: enc.encapsulate_minimal(ENTRY, EXIT, p),
    lambda p: enc.encapsulate_minimal(SRC, EXIT, p),
]


def reason(packet):
    with pytest.raises(WireError) as e:
        enc.decapsulate(packet)
    return e.value.reason


@given(octets4, octets4, octets4, octets4, st.binary(max_size=60), st.integers(1, 255))
def test_round_trips(src, dst, entry, leave, payload, ttl):
    packet = ipv4.build_udp(src, dst, 1, 2, payload, ttl)
    for outer in (
        enc.encapsulate_ipip(entry, leave, packet, 7),
        enc.encapsulate_gre(entry, leave, packet, 7),
        enc.encapsulate_gre(entry, leave, packet, 7, True),
        enc.encapsulate_minimal(entry, leave, packet),
    ):
        ip = ipv4.parse_ipv4(outer)
        assert (ip.src, ip.dst, ip.total_length) == (entry, leave, len(outer))
        assert enc.decapsulate(outer + b"trailer") == packet


@pytest.mark.parametrize("encapsulate", ALL)
def test_options_and_octets_after_the_packet(encapsulate):
    """The header keeps its options; what follows Total Length is not part of the packet."""
    assert enc.decapsulate(encapsulate(WITH_OPTIONS)) == WITH_OPTIONS
    assert enc.decapsulate(encapsulate(WITH_OPTIONS + b"pad")) == WITH_OPTIONS


def test_outer_header_of_ip_in_ip():
    """RFC 2003 3.1: protocol 4, TOS copied, DF copied, a TTL of its own."""
    outer = enc.encapsulate_ipip(ENTRY, EXIT, INNER)
    ip = ipv4.parse_ipv4(outer)
    assert (ip.protocol, ip.tos, ip.ttl, ip.df) == (4, 0xB8, 64, False)
    assert outer[20:] == INNER and outer[4:8] == b"\0\0\0\0"
    fragment = enc.encapsulate_ipip(ENTRY, EXIT, changed(INNER, 6, b"\x3f\xff"))
    assert fragment[6:8] == b"\0\0", "the outer packet is no fragment"
    with_df = changed(INNER, 6, b"\x40\0")
    ip = ipv4.parse_ipv4(enc.encapsulate_ipip(ENTRY, EXIT, with_df, 9))
    assert (ip.ttl, ip.df) == (9, True)


def test_gre_header():
    """RFC 2784 2.1: 4 octets, or 8 with a checksum over header and payload."""
    outer = enc.encapsulate_gre(ENTRY, EXIT, INNER)
    ip = ipv4.parse_ipv4(outer)
    assert (ip.protocol, ip.tos, ip.ttl) == (47, 0xB8, 64)
    assert outer[20:] == b"\0\0\x08\0" + INNER
    outer = enc.encapsulate_gre(ENTRY, EXIT, INNER, 9, True)
    assert outer[8] == 9 and outer[20:24] == b"\x80\0\x08\0"
    assert outer[26:28] == b"\0\0" and outer[28:] == INNER
    assert ones_complement(outer[20:]) == 0


def test_minimal_header():
    """RFC 2004 3: the source only when it is another; TTL and TOS stay."""
    outer = enc.encapsulate_minimal(ENTRY, EXIT, INNER)
    ip = ipv4.parse_ipv4(outer)
    assert (ip.protocol, ip.tos, ip.ttl) == (55, 0xB8, 17)
    assert outer[20:22] == b"\x11\x80" and outer[24:32] == DST + SRC
    assert ones_complement(outer[20:32]) == 0 and outer[32:] == INNER[20:]
    outer = enc.encapsulate_minimal(SRC, EXIT, INNER)
    assert outer[20:22] == b"\x11\0" and outer[24:28] == DST
    assert ones_complement(outer[20:28]) == 0 and outer[28:] == INNER[20:]
    assert ipv4.parse_ipv4(outer).src == SRC


def test_reserved_bits_are_ignored():
    """RFC 2004 3 reserved; RFC 2784 bits 6 to 12 and Reserved1."""
    header = bytearray(b"\x11\xff\0\0" + DST + SRC)
    struct.pack_into(">H", header, 2, ones_complement(bytes(header)))
    outer = enc.encapsulate_minimal(ENTRY, EXIT, INNER)
    assert enc.decapsulate(outer[:20] + header + outer[32:]) == INNER
    outer = enc.encapsulate_gre(ENTRY, EXIT, INNER)
    assert enc.decapsulate(outer[:20] + b"\x03\xf8" + outer[22:]) == INNER
    body = bytearray(b"\x80\0\x08\0\0\0\xff\xff" + INNER)
    struct.pack_into(">H", body, 4, ones_complement(bytes(body)))
    outer = enc.encapsulate_gre(ENTRY, EXIT, INNER, 64, True)
    assert enc.decapsulate(outer[:20] + body) == INNER


@pytest.mark.parametrize("fragment", [b"\x20\0", b"\0\1"])
def test_fragments_are_refused(fragment):
    """RFC 2004 3 does not take them; no tunnel end takes fragments of the outer packet."""
    with pytest.raises(ValueError):
        enc.encapsulate_minimal(ENTRY, EXIT, changed(INNER, 6, fragment))
    for encapsulate in ALL:
        assert reason(changed(encapsulate(INNER), 6, fragment)) == "tunnel_fragment"


def test_too_long_is_an_error_of_the_caller():
    most = ipv4.build_udp(SRC, DST, 1, 2, bytes(65535 - 28))
    for encapsulate in ALL:
        with pytest.raises(ValueError):
            encapsulate(most)
    over = ipv4.build_udp(SRC, DST, 1, 2, bytes(65536 - 28 - 12))
    with pytest.raises(ValueError):
        enc.encapsulate_minimal(ENTRY, EXIT, over)
    fits = ipv4.build_udp(SRC, DST, 1, 2, bytes(65535 - 28 - 12))
    assert len(enc.encapsulate_minimal(ENTRY, EXIT, fits)) == 65535


def outer(protocol, body):
    buf = bytearray(20)
    ipv4.build_ipv4_into(buf, 0, protocol, ENTRY, EXIT, len(body))
    return bytes(buf) + body


@pytest.mark.parametrize(
    ("protocol", "body", "why"),
    [
        (17, INNER[20:], "not_encapsulated"),
        (4, INNER[:19], "ipv4_truncated"),
        (4, b"\x60" + INNER[1:], "ipv4_version"),
        (47, b"\0\0\x08", "gre_truncated"),
        (47, b"\0\0\x08\0" + INNER[:19], "ipv4_truncated"),
        (47, b"\0\0\x08\0", "ipv4_truncated"),
        (47, b"\x80\0\x08\0\x77\xff\0\0", "ipv4_truncated"),
        (47, b"\x80\0\x08\0\0\0\0", "gre_truncated"),
        (47, b"\x80\0\x08\0\0\0\0\0" + INNER, "gre_checksum"),
        (47, b"\0\0\x86\xdd" + INNER, "gre_protocol"),
        *[(47, struct.pack(">HH", bit, 0x800) + INNER, "gre_version") for bit in (1, 2, 4)],
        *[(47, struct.pack(">HH", 1 << n, 0x800) + INNER, "gre_version") for n in range(10, 15)],
        (55, b"\x11\0\0\0\1\2\3", "minimal_truncated"),
        (55, b"\x11\x80\0\0\1\2\3\4\5\6\7", "minimal_truncated"),
        (55, b"\x11", "minimal_truncated"),
        (55, b"\x11\x80\xee\x7f\0\0\0\0", "minimal_truncated"),
        (55, b"\x11\0\0\0\1\2\3\4", "minimal_checksum"),
    ],
)
def test_bad_packet_is_refused(protocol, body, why):
    assert reason(outer(protocol, body)) == why


@given(st.sampled_from([4, 47, 55]), st.binary(max_size=80))
def test_any_octets_raise_only_wire_error(protocol, body):
    try:
        enc.decapsulate(outer(protocol, body))
    except WireError as e:
        assert e.reason
