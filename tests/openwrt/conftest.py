"""A root directory like that of an OpenWrt box: busybox, MicroPython, stand-ins, the package."""

import shutil
import subprocess
import sys
import sysconfig
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
    shutil.copy(busybox(), root / "bin" / "busybox")
    for applet in ("sh", "sed", "cat", "cmp", "mkdir", "mv", "rm", "sleep", "kill", "md5sum",
                   "basename", "logger", "tr", "ls", "ln", "grep", "chmod"):  # fmt: skip
        (root / "bin" / applet).symlink_to("busybox")
    (root / "bin" / "micropython").symlink_to(system.micropython())
    for folder in of_this_machine():
        (root / folder.relative_to("/")).mkdir(parents=True, exist_ok=True)
    return root


def of_this_machine() -> list[Path]:
    """The folders that MicroPython needs of this machine, to be mounted at the same paths of a box.

    The wheel's MicroPython is a module of this Python, so that is the interpreter, its library,
    and the C library.
    """
    python = Path(sys.executable).resolve()
    wanted = [Path(sys.prefix), Path(system.micropython()).parent, python.parent]
    wanted += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    # What /usr/bin would cover is the box's own.
    wanted += [python.parents[1] / "lib"] if python.parents[1] != Path("/usr") else []
    listed = subprocess.run(["ldd", python], capture_output=True, text=True, check=True).stdout
    wanted += [Path(word).parent for word in listed.split() if word.startswith("/")]
    wanted += [Path("/usr/lib") / path.name for path in wanted if path.name.endswith("-gnu")]
    return sorted({path for path in wanted if path.is_dir()})
