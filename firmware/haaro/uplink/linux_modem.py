"""A modem at a serial port of a Linux box as uplink: cellular.py's octets, packets and lines.

Owns the tty, the files of the power and reset lines, the mark of the PIN and the count of octets;
decides nothing. The link it makes is an interface (platform/linux_point_to_point.py) that
linux_netdev.py watches like any other. Imported only where an uplink's driver is "cellular".
"""

import os
import select
import termios

from haaro.compat import const
from haaro.platform.linux_point_to_point import PointToPoint
from haaro.uplink import base
from haaro.uplink.modem_link import ModemLink

_IN = const(1)
_OUT = const(4)
_GONE = const(0x18)  # POLLERR, POLLHUP
_READ = const(1024)
_BURST = const(32)  # packets in one turn
_REOPEN_MS = const(1000)
_LEAST_QUEUE = const(32768)
_MOST_QUEUE = const(262144)
_CC = const(6)
_ISPEED = const(4)


class LinuxModem(ModemLink):
    """The modem of one uplink; see ModemLink. Raises OSError when the link cannot be made."""

    def __init__(self, index: int, uplink: dict, secrets: dict, path: str, routing, warn) -> None:
        doors = {door: uplink[door] for door in ("power_key", "reset") if uplink[door]}
        super().__init__(uplink, secrets, path, doors, os.urandom)
        self._warn = warn
        self._modem.ppp.deliver = self._deliver
        queue = min(max(uplink["baud"] // 4, _LEAST_QUEUE), _MOST_QUEUE)
        self._link = PointToPoint(routing, uplink["interface"], index, queue)
        self._poll = None
        self._tty = None
        self._ready = select.poll()
        self._buffer = bytearray(_READ)
        self._view = memoryview(self._buffer)
        self._piece = b""
        self._watching = 0
        self._open_at = 0
        self._up = False

    def register(self, poll) -> None:
        """Have what becomes readable, now and later, watched by `poll`."""
        self._poll = poll

    def next_deadline(self) -> int:
        """Return when `tick` must be called."""
        if self._tty is None:
            return self._open_at
        return super().next_deadline()

    def tick(self, now: int) -> None:
        """Do what is due."""
        if self._tty is None:
            if now < self._open_at or not self._open(now):
                return
            self._capped = False
            self._modem.start(now)
        if self._event() & _IN:
            # Where the loop was late, an answer that lies here is in time.
            self._read(now)
            if self._tty is None:
                return
        self._check_cap(now)
        self._modem.handle_timer(now)
        self._pump(now)

    def handle(self, obj, now: int) -> bool:
        """Take what `obj` has; False if it is not ours."""
        if self._tty is not None and obj is self._tty:
            self._read(now)
        elif self._link.socket is None or obj not in (self._link.socket, self._link.urgent):
            return False
        self._pump(now)
        return True

    def status(self) -> dict:
        """Facts for the status report."""
        answer = super().status()
        answer["lost"] = self._link.lost
        return answer

    def close(self) -> None:
        """End the call as far as that takes no waiting, and remove the link."""
        self._modem.stop(0)
        self._pump(0)
        self._meter.save(0)
        self._close_tty()
        self._link.close()

    # --- the line

    def _open(self, now):
        self._open_at = now + _REOPEN_MS
        try:
            tty = open(self._uplink["port"], "r+b")  # noqa: SIM115
            number = tty.fileno()
            termios.setraw(number)
            mode = termios.tcgetattr(number)
            # VMIN is the one that setraw has set to 1; at 0 a read takes what there is.
            mode[_CC] = [0 if value == 1 else value for value in mode[_CC]]
            rate = getattr(termios, "B%d" % self._uplink["baud"], None)
            if rate is not None:
                mode[_ISPEED] = mode[_ISPEED + 1] = rate
            termios.tcsetattr(number, termios.TCSANOW, mode)
        except OSError as error:
            self._warn("uplink %s: %s: %s" % (self._uplink["name"], self._uplink["port"], error))
            return False
        self._tty = tty
        self._ready.register(tty, _IN | _OUT)
        self._poll.register(tty, _IN)
        self._watching = _IN
        return True

    def _close_tty(self):
        if self._tty is not None:
            self._ready.unregister(self._tty)
            self._poll.unregister(self._tty)
            self._tty.close()
            self._tty = None
        self._piece = b""

    def _event(self):
        for _, event in self._ready.ipoll(0):
            return event
        return 0

    def _read(self, now):
        event = self._event()
        octets = 0
        try:
            if event & _IN:
                octets = self._tty.readinto(self._buffer)
        except OSError:
            event |= _GONE
        if octets:
            self._modem.receive(now, self._view[:octets])
        elif event & _GONE:
            # A modem that starts anew takes its USB port with it.
            self._modem.stop(now, "%s is gone" % self._uplink["port"])
            self._close_tty()
            self._modem.stage = "off"
            self._open_at = now + _REOPEN_MS

    def _pump(self, now):
        """Write what there is to write, then packets as far as the line takes them."""
        self._actions()
        modem = self._modem
        burst = _BURST
        while self._tty is not None:
            if not self._piece:
                self._piece = modem.poll_transmit()
            if self._piece:
                if not self._event() & _OUT:
                    break
                try:
                    self._tty.write(self._piece)
                except OSError:
                    break
                self._piece = b""
            elif burst and self._up and modem.idle:
                burst -= 1
                packet = self._link.read()
                if packet is None:
                    break
                self._meter.count(len(packet))
                modem.send_packet(packet)
            else:
                break
        self._follow()
        self._watch()

    def _actions(self):
        action = self._modem.next_action()
        while action is not None:
            path = self._doors[action[0]]
            try:
                with open(path, "w") as file:
                    file.write(str(action[1]))
            except OSError as error:
                self._warn("uplink %s: %s: %s" % (self._uplink["name"], path, error))
            action = self._modem.next_action()

    def _watch(self):
        """While the line is full, its room is waited for, and packets are left where they are."""
        full = bool(self._piece)
        if self._tty is not None and self._watching != (_IN | _OUT if full else _IN):
            self._watching = _IN | _OUT if full else _IN
            self._poll.modify(self._tty, self._watching)
            if self._link.socket is not None:
                for socket in (self._link.urgent, self._link.socket):
                    self._poll.modify(socket, 0 if full else _IN)

    def _follow(self):
        """The interface has the state of the call."""
        up = self._modem.state == base.UP
        if up == self._up:
            return
        self._up = up
        try:
            if up:
                self._link.up(self._modem.address, self._modem.mtu)
                for socket in (self._link.urgent, self._link.socket):
                    self._poll.register(socket, _IN)
            else:
                for socket in (self._link.urgent, self._link.socket):
                    self._poll.unregister(socket)
                self._link.down()
        except OSError as error:
            self._warn("uplink %s: %s" % (self._uplink["name"], error))

    def _deliver(self, buffer, start, end):
        if self._up:
            self._meter.count(end - start)
            self._link.write(buffer, start, end)
