"""What must not leave by the uplink in the clear does not, for each `internet` and `lan_ipv6`:
while the router runs, is killed, starts again, and has no home agent.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from haaro_host.lab import plan, processes, topology
from haaro_host.lab.lab import Lab
from haaro_host.lab.plan import Layout
from haaro_host.lab.traffic import Hosts

from .conftest import ARTIFACTS, NAME, until

A, _, C = plan.OFFICES
_OUTSIDE = "198.18.0.1"
_NEIGHBOUR = A.gateway  # in the net of A's uplink
_LISTED = "192.0.2.200"  # of the organisation, by configuration only
_PORT = 9
_LAN_6, _WAN_6, _OUTSIDE_6 = "2001:db8:1::", "2001:db8:99::", "2001:db8:ff::1"
_PUBLIC = {_OUTSIDE, _NEIGHBOUR}
_INSIDE = {"10.77.0.1", "172.16.5.5", "192.168.3.3", "100.64.9.9", "10.3.0.10", "10.0.0.10",
           C.home_address, plan.HOME_AGENT, _LISTED}  # fmt: skip

_TALKER = """
import socket, sys, time
pairs = [(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in sys.argv[1:]]
sockets = {f: socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6)}
while True:
    for family, address in pairs:
        try:
            sockets[family].sendto(b"office", (address, 9))
        except OSError:
            pass  # an ICMP error told of an earlier one
    time.sleep(0.01)
"""
_LISTENER = """
import json, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)
s.bind((sys.argv[1], 0))
seen = set()
print("ready", flush=True)
while True:
    frame, (_, _, kind, *_) = s.recvfrom(2048)
    if kind == 4:  # leaves by this port
        continue
    protocol, packet = int.from_bytes(frame[12:14], "big"), frame[14:]
    what = ["other", hex(protocol)]
    if protocol == 0x800:
        port = int.from_bytes(packet[20:22], "big")
        addresses = [socket.inet_ntop(socket.AF_INET, packet[i:i + 4]) for i in (12, 16)]
        what = ["4", *addresses, packet[9], port]
    elif protocol == 0x86DD:
        addresses = [socket.inet_ntop(socket.AF_INET6, packet[i:i + 16]) for i in (8, 24)]
        what = ["6", *addresses, packet[6], 0]
    if str(what[:4]) not in seen or what[-1] == 434:
        line = json.dumps(what)
        if line not in seen:
            print(line, flush=True)
        seen.update((str(what[:4]), line))
"""
_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 7))
print("ready", flush=True)
while True:
    data, source = s.recvfrom(2048)
    s.sendto(data + source[0].encode(), source)
"""
_ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
for n in range(int(sys.argv[2])):
    try:
        s.sendto(b"%d " % n, (sys.argv[1], 7))
        print(s.recv(2048).decode().split()[1])
        break
    except OSError:
        pass
else:
    print("silence")
"""


@dataclass
class Site:
    """A lab with A's router configured as the test wants, its uplink recorded."""

    lab: Lab
    hosts: Hosts
    internet: str
    lan_ipv6: str

    def program(self, node: str, code: str, *arguments: str, log: str) -> None:
        """Start a Python program in `node`; wait for its first line if it says one."""
        command = [sys.executable, "-S", "-E", "-u", "-c", code, *arguments]
        process = self.hosts.start(node, command, log)
        if "ready" in code:
            path = self.hosts.logs / log
            until(lambda: "ready" in path.read_text(), 5.0, f"{log} did not start")
        assert not processes.gone(process)

    def uplink(self) -> list[list]:
        """What A's uplink carried up to now: [version, source, destination, protocol, port]."""
        text = (self.hosts.logs / "uplink.log").read_text()
        return [json.loads(line) for line in text.splitlines()[1:] if line.endswith("]")]

    def outside_answers(self, tries: int = 6) -> str:
        """What the server outside saw as source of a packet from A's office, or "silence"."""
        command = [sys.executable, "-S", "-E", "-c", _ASK, _OUTSIDE, str(tries)]
        return self.hosts.run("ah", command, 10).strip()

    def leaks(self) -> list[list]:
        """The packets that may not have left by A's uplink."""
        return [row for row in self.uplink() if not self._allowed(*row)]

    def _allowed(self, version, source="", destination="", protocol=0, port=0) -> bool:
        if version == "6":
            # Neighbour discovery of the box itself; what the office sent has its prefix.
            return self.lan_ipv6 == "local" or not source.startswith(_LAN_6)
        if version != "4":
            return True
        if source != A.care_of_address or destination in _INSIDE - {
            plan.HOME_AGENT,
            C.home_address,
        }:
            return False
        if (protocol, port) == (17, plan.MIP_PORT) or (protocol, port >> 8) == (1, 3):
            return True  # a tunnel, signalling, or the box itself: nobody listens here
        return self.internet == "local" and destination in _PUBLIC


