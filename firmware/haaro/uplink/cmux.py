"""Several channels on one serial line, sans-IO: 3GPP TS 27.010, basic option, our side initiates.

Owns frames and the control channel; what a channel carries is modem.py's. Octets and `now`
(milliseconds) in; octets and one deadline out. Imported only where a modem multiplexes.

    flag  address  control  length (1 or 2)  information  FCS  flag          27.010 5.2.1
"""

from haaro.compat import const

# Channel 1 stays in command mode, channel 2 is the call's (modem.py).
_LAST = const(2)
# Of a modem that sends more than was agreed: still read.
_LONGEST = const(1600)
_CONTROL = const(0)
_FLAG = const(0xF9)
# Control field without the P/F bit (5.2.1.3).
_SABM = const(0x2F)
_UA = const(0x63)
_DM = const(0x0F)
_DISC = const(0x43)
_UIH = const(0xEF)
_UI = const(0x03)
_FINAL = const(0x10)
_KINDS = (_SABM, _UA, _DM, _DISC, _UIH, _UI)
# Types of the control channel (5.4.6.3), as commands; an answer is without this bit.
_COMMAND = const(2)
_CLOSE_DOWN = const(0xC3)
_TEST = const(0x23)
_FLOW_ON = const(0xA3)
_FLOW_OFF = const(0x63)
_STATUS = const(0xE3)
_LINE_STATUS = const(0x53)
_POWER = const(0x43)
_NOT_SUPPORTED = const(0x11)
_FLOW = const(2)  # bit of the V.24 signals: send nothing
_SIGNALS = const(0x8D)  # ready to communicate and to receive, data valid
_AGAIN_MS = const(500)
_TRIES = const(6)

_HUNT = const(0)
_HEADER = const(1)
_INFORMATION = const(2)
_CHECK = const(3)
_END = const(4)


