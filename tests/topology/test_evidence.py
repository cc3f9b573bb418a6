"""The judge of the demo turns red when it should: captures made by hand, no privileges needed."""

import json
import socket
import struct
from pathlib import Path

import pytest

from haaro_host.lab import claims, pcap, plan, report
from haaro_host.lab.evidence import Evidence
from haaro_host.lab.facts import Facts, Switch
from haaro_host.lab.recorder import keep_filter

A, B, C = plan.OFFICES
HA = plan.HOME_AGENT
TUNNEL = b"\x04\x04\x00\x00"
REQUEST = bytes([1, 0x22]) + bytes(22)
HOTI, COTI = bytes([24]) + bytes(9), bytes([25]) + bytes(9)


def ip(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """An IPv4 packet; nobody here looks at checksums."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(destination) + payload


def udp(source: str, destination: str, payload: bytes, port: int = 434) -> bytes:
    """A UDP datagram between two equal ports."""
    return ip(source, destination, 17, struct.pack("!HHHH", port, port, 8 + len(payload), 0)
              + payload)  # fmt: skip


def tunnel(source: str, destination: str, inner: bytes) -> bytes:
    """An RFC 3519 tunnel packet."""
    return udp(source, destination, TUNNEL + inner)


TRAFFIC = udp(C.lan_host, A.lan_host, b"x" * 20, 9000)


def seen(tmp_path: Path, **links: list[tuple[float, bytes]]) -> Evidence:
    """Evidence from captures that hold `links`."""
    for link in plan.INGRESS:
        write_ethernet(tmp_path / f"{link}.pcap", links.get(link, []))
    found = Evidence(lambda link: tmp_path / f"{link}.pcap", A, C)
    found.update()
    return found


def write_ethernet(path: Path, packets: list[tuple[float, bytes]]) -> None:
    """A capture file as the recorder writes it."""
    out = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1)
    for time, data in packets:
        frame = bytes(12) + b"\x08\x00" + data
        seconds, rest = divmod(time, 1)
        out += struct.pack("<IIII", int(seconds), int(rest * 1e9), len(frame), len(frame)) + frame
    path.write_bytes(out)


def test_direct_is_a_tunnel_between_care_of_addresses_with_the_hosts_inside(tmp_path: Path) -> None:
    """Other packets between the care-of addresses are not direct traffic."""
    found = seen(
        tmp_path,
        c=[
            (1.0, tunnel(C.care_of_address, HA, TRAFFIC)),
            (2.0, tunnel(C.care_of_address, A.care_of_address, TRAFFIC)),
            (3.0, tunnel(C.care_of_address, A.care_of_address, ip(C.home_address, A.home_address,
                                                                  1, b"\x08" + bytes(7)))),
            (4.0, udp(C.care_of_address, A.care_of_address, TRAFFIC)),
            (5.0, tunnel(C.care_of_address, A.care_of_address,
                         udp(A.lan_host, C.lan_host, b"y", 9000))),
        ],
    )  # fmt: skip
    assert list(found.direct(C, A).at) == [2.0]
    assert list(found.by_home_agent(C, A).at) == [1.0]
    assert found.keepalive_between(C, A) == 3.0


def test_packets_through_the_home_agent_are_counted_on_its_own_link(tmp_path: Path) -> None:
    """Each packet counts once, when it enters the home agent's link, not when it leaves it."""
    found = seen(
        tmp_path,
        c=[(1.0, tunnel(C.care_of_address, HA, TRAFFIC))],
        ha=[
            (1.1, tunnel(C.care_of_address, HA, TRAFFIC)),
            (1.2, tunnel(HA, A.care_of_address, TRAFFIC)),
        ],
    )
    assert found.through_home_agent(0.0, 9.0) == 1
    assert found.through_home_agent(1.15, 9.0) == 0


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (udp(C.home_address, A.home_address, HOTI), "outside the HA tunnel"),
        (tunnel(C.care_of_address, A.care_of_address, udp(C.home_address, A.home_address, HOTI)),
         "outside the HA tunnel"),
        (tunnel(C.care_of_address, HA, udp(C.home_address, A.home_address, COTI)), "is no CoA"),
        (tunnel(C.care_of_address, HA, udp(C.home_address, A.home_address, REQUEST)), "is no CoA"),
        (tunnel(C.care_of_address, A.care_of_address,
                udp(C.care_of_address, A.home_address, REQUEST)), "in a direct tunnel"),
    ],
)  # fmt: skip
def test_signalling_on_a_forbidden_path_is_found(tmp_path: Path, packet: bytes, words: str) -> None:
    """HoTI outside the HA tunnel, CoTI and Request without the CoA as source, all in captures."""
    link = "ha" if packet[12:16] == socket.inet_aton(C.home_address) else "c"
    found = seen(tmp_path, **{link: [(1.0, packet)]})
    assert [words in line for line in found.violations()] == [True]


