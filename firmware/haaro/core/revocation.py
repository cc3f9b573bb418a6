"""The home agent ends our registration (RFC 3543 4.2.2.3, "direct" co-located mobile node). Owned
by the router.

A mobile router is told, it never revokes (4.2.4): it deregisters.
"""

from haaro.wire import auth, revocation, revocation_rules
from haaro.wire.registration import MobileHomeAuthentication


class Revocations:
    """`on_revoked(now)` when a Revocation ended the binding with the home agent."""

    def __init__(self, ctx, registration, on_revoked) -> None:
        self._ctx = ctx
        self._home = registration
        self._on_revoked = on_revoked

    def receive(self, now: int, message, arrival) -> None:
        """A Revocation came to our care-of address: judge, acknowledge, then end the binding.

        One that comes again with a newer identifier, because the acknowledgment was lost, is only
        acknowledged.
        """
        home, settings = self._home, self._ctx.settings
        refuse = self._ctx.counters.bump
        proof = message.authenticator
        by_home_agent = message.authenticators == 1 and isinstance(proof, MobileHomeAuthentication)
        association = settings.association(proof.spi) if by_home_agent else None
        ours = (settings.home_address, settings.home_agent, home.coa)
        if arrival.src != settings.home_agent:
            refuse("revocation_unknown_source")
        elif not by_home_agent:
            refuse("revocation_authenticators")
        elif association is None:
            refuse("revocation_unknown_spi")
        elif not auth.verify_mobile_home(message, association[1], association[2]):
            refuse("revocation_bad_authenticator")
        elif home.revocation_stamp is None:
            refuse("revocation_not_agreed")
        elif not message.a:
            refuse("revocation_reflected")
        elif not revocation_rules.accepts(message, True, home.revocation_stamp):
            refuse("revocation_replayed")
        elif (message.home_address, message.home_domain, message.foreign_domain) != ours:
            refuse("revocation_other_binding")
        else:
            home.revocation_stamp = message.identifier
            ack = revocation.build_revocation_ack(
                message.i, settings.home_address, message.identifier
            )
            auth.append_mobile_home(ack, *association)
            self._ctx.send_outside(arrival.uplink, arrival.src, arrival.sport, ack)
            if home.registered:
                self._on_revoked(now)
