"""How rate, route changes and lookups grow with tunnels and prefixes.

One router between h1 and a counter in r2: `plane.py` with its table full, small packets to
addresses all over it. Beyond what a router's process takes, the kernel plane's maps are filled
from outside, with the same layouts, to see the lookup alone.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import spread
from bench.figures import quantile, search_rate
from bench.measure import Counter, Generator
from bench.topology import Net
from haaro.dataplane import base, kernel_maps
from haaro.wire.ipv4 import address
from haaro_host.lab import lab, processes, system
from haaro_host.lab.system import LabError

# (direct tunnels, prefixes) of a router's own process, then of maps filled from outside.
POINTS = ((1, 1), (1, 100), (64, 64), (64, 192), (64, 900))
FILLED = ((1, 1), (1, 1000), (1, 10000), (100, 10000), (1000, 10000))
BEYOND = ((64, 1000), (64, 10000), (100, 100))
# /24s that datagrams go to, whatever the table has: of a process' table, of a filled one.
_NETWORKS = 900
_MANY_NETWORKS = 10000
_FIRST = "10.128.0.10"
_STEP = "256"
_PORT = 434
_CHANGES = 5
_HEAP_PACKETS = 2000
_ANSWER_S = 30.0
_SLOTS = 1200
# More than 64 peers with two prefixes and a home address each: no router's core gets there.
_PRODUCT_PREFIXES = 192
_LARGE_HEAP = "2m"


@dataclass(frozen=True)
class Pace:
    """How long each trial lasts, and how many steps a search has."""

    seconds: float
    steps: int


class Refused(LabError):
    """The router's process could not do it: it has not the memory."""