def _second_protocol(lab: Lab, hosts: Hosts) -> None:
    """IPv6 in A's office and on its uplink, routed; and a server outside."""
    for node in ("a", "ah", "inet"):
        hosts.run(node, ["sh", "-c", "for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; "
                         'do case $f in *haaro*) ;; *) echo 0 > "$f";; esac; done; '
                         "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"], 5)  # fmt: skip
    for node, words in (
        ("ah", f"address add {_LAN_6}10/64 dev eth0 nodad"),
        ("a", f"address add {_LAN_6}1/64 dev lan nodad"),
        ("a", f"address add {_WAN_6}2/64 dev wan nodad"),
        ("inet", f"address add {_WAN_6}1/64 dev {plan.port_to('a')} nodad"),
        ("inet", f"address add {_OUTSIDE_6}/128 dev lo nodad"),
        ("inet", f"address add {_OUTSIDE}/32 dev lo"),
        ("ah", f"route add default via {_LAN_6}1"),
        ("a", f"route add default via {_WAN_6}1"),
        ("inet", f"route add {_LAN_6}/64 via {_WAN_6}2"),
    ):
        family = ["-6"] if "::" in words else []
        hosts.run(node, ["ip", *family, *words.split()], 5)


@pytest.fixture(params=[("ha", "block"), ("local", "block"), ("block", "local")], ids="-".join)
def site(request: pytest.FixtureRequest, privileged: None) -> Iterator[Site]:
    """The lab with A and C, configured and recorded; nothing of haaro runs yet."""
    out = ARTIFACTS / f"test_leaks-{'-'.join(request.param)}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True, layout=Layout(offices=(A, C)))
    hosts = Hosts(NAME, plan.HOST_ADDRESS, out / "logs")
    site = Site(lab, hosts, *request.param)
    failed_before = request.session.testsfailed
    broken = True
    try:
        with lab.exclusively():
            lab.build()
            path = lab.files.router_config("a")
            config = json.loads(path.read_text())
            config.update(internet=site.internet, lan_ipv6=site.lan_ipv6,
                          organisation=["192.0.2.192/26"])  # fmt: skip
            path.write_text(json.dumps(config))
            _second_protocol(lab, hosts)
            site.program("inet", _LISTENER, plan.port_to("a"), log="uplink.log")
            site.program("inet", _ECHO, _OUTSIDE, log="outside.log")
        yield site
        broken = request.session.testsfailed > failed_before
    finally:
        lab.down()
        if not broken:
            shutil.rmtree(out)


def test_nothing_leaks_whatever_becomes_of_the_router(site: Site) -> None:
    """Leaks in the threats: inner packets leave in a tunnel, translated on purpose, or not."""
    lab, hosts = site.lab, site.hosts
    local = A.care_of_address if site.internet == "local" else "silence"
    # The first start of all, with no home agent there: nothing is learnt.
    lab.start_router("a")
    until(lambda: lab.node_status("a") is not None, 10.0, "A does not start without a home agent")
    known = _INSIDE - {C.home_address}
    site.program("ah", _TALKER, *sorted(_PUBLIC | known), _OUTSIDE_6, log="talker.log")
    assert site.outside_answers() == local
    assert site.leaks() == []
    lab.start_home_agent()
    lab.wait_registered("a", 30.0)
    lab.start_router("c")
    lab.wait_registered("c")
    hosts.ping("ch", "ah", count=3)

    def learnt() -> bool:
        peers = (lab.node_status("a") or {"peers": []})["peers"]
        return any(peer["cr_hoa"] == C.home_address and peer["path"] == "direct" for peer in peers)

    until(learnt, 10.0, "A did not learn of C")
    site.program("ah", _TALKER, C.home_address, log="talker-learnt.log")
    # Running: what belongs inside gets there, the outside as configured.
    for host in ("ch", "hq"):
        assert hosts.ping("ah", host, count=3) > 0
    assert site.outside_answers() == local
    assert any(row[0] == "4" for row in site.uplink())
    assert (site.lan_ipv6 == "local") == any(row[1].startswith(_LAN_6) for row in _six(site))
    lab.kill("a")
    _go_on(site, 1.0)
    assert site.outside_answers() == local
    # Again, and once more without a home agent, so that nothing is learnt anew.
    lab.start_router("a")
    lab.wait_registered("a")
    until(lambda: hosts.ping("ah", "ch", count=1) > 0, 10.0, "C is not reached again")
    lab.kill("a")
    lab.stop_node("ha")
    lab.start_router("a")
    until(lambda: lab.node_status("a") is not None, 10.0, "A does not start without a home agent")
    _go_on(site, 2.0)
    assert site.outside_answers() == local
    assert site.leaks() == []
    # And a graceful stop gives the box back as it was.
    lab.stop_node("a")
    for words in (["-4", "rule"], ["-6", "rule"], ["-4", "route", "show", "table", "all"]):
        assert "proto 43" not in hosts.run("a", ["ip", *words], 5)
    assert "haaro_local" not in hosts.run("a", ["nft", "list", "tables"], 5)


def _six(site: Site) -> list[list]:
    return [row for row in site.uplink() if row[0] == "6"]


def _go_on(site: Site, seconds: float) -> None:
    """Let the office talk for a while; the talker must be alive."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, seconds + 1.0, "time stands still")
    assert topology.processes(plan.namespace(NAME, "ah"))
