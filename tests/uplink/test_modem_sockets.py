"""The modem's own UDP socket in place of PPP, against the simulated stack, on a fake clock."""

import random
import types
from pathlib import Path

import pytest

from haaro.platform.linux import LinuxMachine
from haaro.uplink import base, modem_sockets, socket_line
from haaro.uplink.socket_modem import SocketModem
from haaro.wire import ipv4
from tests.modem_sim.modem import Behaviour
from tests.uplink.bench import Bench

OURS, PEER = bytes([10, 64, 0, 2]), bytes([203, 0, 113, 9])
EVERY_OCTET = bytes(range(256))
NASTY = [
    EVERY_OCTET,
    b"\r\nOK\r\n",
    b"\r\nSEND OK\r\n\r\nERROR\r\n",
    b"> ",
    b"\r\n> \r\n",
    b'\r\n+QIURC: "closed",0\r\n+QIURC: "pdpdeact",1\r\n',
    b'\r\n+QIRD: 1000,"203.0.113.9",434\r\n',
    b"AT+CFUN=4\r",
    b"+++",
    b"\x1a\x1b\x00",
    b"\n",
    EVERY_OCTET * 5 + b"\r\nOK\r\n" * 30,
]


def packet(payload, port=4340, dst=PEER):
    return ipv4.build_udp(OURS, dst, 434, port, payload)


class Socket(Bench):
    """A driver with sockets on a modem that has them."""

    kind = SocketModem

    def __init__(self, mux="", name="ec25", **behaviour):
        how = Behaviour(stack="10.64.0.2", mux=mux, **behaviour)
        super().__init__(how, profile=name, mux=bool(mux))

    @property
    def stack(self):
        return self.sim.stack

    @property
    def faults(self):
        return self.sim.stack.faults

    def up(self, within_ms=10000):
        self.start()
        self.until_up(within_ms)
        return self

    def send(self, payload, port=4340, within_ms=30000):
        """Give it a packet as soon as it takes one, until it has left."""
        self.until(lambda: self.driver.idle, within_ms)
        self.driver.send_packet(packet(payload, port))
        self.until(lambda: self.driver.idle, within_ms)

    def arrive(self, payload, port=4340):
        self.stack.arrive(self.now, payload, "203.0.113.9", port)

    def came(self):
        """(payload, address, port) of what the driver has given upward, checked."""
        found = []
        for octets in self.packets:
            ip = ipv4.parse_ipv4(octets)
            assert (ip.dst, ip.protocol) == (OURS, ipv4.PROTOCOL_UDP)
            sport, dport, data = ipv4.parse_udp(octets, ip)
            assert dport == 434
            found.append((data, ipv4.text(ip.src), sport))
        return found


@pytest.fixture(params=["", "yes"], ids=["plain", "mux"])
def made(request):
    return Socket(request.param).up()


# --- the way up


@pytest.mark.parametrize("name", ["ec25", "bg96", "bg770"])
def test_the_socket_is_opened_at_port_434_and_nothing_is_dialled(name):
    made = Socket(name=name).up()
    assert made.driver.address == OURS and made.driver.mtu == 1488
    assert made.stack.port == 434 and made.stack.apn == "internet"
    assert not [each for each in made.sim.commands if each.startswith(("ATD", "AT+CGDCONT"))]
    states = [state for state, _ in made.seen]
    assert states == [base.CONNECTING] * (len(states) - 1) + [base.UP]


def test_user_and_password_are_told_with_the_apn():
    made = Socket()
    made.settings.update(user="me", password="secret{0}")
    made.driver = made._driver()
    made.up()
    assert 'AT+QICSGP=1,1,"internet","me","secret{0}",3' in made.sim.commands


def test_without_apn_and_user_the_modems_own_stay():
    made = Socket()
    made.settings.update(apn="")
    made.driver = made._driver()
    made.up()
    assert not [each for each in made.sim.commands if "QICSGP" in each]


def test_a_router_that_starts_anew_finds_its_own_socket_open_and_has_it_again(made):
    made.restart()
    made.until_up(20000)
    made.send(b"again")
    assert made.stack.sent[-1] == (b"again", "203.0.113.9", 4340)


