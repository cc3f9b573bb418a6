"""`haaro keys`: made, rotated, revoked and shown; never printed, but for fingerprints.

Exit status: 0 done, 1 refused or only partly done, 2 bad usage or a bad fleet file.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from haaro_host.fleet import ask, inventory, passphrase, store, uplink_secrets
from haaro_host.fleet.cli import chosen_sites
from haaro_host.fleet.files import PRIVATE, FleetError, locked, write_whole
from haaro_host.fleet.inventory import Fleet
from haaro_host.fleet.keys import ACTIVE, PEERS, PREVIOUS, STAGED, Keys
from haaro_host.fleet.output import (
    FLEET,
    JSON,
    PASSPHRASE_FILE,
    document,
    errors,
    site_names,
    table,
)
from haaro_host.fleet.top import age_s, span

app = typer.Typer(help="The keys of the fleet, in their sealed store.", no_args_is_help=True)
app.command()(uplink_secrets.wifi)
app.command()(uplink_secrets.modem)

_SITES = typer.Argument(None, help="the sites", autocompletion=site_names)
_ALL = typer.Option(False, "--all", help="every site in service")
_PEERS = typer.Option(False, "--peers", help="the keys that sites share with each other (KRm)")


@app.command()
def new(
    sites: list[str] = _SITES,
    path: Path = FLEET,
    keyring: bool = typer.Option(
        False,
        "--keyring",
        help="a new store's passphrase is made and kept by the desktop's keyring",
    ),
    replacement: bool = typer.Option(
        False, "--replacement", help="a revoked site gets a new box: back into service, new keys"
    ),
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Make the keys that are missing, of the sites named or of all; and the store, if need be."""
    with errors():
        fleet = inventory.load(path)
        done: list[str] = []
        if replacement:
            fleet, done = _back_in_service(fleet, sites)
        chosen = chosen_sites(fleet, sites, not sites)
        for site in chosen:
            if site.revoked:
                raise FleetError(f"{site.name} is revoked; for a new box give --replacement")
        create = "keyring" if keyring else "passphrase"
        with store.changing(fleet, passphrase_file, create) as opened:
            made = opened.keys.new(fleet, [site.name for site in chosen])
            if made:
                opened.save()
        steps = ["haaro fleet export ha", "haaro fleet export router SITE"] if made else []
        if replacement:
            steps.insert(1, f"haaro ha reload, then: haaro ha allow {' '.join(sites)}")
        _report(done + made or ["nothing is missing"], steps, as_json)


def _back_in_service(fleet: Fleet, names: list[str] | None) -> tuple[Fleet, list[str]]:
    if not names:
        raise FleetError("--replacement needs the name of the site")
    done = []
    with locked(fleet.directory):
        for name in names:
            text = inventory.read(fleet.path)
            if not inventory.judge(fleet.path, text).site(name).revoked:
                raise FleetError(f"{name} is in service; for a new key: haaro keys rotate {name}")
            text = inventory.with_value(fleet, text, name, "revoked", None)
            text = inventory.with_value(fleet, text, name, "unique_id", None)
            inventory.write(fleet.path, text)
            done.append(f"{name}: back in service; the old board's unique id is forgotten")
    return inventory.load(fleet.path), done


# --- rotation -----------------------------------------------------------------------------------


def _rotation(name: str, text: str, following: str) -> None:
    """Make the command of one step; `following` is the command that comes next, "" if none."""

    @app.command(name, help=text)
    def command(
        sites: list[str] = _SITES,
        every: bool = _ALL,
        peers: bool = _PEERS,
        force: bool = typer.Option(
            False,
            "--force",
            hidden=name == "stage",  # which loses nothing in any case
            help="without asking the home agent whether it is safe",
        ),
        path: Path = FLEET,
        passphrase_file: Path | None = PASSPHRASE_FILE,
        as_json: bool = JSON,
    ) -> None:
        agent = _HomeAgent(force)

        def step(fleet: Fleet, keys: Keys, site: str) -> str:
            which = keys.next_step(site) if name == "rotate" else name
            if which == "stage":
                return keys.stage(fleet, site)
            if which == "activate":
                agent.may_activate(fleet, keys, site)
                return keys.activate(site)
            agent.may_retire(fleet, keys, site)
            return keys.retire(site)

        _step(step, following, sites, every, peers, path, passphrase_file, as_json)


_rotation(
    "stage", "First step of a rotation: the next key, live beside the active one.", "activate"
)
_rotation(
    "activate",
    "Second step: the staged key is used, the other lives on. The home agent must have both.",
    "retire",
)
_rotation(
    "retire",
    "Last step: the key before is deleted. The router must have used the new one since.",
    "",
)
_rotation(
    "rotate", "The next step of a rotation, whichever it is: stage, activate or retire.", "rotate"
)


