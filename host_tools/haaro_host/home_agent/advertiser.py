"""Which routers a reply advertises, and in which order (RFC 6521 3.1.1).

Owns: eligibility, the priority classes, and what was worked out before. Orders of many routers are
searched once for a configuration, with all that it names, and hold for whoever is registered: a
thousand routers that come back after an outage cost no search. A few are searched as they are.
"""

from collections import OrderedDict
from collections.abc import Iterable
from itertools import groupby

from haaro_host.home_agent.advertisement import plan
from haaro_host.home_agent.advertisement.order import Router
from haaro_host.home_agent.bindings import Binding
from haaro_host.home_agent.config import Config

_FEW = 12  # so many routers are searched for each reply that differs
_REMEMBERED = 64  # advertisements; the one not used for the longest time goes

_Rank = dict[tuple[bytes, bytes, int], int]


class Advertiser:
    """Makes the data of Prefix Advertisements."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._rank: _Rank | None = None
        self._made: OrderedDict[object, bytes] = OrderedDict()

    def data(
        self,
        config: Config,
        bindings: Iterable[Binding],
        requester: bytes,
        solicited: bytes | None,
        limit: int,
    ) -> bytes:
        """Return the data of the extension, at most `limit` octets; b"" when it would be empty.

        Eligible: registered routers that set A, without the requester. `solicited` comes first,
        the others by priority; within one priority as is shortest.
        """
        if config is not self._config:
            self._config = config
            self._rank = None
            self._made.clear()
        eligible = sorted(
            (binding.home_address != solicited, config.routers[binding.home_address].priority)
            + (binding.home_address, binding.outbound_only, tuple(sorted(binding.prefixes)))
            for binding in bindings
            if binding.advertise and binding.home_address != requester
        )
        wanted = (limit, *eligible)
        data = self._made.get(wanted)
        if data is None:
            data = self._made[wanted] = plan.encode(self._order(eligible, limit), limit).data
            if len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(wanted)
        return data

    def _order(self, eligible: list, limit: int) -> list[Router]:
        config = self._config
        assert config is not None
        classes: list[list[Router]] = [
            [
                (hoa, outbound_only, [(*prefix, config.routers[hoa].realm) for prefix in prefixes])
                for _, _, hoa, outbound_only, prefixes in group
            ]
            for _, group in groupby(eligible, lambda entry: entry[:2])
        ]
        if len(eligible) <= _FEW:
            return plan.arrange(classes, limit)
        if self._rank is None:
            self._rank = _ranked(config)
        given = [router for group in classes for router in group]
        found = [router for group in classes for router in _by_rank(group, self._rank)]
        return plan.best([found, given], limit)


def _by_rank(group: list[Router], rank: _Rank) -> list[Router]:
    placed = []
    for hoa, outbound_only, networks in group:
        networks = sorted(networks, key=lambda n: rank.get((hoa, n[0], n[1]), 0))
        placed.append((rank[hoa, b"", 0], (hoa, outbound_only, networks)))
    placed.sort(key=lambda entry: entry[0])
    return [router for _, router in placed]


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
