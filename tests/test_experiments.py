"Every report runs end to end at toy size and refuses a parameter it does not know; notebook and command line write the same bits."
import json, signal, subprocess, sys, time
from pathlib import Path

import nbformat, numpy as np, pandas as pd, papermill, pytest
from papermill.exceptions import PapermillExecutionError

import in_process
from synthlab.experiments import experiment as bench
from synthlab.experiments.lab import get_lab
from synthlab.datasets.sources import MockDataSource, get_source
from synthlab.cli.main import main
from synthlab.experiments.reports import file_report, findings, linked_run
from synthlab.experiments.runs import Run
from synthlab.labs.market.settings import KNOBS, market_config

ROOT = Path(__file__).parent.parent
NBS, CRYPTO = ROOT/"nbs", ROOT.parent/"shared/data/crypto_5m_usdt_2025.parquet"
SMALL = ["training.epochs=2", "training.n_paths=8", "evaluation.n_paths=50", "evaluation.stride=24", "evaluation.n_boot=100", "tracking.mode=disabled"]
pytestmark = pytest.mark.usefixtures("warm")

def execute(name, tmp_path, **parameters): return in_process.execute(NBS/f"{name}.ipynb", tmp_path, **parameters)

def execute_in_kernel(name, tmp_path, **parameters):
    return papermill.execute_notebook(NBS/f"{name}.ipynb", tmp_path/"out.ipynb", parameters, cwd=tmp_path, progress_bar=False)

@pytest.fixture(scope="session")
def mock_run(tmp_path_factory):
    "A finished toy run on a simulated market."
    return bench.run("market", ["data=mock", "training.horizon=6", *SMALL, f"runs={tmp_path_factory.mktemp('runs')}"])

@pytest.fixture(scope="session")
def page(tmp_path_factory):
    "The same from the training report, in a kernel of its own: the folder that it was executed in, and its notebook."
    folder = tmp_path_factory.mktemp("page")
    return folder, execute_in_kernel("train", folder, source="mock", horizon=6, overrides=SMALL)

def parameters(name):
    "The parameters cell of a report as a dictionary."
    cell = next(c for c in nbformat.read(NBS/f"{name}.ipynb", 4).cells if "parameters" in c.metadata.get("tags", []))
    found = {}; exec(cell.source, found)
    return {k: v for k, v in found.items() if not k.startswith("__")}

REPORTS = ["train", "evaluate", "backtest", "tournament"]

def test_train_and_its_page(page):
    "The training report at toy size: its run is complete, and the page is filed with it."
    tmp_path, out = page
    assert out.metadata.papermill.exception is None
    folder = linked_run(out, tmp_path)
    assert folder.parent == (tmp_path/"runs").resolve() and Run(folder).status == "done"
    page, filed = file_report(tmp_path/"out.ipynb")
    assert filed == folder and page.read_text() == (folder/"report.html").read_text()
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "overrides.yaml", "status.json", "lock", "facts", "checkpoints", "figures",
                                                  "result.json", "report.ipynb", "report.html"}
    assert {p.name for p in (folder/"facts").iterdir()} == {"events.jsonl", "scalars.csv", "meta.json"}
    assert {p.name for p in (folder/"checkpoints").iterdir()} == {"last.safetensors", "best.safetensors"}
    result = json.loads((folder/"result.json").read_text())
    assert result["crps"] > 0 and set(result["baselines"]) == {"constant", "bootstrap", "ewma", "garch", "gjr"}
    assert len(result["scores"]["model"]) == len(result["scores"]["decided_at"]) == result["windows"]
    for b in result["baselines"].values(): assert b["skill_interval"][0] <= b["skill"] <= b["skill_interval"][1] and 0 <= b["p_value"] <= 1

def test_evaluate_report(tmp_path, mock_run):
    "The evaluation report finds the run's own score again."
    out = execute("evaluate", tmp_path, run_dir=str(mock_run["run"].folder))
    assert linked_run(out, tmp_path) == mock_run["run"].folder.resolve()
    assert f"{mock_run['metrics']['crps']:.1f}" in str(out)

CONTEST = ["training.n_paths=8", "training.batch_size=512", "evaluation.n_boot=100", "evaluation.baselines=[constant,ewma]"]

