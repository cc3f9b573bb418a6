"""Linux's own ARP, ping, DHCP clients and transfers through the W5500 port in MicroPython."""

import itertools
import json
import os
import re
import shutil
import subprocess

import pytest

from tests.lan.hosts import Office, needs_hosts, until

pytestmark = needs_hosts

POOL = {
    "first": "10.1.0.100",
    "last": "10.1.0.111",
    "lease_s": 600,
    "dns": ["10.1.0.2"],
    "mtu": 1400,
    "reservations": {"020000000077": "10.1.0.77"},
}
needs_busybox = pytest.mark.skipif(not shutil.which("busybox"), reason="needs Debian's busybox")
needs_dhclient = pytest.mark.skipif(
    not shutil.which("dhclient"), reason="needs Debian's isc-dhcp-client"
)


@pytest.fixture(scope="module")
def office():
    with Office(dhcp=POOL) as made:
        made.address("h1", 10)
        yield made


def test_ping_reaches_the_gateway_and_what_is_behind_it(office):
    assert office.ping("h1", "10.1.0.1")
    assert office.ping("h1", "10.1.0.1", "-s", "1472")
    assert office.ping("h1", "10.2.0.10", "-s", "1472")
    assert office.ping("f", "10.1.0.10")
    assert office.ping("f", "10.1.0.1")
    # In fragments, which the port passes on like any packet.
    assert office.ping("h1", "10.2.0.10", "-s", "4000")


@needs_busybox
def test_arping_is_answered_by_our_address_only(office):
    shown = office.inside("h1", "busybox", "arping", "-c", "2", "-w", "5", "-I", "lan", "10.1.0.1")
    assert "[02:68:61:61:72:01]" in shown
    shown = office.inside(
        "h1", "busybox", "arping", "-c", "1", "-w", "1", "-I", "lan", "10.1.0.3", check=False
    )
    assert "Received 0 response" in shown


def test_duplicate_address_detection_of_linux_finds_our_address_taken(office):
    if not shutil.which("busybox"):
        pytest.skip("needs Debian's busybox")
    shown = office.inside(
        "h2", "busybox", "arping", "-D", "-c", "2", "-w", "5", "-I", "lan", "10.1.0.1", check=False
    )
    assert "02:68:61:61:72:01" in shown


def iperf(office, *options: str) -> dict:
    """What iperf3 says of a transfer between h1 and f that has come to its end."""
    for _ in range(3):
        listening = office.start("f", "iperf3", "-s", "-1", "-p", "5999", stdout=subprocess.DEVNULL)
        until(lambda: ":5999" in office.inside("f", "ss", "-ltn"), "iperf3 does not listen")
        command = ["iperf3", "-J", "-c", "10.2.0.10", "-p", "5999", *options]
        end = json.loads(office.inside("h1", *command, check=False, seconds=90))["end"]
        if end:
            listening.wait(30)
            return end
        listening.kill()
        listening.wait()
    raise AssertionError("iperf3 never came to an end")


@pytest.mark.parametrize("reverse", [(), ("-R",)], ids=["out", "in"])
def test_tcp_passes_in_both_directions(office, reverse):
    # With -R iperf3 ends when the server has written, not when all has come.
    assert iperf(office, "-n", "200K", *reverse)["sum_received"]["bytes"] > 20000


@pytest.mark.parametrize("reverse", [(), ("-R",)], ids=["out", "in"])
def test_udp_passes_in_both_directions(office, reverse):
    end = iperf(office, "-u", "-b", "300K", "-l", "1000", "-n", "30K", *reverse)
    assert end["sum"]["packets"] > 20
    assert end["sum"]["lost_packets"] < end["sum"]["packets"]


def hook(tmp_path, name: str, text: str) -> str:
    """A script that a DHCP client runs."""
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def pid_of(path) -> int:
    """The process id in a file that a client writes when it goes on by itself."""
    until(lambda: path.exists() and path.read_text().strip(), "there is no process id")
    return int(path.read_text())


