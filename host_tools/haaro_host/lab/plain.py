"""The yardstick: the same hops as the direct path, forwarded by the kernel alone.

Builds five namespaces of its own (host, router, internet, router, host), measures, removes them.
The lab's figures are read beside these, from the same run on the same machine.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from haaro_host.lab import plan, system, topology
from haaro_host.lab.facts import PathFigures
from haaro_host.lab.traffic import Hosts

_NODES = ("h1", "r1", "net", "r2", "h2")
_HOST_1, _HOST_2 = "10.1.0.10", "10.2.0.10"
_LINES = {
    "h1": ["addr add 10.1.0.10/24 dev r1", "route add default via 10.1.0.1"],
    "r1": [
        "addr add 10.1.0.1/24 dev h1",
        "addr add 198.51.100.10/26 dev net",
        "route add default via 198.51.100.1",
    ],
    "net": [
        "addr add 198.51.100.1/26 dev r1",
        "addr add 198.51.100.65/26 dev r2",
        "route add 10.1.0.0/24 via 198.51.100.10",
        "route add 10.2.0.0/24 via 198.51.100.74",
    ],
    "r2": [
        "addr add 198.51.100.74/26 dev net",
        "addr add 10.2.0.1/24 dev h2",
        "route add default via 198.51.100.65",
    ],
    "h2": ["addr add 10.2.0.10/24 dev r2", "route add default via 10.2.0.1"],
}


class PlainChain:
    """Context: the chain exists inside `with`."""

    def __init__(self, name: str, logs: Path) -> None:
        self._name = f"{name}-plain"
        self.hosts = Hosts(self._name, {"h1": _HOST_1, "h2": _HOST_2}, logs)

    def __enter__(self) -> PlainChain:
        self._remove()
        names = [plan.namespace(self._name, node) for node in _NODES]
        system.run(["ip", "-batch", "-"], "".join(f"netns add {each}\n" for each in names))
        pairs = pairwise(_NODES)
        links = [self._link(left, right) for left, right in pairs]
        system.run(["ip", "-batch", "-"], "\n".join(links) + "\n")
        for node, name in zip(_NODES, names, strict=True):
            lines = [f"link set dev {port} up" for port in _ports(node)]
            system.run(["ip", "-n", name, "-batch", "-"], "\n".join(lines + _LINES[node]) + "\n")
            forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
            system.run(topology.inside(self._name, node, ["sh", "-c", forward]))
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def measure(self, tcp_s: int = 2, small_s: int = 1) -> PathFigures:
        """What plain kernel forwarding does between the hosts. Raises LabError."""
        ends = "h1", "h2"
        stream = self.hosts.iperf_tcp(*ends, tcp_s)
        return PathFigures(
            rtt_ms=self.hosts.ping(*ends),
            tcp_mbit_s=stream["mbit_s"],
            retransmits=int(stream["retransmits"]),
            small_packets_per_s=self.hosts.iperf_small(*ends, small_s),
        )

    def without_offloads(self) -> None:
        """From now on TCP crosses the chain in packets as a wire would carry them, one by one;
        with offloads a veth hands on up to 64 KB at once."""
        for node in _NODES:
            for port in _ports(node):
                words = ["ethtool", "-K", port, "tso", "off", "gso", "off", "gro", "off"]
                system.run(topology.inside(self._name, node, words))

    def _link(self, left: str, right: str) -> str:
        one, other = (plan.namespace(self._name, node) for node in (left, right))
        return f"link add name {right} netns {one} type veth peer name {left} netns {other}"

    def _remove(self) -> None:
        listed = system.run(["ip", "netns", "list"])
        for node in _NODES:
            space = plan.namespace(self._name, node)
            if space in listed.split():
                system.run(["ip", "netns", "delete", space], check=False)


def _ports(node: str) -> list[str]:
    """Interfaces of a node; each is called as the node at its other end."""
    at = _NODES.index(node)
    return [other for index, other in enumerate(_NODES) if abs(index - at) == 1]
