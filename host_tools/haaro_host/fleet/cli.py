"""`haaro fleet`: one file for all sites, and what the home agent and the boxes get from it.

Exit status: 0 done, 1 refused, 2 bad usage or a bad fleet file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from haaro_host.fleet import export as exporter
from haaro_host.fleet import inventory, store
from haaro_host.fleet.files import FleetError, locked, write_whole
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.keys import Keys
from haaro_host.fleet.output import (
    FLEET,
    JSON,
    PASSPHRASE_FILE,
    document,
    errors,
    site_names,
    table,
)

app = typer.Typer(help="The fleet file: all sites, checked as a whole.", no_args_is_help=True)
export = typer.Typer(
    help="Write what the home agent or the boxes read.", no_args_is_help=True
)  # fmt: skip
app.add_typer(export, name="export")
_SITES = typer.Argument(None, help="the sites", autocompletion=site_names)
_EVERY = typer.Option(False, "--all", help="every site in service")


@app.command()
def init(
    path: Path = FLEET,
    name: str = typer.Option("fleet", help="a short name of the fleet"),
    organisation: str = typer.Option("", help="whose it is"),
    domain: str = typer.Option(
        "", help='a new site\'s realm is SITE.DOMAIN, such as "acme.example"'
    ),
    address: str = typer.Option("192.0.2.1", help="the home agent's address"),
    home_addresses: str = typer.Option("192.0.2.128/25", help="where home addresses come from"),
    prefixes: str = typer.Option("10.0.0.0/8", help="where the networks of sites come from"),
    as_json: bool = JSON,
) -> None:
    """Write a first fleet file, with comments that explain each key."""
    with errors():
        text = inventory.new_text(name, organisation, domain, address, home_addresses, prefixes)
        with locked(path.resolve().parent):
            if path.exists():
                raise FleetError(f"{path}: is there already; edit it, or give --fleet another name")
            inventory.write(path, text)
        if as_json:
            document("haaro.fleet.init/1", file=str(path))
        else:
            typer.echo(f"{path}: written; next: haaro fleet add NAME")


@app.command()
def add(
    name: str = typer.Argument(help="the site's name: letters, digits, hyphens"),
    path: Path = FLEET,
    home_address: str = typer.Option("", help="the next free one of the plan if not given"),
    prefix: list[str] = typer.Option([], help="a network behind it; may be given several times"),
    realm: str = typer.Option("", help="NAME.domain if not given"),
    board: str = typer.Option("", help="a folder of boards/; defaults.board if not given"),
    unique_id: str = typer.Option("", help="the board's unique id"),
    priority: int = typer.Option(100, help="0 is listed first when the list of sites is cut"),
    implicit: bool = typer.Option(False, help="the home agent assigns the networks"),
    note: str = typer.Option("", help="a text for whoever reads the file"),
    as_json: bool = JSON,
) -> None:
    """Add a site, at its place by name; addresses not given are the next free ones of the plan."""
    with errors(), locked(path.resolve().parent):
        text = inventory.read(path)
        fleet = inventory.judge(path, text)
        domain = fleet.document.fleet.domain
        values: dict[str, Any] = {
            "home_address": home_address or inventory.next_home_address(fleet),
            "prefixes": prefix or [inventory.next_prefix(fleet)],
        }
        if realm or domain:
            values["realm"] = realm or f"{name}.{domain}"
        given = {"board": board, "unique_id": unique_id, "note": note}
        values |= {key: value for key, value in given.items() if value}
        if priority != 100:
            values["priority"] = priority
        if implicit:
            values["implicit"] = True
        inventory.write(path, inventory.with_site(fleet, text, name, values))
        if as_json:
            document("haaro.fleet.add/1", site=name, **values)
        else:
            networks = ", ".join(values["prefixes"])
            typer.echo(f"{name}: home address {values['home_address']}, networks {networks}")
            typer.echo(f"next: haaro keys new {name}")


@app.command("list")
def list_sites(path: Path = FLEET, as_json: bool = JSON) -> None:
    """List the sites, in the order of their names."""
    with errors():
        fleet = inventory.load(path)
        keys = store.index(fleet)["sites"]
        if as_json:
            sites = [_summary(site, keys) for site in fleet.sites.values()]
            document("haaro.fleet.list/1", fleet=fleet.document.fleet.name, sites=sites)
            return
        rows = [("SITE", "HOME ADDRESS", "NETWORKS", "REALM", "BOARD", "KEY", "STATE")]
        for site in fleet.sites.values():
            one = _summary(site, keys)
            rows.append(
                (
                    site.name,
                    site.home_address,
                    " ".join(one["prefixes"]),
                    site.table.realm or "-",
                    site.board,
                    one["key"] or "missing",
                    f"revoked {site.table.revoked}" if site.revoked else "in service",
                )
            )
        table(rows)


def _summary(site: Site, keys: dict[str, Any]) -> dict[str, Any]:
    active = [record for record in keys.get(site.name, []) if record["state"] == "active"]
    return {
        "name": site.name,
        "home_address": site.home_address,
        "prefixes": [str(net) for net in site.table.prefixes],
        "realm": site.table.realm,
        "board": site.board,
        "unique_id": site.table.unique_id,
        "priority": site.table.priority,
        "revoked": site.table.revoked,
        "key": active[0]["fingerprint"] if active else "",
    }


@app.command()
def show(
    name: str = typer.Argument(help="the site", autocompletion=site_names),
    path: Path = FLEET,
    as_json: bool = JSON,
) -> None:
    """Show one site with the defaults filled in: what its box is told, and with whom it pairs."""
    with errors():
        fleet = inventory.load(path)
        site = fleet.site(name)
        one = _summary(site, store.index(fleet)["sites"])
        router = inventory.router_document(fleet, site)
        peers = [] if site.revoked else [other.name for other in fleet.pairs_of(site)]
        if as_json:
            document("haaro.fleet.show/1", site=one, router=router, peers=peers)
            return
        for key, value in one.items():
            typer.echo(f"{key}: {', '.join(value) if isinstance(value, list) else value or '-'}")
        typer.echo(f"shares keys with: {', '.join(peers) or 'nobody'}")
        typer.echo("router.json:")
        for key, value in router.items():
            typer.echo(f"  {key} = {value}")


@app.command()
def check(path: Path = FLEET, as_json: bool = JSON) -> None:
    """Judge the fleet file as a whole and name the sites that have no key. Writes nothing."""
    with errors():
        try:
            fleet = inventory.load(path)
        except inventory.InventoryError as error:
            if not as_json:
                raise
            problems = [
                {"key": p.key, "value": p.value, "allowed": p.allowed} for p in error.problems
            ]
            document("haaro.fleet.check/1", good=False, problems=problems, warnings=[], no_key=[])
            raise typer.Exit(2) from None
        known = store.index(fleet)["sites"]
        missing = [s.name for s in fleet.in_service if not _summary(s, known)["key"]]
        if as_json:
            document(
                "haaro.fleet.check/1",
                good=not missing,
                problems=[],
                warnings=list(fleet.warnings),
                no_key=missing,
            )
        else:
            for warning in fleet.warnings:
                typer.echo(f"WARNING: {warning}", err=True)
            if not missing:
                typer.echo(f"{path}: good, {len(fleet.sites)} sites")
        if missing:
            raise FleetError(f"no key for {', '.join(missing)}; run: haaro keys new")


# --- export -------------------------------------------------------------------------------------


@export.command("ha")
def export_home_agent(
    path: Path = FLEET,
    out: Path | None = typer.Option(None, help="a directory; `ha` beside the fleet file"),
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Write ha.toml and its secrets file (mode 0600), as `haaro ha` reads them."""
    with errors():
        fleet = inventory.load(path)
        keys = store.open_store(fleet, passphrase_file).keys
        files = exporter.home_agent_files(fleet, keys)
        written = _write(out or fleet.directory / "ha", files)
        _report(written, as_json)


