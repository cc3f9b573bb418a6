"""`haaro top`: the fleet on a terminal, from the home agent's status; q or Ctrl-C ends it.

Exit status: 0 every site in service is registered (at the last look), 1 one is not or the home
agent does not answer, 2 bad usage or a bad fleet file.
"""

import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from haaro_host.fleet import inventory, top
from haaro_host.fleet.inventory import Fleet
from haaro_host.fleet.output import FLEET, JSON, document, errors

_STYLES = {"up": "green", "not registered": "bold red", "unknown": "yellow", "revoked": "dim"}
_SHORT = {"not registered": "away"}
_PLAIN_COLUMNS = 79
_STEP_S = 0.2
# Title, heading, line of warnings, key help.
_OTHER_LINES = 5


def top_command(
    path: Path = FLEET,
    once: bool = typer.Option(False, "--once", help="show it once and end"),
    interval: float = typer.Option(2.0, min=0.5, help="seconds between two looks"),
    as_json: bool = JSON,
) -> None:
    """Watch the fleet: who is registered, since when, by which uplink, and what needs a look.

    Direct paths are shown where fleet.ask_router says how routers are asked. q or Ctrl-C ends it.
    --json prints one document; it implies --once. Exit status: 0 all are registered, 1 not all.
    """
    with errors():
        fleet = inventory.load(path)
        if once or as_json or not sys.stdout.isatty():
            answers = top.ask_routers(fleet)
            seen = top.look(fleet, lambda site: answers.get(site.name))
            if as_json:
                document(**seen)
            else:
                # Wide enough for a line even where the output is a file.
                width = None if sys.stdout.isatty() else _PLAIN_COLUMNS
                Console(width=width, highlight=False).print(drawn(seen, 0))
        else:
            seen = _watch(path, fleet, interval)
    if not seen["home_agent"]["answers"] or seen["registered"] < seen["in_service"]:
        raise typer.Exit(1)


class _Routers:
    """Asks the routers again and again beside the drawing: one that is away answers late."""

    def __init__(self, fleet: Fleet, interval: float) -> None:
        self.fleet = fleet
        self.answers: dict[str, Any] = {}
        self._over = threading.Event()
        self._interval = interval
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self.answers = top.ask_routers(self.fleet)
            self._over.wait(self._interval)

    def end(self) -> None:
        self._over.set()


def _watch(path: Path, fleet: Fleet, interval: float) -> dict[str, Any]:
    console = Console(highlight=False)
    routers = _Routers(fleet, interval)

    def look() -> dict[str, Any]:
        return top.look(routers.fleet, lambda site: routers.answers.get(site.name))

    seen = look()
    try:
        with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(drawn(seen, console.height - 1), refresh=True)
                if pressed(interval):
                    break
                try:
                    # A site that was added meanwhile is shown; a file half edited is not.
                    routers.fleet = inventory.load(path)
                except inventory.FleetFileError as error:
                    seen = {**look(), "warnings": [str(error).splitlines()[0]]}
                else:
                    seen = look()
    except KeyboardInterrupt:
        pass
    finally:
        routers.end()
    return seen


@contextmanager
def _keys() -> Iterator[Any]:
    """Give `pressed(seconds)`: whether q was pressed within that time; Ctrl-C stays itself."""
    if not sys.stdin.isatty():

        def wait(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield wait
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)

    def pressed(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([number], [], [], _STEP_S)[0] and os.read(number, 64) in (b"q", b"Q"):
                return True
        return False

    try:
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


# --- drawing ------------------------------------------------------------------------------------


def drawn(seen: dict[str, Any], lines: int) -> RenderableType:
    """Return what is shown of `seen` in `lines` lines (0: all); those in trouble come first."""
    sites = sorted(seen["sites"], key=lambda site: not top.troubled(site))
    warnings = [Text(f"! {text}", "yellow") for text in seen["warnings"]]
    warnings += [
        Text(f"! {site['name']}: {text}", "yellow") for site in sites for text in site["warnings"]
    ]
    left = 0
    if lines:
        space = max(2, lines - _OTHER_LINES)
        # Half of the lines are the sites' in any case; what they do not need is the warnings'.
        room = max(space // 2, space - len(warnings))
        if len(sites) > room:
            left = len(sites) - (room - 1)
            sites = sites[: room - 1]
        free = max(0, space - len(sites) - bool(left))
        if len(warnings) > free:
            more = len(warnings) - max(0, free - 1)
            warnings = [*warnings[: max(0, free - 1)], Text(f"! {more} more: haaro top --once")]
    parts: list[RenderableType] = [_title(seen), _table(sites)]
    if left:
        parts.append(Text(f"and {left} more", "dim"))
    for line in warnings:
        line.no_wrap, line.overflow = bool(lines), "ellipsis"
        parts.append(line)
    if lines:
        parts.append(Text("q ends it", "dim"))
    return Group(*parts)


def _title(seen: dict[str, Any]) -> Text:
    agent = seen["home_agent"]
    what = f"{seen['fleet']}: {seen['registered']} of {seen['in_service']} registered"
    state = f"home agent {agent['address']} "
    state += f"up {top.span(agent['uptime_s'])}" if agent["answers"] else "does not answer"
    line = Text(f"{what}; {state}; {seen['time'][11:]}", "bold")
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _table(sites: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("SITE", max_width=16, no_wrap=True)
    table.add_column("STATE", no_wrap=True)
    table.add_column("UPLINK", no_wrap=True, max_width=24, overflow="ellipsis")
    for name in ("SINCE", "DIRECT", "OFF HA", "KEY AGE"):
        table.add_column(name, no_wrap=True, justify="right")
    for site in sites:
        style = _STYLES[site["state"]]
        table.add_row(
            Text(site["name"]),
            Text(_SHORT.get(site["state"], site["state"]), style),
            Text(_uplink(site)),
            _since(site),
            "-" if site["direct"] is None else f"{site['direct']}/{site['peers']}",
            _percent(site["off_home_agent_percent"]),
            _key_age(site),
        )
    return table


def _uplink(site: dict[str, Any]) -> str:
    address = site["care_of_address"] or "-"
    name = f"{site['uplink']} " if site["uplink"] else ""
    return name + address + (" NAT" if site["nat"] else "")


def _since(site: dict[str, Any]) -> str:
    if site["state"] == "up" and site["registered_s"] is None:
        return "before"  # the home agent was started anew meanwhile
    return top.span(site["registered_s"])


def _percent(value: int | None) -> str:
    return "-" if value is None else f"{value} %"


def _key_age(site: dict[str, Any]) -> str:
    active = [key["age_s"] for key in site["keys"] if key["state"] == "active"]
    return top.span(active[0]) if active else "none"