def test_signalling_on_its_path_is_no_violation(tmp_path: Path) -> None:
    """What RFC 6521 3.2 and 3.3.3 ask for passes."""
    found = seen(
        tmp_path,
        c=[
            (1.0, tunnel(C.care_of_address, HA, udp(C.home_address, A.home_address, HOTI))),
            (1.1, udp(C.care_of_address, A.home_address, COTI)),
            (1.2, udp(C.care_of_address, A.home_address, REQUEST)),
        ],
        ha=[(1.3, tunnel(HA, A.care_of_address, udp(C.care_of_address, A.home_address, COTI)))],
    )
    assert len(found.messages) == 4
    assert found.violations() == []


def test_solicitation_is_the_s_bit_of_the_capability_extension(tmp_path: Path) -> None:
    """The S bit is read from type 153, subtype 1, behind other extensions and padding."""
    other, asked = bytes([144, 6, 0, 0, 0, 0, 0, 0]), socket.inet_aton(C.home_address)

    def request(bits: int) -> bytes:
        return udp(A.care_of_address, HA, REQUEST + other + b"\0" + bytes([153, 6, 1, bits])
                   + asked)  # fmt: skip

    found = seen(tmp_path, a=[(1.0, request(0xC0)), (2.0, request(0xE0))])
    assert [message.solicits for message in found.messages] == [False, True]


def test_a_cut_off_capture_is_read_to_its_last_whole_record(tmp_path: Path) -> None:
    """A file that grows is read on from where it was whole, and nothing twice."""
    path = tmp_path / "c.pcap"
    write_ethernet(path, [(1.0, TRAFFIC), (2.0, TRAFFIC)])
    whole = path.read_bytes()
    reader = pcap.Reader(path)
    path.write_bytes(whole[:-10])
    assert [time for time, _ in reader.raw()] == [1.0]
    path.write_bytes(whole)
    assert [time for time, _ in reader.raw()] == [2.0]


def test_one_claim_that_was_not_observed_fails_the_run(tmp_path: Path) -> None:
    """An empty run proves nothing: no claim holds by default."""
    facts = Facts(registered_s={"A": 1.0, "B": 1.0, "C": 1.0})
    facts.claims = claims.judge(facts, seen(tmp_path))
    assert not facts.ok
    assert [claim.text for claim in facts.claims if claim.observed] == []
    assert json.loads(json.dumps(report.as_json(facts, tmp_path)))["ok"] is False


def test_a_lost_probe_packet_is_not_hidden_by_the_other_direction(tmp_path: Path) -> None:
    """Loss counts in both directions together."""
    facts = Facts()
    facts.switches["to_direct"] = Switch("to_direct", 0, 1, {"C to A": 0, "A to C": 1}, 0.1, 0.01)
    lost = [
        claim
        for claim in claims.judge(facts, seen(tmp_path))
        if claim.text.startswith("no packet lost when traffic moved")
    ]
    assert [claim.observed for claim in lost] == [False]
    assert report.as_json(facts, tmp_path)["lost_at_switch"] == {"to_direct": 1}


def _verdict(program: bytes, frame: bytes) -> int:
    """Run a classic BPF program over a frame as the kernel does; the random load gives 1."""
    accumulator = index = at = 0
    while True:
        code, yes, no, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        where = value + (index if code in (0x48, 0x50) else 0)
        if code == 0x06:
            return int(value)
        if code == 0x20 and value >= 0xFFFFF000:
            accumulator = 1
        elif code in (0x20, 0x28, 0x48, 0x30, 0x50):
            size = {0x20: 4, 0x28: 2, 0x48: 2, 0x30: 1, 0x50: 1}[code]
            if where + size > len(frame):
                return 0
            accumulator = int.from_bytes(frame[where : where + size], "big")
        elif code == 0xB1:
            index = 4 * (frame[value] & 15)
        elif code == 0x54:
            accumulator &= value
        else:
            hit = accumulator == value if code == 0x15 else bool(accumulator & value)
            at += yes if hit else no


@pytest.mark.parametrize(
    ("packet", "kept"),
    [
        (udp(C.care_of_address, A.home_address, COTI), 65535),
        (tunnel(C.care_of_address, HA, udp(C.home_address, A.home_address, HOTI)), 65535),
        (tunnel(C.care_of_address, A.care_of_address, TRAFFIC), 112),
        (tunnel(C.care_of_address, A.care_of_address, udp("10.3.0.9", "10.1.0.9", b"", 5201)), 0),
        (tunnel(C.care_of_address, HA, udp("10.3.0.9", "10.1.0.9", b"", 5201)), 112),
        (tunnel(HA, A.care_of_address, udp("10.3.0.9", "10.1.0.9", b"", 5201)), 112),
        (ip(C.lan_host, A.lan_host, 6, bytes(20)), 112),
        (udp(C.lan_host, A.lan_host, bytes(9), 5201), 112),
    ],
)  # fmt: skip
def test_recorder_thins_nothing_but_bulk_in_the_direct_tunnel(packet: bytes, kept: int) -> None:
    """The filter keeps signalling whole, and every packet that touches the home agent."""
    program = keep_filter(5201, socket.inet_aton(HA))
    assert _verdict(program, bytes(12) + b"\x08\x00" + packet) == kept
