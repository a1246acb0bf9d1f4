"Who has no checkout has the reports, and a run that is whole: copies are the user's, sentences name what is there, and no notebook tool is needed to train."
import json, re, shutil, subprocess, sys
from pathlib import Path

import pytest

from synthlab.cli.main import main
from synthlab.experiments import notebooks
from synthlab.experiments.notebooks import MARK, TOOLS, copy_notebooks, typed_path
from synthlab.experiments.reports import execute_report, file_report, parse_parameters
from synthlab.experiments.settings import runs_folder
from synthlab.datasets.packages import MissingPackage
from synthlab.models.registry import ConfigError

ROOT = Path(__file__).parent.parent

@pytest.fixture
def installed(tmp_path, monkeypatch):
    "An installed package with three reports, and an empty folder to work in."
    inside = tmp_path/"site"/"synthlab"/"nbs"
    inside.mkdir(parents=True)
    for name in "train", "evaluate", "compare": (inside/f"{name}.ipynb").write_text(json.dumps(dict(report=name)))
    (tmp_path/"site"/"nbs").mkdir(); (tmp_path/"site"/"nbs"/"train.ipynb").write_text("somebody else's")
    (tmp_path/"work").mkdir()
    monkeypatch.setattr(notebooks, "PACKAGE", inside.parent)
    monkeypatch.chdir(tmp_path/"work")
    return inside

def test_they_come_out_of_the_package_once(installed, capsys):
    assert main(["notebooks"]) == 0
    assert {p.name: p.read_bytes() for p in Path("notebooks").glob("*.ipynb")} == {p.name: p.read_bytes() for p in installed.iterdir()}
    assert "papermill notebooks/train.ipynb train.ipynb" in (said := capsys.readouterr().out) and "jupyter lab notebooks" in said

def test_what_was_changed_is_left_alone(installed, capsys):
    main(["notebooks", "mine"])
    Path("mine/train.ipynb").write_text("mine"); Path("mine/compare.ipynb").unlink(); Path("mine/own.ipynb").write_text("own")
    main(["notebooks", "mine"])
    assert "left as you changed them: train; --force" in capsys.readouterr().out
    assert Path("mine/train.ipynb").read_text() == "mine" and Path("mine/compare.ipynb").exists()
    main(["notebooks", "mine", "--force"])
    assert Path("mine/train.ipynb").read_bytes() == (installed/"train.ipynb").read_bytes() and Path("mine/own.ipynb").read_text() == "own"

def test_a_later_version_renews_what_nobody_touched(installed):
    copy_notebooks(); Path("notebooks/train.ipynb").write_text("mine")
    for name in "train", "evaluate": (installed/f"{name}.ipynb").write_text("newer")
    assert copy_notebooks() == dict(compare="there", evaluate="copied", train="changed")
    assert (Path("notebooks/train.ipynb").read_text(), Path("notebooks/evaluate.ipynb").read_text()) == ("mine", "newer")
    Path(f"notebooks/{MARK}").unlink()                      # nobody knows any more what was copied: what differs is the user's
    (installed/"evaluate.ipynb").write_text("newest")
    assert copy_notebooks()["evaluate"] == "changed"

def test_where_they_cannot_go(installed, capsys):
    Path("file").write_text("")
    for where, why in (("file", "is a file"), ("file/below", ""), (str(installed), "holds them already")):
        assert main(["notebooks", where]) == 2
        said = capsys.readouterr().err
        assert why in said and said.startswith("synthlab: ") and said.count("\n") == 1

def test_runs_lie_beside_them(installed, monkeypatch):
    "In JupyterLab, too, which works where the notebook lies."
    copy_notebooks(); copy_notebooks("deep/below"); copy_notebooks("."); Path(MARK).unlink()
    for folder, found in (("notebooks", "../runs"), ("deep/below", "../../runs"), (".", "runs")):
        with monkeypatch.context() as m: m.chdir(folder); assert runs_folder("runs") == found and runs_folder("other") == "other"
    copy_notebooks(".")
    assert runs_folder("runs") == "runs"

def test_it_takes_no_torch(tmp_path):
    code = f"import sys; from synthlab.cli.main import main; main(['notebooks', {str(tmp_path/'x')!r}]); print([m for m in ('torch', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.splitlines()[-1] == "[]"

