"""Indicators against TA-Lib, `ta` and numbers worked out by hand; candle by candle as in one go, to the bit; nothing read ahead, nothing made up in the warm-up.

And the two engineers of candles, whose features a live market gets from the same code."""
import json
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from synthlab.datasets.audit import audit_leaks
from synthlab.datasets.sources import FrameDataSource, MockDataSource
from synthlab.datasets.candles import FeatureStream, PriceActionEngineer, StationaryEngineer
from synthlab.datasets.features import RangeVolatilityEngineer, create_engineer, restore_engineer
from synthlab.datasets.indicators import (COLUMNS, SCAN, SERIAL, Live, Smooth, adx, atr, bollinger, cci, ema, macd, momentum, obv, rsi, sma, stochastic_oscillator, true_range, volume_ratio,
                                          williams_r)
from synthlab.datasets.market import MarketDataLoader

SHARED = Path(__file__).parent.parent.parent/"shared"
REFERENCE = SHARED/"reference"
FIXED = settings(derandomize=True, deadline=None, max_examples=25)
ENGINEERS = [("stationary", {}), ("price_action", {}), ("price_action", {"start": "first", "smoothing": "span", "ddof": 1})]

# --- candles -----------------------------------------------------------------------------------------------------------

def candles(n, seed=0, flat=(), level=100., step=.01):
    "Candles as columns; `flat`: stretches (first row, end) in which nothing happens at all."
    rng = np.random.default_rng(seed)
    close = level*np.exp(np.cumsum(step*rng.normal(size=n)))
    open_ = np.append(level, close[:-1])*np.exp(.3*step*rng.normal(size=n))
    high = np.maximum(open_, close)*np.exp(step*rng.exponential(size=n)*(rng.random(n) < .9))
    low = np.minimum(open_, close)*np.exp(-step*rng.exponential(size=n)*(rng.random(n) < .9))
    volume = rng.uniform(.1, 9, n)
    for i, j in flat:
        for x in (open_, high, low, close): x[i:j] = close[max(i - 1, 0)]
        volume[i:j] = 0.
    return dict(zip(COLUMNS, (open_, high, low, close, volume)))

def frame(columns, freq="5min"):
    return pd.DataFrame(columns, index=pd.date_range("2025-01-01", periods=len(columns["close"]), freq=freq, tz="UTC", name="time"))

def find(indicator, columns, **options):
    "An indicator of candles, as a dictionary of series."
    got = indicator(*(columns[c] for c in Live(indicator).takes), **options)
    return got._asdict() if hasattr(got, "_asdict") else {"": got}

EVERY = [       # each indicator, in its usual and in other sizes
    (sma, {}), (sma, dict(n=1)), (sma, dict(n=7)), (ema, {}), (ema, dict(n=5, start="first")), (ema, dict(n=3, smoothing="wilder")), (ema, dict(n=1)),
    (momentum, {}), (momentum, dict(n=1)), (rsi, {}), (rsi, dict(n=5, smoothing="span", start="first")), (rsi, dict(n=2)), (true_range, {}), (true_range, dict(start="first")),
    (atr, {}), (atr, dict(n=1)), (atr, dict(start="sheet")), (true_range, dict(start="sheet")), (atr, dict(n=6, smoothing="span", start="first")), (bollinger, {}), (bollinger, dict(n=5, deviations=1.5, ddof=1)), (macd, {}),
    (macd, dict(fast=3, slow=6, signal=2, start="first")), (stochastic_oscillator, {}), (stochastic_oscillator, dict(n=5, slow=1, signal=4)), (williams_r, {}), (williams_r, dict(n=3)),
    (cci, {}), (cci, dict(n=6)), (adx, {}), (adx, dict(n=4)), (obv, {}), (volume_ratio, {}), (volume_ratio, dict(n=4))]
named = lambda case: "-".join([case[0].__name__, *(f"{k}{v}" for k, v in case[1].items())])

@pytest.mark.parametrize("case", EVERY, ids=named)
def test_a_memory_goes_through_json(case):
    "At any row, also where an average has begun to work in blocks: another one goes on from it to the bit, and a copy goes its own way."
    indicator, options = case
    c, cuts = candles(SERIAL + 3*SCAN, 7, ((30, 60),)), (0, 1, 17, 45, SERIAL + 20, SERIAL + 2*SCAN + 3)
    def feed(live, i, j): return [np.asarray(x) for x in np.atleast_2d(live(*(c[k][i:j] for k in live.takes)))]
    live = Live(indicator, **options)
    for i, j in zip(cuts, (*cuts[1:], SERIAL + 3*SCAN)):
        saved, twin = json.dumps(live.state(), allow_nan=False), live.copy()
        want = feed(live, i, j)
        for other in Live(indicator, **options).load(json.loads(saved)), twin:
            for one, there in zip(want, feed(other, i, j), strict=True): np.testing.assert_array_equal(one, there)
            assert other.state() == live.state()
    if saved == "[]": return
    broken = json.loads(saved); broken[0][next(iter(broken[0]))] = "spam"
    with pytest.raises(ValueError, match="is damaged in this state"): Live(indicator, **options).load(broken)

