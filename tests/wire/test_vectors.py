"""The vectors of tests/data/vectors.json, on CPython; unix_port_tests runs them on MicroPython."""

from pathlib import Path

import pytest

from unix_port_tests import vector_checks

KEYS, VECTORS = vector_checks.load(Path(__file__).parents[1] / "data" / "vectors.json")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["id"])
def test_vector_agrees_both_ways(vector):
    """R4.1-i2, R4.2.1-2, R4.2.2-i1, R5.3-i3, R3.2-i4, R3.2-i5, R3.2-i7, R3.2-i8: octets, fields and
    verdicts are those computed from the RFC texts alone."""
    assert vector_checks.differences(vector, KEYS) == []


def test_no_vector_is_missing():
    assert len(VECTORS) == 41
