"From predictions to positions, the count of trials, the walk through time, and what must hold when nothing is there to be found."
import json, os, signal, subprocess, sys, time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest
from sklearn.linear_model import Ridge

from synthlab.datasets.panels import Rows, load_panel, make_rows
from synthlab.datasets.purged import PurgedFolds
from synthlab.experiments.experiment import run
from synthlab.experiments.ledger import TrialLedger, standing, trial_key
from synthlab.labs.quant.controls import audit_walk, best_of, random_entries, random_labels, stages_told, walk_outputs
from synthlab.labs.quant.folds import Table, calendar_folds, fold_rows
from synthlab.labs.quant.labelled import labelled_rows
from synthlab.labs.quant.walk import Recipe, WalkForwardEngine, do_folds, fold_model, read_rows, said_by
from synthlab.metrics.performance import probabilistic_sharpe, sharpe
from synthlab.metrics.positions import (PositionRule, break_even_cost, capacity, exposure, hold, minimum_track_record, panel_factors, rank_weights, strategy_metrics)
from synthlab.models.out_of_fold import out_of_fold
from synthlab.models.registry import ConfigError
from synthlab.models.strategies import CascadeStrategy, Gate, GatedStrategy, MultiTaskStrategy, SingleTaskStrategy, restore_strategy

ROOT = Path(__file__).parent.parent
REFERENCE = next((p for p in (ROOT.parent/"shared"/"reference", ROOT/"shared"/"reference") if p.is_dir()), None)

def panel(days=140, assets=6, skill=.6, seed=0, reach=5, features=3):
    "Rows whose first feature says something about the next days."
    rng = np.random.default_rng(seed)
    times = pd.bdate_range("2020-01-01", periods=days, tz="UTC").as_unit("ns")
    X = rng.standard_normal((days, assets, features))
    for t in range(1, days): X[t, :, 0] = .9*X[t - 1, :, 0] + .44*X[t, :, 0]
    moves = .01*(skill*X[:, :, 0] + rng.standard_normal((days, assets)))
    y = sum(np.concatenate([moves[k:], np.full((k, assets), np.nan)]) for k in range(reach))
    ends = times[np.minimum(np.arange(days) + reach, days - 1)].where(np.arange(days) + reach < days)
    y[days - reach:] = np.nan; moves[-1] = np.nan
    index = pd.MultiIndex.from_product([times, [f"A{k}" for k in range(assets)]], names=["decided_at", "asset"])
    name = f"fwd_ret_{reach}d"
    return Rows(pd.DataFrame(X.reshape(-1, features).astype(np.float32), index, [f"x{k}" for k in range(features)]), pd.DataFrame({name: y.ravel()}, index),
                pd.DataFrame({name: ends.repeat(assets)}, index), pd.Series(moves.ravel(), index), times)

def engine(data=None, **more):
    return WalkForwardEngine(panel() if data is None else data, **dict(train_days=60, test_days=20, step_days=20, min_train_samples=100, runs=None) | more)

# positions

def by_hand(weights, returns, cap, cost):
    "The same account, asset by asset and day by day, in money."
    cash, held, out = 1., np.zeros(weights.shape[1]), []
    for target, r in zip(weights, returns):
        wealth = cash + held.sum()
        move = np.zeros_like(held) if np.isnan(target).all() else np.nan_to_num(target)*wealth - held
        total = np.abs(move).sum()/wealth
        if total > cap: move *= cap/total
        paid = cost*np.abs(move).sum()
        held, cash = held + move, cash - move.sum()
        share = 1 - paid/wealth                             # what is paid leaves every position a little smaller
        held, cash = held*share, cash*share
        begin = wealth
        held = held*(1 + np.nan_to_num(r))
        out.append((cash + held.sum())/begin - 1)
    return np.array(out)

@pytest.mark.parametrize("cap,cost", [(np.inf, 0.), (.3, .002), (2., .01)])
def test_an_account_in_money_says_the_same(cap, cost):
    rng = np.random.default_rng(1)
    scores, moves = rng.standard_normal((60, 7)), .02*rng.standard_normal((60, 7))
    scores[rng.random((60, 7)) < .2] = np.nan; scores[10:14] = np.nan; moves[20, 3] = np.nan
    weights = rank_weights(scores, .3)
    np.testing.assert_allclose(hold(weights, moves, cap, cost).net, by_hand(weights, moves, cap, cost), rtol=1e-10)

def test_weights_know_nothing_of_what_comes():
    rng = np.random.default_rng(2)
    scores, moves = rng.standard_normal((90, 5)), .02*rng.standard_normal((90, 5))
    for kind in "rank", "volatility":
        rule, cut = PositionRule(kind, window=10, cap=.5, every=3), 50
        other, later = moves.copy(), scores.copy()
        other[cut:] = .05*rng.standard_normal((40, 5)); later[cut + 1:] = rng.standard_normal((39, 5))
        a, b = rule.trade(scores, moves), rule.trade(later, other)
        np.testing.assert_array_equal(a.weights[:cut + 1], b.weights[:cut + 1])
        np.testing.assert_array_equal(a.net[:cut], b.net[:cut])
        assert (a.weights[cut + 2:] != b.weights[cut + 2:]).any()
        np.testing.assert_array_equal(panel_factors(moves, np.exp(scores), year=30, month=5)[30:cut], panel_factors(other, np.exp(later), year=30, month=5)[30:cut])

