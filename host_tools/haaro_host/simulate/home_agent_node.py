"""The shipped home agent as a node: its store, its clock, kill and restart."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haaro.core.settings import Settings
from haaro.wire import ipv4
from haaro.wire.errors import WireError
from haaro.wire.message import MIP_PORT
from haaro_host.home_agent import config as ha_config
from haaro_host.home_agent.core import HomeAgent
from haaro_host.home_agent.store import Store
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.network import HOME_AGENT, Network

_MAX_LOG = 200


class HomeAgentNode:
    """Serves the routers it was told of; `on_packet(packet)` gets what leaves to home networks."""

    name = "HA"

    def __init__(
        self,
        network: Network,
        options: dict[str, Any],
        state: Path | None,
        on_packet: Callable[[bytes], None],
    ) -> None:
        """`options` are keys of [home_agent] in ha.toml; `state` is the directory of its disk,
        None to keep it in memory (then a restart always loses it).
        """
        self.network = network
        self.offset_ms = 0  # of its system clock to true time
        self.running = False
        self.armed: int | None = None
        self.log: list[tuple[int, str]] = []
        self.counters_before: dict[str, int] = {}
        self._options = options
        self._state = state
        self._on_packet = on_packet
        self._routers: list[dict[str, Any]] = []
        self._secrets: list[dict[str, Any]] = []
        self._boots = 0
        self._lives = 0
        self._generation = -1
        self._deadline: int | None = None
        self._store: Store | None = None
        self.home_agent: HomeAgent

    def register_router(self, settings: Settings, realm: str, implicit: bool) -> None:
        """Know a router, its key and networks."""
        self._routers.append(
            {
                "name": settings.name,
                "home_address": ipv4.text(settings.home_address),
                "prefixes": [f"{ipv4.text(p)}/{n}" for p, n in settings.networks],
                "realm": realm,
                "priority": min(len(self._routers) + 1, 65535),
                "implicit": implicit,
            }
        )
        self._secrets.append(
            {
                "name": settings.name,
                "spi": settings.spi,
                "algorithm": settings.algorithm,
                "key": settings.key.hex(),
            }
        )

    # --- life ----------------------------------------------------------------------------------

    def boot(self, lost_disk: bool = False) -> None:
        """Start with what is on its disk, or with a new one."""
        document = {
            "home_agent": {
                "address": ipv4.text(HOME_AGENT),
                "state": "state.db",
                "secrets": "secrets.toml",
                **self._options,
            },
            "router": self._routers,
        }
        config = ha_config.build(document, {"router": self._secrets})
        self._boots += 1
        self._lives += lost_disk
        path = ":memory:" if self._state is None else str(self._state / f"{self._lives}.db")
        self._store = Store(path)
        rng = random.Random(f"{self.network.seed}-ha-{self._boots}")
        self.home_agent = HomeAgent(config, self._store, rng.randbytes)
        self._tell_clock()
        self.running = True
        self._generation = -1
        self.network.own(HOME_AGENT, self, None, None)
        self.pump()

    def crash(self) -> None:
        """Kill it: nothing is written any more."""
        self.running = False
        self.network.disarm(self)
        if self._store is not None:
            self._store.close()
            self._store = None

    def close(self) -> None:
        """Release the state file at the end of the simulation."""
        self.crash()

    def step_clock(self, delta_ms: int) -> None:
        """Its system clock is set by so much; the shell notices and tells the core."""
        self.offset_ms += delta_ms
        if self.running:
            self._tell_clock()
            self._generation = -1
            self.pump()

    def _tell_clock(self) -> None:
        # The process may die, the machine never reboots: its boot clock is the simulation's.
        self.home_agent.machine_clock(self._now(), "machine", self.offset_ms)

    def _now(self) -> int:
        return self.network.ntp_ms(self.network.now) + self.offset_ms

    # --- doors ---------------------------------------------------------------------------------

    def receive(self, datagram: Datagram) -> None:
        """Take a datagram that arrived at the home agent, or at a home address it serves."""
        if not self.running:
            datagram.dropped = "nobody listens"
            return
        self.network.arrived(self, datagram)
        d = datagram
        if d.dst == HOME_AGENT:
            if d.dport == MIP_PORT:
                self.home_agent.receive_datagram(
                    self._now(), d.src, d.sport, d.dst, d.dport, d.payload
                )
        else:
            packet = ipv4.build_udp(d.src, d.dst, d.sport, d.dport, d.payload)
            self.home_agent.receive_packet(self._now(), packet)
        self.pump()

    def send(self, packet: bytes) -> None:
        """A host of a home network sends a packet to a mobile network."""
        if self.running:
            self.home_agent.receive_packet(self._now(), packet)
            self.pump()

    def pump(self) -> None:
        """Do what the shell does after any door."""
        agent = self.home_agent
        network = self.network
        while (item := agent.poll_transmit()) is not None:
            ends = (HOME_AGENT, MIP_PORT, item.dst, item.dport)
            network.send(self, None, None, ends, item.payload)
        while (packet := agent.poll_outside()) is not None:
            self._outside(packet)
        while (event := agent.next_event()) is not None:
            self.log.append((network.now, event[2]))
            del self.log[:-_MAX_LOG]
        # A renewal moves a deadline on only; the timer then finds nothing to do and asks again.
        if agent.generation != self._generation or self._deadline is None:
            self._generation = agent.generation
            self._ask_deadline()

    def _outside(self, packet: bytes) -> None:
        """The kernel's routing: a care-of address by the internet, else a home network."""
        dst = packet[16:20]
        if packet[9] != 17:
            return  # an ICMP error: nobody here wants it
        if dst not in self.network.owners:
            self._on_packet(packet)
            return
        try:
            ip = ipv4.parse_ipv4(packet)
            sport, dport, data = ipv4.parse_udp(packet, ip)
        except WireError:
            return  # damaged on the way; whoever it is for would drop it
        # The source is a home address, and those are ours to send from.
        self.network.send(self, None, None, (ip.src, sport, dst, dport), data)

    def own_home_addresses(self) -> None:
        """Receive what the internet sends to the home addresses."""
        for entry in self._routers:
            self.network.own(ipv4.address(entry["home_address"]), self, None, None)

    # --- time ----------------------------------------------------------------------------------

    def _ask_deadline(self) -> None:
        when = self.home_agent.next_deadline()
        self._deadline = None if when is None else when - self.network.ntp_ms(0) - self.offset_ms
        self.network.arm(self, self.next_deadline())

    def next_deadline(self) -> int | None:
        """Return when handle_timer() is due."""
        return self._deadline if self.running else None

    def handle_timer(self) -> None:
        """Do what is due."""
        self.home_agent.handle_timer(self._now())
        self._deadline = None
        self.pump()
