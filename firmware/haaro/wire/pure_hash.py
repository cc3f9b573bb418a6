"""MD5 (RFC 1321) and SHA-1 (RFC 3174) for ports whose hashlib lacks them; auth.py imports it then.

As the built-in ones of MicroPython: `update` as often as wanted, then `digest` once.
"""

import struct

from haaro.compat import const

_MASK = const(0xFFFFFFFF)

# floor(2**32 * abs(sin(i + 1))): a table, since floats on the device may have too few bits.
_SINES = bytes.fromhex(
    "d76aa478e8c7b756242070dbc1bdceeef57c0faf4787c62aa8304613fd469501"
    "698098d88b44f7afffff5bb1895cd7be6b901122fd987193a679438e49b40821"
    "f61e2562c040b340265e5a51e9b6c7aad62f105d02441453d8a1e681e7d3fbc8"
    "21e1cde6c33707d6f4d50d87455a14eda9e3e905fcefa3f8676f02d98d2a4c8a"
    "fffa39428771f6816d9d6122fde5380ca4beea444bdecfa9f6bb4b60bebfbc70"
    "289b7ec6eaa127fad4ef308504881d05d9d4d039e6db99e51fa27cf8c4ac5665"
    "f4292244432aff97ab9423a7fc93a039655b59c38f0ccc92ffeff47d85845dd1"
    "6fa87e4ffe2ce6e0a30143144e0811a1f7537e82bd3af2352ad7d2bbeb86d391"
)
_SHIFTS = b"\x07\x0c\x11\x16\x05\x09\x0e\x14\x04\x0b\x10\x17\x06\x0a\x0f\x15"
_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)


class _Hash:
    """Blocks of 64 octets, the last with a one bit, zeros and the length in bits."""

    _words = ""
    _state: tuple

    def __init__(self, data: bytes | bytearray | memoryview = b"") -> None:
        self._block = bytearray(64)
        self._octets = 0
        self.update(data)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Take more octets; they are copied."""
        view = memoryview(data)
        off = 0
        while off < len(view):
            at = self._octets & 63
            n = min(64 - at, len(view) - off)
            self._block[at : at + n] = view[off : off + n]
            self._octets += n
            off += n
            if at + n == 64:
                self._state = self._next(struct.unpack(self._words[0] + "16I", self._block))

    def digest(self) -> bytes:
        """Return the hash; the object cannot be used further."""
        bits = self._octets * 8
        self.update(b"\x80" + bytes((55 - self._octets) & 63))
        self.update(struct.pack(self._words[0] + "Q", bits))
        return struct.pack(self._words, *self._state)

    def _next(self, words: tuple) -> tuple:
        raise NotImplementedError


class md5(_Hash):
    """RFC 1321, 16 octets."""

    _words = "<4I"
    _state = _START[:4]

    def _next(self, words: tuple) -> tuple:
        a, b, c, d = self._state
        for i in range(64):
            if i < 16:
                f, k = b & c | ~b & d, i
            elif i < 32:
                f, k = d & b | ~d & c, 5 * i + 1
            elif i < 48:
                f, k = b ^ c ^ d, 3 * i + 5
            else:
                f, k = c ^ (b | d ^ _MASK), 7 * i
            sine = struct.unpack_from(">I", _SINES, 4 * i)[0]
            f = _rotate(a + f + sine + words[k & 15], _SHIFTS[i >> 4 << 2 | i & 3])
            a, d, c, b = d, c, b, b + f & _MASK
        return _add(self._state, (a, b, c, d))


class sha1(_Hash):
    """RFC 3174, 20 octets."""

    _words = ">5I"
    _state = _START

    def _next(self, words: tuple) -> tuple:
        w = list(words)
        for i in range(16, 80):
            w.append(_rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1))
        a, b, c, d, e = self._state
        for i in range(80):
            if i < 20:
                f, k = b & c | ~b & d, 0x5A827999
            elif i < 40:
                f, k = b ^ c ^ d, 0x6ED9EBA1
            elif i < 60:
                f, k = b & c | b & d | c & d, 0x8F1BBCDC
            else:
                f, k = b ^ c ^ d, 0xCA62C1D6
            f = _rotate(a, 5) + f + e + k + w[i] & _MASK
            a, b, c, d, e = f, a, _rotate(b, 30), c, d
        return _add(self._state, (a, b, c, d, e))


def _rotate(value: int, n: int) -> int:
    value &= _MASK
    return (value << n | value >> (32 - n)) & _MASK


def _add(first: tuple, second: tuple) -> tuple:
    return tuple([first[i] + second[i] & _MASK for i in range(len(first))])
