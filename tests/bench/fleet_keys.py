"""`make fleet-bench`: host time to make the files of a fleet's sites, written into docs/fleet.md.

Fleets of 10, 20 and 40 sites that all share keys, in two epochs, so that the rows of a site grow
with the fleet. By the processor's time, which other work on the machine changes least.
"""

import os
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from haaro_host.fleet import export, inventory, store
from haaro_host.lab import system

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"
SIZES = (10, 20, 40)
_REPEAT = 5
_PASSPHRASE = "a fleet on a bench"
_TABLE = re.compile(r"(<!-- made by make fleet-bench -->\n).*?(\n<!-- end -->)", re.S)


def haaro(place: Path, *words: str) -> float:
    """Run a command on the fleet in `place`; return the processor's time that it took, seconds."""
    environment = {**os.environ, "HAARO_PASSPHRASE": _PASSPHRASE}
    environment["HAARO_FLEET"] = str(place / "fleet.toml")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*system.haaro_command(), *words], env=environment, check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(place: Path, sites: int) -> dict[str, float]:
    """Return what a fleet of `sites` sites costs: seconds and rows."""
    haaro(place, "fleet", "init")
    file = place / "fleet.toml"
    tables = "".join(
        f'\n[site.site-{n}]\nhome_address = "192.0.2.{129 + n}"\nprefixes = ["10.{n}.0.0/24"]\n'
        for n in range(sites)
    )
    file.write_text(file.read_text().replace('peers = "none"', 'peers = "all"') + tables)
    haaro(place, "keys", "new")
    haaro(place, "keys", "stage", "--peers")
    one = haaro(place, "fleet", "export", "router", "site-0", "--out", str(place / "one"))
    every = haaro(place, "fleet", "export", "router", "--all", "--out", str(place / "all"))
    fleet = inventory.load(file)
    os.environ["HAARO_PASSPHRASE"] = _PASSPHRASE
    keys = store.open_store(fleet, None).keys
    best = float("inf")
    for _ in range(_REPEAT):
        began = time.process_time()
        for site in fleet.in_service:
            export.router_files(fleet, keys, site)
        best = min(best, time.process_time() - began)
    rows = 1 + 2 * (sites - 1)
    return {"sites": sites, "rows": rows, "one": one, "all": every, "made": best / sites}


def main() -> None:
    """Measure, print the table and write it into the page."""
    lines = [
        "| Sites | Keys a site | One site's files, a command | All, a command | A site by itself |",
        "|---|---|---|---|---|",
    ]
    for sites in SIZES:
        with tempfile.TemporaryDirectory(prefix="haaro-bench-") as place:
            found = measure(Path(place), sites)
        each_us = 1e6 * found["made"] / found["rows"]
        lines.append(
            f"| {sites} | {found['rows']} | {found['one']:.2f} s | {found['all']:.2f} s |"
            f" {1000 * found['made']:.1f} ms, {each_us:.0f} µs a key |"
        )
    text, count = _TABLE.subn(rf"\g<1>{chr(10).join(lines)}\g<2>", PAGE.read_text())
    assert count == 1, f"{PAGE}: no place for the table"
    PAGE.write_text(text)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
