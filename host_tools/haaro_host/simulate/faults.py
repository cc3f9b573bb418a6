"""The faults F1 to F14: each is done to routers in traffic, and the outage is measured.

An outage is the longest gap with no delivered packet of a probe that sends ten a second, the worst
of both directions and of the variants of the fault. A row is a bound; `outage_s` is None when what
the bound is about did not hold at all, and `note` says what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from haaro.wire import ipv4
from haaro_host.simulate.network import Link
from haaro_host.simulate.router_node import RouterNode
from haaro_host.simulate.traffic import VIA_DIRECT, Flow
from haaro_host.simulate.world import HOME, World

DIRECT, BY_HOME_AGENT = "direct", "ha"
COA_A, COA_A2, COA_A3 = (ipv4.address(f"198.51.100.{n}") for n in (10, 20, 30))
COA_C, COA_C2 = ipv4.address("203.0.113.10"), ipv4.address("203.0.113.20")
NAT_ADDRESS, NAT_ADDRESS2 = ipv4.address("198.51.100.200"), ipv4.address("198.51.100.201")
PRIVATE = ipv4.address("192.168.1.10")
_KEEPALIVE_S = 25
_DELAY_MS = 20  # one way, between any two public addresses


@dataclass
class Row:
    """One bound and what was measured, in seconds."""

    fault: str
    path: str
    bound_s: float
    outage_s: float | None
    note: str

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return self.outage_s is not None and self.outage_s <= self.bound_s


Outcome = tuple[float | None, str]


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst outage of several runs, with its note."""
    found: Outcome = (-1.0, "")
    for outcome in outcomes:
        if outcome[0] is None:
            return outcome
        if found[0] is not None and outcome[0] > found[0]:
            found = outcome
    return found


def variant(name: str, outcome: Outcome) -> Outcome:
    """Put the name of a variant before its note."""
    return outcome[0], f"{name}: {outcome[1]}" if outcome[1] else name


class Pair:
    """Routers A and C in their offices, the home agent, and the traffic between A and `peer`."""

    def __init__(
        self,
        seed: int,
        peer: str = "C",
        nat: str | None = None,
        second_uplink: bool = False,
        path: Link | None = None,
        disk: bool = False,
        settle: bool = True,
    ) -> None:
        self.world = World(seed, path or Link(_DELAY_MS), disk)
        self.a = self.world.add_router("A")
        self.c = self.world.add_router("C")
        self.world.boot_home_agent()
        if nat is not None:
            box = self.world.add_nat("modem", NAT_ADDRESS, nat)
            self.a.attach(0, PRIVATE, box)
        else:
            self.a.attach(0, COA_A)
        if second_uplink:
            self.a.attach(1, COA_A2)
        self.c.attach(0, COA_C)
        self.a.boot()
        self.c.boot()
        self.flows: list[Flow] = []
        self.peer = peer
        if settle:
            self.wait_registered(60)
            # A was there first: it hears of C when C's first packet comes.
            self.world.run(1)
            self.flows = self.world.both("C" if peer == "C" else HOME, "A")
            if peer == "C":
                self.wait_direct(60)
            # The fault finds every timer at any phase.
            self.world.run(5 + self.world.rng.random() * _KEEPALIVE_S)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.world.__exit__()

    def run(self, seconds: float) -> None:
        """Let time go by."""
        self.world.run(seconds)

    def poll(self, condition: Callable[[], bool], limit_s: float) -> float | None:
        """Return the seconds until `condition()`, None if it does not come by then."""
        start = self.world.now
        while not condition():
            if self.world.now - start >= limit_s * 1000:
                return None
            self.run(0.1)
        return (self.world.now - start) / 1000

    def wait_registered(self, limit_s: float) -> None:
        """Wait until both routers are registered. Raises SimulationError at the limit."""
        network = self.world.network
        network.run_until(lambda: self.a.registered and self.c.registered, round(limit_s * 1000))

    def mark(self, fresh: bool = False) -> None:
        """Measure gaps from here; see Flow.mark."""
        for flow in self.flows:
            flow.mark(fresh)

    def gap(self) -> Outcome:
        """Return the longest gap since the mark."""
        longest = max(self.flows, key=lambda flow: flow.gap_ms())
        note = longest.name.replace(">", " to ")
        now = self.world.now
        if longest.last_at is not None and now - longest.last_at == longest.gap_ms() > 1000:
            note += ", not back when the run ended"
        return longest.gap_ms() / 1000, note

    def drop(self, *ways: tuple[bytes, bytes]) -> None:
        """Lose what goes from the first public address to the second, for each pair."""
        self.world.network.filters.append(lambda d: (d.src, d.dst) in ways)

    def all_direct(self) -> bool:
        """Whether what arrived last, just now, came by the direct path, both ways."""
        newest = self.world.now - 300
        return all(flow.last_via == VIA_DIRECT and flow.arrived_at > newest for flow in self.flows)

    def wait_direct(self, limit_s: float) -> float | None:
        """Return the seconds until traffic is direct both ways, None if it is not by then."""
        sent = [flow.sent for flow in self.flows]  # what is under way already says nothing

        def direct() -> bool:
            newer = all(flow.arrived > n for flow, n in zip(self.flows, sent, strict=True))
            return newer and self.all_direct()

        return self.poll(direct, limit_s)

    def back_to_direct(self, limit_s: float) -> Outcome:
        """Return the time until traffic is direct both ways, or None and the reasons."""
        took = self.wait_direct(limit_s)
        if took is not None:
            return took, "until direct both ways"
        return None, f"not direct within {limit_s:.0f} s: " + "; ".join(self.reasons())

    def reasons(self) -> list[str]:
        """Return what each router says about its path to the other."""
        said = []
        for one, other in ((self.a, self.c), (self.c, self.a)):
            entry = one.peer(other)
            said.append(f"{one.name} says: {entry['reason'] if entry else 'peer not known'}")
        return said


