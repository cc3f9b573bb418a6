"""Three offices in namespaces: hop by hop, from status JSON and captures. Tests run in order."""

import json
import subprocess
import time

import pytest

from haaro_host.lab import evidence as words
from haaro_host.lab import plan, topology
from haaro_host.lab.lab import RUN, registered
from haaro_host.lab.system import LabError
from haaro_host.lab.traffic import Probe, ProbeSeries, Transfer

from .conftest import NAME, Stage, until

_RATE = 250.0
_PACE_MBIT = 10.0
_DIRECT_DEADLINE_S = 10.0
A, B, C = plan.OFFICES


def _series(stage: Stage) -> tuple[ProbeSeries, ProbeSeries]:
    assert stage.probe is not None
    return stage.probe.series("ch", "ah"), stage.probe.series("ah", "ch")


def _direct_since(stage: Stage, since: float) -> bool:
    stage.seen.update()
    return all(stage.seen.direct(a, b).count(since) > 20 for a, b in ((A, C), (C, A)))


def _around_since(stage: Stage, since: float) -> bool:
    stage.seen.update()
    return all(stage.seen.by_home_agent(a, b).count(since) > 20 for a, b in ((A, C), (C, A)))


def _probe_past(stage: Stage, at: float) -> None:
    until(
        lambda: all(max(one.sent.values(), default=0.0) > at for one in _series(stage)),
        10.0,
        "the probe has stopped",
    )


def test_each_office_learns_those_that_registered_before_it(stage: Stage) -> None:
    """R3.1.1-2, R3.1.1-4, R8-i1: A knows nobody, B knows A, C knows A and B."""
    for office in plan.OFFICES:
        assert registered(stage.status(office.node))
        assert stage.status(office.node)["registration"]["care_of_address"] == (
            office.care_of_address
        )
    knows = {
        node: {peer["cr_hoa"] for peer in stage.status(node)["peers"]} for node in ("a", "b", "c")
    }
    assert knows == {
        "a": set(),
        "b": {A.home_address},
        "c": {A.home_address, B.home_address},
    }


def test_the_home_agent_holds_three_bindings_in_udp_tunnels(stage: Stage) -> None:
    """The home agent's status agrees with the routers' about each binding."""
    bindings = {each["name"]: each["binding"] for each in stage.status("ha")["routers"]}
    for office in plan.OFFICES:
        binding = bindings[office.name]
        assert binding is not None
        assert binding["care_of_address"] == office.care_of_address
        assert binding["prefixes"] == [office.lan_net]
        assert binding["nat"] is False


def test_an_office_reaches_the_home_network(stage: Stage) -> None:
    """A host in B and the host in the home network reach each other by the home agent."""
    assert stage.hosts.ping("bh", "hq", count=5) > 0
    assert stage.hosts.ping("hq", "bh", count=5) > 0


def test_traffic_from_c_finds_the_direct_path_without_loss(stage: Stage) -> None:
    """R3.2-4, R3.2-i2, R3.3.3-1, R3.3.3-3, R3.3.3-13, R6.1-1: RFC 6521 8.2, in captures."""
    start = time.time() + 1.0
    moving = Transfer(stage.hosts, "ch", "ah", None, _PACE_MBIT, "first", start)
    stage.probe = Probe(stage.hosts, "ch", "ah", _RATE, start)
    try:
        until(lambda: _direct_since(stage, start), 1.0 + _DIRECT_DEADLINE_S, _why(stage))
        seen = stage.seen
        turned = max(seen.direct(a, b).at[0] for a, b in ((A, C), (C, A)))
        _probe_past(stage, turned + 1.5)
    finally:
        moving.stop()
    assert moving.result().match
    first = seen.by_home_agent(C, A).first()
    assert first is not None, "the first packets did not go by the home agent"
    assert turned - first < 1.0
    assert [one.lost(start, turned + 1.0) for one in _series(stage)] == [0, 0]
    hoti = [m for m in seen.find(words.HOTI, C, A, first) if m.in_home_agent_tunnel]
    coti = [m for m in seen.find(words.COTI, C, A, first) if m.outer is None]
    request = [m for m in seen.find(words.REQUEST, C, A, first) if m.source == C.care_of_address]
    solicited = [m for m in seen.find(words.REQUEST, A, None, first) if m.solicits]
    reply = [m for m in seen.find(words.REPLY, A, C, first) if m.code in (0, 1)]
    assert hoti and coti and request and solicited and reply
    assert hoti[0].source == C.home_address
    assert {m.destination for m in (hoti[0], coti[0], request[0])} == {A.home_address}
    assert max(hoti[0].time, coti[0].time) < request[0].time < solicited[0].time < reply[0].time
    for source, destination in ((A, C), (C, A)):
        keepalive = seen.keepalive_between(source, destination)
        assert keepalive is not None and keepalive < seen.direct(source, destination).at[0]
        # A's and C's own links say it; no hop in between could have hidden it.
        direct_from = seen.direct(source, destination).at[0]
        assert seen.by_home_agent(source, destination).count(direct_from) == 0


