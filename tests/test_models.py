"Simulators against closed forms, heads and backbones against what they promise, baselines against arch, and the registry against malice."
import builtins, contextlib, copy, json, math, sys, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from torch import nn

from synthlab.models.baselines import GARCH, BlockBootstrap, GJRGARCH, log_returns, looks_ahead
from synthlab.models.blocks import CustomAttention, GatedMLP, IdentityBlock, LayerNormBlock, LSTMBlock, TransformerBlock
from synthlab.models.heads import GBMHead, StudentTHead
from synthlab.models.registry import BlockInfo, ConfigError, Registry, UnknownName, create, registry
from synthlab.models.simulate import (MAX_LOG_RETURN, simulate_gbm_paths, simulate_horizon_paths, simulate_student_t_paths,
    student_t_scale)
from synthlab.models.skew import SkewStudentTHead
from synthlab.models.synth import HybridBackbone, SynthModel, create_model, recipe_hash

REFERENCE = Path(__file__).parents[2]/"shared/reference"
property_test = settings(deadline=None, derandomize=True, max_examples=60)
F64 = torch.float64

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def count(module): return sum(p.numel() for p in module.parameters())
def full(n, value, dtype=F64): return torch.full((n,), float(value), dtype=dtype)

# Simulators ----------------------------------------------------------------------------------------------------------

SIMULATORS = {
    "gbm": lambda p0, mu, sigma, H, P, **o: simulate_gbm_paths(p0, mu, sigma, H, P, **o),
    "horizon": lambda p0, mu, sigma, H, P, **o: simulate_horizon_paths(p0, mu[:, None].expand(-1, H), sigma[:, None].expand(-1, H), P, **o),
    "t shared": lambda p0, mu, sigma, H, P, **o: simulate_student_t_paths(p0, mu, sigma, 5., H, P, shared=True, **o),
    "t each step": lambda p0, mu, sigma, H, P, **o: simulate_student_t_paths(p0, mu, sigma, 5., H, P, shared=False, **o),
}
each_simulator = pytest.mark.parametrize("name", SIMULATORS)

@each_simulator
def test_same_generator_state_same_paths(name):
    simulate, p0, mu, sigma = SIMULATORS[name], full(3, 100), full(3, 0), full(3, .01)
    g = seeded()
    first, second = (simulate(p0, mu, sigma, 12, 50, generator=g) for _ in range(2))
    again = simulate(p0, mu, sigma, 12, 50, generator=seeded())
    assert first.shape == (3, 50, 12) and torch.equal(first, again) and not torch.equal(first, second)

@each_simulator
def test_no_global_random_number(name):
    before = torch.get_rng_state()
    SIMULATORS[name](full(3, 100), full(3, 0), full(3, .01), 12, 50, generator=seeded())
    assert torch.equal(before, torch.get_rng_state())

@each_simulator
@pytest.mark.parametrize("steps", [None, [1], [12], [2, 3, 12]])
def test_asking_for_a_gradient_changes_no_path(name, steps):
    mu, sigma = full(3, 0), full(3, .01)
    plain = SIMULATORS[name](full(3, 100), mu, sigma, 12, 50, generator=seeded(), steps=steps)
    tracked = SIMULATORS[name](full(3, 100), mu.clone().requires_grad_(), sigma.clone().requires_grad_(), 12, 50, generator=seeded(), steps=steps)
    assert tracked.requires_grad and torch.equal(plain, tracked.detach())

@each_simulator
@pytest.mark.parametrize("steps", [None, [12], [2, 3, 12]])
def test_gradients(name, steps):
    torch.manual_seed(0)
    values = [torch.rand(2, dtype=F64).add(k).requires_grad_() for k in (1., -.5, .05)]
    assert torch.autograd.gradcheck(lambda p0, mu, sigma: SIMULATORS[name](p0, mu/10, sigma/5, 12, 3, generator=seeded(), steps=steps), values)

@pytest.mark.parametrize("shared", [True, False])
def test_gradients_of_a_volatility_a_step(shared):
    mu, sigma = (torch.rand(2, 6, dtype=F64, generator=seeded(s)).div(5).add(.01).requires_grad_() for s in (1, 2))
    for steps in (None, [2, 5]):
        assert torch.autograd.gradcheck(lambda m, s: simulate_horizon_paths(full(2, 1), m, s, 3, generator=seeded(), steps=steps), (mu, sigma))
        assert torch.autograd.gradcheck(lambda m, s: simulate_student_t_paths(full(2, 1), m, s, 5., 6, 3, generator=seeded(), shared=shared, steps=steps), (mu, sigma))

def test_steps_of_no_volatility_are_no_trouble():
    "The variance between two steps is a sum, never a difference that rounding could make negative."
    sigma = torch.tensor([[3., 1e-6, 0., 0., 1e-6, 0.]], requires_grad=True)
    paths = simulate_horizon_paths(torch.ones(1), torch.zeros(1, 6), sigma, 50, generator=seeded(), steps=[1, 3, 4, 6])
    paths.log().sum().backward()
    assert paths.isfinite().all() and sigma.grad.isfinite().all()

