"""Partition tables of ESP-IDF: CSV, the binary form, and whether something fits.

Binary form (ESP-IDF, "Partition Tables"): entries of 32 octets, then an MD5 entry, 0xFF to 0xC00.

    0      2    3       4       8      12           28     32
    | AA 50|type|subtype| offset| size | label, NULs | flags |
    | EB EB| 14 x FF            | MD5 of all entries before |
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from haaro_host.flash.errors import BadInputError

TABLE_OFFSET = 0x8000
TABLE_SIZE = 0x1000  # the sector that is the table's
SECTOR = 0x1000
_BINARY_SIZE = 0xC00
_MAX_ENTRIES = 95
_MAGIC = b"\xaa\x50"
_MD5_MAGIC = b"\xeb\xeb" + b"\xff" * 14
_ENTRY = struct.Struct("<2sBBII16sI")
_APP, _DATA = 0x00, 0x01
_APP_ALIGNMENT = 0x10000
_LABEL_OCTETS = 15  # and a NUL
_TYPES = {"app": _APP, "data": _DATA}
_SUBTYPES: dict[int, dict[str, int]] = {
    _APP: {"factory": 0x00, "test": 0x20, **{f"ota_{i}": 0x10 + i for i in range(16)}},
    _DATA: {
        "ota": 0x00, "phy": 0x01, "nvs": 0x02, "coredump": 0x03, "nvs_keys": 0x04, "efuse": 0x05,
        "undefined": 0x06, "fat": 0x81, "spiffs": 0x82, "littlefs": 0x83,
    },
}  # fmt: skip
_FLAGS = {"": 0, "encrypted": 1, "readonly": 2}


@dataclass(frozen=True)
class Partition:
    """One row; offset and size in octets."""

    label: str
    type: int
    subtype: int
    offset: int
    size: int
    flags: int = 0

    @property
    def end(self) -> int:
        """The first octet behind it."""
        return self.offset + self.size


@dataclass(frozen=True)
class Table:
    """A checked table, in the order of the offsets. `name` is the file, for messages."""

    name: str
    rows: tuple[Partition, ...]

    def find(self, label: str) -> Partition:
        """Return the partition called `label`; raise BadInputError that names those there are."""
        for row in self.rows:
            if row.label == label:
                return row
        known = ", ".join(row.label for row in self.rows)
        raise BadInputError(f"{self.name}: no partition {label!r}; it has {known}")

    def check_fits(self, label: str, octets: int, what: str) -> None:
        """Raise BadInputError when `octets` of `what` are more than partition `label` has."""
        room = self.find(label).size
        if octets > room:
            raise BadInputError(
                f"{what} has {octets} octets, partition {label} of {self.name} has {room}"
                f" ({octets - room} too few); make it smaller, or give {label} more room there"
            )

    def binary(self) -> bytes:
        """Return the table as it stands in flash, 0xC00 octets."""
        entries = b"".join(
            _ENTRY.pack(
                _MAGIC, row.type, row.subtype, row.offset, row.size, row.label.encode(), row.flags
            )
            for row in self.rows
        )
        digest = hashlib.md5(entries, usedforsecurity=False).digest()
        return (entries + _MD5_MAGIC + digest).ljust(_BINARY_SIZE, b"\xff")


def read_csv(path: Path, flash_octets: int) -> Table:
    """Return the table in the CSV at `path`, judged for a flash of `flash_octets`."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: cannot be read ({error}); it is the board's table") from None
    rows: list[Partition] = []
    position = TABLE_OFFSET + TABLE_SIZE
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            row = _row(
                f"{path.name}:{number}", [cell.strip() for cell in line.split(",")], position
            )
            rows.append(row)
            position = row.end
    return judged(path.name, rows, flash_octets)


