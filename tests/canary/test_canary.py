"""The look for keys finds them wherever they were written, and a run with such a key fails."""

import base64
import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from haaro_host.lab import configuration
from tests.canary import scan
from tests.canary.plugin import SITE
from tests.fleet.conftest import quick, shop  # noqa: F401 (fixtures)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tmp_path():
    """A directory that is gone when the run as a whole is looked at: keys are planted here."""
    with tempfile.TemporaryDirectory(prefix="haaro-canary-") as place:
        yield Path(place)


@pytest.fixture
def key(tmp_path):
    """A key as the lab makes it."""
    files = configuration.Files(tmp_path / "lab")
    configuration.write(files)
    text = files.ha_secrets.read_text()
    return bytes.fromhex(text.partition('key = "')[2].partition('"')[0])


def test_keys_of_a_lab_and_of_a_fleet_bear_the_mark_and_differ(key, shop):  # noqa: F811
    assert len(key) == 32 and scan.in_octets(key)
    shop.run("keys", "new")
    from haaro_host.fleet import inventory, store

    fleet = inventory.load(shop.file)
    os.environ["HAARO_PASSPHRASE"] = "correct horse battery"
    try:
        body = store.open_store(fleet, None).keys.body
    finally:
        del os.environ["HAARO_PASSPHRASE"]
    made = [records[0]["key"] for records in body["sites"].values()]
    made += [body["epochs"][0]["secret"], body["console"]["secret"], key.hex()]
    assert len(set(made)) == 6 and all(scan.in_text(text) for text in made)


def test_other_processes_mark_their_keys_too():
    code = "from haaro_host.fleet import keys; import os; print(keys.os.urandom is os.urandom)"
    code += "; print(getattr(os.urandom, 'marks', False))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


WRITTEN = {
    "octets": lambda key: b"before" + key + b"after",
    "hexadecimal": lambda key: b"key=" + key.hex().encode(),
    "capitals": lambda key: key.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64, shifted": lambda key: base64.b64encode(b"x" + key + b"yz"),
    "base64, shifted twice": lambda key: base64.b64encode(b"xy" + key + b"z"),
    "compressed": lambda key: gzip.compress(b"log " + key.hex().encode()),
    "at the edge of a piece": lambda key: bytes(scan._PIECE - 28) + key,
}


@pytest.mark.parametrize("form", WRITTEN)
def test_a_key_is_found_however_it_was_written(key, tmp_path, form):
    place = tmp_path / "run"
    place.mkdir()
    (place / "harmless.log").write_bytes(os.urandom(1000))
    assert scan.hits(place) == []
    (place / "router.log").write_bytes(WRITTEN[form](key))
    assert scan.hits(place) == [str(place / "router.log")]


def _archive(path, name, data):
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def test_only_files_that_are_made_to_hold_keys_may_have_them(key, tmp_path):
    for name in ("router.secrets.json", "ha.secrets.toml", "router.secrets.json.new"):
        (tmp_path / name).write_bytes(key.hex().encode())
    _archive(tmp_path / "package.tar.gz", "etc/router.secrets.json", key.hex().encode())
    (tmp_path / "lab").rename(tmp_path / "moved")
    assert scan.hits(tmp_path) == []
    _archive(tmp_path / "report.tar.gz", "haaro-bugreport/status.txt", key.hex().encode())
    (tmp_path / "router.json").write_bytes(key.hex().encode())
    assert scan.hits(tmp_path) == [
        str(tmp_path / name) for name in ("report.tar.gz", "router.json")
    ]


RUN = """
from haaro_host.fleet.keys import Keys

def made():
    keys = Keys()
    return keys._add("office-a", "hmac-sha256", "active")["key"]

def test_quiet(tmp_path):
    assert len(made()) == 64

def test_prints():
    {prints}

def test_leaves_a_capture(tmp_path):
    (tmp_path / "uplink.pcap").write_bytes({leaves})
"""


@pytest.mark.parametrize(
    ("prints", "leaves", "said"),
    [
        ("print(made())", 'b""', "what test_run.py::test_prints printed"),
        ("pass", 'b"x" + bytes.fromhex(made())', "uplink.pcap"),
        ("pass", 'b""', ""),
    ],
    ids=["printed", "left in a capture", "nowhere"],
)
def test_a_run_with_a_key_where_none_belongs_fails(tmp_path, prints, leaves, said):
    test = RUN.format(prints=prints, leaves=leaves)
    (tmp_path / "test_run.py").write_text(test)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib",
         "-c", os.devnull, "--rootdir", tmp_path, "--basetemp", tmp_path / "base", tmp_path],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{SITE}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=100,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith("CANARY")]
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    if said:
        assert done.returncode == 1 and len(lines) == 1 and said in lines[0]
    else:
        assert (done.returncode, lines) == (0, [])


def test_the_command_says_what_it_found(key, tmp_path):
    command = [sys.executable, "-m", "tests.canary.scan"]
    (tmp_path / "a.log").write_text(key.hex())
    done = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "a.log" in done.stderr
    (tmp_path / "a.log").unlink()
    done = subprocess.run([*command, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
