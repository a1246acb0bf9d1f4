"Phases, columns and settings of the quant lab at a terminal: nothing after the cut is learnt from, and what is finished is not done again."
import json, shutil

import numpy as np, pandas as pd, pytest
from synthlab.cli.main import main
from synthlab.experiments.ledger import TrialLedger
from synthlab.labs.quant import phases
from synthlab.labs.quant.phases import held_out_scores, part_in_time, run_phase
from synthlab.models.registry import ConfigError
from synthlab.trainers.family_files import find_families, load_family

BOOST = dict(n_estimators=10, min_data_in_leaf=5)
QUICK = dict(lightgbm=BOOST, vae=dict(epochs=1, encoder_layers=[4], decoder_layers=[4]), gmm_regime=dict(n_init=1))
DAYS = pd.bdate_range("2020-01-01", periods=140, tz="UTC")

def table(target="fwd_ret_2d", assets=("A", "B"), seed=0):
    "Four columns, of which a and b matter."
    rng, frames = np.random.default_rng(seed), []
    for asset in assets:
        frame = pd.DataFrame(rng.normal(size=(len(DAYS), 4)), columns=list("abcd"))
        value = frame.a + .5*frame.b + .3*rng.normal(size=len(frame))
        frame[target] = (value > 0)*1. if target.startswith("will") else value
        close = 100*np.exp(.01*rng.normal(size=len(frame)).cumsum())
        frames.append(frame.assign(decided_at=DAYS, asset=asset, close=close))
    return pd.concat(frames, ignore_index=True)

def features(folder, data=None, **more):
    return run_phase("features", table() if data is None else data, folder, **dict(latent_dim=2, config=QUICK) | more)

def bits(folder): return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.suffix == ".safetensors"}

@pytest.fixture(scope="module")
def first(tmp_path_factory):
    "What phase one leaves of two symbols."
    folder = tmp_path_factory.mktemp("phases")/"features"
    features(folder)
    return folder

def test_what_phase_one_leaves(first):
    "The files by their names; the columns that matter on top; shares that add up to 1; latents and a regime beside the columns."
    names = json.loads((first/"A/top_50_features.json").read_text())
    report = pd.read_csv(first/"A/feature_importance_report.csv")
    assert set(names[:2]) == {"a", "b"} and list(report) == ["feature", "importance", "rank", "cumulative_importance"]
    assert report["rank"].tolist() == [1, 2, 3, 4] and report.cumulative_importance.iloc[-1] == pytest.approx(1)
    said, rows = json.loads((first/"A/phase1_summary.json").read_text()), pd.read_parquet(first/"A/features.parquet")
    assert said["features"] == [*names, "latent_0", "latent_1", "regime"] and set(rows) == {*said["features"], "fwd_ret_2d", "ends_at"}
    assert len(rows) == len(DAYS) and set(rows.regime) <= {0., 1., 2.} and rows.regime.nunique() > 1
    found = find_families(first, symbol="B")
    assert found.family.tolist() == ["gmm_regime", "lightgbm", "vae"]
    again = load_family(found.path.iloc[2]).encode(pd.read_parquet(first/"B/features.parquet")[json.loads((first/"B/top_50_features.json").read_text())])
    assert np.array_equal(again, pd.read_parquet(first/"B/features.parquet")[["latent_0", "latent_1"]])

@pytest.mark.parametrize("field, value", [("features", "abcd"), ("features", ["a", 1]), ("features", ["a", "z"]), ("target", None), ("target", "b2"), ("cut", "soon"), ("cut", 3), ("symbol", []), ("symbol", "../B")])
def test_a_summary_of_another_kind(field, value, first, tmp_path):
    "File and field in one sentence, before a family is fitted."
    shutil.copytree(first/"A", tmp_path/"first/A")
    path = tmp_path/"first/A/phase1_summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(ConfigError) as told: run_phase("core", tmp_path/"first", tmp_path/"core", models=["ridge"])
    said = str(told.value)
    assert "A/phase1_summary.json" in said and field in said and "\n" not in said and len(said) < 400, said

