"""Labels against the reference file, loops that a child could follow, and the rule that a label of row t reads rows t to t+H alone."""
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from synthlab.datasets.audit import audit_leaks
from synthlab.datasets.labels import (LABELS, buy_label, describe_labels, excursions, first_touch, forward_drawdown, forward_return, label_warnings, make_label)
from synthlab.datasets.splits import whole_windows

REFERENCE = Path(__file__).parent.parent.parent/"shared"/"reference"/"labels.npz"
quick = settings(derandomize=True, deadline=None, max_examples=60)

def walk(rng, n, tick=None):
    "Bars of a random walk; on a tick grid prices meet barriers exactly."
    close = 100*np.exp(np.cumsum(.01*rng.standard_normal(n)))
    high, low = close + rng.gamma(1., .6, n), close - rng.gamma(1., .6, n)
    return tuple(np.round(x/tick)*tick if tick else x for x in (high, low, close))

def whole(t, horizon, segment, *columns):
    "Whether rows t to t+horizon are there, on one side of every gap, with all their prices."
    if t + horizon >= len(columns[0]): return False
    return all(segment[t] == segment[k] and all(np.isfinite(c[k]) for c in columns) for k in range(t, t + horizon + 1))

def looped(high, low, close, horizon, up, down, atr, multiplier, segment):
    "Every label of this module, one row and one bar at a time."
    names = "fwd", "mfe", "mae", "drawdown", "touch", "time", "buy", "named"
    out = {k: np.full(len(close), np.nan) for k in names}
    def touch(t, above, below):
        for k in range(1, horizon + 1):
            if low[t+k] <= below: return -1., k
            if high[t+k] >= above: return 1., k
        return 0., horizon
    for t in range(len(close)):
        c = close[t]
        if whole(t, horizon, segment, close):
            out["fwd"][t] = close[t+horizon]/c - 1
            peak, deepest = c, 0.
            for k in range(1, horizon + 1):
                peak = max(peak, close[t+k]); deepest = min(deepest, close[t+k]/peak - 1)
            out["drawdown"][t] = deepest
            if np.isfinite(atr[t]): out["buy"][t] = close[t+horizon] - c > multiplier*atr[t]
        if not whole(t, horizon, segment, high, low, close): continue
        out["mfe"][t], out["mae"][t] = max(high[t+1 : t+horizon+1])/c - 1, min(low[t+1 : t+horizon+1])/c - 1
        if not np.isnan(up[t]) and not np.isnan(down[t]): out["touch"][t], out["time"][t] = touch(t, c*(1 + up[t]), c*(1 - down[t]))
        if np.isfinite(atr[t]): out["named"][t] = touch(t, c + multiplier*atr[t], c - multiplier*atr[t])[0] == 1
    return out

def ours(high, low, close, horizon, up, down, atr, multiplier, segment=None):
    bars = pd.DataFrame({"high": high, "low": low, "close": close})
    mfe, mae = excursions(high, low, close, horizon, segment)
    touch, time = first_touch(high, low, close, horizon, up, down, segment)
    return {"fwd": forward_return(close, horizon, segment), "mfe": mfe, "mae": mae, "drawdown": forward_drawdown(close, horizon, segment), "touch": touch, "time": time,
            "buy": buy_label(close, atr, horizon, multiplier, segment), "named": make_label("first_touch", bars, atr, horizon, multiplier, segment)}

# --- the reference file --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", ["h5", "h20"])
def test_the_reference_labels(case):
    if not REFERENCE.exists(): pytest.skip(f"{REFERENCE} is not here")
    z = np.load(REFERENCE, allow_pickle=False)
    get = lambda k: z[f"{case}__{k}"]
    horizon, high, low, close = int(case[1:]), z["high"], z["low"], z["close"]
    found = ours(high, low, close, horizon, float(get("up")), float(get("down")), close, 1.)
    for ours_, theirs in dict(fwd="fwd_return", mfe="mfe", mae="mae", drawdown="max_drawdown", touch="barrier_label", time="time_to_hit").items():
        np.testing.assert_allclose(found[ours_], get(theirs), rtol=0, atol=1e-12, err_msg=theirs)
        assert np.isnan(found[ours_][-horizon:]).all() and np.isfinite(found[ours_][:-horizon]).all()
    assert set(np.unique(get("barrier_label")[:-horizon])) == {-1., 0., 1.}          # the file shows all three

def test_the_toy_of_the_brief():
    close = np.array([100., 102, 101, 105, 104, 106, 103, 107, 110, 108])
    before = np.append(close[0], close[:-1])
    spread, atr = np.maximum(close + 1, before) - np.minimum(close - 1, before), [2.]
    for r in spread[1:]: atr.append(atr[-1] + 2/15*(r - atr[-1]))
    atr = np.array(atr)
    assert atr.tolist() == pytest.approx([2, 2.133333, 2.115556, 2.500148, 2.433462, 2.509, 2.7078, 3.013427, 3.144970, 3.125641], abs=1e-6)
    assert (1.5*atr[:6]).tolist() == pytest.approx([3.0, 3.2, 3.173333, 3.750222, 3.650193, 3.7635], abs=1e-6)
    assert buy_label(close, atr)[:6].tolist() == [1, 1, 0, 0, 1, 0] and np.isnan(buy_label(close, atr)[6:]).all()
    assert make_label("forward_atr", pd.DataFrame({"close": close}), atr)[:6].tolist() == [1, 1, 0, 0, 1, 0]

