"""`haaro provision` and its neighbours against the real program on a board of its own."""

import io
import json
import os
import re
import signal
import subprocess
import tarfile
import threading
import time
from contextlib import suppress

import pytest

from haaro_host.fleet import inventory
from haaro_host.fleet.files import FleetError
from haaro_host.provision.box import Identity, check_identity
from haaro_host.provision.bugreport import redact
from haaro_host.provision.by_console import print_of
from tests.board.conftest import BIN, PASSPHRASE, UNIQUE_ID, Terminal, until

FILES = ("router.json", "router.secrets.json")


def exported(operator, site="office-a"):
    """The octets that a box of `site` has to have."""
    operator.haaro("fleet", "export", "router", site)
    return tuple((operator.directory / "routers" / site / name).read_bytes() for name in FILES)


def has(board):
    paths = [board.flash / name for name in FILES]
    return tuple(path.read_bytes() if path.exists() else None for path in paths)


def settled(board):
    """Nothing of a transfer or a change is left in the flash."""
    left = {path.name for path in board.flash.iterdir()}
    # The program is in a slot, or where a board that was set up by hand has it.
    return left - {"slots", "haaro"} == {"main.py", *FILES}


@pytest.fixture
def provisioned(quiet_board, operator):
    """A board with program and files, as the fleet has them, running."""
    exported(operator)
    routers = operator.directory / "routers" / "office-a"
    quiet_board.install(*(routers / name for name in FILES))
    quiet_board.power_on()
    return quiet_board


def refresh(operator):
    """Have the fleet want something else of the box."""
    file = operator.directory / "fleet.toml"
    lifetime = int(re.search(r"lifetime = (\d+)", file.read_text())[1])
    file.write_text(
        file.read_text().replace(f"lifetime = {lifetime}", f"lifetime = {lifetime + 1}")
    )
    operator.haaro("keys", "stage", "office-a")


def test_a_blank_board_gets_program_and_files_in_one_command_and_the_second_does_nothing(
    board, operator
):
    done = operator.json("provision", "office-a", "--port", board.port)
    assert done["schema"] == "haaro.provision/1"
    assert (done["way"], done["result"], done["unique_id"]) == ("raw REPL", "in place", UNIQUE_ID)
    files = exported(operator)
    assert has(board) == files and settled(board)
    assert (board.flash / "router.secrets.json").stat().st_mode & 0o777 == 0o600
    assert done["files"] == dict(zip(FILES, map(print_of, files), strict=True))
    again = operator.json("provision", "office-a", "--port", board.port)
    assert (again["way"], again["result"], again["changed"]) == ("console", "unchanged", [])
    audit = (operator.directory / "provision.log").read_text().splitlines()
    lines = [json.loads(line) for line in audit]
    assert [(line["site"], line["result"]) for line in lines] == [
        ("office-a", "in place"), ("office-a", "unchanged")
    ]  # fmt: skip
    assert all(line["files"] == done["files"] and line["port"] == board.port for line in lines)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[0]["time"])
    # P3, the keys of the whole store are the canaries.
    everything = "".join(operator.printed) + "".join(audit) + board.log.read_text()
    for secret in operator.secrets():
        assert secret not in everything


def test_a_blank_board_whose_cable_is_pulled_goes_on_where_it_was(quiet_board, operator):
    quiet_board.options = ("--pull-after", "150000", "--pull-after", "200000")
    quiet_board.power_on()
    for _ in range(2):
        said = operator.haaro("provision", "office-a", "--port", quiet_board.port, status=1)
        assert said.splitlines()[-1].startswith("A fatal error occurred: ")
        assert not (quiet_board.flash / "main.py").exists(), "it still boots into its REPL"
        assert has(quiet_board) == (None, None)
    before = set(quiet_board.flash.rglob("*.py"))
    done = operator.json("provision", "office-a", "--port", quiet_board.port)
    assert done["result"] == "in place" and has(quiet_board) == exported(operator)
    sent_again = {quiet_board.flash / name for name in done["changed"]} & before
    assert len(before) > 20 and not sent_again, "what was there is not sent again"


def test_new_files_are_tried_and_confirmed(provisioned, operator):
    refresh(operator)
    done = operator.json("provision", "office-a", "--port", provisioned.port, "--confirm")
    assert (done["way"], done["result"]) == ("console", "kept")
    assert done["changed"] == list(FILES)
    assert has(provisioned) == exported(operator) and settled(provisioned)


