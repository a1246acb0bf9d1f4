"The scores against independent packages, reference numbers, brute force and what must hold for any input."
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

import synthlab.metrics.crps as crps
from synthlab.metrics.calibration import (brier, central_interval, coverage, coverage_band, design_effect, effective_size, interval_score,
    interval_score_band, pinball, pit, pit_band, pit_test, rank_histogram, rank_histogram_band, rank_test, ranks, spread_skill, spread_skill_band)
from synthlab.metrics.crps import (afcrps_ensemble, check_ensemble, crps_ensemble, fair_crps_ensemble, log_likelihood, sharpness,
    threshold_weighted_crps)
from synthlab.metrics.joint import energy_score, variogram_score
from synthlab.metrics.skill import block_bootstrap, diebold_mariano, skill, skill_interval

REFERENCE = Path(__file__).parents[2]/"shared/reference"
property_test = settings(deadline=None, derandomize=True, max_examples=60)

def reference(name):
    path = REFERENCE/f"{name}.npz"
    if not path.exists(): pytest.skip(f"the reference numbers are not beside this checkout: {path}")
    with np.load(path, allow_pickle=False) as z: return {k: z[k] for k in z.files}

def same(a, b, rtol=1e-10, atol=1e-12): np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

def tensors(seed, *shapes, dtype=torch.float64, grad=False):
    gen = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=gen, dtype=torch.float64).to(dtype).requires_grad_(grad) for s in shapes]

def all_pairs(x, y, alpha=0., weights=None):
    "The definition: every pair of members, O(M^2)."
    p = torch.full_like(x, 1/x.shape[-1]) if weights is None else weights/weights.sum(-1, keepdim=True)
    pairs = (p[..., :, None]*p[..., None, :]*(x[..., :, None] - x[..., None, :]).abs()).sum((-1, -2))/2
    distinct = 1 - (p*p).sum(-1)
    c = 1 - alpha + alpha/distinct if x.shape[-1] > 1 else 1.
    return (p*(x - y[..., None]).abs()).sum(-1) - c*pairs

@pytest.fixture(params=["numpy", "torch"])
def sorter(request, monkeypatch):
    "Both ways to sort: NumPy's, and the one a GPU takes."
    if request.param == "torch": monkeypatch.setattr(crps, "_by_numpy", lambda error: False)
    return request.param

# ---- CRPS: reference numbers and packages

@pytest.mark.parametrize("case", ["normal_m20", "student3_m100", "two_members", "one_member", "ties", "price_level", "tiny_returns"])
def test_crps_reference(case, sorter):
    z = reference("crps_ensemble")
    assert case in z["names"]
    x, y = (torch.from_numpy(z[f"{case}__{k}"]) for k in ("ens", "obs"))
    for grad in False, True:
        x.requires_grad_(grad)
        same(crps_ensemble(x, y).detach(), z[f"{case}__crps"], atol=0)
        if x.shape[1] > 1:
            scale = z[f"{case}__crps"].max()
            same(fair_crps_ensemble(x, y).detach(), z[f"{case}__fair"], atol=1e-13*scale)
            same(afcrps_ensemble(x, y).detach(), z[f"{case}__almost_fair_095"], atol=1e-13*scale)
        else:                   # the reference package has NaN here; a loss should not
            same(afcrps_ensemble(x, y).detach(), z[f"{case}__crps"], atol=0)
            with pytest.raises(ValueError, match="two members"): fair_crps_ensemble(x, y)

@pytest.mark.parametrize("case", ["normal_m20", "student3_m100", "two_members", "price_level", "tiny_returns"])
def test_crps_reference_in_float32(case, sorter):
    "Single precision keeps 1e-4 of a score, also at a price level, when asked on the same rounded numbers."
    z = reference("crps_ensemble")
    x, y = (torch.from_numpy(z[f"{case}__{k}"]).float() for k in ("ens", "obs"))
    same(crps_ensemble(x, y), crps_ensemble(x.double(), y.double()), rtol=1e-5)
    same(crps_ensemble(x, y), z[f"{case}__crps"], rtol=1e-4)
    same(fair_crps_ensemble(x, y), fair_crps_ensemble(x.double(), y.double()), rtol=1e-4, atol=1e-6*z[f"{case}__crps"].mean())

def test_every_reference_case_is_used():
    assert set(reference("crps_ensemble")["names"]) == {"normal_m20", "student3_m100", "two_members", "one_member", "ties",
                                                        "price_level", "tiny_returns"}

@pytest.mark.parametrize("family", ["normal", "t", "laplace", "logistic", "lognormal"])
def test_crps_closed_form(family):
    "An ensemble of evenly spaced quantiles approaches the score of its distribution."
    z = reference("crps_closed_form")
    mu, sigma, df = z["mu"][:, None], z["sigma"][:, None], z["df"][:, None]
    law = {"normal": stats.norm(mu, sigma), "t": stats.t(df, mu, sigma), "laplace": stats.laplace(mu, sigma),
           "logistic": stats.logistic(mu, sigma), "lognormal": stats.lognorm(sigma, scale=np.exp(mu))}[family]
    M = 20_000
    x, y = law.ppf((np.arange(M) + .5)/M), z["y_pos" if family == "lognormal" else "y"]
    same(crps_ensemble(x, y), z[f"crps_{family}"], rtol=2e-4, atol=2e-4)

def test_crps_of_a_weighted_mixture():
    "Quantiles of three normals, weighted like a mixture, approach the mixture's score."
    z = reference("crps_closed_form")
    M = 2000
    q = stats.norm.ppf((np.arange(M) + .5)/M)
    x = (z["mix_m"][..., None] + z["mix_s"][..., None]*q).reshape(len(z["y"]), -1)
    same(crps_ensemble(x, z["y"], weights=np.repeat(z["mix_w"], M, axis=1)), z["crps_mixnorm"], rtol=1e-3, atol=1e-4)

def test_log_likelihood_reference():
    z = reference("ensemble_log_score")
    same(log_likelihood(z["ens"], z["obs"]), z["gauss_loglik_ddof0"], rtol=1e-10)
    same(sharpness(z["ens"]), z["ens_std_ddof1"])

