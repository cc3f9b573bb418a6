"""The multiplexed line: driver and simulator against published frames, then against each other."""

import os
import types
from pathlib import Path

import pytest

from haaro.uplink import base
from haaro.uplink.cmux import Cmux
from haaro.wire import ipv4
from tests.modem_sim import mux
from tests.modem_sim.modem import Behaviour
from tests.uplink.test_cellular import LINES

MULTIPLEXING = ("sim7600", "ec25", "bg96", "bg770", "sara-r4")
# Frames as vendors' application notes and the logs of other multiplexers print them.
HOST = {
    "open 0": "f9033f011cf9",
    "open 1": "f9073f01def9",
    "open 2": "f90b3f0159f9",
    "close down": "f903ef05c301f2f9",
}
MODEM = {"open 0": "f9037301d7f9", "open 1": "f907730115f9", "open 2": "f90b730192f9"}


class Taken(list):
    def __call__(self, now, channel, octets):
        self.append((channel, bytes(octets)))


def opened(taken) -> Cmux:
    line = Cmux(0, taken)
    for frame in MODEM.values():
        line.receive(0, bytes.fromhex(frame))
    assert line.state == "open"
    line.poll_transmit()
    return line


def test_the_drivers_frames_are_those_that_are_published():
    line = Cmux(0, Taken())
    for name in ("open 0", "open 1", "open 2"):
        assert line.state == "opening"
        assert bytes.fromhex(HOST[name]) in line.poll_transmit()
        line.receive(0, bytes.fromhex(MODEM[name]))
    assert line.state == "open"
    assert bytes.fromhex(HOST["close down"]) == Cmux.CLOSE_DOWN


def test_a_driver_that_deviates_is_found_out(monkeypatch):
    """The deliberate deviation: another polynomial of the FCS, and the length counted wrong."""
    path = Path(__file__).resolve().parents[2] / "firmware/haaro/uplink/cmux.py"
    for search, replace in (("0xE0", "0xB8"), ("length << 1 | 1))", "length << 1))")):
        assert path.read_text().count(search) == 1
        faulty = types.ModuleType("haaro.uplink.cmux")
        exec(path.read_text().replace(search, replace), faulty.__dict__)
        monkeypatch.setitem(globals(), "Cmux", faulty.Cmux)
        with pytest.raises(AssertionError):
            test_the_drivers_frames_are_those_that_are_published()


def test_the_simulators_frames_are_those_that_are_published():
    responder = mux.Responder(lambda channel, octets: None)
    for name in ("open 0", "open 1", "open 2"):
        responder.receive(bytes.fromhex(HOST[name]))
        assert responder.out.startswith(bytes.fromhex(MODEM[name]))
        responder.out = b""
    assert responder.open == {0, 1, 2}
    assert not responder.over
    responder.receive(bytes.fromhex(HOST["close down"]))
    assert responder.over
    assert responder.wrong == 0


@pytest.mark.parametrize("octets", [0, 1, 127, 128, 1500])
@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_frames_of_any_length_in_any_pieces_are_read(octets, piece):
    taken = Taken()
    line = opened(taken)
    what = os.urandom(octets)
    stream = b"\xf9\xf9\x00" + mux.frame(2, mux.UIH, what, command=True) * 3
    for at in range(0, len(stream), piece):
        line.receive(0, stream[at : at + piece])
    assert taken == [(2, what)] * 3


def test_flags_inside_and_damage_cost_no_other_frame():
    taken = Taken()
    line = opened(taken)
    good = mux.frame(1, mux.UIH, b"\xf9" * 5, command=True)
    bad = bytearray(good)
    bad[2] ^= 4
    line.receive(0, good + bytes(bad) + b"noise" + good + good[:-3])
    line.receive(0, good)
    assert line.bad_frames > 0
    assert taken.count((1, b"\xf9" * 5)) >= 2
    line.receive(0, good)
    assert taken[-1] == (1, b"\xf9" * 5)


def test_the_modem_may_stop_a_channel_or_all():
    """27.010 5.4.6.3.5, 5.4.6.3.6 and 5.4.6.3.7: FCoff, FCon, and FC of MSC; each is answered."""
    line = opened(Taken())
    for kind, values, first, second in (
        (0xE3, b"\x0b\x8f", True, False),
        (0xE3, b"\x0b\x8d", True, True),
        (0x63, b"", False, False),
        (0xA3, b"", True, True),
    ):
        message = bytes([kind, len(values) << 1 | 1]) + values
        line.receive(0, mux.frame(0, mux.UIH, message, command=True))
        assert (line.may_send(1), line.may_send(2)) == (first, second)
        answer = bytes([kind & ~2, len(values) << 1 | 1]) + values
        assert answer in line.poll_transmit()


def test_what_is_not_supported_is_said_and_a_test_is_echoed():
    line = opened(Taken())
    line.receive(0, mux.frame(0, mux.UIH, b"\x23\x07abc", command=True))
    assert b"\x21\x07abc" in line.poll_transmit()
    line.receive(0, mux.frame(0, mux.UIH, b"\xd3\x03\x07", command=True))
    assert b"\x11\x03\xd3" in line.poll_transmit()