def test_a_sentence_about_papermill_names_a_notebook_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as said: file_report("out.ipynb")
    assert Path(re.search(r"papermill (\S+\.ipynb) out\.ipynb$", str(said.value))[1]).is_file()
    copy_notebooks("a b")
    assert typed_path("a b/train.ipynb") == "'a b/train.ipynb'"
    assert not [p.name for p in (ROOT/"synthlab").rglob("*.py") if "papermill nbs/" in p.read_text(encoding="utf-8")]

@pytest.mark.parametrize("gone", TOOLS)
def test_a_run_is_whole_without_the_notebook_tools(gone, tmp_path, monkeypatch, capsys):
    "Figures, result and status; one sentence says what its report would need, and the line after it makes the report alone."
    if gone != TOOLS[0]:                                    # whichever is missing, it is the same sentence
        monkeypatch.setitem(sys.modules, gone, None)
        assert execute_report("train", tmp_path) is None and "pip install" in capsys.readouterr().out and not list(tmp_path.iterdir())
        return
    for tool in (*TOOLS, "nbformat", "nbclient"): monkeypatch.setitem(sys.modules, tool, None)
    monkeypatch.chdir(tmp_path)
    line = ["train", "data=mock", "model=linear", "training.epochs=1", "training.n_paths=8", "training.stride=24", "evaluation.n_paths=50", "evaluation.stride=48",
            "evaluation.n_boot=100", "evaluation.baselines=[constant]", "tracking.mode=disabled", "--run-dir", "runs/one", "--quiet"]
    assert main(line) == 0
    run, said = Path("runs/one"), capsys.readouterr().out.splitlines()
    assert json.loads((run/"status.json").read_text())["status"] == "done" and json.loads((run/"result.json").read_text())["crps"] > 0
    assert len(list((run/"figures").glob("*.png"))) >= 5 and not list(run.glob("report.*"))
    assert said[-1].startswith("its report cannot be had without papermill, ipykernel, nbconvert; type python -m pip install ") and said[-1].endswith(", then synthlab report runs/one")
    assert main(["report", "runs/one"]) == 2, "the page was all that was asked for"
    assert capsys.readouterr() == ("", f"synthlab: {said[-1]}\n")
    shutil.copy(ROOT/"nbs"/"train.ipynb", tmp_path)
    for asked in (lambda: file_report("train.ipynb"), lambda: parse_parameters("estimate", ["draws=3"])):
        with pytest.raises(MissingPackage, match="pip install"): asked()

def test_a_notebook_shows_a_mistake_as_its_sentence(tmp_path, monkeypatch):
    "As IPython writes it, which papermill ends with; a bug of ours keeps the calls that led to it."
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config
    class Shell(InteractiveShell):
        def _showtraceback(self, kind, value, lines): self.lines = lines
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    shell = Shell(config=Config(HistoryManager=dict(enabled=False)))
    def shown(cell): shell.run_cell(cell, store_history=False); return shell.lines
    check = "from synthlab.experiments.config import check_parameters\ncheck_parameters(['horizon = 12', '# Parameters\\nhorizn = 24'])"
    assert shown(check) == ["ConfigError: there is no parameter 'horizn'; did you mean horizon?"]
    assert shown("from synthlab.datasets.packages import need\nneed('no_such_thing', 'a miracle')")[0].startswith("MissingPackage: a miracle cannot be had")
    assert len(shown("1/0")) > 1

def test_every_copy_is_a_notebook_that_runs_with_its_own_parameters(tmp_path):
    "None names a file of the machine on which its outputs were made, except in what it tells."
    import nbformat
    copy_notebooks(tmp_path)
    for path in tmp_path.glob("*.ipynb"):
        notebook = nbformat.read(path, 4)
        nbformat.validate(notebook)
        code = [c for c in notebook.cells if c.cell_type == "code"]
        assert not [c for c in code if "../" in c.source or "injected-parameters" in c.metadata.get("tags", [])], path.name
        assert [c.metadata.tags for c in code if "parameters" in c.metadata.get("tags", [])] == [["parameters"]] or path.stem == "benchmark"
