"""The console's grammar and commands, without a line, a clock or a router."""

import json
import re

import pytest

from haaro.core.router import Router
from haaro.core.settings import Settings
from haaro.shell import console as consoles
from haaro.shell import console_commands
from haaro.wire import ipv4
from tests.console.helpers import CONFIG, KEY, Desk, octets, pair, secrets_document


@pytest.fixture
def desk(tmp_path, monkeypatch):
    return Desk(tmp_path, monkeypatch)


@pytest.fixture
def blank(tmp_path, monkeypatch):
    return Desk(tmp_path, monkeypatch, provisioned=False)


def a_router():
    settings = Settings()
    settings.name = "office-a"
    settings.home_address = ipv4.address("192.0.2.129")
    settings.home_agent = ipv4.address("192.0.2.1")
    settings.networks = [(ipv4.address("10.1.0.0"), 24)]
    settings.key = bytes.fromhex(KEY)
    settings.uplinks = [{"name": "wan"}]
    router = Router(settings, lambda n: bytes(n), 0, 0)
    router.uplink_changed(0, 0, True, ipv4.address("198.51.100.1"), ipv4.address("198.51.100.254"))
    return settings, router


@pytest.fixture
def running(desk):
    desk.box.settings, desk.box.router = a_router()
    return desk


# --- the line ------------------------------------------------------------------------------------


def test_every_answer_ends_with_ok_or_error(running):
    for command in console_commands._COMMANDS:
        if command not in ("reboot", "trace", "ping"):
            assert re.fullmatch("ok|error: .+", running.line(command)[-1]), command


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_cr_lf_and_both_end_one_line(desk, end):
    said = desk.type("help" + end + "help" + end)
    assert said.count("\r\nok\r\n") == 1  # the second came while the first was being answered
    assert desk.type("help" + end).count("\r\nok\r\n") == 1


def test_an_empty_line_is_no_command(desk):
    assert desk.type("\r\r\n\n") == "\r\n\r\n\r\n"


def test_typing_is_echoed_and_can_be_taken_back(desk):
    assert desk.type("hexlp\x08\x7f\x08lp") == "hexlp\x08 \x08\x08 \x08\x08 \x08lp"
    assert desk.line("")[-1] == "ok"
    assert desk.type("rubbish\x15help\r").endswith("ok\r\n")


def test_a_line_is_bounded_and_says_so(desk):
    assert desk.line("help" + " " * 246)[-1] == "ok"
    assert desk.line("help" + " " * 247) == ["error: a line has at most 250 octets"]
    assert desk.line("help")[-1] == "ok"


@pytest.mark.parametrize(
    "text", ["\xff\xfe", "ca" * 32, "sudo reboot", "x" * 200, ":7 AAAA 0", "\x00help"]
)
def test_what_is_no_command_is_refused_without_being_repeated(desk, text):
    answer = desk.type(text.encode("latin-1") + b"\r")
    if "ok" not in answer:
        error = answer.split("error: ")[1]
        assert text not in error and len(error) < 80


def test_control_characters_do_nothing(desk):
    every = bytes(set(range(32)) - {3, 8, 10, 13, 21})
    assert desk.type(every) == ""
    assert desk.line("help")[-1] == "ok"


def test_nothing_is_said_beyond_what_the_line_takes_and_nothing_is_lost(desk):
    desk.door.capacity = 10
    text = desk.type("help\r")
    assert desk.door.watched_output
    for _ in range(500):
        desk.door.capacity = 7
        desk.console.handle(desk.door, 0)
        text += desk.said()
        if text.endswith("ok\r\n"):
            break
    assert [line in text for line in console_commands._HELP] == [True] * len(console_commands._HELP)
    assert not desk.door.watched_output


def test_ctrl_c_ends_a_long_answer(desk):
    desk.door.capacity = 0
    desk.type("help\r")
    desk.door.capacity = None
    desk.door.typed += b"\x03"
    desk.console.handle(desk.door, 0)
    assert desk.said().endswith("error: interrupted\r\n")
    assert desk.line("help")[-1] == "ok"


def test_one_turn_takes_few_octets_so_that_the_router_goes_on(desk):
    desk.door.typed += b"x" * 1000
    desk.console.handle(desk.door, 0)
    assert len(desk.door.typed) == 1000 - 64


