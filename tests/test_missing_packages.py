"A package that is not there is named with what installs it, by its own name: an extra of ours on a public index may be somebody else's program."
import importlib.metadata, re, sys
from configparser import ConfigParser
from pathlib import Path

import pytest, torch

from synthlab.cli.main import main, mistakes
from synthlab.datasets.features import create_engineer
from synthlab.datasets.packages import MissingPackage, install_line, need, packages_of, requirement
from synthlab.datasets.remote import CcxtSource, HFOHLCVSource, fetch_file
from synthlab.experiments.publish import load_published
from synthlab.experiments.reports import execute_report
from synthlab.experiments.tasks import Task, run_tasks
from synthlab.trainers.exports import export_onnx, load_onnx

ROOT = Path(__file__).parent.parent
ini = ConfigParser(delimiters=["="]); ini.read(ROOT/"settings.ini", encoding="utf-8")
EXTRAS = {k.removesuffix("_requirements"): v.split() for k, v in ini["DEFAULT"].items() if k.endswith("_requirements")}

@pytest.fixture(autouse=True)
def facts(monkeypatch):
    "The package's facts as an installation from these settings has them."
    said = [*ini["DEFAULT"]["requirements"].split(), *(f'{r} ; extra == "{extra}"' for extra, given in EXTRAS.items() for r in given)]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: said)

def line(*names):
    "What to type for them, from the settings, by other means than the library's."
    found = [r for n in names for extra in ("lab", "market", "export", "cluster") for r in EXTRAS[extra] if re.split("[<>=]", r)[0] == n]
    assert len(found) == len(names), names
    return "python -m pip install " + " ".join(f'"{r}"' for r in found)

def stub(tmp_path): (tmp_path/"x.onnx").write_bytes(b""); return tmp_path/"x.onnx"

DOORS = {       # what is asked for -> module that is not there, packages, how it is asked for
    "wavelets": ("pywt", ["PyWavelets"], lambda p: create_engineer("wavelet")),
    "a file of the hub": ("huggingface_hub", ["huggingface_hub"], lambda p: fetch_file("lab/bars", "x.parquet")),
    "a data set of the hub": ("huggingface_hub", ["huggingface_hub"], lambda p: HFOHLCVSource("lab/bars").load()),
    "an exchange": ("ccxt", ["ccxt"], lambda p: CcxtSource().load()),
    "a published model": ("huggingface_hub", ["huggingface_hub"], lambda p: load_published("someone/paths")),
    "onnx": ("onnx", ["onnx"], lambda p: export_onnx(torch.nn.Linear(1, 1), p/"a.onnx", 4, 1)),
    "onnxscript": ("onnxscript", ["onnxscript"], lambda p: export_onnx(torch.nn.Linear(1, 1), p/"a.onnx", 4, 1)),
    "onnxruntime": ("onnxruntime", ["onnxruntime"], lambda p: load_onnx(stub(p))),
    "dask": ("dask", ["dask", "distributed", "dask-jobqueue"], lambda p: run_tasks([Task("a", "training", str(p), ())], p, cluster="local")),
    "distributed": ("distributed", ["dask", "distributed", "dask-jobqueue"], lambda p: run_tasks([Task("a", "training", str(p), ())], p, cluster="slurm")),
}

@pytest.mark.parametrize("door", DOORS)
def test_every_door_names_what_to_install(door, tmp_path, monkeypatch):
    module, packages, use = DOORS[door]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("synthlab.trainers.exports._frozen", lambda model, *size: model)
    with pytest.raises(mistakes()) as said: use(tmp_path)           # which the command line tells without a traceback
    assert line(*packages) in str(said.value) and "synthlab[" not in str(said.value) and "\n" not in str(said.value)

def test_a_report_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert execute_report("evaluate", tmp_path) is None
    assert line("papermill", "ipykernel", "nbconvert") in capsys.readouterr().out

