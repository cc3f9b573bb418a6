"""The DHCP server of a LAN port: RFC 2131's exchanges, told by a client written for this test."""

import pytest

from tests.lan.conftest import ALL, MAC, OURS, arp, checksum, ethernet, ipv4

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
NONE = bytes(4)
LIMITED = b"\xff" * 4
OTHER_MAC = bytes.fromhex("020000000099")
RELAY = bytes((10, 1, 0, 200))
RELAY_MAC = bytes.fromhex("0200000000c8")


def host(last: int) -> bytes:
    return bytes((10, 1, 0, last))


def mac(i: int) -> bytes:
    return bytes((2, 0, 0, 1, i >> 8, i & 255))


def office_of(rig, path):
    """Return a function that makes a rig with a server whose file is in `path`."""

    def make(first: int = 100, last: int = 109, **options):
        dhcp = {
            "first": host(first),
            "last": host(last),
            "lease_s": 3600,
            "dns": [],
            "mtu": None,
            "reservations": {},
            "file": str(path / "leases"),
        }
        dhcp.update(options)
        one = rig(dhcp=dhcp)
        one.run(10)
        one.wire.clear()
        return one

    return make


@pytest.fixture
def office(rig, tmp_path):
    return office_of(rig, tmp_path)


class Client:
    """One DHCP client; keeps what the server says."""

    def __init__(self, one, i: int = 1, **options) -> None:
        self.one = one
        self.mac = mac(i)
        self.xid = bytes((9, 9, i >> 8, i & 255))
        self.options = options

    def send(
        self,
        kind: int,
        options: tuple = (),
        ciaddr: bytes = NONE,
        giaddr: bytes = NONE,
        flags: int = 0,
        destination: bytes = LIMITED,
    ) -> None:
        """One message, by broadcast or to the server."""
        head = b"\x01\x01\x06\x00" + self.xid + bytes(2) + flags.to_bytes(2, "big")
        head += ciaddr + NONE + NONE + giaddr + self.mac + bytes(10) + bytes(192)
        body = b"\x63\x82\x53\x63" + bytes((53, 1, kind))
        for code, value in tuple(options) + tuple(self.options.items()):
            code = {"client": 61, "relay": 82}.get(code, code)
            body += bytes((code, len(value))) + value
        data = head + body + b"\xff"
        source = ciaddr if giaddr == NONE else giaddr
        packet = udp(source, destination, 67 if giaddr != NONE else 68, 67, data)
        to = ALL if destination == LIMITED else MAC
        self.one.chip.frame_in(ethernet(to, self.mac, packet))
        assert self.one.read() == []

    def answers(self, wait: float = 1.0) -> list[dict]:
        """What the server has sent to this client's transaction."""
        self.one.run(wait)
        found = [parsed(frame) for frame in self.one.wire]
        return [each for each in found if each and each["xid"] == self.xid]

    def answer(self, wait: float = 1.0) -> dict:
        """Its only answer."""
        got = self.answers(wait)
        assert len(got) == 1, got
        self.one.wire.clear()
        return got[0]

    def lease(self, **more) -> bytes:
        """The whole exchange; returns the address."""
        self.send(DISCOVER, **more)
        offer = self.answer()
        assert offer["kind"] == OFFER
        self.send(REQUEST, ((50, offer["yiaddr"]), (54, offer[54])), **more)
        ack = self.answer(0)
        assert (ack["kind"], ack["yiaddr"]) == (ACK, offer["yiaddr"])
        return ack["yiaddr"]


