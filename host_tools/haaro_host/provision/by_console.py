"""Provisioning over the box's own console: frames, checked and resumable, then a trial."""

import base64
import hashlib
import time
import zlib
from contextlib import suppress

from haaro_host.fleet.export import File
from haaro_host.fleet.files import FleetError
from haaro_host.provision.box import Identity, Progress
from haaro_host.provision.line import ANSWER_S, Line, PortError, Refused, Silent, fields

_FRAME_OCTETS = 144
_TRIES = 5
_RESTART_S = 30.0
_RECONNECT_S = 15.0
_TRIAL_S = 120.0
_POLL_S = 0.3


class BoxConsole:
    """A console that logs in by itself and comes back after a pulled cable."""

    def __init__(self, line: Line, password: str) -> None:
        """Use `line`; `password` opens the console if it is locked ("": there is none)."""
        self.line = line
        self._password = password
        self._logged_in = False

    def close(self) -> None:
        """Log out, if it was this that logged in, and give the port back."""
        if self._logged_in:
            with suppress(FleetError):
                list(self.line.ask("logout"))
        self.line.close()

    def ask(self, command: str, wait_s: float = ANSWER_S) -> list[str]:
        """Return the answer's lines, logging in first where that is asked for; a line that is lost
        is waited for, and the command given again.
        """
        try:
            return self._ask(command, wait_s)
        except Silent:
            raise
        except PortError:
            self.reconnect()
            return self._ask(command, wait_s)

    def _ask(self, command: str, wait_s: float) -> list[str]:
        try:
            return list(self.line.ask(command, wait_s))
        except Refused as error:
            if not error.text.startswith("locked"):
                raise
        if not self._password:
            raise FleetError("the console is locked and there is no password for it; see keys.md")
        self.line.login(self._password)
        self._logged_in = True
        return list(self.line.ask(command, wait_s))

    def status(self) -> dict[str, str]:
        """Return the fields of `status`."""
        return fields(iter(self.ask("status")))

    def identity(self) -> Identity:
        """Return what the box says of itself."""
        found = self.status()
        return Identity(
            found.get("platform", ""), found.get("build", ""), found.get("unique_id", "")
        )

    def reconnect(self) -> None:
        """Open the port again when it is back. Raises PortError."""
        self.line.close()
        end = time.monotonic() + _RECONNECT_S
        while True:
            try:
                self.line = Line(self.line.port)
                self._ask("status", ANSWER_S)
                return
            except PortError:
                self.line.close()
                if time.monotonic() > end:
                    raise
                time.sleep(_POLL_S)


def differing(console: BoxConsole, files: list[File]) -> list[File]:
    """Return those of `files` that the box does not have."""
    found = console.status()
    return [one for one in files if found.get(one[0]) != print_of(one[1])]


def print_of(data: bytes) -> str:
    """Return a file's fingerprint: the first 8 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:8]


def send(console: BoxConsole, files: list[File], progress: Progress) -> None:
    """Stage `files` on the box. A lost line is waited for and gone on with. Raises FleetError."""
    for name, data, _ in files:
        for left in range(_TRIES, 0, -1):
            try:
                _send_one(console, name, data, progress)
                break
            except PortError:
                if left == 1:
                    raise
                console.reconnect()
            except Refused as error:
                if left == 1 or "send it again" not in error.text:
                    raise


def _send_one(console: BoxConsole, name: str, data: bytes, progress: Progress) -> None:
    lines = console.ask(f"provision {name} {len(data)} {hashlib.sha256(data).hexdigest()}")
    at = _at(lines)
    damaged = 0
    while at < len(data):
        piece = data[at : at + _FRAME_OCTETS]
        frame = f":{at} {base64.b64encode(piece).decode()} {zlib.crc32(piece):08x}"
        try:
            lines = list(console.line.ask(frame))
        except Refused as error:
            # A frame that was damaged on the way is sent again; the line says where.
            damaged += 1
            if "a frame is damaged" not in error.text or damaged > _TRIES:
                raise
            continue
        at = _at(lines)
        progress(name, at, len(data))
    staged = [line.split() for line in lines if line.startswith("staged ")]
    if not staged or staged[0][1:] != [name, print_of(data)]:
        raise FleetError(f"{name}: the box acknowledges another file; send it again")


def _at(lines: list[str]) -> int:
    for line in lines:
        if line.startswith("at ") and line[3:].isdigit():
            return int(line[3:])
    raise Silent("the box's answer to a frame is not understood; try again")


def apply(console: BoxConsole, confirm: bool) -> str:
    """Have the box take what is staged; return "in place", "kept" or "tried".

    Raises FleetError when it was reverted.
    """
    # The router is made anew meanwhile; the end of the answer may come from the new one.
    try:
        answer = console.ask("apply", _RESTART_S)
    except Refused as error:
        # Given again after a lost line: it was taken the first time.
        if "nothing is staged" in error.text:
            return "tried"
        if "on trial already" not in error.text:
            raise
        answer = []
    if "in place" in answer:
        until_restarted(console)
        return "in place"
    if confirm:
        try:
            console.ask("apply confirm", _RESTART_S)
        except Refused as error:
            # The home agent was faster.
            if "nothing is on trial" not in error.text:
                raise
            return "tried"
        return "kept"
    end = time.monotonic() + _TRIAL_S
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        found = {}
        # While the router is made anew nobody answers.
        with suppress(Silent):
            found = console.status()
        if found.get("pending", "on trial").startswith("on trial"):
            continue
        return "tried"
    raise FleetError("the box does not say what became of the trial; see: haaro console")


def until_restarted(console: BoxConsole) -> None:
    """Wait until the box's router runs. Raises FleetError."""
    end = time.monotonic() + _RESTART_S
    while True:
        try:
            if console.status().get("state") != "not provisioned":
                return
        except (Silent, Refused):
            pass
        if time.monotonic() > end:
            raise FleetError("the box has its files but does not come up; see: haaro console")
        time.sleep(_POLL_S)
