"""Address space that two routers claim (RFC 6521 3.3.2): which prefixes must not become routes.

Private address space that overlaps is an error there, not a case for the longest match: equal
prefixes go to the router listed first, of nested ones the wider goes by the home agent, where
aggregation belongs. Nothing inside our own networks is ever a route. Pure.
"""

from haaro.compat import const
from haaro.wire import ipv4

_EACH = const(256)  # more than the prefixes of one record

_PRIVATE = tuple(
    ipv4.prefix(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
)


def private(address: bytes) -> bool:
    """Return whether an address is of RFC 1918 or RFC 6598."""
    return any(ipv4.contains(net, plen, address) for net, plen in _PRIVATE)


def judge(own: list, records: list) -> int:
    """Say in each prefix of `records` (best first) what it overlaps, "" if nothing; return how
    many do.
    """

    # Each prefix is a number, which is no heap object: 1000 of them must not be held twice.
    def of(number: int) -> tuple:
        if number < 0:
            return own[number][0], own[number][1], -1, None
        item = records[number // _EACH].prefixes[number % _EACH]
        return item.prefix, item.plen, number // _EACH, item

    numbers = [-1 - n for n in range(len(own))]
    for rank, record in enumerate(records):
        for n, item in enumerate(record.prefixes):
            if item.prefix_valid and item.plen and item.prefix != record.cr_hoa:
                numbers.append(rank * _EACH + n)
    numbers.sort(key=lambda number: of(number)[:3])  # what contains a prefix comes before it
    around: list = []
    count = 0
    for number in numbers:
        inner = of(number)
        while around and not ipv4.contains(around[-1][0], around[-1][1], inner[0]):
            around.pop()
        for outer in around:
            count += _pair(outer, inner)
        around.append(inner)
    return count


def _pair(outer: tuple, inner: tuple) -> int:
    if outer[2] == inner[2] or not (outer[2] < 0 or private(inner[0])):
        return 0
    wider = outer[1] < inner[1] and outer[2] >= 0
    loser, other = (outer, inner) if wider else (inner, outer)
    item = loser[3]
    if item is None or not item.prefix_valid:
        return 0
    item.prefix_valid = False
    whose = "our own " if other[2] < 0 else "another router's "
    item.obstacle = "overlaps " + whose + ipv4.text(other[0]) + "/" + str(other[1])
    return 1
