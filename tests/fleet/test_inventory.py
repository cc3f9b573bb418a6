"""fleet.toml: what is refused and what the refusal says; what an edit leaves as it was."""

import tomllib
import traceback
from pathlib import Path

import pytest
import tomlkit
from hypothesis import given, settings
from hypothesis import strategies as st

from haaro_host.fleet import inventory

HEAD = """
version = 1
[fleet]
name = "acme"
[home_agent]
address = "192.0.2.1"
home_addresses = ["192.0.2.128/25"]
[plan]
prefixes = ["10.0.0.0/8"]
[defaults.router]
uplinks = [{ name = "wan", driver = "linux_netdev", interface = "eth0" }]
"""
A = '[site.a]\nhome_address = "192.0.2.129"\nprefixes = ["10.1.0.0/24"]\n'
B = '[site.b]\nhome_address = "192.0.2.130"\nprefixes = ["10.2.0.0/24"]\n'
# This board has one W5500.
ONE_CHIP = (
    '[site.b.router]\nuplinks = [{ name = "wire", driver = "ethernet" }]\n'
    '[site.b.router.lan]\ndriver = "w5500"\naddress = "10.2.0.1/24"\n'
    '[site.b]\nboard = "W5500_EVB_PICO2"\n'
)


def judge(tmp_path, text):
    return inventory.judge(tmp_path / "fleet.toml", text)


def refused(tmp_path, text):
    with pytest.raises(inventory.InventoryError) as caught:
        judge(tmp_path, text)
    return [str(problem) for problem in caught.value.problems]


def test_two_sites_are_good(tmp_path):
    fleet = judge(tmp_path, HEAD + A + B)
    assert list(fleet.sites) == ["a", "b"]
    assert fleet.warnings == ()


