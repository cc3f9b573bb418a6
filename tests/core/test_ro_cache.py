"""Route Optimization Cache and the route table that is made of it."""

import pytest

from haaro.wire import ipv4
from tests.core.helpers import (
    COA_A,
    COA_C,
    HOA_A,
    HOA_B,
    HOA_C,
    LAN_A,
    LAN_B,
    LAN_C,
    Lone,
    ScriptedPeer,
    Triangle,
)

DEFAULT = (bytes(4), 0)


def many(count, plen=24):
    return [
        (ipv4.address(f"192.0.2.{150 + n}"), False, [(ipv4.address(f"10.{n + 20}.0.0"), plen, "")])
        for n in range(count)
    ]


def readvertise(lone, routers):
    lone.run(1000)
    lone.router.registration.refresh(lone.now)
    lone.answer_home(lone.run(0), routers)


def hoas(lone):
    return [p["cr_hoa"] for p in lone.router.status(lone.now)["peers"]]


def test_record_has_every_field_of_the_rfc():
    """R3.1.2-i1 R3.1.2-i2 R3.1.2-i7"""
    record = Lone().registered().router.cache.get(HOA_C)
    assert record.cr_hoa == HOA_C
    assert (record.cr_coas, record.mr_coa, record.nat_states) == ([], b"", {})
    assert record.rr_state(COA_A) == "INACTIVE"
    assert record.krms == []
    assert (record.care_of_nonce_indices, record.care_of_keygen_tokens) == ({}, {})
    assert (record.home_nonce_index, record.home_keygen_token) == (0, b"")
    assert [(p.prefix, p.plen, p.realm, p.prefix_valid) for p in record.prefixes] == [
        (HOA_C, 32, "", True),
        (*LAN_C, "", True),
    ]


def test_realms_are_kept_and_shown():
    """R3.1.1-i5"""
    lone = Lone().registered([(HOA_C, False, [(*LAN_C, "c.example")])])
    assert [n["realm"] for n in lone.peer_status()["networks"]] == ["", "c.example"]


def test_tail_beyond_the_capacity_is_dropped():
    """R3.1.1-6 R7-i1"""
    lone = Lone(cache_capacity=3).registered(many(5))
    assert hoas(lone) == ["192.0.2.150", "192.0.2.151", "192.0.2.152"]
    assert lone.counter("cache_full") == 2
    routes = lone.router.forwarding_table()[0]
    assert sorted(r[3] for r in routes if r[3] >= 0) == [0, 0, 1, 1, 2, 2]
    assert (*DEFAULT, 0, -1) in routes


def test_prefixes_beyond_the_bound_of_one_router_are_dropped():
    networks = [(ipv4.address(f"10.30.{n}.0"), 24, "") for n in range(40)]
    lone = Lone().registered([(HOA_C, False, networks)])
    assert len(lone.peer_status()["networks"]) == 32
    assert lone.counter("cache_prefixes_full") == 1


def test_a_router_whose_networks_do_not_fit_is_left_out_whole():
    """The heap is bounded by networks too; smaller routers behind it still find room."""

    def router(n, networks):
        rows = [(ipv4.address(f"10.{n}.{i}.0"), 24, "") for i in range(networks)]
        return ipv4.address(f"192.0.2.{n}"), False, rows

    lone = Lone(cache_prefixes=6).registered([router(150, 4), router(151, 3), router(152, 2)])
    assert hoas(lone) == ["192.0.2.150", "192.0.2.152"]
    assert lone.counter("cache_full") == 1
    assert len(lone.peer_status(ipv4.address("192.0.2.152"))["networks"]) == 3


def test_all_advertised_are_used_if_they_fit():
    """R3.1.1-7 R3.1.1-4 R3.1.1-5"""
    lone = Lone().registered(many(60))
    assert len(hoas(lone)) == 60
    assert len([r for r in lone.router.forwarding_table()[0] if r[3] >= 0]) == 120


def test_own_address_is_skipped_and_a_router_listed_twice_is_merged():
    """A51: merge, skip self."""
    other = (ipv4.address("10.7.0.0"), 24, "")
    lone = Lone().registered(
        [
            (HOA_A, False, [(*LAN_A, "")]),
            (HOA_C, False, [(*LAN_C, "")]),
            (HOA_C, False, [other, (*LAN_C, "")]),
        ]
    )
    assert hoas(lone) == [ipv4.text(HOA_C)]
    assert [n["prefix"] for n in lone.peer_status()["networks"]] == [
        "192.0.2.131/32",
        "10.3.0.0/24",
        "10.7.0.0/24",
    ]


