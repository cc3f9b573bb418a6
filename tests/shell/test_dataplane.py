"""The data plane on real sockets, in network namespaces: it forwards, and loses nothing."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from tests.shell.namespaces import (
    HOME_1,
    HOME_2,
    MICROPYTHON,
    PLANES,
    ROOT,
    Net,
    config,
    needs_namespaces,
    nodes,
    run,
    why_no_kernel_plane,
)

pytestmark = needs_namespaces

# What a plane that needs its process must hold; the kernel plane has no such queue.
userspace_only = pytest.mark.parametrize("net", ["userspace"], indirect=True)

HEADER = b"\x04\x04\x00\x00"
# A Registration Reply (RFC 5944 3.4); its authenticator does not matter here.
REPLY = (
    bytes([3, 0, 1, 44])
    + address(HOME_1)
    + address("10.99.0.2")
    + bytes(8)
    + b"\x20\x14"
    + bytes(20)
)

SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
s.bind((sys.argv[1], int(sys.argv[2])))
s.connect((sys.argv[3], 434))
for data in sys.argv[4].split(","):
    for _ in range(int(sys.argv[5])):
        s.send(bytes.fromhex(data))
"""


@pytest.fixture(params=PLANES)
def net(request):
    reason = why_no_kernel_plane() if request.param != "userspace" else None
    if reason:
        pytest.skip(reason)
    net = Net(request.param)
    try:
        net.build()
        yield net
    finally:
        net.remove()


def udp(octets: int, src: str = "10.2.0.10", dst: str = "10.1.0.10") -> bytes:
    return ipv4.build_udp(address(src), address(dst), 5000, 5001, bytes(octets - 28))


def send(
    net: Net, datagrams: list[bytes], source: str = "10.99.0.2", port: int = 434, times: int = 1
):
    data = ",".join(datagram.hex() for datagram in datagrams)
    net.python("r2", SEND, source, str(port), "10.99.0.1", data, str(times))


def forwarded(count: int):
    return lambda status: status["counters"]["in_forwarded"] >= count


def sum_of(status: dict, prefix: str) -> int:
    return sum(n for name, n in status["counters"].items() if name.startswith(prefix))


def nothing_lost(status: dict) -> None:
    loss, counters = status["own_loss"], status["counters"]
    assert loss["received"] == loss["handled"]
    assert loss["received"] == sum(counters.values())
    for name in ("cut", "socket_drops", "unrecorded", "send_errors", "port_errors"):
        assert loss[name] == 0, loss


def test_ping_and_oversize_packets_pass_both_ways(net):
    """R3.3.5-i1: an ordinary routing table and a tunnel interface carry the hosts' packets."""
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as (one, _):
        for size, extra in ((56, []), (1472, ["-M", "dont"]), (4000, ["-M", "dont"])):
            command = ["ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", str(size), *extra]
            assert " 0% packet loss" in run(*net.inside("h1", *command, "10.2.0.10"))
        command = ["ping", "-c", "1", "-W", "2", "-s", "1472", "-M", "do", "10.2.0.10"]
        assert "mtu = 1468" in run(*net.inside("h1", *command), check=False)
        # The router itself, from its home address.
        assert " 0% packet loss" in run(
            *net.inside("r1", "ping", "-c", "1", "-W", "2", "-I", HOME_1, "10.2.0.10")
        )
        status = one.ask("status")
        assert status["counters"]["out_too_big"] == 1
        nothing_lost(status)


def test_a_stranger_between_bind_and_connect_gets_in_nowhere(net):
    """A datagram queued before `connect` would be delivered after it, whoever sent it."""
    with nodes(net, ("r1", config(1, pause="connect"))) as (one,):
        # `ready` was its answer to the pause: the tunnel's socket is bound, not connected.
        net.ip("r2", "address", "add", "10.99.0.66/24", "dev", "wan")
        stranger = HEADER + udp(200)
        send(net, [stranger], source="10.99.0.66")
        send(net, [HEADER + udp(100)] * 3)
        assert one.ask("go")["ready"]
        send(net, [stranger], source="10.99.0.66")
        send(net, [HEADER + udp(100)] * 3)
        status = one.until(forwarded(6))
        assert status["counters"]["in_forwarded"] == 6
        assert status["counters"]["in_unknown_tunnel_end"] == 2
        assert status["tunnel_socket_had"] == 0
        nothing_lost(status)