@pytest.mark.parametrize("text", ["[]", "{", '{"asked": 1, "files": []}', '{"asked": "x", "files": [1]}', '{"asked": "x"}'])
def test_a_finished_phase_of_another_kind(text, first, tmp_path):
    shutil.copytree(first, tmp_path/"first")
    (tmp_path/"first/A/phase1_summary.json").write_text(text)
    with pytest.raises(ConfigError, match="A/phase1_summary.json"): features(tmp_path/"first")

def test_nothing_after_the_cut_is_learnt_from(first, tmp_path):
    "With another future, features and outcomes, every family is the same to the bit, and so is every row before the cut."
    other = table()
    cut = pd.Timestamp(json.loads((first/"A/phase1_summary.json").read_text())["cut"])
    late, open_ = other.decided_at >= cut, other.decided_at >= cut - pd.offsets.BDay(2)
    other.loc[late, list("abcd")] = other.loc[late, list("abcd")]*-7 + 3
    other.loc[open_, "fwd_ret_2d"] = 99.
    features(tmp_path, other)
    assert len(bits(first/"A")) == 3 and bits(first/"A") == bits(tmp_path/"A")
    past = lambda folder: (lambda t: t[t.index.get_level_values(0) < cut])(pd.read_parquet(folder/"A/features.parquet").drop(columns="fwd_ret_2d"))
    pd.testing.assert_frame_equal(past(first), past(tmp_path))
    assert (first/"A/feature_importance_report.csv").read_bytes() == (tmp_path/"A/feature_importance_report.csv").read_bytes()

def test_an_outcome_that_is_known_too_late_is_not_learnt():
    found = part_in_time(DAYS[:8], DAYS[2:10], np.arange(8.))
    assert found.cut == DAYS[6] and np.flatnonzero(found.learnt).tolist() == [0, 1, 2, 3] and np.flatnonzero(found.tested).tolist() == [6, 7]

def test_a_phase_that_is_killed_goes_on(tmp_path, monkeypatch):
    real = phases._write
    def killed(path, frame):
        if path.parent.name == "B": raise KeyboardInterrupt
        real(path, frame)
    monkeypatch.setattr(phases, "_write", killed)
    plain = dict(models=["lightgbm"], config=dict(lightgbm=BOOST))
    with pytest.raises(KeyboardInterrupt): features(tmp_path, **plain)
    assert not (tmp_path/"B/phase1_summary.json").exists()
    monkeypatch.undo()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path/"A").iterdir()}
    assert features(tmp_path, **plain).status.tolist() == ["kept", "done"]
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path/"A").iterdir()}
    (tmp_path/"A/features.parquet").unlink()                        # a summary alone is not enough
    assert features(tmp_path, **plain, symbols=["A"]).status.tolist() == ["done"]
    assert pd.read_csv(tmp_path/"phase1.csv").symbol.tolist() == ["A", "B"]
    with pytest.raises(ConfigError, match="other settings or data"): features(tmp_path, **plain | dict(config=dict(lightgbm=dict(n_estimators=9))))

def test_later_phases_stand_beside_ridge_and_the_base(first, tmp_path):
    config = dict(lstm=dict(units=4, epochs=1, lookback=5), ngboost=dict(n_estimators=5))
    both = dict(lightgbm=BOOST, multi_task=dict(epochs=1, hidden_dim=4))
    core = run_phase("core", first, tmp_path, models=["lightgbm", "multi_task"], config=both, symbols=["A"])
    later = run_phase("sequential", first, tmp_path, models=["lstm", "ngboost"], config=config, symbols=["A"])
    assert core.model.tolist() == ["lightgbm", "multi_task", "ridge", "base"] and later.model.tolist() == ["lstm", "ngboost", "ridge", "base"]
    assert core.set_index("model").r2["ridge"] > .5 and (core.set_index("model").r2["base"] == 0) and core.rows.nunique() == 1
    assert run_phase("sequential", first, tmp_path, models=["lstm", "ngboost"], config=config, symbols=["A"]).status.eq("kept").all()
    said = pd.read_parquet(tmp_path/"A/phase3_predictions.parquet")
    rows, names = pd.read_parquet(first/"A/features.parquet"), json.loads((first/"A/phase1_summary.json").read_text())["features"]
    for name in "lstm", "ngboost":                                  # a file says what was scored
        path = find_families(tmp_path, family=name).path.iloc[-1]
        assert np.array_equal(load_family(path).predict(rows.loc[said.index, names]), said[name])

