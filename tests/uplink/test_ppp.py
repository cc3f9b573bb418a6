"""Our PPP: published octets, a foreign peer, and what goes wrong on a line."""

import hashlib
import os
import struct

import pytest

from haaro.uplink.hdlc import Hdlc
from haaro.uplink.ppp import Ppp
from tests.modem_sim import peer

FLAG, ESCAPE = 0x7E, 0x7D
ALL_ESCAPED, NONE = 0xFFFFFFFF, 0
LCP, PAP, CHAP, IPCP, IP = 0xC021, 0xC023, 0xC223, 0x8021, 0x0021
REQUEST, ACK, NAK, REJECT, TERMINATE, TERMINATE_ACK = 1, 2, 3, 4, 5, 6


def fcs(data: bytes) -> int:
    """RFC 1662 C.2 without its table: bit by bit."""
    value = 0xFFFF
    for octet in data:
        value ^= octet
        for _ in range(8):
            value = value >> 1 ^ 0x8408 if value & 1 else value >> 1
    return value ^ 0xFFFF


def frame(protocol: int, data: bytes, header: bytes = b"\xff\x03") -> bytes:
    """One frame with everything escaped that may be."""
    body = header + struct.pack(">H", protocol) + data
    body += struct.pack("<H", fcs(body))
    out = bytearray((FLAG,))
    for octet in body:
        if octet < 32 or octet in (FLAG, ESCAPE):
            out += bytes((ESCAPE, octet ^ 32))
        else:
            out.append(octet)
    return bytes(out) + bytes((FLAG,))


def frames(octets: bytes) -> list[tuple[int, int, int, bytes]]:
    """(protocol, code, identifier, data) of each frame; the FCS of each must be right."""
    found = []
    for part in octets.split(bytes((FLAG,))):
        plain, escaped = bytearray(), False
        for octet in part:
            if octet == ESCAPE:
                escaped = True
            else:
                plain.append(octet ^ 32 if escaped else octet)
                escaped = False
        if plain:
            assert struct.unpack("<H", plain[-2:])[0] == fcs(bytes(plain[:-2]))
            protocol, code, ident, length = struct.unpack(">2xHBBH", plain[:8])
            found.append((protocol, code, ident, bytes(plain[8 : 4 + length])))
    return found


def control(code: int, ident: int, data: bytes) -> bytes:
    return struct.pack(">BBH", code, ident, 4 + len(data)) + data


class Line:
    """A Ppp whose peer is this test."""

    def __init__(self, user: bytes = b"", password: bytes = b"") -> None:
        self.ppp = Ppp(user, password, os.urandom)
        self.now = 0
        self.ppp.start(0)

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        out = b""
        part = self.ppp.poll_transmit()
        while part:
            out += part
            part = self.ppp.poll_transmit()
        return frames(out)

    def say(self, protocol: int, code: int, ident: int, data: bytes = b"") -> None:
        self.ppp.receive(self.now, frame(protocol, control(code, ident, data)))

    def agree(self, protocol: int, options: bytes = b"", ident: int = 1) -> None:
        """Take its request, and have it take ours."""
        [request] = [each for each in self.sent() if each[:2] == (protocol, REQUEST)][-1:]
        self.say(protocol, ACK, request[2], request[3])
        self.say(protocol, REQUEST, ident, options)

    def up(self, lcp_options: bytes = b"") -> None:
        self.agree(LCP, lcp_options)
        request = [each for each in self.sent() if each[:2] == (IPCP, REQUEST)][-1]
        self.say(IPCP, NAK, request[2], b"\x03\x06\x0a\x01\x02\x03")
        self.agree(IPCP, b"\x03\x06\x0a\x01\x02\x01")
        assert self.ppp.state == "up"
        self.sent()

    def pass_time(self, ms: int) -> None:
        end = self.now + ms
        while self.ppp.next_deadline() is not None and self.ppp.next_deadline() <= end:
            self.now = max(self.now, self.ppp.next_deadline())
            self.ppp.handle_timer(self.now)
        self.now = end


