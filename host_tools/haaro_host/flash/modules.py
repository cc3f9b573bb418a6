"""Which files of the firmware a board's program is made of: what its first files import.

Followed are import statements wherever they stand in a file. A board without PSRAM, whose every
octet counts, is not followed into what it cannot have: Linux' sockets and links, the kernel plane,
OpenWrt's configuration, Wi-Fi without a radio, updates without room for a second slot. A board with
room takes all, so that the very image that is flashed runs on Linux too, where it is tested.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from haaro_host.flash.boards import Board

# The first files: both are started by name, the second by the first.
START = ("device_main.py", "main.py")
# eBPF is no board's; `dataplane` is "userspace" there.
KERNEL_PLANE = ("haaro/dataplane/kernel*", "haaro/platform/linux_bpf.py",
                "haaro/platform/linux_paths.py", "haaro/platform/linux_bystanders.py",
                "haaro/shell/uci.py")  # fmt: skip
# Reached only by way of Linux' sockets, raw, by packet and local.
LINUX = ("haaro/platform/linux*", "haaro/uplink/linux*", "haaro/lan/linux*",
         "haaro/dataplane/fast_path*", "haaro/dataplane/other_encapsulations.py",
         "haaro/shell/control.py")  # fmt: skip
WIFI = ("haaro/uplink/wlan.py", "haaro/shell/improv.py")
UPDATES = ("haaro/ota/*",)
# For ports without MD5 and SHA-1. esp32's mpconfigport.h has both; rp2 has MD5 since 1.27 only.
HASHES = ("haaro/wire/pure_hash.py",)


def left_out(board: Board) -> tuple[str, ...]:
    """Return the patterns of what is not followed for `board`."""
    if board.psram:
        return KERNEL_PLANE
    found = [*KERNEL_PLANE, *LINUX]
    if not board.wifi:
        found += WIFI
    if not board.two_slots:
        found += UPDATES
    if board.chip.hashes:
        found += HASHES
    return tuple(found)


def needed(root: Path, left_out: tuple[str, ...]) -> list[Path]:
    """Return the files that the START files in `root` (firmware/) import, themselves included.

    left_out: patterns of files that are not followed, relative to `root`.
    """
    dropped = {path for pattern in left_out for path in root.glob(pattern)}
    found: set[Path] = set()
    queue = [root / name for name in START]
    while queue:
        path = queue.pop()
        if path in found or path in dropped:
            continue
        found.add(path)
        for name in imported(path):
            parts = name.split(".")
            for length in range(1, len(parts) + 1):
                base = root.joinpath(*parts[:length])
                queue += [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()]
    return sorted(found)


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports; of `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
