"""Runs a scenario: builds its world, makes its events happen, judges what was expected."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from haaro.wire import ipv4
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.network import Link
from haaro_host.simulate.router_node import RouterNode
from haaro_host.simulate.scenario_file import (
    EventTable,
    LinkTable,
    RouterTable,
    Scenario,
    TrafficTable,
    UplinkTable,
    router_names,
)
from haaro_host.simulate.traffic import Flow
from haaro_host.simulate.world import World, default_address


def _link(table: LinkTable) -> Link | None:
    link = Link(table.delay_ms, table.jitter_ms, table.loss, table.duplicate, table.corrupt)
    return None if link == Link() else link


@dataclass
class _Pattern:
    """Traffic that comes and goes: `on_ms` in each `each_ms`."""

    flows: list[Flow]
    on_ms: int
    each_ms: int
    rng: random.Random


@dataclass
class Run:
    """A scenario under way. `world` is None until `build`."""

    scenario: Scenario
    seed: int
    world: World = field(init=False)
    registered_at: int | None = None

    def __post_init__(self) -> None:
        """Build the world: nothing of it has happened yet."""
        scenario = self.scenario
        internet = _link(scenario.internet) or Link()
        self.world = world = World(self.seed, internet, scenario.disk, scenario.home_agent)
        for nat in scenario.nat:
            world.add_nat(nat.name, nat.address, nat.kind, nat.timeout_s, _link(nat.link))
        self._starts: list[tuple[RouterNode, RouterTable]] = []
        self._places: dict[tuple[str, int], UplinkTable] = {}
        self._cuts: list[Callable[[Datagram], bool]] = []
        self._dead: dict[bytes, Callable[[Datagram], bool]] = {}
        names = iter(router_names(scenario))
        for table in scenario.router:
            for _ in range(table.count):
                self._add_router(next(names), table)
        world.boot_home_agent()
        world.note("HA", "starts")
        for node, table in self._starts:
            start = table.start_s + world.rng.random() * table.spread_s
            world.network.at(round(start * 1000), lambda item: self._start(*item), (node, table))
        for traffic in scenario.traffic:
            self._plan_traffic(traffic)
        for event in scenario.event:
            world.network.at(round(event.at_s * 1000), self._happen, event)

    def _add_router(self, name: str, table: RouterTable) -> None:
        world = self.world
        options = {**self.scenario.settings, **table.settings}
        node = world.add_router(name, table.home_address, list(table.networks), options)
        uplinks = table.uplinks or [UplinkTable()]
        for index, uplink in enumerate(uplinks):
            # An uplink has its link and its NAT even while it is down.
            place = uplink.model_copy()
            if place.address is None:
                place.address = default_address(len(world.routers))
            self._places[name, index] = place
            if uplink.up:
                self._attach(node, index)
        self._starts.append((node, table))

    def _attach(self, node: RouterNode, index: int) -> None:
        place = self._places[node.name, index]
        assert place.address is not None
        nat = self.world.nats[place.nat] if place.nat is not None else None
        node.attach(index, place.address, nat, _link(place))

    def _start(self, node: RouterNode, table: RouterTable) -> None:
        self._boot(node, table.clock_s, table.without_clock)

    def _boot(self, node: RouterNode, clock_s: float, without_clock: bool = False) -> None:
        true = self.world.network.ntp_ms(self.world.now)
        node.boot(0 if without_clock else true + round(clock_s * 1000))
        self.world.note(node.name, "starts")

    # --- traffic -------------------------------------------------------------------------------

    def _plan_traffic(self, table: TrafficTable) -> None:
        world = self.world
        if table.source != "*":
            assert table.to is not None
            pairs = [(table.source, table.to)]
        else:
            names = list(world.routers)
            pairs = []
            for name in names:
                others = [other for other in names[: table.among] if other != name]
                chosen = world.rng.sample(others, min(table.peers, len(others)))
                pairs += [(name, other) for other in chosen]
        for one, other in pairs:
            flows = [world.flow(one, other, table.every_ms)]
            if table.both:
                flows.append(world.flow(other, one, table.every_ms))
            start = round(table.start_s * 1000)
            if table.on_s is not None and table.each_s is not None:
                pattern = _Pattern(
                    flows, round(table.on_s * 1000), round(table.each_s * 1000), world.rng
                )
                world.network.at(start, self._begin, pattern)
            else:
                world.network.at(start, self._switch, (flows, True))
            if table.stop_s is not None:
                world.network.at(round(table.stop_s * 1000), self._switch, (flows, False))

    def _begin(self, pattern: _Pattern) -> None:
        """Draw when in this period the traffic is on."""
        network = self.world.network
        offset = pattern.rng.randint(0, max(0, pattern.each_ms - pattern.on_ms))
        network.at(network.now + offset, self._switch, (pattern.flows, True))
        end = network.now + offset + pattern.on_ms
        network.at(end, self._switch, (pattern.flows, False))
        network.at(network.now + pattern.each_ms, self._begin, pattern)

    def _switch(self, item: tuple[list[Flow], bool]) -> None:
        flows, on = item
        for flow in flows:
            if on:
                flow.start()
            else:
                flow.stop()

    # --- events --------------------------------------------------------------------------------

    def _happen(self, event: EventTable) -> None:
        getattr(self, f"_do_{event.do}")(event)

    def _node(self, event: EventTable) -> RouterNode:
        assert event.router is not None
        return self.world.routers[event.router]

    def _do_down(self, event: EventTable) -> None:
        self.world.note(self._node(event).name, f"uplink {event.uplink} goes down")
        self._node(event).detach(event.uplink)

    def _do_up(self, event: EventTable) -> None:
        node = self._node(event)
        place = self._places[node.name, event.uplink]
        place.address = event.address or place.address
        assert place.address is not None
        text = ipv4.text(place.address)
        self.world.note(node.name, f"uplink {event.uplink} comes up with {text}")
        self._attach(node, event.uplink)

    _do_move = _do_up

    def _do_dead(self, event: EventTable) -> None:
        node = self._node(event)
        address = self._places[node.name, event.uplink].address
        assert address is not None
        self.world.note(node.name, f"uplink {event.uplink} is dead, unseen")
        self._dead[address] = lambda d: address in (d.src, d.dst)
        self.world.network.filters.append(self._dead[address])

    def _do_alive(self, event: EventTable) -> None:
        node = self._node(event)
        address = self._places[node.name, event.uplink].address
        self.world.note(node.name, f"uplink {event.uplink} works again")
        drops = self._dead.pop(address or b"", None)
        if drops is not None:
            self.world.network.filters.remove(drops)

    def _do_cut(self, event: EventTable) -> None:
        one, other = event.router or "", event.other or ""
        ways = {(one, other)} if event.one_way else {(one, other), (other, one)}
        self.world.note(one, f"direct path to {other} is cut" + " one way" * event.one_way)

        def drops(datagram: Datagram) -> bool:
            return any(datagram.sender == a and datagram.dst in self._public(b) for a, b in ways)

        self._cuts.append(drops)
        self.world.network.filters.append(drops)

    def _public(self, name: str) -> set[bytes]:
        """Return the addresses by which the internet reaches a router now."""
        links = self.world.routers[name].uplinks.values()
        return {link.address if link.nat is None else link.nat.address for link in links}

    def _do_mend(self, event: EventTable) -> None:
        self.world.note(event.router or "HA", "the direct path is whole again")
        for drops in self._cuts:
            self.world.network.filters.remove(drops)
        self._cuts.clear()

    def _do_crash(self, event: EventTable) -> None:
        self.world.note(event.router or "HA", "loses power")
        if event.router == "HA":
            self.world.home_agent.crash()
        else:
            self._node(event).crash()

    def _do_boot(self, event: EventTable) -> None:
        if event.router == "HA":
            self.world.note("HA", "starts" + " with an empty disk" * event.lost_disk)
            self.world.home_agent.offset_ms += round((event.clock_s) * 1000)
            self.world.boot_home_agent(event.lost_disk)
        else:
            self._boot(self._node(event), event.clock_s)

    def _do_stop(self, event: EventTable) -> None:
        self.world.note(event.router or "", "stops")
        self._node(event).stop()

    def _do_drain(self, event: EventTable) -> None:
        undo = event.do == "undrain"
        text = f"uplink {event.uplink} is {'taken back' if undo else 'drained'}"
        self.world.note(event.router or "", text)
        self._node(event).drain(event.uplink, undo)

    _do_undrain = _do_drain

    def _do_nat_reboot(self, event: EventTable) -> None:
        nat = self.world.nats[event.nat or ""]
        self.world.note("HA", f"NAT {nat.name} reboots" + " elsewhere" * bool(event.address))
        if event.address:
            self.world.move_nat(nat, event.address)
        else:
            nat.reboot()

    def _do_clock(self, event: EventTable) -> None:
        self.world.note("HA", f"clock is set by {event.clock_s:g} s")
        self.world.home_agent.step_clock(round((event.clock_s) * 1000))

    # --- the run -------------------------------------------------------------------------------

    def go(self) -> None:
        """Let the scenario's time go by."""
        end = round(self.scenario.seconds * 1000)
        world = self.world
        nodes = list(world.routers.values())
        with _collecting_seldom():
            while world.now < end and self.registered_at is None:
                world.network.run_to(min(end, world.now + 100))
                if all(node.registered for node in nodes):
                    self.registered_at = world.now
            world.network.run_to(end)

    def failures(self) -> list[str]:
        """Return what was expected and is not so."""
        expect, world = self.scenario.expect, self.world
        said = []
        if expect.registered:
            said += [
                f"{node.name} is not registered"
                for node in world.routers.values()
                if node.running and not node.router.stopped and not node.registered
            ]
        for wanted, pairs in ((True, expect.direct), (False, expect.by_home_agent)):
            for one, other in pairs:
                a, b = world.routers[one], world.routers[other]
                for here, there in ((a, b), (b, a)):
                    if here.is_direct(there) != wanted:
                        entry = here.peer(there)
                        why = entry["reason"] if entry else "not known"
                        said.append(f"{here.name} to {there.name}: {why}")
        flows = list(world.sink.flows.values())
        if expect.outage_s is not None:
            said += [
                f"{flow.name}: outage of {flow.gap_ms() / 1000:.2f} s, at most {expect.outage_s:g}"
                for flow in flows
                if flow.gap_ms() > expect.outage_s * 1000
            ]
        if expect.direct_within_s is not None:
            for flow in flows:
                took = direct_ms(flow)
                if took is None or took > expect.direct_within_s * 1000:
                    said.append(f"{flow.name}: direct after {took} ms")
        share = off_home_agent(world)
        if expect.off_home_agent is not None and (share or 0) < expect.off_home_agent:
            said.append(f"{share} of the traffic went off the home agent")
        if world.sink.wrong:
            said.append(f"{world.sink.wrong} wrong deliveries: {world.sink.first_wrong}")
        return said


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let Python's collector look less often: with a thousand routers it takes a tenth of the time,
    and what they drop has hardly a cycle.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def direct_ms(flow: Flow) -> int | None:
    """Return the time from the first packet to the first direct one, None if there was none."""
    if flow.started_at is None or flow.direct_at is None:
        return None
    return flow.direct_at - flow.started_at


def off_home_agent(world: World) -> float | None:
    """Return the share of delivered traffic between routers that took the direct path."""
    flows = [f for f in world.sink.flows.values() if "home" not in f.name.split(">")]
    delivered = sum(flow.delivered for flow in flows)
    return sum(flow.direct for flow in flows) / delivered if delivered else None
