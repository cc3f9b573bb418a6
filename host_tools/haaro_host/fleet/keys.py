"""The noun of `haaro keys`: what is in the store, and how one key gives way to the next.

    (none) --new--> active
    active, --stage--> active, staged --activate--> active, previous --retire--> active
    anything --revoke--> retired, all of it

`staged` and `previous` are live beside `active`: the home agent takes requests under either SPI, a
router signs with the active one and tries the other when it gets no answer. The epochs of the
sites' common keys (KRm, `derive.py`) go the same way. A step that the table has no place for is
refused. A retired key is deleted; its SPI, fingerprint and dates stay, and the SPI is never used
again.
"""

import hashlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from haaro_host.fleet import derive
from haaro_host.fleet.files import FleetError
from haaro_host.fleet.inventory import Fleet, Site

BODY_SCHEMA = "haaro.keys.body/1"
_KEY_OCTETS = 32
_FIRST_SPI = 256
_HISTORY = 4
_LIVE = ("active", "staged", "previous")

ACTIVE, STAGED, PREVIOUS, RETIRED = "active", "staged", "previous", "retired"
PEERS = "peers"  # stands for the epochs where a site's name could stand


def fingerprint(secret: bytes) -> str:
    """Return the 8 hexadecimal digits that name a key, as the home agent's status shows them."""
    return hashlib.sha256(secret).hexdigest()[:8]


