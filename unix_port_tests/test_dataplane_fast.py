"""The tests of forwarding once more on the fast path, without superframes and with them."""

# heapsize: 2m

import plane_rig
import test_dataplane
import test_dataplane_encapsulations
import test_dataplane_marks
import test_dataplane_mtu
import test_dataplane_refusals

from haaro.dataplane.chosen import leaves


def run(module, ahead):
    if not leaves.FAST:
        return
    plane_rig.DEFAULT["ahead"] = ahead
    try:
        for name in dir(module):
            if name.startswith("test_"):
                print(name)
                getattr(module, name)()
    finally:
        plane_rig.DEFAULT["ahead"] = 0


def test_forwarding():
    run(test_dataplane, 14)


def test_forwarding_with_superframes():
    run(test_dataplane, 24)


def test_marks():
    run(test_dataplane_marks, 14)


def test_marks_with_superframes():
    run(test_dataplane_marks, 24)


def test_mtu():
    run(test_dataplane_mtu, 14)


def test_mtu_with_superframes():
    run(test_dataplane_mtu, 24)


def test_refusals():
    run(test_dataplane_refusals, 14)


def test_refusals_with_superframes():
    run(test_dataplane_refusals, 24)


def test_encapsulations():
    run(test_dataplane_encapsulations, 14)


def test_encapsulations_with_superframes():
    run(test_dataplane_encapsulations, 24)
