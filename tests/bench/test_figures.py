"""The bench's own arithmetic: what it reads, searches, summarises and says."""

import json
import random

import pytest

from bench import figures, report
from bench.figures import Trial


def link(limit: float, sender: float = 1e9, overload: float = 1.0, seconds: float = 1.0):
    """Return a trial function of a path that carries `limit` datagrams a second.

    Above it the share `overload` of the limit gets through; `sender` is what the generator can do.
    """
    asked = []

    def trial(rate: float) -> Trial:
        asked.append(rate)
        sent = min(rate or sender, sender)
        arrived = sent if sent <= limit else limit * overload
        return Trial(rate, int(sent * seconds), int(arrived * seconds), seconds)

    trial.asked = asked
    return trial


@pytest.mark.parametrize("limit", [3000, 50_000, 97_531, 400_000])
@pytest.mark.parametrize("overload", [1.0, 0.6, 0.3])
def test_the_search_ends_close_below_the_highest_rate_without_loss(limit, overload):
    trial = link(limit, sender=1_000_000, overload=overload)
    found = figures.search_rate(trial, steps=8)
    assert 0.9 * limit <= found.best <= 1.01 * limit
    assert found.trials == len(trial.asked) == 9
    assert not found.generator


def test_where_the_sender_is_the_limit_the_median_of_full_speed_counts():
    speeds = iter([100.0, 140.0, 120.0, 90.0])
    found = figures.search_rate(lambda rate: Trial(rate, n := int(next(speeds)), n, 1.0), steps=6)
    assert found == figures.Rate(110.0, True, 100.0, 4)


def test_a_rate_the_sender_cannot_keep_is_said_to_be_its_limit():
    # A burst loses a little; paced, the sender ends before the path does.
    def trial(rate: float) -> Trial:
        if not rate:
            return Trial(rate, 1000_000, 600_000, 1.0)
        sent = int(min(rate, 500_000))
        return Trial(rate, sent, sent, 1.0)

    found = figures.search_rate(trial)
    assert found.generator and found.best == 500_000


def test_a_path_that_always_loses_has_no_rate():
    found = figures.search_rate(lambda rate: Trial(rate, 1000, 900, 1.0))
    assert found.best == 0 and not found.generator


def test_a_trial_without_datagrams_is_not_good():
    assert not Trial(10, 0, 0, 1.0).good
    assert Trial(10, 0, 0, 0.0).offered == 0
    assert Trial(10, 1000, 991, 1.0).good and not Trial(10, 1000, 990, 1.0).good


def test_iperf_counts_what_the_receiver_has():
    end = {
        "sum_sent": {"bits_per_second": 9e9, "retransmits": 7},
        "sum_received": {"bits_per_second": 4.5e9},
    }
    assert figures.read_iperf(json.dumps({"end": end})) == {"gbit_s": 4.5, "retransmits": 7}
    with pytest.raises(ValueError, match="unable to connect"):
        figures.read_iperf(json.dumps({"error": "unable to connect", "end": {}}))


def test_ping_lines_become_microseconds():
    text = (
        "64 bytes from 10.2.0.10: icmp_seq=1 ttl=62 time=0.059 ms\n"
        "From 10.1.0.1 icmp_seq=2 Time to live exceeded\n"
        "64 bytes from 10.2.0.10: icmp_seq=3 ttl=62 time=12 ms\n"
        "rtt min/avg/max/mdev = 0.059/6.0/12/5 ms\n"
    )
    assert figures.read_ping(text) == pytest.approx([59.0, 12000.0])


def test_busy_time_leaves_out_idle_waiting_and_stolen_time():
    text = "cpu  100 20 300 99999 5000 7 13 4000 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n"
    assert figures.read_busy(text) == pytest.approx(4.40)
    with pytest.raises(ValueError, match="/proc/stat begins with"):
        figures.read_busy("intr 5 6\n")
    assert figures.read_run_time("62592298 160438350 194\n") == 62592298


def test_quantiles_are_values_that_were_measured():
    data = list(range(1, 101))
    random.Random(1).shuffle(data)
    assert figures.quantile(data, 0.5) == 50
    assert figures.quantile(data, 0.99) == 99
    assert figures.quantile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="nothing was measured"):
        figures.quantile([], 0.5)


ROUNDS = [
    {"a": {"x": 2.0}, "b": {"x": 1.0}, "c": {"x": 9.0}},
    {"a": {"x": 30.0}, "b": {"x": 10.0}, "c": {"error": "gone"}},
    {"a": {"x": 4.0}, "b": {"error": "did not start"}, "c": {"x": 0.0}},
]


def test_ratios_are_taken_within_a_round():
    assert figures.ratio(ROUNDS, "x", "a", "b") == figures.Summary(2.5, 2.0, 3.0, 2)
    # A row that failed or measured nothing in a round makes no ratio in it.
    assert figures.ratio(ROUNDS, "x", "a", "c") == figures.Summary(2 / 9, 2 / 9, 2 / 9, 1)
    assert figures.ratio(ROUNDS, "x", "a", "nobody") is None
    assert figures.difference(ROUNDS, "x", "a", "b") == figures.Summary(10.5, 1.0, 20.0, 2)