# --- loops ---------------------------------------------------------------------------------------------------------------

@quick
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 70), horizon=st.integers(1, 25), tick=st.sampled_from([None, .5, 1.]), gaps=st.booleans(), holes=st.booleans())
def test_labels_equal_loops(seed, n, horizon, tick, gaps, holes):
    rng = np.random.default_rng(seed)
    high, low, close = walk(rng, n, tick)
    segment = np.cumsum(rng.random(n) < .05) if gaps else np.zeros(n, int)
    up, down, atr = rng.uniform(0, .03, n), rng.uniform(0, .03, n), np.round(rng.uniform(0, 2, n))
    up[rng.random(n) < .1], down[rng.random(n) < .1], atr[rng.random(n) < .1] = np.inf, np.nan, np.nan
    if holes:
        for x in (high, low, close): x[rng.random(n) < .03] = np.nan
    a, b = (f(high, low, close, horizon, up, down, atr, 1.5, segment) for f in (ours, looped))
    for k in a: np.testing.assert_array_equal(a[k], b[k], err_msg=k)
    assert all(x.dtype == np.float64 and x.shape == (n,) for x in a.values())

def test_a_price_on_the_barrier_touches_it():
    "On a grid of ticks, with a range of whole ticks, a barrier written as a share would be missed by a rounding error."
    rng = np.random.default_rng(0)
    high, low, close = walk(rng, 3000, .1)
    atr = np.round(rng.uniform(.5, 1.5, 3000), 1)
    n = 3000 - 3
    exact = np.zeros(n)
    tenths = [np.rint(10*x).astype(int) for x in (high, low, close, atr)]
    H, L, C, A = tenths
    for k in (3, 2, 1):
        up, down = H[k : k+n] >= (C + 2*A)[:n], L[k : k+n] <= (C - 2*A)[:n]
        exact = np.where(down, 0., np.where(up, 1., exact))
    bars = pd.DataFrame({"high": H, "low": L, "close": C}).astype(float)
    assert (make_label("first_touch", bars, A, 3, 2.)[:n] == exact).all() and .05 < exact.mean() < .5

def test_named_label_is_the_barrier_label():
    rng = np.random.default_rng(1)
    high, low, close = walk(rng, 2000)
    atr = rng.uniform(.5, 2, 2000)
    label, _ = first_touch(high, low, close, 10, 1.5*atr/close, 1.5*atr/close)
    named = make_label("first_touch", pd.DataFrame({"high": high, "low": low, "close": close}), atr, 10)
    assert ((label == 1) == (named == 1)).all() and (np.isnan(label) == np.isnan(named)).all() and {-1., 0., 1.} <= set(label[:-10])

# --- the time contract ---------------------------------------------------------------------------------------------------

@quick
@given(seed=st.integers(0, 2**32 - 1), horizon=st.integers(1, 12), cut=st.integers(0, 59))
def test_what_comes_later_moves_nothing(seed, horizon, cut):
    "Rows after t+H may be anything; without them the label of t is the same to the bit."
    rng = np.random.default_rng(seed)
    high, low, close = walk(rng, 60)
    up, atr = rng.uniform(0, .03, 60), rng.uniform(0, 2, 60)
    before = ours(high, low, close, horizon, up, up, atr, 1.)
    keep = cut - horizon + 1                        # labels 0 … cut-horizon are known at row cut
    for change in (.5, 3., np.nan):
        factor = np.where(np.arange(60) > cut, change, 1.)
        after = ours(high*factor, low*factor, close*factor, horizon, up*factor**0, up, atr*factor, 1.)
        for k in before: assert before[k][:max(keep, 0)].tobytes() == after[k][:max(keep, 0)].tobytes(), k
    short = ours(high[:cut+1], low[:cut+1], close[:cut+1], horizon, up[:cut+1], up[:cut+1], atr[:cut+1], 1.)
    for k in before:
        assert before[k][:max(keep, 0)].tobytes() == short[k][:max(keep, 0)].tobytes() and np.isnan(short[k][max(keep, 0):]).all()

def test_the_audit_knows_labels():
    rng = np.random.default_rng(2)
    high, low, close = walk(rng, 300)
    bars = pd.DataFrame({"open": close, "high": high, "low": low, "close": close, "volume": 1.}, pd.date_range("2020", periods=300, freq="h", tz="UTC", name="time"))
    def pipeline(frame):
        atr = (frame.high - frame.low).rolling(14).mean().to_numpy()
        return {name: make_label(name, frame, atr, 6, .5) for name in LABELS}
    assert audit_leaks(pipeline, bars, ahead=dict.fromkeys(LABELS, 6)).raise_if_leaky().cuts
    assert len(audit_leaks(pipeline, bars, ahead=dict.fromkeys(LABELS, 5)).findings) == 2      # the sixth bar counts