def test_the_end_before_a_move_is_received_from_and_its_port_counts(net):
    """R3.3.6-4: in a handover both care-of addresses are good for a while, another one is not."""
    tunnels = config(1)["tunnels"]
    tunnels[0].append([0, "10.99.0.66", 4340])
    with nodes(net, ("r1", config(1, tunnels=tunnels))) as (one,):
        net.ip("r2", "address", "add", "10.99.0.66/24", "dev", "wan")
        for source, port in (("10.99.0.66", 434), ("10.99.0.66", 4340), ("10.99.0.2", 434)):
            send(net, [HEADER + udp(100)] * 3, source=source, port=port)
        status = one.until(forwarded(6))
        assert status["counters"]["in_forwarded"] == 6
        assert status["counters"]["in_home_agent_port"] == 3
        assert status["rx"] == [6, 0, 0, 0]
        nothing_lost(status)


def test_a_registration_reply_inside_a_burst_is_signalling_and_the_burst_is_whole(net):
    """RFC 3519 makes the HA tunnel share its ports with registration: one 5-tuple for both."""
    burst = [HEADER + udp(64 + i * 36) for i in range(40)]
    short, long_header = HEADER + udp(100)[:90], HEADER + udp(100) + b"x"
    wrong = [
        short,
        long_header,
        b"\x04\x2f\0\0" + udp(100),
        b"\x04\x04",
        b"\x04",
        b"\x18\0" + bytes(8),
    ]
    with nodes(net, ("r1", config(1))) as (one,):
        for _ in range(5):
            send(net, [*burst[:20], REPLY, *burst[20:]])
        for datagram in wrong:
            send(net, [*burst[:3], datagram, *burst[:3]])
        total = 5 * len(burst) + 6 * len(wrong)
        status = one.until(forwarded(total))
        assert status["counters"]["in_forwarded"] == total
        got = [bytes.fromhex(row[4]) for row in status["signalling"]]
        assert got == [REPLY] * 5 + wrong
        assert {tuple(row[:4]) for row in status["signalling"]} == {
            (0, "10.99.0.2", 434, "10.99.0.1")
        }
        nothing_lost(status)


def test_nobody_is_told_that_the_port_is_unreachable(net):
    with nodes(net, ("r1", config(1))) as (one,):
        probe = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("10.99.0.2", 7777)); s.connect(("10.99.0.1", 434)); s.settimeout(0.3)
s.send(b"hello")
try:
    print(s.recv(100))
except OSError as error:
    print(type(error).__name__)
"""
        assert net.python("r2", probe).strip() == "TimeoutError"
        status = one.until(lambda status: status["signalling"])
        assert status["signalling"] == [[0, "10.99.0.2", 7777, "10.99.0.1", b"hello".hex()]]


@userspace_only
def test_a_full_receive_queue_costs_what_it_dropped_and_heals(net):
    # One CPU's queue for all: a full raw socket counts what its filter would have refused, too.
    with nodes(net, ("r1", config(1, cpus=1))) as (one,):
        sizes = (64, 1468, 300, 900)
        one.process.send_signal(signal.SIGSTOP)
        try:
            send(net, [HEADER + udp(size) for size in sizes], times=8000)
        finally:
            one.process.send_signal(signal.SIGCONT)
        status = one.until(lambda status: status["counters"]["in_forwarded"] > 1000)
        while True:
            again = one.ask("status")
            if again["own_loss"]["received"] == status["own_loss"]["received"]:
                break
            status = again
        loss = status["own_loss"]
        assert loss["socket_drops"] > 0
        assert loss["cut"] <= 8
        assert loss["received"] == loss["handled"] + loss["cut"] + loss["missing"]
        # By the kernel's own count: exactly what was sent and not read.
        passed = again["counters"]["in_forwarded"]
        assert passed + loss["cut"] + loss["socket_drops"] == 4 * 8000
        # Afterwards nothing of a new burst is missing.
        send(net, [HEADER + udp(size) for size in sizes], times=50)
        after = one.until(forwarded(status["counters"]["in_forwarded"] + 200))
        # The host answers some by an ICMP error.
        answers = sum_of(after, "out_") - sum_of(status, "out_")
        assert after["own_loss"]["received"] == loss["received"] + 200 + answers
        for name in ("cut", "socket_drops", "unrecorded"):
            assert after["own_loss"][name] == loss[name]


@userspace_only
def test_what_the_lan_sends_too_fast_is_counted_by_the_kernel(net):
    """AF_PACKET's own counter: what was sent and not read, exactly."""
    with nodes(net, ("r1", config(1))) as (one,):
        count = 20000
        flood = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.2.0.10", 9))
s.setsockopt(socket.SOL_SOCKET, 32, 1 << 24)  # SO_SNDBUFFORCE
for i in range({count}):
    s.send(bytes(1400))
