"""The kernel plane's maps say what the userspace plane's table says, as the C file reads it."""

import io
import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haaro.dataplane import base, kernel_maps, table
from haaro.dataplane.leaves import find
from haaro.wire import ipv4
from haaro.wire.ipv4 import address
from tests.meta.repository import ROOT

_PROGRAMS = ROOT / "firmware" / "kernel_plane"
SOURCE = "".join((_PROGRAMS / name).read_text() for name in ("tunnel.h", "haaro.bpf.c"))


def prefixes(*more):
    # Few bits that differ, so that prefixes hold and meet each other.
    bits = st.integers(0, 31).map(
        lambda value: bytes([10, value >> 3, value << 5 & 255, value & 7])
    )
    network = st.tuples(bits, st.integers(0, 32)).map(lambda p: (ipv4.mask(*p), p[1]))
    return st.lists(st.tuples(network, *more), max_size=12)


def entries(rows: kernel_maps.Rows, first_slot: int = 0) -> dict:
    """Return {(prefix, length): (route, source, hint, flags, lan)} of what was written."""
    file = io.StringIO()
    rows.hand_down()
    rows.write(file, "PATH", first_slot)
    found: dict = {}
    for line in file.getvalue().splitlines():
        carry_out(line, found)
    return found


def carry_out(line: str, found: dict) -> None:
    """Do to {(prefix, length): entry} what a line of a batch does to the kernel's table."""
    match = re.fullmatch(
        r"map (update|delete) pinned PATH key hex((?: \w\w){8})(?: value hex((?: \w\w){8}))?", line
    )
    key = bytes.fromhex(match[2])
    place = key[4:], struct.unpack("@I", key[:4])[0]
    if match[1] == "delete":
        del found[place]
    else:
        found[place] = struct.unpack("@HHHBB", bytes.fromhex(match[3]))


def longest(found: dict, wanted: bytes) -> tuple:
    for length in range(32, -1, -1):
        entry = found.get((ipv4.mask(wanted, length), length))
        if entry:
            return entry
    raise AssertionError("no entry holds this address")


tunnels = st.integers(-1, base.MAX_TUNNELS - 1)
probes = st.lists(st.integers(0, 31 * 256), min_size=20, max_size=20)


@settings(max_examples=300, deadline=None)
@given(prefixes(tunnels, st.integers(-1, 255)), prefixes(st.integers(1, 64)), prefixes(), probes)
def test_every_address_is_treated_as_the_userspace_plane_does(routes, sources, networks, probes):
    routes = [(*network, tunnel, hint if tunnel >= 0 else -1) for network, tunnel, hint in routes]
    sources = [(*network, tunnel) for network, tunnel in sources]
    networks = [network for (network,) in networks if network[1]]
    home, ends = address("192.0.2.1"), [address("198.51.100.7"), address("10.2.64.1")]
    builder = table.Builder(bytearray(base.TABLE_ENTRIES * table.ENTRY))
    builder.build(routes, sources, networks, home, ends)
    rows = kernel_maps.Rows(bytearray(1000 * kernel_maps.ROW), b"")
    for route in routes:
        rows.route(*route)
    for source in sources:
        rows.source(*source)
    rows = kernel_maps.Rows(bytearray(1000 * kernel_maps.ROW), rows.copy())
    rows.own(networks, home, ends)
    found = entries(rows)
    assert rows.omitted == 0
    probed = [bytes([10, p >> 8, p >> 3 & 0xE0, p & 7]) for p in probes]
    for wanted in (*probed, home, *ends, address("8.8.8.8")):
        at = find(builder.data, builder.entries, wanted, 0)
        route, source, flags = builder.data[at + 4 : at + 7]
        hint = builder.data[at + 8] << 8 | builder.data[at + 9]
        expected = (
            0xFFFF if route == 255 else route,
            0xFFFF if source == 255 else source,
            hint,
            flags,
            0,
        )
        assert longest(found, wanted) == expected, ipv4.text(wanted)


def rows_of(routes, sources, networks) -> kernel_maps.Rows:
    rows = kernel_maps.Rows(bytearray(1000 * kernel_maps.ROW), b"")
    for network, tunnel, hint in routes:
        rows.route(*network, tunnel, hint if tunnel >= 0 else -1)
    for network, tunnel in sources:
        rows.source(*network, tunnel)
    rows.own([network for (network,) in networks if network[1]], address("192.0.2.1"), [])
    return rows


