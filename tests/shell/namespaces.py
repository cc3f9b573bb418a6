"""Network namespaces for the tests of the Linux shell: two hosts, two routers, one wire between.

    h1 10.1.0.10 -- 10.1.0.1 r1 10.99.0.1 -- 10.99.0.2 r2 10.2.0.1 -- 10.2.0.10 h2

Every namespace has the prefix `hdp-` and the process id in its name, and is deleted at the end.
"""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")
HOME_1, HOME_2 = "192.0.2.129", "192.0.2.130"

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2"
)


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


# The data planes that forwarding is tested on: "lan" passes by the kernel's forwarding.
PLANES = {
    "userspace": {"dataplane": "userspace"},
    "kernel": {"dataplane": "kernel", "fast_lan": []},
    "kernel-lan": {"dataplane": "kernel", "fast_lan": ["lan"]},
}
# As without a word in the configuration.
_AUTO = {"dataplane": "kernel"}


def why_no_kernel_plane() -> str | None:
    """Return why there is no kernel plane here, None if it has to work."""
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "bpf(2) is refused in a user namespace"
    for tool in ("bpftool", "tc"):
        if not shutil.which(tool):
            return f"{tool} is not installed"
    if not (ROOT / "firmware" / "kernel_plane" / f"{sys.byteorder}.o").exists():
        return "not built: make bpf"
    return None


class Net:
    """The four namespaces; `plane` names the data plane that the routers use."""

    def __init__(self, plane: str = "userspace") -> None:
        self.plane = plane
        # Pins outlive a router's process only where its mount namespace inherited them from.
        self.run = (
            Path(tempfile.mkdtemp(prefix="hdp-", dir="/run")) if plane != "userspace" else None
        )
        self.names = {n: f"hdp-{os.getpid()}-{n}" for n in ("h1", "r1", "r2", "h2")}

    def build(self) -> None:
        if self.run:
            (self.run / "bpf").mkdir()
            run("mount", "-t", "bpf", "bpf", str(self.run / "bpf"))
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self.wire("h1", "lan", "10.1.0.10", "r1", "lan", "10.1.0.1")
        self.wire("r1", "wan", "10.99.0.1", "r2", "wan", "10.99.0.2")
        self.wire("h2", "lan", "10.2.0.10", "r2", "lan", "10.2.0.1")
        for name, gateway in (
            ("h1", "10.1.0.1"),
            ("h2", "10.2.0.1"),
            ("r1", "10.99.0.2"),
            ("r2", "10.99.0.1"),
        ):
            self.ip(name, "route", "add", "default", "via", gateway)

    def wire(self, a, port_a, address_a, b, port_b, address_b):
        """Connect two namespaces: (name, interface, address) of both."""
        peer = ["peer", "name", port_b, "netns", self.names[b]]
        run("ip", "link", "add", port_a, "netns", self.names[a], "type", "veth", *peer)
        for name, port, address in ((a, port_a, address_a), (b, port_b, address_b)):
            self.ip(name, "address", "add", f"{address}/24", "dev", port)
            self.ip(name, "link", "set", port, "up")

    def ip(self, name: str, *command: str, check: bool = True) -> str:
        return run("ip", "-n", self.names[name], *command, check=check)

    def inside(self, name: str, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.names[name], *command]

    def python(self, name: str, program: str, *arguments: str) -> str:
        """Run a Python program inside; return what it prints."""
        return run(*self.inside(name, sys.executable, "-c", program, *arguments))

    def waiting(self, name: str) -> int:
        """Return how many packets wait to leave by the WAN of `name`."""
        shown = run("tc", "-n", self.names[name], "-s", "qdisc", "show", "dev", "wan", "root")
        return int(shown.split("backlog")[1].split()[1].rstrip("p"))

    def feed(self, name: str, program: str, lines: list[bytes], *arguments: str) -> None:
        """Run a Python program inside that reads hexadecimal lines from stdin."""
        subprocess.run(
            self.inside(name, sys.executable, "-c", program, *arguments),
            input="\n".join(line.hex() for line in lines) + "\n",
            text=True,
            check=True,
            timeout=60,
        )

    def remove(self) -> None:
        for name in self.names.values():
            run("ip", "netns", "del", name, check=False)
        if self.run:
            run("umount", str(self.run / "bpf"), check=False)
            shutil.rmtree(self.run, ignore_errors=True)

    def plane_config(self, name: str) -> dict:
        """Return what router `name` must be told to use the plane."""
        return {
            **PLANES.get(self.plane, _AUTO),
            **({"socket": f"{self.run}/{name}"} if self.run else {}),
        }


