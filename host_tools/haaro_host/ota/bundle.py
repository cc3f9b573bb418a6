"""A bundle made and read; its form is that of `firmware/haaro/ota/bundle.py`.

The same files, version and key make the same octets: names are sorted, nothing has a date, and
Ed25519 draws no random number (RFC 8032 5.1.6).
"""

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from haaro_host.fleet.files import FleetError, FleetFileError

MAGIC = b"haaro bundle 1\n"
_SIGNED = b"haaro bundle 1\0"
_SIGNATURE_OCTETS = 64
_LENGTH_OCTETS = 4
# The box's window, shell/install.py's: 1024 octets of its heap.
_WINDOW_BITS = 10
PACKS = ("deflate", "stored")
_VERSION = re.compile(r"(\d{1,5})\.(\d{1,5})\.(\d{1,5})-r(\d{1,5})")
_NAME = re.compile(r"(?!(manifest|unpacking)$)[A-Za-z0-9_./]{1,96}")


class BundleError(FleetFileError):
    """A bundle, or what one shall be made of, is wrong."""


@dataclass(frozen=True)
class Entry:
    """One file of a bundle. `packed`: octets that it takes in there."""

    name: str
    size: int
    packed: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of itself. `digest`: SHA-256 of the whole file."""

    version: str
    board: str
    mpy: str
    pack: str
    replaces: str
    files: tuple[Entry, ...]
    digest: str
    octets: int
    head: bytes
    signature: bytes


def version_of(text: str) -> tuple[int, ...]:
    """Return "0.1.0-r3" as (0, 1, 0, 3), which is how versions are compared. Raises BundleError."""
    found = _VERSION.fullmatch(text)
    numbers = tuple(int(each) for each in found.groups()) if found else ()
    if not found or max(numbers) > 0xFFFF:
        raise BundleError(f"{text!r} is no version; write it like 0.1.0-r3")
    return numbers


def head_of(
    entries: list[Entry], version: str, board: str, mpy: str, pack: str, replaces: str = ""
) -> bytes:
    """Return the head with these facts; by itself, a slot's manifest."""
    lines = [f"version {version}", f"board {board}", f"mpy {mpy}", f"pack {pack}"]
    if replaces:
        lines.append(f"replaces {replaces}")
    lines += [f"file {each.size} {each.packed} {each.sha256} {each.name}" for each in entries]
    return "".join(line + "\n" for line in lines).encode()


def entry(name: str, data: bytes, packed: int) -> Entry:
    """Return the entry of a file. Raises BundleError for a name that a box refuses."""
    if not _NAME.fullmatch(name) or not all(part.strip("._") for part in name.split("/")):
        raise BundleError(f"{name}: such a name is not for a slot: letters, digits, _ . and /")
    return Entry(name, len(data), packed, hashlib.sha256(data).hexdigest())


def make(
    files: Mapping[str, bytes], version: str, board: str, mpy: str, key: Ed25519PrivateKey,
    pack: str = "deflate", replaces: str = "",
) -> bytes:  # fmt: skip
    """Return the bundle. Raises BundleError."""
    for each in (version, replaces):
        if each:
            version_of(each)
    if replaces and version_of(replaces) < version_of(version):
        raise BundleError(f"{replaces} is older than {version}: that needs no leave")
    entries, data = [], []
    for name, octets in sorted(files.items()):
        packed = _packed(octets) if pack == "deflate" else octets
        entries.append(entry(name, octets, len(packed)))
        data.append(packed)
    head = head_of(entries, version, board, mpy, pack, replaces)
    signature = key.sign(_message(head))
    length = len(head).to_bytes(_LENGTH_OCTETS, "big")
    return b"".join([MAGIC, length, head, signature, *data])


def read(path: Path) -> tuple[Bundle, bytes]:
    """Return what the file says and its octets; every file's hash is compared, the signature is
    not: see `verify`. Raises BundleError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}; name a bundle") from None
    try:
        return parse(data), data
    except (ValueError, KeyError, IndexError, zlib.error) as error:
        raise BundleError(f"{path}: is no whole bundle ({error}); make it anew") from None


def parse(data: bytes) -> Bundle:
    """Return what the octets of a bundle say. Raises ValueError, KeyError, zlib.error."""
    if not data.startswith(MAGIC):
        raise ValueError("its first line is another")
    at = len(MAGIC) + _LENGTH_OCTETS
    head_end = at + int.from_bytes(data[len(MAGIC) : at], "big")
    head = data[at:head_end]
    signature = data[head_end : head_end + _SIGNATURE_OCTETS]
    facts: dict[str, str] = {"replaces": ""}
    entries = []
    at = head_end + _SIGNATURE_OCTETS
    for line in head.decode().splitlines():
        kind, _, rest = line.partition(" ")
        if kind != "file":
            facts[kind] = rest
            continue
        size, packed, digest, name = rest.split(" ")
        octets = data[at : at + int(packed)]
        at += int(packed)
        if facts["pack"] == "deflate":
            octets = zlib.decompressobj(-_WINDOW_BITS).decompress(octets, int(size) + 1)
        if hashlib.sha256(octets).hexdigest() != digest or len(octets) != int(size):
            raise ValueError(f"{name} is damaged")
        entries.append(Entry(name, int(size), int(packed), digest))
    if at != len(data) or len(signature) != _SIGNATURE_OCTETS:
        raise ValueError("octets are missing, or too many")
    version_of(facts["version"])
    digest = hashlib.sha256(data).hexdigest()
    return Bundle(
        facts["version"], facts["board"], facts["mpy"], facts["pack"], facts["replaces"],
        tuple(entries), digest, len(data), head, signature,
    )  # fmt: skip


def verify(bundle: Bundle, public: bytes) -> bool:
    """Return whether `bundle` was signed with the key of `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(bundle.signature, _message(bundle.head))
    except InvalidSignature:
        return False
    except ValueError:
        raise FleetError("the public key in the key store is damaged; restore it") from None
    return True


def _message(head: bytes) -> bytes:
    return _SIGNED + hashlib.sha256(head).digest()


def _packed(octets: bytes) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -_WINDOW_BITS)
    return made.compress(octets) + made.flush()
