"""The vectors of tests/data/vectors.json, on MicroPython."""

import support
import vector_checks


def test_every_vector_agrees_both_ways():
    """R4.1-i2, R4.2.1-2, R4.2.2-i1, R5.3-i3, R3.2-i4, R3.2-i5, R3.2-i7, R3.2-i8: as on CPython."""
    keys, vectors = vector_checks.load(support.VECTORS)
    wrong = []
    for vector in vectors:
        wrong += [vector["id"] + ": " + d for d in vector_checks.differences(vector, keys)]
    assert len(vectors) == 41
    assert not wrong, "\n".join(wrong)
