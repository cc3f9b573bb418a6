"""Prefix compression, RFC 6521 4.1, against the plain model and at its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire.errors import WireError
from haaro.wire.ipv4 import address as a4
from haaro.wire.prefixes import PrefixDecoder, PrefixEncoder
from tests.wire import model
from tests.wire.strategies import octets4, prefix


def encode_all(*prefixes):
    encoder = PrefixEncoder()
    return [encoder.encode(a4(text), plen) for text, plen in prefixes]


def decode_all(*fields):
    decoder = PrefixDecoder()
    return [decoder.decode(d, plen, octets, 0, len(octets))[0] for d, plen, octets in fields]


@given(st.lists(prefix(), max_size=30))
def test_round_trip(prefixes):
    """R4.1-1, R4.1-i1, R4.1-i2: a delta is one octet, a master ceil(PLen / 8), and all decode."""
    encoder, decoder = PrefixEncoder(), PrefixDecoder()
    master = None
    for addr, plen in prefixes:
        delta, octets = encoder.encode(addr, plen)
        assert len(octets) == (1 if delta else -(-plen // 8))
        assert decoder.decode(delta, plen, octets, 0, len(octets)) == (addr, len(octets))
        # Not longer than need be: a master is declared only where a delta cannot say it.
        if not delta and master is not None and plen > 8:
            assert plen > master[1] + 8 or master[0][: plen - 8] != bits(addr)[: plen - 8]
        if not delta:
            master = bits(addr), plen


def bits(addr):
    return format(int.from_bytes(addr, "big"), "032b")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 63), st.binary(max_size=4)), max_size=20))
def test_any_field_decodes_as_the_model_says(fields):
    """R4.1-i2: the lean decoder refuses and returns exactly what the plain one does."""
    decoder = PrefixDecoder()
    master = None
    for delta, plen, octets in fields:
        expected = model.decode_prefix(master, delta, plen, octets)
        if expected is None:
            with pytest.raises(WireError):
                decoder.decode(delta, plen, octets, 0, len(octets))
            continue
        got, off = decoder.decode(delta, plen, octets, 0, len(octets))
        assert (bits(got), off) == (expected[0], len(octets) - len(expected[1]))
        if not delta:
            master = expected[0]


def test_equal_prefix_is_one_octet_of_padding():
    """R4.1-i3: the same prefix in another realm."""
    assert encode_all(("192.0.2.0", 28), ("192.0.2.0", 28)) == [(0, a4("192.0.2.0")), (1, b"\x20")]


def test_bit_above_the_octet_changed_makes_a_new_master():
    """R4.1-1, R4.1-i1: PLen - m is at most 7 [A19], so the octet is bits PLen-7..PLen."""
    assert encode_all(("10.0.0.0", 24), ("10.0.255.0", 24))[1] == (1, b"\xff")
    assert encode_all(("10.0.0.0", 24), ("10.1.0.0", 24))[1] == (0, b"\x0a\x01\x00")
    assert encode_all(("10.0.0.0", 24), ("10.1.0.0", 24), ("10.1.7.0", 24))[2] == (1, b"\x07")


def test_short_prefix_is_never_a_delta():
    """R4.1-i2: below /8 the octet would begin before bit 1 [A13]; /0 has no octets [A12]."""
    assert encode_all(("10.0.0.0", 24), ("11.0.0.0", 8))[1] == (1, b"\x0b")
    assert encode_all(("10.0.0.0", 8), ("8.0.0.0", 7), ("0.0.0.0", 0))[1:] == [
        (0, b"\x08"),
        (0, b""),
    ]
    for plen in range(8):
        with pytest.raises(WireError) as e:
            decode_all((0, 24, b"\x0a\x00\x00"), (1, plen, b"\x00"))
        assert e.value.reason == "delta_plen_below_8"


def test_master_is_extended_with_zeros():
    """R4.1-i2: read bits beyond the master's own length as 0, but do not send that [A50]."""
    assert decode_all((0, 8, b"\x0a"), (1, 24, b"\x07"))[1] == a4("10.0.7.0")
    assert encode_all(("10.0.0.0", 8), ("10.0.7.0", 24))[1] == (0, b"\x0a\x00\x07")
    assert encode_all(("10.0.0.0", 8), ("10.7.0.0", 16))[1] == (1, b"\x07")


def test_bits_past_the_length_are_masked():
    """R4.1-i2: they are zero when sent, and cleared when received [A14], in the master too."""
    assert decode_all((0, 12, b"\x0a\xff"), (1, 20, b"\x01")) == [
        a4("10.240.0.0"),
        a4("10.240.16.0"),
    ]
    assert PrefixEncoder().encode(a4("10.255.255.255"), 12) == (0, b"\x0a\xf0")


@given(octets4, octets4, st.integers(8, 32))
def test_a_delta_does_not_become_the_master(first, second, plen):
    """R5.5-i2: deltas are from the last prefix with D = 0."""
    decoder = PrefixDecoder()
    master, _ = decoder.decode(0, 32, first, 0, 4)
    decoder.decode(1, plen, second, 0, 4)
    assert decoder.decode(1, 32, first[3:], 0, 1)[0] == master


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(1, 24, b"\x01")], "delta_without_master"),
        ([(0, 33, b"\x0a\0\0\0\0")], "plen_33_63"),
        ([(0, 63, b"\x0a\0\0\0\0\0\0\0")], "plen_33_63"),
        ([(0, 24, b"\x0a\0")], "advertisement_truncated"),
        ([(0, 24, b"\x0a\0\0"), (1, 24, b"")], "advertisement_truncated"),
    ],
)
def test_bad_prefix_is_refused(fields, reason):
    """R5.5-i2, R5.5-3"""
    with pytest.raises(WireError) as e:
        decode_all(*fields)
    assert e.value.reason == reason
