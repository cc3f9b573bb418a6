"""`haaro simulate`: the same seed gives the same trace, scenarios do as they expect, figures add
up."""

import json
import os
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from haaro.core.correspondent import Correspondent
from haaro_host.cli import _register_parts, app
from haaro_host.home_agent.registrar import Registrar
from haaro_host.simulate import soak
from haaro_host.simulate.run import Run
from haaro_host.simulate.scenario_file import EVENTS, ScenarioError, load
from tests.meta.repository import ROOT

SCENARIOS = sorted((ROOT / "scenarios").glob("**/*.toml"))
EXAMPLE = ROOT / "scenarios" / "rfc6521-8.2.toml"
runner = CliRunner()


@pytest.fixture(scope="module", autouse=True)
def _commands():
    _register_parts()


def simulate(*arguments):
    return runner.invoke(app, ["simulate", *map(str, arguments)])


def figures(path, seed=1):
    """Return the report of a scenario by the command."""
    result = simulate(path, "--seed", seed, "--json")
    return json.loads(result.stdout)


def in_a_process(trace, seed, hash_seed):
    """Run the example in a process of its own; returns (trace octets, report)."""
    code = "from haaro_host.cli import main; main()"
    command = [sys.executable, "-c", code, "simulate", str(EXAMPLE), "--json"]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--trace", str(trace)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        check=True,
        capture_output=True,
        text=True,
    )
    return trace.read_bytes(), done.stdout


def test_the_same_seed_gives_the_same_trace_octet_for_octet(tmp_path):
    first = in_a_process(tmp_path / "1", 7, "1")
    again = in_a_process(tmp_path / "2", 7, "2")
    other = in_a_process(tmp_path / "3", 8, "1")
    assert first == again
    assert first[0] != other[0]
    hashes = [json.loads(text)["trace_sha256"] for _, text in (first, again, other)]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_every_scenario_does_as_it_expects(path):
    scenario = load(path)
    if path.name in ("hundred.toml", "thousand.toml"):
        scenario.seconds = 100
        scenario.router[0].count = 20
    run = Run(scenario, 1)
    with run.world:
        run.go()
        failures = run.failures()
    assert failures == []


def test_each_fault_and_each_example_of_the_rfc_has_a_scenario():
    names = {path.name for path in SCENARIOS}
    for number in range(1, 15):
        assert any(name.startswith(f"f{number:02}-") for name in names), number
    assert {f"rfc6521-8.{n}.toml" for n in (1, 2, 3)} <= names