@pytest.mark.parametrize("after", [300, 1200])
def test_a_pulled_cable_is_waited_for_and_the_transfer_goes_on(quiet_board, operator, after):
    exported(operator)
    routers = operator.directory / "routers" / "office-a"
    quiet_board.install(*(routers / name for name in FILES))
    quiet_board.options = ("--pull-after", str(after))
    quiet_board.power_on()
    refresh(operator)
    done = operator.json("provision", "office-a", "--port", quiet_board.port, "--confirm")
    assert done["result"] == "kept" and has(quiet_board) == exported(operator)


def test_a_killed_box_has_the_old_pair_or_the_new_one(provisioned, operator):
    """The power goes at some moment of the transfer, the trial and the commit, in the real
    program; the cuts at every step are tests/console's.
    """
    pairs = {exported(operator)}
    for number in range(4):
        refresh(operator)
        operator.haaro("keys", "retire", "office-a")
        pairs.add(exported(operator))
        # Not a sleep for something to happen: the moment of the cut is what is varied.
        timer = threading.Timer(0.9 + 0.25 * number, provisioned.power_cut)
        timer.start()
        with suppress(AssertionError):  # cut off or not: what the box has is looked at
            operator.haaro("provision", "office-a", "--port", provisioned.port, "--confirm")
        timer.join()
        assert until(lambda: settled(provisioned) and has(provisioned) in pairs, 20), number
    operator.haaro("provision", "office-a", "--port", provisioned.port, "--confirm")
    assert has(provisioned) == exported(operator)


