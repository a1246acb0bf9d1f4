"Heads that say a drift and a volatility for every step: what they promise at 288 steps, in float32, and where no curve can go."
import json, math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from synthlab.models.curves import DRIFT_GAIN, CrossAttentionLayer, HorizonHead, SimpleHorizonHead, VolTermStructureHead, sinusoids
from synthlab.models.registry import create, registry
from synthlab.models.simulate import simulate_gbm_paths
from synthlab.models.spectral import (NU_MIN, SpectralHead, StudentTHorizonHead, bounded, cosines, inverse_bounded, simulate_wandering_paths,
    student_t_factor, wandering)
from synthlab.models.synth import create_model

property_test = settings(deadline=None, derandomize=True, max_examples=40)
F64 = torch.float64
D = 16                                      # width of the states in most tests

CONFIGS = {
    "vol_term_structure": {"name": "vol_term_structure"},
    "simple_horizon": {"name": "simple_horizon", "horizon_max": 288},
    "simple_horizon max": {"name": "simple_horizon", "horizon_max": 288, "pool_type": "max"},
    "simple_horizon mean+max": {"name": "simple_horizon", "horizon_max": 288, "pool_type": "mean+max"},
    "horizon": {"name": "horizon", "horizon_max": 288},
    "horizon narrowed": {"name": "horizon", "horizon_max": 288, "kv_dim": 8, "n_layers": 1},
    "spectral": {"name": "spectral"},
    "brownian": {"name": "spectral", "mode": "brownian"},
    "hybrid": {"name": "spectral", "mode": "hybrid"},
    "hybrid_ou": {"name": "spectral", "mode": "hybrid_ou"},
    "student_t_horizon": {"name": "student_t_horizon"},
}
SHORT = "vol_term_structure", "simple_horizon", "horizon", "spectral", "hybrid", "hybrid_ou", "student_t_horizon"
every_head = pytest.mark.parametrize("name", CONFIGS)
each_kind = pytest.mark.parametrize("name", SHORT)

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def count(module): return sum(p.numel() for p in module.parameters())
def full(n, value, dtype=torch.float32): return torch.full((n,), float(value), dtype=dtype)

def build(name, width=D, dtype=torch.float32):
    torch.manual_seed(0)
    return create("head", CONFIGS[name], latent_size=width).to(dtype).eval()

def states(n, T=20, width=D, dtype=torch.float32, seed=1): return torch.randn(n, T, width, dtype=dtype, generator=seeded(seed))

# What all promise -----------------------------------------------------------------------------------------------------

def test_they_are_registered():
    known = {i.name for i in registry.list_blocks("head")}
    assert {"vol_term_structure", "simple_horizon", "horizon", "spectral", "student_t_horizon"} <= known

@every_head
@pytest.mark.parametrize("steps", [None, [1, 60, 288]])
def test_a_day_of_five_minutes_forward_and_backward(name, steps):
    "Long horizons diverged: 288 steps in float32, and a finite gradient of every weight."
    head = build(name).train()
    paths = head.simulate(head(states(6)), full(6, 100), 288, 12, scale=full(6, .002), generator=seeded(), steps=steps)
    assert paths.shape == (6, 12, 288 if steps is None else 3) and paths.dtype == torch.float32 and (paths > 0).all() and paths.isfinite().all()
    ((paths - 101).abs()/100).mean().backward()
    for weight, p in head.named_parameters(): assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, weight

@every_head
@pytest.mark.parametrize("horizon", [1, 2, 12, 288])
def test_before_training_it_says_what_is_known(name, horizon):
    "The volatility of lately at every step, and a drift that is small beside the spread of the whole path, however long."
    head, scale = build(name), torch.logspace(-4, -1.5, 10)
    mu, sigma = head.curves(said := head(states(10)), horizon, scale)
    mu, sigma = (v if v.ndim == 2 else v[:, None].expand(-1, horizon) for v in (mu, sigma))
    assert mu.shape == sigma.shape == (10, horizon)
    assert (sigma/scale[:, None] - 1).abs().max() < .2
    assert (mu.sum(1)/scale/horizon**.5).abs().max() < .2
    paths = head.simulate(said, full(10, 5), horizon, 1000, scale=scale, generator=seeded(), steps=[horizon])
    assert ((paths[..., 0]/5).log().std(1)/scale/horizon**.5 - 1).abs().max() < .3

