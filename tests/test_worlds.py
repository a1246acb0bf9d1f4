"""What every world keeps: draws of its own, answers that simulations confirm; and three linear worlds against matrix powers, statsmodels and brute force."""
import contextlib
import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from statsmodels.tsa.vector_ar.var_model import VARProcess

from synthlab.datasets.linear_worlds import LinearStates, Switching, VectorAutoregression, companion, cut_normal, place_radius, place_roots, random_rotation, spectral_radius
from synthlab.datasets.world import PERCENT, PURPOSES, WORLDS, IndeterminateError, draw_rng, register_world, state_responses
from synthlab.datasets.worlds import get_world, variables_of, world_names

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT.parent/"shared"/"reference"/"var_us_1959_2009.npz"
LINEAR = tuple(n for n in world_names() if n != "zlb")          # twice the shock is twice the answer
WALKED = tuple(n for n in LINEAR if n != "switching")           # a simulation is not one path of many
MUTE = {"var": ("c[0]", "c[1]", "c[2]"), "nk": ("r_ss",)}       # these move means, and no response
quick = settings(max_examples=15, derandomize=True, deadline=None)
every = pytest.mark.parametrize("name", world_names())
linear = pytest.mark.parametrize("name", LINEAR)

def draws(name, n=4, seed=0): return get_world(name).sample(n, seed)

def pulse(world, shock, quarters, size=1.):
    eps = torch.zeros(quarters, len(world.shocks), dtype=torch.float64)
    eps[0, shock] = size
    return eps

# every world

def test_the_worlds_are_six_in_their_order():
    assert world_names()[:6] == ("lss", "var", "nk", "rbc", "switching", "zlb")
    assert [len(get_world(n).parameters) for n in ("lss", "var", "switching")] == [36, 27, 41]
    with pytest.raises(ValueError, match="there is no world 'nkk'; did you mean nk?"): get_world("nkk")
    with pytest.raises(ValueError, match="there are lss, var"): get_world("???")

@every
def test_manifest_is_whole(name):
    world = get_world(name)
    p = world.parameters
    assert world.name == name and world.description and world.shocks and len(set(p.names)) == len(p)
    assert len(p.units) == len(p.about) == len(p) and all(p.about)
    assert (np.array(p.lower) < np.array(p.upper)).all()
    default = p.tensor()
    assert not p.outside(default).any() and world.valid(default[None]).all()

@every
def test_draws_lie_in_the_box_and_have_a_solution(name):
    world, theta = get_world(name), draws(name, 200)
    assert theta.dtype == torch.float64 and not world.parameters.outside(theta, slack=0).any() and world.valid(theta).all()
    spread = world.parameters.normalise(theta)
    assert (spread.std(0) > .15).all()                  # the box is no wider than the draws need
    assert len(torch.unique(theta, dim=0)) == 200

@every
def test_a_draw_is_a_function_of_seed_world_and_index(name):
    world, ten = get_world(name), draws(name, 10, 5)
    assert ten.numpy().tobytes() == get_world(name).sample(10, 5).numpy().tobytes()
    assert torch.equal(ten[7:], world.sample(3, 5, start=7)) and torch.equal(ten[:4], world.sample(4, 5))
    other = world.sample(10, 6)
    assert not (ten[:, None] == other[None]).all(-1).any()              # index 1 of a seed is not index 0 of the next

def test_no_two_streams_meet():
    firsts = {draw_rng(s, n, i, p).integers(2**63) for s in (0, 1, 42, 43) for n in world_names() for i in range(40) for p in PURPOSES}
    assert len(firsts) == 4*len(world_names())*40*3

@every
def test_no_shock_no_answer(name):
    world, theta = get_world(name), draws(name, 2)
    assert world.impulse_responses(theta, horizon=20, shock_size=0.).abs().max() < 1e-12

@every
def test_the_impact_is_at_zero(name):
    world = get_world(name)
    found = world.impulse_responses(draws(name, 8))
    assert found.shape == (8, len(world.shocks), 41, 3) and found.isfinite().all()
    felt = found[:, :, 0].abs().amax(-1) > 1e-8
    if name == "zlb": assert felt[:, 1:].all() and .3 < felt[:, 0].double().mean() < 1    # far below the bound a small change of the rule is not felt
    else: assert felt.all()
    assert found[:, :, 30:].abs().mean() < found[:, :, :10].abs().mean()

