"""The packages for OpenWrt: what foreign tools read in them, and that they are the same twice."""

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile

import pytest

from haaro_host.flash import boards, build, openwrt
from haaro_host.lab import system
from tests.openwrt.conftest import package, unpack


def test_the_same_tree_makes_the_same_packages(built, tmp_path, monkeypatch):
    monkeypatch.setenv("HAARO_FIRMWARE", str(built.parent / "firmware" / "main.py"))
    again = openwrt.make(tmp_path / "again")
    assert again == json.loads((built / "manifest.json").read_text())
    for ending in (".ipk", ".apk"):
        one, other = package(built, ending), package(tmp_path / "again", ending)
        assert one.read_bytes() == other.read_bytes()


def test_the_manifest_names_every_file_and_no_machine(built):
    said = json.loads((built / "manifest.json").read_text())
    for row in said["files"]:
        path = built / "files" / row["path"]
        assert build.described(path.read_bytes()).items() <= row.items()
        assert f"{path.stat().st_mode & 0o777:o}" == row["mode"]
        for place in (built.parent, system.repository()):
            assert str(place).encode() not in path.read_bytes()
    paths = {row["path"] for row in said["files"]}
    assert {
        "etc/config/haaro", "etc/init.d/haaro", "usr/lib/haaro/main.py", "usr/sbin/haaro-router",
        "usr/lib/haaro/haaro/shell/uci.mpy", "usr/lib/haaro/haaro/platform/linux.mpy",
        "usr/lib/haaro/haaro/dataplane/leaves_viper.py", "lib/upgrade/keep.d/haaro",
    } <= paths  # fmt: skip
    made = {path.name for path in (built.parent / "firmware" / "kernel_plane").glob("*.o")}
    programs = {path.rpartition("/")[2] for path in paths if path.endswith(".o")}
    assert programs == made & {"big.o", "little.o"}


def test_bytecode_is_of_no_processor_so_one_package_serves_all(built):
    for path in (built / "files").rglob("*.mpy"):
        data = path.read_bytes()
        assert (data[:2], data[2] >> 2) == (b"M\x06", 0), path


def test_busybox_unpacks_the_ipk_as_opkg_would(built, tmp_path):
    unpack(package(built, ".ipk"), tmp_path / "root")
    said = json.loads((built / "manifest.json").read_text())
    for row in said["files"]:
        path = tmp_path / "root" / row["path"]
        assert build.described(path.read_bytes()).items() <= row.items()
        assert f"{path.stat().st_mode & 0o777:o}" == row["mode"]
    assert (tmp_path / "root.ipk" / "debian-binary").read_text() == "2.0\n"
    control = (tmp_path / "root" / "control" / "control").read_text()
    assert "\nArchitecture: all\n" in control
    octets = sum(row["size"] for row in said["files"])
    assert f"\nInstalled-Size: {octets}\n" in control


def test_dpkg_reads_the_same_three_members(built, tmp_path):
    """The members of an .ipk are those of a .deb, which an `ar` archive holds instead of a tar."""
    for tool in ("ar", "dpkg-deb"):
        if not shutil.which(tool):
            pytest.skip(f"needs {tool}")
    with tarfile.open(package(built, ".ipk")) as archive:
        archive.extractall(tmp_path, filter="data")
    deb = tmp_path / "haaro.deb"
    members = ["debian-binary", "control.tar.gz", "data.tar.gz"]
    subprocess.run(["ar", "rc", deb, *members], cwd=tmp_path, check=True)
    ask = ["dpkg-deb", "--field", deb, "Package", "Version", "Depends"]
    fields = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert f"Version: {openwrt.package_version()}\n" in fields
    assert "micropython, kmod-veth" in fields
    listed = subprocess.run(
        ["dpkg-deb", "--contents", deb], capture_output=True, text=True, check=True
    ).stdout
    assert "-rwxr-xr-x 0/0" in listed and "./etc/init.d/haaro\n" in listed


def test_the_apk_is_two_streams_and_says_the_hash_of_the_second(built):
    """Alpine's "Apk spec": the streams one after the other are one tar; datahash is SHA-256."""
    whole = package(built, ".apk").read_bytes()
    cut = whole.index(b"\x1f\x8b\x08", 10)
    while True:  # the second magic that begins a stream
        try:
            control = gzip.decompress(whole[:cut])
            break
        except (EOFError, OSError):
            cut = whole.index(b"\x1f\x8b\x08", cut + 1)
    assert any(control[-1024:]), "the first stream has no end of a tar"
    with tarfile.open(fileobj=io.BytesIO(control)) as first:
        info = first.extractfile(".PKGINFO").read().decode()
    about = dict(line.split(" = ", 1) for line in info.splitlines())
    assert about["pkgname"] == "haaro" and about["pkgver"] == openwrt.package_version()
    assert about["datahash"] == hashlib.sha256(whole[cut:]).hexdigest()
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(whole))) as archive:
        names = archive.getnames()
        for entry in archive:
            if entry.isfile() and "/" in entry.name:
                digest = hashlib.sha1(archive.extractfile(entry).read()).hexdigest()
                assert entry.pax_headers["APK-TOOLS.checksum.SHA1"] == digest
    assert names[:1] == [".PKGINFO"] and "etc/init.d/haaro" in names


def test_the_feed_and_the_package_want_the_same(built):
    makefile = (built / "feed" / "haaro" / "Makefile").read_text()
    assert "@" not in makefile.replace("$(@", "")
    for name in openwrt.DEPENDS:
        assert f"+{name}" in makefile
    assert "/etc/config/haaro" in makefile
    tree = {p.relative_to(built / "files") for p in (built / "files").rglob("*") if p.is_file()}
    feed = built / "feed" / "haaro" / "files"
    assert tree == {p.relative_to(feed) for p in feed.rglob("*") if p.is_file()}


def test_the_command_builds_it_like_any_other_board(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(openwrt, "tree", lambda: {"etc/x": (b"x", 0o644)})
    assert build.main(["OPENWRT", str(tmp_path / "made")]) == 0
    assert "haaro_" in capsys.readouterr().out
    assert not boards.flashable("OPENWRT")