@pytest.mark.parametrize("words", [["market", "train", "data=ccxt://binance/BTC/USDT"], ["signal", "train", "data.engineer={name: wavelet}"]])
def test_the_command_line_says_it_in_one_line(words, tmp_path, monkeypatch, capsys):
    for module in "ccxt", "pywt": monkeypatch.setitem(sys.modules, module, None)
    assert main([*words, f"runs={tmp_path}", "tracking.mode=disabled"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "python -m pip install" in said[0] and not list(tmp_path.iterdir())

SENT = re.compile(r"\b(?:pip3?|pipx|uv|conda|mamba|poetry|pixi)\b[^\n`#]*?\b(?:install|add|run)\b[^\n`#]*?(?<![\w./-])synthlab(?![\w./-])")

@pytest.mark.parametrize("line,bad", [("pip install synthlab", True), ('python -m pip install \\"synthlab[lab]\\"', True), ("pip install -U 'synthlab>=1'", True),
    ("`pip install synthlab[NAME]` takes", True), ("uv add synthlab", True), ("pip install --quiet torch synthlab", True), ('pip install ".[lab]"', False),
    ("pip install synthlab-0.1.0-py3-none-any.whl", False), ("pip install ./synthlab", False), ("pip install . # then synthlab doctor", False),
    ('type python -m pip install "ccxt>=4"', False)])
def test_what_would_fetch_it_by_name_is_seen(line, bad): assert bool(SENT.search(line)) is bad

def test_nothing_in_the_house_sends_to_the_index():
    "No message, page, notebook, comment or source of the site has anyone install this package, or an extra of it, by name: it is not there."
    folders = [p for place in ("synthlab", "nbs", "docs", ".ci") for p in (ROOT/place).rglob("*") if "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts]
    files = [p for p in [*folders, *ROOT.glob("*")] if p.is_file() and p.suffix in (".py", ".ipynb", ".md", ".ini", ".toml", ".txt", ".in", ".cff", ".css", "")]
    assert {"settings.ini", "README.md", "index.ipynb", "Makefile", "stage.py", "reports.py", "market.ipynb"} <= {p.name for p in files}
    assert not [f"{p.relative_to(ROOT)}: {m[0]}" for p in files for line in p.read_text(encoding="utf-8").splitlines() if "synthlab" in line for m in SENT.finditer(line)]

def test_the_readme_says_how_to_install():
    "From a checkout, into an environment that is entered; that the public index has another program of this name; and how to have torch without libraries for GPUs."
    text = " ".join((ROOT/"README.md").read_text(encoding="utf-8").split())
    for word in ("the program of this name on the public index is another one", "pip install . ", 'pip install ".[lab]"', "activate", "torch's own installation page", "CPU build"):
        assert word in text, word

def test_names_and_bounds(monkeypatch):
    assert requirement("pywavelets") == requirement("PyWavelets") == "PyWavelets>=1.6", "as packages are compared: case, - and _ are nothing"
    assert requirement("dask_jobqueue") == requirement("dask-jobqueue>=0") == "dask-jobqueue>=0.9"
    assert requirement("nobody-knows") == "nobody-knows" and requirement("omegaconf") == "omegaconf>=2.3,<2.4"
    assert packages_of("export") == EXTRAS["export"] and packages_of("none") == []
    assert need("math", "sums") is sys.modules["math"]
    for said in [], None, ["torch"]:                                # an older installation says less
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: said)
        assert install_line("ccxt") == 'python -m pip install "ccxt"' and packages_of("market") == []
    def gone(name): raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(importlib.metadata, "requires", gone)       # a copy of the files that nobody installed
    assert install_line("ccxt", "dask") == 'python -m pip install "ccxt" "dask"'

def test_a_package_that_is_broken_is_not_called_missing(monkeypatch, tmp_path):
    "It is there, and something that it imports is not: that is what is named."
    (tmp_path/"half_there.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackage, match="not_there_at_all"): need("half_there", "this")

def test_a_kernel_does_not_warn_of_itself(tmp_path, monkeypatch):
    "A report's kernel is asked to be silent about its own socket; what the cells print is not touched."
    papermill, asked = pytest.importorskip("papermill"), {}
    monkeypatch.setattr(papermill, "execute_notebook", lambda *given, **options: asked.update(options))
    monkeypatch.setattr("synthlab.experiments.reports.file_report", lambda made: (made.with_suffix(".html"), None))
    execute_report("evaluate", tmp_path)
    assert asked["extra_arguments"] == ["--log-level=CRITICAL"]