def test_known_values():
    "Worked by hand or published."
    four = torch.arange(4.).double()
    for alpha, expected in (0, .375), (.5, .2708333333333333), (.95, .1770833333333333), (1, 1/6):
        same(afcrps_ensemble(four, torch.tensor(1.5), alpha), expected)
    pair = torch.tensor([0., 1.]).double()
    same(crps_ensemble(pair, torch.tensor(.5)), .25)
    same(afcrps_ensemble(pair, torch.tensor(.5)), .0125)
    same(fair_crps_ensemble(pair, torch.tensor(.5)), 0)
    same(crps_ensemble(torch.tensor([0, 1, 2]), torch.tensor(5)), 32/9, rtol=1e-6)

@pytest.mark.parametrize("M", [2, 17, 100])
def test_scoringrules(M, sorter, scoringrules):
    x, y = tensors(M, (30, M), (30,))
    same(crps_ensemble(x, y), scoringrules.crps_ensemble(y.numpy(), x.numpy(), estimator="nrg"))
    same(fair_crps_ensemble(x, y), scoringrules.crps_ensemble(y.numpy(), x.numpy(), estimator="fair"))
    same(fair_crps_ensemble(x, y), scoringrules.crps_ensemble(y.numpy(), x.numpy(), estimator="pwm"))
    same(threshold_weighted_crps(x, y, -.3, 1.), scoringrules.twcrps_ensemble(y.numpy(), x.numpy(), a=-.3, b=1., estimator="nrg"), atol=1e-10)

@pytest.mark.parametrize("M", [1, 2, 17])
def test_properscoring(M, sorter):
    ps = pytest.importorskip("properscoring")
    x, y = tensors(M, (12, M), (12,))
    w = tensors(99, (12, M))[0].abs()
    same(crps_ensemble(x, y), ps.crps_ensemble(y.numpy(), x.numpy()))
    same(crps_ensemble(x, y, w), ps.crps_ensemble(y.numpy(), x.numpy(), weights=w.numpy()))

# ---- CRPS: the fused gradient

@pytest.mark.parametrize("alpha", [0., .3, .95, 1.])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_that_of_the_definition(alpha, weighted, sorter):
    x, y, w = tensors(1, (3, 4, 9), (3, 4), (3, 4, 9), grad=True)
    inputs = (x, y, w) if weighted else (x, y)
    score = lambda f: f(x, y, alpha, w**2 + .1 if weighted else None)
    ours, theirs = score(afcrps_ensemble), score(all_pairs)
    same(ours.detach(), theirs.detach())
    upstream = tensors(2, (3, 4))[0]
    for a, b in zip(torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream)):
        same(a, b, atol=1e-11)

@pytest.mark.parametrize("M", [1, 2, 7])
def test_gradcheck(M, sorter):
    x, y = tensors(3, (2, 2, M), (2, 2), grad=True)
    w = (tensors(4, (M,))[0].abs() + .2).requires_grad_()
    for alpha in 0., .95, 1.:
        assert torch.autograd.gradcheck(lambda x, y: afcrps_ensemble(x, y, alpha), (x, y))
        assert torch.autograd.gradcheck(lambda x, y, w: afcrps_ensemble(x, y, alpha, w), (x, y, w))
    assert torch.autograd.gradcheck(lambda x, y: threshold_weighted_crps(x, y, -.5, .7), (x, y))
    if M > 1: assert torch.autograd.gradcheck(lambda x, y: log_likelihood(x, y), (x, y))

def test_gradient_to_one_input_alone(sorter):
    x, y, w = tensors(5, (6, 5), (6,), (6, 5))
    w = w.abs() + .1
    full = [t.clone().requires_grad_() for t in (x, y, w)]
    expected = torch.autograd.grad(afcrps_ensemble(full[0], full[1], weights=full[2]).sum(), full)
    for i in range(3):
        one = [t.clone().requires_grad_(i == j) for j, t in enumerate((x, y, w))]
        afcrps_ensemble(one[0], one[1], weights=one[2]).sum().backward()
        same(one[i].grad, expected[i])
        assert all(t.grad is None for j, t in enumerate(one) if i != j)

def test_second_derivative_is_refused():
    x, y = tensors(6, (4,), (), grad=True)
    first, = torch.autograd.grad(crps_ensemble(x, y)*x.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"): first.sum().backward()

def test_backward_twice_gives_the_same(sorter):
    x, y = tensors(7, (5, 8), (5,), grad=True)
    score = afcrps_ensemble(x, y).sum()
    once, = torch.autograd.grad(score, x, retain_graph=True)
    again, = torch.autograd.grad(score, x)
    assert torch.equal(once, again)

def test_both_sorts_agree(monkeypatch):
    x, y = tensors(8, (70, 33), (70,), dtype=torch.float32, grad=True)
    def run():
        score = afcrps_ensemble(x, y)
        return score.detach(), *torch.autograd.grad(score.sum(), (x, y))
    first = run()
    monkeypatch.setattr(crps, "_by_numpy", lambda error: False)
    for a, b in zip(first, run()): same(a, b, rtol=1e-6, atol=1e-7)

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from(["plain", "ties", "signs", "huge", "tiny"]))
def test_order_is_a_stable_argsort(seed, M, kind):
    "Packing the index into the key sorts every float32, negative, tied, huge or subnormal."
    x = np.random.default_rng(seed).standard_normal((6, M)).astype(np.float32)
    x = {"plain": x, "ties": x.round(), "signs": np.sign(x), "huge": x*np.float32(3e37), "tiny": x*np.float32(1e-43)}[kind] + np.float32(0)
    same(crps._order(torch.from_numpy(x)), x.argsort(-1, kind="stable"))

