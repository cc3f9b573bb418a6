"""Improv on the console: packets by the published format, and what becomes of credentials."""

import json

import pytest

from haaro.shell import console as consoles
from tests.console.helpers import CONFIG, KEY, PASSWORD, Desk, octets, pair, secrets_document

# The example of improv-wifi.com/serial: SSID MyWirelessAP, password mysecurepassword.
EXAMPLE = b"\x01\x1e\x0cMyWirelessAP\x10mysecurepassword"
STATE, INFO, SCAN = b"\x02\0", b"\x03\0", b"\x04\0"
NO_ERROR, READY, PROVISIONING, PROVISIONED = (2, b"\0"), (1, b"\2"), (1, b"\3"), (1, b"\4")


def packet(data, kind=3):
    """A packet as the published table has it."""
    body = b"IMPROV" + bytes([1, kind, len(data)]) + data
    return body + bytes([sum(body) % 256])


def packets(said):
    """[(type, data)] of what a box said; each must begin a line, be whole, and have its sum."""
    found = []
    at = said.find(b"IMPROV\x01")
    while at >= 0:
        assert said[at - 1 : at] == b"\n", "clients look at the beginning of a line only"
        end = at + 9 + said[at + 8]
        assert sum(said[at:end]) % 256 == said[end]
        found.append((said[at + 7], said[at + 9 : end]))
        at = said.find(b"IMPROV\x01", end)
    return found


def strings(result):
    """(command, [string]) of a result's data."""
    command, length, rest = result[0], result[1], result[2:]
    assert length == len(rest)
    found = []
    while rest:
        found.append(rest[1 : 1 + rest[0]].decode())
        rest = rest[1 + rest[0] :]
    return command, found


class Box(Desk):
    """A desk whose configuration has a Wi-Fi uplink; `improv` as in router.json."""

    def __init__(self, directory, monkeypatch, improv=True, profile=consoles.LOCKED, wifi=True):
        super().__init__(directory, monkeypatch, profile)
        document = {**CONFIG, "console": {"improv": improv}}
        if wifi:
            uplink = {"name": "air", "driver": "wifi", "networks": [{"ssid": "Old Place"}]}
            document["uplinks"] = [*CONFIG["uplinks"], uplink]
            secrets = {
                **secrets_document(),
                "wifi": [{"ssid": "Old Place", "password": "old-word"}],
            }
            self.secrets.write_bytes(octets(secrets))
        self.config.write_bytes(octets(document))
        self.improv_in(improv)

    def improv_in(self, improv):
        self.box.options = {"console": {"improv": improv}}
        self.box.settings = type("Settings", (), {"name": "office-a"})()
        self.console.attach(self.box, object(), self.console.profile, self.clock.ms)

    def raw(self, data):
        self.type_raw = data
        self.door.typed += data
        for _ in range(400):
            self.console.handle(self.door, self.clock.ms)
            if not self.door.typed and not self.door.watched_output:
                break
        said, self.door.said = bytes(self.door.said), bytearray()
        return said

    def ask(self, data):
        return packets(self.raw(packet(data)))


@pytest.fixture
def box(tmp_path, monkeypatch):
    return Box(tmp_path, monkeypatch)


def staged(box):
    """The documents on trial."""
    return [
        json.loads(path.with_name(path.name + ".new").read_text())
        for path in (box.config, box.secrets)
    ]


def test_state_information_and_networks_are_told(box):
    assert box.ask(STATE) == [NO_ERROR, READY]
    first, second = box.ask(INFO)
    command, about = strings(second[1])
    assert (first, second[0], command) == (NO_ERROR, 4, 3)
    assert about[0] == "haaro" and about[3] == "office-a" and len(about) == 4 and all(about)
    assert box.ask(SCAN) == [NO_ERROR, (4, b"\x04\0")], "an empty list ends it"
    box.box.registered = True
    assert box.ask(STATE) == [NO_ERROR, PROVISIONED, (4, b"\x02\0")]


