"""`haaro lab`: the offices, the home agent and the internet in namespaces of this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from haaro_host.lab import plan, report, system
from haaro_host.lab.demo import Demo, Options
from haaro_host.lab.faults import cases
from haaro_host.lab.faults.outages import Outages
from haaro_host.lab.lab import Lab
from haaro_host.lab.soak import Soak
from haaro_host.lab.system import LabError

app = typer.Typer(no_args_is_help=True)

_NAME = typer.Option(plan.DEFAULT_NAME, "--name", help="prefix of the namespaces: NAME-a, ...")
_OUT_DEMO = typer.Option(Path("build/demo"), help="directory for report, captures and logs")
_OUT_SOAK = typer.Option(Path("build/soak"), help="directory for soak.json, captures and logs")
_OUT_FAULTS = typer.Option(Path("build/faults"), help="directory for captures and logs of misses")
_OUT_OUTAGES = typer.Option(Path("build/outages"), help="directory where the results are kept")
_DATA_PLANE = typer.Option(
    "userspace", "--dataplane", help="of the routers: " + ", ".join(plan.DATA_PLANES)
)
_HA_DATA_PLANE = typer.Option(
    "userspace",
    "--ha-dataplane",
    help="of the home agent: " + ", ".join(plan.HA_DATA_PLANES),
)
_ENCAPSULATION = typer.Option(
    "udp", "--encapsulation", help="of the tunnels: " + ", ".join(plan.ENCAPSULATIONS)
)
_SOAK_MINUTES = 10.0
_PLAIN_COLUMNS = 130


@app.callback()
def everything() -> None:
    """The offices, the home agent and the internet in namespaces of this machine."""
    system.widen_path()


@app.command()
def up(
    name: str = _NAME,
    dataplane: str = _DATA_PLANE,
    ha_dataplane: str = _HA_DATA_PLANE,
    encapsulation: str = _ENCAPSULATION,
    udp_only: bool = typer.Option(False, help="the internet drops all encapsulations but UDP"),
) -> None:
    """Build the lab and start the home agent and the routers A, B, C."""
    with _explained():
        layout = plan.layout_with(dataplane, ha_dataplane, encapsulation, udp_only)
        Lab(name, layout=layout).up(typer.echo)
        typer.echo(
            "the lab is up; `haaro lab exec ch ping 10.1.0.10` makes C and A find each other"
        )


@app.command()
def status(
    name: str = _NAME, as_json: bool = typer.Option(False, "--json", help="print plain facts")
) -> None:
    """Show what runs and what the routers say. Exit status 0 up, 2 not up."""
    with _explained():
        _prepared()
        facts = Lab(name).status()
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _show(facts)
    running = facts["processes"] and all(p["running"] for p in facts["processes"].values())
    raise typer.Exit(0 if facts["stage"] == "up" and running else 2)


@app.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
def execute(
    node: str = typer.Argument(help="ha, hq, inet, a, b, c, or a host: ah, bh, ch"),
    command: list[str] = typer.Argument(help="program and arguments"),
    name: str = _NAME,
) -> None:
    """Run a command in a node of the lab."""
    with _explained():
        _prepared()
        lab = Lab(name)
        words = lab.inside(node, command[1:] if command[0] == "--" else command)
        if lab.state.stage == "absent":
            raise LabError(f"the lab {name!r} is not up; `haaro lab up` builds it")
    sys.stdout.flush()
    os.execvp(words[0], words)


@app.command()
def board(
    flash: Path = typer.Argument(help="a directory, the board's file system; made if need be"),
    port: Path = typer.Option(..., "--port", help="a link that will lead to its serial port"),
    unique_id: str = typer.Option("00c0ffee0001", help="the board's id"),
) -> None:
    """A board without hardware, until Ctrl-C: MicroPython behind a serial port, no network."""
    from haaro_host.lab.board.pty_board import Board, serve

    flash.mkdir(parents=True, exist_ok=True)
    with _explained():
        typer.echo(f"{port}: the board's port; Ctrl-C ends it", err=True)
        serve(Board(flash.resolve(), port.absolute(), unique_id), same_network=False)


@app.command()
def down(
    name: str = _NAME, as_json: bool = typer.Option(False, "--json", help="what was done, as JSON")
) -> None:
    """Stop and remove everything, also what an interrupted run left."""
    with _explained():
        done = Lab(name).down(lambda line: typer.echo(line, err=as_json))
    if as_json:
        typer.echo(json.dumps({"schema": "haaro.lab.down/1", "name": name, "done": done}))
    elif not done:
        typer.echo("there was nothing to take down")


@app.command()
def demo(
    out: Path = _OUT_DEMO,
    name: str = _NAME,
    dataplane: str = _DATA_PLANE,
    ha_dataplane: str = _HA_DATA_PLANE,
    encapsulation: str = _ENCAPSULATION,
    soak_minutes: float = typer.Option(0.0, "--soak", help="soak for MINUTES instead"),
) -> None:
    """Show and prove that A and C find the direct path, lose it and find it again.

    Exit status 0 only if every claim was observed in this run.
    """
    _alone()
    options = Options(
        out=_directory(out),
        name=name,
        dataplane=dataplane,
        ha_dataplane=ha_dataplane,
        encapsulation=encapsulation,
    )
    if soak_minutes:
        raise typer.Exit(_soak(options, soak_minutes))
    console = _console()
    with _explained():
        plan.layout_with(dataplane, ha_dataplane, encapsulation)
        system.require(system.TOOLS_FOR_DEMO)
        facts = Demo(options, console).run()
    report.show(facts, console)
    written = report.write(facts, options.out)
    console.print(f"report, captures and logs: {written.parent}")
    raise typer.Exit(0 if facts.ok else 1)


@app.command()
def soak(
    out: Path = _OUT_SOAK,
    name: str = _NAME,
    dataplane: str = _DATA_PLANE,
    ha_dataplane: str = _HA_DATA_PLANE,
    minutes: float = typer.Option(_SOAK_MINUTES, help="how long"),
) -> None:
    """Traffic between C and A for minutes: is the direct path kept while tokens are renewed?"""
    _alone()
    options = Options(
        out=_directory(out), name=name, dataplane=dataplane, ha_dataplane=ha_dataplane
    )
    raise typer.Exit(_soak(options, minutes))


@app.command()
def faults(
    case: list[str] = typer.Argument(None, help="names of cases; all but the long ones if absent"),
    seed: int = typer.Option(1, help="sets the phase of every timer"),
    jobs: int = typer.Option(cases.SIDE_BY_SIDE, min=1, help="labs side by side"),
    out: Path = _OUT_FAULTS,
    as_json: bool = typer.Option(False, "--json", help="one object a case"),
) -> None:
    """Do faults F1 to F14 to real processes and measure each outage.

    Exit status 0 if every bound holds, 1 if not. Captures and logs of a miss stay in --out.
    """
    unknown = sorted(set(case or ()) - set(cases.BY_KEY))
    if unknown:
        known = ", ".join(cases.BY_KEY)
        raise typer.BadParameter(f"no case {unknown[0]!r}; there are {known}", param_hint="CASE")
    _alone()
    wanted = case or [each.key for each in cases.CASES if not each.long]
    held = True
    with _explained():
        system.require(system.TOOLS_FOR_DEMO)
        system.prepare_run()
        prefix = f"haaro-l{os.getpid()}"
        for result in cases.run_all(wanted, seed, _directory(out), prefix, jobs):
            held &= result.met
            row = {"schema": "haaro.lab.fault/1", **asdict(result)}
            typer.echo(json.dumps(row) if as_json else cases.as_text(result))
    raise typer.Exit(0 if held else 1)


@app.command()
def outages(
    runs: int = typer.Option(20, min=1, help="how often each fault is done"),
    jobs: int = typer.Option(4, min=1, help="runs side by side"),
    out: Path = _OUT_OUTAGES,
    report: Path = typer.Option(Path("docs/outages.md"), help="the document"),
    only_write: bool = typer.Option(False, "--write", help="run nothing, write the document"),
) -> None:
    """Do every fault many times, in namespaces and in simulation; may take hours, and goes on
    where it was interrupted. Exit status 1 if a bound was missed."""
    _alone()
    with _explained():
        if not only_write:
            system.require(system.TOOLS_FOR_DEMO)
            system.prepare_run()
        made = Outages(_directory(out), report.resolve(), runs, jobs, typer.echo)
        held = made.write() if only_write else made.measure()
    typer.echo(f"written: {report}")
    raise typer.Exit(0 if held else 1)


def _soak(options: Options, minutes: float) -> int:
    with _explained():
        system.require(system.TOOLS_FOR_DEMO)
        return 0 if Soak(options, minutes, _console()).run() else 1


def _console() -> Console:
    """The terminal as it is; a pipe or a file gets lines long enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=_PLAIN_COLUMNS)


