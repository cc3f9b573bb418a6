"""`python -m tests.modem_sim DIRECTORY [--set KEY=JSON ...]`: a modem on a pty, until SIGTERM.

DIRECTORY gets `port`, a link to the pty; `power_key` and `reset`, files that hold the level of
these lines as a GPIO's do; and `control`, a datagram socket that takes JSON: {"hang": "reset"},
{"lost": true}. What happens is printed, one JSON object a line: {"ms", "event"}.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import select
import signal
import socket
import sys
import time
import tty
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from tests.modem_sim.modem import Behaviour, Modem
from tests.modem_sim.peer import COMMAND, Peer

_LINES = ("power_key", "reset")
_LOOK_S = 0.01
_PIECE = 4096


class Program:
    """The modem, its cable, its lines and its network."""

    def __init__(self, directory: Path, behaviour: Behaviour) -> None:
        self._began = time.monotonic()
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for name in _LINES:
            (directory / name).write_text("0")
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        (directory / "control").unlink(missing_ok=True)
        self._control.bind(str(directory / "control"))
        self._modem = Modem(behaviour)
        self._master, self._slave = pty.openpty()  # kept open: the host may come and go
        tty.setraw(self._slave)
        link = directory / "port"
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(self._slave))
        self._peer: Peer | None = None
        self._socket: socket.socket | None = None
        self._ends: set[tuple[str, int]] = set()
        self._said = 0
        self._was: tuple[object, ...] = ()
        self.stopped = False

    def run(self) -> None:
        """Be the modem until `stopped`."""
        self._print("ready")
        while not self.stopped:
            self._turn()
        if self._peer:
            self._peer.close()
        self._close_socket()

    def _turn(self) -> None:
        watched = [self._master, self._control]
        watched += [each for each in (self._peer, self._socket) if each]
        ready, _, _ = select.select(watched, [], [], self._wait())
        now = self._now()
        for name in _LINES:
            with suppress(OSError):
                level = (self._directory / name).read_text().strip()
                self._modem.set_line(now, name, int(level == "1"))
        if self._control in ready:
            self._obey(now, json.loads(self._control.recv(_PIECE)))
        if self._master in ready:
            with suppress(OSError):
                self._modem.receive(now, os.read(self._master, _PIECE))
        self._network(now, self._peer is not None and self._peer in ready)
        self._datagrams(now)
        out = self._modem.poll(now)
        while out:
            out = out[os.write(self._master, out) :]
        self._report()

    def _now(self) -> int:
        return int(1000 * (time.monotonic() - self._began))

    def _wait(self) -> float:
        following = self._modem.next_event(self._now())
        return _LOOK_S if following is None else min(_LOOK_S, (following - self._now()) / 1000)

    def _obey(self, now: int, order: dict[str, object]) -> None:
        self._print(f"ordered: {json.dumps(order)}")
        if "hang" in order:
            self._modem.hang(str(order["hang"]))
        if "lost" in order:
            self._modem.lose_network(bool(order["lost"]), now)

    def _network(self, now: int, readable: bool) -> None:
        modem = self._modem
        if modem.data_mode and not modem.stuck:
            if self._peer is None:
                self._peer = Peer(COMMAND)
            if modem.to_network:
                self._peer.write(bytes(modem.to_network))
                modem.to_network.clear()
            if readable:
                came = self._peer.read()
                if came:
                    modem.from_network(now, came)
                else:
                    modem.call_ended(now)
        elif self._peer and not modem.data_mode:
            self._peer.close()
            self._peer = None

    def _datagrams(self, now: int) -> None:
        """The NAT that an operator has: a port of ours, and only answers come in (RFC 4787 5)."""
        stack = self._modem.stack
        if stack is None or stack.port is None:
            self._close_socket()
            return
        if self._socket is None:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(("", 0))
        for octets, address, port in stack.sent:
            self._ends.add((address, port))
            with suppress(OSError):
                self._socket.sendto(octets, (address, port))
        stack.sent.clear()
        with suppress(BlockingIOError):
            while True:
                octets, end = self._socket.recvfrom(_PIECE)
                if end in self._ends:
                    stack.arrive(now, octets, *end)

    def _close_socket(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None
        self._ends.clear()

    def _report(self) -> None:
        modem = self._modem
        for text in modem.commands[self._said :]:
            self._print(text)
        self._said = len(modem.commands)
        is_now = (modem.data_mode, modem.deaf, modem.stuck, modem.registered_at is not None)
        if is_now != self._was:
            self._was = is_now
            self._print("data mode {}, deaf {!r}, stuck {}, registered {}".format(*is_now))

    def _print(self, event: str) -> None:
        print(json.dumps({"ms": self._now(), "event": event}), flush=True)


def main() -> int:
    """Run one modem."""
    parser = argparse.ArgumentParser(prog="tests.modem_sim")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON")
    given = parser.parse_args()
    behaviour = Behaviour()
    known = {each.name for each in fields(Behaviour)}
    for entry in given.set:
        key, _, value = entry.partition("=")
        if key not in known:
            parser.error(f"{key}: there are {', '.join(sorted(known))}")
        setattr(behaviour, key, json.loads(value))
    program = Program(given.directory, behaviour)

    def stop(number: int, frame: object) -> None:
        program.stopped = True

    signal.signal(signal.SIGTERM, stop)
    program.run()
    return 0


sys.exit(main())