@pytest.mark.parametrize("shared", [True, False])
def test_gradient_of_nu(shared):
    "Against a difference of means: the mean absolute log return is a smooth function of nu."
    nu, n = full(1, 4.).requires_grad_(), 400_000
    def spread(v): return simulate_student_t_paths(full(1, 1), 5e-5, .01, v, 1, n, generator=seeded(), shared=shared).log().abs().mean()
    exact = lambda v: .01*stats.t(v).expect(abs, epsabs=1e-10)*math.sqrt((v - 2)/v)
    slope = torch.autograd.grad(spread(nu), nu)[0].item()
    assert slope == pytest.approx((exact(4.01) - exact(3.99))/.02, rel=.02)

def test_unused_gradients_are_not_needed():
    sigma = full(2, .01).requires_grad_()
    simulate_gbm_paths(full(2, 1), 0., sigma, 3, 4, generator=seeded()).sum().backward()
    assert sigma.grad.isfinite().all()
    p0 = full(2, 5).requires_grad_()
    paths = simulate_gbm_paths(p0, 0., .01, 3, 4, generator=seeded())
    paths.sum().backward()
    torch.testing.assert_close(p0.grad, (paths/p0[:, None, None]).sum((1, 2)).detach())

@pytest.mark.parametrize("steps", [None, [3, 7, 20]])
@pytest.mark.parametrize("dt", [1., .25])
def test_gbm_is_lognormal(steps, dt):
    mu, sigma = .03, .2
    logs = simulate_gbm_paths(full(1, 7), mu, sigma, 20, 20_000, dt, seeded(), steps=steps)[0].div(7).log().numpy()
    for k, step in enumerate(steps or range(1, 21)):
        p = stats.kstest(logs[:, k], "norm", ((mu - sigma**2/2)*dt*step, sigma*math.sqrt(dt*step))).pvalue
        assert p > 1e-4, step

def test_increments_are_independent():
    logs = simulate_gbm_paths(full(1, 1), 0., .01, 10, 50_000, generator=seeded())[0].log()
    corr = np.corrcoef(np.diff(logs.numpy()).T)
    assert np.abs(corr - np.eye(9)).max() < 5/50_000**.5

@pytest.mark.parametrize("steps", [None, [2, 5, 6]])
def test_a_volatility_a_step_is_lognormal(steps):
    mu, sigma = torch.tensor([[.1, -.1, .2, 0., .3, 0.]], dtype=F64), torch.tensor([[.1, .5, 0., .2, .3, .1]], dtype=F64)
    logs = simulate_horizon_paths(full(1, 1), mu, sigma, 20_000, generator=seeded(), steps=steps)[0].log().numpy()
    for k, step in enumerate(steps or range(1, 7)):
        mean, var = float((mu - sigma**2/2)[0, :step].sum()), float((sigma**2)[0, :step].sum())
        assert stats.kstest(logs[:, k], "norm", (mean, var**.5)).pvalue > 1e-4

def test_a_shared_scale_is_t_at_every_horizon():
    nu, sigma = 4., .01
    logs = simulate_student_t_paths(full(1, 1), sigma**2/2, sigma, nu, 12, 20_000, generator=seeded())[0].log().numpy()
    for step in (1, 5, 12):
        scale = sigma*math.sqrt(step)*math.sqrt((nu - 2)/nu)
        assert stats.kstest(logs[:, step - 1], "t", (nu, 0, scale)).pvalue > 1e-4

def test_a_scale_a_step_is_t_at_each_step_and_nearly_normal_in_sum():
    nu, sigma = 5., .01
    logs = simulate_student_t_paths(full(1, 1), sigma**2/2, sigma, nu, 50, 20_000, generator=seeded(), shared=False)[0].log().numpy()
    steps = np.diff(logs)
    for k in (0, 20, 48): assert stats.kstest(steps[:, k], "t", (nu, 0, sigma*math.sqrt((nu - 2)/nu))).pvalue > 1e-4
    assert abs(stats.kurtosis(logs[:, -1])) < .6 < stats.kurtosis(steps[:, 0])
    assert abs(np.corrcoef(steps[:, 0]**2, steps[:, 1]**2)[0, 1]) < .05
    again = simulate_student_t_paths(full(1, 1), sigma**2/2, sigma, nu, 50, 20_000, generator=seeded(), shared=False, steps=[3, 50])[0].log().numpy()
    np.testing.assert_allclose(again, logs[:, [2, 49]], rtol=1e-9)

def test_t_becomes_normal():
    z = student_t_scale(full(1, 1e7), (1, 1000), seeded())
    torch.testing.assert_close(z, torch.ones_like(z), atol=3e-3, rtol=0)

