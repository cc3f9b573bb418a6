"""Copies octets between two buffers without allocating, where the port has a code emitter."""

try:
    from haaro.lan.copying_viper import copy
# No emitter here, CPython, or a .mpy for another processor.
except (ImportError, SyntaxError, AttributeError, ValueError):

    def copy(to, at: int, source, start: int, octets: int) -> None:
        """Write source[start : start + octets] at to[at:]. The buffers are two, both borrowed."""
        to[at : at + octets] = memoryview(source)[start : start + octets]


__all__ = ["copy"]
