"""Mobile router: configuration -> platform -> router -> loop.

    micropython -X heapsize=448k firmware/main.py --config router.json [--console PORT] [COMMAND]

`run` is the default. `status`, `reload` (take changed keys), `drain UPLINK` (leave it without
loss), `undrain UPLINK` and `stop` ask the running router, `check` reads the files and says what is
wrong with them. Exit status: 0 done, 1 the router ended on an error (restart it) or refused to
reload, 2 the command or a file cannot be used; `status` gives 0 up, 1 degraded, 2 down.
"""

import gc
import sys

_COMMANDS = ("run", "status", "reload", "drain", "undrain", "stop", "check")
# Collect often while importing, or the compiler's garbage leaves no hole of more than a few KB.
_IMPORT_THRESHOLD = 8192
_USAGE = (
    "usage: main.py --config router.json [--console PORT]"
    " [run|status|reload|drain X|undrain X|stop|check]"
)


def run(path, port=""):
    """Run the router described by the file at `path` until `stop`; return the exit status.

    With a console, at `port` or where the file says, it may be restarted or not be provisioned yet.
    """
    gc.collect()
    gc.threshold(_IMPORT_THRESHOLD)
    start = gc.mem_alloc()
    # Pools first: once the package is imported the heap is too fragmented for its largest buffers.
    from haaro.dataplane.pools import make_pools
    from haaro.platform.chosen import is_board, machine_class

    pools = make_pools(is_board())
    gc.collect()
    heap = {"start": start, "pools": gc.mem_alloc() - start}
    import os

    from haaro.shell.loop import Loop

    machine_type = machine_class()
    _recover(path)
    settings, options = (None, None) if port else _load(path)
    if port or options["console"]:
        settings = options = None
        from haaro.shell.supervisor import supervise

        return supervise(path, port, pools, heap, _load, machine_type)
    gc.collect()
    # From here the loop collects: each call of a larger function borrows heap for its frame, and a
    # threshold would count that as garbage at every hundred packets.
    gc.threshold(-1)
    heap["imports"] = gc.mem_alloc() - start - heap["pools"]
    machine = machine_type(settings, options, pools)
    loop = Loop(settings, options, machine, os.urandom, heap)
    status = 0
    try:
        loop.run()
        status = loop.exit_status
    except Exception as error:
        # Our bug or a machine that refuses: say what, let nothing out, be started again.
        sys.print_exception(error)
        status = 1
    finally:
        loop.close(status != 0)
    return status


def _recover(path):
    """Finish a change of both files that a cut of power interrupted."""
    import os

    try:
        os.stat(path + ".commit")
    except OSError:
        return
    from haaro.shell.staging import recover

    recover(path)


def _load(path, staged=False):
    from haaro.shell import config, unload

    loaded = config.load(path, staged)
    # Its tables and checks need not live on the heap for ever.
    unload()
    return loaded


def _ask(path, command):
    import json

    from haaro.shell.config import socket_path
    from haaro.shell.control import request

    where = socket_path(path)
    answer = request(where, command)
    if answer is None:
        return _fatal("no router answers at %s; is it running?" % where)
    print(json.dumps(answer))
    if command == "reload":
        return 0 if answer.get("reloaded") else 1
    if "error" in answer:
        return 2
    if command == "status":
        return {"up": 0, "degraded": 1}.get(answer.get("state"), 2)
    return 0


def _fatal(text):
    print("A fatal error occurred: %s" % text, file=sys.stderr)
    return 2


def main(arguments):
    """Carry out one command line; return the exit status."""
    path = None
    port = ""
    command = "run"
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--config" and rest:
            path = rest.pop(0)
        elif word == "--console" and rest:
            port = rest.pop(0)
        elif word in _COMMANDS:
            command = word
            if word in ("drain", "undrain") and rest:
                command += " " + rest.pop(0)
        else:
            return _fatal("%r is not understood; %s" % (word, _USAGE))
    if path is None:
        return _fatal("no configuration given; " + _USAGE)
    try:
        if command == "run":
            return run(path, port)
        if command == "check":
            _recover(path)
            _load(path)
            print("%s: ok" % path)
            return 0
        return _ask(path, command)
    except ValueError as error:
        return _fatal(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
