"""A saturated uplink: own messages pass what users send, and no path flaps. Tests run in order."""

import json
import sys

from haaro_host.lab import pcap, plan, processes
from haaro_host.lab.pcap import Flow

from .conftest import Stage, until

_SECONDS = 20.0
_RATE = "4mbit"
# Seconds of data wait at this rate: whoever waits with it is late for every keepalive.
_WAITING = "1mb"
_CS6 = 0xC0
A, B, C = plan.OFFICES
_FLOOD = """
import socket, sys, time
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for _ in range(16):
        one.sendto(bytes(1400), (sys.argv[1], 9))
    time.sleep(0.015)
"""


def _slow(stage: Stage, node: str, port: str) -> None:
    """Linux's default queue, by the sender's priority, behind a rate: the router's own uplink."""
    for words in (
        ["root", "handle", "1:", "tbf", "rate", _RATE, "burst", "5kb", "limit", _WAITING],
        ["parent", "1:1", "handle", "2:", "pfifo_fast"],
    ):
        stage.hosts.run(node, ["tc", "qdisc", "add", "dev", port, *words], 5)


def _slow_by_dscp(stage: Stage, node: str, port: str) -> None:
    """A queue that knows DSCP, as at the provider's end of the link."""
    match = ["u32", "match", "ip", "tos", hex(_CS6), "0xfc", "flowid", "1:10"]
    rate = ["rate", "100kbit", "ceil", _RATE]
    for words in (
        ["qdisc", "add", "dev", port, "root", "handle", "1:", "htb", "default", "20"],
        ["class", "add", "dev", port, "parent", "1:", "classid", "1:1", "htb", "rate", _RATE],
        ["class", "add", "dev", port, "parent", "1:1", "classid", "1:10", "htb", *rate,
         "prio", "0"],
        ["class", "add", "dev", port, "parent", "1:1", "classid", "1:20", "htb", *rate,
         "prio", "1"],
        ["qdisc", "add", "dev", port, "parent", "1:20", "handle", "20:", "bfifo", "limit",
         _WAITING],
        ["filter", "add", "dev", port, "parent", "1:", "protocol", "ip", "prio", "1", *match],
    ):  # fmt: skip
        stage.hosts.run(node, ["tc", *words], 5)


def _without_arp(stage: Stage, node: str, port: str, other: str, other_port: str) -> None:
    """As on a link without ARP, PPP or LTE: Linux queues an ARP reply among the data, and a full
    queue that drops three of them takes the link away, whatever is marked.
    """
    shown = json.loads(stage.hosts.run(other, ["ip", "-j", "addr", "show", "dev", other_port], 5))
    address, mac = shown[0]["addr_info"][0]["local"], shown[0]["address"]
    words = ["neigh", "replace", address, "lladdr", mac, "nud", "permanent", "dev", port]
    stage.hosts.run(node, ["ip", *words], 5)


def _dropped(stage: Stage, node: str, port: str) -> int:
    text = stage.hosts.run(node, ["tc", "-s", "qdisc", "show", "dev", port], 5)
    return max(int(line.split("dropped")[1].split(",")[0]) for line in text.split("\n")
               if "dropped" in line)  # fmt: skip


def _flood(stage: Stage, source: str, destination: str) -> processes.Process:
    command = [sys.executable, "-S", "-E", "-c", _FLOOD, stage.hosts.addresses[destination]]
    return stage.hosts.start(source, [*command, str(_SECONDS)], f"flood-{source}.log")


def test_no_path_flaps_while_a_slow_uplink_is_full_both_ways(stage: Stage) -> None:
    """F15 of the threats: 20 s of more than the uplink carries, to and from C."""
    stage.hosts.ping("ch", "ah", count=5)
    until(
        lambda: [(stage.peer(n, o) or {}).get("path") for n, o in ("ac", "ca")] == ["direct"] * 2,
        10.0,
        "A and C did not find the direct path",
    )
    to_c = plan.port_to("c")
    _without_arp(stage, "c", "wan", "inet", to_c)
    _without_arp(stage, "inet", to_c, "c", "wan")
    _slow(stage, "c", "wan")
    _slow_by_dscp(stage, "inet", to_c)
    before = {node: stage.status(node)["counters"] for node in ("a", "c")}
    floods = [_flood(stage, "ch", "ah"), _flood(stage, "ah", "ch"), _flood(stage, "hq", "ch")]
    paths = []
    while not processes.wait_until(lambda: all(map(processes.gone, floods)), 0.2):
        for node, other in ("ac", "ca"):
            status = stage.status(node)
            assert status["state"] == "up", (node, status)
            assert status["registration"]["registered"]
            paths.append((stage.peer(node, other) or {})["path"])
    assert set(paths) == {"direct"} and len(paths) > 50
    for node in ("a", "c"):
        after = stage.status(node)["counters"]
        for name in ("direct_path_silent", "home_agent_silent"):
            assert after.get(name, 0) == before[node].get(name, 0), name
    for node, port in (("c", "wan"), ("inet", to_c)):
        assert _dropped(stage, node, port) > 1000, f"{node} {port} was not full"


def test_every_own_message_is_marked_and_users_packets_are_as_they_came(stage: Stage) -> None:
    """F15 of the threats: CS6 outside and inside, on the links of A, C and the home agent."""
    homes = {office.home_address for office in plan.OFFICES} | {plan.HOME_AGENT}
    seen: dict[str, set[tuple[int, int | None]]] = {}
    for link in ("a", "c", "ha"):
        for _, packet in pcap.Reader(stage.captures.path(link)).raw():
            flow = pcap.flow_of(packet)
            kind = _kind(flow, homes)
            inner = packet[33] if flow.kind == "tunnel" else None
            if (kind and kind != "user") or flow.kind == "tunnel":
                seen.setdefault(kind, set()).add((packet[1], inner))
    # As their hosts mark them (ICMP errors are CS6), never by us; the home agent's slow path does
    # not copy.
    assert all(outer in (inner, 0) for outer, inner in seen["user"])
    assert {inner for _, inner in seen.pop("user")} <= {0, _CS6}
    assert {"keepalive", "inside", "outside"} == set(seen)
    for kind, marks in seen.items():
        assert marks <= {(_CS6, _CS6), (_CS6, None)}, (kind, marks)


def _kind(flow: Flow, homes: set[str]) -> str:
    if flow.kind == "signalling":
        return "outside"
    if flow.kind != "tunnel":
        return ""
    if flow.tunnelled_signalling:
        return "inside"
    if flow.inner_protocol == 1 and flow.inner_source in homes:
        return "keepalive"
    return "user"
