# ruff: noqa: F821
"""The viper twins of `leaves_superframes`: the same functions for ports with a code emitter.

On other ports this file is a SyntaxError; `superframes` is used only where it is none.
"""

import sys

import micropython

from haaro.compat import const

# vnet and Ethernet header in front of a packet.
_AHEAD = const(24)
_FIN_PSH = const(0x09)
# FIN, SYN, RST, PSH, URG, CWR: a first segment with one of them has no second.
_LAST = const(0xAF)


@micropython.viper
def opened(batch, at: int) -> int:
    batch_p = ptr8(batch)
    kind = batch_p[at + 1]
    if kind:
        return batch_p[at + 4] | batch_p[at + 5] << 8 if kind == 1 else -1
    if batch_p[at] & 1:
        start = at + 10 + (batch_p[at + 6] | batch_p[at + 7] << 8)
        field = start + (batch_p[at + 8] | batch_p[at + 9] << 8)
        end = at + _AHEAD + (batch_p[at + _AHEAD + 2] << 8 | batch_p[at + _AHEAD + 3])
        if field + 2 <= end:
            s = int(add(batch, start, end - start)) ^ 0xFFFF
            if not s:
                s = 0xFFFF
            batch_p[field] = s >> 8
            batch_p[field + 1] = s & 255
    return 0


@micropython.viper
def keep(batch, at: int, octets: int, head):
    batch_p = ptr8(batch)
    head_p = ptr8(head)
    i = 0
    while i < octets:
        head_p[i] = batch_p[at + i]
        i += 1


@micropython.viper
def cut(batch, to: int, at: int, octets: int, size: int, head, last: int) -> int:
    batch_p = ptr8(batch)
    head_p = ptr8(head)
    head_w = ptr32(head)
    ip = (head_p[4] & 15) << 2
    tcp = 4 + ip
    header = tcp + (head_p[tcp + 12] >> 4 << 2)
    # Sums of what all headers share; the checksums' fields must not count.
    clear(head, 6, 14, tcp + 16)
    number = head_p[8] << 8 | head_p[9]
    ip_sum = int(add(head, 4, ip)) + 0xFFFF - number
    flags = head_p[tcp + 13]
    high = head_p[tcp + 4] << 8 | head_p[tcp + 5]
    low = head_p[tcp + 6] << 8 | head_p[tcp + 7]
    tcp_sum = int(add(head, tcp, header - tcp)) + int(add(head, 16, 8)) + 6 - ip + 0x3FFFC
    tcp_sum -= flags + high + low
    sum_of = copy
    while octets > 0:
        part = size if octets > size else octets
        octets -= part
        to_w = ptr32(int(batch_p) + to)
        i = header >> 2
        while i:
            i -= 1
            to_w[i] = head_w[i]
        total = header - 4 + part
        here = to + 4
        batch_p[here + 2] = total >> 8
        batch_p[here + 3] = total
        batch_p[here + 4] = number >> 8
        batch_p[here + 5] = number
        s = ip_sum + total + number
        s = (s & 0xFFFF) + (s >> 16)
        s = ((s & 0xFFFF) + (s >> 16)) ^ 0xFFFF
        batch_p[here + 10] = s >> 8
        batch_p[here + 11] = s
        number = number + 1 & 0xFFFF
        here = to + tcp
        batch_p[here + 4] = high >> 8
        batch_p[here + 5] = high
        batch_p[here + 6] = low >> 8
        batch_p[here + 7] = low
        i = flags & 0xF6 if octets or not last else flags
        batch_p[here + 13] = i
        s = int(sum_of(batch, to + header, at, part)) + tcp_sum + total + i + high + low
        s = (s & 0xFFFF) + (s >> 16)
        s = ((s & 0xFFFF) + (s >> 16)) ^ 0xFFFF
        batch_p[here + 16] = s >> 8
        batch_p[here + 17] = s
        flags &= 0x7F
        low += part
        high = high + (low >> 16) & 0xFFFF
        low &= 0xFFFF
        to += header + part
        at += part
    advance(head, tcp, number, high, low)
    head_p[tcp + 13] = flags
    return to


@micropython.viper
def clear(head, a: int, b: int, c: int):
    head_p = ptr8(head)
    head_p[a] = 0
    head_p[a + 1] = 0
    head_p[b] = 0
    head_p[b + 1] = 0
    head_p[c] = 0
    head_p[c + 1] = 0