def test_credentials_are_tried_kept_when_the_box_registers_and_never_echoed(box):
    said = box.raw(packet(EXAMPLE))
    assert packets(said) == [NO_ERROR, PROVISIONING]
    assert b"mysecurepassword" not in said
    assert not any("mysecurepassword" in line for line in box.console.ring)
    config, secrets = staged(box)
    assert config["uplinks"][1]["networks"] == [{"ssid": "MyWirelessAP"}, {"ssid": "Old Place"}]
    assert config["uplinks"][0] == CONFIG["uplinks"][0]
    assert secrets["wifi"] == [
        {"ssid": "Old Place", "password": "old-word"},
        {"ssid": "MyWirelessAP", "password": "mysecurepassword"},
    ]
    assert secrets["mobile_home"][0]["key"] == KEY
    assert box.box.restarts == 1
    box.next_box(registered=True)
    box.turn(1000)
    assert packets(box.door.said) == [PROVISIONED, (4, b"\x01\0")]
    assert json.loads(box.config.read_text())["uplinks"][1]["networks"][0]["ssid"] == "MyWirelessAP"
    assert box.secrets.stat().st_mode & 0o777 == 0o600


def test_credentials_that_do_not_work_are_taken_back(box):
    before = pair(box.config.parent)
    box.ask(EXAMPLE)
    box.next_box()
    box.improv_in(True)
    assert box.ask(STATE) == [NO_ERROR, PROVISIONING]
    assert box.ask(EXAMPLE)[-1] == (2, b"\xff"), "not while one is on trial"
    box.turn(consoles.TRIAL_MS)
    assert packets(box.door.said) == [(2, b"\3"), READY]
    assert pair(box.config.parent) == before
    box.door.said.clear()
    assert box.ask(STATE) == [NO_ERROR, READY]


def test_an_open_network_and_a_changed_password(box):
    box.ask(b"\x01\x07\x05Plaza\x00")
    config, secrets = staged(box)
    assert config["uplinks"][1]["networks"][0] == {"ssid": "Plaza", "open": True}
    assert [row["ssid"] for row in secrets["wifi"]] == ["Old Place"]
    box.console.revert("test")
    box.ask(b"\x01\x14\x09Old Place\x09new-words")
    _, secrets = staged(box)
    assert secrets["wifi"] == [{"ssid": "Old Place", "password": "new-words"}]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x01\x07\x05Plaza\x05", 1),
        (b"\x01\x02\x09Z", 1),
        (b"\x01\x00", 1),
        (b"\x01\x06\x03\xff\xfe\xfd\x01x", 1),
        (b"\x01\x05", 1),
        (b"\x01", 1),
        (b"\x63\x00", 2),
        (b"\x05\x00", 2),
        (b"\x01\x0b\x05Plaza\x04abcd", 255),
        (b"\x01\x02\x00\x00", 255),
    ],
)
def test_what_cannot_be_is_an_error_and_changes_nothing(box, data, code):
    before = pair(box.config.parent)
    assert box.ask(data)[-1] == (2, bytes([code]))
    assert pair(box.config.parent) == before and not box.console.staging.pending()
    assert box.box.restarts == 0 and box.console.trial_until is None


def test_a_damaged_packet_is_invalid_and_the_next_one_is_read(box):
    damaged = bytearray(packet(EXAMPLE))
    damaged[14] ^= 1
    assert packets(box.raw(bytes(damaged))) == [(2, b"\1")]
    assert packets(box.raw(packet(STATE, kind=1))) == [(2, b"\1")]
    assert box.ask(STATE) == [NO_ERROR, READY]


def test_half_a_packet_is_forgotten_and_lines_go_on(box):
    half = packet(EXAMPLE)[:20]
    assert box.raw(half).strip(b"\r\n") == b"IMPROV"
    box.turn(2000)
    assert box.line("help")[-1] == "error: locked; first: login"
    said = box.raw(b"IMPROVED\r")
    assert b"locked" in said and not packets(said)


def test_without_improv_in_the_configuration_only_who_is_logged_in_may(tmp_path, monkeypatch):
    box = Box(tmp_path, monkeypatch, improv=False)
    for data in (STATE, INFO, SCAN, EXAMPLE):
        said = box.raw(packet(data))
        assert packets(said) == [NO_ERROR, (2, b"\xff")]
        assert b"error: locked; first: login" in said and b"office-a" not in said
    assert not box.console.staging.pending()
    box.type("login\r")
    assert "ok" in box.type(PASSWORD + "\r")
    assert box.ask(EXAMPLE) == [NO_ERROR, PROVISIONING]


def test_a_password_prompt_takes_no_packet(box):
    box.type("login\r")
    assert not packets(box.raw(packet(STATE) + b"\r"))


def test_a_box_without_wifi_says_so_in_its_log(tmp_path, monkeypatch):
    box = Box(tmp_path, monkeypatch, wifi=False)
    assert box.ask(EXAMPLE)[-1] == (2, b"\xff")
    assert "no uplink has driver wifi" in box.console.ring[-1]
