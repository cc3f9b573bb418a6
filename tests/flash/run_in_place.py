"""Run by MicroPython's unix port: imports every module of a program, and prints the heap it takes.

    micropython run_in_place.py rom FILE        a ROMFS image, mounted where a board has it
    micropython run_in_place.py files FOLDER    the same files in a filesystem

`refused NAME` is a module for another processor; the last line is `heap N`.
"""

import gc
import os
import sys

import vfs


def modules(folder, package, names):
    """Add the dotted names of all modules in `folder` to `names`."""
    for entry in os.ilistdir(folder):
        name, kind = entry[0], entry[1]
        if kind == 0x4000:
            modules(folder + "/" + name, package + name + ".", names)
        elif name.endswith(".mpy") and name not in ("__init__.mpy", "haaro_device.mpy"):
            names.append(package + name[:-4])


def main(kind, path):
    place = path
    if kind == "rom":
        place = "/rom"
        image = bytearray(os.stat(path)[6])
        with open(path, "rb") as file:
            file.readinto(image)
        vfs.mount(vfs.VfsRom(image), place)
        try:
            open(place + "/written", "w")  # noqa: SIM115
        except OSError:
            print("read only")
    sys.path[:] = ["", ".frozen", place]
    names = []
    modules(place, "", names)
    gc.collect()
    before = gc.mem_alloc()
    for name in names:
        try:
            __import__(name)
        except ValueError:
            print("refused", name)
        gc.collect()
    print("heap", gc.mem_alloc() - before)


main(*sys.argv[1:])
