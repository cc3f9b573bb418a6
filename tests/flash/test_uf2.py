"""UF2 files and ROMFS of the RP2350 board: foreign readers, a simulated boot ROM, MicroPython."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from haaro_host.flash import boards, build, merge, rp2, uf2
from haaro_host.flash.errors import BadInputError
from tests.flash.conftest import MOUNT, PICO, PLAIN, S3, micropython
from tests.fleet.test_export import MICROPYTHON
from tests.uf2_rom import micropython_uf2
from tests.uf2_rom.rom import Rom


@pytest.fixture(scope="module")
def board():
    return boards.load(PICO)


@pytest.fixture
def place(board):
    return board.table.find("vfs")


def sectors(data):
    return [data[at : at + 512] for at in range(0, len(data), 512)]


def put(rom, data):
    for sector in sectors(data):
        rom.write_sector(sector)


# --- where things are -----------------------------------------------------------------------------


def test_the_filesystem_is_at_the_end_of_flash_and_romfs_below(board):
    rows = [(row.label, row.offset, row.end) for row in board.table.rows]
    assert rows == [
        ("firmware", 0, 0xA0000), ("romfs", 0xA0000, 0xE0000), ("vfs", 0xE0000, 0x200000),
    ]  # fmt: skip
    assert board.flash_octets == 2 << 20
    cmake = (boards.folder() / PICO / "mpconfigboard.cmake").read_text()
    sizes = dict(re.findall(r"set\(MICROPY_HW_(\w+)_BYTES (\d+)\)", cmake))
    assert int(sizes["FLASH_STORAGE"]) == board.table.find("vfs").size
    assert int(sizes["ROMFS"]) == board.table.find("romfs").size
    assert f"PICO_FLASH_SIZE_BYTES={board.flash_octets})" in cmake


@pytest.mark.parametrize(
    ("old", "new"),
    [("(1152 * 1024)", "(2048 * 1024)"), ("(1152 * 1024)", "(1 * 1024)"), ("_ROMFS_", "_OTHER_")],
    ids=["no room for MicroPython", "half a sector", "missing"],
)
def test_sizes_that_do_not_fit_the_flash_are_refused(tmp_path, monkeypatch, old, new):
    (tmp_path / PICO).mkdir()
    for path in (boards.folder() / PICO).iterdir():
        text = path.read_text()
        (tmp_path / PICO / path.name).write_text(
            text.replace(old, new) if path.suffix == ".h" else text
        )
    monkeypatch.setenv("HAARO_BOARDS", str(tmp_path))
    with pytest.raises(BadInputError, match=r"MICROPY_HW_ROMFS_BYTES|leave room for MicroPython"):
        boards.load(PICO)


# --- the form -------------------------------------------------------------------------------------


def test_microsofts_own_tool_writes_the_same_file_and_reads_ours_back(
    firmware, board, place, tmp_path
):
    made = firmware[PICO] / "vfs.uf2"
    tool = [sys.executable, "-m", "adafruit_uf2.uf2conv", "-f", "0xE48BFF57", "-o"]
    base = hex(0x10000000 + place.offset)
    subprocess.run(
        [*tool, tmp_path / "theirs.uf2", "-c", "-b", base, firmware[PICO] / "vfs.bin"], check=True
    )
    assert (tmp_path / "theirs.uf2").read_bytes() == made.read_bytes()
    said = subprocess.run(
        [*tool, tmp_path / "back.bin", made], check=True, capture_output=True, text=True
    ).stdout
    assert (tmp_path / "back.bin").read_bytes() == (firmware[PICO] / "vfs.bin").read_bytes()
    assert "0x100e0000" in said and "0xe48bff57" in said


def test_a_boot_rom_puts_the_filesystem_where_micropython_finds_every_file(
    firmware, place, tmp_path
):
    rom = Rom()
    put(rom, (firmware[PICO] / "vfs.uf2").read_bytes())
    assert rom.restarted
    assert rom.flash[: place.offset].count(0xFF) == place.offset
    (tmp_path / "flash.bin").write_bytes(rom.flash)
    status, lines = micropython(tmp_path / "flash.bin", place.offset, place.size, "list", 256)
    files = json.loads((firmware[PICO] / "manifest.json").read_text())["files"]
    assert status == 0, lines
    assert set(lines) == {f"{row['path']} {row['size']}" for row in files}
    status, lines = micropython(tmp_path / "flash.bin", place.offset, place.size, "write", 256)
    assert status == 0, lines


def test_what_is_no_uf2_for_this_kind_of_chip_is_refused():
    good = uf2.encode([(0, bytes(600))], 1)
    assert [b.address for b in uf2.decode("x", good)] == [0x10000000, 0x10000100, 0x10000200]
    for bad, said in (
        (b"", "blocks of 512"),
        (good[:-1], "blocks of 512"),
        (b"\xe9" + bytes(1023), "no UF2 block at octet 0"),
        (good[:-4] + bytes(4), "no UF2 block at octet 1024"),
        (good[:8] + bytes(4) + good[12:], "no family"),
        (good[:16] + b"\x80" + good[17:], "has 384 octets"),
    ):
        with pytest.raises(BadInputError, match=said):
            uf2.decode("x.uf2", bad)
    ignored = good[:8] + b"\x01\x20\x00\x00" + good[12:]
    assert len(uf2.decode("x", ignored)) == 2


# --- MicroPython's file ---------------------------------------------------------------------------


def test_micropythons_file_is_taken_apart_and_nothing_is_lost(board):
    program = rp2.read(board, micropython_uf2.binary(), "mp.uf2")
    assert program.notes == []
    ((offset, data),) = program.runs
    assert (offset, data.rstrip(b"\0")) == (0, micropython_uf2.image().rstrip(b"\0"))


def _shuffled(data):
    return b"".join(reversed(sectors(data)))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"".join(micropython_uf2.blocks(bytes(600), 0xE48BFF56)), "is for RP2040, board W5500"),
        (b"".join(micropython_uf2.blocks(bytes(600), 0xE48BFF5A)), "RP2350 as RISC-V"),
        (micropython_uf2.binary()[:512], "is for any chip"),
        (micropython_uf2.binary()[:-512], "156 blocks of 157; it is not whole"),
        (micropython_uf2.binary(octets=0xA0001), "goes from 0x0 to 0xa0100 in flash"),
        (b"".join(micropython_uf2.blocks(bytes(600), start=0x10000100)), "goes from 0x100"),
        (micropython_uf2.binary(files=0x100000), "has its filesystem at 0x100000"),
        (micropython_uf2.binary(files_octets=4096), "0xe0000, 4096 octets; board"),
        (b"\xe9" * 1024, "no UF2 block"),
    ],
    ids=["rp2040", "riscv", "no program", "cut", "too big", "not at 0", "other place",
         "other size", "bin"],
)  # fmt: skip
def test_a_micropython_that_would_not_start_or_find_the_files_is_refused(board, data, said):
    with pytest.raises(BadInputError, match=said):
        rp2.read(board, data, "mp.uf2")


def test_blocks_in_any_order_are_the_same_micropython(board):
    turned = _shuffled(micropython_uf2.binary())
    one, two = (rp2.read(board, d, "x") for d in (turned, micropython_uf2.binary()))
    assert one.runs == two.runs


def test_a_micropython_that_does_not_say_where_its_files_are_is_taken_with_a_note(board):
    plain = b"".join(micropython_uf2.blocks(bytes(5000)))
    (note,) = rp2.read(board, plain, "mp.uf2").notes
    assert "it must be at 0xe0000" in note
    # Pointers to nowhere are no error of ours either.
    wild = bytearray(micropython_uf2.image())
    wild[0x13C:0x144] = b"\xff" * 4 + b"\xfe\xff\xff\xff"
    assert rp2.read(board, b"".join(micropython_uf2.blocks(bytes(wild))), "mp.uf2").notes


def test_one_file_with_both_restarts_the_chip_once_and_leaves_nothing_of_an_earlier_life(
    board, place
):
    rom = Rom()
    rom.flash[:] = b"\x55" * len(rom.flash)
    program = rp2.read(board, micropython_uf2.binary(), "mp.uf2")
    files = b"files".ljust(place.size, b"\xff")
    put(rom, _shuffled(rp2.file(program, (place.offset, files))))
    assert rom.restarted
    assert rom.flash[place.offset :] == files
    assert rom.flash[: len(micropython_uf2.image())] == micropython_uf2.image()


# --- the simulated boot ROM -----------------------------------------------------------------------


def test_the_boot_rom_takes_blocks_in_any_order_and_twice():
    data = b"".join(micropython_uf2.blocks(micropython_uf2.image()))
    rom = Rom()
    for sector in [*sectors(data)[:9], *reversed(sectors(data))]:
        rom.write_sector(sector)
    assert (rom.restarted, rom.erased) == (True, 10)
    assert rom.flash[:40_000] == micropython_uf2.image()


def test_the_boot_rom_does_not_restart_without_every_block():
    data = sectors(b"".join(micropython_uf2.blocks(micropython_uf2.image())))
    rom = Rom()
    for sector in data[:-1] + data[:-1]:
        rom.write_sector(sector)
    assert not rom.restarted
    rom.write_sector(data[-1])
    assert rom.restarted


@pytest.mark.parametrize(
    "changes",
    [{"family": 0xE48BFF56}, {"flags": 0}, {"flags": 0x2001}, {"data": bytes(128)},
     {"address": 0x10000010}, {"address": 0x20000000}, {"number": 1}],
    ids=["family", "no family", "not main flash", "half", "odd", "not flash", "number"],
)  # fmt: skip
def test_the_boot_rom_writes_nothing_of_what_it_does_not_take(changes):
    words = {"address": 0x10000000, "data": bytes(256), "number": 0, "total": 1,
             "family": 0xE48BFF59}  # fmt: skip
    rom = Rom()
    rom.write_sector(micropython_uf2.block(**{**words, **changes}))
    rom.write_sector(b"no block at all".ljust(512, b"."))
    assert (rom.restarted, rom.erased) == (False, 0)
    rom.write_sector(micropython_uf2.block(**words))
    assert (rom.restarted, rom.erased) == (True, 1)


def test_another_transfer_makes_the_boot_rom_forget_the_first():
    """So that two families in one file, mixed, never end: one after the other they do."""
    one = micropython_uf2.blocks(bytes(512))
    two = micropython_uf2.blocks(bytes(512), 0xE48BFF57, 0x10080000)
    rom = Rom()
    for sector in (one[0], two[0], one[1], two[1]):
        rom.write_sector(sector)
    assert not rom.restarted
    rom.write_sector(two[0])
    assert rom.restarted
    before = bytes(rom.flash)
    rom.write_sector(micropython_uf2.blocks(b"late", start=0x10090000)[0])
    assert rom.flash == before, "a chip that has left its ROM takes nothing"


def test_a_build_for_another_layout_is_refused(firmware, board, tmp_path, monkeypatch):
    (tmp_path / PICO).mkdir()
    for path in (boards.folder() / PICO).iterdir():
        text = path.read_text().replace("(256 * 1024)", "(252 * 1024)")
        (tmp_path / PICO / path.name).write_text(text.replace("1152 * 1024", "1148 * 1024"))
    monkeypatch.setenv("HAARO_BOARDS", str(tmp_path))
    with pytest.raises(BadInputError, match=r"is not that of mpconfigboard\.h any more"):
        build.load(boards.load(PICO), firmware[PICO])
    for other in (S3, PLAIN):
        assert not (firmware[other] / "vfs.uf2").exists()


# --- ROMFS and make image -------------------------------------------------------------------------


def _imported(*words):
    done = subprocess.run(
        [MICROPYTHON, "-X", "heapsize=2m", MOUNT.with_name("run_in_place.py"), *words],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    return lines, int(last.removeprefix("heap "))


def test_micropython_runs_every_module_of_the_romfs_in_place_with_far_less_heap(firmware, board):
    folder = firmware[PICO]
    (row,) = [r for r in json.loads((folder / "manifest.json").read_text())["parts"]
              if r["path"] == "romfs.img"]  # fmt: skip
    place = board.table.find("romfs")
    assert (row["offset"], row["size"] <= place.size) == (place.offset, True)
    slot = folder / "files" / "slots" / "a"
    native = {p for p in slot.rglob("*.mpy") if p.read_bytes()[2] >> 2}
    refused = {f"refused {p.relative_to(slot).with_suffix('')}".replace("/", ".") for p in native}
    in_place, rom_heap = _imported("rom", folder / "romfs.img")
    from_files, files_heap = _imported("files", slot)
    assert set(in_place) == {"read only", *refused} and set(from_files) == refused != set()
    assert rom_heap < files_heap * 0.7, "code and constants stay where they are"


def test_mpremotes_own_builder_makes_the_same_romfs(firmware, tmp_path):
    program = tmp_path / "program"
    shutil.copytree(firmware[PICO] / "files" / "slots" / "a", program)
    (program / "manifest").unlink()  # of the slot, not of the program
    command = [sys.executable, "-m", "mpremote", "romfs", "-o", tmp_path / "theirs", "build"]
    subprocess.run([*command, program], check=True, capture_output=True)
    assert (tmp_path / "theirs").read_bytes() == (firmware[PICO] / "romfs.img").read_bytes()


def test_a_box_without_slots_starts_the_program_of_its_romfs(firmware, tmp_path):
    """The boot part finds it behind the slots in sys.path, where MicroPython has /rom."""
    boot = (firmware[PICO] / "files" / "main.py").read_text()
    image = firmware[PICO] / "romfs.img"
    code = (
        "import os, sys, vfs\n"
        f"data = open({str(image)!r}, 'rb').read()\n"
        "vfs.mount(vfs.VfsRom(data), '/rom')\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "sys.path[:] = ['', '.frozen', '/rom', '/rom/lib']\n"
        "sys.argv[:] = ['main.py', '--config', 'router.json', 'check']\n"
        f"exec({boot!r})\n"
    )
    done = subprocess.run([MICROPYTHON, "-c", code], capture_output=True, text=True, timeout=30)
    assert "router.json" in done.stdout + done.stderr, "the program reads its configuration"
    assert "ImportError" not in done.stderr


def test_an_image_for_the_drive_has_micropython_and_our_files(
    firmware, board, place, tmp_path, capsys
):
    (tmp_path / "mp.uf2").write_bytes(micropython_uf2.binary())
    assert merge.main([PICO, str(tmp_path / "mp.uf2"), str(firmware[PICO])]) == 0
    assert "while BOOTSEL is held" in capsys.readouterr().out
    rom = Rom()
    put(rom, (firmware[PICO] / f"{PICO}.uf2").read_bytes())
    assert rom.restarted
    assert rom.flash[place.offset :] == (firmware[PICO] / "vfs.bin").read_bytes()
    assert rom.flash[:40_000] == micropython_uf2.image()
    assert merge.main([PICO, str(firmware[PICO] / "vfs.uf2"), str(firmware[PICO])]) == 2
