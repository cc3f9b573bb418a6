"""Which packets pass by the kernel's forwarding, and that no decision outlives its tables."""

import json
import shutil
import subprocess
import sys

import pytest

from haaro.platform import linux_bystanders
from tests.shell.conftest import built
from tests.shell.namespaces import Net, Node, config, needs_namespaces, nodes, run
from tests.shell.test_dataplane import HEADER, SEND, send, udp

PING = ["ping", "-c", "2", "-i", "0.2", "-W", "0.5", "10.2.0.10"]


@pytest.fixture
def auto_net():
    """The four namespaces, whose routers choose by themselves."""
    yield from built("kernel-auto")


def passing(net: Net) -> bool:
    return " 0% packet loss" in run(*net.inside("h1", *PING), check=False)


def programs(net: Net) -> str:
    return run("tc", "-n", net.names["r1"], "filter", "show", "dev", "lan", "ingress")


def fast(one: Node, interfaces: list, why: str) -> None:
    one.until(lambda s: s["fast_lan"][0] == interfaces and why in s["fast_lan"][1], 20)


def nft(net: Net, script: str) -> None:
    if not shutil.which("nft"):
        pytest.skip("nft is not installed")
    command = net.inside("r1", "nft", "-f", "-")
    subprocess.run(command, input=script, text=True, check=True, timeout=20)


@needs_namespaces
def test_a_firewall_that_comes_later_sees_the_packets(auto_net):
    """Nobody has to say that there is one: its chains end the shortcut, their absence brings it."""
    net = auto_net
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as (one, _):
        fast(one, ["lan"], "nobody else")
        assert "lan_to_tunnel" in programs(net) and passing(net)
        chain = "chain forward { type filter hook forward priority 0; ip daddr 10.2.0.10 drop\n }"
        nft(net, f"table ip own {{ {chain}\n}}")
        fast(one, [], "nftables has chains in table own")
        assert "lan_to_tunnel" not in programs(net) and not passing(net)
        nft(net, "delete table ip own")
        fast(one, ["lan"], "nobody else")
        assert "lan_to_tunnel" in programs(net) and passing(net)


@needs_namespaces
@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("ip rule add pref 100 from 10.1.0.0/24 lookup 77", "routing rule of priority 100"),
        ("ip rule add pref 9000 from 10.1.0.0/24 lookup 77", ""),
        ("ip rule add pref 100 iif wan lookup 77", ""),
        ("ip rule add pref 100 iif lan lookup 77", "routing rule of priority 100"),
        ("ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir fwd", "IPsec"),
        ("echo 0 > /proc/sys/net/ipv4/conf/lan/forwarding", "forwarding is off on lan"),
    ],
)
def test_whoever_else_has_a_say_keeps_the_kernels_forwarding(auto_net, command, why):
    net = auto_net
    with nodes(net, ("r1", config(1))) as (one,):
        fast(one, ["lan"], "nobody else")
        run(*net.inside("r1", "sh", "-ec", command))
        if why:
            fast(one, [], why)
            assert "lan_to_tunnel" not in programs(net)
            return
        # Something that is seen later than this would have been.
        net.ip("r1", "rule", "add", "pref", "90", "from", "10.1.0.0/24", "lookup", "77")
        fast(one, [], "priority 90")


@needs_namespaces
def test_a_next_process_takes_the_shortcut_of_the_one_before_away(auto_net):
    """A router that was killed cannot see the firewall that came meanwhile."""
    net = auto_net
    first = Node(net, "r1", {**net.plane_config("r1"), **config(1)})
    assert first.read()["plane"] == "kernel"
    fast(first, ["lan"], "nobody else")
    first.kill()
    assert "lan_to_tunnel" in programs(net)
    net.ip("r1", "rule", "add", "pref", "90", "from", "10.1.0.0/24", "lookup", "77")
    with nodes(net, ("r1", config(1))) as (second,):
        fast(second, [], "priority 90")
        assert "lan_to_tunnel" not in programs(net)


def test_iptables_that_has_tables_is_somebody(tmp_path, monkeypatch):
    names = tmp_path / "names"
    names.write_text("filter\n")
    monkeypatch.setattr(linux_bystanders, "_IPTABLES", str(names))
    assert linux_bystanders.whose_say([]) == "iptables has tables"


