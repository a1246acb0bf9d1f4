"""Scores of a binary signal against scikit-learn, against rows that are really repeated, and against sums by hand; recalibrations against what they promise."""
import json, math

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy import special
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from synthlab.metrics.classification import (SCORES, auc, average_precision, best_threshold, block_weights,
    calibration_error, classification_scores, classification_table, payoff_threshold, reliability)
from synthlab.metrics.recalibration import (RECALIBRATION_KINDS, create_recalibration, fit_temperature,
    restore_recalibration, smoothed_targets)
from synthlab.metrics.skill import block_bootstrap, percentile_interval

quick = settings(derandomize=True, deadline=None, max_examples=50)
seeds = st.integers(0, 2**32 - 1)

def draw(seed, n=200, digits=None):
    "Forecasts that know something, outcomes, payoffs; rounded, forecasts tie."
    rng = np.random.default_rng(seed)
    p = special.expit(1.5*rng.standard_normal(n) - 1)
    y = (rng.random(n) < p).astype(int); y[0], y[1] = 0, 1
    return np.round(p, digits) if digits else p, y, rng.standard_normal(n)

# --- scores ------------------------------------------------------------------------------------------------------------------

@quick
@given(seed=seeds, n=st.integers(2, 120), digits=st.sampled_from([None, 1, 2]), weighted=st.booleans(), threshold=st.sampled_from([.2, .5, .7]))
def test_scores_equal_sklearn(seed, n, digits, weighted, threshold):
    p, y, u = draw(seed, n, digits)
    w = np.random.default_rng(seed).uniform(.1, 3, n) if weighted else np.ones(n)
    s, signal = classification_scores(p, y, threshold, u, w), p >= threshold
    kw = dict(sample_weight=w)
    tn, fp, fn, tp = sk.confusion_matrix(y, signal, labels=[0, 1], **kw).ravel()
    q = np.clip(p, 1e-15, 1 - 1e-15)
    expected = dict(accuracy=sk.accuracy_score(y, signal, **kw), precision=sk.precision_score(y, signal, zero_division=np.nan, **kw), recall=sk.recall_score(y, signal, **kw),
        specificity=sk.recall_score(1 - y, 1 - signal, **kw), f1=sk.f1_score(y, signal, zero_division=0, **kw), auc=sk.roc_auc_score(y, p, **kw), average_precision=sk.average_precision_score(y, p, **kw),
        brier=sk.brier_score_loss(y, p, **kw), prevalence=np.average(y, weights=w), signal_share=np.average(signal, weights=w), true_positives=tp, false_positives=fp, false_negatives=fn,
        true_negatives=tn, utility=np.average(u*signal, weights=w), utility_per_signal=np.average(u[signal], weights=w[signal]) if signal.any() else np.nan)
    if ((p > 0) & (p < 1)).all(): expected["log_loss"] = sk.log_loss(y, q, **kw)
    for k, v in expected.items(): assert s[k] == pytest.approx(v, abs=1e-9, nan_ok=True), k
    assert [*s] == [*SCORES, "utility", "utility_per_signal"]
    assert auc(p, y, w) == s["auc"] and average_precision(p, y, w) == s["average_precision"] and calibration_error(p, y, weights=w) == s["calibration_error"]

@quick
@given(seed=seeds, n=st.integers(3, 80), digits=st.sampled_from([None, 1, 2]), bins=st.integers(1, 12))
def test_weights_repeat_rows(seed, n, digits, bins):
    "Every score, for several weightings at once, equals that of the rows written out."
    p, y, u = draw(seed, n, digits)
    w = np.random.default_rng(seed).integers(0, 4, (3, 2, n)); w[..., 0] = 1
    s = classification_scores(p, y, .4, u, w, bins)
    for i in np.ndindex(3, 2):
        r = w[i]
        one = classification_scores(p.repeat(r), y.repeat(r), .4, u.repeat(r), bins=bins)
        for k in one: assert s[k].shape == (3, 2) and s[k][i] == pytest.approx(one[k], abs=1e-12, nan_ok=True), k

@quick
@given(seed=seeds, digits=st.sampled_from([None, 1]))
def test_order_of_rows_does_not_matter(seed, digits):
    p, y, u = draw(seed, 150, digits)
    order = np.random.default_rng(seed).permutation(150)
    a, b = classification_scores(p, y, .3, u), classification_scores(p[order], y[order], .3, u[order])
    assert list(a.values()) == pytest.approx(list(b.values()), abs=1e-12)