@each_simulator
def test_scale_equivariance(name):
    simulate, mu, sigma = SIMULATORS[name], full(2, .001), full(2, .02)
    paths = simulate(full(2, 3.), mu, sigma, 12, 40, generator=seeded())
    torch.testing.assert_close(simulate(full(2, 3e6), mu, sigma, 12, 40, generator=seeded()), 1e6*paths, rtol=1e-12, atol=0)
    torch.testing.assert_close(simulate(full(2, 3.), 4*mu, 2*sigma, 12, 40, dt=.25, generator=seeded()), paths, rtol=1e-12, atol=0)

@each_simulator
def test_batch_members_do_not_influence_each_other(name):
    "Same noise, other drift, volatility and price in the other rows: this row's paths keep every bit."
    simulate = SIMULATORS[name]
    mu, sigma, p0 = torch.tensor([.0, .1, .2]).double(), torch.tensor([.01, .02, .03]).double(), torch.tensor([1., 2., 3.]).double()
    other = [v.clone() for v in (p0, mu, sigma)]
    for v in other: v[[0, 2]] *= 7
    a, b = simulate(p0, mu, sigma, 12, 40, generator=seeded()), simulate(*other, 12, 40, generator=seeded())
    assert torch.equal(a[1], b[1]) and not torch.equal(a[0], b[0])

@each_simulator
def test_spread_does_not_depend_on_the_number_of_members(name):
    n = 3000
    few, many = (SIMULATORS[name](full(n, 1), full(n, 0), full(n, .01), 12, P, generator=seeded(P), steps=[12])[..., 0].log() for P in (64, 512))
    few, many = few.var(1), many.var(1)         # unbiased: equal in expectation, whatever P
    assert abs(few.mean() - many.mean()) < 4*(few.var()/n + many.var()/n)**.5

@each_simulator
def test_members_are_exchangeable_and_independent(name):
    x = SIMULATORS[name](full(4000, 1), full(4000, 0), full(4000, .01), 3, 6, generator=seeded())[..., 2].log()
    corr = torch.corrcoef(x.T) - torch.eye(6)
    assert corr.abs().max() < 5/4000**.5
    assert torch.corrcoef((x - x.mean()).abs().T).sub(torch.eye(6)).abs().max() < 5/4000**.5

@property_test
@given(mu=st.floats(-1e3, 1e3), sigma=st.floats(0, 1e3), H=st.integers(1, 40), nu=st.floats(2.001, 100), seed=st.integers(0, 99))
def test_float32_never_overflows(mu, sigma, H, nu, seed):
    p0 = torch.tensor([6e4, 1e-6])
    for paths in (simulate_gbm_paths(p0, mu, sigma, H, 7, generator=seeded(seed)), simulate_student_t_paths(p0, mu, sigma, nu, H, 7, generator=seeded(seed))):
        ratio = paths.double()/p0.double()[:, None, None]
        assert paths.dtype == torch.float32 and ratio.isfinite().all()
        assert ratio.min() >= math.exp(-MAX_LOG_RETURN)*.999 and ratio.max() <= math.exp(MAX_LOG_RETURN)*1.001

@property_test
@given(B=st.integers(1, 4), P=st.integers(1, 40), H=st.integers(1, 9), data=st.data())
def test_shapes(B, P, H, data):
    steps = sorted(data.draw(st.sets(st.integers(1, H), min_size=1)))
    for simulate in SIMULATORS.values():
        paths = simulate(full(B, 2), full(B, 0), full(B, .1), H, P, generator=seeded(), with_start=True, steps=steps)
        assert paths.shape == (B, P, len(steps) + 1) and (paths[:, :, 0] == 2).all()
        assert paths.transpose(1, 2).is_contiguous()          # members are stored last

@pytest.mark.parametrize("options, message", [
    (dict(horizon=0), "at least 1"), (dict(horizon=2.5), "whole number"), (dict(steps=[0, 1]), "between 1 and the horizon 12"),
    (dict(steps=[13]), "between 1"), (dict(steps=[2, 2]), "must increase"), (dict(steps=[]), "must increase"),
    (dict(mu=torch.zeros(3)), "3 values for 2 initial prices"), (dict(sigma=torch.zeros(2, 5)), "sigma has 5 steps and the horizon is 12")])
def test_simulators_refuse(options, message):
    given = dict(mu=0., sigma=.01, horizon=12) | options
    with pytest.raises(ValueError, match=message): simulate_gbm_paths(torch.ones(2), given.pop("mu"), given.pop("sigma"), given.pop("horizon"), 5, **given)

@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@each_simulator
def test_on_a_gpu(name):
    to = lambda v: v.float().cuda().requires_grad_()
    mu, sigma = to(full(2, 0)), to(full(2, .01))
    paths = SIMULATORS[name](full(2, 1).float().cuda(), mu, sigma, 12, 20_000, generator=torch.Generator("cuda").manual_seed(0))
    paths.log()[..., -1].std(1).sum().backward()
    assert paths.is_cuda and torch.allclose(paths.detach().log()[..., -1].std(1), torch.tensor(.01*12**.5).cuda(), rtol=.03)
    assert torch.allclose(sigma.grad, torch.tensor(12**.5).cuda(), rtol=.05)

