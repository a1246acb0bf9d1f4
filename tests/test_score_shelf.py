"The shelf of scores against independent packages, reference numbers, integrals, and what must hold for any input."
import math, re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import integrate, stats

from synthlab.metrics.calibration import central_interval
from synthlab.metrics.closed_form import (crps_exponential, crps_laplace, crps_logistic, crps_lognormal, crps_normal, crps_normal_mixture, crps_t,
    crps_uniform)
from synthlab.metrics.counts import crps_binomial, crps_hypergeometric, crps_negative_binomial, crps_poisson
from synthlab.metrics.crps import crps_ensemble, fair_crps_ensemble, threshold_weighted_crps
from synthlab.metrics.densities import dawid_sebastiani_ensemble, error_spread_score, log_score_ensemble
from synthlab.metrics.ends import (crps_censored_normal, crps_censored_t, crps_truncated_logistic, crps_truncated_normal, crps_truncated_t,
    crps_two_piece_normal, log_score_truncated_normal)
from synthlab.metrics.families import (crps_beta, crps_censored_gamma, crps_gamma, crps_generalised_pareto, crps_gev, crps_loglaplace, crps_loglogistic,
    crps_two_piece_exponential)
from synthlab.metrics.joint import dawid_sebastiani_score
from synthlab.metrics.thresholds import ranked_probability_score, threshold_brier, weighted_interval_score
from synthlab.metrics.weighted_scores import outcome_weighted_crps, vertically_rescaled_crps

REFERENCE = Path(__file__).parents[2]/"shared/reference/crps_closed_form.npz"
property_test = settings(deadline=None, derandomize=True, max_examples=20)
SHAPES = [(), (7,), (3, 4), (2, 1, 3)]

def same(a, b, rtol=1e-10, atol=1e-12): np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

def normal(seed, *shapes): return [np.random.default_rng([seed, i]).standard_normal(s) for i, s in enumerate(shapes)]

def checked(inputs, score): assert torch.autograd.gradcheck(score, [torch.as_tensor(t).double().requires_grad_() for t in inputs])

# ---- closed forms

LAWS = {    # what is scored: ours, scoringrules' name and its arguments after the observation, SciPy's distribution
    "normal": (lambda m, s, y: crps_normal(m, s, y), "crps_normal", lambda m, s: (m, s), stats.norm),
    "logistic": (lambda m, s, y: crps_logistic(m, s, y), "crps_logistic", lambda m, s: (m, s), stats.logistic),
    "laplace": (lambda m, s, y: crps_laplace(m, s, y), "crps_laplace", lambda m, s: (m, s), stats.laplace),
    "t": (lambda m, s, y: crps_t(s + 1.125, m, s, y), "crps_t", lambda m, s: (s + 1.125, m, s), lambda m, s: stats.t(s + 1.125, m, s)),
    "lognormal": (lambda m, s, y: crps_lognormal(m, s, abs(y)), "crps_lognormal", lambda m, s: (m, s), lambda m, s: stats.lognorm(s, scale=np.exp(m))),
    "exponential": (lambda m, s, y: crps_exponential(s, abs(y)), "crps_exponential", lambda m, s: (s,), lambda m, s: stats.expon(scale=1/s)),
    "uniform": (lambda m, s, y: crps_uniform(m, m + s, y), "crps_uniform", lambda m, s: (m, m + s), lambda m, s: stats.uniform(m, s)),
    "truncated": (lambda m, s, y: crps_truncated_normal(m, s, m - 1, m + 2*s, y), "crps_tnormal", lambda m, s: (m, s, m - 1, m + 2*s),
                  lambda m, s: stats.truncnorm(-1/s, 2, m, s))}
POSITIVE = "lognormal", "exponential"

@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("law", LAWS)
def test_closed_forms_against_scoringrules(law, shape, scoringrules):
    score, name, arguments, _ = LAWS[law]
    m, s, y = normal(1, shape, shape, shape)
    s, y = np.abs(s) + .3, 3*y
    same(score(m, s, y), getattr(scoringrules, name)(abs(y) if law in POSITIVE else y, *arguments(m, s)))