# --- reference numbers ---------------------------------------------------------------------------------------------------

def reference(name):
    path = REFERENCE/f"indicators_{name}.parquet"
    if not path.exists(): pytest.skip(f"{path.name} of the shared folder is not here")
    table = pd.read_parquet(path)
    return {c: table[c].to_numpy(float) for c in COLUMNS}, {c: table[c].to_numpy(float) for c in table.columns[6:]}

def near(mine, theirs, tolerance, from_row=0):
    "Within so much of the largest value, on every row from one on."
    m, t = mine[from_row:], theirs[from_row:]
    assert np.isfinite(m).all() and np.isfinite(t).all() and len(m) > 100
    assert abs(m - t).max() <= tolerance*abs(t).max(), abs(m - t).max()/abs(t).max()

def talib_columns(c):
    bands, m, s, a = find(bollinger, c), find(macd, c), find(stochastic_oscillator, c), find(adx, c)
    one = lambda *a, **k: find(*a, **k)[""]
    return dict(rsi_14=one(rsi, c), atr_14=one(atr, c), ema_50=one(ema, c), ema_200=one(ema, c, n=200), sma_20=one(sma, c), bb_upper=bands["upper"], bb_middle=bands["middle"],
                bb_lower=bands["lower"], macd=m["line"], macd_signal=m["signal"], macd_hist=m["histogram"], adx_14=a["adx"], cci_20=one(cci, c), stoch_k=s["k"], stoch_d=s["d"],
                obv=one(obv, c), mom_10=one(momentum, c), willr_14=one(williams_r, c))

@pytest.mark.parametrize("name", ["sp500_1d", "btc_5m"])
def test_talib_on_real_candles(name):
    "Every column, from its first valid row on; where the start is a convention, once it has faded."
    c, theirs = reference(name)
    mine, columns = talib_columns(c), [k for k in theirs if k.startswith("talib_")]
    assert {f"talib_{k}" for k in mine} == set(columns)         # all of them
    for k in columns:
        x, t = mine[k.removeprefix("talib_")], theirs[k]
        first = int(np.flatnonzero(np.isfinite(t))[0])
        by_convention = "macd" in k or "adx" in k
        near(x, t, 1e-8 if by_convention else 1e-9, 300 if by_convention else first)
        if not by_convention and not k.startswith("talib_stoch"): assert np.isnan(x[:first]).all(), k       # neither earlier nor later, and never a zero
    assert np.isnan(mine["stoch_d"][:17]).all() and np.isnan(mine["adx_14"][:27]).all() and np.isfinite(mine["adx_14"][27:]).all()

@pytest.mark.parametrize("name", ["sp500_1d", "btc_5m"])
def test_ta_on_real_candles(name):
    "The other package begins its averages with the first value."
    c, theirs = reference(name)
    one = lambda *a, **k: find(*a, **k)[""]
    begun = lambda k, x, row: near(x, theirs[f"ta_{k}"], 1e-9, row)
    begun("ema_50", one(ema, c, n=50, start="first"), 49); begun("ema_200", one(ema, c, n=200, start="first"), 199)
    m = find(macd, c, start="first")
    begun("macd", m["line"], 25)
    near(m["signal"], theirs["ta_macd_signal"], 1e-8, 300)      # its first value is where the line begins to be shown
    begun("rsi_14", one(rsi, c, start="first"), 13)
    assert theirs["ta_atr_14"][0] == 0 and np.isnan(one(atr, c)[:14]).all()     # missing here, 0 there
    near(one(atr, c), theirs["ta_atr_14"], 1e-8, 300)
    begun("atr_14", one(atr, c, start="sheet"), 13)             # the sheet's beginning: the first range is high less low
    assert np.isnan(one(atr, c, start="sheet")[:13]).all()
    bands = find(bollinger, c)
    for k in ("upper", "middle", "lower", "percent"): begun(f"bb_{k}", bands[k], 19)
    begun("bb_width_pct", 100*bands["width"], 19)

CLOSE = np.array([100., 102, 101, 105, 104, 106, 103, 107, 110, 108])

