"""`make firmware BOARD=OPENWRT`: what is installed on an OpenWrt box, without OpenWrt's SDK.

    files/                      the tree as it lies on the box
    haaro_VERSION-r1_all.ipk    for opkg (OpenWrt up to 24.10): a tar.gz of control.tar.gz,
                                data.tar.gz and debian-binary
    haaro-VERSION-r1.apk        for apk: two tar.gz streams, .PKGINFO with scripts, then the files
                                (apk-tools' format 2; unsigned)
    feed/haaro/                 Makefile and files/, for a feed of OpenWrt's build system
    manifest.json               sizes and SHA-256 of all that (haaro.firmware/1)

The same tree makes the same octets. The .mpy files are bytecode of any processor; only the viper
leaves go as source: each box compiles them, or takes the plain ones where MicroPython has no
emitter.
"""

import gzip
import hashlib
import io
import json
import re
import shutil
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from haaro_host.flash import boards, build
from haaro_host.fleet.files import PUBLIC, write_whole
from haaro_host.lab import system

NAME = "OPENWRT"
DEPENDS = ("micropython", "kmod-veth")
_HOME = "usr/lib/haaro/"
# Machine code: made of source on the box itself.
_VIPER = re.compile(rb"^\s*@.*\b(viper|native)\b", re.M)
CONFFILES = ("/etc/config/haaro",)
_EXECUTABLE = 0o755
# Path on the box without a leading slash: octets and mode.
Tree = dict[str, tuple[bytes, int]]


def tree() -> Tree:
    """Return the files of the box. Raises BadInputError, FleetError."""
    root = system.firmware().parent
    made: Tree = {}
    for path in sorted((boards.folder() / NAME / "files").rglob("*")):
        if path.is_file():
            name = path.relative_to(boards.folder() / NAME / "files").as_posix()
            run = name.startswith(("etc/init.d/", "usr/sbin/"))
            made[name] = (path.read_bytes(), _EXECUTABLE if run else PUBLIC)
    package = sorted((root / "haaro").rglob("*.py"))
    viper = [path for path in package if _VIPER.search(path.read_bytes())]
    sources = {
        f"{path.relative_to(root).with_suffix('.mpy')}": path
        for path in package
        if path not in viper
    }
    for name, data in build.compiled(sources, "").items():
        made[_HOME + name] = (data, PUBLIC)
    programs = [root / "kernel_plane" / f"{order}.o" for order in ("big", "little")]
    for path in (root / "main.py", *viper, *programs):
        if path.exists():
            made[_HOME + path.relative_to(root).as_posix()] = (path.read_bytes(), PUBLIC)
    return made


def package_version() -> str:
    """Return the version as OpenWrt's packages have it."""
    return f"{version('haaro')}-r1"


def ipk(files: Tree) -> bytes:
    """Return the package of `files` for opkg."""
    folder = boards.folder() / NAME
    data = _packed(files)
    control = (folder / "control").read_text().format(
        version=version("haaro"), depends=", ".join(("libc", *DEPENDS)),
        octets=sum(len(octets) for octets, _ in files.values()),
    )  # fmt: skip
    members: Tree = {
        "control": (control.encode(), PUBLIC),
        "conffiles": ("".join(f"{name}\n" for name in CONFFILES).encode(), PUBLIC),
        "postinst": ((folder / "postinst").read_bytes(), _EXECUTABLE),
        "prerm": ((folder / "prerm").read_bytes(), _EXECUTABLE),
    }
    return _packed(
        {
            "debian-binary": (b"2.0\n", PUBLIC),
            "data.tar.gz": (data, PUBLIC),
            "control.tar.gz": (_packed(members), PUBLIC),
        }
    )


