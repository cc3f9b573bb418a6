"""The userspace data plane inside MicroPython: both ways, oversize packets, and nothing lost."""

import gc

import micropython
from plane_rig import AGENT, ETHERNET, HOME, LOCAL, Inlet, Rig, inner, outer, read_all, reseal

from haaro.dataplane.base import UPLINK_RECORD
from haaro.wire import ipv4
from haaro.wire.ipv4 import address

PEER = address("203.0.113.10")
AGENT_HOST = "10.0.0.10"


def registered(**kwargs):
    """Return a rig with the HA tunnel 0 and a direct tunnel 1 to 10.3.0.0/24."""
    rig = Rig(**kwargs)
    plane = rig.plane
    assert plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)
    assert plane.set_tunnel(1, 0, LOCAL, PEER, 434, 1468, address("192.0.2.131"))
    network, peer = address("10.3.0.0"), address("192.0.2.131")
    plane.swap(
        [(bytes(4), 0, 0, -1), (network, 24, 1, -1), (peer, 32, 1, -1)],
        [(network, 24, 1), (peer, 32, 1)],
    )
    return rig


def test_a_packet_goes_by_the_longest_match_and_comes_back():
    """R3.3.5-i1, R3.3.2-1, R3.3.2-2: routes choose the tunnel, the default is the HA tunnel."""
    rig = registered()
    to_agent, to_peer = inner("10.1.0.10", AGENT_HOST), inner("10.1.0.10", "10.3.0.10")
    rig.from_lan(to_agent)
    rig.from_lan(to_peer)
    rig.turn()
    header = b"\x04\x04\x00\x00"
    assert rig.to_tunnels() == [(AGENT, header + to_agent), (PEER, header + to_peer)]
    back = inner("10.3.0.10", "10.1.0.10")
    rig.from_tunnel(back, PEER)
    rig.turn()
    assert rig.to_lan() == [ETHERNET + back]
    assert (rig.plane.user_rx(1), rig.plane.user_tx(1), rig.plane.user_tx(0)) == (1, 1, 1)


def test_a_hint_is_set_only_by_a_packet_that_was_forwarded():
    """R3.3.2-2: traffic that could go direct goes by the HA and wakes the control plane."""
    rig = registered()
    plane = rig.plane
    plane.swap([(bytes(4), 0, 0, -1), (address("10.3.0.0"), 24, 0, 5)], [])
    rig.from_lan(inner("10.9.0.10", "10.3.0.10"))
    rig.turn()
    assert not plane.attention and not any(plane.wanted)
    rig.from_lan(inner("10.1.0.10", "10.3.0.10"))
    rig.turn()
    assert plane.attention and plane.wanted_any and plane.wanted[5] == 1 and sum(plane.wanted) == 1
    assert [remote for remote, _ in rig.to_tunnels()] == [AGENT]


def test_control_packets_are_diverted_and_the_rest_of_the_home_address_is_not():
    rig = registered()
    echo = ipv4.build_icmp_echo(address("192.0.2.131"), HOME, False, 1, 2, b"token")
    signalling = ipv4.build_udp(address("192.0.2.130"), HOME, 5000, 434, b"\x18\x00")
    ordinary = ipv4.build_udp(address("10.0.0.10"), HOME, 434, 22, b"ssh")
    other_echo = ipv4.build_icmp_echo(address("192.0.2.130"), HOME, False, 1, 2, b"ping")
    rig.from_tunnel(echo, PEER)
    rig.from_tunnel(signalling)
    rig.from_tunnel(ordinary)
    rig.from_tunnel(other_echo)
    rig.turn()
    assert rig.plane.attention
    assert rig.plane.next_control() == (1, echo, PEER, 434, 0)
    assert rig.plane.next_control() == (0, signalling, AGENT, 434, 0)
    assert rig.plane.next_control() is None
    assert not rig.plane.attention
    assert rig.to_lan() == [ETHERNET + ordinary, ETHERNET + other_echo]


