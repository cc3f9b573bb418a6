"""`haaro decode` on a live interface, in a network namespace that the test makes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from haaro_host.decode.live import _program

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2"
)
HAARO = Path(sys.executable).parent / "haaro"
HOTI = "18000102030405060708"
SEND = """
import socket
for port, data in ((53, b"no"), (434, bytes.fromhex("%s")), (434, b"?")):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(data, ("%s", port))
"""
BUFFERED = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
NAMESPACE = f"hdec-{os.getpid()}"


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def namespace():
    """A namespace with two ends of one wire, `one` 192.0.2.1 and `two` in it."""
    try:
        ip("netns", "add", NAMESPACE)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    try:
        ip("-n", NAMESPACE, "link", "add", "one", "type", "veth", "peer", "name", "two")
        ip("-n", NAMESPACE, "address", "add", "192.0.2.1/24", "dev", "one")
        for port in ("lo", "one", "two"):
            ip("-n", NAMESPACE, "link", "set", port, "up")
        ip("-n", NAMESPACE, "neighbour", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02",
           "dev", "one")  # fmt: skip
        yield NAMESPACE
    finally:
        ip("netns", "del", NAMESPACE)


class Listening:
    """A running `haaro decode --json --interface`, once it says that it listens."""

    def __init__(self, *options):
        self.process = subprocess.Popen(
            [HAARO, "decode", "--json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=BUFFERED,
        )
        assert "listening on" in self.process.stderr.readline()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def send(namespace, destination="192.0.2.2"):
    program = SEND % (HOTI, destination)
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program]
    subprocess.run(command, check=True, timeout=30)


@pytest.mark.parametrize("interface", ["one", "two"])
def test_datagrams_of_port_434_are_shown_as_they_pass_in_and_out(namespace, interface):
    with Listening("--interface", interface, "--namespace", namespace, "--count", "2") as one:
        send(namespace)
        out, _ = one.process.communicate(timeout=20)
    first, second = map(json.loads, out.splitlines())
    assert first["fields"] == {"cookie": "0102030405060708"}
    assert first["source"]["interface"] == interface
    # The datagram to port 53, sent before, never left the kernel.
    assert (first["source"]["frame"], second["source"]["frame"]) == (1, 2)
    assert (first["source"]["src"], first["source"]["dport"]) == ("192.0.2.1", 434)
    assert first["source"]["time"].startswith("20")
    assert second["reason"] == "unknown_type"
    assert one.process.returncode == 1


def test_on_loopback_each_datagram_is_shown_once(namespace):
    with Listening("--interface", "lo", "--namespace", namespace, "--count", "2") as one:
        send(namespace, "127.0.0.1")
        out, _ = one.process.communicate(timeout=20)
    assert [json.loads(line)["reason"] for line in out.splitlines()] == [None, "unknown_type"]


def test_each_line_comes_at_once_and_ctrl_c_ends_it(namespace):
    path = f"/run/netns/{namespace}"
    with Listening("--interface", "one", "--namespace", path) as one:
        send(namespace)
        assert json.loads(one.process.stdout.readline())["type"] == 24
        assert json.loads(one.process.stdout.readline())["verdict"] == "discard"
        one.process.send_signal(signal.SIGINT)
        out, errors = one.process.communicate(timeout=20)
    assert (out, errors, one.process.returncode) == ("", "", 1)


def test_it_ends_after_so_many_seconds(namespace):
    with Listening("--interface", "two", "--namespace", namespace, "--seconds", "0.1") as one:
        assert one.process.wait(20) == 0


def test_an_interface_that_is_not_there_is_named(namespace):
    done = subprocess.run(
        [HAARO, "decode", "--interface", "three", "--namespace", namespace],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert "three: No such device" in done.stderr


def test_the_filter_takes_what_can_be_mobile_ip():
    """A small machine for the few instructions used: no frame of other ports costs a wake-up."""
    from haaro.wire import ipv4

    def kept(packet):
        a = x = at = 0
        program = _program()
        while True:
            code, yes, no, k = program[at]
            at += 1
            if code == 0x06:
                return bool(k)
            if code == 0x30:
                a = packet[k]
            elif code == 0x28:
                a = packet[k] << 8 | packet[k + 1]
            elif code == 0x48:
                a = packet[x + k] << 8 | packet[x + k + 1]
            elif code == 0xB1:
                x = (packet[k] & 15) * 4
            elif code == 0x54:
                a &= k
            else:
                at += yes if (a == k if code == 0x15 else a & k) else no

    one, two = socket.inet_aton("192.0.2.1"), socket.inet_aton("192.0.2.2")
    for ports, wanted in (((434, 9), True), ((9, 434), True), ((9, 9), False)):
        assert kept(ipv4.build_udp(one, two, *ports, b"x")) is wanted
    later = bytearray(ipv4.build_udp(one, two, 9, 9, b"x"))
    later[6:8] = b"\x00\x10"
    assert kept(later)
    assert not kept(ipv4.build_icmp_echo(one, two, False, 1, 1))
    assert not kept(b"\x60" + bytes(40))
