"""The suite of unix_port_tests passes inside MicroPython; its runner tells when a test fails."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.repository import ROOT

MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [MICROPYTHON, "-X", "heapsize=384k", str(folder / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.timeout(600)
def test_suite_passes_inside_micropython():
    result = run(ROOT / "unix_port_tests")
    last = result.stdout.splitlines()[-1]
    assert re.fullmatch(r"[1-9][0-9]* passed, 0 failed", last), result.stdout + result.stderr
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("source", "summary"),
    [
        ("def test_a():\n    pass\n\ndef test_b():\n    assert 1 == 2\n", "1 passed, 1 failed"),
        ("import missing\n", "0 passed, 1 failed"),
        ("def test_a():\n    bytearray(1 << 30)\n", "0 passed, 1 failed"),
        ("import sys\n\ndef test_a():\n    sys.exit(0)\n", "0 passed, 1 failed"),
        (
            "# heapsize: 64k\nx = bytearray(100000)\n\ndef test_a():\n    pass\n",
            "0 passed, 1 failed",
        ),
    ],
)
def test_runner_reports_a_test_that_fails(tmp_path, source, summary):
    shutil.copy(ROOT / "unix_port_tests" / "run.py", tmp_path)
    (tmp_path / "test_planted.py").write_text(source)
    result = run(tmp_path)
    assert result.stdout.splitlines()[-1] == summary
    assert result.returncode == 1
