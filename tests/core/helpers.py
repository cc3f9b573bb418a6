"""Three routers and the real home agent on one network; one router alone with scripted peers."""

import random

from haaro.core.router import Router
from haaro.core.settings import Settings
from haaro.wire import auth, extensions, ipv4, message, prefixes, registration, return_routability
from tests.core.home_agent_node import HomeAgentNode
from tests.core.network import HOME_AGENT, NTP_2026_MS, Network

HOA_A, HOA_B, HOA_C = (ipv4.address(f"192.0.2.{n}") for n in (129, 130, 131))
COA_A, COA_B = ipv4.address("198.51.100.10"), ipv4.address("198.51.100.74")
COA_A2 = ipv4.address("203.0.113.20")
COA_C, COA_C2 = ipv4.address("203.0.113.10"), ipv4.address("203.0.113.77")
LAN_A, LAN_B, LAN_C = (ipv4.prefix(f"10.{n}.0.0/24") for n in (1, 2, 3))
HOST_A, HOST_B, HOST_C = (ipv4.address(f"10.{n}.0.10") for n in (1, 2, 3))
KEY = bytes(range(32))


class Triangle:
    """Routers A, B and C of RFC 6521 section 8, registered in this order unless told otherwise."""

    def __init__(self, register=True, delay_ms=10, loss=0.0, seed=0, settings=None, ntp_ms=None):
        self.net = Network(delay_ms, loss, seed)
        self.ha = HomeAgentNode(self.net)
        made = []
        for name, n in (("A", 1), ("B", 2), ("C", 3)):
            options = settings(name) if settings else None
            node = self.net.add_router(
                name, f"192.0.2.{128 + n}", f"10.{n}.0.0/24", None, options, ntp_ms
            )
            self.ha.register_router(node)
            made.append(node)
        self.a, self.b, self.c = made
        self.coas = {self.a: COA_A, self.b: COA_B, self.c: COA_C}
        self.hosts = {self.a: HOST_A, self.b: HOST_B, self.c: HOST_C}
        if register:
            for node in made:
                node.attach(0, self.coas[node])
                self.net.run_until(lambda node=node: node.router.registration.registered)
            self.net.run(2000)

    def send(self, one, other):
        """A host behind `one` sends to a host behind `other`; returns the tunnel it went by."""
        return one.send_user(self.hosts[one], self.hosts[other])

    def both_direct(self, one, other):
        return one.is_direct(other) and other.is_direct(one)

    def make_direct(self, one, other, limit_ms=60_000):
        """Send one packet and wait until both directions are direct; returns the ms it took."""
        self.send(one, other)
        return self.net.run_until(lambda: self.both_direct(one, other), limit_ms)

    def traffic(self, one, other, ms, step_ms=100):
        """Send both ways every `step_ms`; returns {node: packets that arrived at it}."""
        before = {node: len(node.delivered) for node in (one, other)}
        sent = 0
        end = self.net.now + ms
        while self.net.now < end:
            self.send(one, other)
            self.send(other, one)
            sent += 1
            self.net.run(step_ms)
        self.net.run(10 * self.net.delay_ms)
        return sent, {node: len(node.delivered) - before[node] for node in (one, other)}


def snapshot(router, now):
    """Everything public that a refused datagram must not change."""
    status = router.status(now)
    del status["counters"]
    for tunnel in [status["registration"]["tunnel"]] + [p["tunnel"] for p in status["peers"]]:
        if tunnel is not None:
            del tunnel["rtt_ms"]
    return status, router.forwarding_table()


