"""`haaro top`: what it says of each site, and how it looks on a terminal of 80 columns."""

import json
import os
import sys

import pytest

from haaro_host.lab import system
from tests.fleet.conftest import PASSPHRASE
from tests.fleet.terminal import Terminal

_PRINT = "import pathlib, sys; print(pathlib.Path({path!r}).read_text())"


@pytest.fixture
def watched(shop):
    """Three sites with keys, a home agent and routers that answer what the test writes."""
    shop.run("keys", "new")
    agent = shop.directory / "agent.json"
    (shop.directory / "ha.py").write_text(_PRINT.format(path=str(agent)))
    (shop.directory / "router.py").write_text(
        f"import sys; print(open({str(shop.directory)!r} + '/' + sys.argv[1] + '.json').read())"
    )
    shop.change(
        'ask_home_agent = ""', f'ask_home_agent = "{sys.executable} {shop.directory}/ha.py"'
    )
    shop.change(
        'ask_router = ""', f'ask_router = "{sys.executable} {shop.directory}/router.py {{site}}"'
    )
    home_agent(shop)
    return shop


def home_agent(shop, away=(), unknown=(), **changes):
    """Let the home agent answer that all sites but `away` are registered."""
    keys = shop.json("keys", "show")["sites"] if not changes.pop("no_keys", False) else {}
    routers = []
    for number, site in enumerate(shop.json("fleet", "list")["sites"]):
        if site["name"] in unknown:
            continue
        binding = {
            "care_of_address": f"198.51.100.{number + 7}",
            "nat": number == 1,
            "registered_s": 3 * 86400,
            "expires_in_s": 280,
        }
        live = [
            {"spi": key["spi"], "fingerprint": key["fingerprint"], "last_used_s": 9}
            for key in keys.get(site["name"], [])
        ]
        routers.append(
            {
                "name": site["name"],
                "home_address": site["home_address"],
                "keys": live,
                "revoked": False,
                "binding": None if site["name"] in away else binding,
            }
        )
    answer = {
        "schema": "haaro.ha.status/1",
        "uptime_s": 7200,
        "warnings": [],
        "data_plane": {"plane": "kernel", "why": "asked for"},
        "routers": routers,
        **changes,
    }
    # `keys show` asks the home agent too: it must be there before.
    (shop.directory / "agent.json").write_text(json.dumps(answer))


def router(
    shop, site, state="up", paths=("direct", "ha"), packets=((0, 25), (1, 75)), uplink="lte"
):
    answer = {
        "schema": "haaro.router.status/1",
        "state": state,
        "warnings": [],
        "uplinks": [{"name": "wan", "in_use": False}, {"name": uplink, "in_use": True}],
        "peers": [{"path": path} for path in paths],
        "data_plane": {
            "tunnels": [{"id": i, "rx_packets": n, "tx_packets": 0} for i, n in packets]
        },
    }
    (shop.directory / f"{site}.json").write_text(json.dumps(answer))


def sites(document):
    return {site["name"]: site for site in document["sites"]}


def test_all_registered_is_status_0_and_says_since_when_and_how(watched):
    router(watched, "office-a")
    document = watched.json("top", "--once")
    assert (document["schema"], document["registered"], document["in_service"]) == (
        "haaro.top/1", 3, 3,
    )  # fmt: skip
    assert document["home_agent"] == {
        "address": "192.0.2.1", "answers": True, "uptime_s": 7200, "plane": "kernel",
        "warnings": [],
    }  # fmt: skip
    a, b = sites(document)["office-a"], sites(document)["office-b"]
    assert (a["state"], a["care_of_address"], a["registered_s"]) == ("up", "198.51.100.7", 259200)
    assert (a["uplink"], a["direct"], a["peers"], a["off_home_agent_percent"]) == ("lte", 1, 2, 75)
    assert a["keys"][0]["last_used_s"] == 9 and a["warnings"] == []
    assert (b["direct"], b["off_home_agent_percent"], b["nat"]) == (None, None, True)
    said = watched.run("top", "--once")
    assert "3 of 3 registered; home agent 192.0.2.1 up 2 h" in said
    (line,) = [each for each in said.splitlines() if each.startswith("office-a")]
    assert line.split()[:3] == ["office-a", "up", "lte"]
    assert line.split()[3:8] == ["198.51.100.7", "3", "d", "1/2", "75"]
    assert line.endswith(" s"), "the key's age"


