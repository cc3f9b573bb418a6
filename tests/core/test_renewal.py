"""Ten minutes and more: tokens and bindings are renewed, the direct path stays."""

import pytest

from haaro.wire import ipv4
from tests.core.helpers import COA_A, COA_C, HOA_A, HOA_C, Triangle
from tests.core.network import HOME_AGENT


def test_ten_minutes_of_traffic_renew_tokens_without_interruption():
    """A30 R3.2.3-i1 R3.2-4 R3.3.6-i3 R3.2-i2: and signalling keeps to its path."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(100)
    start = world.net.now
    ages = []
    for _ in range(3):
        sent, arrived = world.traffic(world.a, world.c, 240_000, step_ms=250)
        assert arrived == {world.a: sent, world.c: sent}
        ages.append(world.c.peer(world.a)["home_token_left_s"])
    assert all(age > 30 for age in ages)
    users = world.net.since(start, "user")
    assert users
    assert all({d.src, d.dst} == {COA_A, COA_C} for d in users)  # not one by the home agent
    hoti = [d for d in world.net.since(start, "hoti") if d.src in (COA_A, COA_C)]
    assert len(hoti) >= 2 * 3  # at least three renewals of each router
    for d in world.net.since(start, "hoti", "hot", "coti", "cot", "request", "reply"):
        by_direct_tunnel = d.inner is not None and HOME_AGENT not in (d.src, d.dst)
        assert not by_direct_tunnel
        if d.kind in ("hoti", "hot"):
            assert d.inner is not None
        if d.kind in ("coti", "request") and d.inner is None:
            assert d.src in (COA_A, COA_C, world.coas[world.b])
    for node in (world.a, world.c):
        assert not node.router.counters.as_dict()
        assert [line for line in node.log if "silent" in line] == []


def test_every_request_to_a_peer_uses_tokens_younger_than_210_seconds():
    """A30 R9-i1"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    start = world.net.now
    world.traffic(world.a, world.c, 700_000, step_ms=1000)
    for coa, hoa in ((COA_A, HOA_C), (COA_C, HOA_A)):
        cots = [d.time for d in world.net.captured if d.kind == "cot" and d.dst == coa]
        requests = [
            d.time for d in world.net.since(start, "request") if (d.src, d.dst) == (coa, hoa)
        ]
        assert len(requests) >= 3
        for when in requests:
            assert min(when - t for t in cots if t <= when) < 210_000


@pytest.mark.parametrize("seed", range(5))
def test_renewal_survives_loss_without_leaving_the_direct_path(seed):
    """A renewal that loses messages is retried long before the binding ends."""
    world = Triangle(seed=seed)
    world.make_direct(world.c, world.a)
    world.net.filters.append(lambda d: d.kind != "keepalive" and world.net._rng.random() < 0.1)
    for _ in range(700):
        world.send(world.a, world.c)
        world.send(world.c, world.a)
        world.net.run(1000)
        for node in (world.a, world.c):
            for tunnel in node.router.tunnels.all():
                node.router.tunnel_traffic(world.net.now, tunnel.id, world.net.now, 0)
        assert world.a.router.tunnels.of_peer(HOA_C).up
        assert world.a.peer(world.c)["registered_with_us"]
        assert world.c.peer(world.a)["registered_with_us"]


def test_binding_of_a_peer_that_vanished_ends():
    """R3.1.2-2"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.c.detach(0)
    world.net.run(430_000)
    assert [t for t in world.a.router.tunnels.all() if t.direct] == []
    assert world.a.sources == []
    assert all(r[2] <= 0 for r in world.a.routes)


def test_restarted_peer_is_direct_again_within_half_a_minute():
    """F10 of the threats. R3.2.1-3"""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(10_000)
    old = world.c
    coa = old.addresses[0]
    old.detach(0)
    world.net.nodes.remove(old)
    world.net.run(3_000)
    new = world.net.add_router("C", ipv4.text(HOA_C), "10.3.0.0/24", None)
    world.c = new
    world.hosts[new], world.coas[new] = world.hosts[old], coa
    new.attach(0, coa)
    start = world.net.now
    while not world.both_direct(world.a, new):
        world.send(world.a, new)
        world.send(new, world.a)
        world.net.run(250)
        assert world.net.now - start < 30_000, world.net.diagram(start)
    sent, arrived = world.traffic(world.a, new, 2000)
    assert arrived == {world.a: sent, new: sent}
