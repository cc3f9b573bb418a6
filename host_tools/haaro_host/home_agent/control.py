"""The home agent's local socket: one line in, one JSON document out (AF_UNIX, mode 0600).

Owns the socket file and the protocol: a word (`status`, `reload`, `stop`), for some (`revoke`,
`allow`) with a router's name or home address behind it. `serve` is for the shell, `ask` for the
command line.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

_LINE_OCTETS = 512  # a word and a name of 64 characters
_TIMEOUT_S = 5.0

Handler = Callable[[], dict[str, Any]]
NamedHandler = Callable[[str], dict[str, Any]]


class ControlError(Exception):
    """The socket cannot be used, or nobody answers; the text says what to do."""


async def serve(
    path: str, handlers: dict[str, Handler], named: dict[str, NamedHandler]
) -> asyncio.AbstractServer:
    """Listen at `path` and answer the words in `handlers`, and in `named` those with a router.

    Raises ControlError.
    """
    file = Path(path)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_socket():
            if _is_alive(path):
                raise ControlError(f"{path}: a home agent already answers there; stop it first")
            file.unlink()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _answer(reader, writer, handlers, named)

        # Nobody may connect before the mode is right.
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(answer, path, limit=_LINE_OCTETS)
        finally:
            os.umask(before)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from None


async def _answer(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handlers: dict[str, Handler],
    named: dict[str, NamedHandler],
) -> None:
    try:
        word = ""
        with suppress(ValueError, TimeoutError):
            line = await asyncio.wait_for(reader.readline(), _TIMEOUT_S)
            word = line.decode(errors="replace").strip()
        handler = handlers.get(word)
        verb, _, router = word.partition(" ")
        if handler is not None:
            result: dict[str, Any] = handler()
        elif verb in named and router:
            result = named[verb](router)
        else:
            known = [*handlers, *(f"{name} ROUTER" for name in named)]
            result = {"error": "unknown command", "known": sorted(known)}
        writer.write(json.dumps(result).encode() + b"\n")
        await asyncio.wait_for(writer.drain(), _TIMEOUT_S)
    except (OSError, TimeoutError):
        pass  # the asker went away
    finally:
        writer.close()


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_TIMEOUT_S)
        try:
            probe.connect(path)
        except OSError:
            return False
        return True


def ask(path: str, word: str) -> dict[str, Any]:
    """Send `word` to the home agent at `path`; return its answer. Raises ControlError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(path)
            connection.sendall(word.encode() + b"\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
    except OSError as error:
        raise ControlError(
            f"{path}: {error.strerror or error}: no home agent answers; is `haaro ha` running?"
        ) from None
    try:
        result: dict[str, Any] = json.loads(answer)
    except ValueError:
        raise ControlError(f"{path}: the home agent ended before it answered") from None
    return result
