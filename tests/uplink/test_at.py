"""Lines of a modem: what answers a command, what ends it, what is said unasked, what is noise."""

import pytest

from haaro.uplink.at import At


def said(at: At) -> list[tuple]:
    found = []
    event = at.next_event()
    while event:
        found.append(event)
        event = at.next_event()
    return found


@pytest.fixture
def at():
    made = At()
    made.command(0, "AT+CSQ", 3000, "+CSQ:")
    assert made.poll_transmit() == b"AT+CSQ\r"
    return made


@pytest.mark.parametrize(
    ("octets", "final", "lines"),
    [
        (b"\r\n+CSQ: 17,99\r\n\r\nOK\r\n", "OK", ["17,99"]),
        (b"AT+CSQ\r\r\n+CSQ: 17,99\r\n\r\nOK\r\n", "OK", ["17,99"]),
        (b"\r\nERROR\r\n", "ERROR", []),
        (b"\r\n+CME ERROR: 10\r\n", "+CME ERROR: 10", []),
        (b"\r\n+CMS ERROR: 302\r\n", "+CMS ERROR: 302", []),
        (b"\xff\x00\x13\r\n+CSQ: 5,0\r\nOK\r\n", "OK", ["5,0"]),
        (b"\r\n+CSQ: 1\r\n+CSQ: 2\r\nOK\r\n", "OK", ["1", "2"]),
    ],
)
def test_answers(at, octets, final, lines):
    for i in range(len(octets)):
        at.receive(0, octets[i : i + 1])
    assert said(at) == [("done", final, lines)]
    assert not at.busy


def test_what_is_said_unasked_in_the_middle_is_told_apart(at):
    at.receive(0, b"\r\n+CREG: 5\r\n\r\n+CSQ: 9,99\r\n\r\nRING\r\n\r\nOK\r\n\r\n+CREG: 1\r\n")
    assert said(at) == [
        ("line", "+CREG: 5"),
        ("line", "RING"),
        ("done", "OK", ["9,99"]),
        ("line", "+CREG: 1"),
    ]


def test_ok_is_no_answer_when_nothing_was_asked():
    at = At()
    at.receive(0, b"\r\nOK\r\n")
    assert said(at) == [("line", "OK")]


def test_an_endless_line_is_no_line(at):
    at.receive(0, b"x" * 5000 + b"\r\n+CSQ: 3,99\r\nOK\r\n")
    assert said(at) == [("done", "OK", ["3,99"])]
    assert at.garbage == 4800


def test_a_flood_of_lines_is_bounded():
    at = At()
    at.receive(0, b"\r\nRING\r\n" * 500)
    assert len(said(at)) == 16


def test_what_follows_connect_is_the_peers():
    at = At()
    at.command(0, "ATD*99#", 3000)
    at.receive(0, b"\r\nCONNECT 115200\r\n~\xff\x7d#\xc0!\r\n")
    assert said(at) == [("done", "CONNECT 115200", [])]
    assert at.take_rest() == b"~\xff\x7d#\xc0!\r\n"


def test_no_answer_is_a_timeout_at_its_time(at):
    assert at.deadline == 3000
    at.handle_timer(2999)
    assert said(at) == []
    at.handle_timer(3000)
    assert said(at) == [("done", "TIMEOUT", [])]


def test_a_late_answer_is_not_taken_for_the_next_commands(at):
    at.handle_timer(3000)
    said(at)
    at.command(3000, "AT+CPIN?", 3000, "+CPIN:")
    at.receive(3100, b"\r\n+CSQ: 17,99\r\n\r\nOK\r\n")
    at.handle_timer(at.deadline)
    assert at.poll_transmit() == b"AT+CPIN?\r"
    assert said(at) == []
    at.receive(3500, b"\r\n+CPIN: READY\r\n\r\nOK\r\n")
    assert said(at) == [("done", "OK", ["READY"])]


def test_a_modem_that_is_never_quiet_is_asked_all_the_same(at):
    at.handle_timer(3000)
    said(at)
    at.command(3000, "AT", 500)
    for now in range(3050, 5100, 50):
        at.receive(now, b"\r\nRING\r\n")
        at.handle_timer(now)
    assert at.poll_transmit() == b"AT\r"