class Lone:
    """Router A alone on a fake clock; what it sends is in `sent` as (time, Transmit)."""

    def __init__(self, seed=0, **options):
        self.settings = Settings()
        self.settings.home_address = HOA_A
        self.settings.home_agent = HOME_AGENT
        self.settings.networks = [LAN_A]
        self.settings.algorithm = "hmac-sha256"
        self.settings.key = KEY
        ntp_ms = options.pop("ntp_ms", None)
        for name, value in options.items():
            assert hasattr(self.settings, name)
            setattr(self.settings, name, value)
        self.now = 0
        self.sent = []
        self.events = []
        self.home_agent_answers = True  # the keepalives of run()
        self.busy = False  # traffic goes through every tunnel, both ways
        estimate = NTP_2026_MS + self.now if ntp_ms is None else ntp_ms
        self.router = Router(self.settings, random.Random(seed).randbytes, self.now, estimate)

    # time and queues

    def drain(self):
        """Collect what the router sends and tells; returns the new Transmits."""
        new = []
        while (item := self.router.poll_transmit()) is not None:
            new.append(item)
            self.sent.append((self.now, item))
        while (event := self.router.next_event()) is not None:
            self.events.append(event)
        return new

    def run(self, ms):
        """Let time go by; returns the Transmits sent meanwhile."""
        if self.busy and ms > 1000:
            return self.run(1000) + self.run(ms - 1000)
        end = self.now + ms
        new = []
        turns = 0
        while (when := self.router.next_deadline()) is not None and when <= end:
            turns = turns + 1 if when <= self.now else 0
            assert turns < 1000, "time stands still"
            self.now = max(self.now, when)
            self._count()
            self.router.handle_timer(self.now)
            items = self.drain()
            new += items
            if self.home_agent_answers:
                new += self._answer_home_echo(items)
        self.now = end
        self._count()
        return new

    def _count(self):
        for tunnel in self.router.tunnels.all() if self.busy else ():
            self.router.tunnel_traffic(self.now, tunnel.id, self.now, self.now)

    def _answer_home_echo(self, items):
        out = []
        for item in items:
            if item.tunnel == 0:
                ip = ipv4.parse_ipv4(item.payload)
                if ip.dst == HOME_AGENT and ip.protocol == 1:
                    echo = ipv4.parse_icmp_echo(item.payload, ip)
                    out += self.packet(ipv4.build_icmp_echo(HOME_AGENT, HOA_A, True, *echo[1:]))
        return out

    def up(self, address=COA_A, index=0):
        self.router.uplink_changed(self.now, index, True, address)
        self.router.handle_timer(self.now)
        return self.drain()

    # in

    def outside(self, src, data, sport=434, dst=COA_A, dport=434, uplink=0):
        """A datagram from outside to our care-of address; returns the answers."""
        self.router.receive_datagram(self.now, uplink, src, sport, dst, dport, bytes(data))
        return self.drain()

    def tunnelled(self, src, data, sport=434, tunnel=0, dst=HOA_A, dport=434):
        """A UDP message inside a tunnel; returns the answers."""
        packet = ipv4.build_udp(src, dst, sport, dport, bytes(data))
        return self.packet(packet, tunnel)

    def packet(self, packet, tunnel=0):
        """An inner packet from the exact outer end of a tunnel."""
        end = self.router.tunnels.get(tunnel)
        ends = (end.remote, end.remote_port & 0xFFFF, end.uplink) if end else (HOME_AGENT, 434, 0)
        self.router.receive_tunnelled(self.now, tunnel, packet, *ends)
        return self.drain()

    # the home agent

    def ntp(self, offset_ms=0):
        ms = NTP_2026_MS + self.now + offset_ms
        return ((ms // 1000) << 32) | ((ms % 1000) << 32) // 1000

    def home_reply(self, request, routers=(), code=0, lifetime=None, append=None, **how):
        """A Registration Reply of the home agent to the parsed `request`."""
        identification = how.get("identification", request.identification)
        granted = request.lifetime if lifetime is None else lifetime
        hoa = how.get("home_address", request.home_address)
        reply = registration.build_reply(
            code, granted, hoa, how.get("home_agent", HOME_AGENT), identification
        )
        if append is not None:
            append(reply)
        elif code < 2 and request.lifetime:
            for asked in request.all(extensions.MobileNetworkRequest):
                extensions.append_mobile_network_ack(reply, 0, asked.prefix, asked.plen)
            extensions.append_udp_tunnel_reply(reply, 0, True, 0)
            capability = request.find(extensions.RouteOptimizationCapability)
            if capability is not None:
                extensions.append_route_optimization_reply(
                    reply, False, how.get("nat", False), capability.solicit
                )
            if routers:
                data, _ = prefixes.build_advertisement(list(routers))
                extensions.append_prefix_advertisement(reply, data)
        auth.append_mobile_home(reply, how.get("spi", 256), "hmac-sha256", how.get("key", KEY))
        return bytes(reply)

    def requests(self, items):
        """The parsed Registration Requests to the home agent among Transmits."""
        return [
            message.parse(i.payload)
            for i in items
            if i.tunnel < 0 and i.dst == HOME_AGENT and i.payload[0] == 1
        ]

    def registered(self, routers=((HOA_C, False, [(*LAN_C, "")]),), **how):
        """Bring the router up and registered; returns self."""
        (request,) = self.requests(self.up())
        self.outside(HOME_AGENT, self.home_reply(request, routers, **how))
        assert self.router.registration.registered
        self.run(1000)
        return self

    def answer_home(self, items, routers, **how):
        """Answer the one request to the home agent among `items`."""
        (request,) = self.requests(items)
        return self.outside(HOME_AGENT, self.home_reply(request, routers, **how))

    def peer_status(self, hoa=HOA_C):
        for entry in self.router.status(self.now)["peers"]:
            if entry["cr_hoa"] == ipv4.text(hoa):
                return entry
        return None

    def counter(self, name):
        return self.router.counters.get(name)


def inner_udp(item):
    """(src, sport, dst, dport, message) of a Transmit through a tunnel."""
    ip = ipv4.parse_ipv4(item.payload)
    sport, dport, data = ipv4.parse_udp(item.payload, ip)
    return ip.src, sport, ip.dst, dport, message.parse(data)


class ScriptedPeer:
    """Router C as the test wants it: correspondent to, or registering with, a `Lone` router A."""

    def __init__(self, lone, hoa=HOA_C, coa=COA_C):
        self.lone = lone
        self.hoa, self.coa = hoa, coa
        self.tokens = None
        self.number = None

    # correspondent role: answer what the lone router sends

    def answer_tests(self, items, home=True, care_of=True, index=(7, 8)):
        """Answer HoTI and CoTI among Transmits; returns what the router sends then."""
        out = []
        for item in items:
            if item.tunnel == 0 and ipv4.parse_ipv4(item.payload).protocol == 17:
                found = inner_udp(item)[4]
                if found.type == return_routability.HOTI and home:
                    data = return_routability.build_test(26, index[0], found.cookie, b"HOMETOKN")
                    out += self.lone.tunnelled(self.hoa, data)
            elif item.tunnel < 0 and item.payload[0] == return_routability.COTI and care_of:
                found = message.parse(item.payload)
                data = return_routability.build_test(27, index[1], found.cookie, b"COATOKEN")
                out += self.lone.outside(self.hoa, data)
        return out

    krm = return_routability.krm(b"HOMETOKN", b"COATOKEN")

    def peer_requests(self, items):
        return [
            message.parse(i.payload)
            for i in items
            if i.tunnel < 0 and i.dst == self.hoa and i.payload[0] == 1
        ]

    def reply(self, request, code=0, lifetime=None, coas=(COA_C,), key=None, **how):
        """A Registration Reply of this CR."""
        identification = how.get("identification", request.identification)
        granted = request.lifetime if lifetime is None else lifetime
        reply = registration.build_reply(
            code, granted, how.get("home_address", HOA_A), HOME_AGENT, identification
        )
        if code <= 2:
            for asked in request.all(extensions.MobileNetworkRequest):
                ack = how.get("ack", 0)
                extensions.append_mobile_network_ack(reply, ack, asked.prefix, asked.plen)
            extensions.append_udp_tunnel_reply(reply, 0, True, 1)
            if coas:
                extensions.append_care_of_addresses(reply, list(coas))
        if how.get("authenticate", True):
            auth.append_mobile_correspondent(reply, key or self.krm, *how.get("index", (7, 8)))
        return bytes(reply)

    def accept(self, items, **how):
        """Answer the one request among Transmits; returns what the router sends then."""
        (request,) = self.peer_requests(items)
        return self.lone.outside(self.hoa, self.reply(request, **how))

    def establish(self):
        """Traffic wants this peer: RR, registration; returns what follows the reply."""
        hint = next(r[3] for r in self.lone.router.forwarding_table()[0] if r[:2] == LAN_C)
        self.lone.router.traffic_wanted(self.lone.now, hint)
        return self.accept(self.answer_tests(self.lone.drain()))

    def answer_echo(self, items, tunnel=1):
        """Answer the keepalives among Transmits."""
        out = []
        for item in items:
            if item.tunnel != tunnel:
                continue
            ip = ipv4.parse_ipv4(item.payload)
            echo = ipv4.parse_icmp_echo(item.payload, ip)
            if echo is not None and not echo[0]:
                answer = ipv4.build_icmp_echo(self.hoa, HOA_A, True, *echo[1:])
                out += self.lone.packet(answer, tunnel)
        return out

    # mobile router role: register with the lone router

    def test(self, source=None):
        """Do return routability toward the lone router; keeps the tokens."""
        (item,) = self.lone.tunnelled(self.hoa, return_routability.build_init(24, b"c" * 8))
        hot = inner_udp(item)[4]
        (item,) = self.lone.tunnelled(
            source or self.coa, return_routability.build_init(25, b"d" * 8)
        )
        cot = inner_udp(item)[4]
        self.tokens = (hot.token, cot.token, hot.nonce_index, cot.nonce_index)
        return self

    def request(self, networks=(LAN_C,), lifetime=300, key=None, index=None, **how):
        """A Registration Request to the lone router, authenticated with the tokens."""
        number = how.get("number", self.lone.ntp())
        if self.number is not None and number <= self.number and "number" not in how:
            number = self.number + 1
        self.number = number
        request = registration.build_request(
            how.get("flags", 0x22),
            lifetime,
            how.get("home_address", self.hoa),
            how.get("home_agent", HOME_AGENT),
            how.get("care_of_address", self.coa),
            number.to_bytes(8, "big"),
        )
        for prefix, plen in networks:
            extensions.append_mobile_network_request(request, prefix, plen)
        if how.get("udp", True) and lifetime:
            extensions.append_udp_tunnel_request(request, *how.get("offer", (True,)))
        if key is None:
            home, care_of = self.tokens[:2]
            key = return_routability.krm(home, care_of)
            if lifetime == 0:
                key = return_routability.krm_deregistration(home)
        index = index or (self.tokens[2], 0 if lifetime == 0 else self.tokens[3])
        auth.append_mobile_correspondent(request, key, *index)
        return bytes(request)

    def register(self, source=None, **how):
        """Send a request; returns the Transmits that follow."""
        return self.lone.tunnelled(source or self.coa, self.request(**how))

    def reply_in(self, items):
        """(destination, reply) of the Registration Reply among Transmits, None if there is none."""
        for item in items:
            if item.tunnel == 0 and ipv4.parse_ipv4(item.payload).protocol == 17:
                _, _, dst, dport, found = inner_udp(item)
                if found.type == 3:
                    assert dport == 434
                    return dst, found
        return None
