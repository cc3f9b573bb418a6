"""The host's end of a serial console: one command out, lines back, `ok` or `error: TEXT` last.

Owns the port. Never prints. What a box says is untrusted text: control characters are taken out.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import serial

from haaro_host.fleet.files import FleetError

SPEED = 115200
_STEP_S = 0.05
ANSWER_S = 8.0
_LOGIN_S = 60.0  # PBKDF2 on a small board
_SOUND_S = 3.0
_PROMPT_S = 0.3
_LINE_LIMIT = 1 << 16
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

CONSOLE, REPL = "console", "repl"


class PortError(FleetError):
    """The port cannot be opened, or was lost: worth another try when the cable is back."""


class Refused(FleetError):
    """The box answered `error: TEXT`; `.text` is what it said."""

    def __init__(self, text: str) -> None:
        """Keep what the box said."""
        super().__init__(f"the box says: {text}")
        self.text = text


class Silent(PortError):
    """The box does not answer."""


class Line:
    """An open port. Raises PortError when it cannot be opened or is lost."""

    def __init__(self, port: str, speed: int = SPEED) -> None:
        """Open `port`, a path or a URL as pyserial takes them."""
        self.port = port
        try:
            self._serial = serial.serial_for_url(port, speed, timeout=_STEP_S, write_timeout=5)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PortError(f"{port}: cannot be opened ({reason}); is it the right port?") from None
        self._held = b""

    def close(self) -> None:
        """Give the port back."""
        with suppress(OSError):
            self._serial.close()

    def __enter__(self) -> "Line":
        """Be closed at the end of a `with`."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    # --- octets

    def send(self, data: bytes) -> None:
        """Write all of `data`."""
        try:
            self._serial.write(data)
        except OSError as error:
            raise PortError(f"{self.port}: was lost ({error})") from None

    def receive(self) -> bytes:
        """Return what is there, waiting a moment for it."""
        try:
            return bytes(self._serial.read(max(1, self._serial.in_waiting)))
        except (OSError, TypeError) as error:
            raise PortError(f"{self.port}: was lost ({error})") from None

    @property
    def handle(self) -> int:
        """The file descriptor, for select."""
        return int(self._serial.fileno())

    # --- lines

    def next_line(self, deadline: float) -> str | None:
        """Return the next whole line without its end; None when `deadline` (monotonic) is over."""
        while b"\n" not in self._held:
            if len(self._held) > _LINE_LIMIT:
                self._held = b""
            if time.monotonic() >= deadline:
                return None
            self._held += self.receive()
        line, _, self._held = self._held.partition(b"\n")
        return plain(line.decode(errors="replace")).rstrip()

    def sound(self) -> str:
        """Return what is at the other end: CONSOLE or REPL. Raises Silent."""
        # Leave a raw REPL, forget a half line, and see what an empty one brings.
        seen = self._knock(b"\x02\x15\r")
        if not seen:
            # A program that hangs, or half a program that a pulled cable left in the raw REPL.
            seen = self._knock(b"\r\x03\x02\r")
        if b">>>" in self._drain(_PROMPT_S, lambda seen: b">>>" in seen, seen):
            return REPL
        with suppress(Refused):
            list(self.ask("help", _SOUND_S))
        return CONSOLE

    def _knock(self, octets: bytes) -> bytes:
        self.send(octets)
        return self._drain(_SOUND_S, lambda seen: seen.rstrip(b" ").endswith((b">>>", b"\n")))

    def _drain(self, seconds: float, enough: Callable[[bytes], bool], seen: bytes = b"") -> bytes:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not enough(seen):
            seen += self.receive()
        return seen

    def ask(self, command: str, wait_s: float = ANSWER_S) -> Iterator[str]:
        """Yield the lines of the answer to `command`. Raises Refused, Silent, PortError."""
        self._held = b""
        with suppress(OSError):
            self._serial.reset_input_buffer()
        self.send(b"\x15" + command.encode() + b"\r")
        deadline = time.monotonic() + wait_s
        while True:
            line = self.next_line(deadline)
            if line is None:
                raise Silent(
                    f"{self.port}: no answer; is it the right port, does the box have a console?"
                )
            if line == "ok":
                return
            if line.startswith("error: "):
                raise Refused(line.removeprefix("error: "))
            # The echo of what was sent, and what a trace says in between.
            if line and not line.endswith(command) and not line.startswith("* "):
                yield line
            deadline = time.monotonic() + wait_s

    def login(self, password: str) -> None:
        """Log in at a locked console. Raises Refused."""
        self.send(b"\x15login\r")
        if not self._drain(ANSWER_S, lambda seen: b"password: " in seen).endswith(b"password: "):
            raise Silent(f"{self.port}: the console does not ask for a password; try again")
        self.send(password.encode() + b"\r")
        deadline = time.monotonic() + _LOGIN_S
        while True:
            line = self.next_line(deadline)
            if line is None:
                raise Silent(f"{self.port}: no answer to the password; try again")
            if line == "ok":
                return
            if line.startswith("error: "):
                raise Refused(line.removeprefix("error: "))


def plain(text: str) -> str:
    """Return `text` without control characters: a box must not steer the operator's terminal."""
    return _CONTROL.sub("", text)


def fields(lines: Iterator[str]) -> dict[str, str]:
    """Return `key: value` lines as a dict; a key that comes again gets lines of its own."""
    found: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(": ")
        found[key] = f"{found[key]}\n{value}" if key in found else value
    return found
