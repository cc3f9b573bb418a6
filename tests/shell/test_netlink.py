"""Links, rules and routes by netlink: what comes up, what a kill leaves, and what goes."""

import json
import re
import subprocess
import time

import pytest

from tests.shell.namespaces import MICROPYTHON, ROOT, Net, config, needs_namespaces, nodes, run

pytestmark = needs_namespaces

MAIN = "lookup main suppress_prefixlength 0 suppress_ifgroup 4340 proto 43"
RULES = [
    "0:\tfrom all lookup local",
    f"4340:\tfrom 192.0.2.129 {MAIN}",
    f"4340:\tfrom 10.1.0.0/24 {MAIN}",
    "4341:\tfrom 192.0.2.129 lookup 434 proto 43",
    "4341:\tfrom 10.1.0.0/24 lookup 434 proto 43",
    "4360:\tfrom 192.0.2.129 blackhole proto 43",
    "4360:\tfrom 10.1.0.0/24 blackhole proto 43",
    "4361:\tfrom all lookup main suppress_prefixlength 0 proto 43",
    "4370:\tfrom 10.99.0.1 lookup 4340 proto 43",
    "32766:\tfrom all lookup main",
    "32767:\tfrom all lookup default",
]


@pytest.fixture
def net():
    net = Net()
    try:
        net.build()
        yield net
    finally:
        net.remove()


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


def picture(net: Net) -> dict[str, list[str]]:
    """Return rules, routes of all tables and names of links of router 1, as `ip` prints them."""
    routes = lines(net.ip("r1", "-4", "route", "show", "table", "all"))
    links = [line.split(": ")[1] for line in net.ip("r1", "-o", "link").splitlines()]
    rules = lines(net.ip("r1", "rule"))
    groups = net.ip("r1", "link", "show", "group", "4340")
    return {
        "rules": rules,
        "rules_6": lines(net.ip("r1", "-6", "rule")),
        "routes": sorted(routes),
        "links": links,
        "uplinks": [line.split(": ")[1].split("@")[0] for line in groups.splitlines()[::2]],
    }


def off(net: Net, device: str, which: str = "off") -> set[str]:
    features = run(*net.inside("r1", "ethtool", "-k", device))
    return {line.split(":")[0].strip() for line in features.splitlines() if f": {which}" in line}


def test_start_builds_the_pair_and_stop_takes_everything_back(net):
    """R3.3.2-2, R3.3.2-3: our sources are routed to the tunnels, a CoA to its uplink."""
    before = picture(net)
    with nodes(net, ("r1", config(1))) as (one,):
        now = picture(net)
        assert now["rules"] == RULES
        assert "4360:\tnot from all iif lo blackhole proto 43" in now["rules_6"]
        assert now["uplinks"] == ["wan"] and before["uplinks"] == []
        assert "default dev haaro0 table 434 proto 43 scope link" in now["routes"]
        assert "default via 10.99.0.2 dev wan table 4340 proto 43" in now["routes"]
        assert "192.0.2.129/32" in net.ip("r1", "-4", "address", "show", "dev", "haaro0")
        link = net.ip("r1", "-d", "link", "show", "dev", "haaro0")
        assert "NOARP" in link and "mtu 1500" in link and "alias haaro" in link
        needed = {
            "tx-tcp-ecn-segmentation",
            "tx-tcp-mangleid-segmentation",
            "tx-tcp6-segmentation",
            "generic-segmentation-offload",
            "generic-receive-offload",
            "tx-checksum-sctp",
            "tx-gre-segmentation",
            "tx-udp_tnl-segmentation",
            "tx-gso-list",
        }
        if "tx-tcp-accecn-segmentation" in off(net, "lan", ""):
            needed.add("tx-tcp-accecn-segmentation")
        assert needed | {"tx-udp-segmentation"} <= off(net, "haaro0")
        assert needed <= off(net, "haaro1")
        for device in ("haaro0", "haaro1"):
            assert "inet6" not in net.ip("r1", "address", "show", "dev", device)
        settings = (
            "net.ipv4.conf.haaro0.accept_local net.ipv4.conf.haaro0.rp_filter net.ipv4.ip_forward"
        )
        values = run(*net.inside("r1", "sysctl", "-n", *settings.split()))
        assert values.split() == ["1", "0", "1"]
        one.stop()
    assert picture(net) == before


