"""Estimation: transforms and gradients against differences, the likelihood against the Kalman filter, chains against known moments, and posteriors against the truths that made their data."""
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy import stats
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from synthlab.datasets.world import PERCENT, Parameters, StateSpace, World
from synthlab.datasets.worlds import get_world
from synthlab.labs.macro.estimation import (calibrate_posterior, fit_responses, from_emulator, gradient_error,
                                            identification, sensitivities)
from synthlab.labs.macro.observations import (TAIL, compare_fits, fit_var, from_world, innovations, series_covariance,
                                              simulate_data, tail_share, us_data)
from synthlab.labs.macro.posterior import (Likelihood, Prior, ascend, fit_data, log_posterior, posterior_responses,
                                           sample_posterior)
from synthlab.models.universal import UniversalEmulator
from synthlab.trainers.kalman import kalman_filter
from synthlab.trainers.hmc import effective_size, r_hat, rank_test, sample_hmc, shape_factor, summarise_chains, truth_ranks

REFERENCE = Path(__file__).resolve().parent.parent.parent/"shared"/"reference"/"var_us_1959_2009.npz"
few = settings(max_examples=20, derandomize=True, deadline=None)
NK, SOLVER = get_world("nk"), from_world(get_world("nk"))
DEFAULT = NK.parameters.tensor()
ALL = Prior(NK, [n for n in NK.parameters.names if n != "r_ss"])

