"""The home agent forwards the same by both of its planes: real packets through a real process."""

import itertools
import os
import select
import signal
import sys
import time

import pytest

from haaro.wire import ipv4
from haaro.wire.ipv4 import address, text
from haaro_host.home_agent.forwarding import Forwarding
from tests.host.home_agent_helpers import build_request, parse_reply
from tests.shell.namespaces import needs_namespaces, run, why_no_kernel_plane
from tests.shell.star import ENDS, HOME, HQ, NETWORK, OTHER_ENDS, Star, binding, now, stamp, udp

pytestmark = needs_namespaces

A1, B1 = "10.1.0.10", "10.2.0.10"
MOVED = OTHER_ENDS[1]


def made(plane):
    reason = why_no_kernel_plane() if plane == "kernel" else None
    if reason:
        pytest.skip(reason)
    net = Star(plane)
    try:
        net.build()
        net.store("A", "B", "C", "D")
        net.start()
        yield net
    finally:
        net.remove()


@pytest.fixture(params=["userspace", "kernel"])
def star(request):
    """The star, once for each data plane."""
    yield from made(request.param)


@pytest.fixture
def kernel_star():
    yield from made("kernel")


def by_router(status):
    return {
        router["name"]: (router["binding"]["rx_packets"], router["binding"]["tx_packets"])
        for router in status["routers"]
        if router["binding"]
    }


def test_packets_pass_between_routers_and_the_home_network(star):
    """TTL, checksum and payload as it shall be, and each packet counted once."""
    sent = udp(A1, B1, b"from a to b")
    got, _ = star.passes("A", sent, ENDS["B"])
    inner = bytearray(got[4:])
    assert inner[8] == sent[8] - 1 and ipv4.checksum(inner, 0, 20) == 0
    inner[8], inner[10:12] = sent[8], sent[10:12]
    assert inner == sent
    assert star.passes("B", udp(B1, A1, b"and back"), ENDS["A"])[0][32:] == b"and back"
    assert star.passes("A", udp(A1, HQ, b"to hq"), "hq")[0] == b"to hq"
    star.sockets["hq"].sendto(b"from hq", (A1, 5001))
    found = star.receive(lambda found: found[ENDS["A"]])
    inner = found[ENDS["A"]][0][0][4:]
    assert inner[12:20] == address(HQ) + address(A1) and ipv4.checksum(inner, 0, 20) == 0
    assert inner[28:] == b"from hq"
    status = star.status()
    counted = by_router(status)
    assert (counted["A"], counted["B"]) == ((2, 2), (1, 1))
    program = "from haaro_host.cli import main; main()"
    words = ["ha", "--config", str(star.run / "ha.toml"), "status"]
    shown = run(sys.executable, "-c", program, *words)
    assert f"packets go by the {star.plane} plane: configured" in shown
    if star.plane == "kernel":
        assert status["data_plane"]["counters"]["relayed"] == 2
        assert status["data_plane"]["counters"]["to_home"] == 1
        assert status["data_plane"]["counters"]["from_home"] == 1


def test_no_wrong_combination_is_forwarded(star):
    """Every outer end with every inner source and destination, realms included: what the tables
    allow arrives once and where they say, nothing else arrives anywhere.
    """
    table = Forwarding(star.config())
    bindings = {binding(name).home_address: binding(name) for name in "ABCD"}
    table.rebuild(star.config(), bindings.values())
    end_of = {HOME[name]: end for name, end in ENDS.items()}
    sources = [A1, B1, "10.3.0.1", HQ, "192.0.2.1", "198.51.100.10", "8.8.8.8", "127.0.0.1"]
    sources += [text(HOME["A"]), text(HOME["C"]), "0.0.0.0", "224.0.0.5"]
    targets = [A1, B1, "10.3.0.1", HQ, "8.8.8.8", "198.51.100.74", "224.0.0.5", "10.2.0.255"]
    targets += [text(HOME["B"]), text(HOME["D"]), "192.0.2.200", "10.0.0.9"]
    expected, cases = {}, 0
    ends = (*ENDS.values(), *OTHER_ENDS)
    for end, source, target in itertools.product(ends, sources, targets):
        marker = b"case %04d." % cases
        cases += 1
        packet = udp(source, target, marker)
        origin = table.by_tunnel_end(address(end[0]), end[1])
        decision = table.forward(packet, origin) if origin else ("drop", "")
        if decision[0] == "tunnel":
            expected[marker] = end_of[decision[1].home_address]
        elif decision[0] == "outside" and target == HQ:
            expected[marker] = "hq"
        star.send(end, packet)
    assert cases > 500 and len(expected) > 20
    # What comes last has everything before it behind it.
    for name, source, target in (("A", A1, B1), ("C", A1, B1), ("B", B1, HQ)):
        star.send(ENDS[name], udp(source, target, b"last of all"))
    wanted = (ENDS["B"], ENDS["D"], "hq")

    def complete(found):
        return all(any(b"last of all" in data for data, _ in found[name]) for name in wanted)

    arrived = [
        (data[-10:], name)
        for name, each in star.receive(complete).items()
        for data, _ in each
        if data[-10:].startswith(b"case ") and data[13:14] != b"\x01"  # an ICMP error
    ]
    assert sorted(arrived, key=str) == sorted(expected.items(), key=str)
    status = star.status()
    assert status["counters"]["inner_source"] > 100
    if star.plane == "kernel":
        # It did not all take the other way.
        assert status["data_plane"]["counters"]["inner_source"] > 100
        assert status["data_plane"]["counters"]["relayed"] > 4
        assert status["data_plane"]["calls"]["failures"] == 0


