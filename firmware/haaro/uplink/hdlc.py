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
# Protocol, and one octet of data or a short protocol: less is no frame.
_SHORTEST_FRAME = const(6)
_SPECIAL = (_FLAG, _ESCAPE)
_NO_CARRIER = b"\r\nNO CARRIER"


class Hdlc:
    """One line. take: called with (now, frame without FCS) for each good frame; the frame is its
    own.
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
        self._frame = bytearray(_LARGEST_FRAME)
        self.bad_frames = 0
        self.out = bytearray()
        self.reset()

    def reset(self) -> None:
        """Forget the frame that is coming, and what was to be sent."""
        self._length = 0
        self._running = 0xFFFF
        self._escaped = False
        self.out = bytearray()

    def receive(self, now: int, octets: bytes) -> bool:
        """Take what came by the line; True if the modem says there that the call is over.

        Borrowed until it returns.
        """
        frame = self._frame
        table = self._fcs
        length = self._length
        running = self._running
        escaped = self._escaped
        for octet in octets:
            if octet == _FLAG:
                if _SHORTEST_FRAME <= length <= _LARGEST_FRAME and not escaped:
                    if running == _GOOD_FCS:
                        self._take(now, bytes(frame[: length - 2]))
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
                    frame[length] = octet
                    running = running >> 8 ^ table[(running ^ octet) & 255]
                length += 1
        self._length = length
        self._running = running
        self._escaped = escaped
        # No frame begins like this, so no packet of anybody's can say it.
        return 12 <= length < 24 and frame[:12] == _NO_CARRIER

    def send(self, escapes: int, *parts: bytes) -> None:
        """Append one frame to `out`; escapes: the peer's ACCM, bit n for octet n."""
        out = self.out
        table = self._fcs
        running = 0xFFFF
        out.append(_FLAG)
        for part in parts + (None,):
            if part is None:
                running ^= 0xFFFF
                part = bytes((running & 255, running >> 8))
            for octet in part:
                running = running >> 8 ^ table[(running ^ octet) & 255]
                if octet in _SPECIAL or (octet < 32 and escapes >> octet & 1):
                    out.append(_ESCAPE)
                    octet ^= 0x20
                out.append(octet)
        out.append(_FLAG)
