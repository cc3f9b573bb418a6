"""A WIZnet W5500 as its datasheet (1.0.9) describes it, seen from its pins.

Written from the datasheet, not from a driver. Modelled: the SPI frame with its four modes, common
and socket registers, sockets' memory, socket 0 in MACRAW mode, INTn, RSTn and the PHY's link.
Where the datasheet is silent: MISO is 0 outside a read's data phase; a SEND without a link never
gets its SENDOK (drivers report that); a frame without room is dropped whole.
"""

import random
import time
from collections.abc import Callable

COMMON = 0x40
SOCKET = 0x30
MEMORY = 16384

_RESET_COMMON = {0x19: 0x07, 0x1A: 0xD0, 0x1B: 0x08, 0x1C: 0x28, 0x39: 0x04}
_RESET_SOCKET = {
    **dict.fromkeys(range(6, 12), 255),
    0x16: 0x80,
    0x1E: 2,
    0x1F: 2,
    0x2C: 0xFF,
    0x2D: 0x40,
}
# Nobody writes these by SPI (chapter 4: [R]).
_READ_ONLY_COMMON = {0x17, 0x28, 0x29, 0x2A, 0x2B, 0x2C, 0x2D, 0x39}
_READ_ONLY_SOCKET = {0x03, 0x20, 0x21, 0x22, 0x23, 0x26, 0x27, 0x2A, 0x2B}
# RSTn has to be low for 500 us; the PLL needs 1 ms after that (5.5.1).
RESET_LOW_S = 0.0005
PLL_S = 0.001
MAX_FRAME = 1518


class Socket:
    """Registers and memory of one socket."""

    def __init__(self, number: int, first: int) -> None:
        self.number = number
        self.registers = bytearray(SOCKET)
        for at, value in _RESET_SOCKET.items():
            self.registers[at] = value
        self.rx = bytearray(MEMORY)
        self.tx = bytearray(MEMORY)
        self.first = first
        self.rx_write = self.rx_told = 0  # told: RX_RD as of the last RECV
        self.tx_read = 0
        self.command_reads = 0

    def pair(self, at: int) -> int:
        """A register of 16 bits."""
        return self.registers[at] << 8 | self.registers[at + 1]

    def put(self, at: int, value: int) -> None:
        """Set a register of 16 bits."""
        self.registers[at] = value >> 8 & 255
        self.registers[at + 1] = value & 255

    @property
    def rx_size(self) -> int:
        """Octets of the receive ring."""
        return self.registers[0x1E] * 1024

    @property
    def tx_size(self) -> int:
        """Octets of the transmit ring."""
        return self.registers[0x1F] * 1024

    @property
    def received(self) -> int:
        """RX_RSR."""
        return (self.rx_write - self.rx_told) & 0xFFFF


