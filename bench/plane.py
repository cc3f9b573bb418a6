"""Runs in MicroPython: one router's data plane with as many tunnels and prefixes as it is told.

    micropython -X heapsize=384k plane.py < lines

The first line is JSON: {"tunnels", "prefixes", "networks", "dataplane", "socket"}, see spread.py.
What a router imports is imported, so that the heap is that of the product; only the protocol does
not run. Then one JSON line for each word on stdin:

    heap      octets in use, garbage included, and packets handled: nothing else is allocated
    swap      microseconds that a change of the routes took until it is in force
    tunnel    the same for one tunnel that moves to another end
    find      nanoseconds of a lookup in the table in use, and the entries it has
    status    counters, own loss, where the kernel plane's maps are
    stop
"""

import gc
import json
import select
import sys
import time

from haaro.dataplane.pools import make_pools

pools = make_pools()
config = json.loads(sys.stdin.readline())
# Like the pools before anything that leaves only small holes in the heap.
routes: list = [(bytes(4), 0, 0, -1)] * (config["prefixes"] + 1)
sources: list = [None] * config["prefixes"]

# As main.py does: or the compiler's garbage leaves no hole of more than a few KB.
gc.threshold(8192)

from spread import host, remote  # noqa: E402
from spread import prefix as prefix_of  # noqa: E402

import haaro.shell.loop  # noqa: E402,F401  its heap is the product's
from haaro.dataplane.chosen import leaves  # noqa: E402
from haaro.platform.linux import LinuxMachine  # noqa: E402
from haaro.wire.ipv4 import address, prefix  # noqa: E402

LOCAL = "10.99.0.1"
PORT = 434
MTU = 1468
LOOKUPS = 2000


class Settings:
    """What the machine asks of a router's settings."""


class Plane:
    """The machine with its tables."""

    def __init__(self, config: dict) -> None:
        settings = Settings()
        settings.home_address = address("192.0.2.129")
        settings.networks = [prefix("10.1.0.0/24")]
        settings.home_prefixes = [prefix("0.0.0.0/0")]
        settings.home_agent = address("192.0.2.1")
        options = {
            "internet": "ha",
            "lan_ipv6": "block",
            "tunnel_interface": "haaro0",
            "uplinks": [{"interface": "wan"}],
            "dataplane": config["dataplane"],
            "fast_lan": None,
            "socket": config["socket"],
        }
        self.tunnels = config["tunnels"]
        self.prefixes = config["prefixes"]
        self.networks = config["networks"]
        self.machine = LinuxMachine(settings, options, pools)
        self.plane = self.machine.plane
        self.moved = 0

    def fill(self) -> None:
        """Make the tunnels and put the routes in force. Raises MemoryError."""
        local = address(LOCAL)
        self.plane.set_tunnel(0, 0, local, address("10.97.0.1"), PORT, MTU)
        for i in range(self.tunnels):
            self.plane.set_tunnel(1 + i, 0, local, remote(i), PORT, MTU)
        self.swap()

    def swap(self) -> None:
        """Forward by all prefixes, spread over the direct tunnels."""
        for i in range(self.prefixes):
            net = prefix_of(i, self.prefixes, self.networks)
            tunnel = (1 + i % self.tunnels,)
            routes[i + 1] = net + tunnel + (-1,)
            sources[i] = net + tunnel
        begun = time.ticks_us()
        self.plane.swap(routes, sources)
        self.plane.commit()
        self.took = time.ticks_diff(time.ticks_us(), begun)

    def answer(self, word: str) -> dict:
        """Carry out one word."""
        plane = self.plane
        if word == "heap":
            return {"heap": gc.mem_alloc(), "packets": plane._handled}
        gc.collect()
        if word == "swap":
            self.swap()
            return {"us": self.took}
        if word == "tunnel":
            self.moved = 1 - self.moved
            begun = time.ticks_us()
            plane.set_tunnel(1, 0, address(LOCAL), remote(self.moved * 5000), PORT, MTU)
            plane.commit()
            return {"us": time.ticks_diff(time.ticks_us(), begun)}
        if word == "find":
            return self.find()
        kernel = self.machine.plane_kind == "kernel"
        return {
            "plane": self.machine.plane_kind,
            "why": self.machine.plane_why,
            "counters": plane.counters(),
            "own_loss": plane.own_loss(),
            "entries": plane._entries,
            "free": gc.mem_free(),
            "maps": plane.door.maps if kernel else None,
            "tables": plane.door.tables if kernel else None,
            "first_slot": plane._slot(0) if kernel else None,
        }

    def find(self) -> dict:
        """Time lookups of addresses all over the table."""
        plane = self.plane
        wanted = [host(i) for i in range(0, self.networks, max(1, self.networks // 64))]
        rounds = LOOKUPS // len(wanted)
        find = leaves.find
        begun = time.ticks_us()
        for _ in range(rounds):
            for one in wanted:
                find(plane._table, plane._entries, one, 0)
        took = time.ticks_diff(time.ticks_us(), begun)
        return {"ns": took * 1000 // (rounds * len(wanted)), "entries": plane._entries}


def main() -> None:
    """Start, fill, and answer words until `stop`."""
    plane = Plane(config)
    machine = plane.machine
    poll = select.poll()
    poll.register(sys.stdin, select.POLLIN)
    machine.start(poll)
    while machine.next_uplink_change() is None:
        for obj, _ in poll.ipoll(1000):
            machine.uplink_event(obj)
    gc.collect()
    gc.threshold(-1)
    try:
        plane.fill()
        gc.collect()
        print(json.dumps({"ready": True, "plane": machine.plane_kind, "why": machine.plane_why}))
    except (MemoryError, IndexError) as error:
        print(json.dumps({"refused": type(error).__name__}))
        # Without memory it could not even take everything back: the namespaces go anyway.
        return
    forward = machine.plane
    while True:
        for obj, event in poll.ipoll(1000):
            if forward.handle(obj, event):
                continue
            if obj is not sys.stdin:
                machine.uplink_event(obj)
                continue
            word = sys.stdin.readline().strip()
            if word in ("", "stop"):
                machine.stop()
                print(json.dumps({"stopped": True}))
                return
            try:
                answer = plane.answer(word)
            except MemoryError:
                answer = {"refused": "MemoryError"}
            print(json.dumps(answer))
        if forward.attention:
            forward.wanted_any = False


main()
