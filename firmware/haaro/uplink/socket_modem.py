"""A cellular modem whose own UDP socket carries the uplink, sans-IO: cellular.py without PPP.

Owns what is different from a call: the line stays in command mode, and the radio can be asked in
between. Imported only where an uplink's "data" is "sockets".

    ... -> operator, signal -> socket (modem_sockets.py) -> up
"""

from haaro.compat import const
from haaro.uplink import base
from haaro.uplink.cellular import Cellular
from haaro.uplink.modem_sockets import Sockets
from haaro.uplink.socket_profiles import words

_COMMAND_MS = const(3000)
_LISTEN_MS = const(60000)
_PIECE = const(512)


class SocketModem(Cellular):
    """As Cellular; `ppp` is a Sockets."""

    def _carrier(self, random):
        return Sockets(self._settings, words(self._settings["profile"]))

    @property
    def data_mode(self) -> bool:
        """Whether the line, or its second channel, is the socket's."""
        return self.stage in ("socket", "up", "stop")

    def poll_transmit(self) -> bytes:
        """As Modem's; an escape is longer here."""
        if len(self._raw) > _PIECE:
            raw, self._raw = self._raw[:_PIECE], self._raw[_PIECE:]
            return raw
        return super().poll_transmit()

    def _close_down(self):
        # A modem that waits for a datagram takes what comes for a part of it.
        return bytes(self.ppp.most) + super()._close_down()

    def _next_event(self):
        return super()._next_event() or self.ppp.next_event()

    def _ask(self, now, text, then, timeout_ms=_COMMAND_MS, prefix="", repeat=True):
        if self.mux or not self.data_mode:
            super()._ask(now, text, then, timeout_ms, prefix, repeat)
        else:
            self._then = then
            self._repeat = None
            self.ppp.command(now, text, timeout_ms, prefix)

    def _unasked(self, now, line):
        if self.mux:
            # By which channel it is told is the modem's choice.
            self.ppp.unasked(now, line)
        super()._unasked(now, line)

    def _begin(self, now):
        self.stage = "socket"
        self._say(now, base.CONNECTING, "the modem opens its socket")
        self.ppp.start(now)

    def _watch(self, now):
        if self.stage == "socket" and self.ppp.state == "up":
            self.stage = "up"
            self._came_up(now)
            self._later(now, _LISTEN_MS, self._listen)
        else:
            super()._watch(now)

    def _listen(self, now):
        if self.ppp.busy:
            self._later(now, _LISTEN_MS, self._listen)
        else:
            super()._listen(now)
