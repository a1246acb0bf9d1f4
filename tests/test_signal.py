"""One call from candles to a conclusion: complete, the same twice, the same after an interruption, and honest when there is nothing to gain; typed, scripted or in a notebook."""
import json, math, shutil
from pathlib import Path

import nbformat, numpy as np, pandas as pd, pytest
from papermill.exceptions import PapermillExecutionError

from in_process import execute
from synthlab.experiments import experiment as bench
from synthlab.experiments.lab import get_lab
from synthlab.datasets.sources import MockDataSource, get_source
from synthlab.labs.signal import experiment as lab
from synthlab.cli.main import main
from synthlab.experiments.reports import linked_run
from synthlab.experiments.runs import Run
from synthlab.labs.signal.judging import SHOWN, decide, decision_state, restore_decision
from synthlab.labs.signal.figures import signal_figures
from synthlab.labs.signal.settings import SIGNAL_KNOBS, SignalConfig, signal_config
from synthlab.labs.signal.trading import count_trials
from synthlab.metrics.recalibration import RECALIBRATION_KINDS, smoothed_targets
from synthlab.metrics.classification import classification_scores
from synthlab.metrics.performance import deflated_sharpe, sharpe
from synthlab.models.registry import ConfigError
from synthlab.trainers.checkpoints import load_checkpoint
from synthlab.trainers.trainer import Trainer

NBS = Path(__file__).parent.parent/"nbs"
TOY = ["model=small", "model.d_model=8", "model.dim_feedforward=16", "model.nhead=2", "training.epochs=2", "training.stride=12", "data.lookback=16", "evaluation.random_draws=20", "evaluation.n_boot=100",
       "tracking.mode=disabled", "threads=1"]
ONE = [*TOY, "training.epochs=1", "training.stride=24"]

@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    "A finished toy run on the index."
    return bench.run("signal", [*TOY, f"runs={tmp_path_factory.mktemp('runs')}"])

@pytest.fixture(scope="module")
def candles(tmp_path_factory):
    "Two other markets, as a file."
    found = MockDataSource(length=1600, freq="1D", seed=5).load(["A", "B"])
    path = tmp_path_factory.mktemp("candles")/"candles.parquet"
    pd.concat([b.reset_index().assign(symbol=name) for name, b in found.items()]).to_parquet(path)
    return path

def bits(folder): return {p.name: p.read_bytes() for p in sorted((Path(folder)/"checkpoints").glob("*.safetensors"))}
def result(folder): return json.loads((Path(folder)/"result.json").read_text())

# --- a run -----------------------------------------------------------------------------------------------------------------

def test_a_run_is_complete(toy):
    "Folder, scores with intervals beside the references, strategies, decision and conclusion; all of it JSON."
    folder = toy["run"].folder
    assert Run(folder).status == "done" and Run(folder).read_status()["lab"] == "signal"
    assert {p.name for p in folder.iterdir()} >= {"config.yaml", "overrides.yaml", "status.json", "lock", "facts", "checkpoints", "result.json"} and set(bits(folder)) == {"best.safetensors", "last.safetensors"}
    r = result(folder)
    assert set(r["scores"]) == {"model", "logistic", "random", "always"} and set(r["gains"]) == {"logistic"} and set(r["gains"]["logistic"]) == {"auc", "brier", "utility"}
    assert set(r["strategies"]) == {"model", "logistic", "buy and hold", "random"}
    for who in r["scores"]:
        assert set(SHOWN) <= set(r["scores"][who])
        for name in SHOWN: value, low, high = r["scores"][who][name]; assert value is None or math.isnan(value) or low is None or low <= high
    assert r["auc"] == r["scores"]["model"]["auc"][0] and r["trials"] == 1 and r["source"] == "sp500" and r["parameters"] == sum(p.numel() for p in toy["model"].parameters())
    assert r["windows"] == len(toy["label"]) == len(toy["fold"].test.index) and r["conclusion"] == toy["conclusion"] and f"Over {r['windows']} test windows" in r["conclusion"]
    assert set(r["decision"]) == {"recalibration", "threshold", "payoffs", "base_rate"} and r["best_epoch"] in (0, 1, 2)