def randn(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

class Fading(World):
    "Three variables, each with a shock of its own that fades alike: cheap, and its likelihood has no valley."
    name, shocks = "fading", ("a", "b", "c")
    parameters = Parameters(("rho", "sd"), (0., .5), (.8, 2.), (.5, 1.))
    def shock_sd(self, theta): return theta[:, 1:].expand(-1, 3)/theta.new_tensor(PERCENT)
    def solve(self, theta):
        eye = torch.eye(3).to(theta).expand(len(theta), 3, 3)
        return StateSpace(theta[:, :1, None]*eye, eye, eye)
    def responses(self, theta, size, horizon):
        faded = theta[:, :1]**torch.arange(horizon + 1).to(theta)
        return torch.diag_embed(size)[:, :, None]*faded[:, None, :, None]

FADING = Fading()

# parameters without bounds

@few
@given(st.lists(st.floats(-8, 8), min_size=11, max_size=11))
def test_free_numbers_and_parameters_are_one_to_one(numbers):
    u = torch.tensor(numbers, dtype=torch.float64)
    theta = ALL.theta(u)
    assert not NK.parameters.outside(theta).any()
    torch.testing.assert_close(ALL.numbers(theta), u, rtol=1e-6, atol=1e-6)
    assert theta[-1] == DEFAULT[-1]
    slope = torch.autograd.functional.jacobian(ALL.values, u).diagonal()/ALL.width           # of a uniform density in the box
    torch.testing.assert_close(ALL.log_density(u), slope.log().sum())

def test_the_prior_is_uniform_in_the_box_and_named_by_its_seed():
    u = ALL.sample((20_000,), 3)
    share = (ALL.values(u) - ALL.lower)/ALL.width
    for s in share.T: assert stats.kstest(s.numpy(), "uniform").pvalue > 1e-3
    assert torch.equal(u, ALL.sample((20_000,), 3))
    assert not torch.isclose(u[:100], ALL.sample((100,), 3, "truth")).any() and not torch.isclose(u[:100], ALL.sample((100,), 4)).any()

def test_prior_says_what_is_wrong():
    with pytest.raises(ValueError, match="no parameter 'kapa'"): Prior(NK, ("kapa",))
    with pytest.raises(ValueError, match="both free and fixed"): Prior(NK, ("kappa",), {"kappa": .1})
    for name in ("lss", "var"):
        with pytest.raises(ValueError, match="not uniform in its box"): Prior(get_world(name))

# gradients

def test_sensitivities_are_differences():
    theta, e = NK.sample(3, 1), 1e-6*torch.eye(12, dtype=torch.float64)
    found = sensitivities(SOLVER, theta)
    differences = torch.stack([(SOLVER(theta + d) - SOLVER(theta - d))/2e-6 for d in e], 1)
    torch.testing.assert_close(found, differences, rtol=1e-5, atol=1e-6)
    torch.manual_seed(0)
    net = UniversalEmulator(["nk"], d_model=16, layers=1)
    torch.nn.init.normal_(net.line, std=.1)
    net = net.double()
    told = lambda t: net.respond(t, "nk")[0]
    differences = torch.stack([(told(theta + d) - told(theta - d))/2e-6 for d in e], 1)
    found = sensitivities(told, theta)
    assert found.abs().max() > .1
    torch.testing.assert_close(found, differences, rtol=1e-4, atol=1e-5)

def test_gradient_error_knows_length_from_direction():
    theta = NK.sample(5, 2)
    longer = gradient_error(lambda t: 1.5*SOLVER(t), SOLVER, theta, NK).dropna()
    assert len(longer) == 11 and np.allclose(longer["cosine"], 1) and np.allclose(longer["length ratio"], 1.5) and np.allclose(longer["error"], .5)
    turned = gradient_error(lambda t: SOLVER(t)*torch.tensor([-1., 1., 1.]), SOLVER, theta, NK).dropna()
    assert (turned["cosine"] < .99).all() and np.allclose(turned["length ratio"], 1)

def test_an_emulator_has_the_call_of_the_solver():
    torch.manual_seed(0)
    net = UniversalEmulator(["nk"], d_model=16, layers=1)
    told = from_emulator(net, "nk")
    theta = NK.sample(6, 0).reshape(2, 3, 12).requires_grad_()
    assert told(theta).shape == SOLVER(theta).shape == (2, 3, 3, 41, 3)
    assert torch.autograd.grad(told(theta).sum(), theta)[0].isfinite().all()

# from responses

def test_exact_responses_give_back_their_parameters():
    truth = NK.sample(3, 11)
    fit = fit_responses(SOLVER, SOLVER(truth), ALL, starts=5, steps=200)
    miss = ((fit.theta - truth)[:, ALL.columns]/ALL.width).abs()
    told = torch.tensor([n != "beta" for n in ALL.free])
    assert miss[:, told].max() < .01 and fit.losses.shape == (3, 5) and fit.tried.shape == (3, 5, 11) and fit.path.shape == (200, 3, 5)
    torch.testing.assert_close(fit.loss, fit.losses.amin(-1))
    again = fit_responses(SOLVER, SOLVER(truth), ALL, starts=6, steps=5)
    assert torch.equal(again.theta, fit_responses(SOLVER, SOLVER(truth), ALL, starts=6, steps=5).theta)
    assert not torch.equal(again.theta, fit_responses(SOLVER, SOLVER(truth), ALL, starts=6, steps=5, seed=1).theta)

def test_information_predicts_the_spread_of_estimates():
    three = Prior(FADING, ("rho", "sd"))
    responses, truth = from_world(FADING), FADING.parameters.tensor()
    exact, sd = responses(truth), .05
    noisy = exact + sd*randn(200, *exact.shape)
    found = fit_responses(responses, noisy, three, sd, starts=1, steps=150).theta
    information = identification(responses, truth, three, sd)
    J = (sensitivities(responses, truth[None])[0]/sd).flatten(1)
    bound = torch.linalg.inv(J @ J.T).diagonal().sqrt()             # Cramér-Rao
    torch.testing.assert_close(found.std(0), bound, rtol=.15, atol=0)
    assert (information.table["identified"]).all() and (np.diff(information.eigenvalues) <= 0).all()

def test_beta_is_what_responses_do_not_tell():
    table = identification(SOLVER, DEFAULT, ALL).table
    assert list(table.index[~table["identified"]]) == ["beta"]

def test_rows_climb_by_themselves():
    value = lambda u: -((u - 1)**2).sum(-1)
    start = randn(5, 2)
    together, path = ascend(value, start, 200)
    torch.testing.assert_close(together[2], ascend(value, start[2:3], 200)[0][0])
    assert (together - 1).abs().max() < 1e-2 and (path[-1] > path[0]).all()

# the likelihood

def kalman(theta, data, noise):
    "The exact likelihood and one-step errors, from the world's state space, by statsmodels."
    A, B, C = (x[0].numpy() for x in NK.solve(theta[None]))
    C, Q = np.diag(PERCENT) @ C, B @ np.diag(NK.shock_sd(theta[None])[0].numpy()**2) @ B.T
    filter = KalmanFilter(3, len(A), transition=A, design=C, selection=np.eye(len(A)), state_cov=Q, obs_cov=noise**2*np.eye(3),
                          tolerance=0)                            # or it stops early, and is off by 1e-8
    filter.initialize_stationary()
    filter.bind(np.ascontiguousarray(data))
    done = filter.filter()
    return done.llf, done.forecasts_error.T

def test_innovations_are_those_of_the_kalman_filter():
    data = simulate_data(NK, DEFAULT[None], 80, seed=2)[0]
    for theta in (DEFAULT, *NK.sample(2, 8)):
        llf, errors = kalman(theta, data.numpy(), .1)
        for told in (from_world(NK, 500)(theta), NK.law(theta)):
            found = innovations(told, data)
            assert math.isclose(found.log_likelihood, llf, rel_tol=1e-9)
            np.testing.assert_allclose(found.errors, errors, atol=1e-6)

def test_the_likelihood_is_that_of_the_kalman_filter_for_all_draws():
    for i, theta in enumerate(NK.sample(20, 21)):
        data = simulate_data(NK, theta[None], 150, seed=i)[0]
        assert math.isclose(Likelihood(data).under(SOLVER, theta).item(), kalman(theta, data.numpy(), .1)[0], rel_tol=1e-8)

def test_the_likelihood_of_responses_is_that_of_the_kalman_filter_where_they_have_faded():
    off, short = [], []
    for i, theta in enumerate(NK.sample(20, 21)):
        data, psi = simulate_data(NK, theta[None], 150, seed=i)[0], SOLVER(theta)
        exact = kalman(theta, data.numpy(), .1)[0]
        cut = abs(Likelihood(data, tail=math.inf)(psi).item() - exact)
        if tail_share(psi) > TAIL: assert Likelihood(data)(psi) == -math.inf
        else: off.append(abs(Likelihood(data)(psi).item() - exact)); short.append(cut)
    assert len(off) > 10 and np.max(off) < 1e-3 and np.sum(off) <= np.sum(short)       # the tail is worth having

RBC = get_world("rbc")

def test_a_slow_economy_is_not_judged_by_forty_quarters():
    "The likelihood of -824.6, -95.7, -88.5 at 40, 100, 400 quarters, where the filter says -88.5."
    theta = RBC.parameters.tensor(None)
    y = simulate_data(RBC, theta[None], 150, seed=1)[0]
    exact = innovations(RBC.law(theta), y).log_likelihood
    assert math.isclose(exact, -88.5, abs_tol=.05)
    assert math.isclose(innovations(RBC.impulse_responses(theta, 400), y).log_likelihood, exact, rel_tol=1e-6)
    for horizon in (40, 100):
        with pytest.raises(ValueError, match=f"is left at quarter {horizon}"): innovations(RBC.impulse_responses(theta, horizon), y)
    assert innovations(RBC.impulse_responses(theta, 40), y, tail=math.inf).log_likelihood < exact - 700
    assert Likelihood(y).under(from_world(RBC), theta).item() == pytest.approx(exact)

def test_the_interval_of_a_slow_economy_holds_its_truth():
    prior = Prior(RBC, ("rho_a",))
    theta = RBC.parameters.tensor({"rho_a": .97})
    y = simulate_data(RBC, theta[None], 150, seed=1)[0]
    grid = torch.linspace(.9, .99, 91, dtype=torch.float64)
    value = Likelihood(y).under(from_world(RBC), RBC.parameters.tensor({"rho_a": grid}))
    weight = torch.softmax(value, 0).cumsum(0)
    low, high = grid[(weight > .005).nonzero()[0, 0]], grid[(weight > .995).nonzero()[0, 0]]
    assert low <= .97 <= high and high - low < .02
    cut = Likelihood(y, tail=math.inf)(RBC.impulse_responses(RBC.parameters.tensor({"rho_a": grid}), 40))
    assert not low <= grid[cut.argmax()] <= high                            # so the test can fail
    found = sample_posterior(from_world(RBC), Likelihood(y), prior, chains=4, draws=16, warmup=16, leaps=2, climb=10)
    assert low <= found.free.median() <= high

@pytest.mark.parametrize("start", ("stationary", "diffuse"))
def test_noise_is_estimated_with_gaps(start):
    prior = Prior(NK, ("rho_r", "sigma_r"), noise=(.02, 2.))
    noise = torch.tensor([1.5, .6, 1.]).double()
    y = simulate_data(NK, DEFAULT[None], 150, noise, seed=3)[0]
    y[5:20, 0] = y[30] = torch.nan
    likelihood, truth = Likelihood(y, start=start), prior.numbers(DEFAULT, noise)
    at_truth = log_posterior(SOLVER, likelihood, prior)(truth) - prior.log_density(truth)
    told = fit_data(SOLVER, likelihood, prior, starts=2, steps=60).log_likelihood
    fixed = fit_data(SOLVER, likelihood, Prior(NK, ("rho_r", "sigma_r")), starts=2, steps=60).log_likelihood
    assert at_truth < told < at_truth + 15 and told > fixed + 50                # five numbers more to choose, not fifty

def test_noise_of_a_likelihood_of_responses_is_one_a_variable():
    y, psi, noise = randn(30, 3), SOLVER(DEFAULT), torch.tensor([.1, .5, 1.]).double()
    exact = kalman_filter(NK.law(DEFAULT), y, noise).log_likelihood
    torch.testing.assert_close(Likelihood(y, lags=29)(psi, noise), exact, rtol=1e-7, atol=0)

def test_draws_without_a_solution_are_impossible_and_not_an_error():
    class Wide(type(NK)):
        "A prior in which the Taylor principle may fail."
        parameters = replace(NK.parameters, lower=tuple(.5 if n == "phi_pi" else v for n, v in zip(NK.parameters.names, NK.parameters.lower)))
    wide = Wide()
    prior, y = Prior(wide, ("phi_pi",)), simulate_data(NK, DEFAULT[None], 60, seed=1)[0]
    u = prior.numbers(wide.parameters.tensor({"phi_pi": torch.tensor([.6, 1.5, .9])}))
    value = log_posterior(from_world(wide), Likelihood(y), prior)(u)
    assert (value == -math.inf).tolist() == [True, False, True]
    with pytest.warns(UserWarning, match="no stable solution"):
        found = sample_posterior(from_world(wide), Likelihood(y), prior, chains=8, draws=8, warmup=10, leaps=2, climb=5)
    assert wide.valid(found.theta.flatten(0, 1)).all()

@pytest.mark.parametrize("name", ("zlb", "switching"))
def test_worlds_that_bend_have_no_linear_likelihood(name):
    world = get_world(name)
    y = Likelihood(randn(40, 3))
    with pytest.raises(ValueError, match=f"{name} is not linear"): y.check(world)
    if name == "zlb":
        prior = Prior(world, ("kappa",))
        for estimate in (fit_data, sample_posterior):
            with pytest.raises(ValueError, match="zlb is not linear"): estimate(from_world(world), y, prior)

def test_what_has_not_faded_is_said_and_left_out():
    prior, y = Prior(NK, ("rho_r",)), simulate_data(NK, DEFAULT[None], 60, seed=1)[0]
    bare = SOLVER.responses                                 # nothing but responses, as of a network
    with pytest.warns(UserWarning, match="% of the draws from the prior have no likelihood"):
        found = sample_posterior(bare, Likelihood(y), prior, chains=16, draws=8, warmup=20, leaps=2, climb=10)
    assert (tail_share(bare(found.theta.flatten(0, 1))) <= TAIL).all()
    with pytest.raises(ValueError, match="narrow the prior, emulate more quarters"):
        sample_posterior(lambda t: RBC.impulse_responses(t, 40), Likelihood(y), Prior(RBC, ("rho_a",)), chains=4, draws=4, warmup=4)

# data by name

def table(**columns):
    us = us_data()
    return us.assign(**columns)

@pytest.mark.parametrize("spoil, words", (
    (lambda d: d[["rate", "inflation", "output"]], "put them in the world's order"),
    (lambda d: d.rename(columns={"inflation": "inflations"}), "did you mean inflation"),
    (lambda d: d.rename(columns={"inflation": "cpi"}), "the world tells output, inflation, rate"),
    (lambda d: d.set_axis(["output", "rate", "rate"], axis=1), "2 columns 'rate'"),
    (lambda d: d/100, "look like fractions"),
    (lambda d: d.assign(inflation=d["inflation"]/400), "inflation varies by less than half of its measurement error"),
    (lambda d: d.assign(inflation=d["inflation"] + 4), "data - data.mean"),
    (lambda d: d[["output", "inflation"]], "give .*T, 3")))
def test_data_that_are_not_what_they_should_be_are_refused(spoil, words):
    with pytest.raises(ValueError, match=words): Likelihood(spoil(us_data()))

def test_units_are_declared_and_checked():
    us = us_data()
    assert us.attrs["units"] == {"output": "percent", "inflation": "percent a year", "rate": "percent a year"}
    us.attrs["units"]["rate"] = "percent a quarter"
    with pytest.raises(ValueError, match="rate is declared in 'percent a quarter'"): Likelihood(us)

def test_data_of_one_world_are_not_another():
    us, mine = us_data(), us_data().set_axis(RBC.observables, axis=1)
    mine.attrs["units"] = dict(zip(RBC.observables, RBC.measures))
    with pytest.raises(ValueError, match="the world tells output, consumption growth, return on capital"):
        fit_data(from_world(RBC), Likelihood(us), Prior(RBC, ("rho_a",)), steps=2)
    assert fit_data(from_world(RBC), Likelihood(mine, world=RBC), Prior(RBC, ("rho_a",)), starts=2, steps=2).log_likelihood.isfinite()

@pytest.mark.parametrize("call, words", (
    (lambda y: Likelihood(y, -.1), "use a number ≥ 0"), (lambda y: Likelihood(y, float("nan")), "use a number ≥ 0"),
    (lambda y: Likelihood(y, lags=-1), "lags is -1"), (lambda y: Likelihood(y, lags=1.5), "lags is 1.5"),
    (lambda y: Likelihood(y, start="now"), "stationary or diffuse"), (lambda y: innovations(NK.law(DEFAULT), y, -.1), "use a number ≥ 0"),
    (lambda y: simulate_data(NK, DEFAULT[None], noise=-1.), "use a number ≥ 0"), (lambda y: fit_var(us_data(), -1), "lags is -1"),
    (lambda y: Prior(NK, ("kappa", "kappa")), "free twice"), (lambda y: Prior(NK, ("kappa",), noise=(-1., 1.)), "two numbers above 0")))
def test_knobs_that_cannot_be_are_refused(call, words):
    with pytest.raises(ValueError, match=words): call(randn(40, 3))

def test_a_likelihood_told_of_all_quarters_is_exact():
    data, psi = randn(30, 3), SOLVER(NK.sample(5, 4))
    for row in psi:
        dense = torch.distributions.MultivariateNormal(torch.zeros(90).double(), series_covariance(row, 30)).log_prob(data.flatten())
        torch.testing.assert_close(Likelihood(data, lags=40, tail=math.inf)(row), dense)
    assert (Likelihood(data, lags=1, tail=math.inf)(psi) - Likelihood(data, lags=40, tail=math.inf)(psi)).abs().max() > .01        # so the last test can fail

def test_the_likelihood_claims_no_more_than_it_knows():
    "The variance of the score is the information, also where persistence is high."
    theta = NK.sample(8, 21)
    for th in theta[[0, 6]]:
        data = simulate_data(NK, th.expand(300, -1), 150, seed=1)
        psi, J, cov = SOLVER(th), sensitivities(SOLVER, th[None])[0, 8:11], lambda r: series_covariance(r, 150)
        rows = psi.expand(300, -1, -1, -1).clone().requires_grad_()
        score = torch.einsum("rshv,pshv->rp", torch.autograd.grad(Likelihood(data, tail=math.inf)(rows).sum(), rows)[0], J)
        inverse, bump = torch.linalg.inv(cov(psi)), 1e-4
        X = [inverse @ (cov(psi + bump*j) - cov(psi - bump*j))/(2*bump) for j in J]
        information = torch.stack([(x*x.T).sum()/2 for x in X])
        ratio = score.var(0)/information
        assert (.7 < ratio).all() and (ratio < 1.4).all(), ratio

def test_likelihood_is_batched_and_differentiable():
    data, u = randn(4, 1, 40, 3), ALL.sample((4, 2), 0).requires_grad_()
    density = log_posterior(SOLVER, Likelihood(data), ALL)
    values = density(u)
    assert values.shape == (4, 2)
    one = log_posterior(SOLVER, Likelihood(data[3, 0]), ALL)
    torch.testing.assert_close(values[3, 1], one(u[3, 1]))
    assert torch.autograd.gradcheck(one, u[:2, 0].detach().requires_grad_(), eps=1e-6, rtol=1e-3, atol=1e-3)

def test_likelihood_says_what_is_wrong():
    for bad in (torch.zeros(5, 3), torch.zeros(40, 2)):
        with pytest.raises(ValueError, match="8 quarters or more"): Likelihood(bad)
    with pytest.raises(ValueError, match="not finite"): Likelihood(torch.full((40, 3), torch.nan))

def test_long_data_lead_to_their_truth():
    three = Prior(NK, ("kappa", "rho_r", "sigma_m"))
    data = simulate_data(NK, DEFAULT[None], 3000, seed=5)[0]
    found = fit_data(SOLVER, Likelihood(data), three, starts=3, steps=80)
    miss = ((found.theta - DEFAULT)[three.columns]/three.width).abs()
    assert miss.max() < .05 and found.log_likelihoods.max() == found.log_likelihood

# chains

def test_chains_have_the_moments_of_a_gaussian_whatever_its_shape():
    P, centre = 3, torch.tensor([[0., 0, 0], [100, -3, .01]], dtype=torch.float64)
    factor = torch.stack([torch.eye(3).double(), torch.tensor([[50., 0, 0], [.9, .5, 0], [1e-3, 1e-3, 1e-3]], dtype=torch.float64)])
    inverse = torch.linalg.inv(factor)
    density = lambda x: -((inverse[:, None] @ (x - centre[:, None])[..., None])**2).sum((-1, -2))/2
    start = centre[:, None] + (factor[:, None] @ randn(2, 6, P, 1))[..., 0]
    chains = sample_hmc(density, start, draws=400, warmup=200, leaps=5, seed=1)
    assert chains.draws.shape == (2, 6, 400, 3) and chains.log_density.shape == (2, 6, 400) and chains.step.shape == (2,)
    whitened = (inverse[:, None, None] @ (chains.draws - centre[:, None, None])[..., None])[..., 0].flatten(1, 2)
    assert whitened.mean(1).abs().max() < .1
    for w in whitened: torch.testing.assert_close(torch.cov(w.T), torch.eye(3).double(), atol=.15, rtol=0)
    assert not chains.divergent.any() and .6 < chains.accepted.mean() < .98
    x = np.moveaxis(chains.draws.numpy(), -1, 0)
    assert r_hat(x).max() < 1.03 and effective_size(x)[0].min() > 500
    torch.testing.assert_close(density(chains.draws[:, :, -1]), chains.log_density[:, :, -1])

def test_chains_find_a_prior_that_is_not_normal():
    density = lambda u: ALL.log_density(u)
    chains = sample_hmc(density, ALL.sample((40,), 1), draws=80, warmup=100, leaps=4)
    share = torch.sigmoid(chains.draws[:, ::8].flatten(0, 1))
    assert min(stats.kstest(s.numpy(), "uniform").pvalue for s in share.T) > 1e-3

def test_a_seed_makes_the_chains():
    density, start = (lambda x: -x.square().sum(-1)/2), randn(3, 2)
    run = lambda seed: sample_hmc(density, start, draws=30, warmup=20, seed=seed).draws
    assert torch.equal(run(1), run(1)) and not torch.equal(run(1), run(2))

def test_what_cannot_be_is_refused_and_what_diverges_is_counted():
    half = lambda x: torch.where(x[..., 0] > 0, -x.square().sum(-1)/2, torch.nan)        # no density on the left
    chains = sample_hmc(half, randn(40, 1).abs(), draws=40, warmup=60)
    assert (chains.draws > 0).all() and abs(chains.draws.mean().item() - (2/math.pi)**.5) < .1
    funnel = lambda x: -(x[..., 0]/3)**2/2 - (x[..., 1:].square()*(-x[..., :1]).exp() + x[..., :1]).sum(-1)/2
    assert sample_hmc(funnel, randn(40, 6), draws=20, warmup=60, target=.5).divergent.sum() > 0
    with pytest.raises(ValueError, match="no finite value"): sample_hmc(half, -randn(4, 1).abs())

def test_r_hat_is_its_definition():
    x = np.random.default_rng(1).normal(size=(3, 50)) + np.array([[0], [.3], [.6]])
    parts = np.concatenate([x[:, :25], x[:, 25:]])
    def rule(y):
        z = stats.norm.ppf((stats.rankdata(y).reshape(y.shape) - 3/8)/(y.size + 1/4))
        W, B = np.mean([np.var(c, ddof=1) for c in z]), 25*np.var([c.mean() for c in z], ddof=1)
        return math.sqrt((24/25*W + B/25)/W)
    assert math.isclose(float(r_hat(x)), max(rule(parts), rule(abs(parts - np.median(parts)))), rel_tol=1e-12)

@pytest.mark.parametrize("rho", [-.5, 0., .5, .9])
def test_effective_size_of_a_known_chain(rho):
    rng = np.random.default_rng(0)
    e, x = rng.normal(size=(4, 8000)), np.zeros((4, 8000))
    for t in range(1, 8000): x[:, t] = rho*x[:, t - 1] + e[:, t]
    assert abs(effective_size(x)[0]/32000/((1 - rho)/(1 + rho)) - 1) < .15
    assert r_hat(x) < 1.01

def arviz_size(x):
    "The sum of Geyer's pairs for split chains as a loop: the definition that ArviZ documents, after Vehtari et al. (2021), section 3."
    C, n = x.shape
    apart = x - x.mean(1, keepdims=True)
    cov = np.array([(apart[:, k:]*apart[:, :n - k]).sum(1).mean()/n for k in range(n)])
    within = cov[0]*n/(n - 1)
    total = cov[0] + np.var(x.mean(1), ddof=1)
    rho = 1 - (within - cov)/total
    tau, before, k = -1., math.inf, 0
    while k + 1 < n:
        pair = (1. if k == 0 else rho[k]) + rho[k + 1]
        if pair <= 0: break
        before = min(before, pair); tau += 2*before; k += 2
    return C*n/max(tau, 1/math.log10(C*n))

@pytest.mark.parametrize("rho", [-.4, 0., .6, .95])
def test_effective_size_is_its_definition(rho):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3, 400))
    for t in range(1, 400): x[:, t] += rho*x[:, t - 1]
    parts = np.concatenate([x[:, :200], x[:, 200:]])
    scores = stats.norm.ppf((stats.rankdata(parts).reshape(parts.shape) - 3/8)/(parts.size + 1/4))
    tail = min(arviz_size((parts <= np.quantile(parts, q)).astype(float)) for q in (.05, .95))
    bulk, tails = effective_size(x)
    assert math.isclose(bulk, arviz_size(scores), rel_tol=.03) and math.isclose(tails, tail, rel_tol=.03)

