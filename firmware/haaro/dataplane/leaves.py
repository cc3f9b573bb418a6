"""The per-packet computations of the data plane, in plain Python.

Owns every check and rewrite a packet meets; touches buffers and small integers only, so a call
allocates nothing. `leaves_viper` holds the same functions for ports with a code emitter, and
`userspace` picks at import. All buffers are borrowed for the call. Offsets are octets.

A verdict is negative (minus the index of a drop reason in `base.REASONS`), or tunnel id, length
of the inner packet << 8, and two bits: 1 << 24 HINTED (outbound) or CONTROL (inbound: it is for
the control plane), 1 << 25 FRAGMENT (it does not fit and may be cut).
"""

from haaro.compat import const

# Whether copying a packet costs less than a system call.
FAST = False

_ENTRY = const(10)
_SLOT = const(24)
_OTHER = const(16)
_TUNNELS = const(65)
_HINTS = const(256)
_STATE_ETHERNET = const(24 * 65)
_STATE_TTL_STEP = const(24 * 65 + 14)
_STATE_OTHERS = const(24 * 65 + 15)
_STATE_CLAMP = const(24 * 65 + 16)


def total(records, first: int, count: int, stride: int, base: int) -> int:
    """Return the octets that `count` packets take in a batch, by their records from `first` on.

    base: octets in front of the (inner) IP header, whose total length is at base + 2.
    """
    octets = 0
    at = first * stride + base + 2
    while count:
        octets += base + (records[at] << 8 | records[at + 1])
        at += stride
        count -= 1
    return octets


def aligned(
    batch, at: int, octets: int, records, first: int, count: int, stride: int, base: int
) -> int:
    """Return how many packets from `at` on are whole and of the records from `first` on."""
    record = first * stride + base
    done = 0
    while done < count:
        p = at + base
        if p + 6 > octets:
            break
        if (
            batch[p + 2] != records[record + 2]
            or batch[p + 3] != records[record + 3]
            or batch[p + 4] != records[record + 4]
            or batch[p + 5] != records[record + 5]
        ):
            break
        at = p + (batch[p + 2] << 8 | batch[p + 3])
        if at > octets:
            break
        record += stride
        done += 1
    return done


def seek(batch, at: int, records, first: int, count: int, stride: int, base: int) -> int:
    """Return the first record from `first` on that is of the packet at `at`; -1: none."""
    p = at + base
    record = first * stride + base
    while first < count:
        if (
            batch[p + 2] == records[record + 2]
            and batch[p + 3] == records[record + 3]
            and batch[p + 4] == records[record + 4]
            and batch[p + 5] == records[record + 5]
        ):
            return first
        record += stride
        first += 1
    return -1


def header(batch, at: int) -> int:
    """Return the total length of the IPv4 packet at `at`; -1: header, -2: its checksum is bad."""
    first = batch[at]
    octets = (first & 15) << 2
    length = batch[at + 2] << 8 | batch[at + 3]
    if first >> 4 != 4 or octets < 20 or length < octets:
        return -1
    s = 0
    end = at + octets
    while at < end:
        s += batch[at] << 8 | batch[at + 1]
        at += 2
    s = (s & 0xFFFF) + (s >> 16)
    if (s & 0xFFFF) + (s >> 16) != 0xFFFF:
        return -2
    return length


def find(table, entries: int, batch, at: int) -> int:
    """Return the offset of the table's entry that holds the address at `at`."""
    high = batch[at] << 8 | batch[at + 1]
    low = batch[at + 2] << 8 | batch[at + 3]
    a = 0
    b = entries
    while b - a > 1:
        m = (a + b) >> 1
        e = m * _ENTRY
        start = table[e] << 8 | table[e + 1]
        if start > high or (start == high and (table[e + 2] << 8 | table[e + 3]) > low):
            b = m
        else:
            a = m
    return a * _ENTRY