def test_a_lost_line_ends_the_session_and_is_opened_again(desk):
    desk.type("he")
    desk.door.gone = True
    desk.type("")
    assert desk.doors[0].closed
    desk.turn(1000)
    assert len(desk.doors) == 2
    assert desk.line("help")[-1] == "ok"


# --- commands ------------------------------------------------------------------------------------


def test_status_tells_what_a_host_tool_checks(running):
    found = dict(line.split(": ", 1) for line in running.line("status")[:-1])
    assert (found["name"], found["state"]) == ("office-a", "not registered")
    assert found["pending"] == "none" and found["profile"] == "bench"
    assert re.fullmatch("[0-9a-f]{8}", found["router.secrets.json"])
    assert found["unique_id"] == console_commands.unique_id()
    assert len(found["not locked"]) > 10, "what stock firmware cannot lock is said"


def test_status_json_is_what_the_local_socket_says(running):
    assert json.loads("".join(running.line("status json")[:-1])) == {"asked": "status"}


def test_a_blank_box_says_that_it_is_one(blank):
    assert blank.line("status")[0] == "state: not provisioned"
    for command in ("show peers", "ping 10.1.0.1"):
        assert blank.line(command) == ["error: not provisioned"]
    assert blank.line("set")[-1] == "error: not provisioned: there is nothing to change"


def test_show_has_uplinks_peers_routes_counters_and_log(running):
    assert running.line("show uplinks")[0].startswith("wan up 198.51.100.1; ")
    assert running.line("show routes")[0] == "10.1.0.0/24 lan"
    assert running.line("show peers") == ["ok"]
    running.box.router.receive_datagram(0, 0, b"\1" * 4, 434, b"\2" * 4, 434, b"")
    running.box.plane = Plane()
    counted = running.line("show counters")
    assert "not_our_care_of_address 1" in counted and "lan_spoofed 3" in counted
    running.console.log("warning", "a cable is out")
    assert running.line("show log")[-2].endswith("warning: a cable is out")
    assert running.line("show")[0].startswith("error: show what?")
    assert running.line("show keys")[0].startswith("error: show what?")


def test_the_log_is_bounded_and_keeps_the_newest(desk):
    for number in range(1000):
        desk.console.log("info", f"line {number} " + "x" * 300)
    lines = desk.line("show log")[:-1]
    assert len(lines) == 48 and " line 999 " in lines[-1]
    assert max(len(line) for line in lines) <= 120


def test_set_without_a_value_shows_and_with_one_stages(desk):
    assert desk.line("set name") == ['name: "office-a"', "ok"]
    assert desk.line("set uplinks.0.interface") == ['uplinks.0.interface: "eth0"', "ok"]
    assert desk.line("set keepalive.ha_s") == ["error: keepalive.ha_s: is not set"]
    before = pair(desk.config.parent)
    assert desk.line("set keepalive.ha_s 20")[-1] == "ok"
    assert desk.line("set uplinks.0.interface eth1")[-1] == "ok"
    assert desk.line("set keepalive.ha_s") == ["keepalive.ha_s: 20", "ok"]
    assert pair(desk.config.parent) == before, "the file in use is not touched"
    assert "pending: router.json" in desk.line("status")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("set lifetime 5", "whole number from 30 to 65534"),
        ("set no_such_key 1", "unknown key"),
        ("set home_agent 999.1.1.1", "must be an IPv4"),
        ("set uplinks.7.name x", "is not set"),
        ("set name.first x", "is not set"),
    ],
)
def test_a_value_that_the_loader_refuses_is_not_staged(desk, command, reason):
    assert desk.line("set log warning")[-1] == "ok"
    assert reason in desk.line(command)[-1]
    assert desk.line("set log") == ['log: "warning"', "ok"], "what was staged before is still"
    assert desk.line("revert") == ["dropped", "ok"]
    assert desk.line("set log")[-1] == "error: log: is not set"


def test_trace_follows_the_log_and_names_messages_without_their_content(running):
    running.console.log("info", "before")
    assert running.line("trace")[0] == "trace: off, 0 lines lost"
    running.line("trace on")
    running.console.log("info", "after")
    running.console.trace("from", "192.0.2.1", 434, b"\x03" + bytes.fromhex(KEY))
    running.box.router.handle_timer(5000)
    transmit = running.box.router.poll_transmit()
    running.console.trace_out(transmit)
    running.turn()
    said = running.said()
    assert "before" not in said and "* 0.000 info: after" in said
    assert "* from 192.0.2.1:434 type 3, 33 octets" in said
    assert "* to 192.0.2.1:434 type 1, " in said
    assert KEY[:16] not in said
    running.line("trace off")
    running.console.log("info", "no more")
    assert running.said() == ""