def test_prefix_of_two_routers_goes_to_the_first_listed():
    """A51"""
    lone = Lone().registered([(HOA_C, False, [(*LAN_C, "")]), (HOA_B, False, [(*LAN_C, "")])])
    hint = lone.router.cache.get(HOA_C).hint
    assert [r for r in lone.router.forwarding_table()[0] if r[:2] == LAN_C] == [(*LAN_C, 0, hint)]


def test_advertised_prefix_inside_our_own_is_an_error_and_no_route():
    """R3.3.2-5"""
    inside = (ipv4.address("10.1.0.128"), 25)
    around = (ipv4.address("10.0.0.0"), 8)
    lone = Lone().registered([(HOA_C, False, [(*LAN_A, ""), (*inside, ""), (*around, "")])])
    routes = lone.router.forwarding_table()[0]
    assert [r for r in routes if r[:2] == LAN_A] == [(*LAN_A, -1, -1)]
    assert not {inside, around} & {r[:2] for r in routes}
    assert lone.counter("advertised_prefix_overlaps") == 1
    assert [n["obstacle"] for n in lone.peer_status()["networks"]] == [
        None,
        "overlaps our own 10.1.0.0/24",
        "overlaps our own 10.1.0.0/24",
        "overlaps our own 10.1.0.0/24",
    ]
    warnings = [e[2] for e in lone.events if e[0] == "log" and e[1] == "warning"]
    assert (
        "10.1.0.128/25 of 192.0.2.131 overlaps our own 10.1.0.0/24; it gets no direct path"
        in warnings
    )
    readvertise(lone, [(HOA_C, False, [(*LAN_A, ""), (*inside, ""), (*around, "")])])
    assert [e[2] for e in lone.events if e[0] == "log" and e[1] == "warning"] == warnings


def test_private_space_of_two_routers_is_an_error():
    """R3.3.2-5: equal, the first listed has it; nested, the wider one goes by the home agent."""
    wide, narrow = (ipv4.address("10.8.0.0"), 16), (ipv4.address("10.8.3.0"), 24)
    other = (ipv4.address("172.16.0.0"), 12)
    lone = Lone().registered(
        [
            (HOA_B, False, [(*wide, ""), (*LAN_C, ""), (*other, "")]),
            (HOA_C, False, [(*narrow, ""), (*LAN_C, "")]),
        ]
    )
    routes = {r[:2]: r[3] for r in lone.router.forwarding_table()[0]}
    hints = {hoa: lone.router.cache.get(hoa).hint for hoa in (HOA_B, HOA_C)}
    assert wide not in routes
    assert (routes[narrow], routes[LAN_C], routes[other]) == (
        hints[HOA_C],
        hints[HOA_B],
        hints[HOA_B],
    )
    assert lone.peer_status(HOA_B)["networks"][1]["obstacle"] == (
        "overlaps another router's 10.8.3.0/24"
    )
    readvertise(lone, [(HOA_B, False, [(*wide, "")])])
    assert wide in [r[:2] for r in lone.router.forwarding_table()[0]]


def test_prefixes_of_another_realm_are_no_routes_when_realms_are_routing_domains():
    """R3.1.1-i5: of the same private space, ours is the one of our realm, whatever the order."""
    lone = Lone(realm="Acme.example", separate_realms=True).registered(
        [
            (HOA_B, False, [(*LAN_C, "other.example")]),
            (HOA_C, False, [(*LAN_C, "acme.example")]),
        ]
    )
    routes = {r[:2]: r[3] for r in lone.router.forwarding_table()[0]}
    assert routes[LAN_C] == lone.router.cache.get(HOA_C).hint
    assert (HOA_B, 32) in routes
    assert [n["prefix_valid"] for n in lone.peer_status(HOA_B)["networks"]] == [True, False]
    assert "another realm" in lone.peer_status(HOA_B)["networks"][1]["obstacle"]


def test_static_entry_is_there_before_the_home_agent_and_never_evicted():
    """R3.1.2-i3: with its networks, which no advertisement takes away; others take what is left."""
    extra = (ipv4.address("10.9.0.0"), 24)
    lone = Lone(static_peers={HOA_C: [(*LAN_C, "c")]}, cache_capacity=2)
    assert lone.peer_status()["static"]
    assert [n["prefix"] for n in lone.peer_status()["networks"]] == [
        "192.0.2.131/32",
        "10.3.0.0/24",
    ]
    lone.registered(many(5))
    assert set(hoas(lone)) == {"192.0.2.131", "192.0.2.150"}
    readvertise(lone, [(HOA_C, False, [(*extra, "")])])
    assert [n["prefix"] for n in lone.peer_status()["networks"]][1:] == [
        "10.3.0.0/24",
        "10.9.0.0/24",
    ]
    readvertise(lone, [])
    assert hoas(lone) == ["192.0.2.131"]
    assert [n["prefix"] for n in lone.peer_status()["networks"]][1:] == ["10.3.0.0/24"]


