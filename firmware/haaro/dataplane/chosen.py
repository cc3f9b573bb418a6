"""The leaves in use: the viper twins where the port has a code emitter, else the plain ones."""

try:
    from haaro.dataplane import leaves_viper as leaves
except (ImportError, SyntaxError, AttributeError):  # no emitter here, or CPython
    from haaro.dataplane import leaves  # type: ignore[no-redef]

__all__ = ["leaves"]
