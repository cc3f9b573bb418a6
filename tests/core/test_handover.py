"""Handover between several uplinks: make before break, return, drain, unseen death, other paths."""

import itertools

import pytest

from haaro.core.settings import Settings
from haaro.wire import ipv4
from haaro.wire import registration as wire
from tests.core.helpers import COA_A, COA_A2, COA_B, COA_C, HOA_A, HOA_B, HOA_C, Lone, Triangle
from tests.core.network import HOME_AGENT

WAN, LTE = 0, 1


def no_optimisation_at_b(name):
    """B is reached by the home agent only."""
    settings = Settings()
    settings.route_optimization = name != "B"
    return settings


class Office(Triangle):
    """A has two uplinks, WAN preferred to LTE; C is direct, B is reached by the home agent."""

    def __init__(self, up=(WAN, LTE), settle_ms=31_000, **how):
        super().__init__(register=False, settings=no_optimisation_at_b, **how)
        self.counts = {}
        addresses = (COA_A, COA_A2)
        for index in up:
            self.a.attach(index, addresses[index])
        self.b.attach(0, COA_B)
        self.c.attach(0, COA_C)
        for node in (self.a, self.b, self.c):
            self.net.run_until(lambda node=node: node.router.registration.registered)
        self.net.run(settle_ms)
        self.make_direct(self.c, self.a)
        self.net.run(2000)

    def flows(self, ms, step_ms=20):
        """Send A-C and A-B both ways for so long; returns how many of these were lost."""
        pairs = list(itertools.permutations((self.a, self.c), 2))
        pairs += list(itertools.permutations((self.a, self.b), 2))
        before = sum(len(node.delivered) for node in (self.a, self.b, self.c))
        sent = 0
        end = self.net.now + ms
        while self.net.now < end:
            for one, other in pairs:
                self.send(one, other)
                sent += 1
            self.net.run(step_ms)
            self.count_traffic()
        self.net.run(20 * self.net.delay_ms)
        return before + sent - sum(len(node.delivered) for node in (self.a, self.b, self.c))

    def count_traffic(self):
        """Tell the cores what their data planes count."""
        for node in (self.a, self.b, self.c):
            counts = self.counts.setdefault(node, {})
            done = counts.setdefault("read", 0)
            for _, ident, _ in node.delivered[done:]:
                counts[ident] = counts.get(ident, 0) + 1
            counts["read"] = len(node.delivered)
            for tunnel in node.router.tunnels.all():
                rx = counts.get(tunnel.id, 0)
                node.router.tunnel_traffic(self.net.now, tunnel.id, rx, self.net.now)
            node.pump()

    def gap(self, one, other, ms, step_ms=100):
        """Send both ways each 100 ms; returns the longest gap, in ms, of each direction."""
        gaps = {}
        seen = dict.fromkeys((one, other), self.net.now)
        start = self.net.now
        counts = {node: len(node.delivered) for node in (one, other)}
        while self.net.now < start + ms:
            self.send(one, other)
            self.send(other, one)
            self.net.run(step_ms)
            self.count_traffic()
            for node in (one, other):
                if len(node.delivered) > counts[node]:
                    counts[node] = len(node.delivered)
                    seen[node] = self.net.now
                gaps[node] = max(gaps.get(node, 0), self.net.now - seen[node])
        return max(gaps.values())

    @property
    def in_use(self):
        (found,) = [u for u in self.a.router.status(self.net.now)["uplinks"] if u["in_use"]]
        return found["index"]

    def uplink(self, index):
        return self.a.router.status(self.net.now)["uplinks"][index]

    def drain(self, index, undo=False):
        self.a.router.drain(self.net.now, index, undo)
        self.a.pump()


def test_better_uplink_is_taken_without_losing_a_packet():
    """R3.3.6-4 R3.3-2: make before break; HA first, then the peers."""
    world = Office(up=(LTE,))
    world.a.attach(WAN, COA_A)
    start = world.net.now
    assert world.flows(25_000) == 0
    assert (world.in_use, world.uplink(WAN)["why"][:26]) == (LTE, "preferred; must be without")
    assert world.flows(15_000) == 0
    assert world.in_use == WAN
    assert world.both_direct(world.a, world.c)
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A
    requests = [d for d in world.net.since(start, "request") if d.src == COA_A]
    assert requests[0].dst == HOME_AGENT
    replies = [d for d in world.net.since(start, "reply") if d.dst == COA_A]
    first_to_peer = next(d for d in world.net.since(start, "coti", "request") if d.dst == HOA_C)
    assert first_to_peer.time >= replies[0].time + world.net.delay_ms


