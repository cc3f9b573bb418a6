"""The binding with the home agent: RFC 5944 3.6, RFC 5177 5, RFC 3519 4, RFC 6521 3.1.

Sends Registration Requests, takes the replies, keeps the lifetime, follows the home agent's
clock. Solicits a router when the correspondent role asks. Called by the router; tells it of an
acceptance by `on_accepted`.
"""

from haaro.compat import const
from haaro.core import encapsulation
from haaro.core.uplink_trial import UplinkTrial
from haaro.wire import auth, extensions, ipv4
from haaro.wire import registration as wire
from haaro.wire.message import MIP_PORT

_MIN_GAP_MS = const(1000)  # RFC 5944 3.6.3: never two requests within a second
_MAX_BACKOFF_MS = const(32000)
_MIN_KEEPALIVE_MS = const(10000)  # RFC 3519 4.10
_STOP_TRIES = const(3)
_M32 = 0xFFFFFFFF


def backoff_ms(random, attempts: int) -> int:
    """Return how long to wait after try number `attempts`: 1 s doubled each time to 32 s, plus up
    to a quarter.
    """
    base = min(_MIN_GAP_MS << min(attempts, 5), _MAX_BACKOFF_MS)
    return base + base * random(1)[0] // 1024


class Pending:
    """A request that waits for its reply."""

    def __init__(self, identification: int, sent_at: int, lifetime: int) -> None:
        self.identification = identification
        self.sent_at = sent_at
        self.lifetime = lifetime
        self.solicited: bytes | None = None
        self.coa = b""
        self.uplink = -1
        self.port = MIP_PORT  # of the tunnel asked for (core/encapsulation.py)


