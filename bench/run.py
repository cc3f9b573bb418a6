"""Measures all rows, interleaved, and writes build/bench.json; a full run also docs/performance.md.

python -m bench.run [--quick] [--rounds N] [--minutes M] [--rows NAME ...] [--no-scale]
python -m bench.run --report FILE     the document again from the figures of a full run
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import figures, measure, peers, report, rows, scale, star
from bench.rows import Row
from bench.topology import Net
from haaro_host.lab import processes, system
from haaro_host.lab.system import LabError

_COMMON_PPS = 10000.0
_LOOK_S = 0.3
_TOOLS = ("ip", "tc", "ping", "iperf3", "ethtool", "bpftool")


@dataclass(frozen=True)
class Effort:
    """How long everything is measured: seconds, echoes, steps of a search."""

    rounds: int
    tcp_s: int
    echoes: int
    trial_s: float
    steps: int
    scale_points: tuple[tuple[int, int], ...]
    filled_points: tuple[tuple[int, int], ...]
    beyond: tuple[tuple[int, int], ...]
    routers: tuple[int, ...]
    star_rounds: int


FULL = Effort(
    5, 2, 500, 0.5, 6, scale.POINTS, scale.FILLED, scale.BEYOND, (1, 100, 1000), 2
)  # fmt: skip
QUICK = Effort(
    1, 1, 150, 0.25, 4, (scale.POINTS[0], scale.POINTS[3]), (scale.FILLED[-1],), (), (100,), 1
)  # fmt: skip


class Bench:
    """One run. `out`: build directory, where bench.json and the logs go."""

    def __init__(self, out: Path, effort: Effort, minutes: float | None) -> None:
        self.out = out
        self.build = (out / "bench").resolve()
        self.effort = effort
        self.began = time.monotonic()
        self.end = self.began + minutes * 60 if minutes else None
        self.prefix = f"hbench{os.getpid()}"
        self.result: dict[str, Any] = {
            "schema": "haaro.bench/1",
            "effort": asdict(effort),
            "began": _now(),
            "machine": machine(),
            "versions": versions(),
            "rounds": [],
            "scale": [],
            "home_agent": [],
            "star": [],
            "errors": [],
        }

    def save(self) -> None:
        """Write what there is up to now."""
        self.result["ended"] = _now()
        self.result["seconds"] = round(time.monotonic() - self.began, 1)
        text = json.dumps(self.result, indent=2) + "\n"
        processes.write_atomically(self.out / "bench.json", text)

    def run(self, names: list[str], with_scale: bool) -> bool:
        """All rounds, then the scale; False if a row never worked."""
        chosen, left_out = rows.chosen(names)
        self.result["left_out"] = left_out
        self.result["rows"] = {
            row.name: {"label": row.label, "secrecy": row.secrecy, "ours": row.ours}
            for row in chosen
        }
        for name, why in left_out.items():
            self.say(f"{name}: left out, {why}")
        if with_scale:
            self.scale()
            self.star()
        by_name = {row.name: row for row in chosen}
        longest = 0.0
        for number in range(self.effort.rounds):
            begun = time.monotonic()
            if self.end and begun + longest > self.end:
                self.say(f"no time for round {number + 1}: {number} rounds are what there is")
                break
            found: dict[str, Any] = {}
            self.result["rounds"].append(found)
            for name in figures.order(list(by_name), number):
                found[name] = self.one(by_name[name], number)
                self.save()
            longest = max(longest, time.monotonic() - begun)
        self.save()
        return all(
            any("error" not in each.get(name, {"error": ""}) for each in self.result["rounds"])
            for name in by_name
        )

    def one(self, row: Row, number: int) -> dict[str, Any]:
        """One row in one round; its error instead of figures if it did not work."""
        logs = self.build / "logs" / row.name
        others = measure.busy_cpus(_LOOK_S)
        try:
            with Net(self.prefix, logs, row.wire_true) as net:
                found = {"busy_before": others, **self._measure(net, row)}
        except (LabError, OSError) as error:
            self.result["errors"].append({"row": row.name, "round": number, "why": str(error)})
            self.say(f"{number + 1} {row.name}: {error}")
            return {"error": str(error)}
        self.say(
            f"{number + 1} {row.name}: {found['tcp1']:.2f} and {found['tcp8']:.2f} Gbit/s, "
            f"{found['kpps']:.0f} kpps, {found['rtt_us']:.0f} us, "
            f"{found.get('cpu_us', 0):.1f} us CPU a packet"
        )
        return found

    def _measure(self, net: Net, row: Row) -> dict[str, Any]:
        effort = self.effort
        running = row.start(net, self.build)
        found: dict[str, Any] = {}
        before = running.lost()
        for flows in (1, 8):
            stream = measure.tcp(net, flows, effort.tcp_s)
            found[f"tcp{flows}"] = stream["gbit_s"]
            found[f"retransmits{flows}"] = stream["retransmits"]
        _note_loss(found, "tcp", before, running.lost())
        echoes = measure.round_trips(net, effort.echoes)
        found["rtt_us"] = figures.quantile(echoes, 0.5)
        found["rtt_p99_us"] = figures.quantile(echoes, 0.99)
        with measure.Counter(net, self.build) as counter:
            generator = measure.Generator(net, self.build, counter)
            before = running.lost()
            found.update(
                measure.cpu_per_packet(generator, running.pids, _COMMON_PPS, 2 * effort.trial_s)
            )
            _note_loss(found, "paced", before, running.lost())
            before = running.lost()
            rate = generator.search(effort.trial_s, effort.steps)
            _note_loss(found, "flood", before, running.lost())
            found["dropped_by_counter"] = generator.dropped_by_counter
        found["kpps"] = rate.best / 1000
        found["blast_kpps"] = rate.blast / 1000
        found["generator"] = rate.generator
        found["fragments"] = net.fragments()
        return found

    def scale(self) -> None:
        """Tunnels and prefixes: both planes, the kernel's maps alone, the home agent."""
        effort = self.effort
        pace = scale.Pace(effort.trial_s, effort.steps)
        for plane in ("userspace", "kernel"):
            for point in effort.scale_points:
                self._scaled(f"{plane} {point}", scale.run, plane, point, pace)
        for point in effort.beyond:
            self._scaled(f"userspace {point}", scale.run, "userspace", point, pace)
        for point in effort.filled_points:
            self._scaled(f"kernel maps {point}", scale.run_filled, point, pace)
        for count in effort.routers:
            try:
                self.result["home_agent"].append(scale.home_agent(count))
            except LabError as error:
                self._failed(f"home agent, {count} routers", error)
        self.save()

    def star(self) -> None:
        """The home agent's planes, between routers that have no direct path."""
        effort = self.effort
        for number in range(effort.star_rounds):
            found: dict[str, Any] = {}
            self.result["star"].append(found)
            for name in figures.order(list(star.ROWS), number):
                pace = (effort.tcp_s, effort.trial_s, effort.steps)
                try:
                    found[name] = star.run(self.prefix, self.build, name, *pace)
                except (LabError, OSError) as error:
                    found[name] = {"error": str(error)}
                    self._failed(f"star, {name}", error)
                    continue
                self.say(f"star {name}: {json.dumps(found[name])}")
        self.save()

    def _scaled(self, what: str, function: Any, *arguments: Any) -> None:
        try:
            with Net(self.prefix, self.build / "logs" / "scale") as net:
                found = function(net, self.build, *arguments)
        except (LabError, OSError) as error:
            self._failed(what, error)
            return
        self.result["scale"].append(found)
        self.say(f"scale {what}: {json.dumps(found)}")

    def _failed(self, what: str, error: Exception) -> None:
        self.result["errors"].append({"row": what, "round": None, "why": str(error)})
        self.say(f"{what}: {error}")

    def say(self, line: str) -> None:
        """One line, with the seconds since the start."""
        print(f"{time.monotonic() - self.began:7.1f} s  {line}", flush=True)