def test_what_needs_a_look_is_said_and_the_status_is_1(watched):
    home_agent(watched, away=["office-b"], unknown=["office-c"])
    router(watched, "office-a", state="degraded")
    document = watched.json("top", "--once", status=1)
    found = sites(document)
    assert found["office-b"]["state"] == found["office-c"]["state"] == "not registered"
    assert found["office-b"]["warnings"] == ["not registered, last heard 9 s ago"]
    assert found["office-c"]["warnings"] == [
        "the home agent does not know it: haaro fleet export ha"
    ]
    assert found["office-a"]["warnings"] == [
        "router: a direct path is out, its traffic goes by the home agent"
    ]
    watched.run("keys", "stage", "office-a")
    home_agent(watched, no_keys=True)
    warnings = sites(watched.json("top", "--once"))["office-a"]["warnings"]
    assert [line for line in warnings if "haaro fleet export ha" in line] == [
        "SPI 256 is not at the home agent: haaro fleet export ha",
        "SPI 257 is not at the home agent: haaro fleet export ha",
    ]


def test_a_home_agent_that_does_not_answer_is_no_reason_to_say_that_sites_are_away(watched):
    (watched.directory / "agent.json").unlink()
    document = watched.json("top", "--once", status=1)
    assert {site["state"] for site in document["sites"]} == {"unknown"}
    assert not document["home_agent"]["answers"]
    assert "fleet.ask_home_agent" in document["warnings"][0]


def test_a_revoked_site_is_not_missed_and_an_old_key_is(watched, monkeypatch):
    from haaro_host.fleet import top

    watched.run("keys", "revoke", "office-c", "--reason", "stolen", status=None)
    home_agent(watched)
    monkeypatch.setattr(top, "age_s", lambda created: 400 * 86400)
    document = watched.json("top", "--once")
    assert (document["registered"], document["in_service"]) == (2, 2)
    found = sites(document)
    assert found["office-c"]["state"] == "revoked"
    assert found["office-c"]["warnings"] == [
        "revoked here, but not at the home agent: haaro ha reload"
    ]
    assert found["office-a"]["warnings"] == ["key is 400 d old: haaro keys rotate office-a"]


def test_what_a_router_says_does_not_steer_the_terminal(watched):
    router(watched, "office-a", uplink="\x1b[2Jbad[/]")
    assert sites(watched.json("top", "--once"))["office-a"]["uplink"] == "[2Jbad[/]"
    assert "\x1b" not in watched.run("top", "--once")


def _terminal(shop, lines=24):
    environment = {
        **os.environ, "HAARO_FLEET": str(shop.file), "HAARO_PASSPHRASE": PASSPHRASE
    }  # fmt: skip
    return Terminal([*system.haaro_command(), "top", "--interval", "0.5"], environment, 80, lines)


def test_it_fits_a_terminal_of_80_columns_follows_what_happens_and_ends_on_q(watched):
    for name in ("office-a", "office-b", "office-c"):
        router(watched, name, uplink="a-long-name-here")
    window = _terminal(watched)
    try:
        seen = window.until(lambda lines: any("3 of 3 registered" in line for line in lines))
        seen = window.until(lambda lines: any("1/2" in line for line in lines))
        assert all(len(line) <= 80 for line in seen)
        assert "q ends it" in seen[-1] or "q ends it" in seen
        home_agent(watched, away=["office-c"])
        seen = window.until(lambda lines: any("2 of 3 registered" in line for line in lines))
        rows = [line.split()[0] for line in seen if line.startswith("office-")]
        assert rows == ["office-c", "office-a", "office-b"], "who is in trouble comes first"
        assert window.end() == 1
    finally:
        window.close()
    assert "\x1b[?25h" in window.written[-40:], "the cursor is back"


def test_more_sites_than_lines_are_counted(watched):
    for number in range(30):
        watched.run("fleet", "add", f"shop-{number}")
    home_agent(watched)
    window = _terminal(watched, lines=14)
    try:
        seen = window.until(lambda lines: any("q ends it" in line for line in lines))
        assert len(seen) <= 14
        (more,) = [line for line in seen if line.startswith("and ")]
        shown = [line for line in seen if line.startswith(("office-", "shop-"))]
        assert int(more.split()[1]) + len(shown) == 33
        assert window.end(b"\x03") in (0, 1)
    finally:
        window.close()
