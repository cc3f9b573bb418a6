"""What one site's box gets: the parts of its flash, keys included."""

import json

from haaro_host.flash import build, filesystem, partitions
from haaro_host.flash.boards import Board
from haaro_host.flash.burn import Part
from haaro_host.flash.errors import BadInputError
from haaro_host.fleet import export
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.keys import Keys

_PLANES = ("auto", "userspace")
# What a new box must not have from an earlier life: chosen slot, settings, calibration.
_BLANK = ("nvs", "otadata")


def site_files(fleet: Fleet, keys: Keys, site: Site) -> dict[str, bytes]:
    """Return router.json and its secrets by name, for a box that has only the userspace plane.

    Raises FleetError.
    """
    files = {name: data for name, data, _ in export.router_files(fleet, keys, site)}
    document = json.loads(files[export.ROUTER])
    wanted = document.get("dataplane", "auto")
    if wanted not in _PLANES:
        raise BadInputError(
            f"site.{site.name}.router.dataplane is {wanted!r}; board {site.board} has only"
            ' "userspace"'
        )
    document["dataplane"] = "userspace"
    files[export.ROUTER] = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()
    return files


def parts(
    board: Board, tree: dict[str, bytes], micropython: list[tuple[int, bytes]],
    files: dict[str, bytes],
) -> tuple[list[Part], list[Part]]:  # fmt: skip
    """Return (what is written, what is compared afterwards).

    The filesystem is written where it is not blank, and compared as a whole. Raises BadInputError.
    """
    place = board.table.find(build.PARTITION)
    what = f"partition {build.PARTITION} of {board.table.name}"
    image = filesystem.image({**tree, **files}, place.size, what)
    write = [
        *(Part("MicroPython", offset, data) for offset, data in micropython),
        Part("partition table", partitions.TABLE_OFFSET, board.table.binary()),
    ]
    blank = [
        Part(row.label, row.offset, b"\xff" * row.size)
        for row in board.table.rows
        if row.label in _BLANK
    ]
    compare = [*write, *blank, Part("filesystem", place.offset, image)]
    write += [
        Part("filesystem", place.offset + offset, data) for offset, data in filesystem.runs(image)
    ]
    return sorted(write, key=lambda part: part.offset), compare
