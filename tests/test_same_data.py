"Sweeps, walks, backtests and the count of strategies tried know their data by what is in them: a file that was overwritten or has grown is refused, or said, in one sentence that names it."
import shutil

import numpy as np, pandas as pd, pytest

from synthlab.datasets.fingerprint import fingerprint, holds
from synthlab.datasets.sources import MockDataSource
from synthlab.experiments.ablations import AblationExperiment
from synthlab.experiments.experiment import predict, resume, run, train
from synthlab.experiments.lab import get_lab
from synthlab.experiments.runs import Run
from synthlab.experiments.sweeps import Sweep, run_only, run_sweep
from synthlab.labs.market.backtest import run_backtest
from synthlab.labs.signal.settings import signal_config
from synthlab.labs.signal.trading import earlier_ratios
from synthlab.models.registry import ConfigError

MARKET = ["model=linear", "training.epochs=1", "training.n_paths=8", "training.batch_size=512", "evaluation.n_paths=20", "evaluation.stride=24",
          "evaluation.n_boot=100", "evaluation.baselines=[constant]", "tracking.mode=disabled", "data.split.val_start=null", "data.split.test_start=null"]
BACKTEST = [o for o in MARKET if not o.startswith("model=")]
KINDS = "overwritten", "grown", "shrunk", "a stump"
WORDS = {"overwritten": "A has other numbers in its 900 bars", "grown": "A has 50 more bars behind", "shrunk": "A has 600 bars where it had 900",
         "a stump": "A has 160 bars where it had 900"}       # of which no split can be made
kinds = pytest.mark.parametrize("kind", KINDS)

def write(path, seed=1, rows=900):
    MockDataSource(rows, seed=seed).load("A")["A"].to_parquet(path)
    return path

def write_more(path, kind):
    "The same file with other bars in it; grown bars begin with the old ones."
    if kind == "overwritten": return write(path, 2)
    if kind in ("shrunk", "a stump"): return pd.read_parquet(path).iloc[:600 if kind == "shrunk" else 160].to_parquet(path)
    old, more = pd.read_parquet(path), MockDataSource(50, seed=9).load("A")["A"]
    more = more.set_axis(old.index[-1] + pd.Timedelta("5min")*np.arange(1, 51))
    pd.concat([old, more]).rename_axis("time").to_parquet(path)

def refused(path, kind): return pytest.raises(ConfigError, match=f"began with other data: {path}: {WORDS[kind]}.*put them back as they were, or")

def unfinished(sweep):
    "As if its last variant had never been begun."
    shutil.rmtree(sweep.run(sweep.variants[-1].name))
    return sweep.variants[-1].name

@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    "A sweep over a file, for copies of it; one variant is done."
    folder = tmp_path_factory.mktemp("swept")
    path = write(folder/"A.parquet")
    return run_sweep("market", [f"data={path}", *MARKET, "training.seed=1,2"], folder/"sweep", progress=False), path, path.read_bytes()

@pytest.fixture
def sweep(swept, tmp_path):
    found, path, kept = swept
    path.write_bytes(kept)
    shutil.copytree(found.folder, tmp_path/"sweep")
    yield Sweep(tmp_path/"sweep"), path, kept
    path.write_bytes(kept)

@kinds
def test_a_sweep_goes_on_with_its_own_data(kind, sweep):
    sweep, path, kept = sweep
    name = unfinished(sweep)
    taken_up = shutil.copytree(sweep.run(sweep.variants[0].name), sweep.folder.parent/"alone")
    Run(taken_up).set_status("interrupted")
    write_more(path, kind)
    with refused(path, kind): resume(taken_up, quiet=True)
    typed = [f"data={path}", *MARKET, "training.seed=1,2"]
    for go_on in lambda: run_sweep(folder=sweep.folder, progress=False), lambda: run_sweep("market", typed, sweep.folder, progress=False), lambda: run_only(sweep.folder, name):
        with refused(path, kind): go_on()
    assert not sweep.run(name).exists()
    path.write_bytes(kept)
    table = run_sweep(folder=sweep.folder, progress=False).table
    assert table.status.tolist() == ["done"]*2

@pytest.mark.parametrize("kind", KINDS[:2])
def test_a_sweep_that_has_not_begun_anything_knows_nothing(kind, sweep):
    sweep, path, kept = sweep
    for v in sweep.variants: shutil.rmtree(sweep.run(v.name))
    write_more(path, kind)
    assert run_only(sweep.folder, sweep.variants[0].name) == "done"

