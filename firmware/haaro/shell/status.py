"""Builds the JSON answer to `status`: what the core says, what the plane counted, what is left."""

import gc
import sys
import time

SCHEMA = "haaro.router.status/1"
_NOTICE = "user traffic is not encrypted: RFC 6521 authenticates signalling only"


def build_status(loop, now: int) -> dict:
    """Return the status of the router that `loop` runs; fingerprints in place of secrets.

    "state" is up (registered with the home agent and no cached peer in need of fall back), degraded
    or down (not registered). Counters are cumulative since start.
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
    answer["uptime_s"] = now // 1000
    answer["micropython"] = sys.version
    answer["encrypted"] = False
    answer["notice"] = _NOTICE
    answer["data_plane"] = {
        "counters": loop.plane.counters(),
        "own_loss": loop.plane.own_loss(),
    }
    answer["heap"] = heap
    return answer
