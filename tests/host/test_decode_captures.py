"""Captures: every form of the same frames reads alike; damage ends the reading, not the command."""

import io
import json
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import dpkt
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from haaro.wire import encapsulation, ipv4
from haaro.wire.udp_tunnel import TUNNEL_HEADER
from haaro_host.decode import captures, packets
from haaro_host.decode.captures import CaptureError, frames
from haaro_host.decode.cli import decode
from haaro_host.decode.packets import Extractor
from haaro_host.home_agent.fragments import fragment

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())["vectors"]
BY_ID = {v["id"]: bytes.fromhex(v["hex"]) for v in VECTORS if v["kind"] == "datagram"}
HOA, HA, COA = (ipv4.address(text) for text in ("192.0.2.129", "192.0.2.1", "198.51.100.10"))
HOTI = ipv4.build_udp(COA, HA, 5000, 434, BY_ID["hoti"])
COT = ipv4.build_udp(HA, COA, 434, 5000, BY_ID["cot"])
OTHER = ipv4.build_udp(HA, COA, 53, 5000, b"\x01" * 40)
ECHO = ipv4.build_icmp_echo(HA, COA, False, 1, 1)
NANOSECONDS = 1_700_000_000_123_456_789
MICROSECONDS = NANOSECONDS // 1000 * 1000

APP = typer.Typer()
APP.command()(decode)


def run(*arguments, stdin=b""):
    return CliRunner().invoke(APP, [str(each) for each in arguments], input=stdin)


def objects(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def pcap(frames, order="<", link=packets.RAW, magic=0xA1B2C3D4, time=NANOSECONDS, octets=None):
    out = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    unit = 1000 if magic == 0xA1B2C3D4 else 1
    for frame in frames:
        part = time % 10**9 // unit
        out += struct.pack(order + "IIII", time // 10**9, part, len(frame), octets or len(frame))
        out += frame
    return out


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    total = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + total + body + total


def section(order):
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order, link=packets.RAW, resolution=None):
    body = struct.pack(order + "HHI", link, 0, 65535)
    if resolution is not None:
        body += struct.pack(order + "HHB3xHH", 9, 1, resolution, 0, 0)
    return block(order, 1, body)


def enhanced(order, frame, ticks, index=0):
    body = struct.pack(
        order + "IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)
    )
    return block(order, 6, body + frame)


def pcapng(frames, order="<", link=packets.RAW, resolution=9, time=NANOSECONDS):
    ticks = time * 2**32 // 10**9 if resolution == 0x80 | 32 else time // 10 ** (9 - resolution)
    out = section(order) + interface(order, link, resolution)
    return out + b"".join(enhanced(order, frame, ticks) for frame in frames)


def read(data):
    """Return ([frames], text of what ended it or None)."""
    found = []
    try:
        for frame in frames(io.BytesIO(data)):
            found.append(frame)
    except CaptureError as error:
        return found, str(error)
    return found, None


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_in_either_order_and_resolution(order, magic):
    found, ended = read(pcap([HOTI, COT], order, magic=magic))
    time = MICROSECONDS if magic == 0xA1B2C3D4 else NANOSECONDS
    assert [(f.time, f.link, f.data) for f in found] == [(time, 101, HOTI), (time, 101, COT)]
    assert ended is None


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("resolution", "time"), [(6, MICROSECONDS), (9, NANOSECONDS)])
def test_pcapng_in_either_order_and_resolution(order, resolution, time):
    found, ended = read(pcapng([HOTI, COT], order, resolution=resolution))
    assert [(f.time, f.link, f.data) for f in found] == [(time, 101, HOTI), (time, 101, COT)]
    assert ended is None


def test_pcapng_with_binary_resolution_other_blocks_sections_and_simple_packets():
    simple = block(">", 3, struct.pack(">I", len(COT)) + COT)
    old = block(">", 2, struct.pack(">HHIIII", 1, 0, 0, 7, len(HOTI), len(HOTI)) + HOTI)
    unknown = block("<", 0xBAD, bytes(200_000))
    data = pcapng([HOTI], resolution=0x80 | 32) + unknown + section(">")
    data += interface(">") + interface(">", packets.ETHERNET, 0) + simple + old
    found, ended = read(data)
    assert ended is None
    assert [(f.link, f.data) for f in found] == [(101, HOTI), (101, COT), (1, HOTI)]
    assert abs(found[0].time - NANOSECONDS) < 100
    assert [f.time for f in found[1:]] == [None, 7 * 10**9]


