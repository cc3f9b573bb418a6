"""The firmware stays within tests/data/size_limits.toml; `make size` prints all the figures."""

import pytest

from haaro_host.flash import boards
from tests.size import run


@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lean")
    run.lean_firmware(folder)
    return folder


def kept(rows):
    for what, octets, limit in rows:
        assert octets <= limit, f"{what}: {octets} octets, {limit} allowed; make size shows more"


@pytest.mark.parametrize("board", list(run.LIMITS["mpy"]))
def test_the_program_of_a_board_stays_within_its_limit(board):
    files = run.mpy(board)
    kept([(f"{board} .mpy", sum(files.values()), run.LIMITS["mpy"][board])])


def test_every_board_that_is_flashed_has_a_limit():
    names = {path.parent.name for path in boards.folder().glob("*/board.json")}
    assert names == set(run.LIMITS["mpy"])


def test_the_heap_of_64_bit_objects_stays_within_its_limit(lean):
    kept(run.unix64(lean, (16, 64)))


def test_the_heap_of_32_bit_objects_stays_within_its_limit(lean):
    missing = run.why_no_wasm()
    if missing:
        pytest.skip(missing)
    kept(run.wasm32(lean, (16, 64)))


def test_a_crossed_limit_fails(lean, monkeypatch):
    monkeypatch.setitem(run.LIMITS["unix64"], "imports", 1)
    with pytest.raises(AssertionError, match="unix64 imports of wire and core"):
        kept(run.unix64(lean, (16,)))
