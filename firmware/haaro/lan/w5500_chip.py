"""The WIZnet W5500 as an Ethernet interface: socket 0 in MACRAW mode, all 16 KB each way.

Owns the registers and the two rings; what is in a frame is lan/w5500.py's business. Raises OSError
only where `machine.SPI` does. Per frame it allocates nothing. Registers and SPI frame: datasheet
1.0.9, chapters 2 and 4. An access is 16 bits of address, one octet (block << 3 | write << 2), and
as many octets as go by until CS is high again.
"""

import time

from haaro.compat import const

# Control octet: block select << 3, mode "CS ends it" (datasheet 2.2.2).
_COMMON = const(0x00)
_SOCKET = const(0x08)
_TX = const(0x10)
_RX = const(0x18)
_WRITE = const(4)

_MR = const(0x0000)
_SHAR = const(0x0009)
_SIMR = const(0x0018)
_PHYCFGR = const(0x002E)
_VERSIONR = const(0x0039)
_RESET = const(0x80)
_VERSION = const(4)

_SN_MR = const(0x0000)
_SN_CR = const(0x0001)
_SN_IR = const(0x0002)
_SN_SR = const(0x0003)
_SN_RXBUF = const(0x001E)
_SN_TX_WR = const(0x0024)
_SN_RX_RSR = const(0x0026)
_SN_RX_RD = const(0x0028)
_SN_IMR = const(0x002C)
_OPEN = const(0x01)
_CLOSE = const(0x10)
_SEND = const(0x20)
_RECV = const(0x40)
_IR_RECV = const(0x04)
_IR_SENDOK = const(0x10)
_SR_MACRAW = const(0x42)
# MACRAW, only our address and broadcasts, no IPv6 (Sn_MR, table 4.2).
_MACRAW = const(0x04 | 0x80 | 0x10)

_BUFFER = const(16384)
# Buffers are read and written in steps, so that each length has a view that exists already.
_STEP = const(64)
# Room of a frame buffer: two octets of length and a tagged frame, in whole steps.
FRAME = const(1536)
# Length octets included: a frame without its checksum.
_SHORTEST = const(16)
_LONGEST = const(2 + 1518)
# RECV is told at the latest after so many octets: until then they are lost to the chip's ring.
_UNTOLD = const(4096)
# Looks at a register that changes within microseconds: a command's end, two equal readings.
_TRIES = const(20)
# How long a frame may wait for the one before: 1.2 ms at 10 Mbit/s, and a collision or two.
_SENDING_US = const(4000)
# RSTn low for 500 us; PLL and registers are ready 1 ms later, the PHY after 50 (datasheet 5.5.1).
_RESET_US = const(600)
READY_MS = const(60)
# A SEND without its SENDOK is given up by the next `check` after so long.
_STUCK_US = const(100000)

UP, NO_LINK, NO_CHIP, CLOSED = 0, 1, 2, 3


def _setter(pin):
    return pin.value if hasattr(pin, "value") else pin