def test_numbers_by_hand():
    "Ten candles, each number worked out elsewhere to six digits."
    h, l, nan = CLOSE + 1, CLOSE - 1, np.nan
    as_there = dict(smoothing="span", start="first")
    six = lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=0, atol=5.1e-7)
    six(rsi(CLOSE, 14, **as_there), [nan, 100, 63.414634, 86.392184, 73.141247, 80.162767, 55.190864, 69.708284, 76.341442, 65.336040])
    six(atr(h, l, CLOSE, 14, **as_there), [2, 2.133333, 2.115556, 2.500148, 2.433462, 2.509, 2.7078, 3.013427, 3.144970, 3.125641])
    assert ema(CLOSE, 3, start="first").tolist() == [100, 101, 101, 103, 103.5, 104.75, 103.875, 105.4375, 107.71875, 107.859375]
    b = bollinger(CLOSE, 5, ddof=1)
    for mine, theirs in zip(b, ([102.4, 103.6, 103.8], [106.547288, 107.747288, 107.647077], [98.252712, 99.452712, 99.952923], [.081002, .080063, .074125], [.692897, .789346, .396025])):
        six(mine[4:7], theirs); assert np.isnan(mine[:4]).all()
    m = macd(CLOSE, 3, 6, 2, start="first")
    six(m.line[-3:], [1.033242, 1.715708, 1.285774]); six(m.signal[-3:], [.927976, 1.453131, 1.341560])
    assert np.isnan(rsi(np.full(40, 7.), **as_there)).all()         # flat
    rising = rsi(np.arange(1., 41), **as_there)
    assert np.isnan(rising[0]) and (rising[1:] == 100).all()

