"""The package as its users meet it: quick to import, complete when built, and each module explained by a notebook."""
import os, re, shutil, subprocess, sys, tarfile, time, venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(p for p in (ROOT/"synthlab").rglob("*.py") if p.stem not in ("__init__", "_modidx"))
HEAVY = "torch", "pandas", "scipy", "matplotlib", "wandb", "arch"

def python(code, *args, **kw):
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, **kw)

def imported(code, *args):
    "Which heavy libraries are loaded after `code`, and how long it took a fresh process (printed, not judged: machines differ)."
    began = time.perf_counter()
    out = python(code + f"\nimport sys; print('LOADED', *[m for m in {HEAVY} if m in sys.modules])", *args)
    print(f"{code.splitlines()[-1]}: {time.perf_counter() - began:.2f} s")
    assert out.returncode == 0, out.stderr
    return out.stdout.rpartition("LOADED")[2].split()

def test_import_is_light():
    assert imported("import synthlab") == []

def test_the_command_is_installed():
    out = subprocess.run([Path(sys.executable).with_name("synthlab"), "--help"], capture_output=True, text=True)
    assert out.returncode == 0 and all(word in out.stdout for word in ("train", "evaluate", "resume", "doctor")), out.stdout + out.stderr

@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(ROOT/"synthlab").as_posix())
def test_every_module_has_a_notebook(path):
    "Its first lines name the notebook, which lies in the folder of its floor under the same name."
    written = re.search(r"File to edit: (\S+\.ipynb)", path.read_text())
    assert written, f"{path} is not exported from a notebook"
    notebook = (path.parent/written[1]).resolve()
    floor = path.parent.relative_to(ROOT/"synthlab") if path.stem != "__main__" else "cli"
    assert notebook.exists() and notebook.parent == ROOT/"nbs"/floor
    assert re.fullmatch(rf"\d\d_{path.stem}", notebook.stem), f"{notebook.name} exports {path.name}"

def content():
    "What a built package must hold: every module, and every preset of the command line."
    files = [p for p in (ROOT/"synthlab").rglob("*") if p.suffix == ".py" or (p.suffix == ".yaml" and "conf" in p.parts)]
    return {p.relative_to(ROOT).as_posix() for p in files}

REPORTS = {p.name for p in (ROOT/"nbs").glob("*.ipynb")}

def copied(to):
    "A copy of what builds the package, so that nothing is left in the tree."
    for part in "synthlab", "nbs": shutil.copytree(ROOT/part, to/part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in "settings.ini", "setup.py", "pyproject.toml", "README.md", "MANIFEST.in", "LICENSE", "constraints.txt": shutil.copy(ROOT/part, to)
    return to

def setup(tmp_path, *args):
    "Run `setup.py` on a copy."
    pytest.importorskip("setuptools")
    out = subprocess.run([sys.executable, "setup.py", "-q", *args], cwd=copied(tmp_path), capture_output=True, text=True)
    assert out.returncode == 0, out.stderr

def test_the_package_builds_whole(tmp_path):
    setup(tmp_path, "build")
    built = {p.relative_to(tmp_path/"build"/"lib").as_posix() for p in (tmp_path/"build"/"lib").rglob("*") if p.is_file()}
    assert built == content() | {f"synthlab/nbs/{name}" for name in REPORTS}
    assert any(name.endswith(".yaml") for name in built), "no presets in synthlab/conf"

def test_the_source_archive_can_be_built_from(tmp_path):
    setup(tmp_path, "sdist")
    archive = next((tmp_path/"dist").glob("*.tar.gz"))
    names = {name.partition("/")[2] for name in tarfile.open(archive).getnames()}
    assert content() | {"settings.ini", "setup.py", "pyproject.toml", "README.md", "LICENSE"} | {f"nbs/{name}" for name in REPORTS} <= names

@pytest.mark.slow
def test_a_fresh_environment_needs_no_extras(tmp_path):
    "`pip install .` into an empty environment; then every module is imported and the command answers."
    venv.create(tmp_path/"env", with_pip=True)
    bin = tmp_path/"env"/("Scripts" if os.name == "nt" else "bin")
    (tmp_path/"source").mkdir()
    subprocess.run([bin/"python", "-m", "pip", "install", "-q", "-c", ROOT/"constraints.txt", copied(tmp_path/"source")], check=True)
    modules = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in MODULES]
    subprocess.run([bin/"python", "-c", f"import importlib\nfor m in {modules}: importlib.import_module(m)"], cwd=tmp_path, check=True)
    subprocess.run([bin/"synthlab", "--help"], cwd=tmp_path, check=True)
    subprocess.run([bin/"synthlab", "train", "--no-report", "data=mock", "training.epochs=1", "evaluation.n_paths=50", "evaluation.stride=50"], cwd=tmp_path, check=True)
    missing = subprocess.run([bin/"python", "-c", "import nbdev"], cwd=tmp_path, capture_output=True)
    assert missing.returncode, "the extras came along"
