"""`main.py` of a box with two slots: starts the program in slots/a or slots/b.

The one part that an update never changes, so it is small and imports nothing of the program. What
it has in common with haaro/ota/slots.py is the file slots/boot, replaced whole each time:

    a              slot a is in use; so it is without the file
    b 3 a          b is tried and has three starts left; then a is in use again
    a failed       b was tried and did not make it

A trial that neither ends nor commits within five minutes is over too: a program that hangs does not
keep the box.
"""

import os
import sys

_TRIAL_S = 300
_WATCH_STEP_S = 5
# What main.py is asked beside a running router: no start.
_QUESTIONS = ("status", "reload", "drain", "undrain", "stop", "check")
# $PPID is this program; field 22 is when it was started, so that no other one is ever meant.
_WATCH = """p=$PPID; f='%s'
born() { cut -d ' ' -f 22 "/proc/$p/stat" 2>/dev/null; }
b=$(born)
(
    i=0
    while [ "$i" -lt %d ]; do
        sleep %d; i=$((i + %d))
        set -- $(cat "$f")
        [ "$#" = 3 ] && [ "$(born)" = "$b" ] || exit
    done
    echo "$3 failed" > "$f.new" && sync && mv "$f.new" "$f" && sync
    kill -9 "$p"
) < /dev/null > /dev/null 2>&1 &"""


def choose(base, starts=True):
    """Return (slot, whether it is on trial) for the box whose slots are in `base` + "slots/".

    With `starts` this start is counted. Neither a missing file nor a full flash leaves no slot.
    """
    path = base + "slots/boot"
    words = _words(path)
    slot = words[0] if words and words[0] in ("a", "b") else "a"
    if len(words) == 3:
        left = int(words[1]) if words[1].isdigit() else 0
        if not starts:
            return slot, True
        if left and _exists(base, slot) and _write(path, "%s %d %s" % (slot, left - 1, words[2])):
            return slot, True
        slot = words[2]
        _write(path, slot + " failed")
    other = "b" if slot == "a" else "a"
    if not _exists(base, slot) and _exists(base, other):
        slot = other
    return slot, False


def guard(path, seconds, step):
    """End this start, and the trial, if slots/boot at `path` is still about one after `seconds`."""
    if hasattr(os, "system"):
        os.system(_WATCH % (path, seconds, step, step))
        return
    try:
        from machine import Timer, reset
    except ImportError:
        return

    def over(timer):
        words = _words(path)
        if len(words) == 3:
            _write(path, words[2] + " failed")
            reset()

    try:
        timer = Timer(-1)
    except ValueError:  # the ESP32 has hardware timers only
        timer = Timer(3)
    timer.init(period=seconds * 1000, mode=Timer.ONE_SHOT, callback=over)


def start(base, arguments):
    """Run the chosen slot's program with the command line `arguments`; return its exit status."""
    asks = any(word in _QUESTIONS for word in arguments)
    slot, trial = choose(base, not asks)
    sys.path.insert(0, base + "slots/" + slot)
    trial = trial and not asks
    if trial:
        guard(base + "slots/boot", _TRIAL_S, _WATCH_STEP_S)
    status = 1
    try:
        if arguments:
            from haaro_router import main

            status = main(arguments)
        else:
            import haaro_device

            status = getattr(haaro_device, "status", 0)
    except Exception as error:
        # Whatever a program of a slot raises, its trial must be counted and the box started again.
        sys.print_exception(error)
    if status == 2 and trial:
        # It cannot even read the configuration: that is no reason not to start the old one.
        status = 1
    if status == 3 or (trial and status):
        try:
            from machine import reset
        except ImportError:
            return status
        reset()
    return status


def _words(path):
    try:
        with open(path) as file:
            return file.read().split()
    except OSError:
        return []


def _exists(base, slot):
    try:
        os.stat(base + "slots/" + slot + "/manifest")
        return True
    except OSError:
        return False


def _write(path, text):
    try:
        with open(path + ".new", "wb") as file:
            file.write(text.encode() + b"\n")
            file.flush()  # to the disk, on MicroPython
        os.rename(path + ".new", path)
        return True
    except OSError:
        return False


if __name__ == "__main__":
    _file = globals().get("__file__") or ""
    sys.exit(start(_file[: _file.rfind("/") + 1], sys.argv[1:]))