def test_what_the_core_sends_or_is_given_is_no_traffic():
    """R3.3.4-5: keepalives do not make an idle tunnel look used."""
    rig = registered()
    rig.from_tunnel(ipv4.build_icmp_echo(address("192.0.2.131"), HOME, True, 1, 2, b"token"), PEER)
    rig.turn()
    assert rig.plane.send(1, ipv4.build_icmp_echo(HOME, PEER, False, 1, 2, b"token"))
    assert rig.plane.next_control() is not None and len(rig.controls) == 1
    assert (rig.plane.user_rx(1), rig.plane.user_tx(1)) == (0, 0)


def test_the_control_queue_is_bounded():
    rig = registered()
    echo = ipv4.build_icmp_echo(AGENT, HOME, True, 1, 2, b"token")
    for _ in range(8):
        for _ in range(5):
            rig.from_tunnel(echo)
        rig.turn()
    assert rig.plane.counters()["in_control"] == 32
    assert rig.plane.counters()["in_control_overflow"] == 8
    assert rig.plane.user_rx(0) == 0


def test_a_keepalive_of_an_unknown_end_is_a_stray_and_nothing_else_is():
    """R6.1-2: a peer's keepalive from a new port reaches the control plane, traffic does not."""
    rig = registered()
    echo = ipv4.build_icmp_echo(address("192.0.2.131"), HOME, False, 1, 2, b"token")
    rig.from_tunnel(echo, PEER, 40000)
    rig.from_tunnel(inner("10.3.0.10", "10.1.0.10"), PEER, 40000)
    rig.from_tunnel(
        ipv4.build_icmp_echo(address("192.0.2.131"), HOME, False, 1, 2, bytes(200)), PEER, 40000
    )
    rig.turn()
    data = b"\x04\x04\x00\x00" + echo
    assert rig.plane.next_stray() == (0, PEER, 40000, LOCAL, data)
    assert rig.plane.next_stray() is None
    for _ in range(12):
        rig.from_tunnel(echo, PEER, 40000)
        rig.turn()
    counters = rig.plane.counters()
    assert (counters["in_stray"], counters["in_stray_overflow"]) == (9, 4)
    assert rig.to_lan() == []


def fragments_of(rig):
    """Return the inner packets sent into the HA tunnel."""
    return [data[4:] for _, data in rig.to_tunnels()]


def test_a_packet_that_may_be_cut_is_cut_before_encapsulation():
    rig = registered()
    for octets in (1469, 1476, 1500):
        packet = inner("10.1.0.10", AGENT_HOST, octets)
        rig.from_lan(packet)
        rig.turn()
        parts = fragments_of(rig)
        assert len(parts) == 2
        data = bytearray(octets - 20)
        for part in parts:
            ip = ipv4.parse_ipv4(part)
            assert ip.total_length == len(part) <= 1468
            data[ip.fragment_offset : ip.fragment_offset + len(part) - 20] = part[20:]
            assert (ip.src, ip.dst, ip.ttl, ip.protocol) == (packet[12:16], packet[16:20], 64, 17)
        assert data == packet[20:]
        assert ipv4.parse_ipv4(parts[0]).more_fragments
        assert not ipv4.parse_ipv4(parts[1]).more_fragments


def test_a_fragment_is_cut_further_and_keeps_its_place():
    rig = registered()
    rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 600, AGENT)
    packet = inner("10.1.0.10", AGENT_HOST, 1500, offset=0x2000 | 100)
    rig.from_lan(packet)
    rig.turn()
    parts = fragments_of(rig)
    places = [ipv4.parse_ipv4(part).fragment_offset for part in parts]
    assert places == [800, 800 + 576, 800 + 1152]
    assert all(ipv4.parse_ipv4(part).more_fragments for part in parts)
    assert b"".join([part[20:] for part in parts]) == packet[20:]