def read_binary(name: str, data: bytes) -> list[Partition]:
    """Return the rows of a binary table, unjudged. Raises BadInputError for what is none."""
    rows: list[Partition] = []
    for offset in range(0, min(len(data), _BINARY_SIZE) - _ENTRY.size + 1, _ENTRY.size):
        entry = data[offset : offset + _ENTRY.size]
        if entry == b"\xff" * _ENTRY.size and rows:
            return rows
        if entry.startswith(_MD5_MAGIC):
            if hashlib.md5(data[:offset], usedforsecurity=False).digest() != entry[16:]:
                raise BadInputError(f"{name}: the partition table's MD5 is wrong; get it anew")
            return rows
        magic, type_, subtype, start, size, label, flags = _ENTRY.unpack(entry)
        if magic != _MAGIC:
            break
        text = label.partition(b"\0")[0].decode("ascii", "replace")
        rows.append(Partition(text, type_, subtype, start, size, flags))
    raise BadInputError(f"{name}: no partition table at {TABLE_OFFSET:#x}; is it for this chip?")


def judged(name: str, rows: Iterable[Partition], flash_octets: int) -> Table:
    """Return the table of `rows`, or raise BadInputError with the first fault."""
    table = Table(name, tuple(sorted(rows, key=lambda row: row.offset)))
    if not table.rows or len(table.rows) > _MAX_ENTRIES:
        raise BadInputError(
            f"{name}: {len(table.rows)} partitions; 1 to {_MAX_ENTRIES} are allowed"
        )
    before = Partition("partition table", _DATA, 0, TABLE_OFFSET, TABLE_SIZE)
    labels: set[str] = set()
    for row in table.rows:
        alignment = _APP_ALIGNMENT if row.type == _APP else SECTOR
        if row.offset % alignment or row.size % SECTOR or not row.size:
            raise BadInputError(
                f"{name}: {row.label}: offset {row.offset:#x}, size {row.size:#x}; allowed are"
                f" multiples of {alignment:#x} and {SECTOR:#x}"
            )
        if row.offset < before.end:
            raise BadInputError(
                f"{name}: {row.label} begins at {row.offset:#x}, inside {before.label}, which ends"
                f" at {before.end:#x}; move one of them"
            )
        if row.label in labels:
            raise BadInputError(f"{name}: two partitions are called {row.label}; rename one")
        labels.add(row.label)
        before = row
    if before.end > flash_octets:
        raise BadInputError(
            f"{name}: {before.label} ends at {before.end:#x}, the flash at {flash_octets:#x};"
            " make it smaller"
        )
    return table


def _row(where: str, cells: list[str], position: int) -> Partition:
    if len(cells) not in (5, 6, 7):
        raise BadInputError(
            f"{where}: {len(cells)} cells; name, type, subtype, offset, size, flags"
        )
    label, type_text, subtype_text, offset, size, *rest = cells
    if not label.isascii() or not 0 < len(label) <= _LABEL_OCTETS:
        raise BadInputError(
            f"{where}: name {label!r}; allowed are 1 to {_LABEL_OCTETS} ASCII signs"
        )
    type_ = _word(where, "type", type_text, _TYPES)
    subtype = _word(where, "subtype", subtype_text, _SUBTYPES.get(type_, {}))
    if not offset:
        alignment = _APP_ALIGNMENT if type_ == _APP else SECTOR
        start = -(-position // alignment) * alignment
    else:
        start = _number(where, "offset", offset)
    flags = _word(where, "flags", rest[0] if rest else "", _FLAGS)
    return Partition(label, type_, subtype, start, _number(where, "size", size), flags)


def _word(where: str, key: str, text: str, known: dict[str, int]) -> int:
    if text in known:
        return known[text]
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFE:
        words = ", ".join(word for word in known if word)
        raise BadInputError(f"{where}: {key} {text!r}; allowed are {words} or a number up to 0xFE")
    return value


def _number(where: str, key: str, text: str) -> int:
    factor = {"K": 1024, "M": 1024 * 1024}.get(text[-1:].upper(), 1)
    try:
        value = int(text[:-1] if factor > 1 else text, 0) * factor
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFFFFFFFF:
        raise BadInputError(f"{where}: {key} {text!r}; allowed is a number such as 0x9000, 24K, 1M")
    return value
