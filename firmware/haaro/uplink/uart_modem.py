"""A modem at a board's UART as uplink: our own PPP with UDP of our own on top, or its socket.

Owns the UART, the pins of power and reset, and the packets that wait for the line; decides nothing.
lwIP knows nothing of this link: platform/lwip_sockets.py gets its socket from here (ip_socket.py).
Imported only where an uplink's driver is "cellular". Contract: uplink/base.py.

Control packets leave ahead of data, and the line is given the next packet only when the one before
has left the UART: so a control packet waits for one packet at most.
"""

import gc

from haaro.compat import const
from haaro.dataplane.udp import event_of
from haaro.uplink import base
from haaro.uplink.ip_socket import IpSocket
from haaro.uplink.modem_link import ModemLink

# A write of a piece never waits for room: the piece before has left, and a frame of the
# multiplexer goes over by less than a piece.
_PIECE = const(512)
TX_OCTETS = const(1024)
RX_OCTETS = const(4096)
_READ = const(1024)
_URGENT = const(16)
# Data that waits, half a second of the line's.
_LEAST_QUEUE = const(3000)
_MOST_QUEUE = const(16384)
_ENOMEM = const(12)
_ENOTCONN = const(128)


class UartModem(ModemLink):
    """The modem of one uplink; see ModemLink. uart: a machine.UART; pins: {door: machine.Pin}."""

    gateway = None

    def __init__(self, uart, pins: dict, uplink: dict, secrets: dict, path: str, random) -> None:
        super().__init__(uplink, secrets, path, pins, random)
        self._uart = uart
        self._modem.ppp.deliver = self._deliver
        self.interface = uplink["interface"]
        # What `poll` watches: something has come, or there is room for what waits.
        self.event = event_of(self._pending)
        self._buffer = bytearray(_READ)
        self._view = memoryview(self._buffer)
        self._urgent: list = []
        self._data: list = []
        self._data_octets = 0
        self._most = min(max(uplink["baud"] // 20, _LEAST_QUEUE), _MOST_QUEUE)
        self._rest = b""  # of a write that was cut short
        self._full = False  # the line has not yet sent what it was given last
        self._socket: IpSocket | None = None
        self.lost = 0

    @property
    def state(self) -> str:
        """DOWN, CONNECTING, UP or FAILED."""
        return self._modem.state

    @property
    def reason(self) -> str:
        """Why it is not up; "" when it is."""
        return self._modem.reason

    @property
    def address(self) -> bytes:
        """Our address while UP."""
        return self._modem.address

    @property
    def mtu(self) -> int:
        """Of the link while UP."""
        return self._modem.mtu

    def start(self, now: int) -> None:
        """Begin from whatever state the modem is in."""
        self._modem.start(now)
        self._pump()

    def stop(self, now: int) -> None:
        """End the call as far as that takes no waiting."""
        self._modem.stop(now)
        self._forget()
        self._pump()
        self._meter.save(now)

    def handle_timer(self, now: int) -> None:
        """Do what is due."""
        # Where the loop was late, an answer that lies here is in time.
        self._read(now)
        self._check_cap(now)
        self._modem.handle_timer(now)
        self._pump()

    def handle(self, now: int) -> None:
        """`event` is ready."""
        self._read(now)
        self._pump()

    def status(self) -> dict:
        """Facts for the status report."""
        answer = super().status()
        answer["lost"] = self.lost + getattr(self._modem.ppp, "lost", 0)
        udp = self._socket
        if udp:
            answer["ip"] = {
                "fragments": udp.fragments,
                "malformed": udp.malformed,
                "strangers": udp.strangers,
                "lost": udp.lost,
            }
        return answer

    # --- the socket

    def open(self, address: bytes) -> IpSocket:
        """Return the link's socket at port 434 of `address`; OSError unless that is the link's."""
        if self._modem.state != base.UP or address != self._modem.address:
            raise OSError(_ENOTCONN)
        self._socket = IpSocket(address, self._modem.mtu, self._queue)
        return self._socket

    def _queue(self, packet, urgent):
        if self._modem.state != base.UP:
            raise OSError(_ENOTCONN)
        octets = len(packet)
        if urgent:
            if len(self._urgent) >= _URGENT:
                raise OSError(_ENOMEM)
            self._urgent.append(packet)
        else:
            if self._data_octets + octets > self._most:
                raise OSError(_ENOMEM)
            self._data_octets += octets
            self._data.append(packet)
        self._pump()

    def _deliver(self, buffer, start, end):
        self._meter.count(end - start)
        if self._socket and self._modem.state == base.UP:
            try:
                self._socket.take(buffer, start, end)
            except MemoryError:
                self.lost += 1
                gc.collect()

    # --- the line

    def _pending(self):
        return bool(self._uart.any()) or (self._full and self._uart.txdone())

    def _read(self, now):
        if self._uart.any():
            octets = self._uart.readinto(self._buffer)
            if octets:
                self._modem.receive(now, self._view[:octets])

    def _pump(self):
        """Write what there is to write, then a packet, as far as the line takes it."""
        action = self._modem.next_action()
        while action is not None:
            self._doors[action[0]].value(action[1])
            action = self._modem.next_action()
        if self._modem.state != base.UP and (self._data or self._urgent):
            self._forget()
        while True:
            self._full = not self._uart.txdone()
            if self._full:
                return
            octets = self._rest or self._next_octets()
            if not octets:
                return
            written = self._uart.write(octets) or 0
            self._rest = octets[written:]

    def _next_octets(self):
        modem = self._modem
        out = b""
        while len(out) < _PIECE:
            piece = modem.poll_transmit()
            if piece:
                out += piece
            elif out or not modem.idle or not (self._urgent or self._data):
                break
            else:
                packet = self._urgent.pop(0) if self._urgent else self._take_data()
                self._meter.count(len(packet))
                modem.send_packet(packet)
        return out

    def _take_data(self):
        packet = self._data.pop(0)
        self._data_octets -= len(packet)
        return packet

    def _forget(self):
        self._urgent = []
        self._data = []
        self._data_octets = 0
