"""Advertisements as short as the format allows: order, masters, cut; what the home agent sends."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.wire import message
from haaro.wire.extensions import PrefixAdvertisement
from haaro.wire.ipv4 import address
from haaro.wire.prefixes import build_advertisement
from haaro.wire.realms import RealmEncoder
from haaro_host.home_agent.advertisement import masters, order, plan
from haaro_host.home_agent.advertisement.realms import RealmCost, RealmForms
from tests.bench import advertisement as bench
from tests.host import advertisement_reference as reference
from tests.host.home_agent_helpers import COA_A, COA_B, KEY, World, advertised, build_config
from tests.wire import model
from tests.wire.strategies import prefix, realm, router

classes = st.lists(st.lists(router, max_size=4), min_size=1, max_size=3).filter(any)


def flat(groups):
    return [entry for group in groups for entry in group]


def decoded(data):
    return list(PrefixAdvertisement(data, 0, len(data)).routers())


def as_set(routers):
    """Return routers without the order of routers and networks."""
    return sorted((hoa, outbound, sorted(networks)) for hoa, outbound, networks in routers)


def encoded(groups, limit=plan.MAX_OCTETS, effort=100):
    return plan.encode(plan.arrange(groups, limit, effort), limit)


@given(classes)
def test_what_is_sent_is_what_was_given(groups):
    """R4.1-i4, R5.5-i2, R5.5-i3, R4.2.2-i1: class by class the same routers and networks."""
    data = encoded(groups).data
    left = decoded(data)
    for group in groups:
        assert as_set(left[: len(group)]) == as_set(group)
        left = left[len(group) :]
    assert left == []
    assert [entry[:2] for entry in model.decode_advertisement(data)] == [
        entry[:2] for entry in decoded(data)
    ]


@given(classes)
def test_it_is_never_longer_than_the_order_given(groups):
    """R4.1-i4."""
    assert len(encoded(groups).data) <= len(build_advertisement(flat(groups))[0])


@given(classes)
def test_structures_are_as_the_rfc_wants(groups):
    """R5.5-2, R5.5-3, R5.5-5, R5.5-6, R4.1-1, R4.1-i1, R4.1-i2, R4.1-i3: each one by itself."""
    sent = encoded(groups)
    assert b"".join(s.octets for s in sent.structures) == sent.data
    assert sent.structures[0].network is None
    master = None
    for structure in sent.structures:
        head = structure.octets[0]
        if structure.network is None:
            assert head & 0xC0 == 0x40 and len(structure.octets) == 5
            continue
        value, plen = int.from_bytes(structure.network[0], "big"), structure.network[1]
        assert head & 0x40 == 0 and head & 0x3F == plen
        assert structure.delta == bool(head & 0x80)
        assert structure.octets.endswith(b"\0")
        if structure.delta:
            assert master is not None and reference.may_be_delta((value, plen), master)
            assert structure.octets[1] == value >> (32 - plen) & 0xFF
        else:
            master = value, plen
            count = (plen + 7) // 8
            assert structure.octets[1 : 1 + count] == structure.network[0][:count]


@given(st.lists(st.tuples(realm, st.integers(1, 4)), max_size=60))
def test_realms_are_counted_as_the_wire_layer_sends_them(realms):
    """R4.2.1-1, R4.2.1-2, R4.2.2-i1, R4.2.2-i2: rollover included."""
    forms = RealmForms()
    encoder, cost, maker = RealmEncoder(), RealmCost(forms), RealmCost(forms)
    for text, count in realms:
        wanted = [encoder.encode(text) for _ in range(count)]
        assert cost.add(text, count) == sum(map(len, wanted))
        assert [maker.encode(text) for _ in range(count)] == wanted


@given(st.lists(prefix(), max_size=9))
def test_masters_are_the_fewest_octets_of_an_order(prefixes):
    """R4.1-i1."""
    numbers = [(int.from_bytes(p, "big"), plen) for p, plen in prefixes]
    cost, flags = masters.choose(numbers)
    assert cost == reference.fewest_in_order(numbers)
    master, total = None, 0
    for number, declared in zip(numbers, flags, strict=True):
        assert declared or reference.may_be_delta(number, master)
        master = number if declared else master
        total += (number[1] + 7) // 8 if declared else 1
    assert total == cost


def test_500_sets_of_prefixes_reach_the_optimum():
    """R4.1-i4: over all orders and masters; on one router, and on one router each."""
    chance = random.Random(6521)
    optimum = one = each = 0
    for _ in range(500):
        numbers = [reference.random_prefix(chance) for _ in range(chance.randint(1, 8))]
        networks = [(value.to_bytes(4, "big"), plen, "") for value, plen in numbers]
        optimum += reference.shortest_prefixes(numbers)
        beside = 2 * len(networks)  # head and end mark
        one += len(encoded([[(bytes(4), False, networks)]]).data) - 5 - beside
        alone = [(bytes([192, 0, 2, i]), False, [n]) for i, n in enumerate(networks)]
        each += len(encoded([alone], effort=600).data) - 5 * len(networks) - beside
    assert one == optimum
    assert optimum <= each <= optimum * 1.02


def test_sets_with_realms_reach_the_optimum():
    """R4.1-i4: up to four networks on up to four routers, every order tried."""
    chance = random.Random(6521)
    optimum = ours = 0
    for _ in range(500):
        routers = reference.random_routers(chance, 4)
        optimum += reference.shortest_advertisement(routers)
        ours += len(encoded([routers]).data)
    assert optimum <= ours <= optimum * 1.02


def test_routers_with_many_networks_reach_the_optimum():
    """R4.1-i4: six networks in all, which no longer are all tried by the search itself."""
    chance = random.Random(4)
    optimum = ours = 0
    for _ in range(30):
        routers = reference.random_routers(chance, 6)
        optimum += reference.shortest_advertisement(routers)
        ours += len(encoded([routers], effort=1000).data)
    assert optimum <= ours <= optimum * 1.02


@given(classes, st.integers(0, 200))
def test_a_cut_keeps_the_limit_and_as_many_networks_as_the_order_given(groups, limit):
    """R5.5-i1, R3.1.1-3, R7-i2 [A53]."""
    sent = encoded(groups, limit)
    assert len(sent.data) <= limit
    given_data = build_advertisement(flat(groups), limit)[0]
    networks = sum(len(entry[2]) for entry in decoded(given_data)) if given_data else 0
    assert sent.networks >= networks
    got = decoded(sent.data) if sent.data else []
    assert sum(len(entry[2]) for entry in got) == sent.networks
    assert len(got) - sent.complete in (0, 1)
    place = 0
    for group in groups:
        for entry in got[place : place + len(group)]:
            assert any(
                entry[:2] == other[:2] and all(n in other[2] for n in entry[2]) for other in group
            )
        place += len(group)


def test_more_networks_fit_when_the_list_is_cut():
    """R7-i2."""
    routers = reference.address_plan(1000)
    given_data = build_advertisement(routers, 1100)[0]
    assert encoded([routers], 1100).networks > 1.1 * sum(len(r[2]) for r in decoded(given_data))


@pytest.mark.parametrize("realm_of_site", [True, False])
def test_a_realistic_plan_is_short_and_quickly_made(realm_of_site):
    """R4.1-i4, R7-i2: 1000 networks; the same routers give the same octets."""
    routers = reference.address_plan(1000, realm_of_site)
    started = time.process_time()
    data = plan.encode(plan.arrange([routers])).data
    assert time.process_time() - started < 5
    assert as_set(decoded(data)) == as_set(routers)
    assert len(data) < 0.97 * len(build_advertisement(routers)[0])
    assert len(data) < 0.5 * len(reference.uncompressed(routers))
    assert plan.encode(plan.arrange([routers])).data == data


def test_a_voluntary_master_is_declared_where_it_pays():
    """R4.1-i1, R5.5-4: the second prefix could be a delta, but then the third could not."""
    networks = [(bytes(p), plen, "") for p, plen in (((10, 0, 0, 0), 16), ((10, 0, 1, 0), 24))]
    networks.append((bytes((10, 0, 1, 128)), 26, ""))
    sent = plan.encode([(bytes(4), False, networks)])
    assert [s.delta for s in sent.structures[1:]] == [False, False, True]
    assert len(sent.data) == len(build_advertisement([(bytes(4), False, networks)])[0]) - 1


def test_the_figures_in_the_docs_are_those_of_the_code():
    """R4.1-i4: or `make advertise-bench` has to run again."""
    committed = bench.OUT.read_text().splitlines()
    rows = [*bench.sizes(), *bench.fits()]
    assert [line for line in rows if line not in committed] == []


# --- in the home agent -------------------------------------------------------------------------


def many(count):
    """Return a World of `count` registered routers, all of one priority."""

    def change(document):
        document["home_agent"]["home_addresses"] = ["172.16.0.0/16"]
        document["home_agent"]["advertisement_octets"] = 65000
        document["router"] = [
            {
                "name": f"R{n}",
                "home_address": f"172.16.{n // 256}.{n % 256}",
                # Even and odd ones lie far from each other, so the order of numbers is a bad one.
                "prefixes": [f"10.{n % 2}.{n}.0/24"],
                "realm": f"{'ab'[n % 2]}.example.com",
                "implicit": True,
            }
            for n in range(1, count + 1)
        ]

    def change_secrets(secrets):
        secrets["router"] = [
            {"name": f"R{n}", "spi": 256, "algorithm": "hmac-sha256", "key": KEY.hex()}
            for n in range(1, count + 1)
        ]

    world = World(config=build_config(change, change_secrets))
    for n in range(1, count + 1):
        hoa, coa = address(f"172.16.{n // 256}.{n % 256}"), address(f"198.51.{n // 256}.{n % 256}")
        assert world.register(hoa=hoa, coa=coa, capability={"request": False}).code == 0
    world.now += 1000
    return world


@pytest.mark.parametrize("count", [5, 40])
def test_the_home_agent_chooses_the_order_within_a_class(count):
    """R4.1-i4, R3.1.1-3: neighbours stand together, whatever their home addresses."""
    world = many(count)
    reply = world.register(hoa=address("172.16.0.1"), coa=COA_A, capability={})
    routers = advertised(reply)
    assert sorted(r[0] for r in routers) == [address(f"172.16.0.{n}") for n in range(2, count + 1)]
    second = [entry[2][0][0][1] for entry in routers]
    assert second in (sorted(second), sorted(second, reverse=True))
    data = reply.find(PrefixAdvertisement).data
    given_order = sorted(routers)
    assert len(data) < len(build_advertisement(given_order)[0])


def test_a_solicited_router_is_a_class_of_its_own():
    """R3.1-3: first, whatever that costs."""
    world = many(20)
    for n in (2, 3, 20):
        wanted = address(f"172.16.0.{n}")
        reply = world.register(
            hoa=address("172.16.0.1"), coa=COA_A, capability={"home_address": wanted}
        )
        assert advertised(reply)[0][0] == wanted
        world.now += 1000


@pytest.mark.parametrize("count", [5, 40])
def test_the_order_is_worked_out_once_for_the_same_bindings(count, monkeypatch):
    """R3.1.1-2: a renewal does no search, a router more or less is seen at once."""
    world = many(count)
    made = []
    encode = plan.encode
    monkeypatch.setattr(plan, "encode", lambda *args: made.append(1) or encode(*args))
    first = advertised(world.register(hoa=address("172.16.0.1"), coa=COA_A, capability={}))
    world.now += 1000
    assert advertised(world.register(hoa=address("172.16.0.1"), coa=COA_B, capability={})) == first
    assert len(made) == 1
    gone = address("172.16.0.2")
    assert world.register(hoa=gone, coa=address("198.51.0.2"), lifetime=0).code == 0
    world.now += 1000
    left = advertised(world.register(hoa=address("172.16.0.1"), coa=COA_B, capability={}))
    assert len(left) == count - 2 and len(made) == 2


def test_many_routers_are_ordered_once_for_the_configuration(monkeypatch):
    """R7-i2: coming back after an outage, one by one, they cost one search."""
    searched = []
    shortest = order.shortest
    monkeypatch.setattr(plan, "shortest", lambda *args: searched.append(1) or shortest(*args))
    world = many(40)
    for n in range(1, 41):
        reply = world.register(hoa=address(f"172.16.0.{n}"), coa=COA_A, capability={})
        assert len(advertised(reply)) == 39
        world.now += 1000
    assert len(searched) == 1


def test_the_reply_still_parses_with_the_largest_list():
    """R5.5-1: 249 routers, uncut."""
    world = many(250)
    data = world.request(hoa=address("172.16.0.1"), coa=COA_A, capability={})
    reply = message.parse(world.send(data)[0].payload)
    assert reply.bad == [] and len(advertised(reply)) == 249
