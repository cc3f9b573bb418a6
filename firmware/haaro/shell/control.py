"""The local socket: `status`, `reload`, `drain UPLINK`, `undrain UPLINK`, `stop`; one request a
connection, one JSON object back.

Owns an AF_UNIX stream socket and at most a few clients. Never blocks the loop: a client is read
when poll says so, and one that says nothing is dropped. MicroPython has no signals, so `stop` here
is the only orderly end of a router. `request` is the client's side, for boxes without CPython.
"""

import json
import os
import socket

from haaro.compat import const, unix_address

_MAX_CLIENTS = const(4)
_MAX_WORD = const(32)
_CLIENT_MS = const(2000)


class ControlSocket:
    """Listens at `path`; `answer(request) -> dict` is called for what a client sends."""

    def __init__(self, path: str, answer, poll) -> None:
        if request(path, "status") is not None:
            raise OSError("a router answers at %s already; stop it first" % path)
        _make_directory(path)
        try:
            os.remove(path)  # left by a killed run: nobody answered there
        except OSError:
            pass
        self._path = path
        self._answer = answer
        self._poll = poll
        self._clients: list = []  # (socket, deadline)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(unix_address(path))
        self._listener.listen(_MAX_CLIENTS)
        self._listener.setblocking(False)
        poll.register(self._listener, 1)

    def handle(self, obj, now: int) -> bool:
        """Serve `obj` if it is ours; return whether it was."""
        if obj is self._listener:
            self._accept(now)
            return True
        for client in self._clients:
            if client[0] is obj:
                self._serve(client)
                return True
        return False

    def expire(self, now: int) -> None:
        """Drop clients that have said nothing for two seconds."""
        for client in self._clients[:]:
            if now >= client[1]:
                self._drop(client)

    def close(self) -> None:
        """Close everything and remove the socket's file."""
        for client in self._clients[:]:
            self._drop(client)
        self._poll.unregister(self._listener)
        self._listener.close()
        try:
            os.remove(self._path)
        except OSError:
            pass

    def _accept(self, now: int) -> None:
        try:
            connection = self._listener.accept()[0]
        except OSError:
            return
        if len(self._clients) >= _MAX_CLIENTS:
            self._drop(self._clients[0])
        connection.setblocking(False)
        self._poll.register(connection, 1)
        self._clients.append((connection, now + _CLIENT_MS))

    def _serve(self, client: tuple) -> None:
        try:
            word = client[0].recv(_MAX_WORD)
            if word:
                _send(client[0], self._answer(word.decode().strip()))
        except (OSError, UnicodeError, MemoryError):
            pass  # a heap in pieces has no room for the answer: not worth ending for
        self._drop(client)

    def _drop(self, client: tuple) -> None:
        self._clients.remove(client)
        self._poll.unregister(client[0])
        client[0].close()


def _send(connection, answer: dict) -> None:
    """Send an object in parts: late in a router's life the heap has no hole for the whole text.
    Never blocks, as the kernel's buffer for a local socket holds an answer.
    """
    before = "{"
    for key, value in answer.items():
        connection.send((before + json.dumps(key) + ": ").encode())
        before = ", "
        if isinstance(value, list) and value:
            between = "["
            for item in value:
                connection.send((between + json.dumps(item)).encode())
                between = ", "
            connection.send(b"]")
        else:
            connection.send(json.dumps(value).encode())
    connection.send(b"}")


def request(path: str, word: str) -> dict | None:
    """Send `word` to the router that listens at `path`; return its answer, None if none listens."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(unix_address(path))
        connection.settimeout(5)
        connection.send(word.encode() + b"\n")
        answer = b""
        while True:
            piece = connection.recv(4096)
            if not piece:
                break
            answer += piece
        return json.loads(answer) if answer else None
    except (OSError, ValueError):
        return None
    finally:
        connection.close()


def _make_directory(path: str) -> None:
    at = path.find("/", 1)
    while at > 0:
        try:
            os.mkdir(path[:at])
        except OSError:
            pass  # exists, or bind will say what is wrong
        at = path.find("/", at + 1)
