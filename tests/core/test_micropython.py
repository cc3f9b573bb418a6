"""The core inside MicroPython with the shipped heap."""

import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
MICROPYTHON = os.environ.get(
    "MICROPYTHON", str(pathlib.Path(sys.executable).with_name("micropython"))
)


def test_pair_inside_micropython_is_direct_for_ten_minutes_within_its_heap():
    """F2 of the threats does not happen without a fault; state of both routers under 96 KB."""
    script = ROOT / "tests/core/micropython_pair.py"
    done = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=384k", str(script), str(ROOT / "firmware")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    found = re.fullmatch(
        r"direct_at (\d+) counters (\{.*\}) imports (\d+) state (\d+)", done.stdout.strip()
    )
    assert found, done.stdout + done.stderr
    assert int(found.group(1)) <= 8000
    assert found.group(2) == "{}"
    assert int(found.group(4)) < 2 * 48 * 1024
