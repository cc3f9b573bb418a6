"""Cutting and joining of superframes, in plain Python: what the kernel's TSO and GRO do elsewhere.

A superframe is one packet that stands for many of one flow, equal but for identification, length,
sequence number and checksums; the kernel hands it on and takes it with a vnet header in front
(struct virtio_net_hdr, 10 octets, little-endian here):

     0       1       2       3       4       5       6       7       8       9
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+
    | flags | kind  | header octets | segment size  | checksum from | and there at  |
    +-------+-------+-------+-------+-------+-------+-------+-------+-------+-------+

flags 1: the checksum is still to be made, its field holds the sum of the pseudo header. kind: 0 one
packet, 1 TCP over IPv4, 5 UDP. Offsets count from the Ethernet header, which follows.

`leaves_superframes_viper` holds the same functions for ports with a code emitter. Buffers are
borrowed for the call; a call allocates nothing.
"""

from haaro.compat import const

# vnet and Ethernet header in front of a packet.
_AHEAD = const(24)
_FIN_PSH = const(0x09)
# FIN, SYN, RST, PSH, URG, CWR: a first segment with one of them has no second.
_LAST = const(0xAF)


def opened(batch, at: int) -> int:
    """Return the segment size of the frame with the vnet header at `at`; 0: one packet, -1: other.

    The checksum of one packet is made if the kernel left it to us.
    """
    kind = batch[at + 1]
    if kind:
        return batch[at + 4] | batch[at + 5] << 8 if kind == 1 else -1
    if batch[at] & 1:
        start = at + 10 + (batch[at + 6] | batch[at + 7] << 8)
        field = start + (batch[at + 8] | batch[at + 9] << 8)
        end = at + _AHEAD + (batch[at + _AHEAD + 2] << 8 | batch[at + _AHEAD + 3])
        if field + 2 <= end:
            s = add(batch, start, end - start) ^ 0xFFFF
            if not s:
                s = 0xFFFF
            batch[field] = s >> 8
            batch[field + 1] = s & 255
    return 0


def keep(batch, at: int, octets: int, head) -> None:
    """Copy the headers at `at` into `head`."""
    i = 0
    while i < octets:
        head[i] = batch[at + i]
        i += 1


def cut(batch, to: int, at: int, octets: int, size: int, head, last: int) -> int:
    """Write `octets` octets of payload at `at` as tunnel packets from `to` on; return their end.

    head: tunnel, IPv4 and TCP header of the next segment; left as that of the one after. last: the
    superframe ends with these, so FIN and PSH belong to the last of them. `to` is so far before
    `at` that all headers fit.
    """
    ip = (head[4] & 15) << 2
    tcp = 4 + ip
    header = tcp + (head[tcp + 12] >> 4 << 2)
    head[6] = head[7] = head[14] = head[15] = head[tcp + 16] = head[tcp + 17] = 0
    while octets > 0:
        part = size if octets > size else octets
        octets -= part
        flags = head[tcp + 13]
        head[tcp + 13] = flags & 0x7F
        if octets or not last:
            flags &= 0xF6
        i = 0
        while i < header:
            batch[to + i] = head[i]
            i += 1
        total = header - 4 + part
        batch[to + 6] = total >> 8
        batch[to + 7] = total & 255
        batch[to + 14] = 0
        batch[to + 15] = 0
        s = add(batch, to + 4, ip) ^ 0xFFFF
        batch[to + 14] = s >> 8
        batch[to + 15] = s & 255
        here = to + tcp
        batch[here + 13] = flags
        batch[here + 16] = 0
        batch[here + 17] = 0
        s = copy(batch, to + header, at, part) + add(batch, here, header - tcp)
        s += add(batch, to + 16, 8) + 6 + total - ip
        s = (s & 0xFFFF) + (s >> 16)
        s = ((s & 0xFFFF) + (s >> 16)) ^ 0xFFFF
        batch[here + 16] = s >> 8
        batch[here + 17] = s & 255
        to += header + part
        at += part
        i = (head[8] << 8 | head[9]) + 1
        head[8] = i >> 8 & 255
        head[9] = i & 255
        i = (head[tcp + 6] << 8 | head[tcp + 7]) + part
        head[tcp + 6] = i >> 8 & 255
        head[tcp + 7] = i & 255
        i = (head[tcp + 4] << 8 | head[tcp + 5]) + (i >> 16)
        head[tcp + 4] = i >> 8 & 255
        head[tcp + 5] = i & 255
    return to


def joinable(batch, ip: int, udp: int) -> int:
    """Return the payload octets of the packet at `ip` if others may be joined to it, else 0.

    udp: whether that goes for UDP. The packet has been checked by `leaves.inbound`.
    """
    if batch[ip] != 0x45 or batch[ip + 6] & 0xBF or batch[ip + 7]:
        return 0
    length = batch[ip + 2] << 8 | batch[ip + 3]
    if batch[ip + 9] == 6:
        if length < 40 or batch[ip + 33] & _LAST or batch[ip + 32] < 0x50:
            return 0
        length -= 20 + (batch[ip + 32] >> 4 << 2)
        return length if length > 0 else 0
    if batch[ip + 9] != 17 or not udp or length <= 28 or not whole_udp(batch, ip, length):
        return 0
    return length - 28


