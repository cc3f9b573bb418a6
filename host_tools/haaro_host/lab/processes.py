"""Starts and ends the lab's processes and remembers them.

A process is known by its pid and its start time, so a pid that was given to somebody else since is
never signalled. Owns nothing on the network.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from haaro_host.lab.system import LabError

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_START_TIME_FIELD = 19  # field 22 of /proc/PID/stat, counted after the command's ")"
_STATE_FIELD = 0
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Process:
    """A process the lab started: pid and start time (clock ticks since boot)."""

    pid: int
    start: int
    command: str
    log: str

    def alive(self) -> bool:
        """True while it runs (a zombie doesn't)."""
        found = _stat(self.pid)
        return found is not None and found[1] == self.start and found[0] not in "ZX"

    def send(self, number: signal.Signals) -> None:
        """Signal it if it still is the same process."""
        if self.alive():
            os.kill(self.pid, number)


def start(
    command: Sequence[str],
    log: Path,
    die_with_parent: bool = False,
    environment: dict[str, str] | None = None,
) -> Process:
    """Start `command` in a session of its own, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        child = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
            preexec_fn=die_with_the_parent if die_with_parent else None,
        )
    found = _stat(child.pid)
    if found is None:
        raise LabError(f"`{' '.join(command)}` ended at once; see {log}")
    _CHILDREN[child.pid] = child
    return Process(child.pid, found[1], " ".join(command), str(log))


def die_with_the_parent() -> None:
    """In a child: have the kernel kill it when the thread that started it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def stop(process: Process, deadline_s: float, ask: Callable[[], None]) -> bool:
    """`ask` it to end; after `deadline_s` seconds SIGKILL. True if it ended by itself."""
    with suppress(OSError):
        ask()
    if wait_until(lambda: gone(process), deadline_s):
        return True
    process.send(signal.SIGKILL)
    wait_until(lambda: gone(process), deadline_s)
    return False


def gone(process: Process) -> bool:
    """True when it has ended; reaps it if it was ours."""
    child = _CHILDREN.get(process.pid)
    if child is not None and child.poll() is not None:
        del _CHILDREN[process.pid]
    return not process.alive()


def wait_until(condition: Callable[[], bool], deadline_s: float, every_s: float = _POLL_S) -> bool:
    """Poll `condition` until it holds or `deadline_s` seconds have passed; the last answer."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() >= end:
            return False
        time.sleep(every_s)
    return True


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace `path` by `text` in one step; the file is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w") as sink:
        sink.write(text)
        sink.flush()
        os.fsync(sink.fileno())
    draft.replace(path)


class State:
    """What a lab has started, in one JSON file."""

    VERSION = 1

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stage = "absent"
        self.processes: dict[str, Process] = {}
        self.load()

    def load(self) -> None:
        """Read the file again; an absent or broken one counts as absent."""
        try:
            data = json.loads(self.path.read_text())
            entries = {key: Process(**value) for key, value in data["processes"].items()}
            self.stage, self.processes = str(data["stage"]), entries
        except (OSError, ValueError, KeyError, TypeError):
            self.stage, self.processes = "absent", {}

    def save(self) -> None:
        """Write the file atomically."""
        data = {
            "version": self.VERSION,
            "stage": self.stage,
            "processes": {key: asdict(value) for key, value in self.processes.items()},
        }
        write_atomically(self.path, json.dumps(data, indent=2) + "\n")

    def alive(self) -> dict[str, Process]:
        """The processes that run now."""
        return {key: value for key, value in self.processes.items() if value.alive()}


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields[_STATE_FIELD], int(fields[_START_TIME_FIELD])
