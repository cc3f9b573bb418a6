"""Packets that do not fit into their tunnel: cut into fragments, or answered with an ICMP error.

Called by the data plane for single packets; works in the batch buffer and allocates nothing.
"""

from haaro.dataplane.chosen import leaves


def plan(batch, at: int, mtu: int) -> int:
    """Return how many data octets each fragment of the packet at `at` carries, all but the last."""
    return (mtu - ((batch[at] & 15) << 2)) & ~7


def fragment(batch, at: int, done: int, chunk: int, state: int) -> int:
    """Turn the next `chunk` data octets of the packet at `at` into a fragment; return its length.

    Fragments are made first to last, in place: the header of this one is written at `at` + done,
    over data already sent, 4 octets of tunnel header before it. done: octets of data sent so far.
    state: length of the whole packet << 16 | its own flags and offset, from before the first call.
    Deviates from RFC 791 3.1: all options travel in every fragment, copied flag or not.
    """
    header = (batch[at] & 15) << 2
    data = (state >> 16) - header
    if chunk > data - done:
        chunk = data - done
    more = 0x2000 if done + chunk < data else state & 0x2000
    offset = (state & 0x1FFF) + (done >> 3) | more
    to = at + done
    if done:
        i = 0
        while i < header:
            batch[to + i] = batch[at + i]
            i += 1
        batch[to - 4] = 4
        batch[to - 3] = 4
        batch[to - 2] = 0
        batch[to - 1] = 0
    length = header + chunk
    batch[to + 2] = length >> 8
    batch[to + 3] = length & 255
    batch[to + 6] = offset >> 8
    batch[to + 7] = offset & 255
    seal(batch, to, 10, header)
    return length


def icmp_error(out, batch, at: int, source: bytes, kind: int, code: int, mtu: int) -> int:
    """Write an ICMP error about the packet at `at` into `out` at 14; return its length, 0 = none.

    The answer quotes the header and 8 octets (RFC 792), carries the next hop's MTU (RFC 1191 4)
    and goes to the packet's source. None about a later fragment or about an ICMP error
    (RFC 1122 3.2.2). `out` has room for 14 + 28 + 68 octets.
    """
    header = (batch[at] & 15) << 2
    if batch[at + 6] & 0x1F or batch[at + 7]:
        return 0
    if batch[at + 9] == 1 and batch[at + header] not in (0, 8):
        return 0
    quoted = header + 8
    length = 28 + quoted
    i = 14
    while i < 14 + 28:
        out[i] = 0
        i += 1
    out[14] = 0x45
    out[17] = length
    out[22] = 64
    out[23] = 1
    i = 0
    while i < 4:
        out[26 + i] = source[i]
        out[30 + i] = batch[at + 12 + i]
        i += 1
    seal(out, 14, 10, 20)
    out[34] = kind
    out[35] = code
    out[40] = mtu >> 8
    out[41] = mtu & 255
    i = 0
    while i < quoted:
        out[42 + i] = batch[at + i]
        i += 1
    seal(out, 34, 2, 8 + quoted)
    return length


def seal(buffer, at: int, field: int, octets: int) -> None:
    """Write the checksum of `octets` octets at `at` into its field, `field` octets after `at`."""
    buffer[at + field] = 0
    buffer[at + field + 1] = 0
    s = leaves.checksum(buffer, at, octets)
    buffer[at + field] = s >> 8
    buffer[at + field + 1] = s & 255
