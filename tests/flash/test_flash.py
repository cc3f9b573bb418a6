"""`haaro flash`: a blank simulated chip becomes a site's box, or the operator is told why not."""

import json
import os
import re
import sys

import pytest

from haaro_host.flash import boards, micropython
from haaro_host.fleet import store
from tests.esp_loader.chip import Chip
from tests.esp_loader.line import Pty, Trouble
from tests.flash.conftest import PICO, PLAIN, S3, audit_lines, flash_command
from tests.flash.conftest import micropython as run_micropython
from tests.fleet.terminal import Terminal


def test_a_blank_chip_holds_micropython_table_program_files_and_keys(
    site, chip, firmware, micropython_bin, tmp_path
):
    chip.flash[0xD000:0xD020] = bytes(32)  # of an earlier life: a chosen slot, an old key
    chip.flash[0xF00000:0xF00010] = bytes(16)
    with Pty(chip) as line:
        said = site.run(*flash_command(site, line.url, micropython_bin[S3], firmware[S3]))
    assert "office-a is flashed" in said
    board = boards.load(S3)
    place = board.table.find("vfs")
    assert chip.flash[0x8000:0x8C00] == board.table.binary()
    theirs = micropython_bin[S3].read_bytes()
    (_, boot), (at, application) = micropython.split(board, theirs, "mp")
    assert chip.flash[at : at + len(application)] == application
    assert chip.flash[3] >> 4 == 4, "16 MB in the bootloader's header"
    assert (chip.flash[0], len(boot) > 4096) == (0xE9, True)
    for label in ("nvs", "otadata"):
        row = board.table.find(label)
        assert set(chip.flash[row.offset : row.end]) == {0xFF}, "nothing of an earlier life stays"
    assert chip.flash[0xF00000:0xF00010] != bytes(16)
    chip.flash.flush()
    flash_file = tmp_path / "chip" / "flash.bin"
    status, lines = run_micropython(flash_file, place.offset, place.size, "list")
    names = {entry.split()[0] for entry in lines}
    assert status == 0
    assert {"main.py", "router.json", "router.secrets.json", "slots/a/haaro_router.mpy"} <= names
    (entry,) = audit_lines(site)
    assert (entry["site"], entry["way"], entry["result"]) == ("office-a", "flash", "flashed")
    assert (entry["unique_id"], entry["board"], entry["error"]) == ("7cdfa1000001", S3, "")


def test_flashing_twice_leaves_the_same_octets(site, chip, firmware, micropython_bin):
    states = []
    for _ in range(2):
        with Pty(chip) as line:
            site.run(*flash_command(site, line.url, micropython_bin[S3], firmware[S3]))
        states.append(chip.flash[:])
        chip.reset(download=True)
    assert states[0] == states[1]


