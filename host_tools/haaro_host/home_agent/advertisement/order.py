"""The search for an order of routers and prefixes that makes an advertisement short.

Prefixes inside routers are placed exactly (masters.py); the order of routers inside a priority
class is searched: all orders of a few routers, else the best of some sorted ones, improved by
moving blocks of routers for as long as `effort` lasts. No chance is involved: the same routers give
the same order.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from math import factorial, prod

from haaro_host.home_agent.advertisement.masters import (
    Demand,
    Prefix,
    arrange,
    choose,
    cut,
    step,
)
from haaro_host.home_agent.advertisement.realms import RealmCost, RealmForms

# (prefix, length, realm); (home address, outbound only, networks), as the wire layer has them.
Network = tuple[bytes, int, str]
Router = tuple[bytes, bool, list[Network]]

_ALL_ORDERS = 120  # up to so many orders are all tried
_STRIDE = 8  # routers between two states that are kept to start from


class Chance:
    """A number generator of our own: an order must not change from run to run."""

    def __init__(self) -> None:
        self._state = 1

    def below(self, bound: int) -> int:
        """Return a number from 0 to `bound` - 1."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self._state >> 33) % bound


class Member:
    """One router with prefixes, ready to be counted."""

    def __init__(self, router: Router) -> None:
        self.router = router
        self.networks = router[2]
        self.demand = Demand(key(network) for network in router[2])
        self.realms: list[tuple[str, int]] = []
        for _, _, realm in router[2]:
            if self.realms and self.realms[-1][0] == realm:
                self.realms[-1] = (realm, self.realms[-1][1] + 1)
            else:
                self.realms.append((realm, 1))
        self.mixed = len({realm for realm, _ in self.realms}) > 1
        self.labels = router[2][0][2].split(".")[::-1]


class _Snapshot:
    """What has been counted before one position."""

    def __init__(self, states: dict[Prefix | None, int], realms: RealmCost, octets: int) -> None:
        self.states = states
        self.realms = realms
        self.octets = octets