@pytest.mark.timeout(180)
def test_files_that_do_not_register_are_reverted_by_the_box_itself(provisioned, operator):
    """Nobody confirms, no home agent answers: after 90 s the box is what it was."""
    old = has(provisioned)
    refresh(operator)
    began = time.monotonic()
    done = subprocess.run(
        [BIN / "haaro", "provision", "office-a", "--port", provisioned.port, "--json"],
        cwd=operator.directory,
        env={**os.environ, "HAARO_PASSPHRASE": PASSPHRASE},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 1 and "did not register with the new files" in done.stderr
    assert json.loads(done.stdout)["result"] == "reverted"
    assert 85 < time.monotonic() - began < 120
    assert has(provisioned) == old and settled(provisioned)


# --- the right box -------------------------------------------------------------------------------


def test_another_box_than_the_inventory_says_is_refused_before_anything_is_written(board, operator):
    file = operator.directory / "fleet.toml"
    file.write_text(file.read_text().replace(UNIQUE_ID, "00c0ffee0099"))
    said = operator.haaro("provision", "office-a", "--port", board.port, status=1)
    assert UNIQUE_ID in said and "take the right box" in said
    assert list(board.flash.iterdir()) == []
    assert not (operator.directory / "provision.log").exists()


def test_a_box_without_an_entry_is_adopted_when_asked(provisioned, operator):
    file = operator.directory / "fleet.toml"
    file.write_text(file.read_text().replace(f'unique_id = "{UNIQUE_ID}"\n', ""))
    said = operator.json("provision", "office-a", "--port", provisioned.port)
    assert "--adopt" in said["notes"][0]
    operator.haaro("provision", "office-a", "--port", provisioned.port, "--adopt")
    assert f'unique_id = "{UNIQUE_ID}"' in file.read_text()
    assert operator.json("provision", "office-a", "--port", provisioned.port)["notes"] == []


@pytest.mark.parametrize(
    ("box", "text"),
    [
        (Identity("esp32", "ESP32_GENERIC_S3", UNIQUE_ID), "not UNIX"),
        (Identity("linux", "standard", "00c0ffee0043"), "unique_id is " + UNIQUE_ID),
        (Identity("linux", "standard", ""), "without an id"),
        (Identity("linux", "standard", "00c0ffee0044"), "that of site office-b"),
    ],
)
def test_what_does_not_fit_the_inventory_is_named(operator, box, text):
    file = operator.directory / "fleet.toml"
    entry = '[site.office-b]\nunique_id = "00c0ffee0044"\n'
    file.write_text(file.read_text().replace("[site.office-b]\n", entry))
    fleet = inventory.load(file)
    with pytest.raises(FleetError, match=re.escape(text)):
        check_identity(fleet, fleet.site("office-a"), box)


def test_a_port_that_is_none_and_one_that_is_silent_are_said(operator, tmp_path):
    said = operator.haaro("provision", "office-a", "--port", "/dev/no-such-port", status=1)
    assert "is it the right port?" in said
    master, slave = os.openpty()
    try:
        said = operator.haaro("provision", "office-a", "--port", os.ttyname(slave), status=1)
        assert "no answer" in said
    finally:
        os.close(master)
        os.close(slave)


# --- the locked console, the log, the report -----------------------------------------------------


def test_the_locked_console_gives_no_prompt_and_no_ctrl_c(provisioned):
    """P2 of the threats, on the real program: a scripted session gets nothing but refusals."""
    terminal = Terminal(provisioned.port)
    until(lambda: (terminal.type("status\r"), terminal.serial.read(200))[1], 10)
    for text in ("\x03", "\x03\x03", "\x04", "\x01", "\x02", "\x05A\x01", "import os\r", "help\r"):
        terminal.type(text)
    terminal.type("\rstatus\r")
    terminal.read_until(b"error: locked; first: login\r\n")
    terminal.type("\x03status\r")
    terminal.read_until(b"error: locked; first: login\r\n")
    assert b">>>" not in terminal.seen and b"MicroPython" not in terminal.seen
    assert b"Traceback" not in terminal.seen and b"raw REPL" not in terminal.seen
    terminal.close()


def test_the_password_of_the_key_store_opens_the_console(provisioned, operator):
    password = operator.password("office-a")
    terminal = Terminal(provisioned.port)
    until(lambda: (terminal.type("\r"), terminal.serial.read(50))[1], 10)
    terminal.type("login\r")
    terminal.read_until(b"password: ")
    terminal.type(password + "\r")
    terminal.read_until(b"ok\r\n", 30)
    assert "profile: locked" in terminal.line("status")
    assert password.encode() not in terminal.seen
    terminal.close()


def test_console_from_a_pipe_and_its_statuses(provisioned, operator):
    port = ["--port", provisioned.port]
    said = operator.haaro("console", "office-a", *port, typed="status\nset name\n")
    assert "profile: locked" in said and 'name: "office-a"' in said
    assert "locked" in operator.haaro("console", *port, typed="status\n", status=1)
    assert "no such command" in operator.haaro("console", "office-a", *port, typed="x\n", status=1)


def test_logs_are_shown_and_followed(provisioned, operator):
    port = ["--port", provisioned.port]
    assert "console: login accepted" in operator.haaro("logs", "office-a", *port)
    said = operator.haaro("logs", "office-a", "--json", "-f", "--seconds", "1", *port)
    documents = [json.loads(line) for line in said.splitlines()]
    assert {each["schema"] for each in documents} == {"haaro.logs/1"}


def test_a_bug_report_has_what_is_needed_and_no_key(provisioned, operator):
    out = operator.directory / "report.tar.gz"
    done = operator.json("bugreport", "office-a", "--port", provisioned.port, "--out", out)
    assert done["schema"] == "haaro.bugreport/1"
    assert out.stat().st_mode & 0o777 == 0o600
    with tarfile.open(fileobj=io.BytesIO(out.read_bytes())) as bundle:
        parts = {
            member.name.removeprefix("haaro-bugreport/"): bundle.extractfile(member).read().decode()
            for member in bundle
        }
    assert set(parts) == set(done["parts"])
    assert f"unique_id: {UNIQUE_ID}" in parts["box/status.txt"]
    assert json.loads(parts["box/status-json.txt"])["name"] == "office-a"
    assert "uplinks" in parts["box/set.txt"] and "login accepted" in parts["box/show-log.txt"]
    for secret in operator.secrets():
        assert secret not in "".join(parts.values())


@pytest.mark.parametrize(
    "secret",
    ["ca" * 16, "1A6EC0DE" * 8, "c2Vjcm" * 8, "abcd-2345-efgh-67ij",
     '"key": "short"', '"krm": ["a", "b"]'],
)  # fmt: skip
def test_what_looks_like_a_key_is_taken_out_even_if_it_is_in_no_store(secret):
    text = f"unique_id: {'3d' * 16}\nwarning: uplink wan: {secret} came\nname: office-a\n"
    clean = redact(text, [])
    assert secret not in clean and "<secret>" in clean
    assert f"unique_id: {'3d' * 16}\n" in clean and "name: office-a" in clean


def test_a_known_secret_is_taken_out_whatever_it_looks_like():
    assert redact("it is Hunter2, hunter2", ["hunter2"]) == "it is <secret>, <secret>"


def test_signals_end_the_board_and_take_its_link_away(board):
    board.process.send_signal(signal.SIGTERM)
    board.process.wait(10)
    assert not os.path.lexists(board.port)
