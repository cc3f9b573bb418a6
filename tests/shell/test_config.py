"""router.json and its secrets: what is refused, and what the refusal says."""

import json
import os
from pathlib import Path

import pytest

from haaro.core.settings import Settings
from haaro.shell import config

KEY = "00112233445566778899aabbccddeeff"
CANARY = "c0ffee00c0ffee00c0ffee00"


def router(**changes):
    good = {
        "version": 1,
        "name": "A",
        "home_address": "192.0.2.129",
        "home_agent": "192.0.2.1",
        "networks": ["10.1.0.0/24"],
        "uplinks": [{"name": "wan", "driver": "linux_netdev", "interface": "wan"}],
        "socket": "/run/haaro/a.sock",
    }
    good.update(changes)
    return {key: value for key, value in good.items() if value is not None}


def secrets(**changes):
    good = {
        "version": 1,
        "mobile_home": [{"spi": 256, "algorithm": "hmac-sha256", "key": KEY}],
        "peers": [{"home_address": "192.0.2.131", "krm": ["aa" * 20]}],
    }
    good.update(changes)
    return good


@pytest.fixture
def write(tmp_path):
    def write_files(top, secret=None, mode=0o600) -> str:
        path = tmp_path / "router.json"
        path.write_text(top if isinstance(top, str) else json.dumps(top))
        beside = tmp_path / "router.secrets.json"
        beside.write_text(json.dumps(secrets() if secret is None else secret))
        os.chmod(beside, mode)
        return str(path)

    return write_files


def test_a_complete_file_gives_settings_and_options(write):
    settings, options = config.load(write(router(lifetime=120, keepalive={"ha_s": 30})))
    assert settings.home_address == bytes([192, 0, 2, 129])
    assert settings.networks == [(bytes([10, 1, 0, 0]), 24)]
    assert settings.lifetime == 120
    assert settings.ha_keepalive_ms == 30000
    assert settings.key == bytes.fromhex(KEY)
    assert settings.static_krm == {bytes([192, 0, 2, 131]): [b"\xaa" * 20]}
    assert options["uplinks"][0]["interface"] == "wan"
    assert options["tunnel_interface"] == "haaro0"
    assert (options["dataplane"], options["fast_lan"]) == ("auto", None)
    assert options["mss_clamp"] is True
    assert settings.encapsulation == "udp"


@pytest.mark.parametrize("kind", ["udp", "ipip", "gre", "minimal"])
def test_the_encapsulation_of_tunnels_is_chosen(write, kind):
    settings, _ = config.load(write(router(encapsulation=kind)))
    assert settings.encapsulation == kind


@pytest.mark.parametrize(
    ("change", "key", "value", "allowed"),
    [
        ({"network": []}, "network", "unknown key", "networks"),
        ({"home_agent": None}, "home_agent", "missing", "required"),
        ({"home_address": "192.0.2"}, "home_address", "192.0.2", "IPv4 unicast address"),
        ({"home_address": "224.0.0.1"}, "home_address", "224.0.0.1", "IPv4 unicast address"),
        ({"home_address": 7}, "home_address", "7", "IPv4 unicast address"),
        ({"home_address": "192.0.2.1"}, "home_address", "192.0.2.1", "differ from home_agent"),
        ({"networks": ["10.1.0.0/33"]}, "networks", "10.1.0.0/33", "IPv4 prefix"),
        ({"networks": ["10.1.0.1/24"]}, "networks", "10.1.0.1/24", "host bits"),
        ({"networks": ["0.0.0.0/0"]}, "networks", "0.0.0.0/0", "1 to 32"),
        (
            {"networks": ["10.1.0.0/16", "10.1.2.0/24"]},
            "networks[1]",
            "10.1.2.0/24",
            "overlaps 10.1.0.0/16",
        ),
        ({"lifetime": 5}, "lifetime", "5", "30 to 65534"),
        ({"lifetime": True}, "lifetime", "True", "whole number"),
        ({"explicit": 1}, "explicit", "1", "true, false"),
        ({"version": 2}, "version", "2", "one of: 1"),
        ({"dataplane": "bpf"}, "dataplane", "bpf", '"auto", "kernel", "userspace"'),
        ({"fast_lan": "lan"}, "fast_lan", "lan", "list"),
        ({"fast_lan": ["wan"]}, "fast_lan", "wan", "uplink"),
        ({"mss_clamp": "yes"}, "mss_clamp", "yes", "true"),
        ({"encapsulation": "vxlan"}, "encapsulation", "vxlan", '"udp", "ipip", "gre", "minimal"'),
        ({"uplinks": []}, "uplinks", "[]", "1 to 8"),
        ({"uplinks": ["wan"]}, "uplinks[0]", "wan", "object"),
        (
            {"uplinks": [{"name": "w", "driver": "token_ring", "interface": "wan"}]},
            "uplinks[0].driver",
            "token_ring",
            "linux_netdev",
        ),
        (
            {
                "uplinks": [
                    {"name": "w", "driver": "linux_netdev", "interface": "wan"},
                    {"name": "w", "driver": "linux_netdev", "interface": "wan2"},
                ]
            },
            "uplinks",
            "w",
            "its own name",
        ),
        ({"keepalive": {"ha_s": 5}}, "keepalive.ha_s", "5", "10 to 110"),
        ({"keepalive": {"direct_ms": 100}}, "keepalive.direct_ms", "100", "200 to 60000"),
        ({"route_optimization": {"cache": 1}}, "route_optimization.cache", "unknown", "cache_cap"),
    ],
)
def test_a_bad_key_is_refused_with_file_key_value_and_what_is_allowed(
    write, change, key, value, allowed
):
    path = write(router(**change))
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    text = str(caught.value)
    assert text.startswith(path + ": ")
    assert key in text
    assert value in text
    assert allowed in text


