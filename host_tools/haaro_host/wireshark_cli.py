"""`haaro wireshark install`: put the dissector where Wireshark and tshark look for plugins."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import typer

import haaro_host
from haaro_host.decode.text import escaped

app = typer.Typer(help="The Wireshark dissector of Mobile IP with RFC 6521.", no_args_is_help=True)

# Beside the package, in the tree that it is installed from.
DISSECTOR = Path(haaro_host.__file__).parents[1] / "wireshark" / "haaro.lua"
_TITLE = "Personal Lua Plugins:"
_TIMEOUT_S = 20


@app.callback()
def wireshark() -> None:
    """The Wireshark dissector of Mobile IP with RFC 6521."""


@app.command()
def install(
    directory: Path | None = typer.Option(
        None, "--dir", help="put it there; your own Lua plugin folder if not given"
    ),
    as_json: bool = typer.Option(False, "--json", help="print JSON; its `schema` names the form"),
) -> None:
    """Copy haaro.lua to your Lua plugin folder and print where it is now.

    Exit status: 0 done, 1 it could not be written.
    """
    target = (directory or plugin_directory()) / DISSECTOR.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A Wireshark that starts meanwhile sees the old file or the new one, never half of it.
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(DISSECTOR, partial)
        partial.replace(target)
    except OSError as error:
        typer.echo(f"A fatal error occurred: {escaped(str(error))}", err=True)
        raise typer.Exit(1) from None
    if as_json:
        typer.echo(json.dumps({"schema": "haaro.wireshark.install/1", "file": str(target)}))
        return
    typer.echo(f"installed: {escaped(str(target))}")
    typer.echo("restart Wireshark; it decodes UDP port 434 as HAARO (filter: haaro)")


def plugin_directory() -> Path:
    """Return the user's Lua plugin folder: as tshark says, else where Wireshark has it."""
    tshark = shutil.which("tshark")
    if tshark:
        try:
            listed = subprocess.run(
                [tshark, "-G", "folders"], capture_output=True, text=True, timeout=_TIMEOUT_S
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            listed = ""
        for line in listed.splitlines():
            if line.startswith(_TITLE):
                return Path(line.removeprefix(_TITLE).strip())
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data).parent / "lib" / "wireshark" / "plugins"
