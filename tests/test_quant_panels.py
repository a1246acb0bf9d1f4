"""Panels: no value from the future, outcomes dated on each asset's own calendar, the same rows however long the history is and whichever way it is read.

And the indicators beyond the classic ones: against TA-Lib, against formulas written out, candle by candle as in one go."""
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from synthlab.datasets import indicators
from synthlab.datasets.audit import audit_leaks
from synthlab.datasets.bars import BarError, BarWarning
from synthlab.datasets.channels import (dema, donchian, garman_klass, hull, ichimoku, keltner, parabolic_sar, parkinson, rogers_satchell, tema, vwap, vwma, wma, yang_zhang)
from synthlab.datasets.columns import KINDS, get_column, live_column, usual_columns
from synthlab.datasets.indicators import COLUMNS, Live
from synthlab.datasets.oscillators import accumulation, chaikin_flow, mfi, natr, ppo, roc, stochastic_rsi, tsi, vortex
from synthlab.datasets.packages import MissingPackage
from synthlab.datasets.panels import (Column, Panel, StreamedBars, across, arrow_batches, audit_panel, load_panel, make_rows)

from test_indicators import candles

SHARED = Path(__file__).parent.parent.parent/"shared"
FIXED = settings(derandomize=True, deadline=None, max_examples=10)

# --- indicators ----------------------------------------------------------------------------------------------------------

def find(indicator, c, **options):
    got = indicator(*(c[k] for k in Live(indicator).takes), **options)
    return got if isinstance(got, tuple) else (got,)

@pytest.fixture(scope="module")
def real():
    path = SHARED/"reference/indicators_sp500_1d.parquet"
    if not path.exists(): pytest.skip("the reference candles of the shared folder are not here")
    table = pd.read_parquet(path)
    return {k: table[k].to_numpy(float) for k in COLUMNS}

def test_the_library_agrees_on_real_candles(real):
    "Every indicator that TA-Lib has; from the first row on, or, where the start is a convention, once it has faded."
    talib = pytest.importorskip("talib")
    o, h, l, c, v = real.values()
    def same(mine, theirs, unit, from_row=None):
        if from_row is None: assert (np.isnan(mine) == np.isnan(theirs)).all()
        m, t = mine[from_row or 0:], theirs[from_row or 0:]
        assert np.nanmax(abs(m - t)) <= 1e-9*unit and len(m) > 500
    top = c.max()
    same(roc(c, 10), talib.ROC(c, 10), 100); same(natr(h, l, c), talib.NATR(h, l, c), 100)
    same(wma(c, 20), talib.WMA(c, 20), top); same(dema(c, 20), talib.DEMA(c, 20), top); same(tema(c, 20), talib.TEMA(c, 20), top)
    same(ppo(c).line, talib.PPO(c, 12, 26, 1), 100, 400)
    k, d = talib.STOCHRSI(c, 14, 5, 3, 0)
    mine = stochastic_rsi(c, 14, 5, 1, 3)
    same(mine.k, k, 100, 40); same(mine.d, d, 100, 40)
    same(mfi(h, l, c, v), talib.MFI(h, l, c, v), 100); same(accumulation(h, l, c, v), talib.AD(h, l, c, v), abs(talib.AD(h, l, c, v)).max())
    for step, most in ((.02, .2), (.05, .1)): same(parabolic_sar(h, l, step, most), talib.SAR(h, l, step, most), top)
    same(donchian(h, l).upper, talib.MAX(h, 20), top); same(donchian(h, l).lower, talib.MIN(l, 20), top)

def test_the_stop_turns_as_the_library_says():
    "Hundreds of markets, calm and wild: every turn."
    talib = pytest.importorskip("talib")
    for seed in range(60):
        c = candles(120, seed, step=(.002, .01, .05)[seed % 3])
        np.testing.assert_allclose(parabolic_sar(c["high"], c["low"]), talib.SAR(c["high"], c["low"]), rtol=1e-12)

