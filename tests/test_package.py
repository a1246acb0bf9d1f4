"""The package as its users meet it: quick to import, complete when built, and each module explained by a notebook."""
import email, json, os, re, runpy, shutil, subprocess, sys, tarfile, time, venv, zipfile
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

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

MISSPELT = {"market train training.horizn=24": "training.horizon", "train trainin.lr=3 --no-report": "training.lr", "macro train data.world=[nk]": "data.worlds",
            "signal sweep data.horizn=3,4": "data.horizon", "quant train training.train_dys=100": "training.train_days", "events search latet=vq": "latent"}

def test_presets_and_misspelt_settings_need_no_torch():
    "Nor does a lab's own list of presets: what can be read is not imported."
    labs = "market", "macro", "signal", "quant", "events"
    code = f"""import contextlib, io
from synthlab.cli.main import main
def said(line):
    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out: code = main(line.split())
    return code, out.getvalue() + err.getvalue()
for line, meant in {MISSPELT}.items():
    name = next(w for w in line.split() if "=" in w).partition("=")[0]
    assert said(line) == (2, f"synthlab: there is no setting {{name}}; did you mean {{meant}}?\\n"), said(line)
for lab in {labs}: assert said(f"{{lab}} presets")[0] == 0 and said(f"{{lab}} presets")[1].count("=") >= 1, lab"""
    assert imported(code) == []

def test_settings_need_no_torch():
    "All of a lab, a group, one of them, by either spelling: types, defaults with presets, meanings. What they say is what the lab itself says (nbs/experiments/02_declared)."
    code = """import contextlib, io
from synthlab.cli.main import main
def said(line):
    with contextlib.redirect_stdout(io.StringIO()) as out: assert main(line.split()) == 0, line
    return out.getvalue()
for lab, group in dict(market="model", macro="model", signal="model", quant="family", events="logging").items():
    whole = said(f"settings {lab}")
    assert said(f"{lab} settings") == whole and whole.count("\\n") > 40 and f"\\n{group}=" in whole and "presets" not in whole, lab
    assert said(f"settings {lab} training.seed") in whole and said(f"settings {lab} training").splitlines()[0] in whole.splitlines(), lab"""
    assert imported(code) == []

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
    "What a built package must hold: every module, every preset of the command line, and every economy as text."
    files = [p for p in (ROOT/"synthlab").rglob("*") if p.suffix in (".py", ".mod") or (p.suffix == ".yaml" and "conf" in p.parts)]
    return {p.relative_to(ROOT).as_posix() for p in files}

REPORTS = {p.name for p in (ROOT/"nbs").glob("*.ipynb")}
BUILDS = "settings.ini", "setup.py", "pyproject.toml", "README.md", "MANIFEST.in", "LICENSE", "constraints.txt"

