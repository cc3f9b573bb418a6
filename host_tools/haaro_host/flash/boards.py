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


@dataclass(frozen=True)
class Chip:
    """What differs between chips. `image_id` is the chip's number in image headers (esp-idf)."""

    name: str
    image_id: int
    bootloader_offset: int
    arch: str  # of mpy-cross


CHIPS = {
    "esp32": Chip("ESP32", 0, 0x1000, "xtensawin"),
    "esp32s3": Chip("ESP32-S3", 9, 0x0, "xtensawin"),
}


@dataclass(frozen=True)
class Board:
    """A board that is flashed with esptool."""

    name: str
    mcu: str
    product: str
    flash_octets: int
    table: partitions.Table
    psram: bool = False

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
    psram = "External RAM" in document["features"]
    return Board(name, document["mcu"], document["product"], octets, table, psram)