def test_effective_size_of_chains_that_say_nothing():
    "NaN and chains that never moved are worth an unknown number, beside others that keep theirs; three draws cannot be halved."
    x = np.random.default_rng(0).normal(size=(4, 4, 100))
    alone = [e[0] for e in effective_size(x)]
    x[1, 2, 5], x[2], x[3, 0] = math.nan, .1, 2.
    bulk, tail = effective_size(x)
    assert np.isnan(bulk).tolist() == np.isnan(tail).tolist() == [False, True, True, False] and [bulk[0], tail[0]] == alone
    few = np.random.default_rng(0).normal(size=(2, 4))
    assert np.isfinite(effective_size(few)[0])
    for bad in few[:, :3], few[0]:
        with pytest.raises(ValueError, match="four draws or more"): effective_size(bad)
    with pytest.raises(ValueError, match="four draws or more"): r_hat(few[:, :3])

def test_shape_is_cautious_with_few_draws():
    L = shape_factor(randn(4000, 2)@torch.tensor([[2., 1], [0, 1]], dtype=torch.float64))
    torch.testing.assert_close(L @ L.T, torch.tensor([[4., 2], [2, 2]], dtype=torch.float64), atol=.2, rtol=0)
    assert shape_factor(randn(1, 3).expand(5, 3)).isfinite().all()