def test_auc_is_a_count_of_pairs():
    p, y, _ = draw(0, 60, 1)
    pairs = [(a > b) + (a == b)/2 for a in p[y == 1] for b in p[y == 0]]
    assert auc(p, y) == pytest.approx(np.mean(pairs), abs=1e-12) and auc(1 - p, y) == pytest.approx(1 - np.mean(pairs), abs=1e-12)

def test_calibration_error_by_hand():
    "Without ties, bins of equal mass are equal parts of the sorted rows."
    p, y, _ = draw(1, 120)
    order = np.argsort(p)
    expected = np.mean([abs(a.mean() - b.mean()) for a, b in zip(p[order].reshape(6, 20), y[order].reshape(6, 20))])
    assert calibration_error(p, y, bins=6) == pytest.approx(expected, abs=1e-12)
    assert calibration_error(np.full(120, .3), y) == pytest.approx(abs(.3 - y.mean()), abs=1e-12)

def test_undefined_scores_are_missing():
    p, u = np.array([.2, .4, .6]), np.ones(3)
    none = classification_scores(p, [0, 0, 0], .5, u)
    assert np.isnan([none[k] for k in ("recall", "auc", "average_precision")]).all() and none["specificity"] == pytest.approx(2/3) and none["precision"] == 0 and none["f1"] == 0
    never = classification_scores(p, [0, 1, 1], math.inf, u)
    assert np.isnan(never["precision"]) and np.isnan(never["utility_per_signal"]) and never["recall"] == never["f1"] == never["utility"] == 0
    assert np.isnan(classification_scores(p, [0, 0, 0], math.inf)["f1"]) and classification_scores(p, [0, 1, 1], 0.)["signal_share"] == 1
    certain = classification_scores([0., 1.], [1, 0])
    assert certain["log_loss"] == pytest.approx(36.04, abs=.01) and certain["brier"] == 1

def test_the_model_that_only_says_no():
    "A tenth of buys, none called: 90 % accurate, F1 0, and no precision to speak of."
    y = np.arange(7261) % 10 == 0
    s = classification_scores(np.full(7261, .1), y, utility=np.where(y, .01232, -.0016))
    assert s["accuracy"] > .899 and s["f1"] == 0 and np.isnan(s["precision"]) and s["utility"] == 0 and s["auc"] == .5

def test_torch_goes_in():
    p, y, u = draw(2)
    a = classification_scores(torch.tensor(p, requires_grad=True), torch.tensor(y), utility=torch.tensor(u))
    assert a == classification_scores(p, y, utility=u)

@pytest.mark.parametrize("call,words", [
    (lambda: classification_scores([.1, 1.1], [0, 1]), "1.1 in row 1"), (lambda: classification_scores([.1, .2], [0, 2]), "0 or 1"), (lambda: classification_scores([.1, .2], [0., np.nan]), "without a label"),
    (lambda: classification_scores([[.1], [.2]], [0, 1]), "one series"), (lambda: classification_scores([.1, .2], [0]), "one outcome a row"), (lambda: classification_scores([], []), "one series"),
    (lambda: classification_scores([.1, .2], [0, 1], utility=[1.]), "2 finite payoffs"), (lambda: classification_scores([.1, .2], [0, 1], utility=[1., np.nan]), "1 not finite"),
    (lambda: classification_scores([.1, .2], [0, 1], weights=[1.]), "last axis"), (lambda: classification_scores([.1, .2], [0, 1], np.nan), "threshold is NaN"),
    (lambda: classification_table([.1, .2], [0, 1], level=95), "between 0 and 1"), (lambda: classification_table([.1, .2], [0, 1], block=3), "between 1 and 2"),
    (lambda: calibration_error([.1, .2], [0, 1], bins=0), "bins is 0"), (lambda: reliability([.1, .2], [0, 1], block=0), "1 or more"),
    (lambda: auc([.1, .2], [0, 1], [1., -1.]), "weights must not be negative, got -1"), (lambda: average_precision([.1, .2], [0, 1], [1., np.nan]), "weights must be finite, got nan"),
    (lambda: calibration_error([.1, .2], [0, 1], weights=[[1., 1.], [np.inf, 1.]]), "weights must be finite, got inf"),
    (lambda: best_threshold([.1], [1.], 0), "min_signals is 0"), (lambda: best_threshold([.1], [np.inf]), "finite"), (lambda: payoff_threshold(math.nan, 0.), "both classes"),
    (lambda: create_recalibration("sigmoid"), "platt"), (lambda: create_recalibration("platt").fit([1., 2.], [1, 1]), "all 2 outcomes are 1"),
    (lambda: create_recalibration("platt", -1.), "pos_weight is -1"), (lambda: create_recalibration("isotonic").probability([1.]), "has not been fitted"),
    (lambda: fit_temperature([1., np.nan], [0, 1]), "1 of 2 logits"), (lambda: fit_temperature([[1., 2.]], [0, 1]), "one series")])
