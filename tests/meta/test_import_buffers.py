"""Pools are made by main.py before it imports the package; the import allocates no buffer."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.meta.repository import FIRMWARE, micropython, module_name, python_files

LIMIT = 256
SCRIPT = Path(__file__).with_name("import_buffers.py")


def buffers(path: Path, modules: list[str]) -> list[str]:
    """Return the findings of import_buffers.py for `modules` found under `path`."""
    run = subprocess.run(
        [micropython(), "-X", "heapsize=4m", str(SCRIPT), str(LIMIT), *modules],
        env={**os.environ, "MICROPYPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr or run.stdout
    return run.stdout.splitlines()


def test_importing_the_package_allocates_no_buffer_over_256_octets():
    modules = [module_name(path, FIRMWARE) for path, _ in python_files(FIRMWARE / "haaro")]
    assert "haaro.compat" in modules
    assert buffers(FIRMWARE, modules) == []


@pytest.mark.parametrize(
    "source",
    [
        "POOL = bytearray(300)",
        "POOL = b'x' * 300",
        "POOL = bytes.fromhex('00' * 300)",
        "def f(pool=bytearray(300)):\n    return pool",
        "def outer():\n    pool = bytearray(300)\n    return lambda: pool\nf = outer()",
        "class Pool:\n    buffer = bytes(300)",
        "class Pool:\n    def __init__(self):\n        self.buffers = [b'x' * 300]\nPOOL = Pool()",
        "import array\nPOOL = array.array('I', [0] * 80)",
        "bytearray(300)",
    ],
)
def test_the_check_sees_a_planted_buffer(tmp_path, source):
    (tmp_path / "planted.py").write_text(source + "\n")
    assert buffers(tmp_path, ["planted"])


def test_the_check_lets_small_buffers_pass(tmp_path):
    source = "A = bytearray(256)\nB = b'x' * 256\nimport array\nC = array.array('H', [0] * 128)\n"
    (tmp_path / "planted.py").write_text(source)
    assert buffers(tmp_path, ["planted"]) == []