# calibration

def conjugate(simulations=300, spread=1., shift=0.):
    "Normal mean, normal prior, one observation; the posterior by chains, all at once."
    mu = randn(simulations, 1, seed=3)
    y = mu + randn(simulations, 1, seed=4)
    density = lambda x: -((x - y[:, None]/2 - shift)**2).sum(-1)/spread**2
    chains = sample_hmc(density, randn(simulations, 2, 1, seed=5), draws=64, warmup=60, leaps=3)
    return rank_test(truth_ranks(mu, chains.draws), ["mu"]).iloc[0]

def test_right_posteriors_have_uniform_ranks_and_wrong_ones_are_caught():
    right, narrow, wide, shifted = conjugate(), conjugate(spread=.5), conjugate(spread=2.), conjugate(shift=.4)
    assert right["p-value"] > .01 and abs(right["mean rank"] - .5) < .05
    assert narrow["p-value"] < 1e-6 and narrow["outer share"] > .35
    assert wide["p-value"] < 1e-6 and wide["outer share"] < .15
    assert shifted["p-value"] < 1e-6 and shifted["mean rank"] < .4

def test_a_whole_estimation_is_calibrated_and_a_wrong_model_is_not():
    prior, options = Prior(FADING), dict(simulations=80, quarters=60, chains=4, draws=16, warmup=20, leaps=3, climb=10, seed=1)
    responses = from_world(FADING, 20)
    right = calibrate_posterior(responses, FADING, prior, **options)
    assert right.ranks.shape == (80, 2) and (rank_test(right.ranks, prior.free)["p-value"] > .01).all()
    small = options | dict(simulations=5, warmup=10, leaps=1, climb=2)
    assert torch.equal(*(calibrate_posterior(responses, FADING, prior, **small).ranks for _ in range(2)))
    wrong = calibrate_posterior(lambda t: 1.2*responses(t), FADING, prior, **options)
    assert rank_test(wrong.ranks, prior.free)["p-value"]["sd"] < 1e-4

