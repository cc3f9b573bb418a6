"""docs/conformance.md says what the tests say, and the tests name only ids that exist."""

import ast

from tests.meta import conformance


def ids() -> set[str]:
    return {row["id"] for row in conformance.read_csv("requirements.csv")}


def test_the_conformance_table_is_up_to_date():
    current = conformance.DOCUMENT.read_text()
    assert current == conformance.document(), "run `make conformance` and commit the result"


def test_tests_name_only_ids_that_exist():
    named = conformance.proofs(*conformance.SUITES)
    assert {name: tests for name, tests in named.items() if name not in ids()} == {}


def test_waivers_are_for_ids_that_exist_and_that_no_test_proves():
    waivers = conformance.read_csv("conformance_waivers.csv")
    waived = {row["id"] for row in waivers}
    assert all(row["reason"].strip() and None not in row for row in waivers)
    assert len(waived) == len(waivers)
    assert waived - ids() == set()
    assert waived & set(conformance.proofs(*conformance.SUITES)) == set()


def test_only_the_docstring_of_a_test_counts_as_naming_an_id():
    source = (
        '"""R1-1"""\n# R1-2\ndef helper():\n    """R1-3"""\n'
        'def test_a():\n    """Drops it (R3.3.3-12, R3.1.1-i4)."""\n    x = "R1-4"\n'
    )
    found = conformance.named_ids(ast.parse(source))
    assert found == {"R3.3.3-12": {"test_a"}, "R3.1.1-i4": {"test_a"}}
