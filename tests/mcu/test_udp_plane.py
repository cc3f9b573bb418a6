"""The data plane of boards: what comes and goes by plain UDP sockets meets every check."""

import time

import pytest

from tests.mcu.plane_rig import (
    CARE_OF,
    EAGAIN,
    ENOMEM,
    FAR_HOST,
    HOME,
    HOME_AGENT,
    HOST,
    PEER,
    Rig,
    ipv4,
    text,
    tunnelled,
    udp,
)

AGENT_END, PEER_END = (text(HOME_AGENT), 434), (text(PEER), 4340)
REPLY = b"\x03\x00\x01\x2c" + bytes(20)


@pytest.fixture
def rig(monkeypatch):
    return Rig(monkeypatch)


def counters(rig):
    return {name: value for name, value in rig.plane.counters().items() if value}


def test_a_packet_of_the_lan_leaves_by_its_tunnel_whole(rig):
    packet = udp(HOST, FAR_HOST, 300)
    assert rig.go(packet)
    ((data, end),) = rig.uplink.sent
    assert end == PEER_END and data[:4] == b"\x04\x04\0\0"
    assert data[4 + 8] == packet[8] - 1, "nobody else lowers the TTL here"
    assert data[4:12] == packet[:8] and data[16:] == packet[12:]
    assert counters(rig) == {"out_forwarded": 1}


def test_a_datagram_of_the_peer_reaches_the_lan_as_a_frame(rig):
    packet = udp(FAR_HOST, HOST, 1400)
    assert rig.come((tunnelled(packet), PEER_END))
    (frame,) = rig.lan.written
    assert frame[:14] == rig.lan.ethernet
    assert frame[14 + 20 :] == packet[20:] and frame[14 + 8] == packet[8] - 1
    assert counters(rig) == {"in_forwarded": 1}


def test_several_datagrams_in_one_turn_keep_their_order(rig):
    packets = [udp(FAR_HOST, HOST, 100 + i) for i in range(10)]
    rig.come(*[(tunnelled(packet), PEER_END) for packet in packets])
    assert [len(frame) - 14 for frame in rig.lan.written] == [len(each) for each in packets]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(REPLY, id="a Registration Reply"),
        pytest.param(tunnelled(udp(FAR_HOST, HOST, 50))[:-1], id="cut"),
        pytest.param(tunnelled(udp(FAR_HOST, HOST, 50)) + b"\0", id="longer than it says"),
        pytest.param(b"\x04\x04\0\1" + udp(FAR_HOST, HOST, 50), id="reserved bits"),
        pytest.param(b"\x04\x29\0\0" + udp(FAR_HOST, HOST, 50), id="another protocol"),
        pytest.param(b"\x04\x04\0\0", id="nothing inside"),
    ],
)
def test_all_but_well_formed_tunnel_data_is_signalling(rig, data):
    assert rig.come((data, AGENT_END)) is False, "the loop gives it to the core"
    assert rig.plane.signals == [(0, HOME_AGENT, 434, CARE_OF, 434, data)]
    assert rig.lan.written == [] and counters(rig) == {}


@pytest.mark.parametrize(
    ("packet", "end", "counter"),
    [
        (udp(FAR_HOST, HOST), (text(PEER), 4341), "in_unknown_tunnel_end"),
        (udp(FAR_HOST, HOST), ("203.0.113.10", 4340), "in_unknown_tunnel_end"),
        (udp(FAR_HOST, HOST), (text(HOME_AGENT), 4340), "in_home_agent_port"),
        (udp(bytes([10, 9, 0, 1]), HOST), PEER_END, "in_unconfirmed_source"),
        (udp(HOST, HOST), AGENT_END, "in_own_source"),
        (udp(FAR_HOST, bytes([10, 9, 0, 1])), PEER_END, "in_foreign_destination"),
    ],
)
def test_what_a_stranger_or_a_peer_may_not_send_is_refused(rig, packet, end, counter):
    """The same judge as on Linux: outer end, port, inner source and destination."""
    rig.come((tunnelled(packet), end))
    assert rig.lan.written == [] and counters(rig) == {counter: 1}


def test_one_source_is_not_taken_for_another_after_many(rig):
    """Addresses are remembered by what the port calls them; the memory is bounded."""
    for i in range(300):
        rig.come((tunnelled(udp(FAR_HOST, HOST)), (f"203.0.{i >> 6}.{i & 63}", 5000 + i)))
    assert counters(rig) == {"in_unknown_tunnel_end": 300}
    rig.come((tunnelled(udp(FAR_HOST, HOST)), PEER_END))
    assert counters(rig)["in_forwarded"] == 1
    assert len(rig.plane._sources) <= 2 * 65 + 1


def test_a_flood_of_signalling_is_bounded_and_data_goes_on(rig):
    flood = [(REPLY, ("203.0.113.77", 434))] * 15
    for _ in range(4):
        rig.come(*flood, (tunnelled(udp(FAR_HOST, HOST)), PEER_END))
    assert counters(rig)["in_forwarded"] == 4
    assert len(rig.plane.signals) == 16
    assert rig.plane.own_loss()["signals_lost"] == 4 * 15 - 16


def test_a_keepalive_to_ourselves_goes_to_the_core(rig):
    icmp = ipv4(HOME_AGENT, HOME, 1, b"\x08\x00\xf7\xff" + bytes(4))
    rig.come((tunnelled(icmp), AGENT_END))
    assert rig.plane.attention
    tunnel, packet, source, port, uplink = rig.plane.next_control()
    assert (tunnel, packet, source, port, uplink) == (0, icmp, HOME_AGENT, 434, 0)


