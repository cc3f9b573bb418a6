"""PPP over a serial line, sans-IO: LCP, PAP, CHAP-MD5 and IPCP over the frames of hdlc.py.

RFC 1661 (LCP), RFC 1334 (PAP), RFC 1994 (CHAP), RFC 1332 (IPCP). The client's
side only: we never ask the peer to prove itself. Compression of any kind is refused. Octets and
`now` (milliseconds) in; octets, packets and one deadline out. Used by uplink/cellular.py.

    dead -> establish -> (authenticate) -> network -> up        any -> dead, with `reason`
"""

import struct

from haaro.compat import const
from haaro.uplink.hdlc import HEADROOM, Hdlc
from haaro.uplink.ppp_options import MAX_CONFIGURE, Layer, pack, unpack

try:
    from hashlib import md5
except ImportError:  # some ports of MicroPython
    from haaro.wire.pure_hash import md5  # type: ignore[assignment]

_IP = const(0x0021)
_IPCP = const(0x8021)
_LCP = const(0xC021)
_PAP = const(0xC023)
_CHAP = const(0xC223)
_MD5_OCTETS = const(16)

_REQUEST = const(1)
_ACK = const(2)
_NAK = const(3)
_REJECT = const(4)
_TERMINATE = const(5)
_TERMINATE_ACK = const(6)
_CODE_REJECT = const(7)
_PROTOCOL_REJECT = const(8)
_ECHO = const(9)
_ECHO_REPLY = const(10)
_DISCARD = const(11)

_MRU = const(1)
_ACCM = const(2)
_AUTHENTICATION = const(3)
_MAGIC = const(5)
_PFC = const(7)
_ACFC = const(8)
_ADDRESS = const(3)  # of IPCP

_LARGEST_MTU = const(1500)
_SMALLEST_MRU = const(576)
# RFC 1661 4.6 has 3 s; the peer is at the other end of a cable.
_RESTART_MS = const(1000)
_MAX_TERMINATE = const(2)
_MAX_NAKS = const(5)
_MOST_PACKETS = const(16)
_PIECE = const(512)
_ECHO_MS = const(5000)
_ECHO_MISSES = const(3)
# Given to a peer that has none and asks for one: the dummy address of RFC 7600 4.8.
_DUMMY = b"\xc0\x00\x00\x08"
_NO_ADDRESS = bytes(4)
_REFUSED = "the network refuses user or password"


