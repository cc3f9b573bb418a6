"""`make image BOARD=... MICROPYTHON_BIN=...`: one file with MicroPython and haaro.

Written to build/firmware/BOARD/BOARD.bin, by esptool, to be flashed at offset 0; for a boot ROM's
drive to BOARD.uf2. It has no site's keys.
Exit status: 0 done, 1 esptool failed, 2 something is wrong with board or binary.
"""

import contextlib
import io
import sys
from pathlib import Path

from haaro_host.flash import boards, build, micropython, partitions, rp2
from haaro_host.flash.boards import Board
from haaro_host.flash.errors import BadInputError, FlashError
from haaro_host.fleet.files import PUBLIC, FleetError, write_whole


def merged(board: Board, binary: Path, folder: Path) -> bytes:
    """Return the file: MicroPython of `binary`, and the build in `folder`. Raises FleetError."""
    from esptool import FatalError
    from esptool.cmds import merge_bin

    name, data = micropython.obtain(binary, "", "")
    build.load(board, folder)
    place = board.table.find(build.PARTITION)
    if board.chip.uf2_family:
        image = (folder / build.IMAGE).read_bytes()
        return rp2.file(rp2.read(board, data, name), (place.offset, image))
    parts = [
        *micropython.split(board, data, name),
        (partitions.TABLE_OFFSET, (folder / build.TABLE).read_bytes()),
        (place.offset, (folder / build.IMAGE).read_bytes()),
    ]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            whole: bytes = merge_bin(
                sorted(parts), board.mcu, flash_size=f"{board.flash_octets >> 20}MB"
            )
    except FatalError as error:
        raise FlashError(f"esptool does not merge {name}: {error}") from None
    return whole


def main(arguments: list[str]) -> int:
    """Merge for the board and binary named in `arguments`; a third word is the build's folder."""
    try:
        if len(arguments) not in (2, 3) or not all(arguments[:2]):
            raise BadInputError(
                "name both: make image BOARD=ESP32_S3_W5500 MICROPYTHON_BIN=firmware.bin"
            )
        board = boards.load(arguments[0])
        folder = Path(arguments[2]) if arguments[2:] else build.default_folder(board.name)
        whole = merged(board, Path(arguments[1]), folder)
        ending = "uf2" if board.chip.uf2_family else "bin"
        target = folder / f"{board.name}.{ending}"
        write_whole(target, whole, PUBLIC)
    except FleetError as error:
        print(f"A fatal error occurred: {error}", file=sys.stderr)
        return error.code
    print(f"{target}: {len(whole)} octets, sha256 {build.described(whole)['sha256']}")
    if board.chip.uf2_family:
        print(
            "copy it to the drive that the board shows while BOOTSEL is held and it is plugged in"
        )
    else:
        print(f"flash it: esptool --chip {board.mcu} write-flash 0 {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
