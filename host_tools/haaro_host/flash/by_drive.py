"""A box whose chip shows a drive while its boot button is held: one UF2 file is copied there.

The drive cannot be read back and says nothing about whose box it is. So what is checked, is checked
afterwards, at the box's console, if its port is known: unique id, fingerprints of the site's files.
"""

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from haaro_host.flash import boards, build, filesystem, rp2
from haaro_host.flash import site as contents
from haaro_host.flash.boards import Board
from haaro_host.flash.burn import Owner, Progress
from haaro_host.flash.errors import FlashError
from haaro_host.fleet.files import PRIVATE, FleetError
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.keys import Keys
from haaro_host.provision import by_console
from haaro_host.provision.line import Line

INFO = "INFO_UF2.TXT"
_FILE = "HAARO.UF2"
# Where desktops and people mount drives.
_PLACES = ("/media/*", "/media/*/*", "/run/media/*/*", "/mnt/*", "/Volumes/*")
_PIECE = 1 << 16
_TAKEN_S = 60.0  # until the drive goes: the last sectors are erased and written then
_ANSWER_S = 60.0  # until the console answers
_STEP_S = 0.1
_HOLD = "hold the box's BOOTSEL button while you plug its USB cable in"


@dataclass(frozen=True)
class Parts:
    """What one box gets: `data` is the UF2 file, `rows` say what is in it."""

    board: Board
    data: bytes
    rows: list[tuple[str, int, int]]  # name, offset, octets
    files: dict[str, bytes]
    password: str
    notes: list[str]


def wanted(site: Site) -> bool:
    """Return whether the box of `site` is flashed this way."""
    return boards.flashable(site.board) and bool(boards.load(site.board).chip.uf2_family)


def parts(
    fleet: Fleet, keys: Keys, site: Site, firmware: Path | None, binary: tuple[str, bytes]
) -> Parts:
    """Return what the box of `site` gets with MicroPython `binary` (name, octets).

    Raises FleetError when something of it is missing, or does not fit.
    """
    board = boards.load(site.board)
    _, tree = build.load(board, firmware or build.default_folder(board.name))
    program = rp2.read(board, binary[1], binary[0])
    place = board.table.find(build.PARTITION)
    files = contents.site_files(fleet, keys, site)
    what = f"partition {build.PARTITION} of {board.table.name}"
    image = filesystem.image({**tree, **files}, place.size, what, board.chip.unit)
    rows = [("MicroPython", offset, len(data)) for offset, data in program.runs]
    rows.append(("filesystem", place.offset, len(image)))
    known = keys.console(site)
    return Parts(
        board, rp2.file(program, (place.offset, image)), rows, files,
        known[0] if known else "", program.notes,
    )  # fmt: skip


def find(board: Board, given: Path | None) -> Path:
    """Return the drive of a boot ROM of the board's chip: `given`, else the only one mounted.

    Raises FlashError.
    """
    if given is not None:
        if not (given / INFO).is_file():
            raise FlashError(f"{given}: no {INFO}, so no drive of a boot ROM; {_HOLD}")
        found = [given]
    else:
        found = [p for place in _PLACES for p in Path("/").glob(place[1:]) if _is_drive(p)]
    if not found:
        raise FlashError(
            f"no drive of an {board.chip.name} is mounted: {_HOLD}, mount the drive if your system"
            " does not do that by itself, or name it with --drive DIR"
        )
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise FlashError(f"{len(found)} drives of boot ROMs: {names}; name one with --drive DIR")
    text = (found[0] / INFO).read_text(errors="replace")
    said = re.search(r"^Board-ID: *(\S+)", text, re.M)
    if not said or said[1] != board.chip.drive_id:
        raise FlashError(
            f"{found[0]}: is the drive of {said[1] if said else 'another chip'}, board"
            f" {board.name} has an {board.chip.name}; nothing was written; take the right box"
        )
    return found[0]


def _is_drive(path: Path) -> bool:
    try:
        return (path / INFO).is_file()
    except OSError:  # of somebody else
        return False


def send(drive: Path, data: bytes, progress: Progress) -> str:
    """Copy `data` to the drive and wait until it goes, as it does when the chip has all of it.

    Return "" or a doubt: a chip that restarts and a cable that is pulled may look the same from
    here. Raises FlashError when the drive stays, or goes before all was handed over.
    """
    done = 0
    doubt = ""
    try:
        handle = os.open(drive / _FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
        with os.fdopen(handle, "wb", buffering=0) as sink:
            while done < len(data):
                done += sink.write(data[done : done + _PIECE])
                progress("Writing", done, len(data))
            os.fsync(sink.fileno())
    except OSError as error:
        if done < len(data):
            raise FlashError(
                f"{drive}: {error.strerror} after {done} of {len(data)} octets; the box does not"
                f" start now; {_HOLD}, and give the same command again"
            ) from None
        doubt = f"{drive}: {error.strerror} while the last octets were written"
    give_up = time.monotonic() + _TAKEN_S
    while _is_drive(drive):
        if time.monotonic() > give_up:
            with suppress(OSError):  # nobody's drive: the file has a site's keys
                (drive / _FILE).unlink()
            raise FlashError(
                f"{drive}: the chip has not taken all of it and stays in its boot ROM; pull the"
                f" cable; {_HOLD}, and give the same command again"
            )
        time.sleep(_STEP_S)
    return doubt


def check(port: str, made: Parts, owner: Owner) -> str:
    """Return the unique id of the box at `port`, which must be the owner's and have our files.

    Raises FleetError.
    """
    console = _answering(port, made.password)
    try:
        found = console.identity().unique_id
        if found in owner.others or owner.unique_id not in ("", found):
            whose = owner.others.get(found, "")
            raise FlashError(
                f"{port}: the box {found} is {f'that of site {whose}' if whose else 'another one'}"
                " and has the files of this site now: flash it as its own site, and take the"
                " right box"
            )
        wrong = by_console.differing(
            console, [(name, data, PRIVATE) for name, data in made.files.items()]
        )
    finally:
        with suppress(FleetError):
            console.close()
    if wrong:
        names = ", ".join(name for name, *_ in wrong)
        raise FlashError(
            f"{port}: the box does not have {names} as they were written; {_HOLD}, and give the"
            " same command again; if it says so once more, replace the box"
        )
    return found


def _answering(port: str, password: str) -> by_console.BoxConsole:
    give_up = time.monotonic() + _ANSWER_S
    while True:
        try:
            console = by_console.BoxConsole(Line(port), password)
            try:
                console.status()
                return console
            except FleetError:
                console.line.close()
                raise
        except FleetError as error:
            if time.monotonic() > give_up:
                raise FlashError(
                    f"the box is written, but its console does not answer: {error}; press its"
                    " RESET button, look at what it prints, or name its right --port"
                ) from None
        time.sleep(_STEP_S)
