"""A home agent's star in namespaces: the routers' ends, the home agent, a host of the home network.

    routers 192.0.2.2, tunnel ends -- 192.0.2.1 ha 10.0.0.1 -- 10.0.0.5 hq

Realms are separate: A and B are red, C and D blue, with the same networks. The real `haaro ha`
runs; sockets of the test process are the routers. Namespaces begin with `hha-` and the process id.
"""

import ctypes
import os
import select
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path

from haaro.wire import ipv4
from haaro.wire.ipv4 import address, text
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent import config as ha_config
from haaro_host.home_agent.bindings import UDP, Binding
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.store import Store
from tests.host.home_agent_helpers import KEY
from tests.host.home_agent_process import NTP_UNIX_MS, Process
from tests.shell.namespaces import run

ENDS = {
    "A": ("198.51.100.10", 434),
    "B": ("198.51.100.74", 40000),
    "C": ("203.0.113.10", 434),
    "D": ("203.0.113.74", 434),
}
# Addresses at the routers' side where no tunnel ends.
OTHER_ENDS = (("198.51.100.10", 4340), ("198.51.100.11", 434))
HOME = {name: address(f"192.0.2.{129 + i}") for i, name in enumerate("ABCD")}
NETWORK = {"A": "10.1.0.0/24", "B": "10.2.0.0/24", "C": "10.1.0.0/24", "D": "10.2.0.0/24"}
REALM = {"A": "red", "B": "Red", "C": "blue", "D": "blue"}
HQ = "10.0.0.5"
_CLONE_NEWNET = 0x40000000
_LIFETIME_S = 300
_DEADLINE_S = 10.0


def toml(dataplane: str) -> str:
    """Return ha.toml."""
    head = f"""
[home_agent]
address = "192.0.2.1"
state = "state.sqlite"
secrets = "ha.secrets.toml"
socket = "ha.sock"
interface = "haaro-ha0"
home_addresses = ["192.0.2.128/25"]
home_networks = ["10.0.0.0/24"]
overlap = "separate"
home_realm = "red"
dataplane = "{dataplane}"
"""
    for name in "ABCD":
        head += f"""
[[router]]
name = "{name}"
home_address = "{text(HOME[name])}"
prefixes = ["{NETWORK[name]}"]
realm = "{REALM[name]}"
"""
    return head


def now() -> int:
    """Return NTP ms."""
    return time.time_ns() // 1_000_000 + NTP_UNIX_MS


def binding(name: str, lifetime_s: int = _LIFETIME_S) -> Binding:
    """Return the binding of a router at its end."""
    end, port = ENDS[name]
    prefix, length = NETWORK[name].split("/")
    return Binding(
        HOME[name],
        address(end),
        address(end),
        port,
        UDP,
        lifetime_s,
        now() + lifetime_s * 1000,
        prefixes=[(address(prefix), int(length))],
    )


