"""`haaro_device` of a board's slot: starts the router with router.json and its secrets file, which
`haaro flash` puts into the root of the filesystem.

boot.py, the board's main.py, imports it after boot; `status` is how the router ended.
"""

import sys

# The modules of haaro.platform. Elsewhere the prompt stays usable, and says so.
_PLATFORMS = ("linux",)

if sys.platform in _PLATFORMS:
    from haaro_router import main

    # The serial port that the prompt has is the console.
    status = main(["--config", "router.json", "--console", "stdin"])
else:
    status = 0
    print("haaro: no drivers for %r in this version; the router was not started" % sys.platform)