def copied(to):
    "A copy of what builds the package, so that nothing is left in the tree."
    for part in "synthlab", "nbs": shutil.copytree(ROOT/part, to/part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in BUILDS: shutil.copy(ROOT/part, to)
    return to

def kept():
    "Every file that belongs to a checkout: what git knows or would take, or, where there is no git, what an archive of sources holds."
    if (ROOT/".git").exists():
        said = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return {name for name in said.split("\0") if name and (ROOT/name).exists()}
    said = next(ROOT.glob("*.egg-info"))/"SOURCES.txt"
    return {name for name in said.read_text().splitlines() if not name.startswith(said.parent.name)}

DIRT = ["build/lib/synthlab/gone.py", "build/lib/synthlab/nbs/gone.ipynb", "dist/gone-0.1.0-py3-none-any.whl", "runs/one/report.ipynb",
    "runs/one/checkpoints/best.safetensors", "nbs/runs/one/report.ipynb", "nbs/labs/runs/two/report.ipynb", "nbs/.ipynb_checkpoints/train-checkpoint.ipynb",
    "nbs/datasets/.ipynb_checkpoints/00_bars-checkpoint.ipynb", "synthlab/__pycache__/gone.cpython-311.pyc", "synthlab/.ipynb_checkpoints/x-checkpoint.py",
    "tests/__pycache__/gone.cpython-311.pyc", "tests/.hypothesis/x", "tests/.pytest_cache/x", "notebooks/train.ipynb", "outputs/one/README.md",
    "nbs/outputs/one/README.md", "_docs/html/index.html", "_site_src/x.md", "wandb/x.json", ".venv/lib/x.py", "nbs/wandb/x.ipynb", "docs/__pycache__/gone.cpython-311.pyc"]

@pytest.fixture(scope="module")
def built(tmp_path_factory):
    "Names in the wheel and in the archive of sources that are built, without a network, from a tree in which much was made before."
    pytest.importorskip("setuptools")
    tree = tmp_path_factory.mktemp("tree")
    for name in sorted(kept() | set(DIRT)):
        (tree/name).parent.mkdir(parents=True, exist_ok=True)
        if name in BUILDS: shutil.copy(ROOT/name, tree/name)
        else: (tree/name).touch()
    (tree/"synthlab.egg-info").mkdir()
    (tree/"synthlab.egg-info"/"SOURCES.txt").write_text("\n".join(["synthlab/gone.py", *DIRT]))
    out = subprocess.run([sys.executable, "setup.py", "-q", "sdist", "bdist_wheel", "--dist-dir", "made"], cwd=tree, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    [archive] = (tree/"dist").glob("*.tar.gz")
    [wheel] = (tree/"made").glob("*.whl")
    with tarfile.open(archive) as t: sources = {m.name.partition("/")[2] for m in t.getmembers() if m.isfile()}
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
        facts = z.read(next(n for n in names if n.endswith("/METADATA"))).decode()
    return sources, names, email.message_from_string(facts)

def test_the_wheel_holds_the_package_and_nothing_that_is_gone(built):
    "Also where an earlier build left a module that was deleted since."
    inside = {name for name in built[1] if ".dist-info/" not in name}
    assert inside == content() | {f"synthlab/nbs/{name}" for name in REPORTS}
    assert any(name.endswith(".yaml") for name in inside), "no presets in synthlab/conf"

def test_the_source_archive_is_the_checkout(built):
    "All that its tests need, and neither a run, nor a checkpoint of anyone's, nor what tools left."
    made = {name for name in built[0] if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert sorted(built[0] - made) == sorted(kept())

def test_what_an_index_says_of_it(built):
    facts = built[2]
    cfg = ConfigParser(delimiters=["="]); cfg.read(ROOT/"settings.ini", encoding="utf-8")
    said = cfg["DEFAULT"]
    assert (facts["Name"], facts["Version"], facts["License"] or facts["License-Expression"]) == (said["lib_name"], said["version"], said["license"])
    assert facts["Requires-Python"] == ">=" + said["min_python"]
    assert facts.get_all("Classifier") == said["classifiers"].split("\n")[1:] and all(c.count(" :: ") for c in facts.get_all("Classifier"))
    assert {u.partition(", ")[0] for u in facts.get_all("Project-URL")} >= {"Documentation", "Source", "Issues"}
    assert "lab" in facts.get_all("Provides-Extra") and facts["Description-Content-Type"] == "text/markdown"

PYTHON = """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
  "-m pip install "*) cat said; exit $(cat ends);;
  docs/build.py) echo building;;
esac
"""
PIP = [*(f"Collecting p{i}>=1 (from synthlab==0.1.0)" for i in range(60)), "  Downloading torch-2.13.0-cp311-linux.whl (190.2 MB)",
       "  Downloading small-1-py3-none-any.whl (1.2 MB)", "Installing collected packages: small, torch", "Successfully installed small-1"]

def make(*words, **options):
    "make as at a terminal, also where these tests were started by one."
    alone = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "ARGS")}
    return subprocess.run(["make", *words], capture_output=True, text=True, env=alone, **options)

@pytest.mark.parametrize("ends", [0, 1])
def test_make_says_what_it_installs(ends, tmp_path):
    "A line for every stage and for what is large, the way into the environment at the end; and an installation that fails is none."
    for part in "Makefile", "settings.ini", "setup.py", "constraints.txt": shutil.copy(ROOT/part, tmp_path)
    (tmp_path/"python").write_text(PYTHON); (tmp_path/"python").chmod(0o755)
    (tmp_path/"said").write_text("\n".join(PIP) + "\n"); (tmp_path/"ends").write_text(str(ends))
    out = make("docs", "PYTHON=./python", cwd=tmp_path)
    said = out.stdout.splitlines()
    assert said[0].startswith("making the environment in .venv") and said[1:5] == [
        "  25 packages found, p24>=1 the latest", "  50 packages found, p49>=1 the latest", "  fetching torch-2.13.0-cp311-linux.whl (190.2 MB)",
        "  unpacking all of them: the longest silence, a minute or two"]
    assert (out.returncode == 0) is (not ends) and (tmp_path/".venv"/".ready").exists() is (not ends)
    assert any("source .venv/bin/activate" in line for line in said) is ("building" in said) is (not ends)

def test_make_lab_takes_options():
    out = make("-n", "lab", "ARGS=--allow-root", cwd=ROOT)
    assert out.stdout.splitlines()[-1].startswith(".venv/bin/jupyter lab ") and out.stdout.rstrip().endswith(" --allow-root")

@pytest.mark.parametrize("report", sorted(REPORTS))
def test_a_report_that_is_run_in_jupyterlab_leaves_the_checkout_as_it_was(report, tmp_path):
    "Its outputs go to `runs`; what was written into a cell is saved, and so is everything of other notebooks."
    import nbformat
    from traitlets.config import Config
    (tmp_path/"nbs"/"guides").mkdir(parents=True); (tmp_path/"docs").mkdir()
    path = Path(shutil.copy(ROOT/"nbs"/report, tmp_path/"nbs"))
    shutil.copy(ROOT/"docs"/"jupyter_config.py", tmp_path/"docs"); shutil.copy(ROOT/"pyproject.toml", tmp_path)
    said, config = [], Config()
    hook = runpy.run_path(str(tmp_path/"docs"/"jupyter_config.py"), {"get_config": lambda: config}) and config.ContentsManager.pre_save_hook
    manager = SimpleNamespace(root_dir=str(tmp_path), log=SimpleNamespace(info=lambda *words: said.append(words[0] % words[1:])))
    def saved(path, change):
        notebook = nbformat.read(path, 4)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        for n, c in enumerate(code): c.execution_count, c.metadata["trusted"] = n + 1, True
        change(code)
        model = dict(type="notebook", format="json", content=json.loads(json.dumps(notebook)))      # as a browser sends it
        hook(model=model, path=path.relative_to(tmp_path).as_posix(), contents_manager=manager)
        nbformat.write(nbformat.from_dict(model["content"]), path)
    def run(code): code[-1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="mine\n")]
    def edit(code): run(code); code[0].source += "\n# mine"
    before = path.read_bytes()
    saved(path, lambda code: None)
    assert path.read_bytes() == before and not said
    saved(path, run)
    assert path.read_bytes() == before and said == [f"the outputs of nbs/{report} are kept in runs/{report}"]
    assert nbformat.read(tmp_path/"runs"/report, 4).cells and "mine" in (tmp_path/"runs"/report).read_text()
    saved(path, edit)
    assert "# mine" in path.read_text() and "mine\\n" not in path.read_text()
    other = Path(shutil.copy(tmp_path/"nbs"/report, tmp_path/"nbs"/"guides"))
    saved(other, run)
    assert "mine\\n" in other.read_text()

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
