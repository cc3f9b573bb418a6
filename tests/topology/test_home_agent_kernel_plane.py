"""The star by the home agent's kernel plane: between routers that have no direct path."""

import shutil
import subprocess

import pytest

from haaro_host.lab import plan, topology
from haaro_host.lab.lab import Lab
from haaro_host.lab.system import run
from tests.shell.namespaces import why_no_kernel_plane
from tests.topology.conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.usefixtures("privileged")


@pytest.fixture(scope="module", params=["userspace", "kernel"])
def lab(request, privileged):
    """The lab, A and C cut off from each other; the routers by either plane."""
    reason = why_no_kernel_plane()
    if reason:
        pytest.skip(reason)
    out = ARTIFACTS / f"star-{request.param}"
    shutil.rmtree(out, ignore_errors=True)
    layout = plan.layout_with(request.param, "kernel")
    made = Lab(f"{NAME}s", out / "logs", die_with_parent=True, layout=layout)
    failed_before = request.session.testsfailed
    try:
        with made.exclusively():
            made.up()
            one, other = (plan.office(name).care_of_address for name in "ac")
            topology.cut(made.name, one, other)
            yield made
    finally:
        made.down()
        if request.session.testsfailed == failed_before:
            shutil.rmtree(out, ignore_errors=True)


def star(lab):
    return lab.node_status("ha")["data_plane"]


def test_a_killed_home_agent_interrupts_nothing_between_routers(lab, tmp_path):
    """What is pinned forwards on, and the next process takes it over."""
    assert star(lab)["plane"] == "kernel", star(lab)["why"]
    log = tmp_path / "ping"
    command = ["ping", "-i", "0.01", "-c", "600", plan.HOST_ADDRESS["ah"]]
    with log.open("w") as out:
        going = subprocess.Popen(lab.inside("ch", command), stdout=out)
    until(lambda: star(lab)["counters"]["relayed"] > 50, 10, "nothing by the programs")
    lab.kill("ha")
    lab.start_home_agent()
    going.wait(30)
    assert "600 received, 0% packet loss" in log.read_text()
    assert star(lab)["calls"]["failures"] == 0


def test_large_transfers_pass_by_the_programs_both_ways_with_the_home_network(lab):
    """Segments that the stack has not cut yet are cut, and summed up, on the way to a router."""
    octets = 3 << 20
    for source, target in (("hq", "bh"), ("bh", "hq"), ("ch", "ah")):
        send = f"exec 3<>/dev/tcp/{plan.HOST_ADDRESS[target]}/5077; head -c {octets} /dev/zero >&3"
        listen = (
            "import socket; s = socket.create_server(('', 5077)); print('ready', flush=True);"
            " c = s.accept()[0]; print(sum(iter(lambda: len(c.recv(65536)), 0)))"
        )
        with subprocess.Popen(
            lab.inside(target, ["python3", "-c", listen]), stdout=subprocess.PIPE, text=True
        ) as receiver:
            assert receiver.stdout.readline() == "ready\n"
            run(lab.inside(source, ["timeout", "60", "bash", "-c", send]))
            assert receiver.stdout.read() == f"{octets}\n"
    counters = star(lab)["counters"]
    least = octets // 1468
    assert min(counters[name] for name in ("relayed", "to_home", "from_home")) > least // 2
    assert sum(counters[name] for name in ("relayed", "to_home", "from_home")) > 3 * least


def test_a_stopped_home_agent_leaves_nothing_in_the_kernel(lab):
    namespace = plan.namespace(lab.name, "ha")
    assert "clsact" in run(["tc", "-n", namespace, "qdisc", "show"])
    assert lab.stop_node("ha") == "ha: stopped"
    assert "clsact" not in run(["tc", "-n", namespace, "qdisc", "show"])
    assert [pin.name for pin in (lab.run / "bpf").iterdir() if "ha_sock" in pin.name] == []