def test_backtest_report(tmp_path):
    "Champion and challenger through two stretches, beside baselines, with a computed conclusion; the folder keeps trainings and scores."
    out = execute("backtest", tmp_path, champion="default", challengers=["linear"], source="mock", folds=2, epochs=1, stride=48, run_dir="walk",
                  overrides=[*CONTEST, "evaluation.n_paths=50"])
    assert "The champion is default" in str(out) and "over the best baseline" in str(out)
    assert (told := findings(out)) and all(then == now for then, now in told)
    assert {p.name for p in (tmp_path/"walk"/"fold_1").iterdir()} >= {"default", "linear", "ewma.scores.parquet", "default.scores.parquet"}

def test_tournament_report(tmp_path):
    "Hour and day, with baselines and the reference miner, and the weights that each would earn."
    out = execute("tournament", tmp_path, hour=["default", "linear"], day=["linear"], source="mock", folds=2, stride=48, day_stride=96, epochs=1, n_paths=50,
                  run_dir="cup", overrides=CONTEST, day_overrides=["training.stride=24"])
    text, told = str(out), findings(out)
    assert len(told) == 4 and all(then == now for then, now in told)        # who leads the hour, who is surely better; the same of the day
    assert "reference miner" in text and "presets beat both" in text or "no preset beats both" in text
    assert {p.name for p in (tmp_path/"cup").iterdir()} == {"hour", "day"}

@pytest.mark.parametrize("name", REPORTS)
def test_a_misspelt_parameter_is_refused_at_once(name, tmp_path):
    wrong, right = {"train": ("horizn", "horizon"), "evaluate": ("sorce", "source"), "backtest": ("chalengers", "challengers"), "tournament": ("horu", "hour")}[name]
    with pytest.raises(PapermillExecutionError, match=f"did you mean {right}\\?"): execute(name, tmp_path, **{wrong: 4})
    assert not (tmp_path/"runs").exists()

def test_knobs_say_what_the_configuration_says():
    "A report's everyday settings default to the configuration's own defaults."
    declared = parameters("train")
    config = market_config(get_lab("market").everyday(**{k: v for k, v in declared.items() if k in KNOBS}))
    assert config == market_config()
    assert set(declared) == set(KNOBS) | {"threads", "run_dir", "overrides"}

def test_command_line_and_notebook_write_the_same_bits(mock_run, page, tmp_path):
    "R22: the same settings typed, handed to a notebook, and repeated in one process."
    assert main(["train", "data=mock", "training.horizon=6", *SMALL, "--run-dir", str(tmp_path/"cli"), "--no-report"]) == 0
    folders = tmp_path/"cli", mock_run["run"].folder, linked_run(page[1], page[0])
    bits = [[(folder/f"checkpoints/{c}.safetensors").read_bytes() for c in ("best", "last")] for folder in folders]
    assert bits[0] == bits[1] == bits[2]
    results = [json.loads((folder/"result.json").read_text()) for folder in folders]
    assert results[0] == results[1] == results[2]

def test_one_and_two_processes_agree(tmp_path):
    "R22: two processes average what one computes alone; only the noise they draw differs."
    one, two = (bench.run("market", ["data=mock", *SMALL, "training.n_paths=64", f"training.processes={n}", f"runs={tmp_path}/{n}"]) for n in (1, 2))
    assert two["run"].status == "done"
    a, b = (r["history"]["val_score"].to_numpy() for r in (one, two))
    assert len(a) == len(b) == 3 and abs(a/b - 1).max() < .01