def test_formulas_written_out(real):
    "What TA-Lib does not have, row by row or by pandas."
    o, h, l, c, v = real.values()
    w = lambda x, n: np.lib.stride_tricks.sliding_window_view(x, n)
    close = lambda mine, theirs, first: np.testing.assert_allclose(mine[first:], theirs, rtol=1e-8, atol=1e-12) or np.testing.assert_array_equal(np.isnan(mine[:first]), True)
    close(vwma(c, v), (w(c, 20)*w(v, 20)).sum(1)/w(v, 20).sum(1), 19)
    typical = (h + l + c)/3
    close(vwap(h, l, c, v, 10), (w(typical, 10)*w(v, 10)).sum(1)/w(v, 10).sum(1), 9)
    place = ((c - l) - (h - c))/(h - l)
    close(chaikin_flow(h, l, c, v), (w(place, 20)*w(v, 20)).sum(1)/w(v, 20).sum(1), 19)
    weights = lambda x, n: w(x, n) @ np.arange(1, n + 1)/(n*(n + 1)/2)
    close(hull(c, 16), weights(2*weights(c, 8)[8:] - weights(c, 16), 4), 18)
    before = c[:-1]
    tr = np.maximum(h[1:], before) - np.minimum(l[1:], before)
    close(vortex(h, l, c).plus, w(abs(h[1:] - l[:-1]), 14).sum(1)/w(tr, 14).sum(1), 14)
    close(vortex(h, l, c).minus, w(abs(l[1:] - h[:-1]), 14).sum(1)/w(tr, 14).sum(1), 14)
    twice = lambda x: pd.Series(x).ewm(span=25, adjust=False).mean().ewm(span=13, adjust=False).mean()
    close(tsi(c, start="first"), (100*twice(np.diff(c))/twice(abs(np.diff(c)))).to_numpy(), 1)
    middle = lambda n: (w(h, n).max(1) + w(l, n).min(1))/2
    lines = ichimoku(h, l)
    close(lines.conversion, middle(9), 8); close(lines.span_a, (middle(9)[17:] + middle(26))/2, 25); close(lines.span_b, middle(52), 51)
    channel, wide = keltner(h, l, c), indicators.atr(h, l, c, 10)
    close(channel.upper, (indicators.ema(c, 20) + 2*wide)[19:], 19)
    close(parkinson(h, l), np.sqrt((w(np.log(h/l), 20)**2).mean(1)/(4*np.log(2))), 19)
    rs = np.log(h/c)*np.log(h/o) + np.log(l/c)*np.log(l/o)
    close(rogers_satchell(o, h, l, c), np.sqrt(w(rs, 20).mean(1)), 19)
    close(garman_klass(o, h, l, c), np.sqrt(w(.5*np.log(h/l)**2 - (2*np.log(2) - 1)*np.log(c/o)**2, 20).mean(1)), 19)
    k, night, day = .34/(1.34 + 21/19), np.log(o[1:]/before), np.log(c/o)[1:]
    close(yang_zhang(o, h, l, c), np.sqrt(w(night, 20).var(1, ddof=1) + k*w(day, 20).var(1, ddof=1) + (1 - k)*w(rs[1:], 20).mean(1)), 20)

EVERY = [(roc, {}), (roc, dict(n=1)), (ppo, {}), (ppo, dict(fast=2, slow=5, signal=2, start="first")), (tsi, {}), (tsi, dict(slow=4, fast=2)), (stochastic_rsi, {}),
         (stochastic_rsi, dict(n=5, window=3, slow=1)), (vortex, {}), (vortex, dict(n=2)), (natr, {}), (accumulation, {}), (chaikin_flow, {}), (mfi, {}), (mfi, dict(n=3)),
         (wma, {}), (wma, dict(n=1)), (hull, {}), (hull, dict(n=5)), (dema, dict(n=6)), (tema, dict(n=6)), (vwma, {}), (vwap, dict(n=5)), (donchian, {}), (keltner, {}),
         (ichimoku, {}), (ichimoku, dict(short=2, usual=3, long=7)), (parabolic_sar, {}), (parabolic_sar, dict(step=.1, most=.3)), (parkinson, {}), (garman_klass, {}),
         (rogers_satchell, dict(n=5)), (yang_zhang, {})]
