"""The vectors of tests/data/vectors.json, on MicroPython."""

import gc

import support
import vector_checks

from haaro.wire import message
from haaro.wire.errors import WireError


def in_use():
    gc.collect()
    gc.collect()
    return gc.mem_alloc()


def test_every_vector_agrees_both_ways():
    """R4.1-i2, R4.2.1-2, R4.2.2-i1, R5.3-i3, R3.2-i4, R3.2-i5, R3.2-i7, R3.2-i8: as on CPython."""
    keys, vectors = vector_checks.load(support.VECTORS)
    wrong = []
    for vector in vectors:
        wrong += [vector["id"] + ": " + d for d in vector_checks.differences(vector, keys)]
    assert len(vectors) == 41
    assert not wrong, "\n".join(wrong)


def test_malformed_datagrams_raise_only_wire_error_and_leave_no_heap():
    """Every vector, every truncation and every octet set to 0xff."""
    _, vectors = vector_checks.load(support.VECTORS)
    datagrams = [bytes.fromhex(v["hex"]) for v in vectors if v["kind"] == "datagram"]
    vectors = None
    before = in_use()
    refused = 0
    for data in datagrams:
        for i in range(len(data)):
            for damaged in (data[:i], data[:i] + b"\xff" + data[i + 1 :]):
                try:
                    message.parse(damaged)
                except WireError:
                    refused += 1
    assert refused > 1000
    damaged = data = None
    assert in_use() - before < 1024
