"""The DHCP server of a LAN port (RFC 2131), where the router is a board: one pool, one subnet.

Owns what is offered to whom. Sends by the office; no address is offered before ARP was asked who
has it. It takes itself for the only server of its LAN: what it does not know it refuses or takes
over, where RFC 2131 lets a server that may be one of many keep silent.
"""

from haaro.compat import const
from haaro.lan import dhcp_message as message
from haaro.lan import leases
from haaro.wire.ipv4 import build_udp, text

_SERVER_PORT = const(67)
_CLIENT_PORT = const(68)
# ARP is given so long to say that an address is in use.
_PROBE_MS = const(500)
# Questions under way; another client has to ask again.
_PROBES = const(8)
_ATTEMPTS = const(3)
# An offer that nobody takes; with _OFFERS a forger of requests holds no more than so many.
_OFFER_S = const(30)
_OFFERS = const(16)
# An address that somebody else uses is not looked at again for so long.
_BAD_S = const(600)
# Leases that the status lists: each is 300 octets of heap for a moment.
_LISTED = const(32)
_NONE = b"\0\0\0\0"
_EVERYBODY = b"\xff\xff\xff\xff\xff\xff"
_LIMITED = b"\xff\xff\xff\xff"


class Probe:
    """One address that is asked for before the answer leaves."""

    def __init__(self, request, kind: int, address: bytes, key: bytes, tries: int) -> None:
        self.request = request
        self.kind = kind
        self.address = address
        self.key = key
        self.tries = tries
        self.due: int | None = None  # counted from the next tick: until then time is old