def test_no_secret_is_printed_kept_or_left_in_a_file(
    site, chip, firmware, micropython_bin, tmp_path, monkeypatch
):
    """Canary: the site's key is in the flash, and nowhere else."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    with Pty(chip) as line:
        command = flash_command(site, line.url, micropython_bin[S3], firmware[S3])
        site.run(*command, "--json")
        site.run(*command[:-2], "--wait", "0", "--port", line.url, status=2)
    monkeypatch.setenv("HAARO_PASSPHRASE", "correct horse battery")
    from haaro_host.fleet import inventory

    fleet = inventory.load(site.file)
    (record,) = store.open_store(fleet, None).keys.associations("office-a")
    key = record["key"]
    assert key.encode() in chip.flash[:]
    assert list(place.iterdir()) == []
    for text in [*site.printed, (site.directory / "provision.log").read_text()]:
        assert key not in text
        assert not re.search("[0-9a-f]{64}", text)


def test_json_names_its_form_and_what_was_written(site, chip, firmware, micropython_bin):
    with Pty(chip) as line:
        said = site.json(*flash_command(site, line.url, micropython_bin[S3], firmware[S3]))
    assert said["schema"] == "haaro.flash/1"
    (box,) = said["boxes"]
    assert (box["result"], box["unique_id"]) == ("flashed", "7cdfa1000001")
    offsets = [part["offset"] for part in box["parts"]]
    assert offsets == sorted(offsets)
    assert offsets[:3] == [0, 0x8000, 0x10000]


# --- before a port is touched ---------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_written_and_touches_nothing(site, firmware, micropython_bin):
    words = ("flash", "office-a", "--dry-run", "--firmware", firmware[S3])
    said = site.run(*words, "--micropython", micropython_bin[S3])
    assert re.search(r"0x00008000 +3072 partition table", said)
    assert re.search(r"0x00010000 +\d+ MicroPython", said)
    assert not (site.directory / "provision.log").exists()
    said = site.run(*words, "--micropython", micropython_bin[PLAIN], status=2)
    assert "is for ESP32" in said
    assert "which MicroPython?" in site.run(*words, status=2)


def test_usage_that_makes_no_sense_ends_with_2(site, firmware, micropython_bin):
    rest = ("--micropython", micropython_bin[S3], "--firmware", firmware[S3])
    for words in (
        ["flash"],
        ["flash", "office-a"],
        ["flash", "office-a", "--all", "--port", "x"],
        ["flash", "office-a", "--port", "x", "--port", "y"],
        ["flash", "--all", "--dry-run", "--port", "x"],
        ["flash", "--all", "--port", "x", "--port", "x"],
    ):
        assert "A fatal error occurred: " in site.run(*words, *rest, status=2)


def test_a_site_whose_board_is_not_flashed_or_cannot_do_it_is_refused(
    site, firmware, micropython_bin
):
    rest = ("--dry-run", "--micropython", micropython_bin[S3], "--firmware", firmware[S3])
    assert "UNIX is not flashed" in site.run("flash", "office-b", *rest, status=2)
    site.change("[site.office-a]\n", "[site.office-a]\nrouter.dataplane = 'kernel'\n")
    assert "has only" in site.run("flash", "office-a", *rest, status=2)
    assert 'no site "office-x"' in site.run("flash", "office-x", *rest, status=1)


def test_a_site_without_a_key_is_refused(shop, firmware, micropython_bin):
    shop.change("[site.office-a]\n", f'[site.office-a]\nboard = "{S3}"\n')
    shop.run("keys", "new", "office-b")
    rest = ("--dry-run", "--micropython", micropython_bin[S3], "--firmware", firmware[S3])
    assert "haaro keys new office-a" in shop.run("flash", "office-a", *rest, status=1)


# --- what goes wrong at the port ------------------------------------------------------------------


def failing(site, chip, firmware, micropython_bin, trouble=None):
    """Flash, expect exit status 1; what was printed."""
    with Pty(chip, trouble) as line:
        command = flash_command(site, line.url, micropython_bin[S3], firmware[S3])
        said = site.run(*command, status=1)
    (entry,) = audit_lines(site)
    assert (entry["result"], bool(entry["error"])) == ("failed", True)
    assert entry["error"] in said
    return said


def untouched(chip):
    return "ERASE_FLASH" not in chip.log and chip.flash[:].count(0xFF) == len(chip.flash)


def test_another_chip_is_refused_before_anything_is_written(site, chip, firmware, micropython_bin):
    chip.chip_id = 5
    said = failing(site, chip, firmware, micropython_bin)
    assert "the chip is an ESP32-C3, the board has an ESP32-S3; nothing was written" in said
    assert untouched(chip)


@pytest.mark.parametrize("whose", ["nobody's", "another site's"])
def test_another_box_is_refused_before_anything_is_written(
    site, chip, firmware, micropython_bin, whose
):
    chip.mac = bytes.fromhex("7cdfa1000002")
    chip.reset(download=True)
    if whose == "another site's":
        site.change('unique_id = "7cdfa1000001"\n', "")
        site.change("[site.office-b]\n", '[site.office-b]\nunique_id = "7cdfa1000002"\n')
    said = failing(site, chip, firmware, micropython_bin)
    assert ("that of site office-b" in said) == (whose != "nobody's")
    assert "the box" in said
    assert untouched(chip)


def test_a_smaller_flash_is_refused_before_anything_is_written(
    site, firmware, micropython_bin, tmp_path
):
    small = Chip(tmp_path / "small.bin", flash_octets=4 << 20)
    said = failing(site, small, firmware, micropython_bin)
    assert "the flash has 4194304 octets, the board has 16777216" in said
    assert untouched(small)
    small.close()


def test_a_silent_port_and_one_that_is_not_there_say_what_to_do(
    site, chip, firmware, micropython_bin
):
    chip.faults.dead_sync = True
    assert "hold the box's BOOT button" in failing(site, chip, firmware, micropython_bin)
    command = flash_command(site, "/dev/haaro-none", micropython_bin[S3], firmware[S3])
    assert "check the cable" in site.run(*command, status=1)


def test_a_flash_that_does_not_keep_what_is_written_is_found_out(
    site, chip, firmware, micropython_bin
):
    place = boards.load(S3).table.find("vfs")
    chip.faults.stuck_bits = (place.offset + 0x400001,)  # where nothing is written
    said = failing(site, chip, firmware, micropython_bin)
    assert "the flash does not hold what was written" in said


@pytest.mark.parametrize("after", [3_000, 20_000, 60_000])
def test_a_pulled_cable_is_an_error_and_the_next_run_is_whole(
    site, chip, firmware, micropython_bin, after
):
    failing(site, chip, firmware, micropython_bin, Trouble(unplug_after=after))
    chip.reset(download=True)
    with Pty(chip) as line:
        said = site.run(*flash_command(site, line.url, micropython_bin[S3], firmware[S3]))
    assert "office-a is flashed" in said


def test_octets_that_get_lost_are_sent_again_or_end_in_an_error(
    site, chip, firmware, micropython_bin
):
    """Whatever esptool makes of it, what counts as good is good."""
    with Pty(chip) as line:
        command = flash_command(site, line.url, micropython_bin[S3], firmware[S3])
        site.run(*command)
        whole = line.received
    good = chip.flash[:]
    for place in (whole // 3, whole // 2):
        chip.reset(download=True)
        trouble = Trouble(lose=frozenset(range(place, place + 3)))
        with Pty(chip, trouble) as line:
            again = flash_command(site, line.url, micropython_bin[S3], firmware[S3])
            site.run(*again, status=None)
            assert line.received > place + 3
        assert audit_lines(site)[-1]["result"] == "failed" or chip.flash[:] == good


def test_a_box_that_does_not_register_is_flashed_but_not_up(site, chip, firmware, micropython_bin):
    """Nobody answers for the home agent here: exit status 1, with what to look at."""
    with Pty(chip) as line:
        command = flash_command(site, line.url, micropython_bin[S3], firmware[S3])
        said = site.run(*command[:-2], "--wait", "0.5", status=1)
    assert "office-a is flashed, but was not seen to register within 0.5 s" in said
    assert "ask_home_agent" in said
    (entry,) = audit_lines(site)
    assert (entry["result"], bool(entry["error"])) == ("flashed", True)


def test_a_slow_port_is_only_slower(site, chip, firmware, micropython_bin):
    with Pty(chip, Trouble(octets_per_s=60_000)) as line:
        said = site.run(*flash_command(site, line.url, micropython_bin[S3], firmware[S3]))
    assert "office-a is flashed" in said


# --- all at once ----------------------------------------------------------------------------------


def test_all_boxes_of_a_hub_are_told_by_their_ids_and_flashed_side_by_side(
    site, chip, firmware, micropython_bin, tmp_path
):
    site.change(
        "[site.office-b]\n", f'[site.office-b]\nboard = "{S3}"\nunique_id = "7cdfa1000002"\n'
    )
    site.change("[site.office-c]\n", f'[site.office-c]\nboard = "{PICO}"\n')
    second = Chip(tmp_path / "second.flash", mac=bytes.fromhex("7cdfa1000002"))
    stranger = Chip(tmp_path / "third.bin", mac=bytes.fromhex("7cdfa1000003"))
    rest = (
        "--all", "--micropython", micropython_bin[S3], "--firmware", firmware[S3], "--before",
        "no-reset", "--after", "no-reset", "--wait", "0",
    )  # fmt: skip
    with Pty(chip) as one, Pty(second) as two, Pty(stranger) as three:
        ports = ("--port", two.url, "--port", one.url, "--port", three.url)
        said = site.run("flash", *ports, *rest, "--json", status=1)
    document = json.loads(said[said.index("{") : said.rindex("}") + 1])
    boxes = document["boxes"]
    assert list(document["left_out"]) == ["office-c"]
    results = [(box["site"], box["result"]) for box in boxes]
    assert results == [("office-b", "flashed"), ("office-a", "flashed"), ("", "failed")]
    assert "no site has unique_id 7cdfa1000003" in boxes[2]["error"]
    assert untouched(stranger)
    place = boards.load(S3).table.find("vfs")
    for box, name in ((chip, "office-a"), (second, "office-b")):
        assert f'"name": "{name}"'.encode() in box.flash[place.offset : place.end]
    assert {entry["site"] for entry in audit_lines(site)} == {"office-a", "office-b"}
    second.close()
    stranger.close()


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        (
            f'board = "{PICO}"\n',
            "hold BOOTSEL, plug it in, run: haaro flash office-b --micropython",
        ),
        ('board = "OPENWRT"\n', "run: haaro flash office-b --ssh root@HOST"),
        ('unique_id = "00c0ffee0001"\n', "board UNIX is not flashed; "),
        (
            f'board = "{S3}"\n',
            "it has no unique_id; give it one in fleet.toml, or run: haaro flash",
        ),
    ],
    ids=["drive", "ssh", "not flashed", "no id"],
)
def test_who_is_left_out_of_all_is_named_with_what_to_do_instead(
    site, chip, firmware, micropython_bin, keys, why
):
    site.change("[site.office-b]\n", "[site.office-b]\n" + keys)
    site.change("[site.office-c]\n", '[site.office-c]\nrevoked = "2026-11-24 stolen"\n')
    chip.mac = bytes.fromhex("7cdfa1000009")  # nobody's: this test writes nothing
    rest = ("--micropython", micropython_bin[S3], "--firmware", firmware[S3], "--before",
            "no-reset", "--after", "no-reset")  # fmt: skip
    with Pty(chip) as line:
        said = site.run("flash", "--all", "--port", line.url, *rest, status=1)
    (note,) = [row for row in said.splitlines() if "left out" in row]
    assert note.startswith("NOTE: office-b is left out: ") and why in note
    site.change('unique_id = "7cdfa1000001"\n', "")
    said = site.run("flash", "--all", "--port", "x", *rest, status=2)
    assert why in said and "office-a: it has no unique_id" in said


def test_on_a_terminal_each_box_of_a_hub_has_a_bar_of_its_own(tmp_path):
    """Three boxes on a line of 80 columns, by the class that `haaro flash --all` shows with."""
    program = tmp_path / "show.py"
    program.write_text(
        "from haaro_host.flash.cli import _Shown\n"
        "shown = _Shown(False)\n"
        "for step in range(11):\n"
        "    for n in (1, 2, 3):\n"
        "        shown(f'office-{n}', 'Writing at [0x10000]', min(10, step * n), 10)\n"
        "shown.end()\nprint('the end')\ninput()\n"
    )
    window = Terminal([sys.executable, str(program)], os.environ)
    window.last_words = "the end"
    try:
        window.until(lambda lines: any("the end" in line for line in lines))
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", window.written).partition("the end")[0]
        # What stands in a line is what was written there last.
        last = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")][-4:-1]
        for number, line in enumerate(last, 1):
            assert line.startswith(f"office-{number} ") and "100 % Writing at [0x10000]" in line
            assert len(line.rstrip()) <= 80
        assert window.end(b"\r") == 0
    finally:
        window.close()
