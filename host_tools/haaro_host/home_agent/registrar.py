"""Registration with the home agent (RFC 5944 3.8, RFC 5177 6, RFC 3519 4.6, RFC 6521 3.1).

Owns the order of every decision about a request: authenticate, check for replay, limit the rate,
judge, write to the store, change the bindings, queue the reply. Called by core with parsed
requests.
"""

from collections.abc import Callable, Iterable

from haaro.wire import auth, extensions, ipv4, registration
from haaro_host.home_agent import registration as rules
from haaro_host.home_agent import revocation
from haaro_host.home_agent.advertiser import Advertiser
from haaro_host.home_agent.bindings import Binding, Terms
from haaro_host.home_agent.bucket import TokenBucket
from haaro_host.home_agent.clock import difference, stamp
from haaro_host.home_agent.config import RouterConfig, SecurityAssociation
from haaro_host.home_agent.state import RouterState, State, Transmit
from haaro_host.home_agent.store import StoreError

_WARNINGS_A_SECOND = 1
_WARNINGS_BURST = 10


class Registrar:
    """Judges Registration Requests on a State."""

    def __init__(self, state: State) -> None:
        """Work on `state`."""
        self._state = state
        self._advertisers: dict[str, Advertiser] = {}  # by routing domain
        self._warnings = TokenBucket(_WARNINGS_A_SECOND, _WARNINGS_BURST)

    def receive(
        self,
        time: int,
        src: bytes,
        sport: int,
        dst: bytes,
        request: registration.RegistrationRequest,
    ) -> None:
        """Judge one request: authenticate, then replay, then rate, then content."""
        found = self._authenticate(request)
        if found is None:
            return
        router, association, authentic = found
        state = self._state.router(router.home_address)
        if not authentic:
            self._state.drop("bad_authenticator")
            self._warn(
                time,
                f"router {router.name}: bad authenticator in a request from"
                f" {ipv4.text(src)}, SPI {association.spi}",
            )
            # RFC 5944 3.8.2.1 a: MAY; off by default, it only helps whoever guesses.
            if self._state.config.reply_authentication_failed and state.answers.take(time):
                code = registration.FAILED_AUTHENTICATION
                reply = rules.build_reply(
                    request, code, request.lifetime, request.identification, self._state.config
                )
                self._sign_and_send(reply, association, src, sport)
            return
        identification = int.from_bytes(request.identification, "big")
        if not self._is_fresh(time, identification, state):
            self._state.drop("identification_mismatch")
            if state.answers.take(time):
                self._reply_mismatch(time, src, sport, request, association, state)
            else:
                self._state.drop("answer_limited")
            return
        if not state.requests.take(time):
            self._state.drop("rate_limited")
            return
        # Also a refused one is used up: only accepted ones need to survive a restart.
        state.identification = identification
        state.answered_at = time
        state.used[association.spi] = time
        try:
            reply = self._accept(time, src, sport, dst, request, router, association)
        except rules.Refused as refused:
            self._state.drop(refused.reason)
            self._warn(
                time,
                f"router {router.name}: request refused with code {refused.code}"
                f" ({registration.code_name(refused.code)}): {refused.reason}",
            )
            reply = rules.build_reply(
                request, refused.code, request.lifetime, request.identification, self._state.config
            )
            rules.append_acks(reply, refused.acks)
        self._sign_and_send(reply, association, src, sport)

    def _authenticate(
        self, request: registration.RegistrationRequest
    ) -> tuple[RouterConfig, SecurityAssociation, bool] | None:
        """Return (router, association, authentic), or None when it must be silently discarded."""
        authenticator = request.authenticator
        if authenticator is None:
            self._state.drop("no_authenticator")
            return None
        if request.authenticators != 1:
            self._state.drop("several_authenticators")  # [A07]
            return None
        if not isinstance(authenticator, registration.MobileHomeAuthentication):
            self._state.drop("mobile_correspondent_request")  # for a router, not for us [A42]
            return None
        router = self._state.config.routers.get(request.home_address)
        if router is None:
            self._state.drop("unknown_home_address")
            return None
        association = router.associations.get(authenticator.spi)
        if association is None:
            self._state.drop("unknown_spi")
            return None
        authentic = auth.verify_mobile_home(request, association.algorithm, association.key)
        return router, association, authentic

    def _is_fresh(self, time: int, identification: int, state: RouterState) -> bool:
        """RFC 5944 5.7.1: close to our clock, and greater than all accepted before."""
        window = self._state.config.replay_window << 32
        if abs(difference(identification, stamp(time))) > window:
            return False
        last = self._last(state)
        return last is None or difference(identification, last) > 0

    def _last(self, state: RouterState) -> int | None:
        """Return what the next Identification must be greater than."""
        return self._state.floor if state.identification is None else state.identification

    def _reply_mismatch(
        self,
        time: int,
        src: bytes,
        sport: int,
        request: registration.RegistrationRequest,
        association: SecurityAssociation,
        state: RouterState,
    ) -> None:
        """Code 133: our high 32 bits, the request's low 32 bits (RFC 5944 5.7.1)."""
        high = stamp(time) >> 32
        last = self._last(state)
        if last is not None and difference(last, high << 32) >= 0:
            # The router ran ahead of us and went back: our own time would be refused again.
            high = (last >> 32) + 1 & 0xFFFFFFFF
            if state.identification is None:
                # The floor is a whole window ahead: a router that goes on from this second is past
                # it when it may ask again, a second later, and within the window still.
                high = (last >> 32) - 1 & 0xFFFFFFFF
        identification = high.to_bytes(4, "big") + request.identification[4:]
        reply = rules.build_reply(
            request,
            registration.IDENTIFICATION_MISMATCH,
            request.lifetime,
            identification,
            self._state.config,
        )
        self._sign_and_send(reply, association, src, sport)

    def _accept(
        self,
        time: int,
        src: bytes,
        sport: int,
        dst: bytes,
        request: registration.RegistrationRequest,
        router: RouterConfig,
        association: SecurityAssociation,
    ) -> bytearray:
        """Return the unsigned reply; the new state is on disk by then. Raises Refused."""
        rules.check_form(request, dst, self._state.config)
        capability = request.find(extensions.RouteOptimizationCapability)
        nat = request.care_of_address != src
        if request.lifetime == 0:
            self._deregister(request, router)
            reply = rules.build_reply(
                request, registration.ACCEPTED, 0, request.identification, self._state.config
            )
            if capability:
                self._append_capability(reply, capability, nat)
            return reply
        known = self._state.router(request.home_address)
        if known.terms.revoked:
            raise rules.Refused(registration.ADMINISTRATIVELY_PROHIBITED, "router_revoked")
        rules.check_care_of_address(
            request, src, self._state.config, self._state.forwarding.is_mobile
        )
        grant = rules.Grant()
        rules.choose_tunnel(request, nat, grant, self._state.config.encapsulations)
        rules.choose_networks(request, router, grant)
        lifetime = rules.granted_lifetime(request.lifetime, grant.encapsulation, self._state.config)
        binding = Binding(
            home_address=request.home_address,
            care_of_address=request.care_of_address,
            source=src,
            source_port=sport,
            encapsulation=grant.encapsulation,
            lifetime=lifetime,
            expires=time + lifetime * 1000,
            nat=nat,
            advertise=bool(capability and capability.advertise),
            outbound_only=bool(capability and capability.outbound_only),
            implicit=grant.implicit,
            prefixes=grant.prefixes,
            since=time,
        )
        terms = revocation.agree(time, known.terms, request.find(extensions.RevocationSupport))
        self._bind(time, request, binding, router, terms)
        known.terms, known.spi = terms, association.spi
        code = registration.ACCEPTED
        if request.flags & registration.FLAG_S:
            # RFC 5944 3.8.2.2; without S the answer stays 0 as RFC 5177 6.6 wants.
            code = registration.ACCEPTED_NO_SIMULTANEOUS
        reply = rules.build_reply(
            request, code, lifetime, request.identification, self._state.config
        )
        rules.append_acks(reply, grant.acks)
        if grant.tunnel_reply:
            reply_code, forced = grant.tunnel_reply
            extensions.append_udp_tunnel_reply(
                reply, reply_code, forced, self._state.config.keepalive
            )
        if terms.agreed:
            # Before the advertisement, which takes what is left of the reply.
            extensions.append_revocation_support(reply, terms.inform, terms.stamp)
        if capability:
            self._append_capability(reply, capability, nat)
            if capability.request:
                rules.append_advertisement(
                    reply,
                    capability,
                    request.home_address,
                    self._state.advertisable,
                    self._of_domain(request.home_address),
                    self._state.config,
                    association,
                    self._advertiser(request.home_address),
                )
        return reply

    def _of_domain(self, home_address: bytes) -> Iterable[Binding]:
        """Return the bindings of a router's own routing domain: nobody else's are advertised."""
        config, bindings = self._state.config, self._state.bindings.values()
        if not config.separate:
            return bindings
        domain = config.domain(home_address)
        return [b for b in bindings if config.domain(b.home_address) == domain]

    def _advertiser(self, home_address: bytes) -> Advertiser:
        config = self._state.config
        domain = config.domain(home_address)
        if domain not in self._advertisers:
            if len(self._advertisers) > len(config.routers):
                self._advertisers.clear()  # realms of earlier configurations
            self._advertisers[domain] = Advertiser()
        return self._advertisers[domain]

    @staticmethod
    def _append_capability(
        reply: bytearray, capability: extensions.RouteOptimizationCapability, nat: bool
    ) -> None:
        """RFC 6521 5.2: on every success with a capability, O and S as the request said."""
        extensions.append_route_optimization_reply(
            reply, capability.outbound_only, nat, capability.solicit
        )

    def _bind(
        self,
        time: int,
        request: registration.RegistrationRequest,
        binding: Binding,
        router: RouterConfig,
        terms: Terms,
    ) -> None:
        self._write(
            lambda: self._state.store.accept(
                binding.home_address, request.identification, binding, terms
            )
        )
        self._state.counters["registration_accepted"] += 1
        old = self._state.bindings.get(binding.home_address)
        if old is not None and old.same_tunnel(binding):
            # The usual renewal: the same object, so that no table and no flow is made anew.
            self._state.advertisable += old.renew(binding)
            return
        if old is not None:
            binding.follow(old, time)
            del self._state.bindings[binding.home_address]
        self._state.bindings[binding.home_address] = binding
        self._state.log(
            "info",
            f"router {router.name}: registered from {ipv4.text(binding.source)}"
            f" port {binding.source_port}, {binding.encapsulation},"
            f" lifetime {binding.lifetime} s",
        )
        self._state.rebuild()

    def _deregister(self, request: registration.RegistrationRequest, router: RouterConfig) -> None:
        """RFC 5944 3.8.2.2, RFC 5177 6.7: mobile network extensions are ignored."""
        old = self._state.bindings.get(request.home_address)
        named = request.care_of_address
        gone = old is not None and named in (request.home_address, old.care_of_address)
        if not gone:
            self._write(
                lambda: self._state.store.seen(request.home_address, request.identification)
            )
            return
        self._write(
            lambda: self._state.store.accept(request.home_address, request.identification, None)
        )
        del self._state.bindings[request.home_address]
        self._state.counters["deregistration_accepted"] += 1
        self._state.log("info", f"router {router.name}: deregistered")
        self._state.rebuild()

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except StoreError as error:
            self._state.log("warning", str(error))
            raise rules.Refused(registration.INSUFFICIENT_RESOURCES, "store_failed") from None

    def _warn(self, time: int, text: str) -> None:
        # What a stranger can cause without end must not fill the disk.
        if self._warnings.take(time):
            self._state.log("warning", text)
        else:
            self._state.drop("warning_limited")

    def _sign_and_send(
        self, reply: bytearray, association: SecurityAssociation, dst: bytes, dport: int
    ) -> None:
        auth.append_mobile_home(reply, association.spi, association.algorithm, association.key)
        self._state.queue(Transmit(dst, dport, bytes(reply)))
