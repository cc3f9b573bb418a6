"""Handovers between two uplinks of A that are up: no datagram of 250 a second may be lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from haaro_host.lab.faults import layouts
from haaro_host.lab.faults.bench import HQ, Bench, Row
from haaro_host.lab.faults.layouts import A, C

_RATE = 250.0
_RETURN_S = 3
_MOVED_DEADLINE_S = 60
_BEHIND_S = 1.0  # what was sent last may still be under way
_FIRST, _SECOND = A.node, layouts.A_SECOND_LINK


def handover_direct(bench: Bench) -> list[Row]:
    """A leaves its first uplink by `haaro router drain` and returns; traffic is direct."""
    return _drain_and_return(bench, A.host, C.host)


def handover_home(bench: Bench) -> list[Row]:
    """A leaves its first uplink by `haaro router drain` and returns; home network traffic."""
    return _drain_and_return(bench, A.host, HQ)


def handover_better(bench: Bench) -> list[Row]:
    """A's preferred uplink comes up while the other is in use: the policy moves to it."""
    bench.config = {"policy": {"return_s": _RETURN_S}}
    with bench.built():
        bench.carrier(A.node, False)
        bench.start()
        bench.settle(rate=_RATE, phase_s=2.0)
        return [_moves(bench, "better", lambda: bench.carrier(A.node, True), _FIRST, C.host)]


def _drain_and_return(bench: Bench, one: str, other: str) -> list[Row]:
    bench.config = {"policy": {"return_s": _RETURN_S}}
    with bench.built():
        bench.start()
        bench.settle(one, other, rate=_RATE, phase_s=2.0)
        return [
            _moves(bench, "away", lambda: bench.tell(A.node, "drain wan"), _SECOND, other),
            _moves(bench, "back", lambda: bench.tell(A.node, "undrain wan"), _FIRST, other),
        ]


def _moves(bench: Bench, name: str, begin: Callable[[], object], link: str, other: str) -> Row:
    """Do `begin`, wait until A's traffic leaves by `link` only, count what was lost meanwhile."""
    told = time.time()
    begin()

    def moved() -> bool:
        bench.paths.update()
        now = time.time()
        before = _SECOND if link == _FIRST else _FIRST
        there = bench.paths.left_by(link, A.host, other).count(now - 1, now)
        here = bench.paths.left_by(before, A.host, other).count(now - 1, now)
        return there > _RATE / 2 and not here and bench.flows()

    done = bench.until(moved, _MOVED_DEADLINE_S)
    took = time.time() - told
    bench.rest(2 + _BEHIND_S)
    until = time.time() - _BEHIND_S
    lost = bench.lost(told - 0.5, until)
    note = f"{lost} lost of {int(_RATE * (until - told))} each way, moved after {took:.1f} s"
    if not done:
        note = f"not moved within {_MOVED_DEADLINE_S} s; {note}; {bench.reasons()}"
    return Row("handover", name, 0, float(sum(lost)) if done else None, note)
