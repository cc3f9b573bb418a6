"""`haaro flash`: a blank board becomes the box of a site.

Exit status: 0 the site is up (or flashed, with --no-wait), 1 it is not, 2 bad usage or a bad file.
"""

import json
import os
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from haaro_host.flash import boards, build, burn, by_drive, by_ssh, first_boot, micropython, openwrt
from haaro_host.flash import site as contents
from haaro_host.flash.burn import Cable, Part
from haaro_host.flash.errors import BadInputError, FlashError
from haaro_host.fleet import inventory, store
from haaro_host.fleet.files import PRIVATE, FleetError
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.output import FLEET, JSON, PASSPHRASE_FILE, document, errors, site_names

SCHEMA = "haaro.flash/1"
AUDIT = "provision.log"  # the one that `haaro provision` writes too
_TENTHS = 10


@dataclass(frozen=True)
class Prepared:
    """All that is written to one box, judged before a port is touched."""

    site: Site
    board: boards.Board
    write: list[Part]
    verify: list[Part]


@dataclass
class Outcome:
    """What became of one box. `parts`: offset, size and name, without content."""

    site: str
    port: str
    board: str
    result: str = "planned"
    unique_id: str = ""
    care_of_address: str = ""
    seconds: float = 0.0
    error: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """How it is done, the same for every box."""

    firmware: Path | None
    micropython: tuple[str, bytes]  # empty where the box has its own
    dry_run: bool
    wait_s: float


def flash(
    name: str = typer.Argument("", help="the site", metavar="SITE", autocompletion=site_names),
    port: list[str] = typer.Option(
        [], "--port", "-p", help="the box's serial port, such as /dev/ttyUSB0; several with --all"
    ),
    ssh: str = typer.Option(
        "", "--ssh", help="instead of a port: root@HOST of an OpenWrt box", metavar="TARGET"
    ),
    ssh_command: str = typer.Option(
        "ssh", "--ssh-command", help='ssh with options, such as "ssh -p 2222 -i key"'
    ),
    drive: Path | None = typer.Option(
        None, "--drive", help="instead of the one found: where the boot ROM's drive is mounted"
    ),
    every: bool = typer.Option(
        False, "--all", help="each port's box by its unique_id, side by side"
    ),
    binary: Path | None = typer.Option(
        None, "--micropython", help="MicroPython's .bin (.uf2) for the chip"
    ),
    url: str = typer.Option("", "--micropython-url", help="where to fetch it"),
    sha256: str = typer.Option("", "--micropython-sha256", help="its SHA-256, 64 digits"),
    firmware: Path | None = typer.Option(
        None, help="a folder made by `make firmware`; build/firmware/BOARD if not given"
    ),
    baud: int = typer.Option(460800, min=9600, help="speed of the port while it writes"),
    before: str = typer.Option(
        "default-reset", help="esptool's: default-reset, usb-reset, no-reset"
    ),
    after: str = typer.Option("hard-reset", help="esptool's: hard-reset, watchdog-reset, no-reset"),
    dry_run: bool = typer.Option(False, "--dry-run", help="check everything, touch no port"),
    wait: float = typer.Option(90.0, min=0, help="seconds for the registration; 0 does not wait"),
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    as_json: bool = JSON,
) -> None:
    """Make a blank board the box of a site: MicroPython, partition table, program, files and keys.

    Everything on the board is erased. A board with an RP2350 takes all by its boot ROM's drive, and
    --port is then where its console is. With --ssh an OpenWrt box gets the package and its files,
    and keeps the rest. Exit status: 0 the site is up (flashed, with --wait 0), 1 it
    is not, 2 bad usage or a bad file.
    """
    with errors():
        if ssh:
            if port or every or not name:
                raise BadInputError("--ssh takes one SITE, and neither --port nor --all")
            fleet = inventory.load(path)
            keys = store.open_store(fleet, passphrase_file).keys
            site = fleet.site(name)
            made = by_ssh.parts(fleet, keys, site, firmware)
            door = by_ssh.Door(ssh, ssh_command)
            options = Options(firmware, ("", b""), dry_run, wait)
            shown = _Shown(as_json)
            outcome = _SshBox(fleet, site, made, door, options, shown).run()
            shown.end()
            _report([outcome], as_json)
            return
        fleet = inventory.load(path)
        by_its_drive = bool(name) and not every and by_drive.wanted(fleet.site(name))
        _check_usage(name, port, every, dry_run or by_its_drive)
        if drive is not None and not by_its_drive:
            raise BadInputError("--drive is for one SITE whose board has an RP2350")
        options = Options(firmware, micropython.obtain(binary, url, sha256), dry_run, wait)
        cables = [Cable(each, baud, before, after) for each in port] or [Cable("")]
        keys = store.open_store(fleet, passphrase_file).keys

        def prepare(site: Site) -> Prepared:
            return _prepared(fleet, keys, site, options)

        shown = _Shown(as_json)
        left_out = _left_out(fleet) if every else {}
        if by_its_drive:
            site = fleet.site(name)
            got = by_drive.parts(fleet, keys, site, firmware, options.micropython)
            outcomes = [_DriveBox(fleet, site, got, drive, cables[0].port, options, shown).run()]
        elif every:
            outcomes = _flash_all(fleet, prepare, cables, options, shown)
        else:
            work = _Box(fleet, prepare(fleet.site(name)), cables[0], options, shown)
            outcomes = [work.run()]
        shown.end()
        _report(outcomes, as_json, left_out)


