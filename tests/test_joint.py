"Energy and variogram scores against reference numbers, a package, all pairs, and their promises on memory and gradients."
import subprocess, sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import synthlab.metrics.joint as joint
from synthlab.metrics.crps import afcrps_ensemble, crps_ensemble
from synthlab.metrics.joint import energy_score, variogram_score

REFERENCE = Path(__file__).parents[2]/"shared/reference/multivariate_scores.npz"
property_test = settings(deadline=None, derandomize=True, max_examples=50)

def reference():
    if not REFERENCE.exists(): pytest.skip(f"the reference numbers are not beside this checkout: {REFERENCE}")
    with np.load(REFERENCE, allow_pickle=False) as z: return {k: z[k] for k in z.files}

def same(a, b, rtol=1e-9, atol=0.): np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

def tensors(seed, *shapes, grad=False):
    gen = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=gen, dtype=torch.float64).requires_grad_(grad) for s in shapes]

def all_pairs_energy(x, y, fair=False, weights=None):
    "The definition, every difference at once."
    p = x.new_ones(x.shape[:-1]) if weights is None else weights
    p = p/p.sum(-1, keepdim=True)
    pairs = (p[..., :, None]*p[..., None, :]*(x[..., :, None, :] - x[..., None, :, :]).norm(dim=-1)).sum((-1, -2))/2
    return (p*(x - y[..., None, :]).norm(dim=-1)).sum(-1) - (pairs/(1 - (p*p).sum(-1)) if fair else pairs)

def all_pairs_variogram(x, y, p=.5, weights=None, fair=False, members=None):
    "The definition; the fair form takes half the mean square between two members that are drawn without putting back."
    between = lambda z: (z[..., :, None] - z[..., None, :]).abs()**p
    v, M = between(x), x.shape[-2]
    w = 1. if weights is None else weights
    share = torch.full_like(x[..., 0], 1/M) if members is None else members/members.sum(-1, keepdim=True)
    square = (share[..., None, None]*(v - between(y)[..., None, :, :])**2).sum(-3)
    two = share[..., :, None]*share[..., None, :]
    apart = (two[..., None, None]*(v[..., :, None, :, :] - v[..., None, :, :, :])**2).sum((-3, -4))/2
    square = square - (apart/(1 - (share*share).sum(-1))[..., None, None] if fair else apart)
    return (w*square).sum((-1, -2))

# ---- numbers

@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_reference(case):
    z = reference()
    assert set(z["names"]) == {"a", "b", "c"}
    x, y, w = (torch.from_numpy(z[f"{case}__{k}"]) for k in ("ens", "obs", "weights"))
    expected = lambda key: z[f"{case}__{key}"]
    for grad in False, True:
        x.requires_grad_(grad)
        got = lambda f: f.detach()
        same(got(energy_score(x, y)), expected("energy")); same(got(energy_score(x, y, fair=True)), expected("energy_fair"))
        same(got(variogram_score(x, y)), expected("variogram_p05")); same(got(variogram_score(x, y, p=1)), expected("variogram_p1"))
        same(got(variogram_score(x, y, weights=w)), expected("variogram_p05_weighted"))
        same(got(variogram_score(x, y, fair=True)), expected("variogram_p05_fair"))

def test_scoringrules(scoringrules):
    x, y = tensors(0, (7, 9, 4), (7, 4))
    same(energy_score(x, y), scoringrules.es_ensemble(y.numpy(), x.numpy(), m_axis=-2, v_axis=-1))
    for p in .5, 1., 2.: same(variogram_score(x, y, p), scoringrules.vs_ensemble(y.numpy(), x.numpy(), p=p, m_axis=-2, v_axis=-1))

@property_test
@given(st.integers(1, 9), st.integers(1, 7), st.sampled_from([.5, 1., 1.5, 2.]), st.booleans(), st.integers(0, 999))
def test_definition(M, D, p, fair, seed):
    fair = fair and M > 1
    x, y, w, pairs = tensors(seed, (3, M, D), (3, D), (3, M), (D, D))
    w, pairs = w.abs() + .1, pairs.abs()
    same(energy_score(x, y, fair), all_pairs_energy(x, y, fair), atol=1e-12)
    same(energy_score(x, y, fair, w), all_pairs_energy(x, y, fair, w), atol=1e-12)
    same(variogram_score(x, y, p, pairs, fair), all_pairs_variogram(x, y, p, pairs, fair), atol=1e-10)
    same(variogram_score(x, y, p, pairs, fair, w), all_pairs_variogram(x, y, p, pairs, fair, w), atol=1e-10)