def test_nothing_moves_before_the_home_agent_has_accepted():
    lone = Lone(uplinks=[{}, {}])
    (request,) = lone.requests(lone.up(COA_A2, index=LTE))
    lone.outside(HOME_AGENT, lone.home_reply(request), dst=COA_A2, uplink=LTE)
    lone.up(COA_A, index=WAN)
    (request,) = lone.requests(lone.run(30_000))
    home = lone.router.tunnels.get(0)
    assert request.care_of_address == COA_A
    assert (home.uplink, home.local, home.up) == (LTE, COA_A2, True)
    lone.outside(HOME_AGENT, lone.home_reply(request), uplink=WAN)
    assert (home.uplink, home.local, home.up) == (WAN, COA_A, True)


def test_return_to_the_preferred_uplink_is_lossless_and_waits():
    """U5 of the users."""
    world = Office()
    assert world.in_use == WAN
    world.a.detach(WAN)
    world.net.run(5000)
    assert world.in_use == LTE
    world.a.attach(WAN, COA_A)
    back = world.net.now
    assert world.flows(40_000) == 0
    assert world.in_use == WAN
    moved = [d.time for d in world.net.since(back, "request") if d.src == COA_A]
    assert moved[0] >= back + 30_000


def test_drained_uplink_is_left_without_loss_and_can_be_unplugged():
    world = Office()
    world.drain(WAN)
    assert world.flows(3000) == 0
    assert world.in_use == LTE
    assert world.uplink(WAN)["why"] == "the operator drains it"
    assert world.flows(11_000) == 0
    world.a.detach(WAN)
    assert world.flows(5000) == 0
    world.a.attach(WAN, COA_A)
    assert world.flows(40_000) == 0
    assert world.in_use == LTE  # still drained
    world.drain(WAN, undo=True)
    assert world.flows(35_000) == 0
    assert world.in_use == WAN


def test_the_only_uplink_stays_in_use_though_drained():
    world = Office(up=(WAN,))
    world.drain(WAN)
    assert world.flows(3000) == 0
    assert world.uplink(WAN)["why"] == "in use; no better one, though the operator drains it"


def test_trial_without_an_answer_is_given_up_without_loss_and_retried_less_and_less():
    world = Office(up=(LTE,))
    world.net.filters.append(lambda d: COA_A in (d.src, d.dst))
    world.a.attach(WAN, COA_A)
    start = world.net.now
    assert world.flows(240_000, step_ms=100) == 0
    assert world.in_use == LTE
    tries = [d.time - start for d in world.net.since(start, "request") if d.src == COA_A]
    rounds = [t for i, t in enumerate(tries) if i == 0 or t - tries[i - 1] > 9000]
    assert len(tries) <= 3 * len(rounds)
    waits = [b - a for a, b in itertools.pairwise(rounds)]
    assert len(waits) >= 3
    assert all(b > a - 2000 for a, b in itertools.pairwise(waits))  # but for the jitter
    assert waits[-1] > waits[0] + 5000
    after = [d for d in world.net.since(start + tries[2], "request") if d.src == COA_A2]
    assert after[0].time <= start + tries[2] + 6000  # by the former one again at once


def test_trial_whose_replies_are_lost_loses_nothing():
    """The home agent moved and we do not know: it is told again by the former uplink."""
    world = Office(up=(LTE,))
    world.net.filters.append(lambda d: d.kind == "reply" and d.dst == COA_A)
    world.a.attach(WAN, COA_A)
    assert world.flows(60_000) == 0
    assert world.in_use == LTE
    assert world.both_direct(world.a, world.c)


def test_denied_trial_leaves_the_binding_as_it_is():
    lone = Lone(uplinks=[{}, {}])
    (request,) = lone.requests(lone.up(COA_A2, index=LTE))
    lone.outside(HOME_AGENT, lone.home_reply(request), dst=COA_A2, uplink=LTE)
    lone.up(COA_A, index=WAN)
    (request,) = lone.requests(lone.run(30_000))
    lone.outside(HOME_AGENT, lone.home_reply(request, code=wire.INSUFFICIENT_RESOURCES), uplink=WAN)
    assert lone.router.registration.registered
    (request,) = lone.requests(lone.run(3000))
    assert request.care_of_address == COA_A2


