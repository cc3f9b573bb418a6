"""What the fault tests stand on does what it says: the relay, the NAT, clocks, the outage."""

import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haaro_host.lab import plan, system
from haaro_host.lab.clocks import DECADE_MS, Clock
from haaro_host.lab.faults import layouts
from haaro_host.lab.faults.bench import Bench
from haaro_host.lab.faults.layouts import A, C, Wants
from haaro_host.lab.relay import KEYS, Way

from .conftest import NAME

ETHERNET, IPV4 = bytes(12), b"\x08\x00"
NO_SPOIL = dict.fromkeys(KEYS, 0.0)


class Sink:
    """Takes what a Way sends."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frame: bytes) -> None:
        self.frames.append(frame)


def frame(number: int, payload: int = 60) -> bytes:
    """A UDP packet in Ethernet; its checksum field is not zero."""
    body = struct.pack("!HHHH", 434, 434, 8 + payload, 0x1234) + bytes([number % 256]) * payload
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), number, 0, 64, 17, 0,
                         bytes(4), bytes(4))  # fmt: skip
    return ETHERNET + IPV4 + header + body


def way(seed: int = 1, **spoil: float) -> Way:
    return Way(Sink(), random.Random(seed), {**NO_SPOIL, **spoil})  # type: ignore[arg-type]


def fates(made: Way, count: int = 2000) -> list[list[tuple[float, bytes]]]:
    return [made.take(frame(number), 0.0) for number in range(count)]


def test_the_same_seed_spoils_the_same_packets() -> None:
    values = {"loss": 0.2, "duplicate": 0.1, "corrupt": 0.05, "delay_ms": 5, "jitter_ms": 20}
    assert fates(way(3, **values)) == fates(way(3, **values))
    assert fates(way(3, **values)) != fates(way(4, **values))


def test_loss_and_duplicates_come_as_often_as_told() -> None:
    lost = sum(1 for each in fates(way(loss=0.2)) if not each)
    doubled = sum(1 for each in fates(way(duplicate=0.1)) if len(each) == 2)
    assert 340 < lost < 460 and 150 < doubled < 250
    assert all(len(each) == 0 for each in fates(way(loss=1.0)))


def test_jitter_makes_packets_overtake_each_other() -> None:
    due = [at for each in fates(way(delay_ms=10, jitter_ms=50)) for at, _ in each]
    assert min(due) >= 0.010 and max(due) <= 0.060
    assert due != sorted(due)


def test_a_corrupt_packet_differs_in_one_octet_behind_its_header() -> None:
    made = way(corrupt=1.0)
    unseen = 0
    for number in range(400):
        sent = frame(number)
        ((_, got),) = made.take(sent, 0.0)
        differ = [at for at, (a, b) in enumerate(zip(sent, got, strict=True)) if a != b]
        payload = [at for at in differ if at >= 42]
        assert len(payload) == 1
        unseen += got[40:42] == b"\0\0"
        assert set(differ) - set(payload) <= {40, 41}
    assert 150 < unseen < 250 and made.counts["unseen"] == unseen


def test_what_is_not_ipv4_passes_whatever_is_told() -> None:
    arp = ETHERNET + b"\x08\x06" + bytes(28)
    assert way(loss=1.0).take(arp, 5.0) == [(5.0, arp)]


def test_an_outage_counts_from_the_last_arrival_and_until_now(tmp_path: Path) -> None:
    bench = Bench("haaro-none", tmp_path, Wants(), 1)
    now = time.time()
    arrived = {A.host: [now - 9, now - 8, now - 5, now - 0.1], C.host: [now - 9, now - 0.1]}
    bench.arrivals = arrived.__getitem__  # type: ignore[method-assign]
    assert bench.outage(now - 7)[0] == pytest.approx(8.9, abs=0.2)
    arrived[C.host] = arrived[A.host]
    assert bench.outage(now - 7)[0] == pytest.approx(4.9, abs=0.2)
    assert bench.outage(now - 4, fresh=True)[0] == pytest.approx(3.9, abs=0.2)
    del arrived[A.host][-1]
    gap, note = bench.outage(now - 7)
    assert gap == pytest.approx(5.0, abs=0.2)
    assert note.endswith("not back when the run ended")


@pytest.fixture
def wired(request: pytest.FixtureRequest, privileged: None, tmp_path: Path) -> Iterator[Bench]:
    """A lab as wanted by the test's parameter, with no program but the relay."""
    bench = Bench(f"{NAME}-t", tmp_path, request.param, 1)
    with bench.built():
        yield bench