# --- the faults of links and addresses ---------------------------------------------------------

RR_RUNS = 300
_GAP_RUNS = 10
_LOSSY = 0.2
_JOINED_S = 600  # a request and its reply both arrive in two of three tries, which get rarer


def f1_loss(seed: int) -> list[Row]:
    """20 % loss each way of both uplinks: registered always, return routability within 30 s."""
    times, gaps, lost = [], [], 0
    for number in range(RR_RUNS):
        with Pair(seed * RR_RUNS + number, path=Link(_DELAY_MS, loss=_LOSSY), settle=False) as pair:
            world, a, c = pair.world, pair.a, pair.c
            pair.wait_registered(_JOINED_S)
            pair.flows = world.both("C", "A")
            ready = pair.poll(lambda c=c, a=a: _rr_active(c, a), 120)  # type: ignore[misc]
            times.append(120.0 if ready is None else ready)
            if number < _GAP_RUNS:
                pair.mark(fresh=True)
                for _ in range(120):
                    pair.run(0.5)
                    lost += not (a.registered and c.registered)
                gaps.append(pair.gap())
    times.sort()
    ready_95 = times[len(times) * 95 // 100 - 1]
    outage, _ = worst(gaps)
    note = f"longest gap; return routability took {ready_95:.1f} s in 95 % of {len(times)} runs"
    if ready_95 >= 30 or lost:
        return [Row("F1", DIRECT, 30, None, f"{note}; not registered at {lost} looks")]
    return [Row("F1", DIRECT, 30, outage, f"{note}; registered always")]


def _rr_active(one: RouterNode, other: RouterNode) -> bool:
    entry = one.peer(other)
    return entry is not None and entry["rrstate"] == "ACTIVE"


def f2_black_hole(seed: int) -> list[Row]:
    """The direct path drops everything, or one way; the path by the home agent is good."""
    outcomes: list[Outcome] = []
    for name, ways in (
        ("both ways", [(COA_A, COA_C), (COA_C, COA_A)]),
        ("A to C only", [(COA_A, COA_C)]),
        ("C to A only", [(COA_C, COA_A)]),
    ):
        with Pair(seed) as pair:
            pair.mark()
            pair.drop(*ways)
            pair.run(30)
            outage, note = variant(name, pair.gap())
            pair.world.network.filters.clear()
            returned = pair.wait_direct(60)
            if returned is None:
                outcomes.append((None, f"{name}: direct path not used again within 60 s"))
            else:
                outcomes.append((outage, f"{note}; direct {returned:.1f} s after the repair"))
    return [Row("F2", DIRECT, 5, *worst(outcomes))]


_DHCP_S = 2


def f3_handover_seen(seed: int) -> list[Row]:
    """A's, or C's, link goes down and comes up elsewhere; the router sees it."""
    gaps, returns = [], []
    for who, address, dhcp_s in (("A", COA_A2, _DHCP_S), ("C", COA_C2, _DHCP_S), ("A", COA_A2, 0)):
        with Pair(seed) as pair:
            node = pair.world.routers[who]
            if dhcp_s:
                node.detach(0)
                pair.run(dhcp_s)
            pair.mark(fresh=True)
            node.attach(0, address)
            start = pair.world.now
            took = pair.back_to_direct(60)
            pair.world.run(max(0.0, 20 - (pair.world.now - start) / 1000))
            name = f"{who} moves" + ("" if dhcp_s else " without a gap")
            gaps.append(variant(name, pair.gap()))
            returns.append(variant(name, took))
    return [
        Row("F3", BY_HOME_AGENT, 3, *worst(gaps)),
        Row("F3", DIRECT, 10, *worst(returns)),
    ]


def f4_handover_unseen(seed: int) -> list[Row]:
    """The uplink in use dies and its link stays up; another uplink is there."""
    rows = []
    for path, peer, bound in ((DIRECT, "C", 5), (BY_HOME_AGENT, HOME, 45)):
        with Pair(seed, peer, second_uplink=True) as pair:
            pair.mark()
            pair.world.network.filters.append(lambda d: COA_A in (d.src, d.dst))
            pair.run(120)
            outage, note = pair.gap()
            rows.append(Row("F4", path, bound, outage, f"first of two uplinks dies: {note}"))
    return rows


def f5_nat_port(seed: int) -> list[Row]:
    """A's NAT reboots: same address, new ports."""
    return _nat_fault("F5", seed, None, 5)


def f6_nat_address(seed: int) -> list[Row]:
    """A's NAT reboots with another public address."""
    return _nat_fault("F6", seed, NAT_ADDRESS2, 45)


def _nat_fault(fault: str, seed: int, address: bytes | None, direct_bound: int) -> list[Row]:
    rows = []
    for path, peer, bound in ((BY_HOME_AGENT, HOME, 45), (DIRECT, "C", direct_bound)):
        outcomes: list[Outcome] = []
        for kind in ("endpoint-independent", "address-dependent", "symmetric"):
            with Pair(seed, peer, nat=kind) as pair:
                box = pair.world.nats["modem"]
                if peer == "C" and not pair.all_direct():
                    outcomes.append((None, f"{kind} NAT: " + "; ".join(pair.reasons())))
                    continue
                pair.mark()
                if address is None:
                    box.reboot()
                else:
                    pair.world.move_nat(box, address)
                pair.run(90)
                outcomes.append(variant(f"{kind} NAT", pair.gap()))
        rows.append(Row(fault, path, bound, *worst(outcomes)))
    return rows


def f12_disorder(seed: int) -> list[Row]:
    """Reordering by 50 ms, 10 % duplicates, 1 % corrupted octets that no checksum caught."""
    link = Link(_DELAY_MS, jitter_ms=50, duplicate=0.1, corrupt=0.01)
    with Pair(seed, path=link) as pair:
        world = pair.world
        world.both("A", HOME)
        pair.mark()
        pair.run(300)
        outage: float | None
        outage, _ = pair.gap()
        tunnels = [len(n.router.tunnels.all()) for n in (pair.a, pair.c)]
        bindings = len(world.home_agent.home_agent.bindings)
        note = (
            f"longest gap; {world.sink.wrong} wrong deliveries, {max(tunnels) - 1} direct tunnel,"
            f" {bindings} bindings"
        )
        if world.sink.wrong or tunnels != [2, 2] or bindings != 2:
            outage, note = None, f"{note}: {world.sink.first_wrong}"
        # No bound of its own: it must not cost more than a dead path does.
        return [Row("F12", DIRECT, 5, outage, note)]