@pytest.mark.parametrize("text", ["{", "[]", '"x"', ""])
def test_a_file_that_is_not_an_object_is_refused(write, text):
    path = write(text)
    with pytest.raises(config.ConfigError, match="router.json"):
        config.load(path)


@pytest.mark.parametrize(
    ("row", "key", "allowed"),
    [
        (
            {"spi": 256, "algorithm": "hmac-md5", "key": CANARY},
            "key",
            "16 to 64 octets, this is 12",
        ),
        ({"spi": 256, "algorithm": "hmac-md5", "key": CANARY + "zz"}, "key", "hexadecimal"),
        ({"spi": 255, "algorithm": "hmac-md5", "key": KEY}, "spi", "256 to"),
        ({"spi": 256, "algorithm": "md5", "key": KEY}, "algorithm", "hmac-sha256"),
        ({"spi": 256, "algorithm": "hmac-md5"}, "key", "required"),
    ],
)
def test_a_bad_secret_is_refused_and_never_shown(write, row, key, allowed):
    path = write(router(), secrets(mobile_home=[row]))
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    text = str(caught.value)
    assert "router.secrets.json: mobile_home[0]." + key in text
    assert allowed in text
    assert CANARY not in text
    assert CANARY not in repr(caught.value)


def test_a_short_krm_is_refused_and_never_shown(write):
    peers = [{"home_address": "192.0.2.131", "krm": [CANARY]}]
    path = write(router(), secrets(peers=peers))
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    assert "peers[0].krm[0]" in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        {"mobile_home": CANARY},
        {"peers": [{"home_address": CANARY, "krm": []}]},
        {"peers": [{"home_address": "192.0.2.131", "krm": CANARY}]},
        {"mobile_home": [CANARY]},
    ],
)
def test_a_key_in_the_wrong_place_is_not_shown_either(write, secret):
    path = write(router(), secrets(**secret))
    with pytest.raises(config.ConfigError) as caught:
        config.load(path)
    assert CANARY not in str(caught.value)


def test_two_associations_may_be_live_the_first_is_used(write):
    rows = [
        {"spi": 300, "algorithm": "hmac-sha256", "key": "22" * 32},
        {"spi": 256, "algorithm": "hmac-md5", "key": KEY},
    ]
    settings, _ = config.load(write(router(), secrets(mobile_home=rows)))
    assert (settings.spi, settings.algorithm, settings.key) == (300, "hmac-sha256", b"\x22" * 32)
    assert settings.association(300) == (300, "hmac-sha256", b"\x22" * 32)
    assert settings.association(256) == (256, "hmac-md5", bytes.fromhex(KEY))
    assert settings.association(257) is None