@pytest.mark.parametrize("law", LAWS)
def test_closed_forms_are_their_integral(law):
    "Of the squared gap, by SciPy's distribution functions; and the slope is 2F - 1."
    score, _, _, distribution = LAWS[law]
    for m, s, y in (.3, .7, 1.4), (-1., 2., -2.5):
        of, at = distribution(m, s), torch.tensor(abs(y) if law in POSITIVE else y).double().requires_grad_()
        found = score(m, s, at)
        area = integrate.quad(lambda x: of.cdf(x)**2, -np.inf, at.item())[0] + integrate.quad(lambda x: of.sf(x)**2, at.item(), np.inf)[0]
        same(found.detach(), area, rtol=1e-6)
        same(torch.autograd.grad(found, at)[0], 2*of.cdf(at.item()) - 1)

def reference():
    if not REFERENCE.exists(): pytest.skip(f"the reference numbers are not beside this checkout: {REFERENCE}")
    with np.load(REFERENCE, allow_pickle=False) as z: return dict(z)

def test_closed_forms_reference():
    z = reference()
    m, s, y = z["mu"], z["sigma"], z["y"]
    same(crps_normal(m, s, y), z["crps_normal"]); same(crps_logistic(m, s, y), z["crps_logistic"]); same(crps_laplace(m, s, y), z["crps_laplace"])
    same(crps_t(z["df"], m, s, y), z["crps_t"]); same(crps_lognormal(m, s, z["y_pos"]), z["crps_lognormal"])
    same(crps_normal_mixture(z["mix_m"], z["mix_s"], z["mix_w"], y), z["crps_mixnorm"])
    same(log_score_truncated_normal(m, s, -np.inf, np.inf, y), z["logs_normal"])

@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mixtures_against_scoringrules(shape, scoringrules):
    m, s, w, y = normal(2, (*shape, 5), (*shape, 5), (*shape, 5), shape)
    s, w = abs(s) + .2, abs(w)/abs(w).sum(-1, keepdims=True)
    same(crps_normal_mixture(m, s, 3*w, y), scoringrules.crps_mixnorm(y, m, s, w))
    same(crps_normal_mixture(m, .5, np.ones(5), y), scoringrules.crps_mixnorm(y, m, np.full_like(m, .5), np.full_like(m, .2)))

@pytest.mark.parametrize("a,b,y,expected", [(30, 35, 30.01, .009363217110022522), (-.1, .3, .1, .0331850515071125), (100, 110, 100.003, .00281569575620628475),
    (3, 3.1, 3.05, .008430696829167736), (-1e-4, 1e-4, 0, 1.6666666647222223e-05), (30, 30.01, 30.005, .000842995016108212)])
def test_truncated_normal_in_tails_and_between_close_ends(a, b, y, expected):
    "Numbers of the same formula at four hundred digits; mirrored, they are the same."
    same(crps_truncated_normal(0., 1., a, b, np.float64(y)), expected, rtol=1e-10)
    same(crps_truncated_normal(0., 1., -b, -a, np.float64(-y)), expected, rtol=1e-10)
    same(log_score_truncated_normal(0., 1., a, b, np.float64(y)), -stats.truncnorm(a, b).logpdf(y), rtol=1e-10)

def test_tails_stay_exact():
    "A far outcome costs its distance less half the distance between two draws, and log scores do not underflow."
    far = np.array([-1e8, 1e8])
    for score, halved in (crps_normal(0., 1., far), math.pi**-.5), (crps_logistic(0., 1., far), 1.), (crps_laplace(0., 1., far), .75):
        same(1e8 - score, halved, atol=3e-8)
    same(crps_t(2., 0., 1., far), [scoring + 1e8 for scoring in [-math.pi/2/2**.5]*2], rtol=1e-14)

@pytest.mark.parametrize("df", [1.01, 1.3, 2., 7., 1e3, 1e7])
def test_t_keeps_its_digits(df):
    "From where the mean is nearly gone to where it is a normal: its slope in the degrees of freedom is that of the integral."
    z = np.array([-8., -.5, 0., 2., 30.])
    score = lambda df: crps_t(df, 0., 1., z)
    wide = integrate.quad(lambda x: stats.t(df).sf(x)**2, 0, np.inf, limit=200)[0]
    same(crps_t(df, 0., 1., np.float64(0.)), 2*wide, rtol=1e-6)
    freedom = torch.full((5,), df, dtype=torch.float64, requires_grad=True)
    [slope] = torch.autograd.grad(crps_t(freedom, 0., 1., z).sum(), freedom)
    step = 3e-2*(df - 1)
    coarse = (8*(score(df + step) - score(df - step)) - score(df + 2*step) + score(df - 2*step))/12/step
    same(slope, coarse, rtol=1e-4, atol=3e-14)