@micropython.viper
def advance(head, tcp: int, number: int, high: int, low: int):
    head_p = ptr8(head)
    head_p[8] = number >> 8
    head_p[9] = number
    head_p[tcp + 4] = high >> 8
    head_p[tcp + 5] = high
    head_p[tcp + 6] = low >> 8
    head_p[tcp + 7] = low


@micropython.viper
def joinable(batch, ip: int, udp: int) -> int:
    batch_p = ptr8(batch)
    if batch_p[ip] != 0x45 or batch_p[ip + 6] & 0xBF or batch_p[ip + 7]:
        return 0
    length = batch_p[ip + 2] << 8 | batch_p[ip + 3]
    if batch_p[ip + 9] == 6:
        if length < 40 or batch_p[ip + 33] & _LAST or batch_p[ip + 32] < 0x50:
            return 0
        length -= 20 + (batch_p[ip + 32] >> 4 << 2)
        return length if length > 0 else 0
    if batch_p[ip + 9] != 17 or not udp or length <= 28 or not int(whole_udp(batch, ip, length)):
        return 0
    return length - 28


@micropython.viper
def whole_udp(batch, ip: int, length: int) -> int:
    batch_p = ptr8(batch)
    if batch_p[ip + 24] << 8 | batch_p[ip + 25] != length - 20:
        return 0
    return 1 if batch_p[ip + 26] or batch_p[ip + 27] else 0


@micropython.viper
def join(batch, start: int, total: int, ip: int, size: int) -> int:
    base = int(ptr8(batch))
    # By words: see copy.
    a = ptr32(base + start)
    b = ptr32(base + ip)
    a_2 = ptr16(base + start)
    b_2 = ptr16(base + ip)
    if (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]) | (a_2[3] ^ b_2[3]):
        return 0
    if (a_2[4] ^ b_2[4]) | (a_2[0] ^ b_2[0]):
        return 0
    batch_p = ptr8(batch)
    if batch_p[ip] != 0x45:
        return 0
    udp = batch_p[ip + 9] == 17
    data = 28
    if not udp:
        data = 20 + (batch_p[start + 32] >> 4 << 2)
    length = batch_p[ip + 2] << 8 | batch_p[ip + 3]
    part = length - data
    if part <= 0 or part > size:
        return 0
    done = total - data
    i = (batch_p[start + 4] << 8 | batch_p[start + 5]) + done // size
    if batch_p[ip + 4] != i >> 8 & 255 or batch_p[ip + 5] != i & 255:
        return 0
    last = 0
    if udp:
        if not int(whole_udp(batch, ip, length)):
            return 0
    else:
        if a[7] != b[7] or a_2[17] != b_2[17] or a_2[19] != b_2[19]:
            return 0
        if batch_p[start + 32] != batch_p[ip + 32]:
            return 0
        i = 40
        while i < data:
            if a[i >> 2] != b[i >> 2]:
                return 0
            i += 4
        last = batch_p[ip + 33]
        if (last ^ batch_p[start + 33]) & 0xF6:
            return 0
        last &= _FIN_PSH
        i = (batch_p[start + 26] << 8 | batch_p[start + 27]) + done
        if batch_p[ip + 26] != i >> 8 & 255 or batch_p[ip + 27] != i & 255:
            return 0
        i = (batch_p[start + 24] << 8 | batch_p[start + 25]) + (i >> 16)
        if batch_p[ip + 24] != i >> 8 & 255 or batch_p[ip + 25] != i & 255:
            return 0
    if done == size and not int(right(batch, start, total)):
        return 0
    if int(add(batch, ip, 20)) != 0xFFFF or not int(right(batch, ip, length)):
        return 0
    move(batch, start + total, ip + data, part)
    total += part
    batch_p[start + 33] = batch_p[start + 33] | last
    return 0 - total if last or part < size else total


@micropython.viper
def right(batch, ip: int, length: int) -> int:
    batch_p = ptr8(batch)
    s = int(add(batch, ip + 12, length - 12)) + batch_p[ip + 9] + length - 20
    s = (s & 0xFFFF) + (s >> 16)
    return 1 if (s & 0xFFFF) + (s >> 16) == 0xFFFF else 0


