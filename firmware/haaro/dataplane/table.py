"""The forwarding table: prefixes in, one sorted run of disjoint intervals out.

Owns the layout the leaves search. It is built aside by the control plane and never changed
afterwards: the data plane replaces it as a whole. An address is looked up as two 16-bit halves,
because 32-bit integers are heap objects on a 32-bit MicroPython.

Entry, 10 octets, from its start address up to the start of the next entry:

     0       1       2       3       4       5       6       7       8       9
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+
    | start address                 | route | source| flags |   0   | hint          |
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+

route: tunnel id, NO_TUNNEL = drop. source: the direct tunnel that packets from here may arrive
by, NO_TUNNEL = none. hint: index into the plane's `wanted`, NO_HINT = none.
"""

ENTRY = 10
NO_TUNNEL = 255
NO_HINT = 0xFFFF
OWN_NETWORK = 1
OWN_HOME_ADDRESS = 2
TUNNEL_END = 4


def build(routes, sources, networks, home_address: bytes, ends) -> bytearray:
    """Return the table for these prefixes.

    routes: (prefix4, plen, tunnel_id, hint), longest match wins, the first listed wins a tie.
    sources: (prefix4, plen, tunnel_id). networks: own (prefix4, plen). ends: tunnel end
    addresses, 4 octets each. A negative id or hint means none.
    """
    # (plen, order, start, value, field): painted shortest first, so the longest ends on top.
    strokes = []
    for field, rows in ((0, routes), (1, sources)):
        for order, row in enumerate(rows):
            hint = row[3] if field == 0 else -1
            strokes.append((row[1], -order, _number(row[0]), row[2], hint, field))
    marks = [(n[0], n[1], OWN_NETWORK) for n in networks]
    marks.append((home_address, 32, OWN_HOME_ADDRESS))
    for end in ends:
        marks.append((end, 32, TUNNEL_END))
    for prefix, plen, flag in marks:
        strokes.append((plen, 0, _number(prefix), flag, -1, 2))
    strokes.sort()
    edges = {0}
    for plen, _, start, _, _, _ in strokes:
        edges.add(_low(start, plen))
        edges.add(_low(start, plen) + (1 << (32 - plen)))
    starts = sorted(edges)
    if starts[-1] == 1 << 32:
        starts.pop()
    table = bytearray(ENTRY * len(starts))
    for i, start in enumerate(starts):
        at = i * ENTRY
        table[at : at + ENTRY] = (
            bytes((start >> 24, start >> 16 & 255, start >> 8 & 255, start & 255))
            + b"\xff\xff\x00\x00\xff\xff"
        )
    for plen, _, start, value, hint, field in strokes:
        low = _low(start, plen)
        _paint(table, starts, low, low + (1 << (32 - plen)), value, hint, field)
    return table


def _paint(table, starts, low, end, value, hint, field):
    i = _position(starts, low)
    while i < len(starts) and starts[i] < end:
        at = i * ENTRY
        if field == 2:
            table[at + 6] |= value
        else:
            table[at + 4 + field] = value & 255
            if field == 0:
                hint &= NO_HINT
                table[at + 8] = hint >> 8
                table[at + 9] = hint & 255
        i += 1


def _position(starts, value):
    a, b = 0, len(starts)
    while b - a > 1:
        m = (a + b) >> 1
        if starts[m] > value:
            b = m
        else:
            a = m
    return a


def _number(address):
    return int.from_bytes(address, "big")


def _low(start, plen):
    return start & (0xFFFFFFFF << (32 - plen)) & 0xFFFFFFFF
