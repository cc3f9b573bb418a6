"""`haaro_device` of a board's slot: starts the router with router.json and its secrets file, which
`haaro flash` puts into the root of the filesystem.

boot.py, the board's main.py, imports it after boot; `status` is how the router ended.
"""

import sys

from haaro.platform.chosen import is_board

# Elsewhere the prompt stays usable, and says why.
if is_board() or sys.platform == "linux":
    from haaro_router import main

    # The serial port that the prompt has is the console.
    status = main(["--config", "router.json", "--console", "stdin"])
else:
    status = 0
    print("haaro: %r has no buses or sockets; the router was not started" % sys.platform)