@pytest.mark.soak
def test_calibration_sees_a_likelihood_that_is_cut_off():
    "The old fault, put in on purpose: responses to quarter 40, as if nothing came after them."
    prior = Prior(RBC, ("rho_a", "sigma_a"), ranges={"rho_a": (.9, .99)})
    options = dict(simulations=64, quarters=80, keep=31, chains=2, draws=24, warmup=30, leaps=3, climb=30)
    right = calibrate_posterior(from_world(RBC), RBC, prior, **options)
    wrong = calibrate_posterior(lambda t: RBC.impulse_responses(t, 40), RBC, prior, tail=math.inf, **options)
    right, wrong = (rank_test(c.ranks, prior.free, 31, 4)["p-value"] for c in (right, wrong))
    print(f"p-values: the law of motion {right.round(3).tolist()}, forty quarters {wrong.tolist()}")
    assert right.min() > .01 and wrong.min() < 1e-6

# the United States

def test_us_data_and_var_are_the_reference():
    if not REFERENCE.exists(): pytest.skip(f"{REFERENCE.name} is not here")
    ref = np.load(REFERENCE, allow_pickle=False)
    us = us_data()
    np.testing.assert_allclose(us.to_numpy(), ref["Y"] - ref["Y"].mean(0), atol=1e-6)
    var = fit_var(us)
    np.testing.assert_allclose(var.responses.numpy(), np.moveaxis(ref["p2__orth_irf"], -1, 0), atol=1e-8)
    assert (var.responses[2, 0, :2] == 0).all() and var.parameters == 24

