"""Which routers a reply advertises, and in which order (RFC 6521 3.1.1).

Owns: eligibility, the priority classes, and what was worked out before. Orders of many routers are
searched once for a configuration, with all that it names, and hold for whoever is registered: a
thousand routers that come back after an outage cost no search. A few are searched as they are.

A reply has room for some hundred routers. Only those that could be in it are looked at, and what
was made of them is kept until one of them changes: a reply costs no more with more routers.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple

from haaro_host.home_agent.advertisement import plan
from haaro_host.home_agent.advertisement.order import Router
from haaro_host.home_agent.advertisement.realms import RealmForms
from haaro_host.home_agent.bindings import Binding
from haaro_host.home_agent.config import Config

_FEW = 12  # so many routers are searched for each reply that differs
_REMEMBERED = 256  # advertisements; most receivers share one, only a listed one has its own

_ADDRESS, _RANK = 0, 1
_Rank = dict[tuple[bytes, bytes, int], int]


class _Placed(NamedTuple):
    place: tuple[int, Any]  # priority, and address or rank
    router: Router


class Advertiser:
    """Makes the data of Prefix Advertisements."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._rank: _Rank | None = None
        self._version = -1
        self._eligible: dict[bytes, Binding] = {}
        # Orders of the routers that can be in a reply: by rank, when they are many, and by address.
        self._window: list[list[_Placed]] = []
        self._inside: set[bytes] = set()
        self._placed: dict[tuple[bytes, int], tuple[Binding, bool, _Placed]] = {}
        self._made: dict[tuple[int, bytes, bytes], bytes] = {}
        self._chosen: dict[tuple[int, bytes], list[Router]] = {}
        self._forms = RealmForms()

    def data(
        self,
        config: Config,
        version: int,
        bindings: Iterable[Binding],
        requester: bytes,
        solicited: bytes | None,
        limit: int,
    ) -> bytes:
        """Return the data of the extension, at most `limit` octets; b"" when it would be empty.

        Eligible: registered routers that set A, without the requester. `solicited` comes first,
        the others by priority; within one priority as is shortest without it. `bindings` are looked
        at when `version` is another one than before. `limit` is at most that of `config`.
        """
        if config is not self._config or version != self._version:
            self._look(config, version, bindings)
        first = b""
        if solicited is not None and solicited != requester and solicited in self._eligible:
            first = solicited
        without = requester if requester in self._inside else b""
        wanted = (limit, without, first)
        data = self._made.get(wanted)
        if data is None:
            if len(self._made) >= _REMEMBERED:
                del self._made[next(iter(self._made))]
            data = self._made[wanted] = self._make(limit, requester, first)
        return data

    def _look(self, config: Config, version: int, bindings: Iterable[Binding]) -> None:
        """Take the bindings as they are now; what was made stays as far as it holds."""
        if config is not self._config:
            self._config = config
            self._rank = None
            self._placed = {}
            self._forms = RealmForms()
            self._made.clear()
            self._chosen.clear()
        self._version = version
        self._eligible = {b.home_address: b for b in bindings if b.advertise}
        window = [self._in_order(_ADDRESS)]
        # A requester is left out: one more than a few may be a few without it.
        if len(self._eligible) > _FEW + 1:
            if self._rank is None:
                self._rank = _ranked(config)
            window.insert(0, self._in_order(_RANK))
            window = [order[: _reach(order, config.advertisement_octets)] for order in window]
        if window != self._window:
            self._made.clear()
            self._chosen.clear()
        self._window = window
        self._inside = {entry.router[0] for entry in chain(*window)}
        # The router that came first may have changed outside the window.
        self._made = {wanted: data for wanted, data in self._made.items() if not wanted[2]}

    def _make(self, limit: int, requester: bytes, first: bytes) -> bytes:
        """Return the advertisement without one router, and with another one before all."""
        if len(self._window) > 1:
            chosen = self._best(limit, requester)
            if first:
                head = self._place(self._eligible[first], _RANK).router
                chosen = [head, *(router for router in chosen if router[0] != first)]
        else:
            left = [entry for entry in self._window[0] if entry.router[0] != requester]
            left.sort(key=lambda entry: entry.router[0] != first)
            classes = groupby(left, lambda e: (e.router[0] != first, e.place[0]))
            chosen = plan.arrange([[e.router for e in group] for _, group in classes], limit)
        return plan.encode(chosen, limit, self._forms).data

    def _best(self, limit: int, requester: bytes) -> list[Router]:
        """Return the better order of many without one router."""
        without = requester if requester in self._inside else b""
        found = self._chosen.get((limit, without))
        if found is None:
            if len(self._chosen) >= _REMEMBERED:
                self._chosen.clear()
            orders = [
                [entry.router for entry in order if entry.router[0] != without]
                for order in self._window
            ]
            found = self._chosen[limit, without] = plan.best(orders, limit)
        return found

    def _in_order(self, by: int) -> list[_Placed]:
        placed = [self._place(binding, by) for binding in self._eligible.values()]
        return sorted(placed, key=lambda entry: entry.place)

    def _place(self, binding: Binding, by: int) -> _Placed:
        """Return a router in its place by address, or by rank: as if all were registered."""
        known = self._placed.get((binding.home_address, by))
        if known and known[0] is binding and known[1] == binding.outbound_only:
            return known[2]
        assert self._config is not None
        hoa, rank = binding.home_address, self._rank or {}
        configured = self._config.routers[hoa]
        networks = [(*prefix, configured.realm) for prefix in sorted(binding.prefixes)]
        place: bytes | int = hoa
        if by == _RANK:
            networks.sort(key=lambda network: rank.get((hoa, network[0], network[1]), 0))
            place = rank[hoa, b"", 0]
        found = _Placed((configured.priority, place), (hoa, binding.outbound_only, networks))
        self._placed[hoa, by] = (binding, binding.outbound_only, found)
        return found


def _reach(order: Sequence[_Placed], limit: int) -> int:
    """Return how many routers can matter to `limit` octets, also when any one is left out."""
    sizes = [plan.least_octets(entry.router) for entry in order]
    limit += max(sizes)
    for number, size in enumerate(sizes):
        limit -= size
        if limit < 0:
            return number + 1
    return len(order)


def _ranked(config: Config) -> _Rank:
    """Return the place of every configured router and network if all were registered."""
    routers = sorted(config.routers.values(), key=lambda r: (r.priority, r.home_address))
    classes: list[list[Router]] = [
        [(r.home_address, False, [(*prefix, r.realm) for prefix in r.prefixes]) for r in group]
        for _, group in groupby(routers, lambda r: r.priority)
    ]
    rank: _Rank = {}
    for home_address, _, networks in plan.arrange(classes, config.advertisement_octets):
        rank[home_address, b"", 0] = len(rank)
        for prefix, plen, _ in networks:
            rank[home_address, prefix, plen] = len(rank)
    return rank
