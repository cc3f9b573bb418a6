"""docs/ota.md: each command in it is run, in its order; what it says of options is so."""

import re
import shlex

import typer

from haaro_host import cli
from haaro_host.lab import system
from haaro_host.ota import push, rollout, server
from haaro_host.provision import by_console, line
from tests.fleet.conftest import quick, shop  # noqa: F401 (fixtures)

PAGE = (system.repository() / "docs" / "ota.md").read_text()


def test_every_command_of_the_page_works_in_its_order(shop, monkeypatch):  # noqa: F811
    """`serve` ends at once, and the box at the cable is a stand-in: test_pull and
    tests/topology have the real ones.
    """
    shop.run("keys", "new")
    (update,) = re.findall(r"^update = .*$", PAGE, re.M)
    shop.change("[defaults.router]\n", f"[defaults.router]\n{update}\n")
    monkeypatch.chdir(shop.directory)
    monkeypatch.setattr(server.Running, "wait", lambda self: None)

    class Nothing:
        def __init__(self, *arguments):
            self.arguments = arguments

        def close(self):
            pass

    monkeypatch.setattr(line, "Line", Nothing)
    monkeypatch.setattr(by_console, "BoxConsole", Nothing)
    sent = []
    monkeypatch.setattr(push, "push", lambda console, bundle, data, shown: sent.append(len(data)))
    monkeypatch.setattr(push, "version", lambda console: "0.1.0-r1")
    monkeypatch.setattr(push, "outcome", lambda console, bundle: "kept")
    commands = re.findall(r"^\$ haaro (.*)$", PAGE, re.M)
    assert len(commands) >= 12
    said = {}
    for command in commands:
        words = shlex.split(command.replace("0.0.0.0:8434", "127.0.0.1:0"))
        said[command] = shop.run(*words)
    assert "signed" in said["ota verify haaro-UNIX-0.1.0-r2.haaro"]
    assert "0.1.0-r2 registered and is kept" in said[commands[-1]]
    assert sent == [(shop.directory / "haaro-UNIX-0.1.0-r2.haaro").stat().st_size]
    assert (shop.directory / "box" / "slots" / "a" / "haaro_router.py").exists()
    assert "stopped" in said["ota roll-out stop"]


def test_every_option_that_the_page_names_exists():
    ota = typer.main.get_command(cli.app).commands["ota"]
    known = set()
    for command in [*ota.commands.values(), *ota.commands["key"].commands.values(),
                    *ota.commands["roll-out"].commands.values()]:  # fmt: skip
        known |= {name for each in command.params for name in each.opts}
    for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", PAGE):
        assert option in known | {"--all"}, option


def test_the_states_of_the_page_are_those_of_the_status():
    table = PAGE.partition("| `roll-out status` says")[2]
    named = re.findall(r"^\| `([a-z ]+)` \|", table, re.M)
    assert named == [rollout.WAITING, rollout.UNDER_WAY, rollout.DONE, rollout.FAILED, rollout.LOST]


def test_the_defaults_of_the_page_are_the_boxes():
    from haaro.shell import config

    for key in ("interval_s", "rate_kbit"):
        (row,) = re.findall(rf"^\| `{key}` \| .* default (\d+)", PAGE, re.M)
        assert int(row) == config._UPDATE[key][1]