named = lambda case: "-".join([case[0].__name__, *(f"{k}{v}" for k, v in case[1].items())])

@pytest.mark.parametrize("case", EVERY, ids=named)
def test_any_pieces_give_the_bits_of_the_whole(case):
    indicator, options = case
    @FIXED
    @given(st.integers(0, 10**6), st.lists(st.integers(0, 150), max_size=8), st.sampled_from([(), ((30, 70),)]), st.sampled_from([1e-3, 6e4]))
    def check(seed, cuts, flat, level):
        c = candles(150, seed, flat, level)
        live, edges, pieces = Live(indicator, **options), [0, *sorted(cuts), 150], []
        for i, j in zip(edges, edges[1:]):
            got = live(*(c[k][i:j] for k in live.takes))
            pieces.append(got if isinstance(got, tuple) else (got,))
        assert [np.concatenate(p).tobytes() for p in zip(*pieces)] == [np.ascontiguousarray(x).tobytes() for x in find(indicator, c, **options)]
    check()

@pytest.mark.parametrize("case", EVERY, ids=named)
def test_nothing_is_read_ahead(case):
    indicator, options = case
    c, other = candles(120, 5), candles(120, 6)
    whole = find(indicator, c, **options)
    for t in (0, 13, 40, 118):
        mixed = {k: np.append(c[k][:t+1], 3*other[k][t+1:]) for k in c}
        for x, y in zip(whole, find(indicator, mixed, **options)): assert x[:t+1].tobytes() == y[:t+1].tobytes()

def test_a_market_that_stands_still_says_nothing():
    c = candles(90, 1, ((0, 90),), level=.1)
    for indicator in (tsi, mfi, chaikin_flow, vwma): assert np.isnan(find(indicator, c)[0]).all(), indicator
    for x in (*vortex(*(c[k] for k in ("high", "low", "close"))), *stochastic_rsi(c["close"])): assert np.isnan(x).all()
    assert not accumulation(*(c[k] for k in ("high", "low", "close", "volume"))).any()
    for indicator in (parkinson, garman_klass, rogers_satchell, yang_zhang): assert not np.nan_to_num(find(indicator, c)[0]).any()
    for indicator in (wma, hull, donchian): np.testing.assert_array_equal(find(indicator, c)[0][40:], c["close"][40:])

@pytest.mark.parametrize("call", [lambda c: hull(c, 3), lambda c: wma(c, 0), lambda c: roc(c, 0), lambda c: roc(c, 2.5), lambda c: parabolic_sar(c, c, .3, .2), lambda c: parabolic_sar(c, c, 0),
    lambda c: yang_zhang(c, c, c, c, 1), lambda c: donchian(c, c[1:]), lambda c: tsi(c, 0), lambda c: dema(c, 3, "frist")])
def test_sizes_that_make_no_sense_are_refused(call):
    with pytest.raises(ValueError, match="use|1 row|2 rows|whole number|one length"): call(np.arange(1., 30))

# --- columns -------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def walk():
    c = candles(420, 3)
    return pd.DataFrame(c, pd.date_range("2020-01-01", periods=420, tz="UTC", name="time"))

SOME = [*dict.fromkeys([*usual_columns(COLUMNS), *("_".join([k, *map(str, kind.usual)]) for k, kind in KINDS.items())])]

