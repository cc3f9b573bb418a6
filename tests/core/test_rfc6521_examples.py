"""The three example flows of RFC 6521 section 8, each with order, path and state at all routers."""

from haaro.wire import extensions, ipv4, message
from tests.core.helpers import (
    COA_A,
    COA_C,
    COA_C2,
    HOA_A,
    HOA_C,
    HOST_A,
    LAN_A,
    LAN_B,
    LAN_C,
    Triangle,
)
from tests.core.network import HOME_AGENT

OUTSIDE, IN_HA_TUNNEL, DIRECT = "outside", "in the HA tunnel", "direct"


def steps(net, since, *kinds):
    """(kind, outer source, outer destination, way) of what left a router or the home agent."""
    out = []
    for d in net.since(since, *kinds):
        way = OUTSIDE
        if d.inner is not None:
            way = IN_HA_TUNNEL if HOME_AGENT in (d.src, d.dst) else DIRECT
        out.append((d.kind, d.src, d.dst, way))
    return out


def networks(node):
    return [
        (n["prefix"], n["prefix_valid"])
        for p in node.router.status(node.network.now)["peers"]
        for n in p["networks"]
    ]


def test_example_8_1_each_router_learns_of_those_registered_before_it():
    """RFC 6521 8.1. R8-i1 R3.1-1 R3.1-2 R3.1.1-i1 R3.1.1-4 R3.1.1-5 R3.1.1-7 R3.1.2-i2
    R3.1.2-i10"""
    world = Triangle(register=False)
    for node, expected in (
        (world.a, []),
        (world.b, [("192.0.2.129/32", True), ("10.1.0.0/24", True)]),
        (
            world.c,
            [
                ("192.0.2.129/32", True),
                ("10.1.0.0/24", True),
                ("192.0.2.130/32", True),
                ("10.2.0.0/24", True),
            ],
        ),
    ):
        start = world.net.now
        coa = world.coas[node]
        node.attach(0, coa)
        world.net.run(1500)
        assert steps(world.net, start) == [
            ("request", coa, HOME_AGENT, OUTSIDE),
            ("reply", HOME_AGENT, coa, OUTSIDE),
        ]
        request, reply = (d.signalling for d in world.net.since(start))
        capability = request.find(extensions.RouteOptimizationCapability)
        assert (capability.advertise, capability.request, capability.solicit) == (True, True, False)
        assert request.flags == 0x22
        assert reply.find(extensions.RouteOptimizationReply).accepted
        assert networks(node) == expected
        assert node.router.status(world.net.now)["registration"]["registered"]
        assert all(p["rrstate"] == "INACTIVE" for p in node.router.status(0)["peers"])
        assert all(route[2] == 0 for route in node.routes if route[2] >= 0)
    advertised = reply.find(extensions.PrefixAdvertisement)
    assert [(r[0], [n[:2] for n in r[2]]) for r in advertised.routers()] == [
        (HOA_A, [LAN_A]),
        (world.b.hoa, [LAN_B]),
    ]
    assert len(advertised.data) < 2 * (5 + 5 + 12)  # network B in compressed form