def _check_usage(name: str, ports: list[str], every: bool, dry_run: bool) -> None:
    if bool(name) == every:
        raise BadInputError("name a site, or give --all for the boxes at all --port")
    if not ports and not (name and dry_run):
        raise BadInputError("name the port: --port /dev/ttyUSB0; `haaro doctor flash` helps")
    if len(ports) > 1 and not every:
        raise BadInputError("one site is one box: give one --port, or --all")
    if every and dry_run:
        raise BadInputError(
            "--all finds out by the ports which sites are meant; --dry-run needs SITE"
        )
    if len(set(ports)) != len(ports):
        raise BadInputError("a port is named twice; each box has its own")


def _prepared(fleet: Fleet, keys: Any, site: Site, options: Options) -> Prepared:
    board = boards.load(site.board)
    folder = options.firmware or build.default_folder(board.name)
    _, tree = build.load(board, folder)
    name, data = options.micropython
    parts = micropython.split(board, data, name)
    write, verify = contents.parts(board, tree, parts, contents.site_files(fleet, keys, site))
    return Prepared(site, board, write, verify)


def _flash_all(
    fleet: Fleet, prepare: Callable[[Site], Prepared], cables: list[Cable], options: Options,
    shown: "_Shown",
) -> list[Outcome]:  # fmt: skip
    """Flash the box at each cable as the site that has its unique id; side by side."""
    by_id = {
        site.table.unique_id: site
        for site in fleet.in_service
        if site.table.unique_id and boards.flashable(site.board) and not by_drive.wanted(site)
    }
    if not by_id:
        rows = [f"{name}: {why}" for name, why in _left_out(fleet).items()]
        raise BadInputError("\n".join([f"{fleet.path}: --all can tell no site's box:", *rows]))

    def one(cable: Cable) -> Outcome:
        try:
            # Sites of one fleet may have different boards; whose box it is, its chip says.
            found = burn.identify(boards.load(next(iter(by_id.values())).board), cable)
            if found.mac not in by_id:
                raise FlashError(f"{cable.port}: no site has unique_id {found.mac}")
            return _Box(fleet, prepare(by_id[found.mac]), cable, options, shown).run()
        except FleetError as error:
            return Outcome("", cable.port, "", "failed", error=str(error))

    with ThreadPoolExecutor(len(cables)) as pool:
        return list(pool.map(one, cables))


def _left_out(fleet: Fleet) -> dict[str, str]:
    """Return {site: why `--all` cannot flash its box, and what to do instead}."""
    found = {}
    for site in fleet.in_service:
        one = f"haaro flash {site.name}"
        if by_drive.wanted(site):
            found[site.name] = (
                f"the boot ROM's drive of its {boards.load(site.board).chip.name} says nothing of"
                f" whose it is; hold BOOTSEL, plug it in, run: {one} --micropython FILE.uf2"
            )
        elif site.board == openwrt.NAME:
            found[site.name] = f"an OpenWrt box is flashed by ssh; run: {one} --ssh root@HOST"
        elif not boards.flashable(site.board):
            found[site.name] = (
                f"board {site.board} is not flashed; {boards.folder() / site.board / 'board.md'}"
                " says how it is set up"
            )
        elif not site.table.unique_id:
            found[site.name] = (
                f"it has no unique_id; give it one in {fleet.path.name}, or run: {one} --port PORT"
            )
    return found


