"""The serial console: one line in, lines out, `ok` or `error: TEXT` at the end of each answer.

Owns the line being typed, who may type, the answer under way, the ring of log lines and the trial
of a new configuration. Never waits and never keeps the loop for longer than a few octets: input is
taken and answers are written in small pieces. A secret is neither echoed nor shown: keys come in
frames (lines that begin with ":"), which are not echoed, the password is typed unseen.
"""

from haaro.compat import const
from haaro.shell import staging
from haaro.shell.clock import Clock
from haaro.shell.console_lock import Lock
from haaro.wire.ipv4 import text

_LINE = const(250)
_OCTETS_A_TURN = const(64)
_WRITES_A_TURN = const(4)
_LOG_LINES = const(48)
_LOG_WIDTH = const(120)
_BACKLOG = const(1024)
_UDP = const(17)
_IDLE_MS = const(300000)
TRIAL_MS = const(90000)
STREAM = "stdin"
BENCH, LOCKED = "bench", "locked"
_GREETING = "haaro console; help lists the commands, Ctrl-C gives the REPL"


class Console:
    """One console for the life of the process; the box behind it may change.

    `open_door()` -> Door, may raise OSError and is tried again then. A box is shell/loop.Loop or
    shell/unprovisioned.Unprovisioned: `answer(word)`, `restart()`, `registered` and
    `router`.
    """

    def __init__(self, config: str, open_door, on_stream: bool) -> None:
        self.staging = staging.Staging(config)
        self.incoming = None  # a program that comes in by frames (ota/part.py)
        self.on_stream = on_stream
        self.clock = Clock()
        self.lock = Lock()
        self.box = None
        self.profile = LOCKED
        self.tracing = False
        self.trial_until: int | None = None
        self.ping = None
        self._fresh = False  # the box was made after what is tried was taken into use
        self._improv = None  # made when the first packet comes
        self._improv_open = False
        self.ring: list = []
        self.lost_lines = 0
        self._open_door = open_door
        self._door = None
        self._poll = None
        self._line = bytearray()
        self._skip = False  # until the end of a line that was too long
        self._return = False  # the last octet was CR: an LF after it is the same end
        self._asking = False  # for the password
        self._session = False
        self._idle_at = 0
        self._out = bytearray()
        self._answer = None

    # --- the box behind it

    def attach(self, box, poll, profile: str, now: int) -> None:
        """Serve `box` from now on; `profile` says who may do what."""
        self.box = box
        self._fresh = True
        self._poll = poll
        self.profile = profile
        options = getattr(box, "options", None)
        console = options["console"] if options else None
        self._improv_open = bool(console and console.get("improv"))
        self._open(now)

    def detach(self) -> None:
        """The box goes; the answer under way goes on with the next one."""
        if self._door is not None:
            self._door.detach()
        self._end_ping()
        self.box = self._poll = None

    def _end_ping(self):
        if self.ping is not None:
            self.ping.close()
            self.ping = None

    def close(self) -> None:
        """Give the line back."""
        if self._door is not None:
            self._door.close()
            self._door = None

    def _open(self, now):
        try:
            if self._door is None:
                self._door = self._open_door()
                if self.profile == BENCH:
                    self._say(_GREETING)
            self._door.interruptible(self.profile == BENCH)
            self._door.attach(self._poll)
            self._pump()
        except OSError as error:
            self._door = None
            self.log("warning", "console: %s" % error)

    # --- the loop's doors

    @property
    def busy(self) -> bool:
        """Whether `tick` should be called again at once."""
        return self.lock.busy

    def handle(self, obj, now: int) -> bool:
        """Serve `obj` if it is the console's; return whether it was."""
        if self.ping is not None and self.ping.handle(obj, now):
            self._pump()
            return True
        door = self._door
        if door is None or (obj is not door.reader and obj is not door.writer):
            return False
        for _ in range(_OCTETS_A_TURN):
            octet = door.read()
            if octet < 0:
                if octet == -2:
                    self._gone()
                break
            self._octet(now, octet)
        self._pump()
        return True

    def tick(self, now: int) -> None:
        """Do what time asks for; called each second, and in every turn while `busy`."""
        if self.lock.busy:
            right = self.lock.step(now)
            if right is not None:
                self._session = right
                self._idle_at = now + _IDLE_MS
                self.log("info" if right else "warning", "console: login " + _HOW[right])
                self._say("ok" if right else "error: wrong password")
        if self._session and now >= self._idle_at:
            self._logout()
        if self.trial_until is not None:
            self._judge_trial(now)
        if self.ping is not None:
            self.ping.tick(now)
        if self._door is None and self._poll is not None and not self.on_stream:
            self._open(now)
        self._pump()

    def _judge_trial(self, now):
        if not self._fresh:
            return
        if self.box.registered:
            self.confirm("registered with the home agent")
        elif now >= self.trial_until:
            self.revert("not registered in time")

    def log(self, level: str, what: str) -> None:
        """Keep a line for `show log`; the oldest goes. Say it too while tracing."""
        now = self.clock.now()
        line = "%d.%03d %s: %s" % (now // 1000, now % 1000, level, what)
        if len(self.ring) >= _LOG_LINES:
            self.ring.pop(0)
        self.ring.append(line[:_LOG_WIDTH])
        self._follow(line)

    def trace(self, way: str, where: str, port: int, data: bytes) -> None:
        """Say which message went which way; never what is in it."""
        self._follow("%s %s:%d type %d, %d octets" % (way, where, port, data[0], len(data)))

    def trace_out(self, transmit) -> None:
        """The same of a core.context.Transmit; keepalives in a tunnel are left out."""
        data = transmit.payload
        if transmit.tunnel < 0:
            self.trace("to", text(transmit.dst), transmit.dport, data)
        elif data[9] == _UDP:
            way = "by tunnel %d to" % transmit.tunnel
            self.trace(way, text(data[16:20]), data[22] << 8 | data[23], data[28:])

    def _follow(self, line):
        if self.tracing and self._may():
            if len(self._out) > _BACKLOG:
                self.lost_lines += 1
            else:
                self._say("* " + line)
                self._pump()

    # --- the trial of a new configuration

    def apply(self) -> None:
        """Take what is staged into use. Raises ValueError when it cannot be used."""
        if self.trial_until is not None:
            raise ValueError("on trial already: apply confirm, or revert")
        if not self.staging.pending():
            raise ValueError("nothing is staged")
        self.check_staged()
        if staging.exists(self.staging.config):
            self.trial_until = self.clock.now() + TRIAL_MS
            self._fresh = False
            self.log("info", "console: a new configuration is tried")
        else:
            self.staging.commit()  # nothing to return to
            self.log("info", "console: the first configuration is in place")
        self.box.restart()

    def check_staged(self) -> None:
        """Raise ValueError unless what is staged can be used."""
        from haaro.shell import config, unload

        try:
            config.load(self.staging.config, True)
        except MemoryError:
            raise ValueError("no room in the heap to check it now")
        finally:
            unload()

    def confirm(self, why: str) -> None:
        """The tried configuration stays. Raises ValueError if there is none."""
        if self.trial_until is None:
            raise ValueError("nothing is on trial")
        self.trial_until = None
        self.staging.commit()
        self._tried(True)
        self.log("info", "console: the new configuration is kept: " + why)

    def revert(self, why: str) -> None:
        """Drop what is staged, and return to the old configuration if it was on trial."""
        tried, self.trial_until = self.trial_until is not None, None
        self.staging.drop()
        if tried:
            self._tried(False)
            self.log("warning", "console: the old configuration is back: " + why)
            self.box.restart()

    def abandon(self, why: str) -> None:
        """What was tried did not even start: the old configuration is next."""
        self.trial_until = None
        self.staging.drop()
        self._tried(False)
        self.log("warning", "console: the old configuration is back: " + why)

    def _tried(self, kept):
        if self._improv is not None:
            self._improv.ended(kept)

    @property
    def improv_allowed(self) -> bool:
        """Whether Wi-Fi credentials are taken: from who is logged in, or from everybody."""
        return self._improv_open or self._may()

    # --- lines in

    def _octet(self, now, octet):
        improv = self._improv
        if improv is not None and improv.taking and improv.octet(now, octet):
            return
        after_return, self._return = self._return, octet == 13
        if octet in (10, 13):
            if octet == 10 and after_return:
                return
            line, self._line = bytes(self._line), bytearray()
            long, self._skip = self._skip, False
            if not line.startswith(b":") or long:
                self.say_octets(b"\r\n")
            if long:
                self._say("error: a line has at most %d octets" % _LINE)
            else:
                self._take(now, line)
        elif octet in (3, 21):  # Ctrl-C, Ctrl-U
            self._line = bytearray()
            self._skip = self._asking = False
            if self._answer is not None:
                self._answer = None
                self._say("error: interrupted")
            elif self.ping is not None:
                self._end_ping()
                self._say("error: interrupted")
        elif octet in (8, 127):
            if self._line:
                self._line = self._line[:-1]
                self._echo(b"\x08 \x08")
        elif octet == 1 and self._line == b"IMPROV" and not self._asking:
            self._line = bytearray()
            if improv is None:
                from haaro.shell import console_commands

                improv = self._improv = console_commands.improv(self)
            if improv:
                improv.begin(now)
        elif octet >= 32:
            if len(self._line) >= _LINE:
                self._line = bytearray()
                self._skip = True
            if not self._skip:
                self._line.append(octet)
                self._echo(bytes((octet,)))

    def _echo(self, octets):
        if not self._asking and not self._line.startswith(b":"):
            self.say_octets(octets)

    def _may(self):
        return self._session or self.profile == BENCH

    def _take(self, now, line):
        if self._answer is not None or self.lock.busy:
            return  # the answer before is still under way
        if self._asking:
            self._asking = False
            if now < self.lock.wait_until:
                seconds = (self.lock.wait_until - now) // 1000 + 1
                self._say("error: too many attempts; wait %d s" % seconds)
            elif not self.lock.attempt(line, self._secrets()):
                self._say("error: no password is set: nobody can log in here")
        elif self._may():
            self._idle_at = now + _IDLE_MS
            self._command(now, line)
        elif line == b"login":
            self._asking = True
            self.say_octets(b"password: ")
        elif line:
            self._say("error: locked; first: login")

    def _secrets(self):
        return self.staging.files[staging.SECRETS]

    def _command(self, now, line):
        from haaro.shell import console_commands

        try:
            words = line.decode().split()
        except UnicodeError:
            words = ["?"]
        if words == ["logout"]:
            self._logout()
            self._say("ok")
        elif words:
            self._answer = console_commands.run(self, now, words)

    def _logout(self):
        self._session = self.tracing = False
        self.lock.forget()

    def _gone(self):
        self._logout()
        self._line = bytearray()
        self._out = bytearray()
        self._answer = None
        self._asking = self._skip = False
        self._door.detach()
        self.close()

    # --- lines out

    def finish(self, line: str) -> None:
        """Go on with, or end, the answer of a command that takes a while."""
        self._say(line)
        self._pump()

    def _say(self, line):
        self.say_octets(line.encode() + b"\r\n")

    def say_octets(self, octets: bytes) -> None:
        """Say what need not be text."""
        # Without a line nobody hears it.
        if self._door is not None:
            self._out.extend(octets)

    def _pump(self):
        door = self._door
        for _ in range(_WRITES_A_TURN):
            if door is None or not self._next() or not door.room():
                break
            written = door.write(bytes(self._out))
            if written == -2:
                self._gone()
                return
            self._out = self._out[written or 0 :]
        if door is not None:
            door.want(bool(self._out) or self._answer is not None)

    def _next(self):
        """Return whether there is something to write, taking the answer's next line if need be."""
        if not self._out and self._answer is not None:
            try:
                self._say(next(self._answer))
            except StopIteration:
                self._answer = None
                if self.ping is None:
                    self._say("ok")
            except (ValueError, OSError, MemoryError) as error:
                self._answer = None
                self._say("error: %s" % error)
        return bool(self._out)


_HOW = {True: "accepted", False: "refused"}
