"""A pulled cable at every octet, a power cut at every step of a change: old or new, no mixture.

F14 and P6 of the threats.
"""

import builtins
import os

import pytest

from haaro.shell import config as router_config
from haaro.shell import staging
from tests.console.helpers import CONFIG, Desk, frames, octets, pair, secrets_document

NEW_CONFIG = octets({**CONFIG, "lifetime": 120, "log": "warning"})
NEW_SECRETS = octets(secrets_document(key="5e" * 32))


def script(step=144):
    """Every octet that a host sends to change both files and to keep them."""
    lines = [*frames("router.json", NEW_CONFIG, step)]
    lines += frames("router.secrets.json", NEW_SECRETS, step)
    return [line.encode() + b"\r" for line in [*lines, "apply"]]


def restart(desk):
    """What main.py does at a start, whatever was there."""
    staging.recover(str(desk.config))
    loaded = router_config.load(str(desk.config))
    names = {path.name for path in desk.config.parent.iterdir()}
    assert names == {"router.json", "router.secrets.json"}, "nothing is left lying about"
    return loaded


def test_a_cable_pulled_at_any_octet_leaves_the_old_pair_and_the_transfer_goes_on(
    tmp_path, monkeypatch
):
    whole = script()
    total = sum(len(line) for line in whole)
    points = sorted({*range(0, total, 3), total - 1})
    assert len(points) > 100
    for point in points:
        place = tmp_path / str(point)
        place.mkdir()
        desk = Desk(place, monkeypatch)
        old = pair(place)
        left = point
        for line in whole:
            desk.type(line[:left])
            left -= len(line[:left])
            if not left:
                break
        desk.door.gone = True
        desk.type(b"")
        assert pair(place) == old, point
        desk.turn(1000)
        assert "haaro console" in desk.said()
        # The next run asks where to go on: what has arrived is not sent again.
        sent = 0
        for name, data in (("router.json", NEW_CONFIG), ("router.secrets.json", NEW_SECRETS)):
            if name not in desk.console.staging.pending():
                ask, *pieces = frames(name, data)
                at = int(desk.line(ask)[0].removeprefix("at "))
                for piece in pieces:
                    if int(piece[1:].split()[0]) >= at:
                        sent += len(piece) + 1
                        assert desk.line(piece)[-1] == "ok"
        assert point + sent <= total + 400, "at most one frame is sent twice"
        desk.line("apply")
        desk.next_box(registered=True)
        desk.turn(1000)
        assert pair(place) == (NEW_CONFIG, NEW_SECRETS), point
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


class PowerCut(BaseException):
    """The power is gone: nothing after this happens."""


class Flash:
    """Counts what reaches the file system and cuts the power at one point, with torn writes."""

    def __init__(self, monkeypatch, cut_at, torn):
        self.count = 0
        self.cut_at = cut_at
        self.torn = torn
        self._open = builtins.open
        for name in ("rename", "remove", "system"):
            monkeypatch.setattr(staging.os, name, self._counted(getattr(os, name)))
        monkeypatch.setattr(builtins, "open", self.open)

    def step(self):
        self.count += 1
        if self.count == self.cut_at:
            raise PowerCut

    def _counted(self, real):
        def call(*arguments):
            self.step()
            return real(*arguments)

        return call

    def open(self, path, mode="r", *arguments, **options):
        if "w" in mode or "a" in mode or "+" in mode:
            self.step()
            return File(self, self._open(path, mode, *arguments, **options))
        return self._open(path, mode, *arguments, **options)


class File:
    def __init__(self, flash, file):
        self.flash = flash
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, data):
        try:
            self.flash.step()
        except PowerCut:
            # Part of it got through.
            self.file.write(data[: int(len(data) * self.flash.torn)])
            self.file.close()
            raise
        return self.file.write(data)

    def flush(self):
        self.flash.step()
        self.file.flush()


def change(desk):
    for line in script(36):
        desk.type(line)
    desk.next_box(registered=True)
    desk.turn(1000)


def steps_of(tmp_path, work):
    with pytest.MonkeyPatch.context() as patch:
        desk = Desk(tmp_path, patch)
        flash = Flash(patch, 0, 0)
        work(desk)
    return flash.count


@pytest.mark.parametrize("torn", [0.0, 0.5, 1.0])
def test_a_power_cut_at_every_step_of_a_change_leaves_old_or_new(tmp_path, torn):
    (tmp_path / "count").mkdir()
    steps = steps_of(tmp_path / "count", change)
    seen = set()
    assert 3 * steps > 100
    for cut in range(1, steps + 2):
        place = tmp_path / str(cut)
        place.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            desk = Desk(place, patch)
            old = pair(place)
            Flash(patch, cut, torn)
            if cut <= steps:
                with pytest.raises(PowerCut):
                    change(desk)
            else:
                change(desk)
        restart(desk)
        assert pair(place) in (old, (NEW_CONFIG, NEW_SECRETS)), cut
        seen.add(pair(place) == old)
        assert desk.secrets.stat().st_mode & 0o777 == 0o600
    assert seen == {True, False}, "the cuts fell on both sides of the change"


