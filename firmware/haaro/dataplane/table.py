"""The forwarding table: prefixes in, one sorted run of disjoint intervals out.

Owns the layout the leaves search. It is built aside by the control plane, in the buffer of the
table before last, and never changed while in use: the data plane replaces it as a whole. An
address is looked up as two 16-bit halves: 32-bit integers are heap objects on a 32-bit
MicroPython.

Entry, 10 octets, from its start address up to the start of the next entry:

     0       1       2       3       4       5       6       7       8       9
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+
    | start address                 | route | source| flags |   0   | hint          |
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+

route: tunnel id, 255 = drop. source: the direct tunnel that packets from here may arrive by,
255 = none. hint: index into the plane's `wanted`, 65535 = none.
"""

from haaro.compat import const
from haaro.dataplane.chosen import leaves

ENTRY = 10
OWN_NETWORK = 1
OWN_HOME_ADDRESS = 2
TUNNEL_END = 4

_ROUTE = const(4)
_SOURCE = const(5)
_FLAGS = const(6)


class Builder:
    """Builds into the buffer `data`, `entries` of which are in use afterwards.

    The buffer is the bound: prefixes that find no room are left out, longest first, and counted
    in `omitted`; what they would have routed goes the way of the next shorter match.
    """

    def __init__(self, data: bytearray) -> None:
        self.data = data
        self.entries = 0
        self.omitted = 0
        self._view = memoryview(data)

    def build(self, routes, sources, networks, home_address: bytes, ends) -> None:
        """Make the table of these prefixes, replacing what was in `data`.

        routes: (prefix4, plen, tunnel_id, hint), longest match wins, the first listed wins a tie.
        sources: (prefix4, plen, tunnel_id). networks: own (prefix4, plen). ends: addresses of
        tunnel ends, 4 octets each. A negative id or hint means none.
        """
        self.entries = 1
        self.omitted = 0
        self.data[:ENTRY] = b"\0\0\0\0\xff\xff\0\0\xff\xff"
        for network in networks:
            self._paint(network + (OWN_NETWORK,), _FLAGS)
        self._paint((home_address, 32, OWN_HOME_ADDRESS), _FLAGS)
        for end in ends:
            self._paint((end, 32, TUNNEL_END), _FLAGS)
        # Shortest first, so that the longest match ends on top.
        for plen in range(33):
            for i in range(len(routes) - 1, -1, -1):
                if routes[i][1] == plen:
                    self._paint(routes[i], _ROUTE)
            for i in range(len(sources) - 1, -1, -1):
                if sources[i][1] == plen:
                    self._paint(sources[i], _SOURCE)

    def renew_ends(self, other, ends) -> None:
        """Make the table of `other`, a Builder of the same size, with these tunnel ends instead."""
        octets = other.entries * ENTRY
        self._view[:octets] = other._view[:octets]
        self.entries = other.entries
        self.omitted = other.omitted
        for at in range(_FLAGS, octets, ENTRY):
            self.data[at] &= ~TUNNEL_END
        for end in ends:
            self._paint((end, 32, TUNNEL_END), _FLAGS)

    def _paint(self, row, field):
        data = self.data
        if (self.entries + 2) * ENTRY > len(data):
            self.omitted += 1
            return
        at = self._split(row[0])
        end = self.entries * ENTRY
        above = int.from_bytes(row[0], "big") + (1 << (32 - row[1]))
        if above >> 32 == 0:
            end = self._split(above.to_bytes(4, "big"))
        while at < end:
            if field == _FLAGS:
                data[at + _FLAGS] |= row[2]
            else:
                data[at + field] = row[2] & 255
            if field == _ROUTE:
                data[at + 8] = row[3] >> 8 & 255
                data[at + 9] = row[3] & 255
            at += ENTRY

    def _split(self, address):
        """Return the offset of the entry that starts at `address`, made if there was none."""
        data = self.data
        at = leaves.find(data, self.entries, address, 0)
        if data[at : at + 4] == address:
            return at
        end = self.entries * ENTRY
        at += ENTRY
        self._view[at + ENTRY : end + ENTRY] = self._view[at:end]
        self._view[at : at + ENTRY] = self._view[at - ENTRY : at]
        self._view[at : at + 4] = address
        self.entries += 1
        return at
