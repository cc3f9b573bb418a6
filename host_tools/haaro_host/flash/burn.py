"""Writes a box's flash through `worker.py`, and turns what went wrong into what to do about it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haaro_host.flash.boards import Board
from haaro_host.flash.errors import FlashError
from haaro_host.fleet.files import PRIVATE

# (what is done, done so far, in all)
Progress = Callable[[str, int, int], None]
# Octets come one by one from a chip that waits for us, never so slowly: then it is gone.
_SILENT_S = 180.0


@dataclass(frozen=True)
class Part:
    """Octets at an offset of the flash. `name` is for people."""

    name: str
    offset: int
    data: bytes


@dataclass
class Found:
    """Who answered at a port."""

    chip: str = ""
    mac: str = ""
    flash_octets: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Cable:
    """How the box is reached. `before` and `after` are esptool's words for its resets."""

    port: str
    baud: int = 460800
    before: str = "default-reset"
    after: str = "hard-reset"


@dataclass(frozen=True)
class Owner:
    """Whose box it may be: the unique id it must have, "" any but those of `others` (id: site)."""

    unique_id: str = ""
    others: dict[str, str] = field(default_factory=dict)


_REMEDIES = {
    "connect": "check the cable and the port; then hold the box's BOOT button, press RESET, and let"
    " BOOT go; `haaro doctor flash` says whether you may open the port",
    "wrong-chip": "nothing was written; take the right box, or correct the site's board",
    "wrong-box": "nothing was written; take the right box, or correct the site's unique_id",
    "flash-size": "nothing was written; this board needs the bigger flash",
    "write": "the box does not start now; check the cable, try a smaller --baud, and give the same"
    " command again",
    "verify": "the flash does not hold what was written; give the same command again, and if it"
    " says so once more, replace the box",
    "reset": "everything is written and compared; press the box's RESET button",
}


def identify(board: Board, cable: Cable) -> Found:
    """Return who is at the port; nothing is written. Raises FlashError."""
    return _run(board, cable, [], [], Owner(), lambda *_: None)


def burn(
    board: Board, cable: Cable, write: list[Part], verify: list[Part], owner: Owner,
    progress: Progress,
) -> Found:  # fmt: skip
    """Erase the flash, write, compare by hash, restart.

    Raises FlashError. What is handed over in files is readable by this user only, and removed.
    """
    return _run(board, cable, write, verify, owner, progress)


def _run(
    board: Board, cable: Cable, write: list[Part], verify: list[Part], owner: Owner,
    progress: Progress,
) -> Found:  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="haaro-flash-") as folder:
        job = {
            "port": cable.port,
            "baud": cable.baud,
            "before": cable.before,
            "after": cable.after,
            "chip": board.chip.name,
            "unique_id": owner.unique_id,
            "others": owner.others,
            "flash_octets": board.flash_octets,
            "write": _laid_out(Path(folder), "w", write),
            "verify": _laid_out(Path(folder), "v", verify),
        }
        return _session(job, cable, progress)


def _laid_out(folder: Path, letter: str, parts: list[Part]) -> list[tuple[int, str]]:
    files = []
    for number, part in enumerate(parts):
        path = folder / f"{letter}{number}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(handle, "wb") as sink:
            sink.write(part.data)
        files.append((part.offset, str(path)))
    return files


def _session(job: dict[str, Any], cable: Cable, progress: Progress) -> Found:
    found = Found()
    failure = ("connect", "esptool ended without a word")
    worker = subprocess.Popen(
        [sys.executable, "-m", "haaro_host.flash.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert worker.stdin is not None and worker.stdout is not None
    watch = threading.Timer(_SILENT_S, worker.kill)
    watch.start()
    try:
        with worker.stdin as pipe:
            pipe.write(json.dumps(job))
        for line in worker.stdout:
            watch.cancel()
            watch = threading.Timer(_SILENT_S, worker.kill)
            watch.start()
            event = json.loads(line)
            if event["event"] == "progress":
                progress(event["what"], event["done"], event["of"])
            elif event["event"] == "chip":
                found.chip, found.mac = event["name"], event["mac"]
                found.flash_octets = event["flash"]
            elif event["event"] == "note":
                found.notes.append(event["text"])
            elif event["event"] == "failed":
                failure = (event["why"], event["text"])
        status = worker.wait()
    finally:
        watch.cancel()
        worker.kill()
        worker.wait()
        worker.stdout.close()
    if status:
        why, text = failure
        raise FlashError(f"{cable.port}: {text}; {_REMEDIES[why]}")
    return found
