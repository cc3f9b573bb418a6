"""The data plane of boards: tunnels by plain UDP sockets, the LAN by a port without sockets.

Owns the receive paths: one socket for each uplink brings signalling and tunnel data alike, told
apart by their first octets, and the LAN port (lan/w5500.py) gives frames one by one. All judgement
is Forwarder's: each datagram gets the outer header it came with, as far as lwIP tells.

What lwIP costs: `recvfrom` makes an object for each datagram and its address, about 1.6 KB for one
of 1400 octets, and a frame that leaves a view of it; so the heap is collected often. It hides the
outer TOS, so congestion that the path marked is not seen, and tells nothing of the path's MTU.
"""

import gc

from haaro.compat import const
from haaro.dataplane.base import MAX_TUNNELS
from haaro.dataplane.userspace import UserspacePlane
from haaro.lan.copying import copy
from haaro.wire import ipv4

_LARGEST = const(1536)
_OUTER = const(28)
_PORT = const(434)
# In one turn, of one socket or the port: the others and the timers wait for no flood.
_BURST = const(16)
_SIGNALS = const(16)


class UdpPlane(UserspacePlane):
    """`sockets` is an object as platform/lwip_sockets.py's; `pools` that of pools.make_pools."""

    def __init__(self, pools: tuple, sockets, home_address: bytes, networks: list) -> None:
        super().__init__(pools, sockets, home_address, networks)
        self._use_runs = 0
        self._batch[:20] = b"\x45" + bytes(8) + b"\x11" + bytes(10)
        sockets.view = memoryview(self._batch)
        self._sources: dict = {}  # (address, port) as the port says it: 6 octets
        self._event = None
        # Signalling that came: (uplink, src, sport, dst, dport, data).
        self.signals: list = []
        self._no_memory = 0
        self._empty = 0
        self._signals_lost = 0

    def register(self, poll) -> None:
        """Have the sockets, now and later, and the LAN port watched by `poll`."""
        self._poll = poll
        for index in self._uplinks:
            poll.register(self._sockets.of(self._uplinks[index]), 1)
        if self._event:
            poll.register(self._event, 1)

    def attach_lan(self, lan) -> None:
        """Use this LAN port (lan/base.py)."""
        super().attach_lan(lan)
        self._event = lan.event or event_of(lan.pending)
        if self._poll:
            self._poll.register(self._event, 1)

    def handle(self, obj, event: int) -> bool:
        """Forward what has come by `obj`; False if it is none of ours, or signalling waits."""
        if obj is self._event:
            self._read_lan()
            return True
        for index, uplink in self._uplinks.items():
            if self._sockets.of(uplink) is obj:
                self._read_uplink(index, obj, uplink[1])
                return not self.signals
        return False

    def _read_lan(self):
        read = self._lan.read
        batch = self._batch
        for _ in range(_BURST):
            if not read(batch, _OUTER):
                return
            self._received += 1
            self._handled += 1
            self._out(_OUTER, 1)

    def _read_uplink(self, index, receiver, local):
        batch = self._batch
        empty = 0
        for _ in range(_BURST):
            try:
                data, source = receiver.recvfrom(_LARGEST)
            except OSError:
                return  # EAGAIN, or what lwIP says in its place
            except MemoryError:
                self._no_memory += 1
                gc.collect()
                return
            octets = len(data)
            if not octets:
                self._empty += 1
                empty += 1
                if empty > 1:
                    self._renew(index)
                    return
                continue
            if not (
                octets >= 24
                and data[0] == 4
                and data[1] == 4
                and not data[2]
                and not data[3]
                and data[4] >> 4 == 4
                and (data[6] << 8 | data[7]) == octets - 4
            ):
                self._signal(index, source, local, data)
                continue
            self._received += 1
            self._handled += 1
            end = self._sources.get(source) or self._learn(source)
            # Octet by octet, since slices are objects. All but the first each time: `_in` puts the
            # LAN's header where the outer ones were.
            batch[12] = end[0]
            batch[13] = end[1]
            batch[14] = end[2]
            batch[15] = end[3]
            batch[16] = local[0]
            batch[17] = local[1]
            batch[18] = local[2]
            batch[19] = local[3]
            batch[20] = end[4]
            batch[21] = end[5]
            copy(batch, _OUTER, data, 0, octets)
            self._in(0, 1, index)

    def _renew(self, index):
        """Open the socket of an uplink anew.

        esp32's takes an empty datagram, anyone's, for the end of a connection, and gives nothing
        but emptiness from then on.
        """
        uplink = self._uplinks[index]
        self._end(uplink)
        try:
            self._begin(uplink)
        except OSError:
            self._port_errors += 1  # `check` tries again

    def check(self) -> None:
        """Open what could not be opened anew; called about once a second."""
        for index, uplink in self._uplinks.items():
            if self._sockets.of(uplink) is None:
                self._renew(index)

    def _begin(self, uplink):
        opened = self._sockets.open(*uplink)
        if self._poll:
            self._poll.register(opened, 1)

    def _end(self, uplink):
        opened = self._sockets.of(uplink)
        if opened is not None:
            if self._poll:
                self._poll.unregister(opened)
            self._sockets.close(uplink)

    def _learn(self, source):
        """Return the 6 octets of an address, kept for the next datagram from there."""
        if len(self._sources) > 2 * MAX_TUNNELS:
            self._sources.clear()
        end = ipv4.address(source[0]) + source[1].to_bytes(2, "big")
        self._sources[source] = end
        return end

    def _signal(self, index, source, local, data):
        if len(self.signals) >= _SIGNALS:
            self._signals_lost += 1
            return
        end = self._sources.get(source) or self._learn(source)
        self.signals.append((index, end[:4], end[4] << 8 | end[5], local, _PORT, data))

    def open_uplink(
        self, index: int, interface: str | None, address: bytes, mtu: int = 1500
    ) -> None:
        """Receive for `address`; raises OSError. Replaces what was open, unless it is the same."""
        if self._uplinks.get(index) == (interface, address):
            return
        self.close_uplink(index)
        self._begin((interface, address))
        self._uplinks[index] = (interface, address)
        self._runs[index] = 0
        self._renew_ends()

    def close_uplink(self, index: int) -> None:
        """Close the socket of an uplink and the tunnels over it."""
        uplink = self._uplinks.get(index)
        if uplink is None:
            return
        super().close_uplink(index)
        self._end(uplink)

    def own_loss(self) -> dict:
        """As Receiver's; no_memory: the heap had no room for a datagram; signals_lost: a flood;
        empty: datagrams without content.
        """
        answer = super().own_loss()
        answer["no_memory"] = self._no_memory
        answer["empty"] = self._empty
        answer["signals_lost"] = self._signals_lost
        return answer

    def close(self) -> None:
        """Close all sockets and the LAN port."""
        for index in list(self._uplinks):
            self.close_uplink(index)
        if self._lan:
            if self._poll:
                self._poll.unregister(self._event)
            self._lan.close()
            self._lan = None


def event_of(pending):
    """Return what `poll` can ask for what has no event of its own: ready when `pending()` is."""
    import io

    class Event(io.IOBase):
        def ioctl(self, request, argument):
            # 3: MP_STREAM_POLL; no other request has a meaning here.
            if request == 3:
                return argument & 1 if pending() else 0
            return -22

    return Event()
