"""The door to the kernel's BPF: loads, attaches and fills programs, by `bpftool` and `tc`.

Owns the pins, the marks of what was attached where, and how long all that kept the loop waiting;
MicroPython has no bpf(2), so each call is a process. Knows no tunnels: `dataplane/kernel.py` writes
the lines of a batch. Imported only when the kernel plane is wanted, or must be taken back.

Pins are in a BPF file system, one directory for each router by the path of its control socket. The
one beside the socket is taken if it is mounted there, else /sys/fs/bpf, else any, else one is
mounted beside the socket. Where it outlives the process, so do programs and maps.
"""

import hashlib
import os
import sys
import time

from haaro.compat import const

_SEARCH = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; "
_ALL = "/sys/fs/bpf"
# Of tc's filters ours is the one of this preference.
_PREFERENCE = const(434)
_CHUNK = const(4096)
_LINE = const(200)


class KernelDoor:
    """The programs and maps of one router; `socket` is the path of its control socket.

    PROGRAMS: how the name of its object file begins. MAP: of its maps, the one made last.
    """

    PROGRAMS = ""
    MAP = "ends_now"

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._batch_path = socket + ".bpf"
        self._root = ""
        self._file = None
        self.maps = ""
        self.tables = ""
        self.adopted = False
        self.calls = 0
        self.failures = 0
        self.blocked_us = 0
        self.longest_us = 0
        self.last_error = ""

    def load(self, fingerprint: str) -> str:
        """Have programs and maps in the kernel; return "" or why it refuses.

        What an earlier run left is taken over, if it was made from this object file and for the
        same `fingerprint` (self.adopted), else replaced.
        """
        path = object_path(self.PROGRAMS)
        try:
            mark = _digest(path, fingerprint)
        except OSError:
            return "%s is not there; `make bpf` builds it" % path
        for tool in ("bpftool", "tc"):
            if os.system(_SEARCH + "command -v %s >/dev/null 2>&1" % tool):
                return tool + " is not installed"
        _make_directory(self._socket)
        if not self._find(True):
            return "no BPF file system: " + self.last_error
        if _exists(self._root + "/marks/" + mark) and _exists("%s/%s" % (self.maps, self.MAP)):
            self.adopted = True
            return ""
        self.unload()
        for directory in (self._root, self._root + "/marks", self.tables):
            _mkdir(directory)
        programs = self._root + "/programs"
        command = "bpftool prog loadall %s %s type classifier pinmaps %s"
        if not self._run(command % (_quoted(path), _quoted(programs), _quoted(self.maps))):
            reason = self.last_error
            self.unload()
            return "bpftool: " + reason
        _mkdir(self._root + "/marks/" + mark)
        return ""

    def attach(self, interface: str, direction: str, program: str) -> bool:
        """Have `program` see what passes `interface`, direction "ingress" or "egress"."""
        device = _quoted(interface)
        marks = self._root + "/marks/"
        if self._run("tc qdisc add dev %s clsact" % device, False):
            _mkdir(marks + "q" + interface.encode().hex())
        pin = _quoted("%s/programs/%s" % (self._root, program))
        command = "tc filter replace dev %s %s pref %d handle 1 bpf direct-action object-pinned %s"
        done = self._run(command % (device, direction, _PREFERENCE, pin))
        if done:
            _mkdir(marks + direction[0] + interface.encode().hex())
        return done

    def finish(self, interface: str) -> None:
        """Have the kernel finish what goes into a tunnel before this interface, which would pass it
        on as it is: many packets as one, inner checksums open. The other end may be a socket.
        """
        if _finishes(interface, False):
            _mkdir(self._root + "/marks/t" + interface.encode().hex())

    def detach(self, interface: str, direction: str) -> None:
        """Take the program away; that the interface is gone already is no error."""
        device = _quoted(interface)
        self._run("tc filter del dev %s %s pref %d" % (device, direction, _PREFERENCE), False)
        mark = self._root + "/marks/%s" + interface.encode().hex()
        _remove(mark % direction[0], os.rmdir)
        if direction[0] == "i" and _exists(mark % "t"):
            _finishes(interface, True)
            _remove(mark % "t", os.rmdir)
        left = _exists(mark % "i") or _exists(mark % "e")
        if not left and _exists(mark % "q"):
            self._run("tc qdisc del dev %s clsact" % device, False)
            _remove(mark % "q", os.rmdir)

    def attached(self) -> list:
        """Return (interface, direction) of all programs, also of those an earlier run attached."""
        try:
            marks = os.listdir(self._root + "/marks")
        except OSError:
            return []
        found = []
        for mark in marks:
            if mark[0] in "ie":
                direction = "ingress" if mark[0] == "i" else "egress"
                found.append((bytes.fromhex(mark[1:]).decode(), direction))
        return found

    def begin(self):
        """Return the file that takes the lines of the next batch; `run` carries them out."""
        self._file = open(self._batch_path, "w")  # type: ignore[assignment] # noqa: SIM115
        return self._file

    def run(self) -> bool:
        """Carry out the batch in one call; False and counted if the kernel refused a line."""
        self._file.close()  # type: ignore[attr-defined]
        self._file = None
        return self._run("bpftool batch file " + _quoted(self._batch_path))

    def pinned(self) -> list:
        """Return the names of the tables that are pinned."""
        try:
            return os.listdir(self.tables)
        except OSError:
            return []

    def mark(self, name: str) -> None:
        """Have `name` among the pins; it stands for nothing."""
        _mkdir(self.tables + "/" + name)

    def unpin(self, name: str) -> None:
        """Forget a table, which goes when no program can reach it, or a mark."""
        _remove(self.tables + "/" + name, os.remove)
        _remove(self.tables + "/" + name, os.rmdir)

    def unload(self) -> None:
        """Take programs, maps and filters back, also what an earlier run left."""
        if not self._root and not self._find(False):
            return
        for interface, direction in self.attached():
            self.detach(interface, direction)
        if _exists(self._root):
            os.system("rm -rf " + _quoted(self._root))
        for path in (self._batch_path, self._socket + ".err"):
            _remove(path, os.remove)

    def status(self) -> dict:
        """Return what the calls cost: each one keeps the loop waiting."""
        return {
            "calls": self.calls,
            "failures": self.failures,
            "blocked_ms": self.blocked_us // 1000,
            "longest_us": self.longest_us,
            "last_error": self.last_error,
        }

    def _find(self, make):
        beside = self._socket[: self._socket.rfind("/")] + "/bpf"
        found = ""
        with open("/proc/mounts") as file:
            for line in file:
                _, point, kind = line.split(" ")[:3]
                better = not found or point == beside or (point == _ALL and found != beside)
                if kind == "bpf" and better:
                    found = point
        if not found and make:
            _mkdir(beside)
            if self._run("mount -t bpf bpf " + _quoted(beside)):
                found = beside
        # A dot is not allowed in a name there.
        name = "".join([c if c.isalpha() or c.isdigit() else "_" for c in self._socket])
        self._root = found and "%s/haaro%s" % (found, name)
        self.maps = self._root + "/maps"
        self.tables = self._root + "/tables"
        return found

    def _run(self, command, counts=True):
        """Run a shell command; keep what it says if it fails."""
        errors = self._socket + ".err"
        started = time.ticks_us()  # type: ignore[attr-defined]
        done = not os.system("%s{ %s; } >%s 2>&1" % (_SEARCH, command, _quoted(errors)))
        took = time.ticks_diff(time.ticks_us(), started)  # type: ignore[attr-defined]
        self.calls += 1
        self.blocked_us += took
        self.longest_us = max(self.longest_us, took)
        if not done and counts:
            self.failures += 1
            self.last_error = _told(errors)
        return done