class Chip:
    """One W5500. spi: as machine.SPI; cs, reset, interrupt: as machine.Pin (or callables).

    mac: 6 octets. `rx` and `tx` are frame buffers; the one received last lies in rx[2:]. It is not
    open at first: `reset`, READY_MS later `open`, then `check` at least once a second.
    """

    def __init__(self, spi, cs, mac: bytes, reset=None, interrupt=None) -> None:
        self._spi = spi
        self._select = _setter(cs)
        self._reset_pin = reset and _setter(reset)
        self._interrupt = interrupt and _setter(interrupt)
        self._mac = mac
        self._command = bytearray(3)
        self._one = bytearray(1)
        self._two = bytearray(2)
        self.rx = bytearray(FRAME)
        self.tx = bytearray(FRAME)
        rx, tx = memoryview(self.rx), memoryview(self.tx)
        self._head = rx[:_STEP]
        self._tails = [rx[_STEP : i * _STEP] for i in range(1, FRAME // _STEP + 1)]
        self._frames = [tx[: i * _STEP] for i in range(FRAME // _STEP + 1)]
        self._read_at = 0  # our RX_RD
        self._left = 0  # octets that are known to be there
        self._untold = 0  # octets that were read since the last RECV
        self._write_at = 0  # our TX_WR
        self._sending = False
        self._sent_at = 0
        self.state = CLOSED
        self.version_seen = 0
        self.frames_in = self.frames_out = 0
        self.full = self.busy = self.stuck = self.bad_lengths = 0
        self._select(1)

    # Registers.

    def _access(self, address, control):
        command = self._command
        command[0] = address >> 8
        command[1] = address & 255
        command[2] = control
        self._select(0)
        self._spi.write(command)

    def _get(self, address, block):
        self._access(address, block)
        self._spi.readinto(self._one)
        self._select(1)
        return self._one[0]

    def _put(self, address, block, value):
        self._one[0] = value
        self._access(address, block | _WRITE)
        self._spi.write(self._one)
        self._select(1)

    def _get2(self, address):
        self._access(address, _SOCKET)
        self._spi.readinto(self._two)
        self._select(1)
        return self._two[0] << 8 | self._two[1]

    def _put2(self, address, value):
        self._two[0] = value >> 8
        self._two[1] = value & 255
        self._access(address, _SOCKET | _WRITE)
        self._spi.write(self._two)
        self._select(1)

    def _order(self, command):
        """Give socket 0 a command; False if the chip does not take it."""
        self._put(_SN_CR, _SOCKET, command)
        tries = _TRIES
        while self._get(_SN_CR, _SOCKET):
            tries -= 1
            if not tries:
                return False
        return True

    # Opening.

    def reset(self) -> None:
        """Reset the chip, by its pin if that is connected."""
        self._select(1)
        if self._reset_pin:
            self._reset_pin(0)
            time.sleep_us(_RESET_US)  # type: ignore[attr-defined]
            self._reset_pin(1)
            time.sleep_us(1000)  # type: ignore[attr-defined]
        else:
            self._put(_MR, _COMMON, _RESET)
        self.state = CLOSED

    def version(self) -> int:
        """Return VERSIONR, 4 on every W5500: anything else means that SPI does not work."""
        self.version_seen = self._get(_VERSIONR, _COMMON)
        return self.version_seen

    def open(self) -> bool:
        """Open socket 0 as MACRAW with all memory, after `reset` or anything that went wrong."""
        self.state = CLOSED
        self._left = self._untold = 0
        self._sending = False
        if self.version() != _VERSION:
            self.state = NO_CHIP
            return False
        self._order(_CLOSE)
        self._access(_SHAR, _COMMON | _WRITE)
        self._spi.write(self._mac)
        self._select(1)
        for i in range(8):
            # RXBUF_SIZE and TXBUF_SIZE of socket i, in KB.
            self._two[0] = self._two[1] = 0 if i else 16
            self._access(_SN_RXBUF, i << 5 | _SOCKET | _WRITE)
            self._spi.write(self._two)
            self._select(1)
        self._put(_SN_MR, _SOCKET, _MACRAW)
        self._put(_SN_IR, _SOCKET, 0xFF)
        self._put(_SN_IMR, _SOCKET, _IR_RECV)
        self._put(_SIMR, _COMMON, 1)
        if not self._order(_OPEN) or self._get(_SN_SR, _SOCKET) != _SR_MACRAW:
            return False
        self._read_at = self._get2(_SN_RX_RD)
        self._write_at = self._get2(_SN_TX_WR)
        self.state = NO_LINK
        return True

    def fail(self) -> None:
        """What was read makes no sense: no frame goes by until `open`."""
        self._select(1)
        self._left = self._untold = 0
        self._sending = False
        if self.state != NO_CHIP:
            self.state = CLOSED

    def check(self) -> int:
        """Look after the chip: return UP, NO_LINK, NO_CHIP or CLOSED (`open` it then)."""
        if self.version() != _VERSION and self.version() != _VERSION:
            self.fail()
            self.state = NO_CHIP
        elif self.state == NO_CHIP or self._get(_SN_SR, _SOCKET) != _SR_MACRAW:
            # It has been away, or was reset by a dip of its supply.
            self.fail()
            self.state = CLOSED
        elif self.state != CLOSED:
            if not self._get(_PHYCFGR, _COMMON) & 1:
                self.state = NO_LINK
            elif self.state == NO_LINK and self.open():
                # A frame may have been cut when the link went.
                self.state = UP
            if self._sending and not self._sent(_STUCK_US):
                self.stuck += 1
                self.fail()
        return self.state

    # Frames in.

    def pending(self) -> bool:
        """Return whether there is a frame, or may be one."""
        if self.state != UP:
            return False
        if self._left:
            return True
        if not self._tell():
            return False
        if self._interrupt:
            return not self._interrupt()
        return self._waiting() > 0

    def receive(self) -> int:
        """Fetch the next frame into rx[2:]; return its octets, 0: there is none."""
        if self.state != UP:
            return 0
        left = self._left
        if not left:
            left = self._waiting() if self._tell() else 0
            if not left:
                return 0
        self._access(self._read_at, _RX)
        self._spi.readinto(self._head)
        length = self.rx[0] << 8 | self.rx[1]
        if length < _SHORTEST or length > _LONGEST or length > left:
            self.bad_lengths += 1
            self.fail()
            return 0
        if length > _STEP:
            self._spi.readinto(self._tails[(length - 1) // _STEP])
        self._select(1)
        self._read_at = (self._read_at + length) & 0xFFFF
        self._left = left - length
        self._untold += length
        if self._untold >= _UNTOLD:
            self._tell()
        self.frames_in += 1
        return length - 2

    def _waiting(self):
        """Return the octets in the receive ring: two equal readings (datasheet, Sn_RX_RSR)."""
        if self._interrupt:
            # First, so that what comes from here on pulls the line again.
            self._put(_SN_IR, _SOCKET, _IR_RECV)
        octets = -1
        for _ in range(_TRIES):
            again = self._get2(_SN_RX_RSR)
            if again == octets:
                break
            octets = again
        else:
            octets = _BUFFER + 1
        if octets > _BUFFER:
            self.bad_lengths += 1
            self.fail()
            return 0
        if octets > _BUFFER - _LONGEST:
            # The chip does not say what it dropped: that there was no room is all that is known.
            self.full += 1
        self._left = octets
        return octets

    def _tell(self):
        """Give the chip back what was read of its ring; False: it does not take it."""
        if self._untold:
            self._untold = 0
            self._put2(_SN_RX_RD, self._read_at)
            if not self._order(_RECV):
                self.fail()
                return False
        return True

    # Frames out.

    def send(self, octets: int) -> bool:
        """Send tx[:octets], padded to 60; False: not sent."""
        if self.state != UP:
            return False
        tx = self.tx
        while octets < 60:
            tx[octets] = 0
            octets += 1
        # The one before may still be leaving: there is room for both.
        self._access(self._write_at, _TX | _WRITE)
        self._spi.write(self._frames[(octets + _STEP - 1) // _STEP])
        self._select(1)
        if self._sending and not self._sent(_SENDING_US):
            self.busy += 1
            return False
        self._write_at = (self._write_at + octets) & 0xFFFF
        self._put2(_SN_TX_WR, self._write_at)
        if not self._order(_SEND):
            self.fail()
            return False
        self._sending = True
        self._sent_at = time.ticks_us()  # type: ignore[attr-defined]
        self.frames_out += 1
        return True

    def _sent(self, limit):
        """Wait until the frame has left, at most until `limit` us after its SEND."""
        while True:
            if self._get(_SN_IR, _SOCKET) & _IR_SENDOK:
                self._put(_SN_IR, _SOCKET, _IR_SENDOK)
                self._sending = False
                return True
            waited = time.ticks_diff(time.ticks_us(), self._sent_at)  # type: ignore[attr-defined]
            if waited > limit or waited < 0:
                return False

    def counters(self) -> dict:
        """Return {name: count} since start. full: looks at a ring without room for a frame."""
        return {
            "frames_in": self.frames_in,
            "frames_out": self.frames_out,
            "full": self.full,
            "busy": self.busy,
            "stuck": self.stuck,
            "bad_lengths": self.bad_lengths,
        }
