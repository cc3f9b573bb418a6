"""Route Optimization Cache, RFC 6521 3.1.2, field by field. Filled from the home agent's
advertisements.

Owned by the router. Fields that RFC 6521 keeps for each CR-HoA - MR-CoA pair are dictionaries by
MR-CoA, so that the old and the new care-of address coexist during a handover. Never sends
anything.
"""

from haaro.compat import const
from haaro.core import overlaps
from haaro.core.peer_state import Binding, PeerRegistration, Procedure
from haaro.wire import ipv4

INACTIVE = "INACTIVE"
IN_PROGRESS = "IN PROGRESS"
ACTIVE = "ACTIVE"

MAX_TOKEN_LIFETIME_MS = 210000  # RFC 6521 9

_MAX_PREFIXES = const(32)  # of one router; further ones are dropped, counted
_MAX_PAIRS = const(2)  # MR-CoAs kept for one CR: the old and the new


class Prefix:
    """One network prefix of a CR, its realm ("" if none) and whether the home agent confirmed it
    (Prefix_Valid), or what speaks against it.
    """

    obstacle = ""

    def __init__(self, prefix: bytes, plen: int, realm: str, valid: bool) -> None:
        self.prefix = prefix
        self.plen = plen
        self.realm = realm
        self.prefix_valid = valid


class Record:
    """What is known about one correspondent router. `hint` is its number in the data plane's
    `wanted` table.
    """

    # Of the class until they are set: an instance's table of 33 names is 300 octets of heap.
    mr_coa = b""
    # Replaced, never changed in place.
    nat_states: dict[tuple[bytes, bytes], bool] = {}  # by (MR-CoA, CR-CoA)
    tried: list[int] = []  # uplinks by which no direct path came up
    home_nonce_index = 0
    home_keygen_token = b""
    home_token_at = 0
    outbound_only = False
    static = False  # configured: never evicted
    priority = 0
    return_routability: Procedure | None = None
    registration: PeerRegistration | None = None
    binding: Binding | None = None
    wanted_until = 0
    uplink = -1  # which one works toward this CR, where the usual one does not
    uplink_at = 0  # when that was found
    round_at = 0  # when all of them may be tried again
    udp_only = False  # no other encapsulation reaches it
    unanswered = False  # a Registration Request went unanswered, RFC 6521 3.3.6
    obstacle = ""  # the last thing that kept the path from being direct

    def __init__(self, cr_hoa: bytes, hint: int) -> None:
        self.cr_hoa = cr_hoa
        self.cr_coas: list[bytes] = []
        self.working: dict[bytes, bytes] = {}  # MR-CoA: the other end that answered last (6.1)
        self.rr_states: dict[bytes, str] = {}
        self.krms: list[bytes] = []  # static ones only: the current and the next
        self.care_of_nonce_indices: dict[bytes, int] = {}
        self.care_of_keygen_tokens: dict[bytes, bytes] = {}
        self.care_of_token_at: dict[bytes, int] = {}
        self.prefixes: list[Prefix] = []
        self.hint = hint

    def rr_state(self, mr_coa: bytes) -> str:
        """Return RRSTATE for one of our care-of addresses; a static KRm keeps it ACTIVE."""
        return ACTIVE if self.krms else self.rr_states.get(mr_coa, INACTIVE)

    def set_rr_state(self, mr_coa: bytes, state: str) -> None:
        """Set RRSTATE of a pair, forgetting the oldest pair beyond two."""
        self.rr_states[mr_coa] = state
        for other in list(self.rr_states):
            if len(self.rr_states) > _MAX_PAIRS and other not in (mr_coa, self.mr_coa):
                self.forget_pair(other)

    def forget_pair(self, mr_coa: bytes) -> None:
        """Drop what is kept for one of our care-of addresses."""
        for table in (self.rr_states, self.care_of_nonce_indices, self.care_of_keygen_tokens):
            table.pop(mr_coa, None)
        self.care_of_token_at.pop(mr_coa, None)
        self.working.pop(mr_coa, None)

    def worked(self, mr_coa: bytes, remote: bytes) -> None:
        """Remember a pair of ends between which a keepalive was answered (6.1)."""
        self.working[mr_coa] = remote
        if self.nat_states:
            self.nat_states[mr_coa, remote] = True
        while len(self.working) > _MAX_PAIRS:
            self.working.pop(next(m for m in self.working if m != mr_coa))

    def ends(self, mr_coa: bytes) -> list[bytes]:
        """Return the CR's ends in the order to try them from ours: what worked, then as listed.

        SEAM for hole punching between two NATs: the peer's mapped address and port, once somebody
        tells them, belong in front of this list. Until then such a pair stays on the home agent.
        """
        first = self.working.get(mr_coa)
        return sorted(self.cr_coas, key=lambda coa: coa != first)

    def home_token_left(self, now: int) -> int:
        """Return for how many ms the home keygen token may still be used."""
        if not self.home_keygen_token:
            return 0
        return max(0, self.home_token_at + MAX_TOKEN_LIFETIME_MS - now)

    def care_of_token_left(self, now: int, mr_coa: bytes) -> int:
        """Return for how many ms the care-of keygen token of `mr_coa` may still be used."""
        if mr_coa not in self.care_of_keygen_tokens:
            return 0
        return max(0, self.care_of_token_at[mr_coa] + MAX_TOKEN_LIFETIME_MS - now)

    def valid_prefix(self, prefix: bytes, plen: int) -> bool:
        """Return whether the home agent confirmed that this router owns prefix/plen."""
        for item in self.prefixes:
            if item.plen == plen and item.prefix == prefix:
                return item.prefix_valid
        return False


