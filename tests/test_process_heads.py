"Mixtures, bridges and stochastic differential equations against closed forms and torchsde; and what every registered head owes its callers."
import math

import numpy as np
import pytest
import torch
import torchsde
from hypothesis import given, settings, strategies as st
from scipy import stats

import synthlab.models.synth            # noqa: F401, registers the heads
from synthlab.metrics.crps import afcrps_ensemble, crps_ensemble
from synthlab.models.bridge import NeuralBridgeHead, bridge_texture, simulate_bridge_paths
from synthlab.models.mixtures import MixtureDensityHead, simulate_mixture_paths, simulate_weighted_mixture_paths, stratified_crps
from synthlab.models.registry import ConfigError, create, registry
from synthlab.models.sde import SOLVERS, SDEHead, evaluation_steps, integrate_sde
from synthlab.models.simulate import MAX_LOG_RETURN, simulate_gbm_paths, simulate_horizon_paths

F64 = torch.float64
few_examples = settings(deadline=None, derandomize=True, max_examples=25)
HEADS = [i.name for i in registry.list_blocks("head")]
OURS = ("mixture_density", "neural_bridge", "sde", "neural_sde")
each_head, each_of_ours = pytest.mark.parametrize("name", HEADS), pytest.mark.parametrize("name", OURS)

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def row(*values): return torch.tensor([values], dtype=F64)
def full(n, value, dtype=torch.float32): return torch.full((n,), float(value), dtype=dtype)

def build(name, latent=8, horizon=12, seed=0, **options):
    "A head by its registered name; one with a longest horizon is made long enough."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = create("head", {"name": name, **options}, latent_size=latent)
        if head.horizon_max is not None and head.horizon_max < horizon:
            head = create("head", {"name": name, "horizon_max": horizon, **options}, latent_size=latent)
    return head.eval()

def states_of(B, latent=8, T=6, seed=1): return torch.randn(B, T, latent, generator=seeded(seed))

# Every registered head -----------------------------------------------------------------------------------------------

def test_the_heads_are_registered(): assert set(OURS) <= set(HEADS) and {"gbm", "student_t", "skew_t"} <= set(HEADS)

@each_head
def test_curves_and_paths_have_the_promised_shapes(name):
    head, states = build(name), states_of(5)
    said = head(states)
    for value in said.values(): assert len(value) == 5 and value.isfinite().all()
    mu, sigma = head.curves(said, 12, full(5, .01))
    for v in (mu, sigma): assert v.shape in ((5,), (5, 12)) and v.isfinite().all()
    assert (sigma > 0).all()
    for steps, K in ((None, 12), ([12], 1), ([1, 3, 12], 3)):
        paths = head.simulate(said, full(5, 100), 12, 7, scale=full(5, .01), generator=seeded(), steps=steps)
        assert paths.shape == (5, 7, K) and paths.dtype == torch.float32 and (paths > 0).all()

@each_head
def test_an_untrained_head_says_as_volatile_as_lately(name):
    head, states = build(name), states_of(200)
    logs = head.simulate(head(states), full(200, 1), 12, 50, scale=full(200, .01), generator=seeded(), steps=[1, 12]).detach().log()/.01
    for k, step in enumerate((1, 12)):
        assert logs[..., k].std().item()/step**.5 == pytest.approx(1, abs=.2)
        assert abs(logs[..., k].mean().item())/step**.5 < .2
    mu, sigma = head.curves(head(states), 12, full(200, .01))
    assert mu.abs().mean() < .003 and sigma.mean().item() == pytest.approx(.01, rel=.2)

@each_head
def test_unknown_options_are_refused(name):
    with pytest.raises(ConfigError, match="has no option 'nonsense'"): create("head", {"name": name, "nonsense": 1}, latent_size=8)

@each_head
def test_the_number_of_members_changes_no_spread(name):
    "Standard deviation of the last log return, and spread beside skill, at 64 and at 512 members: equal within their noise."
    B, H = 300, 5
    head = build(name, horizon=H)
    with torch.no_grad():
        said = head(states_of(1).expand(B, -1, -1))
        draw = lambda P, seed: head.simulate(said, full(B, 1), H, P, scale=full(B, .01), generator=seeded(seed), steps=[H])[..., 0].log()/.01
        truth, variance, ratio = draw(1, 9)[:, 0], {}, {}
        for P in (64, 512):
            members = draw(P, P)
            variance[P] = members.var(1)
            ratio[P] = ((variance[P].mean()*(1 + 1/P))/(members.mean(1) - truth).square().mean()).sqrt()
    few, many = variance[64], variance[512]
    assert abs(few.mean() - many.mean()) < 4*(few.var()/B + many.var()/B)**.5
    assert few.mean().sqrt()/many.mean().sqrt() == pytest.approx(1, abs=.05)
    # one and the same truth for both, so the ratios differ only by the noise of the means; each is 1 within that of B truths
    assert ratio[64].item() == pytest.approx(ratio[512].item(), abs=.05)
    assert ratio[512].item() == pytest.approx(1, abs=.15)

