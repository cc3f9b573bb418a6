"""The demo: three offices find the direct path, lose it, and find it again.

Runs the lab, the traffic and the captures, says what happens while it happens, and fills a `Facts`.
A condition with a deadline ends every wait. Judging is `claims.py`, writing is `report.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from haaro_host.lab import claims, plan, processes
from haaro_host.lab.capture import Captures
from haaro_host.lab.evidence import NAMES, Evidence
from haaro_host.lab.facts import Claim, Facts, PathFigures, Switch, more, own_loss
from haaro_host.lab.lab import ROUTERS, Lab
from haaro_host.lab.pcap import Times
from haaro_host.lab.plain import PlainChain
from haaro_host.lab.plan import Office
from haaro_host.lab.system import LabError
from haaro_host.lab.traffic import Hosts, Probe, Transfer

_START_AHEAD_S = 1.0
_SETTLE_S = 1.5
_DIRECT_DEADLINE_S = 10.0
_FALL_BACK_DEADLINE_S = 15.0
_RETURN_DEADLINE_S = 20.0
_LOOK_EVERY_S = 0.1
_GOING_PACKETS = 1600
_GOING_DEADLINE_S = 5.0
_HOME_AGENT, _DIRECT = "home_agent", "direct"
_PLAIN, _PLAIN_LARGE = "plain_kernel", "plain_kernel_offloads"


@dataclass(frozen=True)
class Options:
    """How the demo runs. `pace_mbit` is the TCP stream beside the probe while paths switch."""

    out: Path
    name: str = plan.DEFAULT_NAME
    probe_rate: float = 250.0
    pace_mbit: float = 20.0
    file_octets: int = 16 << 20
    tcp_s: int = 4
    small_s: int = 1
    dataplane: str = "userspace"
    ha_dataplane: str = "userspace"
    encapsulation: str = "udp"


class Demo:
    """One run."""

    def __init__(self, options: Options, console: Console) -> None:
        self.options = options
        self.logs = options.out / "logs"
        layout = plan.layout_with(options.dataplane, options.ha_dataplane, options.encapsulation)
        self.lab = Lab(options.name, self.logs, die_with_parent=True, layout=layout)
        self.captures = Captures(self.lab, options.out)
        self.hosts = Hosts(options.name, plan.HOST_ADDRESS, self.logs)
        self.peer, self.mover = plan.office("a"), plan.office("c")
        self.seen = Evidence(self.captures.path, self.peer, self.mover)
        self.facts = Facts()
        self._console = console
        self._began = time.monotonic()
        self._probe: Probe | None = None
        self._spans: list[tuple[PathFigures, float, float]] = []

    def run(self) -> Facts:
        """The whole story; the lab is gone when it ends, however it ends."""
        try:
            with self.running():
                self.first_contact()
                self.measure(_DIRECT)
                self.fall_back()
                self.measure(_HOME_AGENT)
                self.come_back()
            self.plain_kernel()
        except LabError as error:
            self.facts.claims.append(Claim("the demo ran to its end", False, str(error)))
            self.say(f"[bold red]{error}[/]")
        self.facts.claims = claims.judge(self.facts, self.seen) + self.facts.claims
        self.facts.seconds = round(time.monotonic() - self._began, 1)
        return self.facts

    @contextmanager
    def running(self) -> Iterator[None]:
        """The lab and the captures inside `with`; afterwards the evidence is complete."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for old in (*self.logs.glob("*.log"), *self.logs.glob("*.bin")):
            old.unlink()
        with self.lab.exclusively():
            yield from self._inside()

    def _inside(self) -> Iterator[None]:
        lab = self.lab
        try:
            lab.build(self.say)
            self.captures.start()
            self.say("internet, home agent and three offices are wired; captures run")
            self.facts.registered_s = lab.start_all(self.say)
            self._began = time.monotonic()
            yield
        finally:
            if self._probe:
                self._probe.stop()
            # Also after a failure: what the routers say then is what explains it.
            with suppress(LabError):
                self._collect()
            with suppress(LabError):
                self.facts.recorded = self.captures.stop()
            lab.down()
            self.seen.update()
            self.seen.write_story(self.options.out / "signalling.pcap")
            self._count()

    def say(self, line: str) -> None:
        """One line of the story, with the seconds since its beginning."""
        self._console.print(f"[dim]{time.monotonic() - self._began:6.2f} s[/]  {line}")

    # --- the acts

    def first_contact(self) -> None:
        """First packet from C to A, by the HA, to the direct path, with traffic running."""
        start = time.time() + _START_AHEAD_S
        moving = self.transfer("first-contact", self.options.pace_mbit, start)
        probe = Probe(self.hosts, self.mover.host, self.peer.host, self.options.probe_rate, start)
        self._probe = probe
        self.say("C's host starts a TCP transfer to A's host, with a probe of "
                 f"{self.options.probe_rate:.0f} packets a second each way beside it")  # fmt: skip
        try:
            turned = self._wait_direct(start, _START_AHEAD_S + _DIRECT_DEADLINE_S)
            firsts = [self._leaves(*pair, 0.0) for pair in self.ways()]
            first = min(at for at in firsts if at is not None)
            self.facts.first_packet_at = first
            done = max(turned.values())
            self.facts.direct_path_s = round(done - first, 4)
            self._tell_messages(first, done)
            self._wait_probe(done + _SETTLE_S)
        finally:
            moving.stop()
        self.note_transfer("first contact", moving)
        self._note_switch("to_direct", start, done + _SETTLE_S, done - first)
        self.say(f"[bold]direct tunnel up {done - first:.3f} s after the first packet; "
                 f"{self._lost('to_direct')} packets lost[/]")  # fmt: skip
        self.facts.direct_spans.append((turned, float("inf")))

    def fall_back(self) -> None:
        """Cut the direct path; traffic must go by the HA again."""
        moving = self._moving("fall-back")
        try:
            cut = time.time()
            self.lab.cut("a", "c")
            self._end_span(cut)
            self.say("the internet now drops everything between A's and C's care-of addresses")
            turned = self._wait(self._turned(self.seen.by_home_agent, cut), _FALL_BACK_DEADLINE_S,
                                "traffic did not fall back to the home agent")  # fmt: skip
            done = max(turned.values())
            self._wait_probe(done + _SETTLE_S)
        finally:
            moving.stop()
        self.note_transfer("fall back", moving)
        self._note_switch("fall_back", cut - _SETTLE_S, done + _SETTLE_S, done - cut)
        outage = self.facts.switches["fall_back"].outage_s
        self.say(f"[bold]fell back to the home agent by itself; outage {outage:.2f} s[/]")

    def come_back(self) -> None:
        """Mend the cut; traffic must become direct again, without loss."""
        moving = self._moving("return")
        try:
            mended = time.time()
            self.lab.heal("a", "c")
            self.say("the cut is mended")
            turned = self._wait_direct(mended, _RETURN_DEADLINE_S)
            done = max(turned.values())
            self._wait_probe(done + _SETTLE_S)
        finally:
            moving.stop()
        self.note_transfer("return", moving)
        self._note_switch("return", mended, done + _SETTLE_S, done - mended)
        self.say(f"[bold]direct again {done - mended:.2f} s later; "
                 f"{self._lost('return')} packets lost[/]")  # fmt: skip
        self.facts.direct_spans.append((turned, time.time()))

    def measure(self, path: str) -> None:
        """ping, iperf3 and a hashed file over the path that traffic takes now."""
        figures = self.facts.paths[path] = PathFigures()
        since = time.time()
        ends = self.mover.host, self.peer.host
        figures.rtt_ms = self.hosts.ping(*ends)
        before = self._own_loss()
        stream = self.hosts.iperf_tcp(*ends, self.options.tcp_s)
        figures.own_loss_tcp = more(before, self._own_loss())
        figures.tcp_mbit_s, figures.retransmits = stream["mbit_s"], int(stream["retransmits"])
        moving = Transfer(self.hosts, *ends, self.options.file_octets, None, f"file-{path}")
        self.note_transfer(f"file, {path}", moving)
        before = self._own_loss()
        figures.small_packets_per_s = self.hosts.iperf_small(*ends, self.options.small_s)
        figures.own_loss_small = more(before, self._own_loss())
        self._spans.append((figures, since, time.time()))
        self.say(
            f"{path.replace('_', ' ')}: {figures.rtt_ms:.2f} ms, {figures.tcp_mbit_s:.0f} Mbit/s "
            f"TCP, {figures.small_packets_per_s} small packets a second"
        )

    def plain_kernel(self) -> None:
        """The yardstick, from the same run."""
        with PlainChain(self.options.name, self.logs) as chain:
            self.facts.paths[_PLAIN_LARGE] = chain.measure()
            chain.without_offloads()
            self.facts.paths[_PLAIN] = chain.measure()
        self.say("measured plain kernel forwarding over the same hops")

    # --- helpers

    def ways(self) -> tuple[tuple[Office, Office], tuple[Office, Office]]:
        """Both directions between the two offices, the one that moves first first."""
        return (self.mover, self.peer), (self.peer, self.mover)

    def transfer(self, label: str, mbit: float, at: float = 0.0) -> Transfer:
        """A TCP transfer from the mover's host to its peer's, from the time `at` until stopped."""
        return Transfer(self.hosts, self.mover.host, self.peer.host, None, mbit, label, at)

    def longest_silence(self, since: float, until: float) -> float:
        """Longest time in seconds without an arrival of the probe, the worse direction."""
        assert self._probe is not None
        return max(
            self._probe.series(a.host, b.host).longest_gap(since, until) for a, b in self.ways()
        )

    def check_alive(self) -> None:
        """Raise LabError when a program of the lab has ended."""
        ended = [node for node in ("ha", *ROUTERS) if node not in self.lab.state.alive()]
        if ended:
            raise LabError(f"ended by itself: {', '.join(ended)}; see {self.logs}")

    def _turned(
        self, path: Callable[[Office, Office], Times], since: float
    ) -> Callable[[], dict[str, float] | None]:
        def look() -> dict[str, float] | None:
            self.seen.update()
            found = {}
            for source, destination in self.ways():
                at = path(source, destination).first(since)
                if at is None:
                    return None
                found[source.name] = at
            return found

        return look

    def _wait_direct(self, since: float, deadline_s: float) -> dict[str, float]:
        return self._wait(self._turned(self.seen.direct, since), deadline_s,
                          "no direct traffic in both directions")  # fmt: skip

    def _wait(
        self, look: Callable[[], dict[str, float] | None], deadline_s: float, otherwise: str
    ) -> dict[str, float]:
        found: dict[str, float] = {}

        def condition() -> bool:
            found.update(look() or {})
            return bool(found)

        if not processes.wait_until(condition, deadline_s, _LOOK_EVERY_S):
            raise LabError(f"{otherwise} within {deadline_s:.0f} s" + self._reasons())
        return found

    def _reasons(self) -> str:
        lines = []
        for node in ROUTERS:
            status = self.lab.node_status(node) or {}
            lines += [
                f"\n  {node.upper()} says of {peer.get('cr_hoa')}: {peer.get('reason')}"
                for peer in status.get("peers", [])
            ]
        return "".join(lines)

    def _leaves(self, source: Office, destination: Office, since: float) -> float | None:
        firsts = [
            times.first(since)
            for times in (
                self.seen.direct(source, destination),
                self.seen.by_home_agent(source, destination),
            )
        ]
        return min((at for at in firsts if at is not None), default=None)

    def _moving(self, label: str) -> Transfer:
        """A paced TCP transfer that runs when this returns."""
        before = self._direct_or_not()
        moving = self.transfer(label, self.options.pace_mbit)
        # So many packets in so short a time are not the probe's.
        enough = before + _GOING_PACKETS

        def condition() -> bool:
            return self._direct_or_not() >= enough

        if not processes.wait_until(condition, _GOING_DEADLINE_S, _LOOK_EVERY_S):
            moving.kill()
            raise LabError(f"the transfer {label} does not get going")
        return moving

    def _direct_or_not(self) -> int:
        self.seen.update()
        pair = self.mover, self.peer
        return len(self.seen.direct(*pair).at) + len(self.seen.by_home_agent(*pair).at)

    def _wait_probe(self, until: float) -> None:
        """Wait until the probe has sent in both directions past the time `until`."""
        assert self._probe is not None
        probe = self._probe

        def condition() -> bool:
            return all(
                max(probe.series(a.host, b.host).sent.values(), default=0.0) > until
                for a, b in self.ways()
            )

        if not processes.wait_until(condition, 10.0, _LOOK_EVERY_S):
            raise LabError("the probe has stopped")

    def _note_switch(self, name: str, since: float, until: float, seconds: float) -> None:
        assert self._probe is not None
        lost, gaps = {}, []
        for source, destination in self.ways():
            series = self._probe.series(source.host, destination.host)
            # What was sent in the last half second may still be under way.
            lost[f"{source.name} to {destination.name}"] = series.lost(since, until - 0.5)
            gaps.append(series.longest_gap(since, until))
        self.facts.switches[name] = Switch(name, since, until, lost, round(seconds, 3),
                                           round(max(gaps), 3))  # fmt: skip

    def _lost(self, name: str) -> int:
        return self.facts.switches[name].lost_total

    def _end_span(self, at: float) -> None:
        starts, _ = self.facts.direct_spans[-1]
        self.facts.direct_spans[-1] = starts, at

    def note_transfer(self, label: str, moving: Transfer) -> None:
        """Wait for both ends of a transfer and remember whether they agree. Raises LabError."""
        result = moving.result()
        self.facts.transfers.append(
            {
                "name": label,
                "match": result.match,
                "octets": result.octets,
                "seconds": result.seconds,
                "sha256": result.sha256_sent,
            }
        )

    def _tell_messages(self, first: float, until: float) -> None:
        """What the routers said to each other between the first packet and the direct path."""
        for each in self.seen.messages:
            if first <= each.time <= until:
                by = "outside" if each.outer is None else "in the HA tunnel"
                name = NAMES[each.type] + (" with S" if each.solicits else "")
                self.say(
                    f"  [cyan]{1000 * (each.time - first):6.1f} ms  {each.from_office or 'HA'} > "
                    f"{each.to_office or 'HA'}  {name}, {by}[/]"
                )

    def _own_loss(self) -> dict[str, int]:
        """{router: packets its data plane has lost itself until now} of the two routers."""
        lost = {}
        for office in (self.mover, self.peer):
            status = self.lab.node_status(office.node)
            if status is None:
                raise LabError(f"router {office.name} does not answer")
            lost[office.name] = own_loss(status)
        return lost

    def _collect(self) -> None:
        """Ask everybody one last time while they still run."""
        for node in ROUTERS:
            status = self.lab.node_status(node)
            if status:
                self.facts.router_status[node.upper()] = status
        self.facts.filter = self.lab.counters()

    def _count(self) -> None:
        """Counts over the finished captures."""
        through = 0
        for starts, until in self.facts.direct_spans:
            for source, destination in self.ways():
                path = self.seen.by_home_agent(source, destination)
                through += path.count(starts[source.name], until)
        self.facts.direct_packets_through_ha = through if self.facts.direct_spans else None
        for figures, since, until in self._spans:
            figures.packets_by_home_agent = self.seen.through_home_agent(since, until)
            figures.packets_direct = sum(
                self.seen.direct(*pair).count(since, until) for pair in self.ways()
            )
        self.facts.who_to_whom = claims.who_to_whom(self.seen)
