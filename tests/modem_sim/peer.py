"""The cellular network behind a simulated modem: `slirp-fullbolt ppp`, somebody else's PPP and NAT.

It talks on a pty of its own, from when a call begins until it ends. Debian's package is slirp.

It is a NAT that has one other end for each of our ports: whatever our second datagram goes to, all
later ones go to as well, wherever they should (slirp 1.0.17, udp_input: what it remembers of the
last socket spares it the look at the destination). Who talks to a peer by then does not reach the
home agent any more, so a router behind it must not try to.
"""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
import tty
from collections.abc import Sequence
from contextlib import suppress

# ppp_exit: when PPP is taken leave of the call is over, as on a modem.
COMMAND = ("slirp-fullbolt", "ppp", "ppp_exit")
# What router.json has behind it.
SETTINGS: dict[str, object] = {"route_optimization": {"enabled": False}}
_MOST = 65536
_READY = b"Ready"
_READY_S = 5.0


def why_not_here() -> str | None:
    """Why there is no such peer here, None if there is."""
    return None if shutil.which(COMMAND[0]) else f"{COMMAND[0]} is not installed (package slirp)"


class Peer:
    """One call."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self._process = subprocess.Popen(
            list(command), stdin=slave, stdout=slave, stderr=subprocess.PIPE,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
        os.close(slave)
        self.ended = False
        self._wait_ready()

    def _wait_ready(self) -> None:
        """What is written earlier it may lose."""
        words = self._process.stderr
        assert words is not None
        said = b""
        end = time.monotonic() + _READY_S
        while _READY not in said and time.monotonic() < end:
            if select.select([words], [], [], end - time.monotonic())[0]:
                said += words.read(_MOST) or b""

    def fileno(self) -> int:
        """Of what is readable when it has something to say."""
        return self._master

    def write(self, octets: bytes) -> None:
        """Give it what came from the host; what it does not take is lost, as on a radio."""
        with suppress(OSError):
            os.write(self._master, octets)

    def read(self, wait_s: float = 0.0) -> bytes:
        """What it says now, or within `wait_s` seconds."""
        ready, _, _ = select.select([self._master], [], [], wait_s)
        if not ready:
            return b""
        try:
            octets = os.read(self._master, _MOST)
        except OSError:
            octets = b""
        self.ended = not octets
        return octets

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stderr:
            self._process.stderr.close()
        os.close(self._master)
