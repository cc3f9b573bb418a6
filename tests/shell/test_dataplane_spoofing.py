"""Anti-spoofing, both ways and on every plane: what is wrong in any one thing goes nowhere."""

import itertools

from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from tests.shell.namespaces import HOME_1, HOME_2, Sniffer, config, needs_namespaces, nodes

pytestmark = needs_namespaces

PEER_HOME = "192.0.2.131"
DIRECT = "10.99.0.3"

# Raw datagrams, each with its own outer header: source, port and payload as they are told.
SEND_RAW = """
import socket, sys, json
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.bind((sys.argv[1], 0))
for line in sys.stdin:
    s.sendto(bytes.fromhex(line), (sys.argv[2], 0))
"""


def datagram(source: str, port: int, to_port: int, data: bytes) -> bytes:
    return ipv4.build_udp(address(source), address("10.99.0.1"), port, to_port, data)


def inner(source: str, destination: str, marker: int, ttl: int = 64) -> bytes:
    packet = bytearray(
        ipv4.build_udp(address(source), address(destination), 5000, 5001, marker.to_bytes(4, "big"))
    )
    packet[8] = ttl
    packet[10:12] = b"\0\0"
    packet[10:12] = ipv4.checksum(packet, 0, 20).to_bytes(2, "big")
    return bytes(packet)


OUTER = {  # (source, port): the tunnel it is the end of
    ("10.99.0.2", 434): 0,
    (DIRECT, 4340): 1,
    ("10.99.0.2", 435): None,
    (DIRECT, 434): None,
    ("10.99.0.66", 434): None,
    ("10.99.0.66", 4340): None,
}
SOURCES = {  # inner source: tunnels it may come by
    "10.2.0.10": (0,),
    "10.3.0.10": (0, 1),
    "10.3.1.10": (0,),
    "203.0.113.5": (0,),
    "10.1.0.10": (),
    HOME_1: (),
    "10.99.0.1": (),
    "10.99.0.2": (),
    DIRECT: (),
    "127.0.0.1": (),
    "0.0.0.1": (),
    "224.0.0.1": (),
    "255.255.255.255": (),
}
DESTINATIONS = {
    "10.1.0.10": True,
    "10.2.0.10": False,
    "10.3.0.10": False,
    "10.99.0.1": False,
    "10.99.0.2": False,
    "203.0.113.5": False,
    "127.0.0.1": False,
    "239.1.1.1": False,
}
TYPES = {
    b"\x04\x04\0\0": True,
    b"\x04\x2f\0\0": False,
    b"\x04\x37\0\0": False,
    b"\x04\x04\0\1": None,
}


def two_tunnels(**changes) -> dict:
    return config(
        1,
        tunnels=[
            [0, 0, "10.99.0.1", "10.99.0.2", 434, 1468, HOME_2],
            [1, 0, "10.99.0.1", DIRECT, 4340, 1468, PEER_HOME],
        ],
        routes=[["0.0.0.0/0", 0, -1], ["10.3.0.0/24", 1, -1], ["10.3.1.0/24", -1, -1]],
        sources=[["10.3.0.0/24", 1], ["192.0.2.131/32", 1]],
        **changes,
    )


def combinations():
    """Yield (is right, datagram) of the whole matrix; the payload is the number of the case."""
    number = 0
    cases = itertools.product(OUTER.items(), SOURCES.items(), DESTINATIONS.items(), TYPES.items())
    for ((outer, port), tunnel), (source, may), (destination, ours), (kind, right) in cases:
        if right is None:
            continue  # reserved octets are not looked at the same way by all
        number += 1
        packet = inner(source, destination, number)
        good = tunnel in may and ours and right
        yield good, number, datagram(outer, port, 434, kind + packet)


def test_what_is_wrong_in_one_thing_is_not_let_in(plane_net):
    """D1 and D3 of the threats: every combination that is right passes, once."""
    net = plane_net
    with nodes(net, ("r1", two_tunnels())) as (one,):
        cases = list(combinations())
        right = [number for good, number, _ in cases if good]
        assert len(right) >= 5 and len(cases) - len(right) >= 1000
        with Sniffer(net, "h1", "lan") as seen:
            net.feed("r2", SEND_RAW, [data for _, _, data in cases], "10.99.0.2", "10.99.0.1")
            last = datagram(
                "10.99.0.2", 434, 434, b"\x04\x04\0\0" + inner("10.2.0.10", "10.1.0.10", 0)
            )
            net.feed("r2", SEND_RAW, [last], "10.99.0.2", "10.99.0.1")
            found = seen.until(lambda packets: any(marker(packet) == 0 for packet in packets))
        assert sorted(marker(packet) for packet in found) == [0, *right]
        status = one.until(lambda status: status["counters"]["in_forwarded"] > len(right))
        assert status["counters"]["in_forwarded"] == len(right) + 1


def marker(packet: bytes) -> int | None:
    """Return the number of the case in a packet of `inner`, None if it is none."""
    if packet[9] != 17 or packet[22:24] != (5001).to_bytes(2, "big"):
        return None
    return int.from_bytes(packet[28:32], "big")


def test_what_is_wrong_in_one_thing_is_not_tunnelled(plane_net):
    """D2 and D3 of the threats: sources that are not of the mobile network, tunnel ends."""
    net = plane_net
    outbound = {"10.2.0.10": True, "10.3.0.10": True, "203.0.113.5": True, "10.99.0.2": False}
    outbound |= {DIRECT: False, "10.3.1.10": False}
    sources = {"10.1.0.10": True, "10.1.0.99": True, "10.2.0.10": False, "10.3.0.10": False}
    sources |= {"203.0.113.9": False, HOME_2: False, "127.0.0.1": False, "224.0.0.9": False}
    packets, right, number = [], [], 0
    for (source, may), (destination, good) in itertools.product(sources.items(), outbound.items()):
        for ttl in (1, 2, 64):
            number += 1
            packets.append(inner(source, destination, number, ttl))
            # The kernel, or lan_to_tunnel, lowers it.
            if may and good and ttl > 1:
                right.append(number)
    assert len(packets) - len(right) >= 100
    with nodes(net, ("r1", two_tunnels())) as (one,), Sniffer(net, "r2", "wan") as seen:
        # All addresses of the wire are one neighbour here.
        net.ip("r2", "address", "add", f"{DIRECT}/24", "dev", "wan")
        net.feed("h1", SEND_RAW, packets, "10.1.0.10", "10.2.0.10")
        net.feed("h1", SEND_RAW, [inner("10.1.0.10", "10.2.0.10", 0)], "10.1.0.10", "10.2.0.10")
        tunnelled = seen.until(lambda all_: any(case(packet) == 0 for packet in all_))
        found = [case(packet) for packet in tunnelled if case(packet) is not None]
        assert sorted(found) == [0, *right]
        assert {packet[16:20] for packet in tunnelled if case(packet) in right} == {
            address("10.99.0.2"),
            address(DIRECT),
        }
        status = one.until(lambda status: status["counters"]["out_forwarded"] > len(right))
        assert status["counters"]["out_forwarded"] == len(right) + 1


def case(packet: bytes) -> int | None:
    """Return the number of the case in a tunnelled packet, None if it is none."""
    # From our port, to the tunnel's: one of the two ends has another one than 434.
    if packet[9] != 17 or packet[20:22] != (434).to_bytes(2, "big") or len(packet) < 64:
        return None
    return marker(packet[32:])
