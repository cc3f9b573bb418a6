"""Correspondent router role: answers HoTI and CoTI without state, judges peers' requests (RFC
6521 3.2, 3.3.3).

The order for a request is always: authenticate, match, replay, cache check, home agent asked if
needed, answer. Called by the router.
"""

from haaro.compat import const
from haaro.core import clock, encapsulation
from haaro.core.nonces import Limiter, Nonces
from haaro.core.peer_state import Binding
from haaro.wire import auth, extensions, ipv4
from haaro.wire import registration as wire
from haaro.wire import return_routability as rr_wire
from haaro.wire.message import MIP_PORT

_MAX_RR_BINDING_LIFETIME = const(420)  # s, RFC 6275 12 [A30]
_WINDOW_MS = const(15000)  # two routers may each be 7 s off the home agent's clock [A45]
_KEEP_IDENTIFICATION_MS = const(240000)  # MAX_NONCE_LIFETIME, after the binding is gone
_MAX_IDENTIFICATIONS = const(192)  # a new router is refused when full
_SOLICIT_MS = const(4000)  # the home agent's answer is awaited this long
_NEGATIVE_MS = const(30000)  # a claim the home agent did not confirm is not asked again
_MAX_NEGATIVE = const(32)  # the oldest goes
_MAX_WAITING = const(8)  # requests that wait for the home agent; a further one is dropped


class Claim:
    """An authentic request that is being judged: message, how it came, the key to answer with."""

    def __init__(self, message, arrival, key: bytes, static: bool) -> None:
        self.message = message
        self.arrival = arrival
        self.key = key
        self.static = static
        self.port = 0  # of the tunnel (core/encapsulation.py)
        self.networks = [(e.prefix, e.plen) for e in message.all(extensions.MobileNetworkRequest)]


