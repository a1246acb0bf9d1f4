"""Every engineer on any bars: causal to the bit, the same in chunks as whole, blind to currency, finite where nothing trades."""
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from synthlab.datasets.audit import audit_leaks
from synthlab.datasets.bars import BarError, FIELDS
from synthlab.datasets.features import ENGINEERS, create_engineer, log_return, restore_engineer
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.ohlcv import (INTRABAR, OHLCV_NAMES, OHLCVAggregation, OHLCVEngineer, aggregate_5m_to_1h, aggregate_bars,
    trailing_extreme, trailing_moments)
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.wavelets import WaveletEngineer, wavelet_filters

pywt = pytest.importorskip("pywt")
quick = settings(max_examples=14, deadline=None, derandomize=True)

# Indicators of candles remember everything, and two of them are prices: what they promise is tried in test_predictor and test_indicators.
# They are known here or not, as another file of tests has imported them before.
KNOWN = sorted(name for name, made in ENGINEERS.items() if made.__module__ != "synthlab.datasets.candles")
MAKERS = {name: lambda name=name: create_engineer(name) for name in KNOWN} | {
    "ohlcv of an hour": lambda: OHLCVEngineer("1h"), "ohlcv of 2 hours": lambda: OHLCVEngineer("20min", window=100),
    "wavelet haar": lambda: WaveletEngineer("haar", 3, 16), "wavelet periodic": lambda: WaveletEngineer("sym4", 5, 100, "periodization")}
every = pytest.mark.parametrize("name", sorted(MAKERS))

@st.composite
def any_bars(draw, rows=420):
    "Five-minute bars with jumps, flat stretches, bars without range, and volumes of 0."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    sd = np.exp(draw(st.floats(-9, -3)))*np.exp(rng.normal(size=rows))
    sd[rng.random(rows) < draw(st.sampled_from([0., .1, .6]))] = 0.
    stop = draw(st.integers(0, rows - 100))
    if draw(st.booleans()): sd[stop : stop + draw(st.integers(1, 90))] = 0.
    close = draw(st.sampled_from([1e-6, 1., 6e4]))*np.exp((sd*rng.standard_t(3, rows)).cumsum().clip(-20, 20))
    open_ = np.append(close[:1], close[:-1])*np.exp(sd*rng.normal(size=rows)*draw(st.sampled_from([0., .3])))
    up, down = (np.exp(sd*abs(rng.normal(size=rows))*draw(st.sampled_from([0., .5]))) for _ in range(2))
    volume = draw(st.sampled_from([0., 1., 1e9]))*rng.gamma(.5, size=rows)*(rng.random(rows) > .2)
    times = pd.date_range("2024-01-01", periods=rows, freq="5min", tz="UTC", name="time").as_unit("ns")
    bars = {"open": open_, "high": np.maximum(open_, close)*up, "low": np.minimum(open_, close)/down, "close": close, "volume": volume}
    return pd.DataFrame(bars, times)

def fitted(name, bars):
    "On the first two thirds, unless nothing moves in them."
    try: return MAKERS[name]().fit([bars[:280]])
    except ValueError as e:
        assert "never moves" in str(e)

@every
@quick
@given(any_bars(), st.integers(1, 420), st.integers(1, 200))
def test_causal_finite_and_the_same_in_chunks(name, bars, cut, chunk):
    "Cut anywhere: every bit stays. In chunks with their context before them: the same bits. After the warm-up: numbers."
    e = fitted(name, bars)
    if e is None: return
    x, s = e.transform(bars), e.scale(bars)
    assert x.dtype == np.float32 and x.shape == (420, e.feature_dim) and np.isfinite(x[e.warmup:]).all() and (s[e.warmup:] > 0).all()
    assert e.transform(bars[:cut]).tobytes() == x[:cut].tobytes() and e.scale(bars[:cut]).tobytes() == s[:cut].tobytes()
    for a in range(0, 420, chunk):
        first = max(a - e.context, 0)
        assert e.transform(bars[first : a + chunk])[a - first :].tobytes() == x[a : a + chunk].tobytes()

