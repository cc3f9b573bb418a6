"""Our registrations with correspondent routers, mobile router role (RFC 6521 3.3.3, 3.3.4, 3.3.6).

    idle --wanted--> return routability --> requesting --accepted--> registered --renewal-->
    registered requesting --code 2--> pre-accepted --peer registered with us--> registered

`registered` builds the tunnel and sends the first keepalive. Traffic goes direct when the tunnel
is up and the CR's own registration with us is there, or two keepalive periods went by without one
(R3.3.3-26). Called by the router.
"""

from haaro.compat import const
from haaro.core import peer_request
from haaro.core.encapsulation import granted, same
from haaro.core.peer_state import PeerRegistration
from haaro.core.peer_uplinks import TIMERS, PeerUplinks
from haaro.core.registration import backoff_ms
from haaro.core.return_routability import UNREACHED_FROM_UPLINK
from haaro.wire import auth, extensions, ipv4
from haaro.wire import registration as wire
from haaro.wire.message import MIP_PORT

_MIN_GAP_MS = const(1000)
_WANTED_MS = const(10000)  # how long one wanted packet keeps us trying
_RENEW_MS = const(150000)  # well before MAX_TOKEN_LIFETIME and the binding's end
_TOKEN_MARGIN_MS = const(30000)
_FRESH_MS = const(210000)  # asks for new tokens whatever is left
_UNANSWERED_TRIES = const(3)
_SILENT_GAP_MS = const(10000)  # between registrations because a path is silent
_MAX_ASKED_S = const(16)  # keepalive period that a CR may ask for
_GRACE_MS = const(3000)  # RFC 6521 3.3.6: for packets in flight
_M32 = 0xFFFFFFFF