def test_static_entry_reaches_a_direct_path_though_the_home_agent_lists_nobody():
    """R3.1.2-i3 R3.1.2-i10: its claim of a configured network needs no word of the home agent."""
    lone = Lone(static_peers={HOA_C: [(*LAN_C, "")]}).registered([])
    peer = ScriptedPeer(lone).test()
    assert peer.reply_in(peer.register())[1].code == 0
    assert lone.router.cache.get(HOA_C).binding.networks == [LAN_C]


def test_better_router_takes_the_place_of_the_tail():
    """R3.1.1-6: what is dropped is the end of the list, also when that was known before."""
    lone = Lone(cache_capacity=2).registered([(HOA_B, False, []), (HOA_C, False, [])])
    readvertise(lone, [*many(1), (HOA_B, False, []), (HOA_C, False, [])])
    assert hoas(lone) == ["192.0.2.150", "192.0.2.130"]


def test_better_router_does_not_displace_one_with_a_tunnel():
    """R3.1.2-1"""
    lone = Lone(cache_capacity=1).registered()
    ScriptedPeer(lone).establish()
    readvertise(lone, [*many(1), (HOA_C, False, [(*LAN_C, "")])])
    assert hoas(lone) == [ipv4.text(HOA_C)]


def test_overlapping_prefixes_are_separate_routes_for_the_longest_match():
    """R3.3.2-i1: public ones, as in the example of 3.3.2."""
    wide = (ipv4.address("203.0.113.0"), 24)
    narrow = (ipv4.address("203.0.113.128"), 29)
    lone = Lone().registered([(HOA_C, False, [(*wide, "")]), (HOA_B, False, [(*narrow, "")])])
    routes = {r[:2]: r[3] for r in lone.router.forwarding_table()[0]}
    assert routes[wide] == lone.router.cache.get(HOA_C).hint
    assert routes[narrow] == lone.router.cache.get(HOA_B).hint


def test_advertised_default_route_is_a_target_for_optimisation():
    """R3.1.1-i4"""
    lone = Lone().registered([(HOA_C, False, [(*DEFAULT, "")])])
    routes = [r for r in lone.router.forwarding_table()[0] if r[:2] == DEFAULT]
    assert routes == [(*DEFAULT, 0, lone.router.cache.get(HOA_C).hint)]


def test_router_no_longer_listed_goes_unless_a_tunnel_protects_it():
    """R3.1.2-1 R3.1.2-2"""
    lone = Lone().registered([(HOA_B, False, []), (HOA_C, False, [(*LAN_C, "")])])
    ScriptedPeer(lone).establish()
    assert lone.router.tunnels.of_peer(HOA_C) is not None
    readvertise(lone, [])
    assert hoas(lone) == [ipv4.text(HOA_C)]
    assert lone.peer_status()["rrstate"] == "ACTIVE"
    assert [n["prefix"] for n in lone.peer_status()["networks"]][1:] == ["10.3.0.0/24"]


def test_router_without_tunnel_is_evicted_even_while_rr_is_in_progress():
    """R3.1.2-1: the protection is for records with a tunnel."""
    lone = Lone().registered()
    lone.router.traffic_wanted(lone.now, 0)
    assert lone.peer_status()["rrstate"] == "IN PROGRESS"
    readvertise(lone, [(HOA_B, False, [])])
    assert hoas(lone) == [ipv4.text(HOA_B)]
    assert not [i for i in lone.run(60_000) if i.payload[0] == 25]  # and its timers with it


def test_prefixes_follow_the_newest_advertisement():
    lone = Lone().registered()
    readvertise(lone, [(HOA_C, False, [(*LAN_B, "")])])
    assert [n["prefix"] for n in lone.peer_status()["networks"]][1:] == ["10.2.0.0/24"]
    assert LAN_C not in [r[:2] for r in lone.router.forwarding_table()[0]]