def test_a_yes_or_no_is_scored_as_one(tmp_path):
    plain = dict(models=["lightgbm"], config=dict(lightgbm=BOOST), symbols=["A"])
    features(tmp_path/"1", table("will_valley_mdd_2d_0.03"), **plain)
    more = dict(models=["lightgbm", "multi_task"], config=dict(lightgbm=BOOST, multi_task=dict(epochs=1, hidden_dim=4)))
    found = run_phase("core", tmp_path/"1", tmp_path/"2", **more).set_index("model")
    assert 0 <= found.auc["multi_task"] <= 1 and found.auc["ridge"] > .8 and found.brier_skill["base"] == 0 and found.auc["base"] == .5

def test_scores_by_hand():
    came = np.array([0., 1, 2, 3])
    assert held_out_scores(came[::-1], came, 1.5, "regression") == dict(rank_ic=pytest.approx(-1), r2=-3, mae=2)
    assert np.isnan(held_out_scores(np.ones(4), came, 1.5, "regression")["rank_ic"])
    assert held_out_scores(np.array([0, 1, 1]), np.array([0, 1, 2]), 1, "multiclass") == dict(accuracy=pytest.approx(2/3), base=pytest.approx(1/3))

@pytest.mark.parametrize("asked, why", [
    (dict(phase="featurs"), "no phase"), (dict(symbols=["C"]), "no symbol 'C'"), (dict(models=["lightgbm", "ridge"]), "one family that judges"),
    (dict(models=["lightgbm"], config=dict(ridge={})), "ridge, which is not fitted"), (dict(target="fwd_ret_9d"), "no column")])
def test_what_cannot_be_is_said(asked, why, tmp_path):
    with pytest.raises(ConfigError, match=why): run_phase(**dict(phase="features", input_dir=table(), output_dir=tmp_path) | asked)
    assert not any(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="run that first"): run_phase("core", tmp_path, tmp_path)

def test_the_three_verbs(first, tmp_path, monkeypatch, capsys):
    "From a folder of labelled tables, a file a symbol, to files that can be read."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"labelled").mkdir()
    for asset, rows in table().groupby("asset"): rows.drop(columns="asset").to_csv(f"labelled/{asset}.csv", index=False)
    (tmp_path/"lightgbm.yaml").write_text("hyperparameters: {n_estimators: 10, min_data_in_leaf: 5}\n")
    run = "quant run --phase {} --input-dir {} --output-dir {} --models lightgbm --config lightgbm.yaml --symbols A --variant conservative"
    assert main(run.format("features", "labelled", "one").split()) == 0 and "done" in capsys.readouterr().out
    assert main(run.format("core", "one", "two").split()) == 0 and "ridge" in capsys.readouterr().out
    assert main("quant select labelled --target fwd_ret_2d --family ridge --features 2 --output kept.csv".split()) == 0
    kept = pd.read_csv("kept.csv").set_index("feature")             # a tells more than a column is believed to tell, and it is said
    assert kept.kept["b"] and not kept.kept["a"] and "strength" in kept.why["a"] and "left out: a" in capsys.readouterr().out
    for method in "permutation", "elimination":
        assert main(f"quant select labelled --family ridge --method {method} --features 2".split()) == 0
    assert main("quant select labelled --method leaks".split()) == 0 and "a" in capsys.readouterr().out
    assert main("quant search labelled --family ridge --grid alpha=.1,10 --folds 3 --output tried.csv".split()) == 0
    assert len(TrialLedger("runs/ledger.jsonl").lines()) == 2 == len(pd.read_csv("tried.csv"))
    assert np.isfinite([t.sharpe for t in TrialLedger("runs/ledger.jsonl").lines()]).all()
    capsys.readouterr()
    for line in "quant select labelled --target nothing", "quant search labelled --grid alpha", "quant run --phase core --input-dir no --output-dir x":
        assert main(line.split()) == 2
        said = capsys.readouterr().err
        assert said.startswith("synthlab: ") and said.count("\n") == 1
