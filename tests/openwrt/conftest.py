"""A root directory like that of an OpenWrt box: busybox, MicroPython, stand-ins, the package."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from haaro_host.flash import openwrt
from haaro_host.lab import system

STAND_INS = Path(__file__).with_name("box")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The folder of `make firmware BOARD=OPENWRT`."""
    base = tmp_path_factory.mktemp("openwrt")
    # A copy, so that all of a run is of one state of the tree.
    shutil.copytree(system.firmware().parent, base / "firmware")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAARO_FIRMWARE", str(base / "firmware" / "main.py"))
        openwrt.make(base / "made")
    return base / "made"


def package(built: Path, ending: str) -> Path:
    """The one package of a build with that ending."""
    (found,) = built.glob(f"*{ending}")
    return found


def busybox() -> str:
    """Path of busybox, or the reason to skip."""
    found = shutil.which("busybox")
    if not found:
        pytest.skip("needs busybox (Debian package busybox-static)")
    return found


def unpack(ipk: Path, root: Path) -> None:
    """Unpack as opkg does, by busybox' tar."""
    tool = busybox()
    outer = root.with_name(root.name + ".ipk")
    outer.mkdir()
    root.mkdir(exist_ok=True)
    for archive, folder in ((ipk, outer), (outer / "data.tar.gz", root)):
        subprocess.run([tool, "tar", "xzf", archive, "-C", folder], check=True)
    (root / "control").mkdir()
    subprocess.run(
        [tool, "tar", "xzf", outer / "control.tar.gz", "-C", root / "control"], check=True
    )


def box(ipk: Path, root: Path) -> Path:
    """Make `root` a box on which the package is installed; return it."""
    unpack(ipk, root)
    for name in ("bin", "proc", "sys", "dev", "tmp", "var/run", "var/lock", "etc/rc.d", "root"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(STAND_INS, root, dirs_exist_ok=True)
    _program(busybox(), root / "bin" / "busybox")
    for applet in ("sh", "sed", "cat", "cmp", "mkdir", "mv", "rm", "sleep", "kill", "md5sum",
                   "basename", "logger", "tr", "ls", "ln", "grep", "chmod"):  # fmt: skip
        (root / "bin" / applet).symlink_to("busybox")
    _program(system.micropython(), root / "bin" / "micropython")
    return root


def _program(source: str, target: Path) -> None:
    """Copy a program and the libraries that it is linked with."""
    shutil.copy(source, target)
    listed = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout
    for word in listed.split():
        if word.startswith("/") and os.path.exists(word):
            place = target.parents[1] / word.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                shutil.copy(os.path.realpath(word), place)
