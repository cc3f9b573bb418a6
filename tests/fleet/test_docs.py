"""The pages on fleet, keys and exit codes: every command in them is run, every status seen."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from haaro_host import cli
from tests.fleet.conftest import Shop
from tests.fleet.test_export import MICROPYTHON

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def commands(page):
    """The lines after `$` of a page, as lists of words."""
    lines = re.findall(r"^\$ haaro (.*)$", (DOCS / page).read_text(), re.M)
    return [shlex.split(line) for line in lines]


@pytest.fixture
def place(tmp_path, quick, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path)


def test_every_command_of_the_fleet_page_works_in_its_order(place):
    lines = commands("fleet.md")
    assert len(lines) >= 10
    for line in lines:
        # No home agent runs here, and `top` says so.
        place.run(*line, status=1 if line[0] == "top" else 0)
    assert (place.directory / "ha" / "ha.toml").exists()
    for site in ("office-a", "office-b", "depot"):
        assert (place.directory / "routers" / site / "router.secrets.json").exists()


def test_every_command_of_the_keys_page_works_in_its_order(place):
    place.run("fleet", "init")
    for site in ("office-a", "office-b"):
        place.run("fleet", "add", site)
    lines = commands("keys.md")
    assert len(lines) >= 15
    for line in lines:
        place.run(*line)
    shown = place.json("keys", "show", "office-a")["sites"]["office-a"]
    assert [record["state"] for record in shown] == ["retired", "active"]


def test_every_command_that_a_page_names_exists():
    known = typer.main.get_command(cli.app)
    for page in ("fleet.md", "keys.md", "exit-codes.md"):
        for found in re.findall(r"`haaro ([a-z][a-z -]*)", (DOCS / page).read_text()):
            node = known
            for word in found.split():
                if not hasattr(node, "commands") or word.startswith("-"):
                    break
                assert word in node.commands, f"{page}: haaro {found}"
                node = node.commands[word]


def test_the_site_table_of_the_page_is_accepted_and_whole(place):
    """Every key of a site is shown, and the loader takes what is shown."""
    from haaro_host.fleet.schema import SiteTable

    (shown,) = re.findall(r"```toml\n(.*?)```", (DOCS / "fleet.md").read_text(), re.S)
    place.run("fleet", "init")
    place.run("fleet", "add", "office-b")
    text = place.file.read_text()
    place.file.write_text(text.replace('"192.0.2.129"', '"192.0.2.140"') + "\n" + shown)
    assert place.json("fleet", "show", "office-a")["site"]["revoked"] == "2026-11-24 stolen"
    keys = set(re.findall(r"^(\w+) =", shown.partition("[site.office-a.router]")[0], re.M))
    assert keys | {"router"} == set(SiteTable.model_fields)


# --- exit codes ----------------------------------------------------------------------------------


def rows():
    """{what the first column names: [meaning of 0, 1, 2]} of the page."""
    found = {}
    for line in (DOCS / "exit-codes.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and cells[0].startswith("`"):
            found[cells[0]] = cells[1:]
    return found


def test_every_command_has_its_row():
    named = " ".join(rows())
    for command in typer.main.get_command(cli.app).commands:
        assert f"`haaro {command}" in named, command


GONE = "/nonexistent/x"
CASES = [
    (["status", "--socket", GONE], 2),
    (["stop", "--socket", GONE], 2),
    (["router", "status", "--socket", GONE], 2),
    (["router", "reload", "--socket", GONE], 2),
    (["router", "drain", "wan", "--socket", GONE], 2),
    (["ha", "--config", GONE], 2),
    (["ha", "check", "--config", GONE], 2),
    (["ha", "status", "--socket", GONE], 1),
    (["ha", "reload", "--socket", GONE], 1),
    (["ha", "revoke", "a", "--socket", GONE], 1),
    (["ha", "status", "--config", GONE], 2),
    (["fleet", "check", "--fleet", GONE], 2),
    (["fleet", "list", "--no-such-option"], 2),
    (["keys", "show", "--fleet", GONE], 2),
    (["top", "--fleet", GONE], 2),
    (["top", "--interval", "x"], 2),
    (["flash", "office-a", "--dry-run", "--fleet", GONE], 2),
    (["flash", "--all"], 2),
    (["decode", GONE], 1),
    (["decode"], 2),
    (["simulate", GONE], 2),
    (["advertise", "plan", GONE], 2),
    (["wireshark", "install", "--dir", "/proc/x"], 1),
    (["doctor", "fleet"], 0),
    (["doctor", "gardening"], 2),
    (["completion", "bash"], 0),
    (["completion", "tcsh"], 2),
    (["provision", "a", "--port", GONE, "--fleet", GONE], 2),
    (["provision", "a"], 2),
    (["console", "--port", GONE], 1),
    (["console", "a", "--port", GONE, "--fleet", GONE], 2),
    (["logs", "--port", GONE], 1),
    (["bugreport", "--port", GONE], 1),
    (["bugreport"], 2),
    (["no-such-command"], 2),
    (["--version"], 0),
]


@pytest.mark.parametrize(
    ("arguments", "status"), CASES, ids=lambda v: " ".join(v) if isinstance(v, list) else None
)
def test_a_command_ends_as_the_page_says(place, arguments, status):
    place.run(*arguments, status=status)
    row = [cells for name, cells in rows().items() if f"`haaro {arguments[0]}" in name]
    assert not row or any(cells[status] != "-" for cells in row)


def test_the_fleets_own_statuses(place):
    place.run("fleet", "init")
    place.run("fleet", "init", status=1)
    place.run("fleet", "add", "office-a")
    place.run("fleet", "check", status=1)
    place.run("keys", "rotate", "office-a", status=1)
    place.run("keys", "new")
    place.run("fleet", "check")
    said = place.run("keys", "revoke", "office-a", status=1)
    assert "haaro ha revoke office-a" in said, "only partly done: no home agent runs here"
    place.change("version = 1", "version = 3")
    place.run("fleet", "check", status=2)
    place.run("keys", "show", status=2)


def test_the_boxs_program_ends_as_the_page_says(place):
    place.run("fleet", "init")
    place.run("fleet", "add", "office-a")
    place.change("lifetime = 300", f'lifetime = 300\nsocket = "{place.directory}/r.sock"')
    place.run("keys", "new")
    place.run("fleet", "export", "router", "office-a")
    config = place.directory / "routers" / "office-a" / "router.json"

    def box(word, path=config):
        command = [MICROPYTHON, "-X", "heapsize=384k", ROOT / "firmware" / "main.py"]
        done = subprocess.run([*command, "--config", path, word], capture_output=True, timeout=60)
        return done.returncode

    assert [box(word) for word in ("check", "status", "stop", "reload")] == [0, 2, 2, 2]
    assert box("check", "/nonexistent/x") == 2


def test_every_json_output_names_its_schema(place):
    place.run("fleet", "init")
    seen = [place.json("fleet", "add", "office-a")]
    seen.append(place.json("keys", "new"))
    for command in (
        ["fleet", "list"], ["fleet", "show", "office-a"], ["fleet", "check"],
        ["fleet", "export", "ha"], ["fleet", "export", "router", "--all"], ["keys", "show"],
        ["keys", "stage", "--all"], ["doctor", "fleet"], ["advertise", "plan", "ha/ha.toml"],
        ["ha", "check", "--config", "ha/ha.toml"],
    ):  # fmt: skip
        seen.append(place.json(*command))
    names = [each["schema"] for each in seen]
    assert all(re.fullmatch(r"haaro(\.[a-z]+)+/[1-9]", name) for name in names), names
    assert len(set(names)) == 10
    bad = place.json("ha", "check", "--config", "/nonexistent/x", status=2)
    assert (bad["schema"], bad["good"]) == ("haaro.ha.check/1", False)
    assert bad["problems"][0]["allowed"] == "a readable TOML file"


# What a person follows or uses live; what they write has a form of its own.
NO_JSON = {
    "completion": "its output is a shell's script",
    "console": "a terminal",
    "ha": "runs until it is stopped",
    "lab board": "runs until it is stopped",
    "lab exec": "the output is that of the program",
    "lab up": "followed by `lab status --json`",
    "lab demo": "writes report.json",
    "lab soak": "writes soak.json",
    "lab outages": "writes its results as JSON",
    "ota serve": "runs until it is stopped",
}


def leaves(node, name=""):
    """Every command that does something, by the words that call it."""
    if not hasattr(node, "commands"):
        yield name, node
        return
    for word, command in node.commands.items():
        yield from leaves(command, f"{name} {word}".strip())


def test_every_command_has_json_or_a_reason_why_not():
    for name, command in leaves(typer.main.get_command(cli.app)):
        has = any("--json" in parameter.opts for parameter in command.params)
        assert has != (name in NO_JSON), name


# --- completion and doctor ------------------------------------------------------------------------


def complete(place, *words):
    """What bash offers for the last of `words`, by the script that `haaro completion` prints."""
    script = place.run("completion", "bash")
    quoted = " ".join(shlex.quote(word) for word in words)
    program = (
        f"{script}\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words) - 1}\n"
        '_haaro_completion "$HAARO"\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program],
        env={"HAARO": str(ROOT / ".venv/bin/haaro"), "PATH": "/usr/bin:/bin",
             "HAARO_FLEET": str(place.file)},
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_sites(place):
    place.run("fleet", "init")
    for site in ("office-a", "office-b", "depot"):
        place.run("fleet", "add", site)
    assert complete(place, "haaro", "fl") == ["flash", "fleet"]
    assert {"rotate", "retire", "revoke"} == set(complete(place, "haaro", "keys", "r"))
    assert "--passphrase-file" in complete(place, "haaro", "keys", "show", "--pass")
    assert complete(place, "haaro", "keys", "revoke", "off") == ["office-a", "office-b"]
    assert complete(place, "haaro", "fleet", "export", "router", "d") == ["depot"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_a_script_of_their_own(place, shell):
    script = place.run("completion", shell)
    assert f"complete_{shell}" in script
    assert "haaro" in script.splitlines()[0]


def test_doctor_names_what_is_missing_and_how_to_get_it(place, monkeypatch):
    import shutil

    from haaro_host import doctor

    real = shutil.which
    monkeypatch.setattr("shutil.which", lambda name, *rest: None if name == "nft" else real(name))
    said = place.run("doctor", "lab", status=1)
    assert "lab: not ready" in said
    assert "missing: the program nft; as root on Debian or Ubuntu: apt-get install nftables" in said
    found = place.json("doctor", status=1)["tasks"]
    assert set(found) == set(doctor.TASKS)
    assert found["lab"]["missing"][0]["what"] == "the program nft"
    assert found["fleet"]["ready"]


def test_an_optional_thing_that_is_missing_is_no_failure(place, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, *rest: None)
    said = place.run("doctor", "decode")
    assert "decode: ready" in said and "optional: the program tshark" in said


def test_the_readme_of_the_pages_is_linked():
    readme = (ROOT / "README.md").read_text()
    for page in ("docs/fleet.md", "docs/keys.md", "docs/exit-codes.md"):
        assert f"({page})" in readme
