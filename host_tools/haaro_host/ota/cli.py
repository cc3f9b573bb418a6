"""`haaro ota`: a new program for the boxes, signed, rolled out by steps, taken back by themselves.

Exit status: 0 done, 1 refused or it did not come to pass, 2 bad usage, fleet file or bundle.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from haaro_host.fleet import inventory, store
from haaro_host.fleet.files import PUBLIC, FleetError, locked, write_whole
from haaro_host.fleet.inventory import Fleet
from haaro_host.fleet.output import (
    FLEET,
    JSON,
    PASSPHRASE_FILE,
    document,
    errors,
    site_names,
    table,
)  # fmt: skip
from haaro_host.ota import bundle as bundles
from haaro_host.ota import key as keys
from haaro_host.ota import rollout, tree
from haaro_host.ota.bundle import Bundle, BundleError

app = typer.Typer(no_args_is_help=True, help="Updates: signed bundles, roll-outs, the server.")
key_app = typer.Typer(no_args_is_help=True, help="The key that bundles are signed with.")
roll_out_app = typer.Typer(no_args_is_help=True, help="Which boxes may have a bundle.")
app.add_typer(key_app, name="key")
app.add_typer(roll_out_app, name="roll-out")

_BUNDLE = typer.Argument(help="the bundle", metavar="BUNDLE")
_BOARD = typer.Option("UNIX", "--board", help="the folder of boards/ that it is for")
_RELEASE = typer.Option(..., "--release", min=1, max=65535, help="N of version X.Y.Z-rN")
_STEP_S = 0.5


@key_app.command("new")
def key_new(
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    replace: bool = typer.Option(False, "--replace", help="make another beside the one in use"),
    as_json: bool = JSON,
) -> None:
    """Make the key that bundles are signed with; it stays in the key store."""
    with errors():
        fleet = inventory.load(path)
        with store.changing(fleet, passphrase_file) as opened:
            keys.new(opened.keys, replace)
            opened.save()
        _show_keys(fleet, as_json)


@key_app.command("show")
def key_show(path: Path = FLEET, as_json: bool = JSON) -> None:
    """Show fingerprints and public keys; the first one is in use."""
    with errors():
        fleet = inventory.load(path)
        keys.publics(fleet)
        _show_keys(fleet, as_json)


def _show_keys(fleet: Fleet, as_json: bool) -> None:
    found = store.index(fleet)["ota"]
    if as_json:
        document("haaro.ota.key/1", keys=found)
        return
    rows = [(row["fingerprint"], row["created"], row["public"]) for row in found]
    table([("KEY", "MADE", "PUBLIC"), *rows])


@app.command("bundle")
def make_bundle(
    board: str = _BOARD,
    release: int = _RELEASE,
    out: Path | None = typer.Option(None, "--out", help="default haaro-BOARD-VERSION.haaro"),
    replaces: str = typer.Option(
        "", "--replaces", help="leave to go back: the highest version that it may replace"
    ),
    stored: bool = typer.Option(False, "--stored", help="for boxes without deflate"),
    mark: str = typer.Option("", "--key", help="sign with the key of this fingerprint"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Make a bundle of this checkout's router, signed."""
    with errors():
        fleet = inventory.load(path)
        key = keys.signing(store.open_store(fleet, passphrase_file).keys, mark)
        files, mpy = tree.program(board)
        version = tree.version(release)
        pack = "stored" if stored else "deflate"
        data = bundles.make(files, version, board, mpy, key, pack, replaces)
        target = out or Path(f"haaro-{board}-{version}.haaro")
        write_whole(target, data, PUBLIC)
        _shown(target, bundles.parse(data), True, as_json)


@app.command("show")
def show(bundle: Path = _BUNDLE, as_json: bool = JSON) -> None:
    """Show what a bundle says of itself; whether that is true is what `verify` tells."""
    with errors():
        _shown(bundle, bundles.read(bundle)[0], None, as_json)


@app.command("verify")
def verify(bundle: Path = _BUNDLE, path: Path = FLEET, as_json: bool = JSON) -> None:
    """Compare a bundle's hashes, and its signature with the fleet's keys."""
    with errors():
        found = bundles.read(bundle)[0]
        good = any(bundles.verify(found, public) for public in keys.publics(inventory.load(path)))
        _shown(bundle, found, good, as_json)
        if not good:
            raise FleetError(f"{bundle}: no key of this fleet has signed it; do not roll it out")


