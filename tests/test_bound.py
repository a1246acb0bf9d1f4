"The New Keynesian world with a bound on its rate, against solvers that know nothing of news."
import itertools
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
import torch
from synthlab.datasets.bound import ANTICIPATION, ZeroLowerBound, announce, binding_quarters, expected_path, meet_bound, multipliers, pivot, slump_start
from synthlab.datasets.structural import NewKeynesian
from synthlab.datasets.world import IndeterminateError

zlb, nk = ZeroLowerBound(), NewKeynesian()
NAMES = zlb.parameters.names

@pytest.fixture(scope="module")
def draws(): return zlb.sample(200, seed=42)

def shocks(*shape, seed=0): return torch.randn(*shape, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

def stacked(theta, before, r, u, m=0., T=400):
    """Output, inflation and rate for T quarters given yesterday's rate, by one sparse system in all quarters at once: the quarters at the bound are
    guessed and corrected until both the rule and the bound are respected (Fair and Taylor's idea, no undetermined coefficients and no news)."""
    p, b = dict(zip(NAMES, theta.tolist())), theta[-1].item()/400
    at = lambda v, t: 3*t + v
    natural, push, monetary = r*p["rho_r"]**np.arange(T), u*p["rho_u"]**np.arange(T), np.r_[m, np.zeros(T - 1)]
    held, seen = np.zeros(T, bool), set()
    for _ in range(200):
        rows, cols, vals, rhs = [], [], [], np.zeros(3*T)
        def put(row, col, value): rows.append(row); cols.append(col); vals.append(value)
        for t in range(T):
            put(at(0, t), at(0, t), 1.); put(at(0, t), at(2, t), 1/p["sigma"]); rhs[at(0, t)] = natural[t]/p["sigma"]
            put(at(1, t), at(1, t), 1.); put(at(1, t), at(0, t), -p["kappa"]); rhs[at(1, t)] = push[t]
            if t < T - 1:
                put(at(0, t), at(0, t + 1), -1.); put(at(0, t), at(1, t + 1), -1/p["sigma"]); put(at(1, t), at(1, t + 1), -p["beta"])
            put(at(2, t), at(2, t), 1.)
            if held[t]: rhs[at(2, t)] = -b
            else:
                put(at(2, t), at(1, t), -(1 - p["rho_i"])*p["phi_pi"]); put(at(2, t), at(0, t), -(1 - p["rho_i"])*p["phi_y"])
                rhs[at(2, t)] = monetary[t] + (p["rho_i"]*before if t == 0 else 0.)
                if t: put(at(2, t), at(2, t - 1), -p["rho_i"])
        x, pi, i = spla.spsolve(sp.csc_matrix((vals, (rows, cols)), (3*T, 3*T)), rhs).reshape(T, 3).T
        rule = p["rho_i"]*np.r_[before, i[:-1]] + (1 - p["rho_i"])*(p["phi_pi"]*pi + p["phi_y"]*x) + monetary
        new = rule < -b - 1e-13
        if (new == held).all(): return np.stack([x, pi, i], 1), held
        assert new.tobytes() not in seen, "the guesses go round in circles"
        seen.add(new.tobytes()); held = new
    raise AssertionError("no set of quarters found")

# the problem

def test_a_problem_solved_by_hand():
    M, q = torch.tensor([[1., -.5], [.5, 1.]]).double().expand(3, 2, 2), torch.tensor([[-1., 1.], [-1., -1.], [1., 2.]]).double()
    binding, solved = pivot(M, q)
    assert solved.all() and binding.tolist() == [[True, False], [True, True], [False, False]]
    assert torch.allclose(multipliers(M, q, binding), torch.tensor([[1., 0.], [1.2, .4], [0., 0.]]).double(), atol=1e-14)

def test_pivoting_finds_the_only_solution_among_all_sets():
    "Random positive definite matrices that are not symmetric, 6 quarters: of the 64 sets exactly one is right."
    g = torch.Generator().manual_seed(0)
    X, K = (torch.randn(60, 6, 6, generator=g, dtype=torch.float64) for _ in range(2))
    M, q = X @ X.mT + .05*torch.eye(6) + 2*(K - K.mT), torch.randn(60, 6, generator=g, dtype=torch.float64)
    binding, solved = pivot(M, q)
    assert solved.all()
    right = torch.zeros(60, dtype=torch.int)
    for bits in itertools.product([False, True], repeat=6):
        held = torch.tensor(bits).expand(60, 6)
        y = multipliers(M, q, held)
        good = ((y >= -1e-12) & (q + (M @ y[..., None])[..., 0] >= -1e-12)).all(-1)
        right += good.int()
        assert (binding[good] == held[good]).all()
    assert (right == 1).all()

def test_single_pivots_take_over_where_blocks_go_round():
    "Matrices that are far from symmetric: block steps alone never end for some of them, although every problem has a solution."
    g = torch.Generator().manual_seed(0)
    X, K = (torch.randn(500, 6, 6, generator=g, dtype=torch.float64) for _ in range(2))
    M, q = .1*X @ X.mT + .05*torch.eye(6) + 2*(K - K.mT), torch.randn(500, 6, generator=g, dtype=torch.float64)
    assert not pivot(M, q, patience=10**6, steps=400)[1].all()
    for patience in 0, 6:
        binding, solved = pivot(M, q, patience=patience)
        y = multipliers(M, q, binding)
        assert solved.all() and (y >= -1e-12).all() and (q + (M @ y[..., None])[..., 0] >= -1e-12).all()

def test_a_problem_without_solution_is_reported():
    binding, solved = pivot(-torch.ones(1, 1, 1, dtype=torch.float64), -torch.ones(1, 1, dtype=torch.float64), steps=50)
    assert not solved.any()

def test_a_path_that_stays_at_the_bound_is_not_solved():
    T = 20
    free = torch.ones(2, T, dtype=torch.float64); free[0, -1] = -1; free[1, 3] = -1
    assert binding_quarters(torch.eye(T).double()[None], free, torch.zeros(2, dtype=torch.long))[1].tolist() == [False, True]

def test_every_principal_minor_is_positive_so_there_is_one_solution():
    lower, upper = nk.parameters.box()
    theta = lower + (upper - lower)*torch.rand(150, 12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    M = announce(nk.system(theta), horizon=9).matrix
    for k in range(1, 10):
        for c in map(list, itertools.combinations(range(9), k)): assert (torch.linalg.det(M[:, c][:, :, c]) > 0).all()

def test_first_column_of_the_matrix_is_the_monetary_response(draws):
    assert torch.allclose(announce(nk.system(draws)).matrix[:, :41, 0], nk.impulse_responses(draws, units="model")[:, 0, :, 2], atol=1e-12)

# the world

def test_the_facts():
    assert zlb.name == "zlb" and zlb.parameters == nk.parameters and zlb.shocks == nk.shocks and len(zlb.parameters) == 12

def slump_paths(draws, horizon=ANTICIPATION - 1, size=1.):
    "Promises, the slump and three shocked paths, and their multipliers."
    promises, b = announce(zlb.system(draws)), zlb.bound(draws)
    before, pull = slump_start(promises, b, zlb.slump)
    start = promises.transition[..., 2]*before[:, None] + promises.impact[..., 1]*pull[:, None]
    today = torch.cat([start[:, None], start[:, None] + size*(promises.impact*zlb.shock_sd(draws)[:, None]).mT], 1)
    y, solved = meet_bound(promises, b, today.flatten(0, 1), torch.arange(len(draws)).repeat_interleave(4))
    return promises, b, before, today, y.unflatten(0, (-1, 4)), solved, expected_path(promises, today, y.unflatten(0, (-1, 4)), horizon)

def test_bound_and_complementarity(draws):
    _, b, _, _, y, solved, path = slump_paths(draws, size=-1.)
    slack = path[..., 2] + b[:, None, None]
    assert solved.all() and (y >= -1e-12).all() and (slack >= -1e-12).all() and (y*slack).abs().max() < 1e-10
    assert ((y[:, 0] > 0).sum(-1) >= 1).all()              # the slump is a slump: the bound binds in all of them
    assert not (y[..., -4:] > 0).any()

def test_paths_satisfy_the_equations_with_the_maximum_in_the_rule(draws):
    _, b, before, _, _, _, path = slump_paths(draws, horizon=200)
    sigma, beta, kappa, phi_pi, phi_y, rho_i, rho_r, rho_u = (v[:, None, None] for v in draws[:, :8].T)
    x, pi, i, r, u = path.unbind(-1)
    assert (x[..., :-1] - x[..., 1:] + (i[..., :-1] - pi[..., 1:] - r[..., :-1])/sigma).abs().max() < 1e-9
    assert (pi[..., :-1] - beta*pi[..., 1:] - kappa*x[..., :-1] - u[..., :-1]).abs().max() < 1e-9
    monetary = torch.zeros_like(i); monetary[:, 1, 0] = zlb.shock_sd(draws)[:, 0]
    past = torch.cat([before[:, None, None].expand(-1, 4, 1), i[..., :-1]], -1)
    rule = rho_i*past + (1 - rho_i)*(phi_pi*pi + phi_y*x) + monetary
    assert (i - torch.maximum(rule, -b[:, None, None])).abs().max() < 1e-9
    assert (r[..., 1:] - rho_r*r[..., :-1]).abs().max() < 1e-12 and (u[..., 1:] - rho_u*u[..., :-1]).abs().max() < 1e-12
    assert path[..., -1, :].abs().max() < 1e-3             # and they come home

def test_responses_against_a_stacked_system(draws):
    "Default economy and ten draws; the sparse system has all 400 quarters at once and no news."
    theta = torch.cat([nk.parameters.tensor()[None], draws[:10]])
    found, sd = zlb.impulse_responses(theta, horizon=30, units="percent"), zlb.shock_sd(theta)
    before, pull = slump_start(announce(zlb.system(theta)), zlb.bound(theta), zlb.slump)
    for n, t in enumerate(theta):
        base, held = stacked(t, before[n].item(), pull[n].item(), 0.)
        assert held.any()
        for j in range(3):
            add = [0.]*3; add[j] = sd[n, j].item()
            path, _ = stacked(t, before[n].item(), pull[n].item() + add[1], add[2], add[0])
            assert np.abs((path - base)[:31]*[100, 400, 400] - found[n, j].numpy()).max() < 1e-7

def test_simulation_against_a_stacked_system_every_quarter():
    theta, e = nk.parameters.tensor({"rho_r": .7, "r_ss": 1.}), shocks(40, seed=2)
    seen = zlb.simulate(theta, e)
    assert 3 < seen.extra["binding"].sum() < 38
    rate = r = u = 0.
    for t, eps in enumerate((e*zlb.shock_sd(theta[None])).tolist()):
        r, u = .7*r + eps[1], .5*u + eps[2]
        path, held = stacked(theta, rate, r, u, eps[0], T=150)
        rate = path[0, 2]
        assert np.abs(path[0]*[100, 400, 400] - seen.observables[t].numpy()).max() < 1e-8
        assert held[0] == bool(seen.extra["binding"][t]) and held.sum() == seen.extra["duration"][t]

def test_default_responses_differ_from_nk():
    found, free = zlb.impulse_responses(), nk.impulse_responses()
    assert ((found - free).abs().amax(1)/free.abs().amax(1)).min() > .1
    assert found[0].abs().max() > .1                       # and the bank is not silent

def test_responses_vary_moderately_over_the_prior(draws):
    peaks = zlb.impulse_responses(draws).abs().amax(2)[..., 0]
    assert (peaks.quantile(.99, 0) < 15*peaks.median(0).values).all() and (peaks[:, 0] < 1e-9).double().mean() < .25

def test_from_the_steady_state_it_is_nk(draws):
    calm = ZeroLowerBound(slump=0.)
    small = calm.impulse_responses(draws, shock_size=.01)
    assert torch.allclose(small, nk.impulse_responses(draws, shock_size=.01), atol=1e-10)
    rich = draws.clone(); rich[:, -1] = 4000.
    assert torch.allclose(calm.impulse_responses(rich, shock_size=-5.), nk.impulse_responses(rich, shock_size=-5.), atol=1e-10)
    e = shocks(20, 60)
    assert torch.allclose(zlb.simulate(rich[:20], e).observables, nk.simulate(rich[:20], e).observables, atol=1e-10)

def test_how_deep_the_slump_is(draws):
    "A free rate falls to s times the bound, from a rate that was at the bound or, for s below one, at s times it."
    promises, b = announce(zlb.system(draws)), zlb.bound(draws)
    for s in 0., .5, 1., 1.2, 3.:
        before, pull = slump_start(promises, b, s)
        free = promises.rates @ (promises.transition[..., 2]*before[:, None] + promises.impact[..., 1]*pull[:, None])[..., None]
        assert torch.allclose(before, -min(s, 1.)*b, atol=1e-15) and (pull <= 0).all()
        assert torch.allclose(free[..., 0].amin(-1), -s*b, atol=1e-12)

def test_a_slump_of_little_is_continuous():
    near, at = ZeroLowerBound(slump=.999999).impulse_responses(), ZeroLowerBound(slump=1.000001).impulse_responses()
    assert (near - at).abs().max() < 1e-4

def test_zero_shock_and_asymmetry():
    assert zlb.impulse_responses(shock_size=0.).abs().max() == 0
    up, down = zlb.impulse_responses(shock_size=1.), zlb.impulse_responses(shock_size=-1.)
    assert (up + down).abs().max() > .1                    # not linear

def test_default_simulation_is_at_the_bound_in_more_than_a_twentieth():
    seen = zlb.simulate(None, shocks(80, 250, seed=1))     # 20 000 quarters
    share = seen.extra["binding"].mean()
    assert .05 < share < .10
    assert seen.extra["rate_level"].min() >= -1e-9 and set(seen.extra["binding"].unique().tolist()) == {0., 1.}
    assert torch.allclose(seen.extra["rate_level"], 2 + seen.observables[..., 2], atol=1e-9)
    assert ((seen.extra["shadow_level"] < -1e-12) == (seen.extra["binding"] > 0)).all()

def test_rates_are_never_negative_over_the_prior(draws):
    seen = zlb.simulate(draws[:60], shocks(60, 80, seed=5))
    assert seen.extra["rate_level"].min() >= -1e-9 and seen.observables.isfinite().all() and seen.observables[..., 0].abs().max() < 1000

def test_falling_demand_keeps_it_at_the_bound():
    assert zlb.simulate(None, shocks(5, 100) - torch.tensor([0., 5., 0.])).extra["binding"].mean() > .5

def test_gradients(draws):
    theta = torch.cat([nk.parameters.tensor()[None], draws[:3]]).requires_grad_()
    weight = torch.randn(4, 3, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    value = lambda t: (zlb.impulse_responses(t, horizon=8)*weight).sum((1, 2, 3))
    slope, = torch.autograd.grad(value(theta).sum(), theta)
    t = theta.detach()
    for k in range(12):
        h = 1e-6*(zlb.parameters.upper[k] - zlb.parameters.lower[k])
        step = h*torch.eye(12, dtype=torch.float64)[k]
        assert torch.allclose((value(t + step) - value(t - step))/(2*h), slope[:, k], rtol=1e-4, atol=1e-4), NAMES[k]

def test_gradients_through_a_simulation():
    e = shocks(30, seed=2)
    theta = nk.parameters.tensor({"r_ss": 1.}).requires_grad_()
    value = lambda t: zlb.simulate(t, e).observables[..., 0].sum()
    assert zlb.simulate(theta.detach(), e).extra["binding"].sum() > 3
    slope, = torch.autograd.grad(value(theta), theta)
    t = theta.detach()
    for k in 0, 2, 5, 6, 11:
        step = 1e-6*torch.eye(12, dtype=torch.float64)[k]
        assert ((value(t + step) - value(t - step))/2e-6).item() == pytest.approx(slope[k].item(), rel=1e-4, abs=1e-4), NAMES[k]

def test_same_draw_same_bits(draws):
    assert torch.equal(draws[50:60], zlb.sample(10, seed=42, start=50))
    assert torch.equal(zlb.impulse_responses(draws[:30]), zlb.impulse_responses(draws[:30]))
    assert torch.allclose(zlb.impulse_responses(draws[7]), zlb.impulse_responses(draws)[7], atol=1e-10)

def test_chunks_do_not_matter(draws):
    small = ZeroLowerBound(); small.chunk = 7
    assert torch.allclose(small.impulse_responses(draws[:30]), zlb.impulse_responses(draws[:30]), atol=1e-10)
    e = shocks(30, 20)
    assert torch.allclose(small.simulate(draws[:30], e).observables, zlb.simulate(draws[:30], e).observables, atol=1e-9)
    assert torch.equal(small.valid(draws[:30]), torch.ones(30, dtype=torch.bool))

def test_what_is_refused():
    lower, upper = zlb.parameters.box()
    theta = lower + (upper - lower)*torch.rand(600, 12, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    failed = {k: v for k, v in zlb.failures(theta).items() if v.any()}
    assert all("spiral" in k or "no path returns" in k for k in failed)
    assert .1 < 1 - zlb.valid(theta).double().mean() < .28
    with pytest.raises(IndeterminateError, match="Taylor principle"): zlb.impulse_responses({"phi_pi": .9, "phi_y": 0.})
    assert zlb.valid(zlb.parameters.tensor({"phi_pi": [.9, 1.5], "phi_y": 0.})).tolist() == [False, True]
    with pytest.raises(IndeterminateError, match="deflationary spiral"): zlb.impulse_responses({"rho_r": .95, "kappa": .3})
    with pytest.raises(IndeterminateError, match="no path returns from the bound"): zlb.impulse_responses({"rho_r": .93, "sigma_r": .005, "r_ss": .5, "kappa": .01, "sigma": 2.5}, shock_size=-200.)
    with pytest.raises(IndeterminateError, match="no path returns from the bound within 80 quarters in period 2"):
        e = torch.zeros(4, 3, dtype=torch.float64); e[2, 1] = -1e4
        zlb.simulate({"rho_r": .93, "kappa": .01, "sigma": 2.5, "r_ss": .5, "sigma_r": .005}, e)
    with pytest.raises(NotImplementedError, match="it is nk"): zlb.solve(theta)
    with pytest.raises(ValueError, match="use a number ≥ 0"): ZeroLowerBound(slump=-1)