def apk(files: Tree) -> bytes:
    """Return the unsigned package of `files` for apk (`apk add --allow-untrusted`).

    Source: Alpine's "Apk spec", package format v2: gzip streams one after the other; the stream of
    .PKGINFO is a tar without its end, `datahash` the SHA-256 of the stream of the files.
    """
    folder = boards.folder() / NAME
    data = _packed(files, checksums=True)
    about = [
        ("pkgname", "haaro"),
        ("pkgver", package_version()),
        ("pkgdesc", "Mobile router of RFC 6521, in MicroPython"),
        ("arch", "noarch"),
        ("license", "MIT"),
        ("size", str(sum(len(octets) for octets, _ in files.values()))),
        *(("depend", name) for name in DEPENDS),
        ("datahash", hashlib.sha256(data).hexdigest()),
    ]
    info = "".join(f"{key} = {value}\n" for key, value in about)
    control: Tree = {
        ".PKGINFO": (info.encode(), PUBLIC),
        ".post-install": ((folder / "postinst").read_bytes(), _EXECUTABLE),
        ".pre-deinstall": ((folder / "prerm").read_bytes(), _EXECUTABLE),
    }
    return _packed(control, ends=False, prefix="") + data


def _packed(
    files: Tree, checksums: bool = False, ends: bool = True, prefix: str | None = None
) -> bytes:
    """Return a tar.gz of `files`, all of root and of the year 1970: reproducible."""
    prefix = ("" if checksums else "./") if prefix is None else prefix
    sink = io.BytesIO()
    form = tarfile.PAX_FORMAT if checksums else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        folders = {
            parent.as_posix() for name in files for parent in Path(name).parents if parent.name
        }
        for folder in sorted(folders):
            entry = tarfile.TarInfo(prefix + folder)
            entry.type, entry.mode = tarfile.DIRTYPE, _EXECUTABLE
            archive.addfile(entry)
        for name, (octets, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(prefix + name)
            entry.size, entry.mode = len(octets), mode
            if checksums:
                digest = hashlib.sha1(octets, usedforsecurity=False).hexdigest()
                entry.pax_headers = {"APK-TOOLS.checksum.SHA1": digest}
            archive.addfile(entry, io.BytesIO(octets))
    whole = sink.getvalue()
    # A tar ends with blocks of zeros, and no file of ours does.
    return gzip.compress(whole if ends else _without_end(whole), mtime=0)


def _without_end(archive: bytes) -> bytes:
    cut = len(archive)
    while cut and not any(archive[cut - 512 : cut]):
        cut -= 512
    return archive[:cut]


def _feed(files: Tree) -> Tree:
    text = (boards.folder() / NAME / "package" / "Makefile").read_text()
    text = text.replace("@VERSION@", version("haaro"))
    text = text.replace("@DEPENDS@", " ".join(f"+{name}" for name in DEPENDS))
    return {"Makefile": (text.encode(), PUBLIC), **{f"files/{k}": v for k, v in files.items()}}


def make(out: Path) -> dict[str, Any]:
    """Build into `out`, replacing it whole; return the manifest."""
    files = tree()
    packages = {
        f"haaro_{package_version()}_all.ipk": ipk(files),
        f"haaro-{package_version()}.apk": apk(files),
    }
    rows = [
        {"path": name, "mode": f"{mode:o}", **build.described(octets)}
        for name, (octets, mode) in sorted(files.items())
    ]
    manifest = {
        "schema": build.SCHEMA,
        "board": NAME,
        "product": "OpenWrt",
        "haaro": version("haaro"),
        "mpy": {"version": build.mpy_version(), "arch": ""},
        "parts": [
            {"path": name, **build.described(octets)} for name, octets in packages.items()
        ],
        "files": rows,
    }  # fmt: skip
    if out.exists():
        shutil.rmtree(out)
    feed = {f"feed/haaro/{name}": row for name, row in _feed(files).items()}
    for name, (octets, mode) in {**{f"files/{k}": v for k, v in files.items()}, **feed}.items():
        write_whole(out / name, octets, mode)
    for name, octets in packages.items():
        write_whole(out / name, octets, PUBLIC)
    write_whole(out / build.MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode(), PUBLIC)
    return manifest


def main(out: Path) -> int:
    """Build, and print what was made; the exit status."""
    made = make(out)
    octets = sum(row["size"] for row in made["files"])
    print(f"{NAME}: {len(made['files'])} files of {octets} octets")
    if not any(row["path"].endswith(".o") for row in made["files"]):
        print("  without the kernel plane's programs: make bpf builds them (clang), then again")
    for row in made["parts"]:
        print(f"  {row['size']:>9} {row['path']} sha256 {row['sha256']}")
    print(f"  in {out}")
    return 0
