"""The packet buffers: main.py makes them before it imports anything that fragments the heap."""

from haaro.dataplane.base import BOARD_POOL_SIZES, POOL_SIZES


def make_pools(board: bool = False) -> tuple:
    """Return the buffers `UserspacePlane` works in: batch, records and two tables.

    On a board (dataplane/udp.py) packets come one by one and heap is short.
    """
    if board:
        return tuple([bytearray(size) for size in BOARD_POOL_SIZES])
    return tuple([bytearray(size) for size in POOL_SIZES])
