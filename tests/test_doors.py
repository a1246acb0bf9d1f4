"What may be given to the scores: every holder of the same numbers gives the same score, and what is no score's business is refused."
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from synthlab.metrics import closed_form, counts, densities, ends, families, joint, thresholds, weighted_scores
from synthlab.metrics.calibration import (brier, central_interval, coverage, interval_score, pinball, pit, ranks, spread_skill)
from synthlab.metrics.crps import (afcrps_ensemble, as_array, as_values, crps_ensemble, crps_influence, fair_crps_ensemble, log_likelihood,
    sharpness, threshold_weighted_crps)
from synthlab.metrics.contests import model_confidence_set, superior_predictive_ability
from synthlab.metrics.performance import (average_drawdown, cagr, calmar, conditional_drawdown, cumulative_return, downside_risk, drawdown,
    max_drawdown, performance_metrics, sharpe, sharpe_interval, sortino, stability, total_return, ulcer_index, volatility)
from synthlab.metrics.relative import aggregate_returns, alpha, down_capture, information_ratio, rolling, tracking_error, up_capture
from synthlab.metrics.responses import nrmse
from synthlab.metrics.risk import drawdown_at_risk, semi_deviation

ROWS, SEEN = [[100000001, 100000003, 100000009], [16777217, 16777219, 16777223]], [100000005, 16777221]
PATHS, CAME = [[[100000001, 7], [100000003, 5], [100000009, 6]]], [[100000005, 6]]
near = lambda values: values - 1e8
ENSEMBLES = {
    "crps": crps_ensemble, "fair": fair_crps_ensemble, "almost fair": afcrps_ensemble, "influence": crps_influence,
    "between": lambda x, y: threshold_weighted_crps(x, y, 16777218, 100000006),
    "log likelihood": log_likelihood, "sharpness": lambda x, y: sharpness(x), "transform": pit, "ranks": ranks,
    "interval": lambda x, y: torch.stack(central_interval(x, [.5, .9])), "coverage": coverage,
    "spread": lambda x, y: torch.stack(spread_skill(x, y, 2)[:2]),
    "outcome": lambda x, y: weighted_scores.outcome_weighted_crps(x, y, lambda z: 1 + (z > 2e7).to(z)),
    "rescaled": lambda x, y: weighted_scores.vertically_rescaled_crps(x, y, lambda z: 1 + (z > 2e7).to(z)),
    "log score": densities.log_score_ensemble, "two moments": densities.dawid_sebastiani_ensemble,
    "error and spread": densities.error_spread_score, "bandwidth": lambda x, y: densities.silverman_bandwidth(x),
    "brier": lambda x, y: thresholds.threshold_brier(x, y, 100000006),
    "mixture": lambda x, y: closed_form.crps_normal_mixture(x, 2., [1, 1, 1], y)}
ALIKE = {
    "interval score": lambda a, b: interval_score(a, [v + 2 for v in SEEN] if isinstance(a, list) else b + 2, b, .9),
    "pinball": lambda a, b: pinball(a, b, .3), "normal": lambda a, b: closed_form.crps_normal(a, 2, b),
    "logistic": lambda a, b: closed_form.crps_logistic(a, 2, b), "t": lambda a, b: closed_form.crps_t(5, a, 2, b),
    "laplace": lambda a, b: closed_form.crps_laplace(a, 2, b), "poisson": counts.crps_poisson,
    "generalised Pareto": lambda a, b: families.crps_generalised_pareto(.1, a, 2, b),
    "extreme value": lambda a, b: families.crps_gev(.1, a, 2, b),
    "truncated": lambda a, b: ends.crps_truncated_normal(a, 2, -1, 2e8, b)}

def holders(values):
    "The same whole numbers as everything that has no floating type of its own."
    x = np.array(values)
    yield from (values, tuple(values), x, x.astype("i4"), x.astype("u8"), torch.tensor(values), x.astype(object))
    yield x.astype(float).tolist()
    if x.ndim == 1: yield from (pd.Series(values), pd.Series(values, dtype="Int64"), pd.Index(values))
    if x.ndim == 2: yield from (pd.DataFrame(values), [row for row in x])

def same_from_all(score, first, second):
    right = score(np.array(first, float), np.array(second, float))
    for a in holders(first):
        for b in holders(second):
            found = score(a, b)
            assert found.dtype == right.dtype
            np.testing.assert_allclose(found, right, rtol=1e-12, atol=0, err_msg=f"{type(a)} beside {type(b)}")

@pytest.mark.parametrize("name", ENSEMBLES)
def test_every_holder_gives_an_ensemble_the_same_score(name): same_from_all(ENSEMBLES[name], ROWS, SEEN)