class Cache:
    """Records by CR-HoA, at most `settings.cache_capacity`: the tail of an advertisement is
    dropped (3.1.1).
    """

    def __init__(self, ctx, has_tunnel, on_removed) -> None:
        self._ctx = ctx
        self._has_tunnel = has_tunnel
        self._on_removed = on_removed
        self._records: dict[bytes, Record] = {}
        self._taken = b""  # hash of the advertisement that would change nothing
        self._left: list[Record] = []  # not named by it, and protected: until they may go
        self._warned: list[str] = []
        for hoa in ctx.settings.static_peers:
            self._add(hoa, 0)
        self.take_static_keys()
        self._judge()

    def take_static_keys(self) -> list[Record]:
        """Give every record the static KRms of the settings; make those that are missing.

        Returns the records that have none left of those they had.
        """
        static = self._ctx.settings.static_krm
        withdrawn = []
        for record in self._records.values():
            before = record.krms
            record.krms = static.get(record.cr_hoa, [])
            if before and not any(key in record.krms for key in before):
                withdrawn.append(record)
        for hoa in static:
            if hoa not in self._records:
                self._add(hoa, len(self._records))
        return withdrawn

    def get(self, cr_hoa: bytes) -> Record | None:
        """Return the record of a router, None when it is not known."""
        return self._records.get(cr_hoa)

    def all(self) -> list[Record]:
        """Return every record, in the order of the home agent's priority."""
        return sorted(self._records.values(), key=lambda record: record.priority)

    def by_hint(self, hint: int) -> Record | None:
        """Return the record the data plane calls `hint`."""
        for record in self._records.values():
            if record.hint == hint:
                return record
        return None

    def protected(self, record: Record) -> bool:
        """Return whether the record must stay: RRSTATE not INACTIVE and a tunnel is there
        (3.1.2).
        """
        states = record.rr_states.values()
        busy = record.krms or IN_PROGRESS in states or ACTIVE in states or record.binding
        if record.registration is not None and record.registration.registered:
            busy = True
        return bool(busy) and self._has_tunnel(record.cr_hoa)

    def _add(self, cr_hoa: bytes, priority: int) -> Record | None:
        if len(self._records) >= self._ctx.settings.cache_capacity:
            return None
        hints = {record.hint for record in self._records.values()}
        hint = 0
        while hint in hints:
            hint += 1
        self._taken = b""
        record = self._records[cr_hoa] = Record(cr_hoa, hint)
        record.krms = self._ctx.settings.static_krm.get(cr_hoa, [])
        record.priority = priority
        record.static = cr_hoa in self._ctx.settings.static_peers
        self._only_static(record)
        return record

    def _only_static(self, record: Record) -> None:
        record.prefixes = [Prefix(record.cr_hoa, 32, "", True)]
        self._add_prefixes(record, self._ctx.settings.static_peers.get(record.cr_hoa, ()))

    def may_go(self, record: Record) -> bool:
        """Return whether the record may be evicted: neither static nor protected (3.1.2)."""
        return not record.static and not record.krms and not self.protected(record)

    def _remove(self, record: Record) -> None:
        self._taken = b""
        del self._records[record.cr_hoa]
        self._on_removed(record)

    def update(self, routers, solicited: bytes | None) -> None:
        """Take an advertisement: (home address, outbound only, [(prefix, plen, realm)]) by
        priority. `routers` is iterated twice and never kept as a list.

        The answer to a solicitation adds and replaces; it removes nothing but the router it asked
        for. Any other list is the whole truth: what it does not name goes, unless it is
        protected.
        """
        taken = routers.digest if routers and solicited is None else b""
        if taken and taken == self._taken and not any(self.may_go(r) for r in self._left):
            return
        left = []
        named: dict[bytes, int] = {}
        for owner in routers.owners() if routers else ():
            if owner not in named:
                named[owner] = len(named) + 1
        for old in self.all():
            gone = old.cr_hoa not in named and solicited in (None, old.cr_hoa)
            if gone and self.may_go(old):
                self._remove(old)
            elif gone:
                left.append(old)
                if old.static:
                    self._only_static(old)
            elif solicited is None:
                old.priority = named[old.cr_hoa]
        room = self._ctx.settings.cache_prefixes
        for home_address, outbound_only, prefixes in routers:
            if home_address == self._ctx.settings.home_address:
                continue
            order = named.pop(home_address, 0)
            known = self._records.get(home_address)
            free = home_address != solicited and (known is None or self.may_go(known))
            if free and len(prefixes) > room:
                # A router of which half is known would be refused what it says of the rest.
                if known:
                    self._remove(known)
                self._ctx.counters.bump("cache_full")
                continue
            record = known or self._add(home_address, order)
            if record is None:
                record = self._displace(home_address, solicited, order)
            if record is None:
                self._ctx.counters.bump("cache_full")
                continue
            record.outbound_only = outbound_only
            if order:  # not listed once more: then its prefixes add up [A51]
                self._only_static(record)
            self._add_prefixes(record, prefixes)
            room -= len(prefixes)
        self._taken, self._left = taken, left
        self._judge()
        self._ctx.queues.routes()

    def _displace(self, home_address: bytes, solicited: bytes | None, order: int) -> Record | None:
        """Make room, for the router asked for or one of higher priority than the least wanted
        record that may go, by evicting that.
        """
        if solicited not in (None, home_address):
            return None
        for record in reversed(self.all()):
            if solicited is None and record.priority <= order:
                return None
            if self.may_go(record):
                self._remove(record)
                return self._add(home_address, order)
        return None

    def _judge(self) -> None:
        """Take what overlaps, and what is of another routing domain, out of the routes."""
        settings = self._ctx.settings
        records = self.all()
        for record in records:
            for item in record.prefixes[1:]:
                item.prefix_valid, item.obstacle = True, ""
                if settings.separate_realms and item.realm.lower() != settings.realm.lower():
                    item.prefix_valid = False
                    item.obstacle = "is of another realm, a routing domain of its own"
        if overlaps.judge(settings.networks, records):
            self._ctx.counters.bump("advertised_prefix_overlaps")
        warned = []
        for record in records:
            for item in record.prefixes:
                if item.obstacle.startswith("overlaps"):
                    name = f"{ipv4.text(item.prefix)}/{item.plen} of {ipv4.text(record.cr_hoa)}"
                    warned.append(name)
                    if name not in self._warned:
                        self._ctx.warn(f"{name} {item.obstacle}; it gets no direct path")
        self._warned = warned

    def _add_prefixes(self, record: Record, prefixes: list) -> None:
        for prefix, plen, realm in prefixes:
            prefix = ipv4.mask(prefix, plen)
            if record.valid_prefix(prefix, plen):
                continue
            if len(record.prefixes) >= _MAX_PREFIXES:
                self._ctx.counters.bump("cache_prefixes_full")
                return
            record.prefixes.append(Prefix(prefix, plen, realm, True))
