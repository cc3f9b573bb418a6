"""What `haaro fleet` and `haaro keys` print, and how they end."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from haaro_host.fleet.files import FleetError

FLEET = typer.Option(
    Path("fleet.toml"), "--fleet", envvar="HAARO_FLEET", help="the fleet file"
)  # fmt: skip
JSON = typer.Option(False, "--json", help="print JSON; its `schema` names the form")
PASSPHRASE_FILE = typer.Option(
    None, "--passphrase-file", help="a file (mode 0600) with the key store's passphrase"
)


@contextmanager
def errors() -> Iterator[None]:
    """Turn what a command raises into a last line and an exit status: 1 refused, 2 bad file."""
    try:
        yield
    except FleetError as error:
        raise fail(str(error), error.code) from None


def fail(text: str, code: int) -> typer.Exit:
    """Print `text` as the fatal error; return what the caller raises."""
    typer.echo(f"A fatal error occurred: {text}", err=True)
    return typer.Exit(code)


def document(schema: str, **content: Any) -> None:
    """Print one JSON document that names its schema."""
    typer.echo(json.dumps({"schema": schema, **content}, indent=2, ensure_ascii=False))


def table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows as columns; the first row is the heading."""
    all_rows = list(rows)
    widths = [max(len(row[column]) for row in all_rows) for column in range(len(all_rows[0]))]
    for row in all_rows:
        typer.echo("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def site_names(incomplete: str) -> list[str]:
    """Complete a site's name from the fleet file of the environment or this directory."""
    import tomllib

    try:
        path = Path(os.environ.get("HAARO_FLEET", "fleet.toml"))
        sites = tomllib.loads(path.read_text()).get("site", {})
    except (OSError, ValueError):
        return []
    return [name for name in sorted(sites) if name.startswith(incomplete)]
