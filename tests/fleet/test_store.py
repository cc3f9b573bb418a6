"""The key store: sealed, versioned, authentic, private, whole; where its passphrase comes from."""

import base64
import json
import os
import stat
import sys
import types

import pytest

from haaro_host.fleet import inventory, sealed, store
from haaro_host.fleet.files import FleetError, locked
from tests.fleet.conftest import PASSPHRASE

BODY = {"schema": "haaro.keys.body/1", "sites": {}, "epochs": [], "generations": {}}


def test_a_store_as_it_is_written_opens_with_its_passphrase_only():
    """The real cost of a guess: scrypt, 128 MB."""
    data = sealed.seal(BODY, {"sites": {}, "epochs": []}, "passphrase", b"correct horse")
    head = json.loads(data)
    assert (head["format"], head["kdf"]["name"]) == ("haaro.keys/1", "scrypt")
    assert 128 * head["kdf"]["n"] * head["kdf"]["r"] >= 128 << 20
    assert sealed.unseal(data, b"correct horse", "x") == BODY
    with pytest.raises(
        FleetError, match=r"x: wrong passphrase, or the file was changed; try again"
    ):
        sealed.unseal(data, b"correct horsf", "x")


def test_salt_and_nonce_are_new_with_every_write(quick):
    heads = [json.loads(sealed.seal(BODY, {}, "passphrase", b"correct horse")) for _ in range(2)]
    assert heads[0]["kdf"]["salt"] != heads[1]["kdf"]["salt"]
    assert heads[0]["cipher"]["nonce"] != heads[1]["cipher"]["nonce"]
    assert heads[0]["sealed"] != heads[1]["sealed"]


@pytest.mark.parametrize("part", ["index", "unlock", "sealed", "nonce", "salt"])
def test_one_changed_part_is_refused(quick, part):
    """The head is authenticated too: what `keys show` reads cannot be changed unseen."""
    whole = json.loads(sealed.seal(BODY, {"sites": {}}, "passphrase", b"correct horse"))
    if part == "index":
        whole["index"]["sites"]["x"] = []
    elif part == "unlock":
        whole["unlock"] = "keyring"
    elif part == "sealed":
        octets = bytearray(base64.b64decode(whole["sealed"]))
        octets[3] ^= 1
        whole["sealed"] = base64.b64encode(octets).decode()
    elif part == "nonce":
        whole["cipher"]["nonce"] = "00" * 12
    else:
        whole["kdf"]["salt"] = "00" * 16
    with pytest.raises(FleetError, match="wrong passphrase, or the file was changed"):
        sealed.unseal(json.dumps(whole).encode(), b"correct horse", "x")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "haaro.keys/2"}, "this haaro reads haaro.keys/1"),
        ({"kdf": {"name": "scrypt", "n": 1 << 30, "r": 8, "p": 1, "salt": "00"}}, "damaged"),
        ({"kdf": {"name": "scrypt", "n": 1 << 17, "r": 4096, "p": 1, "salt": "00"}}, "damaged"),
        ({"kdf": {"name": "scrypt", "n": 3, "r": 8, "p": 1, "salt": "00"}}, "damaged"),
        ({"kdf": {"name": "scrypt", "n": True, "r": 8, "p": 1, "salt": "00"}}, "damaged"),
        ({"kdf": {"name": "pbkdf2", "n": 4, "r": 8, "p": 1, "salt": "00"}}, "damaged"),
        ({"cipher": {"name": "none", "nonce": "00" * 12}}, "damaged"),
        ({"cipher": []}, "damaged"),
        ({"sealed": "***"}, "damaged"),
        ({"index": 3}, "damaged"),
        ({"unlock": "nothing"}, "damaged"),
    ],
)
def test_a_head_that_is_not_ours_is_refused_before_any_work(quick, change, text):
    whole = json.loads(sealed.seal(BODY, {}, "passphrase", b"correct horse"))
    with pytest.raises(FleetError, match=text):
        sealed.unseal(json.dumps({**whole, **change}).encode(), b"correct horse", "x")


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'"x"', b"{"])
def test_another_file_is_no_key_store(data):
    with pytest.raises(FleetError, match="x: is not a key store of haaro"):
        sealed.unseal(data, b"correct horse", "x")