def test_a_refused_apn_is_tried_again_more_rarely():
    made = Socket(apn="other")
    made.start()
    made.until_failed("AT+QIACT (ERROR)", 5000)
    made.run(20000)
    assert made.sim.commands.count("AT+QIACT=1") == 3, "after 5 and after 10 s"
    made.sim.behaviour.apn = None
    made.until_up(60000)


def test_a_refused_socket_is_said_with_its_number():
    made = Socket()
    made.faults.open_result = 554
    made.start()
    made.until_failed("+QIOPEN: 0,554", 5000)
    made.faults.open_result = 0
    made.until_up(10000)


def test_a_modem_whose_socket_never_opens_is_not_waited_for_forever(monkeypatch):
    made = Socket()
    monkeypatch.setattr(made.stack, "_open", lambda now, text: made.stack._final(now, True))
    made.start()
    made.until_failed("does not say that its socket is open", 200_000)
    monkeypatch.undo()
    made.until_up(20000)


# --- payloads


@pytest.mark.parametrize("payload", NASTY, ids=range(len(NASTY)))
def test_any_octets_pass_both_ways(made, payload):
    made.arrive(payload, 65535)
    made.send(payload, 1)
    made.until(lambda: len(made.packets) == 1, 5000)
    assert made.stack.sent == [(payload, "203.0.113.9", 1)]
    assert made.came() == [(payload, "203.0.113.9", 65535)]
    assert made.driver.state == base.UP and made.driver.recoveries == 0


def test_the_largest_datagram_passes_and_no_larger_one_is_taken(made):
    made.send(bytes(1460))
    made.arrive(bytes(1460))
    made.until(lambda: len(made.packets) == 1, 5000)
    assert len(made.stack.sent[0][0]) == 1460 == made.driver.mtu - 28


@pytest.mark.parametrize("size", [1, 2, 7])
def test_answers_in_small_pieces_are_understood(monkeypatch, size):
    """A UART gives what has come so far: a piece ends anywhere."""
    made = Socket().up()
    whole = made.driver.receive

    def pieces(now, octets):
        for at in range(0, len(octets), size):
            whole(now, octets[at : at + size])

    monkeypatch.setattr(made.driver, "receive", pieces)
    for payload in NASTY[:8]:
        made.arrive(payload)
        made.send(payload)
    made.until(lambda: len(made.packets) == 8, 5000)
    assert [each[0] for each in made.came()] == [each[0] for each in made.stack.sent] == NASTY[:8]


@pytest.mark.parametrize("line", ['+QIURC: "recv",0', "+CEREG: 1", "RING", "OK"])
def test_lines_said_in_the_middle_of_an_answer_change_nothing(line):
    """ "OK" before SEND OK is not its end: it is an answer that came late."""
    made = Socket().up()
    made.faults.between = line
    if line == "OK":
        # Before +QIRD it would be that of an earlier command.
        made.stack._read, read = lambda now: None, made.stack._read
        made.send(b"one")
        made.stack._read = read
        assert made.stack.sent == [(b"one", "203.0.113.9", 4340)]
        return
    for i in range(5):
        made.arrive(b"down %d" % i)
        made.send(b"up %d" % i)
    made.until(lambda: len(made.packets) == 5, 5000)
    assert [each[0] for each in made.came()] == [b"down %d" % i for i in range(5)]
    assert [each[0] for each in made.stack.sent] == [b"up %d" % i for i in range(5)]


def test_sending_and_reading_take_turns():
    """A flood from the network does not keep the router from sending, nor the other way round."""
    made = Socket().up()
    for i in range(10):
        made.arrive(b"down %d" % i)
    for i in range(3):
        made.send(b"up %d" % i)
    reads = made.sim.commands.count("AT+QIRD=0")
    assert len(made.stack.sent) == 3 and 2 <= len(made.packets) <= 5, reads
    made.until(lambda: len(made.packets) == 10, 5000)
    order = [each[3:9] for each in made.sim.commands if each.startswith(("AT+QIS", "AT+QIRD"))]
    assert "QISEND" not in (order[-3:])


