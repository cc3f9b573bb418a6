"""Registration Requests to a correspondent router (RFC 6521 3.3.3, 3.3.6): built, not sent.

Builds the message and notes in `record.registration` what the reply must match. Sends nothing.
"""

from haaro.core import encapsulation
from haaro.wire import auth, extensions
from haaro.wire import registration as wire
from haaro.wire import return_routability as rr_wire


def request(ctx, now: int, record, uplink, home) -> bytearray:
    """Return a request with our networks; the tokens for `uplink` must be there."""
    state = record.registration
    settings = ctx.settings
    coa = uplink.address
    home_index = care_of_index = 0
    if record.krms:
        # Nothing names the key [A58]: unanswered, the next request tries the other live one.
        state.krm = record.krms[(state.attempts - 1) % len(record.krms)]
        state.lifetime = settings.static_lifetime
    else:
        # RFC 6521 3.1.2: an RR-derived KRm is computed when used, never kept in the cache.
        state.krm = rr_wire.krm(record.home_keygen_token, record.care_of_keygen_tokens[coa])
        state.lifetime = settings.peer_lifetime
        home_index = record.home_nonce_index
        care_of_index = record.care_of_nonce_indices[coa]
    state.port = encapsulation.toward(home, record, coa)
    flags = encapsulation.flags(state.port)
    message = _fixed_part(ctx, now, record, uplink, state.lifetime, flags)
    for prefix, plen in home.networks:
        extensions.append_mobile_network_request(message, prefix, plen)
    encapsulation.append_request(message, state.port)
    auth.append_mobile_correspondent(message, state.krm, home_index, care_of_index)
    return message


def deregistration(ctx, now: int, record, uplink) -> bytearray | None:
    """Return a request with Lifetime 0, None when no key is left to authenticate it with."""
    state = record.registration
    key, index = b"", 0
    if record.krms:
        key = state.krm if state.krm in record.krms else record.krms[0]
    elif record.home_token_left(now):
        key = rr_wire.krm_deregistration(record.home_keygen_token)
        index = record.home_nonce_index
    if not key:
        return None
    message = _fixed_part(ctx, now, record, uplink, 0)
    auth.append_mobile_correspondent(message, key, index, 0)
    return message


def _fixed_part(ctx, now: int, record, uplink, lifetime: int, flags: int = 0) -> bytearray:
    state = record.registration
    number = ctx.clock.identification(now, ctx.random, state.last, state.offset_ms)
    state.last = state.pending = number
    state.sent_at = now
    state.coa = record.mr_coa = uplink.address
    home_address, home_agent = ctx.settings.home_address, ctx.settings.home_agent
    identification = number.to_bytes(8, "big")
    flags |= wire.FLAG_D | wire.FLAG_T
    return wire.build_request(
        flags, lifetime, home_address, home_agent, uplink.address, identification
    )
