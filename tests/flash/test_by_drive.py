"""`haaro flash` of an RP2350 board: one file to the boot ROM's drive, then its console is asked."""

import os
import re
from pathlib import Path

import pytest

from haaro_host.flash import boards, build, by_drive
from tests.flash.conftest import PICO, S3, audit_lines, micropython
from tests.uf2_rom import micropython_uf2
from tests.uf2_rom.board import UNIQUE_ID, Desk
from tests.uf2_rom.rom import INFO


@pytest.fixture
def pico(shop, monkeypatch):
    """The fleet with keys, whose office-a has such a board with a cable as its uplink."""
    shop.change(
        "[site.office-a]\n",
        f'[site.office-a]\nboard = "{PICO}"\nunique_id = "{UNIQUE_ID}"\n'
        'router.uplinks = [{ name = "wire", driver = "ethernet" }]\n',
    )
    shop.run("keys", "new")
    monkeypatch.setattr(by_drive, "_TAKEN_S", 20.0)
    (shop.directory / "mp.uf2").write_bytes(micropython_uf2.binary())
    return shop


def command(shop, firmware, desk, *more):
    return (
        "flash", "office-a", "--micropython", shop.directory / "mp.uf2", "--firmware",
        firmware[PICO], "--drive", desk.drive.place, "--wait", "0", *more,
    )  # fmt: skip


def test_a_blank_board_gets_one_file_starts_from_it_and_says_what_it_has(pico, firmware, tmp_path):
    with Desk(tmp_path / "desk") as desk:
        said = pico.run(*command(pico, firmware, desk, "--port", desk.port))
    assert "office-a is flashed" in said
    place = boards.load(PICO).table.find("vfs")
    status, lines = micropython(desk.flash, place.offset, place.size, "list", 256)
    names = {entry.split()[0] for entry in lines}
    assert status == 0
    assert {"main.py", "pins.csv", "router.json", "router.secrets.json"} <= names
    assert "slots/a/haaro_router.mpy" in names
    (entry,) = audit_lines(pico)
    assert (entry["site"], entry["way"], entry["result"]) == ("office-a", "flash", "flashed")
    assert (entry["unique_id"], entry["board"], entry["error"]) == (UNIQUE_ID, PICO, "")
    for text in [*pico.printed, (pico.directory / "provision.log").read_text()]:
        assert not re.search("[0-9a-f]{64}", text)


def test_a_dry_run_says_what_would_be_written_and_touches_nothing(pico, firmware, tmp_path):
    with Desk(tmp_path / "desk") as desk:
        said = pico.run(*command(pico, firmware, desk, "--dry-run"))
        assert desk.drive.sectors <= 6, "only the drive's own files"
    assert re.search(r"0x00000000 +40192 MicroPython", said)
    assert re.search(r"0x000e0000 +1179648 filesystem", said)
    assert not (pico.directory / "provision.log").exists()


def test_another_box_is_told_by_its_console(pico, firmware, tmp_path):
    pico.change(f'unique_id = "{UNIQUE_ID}"', 'unique_id = "ffffffffffff"')
    with Desk(tmp_path / "desk") as desk:
        said = pico.run(*command(pico, firmware, desk, "--port", desk.port), status=1)
    assert f"the box {UNIQUE_ID} is another one and has the files of this site now" in said
    assert audit_lines(pico)[0]["result"] == "failed"


def test_a_sector_that_got_lost_leaves_the_chip_in_its_rom_and_the_operator_with_a_remedy(
    pico, firmware, tmp_path, monkeypatch
):
    monkeypatch.setattr(by_drive, "_TAKEN_S", 2.0)
    # Its only copy: what comes after the first three is sent once.
    with Desk(tmp_path / "desk", lose=frozenset({2000})) as desk:
        said = pico.run(*command(pico, firmware, desk), status=1)
        assert not desk.rom.restarted
        assert [path.name for path in desk.drive.place.iterdir() if "HAARO" in path.name] == []
    assert "has not taken all of it and stays in its boot ROM" in said
    assert "hold the box's BOOTSEL button" in said
    with Desk(tmp_path / "again") as desk:
        said = pico.run(*command(pico, firmware, desk))
    assert "office-a is flashed" in said
    assert "without --port nobody asks the box" in said


def test_a_cable_that_is_pulled_leaves_a_console_that_does_not_answer(
    pico, firmware, tmp_path, monkeypatch
):
    monkeypatch.setattr(by_drive, "_ANSWER_S", 0.5)
    with Desk(tmp_path / "desk", pull_after=900) as desk:
        said = pico.run(*command(pico, firmware, desk, "--port", desk.port), status=1)
        assert not desk.rom.restarted
    assert "its console does not answer" in said


def test_a_drive_that_fails_is_an_error_with_what_to_do(tmp_path):
    """/dev/full refuses the first octets, as a drive does that goes."""
    (tmp_path / by_drive.INFO).write_text(INFO)
    os.symlink("/dev/full", tmp_path / "HAARO.UF2")
    with pytest.raises(by_drive.FlashError, match="after 0 of 512 octets; the box does not start"):
        by_drive.send(tmp_path, bytes(512), lambda *_: None)


def test_the_drive_is_found_and_another_chips_is_refused(tmp_path, monkeypatch):
    board = boards.load(PICO)
    monkeypatch.setattr(by_drive, "_PLACES", (f"{tmp_path}/*",))
    with pytest.raises(by_drive.FlashError, match=r"hold the box's BOOTSEL button.*--drive DIR"):
        by_drive.find(board, None)
    with pytest.raises(by_drive.FlashError, match=r"no INFO_UF2\.TXT"):
        by_drive.find(board, tmp_path)
    for name in ("RP2350", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "RP2350" / by_drive.INFO).write_text(INFO)
    assert by_drive.find(board, None) == tmp_path / "RP2350"
    old = INFO.replace("RP2350", "RPI-RP2")
    (tmp_path / "other" / by_drive.INFO).write_text(old)
    with pytest.raises(by_drive.FlashError, match="2 drives of boot ROMs"):
        by_drive.find(board, None)
    with pytest.raises(by_drive.FlashError, match=r"the drive of RPI-RP2.*nothing was written"):
        by_drive.find(board, tmp_path / "other")


def test_usage_that_makes_no_sense_ends_with_2(pico, firmware, tmp_path):
    rest = ("--micropython", pico.directory / "mp.uf2", "--firmware", firmware[PICO])
    for words in (
        ["flash", "office-a", "--port", "x", "--port", "y"],
        ["flash", "office-b", "--port", "x", "--drive", str(tmp_path)],
        ["flash", "--all", "--port", "x"],  # no site whose ids a port could tell
    ):
        assert "A fatal error occurred: " in pico.run(*words, *rest, status=2)
    pico.file.write_text(pico.file.read_text().replace(PICO, S3))
    said = pico.run(
        "flash", "office-a", "--dry-run", *rest[:2], "--firmware", firmware[S3], status=2
    )
    assert "does not begin like an ESP image" in said


def test_a_build_for_the_board_is_wanted(pico, tmp_path):
    rest = ("--micropython", pico.directory / "mp.uf2", "--firmware", tmp_path / "none")
    said = pico.run("flash", "office-a", "--dry-run", *rest, status=2)
    assert f"make firmware BOARD={PICO}" in said
    assert Path(build.default_folder(PICO)).name == PICO
