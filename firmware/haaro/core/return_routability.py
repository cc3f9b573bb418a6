"""Return routability, mobile router side: HoTI/CoTI out, HoT/CoT in, RRSTATE (RFC 6521 3.2).

    INACTIVE    --start--> IN PROGRESS --both tokens--> ACTIVE
    IN PROGRESS --no answer--> INACTIVE
    ACTIVE      --renewal--> ACTIVE (stays so while tokens are fetched)
    ACTIVE      --nonces expired--> INACTIVE

Called by the peer registration, which hears the end by `on_done(now, record, ok)`.
"""

from haaro.core import ro_cache
from haaro.core.peer_state import Procedure
from haaro.wire import auth
from haaro.wire import return_routability as wire
from haaro.wire.message import MIP_PORT

# Waits after each try, then INACTIVE: no state stays IN PROGRESS. A test and its answer are four
# legs by the home agent and back: at a loss of 20 % six in ten rounds come to nothing.
_WAITS_MS = (1000, 1000, 1000, 1000, 2000, 4000)

UNREACHED_FROM_UPLINK = "home address cannot be reached from this uplink"
NO_HOME_TEST = "the peer does not answer return routability"


class ReturnRoutability:
    """Runs at most one procedure for each record; timers are ("rr", CR-HoA)."""

    def __init__(self, ctx, cache, on_done) -> None:
        self._ctx = ctx
        self._cache = cache
        self._on_done = on_done

    def start(self, now: int, record, uplink, min_left_ms: int) -> None:
        """Fetch the tokens that have less than `min_left_ms` left for this CR and uplink (3.2,
        3.3.6).
        """
        if record.krms:
            self._on_done(now, record, True)
            return
        mr_coa = uplink.address
        run = Procedure(uplink.index, mr_coa, now)
        if record.home_token_left(now) < min_left_ms:
            run.home_cookie = self._ctx.random(8)
        if record.care_of_token_left(now, mr_coa) < min_left_ms:
            run.care_of_cookie = self._ctx.random(8)
        record.mr_coa = mr_coa
        if record.rr_state(mr_coa) == ro_cache.INACTIVE:
            record.set_rr_state(mr_coa, ro_cache.IN_PROGRESS)
        record.return_routability = run
        if run.home_cookie is None and run.care_of_cookie is None:
            self._finish(now, record)
        else:
            self._send(now, record)

    def abort(self, record) -> None:
        """Stop a procedure under way; RRSTATE does not stay IN PROGRESS."""
        run = record.return_routability
        record.return_routability = None
        self._ctx.deadlines.clear("rr", record.cr_hoa)
        if run is not None and record.rr_state(run.mr_coa) == ro_cache.IN_PROGRESS:
            record.set_rr_state(run.mr_coa, ro_cache.INACTIVE)

    def expire(self, record) -> None:
        """A reply says that nonces expired: the tokens are void and RRSTATE is INACTIVE (3.2,
        3.3.3).
        """
        record.home_keygen_token = b""
        record.care_of_keygen_tokens.pop(record.mr_coa, None)
        record.set_rr_state(record.mr_coa, ro_cache.INACTIVE)

    def handle_timer(self, now: int, record) -> None:
        """No answer yet: send what is still open again, or give up."""
        run = record.return_routability
        if run is None:
            return
        if run.tries < len(_WAITS_MS):
            self._send(now, record)
            return
        self._ctx.counters.bump("return_routability_unanswered")
        record.obstacle = UNREACHED_FROM_UPLINK if run.home_cookie is None else NO_HOME_TEST
        self.abort(record)
        self._on_done(now, record, False)

    def _send(self, now: int, record) -> None:
        run = record.return_routability
        wait = _WAITS_MS[run.tries]
        wait += wait * self._ctx.random(1)[0] // 1024
        self._ctx.deadlines.set("rr", now + wait, record.cr_hoa)
        run.tries += 1
        if run.home_cookie is not None:
            message = wire.build_init(wire.HOTI, run.home_cookie)
            self._ctx.send_home(record.cr_hoa, MIP_PORT, message)
        if run.care_of_cookie is not None:
            message = wire.build_init(wire.COTI, run.care_of_cookie)
            self._ctx.send_outside(run.uplink, record.cr_hoa, MIP_PORT, message)

    def receive_test(self, now: int, message, arrival) -> None:
        """A HoT (inside the home agent's tunnel) or CoT (outside) came from `arrival.src`."""
        record = self._cache.get(arrival.src)
        run = record.return_routability if record is not None else None
        home = message.type == wire.HOT
        cookie = None
        if run is not None:
            cookie = run.home_cookie if home else run.care_of_cookie
        if record is None or run is None or cookie is None:
            self._ctx.counters.bump("test_not_awaited")
            return
        if arrival.sport != MIP_PORT or not auth.equal(cookie, message.cookie):
            self._ctx.counters.bump("test_cookie_mismatch")
            return
        if home:
            run.home_cookie = None
            record.home_keygen_token = message.token
            record.home_nonce_index = message.nonce_index
            record.home_token_at = run.sent_at
        elif arrival.dst == run.mr_coa:
            run.care_of_cookie = None
            record.care_of_keygen_tokens[run.mr_coa] = message.token
            record.care_of_nonce_indices[run.mr_coa] = message.nonce_index
            record.care_of_token_at[run.mr_coa] = run.sent_at
        else:
            self._ctx.counters.bump("test_other_address")
            return
        if run.home_cookie is None and run.care_of_cookie is None:
            self._finish(now, record)

    def _finish(self, now: int, record) -> None:
        record.set_rr_state(record.return_routability.mr_coa, ro_cache.ACTIVE)
        record.return_routability = None
        self._ctx.deadlines.clear("rr", record.cr_hoa)
        self._on_done(now, record, True)
