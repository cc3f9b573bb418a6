"""The hot path as machine code, with superframes and runs: what Linux takes by one system call.

Owns nothing: the plane (forwarder.py, receiving.py) has buffers, counters and the same loops in
plain Python. Imported where the port has a code emitter and the LAN attachment says that it is one
of Linux (lan/base.py `ahead`); native code also needs no frame from the heap.

To the LAN and from it the kernel gives and takes superframes (leaves_superframes.py): packets that
follow each other in a batch are joined after each was judged; one from the LAN is judged by the
header of its first packet, which all others share but for what no check looks at, and is cut before
it leaves. On the wire there never is one. Packets of one size leave by one call, a run, that the
kernel cuts (UDP_SEGMENT). All counters count packets as on the wire.
"""

import micropython

from haaro.compat import const
from haaro.dataplane import base
from haaro.dataplane import leaves_superframes_viper as superframes
from haaro.dataplane.base import BATCH
from haaro.dataplane.chosen import leaves

_HINTED = const(1 << 24)
_CONTROL = const(1 << 24)
_FRAGMENT = const(1 << 25)
_OVERHEAD = const(32)
_SUPERFRAMES = const(24)  # `ahead` with a vnet header
# Octets of a run: the link sends it as a whole, and a keepalive waits, 0.13 s at 1 Mbit/s.
_LONGEST_RUN = const(16384)
# Older kernels cut no more from one.
_MOST = const(64)
# Where what is cut begins: minimal encapsulation's headers begin that far in front.
_ROOM = const(12)
# Tunnel header, IPv4 and TCP header with all options.
HEAD = 4 + 60 + 60

_outbound = leaves.outbound
_tunnel_of = leaves.tunnel_of
_inbound = leaves.inbound
_move = leaves.move
_total = leaves.total
_aligned = leaves.aligned
_opened = superframes.opened
_joinable = superframes.joinable
_join = superframes.join
_cut = superframes.cut


@micropython.native
def handle(plane, obj):
    """As Receiver.handle."""
    for port in plane._ports:
        if port.lengths is obj:
            try:
                if port.other:
                    port.other.read(port)
                else:
                    _read(plane, port)
            except OSError:
                plane._port_errors += 1
            return True
    return False


@micropython.native
def _read(plane, port):
    records = plane._records
    batch = plane._batch
    uplink = port.uplink
    stride = port.stride
    ahead = port.base
    got = port.lengths.readinto(records, stride * BATCH)
    if not got:
        return
    count = got // stride
    plane._received += count
    first = 0
    while first < count:
        rest = count - first
        octets = _total(records, first, rest, stride, ahead)
        while octets > len(batch):
            rest -= 1
            octets = _total(records, first, rest, stride, ahead)
        try:
            octets = port.packets.readinto(batch, octets)
        except OSError:
            plane._port_errors += 1
            break
        if not octets:
            break
        done = _aligned(batch, 0, octets, records, first, rest, stride, ahead)
        at = frames(plane, 0, done) if uplink < 0 else datagrams(plane, 0, done, uplink)
        plane._handled += done
        first += done
        if at < octets:
            first = plane._mend(port, at, octets, first, count)
    plane._skipped += count - first


@micropython.native
def frames(plane, at, count):
    """Forward `count` frames from `at` of the batch on; return where they end."""
    batch = plane._batch
    rows = plane._table
    entries = plane._entries
    state = plane._state
    wanted = plane.wanted
    toses = plane._tos
    segments = plane._segments
    ahead = plane._ahead
    # A local is found faster than a global.
    opened = _opened
    outbound = _outbound
    move = _move
    # A run of packets of one size, tunnel and TOS waits at `start`, one behind the other.
    run = start = octets = 0
    while count:
        count -= 1
        if ahead == _SUPERFRAMES:
            size = opened(batch, at)
            if size:
                if octets:
                    _leave(plane, run, start, octets)
                    octets = 0
                at = _out(plane, at + _SUPERFRAMES, size)
                continue
        at += ahead
        verdict = outbound(batch, at, rows, entries, state, wanted)
        if verdict < 0 or verdict >= _FRAGMENT:
            if octets:
                _leave(plane, run, start, octets)
                octets = 0
            at += plane._out_rarely(at, verdict)
            continue
        if verdict >= _HINTED:
            plane.wanted_any = True
            verdict &= _HINTED - 1
        length = verdict >> 8
        tos = batch[at + 1]
        if octets:
            if verdict == run and tos == toses[verdict & 0xFF] and octets + length < _LONGEST_RUN:
                move(batch, start + octets, at - 4, length + 4)
                octets += length + 4
                at += length
                continue
            _leave(plane, run, start, octets)
        tunnel = verdict & 0xFF
        if tos != toses[tunnel]:
            plane._mark(tunnel, tos)
        run = verdict
        start = at - 4
        octets = length + 4
        if segments[tunnel] < 0:
            _leave(plane, run, start, octets)
            octets = 0
        at += length
    if octets:
        _leave(plane, run, start, octets)
    return at


@micropython.native
def _leave(plane, run, start, octets):
    """Send the packets of a run, `octets` octets from `start` on, by one call if that goes.

    The last one may be shorter.
    """
    tunnel = run & 0xFF
    size = (run >> 8) + 4
    segment = plane._segments[tunnel]
    packets = 1
    if octets > size:
        packets = (octets + size - 1) // size
        if segment < 0 or (segment != size and not plane._segment(tunnel, size)):
            _singly(plane, tunnel, start, octets, size)
            return
    elif 0 < segment < octets:
        plane._segment(tunnel, 0)
    try:
        sent = plane._send[tunnel].write(plane._batch, start, octets)
    except OSError:
        sent = plane._again(tunnel, start, octets)
        if sent is None and packets > 1:
            # Perhaps the link takes no runs.
            plane._segment(tunnel, 0)
            plane._segments[tunnel] = -1
            _singly(plane, tunnel, start, octets, size)
            return
    if sent is None:
        plane._send_errors += packets
    else:
        plane._tx[tunnel] += packets
        plane._out_forwarded += packets