def machine() -> dict[str, Any]:
    """What this ran on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }


def versions() -> dict[str, str]:
    """Versions of everything that is compared or measures."""
    found = peers.versions()
    found["python"] = platform.python_version()
    words = [system.micropython(), "-c", "import sys; print(sys.version)"]
    found["micropython"] = system.run(words).strip()
    head = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                          text=True, check=False, cwd=system.repository())  # fmt: skip
    if head.returncode == 0:
        found["haaro"] = head.stdout.strip()
    return found


def main() -> int:
    """Run as the command line says; 0 if every row worked at least once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--minutes", type=float, help="no round begins that would end later")
    parser.add_argument("--rows", nargs="*", default=[])
    parser.add_argument("--no-scale", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    if options.report:
        report.write(json.loads(options.report.read_text()), system.repository() / "docs")
        return 0
    system.widen_path()
    # So that the namespaces go with it, however it ends; in the background SIGINT is ignored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = Effort(**{**asdict(effort), "rounds": options.rounds})
    try:
        require()
        bench = Bench(options.out, effort, options.minutes)
        done = bench.run(options.rows, not options.no_scale)
    except LabError as error:
        print(f"haaro: {error}", file=sys.stderr)
        return 2
    report.tell(bench.result)
    if not (options.quick or options.rows):
        report.write(bench.result, system.repository() / "docs")
        print("wrote docs/performance.md and docs/performance.png")
    print(f"wrote {options.out / 'bench.json'}")
    return 0 if done else 1


def require() -> None:
    """Raise LabError that says what is missing."""
    if system.in_user_namespace() or not system.has_privileges():
        raise LabError("the bench needs root: the kernel plane and queues of equal size do")
    gone = peers.missing(_TOOLS)
    if gone:
        raise LabError(f"missing: {', '.join(gone)}; `make bench` installs what it can")


def _note_loss(found: dict[str, Any], phase: str, before: Any, after: Any) -> None:
    if before and after:
        found[f"received_{phase}"] = after[0] - before[0]
        found[f"lost_{phase}"] = max(0, after[1] - before[1])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


if __name__ == "__main__":
    sys.exit(main())
