"""The machine of a board: what it refuses, which pins it takes, what it tells of its uplinks."""

import json
import select
import socket
import sys
import types

import pytest

from haaro.dataplane.pools import make_pools
from haaro.platform import board, chosen, lwip, lwip_sockets
from haaro.uplink import base
from tests.mcu.plane_rig import CARE_OF, HOME, NETWORK, Lan, Poll
from tests.mcu_sim import radio

GUEST = {"ssid": "Guest", "bssid": None, "open": True}
WIFI = {"name": "wlan", "driver": "wifi", "networks": [GUEST], "address": None, "gateway": None,
        "roam_dbm": -75, "country": ""}  # fmt: skip
ETHERNET = {"name": "wire", "driver": "ethernet", "chip": "w5500", "phy_address": 0,
            "address": None, "gateway": None}  # fmt: skip
CELLULAR = {"name": "lte", "driver": "cellular", "interface": "modem0", "port": "UART2",
            "baud": 460800, "apn": "", "user": "", "profile": "ec25", "roaming": False,
            "mux": True, "data": "ppp", "data_cap_mb": 0, "power_key": "KEY",
            "reset": None}  # fmt: skip
SETTINGS = types.SimpleNamespace(home_address=HOME, networks=[(NETWORK, 24)], encapsulation="udp")
PINS = """W5500_CS,GPIO5
W5500_SCK,GPIO18
W5500_MISO,GPIO19
W5500_MOSI,GPIO23
UPLINK_CS,GPIO15
UPLINK_SCK,GPIO14
UPLINK_MISO,GPIO12
UPLINK_MOSI,GPIO13
UPLINK_INT,GPIO4
UPLINK_RST,GPIO2
"""


def options(*uplinks, **more):
    return {"uplinks": list(uplinks), "secrets": "router.secrets.json", "internet": "ha", **more}


class Link:
    """A driver whose state the test sets."""

    interface = "st1"
    mtu = 1500

    def __init__(self):
        self.state = base.DOWN
        self.address, self.gateway = CARE_OF, bytes([198, 51, 100, 1])
        self.began = []
        self.due = 100

    def start(self, now):
        self.began.append(now)

    def stop(self, now):
        self.state = base.DOWN

    def handle_timer(self, now):
        pass

    def next_deadline(self):
        return self.due

    def status(self):
        return {"state": self.state}


class FakeBoard:
    def __init__(self):
        self.links = [Link(), Link()]
        self.port = Lan()
        self.port.warnings = ["LAN port: link up"]
        self.port.tick = lambda now: None
        self.port.next_deadline = lambda: 70
        self.port.status = lambda: {"link": True}

    def uplink(self, uplink, secrets, wifi_too):
        return self.links[0 if uplink["driver"] == "wifi" else 1]

    def lan(self, lan, now, random):
        return self.port


@pytest.fixture
def machine(monkeypatch):
    """A machine with Wi-Fi and Ethernet, its sockets told by the test when to fail."""
    made = FakeBoard()
    monkeypatch.setattr(lwip_sockets, "CAN_BIND", True)
    built = lwip.LwipMachine(
        SETTINGS, options(WIFI, ETHERNET, lan={"address": None}), make_pools(True), made
    )
    opened = []

    def open_uplink(*words):
        if built.refuse_sockets:
            raise OSError(23)
        opened.append(words)

    built.refuse_sockets = False
    monkeypatch.setattr(built.plane, "open_uplink", open_uplink)
    built.opened = opened
    built.start(Poll())
    return built


def changes(machine):
    found = []
    change = machine.next_uplink_change()
    while change:
        found.append(change)
        change = machine.next_uplink_change()
    return found


def test_links_begin_with_the_first_tick_and_are_told_as_down_before(machine):
    assert machine.soonest(5000) == 0
    assert machine.tick(10) is True
    assert [link.began for link in machine.links] == [[10], [10]]
    assert [change[:2] for change in changes(machine)] == [(0, False), (1, False)]
    assert machine.soonest(5000) == 70, "the LAN port is due first"
    assert machine.warnings == ["LAN port: link up"]


def test_a_link_that_comes_up_has_its_socket_before_the_core_hears_of_it(machine):
    machine.tick(10)
    changes(machine)
    machine.links[0].state = base.UP
    assert machine.tick(20) is True
    assert changes(machine) == [(0, True, CARE_OF, machine.links[0].gateway, 1500)]
    assert machine.opened == [(0, "st1", CARE_OF, 1500)]
    assert machine.tick(30) is False, "told once"


