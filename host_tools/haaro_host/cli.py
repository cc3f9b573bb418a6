"""The `haaro` command: one door to the home agent, the lab and the router's status."""

from importlib import import_module
from importlib.metadata import version as package_version

import typer

from haaro_host.home_agent.cli import app as home_agent

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)
app.add_typer(home_agent, name="ha")


def _register(module: str, name: str, command: str) -> None:
    """Add `command` from another part of the package; a part that is not installed is left out."""
    try:
        found = getattr(import_module(f"haaro_host.{module}"), name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("haaro_host"):
            raise
        return
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=command)
    else:
        app.command(command)(found)


_register("router_cli", "status", "status")
_register("router_cli", "stop", "stop")
_register("lab.cli", "app", "lab")


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
    app()
