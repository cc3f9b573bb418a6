"""ARP of a LAN port without a kernel: who is where, for how long, and whose address ours is."""

import pytest

from haaro.lan.neighbours import Neighbours
from tests.lan.conftest import ALL, FAR, HOST, HOST_MAC, MAC, OURS, arp, ethernet, udp

OTHER_MAC = bytes.fromhex("020000000099")


def address(i: int) -> bytes:
    return bytes((10, 1, 0, i))


def mac(i: int) -> bytes:
    return bytes((2, 0, 0, 0, 1, i))


def requests(wire, target=None) -> list[tuple[bytes, bytes, bytes]]:
    """(destination, sender's and target's address) of the ARP requests that have left."""
    found = [
        (frame[:6], frame[28:32], frame[38:42])
        for frame in wire
        if frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\x01"
    ]
    return [each for each in found if target in (None, each[2])]


def test_a_request_for_our_address_is_answered_and_its_sender_known(rig):
    one = rig()
    one.chip.frame_in(arp(1, HOST_MAC, HOST, bytes(6), OURS))
    assert one.read() == []
    assert one.wire == [arp(2, MAC, OURS, HOST_MAC, HOST, HOST_MAC)]
    one.wire.clear()
    assert one.write(udp(FAR, HOST))
    assert one.wire == [ethernet(HOST_MAC, MAC, udp(FAR, HOST))]


def test_a_request_for_another_address_teaches_nothing(rig):
    """RFC 826: only who asks for us is put into the table."""
    one = rig()
    one.chip.frame_in(arp(1, HOST_MAC, HOST, bytes(6), address(77)))
    one.read()
    assert one.wire == []
    assert one.port.status()["neighbours"] == 0


def test_a_packet_waits_for_its_neighbour_and_the_last_one_is_sent(rig):
    one = rig()
    assert one.write(udp(FAR, HOST, 50))
    assert one.write(udp(FAR, HOST, 51))
    assert one.wire == [arp(1, MAC, OURS, bytes(6), HOST)]
    one.chip.frame_in(arp(2, HOST_MAC, HOST, MAC, OURS, MAC))
    one.read()
    assert one.wire[1:] == [ethernet(HOST_MAC, MAC, udp(FAR, HOST, 51))]


def test_who_does_not_answer_is_asked_three_times_and_then_forgotten(rig):
    one = rig()
    one.write(udp(FAR, HOST))
    one.run(10)
    assert len(requests(one.wire, HOST)) == 3
    assert one.port.status()["unresolved"] == 1
    one.wire.clear()
    assert one.write(udp(FAR, HOST))
    assert len(requests(one.wire, HOST)) == 1


def test_waiting_packets_and_requests_have_a_bound(rig):
    one = rig()
    for i in range(100, 200):
        one.write(udp(FAR, address(i)))
    assert len(requests(one.wire)) == 8
    assert one.port.status()["waiting_overflows"] == 92


def test_a_neighbour_in_use_is_asked_again_directly_and_an_idle_one_forgotten(rig):
    one = rig()
    one.meet()
    one.meet(address(20), mac(20))
    one.wire.clear()
    for _ in range(59):
        one.run(1)
        assert one.write(udp(FAR, HOST))
    assert requests(one.wire, HOST) == []
    one.run(3)
    assert requests(one.wire, HOST)[0] == (HOST_MAC, OURS, HOST)
    # It is used all the while.
    assert one.write(udp(FAR, HOST))
    one.chip.frame_in(arp(2, HOST_MAC, HOST, MAC, OURS, MAC))
    one.read()
    one.run(55)
    assert requests(one.wire, address(20)) == []
    assert one.port.status()["neighbours"] == 2
    one.run(10)
    assert one.port.status()["neighbours"] == 1


def test_a_neighbour_that_went_away_is_forgotten(rig):
    one = rig()
    one.meet()
    one.write(udp(FAR, HOST))
    one.run(70)
    assert one.port.status()["neighbours"] == 0


def test_a_neighbour_with_a_new_card_is_followed(rig):
    one = rig()
    one.meet()
    one.chip.frame_in(arp(1, OTHER_MAC, HOST, bytes(6), HOST))  # an announcement
    one.read()
    one.wire.clear()
    one.write(udp(FAR, HOST))
    assert one.wire == [ethernet(OTHER_MAC, MAC, udp(FAR, HOST))]