def whole_udp(batch, ip: int, length: int) -> int:
    """Return whether the UDP packet at `ip` is as long as it says and has a checksum."""
    if batch[ip + 24] << 8 | batch[ip + 25] != length - 20:
        return 0
    return 1 if batch[ip + 26] or batch[ip + 27] else 0


def join(batch, start: int, total: int, ip: int, size: int) -> int:
    """Join the packet at `ip` to the one at `start`, `total` octets long; return the new total.

    0: they do not belong together, nothing was changed. Negative: minus the new total, and nothing
    more may be joined. size: payload of the first. The rules are those of Linux's GRO, narrower
    where a vnet header could not bring it back: identifications grow by one, no CWR. All checksums
    are right, or nothing is joined. What is joined would have passed `leaves.inbound` as the first
    did, if no TTL is lowered and the outer header marks no congestion.
    """
    if batch[ip] != 0x45 or not same(batch, start, ip, 6, 4) or not same(batch, start, ip, 12, 12):
        return 0
    if batch[ip + 1] != batch[start + 1]:
        return 0
    udp = batch[ip + 9] == 17
    data = 28 if udp else 20 + (batch[start + 32] >> 4 << 2)
    length = batch[ip + 2] << 8 | batch[ip + 3]
    part = length - data
    if part <= 0 or part > size:
        return 0
    done = total - data
    i = (batch[start + 4] << 8 | batch[start + 5]) + done // size
    if batch[ip + 4] != i >> 8 & 255 or batch[ip + 5] != i & 255:
        return 0
    last = 0
    if udp:
        if not whole_udp(batch, ip, length):
            return 0
    else:
        # Acknowledgement, header length, window, urgent pointer and options.
        if not same(batch, start, ip, 28, 5) or not same(batch, start, ip, 34, 2):
            return 0
        if not same(batch, start, ip, 38, data - 38):
            return 0
        last = batch[ip + 33]
        if (last ^ batch[start + 33]) & 0xF6:
            return 0
        last &= _FIN_PSH
        i = (batch[start + 26] << 8 | batch[start + 27]) + done
        if batch[ip + 26] != i >> 8 & 255 or batch[ip + 27] != i & 255:
            return 0
        i = (batch[start + 24] << 8 | batch[start + 25]) + (i >> 16)
        if batch[ip + 24] != i >> 8 & 255 or batch[ip + 25] != i & 255:
            return 0
    if done == size and not right(batch, start, total):
        return 0
    if add(batch, ip, 20) != 0xFFFF or not right(batch, ip, length):
        return 0
    copy(batch, start + total, ip + data, part)
    total += part
    batch[start + 33] = batch[start + 33] | last
    return 0 - total if last or part < size else total


def same(batch, a: int, b: int, at: int, octets: int) -> int:
    """Return whether the `octets` octets `at` behind a and b are equal."""
    a += at
    b += at
    while octets:
        octets -= 1
        if batch[a + octets] != batch[b + octets]:
            return 0
    return 1


def right(batch, ip: int, length: int) -> int:
    """Return whether the TCP or UDP checksum of the packet at `ip`, without options, is right."""
    s = add(batch, ip + 12, length - 12) + batch[ip + 9] + length - 20
    s = (s & 0xFFFF) + (s >> 16)
    return 1 if (s & 0xFFFF) + (s >> 16) == 0xFFFF else 0


def seal(batch, ip: int, total: int, size: int) -> None:
    """Make what was joined at `ip` a superframe of `total` octets, vnet header in front."""
    udp = batch[ip + 9] == 17
    batch[ip + 2] = total >> 8
    batch[ip + 3] = total & 255
    batch[ip + 10] = 0
    batch[ip + 11] = 0
    s = add(batch, ip, 20) ^ 0xFFFF
    batch[ip + 10] = s >> 8
    batch[ip + 11] = s & 255
    length = total - 20
    s = add(batch, ip + 12, 8) + batch[ip + 9] + length
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    data = 42
    field = 16
    if udp:
        field = 6
        batch[ip + 24] = length >> 8
        batch[ip + 25] = length & 255
    else:
        data = 34 + (batch[ip + 32] >> 4 << 2)
    batch[ip + 20 + field] = s >> 8
    batch[ip + 21 + field] = s & 255
    ip -= _AHEAD
    batch[ip] = 1
    batch[ip + 1] = 5 if udp else 1
    batch[ip + 2] = data
    batch[ip + 3] = 0
    batch[ip + 4] = size & 255
    batch[ip + 5] = size >> 8
    batch[ip + 6] = 34
    batch[ip + 7] = 0
    batch[ip + 8] = field
    batch[ip + 9] = 0


def single(batch, ip: int) -> None:
    """Write the vnet header of one packet in front of its frame."""
    i = ip - _AHEAD
    ip -= 14
    while i < ip:
        batch[i] = 0
        i += 1


def add(batch, at: int, octets: int) -> int:
    """Return the sum of RFC 1071 over `octets` octets at `at`, folded, not inverted."""
    s = 0
    end = at + octets - 1
    while at < end:
        s += batch[at] << 8 | batch[at + 1]
        at += 2
    if at == end:
        s += batch[at] << 8
    s = (s & 0xFFFF) + (s >> 16)
    return (s & 0xFFFF) + (s >> 16)


def copy(batch, to: int, at: int, octets: int) -> int:
    """Copy `octets` octets from `at` to `to`, which is before it; return their sum as `add`."""
    i = 0
    while i < octets:
        batch[to + i] = batch[at + i]
        i += 1
    return add(batch, to, octets)
