"Comparisons: the subnet's score of what a model simulates, many windows, the same random numbers, and a walk that can be taken up again."
import subprocess, sys, time
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch

from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.sources import MockDataSource
from synthlab.experiments.runs import Run
from synthlab.labs.market.backtest import common_batches, fold_dates, run_backtest
from synthlab.labs.market.contest import BacktestRunner, ChallengerVsChampion, ensemble_distance, score_paths, standings
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market
from synthlab.labs.market.tournament import play, prompt_scores
from synthlab.metrics.paths import CRPSMultiIntervalScorer, subnet_crps
from synthlab.metrics.prompts import LOW_FREQUENCY
from synthlab.models.registry import ConfigError
from synthlab.models.simulate import simulate_gbm_paths
from synthlab.models.synth import create_model
from synthlab.trainers.checkpoints import load_checkpoint

EPOCHS = "training.epochs=1"
SMALL = ["data=mock", EPOCHS, "training.n_paths=8", "training.batch_size=512", "evaluation.n_paths=32", "evaluation.stride=48",
         "evaluation.n_boot=100", "evaluation.baselines=[constant]"]

def walk(sigma, horizon=288, P=40, seed=0, B=3):
    g, price = torch.Generator().manual_seed(seed), torch.tensor([100., 6e4, .02])[:B]
    paths = simulate_gbm_paths(price, torch.zeros(B), torch.full((B,), sigma), horizon, P, generator=g)
    target = simulate_gbm_paths(price, torch.zeros(B), torch.full((B,), sigma), horizon, 1, generator=g)[:, 0]
    return paths.double(), dict(initial_price=price.double(), target=target.double())

@pytest.fixture(scope="module")
def test_part():
    loader = MarketDataLoader(MockDataSource(1500), engineer="zscore", horizon=12, lookback=4, stride=12)
    return loader, loader.static_holdout(.5, .6)[2]

def brownian(sigma=.001, H=12, P=64):
    def simulate(batch, rows, seed):
        s = torch.full((len(rows),), sigma)
        return simulate_gbm_paths(batch["initial_price"], 0*s, s, H, P, generator=torch.Generator().manual_seed(seed))
    return simulate

# what is scored

def test_total_is_the_validators_and_counts_the_first_step():
    "Paths without step 0 would lose the first interval; the total of a batch equals the validator's of every window."
    paths, batch = walk(.002)
    table = score_paths(paths, batch, CRPSMultiIntervalScorer(300, LOW_FREQUENCY.intervals, adaptive=False))
    for b in range(3):
        price = batch["initial_price"][b]
        whole = torch.cat([price.expand(paths.shape[1], 1), paths[b]], 1).numpy()
        seen = torch.cat([price[None], batch["target"][b]]).numpy()
        total, detail = subnet_crps(whole, seen, 300, LOW_FREQUENCY.intervals)
        np.testing.assert_allclose(table.total[b], total, rtol=1e-9)
        assert len(detail) == 350           # 345 increments, four totals and the whole: none is lost

def test_scores_do_not_depend_on_currency():
    paths, batch = walk(.002, horizon=12)
    scorer = CRPSMultiIntervalScorer(300)
    a = score_paths(paths, batch, scorer)
    b = score_paths(100*paths, {k: 100*v for k, v in batch.items()}, scorer)
    np.testing.assert_allclose(a, b, rtol=1e-9)

def test_energy_distance_by_brute_force():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 30, generator=g).double(), 1 + torch.randn(4, 20, generator=g).double()
    far = lambda x, y: (x[:, :, None] - y[:, None]).abs().mean((1, 2))
    torch.testing.assert_close(ensemble_distance(a, b), (2*far(a, b) - far(a, a) - far(b, b))/a.std(1))

# the runner

def test_runner_uses_every_window_with_its_scorers_intervals(test_part):
    "Not one window with two steps: every window of the batches, at the horizon that is asked for, by the intervals of the scorer."
    loader, test = test_part
    scorer = CRPSMultiIntervalScorer(300, {"5min": 300, "30min": 1800}, adaptive=False)
    scores = BacktestRunner({"a": brownian()}, test, scorer, loader.names, progress=False).run()
    assert len(scores) == test.n and scores.decided_at.is_monotonic_increasing and set(scores.asset) == {"MOCK"}
    assert {"5min", "30min"} <= set(scores) and np.allclose(scores.total, scores["5min"] + scores["30min"])
    with pytest.raises(ValueError, match="targets have 12 steps"): BacktestRunner({"a": brownian()}, test, progress=False).run(13)

