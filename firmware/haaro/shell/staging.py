"""How router.json and its secrets file are replaced: new ones beside, verified, then both or none.

    NAME.part    coming in
    NAME.new     whole and verified; the old NAME is untouched, also while the new one is tried
    router.json.commit   exists: every NAME.new takes its place, now or at the next start

A cut at any point leaves, after `recover`, the old pair or the new one. `flush` is fsync on Linux
and a sync of the file on littlefs.
"""

import os
from hashlib import sha256

from haaro.compat import const

_PIECE = const(256)
_FILE_LIMIT = const(65536)
CONFIG, SECRETS = "router.json", "router.secrets.json"


def exists(path: str) -> bool:
    """Return whether there is a file at `path`."""
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def remove(path: str) -> None:
    """Remove a file that may not be there."""
    try:
        os.remove(path)
    except OSError:
        pass


def sync_directory(path: str) -> None:
    """Have a rename or removal beside `path` on the disk before going on, where that is needed."""
    try:
        with open(path[: path.rfind("/") + 1] or ".", "rb") as directory:
            directory.flush()
    except (OSError, AttributeError):
        pass  # littlefs has it there already


def paths(config: str) -> tuple:
    """Return the paths of (router.json, its secrets file) for the box configured at `config`."""
    return config, config[: config.rfind("/") + 1] + SECRETS


def recover(config: str) -> None:
    """Finish what a cut interrupted: roll a commit forward, drop whatever else was staged."""
    committed = exists(config + ".commit")
    for path in paths(config):
        remove(path + ".part")
        if exists(path + ".new"):
            if committed:
                os.rename(path + ".new", path)
            else:
                os.remove(path + ".new")
    if committed:
        # Not before the files are in their places for good.
        sync_directory(config)
        os.remove(config + ".commit")
    sync_directory(config)


def digest(path: str) -> bytes:
    """Return the SHA-256 of a file. Raises OSError."""
    made = sha256()
    with open(path, "rb") as file:
        while True:
            piece = file.read(_PIECE)
            if not piece:
                return made.digest()
            made.update(piece)


def fingerprint(path: str) -> str:
    """Return the first 8 hexadecimal digits of a file's SHA-256, "none" if there is no file."""
    try:
        return "".join("%02x" % octet for octet in digest(path)[:4])
    except OSError:
        return "none"


class Staging:
    """What is on its way into the two files of one box."""

    def __init__(self, config: str) -> None:
        self.config = config
        self.files = dict(zip((CONFIG, SECRETS), paths(config)))
        self.name = ""  # which one is coming in
        self.size = 0
        self.offset = 0
        self._digest = b""

    def pending(self) -> list:
        """Return the names of the files that are staged."""
        return [name for name, path in sorted(self.files.items()) if exists(path + ".new")]

    def begin(self, name: str, size: int, wanted: bytes) -> int:
        """Await `size` octets with SHA-256 `wanted`; return where to go on. Raises ValueError."""
        if name not in self.files:
            raise ValueError("no file %s; files: %s, %s" % (name[:32], CONFIG, SECRETS))
        if not 0 < size <= _FILE_LIMIT or len(wanted) != 32:
            raise ValueError("size must be 1 to %d, sha256 64 digits" % _FILE_LIMIT)
        part = self.files[name] + ".part"
        if (name, size, wanted) != (self.name, self.size, self._digest) or not exists(part):
            self.name, self.size, self._digest = name, size, wanted
            self.offset = 0
            remove(self.files[name] + ".new")
            _make_private(part)
        return self.offset

    def take(self, offset: int, octets: bytes) -> int:
        """Append; return where to go on, which is not `offset` + n if that was not the place."""
        if self.name and offset == self.offset and offset + len(octets) <= self.size:
            with open(self.files[self.name] + ".part", "ab") as file:
                file.write(octets)
                file.flush()
            self.offset += len(octets)
        return self.offset

    def finish(self) -> str:
        """Verify the whole file and stage it; return its fingerprint. Raises ValueError."""
        name, path = self.name, self.files[self.name]
        self.name = ""
        if os.stat(path + ".part")[6] != self.size or digest(path + ".part") != self._digest:
            remove(path + ".part")
            raise ValueError("%s: is damaged; send it again" % name)
        if exists(path) and digest(path) == self._digest:
            remove(path + ".part")
            remove(path + ".new")
        else:
            os.rename(path + ".part", path + ".new")
            sync_directory(path)
        return "".join("%02x" % octet for octet in self._digest[:4])

    def put(self, name: str, text: str) -> None:
        """Stage `text` as the file `name`, verified. Raises ValueError, OSError."""
        octets = text.encode()
        self.begin(name, len(octets), sha256(octets).digest())
        self.take(0, octets)
        self.finish()

    def drop(self) -> None:
        """Forget what is staged."""
        self.name = ""
        for path in self.files.values():
            remove(path + ".part")
            remove(path + ".new")
        sync_directory(self.config)

    def commit(self) -> None:
        """What is staged takes the place of the old, all of it whatever happens."""
        with open(self.config + ".commit", "wb") as file:
            file.flush()
        sync_directory(self.config)
        recover(self.config)

    def wipe(self, names: tuple) -> None:
        """Overwrite and remove the files `names`, and what is staged."""
        self.drop()
        for name in names:
            path = self.files[name]
            try:
                # Under a name that `recover` removes: a cut must not leave half a file in use.
                os.rename(path, path + ".part")
                sync_directory(path)
                with open(path + ".part", "r+b") as file:
                    file.write(b"\x00" * os.stat(path + ".part")[6])
                    file.flush()
            except OSError:
                pass
            remove(path + ".part")
        sync_directory(self.config)


def _make_private(path):
    """Make an empty file that only its owner reads: MicroPython has neither umask nor chmod."""
    remove(path)
    if hasattr(os, "system"):
        if os.system("umask 077 && : > '%s'" % path.replace("'", "'\\''")):
            raise OSError("%s: cannot be made" % path)
    else:
        with open(path, "wb"):
            pass