def test_errors_say_what_to_do(call, words):
    with pytest.raises(ValueError) as error: call()
    assert words in str(error.value)

# --- bootstrap ---------------------------------------------------------------------------------------------------------------

@quick
@given(seed=st.integers(0, 1000), n=st.integers(1, 60), block=st.integers(1, 60))
def test_block_weights_are_the_block_bootstrap(seed, n, block):
    block = min(block, n)
    w, x = block_weights(n, block, 20, seed), np.random.default_rng(seed).standard_normal(n)
    assert (w.sum(1) == n).all() and w.min() >= 0 and w.dtype == np.int32
    np.testing.assert_allclose(w @ x/n, block_bootstrap(x, block, 20, seed), atol=1e-12)

def test_block_weights_written_out():
    "Rows taken one by one around the circle."
    n, block, rng = 11, 4, np.random.default_rng(5)
    start = rng.integers(n, size=(30, 3))
    for got, s in zip(block_weights(n, block, 30, 5), start):
        rows = [(b + k) % n for b, long in zip(s, (4, 4, 3)) for k in range(long)]
        assert (got == np.bincount(rows, minlength=n)).all()

def test_default_block_is_that_of_skill():
    x = np.random.default_rng(0).standard_normal(1000)
    np.testing.assert_allclose(block_weights(1000, n_boot=10) @ x/1000, block_bootstrap(x, n_boot=10), atol=1e-12)

def test_table_is_the_quantiles_of_the_draws():
    "And does not depend on how many draws are held in memory at once."
    n = 3000                                            # 174 draws at once
    p, y, u = draw(3, n)
    table = classification_table(p, y, .3, u, 7, n_boot=400, level=.9, seed=4)
    drawn = classification_scores(p, y, .3, u, block_weights(n, 7, 400, 4))
    for k, row in table.iterrows():
        if k == "calibration_error": continue           # is not the middle of the draws
        assert [row.low, row.high] == pytest.approx(percentile_interval(drawn[k], .9, n/7), abs=1e-12), k
        assert row.low <= row.value <= row.high, k
    assert table.columns.tolist() == ["value", "low", "high"] and table.index.name == "score"

def test_intervals_of_independent_rows_are_the_textbook_ones():
    p, y, u = draw(6, 2000)
    table = classification_table(p, y, .3, u, 1, n_boot=1500)
    for k, x in dict(prevalence=y, signal_share=p >= .3, utility=u*(p >= .3), brier=(p - y)**2).items():
        half = 1.96*np.std(x)/2000**.5
        assert [table.low[k], table.high[k]] == pytest.approx([np.mean(x) - half, np.mean(x) + half], abs=.12*half)

def test_interval_of_a_score_that_is_often_undefined_is_missing():
    p, y = np.full(40, .1), (np.arange(40) % 2)
    p[3] = .9                                           # one signal: a third of the draws have none
    table = classification_table(p, y, .5, block=1, n_boot=300)
    assert table.value["precision"] == 1 and np.isnan(table.low["precision"]) and np.isfinite(table.low["recall"])

def test_calibration_interval_holds_the_truth():
    "A right forecast shows an error of 3 to 4 %, by noise: the interval knows, and one that is off by .1 is not called right."
    rng, right, off = np.random.default_rng(8), [], []
    for seed in range(40):
        p = rng.uniform(.05, .4, 800); y = rng.random(800) < p
        row = classification_table(p, y, .3, block=1, n_boot=200, seed=seed).loc["calibration_error"]
        assert row.value > .01 and 0 <= row.low <= row.high
        right.append(row.low == 0)
        off.append(classification_table(p + .1, y, .3, block=1, n_boot=200, seed=seed).loc["calibration_error", ["low", "high"]])
    low, high = np.array(off).T
    assert np.mean(right) > .9 and np.mean((low <= .1) & (.1 <= high)) > .85 and (low > 0).all()

