"""The unmodified esptool with the simulated chip: what it writes is there, and comes back."""

import random
import time

import pytest

from tests.esp_loader.chip import Chip
from tests.esp_loader.line import Pty, Rfc2217, Trouble

STAY = ("--before", "no-reset", "--after", "no-reset")
NOISE = random.Random(6521).randbytes(50_000)
TEXT = b"A mobile router's filesystem compresses well. " * 2000


@pytest.fixture
def files(tmp_path):
    (tmp_path / "noise.bin").write_bytes(NOISE)
    (tmp_path / "text.bin").write_bytes(TEXT)
    return tmp_path


@pytest.mark.parametrize("stub", [(), ("--no-stub",)], ids=["stub", "rom"])
def test_what_is_written_is_verified_and_read_back(chip, esptool, files, stub):
    noise, text, back = files / "noise.bin", files / "text.bin", files / "back.bin"
    with Pty(chip) as line:
        port = ("--port", line.url, *STAY, *stub)
        status, said = esptool(*port, "write-flash", "0x10000", text, "0x510000", noise)
        assert status == 0, said
        assert said.count("Hash of data verified") == 2
        assert chip.flash[0x10000 : 0x10000 + len(TEXT)] == TEXT
        assert chip.flash[0x510000 : 0x510000 + len(NOISE)] == NOISE
        status, said = esptool(*port, "verify-flash", "0x10000", text, "0x510000", noise)
        assert (status, said.count("digest matched")) == (0, 2), said
        status, said = esptool(*port, "verify-flash", "0x11000", noise)
        assert status == 2, said
        status, said = esptool(*port, "read-flash", "0x10000", 9000, back)
        assert status == 0, said
        assert back.read_bytes() == TEXT[:9000]
    assert ("FLASH_DEFL_DATA" in chip.log) == (not stub), "the stub gets what compresses packed"


def test_esptool_sees_the_chip_its_mac_and_its_flash(chip, esptool):
    with Pty(chip) as line:
        status, said = esptool("--port", line.url, *STAY, "flash-id")
    assert status == 0, said
    for expected in ("ESP32-S3", "7c:df:a1:00:00:01", "Detected flash size: 16MB"):
        assert expected in said


def test_erasing_a_region_and_the_whole(chip, esptool):
    chip.flash[0x9000:0xA000] = chip.flash[0x400000:0x401000] = bytes(0x1000)
    with Pty(chip) as line:
        port = ("--port", line.url, *STAY)
        assert esptool(*port, "erase-region", "0x9000", "0x1000")[0] == 0
        assert (chip.flash[0x9000], chip.flash[0x400000]) == (0xFF, 0)
        assert esptool(*port, "--baud", 921600, "erase-flash")[0] == 0
    assert chip.flash.find(b"\0") == -1
    assert "CHANGE_BAUDRATE" in chip.log


def test_another_chip_is_refused(chip, esptool):
    chip.chip_id = 5
    with Pty(chip) as line:
        status, said = esptool("--port", line.url, *STAY, "--chip", "esp32s3", "erase-flash")
    assert status == 2
    assert "ESP32-C3" in said, said
    assert "ERASE_FLASH" not in chip.log


def test_a_damaged_block_is_sent_again(chip, esptool, files):
    with Pty(chip) as line:
        port = ("--port", line.url, *STAY, "--no-stub")
        chip.faults.bad_checksums = 1
        status, said = esptool(*port, "write-flash", "0x10000", files / "noise.bin")
    assert (status, chip.faults.bad_checksums) == (0, 0), said
    assert chip.flash[0x10000 : 0x10000 + len(NOISE)] == NOISE
    assert chip.log.count("FLASH_DATA") > -(-len(NOISE) // 1024), "one of them twice"


def test_blocks_that_are_always_damaged_end_in_an_error(chip, esptool, files):
    chip.faults.bad_checksums = -1
    with Pty(chip) as line:
        status, said = esptool(
            "--port", line.url, *STAY, "--no-stub", "write-flash", "0x10000", files / "noise.bin"
        )
    assert status == 2, said
    assert chip.flash[0x10000 : 0x10000 + 1024] == b"\xff" * 1024


def test_octets_that_get_lost_end_in_an_error_never_in_a_wrong_flash(chip, esptool, files):
    with Pty(chip, Trouble(lose=frozenset(range(30_000, 30_003)))) as line:
        status, said = esptool(
            "--port", line.url, *STAY, "--no-stub", "write-flash", "0x10000", files / "noise.bin"
        )
    written = chip.flash[0x10000 : 0x10000 + len(NOISE)] == NOISE
    assert (status == 0) == written, said
    assert status in (0, 2)


def test_a_flash_that_keeps_nothing_fails_the_comparison(chip, esptool, files):
    chip.faults.stuck_bits = (0x10007,)
    with Pty(chip) as line:
        status, said = esptool(
            "--port", line.url, *STAY, "write-flash", "0x10000", files / "text.bin"
        )
    assert status == 2, said
    assert "MD5" in said


def test_a_pulled_cable_ends_esptool(chip, esptool, files):
    with Pty(chip, Trouble(unplug_after=20_000)) as line:
        status, said = esptool("--port", line.url, *STAY, "write-flash", "0", files / "noise.bin")
        assert line.unplugged.is_set()
    assert status != 0, said


def test_a_slow_port_only_takes_longer(chip, esptool, files):
    (files / "few.bin").write_bytes(NOISE[:2000])
    with Pty(chip, Trouble(octets_per_s=20_000)) as line:
        status, said = esptool("--port", line.url, *STAY, "write-flash", "0", files / "few.bin")
    assert status == 0, said
    assert chip.flash[:2000] == NOISE[:2000]


def test_dtr_and_rts_choose_between_loader_and_application(tmp_path, esptool):
    """By RFC 2217 esptool resets into the loader, and out of it."""
    started = []
    chip = Chip(tmp_path / "flash.bin", started=lambda: started.append(chip.mode))
    chip.reset(download=False)
    assert started == ["application"]
    with Rfc2217(chip) as line:
        status, said = esptool("--port", line.url, "--no-stub", "read-mac", timeout=100)
        assert status == 0, said
        assert "7c:df:a1:00:00:01" in said
        give_up = time.monotonic() + 10
        while len(started) < 2 and time.monotonic() < give_up:
            time.sleep(0.02)
    assert started == ["application"] * 2
    chip.close()