@needs_namespaces
def test_a_source_that_is_not_on_this_link_is_the_kernels_to_judge(auto_net):
    """Its reverse-path filter, for instance, may be strict."""
    net = auto_net
    net.wire("h1", "lan2", "10.3.0.10", "r1", "lan2", "10.3.0.1")
    run(*net.inside("r1", "sh", "-ec", "echo 1 > /proc/sys/net/ipv4/conf/lan2/rp_filter"))
    net.ip("h1", "route", "add", "10.2.0.0/24", "dev", "lan2", "via", "10.3.0.1", "table", "9")
    net.ip("h1", "rule", "add", "pref", "9", "to", "10.2.0.10/32", "lookup", "9")
    changes = {"networks": ["10.1.0.0/24", "10.3.0.0/24"]}
    with nodes(net, ("r1", config(1, **changes)), ("r2", config(2))) as (one, _):
        fast(one, ["lan", "lan2"], "nobody else")
        for source, loss in (("10.3.0.10", " 0%"), ("10.1.0.10", "100%")):
            said = run(*net.inside("h1", *PING, "-I", source), check=False)
            assert f"{loss} packet loss" in said, source


SENDS = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(int(sys.argv[1])):
    s.sendto(b"again", ("10.2.0.10", 9))
"""


@needs_namespaces
def test_a_flow_that_passed_is_judged_anew_when_the_tables_change(kernel_net):
    """What a CPU remembers of a flow is not in force longer than the tables it came from."""
    net = kernel_net
    direct = [[0, 0, "10.99.0.2", "10.99.0.77", 434, 1468, "192.0.2.1"],
              [1, 0, "10.99.0.2", "10.99.0.1", 434, 1468, "192.0.2.129"]]  # fmt: skip
    believed = {"tunnels": direct, "sources": [["10.1.0.0/24", 1]]}
    with nodes(net, ("r1", config(1)), ("r2", config(2, **believed))) as (one, two):

        def change(node, **changes):
            assert node.ask(json.dumps(changes)) == {"done": True}

        def send(count):
            run(*net.inside("h1", sys.executable, "-c", SENDS, str(count)))

        send(5)
        two.until(lambda s: s["counters"]["in_forwarded"] == 5)
        change(two, sources=[])
        send(3)
        status = two.until(lambda s: s["counters"]["in_unconfirmed_source"] == 3)
        assert status["counters"]["in_forwarded"] == 5
        change(two, sources=[["10.1.0.0/24", 1]])
        send(2)
        two.until(lambda s: s["counters"]["in_forwarded"] == 7)
        change(one, routes=[])
        send(4)
        status = one.until(lambda s: s["counters"]["out_no_route"] == 4)
        assert status["counters"]["out_forwarded"] == 10
        change(one, routes=[["0.0.0.0/0", 0, -1]])
        send(1)
        one.until(lambda s: s["counters"]["out_forwarded"] == 11)
        assert two.until(lambda s: s["counters"]["in_forwarded"] == 8)["rx"][1] == 8


@needs_namespaces
def test_a_flow_is_remembered_with_both_of_its_outer_addresses_and_the_port(kernel_net):
    """The inner addresses alone open nothing to whoever can guess them."""
    net = kernel_net
    net.ip("r1", "address", "add", "10.99.0.9/24", "dev", "wan")
    net.ip("r2", "address", "add", "10.99.0.3/24", "dev", "wan")
    packet = (HEADER + udp(100)).hex()
    with nodes(net, ("r1", config(1))) as (one,):
        for source, port, target in (
            ("10.99.0.2", "434", "10.99.0.1"),
            ("10.99.0.2", "434", "10.99.0.9"),
            ("10.99.0.3", "434", "10.99.0.1"),
            ("10.99.0.2", "4340", "10.99.0.1"),
            ("10.99.0.2", "434", "10.99.0.1"),
        ):
            net.python("r2", SEND, source, port, target, packet, "1")

        def all_judged(status: dict) -> bool:
            # No socket has the address of the second one, so nobody counts it.
            counters = status["counters"]
            wrong = counters["in_unknown_tunnel_end"] + counters["in_home_agent_port"]
            return status["rx"][0] >= 2 and wrong >= 2

        one.until(all_judged)
        # A report that has this one has all before it.
        send(net, [HEADER + udp(100)])
        status = one.until(lambda s: s["rx"][0] >= 3)
        assert status["rx"][0] == 3
        assert status["counters"]["in_forwarded"] == 3
