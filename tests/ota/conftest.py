"""A box as a folder with two slots, a program of a few files, and the power that may be cut."""

import builtins
import hashlib
import importlib.util
import os
import sys
import types
import zlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haaro.ota import install
from haaro.ota.bundle import Bundle
from haaro.ota.part import Part
from haaro.ota.slots import Slots
from haaro_host.lab import system
from haaro_host.ota import bundle as bundles
from haaro_host.ota import tree

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
ROOT = system.repository()


def program(mark):
    """The files of a program; every octet of them depends on `mark`."""
    return {
        "haaro_router.py": b"MARK = '%s'\n" % mark.encode(),
        "haaro/__init__.py": b"",
        "haaro/core/a.py": (mark * 300).encode(),
        "haaro/core/b.mpy": hashlib.sha512(mark.encode()).digest() * 3,
        f"haaro/only_{mark}.py": b"#\n",
    }


def bundle(files, version="0.2.0-r1", board="UNIX", mpy="none", key=KEY, pack="deflate", **more):
    """A signed bundle."""
    return bundles.make(files, version, board, mpy, key, pack, **more)


def load_boot():
    """firmware/boot.py as a module."""
    path = ROOT / "firmware" / "boot.py"
    spec = importlib.util.spec_from_file_location("haaro_boot_part", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


BOOT = load_boot()


class Box:
    """A box in a folder, born with version 0.1.0-r1 in slot A."""

    def __init__(self, folder, files=None):
        self.folder = folder
        self.base = f"{folder}/"
        files = program("old") if files is None else files
        for name, data in tree.initial(files, "UNIX", "none", "0.1.0-r1").items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def slots(self, slot="a"):
        return Slots(self.base, slot)

    def install(self, data, slot="a", keys=(PUBLIC,), digest=None, attempt=1, step=64):
        """Bring a bundle in by pieces and unpack it; what the pull and the console do."""
        slots = self.slots(slot)
        name = (digest or hashlib.sha256(data).hexdigest())[:16] + ".part"
        slots.forget_part(name)
        part = Part(slots.folder + name)
        while part.octets < len(data):
            part.take(data[part.octets : part.octets + step])
            if part.octets % 256 == 0:
                part.sync()
        part.sync()
        part.close()
        made = Bundle(slots.folder + name)
        for _ in install.installing(
            slots, made, list(keys), digest or hashlib.sha256(data).hexdigest(), attempt
        ):
            pass
        os.remove(made.path)

    def boot(self):
        """A start: (slot, whether on trial)."""
        return BOOT.choose(self.base)

    def version(self, slot):
        """The version of a slot that is whole, None for one that is not."""
        folder = self.folder / "slots" / slot
        if not (folder / "manifest").exists():
            return None
        version = None
        expected = {"manifest"}
        for line in (folder / "manifest").read_text().splitlines():
            words = line.split()
            if words[0] == "version":
                version = words[1]
            if words[0] == "file":
                data = (folder / words[4]).read_bytes()
                assert hashlib.sha256(data).hexdigest() == words[3], (slot, words[4])
                expected.add(words[4])
        found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert found == expected, "nothing of another program is beside it"
        return version


class PowerCut(BaseException):
    """The power is gone: nothing after this happens."""


class Flash:
    """Counts what reaches the file system and cuts the power at one point, with torn writes."""

    def __init__(self, patch, cut_at, torn):
        self.count = 0
        self.cut_at = cut_at
        self.torn = torn
        self._open = builtins.open
        for name in ("rename", "remove", "mkdir", "rmdir"):
            patch.setattr(os, name, self._counted(getattr(os, name)))
        patch.setattr(builtins, "open", self.open)
        # A file system lists in any order; this is the worst.
        listed = os.listdir
        patch.setattr(os, "listdir", lambda p: sorted(listed(p), key="manifest".__eq__))

    def step(self):
        self.count += 1
        if self.count == self.cut_at:
            raise PowerCut

    def _counted(self, real):
        def call(*arguments, **options):
            self.step()
            return real(*arguments, **options)

        return call

    def open(self, path, mode="r", *arguments, **options):
        if "w" in mode or "a" in mode or "+" in mode:
            self.step()
            return _File(self, self._open(path, mode, *arguments, **options))
        return self._open(path, mode, *arguments, **options)


class _File:
    """What is written without a flush may be lost as a whole; the last write may be torn."""

    def __init__(self, flash, file):
        self._flash = flash
        self._file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def close(self):
        self._file.close()

    def write(self, data):
        try:
            self._flash.step()
        except PowerCut:
            self._file.write(data[: int(len(data) * self._flash.torn)])
            self._file.close()
            raise
        return self._file.write(data)

    def flush(self):
        self._flash.step()
        self._file.flush()


class _Inflate:
    """MicroPython's deflate.DeflateIO, as far as it is used."""

    def __init__(self, stream, form, bits):
        assert form == "raw"
        self._made = zlib.decompressobj(-bits)
        self._stream = stream
        self._held = b""

    def read(self, n):
        while len(self._held) < n and not self._made.eof:
            octet = self._stream.read(1)
            if not octet:
                break
            try:
                self._held += self._made.decompress(octet)
            except zlib.error as error:
                raise OSError(22, str(error)) from None
        piece, self._held = self._held[:n], self._held[n:]
        return piece


@pytest.fixture(autouse=True)
def deflate(monkeypatch):
    """The module that MicroPython has and CPython lacks."""
    made = types.ModuleType("deflate")
    made.DeflateIO, made.RAW = _Inflate, "raw"
    monkeypatch.setitem(sys.modules, "deflate", made)


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path / "box")