def test_a_flood_is_dropped_by_the_modem_and_what_follows_comes():
    made = Socket().up()
    for _ in range(30):
        made.arrive(bytes(1400))
    assert made.stack.dropped > 10
    made.until(lambda: len(made.packets) == 30 - made.stack.dropped, 20000)
    made.arrive(b"after")
    made.until(lambda: made.came()[-1][0] == b"after", 5000)


def test_a_datagram_that_was_not_told_is_found():
    """Without a "recv" nothing more is told until the buffer was empty: it is looked for."""
    made = Socket().up()
    made.run(1000)
    made.faults.lost_urcs = 1
    made.arrive(b"first")
    made.arrive(b"second")
    assert made.until(lambda: len(made.packets) == 2, 6000) > 2000


# --- what goes wrong


def test_a_full_modem_loses_a_datagram_and_no_more(made):
    made.faults.full = 1
    made.send(b"lost")
    made.send(b"next")
    assert [each[0] for each in made.stack.sent] == [b"next"]
    assert made.driver.ppp.lost == 1 and made.driver.state == base.UP


def test_a_modem_that_refuses_every_send_is_set_up_anew(made):
    made.faults.errors = 3
    for _ in range(3):
        made.send(b"x", within_ms=200_000)
    made.until(lambda: made.sim.commands.count("AT+QIACT=1") == 2, 20000)
    made.until_up(20000)
    made.send(b"works")
    assert made.stack.sent[-1][0] == b"works"
    assert made.driver.ppp.lost == 3


@pytest.mark.parametrize("fault", ["lost_prompts", "lost_octets"])
def test_a_prompt_that_is_lost_or_a_payload_cut_costs_one_datagram(made, fault):
    """The modem waits for octets; it is given some, and the line is ours again."""
    setattr(made.faults, fault, 1 if fault == "lost_prompts" else 10)
    made.send(EVERY_OCTET)
    made.send(b"next")
    assert made.stack.sent[-1][0] == b"next"
    assert len(made.stack.sent[0][0]) == 256 and made.driver.ppp.lost == 1
    assert made.driver.state == base.UP and made.driver.recoveries == 0
    made.arrive(b"down")
    made.until(lambda: made.came() == [(b"down", "203.0.113.9", 4340)], 5000)


def test_a_modem_that_hangs_in_the_middle_of_a_payload_is_cured_by_its_key(made):
    made.faults.dead_prompts = 1
    made.until(lambda: made.driver.idle, 5000)
    made.driver.send_packet(packet(EVERY_OCTET))
    found_out = made.until(lambda: made.driver.recoveries == 1, 30000)
    assert found_out <= 10000 + 300 + 3000 + 100
    made.until_up(120_000)
    made.send(b"alive")
    assert made.stack.sent[-1][0] == b"alive"


def test_a_silent_modem_is_found_out_though_nobody_sends(made):
    made.run(1000)
    made.sim.hang("power_key")
    assert made.until(lambda: made.driver.recoveries == 1, 20000) <= 5000 + 3000 + 300 + 3000 + 100
    made.until_up(120_000)


def test_a_router_that_starts_while_the_modem_waits_for_a_payload_gets_through():
    """Without lines for power and reset: what it is given as an escape fills the payload."""
    made = Socket().up()
    made.doors = ()
    made.faults.lost_prompts = 1
    made.until(lambda: made.driver.idle, 5000)
    made.driver.send_packet(packet(bytes(1460)))
    made.until(lambda: made.stack.wanted, 1000)
    made.restart()
    made.until_up(60000)
    made.send(b"alive")
    assert made.stack.sent[-1][0] == b"alive"


@pytest.mark.parametrize("event", ["deactivate", "close_socket"])
def test_what_ends_the_socket_ends_the_uplink_and_it_comes_again(made, event):
    getattr(made.stack, event)(made.now)
    words = "the context" if event == "deactivate" else "closed its socket"
    made.until_failed(words, 1000)
    made.until_up(20000)
    made.arrive(b"here")
    made.until(lambda: made.came() == [(b"here", "203.0.113.9", 4340)], 5000)


def test_a_network_that_is_lost_and_comes_back_is_found_again(made):
    made.sim.lose_network(True, made.now)
    made.until_failed("the context", 1000)
    made.run(10000)
    assert made.driver.state != base.UP
    made.sim.lose_network(False, made.now)
    made.until_up(60000)