@every
@quick
@given(any_bars(), st.sampled_from([1e-3, 7., 1e4]), st.sampled_from([1e-2, 1e3]))
def test_the_currency_does_not_matter(name, bars, price, size):
    "No feature has the level of a price or of a volume, which never comes again."
    e = fitted(name, bars)
    if e is None: return
    other = bars.mul([price]*4 + [size])
    x, y = e.transform(bars)[e.warmup:], e.transform(other)[e.warmup:]
    noisy = [k in ("skew", "kurtosis") for k in e.columns]            # of returns that are rounding errors
    assert np.allclose(x[:, np.logical_not(noisy)], y[:, np.logical_not(noisy)], atol=2e-3)
    if bars.close.iloc[:280].pct_change().std() > 1e-4: assert np.allclose(x, y, atol=.02)

@every
def test_prices_that_rise_a_hundredfold_change_no_feature(name):
    "Trained at 100 and used at 10 000."
    bars = MockDataSource(1200, seed=1).load("A")["A"]
    bars = bars.mul(np.exp(np.linspace(0, np.log(100), 1200)), axis=0)
    e = MAKERS[name]().fit([bars[:600]])
    x = e.transform(bars)
    assert (abs(x[700:].mean(0) - x[e.warmup:600].mean(0)) < 1.).all()

@every
def test_audit_and_state(name):
    bars = MockDataSource(500, seed=2).load("A")["A"]
    audit_leaks(MAKERS[name](), bars, cuts=2).raise_if_leaky()
    e = MAKERS[name]().fit([bars[:300]])
    again = restore_engineer(json.loads(json.dumps(e.state())))
    assert type(again) is type(e) and again.warmup == e.warmup and again.transform(bars).tobytes() == e.transform(bars).tobytes()

# --- OHLCV -------------------------------------------------------------------------------------------------------------

def test_sixteen_features_in_a_loader():
    fold = MarketDataLoader("mock", create_engineer("ohlcv"), lookback=32, horizon=12).static_holdout(.6)
    assert fold.train.batch(0, 0)["history"].shape == (64, 32, 16) and len(OHLCV_NAMES) == 16

@quick
@given(st.integers(0, 10**6), st.sampled_from([12, 6, 4]), st.integers(30, 300))
def test_the_engineer_against_pandas(seed, rows, t):
    "Each of the sixteen, at one row, from its definition in the simplest words."
    bars = MockDataSource(300, seed=seed).load("A")["A"]
    t = max(t, 100) if t < 300 else 299
    e = OHLCVEngineer(pd.Timedelta("5min")*rows, window=60).fit([bars])
    got, scale = dict(zip(e.names, e.raw(bars)[t])), e.scale(bars)[t]
    b = bars.iloc[t - rows + 1 : t + 1]; before = bars.close.iloc[t - rows]
    o, h, l, c, unit = b.open.iloc[0], b.high.max(), b.low.min(), b.close.iloc[-1], scale*rows**.5
    r = np.log(bars.close).diff().iloc[t - rows + 1 : t + 1]
    typical, span = (b.high + b.low + b.close)/3, h - l
    vwap, z = (typical*b.volume).sum()/b.volume.sum(), (r - r.mean())/r.std(ddof=0)
    want = dict(open=np.log(o/before)/unit, high=np.log(h/before)/unit, low=np.log(l/before)/unit, close=np.log(c/before)/unit,
        volume=np.log(b.volume.sum()/(rows*bars.volume.iloc[t - 59 : t + 1].mean())), realized_vol=np.log(r.std()/scale), skew=(z**3).mean(),
        kurtosis=(z**4).mean() - 3, parkinson_vol=np.log(np.sqrt((np.log(b.high/b.low)**2).mean()/(4*np.log(2)))/scale),
        efficiency=abs(np.log(c/before))/r.abs().sum(), vwap_dev=np.log(c/vwap)/unit, signed_vol_sum=(np.sign(r)*b.volume).sum()/b.volume.sum(),
        up_wick=(h - max(o, c))/span, down_wick=(min(o, c) - l)/span, body_size=abs(c - o)/span, clv=((c - l) - (h - c))/span)
    assert list(got) == list(want)
    for k, v in want.items(): assert np.isclose(got[k], v, rtol=1e-8, atol=1e-8), k