@every_head
def test_twice_the_scale_is_twice_the_log_return(name):
    head, scale = build(name, dtype=F64), full(5, .01, F64)
    said, price = head(states(5, dtype=F64)), full(5, 100, F64)
    one, two = (head.simulate(said, price, 12, 30, scale=k*scale, generator=seeded()).div(100).log() for k in (1, 2))
    ito = one - head.simulate(said, price, 12, 30, scale=1e-6*scale, generator=seeded()).div(100).log()*1e6      # what is quadratic in the scale
    torch.testing.assert_close(two, 2*one + 2*ito, atol=2e-6, rtol=0)
    assert ito.abs().max() < .02
    torch.testing.assert_close(head.simulate(said, 7*price, 12, 30, scale=scale, generator=seeded()), 700*one.exp(), rtol=1e-12, atol=0)

@every_head
def test_time_may_have_another_unit(name):
    "Steps four times as long have twice the volatility (a walking drift adds a little)."
    head = build(name, dtype=F64)
    said = head(states(3, dtype=F64))
    one = head.simulate(said, full(3, 1, F64), 12, 4000, scale=full(3, .01, F64), generator=seeded(), steps=[12])
    four = head.simulate(said, full(3, 1, F64), 12, 4000, dt=4., scale=full(3, .01, F64), generator=seeded(), steps=[12])
    torch.testing.assert_close(four.log().std(1)/one.log().std(1), torch.full((3, 1), 2., dtype=F64), rtol=.04, atol=0)

@every_head
def test_the_same_generator_gives_the_same_paths_and_no_global_number_is_drawn(name):
    head = build(name)
    said, before = head(states(3)), torch.get_rng_state()
    draw = lambda g: head.simulate(said, full(3, 100), 24, 10, scale=full(3, .01), generator=g)
    g = seeded(4)
    first, second = draw(g), draw(g)
    assert torch.equal(first, draw(seeded(4))) and not torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())

@every_head
def test_one_window_knows_nothing_of_another(name):
    head, x, y = build(name, dtype=F64), states(4, dtype=F64), states(4, dtype=F64, seed=2)
    y[1] = x[1]
    draw = lambda s, scale: head.simulate(head(s), full(4, 100, F64), 24, 30, scale=scale, generator=seeded())
    a, b = draw(x, full(4, .01, F64)), draw(y, torch.tensor([.1, .01, .2, .3], dtype=F64))
    if name == "student_t_horizon":     # the number of random numbers behind a gamma variable depends on nu: the law is the same, not the noise
        a, b = ({k: v[1] for k, v in head(s).items()} for s in (x, y))
        for k in a: torch.testing.assert_close(a[k], b[k], rtol=1e-12, atol=0)
    else:
        torch.testing.assert_close(a[1], b[1], rtol=1e-12, atol=0)
        assert not torch.allclose(a[0], b[0], rtol=1e-3)

@each_kind
def test_chosen_steps_have_the_law_of_all(name):
    head = build(name)
    said = {k: v[:1] for k, v in head(3*states(1)).items()}
    draw = lambda seed, **o: head.simulate(said, full(1, 1), 288, 4000, scale=full(1, .001), generator=seeded(seed), **o)[0].log().detach().numpy()
    every, some = draw(1)[:, [4, 99, 287]], draw(2, steps=[5, 100, 288])
    for k in range(3): assert stats.ks_2samp(every[:, k], some[:, k]).pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(every.T), np.corrcoef(some.T), atol=.06)
    assert stats.ks_2samp(np.abs(every[:, 2] - every[:, 1]), np.abs(some[:, 2] - some[:, 1])).pvalue > 1e-3