# --- reliability -------------------------------------------------------------------------------------------------------------

@quick
@given(seed=seeds, digits=st.sampled_from([None, 1, 2]), bins=st.integers(1, 15))
def test_reliability_adds_up(seed, digits, bins):
    p, y, _ = draw(seed, 137, digits)
    r = reliability(p, y, bins)
    assert r["count"].sum() == 137 and len(r) <= bins and (np.diff(r.forecast) > 0).all() and (r.low <= r.high).all()
    assert np.average(r.forecast, weights=r["count"]) == pytest.approx(p.mean()) and np.average(r.observed, weights=r["count"]) == pytest.approx(y.mean())
    assert np.average(abs(r.forecast - r.observed), weights=r["count"]) == pytest.approx(calibration_error(p, y, bins), abs=1e-12)

def test_the_band_holds_a_right_forecast():
    rng, inside = np.random.default_rng(9), []
    for _ in range(100):
        p = rng.beta(1, 5, 1000); r = reliability(p, rng.random(1000) < p)
        inside.append(((r.low <= r.observed) & (r.observed <= r.high)).mean())
    assert .94 < np.mean(inside) < .985                 # discrete: at least the level
    wide, thin = (reliability(p, rng.random(1000) < p, block=b) for b in (4, 1))
    assert ((wide.high - wide.low) > 1.5*(thin.high - thin.low)).all()

# --- recalibration -----------------------------------------------------------------------------------------------------------

def logits(seed, n=2000, slope=.7, shift=-1.3):
    rng = np.random.default_rng(seed)
    z = 2*rng.standard_normal(n)
    return z, (rng.random(n) < special.expit(slope*z + shift)).astype(int)

def loss(p, y): return -np.mean(np.log(np.where(y > 0, p, 1 - p)))

@pytest.mark.parametrize("seed", range(4))
def test_platt_is_a_logistic_regression(seed):
    z, y = logits(seed)
    fit = create_recalibration("platt").fit(z, y)
    target = smoothed_targets(y)
    peer = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(np.tile(z, 2)[:, None], np.repeat([1, 0], len(z)), np.append(target, 1 - target))
    assert [fit.fitted["slope"], fit.fitted["intercept"]] == pytest.approx([peer.coef_[0, 0], peer.intercept_[0]], abs=1e-5)
    assert fit.probability(z).mean() == pytest.approx(target.mean(), abs=1e-8) and target.mean() == pytest.approx(y.mean(), abs=1e-3)
    assert fit.fitted["slope"] == pytest.approx(.7, abs=.15) and fit.fitted["intercept"] == pytest.approx(-1.3, abs=.2)

@pytest.mark.parametrize("kind", ["platt", "temperature"])
@pytest.mark.parametrize("n", [2, 4, 12, 40])
def test_a_few_rows_that_are_told_apart_do_not_make_certain(kind, n):
    "What n rows of a class can teach, and no more: Platt's targets, whatever the size of the logits."
    y = np.arange(n) % 2
    for size in 1e-3, 1., 1e3:
        z = size*(2*y - 1.)
        p = create_recalibration(kind).fit(z, y).probability(z)
        assert p == pytest.approx(smoothed_targets(y), abs=1e-5) and smoothed_targets(y).max() == (n/2 + 1)/(n/2 + 2)
        assert 0 < create_recalibration(kind).fit(z, 1 - y).probability(z).min() and create_recalibration(kind).fit(z, 1 - y).probability(z) == pytest.approx(.5, abs=.01)     # the wrong way round

@quick
@given(seed=seeds, scale=st.sampled_from([1e-6, 1., 1e4]), n=st.integers(4, 200))
def test_temperature_has_the_least_loss(seed, scale, n):
    z, y = logits(seed, n); y[:2] = 0, 1
    T = fit_temperature(z*scale, y)
    best = loss(special.expit(z*scale/T), y)
    assert T > 0 and all(best <= loss(special.expit(z*scale/(T*f)), y) + 1e-12 for f in (.5, .9, .99, 1.01, 1.1, 2.) if 1e-3*1.02 < np.sqrt(np.mean(z**2))*scale/T < 1e3/1.02)
    assert fit_temperature(z*scale*4, y) == pytest.approx(4*T, rel=1e-8)