def echo(bench: Bench, node: str, address: str, count: int = 1) -> int:
    """How many of so many pings were answered."""
    command = ["ping", "-n", "-q", "-c", str(count), "-i", "0.02", "-W", "1", address]
    done = subprocess.run(
        bench.lab.inside(node, command), capture_output=True, text=True, check=False
    )
    return int(done.stdout.split(" received")[0].split()[-1])


@pytest.mark.parametrize("wired", [Wants(relay=True)], indirect=True)
def test_the_relay_spoils_one_way_of_one_link(wired: Bench) -> None:
    """A black hole of one way leaves the other way and the other link alone."""
    assert echo(wired, "a", C.care_of_address, 5) == 5
    wired.tell_relay({"a": {"down": {"loss": 1}}})
    before = wired.tell_relay({})
    assert echo(wired, "a", C.care_of_address, 3) == 0
    after = wired.tell_relay({})
    assert after["a"]["up"]["passed"] >= before["a"]["up"]["passed"] + 3
    assert after["a"]["down"]["lost"] == before["a"]["down"]["lost"] + 3
    assert echo(wired, "c", plan.HOME_AGENT, 3) == 3
    wired.spoil()
    assert echo(wired, "a", C.care_of_address, 5) == 5
    with pytest.raises(system.LabError, match="allowed"):
        wired.tell_relay({"a": {"up": {"losss": 1}}})


SERVER = "203.0.113.200"
_LISTEN = f"""
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("{C.care_of_address}", int(sys.argv[1])))
link.settimeout(3)
data, source = link.recvfrom(100)
print(source[0], source[1], flush=True)
if len(sys.argv) > 2:
    sys.stdin.readline()
    link.sendto(b"late", source)
"""
_ASK = f"""
import socket, sys
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
link.bind(("{layouts.INSIDE}", 434))
for port in sys.argv[1:]:
    link.sendto(b"x", ("{C.care_of_address}", int(port)))
link.settimeout(1.5)
try:
    print(link.recv(100).decode())
except TimeoutError:
    print("nothing")
"""


def seen_from(bench: Bench, *ports: int) -> list[tuple[str, int]]:
    """Source address and port as C sees them when A sends to these ports, one after another."""
    listeners = [
        subprocess.Popen(
            bench.lab.inside("c", [sys.executable, "-S", "-E", "-c", _LISTEN, str(port)]),
            stdout=subprocess.PIPE, text=True,
        )
        for port in ports
    ]  # fmt: skip
    bench.until(lambda: _listening(bench, ports), 5)
    command = [sys.executable, "-S", "-E", "-c", _ASK, *map(str, ports)]
    subprocess.run(bench.lab.inside("a", command), check=True, capture_output=True)
    said = [each.communicate(timeout=5)[0].split() for each in listeners]
    return [(address, int(port)) for address, port in said]


def _listening(bench: Bench, ports: tuple[int, ...]) -> bool:
    shown = system.run(bench.lab.inside("c", ["cat", "/proc/net/udp"]))
    return all(f":{port:04X} " in shown for port in ports)


@pytest.mark.parametrize("wired", [Wants(nat=True)], indirect=True)
def test_a_nat_maps_as_its_kind_and_otherwise_after_a_restart(wired: Bench) -> None:
    """One port for all, or one for each destination; new ones, and a new address, if restarted."""
    wired.nat.start("port")
    first = seen_from(wired, 5001, 5002)
    assert {address for address, _ in first} == {layouts.NAT_ADDRESS}
    assert first[0] == first[1]
    wired.nat.restart()
    again = seen_from(wired, 5001, 5002)
    assert again[0] == again[1] and again[0] != first[0]
    wired.nat.restart(layouts.NAT_OTHER_ADDRESS)
    assert seen_from(wired, 5001)[0][0] == layouts.NAT_OTHER_ADDRESS
    wired.nat.start("symmetric")
    wired.nat.restart()
    ports = {port for _, port in seen_from(wired, 5001, 5002, 5003)}
    assert len(ports) == 3
    # Nobody asked for it: no answer, no error.
    assert echo(wired, "c", wired.nat.address) == 0


