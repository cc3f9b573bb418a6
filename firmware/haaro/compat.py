"""The only place that papers over CPython and MicroPython differences; imported by every layer."""

import struct
import sys

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        """Return `value`: MicroPython folds `_NAME = const(n)` away at compile time."""
        return value


def unix_address(path: str) -> object:
    """Return `path` as the address that this runtime's AF_UNIX sockets take."""
    if sys.implementation.name == "micropython":
        return struct.pack("H", 1) + path.encode() + b"\0"
    return path
