"""Runs ping, iperf3, the probe and the hashed transfer in the LAN hosts and reads their results.

Owns the traffic processes; each dies with the process that started it.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from haaro_host.lab import plan, probe, processes, transfer
from haaro_host.lab.processes import Process
from haaro_host.lab.system import LabError

_HERE = Path(__file__).parent
IPERF_PORT = 5201
_LISTEN_STATE = "0A"
_LISTEN_DEADLINE_S = 5.0
_END_DEADLINE_S = 20.0
_PING_EVERY_S = 0.01
_RTT = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)/")
_SMALL_OCTETS = 64


class Hosts:
    """Runs programs in the hosts of a set of namespaces called PREFIX-NODE."""

    def __init__(self, prefix: str, addresses: dict[str, str], logs: Path) -> None:
        self._prefix = prefix
        self.addresses = addresses
        self.logs = logs

    def inside(self, node: str, command: Sequence[str]) -> list[str]:
        """`command` as run in `node`."""
        return ["ip", "netns", "exec", plan.namespace(self._prefix, node), *command]

    def run(self, node: str, command: Sequence[str], timeout_s: float) -> str:
        """Run to its end, give back the output. Raises LabError."""
        try:
            done = subprocess.run(
                self.inside(node, command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                preexec_fn=processes.die_with_the_parent,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"{node}: `{' '.join(command)}` did not end in {timeout_s:.0f} s"
            ) from error
        if done.returncode:
            words = (done.stderr + done.stdout).strip()[-400:]
            raise LabError(f"{node}: `{' '.join(command)}` failed: {words}")
        return done.stdout

    def start(self, node: str, command: Sequence[str], log: str) -> Process:
        """Start in the background, output to `log` in the log directory (begun anew)."""
        path = self.logs / log
        path.unlink(missing_ok=True)
        return processes.start(self.inside(node, command), path, die_with_parent=True)

    def ping(self, source: str, destination: str, count: int = 50) -> float:
        """Mean round trip in ms over `count` echoes after one that warms up. Raises LabError."""
        address = self.addresses[destination]
        self.run(source, ["ping", "-n", "-q", "-c", "1", "-W", "2", address], 5)
        text = self.run(
            source,
            ["ping", "-n", "-q", "-c", str(count), "-i", str(_PING_EVERY_S), "-W", "2", address],
            10 + count * _PING_EVERY_S,
        )
        found = _RTT.search(text)
        if not found:
            raise LabError(f"{source}: ping {address} had no answer: {text.strip()[-200:]}")
        return float(found.group(2))

    def iperf_tcp(self, source: str, destination: str, seconds: int) -> dict[str, float]:
        """{"mbit_s", "retransmits"} of one TCP stream, as the receiver counted it."""
        end = self._iperf(source, destination, ["-t", str(seconds)], seconds)
        return {
            "mbit_s": round(end["sum_received"]["bits_per_second"] / 1e6, 1),
            "retransmits": end["sum_sent"].get("retransmits", 0),
        }

    def iperf_small(self, source: str, destination: str, seconds: int) -> int:
        """Datagrams of 64 octets payload a second that arrive when as many as possible are sent."""
        options = ["-u", "-b", "0", "-l", str(_SMALL_OCTETS), "-t", str(seconds)]
        # By octets that arrived: iperf3 calls a datagram lost only if a later one came.
        arrived = self._iperf(source, destination, options, seconds)["sum_received"]
        return round(arrived["bytes"] / _SMALL_OCTETS / arrived["seconds"])

    def _iperf(
        self, source: str, destination: str, options: list[str], seconds: int
    ) -> dict[str, Any]:
        server = self.start(destination, ["iperf3", "-s", "-1"], f"iperf3-{destination}.log")
        try:
            wait_listening(server, IPERF_PORT)
            address = self.addresses[destination]
            text = self.run(source, ["iperf3", "-J", "-c", address, *options], seconds + 15)
        finally:
            processes.stop(server, 1.0, lambda: server.send(signal.SIGTERM))
        result: dict[str, Any] = json.loads(text)["end"]
        return result


@dataclass(frozen=True)
class TransferResult:
    """One hashed transfer: whether both ends agree, and what passed."""

    match: bool
    octets: int
    seconds: float
    sha256_sent: str
    sha256_received: str


class Transfer:
    """A TCP transfer from `source` to `destination`, hashed at both ends, in the background."""

    def __init__(
        self,
        hosts: Hosts,
        source: str,
        destination: str,
        octets: int | None = None,
        mbit: float | None = None,
        label: str = "transfer",
        at: float = 0.0,
    ) -> None:
        self._logs = [hosts.logs / f"{label}-{end}.log" for end in ("send", "receive")]
        script = [sys.executable, "-S", "-E", str(_HERE / "transfer.py")]
        address = hosts.addresses[destination]
        self._receiver = hosts.start(
            destination, [*script, "--listen", address], self._logs[1].name
        )
        wait_listening(self._receiver, transfer.PORT)
        options = ["--octets", str(octets)] if octets else []
        options += ["--mbit", str(mbit)] if mbit else []
        options += ["--at", str(at)]
        self._sender = hosts.start(
            source, [*script, "--connect", address, *options], self._logs[0].name
        )

    def stop(self) -> None:
        """Tell the sender to finish the stream."""
        self._sender.send(signal.SIGTERM)

    def result(self, deadline_s: float = _END_DEADLINE_S) -> TransferResult:
        """Wait for both ends. Raises LabError when one doesn't finish."""
        pair = (self._sender, self._receiver)
        done = processes.wait_until(lambda: all(map(processes.gone, pair)), deadline_s)
        if not done:
            self.kill()
            raise LabError(f"a TCP transfer did not finish; see {self._logs[0]}")
        sent, got = (_last_json(path) for path in self._logs)
        return TransferResult(
            sent["sha256"] == got["sha256"], got["octets"], got["seconds"],
            sent["sha256"], got["sha256"],
        )  # fmt: skip

    def kill(self) -> None:
        """End both ends now."""
        for process in (self._sender, self._receiver):
            process.send(signal.SIGKILL)