@pytest.mark.parametrize("wired", [Wants(nat=True)], indirect=True)
@pytest.mark.parametrize(("timeout_s", "answer"), [(1, "nothing"), (60, "late")])
def test_a_mapping_ends_when_it_was_not_used(wired: Bench, timeout_s: int, answer: str) -> None:
    """What comes after its time is dropped, what comes within it is let in."""
    wired.nat.start("port", timeout_s)
    program = [sys.executable, "-S", "-E", "-c", _LISTEN, "5001", "late"]
    listener = subprocess.Popen(
        wired.lab.inside("c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert wired.until(lambda: _listening(wired, (5001,)), 5)
    asking = subprocess.Popen(
        wired.lab.inside("a", [sys.executable, "-S", "-E", "-c", _ASK.replace("1.5", "5"), "5001"]),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert listener.stdout is not None and listener.stdout.readline()
    # The kernel's table says when the mapping is gone, within the longer of the two.
    wired.until(lambda: not _mappings(wired), 3.0)
    listener.communicate("go\n", timeout=5)
    assert asking.communicate(timeout=8)[0].strip() == answer


def _mappings(bench: Bench) -> int:
    path = "/proc/sys/net/netfilter/nf_conntrack_count"
    return int(system.run(bench.lab.inside(layouts.NAT_NODE, ["cat", path])))


def test_a_shifted_clock_shifts_the_wall_clock_only(tmp_path: Path) -> None:
    """For `haaro` and for a router, also while it runs; the monotonic clock goes on."""
    clock = Clock(tmp_path)
    clock.shift(-DECADE_MS)
    program = (
        "import time, sys, json\nprint(json.dumps([time.time_ns() // 10**9, int(time.time())]))\n"
    )
    script = tmp_path / "ask.py"
    script.write_text(program)
    environment = {**clock.micropython(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [system.micropython(), str(script)], env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    for seconds in map(int, done.stdout.strip("[]\n").split(",")):
        assert abs(seconds - (time.time() - DECADE_MS / 1000)) < 5
    log = tmp_path / "haaro.log"
    code = "import haaro_host.cli, time; haaro_host.cli.main = lambda: print(time.time())\n"
    code += "import sys; sys.argv = ['x', sys.argv[1]]\n"
    code += "from haaro_host.lab import clocks; clocks.main()\n"
    done = subprocess.run(
        [sys.executable, "-c", code, str(clock.path)], capture_output=True, text=True, check=True
    )
    log.write_text(done.stdout)
    assert abs(float(done.stdout) - (time.time() - DECADE_MS / 1000)) < 5


def test_the_probe_calls_wrong_what_was_not_sent(tmp_path: Path) -> None:
    """A datagram from elsewhere, a changed one and a short one are wrong; its own is received."""
    from haaro_host.lab import probe

    # Unix sockets: without root these tests run where even the loopback interface is down.
    link, peer, other = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(3))
    with link, peer, other, (tmp_path / "out").open("wb", buffering=0) as out:
        for name, each in (("link", link), ("peer", peer), ("other", other)):
            each.bind(str(tmp_path / name))
        link.setblocking(False)
        good = probe.datagram(7, 1.5)
        changed = good[:5] + b"\x01" + good[6:]
        for sender, data in ((peer, good), (peer, changed), (peer, good[:-1]), (other, good)):
            sender.sendto(data, link.getsockname())
        probe._receive(link, peer.getsockname(), out)
    records = list(probe.RECORD.iter_unpack((tmp_path / "out").read_bytes()))
    assert [kind for kind, *_ in records] == [probe.RECEIVED, *[probe.WRONG] * 3]
    assert records[0][1:3] == (7, 1.5)
