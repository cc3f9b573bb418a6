"""`haaro uci`: /etc/config/haaro of an OpenWrt box to router.json, and back.

Keys are never in either: they stay in router.secrets.json. Exit status: 0 done, 2 a file is
refused.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import typer

from haaro.shell import config, uci
from haaro_host.fleet.files import PUBLIC, FleetFileError, write_whole
from haaro_host.fleet.output import JSON, document, errors

app = typer.Typer(
    help="Configuration of OpenWrt boxes: UCI to router.json and back.", no_args_is_help=True
)
# Enough for the configuration's check of what is no secret.
_KEY = {"spi": 256, "algorithm": "hmac-sha256", "key": "00" * 32}


@app.command("export")
def export(
    path: Path = typer.Argument(help="a router.json"),
    section: str = typer.Option(
        "", help="the section's name; made of the router's name if not given"
    ),
    as_json: bool = JSON,
) -> None:
    """Print the text of /etc/config/haaro for a router.json."""
    with errors():
        made = _read(path)
        name = section or section_of(str(made.get("name", "router")))
        text = section_text(made, name, str(path))
        if as_json:
            document("haaro.uci.export/1", section=name, text=text)
        else:
            typer.echo(text, nl=False)


@app.command("import")
def import_(
    path: Path = typer.Argument(
        help="a file such as /etc/config/haaro, or what `uci export haaro` says"
    ),
    section: str = typer.Option("", help="the router section; may be left out if there is one"),
    out: Path | None = typer.Option(None, help="a router.json to write; printed if not given"),
    as_json: bool = JSON,
) -> None:
    """Make router.json of a router section and check it as the router does, its keys aside."""
    with errors():
        try:
            sections = uci.parse(path.read_text(), str(path))
            names = uci.routers(sections)
            if not section and len(names) != 1:
                raise FleetFileError(
                    f"{path}: {len(names)} router sections ({', '.join(names) or 'none'});"
                    " say which: --section NAME"
                )
            made = uci.document(sections, section or names[0])
        except (OSError, UnicodeDecodeError, uci.UciError) as error:
            raise FleetFileError(str(error)) from None
        _check(made, str(path))
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if out is not None:
            changed = write_whole(out, text.encode(), PUBLIC)
            if not as_json:
                typer.echo(f"{out}: {'written' if changed else 'unchanged'}")
        elif not as_json:
            typer.echo(text, nl=False)
        if as_json:
            document("haaro.uci.import/1", section=section or names[0], router=made)


def section_of(name: str) -> str:
    """Return a name that UCI takes: letters, digits and low lines only."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name) or "router"


def section_text(made: dict[str, Any], section: str, name: str) -> str:
    """Return the UCI text of a document of router.json; paths that the box has itself are left out.

    Raises FleetFileError for a document that the router would refuse, or that UCI cannot hold.
    """
    kept = {key: value for key, value in made.items() if key not in ("secrets", "socket")}
    _check(kept, name)
    try:
        return uci.text(kept, section)
    except uci.UciError as error:
        raise FleetFileError(f"{name}: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        made = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FleetFileError(f"{path}: {error}") from None
    if not isinstance(made, dict):
        raise FleetFileError(f"{path}: must be an object {{ ... }}")
    return made


def _check(made: dict[str, Any], name: str) -> None:
    """Have the router's own loader judge `made`, with a key and passwords that are nobody's."""
    wifi = [
        {"ssid": network["ssid"], "password": "not checked"}
        for uplink in made.get("uplinks", ())
        if isinstance(uplink, dict) and uplink.get("driver") == "wifi"
        for network in uplink.get("networks", ())
        if isinstance(network, dict) and "ssid" in network and not network.get("open")
    ]
    secrets: dict[str, Any] = {"version": 1, "mobile_home": [_KEY]}
    if wifi:
        secrets["wifi"] = wifi
    with tempfile.TemporaryDirectory(prefix="haaro-uci-") as folder:
        write_whole(Path(folder) / "s.json", json.dumps(secrets).encode(), 0o600)
        draft = Path(folder) / "r.json"
        draft.write_text(json.dumps({**made, "secrets": "s.json"}))
        try:
            config.load(str(draft))
        except ValueError as error:
            raise FleetFileError(str(error).replace(str(draft), name)) from None
