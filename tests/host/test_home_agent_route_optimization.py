"""RFC 6521 on the home agent's side: capability, reply, prefix advertisement, solicitation."""

import pytest

from haaro.wire import extensions, message
from haaro.wire.ipv4 import address
from tests.host.home_agent_helpers import (
    COA_A,
    COA_B,
    HOA_A,
    HOA_B,
    HOA_C,
    KEY,
    World,
    advertised,
    build_config,
)

NET_A, NET_B, NET_C = (address(f"10.{n}.0.0") for n in (1, 2, 3))


def ro_reply(reply):
    """Return the Route Optimization Reply or None."""
    return reply.find(extensions.RouteOptimizationReply)


def capability_octets(flags, home_address=b""):
    """Return a capability extension with `flags` as they come (Reserved included)."""
    return bytes([0x99, 2 + len(home_address), 1, flags]) + home_address


@pytest.fixture
def world():
    """Three registered routers, a second later."""
    world = World()
    world.register_all()
    world.now += 1000
    return world


@pytest.mark.parametrize("lifetime", [300, 0])
@pytest.mark.parametrize("flags", [0, 0x80, 0x40, 0xC0])
def test_every_success_with_the_capability_has_the_reply_extension(flags, lifetime):
    """R3.1.1-1, R3.1-i1, R5.2-1, R5.2-i2: assent with code 0."""
    world = World()
    world.register()
    world.now += 1000
    found = ro_reply(world.register(extra=capability_octets(flags), lifetime=lifetime))
    assert (found.code, found.accepted) == (0, True)


def test_without_the_capability_there_is_no_route_optimization():
    """R5.1-i1, R3-i3: nothing of RFC 6521 for a router that did not ask."""
    world = World()
    reply = world.register()
    assert ro_reply(reply) is None and advertised(reply) == []


def test_a_refused_registration_has_neither_reply_nor_advertisement(world):
    """R3.1.1-i2: authentication and authorisation first; a refusal tells nothing."""
    for changes in ({"networks": ["10.9.0.0/24"]}, {"identification": bytes(8)}):
        reply = world.register(capability={}, **changes)
        assert reply.code in (147, 133)
        assert ro_reply(reply) is None and advertised(reply) == []


def test_reserved_bits_are_ignored(world):
    """R5.1-2."""
    reply = world.register(extra=capability_octets(0xCF))
    found = ro_reply(reply)
    assert (found.outbound_only, found.solicited, found.code) == (False, False, 0)
    assert len(advertised(reply)) == 2


@pytest.mark.parametrize("nat", [False, True])
def test_n_tells_whether_the_source_differs_from_the_care_of_address(nat):
    """R3.1.1-i3, R5.2-i1: N by the comparison of RFC 3519."""
    world = World()
    source = address("203.0.113.77") if nat else COA_A
    assert ro_reply(world.register(capability={}, src=source)).nat is nat


@pytest.mark.parametrize("outbound_only", [False, True])
def test_o_is_reflected_in_the_reply_and_in_advertisements(outbound_only):
    """R5.1-i3, R5.5-i3, R5.2-i1: Info 1 for outbound connections only."""
    world = World()
    reply = world.register(networks=["10.1.0.0/24"], capability={"outbound_only": outbound_only})
    assert ro_reply(reply).outbound_only is outbound_only
    other = world.register(hoa=HOA_B, coa=COA_B, capability={})
    assert advertised(other) == [(HOA_A, outbound_only, [(NET_A, 24, "a.example")])]
    data = other.find(extensions.PrefixAdvertisement).data
    assert data[0] == (0x41 if outbound_only else 0x40)


def test_the_advertisement_lists_eligible_routers_with_their_prefixes_and_realms(world):
    """R3.1.1-2, R3.1.1-i4, R3-i1, R5.5-1: explicit and implicit prefixes, without the requester."""
    reply = world.register(capability={})
    assert advertised(reply) == [
        (HOA_B, False, [(NET_B, 24, "b.example")]),
        (HOA_C, False, [(NET_C, 24, "c.example")]),
    ]
    kinds = [type(e).__name__ for e in reply.extensions]
    assert kinds.count("PrefixAdvertisement") == 1


