"""The lab's own duties: what an interrupted run left, rootless use, the internet's filter."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from haaro_host.lab import plan, system, topology
from haaro_host.lab.capture import Captures
from haaro_host.lab.lab import RUN, Lab
from haaro_host.lab.pcap import Reader

from . import conftest

NAME = f"{conftest.NAME}u"
ROOTLESS = f"{conftest.NAME}v"
_HERE = Path(__file__).parent


@pytest.fixture
def wired(privileged: None) -> Iterator[Lab]:
    """A lab with its network and no program."""
    lab = Lab(NAME, die_with_parent=True)
    with lab.exclusively():
        lab.build()
    yield lab
    lab.down()


def _ping(lab: Lab, node: str, address: str) -> bool:
    command = lab.inside(node, ["ping", "-n", "-c", "1", "-W", "1", address])
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_the_internet_drops_and_counts_a_source_of_another_net(wired: Lab) -> None:
    """BCP 38: a LAN source and a foreign care-of address are dropped, each in its own counter."""
    assert _ping(wired, "a", plan.office("c").care_of_address)
    assert _ping(wired, "c", plan.HOME_AGENT)
    assert not any(wired.counters().values())
    assert not _ping(wired, "ch", "192.0.2.1")
    assert wired.counters()["bcp38_c"] == 1
    forged = ["ip", "addr", "add", "203.0.113.77/32", "dev", "wan"]
    subprocess.run(wired.inside("a", forged), check=True)
    command = ["ping", "-n", "-c", "1", "-W", "1", "-I", "203.0.113.77", "192.0.2.1"]
    assert subprocess.run(wired.inside("a", command), capture_output=True).returncode != 0
    assert wired.counters()["bcp38_a"] == 1


def test_mobile_prefixes_have_no_route_in_the_internet(wired: Lab) -> None:
    """A packet to a mobile prefix from an honest source is dropped and counted."""
    assert not _ping(wired, "a", plan.office("c").lan_host)
    assert wired.counters()["mobile_prefix"] == 1


def test_cut_is_for_one_pair_both_ways_and_can_be_mended(wired: Lab) -> None:
    """The cut hits A and C only."""
    care_of = {office.node: office.care_of_address for office in plan.OFFICES}
    wired.cut("a", "c")
    assert not _ping(wired, "a", care_of["c"]) and not _ping(wired, "c", care_of["a"])
    assert _ping(wired, "a", care_of["b"]) and _ping(wired, "c", care_of["b"])
    assert wired.counters()["cut"] == 2
    wired.heal("a", "c")
    assert _ping(wired, "a", care_of["c"])


def test_the_recorder_sees_a_packet_on_both_links_it_crosses(wired: Lab, tmp_path: Path) -> None:
    """Captures hold the packet as it came in and as it went out, whole headers, nothing lost."""
    captures = Captures(wired, tmp_path)
    captures.start()
    assert _ping(wired, "a", plan.office("c").care_of_address)
    recorded = captures.stop()
    assert recorded["dropped"] == 0
    for link in ("a", "c"):
        packets = [data for _, data in Reader(tmp_path / f"{link}.pcap").raw()]
        assert [data[9] for data in packets] == [1, 1]
        assert all(int.from_bytes(data[2:4], "big") == 84 for data in packets)
    assert list(Reader(tmp_path / "b.pcap").raw()) == []


def test_down_cleans_up_after_an_interrupted_run(wired: Lab) -> None:
    """A run that died in the middle leaves namespaces and a process; `down` finds both."""
    stray = subprocess.Popen(wired.inside("ah", ["sleep", "300"]))
    # A new object knows what the state file says, as the next command does.
    done = Lab(NAME).down()
    assert any("was still there, killed" in line for line in done)
    assert stray.wait(5) != 0
    assert topology.existing(NAME) == []
    assert not (RUN / NAME).exists()


def test_up_removes_what_an_interrupted_run_left(wired: Lab) -> None:
    """Building over the rest of an interrupted run starts from nothing."""
    subprocess.run(["ip", "netns", "delete", plan.namespace(NAME, "b")], check=True)
    said: list[str] = []
    again = Lab(NAME)
    with again.exclusively():
        again.build(said.append)
    assert said == ["removing what an interrupted run left"]
    assert len(topology.existing(NAME)) == len(plan.NODES)


def test_keys_are_random_and_private(wired: Lab) -> None:
    """Secret files are 0600 and every lab has keys of its own."""
    secret = wired.files.router_secrets("a")
    assert secret.stat().st_mode & 0o777 == 0o600
    assert wired.files.ha_secrets.stat().st_mode & 0o777 == 0o600
    before = secret.read_text()
    wired.down()
    with wired.exclusively():
        wired.build()
    assert secret.read_text() != before


def test_exec_runs_in_the_node_and_gives_back_its_exit_status(wired: Lab) -> None:
    """`lab exec` is the command itself; a wrong node is refused with those that exist."""
    haaro = [*system.haaro_command(), "lab", "exec", "--name", NAME]
    words = ["ch", "--", "sh", "-c", "ip -br -4 addr; exit 7"]
    done = subprocess.run([*haaro, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert plan.office("c").lan_host in done.stdout
    refused = subprocess.run([*haaro, "d", "true"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "no node 'd' in the lab: there are inet, ha, hq, a" in refused.stderr


def test_a_name_that_cannot_prefix_a_namespace_is_refused() -> None:
    """The message says what is allowed."""
    with pytest.raises(ValueError, match="allowed are a letter, then up to 23 of a-z"):
        Lab("no/such")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("haaro")),
            "lab",
            "demo",
            "--out",
            str(tmp_path / "file" / "out"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--out" in done.stderr and "may write to" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_and_down_work_without_root_in_a_user_namespace(privileged: None) -> None:
    """The whole lab comes up and goes inside `unshare -Urnm`."""
    if not system.user_namespaces_allowed():
        pytest.skip("user namespaces are not allowed on this machine (unshare -Urnm fails)")
    haaro = " ".join(system.haaro_command()[:1])
    words = [f"{haaro} lab {word} --name {ROOTLESS}" for word in ("up", "status", "down")]
    done = subprocess.run(
        ["unshare", "-Urnm", "sh", "-c", " && ".join(words)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert topology.existing(ROOTLESS) == [], "it touched this machine's own namespaces"


@pytest.mark.timeout(600)
def test_without_root(tmp_path: Path) -> None:
    """Without root the topology tests run inside `unshare -Urnm`; with root they ran already."""
    if os.geteuid() == 0:
        pytest.skip("root: the topology tests run directly")
    if not system.user_namespaces_allowed():
        pytest.skip(system.explain_privileges())
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("/dev/net/tun is not open to this user")
    # A base of its own: inside, the user is called root, and root's is not ours to write.
    base = f"--basetemp={tmp_path / 'inside'}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", base, str(_HERE)]
    done = subprocess.run(["unshare", "-Urnm", *command], check=False, timeout=580)
    assert done.returncode == 0