@pytest.mark.parametrize("score", [joint.energy_score, joint.variogram_score, joint.gaussian_kernel_score], ids=lambda f: f.__name__)
def test_every_holder_gives_paths_the_same_score(score): same_from_all(score, PATHS, CAME)

@pytest.mark.parametrize("name", ALIKE)
def test_every_holder_gives_values_alike_the_same_score(name):
    below = [v - 1 for v in SEEN]
    if name != "interval score": return same_from_all(ALIKE[name], below, SEEN)
    for a in holders(below):
        if not isinstance(a, (list, tuple)) and not (isinstance(a, np.ndarray) and a.dtype == "u8"):
            np.testing.assert_allclose(interval_score(a, a + 5, SEEN, .9), [5., 5.], rtol=1e-12)

def test_what_a_number_is_worth_beside_no_array():
    assert float(crps_ensemble(np.array([[100000001, 100000002, 100000003]]), np.array([100000005]))) == pytest.approx(23/9, rel=1e-12)
    assert float(crps_ensemble([[60000.01, 60000.02]], [60000.015])) == pytest.approx(.0025, rel=1e-8)
    assert float(closed_form.crps_normal(60000., .01, 60000.013)) == pytest.approx(float(closed_form.crps_normal(0., .01, .013)), rel=1e-8)
    assert float(interval_score(60000.01, 60000.02, 60000.03, .9)) == pytest.approx(.21, rel=1e-8)
    assert float(pinball(100000001, 100000005, .5)) == 2 and float(pinball(np.int64(100000001), np.int32(100000005), .5)) == 2
    assert ranks([[100000001, 100000002]], [100000003]).tolist() == [2]
    assert brier([True, False], [1, 1]).tolist() == [0, 1] and brier(.1, True).dtype == torch.float64

@pytest.mark.parametrize("plain", [lambda v: v, tuple, np.array, torch.tensor, pd.Series], ids=["list", "tuple", "array", "tensor", "Series"])
def test_the_widest_floating_type_that_an_array_has_decides(plain):
    "Plain and whole numbers do not widen what is single, from either side; what is double widens it."
    whole, many = plain([1, 2]), np.ones((2, 3), np.float32)
    assert crps_ensemble(torch.from_numpy(many), whole).dtype == crps_ensemble(many, whole).dtype == torch.float32
    assert crps_ensemble([[1, 2], [3., 4]], np.ones(2, np.float32)).dtype == torch.float32
    assert crps_ensemble(many.tolist(), torch.ones(2)).dtype == torch.float32
    assert crps_ensemble(many, torch.ones(2, dtype=torch.float64)).dtype == torch.float64
    for one in (np.ones(2, np.float32), torch.ones(2), torch.ones(2).half()):
        assert pinball(one, whole, .5).dtype == pinball(whole, one, .5).dtype == torch.float32
        assert interval_score(0, 3., one, .9).dtype == interval_score(whole, [3., 3.], one, .9).dtype == torch.float32
    assert pinball(np.ones(2), whole, .5).dtype == pinball(whole, whole, .5).dtype == torch.float64
    assert joint.energy_score([[[1., 2.]]], torch.ones(1, 2)).dtype == torch.float32
    assert as_values([np.float32(1)]).dtype == crps_ensemble([torch.ones(())], one.float()[0]).dtype == torch.float32

MASKED = np.ma.array([[1., 2., 1e6]], mask=[[0, 0, 1]])

@pytest.mark.parametrize("call", [lambda x: crps_ensemble(x, [1.5]), lambda x: crps_ensemble([x[0]], [1.5]), lambda x: pinball(x, x, .5),
    lambda x: crps_ensemble(np.ones((1, 2)), x[0, 2:]), lambda x: pinball(x[0, 2], 1., .5), as_array, sharpe, total_return,
    lambda x: joint.energy_score(x[None], x), lambda x: nrmse(x, x, 1.)])
def test_masked_values_are_refused(call):
    with pytest.raises(ValueError, match=r"holds \d masked value.*np\.ma\.filled\(.*nan_policy=\"omit\""): call(MASKED)