class W5500:
    """One chip. transmit(frame): what leaves by the wire. link_s: how long the PHY negotiates."""

    def __init__(
        self,
        transmit: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
        link_s: float = 0.0,
        first: int = 0,
        command_reads: int = 0,
    ) -> None:
        self._transmit = transmit
        self._clock = clock
        self._link_s = link_s
        self._first = first  # what OPEN sets the pointers to
        self._command_reads = command_reads  # how often Sn_CR reads as busy
        self._random = random.Random(5500)
        self.cable = True
        self.powered = True
        self.stuck = False  # SEND never ends
        self.garbage = 0  # octets of MISO that are noise
        self.between: Callable[[], None] | None = None  # called between both octets of RX_RSR
        self.dropped_full = self.dropped_filter = self.runts = self.sent = self.resets = 0
        self.short_resets = 0
        self._selected = False
        self._low_since: float | None = None
        self._reset(self._clock())

    def _reset(self, now: float) -> None:
        self.common = bytearray(COMMON)
        for at, value in _RESET_COMMON.items():
            self.common[at] = value
        self.common[0x2E] = 0xB8
        self.sockets = [Socket(number, self._first) for number in range(8)]
        self._ready_at = now + PLL_S
        self._link_at = now + self._link_s
        self._frame = bytearray()
        self._unanswered = False
        self.resets += 1

    # Pins.

    def select(self, level: int) -> None:
        """CSn: low begins a frame, high ends it (2.2)."""
        self._selected = not level
        self._frame = bytearray()

    def reset_pin(self, level: int) -> None:
        """RSTn."""
        now = self._clock()
        if not level:
            self._low_since = now
        elif self._low_since is not None:
            if now - self._low_since >= RESET_LOW_S:
                self._reset(now)
            else:
                self.short_resets += 1
            self._low_since = None

    def brown_out(self) -> None:
        """The supply dipped: the chip begins anew."""
        self._reset(self._clock())

    def interrupt(self) -> int:
        """INTn: 0 while an unmasked interrupt stands."""
        if not self._awake():
            return 1
        return 0 if self._sir() & self.common[0x18] or self.common[0x15] & self.common[0x16] else 1

    def _awake(self) -> bool:
        return self.powered and self._low_since is None and self._clock() >= self._ready_at

    def transfer(self, mosi: bytes) -> bytes:
        """Clock octets in and out; returns MISO."""
        miso = bytearray()
        for octet in mosi:
            out = self._clock_octet(octet) if self._selected and self._awake() else 0
            if self.garbage:
                self.garbage -= 1
                out = self._random.randrange(256)
            miso.append(out)
        return bytes(miso)

    def _clock_octet(self, octet: int) -> int:
        frame = self._frame
        if len(frame) < 3:
            frame.append(octet)
            if len(frame) == 3:
                self._at = frame[0] << 8 | frame[1]
                self._left = (0, 1, 2, 4)[octet & 3]
            return 0
        block, write = frame[2] >> 3, frame[2] & 4
        at = self._at
        out = 0
        if write:
            self._write(block, at, octet)
        else:
            out = self._read(block, at)
        self._at = (at + 1) & 0xFFFF
        if self._left:
            self._left -= 1
            if not self._left:
                # Fixed length: the next octet is an address again (2.4).
                self._frame = bytearray()
        return out

    # Blocks.

    def _read(self, block: int, at: int) -> int:
        if not block:
            return self._read_common(at)
        socket = self.sockets[block >> 2]
        kind = block & 3
        if kind == 1:
            return self._read_socket(socket, at)
        if kind == 2:
            return socket.tx[at % socket.tx_size] if socket.tx_size else 0
        if kind == 3:
            return socket.rx[at % socket.rx_size] if socket.rx_size else 0
        return 0

    def _write(self, block: int, at: int, value: int) -> None:
        if not block:
            self._write_common(at, value)
            return
        socket = self.sockets[block >> 2]
        kind = block & 3
        if kind == 1:
            self._write_socket(socket, at, value)
        elif kind == 2 and socket.tx_size:
            socket.tx[at % socket.tx_size] = value
        elif kind == 3 and socket.rx_size:
            socket.rx[at % socket.rx_size] = value

    @property
    def link(self) -> bool:
        """Whether the PHY has a link."""
        return self.cable and self._clock() >= self._link_at

    def plug(self, there: bool) -> None:
        """Put the cable in, or pull it."""
        if there and not self.cable:
            self._link_at = self._clock() + self._link_s
        self.cable = there

    def _sir(self) -> int:
        return sum(
            1 << socket.number
            for socket in self.sockets
            if socket.registers[0x02] & socket.registers[0x2C]
        )

    def _read_common(self, at: int) -> int:
        if at == 0x17:
            return self._sir()
        if at == 0x2E:
            return self.common[at] & 0xF8 | (7 if self.link else 0)
        return self.common[at] if at < COMMON else 0

    def _write_common(self, at: int, value: int) -> None:
        if at >= COMMON or at in _READ_ONLY_COMMON:
            return
        if at == 0 and value & 0x80:
            self._reset(self._clock())
        elif at == 0x15:
            self.common[at] &= ~value & 255
        elif at == 0x2E:
            if self.common[at] & 0x80 and not value & 0x80:
                self._link_at = self._clock() + self._link_s
            self.common[at] = value & 0xF8
        else:
            self.common[at] = value

    def _read_socket(self, socket: Socket, at: int) -> int:
        if at == 0x01 and socket.command_reads:
            socket.command_reads -= 1
            return 0x01
        if at == 0x20:
            socket.put(0x20, socket.tx_size - ((socket.pair(0x24) - socket.tx_read) & 0xFFFF))
        elif at == 0x22:
            socket.put(0x22, socket.tx_read)
        elif at in (0x26, 0x27):
            # Not latched: "before 16 bit-read operation is not completed, the value may change".
            if at == 0x27 and self.between:
                self.between()
            socket.put(0x26, socket.received)
        elif at == 0x2A:
            socket.put(0x2A, socket.rx_write)
        return socket.registers[at] if at < SOCKET else 0

    def _write_socket(self, socket: Socket, at: int, value: int) -> None:
        if at >= SOCKET or at in _READ_ONLY_SOCKET:
            return
        if at == 0x01:
            self._order(socket, value)
        elif at == 0x02:
            # Writing 1 clears (4.2, Sn_IR).
            socket.registers[at] &= ~value & 255
        else:
            socket.registers[at] = value

    def _order(self, socket: Socket, command: int) -> None:
        socket.command_reads = self._command_reads
        registers = socket.registers
        if command == 0x01:
            mode = registers[0x00] & 15
            # MACRAW is for socket 0 alone; other modes are not modelled.
            if mode == 4 and socket.number == 0:
                registers[0x03] = 0x42
                socket.rx_write = socket.rx_told = socket.tx_read = socket.first
                socket.put(0x28, socket.first)
                socket.put(0x24, socket.first)
                self._unanswered = False
        elif command == 0x10:
            registers[0x03] = 0
            self._unanswered = False
        elif command == 0x20 and registers[0x03] == 0x42:
            self._send(socket)
        elif command == 0x40 and registers[0x03] == 0x42:
            socket.rx_told = socket.pair(0x28)

    # The wire.

    def _send(self, socket: Socket) -> None:
        if self.stuck or not self.link or self._unanswered:
            self._unanswered = True
            return
        octets = (socket.pair(0x24) - socket.tx_read) & 0xFFFF
        size = socket.tx_size
        frame = bytes(socket.tx[(socket.tx_read + i) % size] for i in range(min(octets, size)))
        socket.tx_read = socket.pair(0x24)
        socket.registers[0x02] |= 0x10
        if len(frame) < 60:
            self.runts += 1
        if 14 <= len(frame) <= MAX_FRAME:
            self.sent += 1
            self._transmit(frame)

    def frame_in(self, frame: bytes) -> None:
        """A frame comes by the wire, without its checksum."""
        socket = self.sockets[0]
        registers = socket.registers
        if not self._awake() or not self.link or registers[0x03] != 0x42:
            return
        if not self._passes(registers[0x00], frame):
            self.dropped_filter += 1
            return
        octets = len(frame) + 2
        size = socket.rx_size
        if octets > size - socket.received or len(frame) > MAX_FRAME:
            self.dropped_full += 1
            return
        for value in octets.to_bytes(2, "big") + frame:
            socket.rx[socket.rx_write % size] = value
            socket.rx_write = (socket.rx_write + 1) & 0xFFFF
        registers[0x02] |= 0x04

    def _passes(self, mode: int, frame: bytes) -> bool:
        """Sn_MR's filters of MACRAW: MFEN, BCASTB, MMB, MIP6B (4.2)."""
        if mode & 0x10 and frame[12:14] == b"\x86\xdd":
            return False
        if not mode & 0x80:
            return True
        if frame[:6] == b"\xff" * 6:
            return not mode & 0x40
        if frame[0] & 1:
            return not mode & 0x20
        return frame[:6] == bytes(self.common[0x09:0x0F])
