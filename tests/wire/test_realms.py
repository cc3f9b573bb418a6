"""Realm compression, RFC 6521 4.2, against the plain model and at its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire.errors import WireError
from haaro.wire.realms import RealmDecoder, RealmEncoder
from tests.wire import model
from tests.wire.strategies import realm

RFC_REALMS = [
    "foo.example.com",
    "bar.foo.example.com",
    "buz.foo.example.org",
    "example.com",
    "bar.example.com.org",
]


def encode_all(realms):
    encoder = RealmEncoder()
    return [encoder.encode(r) for r in realms]


def decode_all(data):
    decoder = RealmDecoder()
    out, off = [], 0
    while off < len(data):
        text, off = decoder.decode(data, off)
        out.append(text)
    return out


def refused(data):
    with pytest.raises(WireError) as e:
        decode_all(data)
    return e.value.reason


@given(st.lists(realm, max_size=40))
def test_round_trip_and_the_encoder_is_the_model(realms):
    """R4.2.1-i2, R4.2.2-i1, R4.2.2-i2: the literal search gives the same octets."""
    encoded = encode_all(realms)
    dictionary = model.Dictionary()
    assert encoded == [model.encode_realm(dictionary, r.encode("latin-1")) for r in realms]
    assert decode_all(b"".join(encoded)) == realms


@given(st.lists(st.integers(0, 140), max_size=300))
def test_rollover_round_trip(numbers):
    """R4.2.1-1, R4.2.1-2: more strings than the dictionary holds, in any order."""
    realms = [f"l{n}.site{n % 7}" for n in numbers]
    encoded = encode_all(realms)
    dictionary = model.Dictionary()
    assert encoded == [model.encode_realm(dictionary, r.encode()) for r in realms]
    assert decode_all(b"".join(encoded)) == realms


def test_129th_string_takes_index_0():
    """R4.2.1-1, R4.2.1-2: 128 strings keep their index; the next overwrites entry 0."""
    names = [f"n{i}" for i in range(128)]
    encoder = RealmEncoder()
    for name in names:
        encoder.encode(name)
    assert [encoder.encode(name) for name in names] == [bytes([0x80 | i, 0]) for i in range(128)]
    assert encoder.encode("new") == b"\x03new\0"
    assert encoder.encode("new") == b"\x80\0"
    assert encoder.encode("n0") == b"\x02n0\0"
    assert encoder.encode("n0") == b"\x81\0"
    assert encoder.encode("n1") == b"\x02n1\0"
    literal = b"".join(bytes([len(n)]) + n.encode() + b"\0" for n in names)
    assert decode_all(literal + b"\xff\0\x03new\0\x80\0\x81\0")[-4:] == ["n127", "new", "new", "n1"]


def test_string_of_two_labels_in_entry_0_is_found():
    """R4.2.1-2, R4.2.2-i1: after a rollover the longest match may have index 0."""
    encoder = RealmEncoder()
    for n in range(126):
        encoder.encode(f"n{n}")
    assert encoder.encode("a.b") == b"\x01a\x01b\0"
    assert encoder.encode("a.b") == b"\x80\0"


def test_the_dictionary_starts_empty_for_each_message():
    """R4.2.1-i1: both ends begin without a string."""
    assert encode_all(["example"]) == encode_all(["example"]) == [b"\x07example\0"]
    assert refused(b"\x80\0") == "realm_index_unset"


def test_receiver_takes_what_was_not_compressed():
    """R4.2.1-3, R4.2.1-i3: a sender may use length tags only, for all or for some realms."""
    data = b"".join(
        b"".join(bytes([len(x)]) + x.encode() for x in r.split(".")) + b"\0" for r in RFC_REALMS
    )
    assert decode_all(data) == RFC_REALMS
    # A literal label goes in again although it is there [A20]: the third string is entry 2.
    assert decode_all(b"\x01a\0\x01a\0\x01b\0\x82\0\x81\0") == ["a", "a", "b", "b", "a"]


def test_literal_label_may_be_used_within_its_own_realm():
    """R4.2.2-i1: it is in the dictionary at once."""
    assert encode_all(["foo.foo"]) == [b"\x03foo\x80\0"]
    assert decode_all(b"\x03foo\x80\0") == ["foo.foo"]


def test_a_match_empties_the_run():
    """R4.2.2-i2: labels before a match do not become part of a suffix, those after it do."""
    data = b"\x01a\0" + b"\x01b\x80\x01c\x01d\0"
    assert encode_all(["a", "b.a.c.d"]) == [b"\x01a\0", b"\x01b\x80\x01c\x01d\0"]
    # a 0, b 1, c 2, d 3, c.d 4 and nothing more
    assert decode_all(data + b"\x84\0")[-1] == "c.d"
    assert refused(data + b"\x85\0") == "realm_index_unset"


def test_suffixes_go_in_longest_first_and_only_those_of_two_labels():
    """R4.2.2-i2"""
    data = b"\x01a\x01b\x01c\x01d\0"
    assert [decode_all(data + bytes([0x80 | i, 0]))[-1] for i in range(7)] == [
        "a",
        "b",
        "c",
        "d",
        "a.b.c.d",
        "b.c.d",
        "c.d",
    ]
    assert refused(data + b"\x87\0") == "realm_index_unset"


def test_empty_realm_leaves_the_dictionary_alone():
    """R4.2.1-i2: one 0 octet [A28]."""
    assert encode_all(["", "a", "", "a"]) == [b"\0", b"\x01a\0", b"\0", b"\x80\0"]
    assert decode_all(b"\0\x01a\0\0\x80\0") == ["", "a", "", "a"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x01a", "realm_truncated"),
        (b"\x05ab\0", "realm_truncated"),
        (b"\x7f", "realm_truncated"),
        (b"\x80\0", "realm_index_unset"),
        (b"\x03a.b\0", "realm_label"),
        (b"\x03a\0b\0", "realm_label"),
        (b"\x01.\0", "realm_label"),
        (b"\x02\0a\0", "realm_label"),
        (b"\x02a.\0", "realm_label"),
    ],
)
def test_bad_realm_is_refused(data, reason):
    """R4.2.1-i2: truncated, an index never written [A21], a label that would alias others [A23]."""
    assert refused(data) == reason


def test_longest_realm_is_253_octets():
    """Longer is refused by both ends [A22]; reached by literals or by indexes."""
    exact = "a" * 126 + "." + "b" * 126
    (octets,) = encode_all([exact])
    assert decode_all(octets) == [exact]
    assert decode_all(octets + b"\x82\0") == [exact, exact]
    assert refused(b"\x7e" + b"a" * 126 + b"\x7f" + b"b" * 127 + b"\0") == "realm_too_long"
    assert refused(octets + b"\x82\x80\0") == "realm_too_long"
    assert refused(b"\x01a" * 128 + b"\0") == "realm_too_long"
    with pytest.raises(ValueError):
        RealmEncoder().encode("a" * 127 + "." + "b" * 126)


@pytest.mark.parametrize("text", ["a..b", ".", "a.", ".a", "x" * 128, "a\0b", "\u0100"])
def test_encoder_refuses_what_is_no_realm(text):
    """R4.2.1-i2: a label has 1..127 octets."""
    with pytest.raises(ValueError):
        RealmEncoder().encode(text)


@given(st.binary(max_size=200))
def test_any_octets_decode_as_the_model_says(data):
    """R4.2.1-i2: the lean decoder refuses and returns exactly what the plain one does."""
    dictionary = model.Dictionary()
    decoder = RealmDecoder()
    rest, off = data, 0
    while rest:
        expected = model.decode_realm(dictionary, rest)
        if expected is None:
            with pytest.raises(WireError):
                decoder.decode(data, off)
            return
        text, off = decoder.decode(data, off)
        rest = expected[1]
        assert (text.encode("latin-1"), off) == (expected[0], len(data) - len(rest))


@pytest.mark.parametrize("text", ["\x7f", "\x80", "a\xff.b", "x" * 127])
def test_a_character_is_an_octet(text):
    """R4.2.1-i2: any but 0 and the dot."""
    (octets,) = encode_all([text])
    assert text.encode("latin-1")[:2] in octets
    assert decode_all(octets) == [text]


def test_equal_neighbours_share_one_string():
    """A list of prefixes under one realm costs the router one string."""
    first, second = decode_all(b"\x01a\x01b\0\x82\0")
    assert first is second
