"""A ROMFS image (MicroPython's docs, "ROMFS"): files that MicroPython reads and runs in place.

The records are written by mpremote's own writer, which `mpremote romfs build` uses too.
"""

from collections.abc import Mapping
from typing import Any

from mpremote.romfs import VfsRomWriter


def image(files: Mapping[str, bytes]) -> bytes:
    """Return an image that holds `files` ("haaro/x.mpy": octets). Same in, same out."""
    tree: dict[str, Any] = {}
    for name, data in files.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = data
    writer = VfsRomWriter()
    _add(writer, tree)
    made: bytes = bytes(writer.finalise())
    return made


def _add(writer: VfsRomWriter, tree: dict[str, Any]) -> None:
    for name in sorted(tree):
        if isinstance(tree[name], bytes):
            writer.mkfile(name, tree[name])
        else:
            writer.opendir(name)
            _add(writer, tree[name])
            writer.closedir()
