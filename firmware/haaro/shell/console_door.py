"""The console's serial line: a tty of a Linux box, or the stream on which the REPL talks.

Owns the line's mode. Never waits: octets are read one by one after poll said that there is one,
and written few at a time after poll said that there is room.
"""

import select
import sys

from haaro.compat import const
from haaro.shell.console import STREAM

try:
    import termios
except ImportError:  # microcontrollers: their stream is raw already
    termios = None

_IN = const(1)
_OUT = const(4)
# Linux says "writable" from 256 octets of room; so many never block.
_ROOM = const(64)
_ISIG = const(1)
_LFLAG = const(3)
_ISPEED = const(4)


class Door:
    """One open line. `port` is a path, or STREAM for stdin and stdout (on a microcontroller: USB
    or UART, whatever the REPL uses). `speed` in bits a second, 0: as it is. Raises OSError.
    """

    def __init__(self, port: str, speed: int = 0) -> None:
        if port == STREAM:
            self.reader = sys.stdin
            self._in = sys.stdin.buffer
            self.writer = sys.stdout
            self._out = sys.stdout.buffer
        else:
            self.reader = self._in = self.writer = self._out = open(port, "r+b")  # noqa: SIM115
        self._before = None
        self._one = bytearray(1)
        self._ready = select.poll()
        self._ready.register(self.reader, _IN)
        self._space = select.poll()
        self._space.register(self.writer, _OUT)
        self._poll = None
        self._wanted = False
        if termios:
            self._raw(speed)

    def _raw(self, speed):
        try:
            number = 0 if self.reader is sys.stdin else self._in.fileno()
            self._before = termios.tcgetattr(number)
            termios.setraw(number)
            mode = termios.tcgetattr(number)
            # By name: which speeds there are differs by port.
            rate = getattr(termios, "B%d" % speed, None) if speed else None
            if rate is not None:
                mode[_ISPEED] = mode[_ISPEED + 1] = rate
            self._mode = mode
            self._number = number
            termios.tcsetattr(number, termios.TCSANOW, mode)
        except OSError:
            self._before = None  # a pipe or a file

    def interruptible(self, yes: bool) -> None:
        """Let Ctrl-C end the program, or be a character like others."""
        import micropython

        if self.reader is sys.stdin:
            try:
                micropython.kbd_intr(3 if yes else -1)
            except AttributeError:
                pass  # a port without
        if self._before is not None:
            flags = self._mode[_LFLAG]
            self._mode[_LFLAG] = flags | _ISIG if yes else flags & ~_ISIG
            termios.tcsetattr(self._number, termios.TCSANOW, self._mode)

    def attach(self, poll) -> None:
        """Have the line watched by `poll`."""
        self._poll = poll
        poll.register(self.reader, _IN)

    def want(self, output: bool) -> None:
        """Have it watched for room to write too, or no more."""
        if output == self._wanted or self._poll is None:
            return
        self._wanted = output
        if self.writer is self.reader:
            self._poll.modify(self.reader, _IN | _OUT if output else _IN)
        elif output:
            self._poll.register(self.writer, _OUT)
        else:
            self._poll.unregister(self.writer)

    def read(self) -> int:
        """Return the next octet, -1 when there is none now, -2 when the line is gone."""
        for _, event in self._ready.ipoll(0):
            try:
                if event & _IN and self._in.readinto(self._one):
                    return self._one[0]
            except OSError:
                pass
            return -2
        return -1

    def room(self) -> bool:
        """Return whether `write` would write."""
        for _, event in self._space.ipoll(0):
            return bool(event & _OUT)
        return False

    def write(self, data: bytes) -> int:
        """Write what there is room for; return how many octets, -2 when the line is gone."""
        try:
            return self._out.write(data[:_ROOM])
        except OSError:
            return -2

    def detach(self) -> None:
        """Have it no longer watched."""
        poll, self._poll = self._poll, None
        self._wanted = False
        for obj in (self.reader, self.writer):
            try:
                poll.unregister(obj)
            except (OSError, KeyError, AttributeError):
                pass

    def close(self) -> None:
        """Give the line back as it was."""
        if self._before is not None:
            try:
                termios.tcsetattr(self._number, termios.TCSANOW, self._before)
            except OSError:
                pass
        if self.reader is not sys.stdin:
            self._in.close()
