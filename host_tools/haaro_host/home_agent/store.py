"""What must not be lost: bindings, prefixes and the last Identification of each router.

Owns: the SQLite file, its schema and its transactions. Never decides anything. Called by core,
which writes here before it queues the reply, so that a kill at any instant loses no accepted
registration and a restart accepts no replay (RFC 5944 5.7.1).

Write-ahead log, synchronous=FULL, one process: the file is locked while it is open.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from haaro_host.home_agent.bindings import Binding, Terms

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x48413131  # "HA11": tells our file from another program's database

# Not part of the schema's version: a file without them is as good.
_REVOCATION = """
CREATE TABLE IF NOT EXISTS revocation (
  home_address BLOB PRIMARY KEY,
  stamp INTEGER NOT NULL,               -- see bindings.Terms
  agreed INTEGER NOT NULL,
  inform INTEGER NOT NULL,
  revoked INTEGER NOT NULL
) WITHOUT ROWID
"""
_MACHINE = """
CREATE TABLE IF NOT EXISTS machine (    -- at most one row
  boot TEXT PRIMARY KEY,                -- which boot of the machine
  skew INTEGER NOT NULL                 -- its clock less the time since that boot, milliseconds
) WITHOUT ROWID
"""

_SCHEMA = """
CREATE TABLE router (
  home_address BLOB PRIMARY KEY,
  identification BLOB NOT NULL          -- the greatest accepted, 8 octets
) WITHOUT ROWID;
CREATE TABLE binding (
  home_address BLOB PRIMARY KEY,
  care_of_address BLOB NOT NULL,
  source BLOB NOT NULL,                 -- outer tunnel end: address and port
  source_port INTEGER NOT NULL,
  encapsulation TEXT NOT NULL,
  lifetime INTEGER NOT NULL,            -- granted, seconds
  expires INTEGER NOT NULL,             -- NTP milliseconds on the home agent's clock
  nat INTEGER NOT NULL,
  advertise INTEGER NOT NULL,
  outbound_only INTEGER NOT NULL,
  implicit INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE prefix (
  home_address BLOB NOT NULL REFERENCES binding ON DELETE CASCADE,
  position INTEGER NOT NULL,
  prefix BLOB NOT NULL,
  length INTEGER NOT NULL,
  PRIMARY KEY (home_address, position)
) WITHOUT ROWID;
"""


class StoreError(Exception):
    """The state file cannot be used; the text names the file, the fault and what to do."""


class Store:
    """The state file at `path` (":memory:" for tests). Raises StoreError when it cannot be used.

    `.fresh` is true when the file knows of no router: then nothing is known either of what an
    earlier life of this home agent accepted (see `state.State`).
    """

    def __init__(self, path: str) -> None:
        """Open or create the file, check its schema, take the lock."""
        self.path = path
        self.fresh = False
        try:
            self._db = self._open(path)
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {_reason(error)}") from None

    def _open(self, path: str) -> sqlite3.Connection:
        if path != ":memory:":
            if not Path(path).parent.is_dir():
                raise StoreError(f"{path}: its directory does not exist; create it first")
            # Bindings tell where routers are: readable by the owner only.
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
            db.execute("PRAGMA foreign_keys=ON")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            if tables == 0 and version == 0:
                self._create(db)
            else:
                self._check(db, path, version)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            # Takes the exclusive lock now, so that a second home agent fails at start.
            db.execute("BEGIN IMMEDIATE")
            db.execute(_MACHINE)
            db.execute(_REVOCATION)
            db.execute("COMMIT")
            known = db.execute("SELECT count(*) FROM router").fetchone()[0]
            self.fresh = path != ":memory:" and known == 0
        except BaseException:
            # Whatever it was, a handle that nobody has would keep the exclusive lock.
            db.close()
            raise
        return db

    @staticmethod
    def _create(db: sqlite3.Connection) -> None:
        db.execute("BEGIN EXCLUSIVE")
        for statement in _SCHEMA.split(";"):
            if statement.strip():
                db.execute(statement)
        db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        db.execute("COMMIT")

    @staticmethod
    def _check(db: sqlite3.Connection, path: str, version: int) -> None:
        if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION_ID:
            raise StoreError(
                f"{path}: an SQLite database of another program; name another file in"
                " home_agent.state"
            )
        if version != SCHEMA_VERSION:
            age = "an older" if version < SCHEMA_VERSION else "a newer"
            raise StoreError(
                f"{path}: schema version {version}, written by {age} haaro; this one needs"
                f" version {SCHEMA_VERSION}: use that haaro or move the file away (routers then"
                " register anew)"
            )
        result = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if result != "ok":
            raise StoreError(f"{path}: the database is damaged ({result}); restore or move it away")

    def close(self) -> None:
        """Close the file; the log is folded into it."""
        self._db.close()

    # --- reading, at start only ----------------------------------------------------------------

    def identifications(self) -> dict[bytes, bytes]:
        """Return {home address: greatest accepted Identification, 8 octets}."""
        return dict(self._db.execute("SELECT home_address, identification FROM router"))

    def machine(self) -> tuple[str, int] | None:
        """Return what `put_machine` was last given, None before."""
        row: tuple[str, int] | None = self._db.execute("SELECT boot, skew FROM machine").fetchone()
        return row

    def terms(self) -> dict[bytes, Terms]:
        """Return {home address: its terms of revocation}."""
        rows = self._db.execute("SELECT * FROM revocation").fetchall()
        return {row[0]: Terms(row[1], *(bool(value) for value in row[2:])) for row in rows}

    def bindings(self) -> list[Binding]:
        """Return all stored bindings, the expired ones too."""
        rows = self._db.execute(
            "SELECT home_address, care_of_address, source, source_port, encapsulation, lifetime,"
            " expires, nat, advertise, outbound_only, implicit FROM binding ORDER BY home_address"
        ).fetchall()
        result = []
        for row in rows:
            prefixes = self._db.execute(
                "SELECT prefix, length FROM prefix WHERE home_address=? ORDER BY position",
                (row[0],),
            ).fetchall()
            binding = Binding(*row[:7])
            binding.nat, binding.advertise, binding.outbound_only, binding.implicit = (
                bool(value) for value in row[7:]
            )
            binding.prefixes = list(prefixes)
            result.append(binding)
        return result

    # --- writing -------------------------------------------------------------------------------

    def accept(
        self,
        home_address: bytes,
        identification: bytes,
        binding: Binding | None,
        terms: Terms | None = None,
    ) -> None:
        """Record an accepted registration: on return it is on the disk.

        `binding` None: a deregistration that removed the binding. `terms` None: as they were.
        Raises StoreError, and then nothing was changed.
        """
        with _Transaction(self) as db:
            self._put_identification(db, home_address, identification)
            db.execute("DELETE FROM binding WHERE home_address=?", (home_address,))
            if binding is not None:
                self._put(db, binding)
            if terms is not None:
                self._put_terms(db, home_address, terms)

    def put_terms(self, home_address: bytes, terms: Terms) -> None:
        """Record `terms`; a revoked router's binding goes with the same write."""
        with _Transaction(self) as db:
            self._put_terms(db, home_address, terms)
            if terms.revoked:
                db.execute("DELETE FROM binding WHERE home_address=?", (home_address,))

    def seen(self, home_address: bytes, identification: bytes) -> None:
        """Record an accepted Identification that leaves the binding as it is."""
        with _Transaction(self) as db:
            self._put_identification(db, home_address, identification)

    def put_machine(self, boot: str, skew: int) -> None:
        """Record the machine's clock: `skew` ms ahead of the time since boot `boot`."""
        with _Transaction(self) as db:
            db.execute("DELETE FROM machine")
            db.execute("INSERT INTO machine VALUES (?,?)", (boot, skew))

    def replace(self, bindings: Iterable[Binding]) -> None:
        """Make the stored bindings equal to `bindings` (reload, clock step)."""
        with _Transaction(self) as db:
            db.execute("DELETE FROM binding")
            for binding in bindings:
                self._put(db, binding)

    def remove(self, home_addresses: Iterable[bytes]) -> None:
        """Delete the bindings of `home_addresses` (expiry); their Identifications stay."""
        with _Transaction(self) as db:
            db.executemany(
                "DELETE FROM binding WHERE home_address=?", [(hoa,) for hoa in home_addresses]
            )

    @staticmethod
    def _put_terms(db: sqlite3.Connection, home_address: bytes, terms: Terms) -> None:
        db.execute(
            "INSERT OR REPLACE INTO revocation VALUES (?,?,?,?,?)",
            (home_address, terms.stamp, terms.agreed, terms.inform, terms.revoked),
        )

    @staticmethod
    def _put_identification(
        db: sqlite3.Connection, home_address: bytes, identification: bytes
    ) -> None:
        db.execute(
            "INSERT INTO router VALUES (?,?) ON CONFLICT (home_address)"
            " DO UPDATE SET identification=excluded.identification",
            (home_address, identification),
        )

    @staticmethod
    def _put(db: sqlite3.Connection, b: Binding) -> None:
        db.execute(
            "INSERT INTO binding VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                b.home_address,
                b.care_of_address,
                b.source,
                b.source_port,
                b.encapsulation,
                b.lifetime,
                b.expires,
                b.nat,
                b.advertise,
                b.outbound_only,
                b.implicit,
            ),
        )
        db.executemany(
            "INSERT INTO prefix VALUES (?,?,?,?)",
            [(b.home_address, i, prefix, n) for i, (prefix, n) in enumerate(b.prefixes)],
        )


class _Transaction:
    """All or nothing; sqlite3.Error becomes StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> sqlite3.Connection:
        db = self._store._db
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise StoreError(f"{self._store.path}: {_reason(error)}") from None
        return db

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        db = self._store._db
        try:
            if kind is None:
                db.execute("COMMIT")
                return
        except sqlite3.Error as failed:
            error = failed
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise StoreError(f"{self._store.path}: {_reason(error)}") from None


def _reason(error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text:
        return "in use by another home agent; stop that one first or name another state file"
    if "not a database" in text:
        return "not an SQLite database; name another file in home_agent.state"
    return f"cannot be used ({text})"
