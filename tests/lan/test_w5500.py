"""The W5500 port on a simulated chip: frames both ways, tags, and every fault repaired."""

import pytest

from tests.lan.conftest import (
    ALL,
    FAR,
    HOST,
    HOST_MAC,
    MAC,
    OURS,
    checksum,
    echo,
    ethernet,
    udp,
)

# Stated in docs/lan.md: what goes wrong with the chip is repaired within this.
REPAIR_S = 1.5


@pytest.mark.parametrize("octets", [1, 18, 22, 35, 36, 37, 100, 1000, 1472])
def test_a_frame_reaches_the_data_plane_as_it_came(rig, octets):
    one = rig()
    packet = udp(HOST, FAR, octets)
    one.chip.frame_in(ethernet(MAC, HOST_MAC, packet))
    assert one.read() == [MAC + HOST_MAC + b"\x08\x00" + packet]


@pytest.mark.parametrize("octets", [1, 17, 18, 22, 100, 1000, 1472])
def test_a_packet_leaves_to_the_address_that_arp_found(rig, octets):
    one = rig()
    one.meet()
    one.wire.clear()
    packet = udp(FAR, HOST, octets)
    assert one.write(packet)
    assert one.wire == [ethernet(HOST_MAC, MAC, packet)]


@pytest.mark.parametrize("pins", [True, False])
def test_hundreds_of_frames_pass_both_ways_in_order_around_the_ring(rig, pins):
    """Both rings begin 256 octets before the pointers' wrap at 65536 and go around many times."""
    one = rig(pins=pins)
    one.meet()
    one.wire.clear()
    for i in range(400):
        size = 20 + i * 37 % 1440
        one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, size)))
        if i % 7 == 0:
            one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, size + 1)))
        got = [frame[14:] for frame in one.read()]
        assert got == [udp(HOST, FAR, size)] + ([udp(HOST, FAR, size + 1)] if i % 7 == 0 else [])
        assert one.write(udp(FAR, HOST, size))
        assert one.wire.pop() == ethernet(HOST_MAC, MAC, udp(FAR, HOST, size))
    counters = one.port.status()["chip"]
    assert counters["frames_out"] == one.chip.sent
    assert (counters["bad_lengths"], counters["stuck"], one.chip.runts) == (0, 0, 0)


def test_the_size_in_the_ring_is_believed_when_two_readings_agree(rig):
    """A frame that comes between both octets of RX_RSR must not be half of one."""
    one = rig(pins=False)
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 210)))

    def between():
        one.chip.between = None
        one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 210)))

    one.chip.between = between
    assert [frame[14:] for frame in one.read()] == [udp(HOST, FAR, 210)] * 2
    assert one.port.status()["chip"]["bad_lengths"] == 0


def test_what_is_not_for_us_is_not_forwarded(rig):
    one = rig()
    other = bytes.fromhex("020000000099")
    for frame in (
        ethernet(ALL, HOST_MAC, udp(HOST, FAR)),
        ethernet(bytes.fromhex("01005e000001"), HOST_MAC, udp(HOST, b"\xe0\0\0\x01")),
        ethernet(other, HOST_MAC, udp(HOST, FAR)),
        ethernet(MAC, HOST_MAC, bytes(46), 0x88B5),
        ethernet(MAC, HOST_MAC, b"\x45\x00\x07\xff" + bytes(42)),
        ethernet(MAC, HOST_MAC, udp(HOST, OURS)),
    ):
        one.chip.frame_in(frame)
    # And a chip that filters nothing.
    one.chip.sockets[0].registers[0] &= 0x7F
    one.chip.frame_in(ethernet(other, HOST_MAC, udp(HOST, FAR)))
    assert one.read() == []
    assert one.wire == []


def test_the_gateway_answers_an_echo(rig):
    one = rig()
    one.chip.frame_in(ethernet(MAC, HOST_MAC, echo(HOST, OURS, b"x" * 333)))
    assert one.read() == []
    reply = one.wire.pop()
    assert reply == ethernet(HOST_MAC, MAC, echo(OURS, HOST, b"x" * 333, kind=0))


@pytest.mark.parametrize("ttl", [1, 63, 255])
def test_the_answer_to_an_echo_begins_with_a_ttl_of_its_own(rig, ttl):
    one = rig()
    packet = bytearray(echo(HOST, OURS))
    packet[8] = ttl
    packet[10:12] = b"\0\0"
    packet[10:12] = checksum(bytes(packet[:20])).to_bytes(2, "big")
    one.chip.frame_in(ethernet(MAC, HOST_MAC, bytes(packet)))
    one.read()
    assert one.wire == [ethernet(HOST_MAC, MAC, echo(OURS, HOST, kind=0))]


