"""The choice of the uplink, alone: what each input changes, hysteresis, hold-down, no flapping."""

import random

import pytest

from haaro.core.settings import Settings
from haaro.core.uplink_policy import Uplink, decide, in_order, why

SETTINGS = Settings()
HOUR = 3_600_000


def uplinks(*configs):
    """Uplinks that are up, without trouble for an hour."""
    made = [Uplink(index, config) for index, config in enumerate(configs)]
    for link in made:
        link.up = True
        link.came_up(-HOUR)
    return made


def two(first=None, second=None):
    return uplinks(first or {"name": "wan"}, second or {"name": "lte"})


def choose(links, current=None, now=0):
    return decide(now, SETTINGS, links, current)[0]


def sick(link, answers=40, now=0):
    """Let the uplink lose everything that is sent to the home agent."""
    for _ in range(answers):
        link.missed(now, SETTINGS)


# Each input's effect


def test_without_configuration_the_first_in_the_list_is_preferred():
    wan, lte = two()
    assert choose([wan, lte]) is wan
    assert choose([lte, wan]) is wan


def test_the_smaller_priority_wins_then_the_smaller_cost():
    """R3.3-2"""
    wan, lte = two({"priority": 5}, {"priority": 1})
    assert choose([wan, lte]) is lte
    wan, lte = two({"priority": 1, "cost": 9}, {"priority": 1, "cost": 3})
    assert choose([wan, lte]) is lte


def test_an_uplink_that_is_down_is_never_chosen():
    wan, lte = two()
    wan.up = False
    assert choose([wan, lte], wan) is lte
    lte.up = False
    assert decide(0, SETTINGS, [wan, lte], wan) == (None, None)


def test_equals_are_no_reason_to_change():
    wan, lte = two({"priority": 1}, {"priority": 1})
    assert choose([wan, lte], lte) is lte


def test_a_better_uplink_is_taken_when_it_was_without_trouble_for_long_enough():
    wan, lte = two()
    wan.came_up(1000)
    for now in (1000, 20_000, 1000 + SETTINGS.return_ms - 1):
        assert decide(now, SETTINGS, [wan, lte], lte) == (lte, 1000 + SETTINGS.return_ms)
    assert decide(1000 + SETTINGS.return_ms, SETTINGS, [wan, lte], lte) == (wan, None)


def test_second_best_is_taken_while_the_best_is_not_ready():
    wan, lte, sat = uplinks({}, {}, {})
    wan.came_up(0)
    assert decide(10, SETTINGS, [wan, lte, sat], sat) == (lte, SETTINGS.return_ms)


def test_without_one_in_use_nothing_is_waited_for():
    wan, lte = two()
    wan.came_up(0)
    assert choose([wan, lte], None, 1) is wan


def test_a_drained_uplink_is_left_at_once_and_is_the_last_choice():
    wan, lte = two()
    lte.came_up(0)
    wan.drained = True
    assert choose([wan, lte], wan, 1) is lte
    lte.up = False
    assert choose([wan, lte], wan, 1) is wan
    assert choose([wan, lte], None, 1) is wan


def test_a_failed_uplink_is_held_down_and_left_at_once():
    """Longer with each failure, from 10 s to 5 min."""
    wan, lte = two()
    now, holds = 0, []
    for _ in range(8):
        wan.failed(now, SETTINGS)
        best, again = decide(now, SETTINGS, [wan, lte], wan)
        assert best is lte
        holds.append(again - now)
        now = again
        assert choose([wan, lte], None, now) is wan  # over
    assert holds == [10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000, 300_000]


def test_what_comes_by_a_held_uplink_ends_its_hold():
    wan, lte = two()
    wan.failed(0, SETTINGS)
    wan.heard(100)
    assert choose([wan, lte], None, 101) is wan


def test_five_minutes_without_trouble_forget_the_failures():
    wan, _ = two()
    for now in (0, 20_000, 60_000):
        wan.failed(now, SETTINGS)
    wan.heard(61_000)
    wan.failed(62_000, SETTINGS)
    assert wan.hold_until == 62_000 + 80_000
    wan.heard(62_000 + 300_000)
    wan.failed(400_000, SETTINGS)
    assert wan.hold_until == 400_000 + 10_000


def test_a_new_start_of_the_link_ends_the_hold():
    wan, lte = two()
    wan.failed(0, SETTINGS)
    wan.came_up(1000)
    assert choose([wan, lte], None, 1001) is wan