def test_isotonic_pools_like_sklearn():
    "The same pools, each at the mean of its logits, straight in between."
    for seed, digits in (0, None), (1, 1), (2, 0):
        z, y = logits(seed, 500)
        z = z if digits is None else np.round(z, digits)
        fit, peer = create_recalibration("isotonic").fit(z, y), IsotonicRegression(y_min=1/502, y_max=1 - 1/502, out_of_bounds="clip").fit(z, y)
        pooled = peer.predict(z)
        pools = pd.DataFrame({"z": z, "level": np.round(pooled, 9)}).groupby("level").z.mean()
        np.testing.assert_allclose(fit.fitted["levels"], pools.index, atol=1e-9); np.testing.assert_allclose(fit.fitted["knots"], pools, atol=1e-9)
        assert fit.probability(fit.fitted["knots"]) == pytest.approx(fit.fitted["levels"], abs=1e-12)
        assert abs(auc(fit.probability(z), y) - auc(special.expit(z), y)) < .01

@pytest.mark.parametrize("kind", RECALIBRATION_KINDS)
@pytest.mark.parametrize("weight", [1., 9.3162])
def test_every_kind_keeps_its_promises(kind, weight):
    z, y = logits(3); z = z + math.log(weight)
    r = create_recalibration(kind, weight)
    assert r.fit(z, y) is r and r.kind == kind
    at = np.sort(np.concatenate([z[:200], np.linspace(-60, 60, 301), [-1e6, 1e6]]))
    p = r.probability(at)
    assert ((p > 0) & (p < 1)).all() and (np.diff(p) >= 0).all() and p.shape == at.shape
    for dtype, eps in (torch.float64, 1e-12), (torch.float32, 2e-6):
        t = r.probability(torch.tensor(at, dtype=dtype))
        assert t.dtype == dtype and ((t > 0) & (t < 1)).all() and (t.diff() >= -1e-7).all() and t.numpy() == pytest.approx(p, abs=eps)
    assert r.probability(torch.zeros(2, 3, dtype=torch.float16)).shape == (2, 3) and r.probability(np.zeros((2, 1))).shape == (2, 1)
    again = restore_recalibration(json.loads(json.dumps(r.state())))
    assert again.probability(at).tobytes() == p.tobytes() and again.state() == r.state() and type(again) is type(r)
    plain = create_recalibration(kind).fit(z - math.log(weight), y)
    np.testing.assert_allclose(plain.probability(at - math.log(weight)), p, atol=1e-6)
    if kind != "isotonic": assert auc(r.probability(z), y) == pytest.approx(auc(special.expit(z), y), abs=1e-12)

def test_recalibration_makes_new_rows_better():
    z, y = logits(5, 4000); new, seen = logits(6, 4000)
    raw = loss(special.expit(new), seen)
    for kind, gain in ("temperature", .01), ("platt", .05), ("isotonic", .05): assert loss(create_recalibration(kind).fit(z, y).probability(new), seen) < raw - gain, kind
    found = create_recalibration("platt").fit(special.logit(create_recalibration("platt").fit(z, y).probability(new)), seen).fitted
    assert found["slope"] == pytest.approx(1, abs=.15) and found["intercept"] == pytest.approx(0, abs=.15)          # calibration slope and intercept

def test_known_weight_needs_no_data():
    "The optimum of a loss that counts positives w times has odds w times too large."
    for p, w in (.1, 9.3162), (.5, 2.), (.02, 40.):
        biased = w*p/(w*p + 1 - p)
        assert create_recalibration("none", w).probability(special.logit(biased)) == pytest.approx(p, abs=1e-12)

@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_awkward_logits(kind):
    "Ranked the wrong way, all equal, or perfectly separable: still a rising curve between 0 and 1."
    z, y = logits(7, 300)
    for x, t in (-z, y), (np.zeros(300), y), (z, (z > 0).astype(int)), (np.array([1., 2.]), np.array([0, 1])), (1e8*z, y):
        r = create_recalibration(kind).fit(x, t)
        p = r.probability(np.linspace(x.min() - 1, x.max() + 1, 101))
        assert np.isfinite(p).all() and (np.diff(p) >= 0).all() and 0 < p.min() and p.max() < 1
        assert restore_recalibration(r.state()).state() == r.state()
    known = smoothed_targets(y).mean() if kind == "platt" else y.mean()
    if kind != "temperature": assert create_recalibration(kind).fit(np.zeros(300), y).probability(0.) == pytest.approx(known, abs=1e-6)
    flat = create_recalibration(kind).fit(-z, y).probability(z)
    assert np.ptp(flat) < .01 and (kind == "temperature" or abs(flat.mean() - y.mean()) < .01)