@each_kind
def test_spread_is_the_same_from_64_members_as_from_512(name):
    "Members are independent: the unbiased variance does not depend on their number."
    head, n = build(name), 250
    said = {k: v.detach()[:1].expand(n, *v.shape[1:]) for k, v in head(states(1)).items()}
    few, many = ((head.simulate(said, full(n, 1), 48, P, scale=full(n, .001), generator=seeded(P), steps=[48])[..., 0].log()/.001).var(1) for P in (64, 512))
    assert abs(few.mean() - many.mean()) < 3.5*((few.var() + many.var())/n)**.5

@each_kind
def test_members_do_not_know_each_other(name):
    head, n = build(name), 3000
    said = {k: v.detach()[:1].expand(n, *v.shape[1:]) for k, v in head(states(1)).items()}
    x = head.simulate(said, full(n, 1), 3, 5, scale=full(n, .01), generator=seeded())[..., 2].log()
    for v in (x, (x - x.mean()).abs()): assert (torch.corrcoef(v.T) - torch.eye(5)).abs().max() < 5/n**.5

@every_head
def test_no_state_overflows(name):
    "States a million times too large, a scale of one, a day ahead: prices and gradients stay finite."
    head = build(name)
    paths = head.simulate(head(1e6*states(4)), full(4, 100), 288, 10, scale=full(4, 1), generator=seeded())
    assert paths.isfinite().all() and (paths >= 0).all()
    (paths/100).log1p().mean().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())

@each_kind
def test_a_model_is_made_of_it(name):
    config = {"backbone": {"input_size": 3, "d_model": 16, "blocks": ["lstmblock"]}, "head": CONFIGS[name]}
    model = create_model(json.loads(json.dumps(config)), seed=0)
    paths, mu, sigma = model(torch.randn(4, 30, 3, generator=seeded()), full(4, 100), 288, 8, scale=full(4, .001), generator=seeded())
    assert paths.shape == (4, 8, 288) and mu.shape == sigma.shape and (sigma > 0).all()

# Curves ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("make,params", [
    (lambda: VolTermStructureHead(32), 6596), (lambda: SimpleHorizonHead(32), 7842), (lambda: HorizonHead(32), 18690),
    (lambda: HorizonHead(32, kv_dim=8), 18690 + 8*33 - 2*2*32*24), (lambda: SimpleHorizonHead(32, pool_type="mean+max"), 7842 + 32*64),
    (lambda: SpectralHead(32), 3346), (lambda: SpectralHead(32, "brownian"), 2371), (lambda: SpectralHead(32, "hybrid"), 3411),
    (lambda: SpectralHead(32, "hybrid_ou"), 3476), (lambda: StudentTHorizonHead(32), 2566)])
def test_parameter_counts(make, params): assert count(make()) == params

def test_the_ramp_by_hand():
    head = VolTermStructureHead(4)
    said = {k: torch.tensor([v]) for k, v in dict(mu=.1, sigma=1., vol_slope=math.log(4), drift_slope=.2).items()}
    mu, sigma = head.curves(said, 3, torch.tensor([.5]))
    torch.testing.assert_close(mu, torch.tensor([[.05, .1, .15]])); torch.testing.assert_close(sigma, torch.tensor([[.5, 1., 2.]]))

def test_a_ramp_without_slopes_is_brownian():
    head = build("vol_term_structure")
    said = head(states(8)) | {k: torch.zeros(8) for k in ("vol_slope", "drift_slope")}
    mu, sigma = head.curves(said, 48)
    torch.testing.assert_close(mu, said["mu"][:, None].expand(8, 48), atol=1e-5, rtol=0)
    torch.testing.assert_close(sigma, said["sigma"][:, None].expand(8, 48), atol=1e-5, rtol=0)
    a = head.simulate(said, full(8, 100), 48, 20, scale=full(8, .01), generator=seeded())
    torch.testing.assert_close(a, simulate_gbm_paths(full(8, 100), .01*said["mu"], .01*said["sigma"], 48, 20, generator=seeded()), rtol=1e-5, atol=0)