def test_numbers_are_what_they_say(toy):
    "Scores, threshold and payoffs once more, from probabilities, labels and prices."
    said, label, payoff = toy["classified"]["model"], toy["label"], toy["payoff"]
    by_hand = classification_scores(said.probability, label, said.threshold, utility=payoff)
    for name in SHOWN: assert toy["scores"].loc[("model", name), "value"] == pytest.approx(float(by_hand[name]), rel=1e-12)
    bars, rows = toy["loader"].bars["sp500"], toy["fold"].test.windows.row
    o, c, e = bars["open"].to_numpy(), bars["close"].to_numpy(), toy["config"].evaluation
    np.testing.assert_allclose(payoff, c[rows + 4]*(1 - e.slippage)*(1 - e.fee)**2/(o[rows + 1]*(1 + e.slippage)) - 1, atol=1e-13)
    assert toy["scores"].loc[("model", "utility"), "value"] == pytest.approx((payoff*said.signal).mean())
    gain, loss = toy["decision"].payoffs
    assert gain > loss and (math.isinf(said.threshold) or said.threshold == pytest.approx(-loss/(gain - loss)) or loss >= 0)
    val = toy["fold"].val.windows.row
    assert gain == pytest.approx(toy["loader"].payoff(e.fee, e.slippage)[0][val][toy["loader"].labels[0][val] == 1].mean())
    share = toy["loader"].labels[0][toy["fold"].train.windows.row].mean()
    assert toy["metrics"]["pos_weight"] == pytest.approx((1 - share)/share)
    assert toy["metrics"]["sharpe_a_bar"] == pytest.approx(float(sharpe(toy["traded"].returns["model"].to_numpy(), periods=1)), nan_ok=True) or toy["metrics"]["sharpe_a_bar"] == 0