class Cmux:
    """One line. take(now, channel, octets): what came by a channel, borrowed until it returns.

    state: "opening", "open" or "closed", with `reason`.
    """

    # Information in one frame, what `AT+CMUX=0,0,5,127` agrees on.
    FRAME = 127
    # Close down on channel 0: ends the multiplexer of whoever was on this line before.
    CLOSE_DOWN = b"\xf9\x03\xef\x05\xc3\x01\xf2\xf9"

    def __init__(self, now: int, take) -> None:
        table = bytearray(256)
        for i in range(256):
            value = i
            for _ in range(8):
                value = value >> 1 ^ 0xE0 if value & 1 else value >> 1
            table[i] = value
        self._fcs = table
        self._take = take
        self.state = "opening"
        self.reason = ""
        self.bad_frames = 0
        self._stopped = 0  # bit n: channel n must be still; bit 0: all of them
        self._out = b""
        self._header = bytearray(4)
        self._octets = 0  # of _header
        self._frame = bytearray(_LONGEST)
        self._view = memoryview(self._frame)
        self._length = self._filled = 0
        self._stage = _HUNT
        self._channel = _CONTROL
        self._tries = 0
        self.deadline: int | None = now
        self.handle_timer(now)

    def may_send(self, channel: int) -> bool:
        """Return whether the modem takes octets of this channel now."""
        return self.state == "open" and not self._stopped & (1 | 1 << channel)

    def wrap(self, channel: int, octets: bytes) -> bytes:
        """Return the frame of at most `FRAME` octets."""
        return self._build(channel << 2 | 3, _UIH, octets)

    def poll_transmit(self) -> bytes:
        """Return what the multiplexer itself has to say, b"" if nothing."""
        out, self._out = self._out, b""
        return out

    def handle_timer(self, now: int) -> None:
        """Ask once more for a channel that was not answered for."""
        if self.deadline is None or now < self.deadline:
            return
        if self._tries == _TRIES:
            self._close("the multiplexer does not answer")
            return
        self._tries += 1
        self.deadline = now + _AGAIN_MS
        self._out += self._build(self._channel << 2 | 3, _SABM | _FINAL, b"")

    def receive(self, now: int, octets: bytes) -> None:
        """Take what came by the line."""
        at = 0
        end = len(octets)
        while at < end:
            if self._stage == _INFORMATION:
                part = min(self._length - self._filled, end - at)
                self._frame[self._filled : self._filled + part] = octets[at : at + part]
                self._filled += part
                at += part
                if self._filled == self._length:
                    self._stage = _CHECK
                continue
            octet = octets[at]
            at += 1
            if self._stage == _HEADER:
                self._head(octet)
            elif self._stage == _CHECK:
                good = octet == self._check(self._header, self._octets)
                self._stage = _END if good else self._bad()
            elif octet == _FLAG:
                whole = self._stage == _END
                # The flag that ends one frame may begin the next.
                self._stage = _HEADER
                self._octets = 0
                if whole:
                    self._got(now)
            elif self._stage == _END:
                self._stage = self._bad()

    def _bad(self):
        self.bad_frames += 1
        return _HUNT

    def _head(self, octet):
        if octet == _FLAG and not self._octets:
            return
        header = self._header
        header[self._octets] = octet
        self._octets += 1
        kind = octet & ~_FINAL
        if (self._octets == 1 and not octet & 1) or (self._octets == 2 and kind not in _KINDS):
            # No header: what it says of a length would swallow good frames.
            self._stage = _HEADER if octet == _FLAG else self._bad()
            self._octets = 0
        elif self._octets == 3 and octet & 1:
            self._length = octet >> 1
        elif self._octets == 4:
            self._length = header[2] >> 1 | octet << 7
        if self._octets < 3 or (self._octets == 3 and not octet & 1):
            return
        self._filled = 0
        if self._length > _LONGEST:
            self._stage = self._bad()
        else:
            self._stage = _INFORMATION if self._length else _CHECK

    def _check(self, header, octets):
        value = 0xFF
        for i in range(octets):
            value = self._fcs[value ^ header[i]]
        return 0xFF - value

    def _build(self, address, control, octets):
        length = len(octets)
        if length > 127:
            header = bytes((address, control, (length & 127) << 1, length >> 7))
        else:
            header = bytes((address, control, length << 1 | 1))
        # UIH: the FCS is of the header alone.
        return b"\xf9" + header + octets + bytes((self._check(header, len(header)), _FLAG))

    def _got(self, now):
        """Take the frame that is whole."""
        channel = self._header[0] >> 2
        kind = self._header[1] & ~_FINAL
        if kind in (_UIH, _UI):
            information = self._view[: self._length]
            if channel == _CONTROL:
                self._told(bytes(information))
            elif self.state == "open":
                self._take(now, channel, information)
        elif kind == _UA:
            if self.state == "opening" and channel == self._channel:
                self._opened(now)
        elif kind == _DM:
            if self.state != "opening" or channel == self._channel:
                self._close("the modem refuses channel %d" % channel)
        elif kind == _DISC:
            self._out += self._build(channel << 2 | 1, _UA | _FINAL, b"")
            self._close("the modem has closed channel %d" % channel)
        elif kind == _SABM:
            # None of its channels is wanted.
            self._out += self._build(channel << 2 | 1, _DM | _FINAL, b"")

    def _opened(self, now):
        if self._channel != _CONTROL:
            self._say(_STATUS, bytes((self._channel << 2 | 3, _SIGNALS)))
        if self._channel == _LAST:
            self.deadline = None
            self.state = "open"
            return
        self._channel += 1
        self._tries = 0
        self.deadline = now
        self.handle_timer(now)

    def _told(self, message):
        """Take a message of the control channel: type, length, values."""
        if len(message) < 2 or not message[0] & _COMMAND:
            return
        kind = message[0]
        values = message[2 : 2 + (message[1] >> 1)]
        if kind == _STATUS and len(values) >= 2:
            bit = 1 << (values[0] >> 2)
            self._stopped = self._stopped | bit if values[1] & _FLOW else self._stopped & ~bit
        elif kind == _FLOW_OFF:
            self._stopped |= 1
        elif kind == _FLOW_ON:
            self._stopped &= ~1
        elif kind == _CLOSE_DOWN:
            self._close("the modem has ended the multiplexer")
        elif kind not in (_TEST, _LINE_STATUS, _POWER):
            self._say(_NOT_SUPPORTED, bytes((kind,)))
            return
        self._say(kind & ~_COMMAND, values)

    def _say(self, kind, values):
        self._out += self.wrap(_CONTROL, bytes((kind, len(values) << 1 | 1)) + values)

    def _close(self, why):
        self.state = "closed"
        self.reason = why
        self.deadline = None