@pytest.mark.parametrize("law", LAWS)
def test_closed_forms_in_single_precision(law):
    "At the level of a price, what single precision says of the same rounded numbers is exact to its last digits."
    score, steps = LAWS[law][0], lambda x: torch.from_numpy(np.round(64*x)/64).float()
    m, s, y = normal(3, 50, 50, 50)
    m, s, y = 0*m if law in POSITIVE else steps(m) + 60_000, steps(abs(s) + .1), steps(3*y)
    m = torch.as_tensor(m).float()
    found = score(m, s, m + y)
    assert found.dtype == torch.float32
    same(found, score(m.double(), s.double(), (m + y).double()), rtol=3e-7)

def test_gradients_of_closed_forms():
    m, s, y = normal(4, 4, 4, 4)
    s = abs(s) + .5
    for law in "normal", "logistic", "laplace", "t", "lognormal", "truncated": checked((m, s, y), LAWS[law][0])
    checked((s, abs(y)), crps_exponential)
    checked((m, m + s, y), crps_uniform)
    checked((-.1, .2, [.01, .1, .5]), lambda a, b, y: crps_truncated_normal(0., 1., a, b, y))
    checked((m, s, m - 1, m + 2, m + .3), log_score_truncated_normal)
    checked(normal(5, (3, 2), (), 2, 3)[:1] + [np.array([[.5, 1.], [2., 1.], [.3, .1]]), [1., 3.], y[:3]], crps_normal_mixture)
    checked(([0.], [1.]), lambda m, s: crps_truncated_normal(m, s, 0., 3., .7))         # an end and the outcome in the middle of the normal
    checked(([0.], [1.], [-1.], [0.]), lambda m, s, a, y: crps_truncated_normal(m, s, a, 2., y))
    checked(([0.], [1.], [0.]), lambda m, s, a: log_score_truncated_normal(m, s, a, 2., .5))
    a = torch.tensor([0., 1.]).double().requires_grad_()
    crps_truncated_normal(a, 1., -torch.inf, torch.tensor([torch.inf, 0.]), 0.).sum().backward()
    assert a.grad.isfinite().all()

# ---- ensembles

MEMBERS = [(1, 2), (6, 9), (40, 30)]

def ensemble(seed, shape, members): return normal(seed, (*shape, members), shape)

@pytest.mark.parametrize("n,M", MEMBERS)
def test_weighted_scores_against_scoringrules(n, M, scoringrules):
    x, y = ensemble(6, (n,), M)
    w = np.random.default_rng(7).random((n, M)) + .1
    smooth = lambda z: stats.norm.cdf(np.asarray(z), .3, .7)
    for ours, theirs in (outcome_weighted_crps, scoringrules.owcrps_ensemble), (vertically_rescaled_crps, scoringrules.vrcrps_ensemble):
        same(ours(x, y, smooth), theirs(y, x, w_func=smooth))
        same(ours(x, y, smooth, w), theirs(y, x, w_func=smooth, ens_w=w/w.sum(-1, keepdims=True)))
        region = ours(x, y, lambda z: (z > -.8) & (z < 1.5))
        with np.errstate(invalid="ignore"): same(region, theirs(y, x, a=-.8, b=1.5))
    same(threshold_weighted_crps(x, y, -.3, 1., fair=True), scoringrules.twcrps_ensemble(y, x, a=-.3, b=1., estimator="fair"))

@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_weighted_scores_of_any_shape(shape):
    "A region weighed vertically is the score of what has been moved to the origin; a barrier may differ between cases."
    x, y = (torch.from_numpy(np.asarray(t)) for t in ensemble(8, shape, 6))
    barrier = torch.full_like(y, -.2)
    above = lambda z: z > barrier[..., None]
    moved = lambda z: torch.where(z > -.2, z, -.2)
    same(vertically_rescaled_crps(x, y, above, origin=-.2), crps_ensemble(moved(x), moved(y)))
    same(outcome_weighted_crps(x, y, lambda z: z*0 + 2), 2*crps_ensemble(x, y))
    same(threshold_weighted_crps(x, y, fair=True), fair_crps_ensemble(x, y))

