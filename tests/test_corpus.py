"""R26: files of every earlier version load, and say what they said; see `corpus.py`, which wrote them."""
import json, shutil

import pytest

import corpus, tiny
from synthlab.datasets.store import open_store
from synthlab.experiments import lab as lab_module, plugins
from synthlab.experiments.config import read_yaml
from synthlab.experiments.experiment import evaluate
from synthlab.experiments.lab import get_lab
from synthlab.experiments.runs import Run, list_runs
from synthlab.trainers.checkpoints import newest_checkpoint

VERSIONS = sorted(p.name for p in corpus.CORPUS.iterdir())

@pytest.fixture(params=VERSIONS)
def kept(request, tmp_path):
    "The files of a version, and the numbers that it found in them."
    shutil.copytree(corpus.CORPUS/request.param, tmp_path/"kept")
    return tmp_path/"kept", json.loads((tmp_path/"kept/expected.json").read_text())

def test_there_is_a_corpus():
    assert VERSIONS and not [p for p in corpus.CORPUS.rglob("*") if p.suffix in (".pkl", ".pickle", ".pt", ".pth")]
    assert sum(p.stat().st_size for p in corpus.CORPUS.rglob("*") if p.is_file()) < 200_000*len(VERSIONS)

def test_a_training_goes_on(kept):
    "From its last checkpoint, with its optimiser and its facts, to the end."
    folder = kept[0]/"half"
    assert newest_checkpoint(folder/"checkpoints")[2]["step"] == 24
    rows = tiny.rows(folder)
    trainer = tiny.train(folder)
    assert trainer.step == 50 and tiny.rows(folder)[:7] == rows[:7] and len(tiny.rows(folder)) > len(rows)

def test_a_run_is_read_asked_and_tested(kept, monkeypatch):
    "Listed with its numbers; its model says what it said; its test gives the same result."
    monkeypatch.setattr(plugins, "_loaded", {}); monkeypatch.setattr(lab_module, "_labs", dict(lab_module._labs))
    folder, expected = kept
    corpus.load_plugin(folder/"toy_lab.py")
    known = list_runs(folder)
    assert known["name"].tolist() == ["run"] and known["status"].tolist() == ["done"]
    assert corpus.asked(folder/"toy") == pytest.approx(expected["toy"], rel=1e-12)
    result = Run(folder/"toy").result
    assert evaluate(folder/"toy", quiet=True)["metrics"]["rmse"] == pytest.approx(result["rmse"], rel=1e-12) == known["rmse"][0]

@pytest.mark.parametrize("lab", corpus.LABS)
def test_settings_are_settings(kept, lab):
    "What was set is set; what has come since has its default."
    own = get_lab(lab)
    config = read_yaml(own.schema, (kept[0]/f"{lab}.yaml").read_text())
    assert type(config) is own.schema and config.threads == 1

def test_a_store_is_a_store(kept):
    assert corpus.digest(open_store(kept[0]/"store", "full")) == kept[1]["store"]