@pytest.mark.parametrize("phase_ms", range(0, 1000, 250))
def test_uplink_that_dies_unseen_is_left_within_five_seconds(phase_ms):
    """F4 of the threats, direct."""
    world = Office()
    world.net.run(phase_ms)
    world.net.filters.append(lambda d: COA_A in (d.src, d.dst))
    assert world.gap(world.a, world.c, 60_000) <= 5000
    assert world.in_use == LTE
    assert world.both_direct(world.a, world.c)


@pytest.mark.parametrize("phase_ms", [0, 9000, 18_000])
def test_uplink_that_dies_unseen_is_left_by_home_agent_traffic_too(phase_ms):
    """F4 of the threats, by the home agent."""
    world = Office()
    world.net.run(phase_ms)
    world.net.filters.append(lambda d: COA_A in (d.src, d.dst))
    assert world.gap(world.a, world.b, 90_000) <= 10_000
    assert world.in_use == LTE


def test_what_only_receives_notices_an_unseen_death_by_the_keepalive():
    """F4 of the threats, 45 s."""
    world = Office()
    world.net.filters.append(lambda d: COA_A in (d.src, d.dst))
    before, start = len(world.a.delivered), world.net.now
    while len(world.a.delivered) == before:
        world.send(world.b, world.a)
        world.net.run(100)
        assert world.net.now - start <= 45_000
    assert world.in_use == LTE


def test_dead_uplink_that_works_again_is_returned_to():
    world = Office()
    world.net.filters.append(lambda d: COA_A in (d.src, d.dst))
    world.gap(world.a, world.c, 60_000)
    assert world.in_use == LTE
    world.net.filters.clear()
    assert world.flows(120_000, step_ms=100) == 0
    assert world.in_use == WAN


def test_dead_preferred_uplink_at_the_start_is_passed_over():
    world = Triangle(register=False)
    world.net.filters.append(lambda d: COA_A in (d.src, d.dst))
    world.a.attach(WAN, COA_A)
    world.a.attach(LTE, COA_A2)
    took = world.net.run_until(lambda: world.a.router.registration.registered, 60_000)
    assert took <= 12_000
    assert world.a.router.tunnels.get(0).uplink == LTE


def test_uplink_that_reaches_peers_but_not_the_home_agent_is_left_too():
    """What peers send by it does not hide that no request is answered."""
    world = Office()
    world.net.filters.append(lambda d: {COA_A, HOME_AGENT} == {d.src, d.dst})
    assert world.gap(world.a, world.c, 330_000) <= 500
    assert world.in_use == LTE
    assert world.both_direct(world.a, world.c)


@pytest.mark.parametrize("seed", range(3))
def test_twenty_percent_loss_on_both_uplinks_does_not_flap(seed):
    """U4 of the users: ten minutes of traffic to the home agent and direct, one change at most."""
    world = Office(seed=seed)
    world.net.loss = 0.2
    log = len(world.a.log)
    world.flows(600_000, step_ms=250)
    assert len([line for line in world.a.log[log:] if line.endswith("is in use")]) <= 1


@pytest.mark.parametrize("loss", [0.02, 0.1, 0.2])
def test_upload_without_answers_over_a_lossy_uplink_does_not_flap(loss):
    """U4 of the users: half an hour in which nothing comes back but answers to what is asked."""
    world = Office(seed=7)
    world.net.loss = loss
    log = len(world.a.log)
    for _ in range(3600):
        world.send(world.a, world.b)
        world.net.run(500)
        world.count_traffic()
    assert len([line for line in world.a.log[log:] if line.endswith("is in use")]) <= 2


def test_home_agent_that_is_gone_is_asked_by_all_uplinks_and_ever_less_often():
    """F13 of the threats: never faster than one request a second, backing off."""
    world = Office()
    world.ha.silent = True
    start = world.net.now
    world.net.run(3_600_000)
    asked = [d for d in world.net.since(start, "request") if d.dst == HOME_AGENT]
    mine = [d for d in asked if d.src in (COA_A, COA_A2)]
    assert {d.src for d in mine} == {COA_A, COA_A2}
    assert all(b.time - a.time >= 1000 for a, b in itertools.pairwise(mine))
    late = [d for d in mine if d.time > start + 1_800_000]
    assert len(late) <= 1_800_000 / 25_000
    world.ha.silent = False
    world.net.run_until(lambda: world.a.router.registration.registered, 60_000)


