"""Nothing at or before t moves when everything after t is changed: every engineer, splitter and loader at ten random cuts.

And the audit that says so catches six planted leaks of six."""
import json

import numpy as np
import pandas as pd
import pytest

from synthlab.datasets.audit import LeakError, audit_leaks
from synthlab.datasets.sources import FrameDataSource, MockDataSource
import synthlab.datasets.ohlcv, synthlab.datasets.wavelets     # noqa: F401, so that their engineers are audited too
from synthlab.datasets.features import ENGINEERS, FeatureEngineer, create_engineer, restore_engineer
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.splits import Split, find_windows, static_holdout, walk_forward

CUTS, ROWS = 10, 700

@pytest.fixture(scope="module")
def bars(): return MockDataSource(length=ROWS, freq="5min", seed=11).load(["A"])["A"]

@pytest.fixture(scope="module")
def daily():
    "Business days with overnight gaps, flat bars and a stretch without any trade."
    rng, days = np.random.default_rng(5), pd.bdate_range("2018-01-01", periods=ROWS, tz="UTC", name="time")
    open_ = 100*np.exp(np.cumsum(.01*rng.standard_t(4, ROWS)))
    close = open_*np.exp(.008*rng.standard_t(4, ROWS))
    high, low = np.maximum(open_, close)*np.exp(abs(.004*rng.normal(size=ROWS))), np.minimum(open_, close)*np.exp(-abs(.004*rng.normal(size=ROWS)))
    frame = pd.DataFrame({"open": open_, "high": high, "low": low, "close": close, "volume": rng.uniform(1, 2, ROWS)}, days)
    flat = rng.integers(0, ROWS, 40)
    for k in ("open", "high", "low"): frame.iloc[flat, frame.columns.get_loc(k)] = frame.close.iloc[flat]
    frame.iloc[300:380, :4] = frame.close.iloc[300]
    return frame

def stamps(frame): return frame.index.as_unit("ns").asi8
def after(frame, when, factor): return frame.mul(np.where(frame.index >= when, factor, 1.), axis=0)
def windows_of(frame, lookback=20, horizon=6, **kw):
    return find_windows([stamps(frame)], [np.isfinite(frame.close.to_numpy())], None, lookback, horizon, **kw)

# --- engineers ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("name", sorted(ENGINEERS))
@pytest.mark.parametrize("data", ["bars", "daily"])
def test_engineer_is_causal(name, standardise, data, request):
    report = audit_leaks(create_engineer(name, standardise=standardise), request.getfixturevalue(data), cuts=CUTS, seed=1).raise_if_leaky()
    assert len(report.cuts) == CUTS and not report.refused and set(report.checked) == {*create_engineer(name).names, "scale"}

@pytest.mark.parametrize("name", sorted(ENGINEERS))
def test_engineer_is_causal_at_every_row(name, daily):
    "Bits at every length, from nothing to all, and from the shortest tail that a live system keeps."
    engineer = create_engineer(name).fit([daily[:350]])
    x, s = engineer.transform(daily), engineer.scale(daily)
    for n in [*range(0, 260, 13), *range(260, ROWS, 37), ROWS - 1]:
        assert engineer.transform(daily[:n]).tobytes() == x[:n].tobytes() and engineer.scale(daily[:n]).tobytes() == s[:n].tobytes()
        if n > engineer.warmup:
            tail = daily[n - 1 - engineer.warmup : n]
            assert engineer.scale(tail)[-1] == s[n-1]
            if not engineer.recursive: assert engineer.transform(tail)[-1].tobytes() == x[n-1].tobytes()
    if engineer.recursive:      # it depends on every row before: what a live system keeps is its memory
        live, size = engineer.begin(), 7
        assert np.concatenate([engineer.transform_next(daily[i:i + size], live) for i in range(0, len(daily), size)]).tobytes() == x.tobytes()
    assert np.isfinite(x[engineer.warmup:]).all() and not np.isfinite(x[:engineer.warmup]).all(1).any() and (s[engineer.warmup:] > 0).all()

@pytest.mark.parametrize("name", sorted(ENGINEERS))
def test_engineer_is_fitted_on_what_it_is_given(name, daily):
    "The state depends on train rows alone, and survives JSON to the bit."
    changed = daily.copy(); changed.iloc[350:] *= 3
    one, two = (create_engineer(name).fit([frame[:350]]) for frame in (daily, changed))
    assert json.dumps(one.state()) == json.dumps(two.state())
    again = restore_engineer(json.loads(json.dumps(one.state())))
    assert again.transform(daily).tobytes() == one.transform(daily).tobytes() and again.scale(daily).tobytes() == one.scale(daily).tobytes()
    assert create_engineer(name).fit([changed]).state() != one.state()