@pytest.mark.parametrize("name", WALKED)
def test_a_response_is_what_a_simulation_shows(name):
    world, theta = get_world(name), draws(name, 3)
    found = world.impulse_responses(theta, horizon=30)
    before = torch.tensor(np.random.default_rng(0).normal(size=(31, len(world.shocks))))
    for s in range(len(world.shocks)):
        alone = world.simulate(theta, pulse(world, s, 31)).observables
        amid = world.simulate(theta, before + pulse(world, s, 31)).observables - world.simulate(theta, before).observables
        torch.testing.assert_close(alone, found[:, s], atol=1e-10, rtol=0)
        torch.testing.assert_close(amid, found[:, s], atol=1e-10, rtol=0)      # what else happens cancels

@linear
def test_twice_the_shock_is_twice_the_answer(name):
    world, theta = get_world(name), draws(name, 2, 3)
    one = world.impulse_responses(theta, horizon=20)
    @quick
    @given(st.floats(-5, 5))
    def proportional(size): torch.testing.assert_close(world.impulse_responses(theta, horizon=20, shock_size=size), size*one, atol=1e-10, rtol=0)
    proportional()

@every
def test_a_batch_is_its_rows(name):
    world, theta = get_world(name), draws(name, 3)
    eps = torch.tensor(np.random.default_rng(1).normal(size=(3, 24, len(world.shocks))))
    found, lived = world.impulse_responses(theta, horizon=16), world.simulate(theta, eps)
    for i in range(3):
        torch.testing.assert_close(world.impulse_responses(theta[i], horizon=16), found[i], atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(world.simulate(theta[i], eps[i]).observables, lived.observables[i], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(world.impulse_responses(theta.reshape(3, 1, -1), horizon=16), found[:, None], atol=1e-10, rtol=1e-10)
    assert all(v.shape[:2] == (3, 24) for v in lived.extra.values()) and lived.observables.shape == (3, 24, 3)

@every
def test_a_shorter_horizon_is_the_beginning_of_a_longer_one(name):
    world, theta = get_world(name), draws(name, 2)
    torch.testing.assert_close(world.impulse_responses(theta, horizon=40)[:, :, :13], world.impulse_responses(theta, horizon=12), atol=1e-10, rtol=1e-10)
    assert world.impulse_responses(theta, horizon=0).shape[2] == 1

@every
def test_every_parameter_that_should_matter_does(name):
    world, mute = get_world(name), MUTE.get(name, ())
    theta = draws(name, 5).requires_grad_()
    weights = torch.tensor(np.random.default_rng(0).normal(size=(len(world.shocks), 41, 3)))
    (world.impulse_responses(theta)*weights).sum().backward()
    slopes = (theta.grad*(torch.tensor(world.parameters.upper) - torch.tensor(world.parameters.lower))).abs().amax(0)
    silent = {n for n, g in zip(world.parameters.names, slopes) if g < 1e-9}
    assert silent == set(mute)

@every
def test_gradients_are_the_slopes_of_the_answers(name):
    world, theta = get_world(name), draws(name, 1, 2)[0]
    weights = torch.tensor(np.random.default_rng(0).normal(size=(len(world.shocks), 13, 3)))
    told = lambda t: (world.impulse_responses(t, horizon=12)*weights).sum()
    leaf = theta.clone().requires_grad_()
    told(leaf).backward()
    way = torch.tensor(np.random.default_rng(1).normal(size=len(theta)))*1e-6*torch.tensor(np.subtract(world.parameters.upper, world.parameters.lower))
    slope = (told(theta + way) - told(theta - way))/2
    assert abs(slope - leaf.grad @ way) < 1e-5*abs(leaf.grad*way).sum()

@every
def test_percent_is_standard_deviations_and_rates_a_year(name):
    world, theta = get_world(name), draws(name, 1, 4)[0]
    percent, sd = world.impulse_responses(theta, horizon=10), world.shock_sd(theta[None])[0]
    assert (sd > 0).all()
    for s in range(len(world.shocks)):
        plain = world.impulse_responses(theta, horizon=10, shock_size=sd[s].item(), units="model")[s]
        torch.testing.assert_close(percent[s], plain*torch.tensor(PERCENT), atol=1e-10, rtol=1e-10)
    if name in LINEAR:
        plain = world.impulse_responses(theta, horizon=10, units="model")*sd[:, None, None]
        torch.testing.assert_close(percent, plain*torch.tensor(PERCENT), atol=1e-10, rtol=1e-10)
    eps = torch.tensor(np.random.default_rng(2).normal(size=(12, len(world.shocks))))
    torch.testing.assert_close(world.simulate(theta, eps).observables, world.simulate(theta, eps*sd, units="model").observables*torch.tensor(PERCENT),
                               atol=1e-10, rtol=1e-10)

SCRIPT = """
import hashlib, numpy as np, torch
from synthlab.datasets.worlds import get_world, variables_of, world_names
for name in world_names():
    world = get_world(name); theta = world.sample(3, 7)
    eps = torch.tensor(np.random.default_rng(0).normal(size=(3, 12, len(world.shocks))))
    told = world.simulate(theta, eps)
    parts = [theta, world.impulse_responses(theta, horizon=8), told.observables, *(told.extra[k] for k in sorted(told.extra))]
    print(name, *(hashlib.sha256(p.numpy().tobytes()).hexdigest()[:16] for p in parts))
"""

def test_another_process_says_the_same():
    here = io.StringIO()
    with contextlib.redirect_stdout(here): exec(SCRIPT, {})
    other = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, text=True, capture_output=True, timeout=120,
                           env={**os.environ, "PYTHONHASHSEED": "17", "OMP_NUM_THREADS": str(torch.get_num_threads())})
    assert other.returncode == 0, other.stderr
    assert [line.split()[0] for line in other.stdout.splitlines()] == list(world_names())
    assert other.stdout == here.getvalue()

@every
def test_questions_that_make_no_sense_are_refused(name):
    world = get_world(name)
    with pytest.raises(ValueError, match="use a whole number"): world.impulse_responses(horizon=-1)
    with pytest.raises(ValueError, match=f"{name} takes"): world.simulate(None, torch.zeros(5, len(world.shocks) + 1))
    with pytest.raises(ValueError, match="is not a finite number"): world.impulse_responses({world.parameters.names[-1]: float("nan")})
    with pytest.raises(ValueError, match="there is no parameter"): world.impulse_responses({"nothing like it": 1.})

def test_one_registration_makes_a_world_known():
    class Still(LinearStates): name = "still"
    register_world(Still)
    try: assert world_names()[-1] == "still" and isinstance(get_world("still"), Still)
    finally: del WORLDS["still"]

# lss

def test_lss_is_matrix_powers():
    world, theta = LinearStates(), draws("lss", 6)
    found = world.impulse_responses(theta, units="model").numpy()
    for t, told in zip(theta.numpy(), found):
        A, B, C = t[:16].reshape(4, 4), t[16:24].reshape(4, 2), t[24:].reshape(3, 4)
        for h in range(41): np.testing.assert_allclose(told[:, h], (C @ np.linalg.matrix_power(A, h) @ B).T, atol=1e-10)
    np.testing.assert_allclose(world.impulse_responses(theta), found*.01*np.array(PERCENT), atol=1e-12)

def test_lss_oscillates():
    theta = draws("lss", 500)
    A = theta[:, :16].reshape(-1, 4, 4)
    roots = torch.linalg.eigvals(A)
    assert (roots.imag.abs() > 1e-6).all()                                      # two pairs in each
    assert (roots.abs() > .3 - 1e-9).all() and (roots.abs() < .95 + 1e-9).all()
    assert (A - A.mT).abs().amax((1, 2)).min() > 1e-3                           # none is symmetric
    assert A.abs().max() <= .95 and theta[:, 16:24].abs().max() <= .3
    np.testing.assert_allclose(theta[:, 24:].reshape(-1, 3, 4).norm(dim=-1), .5, atol=1e-12)
    angles = roots.angle()[roots.imag > 0]
    assert abs(angles.mean() - np.pi/2) < .1 and angles.min() < .1 and angles.max() > np.pi - .1

@quick
@given(st.lists(st.tuples(st.floats(.05, 1.5), st.floats(.05, 3.1)), max_size=3), st.lists(st.floats(-1, 1), max_size=2), st.integers(0, 99))
def test_eigenvalues_are_where_they_were_put(pairs, real, seed):
    if not pairs and not real: return
    A = place_roots(np.random.default_rng(seed), [p[0] for p in pairs], [p[1] for p in pairs], real)
    wanted = np.array([r*np.exp(s*1j*phi) for r, phi in pairs for s in (1, -1)] + real, complex)
    np.testing.assert_allclose(np.poly(A), np.poly(wanted).real, atol=1e-9)     # one characteristic polynomial
    np.testing.assert_allclose(A @ A.T, A.T @ A, atol=1e-12)

def test_rotations_have_no_preferred_direction():
    rng = np.random.default_rng(0)
    Q = np.array([random_rotation(rng, 3) for _ in range(4000)])
    np.testing.assert_allclose(Q @ Q.transpose(0, 2, 1), np.broadcast_to(np.eye(3), Q.shape), atol=1e-12)
    assert abs(Q.mean(0)).max() < 4.5*(1/3/4000)**.5 and abs((Q**2).mean(0) - 1/3).max() < .03

def test_cut_normal_is_a_normal_without_tails():
    from scipy.stats import kstest, truncnorm
    assert kstest(cut_normal(np.random.default_rng(0), (20_000,), .1), truncnorm(-3, 3, scale=.1).cdf).pvalue > .01

@pytest.mark.parametrize("name, change", [("lss", {"A[0,0]": 1.2}), ("var", {"A1[0,0]": 1.2}), ("switching", {"A1[2,2]": 1.5})])
def test_explosive_worlds_are_refused_by_row(name, change):
    world = get_world(name)
    theta = world.parameters.tensor().repeat(3, 1)
    for k, v in change.items(): theta[1, world.parameters.names.index(k)] = v
    with pytest.raises(IndeterminateError, match="explosive") as e: world.impulse_responses(theta)
    assert e.value.draws == [1] and world.valid(theta).tolist() == [True, False, True]

@pytest.mark.parametrize("name", ("lss", "var", "switching"))
def test_form_says_where_each_parameter_stands(name):
    world = get_world(name)
    form, n = world.form, len(world.parameters)
    said = np.concatenate([x.ravel() for x in (form.transition, form.impact, form.observation)])
    assert set(said[said >= 0]) == set(range(n)) - {world.parameters.names.index(x) for x in (*MUTE.get(name, ()), *(("p00", "p11") if name == "switching" else ()))}
    counted = form.fill(torch.arange(n, dtype=torch.float64))
    for regime in range(len(form.transition)):
        for matrix, values in zip(("A", "B", "C"), counted):
            for (i, j), v in np.ndenumerate(values[regime].numpy()):
                if name == "var":
                    if matrix == "A" and i < 3: assert world.parameters.names[int(v)] == f"A{1 + j//3}[{i},{j % 3}]"
                    elif matrix == "B" and j <= i < 3: assert world.parameters.names[int(v)] == f"L[{i},{j}]"
                    else: assert v == float(i - 3 == j if matrix == "A" else matrix == "C" and i == j)
                else: assert world.parameters.names[int(v)] == f"{matrix}{regime if name == 'switching' and matrix != 'C' else ''}[{i},{j}]"

# var

def var_theta(coefs, L, c=(0, 0, 0)): return torch.tensor(np.concatenate([c, coefs.ravel(), L[np.tril_indices(3)]]))

def test_var_is_statsmodels():
    world, theta = VectorAutoregression(), draws("var", 5)
    for t in theta:
        coefs, L = t[3:21].reshape(2, 3, 3).numpy(), np.zeros((3, 3))
        L[np.tril_indices(3)] = t[21:]
        process = VARProcess(coefs, t[:3].numpy()[:, None], L @ L.T)
        found = world.impulse_responses(t, units="model").numpy()
        np.testing.assert_allclose(found, (process.ma_rep(40) @ L).transpose(2, 0, 1), atol=1e-12)
        np.testing.assert_allclose(found, process.orth_ma_rep(40).transpose(2, 0, 1), atol=1e-12)
        np.testing.assert_allclose(world.mean(t), process.mean().ravel(), atol=1e-10)
        assert process.is_stable()

@pytest.mark.skipif(not REFERENCE.exists(), reason="the reference estimates are not beside this checkout")
def test_var_meets_the_american_estimates():
    world = VectorAutoregression()
    with np.load(REFERENCE, allow_pickle=False) as f: told = {k[4:]: f[k] for k in f if k.startswith("p2__")}
    unit, ortho = (var_theta(told["coefs"], L, told["intercept"]) for L in (np.eye(3), np.linalg.cholesky(told["sigma_u"])))
    np.testing.assert_allclose(world.impulse_responses(unit, units="model"), told["irf"].transpose(2, 0, 1), atol=1e-10)
    np.testing.assert_allclose(world.impulse_responses(ortho, units="model"), told["orth_irf"].transpose(2, 0, 1), atol=1e-10)
    np.testing.assert_allclose(spectral_radius(world.solve(ortho[None])[0]).item(), told["max_root_modulus"], atol=1e-10)

def test_var_radius_is_the_one_that_was_drawn():
    theta = draws("var", 300)
    F = VectorAutoregression().solve(theta)[0]
    wanted = [draw_rng(0, "var", i).uniform(.3, .95) for i in range(300)]
    np.testing.assert_allclose(spectral_radius(F), wanted, atol=1e-9)
    np.testing.assert_array_equal(F[:, 3:], np.broadcast_to(np.eye(3, 6), (300, 3, 6)))
    rng = np.random.default_rng(0)
    for p in (1, 2, 4):
        lags = rng.normal(size=(p, 3, 3))
        before, after = (np.linalg.eigvals(companion(x)) for x in (lags, place_radius(lags, .8)))
        assert abs(abs(after).max() - .8) < 1e-9
        np.testing.assert_allclose(np.sort(abs(after)), .8*np.sort(abs(before))/abs(before).max(), atol=1e-9)

def test_var_shocks_are_scaled_once():
    theta = draws("var", 50)
    world = VectorAutoregression()
    assert (world.shock_sd(theta) == 1).all()
    impact = world.impulse_responses(theta, horizon=0)[:, :, 0]/torch.tensor(PERCENT)
    np.testing.assert_allclose(torch.diagonal(impact, 0, 1, 2), theta[:, [21, 23, 26]], atol=1e-15)

def test_var_tells_levels_beside_deviations():
    world, theta = VectorAutoregression(), draws("var", 1)[0]
    eps = np.random.default_rng(3).normal(size=(20, 3))
    c, A1, A2, L = theta[:3].numpy(), theta[3:12].reshape(3, 3).numpy(), theta[12:21].reshape(3, 3).numpy(), np.zeros((3, 3))
    L[np.tril_indices(3)] = theta[21:]
    mean = np.linalg.solve(np.eye(3) - A1 - A2, c)
    y = [mean, mean]
    for e in eps: y.append(c + A1 @ y[-1] + A2 @ y[-2] + L @ e)
    told = world.simulate(theta, eps, units="model")
    np.testing.assert_allclose(told.extra["level"], y[2:], atol=1e-12)
    np.testing.assert_allclose(told.observables, np.array(y[2:]) - mean, atol=1e-12)

# switching

def parts(t):
    t = t.numpy()
    P = np.array([[t[0], 1 - t[0]], [1 - t[1], t[1]]])
    return P, t[2:20].reshape(2, 3, 3), t[20:32].reshape(2, 3, 2), t[32:].reshape(3, 3)

def long_run(P):
    values, vectors = np.linalg.eig(P.T)
    w = vectors[:, values.real.argmax()].real
    return w/w.sum()

@pytest.mark.parametrize("start", (None, 0, 1))
def test_switching_is_the_mean_over_all_paths_of_regimes(start):
    horizon = 8
    for t in draws("switching", 3, 1):
        P, A, B, C = parts(t)
        w = long_run(P) if start is None else np.eye(2)[start]
        answer, total = np.zeros((horizon + 1, 3, 2)), 0.
        for path in itertools.product((0, 1), repeat=horizon + 1):
            chance = w[path[0]]*np.prod([P[i, j] for i, j in zip(path, path[1:])])
            state, total = B[path[0]], total + chance
            answer[0] += chance*C @ state
            for h, r in enumerate(path[1:], 1): state = A[r] @ state; answer[h] += chance*C @ state
        assert abs(total - 1) < 1e-12
        np.testing.assert_allclose(Switching(start).impulse_responses(t, horizon, units="model"), answer.transpose(2, 0, 1), atol=1e-12)

@pytest.mark.parametrize("start", (None, 0, 1))
def test_switching_is_the_mean_of_many_walks(start):
    n, horizon, rng, t = 20_000, 15, np.random.default_rng(0), draws("switching", 1, 2)[0]
    P, A, B, C = parts(t)
    r = (rng.random(n) < long_run(P)[1]).astype(int) if start is None else np.full(n, start)
    e, seen = np.array([.01, 0.]), []
    state = B[r] @ e
    for h in range(horizon + 1):
        seen.append(state @ C.T*PERCENT)
        r = (rng.random(n) < P[r, 1]).astype(int)
        state = (A[r] @ state[..., None])[..., 0]
    mean, error = np.mean(seen, 1), np.std(seen, 1)/n**.5
    exact = Switching(start).impulse_responses(t, horizon)[0].numpy()
    assert abs(mean - exact).max() < 5*error.max() and (abs(mean - exact) <= 4.5*error + 1e-12).all()
    assert error[1:].max() > 0 and abs(exact).max() > 20*error.max()              # the comparison could have failed

def test_switching_responds_as_its_own_simulations_do():
    world, t = Switching(), draws("switching", 1, 2)[0]
    n, quarters = 4000, 10
    luck = torch.tensor(np.random.default_rng(5).random((n, quarters)))
    theta = t.expand(n, -1)
    eps = torch.tensor(np.random.default_rng(6).normal(size=(n, quarters, 2)))*.01
    regimes = world.regime_paths(theta, luck)
    bump = torch.zeros(quarters, 2, dtype=torch.float64); bump[0, 1] = .01
    change = (world.along(theta, eps + bump, regimes).observables - world.along(theta, eps, regimes).observables)*torch.tensor(PERCENT)
    exact = world.impulse_responses(t, quarters - 1)[1]
    assert ((change.mean(0) - exact).abs() <= 4.5*change.std(0)/n**.5 + 1e-12).all()

def test_switching_regimes_follow_their_chain_and_their_seed():
    world, theta = Switching(), torch.tensor([.9, .75])
    eps = torch.tensor(np.random.default_rng(0).normal(size=(8, 2500, 2)))
    r = world.simulate({"p00": .9, "p11": .75}, eps).extra["regime"]
    for k, p in enumerate(theta):
        assert abs(((r[:, 1:] == k) & (r[:, :-1] == k)).sum()/(r[:, :-1] == k).sum() - p) < .02
        runs = sum((row[:-1] != k).logical_and(row[1:] == k).sum() for row in r)
        assert abs((r == k).sum()/runs*(1 - p) - 1) < .06                        # mean duration 1/(1 - p)
    firsts = Switching().simulate({"p00": .9, "p11": .75}, torch.tensor(np.random.default_rng(1).normal(size=(2000, 1, 2)))).extra["regime"]
    assert abs(firsts.double().mean() - .1/.35) < .04                            # begins in the long run
    assert torch.equal(Switching().simulate({"p00": .9, "p11": .75}, eps[3]).extra["regime"], r[3])
    assert not torch.equal(Switching(regime_seed=1).simulate({"p00": .9, "p11": .75}, eps).extra["regime"], r)
    assert len({tuple(row.tolist()) for row in r}) == 8                          # no two paths alike

def test_switching_shocks_have_one_size_everywhere():
    world, theta = Switching(start=1), draws("switching", 1)[0]
    eps = torch.zeros(1, 2, dtype=torch.float64); eps[0, 0] = 1
    torch.testing.assert_close(world.simulate(theta, eps).observables[0], world.impulse_responses(theta, horizon=0)[0, 0], atol=1e-14, rtol=0)

def test_switching_is_stable_in_the_mean():
    world = Switching()
    wild = world.parameters.tensor({"A1[2,2]": 1.05, "A1[0,0]": .2, "A1[1,1]": .2, "p11": .7})
    P, A, _, _ = parts(wild)
    mean = np.block([[P[i, j]*A[j] for i in range(2)] for j in range(2)])
    assert abs(np.linalg.eigvals(A[1])).max() > 1 > abs(np.linalg.eigvals(mean)).max()
    far = world.impulse_responses(wild, horizon=400)                              # one explosive regime, often left, explodes nothing
    assert far[:, -1].abs().max() < 1e-6
    for stay in (1.05, .8), (-.1, .8), (1., 1.):
        with pytest.raises(IndeterminateError, match="probabilities"): world.impulse_responses(dict(zip(("p00", "p11"), stay)))
    with pytest.raises(ValueError, match="use 0, 1 or None"): get_world("switching", start=3)

def test_switching_draws_a_quiet_and_a_wild_regime():
    theta = draws("switching", 300)
    radii = torch.stack([spectral_radius(theta[:, i:i + 9].reshape(-1, 3, 3)) for i in (2, 11)], 1)
    assert radii[:, 0].min() >= .3 and radii[:, 0].max() <= .7 and radii[:, 1].min() >= .7 and radii[:, 1].max() <= .95
    assert radii[:, 0].std() > .1 and radii[:, 1].std() > .06
    np.testing.assert_allclose([theta[:, 20:26].std(), theta[:, 26:32].std()], [.0493, .148], rtol=.05)
    np.testing.assert_allclose(theta[:, 32:].reshape(-1, 3, 3).norm(dim=-1), .5, atol=1e-12)

# what is given, in whatever form

def test_parameters_come_in_any_form_of_table():
    nk = get_world("nk")
    by_hand = nk.parameters.tensor({"kappa": [.1, .2]})
    for told in (pd.DataFrame({"kappa": [.1, .2]}, index=[7, 9]), {"kappa": pd.Series([.1, .2], index=[3, 1])}, {"kappa": np.array([.1, .2])}):
        assert torch.equal(nk.parameters.tensor(told), by_hand)
    assert torch.equal(nk.parameters.tensor(pd.Series({"kappa": .1})), nk.parameters.tensor())
    for bad, words in (([[.1]*12, [.1]*11], "theta is not an array of numbers"), ({"kappa": "much"}, "kappa is not an array"),
                       ({"kappa": [.1, .2], "beta": [.99]*3}, "as many values of each"), (pd.Series({"kapa": .1}), "did you mean kappa")):
        with pytest.raises(ValueError, match=words): nk.parameters.tensor(bad)

def test_whole_numbers_of_numpy_are_whole_and_nan_is_no_size():
    nk = get_world("nk")
    assert torch.equal(nk.impulse_responses(horizon=np.int64(5)), nk.impulse_responses(horizon=5))
    for size in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="shock_size"): nk.impulse_responses(shock_size=size)
    with pytest.raises(ValueError, match="shocks hold a number that is not finite"): nk.simulate(None, torch.full((4, 3), torch.nan))
    with pytest.raises(ValueError, match="horizon"): nk.impulse_responses(horizon=2.5)

