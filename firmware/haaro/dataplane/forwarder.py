"""The hot path of the userspace data plane: batches in, whole packets out, nothing lost by us.

Owns the queues to the control plane and the counters of packets; receiving.py owns the receive
sockets. Never opens a socket and never parses signalling: `userspace.UserspacePlane` puts it
together. Per packet it allocates nothing, raises nothing and logs nothing.
"""

import time

from haaro.compat import const
from haaro.dataplane import base, table
from haaro.dataplane.base import MAX_TUNNELS, REASONS
from haaro.dataplane.chosen import leaves
from haaro.dataplane.oversize import fragment, icmp_error, plan
from haaro.dataplane.receiving import Receiver

_HINTED = const(1 << 24)
_CONTROL = const(1 << 24)
_FRAGMENT = const(1 << 25)
_ETHERNET = const(14)
_VNET = const(10)
_OVERHEAD = const(32)
# Queues to the control plane: drained each turn of the loop; what does not fit is counted.
_CONTROL_QUEUE = const(32)
_STRAY_QUEUE = const(8)
# A stray is a keepalive, nothing longer.
_STRAY_OCTETS = const(128)
# ICMP errors toward the LAN: at most one in this time.
_ICMP_INTERVAL_MS = const(20)

_outbound = leaves.outbound
_tunnel_of = leaves.tunnel_of
_inbound = leaves.inbound
_control = leaves.control
_find = leaves.find


def _no_lan(buffer, at, octets):
    return None


