"""Configuration of a cellular uplink, and what of it outlives a restart."""

import json
import os
from pathlib import Path

import pytest

from haaro.shell import config, secrets
from haaro.uplink import modem_files, socket_profiles
from haaro.uplink.modem_files import Meter, PinMark
from haaro.uplink.modem_profiles import GENERIC, profile

CANARY = "canary-word"
UPLINK = {"name": "lte", "driver": "cellular", "port": "/dev/ttyUSB2"}
KEY = {"spi": 256, "algorithm": "hmac-sha256", "key": "00112233445566778899aabbccddeeff"}


@pytest.fixture
def load(tmp_path):
    def load_files(uplinks, modems=()):
        top = {
            "version": 1,
            "name": "A",
            "home_address": "192.0.2.129",
            "home_agent": "192.0.2.1",
            "networks": ["10.1.0.0/24"],
            "uplinks": uplinks,
        }
        (tmp_path / "router.json").write_text(json.dumps(top))
        own = tmp_path / "router.secrets.json"
        own.write_text(json.dumps({"version": 1, "mobile_home": [KEY], "modems": list(modems)}))
        own.chmod(0o600)
        return config.load(str(tmp_path / "router.json"))

    return load_files


def test_defaults_of_a_cellular_uplink(load):
    _, options = load([UPLINK])
    assert options["uplinks"] == [
        {
            **UPLINK, "interface": "modem0", "baud": 115200, "apn": "", "user": "",
            "profile": "generic", "roaming": False, "mux": True, "data": "ppp",
            "data_cap_mb": 0, "power_key": None, "reset": None, "priority": None, "cost": 0,
            "metered": False, "budget_kb_hour": 200,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"port": None}, "uplinks[0].port: missing"),
        ({"baud": 1200}, "uplinks[0].baud: 1200"),
        ({"profile": "sim800"}, "uplinks[0].profile"),
        ({"apn": 'x",1'}, "without quotes"),
        ({"apn": "x\r\nATD"}, "without quotes"),
        ({"data_cap_mb": -1}, "uplinks[0].data_cap_mb"),
        ({"password": CANARY}, "uplinks[0].password: unknown key"),
        ({"interface": "i" * 15}, "1 to 14 characters"),
        ({"data": "slip"}, "uplinks[0].data"),
        ({"data": "sockets"}, 'needs a profile that has them (ec25, bg96, bg770), or "ppp"'),
        ({"data": "sockets", "profile": "sara-r4"}, '"sockets" with profile "sara-r4"'),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(load, change, words):
    uplink = {key: value for key, value in {**UPLINK, **change}.items() if value is not None}
    with pytest.raises(config.ConfigError) as refused:
        load([uplink])
    assert words in str(refused.value)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize("key", ["name", "port", "interface"])
def test_two_modems_need_their_own(load, key):
    other = {"name": "b", "driver": "cellular", "port": "/dev/ttyUSB3", "interface": "modem1"}
    load([UPLINK, other])
    with pytest.raises(config.ConfigError, match="its own " + key):
        load([UPLINK, {**other, key: {**UPLINK, "interface": "modem0"}[key]}])


def test_password_and_pin_come_from_the_secrets_file(load, tmp_path):
    load([UPLINK], [{"uplink": "lte", "password": CANARY, "pin": "4711"}])
    path = str(tmp_path / "router.secrets.json")
    assert secrets.modem(path, "lte") == {"password": CANARY, "pin": "4711"}
    assert secrets.modem(path, "other") == {"password": "", "pin": ""}


@pytest.mark.parametrize(
    "row",
    [
        {"uplink": "lte", "pin": "12"},
        {"uplink": "lte", "pin": CANARY},
        {"uplink": "lte", "pin": 47114711},
        {"uplink": "lte", "password": CANARY + '"'},
        {"pin": "4711"},
    ],
)
def test_a_wrong_secret_is_refused_unseen(load, row):
    with pytest.raises(config.ConfigError) as refused:
        load([UPLINK], [row])
    assert "modems[0]." in str(refused.value)
    assert CANARY not in str(refused.value) and "47114711" not in str(refused.value)


def test_profiles_are_those_that_the_configuration_knows(load):
    for name in ("generic", "sim7600", "ec25", "bg96", "bg770", "sara-r4"):
        _, options = load([{**UPLINK, "profile": name}])
        assert set(profile(options["uplinks"][0]["profile"])) == set(GENERIC)
        if name in socket_profiles._WORDS:
            load([{**UPLINK, "profile": name, "data": "sockets"}])
        else:
            with pytest.raises(config.ConfigError):
                load([{**UPLINK, "profile": name, "data": "sockets"}])


def test_mark_of_a_pin_stays_until_it_is_taken_away(tmp_path):
    path = str(tmp_path / "mark")
    assert not PinMark(path).failed
    assert PinMark(path).set()
    assert PinMark(path).failed
    PinMark(path).clear()
    assert not PinMark(path).failed
    assert not PinMark(str(tmp_path / "no" / "mark")).set()


class Months:
    """A calendar in place of the module `time`."""

    def __init__(self) -> None:
        self.now = (2026, 11)

    def gmtime(self) -> tuple[int, int]:
        return self.now


@pytest.fixture
def months(monkeypatch):
    made = Months()
    monkeypatch.setattr(modem_files, "time", made)
    return made


def test_cap_counts_a_month_over_restarts(tmp_path, months):
    path = str(tmp_path / "octets")
    meter = Meter(path, 1)
    assert not meter.check(0)
    meter.count(999_999)
    assert not meter.check(1)
    meter.save(2)
    meter = Meter(path, 1)
    meter.count(1)
    assert meter.check(3)
    meter.save(4)
    assert Meter(path, 1).check(0)
    months.now = (2026, 12)
    later = Meter(path, 1)
    assert not later.check(0) and later.octets == 0


@pytest.mark.parametrize("clock", [(1970, 1), (2000, 1), (2026, 10)])
def test_a_clock_that_is_not_set_or_steps_back_begins_no_month(tmp_path, months, clock):
    path = str(tmp_path / "octets")
    meter = Meter(path, 1)
    meter.check(0)
    meter.count(2_000_000)
    meter.save(0)
    months.now = clock
    assert Meter(path, 1).check(0)


def test_count_is_written_once_an_hour_and_only_with_a_cap(tmp_path, months):
    path = tmp_path / "octets"
    meter = Meter(str(path), 5)
    meter.check(0)
    for minute in range(1, 120):
        meter.count(1000)
        meter.check(minute * 60_000)
    assert json.loads(path.read_text())["octets"] == 60_000
    os.remove(path)
    free = Meter(str(path), 0)
    free.count(10**9)
    assert not free.check(0)
    free.save(0)
    assert not Path(path).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"month": "x"}'])
def test_a_broken_count_is_begun_anew(tmp_path, months, text):
    path = tmp_path / "octets"
    path.write_text(text)
    assert not Meter(str(path), 1).check(0)