def outbound(batch, at: int, table, entries: int, state, wanted) -> int:
    """Check one packet of the LAN whose IPv4 header is at `at`; write the tunnel header.

    The 4 octets in front of the packet become the tunnel data header (RFC 3519 3.3), the TTL is
    lowered by the attachment's step, and wanted[hint] is set if the route has a hint.
    """
    length = header(batch, at)
    if length < 0:
        return length
    if not table[find(table, entries, batch, at + 12) + 6] & 3:
        return -3
    first = batch[at + 16]
    if first == 0 or first == 127 or first >= 224:
        return -4
    e = find(table, entries, batch, at + 16)
    flags = table[e + 6]
    if flags & 3:
        return -5
    if flags & 4:
        return -6
    tunnel = table[e + 4]
    if tunnel >= _TUNNELS:
        return -7
    step = state[_STATE_TTL_STEP]
    if batch[at + 8] <= step:
        return -9
    slot = tunnel * _SLOT
    if not state[slot + 7]:
        return -8
    verdict = tunnel | length << 8
    hint = table[e + 8] << 8 | table[e + 9]
    if hint < _HINTS:
        wanted[hint] = 1
        verdict |= 1 << 24
    if length > (state[slot + 8] << 8 | state[slot + 9]):
        if batch[at + 6] & 0x40:
            return -10
        verdict |= 1 << 25
    # Options move the flags, so clamp looks for them.
    if batch[at + 9] == 6 and state[_STATE_CLAMP] and (batch[at + 33] & 2 or batch[at] > 0x45):
        clamp(batch, at, state[slot + 8] << 8 | state[slot + 9])
    if step:
        lower_ttl(batch, at, step)
    batch[at - 4] = 4
    batch[at - 3] = 4
    batch[at - 2] = 0
    batch[at - 1] = 0
    return verdict


def tunnel_of(batch, at: int, state, last: int, uplink: int) -> int:
    """Return the tunnel whose remote end sent the datagram with the outer header at `at`.

    Address, port and uplink are exact (RFC 3519 4.3); `last` is tried first, other ends only when
    no tunnel's own is it. -11: no such end, -12: the home agent's address with another port.
    """
    verdict = -11
    end = 0
    while end <= _OTHER:
        tunnel = last
        tries = 0
        while tries <= _TUNNELS:
            slot = tunnel * _SLOT + end
            if (
                state[slot + 7]
                and state[slot + 3] == batch[at + 15]
                and state[slot + 2] == batch[at + 14]
                and state[slot + 1] == batch[at + 13]
                and state[slot] == batch[at + 12]
            ):
                if (
                    state[slot + 5] == batch[at + 21]
                    and state[slot + 4] == batch[at + 20]
                    and state[slot + 6] == uplink
                ):
                    return tunnel
                if tunnel == 0:
                    verdict = -12
            tunnel = tries if tries < _TUNNELS else 0
            tries += 1
        if not state[_STATE_OTHERS]:
            break
        end += _OTHER
    return verdict


def inbound(batch, at: int, table, entries: int, state, tunnel: int) -> int:
    """Check the inner packet at `at` that arrived by `tunnel`.

    A packet for the LAN gets its Ethernet header in front and its TTL lowered; one for the
    control plane is left untouched and its verdict has CONTROL.
    """
    length = header(batch, at)
    if length < 0:
        return length - 12
    step = state[_STATE_TTL_STEP]
    if batch[at + 8] <= step:
        return -15
    first = batch[at + 12]
    if first == 0 or first == 127 or first >= 224:
        return -16
    first = batch[at + 16]
    if first == 0 or first == 127 or first >= 224:
        return -16
    source = find(table, entries, batch, at + 12)
    if table[source + 6] & 3:
        return -17
    flags = table[find(table, entries, batch, at + 16) + 6]
    verdict = tunnel | length << 8
    kind = 0
    if flags & 2:
        kind = control(batch, at, length)
    slot = tunnel * _SLOT
    if (
        batch[at + 15] == state[slot + 13]
        and batch[at + 14] == state[slot + 12]
        and batch[at + 13] == state[slot + 11]
        and batch[at + 12] == state[slot + 10]
    ):
        # A keepalive comes before its sender's prefixes are confirmed.
        if kind == 1:
            return verdict | 1 << 24
    # A peer's CoTI and Request carry its care-of address through the home agent (RFC 6521 3.2).
    elif table[source + 6] & 4 and (kind != 2 or tunnel):
        return -18
    if tunnel and table[source + 5] != tunnel:
        return -19
    if not flags & 3:
        return -20 if flags & 4 else -21
    if kind == 2:
        return verdict | 1 << 24
    return verdict if deliver(batch, at, state, slot) else -24


