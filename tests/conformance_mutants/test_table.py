"""Every id that a test names has a change that switches its rule off, and the change still fits."""

import pytest

from tests.conformance_mutants import run
from tests.meta import conformance
from tests.meta.repository import ROOT


def test_every_named_id_has_one_change():
    ids = [identifier for mutant in run.table() for identifier in mutant["ids"]]
    assert len(ids) == len(set(ids))
    assert set(ids) == set(conformance.proofs(*conformance.SUITES))


@pytest.mark.parametrize("mutant", run.table(), ids=lambda mutant: mutant["ids"][0])
def test_the_change_fits_in_one_place_and_compiles(mutant):
    text = (ROOT / mutant["file"]).read_text()
    after = run.changed(text, mutant)
    assert after != text
    compile(after, mutant["file"], "exec")


def test_a_change_with_no_or_two_places_is_refused():
    mutant = {"ids": ["R0-1"], "file": "x", "search": "a", "replace": "b"}
    assert run.changed("xax", mutant) == "xbx"
    for text in ("xx", "xaax"):
        with pytest.raises(ValueError):
            run.changed(text, mutant)
