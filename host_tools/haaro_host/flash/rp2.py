"""The user's MicroPython as a UF2 file: whether it is for this board and leaves our files alone.

MicroPython notes in its binary where its filesystem is ("binary info" of the Pico SDK,
pico/binary_info/structure.h), which must be where the board's folder has it.
"""

import struct
from dataclasses import dataclass

from haaro_host.flash import uf2
from haaro_host.flash.boards import Board
from haaro_host.flash.errors import BadInputError

_FAMILIES = {
    0xE48BFF56: "RP2040", 0xE48BFF57: "any chip (absolute)", 0xE48BFF59: "RP2350",
    0xE48BFF5A: "RP2350 as RISC-V", 0xE48BFF5B: "RP2350, not secure",
}  # fmt: skip
_MARKER_START, _MARKER_END = 0x7188EBF2, 0xE71AA390
_SEARCHED = 4096
_BLOCK_DEVICE = struct.Struct("<H2sIII")  # type, tag, name, address, size
_BLOCK_DEVICE_TYPE = 7
_MAX_ENTRIES = 1024


@dataclass(frozen=True)
class Program:
    """MicroPython as it goes to flash, by (offset, octets), and what could not be checked."""

    runs: list[tuple[int, bytes]]
    notes: list[str]


def read(board: Board, data: bytes, name: str) -> Program:
    """Return what is in the UF2 file called `name`.

    Raises BadInputError when it is for another chip, is not whole, or lies where our files do.
    """
    blocks = uf2.decode(name, data)
    wanted = board.chip.uf2_family
    own = sorted((b for b in blocks if b.family == wanted), key=lambda block: block.address)
    strange = {block.family for block in blocks} - {wanted, uf2.ABSOLUTE}
    if strange or not own:
        family = min(strange, default=uf2.ABSOLUTE)
        made_for = _FAMILIES.get(family, f"family {family:#x}")
        raise BadInputError(
            f"{name}: is for {made_for}, board {board.name} has an {board.chip.name}"
        )
    if sorted(b.number for b in own) != list(range(own[0].total)):
        raise BadInputError(
            f"{name}: {len(own)} blocks of {own[0].total}; it is not whole, get it anew"
        )
    room = board.table.find("firmware")
    first_octet, end = own[0].address - uf2.FLASH, own[-1].address - uf2.FLASH + uf2.PAYLOAD
    if first_octet != 0 or end > room.size:
        raise BadInputError(
            f"{name}: goes from {first_octet:#x} to {end:#x} in flash; {board.table.name} of board"
            f" {board.name} has 0x0 to {room.size:#x} for MicroPython, and files behind it"
        )
    runs = _joined(own, name)
    return Program(runs, _check_files(board, runs, name))


def _joined(blocks: list[uf2.Block], name: str) -> list[tuple[int, bytes]]:
    runs: list[tuple[int, bytearray]] = []
    for block in blocks:
        offset = block.address - uf2.FLASH
        if offset % uf2.PAYLOAD or (runs and offset < runs[-1][0] + len(runs[-1][1])):
            raise BadInputError(f"{name}: a block at {block.address:#x} is not where it may be")
        if runs and offset == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].extend(block.data)
        else:
            runs.append((offset, bytearray(block.data)))
    return [(offset, bytes(data)) for offset, data in runs]


def _check_files(board: Board, runs: list[tuple[int, bytes]], name: str) -> list[str]:
    place = board.table.find("vfs")
    found = _filesystem(runs[0][1])
    if found is None:
        return [f"{name} does not say where its filesystem is; it must be at {place.offset:#x}"]
    address, octets = found
    if (address, octets) != (uf2.FLASH + place.offset, place.size):
        raise BadInputError(
            f"{name}: has its filesystem at {address - uf2.FLASH:#x}, {octets} octets; board"
            f" {board.name} at {place.offset:#x}, {place.size}. Build MicroPython with the board's"
            " folder: board.md there says how"
        )
    return []


def _filesystem(image: bytes) -> tuple[int, int] | None:
    """Return (address, octets) of the filesystem that an image from offset 0 on names."""

    def words(at: int, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}I", image, at)

    try:
        for at in range(0, min(len(image), _SEARCHED), 4):
            start, low, high, _, end = words(at, 5)
            if (start, end) == (_MARKER_START, _MARKER_END):
                break
        else:
            return None
        count = min((high - low) // 4, _MAX_ENTRIES)
        for pointer in words(low - uf2.FLASH, count):
            kind, tag, _, address, octets = _BLOCK_DEVICE.unpack_from(image, pointer - uf2.FLASH)
            if kind == _BLOCK_DEVICE_TYPE and tag == b"MP":
                return address, octets
    except struct.error:  # pointers to nowhere: of a form that we do not know
        pass
    return None


def file(program: Program, files: tuple[int, bytes]) -> bytes:
    """Return one UF2 with MicroPython and (offset, octets) of the filesystem.

    One transfer: with two files the board would start between them, and MicroPython would format
    what it finds. One family, "absolute", which ignores partitions: so it needs not the block at
    the end of the address space that the SDK's files begin with (RP2350-E10), which in the midst of
    others, as a host's cache may write it, would end their transfer. Blank octets of the filesystem
    are in it too, so that no old key stays in flash.
    """
    return uf2.encode([*program.runs, files], uf2.ABSOLUTE)
