"""F7 to F11, F13, F14: programs killed and started again, disks lost, clocks, power cuts."""

from __future__ import annotations

import json
import subprocess
import time
from itertools import pairwise

from haaro_host.lab import system
from haaro_host.lab.clocks import DECADE_MS, HOUR_MS
from haaro_host.lab.faults import layouts, replay
from haaro_host.lab.faults.bench import BY_HOME_AGENT, DIRECT, HQ, Bench, Row
from haaro_host.lab.faults.layouts import A, C
from haaro_host.lab.pcap import Packet
from haaro_host.lab.processes import write_atomically

_HA_DOWN_S = 5.0
_CALM_S = 5.0
_STEPS = (("+1 h", HOUR_MS), ("-1 h", -HOUR_MS), ("+10 y", DECADE_MS), ("-10 y", -DECADE_MS))
# A clock's step shows at the next renewal: with this lifetime they come every 22 s.
_SHORT_LIFETIME_S = 30
_RENEWALS_S = 34.0


def _restart_home_agent(bench: Bench, lost_disk: bool = False) -> float:
    """Kill it, wait, perhaps lose its disk, start it; when it was started."""
    bench.kill("ha")
    bench.rest(_HA_DOWN_S)
    if lost_disk:
        _lose_disk(bench)
    started = time.time()
    bench.start("ha")
    return started


def _lose_disk(bench: Bench) -> None:
    for path in bench.lab.files.ha_state.parent.glob(bench.lab.files.ha_state.name + "*"):
        path.unlink()


def f7_direct(bench: Bench) -> list[Row]:
    """The home agent is killed and starts 5 s later from its disk; traffic was direct."""
    with bench.traffic():
        killed = time.time()
        _restart_home_agent(bench)
        bench.rest(20)
        outage, note = bench.outage(killed)
    # "Uninterrupted": two probes of ten a second lost in a row would be a gap of 0.3 s.
    return [Row("F7", DIRECT, 0.25, outage, f"longest gap; {note}")]


def f7_home_agent(bench: Bench) -> list[Row]:
    """The home agent is killed and starts 5 s later from its disk; home network traffic."""
    with bench.traffic(HQ, A.host):
        started = _restart_home_agent(bench)
        bench.recover(started, 45, 1, 2 * _CALM_S)
        outage, note = bench.outage(started, fresh=True)
    return [Row("F7", BY_HOME_AGENT, 15, outage, f"after the restart; {note}")]


def f8_disk_lost(bench: Bench) -> list[Row]:
    """The home agent is killed and starts 5 s later with an empty disk; home network traffic."""
    with bench.traffic(HQ, A.host):
        started = _restart_home_agent(bench, lost_disk=True)
        bench.recover(started, 90, 1, _CALM_S)
        outage, note = bench.outage(started, fresh=True)
    return [Row("F8", BY_HOME_AGENT, 60, outage, f"after the restart; {note}")]


def f8_replay(bench: Bench) -> list[Row]:
    """Every Request seen is sent again, from its own address, to the home agent without its disk
    while the routers are gone; none may be accepted."""
    with bench.traffic():
        bench.paths.update()
        seen = [packet for link in ("a", "c") for packet in bench.paths.requests(link)]
        bench.kill("a", "c", "ha")
        _lose_disk(bench)
        bench.start("ha")
        since, sent = time.time(), 0
        for wait in (0.2, 2, 6):
            bench.rest(wait)
            sent += replay.send_again(bench, seen)
            bench.rest(0.5)
        bench.paths.update()
        codes = [code for at, code in bench.paths.reply_codes("ha") if at > since]
        bound = [each["name"] for each in bench.status("ha")["routers"] if each["binding"]]
    accepted = sum(1 for code in codes if code in (0, 1))
    note = f"{sent} requests replayed in 9 s: {len(codes)} refused by code, bindings: {bound}"
    held = sent > 0 and not accepted and not bound
    return [Row("F8", "replay", 0, float(accepted) if held else None, note)]