@each_head
def test_all_noise_comes_from_the_generator(name):
    "Unseeded sampling makes champion and challenger incomparable: same generator, same bits, whatever the global state."
    head, states = build(name), states_of(3)
    def draw(seed, before):
        torch.manual_seed(before)
        state = torch.get_rng_state()
        paths = head.simulate(head(states), full(3, 100), 12, 9, scale=full(3, .01), generator=seeded(seed))
        assert torch.equal(state, torch.get_rng_state())
        return paths
    assert torch.equal(draw(0, 1), draw(0, 2)) and not torch.equal(draw(0, 1), draw(1, 1))

@each_head
def test_samples_of_a_batch_do_not_meet(name):
    "A median, a mean or a norm over the batch would show here."
    head, states = build(name), states_of(4)
    other = states.clone(); other[1:] = 3*other[1:] - 1
    a, b = (head.simulate(head(s), full(4, 100), 12, 9, scale=torch.tensor([.01, k, k, k]), generator=seeded()) for s, k in ((states, .01), (other, .05)))
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=0)
    assert not torch.allclose(a[1], b[1])
    alone, together = head(states[:1]), head(states)
    for k in alone: torch.testing.assert_close(alone[k][0], together[k][0], rtol=1e-4, atol=1e-5)

@each_head
def test_a_whole_day_of_five_minute_bars_forward_and_backward(name):
    "288 steps in float32: paths and every gradient finite."
    head = build(name, horizon=288).train()
    paths = head.simulate(head(states_of(4)), full(4, 60_000), 288, 8, scale=full(4, .001), generator=seeded())
    assert paths.shape == (4, 8, 288) and paths.isfinite().all()
    (paths/60_000).log().abs().mean().backward()
    grads = [p.grad for p in head.parameters() if p.grad is not None]
    assert grads and all(g.isfinite().all() for g in grads)

@each_head
@pytest.mark.parametrize("scale", [1e-5, 10.])
def test_no_scale_overflows(name, scale):
    head = build(name)
    paths = head.simulate(head(states_of(4)), full(4, 6e4), 12, 8, scale=full(4, scale), generator=seeded())
    ratio = paths.double()/6e4
    assert ratio.isfinite().all() and ratio.min() >= math.exp(-MAX_LOG_RETURN)*.999 and ratio.max() <= math.exp(MAX_LOG_RETURN)*1.001

@each_head
def test_twice_the_scale_is_twice_the_spread(name):
    head, states = build(name), states_of(64)
    with torch.no_grad():
        a, b = (head.simulate(head(states), full(64, 1), 12, 300, scale=full(64, k*.002), generator=seeded()).log() for k in (1, 2))
    torch.testing.assert_close((b.std(1)/a.std(1)).mean(0), torch.full((12,), 2.), atol=.03, rtol=0)

@each_head
def test_chosen_steps_have_the_same_law(name):
    head = build(name)
    with torch.no_grad():
        said = head(states_of(1).expand(40, -1, -1))
        few, all_ = (head.simulate(said, full(40, 1), 12, 500, scale=full(40, .01), generator=seeded(s), steps=steps).log()/.01
                     for s, steps in ((0, [2, 7]), (1, None)))
    all_ = all_[..., [1, 6]]
    for k in range(2): assert stats.ks_2samp(few[..., k].flatten(), all_[..., k].flatten()).pvalue > 1e-4
    a, b = (torch.cov(x.flatten(0, 1).T) for x in (few, all_))
    torch.testing.assert_close(a, b, rtol=.06, atol=.06)

# Our four heads --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, options, expected", [
    ("sde", {}, 6402), ("sde", {"hidden": 16}, 32*16 + 16 + 16*17 + 2*17), ("neural_sde", {}, 8836), ("neural_sde", {"hidden": 8}, 2*8*35 + 72 + 9 + 9 + 66),
    ("mixture_density", {}, 6921), ("mixture_density", {"n_components": 2}, 6921 - 195), ("neural_bridge", {}, 3055), ("neural_bridge", {"micro_steps": 1}, 3055 - 11*65)])