def udp(source: bytes, destination: bytes, sport: int, dport: int, data: bytes) -> bytes:
    head = sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    return ipv4(source, destination, 17, head + (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data)


def parsed(frame: bytes) -> dict | None:
    """A message of the server, checked; None: another frame."""
    if frame[12:14] != b"\x08\x00" or frame[23] != 17:
        return None
    length = int.from_bytes(frame[16:18], "big")
    packet = frame[14 : 14 + length]
    assert checksum(packet[:20]) == 0
    pseudo = packet[12:20] + b"\0\x11" + packet[24:26]
    assert checksum(pseudo + packet[20:]) == 0
    data = packet[28:]
    assert data[:3] == b"\x02\x01\x06" and data[236:240] == b"\x63\x82\x53\x63"
    assert len(data) >= 300
    found = {
        "to": frame[:6],
        "destination": packet[16:20],
        "ports": (packet[20:22], packet[22:24]),
        "xid": data[4:8],
        "flags": data[10:12],
        "ciaddr": data[12:16],
        "yiaddr": data[16:20],
        "giaddr": data[24:28],
        "mac": data[28:34],
    }
    at = 240
    while data[at] != 255:
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    assert not any(data[at + 1 :])
    found["kind"] = found[53][0]
    return found


def status(one) -> dict:
    return one.port.status()["dhcp"]


def test_a_client_gets_an_address_and_what_it_needs_to_use_it(office):
    """RFC 2131 3.1, tables 3 and 5."""
    one = office(dns=[host(2), host(3)], mtu=1468, lease_s=7200)
    client = Client(one)
    client.send(DISCOVER)
    offer = client.answer()
    assert offer["kind"] == OFFER
    assert 100 <= offer["yiaddr"][3] <= 109
    assert offer[54] == OURS and offer[1] == b"\xff\xff\xff\0" and offer[3] == OURS
    assert offer[28] == host(255)
    assert offer[6] == host(2) + host(3)
    assert offer[26] == (1468).to_bytes(2, "big")
    assert [int.from_bytes(offer[code], "big") for code in (51, 58, 59)] == [7200, 3600, 6300]
    assert (offer["to"], offer["destination"]) == (client.mac, offer["yiaddr"])
    assert offer["ports"] == (b"\0\x43", b"\0\x44")
    client.send(REQUEST, ((50, offer["yiaddr"]), (54, OURS)))
    ack = client.answer(0)
    assert {**offer, "kind": ACK, 53: bytes((ACK,))} == ack
    lease = status(one)["leases"]
    assert lease == [
        {"address": ".".join(map(str, ack["yiaddr"])), "mac": "02:00:00:01:00:01", "left_s": 7200}
    ]


def test_no_address_is_offered_before_arp_was_asked_for_it(office):
    """RFC 2131 3.1 2: the server should probe the address."""
    one = office()
    client = Client(one)
    client.send(DISCOVER)
    asked = [frame[38:42] for frame in one.wire if frame[12:14] == b"\x08\x06"]
    assert len(asked) == 1 and 100 <= asked[0][3] <= 109
    assert client.answers(0.3) == []
    # Somebody has it: another one is asked for, and offered.
    one.chip.frame_in(arp(2, OTHER_MAC, asked[0], MAC, OURS, MAC))
    one.read()
    offer = client.answer()
    assert offer["yiaddr"] != asked[0]
    assert (status(one)["in_use"], status(one)["addresses_bad"]) == (1, 1)


def test_an_address_that_the_client_itself_answers_for_is_offered(office):
    one = office()
    client = Client(one)
    had = client.lease()
    client.send(DISCOVER)
    one.chip.frame_in(arp(2, client.mac, had, MAC, OURS, MAC))
    one.read()
    assert client.answer()["yiaddr"] == had


def test_no_address_twice_and_none_when_all_are_given(office):
    one = office()
    given = [Client(one, i).lease() for i in range(10)]
    assert sorted(given) == [host(i) for i in range(100, 110)]
    late = Client(one, 11)
    late.send(DISCOVER)
    assert late.answers() == []
    assert (status(one)["exhausted"], status(one)["free"]) == (1, 0)
    # The first one whose lease has ended gives way.
    one.run(3601, step=1)
    assert late.lease() in given


def test_our_address_and_reserved_ones_are_given_to_nobody_else(office):
    one = office(1, 4, reservations={mac(50): host(2), mac(51): host(222)})
    assert {Client(one, i).lease() for i in range(2)} == {host(3), host(4)}
    third = Client(one, 3)
    third.send(DISCOVER)
    assert third.answers() == []
    assert Client(one, 50).lease() == host(2)
    assert Client(one, 51).lease() == host(222)
    third.send(REQUEST, ((50, host(2)),))
    assert third.answer()["kind"] == NAK


def test_a_client_keeps_its_address_and_may_wish_for_one(office):
    one = office()
    client = Client(one)
    had = client.lease()
    assert client.lease() == had
    other = Client(one, 2)
    wish = host(100) if had != host(100) else host(101)
    other.send(DISCOVER, ((50, wish),))
    assert other.answer()["yiaddr"] == wish
    third = Client(one, 3)
    third.send(DISCOVER, ((50, had),))
    assert third.answer()["yiaddr"] not in (had, wish)


def test_a_client_is_its_identifier_if_it_says_one(office):
    """RFC 2131 4.2; RFC 6842: the answer carries it too."""
    one = office()
    first = Client(one, 1, client=b"\xffpart-of-a-bridge")
    had = first.lease()
    second = Client(one, 2, client=b"\xffpart-of-a-bridge")
    second.send(DISCOVER)
    offer = second.answer()
    assert offer["yiaddr"] == had and offer[61] == b"\xffpart-of-a-bridge"
    third = Client(one, 1, client=b"\xffanother")
    assert third.lease() != had


def test_a_renewal_extends_the_lease(office):
    """RFC 2131 4.3.2, RENEWING: to the server, ciaddr is the address, no other option."""
    one = office()
    client = Client(one)
    had = client.lease()
    one.run(1800, step=1)
    client.send(REQUEST, ciaddr=had, destination=OURS)
    ack = client.answer(0)
    assert (ack["kind"], ack["yiaddr"], ack["ciaddr"]) == (ACK, had, had)
    assert (ack["to"], ack["destination"]) == (client.mac, had)
    one.run(1800, step=1)
    assert status(one)["leases"][0]["left_s"] in range(1795, 1802)


def test_a_client_that_comes_back_keeps_its_address_without_a_discover(office):
    """RFC 2131 4.3.2, INIT-REBOOT."""
    one = office()
    client = Client(one)
    had = client.lease()
    client.send(REQUEST, ((50, had),))
    assert client.answer(0)["kind"] == ACK
    # One that was on another network, and one that wants what another has.
    client.send(REQUEST, ((50, bytes((192, 168, 1, 5))),))
    refused = client.answer(0)
    assert refused["kind"] == NAK
    assert (refused["to"], refused["destination"]) == (ALL, LIMITED)
    assert refused["yiaddr"] == NONE and 51 not in refused
    other = Client(one, 2)
    other.send(REQUEST, ((50, had),))
    assert other.answer(0)["kind"] == NAK


def test_a_lease_that_the_server_forgot_is_taken_over_if_nobody_else_has_it(office):
    one = office(file=None)
    client = Client(one)
    client.send(REQUEST, ((50, host(104)),))
    assert client.answers(0.2) == []
    assert client.answer()["kind"] == ACK
    other = Client(one, 2)
    other.send(REQUEST, ((50, host(105)),))
    one.chip.frame_in(arp(2, OTHER_MAC, host(105), MAC, OURS, MAC))
    one.read()
    assert other.answer()["kind"] == NAK


def test_an_offer_of_another_server_gives_ours_back(office):
    one = office(100, 100)
    client = Client(one)
    client.send(DISCOVER)
    assert client.answer()["yiaddr"] == host(100)
    client.send(REQUEST, ((50, host(7)), (54, host(250))))
    assert client.answers() == []
    assert Client(one, 2).lease() == host(100)


def test_an_offer_that_nobody_takes_ends(office):
    one = office(100, 100)
    client = Client(one)
    client.send(DISCOVER)
    client.answer()
    other = Client(one, 2)
    other.send(DISCOVER)
    assert other.answers() == []
    one.run(31)
    assert other.lease() == host(100)


def test_a_forger_of_clients_holds_a_bounded_part_of_the_pool(office):
    one = office(100, 199)
    for i in range(300):
        forged = Client(one, i)
        forged.send(DISCOVER)
        one.run(0.1)
    assert 100 - status(one)["free"] <= 16
    assert status(one)["exhausted"] + status(one)["busy"] > 200


def test_a_declined_address_is_not_given_for_ten_minutes(office):
    one = office(100, 100)
    client = Client(one)
    had = client.lease()
    client.send(DECLINE, ((50, had), (54, OURS)))
    assert client.answers(0) == []
    assert status(one)["declined"] == 1
    client.send(DISCOVER)
    assert client.answers() == []
    one.run(601, step=1)
    assert client.lease() == had


def test_a_released_address_is_free_and_its_owner_gets_it_again(office):
    one = office(100, 101)
    client = Client(one)
    had = client.lease()
    # Another client cannot release it.
    Client(one, 2).send(RELEASE, ((54, OURS),), ciaddr=had, destination=OURS)
    assert len(status(one)["leases"]) == 1
    client.send(RELEASE, ((54, OURS),), ciaddr=had, destination=OURS)
    assert client.answers() == []
    assert status(one)["leases"] == []
    assert Client(one, 3).lease() != had
    assert client.lease() == had


def test_inform_gets_the_options_and_no_lease(office):
    """RFC 2131 4.3.5."""
    one = office(dns=[host(2)])
    client = Client(one)
    client.send(INFORM, ciaddr=host(33))
    ack = client.answer(0)
    assert (ack["kind"], ack["yiaddr"], ack["destination"]) == (ACK, NONE, host(33))
    assert ack[6] == host(2)
    assert not {51, 58, 59} & set(ack)
    assert status(one)["leases"] == []


def test_a_client_that_cannot_take_unicast_gets_a_broadcast(office):
    one = office()
    client = Client(one)
    client.send(DISCOVER, flags=0x8000)
    offer = client.answer()
    assert (offer["to"], offer["destination"]) == (ALL, LIMITED)
    assert offer["flags"] == b"\x80\0"


def test_a_relay_of_our_subnet_gets_the_answer_with_its_option(office):
    """RFC 2131 4.1 and RFC 3046 2.2: to port 67 of giaddr, option 82 as it came and last."""
    one = office()
    one.chip.frame_in(arp(1, RELAY_MAC, RELAY, bytes(6), OURS))
    one.read()
    one.wire.clear()
    client = Client(one, 1, relay=b"\x01\x04port")
    client.send(DISCOVER, giaddr=RELAY, destination=OURS)
    offer = client.answer()
    assert (offer["to"], offer["destination"]) == (RELAY_MAC, RELAY)
    assert offer["ports"][1] == b"\0\x43"
    assert (offer["giaddr"], offer[82]) == (RELAY, b"\x01\x04port")
    assert list(offer)[-2] == 82
    client.send(REQUEST, ((50, host(9)),), giaddr=RELAY, destination=OURS)
    refused = client.answer(0)
    assert (refused["kind"], refused["flags"], refused["destination"]) == (NAK, b"\x80\0", RELAY)
    # There is no pool for a relay of another subnet.
    client.send(DISCOVER, giaddr=bytes((10, 9, 0, 1)), destination=OURS)
    assert client.answers() == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:239],
        lambda data: b"\x02" + data[1:],
        lambda data: data[:1] + b"\x06" + data[2:],
        lambda data: data[:236] + b"\0\0\0\0" + data[240:],
        lambda data: data[:240] + b"\xff",
        lambda data: data[:240] + bytes((53, 1, 99, 255)),
        lambda data: data[:240] + bytes((53, 9, 1)),
        lambda data: data[:240] + bytes((53, 1, 3, 50, 2, 1, 1, 255)),
        lambda data: data[:240] + bytes((53,)),
    ],
)
def test_what_is_no_request_is_counted_and_no_more(office, damage):
    one = office()
    data = (
        b"\x01\x01\x06\x00" + bytes(24) + mac(1) + bytes(202) + b"\x63\x82\x53\x63\x35\x01\x01\xff"
    )
    packet = udp(NONE, LIMITED, 68, 67, damage(data))
    one.chip.frame_in(ethernet(ALL, mac(1), packet))
    assert one.read() == []
    one.run(1)
    assert one.wire == []
    assert status(one)["bad"] == 1