class Ppp:
    """One link. user, password: octets; random: callable, random(n) -> n octets."""

    def __init__(self, user: bytes, password: bytes, random) -> None:
        self._user = user
        self._password = password
        self._random = random
        self.line = Hdlc(self._take)
        self.state = "dead"
        self.reason = ""
        # Called with (buffer, start, end) for each IPv4 packet, borrowed until it returns; the
        # octets before `start` may be overwritten.
        self.deliver = self._keep
        self._packets: list = []
        self._reset()

    def _reset(self):
        self.line.reset()
        self._accm = 0xFFFFFFFF
        self._magic = self._random(4)
        self.address = self.peer = _NO_ADDRESS
        self.mtu = _LARGEST_MTU
        self._auth = 0
        self._timer: int | None = None
        self._silent = 0
        self._lcp = Layer(_LCP, {_ACCM: bytes(4), _MAGIC: self._magic})
        self._ipcp = Layer(_IPCP, {_ADDRESS: _NO_ADDRESS})

    def start(self, now: int) -> None:
        """Open the link from the beginning; what was queued is forgotten."""
        self._packets = []
        self._reset()
        self.reason = ""
        self.state = "establish"
        self._configure(now, self._lcp)

    def stop(self, now: int) -> None:
        """Take leave of the peer; `state` is "dead" when it has answered or two seconds passed."""
        if self.state not in ("dead", "closing"):
            self.state = "closing"
            self._lcp.tries = _MAX_TERMINATE
            self._terminate(now)

    def fail(self, reason: str) -> None:
        """Be dead for this reason, at once."""
        self.state = "dead"
        self.reason = reason
        self._timer = None

    # --- octets and packets

    def receive(self, now: int, octets: bytes) -> None:
        """Take what came by the line. Borrowed until it returns."""
        if self.line.receive(now, octets) and self.state != "dead":
            self.fail("the modem lost the call")

    def send_packet(self, packet: bytes) -> None:
        """Queue one IPv4 packet; dropped unless the link is up."""
        if self.state == "up":
            self._send(_IP, packet)

    def _keep(self, buffer, start, end):
        if len(self._packets) < _MOST_PACKETS:
            self._packets.append(bytes(buffer[start:end]))

    def next_packet(self) -> bytes | None:
        """Return the next IPv4 packet that came, where `deliver` is not set."""
        return self._packets.pop(0) if self._packets else None

    def poll_transmit(self, most: int = _PIECE) -> bytes:
        """Return at most so many octets that must be written to the line next."""
        return self.line.poll_transmit(most)

    def _send(self, protocol, data):
        escapes = 0xFFFFFFFF if protocol == _LCP else self._accm
        self.line.send(escapes, struct.pack(">HH", 0xFF03, protocol), data)

    def _control(self, protocol, code, ident, data):
        self._send(protocol, struct.pack(">BBH", code, ident, 4 + len(data)) + data)

    # --- time

    def next_deadline(self) -> int | None:
        """Return when `handle_timer` must be called."""
        return self._timer

    def handle_timer(self, now: int) -> None:
        """Repeat what is unanswered; find out that the peer is gone."""
        if self._timer is None or now < self._timer:
            return
        self._timer = None
        if self.state == "up":
            self._silent += 1
            if self._silent > _ECHO_MISSES:
                self.fail("the peer does not answer")
                return
            self._lcp.ident = (self._lcp.ident + 1) & 255
            self._control(_LCP, _ECHO, self._lcp.ident, self._magic)
            self._timer = now + _ECHO_MS
        elif self.state == "closing":
            if self._lcp.tries:
                self._terminate(now)
            else:
                self.fail("")
        elif self.state == "authenticate":
            self._authenticate(now)
        elif self.state != "dead":
            self._configure(now, self._lcp if self.state == "establish" else self._ipcp)

    def _terminate(self, now):
        self._lcp.tries -= 1
        self._lcp.ident = (self._lcp.ident + 1) & 255
        self._timer = now + _RESTART_MS
        self._control(_LCP, _TERMINATE, self._lcp.ident, b"")

    def _configure(self, now, layer):
        if not layer.tries:
            self.fail("no PPP peer: %s is not answered" % ("LCP" if layer is self._lcp else "IPCP"))
            return
        layer.tries -= 1
        layer.acked = False
        layer.ident = (layer.ident + 1) & 255
        self._timer = now + _RESTART_MS
        self._control(layer.protocol, _REQUEST, layer.ident, pack(layer.options.items()))

    # --- what the peer says

    def _take(self, now, end):
        if self.state == "dead":
            return
        frame = self.line.frame
        at = HEADROOM
        if frame[at] == 0xFF and frame[at + 1] == 3:
            at += 2
        protocol = frame[at]
        at += 1
        if not protocol & 1:
            protocol = protocol << 8 | frame[at]
            at += 1
        self._silent = 0
        if protocol == _IP:
            if self.state == "up":
                self.deliver(frame, at, end)
            return
        body = bytes(memoryview(frame)[at:end])
        if len(body) < 4:
            return
        code, ident, length = struct.unpack(">BBH", body[:4])
        if not 4 <= length <= len(body):
            return
        data = body[4:length]
        if protocol == _LCP:
            self._negotiate(now, self._lcp, code, ident, data)
        elif protocol in (_PAP, _CHAP):
            if self.state == "authenticate" and protocol == self._auth:
                self._verdict(now, protocol, code, ident, data)
        elif protocol == _IPCP:
            if self.state in ("network", "up"):
                self._negotiate(now, self._ipcp, code, ident, data)
        elif self.state in ("network", "up"):
            self._lcp.ident = (self._lcp.ident + 1) & 255
            rejected = struct.pack(">H", protocol) + body[: _SMALLEST_MRU - 6]
            self._control(_LCP, _PROTOCOL_REJECT, self._lcp.ident, rejected)

    def _negotiate(self, now, layer, code, ident, data):
        if self.state == "closing" and code != _TERMINATE_ACK and code != _TERMINATE:
            return
        if code == _REQUEST:
            self._requested(now, layer, ident, data)
        elif code in (_ACK, _NAK, _REJECT):
            if ident == layer.ident and not layer.acked:
                self._response(now, layer, code, data)
        elif code == _TERMINATE:
            self._control(layer.protocol, _TERMINATE_ACK, ident, b"")
            self.fail("" if self.state == "closing" else "the network ended the call")
        elif code == _TERMINATE_ACK:
            if self.state == "closing":
                self.fail("")
        elif code == _PROTOCOL_REJECT and layer is self._lcp:
            if data[:2] == b"\x80\x21":
                self.fail("the peer has no IPv4")
        elif code == _ECHO and layer is self._lcp:
            self._control(_LCP, _ECHO_REPLY, ident, self._magic + data[4:])
        elif not (layer is self._lcp and code in (_ECHO_REPLY, _DISCARD, _CODE_REJECT)):
            self._control(layer.protocol, _CODE_REJECT, layer.ident, bytes((code, ident)) + data)

    def _requested(self, now, layer, ident, data):
        options = unpack(data)
        if options is None:
            return
        check = self._lcp_option if layer is self._lcp else self._ipcp_option
        rejected, naked = [], []
        for kind, value in options:
            answer = check(kind, value)
            if answer is None:
                rejected.append((kind, value))
            elif answer != value:
                naked.append((kind, answer))
        if self.state == "dead":
            return
        if layer.acked and layer.answered:
            # It begins anew (RFC 1661 4.3): so do we.
            layer.tries = MAX_CONFIGURE
            self.state = "establish" if layer is self._lcp else "network"
            self._configure(now, layer)
        layer.answered = not rejected and not naked
        if rejected:
            self._control(layer.protocol, _REJECT, ident, pack(rejected))
        elif naked:
            layer.naks += 1
            if layer.naks > _MAX_NAKS:
                self.fail("the peer insists on what is not understood")
                return
            self._control(layer.protocol, _NAK, ident, pack(naked))
        else:
            self._control(layer.protocol, _ACK, ident, data)
            self._take_options(layer, dict(options))
            self._advance(now, layer)

    def _lcp_option(self, kind, value):
        """Return the value that we accept, `value` itself if that is it, None: not understood."""
        if kind == _MAGIC and value == self._magic:
            self.fail("the line echoes: there is no PPP peer")
        if kind in (_ACCM, _MAGIC):
            return value if len(value) == 4 else None
        if kind == _MRU:
            mru = value[0] << 8 | value[1] if len(value) == 2 else 0
            return value if mru >= _SMALLEST_MRU else struct.pack(">H", _LARGEST_MTU)
        if kind == _AUTHENTICATION:
            if value == b"\xc0\x23" or value == b"\xc2\x23\x05":
                return value
            return b"\xc2\x23\x05"
        return value if kind in (_PFC, _ACFC) else None

    def _ipcp_option(self, kind, value):
        if kind != _ADDRESS or len(value) != 4:
            return None
        # A peer that wants none after having been offered one has none.
        return _DUMMY if value == _NO_ADDRESS and self._ipcp.naks < 2 else value

    def _take_options(self, layer, options):
        if layer is self._ipcp:
            self.peer = options.get(_ADDRESS, _NO_ADDRESS)
            return
        if _MRU in options:
            self.mtu = min(_LARGEST_MTU, struct.unpack(">H", options[_MRU])[0])
        if _ACCM in options:
            self._accm = struct.unpack(">I", options[_ACCM])[0]
        auth = options.get(_AUTHENTICATION)
        self._auth = struct.unpack(">H", auth[:2])[0] if auth else 0

    def _response(self, now, layer, code, data):
        if code == _ACK:
            if data == pack(layer.options.items()):
                layer.acked = True
                self._advance(now, layer)
            return
        for kind, value in unpack(data) or ():
            if kind not in layer.options:
                continue
            if code == _REJECT:
                if layer is self._ipcp:
                    self.fail("the peer gives no address")
                    return
                del layer.options[kind]
            elif layer is self._ipcp or kind == _ACCM:
                layer.options[kind] = value
            else:
                layer.options[kind] = self._magic = self._random(4)
        self._configure(now, layer)

    def _advance(self, now, layer):
        if not (layer.acked and layer.answered):
            return
        self._timer = None
        if layer is self._ipcp:
            self.address = layer.options[_ADDRESS]
            if self.address == _NO_ADDRESS:
                self.fail("the peer gives no address")
                return
            self.state = "up"
            self._timer = now + _ECHO_MS
        elif self._auth:
            self.state = "authenticate"
            self._tries = MAX_CONFIGURE
            self._authenticate(now)
        else:
            self._open_network(now)

    def _open_network(self, now):
        self.state = "network"
        self._ipcp = Layer(_IPCP, {_ADDRESS: _NO_ADDRESS})
        self._configure(now, self._ipcp)

    def _authenticate(self, now):
        """Ask by PAP, or wait for the challenge of CHAP; again when the timer ends."""
        if not self._tries:
            self.fail("user and password are not answered")
            return
        self._tries -= 1
        self._timer = now + _RESTART_MS
        if self._auth == _PAP:
            self._lcp.ident = (self._lcp.ident + 1) & 255
            pair = bytes((len(self._user),)) + self._user
            pair += bytes((len(self._password),)) + self._password
            self._control(_PAP, _REQUEST, self._lcp.ident, pair)

    def _verdict(self, now, protocol, code, ident, data):
        if protocol == _CHAP and code == 1:
            challenge = data[1 : 1 + data[0]] if data else b""
            digest = md5(bytes((ident,)) + self._password + challenge).digest()
            self._control(_CHAP, 2, ident, bytes((_MD5_OCTETS,)) + digest + self._user)
        elif code == (_ACK if protocol == _PAP else 3):
            self._open_network(now)
        elif code == (_NAK if protocol == _PAP else 4):
            self.fail(_REFUSED)