def test_the_file_is_private_and_replaced_whole(shop, monkeypatch):
    shop.run("keys", "new")
    path = shop.directory / "fleet.keys"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()

    def power_cut(self, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("pathlib.Path.replace", power_cut)
    assert "nothing was changed" in shop.run("keys", "stage", "office-a", status=1)
    assert path.read_bytes() == before
    monkeypatch.undo()
    monkeypatch.setattr(sealed, "_N", 1 << 4)
    shop.run("keys", "stage", "office-a")
    assert path.read_bytes() != before
    assert sorted(each.name for each in shop.directory.iterdir()) == ["fleet.keys", "fleet.toml"]


def test_a_store_that_others_may_read_is_refused(shop):
    shop.run("keys", "new")
    (shop.directory / "fleet.keys").chmod(0o640)
    for command in (["keys", "show"], ["fleet", "export", "ha"], ["keys", "stage", "--all"]):
        assert "run: chmod 600" in shop.run(*command, status=1)


def test_a_wrong_passphrase_changes_nothing(shop):
    shop.run("keys", "new")
    path = shop.directory / "fleet.keys"
    before = path.read_bytes()
    for command in (["keys", "rotate", "--all"], ["fleet", "export", "ha"], ["keys", "new"]):
        said = shop.run(*command, status=1, HAARO_PASSPHRASE="wrong horse battery")
        assert "wrong passphrase" in said
        assert "horse" not in said
    assert path.read_bytes() == before


def test_a_passphrase_comes_from_a_private_file(shop):
    file = shop.directory / "pass"
    file.write_text("from a file, with an end of line\n")
    file.chmod(0o644)
    said = shop.run("keys", "new", "--passphrase-file", file, status=1)
    assert "others may read it" in said
    assert not (shop.directory / "fleet.keys").exists()
    file.chmod(0o600)
    shop.run("keys", "new", "--passphrase-file", file)
    file.write_bytes(b"from a file, with an end of line\r\n")
    shop.run("keys", "show", "--verify", "--passphrase-file", file)
    assert "wrong passphrase" in shop.run("keys", "show", "--verify", status=1)
    file.write_bytes(b"\n")
    assert "is empty" in shop.run("keys", "show", "--verify", "--passphrase-file", file, status=1)


def test_without_terminal_file_or_variable_the_remedy_is_named(shop):
    said = shop.run("keys", "new", status=1, HAARO_PASSPHRASE="")
    assert "give --passphrase-file FILE, set HAARO_PASSPHRASE, or run it on a terminal" in said


def test_a_short_passphrase_is_refused(shop):
    assert "choose one of 8 or more" in shop.run("keys", "new", status=1, HAARO_PASSPHRASE="short")


def test_a_prompt_on_a_terminal_asks_twice_for_a_new_one(shop, monkeypatch):
    answers = ["typed by hand", "typed by hant", "typed by hand", "typed by hand", "typed by hand"]
    fleet = inventory.load(shop.file)
    monkeypatch.delenv("HAARO_PASSPHRASE", raising=False)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: answers.pop(0))
    with pytest.raises(FleetError, match="differ"), store.changing(fleet, None, "passphrase"):
        pass
    with store.changing(fleet, None, "passphrase") as opened:
        opened.save()
    assert store.open_store(fleet, None).keys.body == opened.keys.body
    assert answers == []


def test_the_passphrase_is_changed(shop):
    shop.run("keys", "new")
    before = shop.json("keys", "show", "--verify")["sites"]
    file = shop.directory / "pass"
    file.write_text("another horse, another battery")
    file.chmod(0o600)
    shop.run("keys", "passphrase", "--new-passphrase-file", file)
    assert "wrong passphrase" in shop.run("keys", "show", "--verify", status=1)
    after = json.loads(shop.run("keys", "show", "--verify", "--json", "--passphrase-file", file))
    assert [r["fingerprint"] for s in after["sites"].values() for r in s] == [
        r["fingerprint"] for s in before.values() for r in s
    ]


def test_no_command_takes_a_passphrase_on_its_line(shop):
    """Arguments are public on the machine."""
    for command in ("new", "rotate", "stage", "activate", "retire", "show", "revoke", "passphrase"):
        said = shop.run("keys", command, "--help", COLUMNS="200", TERM="dumb")
        assert "--passphrase-file" in said
        assert "--passphrase " not in said.replace("--passphrase-file", "")


def test_the_lock_is_held_against_another_process(shop, monkeypatch):
    monkeypatch.setattr("haaro_host.fleet.files._LOCK_S", 0.1)
    with locked(shop.directory):
        said = shop.run("keys", "new", status=1)
    assert "another haaro command works on this fleet" in said
    shop.run("keys", "new")


# --- the desktop's keyring -----------------------------------------------------------------------


@pytest.fixture
def keyring(monkeypatch):
    """Stand in for the package `keyring`, which is optional: the two calls that are used."""
    held = {}
    module = types.ModuleType("keyring")
    module.get_password = lambda service, user: held.get((service, user))
    module.set_password = lambda service, user, value: held.__setitem__((service, user), value)
    monkeypatch.setitem(sys.modules, "keyring", module)
    return held


def test_the_keyring_holds_a_made_passphrase(shop, keyring):
    shop.run("keys", "new", "--keyring", HAARO_PASSPHRASE="")
    ((where, value),) = keyring.items()
    assert where == ("haaro key store", str(shop.directory / "fleet.keys"))
    assert len(value) >= 40
    assert value not in (shop.directory / "fleet.keys").read_text()
    shop.run("keys", "stage", "office-a", HAARO_PASSPHRASE="")
    shop.run("fleet", "export", "ha", HAARO_PASSPHRASE="")
    assert value not in "".join(shop.printed)
    keyring.clear()
    assert "has no passphrase for it" in shop.run("keys", "stage", "office-b", status=1,
                                                  HAARO_PASSPHRASE="")  # fmt: skip


def test_a_keyring_that_fails_or_is_missing_is_an_error_and_not_a_traceback(shop, monkeypatch):
    broken = types.ModuleType("keyring")

    def locked_out(*arguments):
        raise RuntimeError(f"cannot store {arguments}")

    broken.set_password = locked_out
    monkeypatch.setitem(sys.modules, "keyring", broken)
    said = shop.run("keys", "new", "--keyring", status=1, HAARO_PASSPHRASE="")
    assert "keyring cannot be used (RuntimeError)" in said
    assert "cannot store" not in said
    monkeypatch.setitem(sys.modules, "keyring", None)
    said = shop.run("keys", "new", "--keyring", status=1, HAARO_PASSPHRASE="")
    assert "pip install 'haaro[keyring]'" in said


def test_the_environment_is_not_touched():
    assert os.environ.get("HAARO_PASSPHRASE") != PASSPHRASE
