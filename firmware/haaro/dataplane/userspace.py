"""The userspace data plane: tunnels, uplinks and the forwarding table around the hot path.

Owns the tunnel sockets and which uplinks are open. Never parses signalling and decides no route.
Called by the shell's loop and platform/linux.py. The packets themselves are forwarder.py's.
"""

from haaro.dataplane import base, table
from haaro.dataplane.base import MAX_TUNNELS
from haaro.dataplane.chosen import leaves
from haaro.dataplane.forwarder import Forwarder
from haaro.dataplane.path_mtu import RECORD, PathMtu
from haaro.dataplane.receiving import Port


def _no_control(uplink, remote, port, data):
    return False


class UserspacePlane(Forwarder):
    """One data plane. `sockets` is the platform's factory (platform/linux_sockets.py).

    pools: the buffers of `pools.make_pools`. networks: own (prefix4, plen).
    """

    def __init__(self, pools: tuple, sockets, home_address: bytes, networks: list) -> None:
        batch, records, built, aside = pools
        super().__init__(batch, records, sockets, home_address)
        self._networks = networks
        self._uplinks: dict = {}  # index: (interface, address)
        self._keys: list = [None] * MAX_TUNNELS  # (uplink, local, remote, port)
        self._others: dict = {}  # tunnel: (uplink, remote, port)
        self._raw = None  # OtherEncapsulations, once there is a tunnel in no UDP
        self._mtus: dict = {}  # tunnel: what its link allows
        self._path = PathMtu()
        self._use_runs = leaves.FAST
        self._runs = bytearray(8)  # by uplink: takes_runs
        self._icmp_errors = sockets.icmp_errors()
        self._poll = None
        self._lan = None
        # (uplink, remote, port, datagram) -> bool: sends control packets, ahead of data.
        self.control = _no_control
        self._built = table.Builder(built)
        self._aside = table.Builder(aside)
        self.swap([], [])

    @property
    def attention(self) -> bool:
        """True if the loop has something to collect."""
        return self.wanted_any or bool(self._controls) or bool(self._strays)

    def register(self, poll) -> None:
        """Have all receive sockets, now and later, watched by `poll`."""
        self._poll = poll
        for port in self._ports:
            poll.register(port.lengths, 1)
        poll.register(self._icmp_errors, 1)

    def handle(self, obj, event: int) -> bool:
        """As Receiver; also takes what the path tells of its MTU."""
        if self._fast and self._fast.handle(self, obj):
            return True
        return self._take_error(obj) or super().handle(obj, event)

    def _take_error(self, obj):
        if obj is not self._icmp_errors:
            return False
        records = self._records
        try:
            octets = obj.readinto(records, len(records) // RECORD * RECORD) or 0
        except OSError:
            octets = 0
        for at in range(0, octets, RECORD):
            tunnel = self._path.take(records, at, self._keys, self.mtu)
            if tunnel >= 0:
                self._set_mtu(tunnel)
        return True

    def check(self) -> None:
        """End what is only believed for a while."""
        tunnel = self._path.expired()
        while tunnel >= 0:
            if tunnel in self._mtus:
                self._set_mtu(tunnel)
            tunnel = self._path.expired()

    def clamp_mss(self, on: bool) -> None:
        """Make TCP SYNs, both ways, ask for segments that fit into their tunnel, or do not.

        Called before there are tunnels.
        """
        self._state[base.STATE_CLAMP] = 1 if on else 0

    def mtu(self, tunnel: int) -> int:
        """Return the MTU of the inner packet: what the link allows, or less that the path takes."""
        at = tunnel * base.SLOT + base.SLOT_MTU
        return self._state[at] << 8 | self._state[at + 1]

    def _set_mtu(self, tunnel):
        mtu = self._path.fits(tunnel, self._mtus[tunnel])
        at = tunnel * base.SLOT + base.SLOT_MTU
        self._state[at] = mtu >> 8
        self._state[at + 1] = mtu & 255

    def attach_lan(self, lan) -> None:
        """Use this LAN attachment (lan/base.py)."""
        self._lan = lan
        self._lan_write = lan.write
        self._state[base.STATE_ETHERNET : base.STATE_ETHERNET + 14] = lan.ethernet
        self._state[base.STATE_TTL_STEP] = lan.ttl_step
        self._scratch[:14] = lan.ethernet
        ahead = getattr(lan, "ahead", 0)
        if ahead and leaves.FAST:
            from haaro.dataplane import fast_path_viper

            self._fast = fast_path_viper
            self._ahead = ahead
            self._joins_udp = 1 if lan.joins_udp else 0
            self._head = bytearray(fast_path_viper.HEAD)
        for pair in lan.pairs:
            self._add_port(pair, -1)

    def open_uplink(self, index: int, interface: str, address: bytes, mtu: int = 1500) -> None:
        """Receive tunnelled packets for `address`; raises OSError.

        Replaces what was open; if that has this address, it and its tunnels stay as they are.
        """
        if self._uplinks.get(index) == (interface, address):
            return
        self.close_uplink(index)
        pairs = self._sockets.tunnel_pairs(interface, address, self._home_address)
        self._uplinks[index] = (interface, address)
        self._runs[index] = self._sockets.takes_runs(interface) if self._use_runs else 0
        for pair in pairs:
            self._add_port(pair, index)
        self._renew_ends()

    def close_uplink(self, index: int) -> None:
        """Close the sockets of an uplink and of the tunnels over it."""
        opened = self._uplinks.pop(index, None)
        if opened is None:
            return
        if self._runs[index] > 1:
            self._sockets.takes_runs(opened[0], True)
        for port in [p for p in self._ports if p.uplink == index]:
            self._drop_port(port)
        for tunnel in range(MAX_TUNNELS):
            key = self._keys[tunnel]
            if key and key[0] == index:
                self.delete_tunnel(tunnel)
            elif tunnel in self._others and self._others[tunnel][0] == index:
                self._set_other(tunnel, None)

    def set_tunnel(
        self,
        tunnel: int,
        uplink: int,
        local: bytes,
        remote: bytes,
        remote_port: int,
        mtu: int,
        peer: bytes | None = None,
        also: tuple | None = None,
    ) -> bool:
        """Make or change tunnel `tunnel`; mtu is that of the inner packet. False: no socket for it.

        remote_port: over 65535 it is IP protocol << 16 (core/encapsulation.py).
        peer: the inner address keepalives come from; the remote end's address if not given.
        also: (uplink, remote, port) of one more end that packets are accepted from; none are sent
        there (RFC 6521 3.3.6: after a move both care-of addresses are good for a while).
        """
        key = (uplink, local, remote, remote_port)
        at = tunnel * base.SLOT
        state = self._state
        if key != self._keys[tunnel]:
            self.delete_tunnel(tunnel)
            opened = self._uplinks.get(uplink)
            if opened is None or opened[1] != local:
                return False
            try:
                if remote_port > 0xFFFF:
                    raw = self._other_encapsulations()
                    self._send[tunnel] = raw.sender(uplink, local, remote, remote_port)
                else:
                    self._send[tunnel] = self._sockets.tunnel(opened[0], local, remote, remote_port)
            except OSError:
                self._port_errors += 1
                return False
            self._tos[tunnel] = 0
            self._segments[tunnel] = 0 if self._runs[uplink] and remote_port <= 0xFFFF else -1
            self._keys[tunnel] = key
            self._set_end(at, uplink, remote, remote_port)
            self._renew_ends()
        self._mtus[tunnel] = mtu
        self._set_mtu(tunnel)
        state[at + base.SLOT_PEER : at + base.SLOT_PEER + 4] = peer or remote
        state[at + base.SLOT_UP] = 1
        self._set_other(tunnel, also)
        return True

    def _other_encapsulations(self):
        if self._raw is None:
            from haaro.dataplane.other_encapsulations import OtherEncapsulations

            self._raw = OtherEncapsulations(self)
        return self._raw

    def _set_end(self, at, uplink, remote, port):
        state = self._state
        port &= 0xFFFF
        state[at + base.SLOT_REMOTE : at + base.SLOT_REMOTE + 4] = remote
        state[at + base.SLOT_PORT] = port >> 8
        state[at + base.SLOT_PORT + 1] = port & 255
        state[at + base.SLOT_UPLINK] = uplink

    def _set_other(self, tunnel, other):
        if other == self._others.get(tunnel):
            return
        at = tunnel * base.SLOT + base.SLOT_OTHER
        if other is None:
            del self._others[tunnel]
        else:
            self._others[tunnel] = other
            self._set_end(at, *other)
            if other[2] > 0xFFFF and other[0] in self._uplinks:
                try:
                    self._other_encapsulations().receive(other[0], other[2])
                except OSError:
                    self._port_errors += 1
        self._state[at + base.SLOT_UP] = 0 if other is None else 1
        self._state[base.STATE_OTHERS] = 1 if self._others else 0
        self._renew_ends()

    def delete_tunnel(self, tunnel: int) -> None:
        """Close a tunnel; packets routed to it are dropped until the next `swap`."""
        self._set_other(tunnel, None)
        self._state[tunnel * base.SLOT + base.SLOT_UP] = 0
        if self._keys[tunnel] is not None:
            # Another path, of which nothing is known.
            self._path.lowered.pop(tunnel, None)
            self._keys[tunnel] = None
            self._send[tunnel].close()
            self._send[tunnel] = None
            self._renew_ends()

    def swap(self, routes: list, sources: list) -> None:
        """Forward by these tables from the next packet on (core Router.forwarding_table)."""
        self._aside.build(routes, sources, self._networks, self._home_address, self._ends())
        self._use_aside()

    def commit(self) -> None:
        """Put in force what was asked for: here all of it is already."""

    def look_around(self) -> None:
        """The box's links or routes have changed: nothing here depends on them."""

    def _renew_ends(self):
        self._aside.renew_ends(self._built, self._ends())
        self._use_aside()

    def _use_aside(self):
        built = self._aside
        self._aside = self._built
        self._built = built
        self._entries = built.entries
        self._table = built.data

    def _ends(self):
        """Return the addresses a packet must not be tunnelled to: that would be recursion."""
        ends = [uplink[1] for uplink in self._uplinks.values()]
        for key in self._keys:
            if key and key[2] not in ends:
                ends.append(key[2])
        for other in self._others.values():
            if other[1] not in ends:
                ends.append(other[1])
        return ends

    def send(self, tunnel: int, packet: bytes) -> bool:
        """Send one inner packet of the control plane; False if that could not be done."""
        end = self._keys[tunnel]
        if end and end[3] > 0xFFFF:
            if self._raw.control(tunnel, packet):
                return True
        elif end and self.control(end[0], end[2], end[3], b"\x04\x04\x00\x00" + packet):
            return True
        self._send_errors += 1
        return False

    def take(self, uplink: int, packet: bytes) -> None:
        """Handle one datagram, from its outer IPv4 header on, that came by another socket.

        It is a well-formed tunnel packet (platform/bpf.py).
        """
        self._batch[: len(packet)] = packet
        self._received += 1
        self._handled += 1
        self._in(0, 1, uplink)

    def next_control(self) -> tuple | None:
        """Return (tunnel, packet, outer source, its port, uplink) of the next diverted packet."""
        return self._controls.pop(0) if self._controls else None

    def next_stray(self) -> tuple | None:
        """Return (uplink, source, port, destination, UDP payload) of a keepalive of no tunnel."""
        return self._strays.pop(0) if self._strays else None

    def counters(self) -> dict:
        """Return {name: packets}; table_omitted counts prefixes that found no room."""
        result = super().counters()
        result["table_omitted"] = self._built.omitted
        if self._raw:
            result["in_bad_encapsulation"] = self._raw.refused
        return result

    def close(self) -> None:
        """Close all sockets."""
        for index in list(self._uplinks):
            self.close_uplink(index)
        for port in self._ports[:]:
            self._drop_port(port)
        if self._lan:
            self._lan.close()
            self._lan = None
        if self._poll:
            self._poll.unregister(self._icmp_errors)
        self._icmp_errors.close()

    def _add_port(self, pair, uplink):
        self._watch(Port(pair, uplink, self._ahead))

    def _watch(self, port):
        self._ports.append(port)
        if self._poll:
            self._poll.register(port.lengths, 1)

    def _drop_port(self, port):
        self._ports.remove(port)
        self._dropped += max(0, self._drops([port]))
        if self._poll:
            self._poll.unregister(port.lengths)
        port.lengths.close()
        port.packets.close()
