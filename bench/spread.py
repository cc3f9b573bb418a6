"""Which prefixes a table of the scale test has: shared by CPython and MicroPython.

The traffic is the same whatever the size of the table: to one host in each of `networks` /24s from
10.128.0.0 on. What differs is how finely the table divides them, and how much it has beside.
"""

_LONGEST = 24


def covering(count: int, networks: int) -> tuple:
    """Return (prefixes, plen) that together hold all networks: the finest with at most `count`."""
    plen = 9
    for longer in range(10, _LONGEST + 1):
        if -(-networks >> _LONGEST - longer) <= count:
            plen = longer
    return -(-networks >> _LONGEST - plen), plen


def prefix(number: int, count: int, networks: int) -> tuple:
    """Return (4 octets, plen) of prefix `number`; those beyond the covering are elsewhere."""
    cover, plen = covering(count, networks)
    if number < cover:
        at = number << _LONGEST - plen
        return bytes((10, 128 + (at >> 8), at & 255, 0)), plen
    at = number - cover
    return bytes((10, 192 + (at >> 8), at & 255, 0)), _LONGEST


def host(number: int) -> bytes:
    """Return the address in /24 `number` that datagrams go to."""
    return bytes((10, 128 + (number >> 8), number & 255, 10))


def remote(number: int) -> bytes:
    """Return the far end of direct tunnel `number`, 0 the first."""
    return bytes((10, 98, number + 1 >> 8, number + 1 & 255))
