"""What a box must be before it gets a site's files, and the line that says that it got them."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet, Site

AUDIT = "provision.log"
# (what is being written, octets done, octets in all)
Progress = Callable[[str, int, int], None]
# Boards that are a MicroPython port by themselves; elsewhere the board is the firmware's build.
_BY_PLATFORM = {"UNIX": "linux"}


@dataclass(frozen=True)
class Identity:
    """What a box says of itself."""

    platform: str
    build: str
    unique_id: str


@dataclass
class Outcome:
    """What was done to a box. `files`: fingerprint by name."""

    site: str
    port: str
    way: str
    unique_id: str
    result: str
    files: dict[str, str] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)


def check_identity(fleet: Fleet, site: Site, box: Identity) -> list[str]:
    """Raise FleetError if `box` is not the one of `site`; return what could not be checked."""
    wanted = _BY_PLATFORM.get(site.board)
    found = box.platform if wanted else box.build
    # A build is BOARD or BOARD-VARIANT.
    if found.partition("-")[0] != (wanted or site.board):
        raise FleetError(
            f"the box is {box.platform} {box.build}, not {site.board} as site.{site.name}.board"
            " says; take the right box, or correct the fleet file"
        )
    for other in fleet.sites.values():
        if other.name != site.name and box.unique_id and other.table.unique_id == box.unique_id:
            raise FleetError(
                f"the box {box.unique_id} is that of site {other.name}; take the right box, or move"
                f" site.{other.name}.unique_id"
            )
    known = site.table.unique_id
    if known and known != box.unique_id:
        raise FleetError(
            f"the box is {box.unique_id or 'without an id'}, site.{site.name}.unique_id is {known};"
            " take the right box, or correct the fleet file"
        )
    if not known:
        return [
            f"site.{site.name} has no unique_id, so any {site.board} would do; this box is"
            f" {box.unique_id or 'without an id'} (--adopt writes it there)"
        ]
    return []


def write_audit(fleet: Fleet, outcome: Outcome) -> Path:
    """Append a line of JSON to provision.log beside the fleet file: fingerprints, no secret."""
    path = fleet.directory / AUDIT
    now = datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
    line = json.dumps({"time": now, **asdict(outcome)}) + "\n"
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(handle, "w") as sink:
            sink.write(line)
    except OSError as error:
        raise FleetError(
            f"{path}: {error.strerror}; the box has its files, the log does not say so"
        ) from None
    return path
