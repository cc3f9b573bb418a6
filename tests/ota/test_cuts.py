"""The power is cut at every step of an update: the box starts the old program or the new one.

P5 and P6 of the threats. Here each operation on files is a step, with torn writes;
test_littlefs.py does the same below a real littlefs, block by block.
"""

import pytest

from haaro.ota.slots import Slots
from tests.ota.conftest import Box, Flash, PowerCut, bundle, program

NEW = program("new")


def life(box, data):
    """An update from the first octet to the commit."""
    box.install(data)
    slot, trial = box.boot()
    assert (slot, trial) == ("b", True)
    Slots(box.base, slot).commit()


def failing(box, data):
    """An update whose program crashes at each start."""
    box.install(data)
    for _ in range(4):
        box.boot()


def steps_of(folder, work, data):
    with pytest.MonkeyPatch.context() as patch:
        box = Box(folder)
        flash = Flash(patch, 0, 0)
        work(box, data)
    return flash.count


@pytest.mark.parametrize(("work", "torn"), [(life, 0.0), (life, 0.5), (life, 1.0), (failing, 0.5)])
def test_a_power_cut_at_every_step_leaves_a_whole_program_to_start(tmp_path, work, torn):
    data = bundle(NEW)
    steps = steps_of(tmp_path / "count", work, data)
    assert 3 * steps > 100
    seen = set()
    for cut in range(1, steps + 1):
        with pytest.MonkeyPatch.context() as patch:
            box = Box(tmp_path / str(cut))
            Flash(patch, cut, torn)
            with pytest.raises(PowerCut):
                work(box, data)
        slot, trial = box.boot()
        version = box.version(slot)
        assert version in ("0.1.0-r1", "0.2.0-r1"), cut
        assert box.version("a") == "0.1.0-r1", "what ran before is whole whatever happens"
        seen.add((version, trial))
        # And it gets there after all, if it is started again.
        if slot == "a" and work is life:
            box.install(data)
            slot, trial = box.boot()
        if work is life:
            box.slots(slot).commit()
            assert box.boot() == ("b", False)
            assert box.version("b") == "0.2.0-r1"
    assert seen >= {("0.1.0-r1", False), ("0.2.0-r1", True)}, "cuts fell on both sides"


def test_a_second_cut_while_the_first_one_is_made_good(tmp_path):
    """Every eighth cut of an update, then one at every seventh step of the next attempt."""
    data = bundle(NEW)
    steps = steps_of(tmp_path / "count", life, data)
    points = 0
    for first in range(1, steps + 1, 8):
        for second in range(1, steps, 7):
            with pytest.MonkeyPatch.context() as patch:
                box = Box(tmp_path / f"{first}-{second}")
                Flash(patch, first, 0.5)
                with pytest.raises(PowerCut):
                    life(box, data)
            with pytest.MonkeyPatch.context() as patch:
                Flash(patch, second, 0.5)
                try:
                    if box.boot()[0] == "a":
                        life(box, data)
                except PowerCut:
                    points += 1
            slot, _ = box.boot()
            assert box.version(slot) in ("0.1.0-r1", "0.2.0-r1")
            assert box.version("a") == "0.1.0-r1"
    assert points > 60


def test_a_cut_while_a_third_program_replaces_the_slot_before_last(tmp_path):
    """Slot A is emptied now: B must be whole throughout."""
    second, third = bundle(NEW), bundle(program("third"), "0.3.0-r1")

    def prepared(folder):
        box = Box(folder)
        life(box, second)
        return box

    with pytest.MonkeyPatch.context() as patch:
        box = prepared(tmp_path / "count")
        flash = Flash(patch, 0, 0)
        box.install(third, slot="b")
    for cut in range(1, flash.count + 1):
        box = prepared(tmp_path / str(cut))
        with pytest.MonkeyPatch.context() as patch:
            Flash(patch, cut, 0.5)
            with pytest.raises(PowerCut):
                box.install(third, slot="b")
        slot, _ = box.boot()
        assert box.version(slot) in ("0.2.0-r1", "0.3.0-r1"), cut
        assert box.version("b") == "0.2.0-r1"
        # A manifest is a promise, also in the slot that is being emptied.
        assert box.version("a") in (None, "0.1.0-r1", "0.3.0-r1"), cut


def test_an_update_that_nothing_interrupts_leaves_nothing_lying_about(box):
    life(box, bundle(NEW))
    names = {path.name for path in (box.folder / "slots").iterdir()}
    assert names == {"a", "b", "boot", "floor", "tried"}
    assert box.version("b") == "0.2.0-r1"