@needs_busybox
def test_udhcpc_gets_renews_and_releases_a_lease(office, tmp_path):
    told = tmp_path / "told"
    script = hook(
        tmp_path,
        "udhcpc.sh",
        "#!/bin/sh\n"
        f'echo "$1 $ip $subnet $router $dns $lease $mtu $serverid" >> {told}\n'
        '[ "$1" = bound ] && ip address add "$ip/24" dev lan\n'
        '[ "$1" = deconfig ] && ip address flush dev lan\n'
        "exit 0\n",
    )
    office.ip("h2", "link", "set", "lan", "address", "02:00:00:00:00:22")
    client = office.start(
        "h2", "busybox", "udhcpc", "-f", "-i", "lan", "-s", script, "-t", "5", "-T", "2", "-R",
        "-p", str(tmp_path / "pid"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def lines(word: str) -> list[str]:
        text = told.read_text() if told.exists() else ""
        return [line for line in text.splitlines() if line.startswith(word)]

    bound = until(lambda: lines("bound"), "udhcpc was never bound")[0]
    found = re.fullmatch(
        r"bound (10\.1\.0\.1[01]\d) 255\.255\.255\.0 10\.1\.0\.1 10\.1\.0\.2 600 1400 10\.1\.0\.1",
        bound,
    )
    assert found, bound
    pid = pid_of(tmp_path / "pid")
    os.kill(pid, 10)  # SIGUSR1: renew
    until(lambda: lines("renew"), "udhcpc never renewed")
    lease = office.status()["dhcp"]["leases"]
    assert [(each["address"], each["mac"]) for each in lease] == [(found[1], "02:00:00:00:00:22")]
    os.kill(pid, 15)  # with -R it releases
    until(lambda: not office.status()["dhcp"]["leases"], "udhcpc's release was not taken")
    client.wait(20)


@needs_busybox
def test_a_reserved_address_goes_to_its_owner(office, tmp_path):
    told = tmp_path / "told"
    script = hook(tmp_path, "udhcpc.sh", f'#!/bin/sh\necho "$1 $ip" >> {told}\n')
    office.ip("h2", "link", "set", "lan", "address", "02:00:00:00:00:77")
    office.inside(
        "h2", "busybox", "udhcpc", "-f", "-q", "-n", "-i", "lan", "-s", script, "-t", "8", "-T", "2"
    )
    assert "bound 10.1.0.77" in told.read_text()


@needs_dhclient
def test_dhclient_gets_a_lease_and_keeps_it_over_a_restart_of_the_router(office, tmp_path):
    script = hook(
        tmp_path,
        "script",
        "#!/bin/sh\n"
        f'echo "$reason $new_ip_address" >> {tmp_path}/told\n'
        'case "$reason" in\n'
        'BOUND|REBOOT) ip address replace "$new_ip_address/24" dev lan ;;\n'
        "PREINIT) ip address flush dev lan ;;\n"
        "esac\n"
        "exit 0\n",
    )
    office.ip("h2", "link", "set", "lan", "address", "02:00:00:00:00:24")
    command = [
        "dhclient", "-4", "-1", "-sf", script, "-lf", str(tmp_path / "leases"),
        "-pf", str(tmp_path / "pid"), "-cf", "/dev/null", "lan",
    ]  # fmt: skip
    office.inside("h2", *command)
    words = (tmp_path / "told").read_text().split()
    assert "BOUND" in words
    address = words[-1]
    os.kill(pid_of(tmp_path / "pid"), 9)
    office.stop_node()
    office.start_node()
    assert address in [lease["address"] for lease in office.status()["dhcp"]["leases"]]
    # It asks for what it had (INIT-REBOOT).
    office.inside("h2", *command)
    words = (tmp_path / "told").read_text().split()
    assert ("REBOOT", address) in itertools.pairwise(words)
    office.inside("h2", "dhclient", "-4", "-r", *command[3:])
    until(
        lambda: address not in [e["address"] for e in office.status()["dhcp"]["leases"]],
        "dhclient's release was not taken",
    )


@needs_busybox
def test_an_address_that_a_host_has_taken_by_itself_is_not_offered(office, tmp_path):
    """h1 has taken all of the pool's addresses but one; after this the pool is exhausted."""
    told = tmp_path / "told"
    script = hook(tmp_path, "udhcpc.sh", f'#!/bin/sh\necho "$1 $ip" >> {told}\n')
    taken = [f"10.1.0.{i}/24" for i in range(100, 111)]
    for each in taken:
        office.ip("h1", "address", "add", each, "dev", "lan")
    try:
        office.ip("h2", "link", "set", "lan", "address", "02:00:00:00:00:23")
        office.inside(
            "h2", "busybox", "udhcpc", "-f", "-q", "-n", "-i", "lan", "-s", script, "-t", "30",
            "-T", "2", seconds=90,
        )  # fmt: skip
    finally:
        for each in taken:
            office.ip("h1", "address", "del", each, "dev", "lan")
    assert "bound 10.1.0.111" in told.read_text()
    assert office.status()["dhcp"]["in_use"] > 0


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        ({"cable": False}, {"cable": True}),
        ({"brown_out": True}, {}),
        ({"powered": False}, {"powered": True, "brown_out": True}),
        ({"stuck": True}, {"stuck": False}),
        ({"garbage": 300}, {}),
    ],
    ids=["cable", "brown_out", "power", "stuck", "garbage"],
)
def test_traffic_comes_back_after_a_fault_without_a_restart(office, fault, remedy):
    pid = office.node.pid
    office.until_ping("h1", "10.2.0.10")
    office.chip(**fault)
    # What the router believes while it lasts.
    office.ping("h1", "10.2.0.10", count=1)
    if "cable" in fault or "powered" in fault:
        office.until_link(False)
        assert office.status()["why"]
    office.chip(**remedy)
    office.until_ping("h1", "10.2.0.10")
    assert office.node.pid == pid and office.node.poll() is None
    assert office.status()["link"] is True


