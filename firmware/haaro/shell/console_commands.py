"""The commands of the console. Each yields its lines; `run` adds nothing, a ValueError is what was
wrong. One grammar: a command without an argument shows its value.
"""

import json
import sys

from haaro.shell import staging
from haaro.shell.console_lock import not_locked
from haaro.wire import ipv4

_HELP = (
    "status [json]               the box in short",
    "show uplinks|peers|routes|counters|log",
    "set [KEY [VALUE]]           stage a change of router.json: set keepalive.ha_s 20",
    "provision [FILE SIZE SHA256] stage a whole file; then frames :OFFSET BASE64 CRC32",
    "apply [confirm]             take what is staged into use; it reverts by itself after 90 s",
    "                            unless confirmed or registered with the home agent",
    "revert                      drop what is staged or tried",
    "ping [ADDRESS [via UPLINK]] by the tunnel that leads there; or in the clear, by an uplink",
    "trace [on|off]              say log lines and messages as they come",
    "update [SIZE SHA256]        a new program for the idle slot; then frames as for a file",
    "reset [config|keys|all]     wipe; then the box is not provisioned",
    "reboot, logout, help",
)


def run(console, now: int, words: list):
    """Yield the lines of the answer to the command line `words`. Raises ValueError, OSError."""
    first = words[0]
    if first.startswith(":"):
        return _frame(console.incoming or console.staging, words)
    command = _COMMANDS.get(first)
    if command is None:
        # Not repeated: it may be a key that was pasted.
        return _wrong("no such command; help lists them")
    return command(console, now, words[1:])


def _wrong(text):
    raise ValueError(text)
    yield ""


