"""AT commands over a serial line, sans-IO (ITU-T V.250, 3GPP TS 27.007 4.1).

Owns lines: which belong to the command that runs, which end it, and which the modem says unasked.
Knows no command's meaning. Octets and `now` (milliseconds) in; octets, events and one deadline out.
Used by uplink/cellular.py.

Events of `next_event`:
  ("done", final, lines)   final: OK, ERROR, +CME ERROR: n, CONNECT ..., NO CARRIER, ..., TIMEOUT;
                           lines: what came with the command's prefix, without it
  ("line", text)           said unasked: a URC, or what is left of one
"""

from haaro.compat import const

_LONGEST = const(200)  # of a line; what is longer is no line
_MOST_LINES = const(16)
# After a timeout the answer may still come: nothing is sent until the line was quiet so long...
_QUIET_MS = const(300)
# ... or after so long, whatever it says.
_NOISY_MS = const(2000)
_CR = const(13)
_LF = const(10)
_FINAL = ("OK", "ERROR", "NO CARRIER", "BUSY", "NO ANSWER", "NO DIALTONE", "NO DIAL TONE")
_ERRORS = ("+CME ERROR", "+CMS ERROR")
_CONNECT = "CONNECT"


class At:
    """One line in command mode."""

    def __init__(self) -> None:
        self.garbage = 0  # octets that belong to no line
        self.reset()

    def reset(self) -> None:
        """Forget the command that runs, and the line that is coming."""
        self._line = bytearray()
        self._overlong = False
        self._command: str | None = None
        self._prefix = ""
        self._lines: list = []
        self._timeout_ms = 0
        self._sent = False
        self._events: list = []
        self._out = b""
        self._rest = b""
        self.deadline: int | None = None
        self._quiet_at = 0  # not before that is anything sent
        self._noisy_at = 0

    @property
    def busy(self) -> bool:
        """Whether a command runs or its end has not been taken."""
        return self._command is not None or bool(self._events)

    def command(self, now: int, text: str, timeout_ms: int, prefix: str = "") -> None:
        """Send `text` and a CR; prefix: of the lines that answer it, such as "+CSQ:"."""
        self._command = text
        self._prefix = prefix
        self._lines = []
        self._timeout_ms = timeout_ms
        self._sent = False
        self.handle_timer(now)

    def poll_transmit(self) -> bytes:
        """Return what must be written to the line, b"" if nothing."""
        out, self._out = self._out, b""
        return out

    def next_event(self) -> tuple | None:
        """Return the next event."""
        return self._events.pop(0) if self._events else None

    def take_rest(self) -> bytes:
        """Return what came behind CONNECT: it is the peer's."""
        rest, self._rest = self._rest, b""
        return rest

    def receive(self, now: int, octets: bytes) -> None:
        """Take what came by the line."""
        if self._quiet_at > now:
            # Of the command that was given up.
            self._quiet_at = min(now + _QUIET_MS, self._noisy_at)
            if self._command is not None:
                self.deadline = self._quiet_at
            self.garbage += len(octets)
            return
        for i, octet in enumerate(octets):
            if octet in (_CR, _LF):
                if self._line and not self._overlong:
                    line = str(self._line, "ascii")
                    self._line = bytearray()
                    if self._take(line):
                        # The LF of CONNECT's own line is no octet of the peer's.
                        rest = octets[i + 1 :]
                        self._rest = rest[1:] if rest[:1] == b"\n" else rest
                        return
                self._line = bytearray()
                self._overlong = False
            elif octet < 32 or octet > 126:
                self.garbage += 1
            elif len(self._line) < _LONGEST:
                self._line.append(octet)
            else:
                self._overlong = True
                self.garbage += 1

    def _take(self, line):
        """Sort one line; True if the line carries data from now on."""
        if self._command is not None and self._sent:
            if line == self._command:
                return False  # echo
            if line == "OK" and self._prefix and not self._lines:
                return False  # the end of an earlier command: ours comes with a line
            if line in _FINAL or line.startswith(_ERRORS):
                self._end(line)
                return False
            if line.startswith(_CONNECT):
                self._end(line)
                return True
            if self._prefix and line.startswith(self._prefix):
                if len(self._lines) < _MOST_LINES:
                    self._lines.append(line[len(self._prefix) :].strip())
                return False
        if len(self._events) < _MOST_LINES:
            self._events.append(("line", line))
        return False

    def _end(self, final):
        self._events.append(("done", final, self._lines))
        self._command = None
        self.deadline = None

    def handle_timer(self, now: int) -> None:
        """Send what waits for quiet; give up what is unanswered."""
        if self._command is None:
            return
        if not self._sent:
            self.deadline = self._quiet_at
            if now >= self._quiet_at:
                self._sent = True
                self._line = bytearray()
                self.deadline = now + self._timeout_ms
                self._out += self._command.encode() + b"\r"
        elif self.deadline is not None and now >= self.deadline:
            self._quiet_at = now + _QUIET_MS
            self._noisy_at = now + _NOISY_MS
            self._end("TIMEOUT")
