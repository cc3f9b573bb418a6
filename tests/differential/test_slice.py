"""A short slice of `make differential`: both runtimes read and build the same."""

from collections import Counter

from tests.differential import run

SEED = 6521


def test_both_runtimes_agree_on_generated_messages():
    """Reports are equal, and what was read is built again as the same octets."""
    tally: Counter[str] = Counter()
    assert run.differences(SEED, 1500, tally) == []
    assert min(tally[kind] for kind in ("v", "m", "p", "refused")) > 100


def test_a_difference_is_seen(monkeypatch):
    real = run.in_micropython
    monkeypatch.setattr(run, "in_micropython", lambda *a: [*real(*a)[:-1], "something else"])
    assert len(run.differences(SEED, 20)) == 1
