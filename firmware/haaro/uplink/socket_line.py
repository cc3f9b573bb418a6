"""A modem's line in command mode on which payloads pass, sans-IO: any octets, between lines.

Owns where a payload begins and ends, both ways; at.py has the lines. Used by modem_sockets.py.

    command CR   >   payload   line               what is sent
    command CR   line with its length CR LF   payload   CR LF OK CR LF      what is read
"""

from haaro.compat import const
from haaro.uplink.at import At
from haaro.wire import ipv4

HEADERS = const(28)
_LARGEST = const(1500)  # of one datagram that is read
_PIECE = const(512)
COMMAND_MS = const(3000)
# The manuals allow 120 s for what the network decides; a datagram is as good as lost by then.
_SENT_MS = const(10000)
_PROMPT = const(62)
_CR = const(13)
_LF = const(10)


class SocketLine(At):
    """A line in command mode on which payloads pass.

    words: see socket_profiles.py. arrived(address, port, octets): they are in `buffer`, from 28 on.
    """

    def __init__(self, words: dict, arrived) -> None:
        self._words = words
        self._arrived = arrived
        self.buffer = bytearray(HEADERS + _LARGEST)
        self._view = memoryview(self.buffer)
        self.bad_frames = 0  # answers that make no sense
        self.waiting = False  # a packet that was given has not left
        super().__init__()

    def reset(self) -> None:
        """Forget the command that runs, its payload, and the line that is coming."""
        super().reset()
        self._payload: bytes | None = None  # what the prompt is waited for with
        self._good = ""
        self._rest = b""  # of a payload, or of what takes its place
        self._reading = False
        self.read = 0  # octets that the last answer had
        self._left = self._filled = 0  # of a payload that comes
        self._first = False  # it begins behind an LF
        self._source: tuple | None = None

    def send(self, now: int, text: str, payload: bytes) -> None:
        """Send `text`, and `payload` when the modem asks for it; ends with OK, FAIL or an error."""
        self._payload = payload
        self._good = self._words["sent"].format(len(payload))
        self.command(now, text, COMMAND_MS)

    def fill(self, octets: int) -> None:
        """Give a modem that waits for a payload what it waits for.

        Where none is waited for this is an empty line: V.250 5.2 has no use for NUL.
        """
        self._rest = bytes(octets) + b"\r"

    def ask(self, now: int, text: str) -> None:
        """Read one datagram."""
        self._reading = True
        self.read = 0
        self.command(now, text, COMMAND_MS)

    def poll_transmit(self, most: int = _PIECE) -> bytes:
        """Return at most so many octets that must be written to the line next."""
        if self._rest:
            out = bytes(self._rest[:most])
            self._rest = self._rest[most:]
        else:
            out = self._out[:most]
            self._out = self._out[most:]
        return out

    def receive(self, now: int, octets: bytes) -> None:
        """Take what came by the line."""
        at = 0
        end = len(octets)
        while at < end:
            if self._left:
                at = self._take_payload(octets, at, end)
            elif octets[at] == _PROMPT and self._sent and self._payload and not self._line:
                self._rest = memoryview(self._payload)
                self._payload = None
                self.deadline = now + _SENT_MS
                at += 1
            else:
                # To the end of a line: what follows may be no line.
                stop = at + 1
                while stop < end and octets[stop - 1] != _CR and octets[stop - 1] != _LF:
                    stop += 1
                super().receive(now, octets[at:stop])
                at = stop

    def _take_payload(self, octets, at, end):
        if self._first:
            self._first = False
            if octets[at] == _LF:
                return at + 1
        part = min(self._left, end - at)
        start = HEADERS + self._filled
        self._view[start : start + part] = octets[at : at + part]
        self._filled += part
        self._left -= part
        if not self._left and self._source:
            self._arrived(self._source[0], self._source[1], self._filled)
        return at + part

    def _take(self, line):
        if self._command is not None and self._sent:
            if self._good:
                if line == self._good:
                    self._end("OK")
                    return False
                if line == "OK":
                    return False
                if line.startswith(self._words["unsent"]):
                    self._end("FAIL")
                    return False
            elif self._reading and line.startswith(self._words["data"]):
                self._header(line[len(self._words["data"]) :])
                return False
        return super()._take(line)

    def _header(self, text):
        """Take what stands before a payload: octets,"address",port."""
        fields = text.split(",")
        try:
            octets = int(fields[0])
        except ValueError:
            octets = -1
        if not 0 <= octets <= _LARGEST:
            # Where it ends nobody knows: nothing on this line can be believed.
            self.bad_frames += 1
            self._end("BROKEN")
            return
        self._source = None
        try:
            if octets:
                self._source = ipv4.address(fields[1].strip('" ')), int(fields[2])
        except (ValueError, IndexError):
            self.bad_frames += 1
        self.read = self._left = octets
        self._filled = 0
        self._first = True

    def _end(self, final):
        self._payload = None
        self._good = ""
        self._reading = False
        self._left = 0
        super()._end(final)
