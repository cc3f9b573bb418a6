"""The board as mpremote and Thonny see it, and the bench profile of the real program."""

import hashlib
import os
import subprocess

import pytest

from tests.board.conftest import BIN, UNIQUE_ID, Terminal, until


def mpremote(board, *arguments, direct=False, timeout=60):
    port = os.path.realpath(board.port) if direct else board.port
    done = subprocess.run(
        [BIN / "mpremote", "connect", port, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return done.returncode, done.stdout.replace("\r", ""), done.stderr


@pytest.mark.parametrize("direct", [False, True], ids=["link", "pty"])
def test_unmodified_mpremote_executes_and_copies(board, tmp_path, direct):
    assert mpremote(board, "exec", "print(6 * 7)", direct=direct) == (0, "42\n", "")
    data = os.urandom(7000)
    (tmp_path / "up").write_bytes(data)
    assert mpremote(board, "fs", "cp", str(tmp_path / "up"), ":there", direct=direct)[0] == 0
    assert (board.flash / "there").read_bytes() == data
    assert mpremote(board, "fs", "cp", ":there", str(tmp_path / "back"))[0] == 0
    assert (tmp_path / "back").read_bytes() == data
    code, listing, _ = mpremote(board, "fs", "ls", direct=direct)
    assert code == 0 and "there" in listing
    code, digest, _ = mpremote(board, "fs", "sha256sum", ":there")
    assert hashlib.sha256(data).hexdigest() in digest


def test_the_board_has_an_id_as_a_microcontroller_has(board):
    code, said, _ = mpremote(board, "exec", "import machine; print(machine.unique_id().hex())")
    assert (code, said) == (0, UNIQUE_ID + "\n")


def test_a_program_that_hangs_is_interrupted_by_the_next_client(board):
    with pytest.raises(subprocess.TimeoutExpired):
        mpremote(board, "exec", "while True: pass", timeout=3)
    assert mpremote(board, "exec", "print('alive')") == (0, "alive\n", "")


def test_soft_reset_and_a_power_cut_start_main_py_again(board, terminal):
    (board.flash / "main.py").write_text("print('MAIN')\nwhile True: pass\n")
    terminal.type("\x04")
    assert b"MPY: soft reboot\r\nMAIN" in terminal.read_until(b"MAIN")
    terminal.type("\x03")
    terminal.read_until(b">>> ")
    board.power_cut()
    terminal.read_until(b"MAIN")


def test_a_raw_soft_reset_does_not_start_main_py(board):
    (board.flash / "main.py").write_text("print('MAIN')\nwhile True: pass\n")
    assert mpremote(board, "soft-reset", "exec", "print(1)")[1].endswith("1\n")


def test_ctrl_c_gives_the_repl_until_provisioned_and_ctrl_d_the_console(quiet_board):
    quiet_board.install()
    quiet_board.power_on()
    terminal = Terminal(quiet_board.port)
    terminal.read_until(b"Ctrl-C gives the REPL")
    assert "state: not provisioned" in terminal.line("status")
    terminal.type("\x03")
    terminal.read_until(b">>> ")
    terminal.type("1 + 1\r")
    terminal.read_until(b"\n2\n>>> ")
    terminal.type("\x04")
    terminal.read_until(b"MPY: soft reboot")
    terminal.read_until(b"haaro console")
    assert "profile: bench" in terminal.line("status")
    terminal.close()
    # And mpremote takes the line from the console by itself.
    assert mpremote(quiet_board, "exec", "print(2)") == (0, "2\n", "")


def test_the_console_does_not_spam(quiet_board):
    """A Thonny user's console stays quiet: nothing is said that was not asked for."""
    quiet_board.install()
    quiet_board.power_on()
    terminal = Terminal(quiet_board.port)
    terminal.read_until(b"the REPL\r\n")
    before = terminal.seen
    terminal.line("status")
    terminal.line("status")
    uptime = [w for w in terminal.seen.decode().split("\r\n") if w.startswith("uptime_s")]
    until(lambda: "uptime_s: 3" in terminal.line("status"), 10)
    said = terminal.seen[len(before) :].decode()
    assert said.count("state: not provisioned") == said.count("\r\nok\r\n")
    assert len(uptime) == 2
    terminal.close()
