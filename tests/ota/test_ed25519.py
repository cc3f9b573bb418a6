"""Ed25519 of RFC 8032 on both runtimes, against its vectors, `cryptography`, and forgeries."""

import hashlib
import json
import random
import subprocess

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from haaro.ota.ed25519 import checking, sha512, verify
from haaro_host.lab import system
from tests.ota.conftest import KEY, PUBLIC, ROOT

# RFC 8032 7.1: public key, message, signature.
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
        "1cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613"
        "d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760"
        "984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
_ORDER = (1 << 252) + 27742317777372353535851937790883648493
_P = (1 << 255) - 19
# The eight points of small order and their other writings (RFC 7748's curve has them too).
SMALL = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
]


def vectors():
    return [(bytes.fromhex(k), bytes.fromhex(m), bytes.fromhex(s)) for k, m, s in VECTORS]


def test_the_vectors_of_the_rfc():
    for public, message, signature in vectors():
        assert verify(public, signature, message)
        assert not verify(public, signature, message + b"x")


def test_what_cryptography_signs_is_taken_and_nothing_else():
    draw = random.Random(8032)
    for i in range(24):
        key = Ed25519PrivateKey.from_private_bytes(draw.randbytes(32))
        public = key.public_key().public_bytes_raw()
        message = draw.randbytes(i * 11)
        signature = key.sign(message)
        assert verify(public, signature, message)
        for octets, place in ((signature, 0), (public, 1), (message or b"\0", 2)):
            bit = draw.randrange(8 * len(octets))
            changed = bytearray(octets)
            changed[bit // 8] ^= 1 << bit % 8
            words = [signature, public, message]
            words[place] = bytes(changed)
            ours = verify(words[1], words[0], words[2])
            try:
                Ed25519PublicKey.from_public_bytes(words[1]).verify(words[0], words[2])
                theirs = True
            except (InvalidSignature, ValueError):
                theirs = False
            assert not ours and not theirs


def test_a_signature_has_no_second_form():
    """S and S + L are the same number in the group; only the smaller one is a signature."""
    signature = KEY.sign(b"x")
    s = int.from_bytes(signature[32:], "little")
    assert verify(PUBLIC, signature, b"x")
    for k in range(1, 8):
        other = signature[:32] + (s + k * _ORDER).to_bytes(32, "little")
        assert not verify(PUBLIC, other, b"x")


@pytest.mark.parametrize("public", SMALL)
def test_a_key_of_small_order_signs_nothing(public):
    """R = A or the neutral point with S = 0 would be a signature of every message."""
    key = bytes.fromhex(public)
    for r in SMALL:
        assert not any(
            verify(key, bytes.fromhex(r) + bytes(32), message) for message in (b"", b"x", b"yz")
        )


def test_other_writings_of_a_point_are_no_keys():
    for y in (_P, _P + 1, (1 << 255) - 1):
        for sign in (0, 1 << 255):
            assert not verify((y | sign).to_bytes(32, "little"), KEY.sign(b"x"), b"x")


@pytest.mark.parametrize("lengths", [(31, 64), (33, 64), (32, 63), (32, 65), (0, 64), (32, 0)])
def test_other_lengths_are_refused(lengths):
    public, signature = lengths
    assert not verify(bytes(public), bytes(signature), b"x")
    assert not verify((PUBLIC * 2)[:public], (KEY.sign(b"x") * 2)[:signature], b"x")


def test_it_is_done_in_many_small_steps():
    """A keepalive is not kept waiting by a verification of a second."""
    steps = list(checking(PUBLIC, KEY.sign(b"x"), b"x"))
    assert steps[-1] is True and set(steps[:-1]) == {None} and len(steps) > 30


@pytest.mark.parametrize("octets", [0, 1, 55, 111, 112, 113, 127, 128, 129, 239, 240, 1000])
def test_sha_512_is_that_of_hashlib(octets):
    data = random.Random(octets).randbytes(octets)
    assert sha512(data) == hashlib.sha512(data).digest()


def test_micropython_says_the_same(tmp_path):
    rows = [(p.hex(), s.hex(), m.hex()) for p, m, s in vectors()]
    rows += [(p, s, m + "00") for p, s, m in rows]
    rows += [(SMALL[0], SMALL[0] + "00" * 32, "")]
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "from haaro.ota.ed25519 import sha512, verify\n"
        f"rows = json.loads({json.dumps(rows)!r})\n"
        "print([verify(*[bytes.fromhex(x) for x in row]) for row in rows])\n"
        "print(''.join('%02x' % x for x in sha512(b'abc')))\n"
    )
    (tmp_path / "script.py").write_text(program)
    script = [str(tmp_path / "script.py"), str(ROOT / "firmware")]
    done = subprocess.run(
        [system.micropython(), *script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    said, digest = done.stdout.splitlines()
    assert json.loads(said.lower()) == [True] * 3 + [False] * 4
    assert digest == hashlib.sha512(b"abc").hexdigest()
