"Facts between the steps: who is the market is taken for one, who only looks like it at each step is caught."
from dataclasses import replace
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from papermill.exceptions import PapermillExecutionError

from in_process import execute
from synthlab.labs.market.realism import (PairedReturns, compare_returns, conclude_realism, run_realism,
                                          spread_windows, take_returns)
from synthlab.experiments.reports import findings, linked_run
from synthlab.experiments.runs import Run
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market
from synthlab.models.registry import ConfigError

NBS = Path(__file__).parent.parent/"nbs"
TOY = ["training.n_paths=8", "training.batch_size=512", "evaluation.baselines=[constant,ewma]", "tracking.mode=disabled"]
ALPHA, GAMMA, BETA, DAILY = .03, .16, .87, .01

def garch(variance, steps, seed):
    "Returns of an asymmetric GARCH process in units of `DAILY`, from given variances on; and its variances, one more than returns."
    z = np.random.default_rng(seed).standard_t(8, (steps, *np.shape(variance)))/(8/6)**.5
    x, v = [], [variance]
    for shock in z:
        x.append(v[-1]**.5*shock)
        v.append(1 - ALPHA - GAMMA/2 - BETA + (ALPHA + GAMMA*(x[-1] < 0))*x[-1]**2 + BETA*v[-1])
    return np.stack(x, -1), np.stack(v, -1)

def write_bars(path, returns, first=100.):
    "Daily bars that make these returns."
    close = first*np.exp(returns.cumsum())
    opened = np.r_[first, close[:-1]]
    high, low = np.maximum(opened, close)*1.002, np.minimum(opened, close)/1.002
    time = pd.date_range("2000-01-01", periods=len(close), freq="1D", tz="UTC", name="time")
    pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": 1.}, time).to_parquet(path)

@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A GARCH market in a file, its test windows, and the variance that follows each row."
    x, v = garch(np.ones(()), 6000, seed=4)
    path = tmp_path_factory.mktemp("garch")/"GARCH.parquet"
    write_bars(path, DAILY*x)
    market = load_market(market_config([f"data={path}", "training.horizon=60", "data.split.val_fraction=.1", "data.split.test_fraction=.6"]))
    return market, spread_windows(market.fold.test), v[1:]

def paths(batch, returns): return batch["initial_price"][:, None, None]*torch.from_numpy(np.exp(DAILY*returns.cumsum(-1)))

@pytest.fixture(scope="module")
def found(world):
    "The process itself and two kinds of normal noise: of constant volatility, and of the volatility known at the decision, held."
    _, windows, after = world
    P = 60
    normal = lambda rows, seed: np.random.default_rng(seed).normal(size=(len(rows), P, 60))
    simulators = {"truth": lambda batch, rows, seed: paths(batch, garch(np.repeat(after[rows][:, None], P, 1), 60, seed)[0]),
                  "constant": lambda batch, rows, seed: paths(batch, normal(rows, seed)),
                  "held": lambda batch, rows, seed: paths(batch, after[rows][:, None, None]**.5*normal(rows, seed))}
    return compare_returns(take_returns(simulators, windows, seed=1), n_boot=100)

def test_the_process_itself_is_taken_for_the_market(found):
    "Who draws from the very process misses next to nothing, whether windows are taken as they are or over the known volatility."
    for view in found, found.beside_known(): assert view.table["truth missed"].mean() <= .1, view.verdicts()
    assert found.table.loc["volatility", "truth"] == pytest.approx(1, abs=.2)

def test_the_truth_lies_inside_most_bands():
    "Over several markets at once: the band of a single one hangs on a few rough months."
    inside = []
    for seed in range(5):
        x, v = garch(np.ones(()), 500 + 100*30, 10*seed)
        real, start = x[500:].reshape(100, 30), np.repeat(v[500:-1:30, None], 20, 1)
        inside.append(compare_returns(PairedReturns(real, {"truth": garch(start, 30, 10*seed + 1)[0]}, start[:, 0]**.5, 5), n_boot=60).table["truth inside"].mean())
    assert np.mean(inside) > .7, inside

