"""The real home agent as a node of the test network."""

import random

from haaro.wire import encapsulation, ipv4
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent import config as ha_config
from haaro_host.home_agent.core import RAW_PORT, HomeAgent
from haaro_host.home_agent.store import Store
from tests.core.network import HOME_AGENT

_WRAP = {
    4: encapsulation.encapsulate_ipip,
    47: encapsulation.encapsulate_gre,
    55: encapsulation.encapsulate_minimal,
}


class HomeAgentNode:
    """Serves the routers it is told about; `offset_ms` moves its clock, `silent` turns it off."""

    def __init__(self, network, advertisement_octets=1200, encapsulations=None):
        self.network = network
        self.offset_ms = 0
        self.silent = False
        self.routers = []
        self.secrets = []
        self.advertisement_octets = advertisement_octets
        self.encapsulations = encapsulations or ["udp", "ipip", "gre", "minimal"]
        self.store = Store(":memory:")
        self.home_agent = None
        network.owners[HOME_AGENT] = self
        network.nodes.append(self)

    def register_router(self, node, prefixes=None):
        """Know a router, its key and prefixes, and own its home address."""
        settings = node.settings
        networks = settings.networks if prefixes is None else prefixes
        hoa = ipv4.text(node.hoa)
        self.routers.append(
            {
                "name": node.name,
                "home_address": hoa,
                "prefixes": [f"{ipv4.text(p)}/{n}" for p, n in networks],
                "realm": f"{node.name.lower()}.example",
                "priority": len(self.routers) + 1,
            }
        )
        self.secrets.append(
            {
                "name": node.name,
                "spi": settings.spi,
                "algorithm": settings.algorithm,
                "key": settings.key.hex(),
            }
        )
        self.network.owners[node.hoa] = self
        self._configure()

    def authorize(self, node, prefixes):
        """Change the prefixes of a router, as the operator does with a reload."""
        for entry in self.routers:
            if entry["name"] == node.name:
                entry["prefixes"] = [f"{ipv4.text(p)}/{n}" for p, n in prefixes]
        self._configure()

    def _configure(self):
        document = {
            "home_agent": {
                "address": ipv4.text(HOME_AGENT),
                "state": ":memory:",
                "secrets": "x",
                "home_addresses": ["192.0.2.128/25"],
                "advertisement_octets": self.advertisement_octets,
                "encapsulations": self.encapsulations,
            },
            "router": self.routers,
        }
        config = ha_config.build(document, {"router": self.secrets})
        if self.home_agent is None:
            rng = random.Random(f"{self.network.seed}-ha")
            self.home_agent = HomeAgent(config, self.store, rng.randbytes)
        else:
            self.home_agent.reconfigure(self._now(), config)

    def revoke(self, node):
        """The operator revokes a router."""
        self.home_agent.revoke(self._now(), node.hoa)
        self._pump()

    def allow(self, node):
        """And lets it register again."""
        self.home_agent.allow(self._now(), node.hoa)
        self._pump()

    def _now(self):
        return self.network.ntp_ms(self.network.now) + self.offset_ms

    def receive(self, d):
        if self.silent:
            return
        if d.sport > 0xFFFF:
            packet = _WRAP[d.sport >> 16](d.src, HOME_AGENT, d.inner)
            self.home_agent.receive_encapsulated(self._now(), packet)
        elif d.dst == HOME_AGENT:
            self.home_agent.receive_datagram(self._now(), d.src, d.sport, d.dst, d.dport, d.payload)
        else:
            packet = ipv4.build_udp(d.src, d.dst, d.sport, d.dport, d.payload)
            self.home_agent.receive_packet(self._now(), packet)
        self._pump()

    def _pump(self):
        while (item := self.home_agent.poll_transmit()) is not None:
            sport, dport, payload = 434, item.dport, item.payload
            if dport == RAW_PORT:
                sport = dport = payload[9] << 16
                payload = TUNNEL_HEADER + encapsulation.decapsulate(payload)
            self.network.send(self, HOME_AGENT, sport, item.dst, dport, payload)
        while (packet := self.home_agent.poll_outside()) is not None:
            ip = ipv4.parse_ipv4(packet)
            if ip.protocol != 17:
                continue  # an ICMP error; nobody here wants it
            sport, dport, data = ipv4.parse_udp(packet, ip)
            self.network.send(self, ip.src, sport, ip.dst, dport, data)
        while self.home_agent.next_event() is not None:
            pass

    def next_deadline(self):
        when = None if self.home_agent is None else self.home_agent.next_deadline()
        return None if when is None else when - self.network.ntp_ms(0) - self.offset_ms

    def handle_timer(self):
        self.home_agent.handle_timer(self._now())
        self._pump()
