"""Real hosts in namespaces at a switch, and the router's LAN port at the same switch.

    h1, h2 -- [ switch in w ] -- c0 = simulated W5500 = SPI = port in MicroPython -- far

The port's other side is a wire to `f`, 10.2.0.10. With `vlan` the hosts are at access ports of that
VLAN, h3 at one of another, and the chip's port of the switch is tagged. Names begin with
`haaro-w<process id>-`; all is deleted at the end.
"""

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")
SECONDS = 40
_numbers = itertools.count()

needs_hosts = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("ethtool"),
    reason="needs root, iproute2 and ethtool",
)


def run(*command: str, check: bool = True, seconds: float = SECONDS) -> str:
    """What a command prints; it fails with what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def until(condition, what: str, seconds: float = SECONDS):
    """Return what `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Office:
    """The switch, the hosts, the chip and the port."""

    def __init__(self, vlan: int | None = None, dhcp: dict | None = None, link_s: float = 0.0):
        self._stack = contextlib.ExitStack()
        self.run = Path(tempfile.mkdtemp(prefix="haaro-w"))
        self.vlan = vlan
        names = ["w", "r", "f", "h1", "h2"] + (["h3"] if vlan else [])
        number = next(_numbers)
        self.names = {name: f"haaro-w{os.getpid()}-{number}{name}" for name in names}
        self._dhcp = dhcp
        self._link_s = link_s
        self.node: subprocess.Popen | None = None

    def __enter__(self):
        self._stack.callback(shutil.rmtree, self.run, True)
        try:
            self._build()
        except BaseException:
            # Also Ctrl-C: who is never entered is never left, and namespaces outlive the process.
            self._stack.close()
            raise
        return self

    def __exit__(self, *_):
        self._stack.close()

    def ip(self, name: str, *command: str) -> str:
        return run("ip", "-n", self.names[name], *command)

    def inside(self, name: str, *command: str, check: bool = True, seconds: float = SECONDS) -> str:
        return run("ip", "netns", "exec", self.names[name], *command, check=check, seconds=seconds)

    def start(self, name: str, *command: str, **options) -> subprocess.Popen:
        process = subprocess.Popen(["ip", "netns", "exec", self.names[name], *command], **options)
        self._stack.callback(self._end, process)
        return process

    @staticmethod
    def _end(process) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()

    def _build(self) -> None:
        for name in self.names.values():
            run("ip", "netns", "add", name)
            self._stack.callback(run, "ip", "netns", "del", name, check=False)
            run("ip", "-n", name, "link", "set", "lo", "up")
            # The switch and the wire are not to speak for themselves.
            run("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1",
                "net.ipv6.conf.default.disable_ipv6=1")  # fmt: skip
        if not self.vlan:
            self.ip("w", "link", "add", "br0", "type", "bridge")
            self.ip("w", "link", "set", "br0", "up")
        for host in [name for name in self.names if name.startswith("h")]:
            self.wire(host, "lan", f"p-{host}")
        self.ip("w", "link", "add", "c0", "type", "veth", "peer", "name", "p-c0")
        self._join("p-c0")
        self.ip("w", "link", "set", "c0", "up")
        for interface in ("c0", "p-c0"):
            self.plain("w", interface)
        if self.vlan:
            access = [f"p-h1={self.vlan}", f"p-h2={self.vlan}", f"p-h3={self.vlan + 1}"]
            self._ready("w", "tests.w5500_sim.switch", "--trunk", "p-c0", *access)
        self.ip("r", "link", "add", "far0", "type", "veth", "peer", "name", "far",
                "netns", self.names["f"])  # fmt: skip
        self.ip("f", "link", "set", "far", "address", "02:00:00:00:02:0a")
        self.ip("f", "address", "add", "10.2.0.10/24", "dev", "far")
        for name, interface in (("r", "far0"), ("f", "far")):
            self.ip(name, "link", "set", interface, "up")
            self.plain(name, interface)
        self.ip("f", "neigh", "add", "10.2.0.1", "lladdr", "02:00:00:00:02:01", "dev", "far",
                "nud", "permanent")  # fmt: skip
        self.ip("f", "route", "add", "default", "via", "10.2.0.1")
        self._start_chip()
        self.start_node()

    def wire(self, host: str, interface: str, port: str) -> None:
        """A cable from a host to the switch."""
        self.ip("w", "link", "add", port, "type", "veth", "peer", "name", interface,
                "netns", self.names[host])  # fmt: skip
        self._join(port)
        self.ip(host, "link", "set", interface, "up")
        self.plain(host, interface)
        self.plain("w", port)

    def _join(self, port: str) -> None:
        if not self.vlan:
            self.ip("w", "link", "set", port, "master", "br0")
        self.ip("w", "link", "set", port, "up")

    def plain(self, name: str, interface: str) -> None:
        """No offload: a chip sees finished packets with their checksums."""
        self.inside(name, "ethtool", "-K", interface, "tx", "off", "rx", "off", "gso", "off",
                    "gro", "off", "tso", "off", check=False)  # fmt: skip

    def address(self, host: str, last: int) -> None:
        """Give a host a fixed address with the port as its gateway."""
        self.ip(host, "address", "add", f"10.1.0.{last}/24", "dev", "lan")
        self.ip(host, "route", "add", "default", "via", "10.1.0.1")

    def _start_chip(self) -> None:
        self._ready(
            "w", "tests.w5500_sim.bridge", "--interface", "c0",
            "--socket", str(self.run / "spi"), "--control", str(self.run / "control"),
            "--link-s", str(self._link_s), "--first", "65000",
        )  # fmt: skip

    def _ready(self, name: str, module: str, *options: str) -> None:
        """Start a program of ours, and wait for its first line."""
        process = self.start(
            name, sys.executable, "-m", module, *options, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdout.readline() == b"ready\n"

    def start_node(self) -> None:
        """Start the port in MicroPython, and wait until its link is up."""
        config = {
            "spi": str(self.run / "spi"),
            "vlan": self.vlan,
            "dhcp": self._dhcp and {**self._dhcp, "file": str(self.run / "leases")},
            "far": "far0",
            "far_mac": "02000000020a",
        }
        self.node = self.start(
            "r", MICROPYTHON, "-X", "heapsize=256k", str(ROOT / "tests/w5500_sim/node.py"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "MICROPYPATH": f"{ROOT}/firmware:{ROOT}/tests/w5500_sim"},
        )  # fmt: skip
        self.node.stdin.write(json.dumps(config).encode() + b"\n")
        self.node.stdin.flush()
        self._answer()
        self.until_link(True)

    def _answer(self) -> dict:
        ready, _, _ = select.select([self.node.stdout], [], [], SECONDS)
        line = self.node.stdout.readline() if ready else b""
        assert line, "the port's process has ended"
        if not line.startswith(b"{"):
            raise AssertionError((line + self.node.stdout.read()).decode())
        return json.loads(line)

    def status(self) -> dict:
        """What the port says of itself."""
        self.node.stdin.write(b"status\n")
        self.node.stdin.flush()
        return self._answer()

    def stop_node(self) -> None:
        """End the port's process in order."""
        self.node.stdin.write(b"stop\n")
        self.node.stdin.flush()
        assert self.node.wait(SECONDS) == 0

    def until_link(self, up: bool) -> None:
        """Wait until the port says so."""
        until(lambda: self.status()["link"] is up, f"the link never came {up}")

    def chip(self, **order) -> dict:
        """Do something to the chip; returns its counters."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(SECONDS)
            control.connect(str(self.run / "control"))
            control.sendall(json.dumps(order).encode() + b"\n")
            return json.loads(control.makefile().readline())

    def ping(self, host: str, to: str, *options: str, count: int = 3) -> bool:
        """Whether all echoes of a short ping come back."""
        shown = self.inside(
            host, "ping", "-n", "-c", str(count), "-i", "0.05", "-W", "1", *options, to, check=False
        )
        return f"{count} received" in shown

    def until_ping(self, host: str, to: str, seconds: float = SECONDS) -> None:
        """Wait until an echo comes back."""
        until(lambda: self.ping(host, to, count=1), f"{host} never reached {to}", seconds)