def test_small_ones_by_hand():
    "What has no reference column: a few candles with a pencil."
    v = np.array([4., 2, 6, 0, 0, 0, 0])
    np.testing.assert_array_equal(volume_ratio(v, 3), [np.nan, np.nan, 6/4, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(obv(np.array([5., 6, 6, 4]), np.array([1., 2, 3, 4])), [1, 3, 3, -1])
    np.testing.assert_array_equal(williams_r(np.array([3., 5]), np.array([1., 2]), np.array([2., 4]), 2), [np.nan, -25])
    np.testing.assert_array_equal(stochastic_oscillator(np.array([3., 5, 5]), np.array([1., 2, 1]), np.array([2., 4, 1]), 2, 1, 2), [[np.nan, 75, 0], [np.nan, np.nan, 37.5]])
    np.testing.assert_array_equal(true_range(np.array([5., 4]), np.array([3., 4]), np.array([3., 4])), [np.nan, 1])
    np.testing.assert_array_equal(true_range(np.array([5., 4]), np.array([3., 4]), np.array([3., 4]), start="first"), [2, 1])
    x = np.arange(8.)**2
    np.testing.assert_array_equal(momentum(x, 3), [np.nan]*3 + [x[i] - x[i-3] for i in range(3, 8)])
    typical = np.array([1., 2, 6]); d = 3.          # mean 3, mean deviation (2 + 1 + 3)/3 = 2
    assert cci(typical, typical, typical, 3)[-1] == pytest.approx(d/(.015*2))

@pytest.mark.parametrize("call", [lambda: ema(CLOSE, 0), lambda: sma(CLOSE, 0), lambda: ema(CLOSE, 3, smoothing="spam"), lambda: rsi(CLOSE, 3, start="frist"),
                                  lambda: momentum(CLOSE, -1), lambda: momentum(CLOSE, 0), lambda: volume_ratio(CLOSE, -1), lambda: bollinger(CLOSE, -1), lambda: cci(CLOSE, CLOSE, CLOSE, -1),
                                  lambda: adx(CLOSE, CLOSE, CLOSE, -1), lambda: williams_r(CLOSE, CLOSE, CLOSE, 0), lambda: stochastic_oscillator(CLOSE, CLOSE, CLOSE, -2)])
def test_a_size_that_makes_no_sense_is_refused(call):
    with pytest.raises(ValueError, match="use|1 row"): call()

@pytest.mark.parametrize("call", [lambda: rsi(CLOSE, 2.5), lambda: ema(CLOSE, 2.5), lambda: sma(CLOSE, 2.5), lambda: momentum(CLOSE, 1.5), lambda: rsi(CLOSE, np.nan),
    lambda: rsi(CLOSE, True), lambda: macd(CLOSE, 12.5), lambda: stochastic_oscillator(CLOSE, CLOSE, CLOSE, 5, 1.5), lambda: adx(CLOSE, CLOSE, CLOSE, 3.3)])
def test_a_length_that_is_no_whole_number_is_refused(call):
    with pytest.raises(ValueError, match="no whole number"): call()

def test_whole_lengths_of_any_type_are_taken():
    np.testing.assert_array_equal(rsi(CLOSE, np.int64(3)), rsi(CLOSE, 3)); np.testing.assert_array_equal(sma(CLOSE, 3.), sma(CLOSE, 3))

COLUMN_TYPES = {"downwards": lambda x: pd.Series(x, index=np.arange(len(x))[::-1]), "dated": lambda x: pd.Series(x, index=pd.date_range("2020", periods=len(x))),
                "list": list, "tensor": torch.tensor, "objects": lambda x: pd.Series(list(x), dtype=object), "backwards": lambda x: x[::-1].copy()[::-1]}

@pytest.mark.parametrize("kind", COLUMN_TYPES)
@pytest.mark.parametrize("indicator", [sma, ema, momentum, rsi, true_range, atr, bollinger, macd, stochastic_oscillator, williams_r, cci, adx, obv, volume_ratio])
def test_columns_are_read_by_position(indicator, kind):
    "Labels that run down, dates, lists: the same bits as the values."
    data = candles(90)
    given = [data[c] for c in Live(indicator).takes]
    expected = indicator(*given)
    np.testing.assert_array_equal(indicator(*map(COLUMN_TYPES[kind], given)), expected)
    assert isinstance(expected, tuple) or isinstance(indicator(*map(COLUMN_TYPES[kind], given)), np.ndarray)

def test_columns_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="series of one length"): atr(CLOSE, CLOSE[1:], CLOSE)
    with pytest.raises(ValueError, match="series of one length"): rsi(np.ones((9, 1)))
    with pytest.raises(TypeError, match="give numbers"): rsi(["up", "down"])

@pytest.mark.parametrize("cut", range(1, 6))
def test_a_missing_close_takes_no_side(cut):
    "Counted once, in one piece or in two: nothing for the candle without a close, and the next is held against the last close known."
    close, volume = np.array([np.nan, 5., np.nan, np.nan, 4., 6.]), 10.**np.arange(6)
    expected = [0, 10, 10, 10, 10 - 1e4, 10 - 1e4 + 1e5]
    assert obv(close, volume).tolist() == expected
    live = Live(obv)
    assert [*live(close[:cut], volume[:cut]), *live(close[cut:], volume[cut:])] == expected

# --- TA-Lib as oracle ------------------------------------------------------------------------------------------------------

sizes = st.fixed_dictionaries(dict(seed=st.integers(0, 10**6), n=st.integers(60, 400), length=st.integers(2, 30), level=st.sampled_from([1e-4, 1., 3e4]), step=st.sampled_from([1e-4, .01, .1])))

@FIXED
@given(sizes)
def test_talib_agrees_at_every_length(size):
    "Drawn candles, drawn lengths: the same rows missing, the same values in the others."
    talib = pytest.importorskip("talib")
    n, c = size["length"], candles(size["n"], size["seed"], level=size["level"], step=size["step"])
    o, h, l, x, v = c.values()
    def same(mine, theirs, unit, from_row=None, tolerance=1e-9):
        if from_row is None: assert (np.isnan(mine) == np.isnan(theirs)).all()
        both = np.isfinite(theirs) & (np.arange(len(x)) >= (from_row or 0))
        assert (abs(mine[both] - theirs[both]) <= tolerance*unit).all()
    top = abs(x).max()
    same(sma(x, n), talib.SMA(x, n), top); same(ema(x, n), talib.EMA(x, n), top); same(momentum(x, n), talib.MOM(x, n), top)
    same(rsi(x, n), talib.RSI(x, n), 100); same(atr(h, l, x, n), talib.ATR(h, l, x, n), h.max())
    same(true_range(h, l, x), talib.TRANGE(h, l, x), h.max()); same(williams_r(h, l, x, n), talib.WILLR(h, l, x, n), 100)
    same(obv(x, v), talib.OBV(x, v), v.sum())
    narrow = bollinger(x, n, 1.7)       # TA-Lib takes the variance as a difference of squares, which keeps half of the digits
    for mine, theirs in zip((narrow.upper, narrow.middle, narrow.lower), talib.BBANDS(x, n, 1.7, 1.7)): same(mine, theirs, top, tolerance=1e-6)
    np.testing.assert_allclose(narrow.upper[n-1:], [w.mean() + 1.7*w.std() for w in np.lib.stride_tricks.sliding_window_view(x, n)], rtol=1e-12)
    typical = (h + l + x)/3
    spread = min(abs(w - w.mean()).mean() for w in np.lib.stride_tricks.sliding_window_view(typical, n))
    same(cci(h, l, x, n), talib.CCI(h, l, x, n), 100, tolerance=1e-12*top/spread)
    k, d = talib.STOCH(h, l, x, n, 3, 0, 4, 0)
    mine = stochastic_oscillator(h, l, x, n, 3, 4)
    same(mine.k, k, 100, n + 5); same(mine.d, d, 100)
    # these two begin differently there, and forget it: both starts lie within the range of their first rows
    slow = n + 5
    line, signal, histogram = talib.MACD(x, n, slow, 4)
    late = slow + 3 + 12*slow
    for mine, theirs in zip(macd(x, n, slow, 4), (line, signal, histogram)): same(mine, theirs, top, late, 1e-8)
    mine = adx(h, l, x, n)
    for mine, theirs in ((mine.adx, talib.ADX(h, l, x, n)), (mine.plus, talib.PLUS_DI(h, l, x, n)), (mine.minus, talib.MINUS_DI(h, l, x, n))): same(mine, theirs, 100, 2*n + 24*n, 1e-7)

# --- one piece of code, any pieces of candles -------------------------------------------------------------------------------

def bits(found): return [np.ascontiguousarray(x).tobytes() for x in found.values()]

@pytest.mark.parametrize("case", EVERY, ids=named)
def test_any_pieces_give_the_bits_of_the_whole(case):
    "Cut anywhere, empty pieces and single candles among them, through stretches where nothing moves."
    indicator, options = case
    @settings(FIXED, max_examples=8)
    @given(st.integers(0, 10**6), st.lists(st.integers(0, 150), max_size=12), st.sampled_from([(), ((30, 70),), ((0, 40), (90, 91))]), st.sampled_from([1e-3, 1., 6e4]))
    def check(seed, cuts, flat, level):
        c = candles(150, seed, flat, level)
        live, edges = Live(indicator, **options), [0, *sorted(cuts), 150]
        pieces = []
        for i, j in zip(edges, edges[1:]):
            got = live(*(c[k][i:j] for k in live.takes))
            pieces.append(got if isinstance(got, tuple) else (got,))
        assert [np.concatenate(p).tobytes() for p in zip(*pieces)] == bits(find(indicator, c, **options))
    check()
    c, live = candles(150, 3, ((40, 80),)), Live(indicator, **options)
    single = [live(*(c[k][i:i+1] for k in live.takes)) for i in range(150)]
    single = [s if isinstance(s, tuple) else (s,) for s in single]
    assert [np.concatenate(p).tobytes() for p in zip(*single)] == bits(find(indicator, c, **options))

@FIXED
@given(st.integers(0, 10**6), st.sampled_from([1, 2, 5, 14, 200]), st.sampled_from(["span", "wilder"]), st.lists(st.integers(0, 3*SCAN), max_size=12), st.sampled_from([None, 50, -1]))
def test_a_long_average_in_blocks(seed, n, smoothing, steps, gap):
    "From row 4 096 on: the bits of the whole in any pieces and row by row, the recursion to 1e-12; a missing value stays missing, a zero keeps its sign."
    rng = np.random.default_rng(seed)
    x = rng.normal(size=SERIAL + n + 7*SCAN + 3)*(rng.random(SERIAL + n + 7*SCAN + 3) < .5)
    if gap: x[SERIAL + n + gap] = np.nan
    whole, live = Smooth(n, smoothing)(x), Smooth(n, smoothing)
    cuts = [0, *(SERIAL - 10 + np.cumsum([0, *steps])), len(x)]
    single, late = Smooth(n, smoothing), SERIAL + n - 5
    assert np.concatenate([live(x[i:j]) for i, j in zip(cuts, cuts[1:])]).tobytes() == whole.tobytes()
    assert np.concatenate([single(x[:late]), *(single(x[t:t+1]) for t in range(late, len(x)))]).tobytes() == whole.tobytes()
    y, alpha, known = x[:n].mean(), {"span": 2/(n + 1), "wilder": 1/n}[smoothing], [np.nan]*(n - 1)
    known.append(y)
    for news in x[n:].tolist(): y += alpha*(news - y); known.append(y)
    np.testing.assert_allclose(whole, known, rtol=0, atol=1e-12)

@pytest.mark.parametrize("indicator", [rsi, atr, macd, adx])
def test_long_candles_in_pieces(indicator):
    "Five thousand of them, a flat stretch where the blocks begin."
    c, live = candles(5000, 4, ((4050, 4150), (4800, 4900))), Live(indicator)
    pieces = [live(*(c[k][i:j] for k in live.takes)) for i, j in ((0, 4100), (4100, 4111), (4111, 4112), (4112, 4400), (4400, 5000))]
    pieces = [p if isinstance(p, tuple) else (p,) for p in pieces]
    assert [np.concatenate(p).tobytes() for p in zip(*pieces)] == bits(find(indicator, c))

@pytest.mark.parametrize("case", EVERY, ids=named)
def test_nothing_is_read_ahead(case):
    indicator, options = case
    c, other = candles(120, 5), candles(120, 6)
    for t in (0, 1, 13, 40, 118):
        mixed = {k: np.append(c[k][:t+1], 3*other[k][t+1:]) for k in c}
        whole, changed = find(indicator, c, **options), find(indicator, mixed, **options)
        for k in whole: assert whole[k][:t+1].tobytes() == changed[k][:t+1].tobytes()
    if indicator is not momentum: assert any(not np.array_equal(whole[k], find(indicator, {q: 3*other[q] for q in other}, **options)[k], equal_nan=True) for k in whole)

@pytest.mark.parametrize("indicator,options,missing", [
    (sma, {}, 19), (ema, {}, 49), (ema, dict(start="first"), 0), (momentum, {}, 10), (rsi, {}, 14), (rsi, dict(start="first"), 1), (true_range, {}, 1), (true_range, dict(start="first"), 0),
    (atr, {}, 14), (atr, dict(start="first"), 0), (bollinger, {}, 19), (macd, {}, (25, 33, 33)), (stochastic_oscillator, {}, (15, 17)), (williams_r, {}, 13), (cci, {}, 19), (adx, {}, (27, 14, 14)),
    (obv, {}, 0), (volume_ratio, {}, 19)])
def test_the_warm_up_is_missing_and_not_zero(indicator, options, missing):
    for n in (300, 5, 1, 0):
        found = find(indicator, candles(n, 8), **options)
        for x, rows in zip(found.values(), missing if isinstance(missing, tuple) else [missing]*len(found)):
            assert len(x) == n and np.isnan(x[:rows]).all() and np.isfinite(x[rows:]).all()

def test_what_is_undefined_stays_so():
    "In a market that stands still there is no direction, and no range to be in."
    c = candles(80, 1, ((0, 80),), level=.1)
    for indicator in (rsi, williams_r, volume_ratio): assert np.isnan(find(indicator, c)[""]).all()
    s = find(stochastic_oscillator, c)
    assert np.isnan(s["k"]).all() and np.isnan(s["d"]).all()
    assert (find(atr, c)[""][14:] == 0).all() and not find(adx, c)["adx"][27:].any()

@pytest.mark.parametrize("level", [.1, .3, 100.37, 1/3, 64321.99, 100.])
def test_still_prices_have_no_place_between_the_bands_at_any_level(level):
    "A mean that is off by its last digit is no deviation."
    price = np.full(60, level)
    b = bollinger(price)
    assert np.isnan(b.percent).all() and (b.width[19:] == 0).all() and (b.middle[19:] == level).all()
    assert np.isnan(cci(price, price, price)).all()

# --- the engineers ---------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def market():
    "Thousands of candles with a flat stretch."
    bars = MockDataSource(length=4000, freq="5min", seed=4).load(["A"])["A"]
    still = bars.index[2500:2800]
    bars.loc[still, ["open", "high", "low", "close"]] = bars["close"].iloc[2499]; bars.loc[still, "volume"] = 0.
    return bars

@pytest.fixture(scope="module", params=ENGINEERS, ids=lambda p: "-".join([p[0], *map(str, p[1].values())]))
def engineer(request, market): return create_engineer(request.param[0], **request.param[1]).fit([market.iloc[:2000]])

def by_one(stream, bars): return np.stack([stream.push(*row) for row in bars[list(COLUMNS)].itertuples(index=False, name=None)])

def test_thousands_of_candles_one_by_one(engineer, market):
    "To the bit, warm-up and flat stretch included; how long it takes is for the benchmark to say."
    bars = market.iloc[:3000]       # ten thousand: test_predictor.py
    whole, stream = engineer.transform(bars), FeatureStream(engineer)
    live = by_one(stream, bars)
    assert live.tobytes() == whole.tobytes() and live.dtype == np.float32 and stream.rows == len(bars)
    assert np.isnan(whole[:engineer.missing]).any(1).all() and np.isfinite(whole[engineer.missing:]).all()

def test_the_other_market(engineer):
    "A real one, to the bit."
    path = SHARED/"data/crypto_5m_usdt_2025.parquet"
    if not path.exists(): pytest.skip("the market data of the shared folder are not here")
    table = pd.read_parquet(path)
    bars = table[table["symbol"] == "SOLUSDT"].set_index("time")[list(COLUMNS)].iloc[:1200].astype(float)
    assert by_one(FeatureStream(engineer), bars).tobytes() == engineer.transform(bars).tobytes()

def test_pieces_restart_and_the_frame_form(engineer, market):
    part, stream = market.iloc[:700], FeatureStream(engineer)
    whole = engineer.transform(part)
    pieces = [stream.extend(part.iloc[i:j]) for i, j in ((0, 1), (1, 1), (1, 350), (350, 351), (351, 700))]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    stream.restart()
    assert stream.rows == 0 and stream.extend({c: part[c].to_numpy() for c in COLUMNS}).tobytes() == whole.tobytes()

def test_a_restored_engineer_says_the_same(engineer, market):
    "Its state goes through JSON, and a stream of either goes on alike."
    again = restore_engineer(json.loads(json.dumps(engineer.state())))
    assert again.state() == engineer.state() and type(again) is type(engineer)
    assert again.transform(market).tobytes() == engineer.transform(market).tobytes()
    assert again.missing == engineer.missing and again.warmup == engineer.warmup

@pytest.mark.parametrize("name,options", ENGINEERS)
def test_no_engineer_reads_ahead(name, options):
    bars = MockDataSource(length=700, freq="5min", seed=11).load(["A"])["A"]
    report = audit_leaks(create_engineer(name, **options), bars, cuts=6, seed=2).raise_if_leaky()
    assert not report.refused and set(report.checked) == {*create_engineer(name).names, "scale"}

@pytest.mark.parametrize("name,options", ENGINEERS)
@pytest.mark.parametrize("level", [100., .1, 2/3])
def test_three_hundred_still_candles_are_indecision(name, options, level):
    "No feature is missing after the warm-up, and those that are undefined stand in the middle."
    c = candles(1000, 2, ((500, 800),)); c = {k: x if k == "volume" else x*level/c["close"][499] for k, x in c.items()}
    for k in COLUMNS[:4]: c[k][500:800] = level
    c["close"][499] = level; c["high"][499], c["low"][499] = max(c["high"][499], level), min(c["low"][499], level)
    bars = frame(c)
    e = create_engineer(name, **options).fit([bars.iloc[:450]])
    x, raw = e.transform(bars), dict(zip(e.names, e.raw(bars).T))
    assert np.isfinite(x[e.missing:]).all() and (abs(x[e.missing:]) <= e.limit).all() and np.isfinite(e.scale(bars)[e.warmup:]).all()
    assert (raw["bb_percent"][520:800] == .5).all() and (raw["bb_width"][520:800] == 0).all()
    if name == "stationary":
        assert (raw["stochastic_k"][516:800] == 50).all() and (raw["volume_ratio"][519:800] == 1).all()
        for k in ("move", "body", "upper_wick", "lower_wick"): assert not raw[k][501:800].any()
    dead = frame(candles(400, 2, ((0, 400),), level))
    said = dict(zip(e.names, e.raw(dead).T))
    assert (said["rsi_14"][14:] == 50).all()
    assert np.isfinite(e.transform(dead)[e.missing:]).all()

def test_fourteen_features_by_one_name():
    "In the order of the chart, and nothing but the indicators themselves."
    c = candles(400, 9)
    e = PriceActionEngineer(smoothing="span", start="first", ddof=1)
    assert e.feature_dim == 14 and e.names[5:] == ("rsi_14", "atr_14", "ema_50", "ema_200", "bb_middle", "bb_upper", "bb_lower", "bb_width", "bb_percent")
    raw, there = e.raw(frame(c)), dict(smoothing="span", start="first")
    b = find(bollinger, c, ddof=1)
    by_name = [*c.values(), find(rsi, c, **there)[""], find(atr, c, **there)[""], find(ema, c, start="first")[""], find(ema, c, n=200, start="first")[""],
               *(b[k] for k in ("middle", "upper", "lower", "width", "percent"))]
    for mine, x in zip(raw.T, by_name): np.testing.assert_array_equal(mine[19:], x[19:])
    assert np.isnan(raw[:19]).any(1).all() and np.isfinite(raw[19:]).all() and e.missing == 19 and PriceActionEngineer().missing == 199

@pytest.mark.parametrize("name", ["sp500_1d", "btc_5m"])
def test_fourteen_features_as_the_sheet_begins_them(name):
    "All of its indicators from their first value on, bands that need twenty rows among them."
    c, theirs = reference(name)
    e = PriceActionEngineer(start="sheet")
    said = dict(zip(e.names, e.raw(frame(c)).T))
    for mine, sheet, row in (("rsi_14",)*2 + (13,), ("atr_14",)*2 + (13,), ("ema_50",)*2 + (49,), ("ema_200",)*2 + (199,), *((f"bb_{k}",)*2 + (19,) for k in ("upper", "lower", "percent"))):
        near(said[mine], theirs[f"ta_{sheet}"], 1e-9, row)
    assert e.missing == 19 and np.isnan(said["atr_14"][:13]).all() and np.isfinite(e.raw(frame(c))[19:]).all()
    assert restore_engineer(e.fit([frame(c)]).state()).raw(frame(c))[13:].tobytes() == e.raw(frame(c))[13:].tobytes()

@pytest.mark.parametrize("factor", [1e-4, 7., 1e5])
def test_stationary_features_do_not_know_the_price(factor):
    "The same chart at another level."
    c = candles(600, 3)
    e = StationaryEngineer()
    one, other = e.raw(frame(c)), e.raw(frame({k: x if k == "volume" else factor*x for k, x in c.items()}))
    np.testing.assert_allclose(other[199:], one[199:], rtol=1e-7, atol=1e-9)

class Endless(RangeVolatilityEngineer):
    "Remembers all rows, and has no form for one at a time."
    recursive = True

def test_what_has_no_form_for_one_candle_is_refused(market):
    with pytest.raises(ValueError, match="use price_action or stationary|take price_action or stationary"): FeatureStream(Endless().fit([market.iloc[:600]]))
    with pytest.raises(RuntimeError, match="fit"): FeatureStream(StationaryEngineer())
    bars = market.iloc[:600].assign(mood=1.)
    with pytest.raises(ValueError, match="mood"): FeatureStream(StationaryEngineer(past=["mood"]).fit([bars])).extend(market.iloc[:9])
    with pytest.raises(ValueError, match="mood"): FeatureStream(StationaryEngineer(past=["mood"]).fit([bars])).push(1, 2, 1, 2, 5)

@pytest.mark.parametrize("name", ["range_volatility", "zscore", "ohlcv", "wavelet", "stationary"])
def test_every_engineer_streams(name, market):
    "To the bit: one without a memory looks at its last rows again; a further column comes with the candle."
    bars = market.iloc[:500].assign(mood=np.sin(np.arange(500)))
    engineer = create_engineer(name, past=["mood"]).fit([bars])
    stream, whole = FeatureStream(engineer), engineer.transform(bars)
    live = np.stack([stream.push(*row) for row in bars[[*COLUMNS, "mood"]].iloc[:320].itertuples(index=False, name=None)])
    assert live[engineer.warmup:].tobytes() == whole[engineer.warmup:320].tobytes() and np.isfinite(live[engineer.warmup:]).all()
    assert stream.extend(bars.iloc[320:]).tobytes() == whole[320:].tobytes()

# --- in a loader -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["stationary", "price_action"])
def test_the_window_of_now_is_the_last_one_of_the_loader(name, market):
    "A recursive engineer needs the whole stretch, and gets it: bits, not digits."
    for cut, gone in ((1500, slice(0, 0)), (2000, slice(1200, 1260))):
        bars = market.iloc[:cut].drop(market.index[gone])
        loader = MarketDataLoader(FrameDataSource({"A": bars}), name, lookback=32, horizon=4)
        fold = loader.static_holdout(.6, .8)
        now, rows = loader.latest_window(), fold.train.gather
        assert now["history"][0].numpy().tobytes() == rows.features[-32:].numpy().tobytes()
        assert now["decided_at"].item() == bars.index[-1].value
        short = fold.engineer.transform(bars.iloc[-(fold.engineer.warmup + 32):])[-32:]
        assert short.tobytes() != rows.features[-32:].numpy().tobytes()     # which is why

@pytest.mark.parametrize("name", ["stationary", "price_action"])
def test_after_a_gap_features_begin_anew(name, market):
    bars = market.iloc[:1500].drop(market.index[700:730])
    loader = MarketDataLoader(FrameDataSource({"A": bars}), name, lookback=32, horizon=4)
    fold = loader.static_holdout(.6, .8)
    x, e = fold.train.gather.features.numpy(), fold.engineer
    assert x[:700].tobytes() == e.transform(bars.iloc[:700]).tobytes() and x[700:].tobytes() == e.transform(bars.iloc[700:]).tobytes()
    assert np.isnan(x[700:700 + e.missing]).any(1).all() and np.isfinite(x[700 + e.missing:]).all()
    decided = loader.windows.row
    assert not ((decided >= 700 - 4) & (decided < 700 + e.warmup + 31)).any() and (decided == 700 + e.warmup + 31).any()
