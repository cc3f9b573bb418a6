"""F1 to F6 and F12: what happens to links and addresses. Each function is one case."""

from __future__ import annotations

import time
from collections.abc import Callable

from haaro_host.lab import plan, topology
from haaro_host.lab.faults import layouts
from haaro_host.lab.faults.bench import BY_HOME_AGENT, DIRECT, HQ, Bench, Row
from haaro_host.lab.faults.layouts import HOSTS, A, C
from haaro_host.lab.system import LabError

_KEEPALIVE_S = 25.0
_CALM_S = 5.0
_LOSS = 0.2
_DHCP_S = 2.0
_F12_RATE = 100.0


def f1_loss(bench: Bench) -> list[Row]:
    """20 % random loss each way of both uplinks, from before the start on."""
    limit = 120.0
    with bench.built():
        bench.lab.start_home_agent()
        bench.spoil(loss=_LOSS, delay_ms=10)
        began = time.time()
        for node in (A.node, C.node):
            bench.lab.start_router(node)
            bench.wait_registered(node, limit)
        registered = time.time() - began
        bench.start_probe(A.host, C.host)
        start = time.time()

        def active() -> bool:
            """Either end, whichever began."""
            return "ACTIVE" in (
                bench.peer(C.node, A).get("rrstate"), bench.peer(A.node, C).get("rrstate")
            )  # fmt: skip

        bench.wait_flowing(start, limit)
        ready = time.time() - start if bench.until(active, limit) else None
        lost, looks = 0, 0
        end = time.monotonic() + 20

        def watched() -> bool:
            nonlocal lost, looks
            looks += 1
            for node in (A.node, C.node):
                lost += not bench.status(node)["registration"]["registered"]
            return time.monotonic() >= end

        bench.until(watched, 25)
        gap, _ = bench.outage(start + 2)
        counts = bench.spoil()
    share = _share_lost(counts)
    note = f"longest gap, registered after {registered:.1f} s; {share:.0%} of the packets were lost"
    if lost:
        note = f"not registered at {lost} of {looks} looks; {note}"
    return [
        Row("F1", DIRECT, 30, None if lost else gap, note),
        Row("F1", "rr", 30, ready, "until return routability was done"),
    ]


def _share_lost(counts: dict[str, dict[str, dict[str, int]]]) -> float:
    ways = [way for each in counts.values() for way in each.values()]
    lost = sum(way["lost"] for way in ways)
    return lost / max(1, lost + sum(way["passed"] for way in ways))


def f2_both_ways(bench: Bench) -> list[Row]:
    """The direct path drops everything."""
    return _black_hole(bench, [(A, C), (C, A)])


def f2_a_to_c(bench: Bench) -> list[Row]:
    """What goes from A to C directly is lost, the other way is good."""
    return _black_hole(bench, [(A, C)])


def f2_c_to_a(bench: Bench) -> list[Row]:
    """What goes from C to A directly is lost, the other way is good."""
    return _black_hole(bench, [(C, A)])


def _black_hole(bench: Bench, ways: list[tuple[plan.Office, plan.Office]]) -> list[Row]:
    with bench.traffic():
        cut = time.time()
        for one, other in ways:
            topology.cut_one_way(bench.lab.name, one.care_of_address, other.care_of_address)
        bench.recover(cut, 20, 6, _CALM_S)
        outage, note = bench.outage(cut)
        if not bench.lab.counters()["cut"]:
            raise LabError("the cut dropped nothing: this run proves nothing")
        bench.paths.update()
        now = time.time()
        around = [bench.paths.by_home_agent(one.host).count(now - 2, now) for one, _ in ways]
        if not all(around):
            return [Row("F2", DIRECT, 5, None, f"no traffic by the home agent; {note}")]
        mended = time.time()
        topology.flush_cuts(bench.lab.name)
        returned, why = bench.back_to_direct(mended, 60)
        if returned is None:
            return [Row("F2", DIRECT, 5, None, f"after the repair {why}")]
        bench.rest(1)
        lost = sum(bench.lost(mended + 0.1, time.time() - 0.5))
        note += f"; direct {returned:.1f} s after the repair, {lost} lost by the return"
        return [Row("F2", DIRECT, 5, outage, note)]


def f3_a_moves(bench: Bench) -> list[Row]:
    """A's cable is pulled; two seconds later it has another address in another net."""
    with bench.traffic():
        bench.carrier(A.node, False)
        bench.rest(_DHCP_S)
        bench.carrier(A.node, True)
        return _moved(bench, lambda: bench.move_a(layouts.A_MOVED, layouts.A_MOVED_GATEWAY))


