"""Tunnels that move under traffic, on either data plane: what is lost, and what comes out of order.

The judges are the receivers of numbered datagrams, both ways. Tests in order, on one lab each.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from haaro_host.lab import processes
from haaro_host.lab.faults import layouts
from haaro_host.lab.lab import Lab
from haaro_host.lab.system import run
from haaro_host.lab.traffic import Hosts, Probe, ProbeSeries
from tests.shell.namespaces import why_no_kernel_plane

from .conftest import ARTIFACTS, NAME, until
from .test_uplinks import Office

pytestmark = [pytest.mark.usefixtures("privileged"), pytest.mark.timeout(180)]
_RATE = 250.0
_WAYS = ((layouts.A.host, layouts.C.host), (layouts.C.host, layouts.A.host))
A, C = layouts.A, layouts.C


class Planes(Office):
    """A and C on one plane, nothing direct yet."""

    def __init__(self, lab: Lab, out: Path, plane: str) -> None:
        self.plane = plane
        lab.build()
        for office in (A, C):
            configure(lab, office.node, policy={"return_s": 2}, dataplane=plane)
        lab.start_all()
        super().__init__(lab, Hosts(lab.name, layouts.HOSTS, out / "logs"))

    def planes(self) -> list[str]:
        """The planes that A and C use."""
        found = [self.lab.node_status(node) for node in (A.node, C.node)]
        return [each["data_plane"]["plane"] for each in found if each]


def configure(lab: Lab, node: str, **changes: object) -> None:
    path = lab.files.router_config(node)
    processes.write_atomically(path, json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture(scope="module", params=["userspace", "kernel"])
def office(request: pytest.FixtureRequest, privileged: None) -> Iterator[Planes]:
    reason = why_no_kernel_plane() if request.param == "kernel" else None
    if reason:
        pytest.skip(reason)
    out = ARTIFACTS / f"handover-{request.param}"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    layout = layouts.layout(layouts.Wants(second_uplink=True))
    # For both: what the kernel plane pins must outlive its process.
    lab = Lab(f"{NAME}h", out / "logs", True, replace(layout, dataplane="kernel"))
    before = request.session.testsfailed
    office = None
    try:
        with lab.exclusively():
            office = Planes(lab, out, request.param)
            yield office
    finally:
        for probe in office.probes if office else ():
            probe.stop()
        lab.down()
        if request.session.testsfailed == before:
            shutil.rmtree(out)


def series(office: Planes) -> list[ProbeSeries]:
    return [office.probes[-1].series(one, other) for one, other in _WAYS]


def kept_order(office: Planes, since: float, until_s: float) -> None:
    """Nothing lost; if one datagram overtook another, then as two paths in turn may have it."""
    assert office.lost(since, until_s) == [0, 0]
    for each in series(office):
        late = each.overtaken(since, until_s)
        assert each.by_two_paths(since, until_s), late


def test_the_first_traffic_moves_to_the_direct_path_and_nothing_is_lost(office: Planes) -> None:
    """From the home agent's tunnel to a direct one, while datagrams are under way both ways."""
    # Both listen when the first one is sent.
    start = time.time() + 1.5
    office.probes.append(Probe(office.hosts, A.host, C.host, _RATE, start))
    office.flowed(1.0)
    until(lambda: office.direct_by(A.care_of_address), 20.0, "A and C are not direct")
    office.flowed(1.0)
    end = time.time() - 0.5
    assert all(len([t for t in each.sent.values() if t < end]) > 200 for each in series(office))
    kept_order(office, start, end)
    assert office.planes() == [office.plane] * 2


def test_another_care_of_address_loses_nothing_there_and_back(office: Planes) -> None:
    for words, address in (
        (("drain", "wan"), layouts.A_SECOND),
        (("drain", "wan", "--undo"), A.care_of_address),
    ):
        start = time.time()
        office.router(*words)
        until(lambda address=address: office.direct_by(address), 30.0, "A does not move")
        office.flowed(1.0)
        kept_order(office, start, time.time() - 0.5)


@pytest.mark.parametrize("office", ["kernel"], indirect=True)
def test_the_other_plane_takes_over_by_a_restart(office: Planes) -> None:
    """A kill leaves the kernel plane's programs in force: the userspace plane takes them away, and
    the kernel plane starts where nothing is left. Traffic comes back by itself both times."""
    lab = office.lab
    for plane in ("userspace", "kernel"):
        killed = time.time()
        lab.kill(C.node)
        configure(lab, C.node, dataplane=plane)
        lab.start_router(C.node)

        def back(killed: float = killed) -> bool:
            return all(max(each.sent_of_received()) > killed + 1.0 for each in series(office))

        until(back, 30.0, f"no traffic after the start with the {plane} plane")
        # While C was away A has tried its other uplink, and may keep to it.
        ends = (A.care_of_address, layouts.A_SECOND)
        until(
            lambda ends=ends: any(map(office.direct_by, ends)), 30.0, "not direct after a restart"
        )
        assert office.planes()[1:] == [plane]
        clsact = "clsact" in run(lab.inside(C.node, ["tc", "qdisc", "show", "dev", "wan"]))
        assert clsact == (plane == "kernel")
        office.flowed(0.0)
        settled = time.time()
        office.flowed(1.0)
        kept_order(office, settled, time.time() - 0.5)


@pytest.mark.parametrize(
    ("arrived", "late", "explained"),
    [
        ([1, 2, 3, 4], [], True),
        ([1, 2, 5, 3, 6, 4, 7], [3, 4], True),  # 5, 6, 7 by the new path, 3 and 4 by the old one
        ([1, 3, 2, 5, 4, 6], [2, 4], False),
        ([2, 4, 3, 1, 5], [3, 1], False),
    ],
)
def test_the_judge_tells_a_switch_of_path_from_disorder(arrived, late, explained) -> None:
    sent = {number: float(number) for number in range(1, 8)}
    found = ProbeSeries(sent, {number: 10.0 + at for at, number in enumerate(arrived)})
    assert found.overtaken(0, 9) == late
    assert found.by_two_paths(0, 9) == explained