class Star:
    """The namespaces and, from `start` on, a home agent that knows the bindings in its store."""

    def __init__(self, plane: str) -> None:
        self.plane = plane
        self.run = Path(tempfile.mkdtemp(prefix="hha-", dir="/run"))
        self.names = {n: f"hha-{os.getpid()}-{n}" for n in ("r", "ha", "hq")}
        self.sockets: dict = {}
        self.process: Process | None = None

    def build(self) -> None:
        (self.run / "bpf").mkdir()
        run("mount", "-t", "bpf", "bpf", str(self.run / "bpf"))
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self._wire("r", "wan", "192.0.2.2/25", "ha", "wan", "192.0.2.1/25")
        self._wire("hq", "lan", f"{HQ}/24", "ha", "lan", "10.0.0.1/24")
        self.ip("hq", "route", "add", "default", "via", "10.0.0.1")
        self.ip("ha", "route", "add", "default", "via", "192.0.2.2")
        for end, port in (*ENDS.values(), *OTHER_ENDS):
            self.ip("r", "address", "add", f"{end}/32", "dev", "lo", check=False)
            self.sockets[end, port] = self.bind("r", end, port)
        self.sockets["hq"] = self.bind("hq", HQ, 5001)

    def _wire(self, a, port_a, address_a, b, port_b, address_b):
        peer = ["peer", "name", port_b, "netns", self.names[b]]
        run("ip", "link", "add", port_a, "netns", self.names[a], "type", "veth", *peer)
        for name, port, value in ((a, port_a, address_a), (b, port_b, address_b)):
            self.ip(name, "address", "add", value, "dev", port)
            self.ip(name, "link", "set", port, "up")

    def ip(self, name: str, *command: str, check: bool = True) -> str:
        return run("ip", "-n", self.names[name], *command, check=check)

    def bind(self, name: str, where: str, port: int) -> socket.socket:
        """Return a UDP socket in a namespace: made by a thread that was there for a moment."""
        made = []

        def make():
            with open(f"/run/netns/{self.names[name]}") as there:
                libc = ctypes.CDLL(None, use_errno=True)
                assert libc.setns(there.fileno(), _CLONE_NEWNET) == 0
            far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            far.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
            far.bind((where, port))
            far.setblocking(False)
            made.append(far)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def command(self, argv: list[str]) -> list[str]:
        """Return `argv` so that it runs at the home agent."""
        return ["ip", "netns", "exec", self.names["ha"], *argv]

    def store(self, *names: str, lifetime_s: int = _LIFETIME_S) -> None:
        """Have the state file hold these bindings; the home agent does not run."""
        store = Store(str(self.run / "state.sqlite"))
        store.seen(HOME["A"], stamp(now() - 3_600_000).to_bytes(8, "big"))
        store.replace(binding(name, lifetime_s) for name in names)
        store.close()

    def start(self) -> dict:
        (self.run / "ha.toml").write_text(toml(self.plane))
        secrets = self.run / "ha.secrets.toml"
        secrets.write_text(
            "\n".join(
                f'[[router]]\nname = "{n}"\nspi = 256\nalgorithm = "hmac-sha256"\n'
                f'key = "{KEY.hex()}"\n'
                for n in "ABCD"
            )
        )
        secrets.chmod(0o600)
        self.process = Process(self, self.run)
        status = self.process.wait_ready()
        assert status["data_plane"]["plane"] == self.plane, status["data_plane"]
        return status

    def config(self) -> ha_config.Config:
        return ha_config.load(self.run / "ha.toml")

    def status(self) -> dict:
        return self.process.ask("status")

    def send(self, end, packet: bytes, tos: int = 0) -> None:
        """Send an inner packet from a router's end, which need not be one."""
        self.sockets[end].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        self.sockets[end].sendto(TUNNEL_HEADER + packet, ("192.0.2.1", 434))

    def receive(self, until, seconds: float = _DEADLINE_S) -> dict:
        """Return {name of a socket: [(payload, type of service)]} once `until(that)` holds."""
        deadline = time.monotonic() + seconds
        found: dict = {name: [] for name in self.sockets}
        by_socket = {made: name for name, made in self.sockets.items()}
        while not until(found):
            assert time.monotonic() < deadline, found
            for ready in select.select(list(by_socket), [], [], 0.1)[0]:
                data, ancillary, _, _ = ready.recvmsg(65536, 64)
                found[by_socket[ready]].append((data, ancillary[0][2][0]))
        return found

    def passes(self, source: str, packet: bytes, where, seconds: float = _DEADLINE_S) -> tuple:
        """Send until it arrives at the socket `where`; return what did and its type of service."""
        deadline = time.monotonic() + seconds
        marker = packet[28:]
        while True:
            self.send(ENDS[source], packet)
            try:
                found = self.receive(lambda found: any(marker in d for d, _ in found[where]), 0.3)
            except AssertionError:
                assert time.monotonic() < deadline, f"{source} to {where}: nothing"
                continue
            return next(each for each in found[where] if marker in each[0])

    def remove(self) -> None:
        if self.process and self.process.popen.poll() is None:
            self.process.kill()
        for made in self.sockets.values():
            made.close()
        for name in self.names.values():
            run("ip", "netns", "del", name, check=False)
        run("umount", str(self.run / "bpf"), check=False)
        shutil.rmtree(self.run, ignore_errors=True)


def udp(src: str, dst: str, payload: bytes, ttl: int = 64, tos: int = 0) -> bytes:
    """Return an inner UDP packet to port 5001."""
    packet = bytearray(ipv4.build_udp(address(src), address(dst), 5000, 5001, payload, ttl))
    packet[1] = tos
    packet[10:12] = bytes(2)
    packet[10:12] = ipv4.checksum(packet, 0, 20).to_bytes(2, "big")
    return bytes(packet)