def f9_router(bench: Bench) -> list[Row]:
    """A restarts, and its clock says another time; also one that says 1970."""
    rows = []
    with bench.traffic(HQ, A.host):
        steps: list[tuple[str, int]] = [*_STEPS, ("no clock", -round(time.time() * 1000) + 5000)]
        for name, step in steps:
            bench.kill("a")
            bench.clocks["a"].shift(step)
            started = time.time()
            bench.start("a")
            bench.recover(started, 30, 1, 2)
            outage, note = bench.outage(started, fresh=True)
            rows.append(Row("F9", BY_HOME_AGENT, 10, outage, f"router restarts, {name}: {note}"))
    return rows


def f9_home_agent_hour(bench: Bench) -> list[Row]:
    """The home agent's clock is set by an hour while it runs; traffic goes on past renewals."""
    return _home_agent_clock(bench, _STEPS[:2], restart=False)


def f9_home_agent_decade(bench: Bench) -> list[Row]:
    """The home agent's clock is set by ten years while it runs; traffic goes on past renewals."""
    return _home_agent_clock(bench, _STEPS[2:], restart=False)


def f9_restart_hour(bench: Bench) -> list[Row]:
    """The home agent restarts and its clock is an hour off; traffic goes on past renewals."""
    return _home_agent_clock(bench, _STEPS[:2], restart=True)


def f9_restart_decade(bench: Bench) -> list[Row]:
    """The home agent restarts and its clock is ten years off; traffic goes on past renewals."""
    return _home_agent_clock(bench, _STEPS[2:], restart=True)


def _home_agent_clock(bench: Bench, steps: tuple[tuple[str, int], ...], restart: bool) -> list[Row]:
    rows = []
    bench.config = {"lifetime": _SHORT_LIFETIME_S}
    with bench.traffic(HQ, A.host):
        bench.paths.update()
        at = 0
        for name, step in steps:
            at += step
            if restart:
                bench.kill("ha")
            bench.clocks["ha"].shift(at)
            since = time.time()
            if restart:
                bench.start("ha")
            bench.rest(_RENEWALS_S)
            bench.paths.update()
            asked = [packet for packet in bench.paths.requests("a") if packet.time > since]
            outage, note = bench.outage(since, fresh=restart)
            what = "home agent restarts" if restart else "home agent's clock is set"
            note = f"{what}, {name}: {note}; {len(asked)} requests"
            # No Request, and the clock would not have mattered.
            rows.append(Row("F9", BY_HOME_AGENT, 10, outage if asked else None, note))
    return rows


def f10_peer(bench: Bench) -> list[Row]:
    """C is killed and starts again."""
    with bench.traffic():
        bench.kill("c")
        bench.rest(bench.random.random() * 3)
        started = time.time()
        bench.start("c")
        returned, why = bench.back_to_direct(started, 60)
        bench.rest(_CALM_S)
        outage, note = bench.outage(started, fresh=True)
    return [
        Row("F10", BY_HOME_AGENT, 10, outage, f"after the start; {note}"),
        Row("F10", DIRECT, 30, returned, why),
    ]


def f11_restart(bench: Bench) -> list[Row]:
    """Both routers are killed and start again at the same instant."""
    with bench.traffic():
        bench.kill("a", "c")
        bench.rest(1)
        started = time.time()
        for node in ("a", "c"):
            bench.lab.start_router(node)
        return _at_once(bench, started, "both restart")


def f11_move(bench: Bench) -> list[Row]:
    """Both routers get another address at the same instant."""
    with bench.traffic():
        started = time.time()
        bench.move_a(layouts.A_MOVED, layouts.A_MOVED_GATEWAY)
        bench.move_c(layouts.C_MOVED)
        return _at_once(bench, started, "both move")


def _at_once(bench: Bench, since: float, name: str) -> list[Row]:
    returned, why = bench.back_to_direct(since + 0.1, 90)
    bench.rest(2 * _CALM_S)
    outage, note = bench.outage(since, fresh=True)
    if returned is not None and bench.all_direct(since) is None:
        returned, why = None, f"lasting split: {bench.reasons()}"
    return [
        Row("F11", BY_HOME_AGENT, 60, outage, f"{name}: {note}"),
        Row("F11", DIRECT, 60, returned, f"{name}: {why}"),
    ]


OUTAGE_MINUTES = 10.0


