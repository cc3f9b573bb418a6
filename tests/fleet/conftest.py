"""A fleet in a directory of its own, worked on by the real command line in this process."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from haaro_host import cli
from haaro_host.fleet import sealed

PASSPHRASE = "correct horse battery"
cli._register_parts()


@dataclass
class Shop:
    """Runs `haaro ARGUMENTS` on a fleet file; remembers everything that was printed."""

    directory: Path
    printed: list[str] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.directory / "fleet.toml"

    def run(self, *arguments, status=0, **environment):
        """Return what the command printed; fail unless it ended with `status` (None: any)."""
        command = [str(each) for each in arguments]
        variables = {"HAARO_FLEET": str(self.file), "HAARO_PASSPHRASE": PASSPHRASE, **environment}
        done = CliRunner().invoke(cli.app, command, env=variables)
        self.printed.append(done.output)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert status in (None, done.exit_code), (command, done.exit_code, done.output)
        return done.output

    def json(self, *arguments, status=0):
        """Return the JSON document of the command."""
        text = self.run(*arguments, "--json", status=status)
        return json.loads(text[: text.rindex("}") + 1])

    def change(self, old, new):
        """Edit the fleet file as an operator does, where `old` stands last."""
        before, found, after = self.file.read_text().rpartition(old)
        assert found
        self.file.write_text(before + new + after)


@pytest.fixture
def quick(monkeypatch):
    """Guesses at a passphrase may be cheap where it is not what is tested."""
    monkeypatch.setattr(sealed, "_N", 1 << 4)


@pytest.fixture
def shop(tmp_path, quick):
    """A fleet of three sites without keys, its home agent's socket in its own directory."""
    made = Shop(tmp_path)
    made.run("fleet", "init", "--name", "acme", "--domain", "acme.example")
    made.change('"/run/haaro/ha.sock"', json.dumps(str(tmp_path / "ha.sock")))
    for name in ("office-a", "office-b", "office-c"):
        made.run("fleet", "add", name)
    return made