def test_a_third_association_or_the_same_spi_twice_is_refused(write):
    row = {"spi": 300, "algorithm": "hmac-sha256", "key": CANARY * 2}
    with pytest.raises(config.ConfigError, match=r"mobile_home\[1\]\.spi: 300: needs its own") as e:
        config.load(write(router(), secrets(mobile_home=[row, row])))
    assert CANARY not in str(e.value)
    with pytest.raises(config.ConfigError, match="mobile_home: .*1 to 2 entries") as e:
        config.load(write(router(), secrets(mobile_home=[row] * 3)))
    assert CANARY not in str(e.value)


def test_a_secrets_file_that_others_may_read_is_refused(write):
    path = write(router(), mode=0o644)
    with pytest.raises(config.ConfigError, match="chmod 600"):
        config.load(path)


def test_a_missing_secrets_file_is_named(write):
    path = write(router(secrets="elsewhere.json"))
    with pytest.raises(config.ConfigError, match=r"elsewhere\.json"):
        config.load(path)


def test_the_socket_path_is_read_without_the_secrets(write):
    path = write(router())
    (Path(path).parent / "router.secrets.json").unlink()
    assert config.socket_path(path) == "/run/haaro/a.sock"


PEER = {"home_address": "192.0.2.132", "networks": ["10.4.0.0/24"], "realm": "d.example"}


def test_static_peers_realm_and_overlap_are_taken(write):
    """R3.1.2-i3 R3.1.1-i5"""
    top = router(peers=[PEER], realm="a.example", route_optimization={"overlap": "separate"})
    settings, _ = config.load(write(top))
    lan_d = (bytes([10, 4, 0, 0]), 24, "d.example")
    assert settings.static_peers == {bytes([192, 0, 2, 132]): [lan_d]}
    assert (settings.realm, settings.separate_realms) == ("a.example", True)
    settings, _ = config.load(write(router()))
    assert (settings.static_peers, settings.realm, settings.separate_realms) == ({}, "", False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peers": [PEER, PEER]}, "peers[1].home_address: 192.0.2.132: each peer once"),
        ({"peers": [{}]}, "peers[0].home_address: missing: this key is required"),
        (
            {"peers": [{**PEER, "networks": ["10.1.0.128/25"]}]},
            "peers[0].networks: 10.1.0.128/25: overlaps 10.1.0.0/24; prefixes must be disjoint",
        ),
        ({"peers": [{**PEER, "krm": []}]}, "peers[0].krm: unknown key: allowed here:"),
        ({"peers": [{**PEER, "realm": "a..b"}]}, "peers[0].realm: 'a..b': must have 1 to 127"),
        ({"realm": "x" * 254}, "must be a text of at most 253 characters"),
        ({"route_optimization": {"overlap": "ignore"}}, 'must be one of: "error", "separate"'),
        (
            {"peers": [PEER], "route_optimization": {"cache_capacity": 1}},
            "route_optimization.cache_capacity: 1: must have room for the 2 configured peers",
        ),
    ],
)
def test_static_peers_that_cannot_be_used_are_refused(write, changes, said):
    with pytest.raises(config.ConfigError) as refused:
        config.load(write(router(**changes)))
    assert said in str(refused.value)


def test_static_peers_may_share_private_space_in_separate_realms(write):
    """R3.1.1-i5"""
    peers = [PEER, {**PEER, "home_address": "192.0.2.133", "realm": "e.example"}]
    top = router(peers=peers, route_optimization={"overlap": "separate"})
    assert len(config.load(write(top))[0].static_peers) == 2


def test_internet_says_what_goes_to_the_home_agent(write):
    settings, options = config.load(write(router()))
    assert settings.home_prefixes == [(bytes(4), 0)]
    assert (options["internet"], options["lan_ipv6"]) == ("ha", "block")
    for internet in ("local", "block"):
        changes = {"internet": internet, "organisation": ["10.0.0.0/8", "192.0.2.128/25"]}
        settings, options = config.load(write(router(**changes, lan_ipv6="local")))
        assert (options["internet"], options["lan_ipv6"]) == (internet, "local")
        assert (bytes(4), 0) not in settings.home_prefixes
        assert settings.home_prefixes.count((bytes((10, 0, 0, 0)), 8)) == 1
        assert settings.home_prefixes[-1] == (bytes((192, 0, 2, 128)), 25)
    for changes in ({"internet": "no"}, {"lan_ipv6": "ha"}, {"organisation": ["0.0.0.0/0"]}):
        with pytest.raises(config.ConfigError, match=next(iter(changes))):
            config.load(write(router(**changes)))