"""
        one.process.send_signal(signal.SIGSTOP)
        try:
            net.python("h1", flood)
        finally:
            one.process.send_signal(signal.SIGCONT)

        def all_told(status):
            loss = status["own_loss"]
            handled = status["counters"]["out_forwarded"]
            return handled + loss["cut"] + loss["socket_drops"] == count

        assert one.until(all_told)["own_loss"]["socket_drops"] > 0


@userspace_only
def test_a_keepalive_is_received_however_full_the_queue_of_data_is(net):
    """F15 of the threats: what a tunnel carries for ourselves has a queue of its own."""
    echo = HEADER + ipv4.build_icmp_echo(address(HOME_2), address(HOME_1), False, 1, 2, b"token")
    signalling = HEADER + ipv4.build_udp(address(HOME_2), address(HOME_1), 434, 434, b"\x18\x00")
    ping = HEADER + ipv4.build_icmp_echo(address("10.2.0.10"), address(HOME_1), False, 1, 2, b"")
    options = bytearray(32 + 24)
    ipv4.build_ipv4_into(options, 0, 1, address(HOME_2), address(HOME_1), 36)
    options[0] = 0x46  # one word of options, then the ICMP header
    options[20:24], options[24] = b"\1\1\1\1", 8
    options[10:12] = b"\0\0"
    options[10:12] = ipv4.checksum(options, 0, 24).to_bytes(2, "big")
    control = [echo, signalling, HEADER + bytes(options)]
    # One CPU's queue for all, or what comes by the other one finds room.
    with nodes(net, ("r1", config(1, cpus=1))) as (one,):
        one.process.send_signal(signal.SIGSTOP)
        try:
            send(net, [HEADER + udp(1468)] * 4, times=6000)
            send(net, [*control, ping])
            send(net, [echo], source="10.99.0.2", port=999)
        finally:
            one.process.send_signal(signal.SIGCONT)
        status = one.until(lambda status: status["own_loss"]["missing"] > 0)
        assert status["own_loss"]["socket_drops"] > 0
        lengths = [len(data) - len(HEADER) for data in control]
        assert [row[3] for row in status["control"]] == lengths
        # An echo of another end of the home agent's address is refused, as it would be in data.
        assert status["counters"]["in_home_agent_port"] == 1
        assert status["stray"] == [] and status["signalling"] == []


SNIFF = """
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
s.bind(("wan", 0)); s.settimeout(5)
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)
print("ready", flush=True)
seen = waited = 0
while waited < 5:
    packet = s.recv(2048)
    outer, inner = packet[14:34], packet[46:]
    if inner[:1] != b"\x45" or inner[9] not in (1, 17):
        continue
    if inner[9] == 17:
        assert outer[1] == inner[1] == 0, packet.hex()
        seen += 1
    else:
        assert outer[1] == inner[1] == 0xC0, packet.hex()
        print("echo", seen, flush=True)
        waited += 1
"""


def test_a_keepalive_leaves_marked_and_before_the_data_that_waits(net):
    """F15 of the threats: CS6, and the first band of the interface's queue."""
    config_1 = config(1)
    with nodes(net, ("r1", config_1)) as (one,):
        run("tc", "-n", net.names["r1"], "qdisc", "add", "dev", "wan", "root", "handle", "1:",
            "tbf", "rate", "4mbit", "burst", "4kb", "limit", "4mb")  # fmt: skip
        queue = ["qdisc", "add", "dev", "wan", "parent", "1:1", "handle", "2:", "pfifo_fast"]
        run("tc", "-n", net.names["r1"], *queue)
        sniffer = subprocess.Popen(
            net.inside("r2", sys.executable, "-c", SNIFF), stdout=subprocess.PIPE, text=True
        )
        try:
            assert sniffer.stdout.readline() == "ready\n"
            flood = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("10.2.0.10", 9))
# What passes by the router's kernel is still charged to this socket while it waits there.
s.setsockopt(socket.SOL_SOCKET, 32, 1 << 24)  # SO_SNDBUFFORCE
for i in range(600):
    s.send(bytes(1400))