def _shown(path: Path, found: Bundle, signed: bool | None, as_json: bool) -> None:
    facts: dict[str, Any] = {
        "file": str(path), "version": found.version, "board": found.board, "mpy": found.mpy,
        "pack": found.pack, "replaces": found.replaces or None, "octets": found.octets,
        "sha256": found.digest, "signed": signed,
    }  # fmt: skip
    if as_json:
        document("haaro.ota.bundle/1", **facts, files=[asdict(each) for each in found.files])
        return
    unpacked = sum(each.size for each in found.files)
    typer.echo(f"{path}: {found.version} for {found.board}, mpy {found.mpy}")
    typer.echo(f"  {len(found.files)} files, {unpacked} octets, {found.octets} as a bundle")
    typer.echo(f"  sha256 {found.digest}")
    if found.replaces:
        typer.echo(f"  may replace versions up to {found.replaces}")
    if signed is not None:
        typer.echo("  signed" if signed else "  NOT signed by a key of this fleet")


@app.command("tree")
def make_tree(
    out: Path = typer.Argument(help="the folder to make", metavar="DIR"),
    board: str = _BOARD,
    release: int = _RELEASE,
    as_json: bool = JSON,
) -> None:
    """Make the folder that a Linux box runs: the boot part, and this router in slot A."""
    with errors():
        if out.exists() and any(out.iterdir()):
            raise FleetError(f"{out}: is not empty; a box that runs is updated by a bundle")
        files, mpy = tree.program(board)
        made = tree.initial(files, board, mpy, tree.version(release))
        for name, data in made.items():
            write_whole(out / name, data, PUBLIC)
        version = tree.version(release)
        if as_json:
            document("haaro.ota.tree/1", folder=str(out), version=version, files=len(made))
        else:
            typer.echo(f"{out}: {version} for {board}, {len(made)} files; start {out}/main.py")


