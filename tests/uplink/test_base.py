"""When a reading of an uplink's state is believed; sequences as ESP32 and modems give them."""

import pytest

from haaro.uplink.base import CONNECTING, DOWN, FAILED, UP, Settled

_TIMES = {UP: 200, DOWN: 1000, FAILED: 3000}


def believed(readings: list[tuple[int, str]], end: int) -> list[tuple[int, str]]:
    """What is believed when, each millisecond being looked at."""
    settled = Settled(_TIMES)
    found = []
    queue = list(readings)
    reading = DOWN
    for now in range(end):
        if queue and queue[0][0] == now:
            reading = queue.pop(0)[1]
        if settled.read(now, reading):
            found.append((now, settled.state))
    return found


def test_up_is_believed_when_it_has_held():
    assert believed([(0, CONNECTING), (100, UP)], 1000) == [(0, CONNECTING), (300, UP)]


def test_idle_between_connecting_and_connected_is_not_believed():
    """ESP32: STAT_IDLE for a moment before STAT_GOT_IP (the status of the driver, not the link)."""
    readings = [(0, CONNECTING), (100, DOWN), (400, UP)]
    assert believed(readings, 2000) == [(0, CONNECTING), (600, UP)]


def test_wrong_password_after_an_outage_is_not_believed_unless_it_stays():
    """ESP32: STAT_WRONG_PASSWORD while the access point starts anew."""
    flicker = [(0, CONNECTING), (50, FAILED), (1500, CONNECTING), (1600, UP)]
    assert believed(flicker, 5000) == [(0, CONNECTING), (1800, UP)]
    assert believed([(0, CONNECTING), (50, FAILED)], 5000) == [(0, CONNECTING), (3050, FAILED)]


def test_up_that_flickers_is_never_up():
    readings = [(at, UP if at % 200 else CONNECTING) for at in range(0, 3000, 100)]
    assert believed(readings, 3000) == [(0, CONNECTING)]


@pytest.mark.parametrize("times", [{}, {DOWN: 5}])
def test_a_state_without_a_time_is_believed_at_once(times):
    settled = Settled(times)
    assert settled.read(7, UP)
    assert settled.state == UP and settled.deadline is None


def test_the_deadline_is_when_the_reading_must_be_looked_at_again():
    settled = Settled({UP: 200})
    settled.read(1000, UP)
    assert settled.deadline == 1200
    assert not settled.read(1199, UP)
    assert settled.read(1200, UP)
    assert settled.deadline is None
