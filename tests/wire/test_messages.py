"""Messages and extensions: round trips, reserved fields, framing, malformed and oversized input."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from haaro.wire import auth, message, registration, revocation, udp_tunnel
from haaro.wire import extensions as ext
from haaro.wire import return_routability as rr
from haaro.wire.errors import WireError
from tests.wire.strategies import (
    KEY,
    mobile_correspondent,
    mobile_home,
    octets4,
    octets8,
    raw,
    reply,
    request,
    uint16,
    uint32,
)
from tests.wire.test_vectors import VECTORS

DATAGRAMS = [bytes.fromhex(v["hex"]) for v in VECTORS if v["kind"] == "datagram"]
code = st.integers(0, 255)


def parsed(*appended, of=reply):
    return message.parse(mobile_home(of(*appended)))


def only(*appended, of=reply):
    """Return the one extension of a message with `appended`."""
    m = parsed(*appended, of=of)
    assert m.bad == [] and m.ignored == []
    (extension,) = m.extensions
    return extension


def bad(*appended, of=reply):
    m = parsed(*appended, of=of)
    assert m.extensions == []
    (found,) = m.bad
    return found


def reason(data):
    with pytest.raises(WireError) as e:
        message.parse(data)
    return e.value.reason


def facts(m):
    """Return all that a message object says, extensions read."""
    said = {"type": m.type, **vars(m)}
    if isinstance(m, registration.ExtendedMessage):
        lists = m.extensions, m.ignored, m.bad, m.invalid_networks
        said["_read"] = [[getattr(e, "__dict__", e) for e in each] for each in lists]
        said["_framed"] = []
        said["authenticator"] = m.authenticator and vars(m.authenticator)
    return said


def test_a_message_object_read_anew_says_what_a_new_one_says():
    """Whatever it was before, and whatever of that had been read."""
    readable = []
    for data in DATAGRAMS:
        try:
            message.parse(data)
        except WireError:
            continue
        readable.append(data)
    reused = None
    same = 0
    for data in readable + readable[::-1]:
        before = reused
        reused = message.parse(data, before)
        assert facts(reused) == facts(message.parse(data))
        assert (reused is before) == (type(reused) is type(before))
        same += reused is before
    assert same > len(readable)


def test_builders_use_the_buffer_of_the_caller():
    """Nothing of what it held is left, however long that was."""
    addresses = bytes([192, 0, 2, 129]), bytes([192, 0, 2, 1])
    for held in (b"", b"\xff" * 300):
        buffer = bytearray(held)
        built = registration.build_request(
            0x22, 300, *addresses, bytes([198, 51, 100, 10]), bytes(8), buffer
        )
        assert built is buffer and len(buffer) == 24
        assert built == registration.build_request(
            0x22, 300, *addresses, bytes([198, 51, 100, 10]), bytes(8)
        )
        auth.append_mobile_home(buffer, 256, auth.HMAC_SHA256, KEY)
        assert auth.verify_mobile_home(message.parse(bytes(buffer)), auth.HMAC_SHA256, KEY)
        built = registration.build_reply(0, 300, *addresses, bytes(8), buffer)
        assert built is buffer
        assert built == registration.build_reply(0, 300, *addresses, bytes(8))


@given(st.integers(0, 255), uint16, octets4, octets4, octets4, octets8)
def test_request_round_trip(flags, lifetime, hoa, ha, coa, ident):
    """R3.3.3-i1: every field where RFC 5944 3.3 has it; r and x are ignored on reception [A11]."""
    data = bytes(registration.build_request(flags, lifetime, hoa, ha, coa, ident))
    assert data == bytes([1, flags]) + lifetime.to_bytes(2, "big") + hoa + ha + coa + ident
    m = message.parse(data)
    assert m.flags == flags & 0xFA and m.lifetime == lifetime
    assert (m.home_address, m.home_agent, m.care_of_address) == (hoa, ha, coa)
    assert m.identification == ident and m.raw == data


@given(code, uint16, octets4, octets4, octets8)
def test_reply_round_trip(code, lifetime, hoa, ha, ident):
    data = bytes(registration.build_reply(code, lifetime, hoa, ha, ident))
    assert data == bytes([3, code]) + lifetime.to_bytes(2, "big") + hoa + ha + ident
    m = message.parse(data)
    assert (m.code, m.lifetime, m.home_address) == (code, lifetime, hoa)
    assert (m.home_agent, m.identification) == (ha, ident)


@given(uint16, octets8, octets8, st.integers(0, 255))
def test_return_routability_round_trip_ignores_reserved(index, cookie, token, reserved):
    """R5.6-2, R5.7-2, R5.8-1, R5.9-1, R5.6-i1, R5.7-i1, R5.8-i1, R5.9-i1: types and layout."""
    for kind in (message.HOTI, message.COTI):
        data = rr.build_init(kind, cookie)
        assert data == bytes([kind, 0]) + cookie
        m = message.parse(bytes([kind, reserved]) + data[2:])
        assert (m.type, m.cookie, m.nonce_index, m.token) == (kind, cookie, None, None)
    for kind in (message.HOT, message.COT):
        data = rr.build_test(kind, index, cookie, token)
        assert data == bytes([kind, 0]) + index.to_bytes(2, "big") + cookie + token
        m = message.parse(bytes([kind, reserved]) + data[2:])
        assert (m.type, m.cookie, m.nonce_index, m.token) == (kind, cookie, index, token)


def test_message_and_extension_numbers():
    """R10-i2: as IANA assigned them."""
    assert (message.MIP_PORT, ext.MAX_EXTENSIONS) == (434, 128)
    assert (ext.MOBNET_INVALID_PREFIX_LEN, ext.MOBNET_UNAUTHORIZED) == (1, 2)
    assert [message.HOTI, message.COTI, message.HOT, message.COT] == [24, 25, 26, 27]
    assert registration.code_name(2) == "concurrent_registration"
    assert [registration.code_name(c) for c in (201, 202, 203)] == [
        "expired_home_nonce",
        "expired_care_of_nonce",
        "expired_nonces",
    ]
    assert registration.code_name(99) == "code_99"
    for kind, subtype in [(49, 0), (50, 0), (49, 4), (50, 2)]:
        assert reason(mobile_home(reply(raw(kind, b"\0" * 8, subtype)))) == "unknown_nonskippable"
    assert parsed(raw(153, b"\0", 0), of=request).ignored == [(153, 0)]


@given(octets4, st.integers(0, 32))
def test_mobile_network_request_round_trip(addr, plen):
    """R3.3.3-6: one extension a prefix (RFC 5177 4.1); host bits are masked [A49]."""
    e = only(lambda m: ext.append_mobile_network_request(m, addr, plen), of=request)
    assert (e.plen, e.prefix) == (plen, ext.mask(addr, plen))


@given(code, octets4, st.integers(0, 255), st.booleans())
def test_mobile_network_ack_round_trip(code, addr, plen, implicit):
    """R3.3.3-8, R3.3.3-14: the code, 2 is MOBNET_UNAUTHORIZED; over 32 only with a refusal."""
    append = lambda m: ext.append_mobile_network_ack(m, code, addr, plen, implicit)  # noqa: E731
    if plen > 32 and code == 0:
        assert bad(append) == (148, 2 if implicit else 1, "mobnet_plen")
        return
    e = only(append)
    assert (e.code, e.plen, e.implicit) == (code, plen, implicit)
    assert e.prefix == ext.mask(addr, min(plen, 32))
    assert ext.MOBNET_UNAUTHORIZED == 2


def test_a_host_route_may_be_requested():
    """RFC 5177 4.1: up to /32."""
    append = lambda m: ext.append_mobile_network_request(m, b"\x0a\1\2\3", 32)  # noqa: E731
    assert only(append, of=request).prefix == b"\x0a\1\2\3"


def test_network_acknowledged_with_an_impossible_length_is_bad():
    """RFC 5177 4.2: /32 can be granted, /33 only refused."""
    ack = lambda code, plen: raw(148, bytes([code, plen, 0, 10, 1, 2, 3]), 1)  # noqa: E731
    assert bad(ack(0, 33)) == (148, 1, "mobnet_plen")
    assert only(ack(0, 32)).prefix == b"\x0a\1\2\3"
    assert only(ack(1, 33)).plen == 33


@given(octets4, st.integers(33, 255))
def test_network_of_impossible_length_is_kept_to_be_refused_by_name(addr, plen):
    """RFC 5177 4.2: acknowledge with code 1; the registration itself is read."""
    m = parsed(lambda m: ext.append_mobile_network_request(m, addr, plen), of=request)
    assert m.extensions == [] and m.bad == [(148, 0, "mobnet_plen")]
    assert [(e.plen, e.prefix) for e in m.invalid_networks] == [(plen, addr)]


@given(st.booleans(), st.booleans(), st.integers(0, 255))
def test_udp_tunnel_request_round_trip(force, through_fa, encapsulation):
    """R3.3.3-9: UDP encapsulation is asked for with RFC 3519 3.1."""
    e = only(
        lambda m: ext.append_udp_tunnel_request(m, force, encapsulation, through_fa), of=request
    )
    assert (e.force, e.through_fa, e.encapsulation) == (force, through_fa, encapsulation)


def test_reserved_of_the_udp_tunnel_request():
    """RFC 3519 3.1.3: Reserved 1 and 2 are ignored; with 3 the extension is not understood."""
    e = only(raw(144, b"\xff\xbf\x04\0\0", 0), of=request)
    assert (e.force, e.through_fa, e.encapsulation) == (True, False, 4)
    e = only(raw(144, b"\xff\x7f\x04\0\0", 0), of=request)
    assert (e.force, e.through_fa, e.encapsulation) == (False, True, 4)
    for reserved in (b"\0\1", b"\1\0"):
        assert parsed(raw(144, b"\0\x80\x04" + reserved, 0), of=request).ignored == [(144, 0)]


@given(code, st.booleans(), uint16)
def test_udp_tunnel_reply_round_trip(code, forced, keepalive):
    """RFC 3519 3.2: 0..63 is assent."""
    e = only(lambda m: ext.append_udp_tunnel_reply(m, code, forced, keepalive))
    assert (e.code, e.forced, e.keepalive, e.will_tunnel) == (code, forced, keepalive, code < 64)


def test_reserved_of_the_replies():
    """R5.1-2, R5.2-i1: also RFC 3519 3.2, RFC 5177 4.2; sent as zero, ignored on reception."""
    e = only(raw(44, b"\x40\x7f\xff\x01\x02", 0))
    assert (e.code, e.forced, e.keepalive, e.will_tunnel) == (64, False, 258, False)
    e = only(raw(148, b"\0\x10\xff\x0a\1\0\0", 1))
    assert (e.code, e.plen, e.prefix) == (0, 16, b"\x0a\1\0\0")
    built = [
        (lambda m: ext.append_udp_tunnel_request(m, True), "9006 0000 8004 0000"),
        (lambda m: ext.append_udp_tunnel_request(m, False, 47, True), "9006 0000 402f 0000"),
        (lambda m: ext.append_udp_tunnel_reply(m, 64, False, 1), "2c06 0040 0000 0001"),
        (lambda m: ext.append_route_optimization_reply(m, True, False, False), "3102 0180"),
        (lambda m: ext.append_udp_tunnel_reply(m, 1, True, 258), "2c06 0001 8000 0102"),
        (
            lambda m: ext.append_mobile_network_request(m, b"\x0a\1\0\0", 16),
            "9406 0010 0a010000",
        ),
        (
            lambda m: ext.append_mobile_network_ack(m, 2, b"\x0a\1\0\0", 16),
            "9408 0102 1000 0a010000",
        ),
        (lambda m: ext.append_care_of_addresses(m, [b"\1\2\3\4"]), "3106 0300 01020304"),
        (lambda m: ext.append_revocation_support(m, False, 258), "8906 0000 00000102"),
        (lambda m: ext.append_revocation_support(m, True, 258), "8906 8000 00000102"),
        (lambda m: ext.append_nai(m, b"a@b"), "8303 614062"),
        (lambda m: ext.append_route_optimization_capability(m, True, False), "9902 0180"),
        (lambda m: ext.append_route_optimization_capability(m, False, True), "9902 0140"),
        (lambda m: ext.append_route_optimization_capability(m, False, False, True), "9902 0110"),
        (
            lambda m: ext.append_route_optimization_capability(m, False, False, False, b"\1\2\3\4"),
            "9906 0120 01020304",
        ),
        (lambda m: ext.append_route_optimization_reply(m, False, False, False, 16), "3102 0110"),
    ]
    for append, octets in built:
        out = bytearray()
        append(out)
        assert out == bytes.fromhex(octets)


@given(st.booleans(), st.booleans(), octets4, octets4, octets4, uint32, st.integers(0, 255))
def test_revocation_round_trip(a, i, hoa, home, foreign, ident, reserved):
    """RFC 3543 3.3, 3.4: A, I and the identifier; Reserved is ignored."""
    data = bytes(revocation.build_revocation(a, i, hoa, home, foreign, ident))
    assert data[:4] == bytes([7, 0, (0x80 if a else 0) | (0x40 if i else 0), 0])
    m = message.parse(bytes([7, reserved, data[2] | reserved & 0x3F, reserved]) + data[4:])
    assert (m.type, m.a, m.i, m.identifier) == (7, a, i, ident)
    assert (m.home_address, m.home_domain, m.foreign_domain) == (hoa, home, foreign)
    data = bytes(revocation.build_revocation_ack(i, hoa, ident))
    assert data[:4] == bytes([15, 0, 0x80 if i else 0, 0])
    m = message.parse(bytes([15, reserved, data[2] | reserved & 0x7F, reserved]) + data[4:])
    assert (m.type, m.i, m.home_address, m.identifier) == (15, i, hoa, ident)


@pytest.mark.parametrize(
    ("kind", "fixed"),
    [(1, 24), (3, 20), (4, 4), (7, 20), (15, 12), (24, 10), (25, 10), (26, 20), (27, 20)],
)
def test_fixed_part_is_needed_whole(kind, fixed):
    """R5.6-i1, R5.7-i1, R5.8-i1, R5.9-i1: one octet less is truncated; other types are unknown."""
    assert message.parse(bytes([kind]) + bytes(fixed - 1)).type == kind
    assert reason(bytes([kind]) + bytes(fixed - 2)) == "message_truncated"


def test_request_flags():
    """R3.3.3-i1: the bits of RFC 5944 3.3 and T; D and T are what a mobile router sets."""
    names = "SDMGrTx"
    values = [getattr(registration, "FLAG_" + name) for name in names]
    assert values == [0x80, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01]


def test_other_message_types_are_unknown():
    known = (1, 3, 4, 7, 15, 24, 25, 26, 27)
    for kind in range(256):
        if kind not in known:
            assert reason(bytes([kind]) + bytes(40)) == "unknown_type"


def test_reply_codes():
    """R10-i1: the numbers of RFC 5944 3.4, RFC 3519 3.5, RFC 5177 9 and RFC 6521 10."""
    assert {
        n: code
        for code, n in ((c, registration.code_name(c)) for c in range(256))
        if "code" not in n
    } == {
        "accepted": 0,
        "accepted_no_simultaneous": 1,
        "concurrent_registration": 2,
        "reason_unspecified": 128,
        "administratively_prohibited": 129,
        "insufficient_resources": 130,
        "failed_authentication": 131,
        "identification_mismatch": 133,
        "poorly_formed": 134,
        "too_many_bindings": 135,
        "unknown_home_agent": 136,
        "encapsulation_unavailable": 139,
        "udp_encapsulation_unavailable": 142,
        "mobnet_error": 147,
        "mobnet_disallowed": 148,
        "expired_home_nonce": 201,
        "expired_care_of_nonce": 202,
        "expired_nonces": 203,
    }


@given(st.booleans(), st.booleans(), st.booleans(), st.none() | octets4)
def test_capability_round_trip(advertise, wanted, outbound_only, hoa):
    """R5.1-i2, R5.1-1: A, R, S, O; S exactly when a home address is there [A09]."""
    append = lambda m: ext.append_route_optimization_capability(  # noqa: E731
        m, advertise, wanted, outbound_only, hoa
    )
    e = only(append, of=request)
    assert (e.advertise, e.request, e.outbound_only) == (advertise, wanted, outbound_only)
    assert (e.solicit, e.home_address) == (hoa is not None, hoa)


def test_capability_reserved_and_length():
    """R5.1-2, R5.1-i2: Reserved is ignored; S without an address and the reverse are bad [A09]."""
    e = only(raw(153, b"\xcf", 1), of=request)
    assert (e.advertise, e.request, e.solicit, e.outbound_only) == (True, True, False, False)
    e = only(raw(153, b"\x0f", 1), of=request)
    assert (e.advertise, e.request, e.solicit, e.outbound_only) == (False,) * 4
    for body in (b"", b"\x20", b"\x00\x0a\0\0\1", b"\x20\x0a\0\0", b"\x20\x0a\0\0\1\0"):
        assert bad(raw(153, body, 1), of=request) == (153, 1, "ro_cap_hoa_iff_s")


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 31))
def test_route_optimization_reply_round_trip(outbound_only, nat, solicited, code):
    """R5.2-i1, R5.2-i2: O, N, S and the code in 5 bits, 0..15 assent [A08]."""
    append = lambda m: ext.append_route_optimization_reply(  # noqa: E731
        m, outbound_only, nat, solicited, code
    )
    e = only(append)
    assert (e.outbound_only, e.nat, e.solicited, e.code) == (outbound_only, nat, solicited, code)
    assert e.accepted == (code <= 15)


@pytest.mark.parametrize(("code", "accepted"), [(0, True), (15, True), (16, False), (31, False)])
def test_code_of_the_route_optimization_reply(code, accepted):
    """R5.2-i2"""
    append = lambda m: ext.append_route_optimization_reply(m, False, False, False, code)  # noqa: E731
    assert only(append).accepted is accepted


@given(st.lists(octets4, min_size=1, max_size=63), st.integers(0, 255))
def test_care_of_addresses_round_trip(addresses, reserved):
    """R5.4-1, R5.4-i1: in order of priority, to the end that Length gives."""
    assert only(lambda m: ext.append_care_of_addresses(m, addresses)).addresses == addresses
    assert only(raw(49, bytes([reserved]) + b"".join(addresses), 3)).addresses == addresses


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\0\0\0", b"\0\1\2\3\4\5"])
def test_care_of_addresses_of_no_whole_address_are_bad(body):
    """R5.4-i1"""
    assert bad(raw(49, body, 3)) == (49, 3, "coa_ext_length")


@pytest.mark.parametrize("count", [0, 64])
def test_care_of_addresses_that_do_not_fit_are_an_error_of_the_caller(count):
    with pytest.raises(ValueError, match="1 to 63"):
        ext.append_care_of_addresses(bytearray(), [b"\1\2\3\4"] * count)


def test_63_care_of_addresses_fit():
    """R5.4-i1"""
    addresses = [bytes([10, 0, 0, i]) for i in range(63)]
    assert only(lambda m: ext.append_care_of_addresses(m, addresses)).addresses == addresses


@pytest.mark.parametrize("rest", [b"\x32", b"\x32\1", b"\x32\1\0", b"\x31", b"\x31\2\1"])
def test_extension_header_that_is_cut_discards(rest):
    """RFC 5944 1.8 to 1.11: short and long format."""
    assert reason(bytes(reply()) + rest) == "ext_overrun"


@given(st.booleans(), uint32, st.binary(max_size=9))
def test_revocation_support_round_trip(i, timestamp, more):
    """RFC 3543 3.2: a longer one is understood too."""
    e = only(lambda m: ext.append_revocation_support(m, i, timestamp), of=request)
    assert (e.i, e.timestamp) == (i, timestamp)
    body = bytes([0x80 if i else 0x7F, 0xFF]) + timestamp.to_bytes(4, "big") + more
    e = only(raw(137, body), of=request)
    assert (e.i, e.timestamp) == (i, timestamp)


@given(st.binary(min_size=1, max_size=255))
def test_nai_round_trip(value):
    assert only(lambda m: ext.append_nai(m, value), of=request).value == value


@pytest.mark.parametrize(
    ("kind", "subtype", "body", "why"),
    [
        (148, 0, b"\x10\x0a\1\0", "mobnet_length"),
        (148, 0, b"\x10\x0a\1\0\0\0", "mobnet_length"),
        (148, 1, b"\0\x10\0\x0a\1\0", "mobnet_length"),
        (144, 0, b"\0\0\4\0", "udp_tunnel_length"),
        (44, 0, b"\0\0\0\0", "udp_tunnel_length"),
        (49, 1, b"", "ro_reply_length"),
        (49, 1, b"\0\0", "ro_reply_length"),
        (137, None, b"\0\0\0\0\0", "revocation_length"),
        (131, None, b"", "nai_length"),
    ],
)
def test_extension_of_a_wrong_length_is_bad(kind, subtype, body, why):
    """R5.2-i1: known, malformed: it is named and not used; the message is."""
    assert bad(raw(kind, body, subtype)) == (kind, subtype, why)


@pytest.mark.parametrize(
    "append",
    [
        lambda m: ext.append_udp_tunnel_reply(m, 0, True, 30),
        lambda m: ext.append_route_optimization_reply(m, False, True, False),
        lambda m: ext.append_care_of_addresses(m, [b"\1\2\3\4"]),
        lambda m: ext.append_route_optimization_capability(m, True, True),
        lambda m: ext.append_udp_tunnel_request(m, True),
    ],
)
def test_second_extension_of_a_kind_is_bad(append):
    """Two would contradict each other (threat R11): the first counts."""
    m = parsed(append, append)
    assert len(m.extensions) == 1
    assert [why for _, _, why in m.bad] == ["duplicate_extension"]


def test_unknown_extensions():
    """R5.1-i1: an HA that does not know type 153 skips it, as all of 128..255; below, discard."""
    for kind in (128, 200, 255):
        m = parsed(raw(kind, b"xyz"), raw(kind, b""), of=request)
        assert m.ignored == [(kind, None)] * 2 and m.extensions == []
    for kind in (1, 16, 33, 34, 127):
        assert reason(mobile_home(request(raw(kind, b"xyz")))) == "unknown_nonskippable"
    assert parsed(raw(148, b"\0", 9), raw(148, b""), of=request).ignored == [(148, 9), (148, None)]
    assert reason(mobile_home(reply(raw(44, b"\0" * 5, 1)))) == "unknown_nonskippable"


def test_extensions_after_a_return_routability_message():
    """R5.6-i1, R5.8-i1: walked, without effect; an unknown non-skippable discards [A34]."""
    hoti = rr.build_init(message.HOTI, b"12345678")
    assert message.parse(hoti + b"\0\0\xc8\x01x").cookie == b"12345678"
    hot = rr.build_test(message.HOT, 1, b"12345678", b"abcdefgh")
    assert message.parse(hot + b"\xc8\x01x").token == b"abcdefgh"
    assert reason(hoti + b"\x64\x01x") == "unknown_nonskippable"
    assert reason(hoti + b"\xc8\x05x") == "ext_overrun"


def test_tunnel_data_header():
    """RFC 3519 3.3: Reserved is ignored."""
    assert udp_tunnel.parse_tunnel(udp_tunnel.TUNNEL_HEADER) == 4
    assert message.parse(b"\x04\x2f\xff\xff" + b"gre").next_header == 47
    assert reason(b"\x04\x04\x00") == "message_truncated"
    assert udp_tunnel.TUNNEL_HEADER == b"\4\4\0\0"
    with pytest.raises(WireError) as e:
        udp_tunnel.parse_tunnel(b"\x01\x04\x00\x00")
    assert e.value.reason == "not_tunnel_data"


@pytest.mark.parametrize("data", DATAGRAMS, ids=lambda d: d[:4].hex())
def test_every_prefix_of_a_datagram_is_parsed_or_refused(data):
    """Truncation raises WireError and nothing else."""
    for n in range(len(data)):
        try:
            message.parse(data[:n])
        except WireError as e:
            assert e.reason


@given(
    st.one_of(
        st.binary(max_size=300),
        st.tuples(st.sampled_from(DATAGRAMS), st.binary(max_size=60)).map(b"".join),
        st.tuples(
            st.sampled_from([bytes(request()), bytes(reply())]),
            st.sampled_from([32, 44, 49, 50, 131, 137, 144, 148, 153, 0, 200]),
            st.binary(max_size=60),
        ).map(lambda t: t[0] + bytes([t[1]]) + t[2] + b"\x20\x14" + bytes(20)),
    )
)
@example(b"")
def test_malformed_input_raises_only_wire_error(data):
    """Whatever it is, a datagram is an object or a WireError with a reason."""
    try:
        m = message.parse(data)
    except WireError as e:
        assert e.reason and e.reason == str(e)
        return
    for extension in getattr(m, "extensions", []):
        if isinstance(extension, ext.PrefixAdvertisement):
            list(extension.routers())


@given(st.sampled_from(DATAGRAMS[1:]), st.data())
def test_damaged_datagrams_raise_only_wire_error(data, draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        if damaged:
            damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    try:
        message.parse(bytes(damaged))
    except WireError as e:
        assert e.reason


HOA = b"\x40\x0a\x63\x00\x03"
SIGN = b"\x20\x14" + bytes(20)


def long_advertisement(unit):
    body = HOA + unit * ((65000 - len(HOA)) // len(unit))
    return bytes(reply()) + b"\x32\x01" + len(body).to_bytes(2, "big") + body + SIGN


@pytest.mark.parametrize(
    "data",
    [
        bytes(request()) + bytes(65000),
        bytes(request()) + b"\xc8\x00" * 32000,
        bytes(request()) + b"\x94\x06\x00\x10\x0a\x01\x00\x00" * 8000 + SIGN,
        bytes(request()) + SIGN * 2900,
        long_advertisement(HOA),
        long_advertisement(b"\x00\x00"),
        long_advertisement(b"\x00" + b"\x01a" * 127 + b"\x00"),
        long_advertisement(b"\x00\x7f" + b"a" * 127 + b"\x7d" + b"b" * 125 + b"\x00"),
        long_advertisement(b"\x08\x0a" + b"\x01a\x01b\x00"),
        b"\x18\x00" + bytes(8) + b"\xc8\x00" * 30000,
        b"\xff" * 65000,
    ],
    ids=range(11),
)
def test_work_for_64_kilobytes_is_bounded(data):
    """No input of one datagram costs more than a walk over its octets."""
    start = time.process_time()
    try:
        m = message.parse(data)
        assert len(getattr(m, "extensions", [])) <= ext.MAX_EXTENSIONS
    except WireError:
        pass
    assert time.process_time() - start < 0.5


def test_long_padding_is_passed_in_long_steps():
    """64 KB of it cost a thousand looks, not 65000."""

    class Counted(bytes):
        looks = 0

        def __getitem__(self, index):
            Counted.looks += 1
            return bytes.__getitem__(self, index)

    message.parse(Counted(bytes(request()) + bytes(64000)))
    assert Counted.looks < 2200


def test_a_list_is_decoded_only_when_it_is_asked_for(monkeypatch):
    """A forged Reply of 64 KB costs its framing and one hash, never the work on its prefixes."""
    decoded = []
    real = ext.check_advertisement
    monkeypatch.setattr(
        ext, "check_advertisement", lambda *span: decoded.append(span) or real(*span)
    )
    m = message.parse(long_advertisement(HOA))
    assert not auth.verify_mobile_home(m, auth.HMAC_MD5, KEY)
    assert m.unauthenticated == [] and decoded == []
    assert m.find(ext.PrefixAdvertisement) and m.bad == []
    assert m.find(ext.PrefixAdvertisement) is m.extensions[0]
    assert len(decoded) == 1


def test_extensions_of_one_message_are_limited():
    """MAX_EXTENSIONS are taken, one more discards: bounded before anything is authentic."""
    append = lambda m: ext.append_mobile_network_request(m, b"\x0a\1\0\0", 16)  # noqa: E731
    most = ext.MAX_EXTENSIONS
    m = message.parse(mobile_home(request(*[append] * (most - 1))))
    assert len(m.all(ext.MobileNetworkRequest)) == most - 1
    assert reason(mobile_home(request(*[append] * most))) == "too_many_extensions"


def test_mobile_correspondent_message_carries_networks():
    """R3.3.3-4, R3.3.3-5: the Request to a CR."""
    append = lambda m: ext.append_mobile_network_request(m, b"\x0a\1\0\0", 16)  # noqa: E731
    m = message.parse(mobile_correspondent(request(append)))
    assert isinstance(m.authenticator, registration.MobileCorrespondentAuthentication)
    assert [(e.prefix, e.plen) for e in m.extensions] == [(b"\x0a\1\0\0", 16)]