def test_equal_scores_hold_nothing_and_order_is_all_that_counts():
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 3, (200, 9)).astype(float); scores[rng.random((200, 9)) < .3] = np.nan
    held = rank_weights(scores, .25)
    some = np.isfinite(scores).any(1)
    np.testing.assert_allclose(held[some].sum(1), 0, atol=1e-12)
    assert (np.abs(held[some]).sum(1) <= 1 + 1e-12).all()
    for row, w in zip(scores, held):
        for v in np.unique(row[np.isfinite(row)]): assert np.ptp(w[row == v]) == 0        # equals are held alike
    order = rng.permutation(9)
    np.testing.assert_allclose(rank_weights(scores[:, order], .25), held[:, order], atol=1e-15)

def test_break_even_and_capacity_are_where_nothing_is_left():
    rng = np.random.default_rng(4)
    moves = .02*rng.standard_normal((300, 8))
    book = PositionRule(fee=0., slippage=0.).trade(moves + .05*rng.standard_normal(moves.shape), moves)
    assert abs(hold(book.weights, moves, cost=float(break_even_cost(book))).net.mean()) < 1e-9
    money = np.full(moves.shape, 1e6)
    found = capacity(book, moves, money)
    assert abs(capacity(book, moves, money, wealth=[found.wealth]).curve.net[0]) < 1e-9
    assert "no volume" in capacity(book, moves).said
    losing = hold(-book.weights, moves)
    assert capacity(losing, moves, money).wealth == 0 and break_even_cost(losing) < 0

def test_a_delisted_asset_is_held_blindly_and_told():
    moves = np.array([[.1, .0], [np.nan, .0], [np.nan, .0]])
    book = hold([[1., 0]]*3, moves)
    assert book.unknown == 2 and book.weights[1, 0] == 1                        # nobody knew
    np.testing.assert_allclose(book.net, [.1, 0, 0])

def test_exposure_finds_the_market():
    statsmodels = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(5)
    moves = .01*rng.standard_normal((700, 10)) + .01*rng.standard_normal((700, 1))
    factors = panel_factors(moves)
    y = .7*factors.market + .004*rng.standard_normal(700)
    found, known = exposure(y, factors), factors.notna().all(axis=1)
    fit = statsmodels.OLS(y[known], statsmodels.add_constant(factors[known])).fit(cov_type="HAC", cov_kwds=dict(maxlags=int(4*(known.sum()/100)**(2/9))))
    np.testing.assert_allclose(found.beta[1:], fit.params.iloc[1:], rtol=1e-8)
    np.testing.assert_allclose(found.t, fit.tvalues, rtol=1e-8)
    np.testing.assert_allclose(found.attrs["r2"], fit.rsquared, rtol=1e-8)

@pytest.mark.skipif(REFERENCE is None, reason="the reference cases are not here")
def test_metrics_by_the_names_of_the_trade():
    said, given = json.loads((REFERENCE/"performance_metrics.json").read_text()), np.load(REFERENCE/"performance_returns.npz")
    for name, known in said.items():
        r = next(given[k] for k in given.files if k.startswith(name) and given[k].dtype.kind == "f")
        got = strategy_metrics(["sharpe", "max_drawdown", "hit_rate", "profit_factor", "win_loss_ratio"], r)
        plain, others = known["plain_numpy"], known["quantstats"]
        wanted = [plain["sharpe_ddof1_252"], plain["max_drawdown_from_one"], plain["hit_rate_nonzero"], plain["profit_factor"], others["payoff_ratio"]]
        np.testing.assert_allclose(list(got.values()), wanted, rtol=1e-9)

def test_the_shortest_record_that_is_believed():
    rng = np.random.default_rng(6)
    r = .0008 + .01*rng.standard_t(5, 400)
    needed = float(minimum_track_record(r, .01, .9))
    ratio, u = float(sharpe(r, 1)), (float(sharpe(r, 1)) - .01)
    m2, m3, m4 = (((r - r.mean())**k).mean() for k in (2, 3, 4))
    assert abs(needed - (1 + (1 - m3/m2**1.5*ratio + (m4/m2**2 - 1)/4*ratio**2)*(1.2815515655446004/u)**2)) < 1e-6
    assert minimum_track_record(r, ratio + .1) == np.inf

# the ledger