def test_exact_parameter_counts(name, options, expected):
    assert sum(p.numel() for p in build(name, 32, **options).parameters()) == expected

@each_of_ours
@pytest.mark.parametrize("dt", [1., .25])
def test_dt_is_a_length_of_time(name, dt):
    "Four quarter steps spread like one whole step."
    head = build(name)
    with torch.no_grad():
        said = head(states_of(1))
        x = head.simulate(said, full(1, 1), int(4/dt), 20_000, dt=dt, scale=full(1, .01), generator=seeded(), steps=[int(4/dt)])[0, :, 0].log()/.01
    assert x.std().item() == pytest.approx(200*head.curves(said, 4, full(1, .01))[1].mean().item(), rel=.05)

@each_of_ours
def test_gradients_reach_every_parameter(name):
    "Mixture weights that stay as they were born are the classic: here they get a gradient from weighted members."
    head = build(name).train()
    draw, strata = getattr(head, "simulate_weighted", None), getattr(head, "strata", None)
    out = (draw or head.simulate)(head(states_of(16)), full(16, 1), 12, 12, scale=full(16, .01), generator=seeded(), steps=[1, 5, 12])
    paths, weights = out if draw else (out, None)
    members, seen = 100*paths.transpose(1, 2), full(16, 101.)[:, None].expand(16, 3)
    score = stratified_crps(members, seen, weights[:, None].expand_as(members), strata) if draw else afcrps_ensemble(members, seen)
    score.mean().backward()
    for name, p in head.named_parameters(): assert p.grad is not None and p.grad.abs().sum() > 0, name

@pytest.mark.parametrize("name, options, message", [
    ("mixture_density", {"n_components": 0}, "must be at least 1"), ("neural_bridge", {"micro_steps": 0}, "must be at least 1"), ("sde", {"sigma": 0.}, "must be positive"),
    ("neural_sde", {"solver": "heun"}, "take one of euler, milstein, srk"), ("neural_sde", {"max_steps": 0}, "must be at least 1")])
def test_impossible_options_are_refused_in_one_sentence(name, options, message):
    with pytest.raises(ConfigError, match=message): build(name, **options)

@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_of_ours
def test_on_a_gpu(name):
    head = build(name).cuda()
    g = torch.Generator("cuda").manual_seed(0)
    paths = head.simulate(head(states_of(4).cuda()), full(4, 100).cuda(), 60, 500, scale=full(4, .01).cuda(), generator=g, steps=[1, 60])
    assert paths.device.type == "cuda" and (paths/100).log().std().item() == pytest.approx(.01*(30.5)**.5, rel=.2)
    (paths/100).log().abs().mean().backward()

# Mixtures --------------------------------------------------------------------------------------------------------------

MIX = dict(mus=row(-.004, .002, 0.), sigmas=row(.02, .005, .01), weights=row(.3, .5, .2))

def mixture_cdf(x, t, mus, sigmas, weights):
    m, s = ((mus - sigmas**2/2)*t)[0].numpy(), (sigmas*t**.5)[0].numpy()
    return (weights[0].numpy()*stats.norm.cdf(x[:, None], m, s)).sum(1)

def test_drawn_components_follow_the_mixture():
    logs = simulate_mixture_paths(full(1, 1, F64), **MIX, horizon=24, n_paths=20_000, generator=seeded(), steps=[1, 24])[0].log().numpy()
    for k, t in enumerate((1, 24)): assert stats.kstest(logs[:, k], lambda x: mixture_cdf(x, t, **MIX)).pvalue > 1e-4

def test_weighted_members_follow_the_same_law():
    paths, share = simulate_weighted_mixture_paths(full(1, 1, F64), **MIX, horizon=24, n_paths=60_000, generator=seeded(), steps=[24])
    logs = paths[0, :, 0].log().numpy()
    assert share.sum().item() == pytest.approx(1, abs=1e-9)
    x = np.linspace(-.4, .3, 29)
    np.testing.assert_allclose([share[0, logs < v].sum() for v in x], mixture_cdf(x, 24, **MIX), atol=.01)

def test_a_path_keeps_its_component():
    "Its calm or wild volatility lasts: the squares of distant steps are correlated as the mixture says."
    sigmas, w = row(1., 3.)/100, row(.5, .5)
    r = simulate_mixture_paths(full(1, 1, F64), 0*w, sigmas, w, 20, 50_000, generator=seeded())[0].log().diff(dim=1)
    assert torch.corrcoef(torch.stack([r[:, 0], r[:, 18]]).square())[0, 1].item() == pytest.approx(16/(3*41 - 25), abs=.03)  # Var σ² / (3 E σ⁴ - (E σ²)²)

