"""A UDP socket of the modem's own stack in place of PPP, sans-IO.

Owns the order of commands from the context's activation on, one at a time (socket_line.py), and
what the modem says unasked. It has the doors of ppp.Ppp, so modem.py and uart_modem.py have it in
PPP's place: the headers of IPv4 and UDP (ip_socket.py) are taken off what leaves and put on what
comes. Commands and words are data: socket_profiles.py. Imported only where an uplink's
"data" is "sockets".

    dead -> opening -> up -> closing -> dead        any -> dead, with `reason`

    AT+QISEND=0,n,"ip",port   >   n octets   SEND OK          turn by turn with reading, until
    AT+QIRD=0   +QIRD: n,"ip",port CR LF   n octets   OK      nothing is left to read
"""

import struct

from haaro.compat import const
from haaro.uplink.socket_line import COMMAND_MS, HEADERS, SocketLine
from haaro.wire import ipv4

_PORT = const(434)
_PIECE = const(512)
_MOST_EVENTS = const(16)
_MOST_PACKETS = const(16)
_CLOSE_MS = const(2000)
# Read without being told to so often: where a "recv" was lost, the modem says no second one before
# its buffer was empty. A modem that hangs is found out so as well.
_LOOK_MS = const(5000)
_MOST_REFUSED = const(3)
_MOST_MISSES = const(2)


