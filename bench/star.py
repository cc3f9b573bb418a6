"""What the home agent's planes move between routers without a direct path, beside plain routing.

    h1 10.1.0.10 -- 10.1.0.1 r1 10.99.0.1 == ha 10.99.0.254 == 10.99.0.2 r2 10.2.0.1 -- 10.2.0.10 h2

The routers are on ports of a bridge that is the home agent's interface; neither reaches the other's
care-of address. Rows are measured in turn, each in namespaces made anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import figures, measure, rows
from bench.topology import CARE_OF, LANS, Net
from haaro_host.home_agent.config import load
from haaro_host.home_agent.core import HomeAgent
from haaro_host.home_agent.store import Store
from haaro_host.lab import configuration, lab, plan, system
from haaro_host.lab.system import LabError
from tests.bench import home_agent_scale
from tests.host import home_agent_helpers

_ADDRESS = "10.99.0.254"
_ECHOES = 300
# Of the networks of routers that only register: 10.100.0.0/24 and on.
_SECOND = 100
_MANY = 1000
_NTP_EPOCH_S = 2208988800
# They registered a while ago, within ten seconds.
_AGO_MS = 25_000
_NO_DIRECT_PATH = """table ip star {
 chain forward { type filter hook forward priority 0;
  ip saddr 10.99.0.0/16 ip daddr 10.99.0.0/16 drop
 }
}
"""


class Star(Net):
    """Five namespaces, the home agent's in the middle; otherwise as `Net`, wire true."""

    def _build(self) -> None:
        super()._build()
        self._nodes.append("ha")
        system.run(["ip", "netns", "add", self.name("ha")])
        self._settings("ha")
        self.ip(
            "ha", "link set lo up", "link add wan type bridge", "link set wan up",
            f"addr add {_ADDRESS}/16 dev wan", f"addr add {plan.HOME_AGENT}/32 dev wan",
        )  # fmt: skip
        for router in ("r1", "r2"):
            # The wire between the routers gives way to one for each, with the same address.
            if router == "r1":
                self.ip(router, "link del wan")
            self._wire("ha", router, "0.0.0.0/0", router, "wan", f"{CARE_OF[router]}/16")
            # Only the home agent's host is between them.
            self.ip(
                "ha",
                f"link set {router} master wan",
                f"link set {router} type bridge_slave isolated on",
            )
            self.ip(
                router,
                f"route add default via {_ADDRESS}",
                f"route add {plan.HOME_AGENT}/32 via {_ADDRESS}",
            )
            for node, port in ((router, "wan"), ("ha", router)):
                self.sh(node, f"ethtool -K {port} tso off gso off gro off")
        self.sh("ha", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        self.sh("ha", 'for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > "$f"; done')
        for node in ("ha", "r1", "r2"):
            self._no_reverse_path(node)


def plain(net: Star, build: Path) -> None:
    """The kernel's forwarding along the same path."""
    for router, lan in LANS.items():
        net.ip("ha", f"route add {lan} via {CARE_OF[router]}")
    net.wait_ping()


def haaro(dataplane: str, others: int = 0) -> Callable[[Star, Path], None]:
    """The home agent's plane; the routers have the kernel's in all rows. others: routers that are
    registered too, with a network each, and send nothing.
    """

    def up(net: Star, build: Path) -> None:
        offices = (plan.office("a"), plan.office("b"))
        layout = replace(plan.layout_with("kernel", dataplane), offices=offices)
        files = configuration.Files(net.run)
        system.run(net.inside("ha", ["nft", "-f", "-"]), _NO_DIRECT_PATH)
        rows.start(net, files, layout, system.firmware(), lambda files: _register(files, others))
        net.wait_ping()
        kind = lab.ask(files.socket("ha"), "status")["data_plane"]
        if kind["plane"] != dataplane:
            raise LabError(f"the home agent's {dataplane} plane is not in use: {kind['why']}")

    return up


ROWS: dict[str, tuple[str, Callable[[Star, Path], None]]] = {
    "plain": ("plain forwarding", plain),
    "kernel": ("haaro, home agent's kernel plane", haaro("kernel")),
    "userspace": ("haaro, home agent's userspace plane", haaro("userspace")),
    "kernel_1000": ("the kernel plane, 1000 routers more", haaro("kernel", _MANY)),
    "userspace_1000": ("the userspace plane, 1000 routers more", haaro("userspace", _MANY)),
}


def _register(files: configuration.Files, count: int) -> None:
    """Have a home agent of this process register so many, and leave its state behind."""
    if not count:
        return
    text = files.ha_config.read_text().replace(
        "home_addresses = [", 'home_addresses = ["172.16.0.0/16", '
    )
    private = files.ha_secrets.read_text()
    for n in range(1, count + 1):
        head = f'\n[[router]]\nname = "R{n}"\nhome_address = "172.16.{n // 256}.{n % 256}"\n'
        text += head + f'prefixes = ["10.{_SECOND + n // 256}.{n % 256}.0/24"]\n'
        text += f'realm = "r{n}.branch.example"\npriority = {n}\n'
        private += head + 'spi = 256\nalgorithm = "hmac-sha256"\n'
        private += f'key = "{home_agent_helpers.KEY.hex()}"\n'
    files.ha_config.write_text(text)
    files.ha_secrets.write_text(private)
    store = Store(str(files.ha_state))
    began = int((time.time() + _NTP_EPOCH_S) * 1000) - _AGO_MS
    try:
        agent = HomeAgent(load(files.ha_config), store, os.urandom)
        home_agent_scale.register(agent, home_agent_scale.requests(count, began, _SECOND))
    finally:
        store.close()


def run(
    prefix: str, build: Path, name: str, tcp_s: int, trial_s: float, steps: int
) -> dict[str, Any]:
    """One row once: {"tcp1", "kpps", "generator", "rtt_us"}. Raises LabError."""
    with Star(prefix, build / "logs" / f"star-{name}") as net:
        ROWS[name][1](net, build)
        found: dict[str, Any] = {"tcp1": measure.tcp(net, 1, tcp_s)["gbit_s"]}
        found["rtt_us"] = figures.quantile(measure.round_trips(net, _ECHOES), 0.5)
        with measure.Counter(net, build) as counter:
            rate = measure.Generator(net, build, counter).search(trial_s, steps)
    return {**found, "kpps": rate.best / 1000, "generator": rate.generator}
