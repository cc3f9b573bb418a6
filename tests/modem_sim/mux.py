"""The modem's side of a multiplexed line: 3GPP TS 27.010, basic option. Sans-IO.

Written from the standard: frames 5.2.1, the FCS 5.2.1.6 as the division that it is, start and close
down 5.4, messages of the control channel 5.4.6.3. Shares no code with the firmware.
"""

from __future__ import annotations

from collections.abc import Callable

FLAG = 0xF9
SABM, UA, DM, DISC, UIH = 0x2F, 0x63, 0x0F, 0x43, 0xEF
POLL_FINAL = 0x10
MOST = 127  # octets in one frame, N1


def fcs(header: bytes) -> int:
    """Frame check sequence by x^8 + x^2 + x + 1 over `header`, least significant bits first."""
    register = [1] * 8
    for octet in header:
        for place in range(8):
            feedback = register[7] ^ (octet >> place & 1)
            register = [feedback, *register[:7]]
            register[1] ^= feedback
            register[2] ^= feedback
    # Its complement, the coefficient of x^7 sent first.
    return sum((1 - register[7 - place]) << place for place in range(8))


def frame(channel: int, control: int, information: bytes = b"", command: bool = False) -> bytes:
    """A whole frame of the responder; `command`: the C/R bit is that of a command of its own."""
    address = channel << 2 | (0 if command else 2) | 1
    length = len(information)
    octets = [length << 1 | 1] if length < 128 else [(length & 127) << 1, length >> 7]
    header = bytes([address, control, *octets])
    return bytes([FLAG]) + header + information + bytes([fcs(header), FLAG])


class Responder:
    """Frames of one line. `take(channel, octets)`: what came by an open channel."""

    def __init__(self, take: Callable[[int, bytes], None]) -> None:
        self._take = take
        self._came = bytearray()
        self.open: set[int] = set()
        self.signals: dict[int, int] = {}  # V.24 signals that the host has, by channel
        self.refuses: set[int] = set()
        self.refused: list[int] = []  # types that the host does not support
        self.wrong = 0
        self.over = False
        self.out = b""

    def receive(self, octets: bytes) -> None:
        """Take what the host has written."""
        self._came += octets
        while not self.over:
            while self._came and (self._came[0] != FLAG or self._came[1:2] == bytes([FLAG])):
                del self._came[0]
            if len(self._came) < 4:
                return
            long = not self._came[3] & 1
            if long and len(self._came) < 5:
                return
            header = bytes(self._came[1 : 5 if long else 4])
            length = (header[2] >> 1) + (header[3] << 7 if long else 0)
            end = 1 + len(header) + length + 2
            if len(self._came) < end:
                return
            whole = bytes(self._came[:end])
            if whole[-1] != FLAG or whole[-2] != fcs(header):
                self.wrong += 1
                del self._came[0]
                continue
            # Its closing flag may open the next.
            del self._came[: end - 1]
            self._got(header[0] >> 2, header[1], whole[1 + len(header) : -2])

    def _got(self, channel: int, control: int, information: bytes) -> None:
        kind = control & ~POLL_FINAL
        if kind == SABM:
            if channel in self.refuses:
                self.out += frame(channel, DM | POLL_FINAL)
            else:
                self.open.add(channel)
                self.out += frame(channel, UA | POLL_FINAL)
                if channel:
                    # 5.4.6.3.7: both tell their signals when a channel is there.
                    self.tell(0xE3, bytes([channel << 2 | 3, 0x8D]))
        elif kind == DISC:
            self.out += frame(channel, UA | POLL_FINAL if channel in self.open else DM | POLL_FINAL)
            self.open.discard(channel)
            self.over = channel == 0
        elif kind == UIH and channel == 0 and 0 in self.open:
            self._message(information)
        elif kind == UIH and channel in self.open:
            self._take(channel, information)
        elif kind == UIH and channel == 0 and information == b"\xc3\x01":
            self.over = True

    def _message(self, information: bytes) -> None:
        kind, values = information[0], information[2 : 2 + (information[1] >> 1)]
        if kind == 0x11:
            self.refused.append(values[0])
        if not kind & 2:
            return
        if kind == 0xE3:
            self.signals[values[0] >> 2] = values[1]
        elif kind == 0xC3:
            self.over = True
        self.tell(kind & ~2, values)

    def tell(self, kind: int, values: bytes) -> None:
        """Say a message of the control channel."""
        message = bytes([kind, len(values) << 1 | 1]) + values
        self.out += frame(0, UIH, message, command=True)

    def wrap(self, channel: int, octets: bytes) -> bytes:
        """`octets` in as many frames as that takes."""
        pieces = (octets[at : at + MOST] for at in range(0, len(octets), MOST))
        return b"".join(frame(channel, UIH, piece, command=True) for piece in pieces)