def test_an_end_on_an_error_leaves_what_keeps_the_lan_off_the_uplink(net):
    """It is started again; meanwhile its packets must not leave in the clear, as after a kill."""
    before = picture(net)
    with nodes(net, ("r1", config(1))) as (one,):
        assert one.ask("fail") == {"stopped": True}
        assert one.process.wait(10) == 0
    left = picture(net)
    guards = [rule for rule in RULES if "blackhole" in rule]
    assert [rule for rule in left["rules"] if rule in guards] == guards
    assert "4360:\tnot from all iif lo blackhole proto 43" in left["rules_6"]
    assert "haaro0@haaro1" not in left["links"]
    with nodes(net, ("r1", config(1))) as (one,):
        assert picture(net)["rules"] == RULES
        one.stop()
    assert picture(net) == before


def test_start_reconciles_what_a_kill_left(net):
    """MicroPython gets no signals: a killed router takes nothing back."""
    before = picture(net)
    with nodes(net, ("r1", config(1))) as (one,):
        first = picture(net)
        one.kill()
    left = picture(net)
    assert left["rules"] == first["rules"] and "haaro0@haaro1" in left["links"]
    changed = config(1, home_address="192.0.2.140", networks=["10.1.0.0/25", "10.1.0.128/25"])
    with nodes(net, ("r1", changed)) as (one,):
        rules = picture(net)["rules"]
        assert [rule for rule in rules if "proto 43" in rule] == [
            f"4340:\tfrom 192.0.2.140 {MAIN}",
            f"4340:\tfrom 10.1.0.0/25 {MAIN}",
            f"4340:\tfrom 10.1.0.128/25 {MAIN}",
            "4341:\tfrom 192.0.2.140 lookup 434 proto 43",
            "4341:\tfrom 10.1.0.0/25 lookup 434 proto 43",
            "4341:\tfrom 10.1.0.128/25 lookup 434 proto 43",
            "4360:\tfrom 192.0.2.140 blackhole proto 43",
            "4360:\tfrom 10.1.0.0/25 blackhole proto 43",
            "4360:\tfrom 10.1.0.128/25 blackhole proto 43",
            *RULES[7:9],
        ]
        assert "192.0.2.129" not in net.ip("r1", "address")
        one.stop()
    assert picture(net) == before


LOCAL = {"internet": "local", "home_prefixes": ["10.0.0.0/8"], "lan_ipv6": "local"}


def tables(net: Net) -> str:
    return run(*net.inside("r1", "nft", "list", "tables"))


def test_local_break_out_is_built_kept_over_a_kill_and_taken_back(net):
    """Private ranges stay inside whatever happens; another choice afterwards leaves no trace."""
    before = picture(net)
    with nodes(net, ("r1", config(1, **LOCAL))) as (one,):
        now = picture(net)
        assert "4341:\tfrom 10.1.0.0/24 lookup 435 proto 43" in now["rules"]
        assert "4341:\tfrom 192.0.2.129 lookup 434 proto 43" in now["rules"]
        assert "4345:\tfrom 10.1.0.0/24 lookup 4340 proto 43" in now["rules"]
        assert "10.0.0.0/8 dev haaro0 table 435 proto 43 scope link" in now["routes"]
        assert "blackhole 10.0.0.0/8 table 435 proto 43 metric 1000" in now["routes"]
        assert not any("blackhole" in rule for rule in now["rules_6"])
        assert "haaro_local" in tables(net)
        arriving = ["from", "10.1.0.10", "iif", "lan"]  # codespell:ignore
        get = ["route", "get"]
        assert "dev wan" in net.ip("r1", *get, "203.0.113.9", *arriving)
        assert "dev haaro0" in net.ip("r1", *get, "10.77.0.1", *arriving)
        one.kill()
    net.ip("r1", "link", "del", "haaro0")
    assert "dev" not in net.ip("r1", *get, "10.77.0.1", *arriving, check=False)
    assert "dev wan" in net.ip("r1", *get, "203.0.113.9", *arriving)
    with nodes(net, ("r1", config(1, **LOCAL))) as (one,):
        assert picture(net) == now
        one.kill()
    with nodes(net, ("r1", config(1))) as (one,):
        assert picture(net)["rules"] == RULES and "haaro_local" not in tables(net)
        one.stop()
    assert picture(net) == before


