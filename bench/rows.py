"""What is measured beside each other: how each row is set up, and what it encrypts.

A row starts its programs in a fresh `Net`; haaro's are the shipped ones: a home agent, two routers
in MicroPython with the heap of the lab, and the direct path that they find by themselves.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import peers
from bench.topology import HOSTS, LANS, OTHER, Net
from haaro_host.lab import configuration, facts, lab, plan, processes, system
from haaro_host.lab.processes import Process
from haaro_host.lab.system import LabError

_DEADLINE_S = 45.0
_CLEAR = "nothing is encrypted"
_HAARO = "user packets are neither encrypted nor authenticated, only signalling is authenticated"


@dataclass
class Running:
    """A row that is up: its daemons in the two routers, and how to ask for their own loss."""

    daemons: list[Process] = field(default_factory=list)
    status: Callable[[], list[dict[str, Any]]] | None = None

    @property
    def pids(self) -> list[int]:
        """Process ids of the daemons."""
        return [process.pid for process in self.daemons]

    def lost(self) -> tuple[int, int] | None:
        """(received, lost by themselves) of both routers' planes; None if they do not count."""
        if not self.status:
            return None
        found = self.status()
        received = sum(each["data_plane"]["own_loss"]["received"] for each in found)
        return received, sum(facts.own_loss(each) for each in found)


@dataclass(frozen=True)
class Row:
    """One line of the table. `needs`: programs without which it is left out."""

    name: str
    label: str
    secrecy: str
    start: Callable[[Net, Path], Running]
    wire_true: bool = True
    needs: tuple[str, ...] = ()
    ours: bool = False


def plain(net: Net, build: Path) -> Running:
    """Nothing but the kernel's forwarding."""
    net.wait_ping()
    return Running()


def plain_checksums(net: Net, build: Path) -> Running:
    """The same with complete checksums on the wire, as a real one carries them: a veth does not."""
    for router in ("r1", "r2"):
        net.sh(router, "ethtool -K wan tx off")
    return plain(net, build)


def daemon(start: Callable[[Net, Path], list[Process]]) -> Callable[[Net, Path], Running]:
    """A row of somebody else's daemon."""

    def up(net: Net, build: Path) -> Running:
        made = start(net, build)
        net.wait_ping()
        return Running(made)

    return up


def haaro(dataplane: str, pure: bool = False) -> Callable[[Net, Path], Running]:
    """A row of ours. pure: as on a port without viper, its files are not there."""

    def up(net: Net, build: Path) -> Running:
        program = firmware(net, pure)
        layout = replace(plan.layout_with(dataplane), offices=(plan.office("a"), plan.office("b")))
        files = configuration.Files(net.run)
        net.with_home_agent()
        made = start(net, files, layout, program)
        _wait_direct(net, files)
        kind = _ask(files, "a")["data_plane"]
        if kind["plane"] != layout.dataplane:
            raise LabError(f"the {layout.dataplane} plane is not in use: {kind['why']}")
        return Running(made, lambda: [_answer(files, office) for office in ("a", "b")])

    return up


def start(
    net: Net,
    files: configuration.Files,
    layout: plan.Layout,
    program: Path,
    prepare: Callable[[configuration.Files], None] = lambda files: None,
) -> list[Process]:
    """Start home agent and routers, wait until these are registered; give them back."""
    _write(files, layout)
    prepare(files)
    command = [*system.haaro_command(), "ha", "--config", str(files.ha_config)]
    net.start("ha", command, "ha")
    _until(lambda: _ask(files, "ha") is not None, net, "the home agent does not answer")
    made = []
    heap = lab.HEAP if layout.dataplane == "userspace" else lab.KERNEL_PLANE_HEAP
    for router, office in (("r1", "a"), ("r2", "b")):
        words = [system.micropython(), "-X", f"heapsize={heap}", str(program),
                 "--config", str(files.router_config(office)), "run"]  # fmt: skip
        made.append(net.start(router, words, router))
        _until(lambda office=office: lab.registered(_ask(files, office)), net,
               f"{router} does not register")  # fmt: skip
    return made