# Care-of addresses by peer


def cut_direct(world):
    return world.net.cut(COA_A, COA_C)


def test_peer_that_is_not_reached_directly_by_one_uplink_is_by_another():
    """R6.1-3 R6.1-4 R3.3-2 R6.1-i2: no pair of the usual one answers; the other is remembered."""
    world = Office(settle_ms=31_000)
    assert world.both_direct(world.a, world.c)
    cut = cut_direct(world)
    world.gap(world.a, world.c, 60_000)
    assert world.both_direct(world.a, world.c)
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A2
    assert world.in_use == WAN
    assert world.a.peer(world.c)["uplink_why"].startswith("found to work")
    world.net.filters.remove(cut)
    assert world.flows(60_000) == 0
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A2
    # Long after, the usual one is asked again.
    world.flows(1_200_000, step_ms=500)
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A
    assert world.both_direct(world.a, world.c)


def test_care_of_test_that_is_not_answered_is_tried_by_the_next_uplink():
    """R6.1-4 R3.3.6-6"""
    world = Triangle(register=False)
    world.net.filters.append(lambda d: d.src == COA_A and d.dst == HOA_C)
    world.c.attach(0, COA_C)
    world.net.run(1000)
    world.a.attach(WAN, COA_A)
    world.a.attach(LTE, COA_A2)
    world.net.run(3000)
    world.send(world.a, world.c)
    world.net.run_until(lambda: world.a.peer(world.c)["registered"], 30_000)
    world.net.run_until(lambda: world.both_direct(world.a, world.c), 5000)
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A2
    assert world.a.router.tunnels.get(0).local == COA_A


def test_peer_without_any_direct_path_ends_at_the_usual_uplink():
    """Each uplink is tried once; then not again for minutes."""
    world = Triangle(register=False)
    world.net.filters.append(lambda d: COA_C in (d.src, d.dst) and HOME_AGENT not in (d.src, d.dst))
    world.c.attach(0, COA_C)
    world.net.run(1000)
    world.a.attach(WAN, COA_A)
    world.a.attach(LTE, COA_A2)
    world.net.run(3000)
    for _ in range(120):
        world.send(world.c, world.a)
        world.send(world.a, world.c)
        world.net.run(1000)
    assert not world.a.is_direct(world.c)
    moves = [line for line in world.a.log if line.startswith("trying uplink")]
    assert len(moves) == 1
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A


def test_operator_can_say_by_which_uplink_a_peer_is_reached():
    """R6.1-i3 R3.3-2 R6.7-i1"""
    world = Triangle(register=False)
    world.a.settings.peer_uplinks = {HOA_C: LTE}
    world.a.attach(WAN, COA_A)
    world.a.attach(LTE, COA_A2)
    world.b.attach(0, COA_B)
    world.c.attach(0, COA_C)
    world.net.run(3000)
    world.make_direct(world.c, world.a)
    world.make_direct(world.b, world.a)
    tunnels = world.a.router.tunnels
    assert tunnels.of_peer(HOA_C).local == COA_A2
    assert tunnels.of_peer(HOA_B).local == COA_A
    assert tunnels.get(0).local == COA_A
    assert world.a.peer(world.c)["uplink_why"] == "configured for this peer"
    # Its uplink goes: by the usual one.
    world.a.detach(LTE)
    world.make_direct(world.c, world.a)
    assert tunnels.of_peer(HOA_C).local == COA_A


def test_pinned_peer_stays_where_it_is_when_the_home_agents_uplink_changes():
    """R3.3-2: only what used the old uplink moves."""
    world = Triangle(register=False)
    world.a.settings.peer_uplinks = {HOA_C: LTE}
    world.a.attach(WAN, COA_A)
    world.a.attach(LTE, COA_A2)
    world.a.attach(2, ipv4.address("198.51.100.99"))
    world.b.attach(0, COA_B)
    world.c.attach(0, COA_C)
    world.net.run(3000)
    world.make_direct(world.c, world.a)
    world.make_direct(world.b, world.a)
    start = world.net.now
    world.a.router._ctx.uplinks[LTE].priority = 9
    world.a.detach(WAN)
    world.net.run(3000)
    assert world.a.router.tunnels.get(0).uplink == 2
    assert world.a.router.tunnels.of_peer(HOA_B).uplink == 2
    assert world.a.router.tunnels.of_peer(HOA_C).uplink == LTE
    assert world.both_direct(world.a, world.c)
    assert not [d for d in world.net.since(start, "coti") if d.dst == HOA_C and d.src == COA_A2]


