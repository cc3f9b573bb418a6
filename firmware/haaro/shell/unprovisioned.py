"""A box without a usable configuration: nothing runs but its console."""

import gc
import select

from haaro.compat import const

_WAIT_MS = const(1000)


class Unprovisioned:
    """What a Console needs of a box. `problem` says why there is no router, "" if none is meant."""

    registered = False
    exit_status = 0
    updater = None
    router = None

    def __init__(self, console, problem: str) -> None:
        self.problem = problem
        self.restarting = False
        self._console = console
        self.poll = select.poll()

    def run(self, profile: str) -> None:
        """Serve the console until it asks for a restart."""
        console = self._console
        console.attach(self, self.poll, profile, console.clock.now())
        while not self.restarting:
            for obj, _ in self.poll.ipoll(0 if console.busy else _WAIT_MS):
                console.handle(obj, console.clock.now())
            console.tick(console.clock.now())

    def restart(self) -> None:
        """End `run` soon."""
        self.restarting = True

    def answer(self, word: str) -> dict:
        """Answer as a router's local socket does."""
        gc.collect()
        return {
            "schema": "haaro.router.status/1",
            "state": "down",
            "provisioned": False,
            "problem": self.problem,
        }

    def close(self, failed: bool) -> None:
        """Let the console go."""
        self._console.detach()