@app.command("install")
def install(
    name: str = typer.Argument(help="the site", metavar="SITE", autocompletion=site_names),
    bundle: Path = _BUNDLE,
    port: str = typer.Option(..., "--port", "-p", help="the box's serial port"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Give one box a bundle over its console, and wait until it is kept or given back."""
    from haaro_host.ota import push
    from haaro_host.provision.by_console import BoxConsole
    from haaro_host.provision.cli import Shown
    from haaro_host.provision.line import SPEED, Line

    with errors():
        fleet = inventory.load(path)
        site = fleet.site(name)
        found, data = _ours(fleet, bundle)
        if site.board != found.board:
            raise FleetError(f"{bundle} is for {found.board}, site.{name}.board is {site.board}")
        password = store.open_store(fleet, passphrase_file).keys.console(site)
        console = BoxConsole(Line(port, SPEED), password[0] if password else "")
        try:
            result = "unchanged"
            if push.version(console) != found.version:
                push.push(console, found, data, Shown(as_json))
                result = push.outcome(console, found)
        finally:
            console.close()
        if as_json:
            document("haaro.ota.install/1", site=name, version=found.version, result=result)
        else:
            how = "registered and is kept" if result == "kept" else "is what it has"
            typer.echo(f"{name}: {found.version} {how}")


@app.command("serve")
def serve(
    listen: str = typer.Option("0.0.0.0:8434", "--listen", help="ADDRESS:PORT"),
    any_source: bool = typer.Option(
        False, "--any-source", help="boxes may ask from outside the tunnel (microcontrollers do)"
    ),
    path: Path = FLEET,
) -> None:
    """Be the server that the boxes ask, until Ctrl-C."""
    from haaro_host.ota import server

    with errors():
        address, _, port = listen.rpartition(":")
        if not address or not port.isdigit() or int(port) > 0xFFFF:
            raise BundleError(f"--listen {listen}: write it like 0.0.0.0:8434")
        running = server.serve(path, address, int(port), any_source, typer.echo)
        typer.echo(f"listening at {address}:{running.port}")
        try:
            running.wait()
        except KeyboardInterrupt:
            typer.echo("stopped")
        finally:
            running.close()


def _ours(fleet: Fleet, path: Path) -> tuple[Bundle, bytes]:
    found, data = bundles.read(path)
    if not any(bundles.verify(found, public) for public in keys.publics(fleet)):
        raise FleetError(f"{path}: no key of this fleet has signed it")
    return found, data


# --- roll-out -----------------------------------------------------------------------------------


@roll_out_app.command("start")
def start(
    bundle: Path = _BUNDLE,
    percent: int = typer.Option(0, "--percent", min=0, max=100, help="of the sites, by a hash"),
    sites: list[str] = typer.Option(
        [], "--site", help="this site too; may be given again", autocompletion=site_names
    ),
    max_failures: int = typer.Option(1, "--max-failures", min=1, help="so many boxes stop it"),
    lost_after_s: int = typer.Option(
        1800, "--lost-after", min=10, help="seconds of silence after an offer that are a failure"
    ),
    wait_s: float = typer.Option(0, "--wait", min=0, help="seconds to wait for all of them"),
    path: Path = FLEET,
    as_json: bool = JSON,
) -> None:
    """Offer a bundle to some of the boxes of its board; again with more percent to go on.

    After a stop it is one attempt more: boxes that failed try once more. Exit status with --wait: 0
    all have it, 1 not yet, or stopped.
    """
    with errors():
        fleet = inventory.load(path)
        found, data = _ours(fleet, bundle)
        for name in sites:
            fleet.site(name)
        if not percent and not sites:
            raise BundleError("to whom? give --percent or --site")
        with locked(fleet.directory):
            rollouts = rollout.load(fleet)
            before = rollouts.get(found.board)
            again = before is not None and before.digest == found.digest
            attempt = 1
            if again and before:
                attempt = before.attempt + (before.state == rollout.STOPPED)
                sites = sorted({*before.sites, *sites})
            rollouts[found.board] = rollout.Rollout(
                found.board, found.version, found.digest, found.octets, percent, sites, attempt,
                max_failures, lost_after_s, started=int(time.time()),
            )  # fmt: skip
            write_whole(rollout.bundle_path(fleet, found.digest), data, PUBLIC)
            rollout.save(fleet, rollouts)
        end = time.monotonic() + wait_s
        while time.monotonic() < end and not _over(fleet, found.board):
            time.sleep(_STEP_S)
        failed = not _status(fleet, as_json) or (wait_s and not _over(fleet, found.board))
        if failed:
            raise typer.Exit(1)


@roll_out_app.command("status")
def status(path: Path = FLEET, as_json: bool = JSON) -> None:
    """Show each roll-out and how its boxes fare. Exit status: 1 if one is stopped."""
    with errors():
        if not _status(inventory.load(path), as_json):
            raise typer.Exit(1)


@roll_out_app.command("stop")
def stop(
    board: str = typer.Option("", "--board", help="of this board only"),
    path: Path = FLEET,
    as_json: bool = JSON,
) -> None:
    """Offer it to nobody any more. Boxes that have it keep it."""
    with errors():
        fleet = inventory.load(path)
        with locked(fleet.directory):
            rollouts = rollout.load(fleet)
            meant = [each for each in rollouts.values() if board in ("", each.board)]
            if not meant:
                raise FleetError("there is no roll-out" + (f" to {board}" if board else ""))
            for each in meant:
                if each.state != rollout.STOPPED:
                    each.state, each.reason = rollout.STOPPED, "asked for"
            rollout.save(fleet, rollouts)
        _status(fleet, as_json)


def _over(fleet: Fleet, board: str) -> bool:
    current = rollout.load(fleet)[board]
    found = rollout.results(current, rollout.load_boxes(fleet), fleet, int(time.time()))
    return current.state == rollout.STOPPED or all(how == rollout.DONE for how in found.values())


def _status(fleet: Fleet, as_json: bool) -> bool:
    """Show it; return whether nothing is stopped."""
    now = int(time.time())
    boxes = rollout.load_boxes(fleet)
    rollouts = rollout.load(fleet)
    found = {
        board: rollout.results(each, boxes, fleet, now) for board, each in sorted(rollouts.items())
    }
    if as_json:
        rows = [{**asdict(rollouts[board]), "sites": how} for board, how in found.items()]
        document("haaro.ota.status/1", rollouts=rows,
                 boxes={site: asdict(box) for site, box in boxes.items()})  # fmt: skip
    for board, how in () if as_json else found.items():
        each = rollouts[board]
        reason = f": {each.reason}" if each.reason else ""
        typer.echo(f"{board}: {each.version} to {each.percent} %, {each.state}{reason}")
        lines = [("SITE", "RESULT", "HAS", "SLOT", "WHY")]
        for site, result in sorted(how.items()):
            box = boxes.get(site, rollout.Box())
            lines.append((site, result, box.version or "-", box.slot or "-", box.why or "-"))
        table(lines)
    if not found and not as_json:
        typer.echo("no roll-out")
    return all(each.state != rollout.STOPPED for each in rollouts.values())
