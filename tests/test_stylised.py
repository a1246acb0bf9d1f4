"Stylised facts: estimators on laws with known answers, signatures by their identities, bands that cover, and clear refusals."
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from synthlab.metrics.stylised import (autocorrelation, compare_facts, hill_index, kurtosis, leverage, quantile_ratio, signature,
    signature_distance, stylised_facts)

property_test = settings(deadline=None, derandomize=True, max_examples=50)

def same(a, b, rtol=1e-9, atol=0.): np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

def rng(seed=0): return np.random.default_rng(seed)

def clustered(n, steps, seed=0):
    "Windows whose volatility is that of the window before, falls raising it."
    z, log_variance, out = rng(seed).normal(size=(n + 50, steps)), 0., []
    for row in z:
        out.append(math.exp(log_variance/2)*row)
        log_variance = .8*log_variance + .3*rng(len(out) + seed*10_000).normal() - .2*row.sum()/steps**.5
    return np.array(out[50:])

# ---- tails

@pytest.mark.parametrize("alpha", [2., 3., 5.])
def test_hill_on_pareto(alpha):
    x = rng().pareto(alpha, 100_000) + 1
    assert abs(hill_index(x) - alpha) < 4*alpha/5000**.5
    same(hill_index(-7*x), hill_index(x), rtol=1e-9)

def test_hill_by_hand():
    same(hill_index([1, 1, 2, 4], .5), 2/math.log(8)); same(hill_index([[1., -8], [1, 2]], .25), 1/math.log(4))
    assert math.isnan(hill_index(np.ones(50))) and math.isnan(hill_index(np.zeros(50)))
    with pytest.raises(ValueError, match="nothing to estimate"): hill_index(np.ones(5))

@property_test
@given(st.integers(4, 40), st.integers(1, 4), st.integers(0, 999))
def test_kurtosis_is_that_of_sums(H, n, seed):
    x = rng(seed).standard_t(4, (n, H))
    same(kurtosis(x), stats.kurtosis(x.ravel()), atol=1e-9)
    sums = np.array([[row[i : i + 3].sum() for i in range(H - 2)] for row in x])
    same(kurtosis(x, 3), stats.kurtosis(sums.ravel()), atol=1e-9)

def test_kurtosis_of_independent_sums_falls():
    x = rng().laplace(size=(30_000, 8))
    same([kurtosis(x, h) for h in (1, 2, 4, 8)], [3, 1.5, .75, .375], atol=.2)
    with pytest.raises(ValueError, match="between 1 and 8"): kurtosis(x, 9)

def test_quantile_ratio():
    same(quantile_ratio(rng().normal(size=400_000)), 1, atol=.02)
    t = stats.t(3)
    exact = (t.ppf(.995)/t.ppf(.75))/(stats.norm.ppf(.995)/stats.norm.ppf(.75))
    same(quantile_ratio(rng().standard_t(3, 400_000)), exact, rtol=.03)
    x = rng().normal(size=999)
    heavy = x.copy(); heavy[0] = 1e9
    same(quantile_ratio(heavy), quantile_ratio(x), rtol=.2)          # one day does not rule it

# ---- memory

def test_autocorrelation_of_ar():
    z, x = rng().normal(size=200_000), np.zeros(200_000)
    for t in range(1, len(x)): x[t] = .5*x[t-1] + z[t]
    same(autocorrelation(x, [1, 2, 3]), [.5, .25, .125], atol=.01)
    same(autocorrelation(5 + 3*x, 1), autocorrelation(x, 1))
    same(autocorrelation(x.reshape(-1, 100), [1, 2, 3]), [.5, .25, .125], atol=.01)

@property_test
@given(st.integers(3, 30), st.integers(1, 4), st.integers(0, 999))
def test_pairs_stay_inside_their_window(H, n, seed):
    "A pair over the seam of two windows would join days that never touched."
    x = rng(seed).normal(size=(n, H))
    a = x - x.mean()
    expected = np.mean([a[i, t]*a[i, t + 2] for i in range(n) for t in range(H - 2)])/a.var()
    same(autocorrelation(x, 2), [expected], atol=1e-12)
    same(autocorrelation(x[::-1], 2), [expected], atol=1e-12)
    square = x**2 - (x**2).mean()
    expected = np.mean([a[i, t]*square[i, t + 1] for i in range(n) for t in range(H - 1)])/(a.std()*square.std())
    same(leverage(x, 1), [expected], atol=1e-12)

