"""TCP through both routers: legal segments on the wire, the same octets at the other end.

With superframes on both LANs, and where the kernel takes none. Judged by captures and sha256.
"""

import hashlib
import random
import subprocess
import sys

import pytest

from haaro.wire import ipv4
from tests.shell.namespaces import Sniffer, config, needs_namespaces, nodes
from tests.shell.test_dataplane import HEADER, nothing_lost

pytestmark = needs_namespaces

SEED, OCTETS, TOS = 6521, 3_000_000, 0xB8

RECEIVE = """
import hashlib, socketserver
class Flow(socketserver.BaseRequestHandler):
    def handle(self):
        digest = hashlib.sha256()
        while data := self.request.recv(1 << 16):
            digest.update(data)
        self.request.sendall(digest.digest())
server = socketserver.ThreadingTCPServer(("10.2.0.10", 5000), Flow)
print("ready", flush=True)
server.serve_forever()
"""
SEND = f"""
import random, socket
s = socket.socket(); s.setsockopt(0, 1, {TOS})
s.connect(("10.2.0.10", 5000)); s.settimeout(60)
s.sendall(random.Random({SEED}).randbytes({OCTETS}))
s.shutdown(socket.SHUT_WR)
print(s.recv(100).hex())
"""


MANY = """
import hashlib, os, socket, threading
def send(i):
    s = socket.socket(); s.connect(("10.2.0.10", 5000)); s.settimeout(60)
    data = os.urandom(300000 + i)
    s.sendall(data); s.shutdown(socket.SHUT_WR)
    if s.recv(100) == hashlib.sha256(data).digest():
        print("whole", flush=True)
threads = [threading.Thread(target=send, args=(i,)) for i in range(6)]
[one.start() for one in threads]; [one.join() for one in threads]
"""


def transfer(net, program: str) -> str:
    """Run a sender on h1 beside the receiver on h2; return what it prints."""
    command = net.inside("h2", sys.executable, "-c", RECEIVE)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as receiver:
        try:
            assert receiver.stdout.readline() == b"ready\n"
            return net.python("h1", program)
        finally:
            receiver.kill()


def of_the_flow(packets: list[bytes]) -> list[bytes]:
    """Return the inner packets from h1 to h2."""
    inner = [p[32:] for p in packets if p[9] == 17 and p[28:32] == HEADER]
    return [p for p in inner if p[9] == 6 and p[22:24] == (5000).to_bytes(2, "big")]


def judge(packet: bytes) -> None:
    """Assert that a TCP packet is legal by itself, and what its sender gave it."""
    assert len(packet) == int.from_bytes(packet[2:4], "big") <= 1468
    assert ipv4.checksum(packet, 0, 20) == 0
    pseudo = packet[12:20] + bytes([0, 6]) + (len(packet) - 20).to_bytes(2, "big")
    whole = pseudo + packet[20:] + bytes(len(packet) & 1)
    assert ipv4.checksum(whole, 0, len(whole)) == 0
    assert packet[6] == 0x40 and packet[8] == 63
    assert packet[1] & 0xFC == TOS
    if not packet[33] & 2:
        # A timestamp, the only option of a segment with data.
        assert packet[40:44] == b"\x01\x01\x08\x0a"


@pytest.mark.parametrize("plane_net", ["userspace"], indirect=True)
@pytest.mark.parametrize("vnet", [True, False])
def test_a_transfer_arrives_whole_in_segments_that_are_legal(plane_net, vnet):
    net = plane_net
    for host in ("h1", "h2"):
        path = "/proc/sys/net/ipv4/tcp_ecn"
        net.python(host, f"open({path!r}, 'w').write('1')")
    both = [("r1", config(1, vnet=vnet)), ("r2", config(2, vnet=vnet))]
    sent = random.Random(SEED).randbytes(OCTETS)
    captures = Sniffer(net, "r2", "wan"), Sniffer(net, "h2", "lan")
    with nodes(net, *both) as (one, two), captures[0] as wire, captures[1] as lan:
        assert transfer(net, SEND).strip() == hashlib.sha256(sent).hexdigest()
        seen = wire.until(lambda packets: any(p[33] & 1 for p in of_the_flow(packets[-500:])), 30)
        assert max(map(len, seen)) <= 1500
        stream, highest = bytearray(OCTETS), 0
        flow = of_the_flow(seen)
        begin = next(int.from_bytes(p[24:28], "big") for p in flow if p[33] & 2) + 1
        for packet in flow:
            judge(packet)
            data = packet[20 + (packet[32] >> 4) * 4 :]
            at = (int.from_bytes(packet[24:28], "big") - begin) & 0xFFFFFFFF
            if data:
                # What is sent once more is not ECT (RFC 3168 6.1.5).
                assert packet[1] & 3 == (2 if at >= highest else packet[1] & 2)
                stream[at : at + len(data)] = data
                highest = max(highest, at + len(data))
        assert stream == sent
        # FIN is on the last octet's segment only, or behind it.
        ends = {int.from_bytes(p[24:28], "big") + len(p) for p in flow if p[33] & 1}
        assert len(ends) == 1
        longest = max(len(packet) for packet in lan.until(lambda _: True))
        assert longest > 3000 if vnet else longest <= 1468
        for node in (one, two):
            nothing_lost(node.ask("status"))


@pytest.mark.parametrize("plane_net", ["userspace"], indirect=True)
def test_many_flows_at_once_arrive_whole(plane_net):
    with nodes(plane_net, ("r1", config(1)), ("r2", config(2))) as both:
        assert transfer(plane_net, MANY).count("whole") == 6
        for node in both:
            nothing_lost(node.ask("status"))
