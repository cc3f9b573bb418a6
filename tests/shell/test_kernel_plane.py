"""What only the kernel plane promises: traffic without its process, and a clean box afterwards."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shell.namespaces import Net, Node, Sniffer, config, needs_namespaces, nodes, run
from tests.shell.test_dataplane import HEADER, send, udp

pytestmark = needs_namespaces

COUNT = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 26)
s.bind(("0.0.0.0", 9))
print("ready", flush=True)
s.settimeout(float(sys.argv[1]))
seen = []
try:
    while True:
        seen.append(int.from_bytes(s.recv(65536)[:4], "big"))
except OSError:
    print(len(seen), len(set(seen)), sum(b < a for a, b in zip(seen, seen[1:])))
"""

STREAM = """
import select, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.2.0.10", 9))
n = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    s.send(n.to_bytes(4, "big") + bytes(60))
    n += 1
print(n)
"""


class Counter:
    """Counts what arrives at host 2; `(packets, different ones, out of order)` when it is over."""

    def __init__(self, net: Net, quiet: float = 1.0) -> None:
        command = net.inside("h2", sys.executable, "-c", COUNT, str(quiet))
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "ready\n"

    def result(self) -> list[int]:
        out, _ = self._process.communicate(timeout=30)
        return [int(word) for word in out.split()]


class Stream:
    """A packet each millisecond from host 1 to host 2, numbered."""

    def __init__(self, net: Net) -> None:
        self._counter = Counter(net)
        command = net.inside("h1", sys.executable, "-c", STREAM)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def end(self) -> tuple[int, list[int]]:
        """Return how many were sent, and what the counter says."""
        out, _ = self._process.communicate("\n", timeout=30)
        return int(out), self._counter.result()


def left(net: Net, name: str) -> str:
    """Return what of ours is in the kernel of a router."""
    filters = "".join(
        run("tc", "-n", net.names[name], what, "show", "dev", port, check=False)
        for what, port in (("qdisc", "lan"), ("qdisc", "wan"), ("qdisc", "haaro0"))
    )
    pins = [each for each in os.listdir(net.run / "bpf") if name in each]
    return "".join(line for line in filters.splitlines() if "clsact" in line) + "".join(pins)


def test_no_packet_of_the_common_case_reaches_the_process(kernel_net):
    """The heap statement of this plane: a process that does not run allocates nothing."""
    net = kernel_net
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as both:
        run(*net.inside("h1", "ping", "-c", "1", "-W", "2", "10.2.0.10"))
        for node in both:
            node.process.send_signal(signal.SIGSTOP)
        try:
            stream = Stream(net)
            pings = run(
                *net.inside("h1", "ping", "-c", "200", "-i", "0.005", "-W", "2", "10.2.0.10")
            )
            sent, counted = stream.end()
        finally:
            for node in both:
                node.process.send_signal(signal.SIGCONT)
        assert " 0% packet loss" in pings
        assert sent > 200 and counted == [sent, sent, 0]
        status = both[1].until(lambda status: status["counters"]["in_forwarded"] >= sent + 201)
        assert status["rx"][0] == sent + 201


def test_without_a_control_plane_for_a_minute_nothing_is_tunnelled_any_more(kernel_net):
    """Nobody would take a route back: the programs stand aside until somebody asks again."""
    net = kernel_net
    ping = net.inside("h1", "ping", "-c", "2", "-i", "0.2", "-W", "0.5", "10.2.0.10")
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as (one, _):
        assert " 0% packet loss" in run(*ping)
        one.process.send_signal(signal.SIGSTOP)
        try:
            maps = next((net.run / "bpf").glob("*_r1")) / "maps" / "alive"
            # As if it was asked for counters when the machine was started.
            zeros = ["0"] * 4, ["0"] * 8
            run(
                "bpftool",
                "map",
                "update",
                "pinned",
                str(maps),
                "key",
                *zeros[0],
                "value",
                *zeros[1],
            )
            assert float(Path("/proc/uptime").read_text().split()[0]) > 60
            assert "100% packet loss" in run(*ping, check=False)
        finally:
            one.process.send_signal(signal.SIGCONT)
        one.ask("status")
        assert " 0% packet loss" in run(*ping)