def test_many_blocks_of_rows():
    "Rows go through in blocks; what a row scores does not depend on its neighbours."
    x, y = tensors(9, (700, 400), (700,), dtype=torch.float32, grad=True)
    score = afcrps_ensemble(x, y)
    grad, = torch.autograd.grad(score.sum(), x)
    for i in 0, 326, 327, 328, 699:
        alone = x[i].detach().clone().requires_grad_()
        s = afcrps_ensemble(alone, y[i].detach()); s.backward()
        same(s.detach(), score[i].detach(), rtol=1e-6); assert torch.equal(alone.grad, grad[i])

# ---- CRPS: what must hold for any input

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)

@property_test
@given(shapes, st.integers(1, 12), st.sampled_from([torch.float32, torch.float64]), st.booleans(), st.booleans())
def test_shapes(shape, M, dtype, grad, weighted):
    x, y = tensors(0, (*shape, M), shape, dtype=dtype, grad=grad)
    w = torch.rand(M, generator=torch.Generator().manual_seed(0)) + .1 if weighted else None
    for score in (afcrps_ensemble(x, y, weights=w), crps_ensemble(x, y, w), threshold_weighted_crps(x, y, 0., weights=w),
                  log_likelihood(x, y), sharpness(x)):
        assert score.shape == shape and score.dtype == dtype
    if grad:
        afcrps_ensemble(x, y, weights=w).sum().backward()
        assert x.grad.shape == x.shape and y.grad.shape == y.shape

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0, 1), st.floats(.01, 100), st.floats(-1e4, 1e4))
def test_invariances(seed, M, alpha, scale, shift):
    "Members have no order; another unit scales the score, another origin and direction leave it."
    x, y = tensors(seed, (4, M), (4,))
    score = afcrps_ensemble(x, y, alpha)
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    same(afcrps_ensemble(x[:, order], y, alpha), score, atol=1e-10)
    same(afcrps_ensemble(-x, -y, alpha), score, atol=1e-10)
    same(afcrps_ensemble(scale*x, scale*y, alpha), scale*score, atol=1e-9)
    same(afcrps_ensemble(x + shift, y + shift, alpha), score, rtol=1e-7, atol=1e-9)

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.floats(0, 1), st.floats(0, 1))
def test_alpha(seed, M, a, b):
    "The score does not rise with alpha, and mixes its two ends."
    x, y = tensors(seed, (4, M), (4,))
    low, high = sorted((a, b))
    assert (afcrps_ensemble(x, y, high) <= afcrps_ensemble(x, y, low) + 1e-12).all()
    plain, fair = afcrps_ensemble(x, y, 0), afcrps_ensemble(x, y, 1)
    same(afcrps_ensemble(x, y, a), a*fair + (1 - a)*plain, atol=1e-10)
    same(plain, crps_ensemble(x, y))
    assert (plain >= -1e-12).all() and (plain <= (x - y[:, None]).abs().mean(-1) + 1e-12).all()

@property_test
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 4), min_size=1, max_size=9).filter(any))
def test_weights_are_repetition(seed, times):
    x, y = tensors(seed, (3, len(times)), (3,))
    repeated = x.repeat_interleave(torch.tensor(times), -1)
    same(crps_ensemble(x, y, weights=torch.tensor(times)), crps_ensemble(repeated, y), atol=1e-10)

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.floats(0, 1), st.floats(.01, 1e3))
def test_weights_against_the_definition(seed, M, alpha, scale):
    x, y, w = tensors(seed, (4, M), (4,), (4, M))
    w = w.abs() + 1e-3
    same(afcrps_ensemble(x, y, alpha, scale*w), all_pairs(x, y, alpha, w), atol=1e-10)
    same(afcrps_ensemble(x, y, alpha, torch.full((M,), scale)), afcrps_ensemble(x, y, alpha), atol=1e-10)
    same(afcrps_ensemble(x.float(), y.float(), alpha, w), afcrps_ensemble(x, y, alpha, w), rtol=1e-4, atol=1e-5)

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(2, 200), st.sampled_from([1., 100., 60_000.]), st.floats(1e-3, 50))
def test_float32_at_a_price_level(seed, M, level, spread):
    "Against float64 on the same rounded numbers, single precision costs 1e-5 of the mean error."
    x, y = (level + spread*t for t in tensors(seed, (4, M), (4,)))
    x, y = x.float().requires_grad_(), y.float()
    X, Y = x.detach().double().requires_grad_(), y.double()
    for alpha in 0., .95, 1.:
        a, b = afcrps_ensemble(x, y, alpha), afcrps_ensemble(X, Y, alpha)
        size = (X - Y[:, None]).abs().mean().item()
        same(a.detach(), b.detach(), rtol=1e-5, atol=1e-6*size)
        with torch.no_grad(): same(afcrps_ensemble(x, y, alpha), a, rtol=1e-5, atol=1e-6*size)
        same(torch.autograd.grad(a.sum(), x)[0], torch.autograd.grad(b.sum(), X)[0], rtol=1e-5, atol=1e-6/M)

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.lists(st.floats(-2, 2), min_size=1, max_size=4, unique=True))
def test_regions_add_up(seed, M, cuts):
    x, y = tensors(seed, (4, M), (4,))
    edges = [-math.inf, *sorted(cuts), math.inf]
    parts = sum(threshold_weighted_crps(x, y, a, b) for a, b in zip(edges, edges[1:]))
    same(parts, crps_ensemble(x, y), atol=1e-10)

def test_threshold_is_the_integral():
    x, y = tensors(3, (5, 8), (5,))
    z = torch.linspace(-.4, 1.1, 150_001, dtype=torch.float64)
    gap = (x[..., None] <= z).double().mean(1) - (y[:, None] <= z).double()
    same(threshold_weighted_crps(x, y, -.4, 1.1), torch.trapezoid(gap**2, z), rtol=1e-3)

def test_fair_score_does_not_depend_on_the_members():
    "Its mean over draws is the distribution's score, also with weights."
    gen = torch.Generator().manual_seed(0)
    y = torch.randn(40_000, generator=gen, dtype=torch.float64)
    for M in 2, 3, 10:
        x = torch.randn(40_000, M, generator=gen, dtype=torch.float64)
        w = torch.arange(1., M + 1)
        assert abs(fair_crps_ensemble(x, y).mean() - math.pi**-.5) < .02
        assert abs(fair_crps_ensemble(x, y, weights=w).mean() - math.pi**-.5) < .02