def test_a_packet_whose_ttl_ends_is_answered_and_a_large_one_is_too(star):
    """What the programs do not take is judged by the process: ICMP errors come from there."""
    star.send(ENDS["A"], udp(A1, B1, b"x", ttl=1))
    found = star.receive(lambda found: found[ENDS["A"]])
    assert found[ENDS["A"]][0][0][24:26] == bytes((ipv4.TIME_EXCEEDED, 0))
    large = bytearray(udp(A1, B1, bytes(1480)))
    large[6], large[10:12] = 0x40, bytes(2)
    large[10:12] = ipv4.checksum(large, 0, 20).to_bytes(2, "big")
    star.send(ENDS["A"], bytes(large))
    found = star.receive(lambda found: found[ENDS["A"]])
    assert found[ENDS["A"]][0][0][24:26] == bytes((ipv4.UNREACHABLE, ipv4.FRAGMENTATION_NEEDED))
    # What may be cut arrives in pieces.
    star.send(ENDS["A"], udp(A1, B1, bytes(1480)))
    assert len(star.receive(lambda found: len(found[ENDS["B"]]) == 2)[ENDS["B"]]) == 2


def test_a_router_that_moves_is_heard_at_both_ends_for_ten_seconds(star):
    """So that what was under way arrives; not any longer."""
    ident = stamp(now()).to_bytes(8, "big")
    request = build_request(
        ident, hoa=HOME["A"], coa=address(MOVED[0]), networks=[NETWORK["A"]], capability={}
    )
    star.sockets[MOVED].sendto(bytes(request), ("192.0.2.1", 434))
    found = star.receive(lambda found: found[MOVED])
    moved_at = time.monotonic()
    assert parse_reply(found[MOVED][0][0]).code == 0
    star.passes("B", udp(B1, A1, b"to the new end"), MOVED)
    for end, marker in ((ENDS["A"], b"from the old end"), (MOVED, b"from the new end")):
        star.send(end, udp(A1, B1, marker))
        star.receive(lambda found, m=marker: any(m in d for d, _ in found[ENDS["B"]]))
    deadline = moved_at + 14
    old = 0
    while True:
        old += 1
        star.send(ENDS["A"], udp(A1, B1, b"old %06d" % old))
        star.send(MOVED, udp(A1, B1, b"new %06d" % old))
        found = star.receive(
            lambda found: any(b"new %06d" % old in d for d, _ in found[ENDS["B"]])  # noqa: B023
        )
        if not any(b"old" in data for data, _ in found[ENDS["B"]]):
            break
        assert time.monotonic() < deadline, "the old end is heard for ever"
    assert time.monotonic() - moved_at > 9


def test_a_revoked_router_is_not_forwarded_any_more(star):
    assert star.passes("A", udp(A1, B1, b"before"), ENDS["B"])
    assert star.process.ask("revoke A")["registered"]
    star.send(ENDS["A"], udp(A1, B1, b"after"))
    star.send(ENDS["A"], udp(A1, HQ, b"after"))
    star.send(ENDS["B"], udp(B1, A1, b"after"))
    star.send(ENDS["B"], udp(B1, HQ, b"the last"))
    found = star.receive(lambda found: found["hq"])
    assert [data for data, _ in found["hq"]] == [b"the last"]
    # A is told that it is over, and B that A is not there.
    for end in (ENDS["A"], ENDS["B"]):
        assert not any(b"after" in data[28:] and data[13:14] == b"\x11" for data, _ in found[end])


@pytest.mark.parametrize(
    ("outside", "inside", "arrives"), [(0, 0xB8, 0xB8), (3, 2, 3), (1, 2, 1), (2, 1, 1)]
)
def test_marks_pass_from_tunnel_to_tunnel(star, outside, inside, arrives):
    """RFC 6040: as out of the one tunnel and into the other."""
    star.passes("A", udp(A1, B1, b"first of its flow"), ENDS["B"])
    star.send(ENDS["A"], udp(A1, B1, b"marked", tos=inside), tos=outside)
    found = star.receive(lambda found: found[ENDS["B"]])
    data, tos = found[ENDS["B"]][0]
    assert (data[5], tos) == (arrives, arrives)
    assert ipv4.checksum(data, 4, 20) == 0


