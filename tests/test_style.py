"Lines that fit on a screen, no name that is imported and not used, no variable that nobody reads: ruff, as `pyproject.toml` sets it."
import json, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = "metrics", "datasets", "models", "trainers", "experiments", "labs", "cli"
PLACES = [*(f"synthlab/{floor}" for floor in FLOORS), "docs", "peers", "tests"]

def found(place, root=ROOT):
    "What ruff finds: (file, line, rule, what). The list of names that nbdev writes at the top of a module is its own affair."
    out = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "json", place], cwd=root, capture_output=True, text=True)
    assert out.returncode in (0, 1), out.stderr
    facts = [(Path(f["filename"]), f["location"]["row"], f["code"], f["message"]) for f in json.loads(out.stdout)]
    written = lambda path, row: path.read_text(encoding="utf-8").splitlines()[row - 1].startswith("__all__ = ")
    return [(path.name, row, code, what) for path, row, code, what in facts if not (code == "E501" and written(path, row))]

@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_found(place):
    assert found(place) == []

@pytest.mark.parametrize("text,code", [("x = 1" + " "*116 + "# far\n", "E501"), ("import os\n", "F401"), ("def f(): return y\n", "F821"),
    ("try: pass\nexcept: pass\n", "E722"), ("def f():\n    x = 1\n", "F841"), ("if x == None: pass\n", "E711")])
def test_what_is_wrong_is_found(text, code, tmp_path):
    (tmp_path/"pyproject.toml").write_text((ROOT/"pyproject.toml").read_text())
    (tmp_path/"synthlab").mkdir(); (tmp_path/"synthlab/new.py").write_text(text)
    assert code in [f[2] for f in found("synthlab", tmp_path)]

def test_a_list_of_names_may_be_wide(tmp_path):
    (tmp_path/"pyproject.toml").write_text((ROOT/"pyproject.toml").read_text())
    (tmp_path/"new.py").write_text(f"__all__ = [{', '.join(repr('name' + str(i)) for i in range(20))}]\n")
    assert {f[2] for f in found(".", tmp_path)} <= {"F822"}