def test_a_trace_that_nobody_reads_does_not_grow(running):
    running.line("trace on")
    running.door.capacity = 0
    for _ in range(500):
        running.console.log("info", "y" * 90)
    assert len(running.console._out) < 1024 + 256
    assert running.console.lost_lines > 400


def test_reset_without_a_level_changes_nothing(desk):
    before = pair(desk.config.parent)
    for command in ("reset", "reset everything", "reset keys now"):
        assert desk.line(command)[0].startswith("error: reset what?")
    assert pair(desk.config.parent) == before and desk.box.restarts == 0


@pytest.mark.parametrize(
    ("level", "left"), [("config", [1]), ("keys", [0]), ("all", [])], ids=["config", "keys", "all"]
)
def test_reset_wipes_what_it_says_and_restarts(desk, level, left):
    before = pair(desk.config.parent)
    assert desk.line(f"reset {level}")[-1] == "ok"
    after = pair(desk.config.parent)
    assert [i for i in (0, 1) if after[i] is not None] == left
    assert all(after[i] == before[i] for i in left)
    assert desk.box.restarts == 1
    assert {path.name for path in desk.config.parent.iterdir()} <= {
        "router.json", "router.secrets.json"
    }  # fmt: skip


def test_reboot_restarts(desk):
    assert desk.line("reboot") == ["going down", "ok"]
    assert desk.box.restarts == 1


# --- ping ----------------------------------------------------------------------------------------


class Plane:
    def __init__(self):
        self.sent = []

    def send(self, tunnel, packet):
        self.sent.append((tunnel, packet))

    def counters(self):
        return {"lan_spoofed": 3}


class Routes:
    def forwarding_table(self):
        return [(b"\0\0\0\0", 0, 0, -1), (ipv4.address("10.3.0.0"), 24, 2, -1)], []


def pinging(desk, target):
    desk.box.settings = Settings()
    desk.box.settings.home_address = ipv4.address("192.0.2.129")
    desk.box.router, desk.box.plane = Routes(), Plane()
    return desk.type(f"ping {target}\r")


def answer_to(packet):
    ip = ipv4.parse_ipv4(packet)
    _, ident, seq, payload = ipv4.parse_icmp_echo(packet, ip)
    return ipv4.build_icmp_echo(ip.dst, ip.src, True, ident, seq, payload)


def test_ping_goes_by_the_tunnel_of_the_longest_match_and_tells_the_time(desk):
    assert "ping: 10.3.0.10 by the direct tunnel" in pinging(desk, "10.3.0.10")
    for number in range(4):
        desk.turn(0 if number == 0 else 960)
        tunnel, packet = desk.box.plane.sent[-1]
        assert tunnel == 2 and len(desk.box.plane.sent) == number + 1
        desk.clock.ms += 40
        assert desk.console.ping.take(desk.clock.ms, answer_to(packet))
    desk.turn(1000)
    said = desk.said()
    assert said.count("10.3.0.10: 40 ms") == 4
    assert said.endswith("4 of 4 answered\r\nok\r\n")
    assert desk.console.ping is None


def test_ping_without_an_answer_is_an_error(desk):
    assert "by the home agent's tunnel" in pinging(desk, "203.0.113.9")
    for _ in range(6):
        desk.turn(1000)
    assert desk.said().endswith("error: 0 of 4 answered\r\n")


def test_ping_leaves_other_packets_to_the_router(desk):
    pinging(desk, "10.3.0.10")
    desk.turn()
    packet = desk.box.plane.sent[-1][1]
    source, target = ipv4.address("10.3.0.10"), ipv4.address("192.0.2.129")
    for other in (
        b"",
        packet,
        ipv4.build_icmp_echo(source, target, True, 7, 0, b"haaro"),
        ipv4.build_icmp_echo(source, target, True, 0x6B63, 9, b"haaro"),
        ipv4.build_icmp_echo(ipv4.address("10.3.0.11"), target, True, 0x6B63, 0, b"haaro"),
        ipv4.build_udp(source, target, 434, 434, b"\x01"),
    ):
        assert not desk.console.ping.take(0, other)