class _Work(ABC):
    """One box on its way, by whichever way; `_burn` is that."""

    def __init__(
        self, fleet: Fleet, site: Site, outcome: Outcome, options: Options, shown: "_Shown"
    ) -> None:
        self._fleet = fleet
        self._site = site
        self._outcome = outcome
        self._options = options
        self._shown = shown

    @abstractmethod
    def _burn(self) -> None:
        """Put everything into the box. Raises FleetError."""

    def run(self) -> Outcome:
        """Do it; what went wrong is in the outcome, and the audit line is written."""
        if self._options.dry_run:
            return self._outcome
        began = time.monotonic()
        try:
            self._burn()
            self._outcome.result = "flashed"
            if self._options.wait_s:
                since = time.monotonic()
                self._shown(self._outcome.site, "waiting for its registration", 0, 1)
                self._outcome.care_of_address = first_boot.wait(
                    self._fleet, self._site, since, self._options.wait_s
                )
                self._outcome.result = "up"
        except FleetError as error:
            self._outcome.error = str(error)
            if self._outcome.result != "flashed":
                self._outcome.result = "failed"
        self._outcome.seconds = round(time.monotonic() - began, 1)
        _audit(self._fleet, self._outcome)
        return self._outcome

    def _others(self) -> dict[str, str]:
        """{unique id: site} of all boxes but this one."""
        own = self._site.table.unique_id
        known = {site.table.unique_id: site.name for site in self._fleet.sites.values()}
        return {mac: name for mac, name in known.items() if mac and mac != own}

    def _progress(self, what: str, done: int, total: int) -> None:
        self._shown(self._site.name, what, done, total)


class _Box(_Work):
    """By a serial port and esptool."""

    def __init__(
        self, fleet: Fleet, prepared: Prepared, cable: Cable, options: Options, shown: "_Shown"
    ) -> None:
        outcome = Outcome(prepared.site.name, cable.port, prepared.board.name)
        outcome.parts = [
            {"offset": part.offset, "size": len(part.data), "name": part.name}
            for part in prepared.write
        ]
        super().__init__(fleet, prepared.site, outcome, options, shown)
        self._prepared = prepared
        self._cable = cable

    def _burn(self) -> None:
        prepared = self._prepared
        found = burn.burn(
            prepared.board, self._cable, prepared.write, prepared.verify,
            burn.Owner(self._site.table.unique_id, self._others()), self._progress,
        )  # fmt: skip
        self._outcome.unique_id = found.mac
        self._outcome.notes = found.notes


class _DriveBox(_Work):
    """By the boot ROM's drive; `port`, if there is one, is where the console is afterwards."""

    def __init__(
        self, fleet: Fleet, site: Site, made: by_drive.Parts, drive: Path | None, port: str,
        options: Options, shown: "_Shown",
    ) -> None:  # fmt: skip
        outcome = Outcome(site.name, port or str(drive or "its drive"), made.board.name)
        outcome.parts = [
            {"offset": offset, "size": size, "name": name} for name, offset, size in made.rows
        ]
        outcome.notes = list(made.notes)
        super().__init__(fleet, site, outcome, options, shown)
        self._made = made
        self._drive = drive
        self._port = port

    def _burn(self) -> None:
        place = by_drive.find(self._made.board, self._drive)
        doubt = by_drive.send(place, self._made.data, self._progress)
        if self._port:
            self._progress("waiting for its console", 0, 1)
            owner = burn.Owner(self._site.table.unique_id, self._others())
            self._outcome.unique_id = by_drive.check(self._port, self._made, owner)
        elif doubt and not self._options.wait_s:
            raise FlashError(
                f"{doubt}: nothing says whether the box has all of it; give the same command"
                " again, with --port or without --wait 0"
            )
        else:
            self._outcome.notes.append(
                "without --port nobody asks the box whose it is, and which files it has"
            )