ROWS = (
    Row("plain_offloads", "plain forwarding, offloads on", _CLEAR, plain, wire_true=False),
    Row("plain", "plain forwarding", _CLEAR, plain),
    Row("plain_checksums", "plain forwarding, complete checksums", _CLEAR, plain_checksums),
    Row("kernel_offloads", "haaro, kernel plane, offloads on", _HAARO, haaro("kernel"),
        wire_true=False, ours=True),
    Row("kernel", "haaro, kernel plane", _HAARO, haaro("kernel"), ours=True),
    Row("kernel_routed", "haaro, kernel plane behind the kernel's forwarding", _HAARO,
        haaro("kernel-routed"), ours=True),
    Row("userspace", "haaro, userspace plane", _HAARO, haaro("userspace"), ours=True),
    Row("pure", "haaro, userspace plane without viper", _HAARO, haaro("userspace", True),
        ours=True),
    Row("c_tun", "C TUN forwarder", _CLEAR, daemon(peers.c_forwarder)),
    Row("tinc_none", "tinc, cipher and digest none",
        "user packets are neither encrypted nor authenticated, the meta connection is",
        daemon(peers.tinc_none), needs=("tincd",)),
    Row("openvpn_none", "OpenVPN, no keys, cipher and auth none", _CLEAR,
        daemon(peers.openvpn_none), needs=("openvpn",)),
    Row("tinc", "tinc", "all user packets are encrypted and authenticated",
        daemon(peers.tinc_encrypted), needs=("tincd",)),
    Row("nebula", "Nebula", "all user packets are encrypted and authenticated",
        daemon(peers.nebula), needs=("nebula", "nebula-cert")),
    Row("wireguard_go", "wireguard-go", "all user packets are encrypted and authenticated",
        daemon(peers.wireguard_go), needs=("wireguard-go", "wg")),
)  # fmt: skip

UNENCRYPTED_DAEMONS = ("tinc_none", "openvpn_none")


def chosen(names: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """The rows called so (all if none is named), and why others are left out. Raises LabError."""
    known = {row.name: row for row in ROWS}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LabError(f"no row {', '.join(unknown)}: there are {', '.join(known)}")
    rows, left_out = [], {}
    for row in [known[name] for name in names] or ROWS:
        gone = peers.missing(row.needs)
        if gone:
            left_out[row.name] = f"not installed: {', '.join(gone)}"
        else:
            rows.append(row)
    return rows, left_out


def firmware(net: Net, pure: bool) -> Path:
    """`main.py`, of a copy without the viper twins if `pure`."""
    program = system.firmware()
    if not pure:
        return program
    copy = net.run / "firmware"
    shutil.copytree(program.parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for twin in copy.rglob("*_viper.py"):
        twin.unlink()
    return copy / program.name


def _write(files: configuration.Files, layout: plan.Layout) -> None:
    keys = {office.name: secrets.token_hex(32) for office in plan.OFFICES}
    processes.write_atomically(files.ha_config, configuration.home_agent_toml(files, layout))
    private = configuration.home_agent_secrets_toml(keys)
    processes.write_atomically(files.ha_secrets, private, 0o600)
    for office in layout.offices:
        config = json.dumps(configuration.router_json(files, office, layout))
        processes.write_atomically(files.router_config(office.node), config)
        private = json.dumps(configuration.router_secrets_json(keys[office.name]))
        processes.write_atomically(files.router_secrets(office.node), private, 0o600)


def _ask(files: configuration.Files, node: str) -> dict[str, Any] | None:
    try:
        return lab.ask(files.socket(node), "status")
    except (OSError, ValueError):
        return None


def _answer(files: configuration.Files, node: str) -> dict[str, Any]:
    found = _ask(files, node)
    if found is None:
        raise LabError(f"router {node.upper()} does not answer")
    return found


def _until(condition: Callable[[], bool], net: Net, otherwise: str) -> None:
    if not processes.wait_until(condition, _DEADLINE_S, 0.05):
        raise LabError(f"{otherwise} within {_DEADLINE_S:.0f} s; see {net.logs}")


def _wait_direct(net: Net, files: configuration.Files) -> None:
    """Ping until both routers have the other's LAN by a direct tunnel."""

    def direct() -> bool:
        command = ["ping", "-n", "-q", "-c", "1", "-W", "1", HOSTS["h2"]]
        if subprocess.run(net.inside("h1", command), capture_output=True).returncode:
            return False
        for office, router in (("a", "r1"), ("b", "r2")):
            routes = (_ask(files, office) or {}).get("routes", [])
            wanted = {"prefix": LANS[OTHER[router]], "path": "direct"}
            if not any(wanted.items() <= route.items() for route in routes):
                return False
        return True

    try:
        _until(direct, net, "no direct path")
    except LabError as error:
        peers_of = [(_ask(files, office) or {}).get("peers", []) for office in ("a", "b")]
        said = [str(peer.get("reason")) for each in peers_of for peer in each]
        raise LabError(f"{error}; the routers say: {'; '.join(said) or 'nothing'}") from error