class Echo:
    """A socket for ICMP; answers are put into `waiting`."""

    def __init__(self):
        self.sent, self.waiting, self.open = [], [], True

    def sendto(self, octets, address):
        self.sent.append((octets, address))

    def recv(self, limit):
        if not self.waiting:
            raise BlockingIOError
        return self.waiting.pop(0)[:limit]

    def close(self):
        self.open = False


class Machine:
    def __init__(self):
        self.asked = []
        self.socket = Echo()

    def echo(self, index, local, remote):
        self.asked.append((index, local))
        return self.socket, ("there", remote)


class Watched:
    def __init__(self):
        self.sockets = []

    def register(self, socket, events):
        self.sockets.append(socket)

    def unregister(self, socket):
        self.sockets.remove(socket)


@pytest.fixture
def leaving(running):
    """A router whose uplink `wan` is up at 198.51.100.1; its sockets are fakes."""
    running.box.machine, running.box.poll = Machine(), Watched()
    return running


def test_ping_via_an_uplink_leaves_by_it_from_its_own_address(leaving):
    target, own = ipv4.address("203.0.113.9"), ipv4.address("198.51.100.1")
    said = leaving.type("ping 203.0.113.9 via wan\r")
    assert "ping: 203.0.113.9 by uplink wan, in the clear" in said
    machine, echo = leaving.box.machine, leaving.box.machine.socket
    assert machine.asked == [(0, own)] and leaving.box.poll.sockets == [echo]
    for number in range(4):
        leaving.turn(0 if number == 0 else 960)
        octets, address = echo.sent[-1]
        assert len(echo.sent) == number + 1 and address == ("there", target)
        assert octets[0] == 8, "ICMP alone: the kernel puts IP in front"
        leaving.clock.ms += 40
        packet = ipv4.build_icmp_echo(target, own, True, 0x6B63, number, b"haaro")
        # Everything at this uplink that is ICMP comes here, other echoes too.
        echo.waiting += [b"", ipv4.build_icmp_echo(target, own, True, 7, number, b"x"), packet]
        assert leaving.console.handle(echo, leaving.clock.ms)
        assert not leaving.console.ping.take(leaving.clock.ms, packet), "not by a tunnel"
    leaving.turn(1000)
    said = leaving.said()
    assert said.count("203.0.113.9: 40 ms") == 4 and said.endswith("4 of 4 answered\r\nok\r\n")
    assert not echo.open and leaving.box.poll.sockets == []


def test_ping_via_an_uplink_that_cannot_be_used_is_refused(leaving):
    assert leaving.line("ping 203.0.113.9 via lte")[-1] == "error: no such uplink; uplinks: wan"
    assert leaving.line("ping 203.0.113.9 by wan")[-1].startswith("error: ping ADDRESS via")
    leaving.box.machine = object()
    assert leaving.line("ping 203.0.113.9 via wan")[-1].startswith("error: this platform cannot")
    leaving.box.router.uplink_changed(0, 0, False, None, None, 0)
    assert leaving.line("ping 203.0.113.9 via wan")[-1] == "error: uplink wan is down"
    assert leaving.console.ping is None


def test_ctrl_c_ends_a_ping_and_a_restart_takes_its_socket(leaving):
    leaving.type("ping 203.0.113.9 via wan\r")
    assert leaving.line("ping 203.0.113.9")[-1].startswith("error: a ping is under way")
    echo = leaving.box.machine.socket
    assert leaving.type("\x03").endswith("error: interrupted\r\n")
    assert not echo.open and leaving.console.ping is None
    leaving.box.machine = Machine()
    leaving.type("ping 203.0.113.9 via wan\r")
    again, watched = leaving.box.machine.socket, leaving.box.poll
    leaving.next_box()
    assert not again.open and watched.sockets == []


@pytest.mark.parametrize("target", ["", "10.3.0", "host", "10.3.0.10 wan"])
def test_a_target_that_is_none_is_refused(desk, target):
    said = pinging(desk, target)
    assert said.endswith("ok\r\n") if not target else "error: " in said


# --- a trial -------------------------------------------------------------------------------------


def stage(desk, lifetime=120):
    new = octets({**CONFIG, "lifetime": lifetime})
    assert desk.send("router.json", new)[0].startswith("staged router.json ")
    return new


def test_apply_without_anything_staged_is_refused(desk):
    assert desk.line("apply") == ["error: nothing is staged"]
    assert desk.line("apply confirm") == ["error: nothing is on trial"]
    assert desk.line("revert") == ["error: nothing is staged or tried"]


