# ruff: noqa: F821
"""The viper twin of `copying.copy`; on ports without a code emitter this file is a SyntaxError."""

import micropython


@micropython.viper
def copy(to, at: int, source, start: int, octets: int):
    to_p = ptr8(to)
    source_p = ptr8(source)
    end = start + octets
    while start < end:
        to_p[at] = source_p[start]
        at += 1
        start += 1