def test_more_than_the_ring_holds_is_lost_and_the_rest_passes(office):
    before = office.chip()["dropped_full"]
    office.node.send_signal(19)  # SIGSTOP: the router is busy
    try:
        office.inside(
            "h1", "ping", "-n", "-q", "-c", "60", "-i", "0.002", "-W", "1", "-s", "1400",
            "10.2.0.10", check=False,
        )  # fmt: skip
    finally:
        office.node.send_signal(18)
    assert office.chip()["dropped_full"] > before
    office.until_ping("h1", "10.2.0.10")
    until(lambda: office.status()["chip"]["full"] > 0, "the port never saw a full ring")
    assert office.status()["chip"]["bad_lengths"] <= 5


def test_the_heap_does_not_grow_with_traffic(office):
    office.ping("h1", "10.2.0.10", count=20)
    before = office.status()["heap"]
    office.inside("h1", "ping", "-n", "-q", "-c", "300", "-i", "0.005", "10.2.0.10")
    assert office.status()["heap"] < before + 2048


def test_tagged_frames_of_real_hosts(tmp_path):
    """The switch's port to the chip is tagged; h1 and h2 are in VLAN 10, h3 in 11."""
    with Office(vlan=10, dhcp=POOL) as office:
        office.address("h1", 10)
        office.address("h3", 13)
        assert office.ping("h1", "10.1.0.1", "-s", "1472")
        assert office.ping("h1", "10.2.0.10", "-s", "1472")
        before = office.status()["foreign_tags"]
        assert not office.ping("h3", "10.1.0.1", count=1)
        assert office.status()["foreign_tags"] > before
        if shutil.which("busybox"):
            told = tmp_path / "told"
            script = hook(tmp_path, "udhcpc.sh", f'#!/bin/sh\necho "$1 $ip" >> {told}\n')
            office.inside(
                "h2", "busybox", "udhcpc", "-f", "-q", "-n", "-i", "lan", "-s", script, "-t", "8",
                "-T", "2",
            )  # fmt: skip
            assert "bound 10.1.0.1" in told.read_text()