# Blocks and heads ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("build, params", [
    (lambda: CustomAttention(32), 4224), (lambda: GatedMLP(32), 8384), (lambda: TransformerBlock(32), 12_736), (lambda: LSTMBlock(32), 8448),
    (lambda: LSTMBlock(32, 2), 16_896), (lambda: LayerNormBlock(32), 64), (lambda: IdentityBlock(), 0), (lambda: GBMHead(32), 130),
    (lambda: StudentTHead(32), 163), (lambda: SkewStudentTHead(32), 68),
    (lambda: HybridBackbone(3, 32, ["transformer", "lstm"]), 128 + 12_736 + 8448)])
def test_parameter_counts(build, params): assert count(build()) == params

HEADS = [{"name": "gbm"}, {"name": "student_t"}, {"name": "student_t", "shared": False}, {"name": "skew_t"}, {"name": "vol_term_structure"},
         {"name": "stochastic_volatility"}, {"name": "stochastic_volatility", "modulated": True}, {"name": "stochastic_volatility", "shocks": "residuals"}, {"name": "simple_horizon"}, {"name": "horizon"}, {"name": "spectral", "mode": "hybrid_ou"}, {"name": "student_t_horizon"}]

@pytest.mark.parametrize("config", HEADS, ids=str)
def test_every_head_starts_at_the_scale_and_works_in_its_units(config):
    torch.manual_seed(0)
    head = create("head", config, latent_size=16).double()
    scale, said = torch.logspace(-4, -1, 40, dtype=F64), head(torch.randn(40, 3, 16, dtype=F64))
    mu, sigma = head.curves(said, 12, scale)
    ratio = sigma/(scale if sigma.ndim == 1 else scale[:, None])
    assert (ratio - 1).abs().max() < .25 and (mu.abs() <= .3*(scale if mu.ndim == 1 else scale[:, None])).all()
    paths = head.simulate(said, full(40, 5), 12, 4000, scale=scale, generator=seeded())
    spread = paths[..., -1].div(5).log().std(1)/scale/12**.5
    assert (spread - 1).abs().max() < .35

@pytest.mark.parametrize("config", HEADS, ids=str)
def test_every_head_learns_from_two_steps(config):
    torch.manual_seed(0)
    head = create("head", config, latent_size=16)
    paths = head.simulate(head(torch.randn(8, 3, 16)), full(8, 5, torch.float32), 12, 50, scale=full(8, .01, torch.float32), generator=seeded(), steps=[3, 12])
    assert paths.shape == (8, 50, 2)
    (paths - 5).pow(2).mean().backward()
    for name, p in head.named_parameters(): assert p.grad is not None and p.grad.abs().sum() > 0, name

# Model ---------------------------------------------------------------------------------------------------------------

CONFIG = {"backbone": {"input_size": 3, "d_model": 16, "blocks": [{"name": "transformerblock", "nhead": 4}, "lstmblock"]}, "head": {"name": "student_t"}}

def test_windows_of_a_batch_are_independent():
    model = create_model(CONFIG, seed=0).double().eval()
    history, price, scale = torch.randn(4, 30, 3, dtype=F64, generator=seeded()), full(4, 100), full(4, .01)
    other = torch.randn(4, 30, 3, dtype=F64, generator=seeded(1)); other[2] = history[2]
    a, b = (model(h, price, 6, 30, scale=scale, generator=seeded())[0] for h in (history, other))
    torch.testing.assert_close(a[2], b[2], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(a[0], b[0], rtol=1e-6)

def test_creating_a_model_leaves_no_trace():
    state, threads = torch.get_rng_state(), torch.is_grad_enabled()
    a, b = create_model(CONFIG, seed=3), create_model(CONFIG, seed=3)
    assert torch.equal(state, torch.get_rng_state()) and threads == torch.is_grad_enabled()
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert a.training and all(m.training for m in a.modules())

def test_the_trial_touches_no_buffer_and_no_training_mode():
    class Counting(nn.Module):
        def __init__(self): super().__init__(); self.norm = nn.BatchNorm1d(16); self.register_buffer("calls", torch.zeros(()))
        def forward(self, x):
            assert not self.training
            self.calls += 1
            return self.norm(x.transpose(1, 2)).transpose(1, 2)
    block = Counting()
    model = SynthModel(HybridBackbone(3, 16, [block]), GBMHead(16))
    from synthlab.models.synth import try_model
    try_model(model)
    assert block.calls == 0 and block.norm.num_batches_tracked == 0 and model.training

def test_a_head_that_does_not_draw_from_the_seed_is_refused():
    "It would train, and answer otherwise each time that it is asked."
    class Elsewhere(GBMHead):
        def simulate(self, parameters, initial_price, horizon, n_paths, dt=1., scale=None, generator=None, steps=None):
            return super().simulate(parameters, initial_price, horizon, n_paths, dt, scale, None, steps)
    class Short(GBMHead):
        def simulate(self, parameters, initial_price, horizon, n_paths, dt=1., scale=None, generator=None): return None
    from synthlab.models.synth import try_model
    with pytest.raises(ConfigError, match="the same seed gives other paths; draw from the generator"): try_model(SynthModel(HybridBackbone(3, 16, ["lstm"]), Elsewhere(16)))
    with pytest.raises(ConfigError, match=r"unexpected keyword argument 'steps'$"): try_model(SynthModel(HybridBackbone(3, 16, ["lstm"]), Short(16)))

def test_a_horizon_beyond_the_head_is_an_error():
    class Short(GBMHead): horizon_max = 8
    model = SynthModel(HybridBackbone(3, 16, ["lstm"]), Short(16))
    with pytest.raises(ValueError, match="horizon=9 is beyond the 8 steps that Short was made for"): model(torch.zeros(2, 5, 3), torch.ones(2), 9, 4)

@property_test
@given(st.recursive(st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=4), max_leaves=12))
def test_recipe_hash_ignores_the_order_of_keys(recipe):
    def turned(x):
        if isinstance(x, dict): return {k: turned(x[k]) for k in reversed(x)}
        return [turned(v) for v in x] if isinstance(x, list) else x
    assert recipe_hash(recipe) == recipe_hash(turned(recipe)) and len(recipe_hash(recipe)) in (2, 12)

