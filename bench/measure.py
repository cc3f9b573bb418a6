"""Measures one path from h1 to h2: TCP, round trips, small packets, CPU time."""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench import figures
from bench.figures import Rate, Trial
from bench.topology import HOSTS, Net, settle
from haaro_host.lab import processes
from haaro_host.lab.system import LabError
from haaro_host.lab.traffic import IPERF_PORT, wait_listening

OCTETS = 64
_PORT = 5001
_DRAIN_S = 0.15
_ANSWER_S = 5.0


def tcp(net: Net, flows: int, seconds: float) -> dict[str, float]:
    """{"gbit_s", "retransmits"} of `flows` TCP streams from h1 to h2. Raises LabError."""
    server = net.start("h2", ["iperf3", "-s", "-1"], "iperf3-h2")
    try:
        wait_listening(server, IPERF_PORT)
        command = ["iperf3", "-J", "-c", HOSTS["h2"], "-P", str(flows), "-t", str(seconds)]
        text = net.run_in("h1", command, seconds + 15)
    finally:
        net.stop(server)
    try:
        return figures.read_iperf(text)
    except ValueError as error:
        raise LabError(str(error)) from error


def round_trips(net: Net, count: int, every_s: float = 0.002) -> list[float]:
    """Microseconds of each echo of h2, after some that warm up."""
    ping = ["ping", "-n", "-i", str(every_s), "-W", "1"]
    net.run_in("h1", [*ping, "-q", "-c", "20", HOSTS["h2"]], 10)
    text = net.run_in("h1", [*ping, "-c", str(count), HOSTS["h2"]], 10 + 2 * count * every_s)
    found = figures.read_ping(text)
    if not found:
        raise LabError(f"h1: no echo of {HOSTS['h2']} came back")
    return found


class Counter:
    """The process that counts datagrams in `node`; a context."""

    def __init__(self, net: Net, build: Path, node: str = "h2", port: int = _PORT) -> None:
        self._process = subprocess.Popen(
            net.inside(node, [str(build / "packets"), "count", str(port)]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=processes.die_with_the_parent,
        )

    def __enter__(self) -> Counter:
        self.ask()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(_ANSWER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask(self) -> dict[str, int]:
        """{"received", "dropped", "cpu_ns"} up to now. Raises LabError."""
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise LabError("the process that counts datagrams does not answer")
        return json.loads(line)


class Generator:
    """Sends datagrams of 64 octets from h1 and counts what arrives."""

    def __init__(self, net: Net, build: Path, counter: Counter, spread: Sequence[str] = ()) -> None:
        self._net = net
        self._program = str(build / "packets")
        self._counter = counter
        self._spread = list(spread)
        self.dropped_by_counter = 0
        self.cpu_ns = 0

    def trial(self, rate: float, seconds: float, to: str = HOSTS["h2"], port: int = _PORT) -> Trial:
        """Send at `rate`, 0 = as fast as can be, and wait for what is under way."""
        before = self._counter.ask()
        ends = [to, str(port), f"{rate:.0f}", str(seconds), str(OCTETS), *self._spread]
        text = self._net.run_in("h1", [self._program, "send", *ends], seconds + 10)
        settle(_DRAIN_S)
        after = self._counter.ask()
        done = json.loads(text)
        self.dropped_by_counter += after["dropped"] - before["dropped"]
        self.cpu_ns = done["cpu_ns"] + after["cpu_ns"] - before["cpu_ns"]
        return Trial(rate, done["sent"], after["received"] - before["received"], done["seconds"])

    def search(self, seconds: float, steps: int) -> Rate:
        """The highest rate at under 1 % loss."""
        return figures.search_rate(lambda rate: self.trial(rate, seconds), steps)


def cpu_per_packet(
    generator: Generator, daemons: Sequence[int], rate: float, seconds: float
) -> dict[str, Any]:
    """CPU microseconds for each datagram that arrived, at a rate that every row can carry.

    cpu_us: of the sender, the receiver, `daemons` and ksoftirqd; softirq work counts for whom it
    interrupted. daemon_cpu_us: of `daemons` alone, both routers. machine_cpu_us: all CPUs, all
    processes of this machine, less what they took just before.
    """
    idle = busy_cpus(seconds / 2)
    begun, busy = time.monotonic(), _busy()
    own, kernel = _run_time(daemons), _run_time(_softirq_threads())
    one = generator.trial(rate, seconds)
    own, kernel = _run_time(daemons) - own, _run_time(_softirq_threads()) - kernel
    busy = _busy() - busy - idle * (time.monotonic() - begun)
    arrived = one.arrived
    if not arrived:
        return {}
    return {
        "cpu_us": (generator.cpu_ns + own + kernel) / arrived / 1000,
        "daemon_cpu_us": own / arrived / 1000,
        "machine_cpu_us": max(0.0, busy) * 1e6 / arrived,
    }


def busy_cpus(seconds: float) -> float:
    """How many CPUs are busy now, over so many seconds."""
    begun, busy = time.monotonic(), _busy()
    settle(seconds)
    return (_busy() - busy) / (time.monotonic() - begun)


def _busy() -> float:
    return figures.read_busy(Path("/proc/stat").read_text())


def _run_time(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(OSError):
                total += figures.read_run_time(task.read_text())
    return total


def _softirq_threads() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):
            if path.read_text().startswith("ksoftirqd/"):
                found.append(int(path.parent.name))
    return found
