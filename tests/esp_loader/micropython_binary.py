"""A stand-in for MicroPython's binary: ESP images by esptool's own writer, with nothing in them.

No MicroPython for the chip comes with the tests, and no Xtensa processor to run one.
"""

import struct
from hashlib import md5
from pathlib import Path

from esptool.bin_image import ESP32FirmwareImage, ESP32S3FirmwareImage, ImageSegment

_IMAGES = {
    "esp32": (ESP32FirmwareImage, 0x1000, 0x3FFB0000),
    "esp32s3": (ESP32S3FirmwareImage, 0, 0x3FC90000),
}
_TABLE, _SLOT = 0x8000, 0x10000


def image(mcu: str, octets: int, folder: Path) -> bytes:
    """Return an image for `mcu` with `octets` of content."""
    kind, _, address = _IMAGES[mcu]
    made = kind()
    content = bytes((7 * i + i // 251) & 0xFF for i in range(octets))
    made.segments = [ImageSegment(address, content)]
    made.segments[0].name = None  # what only a section of an ELF file has, and the writer asks for
    made.entrypoint = address
    path = folder / "image.bin"
    made.save(str(path))
    data = path.read_bytes()
    path.unlink()
    return data


def table(slot: int = _SLOT, size: int = 0x1F0000) -> bytes:
    """Return a table as a firmware without OTA has it, by the documented form."""
    rows = [
        (1, 2, 0x9000, 0x6000, b"nvs"),
        (1, 1, 0xF000, 0x1000, b"phy_init"),
        (0, 0, slot, size, b"factory"),
        (1, 0x81, slot + size, 0x200000, b"vfs"),
    ]
    entries = b"".join(
        b"\xaa\x50" + bytes((kind, sub)) + struct.pack("<II16sI", offset, size_, label, 0)
        for kind, sub, offset, size_, label in rows
    )
    return (entries + b"\xeb\xeb" + b"\xff" * 14 + md5(entries).digest()).ljust(0xC00, b"\xff")


def binary(mcu: str, folder: Path, octets: int = 40_000, slot: int = _SLOT) -> bytes:
    """Return bootloader, table and application as one file, as MicroPython's download has them."""
    start = _IMAGES[mcu][1]
    boot = image(mcu, 9_000, folder).ljust(_TABLE - start, b"\xff")
    return (boot + table(slot)).ljust(slot - start, b"\xff") + image(mcu, octets, folder)