def test_leverage_has_a_sign():
    z = rng().normal(size=(5000, 12))
    falls = z.copy()
    for t in range(1, 12): falls[:, t] *= np.where(falls[:, t-1] < 0, 1.5, .7)
    assert leverage(falls, 1)[0] < -.2 < .2 < leverage(-falls, 1)[0] and abs(leverage(z, 1)[0]) < .02

# ---- signatures

@property_test
@given(st.integers(2, 9), st.integers(1, 3), st.integers(0, 999))
def test_signature_identities(T, d, seed):
    x = rng(seed).normal(size=(2, T, d))
    s = signature(x)
    assert s.shape == (2, d + d**2 + d**3)
    one, two, three = s[:, :d], s[:, d : d + d**2].reshape(2, d, d), s[:, d + d**2 :].reshape(2, d, d, d)
    same(one, x[:, -1] - x[:, 0], atol=1e-9)
    same(one[:, :, None]*one[:, None, :], two + two.transpose(0, 2, 1), atol=1e-9)      # shuffle
    for i, j, k in np.ndindex(d, d, d): same(one[:, i]*two[:, j, k], three[:, i, j, k] + three[:, j, i, k] + three[:, j, k, i], atol=1e-8)
    finer = np.repeat(x, 2, 1)[:, :-1].copy(); finer[:, 1::2] = (x[:, 1:] + x[:, :-1])/2
    same(signature(finer), s, atol=1e-9); same(signature(x + 5), s, atol=1e-9)
    if d == 1: same(s, np.stack([one[:, 0], one[:, 0]**2/2, one[:, 0]**3/6], 1), atol=1e-9)

def test_chen():
    "The signature of joined paths is the product of theirs."
    x = rng(3).normal(size=(1, 9, 2))
    parts = [signature(p)[0] for p in (x, x[:, :5], x[:, 4:])]
    (_, b, c) = [(s[:2], s[2:6].reshape(2, 2), s[6:].reshape(2, 2, 2)) for s in parts]
    joined = np.concatenate([b[0] + c[0], (b[1] + c[1] + np.multiply.outer(b[0], c[0])).ravel(),
                             (b[2] + c[2] + np.multiply.outer(b[1], c[0]) + np.multiply.outer(b[0], c[1])).ravel()])
    same(joined, parts[0], atol=1e-12)

def test_signature_distance():
    a, b = rng(0).standard_t(4, (2, 600, 16))
    null = [signature_distance(a, rng(i).standard_t(4, (600, 16))) for i in range(1, 9)]
    assert max(null) < .08
    for other in (1.3*b, np.sort(b, 1), b*np.linspace(.4, 1.5, 16), b + .4, np.abs(b)*np.sign(b[:, :1])):
        assert signature_distance(a, other) > 1.5*max(null)
    same(signature_distance(1e-4*a, 1e-4*b), signature_distance(a, b), rtol=1e-6)
    assert math.isnan(signature_distance(np.zeros((5, 4)), np.zeros((5, 4))))
    with pytest.raises(ValueError, match="16 steps, simulated ones 8"): signature_distance(a, b[:, :8])
    with pytest.raises(ValueError, match="two or more"): signature_distance(a, b[:1])

# ---- tables

def test_facts_of_a_known_law():
    x = rng().normal(size=(2000, 12))
    t = stylised_facts(x, n_boot=100)
    assert list(t.columns) == ["value", "low", "high"] and len(t) == 4 + 3 + 9
    for name, exact in (("volatility", 1), ("skewness", 0), ("quantile ratio", 1), ("kurtosis of 5", 0), ("autocorrelation at 5", 0), ("leverage at 1", 0)):
        assert t.low[name] - .02 < exact < t.high[name] + .02
    assert (t.low <= t.high).all()
    assert stylised_facts(x, n_boot=20, seed=1).equals(stylised_facts(x, n_boot=20, seed=1))
    same(stylised_facts(torch.from_numpy(x), n_boot=0).value, t.value)

