"""Updates: signed bundles, two slots, a trial that ends by itself."""

import sys


def unload() -> None:
    """Take what an update needs while it is under way from the heap."""
    for name in ("pull", "fetch", "install", "part", "bundle", "ed25519"):
        sys.modules.pop("haaro.ota." + name, None)
        globals().pop(name, None)