def _now() -> str:
    return datetime.now(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


class Keys:
    """All keys of a fleet, as they stand in the store. Changed in memory; `store.py` writes."""

    def __init__(self, body: dict[str, Any] | None = None) -> None:
        """Take the opened `body` of a store, or begin an empty one. Raises FleetError."""
        if body is None:
            body = {"schema": BODY_SCHEMA, "sites": {}, "epochs": [], "generations": {}}
        if body.get("schema") != BODY_SCHEMA:
            raise FleetError(
                f"the key store holds {body.get('schema')!r}; this haaro reads {BODY_SCHEMA}"
            )
        self.body = body

    # --- what there is ---------------------------------------------------------------------------

    def associations(self, site: str) -> list[dict[str, Any]]:
        """Return the live keys with the home agent, the active one first."""
        return _live(self.body["sites"].get(site, []))

    def epochs(self) -> list[dict[str, Any]]:
        """Return the live epochs, the active one first."""
        return _live(self.body["epochs"])

    def rows(self, fleet: Fleet, site: Site) -> list[tuple[str, list[bytes]]]:
        """Return (home address, [KRm, ...]) of each site that `site` shares a key with."""
        epochs = [(bytes.fromhex(e["secret"]), e["number"]) for e in self.epochs()]
        own = self._end(site)
        return [
            (
                peer.home_address,
                [derive.krm(secret, number, own, self._end(peer)) for secret, number in epochs],
            )
            for peer in fleet.pairs_of(site)
            if epochs
        ]

    def console(self, site: Site) -> tuple[str, dict[str, Any]] | None:
        """Return (password of the site's console, what its secrets file checks it by), if any."""
        if "console" not in self.body:
            return None
        return derive.console(
            bytes.fromhex(self.body["console"]["secret"]), site.name, self._end(site)[1]
        )

    def ota(self) -> list[dict[str, Any]]:
        """Return the keys that bundles are signed with, the one in use first: one or two."""
        found: list[dict[str, Any]] = self.body.get("ota", [])
        return found

    def add_ota(self, public: bytes, secret: bytes) -> None:
        """Sign with this Ed25519 key from now on; the one before is still known."""
        record = {
            "created": _now(),
            "fingerprint": fingerprint(public),
            "public": public.hex(),
            "secret": secret.hex(),
        }
        self.body["ota"] = [record, *self.ota()][:2]

    def _end(self, site: Site) -> tuple[str, int]:
        return site.home_address, self.body["generations"].get(site.home_address, 1)

    def missing(self, fleet: Fleet) -> list[str]:
        """Return the sites in service that have no key."""
        return [site.name for site in fleet.in_service if not self.associations(site.name)]

    def index(self) -> dict[str, Any]:
        """Return what may be read without the passphrase: everything but keys and secrets."""
        return {
            "sites": {
                name: [_open_part(record) for record in records]
                for name, records in sorted(self.body["sites"].items())
            },
            "epochs": [_open_part(record) for record in self.body["epochs"]],
            "ota": [_open_part(record) for record in self.ota()],
        }

    # --- steps -----------------------------------------------------------------------------------

    def new(self, fleet: Fleet, names: Iterable[str]) -> list[str]:
        """Make a key for each of `names` that has none, and the first epoch. Return the lines."""
        done = []
        for name in names:
            if not self.associations(name):
                record = self._add(name, fleet.document.keys.algorithm, ACTIVE)
                done.append(f"{name}: SPI {record['spi']} made, {record['fingerprint']}")
        if not self.body["epochs"]:
            record = self._add_epoch(ACTIVE)
            done.append(f"{PEERS}: epoch {record['number']} made, {record['fingerprint']}")
        if "console" not in self.body:
            # Of which the passwords of all sites' serial consoles are made.
            self.body["console"] = {"secret": os.urandom(derive.SECRET_OCTETS).hex()}
            done.append("console: the passwords of the serial consoles made")
        return done

    def stage(self, fleet: Fleet, name: str) -> str:
        """Make the next key beside the active one. Raises FleetError."""
        records = self._records(name)
        for state in (STAGED, PREVIOUS):
            if _find(records, state):
                step = "activate" if state == STAGED else "retire"
                raise FleetError(f"{name}: a rotation is under way; next: {_command(step, name)}")
        if name == PEERS:
            record = self._add_epoch(STAGED)
        else:
            record = self._add(name, fleet.document.keys.algorithm, STAGED)
        return f"{_title(name, record)} staged, {record['fingerprint']}"

    def activate(self, name: str) -> str:
        """Put the staged key in the first place; the one before stays live. Raises FleetError."""
        records = self._records(name)
        staged, active = _find(records, STAGED), _find(records, ACTIVE)
        if staged is None or active is None:
            raise FleetError(f"{name}: no key is staged; first: {_command('stage', name)}")
        active["state"] = PREVIOUS
        staged["state"] = ACTIVE
        staged["activated"] = _now()
        return f"{_title(name, staged)} is active, {_title(name, active)} lives on beside it"

    def retire(self, name: str) -> str:
        """Delete the previous key, or a staged one that was never activated. Raises FleetError."""
        records = self._records(name)
        record = _find(records, PREVIOUS) or _find(records, STAGED)
        if record is None:
            raise FleetError(f"{name}: only the active key is live; nothing to retire")
        _retire(record)
        self._forget(records)
        return f"{_title(name, record)} retired, its key is deleted"

    def revoke(self, site: Site) -> str:
        """Delete every key of `site`; a new box at its home address shares none with this one."""
        records = self.body["sites"].get(site.name, [])
        spis = [str(record["spi"]) for record in _live(records)]
        for record in _live(records):
            _retire(record)
        self._forget(records)
        if spis:
            generations = self.body["generations"]
            generations[site.home_address] = generations.get(site.home_address, 1) + 1
        return f"{site.name}: SPI {', '.join(spis) or '(none)'} retired, its keys are deleted"

    def next_step(self, name: str) -> str:
        """Return which of stage, activate and retire comes next in a rotation."""
        records = self._records(name)
        if _find(records, PREVIOUS):
            return "retire"
        return "activate" if _find(records, STAGED) else "stage"

    def record(self, name: str, state: str) -> dict[str, Any] | None:
        """Return the record of a site (or PEERS) in `state`, None when there is none."""
        return _find(self._records(name), state)

    def _records(self, name: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = (
            self.body["epochs"] if name == PEERS else self.body["sites"].get(name, [])
        )
        if not _live(records):
            raise FleetError(f"{name}: has no key yet; first: haaro keys new")
        return records

    def _add(self, name: str, algorithm: str, state: str) -> dict[str, Any]:
        records = self.body["sites"].setdefault(name, [])
        key = os.urandom(_KEY_OCTETS)
        record = {
            "spi": max([record["spi"] for record in records], default=_FIRST_SPI - 1) + 1,
            "algorithm": algorithm,
            "state": state,
            "created": _now(),
            "fingerprint": fingerprint(key),
            "key": key.hex(),
        }
        records.append(record)
        return record

    def _add_epoch(self, state: str) -> dict[str, Any]:
        epochs = self.body["epochs"]
        secret = os.urandom(derive.SECRET_OCTETS)
        record = {
            "number": max([epoch["number"] for epoch in epochs], default=0) + 1,
            "state": state,
            "created": _now(),
            "fingerprint": fingerprint(secret),
            "secret": secret.hex(),
        }
        epochs.append(record)
        return record

    @staticmethod
    def _forget(records: list[dict[str, Any]]) -> None:
        """Keep the last few of the retired; the greatest SPI is always among them."""
        retired = [record for record in records if record["state"] == RETIRED]
        for record in retired[:-_HISTORY]:
            records.remove(record)


def _retire(record: dict[str, Any]) -> None:
    record.pop("key", None)
    record.pop("secret", None)
    record["state"] = RETIRED
    record["retired"] = _now()


def _live(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    live = [record for record in records if record["state"] in _LIVE]
    return sorted(live, key=lambda record: _LIVE.index(record["state"]))


def _find(records: list[dict[str, Any]], state: str) -> dict[str, Any] | None:
    return next((record for record in records if record["state"] == state), None)


def _open_part(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in ("key", "secret")}


def _title(name: str, record: dict[str, Any]) -> str:
    if name == PEERS:
        return f"{PEERS}: epoch {record['number']}"
    return f"{name}: SPI {record['spi']}"


def _command(step: str, name: str) -> str:
    return f"haaro keys {step} {'--peers' if name == PEERS else name}"
