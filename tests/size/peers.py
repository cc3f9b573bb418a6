"""Run inside MicroPython: octets of heap that wire and core take, and a router with many peers.

    micropython peers.py FIRMWARE PEERS...

Prints a line each: `imports N`, then for each number of peers `peers N known N state N direct N`:
octets of one registered router that knows so many peers of two prefixes each, octets when it has a
direct path to each, how many it has. A peer is a real
router that goes when its path is up; its keepalives are answered for it from then on.
"""

import gc
import sys

sys.path.insert(0, sys.argv[1])

# What comes with the interpreter is not ours.
import hashlib  # noqa: F401
import json  # noqa: F401
import struct  # noqa: F401

gc.collect()
# --- imports begin here
BEFORE = gc.mem_alloc()

from haaro.core.router import Router  # noqa: E402
from haaro.core.settings import Settings  # noqa: E402
from haaro.wire import auth, extensions, ipv4, message, prefixes, registration, udp_tunnel  # noqa: E402

gc.collect()
# --- imports end here
IMPORTS = gc.mem_alloc() - BEFORE
HOME = ipv4.address("192.0.2.1")
HEADER = udp_tunnel.TUNNEL_HEADER
NTP = 3976000000000
_STEP_MS = 20
_PATIENCE_MS = 20000
# Beyond, only what is known of them is measured: a minute of computing shows nothing new.
_MOST_DIRECT = 64


class Source:
    """Random octets that are the same each time: the figures shall not move by chance."""

    def __init__(self):
        self.state = 1

    def __call__(self, octets):
        made = bytearray(octets)
        for i in range(octets):
            self.state = (self.state * 1103515245 + 12345) & 0x3FFFFFFF
            made[i] = self.state >> 16 & 255
        return bytes(made)


RANDOM = Source()


class Node:
    """Router number n: home address 192.1.x.y, two networks, care-of address 198.51.x.y."""

    def __init__(self, n):
        s = Settings()
        high, low = (n + 1) >> 8, (n + 1) & 255
        s.home_address = bytes((192, 1, high, low))
        s.home_agent = HOME
        s.networks = [(bytes((10, high, low, 0)), 24), (bytes((10, 128 + high, low, 0)), 24)]
        s.algorithm = "hmac-sha256"
        s.key = bytes((n & 255,)) * 32
        s.cache_capacity = 1024
        self.settings = s
        self.coa = bytes((198, 51, high, low))
        self.router = Router(s, RANDOM, 0, NTP)

    def pump(self, wire):
        while self.router.next_event() is not None:
            pass
        while True:
            item = self.router.poll_transmit()
            if item is None:
                return
            if item.tunnel >= 0:
                t = self.router.tunnels.get(item.tunnel)
                wire.append((t.local, t.remote, HEADER + item.payload))
            else:
                wire.append((self.coa, item.dst, item.payload))

    def receive(self, now, src, data):
        if data[:4] != HEADER:
            self.router.receive_datagram(now, 0, src, 434, self.coa, 434, data)
            return
        for t in self.router.tunnels.all():
            if t.remote == src:
                self.router.receive_tunnelled(now, t.id, data[4:], src, 434, 0)
                return

    def direct(self, prefix):
        for route in self.router.forwarding_table()[0]:
            if route[0] == prefix and route[2] > 0:
                return True
        return False

    def hint(self, prefix):
        for route in self.router.forwarding_table()[0]:
            if route[0] == prefix:
                return route[3]


def accepted(request, node, others):
    """The home agent's answer to `node`, with the networks of all `others`."""
    reply = registration.build_reply(
        0, request.lifetime, request.home_address, HOME, request.identification
    )
    for asked in request.all(extensions.MobileNetworkRequest):
        extensions.append_mobile_network_ack(reply, 0, asked.prefix, asked.plen)
    extensions.append_udp_tunnel_reply(reply, 0, True, 25)
    extensions.append_route_optimization_reply(reply, False, False, False)
    rows = [(s.home_address, False, [(p, n, "") for p, n in s.networks]) for s in others]
    data, _ = prefixes.build_advertisement(rows)
    extensions.append_prefix_advertisement(reply, data)
    auth.append_mobile_home(reply, 256, "hmac-sha256", node.settings.key)
    return bytes(reply)


