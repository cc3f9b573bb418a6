"""The simulated modem by itself: byte sequences of standards, and a foreign client on its pty."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.modem_sim.modem import Behaviour, Modem

ROOT = Path(__file__).resolve().parents[2]
CHAT = shutil.which("chat") or "/usr/sbin/chat"
_DEADLINE_S = 10.0
_REQUEST = "7eff7d23c0217d217d217d207d307d227d267d207d207d207d207d257d263c9e7d349ce4797e"


class Host:
    """What is written and read at the modem's line."""

    def __init__(self, **behaviour: object) -> None:
        self.modem = Modem(Behaviour(**behaviour))
        self.now = 0
        assert self.wait(0) == b"\r\nRDY\r\n"

    def wait(self, ms: int) -> bytes:
        self.now += ms
        return self.modem.poll(self.now)

    def ask(self, octets: bytes, ms: int = 10) -> bytes:
        self.modem.receive(self.now, octets)
        return self.wait(ms)


@pytest.mark.parametrize(
    ("behaviour", "sent", "answer"),
    [
        # V.250 5.7: a result code is <CR><LF>text<CR><LF>; 6.2.4: echo until E0.
        ({}, b"AT\r", b"AT\r\r\nOK\r\n"),
        ({"echo": False}, b"AT\r", b"\r\nOK\r\n"),
        ({"echo": False}, b"AT+NONSENSE\r", b"\r\nERROR\r\n"),
        ({"echo": False}, b"at+csq\r", b"\r\n+CSQ: 17,99\r\n\r\nOK\r\n"),
        # 27.007 8.3, 9.2: states of the SIM and numeric errors.
        ({"echo": False}, b"AT+CPIN?\r", b"\r\n+CPIN: READY\r\n\r\nOK\r\n"),
        ({"echo": False, "sim": "pin"}, b"AT+CPIN?\r", b"\r\n+CPIN: SIM PIN\r\n\r\nOK\r\n"),
        ({"echo": False, "sim": "puk"}, b"AT+CPIN?\r", b"\r\n+CPIN: SIM PUK\r\n\r\nOK\r\n"),
        ({"echo": False, "sim": "absent"}, b"AT+CPIN?\r", b"\r\n+CME ERROR: 10\r\n"),
        ({"echo": False, "sim": "pin"}, b'AT+CPIN="0000"\r', b"\r\n+CME ERROR: 16\r\n"),
        ({"echo": False, "sim": "pin"}, b'AT+CPIN="4711"\r', b"\r\nOK\r\n"),
        # 27.007 7.2: <n>,<stat>.
        ({"echo": False}, b"AT+CREG?\r", b"\r\n+CREG: 0,1\r\n\r\nOK\r\n"),
        ({"echo": False, "register_ms": 99}, b"AT+CREG?\r", b"\r\n+CREG: 0,2\r\n\r\nOK\r\n"),
        ({"echo": False, "stat": 5}, b"AT+CEREG?\r", b"\r\n+CEREG: 0,5\r\n\r\nOK\r\n"),
        # 27.007 7.3.
        ({"echo": False}, b"AT+COPS?\r", b'\r\n+COPS: 0,0,"Testnet",7\r\n\r\nOK\r\n'),
    ],
)
def test_answers_are_those_of_the_standards(behaviour, sent, answer):
    assert Host(**behaviour).ask(sent) == answer


def test_three_wrong_pins_ask_for_the_puk():
    host = Host(sim="pin", echo=False)
    assert host.ask(b'AT+CPINR="SIM PIN"\r') == b"\r\n+CPINR: SIM PIN,3,3\r\n\r\nOK\r\n"
    for _ in range(3):
        host.ask(b'AT+CPIN="0000"\r')
    assert host.ask(b"AT+CPIN?\r") == b"\r\n+CPIN: SIM PUK\r\n\r\nOK\r\n"
    assert host.ask(b'AT+CPIN="4711"\r') == b"\r\n+CME ERROR: 3\r\n"


def test_registration_is_announced_when_asked_for():
    host = Host(echo=False, register_ms=1000)
    host.ask(b"AT+CREG=1\r")
    assert host.wait(1000) == b"\r\n+CREG: 1\r\n"
    assert host.ask(b"AT+CREG?\r") == b"\r\n+CREG: 1,1\r\n\r\nOK\r\n"


