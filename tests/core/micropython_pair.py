"""Two routers and a home agent that grants everything, inside MicroPython.

Run as `micropython -X heapsize=384k micropython_pair.py FIRMWARE`; prints one line of facts.
"""

import gc
import os
import sys

sys.path.insert(0, sys.argv[1])

from haaro.core.router import Router
from haaro.core.settings import Settings
from haaro.wire import auth, extensions, ipv4, message, prefixes, registration, udp_tunnel

gc.collect()
IMPORTS = gc.mem_alloc()
HOME = ipv4.address("192.0.2.1")
HEADER = udp_tunnel.TUNNEL_HEADER
NTP = 3976000000000


class Node:
    def __init__(self, n):
        s = Settings()
        s.home_address = ipv4.address(f"192.0.2.{128 + n}")
        s.home_agent = HOME
        s.networks = [ipv4.prefix(f"10.{n}.0.0/24")]
        s.algorithm = "hmac-sha256"
        s.key = bytes([n]) * 32
        self.settings = s
        self.coa = ipv4.address(f"198.51.100.{n}")
        self.router = Router(s, os.urandom, 0, NTP)
        self.routes = []

    def pump(self, wire):
        r = self.router
        while True:
            event = r.next_event()
            if event is None:
                break
            if event[0] == "routes":
                self.routes = r.forwarding_table()[0]
        while True:
            item = r.poll_transmit()
            if item is None:
                break
            if item.tunnel >= 0:
                t = r.tunnels.get(item.tunnel)
                wire.append((t.local, t.remote, HEADER + item.payload))
            else:
                wire.append((self.coa, item.dst, item.payload))

    def receive(self, now, src, data):
        if data[:4] == HEADER:
            for t in self.router.tunnels.all():
                if t.remote == src:
                    self.router.receive_tunnelled(now, t.id, data[4:], src, 434, 0)
                    return
        else:
            self.router.receive_datagram(now, 0, src, 434, self.coa, 434, data)


def register(request, nodes):
    node = next(n for n in nodes if n.settings.home_address == request.home_address)
    assert auth.verify_mobile_home(request, "hmac-sha256", node.settings.key)
    reply = registration.build_reply(
        0, request.lifetime, request.home_address, HOME, request.identification
    )
    for asked in request.all(extensions.MobileNetworkRequest):
        extensions.append_mobile_network_ack(reply, 0, asked.prefix, asked.plen)
    extensions.append_udp_tunnel_reply(reply, 0, True, 25)
    extensions.append_route_optimization_reply(reply, False, False, False)
    routers = []
    for other in nodes:
        if other is not node:
            networks = [(p, n, "") for p, n in other.settings.networks]
            routers.append((other.settings.home_address, False, networks))
    data, _ = prefixes.build_advertisement(routers)
    extensions.append_prefix_advertisement(reply, data)
    auth.append_mobile_home(reply, 256, "hmac-sha256", node.settings.key)
    return bytes(reply)


def home_agent(src, dst, data, nodes, wire):
    if dst == HOME and data[:4] != HEADER:
        wire.append((HOME, src, register(message.parse(data), nodes)))
        return
    packet = data[4:] if dst == HOME else ipv4.build_udp(src, dst, 434, 434, data)
    ip = ipv4.parse_ipv4(packet)
    if ip.dst == HOME:
        echo = ipv4.parse_icmp_echo(packet, ip)
        packet = ipv4.build_icmp_echo(HOME, ip.src, True, echo[1], echo[2], echo[3])
        ip = ipv4.parse_ipv4(packet)
    for node in nodes:
        if node.settings.home_address == ip.dst:
            wire.append((HOME, node.coa, HEADER + packet))
            return
    wire.append((ip.src, ip.dst, ipv4.parse_udp(packet, ip)[2]))


def main():
    nodes = [Node(1), Node(2)]
    wire = []
    direct_at = None
    now = 0
    for node in nodes:
        node.router.uplink_changed(0, 0, True, node.coa)
    for now in range(0, 600000, 50):
        if now == 5000:
            nodes[0].router.traffic_wanted(now, 0)
        for node in nodes:
            if now % 1000 == 0:
                for t in node.router.tunnels.all():
                    node.router.tunnel_traffic(now, t.id, now, now)
            node.router.handle_timer(now)
            node.pump(wire)
        for _ in range(40):
            if not wire:
                break
            src, dst, data = wire.pop(0)
            found = [n for n in nodes if n.coa == dst]
            if found:
                found[0].receive(now, src, data)
                found[0].pump(wire)
            else:
                home_agent(src, dst, data, nodes, wire)
        both = all(len([r for r in n.routes if r[2] > 0]) == 2 for n in nodes)
        if both and direct_at is None:
            direct_at = now
        if direct_at is not None and not both:
            print("lost at", now)
            return
    gc.collect()
    names = {}
    for node in nodes:
        names.update(node.router.counters.as_dict())
    print(
        "direct_at",
        direct_at,
        "counters",
        names,
        "imports",
        IMPORTS,
        "state",
        gc.mem_alloc() - IMPORTS,
    )


main()
