"""Who is where in the lab: nodes, links and addresses.

Owns the addressing plan and nothing else: it starts nothing and touches no file. All addresses are
documentation or private ranges (RFC 5737, RFC 1918) and exist only inside namespaces.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

DEFAULT_NAME = "haaro"
MIP_PORT = 434
HOME_AGENT = "192.0.2.1"
HOME_ADDRESSES = "192.0.2.128/25"
HOME_NETWORK = "10.0.0.0/24"
MOBILE_RANGE = "10.0.0.0/8"
WAN_MTU = 1500

_NAME = re.compile(r"^[a-z][a-z0-9-]{0,23}$")


@dataclass(frozen=True)
class Office:
    """A mobile router, its uplink and its LAN."""

    name: str
    home_address: str
    care_of_address: str
    uplink_plen: int
    gateway: str
    uplink_net: str
    lan_net: str
    lan_router: str
    lan_host: str
    realm: str
    priority: int

    @property
    def node(self) -> str:
        """Node of the router: `a`, `b` or `c`."""
        return self.name.lower()

    @property
    def host(self) -> str:
        """Node of the LAN host behind the router."""
        return self.node + "h"


OFFICES = (
    Office("A", "192.0.2.129", "198.51.100.10", 26, "198.51.100.1", "198.51.100.0/26",
           "10.1.0.0/24", "10.1.0.1", "10.1.0.10", "a.example", 10),
    Office("B", "192.0.2.130", "198.51.100.74", 26, "198.51.100.65", "198.51.100.64/26",
           "10.2.0.0/24", "10.2.0.1", "10.2.0.10", "b.example", 20),
    Office("C", "192.0.2.131", "203.0.113.10", 24, "203.0.113.1", "203.0.113.0/24",
           "10.3.0.0/24", "10.3.0.1", "10.3.0.10", "c.example", 30),
)  # fmt: skip


def office(name: str) -> Office:
    """The office called `name` (either case). Raises KeyError."""
    for entry in OFFICES:
        if entry.node == name.lower():
            return entry
    raise KeyError(name)


def port_to(node: str) -> str:
    """Interface of the internet router on its link to `node`."""
    return f"to-{node}"


@dataclass(frozen=True)
class Link:
    """One veth pair: (node, interface, address/plen) at both ends; several addresses or none are
    allowed, with spaces between them."""

    left: tuple[str, str, str]
    right: tuple[str, str, str]


@dataclass(frozen=True)
class Node:
    """One namespace: kernel settings and the default route."""

    name: str
    forwards: bool = False
    rp_filter: int = 0
    gateway: str | None = None
    routes: tuple[str, ...] = field(default=())


# A strict rp_filter in `inet` would drop a wrong source before it is counted, so the nftables rules
# count first (priority raw) and rp_filter stays as the second lock. Routers and the home agent use
# loose mode, the default of most distributions.
NODES: tuple[Node, ...] = (
    Node("inet", forwards=True, rp_filter=1, routes=(f"{HOME_ADDRESSES} via {HOME_AGENT}",)),
    Node("ha", forwards=True, rp_filter=2, gateway="192.0.2.126"),
    Node("hq", gateway="10.0.0.1"),
    *(Node(o.node, forwards=True, rp_filter=2, gateway=o.gateway) for o in OFFICES),
    *(Node(o.host, gateway=o.lan_router) for o in OFFICES),
)

LINKS: tuple[Link, ...] = (
    Link(("inet", "to-ha", "192.0.2.126/25"), ("ha", "wan", f"{HOME_AGENT}/25")),
    Link(("ha", "lan", "10.0.0.1/24"), ("hq", "eth0", "10.0.0.10/24")),
    *(Link(("inet", port_to(o.node), f"{o.gateway}/{o.uplink_plen}"),
           (o.node, "wan", f"{o.care_of_address}/{o.uplink_plen}")) for o in OFFICES),
    *(Link((o.node, "lan", f"{o.lan_router}/24"), (o.host, "eth0", f"{o.lan_host}/24"))
      for o in OFFICES),
)  # fmt: skip

# Neighbour of the internet router -> the sources an ISP lets in from there (BCP 38), one net or
# several with ", " between them.
INGRESS: dict[str, str] = {
    "ha": "192.0.2.0/24",
    **{o.node: o.uplink_net for o in OFFICES},
}

HOST_ADDRESS: dict[str, str] = {"hq": "10.0.0.10", **{o.host: o.lan_host for o in OFFICES}}


@dataclass(frozen=True)
class Layout:
    """A whole lab: which offices have a router running, what is there, and who filters what.

    `ingress`: link of the internet router (its interface is `port_to`) -> nets, see `INGRESS`.
    `uplinks`: node -> entries for `uplinks` in its router.json. `dataplane`: which plane the
    routers use, as in router.json, and so is `fast_lan`.
    `ha_dataplane`: the home agent's, as in ha.toml. `encapsulation`: of the routers' tunnels, as in
    router.json. `udp_only`: the internet drops all other encapsulations, as some do.
    """

    offices: tuple[Office, ...] = OFFICES
    nodes: tuple[Node, ...] = NODES
    links: tuple[Link, ...] = LINKS
    ingress: dict[str, str] = field(default_factory=lambda: dict(INGRESS))
    uplinks: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    dataplane: str = "userspace"
    ha_dataplane: str = "userspace"
    fast_lan: str | tuple[str, ...] = "auto"
    encapsulation: str = "udp"
    udp_only: bool = False

    @property
    def routers(self) -> tuple[str, ...]:
        """Nodes that run a router."""
        return tuple(office.node for office in self.offices)


DEFAULT_LAYOUT = Layout()
HA_DATA_PLANES = ("userspace", "kernel", "auto")
DATA_PLANES = ("userspace", "kernel", "kernel-routed", "auto")
ENCAPSULATIONS = ("udp", "ipip", "gre", "minimal")
WAN_UPLINK: dict[str, object] = {"name": "wan", "driver": "linux_netdev", "interface": "wan"}


def layout_with(
    dataplane: str,
    ha_dataplane: str = "userspace",
    encapsulation: str = "udp",
    udp_only: bool = False,
) -> Layout:
    """The default lab with these data planes; "kernel-routed" leaves forwarding to the kernel.

    Raises ValueError with what is allowed.
    """
    if encapsulation not in ENCAPSULATIONS:
        known = ", ".join(ENCAPSULATIONS)
        raise ValueError(f"encapsulation {encapsulation!r}: allowed are {known}")
    for name, allowed in ((dataplane, DATA_PLANES), (ha_dataplane, HA_DATA_PLANES)):
        if name not in allowed:
            raise ValueError(f"data plane {name!r}: allowed are {', '.join(allowed)}")
    kind = dataplane.removesuffix("-routed")
    fast_lan: str | tuple[str, ...] = "auto" if kind == dataplane else ()
    return replace(
        DEFAULT_LAYOUT,
        dataplane=kind,
        fast_lan=fast_lan,
        ha_dataplane=ha_dataplane,
        encapsulation=encapsulation,
        udp_only=udp_only,
    )


def check_name(name: str) -> str:
    """`name` itself if it can prefix a namespace. Raises ValueError with what is allowed."""
    if not _NAME.match(name):
        raise ValueError(
            f"lab name {name!r}: allowed are a letter, then up to 23 of a-z, 0-9 and '-'"
        )
    return name


def namespace(name: str, node: str) -> str:
    """The namespace of `node` in the lab called `name`."""
    return f"{name}-{node}"