@micropython.viper
def seal(batch, ip: int, total: int, size: int):
    batch_p = ptr8(batch)
    udp = batch_p[ip + 9] == 17
    batch_p[ip + 2] = total >> 8
    batch_p[ip + 3] = total & 255
    batch_p[ip + 10] = 0
    batch_p[ip + 11] = 0
    s = int(add(batch, ip, 20)) ^ 0xFFFF
    batch_p[ip + 10] = s >> 8
    batch_p[ip + 11] = s & 255
    length = total - 20
    s = int(add(batch, ip + 12, 8)) + batch_p[ip + 9] + length
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    data = 42
    field = 16
    if udp:
        field = 6
        batch_p[ip + 24] = length >> 8
        batch_p[ip + 25] = length & 255
    else:
        data = 34 + (batch_p[ip + 32] >> 4 << 2)
    batch_p[ip + 20 + field] = s >> 8
    batch_p[ip + 21 + field] = s & 255
    ip -= _AHEAD
    batch_p[ip] = 1
    batch_p[ip + 1] = 5 if udp else 1
    batch_p[ip + 2] = data
    batch_p[ip + 3] = 0
    batch_p[ip + 4] = size & 255
    batch_p[ip + 5] = size >> 8
    batch_p[ip + 6] = 34
    batch_p[ip + 7] = 0
    batch_p[ip + 8] = field
    batch_p[ip + 9] = 0


@micropython.viper
def single(batch, ip: int):
    batch_p = ptr8(batch)
    i = ip - _AHEAD
    ip -= 14
    while i < ip:
        batch_p[i] = 0
        i += 1


@micropython.viper
def add_wide(batch, at: int, octets: int) -> int:
    at += int(ptr8(batch))
    end = at + (octets & -32)
    s = 0
    while at < end:
        p = ptr32(at)
        s += p[0] + p[1] + p[2] + p[3] + p[4] + p[5] + p[6] + p[7]
        at += 32
    end += octets & 28
    while at < end:
        s += ptr32(at)[0]
        at += 4
    if octets & 2:
        s += ptr16(at)[0]
        at += 2
    if octets & 1:
        s += ptr8(at)[0]
    return int(folded(s))


@micropython.viper
def add_narrow(batch, at: int, octets: int) -> int:
    at += int(ptr8(batch))
    end = at + (octets & -16)
    s = 0
    while at < end:
        p = ptr16(at)
        s += p[0] + p[1] + p[2] + p[3] + p[4] + p[5] + p[6] + p[7]
        at += 16
    end += octets & 14
    while at < end:
        s += ptr16(at)[0]
        at += 2
    if octets & 1:
        s += ptr8(at)[0]
    return int(folded(s))


@micropython.viper
def folded(s: int) -> int:
    # The words were little-endian.
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    return (s & 255) << 8 | s >> 8


@micropython.viper
def move(batch, to: int, at: int, octets: int):
    at += int(ptr8(batch))
    to += int(ptr8(batch))
    end = at + (octets & -32)
    while at < end:
        # By words, which no processor that runs Linux refuses at any address.
        a = ptr32(at)
        b = ptr32(to)
        b[0] = a[0]
        b[1] = a[1]
        b[2] = a[2]
        b[3] = a[3]
        b[4] = a[4]
        b[5] = a[5]
        b[6] = a[6]
        b[7] = a[7]
        at += 32
        to += 32
    end += octets & 31
    while at < end:
        ptr8(to)[0] = ptr8(at)[0]
        at += 1
        to += 1


@micropython.viper
def copy_wide(batch, to: int, at: int, octets: int) -> int:
    at += int(ptr8(batch))
    to += int(ptr8(batch))
    end = at + (octets & -32)
    s = 0
    while at < end:
        a = ptr32(at)
        b = ptr32(to)
        b[0] = a[0]
        b[1] = a[1]
        b[2] = a[2]
        b[3] = a[3]
        b[4] = a[4]
        b[5] = a[5]
        b[6] = a[6]
        b[7] = a[7]
        s += b[0] + b[1] + b[2] + b[3] + b[4] + b[5] + b[6] + b[7]
        at += 32
        to += 32
    end += octets & 28
    while at < end:
        a = ptr32(at)
        ptr32(to)[0] = a[0]
        s += ptr32(to)[0]
        at += 4
        to += 4
    if octets & 2:
        ptr16(to)[0] = ptr16(at)[0]
        s += ptr16(to)[0]
        at += 2
        to += 2
    if octets & 1:
        ptr8(to)[0] = ptr8(at)[0]
        s += ptr8(to)[0]
    return int(folded(s))


@micropython.viper
def copy_narrow(batch, to: int, at: int, octets: int) -> int:
    move(batch, to, at, octets)
    return int(add(batch, to, octets))


# A sum of 32-bit words needs more than 32 bits.
add = add_wide if sys.maxsize >> 32 else add_narrow
copy = copy_wide if sys.maxsize >> 32 else copy_narrow