def test_uplinks_and_policy_have_defaults(write):
    settings, options = config.load(write(router()))
    (uplink,) = settings.uplinks
    assert uplink is options["uplinks"][0]
    assert uplink["priority"] is None
    assert (uplink["cost"], uplink["metered"], uplink["budget_kb_hour"]) == (0, False, 200)
    assert (settings.return_ms, settings.hold_down_ms) == (30_000, 10_000)
    assert (settings.loss_percent, settings.latency_ms) == (60, 1500)
    assert settings.peer_uplinks == {}
    fresh = Settings()
    for name in ("return_ms", "hold_down_ms", "loss_percent", "latency_ms", "peer_uplinks"):
        assert getattr(settings, name) == getattr(fresh, name)


def test_uplinks_and_policy_are_taken(write):
    """R6.1-i3"""
    uplinks = [
        {"name": "wan", "driver": "linux_netdev", "interface": "eth0", "priority": 7, "cost": 3},
        {"name": "lte", "driver": "linux_netdev", "interface": "wwan0", "metered": True},
    ]
    policy = {"return_s": 60, "peer_uplinks": {"192.0.2.131": "lte"}}
    settings, _ = config.load(write(router(uplinks=uplinks, policy=policy)))
    assert [u["priority"] for u in settings.uplinks] == [7, None]
    assert settings.return_ms == 60_000
    assert settings.peer_uplinks == {bytes([192, 0, 2, 131]): 1}


@pytest.mark.parametrize(
    ("uplink", "policy", "key", "value", "allowed"),
    [
        ({"priority": -1}, {}, "uplinks[0].priority", "-1", "0 to 255"),
        ({"priority": True}, {}, "uplinks[0].priority", "True", "whole number"),
        ({"cost": "low"}, {}, "uplinks[0].cost", "'low'", "whole number"),
        ({"metered": 1}, {}, "uplinks[0].metered", "1", "true, false"),
        ({"budget_kb_hour": 5}, {}, "uplinks[0].budget_kb_hour", "5", "50 to 1000000"),
        ({}, {"return_s": 0}, "policy.return_s", "0", "1 to 3600"),
        ({}, {"hold_down_s": 301}, "policy.hold_down_s", "301", "1 to 300"),
        ({}, {"loss_percent": 101}, "policy.loss_percent", "101", "5 to 100"),
        ({}, {"latency_ms": 10}, "policy.latency_ms", "10", "50 to 60000"),
        ({}, {"hysteresis": 1}, "policy.hysteresis", "unknown key", "return_s"),
        ({}, {"peer_uplinks": []}, "policy.peer_uplinks", "[]", '{"192.0.2.131": "lte"}'),
        ({}, {"peer_uplinks": {"x": "wan"}}, "policy.peer_uplinks", "'x'", "IPv4 unicast"),
        (
            {},
            {"peer_uplinks": {"192.0.2.131": "dsl"}},
            "policy.peer_uplinks.192.0.2.131",
            "'dsl'",
            "name of an uplink: wan",
        ),
    ],
)
def test_a_wrong_uplink_or_policy_names_key_value_and_remedy(
    write, uplink, policy, key, value, allowed
):
    wan = {"name": "wan", "driver": "linux_netdev", "interface": "wan", **uplink}
    path = write(router(uplinks=[wan], policy=policy))
    with pytest.raises(config.ConfigError) as raised:
        config.load(path)
    text = str(raised.value)
    assert text.startswith(f"{path}: {key}: {value}: ")
    assert allowed in text


def test_the_documented_example_is_valid(write):
    text = (Path(__file__).parents[2] / "docs" / "uplinks.md").read_text()
    example = json.loads("{" + text.split("```json")[1].split("```")[0] + "}")
    settings, _ = config.load(write(router(**example)))
    assert [u["name"] for u in settings.uplinks] == ["wan", "lte"]
    for key in [*settings.uplinks[1], *example["policy"]]:
        assert key in ("name", "driver", "interface") or f"| `{key}` |" in text, key
