"""The bounds of the home agent: queues nobody drains, state the configuration no longer knows."""

import pytest

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.state import MAX_EVENTS, MAX_QUEUED
from haaro_host.home_agent.store import Store
from tests.host.home_agent_helpers import (
    COA_A,
    COA_B,
    HA,
    HOA_A,
    HOA_B,
    HOA_C,
    World,
    build_config,
)

SRC, PEER, HOME = address("10.1.0.10"), address("10.2.0.10"), address("10.0.0.10")


def push(world, dst, count):
    """Send `count` inner packets from A to `dst` without draining a queue."""
    packet = TUNNEL_HEADER + ipv4.build_udp(SRC, dst, 1, 2, b"")
    for _ in range(count):
        world.ha.receive_datagram(world.now, COA_A, 434, HA, 434, packet)


@pytest.mark.parametrize(
    ("dst", "counter", "poll"),
    [(PEER, "transmit_queue_full", "poll_transmit"), (HOME, "outside_queue_full", "poll_outside")],
)
def test_a_full_queue_drops_the_newest_and_counts(dst, counter, poll):
    """Issue, Bad input: every bound has a name, a policy and a counter."""
    world = World()
    world.register_all()
    push(world, dst, MAX_QUEUED + 7)
    assert world.ha.counters[counter] == 7
    taken = 0
    while getattr(world.ha, poll)() is not None:
        taken += 1
    assert taken == MAX_QUEUED
    push(world, dst, 1)
    assert getattr(world.ha, poll)() is not None


def test_log_lines_nobody_reads_are_bounded():
    """Threats P7: a flood fills neither the memory nor the log."""
    world = World()
    for n in range(MAX_EVENTS + 50):
        world.now += 1000
        coa = COA_A if n % 2 else COA_B
        data = world.request(coa=coa)
        world.ha.receive_datagram(world.now, coa, 434, HA, 434, bytes(data))
        world.ha.poll_transmit()
    assert world.ha.counters["log_dropped"] == 50
    world.drain()
    assert len(world.logs) == MAX_EVENTS


def test_wrong_authenticators_are_logged_at_a_limited_rate():
    """RFC 5944 3.8.2.1 a: SHOULD log a security exception; a stranger must not fill the disk."""
    world = World()
    for _ in range(1000):
        world.send(world.request(key=bytes(32)))
    assert len(world.logs) == 10 and "bad authenticator" in world.logs[0][2]
    assert world.ha.counters["warning_limited"] == 990
    world.now += 1000
    world.send(world.request(key=bytes(32)))
    assert len(world.logs) == 11


def stored(tmp_path):
    """Return a state file in which A, B and C registered 8 s apart, and the time of the last."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    world.register(identification=bytes(8))
    for n, hoa in enumerate((HOA_A, HOA_B, HOA_C)):
        world.now += 8000
        coa = bytes([198, 51, 100, 10 + n])
        networks = [f"10.{n + 1}.0.0/24"]
        assert world.register(hoa=hoa, coa=coa, networks=networks).code == 0
    world.store.close()
    return path, world.now


def test_at_start_the_newest_registration_of_all_routers_counts(tmp_path):
    """Threats R6, R3: not the first one read; A's is 16 s older than C's."""
    path, last = stored(tmp_path)
    world = World(store=Store(path))
    world.now = last - 3_600_000
    late = stamp(last).to_bytes(8, "big")
    assert world.register(hoa=HOA_C, coa=COA_A, identification=late).code == 133
    after = stamp(last + 100).to_bytes(8, "big")
    assert world.register(hoa=HOA_A, coa=COA_A, identification=after).code == 0


def test_at_start_bindings_obey_the_configuration_of_now(tmp_path):
    """RFC 5177 10: no forwarding for a router or prefix that was taken out while we were down."""
    path, last = stored(tmp_path)

    def change(document):
        del document["router"][1]
        document["router"][0]["prefixes"] = []

    def change_secrets(secrets):
        del secrets["router"][1]

    world = World(config=build_config(change, change_secrets), store=Store(path))
    world.now = last
    world.advance(0)
    assert set(world.ha.bindings) == {HOA_A, HOA_C}
    assert world.ha.bindings[HOA_A].prefixes == []
    assert world.ha.binding_by_tunnel_end(bytes([198, 51, 100, 11]), 434) is None