def _why(stage: Stage) -> str:
    said = [(node, stage.peer(node, other)) for node, other in (("a", "c"), ("c", "a"))]
    return f"no direct path in both directions: {said}"


def test_both_ends_say_direct_and_b_stays_out(stage: Stage) -> None:
    """Status JSON of A and C names the path that the captures show; B has no part in it."""
    for node, other in (("a", C), ("c", A)):
        peer = stage.peer(node, other.name)
        assert peer is not None
        assert peer["path"] == "direct"
        assert peer["tunnel"]["remote"] == other.care_of_address
    assert all(peer["path"] != "direct" for peer in stage.status("b")["peers"])
    stage.seen.update()
    assert "A>B" not in stage.seen.pairs({A.care_of_address: "A", B.care_of_address: "B"})


def test_cut_falls_back_within_five_seconds_and_returns_without_loss(stage: Stage) -> None:
    """R3-i3: a black-holed direct path costs at most 5 s; the return costs no packet."""
    cut = time.time()
    stage.lab.cut("a", "c")
    until(lambda: _around_since(stage, cut), 12.0, "did not fall back")
    _probe_past(stage, time.time() + 0.5)
    assert max(one.longest_gap(cut - 1.0, time.time()) for one in _series(stage)) <= 5.0
    assert stage.lab.counters()["cut"] > 0
    for node, other in (("a", "c"), ("c", "a")):
        peer = stage.peer(node, other)
        assert peer is not None and peer["path"] == "ha"
    mended = time.time()
    stage.lab.heal("a", "c")
    until(lambda: _direct_since(stage, mended), 20.0, "did not return")
    stage.seen.update()
    turned = max(stage.seen.direct(a, b).first(mended) or 0.0 for a, b in ((A, C), (C, A)))
    _probe_past(stage, turned + 1.5)
    assert [one.lost(mended, turned + 1.0) for one in _series(stage)] == [0, 0]


def test_killed_router_reconciles_what_it_left(stage: Stage) -> None:
    """After kill -9 and start, links, rules and routes are those of before, and traffic runs."""
    before = _kernel_of(stage, "a")
    stage.lab.kill("a")
    assert stage.lab.node_status("a") is None
    left = _kernel_of(stage, "a")
    assert "haaro0" in str(left), "the kill left nothing to reconcile: this test proves nothing"
    stage.lab.start_router("a")
    stage.lab.wait_registered("a")
    assert _kernel_of(stage, "a") == before
    assert stage.hosts.ping("ch", "ah", count=5) > 0
    again = time.time()
    until(lambda: _direct_since(stage, again), 30.0, _why(stage))


def _kernel_of(stage: Stage, node: str) -> tuple[object, ...]:
    """Rules, routes of all tables and links of a node, without what differs by nature."""

    def ask(*words_: str) -> object:
        done = subprocess.run(
            stage.lab.inside(node, ["ip", "-j", "-4", *words_]),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout or "[]")

    links = sorted(link["ifname"] for link in ask("link"))  # type: ignore[attr-defined]
    rules = sorted(json.dumps(rule, sort_keys=True) for rule in ask("rule"))  # type: ignore[attr-defined]
    routes = sorted(
        json.dumps(route, sort_keys=True)
        for route in ask("route", "show", "table", "all")  # type: ignore[attr-defined]
    )
    return links, rules, routes


def test_signalling_kept_to_its_paths(stage: Stage) -> None:
    """R3.2-i2: over all that happened, HoTI and HoT stayed in the home agent's tunnel [A56]."""
    stage.seen.update()
    assert len(stage.seen.messages) > 10
    assert stage.seen.violations() == []


def test_the_internet_filtered_nothing(stage: Stage) -> None:
    """BCP 38: no wrong source, no mobile prefix outside a tunnel, no loop of home addresses."""
    dropped = topology.filtered(stage.lab.counters())
    assert set(dropped) >= {"bcp38_ha", "bcp38_a", "bcp38_b", "bcp38_c", "mobile_prefix"}
    assert not any(dropped.values()), dropped


def test_second_up_says_what_runs(stage: Stage) -> None:
    """A second `lab up` names the running programs and changes nothing."""
    before = {node: each.pid for node, each in stage.lab.state.alive().items()}
    with pytest.raises(LabError, match=r"is up already: .*ha \(pid \d+\)"):
        type(stage.lab)(NAME).up()
    assert {node: each.pid for node, each in stage.lab.state.alive().items()} == before


def test_down_leaves_nothing(stage: Stage) -> None:
    """`lab down`: every router ends by its stop command, the home agent by SIGTERM."""
    recorded = stage.captures.stop()
    assert recorded["packets"] > 0 and recorded["dropped"] == 0
    assert stage.probe is not None
    stage.probe.stop()
    started = list(stage.lab.state.processes.values())
    done = stage.lab.down()
    for node in ("a", "b", "c", "ha"):
        assert f"{node}: stopped" in done
    assert not any(process.alive() for process in started)
    assert topology.existing(NAME) == []
    assert list(RUN.glob(f"{NAME}*")) == []
    assert stage.lab.down() == []