def test_a_first_configuration_is_in_place_at_once(blank):
    config, secrets = octets(CONFIG), octets(secrets_document())
    blank.send("router.json", config)
    blank.send("router.secrets.json", secrets)
    assert blank.line("apply") == ["in place", "ok"]
    assert pair(blank.config.parent) == (config, secrets)
    assert blank.secrets.stat().st_mode & 0o777 == 0o600
    assert blank.box.restarts == 1


def test_a_new_configuration_is_kept_once_registered(desk):
    old = pair(desk.config.parent)
    new = stage(desk)
    assert desk.line("apply") == ["on trial for 90 s", "ok"]
    desk.box.registered = True
    desk.turn(1000)
    assert pair(desk.config.parent) == old, "the router before does not vouch for the new one"
    desk.next_box()
    desk.turn(60000)
    assert (
        "on trial, 29 s left"
        in dict(
            line.split(": ", 1) for line in desk.line("status")[:-1] if line[:4] == "pend"
        ).values()
    )
    assert pair(desk.config.parent) == old, "a power cut now brings the old one back"
    desk.box.registered = True
    desk.turn(1000)
    assert pair(desk.config.parent) == (new, old[1])
    assert desk.box.restarts == 0
    desk.turn(100000)
    assert pair(desk.config.parent) == (new, old[1])


def test_a_new_configuration_that_does_not_register_reverts_by_itself(desk):
    old = pair(desk.config.parent)
    stage(desk)
    desk.line("apply")
    desk.next_box()
    desk.turn(89999)
    assert desk.box.restarts == 0 and desk.console.trial_until is not None
    desk.turn(1)
    assert desk.box.restarts == 1 and desk.console.trial_until is None
    assert pair(desk.config.parent) == old
    assert desk.line("status")[-6:] and "pending: none" in desk.line("status")
    assert any("the old configuration is back" in line for line in desk.console.ring)


def test_confirmed_by_hand_it_is_kept_without_a_registration(desk):
    new = stage(desk)
    desk.line("apply")
    desk.next_box()
    assert desk.line("apply confirm") == ["kept", "ok"]
    desk.turn(200000)
    assert pair(desk.config.parent)[0] == new and desk.box.restarts == 0


def test_revert_ends_a_trial_at_once(desk):
    old = pair(desk.config.parent)
    stage(desk)
    desk.line("apply")
    desk.next_box()
    assert desk.line("revert") == ["the old configuration is back", "ok"]
    assert desk.box.restarts == 1 and pair(desk.config.parent) == old


def test_nothing_else_is_changed_while_a_trial_runs(desk):
    new = stage(desk)
    desk.line("apply")
    desk.next_box()
    assert "on trial" in desk.line("set lifetime 60")[-1]
    assert "on trial" in desk.line(f"provision router.json 3 {'00' * 32}")[-1]
    assert "on trial" in desk.line("apply")[-1]
    desk.line("apply confirm")
    assert pair(desk.config.parent)[0] == new


def test_a_trial_that_cannot_even_start_is_abandoned(desk):
    old = pair(desk.config.parent)
    stage(desk)
    desk.line("apply")
    desk.console.detach()
    desk.console.abandon("no such link")
    assert desk.console.trial_until is None and pair(desk.config.parent) == old


def test_a_configuration_that_the_loader_refuses_is_not_tried(desk):
    desk.send("router.json", octets({**CONFIG, "lifetime": 1}))
    assert "whole number" in desk.line("apply")[-1]
    assert desk.console.trial_until is None and desk.box.restarts == 0
    broken = secrets_document()
    broken["mobile_home"] = []
    desk.send("router.secrets.json", octets(broken))
    desk.send("router.json", octets({**CONFIG, "lifetime": 100}))
    assert "mobile_home" in desk.line("apply")[-1]


def test_an_answer_under_way_survives_the_restart_it_asked_for(desk):
    stage(desk)
    desk.door.capacity = 5
    desk.type("apply\r")
    desk.next_box()
    desk.door.capacity = None
    desk.turn()
    assert desk.said().endswith("on trial for 90 s\r\nok\r\n")


def test_profiles_say_whether_ctrl_c_interrupts(desk):
    assert desk.door.interrupt is True
    desk.next_box(profile=consoles.LOCKED)
    assert desk.door.interrupt is False
