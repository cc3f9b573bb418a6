"""Where to declare master prefixes (RFC 6521 4.1), exactly.

A prefix may be a delta of a master if they agree in all bits but its last eight, and the master is
long enough to have those bits [A50]: the master lies in the subtree under the prefix cut by eight
bits. So each prefix demands that one master lies in its subtree, itself counting. Subtrees are
nested or disjoint, hence only the innermost ones matter, each needs one master of its own, and the
shortest prefix in it is the cheapest: with a free order that is the optimum, no search needed.

With routers in a given order the only thing that carries over is the last master of a router. It
saves the next router the master of one subtree, so a walk over routers that keeps the costs by last
master is exact too.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

Prefix = tuple[int, int]  # 32 bits with host bits clear, length

_DELTA_BITS = 8


def octets(plen: int) -> int:
    """Return the octets of the Prefix field with D = 0."""
    return (plen + 7) // 8


def cut(prefix: Prefix) -> Prefix:
    """Return the subtree in which a prefix of /8 or longer needs a master."""
    value, plen = prefix
    return value >> (40 - plen) << (40 - plen), plen - _DELTA_BITS


def is_delta(prefix: Prefix, master: Prefix | None) -> bool:
    """Tell whether `prefix` may be sent with D = 1 after `master`."""
    value, plen = prefix
    if master is None or plen < _DELTA_BITS or master[1] < plen - _DELTA_BITS:
        return False
    return not (value ^ master[0]) >> (32 + _DELTA_BITS - plen)


def choose(sequence: Sequence[Prefix]) -> tuple[int, list[bool]]:
    """Return (octets of all Prefix fields, is-master flags), the least for this very order."""
    count = len(sequence)
    # best[j]: least cost of the first j prefixes; came[j]: the last master among them.
    best = [0] + [count * 5] * count
    came = [0] * (count + 1)
    reach = [0] * count  # where the deltas of a master end
    for i in range(count):
        master = sequence[i]
        cost = best[i] + octets(master[1])
        j = i + 1
        while True:
            if cost < best[j]:
                best[j] = cost
                came[j] = i
            else:
                # The other way is as good as far as its deltas go: these must go further.
                end = reach[came[j]]
                if end == count or not is_delta(sequence[end], master):
                    reach[i] = end
                    break
            if j == count or not is_delta(sequence[j], master):
                reach[i] = j
                break
            cost += 1
            j += 1
    flags = [False] * count
    j = count
    while j:
        j = came[j]
        flags[j] = True
    return best[count], flags


class Demand:
    """The prefixes of one router as innermost subtrees that need a master each.

    `extra` is what a master costs above a delta: 0 up to /8, else 1 to 3 (-1 for /0).
    """

    def __init__(self, prefixes: Iterable[Prefix]) -> None:
        self.prefixes = list(prefixes)
        self.extra = [octets(plen) - 1 for _, plen in self.prefixes]
        # Deltas shorter than /8 do not exist [A13].
        self.forced = [i for i, (_, plen) in enumerate(self.prefixes) if plen < _DELTA_BITS]
        self.trees = self._innermost()
        self.tree_of = [self._tree(prefix) for prefix in self.prefixes]
        self.best = [
            min(e for e, at in zip(self.extra, self.tree_of, strict=True) if at == tree)
            for tree in range(len(self.trees))
        ]
        self.base = len(self.prefixes) + sum(self.best) + sum(self.extra[i] for i in self.forced)
        self._hits: dict[Prefix | None, int] = {None: -1}
        self._useful: dict[int, list[int]] = {}

    def _innermost(self) -> list[Prefix]:
        # In this order a subtree is followed by those inside it, if any.
        wanted = sorted({cut(prefix) for prefix in self.prefixes if prefix[1] >= _DELTA_BITS})
        masters = [self.prefixes[i] for i in self.forced]
        return [
            tree
            for number, tree in enumerate(wanted)
            if not any(_inside(following, tree) for following in wanted[number + 1 : number + 2])
            and not any(_inside(master, tree) for master in masters)
        ]

    def _tree(self, prefix: Prefix) -> int:
        number = bisect_right(self.trees, prefix) - 1
        return number if number >= 0 and _inside(prefix, self.trees[number]) else -1

    def place(self, tree: Prefix) -> int:
        """Return where a subtree belongs among ours: the number of the first one inside it."""
        return bisect_left(self.trees, tree)

    def hit(self, master: Prefix | None) -> int:
        """Return the number of the subtree that `master` serves, -1 for none."""
        found = self._hits.get(master)
        if found is None:
            assert master is not None
            found = self._hits[master] = self._tree(master)
        return found

    def useful(self, following: "Demand") -> list[int]:
        """Return which of our prefixes would serve `following` as its incoming master."""
        found = self._useful.get(id(following))
        if found is None:
            found = [i for i, p in enumerate(self.prefixes) if following.hit(p) >= 0]
            self._useful[id(following)] = found
        return found

    def last(self, prefix: int, hit: int) -> int:
        """Return what it costs to make prefix number `prefix` the last master."""
        if self.prefixes[prefix][1] < _DELTA_BITS:
            return 0
        tree = self.tree_of[prefix]
        return self.extra[prefix] - (self.best[tree] if tree >= 0 and tree != hit else 0)

    def keeps(self, hit: int) -> bool:
        """Tell whether the incoming master serves all, so that it also goes out."""
        return not self.forced and self.trees == self.trees[hit : hit + 1] if hit >= 0 else False

    def arranged(self, incoming: Prefix | None, outgoing: Prefix | None) -> list[int]:
        """Return the order of the prefixes: deltas of `incoming`, then each master and its deltas.

        `outgoing`, if it is one of ours, is the last master.
        """
        hit = self.hit(incoming)
        masters = set(self.forced)
        last = -1
        if outgoing is not None and not (outgoing == incoming and self.keeps(hit)):
            last = self.prefixes.index(outgoing)
        for tree, best in enumerate(self.best):
            if tree != hit and (last < 0 or self.tree_of[last] != tree):
                places = zip(self.extra, self.tree_of, strict=True)
                masters.add(list(places).index((best, tree)))
        masters.discard(last)
        left = [i for i in range(len(self.prefixes)) if i not in masters and i != last]
        result: list[int] = []
        rows: list[tuple[int, Prefix | None]] = [(-1, incoming)]
        rows += [(i, self.prefixes[i]) for i in sorted(masters, key=self.prefixes.__getitem__)]
        if last >= 0:
            rows.append((last, outgoing))
        for i, master in rows:
            served = [other for other in left if is_delta(self.prefixes[other], master)]
            served.sort(key=self.prefixes.__getitem__)
            result += [i, *served] if i >= 0 else served
            left = [other for other in left if other not in served]
        return result + left


def _inside(prefix: Prefix, tree: Prefix) -> bool:
    return prefix[1] >= tree[1] and not (prefix[0] ^ tree[0]) >> (32 - tree[1])


def step(
    demand: Demand, following: Demand | None, states: dict[Prefix | None, int]
) -> dict[Prefix | None, int]:
    """Return the least cost by last master after `demand`, from those before it.

    The master None stands for one that serves nobody after. Only masters that serve `following`
    are kept apart.
    """
    totals: dict[int, int] = {}
    for master, cost in states.items():
        hit = demand.hit(master)
        total = cost + demand.base - (demand.best[hit] if hit >= 0 else 0)
        if total < totals.get(hit, total + 1):
            totals[hit] = total
    after: dict[Prefix | None, int] = {None: min(totals.values())}
    if following is None:
        return after
    for i in demand.useful(following):
        cost = min(total + demand.last(i, hit) for hit, total in totals.items())
        prefix = demand.prefixes[i]
        if cost < after.get(prefix, cost + 1):
            after[prefix] = cost
    for master, cost in states.items():
        hit = demand.hit(master)
        if hit >= 0 and demand.keeps(hit) and following.hit(master) >= 0:
            total = cost + demand.base - demand.best[hit]
            if total < after.get(master, total + 1):
                after[master] = total
    return after


def arrange(demands: Sequence[Demand]) -> list[list[int]]:
    """Return the order of prefixes in each router, for routers in this order, as `step` costs."""
    walked: list[dict[Prefix | None, int]] = [{None: 0}]
    for i, demand in enumerate(demands):
        following = demands[i + 1] if i + 1 < len(demands) else None
        walked.append(step(demand, following, walked[-1]))
    orders: list[list[int]] = []
    outgoing: Prefix | None = None
    for i in range(len(demands) - 1, -1, -1):
        demand = demands[i]
        target = walked[i + 1][outgoing]
        incoming = _origin(demand, outgoing, target, walked[i])
        orders.append(demand.arranged(incoming, outgoing))
        outgoing = incoming
    orders.reverse()
    return orders


def _origin(
    demand: Demand, outgoing: Prefix | None, target: int, states: dict[Prefix | None, int]
) -> Prefix | None:
    """Return the incoming master by which `step` reached `outgoing` at cost `target`."""
    for master, cost in states.items():
        hit = demand.hit(master)
        total = cost + demand.base - (demand.best[hit] if hit >= 0 else 0)
        if outgoing is None and total == target:
            return master
        if outgoing == master and demand.keeps(hit) and total == target:
            return master
        for i, prefix in enumerate(demand.prefixes):
            if prefix == outgoing and total + demand.last(i, hit) == target:
                return master
    raise AssertionError("no way back")