@pytest.mark.parametrize("name", SOME)
def test_a_column_keeps_what_it_says(name, walk):
    "Its first row, its reach, the bars that it takes; a longer history and pieces give the same bits."
    column = get_column(name)
    values = column.function(walk)
    assert int(np.flatnonzero(np.isfinite(values))[0]) == column.first and np.isfinite(values[column.first:]).mean() > .95
    np.testing.assert_array_equal(column.function(walk[list(column.needs)].iloc[:400]), values[:400])
    if column.reach is not None: assert column.function(walk.iloc[400 - column.reach:401])[-1] == values[400]
    scaled = walk*[7, 7, 7, 7, 3]           # another currency, another lot
    np.testing.assert_allclose(column.function(scaled), values, rtol=1e-6, atol=1e-9)
    if not column.across:
        live = live_column(name)
        found = [live(*(walk[c].to_numpy()[a:b] for c in live.takes)) for a, b in ((0, 1), (1, 333), (333, 334), (334, 420))]
        np.testing.assert_array_equal(np.concatenate(found), values)

# --- panels --------------------------------------------------------------------------------------------------------------

def frames(assets=4, days=80, seed=0, start="2024-01-01"):
    stamps = pd.date_range(start, periods=days, tz="UTC", name="time")
    return {chr(65 + k): pd.DataFrame(candles(days, seed + k), stamps) for k in range(assets)}

CHEAP = ["return_1", "return_5", "rsi_5", "return_1_less_mean", "volatility_5_rank", "range_share_5"]
ASKED = ["fwd_ret_5d", "xrank_ret_5d", "xdm_ret_2b", "will_valley_mdd_5d_0.03", "tth_5d_1", "excess_ret_5d"]

def with_holes():
    "An asset that joins late, one that pauses, one that leaves."
    found = frames()
    found["B"], found["C"], found["D"] = found["B"].iloc[30:], found["C"].drop(found["C"].index[40:44]), found["D"].iloc[:60]
    return found

@pytest.mark.parametrize("days", [35, 42, 44, 48, 52, 61, 64, 67, 75])
def test_a_longer_history_moves_nothing(days):
    whole, cut = make_rows(load_panel(with_holes()), CHEAP, ASKED), pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(days=days - 1)
    some = make_rows(load_panel({k: f[f.index <= cut] for k, f in with_holes().items() if f.index[0] <= cut}), CHEAP, ASKED)
    same = whole.take(whole.decided_at <= cut)
    pd.testing.assert_frame_equal(same.X, some.X, check_exact=True)
    for target in ASKED:
        known = (some.ends_at[target] <= cut).to_numpy()
        pd.testing.assert_series_equal(same.y[target][known], some.y[target][known], check_exact=True)
        assert (same.ends_at[target][known] == some.ends_at[target][known]).all()
        assert some.y[target][~known].isna().all() and (same.ends_at[target][~known].isna() | (same.ends_at[target][~known] > cut)).all()

def test_the_audit_is_clean_and_fires():
    some = frames(3, 60)
    report = audit_leaks(lambda f: audit_panel(f, features=CHEAP, targets=ASKED[:4]), some, cuts=2, seed=1)
    assert report.clean and not report.refused and len(report.checked) == 3*(len(CHEAP) + 4), report
    tomorrow = Column("tomorrow", lambda b: b["close"].shift(-1)/b["close"])
    later = Column("standing", lambda b: b["close"].rank(pct=True))                     # among all rows, later ones too
    report = audit_leaks(lambda f: audit_panel(f, features=[tomorrow, later], targets=["fwd_ret_2b"]), some, cuts=2)
    assert {f.name.split()[1] for f in report.findings} == {"tomorrow", "standing"}