def test_another_address_ends_one_link_and_begins_another(machine):
    machine.tick(10)
    machine.links[0].state = base.UP
    machine.tick(20)
    changes(machine)
    machine.links[0].address = bytes([198, 51, 100, 99])
    machine.tick(30)
    assert [(up, address) for _, up, address, _, _ in changes(machine)] == [
        (False, None), (True, bytes([198, 51, 100, 99])),
    ]  # fmt: skip


def test_a_socket_that_cannot_be_had_is_asked_for_again(machine):
    machine.refuse_sockets = True
    machine.tick(10)
    machine.links[0].state = base.UP
    machine.tick(20)
    assert not any(change[1] for change in changes(machine))
    assert "no socket" in machine.warnings[-1]
    machine.refuse_sockets = False
    machine.check()
    assert [change[:2] for change in changes(machine)] == [(0, True)]


def test_the_status_says_what_the_port_lacks_and_what_sockets_are_bound_to(machine):
    machine.links[1].interface = None
    answer = {"uplinks": [{"index": 0}, {"index": 1}]}
    machine.describe(answer)
    bound = [uplink["link"]["bound_to"] for uplink in answer["uplinks"]]
    assert bound == ["st1", "the default route only"]
    assert answer["lan"] == {"link": True} and "the path's MTU" in answer["port"]["lacks"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"internet": "local"}, 'internet: "local": a board has no NAT'),
        ({"dataplane": "kernel"}, 'dataplane: "kernel": a board has no eBPF'),
        ({"fast_lan": ["eth0"]}, "fast_lan: a board has no such interfaces"),
        ({"uplinks": [{"driver": "linux_netdev"}]}, "uplinks[0].driver: linux_netdev"),
        ({"uplinks": 2 * [{"driver": "cellular"}]}, "2 modems: a board has pins for one"),
    ],
)
def test_what_a_board_cannot_do_is_refused_with_the_remedy(change, words):
    with pytest.raises(ValueError, match="board") as refused:
        lwip.LwipMachine(SETTINGS, {**options(WIFI), **change}, make_pools(True), FakeBoard())
    assert words in str(refused.value)


def test_an_encapsulation_that_needs_raw_sockets_is_refused_with_the_remedy():
    """A board's plane has plain UDP sockets."""
    settings = types.SimpleNamespace(**{**vars(SETTINGS), "encapsulation": "gre"})
    with pytest.raises(ValueError, match='"gre": a board has UDP sockets only; use "udp"'):
        lwip.LwipMachine(settings, options(WIFI), make_pools(True), FakeBoard())


def test_two_uplinks_need_a_port_that_can_bind_a_socket_to_one(monkeypatch):
    monkeypatch.setattr(lwip_sockets, "CAN_BIND", False)
    with pytest.raises(ValueError, match="default route only; configure one uplink"):
        lwip.LwipMachine(SETTINGS, options(WIFI, ETHERNET), make_pools(True), FakeBoard())


class ModemLink(Link):
    interface = "modem0"
    reason = "dialling"

    def __init__(self):
        super().__init__()
        self.event = object()

    def handle(self, now):
        self.state = base.UP


def test_a_modem_beside_wifi_on_a_port_that_cannot_bind_is_no_second_stack(monkeypatch):
    monkeypatch.setattr(lwip_sockets, "CAN_BIND", False)
    made = FakeBoard()
    made.links[1] = modem = ModemLink()
    machine = lwip.LwipMachine(SETTINGS, options(WIFI, CELLULAR), make_pools(True), made)
    opened = []
    monkeypatch.setattr(machine.plane, "open_uplink", lambda *words: opened.append(words))
    poll = Poll()
    machine.start(poll)
    assert modem.event in poll.watched and machine.modems == {1: modem}
    machine.tick(10)
    changes(machine)
    assert machine.uplink_event(object(), 20) is False
    assert machine.uplink_event(modem.event, 20) is True
    assert changes(machine) == [(1, True, CARE_OF, modem.gateway, 1500)]
    assert opened == [(1, "modem0", CARE_OF, 1500)]
    answer = {"uplinks": [{"index": 1}]}
    machine.describe(answer)
    assert answer["uplinks"][0]["link"]["bound_to"] == "modem0"


