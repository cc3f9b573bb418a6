"""Provisioning a blank MicroPython over its raw REPL, by mpremote's own transport.

    firmware but main.py, each new + verified + renamed
    router.json.new, router.secrets.json.new, verified; then router.json.commit
    main.py last

Until main.py is there the box boots into its REPL, and the next run goes on where this one ended.
What the commit marker means is shell/staging.py's: at the first boot both files take their places.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator

import serial
from mpremote.transport import TransportError
from mpremote.transport_serial import SerialTransport

from haaro_host.fleet.export import File
from haaro_host.fleet.files import PRIVATE
from haaro_host.ota import tree
from haaro_host.provision.box import Identity, Progress
from haaro_host.provision.line import SPEED, PortError

_TIMEOUT_S = 5.0
# What a MicroPython without much heap takes in one piece.
_CHUNK = 1024
_MARKER = "router.json.commit"

_WHO = """
import sys
try:
    import machine
    who = ''.join('%02x' % octet for octet in machine.unique_id())
except (ImportError, AttributeError):
    try:
        with open('/etc/machine-id') as file:
            who = file.read().strip()
    except OSError:
        who = ''
print(repr((sys.platform, getattr(sys.implementation, '_build', ''), who)))
"""
_HELPERS = """
import os, hashlib
def has(path):
    h = hashlib.sha256()
    try:
        with open(path, 'rb') as file:
            while True:
                piece = file.read(512)
                if not piece:
                    return h.digest()
                h.update(piece)
    except OSError:
        return b''
def private(path):
    if hasattr(os, 'system'):
        os.system("umask 077; rm -f '%s'; : > '%s'" % (path, path))
def gone(path):
    try:
        os.remove(path)
    except OSError:
        pass
"""


class BlankBox:
    """A MicroPython at its REPL. Raises PortError for whatever goes wrong on the line."""

    def __init__(self, port: str) -> None:
        """Enter the raw REPL of the box at `port`, after a soft reset."""
        with _lines(port):
            # A link to a pty is not taken for one, and polled a hundred times a second.
            self._transport = SerialTransport(os.path.realpath(port), SPEED, timeout=_TIMEOUT_S)
            self._transport.enter_raw_repl()
        self._port = port

    def identity(self) -> Identity:
        """Return what the box says of itself."""
        with _lines(self._port):
            self._transport.exec(_HELPERS)
            self._transport.exec(_WHO)
            return Identity(*self._transport.eval(
                "(sys.platform, getattr(sys.implementation, '_build', ''), who)"
            ))  # fmt: skip

    def install(self, files: list[File], progress: Progress, board: str) -> list[str]:
        """Write the firmware and `files`; return the names of what was written."""
        with _lines(self._port):
            return self._install(files, progress, board)

    def _install(self, files: list[File], progress: Progress, board: str) -> list[str]:
        program = _program(board)
        last = program.pop("main.py")
        todo = [(name, data, False) for name, data in program.items() if not self._has(name, data)]
        todo += [
            (name, data, mode == PRIVATE)
            for name, data, mode in files
            if not self._has(f"{name}.new", data)
        ]
        total = sum(len(data) for _, data, _ in todo) + len(last)
        done = 0
        made: set[str] = set()
        for name, data, private in todo:
            self._directories(name, made)
            staged = f"{name}.new"
            self._write(staged, data, private)
            if name in program:
                self._transport.exec(f"os.rename({staged!r}, {name!r})")
            done += len(data)
            progress(name, done, total)
        self._transport.exec(f"open({_MARKER!r}, 'wb').close()")
        self._write("main.py.new", last, False)
        self._transport.exec("os.rename('main.py.new', 'main.py')")
        progress("main.py", total, total)
        return [name for name, _, _ in todo] + ["main.py"]

    def boot(self) -> None:
        """Soft reset, so that main.py runs, and let the port go."""
        with _lines(self._port):
            self._transport.exit_raw_repl()
            self._transport.read_until(1, b">>> ", timeout=_TIMEOUT_S)
            self._transport.serial.write(b"\x04")
            self._transport.read_until(1, b"soft reboot\r\n", timeout=_TIMEOUT_S)
            self._transport.close()

    def close(self) -> None:
        """Let the port go."""
        with contextlib.suppress(OSError, AttributeError):
            self._transport.close()

    def _has(self, path: str, data: bytes) -> bool:
        found: bytes = self._transport.eval(f"has({path!r})")
        return found == hashlib.sha256(data).digest()

    def _directories(self, name: str, made: set[str]) -> None:
        parts = name.split("/")[:-1]
        for length in range(1, len(parts) + 1):
            folder = "/".join(parts[:length])
            if folder not in made:
                made.add(folder)
                with contextlib.suppress(OSError):
                    self._transport.fs_mkdir(folder)

    def _write(self, path: str, data: bytes, private: bool) -> None:
        self._transport.exec(f"private({path!r})" if private else f"gone({path!r})")
        self._transport.fs_writefile(path, data, _CHUNK)
        if not self._has(path, data):
            raise TransportError(f"{path} does not hold what was sent")


def _program(board: str) -> dict[str, bytes]:
    """Return the box's tree with the router in slot A, {path in the flash: octets}."""
    # eBPF is for boxes that have a network to fetch it by.
    files = {name: data for name, data in tree.sources().items() if name.endswith(".py")}
    return tree.initial(files, board, tree.SOURCES, tree.version(0))


@contextlib.contextmanager
def _lines(port: str) -> Iterator[None]:
    # The transport prints what it cannot make sense of; what a box sends may hold anything.
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (TransportError, serial.SerialException, OSError) as error:
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise PortError(f"{port}: {reason[:120]}; give the command again, it goes on") from None
