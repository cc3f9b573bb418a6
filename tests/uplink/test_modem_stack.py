"""The simulated modem's own UDP by itself: byte sequences of Quectel's documents."""

import json
import os
import select
import socket
import time

import pytest

from tests.modem_sim.modem import Behaviour
from tests.uplink.test_modem_sim import Host, running

_DEADLINE_S = 10.0
_OPEN = b'AT+QIOPEN=1,0,"UDP SERVICE","127.0.0.1",0,3030,0\r'


def host(*asked: bytes) -> Host:
    made = Host(stack="10.7.157.1", echo=False)
    for each in asked:
        made.ask(each)
    return made


def open_host() -> Host:
    return host(b"AT+QISDE=0\r", b"AT+QIACT=1\r", _OPEN)


@pytest.mark.parametrize(
    ("before", "sent", "answer"),
    [
        # BG96 TCP/IP Application Note, 3.1: configure and activate a context.
        ([], b'AT+QICSGP=1,1,"UNINET","","",1\r', b"\r\nOK\r\n"),
        ([], b"AT+QIACT=1\r", b"\r\nOK\r\n"),
        (
            [b"AT+QIACT=1\r"],
            b"AT+QIACT?\r",
            b'\r\n+QIACT: 1,1,1,"10.7.157.1"\r\n\r\nOK\r\n',
        ),
        ([b"AT+QIACT=1\r"], b"AT+QIDEACT=1\r", b"\r\nOK\r\n"),
        ([], b"AT+QIACT?\r", b"\r\nOK\r\n"),
        # 2.1.6: the result comes after OK. Chapter 4: 562 socket identity has been used.
        ([b"AT+QIACT=1\r"], _OPEN, b"\r\nOK\r\n\r\n+QIOPEN: 0,0\r\n"),
        ([b"AT+QIACT=1\r", _OPEN], _OPEN, b"\r\nOK\r\n\r\n+QIOPEN: 0,562\r\n"),
        # 2.1.10: without a connection, and with more than 1460 octets.
        ([], b'AT+QISEND=0,10,"10.7.89.10",6969\r', b"\r\nERROR\r\n"),
        ([b"AT+QIACT=1\r", _OPEN], b'AT+QISEND=0,1461,"10.7.89.10",6969\r', b"\r\nERROR\r\n"),
        ([b"AT+QIACT=1\r", _OPEN], b'AT+QISEND=0,10,"10.7.89.10",6969\r', b"\r\n> "),
        # 2.1.11.
        ([], b"AT+QIRD=0\r", b"\r\nERROR\r\n"),
        ([b"AT+QIACT=1\r", _OPEN], b"AT+QIRD=0\r", b"\r\n+QIRD: 0\r\n\r\nOK\r\n"),
    ],
)
def test_answers_are_those_of_the_document(before, sent, answer):
    assert host(*before).ask(sent) == answer


def test_a_payload_is_taken_whole_and_is_no_command():
    made = open_host()
    assert made.ask(b'AT+QISEND=0,10,"10.7.89.10",6969\r') == b"\r\n> "
    assert made.ask(b"AT\r\n12") == b""
    assert made.ask(b"3456AT\r") == b"\r\nSEND OK\r\n\r\nOK\r\n", "what is over is a command"
    assert made.modem.stack.sent == [(b"AT\r\n123456", "10.7.89.10", 6969)]


def test_a_payload_is_echoed_until_that_is_switched_off():
    """2.1.12, AT+QISDE."""
    made = host(b"AT+QIACT=1\r", _OPEN)
    made.ask(b'AT+QISEND=0,4,"10.7.89.10",6969\r')
    assert made.ask(b"OK\r\n") == b"OK\r\n\r\nSEND OK\r\n"


