"""Roll-outs: who is first, what counts as failed, when it stops; and the commands around them."""

import itertools
import json
import stat
import threading
import time

import pytest

from haaro_host.fleet import inventory, store
from haaro_host.lab import processes
from haaro_host.ota import key as keys
from haaro_host.ota import rollout, server
from haaro_host.ota.rollout import Box, Rollout
from tests.fleet.conftest import PASSPHRASE, Shop, quick, shop  # noqa: F401 (fixtures)
from tests.ota.conftest import PUBLIC, bundle, program

NOW = 1_800_000_000
SITES = [f"site-{i}" for i in range(1000)]


def of(**more):
    return Rollout(**{"board": "UNIX", "version": "0.2.0-r1", "digest": "d" * 64,
                      "octets": 9, "percent": 10, **more})  # fmt: skip


def test_a_greater_percentage_keeps_who_was_chosen_and_adds_others():
    chosen = [{s for s in SITES if rollout.chosen(of(percent=p), s)} for p in (0, 1, 10, 50, 100)]
    assert [len(each) for each in (chosen[0], chosen[4])] == [0, 1000]
    assert all(less < more for less, more in itertools.pairwise(chosen))
    assert 60 < len(chosen[2]) < 140 and 440 < len(chosen[3]) < 560


def test_another_bundle_begins_with_other_sites():
    one = {site for site in SITES if rollout.chosen(of(), site)}
    other = {site for site in SITES if rollout.chosen(of(digest="e" * 64), site)}
    assert len(one & other) < len(one) / 2


def test_a_site_that_is_named_is_chosen_whatever_the_percentage():
    assert rollout.chosen(of(percent=0, sites=["site-7"]), "site-7")
    assert not rollout.chosen(of(percent=0, sites=["site-7"]), "site-8")


def asked(**more):
    """A box that was offered the bundle a minute ago and has asked since."""
    return Box(**{"version": "0.1.0-r1", "board": "UNIX", "state": "running", "seen": NOW,
                  "offered": "d" * 64, "offered_attempt": 1, "offered_at": NOW - 60,
                  **more})  # fmt: skip


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (None, "waiting"),
        (Box(version="0.1.0-r1", state="running"), "waiting"),
        (asked(), "under way"),
        (asked(version="0.2.0-r1", state="trial"), "under way"),
        (asked(version="0.2.0-r1"), "done"),
        (asked(state="returned", digest="d" * 64, attempt=1), "failed"),
        (asked(state="refused", digest="d" * 64, attempt=1), "failed"),
        (asked(state="returned", digest="d" * 64, attempt=0), "under way"),
        (asked(state="returned", digest="c" * 64, attempt=1), "under way"),
        (asked(offered_attempt=0), "waiting"),
        (asked(seen=NOW - 1801, offered_at=NOW - 1900), "lost"),
        (asked(seen=NOW - 1801, offered_at=NOW - 100), "under way"),
    ],
)
def test_how_a_box_fares(box, expected):
    assert rollout.result(of(), box, NOW) == expected


@pytest.fixture
def fleet(shop):  # noqa: F811
    return inventory.load(shop.file)


def failed():
    return asked(state="returned", digest="d" * 64, attempt=1, why="crashed")


def test_it_stops_when_so_many_boxes_have_failed(fleet):
    boxes = {"office-a": failed(), "office-b": asked(version="0.2.0-r1")}
    two = of(percent=100, max_failures=2)
    assert not rollout.judge(two, boxes, fleet, NOW)
    boxes["office-c"] = asked(seen=NOW - 5000, offered_at=NOW - 5000)
    assert rollout.judge(two, boxes, fleet, NOW)
    assert (two.state, two.reason) == ("stopped", "office-a failed (crashed), office-c lost")
    assert not rollout.judge(two, boxes, fleet, NOW), "once"
    assert not any(rollout.wants(two, site, asked(), NOW) for site in fleet.sites)