def test_what_another_program_writes_reads_the_same():
    for writer in (dpkt.pcap.Writer, dpkt.pcapng.Writer):
        file = io.BytesIO()
        out = writer(file, linktype=packets.RAW)
        out.writepkt(HOTI, 1_700_000_000.5)
        out.writepkt(COT, 1_700_000_001)
        found, ended = read(file.getvalue())
        assert [f.data for f in found] == [HOTI, COT]
        assert ended is None
        assert found[0].time == 1_700_000_000_500_000_000


VLAN = b"\x81\x00\x00\x05"
LINKS = {
    "ethernet": (1, bytes(12) + b"\x08\x00"),
    "vlan": (1, bytes(12) + VLAN + b"\x08\x00"),
    "two vlans": (1, bytes(12) + b"\x88\xa8\x00\x01" + VLAN + b"\x08\x00"),
    "raw": (101, b""),
    "raw bsd": (12, b""),
    "ipv4": (228, b""),
    "null": (0, b"\x02\0\0\0"),
    "loop": (108, b"\0\0\0\x02"),
    "sll": (113, bytes(14) + b"\x08\x00"),
    "sll2": (276, b"\x08\x00" + bytes(18)),
}


@pytest.mark.parametrize("name", LINKS)
def test_each_kind_of_link(name):
    link, head = LINKS[name]
    # Ethernet pads short frames: the IP length counts, not the frame's.
    found = Extractor().datagram(head + HOTI + bytes(9), link)
    assert found.data == BY_ID["hoti"]
    assert found.source == {"src": "198.51.100.10", "sport": 5000, "dst": "192.0.2.1", "dport": 434}
    arp = head.replace(b"\x08\x00", b"\x08\x06").replace(b"\x02", b"\x1e")
    assert link in (101, 12, 228) or Extractor().datagram(arp + HOTI, link) is None


def test_only_udp_434_counts_and_options_are_skipped():
    extractor = Extractor()
    assert extractor.in_ipv4(OTHER) is None
    assert extractor.in_ipv4(ECHO) is None
    options = bytearray(HOTI[:20] + b"\x01" * 4 + HOTI[20:])
    options[0] = 0x46
    options[3] += 4
    assert extractor.in_ipv4(bytes(options)).data == BY_ID["hoti"]
    for wrap in (encapsulation.encapsulate_ipip, encapsulation.encapsulate_gre,
                 encapsulation.encapsulate_minimal):  # fmt: skip
        assert extractor.in_ipv4(wrap(COA, HA, COT)).data == BY_ID["cot"]
    nested = HOTI
    for _ in range(10):
        nested = encapsulation.encapsulate_ipip(COA, HA, nested)
    assert extractor.in_ipv4(nested) is None


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_capture_cut_anywhere_gives_what_was_read_and_says_so(form, tmp_path):
    data = form([HOTI, OTHER, COT])
    ends = [n for n in range(len(data) + 1) if read(data[:n])[1] is None]
    whole = {len(form([HOTI, OTHER, COT][:n])) for n in range(4)}
    assert set(ends) >= whole
    for size in range(4, len(data)):
        found, ended = read(data[:size])
        assert [f.data for f in found] == [HOTI, OTHER, COT][: len(found)]
        assert ended is None or f"at octet {size}" in ended
        assert len(found) == sum(size >= n for n in sorted(whole)[1:])
    path = tmp_path / "cut.pcap"
    path.write_bytes(data[:-9])
    done = run("--json", path)
    assert [each["type"] for each in objects(done)] == [24]
    assert done.exit_code == 1
    assert (
        f"cut short: the file ends within a {'block' if form is pcapng else 'record'}"
        in done.stderr
    )
    assert "2 frames were read" in done.stderr


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (
            pcap([HOTI])[:24] + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0),
            "4294967295 octets cannot be",
        ),
        (pcapng([HOTI]) + struct.pack("<II", 6, 0xFFFFFFF0), "cannot be"),
        (pcapng([HOTI]) + struct.pack("<II", 6, 8), "a block of 8 octets cannot be"),
        (pcapng([HOTI]) + struct.pack("<II", 6, 13), "a block of 13 octets cannot be"),
        (pcapng([HOTI]) + struct.pack("<II", 99, 0xFFFFFFF0), "the file ends within a block"),
        (pcapng([HOTI]) + enhanced("<", COT, 0, index=1), "contradicts itself"),
        (
            pcapng([HOTI]) + block("<", 6, bytes(12) + struct.pack("<II", 99, 99)),
            "contradicts itself",
        ),
        (pcapng([HOTI]) + block("<", 6, b""), "contradicts itself"),
        # It would reach into the length that ends the block.
        (
            pcapng([HOTI]) + block("<", 6, bytes(12) + struct.pack("<II", 8, 8) + b"abcd"),
            "contradicts",
        ),
        (section("<") + block("<", 3, struct.pack("<I", 4) + b"abcd"), "contradicts itself"),
        (section("<")[:8] + bytes(20), "unknown byte order"),
        (section("<") + interface("<") * 5000, "more than 4096 interfaces"),
    ],
)
def test_a_capture_that_cannot_be_right_ends_there(data, why):
    found, ended = read(data)
    assert why in ended
    assert all(frame.data == HOTI for frame in found)