def test_dont_fragment_is_answered_with_the_mtu_of_the_tunnel():
    rig = registered()
    packet = inner("10.1.0.10", AGENT_HOST, 1469, df=True)
    rig.from_lan(packet)
    rig.turn()
    assert rig.to_tunnels() == []
    frame = rig.to_lan()[0]
    assert frame[:14] == ETHERNET
    ip = ipv4.parse_ipv4(frame[14:])
    assert (ip.src, ip.dst, ip.protocol) == (HOME, address("10.1.0.10"), 1)
    assert frame[34:36] == b"\x03\x04" and frame[40:42] == bytes((1468 >> 8, 1468 & 255))
    assert frame[42:] == packet[:28] and ipv4.checksum(frame, 34, len(frame) - 34) == 0
    # A second one at once is over the rate.
    rig.from_lan(packet)
    rig.turn()
    assert rig.to_lan() == [] and rig.plane.counters()["out_too_big"] == 2


def test_no_icmp_error_about_an_icmp_error():
    rig = registered()
    error = b"\x03\x04" + bytes(1480)
    rig.from_lan(inner("10.1.0.10", AGENT_HOST, protocol=1, df=True, payload=error))
    rig.turn()
    assert rig.to_lan() == [] and rig.plane.counters()["out_too_big"] == 1


def test_an_attachment_that_is_a_router_lowers_the_ttl_and_says_when_it_ends():
    rig = registered(ttl_step=1)
    rig.from_lan(inner("10.1.0.10", AGENT_HOST, ttl=2))
    rig.from_lan(inner("10.1.0.10", AGENT_HOST, ttl=1))
    rig.from_tunnel(inner(AGENT_HOST, "10.1.0.10", ttl=9))
    rig.from_tunnel(inner(AGENT_HOST, "10.1.0.10", ttl=1))
    rig.turn()
    sent = rig.to_tunnels()
    assert len(sent) == 1 and ipv4.parse_ipv4(sent[0][1][4:]).ttl == 1
    error, forwarded = rig.to_lan()
    assert error[34:36] == b"\x0b\x00" and error[30:34] == address("10.1.0.10")
    assert ipv4.parse_ipv4(forwarded[14:]).ttl == 8
    counters = rig.plane.counters()
    assert counters["out_ttl_exceeded"] == counters["in_ttl_exceeded"] == 1


def sizes_of(frames):
    return [len(frame) for frame in frames]


def test_packets_without_a_record_and_records_without_a_packet_do_no_harm():
    """The two receive queues may differ after an overflow or when two CPUs deliver at once."""
    rig = registered()
    inlet = rig.uplink_inlet
    packets = [inner(AGENT_HOST, "10.1.0.10", octets) for octets in (100, 200, 1400, 64, 300)]
    frames = [outer(packet) for packet in packets]
    for i, frame in enumerate(frames):
        inlet.record(frame)
        if i != 1:
            inlet.packets_in.send(frame)
    rig.turn()
    loss = rig.plane.own_loss()
    assert sizes_of(rig.to_lan()) == [114, 1414, 78, 314]
    assert (loss["received"], loss["handled"], loss["cut"], loss["missing"]) == (5, 4, 0, 1)
    # In another order, and one whose record comes a turn late.
    inlet.packets_in.send(frames[2])
    inlet.packets_in.send(frames[0])
    inlet.record(frames[0])
    inlet.record(frames[2])
    rig.turn()
    assert sizes_of(rig.to_lan()) == [1414, 114]
    inlet.packets_in.send(frames[0])
    inlet.feed(frames[0])
    rig.turn()
    inlet.record(frames[0])
    for frame in frames:
        inlet.feed(frame)
    rig.turn()
    rig.turn()
    loss = rig.plane.own_loss()
    assert loss["cut"] == 0 and loss["received"] == loss["handled"] + loss["missing"]


def test_a_lost_packet_costs_at_most_one_more_and_the_count_is_true():
    rig = registered()
    inlet = rig.uplink_inlet
    for turn in range(40):
        for octets in (64, 1500, 700, 64, 1000, 80):
            frame = outer(inner(AGENT_HOST, "10.1.0.10", octets))
            inlet.record(frame)
            if turn % 4 or octets != 1500:
                inlet.packets_in.send(frame)
        rig.turn()
        rig.to_lan()
    loss = rig.plane.own_loss()
    assert loss["received"] == 240
    assert loss["missing"] == 10
    assert loss["cut"] <= 10
    assert loss["handled"] + loss["cut"] + loss["missing"] == 240
    assert rig.plane.counters()["in_forwarded"] == loss["handled"]


