"""`haaro simulate`: a scenario, or every fault, in one process on a fake clock."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import typer

from haaro_host.simulate import fault_runs, soak
from haaro_host.simulate.diagram import Diagram
from haaro_host.simulate.network import SimulationError
from haaro_host.simulate.report import lines, report
from haaro_host.simulate.run import Run
from haaro_host.simulate.scenario_file import ScenarioError, load

EXIT_MISSED, EXIT_USAGE = 1, 2


def simulate(
    scenario: Path | None = typer.Argument(
        None, metavar="[SCENARIO.toml]", help="what to run; scenarios/ has examples"
    ),
    seed: int = typer.Option(1, help="the same seed gives the same run, octet for octet"),
    diagram: Path | None = typer.Option(None, help="write a Mermaid sequence diagram here"),
    trace: Path | None = typer.Option(None, help="write every datagram here, one a line"),
    faults: bool = typer.Option(False, "--faults", help="the faults F1 to F14 instead"),
    fault: str | None = typer.Option(None, help="with --faults: only this one, such as F5"),
    soak_days: float | None = typer.Option(None, min=0.01, help="so many days of faults instead"),
    as_json: bool = typer.Option(False, "--json", help="print JSON"),
) -> None:
    """Run the shipped routers and home agent on a simulated internet, on a fake clock.

    Exit status: 0 as expected, 1 a bound is missed or something was not as expected, 2 bad usage.
    """
    chosen = [scenario is not None, faults, soak_days is not None]
    if chosen.count(True) != 1:
        _fail("give SCENARIO.toml, or --faults, or --soak-days")
    if scenario is None and (diagram or trace):
        _fail("--diagram and --trace go with SCENARIO.toml")
    if fault is not None and fault not in fault_runs.NAMES:
        _fail(f"--fault: known are {', '.join(fault_runs.NAMES)}")
    if faults:
        good = _faults(seed, fault, as_json)
    elif soak_days is not None:
        good = _soak(seed, soak_days, as_json)
    else:
        assert scenario is not None
        good = _scenario(scenario, seed, diagram, trace, as_json)
    if not good:
        raise typer.Exit(EXIT_MISSED)


def _scenario(
    path: Path, seed: int, diagram: Path | None, trace: Path | None, as_json: bool
) -> bool:
    try:
        run = Run(load(path), seed)
    except ScenarioError as error:
        _fail(str(error))
    with ExitStack() as stack:
        stack.enter_context(run.world)
        if trace is not None:
            run.world.network.trace_file = stack.enter_context(trace.open("w"))
        drawing = Diagram(run.world) if diagram is not None else None
        try:
            run.go()
        except SimulationError as error:
            typer.echo(f"haaro: {error}", err=True)
            return False
        data = report(run)
        if diagram is not None and drawing is not None:
            diagram.write_text(drawing.text())
    typer.echo(json.dumps(data, indent=1) if as_json else "\n".join(lines(data)))
    return not data["failures"]


def _faults(seed: int, only: str | None, as_json: bool) -> bool:
    rows = list(fault_runs.run_all(seed) if only is None else fault_runs.run(only, seed))
    if as_json:
        typer.echo(json.dumps([fault_runs.as_dict(row) for row in rows], indent=1))
    else:
        typer.echo("fault path    bound s  outage s")
        for row in rows:
            outage = "   -" if row.outage_s is None else f"{row.outage_s:.2f}"
            missed = "" if row.met else "  MISSED"
            typer.echo(
                f"{row.fault:<5} {row.path:<7} {row.bound_s:>7g} {outage:>9}{missed}  {row.note}"
            )
    return all(row.met for row in rows)


def _soak(seed: int, days: float, as_json: bool) -> bool:
    data = soak.run(seed, days, None if as_json else lambda text: typer.echo(text))
    typer.echo(json.dumps(data, indent=1) if as_json else "\n".join(soak.lines(data)))
    return not data["failures"]


def _fail(text: str) -> NoReturn:
    typer.echo(f"haaro: {text}", err=True)
    raise typer.Exit(EXIT_USAGE)