class PeerRegistrations:
    """The MR role toward every CR; timers are (kind, CR-HoA)."""

    def __init__(self, ctx, cache, tunnels, rr, registration) -> None:
        self._ctx = ctx
        self._cache = cache
        self._tunnels = tunnels
        self._rr = rr
        self._home = registration
        self.uplinks = PeerUplinks(ctx, cache, tunnels, rr)

    def want(self, now: int, record) -> None:
        """Start optimising toward `record`, unless it is under way, done, or has to wait."""
        ctx = self._ctx
        uplink = ctx.uplink(record)
        if (
            ctx.stopping
            or uplink is None
            or not self._home.registered
            or not self._home.route_optimization
        ):
            return
        if record.registration is None:
            record.registration = PeerRegistration()
        state = record.registration
        if state.registered or state.pre_accepted or state.pending is not None:
            return
        if record.return_routability is not None or now < state.retry_at:
            return
        if record.outbound_only and (ctx.settings.outbound_only or self._home.nat):
            record.obstacle = "both routers can only open outgoing connections"
            return
        self._rr.start(now, record, uplink, _TOKEN_MARGIN_MS)

    def traffic_wanted(self, now: int, record) -> None:
        """A packet from an own network to this CR went by the home agent (RFC 6521 3.3.1)."""
        retry_at = record.registration.retry_at if record.registration is not None else now
        record.wanted_until = max(now, retry_at) + _WANTED_MS
        tunnel = self._tunnels.of_peer(record.cr_hoa)
        if tunnel is not None:
            self._tunnels.want(now, tunnel)
        self.want(now, record)

    def rr_done(self, now: int, record, ok: bool) -> None:
        """Return routability ended; with tokens the request goes out at once."""
        if ok:
            self._send(now, record)
        elif record.obstacle != UNREACHED_FROM_UPLINK or not self.uplinks.try_next(now, record):
            self._retry_later(now, record)

    def _retry_later(self, now: int, record) -> None:
        state = record.registration
        state.pending = None
        self._ctx.deadlines.clear("request", record.cr_hoa)
        wait = backoff_ms(self._ctx.random, state.failures)
        state.failures += 1
        state.retry_at = now + wait
        self._ctx.deadlines.set("retry", state.retry_at, record.cr_hoa)

    def handle_timer(self, now: int, kind: str, record) -> None:
        """A timer of this record is due: one of TIMERS, or grace."""
        state = record.registration
        if kind == "grace":
            self._tunnels.close_peer(record.cr_hoa)
        elif state is None:
            return
        elif kind == "request":
            self._request_timer(now, record, state)
        elif kind == "retry":
            if state.registered:
                self._renew(now, record)
            elif now < record.wanted_until or record.binding is not None:
                self.want(now, record)
            else:
                self.forget(now, record)
        elif kind == "renew":
            self._renew(now, record)
        elif kind == "mr_expire":
            self._ctx.log(f"registration with {ipv4.text(record.cr_hoa)} expired")
            self.forget(now, record)
            if now < record.wanted_until:
                self.want(now, record)
        elif kind == "mutual":
            self._mutual_timer(now, record, state)
        elif kind == "silent":
            tunnel = self._tunnels.of_peer(record.cr_hoa)
            if tunnel is not None and not tunnel.up:
                self.path_silent(now, record.cr_hoa)
        elif kind == "pairs":
            self.uplinks.pairs_timer(now, record)

    def _request_timer(self, now: int, record, state) -> None:
        if state.pending is None:
            self._send(now, record)
            return
        if state.attempts >= _UNANSWERED_TRIES and not record.unanswered:
            # RFC 6521 3.3.6: without a reply the CR's prefixes go by the home agent.
            record.unanswered = True
            record.obstacle = "the peer does not answer our Registration Request"
            self._ctx.counters.bump("peer_registration_unanswered")
            self._ctx.queues.routes()
            if self.uplinks.try_next(now, record):
                return
        if state.registered or record.binding is not None or now < record.wanted_until:
            self._send(now, record)
        else:
            state.pending = None
            state.attempts = 0

    def _renew(self, now: int, record) -> None:
        self.uplinks.usual_again(now, record)
        uplink = self._ctx.uplink(record)
        tunnel = self._tunnels.of_peer(record.cr_hoa)
        idle_ms = self._ctx.settings.peer_idle_ms
        if idle_ms and tunnel is not None and now - tunnel.traffic_at > idle_ms:
            self._ctx.log(f"direct path to {ipv4.text(record.cr_hoa)} is idle; given up")
            self.deregister(now, record)
        elif uplink is None:
            self._retry_later(now, record)
        elif record.return_routability is None:
            record.registration.attempts = 0
            self._rr.start(now, record, uplink, _FRESH_MS)

    def _mutual_timer(self, now: int, record, state) -> None:
        if state.pre_accepted and record.binding is None:
            # [A36]: the peer never completed its own registration.
            state.pre_accepted = False
            record.obstacle = "the peer did not complete its own registration"
            self._retry_later(now, record)
        elif state.pre_accepted:
            self._activate(now, record)
        elif state.registered:
            state.routes_allowed = True
            self._ctx.queues.routes()

    def _send(self, now: int, record) -> None:
        state = record.registration
        uplink = self._ctx.uplink(record)
        if uplink is None:
            self._retry_later(now, record)
            return
        if now < state.sent_at + _MIN_GAP_MS:
            state.pending = None
            self._ctx.deadlines.set("request", state.sent_at + _MIN_GAP_MS, record.cr_hoa)
            return
        coa = uplink.address
        if not record.krms and not (
            record.home_token_left(now) and record.care_of_token_left(now, coa)
        ):
            state.pending = None
            self._rr.start(now, record, uplink, _TOKEN_MARGIN_MS)
            return
        self._ctx.deadlines.set(
            "request", now + backoff_ms(self._ctx.random, state.attempts), record.cr_hoa
        )
        state.attempts += 1
        message = peer_request.request(self._ctx, now, record, uplink, self._home)
        self._ctx.send_outside(uplink.index, record.cr_hoa, MIP_PORT, message)

    def receive_reply(self, now: int, message, arrival, record) -> None:
        """A Registration Reply came from a CR's home address, outside every tunnel."""
        state = record.registration
        refuse = self._ctx.counters.bump
        if state is None or state.pending is None or arrival.dst != state.coa:
            refuse("peer_reply_not_awaited")
        elif message.home_address != self._ctx.settings.home_address:
            refuse("peer_reply_other_addresses")
        elif int.from_bytes(message.identification, "big") & _M32 != state.pending & _M32:
            refuse("peer_reply_identification")
        elif message.code in wire_expired and message.authenticator is None:
            self._nonces_expired(now, record)
        elif not auth.verify_mobile_correspondent(message, state.krm):
            refuse("peer_reply_bad_authenticator")
        else:
            self._take_reply(now, message, record)

    def _nonces_expired(self, now: int, record) -> None:
        """Codes 201 to 203: an unauthenticated hint that restarts RR; a working binding stays
        [A31].
        """
        self._ctx.counters.bump("peer_nonce_expired")
        if record.krms:
            return
        self._rr.expire(record)
        record.obstacle = "the peer says that our nonces expired"
        self._retry_later(now, record)

    def _take_reply(self, now: int, message, record) -> None:
        state = record.registration
        state.code = message.code
        self._answered(record)
        if message.code in wire_expired:
            self._nonces_expired(now, record)
        elif message.code == wire.IDENTIFICATION_MISMATCH:
            high = int.from_bytes(message.identification[:4], "big")
            state.offset_ms += self._ctx.clock.correction_ms(now, high, state.offset_ms)
            state.pending = state.last = None
            self._ctx.counters.bump("peer_clock_resynchronised")
            state.mismatches += 1
            if state.mismatches > 2:
                self._retry_later(now, record)
                return
            self._ctx.deadlines.set("request", max(now, state.sent_at + _MIN_GAP_MS), record.cr_hoa)
        elif message.code in wire_accepted and message.lifetime:
            self._accept(now, message, record)
        else:
            self._ctx.counters.bump("peer_registration_denied")
            record.obstacle = f"the peer denied our registration: {wire.code_name(message.code)}"
            record.udp_only |= message.code == wire.ENCAPSULATION_UNAVAILABLE
            self._retry_later(now, record)

    def _accept(self, now: int, message, record) -> None:
        state = record.registration
        tunnel_reply = message.find(extensions.UdpTunnelReply)
        addresses = message.find(extensions.CareOfAddresses)
        state.port = granted(state.port, tunnel_reply)
        if not state.port or addresses is None:
            record.obstacle = "the peer accepted without UDP tunnel or care-of address"
            self._ctx.counters.bump("peer_reply_unusable")
            self._retry_later(now, record)
            return
        self._ctx.deadlines.clear("request", record.cr_hoa)
        state.pending = None
        state.attempts = 0
        state.keepalive_s = tunnel_reply.keepalive if tunnel_reply is not None else 0
        record.cr_coas = list(addresses.addresses)
        if self._home.nat or record.outbound_only:
            pairs = [(state.coa, coa) for coa in record.cr_coas]
            record.nat_states = {
                pair: not record.outbound_only or record.working.get(pair[0]) == pair[1]
                for pair in pairs
            }
        state.expires_at = state.sent_at + min(message.lifetime, state.lifetime) * 1000
        for ack in message.all(extensions.MobileNetworkAck):
            if ack.code:
                self._ctx.counters.bump("peer_network_refused")
                self._ctx.warn(
                    f"{ipv4.text(record.cr_hoa)} refused {ipv4.text(ack.prefix)}/{ack.plen}"
                )
        if message.code == wire.CONCURRENT and record.binding is None and not state.registered:
            state.pre_accepted = True
            self._arm_mutual(now, record)
        else:
            self._activate(now, record)

    def _arm_mutual(self, now: int, record) -> None:
        self._ctx.deadlines.set(
            "mutual", now + 2 * self._ctx.settings.direct_keepalive_ms, record.cr_hoa
        )

    def _activate(self, now: int, record) -> None:
        state = record.registration
        uplink = self._ctx.uplink_of(state.coa)
        if uplink is None:
            return
        first = not state.registered
        allowed = state.routes_allowed
        state.registered = True
        state.pre_accepted = False
        state.failures = 0
        deadlines = self._ctx.deadlines
        deadlines.set("mr_expire", state.expires_at, record.cr_hoa)
        renew = min(_RENEW_MS, (state.expires_at - state.sent_at) // 2)
        renew += renew * self._ctx.random(1)[0] // 2048
        deadlines.set("renew", state.sent_at + renew, record.cr_hoa)
        deadlines.clear("grace", record.cr_hoa)
        deadlines.clear("retry", record.cr_hoa)
        tunnel = self._tunnels.of_peer(record.cr_hoa)
        usable = tunnel is not None and tunnel.local == uplink.address
        usable = usable and same(tunnel.remote_port, state.port)
        if not (usable and (tunnel.up or tunnel.dormant or tunnel.remote in record.cr_coas)):
            # RFC 6521 3.3.3: no tunnel, or wrong end points.
            tunnel = self._tunnels.open_direct(
                now, record.cr_hoa, uplink, record.ends(uplink.address)[0], state.port
            )
        if tunnel is None:
            record.obstacle = "no free tunnel"
            return
        # A second is what everybody says: there is a wish only above, heard within reason.
        tunnel.asked_ms = (
            min(state.keepalive_s, _MAX_ASKED_S) * 1000 if state.keepalive_s > 1 else 0
        )
        tunnel.others = [c for c in record.ends(uplink.address) if c != tunnel.remote]
        if not tunnel.up and not tunnel.dormant:
            self.uplinks.expect(now, record, tunnel)
            self._tunnels.probe(now, tunnel)
        if record.binding is not None:
            state.routes_allowed = True
            deadlines.clear("mutual", record.cr_hoa)
        elif not state.routes_allowed:
            self._arm_mutual(now, record)
        record.obstacle = ""
        if first:
            self._ctx.log(f"registered with {ipv4.text(record.cr_hoa)}")
        if first or not allowed:
            self._ctx.queues.routes()

    def _answered(self, record) -> None:
        if record.unanswered:
            record.unanswered = False
            self._ctx.queues.routes()

    def peer_accepted(self, now: int, record) -> None:
        """Our CR role accepted this router's registration."""
        self._answered(record)
        state = record.registration
        if state is not None and state.pre_accepted:
            self._activate(now, record)
        elif state is not None and state.registered:
            if not state.routes_allowed:
                state.routes_allowed = True
                self._ctx.queues.routes()
        elif self._ctx.settings.mutual_registration:
            self.want(now, record)

    def pending(self, record) -> bool:
        """Return whether a request of ours to this CR waits for its reply."""
        return record.registration is not None and record.registration.pending is not None

    def forget(self, now: int, record) -> None:
        """Our registration is over: without the peer's own, the tunnel goes too."""
        self._rr.abort(record)
        for kind in TIMERS:
            self._ctx.deadlines.clear(kind, record.cr_hoa)
        state = record.registration
        if state is not None:
            state.registered = state.pre_accepted = state.routes_allowed = False
            state.pending = None
            state.attempts = 0
        if record.binding is None and self._tunnels.of_peer(record.cr_hoa) is not None:
            self._ctx.deadlines.set("grace", now + _GRACE_MS, record.cr_hoa)
        self._ctx.queues.routes()

    def deregister(self, now: int, record) -> None:
        """Give the direct path up: Lifetime 0 to the CR's home address (RFC 6521 3.3.6)."""
        uplink = self._ctx.uplink(record)
        state = record.registration
        if state is not None and state.registered and uplink is not None:
            message = peer_request.deregistration(self._ctx, now, record, uplink)
            if message is not None:
                self._ctx.send_outside(uplink.index, record.cr_hoa, MIP_PORT, message)
        record.binding = None
        self._ctx.deadlines.clear("cr_expire", record.cr_hoa)
        self.forget(now, record)

    def path_silent(self, now: int, peer: bytes) -> None:
        """A direct path no longer answers. Behind a NAT our public address may be another one,
        unseen: renew with a new care-of token, which is made with that address [A35].
        """
        record = self._cache.get(peer)
        state = record.registration if record is not None else None
        tunnel = self._tunnels.of_peer(peer)
        if state is not None and tunnel is not None:
            self.uplinks.path_silent(now, record, tunnel)
        uplink = self._ctx.uplink(record)
        if not self._home.nat or uplink is None or state is None or not state.registered:
            return
        if now < state.sent_at + _SILENT_GAP_MS:
            self._ctx.deadlines.set("silent", state.sent_at + _SILENT_GAP_MS, peer)
        else:
            record.care_of_keygen_tokens.pop(uplink.address, None)
            self._rr.abort(record)
            self._rr.start(now, record, uplink, _TOKEN_MARGIN_MS)


wire_accepted = (wire.ACCEPTED, wire.ACCEPTED_NO_SIMULTANEOUS, wire.CONCURRENT)
wire_expired = (wire.EXPIRED_HOME_NONCE, wire.EXPIRED_CARE_OF_NONCE, wire.EXPIRED_NONCES)
