"""The section `lan` of router.json: what it gives, and that each refusal names key and remedy."""

import json
import os

import pytest

from haaro.shell import config
from tests.lan.conftest import OURS

W5500 = {"driver": "w5500", "address": "10.1.0.1/24"}
DHCP = {"first": "10.1.0.100", "last": "10.1.0.199"}
WAN = {"name": "wan", "driver": "linux_netdev", "interface": "wan"}
WIRE = {"name": "wire", "driver": "ethernet"}
LINUX = {"driver": "linux_vlan", "address": "10.1.0.1/24", "interface": "eth0", "vlan": 10}


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a router.json with this section."""

    def load_lan(lan, networks=("10.1.0.0/24",), uplink=WAN):
        router = {
            "version": 1,
            "name": "A",
            "home_address": "192.0.2.129",
            "home_agent": "192.0.2.1",
            "networks": list(networks),
            "uplinks": [uplink],
            "lan": lan,
        }
        (tmp_path / "router.json").write_text(json.dumps(router))
        keys = {"version": 1, "mobile_home": [{"spi": 256, "algorithm": "hmac-sha256", "key": "00112233445566778899aabbccddeeff"}]}  # fmt: skip # noqa: E501
        (tmp_path / "router.secrets.json").write_text(json.dumps(keys))
        os.chmod(tmp_path / "router.secrets.json", 0o600)
        return config.load(str(tmp_path / "router.json"))[1]["lan"]

    return load_lan


def test_without_the_section_the_system_has_the_lan(load):
    assert load(None) is None


def test_a_port_without_and_with_a_server(load, tmp_path):
    assert load(W5500) == {"driver": "w5500", "address": (OURS, 24), "vlan": None, "dhcp": None}
    dhcp = {
        **DHCP,
        "dns": ["10.1.0.2"],
        "mtu": 1468,
        "reservations": {"02:00:00:00:00:AB": "10.1.0.7"},
    }
    found = load({**W5500, "vlan": 10, "dhcp": dhcp})
    assert found["vlan"] == 10
    assert found["dhcp"] == {
        "first": bytes((10, 1, 0, 100)),
        "last": bytes((10, 1, 0, 199)),
        "lease_s": 43200,
        "dns": [bytes((10, 1, 0, 2))],
        "mtu": 1468,
        "reservations": {bytes.fromhex("0200000000ab"): bytes((10, 1, 0, 7))},
        "file": str(tmp_path / "leases"),
    }


def test_a_vlan_of_linux(load):
    assert load(LINUX) == {
        "driver": "linux_vlan",
        "address": (OURS, 24),
        "vlan": 10,
        "interface": "eth0",
    }


@pytest.mark.parametrize(
    ("lan", "key", "says"),
    [
        (7, "lan", "must be an object"),
        ({**W5500, "driver": "enc28j60"}, "lan.driver: 'enc28j60'", '"w5500"'),
        ({"driver": "w5500"}, "lan.address", "required"),
        ({**W5500, "address": "10.1.0.1"}, "lan.address: '10.1.0.1'", "such as 10.1.0.1/24"),
        ({**W5500, "address": "10.1.0/24"}, "lan.address", "such as 10.1.0.1/24"),
        ({**W5500, "address": "10.1.0.0/24"}, "lan.address", "a host's address"),
        ({**W5500, "address": "10.1.0.255/24"}, "lan.address", "a host's address"),
        ({**W5500, "address": "10.1.0.1/31"}, "lan.address", "8 to 30"),
        ({**W5500, "address": "10.2.0.1/24"}, "lan.address: 10.2.0.1/24", "10.1.0.0/24"),
        ({**W5500, "address": "10.1.0.1/16"}, "lan.address: 10.1.0.1/16", "10.1.0.0/24"),
        ({**W5500, "vlan": 0}, "lan.vlan: 0", "1 to 4094"),
        ({**W5500, "vlan": 4095}, "lan.vlan: 4095", "1 to 4094"),
        ({**W5500, "interface": "eth0"}, "lan.interface", "unknown key"),
        ({**W5500, "dhcp": []}, "lan.dhcp: []", "must be an object"),
        ({**W5500, "dhcp": {"first": "10.1.0.9"}}, "lan.dhcp.last", "required"),
        ({**W5500, "dhcp": {**DHCP, "first": "10.2.0.9"}}, "lan.dhcp.first", "host of 10.1.0.0/24"),
        ({**W5500, "dhcp": {**DHCP, "last": "10.1.0.255"}}, "lan.dhcp.last", "host of 10.1.0.0/24"),
        ({**W5500, "dhcp": {**DHCP, "last": "10.1.0.9"}}, "10.1.0.100 to 10.1.0.9", "1 to 200"),
        ({**W5500, "dhcp": {**DHCP, "first": "10.1.0.2", "last": "10.1.0.250"}}, "lan.dhcp", "200"),
        ({**W5500, "dhcp": {**DHCP, "lease_s": 60}}, "lan.dhcp.lease_s", "120 to 604800"),
        ({**W5500, "dhcp": {**DHCP, "mtu": 9000}}, "lan.dhcp.mtu", "576 to 1500"),
        ({**W5500, "dhcp": {**DHCP, "dns": ["x"]}}, "lan.dhcp.dns", "IPv4"),
        (
            {**W5500, "dhcp": {**DHCP, "reservations": {"02:00": "10.1.0.7"}}},
            "lan.dhcp.reservations: '02:00'",
            "02:00:00:00:00:01",
        ),
        (
            {**W5500, "dhcp": {**DHCP, "reservations": {"02:00:00:00:00:zz": "10.1.0.7"}}},
            "lan.dhcp.reservations",
            "such as 02:00:00:00:00:01",
        ),
        (
            {**W5500, "dhcp": {**DHCP, "reservations": {"02:00:00:00:00:01": "10.1.0.1"}}},
            "lan.dhcp.reservations.02:00:00:00:00:01",
            "router's own",
        ),
        (
            {
                **W5500,
                "dhcp": {
                    **DHCP,
                    "reservations": {
                        "02:00:00:00:00:01": "10.1.0.7",
                        "02:00:00:00:00:02": "10.1.0.7",
                    },
                },
            },
            "lan.dhcp.reservations.02:00:00:00:00:0",
            "given twice",
        ),
        ({**LINUX, "dhcp": DHCP}, "lan.dhcp", "unknown key"),
        ({key: LINUX[key] for key in LINUX if key != "vlan"}, "lan.vlan", "required"),
        ({**LINUX, "interface": "enp10s0f1np1", "vlan": 100}, "enp10s0f1np1.100", "15 characters"),
    ],
)
def test_what_cannot_be_is_refused_with_key_value_and_remedy(load, lan, key, says):
    with pytest.raises(config.ConfigError) as error:
        load(lan)
    assert key in str(error.value)
    assert says in str(error.value)


# As boards/W5500_EVB_PICO2 has it, and a second chip's.
ONE_CHIP = "W5500_CS,GPIO17\nW5500_SCK,GPIO18\nW5500_MISO,GPIO16\nW5500_MOSI,GPIO19\n"
SECOND = "UPLINK_CS,GPIO13\nUPLINK_SCK,GPIO10\nUPLINK_MISO,GPIO12\nUPLINK_MOSI,GPIO11\n"


@pytest.mark.parametrize(
    ("pins", "says"),
    [
        (ONE_CHIP, "has one W5500, and lan has it"),
        (ONE_CHIP + SECOND.replace("13", "17"), "gives UPLINK_CS and W5500_CS the same GPIO17"),
        (ONE_CHIP + SECOND.replace("10", "18"), "gives UPLINK_SCK and W5500_SCK the same GPIO18"),
    ],
    ids=["one chip", "the same chip", "the same bus"],
)
def test_an_uplink_at_the_chip_of_the_lan_is_refused_with_key_value_and_remedy(
    load, tmp_path, pins, says
):
    (tmp_path / "pins.csv").write_text(pins)
    with pytest.raises(config.ConfigError) as error:
        load(W5500, uplink=WIRE)
    assert f"router.json: uplinks[0].driver: ethernet: pins.csv {says}" in str(error.value)
    assert "take lan or this uplink away, or give UPLINK_CS and so on" in str(error.value)
    assert load(None, uplink=WIRE) is None, "the chip is free for the uplink"


@pytest.mark.parametrize(
    ("pins", "uplink"),
    [
        (ONE_CHIP + SECOND, WIRE),
        (ONE_CHIP, {**WIRE, "chip": "lan8720"}),
        (ONE_CHIP, WAN),
        ("", WIRE),
    ],
    ids=["two chips", "a PHY", "no Ethernet", "pins unknown"],
)
def test_a_lan_beside_another_chip_is_taken(load, tmp_path, pins, uplink):
    if pins:
        (tmp_path / "pins.csv").write_text(pins)
    assert load(W5500, uplink=uplink)["driver"] == "w5500"


def test_a_line_of_the_pins_that_cannot_be_read_is_named(load, tmp_path):
    (tmp_path / "pins.csv").write_text("W5500_CS,GPIOx\n")
    with pytest.raises(config.ConfigError, match="pins.csv: W5500_CS,GPIOx: must be like W5500_CS"):
        load(W5500, uplink=WIRE)