def control(batch, at: int, length: int) -> int:
    """Return 1 for an ICMP echo or its reply, 2 for UDP to port 434, else 0."""
    if batch[at + 6] & 0x1F or batch[at + 7]:
        return 0
    protocol = batch[at + 9]
    data = (batch[at] & 15) << 2
    if length < data + 8:
        return 0
    data += at
    if protocol == 1 and (batch[data] == 0 or batch[data] == 8):
        return 1
    if protocol == 17 and batch[data + 2] == 1 and batch[data + 3] == 178:
        return 2
    return 0


def deliver(batch, at: int, state, slot: int) -> int:
    """Make the inner packet at `at`, of the tunnel at `slot`, a frame to the LAN; 0: drop it."""
    if batch[at - 31] & 1 and not congestion(batch, at):
        return 0
    # Options move the flags, so clamp looks for them.
    if batch[at + 9] == 6 and state[_STATE_CLAMP] and (batch[at + 33] & 2 or batch[at] > 0x45):
        clamp(batch, at, state[slot + 8] << 8 | state[slot + 9])
    if state[_STATE_TTL_STEP]:
        lower_ttl(batch, at, state[_STATE_TTL_STEP])
    i = 0
    at -= 14
    while i < 14:
        batch[at + i] = state[_STATE_ETHERNET + i]
        i += 1
    return 1


def clamp(batch, at: int, mtu: int) -> None:
    """Make the TCP packet at `at`, if it begins a connection, ask for segments that fit into `mtu`.

    Its MSS option is lowered to mtu - 40 (RFC 6691 2) and the checksum mended (RFC 1624).
    """
    tcp = at + ((batch[at] & 15) << 2)
    end = at + (batch[at + 2] << 8 | batch[at + 3])
    if tcp + 20 > end or batch[at + 6] & 0x1F or batch[at + 7] or not batch[tcp + 13] & 2:
        return
    option = tcp + 20
    tail = tcp + (batch[tcp + 12] >> 4 << 2)
    if tail < end:
        end = tail
    while option + 4 <= end:
        kind = batch[option]
        octets = batch[option + 1]
        if kind == 1:
            octets = 1
        elif kind == 0 or octets < 2:
            return
        elif kind == 2:
            mtu -= 40
            high = (mtu >> 8) - batch[option + 2]
            low = (mtu & 255) - batch[option + 3]
            if octets == 4 and (high << 8) + low < 0:
                batch[option + 2] = mtu >> 8
                batch[option + 3] = mtu & 255
                # At an odd place each octet is of another word.
                mend(batch, tcp + 16, high + (low << 8) if option - tcp & 1 else (high << 8) + low)
            return
        option += octets


def congestion(batch, at: int) -> int:
    """Mark the inner packet at `at` by the outer one (RFC 6040 4.2); 0 if it must be dropped.

    Called when the outer ECN field has its low bit, ECT(1) or CE: no other changes anything.
    """
    outside = batch[at - 31] & 3
    inside = batch[at + 1] & 3
    if not inside:
        return 0 if outside == 3 else 1
    # ECT(0) becomes what is outside, ECT(1) only CE, and CE stays.
    if inside < 3 and outside != inside:
        batch[at + 1] = batch[at + 1] + outside - inside
        mend(batch, at + 10, outside - inside)
    return 1


def lower_ttl(batch, at: int, step: int) -> None:
    """Lower the TTL of the packet at `at` and mend its checksum."""
    batch[at + 8] = batch[at + 8] - step
    mend(batch, at + 10, 0 - (step << 8))


def mend(batch, at: int, change: int) -> None:
    """Make the checksum at `at` right after a word under it grew by `change` (RFC 1624 3)."""
    s = ((batch[at] << 8 | batch[at + 1]) ^ 0xFFFF) + 0xFFFF + change
    s = (s & 0xFFFF) + (s >> 16)
    s = ((s & 0xFFFF) + (s >> 16)) ^ 0xFFFF
    batch[at] = s >> 8
    batch[at + 1] = s & 255


def move(batch, to: int, at: int, octets: int) -> None:
    """Copy `octets` octets from `at` to `to`, which is before it; the two places may overlap."""
    while octets > 0:
        batch[to] = batch[at]
        to += 1
        at += 1
        octets -= 1


def checksum(batch, at: int, octets: int) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of octets at `at`."""
    s = 0
    end = at + octets
    while at < end:
        s += batch[at] << 8 | batch[at + 1]
        at += 2
    s = (s & 0xFFFF) + (s >> 16)
    s = (s & 0xFFFF) + (s >> 16)
    return s ^ 0xFFFF
