"""Runs in MicroPython: import modules and print every buffer over a limit that this left behind.

    micropython import_buffers.py LIMIT MODULE...

A block map of the heap cannot tell a buffer from bytecode, so this measures at the two places where
a buffer can come from: the constructors (bytearray, bytes, array.array) are replaced while the
modules are imported and note each large result, kept or not; and all that the modules hold
afterwards (globals, class attributes, containers, instances) is walked for large buffers made in
any other way, such as b"x" * 300. One line per finding: "<where> <kind> <octets>".
"""

import array
import builtins
import sys

_BUFFERS = (bytes, bytearray, array.array)
_real_array = array.array
_real = {"bytearray": bytearray, "bytes": bytes}


def octets(value):
    """Return the size of a buffer's storage in octets; a memoryview owns none of its own."""
    if isinstance(value, _real_array):
        return len(_real["bytes"](value))
    return len(value)


class Noting:
    """Stands in for a constructor during the imports; notes each large buffer that it makes."""

    def __init__(self, kind, constructor, limit, found):
        self._kind = kind
        self._constructor = constructor
        self._limit = limit
        self._found = found

    def __call__(self, *arguments):
        value = self._constructor(*arguments)
        size = octets(value)
        if size > self._limit:
            self._found.append(f"constructor {self._kind} {size}")
        return value

    def __getattr__(self, name):
        return getattr(self._constructor, name)


class ArrayModule:
    """Stands in for the array module during the imports."""


def walk(where, value, limit, found, seen):
    if id(value) in seen:
        return
    if isinstance(value, _BUFFERS):
        size = octets(value)
        if size > limit:
            found.append(f"{where} {type(value).__name__} {size}")
        return
    if isinstance(value, (int, str, float, type(sys))) or value is None:
        return  # a module of the package is walked on its own account
    seen.add(id(value))
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        members = list(enumerate(value))
    elif hasattr(value, "__dict__"):
        members = list(value.__dict__.items())
    else:
        return
    for key, member in members:
        walk(f"{where}.{key}", member, limit, found, seen)


def main():
    limit = int(sys.argv[1])
    names = sys.argv[2:]
    found = []
    ArrayModule.array = Noting("array", _real_array, limit, found)
    sys.modules["array"] = ArrayModule
    for kind in _real:
        setattr(builtins, kind, Noting(kind, _real[kind], limit, found))
    try:
        for name in names:
            __import__(name)
    finally:
        for kind in _real:
            setattr(builtins, kind, _real[kind])
    packages = {name.split(".")[0] for name in names}
    seen = set()
    for name in list(sys.modules):
        if name.split(".")[0] in packages:
            walk(name, sys.modules[name].__dict__, limit, found, seen)
    for line in found:
        print(line)


main()
