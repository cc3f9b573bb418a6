"""The bench's namespaces and generator, on the cheapest row; and what a run does with failures."""

import json
import os
import shutil
import subprocess

import pytest

from bench import measure, rows, run
from bench.topology import Net
from haaro_host.lab import system
from haaro_host.lab.system import LabError

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or system.in_user_namespace() or not shutil.which("gcc"),
    reason="needs root, and gcc for the generator",
)


@pytest.fixture
def build(tmp_path):
    """Return a directory with the generator in it."""
    source = system.repository() / "bench" / "packets.c"
    command = ["gcc", "-O2", "-Wall", "-Werror", "-D_GNU_SOURCE", "-o", str(tmp_path / "packets")]
    subprocess.run([*command, str(source)], check=True)
    return tmp_path


def namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout


@needs_root
def test_plain_forwarding_carries_the_generators_datagrams_and_nothing_is_left(build):
    prefix = f"hbt{os.getpid()}"
    with Net(prefix, build / "logs") as net:
        (row,), _ = rows.chosen(["plain"])
        running = row.start(net, build)
        assert running.pids == [] and running.lost() is None
        assert len(measure.round_trips(net, 5)) == 5
        with measure.Counter(net, build) as counter:
            generator = measure.Generator(net, build, counter)
            one = generator.trial(2000, 0.2)
        # A busy machine may keep the sender from its CPU; what it sent has to arrive.
        assert 0 < one.sent <= 401 and one.arrived == one.sent
        assert net.fragments() == 0
        assert prefix in namespaces()
    assert prefix not in namespaces()
    assert not net.run.exists()


def test_a_row_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(LabError, match=r"no row tink: there are plain_offloads, plain"):
        rows.chosen(["plain", "tink"])


def test_a_row_without_its_daemon_is_left_out_and_said_so(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    found, left_out = rows.chosen([])
    assert [row.name for row in found if row.needs] == []
    assert left_out["tinc_none"] == "not installed: tincd"
    assert left_out["nebula"] == "not installed: nebula, nebula-cert"


def test_a_row_that_fails_is_recorded_and_the_others_go_on(tmp_path, monkeypatch):
    class NoNet:
        def __init__(self, *_):
            raise LabError("no namespace")

    monkeypatch.setattr(run, "Net", NoNet)
    monkeypatch.setattr(run, "versions", dict)
    bench = run.Bench(tmp_path, run.QUICK, None)
    assert bench.run(["plain", "plain_offloads"], with_scale=False) is False
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert [each["why"] for each in kept["errors"]] == ["no namespace"] * 2
    assert kept["rounds"] == [
        {"plain": {"error": "no namespace"}, "plain_offloads": {"error": "no namespace"}}
    ]


def test_no_round_begins_that_would_end_too_late(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(run.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(run, "versions", dict)
    monkeypatch.setattr(run.Bench, "one", lambda self, row, number: {"tcp1": 1.0})
    bench = run.Bench(tmp_path, run.FULL, 12)
    assert bench.run(["plain"], with_scale=False)
    assert 0 < len(bench.result["rounds"]) < run.FULL.rounds
