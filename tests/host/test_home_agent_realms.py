"""Realms as routing domains: the same private networks twice, and never a packet across."""

import pytest

from haaro.wire import ipv4
from haaro_host.home_agent.config import ConfigError
from tests.host.home_agent_helpers import (
    COA_A,
    COA_B,
    COA_C,
    HOA_A,
    HOA_B,
    HOA_C,
    World,
    advertised,
    build_config,
)

HOST_A1, HOST_B1 = ipv4.address("10.1.0.10"), ipv4.address("10.2.0.10")
HOST_HOME = ipv4.address("10.0.0.5")
COA_D, HOA_D = ipv4.address("203.0.113.74"), ipv4.address("192.0.2.132")
SECRET = {"name": "D", "spi": 256, "algorithm": "hmac-sha256", "key": "40" * 32}


def two_realms(document):
    """A and B are Red's, C and D are Blue's; A and C have the same network, and B and D."""
    document["home_agent"]["overlap"] = "separate"
    for router, realm, net in zip(
        document["router"], ("red.example", "RED.example", "blue.example"), (1, 2, 1), strict=True
    ):
        router["realm"] = realm
        router["prefixes"] = [f"10.{net}.0.0/24"]
        router["implicit"] = True
    document["router"].append(
        {
            "name": "D",
            "home_address": "192.0.2.132",
            "prefixes": ["10.2.0.0/24"],
            "realm": "blue.example",
            "implicit": True,
        }
    )


def world(change=lambda document: None):
    def both(document):
        two_realms(document)
        change(document)

    def key(secrets):
        secrets["router"].append({**SECRET, "key": secrets["router"][0]["key"]})

    made = World(config=build_config(both, key))
    for hoa, coa in ((HOA_A, COA_A), (HOA_B, COA_B), (HOA_C, COA_C), (HOA_D, COA_D)):
        assert made.register(hoa=hoa, coa=coa, capability={}).code == 0
    return made


def packet(src, dst):
    return bytes(ipv4.build_udp(src, dst, 5000, 5001, b"x"))


def test_equal_networks_of_two_realms_are_forwarded_within_each():
    """R3.1.1-i5: by the realm of the router the packet came from."""
    made = world()
    for source, target in ((COA_A, COA_B), (COA_C, COA_D)):
        for inner in (packet(HOST_A1, HOST_B1), packet(HOST_B1, HOST_A1)):
            outer = source if inner[12:16] == HOST_A1 else target
            (sent,) = made.tunnel(inner, outer)
            assert sent.dst == (target if outer == source else source)


def test_fast_path_decides_as_the_slow_one():
    made = world()
    bindings = made.ha.bindings
    for source, target in ((HOA_A, HOA_B), (HOA_C, HOA_D)):
        inner = packet(HOST_A1, HOST_B1)
        assert made.ha.flow(inner, bindings[source]) == ("tunnel", bindings[target])


def test_network_that_only_the_other_realm_has_is_not_reached():
    def more(document):
        document["router"][3]["prefixes"].append("10.9.0.0/24")

    made = world(more)
    only_blue = ipv4.address("10.9.0.1")
    assert made.tunnel(packet(HOST_A1, only_blue), COA_A) == []
    assert made.ha.counters["other_realm"] == 1
    assert len(made.tunnel(packet(HOST_A1, only_blue), COA_C)) == 1


def test_home_addresses_are_common_to_all():
    made = world()
    (sent,) = made.tunnel(packet(HOA_A, HOA_C), COA_A)
    assert sent.dst == COA_C


@pytest.mark.parametrize(("realm", "target"), [("red.example", COA_A), ("Blue.example", COA_C)])
def test_home_network_reaches_the_home_realm(realm, target):
    made = world(lambda document: document["home_agent"].update(home_realm=realm))
    (sent,) = made.from_outside(packet(HOST_HOME, HOST_A1))
    assert sent.dst == target


def test_without_a_home_realm_the_home_network_reaches_nobody_of_a_realm():
    made = world()
    assert made.from_outside(packet(HOST_HOME, HOST_A1)) == []
    assert made.ha.counters["not_mobile"] == 1


def test_outside_cannot_use_the_address_of_any_realm():
    made = world(lambda document: document["home_agent"].update(forward_outside=True))
    made.from_outside(packet(HOST_A1, HOA_B))
    assert made.ha.counters["outside_source"] == 1


def test_gateway_is_its_realms_own():
    """R3.1.1-i4"""

    def gateways(document):
        for number in (1, 3):
            document["router"][number]["prefixes"].append("0.0.0.0/0")
        document["router"][3]["prefixes"].append("10.9.0.0/24")

    made = world(gateways)
    assert made.tunnel(packet(HOST_A1, ipv4.address("10.9.0.1")), COA_A) == []
    anywhere = ipv4.address("8.8.8.8")
    for source, target in ((COA_A, COA_B), (COA_C, COA_D)):
        (sent,) = made.tunnel(packet(HOST_A1, anywhere), source)
        assert sent.dst == target


def test_only_routers_of_the_own_realm_are_advertised():
    """R3.1.1-i5"""
    made = world()
    made.now += 2000
    for hoa, coa, peer in ((HOA_A, COA_A, HOA_B), (HOA_C, COA_C, HOA_D)):
        listed = advertised(made.register(hoa=hoa, coa=coa, capability={}))
        assert [router[0] for router in listed] == [peer]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["home_agent"].pop("overlap"), "does not overlap router[0].prefixes[0]"),
        (lambda d: d["router"][2].update(realm="Red.Example"), "does not overlap router[0]"),
        (
            lambda d: d["router"][2].update(prefixes=["10.0.0.0/25"]),
            "does not overlap home_agent.home_networks[0]",
        ),
        (lambda d: d["home_agent"].update(overlap="ignore"), '"error" or "separate"'),
        (lambda d: d["home_agent"].update(home_realm="a b"), "home_agent.home_realm"),
    ],
)
def test_overlaps_that_stay_errors(change, said):
    def both(document):
        two_realms(document)
        change(document)

    with pytest.raises(ConfigError) as refused:
        build_config(both, lambda secrets: secrets["router"].append(SECRET))
    assert said in str(refused.value)