@pytest.mark.parametrize("break_it", [
    lambda s: s["fitted"].update(level=float("nan")), lambda s: s["fitted"].update(mean=[0.]), lambda s: s.update(name="other"),
    lambda s: s["options"].update(windows=[1, 2])])
def test_a_broken_state_is_refused(break_it, daily):
    state = create_engineer("range_volatility").fit([daily]).state()
    state = json.loads(json.dumps(state)); break_it(state)
    with pytest.raises(ValueError): create_engineer("range_volatility").load_state(state)

# --- splitters ---------------------------------------------------------------------------------------------------------

def holdout(frame, bars):
    w = windows_of(frame)
    return w, static_holdout(w, bars.index[300], bars.index[450], bars.index[600], embargo="1h")

def walking(frame, **kw):
    w = windows_of(frame)
    return [(w, split) for split in walk_forward(w, "16h", "4h", "4h", embargo="30min", **kw)]

def test_static_holdout_is_causal(bars):
    audit_leaks(lambda frame: holdout(frame, bars), bars, cuts=CUTS, after=bars.index[605], embargo="1h").raise_if_leaky()

@pytest.mark.parametrize("options", [{}, {"expanding": True}, {"until": "2020-01-03 06:00"}], ids=str)
def test_walk_forward_is_causal(bars, options):
    report = audit_leaks(lambda frame: walking(frame, **options), bars, cuts=CUTS, embargo="30min").raise_if_leaky()
    assert len(report.checked) >= 8

@pytest.mark.parametrize("stride", [1, 3])
@pytest.mark.parametrize("warmup", [0, 40])
def test_windows_are_causal(bars, stride, warmup):
    audit_leaks(lambda frame: windows_of(frame, stride=stride, warmup=warmup), bars, cuts=CUTS).raise_if_leaky()

def test_labels_are_known_when_they_say(bars):
    def label(frame): return {"up": np.log(frame.close.shift(-6)/frame.close)}
    audit_leaks(label, bars, cuts=CUTS, ahead={"up": 6}).raise_if_leaky()
    assert not audit_leaks(label, bars, cuts=CUTS, ahead={"up": 5})

# --- loaders -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def frames():
    "Two assets, one of them late and with a hole in its train rows."
    found = MockDataSource(length=ROWS, freq="5min", seed=2).load(["A", "B"])
    return {"A": found["A"], "B": found["B"].drop(found["B"].index[230:240]).iloc[50:]}

@pytest.mark.parametrize("engineer,gaps", [("range_volatility", "segment"), ("zscore", "ffill"), ("range_volatility", "nan")])
def test_loader_is_causal(frames, engineer, gaps):
    when = frames["A"].index
    def pipeline(given):
        loader = MarketDataLoader(FrameDataSource(given), engineer, lookback=20, horizon=6, gaps=gaps)
        return loader.static_holdout(when[400], when[500], embargo="30min", eval_stride=2)
    report = audit_leaks(pipeline, frames, cuts=CUTS, embargo="30min").raise_if_leaky()
    assert {"state", "train", "val", "test", "asset 0.scale", "asset 1.close"} <= set(report.checked)

def test_loader_walks_forward_causally(frames):
    def pipeline(given):
        return MarketDataLoader(FrameDataSource(given), lookback=20, horizon=6).walk_forward("20h", "6h", "6h")
    audit_leaks(pipeline, frames, cuts=2).raise_if_leaky()

def test_batches_before_t_keep_every_bit(frames):
    "What comes out of the gather, ten times with another future."
    when, rng = frames["A"].index, np.random.default_rng(0)
    make = lambda given: MarketDataLoader(FrameDataSource(given), lookback=20, horizon=6).static_holdout(when[400], when[500])
    base = make(frames)
    for t in rng.integers(510, 690, CUTS):
        changed = make({k: after(f, when[t + 1], rng.uniform(.5, 2)) for k, f in frames.items()})
        for old, new in zip(base, changed):
            seen = np.flatnonzero(old.windows.ends_at <= when[t].as_unit("ns").value)
            assert len(seen)
            for a, b in zip(*(part.gather.gather(part.asset[seen], part.row[seen]).values() for part in (old, new))): assert (a == b).all()

