"""The user's MicroPython binary: what is in it, whether it is for this board, where it comes from.

The file that MicroPython's download page offers begins at the chip's bootloader and holds that, a
partition table of its own and the application. The table is replaced by the board's; the
application must begin where the board's first slot does, and fit into it.
"""

import hashlib
import os
import re
import struct
import urllib.error
import urllib.request
from pathlib import Path

from haaro_host.flash import partitions
from haaro_host.flash.boards import CHIPS, Board
from haaro_host.flash.errors import BadInputError, FlashError
from haaro_host.fleet.files import PUBLIC, write_whole

_IMAGE_MAGIC = 0xE9
_HEADER = struct.Struct("<BBBBI4xH")  # esp_image_header_t up to chip_id
_SLOT = "ota_0"
_MAX_OCTETS = 32 << 20
_TIMEOUT_S = 30


def split(board: Board, data: bytes, name: str) -> list[tuple[int, bytes]]:
    """Return [(flash offset, octets)] of bootloader and application in the binary called `name`.

    Raises BadInputError when it is for another chip, is no whole image, or does not fit.
    """
    start = board.chip.bootloader_offset
    _check_image(board, data, name, "the file")
    theirs = partitions.read_binary(name, data[partitions.TABLE_OFFSET - start :])
    booted = min((row for row in theirs if row.type == 0), key=lambda r: r.offset, default=None)
    slot = board.table.find(_SLOT)
    if booted is None or booted.offset != slot.offset:
        at = f"{booted.offset:#x}" if booted else "nowhere"
        raise BadInputError(
            f"{name}: its application begins at {at}, {_SLOT} of {board.table.name} at"
            f" {slot.offset:#x}; take MicroPython's binary for a board like {board.product}"
        )
    application = data[slot.offset - start :]
    # A whole image may have more behind it: romfs, a filesystem. It has no place in this table.
    application = application[: booted.size].rstrip(b"\xff")
    application += b"\xff" * (-len(application) % 16)
    _check_image(board, application, name, "its application")
    board.table.check_fits(_SLOT, len(application), f"the application in {name}")
    bootloader = data[: partitions.TABLE_OFFSET - start].rstrip(b"\xff")
    bootloader += b"\xff" * (-len(bootloader) % 16)
    return [(start, bootloader), (slot.offset, application)]


def _check_image(board: Board, data: bytes, name: str, what: str) -> None:
    if len(data) < _HEADER.size or data[0] != _IMAGE_MAGIC:
        raise BadInputError(
            f"{name}: {what} does not begin like an ESP image (E9); take the .bin that is flashed"
            f" at {board.chip.bootloader_offset:#x}, no .app-bin, .uf2 or .elf"
        )
    chip_id = _HEADER.unpack_from(data)[5]
    if chip_id != board.chip.image_id:
        known = {chip.image_id: chip.name for chip in CHIPS.values()}
        made_for = known.get(chip_id, f"chip number {chip_id}")
        raise BadInputError(
            f"{name}: {what} is for {made_for}, board {board.name} has an {board.chip.name}"
        )


# --- where it comes from -------------------------------------------------------------------------


def obtain(file: Path | None, url: str, sha256: str) -> tuple[str, bytes]:
    """Return (name, octets) of the binary: `file`, or what is at `url` and has that SHA-256.

    What was fetched is kept in the user's cache under its hash, and not fetched again. Raises
    BadInputError, or FlashError when it cannot be fetched.
    """
    if file is not None:
        try:
            data = file.read_bytes()
        except OSError as error:
            raise BadInputError(f"{file}: {error.strerror}; name MicroPython's .bin") from None
        if sha256:
            _check_hash(data, sha256, str(file))
        return file.name, data
    if not url or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadInputError(
            "which MicroPython? Give --micropython FILE, or --micropython-url URL together with"
            " --micropython-sha256 (64 digits of 0-9 a-f)"
        )
    name = url.rpartition("/")[2] or "micropython.bin"
    kept = _cache() / sha256
    if kept.exists():
        data = kept.read_bytes()
        if hashlib.sha256(data).hexdigest() == sha256:
            return name, data
    data = _fetch(url)
    _check_hash(data, sha256, url)
    write_whole(kept, data, PUBLIC)
    return name, data


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "haaro" / "micropython"


def _check_hash(data: bytes, expected: str, name: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise BadInputError(f"{name}: SHA-256 {found}, expected {expected}; it is not used")


def _fetch(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise BadInputError(f"{url!r}: allowed are https:// and http://; for a file --micropython")
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:
            data: bytes = answer.read(_MAX_OCTETS + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise FlashError(
            f"{url}: {error}; try again, or fetch it elsewhere and give --micropython FILE"
        ) from None
    if len(data) > _MAX_OCTETS:
        raise BadInputError(f"{url}: more than {_MAX_OCTETS} octets; that is no firmware")
    return data