def test_what_only_an_uplink_reaches_is_reached_by_no_network_of_ours(net):
    """Leaks in the threats: neither the uplink's own net nor a route of its operator's."""
    net.ip("r1", "route", "add", "172.20.0.0/16", "via", "10.99.0.2")
    arriving = ["from", "10.1.0.10", "iif", "lan"]  # codespell:ignore
    with nodes(net, ("r1", config(1))) as (one,):
        for destination in ("10.99.0.77", "172.20.0.1", "203.0.113.9"):
            assert "dev haaro0" in net.ip("r1", "route", "get", destination, *arriving)
            assert "dev wan" in net.ip("r1", "route", "get", destination, "from", "10.99.0.1")
        one.stop()


def test_what_is_not_ours_is_not_touched(net):
    net.ip("r1", "link", "add", "haaro0", "type", "veth", "peer", "name", "other0")
    net.ip("r1", "rule", "add", "priority", "4341", "from", "10.7.0.0/16", "lookup", "77")
    net.ip("r1", "route", "add", "10.7.0.0/16", "via", "10.99.0.2", "table", "434")
    before = picture(net)
    with pytest.raises(AssertionError, match="haaro0 exists and is not haaro's"):
        nodes(net, ("r1", config(1))).__enter__()
    assert picture(net) == before
    net.ip("r1", "link", "del", "haaro0")
    before = picture(net)
    with nodes(net, ("r1", config(1))) as (one,):
        assert "4341:\tfrom 10.7.0.0/16 lookup 77" in picture(net)["rules"]
        one.stop()
    assert picture(net) == before


WATCH = """
import json, select, sys
from haaro.platform.linux_routing import LinuxRouting
from haaro.uplink.linux_netdev import LinuxNetdev
uplinks = LinuxNetdev(["wan", "absent"], LinuxRouting())
poll = select.poll()
poll.register(uplinks.socket, 1)
uplinks.scan()
while True:
    change = uplinks.next_change()
    while change:
        index, up, address, gateway, mtu = change
        print(json.dumps([index, up, address and list(address), gateway and list(gateway), mtu]))
        change = uplinks.next_change()
    for _ in poll.ipoll(20000):
        uplinks.handle()
"""


def test_an_uplink_is_followed_through_its_addresses_routes_and_carrier(net):
    """Each change is told once, whatever the order of events, and an unrelated one is not."""
    watcher = subprocess.Popen(
        net.inside("r1", MICROPYTHON, "-c", WATCH),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"MICROPYPATH": str(ROOT / "firmware"), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        text=True,
    )
    own, other, gateway, down = (
        [10, 99, 0, 1],
        [10, 99, 0, 9],
        [10, 99, 0, 2],
        [False, None, None, 0],
    )
    steps = [
        ("", [True, own, gateway, 1500]),
        ("route add 10.50.0.0/16 via 10.99.0.2", None),
        ("route replace default via 10.99.0.77", [True, own, [10, 99, 0, 77], 1500]),
        ("link set wan mtu 1400", [True, own, [10, 99, 0, 77], 1400]),
        ("route del default", [True, own, None, 1400]),
        ("route add default via 10.99.0.2 metric 900", [True, own, gateway, 1400]),
        ("route add default via 10.99.0.3 metric 100", [True, own, [10, 99, 0, 3], 1400]),
        ("route del default via 10.99.0.3", [True, own, gateway, 1400]),
        ("address add 10.99.0.9/24 dev wan", None),
        ("link set wan down", down),
        ("link set wan up", [True, own, None, 1400]),
        ("address flush dev wan", down),
        ("address add 10.99.0.9/24 dev wan", [True, other, None, 1400]),
    ]
    try:
        for command, expected in steps:
            if command:
                net.ip("r1", *command.split())
            if expected:
                line = watcher.stdout.readline()
                # The way there may show: an address before its route.
                deadline = time.monotonic() + 10
                while line != f"{[0, *expected]}\n".replace("T", "t").replace("F", "f").replace(
                    "None", "null"
                ):
                    assert line.startswith("[0, ") and time.monotonic() < deadline, (command, line)
                    line = watcher.stdout.readline()
        # Made anew at one go: told as down, then up.
        batch = (
            "link del wan\nlink add wan type veth peer name wan netns "
            f"{net.names['r2']}\nlink set wan mtu 1400\nlink set wan up\n"
            "address add 10.99.0.9/24 dev wan\n"
        )
        command = net.inside("r1", "ip", "-batch", "-")
        subprocess.run(command, input=batch, text=True, check=True)
        assert watcher.stdout.readline() == "[0, false, null, null, 0]\n"
        net.ip("r2", "link", "set", "wan", "up")
        assert watcher.stdout.readline() == "[0, true, [10, 99, 0, 9], null, 1400]\n"
        net.ip("r2", "link", "set", "wan", "down")
        assert watcher.stdout.readline() == "[0, false, null, null, 0]\n"
    finally:
        watcher.kill()
        watcher.wait()