def test_a_keepalive_of_no_known_end_is_a_stray_with_where_it_was_sent(rig):
    rig.come((tunnelled(udp(FAR_HOST, HOST)), PEER_END))  # the buffer has been used
    icmp = ipv4(bytes([192, 0, 2, 131]), HOME, 1, b"\x08\x00\xf7\xff" + bytes(4))
    rig.come((tunnelled(icmp), (text(PEER), 999)))
    uplink, source, port, destination, data = rig.plane.next_stray()
    assert (uplink, source, port, destination) == (0, PEER, 999, CARE_OF)
    assert data == tunnelled(icmp)


@pytest.mark.parametrize("error", [EAGAIN, ENOMEM])
def test_a_send_that_finds_no_room_is_tried_once_more(rig, error):
    """lwIP says ENOMEM where others say EAGAIN."""
    rig.uplink.errors = [OSError(error)]
    rig.go(udp(HOST, FAR_HOST))
    assert len(rig.uplink.sent) == 1 and rig.plane.own_loss()["send_errors"] == 0
    rig.uplink.errors = [OSError(error), OSError(error)]
    rig.go(udp(HOST, FAR_HOST))
    assert len(rig.uplink.sent) == 1 and rig.plane.own_loss()["send_errors"] == 1


def test_a_heap_without_room_costs_one_datagram_and_is_counted(rig):
    rig.come(MemoryError(), (tunnelled(udp(FAR_HOST, HOST)), PEER_END))
    assert rig.plane.own_loss()["no_memory"] == 1
    rig.plane.handle(rig.uplink, 1)
    assert counters(rig) == {"in_forwarded": 1}


def test_too_big_with_df_is_answered_to_the_host_and_without_is_cut(rig, monkeypatch):
    monkeypatch.setattr(time, "ticks_ms", lambda: 1000, raising=False)
    monkeypatch.setattr(time, "ticks_diff", lambda a, b: a - b, raising=False)
    rig.go(ipv4(HOST, FAR_HOST, 17, bytes(1470), flags=0x4000))
    (frame,) = rig.lan.written
    assert frame[14 + 9] == 1 and frame[14 + 16 : 14 + 20] == HOST
    assert frame[14 + 20 : 14 + 22] == b"\x03\x04"
    assert int.from_bytes(frame[14 + 26 : 14 + 28], "big") == 1468
    rig.go(ipv4(HOST, FAR_HOST, 17, bytes(1470)))
    assert len(rig.uplink.sent) == 2
    assert all(len(data) <= 1472 for data, _ in rig.uplink.sent)


def test_dscp_costs_nothing_where_it_cannot_be_marked(rig):
    rig.go(udp(HOST, FAR_HOST, 50, 0xB8), udp(HOST, FAR_HOST, 50, 0))
    assert len(rig.uplink.sent) == 2 and rig.plane.own_loss()["port_errors"] == 0


def test_a_socket_is_bound_to_address_port_and_interface_and_never_waits(rig):
    assert (0xFFF, 0x100B, "st1") in rig.uplink.options
    assert ("bind", (text(CARE_OF), 434)) in rig.uplink.options
    assert ("blocking", False) in rig.uplink.options


def test_an_uplink_that_closes_takes_its_tunnels_and_is_watched_no_more(rig):
    assert rig.uplink in rig.poll.watched
    rig.plane.close_uplink(0)
    assert rig.uplink not in rig.poll.watched and rig.uplink.waiting is None
    rig.go(udp(HOST, FAR_HOST))
    assert rig.uplink.sent == [] and counters(rig)
    assert rig.plane.send(0, b"x") is False


def test_an_empty_datagram_does_not_end_the_uplink(rig):
    """ports/esp32/modsocket.c: a datagram of length 0, anyone's, and recvfrom gives only emptiness.

    The tunnels go on by the socket that is opened in its place.
    """
    nothing = (b"", ("203.0.113.77", 9))
    rig.come(nothing, (tunnelled(udp(FAR_HOST, HOST)), PEER_END))
    assert counters(rig) == {"in_forwarded": 1} and len(rig.made) == 1, "one alone may be real"
    rig.come(nothing, nothing, nothing)
    assert len(rig.made) == 2 and rig.uplink not in rig.poll.watched
    rig.uplink = rig.made[-1]
    assert rig.uplink in rig.poll.watched
    rig.come((tunnelled(udp(FAR_HOST, HOST)), PEER_END))
    rig.go(udp(HOST, FAR_HOST))
    assert counters(rig) == {"in_forwarded": 2, "out_forwarded": 1}
    assert [end for _, end in rig.uplink.sent] == [PEER_END]
    assert rig.plane.own_loss()["empty"] == 3


def test_a_socket_that_cannot_be_had_anew_is_asked_for_again(rig, monkeypatch):
    nothing = (b"", ("203.0.113.77", 9))
    real = rig.sockets.open
    monkeypatch.setattr(rig.sockets, "open", lambda *uplink: (_ for _ in ()).throw(OSError(23)))
    rig.come(nothing, nothing)
    rig.go(udp(HOST, FAR_HOST))
    assert rig.plane.own_loss()["send_errors"] == 1 and rig.plane.own_loss()["port_errors"] == 1
    monkeypatch.setattr(rig.sockets, "open", real)
    rig.plane.check()
    rig.uplink = rig.made[-1]
    rig.go(udp(HOST, FAR_HOST))
    assert len(rig.uplink.sent) == 1


def test_another_address_is_another_socket(rig):
    rig.plane.open_uplink(0, "st1", CARE_OF)
    assert len(rig.made) == 1, "the same is left alone"
    rig.plane.open_uplink(0, "st1", bytes([203, 0, 113, 50]))
    assert rig.uplink.waiting is None and len(rig.made) == 2
    rig.plane.close()
    assert rig.lan.closed and rig.poll.watched == []
