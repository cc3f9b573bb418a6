"""A blank chip, one command, and the site is up and passes traffic.

Simulated: the ESP32-S3's loader and its reset lines (tests/esp_loader); MicroPython's binary is an
image without content, since there is no Xtensa processor; the box's uplink and LAN are Linux'.
Real: esptool, the flash image, littlefs, MicroPython (its unix port), which mounts the very flash
that esptool wrote and runs main.py of it in the site's namespace; the home agent; the packets.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haaro_host.flash import boards, build
from haaro_host.lab import plan, system
from haaro_host.lab.lab import Lab
from haaro_host.lab.traffic import Hosts
from tests.esp_loader import boot
from tests.esp_loader.chip import Chip
from tests.esp_loader.line import Rfc2217
from tests.esp_loader.micropython_binary import binary

from .conftest import ARTIFACTS, NAME, until

pytestmark = pytest.mark.timeout(240)
_BOARD, _ID = "ESP32_S3_W5500", "7cdfa1000001"
_MOUNT = Path(__file__).parents[1] / "flash" / "mount.py"


class Bench:
    """The lab with its home agent and router A, and a blank chip at the port of site C."""

    def __init__(self, lab: Lab, out: Path) -> None:
        self.lab = lab
        self.hosts = Hosts(NAME, plan.HOST_ADDRESS, out / "logs")
        self.directory = lab.run / "fleet"
        self.flash_file = lab.run / "flash.bin"
        self.chip = Chip(self.flash_file, mac=bytes.fromhex(_ID), started=self._boot)
        self.failed_starts: list[str] = []

    def _boot(self) -> None:
        """The chip leaves reset with IO0 high: MicroPython starts, if the flash boots at all."""
        self.lab.stop_node("c")
        try:
            offset, octets = boot.filesystem(self.chip.flash[:])
        except ValueError as error:
            self.failed_starts.append(str(error))
            return
        # With a console and a mounted filesystem; as lab/board has it.
        heap = "heapsize=512k"
        command = [system.micropython(), "-X", heap, str(_MOUNT), str(self.flash_file)]
        self.lab.start("c", [*command, str(offset), str(octets), "boot"])

    def haaro(self, *arguments: str, status: int = 0) -> str:
        """Run the command line on this fleet; what it printed."""
        done = subprocess.run(
            [*system.haaro_command(), *arguments],
            env={
                **os.environ,
                "HAARO_FLEET": str(self.directory / "fleet.toml"),
                "HAARO_PASSPHRASE": "a fleet in a lab",
            },
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def reaches(self, source: str, destination: str) -> bool:
        """Whether a few echoes come back."""
        try:
            return self.hosts.ping(source, destination, 3) > 0
        except system.LabError:
            return False

    def log(self) -> str:
        """What the box printed."""
        path = self.lab.logs / "c.log"
        return path.read_text() if path.exists() else ""


def _fleet_file(lab: Lab) -> str:
    sites = "".join(
        f'[site.{o.node}]\nhome_address = "{o.home_address}"\nprefixes = ["{o.lan_net}"]\n'
        + (f'board = "{_BOARD}"\nunique_id = "{_ID}"\n' if o.node == "c" else "")
        + f'[site.{o.node}.router]\nsocket = "{lab.files.socket(o.node)}"\n'
        for o in plan.OFFICES
    )
    return (
        f'version = 1\n[fleet]\nname = "lab"\n[home_agent]\naddress = "{plan.HOME_AGENT}"\n'
        f'home_addresses = ["{plan.HOME_ADDRESSES}"]\nhome_networks = ["{plan.HOME_NETWORK}"]\n'
        f'state = "{lab.files.ha_state}"\nsocket = "{lab.files.ha_socket}"\n[defaults.router]\n'
        'dataplane = "userspace"\n'
        'uplinks = [{ name = "wan", driver = "linux_netdev", interface = "wan" }]\n' + sites
    )


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, privileged: None) -> Iterator[Bench]:
    out = ARTIFACTS / "test_flash"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(NAME, out / "logs", die_with_parent=True)
    failed_before = request.session.testsfailed
    broken = True
    made = None
    try:
        with lab.exclusively():
            lab.build()
            made = Bench(lab, out)
            made.directory.mkdir()
            (made.directory / "fleet.toml").write_text(_fleet_file(lab))
            made.haaro("keys", "new")
            made.haaro("fleet", "export", "ha", "--out", str(lab.run / "ha"))
            made.haaro("fleet", "export", "router", "a", "--out", str(lab.run))
            lab.start_home_agent()
            lab.start_router("a")
            lab.wait_registered("a")
        build.build(boards.load(_BOARD), lab.run / "firmware")
        (lab.run / "micropython.bin").write_bytes(binary("esp32s3", lab.run))
        yield made
        broken = request.session.testsfailed > failed_before
    finally:
        if made:
            made.chip.close()
        lab.down()
        if not broken:
            shutil.rmtree(out)
        if ARTIFACTS.exists() and not os.listdir(ARTIFACTS):
            ARTIFACTS.rmdir()


def test_one_command_makes_a_blank_chip_a_site_that_is_up(bench: Bench) -> None:
    assert bench.chip.flash[:].count(0xFF) == len(bench.chip.flash), "it is blank"
    bench.chip.reset(download=False)
    assert bench.failed_starts == ["no bootloader for chip 9 at 0x0"]
    with Rfc2217(bench.chip) as line:
        said = bench.haaro(
            "flash", "c", "--port", line.url, "--json",
            "--firmware", str(bench.lab.run / "firmware"),
            "--micropython", str(bench.lab.run / "micropython.bin"),
        )  # fmt: skip
        assert bench.failed_starts[1:] == []
        (box,) = json.loads(said)["boxes"]
        assert (box["result"], box["unique_id"]) == ("up", _ID), bench.log()
        assert box["care_of_address"] == plan.office("c").care_of_address
        # From the office behind the flashed box to A's and to headquarters; a loss raises.
        for other in ("ah", "hq"):
            assert bench.hosts.ping("ch", other, 20) > 0
        audit = (bench.directory / "provision.log").read_text()
        assert json.loads(audit)["result"] == "up"
        # A power cut later it comes up again by itself, from the same flash.
        bench.lab.kill("c")
        bench.chip.reset(download=False)
        bench.lab.wait_registered("c")
        # A's end of the direct path has to find out first: F10, at most 10 s.
        until(lambda: bench.reaches("ch", "ah"), 15.0, "no traffic after the power cut")
        bench.lab.stop_node("c")
    key = json.loads(
        (bench.lab.run / "a" / "router.secrets.json").read_text()
    )["mobile_home"][0]["key"]  # fmt: skip
    assert key.encode() not in bench.chip.flash[:], "a box holds its own rows only"
    assert "Traceback" not in bench.log()
