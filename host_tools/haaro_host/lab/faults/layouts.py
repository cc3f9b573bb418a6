"""Labs with two offices, A and C, and what a fault needs between them and the internet."""

from __future__ import annotations

from dataclasses import dataclass

from haaro_host.lab import plan
from haaro_host.lab.plan import WAN_UPLINK, Layout, Link, Node

A, C = plan.office("a"), plan.office("c")
# Where A comes up after a handover: another net on the same link of the internet router.
A_MOVED, A_MOVED_GATEWAY, A_MOVED_NET = "198.51.100.202", "198.51.100.193", "198.51.100.192/26"
A_PLEN = 26
C_MOVED = "203.0.113.20"
A_SECOND, A_SECOND_GATEWAY = "198.51.100.138", "198.51.100.129"
A_SECOND_NET = "198.51.100.128/26"
A_SECOND_LINK = "a2"
NAT_NODE = "modem"
NAT_ADDRESS, NAT_OTHER_ADDRESS = A.care_of_address, "198.51.100.11"
INSIDE, INSIDE_GATEWAY = "192.168.1.10", "192.168.1.1"
C_NAT_NODE = "modem2"
C_INSIDE, C_INSIDE_GATEWAY = "192.168.2.10", "192.168.2.1"
RELAY_NODE = "relay"
HOSTS = {node: plan.HOST_ADDRESS[node] for node in ("hq", A.host, C.host)}


@dataclass(frozen=True)
class Wants:
    """What a case needs beyond two offices with one uplink each."""

    nat: bool = False  # a NAT between A and the internet
    shared_nat: bool = False  # C is behind the same one, in another net of it
    nat_of_c: bool = False  # another NAT between C and the internet
    relay: bool = False  # a relay on the uplinks of A and C
    second_uplink: bool = False  # A has `wan2`


def layout(wants: Wants) -> Layout:
    """Return the lab for `wants`."""
    nodes = [node for node in plan.NODES if node.name not in ("b", "bh")]
    links = [link for link in plan.LINKS if not {link.left[0], link.right[0]} & {"b", "bh"}]
    ingress = {"ha": plan.INGRESS["ha"], "a": f"{A.uplink_net}, {A_MOVED_NET}", "c": C.uplink_net}
    uplinks: dict[str, list[dict[str, object]]] = {}
    links = [_with_second_net(link) for link in links]
    if wants.nat or wants.shared_nat:
        nodes = [_with_gateway(node, A.node, INSIDE_GATEWAY) for node in nodes]
        nodes.append(Node(NAT_NODE, forwards=True, gateway=A.gateway))
        links = _put_between(
            links, "a", NAT_NODE, ("wan", f"{NAT_ADDRESS}/{A_PLEN}"),
            ("lan", f"{INSIDE_GATEWAY}/24"), f"{INSIDE}/24",
        )  # fmt: skip
    if wants.shared_nat:
        nodes = [_with_gateway(node, C.node, C_INSIDE_GATEWAY) for node in nodes]
        links = [link for link in links if link.left[:2] != ("inet", plan.port_to("c"))]
        links.append(Link(
            (NAT_NODE, "lan2", f"{C_INSIDE_GATEWAY}/24"), (C.node, "wan", f"{C_INSIDE}/24")
        ))  # fmt: skip
        del ingress["c"]
    if wants.nat_of_c:
        nodes = [_with_gateway(node, C.node, C_INSIDE_GATEWAY) for node in nodes]
        nodes.append(Node(C_NAT_NODE, forwards=True, gateway=C.gateway))
        links = _put_between(
            links, "c", C_NAT_NODE, ("wan", f"{C.care_of_address}/{C.uplink_plen}"),
            ("lan", f"{C_INSIDE_GATEWAY}/24"), f"{C_INSIDE}/24",
        )  # fmt: skip
    if wants.relay:
        nodes.append(Node(RELAY_NODE))
        for name in ("a", "c"):
            links = _put_between(links, name, RELAY_NODE, (f"{name}-far", ""), (f"{name}-near", ""))
    if wants.second_uplink:
        links.append(Link(
            ("inet", plan.port_to(A_SECOND_LINK), f"{A_SECOND_GATEWAY}/{A_PLEN}"),
            (A.node, "wan2", f"{A_SECOND}/{A_PLEN}"),
        ))  # fmt: skip
        nodes = [_with_second_route(node) for node in nodes]
        ingress[A_SECOND_LINK] = A_SECOND_NET
        second: dict[str, object] = {"name": "wan2", "driver": "linux_netdev", "interface": "wan2"}
        uplinks[A.node] = [WAN_UPLINK, second]
    return Layout((A, C), tuple(nodes), tuple(links), ingress, uplinks)


def _with_second_net(link: Link) -> Link:
    if link.left[1] != plan.port_to("a"):
        return link
    node, port, address = link.left
    return Link((node, port, f"{address} {A_MOVED_GATEWAY}/{A_PLEN}"), link.right)


def _with_gateway(node: Node, name: str, gateway: str) -> Node:
    if node.name != name:
        return node
    return Node(node.name, node.forwards, node.rp_filter, gateway, node.routes)


def _with_second_route(node: Node) -> Node:
    if node.name != A.node:
        return node
    routes = (*node.routes, f"default via {A_SECOND_GATEWAY} metric 200")
    return Node(node.name, node.forwards, node.rp_filter, node.gateway, routes)


def _put_between(
    links: list[Link],
    name: str,
    node: str,
    far: tuple[str, str],
    near: tuple[str, str],
    address: str | None = None,
) -> list[Link]:
    """Take the link from the internet to router `name` apart, with `node` in the middle."""
    made = []
    for link in links:
        if link.left[:2] != ("inet", plan.port_to(name)):
            made.append(link)
            continue
        router = link.right if address is None else (*link.right[:2], address)
        made += [Link(link.left, (node, *far)), Link((node, *near), router)]
    return made
