"""Builds the JSON answer to `status`: what the core says, what the plane counted, what is left."""

import gc
import sys
import time

from haaro.wire.ipv4 import text

SCHEMA = "haaro.router.status/1"
_NOTICE = "user traffic is not encrypted: RFC 6521 authenticates signalling only"


def build_status(loop, now: int) -> dict:
    """Return the status of the router that `loop` runs; fingerprints in place of secrets.

    "state" is up (registered with the home agent, every direct tunnel carries traffic), degraded (a
    direct tunnel exists but its traffic goes by the home agent) or down (not registered).
    Counters are cumulative since start.
    """
    gc.collect()
    started = time.ticks_us()  # type: ignore[attr-defined]
    gc.collect()
    collect_us = time.ticks_diff(time.ticks_us(), started)  # type: ignore[attr-defined]
    heap = dict(loop.heap)
    heap["steady"] = gc.mem_alloc()  # type: ignore[attr-defined]
    heap["free"] = gc.mem_free()  # type: ignore[attr-defined]
    heap["collect_us"] = collect_us
    heap["state"] = heap["steady"] - heap["imports"] - heap["pools"] - heap["start"]
    answer = loop.router.status(now)
    answer["schema"] = SCHEMA
    answer["state"] = _state(answer)
    answer["uptime_s"] = now // 1000
    answer["micropython"] = sys.version
    answer["notice"] = _NOTICE
    if loop.updater:
        answer["program"] = loop.updater.status()
    answer["warnings"] = loop.machine.warnings
    for uplink in answer["uplinks"]:
        configured = loop.options["uplinks"][uplink["index"]]
        uplink["interface"] = configured["interface"]
        modem = loop.machine.modems.get(uplink["index"])
        if modem:
            uplink["modem"] = modem.status()
    describe = getattr(loop.machine, "describe", None)
    if describe:
        describe(answer)
    answer["routes"] = [_route(*route) for route in loop.router.forwarding_table()[0]]
    answer["data_plane"] = _data_plane(loop)
    answer["heap"] = heap
    return answer


def _data_plane(loop):
    answer = {
        "plane": loop.machine.plane_kind,
        "why": loop.machine.plane_why,
        "counters": loop.plane.counters(),
        "own_loss": loop.plane.own_loss(),
        "tunnels": [_tunnel(loop.plane, tunnel.id) for tunnel in loop.router.tunnels.all()],
    }
    if loop.machine.plane_kind == "kernel":
        answer["calls"] = loop.plane.door.status()
        lans = loop.plane.lans
        answer["fast_lan"] = {"interfaces": lans.names, "why": lans.why}
    return answer


def _tunnel(plane, ident: int) -> dict:
    rx, tx = plane.user_rx(ident), plane.user_tx(ident)
    return {"id": ident, "rx_packets": rx, "tx_packets": tx, "mtu": plane.mtu(ident)}


def _state(answer: dict) -> str:
    if not answer["registration"]["registered"]:
        return "down"
    lost = [p for p in answer["peers"] if p["tunnel"] is not None and p["path"] != "direct"]
    return "degraded" if lost else "up"


def _route(prefix: bytes, plen: int, tunnel: int, hint: int) -> dict:
    path = "direct" if tunnel > 0 else "ha" if tunnel == 0 else "lan"
    return {"prefix": "%s/%d" % (text(prefix), plen), "path": path, "tunnel": tunnel}
