"""What is computed from measurements: no process, no clock, no file.

Reads what iperf3, ping and /proc print; searches a rate by trials it is given; takes medians over
rounds and ratios between rows of one round.
"""

from __future__ import annotations

import json
import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LOSS = 0.01
# A generator that reached less than this share of the rate it was asked for was the limit itself.
_REACHED = 0.95
_DOWN = 4
_ECHO = re.compile(r"time=([\d.]+) ms")


@dataclass(frozen=True)
class Trial:
    """One run of the generator: datagrams sent and arrived in `seconds`."""

    asked: float
    sent: int
    arrived: int
    seconds: float

    @property
    def offered(self) -> float:
        """Datagrams a second that were sent."""
        return self.sent / self.seconds if self.seconds else 0.0

    @property
    def delivered(self) -> float:
        """Datagrams a second that arrived."""
        return self.arrived / self.seconds if self.seconds else 0.0

    @property
    def loss(self) -> float:
        """Share of the sent ones that did not arrive; 1 if none was sent."""
        return 1 - self.arrived / self.sent if self.sent else 1.0

    @property
    def good(self) -> bool:
        """True below 1 % loss."""
        return self.loss < MAX_LOSS


@dataclass(frozen=True)
class Rate:
    """Result of a search. `generator`: no trial lost 1 %, so the sender was the limit."""

    best: float
    generator: bool
    blast: float
    trials: int


def search_rate(trial: Callable[[float], Trial], steps: int = 6, floor: float = 1000.0) -> Rate:
    """Find the highest rate with less than 1 % loss, by `steps` trials after a first of all there
    is (rate 0). Geometric bisection: the bound shrinks by the same factor at each step.

    The best is what arrived a second in the best good trial; 0 if none was good. Where the sender
    is the limit, all trials are of rate 0 and their median counts.
    """
    first = trial(0.0)
    if first.good:
        more = [first, *(one for one in (trial(0.0) for _ in range(steps // 2)) if one.good)]
        best = statistics.median(one.delivered for one in more)
        return Rate(best, True, first.delivered, 1 + steps // 2)
    # What gets through an overload says little of where loss begins: look on both sides of it.
    low = max(first.delivered / 2, floor)
    high = max(min(first.offered, first.delivered * 4), 2 * floor)
    best, limited, made = 0.0, False, 1
    while made <= steps and not limited:
        asked = math.sqrt(low * high)
        one = trial(asked)
        made += 1
        if one.good:
            best = max(best, one.delivered)
            limited = one.offered < asked * _REACHED
            low = asked
        else:
            high = asked
    # It may begin far below, where a plane has to wait for its CPU.
    for _ in range(_DOWN if not best else 0):
        one = trial(low)
        made += 1
        if one.good:
            best = one.delivered
            break
        low /= 2
    return Rate(best, limited, first.delivered, made)


def read_iperf(text: str) -> dict[str, float]:
    """{"gbit_s", "retransmits"} of a TCP run, as its receiver counted.

    Raises ValueError with iperf3's own error.
    """
    document = json.loads(text)
    if "error" in document:
        raise ValueError(f"iperf3: {document['error']}")
    end = document["end"]
    return {
        "gbit_s": end["sum_received"]["bits_per_second"] / 1e9,
        "retransmits": end["sum_sent"].get("retransmits", 0),
    }


def read_ping(text: str) -> list[float]:
    """Round trips in microseconds, in order of arrival."""
    return [float(found) * 1000 for found in _ECHO.findall(text)]


def read_busy(text: str) -> float:
    """Seconds that the CPUs were busy, of /proc/stat: all but idle, waiting for a disk, and what a
    hypervisor gave to others. 100 ticks a second, the kernel's USER_HZ.
    """
    words = text.split("\n", 1)[0].split()
    if words[:1] != ["cpu"] or len(words) < 8:
        raise ValueError(f"/proc/stat begins with {words[:2]}: expected the line of all CPUs")
    user, nice, system, _, _, irq, softirq = map(int, words[1:8])
    return (user + nice + system + irq + softirq) / 100


def read_run_time(text: str) -> int:
    """Nanoseconds on a CPU, of a task's /proc/PID/schedstat."""
    return int(text.split()[0])


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all are not above (nearest rank). Raises ValueError if none."""
    if not values:
        raise ValueError("no values: nothing was measured")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Summary:
    """Median, least and most over rounds, and how many there were."""

    median: float
    least: float
    most: float
    rounds: int


def summary(values: Sequence[float]) -> Summary | None:
    """Over the rounds that have a value; None if no round has."""
    if not values:
        return None
    return Summary(statistics.median(values), min(values), max(values), len(values))


Rounds = Sequence[dict[str, dict[str, Any]]]


def values(rounds: Rounds, row: str, metric: str) -> list[float]:
    """A metric of a row in every round where it was measured."""
    found = [each.get(row, {}).get(metric) for each in rounds]
    return [value for value in found if value is not None]


def ratio(rounds: Rounds, metric: str, row: str, other: str) -> Summary | None:
    """row / other, taken within each round and then summarised: what slowed a whole round down
    is in both.
    """
    found = []
    for each in rounds:
        one, two = each.get(row, {}).get(metric), each.get(other, {}).get(metric)
        if one is not None and two:
            found.append(one / two)
    return summary(found)


def difference(rounds: Rounds, metric: str, row: str, other: str) -> Summary | None:
    """row - other, within each round."""
    found = []
    for each in rounds:
        one, two = each.get(row, {}).get(metric), each.get(other, {}).get(metric)
        if one is not None and two is not None:
            found.append(one - two)
    return summary(found)


def best_of(rounds: Rounds, metric: str, rows: Sequence[str]) -> str | None:
    """The row with the highest median of a metric."""
    medians = {
        row: statistics.median(found) for row in rows if (found := values(rounds, row, metric))
    }
    return max(medians, key=lambda row: medians[row]) if medians else None


def order(rows: Sequence[str], number: int) -> list[str]:
    """The rows in the order of round `number`: each round begins elsewhere, every other one runs
    backwards, so that no row always has the same neighbours.
    """
    if not rows:
        return []
    at = number * 5 % len(rows)
    turned = [*rows[at:], *rows[:at]]
    return turned[::-1] if number % 2 else turned