class HomeRegistration:
    """`on_accepted(now, solicited, moved)` after each accepted registration; `on_lost(now)` when
    it has expired.
    """

    def __init__(self, ctx, tunnels, cache, on_accepted, on_lost) -> None:
        self._ctx = ctx
        self._tunnels = tunnels
        self._cache = cache
        self._on_accepted = on_accepted
        self._on_lost = on_lost
        self._pending: Pending | None = None
        self._last: int | None = None
        self._sent_at = -_MIN_GAP_MS
        self._attempts = 0
        self._mismatches = 0  # replies with code 133 in a row
        self._use_other = False  # sign with settings.other_association
        self._solicit: bytes | None = None
        self._trial = UplinkTrial(ctx)
        self.registered = False
        self.stopped = False
        self.coa = b""
        self.expires_at = 0
        self.code: int | None = None
        self.nat = False
        self.udp_because = ""  # why it is UDP where another encapsulation is configured
        self._udp_at = b""  # the care-of address where nothing else passes
        self.route_optimization = False
        self.revocation_stamp: int | None = None  # the home agent's; None: not agreed (RFC 3543)
        self.networks: list[tuple[bytes, int]] = list(ctx.settings.networks)
        self.refused: list[tuple[bytes, int, int]] = []  # (prefix, plen, ack code)

    def refresh(self, now: int) -> None:
        """Register as soon as the rate limit allows, with a fresh backoff."""
        self._attempts = 0
        self._schedule(now)

    def home_agent_silent(self, now: int) -> None:
        """The tunnel's keepalives go unanswered: register again, which also opens a NAT anew."""
        self._trial.doubt(now, 1)
        home = self._tunnels.get(0)
        if home is not None and home.remote_port > 0xFFFF:
            if home.rtt_ms is None:
                used = encapsulation.name(home.remote_port)
                self._only_udp(home.local, f"no answer came through the {used} tunnel")
            home.rtt_ms = None
        if self._pending is None:
            self._ctx.counters.bump("home_agent_silent")
            self.refresh(now)

    def wanted(self, coa: bytes) -> int:
        """Return the port of the tunnel to ask for from a care-of address."""
        other = coa != self._udp_at
        return encapsulation.of_name(self._ctx.settings.encapsulation) if other else MIP_PORT

    def _only_udp(self, coa: bytes, why: str) -> None:
        self._udp_at = coa
        self._ctx.warn(f"{why}; UDP is used")
        self.udp_because = why

    def suspect(self, now: int, tunnel) -> None:
        """A tunnel may be dead, unseen: register again by its uplink. An answer shows that it
        works, and opens a NAT anew; without one the next uplink is tried.
        """
        if self._trial.doubted(now, tunnel) and self._pending is None:
            self.refresh(now)

    def consider(self, now: int, fresh: bool = False) -> None:
        """Let the policy choose the uplink, and register by it if that is another one.

        A request under way is waited for, unless `fresh` says that a link or the operator's wish
        has changed.
        """
        link = self._trial.choose(now)
        if link is None or self._ctx.stopping or (self._pending is not None and not fresh):
            return
        home = self._tunnels.get(0)
        here = home is not None and home.up and home.uplink == link.index
        if link.index != self._trial.index and not (here and self.registered):
            self.refresh(now)

    def solicit(self, now: int, hoa: bytes) -> None:
        """Re-register with the S bit to learn about router `hoa` (RFC 6521 3.3.3)."""
        self._solicit = hoa
        self._schedule(now)

    def lost_uplink(self, uplink) -> None:
        """The care-of address of `uplink` is gone: a reply to it cannot come."""
        self._trial.lost(uplink)
        if self._pending is not None and self._pending.uplink == uplink.index:
            self._pending = None

    def stop(self, now: int) -> None:
        """Deregister: Lifetime 0, tried a few times."""
        self._attempts = 0
        self._solicit = None
        if self.registered and self._ctx.uplink() is not None:
            self._send(now)
        else:
            self._finish_stop()

    def _schedule(self, now: int) -> None:
        self._ctx.deadlines.set("register", max(now, self._sent_at + _MIN_GAP_MS))

    def handle_timer(self, now: int, kind: str) -> None:
        """The timer "register" (send, or send again) or "expire" is due."""
        if kind == "expire":
            self._lose(now, "registration with the home agent expired")
        elif self._ctx.stopping and self._attempts >= _STOP_TRIES:
            self._finish_stop()
        else:
            if self._pending is not None:
                self._trial.unanswered(now, self._pending.uplink, self._attempts)
            self._send(now)

    def _finish_stop(self) -> None:
        self.stopped = True
        self._ctx.deadlines.clear("register")
        self._ctx.deadlines.clear("expire")
        self.registered = False
        self._tunnels.close(0)

    def _lose(self, now: int, text: str) -> None:
        self.registered = False
        self._ctx.current = -1
        self._ctx.deadlines.clear("expire")
        self._tunnels.close(0)
        self._ctx.warn(text)
        self._on_lost(now)

    def revoked(self, now: int) -> None:
        """The home agent ended the binding (RFC 3543); asking again shows whether for good."""
        self._pending = None
        self._lose(now, "the home agent revoked our registration")
        self._attempts = 1
        self._ctx.deadlines.set("register", now + backoff_ms(self._ctx.random, 1))

    def _send(self, now: int) -> None:
        settings = self._ctx.settings
        uplink = self._trial.target(now)
        if uplink is None:
            return
        if self._attempts == 0:
            self._use_other = False
        elif self._pending is not None:
            # A home agent that does not know an SPI says nothing, or a code that we cannot verify
            # (RFC 5944 3.8.2.1): silence is all there is to go by.
            self._use_other = not self._use_other
        lifetime = 0 if self._ctx.stopping else settings.lifetime
        number = self._ctx.clock.identification(now, self._ctx.random, self._last)
        pending = Pending(number, now, lifetime)
        pending.coa = uplink.address
        pending.uplink = uplink.index
        pending.solicited = self._solicit
        pending.port = self.wanted(uplink.address)
        self._last = number
        self._sent_at = now
        self._pending = pending
        # The timer first: whatever happens to the datagram, there is a next try.
        self._ctx.deadlines.set("register", now + backoff_ms(self._ctx.random, self._attempts))
        self._attempts += 1
        message = wire.build_request(
            wire.FLAG_D | wire.FLAG_T | encapsulation.flags(pending.port),
            lifetime,
            settings.home_address,
            settings.home_agent,
            uplink.address,
            number.to_bytes(8, "big"),
        )
        if lifetime:
            self._append_extensions(message, number >> 32, pending.port)
        spi, algorithm, key = self._association()
        auth.append_mobile_home(message, spi, algorithm, key)
        self._tunnels.expect_home(now, uplink)
        self._ctx.send_outside(uplink.index, settings.home_agent, MIP_PORT, message)

    def _association(self) -> tuple:
        """Return what signs the next request: each renewal begins with the first association."""
        settings = self._ctx.settings
        if self._use_other and settings.other_association is not None:
            return settings.other_association
        return settings.spi, settings.algorithm, settings.key

    def _append_extensions(self, message: bytearray, seconds: int, port: int) -> None:
        settings = self._ctx.settings
        if settings.explicit:
            for prefix, plen in settings.networks:
                extensions.append_mobile_network_request(message, prefix, plen)
        encapsulation.append_request(message, port)
        if settings.route_optimization:
            extensions.append_route_optimization_capability(
                message, settings.advertise, True, settings.outbound_only, self._solicit
            )
        extensions.append_revocation_support(message, True, seconds)

    def receive_reply(self, now: int, message, arrival) -> None:
        """A Registration Reply came from the home agent's address, outside every tunnel."""
        pending = self._check(message, arrival)
        if pending is None:
            return
        self.code = message.code
        if message.code == wire.IDENTIFICATION_MISMATCH:
            self._resynchronise(now, message, pending)
        elif message.code in (wire.ACCEPTED, wire.ACCEPTED_NO_SIMULTANEOUS):
            self._pending = None
            if pending.lifetime == 0:
                self._finish_stop()
            else:
                self._accept(now, message, pending)
        else:
            self._pending = None
            self._mismatches = 0
            self._trial.denied(now, pending.uplink)
            self._ctx.counters.bump("registration_denied")
            if message.code == wire.FAILED_AUTHENTICATION:
                self._use_other = not self._use_other
            self._ctx.warn(f"home agent denied the registration: {wire.code_name(message.code)}")
            if pending.port > 0xFFFF and message.code == wire.ENCAPSULATION_UNAVAILABLE:
                name = encapsulation.name(pending.port)
                self._only_udp(pending.coa, f"the home agent does not allow {name}")
                self._schedule(now)

    def _check(self, message, arrival) -> Pending | None:
        settings = self._ctx.settings
        pending = self._pending
        refuse = self._ctx.counters.bump
        if pending is None or arrival.dst != pending.coa:
            return refuse("reply_not_awaited")
        mine = message.home_address == settings.home_address
        if not mine or message.home_agent != settings.home_agent:
            return refuse("reply_other_addresses")
        if int.from_bytes(message.identification, "big") & _M32 != pending.identification & _M32:
            return refuse("reply_identification")
        proof = message.authenticator
        if message.authenticators != 1 or not isinstance(proof, wire.MobileHomeAuthentication):
            return refuse("reply_authenticators")
        association = settings.association(proof.spi)
        if association is None:
            return refuse("reply_unknown_spi")
        if not auth.verify_mobile_home(message, association[1], association[2]):
            return refuse("reply_bad_authenticator")
        return pending

    def _resynchronise(self, now: int, message, pending: Pending) -> None:
        """Code 133, authentic and for our request: take the home agent's seconds (RFC 5944
        5.7.1).
        """
        clock = self._ctx.clock
        high = int.from_bytes(message.identification[:4], "big")
        correction = clock.correction_ms(now, high)
        clock.offset_ms += correction
        clock.synchronised = True
        self._pending = None
        self._last = None
        self._solicit = pending.solicited
        self._ctx.counters.bump("clock_resynchronised")
        self._ctx.log(f"clock for registration moved by {correction} ms to the home agent's")
        self._mismatches += 1
        if self._mismatches <= 2:
            # A home agent that never agrees gets the backoff, not a request a second.
            self._schedule(now)

    def _accept(self, now: int, message, pending: Pending) -> None:
        settings = self._ctx.settings
        tunnel_reply = message.find(extensions.UdpTunnelReply)
        lifetime = min(message.lifetime, pending.lifetime)
        uplink = self._ctx.uplinks.get(pending.uplink)
        port = encapsulation.granted(pending.port, tunnel_reply)
        if lifetime == 0 or not port or uplink is None:
            self._ctx.counters.bump("registration_unusable")
            self._ctx.warn("home agent accepted without a usable lifetime or UDP tunnel")
            return
        self._ctx.clock.synchronised = True
        self._trial.accepted(now, uplink, now - pending.sent_at)
        moved = self.coa != pending.coa or not self.registered
        before = (self.registered, self.networks, self.route_optimization)
        if not self.registered:
            self._ctx.log(f"registered with home agent {ipv4.text(settings.home_agent)}")
        self.registered = True
        self.coa = pending.coa
        self._attempts = self._mismatches = 0
        if self._solicit == pending.solicited:
            self._solicit = None
        # The lifetime counts from the request (RFC 5944 3.6.2.2).
        self.expires_at = pending.sent_at + lifetime * 1000
        self._ctx.deadlines.set("expire", self.expires_at)
        again = pending.sent_at + lifetime * 750
        if self._solicit is not None:
            again = now
        self._ctx.deadlines.set("register", max(again, self._sent_at + _MIN_GAP_MS))
        asked = tunnel_reply.keepalive if tunnel_reply is not None else 0
        interval = asked * 1000 or settings.ha_keepalive_ms
        self._tunnels.open_home(now, uplink, max(interval, _MIN_KEEPALIVE_MS), port)
        support = message.find(extensions.RevocationSupport)
        self.revocation_stamp = support.timestamp if support is not None else None
        self._take_networks(message)
        self._take_optimisation(message, pending.solicited)
        if before != (True, self.networks, self.route_optimization):
            self._ctx.queues.routes()
        self._on_accepted(now, pending.solicited, moved)
        self.consider(now)

    def _take_networks(self, message) -> None:
        settings = self._ctx.settings
        self.refused = []
        accepted = []
        for ack in message.all(extensions.MobileNetworkAck):
            prefix = ipv4.mask(ack.prefix, ack.plen)
            if ack.code == 0:
                accepted.append((prefix, ack.plen))
            else:
                self.refused.append((prefix, ack.plen, ack.code))
        if settings.explicit:
            for prefix, plen, code in self.refused:
                self._ctx.warn(f"home agent refused {ipv4.text(prefix)}/{plen}: code {code}")
            if settings.networks and not accepted and not self.refused:
                self._ctx.warn("home agent acknowledged no mobile network")
            self.networks = [network for network in settings.networks if network in accepted]
        else:
            self.networks = accepted or list(settings.networks)

    def _take_optimisation(self, message, solicited: bytes | None) -> None:
        reply = message.find(extensions.RouteOptimizationReply)
        adverts = message.all(extensions.PrefixAdvertisement)
        self.route_optimization = reply is not None and reply.accepted
        self.nat = reply is not None and reply.nat
        if self.coa != self._udp_at:
            forced = self.nat and self._ctx.settings.encapsulation != "udp"
            self.udp_because = "a NAT is in the way" if forced else ""
        bad = [entry for entry in message.bad if entry[0] == extensions.ROUTE_OPTIMIZATION_DATA]
        if bad or len(adverts) > 1:
            # [A52]: the registration stands, nothing of the list is used.
            self._ctx.counters.bump("advertisement_bad")
            self._ctx.warn("home agent sent a malformed prefix advertisement; it was not used")
        elif self.route_optimization:
            self._cache.update(adverts[0] if adverts else [], solicited)
