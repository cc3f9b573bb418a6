"""Run by MicroPython's unix port: mounts a filesystem in a file, and starts what is on it.

    micropython mount.py FILE OFFSET OCTETS WORD [PROGSIZE]

PROGSIZE is 256 where rp2's _boot.py mounts. WORD: `list` prints every file with its size; `import`
imports every module of slot A and names those for another processor; `boot` does what a board does,
main.py with the filesystem as current directory; `write` leaves a file there; `format` formats it.
The block device has the interface of esp32.Partition and rp2.Flash.
BOARD_PATH names where modules are that a board's firmware has.
"""

import gc
import os
import sys

import vfs

_BLOCK = 4096


class Partition:
    """A stretch of a file as a block device of 4096 octets a block."""

    def __init__(self, path, offset, octets):
        self._file = open(path, "r+b")  # noqa: SIM115
        self._offset = offset
        self._blocks = octets // _BLOCK

    def _seek(self, block, offset):
        self._file.seek(self._offset + block * _BLOCK + offset)

    def readblocks(self, block, buffer, offset=0):
        self._seek(block, offset)
        self._file.readinto(buffer)

    def writeblocks(self, block, buffer, offset=None):
        if offset is None:
            self.ioctl(6, block)
            offset = 0
        self._seek(block, offset)
        self._file.write(buffer)

    def ioctl(self, operation, argument):
        if operation == 3:
            self._file.flush()
        if operation == 4:
            return self._blocks
        if operation == 5:
            return _BLOCK
        if operation == 6:
            self._seek(argument, 0)
            self._file.write(b"\xff" * _BLOCK)
        return 0


def walk(folder):
    """Print each file below `folder` with its size."""
    for name, kind, _, size in os.ilistdir(folder):
        path = folder + "/" + name
        if kind == 0x4000:
            walk(path)
        else:
            print(path.partition("/flash/")[2], size)


def modules(folder, package, names):
    """Add the dotted names of all modules in `folder` to `names`."""
    for name, kind, _, _ in os.ilistdir(folder):
        if kind == 0x4000:
            modules(folder + "/" + name, package + "." + name, names)
        elif name != "__init__.mpy":
            names.append(package + "." + name[:-4])


def main(path, offset, octets, word, progsize="32"):
    device = Partition(path, int(offset), int(octets))
    if word == "format":
        vfs.VfsLfs2.mkfs(device, progsize=int(progsize))
        return
    if progsize != "32":
        device = vfs.VfsLfs2(device, progsize=int(progsize))
    # As esp32's _boot.py: the kind of filesystem is found out, readsize and so on are the defaults.
    vfs.mount(device, "/flash")
    os.chdir("/flash")
    sys.path[:] = ["", ".frozen", "/flash/lib"]
    if os.getenv("BOARD_PATH"):
        sys.path.extend(os.getenv("BOARD_PATH").split(":"))
    if word == "list":
        walk("/flash")
    elif word == "import":
        sys.path.insert(0, "/flash/slots/a")
        names = []
        modules("/flash/slots/a/haaro", "haaro", names)
        for name in names:
            try:
                __import__(name)
            except ValueError:  # machine code for the board's processor
                print("refused", name)
            gc.collect()
    elif word == "write":
        with open("written.txt", "w") as sink:
            sink.write("by MicroPython")
    else:
        sys.argv[:] = [""]  # as a board has it
        with open("main.py") as source:
            exec(source.read(), {"__name__": "__main__"})


main(*sys.argv[1:])
