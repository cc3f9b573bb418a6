"""`haaro console` and `haaro logs`: a person, or a script, at a box's serial console.

Exit status: 0 done, 1 the box refused or does not answer, 2 bad usage or a bad fleet file.
"""

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from haaro_host.fleet import inventory, store
from haaro_host.fleet.output import FLEET, PASSPHRASE_FILE, errors, site_names
from haaro_host.provision.by_console import BoxConsole
from haaro_host.provision.cli import PORT
from haaro_host.provision.line import Line, plain

_LEAVE = b"\x1d"  # Ctrl-]
_PIECE = 1024
_FOLLOW_S = 0.5
SITE = typer.Argument(
    None, help="the site, to log in by its password of the key store", autocompletion=site_names
)


@contextmanager
def opened(
    port: str, name: str | None, path: Path, passphrase: Path | None
) -> Iterator[BoxConsole]:
    """Open the console at `port`; with a site's name it logs in by itself. Raises FleetError."""
    password = ""
    if name is not None:
        fleet = inventory.load(path)
        found = store.open_store(fleet, passphrase).keys.console(fleet.site(name))
        password = found[0] if found else ""
    console = BoxConsole(Line(port), password)
    try:
        yield console
    finally:
        console.close()


def console(
    name: str | None = SITE,
    port: str = PORT,
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
) -> None:
    """Talk to a box's serial console; Ctrl-] leaves. Reads commands from a pipe as well.

    From a pipe: exit status 1 as soon as the box refuses a command.
    """
    with errors(), opened(port, name, path, passphrase_file) as box:
        if name is not None:
            box.ask("provision")  # logs in, if that is asked for
        if not sys.stdin.isatty():
            _from_pipe(box)
            return
        typer.echo(f"{port}: Ctrl-] leaves; help lists the commands", err=True)
        _by_hand(box.line)
        typer.echo("", err=True)


def _from_pipe(box: BoxConsole) -> None:
    for command in sys.stdin.read().splitlines():
        if command.strip():
            for line in box.ask(command.strip()):
                typer.echo(line)


def _by_hand(line: Line) -> None:
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setraw(number)
    try:
        line.send(b"\r")
        while True:
            ready, _, _ = select.select([number, line.handle], [], [])
            if number in ready:
                typed = os.read(number, _PIECE)
                keep, leave, _ = typed.partition(_LEAVE)
                line.send(keep)
                if leave or not typed:
                    return
            if line.handle in ready:
                os.write(sys.stdout.fileno(), _harmless(line.receive()))
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _harmless(data: bytes) -> bytes:
    """Take out what would steer a terminal: escape sequences of a box are nothing to obey."""
    return bytes(octet for octet in data if octet in (8, 10, 13) or 32 <= octet < 127)


def logs(
    name: str | None = SITE,
    port: str = PORT,
    follow: bool = typer.Option(
        False, "--follow", "-f", help="go on with what comes, until Ctrl-C"
    ),
    seconds: float = typer.Option(0, help="with -f: end after so many seconds"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = typer.Option(False, "--json", help="one JSON document a line"),
) -> None:
    """Show a box's log; with -f also each line and each message of the signalling as it comes."""
    with errors(), opened(port, name, path, passphrase_file) as box:
        for line in box.ask("show log"):
            _say(line, as_json)
        if follow:
            box.ask("trace on")
            with suppress(KeyboardInterrupt):
                _follow(box.line, seconds, as_json)
            box.ask("trace off")


def _follow(line: Line, seconds: float, as_json: bool) -> None:
    end = time.monotonic() + seconds if seconds else float("inf")
    while time.monotonic() < end:
        text = line.next_line(min(end, time.monotonic() + _FOLLOW_S))
        if text and text.startswith("* "):
            _say(text[2:], as_json)


def _say(line: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"schema": "haaro.logs/1", "line": plain(line)}))
    else:
        typer.echo(plain(line))
