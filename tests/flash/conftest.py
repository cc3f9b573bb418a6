"""Builds of both boards, stand-ins for MicroPython, a fleet whose sites are such boards."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from haaro_host.flash import boards, build
from haaro_host.lab import system
from tests.esp_loader.chip import Chip
from tests.esp_loader.micropython_binary import binary
from tests.fleet.conftest import Shop, quick, shop  # noqa: F401 (fixtures)
from tests.fleet.test_export import MICROPYTHON

S3, PLAIN, PICO = "ESP32_S3_W5500", "ESP32_W5500", "W5500_EVB_PICO2"
MOUNT = Path(__file__).with_name("mount.py")


@pytest.fixture(scope="session")
def firmware(source, tmp_path_factory):
    """{board: folder of its build}."""
    base = tmp_path_factory.mktemp("firmware")
    for name in (S3, PLAIN, PICO):
        build.build(boards.load(name), base / name)
    return {name: base / name for name in (S3, PLAIN, PICO)}


@pytest.fixture(scope="session", autouse=True)
def source(tmp_path_factory):
    """A copy of the firmware, so that all builds of a run are of one state of the tree."""
    base = tmp_path_factory.mktemp("source")
    shutil.copytree(system.firmware().parent, base / "firmware")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAARO_FIRMWARE", str(base / "firmware" / "main.py"))
        yield base


@pytest.fixture(scope="session")
def micropython_bin(tmp_path_factory):
    """{board: path of a file such as MicroPython's download page has for its chip}."""
    base = tmp_path_factory.mktemp("micropython")
    made = {}
    for name in (S3, PLAIN):
        made[name] = base / f"{name}.bin"
        made[name].write_bytes(binary(boards.load(name).mcu, base))
    return made


@pytest.fixture
def site(shop):  # noqa: F811
    """The fleet of three sites with keys; office-a is an ESP32-S3 with the chip's id."""
    shop.change(
        "[site.office-a]\n", f'[site.office-a]\nboard = "{S3}"\nunique_id = "7cdfa1000001"\n'
    )
    shop.run("keys", "new")
    return shop


@pytest.fixture
def chip(tmp_path):
    (tmp_path / "chip").mkdir()
    made = Chip(tmp_path / "chip" / "flash.bin")
    yield made
    made.close()


def mount_command(image: Path, offset: int, octets: int, word: str, progsize: int = 32):
    """How mount.py is run on a filesystem in a file."""
    # No box imports everything at once.
    heap = "heapsize=1m" if word == "import" else "heapsize=384k"
    return [MICROPYTHON, "-X", heap, MOUNT, image, str(offset), str(octets), word, str(progsize)]


def micropython(image: Path, offset: int, octets: int, word: str, progsize: int = 32):
    """Run mount.py on a filesystem in a file; (exit status, lines)."""
    command = mount_command(image, offset, octets, word, progsize)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def flash_command(shop: Shop, port: str, micropython: Path, firmware: Path, *more: str):  # noqa: F811
    """The words of `haaro flash office-a` on a port without DTR and RTS."""
    return (
        "flash", "office-a", "--port", port, "--micropython", micropython, "--firmware", firmware,
        "--before", "no-reset", "--after", "no-reset", "--wait", "0", *more,
    )  # fmt: skip


def audit_lines(shop: Shop):  # noqa: F811
    """The audit lines beside the fleet file."""
    path = shop.directory / "provision.log"
    assert os.stat(path).st_mode & 0o777 == 0o600
    return [json.loads(line) for line in path.read_text().splitlines()]
