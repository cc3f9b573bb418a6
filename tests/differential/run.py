"""Compare the wire layer on CPython and inside MicroPython: `python -m tests.differential.run`.

Messages are made on CPython and read by both; those that our own senders could make are built
again by both and must be the octets that were made. Any difference is printed and fails.
"""

import argparse
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path

from tests.differential import generate
from tests.meta.repository import ROOT, micropython

_PROGRAM = ROOT / "unix_port_tests" / "wire_report.py"
_BATCH = 5000
_SHOWN = 5

sys.path.append(str(ROOT / "unix_port_tests"))

import wire_report  # noqa: E402


def in_micropython(batch: list[tuple[str, bytes]], folder: Path) -> list[str]:
    """Return the reports that MicroPython makes of `batch`, one line each."""
    path = folder / "batch.hex"
    path.write_text("".join(f"{kind} {data.hex()}\n" for kind, data in batch))
    command = [micropython(), "-X", "heapsize=4m", str(_PROGRAM), str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return output.stdout.splitlines()


def differences(seed: int, count: int, tally: Counter[str] | None = None) -> list[str]:
    """Return one text for each message on which the runtimes differ, or that came back changed."""
    found = []
    lines = generate.lines(seed, count)
    with tempfile.TemporaryDirectory() as folder:
        while batch := list(islice(lines, _BATCH)):
            theirs = in_micropython(batch, Path(folder))
            if len(theirs) != len(batch):
                return [*found, f"MicroPython made {len(theirs)} reports of {len(batch)}"]
            for (kind, data), other in zip(batch, theirs, strict=True):
                ours = wire_report.report(kind, data)
                if ours != other:
                    found.append(
                        f"{kind} {data.hex()}\n  CPython     {ours}\n  MicroPython {other}"
                    )
                if kind == "v" and not ours.endswith(f",x{data.hex()}]"):
                    found.append(f"{kind} {data.hex()}\n  was built again as {ours}")
                if tally is not None:
                    tally["refused" if ours.startswith("discard") else kind] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    print(f"seed {seed}, {arguments.count} messages", flush=True)
    tally: Counter[str] = Counter()
    start = time.monotonic()
    found = differences(seed, arguments.count, tally)
    for text in found[:_SHOWN]:
        print(text)
    seconds = time.monotonic() - start
    kinds = f"{tally['v']} built again, {tally['m']} others, {tally['p']} packets"
    print(f"{kinds}, {tally['refused']} refused, in {seconds:.0f} s")
    print(f"{len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