# --- the kernel plane alone ----------------------------------------------------------------------


def test_no_process_is_needed_and_a_restart_interrupts_nothing(kernel_star):
    """Stopped, killed and started again: what is pinned forwards on, and what has changed
    meanwhile is put right.
    """
    star = kernel_star
    star.passes("A", udp(A1, B1, b"with it"), ENDS["B"])
    os.kill(star.process.popen.pid, signal.SIGSTOP)
    star.send(ENDS["A"], udp(A1, B1, b"stopped"))
    star.receive(lambda found: any(b"stopped" in d for d, _ in found[ENDS["B"]]))
    star.process.kill()
    star.send(ENDS["A"], udp(A1, B1, b"killed"))
    star.send(ENDS["C"], udp(A1, B1, b"killed"))
    star.receive(lambda found: found[ENDS["B"]] and found[ENDS["D"]])
    star.store("A", "B", "C")
    star.start()
    for sent in range(50):
        star.send(ENDS["A"], udp(A1, B1, b"again %03d" % sent))
    star.receive(lambda found: len(found[ENDS["B"]]) == 50)
    # D is registered no more.
    star.send(ENDS["C"], udp(A1, B1, b"to d"))
    star.send(ENDS["D"], udp(B1, A1, b"from d"))
    star.send(ENDS["C"], udp(A1, HQ, b"from c"))
    found = star.receive(lambda found: found["hq"])
    assert not found[ENDS["D"]]
    assert not any(b"from d" in data for data, _ in found[ENDS["C"]])
    status = star.status()
    assert by_router(status)["A"][0] == 50
    assert status["data_plane"]["entries"]["bindings"] == 3


def test_a_binding_ends_by_itself_while_no_home_agent_runs(kernel_star):
    star = kernel_star
    star.process.kill()
    star.store("A", "B", lifetime_s=4)
    star.start()
    star.passes("A", udp(A1, B1, b"in time"), ENDS["B"])
    star.process.kill()
    star.passes("A", udp(A1, B1, b"in time, too"), ENDS["B"], 1)
    deadline = time.monotonic() + 10
    while True:
        star.send(ENDS["A"], udp(A1, B1, b"late"))
        try:
            star.receive(lambda found: found[ENDS["B"]], 0.5)
        except AssertionError:
            break
        assert time.monotonic() < deadline, "forwarded for longer than it was registered"


def test_a_renewal_is_in_force_for_the_programs_too(kernel_star):
    """It changes no table, only when the binding ends."""
    star = kernel_star
    star.process.kill()
    star.store("A", "B", lifetime_s=5)
    star.start()
    ends_at = time.monotonic() + 5
    calls = star.status()["data_plane"]["calls"]["calls"]
    for name in "AB":
        end = ENDS[name]
        request = build_request(
            stamp(now()).to_bytes(8, "big"),
            hoa=HOME[name],
            coa=address(end[0]),
            networks=[NETWORK[name]],
            capability={},
        )
        star.sockets[end].sendto(bytes(request), ("192.0.2.1", 434))
        found = star.receive(lambda found, end=end: found[end])
        assert parse_reply(found[end][0][0]).code == 0
    while star.status()["data_plane"]["calls"]["calls"] == calls:
        assert time.monotonic() < ends_at, "the programs know of no renewal"
        select.select([], [], [], 0.05)
    while time.monotonic() < ends_at + 1:
        if star.process.popen.poll() is None and time.monotonic() > ends_at - 2:
            star.process.kill()
        star.passes("A", udp(A1, B1, b"renewed"), ENDS["B"], 1)
        select.select([], [], [], 0.05)
    assert star.process.popen.poll() is not None


def test_nothing_is_left_after_the_end_nor_by_a_killed_one(kernel_star):
    star = kernel_star

    def there():
        shown = run("tc", "-n", star.names["ha"], "qdisc", "show")
        pins = [pin.name for pin in (star.run / "bpf").iterdir() if pin.name.startswith("haaro")]
        return ("clsact" in shown, bool(pins))

    assert there() == (True, True)
    star.process.kill()
    assert there() == (True, True)
    star.plane = "userspace"
    star.start()
    assert there() == (False, False)
    star.passes("A", udp(A1, B1, b"by the process"), ENDS["B"])
    assert star.process.terminate() == 0
    star.plane = "kernel"
    star.start()
    star.passes("A", udp(A1, B1, b"by the programs"), ENDS["B"])
    assert there() == (True, True)
    assert star.process.terminate() == 0, star.process.text()
    assert there() == (False, False)
