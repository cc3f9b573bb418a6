"""Captures of the demo: one *.pcap a link of the internet router, by `recorder.py`.

Owns the recording process and its files.
"""

from __future__ import annotations

import json
import signal
import sys
from functools import partial
from pathlib import Path

from haaro_host.lab import plan, processes
from haaro_host.lab.lab import Lab
from haaro_host.lab.processes import Process
from haaro_host.lab.system import LabError
from haaro_host.lab.traffic import IPERF_PORT

_SCRIPT = Path(__file__).with_name("recorder.py")
_RING_MB = 16  # of each link
_START_DEADLINE_S = 8.0
_STOP_DEADLINE_S = 5.0


class Captures:
    """The running captures of one lab; `directory` gets the files."""

    def __init__(self, lab: Lab, directory: Path, ring_mb: int = _RING_MB) -> None:
        self._lab = lab
        self.links = tuple(lab.layout.ingress)
        self._ring_mb = ring_mb
        self.directory = directory
        self._log = directory / "recorder.log"
        self._running: Process | None = None

    def path(self, link: str) -> Path:
        """File of a link's capture."""
        return self.directory / f"{link}.pcap"

    def start(self) -> None:
        """Start and wait until every link is recorded. Raises LabError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for path in (self._log, *map(self.path, self.links)):
            path.unlink(missing_ok=True)
        command = [sys.executable, "-S", "-E", str(_SCRIPT), "--out", str(self.directory),
                   "--bulk-port", str(IPERF_PORT), "--home-agent", plan.HOME_AGENT,
                   "--ring-mb", str(self._ring_mb),
                   *(f"{link}={plan.port_to(link)}" for link in self.links)]  # fmt: skip
        process = processes.start(
            self._lab.inside("inet", command), self._log, die_with_parent=True
        )
        self._running = process

        def settled() -> bool:
            return "recording" in self._log.read_text() or processes.gone(process)

        if not processes.wait_until(settled, _START_DEADLINE_S) or processes.gone(process):
            raise LabError(f"the recorder did not start: {self._log.read_text().strip()}")

    def stop(self) -> dict[str, int]:
        """End it; {"packets", "dropped"} over all links. Nothing dropped: the files are complete.

        Raises LabError when the recorder ended without its counts.
        """
        if self._running is None:
            return {"packets": 0, "dropped": 0}
        process, self._running = self._running, None
        processes.stop(process, _STOP_DEADLINE_S, partial(process.send, signal.SIGTERM))
        try:
            links = json.loads(self._log.read_text().splitlines()[-1]).values()
        except (IndexError, ValueError) as error:
            raise LabError(f"the recorder broke off: {self._log.read_text()[-400:]}") from error
        return {key: sum(each[key] for each in links) for key in ("packets", "dropped")}
