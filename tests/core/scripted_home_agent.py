"""A home agent of a hundred lines for the core's tests: it grants everything a router of the test says."""

from haaro.wire import auth, extensions, ipv4, message, prefixes, registration, udp_tunnel

from tests.core.network import HOME_AGENT


class ScriptedHomeAgent:
    """Accepts every authentic request; `authorized` says which prefixes are whose; `offset_ms` moves its clock."""

    def __init__(self, network):
        self.network = network
        self.offset_ms = 0
        self.bindings = {}  # HoA: (CoA, source, port)
        self.newest = {}
        self.authorized = {}  # HoA: [(prefix, plen)]
        self.hidden = set()  # routers not advertised unless solicited
        self.silent = False
        self.mangle = None  # callable: reply bytearray before authentication
        self.requests = []
        network.owners[HOME_AGENT] = self
        network.nodes.append(self)

    def register_router(self, node):
        """Know a router and own its home address."""
        self.authorized[node.hoa] = list(node.settings.networks)
        self.network.owners[node.hoa] = self

    def next_deadline(self):
        return None

    def handle_timer(self):
        pass

    def _node(self, hoa):
        for node in self.network.nodes:
            if node is not self and node.hoa == hoa:
                return node
        return None

    def receive(self, datagram):
        if self.silent:
            return
        inner = datagram.inner
        if datagram.dst != HOME_AGENT:
            packet = ipv4.build_udp(
                datagram.src, datagram.dst, datagram.sport, datagram.dport, datagram.payload
            )
            self._forward(packet)
        elif inner is not None:
            if (datagram.src, datagram.sport) in [b[1:] for b in self.bindings.values()]:
                self._forward(inner)
        else:
            self._register(datagram)

    def _forward(self, packet):
        ip = ipv4.parse_ipv4(packet)
        if ip.dst == HOME_AGENT:
            _, ident, seq, payload = ipv4.parse_icmp_echo(packet, ip)
            packet = ipv4.build_icmp_echo(HOME_AGENT, ip.src, True, ident, seq, payload)
            ip = ipv4.parse_ipv4(packet)
        hoa = ip.dst if ip.dst in self.bindings else None
        for owner, networks in self.authorized.items():
            if any(ipv4.contains(p, n, ip.dst) for p, n in networks) and owner in self.bindings:
                hoa = owner
        if hoa is not None:
            _, remote, port = self.bindings[hoa]
            self.network.send(
                self, HOME_AGENT, 434, remote, port, udp_tunnel.TUNNEL_HEADER + packet
            )
        elif ip.dst not in self.authorized and ip.protocol == 17:
            sport, dport, data = ipv4.parse_udp(packet, ip)
            self.network.send(self, ip.src, sport, ip.dst, dport, data)

    def _register(self, datagram):
        request = message.parse(datagram.payload)
        node = self._node(request.home_address)
        if node is None or not auth.verify_mobile_home(request, "hmac-sha256", node.settings.key):
            return
        self.requests.append(request)
        number = int.from_bytes(request.identification, "big")
        seconds = (self.network.ntp_ms(self.network.now) + self.offset_ms) // 1000
        code, identification = 0, request.identification
        if abs((number >> 32) - seconds % 2**32) > 7 or number <= self.newest.get(node.hoa, -1):
            code = registration.IDENTIFICATION_MISMATCH
            identification = (seconds % 2**32).to_bytes(4, "big") + request.identification[4:]
        else:
            self.newest[node.hoa] = number
            if request.lifetime:
                self.bindings[node.hoa] = (request.care_of_address, datagram.src, datagram.sport)
            else:
                self.bindings.pop(node.hoa, None)
        reply = registration.build_reply(
            code, request.lifetime, node.hoa, HOME_AGENT, identification
        )
        if code == 0 and request.lifetime:
            self._append(reply, request, node, datagram)
        if self.mangle is not None:
            self.mangle(reply)
        auth.append_mobile_home(reply, request.authenticator.spi, "hmac-sha256", node.settings.key)
        self.network.send(self, HOME_AGENT, 434, datagram.src, datagram.sport, bytes(reply))

    def _append(self, reply, request, node, datagram):
        for asked in request.all(extensions.MobileNetworkRequest):
            own = (asked.prefix, asked.plen) in self.authorized[node.hoa]
            extensions.append_mobile_network_ack(reply, 0 if own else 2, asked.prefix, asked.plen)
        extensions.append_udp_tunnel_reply(reply, 0, True, 25)
        capability = request.find(extensions.RouteOptimizationCapability)
        if capability is None:
            return
        nat = datagram.src != request.care_of_address
        extensions.append_route_optimization_reply(
            reply, capability.outbound_only, nat, capability.solicit
        )
        routers = []
        for hoa in self.bindings:
            solicited = capability.solicit and hoa == capability.home_address
            if hoa != node.hoa and (hoa not in self.hidden or solicited):
                networks = [(p, n, "") for p, n in self.authorized[hoa]]
                routers.append((hoa, self._node(hoa).settings.outbound_only, networks))
        if routers:
            data, _ = prefixes.build_advertisement(routers)
            extensions.append_prefix_advertisement(reply, data)