class Walk:
    """Counts orders of members; remembers the way to the order that was kept last."""

    def __init__(self, forms: RealmForms) -> None:
        self._snapshots = [_Snapshot({None: 0}, RealmCost(forms), 0)]
        self._made = self._snapshots[:]
        self.steps = 0

    def cost(self, order: Sequence[Member], since: int = 0) -> int:
        """Return prefix and realm octets; `order` equals the kept one before place `since`."""
        # A state before a place was made for the member that stood there.
        number = min(max(since - 1, 0) // _STRIDE, len(self._snapshots) - 1)
        self._made = self._snapshots[: number + 1]
        start = self._made[-1]
        states, realms, octets = start.states, start.realms.copy(), start.octets
        last = len(order) - 1
        for place in range(number * _STRIDE, len(order)):
            if place % _STRIDE == 0 and place > number * _STRIDE:
                self._made.append(_Snapshot(states, realms.copy(), octets))
            member = order[place]
            following = order[place + 1].demand if place < last else None
            states = step(member.demand, following, states)
            for realm, count in member.realms:
                octets += realms.add(realm, count)
        self.steps += len(order) - number * _STRIDE
        return octets + min(states.values())

    def keep(self) -> None:
        """Keep the order that was counted last."""
        self._snapshots = self._made


def key(network: Network) -> Prefix:
    """Return the prefix as masters.py has it."""
    return int.from_bytes(network[0], "big"), network[1]


def exact_cost(routers: Sequence[Router], forms: RealmForms) -> int:
    """Return prefix and realm octets of routers and prefixes in this very order."""
    networks = [network for router in routers for network in router[2]]
    realms = RealmCost(forms)
    return choose([key(network) for network in networks])[0] + sum(
        realms.add(realm) for _, _, realm in networks
    )


def shortest(classes: Sequence[Sequence[Router]], effort: int) -> list[list[Router]]:
    """Return the routers of each class in a good order, and so their prefixes.

    Never longer than the order given. Routers without prefixes end their class. `effort` bounds the
    routers counted in all orders that are tried (some 10 microseconds each).
    """
    forms = RealmForms()
    given = [[router for router in routers if router[2]] for routers in classes]
    members = [[Member(router) for router in routers] for routers in given]
    found = _arranged(_search(members, forms, effort))
    if any(member.mixed for group in members for member in group):
        found = _search_networks(given, found, forms, effort)
    best = min((found, given), key=lambda order: exact_cost(_flat(order), forms))
    return [
        [*order, *(router for router in routers if not router[2])]
        for order, routers in zip(best, classes, strict=True)
    ]


def replaced(groups: Sequence[Sequence[Router]]) -> list[list[Router]]:
    """Return routers in the order given, each with its prefixes where they cost least."""
    members = [[Member(router) for router in routers if router[2]] for routers in groups]
    filled = (iter(group) for group in _arranged(members))
    return [
        [next(found) if router[2] else router for router in routers]
        for routers, found in zip(groups, filled, strict=True)
    ]


def _flat(groups: Sequence[Sequence[Router]]) -> list[Router]:
    return [router for group in groups for router in group]


def _arranged(groups: Sequence[Sequence[Member]]) -> list[list[Router]]:
    """Return the routers of `groups`, each with its prefixes where they cost least."""
    orders = iter(arrange([member.demand for group in groups for member in group]))
    result = []
    for group in groups:
        routers = []
        for member in group:
            networks = [member.networks[i] for i in next(orders)]
            routers.append((member.router[0], member.router[1], networks))
        result.append(routers)
    return result


# --- the order of routers ----------------------------------------------------------------------


def _search(groups: list[list[Member]], forms: RealmForms, effort: int) -> list[list[Member]]:
    walk = Walk(forms)
    if prod(factorial(min(len(group), 9)) for group in groups) <= _ALL_ORDERS:
        orders = product(*(permutations(group) for group in groups))
        best = min(orders, key=lambda order: walk.cost([m for group in order for m in group]))
        return [list(group) for group in best]
    candidates = [[_sorted(group, name) for group in groups] for name in _SORTS]
    candidates.append(groups)
    groups = min(candidates, key=lambda order: walk.cost([m for group in order for m in group]))
    bounds = []
    start = 0
    for group in groups:
        if len(group) > 1:
            bounds.append((start, start + len(group)))
        start += len(group)
    order = _improve([m for group in groups for m in group], bounds, walk, effort)
    members = iter(order)
    return [[next(members) for _ in group] for group in groups]


_SORTS = ("address", "realm", "largest", "smallest")


def _sorted(group: list[Member], by: str) -> list[Member]:
    """Return `group` sorted so that what shares masters, or labels, stands together."""
    union = Demand(prefix for member in group for prefix in member.demand.prefixes)

    def place(member: Member) -> tuple[int, int, list[Prefix]]:
        near = [union.place(cut(p)) for p in member.demand.prefixes if p[1] >= 8] or [0]
        return min(near), max(near), sorted(member.demand.prefixes)

    if by == "address":
        return sorted(group, key=place)
    if by == "realm":
        return sorted(group, key=lambda member: (member.labels[:-1], place(member)))
    weight: dict[tuple[str, ...], int] = {}
    for member in group:
        family = tuple(member.labels[:-1])
        weight[family] = weight.get(family, 0) + len(member.networks)
    sign = -1 if by == "largest" else 1

    # The first realm of all is the only one whose every suffix gets into an empty dictionary.
    def order(member: Member) -> tuple[int, list[str], tuple[int, int, list[Prefix]]]:
        family = member.labels[:-1]
        return sign * weight[tuple(family)], family, place(member)

    return sorted(group, key=order)


def _improve(
    order: list[Member], bounds: list[tuple[int, int]], walk: Walk, effort: int
) -> list[Member]:
    """Move blocks of routers inside their class while that does no harm and `effort` lasts.

    Returns the first of the shortest orders: what is as short as the sorted one stays sorted.
    """
    chance = Chance()
    shortest_order = order
    cost = walk.cost(order)
    walk.keep()
    places = [bound for bound in bounds for _ in range(bound[1] - bound[0])]
    while places and walk.steps < effort:
        low, high = places[chance.below(len(places))]
        changed, since = _moved(order, low, high, chance)
        if changed is None:
            walk.steps += 1
            continue
        new = walk.cost(changed, since)
        if new < cost:
            shortest_order = changed
        if new <= cost:
            order, cost = changed, new
            walk.keep()
    return shortest_order


def _moved(
    order: list[Member], low: int, high: int, chance: Chance
) -> tuple[list[Member] | None, int]:
    """Return (`order` with one block moved between `low` and `high`, first place changed)."""
    start = low + chance.below(high - low)
    kind = chance.below(4)
    stop = start + 1
    if kind == 0:
        stop = min(high, start + 1 + chance.below(16))
    elif kind == 1:
        family = order[start].labels[:-1]
        while start > low and order[start - 1].labels[:-1] == family:
            start -= 1
        while stop < high and order[stop].labels[:-1] == family:
            stop += 1
    block = order[start:stop]
    rest = order[:start] + order[stop:]
    room = high - len(block) - low + 1
    to = low + chance.below(room)
    if kind == 2:  # near by: that is where shared masters are
        to = min(max(start - 4 + chance.below(9), low), low + room - 1)
    if to == start:
        return None, start
    return rest[:to] + block + rest[to:], min(start, to)


# --- routers with several realms: the order of networks too ------------------------------------


def _search_networks(
    given: list[list[Router]], found: list[list[Router]], forms: RealmForms, effort: int
) -> list[list[Router]]:
    count = prod(factorial(min(len(group), 9)) for group in given)
    count *= prod(factorial(min(len(router[2]), 9)) for group in given for router in group)
    if count <= _ALL_ORDERS:
        return min(_every(given), key=lambda order: exact_cost(_flat(order), forms))
    best = min((found, given), key=lambda order: exact_cost(_flat(order), forms))
    cost = exact_cost(_flat(best), forms)
    chance = Chance()
    # One network costs about a tenth of what one router does in a walk.
    steps = effort * 10
    while steps > 0:
        changed = _changed(best, chance)
        new = exact_cost(_flat(changed), forms)
        if new <= cost:
            best, cost = changed, new
        steps -= sum(len(router[2]) + 1 for group in best for router in group)
    return best


def _every(groups: list[list[Router]]) -> Iterator[list[list[Router]]]:
    for order in product(*(permutations(group) for group in groups)):
        inner = product(*(permutations(router[2]) for group in order for router in group))
        for networks in inner:
            rows = iter(networks)
            yield [
                [(router[0], router[1], list(next(rows))) for router in group] for group in order
            ]


def _changed(groups: list[list[Router]], chance: Chance) -> list[list[Router]]:
    """Return `groups` with one router or one network of a router moved."""
    result = [list(group) for group in groups]
    filled = [group for group in result if group]
    group = filled[chance.below(len(filled))]
    place = chance.below(len(group))
    if len(group) > 1 and chance.below(2):
        group.insert(chance.below(len(group)), group.pop(place))
        return result
    home_address, outbound_only, networks = group[place]
    networks = networks[:]
    networks.insert(chance.below(len(networks)), networks.pop(chance.below(len(networks))))
    group[place] = (home_address, outbound_only, networks)
    return result
