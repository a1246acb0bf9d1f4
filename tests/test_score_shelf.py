"The shelf of scores against independent packages, reference numbers, integrals, and what must hold for any input."
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import integrate, stats

from synthlab.metrics.closed_form import (crps_exponential, crps_laplace, crps_logistic, crps_lognormal, crps_normal, crps_normal_mixture, crps_t,
    crps_truncated_normal, crps_uniform, log_score_truncated_normal)

REFERENCE = Path(__file__).parents[2]/"shared/reference/crps_closed_form.npz"
property_test = settings(deadline=None, derandomize=True, max_examples=30)
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
    a = torch.tensor([0., 1.]).double().requires_grad_()
    crps_truncated_normal(a, 1., -torch.inf, torch.tensor([torch.inf, 0.]), 0.).sum().backward()
    assert a.grad.isfinite().all()

moderate = st.floats(-1e6, 1e6, width=32)

@property_test
@given(st.sampled_from(sorted(LAWS)), moderate, st.floats(1e-3, 1e3), moderate)
def test_closed_forms_are_finite_and_not_negative(law, m, s, y):
    if law == "lognormal": m, s = m/1e6, min(s, 10)
    found = LAWS[law][0](torch.tensor(m).double(), torch.tensor(s).double(), torch.tensor(y).double())
    assert found.isfinite() and found >= 0

WRONG = [
    *((lambda f=f: f(0., [1., 0.], 0.), "scale must be above 0, got 0") for f in (crps_normal, crps_logistic, crps_laplace, crps_lognormal)),
    (lambda: crps_t(3., 0., -1., 0.), "scale must be above 0, got -1"), (lambda: crps_t([2., .5], 0., 1., 0.), "finite and above 1, got 0.5"),
    (lambda: crps_t(math.inf, 0., 1., 0.), "finite and above 1, got inf"), (lambda: crps_exponential(-2., 0.), "rate must be above 0, got -2"),
    (lambda: crps_uniform(1., 0., 0.), "lower must be below upper"), (lambda: crps_truncated_normal(0., 1., 2., 1., 0.), "lower must be below upper"),
    (lambda: crps_truncated_normal(0., 0., 0., 1., 0.), "scale must be above 0"),
    (lambda: log_score_truncated_normal(0., 1., 1., 1., 0.), "lower must be below upper"),
    (lambda: crps_normal(np.zeros(3), 1., np.zeros((3, 1))), r"shapes differ: loc \(3,\)"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), 1., [1., 1.], np.zeros(2)), "weights has shape"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), -1., np.ones(3), np.zeros(2)), "scale must be above 0, got -1"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), np.ones(3), np.ones(3), np.zeros(2)), "shapes differ"),
    (lambda: crps_normal_mixture(np.zeros((2, 3)), 1., np.ones(3), np.zeros(3)), "need a target of shape")]

@pytest.mark.parametrize("call,message", WRONG)
def test_what_is_wrong_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as e: call()
    assert "\n" not in str(e.value)
