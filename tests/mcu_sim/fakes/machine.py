"""The module `machine` of a simulated board: SPI and pins lead to a simulated W5500.

MCU_SIM_SPI is the socket of tests/w5500_sim/bridge.py, MCU_SIM_PINS which GPIO is which of its
pins, such as "S=5 P=27 I=34" (CSn, RSTn, INTn). MCU_SIM_UART is a tty that the UART is, and
MCU_SIM_LINES which GPIO's level is written to which file: "25=/somewhere/power_key".
"""

import os
import select
import struct
import time

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
        self._file = None
        for text in (os.getenv("MCU_SIM_LINES") or "").split():
            if text.split("=")[0] == str(number):
                self._file = text.split("=")[1]
        self._level = 0

    def value(self, level=None):
        if self._wire:
            return self._wire.value(level)
        if level is None:
            return self._level
        self._level = level
        if self._file:
            with open(self._file, "w") as file:
                file.write(str(level))
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


class UART:
    """A UART as esp32's and rp2's, of the documentation of machine.UART.

    The line takes 10 bits an octet at the speed that was set; a write of more than the buffer has
    room for waits, which is what a router must not do: an error here.
    """

    RTS = 1
    CTS = 2

    def __init__(self, ident, baudrate=9600, *, tx, rx, txbuf=256, rxbuf=256, timeout=0):
        if ident not in (1, 2) or timeout:
            raise ValueError("no such UART")
        if not all(isinstance(pin, Pin) for pin in (tx, rx)):
            raise TypeError("pins")
        import termios

        self._tty = open(os.getenv("MCU_SIM_UART"), "r+b")  # noqa: SIM115
        number = self._tty.fileno()
        termios.setraw(number)
        mode = termios.tcgetattr(number)
        mode[6] = [0 if value == 1 else value for value in mode[6]]  # VMIN
        termios.tcsetattr(number, termios.TCSANOW, mode)
        self._poll = select.poll()
        self._poll.register(self._tty, 1)
        self._us = 10000000 // baudrate
        self._room = txbuf
        self._done_at = time.ticks_us()

    def _left(self):
        return max(0, time.ticks_diff(self._done_at, time.ticks_us()))

    def any(self):
        for _, event in self._poll.ipoll(0):
            return event & 1
        return 0

    def readinto(self, buffer):
        return self._tty.readinto(buffer) or None

    def txdone(self):
        return not self._left()

    def write(self, octets):
        if len(octets) + self._left() // self._us > self._room:
            raise RuntimeError("the router would wait for the line")
        self._done_at = time.ticks_add(time.ticks_us(), self._left() + len(octets) * self._us)
        return self._tty.write(octets)


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
