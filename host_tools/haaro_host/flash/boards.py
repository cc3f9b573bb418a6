"""A board's folder, as MicroPython's own tree has them: what haaro needs to know of it."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haaro_host.flash import partitions
from haaro_host.flash.errors import BadInputError
from haaro_host.lab import system

_MEGABYTE = 1 << 20
# A slot takes about 0.5 MB in blocks of 4 KB.
_TWO_SLOTS = _MEGABYTE


@dataclass(frozen=True)
class Chip:
    """What differs between chips. `image_id` is the chip's number in image headers (esp-idf).

    With a `uf2_family` it is flashed by its boot ROM's drive, which names itself `drive_id`.
    `unit`: the least that littlefs writes, octets. `hashes`: its MicroPython has MD5 and SHA-1.
    """

    name: str
    image_id: int
    bootloader_offset: int
    arch: str  # of mpy-cross
    unit: int = 32
    uf2_family: int = 0
    drive_id: str = ""
    hashes: bool = False


CHIPS = {
    "esp32": Chip("ESP32", 0, 0x1000, "xtensawin", hashes=True),
    "esp32s3": Chip("ESP32-S3", 9, 0x0, "xtensawin", hashes=True),
    # RP2350 datasheet 5.5.3: rp2350-arm-s. rp2's _boot.py mounts with progsize=256.
    "rp2350": Chip("RP2350", -1, 0x0, "armv7emsp", 256, 0xE48BFF59, "RP2350"),
}


@dataclass(frozen=True)
class Board:
    """A board that is flashed, with esptool or by its boot ROM's drive.

    `table` of the latter is what MicroPython computes from its build's settings.
    """

    name: str
    mcu: str
    product: str
    flash_octets: int
    table: partitions.Table
    psram: bool = False
    wifi: bool = False

    @property
    def two_slots(self) -> bool:
        """Whether its files have room for the program twice, as an update needs it."""
        return self.table.find("vfs").size >= _TWO_SLOTS

    @property
    def chip(self) -> Chip:
        """The facts of its chip."""
        return CHIPS[self.mcu]


def folder() -> Path:
    """Where the boards are; HAARO_BOARDS overrides it."""
    override = os.environ.get("HAARO_BOARDS")
    return Path(override) if override else system.repository() / "boards"


def flashable(name: str) -> bool:
    """Return whether board `name` is one that is flashed."""
    return (folder() / name / "board.json").exists()


def pins(name: str) -> bytes:
    """Return the pins.csv of board `name`, nothing if it has none."""
    path = folder() / name / "pins.csv"
    return path.read_bytes() if path.exists() else b""


def load(name: str) -> Board:
    """Return board `name`. Raises BadInputError when there is none, or nothing to flash on it."""
    place = folder() / name
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name) or not place.is_dir():
        known = ", ".join(sorted(path.name for path in folder().glob("*/"))) or "none"
        raise BadInputError(f"no board {name!r} in {folder()}; there are {known}")
    about = place / "board.json"
    if not about.exists():
        raise BadInputError(
            f"board {name} is not flashed: {place / 'board.md'} says how it is set up"
        )
    document: dict[str, Any] = json.loads(about.read_text())
    if document["mcu"] not in CHIPS:
        known = ", ".join(CHIPS)
        raise BadInputError(f"{about}: mcu {document['mcu']!r}; this haaro can flash {known}")
    psram, wifi = (what in document["features"] for what in ("External RAM", "WiFi"))
    if CHIPS[document["mcu"]].uf2_family:
        octets, table = _rp2_flash(place / "mpconfigboard.h", place / "mpconfigboard.cmake")
        return Board(name, document["mcu"], document["product"], octets, table, psram, wifi)
    settings = (place / "sdkconfig.board").read_text()
    sizes = re.findall(r"^CONFIG_ESPTOOLPY_FLASHSIZE_(\d+)MB=y$", settings, re.M)
    tables = re.findall(r'^CONFIG_PARTITION_TABLE_CUSTOM_FILENAME="(.+)"$', settings, re.M)
    if len(sizes) != 1 or len(tables) != 1:
        raise BadInputError(
            f"{place / 'sdkconfig.board'}: wants one CONFIG_ESPTOOLPY_FLASHSIZE_xMB=y and one"
            " CONFIG_PARTITION_TABLE_CUSTOM_FILENAME"
        )
    octets = int(sizes[0]) * _MEGABYTE
    # The path is as seen from MicroPython's ports/esp32; the file lies in the board's folder.
    table = partitions.read_csv(place / Path(tables[0]).name, octets)
    return Board(name, document["mcu"], document["product"], octets, table, psram, wifi)


def _rp2_flash(header: Path, cmake: Path) -> tuple[int, partitions.Table]:
    """Return (octets of the flash, its parts), as ports/rp2/rp2_flash.c has them: files at the end,
    ROMFS below. Raises BadInputError.
    """
    sizes = dict(
        re.findall(r"#define (MICROPY_HW_\w+_BYTES) +\((\d+) \* 1024\)", header.read_text())
    )
    flash = re.findall(r"^set\(PICO_FLASH_SIZE_BYTES (\d+)\)$", cmake.read_text(), re.M)
    try:
        octets = int(flash[0])
        files = int(sizes["MICROPY_HW_FLASH_STORAGE_BYTES"]) * 1024
        romfs = int(sizes["MICROPY_HW_ROMFS_BYTES"]) * 1024
    except (KeyError, IndexError):
        raise BadInputError(
            f"{header.parent}: wants PICO_FLASH_SIZE_BYTES in {cmake.name}, and"
            f" MICROPY_HW_FLASH_STORAGE_BYTES and MICROPY_HW_ROMFS_BYTES in {header.name}"
        ) from None
    start = octets - files - romfs
    rows = (
        partitions.Partition("firmware", 0, 0, 0, start),
        partitions.Partition("romfs", 1, 0, start, romfs),
        partitions.Partition("vfs", 1, 0, start + romfs, files),
    )
    if start <= 0 or any(row.size % partitions.SECTOR for row in rows):
        raise BadInputError(
            f"{header}: {files} octets of files and {romfs} of ROMFS in a flash of {octets};"
            f" allowed are multiples of {partitions.SECTOR} that leave room for MicroPython"
        )
    return octets, partitions.Table(header.name, rows)