def test_models_get_features_not_prices_and_their_own_configuration(test_part):
    "Champion and challenger differ in architecture; both read the batch's features, as three-dimensional histories."
    loader, test = test_part
    recipe = lambda head, d: {"backbone": {"input_size": 3, "d_model": d, "blocks": ["lstmblock"], "lookback": 4}, "head": head}
    duel = ChallengerVsChampion(create_model(recipe("student_t", 8), seed=0), create_model(recipe("gbm", 16), seed=0), test, progress=False).run(n_paths=32)
    assert len(duel.scores) == 2*test.n and np.isfinite(duel.scores.crps).all() and duel.distance > 0
    assert set(duel.intervals.columns) == {"challenger", "champion", "skill"} and "crps" in duel.intervals.index

def test_twins_tie_to_the_bit(test_part):
    "Common random numbers: equal forecasters have equal scores, whatever the order in which they are asked."
    _, test = test_part
    one = BacktestRunner({"a": brownian(), "b": brownian(.002), "c": brownian()}, test, progress=False).run()
    a, c = (one[one.simulator == n].drop(columns="simulator").reset_index(drop=True) for n in "ac")
    assert a.equals(c)
    again = BacktestRunner({"b": brownian(.002), "a": brownian()}, test, progress=False).run()
    assert again[again.simulator == "a"].drop(columns="simulator").reset_index(drop=True).equals(a)

def test_standings_find_the_truth_and_average_assets_first():
    rng, times = np.random.default_rng(0), pd.date_range("2025", periods=300, freq="1h", tz="UTC")
    common = rng.gamma(2, 1, 300)
    rows = [(t, a, n, c*(1 + .05*(n == "worse")) + .01*rng.normal()) for t, c in zip(times, common) for a in "XYZ" for n in ("good", "worse")]
    scores = pd.DataFrame(rows, columns=["decided_at", "asset", "simulator", "crps"])
    table = standings(scores, "worse")
    assert list(table.index) == ["good", "worse"] and table.loc["good", "low"] > 0
    np.testing.assert_allclose(table.loc["good", "skill"], 1 - 1/1.05, atol=.002)
    thrice = pd.concat([scores[scores.asset == "X"].assign(asset=a) for a in "XYZ"])       # three copies of one asset are no more evidence than one
    one, three = (standings(s, "worse").loc["good"] for s in (scores[scores.asset == "X"], thrice))
    np.testing.assert_allclose(one[["low", "high", "p_value"]].astype(float), three[["low", "high", "p_value"]].astype(float))

# the walk

@pytest.fixture(scope="module")
def backtest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    return folder, run_backtest(["default", "linear"], SMALL, folds=2, folder=folder, progress=False)

def test_nobody_learns_from_what_he_is_tested_on(backtest):
    folder, found = backtest
    for k, part in found.scores.groupby("fold"):
        for name in ("default", "linear"):
            about = load_checkpoint(folder/f"fold_{k}"/name/"checkpoints"/"best.safetensors")[1]["about"]
            assert pd.Timestamp(about["learnt_until"]) < part.decided_at.min()

def test_windows_are_the_same_for_everybody(backtest):
    _, found = backtest
    sets = [frozenset(zip(g.decided_at, g.asset)) for _, g in found.scores.groupby("simulator")]
    assert len(set(sets)) == 1 and {"constant", "reference miner"} <= set(found.table.index)

def test_a_walk_that_was_stopped_is_taken_up(backtest, tmp_path, monkeypatch):
    "Ctrl-C in the second training: what was finished is kept, and the next call ends with the same scores."
    import synthlab.experiments.experiment as b
    calls, train = [], b.train
    def stop(lab, config, path, *rest, **more):
        calls.append(path)
        if len(calls) == 2: raise KeyboardInterrupt
        return train(lab, config, path, *rest, **more)
    monkeypatch.setattr(b, "train", stop)
    with pytest.raises(KeyboardInterrupt): run_backtest(["default", "linear"], SMALL, folds=2, folder=tmp_path, progress=False)
    monkeypatch.setattr(b, "train", train)
    weights = tmp_path/"fold_0"/"default"/"checkpoints"/"best.safetensors"
    before = weights.stat().st_mtime_ns
    found = run_backtest(["default", "linear"], SMALL, folds=2, folder=tmp_path, progress=False)
    assert weights.stat().st_mtime_ns == before and found.scores.equals(backtest[1].scores)