def test_a_frame_of_a_foreign_implementation_is_read():
    """The first frame of slirp 1.0.17, as recorded: MRU 1500, a magic number, PFC and ACFC."""
    got = []
    line = Hdlc(lambda now, end: got.append(bytes(line.frame[14:end])))
    line.receive(
        0,
        bytes.fromhex(
            "7eff7d23c0217d217d217d207d327d217d247d25dc7d257d267c9320d67d277d227d287d227c9e7e"
        ),
    )
    assert got == [bytes.fromhex("ff03c021010100120104 05dc05067c9320d607020802".replace(" ", ""))]


def test_check_value_of_the_fcs():
    """CRC-16/X-25 of "123456789" is 0x906E (catalogue of parametrised CRC algorithms)."""
    line = Hdlc(lambda now, end: None)
    line.send(NONE, b"123456789")
    assert line.poll_transmit(512) == b"~123456789\x6e\x90~"


@pytest.mark.parametrize("data", [bytes(range(256)), b"~}" * 700, b"\x11\x13", b"x"])
@pytest.mark.parametrize("escapes", [ALL_ESCAPED, NONE, 0x000A0000])
def test_what_is_sent_is_received(data, escapes):
    got = []
    there = Hdlc(lambda now, end: got.append(bytes(there.frame[14:end])))
    here = Hdlc(lambda now, end: None)
    assert here.send(escapes, b"\xff\x03\x00\x21", data)
    out = b""
    while here.waiting:
        part = here.poll_transmit(7)
        out += part
        assert there.receive(0, part) is False
    assert got == [b"\xff\x03\x00\x21" + data]
    assert [octet for octet in out if octet < 32 and escapes >> octet & 1] == []


def test_damaged_cut_and_endless_frames_are_dropped_and_the_next_is_taken():
    got = []
    line = Hdlc(lambda now, end: got.append(bytes(line.frame[14:end])))
    good = frame(IP, b"E" * 40)
    damaged = good[:-6] + bytes((good[-6] ^ 1,)) + good[-5:]
    line.receive(0, damaged + good[:20] + b"}~" + b"~~~" + b"x" * 5000 + good)
    assert line.bad_frames == 1
    assert got == [b"\xff\x03\x00\x21" + b"E" * 40]


def test_a_full_output_refuses_a_frame_and_keeps_what_is_there():
    line = Hdlc(lambda now, end: None)
    assert line.send(NONE, b"\xff\x03\x00\x21", b"~" * 1500)
    waiting = line.waiting
    assert not line.send(NONE, b"\xff\x03\x00\x21", b"~" * 1500)
    assert line.waiting == waiting


def test_the_modems_own_words_end_the_call_and_a_packets_do_not():
    line = Line()
    line.up()
    packet = frame(IP, b"\r\nNO CARRIER\r\n")
    line.ppp.receive(0, packet[:-1])
    line.ppp.receive(0, packet[-1:] + b"\r\n+CREG: 0\r\n\r")
    assert line.ppp.state == "up"
    line.ppp.receive(0, b"\nNO CARRIER\r\n")
    assert (line.ppp.state, line.ppp.reason) == ("dead", "the modem lost the call")


def test_options_that_are_not_understood_are_rejected_in_order_and_others_naked():
    line = Line()
    line.sent()
    line.say(
        LCP, REQUEST, 7, bytes.fromhex("0d0306 11040578 0104 0040 0206ffffffff".replace(" ", ""))
    )
    assert line.sent() == [(LCP, REJECT, 7, bytes.fromhex("0d030611040578"))]
    line.say(LCP, REQUEST, 8, bytes.fromhex("01040040 0304c227".replace(" ", "")))
    assert line.sent() == [(LCP, NAK, 8, bytes.fromhex("010405dc0305c22305"))]
    line.say(LCP, REQUEST, 9, bytes.fromhex("010405000304c023"))
    assert line.sent() == [(LCP, ACK, 9, bytes.fromhex("010405000304c023"))]


def test_a_request_whose_lengths_do_not_add_up_is_not_answered():
    line = Line()
    line.sent()
    for bad in ("0100", "01", "0106ff", "0101ff"):
        line.say(LCP, REQUEST, 1, bytes.fromhex(bad))
    assert line.sent() == []