def test_one_dimension_is_the_crps():
    x, y = tensors(1, (20, 9, 1), (20, 1))
    w = tensors(2, (20, 9))[0].abs()
    same(energy_score(x, y), crps_ensemble(x[..., 0], y[:, 0]), rtol=1e-12)
    same(energy_score(x, y, True, w), afcrps_ensemble(x[..., 0], y[:, 0], 1., w), rtol=1e-12)

def test_blocks_do_not_matter(monkeypatch):
    "The same numbers whether everything goes through at once or a member at a time."
    x, y = tensors(3, (5, 40, 12), (5, 12), grad=True)
    whole = [torch.autograd.grad(f(x, y, fair=True).sum(), (x, y)) for f in (energy_score, variogram_score)]
    monkeypatch.setattr(joint, "_blocks", lambda n, M, D, device: [(slice(i, i + 1), [slice(k, k + 1) for k in range(M)]) for i in range(n)])
    for a, b in zip(torch.autograd.grad(variogram_score(x, y, fair=True).sum(), (x, y)), whole[1]): same(a, b, atol=1e-12)
    for i in range(5):
        for a, b in zip(torch.autograd.grad(energy_score(x[i], y[i], fair=True), (x, y)), whole[0]): same(a[i], b[i], atol=1e-12)

# ---- gradients

@pytest.mark.parametrize("fair", [False, True])
def test_gradients_are_those_of_the_definition(fair):
    x, y, w = tensors(4, (2, 6, 5), (2, 5), (2, 6), grad=True)
    upstream = tensors(5, (2,))[0]
    share = w**2 + .1
    pairs = tensors(6, (5, 5))[0].abs()
    for ours, theirs, inputs in ((energy_score(x, y, fair, share), all_pairs_energy(x, y, fair, share), (x, y, w)),
                                 (variogram_score(x, y, .5, pairs, fair), all_pairs_variogram(x + 0, y, .5, pairs, fair), (x, y))):
        same(ours.detach(), theirs.detach())
        a = torch.autograd.grad(ours, inputs, upstream)
        assert all(t.isfinite().all() for t in a)
    for f, g in ((energy_score, lambda x: energy_score(x, y.detach(), fair)), (variogram_score, lambda x: variogram_score(x, y.detach(), .5, pairs, fair))):
        assert torch.autograd.gradcheck(g, x)
    assert torch.autograd.gradcheck(lambda y: variogram_score(x.detach(), y, 1.3, pairs, fair), y)
    assert torch.autograd.gradcheck(lambda w: energy_score(x.detach(), y.detach(), fair, w**2 + .1), w)

def test_equal_paths_have_finite_gradients():
    "Zero distances divide by zero: collapsed ensembles, paths that hit the target, flat paths."
    for value in torch.zeros(4, 3), torch.ones(4, 3), torch.tensor([[0., 0, 1], [0, 0, 1], [2, 2, 2], [0, 1, 2]]):
        for f in (energy_score, lambda a, b: energy_score(a, b, True), variogram_score, lambda a, b: variogram_score(a, b, 1.), lambda a, b: variogram_score(a, b, .5, None, True)):
            x, y = value.clone().requires_grad_(), torch.ones(3, requires_grad=True)
            f(x, y).backward()
            assert x.grad.isfinite().all() and y.grad.isfinite().all()

def test_single_precision_far_from_the_target():
    "A forecast far off keeps the digits of its spread, in the score and in the slopes that spread it."
    x, y = tensors(7, (1, 50, 6), (1, 6))
    low, high = (x.float() + 100).requires_grad_(), (x.float().double() + 100).requires_grad_()
    shift = y - 1000
    for z in low, high: energy_score(z, shift.to(z), fair=True).sum().backward()
    same(low.grad, high.grad, rtol=2e-3, atol=2e-5)

# ---- what must hold

@property_test
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 999))
def test_invariances(M, D, seed):
    x, y, mix = tensors(seed, (2, M, D), (2, D), (D, D))
    rotation = torch.linalg.qr(mix)[0]
    es, vs = energy_score(x, y), variogram_score(x, y)
    same(energy_score(x@rotation, y@rotation), es); same(energy_score(3*x + 7, 3*y + 7), 3*es)
    same(energy_score(x.flip(1), y), es); same(variogram_score(x.flip(1), y), vs)
    same(variogram_score(9*x + 7, 9*y + 7), 9*vs)
    same(variogram_score(x + tensors(seed, (2, M, 1))[0], y - 3), vs, atol=1e-10)
    same(energy_score(x[0], y[0]), es[0]); same(variogram_score(x[None], y[None])[0, 1], vs[1])