def _step(
    step: Callable[[Fleet, Keys, str], str],
    following: str,
    sites: list[str] | None,
    every: bool,
    peers: bool,
    path: Path,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Carry out one step for all names or for none, then say what has to be delivered."""
    with errors():
        fleet = inventory.load(path)
        if peers and (sites or every):
            raise FleetError("--peers stands alone: those keys belong to all sites together")
        names = [PEERS] if peers else [site.name for site in chosen_sites(fleet, sites, every)]
        with store.changing(fleet, passphrase_file) as opened:
            done = [step(fleet, opened.keys, name) for name in names]
            opened.save()
        which = "--all" if peers or every else " ".join(names)
        again = "--peers" if peers else which
        steps = [] if peers else ["haaro fleet export ha, then on its machine: haaro ha reload"]
        steps.append(f"haaro fleet export router {which}, then each box takes its files")
        if following:
            steps.append(f"haaro keys {following} {again}")
        _report(done, steps, as_json)


class _HomeAgent:
    """Judges by the running home agent whether a step loses no registration; asks it once.

    `force`: says yes without asking.
    """

    def __init__(self, force: bool) -> None:
        self._force = force
        self._status: dict[str, Any] | None = None

    def may_activate(self, fleet: Fleet, keys: Keys, name: str) -> None:
        """Raise FleetError unless the home agent has the staged key."""
        staged = None if name == PEERS else keys.record(name, STAGED)
        if self._force or staged is None:
            return
        known = self._key(fleet, name, staged["spi"])
        if known.get("fingerprint") != staged["fingerprint"]:
            raise FleetError(
                f"{name}: the home agent does not have SPI {staged['spi']} yet; first:"
                " haaro fleet export ha, then haaro ha reload"
            )

    def may_retire(self, fleet: Fleet, keys: Keys, name: str) -> None:
        """Raise FleetError unless the router's last registration was with the active key."""
        previous = None if name == PEERS else keys.record(name, PREVIOUS)
        active = None if name == PEERS else keys.record(name, ACTIVE)
        if self._force or previous is None or active is None:
            return
        used, before = (
            self._key(fleet, name, record["spi"]).get("last_used_s")
            for record in (active, previous)
        )
        if used is None or (before is not None and before < used):
            raise FleetError(
                f"{name}: its router has not registered with SPI {active['spi']} since it used"
                f" {previous['spi']}; hand it its new files first: haaro fleet export router {name}"
            )

    def _key(self, fleet: Fleet, name: str, spi: int) -> dict[str, Any]:
        if self._status is None:
            try:
                self._status = ask.status(fleet)
            except FleetError as error:
                raise FleetError(f"{error} (--force goes on without asking)") from None
        return ask.key_in(self._status, fleet.site(name).home_address, spi) or {}


# --- revocation ---------------------------------------------------------------------------------


@app.command()
def revoke(
    name: str = typer.Argument(help="the site whose box is lost", autocompletion=site_names),
    reason: str = typer.Option("revoked", help="why; kept in the fleet file"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """A box is stolen: the home agent ends its registration at once, then its keys are deleted.

    What cannot be done is said and does not keep the rest from being done; the exit status is
    then 1, and the command may be given again.
    """
    with errors():
        fleet = inventory.load(path)
        site = fleet.site(name)
        done, failed = [], []
        # The home agent first, before anybody is asked for a passphrase: this is what bars the box.
        try:
            done.append(f"{name}: home agent: {ask.tell(fleet, 'revoke', name)}")
        except FleetError as error:
            failed.append(f"{error}; on its machine: haaro ha revoke {name}")
        others = [other.name for other in fleet.pairs_of(site)]
        if not site.revoked:
            with locked(fleet.directory):
                mark = f"{datetime.now(UTC):%Y-%m-%d} {reason}"
                text = inventory.with_value(fleet, inventory.read(path), name, "revoked", mark)
                inventory.write(path, text)
            done.append(f"{name}: marked in {path}")
        try:
            with store.changing(fleet, passphrase_file) as opened:
                done.append(opened.keys.revoke(site))
                uplink_secrets.forget(opened.keys, name)
                opened.save()
        except FleetError as error:
            failed.append(f"{error}; then: haaro keys revoke {name}")
        steps = ["haaro fleet export ha, then on its machine: haaro ha reload"]
        networks = [str(row.get("ssid")) for row in uplink_secrets.wifi_networks(site)]
        if networks:
            steps.append(f"it knows the password of Wi-Fi {', '.join(networks)}: change it there")
        if others:
            steps.append(
                f"haaro fleet export router {' '.join(others)}:"
                " they lose the key that they shared with it"
            )
        steps.append(f"for a new box: haaro keys new {name} --replacement")
        _report(done, steps, as_json, failed)
        if failed:
            raise FleetError("; ".join(failed))


# --- looking ------------------------------------------------------------------------------------


@app.command()
def show(
    name: str = typer.Argument(None, help="one site; all if not given", autocompletion=site_names),
    path: Path = FLEET,
    verify: bool = typer.Option(
        False, "--verify", help="open the store: prove that nobody changed what it says of itself"
    ),
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Show fingerprints, age and last use of every key. Needs no passphrase."""
    with errors():
        fleet = inventory.load(path)
        index = store.index(fleet)
        if verify:
            index = store.open_store(fleet, passphrase_file).keys.index()
        if name is not None:
            index = {"sites": {fleet.site(name).name: index["sites"].get(name, [])}, "epochs": []}
        try:
            status, unreachable = ask.status(fleet), ""
        except FleetError as error:
            status, unreachable = {"routers": []}, str(error)
        for site, records in index["sites"].items():
            for record in records:
                _complete(record, fleet, site, status)
        for record in index["epochs"]:
            record["age_s"] = age_s(record["created"])
        if as_json:
            document(
                "haaro.keys.show/1", verified=verify, home_agent=unreachable or "asked", **index
            )
            return
        _show(index)
        if unreachable:
            typer.echo(f"NOTE: last use is not known: {unreachable}", err=True)


def _complete(record: dict[str, Any], fleet: Fleet, site: str, status: dict[str, Any]) -> None:
    record["age_s"] = age_s(record["created"])
    known = None
    if site in fleet.sites:
        known = ask.key_in(status, fleet.sites[site].home_address, record["spi"])
    same = known is not None and known["fingerprint"] == record["fingerprint"]
    record["at_home_agent"] = same
    record["last_used_s"] = known.get("last_used_s") if known is not None and same else None


def _show(index: dict[str, Any]) -> None:
    rows = [("SITE", "SPI", "ALGORITHM", "FINGERPRINT", "STATE", "AGE", "LAST USE")]
    for site, records in index["sites"].items():
        if not records:
            rows.append((site, "-", "-", "-", "missing", "-", "-"))
        for record in records:
            used = record["last_used_s"]
            if record["state"] == "retired":
                last = "-"
            elif not record["at_home_agent"]:
                last = "not at the home agent"
            else:
                last = "never seen" if used is None else f"{span(used)} ago"
            rows.append(
                (
                    site,
                    str(record["spi"]),
                    record["algorithm"],
                    record["fingerprint"],
                    record["state"],
                    span(record["age_s"]),
                    last,
                )
            )
    for record in index["epochs"]:
        number = f"epoch {record['number']}"
        row = ("(peers)", number, "KRm", record["fingerprint"], record["state"])
        rows.append((*row, span(record["age_s"]), "-"))
    table(rows)


@app.command("console")
def console_password(
    name: str = typer.Argument(help="the site", metavar="SITE", autocompletion=site_names),
    out: Path = typer.Option(..., help="the file to write, mode 0600"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Write the password of a site's serial console into a file, for who has no haaro at hand."""
    with errors():
        fleet = inventory.load(path)
        found = store.open_store(fleet, passphrase_file).keys.console(fleet.site(name))
        if found is None:
            raise FleetError("this key store has no console passwords yet; first: haaro keys new")
        write_whole(out, found[0].encode() + b"\n", PRIVATE)
        if as_json:
            document("haaro.keys.console/1", site=name, file=str(out))
        else:
            typer.echo(f"{out}: the password of {name}'s console")


@app.command("passphrase")
def change_passphrase(
    path: Path = FLEET,
    keyring: bool = typer.Option(
        False, "--keyring", help="keep a made one in the desktop's keyring"
    ),
    new_passphrase_file: Path | None = typer.Option(
        None, "--new-passphrase-file", help="a file (mode 0600) with the new passphrase"
    ),
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Seal the store with another passphrase; the old one opens only old copies of the file."""
    with errors():
        fleet = inventory.load(path)
        unlock = "keyring" if keyring else "passphrase"
        with store.changing(fleet, passphrase_file) as opened:
            opened.seal_with(
                unlock, passphrase.chosen(opened.path, unlock, new_passphrase_file, fresh=True)
            )
            opened.save()
        if as_json:
            document("haaro.keys.passphrase/1", file=str(fleet.store_path), unlock=unlock)
        else:
            typer.echo(f"{fleet.store_path}: sealed anew")


def _report(
    done: list[str], steps: list[str], as_json: bool, failed: list[str] | None = None
) -> None:
    if as_json:
        document("haaro.keys.change/1", done=done, failed=failed or [], next=steps)
        return
    for line in done:
        typer.echo(line)
    for number, line in enumerate(steps):
        typer.echo(f"{'next: ' if not number else 'then: '}{line}")
