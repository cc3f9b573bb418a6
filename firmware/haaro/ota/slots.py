"""The two slots of a box: which program runs, which one is tried, what was refused.

    slots/a/, slots/b/   a program each; `manifest` in it is written last, so it is whole
    slots/boot           which one starts (firmware/boot.py has the format)
    slots/floor          the highest version that was ever kept: an older one needs a signed leave
    slots/tried          SHA-256 of the bundle that was tried last, the attempt, its version

Each file is written beside, synced and renamed. Nothing is written while nothing changes.
"""

import os
import sys

from haaro.compat import const
from haaro.shell.staging import exists, remove, sync_directory

_STARTS = const(3)


def running() -> tuple | None:
    """Return (what stands before "slots/", "a" or "b") of the program that runs, None without."""
    for path in sys.path:
        if path[-7:] in ("slots/a", "slots/b"):
            return path[:-7], path[-1]
    return None


def version_of(text: str) -> tuple:
    """Return "1.2.3-r4" as (1, 2, 3, 4). Raises ValueError."""
    numbers, _, release = text.partition("-r")
    found = tuple([int(number) for number in numbers.split(".") + [release]])
    if len(found) != 4 or min(found) < 0 or max(found) > 0xFFFF:
        raise ValueError("%s: is no version such as 0.1.0-r3" % text[:32])
    return found


class Slots:
    """The slots of the box that this program runs on; `slot` is the one it is in."""

    def __init__(self, base: str, slot: str) -> None:
        self.folder = base + "slots/"
        self.slot = slot
        self.idle = "b" if slot == "a" else "a"
        about = manifest(self.path(slot, "manifest"))
        self.version = about.get("version", "0.0.0-r0")
        self.board = about.get("board", "")

    def path(self, slot: str, name: str = "") -> str:
        """Return the path of a file in a slot."""
        return self.folder + slot + "/" + name

    def state(self) -> str:
        """Return "trial", "returned" (the other slot did not make it) or "running"."""
        words = self.words("boot")
        if len(words) == 3 and words[0] == self.slot:
            return "trial"
        return "returned" if words[1:] == ["failed"] else "running"

    def floor(self) -> tuple:
        """Return the version below which nothing is taken without a signed leave."""
        words = self.words("floor")
        own = version_of(self.version)
        return max(own, version_of(words[0])) if words and self.state() != "trial" else own

    def words(self, name: str) -> list:
        """Return the words of a file beside the slots, [] without one."""
        try:
            with open(self.folder + name) as file:
                return file.read().split()
        except OSError:
            return []

    def try_idle(self, digest: str, attempt: int, version: str) -> None:
        """Let the next starts be the idle slot's, which is whole; three of them, or it is over."""
        floor = "%d.%d.%d-r%d" % self.floor()
        if self.words("floor") != [floor]:
            self.write("floor", floor)
        self.write("tried", "%s %d %s" % (digest, attempt, version))
        self.write("boot", "%s %d %s" % (self.idle, _STARTS, self.slot))

    def commit(self) -> None:
        """This slot is kept."""
        # Before it is kept: a cut in between leaves a trial that is kept at its next start.
        words = self.words("floor")
        own = version_of(self.version)
        if not words or version_of(words[0]) < own:
            self.write("floor", self.version)
        self.write("boot", self.slot)

    def give_back(self) -> None:
        """This slot did not make it: the other one is next."""
        self.write("boot", self.idle + " failed")

    def write(self, name: str, text: str) -> None:
        """Replace a file beside the slots. Raises OSError."""
        path = self.folder + name
        with open(path + ".new", "wb") as file:
            file.write(text.encode() + b"\n")
            file.flush()
        os.rename(path + ".new", path)
        sync_directory(path)

    def forget_part(self, but: str = "") -> None:
        """Remove what came in of a bundle, unless it is called `but`."""
        for name in os.listdir(self.folder or "."):
            if name.endswith(".part") and name != but:
                remove(self.folder + name)


def manifest(path: str) -> dict:
    """Return the words before the files of a manifest: {"version": ..., "board": ...}."""
    found = {}
    if exists(path):
        with open(path) as file:
            for line in file:
                key, _, value = line.strip().partition(" ")
                if key == "file":
                    break
                found[key] = value
    return found
