"""Faults F7 to F14 but F12: home agent and routers killed and restarted, clocks, power cuts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from haaro.shell import config as router_config
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.faults import (
    BY_HOME_AGENT,
    COA_A2,
    COA_C2,
    DIRECT,
    Outcome,
    Pair,
    Row,
    variant,
    worst,
)
from haaro_host.simulate.network import HOME_AGENT
from haaro_host.simulate.world import HOME, World

_HA_DOWN_S = 5
_BOOT_S = 3  # from power off to the router's first step
_HOUR_MS = 3_600_000
_DECADE_MS = 3652 * 24 * _HOUR_MS
_STEPS = (("+1 h", _HOUR_MS), ("-1 h", -_HOUR_MS), ("+10 y", _DECADE_MS), ("-10 y", -_DECADE_MS))


def f7_home_agent_restart(seed: int) -> list[Row]:
    """The home agent is killed and starts 5 s later from its disk."""
    with Pair(seed, disk=True) as pair:
        pair.mark()
        _restart_home_agent(pair.world, lost_disk=False)
        pair.run(60)
        outage, note = pair.gap()
    # "Uninterrupted": two probes in a row lost would be a gap of 0.3 s.
    direct = Row("F7", DIRECT, 0.25, outage, f"no two probes in a row lost; {note}")
    with Pair(seed, HOME, disk=True) as pair:
        _restart_home_agent(pair.world, lost_disk=False)
        pair.mark(fresh=True)
        pair.run(60)
        outage, note = pair.gap()
    return [direct, Row("F7", BY_HOME_AGENT, 15, outage, f"after the restart; {note}")]


def _restart_home_agent(world: World, lost_disk: bool) -> None:
    world.home_agent.crash()
    world.run(_HA_DOWN_S)
    world.boot_home_agent(lost_disk)


def f8_disk_lost(seed: int) -> list[Row]:
    """The home agent is killed and starts 5 s later with an empty disk; no replay is accepted."""
    with Pair(seed, HOME, disk=True) as pair:
        _restart_home_agent(pair.world, lost_disk=True)
        pair.mark(fresh=True)
        pair.run(90)
        outage, note = pair.gap()
    replays, accepted = _replay(seed)
    note = f"after the restart; {note}; {replays} requests replayed, {accepted} accepted"
    return [Row("F8", BY_HOME_AGENT, 60, None if accepted else outage, note)]


def _replay(seed: int) -> tuple[int, int]:
    """Replay every request that was seen to the home agent that lost its disk: (sent, accepted)."""
    seen: list[Datagram] = []
    with Pair(seed, disk=True) as pair:
        world = pair.world
        world.network.observers.append(
            lambda d: seen.append(d) if d.kind == "request" and d.dst == HOME_AGENT else None
        )
        pair.run(1)
        for node in (pair.a, pair.c):  # the last request is as young as one can be
            node.router.registration.refresh(world.now)
            node.pump()
        pair.run(0.2)
        pair.a.crash()
        pair.c.crash()
        world.home_agent.crash()
        caught = list(seen)
        for wait in (0.1, 1, 5, 10):
            world.boot_home_agent(lost_disk=True)
            world.run(wait)
            for datagram in caught:
                world.network.inject(datagram.copy())
            world.run(1)
            accepted = world.home_agent.home_agent.counters["registration_accepted"]
            if accepted or world.home_agent.home_agent.bindings:
                return len(caught), accepted
            world.home_agent.crash()
        return 4 * len(caught), 0


def f9_clock_steps(seed: int) -> list[Row]:
    """Clocks are wrong by an hour or ten years: of the router at start, of the home agent."""
    router, agent, restarted = [], [], []
    for name, step in (*_STEPS, ("no clock", None)):
        with Pair(seed, HOME) as pair:
            true = pair.world.network.ntp_ms(pair.world.now)
            pair.a.crash()
            pair.mark(fresh=True)
            pair.a.boot(0 if step is None else true + step)
            pair.run(40)
            router.append(variant(f"router restarts, {name}", pair.gap()))
    for name, step in _STEPS:
        with Pair(seed, HOME, disk=True) as pair:
            pair.mark()
            pair.world.home_agent.step_clock(step)
            pair.run(320)  # past a renewal
            agent.append(variant(f"home agent's clock set, {name}", pair.gap()))
        with Pair(seed, HOME, disk=True) as pair:
            pair.world.home_agent.crash()
            pair.world.home_agent.offset_ms += step
            pair.world.boot_home_agent()
            pair.mark(fresh=True)
            pair.run(320)
            restarted.append(variant(f"home agent restarts at another time, {name}", pair.gap()))
    return [
        Row("F9", BY_HOME_AGENT, 10, *worst(router)),
        Row("F9", BY_HOME_AGENT, 10, *worst(agent)),
        Row("F9", BY_HOME_AGENT, 10, *worst(restarted)),
    ]


def f10_peer_reboot(seed: int) -> list[Row]:
    """The correspondent router reboots."""
    with Pair(seed) as pair:
        pair.c.crash()
        pair.run(pair.world.rng.random() * _BOOT_S)
        pair.mark(fresh=True)
        pair.c.boot()
        returned = pair.back_to_direct(120)
        pair.run(10)
        outage, note = pair.gap()
    return [
        Row("F10", BY_HOME_AGENT, 10, outage, f"after the boot; {note}"),
        Row("F10", DIRECT, 30, *returned),
    ]


def f11_at_once(seed: int) -> list[Row]:
    """Both routers reboot at the same instant; both move at the same instant."""
    gaps: list[Outcome] = []
    returns: list[Outcome] = []
    for name in ("both reboot", "both move"):
        with Pair(seed) as pair:
            if name == "both reboot":
                pair.a.crash()
                pair.c.crash()
                pair.run(_BOOT_S)
            pair.mark(fresh=True)
            if name == "both reboot":
                pair.a.boot()
                pair.c.boot()
            else:
                pair.a.attach(0, COA_A2)
                pair.c.attach(0, COA_C2)
            returns.append(variant(name, pair.back_to_direct(120)))
            pair.run(60)
            gaps.append(variant(name, pair.gap()))
            if not pair.all_direct():
                returns.append((None, f"{name}: lasting split: " + "; ".join(pair.reasons())))
    return [Row("F11", BY_HOME_AGENT, 60, *worst(gaps)), Row("F11", DIRECT, 60, *worst(returns))]


def f13_home_agent_hour(seed: int) -> list[Row]:
    """The home agent cannot be reached for an hour."""
    requests: dict[str, list[int]] = {"A": [], "C": []}
    with Pair(seed, disk=True) as pair:
        world = pair.world
        direct = list(pair.flows)
        home = world.both(HOME, "A")
        world.run(1)
        left = min(_left_s(pair, "A"), _left_s(pair, "C"))
        world.network.observers.append(
            lambda d: (
                requests[d.sender].append(d.time)
                if d.kind == "request" and d.dst == HOME_AGENT
                else None
            )
        )
        world.home_agent.crash()
        down = world.now
        world.run(3600)
        lived = min(flow.arrived_at for flow in direct) - down
        world.boot_home_agent()
        pair.flows = direct + home
        pair.mark(fresh=True)
        world.run(90)
        outage: float | None
        outage, note = pair.gap()
    gaps = [b - a for times in requests.values() for a, b in itertools.pairwise(times)]
    note = (
        f"after the return; {note}; direct traffic lived {lived / 1000:.0f} s of at least {left} s,"
        f" {max(len(times) for times in requests.values())} requests of a router,"
        f" at least {min(gaps) / 1000:.1f} s apart"
    )
    backed_off = all(len(times) <= 3600 // 32 + 60 for times in requests.values())
    if lived / 1000 < left - 2 or min(gaps) < 1000 or not backed_off:
        outage = None
    return [Row("F13", BY_HOME_AGENT, 60, outage, note)]


def _left_s(pair: Pair, name: str) -> int:
    """Return how long a router's registration with the other lasts, in seconds."""
    node = pair.world.routers[name]
    entry = node.peer(pair.c if node is pair.a else pair.a)
    return 0 if entry is None else entry["registration_left_s"] or 0


