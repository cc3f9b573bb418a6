"""Runs in MicroPython: an update on a littlefs in memory whose power is cut at many block writes.

    micropython littlefs_cuts.py FIRMWARE BUNDLE PUBLIC POINTS

The block device tears the write at which the power goes: half of its octets reach the flash, and
nothing after it. After each cut the file system is mounted anew, the boot part chooses, and every
file of the chosen slot is compared with its manifest. Prints one line of counts.
"""

import os
import sys
from hashlib import sha256

import vfs

sys.path.insert(0, sys.argv[1])

import boot
from haaro.ota.bundle import Bundle
from haaro.ota.install import installing
from haaro.ota.part import Part
from haaro.ota.slots import Slots, manifest

_BLOCK = 4096
_BLOCKS = 48
_BASE = "/flash/"


class Flash:
    """NOR flash: erase gives ones, writing only clears bits. `cut_at`: the write that is torn."""

    def __init__(self, data, cut_at=0):
        self.data = data
        self.cut_at = cut_at
        self.writes = 0
        self.dead = False

    def readblocks(self, block, buffer, offset=0):
        at = block * _BLOCK + offset
        buffer[:] = self.data[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        self._count()
        at = block * _BLOCK + offset
        octets = len(buffer) // 2 if self.dead else len(buffer)
        for i in range(octets):
            self.data[at + i] &= buffer[i]
        if self.dead:
            raise OSError(5)

    def ioctl(self, operation, argument):
        if operation == 4:
            return _BLOCKS
        if operation == 5:
            return _BLOCK
        if operation == 6:
            self._count()
            octets = _BLOCK // 2 if self.dead else _BLOCK
            at = argument * _BLOCK
            self.data[at : at + octets] = b"\xff" * octets
            if self.dead:
                raise OSError(5)
        return 0

    def _count(self):
        if self.dead:
            raise OSError(5)
        self.writes += 1
        self.dead = self.writes == self.cut_at


def born():
    """A flash with 0.1.0-r1 in slot A."""
    flash = Flash(bytearray(b"\xff" * (_BLOCK * _BLOCKS)))
    vfs.VfsLfs2.mkfs(flash, progsize=32, readsize=32, lookahead=32)
    vfs.mount(flash, "/flash")
    text = "version 0.1.0-r1\nboard UNIX\nmpy none\npack stored\n"
    for folder in ("slots", "slots/a", "slots/a/haaro"):
        os.mkdir(_BASE + folder)
    for i in range(4):
        data = bytes([i]) * (300 + 2000 * i)
        name = f"haaro/old_{i}.py"
        with open(_BASE + "slots/a/" + name, "wb") as file:
            file.write(data)
        digest = sha256(data).digest().hex()
        text += f"file {len(data)} {len(data)} {digest} {name}\n"
    with open(_BASE + "slots/a/manifest", "wb") as file:
        file.write(text.encode())
    vfs.umount("/flash")
    return flash.data


def life(bundle, public):
    """An update from the first octet to the commit."""
    slots = Slots(_BASE, "a")
    part = Part(_BASE + "slots/x.part")
    while part.octets < len(bundle):
        part.take(bundle[part.octets : part.octets + 512])
        if part.octets % 4096 == 0:
            part.sync()
    part.sync()
    part.close()
    made = Bundle(_BASE + "slots/x.part")
    for _ in installing(slots, made, [public], "d" * 64, 1):
        pass
    os.remove(made.path)
    slot, _ = boot.choose(_BASE)
    Slots(_BASE, slot).commit()


def whole(slot):
    """The version of a slot, all of whose files are what its manifest says."""
    folder = _BASE + "slots/" + slot + "/"
    with open(folder + "manifest") as file:
        for line in file:
            words = line.split()
            if words[0] == "file":
                with open(folder + words[4], "rb") as each:
                    digest = sha256(each.read()).digest()
                assert digest == bytes.fromhex(words[3]), words[4]
    return manifest(folder + "manifest")["version"]


def run(image, cut_at, bundle, public):
    """One life with a cut; (writes, whether it was cut, version that starts, on trial)."""
    flash = Flash(bytearray(image), cut_at)
    vfs.mount(flash, "/flash")
    try:
        life(bundle, public)
    except OSError:
        assert flash.dead
    vfs.umount("/flash")
    after = Flash(flash.data)
    vfs.mount(after, "/flash")
    slot, trial = boot.choose(_BASE)
    version = whole(slot)
    assert whole("a") == "0.1.0-r1"
    vfs.umount("/flash")
    return flash.writes, flash.dead, version, trial


def main(bundle_path, public, points):
    with open(bundle_path, "rb") as file:
        bundle = file.read()
    public = bytes.fromhex(public)
    image = born()
    writes = run(image, 0, bundle, public)[0]
    found = {}
    cuts = 0
    for i in range(points):
        cut_at = 1 + i * writes // points
        _, dead, version, trial = run(image, cut_at, bundle, public)
        cuts += dead
        key = version + (" on trial" if trial else "")
        found[key] = found.get(key, 0) + 1
    print(writes, cuts, sorted(found.items()))


main(sys.argv[2], sys.argv[3], int(sys.argv[4]))
