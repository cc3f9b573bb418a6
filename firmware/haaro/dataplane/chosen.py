"""The leaves in use: the viper twins where the port has a code emitter, else the plain ones."""

try:
    from haaro.dataplane import leaves_viper as leaves
# No emitter here, CPython, or a .mpy for another processor.
except (ImportError, SyntaxError, AttributeError, ValueError):
    from haaro.dataplane import leaves  # type: ignore[no-redef]

__all__ = ["leaves"]
