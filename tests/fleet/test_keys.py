"""Keys: how one gives way to the next, what pairs share, what a revoked box is left with."""

import hashlib
import hmac

import pytest

from haaro.wire.ipv4 import address
from haaro_host.fleet import derive, inventory
from haaro_host.fleet.files import FleetError
from haaro_host.fleet.keys import PEERS, Keys


@pytest.fixture
def fleet(shop):
    shop.change('peers = "none"', 'peers = "all"')
    return inventory.load(shop.file)


@pytest.fixture
def keys(fleet):
    made = Keys()
    made.new(fleet, fleet.sites)
    return made


def states(keys, name="office-a"):
    return [(record["spi"], record["state"]) for record in keys.associations(name)]


def test_new_makes_what_is_missing_and_nothing_twice(fleet, keys):
    before = str(keys.body)
    assert keys.missing(fleet) == []
    assert keys.new(fleet, fleet.sites) == []
    assert str(keys.body) == before
    secrets = [keys.associations(name)[0]["key"] for name in fleet.sites]
    assert len(set(secrets)) == 3
    assert all(len(bytes.fromhex(secret)) == 32 for secret in secrets)
    assert keys.associations("office-a")[0]["algorithm"] == "hmac-sha256"


def test_a_rotation_keeps_two_keys_live_and_ends_with_one(fleet, keys):
    assert states(keys) == [(256, "active")]
    keys.stage(fleet, "office-a")
    assert states(keys) == [(256, "active"), (257, "staged")]
    keys.activate("office-a")
    assert states(keys) == [(257, "active"), (256, "previous")]
    keys.retire("office-a")
    assert states(keys) == [(257, "active")]
    assert states(keys, "office-b") == [(256, "active")]


def test_next_step_is_the_order_of_a_rotation(fleet, keys):
    seen = []
    for _ in range(3):
        step = keys.next_step("office-a")
        seen.append(step)
        {"stage": lambda: keys.stage(fleet, "office-a"),
         "activate": lambda: keys.activate("office-a"),
         "retire": lambda: keys.retire("office-a")}[step]()  # fmt: skip
    assert seen == ["stage", "activate", "retire"]
    assert keys.next_step("office-a") == "stage"


@pytest.mark.parametrize(
    ("steps", "refused", "next_command"),
    [
        ([], "activate", "haaro keys stage"),
        ([], "retire", "only the active key"),
        (["stage"], "stage", "haaro keys activate"),
        (["stage", "activate"], "stage", "haaro keys retire"),
        (["stage", "activate"], "activate", "haaro keys stage"),
    ],
)
@pytest.mark.parametrize("name", ["office-a", PEERS])
def test_a_step_out_of_order_is_refused_and_changes_nothing(
    fleet, keys, name, steps, refused, next_command
):
    def step(which):
        return keys.stage(fleet, name) if which == "stage" else getattr(keys, which)(name)

    for each in steps:
        step(each)
    before = str(keys.body)
    with pytest.raises(FleetError, match=next_command):
        step(refused)
    assert str(keys.body) == before


def test_a_staged_key_can_be_given_up(fleet, keys):
    keys.stage(fleet, "office-a")
    keys.retire("office-a")
    assert states(keys) == [(256, "active")]


def test_a_retired_key_is_gone_and_its_spi_is_never_used_again(fleet, keys):
    old = keys.associations("office-a")[0]["key"]
    spis = []
    for _ in range(10):
        keys.stage(fleet, "office-a")
        keys.activate("office-a")
        keys.retire("office-a")
        spis.append(keys.associations("office-a")[0]["spi"])
    assert spis == list(range(257, 267))
    assert old not in str(keys.body)
    assert len(keys.body["sites"]["office-a"]) == 5
    keys.stage(fleet, "office-a")
    keys.retire("office-a")
    keys.stage(fleet, "office-a")
    assert states(keys)[1] == (268, "staged")


def test_a_site_without_a_key_is_told_to_get_one(fleet):
    with pytest.raises(FleetError, match="first: haaro keys new"):
        Keys().stage(fleet, "office-a")