@pytest.mark.parametrize(
    ("old", "new", "field", "value", "remedy"),
    [
        ('"10.2.0.0/24"', '"10.1.0.128/25"', "site.b.prefixes[0]", "10.1.0.128/25",
         "not overlap site.a.prefixes[0] 10.1.0.0/24"),
        ('"10.2.0.0/24"', '"172.16.0.0/24"', "site.b.prefixes[0]", "172.16.0.0/24",
         "inside plan.prefixes (10.0.0.0/8)"),
        ('"10.2.0.0/24"', '"10.2.0.1/24"', "site.b.prefixes[0]", "10.2.0.1/24", "host bits"),
        ('"192.0.2.130"', '"192.0.2.129"', "site.b.home_address", "192.0.2.129",
         "not used by site.a"),
        ('"192.0.2.130"', '"198.51.100.9"', "site.b.home_address", "198.51.100.9",
         "inside home_agent.home_addresses (192.0.2.128/25)"),
        ('"192.0.2.130"', '"192.0.2"', "site.b.home_address", "192.0.2", "IPv4 address"),
        ("[site.b]", "[site.a]", "site.a", "second table", "each site once"),
        ("[site.b]", "[site.A]", "site.A", "A", "more than capitals"),
        ("[site.b]", '[site."../b"]', "site.../b", "../b", "letters, digits"),
        ("[site.b]", "[site.b]\nboard = 'unix'", "site.b.board", "unix", "folder of boards/"),
        ("[site.b]", "[site.b]\npriorities = 1", "site.b.priorities", "unknown key", "priority"),
        ("[site.b]", "[site.b]\npeers = ['z']", "site.b.peers", '"z"', "names of other sites"),
        ("[site.b]", "[site.b]\nunique_id = 'XY'", "site.b.unique_id", "XY", "digits of 0-9 a-f"),
        ("[site.b]", "[site.b]\nrealm = 'a b'", "site.b.realm", "a b", "printable"),
        ('home_address = "192.0.2.130"\n', "", "site.b.home_address", "missing key", "IPv4"),
        ('[fleet]\nname = "acme"', "[fleet]", "fleet.name", "missing key", "letters, digits"),
        ("version = 1", "version = 2", "version", "2", "1"),
        ('address = "192.0.2.1"\n', "", "home_agent.address", "missing key", "IPv4 address"),
        ('address = "192.0.2.1"', 'address = "192.0.2.1"\nmtu = 9', "home_agent.mtu", "9", "608"),
        ('address = "192.0.2.1"', 'address = "192.0.2.1"\nsocket = "ha.sock"',
         "home_agent.socket", "ha.sock", "begins with /"),
        ("[site.b]", "[site.b.router]\nlifetime = 5\n[site.b]", "site.b.router.lifetime", "5",
         "30 to 65534"),
        ("[site.b]", "[site.b.router]\nlife = 5\n[site.b]", "site.b.router.life", "unknown key",
         "lifetime"),
        ("[site.b]", "[site.b.router]\nname = 'x'\n[site.b]", "site.b.router.name", '"x"',
         "does not give already"),
        ("[site.b]", "[site.b.router.lan]\ndriver = 'w5500'\naddress = '10.1.0.1/24'\n[site.b]",
         "site.b.router.lan.address", "10.1.0.1/24", "inside one of networks (10.2.0.0/24)"),
        ("[site.b]", ONE_CHIP, "site.b.router.uplinks[0].driver", "ethernet",
         "pins.csv has one W5500, and lan has it; take lan or this uplink away"),
        ('interface = "eth0"', 'interface = ""', "site.a.router.uplinks[0].interface", "''",
         "1 to 15 characters"),
        ("version = 1", "version = ", "", "the file (", "valid TOML"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_field_value_and_remedy(tmp_path, old, new, field, value, remedy):
    good = HEAD + A + B
    assert old in good
    before, _, after = good.rpartition(old)
    lines = refused(tmp_path, before + new + after)
    (line,) = [line for line in lines if f": {field}: " in line or not field]
    assert line.startswith(str(tmp_path / "fleet.toml"))
    assert value in line
    assert remedy in line.partition("allowed:")[2]


def test_every_fault_is_told_at_once(tmp_path):
    text = (HEAD + A + B).replace("192.0.2.130", "198.51.100.9").replace("10.2.0.0", "10.1.0.0")
    lines = refused(tmp_path, text)
    assert len(lines) == 2


def test_a_board_belongs_to_one_site_and_a_revoked_site_keeps_its_address(tmp_path):
    ids = 'unique_id = "a1b2c3d4e5f6"\n'
    assert "one board is one site" in refused(tmp_path, HEAD + A + ids + B + ids)[0]
    gone = A + 'revoked = "2026-11-24 stolen"\n'
    lines = refused(tmp_path, HEAD + gone + B.replace("192.0.2.130", "192.0.2.129"))
    assert "site.b.home_address" in lines[0]
    assert "not used by site.a" in lines[0]


def test_more_peers_than_a_box_has_rows_for_are_refused(tmp_path):
    many = "".join(
        f'[site.s{n}]\nhome_address = "192.0.2.{130 + n}"\nprefixes = ["10.3.{n}.0/24"]\n'
        for n in range(66)
    )
    assert judge(tmp_path, HEAD + many)
    lines = refused(tmp_path, HEAD.replace("[defaults.router]", '[defaults]\npeers = "all"\n'
                                           "[defaults.router]") + many)  # fmt: skip
    assert len(lines) == 66
    assert "65 sites" in lines[0] and "at most 64" in lines[0]


def test_the_sites_of_a_pair_must_both_want_it(tmp_path):
    fleet = judge(tmp_path, HEAD + A + 'peers = ["b"]\n' + B + 'peers = "all"\n')
    assert [s.name for s in fleet.pairs_of(fleet.sites["a"])] == ["b"]
    fleet = judge(tmp_path, HEAD + A + 'peers = ["b"]\n' + B)
    assert fleet.pairs_of(fleet.sites["a"]) == []


def test_names_are_sorted_as_people_count():
    names = ["office-10", "office-2", "Office-1", "a9", "a", "9"]
    assert sorted(names, key=inventory.natural) == [
        "9", "a", "a9", "Office-1", "office-2", "office-10",
    ]  # fmt: skip


# --- editing ------------------------------------------------------------------------------------


def test_a_new_site_stands_at_its_place_and_no_other_octet_changes(shop):
    shop.change("[site.office-b]", "# B is on the hill.\n[site.office-b] # 2nd")
    before = shop.file.read_text()
    shop.run("fleet", "add", "office-aa", "--note", "in between", "--priority", "7")
    after = shop.file.read_text()
    added = (
        "[site.office-aa]\n"
        'home_address = "192.0.2.132"\n'
        'prefixes = ["10.0.3.0/24"]\n'
        'realm = "office-aa.acme.example"\n'
        'note = "in between"\n'
        "priority = 7\n\n"
    )
    assert after == before.replace("# B is on the hill.", added + "# B is on the hill.")


def test_the_result_does_not_depend_on_the_order_of_adding(tmp_path, shop):
    texts = []
    for names in (["x2", "x10", "b"], ["b", "x10", "x2"]):
        text = HEAD
        for name in names:
            fleet = judge(tmp_path, text)
            number = {"b": 1, "x2": 2, "x10": 3}[name]
            values = {"home_address": f"192.0.2.{130 + number}", "prefixes": []}
            text = inventory.with_site(fleet, text, name, values)
        texts.append(text)
    assert texts[0] == texts[1]
    assert [line for line in texts[0].splitlines() if "site" in line] == [
        "[site.b]", "[site.x2]", "[site.x10]",
    ]  # fmt: skip


def test_add_fills_the_plan_without_touching_what_is_taken(shop):
    shop.change("home_networks = []", 'home_networks = ["10.0.3.0/24"]')
    shop.change('"10.0.1.0/24"', '"10.0.4.0/23"')
    assert shop.json("fleet", "add", "d")["prefixes"] == ["10.0.1.0/24"]
    assert shop.json("fleet", "add", "e")["prefixes"] == ["10.0.6.0/24"]
    assert shop.json("fleet", "list")["sites"][0]["home_address"] == "192.0.2.132"


def test_a_full_plan_is_said_and_nothing_is_written(shop):
    shop.change('prefixes = ["10.0.0.0/8"]', 'prefixes = ["10.0.0.0/22"]')
    shop.run("fleet", "add", "d")
    before = shop.file.read_text()
    assert "no free /24 left" in shop.run("fleet", "add", "e", status=1)
    assert shop.file.read_text() == before


def test_home_addresses_that_are_used_up_are_said(shop):
    shop.change('["192.0.2.128/25"]', '["192.0.2.128/29"]')
    for name in "def":
        shop.run("fleet", "add", name)
    assert "no free address left" in shop.run("fleet", "add", "g", status=1)


def test_a_bad_site_is_refused_and_the_file_stays(shop):
    before = shop.file.read_text()
    assert "is there already" in shop.run("fleet", "add", "office-a", status=1)
    assert "letters, digits" in shop.run("fleet", "add", "../x", status=1)
    assert "not overlap site.d.prefixes[0] 10.0.0.0/25" in shop.run(
        "fleet", "add", "d", "--prefix", "10.0.0.0/25", status=2
    )
    assert shop.file.read_text() == before


def test_a_value_is_changed_in_its_own_line_only(shop):
    shop.change("[site.office-b]", "# kept\n[site.office-b]")
    shop.file.write_text(shop.file.read_text() + "\n[site.office-c.router]\nlifetime = 60\n")
    text = shop.file.read_text()
    fleet = inventory.load(shop.file)
    marked = inventory.with_value(fleet, text, "office-b", "revoked", "2026-11-24 stolen")
    added = set(marked.splitlines()) ^ set(text.splitlines())
    assert added == {'revoked = "2026-11-24 stolen"'}
    assert "# kept\n[site.office-b]" in marked
    under = inventory.with_value(fleet, text, "office-c", "unique_id", "a1b2c3d4")
    again = inventory.judge(shop.file, under)
    assert again.sites["office-c"].table.unique_id == "a1b2c3d4"
    assert again.sites["office-c"].router["lifetime"] == 60


def test_init_never_overwrites(shop):
    before = shop.file.read_text()
    assert "is there already" in shop.run("fleet", "init", status=1)
    assert shop.file.read_text() == before


def test_the_template_explains_every_table_and_is_good_as_it_is(shop):
    text = shop.file.read_text()
    for key in ("[fleet]", "[home_agent]", "[plan]", "[keys]", "[defaults]", "[defaults.router]"):
        assert f"\n{key}\n" in text
    examples = [line[4:].partition(" =")[0] for line in text.splitlines() if line[:4] == "#   "]
    known = {"home_address", "prefixes", "realm", "unique_id", "priority", "implicit", "peers"}
    assert known <= set(examples)
    assert set(inventory.SiteTable.model_fields) >= known


def test_check_names_what_is_missing(shop):
    found = shop.json("fleet", "check", status=1)
    assert found["schema"] == "haaro.fleet.check/1"
    assert found["no_key"] == ["office-a", "office-b", "office-c"]
    shop.change('"192.0.2.130"', '"198.51.100.1"')
    found = shop.json("fleet", "check", status=2)
    assert [problem["key"] for problem in found["problems"]] == ["site.office-b.home_address"]


def test_two_commands_at_once_lose_nothing(shop):
    """The fleet's lock: each of them sees what the other wrote."""
    import os
    import subprocess
    import sys

    code = "from haaro_host.cli import main; main()"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, "fleet", "add", f"x{n}"],
            env={**os.environ, "HAARO_FLEET": str(shop.file)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    assert [each.communicate(timeout=100)[1] for each in running] == [""] * 4
    assert [each.returncode for each in running] == [0] * 4
    fleet = inventory.load(shop.file)
    assert len(fleet.sites) == 7


def test_a_link_to_the_fleet_file_stays_one(shop):
    real = shop.directory / "real.toml"
    shop.file.rename(real)
    real.chmod(0o664)
    shop.file.symlink_to(real)
    shop.run("fleet", "add", "d")
    assert shop.file.is_symlink()
    assert "[site.d]" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o664


_VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=4,
)
_PLACES = [
    "", "version", "fleet", "fleet.name", "home_agent", "home_agent.address", "home_agent.mtu",
    "home_agent.home_addresses", "plan", "plan.prefixes", "keys", "keys.store", "defaults",
    "defaults.peers", "defaults.router", "defaults.router.uplinks", "site", "site.a",
    "site.a.home_address", "site.a.prefixes", "site.a.peers", "site.a.router", "site.a.revoked",
    "site.a.router.policy", "site.a.new", "new",
]  # fmt: skip


@given(st.sampled_from(_PLACES), _VALUES)
@settings(max_examples=150, deadline=None)
def test_whatever_stands_in_the_file_it_is_good_or_refused_with_its_field(place, value):
    """No value makes a traceback."""
    document = tomllib.loads(HEAD + A + B)
    *way, last = place.split(".")
    table = document
    for word in way:
        table = table.setdefault(word, {})
    table[last] = value
    path = Path("/nowhere/fleet.toml")
    try:
        inventory.judge(path, tomlkit.dumps(document))
    except inventory.InventoryError as error:
        assert all(str(problem).startswith(f"{path}: ") for problem in error.problems)
    except (TypeError, ValueError, tomlkit.exceptions.TOMLKitError) as error:
        # Not a TOML value at all: the writer's refusal, not ours.
        assert "tomlkit" in traceback.extract_tb(error.__traceback__)[-1].filename
