"""PPP's frames on a serial line (RFC 1662): flags, escapes and the FCS, both ways. Sans-IO.

Used by uplink/ppp.py.
"""

from array import array

from haaro.compat import const

_FLAG = const(0x7E)
_ESCAPE = const(0x7D)
_GOOD_FCS = const(0xF0B8)
# Address, control, protocol and FCS around a packet of 1500.
_LARGEST_FRAME = const(1500 + 6)
HEADROOM = const(14)  # octets in front of a frame, for the header that a packet goes on with
# Every octet of the largest frame escaped, and some frames of control packets.
_OUT_OCTETS = const(2 * _LARGEST_FRAME + 256)
# Protocol, and one octet of data or a short protocol: less is no frame.
_SHORTEST_FRAME = const(6)
_SPECIAL = (_FLAG, _ESCAPE)
_NO_CARRIER = b"NO CARRIER"


class Hdlc:
    """One line. take: called with (now, end) for each good frame: its octets without FCS are
    `frame[HEADROOM:end]`, borrowed until it returns.

    The buffers are made once: a router's heap is in pieces, and each packet passes here.
    """

    def __init__(self, take) -> None:
        self._take = take
        table = array("H", range(256))
        for i in range(256):
            value = i
            for _ in range(8):
                value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
            table[i] = value
        self._fcs = table
        self.frame = bytearray(HEADROOM + _LARGEST_FRAME)
        self.bad_frames = 0
        self._out = bytearray(_OUT_OCTETS)
        self.reset()

    def reset(self) -> None:
        """Forget the frame that is coming, and what was to be sent."""
        self._length = 0
        self._running = 0xFFFF
        self._escaped = False
        self._from = self._to = 0  # what of _out is not written yet

    def receive(self, now: int, octets: bytes) -> bool:
        """Take what came by the line; True if the modem says there that the call is over.

        Borrowed until it returns.
        """
        frame = self.frame
        table = self._fcs
        length = self._length
        running = self._running
        escaped = self._escaped
        for octet in octets:
            if octet == _FLAG:
                if _SHORTEST_FRAME <= length <= _LARGEST_FRAME and not escaped:
                    if running == _GOOD_FCS:
                        self._take(now, HEADROOM + length - 2)
                    else:
                        self.bad_frames += 1
                length = 0
                running = 0xFFFF
                escaped = False
            elif octet == _ESCAPE:
                escaped = True
            else:
                if escaped:
                    octet ^= 0x20
                    escaped = False
                if length < _LARGEST_FRAME:
                    frame[HEADROOM + length] = octet
                    running = running >> 8 ^ table[(running ^ octet) & 255]
                length += 1
        self._length = length
        self._running = running
        self._escaped = escaped
        # No frame begins with a line's end, so no packet of anybody's can say it.
        if length < len(_NO_CARRIER) + 2 or frame[HEADROOM : HEADROOM + 2] != b"\r\n":
            return False
        return bytes(frame[HEADROOM : HEADROOM + min(length, _LARGEST_FRAME)]).find(_NO_CARRIER) > 0

    @property
    def waiting(self) -> int:
        """Octets that are not written yet."""
        return self._to - self._from

    def poll_transmit(self, most: int) -> bytes:
        """Return at most so many octets that must be written to the line next."""
        end = min(self._from + most, self._to)
        part = bytes(memoryview(self._out)[self._from : end])
        self._from = end
        if end == self._to:
            self._from = self._to = 0
        return part

    def send(self, escapes: int, *parts: bytes) -> bool:
        """Queue one frame; escapes: the peer's ACCM, bit n for octet n. False: no room for it."""
        out = self._out
        table = self._fcs
        at = self._to
        octets = 3  # FCS, and a flag
        for part in parts:
            octets += len(part)
        if at + 2 * octets > _OUT_OCTETS:
            return False
        running = 0xFFFF
        out[at] = _FLAG
        at += 1
        for part in parts + (None,):
            if part is None:
                running ^= 0xFFFF
                part = bytes((running & 255, running >> 8))
            for octet in part:
                running = running >> 8 ^ table[(running ^ octet) & 255]
                if octet in _SPECIAL or (octet < 32 and escapes >> octet & 1):
                    out[at] = _ESCAPE
                    at += 1
                    octet ^= 0x20
                out[at] = octet
                at += 1
        out[at] = _FLAG
        self._to = at + 1
        return True
