"""Fixtures of the tests that build namespaces: see namespaces.py."""

import pytest

from tests.shell.namespaces import PLANES, Net, why_no_kernel_plane


def built(plane):
    """Yield the namespaces with a plane, or skip the test with the reason why there is none."""
    reason = why_no_kernel_plane() if plane != "userspace" else None
    if reason:
        pytest.skip(reason)
    net = Net(plane)
    try:
        net.build()
        yield net
    finally:
        net.remove()


@pytest.fixture(params=PLANES)
def plane_net(request):
    """The four namespaces, once for each data plane."""
    yield from built(request.param)


@pytest.fixture(params=[name for name in PLANES if name != "userspace"])
def kernel_net(request):
    """The four namespaces, once for each way of the kernel plane."""
    yield from built(request.param)
