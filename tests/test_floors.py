"A floor imports only from floors below it, and no module imports what only a developer has."
import os, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = "metrics", "datasets", "models", "trainers", "experiments", "labs", "cli"
LINT = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"

def lint(root):
    "What import-linter says of the package below `root`: the contracts are in `pyproject.toml`."
    return subprocess.run([sys.executable, "-c", LINT], cwd=root, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})

@pytest.fixture
def house(tmp_path):
    "A package of empty floors, under this project's contracts."
    for floor in FLOORS:
        (tmp_path/"synthlab"/floor).mkdir(parents=True); (tmp_path/"synthlab"/floor/"__init__.py").touch()
    for lab in "market", "macro", "signal", "quant", "events":
        (tmp_path/"synthlab"/"labs"/lab).mkdir(); (tmp_path/"synthlab"/"labs"/lab/"__init__.py").touch()
    (tmp_path/"synthlab"/"__init__.py").touch(); (tmp_path/"synthlab"/"_modidx.py").touch()
    shutil.copy(ROOT/"pyproject.toml", tmp_path)
    assert lint(tmp_path).returncode == 0
    return tmp_path

def test_imports_go_down():
    out = lint(ROOT)
    assert out.returncode == 0, out.stdout

@pytest.mark.parametrize("low,high", list(zip(FLOORS, FLOORS[1:])))
def test_an_import_that_goes_up_is_noticed(house, low, high):
    (house/"synthlab"/low/"climber.py").write_text(f"def late():\n    import synthlab.{high}\n")
    out = lint(house)
    assert out.returncode == 1 and f"synthlab.{low}.climber -> synthlab.{high}" in out.stdout, out.stdout

def test_a_module_beside_the_floors_is_noticed(house):
    (house/"synthlab"/"helpers.py").touch()
    out = lint(house)
    assert out.returncode == 1 and "helpers" in out.stdout, out.stdout

@pytest.mark.parametrize("name", ["pickle", "fastcore.basics"])
def test_a_forbidden_import_is_noticed(house, name):
    (house/"synthlab"/"metrics"/"visitor.py").write_text(f"import {name}\n")
    out = lint(house)
    assert out.returncode == 1 and f"synthlab.metrics.visitor -> {name.split('.')[0]}" in out.stdout, out.stdout

def test_a_lab_that_knows_another_is_noticed(house):
    (house/"synthlab"/"labs"/"macro"/"gossip.py").write_text("import synthlab.labs.market\n")
    out = lint(house)
    assert out.returncode == 1 and "synthlab.labs.macro.gossip -> synthlab.labs.market" in out.stdout, out.stdout