def test_noise_is_caught_for_lack_of_clusters(found):
    "Independent normal noise has neither clusters nor tails; if it holds the known volatility, that shows once it is divided out."
    assert found.verdicts().loc["memory of their size", "constant"] >= 4 and found.verdicts().loc["kurtosis by horizon", "constant"] >= 4
    over = found.beside_known().verdicts()
    assert over.loc["memory of their size", "held"] >= 4 and over.loc["tails", "held"] == 2
    counts = found.verdicts().sum() + over.sum()
    assert counts["constant"] > 2*counts["truth"] and counts["held"] > 2*counts["truth"]

def test_time_turned_round_is_caught_for_leverage(found):
    "Windows that run backwards have the same tails and clusters; that falls come before rough days is lost."
    r = found.returns
    turned = compare_returns(replace(r, simulated={"turned": np.repeat(r.real[:, None, ::-1], 20, 1)}), n_boot=100)
    assert turned.table["turned inside"].filter(like="autocorrelation").all() and turned.table.loc["kurtosis of 1", "turned inside"]
    assert turned.group("leverage")["turned inside"].iloc[:3].sum() == 0 and "leverage" in conclude_realism(turned, turned)

def test_pooled_assets_are_each_in_their_own_unit(tmp_path):
    "Two assets with the same shocks, one ten times as wild and in another currency: pooled, they are two copies, not one record with heavier tails."
    x, _ = garch(np.ones(()), 2500, seed=1)
    for name, daily in (("CALM", .001), ("WILD", .01)): write_bars(tmp_path/f"{name}.parquet", daily*x, 5. if name == "CALM" else 3e4)
    market = load_market(market_config([f"data={tmp_path}", "training.horizon=60", "data.split.val_fraction=.1", "data.split.test_fraction=.6"]))
    windows = spread_windows(market.fold.test)
    r, asset = take_returns({"seer": lambda batch, rows, seed: batch["target"][:, None].expand(-1, 2, -1)}, windows), windows.windows.asset
    calm, wild = r.real[asset == 0], r.real[asset == 1]
    assert calm.std() == pytest.approx(1) and np.allclose(calm, wild, atol=2e-3) and np.allclose(r.simulated["seer"][:, 1], r.real)
    assert r.shared == 1 and r.neighbours == 2*round(len(calm)**(1/3))

def test_windows_that_overlap_are_owned_up_to(world):
    "Windows closer than the horizon are drawn together for the band, and the conclusion says that they overlap."
    market, windows, _ = world
    close = spread_windows(market.fold.test, 4*len(windows.index))
    r = take_returns({"model": lambda batch, rows, seed: batch["target"][:, None].expand(-1, 20, -1)}, close)
    assert 4 <= r.shared <= r.neighbours
    said = compare_returns(r, n_boot=20)
    assert f"They overlap, up to {r.shared} at a time" in conclude_realism(said, said)

def test_report_on_a_random_walk(tmp_path):
    "The report at toy size: its training is a run, which the page names and a second call reads, to the same conclusion."
    out = execute(NBS/"stylised_facts.ipynb", tmp_path, source="mock", horizon=48, model="linear", epochs=1, records=20, run_dir="walk", overrides=TOY)
    assert "test windows of 48 steps" in str(out) and "the most lifelike baseline" in str(out)
    assert linked_run(out, tmp_path) == (tmp_path/"walk").resolve() and Run(tmp_path/"walk").status == "done"
    again = run_realism("linear", ["data=mock", "training.horizon=48", "training.epochs=1", "training.seed=7", *TOY], records=20, folder=tmp_path/"walk")
    shown = [o["data"].get("text/markdown") for c in out.cells for o in c.get("outputs", []) if "data" in o]
    assert conclude_realism(again, again.beside_known()) in shown
    assert (told := findings(out)) and all(then == now for then, now in told)

def test_a_misspelt_parameter_of_the_report_is_refused(tmp_path):
    with pytest.raises(PapermillExecutionError, match="did you mean records"): execute(NBS/"stylised_facts.ipynb", tmp_path, recods=4)
    assert not (tmp_path/"runs").exists()

def test_mistakes_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="set test_share"): run_realism("linear", ["data=mock", "data.split.val_start=2020-01-05"], folder=tmp_path/"a")
    with pytest.raises(ConfigError, match="records=3"): run_realism("linear", ["data=mock"], records=3, folder=tmp_path/"a")
    with pytest.raises(ConfigError, match="n_windows=100000: between 4 and"): run_realism("linear", ["data=mock"], n_windows=100_000, folder=tmp_path/"a")
    assert not (tmp_path/"a").exists()