def test_the_index_names_every_key_and_holds_none(fleet, keys):
    keys.stage(fleet, "office-a")
    keys.stage(fleet, PEERS)
    index = str(keys.index())
    for site in keys.body["sites"].values():
        for record in site:
            assert record["key"] not in index
            assert record["fingerprint"] in index
    for epoch in keys.body["epochs"]:
        assert epoch["secret"] not in index


# --- keys of pairs ------------------------------------------------------------------------------


def hkdf_sha256(secret, info, octets):
    """RFC 5869 by its text, with the empty salt."""
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    out = block = b""
    counter = 1
    while len(out) < octets:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out += block
        counter += 1
    return out[:octets]


def test_krm_is_the_documented_construction():
    secret = bytes(range(32))
    info = (
        b"haaro KRm 1" + (7).to_bytes(4, "big")
        + address("192.0.2.129") + (1).to_bytes(4, "big")
        + address("192.0.2.200") + (3).to_bytes(4, "big")
    )  # fmt: skip
    made = derive.krm(secret, 7, ("192.0.2.200", 3), ("192.0.2.129", 1))
    assert made == hkdf_sha256(secret, info, 20)
    assert made == derive.krm(secret, 7, ("192.0.2.129", 1), ("192.0.2.200", 3))


def test_krm_differs_with_each_of_its_inputs():
    base = [bytes(32), 1, ("192.0.2.129", 1), ("192.0.2.130", 1)]
    others = [(0, b"\1" + bytes(31)), (1, 2), (2, ("192.0.2.131", 1)), (2, ("192.0.2.129", 2)),
              (3, ("192.0.2.130", 2))]  # fmt: skip
    made = {derive.krm(*base)}
    for at, value in others:
        made.add(derive.krm(*base[:at], value, *base[at + 1 :]))
    assert len(made) == 1 + len(others)
    with pytest.raises(ValueError, match="two home addresses"):
        derive.krm(bytes(32), 1, ("192.0.2.129", 1), ("192.0.2.129", 2))


def rows(keys, fleet, name):
    return dict(keys.rows(fleet, fleet.sites[name]))


def test_both_ends_of_a_pair_have_the_same_rows_and_nobody_else_has(fleet, keys):
    table = {name: rows(keys, fleet, name) for name in fleet.sites}
    seen = set()
    for one, other in (
        ("office-a", "office-b"),
        ("office-a", "office-c"),
        ("office-b", "office-c"),
    ):
        ours = table[one][fleet.sites[other].home_address]
        assert ours == table[other][fleet.sites[one].home_address]
        assert [len(krm) for krm in ours] == [20]
        seen.update(ours)
    assert len(seen) == 3


def test_epochs_overlap_with_the_active_one_first(fleet, keys):
    """A58: the current key, then the next."""
    hoa = fleet.sites["office-b"].home_address
    first = rows(keys, fleet, "office-a")[hoa]
    keys.stage(fleet, PEERS)
    staged = rows(keys, fleet, "office-a")[hoa]
    assert staged[:1] == first and len(staged) == 2
    keys.activate(PEERS)
    assert rows(keys, fleet, "office-a")[hoa] == staged[::-1]
    keys.retire(PEERS)
    assert rows(keys, fleet, "office-a")[hoa] == staged[1:]
    assert keys.body["epochs"][0].get("secret") is None


def test_a_revoked_box_shares_no_key_with_its_successor(shop, fleet, keys):
    hoa = {name: site.home_address for name, site in fleet.sites.items()}
    before = rows(keys, fleet, "office-b")
    keys.revoke(fleet.sites["office-a"])
    assert keys.associations("office-a") == []
    shop.change('realm = "office-a', 'revoked = "2026-11-24 stolen"\nrealm = "office-a')
    barred = inventory.load(shop.file)
    assert set(rows(keys, barred, "office-b")) == {hoa["office-c"]}
    keys.new(fleet, ["office-a"])
    after = rows(keys, fleet, "office-b")
    assert after[hoa["office-c"]] == before[hoa["office-c"]]
    assert after[hoa["office-a"]] != before[hoa["office-a"]]
    assert after[hoa["office-a"]] == rows(keys, fleet, "office-a")[hoa["office-b"]]
    assert states(keys) == [(257, "active")]


def test_a_body_of_another_version_is_refused():
    with pytest.raises(FleetError, match="this haaro reads haaro.keys.body/1"):
        Keys({"schema": "haaro.keys.body/2"})