# --- driver and simulator


@pytest.mark.parametrize("name", MULTIPLEXING)
def test_the_signal_is_read_while_the_call_is_up(online, name):
    made = online(Behaviour(mux="yes"), profile=name)
    made.start()
    made.until_up(5000)
    assert made.driver.mux.state == "open"
    assert made.driver.signal_dbm == -79
    made.sim.behaviour.csq, made.sim.behaviour.operator = 25, "Othernet"
    made.run(61000)
    assert made.driver.signal_dbm == -63
    assert made.driver.operator == "Othernet"
    assert made.driver.state == base.UP
    assert made.driver.recoveries == 0


def test_packets_pass_by_frames_of_the_agreed_length(online):
    """slirp answers for 10.0.2.2 itself."""
    made = online(Behaviour(mux="yes"), profile="sim7600")
    made.start()
    made.until_up(5000)
    echo = ipv4.build_icmp_echo(
        made.driver.address, bytes((10, 0, 2, 2)), False, 7, 1, os.urandom(900)
    )
    made.driver.send_packet(echo)
    made.until(lambda: made.packets, 5000)
    assert made.packets[0][28:] == echo[28:]


def test_roaming_that_begins_in_a_call_ends_it(online):
    made = online(Behaviour(mux="yes"), profile="ec25")
    made.start()
    made.until_up(5000)
    made.run(70000)
    made.sim.behaviour.stat = 5
    made.until_failed("roaming (Testnet) is not allowed", 70000)
    assert not made.sim.data_mode or made.driver.ppp.state == "dead"


@pytest.mark.parametrize("how", ["", "dead", "refuses"])
def test_a_modem_that_cannot_is_used_without(online, how):
    """Not known, never answered, or without a channel for the call: once, and no more."""
    made = online(Behaviour(mux=how), profile="sim7600")
    made.start()
    made.until_up(20000)
    assert made.driver.mux is None
    made.sim.lose_network(True, made.now)
    made.until(lambda: made.driver.state != base.UP, 5000)
    made.sim.lose_network(False, made.now)
    made.until_up(30000)
    assert sum("CMUX" in each for each in made.sim.commands) == 1


def test_it_is_not_used_where_the_configuration_says_so(online):
    made = online(Behaviour(mux="yes"), profile="sim7600", mux=False)
    made.start()
    made.until_up(5000)
    assert not any("CMUX" in each for each in made.sim.commands)


def test_a_line_that_an_earlier_run_left_multiplexed_is_taken_back(online):
    made = online(Behaviour(mux="yes"), profile="sim7600")
    made.start()
    made.until_up(5000)
    made.restart()
    made.until_up(10000)
    assert made.driver.recoveries == 1
    assert made.driver.mux.state == "open"


def test_a_stop_ends_the_multiplexer_and_the_call(online):
    made = online(Behaviour(mux="yes"), profile="sim7600")
    made.start()
    made.until_up(5000)
    made.driver.stop(made.now)
    made.until(lambda: not made.sim.data_mode, 1000)
    assert made.written.endswith(Cmux.CLOSE_DOWN)
    made.start()
    made.until_up(5000)
    assert made.driver.recoveries == 0


@pytest.mark.parametrize("name", MULTIPLEXING)
@pytest.mark.parametrize("cure", ["power_key", "reset"])
def test_a_multiplexer_that_hangs_is_recovered(online, name, cure):
    on, off, reset = LINES[name]
    made = online(Behaviour(mux="yes", on_ms=on, off_ms=off, reset_ms=reset), profile=name)
    made.start()
    made.until_up(5000)
    made.run(2000)
    made.sim.hang(cure)
    made.until(lambda: made.driver.recoveries == 1, 20000)
    made.until_up(100000)
    assert made.driver.mux.state == "open"


def test_a_silent_command_channel_ends_no_call(online):
    made = online(Behaviour(mux="yes"), profile="sim7600")
    made.start()
    made.until_up(5000)
    take = made.sim._mux._take
    made.sim._mux._take = lambda channel, octets: channel == 2 and take(channel, octets)
    made.run(200000)
    assert made.driver.state == base.UP
    assert made.driver.recoveries == 0
    assert made.driver.signal_dbm is None


def test_commands_pass_before_the_packets_that_wait(online):
    """A full upload is in the driver's queue: the next command is the next frame all the same."""
    made = online(Behaviour(mux="yes"), profile="sim7600")
    made.start()
    made.until_up(5000)
    driver = made.driver
    for _ in range(2):
        driver.send_packet(ipv4.build_udp(driver.address, bytes((10, 0, 2, 2)), 9, 9, bytes(1400)))
    driver.handle_timer(made.now + 60001)
    first = driver.poll_transmit()
    assert first[1] >> 2 == 1
    assert b"AT+CEREG?" in first
    assert driver.poll_transmit()[1] >> 2 == 2