def test_short_windows_leave_out_what_does_not_fit():
    t = stylised_facts(rng().normal(size=(300, 6)), n_boot=5)
    assert "leverage at 5" in t.index and "leverage at 10" not in t.index and "kurtosis of 10" not in t.index
    series = stylised_facts(rng().normal(size=300), n_boot=5)
    assert "leverage at 10" in series.index and series.notna().all().all()

def test_bands_know_about_clusters():
    "Single windows drawn from a record with memory claim a certainty that is not there."
    x = clustered(800, 12)
    alone, together = (stylised_facts(x, block=block, n_boot=200).loc["volatility"] for block in (1, 40))
    assert together.high - together.low > 1.2*(alone.high - alone.low)

def test_coverage_of_bands():
    hits = [t.low <= 1 <= t.high for i in range(60) for t in [stylised_facts(rng(i).normal(size=(60, 8)), lags=[1], horizons=[1], n_boot=60).loc["volatility"]]]
    assert .75 < np.mean(hits) < .99

def test_simulators_are_told_apart():
    real = clustered(400, 12, seed=1)
    N, sd = len(real), real.std()
    candidates = {"same": clustered(4000, 12, seed=2).reshape(10, N, 12).transpose(1, 0, 2), "normal": sd*rng(3).normal(size=(N, 8, 12)), "one": sd*rng(4).normal(size=(N, 12))}
    t = compare_facts(real, candidates, block=20, n_boot=100)
    assert list(t.columns) == ["real", "low", "high", *(c for name in candidates for c in (name, f"{name} inside"))]
    assert t["same inside"].mean() > .8 > t["normal inside"].mean()
    assert t.loc["signature distance", "normal"] > 1.2*t.loc["signature distance", "high"]
    assert not t.loc["autocorrelation of size at 1", "normal inside"] and t.loc["autocorrelation of size at 1", "same inside"]
    assert t.loc["signature distance", "same"] < t.loc["signature distance", "one"]
    assert compare_facts(real, {"same": torch.from_numpy(candidates["same"])}, block=20, n_boot=100)["same"].equals(t["same"])

@property_test
@given(st.sampled_from([0., 1e-300, 1e-8, 1e90, 1e150]), st.integers(1, 6), st.integers(2, 30), st.integers(0, 99))
def test_any_scale_and_no_variation(scale, n, H, seed):
    "Facts have no unit but volatility, and constant returns have none: NaN, never an error or a warning."
    x = scale*rng(seed).normal(size=(n, H))
    with np.errstate(all="raise", under="ignore", over="ignore"): t = stylised_facts(x, n_boot=3)
    if scale in (1e-8, 1e90) and x.size >= 20:
        same(t.value.drop("volatility"), stylised_facts(x/scale, n_boot=0).value.drop("volatility"), rtol=1e-6, atol=1e-6)
    if not scale: assert t.value.drop("volatility").isna().all() and t.value["volatility"] == 0

@pytest.mark.parametrize("call,words", [
    (lambda x: stylised_facts(x[..., None]), "windows (N, H), got shape (8, 6, 1)"),
    (lambda x: stylised_facts(np.where(x > x.max() - 1e-9, np.nan, x)), "1 of 8 windows"),
    (lambda x: stylised_facts(x[:, :1]), "two steps or more"), (lambda x: stylised_facts(x, block=9), "between 1 and 8, got 9"),
    (lambda x: stylised_facts(x, level=1), "between 0 and 1"), (lambda x: compare_facts(x[:3], {}), "four windows or more"),
    (lambda x: compare_facts(x, {"bad": x[:, :4]}), "'bad' has shape"), (lambda x: autocorrelation(x, 6), "between 1 and 5"),
    (lambda x: signature(x), "(n, T, d)"), (lambda x: stylised_facts(np.zeros((0, 5))), "got shape (0, 5)")])
def test_what_is_wrong_is_named(call, words):
    with pytest.raises(ValueError) as e: call(rng().normal(size=(8, 6)))
    assert words in str(e.value)