SNIFF = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)
s.bind((sys.argv[1], 0x800))
print("ready", flush=True)
while True:
    packet, (_, _, kind, *_) = s.recvfrom(65536)
    if kind != socket.PACKET_OUTGOING:
        print(packet.hex(), flush=True)
"""


class Sniffer:
    """The IPv4 packets that an interface receives, while in the context."""

    def __init__(self, net: Net, name: str, interface: str) -> None:
        self._process = subprocess.Popen(
            net.inside(name, sys.executable, "-c", SNIFF, interface), stdout=subprocess.PIPE
        )
        self._packets: list[bytes] = []

    def __enter__(self):
        assert self._process.stdout.readline() == b"ready\n"
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()

    def until(self, condition, seconds: float = 10) -> list[bytes]:
        """Return all packets so far once `condition(packets)` holds."""
        deadline = time.monotonic() + seconds
        while True:
            ready, _, _ = select.select([self._process.stdout], [], [], 0.05)
            if ready:
                self._rest += os.read(self._process.stdout.fileno(), 1 << 20)
                *lines, self._rest = self._rest.split(b"\n")
                self._packets += [bytes.fromhex(line.decode()) for line in lines]
            if condition(self._packets):
                return self._packets
            assert time.monotonic() < deadline, [packet.hex() for packet in self._packets]


class Node:
    """A MicroPython process of plane_node.py that answers one JSON line a word."""

    def __init__(self, net: Net, name: str, config: dict) -> None:
        script = ROOT / "tests" / "shell" / "plane_node.py"
        command = [MICROPYTHON, "-X", "heapsize=384k", str(script)]
        self.process = subprocess.Popen(
            net.inside(name, *command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "MICROPYPATH": str(ROOT / "firmware")},
        )
        self.process.stdin.write(json.dumps(config).encode() + b"\n")
        self.process.stdin.flush()

    def read(self, seconds: float = 20) -> dict:
        """Return the next line; fail with everything printed if none comes or it is no JSON."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        try:
            return json.loads(line)
        except ValueError:
            # What ends in a traceback ends by itself; the rest of it is wanted.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
            self.process.kill()
            raise AssertionError(line.decode() + self.process.stdout.read().decode()) from None

    def ask(self, word: str) -> dict:
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        return self.read()

    def until(self, condition, seconds: float = 10) -> dict:
        """Ask for the status until `condition(status)`; queues are summed up on the way."""
        deadline = time.monotonic() + seconds
        total: dict = {"control": [], "stray": [], "signalling": []}
        while True:
            status = self.ask("status")
            for queue in total:
                total[queue] += status[queue]
            status.update(total)
            if condition(status):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)

    def stop(self) -> None:
        assert self.ask("stop") == {"stopped": True}
        assert self.process.wait(10) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def config(which: int, **changes) -> dict:
    """Return the configuration of router 1 or 2, each other's HA tunnel end."""
    other = 3 - which
    homes = {1: HOME_1, 2: HOME_2}
    tunnel = [0, 0, f"10.99.0.{which}", f"10.99.0.{other}", 434, 1468, homes[other]]
    return {
        "home_address": homes[which],
        "networks": [f"10.{which}.0.0/24"],
        "uplinks": ["wan"],
        "tunnels": [tunnel],
        "routes": [["0.0.0.0/0", 0, -1]],
        "sources": [],
        **changes,
    }


@contextlib.contextmanager
def nodes(net: Net, *configs: tuple[str, dict]):
    """Start nodes, wait until each is ready, and end them whatever happens."""
    started = [Node(net, name, {**net.plane_config(name), **each}) for name, each in configs]
    try:
        for node in started:
            answer = node.read()
            assert answer["ready"]
            # What it does until then, it does not do after "ready".
            assert answer.get("plane", net.plane) in net.plane, answer
        yield started
    finally:
        for node in started:
            if node.process.poll() is None:
                node.kill()
