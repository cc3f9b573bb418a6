"""A home agent in this process, and routers that speak the wire layer to it; fake clock."""

import copy
import tomllib

from haaro.wire import auth, extensions, message, registration
from haaro.wire.ipv4 import address, prefix
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent import config as ha_config
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.core import HomeAgent
from haaro_host.home_agent.store import Store

HA = address("192.0.2.1")
HOA_A, HOA_B, HOA_C = (address(f"192.0.2.{n}") for n in (129, 130, 131))
COA_A, COA_B, COA_C = address("198.51.100.10"), address("198.51.100.74"), address("203.0.113.10")
KEY = bytes(range(0x40, 0x60))
NOW = 4_000_000_000_000  # NTP ms, in the year 2026

DOCUMENT = tomllib.loads(
    """
[home_agent]
address = "192.0.2.1"
state = ":memory:"
secrets = "ha.secrets.toml"
home_addresses = ["192.0.2.128/25"]
home_networks = ["10.0.0.0/24"]

[[router]]
name = "A"
home_address = "192.0.2.129"
prefixes = ["10.1.0.0/24", "10.1.1.0/24"]
realm = "a.example"
priority = 10

[[router]]
name = "B"
home_address = "192.0.2.130"
prefixes = ["10.2.0.0/24"]
realm = "b.example"
priority = 20

[[router]]
name = "C"
home_address = "192.0.2.131"
prefixes = ["10.3.0.0/24"]
realm = "c.example"
priority = 30
implicit = true
"""
)
SECRETS = {
    "router": [
        {"name": name, "spi": 256, "algorithm": "hmac-sha256", "key": KEY.hex()} for name in "ABC"
    ]
}


def build_config(change=None, change_secrets=None):
    """Return the lab configuration after `change(document)` and `change_secrets(secrets)`."""
    document, secrets = copy.deepcopy(DOCUMENT), copy.deepcopy(SECRETS)
    if change:
        change(document)
    if change_secrets:
        change_secrets(secrets)
    return ha_config.build(document, secrets)


class World:
    """One home agent and the time; every door call drains the queues."""

    def __init__(self, change=None, store=None, config=None):
        self.store = store or Store(":memory:")
        self.ha = HomeAgent(config or build_config(change), self.store, lambda n: bytes(n))
        self.now = NOW
        self.logs = []

    def send(self, data, src=COA_A, sport=434, dst=HA):
        """Deliver a datagram to the home agent; return the datagrams it answers."""
        self.ha.receive_datagram(self.now, src, sport, dst, 434, bytes(data))
        return self.drain()

    def from_outside(self, packet):
        """Deliver an inner packet that the kernel routed to the home agent."""
        self.ha.receive_packet(self.now, packet)
        return self.drain()

    def drain(self):
        """Return queued datagrams; log lines go to `.logs`."""
        while (event := self.ha.next_event()) is not None:
            self.logs.append(event)
        sent = []
        while (transmit := self.ha.poll_transmit()) is not None:
            sent.append(transmit)
        return sent

    def outside(self):
        """Return the packets handed to the kernel's routing."""
        packets = []
        while (packet := self.ha.poll_outside()) is not None:
            packets.append(packet)
        return packets

    def advance(self, seconds):
        """Let time pass and the timers run."""
        self.now += int(seconds * 1000)
        self.ha.handle_timer(self.now)
        self.drain()

    def request(self, **changes):
        """Return a signed request of router A at this time, see `build_request`."""
        changes.setdefault("identification", stamp(self.now).to_bytes(8, "big"))
        return build_request(**changes)

    def register(self, src=None, sport=434, **changes):
        """Send a request from its care-of address (or `src`) and return the parsed reply."""
        data = self.request(**changes)
        sent = self.send(data, src or changes.get("coa", COA_A), sport)
        assert len(sent) == 1, (sent, self.ha.counters)
        return parse_reply(sent[0].payload)

    def tunnel(self, packet, src=COA_A, sport=434):
        """Deliver an inner packet through the UDP tunnel that ends at `src`."""
        return self.send(TUNNEL_HEADER + packet, src, sport)

    def register_all(self):
        """Register A and B explicitly and C implicitly."""
        for hoa, coa, networks in (
            (HOA_A, COA_A, ["10.1.0.0/24"]),
            (HOA_B, COA_B, ["10.2.0.0/24"]),
            (HOA_C, COA_C, []),
        ):
            reply = self.register(hoa=hoa, coa=coa, networks=networks, capability={})
            assert reply.code == 0


def build_request(
    identification,
    hoa=HOA_A,
    coa=COA_A,
    ha=HA,
    flags=registration.FLAG_D | registration.FLAG_T,
    lifetime=300,
    networks=(),
    udp=(True, 4, False),
    capability=None,
    extra=b"",
    spi=256,
    algorithm="hmac-sha256",
    key=KEY,
    after=b"",
):
    """Return a Registration Request; `udp` is (force, encapsulation, through FA) or None."""
    data = registration.build_request(flags, lifetime, hoa, ha, coa, identification)
    for network in networks:
        net, plen = prefix(network) if isinstance(network, str) else network
        extensions.append_mobile_network_request(data, net, plen)
    if udp:
        extensions.append_udp_tunnel_request(data, udp[0], udp[1], udp[2])
    if capability is not None:
        options = {"advertise": True, "request": True, **capability}
        extensions.append_route_optimization_capability(data, **options)
    data.extend(extra)
    if spi is not None:
        auth.append_mobile_home(data, spi, algorithm, key)
    data.extend(after)
    return data


def parse_reply(data, key=KEY, algorithm="hmac-sha256"):
    """Return the reply after checking its authenticator."""
    reply = message.parse(data)
    assert isinstance(reply, registration.RegistrationReply)
    assert reply.bad == []
    assert auth.verify_mobile_home(reply, algorithm, key)
    return reply


def advertised(reply):
    """Return [(home address text, outbound only, [(prefix text, plen, realm)])] of the reply."""
    found = reply.find(extensions.PrefixAdvertisement)
    return list(found.routers()) if found else []
