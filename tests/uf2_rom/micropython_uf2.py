"""A stand-in for MicroPython's UF2 file for an RP2350: blocks as the SDK's tools write them.

Nothing in it runs; but it says where its filesystem is as MicroPython's does (binary info of the
Pico SDK, pico/binary_info/structure.h and defs.h), and begins with the block of RP2350-E10.
Shares nothing with haaro_host.
"""

import struct

ARM = 0xE48BFF59
FLASH = 0x10000000
FILES, FILES_OCTETS = 0xE0000, 1152 * 1024
_E10 = 0x10FFFF00


def block(address: int, data: bytes, number: int, total: int, family: int, flags: int = 0x2000):
    """Return one block of 512 octets."""
    head = struct.pack(
        "<8I", 0x0A324655, 0x9E5D5157, flags, address, len(data), number, total, family
    )
    return (head + data).ljust(508, b"\0") + struct.pack("<I", 0x0AB16F30)


def image(octets: int = 40_000, files: int = FILES, files_octets: int = FILES_OCTETS) -> bytes:
    """Return an image with a binary info that has a program's name and a block device."""
    made = bytearray((11 * i + i // 253) & 0xFF for i in range(octets))
    low = 0x600
    # marker, first and end of the list of pointers, a mapping table, marker
    struct.pack_into("<5I", made, 0x138, 0x7188EBF2, FLASH + low, FLASH + low + 8, 0, 0xE71AA390)
    struct.pack_into("<2I", made, low, FLASH + 0x700, FLASH + 0x740)
    struct.pack_into("<H2s2I", made, 0x700, 6, b"RP", 0x02031C86, FLASH + 0x780)
    struct.pack_into(
        "<H2s4IH", made, 0x740, 7, b"MP", FLASH + 0x790, FLASH + files, files_octets, 0, 0x13
    )
    made[0x780:0x790] = b"MicroPython\0\0\0\0\0"
    made[0x790:0x7A0] = b"MicroPython\0\0\0\0\0"
    return bytes(made)


def blocks(content: bytes, family: int = ARM, start: int = FLASH) -> list[bytes]:
    """Return the blocks of `content`."""
    pages = [content[at : at + 256].ljust(256, b"\0") for at in range(0, len(content), 256)]
    return [
        block(start + 256 * number, page, number, len(pages), family)
        for number, page in enumerate(pages)
    ]


def binary(**changes: int) -> bytes:
    """Return the file; `changes` as for `image`."""
    # The tools' number of blocks for it is 2, though there is one; its extension says "ignore".
    e10 = block(_E10, b"\xef" * 256, 0, 2, 0xE48BFF57, 0xA000)
    return e10 + b"".join(blocks(image(**changes)))