def test_the_report_counts_what_was_on_the_wire(tmp_path):
    trace = tmp_path / "trace"
    result = simulate(EXAMPLE, "--trace", trace, "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    lines = trace.read_text().splitlines()
    assert data["datagrams"] == len(lines)
    outside = [line.split(" ") for line in lines]
    requests = [f for f in outside if f[3].startswith("01")]
    sent_by_c = [f for f in outside if f[1] == "203.0.113.10:434"]
    signalling = [f for f in sent_by_c if not f[3].startswith("04040000")]
    tunnelled = [f for f in sent_by_c if f[3].startswith("04040000") and f[3][8 + 18 : 28] == "11"]
    control = [f for f in tunnelled if f[3][8 + 44 : 8 + 48] == "01b2" or f[3][52:56] == "01b2"]
    assert data["signalling"]["C"]["sent"] == len(signalling) + len(control)
    octets = sum(28 + len(f[3]) // 2 for f in signalling + control)
    assert data["signalling"]["C"]["sent_octets"] == octets
    assert len(requests) >= 4
    assert data["traffic"]["sent"] >= data["traffic"]["delivered"] > 200
    assert data["off_home_agent"] > 0.98
    assert data["converged"]["registered_s"] < 5
    assert data["converged"]["direct_s"] < 1
    assert data["failures"] == []


def test_the_diagram_shows_example_8_2_in_its_order(tmp_path):
    path = tmp_path / "exchange.mmd"
    assert simulate(EXAMPLE, "--diagram", path).exit_code == 0
    text = path.read_text()
    assert text.splitlines()[:5] == [
        "sequenceDiagram",
        "    participant A",
        "    participant B",
        "    participant C",
        "    participant HA",
    ]
    places = [
        re.search(arrow, text).start()
        for arrow in (
            r"C-->>HA: \d+\.\d+ user traffic",
            r"C-->>HA: \S+ HoTI",
            r"C->>HA: \S+ CoTI",
            r"HA-->>C: \S+ HoT\n",
            r"HA->>C: \S+ CoT\n",
            r"A->>HA: 8\.\S+ request",  # A asks the home agent about C
            r"A-->>HA: \S+ reply",
            r"C-->>A: \S+ keepalive",
            r"Note over C: \S+ direct path to \S+ is up",
            r"C-->>A: \S+ user traffic",
        )
    ]
    assert places == sorted(places)


def test_what_is_lost_is_drawn_with_a_cross(tmp_path):
    path = tmp_path / "exchange.mmd"
    simulate(ROOT / "scenarios/faults/f02-black-hole.toml", "--diagram", path)
    assert re.search(r"A--xC: \S+ user traffic \(filter\)", path.read_text())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seconds = 1", "about"),
        ("about = 'x'\nseconds = 1\n[[router]]\nname = 'A'\ncolour = 1", "router.0.colour"),
        (
            "about = 'x'\nseconds = 1\n[[router]]\nname = 'A'\n[settings]\nkey = 1",
            "unknown setting",
        ),
        (
            "about = 'x'\nseconds = 1\n[[router]]\nname = 'A'\n[[event]]\nat_s = 0\ndo = 'fly'",
            "known: down, up",
        ),
        (
            "about = 'x'\nseconds = 1\n[[router]]\nname = 'A'\n[[event]]\nat_s = 0\ndo = 'cut'",
            "cut needs router",
        ),
        (
            "about = 'x'\nseconds = 1\n[[router]]\nname = 'A'\n[[traffic]]\nfrom = 'A'\nto = 'B'",
            "no such router",
        ),
        (
            "about = 'x'\nseconds = 1\n[[nat]]\nname = 'n'\naddress = '203.0.113.1'\n"
            "kind = 'symmetric'\n[[router]]\nname = 'A'\n"
            "uplinks = [{ address = '10.0.0.1', nat = 'n', loss = 0.1 }]",
            "is given at that nat",
        ),
        ("about = ", "not valid TOML"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_key(tmp_path, text, said):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=re.escape(said)):
        load(path)
    result = simulate(path)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_exit_status_tells_what_was_not_as_expected(tmp_path):
    path = tmp_path / "late.toml"
    text = EXAMPLE.read_text().replace("direct_within_s = 1", "direct_within_s = 0.001")
    path.write_text(text)
    result = simulate(path)
    assert result.exit_code == 1
    assert "NOT AS EXPECTED: C>A: direct after" in result.output


@pytest.mark.parametrize("arguments", [(), ("--faults", EXAMPLE), ("--faults", "--fault", "F99")])
def test_bad_usage_is_status_2(arguments):
    assert simulate(*arguments).exit_code == 2


def test_an_hour_of_the_soak_leaves_nothing_broken():
    data = soak.run(3, 1 / 24)
    assert data["failures"] == []
    assert sum(data["faults"].values()) == 1
    assert data["datagrams"] > 3000
    assert data["replays"] > 20


@pytest.mark.parametrize(
    ("rule", "receiver"),
    [((Registrar, "_is_fresh"), "HA"), ((Correspondent, "_not_replayed"), "A")],
)
def test_a_soak_sees_an_accepted_replay(monkeypatch, rule, receiver):
    run = soak._Soak(1)
    with run.world:
        run.heal("the start")
        run.watch(200)  # past renewals: those are accepted at once
        run.replay()
        assert (run.failures, run.replays > 5) == ([], True)
        monkeypatch.setattr(*rule, lambda *_: True)
        run.replay([receiver])
    assert run.failures
    assert set(run.failures) == {f"{run.world.now / 1000:.0f} s: {receiver} accepted a replay"}


def test_a_soak_sees_a_growing_heap():
    assert soak._slope([10, 10, 10, 10]) == 0
    assert soak._slope([0, 100, 200]) == 100
    assert soak._slope([1, 2]) is None


def test_the_documents_name_every_event_and_scenario():
    text = (ROOT / "docs" / "simulate.md").read_text()
    for event in EVENTS:
        assert f"`{event}`" in text, event
    for path in SCENARIOS:
        assert path.name in text or "scenarios/faults/" in text, path.name
