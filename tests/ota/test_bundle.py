"""What a bundle is, and which one a box takes."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haaro.ota import bundle as device
from haaro.ota.bundle import Refused
from haaro_host.fleet.files import FleetError
from haaro_host.ota import bundle as bundles
from haaro_host.ota import tree
from tests.ota.conftest import KEY, PUBLIC, bundle, program

OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def state(box):
    """Which program would start, and what the slots hold."""
    return box.boot(), box.version("a"), (box.folder / "slots" / "boot").exists()


def refused(box, data, keys=(PUBLIC,)):
    """Have a box refuse a bundle; return why. Nothing has changed by it."""
    before = state(box)
    with pytest.raises((Refused, OSError)) as caught:
        box.install(data, keys=keys)
    assert state(box) == before == (("a", False), "0.1.0-r1", False)
    return str(caught.value)


def test_the_same_input_makes_the_same_octets():
    assert bundle(program("new")) == bundle(dict(reversed(program("new").items())))
    assert bundle(program("new")) != bundle(program("old"))


@pytest.mark.parametrize("pack", bundles.PACKS)
def test_a_bundle_is_read_back_and_installed(box, pack):
    data = bundle(program("new"), pack=pack)
    found = bundles.parse(data)
    assert (found.version, found.board, found.mpy, found.pack) == (
        "0.2.0-r1", "UNIX", "none", pack
    )  # fmt: skip
    assert bundles.verify(found, PUBLIC)
    assert not bundles.verify(found, OTHER.public_key().public_bytes_raw())
    box.install(data)
    assert box.version("b") == "0.2.0-r1"
    assert (box.folder / "slots/b/haaro/core/a.py").read_bytes() == b"new" * 300
    assert box.boot() == ("b", True)


def test_of_two_keys_either_may_have_signed(box):
    other = OTHER.public_key().public_bytes_raw()
    assert "no key of this box has signed it" in refused(box, bundle(program("new")), (other,))
    box.install(bundle(program("new")), keys=(other, PUBLIC))
    assert box.boot() == ("b", True)


def test_without_a_key_nothing_is_taken(box):
    assert "no key" in refused(box, bundle(program("new")), ())


def test_any_changed_octet_is_refused(box):
    """P5: of the head, the signature, or a file."""
    # Packed, the last octet of a file has bits that mean nothing.
    data = bundle(program("new"), pack="stored")
    head_end = len(data) - sum(each.packed for each in bundles.parse(data).files)
    for at in [*range(0, head_end, 23), *range(head_end - 64, head_end, 7), head_end + 1,
               len(data) - 2]:  # fmt: skip
        changed = bytearray(data)
        changed[at] ^= 0x10
        refused(box, bytes(changed))
    refused(box, data[: head_end + 40])
    refused(box, b"")
    with pytest.raises((ValueError, KeyError, bundles.zlib.error)):
        bundles.parse(bytes(changed))


@pytest.mark.parametrize(
    "name",
    ["../main.py", "/main.py", "haaro/../../boot", "haaro//x.py", "manifest", "unpacking", ".",
     "a/./b", "x" * 97, "a b"],
)  # fmt: skip
def test_a_signed_name_that_leads_elsewhere_is_refused_by_both_sides(box, name):
    with pytest.raises(bundles.BundleError):
        bundle({name: b"x"})
    entry = bundles.Entry(name, 1, 1, hashlib.sha256(b"x").hexdigest())
    head = bundles.head_of([entry], "0.2.0-r1", "UNIX", "none", "stored")
    signature = KEY.sign(bundles._message(head))
    data = bundles.MAGIC + len(head).to_bytes(4, "big") + head + signature + b"x"
    assert "its list of files has" in refused(box, data)
    assert {path.name for path in box.folder.iterdir()} == {"main.py", "slots"}


def test_another_board_and_another_mpy_are_refused(box):
    assert "for board ESP32_S3" in refused(box, bundle(program("new"), board="ESP32_S3"))
    said = refused(box, bundle(program("new"), mpy="6.3 xtensawin"))
    assert "it is for mpy 6.3 xtensawin, this is " in said


def test_what_this_micropython_runs_is_known_by_its_number(monkeypatch):
    class Implementation:
        _mpy = 0x2B06  # xtensawin, 6.3

    monkeypatch.setattr(device.sys, "implementation", Implementation)
    assert device.mpy() == ["6.3", "xtensawin"]


def test_a_packed_bundle_needs_deflate(box, monkeypatch):
    monkeypatch.setitem(device.sys.modules, "deflate", None)
    assert "no deflate" in refused(box, bundle(program("new")))
    box.install(bundle(program("new"), pack="stored"))
    assert box.boot() == ("b", True)


# --- downgrade ----------------------------------------------------------------------------------


def kept(box, data, slot):
    box.install(data, slot=slot)
    found, _ = box.boot()
    box.slots(found).commit()
    return found


@pytest.mark.parametrize("version", ["0.1.0-r1", "0.0.9-r9", "0.0.0-r1"])
def test_what_is_not_newer_is_refused(box, version):
    assert f"{version} is not newer than 0.1.0-r1" in refused(
        box, bundle(program("new"), version=version)
    )


def test_versions_are_compared_as_numbers():
    order = ["0.1.0-r2", "0.1.0-r10", "0.2.0-r1", "0.10.0-r1", "1.0.0-r1"]
    assert sorted(order, key=bundles.version_of) == order
    for wrong in ("1.0.0", "1.0-r1", "1.0.0-rx", "1.0.0-r70000", "-1.0.0-r1", ""):
        with pytest.raises(bundles.BundleError):
            bundles.version_of(wrong)


def test_a_version_once_kept_stays_the_floor_after_a_signed_step_back(box):
    """A replay of what was withdrawn, or of the leave to go back, gets nobody further down."""
    new = bundle(program("new"), "0.3.0-r1")
    back = bundle(program("back"), "0.2.0-r1", replaces="0.3.0-r1")
    assert kept(box, new, "a") == "b"
    with pytest.raises(Refused, match=r"0\.2\.0-r1 is not newer"):
        box.install(bundle(program("back"), "0.2.0-r1"), slot="b")
    assert kept(box, back, "b") == "a"
    assert box.version("a") == "0.2.0-r1"
    with pytest.raises(Refused, match="not newer than 0.3.0-r1"):
        box.install(new, slot="a")
    assert kept(box, bundle(program("next"), "0.4.0-r1"), "a") == "b"
    with pytest.raises(Refused, match="may replace 0.3.0-r1 at most, not 0.4.0-r1"):
        box.install(back, slot="b")


def test_the_floor_outlives_a_step_back_of_the_very_first_program(tmp_path, box):
    back = bundle(program("back"), "0.0.5-r1", replaces="0.1.0-r1")
    assert kept(box, back, "a") == "b"
    with pytest.raises(Refused, match="not newer than 0.1.0-r1"):
        box.install(bundle(program("new"), "0.0.6-r1"), slot="b")


def test_a_leave_to_go_back_is_for_what_is_newer():
    with pytest.raises(FleetError, match="needs no leave"):
        bundle(program("new"), "0.4.0-r1", replaces="0.3.0-r1")


# --- the boards' programs -----------------------------------------------------------------------


def test_the_program_of_a_linux_box_is_all_sources_under_names_that_a_box_takes():
    files = tree.sources()
    assert {"haaro_router.py", "haaro_device.py", "haaro/ota/updater.py"} <= set(files)
    assert not any(name in files for name in ("main.py", "boot.py"))
    made = tree.initial(files, "UNIX", tree.SOURCES, "0.1.0-r1")
    assert made["main.py"] == (tree.system.firmware().parent / "boot.py").read_bytes()
    assert list(made)[-2:] == ["slots/a/manifest", "main.py"]


def test_a_board_that_is_not_there_is_named():
    with pytest.raises(FleetError, match="no board 'NONE'"):
        tree.program("NONE")
    with pytest.raises(FleetError, match="ESP32_W5500 has no room for a second slot: haaro flash"):
        tree.program("ESP32_W5500")