def test_escape_needs_silence_on_both_sides():
    """V.250's predecessors' S12: "+++" in the middle of data is data."""
    host = Host(echo=False)
    assert host.ask(b"ATD*99#\r") == b"\r\nCONNECT 150000000\r\n"
    host.ask(b"a+++b", 2000)
    assert bytes(host.modem.to_network) == b"a+++b"
    assert host.modem.data_mode
    host.ask(b"+++", 999)
    assert host.modem.data_mode
    host.wait(1)
    assert host.wait(0) == b"\r\nOK\r\n"
    assert not host.modem.data_mode


def test_lines_of_power_and_reset_need_their_time():
    host = Host(echo=False, boot_ms=0, on_ms=500, off_ms=2500, reset_ms=250)
    modem = host.modem
    for held, alive in ((2000, True), (2500, False), (300, False), (500, True)):
        modem.set_line(host.now, "power_key", 1)
        host.wait(held)
        modem.set_line(host.now, "power_key", 0)
        assert bool(host.ask(b"AT\r")) == alive, held
    modem.hang("reset")
    assert host.ask(b"AT\r") == b""
    modem.set_line(host.now, "reset", 1)
    host.wait(250)
    modem.set_line(host.now, "reset", 0)
    assert host.wait(0) == b"\r\nRDY\r\n"


@pytest.fixture
def program(tmp_path):
    """The program on a pty; its PIN is 4711 and it registers after half a second."""
    with running(tmp_path, 'sim="pin"', "register_ms=500"):
        yield tmp_path


@contextmanager
def running(tmp_path, *modem_is):
    """The program on a pty in `tmp_path`; modem_is: KEY=JSON of its Behaviour."""
    words = [word for each in modem_is for word in ("--set", each)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.modem_sim", str(tmp_path), *words],
        stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    try:
        assert json.loads(process.stdout.readline())["event"] == "ready"
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_DEADLINE_S)
        process.stdout.close()


@pytest.mark.skipif(not os.path.exists(CHAT), reason="chat is not installed (package ppp)")
def test_a_foreign_client_unlocks_registers_and_dials(program):
    """`chat`, of the ppp package, is what pppd itself dials with."""
    script = [
        "ABORT", "ERROR", "ABORT", "NO CARRIER", "TIMEOUT", "5",
        "", "AT", "OK", "AT+CPIN?", "SIM PIN", 'AT+CPIN="4711"', "OK", "AT+CREG=1",
        "+CREG: 1", "AT+CSQ", "+CSQ: 17,99", 'AT+CGDCONT=1,"IP","internet"',
        "OK", "ATD*99***1#", "CONNECT", "",
    ]  # fmt: skip
    port = os.open(program / "port", os.O_RDWR | os.O_NOCTTY)
    try:
        done = subprocess.run(
            [CHAT, "-v", "-s", "-S", *script], stdin=port, stdout=port, stderr=subprocess.PIPE,
            timeout=30, check=False, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "CONNECT" in done.stderr
    finally:
        os.close(port)


def test_the_program_hands_the_line_to_the_network(program):
    from tests.modem_sim import peer

    if peer.why_not_here():
        pytest.skip(str(peer.why_not_here()))
    port = os.open(program / "port", os.O_RDWR | os.O_NOCTTY)
    seen = b""
    try:
        for command, wanted in (
            (b'AT+CPIN="4711"\r', b"OK\r\n"),
            (b"AT+CREG=1\r", b"+CREG: 1\r\n"),
            (b"ATD*99#\r", b"CONNECT 150000000\r\n"),
            # LCP's Configure-Request 1 (RFC 1661 5.1) and its acknowledgement.
            (bytes.fromhex(_REQUEST), b'\xff}#\xc0!}"}!'),
        ):
            os.write(port, command)
            seen, end = b"", time.monotonic() + _DEADLINE_S
            while wanted not in seen and time.monotonic() < end:
                if select.select([port], [], [], 0.1)[0]:
                    seen += os.read(port, 4096)
            assert wanted in seen
    finally:
        os.close(port)
