"""The home agent's clock: steps, wiped clocks, eras; what the routers notice of it."""

import pytest

from haaro_host.home_agent.clock import Clock, difference, stamp, unstamp
from haaro_host.home_agent.store import Store
from tests.host.home_agent_helpers import COA_B, HOA_A, HOA_B, NOW, World

HOUR = 3_600_000
YEARS = 10 * 365 * 24 * HOUR
ERA = (1 << 32) * 1000


def exchanges_until_registered(world, router_clock_ms=0, **changes):
    """Return how many exchanges a router with that clock error needs, resynchronising on 133.

    It takes the reply's Identification to the letter, and waits 1, 2, 4 s (RFC 5944 3.6.3).
    """
    offset = router_clock_ms << 32
    for exchange in range(1, 6):
        value = (stamp(world.now) + offset // 1000) % (1 << 64)
        reply = world.register(identification=value.to_bytes(8, "big"), **changes)
        if reply.code == 0:
            return exchange
        ours = int.from_bytes(reply.identification, "big")
        offset += difference(ours, value) * 1000
        world.now += 1000 << (exchange - 1)
    return None


@pytest.mark.parametrize("at", [NOW, ERA - 1000, ERA, ERA + 1000, 2_208_988_800_000], ids=str)
@pytest.mark.parametrize("error", [0, 8000, -8000, HOUR, -HOUR, YEARS, -YEARS], ids=str)
def test_a_router_with_any_clock_registers_within_two_exchanges(at, error):
    """RFC 5944 5.7.1; threats R4: years 1970, 2036, ten years off."""
    world = World()
    world.now = at
    assert exchanges_until_registered(world, error) <= 2


@pytest.mark.parametrize("step", [HOUR, -HOUR, YEARS, -YEARS], ids=str)
def test_when_our_clock_is_set_bindings_stay_and_routers_return(step):
    """Threats R6, F9: no binding ends early, none lives longer, two exchanges at most."""
    world = World()
    world.register()
    true_time = world.now
    world.now += step
    world.ha.clock_stepped(world.now, step)
    world.advance(0)
    assert world.ha.bindings[HOA_A].lifetime == 300
    assert world.ha.next_deadline() == true_time + step + 300_000
    assert exchanges_until_registered(world, -step, hoa=HOA_B, coa=COA_B) <= 2
    world.advance(301)
    assert HOA_A not in world.ha.bindings
    assert any("clock was set" in text for _, _, text in world.logs)


def test_a_step_back_nobody_told_us_of_accepts_no_replay():
    """Threats R6, R2: our time never decreases."""
    world = World()
    captured = world.request()
    world.send(captured)
    world.now += 100_000
    late = world.request(hoa=HOA_B, coa=COA_B)
    world.send(late)
    world.now -= 100_000
    for data in (captured, late):
        world.ha.counters.clear()
        world.send(data)
        assert world.ha.counters == {"identification_mismatch": 1}
    assert exchanges_until_registered(world) <= 2


def test_a_forward_step_first_pays_a_backward_step_back():
    """Threats R6: after the clock is right again we follow it."""
    clock = Clock()
    assert clock.now(10_000) == 10_000
    assert clock.stepped(-4000) == 0
    assert clock.now(6000) == 10_000
    assert clock.stepped(3000) == 0 and clock.now(9000) == 10_000
    assert clock.stepped(5000) == 4000 and clock.now(14_000) == 14_000
    assert clock.offset == 0


def test_a_wiped_clock_at_start_continues_from_the_newest_registration(tmp_path):
    """Threats R6, R4: max(clock, newest accepted); bindings and routers go on."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    assert exchanges_until_registered(world) <= 3  # a first start: its floor is one window ahead
    world.store.close()
    again = World(store=Store(path))
    again.now = 2_208_988_800_000  # 1970
    captured = world.ha.bindings[HOA_A]
    again.advance(0)
    assert again.ha.bindings == {HOA_A: captured}
    assert exchanges_until_registered(again, world.now - again.now) <= 2
    assert any("behind the last registration" in text for _, _, text in again.logs)


def test_stamps_round_trip_and_compare_modulo_two_to_the_64():
    """RFC 5944 5.7.1 [A46]."""
    for ms in (0, 1, NOW, ERA - 1, ERA, ERA + 1):
        for near in (ms - HOUR, ms, ms + HOUR):
            assert abs(unstamp(stamp(ms), near) - ms) <= 1
    assert difference(stamp(ERA + 500), stamp(ERA - 500)) == 1 << 32
    assert difference(stamp(ERA - 500), stamp(ERA + 500)) == -(1 << 32)