@pytest.mark.parametrize("kind", [SimpleHorizonHead, HorizonHead])
def test_a_horizon_beyond_the_longest_is_refused_and_never_cut(kind):
    "A path shorter than its target was the result of cutting."
    head = kind(D, horizon_max=48).eval()
    said = head(states(2))
    assert head.simulate(said, full(2, 1), 48, 3, generator=seeded()).shape == (2, 3, 48)
    for call in (lambda: head.curves(said, 49), lambda: head.simulate(said, full(2, 1), 288, 3, generator=seeded(), steps=[1])):
        with pytest.raises(ValueError, match="beyond the 48 steps.*horizon_max"): call()
    model = create_model({"backbone": {"input_size": 3, "d_model": 16, "blocks": ["lstmblock"]}, "head": {
        "name": "simple_horizon" if kind is SimpleHorizonHead else "horizon", "horizon_max": 24}}, seed=0)
    with pytest.raises(ValueError, match="horizon_max"): model(torch.zeros(2, 10, 3), full(2, 1), 25, 3)

@pytest.mark.parametrize("kind", [SimpleHorizonHead, HorizonHead])
def test_the_first_steps_do_not_depend_on_how_many_follow(kind):
    head = kind(D, horizon_max=48).eval()
    said = head(states(3))
    for a, b in zip(head.curves(said, 12), head.curves(said, 48)): assert torch.equal(a, b[:, :12])

@pytest.mark.parametrize("T", [1, 2, 63, 512])
def test_any_length_of_history(T):
    for name in ("simple_horizon", "horizon", "horizon narrowed"):
        assert build(name)(states(2, T))["sigma"].shape == (2, 288)

def test_attention_tells_the_newest_bar_from_the_oldest():
    "Attention has no order: without marks a history and its mirror image would be one."
    head, x = build("horizon"), states(4)
    assert (head(x)["sigma"] - head(x.flip(1))["sigma"]).abs().max() > 1e-3
    later = torch.cat([torch.zeros(4, 0, D), x], 1)
    torch.testing.assert_close(head(later)["sigma"], head(x)["sigma"])

def test_marks_of_age_are_the_same_for_every_length():
    a, b = sinusoids(20, 8).flip(0), sinusoids(50, 8).flip(0)
    torch.testing.assert_close(a, b[-20:], atol=0, rtol=0)

def test_attention_against_torch():
    "The cross-attention is torch's own, with the same weights."
    layer = CrossAttentionLayer(16, 8, 4, 32, 0.).eval()
    other = torch.nn.MultiheadAttention(16, 4, kdim=8, vdim=8, batch_first=True)
    with torch.no_grad():
        other.q_proj_weight.copy_(layer.q.weight); other.k_proj_weight.copy_(layer.kv.weight[:16]); other.v_proj_weight.copy_(layer.kv.weight[16:])
        other.in_proj_bias.copy_(torch.cat([layer.q.bias, layer.kv.bias])); other.out_proj.load_state_dict(layer.out.state_dict())
    x, m = states(2, 5, 16), states(2, 9, 8)
    y = layer.norm1(x + other(x, m, m)[0])
    torch.testing.assert_close(layer(x, m), layer.norm2(y + layer.mlp(y)), atol=1e-5, rtol=1e-4)

@pytest.mark.parametrize("make,message", [
    (lambda: VolTermStructureHead(8, max_drift_slope=-1.), "must not be negative"), (lambda: SimpleHorizonHead(8, pool_type="last"), "none of mean, max"),
    (lambda: SimpleHorizonHead(8, horizon_max=0), "at least 1"), (lambda: HorizonHead(8, horizon_max=0), "at least 1"),
    (lambda: HorizonHead(10), "multiple of nhead"), (lambda: SpectralHead(8, "fractal"), "none of spectral"), (lambda: SpectralHead(8, n_basis=0), "at least 1"),
    (lambda: SpectralHead(8, "hybrid_ou", reversion=.1), "must lie between"), (lambda: StudentTHorizonHead(8, nu=2.), "must exceed 2.1")])
def test_nonsense_is_refused(make, message):
    with pytest.raises(ValueError, match=message): make()

