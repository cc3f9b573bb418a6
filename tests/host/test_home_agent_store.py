"""The state file: what is refused, what survives, what is all or nothing."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from haaro_host.home_agent.bindings import Binding
from haaro_host.home_agent.store import SCHEMA_VERSION, Store, StoreError
from tests.host.home_agent_helpers import COA_A, COA_B, HOA_A, HOA_B


def binding(hoa=HOA_A, **changes):
    """Return a binding with every field set."""
    values = {
        "home_address": hoa,
        "care_of_address": COA_A,
        "source": COA_B,
        "source_port": 61000,
        "encapsulation": "udp",
        "lifetime": 300,
        "expires": 4_000_000_300_000,
        "nat": True,
        "advertise": True,
        "outbound_only": True,
        "implicit": True,
        "prefixes": [(b"\x0a\1\0\0", 24), (b"\x0a\2\0\0", 16)],
    }
    return Binding(**{**values, **changes})


@pytest.fixture
def path(tmp_path):
    """A state file that does not exist yet."""
    return str(tmp_path / "state.sqlite")


def test_what_is_stored_is_read_back_by_the_next_process(path):
    """Issue: bindings, last Identification and prefixes live in SQLite; RFC 5177 6.2.1."""
    store = Store(path)
    store.accept(HOA_A, b"identity", binding())
    store.accept(HOA_B, b"identitz", binding(HOA_B, nat=False, advertise=False, prefixes=[]))
    store.accept(HOA_B, b"identity", None)
    store.close()
    again = Store(path)
    assert again.bindings() == [binding()]
    assert again.identifications() == {HOA_A: b"identity", HOA_B: b"identity"}
    again.replace([binding(prefixes=[])])
    again.seen(HOA_A, b"later...")
    assert again.bindings() == [binding(prefixes=[])]
    again.remove([HOA_A])
    assert again.bindings() == []
    assert again.identifications()[HOA_A] == b"later..."


def test_the_file_is_for_its_owner_only_and_synced(path):
    """Threats P3; write-ahead log and synchronous=FULL: a commit is on the disk."""
    store = Store(path)
    for suffix in ("", "-wal"):
        assert stat.S_IMODE((os.stat(path + suffix)).st_mode) == 0o600
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_fresh_means_that_no_router_is_known(path):
    """Threats R3: an empty file cannot tell what was accepted before."""
    store = Store(path)
    assert store.fresh
    store.close()
    store = Store(path)
    assert store.fresh
    store.seen(HOA_A, b"identity")
    store.close()
    assert not Store(path).fresh
    assert not Store(":memory:").fresh


def refused(path, *words):
    """Opening raises StoreError that names the file and `words`."""
    with pytest.raises(StoreError) as caught:
        Store(path)
    for word in (path, *words):
        assert word in str(caught.value)


def test_a_file_that_cannot_be_used_has_a_clear_error(path, tmp_path):
    """Issue, Bad input: names the file and what to do."""
    Path(path).write_text("something else entirely, long enough to be read as a header" * 20)
    refused(path, "not an SQLite database", "home_agent.state")
    refused(str(tmp_path / "nowhere" / "state.sqlite"), "directory does not exist")


def test_another_programs_database_is_left_alone(path):
    """Issue, Bad input."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE music (title)")
    db.close()
    refused(path, "another program")
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (1,)
    db.close()


@pytest.mark.parametrize(("version", "word"), [(0, "older"), (SCHEMA_VERSION + 1, "newer")])
def test_another_schema_version_is_refused(path, version, word):
    """Issue: an old or newer schema gives a clear error and stays as it is."""
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version={version}")
    db.close()
    refused(path, word, f"schema version {version}", f"version {SCHEMA_VERSION}")


def test_a_file_of_before_the_machine_was_kept_is_taken(path):
    """The table is added; the schema's version stays."""
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE machine")
    db.close()
    store = Store(path)
    assert store.machine() is None
    store.put_machine("boot", 1)
    store.put_machine("other boot", -2)
    store.close()
    assert Store(path).machine() == ("other boot", -2)


def test_a_damaged_database_is_refused(path):
    """Issue, Bad input."""
    store = Store(path)
    for n in range(200):
        store.accept(bytes([10, 0, 0, n]), b"identity", binding(bytes([10, 0, 0, n])))
    store.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 6000)
    refused(path)


def test_two_home_agents_cannot_share_a_state_file(path):
    """The second would overwrite the first's Identifications."""
    store = Store(path)
    refused(path, "in use by another home agent")
    store.close()
    Store(path).close()


def test_a_failing_write_changes_nothing(path):
    """All or nothing: the Identification is not kept without its binding."""
    store = Store(path)
    store.accept(HOA_A, b"identity", binding())
    wrong = binding(prefixes=[(b"\x0a\3\0\0", None)])
    with pytest.raises(StoreError):
        store.accept(HOA_A, b"later...", wrong)
    assert store.identifications() == {HOA_A: b"identity"}
    assert store.bindings() == [binding()]
