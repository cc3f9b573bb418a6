"""Routers behind NATs, the shipped core and home agent in one process (RFC 6521 6.1)."""

import pytest

from haaro.wire import ipv4
from haaro_host.simulate.world import World

INSIDE_A, INSIDE_C = ipv4.address("192.168.1.10"), ipv4.address("192.168.1.11")
PUBLIC, PUBLIC_C = ipv4.address("203.0.113.1"), ipv4.address("203.0.113.2")
COA_C = ipv4.address("198.51.100.7")


class Pair:
    """A and C, each behind the NAT named (None: a public address), and traffic C>A and A>C."""

    def __init__(self, nat_a, nat_c, kind="endpoint-independent", options=None, starts="C"):
        self.world = world = World(1)
        self.a = world.add_router("A", options=options)
        self.c = world.add_router("C")
        world.boot_home_agent()
        boxes = {"one": PUBLIC, "two": PUBLIC_C}
        made = {
            name: world.add_nat(name, boxes[name], kind)
            for name in {nat_a, nat_c} - {None}
        }  # fmt: skip
        self.a.attach(0, INSIDE_A if nat_a else COA_C[:3] + b"\x08", made.get(nat_a))
        self.c.attach(0, INSIDE_C if nat_c else COA_C, made.get(nat_c))
        for node in (self.a, self.c):
            node.boot()
        self.world.network.run_until(lambda: self.a.registered and self.c.registered, 60_000)
        world.run(1)
        self.flow = world.flow(starts, "A" if starts == "C" else "C")
        self.flow.start()

    @property
    def direct(self):
        return self.a.is_direct(self.c) and self.c.is_direct(self.a)

    def wait_direct(self, limit_s=30):
        return self.world.network.run_until(lambda: self.direct, limit_s * 1000)

    def ends(self, node, other):
        tunnel = node.router.tunnels.of_peer(other.hoa)
        return tunnel.local, tunnel.remote

    def record(self, node, other):
        return node.router.cache.get(other.hoa)


def test_two_behind_one_nat_meet_at_their_private_addresses_and_remember_it():
    """R6.1-3 R6.1-i2 R6.1-i4 [A57]: the pair that worked is in the cache, and tried first."""
    pair = Pair("one", "one")
    pair.wait_direct()
    pair.world.run(5)
    assert pair.ends(pair.a, pair.c) == (INSIDE_A, INSIDE_C)
    assert pair.ends(pair.c, pair.a) == (INSIDE_C, INSIDE_A)
    for node, other, coa, remote in (
        (pair.a, pair.c, INSIDE_A, INSIDE_C),
        (pair.c, pair.a, INSIDE_C, INSIDE_A),
    ):
        record = pair.record(node, other)
        assert record.working == {coa: remote}
        assert record.nat_states[coa, remote] is True
    # The tunnel is lost, what is known is not: the next one is aimed inside at once.
    node = pair.c
    node.router.tunnels.close_peer(pair.a.hoa)
    pair.record(node, pair.a).registration.registered = False
    pair.record(node, pair.a).binding = None
    aimed = []
    set_tunnel = node.router.tunnels.open_direct
    node.router.tunnels.open_direct = lambda *args: (aimed.append(args[3]), set_tunnel(*args))[1]
    pair.wait_direct(60)
    assert aimed and set(aimed) == {INSIDE_A}


@pytest.mark.parametrize("starts", ["A", "C"])
@pytest.mark.parametrize("kind", ["endpoint-independent", "address-dependent", "symmetric"])
def test_one_behind_a_nat_and_a_public_one_are_direct_whoever_starts(kind, starts):
    """R6.1-1 R6.1-2 R3.3.4-i2"""
    pair = Pair("one", None, kind, starts=starts)
    assert pair.wait_direct() <= 10_000
    assert pair.ends(pair.c, pair.a)[1] == PUBLIC


def test_correspondent_that_only_opens_outward_registers_in_the_other_direction():
    """R6.1-2 R3.1.2-i6: C asks, A behind a symmetric NAT opens the tunnel."""
    pair = Pair("one", None, "symmetric", options={"outbound_only": True})
    assert pair.record(pair.c, pair.a).outbound_only
    assert pair.wait_direct() <= 10_000
    assert pair.a.peer(pair.c)["registered"]
    assert pair.ends(pair.c, pair.a)[1] == PUBLIC


def test_two_nats_stay_on_the_home_agent_and_say_so():
    """R6.1-3: nothing is lost, and the status names the reason on both."""
    pair = Pair("one", "two", "symmetric")
    pair.world.run(60)
    assert not pair.direct
    for node, other in ((pair.a, pair.c), (pair.c, pair.a)):
        peer = node.peer(other)
        assert (peer["path"], peer["reason"]) == (
            "ha",
            "two NATs let no keepalive through; traffic stays with the home agent",
        )
    assert pair.flow.delivered >= pair.flow.sent - 2