class Probe:
    """Numbered datagrams both ways between two hosts, from the time `at` on."""

    def __init__(self, hosts: Hosts, one: str, other: str, rate: float, at: float = 0.0) -> None:
        self._files = {node: hosts.logs / f"probe-{node}.bin" for node in (one, other)}
        self.rate = rate
        self._running = []
        for node, peer in ((one, other), (other, one)):
            self._files[node].unlink(missing_ok=True)
            command = [sys.executable, "-S", "-E", str(_HERE / "probe.py"),
                       "--bind", hosts.addresses[node], "--peer", hosts.addresses[peer],
                       "--rate", str(rate), "--at", str(at),
                       "--out", str(self._files[node])]  # fmt: skip
            self._running.append(hosts.start(node, command, f"probe-{node}.log"))

    def stop(self) -> None:
        """End both; they listen half a second longer than they send."""
        for process in self._running:
            process.send(signal.SIGTERM)
        for process in self._running:
            processes.stop(process, 3.0, lambda: None)

    def series(self, source: str, destination: str) -> ProbeSeries:
        """What `source` sent and `destination` received up to now."""
        sent = {n: at for kind, n, at, _ in self._records(source) if kind == probe.SENT}
        got = {n: at for kind, n, _, at in self._records(destination) if kind == probe.RECEIVED}
        return ProbeSeries(sent, got)

    def wrong(self, node: str) -> int:
        """Datagrams that came to `node` and are not what the other end sent."""
        return sum(1 for kind, *_ in self._records(node) if kind == probe.WRONG)

    def _records(self, node: str) -> list[tuple[int, int, float, float]]:
        path = self._files[node]
        data = path.read_bytes() if path.exists() else b""
        return list(probe.RECORD.iter_unpack(data[: len(data) // probe.RECORD.size
                                                  * probe.RECORD.size]))  # fmt: skip


@dataclass(frozen=True)
class ProbeSeries:
    """One direction of a probe: sequence number -> time sent, -> time received."""

    sent: dict[int, float]
    received: dict[int, float]

    def lost(self, since: float, until: float) -> int:
        """Datagrams sent in [since, until] that never arrived."""
        return sum(
            1 for n, at in self.sent.items() if since <= at <= until and n not in self.received
        )

    def longest_gap(self, since: float, until: float) -> float:
        """Longest time without an arrival, of arrivals in [since, until]; seconds."""
        at = sorted(t for t in self.received.values() if since <= t <= until)
        return max((b - a for a, b in pairwise(at)), default=until - since)

    def arrivals(self, since: float, until: float) -> list[int]:
        """Datagrams sent in [since, until], in the order in which they arrived."""
        sent = [n for n, at in self.sent.items() if since <= at <= until and n in self.received]
        return sorted(sent, key=lambda n: self.received[n])

    def overtaken(self, since: float, until: float) -> list[int]:
        """Of these the ones that arrived after a later one."""
        found, last = [], -1
        for number in self.arrivals(since, until):
            if number < last:
                found.append(number)
            last = max(last, number)
        return found

    def by_two_paths(self, since: float, until: float) -> bool:
        """Whether a switch between two paths that keep the order is enough to explain the order:
        those before it are in order, and those after it are.
        """
        late = self.overtaken(since, until)
        arrived = self.arrivals(since, until)
        switch = max(late, default=-1)
        before = [n for n in arrived if n <= switch]
        after = [n for n in arrived if n > switch]
        return before == sorted(before) and after == sorted(after)

    def sent_of_received(self) -> list[float]:
        """When what arrived was sent."""
        return [self.sent[n] for n in self.received if n in self.sent] or [0.0]


def wait_listening(process: Process, port: int) -> None:
    """Wait until the process' namespace has a TCP listener on `port`. Raises LabError."""
    table = Path(f"/proc/{process.pid}/net/tcp")
    tables = (table, table.with_name("tcp6"))

    def condition() -> bool:
        for path in tables:
            try:
                lines = path.read_text().splitlines()[1:]
            except OSError:
                continue
            for line in lines:
                _, local, _, state = line.split()[:4]
                if state == _LISTEN_STATE and int(local.rpartition(":")[2], 16) == port:
                    return True
        return processes.gone(process)

    if not processes.wait_until(condition, _LISTEN_DEADLINE_S) or processes.gone(process):
        raise LabError(f"`{process.command}` does not listen on {port}; see {process.log}")


def _last_json(path: Path) -> dict[str, Any]:
    lines = path.read_text().strip().splitlines()
    try:
        result: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError) as error:
        raise LabError(f"{path}: no result in it: {' / '.join(lines[-3:])}") from error
    return result