def test_it_trades_up_to_the_last_candle(toy):
    "Judged are the windows with a label; traded is at every candle with features, the last four among them, and what is held there is open and said to be."
    always = bench.evaluate(toy["run"].folder, overrides=["evaluation.threshold=0"])
    traded, bars = always["traded"], toy["loader"].bars["sp500"]
    assert traded.returns.index[-1] == bars.index[-1] and len(traded.returns) == len(toy["label"]) + 4 and always["metrics"]["windows"] == len(toy["label"])
    trades = traded.ledgers["model"]["sp500"].trades
    last = trades.iloc[-1]
    assert last["reason"] == "open" and last["exit"] == len(traded.returns) - 1 and len(trades) == -(-(len(traded.returns) - 1)//4)
    own = traded.table.loc["model"]
    assert own.open == 1 and own.trades == len(trades) and own.hit_rate == pytest.approx((trades["net_return"][:-1] > 0).mean())
    assert "1 trade is still open at the last close" in always["conclusion"]

def test_the_best_epoch_decides(toy):
    history = toy["history"].dropna(subset=["val_log_loss"])
    assert toy["metrics"]["best_epoch"] == history.loc[history["val_log_loss"].idxmin(), "epoch"] and len(history) == 3

def test_two_runs_are_equal_to_the_bit(toy, tmp_path):
    again = bench.run("signal", [*TOY, f"runs={tmp_path}"])["run"].folder
    assert bits(again) == bits(toy["run"].folder) and (again/"facts/scalars.csv").read_text() == (toy["run"].folder/"facts/scalars.csv").read_text()
    assert (again/"result.json").read_text() == (toy["run"].folder/"result.json").read_text()

@pytest.mark.parametrize("where", ["training", "test", "filing"])
def test_interrupted_anywhere_it_ends_with_the_same_bits(where, toy, tmp_path, monkeypatch):
    folder, step, steps = tmp_path/"cut", Trainer.train_step, [0]
    def cut(self, batch):
        steps[0] += 1
        if steps[0] == 5: self.save("last"); raise KeyboardInterrupt("by the test")
        return step(self, batch)
    def stop(*_, **__): raise KeyboardInterrupt("by the test")
    with monkeypatch.context() as m:
        if where == "training": m.setattr(Trainer, "train_step", cut)
        elif where == "test": m.setattr(lab, "judge_signal", stop)
        else: m.setattr(Run, "write_result", stop)
        with pytest.raises(KeyboardInterrupt, match="synthlab resume"): bench.run("signal", [*TOY, f"runs={tmp_path}"], run_dir=folder)
    assert Run(folder).status == "interrupted" and not (folder/"result.json").exists()
    if where == "test":
        with pytest.raises(ConfigError, match="synthlab resume"): bench.evaluate(folder)
    again = bench.resume(folder) if where != "filing" else bench.run("signal", [*TOY, f"runs={tmp_path}"], run_dir=folder)
    assert Run(folder).status == "done" and bits(folder) == bits(toy["run"].folder) and result(folder) == result(toy["run"].folder) | {"trials": again["metrics"]["trials"]}
    assert (folder/"facts/scalars.csv").read_text() == (toy["run"].folder/"facts/scalars.csv").read_text()

def test_a_folder_of_other_settings_is_left_alone(toy):
    with pytest.raises(ConfigError, match="other settings"): bench.run("signal", [*TOY, "training.seed=8"], run_dir=toy["run"].folder)

# --- evaluating again ----------------------------------------------------------------------------------------------------------

def test_evaluating_again_gives_the_same(toy):
    again = bench.evaluate(toy["run"].folder)
    pd.testing.assert_frame_equal(again["scores"], toy["scores"], check_exact=True)
    pd.testing.assert_frame_equal(again["gains"], toy["gains"], check_exact=True)
    pd.testing.assert_frame_equal(again["traded"].table, toy["traded"].table, check_exact=True)
    assert again["conclusion"] == toy["conclusion"] and all(json.dumps(v) == json.dumps(toy["metrics"][k]) for k, v in again["metrics"].items())
    dear = bench.evaluate(toy["run"].folder, overrides=["evaluation.fee=0.01"])
    assert dear["decision"].threshold == toy["decision"].threshold
    assert dear["scores"].loc[("always", "utility"), "value"] < toy["scores"].loc[("always", "utility"), "value"] - .018

@pytest.mark.parametrize("name", ["data.horizon=8", "training.lr=1", "model=lstm", "data.lookback=8", "data.label=first_touch"])
def test_what_was_taught_cannot_be_changed(name, toy):
    with pytest.raises(ConfigError, match="train again"): bench.evaluate(toy["run"].folder, overrides=[name])

def test_windows_that_it_has_learnt_from_are_left_out(toy):
    "Moved into the past, the test keeps what is later; all in the past, it is refused."
    early = bench.evaluate(toy["run"].folder, overrides=["data.split.val_start=2004-01-01", "data.split.test_start=2010-01-01"])
    until = pd.Timestamp(bench.load_model(toy["run"].folder, "signal")[1]["learnt_until"])
    w = early["fold"].test.windows
    assert (w.decided_at > until.value).all() and "are left out" in early["conclusion"] and len(w) <= len(toy["fold"].test.index) + 5
    ends = toy["loader"].windows.ends_at[np.concatenate([toy["fold"].split.train, toy["fold"].split.val])].max()
    assert until.value == ends
    with pytest.raises(ConfigError, match="give later candles"):
        bench.evaluate(toy["run"].folder, overrides=["data.split.val_start=2004-01-01", "data.split.test_start=2006-01-01", "data.split.test_end=2009-01-01"])

def test_other_candles(toy, candles):
    "Another market, one asset of two or both, judged by what was learnt on the first."
    one, both = bench.evaluate(toy["run"].folder, str(candles), "A"), bench.evaluate(toy["run"].folder, str(candles))
    assert one["loader"].names == ("A",) and both["loader"].names == ("A", "B") and len(both["label"]) == 2*len(one["label"])
    assert decision_state(one["decision"]) == toy["metrics"]["decision"] and one["fold"].engineer.state() == toy["fold"].engineer.state()
    assert set(both["traded"].ledgers["model"]) == {"A", "B"} and one["metrics"]["source"] == str(candles)
    with pytest.raises(Exception, match="[Nn]o asset|C"): bench.evaluate(toy["run"].folder, str(candles), ["C"])

# --- every way to decide --------------------------------------------------------------------------------------------------------

def test_a_signal_that_never_acts(toy):
    "Nothing earned, nothing lost, nothing claimed; every table and figure is there all the same."
    never = bench.evaluate(toy["run"].folder, overrides=["evaluation.threshold=1"])
    assert "It never acts" in never["conclusion"] and "nan" not in never["conclusion"].lower() and "0.0 % in 0 trades" in never["conclusion"]
    assert not never["classified"]["model"].signal.any() and never["scores"].loc[("model", "utility"), "value"] == 0 and math.isnan(never["scores"].loc[("model", "precision"), "value"])
    assert (never["traded"].returns["model"] == 0).all() and never["metrics"]["sharpe_a_bar"] == 0 and (never["traded"].random == 0).all()
    figures = signal_figures(never)
    assert set(figures) >= {"split", "training", "ranking", "reliability", "wealth", "trades"}
    import matplotlib.pyplot as plt
    plt.close("all")

def test_a_run_that_never_acts(tmp_path):
    "From the training on: where no purchase pays."
    found = bench.run("signal", [*ONE, "evaluation.fee=0.2", f"runs={tmp_path}"])
    assert "It never acts" in found["conclusion"] and result(found["run"].folder)["decision"]["threshold"] is None and math.isinf(found["decision"].threshold)
    again = bench.evaluate(found["run"].folder)
    assert again["conclusion"] == found["conclusion"]
    assert not found["classified"]["model"].signal.any() and main(["runs", str(tmp_path)]) == 0

def test_every_recalibration_and_threshold(toy):
    "Each is learnt on validation alone, keeps the order, and survives JSON."
    fold, loader = toy["fold"], toy["loader"]
    rng = np.random.default_rng(0)
    label = lab.labels_of(loader, fold.val)
    logits, payoff = label + rng.normal(size=len(label)), loader.asked(fold.val, loader.payoff())
    for kind in RECALIBRATION_KINDS:
        for rule in ("payoff", "search"):
            config = signal_config([f"evaluation.recalibration={kind}", f"evaluation.threshold_rule={rule}"])
            d = decide(logits, label, payoff, config, 4.)
            p = d.probability(logits)
            assert ((0 < p) & (p < 1)).all() and (np.diff(p[np.argsort(logits)]) >= 0).all() and d.recalibration.kind == kind
            if kind == "platt": assert abs(p.mean() - smoothed_targets(label).mean()) < 1e-6 and abs(p.mean() - label.mean()) < 1e-2
            again = restore_decision(json.loads(json.dumps(decision_state(d))))
            assert np.array_equal(again.probability(logits), p) and again.threshold == d.threshold and again.payoffs == d.payoffs
            if rule == "search": assert (payoff*(p >= d.threshold)).sum() >= max(0, payoff.sum()) - 1e-12
            else: assert math.isinf(d.threshold) or d.threshold == pytest.approx(min(max(-d.payoffs[1]/(d.payoffs[0] - d.payoffs[1]), 0), 1))
    assert decide(logits, label, payoff, signal_config(["evaluation.threshold=0.3"])).threshold == .3

@pytest.mark.parametrize("extra", [
    ["model=lstm", "model.hidden_size=4", "evaluation.recalibration=isotonic", "evaluation.threshold_rule=search"],
    ["data.label=first_touch", "data.engineer={name:price_action,start:first}", "evaluation.rule=extend", "evaluation.stop=1", "evaluation.target=2", "evaluation.recalibration=temperature"],
    ["data.target_offset=1", "training.focal=2", "training.label_smoothing=0.1", "evaluation.rule=slots", "evaluation.recalibration=none", "data.smoothing=span"]], ids=["lstm", "first_touch", "offset"])
def test_other_settings(extra, tmp_path):
    base = [o for o in ONE if not (o.startswith("model") and "model=lstm" in extra)]
    found = bench.run("signal", [*base, *extra, f"runs={tmp_path}"])
    again = bench.evaluate(found["run"].folder)
    pd.testing.assert_frame_equal(again["scores"], found["scores"], check_exact=True)
    assert Run(found["run"].folder).status == "done" and "nan" not in found["conclusion"] and found["history"]["val_log_loss"].notna().any()
    if "evaluation.stop=1" in extra: assert set(found["traded"].ledgers["logistic"]["sp500"].trades["reason"]) | {"stop", "target", "time", "open"} == {"stop", "target", "time", "open"}

def test_the_deflated_sharpe_ratio_counts_the_runs(toy, tmp_path):
    "Runs of this lab on the same candles in the same folder; not itself, not others, unless told."
    root = tmp_path/"runs"
    config = signal_config([*TOY, f"runs={root}"])
    assert count_trials(config, .1) == (1, None)
    ratios = [.02, -.03]
    for i, ratio in enumerate(ratios):
        shutil.copytree(toy["run"].folder, root/f"r{i}")
        Run(root/f"r{i}").write_result(toy["metrics"] | {"sharpe_a_bar": ratio})
    shutil.copytree(toy["run"].folder, root/"other"); (root/"other/result.json").write_text(json.dumps({"source": "nasdaq", "sharpe_a_bar": 9.}))
    Run(root/"other").set_status("done", data={k: v | {"sha256": "0"*64} for k, v in Run(root/"other").read_status()["data"].items()})       # other candles
    trials, variance = count_trials(config, .1)
    assert trials == 3 and variance == pytest.approx(np.var([.1, *ratios], ddof=1))
    assert count_trials(config, .02, Run(root/"r0")) == (2, pytest.approx(np.var(ratios, ddof=1)))
    again = bench.evaluate(toy["run"].folder, overrides=[f"runs={root}"])
    assert again["traded"].trials == 3 and "With 3 strategies tried" in again["conclusion"]
    own = toy["traded"].returns["model"].to_numpy()
    assert again["traded"].deflated == pytest.approx(float(deflated_sharpe(own, 3, np.var([toy["metrics"]["sharpe_a_bar"], *ratios], ddof=1)))) and again["traded"].deflated < toy["traded"].deflated
    assert bench.evaluate(toy["run"].folder, overrides=["evaluation.trials=50"])["traded"].trials == 50

def test_trials_owned_up_to_deflate_the_only_run(toy, tmp_path):
    "evaluation.trials with one run in its folder changes the probability."
    p = [bench.evaluate(toy["run"].folder, overrides=[f"runs={tmp_path}/none", f"evaluation.trials={n}"])["traded"].deflated for n in (1, 10, 1000)]
    assert p[0] > p[1] > p[2]

# --- typed ------------------------------------------------------------------------------------------------------------------------

def test_the_command_line(toy, candles, tmp_path, monkeypatch, capsys):
    "Train, list, ask, trade on paper, test elsewhere, export."
    monkeypatch.chdir(tmp_path)
    def said(*typed):
        assert main([str(t) for t in typed]) == 0, capsys.readouterr().err
        return capsys.readouterr().out
    text = said("signal", "train", *ONE, f"data.source={candles}", "data.assets=[A]", "--run-dir", "run", "--no-report")
    assert "run: run" in text and "buy and hold" in text and Run("run").status == "done" and not Path("run/report.html").exists()
    assert {p.stem for p in Path("run/figures").iterdir()} == {"split", "training", "ranking", "reliability", "threshold", "wealth", "trades"}
    assert result("run")["source"] == str(candles) and f"AUC {result('run')['auc']:.3f}" in said("runs", tmp_path)
    out = said("predict", "run", "--source", candles, "--assets", "A", "--output", "said.csv")
    table = pd.read_csv("said.csv")
    assert list(table) == ["time", "close", "probability", "signal"] and f"A: {len(table)} rows" in out and "written: said.csv" in out
    until = pd.Timestamp(load_checkpoint("run/checkpoints/best.safetensors")[1]["about"]["learnt_until"])      # as in a test: what was learnt is no question
    times = get_source(candles).load("A")["A"].index
    assert pd.to_datetime(table["time"]).tolist() == times[times > until].tolist() and len(table) > 200
    said("predict", "run", "--source", candles, "--output", "said.csv")
    assert Path("said_A.csv").exists() and Path("said_B.csv").exists()
    pd.testing.assert_frame_equal(pd.read_csv("said_A.csv"), table)
    paper = said("signal", "paper", "run", "--source", candles, "--assets", "A", "--start", "2024-01-01", "--output", "paper.csv", "--fee", "0.001")
    log = pd.read_csv("paper.csv")
    assert "trades" in paper and list(log) == ["time", "close", "probability", "signal", "position", "equity"] and log["time"].iloc[0] >= "2024-01-01"
    assert main(["signal", "paper", "run", "--source", str(candles), "--start", "2022-01-01"]) == 2 and "has learnt from bars up to" in capsys.readouterr().err
    both = said("evaluate", "run", "--source", candles, "evaluation.fee=0.001")
    assert f"Over {2*result('run')['windows']} test windows" in both and "here a trade costs 0.24 %" in both
    again = said("evaluate", "run").splitlines()[-3:]
    assert again == said("evaluate", "run").splitlines()[-3:] and again[0] == result("run")["conclusion"].replace("**", "")

@pytest.mark.slow
def test_export_on_the_command_line(toy, tmp_path, capsys):
    pytest.importorskip("onnx"); pytest.importorskip("onnxscript")
    assert main(["signal", "export", str(toy["run"].folder), "--output", str(tmp_path/"files")]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["signal.onnx", "signal.pt2"] and len(list((tmp_path/"files").iterdir())) == 2

@pytest.mark.parametrize("typed,why", [
    (["signal", "backtest", "RUN"], "synthlab evaluate"),
    (["predict", "nowhere", "--source", "sp500"], "nowhere"),
    (["signal", "predict", "RUN"], "finds the lab itself: synthlab predict"),
    (["predict", "RUN", "--source", "sp500", "evaluation.fee=0.1"], "has no option evaluation.fee; it takes none"),
    (["predict", "RUN", "--source", "sp50"], "did you mean"),
    (["predict", "RUN", "--source", "nothing.parquet"], "nothing.parquet"),
    (["predict", "RUN", "--source", "sp500", "--assets", "C"], "C"),
    (["predict", "RUN", "--source", "mock"], "the signal was taught candles of 1 days"),
    (["signal", "paper", "RUN", "--source", "sp500", "--start", "someday"], "someday"),
    (["signal", "paper", "RUN", "--source", "sp500", "--start", "2031-01-01"], "begin earlier"),
    (["signal", "paper", "RUN", "--source", "sp500", "--fee", "2"], "fee is 2"),
    (["evaluate", "RUN", "data.horizon=3"], "train again"),
    (["evaluate", "RUN", "evaluation.fees=3"], "did you mean"),
    (["signal", "train", "run"], "write name=value"),
    (["signal", "train", "data.horizn=3"], "did you mean data.horizon"),
    (["signal", "train", "model=lstn"], "did you mean lstm"),
    (["signal", "train", "data.label=forward_art"], "did you mean"),
    (["signal", "train", "evaluation.rule=on"], "evaluation.rule"),
    (["signal", "train", "evaluation.fee=2"], "evaluation.fee"),
    (["signal", "train", "data.horizon=0"], "1 row ahead"),
    (["signal", "train", "data.lookback=9000"], "window"),
    (["signal", "train", "data.atr_multiplier=90"], "no buy"),
    (["signal", "train", "data.engineer={name:stationry}"], "stationary"),
    (["signal", "train", "data.split.embargo=soon"], "embargo"),
    (["signal", "train", "data.split.val_start=2005-01-01"], "both"),
    (["signal", "train", "training.stride=0"], "stride"),
    (["signal", "train", "data.source=nowhere.csv"], "nowhere.csv")], ids=lambda v: "-".join(v[1:]) if isinstance(v, list) else "")
def test_a_mistake_gets_one_sentence_and_leaves_no_run(typed, why, toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(toy["run"].folder) if t == "RUN" else t for t in typed]) == 2
    said = capsys.readouterr().err
    import re
    assert re.search(why, said) and said.count("\n") <= 2 and "Traceback" not in said
    assert not list(tmp_path.glob("runs/*"))

# --- the report ------------------------------------------------------------------------------------------------------------------

def declared():
    cell = next(c for c in nbformat.read(NBS/"price_action.ipynb", 4).cells if "parameters" in c.metadata.get("tags", []))
    found = {}; exec(cell.source, found)
    return {k: v for k, v in found.items() if not k.startswith("__")}

def test_knobs_say_what_the_configuration_says():
    "The report's everyday settings default to the configuration's own defaults."
    given = declared()
    assert set(given) <= set(SIGNAL_KNOBS) | {"threads", "run_dir", "overrides"} and {"source", "lookback", "horizon", "atr_multiplier", "fee"} <= set(given)
    assert signal_config(get_lab("signal").everyday(**{k: v for k, v in given.items() if k in SIGNAL_KNOBS})) == signal_config() == SignalConfig(model=signal_config().model, threads=signal_config().threads)
    assert signal_config(get_lab("signal").everyday(features="price_action")).data.engineer["name"] == "price_action"
    assert signal_config(get_lab("signal").everyday(assets="A, B")).data.assets == ["A", "B"] == signal_config(get_lab("signal").everyday(assets=["A", "B"])).data.assets
    with pytest.raises(ConfigError, match="no knob"): get_lab("signal").everyday(horizn=3)

def test_report(tmp_path, candles):
    "At toy size on a file: the run is complete and linked, figures filed, the conclusion the run's own."
    out = execute(NBS/"price_action.ipynb", tmp_path, source=str(candles), assets="A", lookback=16, model="small", epochs=1, overrides=ONE[1:4] + ONE[7:])
    folder = linked_run(out, tmp_path)
    assert folder.parent == (tmp_path/"runs").resolve() and Run(folder).status == "done"
    assert {p.stem for p in (folder/"figures").iterdir()} == {"split", "training", "ranking", "reliability", "threshold", "wealth", "trades"}
    shown = [str(o.get("data", {}).get("text/markdown")) for c in out.cells for o in c.get("outputs", [])]
    assert result(folder)["conclusion"] in shown
    assert not [o for c in out.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]

def test_a_misspelt_parameter_of_the_report_is_refused_at_once(tmp_path):
    with pytest.raises(PapermillExecutionError, match="did you mean horizon\\?"):
        execute(NBS/"price_action.ipynb", tmp_path, horizn=4)
    assert not (tmp_path/"runs").exists()

def test_a_setting_that_cannot_be_leaves_no_folder(tmp_path):
    "A loss that is refused is refused before a run begins."
    with pytest.raises(ConfigError, match="focal"): bench.run("signal", [*TOY, "training.focal=-1", f"runs={tmp_path}"])
    assert not list(tmp_path.iterdir())

def test_other_candles_need_teach_nobody(toy, tmp_path):
    "Candles whose past holds no buy can still be judged; only the logistic regression is missing, and the conclusion says so."
    bars = get_source("sp500").load()["sp500"].copy()
    early = len(bars)*8//10
    bars.iloc[:early, :4] = 1000 - .01*np.arange(early)[:, None] + np.array([.01, .02, -.02, 0.])      # falls a little every day
    path = tmp_path/"other.parquet"
    bars.reset_index().to_parquet(path)
    found = bench.evaluate(toy["run"].folder, source=str(path))
    assert "logistic" not in found["scores"].index.get_level_values(0) and "no logistic regression" in found["conclusion"] and not len(found["gains"])
