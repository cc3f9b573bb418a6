"""The same below a real littlefs in real MicroPython: torn writes of flash, block by block."""

import ast
import random
import subprocess
from pathlib import Path

import pytest

from haaro_host.lab import system
from tests.ota.conftest import PUBLIC, ROOT, bundle, program

_HERE = Path(__file__).parent


def micropython(script, *arguments, heap="448k", seconds=120):
    """Run a script beside this file; its lines."""
    done = subprocess.run(
        [system.micropython(), "-X", f"heapsize={heap}", str(_HERE / script), *arguments],
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(150)
def test_a_power_cut_at_120_writes_of_the_flash_always_boots(tmp_path):
    """P5: a program that is whole starts after each, the old one or the new one."""
    path = tmp_path / "bundle"
    more = {f"haaro/m{i}.mpy": random.Random(i).randbytes(1500 + 400 * i) for i in range(8)}
    path.write_bytes(bundle({**program("new"), **more}))
    firmware = str(ROOT / "firmware")
    # Before it: what files that were open say when they are collected without power.
    line = micropython("littlefs_cuts.py", firmware, str(path), PUBLIC.hex(), "120", heap="2m")[-1]
    writes, cuts, found = line.split(" ", 2)
    assert int(writes) > 120 and int(cuts) == 120
    versions = dict(ast.literal_eval(found))
    assert sum(versions.values()) == 120
    assert {"0.1.0-r1", "0.2.0-r1 on trial"} <= set(versions) <= {
        "0.1.0-r1", "0.2.0-r1 on trial", "0.2.0-r1"
    }  # fmt: skip


def test_a_bundle_is_taken_in_a_heap_that_a_running_router_leaves(tmp_path):
    """P7: what unpacking borrows is bounded, whatever the size of the bundle."""
    files = {f"haaro/m{i}.py": bytes([65 + i % 26]) * 9000 for i in range(150)}
    path = tmp_path / "bundle"
    path.write_bytes(bundle(files))
    (line,) = micropython(
        "install_heap.py", str(ROOT / "firmware"), str(path), PUBLIC.hex(), str(tmp_path),
        heap="96k",
    )  # fmt: skip
    assert line == "0.2.0-r1 in b 3 a"