def test_a_power_cut_while_the_last_one_is_cleared_up(tmp_path):
    """Every cut of the change, and then one at every step of the recovery."""
    (tmp_path / "count").mkdir()
    steps = steps_of(tmp_path / "count", change)
    points = 0
    for first in range(steps - 6, steps + 1):
        for second in range(1, 8):
            place = tmp_path / f"{first}-{second}"
            place.mkdir()
            with pytest.MonkeyPatch.context() as patch:
                desk = Desk(place, patch)
                old = pair(place)
                Flash(patch, first, 0.5)
                with pytest.raises(PowerCut):
                    change(desk)
            with pytest.MonkeyPatch.context() as patch:
                Flash(patch, second, 0.5)
                try:
                    staging.recover(str(desk.config))
                except PowerCut:
                    points += 1
            restart(desk)
            assert pair(place) in (old, (NEW_CONFIG, NEW_SECRETS))
    assert points > 10


def test_the_first_configuration_is_there_whole_or_not_at_all(tmp_path):
    def first(desk):
        for line in script():
            desk.type(line)

    for cut in range(1, 400):
        place = tmp_path / str(cut)
        place.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            desk = Desk(place, patch, provisioned=False)
            flash = Flash(patch, cut, 0.5)
            try:
                first(desk)
                done = True
            except PowerCut:
                done = False
        staging.recover(str(desk.config))
        assert pair(place) in ((None, None), (NEW_CONFIG, NEW_SECRETS)), cut
        if done:
            assert cut == flash.count + 1
            break
    assert done and cut > 30


@pytest.mark.parametrize("level", ["keys", "all"])
def test_a_cut_while_wiping_leaves_no_half_key_file(tmp_path, level):
    """The file is whole or gone: a torn one would be a box that nobody can log in to."""
    for cut in range(1, 60):
        place = tmp_path / str(cut)
        place.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            desk = Desk(place, patch)
            old = pair(place)
            flash = Flash(patch, cut, 0.5)
            try:
                desk.type(f"reset {level}\r")
                done = True
            except PowerCut:
                done = False
        staging.recover(str(desk.config))
        assert pair(place)[0] in (old[0], None) and pair(place)[1] in (old[1], None), cut
        if done:
            assert pair(place)[1] is None and flash.count == cut - 1
            break
    assert done


@pytest.mark.parametrize("damage", range(0, 100, 9))
def test_an_octet_that_was_changed_on_the_way_is_found(tmp_path, monkeypatch, damage):
    desk = Desk(tmp_path, monkeypatch)
    ask, *pieces = frames("router.json", NEW_CONFIG)
    desk.line(ask)
    piece = pieces[0]
    at = 3 + damage
    other = "A" if piece[at] != "A" else "B"
    answer = desk.line(piece[:at] + other + piece[at + 1 :])
    assert answer == ["error: a frame is damaged; at 0"]
    for piece in pieces:
        assert desk.line(piece)[-1] == "ok"
    assert desk.console.staging.pending() == ["router.json"]


def test_a_frame_that_comes_twice_or_too_early_changes_nothing(tmp_path, monkeypatch):
    desk = Desk(tmp_path, monkeypatch)
    ask, first, second, *rest = frames("router.json", NEW_CONFIG)
    desk.line(ask)
    assert desk.line(second)[0] == "at 0"
    assert desk.line(first)[0] == "at 144"
    assert desk.line(first)[0] == "at 144"
    for piece in [second, *rest]:
        answer = desk.line(piece)
    assert answer[0].startswith("staged router.json")


def test_a_file_that_arrives_damaged_as_a_whole_is_not_staged(tmp_path, monkeypatch):
    desk = Desk(tmp_path, monkeypatch)
    ask, *_ = frames("router.json", NEW_CONFIG)
    _, *pieces = frames("router.json", NEW_CONFIG.replace(b"120", b"121"))
    desk.line(ask)
    for piece in pieces:
        answer = desk.line(piece)
    assert answer == ["error: router.json: is damaged; send it again"]
    assert desk.console.staging.pending() == []


@pytest.mark.parametrize(
    "line",
    [
        "provision /etc/passwd 3 " + "00" * 32,
        "provision ../x 3 " + "00" * 32,
        "provision main.py 3 " + "00" * 32,
        "provision router.json 0 " + "00" * 32,
        "provision router.json 65537 " + "00" * 32,
        "provision router.json 3 " + "00" * 31,
        "provision router.json 3 zz",
        "provision router.json x " + "00" * 32,
        "provision router.json",
        ":0 AAAA 00000000",
        ":0",
        ":",
        ":x y z",
    ],
)
def test_what_is_no_transfer_is_refused(tmp_path, monkeypatch, line):
    desk = Desk(tmp_path, monkeypatch)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert desk.line(line)[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
