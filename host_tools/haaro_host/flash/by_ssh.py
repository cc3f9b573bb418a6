"""`haaro flash SITE --ssh root@HOST`: the package and a site's files onto an OpenWrt box.

Everything goes through the standard input of commands: an OpenWrt box has neither sftp nor rsync,
and secrets must stand in nobody's list of processes. What is on the box is compared by SHA-256
before and after it is installed.
"""

import hashlib
import re
import secrets
import shlex
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from haaro_host.flash import openwrt
from haaro_host.flash.burn import Found
from haaro_host.flash.errors import BadInputError, FlashError
from haaro_host.fleet import export
from haaro_host.fleet.inventory import Fleet, Site
from haaro_host.fleet.keys import Keys

_COMMAND_S = 60
_INSTALL_S = 300
# Twice: once in /tmp as a package, and once as files, which are a little larger.
_SPARE_KB = 256
_PROBE = r"""
cat /etc/openwrt_release 2>/dev/null
for each in apk opkg micropython; do command -v $each >/dev/null && echo "has $each"; done
echo "id $(cat /etc/machine-id 2>/dev/null || cat /sys/class/net/br-lan/address \
/sys/class/net/eth0/address 2>/dev/null | head -n 1)"
echo "free $(df -k / | tail -n 1 | awk '{print $4}')"
"""
# By the package manager: how a package that was copied is installed, whatever was there.
_INSTALL = {
    "apk": ("apk", "apk add --allow-untrusted {}"),
    "opkg": ("ipk", "opkg install --force-reinstall --force-downgrade {}"),
}

Say = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Door:
    """How the box is reached. `command`: ssh and its options, as a shell would split it."""

    target: str
    command: str = "ssh"

    def run(self, script: str, data: bytes = b"", wait_s: float = _COMMAND_S) -> str:
        """Run `script` by the box's shell with `data` as input; return what it printed.

        Raises FlashError with the last line of what went wrong.
        """
        # Nobody can type a password here: several lines are on their way at once.
        words = [*shlex.split(self.command), "-o", "BatchMode=yes", "-T", "--", self.target, script]
        try:
            done = subprocess.run(words, input=data, capture_output=True, timeout=wait_s)
        except FileNotFoundError:
            raise BadInputError(
                f"{words[0]}: not found; install ssh, or give --ssh-command"
            ) from None
        except subprocess.TimeoutExpired:
            raise FlashError(
                f"{self.target}: no answer in {wait_s:g} s; is it the right box?"
            ) from None
        if done.returncode == 255:
            raise FlashError(
                f"{self.target}: ssh says: {_last(done.stderr)}; a key that the box knows is"
                " needed: ssh-copy-id, or LuCI, System, Administration"
            )
        if done.returncode:
            said = _last(done.stderr) or _last(done.stdout) or f"status {done.returncode}"
            raise FlashError(
                f"{self.target}: {said}; nothing of the box's files was changed by that"
            )
        return done.stdout.decode(errors="replace")


def _last(data: bytes) -> str:
    lines = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", data.decode(errors="replace")).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@dataclass(frozen=True)
class Parts:
    """All that goes to the box. `packages`: by package manager; `files`: path without /, octets,
    mode; `tree`: what the package brings.
    """

    packages: dict[str, bytes]
    files: list[export.File]
    tree: openwrt.Tree


def parts(fleet: Fleet, keys: Keys, site: Site, folder: Path | None) -> Parts:
    """Return what `site` gets; the packages of `folder`, or made now. Raises FleetError."""
    if site.board != openwrt.NAME:
        raise BadInputError(
            f"site.{site.name}.board is {site.board!r}; --ssh is for {openwrt.NAME!r}"
        )
    tree = openwrt.tree()
    if folder is None:
        packages = {"opkg": openwrt.ipk(tree), "apk": openwrt.apk(tree)}
    else:
        packages = {}
        for manager, (ending, _) in _INSTALL.items():
            found = sorted(folder.glob(f"*.{ending}"))
            if len(found) == 1:
                packages[manager] = found[0].read_bytes()
        if not packages:
            raise BadInputError(f"{folder}: no package; make it with make firmware BOARD=OPENWRT")
        tree = {}  # another version than this haaro's: the package manager's word has to do
    return Parts(packages, export.openwrt_files(fleet, keys, site), tree)


