"""Builds and removes the namespaces, veth pairs, routes and the internet router's filter.

Owns the kernel objects of the lab; knows nothing of processes. The internet router filters as an
ISP does (BCP 38): a source that isn't of the net it came from is counted and dropped, mobile
prefixes have no route, and home addresses are routed to the home agent only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from haaro_host.lab import plan
from haaro_host.lab.plan import DEFAULT_LAYOUT, Layout
from haaro_host.lab.system import run

_WRONG_SOURCE = "bcp38_"
_OURS = ("cut", "dead", "not_udp")
_STEERED_CPUS = 32  # one word of the kernel's mask
_FILTER = """
table ip haaro {{
    {counters}
    set cut {{ type ipv4_addr . ipv4_addr; }}
    set dead {{ type ifname; }}
    chain ingress {{
        type filter hook prerouting priority raw; policy accept;
        iifname @dead counter name dead drop
        {sources}
        ip daddr {mobile} counter name mobile_prefix drop
        iifname "to-ha" ip daddr {home_addresses} counter name home_address_loop drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        oifname @dead counter name dead drop
        {only}
        ip saddr . ip daddr @cut counter name cut drop
    }}
}}
"""


def build(name: str, layout: Layout = DEFAULT_LAYOUT) -> None:
    """Make every namespace, link, address, route and filter of the lab. Raises LabError."""
    _batch(f"netns add {plan.namespace(name, node.name)}" for node in layout.nodes)
    _batch(_link_line(name, link) for link in layout.links)
    for node in layout.nodes:
        _settings(name, node)
        run(["ip", "-n", plan.namespace(name, node.name), "-batch", "-"],
            "\n".join(_addresses(node, layout)) + "\n")  # fmt: skip
    run(inside(name, "inet", ["nft", "-f", "-"]), internet_filter(layout))


def remove(name: str, layout: Layout = DEFAULT_LAYOUT) -> list[str]:
    """Delete the namespaces of the lab that exist; what was deleted."""
    there = existing(name, layout)
    for space in there:
        run(["ip", "netns", "delete", space], check=False)
    return there


def existing(name: str, layout: Layout = DEFAULT_LAYOUT) -> list[str]:
    """Namespaces of this lab that exist now."""
    listed = {line.split()[0] for line in run(["ip", "netns", "list"]).splitlines() if line}
    ours = [plan.namespace(name, node.name) for node in layout.nodes]
    return [space for space in ours if space in listed]


def processes(space: str) -> list[int]:
    """Process ids that live in the namespace `space`."""
    return [int(word) for word in run(["ip", "netns", "pids", space], check=False).split()]


def inside(name: str, node: str, command: Iterable[str]) -> list[str]:
    """`command` as it is run in the namespace of `node`."""
    return ["ip", "netns", "exec", plan.namespace(name, node), *command]


def internet_filter(layout: Layout = DEFAULT_LAYOUT) -> str:
    """The nftables rules of the internet router."""
    counted = [f"{_WRONG_SOURCE}{node}" for node in layout.ingress]
    names = [*counted, "mobile_prefix", "home_address_loop", *_OURS]
    return _FILTER.format(
        counters="\n    ".join(f"counter {each} {{ }}" for each in names),
        sources="\n        ".join(
            f'iifname "{plan.port_to(node)}" ip saddr != {{ {nets} }} '
            f"counter name {_WRONG_SOURCE}{node} drop"
            for node, nets in layout.ingress.items()
        ),
        mobile=plan.MOBILE_RANGE,
        # IP in IP, GRE, minimal encapsulation
        only="ip protocol { 4, 47, 55 } counter name not_udp drop" if layout.udp_only else "",
        home_addresses=plan.HOME_ADDRESSES,
    )


def counters(name: str) -> dict[str, int]:
    """Packets by counter of the internet router; `bcp38_*` are wrong sources by link."""
    text = run(inside(name, "inet", ["nft", "-j", "list", "counters", "table", "ip", "haaro"]))
    found: dict[str, int] = {}
    for entry in json.loads(text)["nftables"]:
        if "counter" in entry:
            found[entry["counter"]["name"]] = int(entry["counter"]["packets"])
    return found


def filtered(found: dict[str, int]) -> dict[str, int]:
    """The counters of `counters()` that must stay 0: everything but what a test cuts itself."""
    return {key: value for key, value in found.items() if key not in _OURS}


def cut(name: str, one: str, other: str) -> None:
    """Drop everything between the care-of addresses `one` and `other`, both ways, at once."""
    _cut_element(name, "add", one, other)


def heal(name: str, one: str, other: str) -> None:
    """Take back `cut`."""
    _cut_element(name, "delete", one, other)


def cut_one_way(name: str, source: str, destination: str) -> None:
    """Drop what goes from one address to the other, and only that; `flush_cuts` takes it back."""
    element = f"{{ {source} . {destination} }}"
    run(inside(name, "inet", ["nft", "add", "element", "ip", "haaro", "cut", element]))


def flush_cuts(name: str) -> None:
    """Take back every cut."""
    run(inside(name, "inet", ["nft", "flush", "set", "ip", "haaro", "cut"]))


def kill_link(name: str, link: str) -> None:
    """Lose everything on a link of the internet router, both ways; its carrier stays."""
    element = f'{{ "{plan.port_to(link)}" }}'
    run(inside(name, "inet", ["nft", "add", "element", "ip", "haaro", "dead", element]))


def revive_links(name: str) -> None:
    """Take back every `kill_link`."""
    run(inside(name, "inet", ["nft", "flush", "set", "ip", "haaro", "dead"]))


def _cut_element(name: str, verb: str, one: str, other: str) -> None:
    pairs = f"{{ {one} . {other}, {other} . {one} }}"
    run(inside(name, "inet", ["nft", verb, "element", "ip", "haaro", "cut", pairs]))


def _batch(lines: Iterable[str]) -> None:
    run(["ip", "-batch", "-"], "\n".join(lines) + "\n")


def _link_line(name: str, link: plan.Link) -> str:
    (left, left_port, _), (right, right_port, _) = link.left, link.right
    return (
        f"link add name {left_port} netns {plan.namespace(name, left)} mtu {plan.WAN_MTU} "
        f"type veth peer name {right_port} netns {plan.namespace(name, right)} mtu {plan.WAN_MTU}"
    )


def _settings(name: str, node: plan.Node) -> None:
    """Kernel settings; IPv6 is off so that captures hold the story only."""
    values = {
        "net/ipv4/ip_forward": int(node.forwards),
        "net/ipv4/conf/all/rp_filter": node.rp_filter,
        "net/ipv4/conf/default/rp_filter": node.rp_filter,
        "net/ipv6/conf/all/disable_ipv6": 1,
        "net/ipv6/conf/default/disable_ipv6": 1,
    }
    # An interface made earlier has copied the old default: set each one too.
    lines = [f"[ ! -e /proc/sys/{key} ] || echo {value} > /proc/sys/{key}"
             for key, value in values.items()]  # fmt: skip
    lines.append(
        f'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo {node.rp_filter} > "$f"; done'
    )
    # A network card keeps a flow on one CPU and so in order; veth delivers on whichever CPU the
    # sender ran. Steering by flow makes up for it, where it is allowed: not in a user namespace.
    every_cpu = f"{(1 << min(os.cpu_count() or 1, _STEERED_CPUS)) - 1:x}"
    lines.append(
        "for f in /sys/class/net/*/queues/rx-0/rps_cpus; "
        f'do echo {every_cpu} 2>/dev/null > "$f" || :; done'
    )
    run(inside(name, node.name, ["sh", "-ec", "\n".join(lines)]))


def _addresses(node: plan.Node, layout: Layout) -> list[str]:
    lines = ["link set lo up"]
    for link in layout.links:
        for owner, port, addresses in (link.left, link.right):
            if owner == node.name:
                lines += [f"addr add {address} dev {port}" for address in addresses.split()]
                lines.append(f"link set dev {port} up")
    if node.gateway:
        lines.append(f"route add default via {node.gateway}")
    lines += [f"route add {route}" for route in node.routes]
    return lines