def test_trials_are_counted_for_good(tmp_path):
    ledger, rng = TrialLedger(tmp_path/"ledger.jsonl"), np.random.default_rng(0)
    key = trial_key("data", "fwd_ret_5d", dict(train=252))
    record = .01*rng.standard_normal(500) + .001
    for k in range(6): ledger.record(key, dict(depth=k % 5), float(k)/100, 500, f"runs/{k}")
    with open(ledger.path, "ab") as file: file.write(b'{"key": "' + key.encode()[:4])             # the power went
    assert len(ledger.trials(key)) == 5 and standing(ledger, key, record).trials == 5
    assert list(ledger.trials(key).sharpe) == [.05, .01, .02, .03, .04]                          # as each was last
    ledger.record(key, dict(depth=9), .1, 500)
    assert len(ledger.trials(key)) == 6 and all(json.loads(line) for line in ledger.path.read_text().splitlines())
    place = standing(ledger, key, record)
    assert place.variance == pytest.approx(np.var([.05, .01, .02, .03, .04, .1], ddof=1)) and place.deflated < probabilistic_sharpe(record)

def test_a_single_trial_has_the_variance_of_an_estimate(tmp_path):
    ledger, r = TrialLedger(tmp_path/"l.jsonl"), .01*np.random.default_rng(1).standard_normal(400)
    ledger.record("k", 1, .1, 400)
    assert standing(ledger, "k", r).variance == pytest.approx(1/400, rel=.1) and standing(ledger, "k", r).deflated == probabilistic_sharpe(r)

# the walk

@pytest.mark.parametrize("days,folds", [(314, None), (315, 1), (335, 1), (336, 2), (756, 22)])
def test_folds_are_counted_on_the_calendar(days, folds):
    calendar = pd.bdate_range("2018-01-01", periods=days, tz="UTC")
    if folds is None:
        with pytest.raises(ValueError, match="315 or more"): calendar_folds(calendar)
    else: assert len(calendar_folds(calendar)) == folds

def test_no_row_is_learnt_from_before_its_end():
    rows = panel(days=200, reach=7)
    rng = np.random.default_rng(0)
    late = rows.ends_at.iloc[:, 0] + pd.to_timedelta(rng.integers(0, 9, len(rows)), "D")        # of any reach, row by row
    rows = Rows(rows.X, rows.y, late.to_frame("fwd_ret_7d"), rows.returns, rows.calendar)
    table = Table(rows, list(rows.y))
    for expanding in False, True:
        for fold in calendar_folds(rows.calendar, 60, 20, 11, expanding):
            for embargo in 0, 3, "4D":
                cut = fold_rows(table, fold, embargo)
                first = pd.Timestamp(int(table.decided[cut.test[0]]), tz="UTC")
                ends = pd.DatetimeIndex(late.iloc[cut.train])
                free = pd.Timedelta(embargo) if isinstance(embargo, str) else pd.Timedelta(0)
                assert ends.max() < first - free
                if embargo == 3: assert ends.max() < rows.calendar[rows.calendar.get_loc(first) - 3]
                inside = rows.decided_at[cut.train]
                assert inside.min() >= fold.train_start and inside.max() <= fold.train_end
                left = (rows.decided_at >= fold.train_start) & (rows.decided_at <= fold.train_end) & rows.known(table.targets[0])
                if not embargo: assert set(cut.train) == set(np.flatnonzero(left & (late < first).to_numpy()))

class Dice(Ridge):
    "Noise on top of a ridge, by its seed."
    def __init__(self, alpha=1., random_state=None): super().__init__(alpha=alpha, random_state=random_state)
    def predict(self, X): return super().predict(X) + .001*np.random.default_rng(self.random_state).standard_normal(len(X))

def test_a_longer_range_leaves_folds_as_they_were():
    whole = panel(days=180)
    def until(n):
        rows = whole.take(np.arange(n*6))
        gone = ~(rows.ends_at.iloc[:, 0] <= whole.calendar[n - 1]).to_numpy()
        y = rows.y.copy(); y[gone] = np.nan
        returns = rows.returns.where(rows.decided_at < whole.calendar[n - 1])
        return Rows(rows.X, y, rows.ends_at.mask(gone[:, None]), returns, whole.calendar[:n])
    for more in dict(), dict(expanding=True), dict(embargo=2), dict(rule=PositionRule("volatility", window=10)):
        long = engine(until(180), step_days=10, **more).run(Dice(), metrics=["sharpe", "turnover"])
        for n in 80, 103, 121:
            short = engine(until(n), step_days=10, **more).run(Dice(), metrics=["sharpe", "turnover"])
            for a, b in zip(short["folds"], long["folds"]):
                pd.testing.assert_series_equal(a["predictions"], b["predictions"], check_exact=True)
                assert a["metrics"] == b["metrics"]
            both = short["returns"].index[:-1]
            pd.testing.assert_frame_equal(short["returns"].loc[both], long["returns"].loc[both], check_exact=True)

def test_the_first_fold_that_predicted_a_day_wins():
    found = engine(step_days=7).run(Dice())
    said = found["predictions"]
    assert said.index.is_unique
    for row, rows in said.groupby("fold"):
        pd.testing.assert_series_equal(rows["said"], found["folds"][row]["predictions"][rows.index], check_exact=True, check_names=False)
    first = {}
    for k, fold in enumerate(found["folds"]):
        for day in fold["predictions"].index.get_level_values(0).unique(): first.setdefault(day, k)
    assert (said["fold"] == said.index.get_level_values(0).map(first)).all()

