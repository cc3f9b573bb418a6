"""From routers by priority class to the octets of a Prefix Advertisement (RFC 6521 5.5).

Within a class the order is ours to choose (3.1.1 gives only the classes), so `arrange` makes the
whole as short as it can or, when it is cut, lets as many networks in as it can. `encode` makes the
octets of an order and declares masters where that is shortest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from haaro_host.home_agent.advertisement import masters
from haaro_host.home_agent.advertisement.order import Network, Router, key, replaced, shortest
from haaro_host.home_agent.advertisement.realms import RealmCost, RealmForms

EFFORT = 5000
MAX_OCTETS = 65535

_D = 0x80
_M = 0x40
_OUTBOUND_ONLY = 1
_HOA_OCTETS = 5


class Structure(NamedTuple):
    """One information structure: a router, or a network of it. `octets` as they are sent."""

    router: Router
    network: Network | None
    delta: bool
    octets: bytes


@dataclass(frozen=True)
class Encoding:
    """An advertisement: `complete` routers are in it whole; `pieces` are its structures' fields."""

    complete: int
    pieces: list[tuple[Router, Network | None, bool, bytes]]

    @property
    def data(self) -> bytes:
        """The octets."""
        return b"".join([piece[3] for piece in self.pieces])

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The structures in it."""
        return tuple(map(Structure._make, self.pieces))

    @property
    def networks(self) -> int:
        """The number of networks in it."""
        return sum(piece[1] is not None for piece in self.pieces)


def encode(
    routers: Sequence[Router], limit: int = MAX_OCTETS, forms: RealmForms | None = None
) -> Encoding:
    """Return the advertisement of `routers` in this order, cut before it is over `limit` octets.

    `forms`: realms taken apart before. ValueError when a realm cannot be one.
    """
    prefixes = _prefixes(routers, limit)
    declared = zip(prefixes, masters.choose(prefixes)[1], strict=True)
    realms = RealmCost(forms or RealmForms())
    pieces: list[tuple[Router, Network | None, bool, bytes]] = []
    left = limit
    complete = 0
    for router in routers:
        home_address, outbound_only, networks = router
        if left < _HOA_OCTETS:
            break
        head = bytes([_M | (_OUTBOUND_ONLY if outbound_only else 0)])
        pieces.append((router, None, False, head + home_address))
        left -= _HOA_OCTETS
        for network in networks:
            prefix, is_master = next(declared, (key(network), True))
            octets = _prefix(prefix, is_master) + realms.encode(network[2])
            left -= len(octets)
            if left < 0:
                break
            pieces.append((router, network, octets[0] >= _D, octets))
        if left < 0:
            break
        complete += 1
    return Encoding(complete, pieces)


def arrange(
    classes: Sequence[Sequence[Router]], limit: int = MAX_OCTETS, effort: int = EFFORT
) -> list[Router]:
    """Return the routers of all classes in the order to send, each with its networks in order.

    `classes` in order of priority (R3.1.1-3). Never longer than in the order given; when that is
    over `limit`, never with fewer networks in the cut. `effort` as order.shortest has it.
    """
    forms = RealmForms()
    found = shortest(classes, effort)
    place = _cut_class(found, limit, forms)
    if place is None:
        return _flat(found)
    # Only part of this class goes out, so what counts is what fits.
    candidates = [found, [list(routers) for routers in classes]]
    for dense in _densities(found[place], forms):
        candidates.append(replaced([*found[:place], dense, *found[place + 1 :]]))
    return best([_flat(candidate) for candidate in candidates], limit)


def best(orders: Sequence[list[Router]], limit: int) -> list[Router]:
    """Return the order of which most networks fit `limit`, then the shortest, then the first."""
    forms = RealmForms()

    def worth(routers: list[Router]) -> tuple[int, int]:
        networks, octets = _measure(routers, limit, forms)
        return -networks, octets

    return min(orders, key=worth)


def _flat(groups: Sequence[Sequence[Router]]) -> list[Router]:
    return [router for group in groups for router in group]


def least_octets(router: Router) -> int:
    """Return what a router takes at least: its home address and two octets a network."""
    return _HOA_OCTETS + 2 * len(router[2])


def _prefixes(routers: Sequence[Router], limit: int) -> list[masters.Prefix]:
    prefixes: list[masters.Prefix] = []
    for router in routers:
        if limit < 0:
            break  # what is further down cannot be in
        limit -= least_octets(router)
        prefixes += [key(network) for network in router[2]]
    return prefixes


def _prefix(prefix: masters.Prefix, is_master: bool) -> bytes:
    value, plen = prefix
    if is_master:
        return bytes([plen]) + value.to_bytes(4, "big")[: masters.octets(plen)]
    return bytes([_D | plen, value >> (32 - plen) & 0xFF])


def _measure(routers: Sequence[Router], limit: int, forms: RealmForms) -> tuple[int, int]:
    """Return (networks that fit, octets of them) without making the octets."""
    is_master = iter(masters.choose(_prefixes(routers, limit))[1])
    realms = RealmCost(forms)
    used = count = 0
    for _, _, networks in routers:
        if used + _HOA_OCTETS > limit:
            break
        used += _HOA_OCTETS
        for network in networks:
            prefix = masters.octets(network[1]) if next(is_master, True) else 1
            octets = 1 + prefix + realms.add(network[2])
            if used + octets > limit:
                return count, used
            used += octets
            count += 1
    return count, used


def _cut_class(classes: Sequence[Sequence[Router]], limit: int, forms: RealmForms) -> int | None:
    """Return the number of the class that is cut, None when everything fits."""
    routers = _flat(classes)
    fit, used = _measure(routers, limit, forms)
    if used == _measure(routers, MAX_OCTETS * len(routers), forms)[1]:
        return None
    for place, group in enumerate(classes):
        fit -= sum(len(router[2]) for router in group)
        if fit < 0:
            return place
    return len(classes) - 1


def _densities(group: list[Router], forms: RealmForms) -> list[list[Router]]:
    """Return orders of one class that put what takes the fewest octets a network first."""
    if len(group) < 2:
        return []
    families = [
        list(members)
        for _, members in groupby(group, lambda r: r[2][0][2].partition(".")[2] if r[2] else None)
    ]

    def density(routers: list[Router]) -> float:
        networks, octets = _measure(routers, MAX_OCTETS, forms)
        return octets / networks if networks else float("inf")

    def size(router: Router) -> int:
        return -len(router[2])

    dense = sorted(families, key=density)
    return [
        _flat(dense),
        _flat([sorted(family, key=size) for family in dense]),
        sorted(group, key=size),
        sorted(group, key=lambda router: density([router])),
    ]
