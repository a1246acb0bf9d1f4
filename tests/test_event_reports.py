"""Reports of the events lab at toy size: every cell shows something, or says why there is nothing; and a sweep's report shows every run."""
import json
from pathlib import Path

import pytest
from papermill import PapermillExecutionError

from in_process import execute
from synthlab.experiments.comparison import compare_folder
from synthlab.experiments.reports import findings
from synthlab.experiments.runs import Run, list_runs
from synthlab.experiments.moments import discover_runs
from synthlab.experiments.sweeps import newest_sweep, run_sweep
from synthlab.labs.events.comparison import compare_sweep
from synthlab.models.registry import ConfigError

pytestmark = pytest.mark.usefixtures("warm")

NBS = Path(__file__).parent.parent/"nbs"
TINY = ["data.source=toy", "data.n=100", "data.n_signal=24", "data.tokens=6", "encoder=mlp", "decoder=mlp", "encoder.hidden=[8]", "decoder.hidden=[8]", "training.epochs=1",
        "training.batch_size=40", "evaluation.n_boot=100", "evaluation.samples=50", "evaluation.corruptions=[]", "logging.make_plots=false", "tracking.mode=disabled"]

def silent(out):
    "Cells that end in a value and show none."
    last = {c.source.strip().splitlines()[-1]: c.outputs for c in out.cells if c.cell_type == "code" and c.source.strip()}
    return [line for line, shown in last.items() if line.startswith(("show", "figures[", "Markdown", "Finding", "RunLink")) and not shown]

@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    "Two latent spaces; a sweep of another lab, younger, beside it."
    folder = tmp_path_factory.mktemp("reports")/"runs"/"night"
    run_sweep("events", [*TINY, "latent=vq,none", "evaluation.inverse=false"], folder, progress=False)
    other = folder.parent/"market"
    other.mkdir()
    (other/"sweep.json").write_text(json.dumps(dict(lab="market", created="2100-01-01T00:00:00+00:00", variants=[])))
    return folder

@pytest.mark.slow
def test_an_autoencoder_report_without_codebook_and_inverse(tmp_path):
    "What there is no picture of is said."
    out = execute(NBS/"autoencode.ipynb", tmp_path, source="toy", latent_space="none", run_dir="run", overrides=[*TINY[1:], "evaluation.inverse=false"])
    text = str(out)
    assert "This latent space has no words" in text and "The inverse task was not asked for" in text and "No events were damaged" in text
    assert not silent(out) and all(then == now for then, now in findings(out)) and findings(out)

def test_a_comparison_shows_every_run(sweep):
    "Also the one that failed; the sentence is computed from numbers in the file."
    failed = sweep/"2_none"
    kept = {path: path.read_bytes() for path in (failed/"status.json", failed/"result.json")}
    (failed/"status.json").write_text(kept[failed/"status.json"].decode().replace('"done"', '"failed"'))
    (failed/"result.json").unlink()
    try: out = execute(NBS/"compare.ipynb", sweep.parent.parent)
    finally:
        for path, data in kept.items(): path.write_bytes(data)
    text = str(out)
    assert "1 of 2 runs is done. Failed: none." in text and not silent(out)
    assert "There are no two runs that were asked the same" in text
    assert findings(out) and all(then == now for then, now in findings(out))
    assert (sweep/"figures"/"curves.png").exists()

@pytest.mark.parametrize("field, value", [("bits", "few"), ("reconstruction", None), ("codes_used", [1]), ("errors", [1]), ("anomalies", {}), ("anomalies", [1]), ("parameters", "many")])
def test_a_result_of_another_kind(field, value, sweep):
    "File and field, before anything is drawn of it."
    path = sweep/"2_none"/"result.json"
    kept = path.read_bytes()
    try:
        path.write_text(json.dumps(json.loads(kept) | {field: value}))
        with pytest.raises(ConfigError, match=f"result.json: .*{field}") as told: compare_sweep(sweep)
        assert "\n" not in str(told.value) and len(str(told.value)) < 500
    finally: path.write_bytes(kept)

def test_whom_runs_are_compared_with(sweep):
    "By name or folder, on the report as on the command line."
    assert list(compare_sweep(sweep).compared[0].index) == ["vq", "none"]
    assert list(compare_sweep(sweep, "none").compared[0].index) == ["none", "vq"] == list(compare_sweep(sweep, "2_none").compared[0].index)
    with pytest.raises(ConfigError, match="did you mean none"): compare_sweep(sweep, "nine")
    with pytest.raises(ConfigError, match="did you mean 2_none"): compare_folder(sweep, "2_nine")

@pytest.mark.parametrize("report,wrong,said", [
    ("autoencode", dict(lop="ae"), "did you mean loop"), ("autoencode", dict(latent_space="vk"), "did you mean vq"), ("autoencode", dict(epochs="many"), "epochs"),
    ("compare", dict(sweep="x"), "did you mean sweep_dir"), ("compare", dict(sweep_dir="nowhere"), "there is no folder nowhere"), ("compare", {}, "synthlab events sweep")])
def test_a_bad_parameter_is_one_sentence(report, wrong, said, tmp_path):
    with pytest.raises(PapermillExecutionError, match=said): execute(NBS/f"{report}.ipynb", tmp_path, **wrong)
    assert not (tmp_path/"runs").exists()

def test_the_newest_sweep_of_a_lab(sweep):
    assert newest_sweep("events", sweep.parent) == sweep
    with pytest.raises(ConfigError, match="synthlab macro sweep"): newest_sweep("macro", sweep.parent)

def test_folders_are_counted(tmp_path):
    "The tenth run does not come before the second, and is not what others are compared with."
    for name in ("10_a", "9_b", "1_c"): Run.create(tmp_path, "market", "run", folder=tmp_path/name).close("done")
    assert [Path(f).name for f in list_runs(tmp_path)["folder"]] == [p.name for p in discover_runs(tmp_path)] == ["1_c", "9_b", "10_a"]

def test_a_run_that_cannot_be_compared_is_named(monkeypatch, tmp_path):
    "Left out in silence it would make the others look better than so many trials allow."
    import pandas as pd
    from types import SimpleNamespace
    from synthlab.experiments import comparison
    from synthlab.models.registry import ConfigError
    one = SimpleNamespace(lab=SimpleNamespace(name="toy"))
    def outcomes_of(path):
        if path.name == "b": raise ConfigError("runs/b was made with the plug-in mine.py; give it again: --plugin mine.py")
        return one
    monkeypatch.setattr(comparison, "list_runs", lambda folder: pd.DataFrame(dict(folder=[str(tmp_path/n) for n in "abc"], status="done")))
    monkeypatch.setattr(comparison, "outcomes_of", outcomes_of)
    monkeypatch.setattr(comparison, "comparable", lambda a, b: True)
    monkeypatch.setattr(comparison, "compare_runs", lambda runs, **options: pd.DataFrame(index=list(runs)))
    with pytest.warns(UserWarning, match="^b is left out: runs/b was made with the plug-in mine.py"): _, tables = comparison.compare_folder(tmp_path)
    assert list(tables["a"].index) == ["a", "c"]
