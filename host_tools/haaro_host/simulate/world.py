"""Routers, home agent, NATs and probe traffic on one network. A scenario, a fault or a soak is a
way to build one and to change it while its time goes on.
"""

import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from haaro.core.settings import Settings
from haaro.wire import ipv4
from haaro_host.simulate.home_agent_node import HomeAgentNode
from haaro_host.simulate.nat import Nat
from haaro_host.simulate.network import Link, Network
from haaro_host.simulate.router_node import RouterNode
from haaro_host.simulate.tally import Tally
from haaro_host.simulate.traffic import VIA_DIRECT, VIA_HOME, Flow, Sink

HOME = "home"  # the name of the host in the home network
HOME_HOST = ipv4.address("172.16.0.10")
_SHARED_MEMORY = "/dev/shm"
_HOME_NETWORK = "172.16.0.0/24"
_HOME_ADDRESSES = "198.18.0.0/16"


def default_address(number: int, block: str = "198.19.0.0") -> bytes:
    """Return address `number` of a /16: care-of addresses are 198.19.0.0/16 unless given."""
    base = ipv4.address(block)
    return base[:2] + number.to_bytes(2, "big")


def _in_memory() -> str | None:
    """Return where files need no disk, None if nowhere: what is written is synced each time."""
    return _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None


class World:
    """See the module. Use as a context manager: it owns the home agent's state file."""

    def __init__(
        self,
        seed: int,
        path: Link | None = None,
        disk: bool = False,
        home_agent: dict[str, Any] | None = None,
    ) -> None:
        """`disk`: the home agent's state is on a file; `home_agent`: keys of its ha.toml."""
        self.seed = seed
        self.rng = random.Random(f"{seed}-world")
        self.network = Network(path or Link(delay_ms=10), seed)
        self.tally = Tally(self.network)
        self.sink = Sink()
        self.routers: dict[str, RouterNode] = {}
        self.nats: dict[str, Nat] = {}
        self.notes: list[tuple[int, str, str]] = []  # (ms, router or "HA", what happened)
        self._directory = TemporaryDirectory("", "haaro-simulate-", _in_memory()) if disk else None
        options: dict[str, Any] = {
            "home_addresses": [_HOME_ADDRESSES],
            "home_networks": [_HOME_NETWORK],
            **(home_agent or {}),
        }
        state = Path(self._directory.name) if self._directory else None
        self.home_agent = HomeAgentNode(self.network, options, state, self._at_home)

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        self.home_agent.close()
        if self._directory is not None:
            self._directory.cleanup()

    @property
    def now(self) -> int:
        """The clock, ms since the start."""
        return self.network.now

    def run(self, seconds: float) -> None:
        """Let so much time go by."""
        self.network.run(round(seconds * 1000))

    def note(self, who: str, text: str) -> None:
        """Keep what happened, for the diagram and the report."""
        self.notes.append((self.network.now, who, text))

    # --- building ------------------------------------------------------------------------------

    def add_router(
        self,
        name: str,
        home_address: bytes | None = None,
        networks: list[tuple[bytes, int]] | None = None,
        options: dict[str, Any] | None = None,
    ) -> RouterNode:
        """Make a router that the home agent will know; it is neither booted nor plugged in.

        `options` are attributes of core.settings.Settings.
        """
        number = len(self.routers) + 1
        settings = Settings()
        settings.name = name
        settings.home_address = home_address or default_address(number, "198.18.0.0")
        settings.home_agent = ipv4.address("192.0.2.1")
        settings.networks = networks or [(bytes((10, number >> 8, number & 255, 0)), 24)]
        settings.algorithm = "hmac-sha256"
        settings.key = random.Random(f"{self.seed}-key-{name}").randbytes(32)
        for key, value in (options or {}).items():
            setattr(settings, key, value)
        node = RouterNode(self.network, settings, self._at_lan)
        self.routers[name] = node
        self.home_agent.register_router(settings, f"{name.lower()}.example", not settings.explicit)
        return node

    def add_nat(
        self, name: str, address: bytes, kind: str, timeout_s: float = 120, link: Link | None = None
    ) -> Nat:
        """Make a NAT with one public address."""
        rng = random.Random(f"{self.seed}-nat-{name}")
        nat = self.nats[name] = Nat(name, address, kind, round(timeout_s * 1000), rng)
        self.network.own(address, None, nat, link)
        return nat

    def move_nat(self, nat: Nat, address: bytes) -> None:
        """Give a NAT another public address; its mappings are gone."""
        end = self.network.owners[nat.address]
        self.network.disown(nat.address)
        nat.address = address
        nat.reboot()
        self.network.own(address, None, nat, end.link)

    def boot_home_agent(self, lost_disk: bool = False) -> None:
        """Start the home agent with the routers added so far."""
        self.home_agent.boot(lost_disk)
        self.home_agent.own_home_addresses()

    # --- traffic -------------------------------------------------------------------------------

    def host(self, name: str) -> bytes:
        """Return the address of the host behind a router, or of the one at home."""
        if name == HOME:
            return HOME_HOST
        prefix, _ = self.routers[name].settings.networks[0]
        return prefix[:3] + bytes((prefix[3] + 10,))

    def flow(self, one: str, other: str, every_ms: int = 100) -> Flow:
        """Return a new flow from the host behind `one` to the one behind `other`; not started."""
        ident = len(self.sink.flows) + 1
        send = self.home_agent.send if one == HOME else self.routers[one].send
        ends = (self.host(one), self.host(other))
        flow = Flow(self.network, ident, f"{one}>{other}", ends, every_ms, send)
        self.sink.flows[ident] = flow
        return flow

    def both(self, one: str, other: str, every_ms: int = 100) -> list[Flow]:
        """Return flows in both directions, started."""
        flows = [self.flow(one, other, every_ms), self.flow(other, one, every_ms)]
        for flow in flows:
            flow.start()
        return flows

    def _at_lan(self, node: RouterNode, tunnel: int, packet: bytes) -> None:
        self.sink.take(packet, node.name, VIA_DIRECT if tunnel else VIA_HOME)

    def _at_home(self, packet: bytes) -> None:
        if packet[16:20] == HOME_HOST:
            self.sink.take(packet, HOME, VIA_HOME)
