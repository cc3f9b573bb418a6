"""Tunnels in no UDP: IP in IP (RFC 2003), GRE (RFC 2784), minimal encapsulation (RFC 2004).

Imported when the first such tunnel is made. Owns their receive sockets and what sends into them.
What arrives is made to look as if it had come in UDP and given to the plane's `_in`: every check
and counter there holds for it. Where copying is quick, that is one batch again. The tunnel's port,
IP protocol << 16, is 0 there (core/encapsulation.py).

The records of the length oracle are the first octets of the outer header: its total length is the
packet's.
"""

from haaro.compat import const
from haaro.dataplane.base import BATCH
from haaro.dataplane.chosen import leaves
from haaro.dataplane.receiving import Port

try:
    from haaro.dataplane import leaves_encapsulation_viper as own
except (ImportError, SyntaxError, AttributeError, ValueError):
    from haaro.dataplane import leaves_encapsulation as own  # type: ignore[no-redef]

RECORD = 8

_IPIP = const(4)
_GRE = const(47)
_MINIMAL = const(55)
# How far in front of a packet the headers may begin that it had in UDP, for a batch of them.
_HEADROOM = const(24 * 33)
_OVERHEAD = const(32)
_CS6 = const(0xC0)
_SOL_SOCKET = const(1)
_SO_PRIORITY = const(12)
_PRIORITY_CONTROL = const(6)
_AHEAD = const(16)  # octets in front of a control packet, for headers

_total = leaves.total
_move = leaves.move
_unwrap = own.unwrap
_minimal = own.minimal


class _Port(Port):
    """Two receive sockets of one IP protocol at an uplink."""

    def __init__(self, pair: tuple, uplink: int, protocol: int, other) -> None:
        super().__init__(pair, uplink)
        self.protocol = protocol
        self.other = other


class _Ipip:
    """Sends IP in IP; the outer header is the kernel's. `write` is called as a socket's, with the
    four octets in front of the packet that are the tunnel header in UDP.
    """

    def __init__(self, raw) -> None:
        self._raw = raw
        self._write = raw.write
        self.setsockopt = raw.setsockopt

    def close(self) -> None:
        self._raw.close()

    def write(self, buffer, start: int, octets: int):
        return self._write(buffer, start + 4, octets - 4)


class _Gre(_Ipip):
    """Sends GRE without a checksum."""

    def write(self, buffer, start: int, octets: int):
        buffer[start] = 0
        buffer[start + 1] = 0
        buffer[start + 2] = 8
        buffer[start + 3] = 0
        return self._write(buffer, start, octets)


class _Minimal(_Ipip):
    """Sends minimal encapsulation, and as IP in IP what that has no room for: fragments (RFC 2004
    3). What has IP options too.
    """

    def __init__(self, raw, whole, ends: bytes) -> None:
        super().__init__(raw)
        self._whole = whole
        self._ends = ends

    def write(self, buffer, start: int, octets: int):
        ip = start + 4
        if buffer[ip] != 0x45 or buffer[ip + 6] & 0x3F or buffer[ip + 7]:
            return self._write(buffer, ip, octets - 4)
        _minimal(buffer, ip, self._ends)
        try:
            return self._whole.write(buffer, ip - 12, octets + 8)
        except OSError:
            # Not for the caller to repeat: the header is another one now.
            try:
                return self._whole.write(buffer, ip - 12, octets + 8)
            except OSError:
                return None

    def close(self) -> None:
        self._raw.close()
        self._whole.close()


class OtherEncapsulations:
    """Tunnels in no UDP of one plane. `refused`: packets that were not what their protocol says."""

    def __init__(self, plane) -> None:
        self._plane = plane
        self._room = memoryview(plane._batch)[_HEADROOM:]
        self.refused = 0

    def sender(self, uplink: int, local: bytes, remote: bytes, port: int):
        """Return what sends into a tunnel, which is received from, too; raises OSError."""
        self.receive(uplink, port)
        sockets = self._plane._sockets
        interface = self._plane._uplinks[uplink][0]
        protocol = port >> 16
        if protocol != _MINIMAL:
            made = _Gre if protocol == _GRE else _Ipip
            return made(sockets.raw_sender(protocol, interface, local, remote))
        raw = sockets.raw_sender(_IPIP, interface, local, remote)
        try:
            whole = sockets.raw_sender(protocol, interface, local, remote, True)
        except OSError:
            raw.close()
            raise
        return _Minimal(raw, whole, local + remote)

    def receive(self, uplink: int, port: int) -> None:
        """Receive at an open uplink what tunnels with this port carry; raises OSError."""
        plane = self._plane
        protocol = port >> 16
        for wanted in (protocol, _IPIP) if protocol == _MINIMAL else (protocol,):
            if any(p.other and p.uplink == uplink and p.protocol == wanted for p in plane._ports):
                continue
            interface, address = plane._uplinks[uplink]
            for pair in plane._sockets.raw_pairs(wanted, interface, address):
                plane._watch(_Port(pair, uplink, wanted, self))

    def read(self, port) -> None:
        """Forward one batch of the port; raises OSError."""
        plane = self._plane
        batch = plane._batch
        records = plane._records
        protocol = port.protocol
        uplink = port.uplink
        got = port.lengths.readinto(records, RECORD * BATCH)
        if not got:
            return
        count = got // RECORD
        plane._received += count
        octets = port.packets.readinto(self._room, _total(records, 0, count, RECORD, 0)) or 0
        at = _HEADROOM
        end = at + octets
        # Those that wait at the front of the batch, and where they end.
        gathered = to = 0
        while at + 20 <= end:
            length = batch[at + 2] << 8 | batch[at + 3]
            if length < 20 or at + length > end:
                break
            ip = _unwrap(batch, at, protocol)
            if not ip:
                self.refused += 1
            elif leaves.FAST:
                octets = at + length - ip + _OVERHEAD
                _move(batch, to, ip - _OVERHEAD, octets)
                to += octets
                gathered += 1
            else:
                # Before the next is touched: its header is over the end of this one.
                plane._in(ip - _OVERHEAD, 1, uplink)
            plane._handled += 1
            count -= 1
            at += length
        if gathered:
            plane._in(0, gathered, uplink)
        if at < end:
            # Records without a packet, after an overflow, made the sum too large.
            plane._cut += 1
            count -= 1
        if count > 0:
            plane._skipped += count
        else:
            plane._unrecorded -= count

    def control(self, tunnel: int, packet: bytes) -> bool:
        """Send one packet of the control plane, marked and ahead of data; False: not done."""
        plane = self._plane
        sender = plane._send[tunnel]
        buffer = bytearray(_AHEAD) + packet
        plane._mark(tunnel, _CS6)
        try:
            sender.setsockopt(_SOL_SOCKET, _SO_PRIORITY, _PRIORITY_CONTROL)
            return sender.write(buffer, _AHEAD - 4, len(packet) + 4) is not None
        except OSError:
            return False
        finally:
            # No host's packet leaves with this priority.
            plane._mark(tunnel, 0)