@quick
@given(st.lists(st.floats(-5, 5), min_size=5, max_size=40), st.integers(4, 40))
def test_trailing_moments_and_extremes(values, width):
    x = np.array(values)
    sd, skew, kurtosis = trailing_moments(x, width, np.full(len(x), 1e-9))
    top, bottom = trailing_extreme(x, width), trailing_extreme(x, width, np.minimum)
    for t in range(len(x)):
        if t < width - 1: assert np.isnan([sd[t], skew[t], kurtosis[t], top[t], bottom[t]]).all(); continue
        w = x[t - width + 1 : t + 1]
        assert np.isclose(sd[t], w.std(ddof=1)) and top[t] == w.max() and bottom[t] == w.min()
        if w.std() > 1e-4:
            z = (w - w.mean())/w.std()
            assert np.isclose(skew[t], (z**3).mean(), atol=1e-5) and np.isclose(kurtosis[t], (z**4).mean() - 3, atol=1e-5)

@pytest.mark.parametrize("options,says", [(dict(resample_rule="10min"), "is not 4 or more steps"), (dict(resample_rule="22min"), "is not 4 or more steps"),
    (dict(window=3), "window is 3 rows"), (dict(resample_rule="4h", window=20), "48, the rows of a bar")])
def test_wrong_options(options, says):
    with pytest.raises(ValueError, match=says): OHLCVEngineer(**options)

# --- aggregation -------------------------------------------------------------------------------------------------------

