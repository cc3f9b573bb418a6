"""The board itself: which program has the serial line, and what Ctrl-C, Ctrl-D and power do.

    boot: main.py in the flash?  yes -> program     no -> REPL
    program ends: KeyboardInterrupt -> REPL         otherwise -> boot
    REPL ends (Ctrl-D): raw -> REPL, raw again      friendly -> boot
    power cut: SIGKILL, boot

as on a microcontroller, where a soft reset from the raw REPL does not run main.py. Ctrl-C reaches a
program only while its line lets it (ISIG), and code under the raw REPL always. While the next
program starts, octets from outside wait: a microcontroller's UART holds them too.
"""

import ctypes
import os
import pty
import re
import select
import signal
import termios
import tty
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from haaro_host.lab.system import LabError, micropython

_HERE = Path(__file__).parent
_RAW = b"raw REPL; CTRL-B to exit\r\n"
_PROMPT = b">>> "
_REBOOT = b"\r\nMPY: soft reboot\r\n"
_SPECIAL = re.compile(rb"[\x02-\x04]|[^\x02-\x04]+")  # Ctrl-B, C, D by themselves
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_TAIL = 256
_PIECE = 4096
_ISIG_FLAGS = 3
_QUIET_S = 0.2


@dataclass
class Faults:
    """What goes wrong with the cable: pulled after so many octets from outside, each once."""

    pull_after: list[int] = field(default_factory=list)
    seen: int = 0

    def due(self, octets: int) -> int | None:
        """Take `octets` more; return how many of them still pass if the cable is pulled now."""
        if not self.pull_after or self.seen + octets < self.pull_after[0]:
            self.seen += octets
            return None
        passed = self.pull_after.pop(0) - self.seen
        self.seen = 0
        return passed


