"""IPv4, UDP and ICMP packets of the control plane, and the text of addresses and prefixes."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire import ipv4
from haaro.wire.errors import WireError
from tests.wire.strategies import octets4, uint16

SRC, DST = b"\x0a\x63\0\1", b"\x0a\x63\0\3"
small = st.binary(max_size=80)


def ones_complement(octets):
    """RFC 1071 in the plainest way."""
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def reason(function, *arguments):
    with pytest.raises(WireError) as e:
        function(*arguments)
    return e.value.reason


@given(st.binary(max_size=200), st.integers(0, 5), st.integers(0, 0xFFFFF))
def test_checksum(octets, off, start):
    expected = ones_complement(
        octets + b"\0" * (len(octets) % 2) + struct.pack(">HH", start >> 16, start & 0xFFFF)
    )
    assert ipv4.checksum(b"\xff" * off + octets + b"\xff", off, len(octets), start) == expected


@given(octets4, octets4, uint16, uint16, small, st.integers(1, 255), st.integers(0, 255))
def test_udp_round_trip(src, dst, sport, dport, payload, ttl, tos):
    packet = ipv4.build_udp(src, dst, sport, dport, payload, ttl, tos)
    ip = ipv4.parse_ipv4(packet)
    assert (ip.src, ip.dst, ip.protocol, ip.ttl, ip.tos) == (src, dst, 17, ttl, tos)
    assert (ip.total_length, ip.header_length) == (28 + len(payload), 20)
    assert not ip.df and not ip.more_fragments and ip.fragment_offset == 0
    assert ones_complement(packet[:20]) == 0
    length = struct.pack(">H", 8 + len(payload))
    assert ones_complement(src + dst + b"\0\x11" + length + packet[20:]) == 0
    assert packet[26:28] != b"\0\0", "zero would mean that there is no checksum"
    assert ipv4.parse_udp(packet + b"trailer", ip) == (sport, dport, payload)


def test_udp_checksum_of_zero_is_sent_as_ones():
    """RFC 768"""
    packet = ipv4.build_udp(SRC, DST, 434, 434, b"")
    complement = struct.unpack(">H", packet[26:28])[0]
    packet = ipv4.build_udp(SRC, DST, 434, 434, struct.pack(">H", complement - 4))
    assert packet[26:28] == b"\xff\xff"
    assert ipv4.parse_udp(packet, ipv4.parse_ipv4(packet))[0] == 434


def test_udp_without_checksum_is_taken():
    packet = bytearray(ipv4.build_udp(SRC, DST, 1, 2, b"abc"))
    packet[26:28] = b"\0\0"
    assert ipv4.parse_udp(packet, ipv4.parse_ipv4(packet)) == (1, 2, b"abc")


@given(octets4, octets4, st.booleans(), uint16, uint16, small)
def test_icmp_echo_round_trip(src, dst, is_reply, ident, seq, payload):
    """R6.1-i1: a keepalive is an ICMP echo."""
    packet = ipv4.build_icmp_echo(src, dst, is_reply, ident, seq, payload)
    ip = ipv4.parse_ipv4(packet)
    assert (ip.src, ip.dst, ip.protocol) == (src, dst, 1)
    assert packet[20] == (0 if is_reply else 8) and ones_complement(packet[20:]) == 0
    assert ipv4.parse_icmp_echo(packet, ip) == (is_reply, ident, seq, payload)


@given(octets4, small)
def test_icmp_error_quotes_header_and_eight_octets(router, payload):
    """RFC 792; RFC 1191 4 for the MTU of the next hop."""
    offending = ipv4.build_udp(SRC, DST, 1, 2, payload)
    packet = ipv4.build_icmp_error(router, 3, 4, 1400, memoryview(offending))
    ip = ipv4.parse_ipv4(packet)
    assert (ip.src, ip.dst, ip.protocol) == (router, SRC, 1)
    assert packet[20:22] == b"\3\4" and packet[24:28] == struct.pack(">HH", 0, 1400)
    assert packet[28:] == offending[:28] and ones_complement(packet[20:]) == 0
    assert ipv4.parse_icmp_echo(packet, ip) is None
    exceeded = ipv4.build_icmp_error(router, 11, 0, b"\0\0\0\0", offending)
    assert exceeded[20:22] == b"\x0b\0"


def test_header_fields():
    buf = bytearray(b"\xff" * 24)
    assert ipv4.build_ipv4_into(buf, 2, 4, SRC, DST, 0, 7, 0xB8, 0x1234, True) == 22
    assert buf[:2] == buf[22:] == b"\xff\xff" and buf[8:10] == b"\x40\0"
    ip = ipv4.parse_ipv4(bytes(buf[2:22]))
    assert (ip.ttl, ip.tos, ip.df, ip.total_length, buf[6:8]) == (7, 0xB8, True, 20, b"\x12\x34")
    assert ip.ident == 0x1234
    with pytest.raises(ValueError):
        ipv4.build_ipv4_into(buf, 0, 4, SRC, DST, 65516)


def test_protocol_and_icmp_numbers():
    """RFC 790, RFC 792"""
    assert (ipv4.PROTOCOL_ICMP, ipv4.PROTOCOL_IPIP, ipv4.PROTOCOL_UDP) == (1, 4, 17)
    assert (ipv4.ECHO_REPLY, ipv4.UNREACHABLE, ipv4.FRAGMENTATION_NEEDED) == (0, 3, 4)
    assert (ipv4.ECHO_REQUEST, ipv4.TIME_EXCEEDED) == (8, 11)


@pytest.mark.parametrize(("kind", "code"), [(8, 1), (0, 1), (3, 0), (11, 0)])
def test_other_icmp_messages_are_no_echo(kind, code):
    """RFC 792: an echo has code 0."""
    packet = bytearray(ipv4.build_icmp_echo(SRC, DST, False, 1, 2, b"abc"))
    packet[20:24] = bytes([kind, code, 0, 0])
    packet[22:24] = struct.pack(">H", ones_complement(bytes(packet[20:])))
    assert ipv4.parse_icmp_echo(bytes(packet), ipv4.parse_ipv4(packet)) is None


def test_packet_that_ends_within_the_udp_header():
    short = changed(ipv4.build_udp(SRC, DST, 1, 2, b"")[:24], 2, b"\0\x18")
    assert reason(ipv4.parse_udp, short, ipv4.parse_ipv4(short)) == "udp_length"


def test_fragment_fields():
    packet = changed(ipv4.build_udp(SRC, DST, 1, 2, b"abc"), 6, b"\x3f\xfe")
    ip = ipv4.parse_ipv4(packet)
    assert (ip.more_fragments, ip.df, ip.fragment_offset) == (True, False, 0x1FFE * 8)
    ip = ipv4.parse_ipv4(changed(packet, 6, b"\x41\x00"))
    assert (ip.more_fragments, ip.df, ip.fragment_offset) == (False, True, 2048)


def test_defaults_of_a_packet():
    """TTL 64 (RFC 1700), no TOS; an ICMP error is network control (RFC 1812 4.3.2.5)."""
    echo = ipv4.build_icmp_echo(SRC, DST, True, 1, 2)
    for packet in (ipv4.build_udp(SRC, DST, 1, 2, b""), echo):
        assert (packet[1], packet[8], len(packet)) == (0, 64, 28)
    buf = bytearray(20)
    ipv4.build_ipv4_into(buf, 0, 17, SRC, DST, 0)
    assert (buf[1], bytes(buf[4:9])) == (0, b"\0\0\0\0\x40")
    assert ipv4.build_icmp_error(SRC, 3, 4, 576, echo)[1] == 0xC0
    assert ipv4.build_icmp_echo(SRC, DST, True, 1, 2, b"", 0xB8)[1] == 0xB8


def changed(packet, at, octets, fix=True):
    packet = bytearray(packet)
    packet[at : at + len(octets)] = octets
    if fix:
        packet[10:12] = b"\0\0"
        header = (packet[0] & 15) * 4
        packet[10:12] = struct.pack(">H", ones_complement(bytes(packet[:header])))
    return bytes(packet)


def test_bad_header_is_refused():
    good = ipv4.build_udp(SRC, DST, 1, 2, b"abc")
    assert reason(ipv4.parse_ipv4, good[:19]) == "ipv4_truncated"
    assert reason(ipv4.parse_ipv4, changed(good, 0, b"\x65")) == "ipv4_version"
    assert reason(ipv4.parse_ipv4, changed(good, 0, b"\x44")) == "ipv4_header_length"
    assert reason(ipv4.parse_ipv4, changed(good, 0, b"\x4f")) == "ipv4_header_length"
    assert reason(ipv4.parse_ipv4, changed(good, 2, b"\0\x13")) == "ipv4_total_length"
    assert reason(ipv4.parse_ipv4, good[:-1]) == "ipv4_total_length"
    assert reason(ipv4.parse_ipv4, changed(good, 8, b"\x01", fix=False)) == "ipv4_checksum"


@pytest.mark.parametrize(
    ("build", "parse", "name"),
    [
        (lambda: ipv4.build_udp(SRC, DST, 1, 2, b"abcd"), ipv4.parse_udp, "udp"),
        (lambda: ipv4.build_icmp_echo(SRC, DST, True, 1, 2), ipv4.parse_icmp_echo, "icmp"),
    ],
)
def test_bad_payload_is_refused(build, parse, name):
    good = build()
    for fragment in (b"\x20\x00", b"\x00\x01"):
        packet = changed(good, 6, fragment)
        assert reason(parse, packet, ipv4.parse_ipv4(packet)) == name + "_fragment"
    packet = changed(good, 2, b"\0\x1b")
    assert reason(parse, packet, ipv4.parse_ipv4(packet)) == name + "_length"
    packet = changed(good, 20, b"\x11")
    assert reason(parse, packet, ipv4.parse_ipv4(packet)) == name + "_checksum"


@pytest.mark.parametrize("length", [7, 13])
def test_udp_length_is_checked(length):
    packet = changed(ipv4.build_udp(SRC, DST, 1, 2, b"abcd"), 24, struct.pack(">H", length))
    assert reason(ipv4.parse_udp, packet, ipv4.parse_ipv4(packet)) == "udp_length"


def test_udp_after_ip_options():
    packet = ipv4.build_udp(SRC, DST, 1, 2, b"abc")
    packet = changed(b"\x46" + packet[1:20] + b"\1\1\1\0" + packet[20:], 2, b"\0\x23")
    ip = ipv4.parse_ipv4(packet)
    assert ip.header_length == 24
    assert ipv4.parse_udp(packet, ip) == (1, 2, b"abc")


@given(st.binary(max_size=100))
def test_any_octets_raise_only_wire_error(octets):
    try:
        ip = ipv4.parse_ipv4(changed(octets, 0, b"\x45") if len(octets) >= 20 else octets)
        ipv4.parse_icmp_echo(octets, ip)
        ipv4.parse_udp(octets, ip)
    except WireError as e:
        assert e.reason


@given(octets4)
def test_address_text_round_trip(addr):
    text = ipv4.text(addr)
    assert text == socket.inet_ntoa(addr)
    assert ipv4.address(text) == addr


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.256",
        "01.2.3.4",
        "1.2.3.-4",
        "1.2.3.4 ",
        "a.b.c.d",
        "1..2.3",
        "1.2.3.0x1",
        "1.2.3.²",
    ],
)
def test_bad_address_is_refused(text):
    with pytest.raises(ValueError):
        ipv4.address(text)


@given(octets4, octets4, st.integers(0, 32))
def test_prefix_mask_and_contains(net, addr, plen):
    network = ipaddress.ip_network((net, plen), strict=False)
    assert ipv4.mask(net, plen) == network.network_address.packed
    assert ipv4.prefix(str(network)) == (network.network_address.packed, plen)
    assert ipv4.contains(net, plen, addr) == (ipaddress.ip_address(addr) in network)
    assert ipv4.contains(net, plen, net)


@pytest.mark.parametrize(
    "text", ["10.0.0.0", "10.0.0.0/33", "10.0.0.1/24", "10.0.0.0/", "10.0.0.0/8/8", "10.0.0.0/08"]
)
def test_bad_prefix_is_refused(text):
    with pytest.raises(ValueError):
        ipv4.prefix(text)
