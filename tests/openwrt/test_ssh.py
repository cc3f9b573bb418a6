"""`haaro flash SITE --ssh`: a real ssh server (dropbear, as on OpenWrt) before a box's directory.

Stand-ins: opkg, procd, rc.common. The box has processes and a network of its own in each session,
so the router that is started ends with it.
"""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haaro_host.flash import openwrt
from haaro_host.lab import system
from tests.fleet.conftest import quick, shop  # noqa: F401 (fixtures)
from tests.openwrt.conftest import box, of_this_machine

OPKG = Path(__file__).with_name("opkg.sh")
APPLETS = (
    "awk", "cp", "df", "gunzip", "gzip", "head", "sha256sum", "sync", "tail", "tar", "xargs",
)  # fmt: skip
_AGENT = """import json
print(json.dumps({"schema": "haaro.ha.status/1", "routers": [{"home_address": "192.0.2.129",
  "keys": [{"last_used_s": 0}], "binding": {"care_of_address": "203.0.113.10"}}]}))
"""


class Server:
    """dropbear on a port of this machine; who logs in is root of the box and of nothing else."""

    def __init__(self, place: Path, root: Path):
        self.place, self.root = place, root
        home = place / "home"
        (home / ".ssh").mkdir(parents=True)
        home.chmod(0o700)
        (home / ".ssh").chmod(0o700)
        key = place / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        keys = home / ".ssh" / "authorized_keys"
        keys.write_bytes(key.with_suffix(".pub").read_bytes())
        keys.chmod(0o600)
        (place / "passwd").write_text(f"root:x:0:0:root:{home}:/bin/sh\n")
        session = place / "session"
        mounts = "".join(f"mount --rbind {d} {root}{d}\n" for d in ("/dev", *of_this_machine()))
        session.write_text(
            f"#!/bin/sh\nset -e\n{mounts}mount -t proc proc {root}/proc\n"
            f'exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot {root} /bin/sh -c "$COMMAND"\n'
        )
        session.chmod(0o755)
        entry = place / "entry"
        entry.write_text(
            '#!/bin/sh\nexport COMMAND="$SSH_ORIGINAL_COMMAND"\n'
            f"exec unshare -mnp --fork --kill-child {session}\n"
        )
        entry.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        host_key = place / "host_key"
        subprocess.run(
            ["dropbearkey", "-t", "ed25519", "-f", host_key], check=True, capture_output=True
        )
        serve = f"mount --bind {place}/passwd /etc/passwd && exec dropbear -F -E -s -r {host_key}"
        serve += f" -p 127.0.0.1:{self.port} -P {place}/pid -c {entry}"
        self.log = place / "dropbear.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", serve], stdout=log, stderr=log
            )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    break
            time.sleep(0.05)

    def words(self, key="key"):
        """What is given to `haaro flash`."""
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        command = f"ssh -F /dev/null -p {self.port} -i {self.place / key} {options}"
        return ("--ssh", "root@127.0.0.1", "--ssh-command", command)

    def close(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def tree():
    """What the package brings; made once."""
    return openwrt.tree()


@pytest.fixture
def server(tmp_path, tree):
    """A box without the package, and its ssh server."""
    if not system.has_privileges():
        pytest.skip("needs root: mounts and a root directory of its own")
    for name, package in (("dropbear", "dropbear-bin"), ("ssh", "openssh-client")):
        if not shutil.which(name):
            pytest.skip(f"needs {name} (Debian package {package})")
    (tmp_path / "haaro.ipk").write_bytes(openwrt.ipk(tree))
    root = box(tmp_path / "haaro.ipk", tmp_path / "box")
    for name in tree:
        (root / name).unlink()
    shutil.rmtree(root / "control")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    shutil.copy(OPKG, root / "bin" / "opkg")
    (root / "bin" / "opkg").chmod(0o755)
    (root / "etc/machine-id").write_text("00c0ffee00420042\n")
    (root / "etc/openwrt_release").write_text("DISTRIB_DESCRIPTION='OpenWrt 24.10.3 r1'\n")
    opened = Server(tmp_path, root)
    yield opened
    opened.close()


@pytest.fixture
def site(shop, tmp_path, tree, monkeypatch):  # noqa: F811
    """A fleet whose office-a is an OpenWrt box; its home agent says that it has registered."""
    monkeypatch.setattr(openwrt, "tree", lambda: tree)
    shop.change("[site.office-a]\n", '[site.office-a]\nboard = "OPENWRT"\n')
    shop.run("keys", "new")
    (tmp_path / "ha.py").write_text(_AGENT)
    shop.change('ask_home_agent = ""', f'ask_home_agent = "{sys.executable} {tmp_path / "ha.py"}"')
    return shop


def test_one_command_makes_an_openwrt_box_the_site(site, server):
    said = site.run("flash", "office-a", *server.words())
    assert "office-a is up, at 203.0.113.10" in said
    root = server.root
    assert (root / "usr/lib/haaro/main.py").exists() and (root / "etc/rc.d/S95haaro").is_symlink()
    secrets = root / "etc/haaro/office_a/router.secrets.json"
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert len(json.loads(secrets.read_text())["mobile_home"]) == 1
    assert "192.0.2.129" in (root / "etc/config/haaro").read_text()
    assert (root / "var/run/opkg.log").read_text().count("install --force-reinstall") == 1
    calls = (root / "var/run/procd/log").read_text()
    assert "set_param command micropython" in calls, "the service was started"
    assert list((root / "tmp").glob("haaro-*")) == [], "the copies are gone"
    (line,) = (site.directory / "provision.log").read_text().splitlines()
    assert json.loads(line)["result"] == "up" and json.loads(line)["board"] == "OPENWRT"
    assert json.loads(line)["unique_id"] == "00c0ffee00420042"
    key = json.loads(secrets.read_text())["mobile_home"][0]["key"]
    assert key not in "".join(site.printed) + line


def test_given_again_it_brings_changed_files_and_keeps_the_rest_of_the_box(site, server):
    (server.root / "etc/config/network").write_text("config interface 'lan'\n")
    site.run("flash", "office-a", *server.words())
    site.change("lifetime = 300", "lifetime = 120")
    document = site.json("flash", "office-a", *server.words())
    assert (document["schema"], document["boxes"][0]["result"]) == ("haaro.flash/1", "up")
    assert "120" in (server.root / "etc/config/haaro").read_text()
    assert (server.root / "etc/config/network").read_text() == "config interface 'lan'\n"


def test_a_dry_run_asks_nobody(site):
    said = site.run("flash", "office-a", "--ssh", "root@192.0.2.250", "--dry-run")
    assert "office-a: fits board OPENWRT" in said and "/etc/config/haaro" in said


def fails(site, server, expected, status=1, key="key"):
    said = site.run("flash", "office-a", *server.words(key), "--wait", "0", status=status)
    assert expected in said
    return said


def test_what_goes_wrong_is_said_with_what_to_do(site, server):
    root = server.root
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", server.place / "other"], check=True
    )
    said = fails(site, server, "a key that the box knows is needed", key="other")
    assert "Permission denied" in said
    site.change('board = "OPENWRT"\n', 'board = "OPENWRT"\nunique_id = "0123456789ab"\n')
    fails(site, server, "the box is 00c0ffee00420042, not 0123456789ab")
    assert not (root / "etc/haaro").exists()
    site.change("0123456789ab", "00c0ffee00420042")
    opkg = (root / "bin/opkg").read_text()
    (root / "bin/opkg").write_text("#!/bin/sh\necho ' * Package is malformed.' >&2; exit 255\n")
    fails(site, server, "Package is malformed")
    # It says that it did, and did not.
    (root / "bin/opkg").write_text("#!/bin/sh\nmkdir -p /etc/init.d /usr/lib/haaro; exit 0\n")
    fails(site, server, "sha256sum")
    (root / "bin/opkg").write_text(
        opkg.replace("exit $status", "echo x >/usr/lib/haaro/main.py; exit 0")
    )
    fails(site, server, "/usr/lib/haaro/main.py does not hold what was installed")
    assert not (root / "etc/haaro/office_a").exists(), "no key goes to a box that is not whole"
    (root / "bin/opkg").unlink()
    fails(site, server, "has neither apk nor opkg")
    assert list((root / "tmp").glob("haaro-*")) == []


def test_usage(site):
    for words in (
        ("--ssh", "root@box", "--port", "/dev/ttyUSB0"),
        ("--ssh", "root@box", "--all"),
    ):
        site.run("flash", "office-a", *words, status=2)
    said = site.run("flash", "office-b", "--ssh", "root@box", status=2)
    assert "site.office-b.board is 'UNIX'" in said