def test_layouts_and_types(sorter):
    paths, = tensors(0, (5, 40, 7), dtype=torch.float32)            # members in the middle
    y = torch.zeros(7, 5).T
    x = paths.transpose(1, 2)
    expected = crps_ensemble(x.contiguous(), y.contiguous())
    same(crps_ensemble(x, y), expected)
    same(crps_ensemble(x, y, weights=torch.ones(5, 7, 40)), expected, rtol=1e-5)
    same(crps_ensemble(x[:1].expand(5, 7, 40), y), expected[:1].expand(5, 7))
    same(crps_ensemble(x.numpy(), y.numpy()), expected)
    assert crps_ensemble(x.half(), y.half()).dtype == torch.float32
    assert crps_ensemble(x.bfloat16(), y).dtype == torch.float32
    assert crps_ensemble(x, y.double()).dtype == torch.float64
    assert crps_ensemble(torch.tensor([1, 2]), torch.tensor(1)).dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(crps_ensemble(x, y), expected, rtol=1e-6)
        same(afcrps_ensemble(paths.requires_grad_().transpose(1, 2), y, 0.).detach(), expected, rtol=1e-5)

def test_inputs_are_left_alone(sorter):
    x, y, w = tensors(0, (5, 6), (5,), (5, 6))
    w = w.abs()
    before = [t.clone() for t in (x, y, w)]
    for grad in False, True:
        x.requires_grad_(grad)
        afcrps_ensemble(x, y); afcrps_ensemble(x, y, weights=w)
    for a, b in zip(before, (x, y, w)): assert torch.equal(a, b.detach())

def test_missing_values(sorter):
    "NaN makes its own row NaN, with and without weights or gradient; infinity never makes a finite score."
    x, y = tensors(0, (6, 9), (6,), dtype=torch.float32)
    x[0, 3] = y[1] = torch.nan
    x[2, 4], x[3, 5], y[4] = torch.inf, -torch.inf, torch.inf
    for grad in False, True:
        for w in None, torch.ones(9):
            for score in (lambda x, y: crps_ensemble(x, y, w), lambda x, y: fair_crps_ensemble(x, y, w)):
                s = score(x.clone().requires_grad_(grad), y).detach()
                assert s[:2].isnan().all() and not s[2:5].isfinite().any() and s[5].isfinite()
    assert log_likelihood(x, y)[:2].isnan().all() and sharpness(x)[0].isnan() and threshold_weighted_crps(x, y, 0.)[:2].isnan().all()

@pytest.mark.parametrize("call,message", [
    (lambda: crps_ensemble(torch.zeros(8, 12, 50), torch.zeros(8, 1)), r"need a target of shape \(8, 12\)"),
    (lambda: crps_ensemble(torch.zeros(8, 50), torch.zeros(50)), r"need a target of shape \(8,\)"),
    (lambda: crps_ensemble(torch.zeros(8, 0), torch.zeros(8)), "no members"),
    (lambda: crps_ensemble(torch.tensor(1.), torch.tensor(1.)), "axis of members"),
    (lambda: afcrps_ensemble(torch.zeros(2), torch.tensor(0.), -.1), "alpha must lie between"),
    (lambda: afcrps_ensemble(torch.zeros(2), torch.tensor(0.), math.nan), "alpha must lie between"),
    (lambda: crps_ensemble(torch.zeros(2), torch.tensor(0.), torch.tensor([1., -1.])), "not be negative, got -1"),
    (lambda: crps_ensemble(torch.zeros(2), torch.tensor(0.), torch.zeros(2)), "not all be zero"),
    (lambda: crps_ensemble(torch.zeros(4, 2), torch.zeros(4), torch.ones(4, 1)), "one weight for each member"),
    (lambda: threshold_weighted_crps(torch.zeros(4, 2), torch.zeros(4), torch.zeros(2)), "one number, or one for each target"),
    (lambda: threshold_weighted_crps(torch.zeros(2), torch.tensor(0.), 1., 1.), "below upper")])
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message) as e: call()
    assert "\n" not in str(e.value)

def test_complex_numbers_are_refused():
    with pytest.raises(TypeError, match="real numbers"): crps_ensemble(torch.zeros(2, dtype=torch.complex64), torch.tensor(0.))

def test_bad_weights_are_nan_where_asking_would_wait(monkeypatch):
    monkeypatch.setattr(crps, "_by_numpy", lambda error: False)
    w = torch.tensor([[1., 1.], [1., -.5], [0., 0.]])
    assert crps_ensemble(torch.ones(3, 2), torch.zeros(3), w).isnan().tolist() == [False, True, True]

@pytest.mark.slow
def test_under_compile():
    "A compiled model may hold the score."
    x, y = tensors(0, (6, 9), (6,), dtype=torch.float32, grad=True)
    loss = lambda x, y: afcrps_ensemble(2*x, y).mean()
    a, b = (torch.autograd.grad(f(x, y), x)[0] for f in (loss, torch.compile(loss, backend="eager")))
    same(a, b)

# ---- one door for all scores

def downwards(x): return pd.Series(x, index=np.arange(len(x))[::-1])
def dated(x): return pd.Series(x, index=pd.date_range("2020", periods=len(x)))
LIKE_ARRAYS = {"list": list, "array": np.asarray, "backwards": lambda x: np.asarray(x)[::-1].copy()[::-1], "downwards": downwards,
               "dated": dated, "big-endian": lambda x: np.asarray(x, ">f8"), "objects": lambda x: pd.Series(list(x), dtype=object),
               "tensor": lambda x: torch.from_numpy(np.array(x))}

