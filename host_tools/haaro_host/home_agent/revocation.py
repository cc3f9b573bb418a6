"""Registration Revocation (RFC 3543): the operator ends a router's registration, and allows it.

Owns the messages that wait for their acknowledgment. The binding is gone and the router barred, on
disk too, before anything is sent; the message only tells a router that would find out anyway.
Called by core.
"""

from dataclasses import dataclass, replace

from haaro.wire import auth, extensions, ipv4, registration, revocation_rules
from haaro.wire.revocation import Revocation, RevocationAck, build_revocation
from haaro_host.home_agent.bindings import Binding, Terms
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.config import SecurityAssociation
from haaro_host.home_agent.state import State, Transmit
from haaro_host.home_agent.store import StoreError

_GAP_MS = 1000  # RFC 3543 3.3: one message a second for a binding
_MAX_WAIT_MS = 32_000


def agree(time: int, terms: Terms, offered: extensions.RevocationSupport | None) -> Terms:
    """Return the terms of a registration made at `time` (RFC 3543 3.2, 4.2.1).

    The timestamp is never before one that the router was sent, so that an old Revocation stays old.
    """
    if offered is None:
        return replace(terms, agreed=False, inform=False)
    inform = revocation_rules.answer_inform(offered, True)
    return replace(terms, stamp=_stamp(time, terms.stamp), agreed=True, inform=inform)


def _stamp(time: int, least: int) -> int:
    seconds = stamp(time) >> 32
    return seconds if not least or revocation_rules.is_newer(seconds, least) else least


@dataclass
class _Pending:
    """A Revocation that waits for its acknowledgment, sent no longer than its binding lived."""

    binding: Binding
    due: int
    wait: int = _GAP_MS
    sent: Revocation | None = None


class Revoker:
    """Revokes and allows routers on a State."""

    def __init__(self, state: State) -> None:
        """Work on `state`."""
        self._state = state
        self._pending: dict[bytes, _Pending] = {}

    def revoke(self, time: int, home_address: bytes) -> bool:
        """Bar a router and end its binding now; tell whether there was one.

        Raises StoreError, and then nothing was changed.
        """
        state = self._state
        router = state.router(home_address)
        terms = replace(router.terms, revoked=True)
        state.store.put_terms(home_address, terms)
        router.terms = terms
        binding = state.bindings.pop(home_address, None)
        state.counters["revoked"] += 1
        state.log("warning", f"router {state.name(home_address)}: revoked by the operator")
        if binding is None:
            return False
        state.rebuild()
        if terms.agreed:
            self._pending[home_address] = _Pending(binding, time)
            self.handle_timer(time)
        return True

    def allow(self, home_address: bytes) -> bool:
        """Let a router register again; tell whether it was barred. Raises StoreError."""
        state = self._state
        router = state.router(home_address)
        if not router.terms.revoked:
            return False
        terms = replace(router.terms, revoked=False)
        state.store.put_terms(home_address, terms)
        router.terms = terms
        self._pending.pop(home_address, None)
        state.log("info", f"router {state.name(home_address)}: allowed again by the operator")
        return True

    def awaited(self, home_address: bytes) -> bool:
        """Tell whether a Revocation still waits for its acknowledgment."""
        return home_address in self._pending

    def deadlines(self) -> list[int]:
        """Return our times at which `handle_timer` has work."""
        return [pending.due for pending in self._pending.values()]

    def handle_timer(self, time: int) -> None:
        """Send what is due, again with a new timestamp and after a longer wait (4.2.2.1)."""
        for home_address, pending in list(self._pending.items()):
            if pending.due > time:
                continue
            router = self._state.router(home_address)
            association = self._association(home_address, router.spi)
            if association is None or pending.binding.expires <= time:
                # 3.3: never for a registration that has expired.
                del self._pending[home_address]
                self._state.drop("revocation_unacknowledged")
                continue
            at = router.answered_at
            if at is not None and time - at < _GAP_MS:
                pending.due = at + _GAP_MS
                continue
            pending.due = time + pending.wait
            pending.wait = min(pending.wait * 2, _MAX_WAIT_MS)
            try:
                self._send(time, home_address, pending, association)
            except StoreError as error:
                self._state.drop("store_failed")
                self._state.log("warning", str(error))

    def _association(self, home_address: bytes, spi: int | None) -> SecurityAssociation | None:
        router = self._state.config.routers.get(home_address)
        if router is None:
            return None
        first = next(iter(router.associations.values()), None)
        return router.associations.get(spi, first) if spi is not None else first

    def _send(
        self,
        time: int,
        home_address: bytes,
        pending: _Pending,
        association: SecurityAssociation,
    ) -> None:
        router = self._state.router(home_address)
        identifier = _stamp(time, (router.terms.stamp + 1) & 0xFFFFFFFF)
        terms = replace(router.terms, stamp=identifier)
        # On disk first: a later life must send newer ones, or a replay of this one would count.
        self._state.store.put_terms(home_address, terms)
        router.terms = terms
        binding = pending.binding
        message = build_revocation(
            True,
            router.terms.inform,
            home_address,
            self._state.config.address,
            binding.care_of_address,
            identifier,
        )
        auth.append_mobile_home(message, association.spi, association.algorithm, association.key)
        pending.sent = Revocation(bytes(message))
        self._state.counters["revocation_sent"] += 1
        # Deviates from RFC 3543 3.3 (port 434 always): a NAT lets in only what its mapping serves,
        # so it goes where the last reply went.
        self._state.queue(Transmit(binding.source, binding.source_port, bytes(message)))

    def receive_ack(self, ack: RevocationAck) -> None:
        """Take a Revocation Acknowledgment; what answers nothing of ours is dropped (3.5)."""
        state = self._state
        router = state.config.routers.get(ack.home_address)
        proof = ack.authenticator
        if router is None or ack.authenticators != 1:
            state.drop("revocation_ack_authenticators")
            return
        if not isinstance(proof, registration.MobileHomeAuthentication):
            state.drop("revocation_ack_authenticators")
            return
        association = router.associations.get(proof.spi)
        if association is None or not auth.verify_mobile_home(
            ack, association.algorithm, association.key
        ):
            state.drop("revocation_ack_bad_authenticator")
            return
        pending = self._pending.get(ack.home_address)
        if (
            pending is None
            or pending.sent is None
            or not revocation_rules.acknowledges(ack, pending.sent)
        ):
            state.drop("revocation_ack_not_awaited")
            return
        del self._pending[ack.home_address]
        state.counters["revocation_acknowledged"] += 1
        state.log("info", f"router {router.name} ({ipv4.text(ack.home_address)}): it was told")
