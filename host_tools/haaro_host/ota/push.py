"""A bundle by the box's console, in frames as provisioning has them; then its trial is watched."""

import base64
import time
import zlib
from contextlib import suppress

from haaro_host.fleet.files import FleetError
from haaro_host.ota.bundle import Bundle
from haaro_host.provision.box import Progress
from haaro_host.provision.by_console import BoxConsole
from haaro_host.provision.line import PortError, Refused, Silent, fields

_FRAME_OCTETS = 144
_TRIES = 5
_POLL_S = 0.5
# Three starts of five minutes at most (firmware/boot.py), and then the old program's.
_TRIAL_S = 1000.0


def version(console: BoxConsole) -> str:
    """Return the version that the box runs. Raises FleetError."""
    return fields(iter(console.ask("update"))).get("version", "")


def push(console: BoxConsole, bundle: Bundle, data: bytes, progress: Progress) -> None:
    """Send the bundle; a lost line is waited for and gone on with. Raises FleetError."""
    for left in range(_TRIES, 0, -1):
        try:
            _send(console, bundle, data, progress)
            return
        except PortError:
            if left == 1:
                raise
            console.reconnect()


def _send(console: BoxConsole, bundle: Bundle, data: bytes, progress: Progress) -> None:
    at = _at(console.ask(f"update {len(data)} {bundle.digest}"))
    damaged = 0
    while at < len(data):
        piece = data[at : at + _FRAME_OCTETS]
        frame = f":{at} {base64.b64encode(piece).decode()} {zlib.crc32(piece):08x}"
        try:
            at = _at(list(console.line.ask(frame)))
        except Refused as error:
            damaged += 1
            if "a frame is damaged" not in error.text or damaged > _TRIES:
                raise
            continue
        progress(bundle.version, at, len(data))


def outcome(console: BoxConsole, bundle: Bundle) -> str:
    """Wait for the end of the trial; return "kept". Raises FleetError for every other end."""
    end = time.monotonic() + _TRIAL_S
    while time.monotonic() < end:
        time.sleep(_POLL_S)
        found: dict[str, str] = {}
        # While one program ends and the other starts nobody answers.
        with suppress(Silent, Refused):
            found = fields(iter(console.ask("update")))
        if found.get("version") == bundle.version and found.get("state") == "running":
            return "kept"
        if found.get("state") == "returned" and found.get("version") != bundle.version:
            raise FleetError(
                f"the box tried {bundle.version}, which did not register and stay so, and went back"
                f" to {found.get('version')}; see its log with: haaro console"
            )
        if found.get("problem", "") and found.get("state") == "running":
            raise FleetError(f"the box does not take it: {found['problem']}")
    raise FleetError("the box does not say what became of the trial; see: haaro console")


def _at(lines: list[str]) -> int:
    for line in lines:
        if line.startswith("at ") and line[3:].isdigit():
            return int(line[3:])
    raise Silent("the box's answer to a frame is not understood; try again")
