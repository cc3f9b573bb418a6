# ruff: noqa: F821
"""The viper twins of `leaves`: the same functions for ports with a code emitter.

On other ports this file is a SyntaxError and `userspace` takes the plain ones. Small functions,
one store per statement, no value over 0x3fffffff; a differential test runs both on the same
packets.
"""

import micropython

from haaro.compat import const

FAST = True

_ENTRY = const(10)
_SLOT = const(24)
_OTHER = const(16)
_TUNNELS = const(65)
_HINTS = const(256)
_STATE_ETHERNET = const(24 * 65)
_STATE_TTL_STEP = const(24 * 65 + 14)
_STATE_OTHERS = const(24 * 65 + 15)
_STATE_CLAMP = const(24 * 65 + 16)


@micropython.viper
def total(records, first: int, count: int, stride: int, base: int) -> int:
    records_p = ptr8(records)
    octets = 0
    at = first * stride + base + 2
    while count:
        octets += base + (records_p[at] << 8 | records_p[at + 1])
        at += stride
        count -= 1
    return octets


@micropython.viper
def aligned(
    batch, at: int, octets: int, records, first: int, count: int, stride: int, base: int
) -> int:
    batch_p = ptr8(batch)
    records_p = ptr8(records)
    record = first * stride + base
    done = 0
    while done < count:
        p = at + base
        if p + 6 > octets:
            break
        if (
            batch_p[p + 2] != records_p[record + 2]
            or batch_p[p + 3] != records_p[record + 3]
            or batch_p[p + 4] != records_p[record + 4]
            or batch_p[p + 5] != records_p[record + 5]
        ):
            break
        at = p + (batch_p[p + 2] << 8 | batch_p[p + 3])
        if at > octets:
            break
        record += stride
        done += 1
    return done


@micropython.viper
def seek(batch, at: int, records, first: int, count: int, stride: int, base: int) -> int:
    batch_p = ptr8(batch)
    records_p = ptr8(records)
    p = at + base
    record = first * stride + base
    while first < count:
        if (
            batch_p[p + 2] == records_p[record + 2]
            and batch_p[p + 3] == records_p[record + 3]
            and batch_p[p + 4] == records_p[record + 4]
            and batch_p[p + 5] == records_p[record + 5]
        ):
            return first
        record += stride
        first += 1
    return -1


@micropython.viper
def header(batch, at: int) -> int:
    batch_p = ptr8(batch)
    first = batch_p[at]
    octets = (first & 15) << 2
    length = batch_p[at + 2] << 8 | batch_p[at + 3]
    if first >> 4 != 4 or octets < 20 or length < octets:
        return -1
    s = 0
    end = at + octets
    while at < end:
        s += batch_p[at] << 8 | batch_p[at + 1]
        at += 2
    s = (s & 0xFFFF) + (s >> 16)
    if (s & 0xFFFF) + (s >> 16) != 0xFFFF:
        return -2
    return length


@micropython.viper
def find(table, entries: int, batch, at: int) -> int:
    batch_p = ptr8(batch)
    table_p = ptr8(table)
    high = batch_p[at] << 8 | batch_p[at + 1]
    low = batch_p[at + 2] << 8 | batch_p[at + 3]
    a = 0
    b = entries
    while b - a > 1:
        m = (a + b) >> 1
        e = m * _ENTRY
        start = table_p[e] << 8 | table_p[e + 1]
        if start > high or (start == high and (table_p[e + 2] << 8 | table_p[e + 3]) > low):
            b = m
        else:
            a = m
    return a * _ENTRY