def test_order_of_the_advertisement_is_the_priority():
    lone = Lone().registered([(HOA_C, False, []), (HOA_B, False, [])])
    assert hoas(lone) == ["192.0.2.131", "192.0.2.130"]
    readvertise(lone, [(HOA_B, False, []), (HOA_C, False, [])])
    assert hoas(lone) == ["192.0.2.130", "192.0.2.131"]


def test_static_krm_is_part_of_the_cache_and_permanently_active():
    """R3.1.2-i3 R3.1.2-i8 R3.2-i1"""
    lone = Lone(static_krm={HOA_C: [b"k" * 20]}).registered([])
    assert lone.peer_status()["rrstate"] == "ACTIVE"
    assert lone.peer_status()["static_krm"]
    assert "kkkk" not in str(lone.router.status(lone.now))


def test_at_most_two_of_our_addresses_are_kept_for_a_correspondent():
    """R3.1.2-i4"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    for n in range(5):
        world.c.attach(0, ipv4.address(f"203.0.113.{50 + n}"))
        world.net.run(1500)
        world.make_direct(world.c, world.a)
    record = world.c.router.cache.get(HOA_A)
    newest = {ipv4.address("203.0.113.54"), ipv4.address("203.0.113.53")}
    assert set(record.rr_states) == newest
    for table in (
        record.care_of_nonce_indices,
        record.care_of_keygen_tokens,
        record.care_of_token_at,
    ):
        assert set(table) <= newest


def test_outbound_only_is_noted_and_sets_the_nat_states_false():
    """R3.1.2-i6 R3.1.2-i5"""
    lone = Lone().registered([(HOA_C, True, [(*LAN_C, "")])])
    assert lone.peer_status()["outbound_only"]
    ScriptedPeer(lone).establish()
    assert lone.router.cache.get(HOA_C).nat_states == {(COA_A, COA_C): False}


def test_two_routers_that_only_open_outward_are_not_tried():
    """R3.3.4-i5"""
    lone = Lone(outbound_only=True).registered([(HOA_C, True, [(*LAN_C, "")])])
    lone.router.traffic_wanted(lone.now, 0)
    assert lone.drain() == []
    assert lone.peer_status()["reason"] == "both routers can only open outgoing connections"


def test_nat_between_us_and_the_home_agent_is_noted():
    """R5.2-i1 R3.1.2-i5"""
    lone = Lone().registered(nat=True)
    assert lone.router.status(lone.now)["registration"]["nat"]
    ScriptedPeer(lone).establish()
    assert lone.router.cache.get(HOA_C).nat_states == {(COA_A, COA_C): True}


@pytest.mark.parametrize("hint", [1, 64, -1, 10_000])
def test_unknown_hint_does_nothing(hint):
    lone = Lone().registered()
    lone.router.traffic_wanted(lone.now, hint)
    assert lone.drain() == []


def test_small_deployment_of_host_routes_only():
    """R6.6-i1: the home agent may list home addresses without prefixes."""
    lone = Lone().registered([(HOA_C, False, [])])
    peer = ScriptedPeer(lone)
    lone.router.traffic_wanted(lone.now, 0)
    items = peer.accept(peer.answer_tests(lone.drain()))
    peer.answer_echo(items + lone.run(0))
    lone.run(2500)
    peer.answer_echo([i for _, i in lone.sent[-2:]])
    assert (HOA_C, 32, 1, -1) in lone.router.forwarding_table()[0]


def test_an_advertisement_heard_before_is_not_read_again_unless_something_came_or_went():
    """R3.1.2-i4: a router that was solicited meanwhile stays as long as it is protected."""
    lone = Lone(mutual_registration=False).registered(many(3))
    before = hoas(lone)
    record = lone.router.cache.get(many(1)[0][0])
    kept = record.prefixes
    record.prefixes = []  # what reading the list would mend
    readvertise(lone, many(3))
    assert (hoas(lone), record.prefixes) == (before, [])
    record.prefixes = kept
    table = lone.router.forwarding_table()
    peer = ScriptedPeer(lone).test()
    lone.run(1000)
    peer.register(lifetime=60)
    lone.answer_home(lone.run(0), [(HOA_C, False, [(*LAN_C, "")])])
    assert lone.router.cache.get(HOA_C).binding is not None
    readvertise(lone, many(3))
    assert set(hoas(lone)) == {*before, ipv4.text(HOA_C)}
    lone.run(70_000)
    readvertise(lone, many(3))
    assert hoas(lone) == before
    assert lone.router.forwarding_table() == table
    for routers in (many(4), many(3), many(2), many(3)):
        readvertise(lone, routers)
        assert hoas(lone) == [ipv4.text(router[0]) for router in routers]