def f13_home_agent_away(bench: Bench) -> list[Row]:
    """The home agent is away for ten minutes: what goes on, for how long, and how it comes back."""
    # A registration is renewed each 150 s: what is left of it when the fault comes is any phase.
    with bench.traffic(phase_s=150):
        left = min(
            bench.peer(node, other).get("registration_left_s") or 0
            for node, other in ((A.node, C), (C.node, A))
        )
        killed = time.time()
        bench.kill("ha")
        bench.rest(60 * OUTAGE_MINUTES)
        lived = min(_last(bench.arrivals(end), killed) for end in bench.ends) - killed
        started = time.time()
        bench.start("ha")
        bench.recover(started, 90, 1, _CALM_S)
        outage, note = bench.outage(started, fresh=True)
        back, why = bench.back_to_direct(started, 60)
        bench.paths.update()
        asked = {
            link: [p.time for p in bench.paths.requests(link) if killed < p.time < started]
            for link in ("a", "c")
        }
    apart = min(b - a for times in asked.values() for a, b in pairwise(times))
    most = max(len(times) for times in asked.values())
    note = (
        f"after the return; {note}; direct traffic went on for {lived:.0f} s, registrations had"
        f" {left} s left; {most} requests of a router, at least {apart:.2f} s apart; direct again"
        f" {why if back is None else f'after {back:.1f} s'}"
    )
    # A doubling wait of at most 32 s, beside the first seconds.
    backed_off = most <= 60 * OUTAGE_MINUTES / 32 + 30
    held = lived >= left - 3 and apart >= 0.95 and backed_off
    return [
        Row("F13", BY_HOME_AGENT, 60, outage if held else None, note),
        Row("F13", "survival", 420, lived, "how long direct traffic went on without it"),
    ]


def _last(times: list[float], default: float) -> float:
    return times[-1] if times else default


CUTS = 100
_BOOTED_CUTS = 5


def f14_power_cut(bench: Bench) -> list[Row]:
    """Power is cut at 100 points of replacing router.json (write new, sync, rename). The program
    reads what is left at each point, and boots and registers at five of them."""
    with bench.built():
        bench.start("ha")
        path = bench.lab.files.router_config(A.node)
        old = path.read_text()
        new = json.dumps({**json.loads(old), "lifetime": 200}, indent=2) + "\n"
        refused = []
        for point in range(CUTS):
            _cut_write(bench, old, new, point)
            done = _check(bench)
            if done.returncode:
                refused.append(f"{point}: {(done.stderr or done.stdout).strip()[-80:]}")
        worst, booted = 0.0, {200: 0, json.loads(old)["lifetime"]: 0}
        for number in range(_BOOTED_CUTS):
            point = [0, CUTS // 2, CUTS - 3, CUTS - 2, CUTS - 1][number]
            _cut_write(bench, old, new, point)
            before = len(_requests(bench))
            began = time.monotonic()
            bench.start("a")
            worst = max(worst, time.monotonic() - began)
            booted[_asked_lifetime(bench, before)] += 1
            bench.kill("a")
    note = f"until registered, worst of {_BOOTED_CUTS} boots; {CUTS - len(refused)} of {CUTS} cuts"
    note += f" leave a good file; lifetimes of the boots {booted}; {refused[:3] or ''}"
    held = not refused and all(booted.values())
    return [Row("F14", BY_HOME_AGENT, 10, worst if held else None, note)]


def _asked_lifetime(bench: Bench, before: int) -> int:
    """Return the lifetime that A's last Request asked for, by the capture."""
    if not bench.until(lambda: len(_requests(bench)) > before, 2):
        raise system.LabError("no Request of A was captured")
    return int.from_bytes(_requests(bench)[-1].message()[2:4], "big")


def _requests(bench: Bench) -> list[Packet]:
    bench.paths.update()
    return bench.paths.requests(A.node)


def _cut_write(bench: Bench, old: str, new: str, point: int) -> None:
    """Leave on the disk what a power cut at `point` may leave: the draft in any length before it is
    synced, the rename done or not. The last point is after the rename, the one before it before."""
    path = bench.lab.files.router_config(A.node)
    draft = path.with_name(path.name + ".new")
    write_atomically(path, new if point == CUTS - 1 else old)
    draft.unlink(missing_ok=True)
    if point != CUTS - 1:
        draft.write_text(new[: len(new) * point // (CUTS - 2)])


def _check(bench: Bench) -> subprocess.CompletedProcess[str]:
    config = str(bench.lab.files.router_config(A.node))
    command = [system.micropython(), str(system.firmware()), "--config", config, "check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)
