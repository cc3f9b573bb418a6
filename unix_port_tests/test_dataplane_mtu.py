"""Path MTU as soft state, who is believed about it, and TCP told to fit (MSS)."""

import random

import micropython
from plane_rig import AGENT, HOME, LOCAL, Rig, inner

from haaro.dataplane import leaves, path_mtu
from haaro.wire import ipv4
from haaro.wire.ipv4 import address

try:
    from haaro.dataplane import leaves_viper
except (ImportError, SyntaxError):
    leaves_viper = leaves

AGENT_HOST = "10.0.0.10"
PEER = address("203.0.113.10")
SYN, ACK = 2, 16


class Clock:
    """Stands for the module time."""

    now = 0

    def ticks_ms(self):
        return self.now

    def ticks_diff(self, a, b):
        return a - b


def registered(mtu=1468, clamp=True):
    rig = Rig()
    assert rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, mtu, AGENT)
    assert rig.plane.set_tunnel(1, 0, LOCAL, PEER, 4340, mtu, address("192.0.2.131"))
    network = address("10.3.0.0")
    rig.plane.swap([(bytes(4), 0, 0, -1), (network, 24, 1, -1)], [(network, 24, 1)])
    rig.plane.clamp_mss(clamp)
    path_mtu.time = Clock()
    return rig


def limit_of(rig, host=AGENT_HOST):
    """Return the longest packet that leaves whole."""
    low, high = 68, 1500
    while low < high:
        middle = (low + high + 1) // 2
        rig.from_lan(inner("10.1.0.10", host, middle, df=True))
        rig.turn()
        rig.to_lan()
        if rig.to_tunnels():
            low = middle
        else:
            high = middle - 1
    return low


def lowered(rig, link=1468):
    """Return {tunnel: MTU} of those whose path takes less than the link."""
    return {tunnel: rig.plane.mtu(tunnel) for tunnel in (0, 1) if rig.plane.mtu(tunnel) != link}


def test_the_path_lowers_one_tunnel_for_ten_minutes():
    """RFC 2003 5.1, RFC 1191 6.3 and D4 of the threats: soft state, told to the sender inside."""
    rig = registered()
    assert limit_of(rig) == 1468
    rig.path_says(1400)
    assert (limit_of(rig), limit_of(rig, "10.3.0.10")) == (1368, 1468)
    assert lowered(rig) == {0: 1368}
    # What may be cut is cut to fit.
    rig.from_lan(inner("10.1.0.10", AGENT_HOST, 1468))
    rig.turn()
    assert [len(data) - 4 for _, data in rig.to_tunnels()] == [1364, 124]
    # The control plane asks for the same again: the path is the same too.
    rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 1468, AGENT)
    rig.path_says(1300, PEER, 4340)
    path_mtu.time.now = 599999
    rig.plane.check()
    assert (limit_of(rig), limit_of(rig, "10.3.0.10")) == (1368, 1268)
    path_mtu.time.now = 600000
    rig.plane.check()
    assert (limit_of(rig), limit_of(rig, "10.3.0.10")) == (1468, 1468)
    assert lowered(rig) == {}


def test_the_sender_inside_is_told_the_mtu_of_the_path():
    """RFC 1191 4, RFC 2003 5.2: from our home address, about its own packet."""
    rig = registered()
    rig.path_says(1400)
    packet = inner("10.1.0.10", AGENT_HOST, 1400, df=True)
    rig.from_lan(packet)
    rig.turn()
    frame = rig.to_lan()[0]
    assert (frame[26:30], frame[30:34]) == (HOME, address("10.1.0.10"))
    assert frame[34:36] == b"\x03\x04" and frame[40] << 8 | frame[41] == 1368
    assert frame[42:] == packet[:28]


def test_it_never_goes_up_nor_under_the_floor():
    """D4 of the threats: 576 at least, whatever is told."""
    rig = registered()
    rig.path_says(900)
    for told in (1400, 901, 900, 1499):
        rig.path_says(told)
    assert lowered(rig) == {0: 868}
    # A second message does not make the first one last longer, a lower one begins anew.
    path_mtu.time.now = 400000
    rig.path_says(900)
    rig.path_says(68, PEER, 4340)
    assert lowered(rig) == {0: 868, 1: 576}
    path_mtu.time.now = 600000
    rig.plane.check()
    assert lowered(rig) == {1: 576}


def test_a_link_that_takes_less_than_the_path_stays_the_limit():
    rig = registered(mtu=1000)
    rig.path_says(1400)
    assert lowered(rig, 1000) == {} and limit_of(rig) == 1000
    rig.path_says(800)
    rig.plane.set_tunnel(0, 0, LOCAL, AGENT, 434, 700, AGENT)
    assert limit_of(rig) == 700


def test_an_old_router_tells_no_mtu():
    """RFC 1191 7.1: the next plateau under the length it quotes."""
    rig = registered()
    rig.path_says(0)
    assert lowered(rig) == {0: 1492 - 32}
    rig.path_says(0, length=1492)
    assert lowered(rig) == {0: 1006 - 32}


def test_a_forged_message_changes_nothing():
    """D4 of the threats: the quote must be of a live tunnel, and of a packet that was too long."""
    rig = registered()
    other = address("203.0.113.99")
    for forged in (
        {"remote": other},
        {"local": other},
        {"port": 435},
        {"port": 4340},
        {"remote": PEER},
        {"remote": PEER, "port": 435},
        {"length": 600},
        {"length": 1000},
        {"mtu": 1500},
        {"mtu": 65535},
    ):
        told = forged.pop("mtu", 1000)
        rig.path_says(told, **forged)
        assert lowered(rig) == {}, forged
    rig.plane.delete_tunnel(1)
    rig.path_says(1000, PEER, 4340)
    assert lowered(rig) == {} and limit_of(rig) == 1468