@micropython.viper
def outbound(batch, at: int, table, entries: int, state, wanted) -> int:
    batch_p = ptr8(batch)
    table_p = ptr8(table)
    state_p = ptr8(state)
    wanted_p = ptr8(wanted)
    length = int(header(batch, at))
    if length < 0:
        return length
    if not table_p[int(find(table, entries, batch, at + 12)) + 6] & 3:
        return -3
    first = batch_p[at + 16]
    if first == 0 or first == 127 or first >= 224:
        return -4
    e = int(find(table, entries, batch, at + 16))
    flags = table_p[e + 6]
    if flags & 3:
        return -5
    if flags & 4:
        return -6
    tunnel = table_p[e + 4]
    if tunnel >= _TUNNELS:
        return -7
    step = state_p[_STATE_TTL_STEP]
    if batch_p[at + 8] <= step:
        return -9
    slot = tunnel * _SLOT
    if not state_p[slot + 7]:
        return -8
    verdict = tunnel | length << 8
    hint = table_p[e + 8] << 8 | table_p[e + 9]
    if hint < _HINTS:
        wanted_p[hint] = 1
        verdict |= 1 << 24
    if length > (state_p[slot + 8] << 8 | state_p[slot + 9]):
        if batch_p[at + 6] & 0x40:
            return -10
        verdict |= 1 << 25
    # Options move the flags, so clamp looks for them.
    if (
        batch_p[at + 9] == 6
        and state_p[_STATE_CLAMP]
        and (batch_p[at + 33] & 2 or batch_p[at] > 0x45)
    ):
        clamp(batch, at, state_p[slot + 8] << 8 | state_p[slot + 9])
    if step:
        lower_ttl(batch, at, step)
    batch_p[at - 4] = 4
    batch_p[at - 3] = 4
    batch_p[at - 2] = 0
    batch_p[at - 1] = 0
    return verdict


@micropython.viper
def tunnel_of(batch, at: int, state, last: int, uplink: int) -> int:
    batch_p = ptr8(batch)
    state_p = ptr8(state)
    verdict = -11
    end = 0
    while end <= _OTHER:
        tunnel = last
        tries = 0
        while tries <= _TUNNELS:
            slot = tunnel * _SLOT + end
            if (
                state_p[slot + 7]
                and state_p[slot + 3] == batch_p[at + 15]
                and state_p[slot + 2] == batch_p[at + 14]
                and state_p[slot + 1] == batch_p[at + 13]
                and state_p[slot] == batch_p[at + 12]
            ):
                if (
                    state_p[slot + 5] == batch_p[at + 21]
                    and state_p[slot + 4] == batch_p[at + 20]
                    and state_p[slot + 6] == uplink
                ):
                    return tunnel
                if tunnel == 0:
                    verdict = -12
            tunnel = tries if tries < _TUNNELS else 0
            tries += 1
        if not state_p[_STATE_OTHERS]:
            break
        end += _OTHER
    return verdict


@micropython.viper
def inbound(batch, at: int, table, entries: int, state, tunnel: int) -> int:
    batch_p = ptr8(batch)
    table_p = ptr8(table)
    state_p = ptr8(state)
    length = int(header(batch, at))
    if length < 0:
        return length - 12
    step = state_p[_STATE_TTL_STEP]
    if batch_p[at + 8] <= step:
        return -15
    first = batch_p[at + 12]
    if first == 0 or first == 127 or first >= 224:
        return -16
    first = batch_p[at + 16]
    if first == 0 or first == 127 or first >= 224:
        return -16
    source = int(find(table, entries, batch, at + 12))
    if table_p[source + 6] & 3:
        return -17
    flags = table_p[int(find(table, entries, batch, at + 16)) + 6]
    verdict = tunnel | length << 8
    kind = 0
    if flags & 2:
        kind = int(control(batch, at, length))
    slot = tunnel * _SLOT
    if (
        batch_p[at + 15] == state_p[slot + 13]
        and batch_p[at + 14] == state_p[slot + 12]
        and batch_p[at + 13] == state_p[slot + 11]
        and batch_p[at + 12] == state_p[slot + 10]
    ):
        # A keepalive comes before its sender's prefixes are confirmed.
        if kind == 1:
            return verdict | 1 << 24
    # A peer's CoTI and Request carry its care-of address through the home agent (RFC 6521 3.2).
    elif table_p[source + 6] & 4 and (kind != 2 or tunnel):
        return -18
    if tunnel and table_p[source + 5] != tunnel:
        return -19
    if not flags & 3:
        return -20 if flags & 4 else -21
    if kind == 2:
        return verdict | 1 << 24
    return verdict if int(deliver(batch, at, state, slot)) else -24


@micropython.viper
def control(batch, at: int, length: int) -> int:
    batch_p = ptr8(batch)
    if batch_p[at + 6] & 0x1F or batch_p[at + 7]:
        return 0
    protocol = batch_p[at + 9]
    data = (batch_p[at] & 15) << 2
    if length < data + 8:
        return 0
    data += at
    if protocol == 1 and (batch_p[data] == 0 or batch_p[data] == 8):
        return 1
    if protocol == 17 and batch_p[data + 2] == 1 and batch_p[data + 3] == 178:
        return 2
    return 0


