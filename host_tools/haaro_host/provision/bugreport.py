"""`haaro bugreport`: what a report of a fault needs, with nothing secret in it.

Two nets: whatever looks like a key is taken out by its form, and, when the key store can be opened,
whatever is a key. What a box sends is not trusted to be free of them.

Exit status: 0 written, 1 not, 2 bad usage or a bad fleet file.
"""

import io
import json
import platform
import re
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import typer

from haaro_host import router_cli
from haaro_host.fleet import inventory, store, uplink_secrets
from haaro_host.fleet.files import PRIVATE, write_whole
from haaro_host.fleet.keys import Keys
from haaro_host.fleet.output import FLEET, JSON, PASSPHRASE_FILE, document, errors, fail
from haaro_host.provision.console_cli import SITE, opened
from haaro_host.provision.line import Refused, plain

SCHEMA = "haaro.bugreport/1"
_SECRET = "<secret>"
# A key has at least 16 octets; a unique id may have as many, and is given back below.
_LONG_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{32,}(?![0-9a-fA-F])")
_LONG_BASE64 = re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{40,}={0,2}")
_PASSWORD = re.compile(r"(?<![a-z2-7-])[a-z2-7]{4}(-[a-z2-7]{4}){3}(?![a-z2-7-])")
_NAMED = re.compile(r'("(?:key|krm|hash|salt|secret|password|token)"\s*:\s*)(\[[^\]]*\]|"[^"]*")')
_UNIQUE_ID = re.compile(r"^(unique_id: )(.*)$", re.M)
_QUESTIONS = (
    "status",
    "status json",
    "show uplinks",
    "show peers",
    "show routes",
    "show counters",
    "show log",
    "set",
    "provision",
)


def redact(text: str, secrets: list[str]) -> str:
    """Return `text` without anything of `secrets` or of a key's form; a unique id stays."""
    for secret in secrets:
        text = re.sub(re.escape(secret), _SECRET, text, flags=re.I)
    ids = _UNIQUE_ID.findall(text)
    text = _NAMED.sub(rf'\1"{_SECRET}"', text)
    for pattern in (_LONG_HEX, _LONG_BASE64, _PASSWORD):
        text = pattern.sub(_SECRET, text)
    kept = iter(ids)
    return _UNIQUE_ID.sub(lambda match: "".join(next(kept, ("unique_id: ", ""))), text)


def secrets_of(keys: Keys, fleet: inventory.Fleet) -> list[str]:
    """Return every secret of a store as it might be written, and what is derived of them."""
    found: set[str] = set()

    def walk(value: Any, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, key)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, name)
        elif isinstance(value, str) and name in ("key", "secret"):
            found.add(value)

    walk(keys.body, "")
    found |= uplink_secrets.passwords_in(keys)
    for site in fleet.sites.values():
        console = keys.console(site)
        if console is not None:
            found |= {console[0], console[1]["hash"]}
        for _, krms in keys.rows(fleet, site):
            found |= {krm.hex() for krm in krms}
    return sorted(found)


def bugreport(
    name: str | None = SITE,
    port: str | None = typer.Option(None, "--port", "-p", help="the box's serial port"),
    config: Path | None = typer.Option(None, help="router.json of a router on this machine"),
    out: Path = typer.Option(Path("haaro-bugreport.tar.gz"), help="the file to write"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Collect what a report of a fault needs into one file; keys and passwords are taken out.

    Look into it before you hand it on: addresses, names and networks of yours are in it.
    """
    with errors():
        if port is None and config is None:
            raise fail(
                "of which box? give --port PORT, or --config FILE for one on this machine", 2
            )
        parts = {"host.json": json.dumps(_host(), indent=2)}
        secrets: list[str] = []
        if path.exists() and name is not None:
            fleet = inventory.load(path)
            secrets = secrets_of(store.open_store(fleet, passphrase_file).keys, fleet)
            parts["site.json"] = json.dumps(
                inventory.router_document(fleet, fleet.site(name)), indent=2, default=str
            )
        if port is not None:
            with opened(port, name, path, passphrase_file) as box:
                for question in _QUESTIONS:
                    try:
                        answer = "\n".join(box.ask(question))
                    except Refused as error:
                        answer = str(error)
                    parts[f"box/{question.replace(' ', '-')}.txt"] = answer + "\n"
        if config is not None:
            where = router_cli.socket_of(config, None)
            try:
                parts["router.json"] = json.dumps(router_cli.request(where, "status"), indent=2)
            except (OSError, ValueError) as error:
                parts["router.json"] = f"no router answers at {where}: {error}\n"
        clean = {part: redact(text, secrets) for part, text in parts.items()}
        changed = write_whole(out, _bundle(clean), PRIVATE)
        if as_json:
            document(SCHEMA, file=str(out), parts=sorted(clean), written=changed)
        else:
            typer.echo(f"{out}: {len(clean)} parts; look into it before you hand it on")


def _host() -> dict[str, Any]:
    return {
        "haaro": version("haaro"),
        "python": sys.version,
        "system": platform.platform(),
    }


def _bundle(parts: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz") as bundle:
        for name, text in sorted(parts.items()):
            lines = "\n".join(plain(line) for line in text.splitlines()) + "\n"
            data = lines.encode()
            entry = tarfile.TarInfo(f"haaro-bugreport/{name}")
            entry.size = len(data)
            entry.mode = PRIVATE
            bundle.addfile(entry, io.BytesIO(data))
    return sink.getvalue()
