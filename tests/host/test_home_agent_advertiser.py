"""What the home agent remembers of its advertisements gives the same octets as making each anew."""

import random
from itertools import chain, groupby

import pytest

from haaro.wire import extensions
from haaro.wire.ipv4 import address, text
from haaro_host.home_agent import advertiser
from haaro_host.home_agent.advertisement import plan
from tests.host.home_agent_helpers import KEY, World, build_config

HOA = {n: address(f"172.16.0.{n}") for n in range(1, 200)}
COA = {n: address(f"198.51.100.{n}") for n in range(1, 200)}


def config(count, octets, priorities, networks):
    """Return a configuration; `priorities` and `networks` give what router n has."""

    def change(document):
        document["home_agent"]["home_addresses"] = ["172.16.0.0/16"]
        document["home_agent"]["advertisement_octets"] = octets
        document["router"] = [
            {
                "name": f"R{n}",
                "home_address": text(HOA[n]),
                "prefixes": networks(n),
                "realm": f"{'abc'[n % 3]}.branch.example",
                "priority": priorities(n),
                "implicit": True,
            }
            for n in range(1, count + 1)
        ]

    def change_secrets(secrets):
        secrets["router"] = [
            {"name": f"R{n}", "spi": 256, "algorithm": "hmac-sha256", "key": KEY.hex()}
            for n in range(1, count + 1)
        ]

    return build_config(change, change_secrets)


def networks_of(n):
    """Return none to four networks for router n."""
    return [f"10.{n % 7}.{n * 4 + k & 255}.0/{24 + k}" for k in range(n % 5)]


def anew(config, rank, bindings, requester, solicited, limit):
    """Return the data of the extension from all bindings, nothing remembered."""
    eligible = sorted(
        (b.home_address != solicited, config.routers[b.home_address].priority, b.home_address)
        + (b.outbound_only, tuple(sorted(b.prefixes)))
        for b in bindings
        if b.advertise and b.home_address != requester
    )
    classes = [
        [
            (hoa, o, [(*p, config.routers[hoa].realm) for p in prefixes])
            for *_, hoa, o, prefixes in g
        ]
        for _, g in groupby(eligible, lambda entry: entry[:2])
    ]
    others = sum(b.advertise for b in bindings)
    if others <= advertiser._FEW + 1:
        return plan.encode(plan.arrange(classes, limit), limit).data

    def by_rank(router):
        networks = sorted(router[2], key=lambda n: rank[router[0], n[0], n[1]])
        return router[0], router[1], networks

    # Without the one asked for, which then goes before all.
    def priority(router):
        return config.routers[router[0]].priority

    given = sorted(chain(*classes), key=lambda router: (priority(router), router[0]))
    found = sorted(given, key=lambda router: (priority(router), rank[router[0], b"", 0]))
    found = list(map(by_rank, found))
    chosen = plan.best([found, given], limit)
    for router in found:
        if router[0] == solicited:
            chosen = [router, *(other for other in chosen if other[0] != solicited)]
    return plan.encode(chosen, limit).data


@pytest.mark.parametrize("seed", range(4))
def test_what_is_remembered_is_what_would_be_made_anew(seed, monkeypatch):
    """R3.1.1-2, R3.1.1-3, R3.1-2, R3.1-3, R3.1-i2: after any history of routers."""
    rng = random.Random(seed)
    count = rng.choice([16, 40, 90])
    octets = rng.choice([200, 400, 1200])
    chosen = config(count, octets, lambda n: n * 7 % rng.choice([1, 4]) + 1, networks_of)
    world = World(config=chosen)
    rank = advertiser._ranked(chosen)
    asked = []
    data = advertiser.Advertiser.data

    def remember(self, *arguments):
        asked.append((arguments, data(self, *arguments)))
        return asked[-1][1]

    monkeypatch.setattr(advertiser.Advertiser, "data", remember)
    for _ in range(150):
        world.advance(rng.choice([1, 1, 5, 150]) if rng.random() < 0.1 else 1)
        n = rng.randint(1, count)
        capability = {"advertise": rng.random() < 0.9, "outbound_only": rng.random() < 0.1}
        if rng.random() < 0.3:
            capability["home_address"] = HOA[rng.randint(1, count)]
        lifetime = 0 if rng.random() < 0.1 else 300
        world.register(hoa=HOA[n], coa=COA[n], capability=capability, lifetime=lifetime)
        if asked:
            (used, _, bindings, requester, solicited, limit), got = asked.pop()
            assert got == anew(used, rank, list(bindings), requester, solicited, limit)
    assert world.ha.counters["registration_accepted"] > 90


def test_other_terms_of_a_renewal_are_advertised():
    """R5.1-i2, R5.1-i3: A and O of the last request count, though the tunnel stays."""
    world = World(config=config(20, 1200, lambda n: n, networks_of))
    for n in range(1, 21):
        world.register(hoa=HOA[n], coa=COA[n], capability={})

    def listed():
        world.now += 1000
        reply = world.register(hoa=HOA[20], coa=COA[20], capability={})
        found = reply.find(extensions.PrefixAdvertisement).routers()
        return {hoa: outbound_only for hoa, outbound_only, _ in found}

    assert listed()[HOA[3]] is False
    world.register(hoa=HOA[3], coa=COA[3], capability={"outbound_only": True})
    assert listed()[HOA[3]] is True
    world.now += 1000
    world.register(hoa=HOA[3], coa=COA[3], capability={"advertise": False})
    assert HOA[3] not in listed()


def test_renewals_of_many_routers_share_one_advertisement(monkeypatch):
    """G8: only what a reply has room for is looked at, and made once for all who are not in it."""
    made = []
    encode = plan.encode
    monkeypatch.setattr(plan, "encode", lambda *a: made.append(len(a[0])) or encode(*a))
    world = World(config=config(199, 400, lambda n: n, lambda n: [f"10.0.{n}.0/24"]))
    for n in range(1, 200):
        world.register(hoa=HOA[n], coa=COA[n], capability={"request": False})
    for _ in range(3):
        made.clear()
        world.now += 100_000
        for n in range(1, 200):
            reply = world.register(hoa=HOA[n], coa=COA[n], capability={})
            assert reply.find(extensions.PrefixAdvertisement) is not None
        if _ == 0:
            assert 30 < len(made) < 70
            assert max(made) < 70
    assert made == []