def test_a_labelled_table_and_its_rows_walk_alike():
    rows = panel()
    frame = pd.concat([rows.X, rows.y], axis=1).reset_index().rename(columns=dict(decided_at="time"))
    close = (1 + rows.returns.fillna(0)).groupby(level=1).cumprod().groupby(level=1).shift(1).fillna(1.)
    frame["close"] = close.to_numpy()
    a, b = (engine(d).run(Ridge(), metrics=["sharpe", "hit_rate"]) for d in (rows, frame.sample(frac=1, random_state=0)))
    pd.testing.assert_frame_equal(a["predictions"], b["predictions"], check_exact=True, check_freq=False)
    assert b["aggregate_metrics"]["sharpe"] == pytest.approx(a["aggregate_metrics"]["sharpe"], rel=1e-9)

def test_few_rows_are_told_and_not_fitted():
    rows = panel()
    found = engine(rows.take(~((rows.decided_at < "2020-03-05") & (rows.assets > "A0"))), min_train_samples=150).run(Ridge())
    assert [f["skipped"] for f in found["folds"]] == [True, False, False, False][:len(found["folds"])]
    assert "fewer than 150" in found["folds"][0]["why"] and "1 of" in found["notes"][0]
    assert found["predictions"].fold.min() == 1

def test_several_processes_and_one_that_died_come_to_the_same_bits(tmp_path):
    rows, how = panel(days=120), dict(config=dict(alpha=3.))
    whole = engine(rows).run("ridge", **how)
    walk = engine(rows, runs=tmp_path)
    folder = walk.begin(tmp_path/"walk", Recipe.of("ridge", how["config"]))
    walk.keep_rows(folder)
    assert read_rows(folder).X.equals(rows.X)
    do_folds(str(folder), walk.cuts()[1].name)                              # what another process does
    broken = folder/"parts"/walk.cuts()[0].name/"checkpoints"
    broken.mkdir(parents=True); (broken/".best.safetensors.77.tmp").write_bytes(b"half of it")      # one that died half-way
    found = walk.run("ridge", folder=folder, **how)
    pd.testing.assert_frame_equal(found["predictions"], whole["predictions"], check_exact=True)
    assert found["aggregate_metrics"]["sharpe"] == whole["aggregate_metrics"]["sharpe"] and found["standing"].trials == 1
    with pytest.raises(ConfigError, match="holds another walk"): walk.run("ridge", dict(alpha=4.), folder=folder)
    with pytest.raises(ConfigError, match="no fold"): do_folds(str(folder), "1999-01-01")
    with pytest.raises(ConfigError, match="object of this process"): walk.run(Ridge(), jobs=2)

@pytest.mark.parametrize("name,change,why", [
    ("walk.json", lambda d: d["cuts"].pop("embargo"), "no cuts.embargo"), ("walk.json", lambda d: d.update(levels=[2]), r"levels\[0\] is 2, not a number from 0 to 1"),
    ("walk.json", lambda d: d["cuts"].update(train_days=-1), "train_days is -1"), ("walk.json", lambda d: d.update(data="0"*64), "other rows"),
    ("days.json", lambda d: d.update(calendar=["monday"]), "calendar"), ("days.json", lambda d: d.pop("calendar"), "no calendar"),
    ("rows.parquet", lambda t: t.drop(columns="asset"), "asset"), ("rows.parquet", lambda t: t.assign(**{"return": "high"}), "could not convert"),
    ("rows.parquet", lambda t: t.assign(**{"e/fwd_ret_1d": "soon"}), "not as it was written"), ("walk.json", None, "no walk")])
def test_a_walk_that_another_process_reads_is_a_walk(name, change, why, tmp_path):
    "Each field of the plan, the days and the rows is of its kind, or one sentence names the folder."
    walk = engine(panel(days=120), runs=tmp_path)
    folder = walk.begin(tmp_path/"walk", Recipe.of("ridge", {}))
    walk.keep_rows(folder)
    path = folder/name
    if change is None: path.unlink()
    elif path.suffix == ".parquet": change(pd.read_parquet(path)).to_parquet(path)
    else:
        said = json.loads(path.read_text())
        change(said); path.write_text(json.dumps(said))
    with pytest.raises(ConfigError, match=why) as told: do_folds(str(folder), walk.cuts()[0].name)
    assert str(folder) in str(told.value) and "\n" not in str(told.value)

