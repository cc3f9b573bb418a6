"""Four namespaces: two routers with a host each, one wire between the routers. Made anew per row.

    h1 10.1.0.10 -- 10.1.0.1 r1 10.99.0.1 == 10.99.0.2 r2 10.2.0.1 -- 10.2.0.10 h2

With a home agent there is a fifth, for signalling alone: `ha` has a link to each router, and each
router reaches it by the other one, its gateway. User packets never pass there.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from haaro_host.lab import plan, processes, system
from haaro_host.lab.processes import Process
from haaro_host.lab.system import LabError

NODES = ("h1", "r1", "r2", "h2")
HOSTS = {"h1": "10.1.0.10", "h2": "10.2.0.10"}
LANS = {"r1": "10.1.0.0/24", "r2": "10.2.0.0/24"}
CARE_OF = {"r1": "10.99.0.1", "r2": "10.99.0.2"}
OTHER = {"r1": "r2", "r2": "r1", "h1": "h2", "h2": "h1"}

_STOP_S = 3.0
_TO_HOME_AGENT = 100
_WIRES = (
    ("h1", "lan", "10.1.0.10/24", "r1", "lan", "10.1.0.1/24"),
    ("r1", "wan", "10.99.0.1/16", "r2", "wan", "10.99.0.2/16"),
    ("h2", "lan", "10.2.0.10/24", "r2", "lan", "10.2.0.1/24"),
)
_GATEWAYS = {"h1": "10.1.0.1", "h2": "10.2.0.1", "r1": "10.99.0.2", "r2": "10.99.0.1"}
_OFFLOADS = ("tso", "gso", "gro")


class Net:
    """The namespaces and all processes in them; a context that leaves nothing.

    wire_true: no packet on the wire between the routers is longer than 1500 octets; otherwise the
    kernel may hand on up to 64 KB at once, as it does between the links of one machine.
    """

    def __init__(self, prefix: str, logs: Path, wire_true: bool = True) -> None:
        self._prefix = prefix
        self.logs = logs
        self.wire_true = wire_true
        self.run = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir="/run"))
        self.processes: list[Process] = []
        self._nodes = list(NODES)

    def __enter__(self) -> Net:
        try:
            system.mount_bpf(self.run / "bpf")
            self._build()
        except BaseException:
            # Also Ctrl-C: who is never entered is never left, and namespaces outlive the process.
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            processes.stop(process, _STOP_S, lambda each=process: each.send(15))
        for node in self._nodes:
            system.run(["ip", "netns", "delete", self.name(node)], check=False)
        system.unmount(self.run / "bpf")
        for path in sorted(self.run.rglob("*"), reverse=True):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        with suppress(OSError):
            self.run.rmdir()

    def name(self, node: str) -> str:
        """The namespace of `node`."""
        return f"{self._prefix}-{node}"

    def inside(self, node: str, command: Sequence[str]) -> list[str]:
        """`command` as run in `node`."""
        return ["ip", "netns", "exec", self.name(node), *command]

    def sh(self, node: str, command: str) -> str:
        """Run a line of shell in `node`; its output. Raises LabError."""
        return system.run(self.inside(node, ["sh", "-ec", command]))

    def ip(self, node: str, *lines: str) -> None:
        """Run `ip` commands in `node`. Raises LabError."""
        system.run(["ip", "-n", self.name(node), "-batch", "-"], "\n".join(lines) + "\n")

    def start(
        self, node: str, command: Sequence[str], log: str, environment: dict[str, str] | None = None
    ) -> Process:
        """Start in the background, output to the file `log`; ended with the net."""
        path = self.logs / f"{log}.log"
        path.unlink(missing_ok=True)
        made = processes.start(self.inside(node, command), path, True, environment)
        self.processes.append(made)
        return made

    def stop(self, process: Process) -> None:
        """End one that `start` started."""
        processes.stop(process, _STOP_S, lambda: process.send(15))
        self.processes.remove(process)

    def run_in(self, node: str, command: Sequence[str], timeout_s: float) -> str:
        """Run to its end; its output. Raises LabError."""
        try:
            done = subprocess.run(
                self.inside(node, command),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                preexec_fn=processes.die_with_the_parent,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{node}: {command[0]} did not end in {timeout_s:.0f} s") from error
        if done.returncode:
            raise LabError(f"{node}: {' '.join(command)}: {(done.stderr + done.stdout)[-400:]}")
        return done.stdout

    def wait_ping(self, deadline_s: float = 20.0) -> None:
        """Wait until h1 and h2 reach each other. Raises LabError."""

        def answered() -> bool:
            command = ["ping", "-n", "-q", "-c", "1", "-W", "1", HOSTS["h2"]]
            return subprocess.run(self.inside("h1", command), capture_output=True).returncode == 0

        if not processes.wait_until(answered, deadline_s, 0.1):
            raise LabError(f"h1 does not reach h2 within {deadline_s:.0f} s; see {self.logs}")

    def wait_link(self, node: str, link: str, deadline_s: float = 10.0) -> None:
        """Wait until a daemon has made its interface. Raises LabError."""
        path = ["test", "-e", f"/sys/class/net/{link}"]

        def there() -> bool:
            return subprocess.run(self.inside(node, path), capture_output=True).returncode == 0

        if not processes.wait_until(there, deadline_s, 0.05):
            raise LabError(f"{node}: no interface {link} within {deadline_s:.0f} s")

    def with_home_agent(self) -> None:
        """Add the namespace `ha` with its two links."""
        self._nodes.append("ha")
        system.run(["ip", "netns", "add", self.name("ha")])
        self.ip("ha", "link set lo up", f"addr add {plan.HOME_AGENT}/32 dev lo")
        self._settings("ha")
        for number, router in enumerate(("r1", "r2"), 1):
            self._wire(
                "ha", f"to-{router}", f"198.18.{number}.1/30", router, "ha", f"198.18.{number}.2/30"
            )
            self.ip(router, f"route add {plan.HOME_AGENT}/32 via 198.18.{number}.1")
            # The answer comes by the other router, so that it arrives on the uplink.
            self.ip("ha", f"route add {CARE_OF[OTHER[router]]}/32 via 198.18.{number}.2")
            # As the other's gateway it passes on what is sent to home addresses and comes from
            # them, its own too, as if it were not the router at home there.
            self.sh(router, "echo 1 > /proc/sys/net/ipv4/conf/ha/accept_local")
            self.ip(
                router,
                f"route add default via 198.18.{number}.1 table {_TO_HOME_AGENT}",
                f"rule add pref 1 iif wan to {plan.HOME_ADDRESSES} lookup {_TO_HOME_AGENT}",
                f"rule add pref 1 iif ha to {CARE_OF[OTHER[router]]} lookup main",
                "rule add pref 2 lookup local",
                "rule del pref 0",
            )
        self.sh("ha", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        for node in ("ha", "r1", "r2"):
            self._no_reverse_path(node)

    def fragments(self) -> int:
        """IPv4 fragments the routers' kernels have made: 0 if every packet fitted."""
        made = 0
        for node in ("r1", "r2"):
            lines = [line.split() for line in self.sh(node, "cat /proc/net/snmp").splitlines()]
            names, values = [line for line in lines if line[0] == "Ip:"]
            made += int(values[names.index("FragCreates")])
        return made

    def _build(self) -> None:
        system.run(
            ["ip", "-batch", "-"], "".join(f"netns add {self.name(node)}\n" for node in NODES)
        )
        for node in NODES:
            self.ip(node, "link set lo up")
            self._settings(node)
        for wire in _WIRES:
            self._wire(*wire)
        for node, gateway in _GATEWAYS.items():
            self.ip(node, f"route add default via {gateway}")
            self._no_reverse_path(node)
        for node in ("r1", "r2"):
            self.sh(node, "echo 1 > /proc/sys/net/ipv4/ip_forward")
            if self.wire_true:
                off = " ".join(f"{name} off" for name in _OFFLOADS)
                self.sh(node, f"ethtool -K wan {off}")
        for node in ("h1", "h2"):
            # The generator's datagrams are cut before the first link: see packets.c.
            self.sh(node, "ethtool -K lan tx-udp-segmentation off")

    def _settings(self, node: str) -> None:
        self.sh(
            node,
            "for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6 || :; done",
        )

    def _no_reverse_path(self, node: str) -> None:
        self.sh(node, 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > "$f"; done')

    def _wire(self, a: str, port_a: str, at_a: str, b: str, port_b: str, at_b: str) -> None:
        system.run(
            ["ip", "link", "add", port_a, "netns", self.name(a), "type", "veth",
             "peer", "name", port_b, "netns", self.name(b)]
        )  # fmt: skip
        for node, port, address in ((a, port_a, at_a), (b, port_b, at_b)):
            self.ip(node, f"addr add {address} dev {port}", f"link set {port} up")


def settle(seconds: float) -> None:
    """Let what was started come to rest: a measurement is no test, it may wait."""
    time.sleep(seconds)