@pytest.mark.parametrize("kind", LIKE_ARRAYS)
def test_array_likes_score_by_position(kind):
    "Whatever holds the numbers, every score takes them by position; as tensors they are the reference."
    r, like, t = np.random.default_rng(0), LIKE_ARRAYS[kind], torch.from_numpy
    x, y, w = r.standard_normal(8), r.standard_normal(8), r.random(8) + .1
    low, high, p, event = x - w, x + w, w/2, (y > 0)*1.
    members = r.standard_normal((8, 5))
    table = pd.DataFrame(members, index=np.arange(8)[::-1]) if kind == "downwards" else members
    pairs = [
        (crps_ensemble(table, like(y)), crps_ensemble(t(members), t(y))),
        (crps_ensemble(like(x), .25, like(w)), crps_ensemble(t(x), torch.tensor(.25, dtype=torch.float64), t(w))),
        (fair_crps_ensemble(like(x), .25, like(w)), fair_crps_ensemble(t(x), torch.tensor(.25, dtype=torch.float64), t(w))),
        (threshold_weighted_crps(table, like(y), like(low)), threshold_weighted_crps(t(members), t(y), t(low))),
        (pinball(like(x), like(y), .3), pinball(t(x), t(y), .3)), (pinball(like(x), like(y), like(p)), pinball(t(x), t(y), t(p))),
        (interval_score(like(low), like(high), like(y), .8), interval_score(t(low), t(high), t(y), .8)),
        (brier(like(p), like(event)), brier(t(p), t(event))),
        (energy_score(members, like(x[:5]), weights=like(w)), energy_score(t(members), t(x[:5]), weights=t(w)))]
    for got, expected in pairs: same(got, expected, rtol=1e-6 if kind == "list" else 1e-12)
    at = np.array([0, 3, 3, 5, 1, 0, 2, 4])
    assert rank_histogram(like(at), 5).tolist() == [2, 1, 1, 2, 1, 1]

WRONG = [
    (lambda: brier(torch.tensor([.5]), torch.tensor([.5])), "an event is 0 or 1"),
    (lambda: brier([.5, .5], [0., math.nan]), "an event is 0 or 1"),
    (lambda: brier(np.full(4, .5), np.ones((4, 1))), r"shapes differ: probability \(4,\), event \(4, 1\)"),
    (lambda: pinball(torch.zeros(4), torch.zeros(4, 1), .5), "shapes differ"),
    (lambda: pinball(torch.zeros(4, 3), torch.zeros(4, 3), torch.full((4,), .5)), "level has shape"),
    (lambda: interval_score(torch.zeros(4), torch.ones(4), torch.zeros(4, 1), .9), "shapes differ"),
    (lambda: interval_score(torch.tensor([0., 1.]), torch.tensor([1., 0.]), torch.zeros(2), .9), "above upper in 1 of 2"),
    (lambda: interval_score(torch.zeros(4, 1), torch.ones(4, 1), torch.zeros(4, 1), torch.full((4,), .9)), "level has shape"),
    (lambda: rank_histogram(np.array([0, 6]), 5), "from 0 to 5, got 6"), (lambda: rank_histogram([-1], 5), "from 0 to 5, got -1"),
    (lambda: rank_histogram([1.5], 5), "from 0 to 5, got 1.5"), (lambda: rank_histogram([math.nan], 5), "from 0 to 5, got nan"),
    (lambda: crps_ensemble(torch.zeros(2), 0., torch.tensor([1., math.nan])), "be finite, got nan"),
    (lambda: crps_ensemble(torch.zeros(2), 0., torch.tensor([1., math.inf])), "be finite, got inf"),
    (lambda: energy_score(torch.ones(2, 3), torch.ones(3), weights=[-3., 1.]), "not be negative, got -3"),
    (lambda: energy_score(torch.ones(2, 3), torch.ones(3), weights=[0., 0.]), "not all be zero"),
    (lambda: energy_score(torch.ones(2, 3), torch.ones(3), fair=True, weights=[1., 0.]), "weight on 2 members"),
    (lambda: variogram_score(torch.ones(2, 2), torch.ones(2), weights=-np.eye(2)), "not be negative, got -1"),
    (lambda: fair_crps_ensemble([0., 1.], 1., [1., 0.]), "weight on 2 members")]

@pytest.mark.parametrize("call,message", WRONG)
def test_the_door_refuses(call, message):
    with pytest.raises(ValueError, match=message) as e: call()
    assert "\n" not in str(e.value)

@pytest.mark.parametrize("values", [["up"], pd.Series(["up"]), np.array(["2020"], "M8[D]"), [[1.], [1., 2.]]])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(TypeError, match="^target (is|holds)") as e: crps_ensemble(torch.zeros(1, 2), values)
    assert "\n" not in str(e.value)

def test_plain_numbers_keep_their_digits():
    "A plain number beside double precision is not rounded to single on its way in."
    assert float(crps_ensemble(np.zeros(2), .1)) == .1 and float(pinball(np.zeros(1), .1, .5)) == .05
    assert crps_ensemble(torch.zeros(2), .1).dtype == torch.float32

def test_fair_score_of_one_weighty_member_is_nan_where_asking_would_wait(monkeypatch):
    monkeypatch.setattr(crps, "_by_numpy", lambda error: False)
    w = torch.tensor([[1., 1.], [1., 0.], [1., torch.nan], [1., torch.inf]])
    assert fair_crps_ensemble(torch.ones(4, 2), torch.zeros(4), w).isnan().tolist() == [False, True, True, True]
    assert crps_ensemble(torch.ones(4, 2), torch.zeros(4), w).isnan().tolist() == [False, False, True, True]

# ---- calibration

def test_ranks_and_transforms_reference():
    z = reference("calibration")
    M = z["ens"].shape[1]
    found = ranks(z["ens"], z["obs"])
    same(found, z["rank"]); same(rank_histogram(found, M), z["rank_hist"])
    same(pit(z["ens"], z["obs"]), z["pit"])
    same(pit(z["ens_ties"], z["obs_ties"]), z["pit_mid_ties"])
    same(ranks(z["ens_ties"], z["obs_ties"]), z["rank_low_ties"])
    same(M - ranks(-z["ens_ties"], -z["obs_ties"]), z["rank_high_ties"])
    gen = torch.Generator().manual_seed(0)
    many = torch.stack([ranks(z["ens_ties"], z["obs_ties"], gen) for _ in range(300)])
    same(many.amin(0), z["rank_low_ties"]); same(many.amax(0), z["rank_high_ties"])
    u = pit(z["ens_ties"], z["obs_ties"], gen)
    assert (u >= torch.from_numpy(z["rank_low_ties"])/(M + 1)).all() and (u <= (torch.from_numpy(z["rank_high_ties"]) + 1)/(M + 1)).all()

