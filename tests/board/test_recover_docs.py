"""docs/replace.md and docs/recover.md: each command is run, in its order, at a real board."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import typer

from haaro_host import cli
from tests.board.conftest import ROOT, UNIQUE_ID, Operator

PORT = "/dev/ttyUSB0"
cli._register_parts()
# A home agent that is told to revoke and allow, and that every site registers with.
_AGENT = """import json, sys
if sys.argv[1] == "status":
    print(json.dumps({"schema": "haaro.ha.status/1", "routers": [], "warnings": []}))
else:
    print(sys.argv[1], "router", sys.argv[2])
"""


@pytest.fixture
def office(tmp_path):
    """A fleet of two sites with keys, whose home agent can be asked."""
    place = tmp_path / "office"
    place.mkdir()
    made = Operator(place)
    made.haaro("fleet", "init")
    for name in ("office-a", "office-b"):
        made.haaro("fleet", "add", name)
    (tmp_path / "ha.py").write_text(_AGENT)
    file = place / "fleet.toml"
    text = file.read_text().replace("[defaults.router]\n", f"{_ROUTER.format(tmp_path)}\n", 1)
    file.write_text(text.replace('ask_home_agent = ""', f'ask_home_agent = "{_ask(tmp_path)}"'))
    made.haaro("keys", "new")
    return made


_ROUTER = '[defaults.router]\nsocket = "{}/router.sock"\nconsole = {{ port = "stdin" }}'


def _ask(place):
    return f"{sys.executable} {place / 'ha.py'}"


def run(office, page, board):
    """Run the page's commands; {first words: what was printed}."""
    text = (ROOT / "docs" / page).read_text()
    typed = "".join(f"{line}\n" for line in re.findall(r"^> (.*)$", text, re.M) if line != "revert")
    said = {}
    for line in re.findall(r"^\$ (.*)$", text, re.M):
        words = shlex.split(line.replace(PORT, board.port))
        if words[0] != "haaro":
            subprocess.run(words, cwd=office.directory, check=True)
            continue
        # Nobody registers with that home agent: `top` and the missing routers say so.
        status = 1 if words[1] == "top" else 0
        said[" ".join(words[1:3])] = office.haaro(
            *words[1:], status=status, typed=typed if words[1] == "console" else None
        )
    return said


def test_a_box_is_replaced_as_the_page_says(office, board):
    before = office.json("keys", "show", "office-b")["sites"]["office-b"][0]["fingerprint"]
    said = run(office, "replace.md", board)
    assert "revoke router office-b" in said["keys revoke"]
    after = office.json("fleet", "list")["sites"][1]
    assert (after["name"], after["revoked"], after["unique_id"]) == ("office-b", "", UNIQUE_ID)
    assert after["key"] not in ("", before)
    secrets = json.loads((board.flash / "router.secrets.json").read_text())
    assert len(secrets["mobile_home"]) == 1


def test_what_is_lost_is_recovered_as_the_page_says(office, board):
    office.haaro("provision", "office-a", "--port", board.port, "--adopt")
    old = office.json("keys", "show", "office-a")["sites"]["office-a"][0]["fingerprint"]
    said = run(office, "recover.md", board)
    assert "profile: locked" in said["console office-a"]
    assert "nothing to do" in said["provision office-a"]
    assert (office.directory / "office-a.tar.gz").exists()
    new = office.json("keys", "show", "office-a")["sites"]["office-a"][0]["fingerprint"]
    assert new != old


@pytest.mark.parametrize("page", ["replace.md", "recover.md"])
def test_every_command_that_the_page_names_exists_and_the_page_is_linked(page):
    known = typer.main.get_command(cli.app)
    text = (ROOT / "docs" / page).read_text()
    for found in re.findall(r"(?:`|^)haaro ([a-z][a-z -]*)", text, re.M):
        node = known
        for word in found.split():
            if not hasattr(node, "commands") or word.startswith("-"):
                break
            assert word in node.commands, found
            node = node.commands[word]
    assert f"(docs/{page})" in (ROOT / "README.md").read_text()