def test_data_are_told_once_and_read_one_by_one():
    """2.3.2: no new "recv" until all was retrieved."""
    made = open_host()
    stack = made.modem.stack
    stack.arrive(made.now, b"AAAA", "10.7.157.2", 7687)
    assert made.wait(10) == b'\r\n+QIURC: "recv",0\r\n'
    stack.arrive(made.now, b"\r\nOK\r\n", "10.7.157.3", 7688)
    assert made.wait(10) == b""
    assert made.ask(b"AT+QIRD=0\r") == b'\r\n+QIRD: 4,"10.7.157.2",7687\r\nAAAA\r\n\r\nOK\r\n'
    stack.arrive(made.now, b"C", "10.7.157.2", 7687)
    assert made.wait(10) == b"", "one was left"
    second = b'\r\n+QIRD: 6,"10.7.157.3",7688\r\n\r\nOK\r\n\r\n\r\nOK\r\n'
    assert made.ask(b"AT+QIRD=0\r") == second
    made.ask(b"AT+QIRD=0\r")
    assert made.ask(b"AT+QIRD=0\r") == b"\r\n+QIRD: 0\r\n\r\nOK\r\n"
    stack.arrive(made.now, b"D", "10.7.157.2", 7687)
    assert made.wait(10) == b'\r\n+QIURC: "recv",0\r\n'


def test_the_network_ends_a_context_and_the_stack_a_socket():
    """2.3.1 and 2.3.5 of the URCs."""
    made = open_host()
    made.modem.stack.close_socket(made.now)
    assert made.wait(10) == b'\r\n+QIURC: "closed",0\r\n'
    assert made.ask(b"AT+QIRD=0\r") == b"\r\nERROR\r\n"
    made.modem.lose_network(True, made.now)
    assert made.wait(10) == b'\r\n+QIURC: "pdpdeact",1\r\n'
    assert made.ask(b"AT+QIACT?\r") == b"\r\nOK\r\n"


def test_a_modem_without_a_stack_knows_none_of_it():
    made = Host(echo=False)
    for sent in (b"AT+QIACT=1\r", _OPEN, b"AT+QIRD=0\r"):
        assert made.ask(sent) == b"\r\nERROR\r\n"
    assert Behaviour().stack == ""


def test_the_program_is_the_nat_of_real_datagrams(tmp_path):
    """What was written to may answer; a stranger may not."""
    with running(tmp_path, 'stack="10.64.0.2"'):
        _datagrams_go_out_and_answers_come_in(tmp_path)


def _datagrams_go_out_and_answers_come_in(tmp_path):
    port = os.open(tmp_path / "port", os.O_RDWR | os.O_NOCTTY)
    far, stranger = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    seen = b""

    def ask(octets: bytes, wanted: bytes) -> None:
        nonlocal seen
        os.write(port, octets)
        seen, end = b"", time.monotonic() + _DEADLINE_S
        while wanted not in seen and time.monotonic() < end:
            if select.select([port], [], [], 0.1)[0]:
                seen += os.read(port, 4096)
        assert wanted in seen, json.dumps(seen.decode())

    try:
        far.bind(("127.0.0.1", 0))
        far.settimeout(_DEADLINE_S)
        number = far.getsockname()[1]
        for octets in (b"ATE0\r", b"AT+QISDE=0\r", b"AT+QIACT=1\r"):
            ask(octets, b"OK\r\n")
        ask(_OPEN, b"+QIOPEN: 0,0\r\n")
        ask(b'AT+QISEND=0,6,"127.0.0.1",%d\r' % number, b"> ")
        ask(b"\r\nOK\r\n", b"SEND OK\r\n")
        datagram, nat = far.recvfrom(100)
        assert datagram == b"\r\nOK\r\n"
        stranger.sendto(b"not asked for", nat)
        far.sendto(b"answer", nat)
        ask(b"", b'+QIURC: "recv",0\r\n')
        ask(b"AT+QIRD=0\r", b'\r\n+QIRD: 6,"127.0.0.1",%d\r\nanswer\r\n\r\nOK\r\n' % number)
        ask(b"AT+QIRD=0\r", b"\r\n+QIRD: 0\r\n")
    finally:
        os.close(port)
        far.close()
        stranger.close()
