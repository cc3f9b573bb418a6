"""The wire layer inside a heap of 64 KB beyond its imports: what it takes and keeps.

# heapsize: 128k
"""

import gc

from haaro.wire import auth, extensions, message, registration
from haaro.wire.prefixes import build_advertisement

KEY = bytes(range(16))
HOA = b"\x0a\x63\0\1"


def reply(data):
    m = registration.build_reply(0, 300, HOA, b"\xc0\0\2\1", b"\xe8\xd4\xa5\x10\0\0\0\1")
    extensions.append_prefix_advertisement(m, data)
    auth.append_mobile_home(m, 256, auth.HMAC_SHA256, KEY)
    return bytes(m)


def in_use():
    gc.collect()
    gc.collect()
    return gc.mem_alloc()


def wanted(n):
    for i in range(1, n + 1):
        networks = [
            (bytes([10, 1, i, 0]), 24, "office-%d.example.com" % (i % 5)),
            (bytes(4), 0, ""),
        ]
        yield bytes([10, 99, 0, i]), i % 3 == 0, networks


def test_full_advertisement_is_read_in_a_small_heap():
    """R3.1.1-5, R4.2.1-3: 119 routers, and reading again and again keeps nothing."""
    data, complete = build_advertisement(wanted(119))
    assert complete == 119
    datagram = reply(data)
    before = in_use()
    for _ in range(20):
        m = message.parse(datagram)
        assert auth.verify_mobile_home(m, auth.HMAC_SHA256, KEY)
        expected = wanted(119)
        count = 0
        for router in m.find(extensions.PrefixAdvertisement).routers():
            assert router == next(expected)
            count += 1
        assert count == 119
    m = router = expected = None
    assert in_use() - before < 1024


def test_realm_with_octets_above_ascii_is_one_character_an_octet():
    """R4.2.1-i2: the same text as on CPython, though MicroPython reads UTF-8 only."""
    routers = [(HOA, False, [(bytes(4), 0, "b\xfcro.example"), (bytes(4), 0, "b\xfcro.example")])]
    data, _ = build_advertisement(routers)
    assert data[6:11] == b"\x04b\xfcro"
    m = message.parse(reply(data))
    assert list(m.find(extensions.PrefixAdvertisement).routers()) == routers