@micropython.viper
def deliver(batch, at: int, state, slot: int) -> int:
    batch_p = ptr8(batch)
    state_p = ptr8(state)
    if batch_p[at - 31] & 1 and not int(congestion(batch, at)):
        return 0
    # Options move the flags, so clamp looks for them.
    if (
        batch_p[at + 9] == 6
        and state_p[_STATE_CLAMP]
        and (batch_p[at + 33] & 2 or batch_p[at] > 0x45)
    ):
        clamp(batch, at, state_p[slot + 8] << 8 | state_p[slot + 9])
    if state_p[_STATE_TTL_STEP]:
        lower_ttl(batch, at, state_p[_STATE_TTL_STEP])
    i = 0
    at -= 14
    while i < 14:
        batch_p[at + i] = state_p[_STATE_ETHERNET + i]
        i += 1
    return 1


@micropython.viper
def clamp(batch, at: int, mtu: int):
    batch_p = ptr8(batch)
    tcp = at + ((batch_p[at] & 15) << 2)
    end = at + (batch_p[at + 2] << 8 | batch_p[at + 3])
    if tcp + 20 > end or batch_p[at + 6] & 0x1F or batch_p[at + 7] or not batch_p[tcp + 13] & 2:
        return
    option = tcp + 20
    tail = tcp + (batch_p[tcp + 12] >> 4 << 2)
    if tail < end:
        end = tail
    while option + 4 <= end:
        kind = batch_p[option]
        octets = batch_p[option + 1]
        if kind == 1:
            octets = 1
        elif kind == 0 or octets < 2:
            return
        elif kind == 2:
            mtu -= 40
            high = (mtu >> 8) - batch_p[option + 2]
            low = (mtu & 255) - batch_p[option + 3]
            if octets == 4 and (high << 8) + low < 0:
                batch_p[option + 2] = mtu >> 8
                batch_p[option + 3] = mtu & 255
                # At an odd place each octet is of another word.
                mend(batch, tcp + 16, high + (low << 8) if option - tcp & 1 else (high << 8) + low)
            return
        option += octets


@micropython.viper
def congestion(batch, at: int) -> int:
    batch_p = ptr8(batch)
    outside = batch_p[at - 31] & 3
    inside = batch_p[at + 1] & 3
    if not inside:
        return 0 if outside == 3 else 1
    # ECT(0) becomes what is outside, ECT(1) only CE, and CE stays.
    if inside < 3 and outside != inside:
        batch_p[at + 1] = batch_p[at + 1] + outside - inside
        mend(batch, at + 10, outside - inside)
    return 1


@micropython.viper
def lower_ttl(batch, at: int, step: int):
    batch_p = ptr8(batch)
    batch_p[at + 8] = batch_p[at + 8] - step
    mend(batch, at + 10, 0 - (step << 8))


@micropython.viper
def mend(batch, at: int, change: int):
    batch_p = ptr8(batch)
    s = ((batch_p[at] << 8 | batch_p[at + 1]) ^ 0xFFFF) + 0xFFFF + change
    s = (s & 0xFFFF) + (s >> 16)
    s = ((s & 0xFFFF) + (s >> 16)) ^ 0xFFFF
    batch_p[at] = s >> 8
    batch_p[at + 1] = s & 255


@micropython.viper
def move(batch, to: int, at: int, octets: int):
    base = int(ptr8(batch))
    # By words, which no processor that runs Linux refuses at any address.
    to_w = ptr32(base + to)
    at_w = ptr32(base + at)
    words = octets >> 2
    i = 0
    while i + 8 <= words:
        to_w[i] = at_w[i]
        to_w[i + 1] = at_w[i + 1]
        to_w[i + 2] = at_w[i + 2]
        to_w[i + 3] = at_w[i + 3]
        to_w[i + 4] = at_w[i + 4]
        to_w[i + 5] = at_w[i + 5]
        to_w[i + 6] = at_w[i + 6]
        to_w[i + 7] = at_w[i + 7]
        i += 8
    while i < words:
        to_w[i] = at_w[i]
        i += 1
    batch_p = ptr8(batch)
    i <<= 2
    while i < octets:
        batch_p[to + i] = batch_p[at + i]
        i += 1


@micropython.viper
def checksum(batch, at: int, octets: int) -> int:
    batch_p = ptr8(batch)
    s = 0
    end = at + octets
    while at < end:
        s += batch_p[at] << 8 | batch_p[at + 1]
        at += 2
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    return s ^ 0xFFFF