class Forwarder(Receiver):
    """State and methods that a packet meets; batch and records are buffers of `POOL_SIZES`."""

    def __init__(self, batch: bytearray, records: bytearray, sockets, home_address: bytes) -> None:
        super().__init__(batch, records, sockets)
        self._home_address = home_address
        self._table = b""
        self._entries = 0
        self._state = bytearray(base.STATE_SIZE)
        self._error = bytearray(_VNET + _ETHERNET + 28 + 68)  # an ICMP error, its vnet header 0
        self._scratch = memoryview(self._error)[_VNET:]
        self.wanted = bytearray(base.MAX_HINTS)
        self.wanted_any = False
        self._lan_write = _no_lan
        self._ahead = _ETHERNET  # octets in front of a LAN packet's IP header
        self._fast = None  # fast_path_viper.py, where the platform has what it needs
        self._send: list = [None] * MAX_TUNNELS
        self._tos = bytearray(MAX_TUNNELS)  # that each sends with
        # Octets that the kernel cuts what each sends into, 0 = it does not, -1 = it cannot.
        self._segments = [-1] * MAX_TUNNELS
        self._rx = [0] * MAX_TUNNELS
        self._tx = [0] * MAX_TUNNELS
        self._refused = [0] * len(REASONS)
        self._last = 0
        self._controls: list = []
        self._strays: list = []
        self._icmp_at = 0
        self._out_forwarded = 0
        self._in_forwarded = 0
        self._in_control = 0
        self._in_stray = 0

    def _out(self, at, count):
        """Forward `count` frames from `at` of the batch on; return where they end."""
        if self._fast:
            return self._fast.frames(self, at, count)
        batch = self._batch
        rows = self._table
        entries = self._entries
        state = self._state
        wanted = self.wanted
        toses = self._tos
        while count:
            count -= 1
            at += _ETHERNET
            verdict = _outbound(batch, at, rows, entries, state, wanted)
            if verdict < 0 or verdict >= _FRAGMENT:
                at += self._out_rarely(at, verdict)
                continue
            if verdict >= _HINTED:
                self.wanted_any = True
                verdict &= _HINTED - 1
            length = verdict >> 8
            tunnel = verdict & 0xFF
            if batch[at + 1] != toses[tunnel]:
                self._mark(tunnel, batch[at + 1])
            try:
                sent = self._send[tunnel].write(batch, at - 4, length + 4)
            except OSError:
                sent = self._again(tunnel, at - 4, length + 4)
            if sent is None:
                self._send_errors += 1
            else:
                self._tx[tunnel] += 1
                self._out_forwarded += 1
            at += length
        return at

    def _segment(self, tunnel, size):
        """Have the kernel cut what is longer into packets of `size`, 0 = not; False: it cannot."""
        try:
            self._sockets.segment(self._send[tunnel], size)
            self._segments[tunnel] = size
            return True
        except OSError:
            self._segments[tunnel] = -1
            return False

    def _mark(self, tunnel, tos):
        """Send with the inner packet's DSCP and ECN from here on (RFC 6040 4.1, normal mode).

        Called when a run of packets of another TOS begins: it is an option of the socket.
        """
        try:
            self._sockets.mark(self._send[tunnel], tos)
            self._tos[tunnel] = tos
        except OSError:
            self._port_errors += 1

    def _again(self, tunnel, at, octets):
        """Send once more after an error; return None if that fails too.

        Perhaps it was only the error an ICMP message left on the socket, anyone's: it is cleared
        by telling, and must not cost a packet.
        """
        try:
            return self._send[tunnel].write(self._batch, at, octets)
        except OSError:
            return None

    def _out_rarely(self, at, verdict):
        """Refuse or cut the packet at `at`; return its length."""
        batch = self._batch
        length = batch[at + 2] << 8 | batch[at + 3]
        if verdict >= 0:
            if verdict & _HINTED:
                self.wanted_any = True
            self._fragments(verdict & 0xFF, at, length)
        else:
            self._refused[-verdict] += 1
            if verdict == -base.OUT_TOO_BIG:
                self._icmp(at, 3, 4)
            elif verdict == -base.OUT_TTL_EXCEEDED:
                self._icmp(at, 11, 0)
        return length

    def _fragments(self, tunnel, at, length):
        batch = self._batch
        if batch[at + 1] != self._tos[tunnel]:
            self._mark(tunnel, batch[at + 1])
        if self._segments[tunnel] > 0:
            self._segment(tunnel, 0)
        slot = tunnel * base.SLOT + base.SLOT_MTU
        chunk = plan(batch, at, self._state[slot] << 8 | self._state[slot + 1])
        state = length << 16 | batch[at + 6] << 8 | batch[at + 7]
        data = length - ((batch[at] & 15) << 2)
        done = 0
        while done < data:
            octets = fragment(batch, at, done, chunk, state)
            try:
                sent = self._send[tunnel].write(batch, at + done - 4, octets + 4)
            except OSError:
                sent = self._again(tunnel, at + done - 4, octets + 4)
            if sent is None:
                self._send_errors += 1
                return
            done += chunk
        self._tx[tunnel] += 1
        self._out_forwarded += 1

    def _icmp(self, at, kind, code):
        """Answer the packet at `at` with an ICMP error from our home address, rate limited."""
        now = time.ticks_ms()  # type: ignore[attr-defined]
        if 0 <= time.ticks_diff(now, self._icmp_at) < _ICMP_INTERVAL_MS:  # type: ignore[attr-defined]
            return
        mtu = 0
        if kind == 3:
            entry = _find(self._table, self._entries, self._batch, at + 16)
            slot = self._table[entry + 4] * base.SLOT + base.SLOT_MTU
            mtu = self._state[slot] << 8 | self._state[slot + 1]
        length = icmp_error(self._scratch, self._batch, at, self._home_address, kind, code, mtu)
        if length:
            self._icmp_at = now
            try:
                ahead = self._ahead
                self._lan_write(self._error, _VNET + _ETHERNET - ahead, ahead + length)
            except OSError:
                self._send_errors += 1

    def _in(self, at, count, uplink):
        """Forward `count` datagrams from `at` of the batch on; return where they end."""
        if self._fast:
            return self._fast.datagrams(self, at, count, uplink)
        batch = self._batch
        rows = self._table
        entries = self._entries
        state = self._state
        rx = self._rx
        write = self._lan_write
        tunnel = self._last
        while count:
            count -= 1
            tunnel = _tunnel_of(batch, at, state, tunnel, uplink)
            if tunnel < 0:
                at += self._no_tunnel(at, tunnel, uplink)
                tunnel = 0
                continue
            verdict = _inbound(batch, at + _OVERHEAD, rows, entries, state, tunnel)
            if verdict < 0 or verdict >= _CONTROL:
                at += self._in_rarely(at, verdict, tunnel, uplink)
                continue
            rx[tunnel] += 1
            length = verdict >> 8
            try:
                # The Ethernet header lies over the end of the outer headers.
                sent = write(batch, at + _OVERHEAD - _ETHERNET, length + _ETHERNET)
            except OSError:
                sent = None
            if sent is None:
                self._send_errors += 1
            else:
                self._in_forwarded += 1
            at += _OVERHEAD + length
        self._last = tunnel
        return at

    def _in_rarely(self, at, verdict, tunnel, uplink):
        """Refuse the datagram at `at` or divert it to the control plane; return its length."""
        length = self._batch[at + 34] << 8 | self._batch[at + 35]
        if verdict < 0:
            self._refused[-verdict] += 1
        else:
            self._divert(at, length, tunnel, uplink)
        return _OVERHEAD + length

    def _no_tunnel(self, at, verdict, uplink):
        """Refuse the datagram at `at`, or set it aside as a stray; return its length."""
        length = self._batch[at + 34] << 8 | self._batch[at + 35]
        if verdict == -base.IN_UNKNOWN_TUNNEL_END and self._stray(at, length, uplink):
            self._in_stray += 1
        else:
            self._refused[-verdict] += 1
        return _OVERHEAD + length

    def _divert(self, at, length, tunnel, uplink):
        batch = self._batch
        if len(self._controls) >= _CONTROL_QUEUE:
            self._refused[base.IN_CONTROL_OVERFLOW] += 1
            return
        try:
            packet = bytes(batch[at + _OVERHEAD : at + _OVERHEAD + length])
            source = bytes(batch[at + 12 : at + 16])
            port = batch[at + 20] << 8 | batch[at + 21]
            self._controls.append((tunnel, packet, source, port, uplink))
            self._in_control += 1
        except MemoryError:
            self._refused[base.IN_CONTROL_OVERFLOW] += 1

    def _stray(self, at, length, uplink):
        """Queue a keepalive to our home address from an unknown end; False if it is none."""
        batch = self._batch
        ip = at + _OVERHEAD
        if length > _STRAY_OCTETS or leaves.header(batch, ip) < 0:
            return False
        entry = _find(self._table, self._entries, batch, ip + 16)
        if not self._table[entry + 6] & table.OWN_HOME_ADDRESS or _control(batch, ip, length) != 1:
            return False
        if len(self._strays) >= _STRAY_QUEUE:
            self._refused[base.IN_STRAY_OVERFLOW] += 1
            return False
        try:
            source = bytes(batch[at + 12 : at + 16])
            port = batch[at + 20] << 8 | batch[at + 21]
            destination = bytes(batch[at + 16 : at + 20])
            data = bytes(batch[at + 28 : ip + length])
            self._strays.append((uplink, source, port, destination, data))
            return True
        except MemoryError:
            return False

    def user_rx(self, tunnel: int) -> int:
        """Return the user packets taken from a tunnel: what goes to the core is none."""
        return self._rx[tunnel]

    def user_tx(self, tunnel: int) -> int:
        """Return the user packets sent into a tunnel: what the core sends is none."""
        return self._tx[tunnel]

    def counters(self) -> dict:
        """Return {name: packets}: forwarded, diverted, and refused by reason."""
        result = {
            "out_forwarded": self._out_forwarded,
            "in_forwarded": self._in_forwarded,
            "in_control": self._in_control,
            "in_stray": self._in_stray,
        }
        for i in range(1, len(REASONS)):
            result[REASONS[i]] = self._refused[i]
        return result