def test_a_killed_and_restarted_control_plane_interrupts_nothing(kernel_net):
    """Pinned maps: the next process takes over, under new slots, and no packet waits for it."""
    net = kernel_net
    with nodes(net, ("r2", config(2))) as (two,):
        first = Node(net, "r1", {**net.plane_config("r1"), **config(1)})
        assert first.read()["plane"] == "kernel"
        run(*net.inside("h1", "ping", "-c", "1", "-W", "2", "10.2.0.10"))
        stream = Stream(net)
        second = None
        try:
            before = two.until(lambda status: status["counters"]["in_forwarded"] > 200)
            first.kill()
            # As long as there is no process ...
            two.until(lambda s: s["rx"][0] > before["rx"][0] + 200)
            second = Node(net, "r1", {**net.plane_config("r1"), **config(1)})
            assert second.read()["plane"] == "kernel"
            # ... and with the tables of the new one: it counts from its own beginning.
            second.until(lambda status: status["counters"]["out_forwarded"] > 200)
        finally:
            sent, counted = stream.end()
        assert counted == [sent, sent, 0]
        # What comes by a tunnel end of the process before is still accepted, and signalling heard.
        assert " 0% packet loss" in run(
            *net.inside("h2", "ping", "-c", "2", "-i", "0.2", "10.1.0.10")
        )
        send(net, [b"\x03hello"], port=999)
        second.until(lambda status: status["signalling"])
        second.stop()
        assert left(net, "r1") == ""


def test_what_comes_by_an_end_that_only_the_old_process_knew_is_held(kernel_net):
    """A peer that does not know of the restart goes on sending by its direct tunnel."""
    net = kernel_net
    tunnels = [*config(1)["tunnels"], [1, 0, "10.99.0.1", "10.99.0.3", 4340, 1468, "192.0.2.131"]]
    changes = {"tunnels": tunnels, "sources": [["10.3.0.0/24", 1]]}
    net.ip("r2", "address", "add", "10.99.0.3/24", "dev", "wan")
    datagrams = [HEADER + udp(100, "10.3.0.10"), HEADER + udp(100, "10.4.0.10")]
    first = Node(net, "r1", {**net.plane_config("r1"), **config(1, **changes)})
    try:
        assert first.read()["plane"] == "kernel"
        send(net, datagrams, source="10.99.0.3", port=4340)
        first.until(lambda status: status["counters"]["in_forwarded"] == 1)
    finally:
        first.kill()
    with nodes(net, ("r1", config(1))) as (second,):
        send(net, datagrams, source="10.99.0.3", port=4340)
        status = second.until(lambda status: status["counters"]["in_forwarded"] == 1)
        status = second.until(lambda status: status["counters"]["in_unconfirmed_source"] == 1)
        assert status["counters"]["in_unknown_tunnel_end"] == 0
        assert status["rx"] == [0, 0, 0, 0]


def test_a_start_with_the_userspace_plane_takes_back_what_a_killed_kernel_plane_left(kernel_net):
    net = kernel_net
    first = Node(net, "r1", {**net.plane_config("r1"), **config(1)})
    assert first.read()["plane"] == "kernel"
    first.kill()
    assert "clsact" in left(net, "r1")
    settings = {**net.plane_config("r1"), "dataplane": "userspace"}
    second = Node(net, "r1", {**settings, **config(1)})
    try:
        assert second.read()["ready"]
        assert left(net, "r1") == ""
        send(net, [HEADER + udp(100)])
        assert second.until(lambda s: s["counters"]["in_forwarded"] == 1)["plane"] == "userspace"
        second.stop()
    finally:
        second.kill()


def test_others_filters_on_the_same_interface_stay(kernel_net):
    net = kernel_net
    tc = ["tc", "-n", net.names["r1"]]
    run(*tc, "qdisc", "add", "dev", "wan", "clsact")
    other = ["u32", "match", "ip", "src", "203.0.113.0/24", "flowid", "1:1"]
    run(*tc, "filter", "add", "dev", "wan", "ingress", "pref", "9", "protocol", "ip", *other)
    with nodes(net, ("r1", config(1))) as (one,):
        assert "pref 434" in run(*tc, "filter", "show", "dev", "wan", "ingress")
        one.stop()
    after = run(*tc, "filter", "show", "dev", "wan", "ingress")
    assert "pref 9" in after and "pref 434" not in after


@pytest.mark.parametrize(("size", "fits"), [(1440, True), (1460, False)])
def test_udp_segments_of_the_stack_are_tunnelled_each_as_sent(kernel_net, size, fits):
    """A host that lets the kernel cut (QUIC does): each datagram arrives as it was meant."""
    net = kernel_net
    sender = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.2.0.10", 9))
s.setsockopt(17, 103, {size})  # UDP_SEGMENT
s.setsockopt(0, 10, 0)  # IP_MTU_DISCOVER: may be cut into fragments
for _ in range(20):
    s.send(b"".join(i.to_bytes(4, "big") + bytes({size} - 4) for i in range(40)))