@pytest.mark.slow
def test_a_fold_that_is_killed_is_taken_up_again(tmp_path):
    "Processes are stopped dead again and again; what is left at the end is what one process would have made."
    rows = panel(days=160)
    walk = engine(rows, runs=tmp_path, step_days=10)
    folder = walk.begin(tmp_path/"walk", Recipe.of("ridge", {}))
    walk.keep_rows(folder)
    names = [c.name for c in walk.cuts()]
    line = [sys.executable, "-m", "synthlab.experiments.tasks", "folds", str(folder), *names]
    for wait in 0, .02, .05:
        process = subprocess.Popen(line, cwd=ROOT, env=os.environ | dict(PYTHONPATH=str(ROOT)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 120
        while not (folder/"parts").exists() and process.poll() is None and time.monotonic() < until: time.sleep(.01)
        time.sleep(wait); process.send_signal(signal.SIGKILL); process.wait()
    found = walk.run("ridge", folder=folder, jobs=2, progress=False)
    pd.testing.assert_frame_equal(found["predictions"], engine(rows, step_days=10).run("ridge")["predictions"], check_exact=True)

def test_paths_predict_every_row_once_and_purge_both_sides():
    rows = panel(days=120)
    walk = engine(rows)
    cuts, paths = walk.path_cuts(5, 2, embargo=2)
    found = walk.paths(Ridge(), n_splits=5, n_test=2, embargo=2)
    assert paths.shape == (4, 5) and found["metrics"].shape[0] == 4 and not found["predictions"].isna().any().any()
    table, blocks = walk.table, np.array_split(walk.table.times, 5)
    for cut in cuts:
        for block in blocks:
            if not np.isin(table.decided[cut.test], block).any(): continue
            reach = table.ends[np.isin(table.decided, block), 0]
            reach = max(block[-1], reach[reach < np.iinfo(np.int64).max].max(initial=0))
            t = table.decided[cut.train]
            assert ((table.ends[cut.train, 0] < block[0]) | (t > reach)).all()
    k = paths[2, 4]
    alone = Ridge().fit(rows.X.iloc[cuts[k].train], table.y[cuts[k].train, 0]).predict(rows.X.iloc[cuts[k].test])
    mine = np.isin(table.decided[cuts[k].test], blocks[4])
    np.testing.assert_array_equal(found["predictions"][2].to_numpy()[cuts[k].test[mine]], alone[mine])

class Windows(Ridge):
    "A ridge on the newest and the oldest step of windows of one asset."
    sequence = True
    def fit(self, X, y, decided_at=None, ends_at=None):
        self.seen_, self.times_, self.ends_ = X, decided_at, ends_at
        return super().fit(X[:, [0, -1]].reshape(len(X), -1), y)
    def predict(self, X):
        self.asked_ = X
        return super().predict(X[:, [0, -1]].reshape(len(X), -1))

def test_sequences_see_windows_of_one_asset():
    rows = panel(days=120)
    walk = engine(rows, lookback=4)
    for cut in walk.cuts():
        model, fit = walk.fit(cut, Recipe.of(Windows()))
        assert model.asked_.shape == (120, 4, 3) and (model.ends_ >= model.times_).all()
        flat = rows.X.to_numpy().reshape(120, 6, 3)
        for i in 0, 7, 119:
            day, asset = divmod(int(fit.rows[i]), 6)
            np.testing.assert_array_equal(model.asked_[i], flat[day - 3:day + 1, asset])
        assert len(model.seen_) == len(cut.train) - (3*6 if cut.train[0] == 0 else 0)       # the first days have no past

def test_quantiles_and_importance_are_kept(tmp_path):
    pytest.importorskip("lightgbm")
    walk, how = engine(panel(days=120), runs=tmp_path), dict(n_estimators=8, min_data_in_leaf=20)
    found = walk.run("quantile_lightgbm", how, folder=tmp_path/"q", levels=[.1, .5, .9])
    again = walk.run("quantile_lightgbm", how, folder=tmp_path/"q", levels=[.1, .5, .9])
    assert found["quantiles"].shape == (len(found["predictions"]), 3) and (np.diff(found["quantiles"]) >= 0).all()
    np.testing.assert_array_equal(again["quantiles"], found["quantiles"])
    assert found["folds"][0]["importance"].argmax() == 0 and again["standing"].trials == 1

@pytest.mark.parametrize("wrong,why", [
    (lambda: engine(target="fwd_ret_3d"), "no target is called"), (lambda: engine().run("rigde"), "did you mean ridge"),
    (lambda: engine().run(Ridge(), metrics=["hit_ratio"]), "did you mean hit_rate"), (lambda: engine(train_days=500), "make no fold"),
    (lambda: engine().run(Ridge(), jobs=2), "meet in a folder"), (lambda: engine(calendar=panel().calendar[9:]), "no day of the calendar")])
def test_what_is_wrong_is_said_before_anything_is_fitted(wrong, why):
    with pytest.raises(ValueError, match=why): wrong()

# strategies

def asked_twice(days=120):
    "Rows with a return, and whether it is above and far below nothing."
    rows = panel(days=days)
    gained = rows.y["fwd_ret_5d"]
    share = lambda yes: yes.astype(float).where(gained.notna())
    rows.y = rows.y.assign(**{"will_peak_5d_1.0": share(gained > 0), "will_valley_5d_1.0": share(gained < -.02)})
    rows.ends_at = pd.concat([rows.ends_at["fwd_ret_5d"]]*3, axis=1).set_axis(rows.y.columns, axis=1)
    return rows

GATE = dict(rules=[["will_peak", .5, .5], ["will_valley", .5, 0.]])
WAYS = dict(single_task=SingleTaskStrategy("ridge", dict(alpha=3.)), cascade=CascadeStrategy(["ridge", "ridge"], ["will_peak_5d_1.0", "fwd_ret_5d"], folds=3),
            gated=GatedStrategy("ridge", gate=Gate(**GATE)), recalibrated=GatedStrategy("ridge", gate=dict(GATE, calibration="platt"), folds=3))

@pytest.mark.parametrize("name", WAYS)
def test_a_strategy_walks_and_is_taken_up_again(name, tmp_path):
    "As an object, by its name and settings, and in another process it is the same walk; each fold says again what it said."
    rows, strategy = asked_twice(), WAYS[name]
    walk = engine(rows, runs=tmp_path, target=list(rows.y))
    whole = walk.run(strategy, folder=tmp_path/"whole")
    recipe = Recipe.of(strategy.kind, strategy.settings())
    folder = walk.begin(tmp_path/"again", recipe)
    walk.keep_rows(folder)
    do_folds(str(folder), walk.cuts()[1].name)                              # what another process does
    again = walk.run(strategy.kind, strategy.settings(), folder=folder)
    pd.testing.assert_frame_equal(again["predictions"], whole["predictions"], check_exact=True)
    assert again["standing"].trials == 1 and not strategy.families
    for cut, fold in zip(walk.cuts(), again["folds"]):
        model = fold_model(folder/"parts"/cut.name)
        np.testing.assert_array_equal(said_by(model, rows.X.loc[fold["predictions"].index]), fold["predictions"])
        assert fold["importance"].shape == (3,)
    with pytest.raises(ConfigError, match="holds another walk"): walk.run(strategy.kind, strategy.settings() | dict(seed=8), folder=folder)

def test_a_gate_in_a_walk_is_a_gate_by_hand():
    rows = asked_twice()
    walk = engine(rows, target=list(rows.y))
    cut = walk.cuts()[0]
    _, fit = walk.fit(cut, Recipe.of(WAYS["gated"]))
    alone = {name: engine(rows, target=name) for name in rows.y}
    value, peak, valley = (w.fit(w.cuts()[0], Recipe.of("ridge"))[1].said for w in alone.values())
    np.testing.assert_allclose(fit.said, value*np.where(peak > .5, .5, 1)*np.where(valley > .5, 0, 1), rtol=1e-9)
    assert 0 < (fit.said == 0).mean() < 1
    with pytest.raises(ValueError, match="a table of two or more"): engine(rows).fit(cut, Recipe.of(WAYS["gated"]))

def test_the_first_of_several_targets_is_traded():
    "Of two questions of yes or no, a family of several gives a column a question, not a column a class."
    rows = asked_twice()
    walk = engine(rows, target=["will_peak_5d_1.0", "will_valley_5d_1.0"])
    small = ["multi_task", dict(epochs=1, hidden_dim=4)]
    for recipe in Recipe.of(*small), Recipe.of("multi_task_strategy", dict(model_name=small)):
        model, fit = walk.fit(walk.cuts()[0], recipe)
        family = model.families["model"] if isinstance(model, MultiTaskStrategy) else model
        said = family.predict_proba(rows.X.iloc[fit.rows])
        np.testing.assert_allclose(fit.said, said["will_peak_5d_1.0"])
        assert abs(fit.said - said["will_valley_5d_1.0"]).max() > 1e-3

def test_a_chain_of_eleven_keeps_its_order():
    "JSON is written with sorted names, and stage 10 comes before stage 2 there."
    rows = panel(days=120)
    ends = rows.ends_at["fwd_ret_5d"]
    chain = CascadeStrategy([["ridge", dict(validation=0)]]*11, folds=12).train(rows.X, rows.y["fwd_ret_5d"], ends_at=ends)
    again = restore_strategy(json.loads(json.dumps(chain.about(), sort_keys=True)), chain.state_dict())
    assert list(again.families) == list(chain.families) and np.array_equal(again.predict(rows.X), chain.predict(rows.X))

# what must come out where there is nothing

def test_an_account_that_lost_everything_holds_nothing():
    book = PositionRule("rank", fee=.01, slippage=0.).trade([[1., 2]]*4, [[.1, 0.], [5., 0.], [.1, .1], [.1, .1]])
    assert book.net[1] == -1 and not book.weights[2:].any() and not book.net[2:].any()

def test_random_labels_earn_nothing():
    walk = engine(panel(days=320, assets=8, skill=0.), min_train_samples=200)
    found = random_labels(walk, 60)
    assert found.uniform > .01 and abs(found.sharpe.mean()) < 4*found.sharpe.std()/60**.5
    known = random_labels(engine(panel(days=320, assets=8, skill=.5), min_train_samples=200), 60)
    assert known.sharpe.std() > 1.5*found.sharpe.std()              # mixtures of what the features know: told in the notebook

def test_random_labels_are_those_of_a_plain_loop():
    walk = engine(panel(days=120))
    found, t, said = random_labels(walk, 2, seed=3), walk.table, np.full(120*6, np.nan)
    drawn = np.random.default_rng([3, 1]).standard_normal(len(said))
    for cut in walk.cuts():
        X = t.X.to_numpy(np.float64)
        A = (X[cut.train] - X[cut.train].mean(0))/X[cut.train].std(0)
        w = np.linalg.solve(A.T@A + np.eye(3), A.T@(drawn[cut.train] - drawn[cut.train].mean()))
        said[cut.test] = (X[cut.test] - X[cut.train].mean(0))/X[cut.train].std(0)@w
    rows = np.flatnonzero(np.isfinite(said))
    scores = t.wide(rows, said[rows])[t.time[rows[0]]:t.time[rows[-1]]]
    book = PositionRule(fee=0., slippage=0.).trade(scores, t.everything[t.time[rows[0]]:t.time[rows[-1]]])
    assert len(book.net) == 59 and found.sharpe[1] == pytest.approx(float(sharpe(book.net)), rel=1e-9)

def test_entries_at_random_keep_the_trading_and_lose_the_knowledge():
    rng, free = np.random.default_rng(0), PositionRule(fee=0., slippage=0.)
    moves = .01*rng.standard_normal((200, 8))
    assert random_entries(moves + .03*rng.standard_normal(moves.shape), moves, free, 99).p_value == .01
    p = [random_entries(rng.standard_normal((60, 5)), .01*rng.standard_normal((60, 5)), free, 39).p_value for _ in range(40)]
    assert kstest(p, "uniform").pvalue > .001

def test_the_best_of_twenty_is_seen_through():
    found = best_of(bars=126, simulations=300, seed=1)
    assert found.plain > .5 and .015 < found.sidak < .1 and found.deflated <= .015
    assert best_of(bars=504, simulations=40, ratio=5., seed=1).deflated > .8

def prices(assets=4, days=150):
    rng, times = np.random.default_rng(5), pd.bdate_range("2020-01-01", periods=days, tz="UTC")
    return {f"A{k}": pd.DataFrame(dict(close=100*np.exp(np.cumsum(.01*rng.standard_normal(days)))), times) for k in range(assets)}

def rows_of(frames, **features):
    known = dict(week=lambda f: f["close"].pct_change(5).to_numpy(), day=lambda f: f["close"].pct_change().to_numpy())
    return make_rows(load_panel(dict(frames)), known | features, "fwd_ret_5d")

def walked(rows, kind=WalkForwardEngine): return walk_outputs(rows, kind(rows, 60, 20, 20, 100, runs=None).run("ridge"))

class Unpurged(WalkForwardEngine):
    "Learns from every training row, whenever its outcome is known."
    def cuts(self):
        t, last = self.table, np.iinfo(np.int64).max
        inside = lambda c: (t.decided < t.decided[c.test[0]]) & (t.decided >= t.decided[c.train[0]]) & np.isfinite(t.y[:, 0])
        return [c._replace(train=np.flatnonzero(inside(c)), before=last) for c in super().cuts()]

class InSample(CascadeStrategy):
    "Asks its stages about rows that they have learnt from."
    def _unseen(self, family, X, y, folds, beside): return np.asarray(family.predict(X), float).reshape(len(X), -1)

def cascaded(frames, kind):
    "A walk of a cascade, and what each stage told the next."
    rows, recipe = rows_of(frames), Recipe.of(kind(["ridge", "ridge"], folds=4))
    walk = WalkForwardEngine(rows, 60, 20, 20, 100, runs=None)
    fits = walk.fit_cuts(walk.cuts(), recipe)
    return walk_outputs(rows, walk.judged(walk.cuts(), fits, ["sharpe"], recipe), stages_told(walk, recipe))

def with_X(rows, change): rows.X = change(rows.X).astype(np.float32); return walked(rows)
def staged(frames, inside):
    rows, stages = rows_of(frames), {}
    for cut in WalkForwardEngine(rows, 60, 20, 20, 100, runs=None).cuts():
        X, y = rows.X.iloc[cut.train].fillna(0), rows.y["fwd_ret_5d"].iloc[cut.train]
        folds = PurgedFolds(4, ends_at=rows.ends_at["fwd_ret_5d"].iloc[cut.train])
        stages[cut.name] = pd.Series(Ridge(1e-6).fit(X, y).predict(X) if inside else out_of_fold(Ridge(1e-6), X, y, folds), X.index)
    return walk_outputs(rows, None, stages)

LEAKS = {
    "a feature from the future": lambda f: walked(rows_of(f, next=lambda b: b["close"].pct_change().shift(-1).to_numpy())),
    "the target among the features": lambda f: with_X(r := rows_of(f), lambda X: X.assign(hint=r.y["fwd_ret_5d"].fillna(0))),
    "train rows inside the reach": lambda f: walked(rows_of(f), Unpurged),
    "a scaler fitted on all rows": lambda f: with_X(rows_of(f), lambda X: (X - X.mean())/X.std()),
    "a cascade in-sample": lambda f: staged(f, True),
    "ranked over time, not across assets": lambda f: with_X(rows_of(f), lambda X: X.groupby(level="asset").rank(pct=True)),
    "a cascade in-sample inside the walk": lambda f: cascaded(f, InSample)}
KNOWN_BY = dict(zip(LEAKS, ("next", "hint", "said", "week", "stag", "week", "stag")))

@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_fires(name):
    report = audit_walk(LEAKS[name], prices(), cuts=2, changes=("scaled",))
    assert not report and KNOWN_BY[name] in {f.name.split(" ", 1)[1][:4] for f in report.findings}

@pytest.mark.parametrize("whole", [lambda f: walked(rows_of(f)), lambda f: staged(f, False), lambda f: cascaded(f, CascadeStrategy),
    lambda f: with_X(rows_of(f), lambda X: X.groupby(level="decided_at").rank(pct=True))], ids=("walk", "cascade out of fold", "cascade inside the walk", "ranked across assets"))
def test_what_is_right_does_not_fire(whole):
    assert audit_walk(whole, prices(), cuts=2, changes=("scaled",))

@pytest.mark.soak
def test_two_thousand_times_the_best_of_twenty():
    found = best_of(bars=1008, simulations=2000, seed=int(os.environ.get("SEED", 0)))
    print(found)
    assert found.plain > .5 and .03 <= found.sidak <= .08 and found.deflated <= .01

@pytest.mark.slow
def test_two_hundred_random_walks_on_the_embedded_panel():
    rows = make_rows(load_panel("us20"))
    rows = rows.take((rows.decided_at >= "2012-01-01") & (rows.decided_at < "2023-01-01"))
    rows.calendar = rows.calendar[rows.calendar >= "2012-01-01"]
    found = random_labels(WalkForwardEngine(rows, step_days=63, runs=None), 200)
    assert found.uniform > .01 and abs(found.sharpe.mean()) < .1

def test_a_table_with_labels_equals_rows_made_of_bars():
    panel = load_panel("us20", ["AAPL", "JPM"])
    made = make_rows(panel, ["return_5"], ["fwd_ret_3d"])
    made = made.take(made.decided_at >= "2022-06-01")
    again = labelled_rows(pd.concat([made.X, made.y], axis=1).reset_index().rename(columns={"decided_at": "time"}), "fwd_ret_3d")
    pd.testing.assert_frame_equal(again.X, made.X, check_freq=False)
    known = made.known("fwd_ret_3d")
    assert (again.known("fwd_ret_3d") == known).all() and (again.ends_at[known] == made.ends_at[known]).all().all() and again.returns.isna().all()

# --- panels of one's own ---------------------------------------------------------------------------------------------------------

def short_panel(assets=6, days=160, volatility=.02, late=()):
    "Closes of a few assets, some of which begin halfway."
    rng, when = np.random.default_rng(0), pd.bdate_range("2020-01-01", periods=days, tz="UTC")
    closes = {f"A{k}": pd.Series(100*np.exp(volatility*rng.standard_normal(days).cumsum()), when) for k in range(assets)}
    return {name: pd.DataFrame(dict(close=c.iloc[days//2*(name in late):])) for name, c in closes.items()}

SHORT = ["family=ridge", "others=[]", "data.features=[return_5]", "training.train_days=60", "training.test_days=20", "training.step_days=20", "training.min_train_samples=10", "evaluation.n_boot=100",
         "evaluation.controls=2", "tracking.mode=disabled", "jobs=1"]

@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("panel,typed,says", [
    (dict(assets=1), ["data.targets=[fwd_ret_5d]"], "Sharpe ratio of **undefined** after costs and undefined before them"),
    (dict(assets=2, late=["A1"]), [], "Too few days to tell"), (dict(late=["A0", "A1"]), ["data.targets=[will_valley_mdd_5d_0.03]"], "will_valley"),
    (dict(volatility=.02, days=120), [], "xdm_ret_5d")], ids=["one asset", "two", "some are younger", "short"])
def test_a_short_panel_says_what_it_does_not_know(panel, typed, says, tmp_path):
    "Without a warning of an empty mean, and without a traceback."
    assert says in run("quant", short_panel(**panel), [*SHORT, *typed, f"runs={tmp_path}"], quiet=True)["conclusion"]

def test_what_never_happens_is_not_learnt(tmp_path):
    "A fold in which a class is missing is skipped and said to be; where none is left, or the newest rows have one alone, the target is refused before a folder is made."
    calm = short_panel(volatility=.001)
    typed = [*SHORT, f"runs={tmp_path}"]
    with pytest.raises(ConfigError, match="newest rows teach nothing: will_valley_mdd_5d_0.03 is 0 in all .* rows to learn from; .*leave it out: data.targets=.xdm_ret_5d.$"): run("quant", calm, typed, quiet=True)
    wild = short_panel(volatility=.02)
    joined = lambda one, two: {name: pd.concat([one[name].iloc[:80], two[name].iloc[80:]*one[name].close.iloc[79]/two[name].close.iloc[79]]) for name in one}
    with pytest.raises(ConfigError, match="the newest rows teach nothing: will_valley_mdd_5d_0.03 is 0 in all"): run("quant", joined(wild, calm), typed, quiet=True)
    assert not list(tmp_path.iterdir())
    found = run("quant", joined(calm, wild), [*typed, "data.targets=[will_valley_mdd_5d_0.03]"], quiet=True)["metrics"]
    assert found["folds"] > 0 and any("skipped: will_valley_mdd_5d_0.03 is 0 in all" in note for note in found["notes"])