def test_beyond_the_market_by_hand():
    "Two residuals, each with the slope of the sixty returns before it; the market is the mean of those who moved."
    some = frames(3, 90)
    some["C"] = some["C"].drop(some["C"].index[[70, 71]])                    # pauses, and moves over the gap
    rows = make_rows(load_panel(some), ["return_1"], ["excess_ret_2d"])
    market = pd.concat([f.close.pct_change() for f in some.values()], axis=1).mean(axis=1).fillna(0)
    level, stamps = (1 + market).cumprod(), some["B"].index
    r, m = some["B"].close.pct_change(), level.pct_change()
    def residual(s):
        seen = slice(s - 60, s)
        return r.iloc[s] - np.cov(r.iloc[seen], m.iloc[seen])[0, 1]/m.iloc[seen].var()*m.iloc[s]
    said = rows.y["excess_ret_2d"].xs("B", level="asset")
    for t in (61, 69, 70, 87): assert np.isclose(said[stamps[t]], residual(t + 1) + residual(t + 2), atol=1e-12)
    assert said[stamps[88]:].isna().all() and rows.ends_at["excess_ret_2d"].xs("B", level="asset")[stamps[70]] == stamps[72]

def test_outcomes_end_on_the_own_calendar():
    rows = make_rows(load_panel(with_holes()), ["return_1"], ["fwd_ret_5d", "xrank_ret_5d"])
    for asset, bars in with_holes().items():
        own = rows.take(rows.assets == asset)
        at = bars.index.get_indexer(own.decided_at)
        known = at + 5 < len(bars)
        assert (own.ends_at["fwd_ret_5d"][known] == bars.index[at[known] + 5]).all() and own.ends_at["fwd_ret_5d"][~known].isna().all()
        close = bars["close"].to_numpy()
        np.testing.assert_array_equal(own.y["fwd_ret_5d"][known], close[at[known] + 5]/close[at[known]] - 1)
        np.testing.assert_array_equal(own.returns[at + 1 < len(bars)], close[1:][at[at + 1 < len(bars)]]/close[at[at + 1 < len(bars)]] - 1)
    paused = rows.ends_at.xs(pd.Timestamp("2024-02-06", tz="UTC"), level=0)         # row 36: C's fifth bar comes after its pause
    assert (paused["xrank_ret_5d"] == paused["fwd_ret_5d"].max()).all() and paused["fwd_ret_5d"].nunique() == 2
    left = rows.ends_at.xs(pd.Timestamp("2024-02-26", tz="UTC"), level=0)           # row 56: D has three bars more, and is given up
    assert (left["xrank_ret_5d"] == pd.Timestamp("2024-03-07", tz="UTC")).all() and left["fwd_ret_5d"].isna().sum() == 1

def test_only_members_are_compared():
    told = pd.DataFrame({"asset": ["A", "B", "B", "C"], "from": ["2024-01-01", "2024-01-01", "2024-03-01", "2024-02-01"], "to": ["2024-02-29", "2024-01-31", None, None]})
    rows = make_rows(load_panel(frames(), members=told), ["return_1_less_mean"], ["xdm_ret_1b"])
    who = lambda day: rows.assets[rows.decided_at == pd.Timestamp(day, tz="UTC")].tolist()
    assert who("2024-01-31") == ["A", "B"] and who("2024-02-01") == ["A", "C"] and who("2024-03-01") == ["B", "C"]
    assert rows.X["return_1_less_mean"].groupby(level=0).sum().abs().max() < 1e-8 and rows.y["xdm_ret_1b"].groupby(level=0).sum().abs().max() < 1e-12
    assert "D" not in rows.assets

@pytest.mark.parametrize("how", ["rank", "z", "less_mean"])
def test_across_equals_pandas(how):
    rng = np.random.default_rng(1)
    x, day = rng.normal(size=600).round(1), rng.integers(0, 40, 600)
    x[rng.random(600) < .1] = np.nan
    by = pd.Series(x).groupby(day)
    theirs = {"rank": (by.rank() - 1)/(by.transform("count") - 1), "less_mean": pd.Series(x) - by.transform("mean"),
              "z": ((pd.Series(x) - by.transform("mean"))/by.transform(lambda s: s.std(ddof=0))).where(by.transform("count") >= 10)}[how]
    np.testing.assert_allclose(across(how, x, day), theirs, atol=1e-12)
    alone = day == 7                                    # a day needs no other day
    np.testing.assert_array_equal(across(how, x[alone], np.zeros(alone.sum(), int)), across(how, x, day)[alone])

