"""`main.py` of a board's filesystem image: starts the router with the files beside it.

MicroPython runs it after boot. What it needs is in /lib; router.json and router.secrets.json are
put there by `haaro flash`.
"""

import sys

# The modules of haaro.platform. Elsewhere the prompt stays usable, and says so.
_PLATFORMS = ("linux",)

if sys.platform in _PLATFORMS:
    from haaro_router import main

    # The serial port that the prompt has is the console.
    status = main(["--config", "router.json", "--console", "stdin"])
else:
    print("haaro: no drivers for %r in this version; the router was not started" % sys.platform)
