"""UF2, the form of files that a boot ROM's drive takes (github.com/microsoft/uf2, README).

A block of 512 octets, little endian:

    0   0x0A324655 "UF2\\n"     4   0x9E5D5157     8   flags      12  address
    16  octets of data, 256    20  its number     24  of blocks  28  family
    32  data, padded to 476    508 0x0AB16F30

RP2350 (datasheet 5.5): blocks of exactly 256 octets with a family, addresses at multiples of 256
from 0x10000000 on, which is the start of flash.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from haaro_host.flash.errors import BadInputError

BLOCK = 512
PAYLOAD = 256
FLASH = 0x10000000
ABSOLUTE = 0xE48BFF57  # accepted whatever the partitions in flash are

_HEAD = struct.Struct("<8I")
_START0, _START1, _END = 0x0A324655, 0x9E5D5157, 0x0AB16F30
_NOT_MAIN_FLASH, _FAMILY_PRESENT = 0x0001, 0x2000


@dataclass(frozen=True)
class Block:
    """One block."""

    address: int
    data: bytes
    number: int
    total: int
    family: int


def encode(parts: Iterable[tuple[int, bytes]], family: int) -> bytes:
    """Return one file that puts each (offset in flash, octets) there, as one transfer.

    Offsets are multiples of 256; the end of a part is filled up with octets of erased flash.
    """
    pages = []
    for offset, data in parts:
        for at in range(0, len(data), PAYLOAD):
            pages.append((FLASH + offset + at, data[at : at + PAYLOAD].ljust(PAYLOAD, b"\xff")))
    return b"".join(
        _HEAD.pack(_START0, _START1, _FAMILY_PRESENT, address, PAYLOAD, number, len(pages), family)
        + page.ljust(BLOCK - _HEAD.size - 4, b"\0")
        + _END.to_bytes(4, "little")
        for number, (address, page) in enumerate(pages)
    )


def decode(name: str, data: bytes) -> list[Block]:
    """Return the blocks for flash in the file called `name`. Raises BadInputError."""
    found = []
    if not data or len(data) % BLOCK:
        raise BadInputError(f"{name}: {len(data)} octets; a UF2 file has blocks of {BLOCK}")
    for at in range(0, len(data), BLOCK):
        raw = data[at : at + BLOCK]
        start0, start1, flags, address, size, number, total, family = _HEAD.unpack_from(raw)
        if (start0, start1, int.from_bytes(raw[-4:], "little")) != (_START0, _START1, _END):
            raise BadInputError(
                f"{name}: no UF2 block at octet {at}; take the .uf2 whole, no .bin or .elf"
            )
        if flags & _NOT_MAIN_FLASH:
            continue
        if not flags & _FAMILY_PRESENT or size != PAYLOAD:
            raise BadInputError(
                f"{name}: the block at octet {at} has {size} octets and"
                f" {'a' if flags & _FAMILY_PRESENT else 'no'} family; the chip takes only"
                f" {PAYLOAD} octets with a family"
            )
        body = raw[_HEAD.size : _HEAD.size + size]
        found.append(Block(address, body, number, total, family))
    return found
