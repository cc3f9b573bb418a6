"""`haaro status` of a router: what an operator reads."""

import io

from rich.console import Console

from haaro_host import router_cli
from tests.core.helpers import HOA_C, LAN_A, LAN_C, Lone


def shown(lone, lan=None, **more):
    answer = lone.router.status(lone.now)
    for uplink in answer["uplinks"]:
        uplink.update(name="wan", interface="eth0", **more)
    answer.update(
        state="up",
        warnings=[],
        notice="n",
        lan=lan,
        data_plane={"plane": "kernel", "why": "configured", "counters": {}},
    )
    out = io.StringIO()
    router_cli.show(answer, Console(file=out, width=200))
    return out.getvalue()


def test_what_keeps_a_network_from_the_direct_path_is_named():
    """R3.3.2-5"""
    text = shown(Lone().registered([(HOA_C, False, [(*LAN_A, ""), (*LAN_C, "")])]))
    assert "10.1.0.0/24 of 192.0.2.131: overlaps our own 10.1.0.0/24" in text
    assert "10.3.0.0/24 of" not in text


def test_what_a_modem_says_is_shown_and_draws_nothing():
    modem = {
        "state": "up", "why": "", "operator": "[bold]Net", "signal_dbm": -79, "roaming": True
    }  # fmt: skip
    assert "; modem up: [bold]Net, roaming, -79 dBm" in shown(Lone().registered([]), modem=modem)
    modem.update(state="failed", why="the SIM asks for its PUK", signal_dbm=None)
    assert "; modem failed: the SIM asks for its PUK" in shown(Lone().registered([]), modem=modem)


def test_what_the_port_of_a_board_says_is_one_line():
    lan = {"address": "10.1.0.1", "link": True, "vlan": 10, "neighbours": 3, "why": ""}
    lan["dhcp"] = {"leased": 2, "free": 98}
    assert (
        "LAN port 10.1.0.1: link up, VLAN 10, 3 neighbours, 2 leases, 98 addresses free\n"
        in shown(Lone().registered([]), lan)
    )
    lan = {"address": "10.1.0.1", "link": False, "vlan": None, "neighbours": 0, "why": "no link: x"}
    assert "LAN port 10.1.0.1: no link, 0 neighbours; no link: x\n" in shown(
        Lone().registered([]), lan
    )
    assert "LAN port" not in shown(Lone().registered([]))