def test_times_that_no_calendar_has_are_left_out(tmp_path):
    path = tmp_path / "odd.pcapng"
    path.write_bytes(pcapng([HOTI], resolution=0, time=(2**63) * 10**9))
    done = run("--json", path)
    assert objects(done)[0]["source"]["time"] is None
    assert run(path).exit_code == 0


def test_a_file_that_declares_much_makes_nobody_reserve_it():
    data = pcapng([HOTI]) + struct.pack("<II", 99, 0xFFFFFFF0) + bytes(8_000_000)
    tracemalloc.start()
    try:
        assert len(read(data)[0]) == 1
        # BytesIO holds the file itself outside what is traced here; a frame and a piece remain.
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


whole = pcap([HOTI, OTHER, COT], link=1), pcapng([HOTI, OTHER, COT]), pcapng([COT], ">")


@given(
    st.sampled_from(whole),
    st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=5)), max_size=4),
)
def test_no_damage_makes_it_fail(data, changes):
    damaged = bytearray(data)
    for at, value in changes:
        damaged[at : at + len(value)] = value
    extractor = Extractor()
    for frame in read(bytes(damaged))[0]:
        extractor.datagram(frame.data, frame.link)


@given(st.binary(max_size=120), st.sampled_from(sorted(packets._LINKS)))
def test_no_frame_makes_it_fail(data, link):
    found = Extractor().datagram(data, link)
    assert found is None or len(found.data) <= len(data)


# --- fragments


def parts(octets=3000):
    whole = ipv4.build_udp(COA, HA, 434, 434, BY_ID["rrp-full-advert"] + bytes(octets))
    return fragment(whole, 576)


@pytest.mark.parametrize("order", [lambda p: p, lambda p: p[::-1], lambda p: p[1:] * 2 + p[:1]])
def test_fragments_are_put_together_in_any_order(order):
    extractor = Extractor()
    # Ethernet pads short frames, such as the last one.
    found = [extractor.in_ipv4(part + bytes(9)) for part in order(parts())]
    whole = [each for each in found if each is not None]
    assert whole[0].data == BY_ID["rrp-full-advert"] + bytes(3000)
    assert whole[0].source["src"] == "198.51.100.10"
    assert len(whole) == 1


def test_a_missing_fragment_is_said(tmp_path):
    path = tmp_path / "lost.pcap"
    path.write_bytes(pcap(parts()[:-1]))
    done = run("--json", path)
    assert (done.stdout, done.exit_code) == ("", 1)
    assert "1 UDP fragments or fragmented packets were not complete" in done.stderr


def test_a_fragment_that_was_captured_short_completes_nothing():
    extractor = Extractor()
    first, *rest = parts()
    assert [extractor.in_ipv4(part) for part in [first[:-8], *rest]] == [None] * (1 + len(rest))
    assert extractor.fragments_lost == 1
    assert extractor.in_ipv4(first).data == BY_ID["rrp-full-advert"] + bytes(3000)


def test_fragments_of_many_packets_wait_in_bounded_memory():
    extractor = Extractor()
    first = bytearray(parts()[0])
    for ident in range(5000):
        first[4:6] = ident.to_bytes(2, "big")
        assert extractor.in_ipv4(bytes(first)) is None
    assert extractor.fragments_waiting == packets.MAX_REASSEMBLIES
    assert extractor.fragments_lost == 5000 - packets.MAX_REASSEMBLIES
    # One packet in overlapping pieces that never end.
    piece = bytearray(parts()[1])
    for offset in range(1, 4000):
        piece[6:8] = (0x2000 | offset).to_bytes(2, "big")
        extractor.in_ipv4(bytes(piece))
    held = sum(len(p) for w in extractor._waiting.values() for p in w.pieces.values())
    assert held < 16 * 600 + 3 * 65535


# --- captures that hold less than was sent


def test_a_datagram_that_was_not_captured_whole_is_no_datagram_that_was_sent_short(tmp_path):
    request = ipv4.build_udp(COA, HA, 434, 434, BY_ID["rrq-nemo-nat-haaro"])
    path = tmp_path / "snap.pcap"
    path.write_bytes(pcap([request[:70]], octets=len(request)))
    (found,) = objects(run("--json", path))
    assert (found["verdict"], found["reason"], found["offset"]) == ("discard", "captured_short", 42)
    assert (found["octets"], found["fields"]["coa"]) == (82, "198.51.100.7")