def f3_c_moves(bench: Bench) -> list[Row]:
    """C's cable is pulled; two seconds later it has another address."""
    with bench.traffic():
        bench.carrier(C.node, False)
        bench.rest(_DHCP_S)
        bench.carrier(C.node, True)
        return _moved(bench, lambda: bench.move_c(layouts.C_MOVED))


def f3_no_gap(bench: Bench) -> list[Row]:
    """A's address changes from one moment to the next."""
    with bench.traffic():
        return _moved(bench, lambda: bench.move_a(layouts.A_MOVED, layouts.A_MOVED_GATEWAY))


def _moved(bench: Bench, move: Callable[[], None]) -> list[Row]:
    start = time.time()
    move()
    returned, why = bench.back_to_direct(start + 0.1, 60)
    bench.rest(_CALM_S)
    outage, note = bench.outage(start, fresh=True)
    return [
        Row("F3", BY_HOME_AGENT, 3, outage, f"after the new address; {note}"),
        Row("F3", DIRECT, 10, returned, why),
    ]


def f4_direct(bench: Bench) -> list[Row]:
    """Of A's two uplinks the one in use dies and its link stays up; traffic was direct."""
    with bench.traffic():
        return [_uplink_dies(bench, DIRECT, 5)]


def f4_home_agent(bench: Bench) -> list[Row]:
    """Of A's two uplinks the one in use dies and its link stays up; home network traffic."""
    with bench.traffic(HQ, A.host, phase_s=_KEEPALIVE_S):
        return [_uplink_dies(bench, BY_HOME_AGENT, 45)]


def f4_one_way(bench: Bench) -> list[Row]:
    """What the home agent sends to A's uplink in use is lost, the other way is good."""
    with bench.traffic(HQ, A.host, phase_s=_KEEPALIVE_S):
        cut = time.time()
        topology.cut_one_way(bench.lab.name, plan.HOME_AGENT, A.care_of_address)
        bench.recover(cut, 45 + 30, 6, _CALM_S)
        outage, note = bench.outage(cut)
        return [Row("F4", BY_HOME_AGENT, 45, outage, f"one way from the home agent: {note}")]


def _uplink_dies(bench: Bench, path: str, bound: float) -> Row:
    dead = time.time()
    topology.kill_link(bench.lab.name, A.node)
    bench.recover(dead, bound + 30, 6, _CALM_S)
    outage, note = bench.outage(dead)
    bench.paths.update()
    if path == DIRECT and not bench.paths.direct(A.host, layouts.A_SECOND_LINK).count(dead):
        note += "; by the home agent at the end"
    return Row("F4", path, bound, outage, f"first of two uplinks dies: {note}")


def f5_home_agent_port(bench: Bench) -> list[Row]:
    """A's NAT (one port for all destinations) restarts, other port; home network traffic."""
    return _nat_restarts(bench, "F5", "port", BY_HOME_AGENT, 45)


def f5_home_agent_symmetric(bench: Bench) -> list[Row]:
    """A's symmetric NAT restarts, other ports; home network traffic."""
    return _nat_restarts(bench, "F5", "symmetric", BY_HOME_AGENT, 45)


def f5_direct_port(bench: Bench) -> list[Row]:
    """A's NAT restarts, other port; traffic was direct."""
    return _nat_restarts(bench, "F5", "port", DIRECT, 5)


def f5_direct_symmetric(bench: Bench) -> list[Row]:
    """A's symmetric NAT restarts, other ports; traffic was direct."""
    return _nat_restarts(bench, "F5", "symmetric", DIRECT, 5)


def f6_home_agent(bench: Bench) -> list[Row]:
    """A's NAT restarts with another public address; home network traffic."""
    return _nat_restarts(bench, "F6", "symmetric", BY_HOME_AGENT, 45, layouts.NAT_OTHER_ADDRESS)


def f6_direct(bench: Bench) -> list[Row]:
    """A's NAT restarts with another public address; traffic was direct."""
    return _nat_restarts(bench, "F6", "port", DIRECT, 45, layouts.NAT_OTHER_ADDRESS)


def _nat_restarts(
    bench: Bench, fault: str, kind: str, path: str, bound: float, address: str | None = None
) -> list[Row]:
    ends = (HQ, A.host) if path == BY_HOME_AGENT else (A.host, C.host)
    with bench.built():
        bench.nat.start(kind)
        bench.start()
        try:
            bench.settle(*ends, phase_s=_KEEPALIVE_S)
        except LabError as error:
            return [Row(fault, path, bound, None, f"{kind} NAT, before the fault: {error}")]
        restarted = time.time()
        bench.nat.restart(address)
        bench.recover(restarted, bound + 30, 6, _CALM_S)
        outage, note = bench.outage(restarted)
        if path == DIRECT:
            returned, why = bench.back_to_direct(restarted, 60)
            note += f"; {why if returned is None else f'direct again after {returned:.1f} s'}"
        return [Row(fault, path, bound, outage, f"{kind} NAT: {note}")]


