"""Batches out of the kernel, with nothing cut and nothing lost by us, and the count of what was.

`readinto` on a datagram socket reads on until the buffer is full and cuts the last datagram, so
the octets of whole packets must be known before. Each receiving port is therefore two sockets
with one filter: `lengths` gets the first octets of every packet, a record of one size, and
`packets` the packets. The kernel serves `packets` first, so what has a record is there to be
read, or was dropped because the queue was full: then records and packets differ, which is
counted, and the records are walked until they agree again.
"""

from haaro.compat import const
from haaro.dataplane.base import BATCH, LAN_RECORD, UPLINK_RECORD
from haaro.dataplane.chosen import leaves

_ETHERNET = const(14)
_OVERHEAD = const(32)

_total = leaves.total
_aligned = leaves.aligned
_seek = leaves.seek


class Port:
    """Two receive sockets of the LAN (uplink -1) or of an uplink, and their framing.

    ahead: octets in front of a LAN packet's IP header.
    """

    def __init__(self, pair: tuple, uplink: int, ahead: int = _ETHERNET) -> None:
        self.lengths, self.packets = pair
        self.uplink = uplink
        self.other = None  # who reads it instead (other_encapsulations.py)
        self.stride = LAN_RECORD + ahead - _ETHERNET if uplink < 0 else UPLINK_RECORD
        self.base = ahead if uplink < 0 else _OVERHEAD


class Receiver:
    """Ports and the buffers they are read into; what is read goes to `_out` and `_in`.

    sockets: the platform's factory (platform/linux_sockets.py).
    """

    def __init__(self, batch: bytearray, records: bytearray, sockets) -> None:
        self._sockets = sockets
        self._batch = batch
        self._records = records
        self._ports: list = []
        self._received = 0
        self._handled = 0
        self._cut = 0
        self._skipped = 0
        self._unrecorded = 0
        self._send_errors = 0
        self._port_errors = 0
        self._dropped = 0  # at ports that are closed

    def handle(self, obj, event: int) -> bool:
        """Forward one batch of the port `obj` belongs to; False if it is none of ours."""
        for port in self._ports:
            if port.lengths is obj:
                try:
                    if port.other:
                        port.other.read(port)
                    else:
                        self._read(port)
                except OSError:
                    self._port_errors += 1
                return True
        return False

    def _read(self, port):
        records = self._records
        batch = self._batch
        uplink = port.uplink
        got = port.lengths.readinto(records, port.stride * BATCH)
        if not got:
            return
        count = got // port.stride
        self._received += count
        first = 0
        for _ in range(BATCH):
            if first >= count:
                return
            rest = count - first
            octets = _total(records, first, rest, port.stride, port.base)
            while octets > len(batch):
                # Superframes: as many as there is room for.
                rest -= 1
                octets = _total(records, first, rest, port.stride, port.base)
            try:
                octets = port.packets.readinto(batch, octets)
            except OSError:
                self._port_errors += 1
                break
            if not octets:
                break
            done = _aligned(batch, 0, octets, records, first, rest, port.stride, port.base)
            at = self._out(0, done) if uplink < 0 else self._in(0, done, uplink)
            self._handled += done
            first += done
            if at < octets:
                first = self._mend(port, at, octets, first, count)
        self._skipped += count - first

    def _mend(self, port, at, octets, first, count):
        """Handle the rest of a batch that differs from its records; return the next record."""
        batch = self._batch
        records = self._records
        while at < octets:
            ip = at + port.base
            if ip + 6 > octets:
                self._cut += 1
                return min(first + 1, count)
            done = 1
            record = _seek(batch, at, records, first, count, port.stride, port.base)
            if record >= 0:
                self._skipped += record - first
                rest = count - record
                done = _aligned(batch, at, octets, records, record, rest, port.stride, port.base)
                first = record + (done or 1)
            else:
                self._unrecorded += 1
            if not done or ip + (batch[ip + 2] << 8 | batch[ip + 3]) > octets:
                self._cut += 1
                return first
            self._handled += done
            if port.uplink < 0:
                at = self._out(at, done)
            else:
                at = self._in(at, done, port.uplink)
        return first

    def own_loss(self) -> dict:
        """Return what became of the packets the kernel had for us.

        received = handled + cut + missing: by the records. socket_drops: by the kernel's own count
        of what found the packet queues full, with or without a record; -1 = it does not tell. Newer
        kernels count there what the filter of a full raw socket would have refused, too.
        Of those handled, send_errors were refused by the sending socket.
        """
        dropped = self._drops(self._ports)
        return {
            "received": self._received,
            "handled": self._handled,
            "cut": self._cut,
            "missing": max(0, self._skipped - self._unrecorded),
            "socket_drops": dropped + self._dropped if dropped >= 0 else -1,
            "unrecorded": self._unrecorded,
            "send_errors": self._send_errors,
            "port_errors": self._port_errors,
        }

    def _drops(self, ports):
        try:
            return self._sockets.drops([port.packets for port in ports])
        except (OSError, MemoryError):
            return -1