class _SshBox(_Work):
    """An OpenWrt box, by ssh and its package manager."""

    def __init__(
        self, fleet: Fleet, site: Site, made: by_ssh.Parts, door: by_ssh.Door, options: Options,
        shown: "_Shown",
    ) -> None:  # fmt: skip
        outcome = Outcome(site.name, door.target, openwrt.NAME)
        outcome.parts = [
            {"offset": 0, "size": len(data), "name": f"package for {manager}"}
            for manager, data in made.packages.items()
        ]
        outcome.parts += [
            {"offset": 0, "size": len(data), "name": f"/{name}"} for name, data, _ in made.files
        ]
        super().__init__(fleet, site, outcome, options, shown)
        self._made = made
        self._door = door

    def _burn(self) -> None:
        found, manager, free = by_ssh.identify(self._door)
        self._outcome.unique_id = found.mac
        own, others = self._site.table.unique_id, self._others()
        if found.mac in others:
            raise FlashError(f"the box {found.mac} is that of site {others[found.mac]}")
        if own and own != found.mac:
            raise FlashError(f"the box is {found.mac or 'without an id'}, not {own}")
        by_ssh.install(self._door, self._made, manager, free, self._progress)


def _audit(fleet: Fleet, outcome: Outcome) -> None:
    """Append who got what, when; never what is in it."""
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    line = {"time": now, "way": "flash"}
    line |= {key: value for key, value in asdict(outcome).items() if key not in ("parts", "notes")}
    try:
        handle = os.open(fleet.directory / AUDIT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, PRIVATE)
        with os.fdopen(handle, "w") as sink:
            sink.write(json.dumps(line) + "\n")
    except OSError as error:
        outcome.notes.append(f"{fleet.directory / AUDIT}: {error.strerror}; no audit line")


class _Shown:
    """Progress on standard error: a bar for each box on a terminal, tenths in a log."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Progress | None = None
        if sys.stderr.isatty() and not quiet:
            self._bars = Progress(
                TextColumn("{task.fields[site]}"),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>3.0f} % {task.description}"),
                console=Console(stderr=True, highlight=False),
            )
        self._rows: dict[str, TaskID] = {}
        self._last: dict[str, tuple[int, str]] = {}
        self._lock = threading.Lock()

    def __call__(self, site: str, what: str, done: int, total: int) -> None:
        """Take how far the box of `site` is."""
        tenth = _TENTHS * done // max(1, total)
        with self._lock:
            if self._quiet:
                return
            if self._bars is not None:
                if not self._rows:
                    self._bars.start()
                if site not in self._rows:
                    self._rows[site] = self._bars.add_task("", total=1, site=escape(site))
                self._bars.update(
                    self._rows[site], completed=done, total=max(1, total), description=escape(what)
                )
            elif self._last.get(site) != (tenth, what.partition(" ")[0]):
                self._last[site] = (tenth, what.partition(" ")[0])
                sys.stderr.write(f"{site}: {10 * tenth:3d} % {what}\n")
                sys.stderr.flush()

    def end(self) -> None:
        """Leave the bars as they are."""
        if self._bars is not None and self._rows:
            self._bars.stop()


def _report(outcomes: list[Outcome], as_json: bool, left_out: dict[str, str] | None = None) -> None:
    if as_json:
        boxes = [asdict(outcome) for outcome in outcomes]
        document(SCHEMA, boxes=boxes, left_out=left_out or {})
    else:
        for site, why in (left_out or {}).items():
            typer.echo(f"NOTE: {site} is left out: {why}", err=True)
        for outcome in outcomes:
            for note in outcome.notes:
                typer.echo(f"NOTE: {outcome.site}: {note}", err=True)
            typer.echo(_line(outcome))
    failed = [outcome for outcome in outcomes if outcome.error]
    if len(failed) == 1:
        raise FlashError(failed[0].error)
    if failed:
        for outcome in failed:
            typer.echo(f"{outcome.site or outcome.port}: {outcome.error}", err=True)
        raise FlashError(f"{len(failed)} of {len(outcomes)} boxes are not up")


def _line(outcome: Outcome) -> str:
    if outcome.result == "planned":
        rows = [f"  {row['offset']:#010x} {row['size']:>9} {row['name']}" for row in outcome.parts]
        return "\n".join([f"{outcome.site}: fits board {outcome.board}; would be written:", *rows])
    if outcome.result == "up":
        return f"{outcome.site} is up, at {outcome.care_of_address} ({outcome.seconds} s)"
    if outcome.result == "flashed":
        return f"{outcome.site} is flashed ({outcome.seconds} s)"
    return f"{outcome.site or outcome.port} is not flashed"