@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e90, 1e300])
def test_any_unit(scale):
    "Squares of huge or tiny prices overflow or vanish."
    x, y = tensors(8, (2, 5, 3), (2, 3))
    same(energy_score(scale*x, scale*y), scale*energy_score(x, y))
    small = energy_score((1e30*x).float(), (1e30*y).float())
    same(small, 1e30*energy_score(x, y), rtol=1e-5)

def test_missing_and_infinite_members():
    "A hole makes its own sample NaN and leaves the others alone."
    x, y = tensors(9, (4, 5, 3), (4, 3))
    x[1, 2, 0], x[2, 0, 0] = torch.nan, torch.inf
    clean = [0, 3]
    for f in energy_score, variogram_score:
        found = f(x, y)
        assert found[clean].isfinite().all() and not found[[1, 2]].isfinite().any()
        same(found[clean], f(x[clean], y[clean]), rtol=1e-12)

def test_proper_in_dependence():
    "Right margins with a wrong dependence: the same CRPS, and the variogram score tells by many standard errors."
    gen = torch.Generator().manual_seed(0)
    z = torch.randn(500, 51, 8, generator=gen, dtype=torch.float64).cumsum(-1)
    y, x = z[:, 0], z[:, 1:]
    wrong = torch.stack([x[:, torch.randperm(50, generator=gen), t] for t in range(8)], -1)
    same(crps_ensemble(wrong.transpose(1, 2), y), crps_ensemble(x.transpose(1, 2), y), rtol=1e-12)
    gap = variogram_score(wrong, y, fair=True) - variogram_score(x, y, fair=True)
    assert gap.mean() > 5*gap.std()/500**.5

def test_fair_score_does_not_depend_on_the_ensemble():
    gen = torch.Generator().manual_seed(1)
    draw = lambda *s: torch.randn(*s, generator=gen, dtype=torch.float64)
    y = draw(20_000, 4)
    few, many = draw(20_000, 2, 4), draw(20_000, 12, 4)
    for f, rtol in ((lambda x: energy_score(x, y, fair=True), .01), (lambda x: variogram_score(x, y, fair=True), .02)):
        same(f(few).mean(), f(many).mean(), rtol=rtol)
    assert energy_score(few, y).mean() > 1.1*energy_score(many, y).mean()

@pytest.mark.parametrize("call,words", [
    (lambda: energy_score(torch.ones(3, 4), torch.ones(3)), "members second to last"),
    (lambda: energy_score(torch.ones(4), torch.ones(4)), "do not fit"),
    (lambda: variogram_score(torch.ones(2, 3, 0), torch.ones(2, 0)), "no members or no dimensions"),
    (lambda: energy_score(torch.ones(1, 3), torch.ones(3), fair=True), "two members"),
    (lambda: variogram_score(torch.ones(1, 3), torch.ones(3), fair=True), "two members"),
    (lambda: energy_score(torch.ones(2, 3), torch.ones(3), weights=torch.ones(3)), "one weight for each of 2 members"),
    (lambda: variogram_score(torch.ones(2, 3), torch.ones(3), weights=torch.ones(2, 2)), "each pair of 3 dimensions"),
    (lambda: variogram_score(torch.ones(2, 3), torch.ones(3), p=-1), "above 0")])
def test_what_is_wrong_is_named(call, words):
    with pytest.raises(ValueError) as e: call()
    assert words in str(e.value)

def test_memory_of_a_day():
    "All differences of 256 paths of a day would take 75 MB for each sample and pass; a batch of eight stays far below."
    code = """
import re, torch
from pathlib import Path
from synthlab.metrics.joint import energy_score, variogram_score
torch.set_num_threads(1)
x = torch.randn(8, 256, 288, generator=torch.Generator().manual_seed(0), requires_grad=True)
y = torch.zeros(8, 288)
(energy_score(x[:1, :4], y[:1]).sum() + variogram_score(x[:1, :4, :9], y[:1, :9]).sum()).backward()
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])*1024
before = peak()
energy_score(x, y, fair=True).sum().backward()
variogram_score(x[:1], y[:1], fair=True).sum().backward()
print((peak() - before)/2**20)"""
    if not Path("/proc/self/status").exists(): pytest.skip("peak memory is read from /proc")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 60
