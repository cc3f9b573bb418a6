"""Files that are replaced whole, and the lock that keeps two commands from doing so at once."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PRIVATE = 0o600
PUBLIC = 0o644
_LOCK_S = 10.0
_LOCK_STEP_S = 0.05


class FleetError(Exception):
    """The command cannot be carried out; the text says what is wrong and what to do.

    `code` is the exit status: 1 refused, 2 a file of the operator's is bad.
    """

    code = 1


class FleetFileError(FleetError):
    """fleet.toml cannot be read or is refused."""

    code = 2


def write_whole(path: Path, data: bytes, mode: int) -> bool:
    """Make `path` hold `data` with `mode`; return False when it did already.

    Written beside, synced, renamed: a cut of power leaves the old file or the new one.
    """
    with suppress(OSError):
        if path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
            return False
    draft = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(handle, "wb") as sink:
            os.fchmod(sink.fileno(), mode)
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}; nothing was changed there") from None
    return True


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold `directory` against every other command that changes the fleet; wait 10 s for it.

    The lock is the kernel's, on the directory itself: it leaves no file and ends with its process.
    """
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FleetError(f"{directory}: {error.strerror}; make that directory first") from None
    try:
        give_up = time.monotonic() + _LOCK_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise FleetError(
                        f"{directory}: another haaro command works on this fleet;"
                        " wait for it and try again"
                    ) from None
                time.sleep(_LOCK_STEP_S)
        yield
    finally:
        os.close(handle)
