"""Clocks that are wrong, and can be set while a program runs: one file a node, milliseconds in it.

    python -P clocks.py FILE ha --config ha.toml

runs `haaro` with the arguments behind FILE; its wall clock is the machine's plus what FILE says at
that moment. The monotonic clocks stay as they are, as when an administrator sets the time. Time
namespaces cannot do this: they shift the monotonic clocks only.

A router gets the same by a module `time` of ours before the built-in one in MICROPYPATH, which is
how MicroPython says a built-in module is extended.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HOUR_MS = 3_600_000
DECADE_MS = 3652 * 24 * HOUR_MS
_LONGEST = 32
_MICROPYTHON = """\
from utime import *
import utime


def time_ns():
    with open({path!r}) as file:
        return utime.time_ns() + int(file.read()) * 1000000


def time():
    return time_ns() // 1000000000
"""


class Clock:
    """The wall clock of one node, shifted by a file of its own in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "shift_ms"
        self._module = directory / "micropython"

    def shift(self, milliseconds: int) -> None:
        """Set the clock to the machine's plus this, for a program that runs too."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name("shift_ms.new")
        draft.write_text(str(milliseconds))
        draft.replace(self.path)

    def haaro(self) -> list[str]:
        """Return the command in place of `haaro`."""
        return [sys.executable, "-P", str(Path(__file__)), str(self.path)]

    def micropython(self) -> dict[str, str]:
        """Return the environment for a router."""
        self._module.mkdir(parents=True, exist_ok=True)
        (self._module / "time.py").write_text(_MICROPYTHON.format(path=str(self.path)))
        return {"MICROPYPATH": f"{self._module}:.frozen"}


def main() -> None:
    """Run `haaro` with the arguments behind the first, its clock shifted by that file."""
    path = sys.argv[1]
    real_ns, real = time.time_ns, time.time

    def shift_ms() -> int:
        handle = os.open(path, os.O_RDONLY)
        try:
            return int(os.read(handle, _LONGEST))
        finally:
            os.close(handle)

    time.time_ns = lambda: real_ns() + shift_ms() * 1_000_000
    time.time = lambda: real() + shift_ms() / 1000
    sys.argv = ["haaro", *sys.argv[2:]]
    from haaro_host.cli import main as haaro

    haaro()


if __name__ == "__main__":
    main()