def test_the_kernels_count_of_drops_outlives_a_port():
    """Monotonic: an uplink that closes takes its sockets with it, not what they lost."""
    rig = registered()
    rig.dropped = {rig.lan_inlet.pair[1]: 3, rig.uplink_inlet.pair[1]: 4}
    assert rig.plane.own_loss()["socket_drops"] == 7
    rig.plane.close_uplink(0)
    assert rig.plane.own_loss()["socket_drops"] == 7
    rig.uplink_inlet = Inlet(UPLINK_RECORD, 32)
    rig.plane.open_uplink(0, "wan", LOCAL, 1500)
    rig.dropped[rig.uplink_inlet.pair[1]] = 1
    assert rig.plane.own_loss()["socket_drops"] == 8
    # A kernel that does not tell.
    rig.dropped = None
    rig.drops = silent
    assert rig.plane.own_loss()["socket_drops"] == -1


def silent(sockets):
    raise OSError(2)


def test_a_full_send_queue_is_counted_and_forwarding_goes_on():
    rig = registered()
    for _ in range(40):
        rig.from_tunnel(inner(AGENT_HOST, "10.1.0.10"))
        rig.turn()
    loss = rig.plane.own_loss()
    got = len(rig.to_lan())
    assert loss["send_errors"] == 40 - got > 0
    assert rig.plane.counters()["in_forwarded"] == got
    rig.from_tunnel(inner(AGENT_HOST, "10.1.0.10"))
    rig.turn()
    assert len(rig.to_lan()) == 1


def full(rig):
    """64 peers with two prefixes each: tunnels, routes and sources."""
    plane = rig.plane
    routes, sources = [(bytes(4), 0, 0, -1)], []
    assert plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)
    for i in range(1, 65):
        home = address("192.0.2.%d" % (130 + i))
        assert plane.set_tunnel(i, 0, LOCAL, address("203.0.113.%d" % i), 434, 1468, home)
        for prefix, plen in (
            (b"\x0a" + bytes((i + 1, 4, 0)), 24),
            (b"\x0a" + bytes((i + 1, 5, 0)), 24),
            (home, 32),
        ):
            routes.append((prefix, plen, i, -1))
            sources.append((prefix, plen, i))
    plane.swap(routes, sources)
    return routes, sources


def test_ten_thousand_packets_both_ways_allocate_nothing():
    """Full table, 64 to 1500 octets, one route change in the middle, heap locked at each packet."""
    rig = Rig()
    plane = rig.plane
    routes, sources = full(rig)
    peers = (1, 17, 40, 64)
    sinks = [rig.sinks[(address("203.0.113.%d" % peer), 434)] for peer in peers]
    sent = got = fragmented = 0
    octets = 64
    polled = (rig.lan_inlet.pair[0], rig.uplink_inlet.pair[0])
    for turn in range(1250):
        if turn == 625:
            # Peer 17's networks go back to the HA tunnel.
            sinks[1] = rig.sinks[(AGENT, 434)]
            plane.swap([r for r in routes if r[2] != 17], [s for s in sources if s[2] != 17])
        for peer in peers:
            octets = 64 + (octets - 64 + 211) % 1437
            host = "10.%d.5.9" % (peer + 1)
            rig.from_lan(inner("10.1.0.10", host, octets))
            source = AGENT if turn >= 625 and peer == 17 else address("203.0.113.%d" % peer)
            rig.from_tunnel(inner(host, "10.1.0.10", octets), source)
            fragmented += octets > 1468
        micropython.heap_lock()
        for obj in polled:
            plane.handle(obj, 1)
        micropython.heap_unlock()
        got += len(read_all(rig.lan.sink))
        for sink in sinks:
            sent += len(read_all(sink))
    assert got == 5000 and sent == 5000 + fragmented and fragmented > 50
    counters = plane.counters()
    assert counters["out_forwarded"] == counters["in_forwarded"] == 5000
    loss = plane.own_loss()
    assert loss["received"] == loss["handled"] == 10000
    assert loss["cut"] == loss["missing"] == loss["send_errors"] == 0


