"""The only place that papers over CPython and MicroPython differences; imported by every layer."""

try:
    from micropython import const
except ImportError:  # CPython

    def const(value):
        """Return `value`: MicroPython folds `_NAME = const(n)` away at compile time."""
        return value
