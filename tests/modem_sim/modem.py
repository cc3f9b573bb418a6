"""A cellular modem without hardware, sans-IO: octets of its serial line and `now` in, octets out.

Written from 3GPP TS 27.007 (commands, numeric +CME errors, registration), ITU-T V.250 (command
lines, echo, result codes, escape) and what vendors' manuals say of power and reset lines. Shares no
code with the firmware. Behind the data call is whatever the owner of this object joins to
`to_network` and `from_network`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.modem_sim.mux import Responder
from tests.modem_sim.sockets import Stack

GUARD_MS = 1000
_RAW, _COMMANDS_BY, _CALL = 0, 1, 2  # the line itself, and the channels on it


@dataclass
class Behaviour:
    """What this modem is and what is wrong with it."""

    sim: str = "ready"  # ready, pin, puk, absent
    pin: str = "4711"
    tries: int = 3
    counts_tries: bool = True  # knows AT+CPINR
    sim_busy_ms: int = 0
    register_ms: int = 0
    stat: int = 1  # of the registration, when it is there: 1 home, 5 roaming, 3 denied
    announces: bool = True  # of a change of the registration, unasked
    operator: str = "Testnet"
    csq: int = 17
    apn: str | None = None  # the only one that is accepted; None: any
    refuses: str = ""  # final result of a dial that is refused
    boot_ms: int = 0
    powered: bool = True
    on_ms: int = 500
    off_ms: int = 2500
    reset_ms: int = 250
    latency_ms: int = 2  # of each answer
    echo: bool = True
    noise: bytes = b""  # before each answer
    chatter: str = ""  # said unasked in the middle of each answer
    truncates: int = 0  # so many answers lose their second half
    mux: str = ""  # yes; dead: says OK to AT+CMUX and then nothing; refuses: channel 2
    stack: str = ""  # address of its own UDP/IP stack, where it has one (sockets.py)
    deviation: str = ""  # "swapped": n and stat of the registration are exchanged


@dataclass
class Modem:
    """One modem. `hang` makes it deaf until what is named happens to it."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    data_mode: bool = False
    deaf: str = ""  # "power_key" or "reset": only that helps
    stuck: bool = False  # in data mode with nobody behind
    commands: list[str] = field(default_factory=list)
    pin_attempts: list[str] = field(default_factory=list)
    to_network: bytearray = field(default_factory=bytearray)
    registered_at: int | None = None
    answered_ms: int = 0  # what it took for all its answers

    def __post_init__(self) -> None:
        self._output: list[tuple[int, bytes, int]] = []  # when, what, by which channel
        self._lines = {_RAW: bytearray(), _COMMANDS_BY: bytearray(), _CALL: bytearray()}
        self._mux: Responder | None = None
        self._asked_by = _RAW
        self._now = 0
        self._alive_at: int | None = 0
        self._known = False
        self._unlocked = self.behaviour.sim == "ready"
        self._sim_at = 0
        self._last_octet = -GUARD_MS
        self._plus = 0
        self._plus_at = 0
        self._levels = {"power_key": (0, 0), "reset": (0, 0)}
        self._reports: set[str] = set()
        self._reported = 0
        self._echo = self.behaviour.echo
        self._search_from = 0
        self._lost = False
        self._radio = True
        self._apn = ""
        self.stack: Stack | None = None
        if self.behaviour.stack:
            self.stack = Stack(self.behaviour.stack, self._say, self._octets, self._die)
        if not self.behaviour.powered:
            self._alive_at = None
        else:
            self._boot(0)

    # --- life

    def _boot(self, now: int) -> None:
        self._alive_at = now + self.behaviour.boot_ms
        self._known = False
        self._output.clear()
        self._mux = None
        for line in self._lines.values():
            line.clear()
        self.data_mode = self.stuck = False
        self.deaf = ""
        self._unlocked = self.behaviour.sim == "ready"
        self._reports.clear()
        self._reported = 0
        self._echo = self.behaviour.echo
        self._search_from = self._alive_at
        self._radio = True
        if self.stack:
            self.stack.restart()

    def lose_network(self, lost: bool, now: int) -> None:
        """The network goes, or comes back after `register_ms`; a call ends."""
        self._lost = lost
        self._search_from = now
        if lost and self.stack:
            self.stack.deactivate(now)
        if lost and self.data_mode:
            self.data_mode = False
            self._say(now, "NO CARRIER", _CALL)

    def hang(self, cure: str) -> None:
        """Be deaf until `cure`: "escape", "power_key" or "reset"."""
        if cure == "escape":
            self.data_mode = self.stuck = True
        else:
            self.deaf = cure

    def set_line(self, now: int, name: str, level: int) -> None:
        """Level of "power_key" or "reset" from now on; 1: asserted."""
        before, since = self._levels[name]
        if before == level:
            return
        self._levels[name] = (level, now)
        held = now - since
        if level or self.behaviour is None:
            return
        if name == "reset":
            if self._alive_at is not None and held >= self.behaviour.reset_ms:
                self._boot(now)
        elif self._alive_at is None:
            if held >= self.behaviour.on_ms:
                self._boot(now)
        elif held >= self.behaviour.off_ms and self.deaf != "reset":
            self._alive_at = None
            self._output.clear()
            self.data_mode = False
            self._mux = None

    # --- the line

    def poll(self, now: int) -> bytes:
        """Octets that it says until `now`."""
        if self._alive_at is None or now < self._alive_at:
            return b""
        if not self._known:
            self._known = True
            self._say(now, "RDY")
        self._report(now)
        due = [each for each in self._output if each[0] <= now]
        self._output = [each for each in self._output if each[0] > now]
        self._escape(now)
        if self.deaf:
            return b""
        mux = self._mux
        return b"".join(
            mux.wrap(channel, data) if mux and channel != _RAW else data for _, data, channel in due
        )

    def next_event(self, now: int) -> int | None:
        """When `poll` has something to say, as far as is known."""
        when = [each[0] for each in self._output]
        if self._alive_at is not None and now < self._alive_at:
            when.append(self._alive_at)
        if self._reports and self._stat(now) != self.behaviour.stat and not self._lost:
            when.append(self._search_from + self.behaviour.register_ms)
        if self._plus == 3:
            when.append(self._plus_at + GUARD_MS)
        return min((each for each in when if each > now), default=None)

    def from_network(self, now: int, octets: bytes) -> None:
        """What the network sends."""
        if self.data_mode and not self.stuck:
            # Never ahead of CONNECT.
            when = max([now, *(each[0] for each in self._output)])
            self._output.append((when, octets, _CALL))

    def call_ended(self, now: int) -> None:
        """The network has ended the call."""
        if self.data_mode and not self.stuck:
            self.data_mode = False
            self._say(now, "NO CARRIER", _CALL)

    def receive(self, now: int, octets: bytes) -> None:
        """What the host has written."""
        if self._alive_at is None or now < self._alive_at or self.deaf:
            return
        self._now = now
        if self._mux is None:
            self._take(_RAW, octets)
        else:
            mux = self._mux
            if self.behaviour.mux != "dead":
                mux.receive(octets)
            elif b"\xf9\x03\xef\x05\xc3\x01\xf2\xf9" in octets:
                mux.over = True
            if mux.out:
                self._output.append((now, mux.out, _RAW))
                mux.out = b""
            if mux.over:
                # What it says of that is the last frame.
                self._mux = None
                self.data_mode = self.stuck = False

    def _take(self, channel: int, octets: bytes) -> None:
        for octet in octets:
            if self.stack and self.stack.wanted and channel == self._asked_by:
                self.stack.payload(self._now, octet)
            elif self.data_mode and channel != _COMMANDS_BY:
                self._data(self._now, octet)
            else:
                self._character(self._now, octet, channel)

    def _start_mux(self, now: int, found: re.Match[str]) -> None:
        if not self.behaviour.mux or self._mux:
            self._answer(now, "ERROR")
            return
        self._answer(now, "OK")
        self._mux = Responder(self._take)
        if self.behaviour.mux == "refuses":
            self._mux.refuses.add(_CALL)

    def _data(self, now: int, octet: int) -> None:
        """S2 and S12 of V.250: "+++" with a second of silence on both sides."""
        alone = now - self._last_octet >= GUARD_MS
        if octet == ord("+") and (self._plus or alone) and self._plus < 3:
            self._plus += 1
            self._plus_at = now
        else:
            self.to_network += b"+" * self._plus
            self._plus = 0
        self._last_octet = now
        if not self._plus and not self.stuck:
            self.to_network.append(octet)

    def _escape(self, now: int) -> None:
        if self.data_mode and self._plus == 3 and now - self._plus_at >= GUARD_MS:
            self._plus = 0
            self.data_mode = self.stuck = False
            self._say(now, "OK", _CALL)

    def _character(self, now: int, octet: int, channel: int) -> None:
        self._last_octet = now
        if self._echo:
            self._output.append((now, bytes((octet,)), channel))
        if octet == 13:
            line = self._lines[channel].decode("ascii", "replace")
            self._lines[channel].clear()
            at = line.upper().rfind("AT")
            if at >= 0:
                self._asked_by = channel
                self._command(now, line[at:].strip())
        elif octet >= 32:
            self._lines[channel].append(octet)

    # --- what it says

    def _say(self, now: int, text: str, channel: int = _COMMANDS_BY) -> None:
        self._output.append((now, f"\r\n{text}\r\n".encode(), channel if self._mux else _RAW))

    def _octets(self, now: int, octets: bytes) -> None:
        """Part of an answer of the stack's: it may hold anything."""
        self._output.append((now + self.behaviour.latency_ms, octets, self._asked_by))

    def _die(self) -> None:
        self.deaf = "power_key"

    def _answer(self, now: int, final: str, *lines: str) -> None:
        """One answer, with everything that is wrong with this modem."""
        how = self.behaviour
        whole = b"".join(f"\r\n{line}\r\n".encode() for line in lines)
        if how.chatter:
            whole += f"\r\n{how.chatter}\r\n".encode()
        whole = how.noise + whole
        if how.truncates:
            how.truncates -= 1
            whole, final = whole[: len(whole) // 2], ""
        if final:
            whole += f"\r\n{final}\r\n".encode()
        self.answered_ms += how.latency_ms
        self._output.append((now + how.latency_ms, whole, self._asked_by))

    def _stat(self, now: int) -> int:
        there = now >= self._search_from + self.behaviour.register_ms
        if self._lost or not self._unlocked or not self._radio:
            return 0
        return self.behaviour.stat if there else 2

    def _report(self, now: int) -> None:
        stat = self._stat(now)
        if stat in (1, 5) and self.registered_at is None:
            self.registered_at = now
        if stat != self._reported and not self.data_mode:
            self._reported = stat
            if self.behaviour.announces:
                for name in sorted(self._reports):
                    self._say(now, f"+{name}: {stat}")

    # --- commands

    def _command(self, now: int, text: str) -> None:
        self.commands.append(text)
        upper = text.upper()
        if self.stack and self.stack.command(
            now, text, self._stat(now) in (1, 5), self.behaviour.apn
        ):
            return
        for pattern, handler in _COMMANDS:
            found = re.fullmatch(pattern, text if '"' in text else upper)
            if found:
                handler(self, now, found)
                return
        self._answer(now, "ERROR")

    def _ok(self, now: int, found: re.Match[str]) -> None:
        self._answer(now, "OK")

    def _set_echo(self, now: int, found: re.Match[str]) -> None:
        self._echo = found[1] == "1"
        self._answer(now, "OK")

    def _sim_state(self, now: int) -> str:
        if self.behaviour.sim == "absent":
            return "+CME ERROR: 10"
        if now < self._sim_at:
            return "+CME ERROR: 14"
        if self.behaviour.sim == "puk" or self.behaviour.tries <= 0:
            return "SIM PUK"
        return "READY" if self._unlocked else "SIM PIN"

    def _ask_pin(self, now: int, found: re.Match[str]) -> None:
        state = self._sim_state(now)
        if state.startswith("+CME"):
            self._answer(now, state)
        else:
            self._answer(now, "OK", f"+CPIN: {state}")

    def _count_pin(self, now: int, found: re.Match[str]) -> None:
        if not self.behaviour.counts_tries:
            self._answer(now, "ERROR")
        else:
            self._answer(now, "OK", f"+CPINR: SIM PIN,{self.behaviour.tries},3")

    def _enter_pin(self, now: int, found: re.Match[str]) -> None:
        self.pin_attempts.append(found[1])
        if self._sim_state(now) != "SIM PIN":
            self._answer(now, "+CME ERROR: 3")
        elif found[1] == self.behaviour.pin:
            self._unlocked = True
            self.behaviour.tries = 3
            self._sim_at = now + self.behaviour.sim_busy_ms
            self._search_from = self._sim_at
            self._answer(now, "OK")
        else:
            self.behaviour.tries -= 1
            self._answer(now, "+CME ERROR: 16" if self.behaviour.tries else "+CME ERROR: 12")

    def _set_report(self, now: int, found: re.Match[str]) -> None:
        (self._reports.add if found[2] != "0" else self._reports.discard)(found[1])
        self._reported = self._stat(now)
        self._answer(now, "OK")

    def _ask_report(self, now: int, found: re.Match[str]) -> None:
        n, stat = int(found[1] in self._reports), self._stat(now)
        if self.behaviour.deviation == "swapped":
            n, stat = stat, n
        self._answer(now, "OK", f"+{found[1]}: {n},{stat}")

    def _ask_operator(self, now: int, found: re.Match[str]) -> None:
        if self._stat(now) in (1, 5):
            self._answer(now, "OK", f'+COPS: 0,0,"{self.behaviour.operator}",7')
        else:
            self._answer(now, "OK", "+COPS: 0")

    def _ask_signal(self, now: int, found: re.Match[str]) -> None:
        self._answer(now, "OK", f"+CSQ: {self.behaviour.csq},99")

    def _set_radio(self, now: int, found: re.Match[str]) -> None:
        self._radio = found[1] == "1"
        self._search_from = now
        self._answer(now, "OK")

    def _set_apn(self, now: int, found: re.Match[str]) -> None:
        self._apn = found[1]
        self._answer(now, "OK")

    def _dial(self, now: int, found: re.Match[str]) -> None:
        how = self.behaviour
        if how.refuses:
            self._answer(now, how.refuses)
        elif self._stat(now) not in (1, 5) or how.apn not in (None, self._apn):
            self._answer(now, "NO CARRIER")
        else:
            self._answer(now, "CONNECT 150000000")
            self.data_mode = True
            self.to_network.clear()
            self._plus = 0
            self._last_octet = now


_COMMANDS: list[tuple[str, Callable[[Modem, int, re.Match[str]], None]]] = [
    (r"AT", Modem._ok),
    (r"ATE([01])", Modem._set_echo),
    (r"AT\+CMEE=[012]", Modem._ok),
    (r"AT\+CMUX=0(?:,0,5,127)?", Modem._start_mux),
    (r"AT\+CPIN\?", Modem._ask_pin),
    (r'AT\+CPINR="SIM PIN"', Modem._count_pin),
    (r'AT\+CPIN="(\d+)"', Modem._enter_pin),
    (r"AT\+(CREG|CGREG|CEREG)=([012])", Modem._set_report),
    (r"AT\+(CREG|CGREG|CEREG)\?", Modem._ask_report),
    (r"AT\+COPS\?", Modem._ask_operator),
    (r"AT\+CSQ", Modem._ask_signal),
    (r"AT\+CFUN=([014])", Modem._set_radio),
    (r'AT\+CGDCONT=1,"IP","([^"]*)"', Modem._set_apn),
    (r'AT\+(?:CGAUTH|QICSGP|UAUTHREQ)=.*', Modem._ok),
    (r"ATH", Modem._ok),
    (r"ATD\*99(?:\*\*\*1)?#", Modem._dial),
]  # fmt: skip