def test_an_answer_that_is_cut_costs_one_datagram(made):
    made.faults.cut_reads = 1
    made.arrive(b"x" * 1000)
    made.arrive(b"next")
    made.until(lambda: len(made.packets) == 1, 10000)
    assert made.came()[0][0] == b"next"
    assert made.driver.ppp.line.bad_frames == 1
    assert made.driver.state == base.UP and made.driver.recoveries == 0


def test_a_length_that_is_none_is_not_guessed(made):
    """What follows may say anything: the line is taken back from the beginning."""
    made.faults.bad_lengths = 1
    made.arrive(b'\r\n+QIURC: "closed",0\r\nOK\r\n')
    made.until(lambda: made.driver.recoveries == 1, 5000)
    made.until_up(60000)
    assert made.packets == []


def test_it_can_be_stopped_and_started_in_every_stage():
    for stage in ("setup", "register", "socket", "up"):
        made = Socket(register_ms=2000, latency_ms=50)
        made.start()
        made.until(lambda at=stage, one=made: one.driver.stage == at, 10000)
        made.driver.stop(made.now)
        made.run(3000)
        assert (made.driver.stage, made.driver.next_deadline()) == ("off", None), stage
        if stage == "up":
            assert not made.stack.active, "the context is taken down"
        made.start()
        made.until_up(20000)


# --- the radio meanwhile


def test_signal_and_roaming_are_read_while_the_socket_is_in_use(made):
    made.sim.behaviour.csq = 20
    for i in range(65):
        made.run(1000)
        made.send(b"%d" % i)
    assert made.driver.signal_dbm == -73
    assert [each[0] for each in made.stack.sent] == [b"%d" % i for i in range(65)]
    made.sim.behaviour.stat = 5
    made.until_failed("roaming", 70000)


# --- random faults, and one put into the driver


@pytest.mark.parametrize("seed", range(3))
def test_whatever_goes_wrong_what_arrives_was_sent(seed):
    """Lost prompts, octets and answers: datagrams may be lost, never changed or invented."""
    dice = random.Random(seed)
    made = Socket("yes" if seed & 1 else "").up()
    up, down = [], []
    for i in range(40):
        setattr(made.faults, dice.choice(["lost_prompts", "full", "cut_reads", "lost_urcs"]), 1)
        payload = b"%d:" % i + dice.randbytes(dice.randrange(1, 400)) + b"\r\nOK\r\n"
        up.append(payload)
        down.append(payload[::-1])
        if made.stack.port is not None:
            made.arrive(payload[::-1])
        made.send(payload, within_ms=200_000)
    made.run(20000)
    got = [each[0] for each in made.came()]
    sent = [each[0] for each in made.stack.sent if each[0].strip(b"\0\r")]
    assert sent == [each for each in up if each in sent]
    assert got == [each for each in down if each in got]
    assert len(sent) >= 10 and len(got) >= 10


def test_urc_inside_a_payload_is_no_urc(monkeypatch):
    _payloads_are_no_lines(Socket)


def _payloads_are_no_lines(make):
    made = make().up()
    made.arrive(NASTY[5])
    made.until(lambda: len(made.packets) == 1, 5000)
    made.run(100)
    assert made.driver.state == base.UP
    assert made.came()[0][0] == NASTY[5]


def test_a_fault_in_the_driver_turns_its_test_red(monkeypatch):
    """A driver that reads payloads as lines."""
    text = Path(socket_line.__file__).read_text()
    search = "self.read = self._left = octets"
    assert text.count(search) == 1
    faulty = types.ModuleType("haaro.uplink.socket_line")
    code = text.replace(search, "self.read = octets")
    exec(compile(code, "faulty socket_line.py", "exec"), faulty.__dict__)
    _payloads_are_no_lines(Socket)
    monkeypatch.setattr(modem_sockets, "SocketLine", faulty.SocketLine)
    with pytest.raises(AssertionError):
        _payloads_are_no_lines(Socket)


def test_the_modems_own_sockets_are_refused_on_linux():
    machine = object.__new__(LinuxMachine)
    with pytest.raises(ValueError, match=r"uplinks\[2\].data: sockets: is for microcontrollers"):
        machine._add_modem(2, {"data": "sockets"}, "router.secrets.json")