def test_intervals_reference():
    z = reference("calibration")
    lower, upper = central_interval(z["ens"], z["levels"])
    same(lower, z["lower"]); same(upper, z["upper"])
    same(coverage(z["ens"], z["obs"], z["levels"]), z["coverage"])
    same(coverage(z["ens"], z["obs"], float(z["levels"][2])), z["coverage"][2])
    y = torch.from_numpy(z["obs"])[:, None].expand_as(lower)
    scores = interval_score(lower, upper, y, torch.from_numpy(z["levels"]))
    same(scores, z["interval_score"])
    alpha, median = 1 - torch.from_numpy(z["levels"]), torch.from_numpy(np.median(z["ens"], -1))
    same((.5*(y[:, 0] - median).abs() + (alpha/2*scores).sum(-1))/(len(alpha) + .5), z["wis"])
    same(pinball(torch.from_numpy(z["quantiles"]), y[:, :1].expand(-1, 5), torch.from_numpy(z["q_levels"])), z["pinball"])

def test_probabilities_reference():
    z = reference("calibration")
    same(brier(torch.from_numpy(z["brier_p"]), torch.from_numpy(z["brier_y"])), z["brier"])
    above = torch.from_numpy(z["ens"])[:, None] > torch.from_numpy(z["threshold"])[:, None]
    event = torch.from_numpy(z["obs"])[:, None] > torch.from_numpy(z["threshold"])
    same(brier(above.double().mean(-1), event), z["threshold_brier"])

def test_scoringrules_intervals(scoringrules):
    a, b, y = (t.numpy() for t in tensors(0, (50,), (50,), (50,)))
    b = a + abs(b)
    same(interval_score(*map(torch.from_numpy, (a, b, y)), .8), scoringrules.interval_score(y, a, b, .2))
    same(pinball(*map(torch.from_numpy, (a, y)), .3), scoringrules.quantile_score(y, a, .3))

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.lists(st.floats(.01, .99), min_size=1, max_size=4))
def test_central_interval_is_numpys_quantile(seed, M, levels):
    x, = tensors(seed, (5, M))
    for end, sign in zip(central_interval(x, levels), (-1, 1)):
        same(end.T, np.quantile(x.numpy(), (1 + sign*np.array(levels))/2, axis=-1))

def test_any_leading_shape():
    x, y = tensors(0, (4, 6, 9), (4, 6))
    assert pit(x, y).shape == ranks(x, y).shape == (4, 6) and central_interval(x)[0].shape == (4, 6, 4)
    same(coverage(x, y), coverage(x.reshape(24, 9), y.reshape(24)))
    same(spread_skill(x, y, 3).error, spread_skill(x.reshape(24, 9), y.reshape(24), 3).error)
    assert coverage(x[0, 0], y[0, 0]).shape == (4,) and coverage(x, y, .5).shape == ()

def test_missing_values_stay_missing():
    x, y = tensors(0, (8, 9), (8,))
    x[2, 1] = torch.nan
    assert pit(x, y).isnan().tolist() == [i == 2 for i in range(8)]
    assert central_interval(x, .5)[0].isnan().sum() == 1 and coverage(x, y).isnan().all()
    with pytest.raises(ValueError, match="1 of 8 cases"): ranks(x, y)
    assert math.isnan(effective_size([1., math.nan, 2.]))

def calibrated(seed, n, M):
    gen = torch.Generator().manual_seed(seed)
    s = torch.rand(n, generator=gen, dtype=torch.float64) + .5
    return s[:, None]*torch.randn(n, M, generator=gen, dtype=torch.float64), s*torch.randn(n, generator=gen, dtype=torch.float64)

def test_bands_hold_what_they_promise():
    "Over many calibrated forecasts, each band holds the value about as often as its level."
    inside = {"rank": [], "coverage": [], "interval": [], "spread": []}
    hold = lambda value, band: ((band[0] <= value) & (value <= band[1])).double().mean().item()
    for seed in range(60):
        x, y = calibrated(seed, 300, 19)
        inside["rank"].append(hold(rank_histogram(ranks(x, y), 19, 10), rank_histogram_band(300, 19, 10, .9)))
        inside["coverage"].append(hold(coverage(x, y, [.4, .8]), coverage_band([.4, .8], 300, 19, .9)))
        score = interval_score(*central_interval(x, .8), y, .8).mean()
        inside["interval"].append(hold(score, interval_score_band(x, .8, .9, n_draws=60, seed=seed)))
        inside["spread"].append(hold(spread_skill(x, y, 4).error, spread_skill_band(x, 4, .9, n_draws=60, seed=seed)))
    for name, share in inside.items(): assert .82 <= np.mean(share) <= .97, (name, np.mean(share))

def test_tests_of_uniformity_hold_their_size():
    p = {"rank": [], "pit": []}
    for seed in range(200):
        x, y = calibrated(seed, 200, 9)
        p["rank"].append(rank_test(rank_histogram(ranks(x, y), 9), 9)[1])
        p["pit"].append(pit_test(pit(x, y, torch.Generator().manual_seed(seed)))[1])
    for name, values in p.items(): assert .01 <= np.mean(np.array(values) < .05) <= .1, name

