"The law of motion's likelihood: statsmodels' filters to the last digits, gradients against differences, and its speed beside a loop."

import numpy as np
import pytest
import torch
from statsmodels.tsa.statespace.kalman_filter import KalmanFilter

from synthlab.datasets.world import StateSpace
from synthlab.datasets.worlds import get_world
from synthlab.trainers.kalman import kalman_filter

def randn(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

def statsmodels(space, y, noise, start="stationary"):
    "Its conventional filter, which may not stop early, or its exact diffuse one."
    A, B, C = (m.numpy() for m in space)
    f = KalmanFilter(len(C), len(A), transition=A, design=C, selection=np.eye(len(A)), state_cov=B @ B.T,
                     obs_cov=np.diag(np.broadcast_to(noise, len(C))**2), tolerance=0)
    if start == "stationary": f.initialize_stationary()
    else: f.initialize("diffuse")
    f.bind(np.ascontiguousarray(y.numpy()))
    done = f.filter()
    return done.llf, done.forecasts_error.T

def series(space, quarters, noise, seed=0):
    A, B, C = space
    x, seen, e = torch.zeros(len(A)).double(), [], randn(quarters + 200, B.shape[-1], seed=seed)
    for shock in e:
        x = A @ x + B @ shock
        seen.append(C @ x)
    return torch.stack(seen)[200:] + noise*randn(quarters, len(C), seed=seed + 1)

def holed(y):
    "With single numbers and a whole quarter missing, also at the start."
    y = y.clone()
    y[0, -1] = y[3:9, 0] = y[40] = torch.nan
    return y

def large(theta, observables=7, states=8):
    "A law with 8 states and 7 observables of 12 parameters: 8 persistences and 4 sizes of shocks."
    turn, B, C = torch.linalg.qr(randn(states, states, seed=5))[0], randn(states, 4, seed=6), randn(observables, states, seed=7)
    return StateSpace(turn @ torch.diag_embed(theta[..., :8]) @ turn.T, B*theta[..., None, 8:], C.expand(*theta.shape[:-1], -1, -1))

def draws(n): return torch.cat([torch.rand(n, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)*.9 + .05,
                                torch.rand(n, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + .5], -1)

@pytest.mark.parametrize("rho", (.5, .9, .95, .97, .99, .995))
def test_rbc_is_statsmodels_whatever_its_persistence(rho):
    rbc = get_world("rbc")
    theta = rbc.parameters.tensor({"rho_a": rho})
    space = rbc.law(theta)
    y = series(space, 150, .1)
    for data in (y, holed(y)):
        llf, errors = statsmodels(space, data, .1)
        found = kalman_filter(space, data, .1)
        assert abs(found.log_likelihood.item()/llf - 1) < 1e-8
        np.testing.assert_allclose(found.errors.numpy(), np.nan_to_num(errors), atol=1e-7)

@pytest.mark.parametrize("name", ("lss", "var", "nk", "rbc"))
@pytest.mark.parametrize("start", ("stationary", "diffuse"))
def test_every_world_with_a_law_is_statsmodels_from_either_start(name, start):
    world = get_world(name)
    for i, theta in enumerate(world.sample(4, 3)):
        space = world.law(theta)
        y = series(space, 120, .1, i)
        for data in (y, holed(y)):
            llf, _ = statsmodels(space, data, .1, start)
            assert abs(kalman_filter(space, data, .1, start).log_likelihood.item()/llf - 1) < 1e-8

@pytest.mark.parametrize("start", ("stationary", "diffuse"))
def test_more_observables_each_with_its_noise(start):
    space, noise = large(draws(1)[0]), np.linspace(.1, .7, 7)
    y = holed(series(space, 200, .3))
    llf, _ = statsmodels(space, y, noise, start)
    assert abs(kalman_filter(space, y, torch.tensor(noise), start).log_likelihood.item()/llf - 1) < 1e-8

def test_a_unit_root_has_a_diffuse_start_only():
    space = StateSpace(torch.tensor([[1., 1], [0, 1]]).double(), torch.eye(2).double()*.3, torch.tensor([[1., 0]]).double())
    y = series(space, 80, .5)
    assert abs(kalman_filter(space, y, .5, "diffuse").log_likelihood.item()/statsmodels(space, y, .5, "diffuse")[0] - 1) < 1e-8

@pytest.mark.parametrize("start", ("stationary", "diffuse"))
def test_gradients_are_central_differences(start):
    theta, noise = draws(3), torch.tensor(.4).double()
    y = holed(series(large(theta[0]), 60, .3))
    told = lambda t, s: kalman_filter(large(t), y, s, start).log_likelihood
    here, error = theta.clone().requires_grad_(), noise.clone().requires_grad_()
    slope, by_noise = torch.autograd.grad(told(here, error).sum(), (here, error))
    h = 1e-5
    for k in range(12):
        bump = torch.zeros(12).double(); bump[k] = h
        difference = (told(theta + bump, noise) - told(theta - bump, noise))/(2*h)
        torch.testing.assert_close(slope[:, k], difference, rtol=1e-6, atol=1e-6*slope.abs().max().item())
    difference = ((told(theta, noise + h) - told(theta, noise - h))/(2*h)).sum()
    torch.testing.assert_close(by_noise, difference, rtol=1e-6, atol=0)

def unrolled(space, data, noise):
    "The log likelihood of one draw by the textbook, all variables as states, for automatic differentiation."
    (A, B, C), value = space, 0.
    Q, x = B @ B.mT, torch.zeros(len(A)).double()
    P = torch.linalg.solve(torch.eye(len(A)**2).double() - torch.kron(A, A), Q.flatten()).reshape(Q.shape)
    for y in data:
        seen = y.isfinite()
        c = C[seen]
        F, v = c @ P @ c.mT + noise**2*torch.eye(int(seen.sum())).double(), y[seen] - c @ x
        value = value - (torch.logdet(F) + v @ torch.linalg.solve(F, v) + len(v)*np.log(2*np.pi))/2
        K = A @ P @ c.mT @ torch.linalg.inv(F)
        x, P = A @ x + K @ v, A @ P @ (A - K @ c).mT + Q
    return value

@pytest.mark.parametrize("quarters, gaps", [(45, False), (45, True), (200, False), (200, True)])
def test_the_way_back_is_automatic_differentiation_of_the_textbook(quarters, gaps):
    "By every entry of A, B and C, by data and noise; three draws and series at once, of variables of which one has no yesterday; settled or not."
    theta, noise = draws(3), torch.tensor(.4).double().requires_grad_()
    A, B, C = (m.clone() for m in large(theta))
    A[..., 2] = 0.
    space = StateSpace(A.requires_grad_(), B.requires_grad_(), C.requires_grad_())
    y = torch.stack([series(large(theta[i]), quarters, .3, i) for i in range(3)])
    if gaps: y[1] = holed(y[1]); y[2, 5, 1:] = torch.nan
    y.requires_grad_()
    weights = torch.tensor([1., -2., .5]).double()
    ours = torch.autograd.grad((kalman_filter(space, y, noise).log_likelihood*weights).sum(), (*space, y, noise))
    plain = sum(w*unrolled(StateSpace(*(m[i] for m in space)), y[i], noise) for i, w in enumerate(weights))
    for mine, theirs, what in zip(ours, torch.autograd.grad(plain, (*space, y, noise)), "ABCyn"):
        if what == "A": mine, theirs = (x.clone().index_fill(2, torch.tensor([2]), 0.) for x in (mine, theirs))       # structure, not a number
        torch.testing.assert_close(mine.nan_to_num(0.), theirs.nan_to_num(0.), rtol=1e-7, atol=1e-7*theirs.nan_to_num(0.).abs().max().item())

def test_a_batch_is_its_rows_whenever_each_settles():
    theta = draws(20); theta[::3, 0] = .999; theta[1::3, :8] = .1
    y = randn(3, 1, 90, 7)
    found = kalman_filter(large(theta), y, .2).log_likelihood
    assert found.shape == (3, 20)
    for d, i in ((0, 0), (1, 1), (2, 19)):
        alone = kalman_filter(large(theta[i]), y[d, 0], .2).log_likelihood
        torch.testing.assert_close(found[d, i], alone, rtol=1e-10, atol=0)

def test_a_law_that_says_a_series_cannot_be_has_no_density():
    one = torch.ones(1, 1).double()
    twice = StateSpace(.5*one, one, torch.ones(2, 1).double())              # two observables, one shock, no error
    assert kalman_filter(twice, randn(20, 2), 0.).log_likelihood == -torch.inf