def test_an_echo_by_a_tunnel_is_answered_into_the_tunnel(rig):
    one = rig()
    assert one.write(echo(FAR, OURS))
    assert [frame[14:] for frame in one.read()] == [echo(OURS, FAR, kind=0)]
    assert one.wire == []


@pytest.mark.parametrize("last", [0, 255])
def test_nothing_is_sent_to_the_network_or_to_all_of_it(rig, last):
    one = rig()
    assert one.write(udp(FAR, bytes((10, 1, 0, last)))) is None
    assert one.write(udp(FAR, bytes((10, 1, 1, 10)))) is None
    assert one.wire == []
    assert one.port.status()["off_link"] == 2


# Tags.

TAG_10 = bytes.fromhex("8100000a")


def test_a_port_with_a_vlan_sends_tagged_frames_and_takes_only_its_own(rig):
    one = rig(vlan=10)
    one.meet(tag=TAG_10)
    one.wire.clear()
    packet = udp(FAR, HOST, 200)
    assert one.write(packet)
    assert one.wire == [HOST_MAC + MAC + TAG_10 + b"\x08\x00" + packet]
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR), tag=TAG_10))
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR)))
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR), tag=bytes.fromhex("8100000b")))
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR), tag=bytes.fromhex("8100010a")))
    assert one.read() == [MAC + HOST_MAC + b"\x08\x00" + udp(HOST, FAR)]
    assert one.port.status()["foreign_tags"] == 3


def test_a_full_packet_has_room_with_its_tag(rig):
    one = rig(vlan=10)
    one.meet(tag=TAG_10)
    one.wire.clear()
    packet = udp(FAR, HOST, 1472)
    assert one.write(packet)
    assert one.wire == [HOST_MAC + MAC + TAG_10 + b"\x08\x00" + packet]
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 1472), tag=TAG_10))
    assert [frame[14:] for frame in one.read()] == [udp(HOST, FAR, 1472)]


@pytest.mark.parametrize(("tos", "priority"), [(0, 0), (0xB8, 5), (0xC0, 6), (0x28, 1)])
def test_the_priority_of_a_tag_is_the_class_of_the_packet(rig, tos, priority):
    one = rig(vlan=10)
    one.meet(tag=TAG_10)
    one.wire.clear()
    one.write(udp(FAR, HOST, 60, tos))
    assert one.wire[0][12:16] == bytes((0x81, 0, priority << 5, 10))


def test_a_port_without_a_vlan_takes_a_priority_tag_and_no_other(rig):
    one = rig()
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR), tag=bytes.fromhex("8100a000")))
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR), tag=TAG_10))
    assert one.read() == [MAC + HOST_MAC + b"\x08\x00" + udp(HOST, FAR)]
    assert one.port.status()["foreign_tags"] == 1


# Faults: each is put right without a restart, and traffic goes on.


def passes(one) -> bool:
    """Whether a frame goes each way now."""
    one.meet()
    one.wire.clear()
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 77)))
    got = [frame[14:] for frame in one.read()]
    sent = one.write(udp(FAR, HOST, 78))
    return got == [udp(HOST, FAR, 77)] and bool(sent) and len(one.wire) == 1


@pytest.mark.parametrize("pins", [True, False])
def test_a_pulled_cable_is_said_and_its_return_noticed(rig, pins):
    one = rig(pins=pins)
    assert passes(one)
    one.chip.plug(False)
    one.write(udp(FAR, HOST))  # before anybody knows: SEND never ends
    one.run(REPAIR_S)
    status = one.port.status()
    assert (status["link"], status["why"]) == (False, "no link: cable or switch")
    assert one.write(udp(FAR, HOST)) is None
    one.chip.plug(True)
    one.run(REPAIR_S)
    assert one.port.status()["link"] is True
    assert passes(one)
    assert one.port.warnings == ["LAN port: link up", "LAN port: link down", "LAN port: link up"]


@pytest.mark.parametrize("pins", [True, False])
def test_a_chip_that_was_reset_by_its_supply_is_opened_again(rig, pins):
    one = rig(pins=pins)
    assert passes(one)
    one.run(1)  # nothing is under way
    one.chip.brown_out()
    one.run(REPAIR_S)
    assert passes(one)


def test_a_chip_that_answers_nothing_names_the_wiring_until_it_does(rig):
    one = rig()
    one.chip.powered = False
    one.run(REPAIR_S)
    status = one.port.status()
    assert status["link"] is False
    assert "VERSIONR is 0x00, not 0x04" in status["why"]
    assert "MISO" in status["why"]
    assert one.read() == []
    assert one.write(udp(FAR, HOST)) is None
    one.run(30)
    assert [line for line in one.port.warnings if "VERSIONR" in line] == [status["why"]]
    one.chip.powered = True
    one.chip.brown_out()
    one.run(REPAIR_S)
    assert passes(one)