class Correspondent:
    """The CR role. `peers` is our MR role, `registration` the binding with the home agent."""

    def __init__(self, ctx, cache, tunnels, registration, peers) -> None:
        self._ctx = ctx
        self._cache = cache
        self._tunnels = tunnels
        self._home = registration
        self._peers = peers
        self.nonces = Nonces(ctx.random)
        self._tests = Limiter(20, 100)
        self._requests = Limiter(20, 100)
        # Whoever has a record or a tunnel is not starved by a flood of strangers.
        self._acquaintances = Limiter(20, 100)
        self._newest: dict[bytes, tuple[int, int]] = {}  # HoA: (Identification, keep until)
        self._waiting: dict[bytes, Claim] = {}
        self._soliciting: bytes | None = None
        self._negative: dict[bytes, int] = {}

    def _allow(self, now: int, source: bytes, strangers: Limiter) -> bool:
        known = self._cache.get(source) is not None or self._tunnels.ends_at(source)
        return (self._acquaintances if known else strangers).allow(now, source)

    def receive_init(self, now: int, message, arrival) -> None:
        """Answer a HoTI or CoTI to where it came from; nothing is remembered (RFC 6521 3.2,
        11.1).
        """
        if not self._allow(now, arrival.src, self._tests):
            self._ctx.counters.bump("test_init_rate_limited")
            return
        index, nonce, kcr = self.nonces.current(now)
        if message.type == rr_wire.HOTI:
            token = rr_wire.home_keygen_token(kcr, arrival.src, nonce)
            kind = rr_wire.HOT
        else:
            token = rr_wire.care_of_keygen_token(kcr, arrival.src, nonce)
            kind = rr_wire.COT
        answer = rr_wire.build_test(kind, index, message.cookie, token)
        self._ctx.send_home(arrival.src, arrival.sport, answer)

    def receive_request(self, now: int, message, arrival) -> None:
        """A peer's Registration Request came for our home address, inside the home agent's
        tunnel.
        """
        refuse = self._ctx.counters.bump
        proof = message.authenticator
        if not self._allow(now, arrival.src, self._requests):
            refuse("peer_request_rate_limited")
        elif message.authenticators != 1 or not isinstance(
            proof, wire.MobileCorrespondentAuthentication
        ):
            refuse("peer_request_authenticators")
        elif message.home_address == self._ctx.settings.home_address:
            refuse("peer_request_own_address")
        else:
            claim = self._authenticate(now, message, arrival)
            if claim is not None and self._match(claim) and self._not_replayed(now, claim):
                self._judge(now, claim)

    def _authenticate(self, now: int, message, arrival) -> Claim | None:
        static = self._ctx.settings.static_krm.get(message.home_address)
        keys = static if static else self._rr_key(now, message, arrival)
        for key in keys[:2]:
            if auth.verify_mobile_correspondent(message, key):
                return Claim(message, arrival, key, bool(static))
        if keys:
            self._ctx.counters.bump("peer_request_bad_authenticator")
        return None

    def _rr_key(self, now: int, message, arrival) -> list[bytes]:
        """Return the KRm of the request's nonces, or answer 201 to 203 and return none."""
        proof = message.authenticator
        home = self.nonces.find(now, proof.home_nonce_index)
        care_of = self.nonces.find(now, proof.care_of_nonce_index)
        deregistration = message.lifetime == 0
        token = b""
        if home is not None:
            token = rr_wire.home_keygen_token(home[2], message.home_address, home[1])
            if deregistration:
                return [rr_wire.krm_deregistration(token)]
        if home is not None and care_of is not None:
            # The address seen on the wire, not the field: a NAT may lie between [A35].
            return [
                rr_wire.krm(
                    token, rr_wire.care_of_keygen_token(care_of[2], arrival.src, care_of[1])
                )
            ]
        self._ctx.counters.bump("peer_request_nonce_expired")
        if home is not None:
            code = wire.EXPIRED_CARE_OF_NONCE
        elif care_of is not None or deregistration:
            code = wire.EXPIRED_HOME_NONCE
        else:
            code = wire.EXPIRED_NONCES
        # Without a key there is nothing to authenticate the reply with [A31].
        reply = wire.build_reply(
            code, 0, message.home_address, message.home_agent, message.identification
        )
        self._ctx.send_home(arrival.src, arrival.sport, reply)
        return []

    def _match(self, claim: Claim) -> bool:
        message = claim.message
        if message.home_agent != self._ctx.settings.home_agent:
            self._refuse(claim, wire.UNKNOWN_HOME_AGENT)  # [A43]
        elif len(message.bad) > len(message.invalid_networks):
            self._refuse(claim, wire.POORLY_FORMED)
        elif message.lifetime and not self._tunnel_port(claim):
            self._refuse(claim, wire.UDP_ENCAPSULATION_UNAVAILABLE)
        else:
            return True
        return False

    def _tunnel_port(self, claim: Claim) -> int:
        """Return the port of the tunnel that the request gets, 0 if it gets none."""
        record = self._cache.get(claim.message.home_address)
        uplink = self._ctx.uplink(record)
        coa = uplink.address if uplink is not None else b""
        ours = encapsulation.toward(self._home, record, coa)
        claim.port = encapsulation.answer(claim.message, claim.arrival.src, ours)
        return claim.port

    def _not_replayed(self, now: int, claim: Claim) -> bool:
        number = int.from_bytes(claim.message.identification, "big")
        ours = self._ctx.clock.ntp(now)
        newest = self._newest.get(claim.message.home_address)
        if newest is not None and clock.newer(newest[0], ours):
            # The home agent's clock, and so ours, went back: toward this peer it does not, or
            # each would refuse the other until time has caught up.
            ours = newest[0]
        fresh = abs(clock.distance_ms(number, ours)) <= _WINDOW_MS
        if fresh and (newest is None or clock.newer(number, newest[0])):
            return True
        self._ctx.counters.bump("peer_request_replayed" if fresh else "peer_request_stale")
        seconds = (ours >> 32).to_bytes(4, "big")
        identification = seconds + claim.message.identification[4:]
        self._answer(claim, wire.IDENTIFICATION_MISMATCH, 0, identification, [])
        return False

    def _judge(self, now: int, claim: Claim) -> None:
        """Check the claim against the cache; ask the home agent once if it does not hold (RFC
        6521 3.3.3).
        """
        hoa = claim.message.home_address
        if claim.message.lifetime == 0:
            self._deregister(now, claim)
        elif self._confirmed(claim):
            self._accept(now, claim)
        elif self._negative.get(hoa, now) > now:
            self._conclude(now, claim)
        elif hoa not in self._waiting and len(self._waiting) >= _MAX_WAITING:
            self._ctx.counters.bump("peer_request_waiting_full")
        else:
            self._waiting[hoa] = claim
            self._solicit_next(now)

    def _confirmed(self, claim: Claim) -> bool:
        record = self._cache.get(claim.message.home_address)
        return record is not None and all(
            record.valid_prefix(*network) for network in claim.networks
        )

    def _solicit_next(self, now: int) -> None:
        if self._soliciting is not None or not self._waiting:
            return
        self._soliciting = next(iter(self._waiting))
        self._ctx.deadlines.set("solicit", now + _SOLICIT_MS)
        self._home.solicit(now, self._soliciting)

    def home_accepted(self, now: int, solicited: bytes | None) -> None:
        """The home agent accepted a registration of ours; `solicited` is the router it was asked
        about.
        """
        if solicited is not None and solicited == self._soliciting:
            self._soliciting = None
            self._ctx.deadlines.clear("solicit")
            claim = self._waiting.pop(solicited, None)
            if claim is not None:
                self._conclude(now, claim)
        for hoa in list(self._waiting):
            if self._confirmed(self._waiting[hoa]):
                self._accept(now, self._waiting.pop(hoa))
        self._solicit_next(now)

    def solicit_timer(self, now: int) -> None:
        """The home agent did not answer; the peer will ask again."""
        self._ctx.counters.bump("solicitation_unanswered")
        if self._soliciting is not None:
            self._waiting.pop(self._soliciting, None)
        self._soliciting = None
        self._solicit_next(now)

    def _conclude(self, now: int, claim: Claim) -> None:
        """The home agent has spoken: accept what it confirms, refuse a router it does not know."""
        hoa = claim.message.home_address
        if not self._confirmed(claim):
            self._ctx.counters.bump("peer_claim_unauthorized")
            if hoa not in self._negative:
                if len(self._negative) >= _MAX_NEGATIVE:
                    del self._negative[min(self._negative, key=lambda k: self._negative[k])]
                self._negative[hoa] = now + _NEGATIVE_MS
            elif self._negative[hoa] <= now:
                self._negative[hoa] = now + _NEGATIVE_MS
        if self._cache.get(hoa) is not None:
            self._accept(now, claim)
        else:
            code = wire.MOBNET_ERROR if claim.networks else wire.ADMINISTRATIVELY_PROHIBITED
            self._refuse(claim, code)

    def _accept(self, now: int, claim: Claim) -> None:
        message = claim.message
        hoa = message.home_address
        record = self._cache.get(hoa)
        uplink = self._ctx.uplink(record)
        if uplink is None or not self._remember(now, claim):
            return
        cap = self._ctx.settings.static_lifetime if claim.static else _MAX_RR_BINDING_LIFETIME
        lifetime = min(message.lifetime, cap)
        if not self._open_tunnel(now, claim, uplink):
            self._refuse(claim, wire.INSUFFICIENT_RESOURCES)
            return
        binding = Binding(message.care_of_address, claim.arrival.src, now + lifetime * 1000)
        binding.networks = [n for n in claim.networks if record.valid_prefix(*n)]
        first = record.binding is None
        if first or record.binding.networks != binding.networks:
            self._ctx.queues.routes()
        record.binding = binding
        self._ctx.deadlines.set("cr_expire", binding.expires_at, hoa)
        self._ctx.deadlines.clear("grace", hoa)
        # RFC 6521 3.3.3: two routers at once; the smaller home address pre-accepts.
        smaller = self._ctx.settings.home_address < hoa
        concurrent = smaller and self._peers.pending(record)
        code = wire.CONCURRENT if concurrent else wire.ACCEPTED
        self._answer(claim, code, lifetime, message.identification, self._care_of_addresses(uplink))
        if first:
            self._ctx.log(f"{ipv4.text(hoa)} registered with us")
        self._peers.peer_accepted(now, record)

    def _remember(self, now: int, claim: Claim) -> bool:
        hoa = claim.message.home_address
        if hoa not in self._newest and len(self._newest) >= _MAX_IDENTIFICATIONS:
            for other in [h for h in self._newest if self._newest[h][1] <= now]:
                del self._newest[other]
            if len(self._newest) >= _MAX_IDENTIFICATIONS:
                self._ctx.counters.bump("identification_table_full")
                return False
        number = int.from_bytes(claim.message.identification, "big")
        until = now + claim.message.lifetime * 1000 + _KEEP_IDENTIFICATION_MS
        self._newest[hoa] = (number, until)
        return True

    def _open_tunnel(self, now: int, claim: Claim, uplink) -> bool:
        hoa = claim.message.home_address
        source = claim.arrival.src
        care_of_address = claim.message.care_of_address
        tunnel = self._tunnels.of_peer(hoa)
        here = tunnel is not None and tunnel.local == uplink.address
        here = here and encapsulation.same(tunnel.remote_port, claim.port)
        if here and (tunnel.up or tunnel.dormant):
            here = tunnel.remote in (source, care_of_address)
        elif here:
            here = tunnel.remote == source
        if not here:
            # What worked before comes first: two routers behind one NAT meet inside [A57].
            inside = self._cache.get(hoa).working.get(uplink.address) == care_of_address
            end = care_of_address if inside else source
            tunnel = self._tunnels.open_direct(now, hoa, uplink, end, claim.port)
        if tunnel is None:
            return False
        tunnel.nat = source != care_of_address
        return True

    def _care_of_addresses(self, uplink) -> list[bytes]:
        links = self._ctx.uplinks.values()
        others = [u.address for u in links if u.up and not u.drained and u is not uplink]
        return ([uplink.address] + others)[:4]

    def _deregister(self, now: int, claim: Claim) -> None:
        record = self._cache.get(claim.message.home_address)
        if record is None or not self._remember(now, claim):
            self._ctx.counters.bump("peer_deregistration_unknown")
            return
        self._answer(claim, wire.ACCEPTED, 0, claim.message.identification, [])
        self.end(now, record)
        self._peers.forget(now, record)
        self._ctx.log(f"{ipv4.text(record.cr_hoa)} deregistered")

    def end(self, now: int, record) -> None:
        """The peer's registration with us is over."""
        record.binding = None
        self._ctx.deadlines.clear("cr_expire", record.cr_hoa)
        if record.registration is None or not record.registration.registered:
            self._peers.forget(now, record)
        self._ctx.queues.routes()

    def _refuse(self, claim: Claim, code: int) -> None:
        self._ctx.counters.bump("peer_request_refused")
        self._answer(claim, code, 0, claim.message.identification, [])

    def _answer(
        self, claim: Claim, code: int, lifetime: int, identification: bytes, coas: list
    ) -> None:
        message = claim.message
        settings = self._ctx.settings
        reply = wire.build_reply(
            code, lifetime, message.home_address, settings.home_agent, identification
        )
        record = self._cache.get(message.home_address)
        for bad in message.invalid_networks:
            extensions.append_mobile_network_ack(
                reply, extensions.MOBNET_INVALID_PREFIX_LEN, bad.prefix, bad.plen
            )
        for prefix, plen in claim.networks if message.lifetime else ():
            valid = record is not None and record.valid_prefix(prefix, plen)
            ack = 0 if valid else extensions.MOBNET_UNAUTHORIZED
            extensions.append_mobile_network_ack(reply, ack, prefix, plen)
        if coas:
            uplink = self._ctx.uplink(record)
            slowdown = uplink.slowed if uplink is not None else 1
            seconds = max(1, settings.direct_keepalive_ms // 1000) * slowdown
            in_udp = claim.port == MIP_PORT
            code_of_it = 0 if in_udp else encapsulation.DECLINED
            extensions.append_udp_tunnel_reply(reply, code_of_it, in_udp, seconds)
            extensions.append_care_of_addresses(reply, coas)
        proof = message.authenticator
        auth.append_mobile_correspondent(
            reply, claim.key, proof.home_nonce_index, proof.care_of_nonce_index
        )
        self._ctx.send_home(claim.arrival.src, claim.arrival.sport, reply)