def test_a_drop_allocates_nothing():
    rig = registered()
    rig.plane.handle(rig.lan_inlet.pair[0], 1)
    for packet in (
        inner("10.9.0.10", AGENT_HOST),
        inner("10.1.0.10", "10.1.0.11"),
        inner("10.1.0.10", AGENT_HOST, 1500, df=True),
    ):
        rig.from_lan(packet)
    rig.from_tunnel(inner("10.3.0.10", "10.1.0.10"), address("203.0.113.99"))
    rig.from_tunnel(inner("10.4.0.10", "10.1.0.10"), PEER)
    micropython.heap_lock()
    rig.turn()
    micropython.heap_unlock()
    counters = rig.plane.counters()
    for name in ("out_foreign_source", "out_own_destination", "out_too_big"):
        assert counters[name] == 1, name
    assert counters["in_unknown_tunnel_end"] == counters["in_unconfirmed_source"] == 1


def test_a_tunnel_that_is_deleted_or_whose_uplink_closes_carries_nothing():
    """R3.3.6-2, R3.3.3-19: a tunnel is torn down and built again without a trace of the old end."""
    rig = registered()
    rig.plane.delete_tunnel(1)
    rig.from_lan(inner("10.1.0.10", "10.3.0.10"))
    rig.from_tunnel(inner("10.3.0.10", "10.1.0.10"), PEER)
    rig.turn()
    counters = rig.plane.counters()
    assert counters["out_tunnel_down"] == counters["in_unknown_tunnel_end"] == 1
    assert rig.plane.set_tunnel(1, 0, LOCAL, address("203.0.113.77"), 999, 1400, AGENT)
    rig.from_lan(inner("10.1.0.10", "10.3.0.10"))
    rig.turn()
    assert [remote for remote, _ in rig.to_tunnels()] == [address("203.0.113.77")]
    rig.plane.close_uplink(0)
    rig.from_lan(inner("10.1.0.10", AGENT_HOST))
    rig.plane.handle(rig.lan_inlet.pair[0], 1)
    assert rig.plane.counters()["out_tunnel_down"] == 2
    assert not rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)


def test_an_uplink_that_is_opened_again_with_its_address_keeps_its_tunnels():
    """A new gateway or MTU is no reason to lose what is in the queues."""
    rig = registered()
    rig.from_tunnel(inner(AGENT_HOST, "10.1.0.10"))
    rig.plane.open_uplink(0, "wan", LOCAL, 1400)
    rig.from_lan(inner("10.1.0.10", AGENT_HOST))
    rig.turn()
    assert len(rig.to_lan()) == len(rig.to_tunnels()) == 1


def test_what_the_control_plane_sends_does_not_queue_behind_data():
    rig = registered()
    packet = ipv4.build_icmp_echo(HOME, AGENT, False, 1, 1, b"")
    assert rig.plane.send(0, packet)
    assert rig.controls == [(0, AGENT, 434, b"\x04\x04\x00\x00" + packet)]
    assert rig.to_tunnels() == []
    assert not rig.plane.send(7, packet)
    assert rig.plane.own_loss()["send_errors"] == 1


def test_a_plane_with_a_full_table_stays_small():
    """The state beside the pools; the sockets of this test are not counted."""
    gc.collect()
    rig = Rig()
    gc.collect()
    before = gc.mem_alloc()
    full(rig)
    reseal(bytearray(inner("10.1.0.10", AGENT_HOST)))
    gc.collect()
    assert gc.mem_alloc() - before < 24 * 1024