# --- pins


class Hardware:
    """The module `machine`: notes which pins and buses are made."""

    def __init__(self):
        self.buses = []
        hardware = self

        class Pin:
            IN, OUT = 0, 1

            def __init__(self, number, mode=0):
                self.number, self.mode = number, mode

        def spi(ident, **words):
            hardware.buses.append((ident, words["sck"].number, words["miso"].number))
            return "bus"

        class Uart:
            RTS, CTS = 1, 2

            def __init__(self, ident, **words):
                if ident > 2:
                    raise ValueError(f"UART({ident}) does not exist")
                hardware.buses.append((ident, words))

        self.Pin, self.SPI, self.UART = Pin, spi, Uart

    @staticmethod
    def unique_id():
        return b"\x10\x20\x30\x40\x50\x60"


@pytest.fixture
def hardware(monkeypatch, tmp_path):
    """Return a function that makes the board of a port with this pins.csv."""

    def make(port="esp32", pins=PINS, version=(1, 28, 0)):
        world = radio.World(lambda: 0, port)
        parts = Hardware()
        network = types.SimpleNamespace(**radio.fill({}, world))
        monkeypatch.setitem(sys.modules, "machine", parts)
        monkeypatch.setitem(sys.modules, "network", network)
        system = types.SimpleNamespace(
            platform=port, implementation=types.SimpleNamespace(version=version)
        )
        monkeypatch.setattr(board, "sys", system)
        path = tmp_path / "pins.csv"
        path.write_text(pins)
        return board.Board(str(path)), parts, world

    return make


def test_ethernet_on_esp32_is_made_of_the_boards_pins(hardware):
    made, parts, world = hardware()
    link = made.uplink(ETHERNET, "", False)
    ((_, arguments, words),) = [call for call in world.calls if call[0] == "LAN"]
    assert arguments == (0,) and words["phy_type"] == 102 and words["phy_addr"] == 0
    assert (words["cs"].number, words["int"].number, words["reset"].number) == (15, 4, 2)
    assert parts.buses == [(2, 14, 12)]
    assert link.interface is None
    link.start(0)
    assert link.interface == "eth0"


@pytest.mark.parametrize(
    ("version", "wifi_too", "doubted"),
    [((1, 28, 0), True, True), ((1, 29, 0), True, False), ((1, 28, 0), False, False)],
)
def test_ethernet_is_doubted_only_where_wifi_can_lie_for_it(hardware, version, wifi_too, doubted):
    made, _, world = hardware(version=version)
    world.cable = {"address": "198.51.100.7", "mask": "255.255.255.0", "gateway": "198.51.100.1"}
    link = made.uplink(ETHERNET, "", wifi_too)
    link.start(0)
    for now in range(0, 3000, 250):
        link.handle_timer(now)
        if link.state == base.UP:
            made.network.LAN().lie = 2
    assert (link.state == base.UP) is doubted


def test_ethernet_on_rp2_takes_the_bus_that_its_pins_have(hardware):
    made, parts, world = hardware("rp2")
    made.uplink(ETHERNET, "", False)
    assert parts.buses == [(1, 14, 12)], "pins 8 to 15 are SPI1's"
    assert [call[0] for call in world.calls] == ["WIZNET5K"]
    made, parts, world = hardware("rp2", "W5500_CS,GPIO17\n")
    made.uplink(ETHERNET, "", False)
    assert parts.buses == [] and world.calls[-1] == ("WIZNET5K", ()), "the firmware knows its pins"


@pytest.mark.parametrize(
    ("pins", "words"),
    [
        ("", "UPLINK_SCK: missing, add a line such as UPLINK_SCK,GPIO10"),
        ("UPLINK_SCK,GPIOx\n", "must be like W5500_CS,GPIO10"),
    ],
)
def test_a_pin_that_is_missing_or_wrong_is_named(hardware, pins, words):
    with pytest.raises(ValueError, match=words):
        hardware(pins=pins)[0].uplink(ETHERNET, "", False)


def test_a_chip_that_the_firmware_does_not_know_is_named(hardware):
    made, _, _ = hardware()
    del made.network.PHY_W5500
    with pytest.raises(ValueError, match="chip: w5500: this firmware has no driver"):
        made.uplink(ETHERNET, "", False)