def test_recipe_hash_numbers():
    assert recipe_hash([]) == "97d170e1550e" and recipe_hash([{"name": "lstm", "d_model": 32}]) == "d7dfcfba2346"

# Registry ------------------------------------------------------------------------------------------------------------

DANGEROUS = ("os.system", "os.popen", "os.remove", "os.execv", "posix.system", "subprocess.run", "subprocess.Popen", "shutil.rmtree", "builtins.eval",
             "builtins.exec", "builtins.open", "builtins.__import__", "importlib.import_module", "runpy.run_path", "pickle.loads", "pickle.load",
             "torch.load", "torch.hub.load", "torch.jit.load", "torch.nn.LSTM", "numpy.load", "pandas.read_pickle", "joblib.load", "yaml.unsafe_load",
             "ctypes.CDLL", "socket.socket", "urllib.request.urlopen", "webbrowser.open", "code.interact", "pdb.set_trace", "hydra.utils.instantiate",
             "hydra.utils.get_method", "functools.partial", "operator.attrgetter", "antigravity.fly", "this_module_does_not_exist.fn", "__main__.anything",
             "synthlab.models.registry.create", "synthlab.models.synth.create_model", "nn.Module", "..", ".", "", "os.system\x00gbm", "gbm.", "gbm; import os")

@contextlib.contextmanager
def nothing_imported():
    "Importing anything that is not loaded yet fails, and afterwards nothing is loaded that was not before."
    loaded, real = set(sys.modules), builtins.__import__
    def refuse(name, *args, **kwargs):
        if name not in loaded: raise AssertionError(f"tried to import {name}")
        return real(name, *args, **kwargs)
    builtins.__import__ = refuse
    try: yield
    finally: builtins.__import__ = real
    assert set(sys.modules) == loaded

def configurations(target):
    "The target at every place of a model's configuration."
    bad = {"_target_": target, "command": "exit 1"}
    yield bad | CONFIG
    yield CONFIG | {"head": bad}
    yield CONFIG | {"backbone": bad}
    yield CONFIG | {"backbone": CONFIG["backbone"] | {"blocks": ["lstm", bad]}}
    yield CONFIG | {"backbone": CONFIG["backbone"] | {"d_model": bad}}
    yield CONFIG | {"head": {"name": "gbm", "sigma": {"deep": [bad]}}}

@pytest.mark.parametrize("target", DANGEROUS)
def test_dangerous_targets_are_refused_before_any_import(target):
    for config in configurations(target):
        with nothing_imported(), pytest.raises(ConfigError): create_model(config)
    for config in ({"name": target}, {"_target_": target}, target):
        with nothing_imported(), pytest.raises(ConfigError): create("block", config)

def nested(depth):
    x = "lstm"
    for _ in range(depth): x = [x]
    return x
def itself():
    x = copy.deepcopy(CONFIG); x["backbone"]["blocks"].append(x); return x
def laughs():
    x = ["lol"]*10
    for _ in range(9): x = [x]*10
    return {"backbone": x, "head": "gbm"}