@few_examples
@given(P=st.integers(2, 40), K=st.integers(1, 6))
def test_weights_of_members(P, K):
    w = torch.rand(3, K, generator=seeded(P)) + .01
    args = full(3, 1), torch.zeros(3, K), torch.full((3, K), .01), w, 4, P
    if P < K:
        with pytest.raises(ValueError, match="at least one"): simulate_weighted_mixture_paths(*args)
        return
    paths, share = simulate_weighted_mixture_paths(*args, generator=seeded())
    assert paths.shape == (3, P, 4) and share.shape == (3, P)
    torch.testing.assert_close(share.sum(1), torch.ones(3))
    torch.testing.assert_close(torch.stack([share[:, k::K].sum(1) for k in range(K)], 1), w/w.sum(1, keepdim=True))

def test_stratified_score_is_that_of_the_mixture():
    "Small ensembles, on average: the score of a huge one, where the fair score without strata is too good."
    m, s, w, y = row(-1., 1., 0.), row(.5, 1., .2), row(.2, .5, .3), .3
    n, P = 40_000, 9
    huge = (m[0].repeat(20_000) + s[0].repeat(20_000)*torch.randn(60_000, dtype=F64, generator=seeded()))
    exact = crps_ensemble(huge, torch.tensor(y, dtype=F64), w[0].repeat(20_000)).item()
    members = m[0].repeat(3) + s[0].repeat(3)*torch.randn(n, P, dtype=F64, generator=seeded(1))
    share, seen = (w[0].repeat(3)/3).expand(n, P), full(n, y, F64)
    ours, plain = stratified_crps(members, seen, share, 3, 1.), afcrps_ensemble(members, seen, 1., share)
    assert ours.mean().item() == pytest.approx(exact, abs=4*ours.std().item()/n**.5 + .002)
    assert plain.mean().item() < exact - .01

def test_stratified_score_gradient():
    x, w = torch.randn(2, 3, 8, dtype=F64, generator=seeded()).requires_grad_(), torch.rand(2, 3, 2, dtype=F64, generator=seeded(1)).add(.1).requires_grad_()
    seen = torch.randn(2, 3, dtype=F64, generator=seeded(2))
    assert torch.autograd.gradcheck(lambda x, w: stratified_crps(x, seen, (w/w.sum(-1, keepdim=True)).repeat(1, 1, 4)/4, 2), (x, w))

def test_mixture_weights_are_learnt():
    "Only the weights are unknown; from one half each they find one fifth and four fifths."
    n, head = 1024, MixtureDensityHead(1, n_components=2, hidden=4)
    truth = dict(mus=torch.tensor([[-.5, .2]]), sigmas=torch.tensor([[1.5, .5]]))
    start, many = torch.ones(n), {k: v.expand(n, 2) for k, v in truth.items()}
    seen = head.simulate(many | dict(weights=torch.tensor([[.2, .8]]).expand(n, 2)), start, 8, 1, scale=.01*start, generator=seeded(3), steps=[1, 8])[:, 0]
    logits = torch.zeros(1, 2, requires_grad=True)
    descend = torch.optim.Adam([logits], .1)
    for step in range(60):
        paths, share = head.simulate_weighted(many | dict(weights=logits.softmax(-1).expand(n, 2)), start, 8, 16, scale=.01*start, generator=seeded(step), steps=[1, 8])
        loss = stratified_crps(100*paths.log().transpose(1, 2), 100*seen.log(), share[:, None].expand(-1, 2, -1), 2).mean()
        descend.zero_grad(); loss.backward(); descend.step()
    assert logits.softmax(-1)[0, 0].item() == pytest.approx(.2, abs=.05)

def test_mixture_curves_match_mean_and_variance():
    head = MixtureDensityHead(4)
    for t in (1, 12, 288):
        mu, sigma = head.curves(MIX, t)
        m, w = MIX["mus"] - MIX["sigmas"]**2/2, MIX["weights"]
        mean = (w*m).sum()
        assert (mu - sigma**2/2).sum().item() == pytest.approx((mean*t).item(), abs=1e-12)
        assert (sigma**2).sum().item() == pytest.approx(((w*MIX["sigmas"]**2).sum()*t + (w*(m - mean)**2).sum()*t*t).item(), rel=1e-9)

# Bridges -----------------------------------------------------------------------------------------------------------------