def test_overlap_fools_who_does_not_count_it():
    "Windows of 12 shared steps: without `block` calibrated forecasts are rejected, with it they are not."
    H, naive, told = 12, [], []
    for seed in range(60):
        gen = torch.Generator().manual_seed(seed)
        steps = torch.randn(480 + H - 1, generator=gen, dtype=torch.float64)
        y = steps.unfold(0, H, 1).sum(-1)
        u = pit(H**.5*torch.randn(480, 99, generator=gen, dtype=torch.float64), y, gen)
        counts = rank_histogram((u*100).long().clamp_max(99), 99, 5)
        naive.append((pit_test(u)[1], rank_test(counts, 99)[1])); told.append((pit_test(u, H)[1], rank_test(counts, 99, H)[1]))
    naive, told = (np.mean(np.array(p) < .05, axis=0) for p in (naive, told))
    assert (naive > .3).all() and (told < .15).all()

def overlapping_outcomes(seed, n, assets, H=12, stride=3):
    "Standard normal outcomes of windows of H steps; half of every step's variance is common to all assets."
    steps = np.random.default_rng(seed).standard_normal(((n - 1)*stride + H, assets + 1))
    whole = np.concatenate([np.zeros((1, assets)), (steps[:, :1] + steps[:, 1:]).cumsum(0)])
    at = np.arange(n)*stride
    return (whole[at + H] - whole[at])/(2*H)**.5

@pytest.mark.parametrize("n,assets,found", [(331, 1, .35), (331, 3, .6), (80, 3, .15)])
def test_overlap_is_measured(n, assets, found):
    "A test that is told of the overlap keeps its size and still finds a spread that is 20 % too wide."
    times, at = np.arange(n).repeat(assets), {}
    for width in (1, 1.2):
        u = [torch.special.ndtr(torch.tensor(overlapping_outcomes(s, n, assets).ravel()/width)) for s in range(200)]
        counts = [rank_histogram((v*100).long(), 99, 10, times) for v in u]
        at[width] = {"rank": np.mean([rank_test(c, 99, overlap=4)[1] < .05 for c in counts]),
                     "pit": np.mean([pit_test(v, times=times, overlap=4)[1] < .05 for v in u])}
    assert max(at[1].values()) < .115 and min(at[1].values()) > .005, at
    assert at[1.2]["rank"] > found, at

def test_bands_of_shares_hold_under_overlap():
    levels, inside = np.array([.5, .8, .9]), []
    for seed in range(300):
        y = overlapping_outcomes(seed, 120, 3).ravel()
        covered = abs(stats.norm.cdf(y) - .5)[:, None] <= levels/2
        low, high = coverage_band(levels, 360, np.inf, block=design_effect(covered, np.arange(120).repeat(3), 4))
        inside.append((low.numpy() <= covered.mean(0)) & (covered.mean(0) <= high.numpy()))
    assert (abs(np.mean(inside, 0) - .95) < .045).all(), np.mean(inside, 0)

def test_effective_size_of_a_known_process():
    "An autoregression of 0.5 is worth a third of its length."
    rng = np.random.default_rng(0)
    x = np.zeros(60_000); e = rng.standard_normal(60_000)
    for t in range(1, len(x)): x[t] = .5*x[t - 1] + e[t]
    assert abs(effective_size(x)*3/len(x) - 1) < .1
    assert effective_size([1., -1.]*50) == 100 and effective_size([5.]) == 1

def test_spread_skill_by_hand():
    x, y = calibrated(0, 90, 7)
    found = spread_skill(x, y, 9)
    order = x.var(-1).argsort()
    same(found.error, (x.mean(-1) - y)[order].reshape(9, 10).square().mean(-1).sqrt())
    same(found.spread, (x.var(-1)[order].reshape(9, 10).mean(-1)*8/7).sqrt())
    assert found.count.tolist() == [10]*9 and spread_skill(x, y, 4).count.sum() == 90
    with pytest.raises(ValueError, match="between 1 and 90"): spread_skill(x, y, 91)
    with pytest.raises(ValueError, match="shows no spread"): spread_skill(x[:, :1], y)

# ---- skill

def test_skill_takes_tensors_and_arrays():
    s, r = torch.tensor([1., 3.], requires_grad=True), np.array([4., 4.])
    assert skill(s, r) == .5 and isinstance(skill(s, r), float)
    assert diebold_mariano(s, r, 0) == diebold_mariano(s.detach().numpy(), r, 0)
    assert skill([1., 2.], [0., 0.]) == -math.inf