# The file.


def test_leases_outlive_a_restart_and_begin_anew(office, tmp_path):
    one = office()
    clients = [Client(one, i) for i in range(3)]
    had = [client.lease() for client in clients]
    one.port.close()
    again = office()
    leases = status(again)["leases"]
    assert sorted(lease["address"] for lease in leases) == sorted(
        ".".join(map(str, each)) for each in had
    )
    # Nobody knows how long the power was off.
    assert all(lease["left_s"] in range(3580, 3601) for lease in leases)
    for i, address in enumerate(had):
        fresh = Client(again, i)
        fresh.send(REQUEST, ((50, address),))
        assert fresh.answer(0)["kind"] == ACK
    assert sorted(path.name for path in tmp_path.iterdir()) == ["leases"]


def test_flash_is_written_rarely_and_never_for_renewals(office):
    one = office(100, 199)
    clients = [Client(one, i) for i in range(60)]
    had = [client.lease() for client in clients]
    one.run(15)
    writes = status(one)["writes"]
    assert writes == 1
    one.run(320, step=1)
    assert status(one)["writes"] == 2
    for _ in range(5):
        for client, address in zip(clients, had, strict=True):
            client.send(REQUEST, ciaddr=address, destination=OURS)
        one.run(400, step=1)
    assert status(one)["writes"] == 2


def test_a_file_that_is_cut_or_of_another_pool_does_no_harm(office, tmp_path):
    one = office()
    had = Client(one).lease()
    one.port.close()
    whole = (tmp_path / "leases").read_text()
    for content in (whole[:-5], "", "rubbish\n", whole.replace(" ", " x", 1), whole + "9 zz\n"):
        (tmp_path / "leases").write_text(content)
        again = office()
        assert Client(again, 7).lease()
    (tmp_path / "leases").write_text(whole)
    other = office(20, 29)
    assert status(other)["leases"] == []
    assert had[3] >= 100


def test_a_disk_that_refuses_is_counted_and_service_goes_on(office, tmp_path):
    one = office(file=str(tmp_path / "absent" / "leases"))
    Client(one).lease()
    one.run(20)
    assert status(one)["write_errors"] == 1
    assert Client(one, 2).lease()