def test_our_requests_are_repeated_and_then_given_up():
    line = Line()
    line.pass_time(60000)
    assert [each[:2] for each in line.sent()] == [(LCP, REQUEST)] * 10
    assert (line.ppp.state, line.ppp.reason) == ("dead", "no PPP peer: LCP is not answered")


def test_an_echoing_line_is_told_from_a_peer():
    line = Line()
    out = line.ppp.poll_transmit()
    line.ppp.receive(0, out)
    assert line.ppp.state == "dead"
    assert line.ppp.reason.startswith("the line echoes")


def test_pap_sends_user_and_password_and_takes_the_verdict():
    """RFC 1334 2.2."""
    line = Line(b"me", b"secret")
    line.agree(LCP, bytes.fromhex("0304c023"))
    protocol, code, ident, data = line.sent()[-1]
    assert (protocol, code, data) == (PAP, REQUEST, b"\x02me\x06secret")
    line.say(PAP, ACK, ident, b"\x00")
    assert line.ppp.state == "network"


def test_a_refused_password_ends_the_call_and_is_not_tried_again():
    line = Line(b"me", b"wrong")
    line.agree(LCP, bytes.fromhex("0304c023"))
    line.say(PAP, NAK, line.sent()[-1][2], b"\x00")
    assert line.ppp.reason == "the network refuses user or password"
    line.pass_time(60000)
    assert line.sent() == []


def test_chap_answers_the_challenge_by_md5_of_identifier_secret_and_challenge():
    """RFC 1994 4.1."""
    line = Line(b"me", b"secret")
    line.agree(LCP, bytes.fromhex("0305c22305"))
    line.sent()
    challenge = bytes(range(16))
    line.say(CHAP, 1, 0x2A, b"\x10" + challenge + b"isp")
    digest = hashlib.md5(b"\x2asecret" + challenge).digest()
    assert line.sent() == [(CHAP, 2, 0x2A, b"\x10" + digest + b"me")]
    line.say(CHAP, 3, 0x2A)
    assert line.ppp.state == "network"


def test_ipcp_takes_the_address_that_it_is_given_and_refuses_compression():
    """RFC 1332 3.3; 3.2 is Van Jacobson's."""
    line = Line()
    line.agree(LCP)
    _, _, ident, data = line.sent()[-1]
    assert data == b"\x03\x06" + bytes(4)
    line.say(IPCP, NAK, ident, b"\x03\x06\x64\x40\x00\x05")
    line.say(IPCP, REQUEST, 1, bytes.fromhex("0206002d0f01030600000000"))
    answers = line.sent()
    assert answers[-1] == (IPCP, REJECT, 1, bytes.fromhex("0206002d0f01"))
    assert answers[0][3] == b"\x03\x06\x64\x40\x00\x05"
    line.say(IPCP, REQUEST, 2, bytes.fromhex("030600000000"))
    # A peer without an address is given one to point at.
    assert line.sent() == [(IPCP, NAK, 2, b"\x03\x06\xc0\x00\x00\x08")]
    line.say(IPCP, ACK, answers[0][2], answers[0][3])
    line.say(IPCP, REQUEST, 3, b"\x03\x06\xc0\x00\x00\x08")
    assert (line.ppp.state, line.ppp.address) == ("up", b"\x64\x40\x00\x05")


def test_the_peers_mru_is_our_mtu():
    line = Line()
    line.up(bytes.fromhex("01040578"))
    assert line.ppp.mtu == 1400


def test_other_protocols_are_rejected_by_name_and_ipv4_goes_on():
    line = Line()
    line.up()
    line.ppp.receive(0, frame(0x8057, control(REQUEST, 1, b"")))
    [(protocol, code, _, data)] = line.sent()
    assert (protocol, code, data) == (LCP, 8, b"\x80\x57\x01\x01\x00\x04")
    line.ppp.receive(0, frame(IP, b"E" * 21))
    assert line.ppp.next_packet() == b"E" * 21
    assert line.ppp.next_packet() is None