many = st.tuples(
    prefixes(tunnels, st.integers(-1, 255)), prefixes(st.integers(1, 64)), prefixes()
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(many, many, probes)
def test_a_change_in_place_shows_every_address_the_old_word_or_the_new_one(old, new, probes):
    """Also between two lines of the batch, since packets do not wait for its end."""
    before, after = rows_of(*old), rows_of(*new)
    now, wanted = entries(before), entries(after)
    file = io.StringIO()
    changed = after.write_changes(file, "PATH", 0, before.copy())
    lines = file.getvalue().splitlines()
    assert changed == (now != wanted) == bool(lines)
    addresses = [bytes([10, p >> 8, p >> 3 & 0xE0, p & 7]) for p in probes]
    allowed = {each: (longest(now, each), longest(wanted, each)) for each in addresses}
    for line in lines:
        carry_out(line, now)
        for each in addresses:
            assert longest(now, each) in allowed[each], (ipv4.text(each), lines)
    assert now == wanted


def test_only_ends_that_differ_are_written():
    ends = [bytes([i]) * 16 + struct.pack("@I", i) for i in range(4)]
    moved = ends[2][:16] + struct.pack("@I", 9)
    before, after = b"".join(ends[:3]), ends[0] + moved + ends[3]
    file = io.StringIO()
    kernel_maps.added_ends(file, "PATH", before, after)
    kernel_maps.gone_ends(file, "PATH", before, after)
    said = [line.split()[:2] + line.split()[6:7] for line in file.getvalue().splitlines()]
    assert said == [["map", "update", "02"], ["map", "update", "03"], ["map", "delete", "01"]]


def test_a_host_of_the_lan_is_reached_past_the_kernel_but_not_the_router_or_everyone():
    rows = kernel_maps.Rows(bytearray(1000), b"")
    rows.flag(bytes(4), 0, 0)
    networks = [ipv4.prefix(text) for text in ("10.1.0.0/24", "10.1.4.0/22", "10.9.0.0/24")]
    rows.lan(networks, address("10.1.0.1"), 23, 1)
    rows.lan(networks, address("10.1.5.1"), 24, 2)
    found = entries(rows)
    lan = {
        "10.1.0.10": 1,
        "10.1.0.1": 0,
        "10.1.0.0": 0,
        "10.1.0.255": 1,  # the interface's prefix is longer
        "10.1.1.10": 0,  # not ours
        "10.1.4.10": 0,  # ours, behind another router
        "10.1.5.10": 2,
        "10.1.5.255": 0,
        "10.9.0.1": 0,
    }
    for host, expected in lan.items():
        assert longest(found, address(host))[4] == expected, host


def test_what_has_no_room_is_left_out_and_counted():
    rows = kernel_maps.Rows(bytearray(3 * kernel_maps.ROW), b"")
    for i in range(5):
        rows.route(bytes([10, i, 0, 0]), 16, 1, -1)
    assert (rows.count, rows.omitted) == (3, 2)
    rows.route(bytes([10, 0, 0, 0]), 16, 2, -1)
    assert rows.omitted == 2 and entries(rows)[bytes([10, 0, 0, 0]), 16][0] == 1


def test_slots_are_of_the_bank():
    rows = kernel_maps.Rows(bytearray(100), b"")
    rows.route(bytes(4), 0, 0, -1)
    rows.source(bytes([10, 0, 0, 0]), 8, 3)
    assert entries(rows, 65) == {
        (bytes(4), 0): (65, 0xFFFF, 0xFFFF, 0, 0),
        (bytes([10, 0, 0, 0]), 8): (65, 68, 0xFFFF, 0, 0),
    }


def test_the_outer_header_of_a_tunnel_sums_to_its_checksum():
    local, remote = address("203.0.113.9"), address("198.51.100.255")
    value = kernel_maps.tunnel(local, remote, 4340, 7, address("203.0.113.1"), 1400, 2, True)
    assert len(value) == kernel_maps.TUNNEL
    assert value[:12] == local + remote + address("203.0.113.1")
    assert value[16:18] == (4340).to_bytes(2, "big")
    link, mtu, words, up, direct = struct.unpack("@I", value[12:16]) + struct.unpack(
        "@HHBB", value[18:]
    )
    assert (link, mtu, up, direct) == (7, 1400, 2, 1)
    header = bytearray(b"\x45\xb8\x05\xdc\0\0\x40\0\x40\x11\0\0" + local + remote)
    total = words + sum(struct.unpack("@3H", b"\0\xb8\x05\xdc\x40\0"))
    total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = struct.pack("@H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    assert ipv4.checksum(header, 0, 20) == 0
    unreachable = kernel_maps.tunnel(local, remote, 434, 7, b"", 1400, 1, False)
    assert unreachable[12:16] == bytes(4)


def number(name: str) -> int:
    return int(re.search(rf"^#define {name} (\w+)", SOURCE, re.M)[1], 0)


def test_the_programs_have_the_same_numbers():
    body = re.search(r"enum counter \{(.*?)\};", SOURCE, re.S)[1]
    names = tuple(name.strip().lower() for name in body.split(",") if name.strip())
    assert names == kernel_maps.COUNTERS
    assert set(names[2:]) - {"in_congestion_unmarked"} <= set(base.REASONS)
    assert len(names) <= number("GLOBALS") == 32
    assert number("TUNNELS") == 2 * base.MAX_TUNNELS
    assert number("HINTS") == base.MAX_HINTS
    flags = [number(name) for name in ("OWN", "HOME", "END", "LOCAL")]
    assert flags == [kernel_maps.OWN, kernel_maps.HOME, kernel_maps.END, kernel_maps.LOCAL]
    assert flags[:3] == [table.OWN_NETWORK, table.OWN_HOME_ADDRESS, table.TUNNEL_END]
    assert number("OVERHEAD") == base.OVERHEAD


@pytest.mark.parametrize(("name", "order"), [("little", "little"), ("big", "big")])
def test_both_byte_orders_are_compiled(name, order):
    path = ROOT / "firmware" / "kernel_plane" / f"{name}.o"
    if not path.exists():
        pytest.skip("not built: make bpf")
    data = path.read_bytes()
    assert data[:4] == b"\x7fELF"
    assert data[5] == {"little": 1, "big": 2}[order]
    assert int.from_bytes(data[18:20], order) == 247  # EM_BPF
    for program in re.findall(r'^SEC\("(tc/\w+)"\)', SOURCE, re.M):
        assert program.encode() + b"\0" in data