def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, capsys):
    "R5 at the command line: SIGINT in training, exit 130, and `synthlab resume` ends where an undisturbed run does."
    typed = ["data=mock", *SMALL, "training.epochs=5", "training.patience=0", "training.batch_size=32"]
    whole = bench.run("market", [*typed, f"runs={tmp_path}/whole"])["run"].folder
    told, run = [l for l in capsys.readouterr().out.splitlines() if l.strip()[:1].isdigit()], tmp_path/"cut"
    process = subprocess.Popen([sys.executable, "-m", "synthlab", "train", *typed, "--run-dir", str(run), "--no-report"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run/"checkpoints/best.safetensors").exists() and time.monotonic() < deadline and process.poll() is None: time.sleep(.02)
    time.sleep(.3); process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"go on with: synthlab resume {run}" in err and Run(run).status == "interrupted"
    assert not (run/"result.json").exists()
    assert main(["resume", str(run), "--no-report"]) == 0
    for name in "best", "last":
        assert (run/f"checkpoints/{name}.safetensors").read_bytes() == (whole/f"checkpoints/{name}.safetensors").read_bytes()
    assert (run/"facts/scalars.csv").read_text() == (whole/"facts/scalars.csv").read_text()
    lines = lambda text: [l for l in text.splitlines() if l.strip()[:1].isdigit() and "training" not in l]
    before, after = lines(out), lines(capsys.readouterr().out)
    assert after and set(after) <= set(told) and set(before) <= set(told)           # what is best is known across the interruption
    assert json.loads((run/"result.json").read_text()) == json.loads((whole/"result.json").read_text())

@pytest.mark.parametrize("typed, why", [
    (["train", "training.horizn=24"], "did you mean training.horizon?"),
    (["train", "model=transfomer_lstm"], "did you mean transformer_lstm?"),
    (["train", "model.head={name: students_t}"], "student_t"),
    (["train", "model.backbone.blocks=[{name: lstmblock, layers: 2}]"], "layers"),
    (["train", "data=nowhere.parquet"], "nowhere.parquet"),
    (["train", "data=crypto_5m"], "data.source has to be given: data.source=VALUE"),
    (["train", "data.source=???"], "data.source has to be given"),
    (["train", "data.assets=[DAX]"], "DAX"),
    (["train", "data.split.test_start=1950-01-01"], "test_start"),
    (["train", "device=gpu"], "device"),
    (["train", "training.epochs=many"], "training.epochs"),
    (["train", "training.epochs=-1"], "epochs"),
    (["train", "training.lookback=100000"], "bars"),
    (["train", "data.engineer={name: zscores}"], "zscore"),
    (["train", "evaluation.baselines=[garhc]"], "garch"),
    (["train", "evaluation.stride=100000"], "stride"),
    (["train", "training.horizon=0"], "horizon"),
    (["train", "data.split.embargo=soon"], "such as 5D"),
    (["train", "data.split.val_start=soon"], "'soon' is no date"),
    (["train", "data.engineer.windows=[0]"], "1 or more"),
    (["train", "data.engineer.estimators=[parkinsn]"], "parkinson"),
    (["train", "tracking.mode=on"], "online"),
    (["train", "evaluation.level=95"], "0.95"),
    (["train", "evaluation.n_paths=2"], "3 or more"),
    (["evaluate", "nowhere", "data=sp500"], "nowhere"),
    (["evaluate", "nowhere"], "nowhere"),
    (["resume", "nowhere"], "nowhere"),
    (["report", "nowhere.ipynb"], "nowhere.ipynb"),
], ids=lambda v: v[-1] if isinstance(v, list) else "")
def test_a_mistake_gets_one_sentence_and_leaves_no_run(typed, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") <= 2 and "Traceback" not in said
    assert not (tmp_path/"runs").exists()

def test_runs_and_doctor(mock_run, tmp_path, capsys):
    assert main(["runs", str(mock_run["run"].folder.parent)]) == 0 and "done" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for word in "torch", "threads", "free", "tracker", "synced", "all is well": assert word in said
    (tmp_path/"file").write_text("")
    with pytest.raises(SystemExit): main(["doctor", str(tmp_path/"file")])
    assert "PROBLEM" in capsys.readouterr().out

@pytest.fixture(scope="session")
def index_run(tmp_path_factory):
    "A finished toy run on the S&P 500, learnt up to the end of 2014."
    return bench.run("market", [*SMALL, "training.epochs=1", f"runs={tmp_path_factory.mktemp('runs')}"])

def test_evaluate_on_other_bars(index_run, capsys):
    "A run on bars it was never made for, features scaled as in training; the run's own result stays."
    before = (index_run["run"].folder/"result.json").read_bytes()
    assert main(["evaluate", str(index_run["run"].folder), "--source", "nasdaq", "evaluation.baselines=[ewma]"]) == 0
    said = capsys.readouterr().out
    assert "trained on sp500, tested on nasdaq" in said and "ewma" in said and "2015" in said and "left out" not in said
    assert (index_run["run"].folder/"result.json").read_bytes() == before

def test_a_time_that_was_learnt_is_never_tested(index_run, mock_run, capsys):
    "An earlier split leaves out what training saw, says so, and is refused where nothing is left."
    result = bench.evaluate(index_run["run"].folder, overrides=["data.split.val_start=2001-01-01", "data.split.test_start=2003-01-01"])
    assert str(result["market"].test_after)[:10] == "2014-12-31" and result["evaluation"].scores.index[0] > result["market"].test_after
    assert "are left out, because the model has learnt from those times" in result["metrics"]["conclusion"]
    own, again = index_run["metrics"], result["metrics"]     # what is left is the run's own test, for the baselines' fits too
    assert again["crps"] == own["crps"] and again["baselines"] == own["baselines"]
    assert main(["evaluate", str(mock_run["run"].folder), "--source", "sp500"]) == 2
    assert "every test window lies at or before 2020" in capsys.readouterr().err

def test_where_the_given_drift_comes_from():
    "Of the years before the bars: the last level is their first open, and dividends of about 4 % a year lie between it and what shares gained with them."
    from arch.data import frenchdata
    drift, first = .00024, float(get_source("sp500").load()["sp500"]["open"].iloc[0])
    assert first == pytest.approx(1229.23) and np.log(first/17.66)/71/252 == pytest.approx(drift, abs=5e-6)
    assert all(get_lab("market").configure([f"data={name}"]).model["drift"] == drift for name in ("sp500", "nasdaq"))
    found = frenchdata.load()
    months = found.index.asi8                       # 192607, 192608, …: months, read as nanoseconds
    gained = np.log1p((found["Mkt-RF"] + found["RF"]).to_numpy()[(months >= 192801) & (months <= 199812)]/100)
    assert len(gained) == 71*12 and gained.sum()/71 == pytest.approx(.100, abs=.001) and .03 < gained.sum()/71 - 252*drift < .05

def test_a_drift_belongs_to_its_bars(index_run):
    "A drift a day is not given to bars of five minutes."
    result = bench.evaluate(index_run["run"].folder, "mock")
    assert result["model"].drift == 0 and "belongs to bars of 1 day; these are of 5 minutes" in result["metrics"]["conclusion"]
    assert result["metrics"]["crps_without_drift"] is None

def test_few_windows_give_no_verdict(tmp_path):
    "A short random walk is not called better than anything, and a test of a few windows does not fail."
    time = pd.date_range("2020", periods=520, freq="5min", tz="UTC")
    walk = pd.DataFrame({"time": time, "close": 100*np.exp(np.random.default_rng(3).normal(0, .001, len(time)).cumsum())})
    walk.to_csv(tmp_path/"walk.csv", index=False)
    with pytest.warns(UserWarning, match="only one price"):
        result = bench.run("market", [f"data={tmp_path}/walk.csv", *SMALL, "evaluation.stride=3", f"runs={tmp_path}"])
    assert "too few to judge" in result["metrics"]["conclusion"] and "better than" not in result["metrics"]["conclusion"]

@pytest.mark.skipif(not CRYPTO.exists(), reason="../shared/data is not here")
def test_five_minute_bars_across_a_hole(tmp_path, monkeypatch):
    "The hole of 18 hours is crossed by no window, and a run on both sides of it works."
    monkeypatch.chdir(tmp_path)
    result = bench.run("market", [f"data={CRYPTO}", "data.assets=[BTCUSDT]", *SMALL])
    w, market = result["market"].loader.windows, result["market"]
    time_of = market.loader.bars["BTCUSDT"].index
    hole = next(i for i, step in enumerate(time_of[1:] - time_of[:-1]) if step.total_seconds() > 3600)
    assert ((w.row + result["config"].training.horizon <= hole) | (w.row - result["config"].training.lookback >= hole)).all()
    assert result["metrics"]["crps"] > 0 and "drift" not in result["config"].model

def test_weights_that_no_epoch_made_better_are_said_to_be_those(tmp_path, capsys):
    "In the conclusion of the run, and where it is tested again."
    found = bench.run("market", ["data=mock", *SMALL, "training.epochs=1", "training.lr=0.5", f"runs={tmp_path}"])
    said = "**The weights are those that training began with**: no epoch made validation better."
    assert found["metrics"]["best_epoch"] == 0 and said in found["metrics"]["conclusion"]
    again = bench.evaluate(found["run"].folder)
    assert said in again["metrics"]["conclusion"]

def test_several_assets(tmp_path):
    "Two assets with different volatility share a model and are scored together."
    result = bench.run("market", ["data=mock", "data.assets=[A,B]", *SMALL, f"runs={tmp_path}"])
    assert set(result["evaluation"].asset) == {"A", "B"}

def test_markets_report(tmp_path):
    "One model for three simulated markets, one of them never learnt from: a line and a dot each, and the conclusion says so. A typo among the unseen is refused."
    toy = [*SMALL, "evaluation.n_boot=100", "evaluation.baselines=[constant]", "training.stride=16"]
    out = execute("markets", tmp_path, source="mock", assets=["A", "B", "C"], unseen=["c"], horizon=6, run_dir="many", overrides=toy)
    shown = "".join(str(c.get("outputs")) for c in out.cells)
    assert "C (never learnt from)" in shown and "Of 3 assets the model is ahead" in shown and "From C nothing was learnt" in shown
    result = json.loads((tmp_path/"many/result.json").read_text())
    assert [result["assets"][k]["learnt"] for k in "ABC"] == [True, True, False] and (tmp_path/"many/figures/markets.png").exists()
    with pytest.raises(PapermillExecutionError, match="is none of the assets"): execute("markets", tmp_path, source="mock", assets=["A", "B"], unseen=["D"], overrides=toy)

@pytest.mark.slow
def test_benchmark_report(tmp_path):
    "The benchmark runs, and names every goal; how fast it is, is for its reader to see."
    out = execute_in_kernel("benchmark", tmp_path, repeats=1)
    verdict = "".join(str(c.outputs) for c in out.cells if "verdict[\"holds\"]" in c.source)
    for what in "scoringrules pwm", "torchsde Euler", "DataLoader", "200 000 rows", "five lines", "ordqz", "one sample a read", "one more candle", "beside pandas", "TA-Lib", "bare loop", "walk that was killed", "NGBoost", "river": assert what in verdict

@pytest.mark.parametrize("options", [["evaluation.conformal=split"], ["evaluation.conformal=adaptive"], ["data.future=[time_of_day]", "data.static=asset"],
                                     ["training.terms={levels: 1, energy: 0.5, variogram: 0.1}"], ["training.intervals=[1,6]"], ["training.stride=12"],
                                     ["data.engineer={name: ohlcv}"], ["data.engineer={name: wavelet}"]], ids=str)
def test_every_option_of_the_lab_runs_and_can_be_asked_again(options, tmp_path):
    "A run with the option ends with a table beside its baselines, and evaluating it again gives the same score."
    result = bench.run("market", ["data=mock", *SMALL, "evaluation.stride=6", "evaluation.baselines=[constant]", f"runs={tmp_path}", *options])
    assert np.isfinite(result["metrics"]["crps"]) and set(result["table"].index) == {"model", "constant"}
    assert bench.evaluate(result["run"].folder)["metrics"]["crps"] == result["metrics"]["crps"]
    if "conformal" in options[0]:
        assert result["metrics"]["crps_without_recalibration"] > 0 and "recalibrated" in result["metrics"]["conclusion"]

@pytest.mark.parametrize("wrong,right", [("evaluation.conformal=spilt", "split"), ("data.future=[tiem_of_day]", "time_of_day"), ("data.static=symbol", "asset"),
                                         ("training.terms={level: 1}", "levels"), ("training.terms={returns: 1}", "intervals"), ("data.past=[funding]", "funding"),
                                         ("data.engineer={name: wavelets}", "wavelet")])
def test_options_that_do_not_exist_are_refused(wrong, right, capsys, tmp_path):
    assert main(["train", "data=mock", *SMALL, f"runs={tmp_path}", "--no-report", wrong]) == 2
    assert right in capsys.readouterr().err and not list(tmp_path.iterdir())

def test_a_model_that_knows_its_assets_is_asked_about_one_of_them(tmp_path):
    "Which column of the static covariates is whose is kept with the weights."
    bars = pd.concat([MockDataSource(1200, seed=s).load("A")["A"].assign(symbol=n) for s, n in ((1, "X"), (2, "Y"))]).reset_index()
    bars.to_parquet(tmp_path/"two.parquet")
    run = bench.run("market", [f"data={tmp_path/'two.parquet'}", *SMALL, "data.static=asset", "evaluation.baselines=[constant]", f"runs={tmp_path/'runs'}"])["run"]
    alone = bench.evaluate(run.folder, assets=["Y"])
    assert set(alone["evaluation"].asset) == {"Y"}

@pytest.mark.parametrize("typed,said", [("data.assets=BTCUSDT", lambda c: c.data.assets == ["BTCUSDT"]), ("data.future=time_of_day", lambda c: c.data.future == ["time_of_day"]),
                                        ("data.engineer=zscore", lambda c: c.data.engineer == {"name": "zscore"}), ("training.intervals=3", lambda c: c.training.intervals == [3])])
def test_one_value_stands_for_a_list_of_one(typed, said): assert said(market_config([typed]))

@pytest.mark.parametrize("typed", ["data.future=[]", "model.head=gbm", "training.lr=3", "data.engineer.name=zscore"])
def test_what_a_run_was_trained_with_is_not_changed_by_a_test(typed, mock_run, capsys):
    assert main(["evaluate", str(mock_run["run"].folder), typed]) == 2
    assert "train again with it" in capsys.readouterr().err