class Plane:
    """`plane.py` in r1; a context. `refused` is why it could not be filled, or None."""

    def __init__(
        self, net: Net, firmware: Path, config: dict[str, Any], heap: str | None = None
    ) -> None:
        product = lab.HEAP if config["dataplane"] == "userspace" else lab.KERNEL_PLANE_HEAP
        self.heap = heap = heap or product
        program = str(Path(__file__).with_name("plane.py"))
        command = [system.micropython(), "-X", f"heapsize={heap}", program]
        self._process = subprocess.Popen(
            net.inside("r1", ["env", f"MICROPYPATH={firmware}:{Path(program).parent}", *command]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=processes.die_with_the_parent,
        )
        config = {"socket": str(net.run / "r1.sock"), **config}
        self._process.stdin.write(json.dumps(config).encode() + b"\n")
        self._process.stdin.flush()
        self.refused: str | None = None

    def __enter__(self) -> Plane:
        with suppress(Refused):
            self.refused = self._read().get("refused")
        return self

    def __exit__(self, *_: object) -> None:
        if self.refused is None and self._process.poll() is None:
            with suppress(LabError):
                self.ask("stop")
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ask(self, word: str) -> dict[str, Any]:
        """One word, one answer. Raises LabError."""
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._read()
        if "refused" in answer:
            self.refused = answer["refused"]
            raise Refused(f"plane.py, {word}: {self.refused}")
        return answer

    def _read(self) -> dict[str, Any]:
        ready, _, _ = select.select([self._process.stdout], [], [], _ANSWER_S)
        line = self._process.stdout.readline() if ready else b""
        try:
            return json.loads(line)
        except ValueError:
            # What ends in a traceback ends by itself; the rest of it is wanted.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(3)
            self._process.kill()
            rest = (line + self._process.stdout.read()).decode(errors="replace")
            if "MemoryError" in rest:
                self.refused = "MemoryError"
                raise Refused("plane.py: MemoryError") from None
            raise LabError(f"plane.py: {rest[-600:]}") from None


def run(
    net: Net, build: Path, dataplane: str, point: tuple[int, int], pace: Pace
) -> dict[str, Any]:
    """One point of one plane, from a router's own process."""
    found: dict[str, Any] = {"plane": dataplane, "tunnels": point[0], "prefixes": point[1]}
    _accept_all(net)
    if point[1] <= _PRODUCT_PREFIXES:
        found.update(_of_a_process(net, build, dataplane, point, pace, None))
        if found.get("refused") != "MemoryError":
            return found
        found["refused_with"] = found.pop("heap")
        del found["refused"]
    return {**found, **_of_a_process(net, build, dataplane, point, pace, _LARGE_HEAP)}


def _of_a_process(
    net: Net, build: Path, dataplane: str, point: tuple[int, int], pace: Pace, heap: str | None
) -> dict[str, Any]:
    tunnels, prefixes = point
    found: dict[str, Any] = {}
    config = {
        "tunnels": tunnels,
        "prefixes": prefixes,
        "networks": _NETWORKS,
        "dataplane": dataplane,
    }
    with Plane(net, system.firmware().parent, config, heap) as plane:
        found["heap"] = plane.heap
        if plane.refused:
            return {**found, "refused": plane.refused}
        try:
            found.update(_changes(plane))
            found["find_ns"] = quantile([plane.ask("find")["ns"] for _ in range(5)], 0.5)
            found.update(_rates(net, build, _NETWORKS, pace))
            if dataplane == "userspace":
                found["heap_octets_per_packet"] = _heap(net, build, plane)
            status = plane.ask("status")
            if status["plane"] != dataplane:
                raise LabError(f"the {dataplane} plane is not in use: {status['why']}")
            found["table_omitted"] = status["counters"]["table_omitted"]
            found["entries"] = status["entries"]
            found["heap_free"] = status["free"]
        except Refused:
            return {"heap": plane.heap, "refused": plane.refused}
    return found


def run_filled(net: Net, build: Path, point: tuple[int, int], pace: Pace) -> dict[str, Any]:
    """The kernel plane's programs with maps that are filled from outside."""
    tunnels, prefixes = point
    _accept_all(net)
    config = {"tunnels": 1, "prefixes": 1, "networks": _MANY_NETWORKS, "dataplane": "kernel"}
    with Plane(net, _larger_firmware(build), config) as plane:
        status = plane.ask("status")
        if status["plane"] != "kernel":
            raise LabError(f"the kernel plane is not in use: {status['why']}")
        took = _fill(net, status, tunnels, prefixes)
        found = _rates(net, build, _MANY_NETWORKS, pace)
    return {"plane": "kernel maps, filled from outside", "tunnels": tunnels, "prefixes": prefixes,
            "swap_ms": took * 1000, **found}  # fmt: skip


def home_agent(count: int) -> dict[str, Any]:
    """CPU milliseconds of a registration at a home agent with `count` routers, all of whom register
    within seconds: with an empty disk, and after a restart with that of before.
    """
    program = (
        "import json, sys; from tests.bench import home_agent_scale as scale; "
        "print(json.dumps(scale.measure(int(sys.argv[1]), False, False)))"
    )
    text = subprocess.run(
        [sys.executable, "-c", program, str(count)],
        capture_output=True, text=True, check=False, cwd=system.repository(), timeout=300,
    )  # fmt: skip
    if text.returncode:
        raise LabError(f"home agent with {count} routers: {text.stderr[-300:]}")
    return {"routers": count, **json.loads(text.stdout)}


def _accept_all(net: Net) -> None:
    net.ip("r2", "route add local 10.98.0.0/16 dev lo")
    net.sh("r2", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit")


def _changes(plane: Plane) -> dict[str, float]:
    swaps = [plane.ask("swap")["us"] for _ in range(_CHANGES)]
    moves = [plane.ask("tunnel")["us"] for _ in range(_CHANGES + 1)]
    return {"swap_ms": quantile(swaps, 0.5) / 1000, "move_ms": quantile(moves, 0.5) / 1000}


def _rates(net: Net, build: Path, networks: int, pace: Pace) -> dict[str, Any]:
    with Counter(net, build, "r2", _PORT) as counter:
        generator = Generator(net, build, counter, (str(networks), _STEP))
        # The first packet to each address asks for neighbours and makes routes.
        generator.trial(20000, 1.0, _FIRST)
        rate = search_rate(lambda asked: generator.trial(asked, pace.seconds, _FIRST), pace.steps)
    return {"kpps": rate.best / 1000, "generator": rate.generator, "blast_kpps": rate.blast / 1000}


def _heap(net: Net, build: Path, plane: Plane) -> float | None:
    """Octets of heap for each packet; None if collecting came between."""
    with Counter(net, build, "r2", _PORT) as counter:
        generator = Generator(net, build, counter, (str(_NETWORKS), _STEP))
        plane.ask("status")
        first, second = plane.ask("heap"), plane.ask("heap")
        for _ in range(3):
            plane.ask("status")
            one = plane.ask("heap")
            generator.trial(_HEAP_PACKETS * 4, 1.0, _FIRST)
            two = plane.ask("heap")
            packets = two["packets"] - one["packets"]
            octets = two["heap"] - one["heap"] - (second["heap"] - first["heap"])
            if packets > _HEAP_PACKETS and octets >= 0:
                return octets / packets
    return None


def _larger_firmware(build: Path) -> Path:
    """A copy of the firmware whose programs have room for more tunnels than a router has."""
    copy = build / "firmware"
    shutil.rmtree(copy, ignore_errors=True)
    source = system.firmware().parent
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.o"))
    machine = system.run(["uname", "-m"]).strip()
    target = {"little": "bpfel", "big": "bpfeb"}[sys.byteorder]
    system.run(
        ["clang", "-target", target, "-O2", "-g", "-mcpu=v3", f"-DTUNNELS={_SLOTS}",
         f"-I/usr/include/{machine}-linux-gnu", "-c", str(copy / "kernel_plane/haaro.bpf.c"),
         "-o", str(copy / f"kernel_plane/{sys.byteorder}.o")]
    )  # fmt: skip
    return copy


def _fill(net: Net, status: dict[str, Any], tunnels: int, prefixes: int) -> float:
    """Write tunnels and prefixes into the maps in one batch; seconds that took."""
    first = 2 * base.MAX_TUNNELS  # slots that no process uses
    link = int(net.sh("r1", "cat /sys/class/net/wan/ifindex"))
    via, local = address("10.99.0.2"), address("10.99.0.1")
    path = net.run / "fill.bpf"
    (table,) = Path(status["tables"]).glob("table_*")  # the one there is, just after the start
    with path.open("w") as file:
        for number in range(tunnels):
            remote = spread.remote(number)
            value = kernel_maps.tunnel(local, remote, _PORT, link, via, 1468, 1, True)
            key = (first + number).to_bytes(4, sys.byteorder)
            kernel_maps.update(file, f"{status['maps']}/tunnels", key, value)
        for number in range(prefixes):
            net_of, plen = spread.prefix(number, prefixes, _MANY_NETWORKS)
            key = plen.to_bytes(4, sys.byteorder) + net_of
            slot = (first + number % tunnels).to_bytes(2, sys.byteorder)
            kernel_maps.update(file, table, key, slot + b"\xff\xff\xff\xff\0\0")
    begun = time.monotonic()
    net.run_in("r1", ["bpftool", "batch", "file", str(path)], 60)
    return time.monotonic() - begun
