"""`lan` with driver linux_vlan: the kernel's VLAN interface is asked for, used and taken away."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haaro.platform import linux_vlan
from tests.lan.conftest import OURS

ROOT = Path(__file__).resolve().parents[2]
LAN = {"driver": "linux_vlan", "address": (OURS, 24), "interface": "v1", "vlan": 10}
MICROPYTHON = os.environ.get("MICROPYTHON") or str(Path(sys.executable).parent / "micropython")
NAME = f"haaro-v{os.getpid()}"

# What `ip link add link v1 name v1.10 type vlan id 10` of iproute2 6.1 sends after the netlink
# header, as strace shows it (little-endian); v1 had index 3.
OF_IPROUTE2 = bytes.fromhex(
    "00000000000000000000000000000000"
    "0800050003000000"
    "0a00030076312e31300000001800120008000100766c616e0c0002000600010"
    "00a000000"
)
_NESTED = 0x8000


def attributes(octets: bytes) -> list:
    """[(type without its flags, value)], nested where this message has it."""
    found = []
    while octets:
        length = int.from_bytes(octets[:2], "little")
        kind = int.from_bytes(octets[2:4], "little") & ~_NESTED
        value = octets[4:length]
        if kind == 18:
            value = [(1, value[4:8]), (2, attributes(value[12:]))]
        found.append((kind, value))
        octets = octets[(length + 3) & ~3 :]
    return found


@pytest.mark.skipif(sys.byteorder != "little", reason="the record is little-endian")
def test_the_request_is_the_one_that_iproute2_sends():
    ours = linux_vlan.vlan_body(3, "v1.10", 10)
    assert ours[:16] == OF_IPROUTE2[:16]
    assert attributes(ours[16:]) == attributes(OF_IPROUTE2[16:])


class Kernel:
    """Answers for routing and netlink; `links` are {name: (index, alias)}."""

    def __init__(self, links, error=0) -> None:
        self.links = dict(links)
        self.error = error
        self.requests: list = []

    def link(self, interface):
        index, alias = self.links.get(interface, (0, b""))
        return index, 0, {20: alias}

    def request(self, kind, flags, body):
        self.requests.append((kind, body))
        if kind == 16 and flags and self.error:
            raise OSError(self.error, "refused")
        if kind == 16 and flags:
            self.links["v1.10"] = (9, b"")
        return []

    def close(self):
        self.requests.append("closed")

    def kinds(self):
        return [each if each == "closed" else each[0] for each in self.requests]


def test_an_interface_that_was_made_is_removed_at_the_end():
    kernel = Kernel({"v1": (3, b"")})
    lan = linux_vlan.LinuxVlan(kernel, LAN, kernel)
    assert (lan.interface, lan.index) == ("v1.10", 9)
    # Made, the parent up, its mark, the address, up.
    assert kernel.kinds() == [16, 16, 16, 20, 16]
    assert OURS in kernel.requests[3][1]
    lan.close()
    assert kernel.kinds()[5:] == [17, "closed"]


@pytest.mark.parametrize(("alias", "removed"), [(b"haaro\0", True), (b"", False)])
def test_one_that_was_there_is_removed_only_if_a_router_made_it(alias, removed):
    kernel = Kernel({"v1": (3, b""), "v1.10": (8, alias)})
    lan = linux_vlan.LinuxVlan(kernel, LAN, kernel)
    assert kernel.kinds() == [20, 16]
    lan.close()
    assert (17 in kernel.kinds()) is removed


def test_a_missing_parent_and_a_kernel_without_802_1q_are_named():
    with pytest.raises(ValueError, match=r"lan\.interface: v1: there is no such interface"):
        linux_vlan.LinuxVlan(Kernel({}), LAN, Kernel({}))
    kernel = Kernel({"v1": (3, b"")}, error=95)
    with pytest.raises(ValueError, match=r"lan\.vlan: 10: this kernel has no 802\.1Q: load"):
        linux_vlan.LinuxVlan(kernel, LAN, kernel)


SCRIPT = """
import sys
from haaro.platform.linux_routing import LinuxRouting
from haaro.platform.linux_vlan import LinuxVlan
try:
    lan = LinuxVlan(
        LinuxRouting(), {"interface": "v1", "vlan": 10, "address": (bytes((10, 1, 0, 1)), 24)}
    )
except ValueError as error:
    print(error)
    sys.exit()
