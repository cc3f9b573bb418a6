"""The fast path: tunnel data between routers and to the home network.

Owns the receive buffer and the flow cache. What is not a plain packet of a known flow goes to the
sans-IO core, which decides by the same tables. Called by the shell when a socket is readable.

A flow is (binding it came from, inner source and destination): as long as the tables stay the same,
all its packets go the same way, so the decision is made once.
"""

import os
import socket
import struct
from collections.abc import Callable

from haaro.wire.ipv4 import text
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent.bindings import UDP, Binding
from haaro_host.home_agent.core import HomeAgent

# One turn of the loop: enough to amortise it, few enough that the other socket gets its turn.
_BATCH = 64
_BUFFER = 65536
_MAX_FLOWS = 4096  # a binding; full: all forgotten, and found again one by one
_INNER = 4  # octets of tunnel data header before the inner packet
_VERSION_4_NO_OPTIONS = 0x45
_CE, _ECT_1 = 3, 1

_addresses = struct.Struct("!Q").unpack_from


class _Flow:
    """Where the packets of one flow go. `end` is None for the kernel's routing."""

    __slots__ = ("end", "limit", "origin", "target")

    def __init__(
        self,
        origin: Binding | None,
        target: Binding | None,
        end: tuple[str, int] | None,
        limit: int,
    ) -> None:
        self.origin = origin
        self.target = target
        self.end = end
        self.limit = limit


class _End:
    """One tunnel end we receive from, with the flows seen from there."""

    __slots__ = ("binding", "flows")

    def __init__(self, binding: Binding | None) -> None:
        self.binding = binding
        self.flows: dict[int, _Flow] = {}


