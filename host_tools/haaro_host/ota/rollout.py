"""A roll-out: which boxes may have a bundle, how each fared, and when it stops by itself.

    running --failures reach the limit--> stopped         running --`roll-out stop`--> stopped
    running or stopped --`roll-out start`--> running, with one attempt more after a stop

One a board, in `ota/rollout.json` beside the fleet file; what the boxes said last is in
`ota/boxes.json`, written by the server alone. Pure but for `load` and `save`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from haaro_host.fleet.files import PUBLIC, FleetError, write_whole
from haaro_host.fleet.inventory import Fleet

SCHEMA, BOXES_SCHEMA = "haaro.ota.rollout/1", "haaro.ota.boxes/1"
RUNNING, STOPPED = "running", "stopped"
WAITING, UNDER_WAY, DONE, FAILED, LOST = "waiting", "under way", "done", "failed", "lost"
_PARTS = 10000


@dataclass
class Rollout:
    """One bundle on its way to the boxes of one board. Times in seconds since 1970."""

    board: str
    version: str
    digest: str
    octets: int
    percent: int
    sites: list[str] = field(default_factory=list)
    attempt: int = 1
    max_failures: int = 1
    lost_after_s: int = 1800
    state: str = RUNNING
    reason: str = ""
    started: int = 0


@dataclass
class Box:
    """What the box of a site said when it asked last, and what it was offered."""

    version: str = ""
    board: str = ""
    slot: str = ""
    state: str = ""
    digest: str = ""
    attempt: int = 0
    why: str = ""
    seen: int = 0
    offered: str = ""
    offered_attempt: int = 0
    offered_at: int = 0


def chosen(rollout: Rollout, site: str) -> bool:
    """Return whether `site` is among those that may have the bundle.

    Each site has a fixed place from 0 to 100 for a bundle, so that a greater percentage adds sites
    and leaves none out, and another bundle begins with other sites.
    """
    if site in rollout.sites:
        return True
    made = hashlib.sha256(f"haaro roll-out 1 {rollout.digest} {site}".encode()).digest()
    return int.from_bytes(made[:4], "big") * _PARTS >> 32 < rollout.percent * (_PARTS // 100)


def result(rollout: Rollout, box: Box | None, now: int) -> str:
    """Return how the box of a chosen site fares."""
    if box is None:
        return WAITING
    if box.version == rollout.version and box.state == "running":
        return DONE
    if (box.digest, box.attempt) == (rollout.digest, rollout.attempt) and box.state in (
        "returned", "refused"
    ):  # fmt: skip
        return FAILED
    if (box.offered, box.offered_attempt) != (rollout.digest, rollout.attempt):
        return WAITING
    return LOST if now - max(box.seen, box.offered_at) > rollout.lost_after_s else UNDER_WAY


def results(rollout: Rollout, boxes: dict[str, Box], fleet: Fleet, now: int) -> dict[str, str]:
    """Return {site: result} of the chosen sites that have such a board and are in service."""
    return {
        site.name: result(rollout, boxes.get(site.name), now)
        for site in fleet.in_service
        if site.board == rollout.board and chosen(rollout, site.name)
    }


def judge(rollout: Rollout, boxes: dict[str, Box], fleet: Fleet, now: int) -> bool:
    """Stop the roll-out if it has failed too often; return whether that was now."""
    if rollout.state != RUNNING:
        return False
    found = results(rollout, boxes, fleet, now)
    bad = sorted(site for site, how in found.items() if how in (FAILED, LOST))
    if len(bad) < rollout.max_failures:
        return False
    told = [f"{site} {found[site]}" + (f" ({boxes[site].why})" if boxes[site].why else "")
            for site in bad]  # fmt: skip
    rollout.state, rollout.reason = STOPPED, ", ".join(told)
    return True


def wants(rollout: Rollout, site: str, box: Box, now: int) -> bool:
    """Return whether the box, which asks now, is offered the bundle."""
    return (
        rollout.state == RUNNING
        and box.board == rollout.board
        and box.state != "trial"
        and chosen(rollout, site)
        and result(rollout, box, now) in (WAITING, UNDER_WAY, LOST)
    )


# --- files --------------------------------------------------------------------------------------


def folder(fleet: Fleet) -> Path:
    """Where a fleet's bundles and roll-outs are."""
    return fleet.directory / "ota"


def bundle_path(fleet: Fleet, digest: str) -> Path:
    """Where the bundle of a roll-out is kept."""
    return folder(fleet) / "bundles" / f"{digest}.haaro"


def load(fleet: Fleet) -> dict[str, Rollout]:
    """Return the roll-outs by board. Raises FleetError."""
    rows = _read(folder(fleet) / "rollout.json", SCHEMA, "rollouts")
    return {board: Rollout(**row) for board, row in rows.items()}


def save(fleet: Fleet, rollouts: dict[str, Rollout]) -> None:
    """Replace the file. Raises FleetError."""
    rows = {board: asdict(each) for board, each in sorted(rollouts.items())}
    _write(folder(fleet) / "rollout.json", SCHEMA, "rollouts", rows)


def load_boxes(fleet: Fleet) -> dict[str, Box]:
    """Return what the boxes said, by site. Raises FleetError."""
    rows = _read(folder(fleet) / "boxes.json", BOXES_SCHEMA, "boxes")
    return {site: Box(**row) for site, row in rows.items()}


def save_boxes(fleet: Fleet, boxes: dict[str, Box]) -> None:
    """Replace the file. Raises FleetError."""
    rows = {site: asdict(box) for site, box in sorted(boxes.items())}
    _write(folder(fleet) / "boxes.json", BOXES_SCHEMA, "boxes", rows)


def _read(path: Path, schema: str, key: str) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(path.read_bytes())
        rows: dict[str, dict[str, Any]] = found[key]
        if found["schema"] != schema:
            raise ValueError(f"schema {found['schema']!r}")
        return rows
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FleetError(f"{path}: cannot be read ({error}); restore or remove it") from None


def _write(path: Path, schema: str, key: str, rows: dict[str, Any]) -> None:
    text = json.dumps({"schema": schema, key: rows}, indent=1, ensure_ascii=False) + "\n"
    write_whole(path, text.encode(), PUBLIC)
