"""Tunnels in IP in IP, GRE and minimal encapsulation between real programs; captures judge."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from haaro_host.lab import plan
from haaro_host.lab.capture import Captures
from haaro_host.lab.faults import layouts
from haaro_host.lab.faults.layouts import Wants
from haaro_host.lab.lab import Lab
from haaro_host.lab.nat import Nat
from haaro_host.lab.pcap import FlowTable
from haaro_host.lab.traffic import Hosts, Transfer
from tests.shell.namespaces import why_no_kernel_plane
from tests.topology.conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.usefixtures("privileged")

A, C = layouts.A, layouts.C
PROTOCOL = {"ipip": 4, "gre": 47, "minimal": 55}
OVERHEAD = {"ipip": 20, "gre": 24, "minimal": 20}
_OCTETS = 3_000_000
_DIRECT_S = 30


class Offices:
    """A lab of A and C that is built, with captures."""

    def __init__(self, lab: Lab, captures: Captures, hosts: Hosts) -> None:
        self.lab, self.captures, self.hosts = lab, captures, hosts
        self._tables = {link: FlowTable(captures.path(link)) for link in ("a", "c")}

    def count(self, link: str, **wanted: object) -> int:
        """Packets on a link of the internet router with these attributes of their flow."""
        self._tables[link].update()
        return self._tables[link].select(**wanted).count()

    def registration(self, node: str) -> dict:
        return self.lab.node_status(node)["registration"]

    def peer(self, node: str, other: plan.Office) -> dict:
        for peer in self.lab.node_status(node)["peers"]:
            if peer["cr_hoa"] == other.home_address:
                return peer
        return {"path": None, "tunnel": None}

    def make_direct(self) -> None:
        self.hosts.ping(C.host, A.host, count=3)
        until(
            lambda: [self.peer(*pair)["path"] for pair in (("a", C), ("c", A))] == ["direct"] * 2,
            _DIRECT_S,
            "no direct path",
        )

    def passes(self) -> None:
        """Pings and a TCP transfer between the hosts, and one from the home network."""
        assert self.hosts.ping(C.host, A.host, count=10) >= 0
        assert self.hosts.ping("hq", A.host, count=5) >= 0
        moved = Transfer(self.hosts, C.host, A.host, _OCTETS, None, "tcp").result()
        assert moved.sha256_sent == moved.sha256_received and moved.octets == _OCTETS


@contextmanager
def offices(name: str, wants: Wants, **changes: object) -> Iterator[Offices]:
    out = ARTIFACTS / f"encapsulation-{name}"
    shutil.rmtree(out, ignore_errors=True)
    layout = replace(layouts.layout(wants), **changes)
    lab = Lab(f"{NAME}{name[0]}", out / "logs", die_with_parent=True, layout=layout)
    captures = Captures(lab, out)
    passed = False
    try:
        with lab.exclusively():
            lab.build()
            if wants.nat_of_c:
                Nat(lab, layouts.C_NAT_NODE, C.care_of_address, C.uplink_plen, C.gateway).start(
                    "port"
                )
            captures.start()
            lab.start_all()
            yield Offices(lab, captures, Hosts(lab.name, layouts.HOSTS, out / "logs"))
            passed = True
    finally:
        captures.stop()
        lab.down()
        if passed:
            shutil.rmtree(out)


@pytest.mark.parametrize("kind", PROTOCOL)
def test_star_and_direct_tunnels_are_of_the_configured_encapsulation(kind):
    """R3.3.4-i6 R3.3.3-19: protocol 4, 47 or 55 is on the wire, and in UDP only signalling; nobody
    answers with an ICMP error, and the planes lose nothing of their own.
    """
    number = PROTOCOL[kind]
    with offices(kind, Wants(), encapsulation=kind) as lab:
        until(
            lambda: all(lab.registration(node)["tunnel"]["rtt_ms"] is not None for node in "ac"),
            10,
            "no keepalive was answered",
        )
        lab.make_direct()
        lab.passes()
        for node, other in (("a", C), ("c", A)):
            for tunnel in (lab.registration(node)["tunnel"], lab.peer(node, other)["tunnel"]):
                assert tunnel["encapsulation"] == kind and tunnel["mtu"] == 1500 - OVERHEAD[kind]
            loss = lab.lab.node_status(node)["data_plane"]["own_loss"]
            assert loss["cut"] == loss["missing"] == loss["send_errors"] == 0, loss
            assert loss["received"] == loss["handled"]
        ends = {"source": C.care_of_address, "destination": A.care_of_address}
        assert lab.count("a", kind="tunnel", protocol=number, **ends) > _OCTETS // 1480
        to_agent = {"source": A.care_of_address, "destination": plan.HOME_AGENT}
        assert lab.count("a", kind="tunnel", protocol=number, **to_agent) > 5
        for link in "ac":
            assert lab.count(link, kind="tunnel", protocol=17) == 0
            assert lab.count(link, kind="signalling") > 0
            assert lab.count(link, kind="other", protocol=1) == 0
            # Minimal encapsulation keeps DF as the host had it; nothing here has to be cut.
            assert lab.count(link, kind="fragment") == 0
        bindings = [router["binding"] for router in lab.lab.node_status("ha")["routers"]]
        assert {binding["encapsulation"] for binding in bindings if binding} == {kind}


def test_the_kernel_planes_leave_such_tunnels_to_the_processes():
    """R3.3.4-i6: the programs' tables have these tunnels and their ends nowhere."""
    reason = why_no_kernel_plane()
    if reason:
        pytest.skip(reason)
    planes = {"dataplane": "kernel", "ha_dataplane": "kernel"}
    with offices("kernel", Wants(), encapsulation="gre", **planes) as lab:
        for node in ("a", "c", "ha"):
            plane = lab.lab.node_status(node)["data_plane"]
            assert plane["plane"] == "kernel", plane["why"]
        lab.make_direct()
        lab.passes()
        assert lab.peer("a", C)["tunnel"]["encapsulation"] == "gre"
        assert lab.count("a", kind="tunnel", protocol=17) == 0


def test_behind_a_nat_the_router_goes_to_udp_by_itself():
    """R3.3.3-9; RFC 3519 4.6: C is behind a NAT, A is not."""
    with offices("nat", Wants(nat_of_c=True), encapsulation="gre") as lab:
        assert lab.registration("c")["udp_because"] == "a NAT is in the way"
        assert lab.registration("c")["tunnel"]["encapsulation"] == "udp"
        assert lab.registration("a")["tunnel"]["encapsulation"] == "gre"
        lab.make_direct()
        lab.passes()
        assert lab.peer("a", C)["tunnel"]["encapsulation"] == "udp"
        assert lab.count("c", kind="tunnel", protocol=47) == 0
        assert lab.count("a", kind="tunnel", protocol=47) > 5


def test_where_the_internet_passes_udp_only_all_tunnels_become_udp():
    """R3.3.3-9: no answer to keepalives, so UDP is registered, and then everything passes."""
    with offices("only", Wants(), encapsulation="gre", udp_only=True) as lab:
        for node in "ac":
            until(
                lambda node=node: lab.registration(node)["tunnel"]["encapsulation"] == "udp",
                30,
                f"{node} did not go to UDP",
            )
            why = lab.registration(node)["udp_because"]
            assert why == "no answer came through the gre tunnel"
        lab.make_direct()
        lab.passes()
        assert lab.lab.counters()["not_udp"] > 0
