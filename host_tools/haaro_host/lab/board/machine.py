"""The board's own `machine`: what a microcontroller's has and MicroPython's unix port lacks.

Runs inside MicroPython, before the port's module of this name.
"""

import os

from umachine import *  # type: ignore[import-not-found]  # noqa: F403


def unique_id() -> bytes:
    """Return the id that the board was given."""
    return bytes.fromhex(os.getenv("HAARO_BOARD_ID") or "")