def test_a_ring_that_overflows_loses_whole_frames_and_goes_on(rig):
    one = rig()
    for i in range(60):
        one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 1000 + i)))
    assert one.chip.dropped_full > 0
    got = [len(frame) - 42 for frame in one.read()]
    assert got == list(range(1000, 1000 + len(got)))
    assert len(got) == 60 - one.chip.dropped_full
    assert one.port.status()["chip"]["full"] > 0
    assert passes(one)


@pytest.mark.parametrize("seed", range(8))
def test_noise_on_miso_makes_nothing_but_a_pause(rig, seed):
    one = rig(pins=bool(seed & 1))
    one.meet()
    one.chip._random.seed(seed)
    for _ in range(20):
        one.chip.garbage = 40 + 13 * seed
        for size in (60, 400, 1400):
            one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, size)))
            one.write(udp(FAR, HOST, size))
            one.read()
        one.run(0.1)
    one.chip.garbage = 0
    one.run(REPAIR_S)
    assert passes(one)


@pytest.mark.parametrize("length", [0, 1, 15, 1521, 0xFFFF])
def test_a_length_that_cannot_be_opens_the_socket_anew(rig, length):
    one = rig()
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 100)))
    ring = one.chip.sockets[0]
    at = ring.rx_told % len(ring.rx)
    ring.rx[at : at + 2] = length.to_bytes(2, "big")
    resets = one.chip.resets
    assert one.read() == []
    assert one.port.status()["chip"]["bad_lengths"] == 1
    one.run(REPAIR_S)
    assert passes(one)
    # Its link was kept.
    assert one.chip.resets == resets


def test_a_send_that_never_ends_is_given_up(rig):
    one = rig()
    assert passes(one)
    one.chip.stuck = True
    assert one.write(udp(FAR, HOST))
    assert one.write(udp(FAR, HOST)) is None
    before = one.seconds
    for _ in range(10):
        assert one.write(udp(FAR, HOST)) is None
    # Nobody waits for it again and again.
    assert one.seconds - before < 0.02
    one.run(REPAIR_S)
    assert one.port.status()["chip"]["stuck"] > 0
    one.chip.stuck = False
    one.run(REPAIR_S)
    assert passes(one)


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_command_that_never_ends_opens_the_socket_anew(rig, way):
    one = rig()
    assert passes(one)
    one.chip._command_reads = 1000
    if way == "in":
        one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 77)))
        assert len(one.read()) == 1
    else:
        assert one.write(udp(FAR, HOST)) is None
    assert one.read() == []
    assert one.write(udp(FAR, HOST)) is None
    one.chip._command_reads = 0
    one.chip.sockets[0].command_reads = 0
    one.run(REPAIR_S)
    assert passes(one)


@pytest.mark.parametrize("fails", [1, 2, 7, 20])
def test_an_error_of_the_bus_is_counted_and_passes(rig, fails):
    one = rig()
    one.meet()
    one.chip.frame_in(ethernet(MAC, HOST_MAC, udp(HOST, FAR, 100)))
    one.spi.fails = fails
    for _ in range(300):
        one.port.pending()
        one.port.read(one.buffer, 0)
        one.write(udp(FAR, HOST))
        one.run(0.05)
    assert one.port.status()["spi_errors"] >= 1
    one.run(REPAIR_S)
    assert one.spi.fails == 0
    assert passes(one)


def test_a_flood_of_frames_for_us_does_not_keep_the_loop(rig):
    one = rig()
    for _ in range(100):
        one.chip.frame_in(ethernet(MAC, HOST_MAC, echo(HOST, OURS)))
    assert one.port.read(one.buffer, 0) == 0
    assert len(one.wire) == 16
    assert one.port.pending()


def test_close_silences_the_chip(rig):
    one = rig()
    one.port.close()
    one.seconds += 0.1
    one.chip.frame_in(ethernet(MAC, HOST_MAC, echo(HOST, OURS)))
    assert one.chip.sockets[0].registers[3] == 0


def test_a_full_heap_costs_an_answer_and_not_the_router(rig, monkeypatch):
    one = rig()

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(one.port.office, "receive", full)
    monkeypatch.setattr(one.port.office.neighbours, "wait", full)
    one.chip.frame_in(ethernet(MAC, HOST_MAC, echo(HOST, OURS)))
    assert one.port.read(one.buffer, 0) == 0
    assert one.write(udp(FAR, HOST)) is None
    assert one.port.status()["no_memory"] == 2
