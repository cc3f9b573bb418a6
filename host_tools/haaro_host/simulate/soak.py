"""Days of traffic with a random fault each hour: nothing crashes, grows or gets stuck.

Three routers and a home agent on 1 % loss, one of them behind a NAT; their sites talk about half of
the time. After each fault all is mended; within a minute traffic must pass between all sites,
within ten every pair must be direct again. No RRSTATE stays IN PROGRESS for 60 s. The Registration
Requests accepted last are replayed after each fault, and at once to a home agent that starts:
none may be accepted. The blocks that Python's heap holds are counted once a day, after its
collector ran, and must not grow over the last two thirds of the days.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

from haaro.wire import ipv4
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.network import Link
from haaro_host.simulate.router_node import RouterNode
from haaro_host.simulate.traffic import Flow
from haaro_host.simulate.world import HOME, World

SCHEMA = "haaro.simulate.soak/1"
_HOUR_S = 3600
_LOSS = 0.01
_EVERY_MS = 30_000  # between user packets: enough that direct tunnels stay in use
_REPLAYED = 100  # the last requests
_THROUGH_S = 60  # packets between all sites arrive again
_MINUTE_S = 60
_DIRECT_S = 600  # a registration ends in 420 s; a path that is not direct by then is stuck
_STUCK_S = 60
# An object left behind by each fault; by each registration it would be 1200, by each nonce 8600.
_GROWTH_BLOCKS_A_DAY = 24
_JUDGED_DAYS = 15  # in fewer, caches that fill look like growth
_NAT_ADDRESSES = [ipv4.address(f"198.51.100.{200 + n}") for n in range(8)]
_COAS = {
    name: [ipv4.address(f"203.0.113.{16 * n + k}") for k in range(8)] for n, name in enumerate("AB")
}
_PRIVATE = ipv4.address("192.168.1.10")


class _Soak:
    def __init__(self, seed: int) -> None:
        self.world = world = World(seed, Link(20, loss=_LOSS), disk=True)
        self.nodes = [world.add_router(name) for name in "ABC"]
        self.nat = world.add_nat("modem", _NAT_ADDRESSES[0], "address-dependent")
        world.boot_home_agent()
        for node in self.nodes:
            self.plug(node)
            node.boot()
        pairs = list(itertools.combinations([*"ABC", HOME], 2))
        self.flows: list[Flow] = []
        for one, other in pairs:
            self.flows += world.both(one, other, _EVERY_MS)
        self.faults: Counter[str] = Counter()
        self.failures: list[str] = []
        self.busy: dict[tuple[str, str], int] = {}
        self.slow: list[str] = []
        self.slowest_s = 0.0
        self.accepted: Counter[str] = Counter()
        self.requests: deque[Datagram] = deque(maxlen=_REPLAYED)
        self.replays = 0
        world.network.arrivals.append(self._arrived)

    def plug(self, node: RouterNode) -> None:
        """Plug a router in at one of its places."""
        if node.name == "C":
            node.attach(0, _PRIVATE, self.nat)
        else:
            node.attach(0, self.world.rng.choice(_COAS[node.name]))

    def talk(self) -> None:
        """Let packets flow between all sites, from a while before the fault."""
        if not self.flows[0].running:
            for flow in self.flows:
                flow.start()
            self.watch(self.world.rng.uniform(0, _THROUGH_S))

    def fall_silent(self) -> None:
        """After every second fault nobody has anything to say until the next: tunnels fall asleep,
        registrations between routers end.
        """
        if self.world.rng.random() < 0.5:
            for flow in self.flows:
                flow.stop()

    # --- replays -------------------------------------------------------------------------------

    def _arrived(self, datagram: Datagram) -> None:
        if datagram.kind == "request":
            caught = datagram.copy()
            caught.receiver = datagram.receiver
            before = self._taken(caught.receiver)
            self.world.network.at(self.world.now, self._answered, (caught, before))

    def _answered(self, item: tuple[Datagram, list[object]]) -> None:
        """Keep what was accepted. One that was refused for its time may become right later."""
        caught, before = item
        if self._taken(caught.receiver) != before:
            self.requests.append(caught)

    def replay(self, receivers: Iterable[str] = ("HA", "A", "B", "C")) -> None:
        """Hand the requests that were accepted lately to their receivers once more, with no time
        between: what changes bindings then was accepted again.
        """
        for caught in [caught for caught in self.requests if caught.receiver in receivers]:
            agent = caught.receiver == "HA"
            node = self.world.home_agent if agent else self.world.routers[caught.receiver]
            before = self._taken(caught.receiver)
            node.receive(caught.copy())
            self.replays += 1
            if self._taken(caught.receiver) != before:
                self.failures.append(
                    f"{self.world.now / 1000:.0f} s: {caught.receiver} accepted a replay"
                )

    def _taken(self, name: str) -> list[object]:
        """Return what changes when a request is accepted."""
        if name == "HA":
            counters = self.world.home_agent.home_agent.counters
            return [counters["registration_accepted"] + counters["deregistration_accepted"]]
        node = self.world.routers[name]
        return [record.binding for record in node.router.cache.all()] if node.running else []

    # --- faults --------------------------------------------------------------------------------

    def fault(self) -> None:
        """Do one, and let it last for a time."""
        rng, world = self.world.rng, self.world
        name = rng.choice(
            ["cut", "one way", "flap", "move", "both move", "home agent", "disk lost", "reboot"]
            + ["both reboot", "NAT port", "NAT address", "loss", "clock", "disorder"]
        )
        self.faults[name] += 1
        one, other = rng.sample(self.nodes, 2)
        lasts = rng.uniform(1, 300)
        if name in ("cut", "one way"):
            ways = [(one, other)] if name == "one way" else [(one, other), (other, one)]
            world.network.filters.append(
                lambda d: any(d.sender == a.name and d.dst in self.public(b) for a, b in ways)
            )
        elif name == "flap":
            one.detach(0)
            world.run(lasts / 10)
            self.plug(one)
        elif name in ("move", "both move"):
            for node in (one, other) if name == "both move" else (one,):
                self.plug(node)
        elif name in ("home agent", "disk lost"):
            self.count_accepted()
            world.home_agent.crash()
            world.run(lasts)
            world.boot_home_agent(name == "disk lost")
            self.replay(["HA"])
        elif name in ("reboot", "both reboot"):
            down = [one, other] if name == "both reboot" else [one]
            for node in down:
                node.crash()
            world.run(lasts / 10)
            for node in down:
                node.boot(rng.choice([None, 0]))
        elif name == "NAT port":
            self.nat.reboot()
        elif name == "NAT address":
            world.move_nat(self.nat, rng.choice(_NAT_ADDRESSES))
        elif name == "loss":
            world.network.path.loss = 0.2
        elif name == "clock":
            world.home_agent.step_clock(rng.choice([-3_600_000, 3_600_000]))
        elif name == "disorder":
            path = world.network.path
            path.jitter_ms, path.duplicate, path.corrupt = 50, 0.1, 0.01
        self.watch(lasts)
        world.network.filters.clear()
        world.network.path = Link(20, loss=_LOSS)
        self.heal(name)

    def public(self, node: RouterNode) -> set[bytes]:
        """Return the addresses that lead to a router."""
        links = node.uplinks.values()
        return {link.address if link.nat is None else link.nat.address for link in links}

    def count_accepted(self) -> None:
        """Keep the counters of a home agent that is about to be killed."""
        self.accepted.update(self.world.home_agent.home_agent.counters)

    # --- looking -------------------------------------------------------------------------------

    def watch(self, seconds: float) -> None:
        """Let time go by and look for what is stuck."""
        end = self.world.now + round(seconds * 1000)
        while self.world.now < end:
            self.world.network.run_to(min(end, self.world.now + 10_000))
            self.look()

    def look(self) -> None:
        """Find an RRSTATE that stays IN PROGRESS."""
        now = self.world.now
        for node in self.nodes:
            if not node.running:
                continue
            for record in node.router.cache.all():
                key = (node.name, ipv4.text(record.cr_hoa))
                run = record.return_routability
                states = record.rr_states.values()
                if "IN PROGRESS" not in states:
                    self.busy.pop(key, None)
                    continue
                since = self.busy.setdefault(key, now)
                if run is not None and run.sent_at > since:
                    self.busy[key] = since = run.sent_at
                if now - since > _STUCK_S * 1000:
                    self.failures.append(f"{now / 1000:.0f} s: RRSTATE of {key} is stuck")
                    self.busy[key] = now

    def heal(self, fault: str) -> None:
        """All is well again: packets must soon get through, and every pair must be direct in time.

        What takes longer than a minute to be direct is kept in `slow` with what routers say.
        """
        start = self.world.now
        waiting = dict.fromkeys(self.flows, 0)
        for flow in waiting:
            waiting[flow] = flow.sent
        told = False
        while waiting or not self.all_direct():
            took_s = (self.world.now - start) // 1000
            waiting = {flow: sent for flow, sent in waiting.items() if flow.arrived <= sent}
            if waiting and took_s > _THROUGH_S:
                names = ", ".join(flow.name for flow in waiting)
                self.failures.append(f"{start // 1000} s, after {fault}: nothing arrives {names}")
                waiting.clear()
            if took_s > _MINUTE_S and not told:
                told = True
                self.slow.append(f"{start // 1000} s, after {fault}: {self.reasons()}")
            if took_s > _DIRECT_S:
                self.failures.append(f"{start // 1000} s, after {fault}: {self.reasons()}")
                break
            for flow in self.flows:
                flow.send_one()
            self.world.run(0.5)
        self.slowest_s = max(self.slowest_s, (self.world.now - start) / 1000)

    def reasons(self) -> str:
        """Return what routers say about each path that is not direct."""
        return "; ".join(
            f"{a.name} to {b.name}: {(a.peer(b) or {'reason': 'not known'})['reason']}"
            for a, b in itertools.permutations(self.nodes, 2)
            if not a.is_direct(b)
        )

    def all_direct(self) -> bool:
        """Whether every pair of routers is direct both ways."""
        return all(a.is_direct(b) for a, b in itertools.permutations(self.nodes, 2))


def run(seed: int, days: float, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Soak for so many simulated days; the figures as data."""
    soak = _Soak(seed)
    heap: list[int] = []
    told = 0
    with soak.world:
        world = soak.world
        soak.heal("the start")
        for hour in range(1, round(days * 24) + 1):
            end = hour * _HOUR_S * 1000
            soak.watch(world.rng.uniform(0, max(0, (end - world.now) / 1000 - 1000)))
            soak.talk()
            soak.fault()
            soak.replay()
            soak.fall_silent()
            soak.watch((end - world.now) / 1000)
            if tell is not None and len(soak.failures) > told:
                tell("\n".join(soak.failures[told:]))
                told = len(soak.failures)
            if hour % 24 == 0:
                gc.collect()
                heap.append(sys.getallocatedblocks())
                if tell is not None:
                    tell(f"day {hour // 24}: {heap[-1]} blocks, {len(soak.failures)} failures")
        soak.count_accepted()
        if world.sink.wrong:
            soak.failures.append(f"{world.sink.wrong} wrong deliveries: {world.sink.first_wrong}")
        slope = _slope(heap[len(heap) // 3 :])
        if slope is not None and len(heap) >= _JUDGED_DAYS and slope > _GROWTH_BLOCKS_A_DAY:
            soak.failures.append(f"the heap grows by {slope:.1f} blocks a day")
        return {
            "schema": SCHEMA,
            "seed": seed,
            "days": days,
            "datagrams": world.network.datagrams,
            "registrations": soak.accepted["registration_accepted"],
            "replays": soak.replays,
            "faults": dict(sorted(soak.faults.items())),
            "slowest_recovery_s": soak.slowest_s,
            "slow": soak.slow,
            "heap_blocks": heap,
            "heap_slope_blocks_a_day": slope,
            "trace_sha256": world.network.trace_sha256,
            "failures": soak.failures,
        }


def _slope(values: list[int]) -> float | None:
    """Return the least-squares slope, None with fewer than three values."""
    n = len(values)
    if n < 3:
        return None
    middle, mean = (n - 1) / 2, sum(values) / n
    above = sum((x - middle) * (y - mean) for x, y in enumerate(values))
    return above / sum((x - middle) ** 2 for x in range(n))


def lines(data: dict[str, Any]) -> list[str]:
    """Return the figures as text."""
    slope = data["heap_slope_blocks_a_day"]
    return [
        f"seed {data['seed']}, {data['days']:g} days, {data['datagrams']} datagrams,"
        f" {data['registrations']} registrations, {data['replays']} replays,"
        f" trace {data['trace_sha256'][:16]}",
        "faults: " + ", ".join(f"{name} {n}" for name, n in data["faults"].items()),
        f"slowest return to the direct path {data['slowest_recovery_s']:.1f} s,"
        f" {len(data['slow'])} over a minute",
        "heap slope: " + ("not measured" if slope is None else f"{slope:.1f} blocks a day"),
        *(f"FAILED: {text}" for text in data["failures"]),
    ]
