"""DSCP and ECN through the tunnel, RFC 6040: out as the inner packet has them, in by the table."""

import micropython
from plane_rig import AGENT, ETHERNET, LOCAL, Rig, inner, marked, outer

from haaro.wire import ipv4
from haaro.wire.ipv4 import address

AGENT_HOST = "10.0.0.10"
NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
EF = 0xB8

# RFC 6040 4.2, figure 4: {inner: what leaves for an outer Not-ECT, ECT(0), ECT(1), CE}
DECAPSULATED = {
    NOT_ECT: (NOT_ECT, NOT_ECT, NOT_ECT, None),
    ECT_0: (ECT_0, ECT_0, ECT_1, CE),
    ECT_1: (ECT_1, ECT_1, ECT_1, CE),
    CE: (CE, CE, CE, CE),
}


def registered(**kwargs):
    rig = Rig(**kwargs)
    assert rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)
    rig.plane.swap([(bytes(4), 0, 0, -1)], [])
    return rig


def test_decapsulation_is_the_table_of_rfc_6040_4_2():
    """Each pair of fields, with a DSCP inside that stays and one outside that is not taken."""
    for step in (0, 1):
        rig = registered(ttl_step=step)
        for inside, row in DECAPSULATED.items():
            for outside, wanted in zip((NOT_ECT, ECT_0, ECT_1, CE), row):
                # Over many checksums, also those that carry.
                for host in range(1, 25):
                    packet = marked(inner(AGENT_HOST, "10.1.0.%d" % host), EF | inside)
                    before = rig.plane.counters()
                    rig.uplink_inlet.feed(outer(packet, tos=0x28 | outside))
                    rig.turn()
                    if wanted is None:
                        assert rig.to_lan() == []
                        assert rig.changed(before) == {"in_congestion_unmarked": 1}
                        continue
                    frame = rig.to_lan()[0]
                    assert frame[:14] == ETHERNET and frame[15] == EF | wanted, (inside, outside)
                    assert ipv4.checksum(frame, 14, 20) == 0
                    assert frame[34:] == packet[20:] and frame[22] == 64 - step


def test_encapsulation_copies_dscp_and_ecn():
    """RFC 6040 4.1, normal mode: also CE; fragments as the packet they are of."""
    rig = registered()
    for tos in (0, EF | ECT_0, CE, ECT_1, 0x28, 0):
        for octets in (64, 1500):
            rig.from_lan(marked(inner("10.1.0.10", AGENT_HOST, octets), tos))
            rig.turn()
            assert rig.tos == tos
            packets = [data[4:] for _, data in rig.to_tunnels()]
            assert len(packets) == (2 if octets == 1500 else 1)
            assert all(packet[1] == tos for packet in packets)


def test_the_socket_is_told_once_a_run():
    """The option costs a call: a run of packets with one TOS has it once."""
    rig = registered()
    for tos in (0, EF, EF, EF, ECT_0, ECT_0, 0, 0):
        rig.from_lan(marked(inner("10.1.0.10", AGENT_HOST), tos))
    micropython.heap_lock()
    rig.turn()
    micropython.heap_unlock()
    assert rig.marks == 3 and len(rig.to_tunnels()) == 8


def test_a_new_socket_marks_nothing_yet():
    """A tunnel that moved has a new socket: the next packet with the old TOS tells it."""
    rig = registered()
    packet = marked(inner("10.1.0.10", AGENT_HOST), EF)
    rig.from_lan(packet)
    rig.turn()
    moved = address("203.0.113.77")
    assert rig.plane.set_tunnel(0, 0, LOCAL, moved, 434, 1468, AGENT)
    rig.from_lan(packet)
    rig.turn()
    assert rig.marks == 2
