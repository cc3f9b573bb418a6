"""A blank RP2350, one command, and the site is up.

Simulated: the boot ROM's drive (tests/uf2_rom) and the port's modules (tests/mcu_sim), among them
the W5500 as uplink. Real: the UF2 file, littlefs, MicroPython (its unix port), which mounts the
very flash that the boot ROM wrote and runs the board's own program of it in the site's namespace;
the home agent. Such a board has no second chip for a LAN, so no host is behind it here.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from haaro_host.flash import boards, build
from haaro_host.lab import plan, system
from haaro_host.lab.lab import Lab
from tests.uf2_rom import micropython_uf2
from tests.uf2_rom.board import Desk

from .conftest import ARTIFACTS, NAME

pytestmark = pytest.mark.timeout(240)
_BOARD = "W5500_EVB_PICO2"
C = plan.office("c")


def _fleet_file(lab: Lab) -> str:
    return (
        f'version = 1\n[fleet]\nname = "lab"\n[home_agent]\naddress = "{plan.HOME_AGENT}"\n'
        f'home_addresses = ["{plan.HOME_ADDRESSES}"]\nhome_networks = ["{plan.HOME_NETWORK}"]\n'
        f'state = "{lab.files.ha_state}"\nsocket = "{lab.files.ha_socket}"\n'
        f'[site.c]\nhome_address = "{C.home_address}"\nprefixes = ["{C.lan_net}"]\n'
        f'board = "{_BOARD}"\n[site.c.router]\n'
        'uplinks = [{ name = "wire", driver = "ethernet" }]\n'
    )


def _haaro(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*system.haaro_command(), *arguments],
        env={
            **os.environ,
            "HAARO_FLEET": str(directory / "fleet.toml"),
            "HAARO_PASSPHRASE": "a fleet in a lab",
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_file_makes_a_blank_chip_a_site_that_is_up(privileged: None) -> None:
    out = ARTIFACTS / "test_flash_uf2"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    lab = Lab(f"{NAME}u", out / "logs", die_with_parent=True)

    def launch(folder: Path, environment: dict[str, str]) -> None:
        lab.environment["c"] = environment
        run = f"cd {folder} && exec {system.micropython()} -X heapsize=448k main.py"
        lab.start("c", ["sh", "-c", run])

    cable = {"address": C.care_of_address, "mask": "255.255.255.0", "gateway": C.gateway,
             "interface": "wan"}  # fmt: skip
    try:
        with lab.exclusively():
            lab.build()
            fleet = out / "fleet"
            fleet.mkdir()
            (fleet / "fleet.toml").write_text(_fleet_file(lab))
            _haaro(fleet, "keys", "new")
            _haaro(fleet, "fleet", "export", "ha", "--out", str(lab.run / "ha"))
            lab.start_home_agent()
        build.build(boards.load(_BOARD), out / "firmware")
        (out / "mp.uf2").write_bytes(micropython_uf2.binary())
        with Desk(out / "desk", cable, launch) as desk:
            said = _haaro(
                fleet, "flash", "c", "--drive", str(desk.drive.place), "--json",
                "--firmware", str(out / "firmware"), "--micropython", str(out / "mp.uf2"),
            )  # fmt: skip
        (box,) = json.loads(said)["boxes"]
        assert (box["result"], box["care_of_address"]) == ("up", C.care_of_address)
        assert "Traceback" not in (lab.logs / "c.log").read_text()
    finally:
        lab.down()
    shutil.rmtree(out)
