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


def restarted(world, path, away_ms=0, step=0, boot="one", skew=None):
    """Return the next life after `away_ms`, with the machine's clock set by `step` meanwhile."""
    world.store.close()
    again = World(store=Store(path))
    again.now = world.now + away_ms + step
    again.ha.machine_clock(again.now, boot, NOW + step if skew is None else skew)
    again.advance(0)
    return again


@pytest.fixture
def stored(tmp_path):
    """A home agent that told its store of the machine's clock, and the path of the store."""
    path = str(tmp_path / "state.sqlite")
    world = World(store=Store(path))
    world.ha.machine_clock(world.now, "one", NOW)
    assert exchanges_until_registered(world) <= 3
    return world, path


@pytest.mark.parametrize("step", [HOUR, YEARS], ids=str)
def test_bindings_outlive_a_clock_set_forward_while_we_were_down(stored, step):
    """Threats R6, F9: with what is left of their lifetime, and also when it comes twice."""
    world, path = stored
    expires = world.ha.bindings[HOA_A].expires
    for _ in range(2):
        world = restarted(world, path, 50_000, step, skew=world.ha._state.machine[1] + step)
        expires += step
        assert world.ha.bindings[HOA_A].expires == expires
        assert any("clock was set" in text for _, _, text in world.logs)
    world.now = expires
    world.advance(0)
    assert world.ha.bindings == {}


@pytest.mark.parametrize("step", [0, HOUR, YEARS], ids=str)
def test_bindings_that_expired_while_we_were_down_are_gone_whatever_the_clock(stored, step):
    """RFC 5944 3.8.2.2: the time since boot tells how long we were down."""
    world, path = stored
    assert restarted(world, path, 400_000, step).ha.bindings == {}


def test_after_a_reboot_only_the_clock_tells_how_long_we_were_down(stored):
    """Threats R6: neither a step nor a longer life is made of another boot's clock."""
    world, path = stored
    expires = world.ha.bindings[HOA_A].expires
    world = restarted(world, path, 60_000, boot="two", skew=NOW + 7)
    assert world.ha.bindings[HOA_A].expires == expires
    assert restarted(world, path, 400_000, boot="three", skew=NOW + HOUR).ha.bindings == {}


def test_no_binding_lives_longer_than_granted_by_a_clock_that_lies(stored):
    """Time since boot that went back, as in a container's own: at most lifetime and window."""
    world, path = stored
    world = restarted(world, path, 100_000, skew=NOW + HOUR)
    assert world.ha.bindings[HOA_A].expires <= world.now + 307_000


def test_a_clock_set_back_while_we_were_down_and_then_right_again(stored):
    """Threats R6: our time goes on; restarted so, it goes on from the newest registration, and no
    binding gains more than the time since that.
    """
    world, path = stored
    expires = world.ha.bindings[HOA_A].expires
    world = restarted(world, path, 50_000, -HOUR, skew=NOW - HOUR)
    assert world.ha.bindings[HOA_A].expires == expires
    assert world.ha.next_deadline() - world.now < 260_000
    world = restarted(world, path, 50_000, HOUR, skew=NOW)
    assert expires <= world.ha.bindings[HOA_A].expires <= expires + 100_000
    assert exchanges_until_registered(world) <= 2


def test_slow_drift_of_the_clock_is_no_step_and_is_written_now_and_then(stored):
    """A clock that is slewed moves against the time since boot too."""
    world, _ = stored
    writes = []
    put = world.store.put_machine
    world.store.put_machine = lambda *values: (writes.append(values), put(*values))
    for drift in range(0, 2000, 10):
        world.ha.machine_clock(world.now, "one", NOW + drift)
    world.advance(0)
    assert not any("clock was set" in text for _, _, text in world.logs)
    assert len(writes) == 3 and world.store.machine() == writes[-1]


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