class Net:
    """Everything between one router and the peer that is alive just now."""

    def __init__(self, us, count):
        self.us = us
        self.peer = None
        self.count = count
        self.wire = []

    def known(self, node):
        if node is self.us:
            return [Place(n) for n in range(1, self.count + 1)]
        return [self.us.settings]

    def deliver(self, now):
        while self.wire:
            src, dst, data = self.wire.pop(0)
            nodes = [node for node in (self.us, self.peer) if node is not None]
            for node in nodes:
                if node.coa == dst:
                    node.receive(now, src, data)
                    node.pump(self.wire)
                    break
            else:
                if dst[0] == 198:
                    self.echo(src, dst, data)
                else:
                    self.home_agent(src, dst, data, nodes)

    def echo(self, src, dst, data):
        """Answer the keepalive of a peer that is not there any more."""
        if data[:4] == HEADER:
            ip = ipv4.parse_ipv4(data[4:])
            found = ipv4.parse_icmp_echo(data[4:], ip) if ip.protocol == 1 else None
            if found and not found[0]:
                answer = ipv4.build_icmp_echo(ip.dst, ip.src, True, found[1], found[2], found[3])
                self.wire.append((dst, src, HEADER + answer))

    def home_agent(self, src, dst, data, nodes):
        if dst == HOME and data[:4] != HEADER:
            request = message.parse(data)
            for node in nodes:
                if node.settings.home_address == request.home_address:
                    self.wire.append((HOME, src, accepted(request, node, self.known(node))))
            return
        packet = data[4:] if dst == HOME else ipv4.build_udp(src, dst, 434, 434, data)
        ip = ipv4.parse_ipv4(packet)
        if ip.dst == HOME:
            echo = ipv4.parse_icmp_echo(packet, ip)
            packet = ipv4.build_icmp_echo(HOME, ip.src, True, echo[1], echo[2], echo[3])
            ip = ipv4.parse_ipv4(packet)
        for node in nodes:
            if node.settings.home_address == ip.dst:
                self.wire.append((HOME, node.coa, HEADER + packet))
                return
        self.wire.append((ip.src, ip.dst, ipv4.parse_udp(packet, ip)[2]))


class Place:
    """Addresses of peer n, without the peer."""

    def __init__(self, n):
        high, low = (n + 1) >> 8, (n + 1) & 255
        self.home_address = bytes((192, 1, high, low))
        self.networks = [(bytes((10, high, low, 0)), 24), (bytes((10, 128 + high, low, 0)), 24)]


def step(net, now):
    for node in (net.us, net.peer):
        if node is not None:
            if now % 1000 == 0:
                for t in node.router.tunnels.all():
                    node.router.tunnel_traffic(now, t.id, now, now)
            node.router.handle_timer(now)
            node.pump(net.wire)
    net.deliver(now)


def measure(count):
    """Yield wherever the driver has to collect; print the octets of state.

    The WebAssembly port collects only while no Python runs, so that the heap is read right after.
    """
    yield
    before = gc.mem_alloc()
    net = Net(Node(0), count)
    now = 0
    net.us.router.uplink_changed(0, 0, True, net.us.coa)
    while net.us.hint(Place(count).networks[0][0]) is None and now < _PATIENCE_MS:
        step(net, now)
        now += _STEP_MS
    yield
    known = gc.mem_alloc() - before
    if count > _MOST_DIRECT:
        print("peers", count, "known", known)
        return
    for n in range(1, count + 1):
        net.peer = Node(n)
        net.peer.router.uplink_changed(now, 0, True, net.peer.coa)
        prefix = net.peer.settings.networks[0][0]
        give_up = now + _PATIENCE_MS
        wanted = False
        while not net.us.direct(prefix) and now < give_up:
            if not wanted and net.peer.router.registration.registered:
                wanted = True
                net.us.router.traffic_wanted(now, net.us.hint(prefix))
                net.us.pump(net.wire)
            step(net, now)
            now += _STEP_MS
        net.peer = None
        yield
    # A route for its home address and for each of its networks.
    direct = len([r for r in net.us.router.forwarding_table()[0] if r[2] > 0]) // 3
    yield
    state = gc.mem_alloc() - before
    print("peers", count, "known", known, "state", state, "direct", direct)


def steps():
    print("imports", IMPORTS)
    for word in sys.argv[2:]:
        yield from measure(int(word))


STEPS = steps()
if len(sys.argv) > 2:
    for _ in STEPS:
        gc.collect()