@pytest.mark.parametrize("config, message", [
    (itself(), "contain itself"), (nested(500), "nested deeper|mapping"), (laughs(), "more than 10,000 entries"),
    (CONFIG | {"backbone": CONFIG["backbone"] | {"blocks": ["lstm"]*10**6}}, "list of 1,000,000 entries"),
    (CONFIG | {"backbone": CONFIG["backbone"] | {"d_model": 10**15}}, "not a number between"),
    (CONFIG | {"backbone": CONFIG["backbone"] | {"d_model": float("nan")}}, "not a number|takes an int"),
    (CONFIG | {"backbone": CONFIG["backbone"] | {"d_model": "16"}}, "takes an int, not '16'"),
    (CONFIG | {"backbone": CONFIG["backbone"] | {"d_model": True}}, "takes an int, not True"),
    (CONFIG | {"backbone": CONFIG["backbone"] | {"blocks": "lstm"}}, "takes a list, not 'lstm'"),
    (CONFIG | {"head": print}, "does not belong in a configuration"), (CONFIG | {"head": b"gbm"}, "does not belong"),
    (CONFIG | {"head": {"name": "gbm", "_args_": [1]}}, "_args_ is not supported"), (CONFIG | {"head": {"name": "gbm", "_target_": "gbm"}}, "either"),
    (CONFIG | {"head": {"name": "gbm", "__class__": "x"}}, "__class__ is not supported"), (CONFIG | {"head": {}}, "give either"),
    (CONFIG | {"head": {1: 2}}, "the key 1 is not text"), ({"backbone": CONFIG["backbone"]}, "model needs head"), ({}, "needs backbone and head"),
    ([], "write a mapping"), (None, "write a mapping"), (7, "write a mapping"), (CONFIG | {"head": "lstm"}, "no head named 'lstm'")])
def test_malformed_configurations_are_refused_in_one_sentence(config, message):
    with pytest.raises(ConfigError, match=message) as e: create_model(config)
    assert len(str(e.value)) < 300 and "\n" not in str(e.value)

def test_a_registered_name_is_found_without_looking_at_its_path():
    with nothing_imported(): assert registry.get_info("no.such.place.GBMHead", "head").cls is GBMHead
    for spelling in ("LSTMBlock", "lstmblock", "lstm", "LSTM", "a.b.LSTMBlock"): assert registry.get_info(spelling, "block").cls is LSTMBlock
    for spelling in ("student_t", "StudentT", "StudentTHead", "student-t"): assert registry.get_info(spelling, "head").cls is StudentTHead

def test_registry():
    lab = Registry()
    assert lab.summary() == "No registered entries." and lab.list_blocks() == []
    @lab.register_block(preserves_seq_len=False, min_seq_len=4, cost="high", description="d")
    class MyBlock: pass
    info = lab.get_info("myblock")
    assert info == BlockInfo("myblock", MyBlock, "block", "d", False, True, 4, __name__, "high") and MyBlock.min_seq_len == 4
    with pytest.raises(AttributeError): info.name = "x"
    lab.register_block()(MyBlock)
    with pytest.raises(ValueError, match="is taken by"): lab.register_block("MYBLOCK")(type("Other", (), {}))
    with pytest.raises(KeyError, match="did you mean my"): lab.get_info("myblok")
    with pytest.raises(UnknownName, match="did you mean block"): lab.list_blocks("blok")
    with pytest.raises(AttributeError): lab.nothing
    lab.register_component()(type("Part", (), {}))
    assert [i.name for i in lab.list_blocks()] == ["myblock", "part"] and lab.MyBlock is MyBlock
    assert lab.summary().splitlines()[0].split() == ["Name", "Kind", "Seq", "Dim", "MinS", "Description"]

@pytest.mark.parametrize("kind", ["family", "encoder", "decoder", "latent", "loss", "event_source", "lab"])
def test_a_kind_costs_no_new_decorator(kind):
    own = Registry()
    with pytest.raises(UnknownName, match=f"no kind '{kind}'"): own.list_blocks(kind)
    maker = own.register(kind, "first", description="d", needs="nothing")
    with pytest.raises(UnknownName, match=f"no kind '{kind}'"): own.get_info("first", kind)     # nothing is registered yet
    made = maker(type("Whatever", (), {}))
    info = own.get_info("First", kind)
    assert (info.cls, info.kind, info.description, info.facts) == (made, kind, "d", {"needs": "nothing"})
    assert own.get_info("whatever", kind) is info is own.get_info("first_" + kind, kind) and own.list_blocks(kind) == [info]
    with pytest.raises(UnknownName, match=f"no {kind} named 'frist'; did you mean first"): own.get_info("frist", kind)
    with pytest.raises(ValueError, match="is taken by"): own.register(kind, "First")(type("Other", (), {}))
    assert isinstance(create(kind, "first", registry=own), made) and kind in own.kinds and kind not in Registry().kinds

def test_a_finished_object_is_an_entry_too():
    class Lab: pass
    own, one, two = Registry(), Lab(), Lab()
    assert own.register("lab", "one")(one) is one and own.register("lab", "two")(two) is two
    assert own.get_info("one", "lab").cls is one and own.get_info("two").cls is two and own.get_info("one").source_module == __name__
    with pytest.raises(UnknownName): own.get_info("lab", "lab")         # the class of an object is not its name
    with pytest.raises(ValueError, match="needs a name"): own.register("lab")(one)
    with pytest.raises(ConfigError, match="lab one is made already"): create("lab", "one", registry=own)
    elsewhere = {"own": own, "Lab": Lab, "__name__": "elsewhere"}
    with pytest.raises(ValueError, match="lab 'one' is taken by tests.test_models|lab 'one' is taken by test_models"):
        exec("own.register('lab', 'one')(Lab())", elsewhere)
    assert own.get_info("one", "lab").cls is one