class Server:
    """options: {"first", "last": 4 octets, "lease_s", "dns": [4 octets], "mtu": None or octets,
    "reservations": {Ethernet address: address}, "file": path or None}.
    """

    def __init__(self, address: bytes, prefix_len: int, options: dict, now: int) -> None:
        self._address = address
        first = int.from_bytes(options["first"], "big")
        count = int.from_bytes(options["last"], "big") - first + 1
        self._lease_s = options["lease_s"]
        self._reservations = options["reservations"]
        self.leases = leases.Leases(first, count, self._lease_s, options["file"], now // 1000)
        mask = (0xFFFFFFFF << (32 - prefix_len)) & 0xFFFFFFFF
        self._network = [
            (message.MASK, mask.to_bytes(4, "big")),
            (message.ROUTER, address),
            (
                message.BROADCAST,
                (int.from_bytes(address, "big") | ~mask & 0xFFFFFFFF).to_bytes(4, "big"),
            ),
        ]
        if options["dns"]:
            self._network.append((message.DNS, b"".join(options["dns"])))
        if options["mtu"]:
            self._network.append((message.MTU, options["mtu"].to_bytes(2, "big")))
        self._probes: list = []
        self._now = now
        self._neighbours = None
        self._reply = None
        self.counts = {}
        for name in ("bad", "offers", "acks", "naks", "declined", "in_use", "exhausted", "busy"):
            self.counts[name] = 0

    def attach(self, neighbours, reply) -> None:
        """Use this ARP; reply(Ethernet address or None, IPv4 packet) sends."""
        self._neighbours = neighbours
        self._reply = reply

    def receive(self, octets: bytes) -> None:
        """Take the payload of one datagram to port 67."""
        try:
            request = message.Message(octets)
        except ValueError:
            self.counts["bad"] += 1
            return
        if request.giaddr != _NONE and not self._neighbours.on_link(request.giaddr):
            # A relay of another subnet: there is no pool for it.
            self.counts["bad"] += 1
            return
        key = leases.key_of(request.client, request.mac)
        kind = request.kind
        if kind == message.DISCOVER:
            self._discover(request, key)
        elif kind == message.REQUEST:
            self._request(request, key)
        elif kind == message.DECLINE:
            self._give_back(request, key, request.requested, leases.BAD)
        elif kind == message.RELEASE:
            self._give_back(request, key, request.ciaddr, leases.ENDED)
        elif kind == message.INFORM and request.ciaddr != _NONE:
            self._answer(request, message.ACK, _NONE, self._network)

    def heard(self, address: bytes, mac: bytes) -> None:
        """ARP has seen `address` in use by `mac`."""
        for probe in self._probes[:]:
            if probe.address == address and probe.request.mac != mac:
                self._probes.remove(probe)
                self.counts["in_use"] += 1
                if self.leases.holds(address):
                    row = self.leases.row_of(address)
                    self.leases.set(row, b"\0" * 8, mac, leases.BAD, _BAD_S)
                if probe.kind == message.ACK:
                    self._refuse(probe.request)
                elif address not in self._reservations.values() and probe.tries < _ATTEMPTS:
                    self._offer(probe.request, probe.key, probe.tries + 1)

    def tick(self, now: int) -> None:
        """Send what has waited for ARP; now in ms."""
        self._now = now
        self.leases.now = now // 1000
        for probe in self._probes:
            if probe.due is None:
                probe.due = now + _PROBE_MS
        while self._probes and self._probes[0].due <= now:
            probe = self._probes.pop(0)
            if probe.kind == message.OFFER:
                self.counts["offers"] += 1
                self._answer(probe.request, message.OFFER, probe.address, self._lease_options())
            else:
                self._bind(probe.request, probe.key, probe.address)
        self.leases.save()

    def next_deadline(self) -> int | None:
        """Return when `tick` has something to send, in ms."""
        if not self._probes:
            return None
        return self._now if self._probes[-1].due is None else self._probes[0].due

    def close(self) -> None:
        """Save the leases."""
        self.leases.save(True)

    def status(self) -> dict:
        """Return counters and the first leases."""
        answer = dict(self.counts)
        counts = self.leases.counts()
        answer["leased"] = counts[leases.LEASED]
        answer["free"] = counts[leases.FREE] + counts[leases.ENDED]
        answer["addresses_bad"] = counts[leases.BAD]
        answer["writes"] = self.leases.writes
        answer["write_errors"] = self.leases.write_errors
        listed: list = []
        for address, mac, left in self.leases.listed():
            if len(listed) < _LISTED:
                name = ":".join("%02x" % octet for octet in mac)
                listed.append({"address": text(address), "mac": name, "left_s": left})
        answer["leases"] = listed
        return answer

    # What clients ask for.

    def _discover(self, request, key):
        if any(probe.key == key for probe in self._probes):
            return
        self._offer(request, key, 1)

    def _offer(self, request, key, tries):
        address = self._choose(request, key)
        if address is None:
            self.counts["exhausted"] += 1
            return
        self._probe(request, message.OFFER, address, key, tries)

    def _probe(self, request, kind, address, key, tries):
        if len(self._probes) >= _PROBES:
            self.counts["busy"] += 1
            return
        if kind == message.OFFER and self.leases.holds(address):
            row = self.leases.row_of(address)
            if self.leases.state(row) != leases.LEASED:
                self.leases.set(row, key, request.mac, leases.OFFERED, _OFFER_S)
        self._probes.append(Probe(request, kind, address, key, tries))
        self._neighbours.probe(address)

    def _choose(self, request, key):
        """Return the address for a client: reserved, its last, the one it asks for, any."""
        reserved = self._reservations.get(request.mac)
        if reserved:
            return reserved
        table = self.leases
        row = table.find(key)
        if row >= 0 and not self._kept(table.address(row)):
            return table.address(row)
        if table.counts()[leases.OFFERED] >= _OFFERS:
            return None
        wanted = request.requested
        if (
            wanted
            and table.holds(wanted)
            and not self._kept(wanted)
            and table.state(table.row_of(wanted)) in (leases.FREE, leases.ENDED)
        ):
            return wanted
        row = table.spare(key, self._kept)
        return None if row < 0 else table.address(row)

    def _kept(self, address):
        return address == self._address or address in self._reservations.values()

    def _request(self, request, key):
        table = self.leases
        if request.server is not None and request.server != self._address:
            # It has taken another server's offer.
            row = table.find(key)
            if row >= 0 and table.state(row) == leases.OFFERED:
                table.set(row, key, request.mac, leases.FREE, 0)
            return
        address = request.requested if request.ciaddr == _NONE else request.ciaddr
        if address is None:
            self.counts["bad"] += 1
            return
        reserved = self._reservations.get(request.mac)
        if reserved or self._kept(address):
            if address == reserved:
                self._bind(request, key, address)
            else:
                self._refuse(request)
            return
        if not table.holds(address):
            self._refuse(request)
            return
        row = table.row_of(address)
        if table.is_of(row, key):
            self._bind(request, key, address)
        elif request.server is None and table.state(row) == leases.FREE:
            # It had it before this server forgot. Deviates from RFC 2131 4.3.2, which wants
            # silence: nobody else can answer, and ARP says if it is another's by now.
            if request.ciaddr == _NONE:
                self._probe(request, message.ACK, address, key, _ATTEMPTS)
            else:
                self._bind(request, key, address)
        else:
            self._refuse(request)

    def _bind(self, request, key, address):
        table = self.leases
        if table.holds(address) and not self._kept(address):
            table.set(table.row_of(address), key, request.mac, leases.LEASED, self._lease_s)
        self.counts["acks"] += 1
        self._answer(request, message.ACK, address, self._lease_options())

    def _refuse(self, request):
        self.counts["naks"] += 1
        self._answer(request, message.NAK, _NONE, [])

    def _give_back(self, request, key, address, state):
        table = self.leases
        if address is None or not table.holds(address):
            return
        row = table.row_of(address)
        if not table.is_of(row, key):
            return
        if state == leases.BAD:
            self.counts["declined"] += 1
            table.set(row, b"\0" * 8, request.mac, leases.BAD, _BAD_S)
        else:
            table.set(row, key, request.mac, leases.ENDED, 0)

    def _lease_options(self):
        seconds = self._lease_s
        return [
            (message.LEASE, seconds.to_bytes(4, "big")),
            (message.RENEW, (seconds // 2).to_bytes(4, "big")),
            (message.REBIND, (seconds * 7 // 8).to_bytes(4, "big")),
        ] + self._network

    def _answer(self, request, kind, address, options):
        """Send an answer where RFC 2131 4.1 says."""
        octets = message.build(request, kind, address, self._address, options)
        port = _CLIENT_PORT
        mac = request.mac
        if request.giaddr != _NONE:
            to = request.giaddr
            port = _SERVER_PORT
            mac = None
        elif kind == message.NAK:
            to = _LIMITED
        elif request.ciaddr != _NONE:
            to = request.ciaddr
        elif request.broadcast:
            to = _LIMITED
        else:
            to = address
        if to == _LIMITED:
            mac = _EVERYBODY
        self._reply(mac, build_udp(self._address, to, _SERVER_PORT, port, octets))