def unique_id() -> str:
    """Return the board's id in hexadecimal, "" if it has none."""
    try:
        import machine

        return "".join("%02x" % octet for octet in machine.unique_id())
    except (ImportError, AttributeError):
        pass
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _status(console, now, words):
    box = console.box
    if words == ["json"]:
        # In parts: the heap may have no hole for the whole text.
        before = "{"
        answer = box.answer("status")
        for key in answer:
            yield "%s%s: %s" % (before, json.dumps(key), json.dumps(answer[key]))
            before = ","
        yield "}"
        return
    router = box.router
    if router is None:
        yield "state: not provisioned"
        if box.problem:
            yield "problem: " + box.problem
    else:
        yield "name: " + box.settings.name
        yield "state: " + ("registered" if box.registered else "not registered")
    yield "platform: " + sys.platform
    yield "build: " + getattr(sys.implementation, "_build", "")
    yield "unique_id: " + unique_id()
    for name, path in sorted(console.staging.files.items()):
        yield "%s: %s" % (name, staging.fingerprint(path))
    yield "pending: " + _pending(console, now)
    yield "profile: " + console.profile
    yield "uptime_s: %d" % (now // 1000)
    if router is not None:
        for text in not_locked():
            yield "not locked: " + text


def _pending(console, now):
    if console.trial_until is not None:
        return "on trial, %d s left" % max(0, (console.trial_until - now) // 1000)
    return " ".join(console.staging.pending()) or "none"


def _show(console, now, words):
    what = words[0] if len(words) == 1 else ""
    if what == "log":
        yield from console.ring[:]
        return
    if what not in ("uplinks", "peers", "routes", "counters"):
        _fail("show what? uplinks, peers, routes, counters, log")
    router = console.box.router
    if router is None:
        _fail("not provisioned")
    if what == "routes":
        for prefix, plen, tunnel, _ in router.forwarding_table()[0]:
            path = "direct" if tunnel > 0 else "ha" if tunnel == 0 else "lan"
            yield "%s/%d %s" % (ipv4.text(prefix), plen, path)
        return
    found = router.status(now)[what]
    if what == "uplinks":
        links = getattr(getattr(console.box, "machine", None), "links", None)
        for one in found:
            state = "up" if one["up"] else "down"
            why = one["why"]
            if links and links[one["index"]].reason:
                why = links[one["index"]].reason
            yield "%s %s %s; %s" % (one["name"], state, one["care_of_address"] or "-", why)
    elif what == "peers":
        for one in found:
            yield "%s %s; %s" % (one["cr_hoa"], one["path"], one["reason"])
    else:
        found.update(console.box.plane.counters())
        for name, count in sorted(found.items()):
            yield "%s %d" % (name, count)


# --- configuration ------------------------------------------------------------------------------


def _read(console):
    path = console.staging.files[staging.CONFIG]
    if staging.exists(path + ".new"):
        path += ".new"
    try:
        with open(path) as file:
            return json.load(file)
    except OSError:
        _fail("not provisioned: there is nothing to change")


def _set(console, now, words):
    document = _read(console)
    if not words:
        for key in sorted(document):
            yield "%s: %s" % (key, json.dumps(document[key]))
        return
    text = " ".join(words[1:])
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    at = document
    keys = words[0].split(".")
    try:
        for key in keys[:-1]:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        last = int(keys[-1]) if isinstance(at, list) else keys[-1]
        if len(words) == 1:
            yield "%s: %s" % (words[0], json.dumps(at[last]))
            return
        at[last] = value
    except (KeyError, IndexError, ValueError, TypeError, AttributeError):
        _fail("%s: is not set" % words[0][:60])
    _stage(console, json.dumps(document))
    yield "%s: %s, staged; next: apply" % (words[0], json.dumps(value))


def _stage(console, text):
    _no_trial(console)
    path = console.staging.files[staging.CONFIG] + ".new"
    before = None
    if staging.exists(path):
        with open(path) as file:
            before = file.read()
    console.staging.put(staging.CONFIG, text)
    try:
        console.check_staged()
    except ValueError:
        staging.remove(path)
        if before is not None:
            console.staging.put(staging.CONFIG, before)
        raise


def _no_trial(console):
    if console.trial_until is not None:
        _fail("a configuration is on trial: apply confirm, or revert")


def _provision(console, now, words):
    held = console.staging
    if not words:
        for name, path in sorted(held.files.items()):
            yield "%s: %s, staged %s" % (
                name,
                staging.fingerprint(path),
                staging.fingerprint(path + ".new"),
            )
        if held.name:
            yield "coming in: %s, %d of %d" % (held.name, held.offset, held.size)
        return
    _no_trial(console)
    console.incoming = None
    try:
        name, size, wanted = words
        at = held.begin(name, int(size), bytes.fromhex(wanted))
    except TypeError:
        _fail("provision FILE SIZE SHA256")
    yield "at %d" % at


def improv(console):
    """Return what takes Wi-Fi credentials, None where the program is for a board without Wi-Fi."""
    try:
        from haaro.shell.improv import Improv
    except ImportError:
        return None
    return Improv(console)


def _update(console, now, words):
    updater = console.box.updater
    if updater is None:
        _fail("this box has no slots, or no router: its program is not changed by it")
    if not words:
        for key, value in sorted(updater.status().items()):
            yield "%s: %s" % (key, value)
        return
    from haaro.ota.part import Incoming

    try:
        size, wanted = words
        console.incoming = Incoming(updater, int(size), bytes.fromhex(wanted))
    except TypeError:
        _fail("update SIZE SHA256")
    yield "at %d" % console.incoming.offset


def _frame(held, words):
    """`:OFFSET BASE64 CRC32`: a piece of the file that is coming in. Answers where to go on."""
    import binascii

    if not held.name:
        _fail("no file is coming in; first: provision FILE SIZE SHA256")
    try:
        offset, text, wanted = int(words[0][1:]), words[1], int(words[2], 16)
        octets = binascii.a2b_base64(text)
        good = len(words) == 3 and binascii.crc32(octets) == wanted
    except (ValueError, IndexError):
        good = False
    if not good:
        _fail("a frame is damaged; at %d" % held.offset)
    at = held.take(offset, octets)
    if at == held.size:
        name = held.name
        yield "staged %s %s" % (name, held.finish())
    yield "at %d" % at


def _apply(console, now, words):
    if words == ["confirm"]:
        console.confirm("confirmed")
        yield "kept"
        return
    if words:
        _fail("apply, or apply confirm")
    first = not staging.exists(console.staging.config)
    console.apply()
    yield "in place" if first else "on trial for 90 s"


def _revert(console, now, words):
    tried = console.trial_until is not None
    if not tried and not console.staging.pending():
        _fail("nothing is staged or tried")
    console.revert("revert was asked for")
    yield "the old configuration is back" if tried else "dropped"


def _reset(console, now, words):
    files = {"config": (staging.CONFIG,), "keys": (staging.SECRETS,)}
    files["all"] = files["config"] + files["keys"]
    if len(words) != 1 or words[0] not in files:
        _fail("reset what? config, keys or all; nothing was changed")
    console.trial_until = None
    console.staging.wipe(files[words[0]])
    if words[0] == "all":
        console.ring.clear()
    console.log("warning", "console: reset " + words[0])
    console.box.restart()
    yield "wiped: " + " ".join(files[words[0]])


def _reboot(console, now, words):
    console.box.restart()
    yield "going down"


# --- looking at the net -------------------------------------------------------------------------


def _trace(console, now, words):
    if words in (["on"], ["off"]):
        console.tracing = words == ["on"]
    elif words:
        _fail("trace on, or trace off")
    yield "trace: %s, %d lines lost" % ("on" if console.tracing else "off", console.lost_lines)


def _ping(console, now, words):
    if not words:
        yield "ping: " + (console.ping.target if console.ping else "none")
        return
    if console.box.router is None:
        _fail("not provisioned")
    if console.ping is not None:
        _fail("a ping is under way; Ctrl-C ends it")
    if len(words) == 1:
        from haaro.shell.console_ping import Ping as Kind
    else:
        from haaro.shell.console_ping_uplink import UplinkPing as Kind
    console.ping = Kind(console, now, words)
    yield "ping: %s by %s" % (console.ping.target, console.ping.way)


def _help(console, now, words):
    yield from _HELP


def _fail(text):
    raise ValueError(text)


_COMMANDS = {
    "status": _status,
    "show": _show,
    "set": _set,
    "provision": _provision,
    "update": _update,
    "apply": _apply,
    "revert": _revert,
    "ping": _ping,
    "trace": _trace,
    "reset": _reset,
    "reboot": _reboot,
    "help": _help,
}