def test_errors_of_the_var_are_least_squares_residuals():
    us = us_data()
    responses = fit_var(us, 2, 200).responses
    table = compare_fits({"VAR": (responses, 24, 0.), "half": (responses/2, 24, 0.)}, us)
    y = us.to_numpy()
    X = np.concatenate([np.ones((200, 1)), y[1:-1], y[:-2]], 1)
    residuals = y[2:] - X @ np.linalg.lstsq(X, y[2:], rcond=None)[0]
    rmse = table.loc["VAR", [c for c in table if c.startswith("rmse")]].to_numpy(float)
    np.testing.assert_allclose(rmse, (residuals**2).mean(0)**.5, rtol=.03)
    assert table.loc["VAR", "log likelihood"] > table.loc["half", "log likelihood"]
    assert math.isclose(table.loc["VAR", "BIC"] - table.loc["VAR", "AIC"], 24*(math.log(202) - 2))

def test_a_posterior_of_data_holds_together():
    two = Prior(NK, ("rho_r", "sigma_m"))
    data = simulate_data(NK, DEFAULT[None], 200, seed=6)[0]
    found = sample_posterior(SOLVER, Likelihood(data), two, chains=16, draws=10, warmup=30, leaps=3, climb=20, seed=2)
    assert found.theta.shape == (16, 10, 12) and not NK.parameters.outside(found.theta).any()
    table = summarise_chains(found.free, two.free)
    truth = DEFAULT[two.columns].numpy()
    assert (abs(table["mean"] - truth) < 4*table["sd"]).all() and (table["sd"] < .5*two.width.numpy()/12**.5).all()
    assert posterior_responses(SOLVER, found, 10).shape == (10, 3, 41, 3)