@few_examples
@given(H=st.integers(1, 300), m=st.integers(1, 30), seed=st.integers(0, 9), data=st.data())
def test_bridge_ends_are_exact(H, m, seed, data):
    "The end of every path is its macro return to the last bit, and the texture is nothing at both ends: not off by its first knot."
    ends = .1*torch.randn(3, 5, generator=seeded(seed))
    texture = bridge_texture(torch.randn(3, m, generator=seeded(seed + 1)), H)
    assert texture.shape == (3, H) and (texture[:, -1] == 0).all() and (m > 1 or (texture == 0).all())
    steps = sorted(data.draw(st.sets(st.integers(1, H), max_size=4)) | {H})
    paths = simulate_bridge_paths(full(3, 100), ends, texture, full(3, .5), generator=seeded(seed), with_start=True, steps=steps)
    assert paths.shape == (3, 5, len(steps) + 1) and (paths[..., 0] == 100).all()
    assert torch.equal(paths[..., -1], 100*ends.exp())

def test_bridge_noise_is_accumulated():
    "Steps have variance σ²(1 - 1/H) about the line, not 2σ²; the middle is the widest, not as wide as every other place."
    H, P, sigma = 20, 50_000, .02
    logs = simulate_bridge_paths(full(1, 1, F64), torch.zeros(1, P, dtype=F64), torch.zeros(1, H, dtype=F64), full(1, sigma, F64), generator=seeded())[0].log()
    t = torch.arange(1, H + 1)
    torch.testing.assert_close(logs.var(0)/sigma**2, (t*(H - t)/H).double(), rtol=.04, atol=1e-9)
    steps = logs.diff(dim=1, prepend=0*logs[:, :1])
    torch.testing.assert_close(steps.var(0)/sigma**2, torch.full((H,), 1 - 1/H, dtype=F64), rtol=.04, atol=0)

@pytest.mark.parametrize("steps", [None, [1, 5, 24], [7]])
def test_a_bridge_to_a_random_end_is_brownian(steps):
    head, one = NeuralBridgeHead(4), full(1, 1, F64)
    said = dict(mu=.1*one, sigma=one, end_sigma=one, knots=torch.zeros(1, 12, dtype=F64))
    logs = head.simulate(said, one, 24, 20_000, scale=.02*one, generator=seeded(), steps=steps)[0].log().numpy()
    for k, t in enumerate(steps or range(1, 25)):
        assert stats.kstest(logs[:, k], "norm", ((.002 - .0002)*t, .02*t**.5)).pvalue > 1e-4
    increments = np.diff(logs, axis=1)
    if len(increments.T) > 1: assert np.abs(np.corrcoef(increments.T) - np.eye(len(increments.T))).max() < 5/20_000**.5

@pytest.mark.parametrize("micro_steps", [1, 2, 12])
@pytest.mark.parametrize("H", [1, 5, 12, 60])
def test_bridge_horizon_and_batch(micro_steps, H):
    "The horizon that is asked for, whatever the knots; several samples with a scale each."
    head = build("neural_bridge", micro_steps=micro_steps)
    scale = torch.tensor([.001, .01, .03])
    said = {k: v.expand(3, *v.shape[1:]) for k, v in head(states_of(1)).items()}
    with torch.no_grad(): paths = head.simulate(said, full(3, 1), H, 20_000, scale=scale, generator=seeded())
    assert paths.shape == (3, 20_000, H)
    spread = paths[..., -1].log().std(1)/scale
    torch.testing.assert_close(spread/spread.mean(), torch.ones(3), atol=.05, rtol=0)

def test_two_volatilities_are_two():
    head, one = NeuralBridgeHead(4), full(1, 1, F64)
    said = dict(mu=0*one, sigma=2*one, end_sigma=.5*one, knots=row(.3, -.1, 0.))
    logs = head.simulate(said, one, 16, 50_000, scale=.01*one, generator=seeded())[0].log()/.01
    t = torch.arange(1, 17, dtype=F64)
    torch.testing.assert_close(logs.var(0), .25*t**2/16 + 4*t*(16 - t)/16, rtol=.04, atol=0)
    mu, sigma = head.curves(said, 16, .01*one)
    torch.testing.assert_close(logs.mean(0)/100, (mu - sigma[:, None]**2/2).cumsum(1)[0], atol=4*.04/50_000**.5, rtol=0)

# Equations ----------------------------------------------------------------------------------------------------------------

