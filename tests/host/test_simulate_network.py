"""The simulated internet: NATs let in what their kind lets in, links do what they say."""

import random

import pytest

from haaro.wire import ipv4
from haaro_host.simulate.datagram import Datagram
from haaro_host.simulate.nat import Nat
from haaro_host.simulate.network import Link, Network, SimulationError
from haaro_host.simulate.world import World

PUBLIC, INSIDE = ipv4.address("203.0.113.1"), ipv4.address("192.168.1.10")
ONE, OTHER = ipv4.address("198.51.100.1"), ipv4.address("198.51.100.2")


class Behind:
    """A NAT with a host inside, and what that host received."""

    def __init__(self, kind, timeout_ms=2000):
        self.nat = Nat("nat", PUBLIC, kind, timeout_ms, random.Random(1))
        self.got = []
        self.nat.inside[INSIDE] = self.got.append

    def out(self, now, dst, dport):
        """The host sends; returns the source that the world sees."""
        datagram = Datagram(now, (INSIDE, 434, dst, dport), b"x")
        self.nat.outbound(now, datagram)
        return datagram.src, datagram.sport

    def enters(self, now, src, sport, port):
        """Whether a datagram to `port` of the NAT gets to the host's port 434."""
        datagram = Datagram(now, (src, sport, PUBLIC, port), b"x")
        receive = self.nat.inbound(now, datagram)
        assert (receive is None) == bool(datagram.dropped)
        return receive is not None and (datagram.dst, datagram.dport) == (INSIDE, 434)


@pytest.mark.parametrize(
    ("kind", "same_address", "same_port", "from_port", "from_address"),
    [
        ("endpoint-independent", True, True, True, True),
        ("address-dependent", True, False, True, False),
        ("symmetric", False, False, False, False),
    ],
)
def test_a_nat_maps_and_filters_as_its_kind(kind, same_address, same_port, from_port, from_address):
    """Whether the mapping is the same to another port, to another address; who else gets in."""
    behind = Behind(kind)
    source, port = behind.out(0, ONE, 434)
    assert source == PUBLIC
    assert (behind.out(1, ONE, 435)[1] == port) == same_address
    assert (behind.out(1, OTHER, 434)[1] == port) == same_port
    assert behind.enters(2, ONE, 434, port)
    assert behind.enters(2, ONE, 9, port) == from_port
    assert behind.enters(2, OTHER, 434, port) == from_address


def test_a_mapping_lives_as_long_as_it_is_used_from_inside():
    behind = Behind("address-dependent", 2000)
    _, port = behind.out(0, ONE, 434)
    assert behind.out(1500, ONE, 434)[1] == port
    assert behind.enters(3499, ONE, 434, port)
    assert not behind.enters(3500, ONE, 434, port)
    assert behind.out(3600, ONE, 434)[1] != port


def test_a_reboot_gives_other_ports_and_lets_nothing_old_in():
    behind = Behind("endpoint-independent")
    _, port = behind.out(0, ONE, 434)
    behind.nat.reboot()
    assert not behind.enters(1, ONE, 434, port)
    assert behind.out(2, ONE, 434)[1] != port


def test_two_hosts_inside_have_different_ports():
    behind = Behind("endpoint-independent")
    _, port = behind.out(0, ONE, 434)
    other = Datagram(0, (ipv4.address("192.168.1.11"), 434, ONE, 434), b"x")
    behind.nat.outbound(0, other)
    assert other.sport != port


class Ear:
    """A node that keeps what it hears."""

    name = "ear"
    armed = None

    def __init__(self, network):
        self.network = network
        self.heard = []

    def receive(self, datagram):
        self.heard.append((self.network.now, datagram.payload))

    def next_deadline(self):
        return None

    def handle_timer(self):
        raise AssertionError


