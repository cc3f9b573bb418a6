"""A console without a line: octets in and out by hand, a clock that is set, a box that is told."""

import base64
import hashlib
import json
import zlib

from haaro.shell import console as consoles
from haaro.shell import staging

CONFIG = {
    "version": 1,
    "name": "office-a",
    "home_address": "192.0.2.129",
    "home_agent": "192.0.2.1",
    "networks": ["10.1.0.0/24"],
    "uplinks": [{"name": "wan", "driver": "linux_netdev", "interface": "eth0"}],
}
KEY = "ca" * 4 + "1a6ec0de" * 7
PASSWORD = "correct-horse"
SALT = bytes(range(16))
ROUNDS = 40


def secrets_document(key=KEY, password=PASSWORD):
    """The secrets file of a box, with the password's hash made by CPython's own PBKDF2."""
    digest = hashlib.pbkdf2_hmac("sha256", password.encode(), SALT, ROUNDS)
    return {
        "version": 1,
        "mobile_home": [{"spi": 256, "algorithm": "hmac-sha256", "key": key}],
        "peers": [],
        "console": {"salt": SALT.hex(), "rounds": ROUNDS, "hash": digest.hex()},
    }


def octets(document):
    return (json.dumps(document) + "\n").encode()


def frames(name, data, step=144):
    """The lines that bring the file `name` to a console."""
    yield f"provision {name} {len(data)} {hashlib.sha256(data).hexdigest()}"
    for at in range(0, len(data), step):
        piece = data[at : at + step]
        yield f":{at} {base64.b64encode(piece).decode()} {zlib.crc32(piece):08x}"


class Clock:
    def __init__(self):
        self.ms = 0

    def now(self):
        return self.ms


class Door:
    """The line: what is typed waits in `typed`, what the console says is in `said`."""

    def __init__(self, capacity=None):
        self.typed = bytearray()
        self.said = bytearray()
        self.reader = self.writer = self
        self.gone = False
        self.closed = False
        self.interrupt = None
        self.capacity = capacity  # octets that the other end will still take; None: any number
        self.watched_output = False

    def interruptible(self, yes):
        self.interrupt = yes

    def attach(self, poll):
        pass

    def detach(self):
        pass

    def close(self):
        self.closed = True

    def want(self, output):
        self.watched_output = output

    def room(self):
        return self.capacity is None or self.capacity > 0

    def read(self):
        if self.typed:
            return self.typed.pop(0)
        return -2 if self.gone else -1

    def write(self, data):
        taken = data[:64] if self.capacity is None else data[: min(64, self.capacity)]
        if self.capacity is not None:
            self.capacity -= len(taken)
        self.said += taken
        return len(taken)


class Box:
    """A router as the console sees it."""

    problem = ""
    updater = None

    def __init__(self, router=None):
        self.registered = False
        self.router = router
        self.settings = None
        self.plane = None
        self.restarts = 0

    def restart(self):
        self.restarts += 1

    def answer(self, word):
        return {"asked": word}


class Desk:
    """A console on a directory, and who sits before it."""

    def __init__(self, directory, monkeypatch, profile=consoles.BENCH, provisioned=True):
        self.clock = Clock()
        monkeypatch.setattr(consoles, "Clock", lambda: self.clock)
        self.config = directory / "router.json"
        self.secrets = directory / "router.secrets.json"
        if provisioned:
            self.config.write_bytes(octets(CONFIG))
            self.secrets.write_bytes(octets(secrets_document()))
            self.secrets.chmod(0o600)
        self.doors = []
        self.console = consoles.Console(str(self.config), self._open, False)
        self.box = Box()
        self.console.attach(self.box, object(), profile, self.clock.ms)
        self.said()

    def _open(self):
        self.doors.append(Door())
        return self.doors[-1]

    @property
    def door(self):
        return self.doors[-1]

    def said(self):
        """What the console has said since it was asked last."""
        text, self.door.said = self.door.said.decode(errors="replace"), bytearray()
        return text

    def turn(self, ms=0):
        """Let time pass, and the console do what it has to."""
        self.clock.ms += ms
        self.console.tick(self.clock.ms)
        while self.console.busy:
            self.console.tick(self.clock.ms)

    def type(self, text):
        """Type octets; return all that is said to them."""
        self.door.typed += text.encode() if isinstance(text, str) else text
        for _ in range(200):
            self.console.handle(self.door, self.clock.ms)
            if not self.door.typed and not self.door.watched_output and not self.console.busy:
                break
            if self.console.busy:
                self.turn()
        return self.said()

    def line(self, text):
        """Type a line; return the lines of the answer, the echo left out."""
        lines = self.type(text + "\r").split("\r\n")
        assert lines[-1] == ""
        return lines[:-1] if text.startswith(":") else lines[1:-1]

    def send(self, name, data, step=144):
        for line in frames(name, data, step):
            answer = self.line(line)
            assert answer[-1] == "ok", answer
        return answer

    def next_box(self, profile=None, registered=False):
        """What the supervisor does after a restart."""
        self.console.detach()
        self.box = Box()
        self.box.registered = registered
        self.console.attach(self.box, object(), profile or self.console.profile, self.clock.ms)


def pair(directory):
    """The octets of both files, None for one that is not there."""
    found = []
    for name in (staging.CONFIG, staging.SECRETS):
        path = directory / name
        found.append(path.read_bytes() if path.exists() else None)
    return tuple(found)
