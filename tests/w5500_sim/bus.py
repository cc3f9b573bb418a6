"""SPI bus and pins of a simulated W5500, as objects of the module `machine`.

Runs in MicroPython, on the other side of bridge.py. Nothing here knows a register.
"""

import socket
import struct

from haaro.compat import unix_address


def connect(path):
    """Return a stream to the bridge's socket at `path`."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.connect(unix_address(path))
    return made


class Spi:
    """machine.SPI."""

    def __init__(self, stream):
        self._stream = stream

    def write(self, buffer):
        """MOSI."""
        self._stream.write(b"W" + struct.pack(">H", len(buffer)))
        self._stream.write(buffer)

    def readinto(self, buffer, write=0):
        """MISO."""
        self._stream.write(b"R" + struct.pack(">H", len(buffer)))
        _fill(self._stream, buffer)

    def write_readinto(self, out, into):
        """Both."""
        self._stream.write(b"X" + struct.pack(">H", len(out)))
        self._stream.write(out)
        _fill(self._stream, into)


class Pin:
    """machine.Pin: CSn ("S"), RSTn ("P") or INTn ("I")."""

    def __init__(self, stream, word):
        self._stream = stream
        self._word = word
        self._level = bytearray(1)

    def value(self, level=None):
        """Set the pin, or without a level read it."""
        if level is not None:
            self._stream.write(self._word + bytes((1 if level else 0,)))
            return None
        self._stream.write(self._word)
        _fill(self._stream, self._level)
        return self._level[0]

    __call__ = value


def _fill(stream, buffer):
    view = memoryview(buffer)
    at = 0
    while at < len(buffer):
        at += stream.readinto(view[at:])