# Baselines -----------------------------------------------------------------------------------------------------------

BASELINES = ("constant", "bootstrap", "ewma", "garch", "gjr")

@pytest.fixture(scope="module")
def series():
    "A GJR-GARCH with fat tails, 3000 closes."
    rng, v, r = np.random.default_rng(0), 1e-4, np.empty(3000)
    for t in range(3000):
        r[t] = v**.5*rng.standard_t(6)*(4/6)**.5
        v = 2e-6 + (.03 + .1*(r[t] < 0))*r[t]**2 + .9*v
    return 100*np.exp(r.cumsum())

@pytest.fixture(scope="module")
def fitted(series): return {name: create("baseline", name).fit(series[:2000]) for name in BASELINES}

def test_the_five_are_registered(): assert {i.name for i in registry.list_blocks("baseline")} == set(BASELINES)

@pytest.mark.parametrize("name", BASELINES)
def test_baselines_do_not_look_ahead(name, series, fitted):
    assert not any(looks_ahead(fitted[name], series, row) for row in (30, 1999, 2500, 2998))

@pytest.mark.parametrize("name", BASELINES)
def test_a_later_price_changes_no_earlier_path(name, series, fitted):
    "One later price at a time, by a hair or a lot; and the series cut off at the decision."
    rows, simulate = np.array([100, 2100, 2400]), lambda c: fitted[name].simulate(c, rows, 7, 9, seeded())
    before = simulate(series)
    for at in (2401, 2402, 2999):
        for factor in (1 + 1e-12, 3.):
            other = series.copy(); other[at] *= factor
            assert torch.equal(simulate(other), before)
    other = series.copy(); other[2401:] = np.nan
    assert torch.equal(simulate(other), before) and torch.equal(simulate(series[:2401]), before)
    changed = series.copy(); changed[2300] *= 1.2
    assert torch.equal(simulate(changed)[:2], before[:2])
    if name in ("ewma", "garch", "gjr"): assert not torch.equal(simulate(changed)[2], before[2])

def test_the_leak_check_catches_a_leak(series):
    class Prophet(BlockBootstrap):
        def paths(self, start, r, count, *rest): return super().paths(start, r, np.full_like(count, len(r)), *rest)
    assert looks_ahead(Prophet().fit(series[:2000]), series, 2500)

@pytest.mark.parametrize("name", BASELINES)
def test_baselines_repeat_scale_and_carry_on(name, series, fitted):
    rows, b = [2100, 2500], fitted[name]
    paths = b.simulate(series, rows, 12, 50, seeded())
    assert paths.shape == (2, 50, 12) and paths.dtype == torch.float32 and (paths > 0).all()
    assert torch.equal(b.simulate(series, rows, 12, 50, seeded()), paths)
    assert not torch.equal(b.simulate(series, rows, 12, 50, seeded(1)), paths)
    torch.testing.assert_close(b.simulate(1000*series, rows, 12, 50, seeded()), 1000*paths, rtol=1e-5, atol=0)
    again = create("baseline", name).load_state(json.loads(json.dumps(b.state())))
    assert torch.equal(again.simulate(series, rows, 12, 50, seeded()), paths)

@pytest.mark.parametrize("name", BASELINES)
def test_baselines_across_a_gap(name, series):
    "A price that jumps where the segment changes is no return: parameters and paths are those of the whole series."
    at = 1000
    segment, jump = (np.arange(3000) >= at).astype(int), np.where(np.arange(3000) >= at, 50., 1.)
    r = log_returns(series*jump, segment)
    assert np.isnan(r[at]) and np.nanmax(np.abs(r)) < .2
    whole, holed = create("baseline", name).fit(series[:2000]), create("baseline", name).fit((series*jump)[:2000], segment[:2000])
    a, b = whole.simulate(series, [2500], 12, 2000, seeded()), holed.simulate(series*jump, [2500], 12, 2000, seeded(), segment)/50
    assert a[..., -1].std().item() == pytest.approx(b[..., -1].std().item(), rel=.05)

@pytest.mark.parametrize("name", BASELINES)
def test_baselines_refuse(name, series, fitted):
    new = create("baseline", name)
    with pytest.raises(RuntimeError, match="has not been fitted"): new.simulate(series, [5], 3, 3)
    with pytest.raises(ValueError, match="too few"): new.fit(series[:10])
    with pytest.raises(ValueError, match="never moves"): new.fit(np.ones(100))
    with pytest.raises(ValueError, match=r"close\[3\] is not positive"): new.fit(np.r_[1., 2, 3, 0, 5])
    with pytest.raises(ValueError, match="rows must lie between"): fitted[name].simulate(series, [3000], 3, 3)
    hole = series.copy(); hole[2500] = np.nan
    with pytest.raises(ValueError, match="row 2500 has no close"): fitted[name].simulate(hole, [2500], 3, 3)
    assert fitted[name].simulate(hole, [2600], 3, 3, seeded()).isfinite().all()

