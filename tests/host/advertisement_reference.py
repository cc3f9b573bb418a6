"""What advertisements are compared with: a realistic plan of addresses, small random sets, the
uncompressed form, and the shortest of all forms found by trying them all.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import permutations, product

from haaro.wire.realms import RealmEncoder

Prefix = tuple[int, int]  # 32 bits, length
Network = tuple[bytes, int, str]
Router = tuple[bytes, bool, list[Network]]

_LENGTHS = (22, 23, 24, 24, 24, 25, 26, 27, 28)
_NETWORKS_OF_A_SITE = (1, 8)
_NETWORKS_OF_AN_ORGANISATION = (30, 70)
# fmt: off
_SITES = (
    "aarhus", "basel", "bergen", "bilbao", "bologna", "bordeaux", "bremen", "brno", "cork", "delft",
    "dresden", "exeter", "gdansk", "geneva", "ghent", "graz", "haifa", "izmir", "krakow", "leeds",
    "leipzig", "linz", "lyon", "malmo", "nantes", "oulu", "porto", "riga", "tampere", "zagreb",
)
_ORGANISATIONS = (
    "acme", "borealis", "cargoline", "deltarail", "eastport", "ferrox", "granary", "harbour",
    "inland", "jetway", "keystone", "lumen", "metrobus", "northgas", "orchard", "pilotage",
    "quarry", "riverbank", "saltworks", "tramway", "unity", "viaduct", "westgrid", "yardline",
    "zenith",
)
# fmt: on


def address_plan(networks: int, realm_of_site: bool = True, seed: int = 1) -> list[Router]:
    """Return routers with `networks` networks in all, in no particular order.

    Each organisation has a /16 and splits it into /22 to /28, one after the other; each site is a
    router with 1 to 8 of them. Realms have three labels, of the site or of the organisation.
    """
    chance = random.Random(seed)
    routers: list[Router] = []
    left = networks
    for number, organisation in enumerate(_ORGANISATIONS * 40):
        if not left:
            break
        here = min(left, chance.randint(*_NETWORKS_OF_AN_ORGANISATION))
        left -= here
        at = 10 << 24 | number << 16
        for site in chance.sample(_SITES, len(_SITES)):
            count = min(here, chance.randint(*_NETWORKS_OF_A_SITE))
            if not count:
                break
            here -= count
            name = f"{organisation}{number // len(_ORGANISATIONS) or ''}"
            realm = f"{site if realm_of_site else 'mobile'}.{name}.example"
            found = []
            for _ in range(count):
                plen = chance.choice(_LENGTHS)
                size = 1 << (32 - plen)
                at = (at + size - 1) // size * size
                found.append((at.to_bytes(4, "big"), plen, realm))
                at += size
            hoa = bytes([172, 16 + (len(routers) >> 16), len(routers) >> 8 & 255])
            routers.append((hoa + bytes([len(routers) & 255]), False, found))
        left += here
    chance.shuffle(routers)
    return routers


def uncompressed(routers: list[Router]) -> bytes:
    """Return the advertisement with masters and literal labels only (RFC 6521 4.2.1 allows it)."""
    out = bytearray()
    for home_address, outbound_only, networks in routers:
        out += bytes([0x40 | outbound_only]) + home_address
        for prefix, plen, realm in networks:
            out += bytes([plen]) + prefix[: (plen + 7) // 8]
            for label in realm.split("."):
                out += bytes([len(label)]) + label.encode("latin-1")
            out.append(0)
    return bytes(out)


# --- small sets --------------------------------------------------------------------------------

_SHORT_AND_LONG = (0, 4, 7, 8, 9, 12, 16, 20, 22, 24, 24, 25, 26, 27, 28, 30, 32)
_LABELS = ("a", "bb", "com", "example", "org", "oslo")


def random_prefix(chance: random.Random) -> Prefix:
    """Return a prefix near others, now and then a far one."""
    plen = chance.choice(_SHORT_AND_LONG)
    value = 10 << 24 | chance.getrandbits(24) & chance.choice((0xFFFF, 0x1FFF, 0x3FFFF, 0xFFFFFF))
    if chance.random() < 0.1:
        value = chance.getrandbits(32)
    return value >> (32 - plen) << (32 - plen), plen


def random_routers(chance: random.Random, most: int) -> list[Router]:
    """Return 1 to `most` networks on as many routers or fewer, realms drawn for each network."""
    count = chance.randint(1, most)
    realms = [".".join(chance.choices(_LABELS, k=chance.randint(0, 3))) for _ in range(3)]
    routers: list[Router] = [
        (bytes([192, 0, 2, number]), False, []) for number in range(chance.randint(1, count))
    ]
    for number in range(count):
        router = routers[number] if number < len(routers) else chance.choice(routers)
        value, plen = random_prefix(chance)
        router[2].append((value.to_bytes(4, "big"), plen, chance.choice(realms)))
    return routers


def may_be_delta(prefix: Prefix, master: Prefix) -> bool:
    """RFC 6521 4.1 with [A13], [A19], [A50], bit by bit."""
    (value, plen), (master_value, master_plen) = prefix, master
    if plen < 8 or plen - 8 > master_plen:
        return False
    return all(value >> (31 - bit) & 1 == master_value >> (31 - bit) & 1 for bit in range(plen - 8))


def shortest_prefixes(prefixes: Sequence[Prefix]) -> int:
    """Return the least octets of all Prefix fields, over every order and every choice of masters.

    Dynamic programming over the subsets already sent and the last master among them.
    """
    count = len(prefixes)
    served = [[may_be_delta(p, master) for p in prefixes] for master in prefixes]
    costs: dict[tuple[int, int], int] = {(0, -1): 0}
    for sent in range(1 << count):
        for master in range(-1, count):
            cost = costs.get((sent, master))
            if cost is None:
                continue
            for i in range(count):
                if sent >> i & 1:
                    continue
                after = sent | 1 << i
                declared = cost + (prefixes[i][1] + 7) // 8
                if declared < costs.get((after, i), declared + 1):
                    costs[after, i] = declared
                if master < 0 or not served[master][i]:
                    continue
                if cost + 1 < costs.get((after, master), cost + 2):
                    costs[after, master] = cost + 1
    return min(cost for (sent, _), cost in costs.items() if sent == (1 << count) - 1)


def fewest_in_order(prefixes: Sequence[Prefix], master: Prefix | None = None) -> int:
    """Return the least octets of Prefix fields in this order, trying every choice of masters."""
    if not prefixes:
        return 0
    first, rest = prefixes[0], prefixes[1:]
    cost = (first[1] + 7) // 8 + fewest_in_order(rest, first)
    if master is not None and may_be_delta(first, master):
        cost = min(cost, 1 + fewest_in_order(rest, master))
    return cost


def shortest_advertisement(routers: list[Router]) -> int:
    """Return the least octets of the data, trying every order of routers and of their networks."""
    return min(_octets(order) for order in _orders(routers))


def _orders(routers: list[Router]) -> Iterator[list[list[Network]]]:
    for order in permutations(routers):
        yield from map(list, product(*(permutations(router[2]) for router in order)))


def _octets(order: list[list[Network]]) -> int:
    networks = [network for of_router in order for network in of_router]
    realms = RealmEncoder()
    prefixes = fewest_in_order([(int.from_bytes(p, "big"), plen) for p, plen, _ in networks])
    heads = 5 * len(order) + len(networks)
    return heads + prefixes + sum(len(realms.encode(realm)) for _, _, realm in networks)
