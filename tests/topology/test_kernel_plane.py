"""Whole routers on the kernel plane: the direct path, and a router that is killed under traffic."""

import shutil
import subprocess

import pytest

from haaro_host.lab import plan
from haaro_host.lab.lab import Lab
from haaro_host.lab.system import run
from tests.shell.namespaces import why_no_kernel_plane
from tests.topology.conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.usefixtures("privileged")


@pytest.fixture(scope="module", params=["kernel"])
def lab(request, privileged):
    reason = why_no_kernel_plane()
    if reason:
        pytest.skip(reason)
    out = ARTIFACTS / f"plane-{request.param}"
    shutil.rmtree(out, ignore_errors=True)
    layout = plan.layout_with(request.param)
    made = Lab(f"{NAME}k", out / "logs", die_with_parent=True, layout=layout)
    failed_before = request.session.testsfailed
    try:
        with made.exclusively():
            made.up()
            yield made
    finally:
        made.down()
        if request.session.testsfailed == failed_before:
            shutil.rmtree(out, ignore_errors=True)


def direct(lab: Lab, node: str, other: str) -> bool:
    status = lab.node_status(node)
    wanted = plan.office(other).home_address
    return bool(status) and ("direct", wanted) in {
        (peer["path"], peer["cr_hoa"]) for peer in status["peers"]
    }


def test_the_direct_path_is_found_and_a_killed_router_interrupts_nothing(lab, tmp_path):
    """The next process takes the pinned tables over, and traffic does not wait for it."""
    log = tmp_path / "ping"
    command = ["ping", "-i", "0.01", "-c", "1000", plan.HOST_ADDRESS["ah"]]
    for node in lab.layout.routers:
        data_plane = lab.node_status(node)["data_plane"]
        assert data_plane["plane"] == "kernel", data_plane["why"]
    with log.open("w") as out:
        going = subprocess.Popen(lab.inside("ch", command), stdout=out)
    until(lambda: direct(lab, "c", "a") and direct(lab, "a", "c"), 10, "no direct path")
    lab.kill("c")
    lab.start_router("c")
    until(lambda: direct(lab, "c", "a"), 15, "no direct path after the restart")
    going.wait(30)
    assert "1000 received, 0% packet loss" in log.read_text()
    counters = lab.node_status("c")["data_plane"]["counters"]
    assert counters["in_unconfirmed_source"] == 0
    assert lab.node_status("c")["data_plane"]["calls"]["failures"] == 0


def test_a_stopped_router_leaves_nothing_in_the_kernel(lab):
    namespace = plan.namespace(lab.name, "b")
    assert "clsact" in run(["tc", "-n", namespace, "qdisc", "show"])
    assert lab.stop_node("b") == "b: stopped"
    assert "clsact" not in run(["tc", "-n", namespace, "qdisc", "show"])
    assert [pin.name for pin in (lab.run / "bpf").iterdir() if "b_sock" in pin.name] == []
