"""Inner packets on their way through: encapsulate, answer, report, or drop and count.

Owns the rate of ICMP errors. The decision where a packet goes is forwarding's. Called by core; the
shell's fast path does the same for whole flows of plain packets and leaves all else to this.
"""

from haaro.wire import ipv4
from haaro.wire.errors import WireError
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent import encapsulations
from haaro_host.home_agent.bindings import OVERHEAD, UDP, Binding
from haaro_host.home_agent.bucket import TokenBucket
from haaro_host.home_agent.forwarding import is_signalling, not_unicast
from haaro_host.home_agent.fragments import decrement_ttl, fragment
from haaro_host.home_agent.state import RAW_PORT, State, Transmit

_ICMP_ERRORS_A_SECOND = 50
_ICMP_ERRORS_BURST = 50

_UNREACHABLE_HOST = 1
_UNREACHABLE_PROHIBITED = 13
_ICMP_FOR_DROP = {
    "ttl_expired": (ipv4.TIME_EXCEEDED, 0),
    "no_binding": (ipv4.UNREACHABLE, _UNREACHABLE_HOST),
    "outside_not_allowed": (ipv4.UNREACHABLE, _UNREACHABLE_PROHIBITED),
}


class Delivery:
    """Moves inner packets on a State."""

    def __init__(self, state: State) -> None:
        """Work on `state`."""
        self._state = state
        self._icmp_errors = TokenBucket(_ICMP_ERRORS_A_SECOND, _ICMP_ERRORS_BURST)

    def deliver(self, now: int, packet: bytes, binding: Binding | None) -> None:
        """Forward an inner packet as `forward` decides: queue it, answer it, or count the drop."""
        decision = self._state.forwarding.forward(packet, binding)
        kind = decision[0]
        if binding is not None and kind != "drop":
            binding.rx_packets += 1
        if kind == "tunnel":
            target = decision[1]
            if binding is not None:
                changed = bytearray(packet)
                decrement_ttl(changed)
                packet = bytes(changed)
            self._encapsulate(now, packet, binding, target)
        elif kind == "outside":
            self._state.queue_outside(packet)
        elif kind == "local":
            assert binding is not None
            self._local(packet, binding)
        else:
            reason = str(decision[1])
            self._state.drop(reason)
            if reason in _ICMP_FOR_DROP:
                icmp_type, icmp_code = _ICMP_FOR_DROP[reason]
                self._icmp_error(now, packet, binding, icmp_type, icmp_code, 0)

    def tunnel_mtu(self, binding: Binding) -> int:
        """Return the largest inner packet that fits the tunnel of `binding` whole, in octets."""
        return self._state.config.mtu - OVERHEAD[binding.encapsulation]

    def tunnel_data(self, now: int, src: bytes, sport: int, data: bytes) -> None:
        """Take a MIP Tunnel Data message from `src`:`sport` (RFC 3519 3.3, 4.3)."""
        binding = self._state.forwarding.by_tunnel_end(src, sport, data[16:20])
        if binding is None:
            self._state.drop("unknown_tunnel_end")
        elif len(data) < 4 or data[1] != ipv4.PROTOCOL_IPIP:
            # RFC 3519 3.3: only the encapsulation agreed at registration.
            self._state.drop("next_header")
        else:
            self.deliver(now, data[4:], binding)

    def _encapsulate(
        self, now: int, packet: bytes, origin: Binding | None, target: Binding
    ) -> None:
        mtu = self.tunnel_mtu(target)
        if len(packet) <= mtu:
            # Between routers: whoever sent it, it was on its way to a router's home address.
            control = packet[16:20] == target.home_address and is_signalling(packet)
            self._send_inner(target, packet, control)
        elif packet[6] & 0x40:
            self._state.drop("fragmentation_needed")
            # RFC 1191 4: tell the sender what fits.
            self._icmp_error(now, packet, origin, ipv4.UNREACHABLE, ipv4.FRAGMENTATION_NEEDED, mtu)
        else:
            # RFC 3519 4.8: before encapsulation, each piece with its own UDP header.
            for piece in fragment(packet, mtu):
                self._send_inner(target, piece)

    def _send_inner(self, target: Binding, packet: bytes, control: bool = False) -> None:
        target.tx_packets += 1
        if target.encapsulation == UDP:
            data = TUNNEL_HEADER + packet
            self._state.queue(Transmit(target.source, target.source_port, data, control))
        else:
            source, end = self._state.config.address, target.source
            whole = encapsulations.wrap(target.encapsulation, source, end, packet)
            self._state.queue(Transmit(end, RAW_PORT, whole))

    def _local(self, packet: bytes, binding: Binding) -> None:
        """Answer the keepalive: an ICMP echo to our own address (RFC 3519 4.9)."""
        try:
            ip = ipv4.parse_ipv4(packet)
            echo = ipv4.parse_icmp_echo(packet, ip) if ip.protocol == ipv4.PROTOCOL_ICMP else None
        except WireError as error:
            self._state.drop(f"local_{error.reason}")
            return
        if echo and echo[0]:
            self._state.queue_outside(packet)  # to our own kernel: the operator pings a router
            return
        if echo is None:
            # Signalling is never tunnelled (RFC 3519 4.7) and nothing else listens here.
            self._state.drop("local_not_echo")
            return
        _, ident, sequence, payload = echo
        self._state.counters["echo_answered"] += 1
        keepalive = ip.src == binding.home_address  # else a host of the office pings us
        tos = ipv4.TOS_NETWORK_CONTROL if keepalive else ip.tos
        answer = ipv4.build_icmp_echo(ip.dst, ip.src, True, ident, sequence, payload, tos)
        self._send_inner(binding, answer, keepalive)

    def _icmp_error(
        self, now: int, packet: bytes, origin: Binding | None, icmp_type: int, code: int, mtu: int
    ) -> None:
        """Report to the sender of `packet`, never about an ICMP error or a later fragment."""
        header = (packet[0] & 15) * 4
        if (packet[6] << 8 | packet[7]) & 0x1FFF or not_unicast(packet[12:16]):
            return
        if packet[9] == ipv4.PROTOCOL_ICMP and packet[header : header + 1] not in (
            bytes([ipv4.ECHO_REQUEST]),
            bytes([ipv4.ECHO_REPLY]),
        ):
            return
        if not self._icmp_errors.take(self._state.time(now)):
            self._state.drop("icmp_error_limited")
            return
        self._state.counters["icmp_error_sent"] += 1
        report = ipv4.build_icmp_error(self._state.config.address, icmp_type, code, mtu, packet)
        if origin is not None:
            self._send_inner(origin, report)
        else:
            self._state.queue_outside(report)
