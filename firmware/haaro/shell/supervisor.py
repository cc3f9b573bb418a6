"""Runs the router again and again in one process, for a console that outlives it.

A restart is asked for by the console: a new configuration is tried, kept or taken back, the box is
wiped. Called by main.py when there is a console; without one none of this is loaded.
"""

import gc
import os
import sys

from haaro.shell import console as consoles
from haaro.shell import staging
from haaro.shell.loop import Loop
from haaro.shell.unprovisioned import Unprovisioned


def supervise(path: str, port: str, pools: tuple, heap: dict, load, machine) -> int:
    """Serve the box configured at `path`, with its console at `port` ("": what router.json says),
    until `stop`; return the exit status. `load(path, staged)` is main.py's, machine the class of
    the platform's attachment.
    """
    staging.recover(path)
    speed = 0
    loaded, problem = _load(path, False, load)
    if loaded and loaded[1]["console"]:
        port = port or loaded[1]["console"]["port"]
        speed = loaded[1]["console"]["speed"]

    def open_door():
        from haaro.shell.console_door import Door

        return Door(port, speed)

    console = consoles.Console(path, open_door, port == consoles.STREAM)
    gc.collect()
    gc.threshold(-1)
    heap["imports"] = gc.mem_alloc() - heap["start"] - heap["pools"]  # type: ignore[attr-defined]
    try:
        while True:
            status, again = _once(console, loaded, problem, pools, heap, machine)
            if not again:
                return status
            gc.collect()
            loaded, problem = _load(path, console.trial_until is not None, load)
    finally:
        console.close()


def _load(path, staged, load):
    """Return (what was loaded or None, what is wrong with it)."""
    if not staging.exists(path):
        return None, ""
    try:
        return load(path, staged), ""
    except ValueError as error:
        return None, str(error)


def _once(console, loaded, problem, pools, heap, machine):
    """Run one box to its end; return (exit status, whether there is another)."""
    box = None
    failed = True
    attached = None
    try:
        if loaded:
            settings, options = loaded
            try:
                attached = machine(settings, options, pools)
            except ValueError as error:
                # What this port cannot do is a fault of the file, and the console goes on.
                if console.trial_until is not None:
                    raise
                problem = str(error)
        if attached:
            profile = options["console"]["profile"] if options["console"] else consoles.LOCKED
            box = Loop(settings, options, attached, os.urandom, heap, console)
        else:
            # A REPL reads every file: never where there are keys.
            keys = staging.exists(console.staging.files[staging.SECRETS])
            profile = consoles.LOCKED if keys else consoles.BENCH
            box = Unprovisioned(console, problem)
        box.run(profile)
        failed = box.restarting or box.exit_status != 0
        return box.exit_status, box.restarting
    except Exception as error:
        if console.trial_until is None:
            # Our bug or a machine that refuses: say what, and be started again.
            sys.print_exception(error)  # type: ignore[attr-defined]
            return 1, False
        console.abandon(str(error))
        return 0, True
    finally:
        if box is not None:
            box.close(failed)
