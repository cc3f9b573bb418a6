"""The Prefix Advertisement Extension, RFC 6521 5.5: round trips, model, cut, all or nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire import message
from haaro.wire.errors import WireError
from haaro.wire.extensions import PrefixAdvertisement, RouteOptimizationReply
from haaro.wire.prefixes import build_advertisement, check_advertisement
from tests.wire import model
from tests.wire.strategies import advertisement, mobile_home, raw, reply, request, routers

HOA = b"\x40\x0a\x63\x00\x03"  # M = 1, no information
OUTBOUND = b"\x41\x0a\x63\x00\x03"
ONE = [(b"\x0a\x63\0\3", False, [(b"\x0a\x01\0\0", 16, "a.example")])]


def parse_data(data):
    return message.parse(mobile_home(reply(advertisement(data))))


def reason(data):
    parsed = parse_data(data)
    assert parsed.find(PrefixAdvertisement) is None
    ((kind, subtype, why),) = parsed.bad
    assert (kind, subtype) == (50, 1)
    return why


@given(routers)
def test_round_trip(wanted):
    """R5.5-i2, R5.5-i3, R5.5-4: order, owner, prefixes and realms come back as sent."""
    data, complete = build_advertisement(wanted)
    assert complete == len(wanted)
    extension = parse_data(data).find(PrefixAdvertisement)
    assert list(extension.routers()) == wanted
    assert extension.data == data and list(extension) == wanted
    assert list(extension.routers()) == wanted, "a second pass gives the same"


@given(routers)
def test_first_structures_are_as_the_rfc_wants(wanted):
    """R5.5-2, R5.5-3, R5.5-5: HoA first with M = 1; D = 0 on the first structure with a prefix."""
    data, _ = build_advertisement(wanted)
    assert data[:1] in (b"\x40", b"\x41")
    off = 0
    while off < len(data) and data[off] & 0x40:
        off += 5
    assert off == len(data) or data[off] & 0x80 == 0


@given(routers, st.integers(0, 300))
def test_cut_keeps_the_order_and_the_limit(wanted, limit):
    """R5.5-i1, R3.1.1-3: what is over the limit is cut from the end [A53]."""
    data, complete = build_advertisement(wanted, limit)
    whole, _ = build_advertisement(wanted)
    assert len(data) <= limit and whole.startswith(data)
    got = model.decode_advertisement(data) or []
    for i in range(complete):
        assert got[i][:2] == wanted[i][:2] and len(got[i][2]) == len(wanted[i][2])
    assert len(got) - complete in (0, 1)
    assert (complete == len(wanted)) == (data == whole)


def test_cut_is_exact():
    """R5.5-i1: what ends at the limit is in, and what ends one octet later is not [A53]."""
    hoa = (b"\x0a\x63\0\3", False, [])
    assert [build_advertisement([hoa], limit) for limit in (4, 5)] == [(b"", 0), (HOA, 1)]
    data, _ = build_advertisement(ONE)
    assert build_advertisement(ONE, len(data)) == (data, 1)
    assert build_advertisement(ONE, len(data) - 1) == (HOA, 0)


def test_without_a_limit_the_extension_may_be_as_long_as_its_length_field_says():
    """R5.5-1: 65535 octets."""
    hoa = (b"\x0a\x63\0\3", False, [])
    last = (b"\x0a\x63\0\3", False, [(bytes(4), 0, "")] * 3)
    data, complete = build_advertisement([hoa] * 13105 + [last])
    assert (len(data), complete) == (65534, 13105)
    data, complete = build_advertisement([hoa] * 13108)
    assert (len(data), complete) == (65535, 13107)


@given(st.one_of(st.binary(max_size=120), st.binary(max_size=120).map(lambda b: HOA + b)))
def test_any_octets_are_taken_or_refused_as_the_model_says(data):
    """R5.5-i2, R4.2.1-3: also that checking and decoding are one and the same rule."""
    expected = model.decode_advertisement(data)
    if expected is None:
        with pytest.raises(WireError):
            check_advertisement(data, 0, len(data))
        return
    got = list(PrefixAdvertisement(data, 0, len(data)).routers())
    assert [
        (hoa, outbound, [(p, n, r.encode("latin-1")) for p, n, r in networks])
        for hoa, outbound, networks in got
    ] == expected


@given(routers, st.data())
def test_a_damaged_list_is_used_whole_or_not_at_all(wanted, data):
    """All or nothing [A52]: the registration stands and no part of a bad extension is seen."""
    octets = bytearray(build_advertisement(wanted)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    octets = bytes(octets[: data.draw(st.integers(0, len(octets)))])
    parsed = parse_data(octets)
    assert parsed.code == 0
    expected = model.decode_advertisement(octets)
    extension = parsed.find(PrefixAdvertisement)
    assert (extension is None) == (expected is None) == bool(parsed.bad)
    if expected is not None:
        assert len(list(extension.routers())) == len(expected)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "advertisement_empty"),
        (b"\x18\x0a\x01\x02\0", "first_not_hoa"),
        (b"\x00\0", "first_not_hoa"),
        (HOA[:4], "advertisement_truncated"),
        (HOA + b"\x98\x05\0", "delta_without_master"),
        (HOA + b"\x18\x0a\x01\x02\0" + b"\x87\x05\0", "delta_plen_below_8"),
        (HOA + b"\x21\x0a\0\0\0\0\0", "plen_33_63"),
        (HOA + b"\x18\x0a\x01", "advertisement_truncated"),
        (HOA + b"\x18\x0a\x01\x02", "realm_truncated"),
        (b"\x42\x0a\x63\0\3", "info_2_63"),
        (b"\x7f\x0a\x63\0\3", "info_2_63"),
        (HOA + b"\x18\x0a\x01\x02\xff\0", "realm_index_unset"),
    ],
)
def test_bad_advertisement_is_refused_by_name(data, why):
    """R5.5-2, R5.5-3, R5.5-5, R5.5-i2: illegal PLen, Info, order and lengths."""
    assert reason(data) == why


def test_info_and_d_of_a_home_address():
    """R5.5-i2, R5.5-i3: 1 says outbound connections only; D is ignored when M = 1."""
    assert list(parse_data(OUTBOUND).find(PrefixAdvertisement).routers()) == [
        (b"\x0a\x63\0\3", True, [])
    ]
    d_set = b"\xc0" + HOA[1:]
    assert list(parse_data(d_set).find(PrefixAdvertisement).routers()) == [
        (b"\x0a\x63\0\3", False, [])
    ]


def test_empty_realm_is_one_zero_octet():
    """R5.5-6"""
    data, _ = build_advertisement([(b"\x0a\x63\0\3", False, [(b"\x0a\0\0\0", 8, "")])])
    assert data == HOA + b"\x08\x0a\0"


def test_master_prefix_survives_the_next_home_address():
    """R5.5-i2: the delta is from the last prefix with D = 0, whoever owns it [A16]."""
    wanted = [
        (b"\x0a\x63\0\3", False, [(b"\x0a\1\2\0", 24, "")]),
        (b"\x0a\x63\0\4", False, [(b"\x0a\1\3\0", 24, "")]),
    ]
    data, _ = build_advertisement(wanted)
    assert data.endswith(b"\x40\x0a\x63\0\4\x98\x03\0")
    assert list(parse_data(data).find(PrefixAdvertisement).routers()) == wanted


def test_each_extension_starts_with_an_empty_dictionary():
    """R4.2.1-i1: dictionary and master prefix belong to one extension [A18]."""
    data, _ = build_advertisement(ONE)
    assert build_advertisement(ONE)[0] == data
    assert reason(HOA + b"\x18\x0a\x01\x02\x80\0") == "realm_index_unset"


def test_second_advertisement_is_refused_and_the_first_kept():
    """R3.1.1-2: one per Reply [A17]."""
    data, _ = build_advertisement(ONE)
    parsed = message.parse(mobile_home(reply(advertisement(data), advertisement(HOA))))
    assert [list(e.routers()) for e in parsed.all(PrefixAdvertisement)] == [ONE]
    assert parsed.bad == [(50, 1, "duplicate_extension")]


def test_length_counts_only_the_data():
    """R5.5-1: as RFC 5944 1.10 has it; a Length of 4 more overruns or eats the next [A01]."""
    data, _ = build_advertisement(ONE)
    built = bytes(reply(advertisement(data)))[20:]
    assert built[:4] == b"\x32\x01" + len(data).to_bytes(2, "big")
    longer = reply(lambda m: m.extend(b"\x32\x01" + (len(data) + 4).to_bytes(2, "big") + data))
    with pytest.raises(WireError) as e:
        message.parse(bytes(longer))
    assert e.value.reason == "ext_overrun"


def test_advertisement_does_not_belong_in_a_request():
    """R5.5-1: an HA sends it in the Reply; a Request cannot make anyone decode 64 KB."""
    data, _ = build_advertisement(ONE)
    parsed = message.parse(mobile_home(request(advertisement(data))))
    assert parsed.extensions == []
    assert parsed.bad == [(50, 1, "advertisement_not_in_reply")]


def test_a_bad_advertisement_leaves_the_other_extensions():
    """The registration and what else the Reply says stand [A52]."""
    parsed = message.parse(
        mobile_home(reply(raw(49, b"\x40", 1), advertisement(b"\x18\x0a\x01\x02\0")))
    )
    assert parsed.find(RouteOptimizationReply).nat
    assert parsed.bad == [(50, 1, "first_not_hoa")]


def test_119_routers_with_a_shared_realm_fit_1100_octets():
    """R3.1.1-i6: what both compressions together are good for."""
    wanted = [
        (bytes([10, 99, 0, i]), False, [(bytes([10, 1, i, 0]), 24, "branch.example.com")])
        for i in range(1, 120)
    ]
    data, complete = build_advertisement(wanted, 1100)
    assert complete == 119
    assert list(parse_data(data).find(PrefixAdvertisement).routers()) == wanted
