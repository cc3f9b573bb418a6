"""A board with an RP2350 on the desk: its boot ROM's drive, and what boots from its flash.

When the boot ROM restarts, real MicroPython (the unix port) mounts the flash that was written, and
runs main.py of it behind a pty; the modules of an RP2 port are simulated (tests/mcu_sim).
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from haaro_host.lab.processes import write_atomically
from tests.uf2_rom.rom import Drive, Rom

ROOT = Path(__file__).parents[2]
FILES, FILES_OCTETS = 0xE0000, 1152 * 1024
UNIQUE_ID = "102030405060"  # that of tests/mcu_sim
_MODULES = ("tests/mcu_sim/fakes", "tests/mcu_sim", "tests/w5500_sim")


class Desk:
    """One board; `port` leads to its console once it runs.

    cable: what the board's Ethernet finds, as tests/mcu_sim has it. launch: starts (the folder with
    a main.py, more of the environment) otherwise than behind a pty.
    """

    def __init__(
        self, place: Path, cable: dict[str, str] | None = None,
        launch: Callable[[Path, dict[str, str]], None] | None = None, **faults: object,
    ) -> None:  # fmt: skip
        self.rom = Rom()
        self._place = place
        self._cable = cable
        self._launch = launch or self._behind_a_pty
        place.mkdir()
        self.flash = place / "flash.bin"
        self.port = str(place / "port")
        self.drive = Drive(place / "drive", self.rom, self._boot, **faults)  # type: ignore[arg-type]
        self._process: subprocess.Popen | None = None

    def _boot(self) -> None:
        self.flash.write_bytes(self.rom.flash)
        world = {"port": "rp2", "access_points": [], "cable": self._cable}
        write_atomically(self._place / "world.json", json.dumps(world))
        # What the firmware does before main.py: it mounts the end of the flash.
        firmware = self._place / "firmware"
        firmware.mkdir()
        words = [str(self.flash), str(FILES), str(FILES_OCTETS), "boot", "256"]
        mount = ROOT / "tests" / "flash" / "mount.py"
        (firmware / "main.py").write_text(
            f"import sys\nsys.argv[:] = {['mount.py', *words]!r}\n"
            f"with open({str(mount)!r}) as source:\n    exec(source.read())\n"
        )
        environment = {
            "BOARD_PATH": ":".join(str(ROOT / name) for name in _MODULES),
            "MCU_SIM": str(self._place / "world.json"),
            "MCU_SIM_PORT": "rp2",
        }
        self._launch(firmware, environment)

    def _behind_a_pty(self, firmware: Path, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "haaro_host.lab.board", str(firmware), self.port]
        with (self._place / "board.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **environment},
            )  # fmt: skip

    def __enter__(self) -> "Desk":
        self.drive.__enter__()
        return self

    def __exit__(self, *unused: object) -> None:
        self.drive.__exit__()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
