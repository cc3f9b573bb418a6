"""`haaro provision SITE --port P`: a box gets its site's files over the cable.

Exit status: 0 the box has the site's files, 1 it does not, 2 bad usage or a bad fleet file.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import typer

from haaro_host.fleet import export, inventory, store
from haaro_host.fleet.files import FleetError, locked
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.output import FLEET, JSON, PASSPHRASE_FILE, document, errors, site_names
from haaro_host.provision import by_console
from haaro_host.provision.box import Outcome, check_identity, write_audit
from haaro_host.provision.by_console import BoxConsole, print_of
from haaro_host.provision.line import REPL, SPEED, Line

SCHEMA = "haaro.provision/1"
PORT = typer.Option(..., "--port", "-p", help="the box's serial port, such as /dev/ttyUSB0")
_TENTHS = 10


class Shown:
    """Progress on standard error: a line that grows on a terminal, tenths in a log."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._last = (-1, "")

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take how far it is."""
        tenth = _TENTHS * done // total
        if self._quiet or (tenth, what if self._terminal else "") == self._last:
            return
        self._last = (tenth, what if self._terminal else "")
        if self._terminal:
            bar = "#" * tenth + "." * (_TENTHS - tenth)
            end = "\n" if done == total else ""
            sys.stderr.write(f"\r[{bar}] {what[:50]:<50}{end}")
        else:
            sys.stderr.write(f"{100 * done // total:3d} % {what}\n")
        sys.stderr.flush()


def provision(
    name: str = typer.Argument(help="the site", metavar="SITE", autocompletion=site_names),
    port: str = PORT,
    path: Path = FLEET,
    passphrase_file: Path | None = PASSPHRASE_FILE,
    confirm: bool = typer.Option(
        False, "--confirm", help="keep the new files without waiting for a registration"
    ),
    adopt: bool = typer.Option(
        False, "--adopt", help="write the box's unique id into the fleet file if there is none"
    ),
    as_json: bool = JSON,
) -> None:
    """Give a box its router.json and keys over the serial cable; a blank one the program as well.

    May be given again at any time: what the box has already is not sent. Exit status: 0 the box has
    the site's files, 1 it does not, 2 bad usage or fleet file.
    """
    with errors():
        fleet = inventory.load(path)
        site = fleet.site(name)
        keys = store.open_store(fleet, passphrase_file).keys
        files = export.router_files(fleet, keys, site)
        console = keys.console(site)
        work = _Work(fleet, site, files, console[0] if console else "", port, Shown(as_json))
        outcome = work.run(confirm, adopt)
        audit = write_audit(fleet, outcome)
        if as_json:
            document(SCHEMA, **asdict(outcome), audit=str(audit), notes=work.notes)
        else:
            for note in work.notes:
                typer.echo(f"NOTE: {note}", err=True)
            prints = ", ".join(f"{file} {mark}" for file, mark in outcome.files.items())
            typer.echo(f"{name}: {_RESULTS[outcome.result]} ({prints})")
        if outcome.result == "reverted":
            raise FleetError(
                f"{name}: the box did not register with the new files within 90 s and took the old"
                " ones back; see its uplinks and log with: haaro console"
            )


_RESULTS = {
    "unchanged": "nothing to do, the box has these files",
    "in place": "provisioned",
    "kept": "new files in use, and kept",
    "reverted": "the box went back to its old files",
}


class _Work:
    """One box, one site."""

    def __init__(
        self,
        fleet: Fleet,
        site: Site,
        files: list[export.File],
        password: str,
        port: str,
        progress: Shown,
    ) -> None:
        self.fleet = fleet
        self.site = site
        self.files = files
        self.notes: list[str] = []
        self._password = password
        self._port = port
        self._progress = progress

    def run(self, confirm: bool, adopt: bool) -> Outcome:
        """Do what is needed. Raises FleetError."""
        outcome = Outcome(self.site.name, self._port, "console", "", "unchanged")
        with Line(self._port, SPEED) as line:
            blank = line.sound() == REPL
        if blank:
            self._blank(outcome, adopt)
        console = BoxConsole(Line(self._port, SPEED), self._password)
        try:
            self._by_console(console, outcome, confirm, adopt)
        finally:
            console.close()
        return outcome

    def _blank(self, outcome: Outcome, adopt: bool) -> None:
        from haaro_host.provision.by_repl import BlankBox

        box = BlankBox(self._port)
        try:
            found = box.identity()
            self._check(found, adopt)
            outcome.changed = box.install(self.files, self._progress, self.site.board)
            outcome.way, outcome.result = "raw REPL", "in place"
            box.boot()
        finally:
            box.close()

    def _by_console(
        self, console: BoxConsole, outcome: Outcome, confirm: bool, adopt: bool
    ) -> None:
        if outcome.result == "in place":
            # The box boots: it has the files when its own console says so.
            by_console.until_restarted(console)
        identity = console.identity()
        outcome.unique_id = identity.unique_id
        self._check(identity, adopt)
        wanted = by_console.differing(console, self.files)
        if wanted:
            by_console.send(console, wanted, self._progress)
            outcome.changed += [name for name, _, _ in wanted]
            outcome.result = by_console.apply(console, confirm)
        still = [name for name, _, _ in by_console.differing(console, self.files)]
        outcome.files = {name: print_of(data) for name, data, _ in self.files if name not in still}
        if still:
            if outcome.result != "tried":
                raise FleetError(f"the box does not have {', '.join(still)}; give it again")
            outcome.result = "reverted"
        elif outcome.result == "tried":
            outcome.result = "kept"

    def _check(self, found: "by_console.Identity", adopt: bool) -> None:
        self.notes = check_identity(self.fleet, self.site, found)
        if adopt and not self.site.table.unique_id and found.unique_id:
            with locked(self.fleet.directory):
                text = inventory.read(self.fleet.path)
                changed = inventory.with_value(
                    self.fleet, text, self.site.name, "unique_id", found.unique_id
                )
                inventory.write(self.fleet.path, changed)
            self.fleet = inventory.load(self.fleet.path)
            self.site = self.fleet.site(self.site.name)
            self.notes = [f"site.{self.site.name}.unique_id is {found.unique_id} now"]
