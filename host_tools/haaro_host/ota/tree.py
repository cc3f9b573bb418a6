"""The program of a board as a slot holds it, and the tree of a box that is born with slot A."""

from collections.abc import Mapping
from importlib.metadata import version as package_version
from pathlib import Path

from haaro_host.flash import boards
from haaro_host.flash.errors import BadInputError
from haaro_host.lab import system
from haaro_host.ota import bundle

_FIRST = "slots/a/"
SOURCES = "none"
# main.py there is the boot part; these are what it starts.
_NAMES = {"main.py": "haaro_router", "device_main.py": "haaro_device"}


def version(release: int) -> str:
    """Return the version of a program of this checkout."""
    return f"{package_version('haaro')}-r{release}"


def program(board: str) -> tuple[dict[str, bytes], str]:
    """Return (the files of a slot of `board`, its .mpy form: "6.3 xtensawin" or "none").

    A board without a board.json is a Linux box, which runs the sources. Raises FleetError.
    """
    if boards.flashable(board):
        from haaro_host.flash import build

        found = boards.load(board)
        if not found.two_slots:
            raise BadInputError(
                f"board {board} has no room for a second slot: haaro flash brings it new programs"
            )
        return build.firmware_files(found), f"{build.mpy_version()} {found.chip.arch}"
    if not (boards.folder() / board).is_dir():
        known = ", ".join(sorted(path.name for path in boards.folder().glob("*/"))) or "none"
        raise BadInputError(f"no board {board!r} in {boards.folder()}; there are {known}")
    return sources(), SOURCES


def sources() -> dict[str, bytes]:
    """Return a slot of a Linux box: sources, and the kernel plane's programs where they are."""
    root: Path = system.firmware().parent
    paths = sorted((root / "haaro").rglob("*.py"))
    paths += [root / "kernel_plane" / f"{order}.o" for order in ("big", "little")]
    files = {path.relative_to(root).as_posix(): path for path in paths if path.exists()}
    for source, name in _NAMES.items():
        files[f"{name}.py"] = root / source
    return {name: path.read_bytes() for name, path in files.items()}


def initial(files: Mapping[str, bytes], board: str, mpy: str, made: str) -> dict[str, bytes]:
    """Return the tree of a box whose slot A has `files`, with the boot part as main.py; `made` is
    the program's version.
    """
    entries = [bundle.entry(name, data, len(data)) for name, data in sorted(files.items())]
    manifest = bundle.head_of(entries, made, board, mpy, "stored")
    boot = (system.firmware().parent / "boot.py").read_bytes()
    tree = {f"{_FIRST}{name}": data for name, data in sorted(files.items())}
    # Last, as in a box: with it the slot is whole.
    return {**tree, f"{_FIRST}manifest": manifest, "main.py": boot}