def test_garch_recovers_a_garch(fitted):
    gjr = fitted["gjr"]
    assert gjr.converged and gjr.beta == pytest.approx(.9, abs=.04) and gjr.gamma == pytest.approx(.1, abs=.05)
    assert gjr.nu == pytest.approx(6, abs=2) and gjr.alpha + gjr.gamma/2 + gjr.beta < 1

@pytest.mark.parametrize("kind", [GARCH, GJRGARCH])
@pytest.mark.parametrize("errors", ["t", "normal"])
def test_our_filter_and_simulation_are_those_of_arch(kind, errors, series):
    "Conditional variance of every day and the forecast from the last, by arch with our parameters."
    from arch import arch_model
    r = log_returns(series)[1:]
    b = kind(errors).fit(series)
    params = [b.mu, b.omega, b.alpha] + [b.gamma]*b.asymmetric + [b.beta] + [b.nu]*(errors == "t")
    model = arch_model(r, p=1, o=int(b.asymmetric), q=1, dist=errors, rescale=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fixed = model.fix(params)
    np.testing.assert_allclose(b.variance(r)[:-1], fixed.conditional_volatility**2, rtol=1e-9)
    theirs = fixed.forecast(horizon=10).variance.to_numpy()[-1]
    np.testing.assert_allclose(b.forecast(b.variance(r)[-1], 10), theirs, rtol=1e-9)
    steps = np.diff(b.simulate(series, [2999], 10, 100_000, seeded(), dtype=F64)[0].log().numpy(), prepend=math.log(series[-1]))
    np.testing.assert_allclose(steps.var(0), theirs, rtol=.05)
    if errors == "t": assert stats.kstest((steps[:20_000, 0] - b.mu)/b.variance(r)[-1]**.5/math.sqrt((b.nu - 2)/b.nu), "t", (b.nu,)).pvalue > 1e-4

@pytest.mark.parametrize("name, baseline", [("garch11_normal", GARCH("normal")), ("gjr111_t", GJRGARCH("t"))])
def test_reference_garch(name, baseline):
    path, returns = REFERENCE/"garch.json", REFERENCE/"performance_returns.npz"
    if not path.exists(): pytest.skip(f"the reference numbers are not beside this checkout: {path}")
    expected = json.loads(path.read_text())[name]
    with np.load(returns, allow_pickle=False) as z: r = 100*z["sp500__returns"]
    baseline.fit_returns(r)
    for key, value in expected["params"].items():
        assert getattr(baseline, key.split("[")[0]) == pytest.approx(value, rel=1e-3, abs=1e-6), key
    v = baseline.variance(r)
    assert v[-2]**.5 == pytest.approx(expected["last_conditional_vol"], rel=1e-3)
    np.testing.assert_allclose(baseline.forecast(v[-1], 10), expected["variance_forecast_1_to_10"], rtol=1e-3)

def test_a_fit_that_fails_is_not_silent(series):
    class Hasty(GARCH): max_iterations = 1
    with pytest.warns(UserWarning, match="Hasty did not converge on 1999 returns; exponential smoothing stands in"): b = Hasty().fit(series[:2000])
    assert not b.converged and (b.omega, b.alpha, b.gamma, b.beta, b.nu) == (0, .06, 0, .94, 8)

def test_bootstrap_window_and_blocks(series):
    b = BlockBootstrap(block=4, window=10).fit(series[:2000])
    r, row = log_returns(series), 2500
    steps = np.diff(b.simulate(series, [row], 8, 200, seeded(), dtype=F64)[0].log().numpy(), prepend=math.log(series[row]))
    past = r[row - 9:row + 1]
    day = np.abs(steps[..., None] - past).argmin(-1)
    np.testing.assert_allclose(past[day], steps, atol=1e-12)
    np.testing.assert_array_equal(np.diff(day.reshape(200, 2, 4)), 1)
    assert set(day.reshape(200, 2, 4)[..., 0].ravel()) == set(range(7))       # every start is drawn, the last block ends today

def test_near_an_independent_calculation():
    "S&P 500, twelve days ahead from every third day of 2015-2018, fitted before: the standard CRPS in 1e-4 of the price."
    import pandas as pd
    from arch.data import sp500
    from synthlab.metrics.crps import crps_ensemble
    frame, H = sp500.load(), 12
    close, day = frame["Close"].to_numpy(), frame.index
    cut = day.searchsorted(pd.Timestamp("2015-01-01"))
    rows = np.arange(cut, len(close) - H, 3)
    start, outcome = torch.tensor(close[rows])[:, None], torch.tensor(close[rows[:, None] + np.arange(1, H + 1)])
    for name, expected in zip(BASELINES, (112.2, 102.1, 98.0, 98.1, 97.5)):
        b = create("baseline", name).fit(close[:cut])
        paths = b.simulate(close, rows, H, 500, seeded(), dtype=F64).transpose(1, 2)
        assert 1e4*crps_ensemble(paths/start[..., None], outcome/start).mean().item() == pytest.approx(expected, rel=.02), name