"""
            net.python("h1", flood)
            one.until(lambda status: status["counters"]["out_forwarded"] == 600)
            waiting = net.waiting("r1")
            assert waiting > 300, waiting
            passed = []
            for _ in range(5):
                assert one.ask("echo") == {"sent": True}
                word, seen = sniffer.stdout.readline().split()
                assert word == "echo"
                passed.append(int(seen))
            assert passed[0] < 600 - waiting + 50 and passed[-1] < 600, (waiting, passed)
            assert sniffer.wait(10) == 0
            assert one.ask("status")["own_loss"]["send_errors"] == 0
        finally:
            sniffer.kill()
            sniffer.wait()


def iperf(net: Net, seconds: int) -> float:
    """Return Gbit/s of one TCP stream from host 1 to host 2, and the sender's retransmits."""
    server = subprocess.Popen(
        net.inside("h2", "iperf3", "-s", "-1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while ":5201" not in run(*net.inside("h2", "ss", "-ltn")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        command = net.inside("h1", "iperf3", "-c", "10.2.0.10", "-t", str(seconds), "-J")
        report = json.loads(run(*command))
        assert "error" not in report, report["error"]
        return report["end"]["sum_received"]["bits_per_second"] / 1e9
    finally:
        server.kill()
        server.wait()


def settled(both) -> list[dict]:
    """Return both routers' status once each has forwarded what the other sent."""
    deadline = time.monotonic() + 10
    while True:
        statuses = [node.ask("status") for node in both]
        one, two = (status["counters"] for status in statuses)
        if (one["out_forwarded"], two["out_forwarded"]) == (
            two["in_forwarded"],
            one["in_forwarded"],
        ):
            return statuses
        assert time.monotonic() < deadline, statuses


def plain_forwarding(net: Net, on: bool) -> None:
    for name, network, gateway in (
        ("r1", "10.2.0.0/24", "10.99.0.2"),
        ("r2", "10.1.0.0/24", "10.99.0.1"),
    ):
        run(*net.inside(name, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
        net.ip(name, "route", "add" if on else "del", network, "via", gateway)


def test_saturating_tcp_through_two_planes_loses_nothing_of_its_own(net, record_property):
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as both:
        rate = iperf(net, 3)
        statuses = settled(both)
        for status in statuses:
            nothing_lost(status)
            assert status["counters"]["in_forwarded"] > 1000
        for node in both:
            node.stop()
    record_property(f"{net.plane}_gbit_s", rate)
    if net.plane != "userspace":
        return
    plain_forwarding(net, True)
    plain = iperf(net, 2)
    for name in ("h1", "r1", "r2", "h2"):
        for port in ("lan", "wan"):
            if port == "wan" and name[0] == "h":
                continue
            off = ["tso", "off", "gso", "off", "tx", "off", "gro", "off"]
            run(*net.inside(name, "ethtool", "-K", port, *off))
    offloads_off = iperf(net, 2)
    record_property("plain_gbit_s", plain)
    record_property("plain_offloads_off_gbit_s", offloads_off)
    packets = statuses[0]["own_loss"]["received"]
    print(
        f"\nTCP Gbit/s: userspace {rate:.2f}, plain kernel {plain:.2f}, "
        f"plain with offloads off {offloads_off:.2f}; own loss 0 of {packets} packets"
    )


def test_small_packets_through_two_planes(net):
    """UDP of 64 octets at a rate the planes can carry: all arrive."""
    with nodes(net, ("r1", config(1)), ("r2", config(2))) as both:
        count = 20000
        sender = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # not connected: no ICMP error ends it
for i in range({count}):
    s.sendto(b"x" * 36, ("10.2.0.10", 9))
    if i % 100 == 0:
        time.sleep(0.001)
"""
        net.python("h1", sender)
        status = both[1].until(forwarded(count), 20)
        assert status["counters"]["in_forwarded"] == count
        for node in both:
            loss = node.ask("status")["own_loss"]
            assert loss["cut"] == loss["socket_drops"] == loss["send_errors"] == 0


def test_the_plane_works_without_the_viper_twins(tmp_path):
    """On ports without a code emitter the file does not compile, or is not shipped at all."""
    program = (
        "from haaro.dataplane import forwarder, leaves\n"
        "assert forwarder._outbound is leaves.outbound\n"
        "from haaro.dataplane.pools import make_pools\n"
        "from haaro.dataplane.userspace import UserspacePlane\n"
        "from haaro.platform import linux_sockets\n"
        "plane = UserspacePlane(make_pools(), linux_sockets, b'abcd', [])\n"
        "plane.swap([(b'\\0' * 4, 0, 0, -1)], [])\n"
        "print('ok')\n"
    )
    for name, twin in (("absent", None), ("broken", "@micropython.viper\ndef f() -> :\n")):
        copy = tmp_path / name
        shutil.copytree(ROOT / "firmware" / "haaro", copy / "haaro")
        path = copy / "haaro" / "dataplane" / "leaves_viper.py"
        path.unlink()
        if twin:
            path.write_text(twin)
        (copy / "program.py").write_text(program)
        assert run(MICROPYTHON, "-X", "heapsize=384k", str(copy / "program.py")) == "ok\n"


def test_everything_imports_without_the_viper_twins(tmp_path):
    """A port that refuses the file loses nothing but speed."""
    shutil.copytree(ROOT / "firmware" / "haaro", tmp_path / "haaro")
    for path in list(tmp_path.rglob("*_viper.py")):
        path.unlink()
    modules = [
        ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        for path in sorted(tmp_path.rglob("*.py"))
        if path.name != "__init__.py"
    ]
    assert len(modules) > 50
    program = f"for name in {modules!r}:\n    __import__(name)\nprint('ok')\n"
    (tmp_path / "program.py").write_text(program)
    assert run(MICROPYTHON, "-X", "heapsize=2m", str(tmp_path / "program.py")) == "ok\n"