def test_a_tunnel_that_moved_has_another_path():
    rig = registered()
    rig.path_says(1000)
    assert rig.plane.set_tunnel(0, 0, LOCAL, address("203.0.113.77"), 434, 1468, AGENT)
    assert limit_of(rig) == 1468 and lowered(rig) == {}


def tcp(options, flags=SYN, source="10.1.0.10", destination=AGENT_HOST, data=b"", offset=0):
    """Return a TCP packet with a right checksum."""
    header = bytearray(20) + options
    assert len(options) % 4 == 0
    header[0:4] = b"\x13\x88\x13\x89"
    header[12] = len(header) << 2
    header[13] = flags
    segment = bytes(header) + data
    pseudo = address(source) + address(destination) + b"\0\6" + bytes((0, len(segment)))
    total = ipv4.checksum(pseudo + segment, 0, len(pseudo) + len(segment))
    segment = segment[:16] + bytes((total >> 8, total & 255)) + segment[18:]
    return inner(source, destination, protocol=6, payload=segment, offset=offset)


def right(packet):
    """Return whether the checksums of header and segment are right."""
    pseudo = packet[12:20] + b"\0\6" + bytes((0, len(packet) - 20))
    return (
        ipv4.checksum(packet, 0, 20)
        == 0
        == ipv4.checksum(pseudo + packet[20:], 0, len(pseudo) + len(packet) - 20)
    )


MSS = b"\2\4\x05\xb4"  # 1460
FITS = b"\2\4\x05\x94"  # 1428
CLAMPED = (
    (MSS, FITS),
    (MSS + b"\1\3\3\7", FITS + b"\1\3\3\7"),
    (b"\4\2\1\1" + MSS, b"\4\2\1\1" + FITS),
    # At an odd place, where the two octets are of two words.
    (b"\1" + MSS + b"\1\1\1", b"\1" + FITS + b"\1\1\1"),
    (b"\3\3\7" + MSS + b"\0", b"\3\3\7" + FITS + b"\0"),
    (b"\1\2\4\xff\xff\1\1\1", b"\1\2\4\x05\x94\1\1\1"),
    (b"\2\4\xff\xff", FITS),
    (b"\2\4\x05\x95", FITS),
    # Nothing to lower, or nothing that can be read.
    (FITS, FITS),
    (b"\2\4\x02\x18", b"\2\4\x02\x18"),
    (b"", b""),
    (b"\1\1\1\1", b"\1\1\1\1"),
    (b"\0\1\1\1" + MSS, b"\0\1\1\1" + MSS),
    (b"\2\3\x05\xb4", b"\2\3\x05\xb4"),
    (b"\2\0\x05\xb4" + MSS, b"\2\0\x05\xb4" + MSS),
    (b"\3\1\1\1" + MSS, b"\3\1\1\1" + MSS),
    (b"\3\x09\1\1" + MSS, b"\3\x09\1\1" + MSS),
    (b"\1\1\1\2", b"\1\1\1\2"),
)


def test_a_syn_asks_for_what_fits_both_ways():
    """RFC 6691 2, RFC 1624: MSS = MTU - 40, lowered only, checksum right at even and odd places."""
    rig = registered()
    for given, wanted in CLAMPED:
        for flags in (SYN, SYN | ACK):
            for data in (b"", b"early"):
                out = tcp(given, flags, data=data)
                back = tcp(given, flags, AGENT_HOST, "10.1.0.10", data)
                rig.from_lan(out)
                rig.from_tunnel(back)
                micropython.heap_lock()
                rig.turn()
                micropython.heap_unlock()
                for before, after in (
                    (out, rig.to_tunnels()[0][1][4:]),
                    (back, rig.to_lan()[0][14:]),
                ):
                    assert after[40 : 40 + len(given)] == wanted, (given, after)
                    assert right(after)
                    assert after[:36] + after[38:40] == before[:36] + before[38:40]


def test_the_path_counts_for_the_mss():
    rig = registered()
    rig.path_says(1000)
    rig.from_lan(tcp(MSS))
    rig.turn()
    packet = rig.to_tunnels()[0][1][4:]
    assert packet[42] << 8 | packet[43] == 928 and right(packet)


def test_only_a_beginning_is_changed_and_only_if_wanted():
    rig = registered()
    off = registered(clamp=False)
    for one, packet in (
        (rig, tcp(MSS, ACK)),
        (rig, tcp(MSS, offset=0x2000 | 5)),
        (rig, inner("10.1.0.10", AGENT_HOST, payload=tcp(MSS)[20:])),
        (off, tcp(MSS)),
    ):
        one.from_lan(packet)
        one.turn()
        assert [data[4:] for _, data in one.to_tunnels()] == [packet]


def test_twins_agree_on_options():
    seed = random.getrandbits(30)
    print("seed", seed)
    random.seed(seed)
    choice = random.choice
    for _ in range(4000):
        packet = bytearray(tcp(bytes([choice((0, 1, 2, 2, 3, 4, 5, 8)) for _ in range(20)])))
        packet[3] = choice((len(packet), len(packet), 40, 41, 43, 44, 60, 20))
        packet[32] = choice((0x50, 0xA0, 0xA0, 0xF0, 0x40))
        a, b = bytearray(packet), bytearray(packet)
        leaves.clamp(a, 0, 600)
        leaves_viper.clamp(b, 0, 600)
        assert a == b, (seed, packet.hex())
        # Nothing but the option and the checksum, and nothing past the end.
        end = packet[3]
        assert (a[:36] == packet[:36] and a[end:] == packet[end:]) or end < 44