_SPARSE_S = 4.0
# By then a packet is in the recorder's file, on a busy machine too.
_RECORDED_S = 2.0


def nat_two_seconds(bench: Bench) -> list[Row]:
    """A behind a symmetric NAT whose mappings live 2 s, a datagram each 4 s in both directions."""
    with bench.built():
        bench.nat.start("symmetric", 2)
        bench.start()
        bench.settle()
        bench.stop_probe()
        start = time.time()
        bench.start_probe(A.host, C.host, 1 / _SPARSE_S)
        bench.rest(10 * _SPARSE_S)
        lost = bench.lost(start, time.time() - 1)
        bench.paths.update()
        around = sum(bench.paths.by_home_agent(end).count(start) for end in bench.ends)
        note = f"{lost} lost of {10 * 2}; {around} went by the home agent"
        return [Row("nat", "2 s", 0, float(sum(lost)), note)]


def nat_shared(bench: Bench) -> list[Row]:
    """A and C behind the same NAT, which lets nothing in again that goes to its own address."""
    with bench.built():
        bench.nat.start("port")
        bench.start()
        bench.start_probe(A.host, C.host)
        start = time.time()
        bench.wait_flowing(start, 20)

        def inside_only() -> bool:
            """Nothing for two seconds, the first of which is after what may not be recorded yet."""
            bench.paths.update()
            now = time.time()
            quiet = now - start > 2 + _RECORDED_S and not bench.paths.seen(now - 2)
            return quiet and bench.flows()

        took = time.time() - start if bench.until(inside_only, 60) else None
        since = time.time() - 2
        bench.rest(10)
        bench.paths.update()
        crossed = bench.paths.seen(since)
        note = f"until no packet of the hosts leaves the NAT's inside; {crossed} in the 12 s after"
        if took is None:
            note += f"; {bench.reasons()}"
        return [Row("nat", "shared", 60, None if crossed else took, note)]


def nat_two(bench: Bench) -> list[Row]:
    """A and C behind two NATs: traffic stays with the home agent, and the status says why."""
    with bench.built():
        bench.nat.start("port")
        bench.nat_of_c.start("port")
        bench.start()
        bench.start_probe(A.host, C.host)
        start = time.time()
        bench.wait_flowing(start, 20)
        bench.rest(20)
        outage, note = bench.outage(start + 2)
        bench.paths.update()
        direct = sum(bench.paths.direct(end).count(start) for end in bench.ends)
        reasons = bench.reasons()
        said = "NAT" in reasons
        note = f"longest gap, {note}; {direct} datagrams sent to the other NAT; {reasons}"
        return [Row("nat", "two", 1, outage if said and not direct else None, note)]


def f12_disorder(bench: Bench) -> list[Row]:
    """Reordering by 50 ms, 10 % duplicates, 1 % corrupted, half of it unseen by any checksum."""
    with bench.built():
        bench.start()
        bench.settle(rate=_F12_RATE)
        bench.spoil(delay_ms=10, jitter_ms=50, duplicate=0.1, corrupt=0.01)
        start = time.time()
        bench.rest(30)
        outage, note = bench.outage(start)
        counts = bench.spoil()
        bench.rest(1)
        wrong = bench.wrong_deliveries()
        tunnels = [_direct_tunnels(bench, node) for node in (A.node, C.node)]
        bindings = [each["binding"] for each in bench.status("ha")["routers"] if each["binding"]]
    ways = [way for each in counts.values() for way in each.values()]
    unseen, corrupted = (sum(way[key] for way in ways) for key in ("unseen", "corrupted"))
    note = (
        f"longest gap, {note}; {corrupted} packets corrupted, {unseen} of them past the checksum;"
        f" {wrong} wrong deliveries, {tunnels} direct tunnels, {len(bindings)} bindings"
    )
    if not unseen:
        raise LabError("nothing corrupt passed a checksum: this run proves nothing")
    held = not wrong and tunnels == [1, 1] and len(bindings) == len(HOSTS) - 1
    # No bound of its own: it must not cost more than a dead path does.
    return [Row("F12", DIRECT, 5, outage if held else None, note)]


def _direct_tunnels(bench: Bench, node: str) -> int:
    return sum(1 for peer in bench.status(node)["peers"] if peer["tunnel"] is not None)