def test_weighted_scores_far_from_the_outcome():
    "A forecast that is far off keeps the digits of its spread."
    x, y = ensemble(9, (5,), 8)
    same(vertically_rescaled_crps(x + 1e8, y, lambda z: z*0 + 1, origin=1e8), crps_ensemble(x + 1e8, y), rtol=1e-15)

@pytest.mark.parametrize("n,M", [(5, 3), (6, 9), (40, 30)])
def test_densities_against_scoringrules(n, M, scoringrules):
    x, y = ensemble(10, (n,), M)
    same(log_score_ensemble(x, y), scoringrules.logs_ensemble(y, x)); same(log_score_ensemble(x, y, .4), scoringrules.logs_ensemble(y, x, bw=np.full(n, .4)))
    for ddof in 0, 1: same(dawid_sebastiani_ensemble(x, y, ddof), scoringrules.dssuv_ensemble(y, x, bias=not ddof))
    both = np.concatenate([x, -x], -1)      # without skewness, of which the package leaves out the number of members
    same(error_spread_score(both, y), scoringrules.error_spread_score(y, both))
    mean, deviation, skewness = x.mean(-1) - y, x.std(-1, ddof=1), stats.skew(x, -1, bias=False)
    same(error_spread_score(x, y), (deviation**2 - mean**2 - mean*deviation*skewness)**2)