class Plane:
    """Drains the UDP socket and the TUN device. `slow_*` are the shell's ways into the core."""

    def __init__(
        self,
        agent: HomeAgent,
        udp: socket.socket,
        tun: int,
        slow_datagram: Callable[[tuple[str, int], bytes], None],
        slow_packet: Callable[[bytes], None],
    ) -> None:
        """Work on the sockets `udp` and `tun`, both non-blocking."""
        self._agent = agent
        self._udp = udp
        self._tun = tun
        self._slow_datagram = slow_datagram
        self._slow_packet = slow_packet
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._generation = -1
        self._ends: dict[tuple[str, int], _End] = {}
        self._outside = _End(None)
        self._tos = 0  # that the UDP socket sends with
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)

    def refresh(self) -> None:
        """Forget all flows if a forwarding decision may have changed."""
        if self._generation == self._agent.generation:
            return
        self._generation = self._agent.generation
        self._outside = _End(None)
        self._ends = {}
        for binding in self._agent.bindings.values():
            for end in (binding.end(), binding.previous):
                if end and end[0] == UDP and not self._agent.is_shared_end(end[1], end[2]):
                    self._ends[text(end[1]), end[2]] = _End(binding)

    def on_udp(self) -> None:
        """Take up to a batch of datagrams; the loop calls again while there are more."""
        buffer, view = self._buffer, self._view
        receive, send, write = self._udp.recvmsg_into, self._udp.sendto, os.write
        into, room = [buffer], socket.CMSG_SPACE(4)
        for _ in range(_BATCH):
            try:
                size, ancillary, _, source = receive(into, room)
            except BlockingIOError:
                self._mark(0)  # what else leaves by this socket is unmarked
                return
            except OSError:
                self._agent.counters["receive_error"] += 1
                return
            # Type 4, Next Header 4, a whole IPv4 header without options.
            if size < 24 or buffer[0] != 4 or buffer[1] != 4:
                self._slow_datagram(source, bytes(view[:size]))
                continue
            if (
                ancillary
                and ancillary[0][2][0] & 1
                and not self._congestion(ancillary[0][2][0] & 3)
            ):
                continue
            end = self._ends.get(source)
            flow = end.flows.get(_addresses(buffer, 16)[0]) if end else None
            if (
                flow is None
                or buffer[4] != _VERSION_4_NO_OPTIONS
                or (buffer[6] << 8 | buffer[7]) != size - _INNER
                or buffer[12] <= 1
                or size > flow.limit
            ):
                if end and flow is None:
                    self._learn(end, view[_INNER:size])
                self._mark(0)
                self._slow_datagram(source, bytes(view[:size]))
                continue
            flow.origin.rx_packets += 1  # type: ignore[union-attr]
            try:
                if flow.end is None:
                    write(self._tun, view[_INNER:size])
                    continue
                # Forwarded by us: one off the TTL, and the checksum made right (RFC 1141).
                buffer[12] -= 1
                checksum = (buffer[14] << 8 | buffer[15]) + 0x100
                if checksum > 0xFFFF:
                    checksum -= 0xFFFF
                buffer[14] = checksum >> 8
                buffer[15] = checksum & 0xFF
                if buffer[5] != self._tos:
                    self._mark(buffer[5])
                send(view[:size], flow.end)
                flow.target.tx_packets += 1  # type: ignore[union-attr]
            except OSError:
                # Full queues, an unreachable end: lost as on any link, never retried.
                self._agent.counters["send_error"] += 1

    def on_tun(self) -> None:
        """Take up to a batch of packets from the kernel's routing."""
        send, read = self._udp.sendto, os.read
        for _ in range(_BATCH):
            try:
                packet = read(self._tun, _BUFFER)
            except BlockingIOError:
                self._mark(0)
                return
            except OSError:
                self._agent.counters["receive_error"] += 1
                return
            if len(packet) < 20 or packet[0] != _VERSION_4_NO_OPTIONS:
                if packet[:1] and packet[0] >> 4 == 6:
                    self._agent.counters["ipv6_ignored"] += 1
                else:
                    self._slow_packet(packet)
                continue
            flow = self._outside.flows.get(_addresses(packet, 12)[0])
            if flow is None or flow.end is None or len(packet) + _INNER > flow.limit:
                if flow is None:
                    self._learn(self._outside, packet)
                self._mark(0)
                self._slow_packet(packet)
                continue
            try:
                if packet[1] != self._tos:
                    self._mark(packet[1])
                send(TUNNEL_HEADER + packet, flow.end)
                flow.target.tx_packets += 1  # type: ignore[union-attr]
            except OSError:
                self._agent.counters["send_error"] += 1

    def _mark(self, tos: int) -> None:
        """Send with the inner packet's DSCP and ECN from here on (RFC 6040 4.1, normal mode)."""
        if tos != self._tos:
            self._udp.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
            # The TOS sets it too: no host chooses the band that control leaves by.
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 0)
            self._tos = tos

    def _congestion(self, outside: int) -> bool:
        """Mark the inner packet in the buffer as the path marked the outer one, ECT(1) or CE.

        By the table of RFC 6040 4.2; False: it has to be dropped.
        """
        buffer = self._buffer
        inside = buffer[5] & 3
        if not inside:
            if outside == _CE:
                self._agent.counters["congestion_unmarked"] += 1
            return outside == _ECT_1
        # ECT(0) becomes what is outside, ECT(1) only CE, and CE stays.
        if inside != _CE and inside != outside:
            buffer[5] += outside - inside
            checksum = (buffer[14] << 8 | buffer[15]) ^ 0xFFFF
            checksum += 0xFFFF + outside - inside
            checksum = (checksum & 0xFFFF) + (checksum >> 16)
            checksum = ((checksum & 0xFFFF) + (checksum >> 16)) ^ 0xFFFF
            buffer[14], buffer[15] = checksum >> 8, checksum & 0xFF
        return True

    def _learn(self, end: _End, packet: memoryview | bytes) -> None:
        """Cache the way of `packet`'s flow if its addresses alone decide it."""
        decision = self._agent.flow(packet, end.binding)
        if decision[0] == "outside":
            flow = _Flow(end.binding, None, None, _BUFFER)
        elif decision[0] == "tunnel" and decision[1].encapsulation == UDP:
            target: Binding = decision[1]
            address = (text(target.source), target.source_port)
            flow = _Flow(end.binding, target, address, self._agent.tunnel_mtu(target) + _INNER)
        else:
            return
        if len(end.flows) >= _MAX_FLOWS:
            end.flows.clear()
        end.flows[_addresses(packet, 12)[0]] = flow