def listened(link, number=2000):
    """Send `number` datagrams, one a ms, over a link; returns [(delay, index)] and the payloads."""
    network = Network(link, seed=5)
    ear = Ear(network)
    network.own(ONE, ear, None, None)
    network.own(OTHER, ear, None, None)
    for index in range(number):
        network.send(ear, None, None, (ONE, 434, OTHER, 434), index.to_bytes(4, "big"))
        network.run(1)
    network.run(1000)
    return ear.heard


def test_a_link_loses_and_duplicates_as_often_as_it_says():
    heard = listened(Link(5, loss=0.2))
    assert 0.76 < len(heard) / 2000 < 0.84
    heard = listened(Link(5, duplicate=0.1))
    assert 2120 < len(heard) < 2280
    assert len({payload for _, payload in heard}) == 2000


def test_jitter_reorders_and_without_it_order_and_delay_are_exact():
    heard = listened(Link(5))
    assert [(now, int.from_bytes(p, "big")) for now, p in heard] == [
        (n + 5, n) for n in range(2000)
    ]
    order = [int.from_bytes(p, "big") for _, p in listened(Link(5, jitter_ms=50))]
    assert order != sorted(order)
    assert sorted(order) == list(range(2000))


def test_corruption_changes_one_octet():
    heard = listened(Link(0, corrupt=0.5))
    sent = {index.to_bytes(4, "big") for index in range(2000)}
    wrong = [p for _, p in heard if p not in sent]
    assert wrong
    assert all(len(p) == 4 for p in wrong)


def test_the_link_of_a_nat_is_crossed_both_ways():
    network = Network(Link(1))
    ear, inner = Ear(network), Ear(network)
    nat = Nat("nat", PUBLIC, "endpoint-independent", 60_000, random.Random(1))
    nat.inside[INSIDE] = inner.receive
    network.own(PUBLIC, None, nat, Link(delay_ms=100))
    network.own(ONE, ear, None, Link(delay_ms=10))
    seen = []
    network.observers.append(seen.append)
    network.send(inner, nat, None, (INSIDE, 434, ONE, 434), b"out")
    network.run(500)
    network.send(ear, None, Link(delay_ms=10), (ONE, 434, PUBLIC, seen[0].sport), b"in")
    network.run(500)
    assert (ear.heard, inner.heard) == ([(111, b"out")], [(611, b"in")])


def test_a_source_that_is_not_the_senders_is_dropped():
    network = Network(Link(1))
    ear, thief = Ear(network), Ear(network)
    network.own(ONE, ear, None, None)
    network.own(OTHER, thief, None, None)
    seen = []
    network.observers.append(seen.append)
    network.send(thief, None, None, (ONE, 434, ONE, 434), b"x")
    network.run(10)
    assert [d.dropped for d in seen] == ["source filter"]
    assert ear.heard == []


def test_time_that_stands_still_is_an_error():
    network = Network(Link())
    network.at(5, lambda _: network.at(5, again))

    def again(_):
        network.at(5, again)

    with pytest.raises(SimulationError, match="time stands still at 5 ms"):
        network.run(10)


def test_the_plane_refuses_an_inner_source_that_is_not_the_tunnels():
    with World(1) as world:
        a, c = world.add_router("A"), world.add_router("C")
        world.boot_home_agent()
        a.attach(0, ONE)
        c.attach(0, OTHER)
        a.boot()
        world.run(2)
        c.boot()
        world.run(2)
        world.both("C", "A")
        world.run(5)
        assert a.is_direct(c)
        before = dict(a.refused)
        host = world.host("A")
        for source, refused in ((world.host("C"), 0), (ipv4.address("10.9.9.9"), 1)):
            packet = ipv4.build_udp(source, host, 1, 2, b"x")
            world.network.inject(
                Datagram(world.now, (OTHER, 434, ONE, 434), b"\x04\x04\0\0" + packet)
            )
            world.run(1)
            assert a.refused.get("source", 0) - before.get("source", 0) == refused
