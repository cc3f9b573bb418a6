"""A modem on a serial line, sans-IO: commands, the data call, and back from every hang.

Owns the line's mode and the ladder of recovery: escape to command mode, then the power key, then
the reset line; each rung is given its time to bring an answer, then comes the next. Where the
profile has it the line is multiplexed (cmux.py): commands go on while the call is up. What a modem
is asked is cellular.py's, which this is the base of. Contract: uplink/base.py.
"""

from haaro.compat import const
from haaro.uplink import base
from haaro.uplink.at import At
from haaro.uplink.modem_profiles import profile

_COMMAND_MS = const(3000)
_PROBE_MS = const(500)
FIRST_PROBE_MS = const(2000)
# V.250: a second of silence around "+++".
_GUARD_MS = const(1100)
_HANG_UP_MS = const(2000)
_AGAIN_MS = const(5000)
_AGAIN_MOST_MS = const(300000)
# A call of less is dialled again after a while that doubles; a modem that has answered for less
# gets the next rung of the ladder.
_LASTED_MS = const(60000)
_REST_MS = const(30000)  # after the whole ladder was in vain
_SETTLE_MS = const(100)
# Channels of cmux.py, which is not imported for a line without.
_MUX_AT = const(1)
_MUX_DATA = const(2)


class Modem:
    """One modem; cellular.Cellular is what it is used as.

    settings: see Cellular. doors: which of "power_key" and "reset" are wired.
    random(n) -> n octets.
    """

    def __init__(self, settings: dict, doors: tuple, random) -> None:
        self._settings = settings
        self._doors = doors
        self.profile = profile(settings["profile"])
        self._at = At()
        # While the line is multiplexed: it, and what the call is dialled with.
        self.mux = None
        self._dial = None
        self._mux_failed = not settings["mux"] or not self.profile["mux"]
        self.ppp = self._carrier(random)
        self._settled = base.Settled({base.UP: _SETTLE_MS})
        self._reading = base.DOWN
        self.reason = "not started"
        self.stage = "off"
        self.recoveries = 0
        self._answered = False
        self._rung = 0
        self._again_ms = _AGAIN_MS
        self._up_since = 0
        self._ladder_at = 0
        self._then = None  # what takes the end of the command that runs
        self._repeat = None  # the command, once more after a timeout
        self._timer: int | None = None
        self._next = None  # what the timer calls
        self._script: list = []
        self._probe_until = 0
        self._raw = b""
        self._actions: list = []

    # --- doors

    @property
    def state(self) -> str:
        """DOWN, CONNECTING, UP or FAILED."""
        return self._settled.state

    @property
    def address(self) -> bytes:
        """Our address while UP."""
        return self.ppp.address

    @property
    def mtu(self) -> int:
        """Of the link while UP."""
        return self.ppp.mtu

    @property
    def data_mode(self) -> bool:
        """Whether the line carries PPP."""
        return self.stage in ("ppp", "up", "stop")

    def start(self, now: int) -> None:
        """Begin from whatever state the modem is in."""
        self._quit()
        self.ppp.fail("")
        self._rung = 0
        self._say(now, base.CONNECTING, "the modem is asked for an answer")
        self._probe(now, FIRST_PROBE_MS)

    def stop(self, now: int, reason: str = "") -> None:
        """End the call; FAILED with a reason, DOWN without one, until `start`."""
        calling = self.ppp.state not in ("dead", "closing") and self.data_mode and not self.mux
        self._quit()
        self.stage = "off"
        if calling:
            self.stage = "stop"
            self.ppp.stop(now)
        self._say(now, base.FAILED if reason else base.DOWN, reason or "stopped")

    def receive(self, now: int, octets: bytes) -> None:
        """Take what came by the line."""
        if self.mux:
            self.mux.receive(now, octets)
        elif self.data_mode:
            self.ppp.receive(now, octets)
        elif not self._script and self.stage != "off":
            self._at.receive(now, octets)
        self._turn(now)

    def _channel(self, now, channel, octets):
        """Take what came by a channel of the multiplexer."""
        if channel == _MUX_AT:
            self._at.receive(now, octets)
        elif channel == _MUX_DATA:
            if self.data_mode:
                self.ppp.receive(now, octets)
            else:
                self._dial.receive(now, octets)

    def send_packet(self, packet: bytes) -> None:
        """Send one IPv4 packet; dropped unless the call is up."""
        self.ppp.send_packet(packet)

    def next_packet(self) -> bytes | None:
        """Return the next IPv4 packet that came."""
        return self.ppp.next_packet()

    def next_action(self) -> tuple | None:
        """Return the next (door, level): level 1 asserts the line as a pressed key does."""
        return self._actions.pop(0) if self._actions else None

    @property
    def idle(self) -> bool:
        """Whether a packet would be sent at once."""
        return self.stage == "up" and not self.ppp.line.waiting

    def poll_transmit(self) -> bytes:
        """Return what must be written to the line next, at most 512 octets, b"" if nothing."""
        raw, self._raw = self._raw, b""
        if raw or self.mux:
            return raw or self._multiplexed()
        return self.ppp.poll_transmit() if self.data_mode else self._at.poll_transmit()

    def _multiplexed(self):
        mux = self.mux
        out = mux.poll_transmit() or self._at_frames(_MUX_AT, self._at.poll_transmit())
        if out or not mux.may_send(_MUX_DATA):
            return out
        if self.data_mode:
            return self._at_frames(_MUX_DATA, self.ppp.poll_transmit(mux.FRAME))
        return self._at_frames(_MUX_DATA, self._dial.poll_transmit())

    def _at_frames(self, channel, octets):
        """Return `octets` as frames of a channel."""
        out = b""
        while octets:
            out += self.mux.wrap(channel, octets[: self.mux.FRAME])
            octets = octets[self.mux.FRAME :]
        return out

    def next_deadline(self) -> int | None:
        """Return when `handle_timer` must be called."""
        first = None
        ppp = self.ppp.next_deadline() if self.data_mode else None
        deadlines = [self._timer, self._at.deadline, ppp, self._settled.deadline]
        if self.mux:
            deadlines += [self.mux.deadline, self._dial.deadline]
        for deadline in deadlines:
            if deadline is not None and (first is None or deadline < first):
                first = deadline
        return first

    def handle_timer(self, now: int) -> None:
        """Do what is due."""
        if self._timer is not None and now >= self._timer:
            step, self._timer, self._next = self._next, None, None
            step(now)
        if self.data_mode:
            self.ppp.handle_timer(now)
        self._at.handle_timer(now)
        if self.mux:
            self.mux.handle_timer(now)
            self._dial.handle_timer(now)
        self._turn(now)

    # --- inside

    def _say(self, now, reading, reason=""):
        self._reading = reading
        self.reason = reason
        self._settled.read(now, reading)

    def _turn(self, now):
        """Hand on what the line and the call have said."""
        event = self._next_event()
        while event is not None:
            if event[0] == "done":
                self._done(now, event[1], event[2])
            elif self.stage == "escape":
                if not self._script:
                    self._later(now, 0, self._play)  # it has hung up
            else:
                self._unasked(now, event[1])
            event = self._next_event()
        if self.mux and self.mux.state != "opening":
            self._mux_is(now, self.mux.state)
        if self.data_mode:
            self._watch(now)
        self._settled.read(now, self._reading)

    def _next_event(self):
        return self._at.next_event() or (self._dial and self._dial.next_event())

    def _quit(self):
        self._at.reset()
        self._timer = self._next = None
        self._script = []
        self._raw = self.mux.CLOSE_DOWN if self.mux else b""
        self.mux = self._dial = None
        for door in self._doors:
            self._actions.append((door, 0))

    def _later(self, now, ms, step):
        self._timer = now + ms
        self._next = step

    def _ask(self, now, text, then, timeout_ms=_COMMAND_MS, prefix="", repeat=True):
        self._then = then
        self._repeat = (text, then, timeout_ms, prefix, False) if repeat else None
        self._at.command(now, text, timeout_ms, prefix)

    def _call(self, now, text, then, timeout_ms):
        """Dial: where the line is multiplexed, by the channel that the call will use."""
        self._then = then
        self._repeat = None
        (self._dial or self._at).command(now, text, timeout_ms)

    def _done(self, now, final, lines):
        if final == "TIMEOUT" and self.stage != "probe":
            if self._repeat:
                self._ask(now, *self._repeat)
                return
            # A call that is up shows by itself whether the modem lives.
            if self.stage not in ("pin", "up"):
                self._recover(now, "the modem hangs: no answer in stage " + self.stage)
                return
        self._then(now, final, lines)

    # --- power, hangs

    def _probe(self, now, window_ms):
        self.stage = "probe"
        self._at.reset()
        self._probe_until = now + window_ms
        self._ask(now, "AT", self._probed, _PROBE_MS, "", False)

    def _probed(self, now, final, lines):
        if final == "OK":
            self._answered = True
            self.stage = "setup"
            self._todo = ["ATE0", "AT+CMEE=1"] + list(self.profile["setup"])
            self._set_up(now, "OK", [])
        elif now < self._probe_until:
            self._ask(now, "AT", self._probed, _PROBE_MS, "", False)
        else:
            self._recover(now, "the modem does not answer")

    def _set_up(self, now, final, lines):
        if self._todo:
            self._ask(now, self._todo.pop(0), self._set_up)
        elif self.mux or self._mux_failed:
            self._ready(now)
        else:
            self.stage = "mux"
            self._ask(now, self.profile["mux"], self._mux_says, _COMMAND_MS, "", False)

    def _mux_says(self, now, final, lines):
        if final != "OK":
            self._mux_failed = True
            self._ready(now)
            return
        from haaro.uplink.cmux import Cmux

        self.mux = Cmux(now, self._channel)
        self._dial = At()

    def _mux_is(self, now, state):
        """The multiplexer is open or closed."""
        if state == "closed":
            # What does not open once is not tried again.
            self._mux_failed = self._mux_failed or self.stage == "mux"
            self._recover(now, self.mux.reason)
        elif self.stage == "mux":
            self._ready(now)

    def _recover(self, now, why):
        """Take the next rung: all that the one before could do is tried."""
        rungs = ["escape"]
        if "power_key" in self._doors:
            rungs += ["power_cycle"] if self._answered else ["power_on", "power_cycle"]
        if "reset" in self._doors:
            rungs.append("reset")
        self._quit()
        self.ppp.fail("")
        self.recoveries += 1
        if now - self._ladder_at >= _LASTED_MS:
            self._rung = 0
        self._ladder_at = now
        if self._rung >= len(rungs):
            self._rung = 0
            self.stage = "wait"
            self._say(now, base.FAILED, why)
            self._later(now, _REST_MS, self._wait_over)
            return
        rung = rungs[self._rung]
        self._rung += 1
        self.stage = rung
        self._say(now, base.CONNECTING, why + "; " + rung)
        times = self.profile
        window_ms = times["boot_ms"]
        if rung == "escape":
            if self._answered:
                window_ms = _HANG_UP_MS
            # An octet of the line that was cut must not be taken for part of the escape. What an
            # earlier run has multiplexed ends first.
            script = [("write", self._close_down(), _GUARD_MS), ("write", b"+++", _GUARD_MS)]
            script += [("write", b"ATH\r", _HANG_UP_MS)]
        elif rung == "reset":
            script = [("reset", 1, times["reset_ms"]), ("reset", 0, 0)]
        else:
            script = [("power_key", 1, times["on_ms"]), ("power_key", 0, 0)]
            if rung == "power_cycle":
                script.insert(0, ("power_key", 0, times["rest_ms"]))
                script.insert(0, ("power_key", 1, times["off_ms"]))
        self._window_ms = window_ms
        self._script = script
        self._play(now)

    def _close_down(self):
        if not self._settings["mux"] or not self.profile["mux"]:
            return b""
        from haaro.uplink.cmux import Cmux

        return Cmux.CLOSE_DOWN

    def _play(self, now):
        if not self._script:
            self._probe(now, self._window_ms)
            return
        kind, value, ms = self._script.pop(0)
        if kind == "write":
            self._raw += value
        elif kind:
            self._actions.append((kind, value))
        if ms or not self._script:
            # While the last step lasts, what comes is nobody's answer.
            self._script = self._script or []
            self._later(now, ms, self._play)
        else:
            self._play(now)

    def _came_up(self, now):
        self._timer = None
        self._rung = 0
        self._up_since = now
        self._say(now, base.UP)

    def _went_down(self, now, why):
        """The call that was up is over: dial again, at once if it has lasted."""
        if now - self._up_since >= _LASTED_MS:
            self._again_ms = _AGAIN_MS
            self._say(now, base.CONNECTING, why)
            self._probe(now, FIRST_PROBE_MS)
        else:
            self._again(now, why)

    def _wait_over(self, now):
        self._say(now, base.CONNECTING, self.reason)
        self._probe(now, FIRST_PROBE_MS)

    def _again(self, now, why):
        """What was refused is tried once more, after a while that doubles."""
        self.stage = "wait"
        self._at.reset()
        self._say(now, base.FAILED, why)
        self._later(now, self._again_ms, self._wait_over)
        self._again_ms = min(2 * self._again_ms, _AGAIN_MOST_MS)
