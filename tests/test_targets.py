"""Targets beside loops that anybody can read, and beside numbers worked out elsewhere."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from synthlab.datasets.targets import (ACROSS, CUTS, QUESTIONS, band_classes, band_width, barrier_touches, excess_return, horizon_bars, make_target,
                                       ordinal_return, parse_target, path_quality, swings_ahead, trailing_volatility)

P20 = np.array([100., 101, 100, 102, 101, 103, 102, 104, 103, 105, 104, 106, 105, 107, 106, 108, 107, 109, 108, 110])

def test_numbers_worked_out_elsewhere():
    assert np.isclose(trailing_volatility(P20)[5], .015042424970751488, rtol=1e-14)
    bars = pd.DataFrame({"close": P20})
    mfe, mdd = (make_target(f"{k}_15m", bars, "5min")[0][:3] for k in ("mfe", "mdd"))
    np.testing.assert_allclose(mfe, [.02, .00990099, .03], atol=1e-8)
    np.testing.assert_allclose(mdd, [0, -.00990099, .01], atol=1e-8)
    assert make_target("will_peak_mfe_15m_0.02", bars, "5min")[0][:3].tolist() == [1, 0, 1]
    assert make_target("will_valley_mdd_15m_0.02", bars, "5min")[0][:3].tolist() == [0, 0, 0]
    found = path_quality(P20, 4)
    np.testing.assert_allclose([found[k][:3] for k in ("mfe_share", "time_in_profit", "flips")], [[1, 2/3, .75], [.75, .5, 1], [2, 3, 0]])
    assert band_width([.01, .02, .03]) == .02 and band_width([1e-6]) == .001
    assert [horizon_bars(f"{m}m", "5min") for m in (15, 30, 60, 120)] == [3, 6, 12, 24]
    thirteen = pd.DataFrame({"close": P20[:13]})
    assert np.isfinite(make_target("fwd_ret_15m", thirteen, "5min")[0]).sum() == 10

prices = arrays(float, st.integers(12, 40), elements=st.floats(50, 150, width=32)).map(lambda x: x.astype(float))

@settings(max_examples=40, deadline=None)
@given(prices, st.integers(1, 9), st.floats(.005, .2), st.integers(0, 39))
def test_every_row_is_what_a_loop_finds(close, h, far, gap):
    segment = np.arange(len(close)) >= gap
    touched, quality = barrier_touches(close, close, close, h, far, far, segment), path_quality(close, h, segment)
    for t in range(len(close)):
        ahead = close[t + 1:t + h + 1]
        if len(ahead) < h or segment[t] != segment[t + h]:
            assert all(np.isnan(x[t]) for x in (*touched.values(), *quality.values()))
            continue
        up, down = ahead >= close[t]*(1 + far), ahead <= close[t]*(1 - far)
        sides = [1 if u else -1 for u, d in zip(up, down) if u or d]
        assert touched["first_touch"][t] == (sides[0] if sides else 0)
        when = np.flatnonzero(up | down)
        assert touched["tth"][t] == sides[0]*(when[0] + 1) if sides else np.isnan(touched["tth"][t])
        edge = np.isclose(ahead, close[t]*(1 + far), rtol=1e-12).any() or np.isclose(ahead, close[t]*(1 - far), rtol=1e-12).any()
        if not edge: assert (touched["will_peak"][t], touched["will_valley"][t]) == (up.any(), down.any())
        profit = ahead/close[t] - 1
        assert quality["time_in_profit"][t] == np.mean(profit > 0)
        assert quality["flips"][t] == sum(a != b for a, b in zip(np.sign(profit), np.sign(profit[1:])))

@settings(max_examples=40, deadline=None)
@given(prices, st.integers(7, 11))
def test_turning_points_are_what_a_loop_finds(x, h):
    found = swings_ahead(x, x, h)
    for t in range(len(x) - h):
        window = x[t + 1:t + h + 1]
        tops = [all(window[j] > window[j + k] for k in (-3, -2, -1, 1, 2, 3)) for j in range(3, h - 3)]
        dips = [all(window[j] < window[j + k] for k in (-3, -2, -1, 1, 2, 3)) for j in range(3, h - 3)]
        assert (found["will_swing_high"][t], found["will_swing_low"][t]) == (any(tops), any(dips))

def test_the_volatility_of_a_row_ends_with_that_row():
    "The one-bar look-ahead that comes from counting positions in a series without its missing head."
    x = P20.copy(); x[10:] *= 3
    assert np.array_equal(trailing_volatility(x)[:10], trailing_volatility(P20)[:10], equal_nan=True)
    assert trailing_volatility(x)[10] > 5*trailing_volatility(P20)[10]

def test_residuals_take_the_slope_of_the_bar_before():
    rng = np.random.default_rng(1)
    asset, market = (100*np.cumprod(1 + .01*rng.standard_normal(120)) for _ in "am")
    r, m = (x[1:]/x[:-1] - 1 for x in (asset, market))
    def residual(s):                    # of return s, which ends at row s + 1
        seen = slice(s - 60, s)
        return r[s] - np.cov(r[seen], m[seen])[0, 1]/np.var(m[seen], ddof=1)*m[s]
    found = excess_return(asset, market, 3)
    assert np.isnan(found[:60]).all() and np.isnan(found[-3:]).all()
    for t in (60, 77, 116): assert np.isclose(found[t], sum(residual(t + k) for k in range(3)), atol=1e-12)

def test_a_missing_outcome_is_no_class():
    assert np.isnan(band_classes([np.nan], .1)).all()
    z = ordinal_return(P20, np.full(20, .01), 2)
    assert np.isnan(z["ret_ord"][-2:]).all() and set(z["ret_ord"][:-2]) <= set(range(-3, 4))
    assert np.array_equal(z["ret_ord"][:-2], np.digitize(z["ret_zscore"][:-2], CUTS, right=True) - 3)

@pytest.mark.parametrize("kind", sorted(QUESTIONS))
def test_every_kind_has_a_name_and_a_column(kind):
    name = f"y_{kind}_40m" + "_1.0_0.5"[:4*QUESTIONS[kind].distances]
    target = parse_target(name)
    assert target.kind == kind and target.question.task in ("regression", "binary", "multiclass", "ranking")
    rng = np.random.default_rng(0)
    values, reach = make_target(name, pd.DataFrame(100*np.cumprod(1 + .01*rng.standard_normal((200, 2)), axis=0), columns=["close", "market"]), "5min")
    assert reach == 8 and len(values) == 200 and np.isnan(values[-8:]).all()
    known = values[~np.isnan(values)]
    assert len(known) > 20
    if target.question.classes and kind not in ACROSS: assert set(known) <= set(target.question.classes)

@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_any_text_is_a_column_or_a_sentence(name):
    try: assert parse_target(name).name == name
    except ValueError as e: assert len(str(e)) < 400
