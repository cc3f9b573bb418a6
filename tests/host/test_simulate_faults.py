"""The faults F1 to F14 hold their bounds in simulation, and the bounds can be missed."""

import json

import pytest
from typer.testing import CliRunner

from haaro_host.cli import _register_parts, app
from haaro_host.simulate import fault_runs, faults
from haaro_host.simulate.faults import Pair, Row

BOUNDS = [
    ("F1", "direct", 30), ("F2", "direct", 5), ("F3", "ha", 3), ("F3", "direct", 10),
    ("F4", "direct", 5), ("F4", "ha", 45), ("F5", "ha", 45), ("F5", "direct", 5),
    ("F6", "ha", 45), ("F6", "direct", 45), ("F7", "direct", 0.25), ("F7", "ha", 15),
    ("F8", "ha", 60), ("F9", "ha", 10), ("F10", "ha", 10), ("F10", "direct", 30),
    ("F11", "ha", 60), ("F11", "direct", 60), ("F12", "direct", 5), ("F13", "ha", 60),
    ("F14", "ha", 10),
]  # fmt: skip
_ROWS: dict[str, list[Row]] = {}


def rows(fault):
    """Return the rows of a fault, done once for all tests, F1 with fewer runs than usual."""
    faults.RR_RUNS = 100
    if fault not in _ROWS:
        _ROWS[fault] = fault_runs.run(fault, 1, times=1)
    return _ROWS[fault]


@pytest.mark.parametrize(("fault", "path", "bound"), BOUNDS)
def test_the_outage_of_a_fault_stays_within_its_bound(fault, path, bound):
    found = [row for row in rows(fault) if row.path == path]
    assert found
    assert {row.bound_s for row in found} == {bound}
    assert [row for row in found if not row.met] == []


def test_every_row_has_a_bound_that_is_tested():
    assert {(row.fault, row.path) for name in fault_runs.NAMES for row in rows(name)} == {
        (fault, path) for fault, path, _ in BOUNDS
    }


def test_the_same_seed_gives_the_same_rows():
    assert fault_runs.run("F2", 5, times=1) == fault_runs.run("F2", 5, times=1)
    assert fault_runs.run("F2", 5, times=1) != fault_runs.run("F2", 6, times=1)


def test_the_command_prints_one_object_for_each_bound():
    _register_parts()
    result = CliRunner().invoke(app, ["simulate", "--faults", "--fault", "F3", "--json"])
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert [(row["fault"], row["path"], row["bound_s"]) for row in data] == [
        ("F3", "ha", 3),
        ("F3", "direct", 10),
    ]
    keys = {"schema", "fault", "path", "bound_s", "outage_s", "note"}
    assert all(set(row) == keys and row["schema"] == "haaro.simulate.fault/1" for row in data)
    assert all(0 < row["outage_s"] <= row["bound_s"] for row in data)


def test_a_missed_bound_is_status_1(monkeypatch):
    _register_parts()
    missed = [Row("F2", "direct", 5, 5.1, "x")]
    monkeypatch.setitem(fault_runs._FAULTS, "F2", (lambda seed: missed, 1))
    assert CliRunner().invoke(app, ["simulate", "--faults", "--fault", "F2"]).exit_code == 1
    missed[0].outage_s = None
    assert CliRunner().invoke(app, ["simulate", "--faults", "--fault", "F2"]).exit_code == 1
    missed[0].outage_s = 5.0
    assert CliRunner().invoke(app, ["simulate", "--faults", "--fault", "F2"]).exit_code == 0


def test_routers_that_never_get_to_the_fault_are_a_missed_row(monkeypatch):
    monkeypatch.setattr(faults, "_DELAY_MS", 100_000)
    (row,) = fault_runs.run("F2", 1, times=1)
    assert not row.met
    assert "did not come to the fault: nothing came of it within 60000 ms" in row.note


def test_a_slow_keepalive_misses_the_bound_of_f2():
    """The figure is a measurement: F2 with a keepalive each 4 s instead of each second."""
    with Pair(1) as pair:
        for node in (pair.a, pair.c):
            node.settings.direct_keepalive_ms = 4000
        pair.run(10)
        pair.mark()
        pair.drop((faults.COA_A, faults.COA_C), (faults.COA_C, faults.COA_A))
        pair.run(30)
        outage, _ = pair.gap()
    assert 5 < outage < 20


@pytest.mark.parametrize("seconds", [1, 7.5])
def test_a_gap_is_as_long_as_nothing_came_through(seconds):
    with Pair(2, "home") as pair:
        pair.mark()
        pair.world.network.filters.append(lambda d: d.kind == "user")
        pair.run(seconds)
        pair.world.network.filters.clear()
        pair.run(5)
        outage, note = pair.gap()
    assert seconds <= outage <= seconds + 0.2
    assert "not back" not in note


def test_a_gap_that_did_not_end_is_told():
    with Pair(2, "home") as pair:
        pair.mark()
        pair.world.network.filters.append(lambda d: d.kind == "user")
        pair.run(20)
        outage, note = pair.gap()
    assert outage >= 20
    assert "not back when the run ended" in note