class Sockets:
    """One socket at port 434. settings: {"apn", "user", "password"}; words: socket_profiles.py."""

    def __init__(self, settings: dict, words: dict) -> None:
        self._words = words
        self._values = dict(settings)
        # AT+QICSGP: 0 none, 3 PAP or CHAP.
        self._values["auth"] = 3 if settings["user"] else 0
        self.line = SocketLine(words, self._arrived)
        self.state = "dead"
        self.reason = ""
        # As Ppp's.
        self.deliver = self._keep
        self._packets: list = []
        self.most = words["most"]
        self.mtu = HEADERS + self.most
        self.lost = 0  # datagrams that the modem did not take
        self._reset()

    def _reset(self):
        self.line.reset()
        self.line.waiting = False
        self.address = bytes(4)
        self._todo: list = []
        self._step: tuple | None = None
        self._answered = self._seen = False
        self._timer: int | None = None
        self._then = None  # what takes the end of the command that runs
        self._packet: bytes | None = None
        self._sent = 0  # octets of the payload that is being sent
        self._readable = False
        self._told = False  # since the last read began
        self._read_last = False
        self._side: tuple | None = None  # a command of the owner's
        self._now = 0
        self._late = False  # the command that runs began at an unknown time
        self._refused = self._misses = 0
        self._events: list = []

    # --- doors, as Ppp's

    def start(self, now: int) -> None:
        """Activate the context and open the socket, whatever was open."""
        self._packets = []
        self._reset()
        self.reason = ""
        self.state = "opening"
        told = self._values["apn"] or self._values["user"]
        # What the SIM or the modem has stays, where there is nothing to tell.
        self._todo = [step for step in self._words["open"] if told or "{apn}" not in step[0]]
        self._open(now)

    def stop(self, now: int) -> None:
        """Take the context down; `state` is "dead" when that is done or two seconds passed."""
        if self.state not in ("dead", "closing"):
            self.state = "closing"
            self._timer = now + _CLOSE_MS
            self._go(now)

    def fail(self, reason: str) -> None:
        """Be dead for this reason, at once."""
        if self._packet is not None:
            self.lost += 1
        self._reset()
        self.state = "dead"
        self.reason = reason

    def receive(self, now: int, octets: bytes) -> None:
        """Take what came by the line. Borrowed until it returns."""
        self._time(now)
        self.line.receive(now, octets)
        self._turn(now)

    def send_packet(self, packet: bytes) -> None:
        """Send one IPv4 packet; dropped unless the socket is open and `line` does not wait."""
        if self.state == "up" and self._packet is None:
            self._packet = packet
            self.line.waiting = True
            if not self.line.busy:
                self._go(self._now)
                self._late = True

    def _keep(self, buffer, start, end):
        if len(self._packets) < _MOST_PACKETS:
            self._packets.append(bytes(buffer[start:end]))

    def next_packet(self) -> bytes | None:
        """Return the next IPv4 packet that came, where `deliver` is not set."""
        return self._packets.pop(0) if self._packets else None

    def poll_transmit(self, most: int = _PIECE) -> bytes:
        """Return at most so many octets that must be written to the line next."""
        return self.line.poll_transmit(most)

    def next_deadline(self) -> int | None:
        """Return when `handle_timer` must be called."""
        if self._late:
            return self._now
        if self.line.deadline is None or self._timer is None:
            return self._timer if self.line.deadline is None else self.line.deadline
        return min(self._timer, self.line.deadline)

    def handle_timer(self, now: int) -> None:
        """Give up what is unanswered; look for what was not told."""
        self._time(now)
        self.line.handle_timer(now)
        self._turn(now)
        if self._timer is None or now < self._timer:
            return
        self._timer = None
        if self.state == "opening":
            self.fail("the modem does not say that its socket is open: " + self._step[2])
        elif self.state == "closing":
            self.fail("")
        elif self.state == "up":
            self._readable = True
            self._go(now)

    def _time(self, now):
        self._now = now
        if self._late:
            # It began when the packet was given, which was after the time that was known then.
            self._late = False
            if self.line.deadline is not None:
                self.line.deadline = now + COMMAND_MS

    # --- commands of the owner's, between ours; as At's

    @property
    def busy(self) -> bool:
        """Whether such a command waits or runs."""
        return self._side is not None

    def command(self, now: int, text: str, timeout_ms: int, prefix: str = "") -> None:
        """Send it when its turn comes."""
        self._side = (text, timeout_ms, prefix)
        self._go(now)

    def next_event(self) -> tuple | None:
        """Return ("done", final, lines) of such a command, or ("line", text) said unasked."""
        return self._events.pop(0) if self._events else None

    def unasked(self, now: int, line: str) -> None:
        """Take what the modem says unasked, by this channel or another."""
        if self.state != "up":
            return
        if line.startswith(self._words["came"]):
            self._readable = self._told = True
            self._go(now)
        for start, why in self._words["over"]:
            if line.startswith(start):
                self.fail(why)
                return

    # --- inside

    def _turn(self, now):
        event = self.line.next_event()
        while event is not None:
            if event[0] == "done":
                self._then(now, event[1], event[2])
            else:
                if self.state == "opening":
                    self._opening(now, event[1])
                self.unasked(now, event[1])
                self._tell(event)
            event = self.line.next_event()

    def _tell(self, event):
        if len(self._events) < _MOST_EVENTS:
            self._events.append(event)

    def _open(self, now):
        if not self._todo:
            self.state = "up"
            self._readable = True  # what came while nobody listened
            self._go(now)
            return
        self._step = self._todo.pop(0)
        self._answered = self._seen = False
        self._then = self._opened
        self._timer = None
        self.line.command(now, self._step[0].format(**self._values), self._step[1])

    def _opened(self, now, final, lines):
        if self.state != "opening":
            self._go(now)
        elif final == "TIMEOUT":
            self.fail("the modem hangs: no answer to " + self._step[0])
        elif final != "OK" and self._step[2] is not None:
            self.fail("the modem refuses %s (%s)" % (self._step[0].partition("=")[0], final))
        elif self._seen or not self._step[2]:
            self._open(now)
        else:
            self._answered = True
            self._timer = now + self._step[1]

    def _opening(self, now, line):
        """The line that a step needs may come before its OK or after it."""
        _, _, start, good = self._step
        if not start or not line.startswith(start):
            return
        said = line[len(start) :]
        if not said.startswith(good):
            self.fail("the modem refuses to open a socket (%s)" % line)
            return
        self._seen = True
        if not good:
            quoted = said.split('"')
            try:
                self.address = ipv4.address(quoted[1] if len(quoted) > 1 else said.strip())
            except ValueError:
                self.fail("the modem has no IPv4 address (%s)" % line)
                return
        if self._answered:
            self._open(now)

    def _go(self, now):
        """Begin with what comes next."""
        line = self.line
        if line.busy or self.state not in ("up", "closing"):
            return
        if self.state == "closing":
            self._then = self._closed
            line.command(now, self._words["close"], _CLOSE_MS)
            return
        self._timer = now + _LOOK_MS
        if self._side:
            self._then = self._side_done
            line.command(now, *self._side)
        elif self._packet is not None and (self._read_last or not self._readable):
            self._read_last = False
            packet = self._packet
            payload = packet[HEADERS:]
            port = packet[22] << 8 | packet[23]
            self._sent = len(payload)
            self._then = self._send_done
            text = self._words["send"].format(self._sent, ipv4.text(packet[16:20]), port)
            line.send(now, text, payload)
        elif self._readable:
            self._read_last = True
            self._told = False
            self._then = self._read_done
            line.ask(now, self._words["read"])

    def _send_done(self, now, final, lines):
        self._packet = None
        self.line.waiting = False
        if final == "OK":
            self._refused = self._misses = 0
        else:
            self.lost += 1
            if final == "TIMEOUT":
                # It may wait for octets that it has missed.
                self.line.fill(self._sent)
                self._missed()
            elif final != "FAIL":
                self._refused += 1
                if self._refused >= _MOST_REFUSED:
                    self.fail("the modem refuses to send (%s)" % final)
        self._go(now)

    def _read_done(self, now, final, lines):
        if final == "OK":
            self._misses = 0
            # What is told while it reads may be of what came behind an answer of "nothing".
            self._readable = self.line.read > 0 or self._told
        elif final == "TIMEOUT":
            self.line.bad_frames += 1
            self._missed()
        elif final == "BROKEN":
            self.fail("the modem hangs: what it says is garbage")
        else:
            self.fail("the modem has lost its socket (%s)" % final)
        self._go(now)

    def _missed(self):
        self._readable = True
        self._misses += 1
        if self._misses >= _MOST_MISSES:
            self.fail("the modem hangs: no answer at its socket")

    def _side_done(self, now, final, lines):
        self._side = None
        self._tell(("done", final, lines))
        self._go(now)

    def _closed(self, now, final, lines):
        self.fail("")

    def _arrived(self, address, port, octets):
        if self.state != "up":
            return
        buffer = self.line.buffer
        # Without the UDP checksum (RFC 768): the modem has verified the sender's.
        ipv4.build_ipv4_into(buffer, 0, ipv4.PROTOCOL_UDP, address, self.address, 8 + octets)
        struct.pack_into(">HHHH", buffer, 20, port, _PORT, 8 + octets, 0)
        self.deliver(buffer, 0, HEADERS + octets)
