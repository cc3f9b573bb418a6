"""Things that happen at the same moment, and clocks that are wrong, to two routers with a direct
path: what the issue of mobility and faults lists. Both registering at once is in
test_peer_registration.py, both moving in test_tunnels.py, one restarting in test_renewal.py.
"""

import pytest

from haaro.wire import ipv4
from haaro_host.home_agent.store import Store
from tests.core.helpers import COA_C2, Triangle
from tests.core.network import NTP_2026_MS, Network

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
ERA_MS = (1 << 32) * 1000


def restart(world, node, ntp_ms=None):
    """Power a router off; returns the function that boots a new one in its place."""
    address = node.addresses[0]
    node.detach(0)
    world.net.nodes.remove(node)

    def boot():
        (lan,) = node.settings.networks
        network = f"{ipv4.text(lan[0])}/{lan[1]}"
        new = world.net.add_router(node.name, ipv4.text(node.hoa), network, None, ntp_ms=ntp_ms)
        world.hosts[new], world.coas[new] = world.hosts[node], address
        new.attach(0, address)
        return new

    return boot


def restart_home_agent(world, lost_disk=False):
    """The home agent's process ends and a new one reads what is on its disk."""
    ha = world.ha
    if lost_disk:
        ha.store = Store(":memory:")
        ha.store.fresh = True
    ha.home_agent = None
    ha._configure()


def talk_until_direct(world, a, c, limit_ms):
    """Let hosts of both talk until the path is direct both ways; returns the ms it took."""
    start = world.net.now
    while not world.both_direct(a, c):
        assert world.net.now - start < limit_ms, world.net.diagram(start)
        world.send(a, c)
        world.send(c, a)
        world.net.run(250)
    return world.net.now - start


def carries(world, a, c):
    """Whether every packet of two seconds arrives, both ways."""
    sent, arrived = world.traffic(a, c, 2000)
    return arrived == {a: sent, c: sent}


@pytest.mark.parametrize("seed", range(6))
def test_both_restart_at_once(seed):
    """R6.2-i1 F11 of the threats, R3.2.1-3: with new Kcr and nonces; the old ones are unknown."""
    world = Triangle(seed=seed)
    world.make_direct(world.c, world.a)
    world.net.run(5000 + 311 * seed)
    boots = [restart(world, node) for node in (world.a, world.c)]
    world.net.run(3000)
    a = boots[0]()
    world.net.run(29 * seed)
    c = boots[1]()
    talk_until_direct(world, a, c, 60_000)
    assert carries(world, a, c)
    for node in (a, c):
        assert len([t for t in node.router.tunnels.all() if t.direct]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_one_moves_while_the_other_restarts(seed):
    """R6.2-i1"""
    world = Triangle(seed=seed)
    world.make_direct(world.c, world.a)
    world.net.run(3000)
    boot = restart(world, world.a)
    world.net.run(50 * seed)
    world.c.attach(0, COA_C2)
    world.net.run(1500)
    a = boot()
    talk_until_direct(world, a, world.c, 60_000)
    assert carries(world, a, world.c)


@pytest.mark.parametrize("gone", ["home", "care_of", "both"])
def test_nonces_expire_between_the_tokens_and_the_request(gone):
    """R10-i1: codes 201 to 203 in the middle of a move restart return routability, which
    brings the direct path back.
    """
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.traffic(world.a, world.c, 40_000, 500)  # the home nonce is of another period by now
    codes, expired = [], []

    def expire(datagram):
        message = datagram.signalling
        if datagram.kind == "request" and datagram.dst == world.a.hoa and not expired:
            nonces = world.a.router._correspondent.nonces
            proof = message.authenticator
            unwanted = {
                "home": [proof.home_nonce_index],
                "care_of": [proof.care_of_nonce_index],
                "both": [entry[0] for entry in nonces._table],
            }[gone]
            assert proof.home_nonce_index != proof.care_of_nonce_index
            nonces._table = [entry for entry in nonces._table if entry[0] not in unwanted]
            expired.append(True)
        if datagram.kind == "reply" and datagram.src == world.a.hoa:
            codes.append(message.code)
        return False

    world.net.filters.append(expire)
    world.c.attach(0, COA_C2)
    talk_until_direct(world, world.a, world.c, 20_000)
    assert codes[0] == {"home": 201, "care_of": 202, "both": 203}[gone]
    assert carries(world, world.a, world.c)


@pytest.mark.parametrize("lost_disk", [False, True])
def test_home_agent_restarts_while_both_move(lost_disk):
    """F7, F8, F11 of the threats: with its disk, and without."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(5000)
    world.ha.silent = True
    world.a.attach(0, ipv4.address("198.51.100.20"))
    world.c.attach(0, COA_C2)
    world.net.run(5000)
    restart_home_agent(world, lost_disk)
    world.ha.silent = False
    back = world.net.run_until(
        lambda: all(n.router.registration.registered for n in (world.a, world.c)), 60_000
    )
    assert back <= 60_000
    # Whoever registered first does not know the other before its next list.
    talk_until_direct(world, world.a, world.c, 60_000)
    assert carries(world, world.a, world.c)


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS, 12 * YEAR_MS, -12 * YEAR_MS])
def test_clock_of_the_home_agent_steps_while_the_path_is_direct(step_ms):
    """F9 of the threats: no packet of the direct path is lost, then or at the renewals."""
    world = Triangle()
    world.make_direct(world.c, world.a)
    world.net.run(2000)
    # As its shell does: it tells of the step, and its own time never goes back.
    world.ha.offset_ms += step_ms
    world.ha.home_agent.clock_stepped(world.ha._now(), step_ms)
    sent, arrived = world.traffic(world.a, world.c, 500_000, 500)
    assert arrived == {world.a: sent, world.c: sent}
    for node in (world.a, world.c):
        assert node.router.registration.registered


@pytest.mark.parametrize("clocks", [(0, 0), (0, NTP_2026_MS + 30 * YEAR_MS)])
def test_two_routers_without_a_clock_agree_on_the_home_agents(clocks):
    """F9, R4 of the threats, A45: start without a clock, and with one decades ahead."""
    world = Triangle(register=False)
    boots = [
        restart(world, plugged(world, node), ntp_ms)
        for node, ntp_ms in zip((world.a, world.c), clocks, strict=True)
    ]
    a, c = (boot() for boot in boots)
    world.net.run_until(
        lambda: a.router.registration.registered and c.router.registration.registered
    )
    world.net.run(2000)
    talk_until_direct(world, a, c, 30_000)
    assert carries(world, a, c)


def plugged(world, node):
    node.attach(0, world.coas[node])
    return node


def test_direct_path_lives_across_the_end_of_the_era(monkeypatch):
    """A46: 2036-02-07 06:28:16, with renewals on both sides of it and no packet lost."""
    base = ERA_MS - 200_000
    monkeypatch.setattr(Network, "ntp_ms", lambda self, now: base + now)
    world = Triangle()
    world.make_direct(world.c, world.a)
    before = len(world.net.since(0, "request"))
    sent, arrived = world.traffic(world.a, world.c, 600_000, 500)
    assert arrived == {world.a: sent, world.c: sent}
    assert world.net.ntp_ms(world.net.now) > ERA_MS
    assert len(world.net.since(0, "request")) > before + 6
    for node in (world.a, world.c):
        names = set(node.router.counters.as_dict())
        assert not {n for n in names if "resynchronised" in n or "stale" in n or "replayed" in n}