@quick
@given(any_bars(360), st.sampled_from(["5min", "15min", "1h", "2h", "6h"]), st.integers(0, 30), st.integers(31, 360), st.sets(st.integers(0, 359), max_size=40))
def test_aggregation_is_resampling_of_whole_bars(bars, rule, first, last, holes):
    "Against pandas, with a start and an end in the middle of a bar, and holes."
    some = bars.drop(bars.index[sorted(holes)])
    some = some[(some.index >= bars.index[first]) & (some.index < bars.index[last - 1])]
    if len(some) < 2: return
    step, rule_ = pd.Timedelta("5min"), pd.Timedelta(rule)
    got = aggregate_bars(some, rule, step=step)
    want = some.resample(rule).agg({"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}).dropna()
    if some.index[0] >= want.index[0] + step: want = want.iloc[1:]
    if len(want) and some.index[-1] < want.index[-1] + rule_ - step: want = want.iloc[:-1]
    assert got.index.equals(want.index.as_unit("ns"))
    assert np.allclose(got[list(FIELDS)], want, rtol=1e-12)

def test_a_day_of_bars():
    bars = MockDataSource(720, seed=3).load("A")["A"]
    assert (len(aggregate_bars(bars, "1h")), len(aggregate_bars(bars, "2h"))) == (60, 30)
    hours = aggregate_5m_to_1h(bars)
    assert list(hours) == [*FIELDS, *INTRABAR] and OHLCVAggregation("1h")(bars).equals(hours)
    one = bars.iloc[12:24]
    r = np.diff(np.log(np.append(one.open.iloc[0], one.close)))
    walk = np.append(0, r.cumsum())
    want = [r.std(ddof=1), (np.maximum.accumulate(walk) - walk).max(), (np.sign(r) == np.sign(walk[-1])).mean()]
    assert np.allclose(hours.iloc[1, 5:], want)

def test_an_hour_that_has_begun_is_not_an_hour():
    "Its range is too small and its volume a third; a live system would see such hours and training would not."
    bars = MockDataSource(40, seed=3).load("A")["A"]
    assert len(aggregate_bars(bars)) == 3 and len(aggregate_bars(bars[:35])) == 2 and len(aggregate_bars(bars[1:])) == 2

def test_aggregation_is_causal():
    "An hour is known when its last five minutes are, and no sooner."
    bars = MockDataSource(600, seed=5).load("A")["A"]
    hourly = lambda frame: aggregate_bars(frame, "1h", intrabar=True, step="5min")
    assert not audit_leaks(hourly, bars, cuts=4)                    # by the label, which is when the hour opens
    audit_leaks(lambda frame: hourly(frame).shift(freq="55min"), bars, cuts=8).raise_if_leaky()
    assert not audit_leaks(lambda frame: hourly(frame).shift(freq="50min"), bars, cuts=40)

def test_further_columns_take_their_last_value():
    bars = MockDataSource(24, seed=3).load("A")["A"].assign(funding=np.arange(24.))
    assert aggregate_bars(bars).funding.tolist() == [11., 23.]

def test_aggregation_says_what_is_wrong():
    bars = MockDataSource(24).load("A")["A"]
    for rule, says in (("7min", "no multiple"), ("1min", "no multiple"), ("an hour", "no length of time")):
        with pytest.raises(BarError, match=says): aggregate_bars(bars, rule)
    with pytest.raises(BarError, match="no row has a price"): aggregate_bars(bars*np.nan)

# --- wavelets ----------------------------------------------------------------------------------------------------------

@quick
@given(st.sampled_from(["haar", "db2", "db4", "sym5", "coif1", "bior2.2"]), st.integers(3, 5), st.integers(32, 100),
    st.sampled_from(["symmetric", "periodization", "zero", "reflect"]), st.integers(0, 10**6))
@pytest.mark.filterwarnings("ignore:Level value")
def test_the_filters_are_the_transform(wavelet, level, window, mode, seed):
    "The last value of every part of the transform of any window."
    x = np.random.default_rng(seed).normal(size=window)
    parts, f = pywt.wavedec(x, wavelet, mode, level), wavelet_filters(wavelet, level, window, mode)
    assert f.shape == (level + 1, window)
    for k in range(level + 1):
        want = pywt.waverec([c if i == k else 0*c for i, c in enumerate(parts)], wavelet, mode)[window - 1]
        assert np.isclose(f[k] @ x[::-1], want, atol=1e-10)
    assert np.isclose(f.sum(0) @ x[::-1], x[-1])

@pytest.mark.filterwarnings("ignore:Level value")
def test_the_engineer_is_the_transform_of_each_window():
    bars = MockDataSource(300, seed=4).load("A")["A"]
    e = WaveletEngineer(standardise=False).fit([bars])
    raw, scale, r = e.raw(bars), e.scale(bars), log_return(bars)
    for t in range(66, 300, 13):
        w = r[t - 63 : t + 1]
        parts = pywt.wavedec(w, "db4", "symmetric", 4)
        back = [pywt.waverec([c if i == k else 0*c for i, c in enumerate(parts)], "db4", "symmetric")[63] for k in range(4)]
        assert np.allclose(raw[t]*scale[t], np.clip([w[-1], *back], -5*w.std(ddof=1), 5*w.std(ddof=1)), atol=1e-14)

def test_without_pywavelets_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywt", None)
    with pytest.raises(ImportError, match=r'wavelets cannot be had without PyWavelets; type python -m pip install "PyWavelets>='): create_engineer("wavelet")

def test_importing_the_module_does_not_import_pywavelets():
    code = "import sys, synthlab.datasets.wavelets, synthlab.datasets.regimes; print([m for m in ('pywt', 'sklearn') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"

@pytest.mark.parametrize("options,says", [(dict(wavelet="db44"), "did you mean db4"), (dict(level=2), "three details need 3"),
    (dict(level=7), "needs a window of 128 rows"), (dict(mode="symetric"), "did you mean symmetric")])
def test_wrong_wavelets(options, says):
    with pytest.raises(ValueError, match=says): WaveletEngineer(**options)
