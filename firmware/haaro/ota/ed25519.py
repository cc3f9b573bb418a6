"""Ed25519 signatures (RFC 8032 5.1), checked in steps of a few milliseconds; and SHA-512.

For ports, that is all of them, whose libraries have neither. Nothing here is secret: a box only
verifies. Imported when there is a bundle to verify, and dropped from the heap afterwards.
"""

import struct

from haaro.compat import const

_P = (1 << 255) - 19
_ORDER = (1 << 252) + 27742317777372353535851937790883648493
_D = 37095705934669439343138083508754565189542113879843219016388785533085940283555
_BASE_Y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
_MASK = (1 << 64) - 1
_SIGN = 1 << 255
_BITS_A_STEP = const(8)


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether `signature` (64 octets) of `message` was made with the key of `public`."""
    return list(checking(public, signature, message))[-1]


def checking(public: bytes, signature: bytes, message: bytes):
    """Yield None between steps, and at last the verdict.

    Stricter than RFC 8032 demands: S below the group's order (no second form of a signature), no
    key of small order, and no other writing of a point than the shortest.
    """
    a = _point(public) if len(public) == 32 and len(signature) == 64 else None
    s = int.from_bytes(signature[32:], "little")
    if a is None or s >= _ORDER or _small(a):
        yield False
        return
    yield None
    k = int.from_bytes(sha512(signature[:32] + public + message), "little") % _ORDER
    yield None
    # R = sB - kA: both products in one run over the bits.
    minus_a = (_P - a[0], a[1], 1, _P - a[3])
    base = _point(_BASE_Y.to_bytes(32, "little"))
    both = _add(base, minus_a)
    r = (0, 1, 1, 0)
    for bit in range(252, -1, -1):
        r = _add(r, r)
        which = (s >> bit & 1) | (k >> bit & 1) << 1
        if which:
            r = _add(r, (base, minus_a, both)[which - 1])
        if bit % _BITS_A_STEP == 0:
            yield None
    inverse = pow(r[2], _P - 2, _P)
    y = r[1] * inverse % _P | (r[0] * inverse % _P & 1) << 255
    yield y.to_bytes(32, "little") == signature[:32]


def _add(p, q):
    """Add points (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z (RFC 8032 5.1.4); p may be q."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _small(point):
    for _ in range(3):
        point = _add(point, point)
    return point[0] % _P == 0 and point[1] % _P == point[2] % _P


def _point(octets):
    """Return the point written in 32 octets (RFC 8032 5.1.3), None if there is none."""
    y = int.from_bytes(octets, "little")
    sign = y >> 255
    y &= _SIGN - 1
    if y >= _P:
        return None
    u = y * y - 1
    v = _D * y * y + 1
    x = u * v * v * v * pow(u * pow(v, 7, _P) % _P, (_P - 5) // 8, _P) % _P
    found = v * x * x % _P
    if found != u % _P:
        if found != -u % _P:
            return None
        x = x * pow(2, (_P - 1) // 4, _P) % _P
    if x == 0 and sign:
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


# --- SHA-512 (FIPS 180-4) -----------------------------------------------------------------------


def sha512(data: bytes) -> bytes:
    """Return the SHA-512 of `data`; meant for a few blocks of 128 octets."""
    primes = _primes()
    # The constants of 4.2.3 and 5.3.5 are fractions of roots: computed, they are nobody's heap.
    k = [_root(prime << 192, 3) & _MASK for prime in primes]
    state = [_root(prime << 128, 2) & _MASK for prime in primes[:8]]
    data += b"\x80" + bytes((111 - len(data)) & 127) + struct.pack(">QQ", 0, 8 * len(data))
    for at in range(0, len(data), 128):
        w = list(struct.unpack(">16Q", data[at : at + 128]))
        for t in range(16, 80):
            x, y = w[t - 15], w[t - 2]
            low = _turn(x, 1) ^ _turn(x, 8) ^ x >> 7
            high = _turn(y, 19) ^ _turn(y, 61) ^ y >> 6
            w.append(w[t - 16] + low + w[t - 7] + high & _MASK)
        a, b, c, d, e, f, g, h = state
        for t in range(80):
            one = h + (_turn(e, 14) ^ _turn(e, 18) ^ _turn(e, 41)) + (e & f ^ ~e & g) + k[t] + w[t]
            two = (_turn(a, 28) ^ _turn(a, 34) ^ _turn(a, 39)) + (a & b ^ a & c ^ b & c)
            a, b, c, d, e, f, g, h = one + two & _MASK, a, b, c, d + one & _MASK, e, f, g
        state = [x + y & _MASK for x, y in zip(state, (a, b, c, d, e, f, g, h))]
    return struct.pack(">8Q", *state)


def _turn(x, n):
    return (x >> n | x << (64 - n)) & _MASK


def _primes():
    found = []
    candidate = 2
    while len(found) < 80:
        if all(candidate % prime for prime in found):
            found.append(candidate)
        candidate += 1
    return found


def _root(value, degree):
    """Return the integer root, by Newton's way from above."""
    x = 1 << 68
    while True:
        y = ((degree - 1) * x + value // x ** (degree - 1)) // degree
        if y >= x:
            return x
        x = y
