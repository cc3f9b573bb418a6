"""A bundle: one file with a program for a slot, signed.

    "haaro bundle 1" LF                      the form
    4 octets                                 length of the head, most significant first
    head                                     lines of text, below
    64 octets                                Ed25519 of "haaro bundle 1" NUL SHA-256(head)
    data of the files, in the head's order

    version 0.2.0-r1
    board UNIX                               the box's own slot says which board it is
    mpy 6.3 xtensawin                        or "mpy none": sources
    pack deflate                             raw, window of 1024 octets (RFC 1951); or "stored"
    replaces 0.3.0-r2                        only in a bundle that may go back: from where, at most
    file SIZE PACKED SHA256 NAME

The head is read line by line, so neither its length nor the number of files costs heap.
"""

import sys
from hashlib import sha256

from haaro.compat import const

_MAGIC = b"haaro bundle 1\n"
_SIGNED = b"haaro bundle 1\0"
_SIGNATURE = const(64)
_HEAD_AT = const(19)
_HEAD_LIMIT = const(65536)
_NAME_LIMIT = const(96)
_PIECE = const(256)
_WORDS = ("version", "board", "mpy", "pack", "replaces")
# sys.implementation._mpy, bits 10 and up (MicroPython's docs/reference/mpyfiles.rst).
_ARCHS = (
    "none",
    "x86",
    "x64",
    "armv6",
    "armv6m",
    "armv7m",
    "armv7em",
    "armv7emsp",
    "armv7emdp",
    "xtensa",
    "xtensawin",
    "rv32imc",
    "rv64imc",
)


class Refused(ValueError):
    """This bundle is not for this box; the text says why."""


class Bundle:
    """A bundle in the file at `path`, perhaps not whole yet. Nothing in it counts before
    `checking` has said so.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.data_at = 0  # where the files' data begins; 0: that much has not come in
        self.facts: dict = {}
        self.packed = 0  # octets of the files' data
        self.unpacked = 0  # room that the files take, in blocks
        self.head = 0  # octets of it, which begins at `head_at`
        self.head_at = _HEAD_AT

    def look(self) -> bool:
        """Return whether head and signature are there. Raises Refused for what is no bundle."""
        with open(self.path, "rb") as file:
            start = file.read(_HEAD_AT)
            if not _MAGIC.startswith(start[: len(_MAGIC)]):
                raise Refused("it is no bundle")
            if len(start) < _HEAD_AT:
                return False
            self.head = int.from_bytes(start[len(_MAGIC) :], "big")
            if not 0 < self.head <= _HEAD_LIMIT:
                raise Refused("it is no bundle")
            data_at = _HEAD_AT + self.head + _SIGNATURE
            if file.seek(0, 2) < data_at:
                return False
        self.data_at = data_at
        return True

    def checking(self, keys: list):
        """Yield between steps until the head is known to be signed by one of `keys` and is read.

        Raises Refused.
        """
        from haaro.ota import ed25519

        made = sha256()
        with open(self.path, "rb") as file:
            file.seek(_HEAD_AT)
            left = self.head
            while left:
                piece = file.read(min(_PIECE, left))
                made.update(piece)
                left -= len(piece)
                yield
            signature = file.read(_SIGNATURE)
        message = _SIGNED + made.digest()
        good = False
        for key in keys:
            for verdict in ed25519.checking(key, signature, message):
                good = good or bool(verdict)
                yield
        if not good:
            raise Refused("no key of this box has signed it")
        for _ in self.files():
            yield

    def files(self):
        """Yield (name, octets, where its data is, octets of that, SHA-256 in hexadecimal).

        Reads the other lines on its way. Raises Refused for a name that leads elsewhere.
        """
        at = self.data_at
        room = 0
        with open(self.path, "rb") as file:
            file.seek(_HEAD_AT)
            end = _HEAD_AT + self.head
            while file.tell() < end:
                words = file.readline().decode().split()
                if words and words[0] in _WORDS:
                    self.facts[words[0]] = words[1:]
                    continue
                if len(words) != 5 or words[0] != "file" or not _is_name(words[4]):
                    raise Refused("its list of files has %s" % " ".join(words)[:_NAME_LIMIT])
                _, size, packed, digest, name = words
                yield name, int(size), at, int(packed), digest
                at += int(packed)
                room += (int(size) + 4095) // 4096 * 4096
        self.packed = at - self.data_at
        self.unpacked = room

    @property
    def version(self) -> str:
        """The version that it brings."""
        return self.facts["version"][0]


def judge(bundle: Bundle, slots) -> None:
    """Raise Refused unless the box with `slots` may have `bundle`, which is known to be signed."""
    from haaro.ota.slots import version_of

    facts = bundle.facts
    if facts["board"] != [slots.board]:
        raise Refused("it is for board %s, this is %s" % (facts["board"][0], slots.board))
    if facts["mpy"] != ["none"] and facts["mpy"] != mpy():
        raise Refused("it is for mpy %s, this is %s" % (" ".join(facts["mpy"]), " ".join(mpy())))
    if facts["pack"] != ["stored"]:
        try:
            import deflate  # noqa: F401
        except ImportError:
            raise Refused("it is packed and this MicroPython has no deflate")
    version, floor = version_of(bundle.version), slots.floor()
    leave = facts.get("replaces")
    if leave is None and version <= floor:
        raise Refused("%s is not newer than %d.%d.%d-r%d" % ((bundle.version,) + floor))
    if leave is not None and (version_of(leave[0]) < floor or bundle.version == slots.version):
        raise Refused("it may replace %s at most, not %d.%d.%d-r%d" % ((leave[0],) + floor))


def mpy() -> list:
    """Return [version, architecture] of the .mpy files that this MicroPython takes."""
    value = getattr(sys.implementation, "_mpy", 0)
    return ["%d.%d" % (value & 0xFF, value >> 8 & 3), _ARCHS[min(value >> 10, len(_ARCHS) - 1)]]


def _is_name(name):
    return (
        len(name) <= _NAME_LIMIT
        and all(part.strip("._") for part in name.split("/"))
        and all("a" <= letter <= "z" or letter in "/_.0123456789" for letter in name.lower())
        and name not in ("manifest", "unpacking")
    )
