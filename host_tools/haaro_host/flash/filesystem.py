"""A littlefs image such as MicroPython formats and mounts it.

The parameters are those of MicroPython's extmod/vfs_lfs (readsize, progsize and lookahead 32, cache
four times the larger one, 100 block cycles) over blocks of 4096; rp2 has a progsize of 256. A test
compares with what a MicroPython formats itself.
"""

from collections.abc import Iterator, Mapping

import littlefs

from haaro_host.flash.errors import BadInputError

BLOCK = 4096
_UNIT = 32
_CYCLES = 100


def image(files: Mapping[str, bytes], octets: int, what: str, unit: int = _UNIT) -> bytes:
    """Return an image of `octets` that holds `files` ("lib/x.mpy": octets). Same in, same out.

    unit: progsize, octets. Raises BadInputError when they do not fit; `what` names the partition
    in the message.
    """
    made = littlefs.LittleFS(
        block_size=BLOCK, block_count=octets // BLOCK, read_size=_UNIT, prog_size=unit,
        cache_size=4 * unit, lookahead_size=_UNIT, block_cycles=_CYCLES,
    )  # fmt: skip
    folders: set[str] = set()
    for name in sorted(files):
        parts = name.split("/")
        try:
            for depth in range(1, len(parts)):
                parent = "/".join(parts[:depth])
                if parent not in folders:
                    made.mkdir(parent)
                    folders.add(parent)
            with made.open(name, "wb") as sink:
                sink.write(files[name])
        except littlefs.LittleFSError as error:
            if error.code != littlefs.LittleFSError.Error.LFS_ERR_NOSPC:
                raise
            total = sum(map(len, files.values()))
            raise BadInputError(
                f"{len(files)} files of {total} octets do not fit into {what} of {octets} octets;"
                f" the first that found no room is {name}"
            ) from None
    return bytes(made.context.buffer)


def runs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, octets) of the stretches of `data` that are not erased flash, by blocks."""
    blank = b"\xff" * BLOCK
    start = None
    for offset in range(0, len(data) + BLOCK, BLOCK):
        used = offset < len(data) and data[offset : offset + BLOCK] != blank
        if used and start is None:
            start = offset
        elif not used and start is not None:
            yield start, data[start:offset]
            start = None
