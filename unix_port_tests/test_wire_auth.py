"""Authenticators inside MicroPython: known answers, and every bit that is covered."""

from haaro.wire import auth, message, registration
from haaro.wire import return_routability as rr
from haaro.wire.errors import WireError

KEY = bytes(range(16))
KRM = bytes(range(20))


def test_hmac_gives_the_published_answers():
    """R5.3-i3: RFC 2202 and RFC 4231, cases 1, 2 and the key that is longer than a block."""
    hi, what = b"Hi There", b"what do ya want for nothing?"
    long_text = b"Test Using Larger Than Block-Size Key - Hash Key First"
    cases = (
        ("hmac-md5", b"\x0b" * 16, hi, "9294727a3638bb1c13f48ef8158bfc9d"),
        ("hmac-md5", b"Jefe", what, "750c783e6ab0b503eaa86e310a5db738"),
        ("hmac-md5", b"\xaa" * 80, long_text, "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd"),
        ("hmac-sha1", b"\x0b" * 20, hi, "b617318655057264e28bc0b6fb378c8ef146be00"),
        ("hmac-sha1", b"Jefe", what, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        ("hmac-sha1", b"\xaa" * 80, long_text, "aa4ae5e15272d00e95705637ce8a3b55ed402112"),
        (
            "hmac-sha256",
            b"\x0b" * 20,
            hi,
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            "hmac-sha256",
            b"\xaa" * 131,
            long_text,
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    )
    for algorithm, key, text, digest in cases:
        assert auth.hmac(algorithm, key, text).hex() == digest, algorithm
        view = memoryview(text)
        assert auth.hmac(algorithm, key, view[:3], b"", view[3:]).hex() == digest, algorithm


def signed(kind):
    m = registration.build_reply(
        0, 300, b"\x0a\x63\0\1", b"\xc0\0\2\1", b"\xe8\xd4\xa5\x10\0\0\0\1"
    )
    if kind == "correspondent":
        auth.append_mobile_correspondent(m, KRM, 3, 4)
    else:
        auth.append_mobile_home(m, 256, kind, KEY)
    return bytes(m)


def accepted(data, kind):
    try:
        m = message.parse(data)
    except WireError:
        return False
    if kind == "correspondent":
        return auth.verify_mobile_correspondent(m, KRM)
    return auth.verify_mobile_home(m, kind, KEY)


def test_every_covered_bit_counts():
    """R5.3-1, R5.3-i3: of a Reply, for each algorithm; only Reserved of 49/2 may differ."""
    for kind in auth.ALGORITHMS + ("correspondent",):
        data = signed(kind)
        assert accepted(data, kind), kind
        for i in range(len(data) * 8):
            changed = bytearray(data)
            changed[i >> 3] ^= 1 << (i & 7)
            expected = kind == "correspondent" and i >> 3 == 23
            assert accepted(bytes(changed), kind) == expected, (kind, i)


def test_token_and_key_are_repeatable():
    """R3.2-i4, R3.2-i5, R3.2-i7: two calls agree although a hash gives its digest only once."""
    token = rr.home_keygen_token(KEY, b"\x0a\x63\0\1", b"12345678")
    assert token == rr.home_keygen_token(KEY, b"\x0a\x63\0\1", b"12345678")
    assert token != rr.care_of_keygen_token(KEY, b"\x0a\x63\0\1", b"12345678")
    assert len(token) == 8
    assert len(rr.krm(token, token)) == 20
