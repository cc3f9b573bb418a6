# ruff: noqa: F821
"""The viper twins of `leaves_encapsulation`; on ports without a code emitter a SyntaxError."""

import micropython


@micropython.viper
def unwrap(batch, at: int, protocol: int) -> int:
    batch_p = ptr8(batch)
    end = at + (batch_p[at + 2] << 8 | batch_p[at + 3])
    tos = batch_p[at + 1]
    ip = at + 20
    if protocol == 47:
        # RFC 2784 2.3: bits 1 to 5 and the version must be 0, the others are ignored.
        if end < at + 44 or batch_p[at + 20] & 0x7C or batch_p[at + 21] & 7:
            return 0
        if batch_p[at + 22] != 8 or batch_p[at + 23]:
            return 0
        ip = at + 24
        if batch_p[at + 20] & 0x80:
            if end < at + 48 or int(total(batch, at + 20, end)) != 0xFFFF:
                return 0
            ip = at + 28
    s0 = batch_p[at + 12]
    s1 = batch_p[at + 13]
    s2 = batch_p[at + 14]
    s3 = batch_p[at + 15]
    if protocol == 55:
        ip = int(inner(batch, at, end))
        if ip == 0:
            return 0
    elif end < ip + 20 or end - ip != (batch_p[ip + 2] << 8 | batch_p[ip + 3]):
        return 0
    # Of the outer headers, what is looked at.
    batch_p[ip - 31] = tos
    batch_p[ip - 20] = s0
    batch_p[ip - 19] = s1
    batch_p[ip - 18] = s2
    batch_p[ip - 17] = s3
    batch_p[ip - 12] = 0
    batch_p[ip - 11] = 0
    return ip


@micropython.viper
def total(batch, at: int, end: int) -> int:
    batch_p = ptr8(batch)
    s = 0
    while at < end - 1:
        s += batch_p[at] << 8 | batch_p[at + 1]
        at += 2
    if at < end:
        s += batch_p[at] << 8
    s = (s & 0xFFFF) + (s >> 16)
    return (s & 0xFFFF) + (s >> 16)


@micropython.viper
def inner(batch, at: int, end: int) -> int:
    batch_p = ptr8(batch)
    present = batch_p[at + 21] & 0x80
    size = 12 if present else 8
    if end < at + 20 + size or int(total(batch, at + 20, at + 20 + size)) != 0xFFFF:
        return 0
    protocol = batch_p[at + 20]
    ip = at + size
    # Whichever is behind is written first: all lies one over the other.
    source = at + 28 if present else at + 12
    s0 = batch_p[source]
    s1 = batch_p[source + 1]
    s2 = batch_p[source + 2]
    s3 = batch_p[source + 3]
    d0 = batch_p[at + 24]
    d1 = batch_p[at + 25]
    d2 = batch_p[at + 26]
    d3 = batch_p[at + 27]
    i = 8
    while i >= 0:
        batch_p[ip + i] = batch_p[at + i]
        i -= 1
    batch_p[ip + 2] = (end - ip) >> 8
    batch_p[ip + 3] = (end - ip) & 255
    batch_p[ip + 9] = protocol
    batch_p[ip + 10] = 0
    batch_p[ip + 11] = 0
    batch_p[ip + 12] = s0
    batch_p[ip + 13] = s1
    batch_p[ip + 14] = s2
    batch_p[ip + 15] = s3
    batch_p[ip + 16] = d0
    batch_p[ip + 17] = d1
    batch_p[ip + 18] = d2
    batch_p[ip + 19] = d3
    s = int(total(batch, ip, ip + 20)) ^ 0xFFFF
    batch_p[ip + 10] = s >> 8
    batch_p[ip + 11] = s & 255
    return ip


@micropython.viper
def minimal(batch, ip: int, local):
    batch_p = ptr8(batch)
    local_p = ptr8(local)
    new = ip - 12
    d0 = batch_p[ip + 16]
    d1 = batch_p[ip + 17]
    d2 = batch_p[ip + 18]
    d3 = batch_p[ip + 19]
    protocol = batch_p[ip + 9]
    i = 0
    while i < 9:
        batch_p[new + i] = batch_p[ip + i]
        i += 1
    # The source stays where it is, at the end of the forwarding header, but four octets on.
    i = 15
    while i >= 12:
        batch_p[ip + i + 4] = batch_p[ip + i]
        i -= 1
    batch_p[new + 9] = 55
    i = 0
    while i < 8:
        batch_p[new + 12 + i] = local_p[i]
        i += 1
    batch_p[ip + 8] = protocol
    batch_p[ip + 9] = 0x80
    batch_p[ip + 10] = 0
    batch_p[ip + 11] = 0
    batch_p[ip + 12] = d0
    batch_p[ip + 13] = d1
    batch_p[ip + 14] = d2
    batch_p[ip + 15] = d3
    s = int(total(batch, ip + 8, ip + 20)) ^ 0xFFFF
    batch_p[ip + 10] = s >> 8
    batch_p[ip + 11] = s & 255