def test_example_8_2_traffic_from_c_to_a_finds_the_direct_path():
    """RFC 6521 8.2. R8-i1 R3-i2 R3.1-3 R3.2-4 R3.2-i2 R3.2-i3 R3.2-i6 R3.3.1-1 R3.3.3-1 R3.3.3-2
    R3.3.3-3 R3.3.3-13 R3.3.3-20 R3.3.3-24 R3.3.4-2 R3.3.4-i1 R3.3-1 R6.5-i1"""
    world = Triangle()
    net, a, b, c = world.net, world.a, world.b, world.c
    b_before = b.router.status(net.now)["peers"]
    start = net.now
    assert world.send(a, c) == 0
    net.run(1000)
    assert steps(net, start, "hoti", "coti", "request") == []  # A does not know network C
    start = net.now
    assert world.send(c, a) == 0  # the packet itself goes by the home agent
    net.run_until(lambda: world.both_direct(a, c))
    flow = steps(net, start, "hoti", "coti", "hot", "cot", "request", "reply", "keepalive")
    expected = [
        # return routability of C with A
        ("hoti", COA_C, HOME_AGENT, IN_HA_TUNNEL),
        ("coti", COA_C, HOA_A, OUTSIDE),
        ("hoti", HOME_AGENT, COA_A, IN_HA_TUNNEL),
        ("coti", HOME_AGENT, COA_A, IN_HA_TUNNEL),
        ("hot", COA_A, HOME_AGENT, IN_HA_TUNNEL),
        ("cot", COA_A, HOME_AGENT, IN_HA_TUNNEL),
        ("hot", HOME_AGENT, COA_C, IN_HA_TUNNEL),
        ("cot", HOA_A, COA_C, OUTSIDE),
        # registration of C with A, and A asks the home agent about C
        ("request", COA_C, HOA_A, OUTSIDE),
        ("request", HOME_AGENT, COA_A, IN_HA_TUNNEL),
        ("request", COA_A, HOME_AGENT, OUTSIDE),
        ("reply", HOME_AGENT, COA_A, OUTSIDE),
        ("reply", COA_A, HOME_AGENT, IN_HA_TUNNEL),
    ]
    assert flow[: len(expected)] == expected
    rest = flow[len(expected) :]
    for step in (
        ("reply", HOA_A, COA_C, OUTSIDE),
        # mutual registration of A with C
        ("hoti", COA_A, HOME_AGENT, IN_HA_TUNNEL),
        ("coti", COA_A, HOA_C, OUTSIDE),
        ("request", COA_A, HOA_C, OUTSIDE),
        # the first keepalive comes from C
        ("keepalive", COA_C, COA_A, DIRECT),
        ("keepalive", COA_A, COA_C, DIRECT),
    ):
        assert step in rest
    assert rest.index(("keepalive", COA_C, COA_A, DIRECT)) < rest.index(
        ("keepalive", COA_A, COA_C, DIRECT)
    )
    solicitation = next(d for d in net.since(start, "request") if d.dst == HOME_AGENT).signalling
    capability = solicitation.find(extensions.RouteOptimizationCapability)
    assert (capability.solicit, capability.home_address) == (True, HOA_C)
    reply = next(d for d in net.since(start, "reply") if d.src == HOA_A).signalling
    assert reply.find(extensions.CareOfAddresses).addresses == [COA_A]
    assert (reply.code, [k.code for k in reply.all(extensions.MobileNetworkAck)]) == (0, [0])
    net.run(100)
    for node, other in ((a, c), (c, a)):
        peer = node.peer(other)
        assert (peer["rrstate"], peer["path"]) == ("ACTIVE", "direct")
        assert (peer["registered"], peer["registered_with_us"]) == (True, True)
        assert (peer["tunnel"]["up"], peer["tunnel"]["remote"]) == (
            True,
            ipv4.text(world.coas[other]),
        )
    assert b.router.status(net.now)["peers"] == b_before
    start = net.now
    assert world.send(c, a) == world.send(a, c) == 1
    net.run(20)
    assert steps(net, start, "user") == [
        ("user", COA_C, COA_A, DIRECT),
        ("user", COA_A, COA_C, DIRECT),
    ]
    assert [t for _, t, _ in a.delivered[-1:] + c.delivered[-1:]] == [1, 1]
    assert not any(n.router.counters.as_dict() for n in (a, b, c))


def test_example_8_3_handover_of_c_by_partial_return_routability():
    """RFC 6521 8.3. R8-i1 R3.2-6 R3.3.6-7 R3.3.6-8 R3.3.6-i2 R3.1.2-i4 R3.3.3-19"""
    world = Triangle()
    net, a, b, c = world.net, world.a, world.b, world.c
    world.make_direct(c, a)
    net.run(3000)
    world.send(a, c)
    old = c.router.tunnels.get(1).id
    c.detach(0)
    assert all(route[2] != old for route in c.routes)  # C clears its routes
    net.run(500)
    start = net.now
    c.attach(0, COA_C2)
    assert world.send(c, a) is None  # not registered from here yet
    net.run_until(lambda: c.router.status(net.now)["registration"]["tunnel"]["up"])
    assert world.send(c, a) == 0  # traffic from C to A by the home agent
    net.run_until(lambda: world.both_direct(a, c))
    order = steps(net, start, "hoti", "coti", "cot", "request", "reply", "keepalive")
    wanted = [
        ("request", COA_C2, HOME_AGENT, OUTSIDE),
        ("reply", HOME_AGENT, COA_C2, OUTSIDE),
        ("coti", COA_C2, HOA_A, OUTSIDE),
        ("coti", HOME_AGENT, COA_A, IN_HA_TUNNEL),
        ("cot", COA_A, HOME_AGENT, IN_HA_TUNNEL),
        ("cot", HOA_A, COA_C2, OUTSIDE),
        ("request", COA_C2, HOA_A, OUTSIDE),
        ("request", HOME_AGENT, COA_A, IN_HA_TUNNEL),
        ("reply", COA_A, HOME_AGENT, IN_HA_TUNNEL),
        ("reply", HOA_A, COA_C2, OUTSIDE),
        ("keepalive", COA_C2, COA_A, DIRECT),
        ("keepalive", COA_A, COA_C2, DIRECT),
    ]
    places = [order.index(step) for step in wanted]
    assert places == sorted(places)
    assert "hoti" not in [step[0] for step in order]  # the home token is reused
    assert a.router.tunnels.get(1).remote == COA_C2
    assert a.peer(c)["tunnel"]["id"] == c.peer(a)["tunnel"]["id"] == 1
    assert world.send(c, a) == world.send(a, c) == 1
    net.run(20)
    assert c.delivered[-1][1] == a.delivered[-1][1] == 1
    assert b.router.status(net.now)["peers"][0]["rrstate"] == "INACTIVE"
    assert net.now - start < 5000
    assert message.parse(net.since(start, "request")[0].payload).care_of_address == COA_C2
    assert world.hosts[a] == HOST_A
    assert LAN_C in [r[:2] for r in a.routes if r[2] == 1]