def test_the_advertisement_has_the_form_of_section_5_5(world):
    """R5.5-2, R5.5-3, R5.5-5, R5.5-6, R5.5-i2, R4.1-1: home address first, D=0 first, end marks."""
    data = world.register(capability={}).find(extensions.PrefixAdvertisement).data
    expected = bytes.fromhex(
        "40 c0000282"  # M, Info 0, B
        "18 0a0200 01 62 07 6578616d706c65 00"  # D=0, /24, b.example
        "40 c0000283"
        "18 0a0300 01 63 81 00"  # D=0: it differs above the octet of a delta
    )
    assert data == expected


def test_equal_prefix_bits_are_sent_as_a_delta():
    """R4.1-i2, R5.5-4, R3.1.1-i6: the second prefix of one router is one octet."""
    world = World()
    world.register(networks=["10.1.0.0/24", "10.1.1.0/24"], capability={})
    data = (
        world.register(hoa=HOA_B, coa=COA_B, capability={})
        .find(extensions.PrefixAdvertisement)
        .data
    )
    assert data == bytes.fromhex("40 c0000281 18 0a0100 01 61 07 6578616d706c65 00 98 01 82 00")


def test_prefixes_of_a_router_are_ordered_to_save_space():
    """R4.1-i4: whatever the order of registration, neighbours become deltas of one octet."""
    sizes = set()
    for order in ([0, 8, 1, 9, 2], [9, 0, 8, 2, 1], [0, 1, 2, 8, 9]):
        nets = [f"10.{n // 8 + 1}.{n % 8}.0/24" for n in order]

        def change(document, nets=nets):
            document["router"][0]["prefixes"] = nets
            document["router"][1]["prefixes"] = []

        world = World(change)
        world.register(networks=nets, capability={})
        reply = world.register(hoa=HOA_B, coa=COA_B, capability={})
        sizes.add(len(reply.find(extensions.PrefixAdvertisement).data))
        assert sorted(advertised(reply)[0][2]) == advertised(reply)[0][2]
    assert len(sizes) == 1


def test_only_with_r_is_there_an_advertisement(world):
    """R3.1.1-i1, R5.1-3, R5.5-i1."""
    reply = world.register(capability={"request": False})
    assert ro_reply(reply).accepted and advertised(reply) == []
    world.now += 1000
    reply = world.register(capability={"request": True})
    assert ro_reply(reply).accepted and advertised(reply) != []


def test_routers_without_a_are_not_advertised(world):
    """R3.1-2, R5.1-i2: A allows the home agent to advertise the router's networks."""
    world.register(hoa=HOA_B, coa=COA_B, networks=["10.2.0.0/24"], capability={"advertise": False})
    reply = world.register(capability={})
    assert [entry[0] for entry in advertised(reply)] == [HOA_C]
    assert (
        world.register(
            hoa=HOA_C, coa=address("203.0.113.10"), capability={"home_address": HOA_B}
        ).code
        == 0
    )
    world.now += 1000
    reply = world.register(capability={"home_address": HOA_B})
    assert HOA_B not in [entry[0] for entry in advertised(reply)]


def test_a_router_that_is_gone_is_not_advertised(world):
    """R3.1-i2: nothing is pushed, the next exchange tells; expiry and deregistration count."""
    world.register(hoa=HOA_B, coa=COA_B, lifetime=0)
    assert [e[0] for e in advertised(world.register(capability={}))] == [HOA_C]
    world.advance(299)
    assert [e[0] for e in advertised(world.register(capability={}))] == []


def test_a_host_only_router_is_advertised_without_prefixes():
    """R6.6-i1."""
    world = World()
    world.register(capability={})
    assert advertised(world.register(hoa=HOA_B, coa=COA_B, capability={})) == [(HOA_A, False, [])]


