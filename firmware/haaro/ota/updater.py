"""What the loop has of updates: the judge of a trial, the clock of the server's questions, and the
work under way, whose modules are in the heap only meanwhile.

    trial: registered for 10 s without a break -> kept        3 minutes over, not kept -> given back
    otherwise: ask the server every interval_s, soon after a start, a commit and a return

A trial asks nobody: nothing is installed before the last program is judged.
"""

import gc

from haaro.compat import const
from haaro.ota import unload

_HOLD_MS = const(10000)
_TRIAL_MS = const(180000)
_SECOND_MS = const(1000)
_SOON_MS = const(5000)
_MINUTE_MS = const(60000)
# Exit status of a program that wants the other slot to be started.
ANOTHER = 3


class Updater:
    """Of one loop, which has `poll`, `clock`, `settings`, `registered`, `leave` and `log`.

    `options` is `update` of router.json or None; `source` the address to ask from, "" for any;
    `random(n)` gives octets.
    """

    def __init__(self, loop, slots, options, source: str, random) -> None:
        self.slots = slots
        self.poll = loop.poll
        self.now = loop.clock.now()
        self.budget = 0
        self.busy = False
        self.client = None
        self.keys = options["keys"] if options else []
        self.offered: tuple = ("", 0)
        self.problem = ""  # of the last question or transfer
        self.refused = ""
        self._loop = loop
        self._options = options
        self._source = source
        self._random = random
        self._state = slots.state()
        self._started = self.now
        self._held_since: int | None = None
        self._refused_offer: tuple | None = None
        self._work = None
        self._second = self.now
        self._ask_at = self.now + _SOON_MS
        if options and self._state == "running":
            # Boxes whose power came back together do not all ask at once.
            self._ask_at += self._part_of(min(_MINUTE_MS, options["interval_s"] * 1000))

    def status(self) -> dict:
        """Return what the box's status says of its program."""
        return {
            "version": self.slots.version,
            "slot": self.slots.slot,
            "state": self._state,
            "problem": self.refused or self.problem,
        }

    def handle(self, obj, now: int) -> bool:
        """Go on if `obj` is the work's socket; return whether it was."""
        if self.client is None or obj is not self.client.socket:
            return False
        self.now = now
        self._step()
        return True

    def tick(self, now: int) -> None:
        """Called each second, and in every turn while `busy`."""
        self.now = now
        if now - self._second >= _SECOND_MS:
            self._second = now
            if self._options:
                self.budget = self._options["rate_kbit"] * 125
        if self._state == "trial":
            self._judge()
        elif self._work is not None:
            self._step()
        elif self._options and self._options["url"] and now >= self._ask_at:
            self._ask()

    def wants(self, digest: str, attempt: int) -> bool:
        """Return whether an offered bundle was neither tried nor refused before."""
        self.offered = (digest, attempt)
        tried = self.slots.words("tried")[:2] == [digest, str(attempt)]
        if tried or self.offered == self._refused_offer:
            return False
        self.refused = ""
        return True

    def install(self, path: str, digest: str) -> None:
        """Begin to install the bundle that the console brought. Raises ValueError."""
        if self._work is not None or self._state == "trial":
            raise ValueError("busy with %s; try again" % (self._state if not self._work else "it"))
        from haaro.ota.bundle import Bundle
        from haaro.ota.install import installing

        self.refused = self.problem = ""
        self._state = "installing"
        self._work = _pushed(installing(self.slots, Bundle(path), self.keys, digest, 0))
        self.busy = True

    def _judge(self):
        if not self._loop.registered:
            self._held_since = None
            if self.now - self._started >= _TRIAL_MS:
                self.slots.give_back()
                self._loop.log("warning", "update: not registered in time, the old one is next")
                self._state = "over"
                self._loop.leave(ANOTHER)
            return
        if self._held_since is None:
            self._held_since = self.now
        elif self.now - self._held_since >= _HOLD_MS:
            self.slots.commit()
            self._state = self.slots.state()
            self._ask_at = self.now
            self._loop.log("info", "update: %s is kept" % self.slots.version)

    def _ask(self):
        # A quarter earlier or later: boxes that started together do not stay so.
        interval = self._options["interval_s"] * 1000
        self._ask_at = self.now + interval - interval // 4 + self._part_of(interval // 2)
        if not self._loop.registered:
            self._ask_at = self.now + _SOON_MS
            return
        gc.collect()
        try:
            from haaro.ota.pull import pulling

            host, port, path = place(self._options["url"])
            self.problem = ""
            self._work = pulling(self, self._source, host, port, path, self._report())
        except MemoryError:
            self._end("no room in the heap")
            return
        self._step()

    def _part_of(self, ms):
        return int.from_bytes(self._random(2), "big") * ms >> 16

    def _report(self):
        tried = self.slots.words("tried") + ["", "0"]
        digest, attempt = tried[:2]
        state = self._state
        if self.refused:
            state = "refused"
            digest, attempt = self._refused_offer or self.offered
        return {
            "site": self._loop.settings.name,
            "board": self.slots.board,
            "version": self.slots.version,
            "slot": self.slots.slot,
            "state": state,
            "digest": digest,
            "attempt": attempt,
            "why": self.refused,
        }

    def _step(self):
        try:
            self.busy = next(self._work)
        except StopIteration as done:
            ready = done.value
            self._end("")
            if ready:
                self._loop.log("info", "update: another program is started")
                self._state = "over"
                self._loop.leave(ANOTHER)
        except ValueError as error:
            self.refused = str(error)
            self._refused_offer = self.offered
            self._ask_at = self.now + _SOON_MS
            self._end("refused: " + self.refused)
        except (OSError, MemoryError, KeyError, IndexError) as error:
            self._end(str(error) or "no room in the heap")

    def _end(self, problem):
        self.busy = False
        if self.client:
            self.client.close()
        self.client = self._work = None
        self.problem = problem
        if self._state == "installing":
            self._state = self.slots.state()
        if problem:
            self._loop.log("warning", "update: " + problem)
        unload()
        gc.collect()


def place(url: str) -> tuple:
    """Return (host, port, path) of "http://192.0.2.1:8434/path". Raises ValueError."""
    kind, _, rest = url.partition("://")
    where, _, path = rest.partition("/")
    host, _, port = where.partition(":")
    if kind != "http" or not host or not (port or "80").isdigit():
        raise ValueError("must be like http://192.0.2.1:8434")
    return host, int(port or 80), ("/" + path).rstrip("/")


def _pushed(work):
    for _ in work:
        yield True
    return True
