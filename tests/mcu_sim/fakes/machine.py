"""The module `machine` of a simulated board: SPI and pins lead to a simulated W5500.

MCU_SIM_SPI is the socket of tests/w5500_sim/bridge.py, MCU_SIM_PINS which GPIO is which of its
pins, such as "S=5 P=27 I=34" (CSn, RSTn, INTn).
"""

import os
import struct

import bus
import usocket

_stream = None


def _chip():
    global _stream
    if _stream is None:
        _stream = usocket.socket(1, usocket.SOCK_STREAM)
        _stream.connect(struct.pack("H", 1) + os.getenv("MCU_SIM_SPI").encode() + b"\0")
    return _stream


def _words():
    return {int(text[2:]): text[:1].encode() for text in os.getenv("MCU_SIM_PINS").split()}


class Pin:
    """A GPIO; one of no chip keeps its level."""

    IN = 0
    OUT = 1

    def __init__(self, number, mode=IN):
        self.number = number
        word = _words().get(number)
        self._wire = bus.Pin(_chip(), word) if word else None
        self._level = 0

    def value(self, level=None):
        if self._wire:
            return self._wire.value(level)
        if level is None:
            return self._level
        self._level = level
        return None

    __call__ = value


class SPI(bus.Spi):
    """The bus. Wrong pins and modes are refused, as nothing would answer."""

    def __init__(self, ident, baudrate=1000000, *, polarity=0, phase=0, sck, mosi, miso):
        if (polarity, phase) not in ((0, 0), (1, 1)) or baudrate > 33000000:
            raise ValueError("not a mode or a speed of the chip")
        if not all(isinstance(pin, Pin) for pin in (sck, mosi, miso)):
            raise TypeError("pins")
        super().__init__(_chip())


def unique_id():
    """6 octets on the chips that have W5500 boards with us."""
    return b"\x10\x20\x30\x40\x50\x60"


class WDT:
    """A watchdog that is never fed in time to matter here."""

    def __init__(self, ident=0, timeout=5000):
        self.timeout = timeout

    def feed(self):
        """Nothing is counted."""


def reset():
    """End the board; the test starts it again."""
    raise SystemExit(0)
