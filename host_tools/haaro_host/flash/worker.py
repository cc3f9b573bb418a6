"""One session with one chip, by esptool's Python interface, in a process of its own.

Reads a job (JSON, `burn.Job`) on standard input, writes events as JSON lines on standard output:

    {"event": "chip", "name", "mac", "flash"}     who is there
    {"event": "progress", "what", "done", "of"}   octets on the way
    {"event": "note", "text"}                     what esptool wants to be known
    {"event": "failed", "why", "text"}            and the exit status is 1
    {"event": "done"}                             and it is 0

`why`: "connect", "wrong-chip", "wrong-box", "flash-size", "write", "verify". esptool's own wording
may go to standard output at any time, so it is sent there for the parent to throw away.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import serial
from esptool import FatalError, cmds
from esptool.logger import TemplateLogger, log
from esptool.util import flash_size_bytes

_ROM_BAUD = 115200
_ERRORS = (FatalError, serial.SerialException, OSError)


class Failed(Exception):
    """The session is over; `why` is one of the words above."""

    def __init__(self, why: str, text: str) -> None:
        """Keep both."""
        super().__init__(text)
        self.why = why


class _Events(TemplateLogger):
    """esptool's logger: what it would print becomes events, most of it nothing."""

    def __init__(self, sink: TextIO) -> None:
        self._sink = sink

    def event(self, event: str, **content: Any) -> None:
        """Write one line."""
        self._sink.write(json.dumps({"event": event, **content}) + "\n")
        self._sink.flush()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Throw away."""

    def note(self, message: str) -> None:
        """Throw away: notes are about the port, or say what we do anyhow."""

    def warning(self, message: str) -> None:
        """Hand on."""
        self.event("note", text=str(message))

    def error(self, message: str) -> None:
        """Hand on."""
        self.event("note", text=str(message))

    def stage(self, finish: bool = False) -> None:
        """Nothing is folded."""

    def progress_bar(
        self, cur_iter: int, total_iters: int, prefix: str = "", suffix: str = "",
        bar_length: int = 30,
    ) -> None:  # fmt: skip
        """Hand on."""
        self.event("progress", what=prefix.strip(), done=cur_iter, of=total_iters)

    def set_verbosity(self, verbosity: str) -> None:
        """There is one."""


def session(job: dict[str, Any], events: _Events) -> None:
    """Carry out `job`. Raises Failed."""
    step = "connect"
    try:
        chip = cmds.detect_chip(job["port"], connect_mode=job["before"])
        with chip:
            mac = "".join(f"{octet:02x}" for octet in chip.read_mac("BASE_MAC"))
            if job["chip"] != chip.CHIP_NAME:
                raise Failed(
                    "wrong-chip", f"the chip is an {chip.CHIP_NAME}, the board has an {job['chip']}"
                )
            if mac in job["others"]:
                raise Failed("wrong-box", f"the box {mac} is that of site {job['others'][mac]}")
            if job["unique_id"] not in ("", mac):
                raise Failed("wrong-box", f"the box is {mac}, not {job['unique_id']}")
            chip = cmds.run_stub(chip)
            if job["baud"] > _ROM_BAUD:
                chip.change_baud(job["baud"])
            cmds.attach_flash(chip)
            flash = flash_size_bytes(cmds.detect_flash_size(chip)) or 0
            events.event("chip", name=chip.CHIP_NAME, mac=mac, flash=flash)
            if not job["write"]:
                cmds.reset_chip(chip, "no-reset")
                return
            if flash < job["flash_octets"]:
                raise Failed(
                    "flash-size",
                    f"the flash has {flash} octets, the board has {job['flash_octets']}",
                )
            size = f"{job['flash_octets'] >> 20}MB"
            step = "write"
            parts = [(offset, Path(path).read_bytes()) for offset, path in job["write"]]
            cmds.write_flash(chip, parts, flash_size=size, erase_all=True)
            step = "verify"
            for offset, path in job["verify"]:
                events.event("progress", what=f"Comparing {offset:#010x}", done=0, of=1)
                cmds.verify_flash(chip, [(offset, Path(path).read_bytes())], flash_size=size)
            step = "reset"
            cmds.reset_chip(chip, job["after"])
    except _ERRORS as error:
        raise Failed(
            step, str(error).strip().splitlines()[0] if str(error) else repr(error)
        ) from None


def main() -> int:
    """Run the job on standard input."""
    # Only we write to the pipe: whatever prints goes to standard error, which is thrown away.
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    events = _Events(sink)
    log.set_logger(events)
    try:
        session(json.load(sys.stdin), events)
    except Failed as failure:
        events.event("failed", why=failure.why, text=str(failure))
        return 1
    events.event("done")
    return 0


if __name__ == "__main__":
    sys.exit(main())