def test_the_order_is_the_configured_priority():
    """R3.1.1-3, R5.5-i1: lowest number first, whatever the order of registration."""

    def change(document):
        for router, priority in zip(document["router"], (30, 10, 20), strict=True):
            router["priority"] = priority
        document["router"].append({"name": "D", "home_address": "192.0.2.140"})

    def change_secrets(secrets):
        secrets["router"].append(
            {"name": "D", "spi": 256, "algorithm": "hmac-sha256", "key": KEY.hex()}
        )

    world = World(config=build_config(change, change_secrets))
    world.register_all()
    reply = world.register(hoa=address("192.0.2.140"), coa=address("203.0.113.50"), capability={})
    assert [entry[0] for entry in advertised(reply)] == [HOA_B, HOA_C, HOA_A]


def test_the_solicited_router_comes_first_and_s_is_mirrored(world):
    """R3.1-3, R5.2-i1: the entry asked for is included before all others."""
    reply = world.register(capability={"home_address": HOA_C})
    assert ro_reply(reply).solicited
    assert [entry[0] for entry in advertised(reply)] == [HOA_C, HOA_B]


@pytest.mark.parametrize("solicited", [HOA_A, address("192.0.2.200"), address("10.2.0.1")])
def test_soliciting_oneself_or_an_unknown_router_gives_the_ordinary_list(world, solicited):
    """R5.2-i1: S mirrored, nothing invented, the requester never listed."""
    reply = world.register(capability={"home_address": solicited})
    assert ro_reply(reply).solicited
    assert [entry[0] for entry in advertised(reply)] == [HOA_B, HOA_C]


def many_routers(count):
    """Return a World with `count` registered routers of one /24 and a shared realm each."""

    def change(document):
        document["home_agent"]["home_addresses"] = ["172.16.0.0/16"]
        document["router"] = [
            {
                "name": f"R{n}",
                "home_address": f"172.16.{n // 256}.{n % 256}",
                "prefixes": [f"10.{n // 256}.{n % 256}.0/24"],
                "realm": "branch.example.com",
                "priority": n,
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
    return world


def test_the_advertisement_is_cut_by_priority_to_the_configured_size():
    """R7-i2, R3.1.1-3 [A53]: at most 1200 octets of UDP payload, the best routers stay."""
    world = many_routers(300)
    world.now += 1000
    hoa = address("172.16.1.44")
    data = world.request(hoa=hoa, coa=COA_A, capability={})
    sent = world.send(data)[0].payload
    assert 1150 < len(sent) <= 1200
    reply = message.parse(sent)
    assert reply.bad == []
    listed = [entry[0] for entry in reply.find(extensions.PrefixAdvertisement).routers()]
    assert listed == [address(f"172.16.0.{n}") for n in range(1, len(listed) + 1)]
    assert len(listed) > 90


def test_the_solicited_router_survives_the_cut():
    """R3.3.3-13, R3.1-3: a solicitation is answered even by a long list."""
    world = many_routers(300)
    world.now += 1000
    wanted = address("172.16.1.43")
    data = world.request(hoa=address("172.16.0.1"), coa=COA_A, capability={"home_address": wanted})
    reply = message.parse(world.send(data)[0].payload)
    first = next(iter(reply.find(extensions.PrefixAdvertisement).routers()))
    assert first == (wanted, False, [(address("10.1.43.0"), 24, "branch.example.com")])


def test_a_default_route_of_a_gateway_can_be_advertised():
    """R3.1.1-i4: 0.0.0.0/0 for an Internet gateway, from implicit configuration."""
    world = World(lambda d: d["router"][2].update(prefixes=["0.0.0.0/0"]))
    world.register(hoa=HOA_C, coa=address("203.0.113.10"), capability={})
    assert advertised(world.register(capability={})) == [
        (HOA_C, False, [(bytes(4), 0, "c.example")])
    ]
