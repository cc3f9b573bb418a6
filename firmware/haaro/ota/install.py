"""Unpacks a bundle into the idle slot, in steps that keep no packet waiting.

    1. slots/b/manifest goes: the slot is nobody's choice from here on
    2. everything else in it goes; slots/b/unpacking says which bundle it is for
    3. each file: written beside, read back and compared with its hash, renamed
    4. manifest is written the same way, so that the slot is whole
    5. slots/boot: the next start is the first of a trial

After a cut the same bundle goes on at step 3: what is there is read back too.
"""

import os
from hashlib import sha256

from haaro.compat import const
from haaro.ota.bundle import Bundle, Refused, judge
from haaro.shell.staging import exists, remove, sync_directory

_PIECE = const(256)
_WINDOW_BITS = const(10)
_DIRECTORY = const(0x4000)


def installing(slots, bundle: Bundle, keys: list, digest: str, attempt: int):
    """Yield between steps until the next start is the bundle's. Raises Refused, OSError."""
    if not bundle.look():
        raise Refused("it is cut off")
    yield from bundle.checking(keys)
    judge(bundle, slots)
    yield from unpacking(slots, bundle, digest)
    slots.try_idle(digest, attempt, bundle.version)


def unpacking(slots, bundle: Bundle, digest: str):
    """Yield between steps until the idle slot holds `bundle`, whole."""
    folder = slots.path(slots.idle)
    mark = folder + "unpacking"
    _make(folder)
    if slots.words(slots.idle + "/unpacking") != [digest] or exists(folder + "manifest"):
        remove(folder + "manifest")
        sync_directory(folder)
        yield from _emptying(folder[:-1])
        slots.write(slots.idle + "/unpacking", digest)
    about = os.statvfs(folder)
    if about[1] * about[4] < bundle.unpacked:
        raise Refused("it needs %d octets, there are %d" % (bundle.unpacked, about[1] * about[4]))
    with open(bundle.path, "rb") as source:
        for name, size, at, _, wanted in bundle.files():
            path = folder + name
            _make(path)
            if (yield from _is(path, size, wanted)):
                continue
            source.seek(at)
            yield from _writing(_stream(source, bundle.facts["pack"]), path + ".new", size)
            if not (yield from _is(path + ".new", size, wanted)):
                raise Refused("%s is damaged" % name)
            os.rename(path + ".new", path)
    remove(mark)
    with open(bundle.path, "rb") as source:
        source.seek(bundle.head_at)
        yield from _writing(source, folder + "manifest.new", bundle.head)
    os.rename(folder + "manifest.new", folder + "manifest")
    sync_directory(folder + "manifest")


def _stream(source, pack):
    if pack == ["stored"]:
        return source
    import deflate

    return deflate.DeflateIO(source, deflate.RAW, _WINDOW_BITS)


def _writing(stream, path, octets):
    """Yield between steps until `path` holds so many octets of `stream`, as far as it has them."""
    with open(path, "wb") as sink:
        while octets:
            piece = stream.read(min(_PIECE, octets))
            if not piece:
                break
            sink.write(piece)
            octets -= len(piece)
            yield
        sink.flush()


def _is(path, octets, wanted):
    """Yield between steps; return whether `path` has so many octets with this SHA-256."""
    try:
        if os.stat(path)[6] != octets:
            return False
    except OSError:
        return False
    made = sha256()
    with open(path, "rb") as file:
        while True:
            piece = file.read(_PIECE)
            if not piece:
                break
            made.update(piece)
            yield
    return made.digest() == bytes.fromhex(wanted)


def _emptying(folder):
    """Yield between steps until `folder` is empty."""
    for name in os.listdir(folder):
        path = folder + "/" + name
        if os.stat(path)[0] & _DIRECTORY:
            yield from _emptying(path)
            os.rmdir(path)
        else:
            os.remove(path)
        yield


def _make(path):
    """Make the folders that lead to `path`."""
    at = path.find("/", 1)
    while at > 0:
        if not exists(path[:at]):
            os.mkdir(path[:at])
        at = path.find("/", at + 1)
