"""On PYTHONPATH of a test run: Python reads it at each start. Gives keys that are made a mark."""

import os
import sys

# Who makes keys, and secrets that keys are made of; each at least 20 octets.
MAKERS = ("haaro_host.fleet.keys", "haaro_host.lab.configuration")
MARK = bytes.fromhex("1a6ec0de1a6ec0de")


def install():
    """Let the last octets of each key be the mark; the rest stays random."""
    real = os.urandom
    if getattr(real, "marks", False):
        return

    def urandom(count):
        data = real(count)
        if count >= 20 and sys._getframe(1).f_globals.get("__name__") in MAKERS:
            data = data[: -len(MARK)] + MARK
        return data

    urandom.marks = True
    os.urandom = urandom


install()
