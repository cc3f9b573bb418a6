"""The packet buffers: main.py makes them before it imports anything that fragments the heap."""

from haaro.dataplane.base import POOL_SIZES


def make_pools() -> tuple:
    """Return the buffers `UserspacePlane` works in: batch and records."""
    return tuple([bytearray(size) for size in POOL_SIZES])