def test_broadcast_arrays_are_arrays():
    "Without NumPy's warning of writing to what is shared."
    x, y = np.broadcast_arrays(np.arange(3.), np.ones((2, 1)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert crps_ensemble(x, y[:, 0]).tolist() == crps_ensemble(x.copy(), y[:, 0].copy()).tolist() and sharpe(x).shape == (2,)

def test_masked_arrays_without_a_masked_value_are_arrays():
    whole = np.ma.array([[1., 2.]], mask=False)
    assert float(crps_ensemble(whole, [1.5])) == float(crps_ensemble(whole.data, [1.5]))
    filled = np.ma.filled(MASKED.astype(float), np.nan)
    assert float(crps_ensemble(filled, [1.5], nan_policy="omit")) == .25

# ---- intervals, contests

def test_a_median_lies_inside_its_intervals_and_intervals_inside_each_other():
    score = thresholds.weighted_interval_score
    with pytest.raises(ValueError, match="^median lies outside .*1 of 1 interval"): score(0., [.5], [1.], .2, [.5])
    with pytest.raises(ValueError, match="^median lies outside"): score(torch.tensor([0., 2.]), torch.tensor([[-1.], [0.]]), torch.tensor([[1.], [1.]]), torch.zeros(2), .5)
    for level in ([.5, .9], torch.tensor([.5, .9])):
        with pytest.raises(ValueError, match="^intervals of a higher level must contain.*1 of 1"): score(0., [-2., -1.], [1., 2.], .2, level)
        assert float(score(0., [-1., -2.], [1., 2.], .2, level)) == pytest.approx(float(score(0., [-2., -1.], [2., 1.], .2, [.9, .5])))
    assert float(score(0., [0., 0.], [0., 0.], .2, [.9, .5])) > 0 and score(np.zeros(()), [0.], [1.], .2, [.5]).dtype == torch.float64
    assert score(torch.zeros(3), [[-1.]]*3, [[1.]]*3, [0., 0., 0.], [.5]).dtype == torch.float32
    assert np.isnan(float(score(np.nan, [0.], [1.], .2, [.5])))
    assert score(torch.zeros(3), torch.zeros(3, 0), torch.zeros(3, 0), torch.ones(3), torch.zeros(0)).tolist() == [1, 1, 1]

@pytest.mark.parametrize("contest", [model_confidence_set, lambda x, overlap: superior_predictive_ability(x, "a", overlap)])
@pytest.mark.parametrize("overlap", [0, 41, 300, np.inf, np.nan, 1.5])
def test_no_more_times_overlap_than_there_are(contest, overlap):
    scores = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=list("abc"))
    with pytest.raises(ValueError, match=r"^overlap must be 1, 2, ... up to the 40 times"): contest(scores, overlap=overlap)

# ---- returns

COMPOUND = dict(total_return=total_return, cagr=cagr, cumulative_return=cumulative_return, drawdown=drawdown, max_drawdown=max_drawdown, calmar=calmar,
    average_drawdown=average_drawdown, conditional_drawdown=conditional_drawdown, ulcer_index=ulcer_index, stability=stability, table=performance_metrics,
    drawdown_at_risk=drawdown_at_risk, capture=lambda r: up_capture(r, r), own_capture=lambda r: down_capture(np.zeros(np.shape(r)), r),
    months=lambda r: aggregate_returns(np.asarray(r), pd.date_range("2024-01-01", periods=np.shape(r)[-1])))

def test_ratios_of_returns_have_no_unit():
    "What does not compound is right in percent too, and of differences of returns, which may be below -1."
    assert sharpe([1.2, -2.5, .3]) == pytest.approx(sharpe([.012, -.025, .003]))
    assert np.isfinite(information_ratio([-.9, .1, .2], [.5, .3, .1]))

@pytest.mark.parametrize("name", [name for name in COMPOUND if name != "months"])
def test_returns_that_compound_come_in_the_order_of_their_times(name):
    if name == "own_capture": pytest.skip("its other series has no times")
    for days in (pd.date_range("2024-01-01", periods=4), pd.period_range("2024-01", periods=4, freq="M")):
        r = pd.Series([.1, -.2, .05, .03], days)
        with pytest.raises(ValueError, match=r"not in the order of its times; give returns\.sort_index\(\)"): COMPOUND[name](r[::-1])
        COMPOUND[name](r), COMPOUND[name](pd.Series(r.to_numpy(), [3, 2, 1, 0])), sharpe(r[::-1])
        with pytest.raises(ValueError, match=r"returns\.sort_index\(\)"): rolling(sharpe, r[::-1], 2)

@pytest.mark.parametrize("metric", [cagr, volatility, downside_risk, sharpe, sortino, calmar, performance_metrics, semi_deviation, sharpe_interval,
    lambda r, periods: alpha(r, r, periods), lambda r, periods: up_capture(r, r, periods), lambda r, periods: tracking_error(r, [.1, .1, .2], periods)])
@pytest.mark.parametrize("periods", ["daily", None, 0, -252, np.nan, [252, 365]])
def test_periods_is_a_number_of_bars(metric, periods):
    with pytest.raises(ValueError, match="^periods is .*; give the number of bars a year, 252 days or 12 months"): metric([.1, -.2, .3], periods=periods)

@pytest.mark.parametrize("time", ["monthly", None, 7, ["up", "down"], ["2024-01-01", "2024-13-01"]])
def test_times_of_returns_are_times(time):
    with pytest.raises(ValueError, match="^time .*give the time of each bar, such as returns.index"): aggregate_returns(pd.Series([.1, .2]), time)
