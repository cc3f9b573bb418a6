"""The locked profile: a password, few attempts, and nothing secret on the line (P2, P3)."""

import hashlib
import json

import pytest

from haaro.shell import console as consoles
from haaro.shell import console_lock
from haaro_host.fleet import derive
from tests.console.helpers import KEY, PASSWORD, SALT, Desk, octets, secrets_document


@pytest.fixture
def desk(tmp_path, monkeypatch):
    return Desk(tmp_path, monkeypatch, profile=consoles.LOCKED)


def login(desk, password):
    assert desk.type("login\r") == "login\r\npassword: "
    return desk.type(password + "\r")


SESSION = ["\r", "\x03", "\x04", "\x01", "\x02", "\x05A\x01", "help\r", "status\r", "import os\r",
           "\x03\x03\x03\r", "show log\r", ":0 AAAA 0\r", "logout\r", "root\r",
           "\x1b[A\r", "apply\r", "reset all\r", "reboot\r", "trace on\r",
           "provision\r"]  # fmt: skip


def test_a_scripted_session_gets_no_prompt(desk):
    """P2 of the threats: nothing but refusals, whatever is typed; Ctrl-C interrupts nothing."""
    said = "".join(desk.type(text) for text in SESSION)
    said += desk.type("".join(SESSION))
    assert ">>>" not in said and "MicroPython" not in said and "ok" not in said
    answers = [line for line in said.split("\r\n") if "error" in line]
    assert set(answers) == {"error: locked; first: login"}
    assert desk.box.restarts == 0 and desk.door.interrupt is False
    assert not desk.console.tracing


def test_the_password_opens_it_and_is_never_echoed(desk):
    said = login(desk, PASSWORD)
    assert said == "\r\nok\r\n"
    assert desk.line("status")[-1] == "ok"
    assert desk.line("logout") == ["ok"]
    assert desk.line("status") == ["error: locked; first: login"]


@pytest.mark.parametrize("guess", ["", "Correct-horse", PASSWORD + " ", PASSWORD[:-1], "x" * 249])
def test_a_wrong_password_does_not(desk, guess):
    said = login(desk, guess)
    assert said == "\r\nerror: wrong password\r\n"
    assert desk.line("status") == ["error: locked; first: login"]


def test_attempts_are_limited_and_the_wait_doubles(desk):
    waits = []
    for _ in range(12):
        assert "wrong password" in login(desk, "guess")
        start = desk.clock.ms
        assert "too many attempts" in login(desk, PASSWORD), "also the right one has to wait"
        desk.turn(desk.console.lock.wait_until - desk.clock.ms)
        waits.append((desk.clock.ms - start) // 1000)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
    assert login(desk, PASSWORD).endswith("ok\r\n")
    assert "wrong password" in login(desk, "guess") if desk.line("logout") else False
    assert desk.console.lock.wait_until - desk.clock.ms == 1000, "a success starts anew"


def test_a_session_ends_by_itself(desk):
    login(desk, PASSWORD)
    desk.turn(299999)
    assert desk.line("help")[-1] == "ok"
    desk.turn(299999)
    assert desk.line("help")[-1] == "ok"
    desk.turn(300000)
    assert desk.line("help") == ["error: locked; first: login"]


def test_a_pulled_cable_ends_a_session(desk):
    login(desk, PASSWORD)
    desk.door.gone = True
    desk.type("")
    desk.turn(1000)
    assert desk.line("status") == ["error: locked; first: login"]


def test_the_loop_goes_on_while_a_password_is_checked(desk, tmp_path):
    document = secrets_document()
    document["console"]["rounds"] = 16000
    desk.secrets.write_bytes(octets(document))
    desk.door.typed += b"login\r" + b"guess\r"
    desk.console.handle(desk.door, 0)
    turns = 0
    while desk.console.busy:
        desk.console.tick(0)
        turns += 1
    assert turns == 1000


@pytest.mark.parametrize(
    "stored", [None, {}, {"salt": "zz", "rounds": 1, "hash": "00"}, {"salt": 1}, []]
)
def test_without_a_hash_nobody_gets_in(desk, stored):
    document = secrets_document()
    document["console"] = stored
    desk.secrets.write_bytes(octets(document))
    assert "nobody can log in" in login(desk, PASSWORD)
    desk.secrets.unlink()
    assert "nobody can log in" in login(desk, PASSWORD)


@pytest.mark.parametrize("rounds", [1, 2, 15, 16, 17, 33, 4096])
@pytest.mark.parametrize("password", [b"", b"p", b"x" * 64, b"y" * 65, b"\x00\xff"])
def test_the_hash_is_pbkdf2_as_rfc_8018_has_it(password, rounds):
    *_, found = console_lock.derive(password, SALT, rounds)
    assert found == hashlib.pbkdf2_hmac("sha256", password, SALT, rounds)


def test_the_hosts_hash_is_the_one_that_the_box_makes():
    password, stored = derive.console(b"s" * 32, "office-a", 1)
    *_, found = console_lock.derive(
        password.encode(), bytes.fromhex(stored["salt"]), stored["rounds"]
    )
    assert found.hex() == stored["hash"] and stored["rounds"] == derive.CONSOLE_ROUNDS
    others = {derive.console(b"s" * 32, site, n)[0] for site in ("office-a", "b") for n in (1, 2)}
    assert len(others) == 4 and password in others


def test_no_command_shows_a_key_the_hash_or_the_password(desk, tmp_path):
    """P3: canary keys are found in no answer, log line or trace of a whole session."""
    said = login(desk, PASSWORD)
    new_key = "beef5e" * 10 + "abcd"
    said += desk.type("trace on\r")
    for line in (
        "status", "status json", "set", "set secrets", "show log", "provision", "help", "apply",
        f"set key {KEY}", f"{KEY}", f"set mobile_home.0.key {new_key}",
    ):  # fmt: skip
        answer = desk.line(line)
        said += "\n".join(answer)
    wrong = secrets_document(key=new_key)
    wrong["mobile_home"][0]["spi"] = 1
    desk.send("router.secrets.json", octets(wrong))
    said += "\n".join(desk.line("apply")) + desk.type("show log\r")
    assert "spi" in said, "the fault of the secrets file was named"
    canaries = [KEY, new_key, PASSWORD, secrets_document()["console"]["hash"], SALT.hex()]
    for canary in canaries:
        assert canary not in said, canary
    assert not any(c in line for c in canaries for line in desk.console.ring)
    assert json.loads(desk.secrets.read_text())["mobile_home"][0]["key"] == KEY


def test_frames_are_not_echoed(desk):
    login(desk, PASSWORD)
    desk.line(f"provision router.secrets.json 100 {'00' * 32}")
    said = desk.type(":0 c2VjcmV0LXNlY3JldA== 00000000\r")
    assert said == "error: a frame is damaged; at 0\r\n"