def test_a_box_of_another_board_or_in_a_trial_is_offered_nothing():
    every = of(percent=100)
    assert rollout.wants(every, "x", asked(), NOW)
    assert not rollout.wants(every, "x", asked(board="ESP32_S3_W5500"), NOW)
    assert not rollout.wants(every, "x", asked(state="trial"), NOW)
    assert not rollout.wants(every, "x", asked(version="0.2.0-r1"), NOW)
    assert not rollout.wants(every, "x", failed(), NOW)


def test_of_forty_boxes_a_tenth_tries_and_a_bad_program_reaches_no_more(fleet, tmp_path, quick):  # noqa: F811
    """Each box asks in turn, again and again; those that get it fail."""
    for i in range(37):
        text = fleet.path.read_text()
        more = f'\n[site.x{i}]\nhome_address = "192.0.2.{180 + i}"\nprefixes = ["10.9.{i}.0/24"]\n'
        fleet.path.write_text(text + more)
    forty = inventory.load(fleet.path)
    digest = "cd" * 32
    rollout.save(forty, {"UNIX": of(digest=digest, percent=10, max_failures=2)})
    said = []
    desk = server.Desk(fleet.path, True, said.append)
    offered = set()
    for _ in range(2):
        for site in forty.sites:
            bad = site in offered
            words = {"site": site, "board": "UNIX", "version": "0.1.0-r1", "slot": "a",
                     "state": "returned" if bad else "running",
                     "digest": digest if bad else "", "attempt": "1" if bad else "0"}  # fmt: skip
            if desk.box_asks(words, "127.0.0.1"):
                offered.add(site)
    chosen = {site for site in forty.sites if rollout.chosen(of(digest=digest), site)}
    assert offered == chosen and 1 <= len(chosen) <= 10
    assert rollout.load(forty)["UNIX"].state == "stopped"
    wider = rollout.load(forty)
    wider["UNIX"].percent = 100
    rollout.save(forty, wider)
    assert not any(
        desk.box_asks(
            {"site": site, "board": "UNIX", "version": "0.1.0-r1", "state": "running"}, ""
        )
        for site in forty.sites
    ), "a stopped roll-out reaches nobody"


# --- commands -----------------------------------------------------------------------------------


@pytest.fixture
def stocked(shop, monkeypatch):  # noqa: F811
    """A shop with keys and a bundle of a small program, signed by its own key."""
    shop.run("keys", "new")
    shop.run("ota", "key", "new")
    monkeypatch.setenv("HAARO_PASSPHRASE", PASSPHRASE)
    made = keys.signing(store.open_store(inventory.load(shop.file), None).keys)
    path = shop.directory / "new.haaro"
    path.write_bytes(bundle(program("new"), key=made))
    return shop


def test_the_private_key_is_printed_nowhere_and_kept_in_the_sealed_store_alone(stocked):
    """P3: what signs the fleet's programs is the fleet."""
    fleet = inventory.load(stocked.file)
    secret = store.open_store(fleet, None).keys.ota()[0]["secret"]
    stocked.run("ota", "key", "show")
    stocked.run("ota", "key", "show", "--json")
    stocked.run("ota", "verify", stocked.directory / "new.haaro")
    stocked.run("ota", "roll-out", "start", stocked.directory / "new.haaro", "--percent", "5")
    stocked.run("fleet", "export", "router", "--all", "--out", stocked.directory / "routers")
    assert secret not in "".join(stocked.printed)
    for path in stocked.directory.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
            assert bytes.fromhex(secret) not in path.read_bytes(), path
    assert stat.S_IMODE(fleet.store_path.stat().st_mode) == 0o600


def test_a_second_key_is_made_only_when_asked_for_and_the_first_is_still_known(stocked):
    said = stocked.run("ota", "key", "new", status=1)
    assert "--replace" in said
    first = stocked.json("ota", "key", "show")["keys"][0]["public"]
    stocked.run("ota", "key", "new", "--replace")
    found = [row["public"] for row in stocked.json("ota", "key", "show")["keys"]]
    assert len(found) == 2 and found[1] == first
    assert stocked.json("ota", "verify", stocked.directory / "new.haaro")["signed"] is True