def test_the_table_has_room_for_an_office_and_a_bound():
    sent = []
    table = Neighbours(bytes((10, 1, 0, 1)), 16, MAC, lambda *frame: sent.append(frame) or True)
    hosts = [bytes((10, 1, i >> 8, i & 255)) for i in range(2, 1000)]
    for i, host in enumerate(hosts):
        packet = arp(1, bytes((2, 0, 0, 1, i >> 8, i & 255)), host, bytes(6), OURS)[14:]
        table.receive(packet, 0, len(packet))
    known = [host for host in hosts if table.find(host, 0) >= 0]
    assert 100 < len(known) <= 128
    for host in known:
        row = table.find(host, 0)
        i = hosts.index(host)
        assert table.table[row : row + 6] == bytes((2, 0, 0, 1, i >> 8, i & 255))


def test_a_scan_from_outside_does_not_push_out_who_is_there():
    table = Neighbours(bytes((10, 1, 0, 1)), 16, MAC, lambda *frame: True)
    for i in range(2, 62):
        packet = arp(1, mac(i), address(i), bytes(6), OURS)[14:]
        table.receive(packet, 0, len(packet))
    for i in range(3000):
        table.wait(bytes((10, 1, 1 + i // 256, i & 255)), b"x")
        if i % 50 == 0:
            table.tick(i // 50 + 1)
    assert [i for i in range(2, 62) if table.find(address(i), 0) < 0] == []


def test_our_address_is_probed_and_then_announced_when_the_link_comes(rig):
    """RFC 5227 2.1.1 and 2.3."""
    one = rig(open_=False)
    one.run(9)
    probes = [each for each in requests(one.wire) if each[1] == bytes(4)]
    announced = [each for each in requests(one.wire) if each[1] == OURS]
    assert probes == [(ALL, bytes(4), OURS)] * 3
    assert announced == [(ALL, OURS, OURS)] * 2


def test_a_conflict_is_said_and_our_address_defended_but_not_in_a_loop(rig):
    """RFC 5227 2.4 c: at most one announcement in ten seconds."""
    one = rig()
    one.run(10)
    one.wire.clear()
    for _ in range(5):
        one.chip.frame_in(arp(1, OTHER_MAC, OURS, bytes(6), HOST))
        one.read()
    assert requests(one.wire) == [(ALL, OURS, OURS)]
    status = one.port.status()
    assert status["conflicts"] == 5
    assert status["why"] == (
        "10.1.0.1 is used by 02:00:00:00:00:99 too: give one of them another address"
    )
    one.run(125)
    assert one.port.status()["why"] == ""


def test_who_probes_for_our_address_learns_that_it_is_taken(rig):
    one = rig()
    one.chip.frame_in(arp(1, OTHER_MAC, bytes(4), bytes(6), OURS))
    one.read()
    assert one.wire == [arp(2, MAC, OURS, OTHER_MAC, bytes(4), OTHER_MAC)]
    assert one.port.status()["neighbours"] == 0


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00\x01\x08\x00\x06\x04\x00",
        b"\x00\x06\x08\x00\x06\x04\x00\x01" + bytes(20),
        b"\x00\x01\x08\x00\x06\x10\x00\x01" + bytes(20),
        b"\x00\x01\x08\x00\x06\x04\x00\x09" + HOST_MAC + HOST + bytes(6) + OURS,
        b"\x00\x01\x08\x00\x06\x04\x00\x02" + MAC + HOST + bytes(6) + OURS,
        b"\x00\x01\x08\x00\x06\x04\x00\x02" + ALL + HOST + bytes(6) + OURS,
        b"\x00\x01\x08\x00\x06\x04\x00\x01" + HOST_MAC + FAR + bytes(6) + HOST,
        b"\x00\x01\x08\x00\x06\x04\x00\x01" + HOST_MAC + address(255) + bytes(6) + HOST,
    ],
)
def test_what_is_no_arp_of_a_host_of_the_lan_changes_nothing(rig, payload):
    one = rig()
    one.chip.frame_in(ethernet(ALL, HOST_MAC, payload, 0x0806))
    assert one.read() == []
    assert one.wire == []
    assert one.port.status()["neighbours"] == 0
