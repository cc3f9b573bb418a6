"""A bundle on its way in: a file that is appended to, and goes on where it ended."""

import os

from haaro.compat import const
from haaro.shell.staging import digest

_SYNC_OCTETS = const(16384)


class Part:
    """The file at `path`; `octets` of it are there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._open()

    def _open(self):
        self._file = open(self._path, "ab")  # noqa: SIM115
        self.octets = self._synced = os.stat(self._path)[6]

    def take(self, piece: bytes) -> None:
        """Append; now and then it is on the disk too, or a cut would lose all of it."""
        self._file.write(piece)
        self.octets += len(piece)
        if self.octets - self._synced >= _SYNC_OCTETS:
            self.sync()

    def sync(self) -> None:
        """Have it all on the disk."""
        self._file.flush()
        self._synced = self.octets

    def begin_again(self) -> None:
        """Forget what is there."""
        self.close()
        os.remove(self._path)
        self._open()

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class Incoming:
    """A bundle that comes by the console, for console_commands' frames as staging.Staging is."""

    def __init__(self, updater, size: int, wanted: bytes) -> None:
        text = "".join("%02x" % octet for octet in wanted)
        if not 0 < size <= 16777216 or len(wanted) != 32:
            raise ValueError("size must be 1 to 16777216, sha256 64 digits")
        part = text[:16] + ".part"
        updater.slots.forget_part(part)
        self.name = "bundle"
        self.size = size
        self._updater = updater
        self._wanted = wanted
        self._hex = text
        self._path = updater.slots.folder + part
        self._part = Part(self._path)
        if self._part.octets > size:
            self._part.begin_again()

    @property
    def offset(self) -> int:
        """Where to go on."""
        return self._part.octets

    def take(self, offset: int, octets: bytes) -> int:
        """Append; return where to go on, which is not `offset` + n if that was not the place."""
        if offset == self.offset and offset + len(octets) <= self.size:
            self._part.take(octets)
        return self.offset

    def finish(self) -> str:
        """Begin to install it; return its fingerprint. Raises ValueError."""
        self._part.sync()
        if digest(self._path) != self._wanted:
            self._part.begin_again()
            raise ValueError("the bundle is damaged; send it again")
        self._part.close()
        self.name = ""
        self._updater.install(self._path, self._hex)
        return self._hex[:8]