def test_dividends_and_splits_are_no_moves(tmp_path):
    table = frames(1)["A"].reset_index().assign(symbol="A")
    factor = np.where(np.arange(len(table)) < 40, 1/30, 1.)                             # thirty new shares for an old one
    table[["open", "high", "low", "close"]] = table[["open", "high", "low", "close"]].div(factor, axis=0)
    table["adj_close"] = table["close"]*factor
    got = load_panel(table)
    np.testing.assert_allclose(got.bars["A"].to_numpy(), frames(1)["A"].to_numpy(), rtol=1e-12)
    with pytest.raises(BarError, match="if a split or another unit"): load_panel(table, adjust=False)

def test_every_door_gives_the_same_bars(tmp_path):
    "A dictionary, a long table, a wide one, CSV, Parquet, a folder by asset, a stream."
    some = {k: f[["close"]] for k, f in frames(3, 30).items()}
    long = pd.concat([f.reset_index().assign(asset=k) for k, f in some.items()]).sort_values("time", ignore_index=True)
    long.to_csv(tmp_path/"long.csv", index=False); long.to_parquet(tmp_path/"long.parquet", row_group_size=7)
    for k, f in some.items(): (tmp_path/f"parts/symbol={k}").mkdir(parents=True); f.reset_index().to_parquet(tmp_path/f"parts/symbol={k}/bars.parquet")
    wide = pd.DataFrame({k: f["close"] for k, f in some.items()})
    expected = load_panel(some)
    assert expected.columns == ("close",)
    for source in (long, wide, tmp_path/"long.csv", tmp_path/"long.parquet", tmp_path/"parts", expected):
        assert load_panel(source).facts["sha256"] == expected.facts["sha256"], source
    for path in ("long.parquet", "parts"):
        streamed = Panel(StreamedBars(tmp_path/path))
        assert streamed.facts["sha256"] == expected.facts["sha256"]
        pd.testing.assert_frame_equal(make_rows(streamed, ["return_5", "return_5_rank"], ["xdm_ret_2b"]).X, make_rows(expected, ["return_5", "return_5_rank"], ["xdm_ret_2b"]).X)
        pieces = list(arrow_batches(tmp_path/path, rows=5))
        assert all(len(f) <= 5 for _, f in pieces) and [k for k, _ in pieces] == sorted(k for k, _ in pieces)
        np.testing.assert_array_equal(np.concatenate([f["close"] for _, f in pieces]), np.concatenate([f["close"] for f in some.values()]))

def test_the_real_panel():
    path = SHARED/"data/equity_1d_panel_2015_2020.parquet"
    if not path.exists(): pytest.skip("the market data of the shared folder are not here")
    with pytest.warns(BarWarning, match="widened"): panel = load_panel(path, ["AAL", "DIS", "DXC"])
    rows = make_rows(panel)
    assert panel.columns == COLUMNS and rows.X.columns.tolist() == usual_columns(COLUMNS)
    assert np.isfinite(rows.X.to_numpy()).mean() > .999 and len(rows) == 3*(1259 - 252)

def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingPackage, match="The panel us20 cannot be had without skfolio; type python -m pip install"): load_panel()

@pytest.mark.parametrize("features,targets,words", [("return_5_z", "xz_ret_5q", "no target|does not say|xz_ret"), ("returns_5", "fwd_ret_5d", "did you mean return"),
    (["return_5", "return_5"], "fwd_ret_5d", "two features are called"), ("rsi_14_z_rank", "fwd_ret_5d", "no feature"), ([], "fwd_ret_5d", "no feature is asked for"),
    ("return_5", [], "no target is asked for"), ("return_500", "fwd_ret_5d", "no asset has more than 500 bars"), ("return_5", "fwd_ret_90m", "give a multiple")])
def test_what_cannot_be_made_is_said(features, targets, words):
    with pytest.raises(ValueError, match=words): make_rows(load_panel(frames(2, 40)), features, targets)