@kinds
@pytest.mark.parametrize("mode", ["train", "walk"])
def test_an_ablation_and_a_walk_too(kind, mode, tmp_path):
    path = write(tmp_path/"A.parquet"); kept = path.read_bytes()
    ask = lambda: AblationExperiment("market", {"a": ["training.seed=1"], "b": ["training.seed=2"]}, mode, [f"data={path}", *MARKET], 1, tmp_path/"them")
    first = ask(); first.run(progress=False)
    unfinished(first.sweep)
    write_more(path, kind)
    with refused(path, kind): ask().run(progress=False)
    path.write_bytes(kept)
    if kind == "grown": pd.testing.assert_frame_equal(ask().run(progress=False).drop(columns="seconds"), first.table.drop(columns="seconds"))

@kinds
def test_a_backtest(kind, tmp_path):
    "With what is trained and scored left as it is; put back, nothing is done again."
    path = write(tmp_path/"A.parquet"); kept = path.read_bytes()
    ask = lambda **more: run_backtest(["linear"], [f"data={path}", *BACKTEST], folds=1, folder=tmp_path/"them", progress=False, **more)
    first = ask()
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path/"them").rglob("*") if p.is_file() and p.name != "lock"}
    write_more(path, kind)
    with refused(path, kind): ask()
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps
    path.write_bytes(kept)
    assert ask().scores.equals(first.scores) and {p: p.stat().st_mtime_ns for p in stamps} == stamps

def test_scores_know_their_data(tmp_path):
    "Scores of baselines, which have no run to ask, and models that are read are held against the data, too."
    path = write(tmp_path/"A.parquet")
    ask = lambda: run_backtest(["linear"], [f"data={path}", *BACKTEST], folds=1, folder=tmp_path/"them", progress=False)
    scores = lambda b: b.scores[b.scores.simulator == "constant"]["crps"].tolist()
    first = scores(ask())
    shutil.rmtree(tmp_path/"them/fold_0/linear")                    # the runs are gone, the scores are not
    write_more(path, "overwritten")
    assert scores(ask()) != first

def test_a_model_that_is_read_is_of_these_data(tmp_path):
    path = write(tmp_path/"A.parquet")
    lab = get_lab("market")
    config = lab.configure([f"data={path}", *MARKET])
    train("market", config, tmp_path/"run", lab.load(config))
    write_more(path, "overwritten")
    with refused(path, "overwritten"): train("market", config, tmp_path/"run", lab.load(config))

def test_predicting_says_what_has_changed(tmp_path):
    "More bars behind are what predicting is for; other numbers in the past are said, and a frame has no name."
    path = write(tmp_path/"A.parquet")
    folder = tmp_path/"run"
    run("market", [f"data={path}", *MARKET], run_dir=folder, quiet=True)
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predict(folder, str(path), n_paths=4)
        write_more(path, "grown"); predict(folder, str(path), n_paths=4)
        write_more(path, "overwritten"); predict(folder, pd.read_parquet(path), n_paths=4)
    with pytest.warns(UserWarning, match=f"not the data of the training: {path}: A has other numbers in its 900 bars"): predict(folder, str(path), n_paths=4)

def test_strategies_are_counted_on_the_same_candles(tmp_path):
    "By what is in a file, not by its name: overwritten, they are others; grown, or under another name, they are the same."
    def tried(name, data, source, ratio):
        with Run.create(tmp_path, "signal", name, "", data=data) as made: made.write_result(dict(source=source, sharpe_a_bar=ratio))
    bars = MockDataSource(900, seed=1).load("A"); other = MockDataSource(900, seed=2).load("A")
    tried("same", fingerprint(bars), "/x/A.csv", .1)
    tried("earlier", fingerprint({"A": bars["A"].iloc[:700]}), "/x/A.csv", .2)
    tried("renamed", fingerprint({"B": bars["A"]}), "/y/B.csv", .3)
    tried("overwritten", fingerprint(other), "/x/A.csv", .4)
    tried("longer", fingerprint(MockDataSource(950, seed=1).load("A")), "/z.csv", .5)
    tried("unknown", None, "/x/A.csv", .6)
    config = signal_config([f"runs={tmp_path}"]); config.data.source = "/x/A.csv"
    assert sorted(earlier_ratios(config, bars=bars)) == [.1, .2, .3, .6]
    assert sorted(earlier_ratios(config)) == [.1, .2, .4, .6], "where nobody says what is in it, the name has to do"

def test_bars_that_begin_with_others():
    bars = MockDataSource(300).load("A")["A"]
    facts = fingerprint({"A": bars.iloc[:200]})["A"]
    assert holds(bars, facts) and holds(bars.iloc[:200], facts) and holds(bars.assign(mood=1.), facts)
    assert not holds(bars.iloc[:199], facts) and not holds(bars.iloc[1:], facts) and not holds(bars*1.01, facts) and not holds(bars.drop(columns="volume"), facts)