class Given(torchsde.BaseBrownian):
    "Increments that we chose, as torchsde asks for them."
    levy_area_approximation, device, dtype, shape = "none", torch.device("cpu"), F64, ()
    def __init__(self, increments, dt): self.increments, self.dt, self.shape, self.dtype = increments, dt, increments.shape[1:], increments.dtype
    def __repr__(self): return "Given"
    def __call__(self, ta, tb=None, return_U=False, return_A=False): return self.increments[round(float(ta)/self.dt)]

class AsTorchSDE(torch.nn.Module):
    noise_type, sde_type = "diagonal", "ito"
    def __init__(self, f, g): super().__init__(); self.f, self.g = f, g

def both(f, g, y0, N, dt, solver, seed=0):
    dw = dt**.5*torch.randn(N, *y0.shape, dtype=y0.dtype, generator=seeded(seed))
    ours = integrate_sde(f, g, y0, [k*dt for k in range(N + 1)], dw, solver)
    theirs = torchsde.sdeint(AsTorchSDE(f, g), y0, torch.arange(N + 1, dtype=y0.dtype)*dt, bm=Given(dw, dt), method=solver, dt=dt)[1:]
    return ours, theirs

@pytest.mark.parametrize("solver", ["euler", "milstein"])
def test_same_noise_same_path_as_torchsde(solver):
    y0 = torch.linspace(-1, 1, 40, dtype=F64)[:, None]
    for f, g in ((lambda t, y: torch.sin(3*y) - t*y, lambda t, y: .3 + .5*torch.cos(y + t)**2), (lambda t, y: -y, lambda t, y: .5*y), (lambda t, y: 1 - y, lambda t, y: torch.ones_like(y))):
        torch.testing.assert_close(*both(f, g, y0, 50, .02, solver), atol=1e-8, rtol=1e-8)

@pytest.mark.parametrize("solver", ["euler", "milstein"])
def test_the_neural_head_is_what_torchsde_makes_of_its_networks(solver):
    "Log price in units of the scale, two samples of eight paths, thirty steps; float32, so that path and gradient agree to 1e-5."
    head, states, P, H, s = build("neural_sde", solver=solver), states_of(2), 8, 30, .01
    with torch.no_grad():
        head.drift_net[-1].weight.normal_(std=.3, generator=seeded(5)); head.diffusion_net[-1].weight.normal_(std=.3, generator=seeded(6))
    said = head(states)
    paths = head.simulate(said, full(2, 1), H, P, scale=full(2, s), generator=seeded())
    dw = torch.empty(H, 2, P).normal_(generator=seeded()).reshape(H, 2*P, 1)
    shaped = lambda y: y.view(2, P)
    g = lambda t, y: head.diffusion(said["diffusion"], t, shaped(y)).reshape(-1, 1)
    f = lambda t, y: head.drift(said["drift"], t, shaped(y)).reshape(-1, 1) - s/2*g(t, y)**2
    theirs = torchsde.sdeint(AsTorchSDE(lambda t, y: f(float(t), y), lambda t, y: g(float(t), y)), torch.zeros(2*P, 1), torch.arange(H + 1.), bm=Given(dw, 1.),
                             method=solver, dt=1.)[1:, :, 0]
    theirs = (s*theirs).exp().view(H, 2, P).permute(1, 2, 0)
    torch.testing.assert_close(paths, theirs, atol=1e-5, rtol=1e-5)
    slopes = [torch.autograd.grad(x.log().square().mean(), head.drift_in.weight, retain_graph=True)[0] for x in (paths, theirs)]
    torch.testing.assert_close(*slopes, atol=1e-7, rtol=1e-3)

@pytest.mark.parametrize("solver, strong", [("euler", .5), ("milstein", 1.), ("srk", 1.)])
def test_strong_order(solver, strong):
    P, fine = 4000, 256
    dw = (1/fine)**.5*torch.randn(fine, P, dtype=F64, generator=seeded(1))
    exact, errors = (-.3 + .8*dw.sum(0) - .32).exp(), []
    for n in (16, 64, 256):
        end = integrate_sde(lambda t, y: -.3*y, lambda t, y: .8*y, torch.ones(P, dtype=F64), [k/n for k in range(n + 1)], dw.view(n, -1, P).sum(1), solver)[-1]
        errors.append((end - exact).abs().mean().item())
    assert math.log(errors[0]/errors[2], 16) == pytest.approx(strong, abs=.12)