def test_a_phy_on_rp2_is_refused_since_its_ports_know_w5500_only(hardware):
    made, _, world = hardware("rp2")
    with pytest.raises(ValueError, match='chip: lan8720: this firmware has "w5500" only'):
        made.uplink({**ETHERNET, "chip": "lan8720"}, "", False)
    assert not world.calls


def test_the_lan_ports_mac_is_local_unicast_and_the_boards_own(hardware):
    mac = hardware()[0].mac()
    assert len(mac) == 6 and mac[0] & 3 == 2 and mac[2:] == b"\x30\x40\x50\x60"


@pytest.mark.parametrize(("port", "can"), [("esp32", True), ("rp2", False)])
def test_scanning_goes_on_beside_the_router_on_esp32_only(hardware, port, can):
    made, _, _ = hardware(port)
    scan = board._scanner(made.network)
    assert (scan is not None) is can
    if scan:
        rows = scan()
        while rows() is None:
            pass
        assert rows() == []


def test_a_board_is_told_by_its_buses(monkeypatch):
    monkeypatch.setitem(sys.modules, "machine", types.SimpleNamespace(idle=None))
    assert chosen.is_board() is False, "the unix port"
    monkeypatch.setitem(sys.modules, "machine", Hardware())
    assert chosen.is_board() is True


# --- real sockets, with tuples for addresses as lwIP has them


def test_signalling_and_data_share_a_socket_at_port_434(monkeypatch):
    monkeypatch.setattr(lwip_sockets, "_PORT", 0)
    sockets = lwip_sockets.LwipSockets()
    here = bytes([127, 0, 0, 1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        port = far.getsockname()[1]
        opened = sockets.open(None, here)
        assert sockets.send((None, here), here, port, b"hello")
        sockets.view = memoryview(b"..a packet..")
        tunnel = sockets.tunnel(None, here, here, port)
        assert tunnel.write(b"", 2, 8) == 8
        far.settimeout(10)
        data, source = far.recvfrom(100)
        assert data == b"hello"
        assert far.recvfrom(100) == (b"a packet", source), "from the same port"
        with pytest.raises(OSError):
            opened.recvfrom(100)
        far.sendto(b"back", source)
        select.select([opened], [], [], 10)
        assert opened.recvfrom(100)[0] == b"back"
        sockets.close((None, here))
        assert sockets.send((None, here), here, port, b"hello") is False
        assert sockets.send_errors == 1


MODEM_PINS = "MODEM_TX,GPIO17\nMODEM_RX,GPIO18\nKEY,GPIO25\n"


@pytest.fixture
def secrets_file(tmp_path):
    """A secrets file without a modem."""
    path = tmp_path / "router.secrets.json"
    key = {"spi": 256, "algorithm": "hmac-sha256", "key": "00112233445566778899aabbccddeeff"}
    path.write_text(json.dumps({"version": 1, "mobile_home": [key]}))
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("flow", ["", "MODEM_RTS,GPIO4\nMODEM_CTS,GPIO5\n"], ids=["3", "5 wires"])
def test_a_modems_uart_is_made_of_the_boards_pins(hardware, secrets_file, flow):
    made, parts, _ = hardware(pins=MODEM_PINS + flow)
    link = made.uplink(CELLULAR, secrets_file, False)
    ((ident, words),) = parts.buses
    assert (ident, words["baudrate"], words["tx"].number, words["rx"].number) == (2, 460800, 17, 18)
    assert words["timeout"] == 0 and words["rxbuf"] > 256, "the ports' own is lost in 6 ms"
    assert words.get("flow") == (3 if flow else None)
    assert link.interface == "modem0" and link.state == base.DOWN


@pytest.mark.parametrize(
    ("pins", "change", "words"),
    [
        (MODEM_PINS, {"port": "/dev/ttyUSB2"}, 'a board has UARTs, such as "uart1"'),
        (MODEM_PINS, {"port": "uart7"}, "port: uart7: UART.7. does not exist"),
        ("KEY,GPIO25\n", {}, "MODEM_TX: missing, add a line such as MODEM_TX,GPIO10"),
        (MODEM_PINS, {"reset": "OTHER"}, "OTHER: missing"),
    ],
)
def test_a_modem_that_cannot_be_had_is_refused_by_name(hardware, secrets_file, pins, change, words):
    made, _, _ = hardware(pins=pins)
    with pytest.raises(ValueError, match=words):
        made.uplink({**CELLULAR, **change}, secrets_file, False)