@property_test
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.data())
def test_bootstrap_is_what_it_says(seed, n, data):
    "Running sums give the mean of the indices written out."
    block = data.draw(st.integers(1, n))
    x = np.random.default_rng(seed).standard_normal((n, 2)) + 100
    start = np.random.default_rng(7).integers(n, size=(20, n//block + 1))
    index = (start[:, :, None] + np.arange(block)).reshape(20, -1)[:, :n] % n
    same(block_bootstrap(x, block, 20, seed=7), x[index].mean(1), rtol=1e-12)

def test_bootstrap_against_arch():
    arch = pytest.importorskip("arch.bootstrap")
    x = np.convolve(np.random.default_rng(0).standard_normal(611), np.ones(12), "valid")
    theirs = arch.CircularBlockBootstrap(24, x, seed=0).apply(np.mean, 2000)
    ours = block_bootstrap(x, 24, 2000)
    assert abs(ours.std()/theirs.std() - 1) < .1 and abs(ours.mean() - theirs.mean()) < .1*theirs.std()

def test_interval_is_paired_and_repeatable():
    rng = np.random.default_rng(0)
    r = rng.gamma(4, 1, 500); s = .9*r
    assert skill_interval(s, r) == skill_interval(s, r, seed=0) != skill_interval(s + rng.normal(0, .1, 500), r)
    same(skill_interval(s, r), (.1, .1), rtol=1e-9)
    low, high = skill_interval(rng.gamma(4, 1, 500), r, level=.5), skill_interval(rng.gamma(4, 1, 500), r, level=.99)
    assert high[1] - high[0] > low[1] - low[0]

def overlapping(rng, n, H):
    total = lambda: np.convolve(rng.standard_normal(n + H - 1), np.ones(H)/H**.5, "valid")
    y = total()
    return (y + .5*total())**2, (y + .5*total())**2

def test_interval_covers():
    rng, hits = np.random.default_rng(0), []
    for seed in range(200):
        low, high = skill_interval(*overlapping(rng, 600, 6), block=18, n_boot=300, seed=seed)
        hits.append(low <= 0 <= high)
    assert .86 <= np.mean(hits) <= .99

def test_diebold_mariano_size():
    "Under the null with overlapping errors about 5 % are rejected at 5 %."
    rng = np.random.default_rng(0)
    for n, H in (200, 1), (300, 6), (600, 12):
        p = np.array([diebold_mariano(*overlapping(rng, n, H), H - 1)[1] for _ in range(600)])
        assert .025 <= (p < .05).mean() <= .085, (n, H, (p < .05).mean())

def test_diebold_mariano_by_hand():
    d = np.array([.3, .1, -.2, -.3, .2, .5, .4, .0, -.1, .2])
    n, c = len(d), d - d.mean()
    g = [(c[k:]*c[:n - k]).sum()/n for k in range(3)]
    variance = (g[0] + 2*g[1] + 2*g[2])/n
    expected = d.mean()/variance**.5*((n + 1 - 6 + 3*2/n)/n)**.5
    statistic, p = diebold_mariano(d, np.zeros(n), lags=2)
    same(statistic, expected); same(p, 2*stats.t.sf(abs(expected), n/3 - 1))        # windows that share nothing, less one
    same(diebold_mariano(d, np.zeros(n))[0], diebold_mariano(d, np.zeros(n), 2)[0])

@pytest.mark.parametrize("call,message", [
    (lambda: skill([1., 2.], [1.]), "same windows"), (lambda: skill([1.], [1.]), "two windows or more"),
    (lambda: skill_interval([1., 2.], [1., 2.], block=3), "block must lie between 1 and 2"),
    (lambda: skill_interval([1., 2.], [1., 2.], level=95), "level must lie between 0 and 1"),
    (lambda: diebold_mariano([1., 2.], [1., 3.], lags=2), "lags must lie between 0 and 1"),
    (lambda: check_ensemble(torch.zeros(3, 0)), "no members"),
    (lambda: rank_histogram_band(100, 9, 11), "between 1 and 10"),
    (lambda: coverage_band(.9, 100, 9, block=.5), "n and block must be 1 or more"),
    (lambda: interval_score_band(torch.zeros(5, 2)), "two others or more")])
def test_more_errors(call, message):
    with pytest.raises(ValueError, match=message): call()

def test_columns_in_memory(sorter):
    "Rows that lie as columns in memory score and learn the same."
    x, y = tensors(0, (40, 12), (12,), dtype=torch.float32)
    for w in None, torch.linspace(.5, 2, 40):
        found = []
        for t in x.T, x.T.contiguous():
            t = t.clone(memory_format=torch.preserve_format).requires_grad_()
            score = afcrps_ensemble(t, y, weights=w); score.sum().backward()
            with torch.no_grad(): found.append((score.detach(), t.grad, afcrps_ensemble(t, y, weights=w)))
        for a, b in zip(*found): assert torch.equal(a, b)

@pytest.mark.parametrize("n,H,stride,assets", [(20, 1, 1, 1), (80, 12, 3, 1), (240, 12, 1, 1), (80, 12, 3, 3)])
def test_interval_covers_with_twenty_independent_windows(n, H, stride, assets):
    "A nominal 95 % covers 92 to 97 %, though windows overlap and assets move together (percentiles of the draws: 85 to 89)."
    rng, hits, share = np.random.default_rng(0), [], -(-H//stride)*assets
    def total():
        common, own = rng.standard_normal(((n - 1)*stride + H, 1)), rng.standard_normal(((n - 1)*stride + H, assets))
        step = common if assets == 1 else (common + own)/2**.5
        return np.lib.stride_tricks.sliding_window_view(step, H, 0)[::stride].sum(-1).ravel()
    for seed in range(300):
        y, a, b = total(), total(), total()
        low, high = skill_interval(abs(y + a/2), abs(y + b/2), 2*share, 300, seed=seed)
        hits.append(low <= 0 <= high)
    assert .92 <= np.mean(hits) <= .985, np.mean(hits)

LEARNING = torch.tensor([.1, .9, .4, .6, .2, .8, .3, .7], dtype=torch.float64, requires_grad=True)
@pytest.mark.parametrize("call", [
    lambda x: pit_test(x), lambda x: pit_test(x, times=[0, 0, 1, 1, 2, 2, 3, 3], overlap=2), lambda x: rank_test(x, 7), lambda x: effective_size(x), lambda x: design_effect(x),
    lambda x: block_bootstrap(x, 2, 5).tolist(), lambda x: skill_interval(x, 1 - x, n_boot=20), lambda x: diebold_mariano(x, 1 - x), lambda x: coverage_band(x, 50, 9)[0].tolist(),
    lambda x: pit_band(x, 50)[0].tolist()])
def test_what_still_learns_is_a_number_too(call):
    "A tensor with a gradient (or on another device) is taken by its numbers, as an array is."
    assert call(LEARNING) == call(LEARNING.detach().numpy())

@pytest.mark.parametrize("call,message", [
    (lambda: pit_test([.2, 1.2, .4]), "from 0 to 1, got 1.2"), (lambda: pit_test([.2, math.nan, .4]), "from 0 to 1, got nan"),
    (lambda: rank_test([5, -1, 5], 2), "not negative, got -1"), (lambda: rank_test([5, math.nan, 5], 2), "not negative, got nan"), (lambda: rank_test([0, 0, 0], 2), "no case"),
    (lambda: design_effect([1., math.nan]), "nan"), (lambda: pit_band(1.2, 50), "from 0 to 1, got 1.2")])
def test_values_that_no_forecast_has_are_refused(call, message):
    with pytest.raises(ValueError, match=message): call()

@pytest.mark.parametrize("value", [.1, 1e9 + .1, 1e-9/3])
def test_a_constant_series_is_constant_at_any_level(value):
    "Rounding in its mean is no dependence."
    assert effective_size(np.full(50, value)) == effective_size(np.zeros(50)) == 50