def identify(door: Door) -> tuple[Found, str, int]:
    """Return (who is there, its package manager, free octets on /). Raises FlashError."""
    lines = door.run(_PROBE).splitlines()
    facts = dict(line.split(" ", 1) for line in lines if line.startswith(("id ", "free ")))
    has = [line.split(" ", 1)[1] for line in lines if line.startswith("has ")]
    release = [line for line in lines if line.startswith("DISTRIB_DESCRIPTION=")]
    managers = [name for name in _INSTALL if name in has]
    if not managers:
        raise FlashError(f"{door.target}: has neither apk nor opkg; is it an OpenWrt box?")
    name = release[0].split("=", 1)[1].strip("'\"") if release else "unknown"
    unique_id = re.sub("[^0-9a-f]", "", facts.get("id", "").lower())
    free = int(facts["free"]) if facts.get("free", "").isdigit() else 0
    return Found(name, unique_id, free << 10), managers[0], free << 10


def install(door: Door, made: Parts, manager: str, free: int, say: Say) -> None:
    """Install the package and the files, compare them, start the service. Raises FlashError."""
    if manager not in made.packages:
        raise BadInputError(f"the box has {manager}, and there is no such package in the folder")
    package = made.packages[manager]
    needed = 2 * len(package) + sum(len(data) for _, data, _ in made.files) + (_SPARE_KB << 10)
    if free and free < needed:
        raise FlashError(
            f"{door.target}: {free >> 10} KB are free, {needed >> 10} are needed; nothing was"
            " written: remove packages, or use extroot"
        )
    ending, how = _INSTALL[manager]
    folder = f"/tmp/haaro-{secrets.token_hex(8)}"
    steps = 3 + len(made.files)
    try:
        door.run(f"umask 077 && mkdir {folder}")
        say("copying the package", 1, steps)
        _put(door, f"{folder}/haaro.{ending}", package)
        say(f"installing by {manager}", 2, steps)
        door.run(how.format(f"{folder}/haaro.{ending}"), wait_s=_INSTALL_S)
        _compare(door, {f"/{name}": data for name, (data, _) in made.tree.items()
                        if f"/{name}" not in openwrt.CONFFILES})  # fmt: skip
        for number, (name, data, mode) in enumerate(made.files):
            say(f"/{name}", 2 + number, steps)
            path = f"/{name}"
            _put(door, f"{folder}/file", data)
            # Beside, then renamed: a cut leaves the old one or the new one.
            door.run(
                f"umask 077 && mkdir -p {path.rpartition('/')[0]} && cp {folder}/file {path}.new"
                f" && chmod {mode:o} {path}.new && sync && mv {path}.new {path} && rm {folder}/file"
            )
        _compare(door, {f"/{name}": data for name, data, _ in made.files})
        say("starting it", steps, steps)
        door.run("/etc/init.d/haaro enable && /etc/init.d/haaro restart", wait_s=_COMMAND_S)
    finally:
        with suppress(FlashError):
            door.run(f"rm -rf {folder}")


def _put(door: Door, path: str, data: bytes) -> None:
    wanted = hashlib.sha256(data).hexdigest()
    found = door.run(f"umask 077 && cat > {path} && sha256sum {path}", data, _INSTALL_S)
    if found.split()[:1] != [wanted]:
        raise FlashError(f"{door.target}: {path}: was damaged on the way; give the command again")


def _compare(door: Door, files: dict[str, bytes]) -> None:
    """Raise FlashError unless each path on the box holds these octets."""
    if not files:
        return
    listed = door.run("xargs sha256sum", "\n".join(files).encode() + b"\n")
    found = {}
    for line in listed.splitlines():
        mark, _, path = line.partition("  ")
        found[path] = mark
    for path, data in files.items():
        if found.get(path) != hashlib.sha256(data).hexdigest():
            raise FlashError(
                f"{door.target}: {path} does not hold what was installed; is the flash full? Give"
                " the command again"
            )
