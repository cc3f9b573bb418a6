"""A board on a pty: real MicroPython in a network of its own; each test its own flash."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import serial

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PASSPHRASE = "correct horse battery"
UNIQUE_ID = "00c0ffee0042"
KEYS = ("key", "secret", "krm", "hash", "salt")


@dataclass
class BoardProcess:
    """One board; `port` always leads to it."""

    place: Path
    options: tuple = ()
    prefix: tuple = ()
    process: subprocess.Popen | None = None

    @property
    def flash(self):
        return self.place / "flash"

    @property
    def port(self):
        return str(self.place / "port")

    @property
    def log(self):
        return self.place / "board.log"

    def power_on(self):
        self.flash.mkdir(exist_ok=True)
        command = [*self.prefix, sys.executable, "-m", "haaro_host.lab.board"]
        command += [str(self.flash), self.port, "--unique-id", UNIQUE_ID, *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until(lambda: Path(self.port).exists() or self.process.poll() is not None, 20)
        assert self.process.poll() is None, self.log.read_text()

    def power_cut(self):
        """The board loses its power for a moment."""
        self.process.send_signal(signal.SIGUSR1)

    def power_off(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)

    def install(self, *names):
        """Put the router's program, and files, into the flash as if it had been flashed."""
        self.flash.mkdir(exist_ok=True)
        firmware = ROOT / "firmware"
        shutil.copy(firmware / "main.py", self.flash)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(firmware / "haaro", self.flash / "haaro", ignore=ignore)
        for name in names:
            shutil.copy2(name, self.flash)


def until(condition, seconds):
    """Wait for `condition`; return its last value."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


class Terminal:
    """Somebody at the port: types, and reads until something is there. Keeps all that was said."""

    def __init__(self, port):
        self.serial = serial.Serial(port, timeout=0.05)
        self.seen = b""

    def type(self, text):
        self.serial.write(text if isinstance(text, bytes) else text.encode())

    def read_until(self, wanted, seconds=15):
        """Return what came, up to `wanted` (bytes); fail when it does not."""
        end = time.monotonic() + seconds
        data = b""
        while wanted not in data:
            assert time.monotonic() < end, (wanted, data)
            piece = self.serial.read(max(1, self.serial.in_waiting))
            data += piece
            self.seen += piece
        return data

    def line(self, text, end=b"ok\r\n"):
        self.type(text + "\r")
        return self.read_until(end).decode()

    def close(self):
        self.serial.close()


@dataclass
class Operator:
    """Runs `haaro` as a person does; keeps everything that it printed or wrote."""

    directory: Path
    printed: list = field(default_factory=list)

    def haaro(self, *arguments, status=0, typed=None):
        done = subprocess.run(
            [BIN / "haaro", *map(str, arguments)],
            cwd=self.directory,
            env={**os.environ, "HAARO_PASSPHRASE": PASSPHRASE},
            input=typed,
            stdin=None if typed is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=110,
        )
        self.printed += [done.stdout, done.stderr]
        assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def json(self, *arguments, status=0):
        return json.loads(self.haaro(*arguments, "--json", status=status))

    def secrets(self):
        """Every secret of the key store and what is made of it."""
        from haaro_host.fleet import inventory, store
        from haaro_host.provision.bugreport import secrets_of

        fleet = inventory.load(self.directory / "fleet.toml")
        os.environ["HAARO_PASSPHRASE"] = PASSPHRASE
        try:
            return secrets_of(store.open_store(fleet, None).keys, fleet)
        finally:
            del os.environ["HAARO_PASSPHRASE"]

    def password(self, site):
        out = self.directory / f"{site}.password"
        self.haaro("keys", "console", site, "--out", out)
        assert out.stat().st_mode & 0o777 == 0o600
        text = out.read_text().strip()
        out.unlink()
        return text


@pytest.fixture
def board(tmp_path):
    """A blank board, powered on."""
    made = BoardProcess(tmp_path)
    made.power_on()
    yield made
    made.power_off()


@pytest.fixture
def quiet_board(tmp_path):
    """A board that is off: the test fills its flash and powers it on."""
    made = BoardProcess(tmp_path)
    yield made
    made.power_off()


@pytest.fixture
def operator(tmp_path):
    """A fleet of two sites with keys."""
    place = tmp_path / "office"
    place.mkdir()
    made = Operator(place)
    made.haaro("fleet", "init")
    made.haaro("fleet", "add", "office-a", "--unique-id", UNIQUE_ID)
    made.haaro("fleet", "add", "office-b")
    file = place / "fleet.toml"
    file.write_text(file.read_text().replace('peers = "none"', 'peers = "all"'))
    text = file.read_text()
    if "[defaults.router]" in text:
        where = f'[defaults.router]\nsocket = "{tmp_path}/router.sock"\n'
        file.write_text(text.replace("[defaults.router]\n", where, 1))
    made.haaro("keys", "new")
    return made


@pytest.fixture
def terminal(board):
    made = Terminal(board.port)
    yield made
    made.close()