def test_isotonic_never_says_never():
    r = create_recalibration("isotonic").fit(np.arange(8.), [0, 0, 0, 0, 1, 1, 1, 1])
    assert r.probability([-9., 99.]) == pytest.approx([.1, .9], abs=1e-12)

@pytest.mark.parametrize("change", [dict(temperature=-1.), dict(temperature=math.nan), dict(kind="nothing"), dict(extra=1), dict(pos_weight=0.), dict(temperature=[1.])])
def test_a_broken_state_is_refused(change):
    state = create_recalibration("temperature").fit(*logits(0, 50)).state()
    with pytest.raises(ValueError): restore_recalibration({**state, **change})

@pytest.mark.parametrize("change", [dict(knots=[0., 0., 1.]), dict(levels=[.3, .2, .1]), dict(levels=[.1, .1, .2]), dict(levels=[0., .5, .9]), dict(knots=[], levels=[]), dict(knots=[0., 1.])])
def test_a_broken_curve_is_refused(change):
    state = {"kind": "isotonic", "pos_weight": 1., "rows": 9, "knots": [0., 1., 2.], "levels": [.1, .2, .3]}
    assert restore_recalibration(state).probability(.5) == pytest.approx(.15)
    with pytest.raises(ValueError): restore_recalibration({**state, **change})

@pytest.mark.parametrize("kind", RECALIBRATION_KINDS)
def test_a_tensor_can_be_traced(kind):
    "What an export needs: no branch on the values, and the same answer for other batches."
    z, y = logits(1, 300)
    r = create_recalibration(kind, 3.).fit(z, y)
    class Module(torch.nn.Module):
        def forward(self, x): return r.probability(x)
    program = torch.export.export(Module(), (torch.zeros(4, 1),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    x = torch.tensor(z[:50, None], dtype=torch.float32)
    torch.testing.assert_close(program.module()(x), r.probability(x))

# --- thresholds --------------------------------------------------------------------------------------------------------------

@quick
@given(r1=st.floats(-1, 1), r0=st.floats(-1, 1))
def test_payoff_threshold_is_where_a_signal_begins_to_pay(r1, r0):
    at, p = payoff_threshold(r1, r0), np.linspace(0, 1, 101)
    worth = p*r1 + (1 - p)*r0
    if r1 >= r0:
        assert (worth[(p >= at + 1e-9)] >= -1e-12).all() and (worth[p < at - 1e-9] <= 1e-12).all()
    if at == 0: assert (worth >= 0).all()
    if math.isinf(at): assert r1 <= 0

def test_payoff_threshold_of_the_brief():
    "Buys earned 1.232 %, the others lost .160 %: before costs a signal pays from 11.5 %, after .2 % from 25.9 %; one half was never the question."
    assert payoff_threshold(1.232, -.16) == pytest.approx(.16/1.392, abs=1e-12)
    assert payoff_threshold(1.032, -.36) == pytest.approx(.36/1.392, abs=1e-12)

@quick
@given(seed=seeds, n=st.integers(1, 60), digits=st.sampled_from([None, 1]), least=st.integers(1, 15))
def test_best_threshold_equals_trying_them_all(seed, n, digits, least):
    rng = np.random.default_rng(seed)
    p, u = np.round(rng.random(n), digits) if digits else rng.random(n), rng.standard_normal(n)
    at, curve = best_threshold(p, u, least)
    tried = []
    for t in np.unique(p):
        acted = np.where(p >= t, u, 0.); tried.append((t, (p >= t).sum(), acted.mean(), acted.std()/n**.5))
    np.testing.assert_allclose(curve.to_numpy(), np.array(tried), atol=1e-12)
    pays = [(m, t) for t, k, m, _ in tried if k >= least and m > 1e-15]
    assert at == (max(pays)[1] if pays else math.inf)
    if pays: assert classification_scores(p, np.zeros(n), at, u)["utility"] == pytest.approx(max(pays)[0], abs=1e-12)

def test_thresholds_agree_where_forecasts_are_right():
    rng = np.random.default_rng(11)
    p = rng.uniform(0, 1, 60_000); y = rng.random(60_000) < p
    u = np.where(y, .02, -.01)
    assert best_threshold(p, u)[0] == pytest.approx(payoff_threshold(.02, -.01), abs=.03)