"""
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as (one, two):
        run(*net.inside("h1", "ping", "-c", "1", "-W", "2", "10.2.0.10"))
        counter, sniffer = Counter(net), Sniffer(net, "h2", "lan")
        with sniffer:
            net.python("h1", sender)
            assert counter.result()[:2] == [800, 40]
            lengths = {len(p) for p in sniffer.until(lambda all_: len(all_) >= 20) if p[9] == 17}
        if fits:
            # Whole, or put together again by the host's GRO.
            assert size + 28 in lengths or max(lengths) > size + 28
            status = two.until(lambda status: status["rx"][0] == 801)
        # In the kernel or, where each needs two fragments, in the process: nothing is lost.
        status = one.until(lambda status: status["tx"][0] == 801)
        assert status["counters"]["out_too_big"] == 0


def test_what_the_box_routes_elsewhere_is_not_tunnelled(kernel_net):
    """Only the main table's default route gives way to the tunnels, also past the kernel."""
    net = kernel_net
    net.ip("r1", "address", "add", "192.168.7.1/24", "dev", "lan")
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as (one, _):
        for destination in ("192.168.7.1", "10.1.0.1", "192.0.2.129"):
            command = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "-I", "10.1.0.10", destination]
            assert " 0% packet loss" in run(*net.inside("h1", *command))
        run(*net.inside("h1", "ping", "-c", "2", "-i", "0.2", "-W", "2", "10.2.0.10"))
        status = one.until(lambda status: status["counters"]["out_forwarded"] >= 2)
        assert status["counters"]["out_forwarded"] == 2


def test_the_router_of_the_uplink_is_learned_anew(kernel_net):
    """What passes by the kernel's routing follows it: another way to the tunnel's end."""
    net = kernel_net
    with nodes(net, ("r1", config(1)), ("r2", config(2))):
        ping = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "10.2.0.10"]
        assert " 0% packet loss" in run(*net.inside("h1", *ping))
        with Sniffer(net, "r2", "wan") as sniffer:
            # A gateway that is r2 under another address: ARP is asked for that one from now on.
            net.ip("r2", "address", "add", "10.99.0.77/24", "dev", "wan")
            net.ip("r1", "route", "add", "10.99.0.2/32", "via", "10.99.0.77", "dev", "wan")
            sniffer.until(lambda _: " 0% packet loss" in run(*net.inside("h1", *ping), check=False))
            known = net.ip("r1", "neigh", "show", "10.99.0.77", "dev", "wan")
            assert "lladdr" in known


def test_a_lan_interface_that_is_made_anew_has_the_program_again(kernel_net):
    net = kernel_net
    if net.plane != "kernel-lan":
        pytest.skip("nothing is on the LAN's interface")
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as (one, _):
        net.ip("r1", "link", "del", "lan")
        net.wire("h1", "lan", "10.1.0.10", "r1", "lan", "10.1.0.1")
        net.ip("h1", "route", "add", "default", "via", "10.1.0.1")
        show = ["tc", "-n", net.names["r1"], "filter", "show", "dev", "lan", "ingress"]
        one.until(lambda _: "lan_to_tunnel" in run(*show))
        ping = net.inside("h1", "ping", "-c", "2", "-i", "0.2", "-W", "2", "10.2.0.10")
        one.until(lambda _: " 0% packet loss" in run(*ping, check=False))


def test_traffic_on_a_hinted_route_is_told_of(plane_net):
    """The core learns which routes are wanted, without a word for each packet."""
    net = plane_net
    routes = [["0.0.0.0/0", 0, -1], ["10.2.0.0/24", 0, 7], ["10.5.0.0/24", 0, 200]]
    with nodes(net, ("r1", config(1, routes=routes)), ("r2", config(2))) as (one, _):
        run(*net.inside("h1", "ping", "-c", "3", "-i", "0.2", "-W", "2", "10.2.0.10"))
        status = one.until(lambda status: status["wanted"])
        assert status["wanted"] == [7]
        one.until(lambda status: status["counters"]["out_forwarded"] == 3)


def test_one_call_puts_a_change_in_force_and_its_time_is_told(kernel_net):
    net = kernel_net
    routes = [["0.0.0.0/0", 0, -1]]
    routes += [[f"10.{100 + i // 250}.{i % 250}.0/24", i % 2 - 1, -1] for i in range(120)]
    with nodes(net, ("r1", config(1, routes=routes)), ("r2", config(2))) as (one, two):
        calls = [node.ask("status")["calls"] for node in (one, two)]
        # 120 prefixes more cost no call more.
        assert calls[0]["calls"] == calls[1]["calls"]
        assert calls[0]["failures"] == 0 and calls[0]["last_error"] == ""
        assert 0 < calls[0]["longest_us"] <= calls[0]["blocked_ms"] * 1000 + 1000
        for destination, loss in (
            ("10.2.0.10", " 0%"),
            ("10.100.0.1", "100%"),
            ("10.100.1.1", "100%"),
        ):
            command = ["ping", "-c", "1", "-W", "0.3", destination]
            assert f"{loss} packet loss" in run(*net.inside("h1", *command), check=False)
        # The programs' counts come with the next report.
        status = one.until(
            lambda status: (
                status["counters"]["out_no_route"] >= 1 and status["counters"]["out_forwarded"] >= 2
            )
        )
        assert status["counters"]["out_no_route"] == 1
        assert status["counters"]["out_forwarded"] == 2