@micropython.native
def _singly(plane, tunnel, start, octets, size):
    """Send the packets of a run one by one."""
    while octets > 0:
        if plane._again(tunnel, start, min(size, octets)) is None:
            plane._send_errors += 1
        else:
            plane._tx[tunnel] += 1
            plane._out_forwarded += 1
        start += size
        octets -= size


@micropython.native
def _out(plane, at, size):
    """Forward the TCP superframe whose IP header is at `at`; return where it ends.

    size: payload of each of its packets but the last. Nothing in front of it is needed any more.
    """
    batch = plane._batch
    total = batch[at + 2] << 8 | batch[at + 3]
    end = at + total
    tcp = at + ((batch[at] & 15) << 2)
    data = tcp + (batch[tcp + 12] >> 4 << 2)
    if size <= 0 or batch[at + 9] != 6 or data < tcp + 20 or data >= end:
        plane._refused[1] += 1
        return end
    more = (end - data - 1) // size
    plane._received += more
    plane._handled += more
    # From here on it looks like its first packet.
    length = min(total, data - at + size)
    leaves.mend(batch, at + 10, length - total)
    batch[at + 2] = length >> 8
    batch[at + 3] = length & 255
    verdict = _outbound(batch, at, plane._table, plane._entries, plane._state, plane.wanted)
    if verdict < 0:
        plane._refused[0 - verdict] += more
        plane._out_rarely(at, verdict)
        return end
    if verdict & _HINTED:
        plane.wanted_any = True
    tunnel = verdict & 0xFF
    if batch[at + 1] != plane._tos[tunnel]:
        plane._mark(tunnel, batch[at + 1])
    header = data - at + 4
    superframes.keep(batch, at - 4, header, plane._head)
    if verdict >= _FRAGMENT:
        _cut_and_fragment(plane, tunnel, data, end, size)
        return end
    most = min(_MOST, max(1, _LONGEST_RUN // (header + size)))
    while data < end:
        # Headers are put in between: in front there must be room for them.
        octets = min(min(most, (data - _ROOM) // header) * size, end - data)
        last = 1 if data + octets == end else 0
        stop = _cut(batch, _ROOM, data, octets, size, plane._head, last)
        _leave(plane, length << 8 | tunnel, _ROOM, stop - _ROOM)
        data += octets
    return end


@micropython.native
def _cut_and_fragment(plane, tunnel, data, end, size):
    """Send packets that do not fit into the tunnel and may be cut once more."""
    while data < end:
        octets = min(size, end - data)
        last = 1 if data + octets == end else 0
        stop = _cut(plane._batch, _ROOM, data, octets, size, plane._head, last)
        plane._fragments(tunnel, _ROOM + 4, stop - _ROOM - 4)
        data += octets


@micropython.native
def datagrams(plane, at, count, uplink):
    """Forward `count` datagrams from `at` of the batch on; return where they end."""
    batch = plane._batch
    rows = plane._table
    entries = plane._entries
    state = plane._state
    rx = plane._rx
    tunnel_of = _tunnel_of
    inbound = _inbound
    join = _join
    # What is joined is not judged again, so its TTL must not count.
    joins = plane._ahead == _SUPERFRAMES and not state[base.STATE_TTL_STEP]
    tunnel = plane._last
    # A frame of tunnel `waits` is at `start`: packets of `size`, octets in all and of headers.
    start = total = size = packets = data = waits = 0
    while count:
        count -= 1
        tunnel = tunnel_of(batch, at, state, tunnel, uplink)
        if tunnel < 0:
            at += plane._no_tunnel(at, tunnel, uplink)
            tunnel = 0
            continue
        at += _OVERHEAD
        if total and tunnel == waits and not batch[at - 31] & 1:
            joined = join(batch, start, total, at, size)
            if joined:
                rx[tunnel] += 1
                packets += 1
                if joined > 0:
                    at += data + joined - total
                    total = joined
                else:
                    at += data - joined - total
                    _deliver(plane, start, 0 - joined, size, packets)
                    total = 0
                continue
        verdict = inbound(batch, at, rows, entries, state, tunnel)
        if verdict < 0 or verdict >= _CONTROL:
            at += plane._in_rarely(at - _OVERHEAD, verdict, tunnel, uplink) - _OVERHEAD
            continue
        rx[tunnel] += 1
        length = verdict >> 8
        if total:
            _deliver(plane, start, total, size, packets)
            total = 0
        size = _joinable(batch, at, plane._joins_udp) if count and joins else 0
        if size:
            start = at
            total = length
            packets = 1
            data = length - size
            waits = tunnel
        else:
            _deliver(plane, at, length, 0, 1)
        at += length
    if total:
        _deliver(plane, start, total, size, packets)
    plane._last = tunnel
    return at


@micropython.native
def _deliver(plane, at, octets, size, packets):
    """Send the frame with the IP header at `at` to the LAN, `packets` packets in one."""
    batch = plane._batch
    ahead = plane._ahead
    if packets > 1:
        superframes.seal(batch, at, octets, size)
    elif ahead == _SUPERFRAMES:
        superframes.single(batch, at)
    try:
        sent = plane._lan_write(batch, at - ahead, octets + ahead)
    except OSError:
        sent = None
    if sent is None:
        plane._send_errors += packets
    else:
        plane._in_forwarded += packets
