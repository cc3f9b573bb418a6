"""Authenticators: HMAC against the standard library, coverage bit by bit, who is authentic."""

import hashlib
import hmac as stdlib_hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire import auth, message
from haaro.wire import return_routability as rr
from haaro.wire.errors import WireError
from haaro.wire.extensions import append_mobile_network_request
from haaro.wire.registration import MobileCorrespondentAuthentication, MobileHomeAuthentication
from tests.wire.strategies import (
    KEY,
    KRM,
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


def network(m):
    append_mobile_network_request(m, b"\x0a\x01\0\0", 16)


def verdict(data, verify):
    """Return True, False, or the reason of a WireError."""
    try:
        return verify(message.parse(data))
    except WireError as e:
        return e.reason


def home(parsed, algorithm=auth.HMAC_MD5, key=KEY):
    return auth.verify_mobile_home(parsed, algorithm, key)


def correspondent(parsed, krm=KRM):
    return auth.verify_mobile_correspondent(parsed, krm)


def flips(data):
    for i in range(len(data) * 8):
        changed = bytearray(data)
        changed[i // 8] ^= 1 << i % 8
        yield i // 8, bytes(changed)


@given(st.sampled_from(auth.ALGORITHMS), st.binary(max_size=150), st.lists(st.binary(max_size=90)))
def test_hmac_is_that_of_the_standard_library(algorithm, key, parts):
    """RFC 2104, keys longer than a block included."""
    expected = stdlib_hmac.new(key, b"".join(parts), algorithm[5:]).digest()
    assert auth.hmac(algorithm, key, *parts) == expected


@pytest.mark.parametrize("algorithm", auth.ALGORITHMS)
@pytest.mark.parametrize("octets", [0, 63, 64, 65])
def test_key_is_hashed_only_when_it_is_longer_than_a_block(algorithm, octets):
    """RFC 2104 2"""
    key = b"k" * octets
    assert auth.hmac(algorithm, key, b"x") == stdlib_hmac.digest(key, b"x", algorithm[5:])


def test_unknown_algorithm_is_an_error_of_the_caller():
    with pytest.raises(ValueError):
        auth.hmac("hmac-sha512", KEY, b"")


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_equal_is_equality(a, b):
    assert auth.equal(a, b) == (a == b)
    assert auth.equal(a, bytes(a))


@pytest.mark.parametrize("algorithm", auth.ALGORITHMS)
def test_every_bit_of_a_mobile_home_message_is_covered(algorithm):
    """RFC 5944 3.5.1: fixed part, prior extensions, Type, Length, SPI, and the authenticator."""
    data = mobile_home(request(network), algorithm)
    assert home(message.parse(data), algorithm)
    for octet, changed in flips(data):
        assert verdict(changed, lambda m: home(m, algorithm)) is not True, octet


def test_every_bit_of_a_mobile_correspondent_message_is_covered_but_reserved():
    """R5.3-1, R5.3-i3: Reserved is not covered and ignored, and nothing else is [A03]."""
    fixed = reply(network)
    data = mobile_correspondent(fixed)
    reserved = len(reply(network)) + 3
    original = message.parse(data)
    assert correspondent(original)
    for octet, changed in flips(data):
        result = verdict(changed, correspondent)
        if octet != reserved:
            assert result is not True, octet
            continue
        assert result is True
        parsed = message.parse(changed)
        assert parsed.authenticator.home_nonce_index == original.authenticator.home_nonce_index
        assert parsed.authenticator.value == original.authenticator.value


def test_protected_data_of_the_correspondent_authenticator():
    """R5.3-i1, R5.3-i3: Type, Length, indexes instead of an SPI; 16 octets of HMAC-SHA1."""
    data = mobile_correspondent(request(network))
    parsed = message.parse(data)
    found = parsed.authenticator
    assert isinstance(found, MobileCorrespondentAuthentication)
    assert (found.home_nonce_index, found.care_of_nonce_index) == (3, 4)
    covered = bytes(request(network)) + b"\x31\x16" + b"\x00\x03\x00\x04"
    assert found.value == stdlib_hmac.new(KRM, covered, "sha1").digest()[:16]
    assert data[found.offset :] == b"\x31\x16\x02\x00\x00\x03\x00\x04" + found.value


@given(uint16, uint16, uint32)
def test_indexes_and_spi_round_trip(home_index, care_of_index, spi):
    """R5.3-i1: 16 bits each; an SPI has 32."""
    m = request(network)
    auth.append_mobile_correspondent(m, KRM, home_index, care_of_index)
    found = message.parse(bytes(m)).authenticator
    assert (found.home_nonce_index, found.care_of_nonce_index) == (home_index, care_of_index)
    m = request(network)
    auth.append_mobile_home(m, spi, auth.HMAC_SHA1, KEY)
    assert message.parse(bytes(m)).authenticator.spi == spi


@pytest.mark.parametrize(
    ("algorithm", "octets"), [(auth.HMAC_MD5, 16), (auth.HMAC_SHA1, 20), (auth.HMAC_SHA256, 32)]
)
def test_mobile_home_authenticator_is_the_full_digest(algorithm, octets):
    data = mobile_home(request(), algorithm)
    found = message.parse(data).authenticator
    assert isinstance(found, MobileHomeAuthentication)
    assert (found.spi, found.offset, len(found.value)) == (256, 24, octets)
    covered = bytes(request()) + bytes([32, 4 + octets]) + b"\0\0\1\0"
    assert found.value == stdlib_hmac.new(KEY, covered, algorithm[5:]).digest()


@pytest.mark.parametrize("octets", range(16))
def test_truncated_authenticator_is_refused(octets):
    """Even when it begins as the right one would (threat R14)."""
    body = bytes(request()) + bytes([32, 4 + octets]) + b"\0\0\1\0"
    short = body + auth.hmac(auth.HMAC_MD5, KEY, body)[:octets]
    assert not home(message.parse(short))
    body = bytes(request()) + bytes([49, 6 + octets])
    digest = auth.hmac(auth.HMAC_SHA1, KRM, body, b"\0\3\0\4")[:octets]
    assert not correspondent(message.parse(body + b"\2\0\0\3\0\4" + digest))


@pytest.mark.parametrize(
    "extension",
    [b"\x20\x00", b"\x20\x03\0\0\1", b"\x31\x01\x02", b"\x31\x05\x02\x00\x00\x03\x00"],
)
def test_authenticator_without_room_for_its_fields_discards_the_message(extension):
    with pytest.raises(WireError) as e:
        message.parse(bytes(request()) + extension)
    assert e.value.reason == "auth_ext_length"


def test_wrong_key_algorithm_or_kind_is_refused():
    """R5.3-i1: an HA does not take a message meant for a router, nor the reverse."""
    data = mobile_home(request())
    assert not home(message.parse(data), auth.HMAC_SHA1)
    assert not home(message.parse(data), key=KEY[:-1] + b"\0")
    assert not correspondent(message.parse(data), KEY)
    data = mobile_correspondent(request())
    assert not correspondent(message.parse(data), KRM[:-1])
    assert not home(message.parse(data), auth.HMAC_SHA1, KRM)


@pytest.mark.parametrize("second", [mobile_home, mobile_correspondent])
@pytest.mark.parametrize("first", [mobile_home, mobile_correspondent])
def test_two_authenticators_are_refused(first, second):
    """Exactly one, of one kind, in both directions [A07, A42]."""
    parsed = message.parse(second(bytearray(first(request()))))
    assert parsed.authenticators == 2
    assert home(parsed) is False and correspondent(parsed) is False


@pytest.mark.parametrize("sign", [mobile_home, mobile_correspondent])
def test_what_follows_the_authenticator_is_never_acted_upon(sign):
    """RFC 5944 3.5.2 [A06]: walked for framing, listed, and otherwise nothing changes."""
    signed = sign(request(network))
    parsed = message.parse(signed + bytes(request(network, raw(200, b"x")))[24:] + b"\0\0")
    verify = home if sign is mobile_home else correspondent
    assert verify(parsed)
    assert len(parsed.extensions) == 1
    assert parsed.unauthenticated == [(148, 0), (200, None)]
    assert parsed.ignored == [] and parsed.bad == []


def test_without_an_authenticator_no_extension_is_protected():
    """A reply with code 201 to 203 comes without a key [A31]: only its fixed part may be a hint."""
    parsed = message.parse(bytes(reply(network, raw(148, b"\xff", 0), code=203)))
    assert parsed.authenticator is None and parsed.authenticators == 0
    assert parsed.extensions == [] and parsed.bad == []
    assert parsed.unauthenticated == [(148, 0), (148, 0)]
    assert not home(parsed) and not correspondent(parsed)


def test_padding_is_covered_as_sent():
    """RFC 5944 1.8: type 0 may stand anywhere, any number of times [A48]."""
    pad = lambda m: m.extend(b"\0\0\0")  # noqa: E731
    data = mobile_home(request(pad, network, pad))
    parsed = message.parse(data)
    assert home(parsed) and len(parsed.extensions) == 1
    assert not home(message.parse(data.replace(b"\0\0\0\x94", b"\0\0\x94")))
    assert message.parse(bytes(request()) + bytes(5000)).unauthenticated == []


@pytest.mark.parametrize("octets", [1, 62, 63, 64, 65, 126, 127, 128, 129])
def test_padding_of_any_length_ends_where_it_ends(octets):
    """RFC 5944 1.8 [A48]: also in long runs, before an extension and at the end."""
    pad = lambda m: m.extend(bytes(octets))  # noqa: E731
    parsed = message.parse(mobile_home(request(pad, network)) + bytes(octets))
    assert home(parsed) and len(parsed.extensions) == 1 and parsed.unauthenticated == []


@given(octets8, octets4, octets8)
def test_keygen_tokens_and_krm_are_the_formulas(nonce, addr, other):
    """R3.2-i4, R3.2-i5, R3.2-i7, R3.2-i8: one octet 0 or 1 ends what is hashed [A04]."""
    sha1 = lambda octets: stdlib_hmac.new(KEY, octets, "sha1").digest()[:8]  # noqa: E731
    assert rr.home_keygen_token(KEY, addr, nonce) == sha1(addr + nonce + b"\0")
    assert rr.care_of_keygen_token(KEY, addr, nonce) == sha1(addr + nonce + b"\1")
    assert rr.krm(nonce, other) == hashlib.sha1(nonce + other).digest()
    assert rr.krm_deregistration(nonce) == hashlib.sha1(nonce).digest()
