"""The loop, sockets, configuration and status: everything that does I/O by the operating system."""

import sys


def unload() -> None:
    """Take what reads the configuration from the heap; the next import makes it anew."""
    for name in ("config", "config_uplinks", "config_lan", "secrets", "config_values"):
        sys.modules.pop("haaro.shell." + name, None)
        globals().pop(name, None)