def test_tunnel_data_may_be_captured_short(tmp_path):
    inner = ipv4.build_udp(HOA, COA, 9, 9, bytes(1000))
    packet = ipv4.build_udp(COA, HA, 434, 434, TUNNEL_HEADER + inner)
    path = tmp_path / "snap.pcap"
    path.write_bytes(pcap([packet[:112]], octets=len(packet)))
    (found,) = objects(run("--json", path))
    assert (found["verdict"], found["octets"]) == ("ok", 1032)
    assert found["notes"] == ["84 of 1032 octets were captured"]
    assert "192.0.2.129:9 > 198.51.100.10:9, UDP, 1028 octets" in run(path).output


def test_a_udp_length_that_does_not_fit_is_said(tmp_path):
    for length in (7, 60):
        packet = HOTI[:24] + length.to_bytes(2, "big") + HOTI[26:]
        path = tmp_path / "length.pcap"
        path.write_bytes(pcap([packet]))
        (found,) = objects(run("--json", path))
        assert (found["verdict"], found["reason"]) == ("discard", "udp_length")


# --- the command


def test_a_capture_from_a_file_or_a_pipe_is_shown_with_its_frames(tmp_path):
    path = tmp_path / "some.pcap"
    path.write_bytes(pcap([OTHER, HOTI, ECHO, COT]))
    found = objects(run("--json", path))
    assert [each["source"] for each in found] == [
        {"file": str(path), "frame": 2, "time": "2023-11-14T22:13:20.123456Z",
         "src": "198.51.100.10", "sport": 5000, "dst": "192.0.2.1", "dport": 434},
        {"file": str(path), "frame": 4, "time": "2023-11-14T22:13:20.123456Z",
         "src": "192.0.2.1", "sport": 434, "dst": "198.51.100.10", "dport": 5000},
    ]  # fmt: skip
    piped = objects(run("--json", "-", stdin=path.read_bytes()))
    assert [each["fields"] for each in piped] == [each["fields"] for each in found]
    text = run(path).output
    assert "#2 2023-11-14 22:13:20.123456 198.51.100.10:5000 > 192.0.2.1:434 Home Test Init" in text


def test_a_capture_from_a_pipe_is_shown_as_it_comes():
    command = [Path(sys.executable).parent / "haaro", "decode", "--json", "-"]
    data = pcap([HOTI, COT])
    first = len(pcap([HOTI]))
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=buffered) as running:
        for piece in (data[:3], data[3:first]):
            running.stdin.write(piece)
            running.stdin.flush()
        assert json.loads(running.stdout.readline())["type"] == 24
        running.stdin.write(data[first:])
        running.stdin.close()
        assert json.loads(running.stdout.readline())["type"] == 27
        assert running.wait(30) == 0


def test_signalling_leaves_out_user_traffic_but_not_messages_in_the_tunnel(tmp_path):
    traffic = TUNNEL_HEADER + ipv4.build_udp(HOA, COA, 9, 9, bytes(100))
    signalling = TUNNEL_HEADER + HOTI
    frames = [ipv4.build_udp(COA, HA, 434, 434, each) for each in (traffic, signalling)]
    path = tmp_path / "tunnel.pcap"
    path.write_bytes(pcap([*frames, COT]))
    kinds = [(each["source"]["frame"], each["type"]) for each in objects(run("--json", path))]
    assert kinds == [(1, 4), (2, 4), (3, 27)]
    found = objects(run("--json", "--signalling", path))
    assert [(each["source"]["frame"], each["type"]) for each in found] == [(2, 4), (3, 27)]
    assert found[0]["inner"]["fields"] == {"cookie": "0102030405060708"}


def test_several_files_and_what_is_wrong_with_one(tmp_path):
    (tmp_path / "good.pcap").write_bytes(pcap([HOTI]))
    (tmp_path / "odd.pcap").write_bytes(pcap([HOTI], link=147))
    (tmp_path / "none.pcap").write_bytes(pcap([OTHER]))
    names = ["odd.pcap", "missing.pcap", "none.pcap", "good.pcap"]
    done = run("--json", *(tmp_path / name for name in names))
    assert [each["type"] for each in objects(done)] == [24]
    assert done.exit_code == 1
    assert "odd.pcap: frames of unknown link type 147 were not read" in done.stderr
    assert "missing.pcap: No such file or directory" in done.stderr
    assert "none.pcap: 1 frames, none of them on UDP port 434" in done.stderr
    assert run(tmp_path / "none.pcap").exit_code == 0


def test_the_two_formats_are_told_from_everything_else():
    assert all(captures.is_capture(each) for each in whole)
    assert not captures.is_capture(b"")
    assert not any(captures.is_capture(data) for data in BY_ID.values())
    assert "neither" in read(b"abcdefgh")[1]
