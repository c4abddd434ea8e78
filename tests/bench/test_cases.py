"""Every case names tests that exist, and every file of a case is named once."""

import ast
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bench.proofs import cases as proof
from bench.support.cases import MODELS, RECORDS, Case

CASES = (*RECORDS, *MODELS)
FILES = Path(__file__).parents[1] / "fixtures/cases/data"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tests_of_a_case_exist(root: Path, case: Case) -> None:
    assert case.tests
    for test in case.tests:
        file, _colons, name = test.partition("::")
        tree = ast.parse((root / file).read_text())
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)], test


def test_every_file_belongs_to_one_case() -> None:
    for file in (path.name for path in FILES.iterdir() if not path.name.startswith(".")):
        owners = [case.name for case in CASES for pattern in case.files if fnmatch(file, pattern)]
        assert len(owners) == 1, (file, owners)


def test_every_case_stands_in_the_report(root: Path) -> None:
    text = (root / "docs/measurements/cases.md").read_text()
    for case in CASES:
        (line,) = [line for line in text.splitlines() if line.startswith(f"| {case.name} ")]
        assert all(f"`{test}`" in line for test in case.tests)
        assert line.endswith(" passed |")


def test_a_failed_test_is_counted() -> None:
    case = Case("name", "source", "right", ("a::test_a", "a::test_b"))

    assert proof.row(case, {"a::test_a": [True, True], "a::test_b": [True]}).endswith("| 3 passed |")
    assert proof.row(case, {"a::test_a": [True, False], "a::test_b": []}).endswith("| 2 of 3 failed |")