def test_both_ends_of_a_tunnel_that_moved_are_received_from_and_one_is_sent_to():
    """R3.3.6-4: after a move both care-of addresses are accepted; our packets go to the new one."""
    rig = registered()
    plane, moved = rig.plane, address("203.0.113.77")
    peer = address("192.0.2.131")
    assert plane.set_tunnel(1, 0, LOCAL, moved, 434, 1468, peer, (0, PEER, 40000))
    back = inner("10.3.0.10", "10.1.0.10")
    echo = ipv4.build_icmp_echo(peer, HOME, False, 1, 2, b"token")
    rig.from_tunnel(back, moved)
    rig.from_tunnel(back, PEER, 40000)
    rig.from_tunnel(echo, PEER, 40000)
    rig.from_tunnel(back, PEER, 434)
    rig.from_tunnel(inner("10.4.0.10", "10.1.0.10"), PEER, 40000)
    rig.from_lan(inner("10.1.0.10", "10.3.0.10"))
    plane.handle(rig.lan_inlet.pair[0], 1)
    micropython.heap_lock()
    plane.handle(rig.uplink_inlet.pair[0], 1)
    micropython.heap_unlock()
    counters = plane.counters()
    assert rig.to_lan() == [ETHERNET + back] * 2
    assert [remote for remote, _ in rig.to_tunnels()] == [moved]
    assert counters["in_unknown_tunnel_end"] == counters["in_unconfirmed_source"] == 1
    # Under the heap lock there is no room for it: counted, not raised.
    assert counters["in_control_overflow"] == 1 and plane.user_rx(1) == 2
    rig.from_tunnel(echo, PEER, 40000)
    rig.turn()
    assert plane.next_control() == (1, echo, PEER, 40000, 0)
    # Neither end is a place to tunnel to.
    rig.from_lan(inner("10.1.0.10", "203.0.113.10"))
    rig.turn()
    assert plane.counters()["out_tunnel_end_destination"] == 1
    # The time is over: the same tunnel, without its old end.
    assert plane.set_tunnel(1, 0, LOCAL, moved, 434, 1468, peer)
    rig.from_tunnel(back, PEER, 40000)
    rig.turn()
    assert plane.counters()["in_unknown_tunnel_end"] == 2 and rig.to_lan() == []


def test_the_other_end_may_be_the_home_agent_by_another_uplink_and_goes_with_it():
    """R3.3.6-4: what the home agent sends to the new address before its reply came is taken."""
    rig = registered()
    plane = rig.plane
    second = Inlet(UPLINK_RECORD, 32)
    rig.uplink_inlet, first = second, rig.uplink_inlet
    plane.open_uplink(1, "lte", address("198.51.100.99"), 1500)
    assert plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT, (1, AGENT, 434))
    back = inner(AGENT_HOST, "10.1.0.10")

    def arrives(inlet):
        inlet.feed(outer(back))
        plane.handle(inlet.pair[0], 1)
        return bool(rig.to_lan())

    assert arrives(first) and arrives(second)
    plane.close_uplink(1)
    second = rig.uplink_inlet = Inlet(UPLINK_RECORD, 32)
    plane.open_uplink(1, "lte", address("198.51.100.99"), 1500)
    assert arrives(first) and not arrives(second)
    assert plane.counters()["in_home_agent_port"] == 1


def test_a_control_packet_of_another_socket_meets_the_same_checks():
    """The kernel's filter gives them a queue of their own; who may send what stays the same."""
    rig = registered()
    plane = rig.plane
    peer = address("192.0.2.131")
    echo = ipv4.build_icmp_echo(peer, HOME, False, 1, 2, b"token")
    ping = ipv4.build_icmp_echo(address(AGENT_HOST), HOME, False, 1, 2, b"ping")
    for packet, source, port in (
        (echo, PEER, 434),
        (echo, PEER, 40000),
        (ping, AGENT, 434),
        (ping, PEER, 434),
        (bytes(20), PEER, 434),
    ):
        plane.take(0, outer(packet, source, port))
    assert plane.next_control() == (1, echo, PEER, 434, 0) and plane.next_control() is None
    assert plane.next_stray() == (0, PEER, 40000, LOCAL, b"\x04\x04\x00\x00" + echo)
    assert rig.to_lan() == [ETHERNET + ping]
    counters = plane.counters()
    assert counters["in_unconfirmed_source"] == counters["in_bad_header"] == 1
    loss = plane.own_loss()
    assert loss["received"] == loss["handled"] == 5