@pytest.mark.parametrize("solver", list(SOLVERS))
def test_held_coefficients_fill_in_the_same_noise(solver):
    "With constant coefficients nothing is lost by holding them; with others the stretches' ends are those of the coarse grid."
    H, begins, y0 = 12, [0, 1, 4, 7], torch.zeros(9, dtype=F64)
    dw = torch.randn(H, 9, dtype=F64, generator=seeded())
    times = list(range(H + 1))
    constant = (lambda t, y: .1 + 0*y), (lambda t, y: .5 + 0*y)
    torch.testing.assert_close(integrate_sde(*constant, y0, times, dw, solver, begins), integrate_sde(*constant, y0, times, dw, solver))
    other = (lambda t, y: -.05*y), (lambda t, y: .5 + .1*torch.sin(y + t))
    coarse = integrate_sde(*other, y0, [*begins, H], torch.stack([dw[a:b].sum(0) for a, b in zip(begins, [*begins[1:], H])]), solver)
    torch.testing.assert_close(integrate_sde(*other, y0, times, dw, solver, begins)[[0, 3, 6, 11]], coarse)

@few_examples
@given(H=st.integers(1, 1000), most=st.integers(1, 100))
def test_evaluation_steps(H, most):
    begins = evaluation_steps(H, most)
    stretches = np.diff([*begins, H])
    assert begins[0] == 0 and len(begins) == min(H, most) and (stretches >= 1).all() and stretches.max() <= max(1, 2*H/most + 1)

def test_neural_sde_asks_its_networks_seldom():
    head, calls = build("neural_sde", max_steps=48), []
    head.drift_net.register_forward_hook(lambda *a: calls.append("f")); head.diffusion_net.register_forward_hook(lambda *a: calls.append("g"))
    said = head(states_of(1))
    calls.clear()
    head.simulate(said, full(1, 1), 288, 4, scale=full(1, .01), generator=seeded())
    assert calls.count("f") == calls.count("g") == 48

@pytest.mark.parametrize("solver", list(SOLVERS))
def test_wild_networks_stay_finite(solver):
    "Thirty times the weights: paths within e^±20, gradients finite, at 288 steps in float32."
    head = build("neural_sde", solver=solver, max_steps=24).train()
    with torch.no_grad():
        for p in head.parameters(): p.mul_(30)
        for net in (head.drift_net, head.diffusion_net): net[-1].weight.normal_(std=10, generator=seeded(3))
    paths = head.simulate(head(states_of(3)), full(3, 6e4), 288, 8, scale=full(3, .02), generator=seeded())
    ratio = paths.double()/6e4
    assert ratio.isfinite().all() and ratio.min() >= math.exp(-MAX_LOG_RETURN)*.999 and ratio.max() <= math.exp(MAX_LOG_RETURN)*1.001
    (paths/6e4).log().abs().mean().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())

def test_neural_sde_curves_are_those_of_a_path_that_stays():
    "Networks blind to the price make a volatility a step, and curves knows it."
    head = build("neural_sde")
    with torch.no_grad():
        for layer in (head.drift_in, head.diffusion_in): layer.weight[:, -1] = 0
        for net in (head.drift_net, head.diffusion_net): net[-1].weight.normal_(std=.3, generator=seeded(3))
        said = head(states_of(1))
        mu, sigma = head.curves(said, 30, full(1, .01))
        a = head.simulate(said, full(1, 1), 30, 20_000, scale=full(1, .01), generator=seeded())[0].log()
        b = simulate_horizon_paths(full(1, 1), mu, sigma, 20_000, generator=seeded(1))[0].log()
    assert mu.shape == sigma.shape == (1, 30) and sigma[0, -1]/sigma[0, 0] != 1
    torch.testing.assert_close(a.std(0), b.std(0), rtol=.03, atol=0)
    torch.testing.assert_close((a.mean(0) - b.mean(0))/b.std(0), torch.zeros(30), atol=.04, rtol=0)

def test_the_sde_head_is_brownian():
    head = build("sde")
    said = head(states_of(3))
    paths = head.simulate(said, full(3, 100), 12, 50, scale=full(3, .01), generator=seeded())
    assert torch.equal(paths, simulate_gbm_paths(full(3, 100), *head.curves(said, 12, full(3, .01)), 12, 50, generator=seeded()))
    assert isinstance(head, SDEHead)

# Volatility that lives ------------------------------------------------------------------------------------------------

def test_series_that_are_worked_on_in_parts_are_those_of_the_whole(monkeypatch):
    import synthlab.models.volatility as volatility
    head, states = build("stochastic_volatility", modulated=True), states_of(5)
    torch.nn.init.normal_(head.lively.weight); torch.nn.init.normal_(head.states.weight, std=.1)
    with torch.inference_mode():
        draw = lambda: head.simulate(head(states), full(5, 100), 12, 40, scale=full(5, .01), generator=seeded())
        whole = draw()
        monkeypatch.setattr(volatility, "SPAN", 2*12*40)
        torch.testing.assert_close(draw(), whole, rtol=1e-6, atol=0)