@pytest.mark.parametrize("name", ("lss", "var", "nk", "rbc"))
def test_the_law_of_motion_has_the_responses(name):
    world = get_world(name)
    theta = world.sample(5, 1).reshape(1, 5, -1)
    torch.testing.assert_close(state_responses(world.law(theta), 40), world.impulse_responses(theta), rtol=1e-9, atol=1e-10)

def test_worlds_without_a_law_say_so():
    for name in ("zlb", "switching"):
        world = get_world(name)
        with pytest.raises(ValueError, match=f"{name} has no linear law of motion"): world.law(world.sample(2))

def test_every_world_names_its_variables_and_their_units():
    for name in world_names():
        world = get_world(name)
        assert len(set(world.observables)) == len(world.measures) == 3 and variables_of(name) == world.observables
    assert "inflation" not in variables_of("rbc") and variables_of("nk") == ("output", "inflation", "rate") == variables_of("none such")

@every
def test_no_draw_has_no_answer(name):
    "A sentence, not an index out of bounds."
    world = get_world(name)
    for ask in (lambda t: world.impulse_responses(t, 4), lambda t: world.simulate(t, torch.zeros(0, 5, len(world.shocks)))):
        with pytest.raises(ValueError, match=r"theta has the shape \(0, \d+\): it holds no draw; give one or more"): ask(torch.zeros(0, len(world.parameters)))
