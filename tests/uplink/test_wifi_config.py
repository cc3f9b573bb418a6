"""Configuration of Wi-Fi and Ethernet uplinks, and their passwords."""

import json

import pytest

from haaro.shell import config

CANARY = "canary-word"
WIFI = {"name": "wlan", "driver": "wifi", "networks": [{"ssid": "Office"}]}
ETHERNET = {"name": "wire", "driver": "ethernet"}
STATIC = {"address": "192.0.2.5/24", "gateway": "192.0.2.254"}
KEY = {"spi": 256, "algorithm": "hmac-sha256", "key": "00112233445566778899aabbccddeeff"}
ROW = {"ssid": "Office", "password": CANARY}


@pytest.fixture
def load(tmp_path):
    def load_files(uplinks, wifi=(ROW,)):
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
        own.write_text(json.dumps({"version": 1, "mobile_home": [KEY], "wifi": list(wifi)}))
        own.chmod(0o600)
        return config.load(str(tmp_path / "router.json"))[1]["uplinks"]

    return load_files


def test_defaults_and_every_key(load):
    everything = {
        **WIFI,
        **STATIC,
        "networks": [{"ssid": "Office", "bssid": "00:00:5e:00:53:01"}],
        "roam_dbm": -70,
        "country": "AT",
    }
    everything["networks"].append({"ssid": "Café", "open": True})
    (first,) = load([everything])
    assert first["networks"] == [
        {"ssid": "Office", "bssid": bytes.fromhex("00005e005301"), "open": False},
        {"ssid": "Café", "bssid": None, "open": True},
    ]
    assert (first["address"], first["gateway"]) == ((bytes([192, 0, 2, 5]), 24),
                                                    bytes([192, 0, 2, 254]))  # fmt: skip
    wifi, wire = load([WIFI, ETHERNET])
    assert (wifi["interface"], wifi["roam_dbm"], wifi["address"]) == ("wlan", -75, None)
    assert (wire["interface"], wire["chip"], wire["phy_address"]) == ("wire", "w5500", 0)


def test_an_uplink_without_a_driver_is_an_interface_of_the_system(load):
    (uplink,) = load([{"name": "wan", "interface": "eth0"}])
    assert uplink["driver"] == "linux_netdev"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"networks": []}, "uplinks[0].networks"),
        ({"networks": [{"ssid": "x" * 33}]}, "uplinks[0].networks[0].ssid"),
        ({"networks": [{"ssid": "é" * 17}]}, "1 to 32 octets"),
        ({"networks": [{"ssid": "Elsewhere"}]}, "has no password: add"),
        ({"networks": [{"ssid": "Office", "open": True}]}, "take away open or the password"),
        ({"networks": [{"ssid": "Office", "bssid": "01:00:5e:00:53:01"}]}, "access point"),
        ({"networks": [{"ssid": "Office", "password": CANARY}]}, "password: unknown key"),
        ({"networks": "Office"}, "uplinks[0].networks"),
        ({"address": "192.0.2.5/24"}, "uplinks[0].gateway: missing"),
        ({"gateway": "192.0.2.5"}, "uplinks[0].address: missing"),
        ({**STATIC, "gateway": "192.0.3.1"}, "another address of 192.0.2.5/24"),
        ({**STATIC, "address": "192.0.2.5"}, "such as 192.0.2.5/24"),
        ({**STATIC, "address": "192.0.2.5/31"}, "such as 192.0.2.5/24"),
        ({"roam_dbm": 75}, "uplinks[0].roam_dbm: 75"),
        ({"driver": "wlan"}, "uplinks[0].driver"),
        ({"driver": ["wifi"]}, "uplinks[0]."),
        ({"port": "/dev/ttyUSB0"}, "uplinks[0].port: unknown key"),
    ],
)
def test_a_wrong_value_is_refused_with_name_value_and_remedy(load, change, words):
    with pytest.raises(config.ConfigError) as refused:
        load([{**WIFI, **change}])
    assert words in str(refused.value)
    assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**ROW, "password": "canary"}, "8 to 63 characters"),
        ({**ROW, "password": "canary-w" * 8 + "x"}, "64 hexadecimal digits"),
        ({**ROW, "password": "canary-wörd"}, "ASCII"),
        ({**ROW, "password": 12345678}, "wifi[0].password: <not shown>"),
        ({"password": CANARY}, "wifi[0].ssid: missing"),
    ],
)
def test_a_wrong_password_is_refused_and_not_shown(load, row, words):
    with pytest.raises(config.ConfigError) as refused:
        load([WIFI], [row])
    assert words in str(refused.value)
    assert "canary" not in str(refused.value) and "12345678" not in str(refused.value)


def test_a_key_in_hexadecimal_is_a_password(load):
    assert load([WIFI], [{**ROW, "password": "0a" * 32}])


def test_a_network_or_driver_given_twice_is_refused(load):
    with pytest.raises(config.ConfigError, match="each network once"):
        load([WIFI], [ROW, ROW])
    with pytest.raises(config.ConfigError, match="one uplink of this driver"):
        load([WIFI, {**WIFI, "name": "other"}])