def test_volatility_answers_falls_and_fades():
    "By how much a shock moves later volatility is known in advance: the answers to it, once it is taken out of all that is drawn."
    from synthlab.models.volatility import Dynamics, living_log_volatility, mixture_shocks
    many = 200_000
    world = Dynamics(*(row(*v)[0] for v in ((2, 30), (-.1, -.05), (.03, .02), (.04, .02), (.1, .2))), torch.tensor(.3, dtype=F64), torch.tensor(.2, dtype=F64))
    z, xi = torch.randn(6, 1, many, dtype=F64, generator=seeded()), torch.randn(7, 1, many, dtype=F64, generator=seeded(1))
    shocks = mixture_shocks(z, xi[1:], world.tail, world.skew)
    told = living_log_volatility(shocks, xi, world)[:, 0]
    moved = told - told.mean(1, keepdim=True)
    for later, shock in ((1, 0), (5, 0), (5, 3)):
        x = torch.stack([shocks[shock, 0], shocks[shock, 0].abs(), xi[shock + 1, 0], torch.ones(many, dtype=F64)], 1)
        found = torch.linalg.lstsq(x, moved[later][:, None]).solution[:3, 0]
        decay = (-1/world.memory).exp()**(later - shock - 1)
        want = torch.stack([(a*decay).sum() for a in (world.sign, world.size, world.noise)])
        torch.testing.assert_close(found, want, rtol=0, atol=.004)
    first = (told[0]*xi[0, 0]).mean()
    assert abs(float(first) - .3) < .003

def test_likelihood_is_that_of_an_egarch():
    "One state, normal shocks, nothing unseen: Nelson's EGARCH, whose variances the package arch calculates."
    from arch.univariate import EGARCH
    from synthlab.models.volatility import Dynamics, path_log_likelihood
    beta, alpha, gamma, level = .95, .2, -.1, .3
    answers = lambda x: torch.tensor([x/2], dtype=F64)                  # arch speaks of variances, and of the shock of the same step
    world = Dynamics(torch.tensor([-1/math.log(beta)], dtype=F64), answers(gamma), answers(alpha), answers(0.), answers(0.), torch.tensor(0., dtype=F64),
                     torch.tensor(0., dtype=F64))
    seen = torch.randn(1, 40, dtype=F64, generator=seeded())
    sign, size, *_ = (world.responses(40)**2).split([40, 40, 40, 1], 1)
    known = sign.sum(1) + size.sum(1)*(1 - 2/math.pi)                   # what is taken off, so that the curve is the volatility that is meant
    curve = torch.exp(level + known)
    ours = path_log_likelihood(seen*math.exp(level)/curve, world)[0] - curve.log()
    returns, variance = (seen[0]*math.exp(level)).numpy(), np.empty(40)
    EGARCH(1, 1, 1).compute_variance(np.array([2*level*(1 - beta), alpha, gamma, beta]), returns, variance, 2*level, np.tile([1e-9, 1e9], (40, 1)))
    np.testing.assert_allclose(ours.numpy(), -.5*(np.log(2*np.pi) + np.log(variance) + returns**2/variance), rtol=1e-9)

@pytest.mark.parametrize("tail, skew, elongation", [(0., 0., 0.), (.2, .1, .03), (.4, -.3, 0.), (.25, .2, .15)])
def test_density_of_shocks_is_the_integral(tail, skew, elongation):
    "Over roughness, by SciPy's adaptive rule."
    from scipy import integrate, stats
    from synthlab.models.volatility import shock_log_density
    power = lambda k: integrate.quad(lambda x: math.exp(k*(tail*x + elongation*x*x))*stats.norm.pdf(x), -30, 30, limit=200)[0]
    unit, first = power(2)**.5, power(1)/power(2)**.5
    scale = (1 + skew**2*(1 - first**2))**-.5
    def density(y):
        def at(x):
            rough = math.exp(tail*x + elongation*x*x)/unit
            return stats.norm.pdf(y, skew*scale*(first - rough), rough*scale)*stats.norm.pdf(x)
        return integrate.quad(at, -12, 12, limit=200)[0]
    y = np.array([-6., -3., -1., 0., .5, 2., 5.])
    ours = shock_log_density(torch.from_numpy(y), tail, skew, elongation).exp().numpy()
    np.testing.assert_allclose(ours, [density(v) for v in y], rtol=.07 if elongation > .1 else .01)
