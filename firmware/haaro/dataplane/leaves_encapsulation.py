"""Packets of tunnels in no UDP, turned into what the other leaves know, in plain Python.

`leaves_encapsulation_viper` holds the same for ports with a code emitter. All buffers are borrowed
for the call; nothing is allocated.
"""


def unwrap(batch, at: int, protocol: int) -> int:
    """Make the packet at `at`, without IP options, look as if it had come in UDP (RFC 3519 3.3).

    The 32 octets in front of the inner packet become its outer headers, source port 0: up to 24 of
    them lie before `at`. protocol: 4, 47 or 55 (RFC 2003, 2784, 2004); the length in the header is
    true. Returns the offset of the inner packet, 0 if there is none.
    """
    end = at + (batch[at + 2] << 8 | batch[at + 3])
    tos = batch[at + 1]
    ip = at + 20
    if protocol == 47:
        # RFC 2784 2.3: bits 1 to 5 and the version must be 0, the others are ignored.
        if end < at + 44 or batch[at + 20] & 0x7C or batch[at + 21] & 7:
            return 0
        if batch[at + 22] != 8 or batch[at + 23]:
            return 0
        ip = at + 24
        if batch[at + 20] & 0x80:
            if end < at + 48 or total(batch, at + 20, end) != 0xFFFF:
                return 0
            ip = at + 28
    s0 = batch[at + 12]
    s1 = batch[at + 13]
    s2 = batch[at + 14]
    s3 = batch[at + 15]
    if protocol == 55:
        ip = inner(batch, at, end)
        if not ip:
            return 0
    elif end < ip + 20 or end - ip != (batch[ip + 2] << 8 | batch[ip + 3]):
        return 0
    # Of the outer headers, what is looked at.
    batch[ip - 31] = tos
    batch[ip - 20] = s0
    batch[ip - 19] = s1
    batch[ip - 18] = s2
    batch[ip - 17] = s3
    batch[ip - 12] = 0
    batch[ip - 11] = 0
    return ip


def total(batch, at: int, end: int) -> int:
    """Return the ones' complement sum of the 16-bit words from `at` up to `end`."""
    s = 0
    while at < end - 1:
        s += batch[at] << 8 | batch[at + 1]
        at += 2
    if at < end:
        s += batch[at] << 8
    s = (s & 0xFFFF) + (s >> 16)
    return (s & 0xFFFF) + (s >> 16)


def inner(batch, at: int, end: int) -> int:
    """Restore the header that minimal encapsulation took apart (RFC 2004 3); return its offset."""
    present = batch[at + 21] & 0x80
    size = 12 if present else 8
    if end < at + 20 + size or total(batch, at + 20, at + 20 + size) != 0xFFFF:
        return 0
    protocol = batch[at + 20]
    ip = at + size
    # Whichever is behind is written first: all lies one over the other.
    source = at + 28 if present else at + 12
    s0 = batch[source]
    s1 = batch[source + 1]
    s2 = batch[source + 2]
    s3 = batch[source + 3]
    d0 = batch[at + 24]
    d1 = batch[at + 25]
    d2 = batch[at + 26]
    d3 = batch[at + 27]
    i = 8
    while i >= 0:
        batch[ip + i] = batch[at + i]
        i -= 1
    batch[ip + 2] = (end - ip) >> 8
    batch[ip + 3] = (end - ip) & 255
    batch[ip + 9] = protocol
    batch[ip + 10] = 0
    batch[ip + 11] = 0
    batch[ip + 12] = s0
    batch[ip + 13] = s1
    batch[ip + 14] = s2
    batch[ip + 15] = s3
    batch[ip + 16] = d0
    batch[ip + 17] = d1
    batch[ip + 18] = d2
    batch[ip + 19] = d3
    s = total(batch, ip, ip + 20) ^ 0xFFFF
    batch[ip + 10] = s >> 8
    batch[ip + 11] = s & 255
    return ip


def minimal(batch, ip: int, local) -> None:
    """Make the packet at `ip`, whole and without options, one in minimal encapsulation at ip - 12.

    local: our end, 4 octets; the address of the other end is at local[4:8]. The kernel writes
    length and checksum of the header.
    """
    new = ip - 12
    d0 = batch[ip + 16]
    d1 = batch[ip + 17]
    d2 = batch[ip + 18]
    d3 = batch[ip + 19]
    protocol = batch[ip + 9]
    i = 0
    while i < 9:
        batch[new + i] = batch[ip + i]
        i += 1
    # The source stays where it is, at the end of the forwarding header, but four octets on.
    i = 15
    while i >= 12:
        batch[ip + i + 4] = batch[ip + i]
        i -= 1
    batch[new + 9] = 55
    i = 0
    while i < 8:
        batch[new + 12 + i] = local[i]
        i += 1
    batch[ip + 8] = protocol
    batch[ip + 9] = 0x80
    batch[ip + 10] = 0
    batch[ip + 11] = 0
    batch[ip + 12] = d0
    batch[ip + 13] = d1
    batch[ip + 14] = d2
    batch[ip + 15] = d3
    s = total(batch, ip + 8, ip + 20) ^ 0xFFFF
    batch[ip + 10] = s >> 8
    batch[ip + 11] = s & 255
