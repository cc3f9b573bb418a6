"""The real `haaro ha` process in a network namespace of its own, and datagrams to it.

Run as a program inside the namespace it is the far side: it sends what its stdin asks and prints
what comes back, one JSON line each.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from haaro_host.home_agent.clock import stamp
from haaro_host.home_agent.store import Store
from tests.host.home_agent_helpers import HOA_A, KEY

NTP_UNIX_MS = 2_208_988_800_000

PYTHON = sys.executable
DEADLINE_S = 20.0

CONFIG = """
[home_agent]
address = "192.0.2.1"
state = "state.sqlite"
secrets = "ha.secrets.toml"
socket = "ha.sock"
interface = "haaro-ha0"
home_addresses = ["192.0.2.128/25"]
home_networks = ["10.0.0.0/24"]

[[router]]
name = "A"
home_address = "192.0.2.129"
prefixes = ["10.1.0.0/24"]

[[router]]
name = "B"
home_address = "192.0.2.130"
prefixes = ["10.2.0.0/24"]
"""

# Addresses of both sides on the loopback; the home network behind a second device.
SET_UP = """
ip link set lo up
ip addr add 192.0.2.1/32 dev lo
ip addr add 198.51.100.10/32 dev lo
ip addr add 198.51.100.74/32 dev lo
ip addr add 203.0.113.10/32 dev lo
"""


def unshare_flags():
    """Return the flags that make a network namespace here, or skip the test."""
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun is not open to this user")
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("unshare and nsenter (util-linux) are missing")
    for flags in (["-n"], ["-U", "-r", "-n"]):
        if subprocess.run(["unshare", *flags, "true"], capture_output=True).returncode == 0:
            return flags
    pytest.skip("neither root nor user namespaces: no network namespace can be made")


class Namespace:
    """A network namespace with both ends' addresses; `exchange` speaks from the routers' ones."""

    def __init__(self):
        flags = unshare_flags()
        self._user = "-U" in flags
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        self._helper = subprocess.Popen(
            ["unshare", *flags, PYTHON, "-m", "tests.host.home_agent_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert json.loads(self._helper.stdout.readline()) == "ready"

    def command(self, argv):
        """Return `argv` so that it runs in the namespace."""
        user = ["-U", "--preserve-credentials"] if self._user else []
        return ["nsenter", "-t", str(self._helper.pid), *user, "-n", *argv]

    def exchange(self, data, src="198.51.100.10", sport=434, wait_s=DEADLINE_S, expect=1, times=1):
        """Send `data` from `src`:`sport` to the home agent; return `expect` answers or fewer.

        The type of service of each answer is in `marks` afterwards.
        """
        request = {"src": src, "sport": sport, "data": data.hex(), "wait_s": wait_s, "n": expect}
        self._helper.stdin.write(json.dumps({**request, "times": times}) + "\n")
        self._helper.stdin.flush()
        answers = json.loads(self._helper.stdout.readline())
        self.marks = [tos for _, tos in answers]
        return [bytes.fromhex(text) for text, _ in answers]

    def close(self):
        """End the helper; the namespace goes with its last process."""
        self._helper.stdin.close()
        self._helper.wait(DEADLINE_S)


class Process:
    """`haaro ha` on the configuration in `directory`."""

    def __init__(self, namespace, directory, preamble=""):
        self.directory = directory
        self._namespace = namespace
        code = f"{preamble}\nfrom haaro_host.cli import main\nmain()"
        self.log = open(directory / "log", "ab")  # noqa: SIM115
        self.popen = subprocess.Popen(
            namespace.command([PYTHON, "-c", code, "ha", "--config", str(directory / "ha.toml")]),
            stdout=self.log,
            stderr=self.log,
        )

    def wait_ready(self):
        """Wait until it answers on its socket."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            assert self.popen.poll() is None, self.text()
            try:
                return self.ask("status")
            except OSError:
                select.select([], [], [], 0.02)
        raise AssertionError("not ready: " + self.text())

    def ask(self, word):
        """Return the JSON answer to `word`."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE_S)
            connection.connect(str(self.directory / "ha.sock"))
            connection.sendall(word.encode() + b"\n")
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        return json.loads(answer)

    def kill(self):
        """SIGKILL, as a power cut."""
        self.popen.kill()
        return self.wait()

    def terminate(self):
        """SIGTERM."""
        self.popen.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self):
        """Return the exit status."""
        status = self.popen.wait(DEADLINE_S)
        self.log.close()
        return status

    def text(self):
        """Return all it wrote."""
        return (self.directory / "log").read_text()


def write_config(directory, text=CONFIG, key=KEY):
    """Write ha.toml, its secrets file, and a state file that is not the first: no floor [R3]."""
    state = directory / "state.sqlite"
    if not state.exists():
        store = Store(str(state))
        hour_ago = time.time_ns() // 10**6 + NTP_UNIX_MS - 3_600_000
        store.seen(HOA_A, stamp(hour_ago).to_bytes(8, "big"))
        store.close()
    (directory / "ha.toml").write_text(text)
    lines = [
        f'[[router]]\nname = "{n}"\nspi = 256\nalgorithm = "hmac-sha256"\nkey = "{key.hex()}"\n'
        for n in "AB"
        if f'name = "{n}"' in text
    ]
    secrets = directory / "ha.secrets.toml"
    secrets.write_text("\n".join(lines))
    secrets.chmod(0o600)


def _answer(line, sockets):
    request = json.loads(line)
    where = (request["src"], request["sport"])
    if where not in sockets:
        sockets[where] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets[where].setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        sockets[where].bind(where)
    far = sockets[where]
    data = bytes.fromhex(request["data"])
    for _ in range(request["times"]):
        far.sendto(data, ("192.0.2.1", 434))
    deadline = time.monotonic() + request["wait_s"]
    answers = []
    while len(answers) < request["n"]:
        readable, _, _ = select.select([far], [], [], max(0, deadline - time.monotonic()))
        if not readable:
            break
        received, ancillary, _, _ = far.recvmsg(65536, 64)
        answers.append((received.hex(), ancillary[0][2][0]))
    return answers


def main():
    """The helper inside the namespace."""
    for command in SET_UP.split("\n"):
        subprocess.run(command.split(), check=True) if command else None
    print(json.dumps("ready"), flush=True)
    sockets = {}
    for line in sys.stdin:
        print(json.dumps(_answer(line, sockets)), flush=True)


if __name__ == "__main__":
    main()