class Board:
    """One board. `flash` is its file system, `link` a path that always leads to its port."""

    def __init__(
        self,
        flash: Path,
        link: Path,
        unique_id: str = "00c0ffee0001",
        heap: str = "512k",
        arguments: tuple[str, ...] = ("--config", "router.json", "--console", "stdin"),
        faults: Faults | None = None,
    ) -> None:
        self._flash = flash
        self._link = link
        self._arguments = arguments
        self._interpreter = [micropython(), "-X", f"heapsize={heap}"]
        self._environment = {
            **os.environ, "HAARO_BOARD_ID": unique_id, "MICROPYPATH": str(_HERE)
        }  # fmt: skip
        self._faults = faults or Faults()
        self._pid = 0
        self._child = -1
        self._master = -1
        self._slave = -1
        self._program = False  # main.py has the line, not the REPL
        self._raw = False
        self._executing = False
        self._settling = False  # the REPL is starting: its banner is awaited
        self._waiting = b""  # from outside, until it is ready
        self._tail = b""

    def run(self, should_stop: "StopFlag") -> None:
        """Be the board until `should_stop` says so."""
        self._plug()
        self._boot()
        try:
            while not should_stop.stop:
                ready, _, _ = select.select([self._master, self._child], [], [], _QUIET_S)
                if should_stop.power_cut:
                    should_stop.power_cut = False
                    self._kill()
                    self._boot()
                    continue
                if self._child in ready:
                    self._from_program()
                if self._master in ready:
                    self._from_outside()
        finally:
            self._kill()
            self._link.unlink(missing_ok=True)

    # --- cable

    def _plug(self) -> None:
        self._master, self._slave = pty.openpty()
        # Kept open: clients may come and go without an error at our end.
        tty.setraw(self._slave)
        draft = self._link.with_name(self._link.name + ".new")
        draft.unlink(missing_ok=True)
        draft.symlink_to(os.ttyname(self._slave))
        draft.replace(self._link)

    def _pull(self) -> None:
        os.close(self._master)
        os.close(self._slave)
        self._plug()

    # --- power

    def _boot(self) -> None:
        self._raw = self._executing = self._settling = False
        self._waiting = self._tail = b""
        self._program = (self._flash / "main.py").exists()
        if self._program:
            self._spawn([*self._interpreter, "main.py", *self._arguments])
        else:
            self._start_repl()

    def _start_repl(self) -> None:
        self._program, self._executing, self._settling = False, False, True
        self._spawn(self._interpreter)

    def _spawn(self, command: list[str]) -> None:
        self._tail = b""
        self._pid, self._child = pty.fork()
        if self._pid == 0:
            os.chdir(self._flash)
            os.execve(command[0], command, self._environment)
        tty.setraw(self._child)
        if self._program:
            mode = termios.tcgetattr(self._child)
            mode[_ISIG_FLAGS] |= termios.ISIG  # Ctrl-C, until the program says otherwise
            termios.tcsetattr(self._child, termios.TCSANOW, mode)

    def _kill(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def _reap(self) -> None:
        os.waitpid(self._pid, 0)
        os.close(self._child)
        self._pid = 0

    def _ended(self) -> None:
        self._reap()
        if self._program:
            if b"KeyboardInterrupt" in self._tail:
                self._start_repl()
            else:
                held = self._waiting
                self._boot()
                self._waiting = held
            return
        self._out(_REBOOT)
        if self._raw:
            self._start_repl()
        else:
            self._boot()

    # --- the line

    def _out(self, data: bytes) -> None:
        # Nobody may listen: a full pty drops, as a UART does.
        while data and select.select([], [self._master], [], 0)[1]:
            data = data[os.write(self._master, data[:_PIECE]) :]

    def _from_program(self) -> None:
        try:
            data = os.read(self._child, _PIECE)
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        self._tail = (self._tail + data)[-_TAIL:]
        if self._settling:
            self._settle(data)
            return
        if not self._program:
            if self._tail.endswith(_RAW) or _RAW + b">" in self._tail:
                self._raw = True
            if self._executing and b"\x04>" in self._tail:
                self._executing = False
                self._tail = b""
        self._out(data)

    def _settle(self, data: bytes) -> None:
        if self._raw:
            # After a soft reset of the raw REPL: neither banner nor prompt is seen outside.
            if self._tail.endswith(_PROMPT):
                os.write(self._child, b"\x01")
            at = self._tail.find(_RAW)
            if at < 0:
                return
            self._out(self._tail[at:])
        else:
            self._out(data)
            if not self._tail.endswith(_PROMPT):
                return
        self._settling = False
        held, self._waiting = self._waiting, b""
        self._in(held)

    def _from_outside(self) -> None:
        data = os.read(self._master, _PIECE)
        passed = self._faults.due(len(data))
        self._in(data if passed is None else data[:passed])
        if passed is not None:
            self._pull()

    def _in(self, data: bytes) -> None:
        for piece in _SPECIAL.findall(data):
            if self._settling:
                self._waiting += piece
            elif self._program:
                self._to_program(piece)
            else:
                self._to_repl(piece)

    def _to_program(self, octets: bytes) -> None:
        interruptible = termios.tcgetattr(self._child)[_ISIG_FLAGS] & termios.ISIG
        os.write(self._child, octets)
        if octets == b"\x03" and interruptible:
            # What follows is for the REPL, which starts when the program has ended.
            self._settling = True
            self._raw = False

    def _to_repl(self, octets: bytes) -> None:
        if octets == b"\x03" and self._executing:
            os.kill(self._pid, signal.SIGINT)
            return
        if octets == b"\x02" and not self._executing:
            self._raw = False
        if octets == b"\x04" and self._raw:
            self._executing = True
            self._tail = b""
        os.write(self._child, octets)


def leave_the_network() -> None:
    """Give this process a network of its own: a board that runs as root must not route for its
    host. Raises LabError.
    """
    for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET):
        if _LIBC.unshare(flags) == 0:
            return
    raise LabError(
        "no network namespace can be made here; give the board the network: --same-network"
    )


@dataclass
class StopFlag:
    """What signals ask of a board."""

    stop: bool = False
    power_cut: bool = False


def serve(board: Board, same_network: bool) -> None:
    """Be `board` until SIGTERM or SIGINT; SIGUSR1 cuts its power. Raises LabError."""
    if not same_network:
        leave_the_network()
    flag = StopFlag()

    def stop(number: int, frame: object) -> None:
        flag.stop = True

    def cut(number: int, frame: object) -> None:
        flag.power_cut = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGUSR1, cut)
    board.run(flag)