def test_train_rows_alone_fit_the_engineer(frames):
    "Not even the purged rows between train and validation are used."
    when = frames["A"].index
    make = lambda given: MarketDataLoader(FrameDataSource(given), lookback=20, horizon=6).static_holdout(when[400], when[500], embargo="30min")
    changed = {k: after(f, when[394], 2) for k, f in frames.items()}      # the last train target is row 400 - 6 (embargo) - 1
    assert make(frames).engineer.state() == make(changed).engineer.state()
    earlier = {k: after(f, when[393], 2) for k, f in frames.items()}
    assert make(frames).engineer.state() != make(earlier).engineer.state()

# --- six planted leaks -------------------------------------------------------------------------------------------------

class FullSampleZScore(FeatureEngineer):
    "1. The mean and deviation of every row there is."
    name, names, warmup = "full_sample", ("return",), 66
    def __init__(self): super().__init__(standardise=False)
    def raw(self, bars):
        r = np.append(np.nan, np.diff(np.log(bars.close)))
        return ((r - np.nanmean(r))/np.nanstd(r))[:, None]

def centred_window(bars):
    "2. Half of the window lies ahead."
    return bars.close.rolling(7, center=True).mean()

def target_among_features(bars):
    "3. The return to come, beside honest ones."
    r = np.log(bars.close).diff()
    return pd.DataFrame({"r": r, "r_old": r.shift(1), "momentum": r.shift(-6)})

def no_embargo(bars, cut=(350, 500), embargo=0):
    "4. Parts cut by decision: the last train targets lie in validation."
    w = windows_of(bars)
    return w, Split(np.flatnonzero(w.row < cut[0] - embargo), np.flatnonzero((w.row >= cut[0]) & (w.row < cut[1] - embargo)), np.flatnonzero(w.row >= cut[1]))

def shuffled_split(bars):
    "5. Random parts."
    w = windows_of(bars); order = np.random.default_rng(0).permutation(len(w))
    return w, Split(*map(np.sort, np.split(order, [400, 500])))

def filling_from_the_future(bars):
    "6. Missing prices taken from the next bar."
    return np.log(bars.close.bfill()).diff()

PLANTED = {"full-sample z-score": FullSampleZScore(), "centred window": centred_window, "target among features": target_among_features,
           "no embargo": no_embargo, "shuffled split": shuffled_split, "filling from the future": filling_from_the_future}

def test_six_of_six_planted_leaks_are_caught(bars):
    assert [name for name, leak in PLANTED.items() if not audit_leaks(leak, bars, cuts=CUTS)] == list(PLANTED)

@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PLANTED)
def test_planted_leak_is_caught_with_few_cuts(name, seed, daily):
    "Three cuts are enough, whatever the seed and the data."
    with pytest.raises(LeakError): audit_leaks(PLANTED[name], daily, cuts=3, seed=seed).raise_if_leaky()

def test_the_report_says_what_and_how_far(bars):
    assert [f.ahead for f in audit_leaks(centred_window, bars).findings] == [3]
    report = audit_leaks(target_among_features, bars)
    assert [(f.name, f.ahead) for f in report.findings] == [("momentum", 6)] and "momentum" in str(report) and list(report.table().index) == ["momentum"]
    purged = lambda frame: no_embargo(frame, embargo=6)                              # purged by the horizon, but not embargoed
    assert audit_leaks(purged, bars) and "embargo them" in str(audit_leaks(purged, bars, embargo="1h"))

@pytest.mark.parametrize("fill", [lambda c: c.interpolate(), lambda c: c.interpolate(limit_direction="both"), lambda c: c.fillna(c.mean()), lambda c: c.bfill(limit=1)])
def test_other_ways_to_fill_from_the_future(bars, fill):
    assert not audit_leaks(lambda frame: fill(frame.close), bars, cuts=3)

@pytest.mark.parametrize("fill", [lambda c: c.ffill(), lambda c: c.fillna(0.), lambda c: c.ffill().rolling(5).median(), lambda c: c.ffill().ewm(span=9).mean()])
def test_honest_fillings_pass(bars, fill):
    audit_leaks(lambda frame: fill(frame.close), bars, cuts=3).raise_if_leaky()

def test_fitting_on_everything_is_caught_in_a_loader(frames, monkeypatch):
    "A loader that fits on all rows is found by its state, features and scale."
    when = frames["A"].index
    def pipeline(given):
        loader = MarketDataLoader(FrameDataSource(given), lookback=20, horizon=6)
        loader.train_bars = lambda train: [f for f in loader.bars.values()]
        return loader.static_holdout(when[400], when[500])
    report = audit_leaks(pipeline, frames, cuts=3)
    assert {"state", "asset 0.log_scale", "asset 1.scale"} <= {f.name for f in report.findings}