def test_a_failure_is_reported_and_the_others_go_on(tmp_path):
    found = run_backtest({"impossible": ["model.backbone.blocks=[timesnetblock]"], "linear": ["model=linear"]}, SMALL, folds=1, folder=tmp_path, progress=False)
    assert set(found.failed) == {"impossible"} and found.champion == "linear"
    assert "impossible could not be trained" in found.conclusion and "take a longer lookback" in found.conclusion

def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError: return False

def test_jobs_change_nothing_and_no_worker_outlives_its_driver(backtest, warm, tmp_path):
    "Two trainings that never end keep both workers busy when the driver is killed: neither lives on, and what they had finished is used, to the bit."
    folder = tmp_path/"walk"
    models = {"default": ["model=default", EPOCHS], "linear": ["model=linear", EPOCHS], "endless": ["model=linear", "training.epochs=100000", "training.patience=0"]}
    call = f"run_backtest({models!r}, {[o for o in SMALL if o != EPOCHS]!r}, folds=2, folder={str(folder)!r}, jobs=2, progress=False)"
    (tmp_path/"drive.py").write_text(f"from synthlab.labs.market.backtest import run_backtest\nif __name__ == '__main__': {call}")
    driver = subprocess.Popen([sys.executable, str(tmp_path/"drive.py")])
    runs = [Run(folder/f"fold_{k}"/name) for k in (0, 1) for name in ("default", "linear")]
    begun = [folder/f"fold_{k}"/"endless"/"checkpoints"/"last.safetensors" for k in (0, 1)]
    for _ in range(3000):
        if driver.poll() is not None or all(b.exists() for b in begun) and all(r.status == "done" for r in runs): break
        time.sleep(.1)
    assert driver.poll() is None and [r.status for r in runs] == ["done"]*4
    workers = [Run(b.parents[1]).read_status()["owner"]["pid"] for b in begun]
    assert len(set(workers)) == 2 and all(map(alive, workers))
    driver.kill(); driver.wait()
    for _ in range(150):
        if not any(map(alive, workers)): break
        time.sleep(.1)
    assert not any(map(alive, workers)), workers
    weights = [r.checkpoints/"best.safetensors" for r in runs]
    before = [w.stat().st_mtime_ns for w in weights]
    found = run_backtest(["default", "linear"], SMALL, folds=2, folder=folder, progress=False)
    assert found.scores.equals(backtest[1].scores) and [w.stat().st_mtime_ns for w in weights] == before

def test_longer_histories_shrink_the_windows_of_all():
    markets = {n: load_market(market_config([*SMALL, f"training.lookback={n}"])) for n in (1, 64)}
    batches = common_batches(markets, 12)
    assert np.array_equal(batches[1].windows.decided_at, batches[64].windows.decided_at)

def test_folds_tile_the_later_half():
    market = load_market(market_config(SMALL))
    dates = [{k: pd.Timestamp(v) for k, v in d.items()} for d in fold_dates(market, 3)]
    for one, two in zip(dates, dates[1:]): assert one["test_end"] == two["test_start"]
    assert all(d["val_start"] < d["test_start"] < d["test_end"] for d in dates)
    with pytest.raises(ConfigError, match="leave room"): fold_dates(market, 3, .8, .3)

# the rule that pays

def test_weights_count_only_what_is_over():
    "Changing scores of prompts that end after a time does not change the weights set at that time."
    rng, times = np.random.default_rng(1), pd.date_range("2025-09-01", periods=200, freq="1h", tz="UTC")
    scores = pd.DataFrame([(t, "BTCUSDT", n, 20 + 3*rng.random()) for t in times for n in "abc"], columns=["decided_at", "asset", "simulator", "total"])
    later = scores.assign(total=np.where(scores.decided_at >= times[100], scores.total*rng.random(len(scores)), scores.total))
    one, two = (play(s, "6h", "high", every="3h").weights for s in (scores, later))
    cut = times[100] + pd.Timedelta("6h")
    assert one[one.index < cut].equals(two[two.index < cut]) and not one[one.index >= cut].equals(two[two.index >= cut])

def test_prompt_without_an_answer_is_left_out():
    t = pd.Timestamp("2025-09-01", tz="UTC")
    none = pd.DataFrame([(t, "BTC", "a", np.nan), (t, "BTC", "b", np.nan), (t + pd.Timedelta("1h"), "BTC", "a", 1.), (t + pd.Timedelta("1h"), "BTC", "b", 2.)],
                        columns=["decided_at", "asset", "simulator", "total"])
    assert len(prompt_scores(none)) == 2
