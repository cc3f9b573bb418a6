"""A real terminal line (pty) of a chosen size around the command line, and what is seen on it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>78]")
_HOME = "\x1b[H"


class Terminal:
    """One program on a line of `columns` x `lines`."""

    def __init__(self, command, environment, columns=80, lines=24):
        self.pid, self.line = pty.fork()
        if self.pid == 0:
            size = struct.pack("HHHH", lines, columns, 0, 0)
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            # Both would count for more than the line's own size.
            environment = {k: v for k, v in environment.items() if k not in ("LINES", "COLUMNS")}
            os.execvpe(command[0], command, {**environment, "TERM": "xterm"})
        self.written = ""
        self.status = None
        self.last_words = "q ends it"

    def read(self, seconds):
        """Take what comes within `seconds`; False when the program has ended."""
        if select.select([self.line], [], [], seconds)[0]:
            try:
                self.written += os.read(self.line, 65536).decode(errors="replace")
            except OSError:
                return False
        return True

    def screen(self):
        """The lines of the last whole picture, as they are read."""
        pictures = self.written.split(_HOME)
        # The one before is whole; the last one may still be on its way.
        whole = [picture for picture in pictures if self.last_words in picture]
        picture = (whole or pictures)[-1]
        return [line.rstrip() for line in _SEQUENCE.sub("", picture).replace("\r", "").split("\n")]

    def until(self, condition, seconds=30):
        """The screen once `condition(lines)` holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition(self.screen()):
                return self.screen()
            if not self.read(0.2):
                break
        raise AssertionError("not seen:\n" + "\n".join(self.screen()) + repr(self.written[-400:]))

    def end(self, key=b"q", seconds=20):
        """Press a key that ends the program; its exit status."""
        os.write(self.line, key)
        end = time.monotonic() + seconds
        while self.read(0.2) and time.monotonic() < end:
            pass
        _, status = os.waitpid(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        os.close(self.line)
        return self.status

    def close(self):
        """End it in any case."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.line)