def _directory(out: Path) -> Path:
    with _explained():
        try:
            out.mkdir(parents=True, exist_ok=True)
            (out / ".writable").touch()
            (out / ".writable").unlink()
        except OSError as error:
            raise LabError(
                f"--out {out}: {error.strerror}; name a folder that you may write to"
            ) from None
    return out.resolve()


def _prepared() -> None:
    system.require(system.TOOLS_FOR_UP)
    system.prepare_run()


def _alone() -> None:
    """Without root run the same command again in a user namespace; SIGTERM cleans up too."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    if system.has_privileges() or os.environ.get(system.REEXEC_MARK):
        return
    if system.user_namespaces_allowed():
        typer.echo("not root: the lab runs in a user namespace of its own (unshare -Urnm)")
        sys.stdout.flush()
        system.reexec_in_user_namespace(sys.argv[1:])


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (LabError, ValueError) as error:
        typer.echo(f"A fatal error occurred: {error}", err=True)
        raise typer.Exit(2) from None


def _show(facts: dict[str, Any]) -> None:
    console = Console()
    if facts["stage"] == "absent":
        console.print(f"the lab {facts['name']!r} is not up")
        return
    table = Table(title=f"lab {facts['name']}: {facts['stage']}")
    for header in ("node", "pid", "state", "log"):
        table.add_column(header)
    for node, process in facts["processes"].items():
        table.add_row(node, str(process["pid"]), _state(facts, node), process["log"])
    console.print(table)
    for node, found in facts["nodes"].items():
        for peer in found.get("peers", []):
            console.print(
                f"{node}: {peer['cr_hoa']} {peer['path']}: {peer['reason']}", highlight=False
            )
    dropped = ", ".join(f"{key} {count}" for key, count in facts["filter"].items() if count)
    console.print(f"dropped in the internet: {dropped or 'nothing'}")


def _state(facts: dict[str, Any], node: str) -> str:
    if not facts["processes"][node]["running"]:
        return "ended"
    found = facts["nodes"].get(node)
    return "does not answer" if found is None else str(found.get("state", "runs"))