def test_labels_are_there_where_windows_are():
    "The rows with a label are the decision rows of windows of the same horizon."
    rng = np.random.default_rng(3)
    high, low, close = walk(rng, 500)
    close[rng.random(500) < .02] = np.nan
    segment = np.cumsum(rng.random(500) < .02)
    there = np.isfinite(close)
    for horizon in 1, 4, 30:
        assert (np.flatnonzero(~np.isnan(forward_return(close, horizon, segment))) == whole_windows(there, there, segment, 1, horizon)).all()

# --- meaning -------------------------------------------------------------------------------------------------------------

def test_units_do_not_matter():
    rng = np.random.default_rng(4)
    high, low, close = walk(rng, 400)
    atr, up = rng.uniform(0, 2, 400), rng.uniform(0, .03, 400)
    one, two = (ours(high*f, low*f, close*f, 8, up, up, atr*f, 1.5) for f in (1., 1024.))
    for k in one: np.testing.assert_array_equal(one[k], two[k])

def test_orders_that_must_hold():
    high, low, close = walk(np.random.default_rng(5), 1000)
    got = ours(high, low, close, 10, .02, .02, np.ones(1000), 1.)
    n = 990
    assert (got["mae"][:n] <= got["fwd"][:n]).all() and (got["fwd"][:n] <= got["mfe"][:n]).all()
    assert (got["drawdown"][:n] <= np.minimum(got["fwd"][:n], 0)).all()
    touched = got["touch"][:n] != 0
    assert (got["time"][:n][~touched] == 10).all() and ((got["mfe"] >= .02) | (got["mae"] <= -.02))[:n].sum() == touched.sum()

def test_a_million_rows():
    "Memory stays a few columns, whatever the horizon."
    import tracemalloc
    n, horizon = 200_000, 100
    high, low, close = walk(np.random.default_rng(6), n)
    tracemalloc.start()
    first_touch(high, low, close, horizon, .02, .02); excursions(high, low, close, horizon); forward_drawdown(close, horizon)
    peak = tracemalloc.get_traced_memory()[1]; tracemalloc.stop()
    assert peak < 15*8*n, f"{peak/8/n:.1f} columns"        # a table (T, H) alone would be 100

# --- errors and tables ---------------------------------------------------------------------------------------------------

bars3 = pd.DataFrame({"high": [2., 3, 4], "low": [1., 2, 3], "close": [1.5, 2.5, 3.5]})

@pytest.mark.parametrize("call,words", [
    (lambda: forward_return([1., 2.], 0), "horizon is 0"), (lambda: forward_return([1., 2.], 1.5), "whole number"), (lambda: forward_return([1., 2.], True), "whole number"),
    (lambda: excursions([1., 2.], [1.], [1., 2.], 1), "low has the shape (1,)"), (lambda: forward_return(np.ones((3, 2)), 1), "one asset"),
    (lambda: first_touch([1.], [1.], [1.], 1, -.1, .1), "≥ 0"), (lambda: buy_label([1., 2.], [1.]), "atr has the shape (1,)"),
    (lambda: buy_label([1., 2.], [1., -1.]), "atr is -1 in row 1"), (lambda: buy_label([1., 2.], [1., 1.], multiplier=np.nan), "multiplier is nan"),
    (lambda: make_label("forward-atr", bars3, np.ones(3)), "did you mean forward_atr?"), (lambda: make_label("zzz", bars3, np.ones(3)), "forward_atr, first_touch"),
    (lambda: describe_labels([0, 0, 0], [0, 0, 0]), "lower the multiplier"), (lambda: describe_labels([1, 0, 0], [0, 0]), "same bars"),
    (lambda: label_warnings([np.nan]), "no row has a label")])
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError) as error: call()
    assert words in str(error.value)

def test_describe_counts():
    rng = np.random.default_rng(7)
    label = rng.choice([-1., 0., 1., np.nan], 5000, p=[.3, .3, .3, .1]); earned = rng.standard_normal(5000)
    table = describe_labels(label, earned)
    assert table.index.tolist() == [-1, 0, 1] and table.attrs["warnings"] == [] and table.share.sum() == pytest.approx(1)
    for k, row in table.iterrows():
        assert row["count"] == (label == k).sum() and row.mean_return == pytest.approx(earned[label == k].mean())

@pytest.mark.parametrize("n,every,words", [(999, 2, ["only 999"]), (1000, 2, []), (4000, 4, []), (4000, 6, ["moderate"]), (4000, 25, ["severe"]), (4000, 100, ["severe"]), (4000, 101, ["severe", "100 labels in a row"])])
def test_warnings(n, every, words):
    found = label_warnings((np.arange(n) % every == 0).astype(float))
    assert len(found) == len(words) and all(w in f for w, f in zip(words, found))

def test_a_stretch_is_named_by_its_rows():
    label = (np.arange(3000) % 2).astype(float); label[500:700] = 1; label[600] = np.nan
    found, = label_warnings(label)
    assert "200 labels in a row, rows 499 to 699, are 1" in found       # 499 is odd, so 1; row 600 has no label
