"""docs/flash.md: each command in it is run, in its order; the boards' pages say what is true."""

import re
import shlex
import subprocess
import sys

import pytest
import typer

from haaro_host import cli
from haaro_host.flash import boards, build
from haaro_host.flash.burn import _REMEDIES
from haaro_host.lab import system
from tests.esp_loader.line import Pty
from tests.flash.conftest import PICO, PLAIN, S3

ROOT = system.repository()
PAGE = (ROOT / "docs" / "flash.md").read_text()
# Answers like a home agent that every site has just registered with.
_HOME_AGENT = """import json
keys = [{"last_used_s": 0}]
binding = {"care_of_address": "203.0.113.10"}
print(json.dumps({"schema": "haaro.ha.status/1", "routers": [
    {"home_address": "192.0.2.129", "keys": keys, "binding": binding}]}))
"""


def test_every_command_of_the_page_works_in_its_order(
    shop, chip, firmware, micropython_bin, monkeypatch, tmp_path
):
    shop.file.unlink()
    shop.run("fleet", "init")
    (tmp_path / "ha.py").write_text(_HOME_AGENT)
    shop.change('ask_home_agent = ""', f'ask_home_agent = "{sys.executable} {tmp_path / "ha.py"}"')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ESP32_GENERIC_S3-SPIRAM_OCT.bin").write_bytes(micropython_bin[S3].read_bytes())
    built = []
    monkeypatch.setattr(build, "default_folder", lambda name: built.append(name) or firmware[name])
    lines = re.findall(r"^\$ (.*)$", PAGE, re.M)
    assert len(lines) >= 8
    with Pty(chip) as line:
        for command in lines:
            words = shlex.split(command.replace("/dev/ttyUSB0", line.url))
            if words[0] == "make":
                listed = subprocess.run(
                    ["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True
                )
                assert f'haaro_host.flash.build "{S3}"' in listed.stdout
            else:
                said = shop.run(*words[1:])
                chip.reset(download=True)
                if words[1] == "flash" and not {"--dry-run", "--json"} & set(words):
                    assert "office-a is up, at 203.0.113.10" in said
    assert built == [S3] * 3


def test_every_option_and_command_that_the_page_names_exists():
    known = typer.main.get_command(cli.app)
    options = {name for each in known.commands["flash"].params for name in each.opts}
    for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGE):
        assert option in options | {"--board"}, option
    for name in re.findall(r"`haaro ([a-z]+)", PAGE):
        assert name in known.commands, name


def test_what_the_page_quotes_is_what_is_said():
    texts = [path.read_text() for path in (ROOT / "host_tools/haaro_host/flash").glob("*.py")]
    # As one reads them: strings joined, what is filled in left out.
    said = re.sub(r'"\s+f?"', "", " ".join([*_REMEDIES.values(), *texts]))
    said = re.sub(r"\{[^{}]+\}", "", said).replace("ota_0", "")
    for quoted in re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## When it fails")[2], re.M):
        for piece in quoted.split("..."):
            assert piece.replace("ota_0", "").strip(" ,") in said, quoted


@pytest.mark.parametrize("name", [S3, PLAIN, PICO])
def test_a_boards_folder_has_upstreams_files_and_names_what_is_there(name):
    folder = boards.folder() / name
    names = {path.name for path in folder.iterdir()}
    expected = {
        "board.json", "board.md", "manifest.py", "mpconfigboard.cmake", "mpconfigboard.h",
        "pins.csv", boards.load(name).table.name,
    } | ({"sdkconfig.board"} if name != PICO else set())  # fmt: skip
    assert names == expected
    pins = [line.split(",") for line in (folder / "pins.csv").read_text().splitlines()]
    assert all(re.fullmatch(r"[A-Z0-9_]+", pin) and gpio.startswith("GPIO") for pin, gpio in pins)
    assert len({gpio for _, gpio in pins}) == len(pins)
    page = (folder / "board.md").read_text()
    for pin, gpio in pins:
        assert re.search(rf"\b{gpio.removeprefix('GPIO')}\b", page), pin
    target = 'PICO_BOARD "pico2"' if name == PICO else f"IDF_TARGET {boards.load(name).mcu}"
    assert target in (folder / "mpconfigboard.cmake").read_text()


def test_the_small_board_needs_its_code_frozen_as_its_page_says(firmware):
    """As soon as the .mpy files fit its heap the page has to change."""
    folder = firmware[PLAIN] / "files"
    assert sum(path.stat().st_size for path in folder.rglob("*.mpy")) > 110_000
    manifest = (boards.folder() / PLAIN / "manifest.py").read_text()
    frozen = re.search(r'freeze_mpy\(os.environ\["HAARO_DIR"\] \+ "/(.+)"\)', manifest)
    assert system.repository() / frozen[1] == build.default_folder(PLAIN) / "files" / "slots" / "a"
    assert (folder / "slots" / "a" / "haaro_device.mpy").exists()
