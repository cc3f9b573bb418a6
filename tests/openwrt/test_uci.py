"""/etc/config/haaro: every document of router.json goes there and comes back; no key does."""

import json
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haaro.shell import uci
from haaro_host.lab import system
from tests.fleet.conftest import Shop, quick, shop  # noqa: F401 (fixtures)
from tests.fleet.test_export import MICROPYTHON

UNIX = json.loads((system.repository() / "boards" / "UNIX" / "router.json").read_text())
BOX = system.repository() / "boards" / "OPENWRT" / "files"
_PATHS = ("secrets", "socket")


def back(document, section="office"):
    """What the box makes of the UCI text of `document`."""
    made = uci.document(uci.parse(uci.text(document, section), "haaro"), section)
    return {key: value for key, value in made.items() if key not in _PATHS or key in document}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": "12", "realm": "1.example", "lifetime": 60},
        {"name": "it's \"odd\" \\ [", "explicit": False, "mss_clamp": False},
        {"networks": [], "fast_lan": ["eth1", "7"], "organisation": ["198.51.100.0/24"]},
        {"peers": [{"home_address": "192.0.2.9", "networks": ["10.9.0.0/16"], "realm": ""}]},
        {"policy": {"return_s": 1, "peer_uplinks": {"192.0.2.131": "lte"}}},
        {
            "uplinks": [
                {"name": "1", "driver": "linux_netdev", "interface": "0", "metered": True},
                {"name": "lte", "driver": "cellular", "port": "/dev/ttyUSB2", "apn": "1",
                 "roaming": False, "baud": 115200, "priority": 1},
                {"name": "air", "driver": "wifi", "networks": [{"ssid": "a b", "open": True}]},
            ]
        },
        {"console": {"port": "/dev/ttyS0", "speed": 115200, "profile": "locked"}},
    ],
)  # fmt: skip
def test_a_document_comes_back_from_uci_as_it_was(change):
    document = {**UNIX, **change}
    assert back(document) == {k: v for k, v in document.items() if v is not None}


@given(st.text(st.characters(exclude_characters="\n", codec="utf-8"), min_size=1, max_size=32))
def test_any_text_survives_the_quotes(text):
    """The name takes any text: the rule of the configuration says what a reading means."""
    assert back({**UNIX, "name": text})["name"] == text


def test_words_that_openwrt_users_write_for_yes_and_no_are_understood():
    for word, value in (("1", True), ("on", True), ("yes", True), ("0", False), ("off", False)):
        text = f"config router a\n option explicit {word} # as it is\n"
        assert uci.document(uci.parse(text, "f"), "a")["explicit"] is value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("option a b", "haaro:1: option a b: allowed are config TYPE"),
        ("config router a\n\noption x 'y", "haaro:3: a quote is not closed"),
        ("config router a b c", "haaro:1: config router a b c: allowed are"),
        ("config router a\noption x", "haaro:2: option x: allowed are"),
    ],
)
def test_what_is_no_uci_is_refused_with_its_line(text, said):
    with pytest.raises(uci.UciError, match=said):
        uci.parse(text, "haaro")


@pytest.mark.parametrize("key", ["key", "pin", "password", "krm", "mobile_home"])
def test_a_secret_in_etc_config_is_refused_and_not_shown(key):
    text = f"config router a\n option home_agent 192.0.2.1\n option {key} verysecret\n"
    with pytest.raises(uci.UciError, match=r"router\.secrets\.json") as caught:
        uci.document(uci.parse(text, "haaro"), "a")
    assert "verysecret" not in str(caught.value)


def test_the_example_of_the_package_is_what_the_box_understands(tmp_path):
    """MicroPython and CPython make the same of it."""
    example = BOX / "etc" / "config" / "haaro"
    target = tmp_path / "router.json"
    program = BOX / "usr" / "lib" / "haaro" / "uci.py"
    path = f"{system.firmware().parent}:.frozen"
    done = subprocess.run(
        [MICROPYTHON, program, "write", "office", target, example],
        env={"MICROPYPATH": path}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "/var/run/haaro/office.sock\n"), done.stderr
    sections = uci.parse(example.read_text(), "haaro")
    made = json.loads(target.read_text())
    assert made == uci.document(sections, "office")
    assert made["uplinks"] == [{"name": "wan", "driver": "linux_netdev", "interface": "eth0"}]
    wrong = subprocess.run(
        [MICROPYTHON, program, "write", "other", target, example],
        env={"MICROPYPATH": path}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "router other: no such section; there are office" in wrong.stderr


def test_the_host_converts_both_ways_and_checks_as_the_router_does(shop, tmp_path):  # noqa: F811
    source = tmp_path / "router.json"
    source.write_text(json.dumps(UNIX))
    text = shop.run("uci", "export", source)
    assert "config router 'office_a'" in text and "secrets" not in text
    config = tmp_path / "haaro"
    config.write_text(text)
    shop.run("uci", "import", config, "--out", tmp_path / "back.json")
    made = json.loads((tmp_path / "back.json").read_text())
    assert made["secrets"] == "/etc/haaro/office_a/router.secrets.json"
    kept = {k: v for k, v in UNIX.items() if k not in _PATHS and v is not None}
    assert {k: v for k, v in made.items() if k not in _PATHS} == kept
    assert shop.json("uci", "import", config)["router"] == made
    assert shop.json("uci", "export", source)["text"] == text
    config.write_text(text.replace("option lifetime '300'", "option lifetime 'soon'"))
    said = shop.run("uci", "import", config, status=2)
    assert "lifetime: 'soon': must be a whole number" in said
    config.write_text(text + "\nconfig router other\n")
    assert "2 router sections" in shop.run("uci", "import", config, status=2)


def test_a_site_goes_out_as_uci_with_its_keys_beside_it(shop):  # noqa: F811
    shop.run("keys", "new")
    shop.run("fleet", "export", "openwrt", "office-a")
    folder = shop.directory / "openwrt" / "office-a" / "etc"
    text = (folder / "config" / "haaro").read_text()
    secrets = folder / "haaro" / "office_a" / "router.secrets.json"
    assert secrets.stat().st_mode & 0o777 == 0o600
    key = json.loads(secrets.read_text())["mobile_home"][0]["key"]
    assert key not in text
    made = uci.document(uci.parse(text, "haaro"), "office_a")
    shop.run("fleet", "export", "router", "office-a")
    router = json.loads((shop.directory / "routers" / "office-a" / "router.json").read_text())
    assert {k: v for k, v in made.items() if k not in _PATHS} == {
        k: v for k, v in router.items() if k not in _PATHS
    }