def test_a_second_uplink_gets_its_own_table(net):
    """R6.7-i1, R3.3.3-i1: what carries a care-of address leaves by that address's uplink."""
    net.ip(
        "r1", "link", "add", "lte", "type", "veth", "peer", "name", "lte", "netns", net.names["r2"]
    )
    net.ip("r1", "address", "add", "10.98.0.1/24", "dev", "lte")
    net.ip("r1", "link", "set", "lte", "up")
    net.ip("r2", "link", "set", "lte", "up")
    net.ip("r1", "route", "add", "default", "via", "10.98.0.2", "metric", "500")
    with nodes(net, ("r1", config(1, uplinks=["wan", "lte"]))) as (one,):
        ways = {"10.99.0.1": "via 10.99.0.2 dev wan", "10.98.0.1": "via 10.98.0.2 dev lte"}
        for source, way in ways.items():
            assert way in net.ip("r1", "route", "get", "203.0.113.9", "from", source)
        assert "dev haaro0" in net.ip("r1", "route", "get", "203.0.113.9", "from", "192.0.2.129")
        arriving = ["from", "10.1.0.10", "iif", "lan"]  # codespell:ignore
        assert "dev haaro0" in net.ip("r1", "route", "get", "203.0.113.9", *arriving)
        net.ip("r1", "link", "set", "lte", "down")
        rule = "4371:\tfrom 10.98.0.1 lookup 4341 proto 43"
        one.until(lambda _: rule not in picture(net)["rules"])
        one.stop()


def test_without_root_inside_a_user_namespace(net):
    """The machine comes up with the privileges of `unshare -Urnm`: only its queues are smaller, and
    the kernel refuses its plane, for which the userspace plane stands in.
    """
    wanted = config(1, dataplane="auto", socket="/run/haaro-userns/r.sock")
    node = f"'{MICROPYTHON}' -X heapsize=384k '{ROOT}/tests/shell/plane_node.py'"
    script = (
        "mount -t sysfs none /sys 2>/dev/null; "
        "ip link add wan type veth peer name peer; ip link set lo up; ip link set peer up; "
        "ip address add 10.99.0.1/24 dev wan; ip link set wan up; "
        "mount -t tmpfs none /run; "
        f"printf '%s\\n' '{json.dumps(wanted)}' status stop | {node}; "
        "ip rule; ip link"
    )
    environment = f"MICROPYPATH={ROOT}/firmware"
    out = run("env", environment, "unshare", "-Urnm", "sh", "-c", script)
    assert '"ready": true' in out and '"warnings": []' in out and '"stopped": true' in out
    assert "proto 43" not in out and "haaro0" not in out
    status = json.loads(next(line for line in out.splitlines() if '"plane"' in line))
    assert status["plane"] == "userspace"
    assert re.match(
        "the kernel plane is refused: .*(denied|not permitted|make bpf|not inst)", status["why"]
    )