def object_path(programs: str = "") -> str:
    """Return where `make bpf` puts an object file for this machine's byte order."""
    here = __file__
    for _ in range(3):
        here = here[: here.rfind("/")] if "/" in here else "."
    return "%s/kernel_plane/%s%s.o" % (here, programs, sys.byteorder)


def _finishes(interface, on):
    from haaro.platform import ethtool

    try:
        with open("/sys/class/net/%s/ifindex" % interface) as file:
            return ethtool.features_off(int(file.read()), ethtool.TUNNEL_OFFLOADS, on)
    except (OSError, ValueError):
        return False


def _told(path):
    """Return the line of a tool's output that says why: the kernel's word, or the last one."""
    last = ""
    try:
        with open(path) as file:
            for line in file:
                line = line.strip()[:_LINE]
                if "not permitted" in line or "denied" in line:
                    return line
                if line and not line.startswith("Warning"):
                    last = line
    except OSError:
        pass
    return last


def _digest(path, fingerprint):
    digest = hashlib.sha256(fingerprint.encode())
    with open(path, "rb") as file:
        piece = file.read(_CHUNK)
        while piece:
            digest.update(piece)
            piece = file.read(_CHUNK)
    return "of" + digest.digest()[:8].hex()


def _quoted(word):
    return "'" + word.replace("'", "'\\''") + "'"


def _exists(path):
    try:
        os.stat(path)
        return True
    except OSError:
        return False


def _mkdir(path):
    try:
        os.mkdir(path)
    except OSError:
        pass


def _make_directory(path):
    at = path.find("/", 1)
    while at > 0:
        _mkdir(path[:at])
        at = path.find("/", at + 1)


def _remove(path, how):
    try:
        how(path)
    except OSError:
        pass
