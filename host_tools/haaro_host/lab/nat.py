"""A NAT as a modem has it: one public address, mappings that end, a restart that forgets them all.

The kernel's connection tracking in a node of its own, told by nftables. Its two kinds (RFC 4787):

- `port`: every inside net (a router each, which sends from one port) keeps one outside port for all
  destinations (endpoint-independent mapping); only who was written to may answer (address and port
  dependent filtering).
- `symmetric`: another outside port for each destination.

What nobody inside asked for is dropped without a word, and so is what goes from inside to its own
public address (no hairpinning).
"""

from __future__ import annotations

import sys
from pathlib import Path

from haaro_host.lab import plan
from haaro_host.lab.lab import Lab
from haaro_host.lab.system import run

KINDS = ("port", "symmetric")
_FLUSH = Path(__file__).with_name("forget_mappings.py")
_FIRST_PORT = 20000
_PORTS = 1000
_RULES = """
add table ip nat
flush table ip nat
table ip nat {{
    chain out {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" iifname "lan2" ip protocol udp snat to {address}:{other_ports}
        oifname "wan" ip protocol udp snat to {address}:{ports}
        oifname "wan" snat to {address}
    }}
    chain unasked {{
        type filter hook input priority filter; policy accept;
        iifname "wan" drop
        ip daddr {address} drop
    }}
}}
"""


class Nat:
    """The NAT in the node `node`: interfaces `wan` (public), `lan` and perhaps `lan2`."""

    def __init__(self, lab: Lab, node: str, address: str, plen: int, gateway: str) -> None:
        self._lab = lab
        self._node = node
        self.address = address
        self._plen = plen
        self._gateway = gateway
        self._restarts = 0
        self.kind = KINDS[0]

    def start(self, kind: str, timeout_s: int = 120) -> None:
        """Begin; a mapping lives `timeout_s` seconds after its last packet. Raises LabError."""
        self.kind = kind
        keys = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
        lines = [f"echo {timeout_s} > /proc/sys/net/netfilter/{key}" for key in keys]
        # The table and with it the keys exist once a rule asks for connection tracking.
        self._rules()
        self._run("sh", "-ec", "\n".join(lines))

    def restart(self, address: str | None = None) -> None:
        """Forget every mapping; other outside ports from now on, and another address if given."""
        self._restarts += 1
        old, self.address = self.address, address or self.address
        self._rules()
        if self.address != old:
            lines = [
                "addr flush dev wan",
                f"addr add {self.address}/{self._plen} dev wan",
                f"route replace default via {self._gateway}",
            ]
            space = plan.namespace(self._lab.name, self._node)
            run(["ip", "-n", space, "-batch", "-"], "\n".join(lines) + "\n")
        self._run(sys.executable, "-S", "-E", str(_FLUSH))

    def _rules(self) -> None:
        first = _FIRST_PORT + self._restarts * _PORTS
        ports = [str(first), str(first + 1)]
        if self.kind == "symmetric":
            ports = [f"{first}-{first + _PORTS - 1} fully-random"] * 2
        rules = _RULES.format(address=self.address, ports=ports[0], other_ports=ports[1])
        run(self._lab.inside(self._node, ["nft", "-f", "-"]), rules)

    def _run(self, *command: str) -> None:
        run(self._lab.inside(self._node, command))