def test_when_all_have_failed_the_one_that_failed_longest_ago_has_its_turn():
    wan, lte, sat = uplinks({}, {}, {})
    order = []
    link = wan
    for now in range(0, 9000, 1000):
        link.failed(now, SETTINGS)
        link = choose([wan, lte, sat], link, now)
        order.append(link.index)
    assert order == [1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_failed_uplinks_come_after_the_drained_one():
    """A drained uplink that works is better than one that does not."""
    wan, lte = two()
    wan.drained = True
    lte.failed(0, SETTINGS)
    assert choose([wan, lte], wan, 1) is wan


@pytest.mark.parametrize("how", ["loss", "latency"])
def test_a_poor_uplink_is_left_for_a_good_one_and_only_when_that_is_steady(how):
    wan, lte = two()
    if how == "loss":
        sick(wan)
    else:
        for _ in range(30):
            wan.answered(0, SETTINGS.latency_ms * 2, SETTINGS)
    assert wan.poor
    assert choose([wan, lte], wan) is lte
    lte.came_up(0)
    assert choose([wan, lte], wan, 10) is wan
    sick(lte)
    assert choose([wan, lte], wan, HOUR) is wan  # both poor: no reason


def test_poor_begins_at_the_limit_and_ends_well_below_it():
    wan, _ = two()
    seen = set()
    for missed in [True] * 40 + [False] * 40:
        if missed:
            wan.missed(0, SETTINGS)
        else:
            wan.answered(0, 20, SETTINGS)
        seen.add((missed, wan.loss >= 600, wan.poor))
        if not missed and wan.loss > 300:
            assert wan.poor
    assert (True, False, True) not in seen
    assert (False, False, True) in seen  # hysteresis
    assert not wan.poor


def test_what_was_measured_long_ago_is_forgotten():
    """A poor uplink that is not in use is not measured: it is tried again after half an hour."""
    wan, lte = two()
    sick(wan)
    assert choose([wan, lte], None, 1_800_000) is lte
    assert choose([wan, lte], None, 1_800_001) is wan
    wan.answered(1_800_001, 20, SETTINGS)
    assert (wan.loss, wan.rtt_ms, wan.poor) == (0, 20, False)


def test_metered_does_not_change_the_choice():
    """What a megabyte costs is said by priority and cost."""
    wan, lte = two({"metered": True}, {})
    assert choose([wan, lte]) is wan


def test_order_for_a_peer_is_the_policys():
    wan, lte, sat = uplinks({"priority": 3}, {"priority": 1}, {"priority": 2})
    lte.failed(0, SETTINGS)
    assert in_order(1, [wan, lte, sat]) == [sat, wan, lte]
    sat.up = False
    assert in_order(1, [wan, lte, sat]) == [wan, lte]


# The budget


def test_a_budget_slows_keepalives_down_and_recovers():
    """R3.3.4-5: U15 of the users."""
    (lte,) = uplinks({"metered": True, "budget_kb_hour": 200})
    assert lte.slowdown(0) == 1
    lte.spend(90_000)
    assert lte.slowdown(0) == 1
    lte.spend(60_000)
    assert lte.slowdown(0) == 2
    lte.spend(10_000_000)
    assert lte.slowdown(0) == 16
    assert lte.slowdown(HOUR // 2) == 1
    for now in range(HOUR // 2, HOUR, 10):
        lte.slowdown(now)  # asked often: it fills up all the same
    assert lte.left >= 199_000
    assert lte.slowdown(100 * HOUR) == 1
    assert lte.left == 200_000


def test_an_uplink_that_is_not_metered_has_no_budget():
    (wan,) = uplinks({"budget_kb_hour": 50})
    wan.spend(10_000_000)
    assert wan.slowdown(0) == 1


# Flapping


@pytest.mark.parametrize("seed", range(10))
def test_twenty_percent_loss_both_ways_on_both_uplinks_does_not_flap(seed):
    """An hour of keepalives each 25 s, of which 36 % go unanswered: at most one change."""
    rng = random.Random(seed)
    wan, lte = two()
    current, changes = wan, 0
    for now in range(0, HOUR, 25_000):
        if rng.random() < 0.36:
            current.missed(now, SETTINGS)
        else:
            current.answered(now, 40, SETTINGS)
        best = choose([wan, lte], current, now)
        changes += best is not current
        current = best
    assert changes <= 1


def test_a_link_that_goes_up_and_down_is_returned_to_only_when_it_lasts():
    wan, lte = two()
    for now in range(0, 600_000, 20_000):  # 10 s up, 10 s down
        wan.up = True
        wan.came_up(now)
        assert choose([wan, lte], lte, now + 9999) is lte
        wan.up = False


# Why


def test_every_uplink_has_one_plain_sentence():
    wan, lte, sat = uplinks({"name": "wan"}, {"name": "lte"}, {"name": "sat"})

    def said(link, now=0, current=wan):
        return why(now, SETTINGS, link, current)

    assert said(wan) == "in use: the best"
    assert said(lte) == "standby: wan is preferred or as good"
    sat.up = False
    assert said(sat) == "its link is down"
    lte.failed(0, SETTINGS)
    assert said(lte, 1) == "registrations by it went unanswered; tried again in 10 s"
    lte.drained, lte.hold_until = True, 0
    assert said(lte, 1) == "the operator drains it"
    assert said(lte, 1, lte) == "in use; no better one, though the operator drains it"
    wan.came_up(0)
    sat.up = True
    assert said(wan, 1000, sat) == "preferred; must be without trouble for 29 s more"
    assert said(wan, 30_000, sat) == "preferred; being tried by a registration"
    assert said(wan, 0, None) == "a registration by it is awaited"
    sick(sat)
    assert said(sat) == "it loses 91 %, round trip None ms"