_POWER_CUTS = 100


def f14_power_cut(seed: int) -> list[Row]:
    """Power is cut at 100 points of a configuration's replacement: write new, sync, rename."""
    booted = {"old": 0, "new": 0}
    outcomes: list[Outcome] = []
    with TemporaryDirectory(prefix="haaro-simulate-") as name, Pair(seed, HOME) as pair:
        directory = Path(name)
        key = pair.a.settings.key.hex()
        old, new = (_config(pair.a.settings.lifetime, 25), _config(200, 20))
        secrets = {"version": 1, "mobile_home": [{"spi": 256, "algorithm": "hmac-sha256"}]}
        secrets["mobile_home"][0]["key"] = key  # type: ignore[index]
        (directory / "secrets.json").write_text(json.dumps(secrets))
        (directory / "secrets.json").chmod(0o600)
        path = directory / "router.json"
        for point in range(_POWER_CUTS):
            _cut_write(path, old, new, point)
            try:
                settings, _ = router_config.load(str(path))
            except router_config.ConfigError as error:
                return [Row("F14", BY_HOME_AGENT, 10, None, f"cut {point}: {error}")]
            booted["new" if settings.lifetime == 200 else "old"] += 1
            settings.name = pair.a.name
            pair.a.crash()
            pair.run(_BOOT_S)
            pair.a.settings = settings
            pair.mark(fresh=True)
            pair.a.boot()
            pair.run(8)
            outcomes.append(variant(f"cut {point}", pair.gap()))
    outage, note = worst(outcomes)
    note = (
        f"after the boot; {booted['old']} boots with the old, {booted['new']} with the new; {note}"
    )
    # As F10: a boot like any other.
    return [Row("F14", BY_HOME_AGENT, 10, outage, note)]


def _config(lifetime: int, keepalive_s: int) -> str:
    return json.dumps(
        {
            "version": 1,
            "name": "A",
            "home_address": "198.18.0.1",
            "home_agent": "192.0.2.1",
            "networks": ["10.0.1.0/24"],
            "lifetime": lifetime,
            "uplinks": [{"name": "wan", "driver": "linux_netdev", "interface": "wan"}],
            "secrets": "secrets.json",
            "keepalive": {"ha_s": keepalive_s},
        },
        indent=1,
    )


def _cut_write(path: Path, old: str, new: str, point: int) -> None:
    """Leave on the disk what a power cut at `point` of 0 to 99 may leave.

    The draft's octets reach the disk in any amount before it is synced; the rename is there whole
    or not at all. 98 is the cut between sync and rename, 99 the one after it.
    """
    path.write_text(old)
    draft = path.with_name(path.name + ".new")
    if point == _POWER_CUTS - 1:
        path.write_text(new)
        draft.unlink(missing_ok=True)
    else:
        draft.write_text(new[: len(new) * point // (_POWER_CUTS - 2)])
