"""A blank chip in a file, and the unmodified esptool."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.esp_loader.chip import Chip


@pytest.fixture
def chip(tmp_path: Path) -> Iterator[Chip]:
    made = Chip(tmp_path / "flash.bin")
    yield made
    made.close()


@pytest.fixture
def esptool():
    """Run `esptool ARGUMENTS`; (exit status, what it printed)."""

    def run(*arguments, timeout=60):
        done = subprocess.run(
            [sys.executable, "-m", "esptool", *map(str, arguments)],
            capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run
