"Which data is this? A hash of the bars used tells, and what has changed is said in words."
import json, subprocess, sys
import numpy as np, pandas as pd, pytest

from synthlab.datasets.fingerprint import changed, fingerprint
from synthlab.datasets.mapped import MappedParquet
from synthlab.datasets.market import MarketDataLoader
from synthlab.models.registry import ConfigError
from synthlab.datasets.signals import SignalLoader
from synthlab.datasets.sources import FileDataSource, MockDataSource

mock = MockDataSource(700)
bars = mock.load(["A", "B"])

def edited(name="A", row=-1, column="close", factor=1 + 1e-15):
    out = {k: v.copy() for k, v in bars.items()}
    out[name].iloc[row, out[name].columns.get_loc(column)] *= factor
    return out

def test_the_same_whatever_way_they_came(tmp_path):
    a = bars["A"]; want = fingerprint({"a": a})
    a.to_csv(tmp_path/"a.csv", float_format="%.17g"); a.to_parquet(tmp_path/"a.parquet")
    for path in (tmp_path/"a.csv", tmp_path/"a.parquet"): assert fingerprint(FileDataSource(path).load()) == want
    assert MappedParquet(tmp_path/"a.parquet", chunk=64).fingerprint() == want
    assert fingerprint(dict(reversed(bars.items()))) == fingerprint(bars) and json.loads(json.dumps(want)) == want
    code = "from synthlab.datasets.fingerprint import fingerprint; from synthlab.datasets.sources import MockDataSource; print(fingerprint(MockDataSource(700).load(['A', 'B']))['A']['sha256'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == fingerprint(bars)["A"]["sha256"], "in another process"

@pytest.mark.parametrize("make", [lambda: edited(), lambda: edited("B", 0, "volume"), lambda: edited(row=350, column="open"), lambda: {"A": bars["A"].iloc[:-1], "B": bars["B"]},
    lambda: {"A": bars["A"]}, lambda: {"A": bars["B"], "B": bars["A"]}, lambda: {k: v.set_axis(v.index + pd.Timedelta("1min")) for k, v in bars.items()},
    lambda: {k: v.assign(funding=0.) for k, v in bars.items()}])
def test_any_change_shows(make):
    assert fingerprint(make()) != fingerprint(bars) and changed(fingerprint(bars), make())

def test_what_is_no_change():
    same = {k: v.copy() for k, v in bars.items()}
    same["A"].attrs.clear(); same["A"].index.name = None
    assert fingerprint(same) == fingerprint(bars) and changed(fingerprint(bars), same) == ""
    gone = {"A": bars["A"].assign(x=np.nan)}; other = {"A": bars["A"].assign(x=-np.float64("nan"))}
    assert fingerprint(gone) == fingerprint(other), "a number that is missing is missing"

def test_words():
    before = fingerprint(bars)
    grown = MockDataSource(750).load(["A", "B"])
    said = changed(before, grown)
    assert "A has 50 more bars behind" in said and "the first 700 are the same" in said
    assert "A has other numbers in its 700 bars" in changed(before, edited())
    assert "A has 699 bars where it had 700" in changed(before, {"A": bars["A"].iloc[:-1], "B": bars["B"]})
    assert "B is gone" in changed(before, {"A": bars["A"]}) and "C is new" in changed(before, bars | {"C": bars["A"]})
    assert "funding" in changed(before, {k: v.assign(funding=0.) for k, v in bars.items()})
    overwritten = MockDataSource(700, seed=8).load(["A", "B"])
    assert "A has other numbers in its 700 bars" in changed(before, overwritten), "as many rows of something else"

def test_loaders_know_what_they_use():
    a = MarketDataLoader(mock, "zscore", ["A", "B"], lookback=4)
    assert a.fingerprint() == fingerprint(bars) and a.changed(a.fingerprint()) == ""
    assert a.fingerprint() == SignalLoader(mock, "zscore", ["A", "B"], lookback=8).fingerprint()
    holes = {"A": bars["A"].drop(bars["A"].index[300:310])}
    one, filled = (MarketDataLoader(holes, "zscore", lookback=4, gaps=g) for g in ("segment", "ffill"))
    assert one.fingerprint() == filled.fingerprint(), "of what was given, not of what was made of it: gaps are a setting"
    assert "A has other numbers" in MarketDataLoader(edited(), "zscore", lookback=4).changed(a.fingerprint())

def test_it_is_quick():
    import time
    big = {"A": pd.DataFrame(np.random.default_rng(0).random((1_000_000, 5)), pd.date_range("2000", periods=1_000_000, freq="min", tz="UTC"), list(bars["A"]))}
    start = time.process_time(); fingerprint(big)
    assert time.process_time() - start < 2

# a run and its file

def overwritten(path, seed, rows=900):
    "Other bars of the same shape in the same file."
    bars = MockDataSource(rows, seed=seed).load("MOCK")["MOCK"].reset_index()
    bars.to_csv(path, index=False)
    return path

RUN = ["model=linear", "training.epochs=1", "training.n_paths=8", "training.batch_size=512", "evaluation.n_paths=20", "evaluation.stride=24",
       "evaluation.n_boot=100", "evaluation.baselines=[constant]", "tracking.mode=disabled"]

@pytest.mark.parametrize("rows, words", [(900, "other numbers in its 900 bars"), (950, "where it had 900|50 more bars behind")])
def test_a_run_does_not_go_on_with_another_file(rows, words, tmp_path):
    "Overwritten by as many other rows, or grown: resume refuses in a sentence, evaluate says it first; put back, it goes on."
    from synthlab.experiments.experiment import evaluate, resume, run
    path = overwritten(tmp_path/"bars.csv", 1)
    kept = path.read_bytes()
    found = run("market", [f"data={path}", *RUN, f"runs={tmp_path}"], quiet=True)
    found["run"].set_status("interrupted")
    overwritten(path, 2, rows)
    with pytest.raises(ConfigError, match=f"began with other data: {path}.*({words}).*put them back"): resume(found["run"].folder, quiet=True)
    said = evaluate(found["run"].folder, quiet=True)["conclusion"]
    assert said.startswith("**The run is failed**") or "**These are not the data of the training**" in said
    path.write_bytes(kept)
    again = resume(found["run"].folder, quiet=True)
    assert again["metrics"]["crps"] == found["metrics"]["crps"] and "not the data" not in again["conclusion"]
