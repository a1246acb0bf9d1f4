"""The table of promises names tests that exist: a test that was renamed would silently count for nothing."""
import ast
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from promises import COUNTS, PROMISES, promises_of, read_counts

HERE = Path(__file__).parent
TESTS = [f"{path.stem}::{node.name}" for path in sorted(HERE.glob("test_*.py")) for node in ast.parse(path.read_text()).body
         if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]

@pytest.mark.parametrize("key", PROMISES)
def test_every_promise_is_kept_by_tests_that_exist(key):
    assert [p for p in PROMISES[key].tests if not any(fnmatchcase(name, p) for name in TESTS)] == []

def test_a_case_counts_for_its_promise():
    assert promises_of("tests/test_store.py::test_eight_readers[3]@test_store") == ["R17"] and promises_of("tests/test_twice.py::test_x") == []

def test_the_counts_are_of_promises():
    assert COUNTS.exists() and all(set(run["cases"]) <= set(PROMISES) for run in read_counts().values())
