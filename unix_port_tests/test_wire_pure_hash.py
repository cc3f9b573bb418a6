"""The twins of MD5 and SHA-1 inside MicroPython, against its built-in ones."""

import hashlib

from haaro.wire import encapsulation, ipv4, pure_hash


def test_twins_give_what_the_built_in_hashes_give():
    for size in list(range(0, 130, 3)) + [55, 56, 63, 64, 119, 120]:
        data = bytes([i * 7 & 0xFF for i in range(size)])
        for name in ("md5", "sha1"):
            twin = getattr(pure_hash, name)(data[: size // 3])
            twin.update(memoryview(data)[size // 3 :])
            assert twin.digest() == getattr(hashlib, name)(data).digest(), (name, size)


def test_every_encapsulation_comes_off_again():
    """RFC 2003, RFC 2004, RFC 2784, as on CPython."""
    packet = ipv4.build_udp(b"\x0a\1\0\1", b"\x0a\2\0\1", 1, 2, b"abc")
    ends = b"\xc6\x33\x64\x0a", b"\xcb\0\x71\x0a"
    for outer in (
        encapsulation.encapsulate_ipip(ends[0], ends[1], packet),
        encapsulation.encapsulate_gre(ends[0], ends[1], packet),
        encapsulation.encapsulate_gre(ends[0], ends[1], packet, 64, True),
        encapsulation.encapsulate_minimal(ends[0], ends[1], packet),
        encapsulation.encapsulate_minimal(b"\x0a\1\0\1", ends[1], packet),
    ):
        assert encapsulation.decapsulate(outer) == packet
