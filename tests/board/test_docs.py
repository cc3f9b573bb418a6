"""The pages on console and provisioning: every command in them is run, in its order."""

import re
import shlex
import subprocess

from haaro.shell import console_commands
from haaro.shell.console_lock import NOT_LOCKED
from tests.board.conftest import BIN, ROOT, BoardProcess, Operator, until
from tests.board.test_bench import mpremote

DOCS = ROOT / "docs"
PORT = "/dev/ttyUSB0"


def commands(page, port):
    lines = re.findall(r"^\$ haaro (.*)$", (DOCS / page).read_text(), re.M)
    return [shlex.split(line.replace(PORT, port)) for line in lines]


def test_every_command_of_both_pages_works_in_its_order(tmp_path, board):
    place = tmp_path / "office"
    place.mkdir()
    operator = Operator(place)
    lines = commands("provision.md", board.port)
    assert len(lines) >= 11
    for line in lines:
        operator.haaro(*line)
    results = [
        re.search('"result": "([a-z ]+)"', line)[1]
        for line in (place / "provision.log").read_text().splitlines()
    ]
    assert results == ["in place", "unchanged", "kept", "kept"]

    page = (DOCS / "console.md").read_text()
    typed = re.findall(r"^> (.*)$", page, re.M)
    assert len(typed) >= 15
    for line in commands("console.md", board.port):
        said = operator.haaro(*line, typed="\n".join(typed) + "\n" if "console" in line else None)
        if line[0] == "console":
            assert "profile: locked" in said and "lifetime: 120, staged; next: apply" in said
    assert (place / "office-a.tar.gz").exists() and (place / "office-a.password").exists()


def test_the_command_table_of_the_page_is_the_consoles():
    page = (DOCS / "console.md").read_text()
    for command in console_commands._COMMANDS:
        assert re.search(rf"`{command}\b|^> {command}\b", page, re.M), command
    helped = " ".join(console_commands._HELP)
    assert all(command in helped for command in console_commands._COMMANDS)


def test_the_board_of_the_lab_command_is_one(tmp_path):
    command = [BIN / "haaro", "lab", "board", str(tmp_path / "flash"), "--port"]
    made = BoardProcess(tmp_path)
    made.process = subprocess.Popen([*command, made.port], stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: (tmp_path / "port").exists(), 20)
        assert mpremote(made, "exec", "print(3)") == (0, "3\n", "")
    finally:
        made.power_off()
    assert made.process.returncode == 0


def test_what_cannot_be_locked_is_on_the_boards_page():
    page = " ".join((ROOT / "boards" / "UNIX" / "board.md").read_text().split())
    for text in NOT_LOCKED["linux"]:
        assert text in page
