"""The `haaro` command: one door to the home agent, the lab and the router's status."""

import os
import sys
from importlib import import_module
from importlib.metadata import version as package_version

import typer

from haaro_host.home_agent.cli import app as home_agent

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
app.add_typer(home_agent, name="ha")


# Command, module of haaro_host, name in it.
_PARTS = (
    ("status", "router_cli", "status"),
    ("stop", "router_cli", "stop"),
    ("router", "router_cli", "app"),
    ("lab", "lab.cli", "app"),
    ("decode", "decode.cli", "decode"),
    ("wireshark", "wireshark_cli", "app"),
    ("advertise", "advertise_cli", "app"),
    ("simulate", "simulate.cli", "simulate"),
    ("fleet", "fleet.cli", "app"),
    ("keys", "fleet.keys_cli", "app"),
    ("top", "fleet.top_cli", "top_command"),
    ("uci", "fleet.uci_cli", "app"),
    ("flash", "flash.cli", "flash"),
    ("ota", "ota.cli", "app"),
    ("doctor", "doctor", "doctor"),
    ("completion", "completion", "completion"),
    ("provision", "provision.cli", "provision"),
    ("console", "provision.console_cli", "console"),
    ("logs", "provision.console_cli", "logs"),
    ("bugreport", "provision.bugreport", "bugreport"),
)


def _register_parts(only: str = "") -> None:
    """Add the other parts' commands, or the one called `only` if there is one; a part that is not
    installed is left out.
    """
    for command, module, name in [part for part in _PARTS if part[0] == only] or _PARTS:
        try:
            found = getattr(import_module(f"haaro_host.{module}"), name, None)
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("haaro_host"):
                raise
            continue
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=command)
        elif found is not None:
            app.command(command)(found)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"haaro {package_version('haaro')}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="show the version and end"
    ),
) -> None:
    """Mobile networks that find the direct path: RFC 6521 home agent, mobile router and lab."""


def main() -> None:
    """Console script entry."""
    # Each command starts without what only the others need; most of all the home agent, a daemon.
    if sys.argv[1:2] != ["ha"]:
        _register_parts("".join(sys.argv[1:2]))
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            # Who read us has left; the interpreter shall not complain of it once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