def test_drained_uplink_is_left_by_peers_that_had_it_for_themselves():
    world = Office()
    cut = cut_direct(world)
    world.gap(world.a, world.c, 60_000)
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A2
    world.net.filters.remove(cut)
    world.drain(LTE)
    assert world.flows(5000) == 0
    assert world.a.router.tunnels.of_peer(HOA_C).local == COA_A
    assert world.both_direct(world.a, world.c)


# HA first, then peers, by partial return routability


def test_peers_are_told_by_a_care_of_test_alone_while_the_home_token_lives():
    """R3.2-6 R3.3.6-8"""
    world = Office()
    start = world.net.now
    world.drain(WAN)
    world.net.run(5000)
    mine = [d for d in world.net.since(start, "hoti", "coti") if d.src == COA_A2]
    assert [d.kind for d in mine if d.kind == "coti"] == ["coti"]
    assert [d for d in mine if d.kind == "hoti"] == []
    assert world.a.peer(world.c)["registered"]


def test_expired_home_token_is_fetched_anew_by_the_new_way():
    """R3.3.6-i3"""
    world = Office()
    record = world.a.router.cache.get(HOA_C)
    record.home_token_at = world.net.now - 300_000
    start = world.net.now
    world.drain(WAN)
    world.net.run(5000)
    assert [d.kind for d in world.net.since(start, "hoti") if d.src == COA_A2] == ["hoti"]
    assert world.a.peer(world.c)["registered"]


def test_peers_are_told_only_after_the_home_agent_when_nothing_could_be_sent_before():
    """R3.3.6-7"""
    world = Office(up=(WAN,))
    world.a.detach(WAN)
    world.net.run(2000)
    world.ha.silent = True
    start = world.net.now
    world.a.attach(LTE, COA_A2)
    world.net.run(5000)
    assert [d for d in world.net.since(start, "coti", "hoti") if d.src == COA_A2] == []
    world.ha.silent = False
    world.net.run_until(lambda: world.both_direct(world.a, world.c), 20_000)
    told = [d for d in world.net.since(start, "coti") if d.src == COA_A2]
    replies = [d for d in world.net.since(start, "reply") if d.dst == COA_A2]
    assert told[0].time >= replies[0].time + world.net.delay_ms


def test_graceful_stop_tells_every_peer_and_the_home_agent():
    """R3.3.6-1 R3.2-i8: from the uplink in use."""
    world = Office()
    start = world.net.now
    world.a.router.stop(start)
    world.a.pump()
    world.net.run(3000)
    asked = [d.signalling for d in world.net.since(start, "request") if d.src == COA_A]
    assert {d.dst for d in world.net.since(start, "request")} >= {HOME_AGENT, HOA_C}
    assert all(message.lifetime == 0 for message in asked)
    assert world.a.router.stopped
    assert (
        world.c.router.cache.get(HOA_A) is None or not world.c.peer(world.a)["registered_with_us"]
    )


# The budget of a metered uplink


def test_metered_uplink_keeps_background_traffic_near_its_budget():
    """R3.3.4-5: U15 of the users. Keepalives slow down, the path stays up, nothing is lost."""
    world = Office()
    assert world.flows(3_600_000, step_ms=1000) == 0
    octets = background(world, 3_600_000)
    link = world.a.router._ctx.uplinks[WAN]
    link.metered, link.budget, link.left = True, 100_000, 100_000
    assert world.flows(3_600_000, step_ms=1000) == 0
    assert world.both_direct(world.a, world.c)
    spared = background(world, 3_600_000)
    assert octets > 400_000
    assert spared < 220_000  # the budget of the hour, and what was left of the one before
    assert world.uplink(WAN)["keepalive_slowdown"] > 1


def background(world, ms):
    """Octets that A sent lately for itself, as IP, twice: most of it is answered."""
    mine = [d for d in world.net.since(world.net.now - ms) if d.src == COA_A and d.kind != "user"]
    return sum(2 * (28 + len(d.payload)) for d in mine)
