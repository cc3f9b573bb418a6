"""Random faults from a seed; then the network is whole again and every pair must be direct."""

import itertools
import random

import pytest

from haaro.wire import ipv4
from tests.core.helpers import Triangle

FAULTS = ("cut", "one way", "flap", "move", "both move", "home agent silent", "loss")


class Storm:
    """A triangle and the faults that one seed throws at it."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.world = Triangle(seed=seed, delay_ms=self.rng.choice([5, 20, 60, 150]))
        self.net = self.world.net
        self.nodes = [self.world.a, self.world.b, self.world.c]
        self.pairs = list(itertools.combinations(self.nodes, 2))
        self.addresses = {
            node: [self.world.coas[node], *(ipv4.address(f"100.64.{n}.{k}") for k in range(5))]
            for n, node in enumerate(self.nodes)
        }

    def fault(self, name):
        rng, net = self.rng, self.net
        one, other = rng.sample(self.nodes, 2)
        here, there = one.addresses.get(0), other.addresses.get(0)
        if name == "cut":
            net.cut(here, there)
        elif name == "one way":
            net.filters.append(lambda d: (d.src, d.dst) == (here, there))
        elif name == "flap" and here:
            one.detach(0)
            net.run(rng.randint(10, 8000))
            one.attach(0, here)
        elif name in ("move", "both move"):
            for node in (one, other) if name == "both move" else (one,):
                if rng.random() < 0.5:
                    node.detach(0)
                    net.run(rng.randint(0, 3000))
                free = [a for a in self.addresses[node] if a not in net.owners]
                node.attach(0, rng.choice(free))
        elif name == "home agent silent":
            self.world.ha.silent = True
        elif name == "loss":
            net.loss = rng.choice([0.05, 0.2])

    def traffic(self, pairs):
        for one, other in pairs:
            self.world.send(one, other)
            self.world.send(other, one)
        for node in self.nodes:
            for tunnel in node.router.tunnels.all():
                node.router.tunnel_traffic(self.net.now, tunnel.id, self.net.now, 0)

    def heal(self):
        self.net.filters.clear()
        self.net.loss = 0
        self.world.ha.silent = False


@pytest.mark.parametrize("seed", range(5))
def test_every_pair_is_direct_again_after_any_faults(seed):
    """G10 of the threats, in small: no stuck state. R3-i3 R6.2-i1"""
    storm = Storm(seed)
    for _ in range(8):
        for name in storm.rng.sample(FAULTS, storm.rng.randint(1, 3)):
            storm.fault(name)
            for _ in range(storm.rng.randint(0, 20)):
                storm.traffic(storm.rng.sample(storm.pairs, 2))
                storm.net.run(storm.rng.randint(50, 3000))
        storm.heal()
        if storm.rng.random() < 0.3:
            storm.net.run(storm.rng.choice([100_000, 300_000, 500_000]))
        start = storm.net.now
        while not all(storm.world.both_direct(*pair) for pair in storm.pairs):
            storm.traffic(storm.pairs)
            storm.net.run(500)
            assert storm.net.now - start <= 60_000, storm.net.diagram(start)
        one, other = storm.rng.choice(storm.pairs)
        sent, arrived = storm.world.traffic(one, other, 2000)
        assert arrived == {one: sent, other: sent}
        for node in storm.nodes:
            for entry in node.router.status(storm.net.now)["peers"]:
                assert entry["rrstate"] != "IN PROGRESS" or entry["reason"]
