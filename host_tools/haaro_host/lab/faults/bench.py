"""One case on one lab: home agent, offices A and C, a probe between two hosts, captures, clocks.

An outage is the longest time in which no datagram of the probe arrived, the worse of both ways, as
the hosts recorded it; see `Bench.outage`.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from haaro_host.lab import lab as lab_module
from haaro_host.lab import plan, processes, topology
from haaro_host.lab.capture import Captures
from haaro_host.lab.clocks import Clock
from haaro_host.lab.faults import layouts
from haaro_host.lab.faults.layouts import A, C, Wants
from haaro_host.lab.faults.paths import Paths
from haaro_host.lab.lab import Lab
from haaro_host.lab.nat import Nat
from haaro_host.lab.system import LabError, run
from haaro_host.lab.traffic import Hosts, Probe

DIRECT, BY_HOME_AGENT = "direct", "ha"
RATE = 20.0  # probe datagrams a second each way
HQ = "hq"
_RING_MB = 2
_RELAY = Path(lab_module.__file__).with_name("relay.py")
_POLL_S = 0.1
_PROBE_START_S = 1.0
_FRESH_S = 0.5  # arrivals this young mean that traffic flows now
_START_DEADLINE_S = 10.0
_DIRECT_DEADLINE_S = 30.0
_REGISTERED_DEADLINE_S = 60.0


@dataclass
class Row:
    """One bound and what was measured in one case, seconds. `outage_s` is None when what the bound
    is about did not hold at all; `note` says what."""

    fault: str
    path: str
    bound_s: float
    outage_s: float | None
    note: str

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return self.outage_s is not None and self.outage_s <= self.bound_s


class Bench:
    """The lab of one case, and everything a case may do to it."""

    def __init__(self, name: str, out: Path, wants: Wants, seed: int, case: str = "") -> None:
        self.random = random.Random(f"{case}/{seed}")
        self.seed = seed
        self.wants = wants
        self.out = out
        self.lab = Lab(name, out / "logs", True, layouts.layout(wants))
        self.captures = Captures(self.lab, out, _RING_MB)
        self.hosts = Hosts(name, layouts.HOSTS, out / "logs")
        self.paths = Paths(self.captures)
        self.nat = Nat(self.lab, layouts.NAT_NODE, layouts.NAT_ADDRESS, layouts.A_PLEN, A.gateway)
        self.nat_of_c = Nat(
            self.lab, layouts.C_NAT_NODE, C.care_of_address, C.uplink_plen, C.gateway
        )
        self.clocks = {node: Clock(self.lab.run / "clock" / node) for node in ("ha", "a", "c")}
        self.probe: Probe | None = None
        self.ends = A.host, C.host
        # Keys of router.json that differ from the lab's; read when the lab is built.
        self.config: dict[str, Any] = {}
        self._began = 0.0

    @contextmanager
    def built(self) -> Iterator[None]:
        """The network exists and captures run inside `with`; no program does yet."""
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with self.lab.exclusively():
                self.lab.build()
                self._configure()
                self._clocks()
                self.captures.start()
                if self.wants.relay:
                    self._start_relay()
                yield
                self._look_for_strays()
        finally:
            self.stop_probe()
            with suppress(LabError):
                self.captures.stop()
            self._copy_state()
            for process in self.lab.state.alive().values():
                process.send(9)  # type: ignore[arg-type]
            self.lab.down()

    @contextmanager
    def traffic(self, *ends: str, phase_s: float = 3.0) -> Iterator[None]:
        """Everything runs inside `with`, and traffic goes where it should; see `settle`."""
        with self.built():
            self.start()
            self.settle(*ends, phase_s=phase_s)
            yield

    # --- its programs

    def start(self, *nodes: str) -> None:
        """Start the home agent and routers, each after the one before is there."""
        for node in nodes or ("ha", "a", "c"):
            if node == "ha":
                self.lab.start_home_agent()
            else:
                self.lab.start_router(node)
                self.wait_registered(node)

    def settle(self, *ends: str, rate: float = RATE, phase_s: float = 0.0) -> None:
        """Start the probe between two hosts (A's and C's unless told), wait until it goes where it
        should (direct between offices), and up to `phase_s` more, so that a fault finds timers at
        any phase. Raises LabError."""
        one, other = ends or self.ends
        self.start_probe(one, other, rate)
        self.wait_flowing(self._began, _DIRECT_DEADLINE_S)
        if HQ not in self.ends:
            self.wait_direct(_DIRECT_DEADLINE_S)
        self.rest(2.0 + self.random.random() * phase_s)

    def start_probe(self, one: str, other: str, rate: float = RATE) -> None:
        """Begin to send between two hosts, both ways."""
        self.ends = one, other
        self._began = time.time() + _PROBE_START_S
        self.probe = Probe(self.hosts, one, other, rate, self._began)

    def stop_probe(self) -> None:
        """End it."""
        if self.probe is not None:
            self.probe.stop()

    def kill(self, *nodes: str) -> None:
        """SIGKILL, all at once."""
        for node in nodes:
            self.lab.state.processes[node].send(9)  # type: ignore[arg-type]
        for node in nodes:
            self.lab.kill(node)

    def wait_registered(self, node: str, deadline_s: float = _REGISTERED_DEADLINE_S) -> float:
        """Wait until the home agent has accepted a router; seconds. Raises LabError."""
        began = time.monotonic()
        self.lab.wait_registered(node, deadline_s)
        return time.monotonic() - began

    def status(self, node: str) -> dict[str, Any]:
        """Status of a program. Raises LabError when it does not answer."""
        found = self.lab.node_status(node)
        if found is None:
            raise LabError(f"{node} does not answer")
        return found

    def tell(self, node: str, word: str) -> Any:
        """Say a word to a program's local socket; its answer. Raises LabError."""
        try:
            answer = lab_module.ask(self.lab.files.socket(node), word)
        except (OSError, ValueError) as error:
            raise LabError(f"{node} does not answer {word!r}: {error}") from error
        if isinstance(answer, dict) and "error" in answer:
            raise LabError(f"{node}: {word}: {answer}")
        return answer

    def peer(self, node: str, other: plan.Office) -> dict[str, Any]:
        """What a router says of another; {} when it does not know it."""
        for each in self.status(node)["peers"]:
            if each["cr_hoa"] == other.home_address:
                return dict(each)
        return {}

    def reasons(self) -> str:
        """What each router says about its path to the other."""
        said = []
        for node, other in ((A.node, C), (C.node, A)):
            with suppress(LabError):
                said.append(f"{node}: {self.peer(node, other).get('reason', 'peer not known')}")
        return "; ".join(said)

    # --- time

    def rest(self, seconds: float) -> None:
        """Let time go by while traffic runs."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end, seconds + 1)

    def until(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        """Poll `condition` until it holds or the time is over; the last answer."""
        return processes.wait_until(condition, deadline_s, _POLL_S)

    # --- what arrives

    def arrivals(self, source: str) -> list[float]:
        """When the probe's datagrams of host `source` arrived at the other end, sorted."""
        assert self.probe is not None
        other = self.ends[1] if source == self.ends[0] else self.ends[0]
        return sorted(self.probe.series(source, other).received.values())

    def flows(self) -> bool:
        """Whether datagrams arrive both ways right now."""
        newest = time.time() - _FRESH_S
        return all((self.arrivals(end) or [0.0])[-1] > newest for end in self.ends)

    def wait_flowing(self, since: float, deadline_s: float, least_s: float = 1.0) -> None:
        """Wait until datagrams arrive both ways, `least_s` after `since` at the earliest.

        Raises LabError.
        """
        if not self.until(
            lambda: time.time() > since + least_s and self.flows(), deadline_s + least_s
        ):
            raise LabError(f"no traffic within {deadline_s:.0f} s; {self.reasons()}")

    def recover(self, since: float, deadline_s: float, least_s: float, calm_s: float) -> None:
        """Wait for traffic as `wait_flowing`, but without complaint, and `calm_s` more."""
        with suppress(LabError):
            self.wait_flowing(since, deadline_s, least_s)
        self.rest(calm_s)

    def outage(self, since: float, fresh: bool = False) -> tuple[float, str]:
        """Return the longest silence from `since` until now, and of which way.

        The silence that a fault at `since` begins counts from the last arrival before it; with
        `fresh` it counts from `since` itself (a program's start, say).
        """
        now = time.time()
        worst, note = -1.0, ""
        for source in self.ends:
            at = self.arrivals(source)
            before = [t for t in at if t <= since]
            begin = since if fresh or not before else before[-1]
            marks = [begin, *(t for t in at if since < t <= now)]
            gap = max((b - a for a, b in pairwise(marks)), default=0.0)
            last = now - marks[-1]
            if max(gap, last) > worst:
                other = self.ends[1] if source == self.ends[0] else self.ends[0]
                note = f"{source} to {other}"
                worst = gap
                if last > max(gap, 2 * _FRESH_S):
                    worst = last
                    note += ", not back when the run ended"
        return worst, note

    def lost(self, since: float, until: float) -> list[int]:
        """Datagrams sent in this time that never arrived, by way."""
        assert self.probe is not None
        one, other = self.ends
        return [self.probe.series(a, b).lost(since, until) for a, b in ((one, other), (other, one))]

    def wrong_deliveries(self) -> int:
        """Datagrams that a host got and the other did not send, both hosts."""
        assert self.probe is not None
        return sum(self.probe.wrong(end) for end in self.ends)

    # --- which way it goes

    def all_direct(self, since: float) -> float | None:
        """Return when traffic became direct both ways after `since`; None while it is not.

        That is the latest of: the last packet by the home agent, the first direct one, and the
        arrival that ended the last silence (a dead direct path is sent into for a while).
        """
        if not self.flows():
            return None
        self.paths.update()
        marks = []
        for source in (A.host, C.host):
            direct = self.paths.direct(source)
            first, newest = direct.first(since), direct.last()
            around = self.paths.by_home_agent(source).last() or 0.0
            if first is None or newest is None or newest < around:
                return None
            if newest < time.time() - 2 * _FRESH_S:
                return None
            arrivals = [t for t in self.arrivals(source) if t > since]
            resumed = [b for a, b in pairwise([since, *arrivals]) if b - a > _FRESH_S]
            marks += [around, first, *resumed]
        return max(marks)

    def wait_direct(self, deadline_s: float, since: float | None = None) -> float:
        """Wait until traffic is direct both ways; seconds from `since` (now). Raises LabError."""
        begin = time.time() if since is None else since
        if not self.until(lambda: self.all_direct(begin) is not None, deadline_s):
            raise LabError(f"not direct within {deadline_s:.0f} s; {self.reasons()}")
        at = self.all_direct(begin)
        return max(0.0, (at or time.time()) - begin)

    def back_to_direct(self, since: float, deadline_s: float) -> tuple[float | None, str]:
        """Return the seconds from `since` until traffic is direct both ways, or None and why."""
        try:
            return self.wait_direct(deadline_s, since), "until direct both ways"
        except LabError as error:
            return None, str(error)

    # --- the network

    def move_a(self, address: str, gateway: str, interface: str = "wan") -> None:
        """Give A's uplink another address and gateway from one moment to the next."""
        self._leave(A.care_of_address)
        self.ip(
            A.node,
            f"addr flush dev {interface}",
            f"addr add {address}/{layouts.A_PLEN} dev {interface}",
            f"route replace default via {gateway} dev {interface}",
        )

    def move_c(self, address: str) -> None:
        """Give C's uplink another address of its net."""
        self._leave(C.care_of_address)
        self.ip(
            C.node,
            "addr flush dev wan",
            f"addr add {address}/{C.uplink_plen} dev wan",
            f"route replace default via {C.gateway} dev wan",
        )

    def _leave(self, address: str) -> None:
        """Nobody is at `address` from now on. The link stays the same one here, so the internet
        router would go on to send there, and the router, which forwards, send it back."""
        self.ip("inet", f"route replace blackhole {address}/32")

    def carrier(self, node: str, on: bool, link: str | None = None) -> None:
        """Pull the cable of a router's uplink, or put it back: the router sees its carrier go."""
        self.ip("inet", f"link set dev {plan.port_to(link or node)} {'up' if on else 'down'}")

    def ip(self, node: str, *lines: str) -> None:
        """Run lines of `ip` in a node, in one go."""
        space = plan.namespace(self.lab.name, node)
        run(["ip", "-n", space, "-batch", "-"], "\n".join(lines) + "\n")

    def spoil(self, **values: float) -> dict[str, Any]:
        """Tell the relay what it does on both uplinks, both ways; nothing ends it. Its counts."""
        ways = {"up": values, "down": values}
        return self.tell_relay({"a": ways, "c": ways})

    def tell_relay(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Send the relay a line, see relay.py. Raises LabError."""
        try:
            answer = lab_module.ask(self._relay_socket, json.dumps(wanted))
        except (OSError, ValueError) as error:
            raise LabError(f"the relay does not answer: {error}") from error
        if "error" in answer:
            raise LabError(f"relay: {answer['error']}")
        return dict(answer)

    # --- helpers

    @property
    def _relay_socket(self) -> Path:
        return self.lab.run / "relay.sock"

    def _configure(self) -> None:
        for node in self.lab.layout.routers:
            path = self.lab.files.router_config(node)
            whole = {**json.loads(path.read_text()), **self.config}
            processes.write_atomically(path, json.dumps(whole, indent=2) + "\n")

    def _clocks(self) -> None:
        for node, clock in self.clocks.items():
            clock.shift(0)
            if node != "ha":
                self.lab.environment[node] = clock.micropython()
        self.lab.haaro_command = self.clocks["ha"].haaro()

    def _start_relay(self) -> None:
        # A packet that the relay hands on must have its checksum: veth leaves that to the card.
        off = ["tx", "off", "tso", "off", "gso", "off", "gro", "off"]
        for node, port in (("inet", "to-a"), ("inet", "to-c"), (A.node, "wan"), (C.node, "wan")):
            run(self.lab.inside(node, ["ethtool", "-K", port, *off]))
        links = [f"{name}={name}-near:{name}-far" for name in (A.node, C.node)]
        command = [sys.executable, "-S", "-E", str(_RELAY), "--seed", str(self.seed),
                   "--control", str(self._relay_socket), *links]  # fmt: skip
        process = self.lab.start(layouts.RELAY_NODE, command)
        log = Path(process.log)
        if not self.until(lambda: "relaying" in log.read_text(), _START_DEADLINE_S):
            raise LabError(f"the relay did not start: {log.read_text()[-300:]}")

    def _look_for_strays(self) -> None:
        """Raise LabError if the internet dropped a packet as forged or stray: whatever the fault,
        nothing may leave a router by an uplink it does not belong to, or without its tunnel."""
        found = {
            key: count for key, count in topology.filtered(self.lab.counters()).items() if count
        }
        if found:
            raise LabError(f"the internet dropped what no router may send: {found}")

    def _copy_state(self) -> None:
        """Keep the configuration beside logs and captures; the keys of a lab are worth nothing."""
        for node in (A.node, C.node):
            with suppress(OSError):
                shutil.copy(self.lab.files.router_config(node), self.out / f"{node}.router.json")