def test_the_best_is_that_of_the_highest_median():
    assert figures.best_of(ROUNDS, "x", ("b", "c")) == "b"
    assert figures.best_of(ROUNDS, "x", ("nobody",)) is None


def test_each_round_has_every_row_once_and_begins_with_another():
    rows = [f"row {n}" for n in range(13)]
    orders = [figures.order(rows, number) for number in range(5)]
    assert all(sorted(each) == sorted(rows) for each in orders)
    assert len({each[0] for each in orders}) == 5
    assert figures.order([], 3) == []


def result(kernel_tcp: float) -> dict:
    """Return the figures of a made-up run of two rounds."""
    row = {"tcp8": 1.0, "rtt_us": 20.0, "rtt_p99_us": 30.0, "cpu_us": 5.0, "daemon_cpu_us": 2.0,
           "machine_cpu_us": 6.0, "retransmits1": 3, "blast_kpps": 90.0, "generator": False,
           "fragments": 0}  # fmt: skip
    ours = {"received_tcp": 1000, "lost_tcp": 0, "received_paced": 10, "lost_paced": 0,
            "received_flood": 1000, "lost_flood": 25}  # fmt: skip
    one = {
        "plain": {**row, "tcp1": 4.0, "kpps": 200.0},
        "kernel": {**row, **ours, "tcp1": kernel_tcp, "kpps": 190.0, "rtt_us": 20.5},
        "userspace": {**row, **ours, "tcp1": 1.0, "kpps": 90.0},
        "c_tun": {**row, "tcp1": 1.25, "kpps": 100.0},
        "openvpn_none": {**row, "tcp1": 0.5, "kpps": 60.0},
    }
    rows = {
        name: {"label": name, "secrecy": "nothing", "ours": name in ("kernel", "userspace")}
        for name in one
    }
    return {
        "rounds": [one, one],
        "rows": rows,
        "scale": [
            {"plane": "userspace", "tunnels": 64, "prefixes": 192, "heap": "384k", "kpps": 80.0,
             "generator": False, "swap_ms": 6.0, "move_ms": 1.0, "find_ns": 170,
             "heap_octets_per_packet": 0.01, "table_omitted": 0},
            {"plane": "userspace", "tunnels": 64, "prefixes": 9999, "heap": "2m",
             "refused": "MemoryError"},
        ],
        "home_agent": [{"routers": 100, "empty": {"median_ms": 1.0, "p99_ms": 2.0},
                        "restart": {"median_ms": 0.2, "p99_ms": 0.3}}],
        "star": [
            {"plain": {"tcp1": 2.0, "kpps": 100.0, "rtt_us": 30.0, "generator": False},
             "kernel": {"tcp1": 1.5, "kpps": 80.0, "rtt_us": 34.0, "generator": True},
             "userspace": {"error": "no such thing"}},
        ],
        "errors": [{"row": "kernel_routed", "round": 0, "why": "no such thing"}],
        "effort": {"rounds": 5, "tcp_s": 2, "trial_s": 0.5},
        "machine": {"cpu": "a CPU", "cpus": 2, "kernel": "6.1", "architecture": "x86_64",
                    "load_before": 0.12},
        "versions": {"tinc": "1.0"},
        "began": "2000-01-01 00:00 UTC",
        "ended": "2000-01-01 00:20 UTC",
    }  # fmt: skip


def test_a_figure_that_is_missed_is_called_missed():
    verdicts = {goal.name: goal.verdict for goal in report.goals(result(3.9))}
    assert verdicts["kernel plane TCP / plain"] == "reached"
    assert verdicts["userspace TCP / C TUN forwarder"] == "**missed**"
    assert verdicts["userspace's own loss under TCP, packets"] == "reached"
    assert verdicts["added round trip of the kernel plane, median"] == "reached"
    assert verdicts["userspace TCP / best unencrypted daemon (openvpn_none)"] == "reached"
    verdicts = {goal.name: goal.verdict for goal in report.goals(result(3.7))}
    assert verdicts["kernel plane TCP / plain"] == "**missed**"
    nothing = {**result(3.9), "rounds": [], "scale": []}
    assert {goal.verdict for goal in report.goals(nothing)} == {"not measured"}


def test_the_page_has_every_row_and_says_what_is_missing():
    page = report.page(result(3.9))
    assert "2 rounds (of 5: there was no time for more)" in page
    assert "Not measured, because it failed: kernel_routed in round 1." in page
    assert (
        "| kernel | 3.90 (0.97) | 1.00 (1.00) | 190 (0.95) | 1.90 (1.90 to 1.90) | nothing |"
        in page
    )
    assert "| userspace | 64 | 9999 | 2m | refused: MemoryError |" in page
    assert "50 of 2000 (2.50%)" in page
    assert "| haaro, home agent's kernel plane | 1.50 (0.75) | 80 (0.80) s | 34 | 4.00 |" in page
    assert "| haaro, home agent's userspace plane | - | - | - | - |" in page
    assert "$" not in page


def test_every_table_of_the_page_is_a_rectangle():
    for block in report.page(result(3.9)).split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block