def test_the_export_gives_the_box_its_keys(stocked):
    stocked.change(
        "[defaults.router]\n",
        '[defaults.router]\nupdate = { url = "http://10.0.0.10:8434", interval_s = 600 }\n',
    )
    stocked.run("fleet", "check")
    stocked.run("fleet", "export", "router", "office-a", "--out", stocked.directory / "routers")
    made = json.loads((stocked.directory / "routers/office-a/router.json").read_text())
    (public,) = made["update"]["keys"]
    assert public == stocked.json("ota", "key", "show")["keys"][0]["public"]
    stocked.change('"http://10.0.0.10:8434"', '"https://example.net"')
    said = stocked.run("fleet", "check", status=2)
    assert "router.update.url" in said and 'must be like "http://192.0.2.1:8434"' in said


def test_without_a_key_an_export_with_updates_is_refused(shop):  # noqa: F811
    shop.run("keys", "new")
    shop.change("[defaults.router]\n", '[defaults.router]\nupdate = { url = "" }\n')
    assert "first: haaro ota key new" in shop.run("fleet", "export", "router", "--all", status=1)
    assert "first: haaro ota key new" in shop.run("ota", "key", "show", status=1)


def test_what_the_fleet_has_not_signed_is_not_rolled_out(stocked):
    path = stocked.directory / "foreign.haaro"
    path.write_bytes(bundle(program("new")))
    assert PUBLIC.hex() not in stocked.run("ota", "key", "show")
    for words in (("verify", path), ("roll-out", "start", path, "--percent", "10")):
        assert "no key of this fleet has signed it" in stocked.run("ota", *words, status=1)
    path.write_bytes(path.read_bytes()[:-5])
    assert "is no whole bundle" in stocked.run("ota", "show", path, status=2)
    assert "no roll-out" in stocked.run("ota", "roll-out", "status")


def test_a_roll_out_is_widened_stopped_and_tried_once_more(stocked):
    path = stocked.directory / "new.haaro"

    def start(*more):
        return stocked.json("ota", "roll-out", "start", path, *more)["rollouts"][0]

    assert "to whom" in stocked.run("ota", "roll-out", "start", path, status=2)
    assert start("--site", "office-b")["sites"] == {"office-b": "waiting"}
    assert (start("--percent", "100")["attempt"], len(start("--percent", "100")["sites"])) == (1, 3)
    stocked.run("ota", "roll-out", "stop")
    assert "stopped: asked for" in stocked.run("ota", "roll-out", "status", status=1)
    found = start("--percent", "100")
    assert (found["attempt"], found["state"]) == (2, "running")
    assert "there is no roll-out to NONE" in stocked.run(
        "ota", "roll-out", "stop", "--board", "NONE", status=1
    )


def test_start_waits_until_the_boxes_have_it_or_it_is_stopped(stocked):
    """The waiting command sees what the server writes."""
    fleet = inventory.load(stocked.file)

    def boxes():
        assert processes.wait_until(lambda: rollout.load(fleet), 20)
        (current,) = rollout.load(fleet).values()
        rollout.save_boxes(fleet, {"office-a": asked(version="0.2.0-r1", digest=current.digest)})

    thread = threading.Thread(target=boxes)
    thread.start()
    path = stocked.directory / "new.haaro"
    began = time.monotonic()
    found = stocked.json("ota", "roll-out", "start", path, "--site", "office-a", "--wait", "60")
    thread.join()
    assert found["rollouts"][0]["sites"] == {"office-a": "done"}
    assert time.monotonic() - began < 50
    stocked.run("ota", "roll-out", "start", path, "--site", "office-b", "--wait", "0.1", status=1)


def test_a_state_file_that_is_damaged_is_named(stocked):
    folder = stocked.directory / "ota"
    folder.mkdir(exist_ok=True)
    (folder / "rollout.json").write_text("{")
    assert "rollout.json: cannot be read" in stocked.run("ota", "roll-out", "status", status=1)


def test_an_address_to_listen_at_is_checked(stocked):
    assert "write it like 0.0.0.0:8434" in stocked.run("ota", "serve", "--listen", "x", status=2)
    said = stocked.run("ota", "serve", "--listen", "203.0.113.77:8434", status=1)
    assert "choose another --listen" in said