@pytest.mark.parametrize("lead", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize("ddof", [0, 1])
def test_multivariate_dawid_sebastiani_against_scoringrules(lead, ddof, scoringrules):
    x, y = normal(11, (*lead, 9, 4), (*lead, 4))
    theirs = scoringrules.dssmv_ensemble(y.reshape(-1, 4), x.reshape(-1, 9, 4), bias=not ddof)
    same(dawid_sebastiani_score(x, y, ddof), theirs.reshape(lead))
    same(dawid_sebastiani_score(x[..., :1], y[..., :1], ddof), dawid_sebastiani_ensemble(x[..., 0], y[..., 0], ddof))

@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_thresholds_against_properscoring(shape):
    ps = pytest.importorskip("properscoring")
    x, y = ensemble(12, shape, 7)
    x, y = np.round(x, 1), np.round(y, 1)           # ties with the thresholds
    at = np.array([-1., 0., .3])
    same(threshold_brier(x, y, at), ps.threshold_brier_score(y, x, threshold=at)); same(threshold_brier(x, y, .3), threshold_brier(x, y, at)[..., 2])
    each = np.broadcast_to(at, (*shape, 3))
    same(threshold_brier(x, y, each, fair=True), threshold_brier(x, y, at, fair=True))

def test_fair_threshold_score_does_not_depend_on_the_members():
    "Of an even bet it is 1/4 on average, with two members or thirty."
    r = np.random.default_rng(13)
    for M in 2, 30: same(threshold_brier(r.random((20_000, M)), r.random(20_000), .5, fair=True).mean(), .25, atol=.006, rtol=0)

@pytest.mark.parametrize("lead", SHAPES, ids=str)
def test_categories_and_intervals_against_scoringrules(lead, scoringrules):
    r = np.random.default_rng(14)
    p, at = r.dirichlet(np.ones(5), lead), r.integers(0, 5, lead)
    same(ranked_probability_score(p, at), scoringrules.rps_score(np.eye(5)[at], p, onehot=True))
    level, x = np.array([.3, .6, .9]), r.standard_normal((*lead, 50)) + 9
    lower, upper = (np.asarray(end) for end in central_interval(x, level))
    median, zero = np.median(x, -1), np.zeros(lead)     # the package takes the median for its distance from the outcome
    theirs = scoringrules.weighted_interval_score(np.atleast_1d(zero), np.atleast_1d(median), np.atleast_2d(lower), np.atleast_2d(upper), 1 - level)
    found = weighted_interval_score(median, lower, upper, zero, level)
    same(found.reshape(-1), theirs.reshape(-1)); same(weighted_interval_score(median + 3, lower + 3, upper + 3, zero + 3, level), found)

def test_gradients_of_ensembles():
    x, y = ensemble(15, (3,), 6)
    smooth = lambda z: torch.sigmoid(2*z)
    for score in (lambda x, y: outcome_weighted_crps(x, y, smooth), lambda x, y: vertically_rescaled_crps(x, y, smooth), log_score_ensemble,
                  dawid_sebastiani_ensemble, error_spread_score, lambda x, y: threshold_weighted_crps(x, y, -.5, fair=True)): checked((x, y), score)
    checked(normal(16, (2, 6, 3), (2, 3)), dawid_sebastiani_score)
    checked(([0., .9], [[-1., -2.]]*2, [[1., 2.5]]*2, [3., .5]), lambda m, a, b, y: weighted_interval_score(m, a, b, y, [.5, .9]))

@pytest.mark.parametrize("score", [log_score_ensemble, dawid_sebastiani_ensemble, error_spread_score, lambda x, y: threshold_brier(x, y, .5),
    lambda x, y: outcome_weighted_crps(x, y, lambda z: z > -9), lambda x, y: vertically_rescaled_crps(x, y, lambda z: z > -9),
    lambda x, y: dawid_sebastiani_score(x[..., None], y[..., None])])
def test_missing_values_are_missing_in_their_row(score):
    x, y = (torch.from_numpy(t) for t in ensemble(17, (4,), 6))
    whole = score(x, y)
    x[0, 2], y[2] = torch.nan, torch.nan
    found = score(x, y)
    assert found.isnan().tolist() == [True, False, True, False]
    same(found[[1, 3]], whole[[1, 3]])

@pytest.mark.parametrize("score", [lambda x, y: outcome_weighted_crps(x, y, lambda z: z > 0), lambda x, y: vertically_rescaled_crps(x, y, lambda z: z > 0),
    log_score_ensemble, dawid_sebastiani_ensemble, error_spread_score, lambda x, y: threshold_brier(x, y, [0., 1.])])
def test_memory_of_many_rows(score):
    "4096 ensembles of a thousand members are scored beside a few copies of them, 16 MB each, never beside their pairs."
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not forget.exists(): pytest.skip("peak memory is read from /proc")
    x, y = torch.randn(4096, 1000, generator=torch.Generator().manual_seed(18)), torch.zeros(4096)
    kilobytes = lambda name: int(re.search(rf"{name}:\s*(\d+)", status.read_text())[1])
    forget.write_text("5")                          # the peak is from here on
    before = kilobytes("VmRSS")
    assert score(x, y).isfinite().all()
    assert kilobytes("VmHWM") - before < 8*x.nbytes/1024

moderate = st.floats(-1e6, 1e6, width=32)

@property_test
@given(st.sampled_from(sorted(LAWS)), moderate, st.floats(1e-3, 1e3), moderate)
def test_closed_forms_are_finite_and_not_negative(law, m, s, y):
    if law == "lognormal": m, s = m/1e6, min(s, 10)
    found = LAWS[law][0](torch.tensor(m).double(), torch.tensor(s).double(), torch.tensor(y).double())
    assert found.isfinite() and found >= 0

@property_test
@given(st.integers(0, 999), st.integers(3, 12), st.floats(1e-3, 1e3), moderate)
def test_scores_of_ensembles_are_finite(seed, M, scale, level):
    "And those of distance not negative, in any unit and at any level."
    x, y = (torch.from_numpy(level + scale*t) for t in ensemble(seed, (4,), M))
    above, tiny = lambda z: z > level - 9*scale, -1e-9*(abs(level) + scale)
    for found in outcome_weighted_crps(x, y, above), vertically_rescaled_crps(x, y, above, origin=level), error_spread_score(x, y), threshold_brier(x, y, level):
        assert found.isfinite().all() and (found >= tiny).all()
    assert (log_score_ensemble(x, y) - log_score_ensemble((x - level)/scale, (y - level)/scale) - math.log(scale)).abs().max() < 1e-3
    assert dawid_sebastiani_ensemble(x, y).isfinite().all()

FAMILIES = {    # of a place, a scale and what happened
    "gamma": lambda m, s, y: crps_gamma(s, 1/s, y), "censored gamma": lambda m, s, y: crps_censored_gamma(s, 1/s, s/2, y), "beta": lambda m, s, y: crps_beta(s, 1/s, y, m, m + s),
    "log-Laplace": lambda m, s, y: crps_loglaplace(m/1e6, s/(1 + s), y), "log-logistic": lambda m, s, y: crps_loglogistic(m/1e6, s/(1 + s), y),
    "Pareto": lambda m, s, y: crps_generalised_pareto((s - 1)/(s + 1), m, s, y, 1/(1 + s)), "extreme": lambda m, s, y: crps_gev((s - 1)/(s + 1.1), m, s, y),
    "two exponentials": lambda m, s, y: crps_two_piece_exponential(s, 1/s, m, y), "two normals": lambda m, s, y: crps_two_piece_normal(s, 1/s, m, y),
    "censored normal": lambda m, s, y: crps_censored_normal(m, s, m - 1, m + 3*s, y), "censored t": lambda m, s, y: crps_censored_t(s + 1.1, m, s, m - 1, m + 3*s, y),
    "truncated logistic": lambda m, s, y: crps_truncated_logistic(m, s, m - 1, m + 3*s, y), "truncated t": lambda m, s, y: crps_truncated_t(s + 1.1, m, s, m - 1, m + 3*s, y, .1, .2),
    "Poisson": lambda m, s, y: crps_poisson(s, y), "negative binomial": lambda m, s, y: crps_negative_binomial(s, 1/(1 + s), y),
    "binomial": lambda m, s, y: crps_binomial(s.ceil(), 1/(1 + s), y), "hypergeometric": lambda m, s, y: crps_hypergeometric(s.ceil(), s.ceil() + 3, s.ceil(), y)}

@pytest.mark.parametrize("law", FAMILIES)
def test_families_are_finite_and_not_negative(law):
    "At places up to a million away, scales over six decades and outcomes anywhere."
    r = np.random.default_rng(19)
    m, s = torch.from_numpy(r.normal(size=300)*10**r.uniform(-3, 6, 300)).float(), torch.from_numpy(10**r.uniform(-3, 3, 300)).float()
    y = m + s*torch.from_numpy(3*r.standard_t(2, 300)).float()
    exact = FAMILIES[law](m.double(), s.double(), y.double())
    assert exact.isfinite().all() and (exact >= -1e-9*(s + exact.abs())).all()
    missing = FAMILIES[law](m.double(), s.double(), torch.full_like(y, torch.nan).double())
    assert missing.isnan().all() and FAMILIES[law](torch.zeros(1), torch.ones(1), torch.ones(1)).dtype == torch.float32

@pytest.mark.parametrize("score", [crps_ensemble, fair_crps_ensemble, lambda x, y, **o: threshold_weighted_crps(x, y, -.5, **o),
    lambda x, y, **o: outcome_weighted_crps(x, y, torch.sigmoid, **o), lambda x, y, **o: vertically_rescaled_crps(x, y, torch.sigmoid, **o)])
def test_members_left_out_have_no_slope(score):
    "And the others the slope that they have without them."
    x, y = (torch.from_numpy(t) for t in ensemble(20, (4,), 6))
    gaps = torch.cat([x, torch.full((4, 2), torch.nan)], -1)[:, [6, 0, 1, 2, 7, 3, 4, 5]]
    leaves = [t.clone().requires_grad_() for t in (x, y, gaps, y)]
    score(*leaves[:2]).sum().backward(); score(*leaves[2:], nan_policy="omit").sum().backward()
    same(leaves[2].grad, torch.cat([leaves[0].grad, torch.zeros(4, 2)], -1)[:, [6, 0, 1, 2, 7, 3, 4, 5]]); same(leaves[3].grad, leaves[1].grad)

@pytest.mark.parametrize("score,expected", [(lambda y: crps_gamma(2., 1., y), -1), (lambda y: crps_censored_gamma(2., 1., .7, y), 2*stats.gamma(2).cdf(.7) - 1),
    (lambda y: crps_beta(2., 2., y), -1), (lambda y: crps_loglaplace(0., .5, y), -1), (lambda y: crps_loglogistic(0., .5, y), -1),
    (lambda y: crps_generalised_pareto(.2, 0., 1., y), -1), (lambda y: crps_two_piece_exponential(1., 3., 0., y), -.5), (lambda y: crps_two_piece_normal(1., 3., 0., y), -.5),
    (lambda y: crps_truncated_logistic(1., 1., 0., 3., y), -1), (lambda y: crps_truncated_t(3., 1., 1., 0., 3., y, .2), -.6), (lambda y: crps_uniform(0., 1., y, .2), -.6)])
def test_slope_where_a_law_begins_or_bends(score, expected):
    "At an end, or at the mode of two pieces, it is that of the law, once."
    y = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    same(torch.autograd.grad(score(y), y)[0], expected)

WRONG = [
    *((lambda f=f: f(0., [1., 0.], 0.), "scale must be above 0, got 0") for f in (crps_normal, crps_logistic, crps_laplace, crps_lognormal)),
    (lambda: crps_t(3., 0., -1., 0.), "scale must be above 0, got -1"), (lambda: crps_t([2., .5], 0., 1., 0.), "finite and above 1, got 0.5"),
    (lambda: crps_t(math.inf, 0., 1., 0.), "finite and above 1, got inf"), (lambda: crps_exponential(-2., 0.), "rate must be above 0, got -2"),
    (lambda: crps_uniform(1., 0., 0.), "upper less lower must be above 0, got "), (lambda: crps_truncated_normal(0., 1., 2., 1., 0.), "upper less lower must be above 0, got "),
    (lambda: crps_truncated_normal(0., 0., 0., 1., 0.), "scale must be above 0"),
    (lambda: log_score_truncated_normal(0., 1., 1., 1., 0.), "upper less lower must be above 0, got "),
    (lambda: crps_normal(np.zeros(3), 1., np.zeros((3, 1))), r"shapes differ: loc \(3,\)"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), 1., [1., 1.], np.zeros(2)), "weights has shape"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), -1., np.ones(3), np.zeros(2)), "scale must be above 0, got -1"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), np.ones(3), np.ones(3), np.zeros(2)), "shapes differ"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), 1., np.ones(3), np.zeros(3)), "need a target of shape"),
    (lambda: outcome_weighted_crps(np.zeros((2, 3)), np.zeros(2), lambda z: z - 1), "weights must not be negative, got -1"),
    (lambda: vertically_rescaled_crps(np.zeros((2, 3)), np.zeros(2), lambda z: z.sum()), "must give a weight for each value"),
    (lambda: vertically_rescaled_crps(np.zeros((2, 3)), np.zeros(2), lambda z: 1/z), "weights must be finite, got inf"),
    (lambda: threshold_weighted_crps(np.zeros((2, 1)), np.zeros(2), fair=True), "one shows no spread"),
    (lambda: log_score_ensemble(np.zeros((2, 3)), np.zeros(2), -1.), "bandwidth must be above 0, got -1"),
    (lambda: log_score_ensemble(np.zeros((2, 3)), np.zeros(2), np.ones(3)), "bandwidth has shape"),
    (lambda: error_spread_score(np.zeros((2, 2)), np.zeros(2)), "needs three members"),
    (lambda: dawid_sebastiani_score(np.zeros((3, 3)), np.zeros(3)), "covariance of 3 dimensions needs more members"),
    (lambda: threshold_brier(np.zeros((2, 1)), np.zeros(2), 0., fair=True), "needs two members"),
    (lambda: threshold_brier(np.zeros((2, 4)), np.zeros(2), np.zeros((3, 1))), "thresholds has shape"),
    (lambda: ranked_probability_score([[.5, .6]], [0]), "must sum to 1"), (lambda: ranked_probability_score([[1.5, -.5]], [0]), "not be negative"),
    (lambda: ranked_probability_score([[.5, .5]], [math.nan]), "leave out the cases without one"),
    (lambda: ranked_probability_score([[.5, .5]], [.5]), "a whole number from 0 to 1, got 0.5"),
    (lambda: weighted_interval_score(np.zeros(2), np.zeros((3, 1)), np.ones((3, 1)), np.zeros(2), [.5]), "along one more axis"),
    (lambda: weighted_interval_score(0., [1.], [0.], 0., [.5]), "give the lower end first"),
    (lambda: weighted_interval_score(0., [0.], [1.], 0., [50.]), "levels must lie between 0 and 1")]

@pytest.mark.parametrize("call,message", WRONG)
def test_what_is_wrong_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as e: call()
    assert "\n" not in str(e.value)