def test_compressed_headers_are_read_though_not_asked_for():
    line = Line()
    line.up()
    body = b"\x21" + b"E" * 24
    line.ppp.receive(0, b"~" + body + struct.pack("<H", fcs(body)) + b"~")
    assert line.ppp.next_packet() == b"E" * 24


def test_packets_before_and_after_the_link_is_up_go_nowhere():
    line = Line()
    line.ppp.send_packet(b"E" * 20)
    line.ppp.receive(0, frame(IP, b"E" * 20))
    assert [each[0] for each in line.sent()] == [LCP]
    assert line.ppp.next_packet() is None


def test_an_echo_request_is_answered_with_our_magic_number():
    line = Line()
    magic = line.sent()[0][3][-4:]
    line.ppp.start(0)
    line.up()
    line.say(LCP, 9, 5, b"\x01\x02\x03\x04data")
    [(protocol, code, ident, data)] = line.sent()
    assert (protocol, code, ident, data[4:]) == (LCP, 10, 5, b"data")
    assert data[:4] != magic  # each start has its own


def test_a_silent_peer_is_given_up_after_twenty_seconds():
    line = Line()
    line.up()
    line.pass_time(19999)
    assert line.ppp.state == "up"
    line.pass_time(1)
    assert (line.ppp.state, line.ppp.reason) == ("dead", "the peer does not answer")


def test_a_peer_that_answers_echoes_lives_on():
    line = Line()
    line.up()
    for _ in range(20):
        line.pass_time(5000)
        for protocol, code, ident, _ in line.sent():
            assert (protocol, code) == (LCP, 9)
            line.say(LCP, 10, ident, bytes(4))
    assert line.ppp.state == "up"


def test_the_peers_leave_is_acknowledged():
    line = Line()
    line.up()
    line.say(LCP, TERMINATE, 3)
    assert line.sent() == [(LCP, TERMINATE_ACK, 3, b"")]
    assert line.ppp.reason == "the network ended the call"


def test_our_leave_is_said_twice_and_then_taken_without_an_answer():
    line = Line()
    line.up()
    line.ppp.stop(line.now)
    line.pass_time(2000)
    assert [each[:2] for each in line.sent()] == [(LCP, TERMINATE)] * 2
    assert line.ppp.state == "dead"


def test_a_renegotiation_of_the_peer_is_followed():
    """RFC 1661 4.3: a request while open begins anew."""
    line = Line()
    line.up()
    line.say(LCP, REQUEST, 9, b"")
    assert line.ppp.state == "establish"
    answers = line.sent()
    assert [each[:2] for each in answers] == [(LCP, REQUEST), (LCP, ACK)]
    line.say(LCP, ACK, answers[0][2], answers[0][3])
    assert line.ppp.state == "network"


@pytest.mark.skipif(bool(peer.why_not_here()), reason=str(peer.why_not_here()))
def test_a_foreign_peer_gives_an_address_and_answers_a_ping():
    """slirp-fullbolt answers echo requests to its own address 10.0.2.2."""
    network = peer.Peer()
    ppp = Ppp(b"", b"", os.urandom)
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 36, 1, 0, 64, 1, 0, b"\x0a\x00\x02\x0f", b"\x0a\x00\x02\x02"
    )
    header = header[:10] + struct.pack(">H", _sum(header)) + header[12:]
    echo = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + b"pingping"
    ping = header + echo[:2] + struct.pack(">H", _sum(echo)) + echo[4:]
    answer = None
    ppp.start(0)
    try:
        for now in range(0, 5000, 10):
            out = ppp.poll_transmit()
            while out:
                network.write(out)
                out = ppp.poll_transmit()
            ppp.receive(now, network.read(0.01))
            ppp.handle_timer(now)
            answer = ppp.next_packet()
            if answer:
                break
            if ppp.state == "up" and now % 500 == 0:
                ppp.send_packet(ping)
    finally:
        network.close()
    assert ppp.address == b"\x0a\x00\x02\x0f"
    assert answer is not None
    assert answer[12:20] == b"\x0a\x00\x02\x02\x0a\x00\x02\x0f"
    assert answer[20:22] == b"\x00\x00" and answer[28:] == b"pingping"


def _sum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