# Spectral -------------------------------------------------------------------------------------------------------------

@property_test
@given(n=st.integers(1, 12), H=st.integers(1, 300))
def test_the_basis_is_orthonormal_whatever_the_horizon(n, H):
    phi, used = cosines(n, H, torch.ones(1, dtype=F64)), min(n, H - 1)
    gram = phi @ phi.T/H
    expected = torch.diag((torch.arange(n) < used).to(F64))
    torch.testing.assert_close(gram, expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(phi.mean(1), torch.zeros(n, dtype=F64), atol=1e-10, rtol=0)

@property_test
@given(raw=st.floats(-1e6, 1e6), low=st.floats(-5, 5), width=st.floats(.1, 10))
def test_bounds_hold(raw, low, width):
    value = bounded(torch.tensor(raw, dtype=F64), low, low + width).item()
    assert low - 1e-9 <= value <= low + width + 1e-9
    middle = low + .3*width
    assert bounded(torch.tensor(inverse_bounded(middle, low, low + width), dtype=F64), low, low + width).item() == pytest.approx(middle)

@property_test
@given(power=st.floats(-3, 8), mode=st.sampled_from(["spectral", "brownian", "hybrid", "hybrid_ou"]), H=st.sampled_from([1, 5, 288]))
def test_no_state_bends_the_curves_beyond_their_bounds(power, mode, H):
    torch.manual_seed(0)
    head = SpectralHead(8, mode)
    with torch.no_grad(): head.net[-1].weight.mul_(10**power)
    said = head(states(6, 3, 8))
    mu, sigma = head.curves(said, H)
    assert (sigma/said["sigma"][:, None]).log().abs().max() < math.log(7)
    assert (mu.sum(1)/H**.5).abs().max() <= 1 + 1e-4
    if "spread" in said: assert ((said["spread"] > .009) & (said["spread"] < 1.001)).all()
    if "reversion" in said: assert ((said["reversion"] > .49) & (said["reversion"] < 50.1)).all()

@pytest.mark.parametrize("reversion", [None, 3.])
@pytest.mark.parametrize("H", [1, 7, 288])
def test_wandering_has_mean_square_one_and_the_variance_it_says(reversion, H):
    s, t = .5, torch.arange(1, H + 1, dtype=F64)/H
    theta = None if reversion is None else full(1, reversion, F64)
    x = wandering(full(1, s, F64), H, 8000, theta, seeded())[0]
    v = s**2*t if reversion is None else s**2*(1 - torch.exp(-2*reversion*t))
    torch.testing.assert_close(x.log().var(-1), v, rtol=.08, atol=1e-3)
    torch.testing.assert_close((x**2).mean(-1), torch.ones(H, dtype=F64), rtol=0, atol=.1)

def test_reversion_against_the_recursion():
    "Doubling sums of 1, 2, 4, … steps is the recursion of the Ornstein–Uhlenbeck process, step by step."
    s, theta, H = torch.tensor([.5, .2], dtype=F64), torch.tensor([3., 20.], dtype=F64), 77
    noise, rho = torch.empty(2, H, 5, dtype=F64).normal_(generator=seeded()), (-theta/H).exp()[:, None]
    w, rows = torch.zeros(2, 5, dtype=F64), []
    for k in range(H):
        w = rho*w + s[:, None]*(1 - rho**2).sqrt()*noise[:, k]
        rows.append(w - (s**2*(1 - (-2*theta*(k + 1)/H).exp()))[:, None])
    torch.testing.assert_close(wandering(s, H, 5, theta, seeded()).log(), torch.stack(rows, 1), rtol=1e-9, atol=1e-9)

def test_gradients_of_wandering_paths():
    values = [torch.rand(2, dtype=F64, generator=seeded(k)).add(.1).requires_grad_() for k in range(2)]
    assert torch.autograd.gradcheck(lambda s, r: wandering(s, 6, 3, r, seeded()), values)
    curves = [torch.rand(2, 6, dtype=F64, generator=seeded(k)).div(9).add(.01).requires_grad_() for k in range(2)]
    factor = torch.rand(2, 6, 3, dtype=F64, generator=seeded(5)).add(.5).requires_grad_()
    for steps in (None, [2, 5]):
        assert torch.autograd.gradcheck(lambda m, v, f: simulate_wandering_paths(torch.ones(2, dtype=F64), m, v, f, generator=seeded(), steps=steps), (*curves, factor))

@pytest.mark.parametrize("mode", ["brownian", "hybrid", "hybrid_ou"])
def test_the_price_is_a_martingale_however_volatility_wanders(mode):
    "Earlier heads drifted with their noise: without a correction on each path the mean price grows with the spread."
    head = SpectralHead(4, mode, spread=.8)
    said = {k: v[:1].detach() for k, v in head(states(1, 2, 4)).items()}
    said |= {k: torch.zeros_like(said[k]) for k in ("mu", "drift_waves")}
    x = head.simulate(said, full(1, 1), 288, 20_000, scale=full(1, .01), generator=seeded(), steps=[12, 100, 288])[0].double()
    assert ((x.mean(0) - 1).abs() < 4.5*x.std(0)/20_000**.5).all()

def test_a_wandering_volatility_adds_tails_and_no_variance():
    head = SpectralHead(4, "brownian")
    said = {k: v[:1].detach() for k, v in head(states(1, 2, 4)).items()} | {"mu": torch.zeros(1)}
    logs = [head.simulate(said | {"spread": full(1, s)}, full(1, 1), 96, 20_000, scale=full(1, .001), generator=seeded(), steps=[96])[0, :, 0].log().numpy() for s in (.02, .8)]
    assert logs[0].std() == pytest.approx(logs[1].std(), rel=.05)
    assert abs(stats.kurtosis(logs[0])) < .2 < .5 < stats.kurtosis(logs[1])

def test_shocks_are_student_t_with_variance_one():
    for nu in (3., 8.):
        x = torch.empty(40_000, dtype=F64).normal_(generator=seeded(1))*student_t_factor(full(40_000, nu, F64), seeded(2))
        assert stats.kstest(x.numpy(), "t", (nu, 0, ((nu - 2)/nu)**.5)).pvalue > 1e-3

@property_test
@given(power=st.floats(-3, 8))
def test_degrees_of_freedom_always_leave_a_variance(power):
    torch.manual_seed(0)
    head = StudentTHorizonHead(8)
    with torch.no_grad(): head.net[-1].weight.mul_(10**power)
    said = head(states(6, 3, 8))
    assert (said["nu"] > 2).all() and (said["nu"] >= NU_MIN).all()
    assert all(v.isfinite().all() for v in said.values())

def test_a_walking_drift_is_momentum():
    "Returns of one path are positively correlated, and the variance at the end is 1 + s²/3."
    head = StudentTHorizonHead(4)
    said = dict(mu=full(1, 0), sigma=full(1, 1), nu=full(1, 1e4), mu_spread=full(1, 1), sigma_spread=full(1, .01), nu_spread=full(1, .01))
    x = head.simulate(said, full(1, 1), 60, 20_000, scale=full(1, .001), generator=seeded(), steps=[30, 60])[0].double().log().div(.001)
    assert x[:, 1].var().item()/60 == pytest.approx(1 + 1/3, rel=.05)
    assert torch.corrcoef(torch.stack([x[:, 0], x[:, 1] - x[:, 0]]))[0, 1] > .1

def test_one_gain_holds_all_drifts():
    "A step of the optimiser moves the end of a path of 288 steps by a part of its spread, for every head of curves."
    assert DRIFT_GAIN*288 <= 288**.5
    for name in ("vol_term_structure", "simple_horizon", "horizon", "spectral"):
        head, x = build(name), states(4)
        with torch.no_grad(): before = head.curves(head(x), 288)[0].sum(1)
        head.curves(head(x), 288)[0].sum().backward()
        torch.optim.Adam(head.parameters(), 1e-3).step()
        with torch.no_grad(): moved = (head.curves(head(x), 288)[0].sum(1) - before).abs().max()
        assert moved < .5*288**.5, name
