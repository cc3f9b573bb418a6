"""What the chip's boot code looks for in the flash before it starts anything."""

import struct
from hashlib import md5

_TABLE, _ENTRY = 0x8000, 32
_IMAGE_MAGIC, _CHIP_ID_AT = 0xE9, 12


def filesystem(flash: bytes, chip_id: int = 9) -> tuple[int, int]:
    """Return (offset, octets) of the partition "vfs" of a flash that boots.

    Raises ValueError naming what is missing: a bootloader for this chip, a partition table with a
    right MD5, an application in ota_0 (the one that is taken while otadata is blank).
    """
    _image(flash, 0, chip_id, "bootloader")
    rows = {}
    for offset in range(_TABLE, _TABLE + 0xC00, _ENTRY):
        entry = flash[offset : offset + _ENTRY]
        if entry[:2] == b"\xeb\xeb":
            if md5(flash[_TABLE:offset]).digest() != entry[16:]:
                raise ValueError("the partition table's MD5 is wrong")
            break
        if entry[:2] != b"\xaa\x50":
            raise ValueError("no partition table")
        kind, subtype, start, size = struct.unpack_from("<BBII", entry, 2)
        rows[entry[12:28].rstrip(b"\0").decode()] = (kind, subtype, start, size)
    _, _, otadata, size = rows["otadata"]
    if flash[otadata : otadata + size] != b"\xff" * size:
        raise ValueError("otadata chooses a slot; only the first is known here")
    _image(flash, rows["ota_0"][2], chip_id, "application in ota_0")
    return rows["vfs"][2], rows["vfs"][3]


def _image(flash: bytes, offset: int, chip_id: int, what: str) -> None:
    found = struct.unpack_from("<H", flash, offset + _CHIP_ID_AT)[0]
    if flash[offset] != _IMAGE_MAGIC or found != chip_id:
        raise ValueError(f"no {what} for chip {chip_id} at {offset:#x}")
