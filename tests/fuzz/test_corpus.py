"""Every input that fuzzing found worth keeping is replayed; its target's invariant holds."""

import pytest

from tests.fuzz import corpus
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_invariant_holds_on_the_whole_corpus(name):
    inputs = corpus.load(name)
    assert len(inputs) >= 10
    for data in inputs:
        TARGETS[name](data)


def test_the_corpus_stays_small():
    """Found anew in minutes: only what adds coverage is kept."""
    files = list(corpus.FOLDER.iterdir())
    assert {path.stem for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 200_000


def test_a_target_says_its_invariant_first():
    for function in TARGETS.values():
        assert len((function.__doc__ or "").splitlines()) == 1