print("made")
sys.stdin.readline()
lan.close()
"""


@pytest.fixture
def namespace():
    """A namespace with a cable v1 to v2."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2")
    subprocess.run(["ip", "netns", "add", NAME], check=True)
    try:
        ip("link", "add", "v1", "type", "veth", "peer", "name", "v2")
        ip("link", "set", "v2", "up")
        yield NAME
    finally:
        subprocess.run(["ip", "netns", "del", NAME], check=True)


def ip(*command: str, check: bool = True) -> str:
    done = subprocess.run(["ip", "-n", NAME, *command], capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def has_8021q() -> bool:
    ip("link", "add", "link", "v2", "name", "probe", "type", "vlan", "id", "9", check=False)
    found = "probe" in ip("link", "show")
    ip("link", "del", "probe", check=False)
    return found


@pytest.fixture
def start(namespace, tmp_path):
    """Return a function that starts the router's side in MicroPython; it gives its first line."""
    (tmp_path / "router.py").write_text(SCRIPT)
    return lambda: run_in(namespace, str(tmp_path / "router.py"))


def run_in(namespace: str, script: str):
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, MICROPYTHON, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MICROPYPATH": str(ROOT / "firmware")},
    )
    return process, process.stdout.readline().strip()


def test_the_kernel_is_asked_and_its_answer_understood(start):
    process, said = start()
    try:
        if has_8021q():
            assert said == "made"
            shown = ip("-d", "address", "show", "dev", "v1.10")
            assert "vlan protocol 802.1Q id 10" in shown and "10.1.0.1/24" in shown
        else:
            assert "this kernel has no 802.1Q" in said
    finally:
        process.communicate("\n", timeout=30)
    assert "v1.10" not in ip("link", "show")


def test_an_interface_of_that_name_gets_the_address_and_stays(start):
    ip("link", "add", "v1.10", "type", "veth", "peer", "name", "w1")
    process, said = start()
    try:
        assert said == "made"
        assert "10.1.0.1/24" in ip("address", "show", "dev", "v1.10")
        assert "UP" in ip("link", "show", "dev", "v1.10")
    finally:
        process.communicate("\n", timeout=30)
    assert "v1.10" in ip("link", "show")


def test_a_tagged_ping_of_a_real_host(start):
    if not has_8021q():
        pytest.skip("this kernel has no 802.1Q (module 8021q)")
    other = NAME + "h"
    subprocess.run(["ip", "netns", "add", other], check=True)
    try:
        ip("link", "set", "v2", "netns", other)
        for command in (
            "link set v2 up",
            "link add link v2 name v2.10 type vlan id 10",
            "address add 10.1.0.10/24 dev v2.10",
            "link set v2.10 up",
        ):
            subprocess.run(["ip", "-n", other, *command.split()], check=True)
        process, said = start()
        try:
            assert said == "made"
            subprocess.run(
                ["ip", "netns", "exec", other, "ping", "-n", "-c", "2", "-w", "20", "10.1.0.1"],
                check=True,
                capture_output=True,
            )
        finally:
            process.communicate("\n", timeout=30)
    finally:
        subprocess.run(["ip", "netns", "del", other], check=True)


@pytest.mark.parametrize(
    ("lan", "says"),
    [
        ({"driver": "w5500"}, "lan.driver: w5500: is for microcontrollers"),
        ({"driver": "linux_vlan", "interface": "absent", "vlan": 10}, "lan.interface: absent: "),
    ],
)
def test_the_router_ends_with_what_is_wrong_with_its_lan(namespace, tmp_path, lan, says):
    router = {
        "version": 1,
        "name": "A",
        "home_address": "192.0.2.129",
        "home_agent": "192.0.2.1",
        "networks": ["10.1.0.0/24"],
        "uplinks": [{"name": "wan", "driver": "linux_netdev", "interface": "v2"}],
        "socket": str(tmp_path / "socket"),
        "dataplane": "userspace",
        "lan": {**lan, "address": "10.1.0.1/24"},
    }
    keys = [{"spi": 256, "algorithm": "hmac-sha256", "key": "00112233445566778899aabbccddeeff"}]
    (tmp_path / "router.json").write_text(json.dumps(router))
    (tmp_path / "router.secrets.json").write_text(json.dumps({"version": 1, "mobile_home": keys}))
    (tmp_path / "router.secrets.json").chmod(0o600)
    main = [str(ROOT / "firmware" / "main.py"), "--config", str(tmp_path / "router.json")]
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, MICROPYTHON, "-X", "heapsize=448k", *main],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert says in done.stderr
