"""`haaro lab outages`: goes on where it stopped, counts honestly, writes what it measured."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from haaro_host.cli import _register_parts, app
from haaro_host.lab.faults import cases, document, outages
from haaro_host.lab.faults.bench import Row
from haaro_host.lab.faults.outages import NAMESPACES, SIMULATION, Outages, Run, Store

from .test_faults import BOUNDS

FACTS = {"processor": "p", "cores": "2", "kernel": "k", "python": "3", "namespaces_code": "n1",
         "simulation_code": "s1", "runs": "20", "commit": "abc1234"}  # fmt: skip
F2 = [case.key for case in cases.CASES if case.fault == "F2"]


def row(fault: str, path: str, bound: float, outage: float | None, note: str = "") -> dict:
    return {"fault": fault, "path": path, "bound_s": bound, "outage_s": outage, "note": note}


def run(key: str, seed: int, *rows: dict, error: str = "", where: str = NAMESPACES) -> Run:
    return Run(where, "n1", key, seed, list(rows), error, 1e9 + seed, 1.0, 4)


def f2(seed: int, *values: float | None) -> list[Run]:
    return [
        run(key, seed, row("F2", "direct", 5, value)) for key, value in zip(F2, values, strict=True)
    ]


def test_a_run_counts_the_worst_of_its_cases_once_all_have_run() -> None:
    runs = f2(1, 2.0, 3.5, 1.0) + f2(2, 2.5, 2.0, 2.2) + f2(3, 9.0, 1.0, 1.0)[:2]
    assert document.by_run(runs) == {("F2", "direct"): [3.5, 2.5]}


def test_a_case_that_broke_counts_as_not_held() -> None:
    good = [*f2(1, 2.0, 2.0, 2.0), *f2(2, 2.1, 2.1, 2.1), *f2(3, 2.2, 2.2, 2.2)[:2]]
    runs = [*good, run(F2[2], 3, error="broke")]
    assert document.by_run(runs) == {("F2", "direct"): [2.0, 2.1, None]}
    text, held = document.render(runs, [], FACTS)
    assert not held
    assert f"- namespaces, {F2[2]}, seed 3: broke" in text
    lines = [line for line in text.splitlines() if line.startswith(("| F2 ", f"| {F2[2]} "))]
    assert all(line.endswith("| 2.10 | **not held** | 3 |") for line in lines) and len(lines) == 2


def test_a_missed_bound_is_bold_and_listed() -> None:
    text, held = document.render(f2(1, 2.0, 5.5, 1.0), [], FACTS)
    assert not held
    line = next(line for line in text.splitlines() if line.startswith("| F2 "))
    assert line.endswith("| 5 | not run | | | **5.50** | **5.50** | 1 |")
    assert "5.50 of 5 s" in text


def test_what_was_not_measured_is_said() -> None:
    text, held = document.render(f2(1, 2.0, 2.5, 1.0), [], FACTS)
    assert held
    assert "- Simulation: not run on this code (s1)." in text
    assert (
        "3 runs of cases with 1 of 20 wanted seeds, measured 2001-09-09 01:46 UTC, code n1" in text
    )
    assert "up to 4 runs side by side" in text and "at commit abc1234" in text
    assert "| F5 | " in text and "| not run | | | not run | | |" in text


def test_simulation_gives_its_return_routability_and_survival() -> None:
    notes = (
        ("F1", "direct", 30, 4.0, "longest gap; return routability took 7.9 s in 95 % of 300 runs"),
        ("F13", "ha", 60, 4.0, "direct traffic lived 419 s of at least 415 s, 1 requests"),
    )
    runs = [run(fault, 1, row(fault, *rest), where=SIMULATION) for fault, *rest in notes]
    text, _ = document.render([], runs, FACTS)
    assert next(x for x in text.splitlines() if "return routability is done" in x).endswith(
        "| 30 | 7.90 | 7.90 | 1 | not run | | |"
    )
    assert "In simulation for 419 to 419 s (1 runs of an hour)." in text


@pytest.mark.parametrize(
    ("values", "middle", "worst"),
    [([1.0], 1.0, 1.0), ([3.0, 1.0, 2.0], 2.0, 3.0), ([1.0, None, 2.0], 2.0, None),
     ([None, None, 1.0], None, None)],
)  # fmt: skip
def test_none_is_worse_than_any_number(
    values: list[float | None], middle: float | None, worst: float | None
) -> None:
    assert outages.median_and_worst(values) == (middle, worst)


def test_the_file_survives_a_line_that_was_cut_short(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs.jsonl")
    store.add(run("a", 1))
    with store.path.open("a") as file:
        file.write('{"where": "namesp')
    store.add(run("b", 2))
    assert [each.key for each in store.runs()] == ["a", "b"]


def test_a_later_start_does_what_is_missing_for_the_code_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, str, int]] = []
    codes = {NAMESPACES: "n1", SIMULATION: "s1"}
    monkeypatch.setattr(outages, "code_hash", codes.__getitem__)
    monkeypatch.setattr(outages, "RUN", tmp_path / "run")

    def go(self: Outages, where: str, key: str, seed: int, number: int) -> Run:
        ran.append((where, key, seed))
        return Run(where, codes[where], key, seed, [], "", 1e9, 1.0)

    monkeypatch.setattr(Outages, "_run", go)

    def start(runs: int) -> None:
        Outages(tmp_path, tmp_path / "outages.md", runs, 2, lambda line: None).measure()

    everything = len(cases.CASES) + len(outages.fault_runs.NAMES)
    start(2)
    assert len(ran) == len(set(ran)) == 2 * everything
    start(3)
    assert len(ran) == 3 * everything and {seed for *_, seed in ran[2 * everything :]} == {3}
    codes[SIMULATION] = "s2"
    start(1)
    assert len(ran) == 3 * everything + len(outages.fault_runs.NAMES)
    assert (tmp_path / "outages.md").read_text().startswith("# Outages\n")


def test_a_change_of_code_during_a_run_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = {NAMESPACES: "n1", SIMULATION: "s1"}
    monkeypatch.setattr(outages, "code_hash", codes.__getitem__)
    monkeypatch.setattr(outages, "RUN", tmp_path / "run")

    def go(self: Outages, where: str, key: str, seed: int, number: int) -> Run:
        codes[where] = "other"
        return Run(where, {NAMESPACES: "n1", SIMULATION: "s1"}[where], key, seed, [], "", 1e9, 1.0)

    monkeypatch.setattr(Outages, "_run", go)
    made = Outages(tmp_path, tmp_path / "outages.md", 1, 1, lambda line: None)
    with pytest.raises(outages.system.LabError, match="the code changed while"):
        made.measure()
    assert made._stores[NAMESPACES].runs() == []


def test_labs_of_a_killed_run_are_taken_down_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []

    class Recorded:
        def __init__(self, name: str, layout: object) -> None:
            self.name = name

        def down(self) -> None:
            gone.append(self.name)

    dead = 2**22 + 1  # beyond the largest process id there can be
    for name in (f"haaro-o{dead}-3", f"haaro-o{os.getpid()}-1", "haaro-office", f"haaro-f{dead}"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(outages, "RUN", tmp_path)
    monkeypatch.setattr(outages, "Lab", Recorded)
    outages.remove_leftovers("haaro-o")
    assert gone == [f"haaro-o{dead}-3"]


def test_the_hash_covers_what_a_run_executes(tmp_path: Path) -> None:
    for name in ("firmware/haaro/core/x.py", "firmware/main.py", "host_tools/haaro_host/lab/x.py",
                 "host_tools/haaro_host/lab/demo.py"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    before = {where: outages.code_hash(where, tmp_path) for where in (NAMESPACES, SIMULATION)}
    (tmp_path / "host_tools/haaro_host/lab/demo.py").write_text("2")
    assert outages.code_hash(NAMESPACES, tmp_path) == before[NAMESPACES]
    (tmp_path / "host_tools/haaro_host/lab/x.py").write_text("2")
    assert outages.code_hash(NAMESPACES, tmp_path) != before[NAMESPACES]
    assert outages.code_hash(SIMULATION, tmp_path) == before[SIMULATION]
    (tmp_path / "firmware/haaro/core/x.py").write_text("2")
    assert outages.code_hash(SIMULATION, tmp_path) != before[SIMULATION]


def test_the_document_has_a_line_for_every_bound_of_the_tests() -> None:
    bounds = {(fault, path): bound for fault, path, bound, _ in document.ROWS}
    long = {case.fault for case in cases.CASES if case.long}
    assert {name: b for name, b in bounds.items() if name[0] not in long} == BOUNDS


def test_a_result_in_words_names_what_was_missed() -> None:
    rows = [Row("F2", "direct", 5, 5.5, "why"), Row("F2", "ha", 5, None, "never")]
    said = cases.as_text(cases.Result("f2-both-ways", 1, rows, "", 3.0, "there"))
    assert said.startswith("MISSED  f2-both-ways  (3 s)")
    assert "F2 direct: 5.50, bound 5; why" in said and "F2 ha: not held" in said
    assert said.endswith("captures and logs: there")


def test_an_unknown_case_is_refused_with_those_that_exist() -> None:
    _register_parts()
    result = CliRunner().invoke(app, ["lab", "faults", "f99"])
    assert result.exit_code == 2
    assert "f2-both-ways" in result.output.replace("\n", "").replace("│", "")
