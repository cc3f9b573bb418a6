"""Measures the home agent's core with many routers that register within seconds of its start.

Prints the CPU time of all registrations, of one reply (median, 99 of 100, most) and the memory kept
for each router. Run: python -m tests.bench.home_agent_scale [--routers N] [--json].
"""

import argparse
import gc
import json
import random
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

from haaro.wire.ipv4 import address
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.config import Config
from haaro_host.home_agent.core import HomeAgent
from haaro_host.home_agent.store import Store
from tests.host.home_agent_helpers import HA, KEY, NOW, build_config, build_request

_WINDOW_MS = 10_000  # they all register within this


def hoa(number: int) -> bytes:
    """Return the home address of router `number`."""
    return address(f"172.16.{number // 256}.{number % 256}")


def config(count: int, same_priority: bool) -> Config:
    """Return a configuration of `count` routers with a network each."""

    def change(document: dict) -> None:
        document["home_agent"]["home_addresses"] = ["172.16.0.0/16"]
        document["router"] = [
            {
                "name": f"R{n}",
                "home_address": f"172.16.{n // 256}.{n % 256}",
                "prefixes": [f"10.{n // 256}.{n % 256}.0/24"],
                "realm": f"r{n}.branch.example",
                "priority": 1 if same_priority else n,
            }
            for n in range(1, count + 1)
        ]

    def change_secrets(secrets: dict) -> None:
        secrets["router"] = [
            {"name": f"R{n}", "spi": 256, "algorithm": "hmac-sha256", "key": KEY.hex()}
            for n in range(1, count + 1)
        ]

    return build_config(change, change_secrets)


def requests(count: int, start: int, second: int = 0) -> list[tuple[int, bytes, bytes]]:
    """Return (time, care-of address, request) of every router, in order of time.

    second: octet of its network; with one they are routers without RFC 6521, in no list.
    """
    rng = random.Random(1)
    found = []
    for n in range(1, count + 1):
        now = start + rng.randrange(_WINDOW_MS)
        coa = address(f"198.51.{n // 256}.{n % 256}")
        data = build_request(
            identification=stamp(now).to_bytes(8, "big"),
            hoa=hoa(n),
            coa=coa,
            networks=[f"10.{second + n // 256}.{n % 256}.0/24"],
            capability=None if second else {},
        )
        found.append((now, coa, bytes(data)))
    return sorted(found)


def register(agent: HomeAgent, wanted: list[tuple[int, bytes, bytes]]) -> list[float]:
    """Give every request to the home agent; return the CPU seconds of each reply."""
    took = []
    # With an empty disk it refuses what could be from an earlier life: it started a while ago.
    agent.handle_timer(wanted[0][0] - _WINDOW_MS)
    for now, coa, data in wanted:
        before = time.process_time()
        agent.receive_datagram(now, coa, 434, HA, 434, data)
        while agent.next_event() is not None:
            pass
        reply = agent.poll_transmit()
        took.append(time.process_time() - before)
        assert reply is not None and reply.payload[1] == 0, agent.counters
    return took


def figures(took: list[float]) -> dict[str, float]:
    """Return total seconds, and milliseconds of one reply."""
    ordered = sorted(took)
    return {
        "total_s": round(sum(took), 2),
        "median_ms": round(statistics.median(took) * 1000, 2),
        "p99_ms": round(ordered[len(ordered) * 99 // 100] * 1000, 2),
        "most_ms": round(ordered[-1] * 1000, 2),
    }


def measure(count: int, same_priority: bool, memory: bool = True) -> dict[str, object]:
    """Start with an empty disk, let all register, restart with that disk, and again."""
    chosen = config(count, same_priority)
    wanted = [requests(count, NOW + start) for start in (10_000, 160_000)]
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory) / "state.db")
        store = Store(path)
        first = register(HomeAgent(chosen, store, bytes), wanted[0])
        store.close()
        store = Store(path)
        again = register(HomeAgent(chosen, store, bytes), wanted[1])
        store.close()
    result: dict[str, object] = {"empty": figures(first), "restart": figures(again)}
    if memory:
        result["octets_a_router"] = octets_a_router(chosen, count)
    return result


def octets_a_router(chosen: Config, count: int) -> int:
    """Return what the home agent keeps for each registered router, beside its configuration."""
    wanted = requests(count, NOW + 10_000)
    tracemalloc.start()
    try:
        agent = HomeAgent(chosen, Store(":memory:"), bytes)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        register(agent, wanted)
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - before) // count
    finally:
        tracemalloc.stop()


def main() -> None:
    """Measure one and many priorities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routers", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = {
        name: measure(options.routers, same)
        for name, same in (("a priority each", False), ("one priority", True))
    }
    if options.json:
        print(json.dumps(found))
        return
    for name, result in found.items():
        print(f"{options.routers} routers, {name}:")
        for key, value in result.items():
            print(f"  {key}: {value}")


if __name__ == "__main__":
    main()
