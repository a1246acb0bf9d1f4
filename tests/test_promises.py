"""The table of promises names tests that exist: a test that was renamed would silently count for nothing."""
import ast
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from promises import COUNTS, PROMISES, long_run, promises_of, read_counts

HERE = Path(__file__).parent
TESTS = [f"{path.stem}::{node.name}" for path in sorted(HERE.glob("test_*.py")) for node in ast.parse(path.read_text()).body
         if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]

@pytest.mark.parametrize("key", PROMISES)
def test_every_promise_is_kept_by_tests_that_exist(key):
    assert [p for p in PROMISES[key].tests if not any(fnmatchcase(name, p) for name in TESTS)] == []

def test_a_case_counts_for_its_promise():
    assert promises_of("tests/test_store.py::test_eight_readers[3]@test_store") == ["R17"] and promises_of("tests/test_twice.py::test_x") == []

def test_the_counts_are_of_promises():
    counts = read_counts()
    assert COUNTS.exists() and set(counts["suite"]["cases"]) <= set(PROMISES)
    assert [name for name in counts.get("long", {}) if name not in TESTS or not promises_of(name.replace("::", ".py::"))] == []

def test_what_a_long_run_says_of_a_promise():
    "The cases of all its tests, the days, the seeds; nothing of a promise that no long run has tried."
    counts = dict(long={"test_store::test_eight_readers": dict(day="2026-01-02", cases=1200, seeds=[0, 199]),
                        "test_reliability_kill::test_killed_inside_a_save": dict(day="2026-01-02", cases=120)})
    assert long_run("R17", counts) == "1,200, 2026-01-02, seeds 0 to 199" and long_run("R3", counts) == "120, 2026-01-02" and long_run("R1", counts) == ""