@export.command("router")
def export_router(
    sites: list[str] = _SITES,
    every: bool = _EVERY,
    path: Path = FLEET,
    out: Path | None = typer.Option(
        None, help="a directory for one folder a site; `routers` beside the fleet file"
    ),
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Write router.json and router.secrets.json (mode 0600) of sites, one folder each."""
    with errors():
        made = _files_of(exporter.router_files, path, sites, every, passphrase_file)
        _report(_write_each(out or path.resolve().parent / "routers", made), as_json)


@export.command("openwrt")
def export_openwrt(
    sites: list[str] = _SITES,
    every: bool = _EVERY,
    path: Path = FLEET,
    out: Path | None = typer.Option(
        None, help="a directory for one folder a site; `openwrt` beside the fleet file"
    ),
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Write etc/config/haaro and the secrets (mode 0600) of sites, as an OpenWrt box has them."""
    with errors():
        made = _files_of(exporter.openwrt_files, path, sites, every, passphrase_file)
        _report(_write_each(out or path.resolve().parent / "openwrt", made), as_json)


def _files_of(
    box_files: Callable[[Fleet, Keys, Site], list[exporter.File]], path: Path,
    sites: list[str], every: bool, passphrase_file: Path | None,
) -> dict[str, list[exporter.File]]:  # fmt: skip
    """Return {site: its files} of the sites chosen: all are made before one is written."""
    fleet = inventory.load(path)
    chosen = chosen_sites(fleet, sites, every)
    keys = store.open_store(fleet, passphrase_file).keys
    return {site.name: box_files(fleet, keys, site) for site in chosen}


def chosen_sites(fleet: Fleet, names: list[str] | None, every: bool) -> list[Site]:
    """Return the sites named, or all in service; FleetError when neither or both are given."""
    if bool(names) == every:
        raise FleetError("name the sites, or give --all for every site in service")
    return fleet.in_service if every else [fleet.site(name) for name in names or []]


def _write(folder: Path, files: list[exporter.File]) -> list[dict[str, Any]]:
    return [
        {"file": str(folder / name), "changed": write_whole(folder / name, data, mode)}
        for name, data, mode in files
    ]


def _write_each(out: Path, made: dict[str, list[exporter.File]]) -> list[dict[str, Any]]:
    return [row for site, files in made.items() for row in _write(out / site, files)]


def _report(written: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        document("haaro.fleet.export/1", files=written)
        return
    for one in written:
        typer.echo(f"{one['file']}: {'written' if one['changed'] else 'unchanged'}")
