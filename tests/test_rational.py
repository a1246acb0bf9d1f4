"""Models whose people look ahead: solved like an ordered Schur decomposition solves them, like independent references, like pencil and paper; and refused when they have no answer."""
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings, strategies as st

from synthlab.datasets.rational import determinacy, exogenous, factored, matrix_sign, residual, roots, solve_rational, stable_roots, stein_sum, swept
from synthlab.datasets.structural import NewKeynesian, RealBusinessCycle
from synthlab.datasets.world import WORLDS, IndeterminateError, draw_rng

REFERENCE = Path(__file__).resolve().parents[2]/"shared"/"reference"/"nk_irf.npz"
NK, RBC = NewKeynesian(), RealBusinessCycle()
quick = settings(max_examples=25, derandomize=True, deadline=None)
unit = st.floats(0, 1, allow_nan=False)

@pytest.fixture(scope="module")
def reference():
    if not REFERENCE.exists(): pytest.skip("the reference files in ../shared are not here")
    with np.load(REFERENCE, allow_pickle=False) as z: return dict(z)

def named(reference, key): return {str(n): torch.tensor(c) for n, c in zip(reference["theta_names"], reference[key].T)}

def inside(world, n, seed=0):
    lower, upper = world.parameters.box()
    return lower + (upper - lower)*torch.rand(n, len(lower), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))

def by_schur(F, G, H, M):
    "One draw by an ordered QZ decomposition (Klein 2000): the law, and how many of the 2 N roots are stable."
    N = len(G)
    I, O = np.eye(N), np.zeros((N, N))
    _, _, alpha, beta, _, Z = scipy.linalg.ordqz(np.block([[O, I], [-H, -G]]), np.block([[I, O], [O, F]]), sort="iuc")
    P = np.linalg.solve(Z[:N, :N].T, Z[N:, :N].T).T
    return P, -np.linalg.solve(F @ P + G, M), int((np.abs(alpha) < np.abs(beta)).sum())

def random_models(n, N=4, seed=0):
    "Equations with a known answer, and nothing else: (I - S x)(x - P), each with stable P and S, rows mixed."
    rng = torch.Generator().manual_seed(seed)
    normal = lambda *s: torch.randn(*s, generator=rng, dtype=torch.float64)
    P, S = ((X := normal(n, N, N))*(.95*torch.rand(n, 1, 1, generator=rng, dtype=torch.float64)/torch.linalg.eigvals(X).abs().amax(-1)[:, None, None]) for _ in "PS")
    mix = torch.linalg.qr(normal(n, N, N))[0]
    return P, (mix @ -S, mix @ (torch.eye(N) + S @ P), mix @ -P, normal(n, N, 2))

# references

def test_every_reference_response_of_the_new_keynesian_model(reference):
    found = NK.impulse_responses(named(reference, "theta"), units="model").numpy()
    assert found.shape == reference["irf"].shape == (64, 3, 41, 3)
    assert np.abs(found - reference["irf"]).max() < 1e-10

def test_every_indeterminate_reference_draw_is_refused(reference):
    theta = named(reference, "theta_indeterminate")
    count = stable_roots(*NK.system(NK.parameters.tensor(theta))[:3])
    assert (count - 5).tolist() == (reference["stable_roots_indeterminate"] - 4).tolist() == [1]*16     # too many by one, however one counts the trivial ones
    with pytest.raises(IndeterminateError) as error: NK.impulse_responses(theta)
    assert error.value.draws == list(range(16)) and "Taylor principle" in error.value.condition and "indeterminate" in str(error.value)
    for i in range(16):
        with pytest.raises(IndeterminateError): NK.impulse_responses({n: c[i] for n, c in theta.items()})

def test_theoretical_standard_deviations_of_a_reference_draw(reference):
    theta = named(reference, "theta")
    space = NK.solve(NK.parameters.tensor({n: c[0] for n, c in theta.items()})[None])
    A, B, C = (m[0] for m in space)
    B = B*torch.tensor(reference["sim_shock_std"])
    variance = stein_sum(A, B @ B.T, A.T)
    assert np.allclose((C @ variance @ C.T).diagonal().sqrt().numpy(), reference["theory_std_theta0"], rtol=1e-9)

def test_tabled_values_of_the_new_keynesian_model():
    monetary, demand, cost_push = NK.impulse_responses(horizon=3, units="model").numpy()
    table = {"monetary": (.25*monetary, [(-.6811456413, -.1632903031, .1839842680), (-.4010242632, -.0961371100, .1083206748),
                                         (-.2361028977, -.0566006906, .0637737602), (-.1390055002, -.0333236372, .0375467795)]),
             "demand": (demand, [(1.4856858201, .1959354082, .0959227680), (.5337633091, .0478452790, .1044358808),
                                 (.1437861111, -.0055869212, .0854672811), (-.0005794036, -.0201672043, .0623091785)]),
             "cost_push": (.25*cost_push, [(-.3435545703, .3333695239, .0914219929), (-.3710466995, .1189141222, .0995356635),
                                           (-.3028431493, .0313321133, .0814570861), (-.2204935665, -.0008924968, .0593855807)])}
    assert tuple(table) == NK.shocks
    for name, (found, expected) in table.items(): assert np.abs(found - np.array(expected)).max() < 6e-11, name
    assert np.allclose(monetary[1:]/monetary[:-1], .5887496577, atol=1e-10)
    found = roots(*NK.system(NK.parameters.tensor())[:3])
    assert found.imag.abs().max() < 1e-7 and np.allclose(found.real, [.5, .5, .58874966, 1.10304613, 1.24431532], atol=1e-8)

def test_percent_is_one_standard_deviation_with_rates_a_year():
    model, percent = NK.impulse_responses(units="model"), NK.impulse_responses()
    sd = torch.tensor([.0025, .01, .0025])[:, None, None].double()
    assert torch.allclose(percent, model*sd*torch.tensor([100., 400., 400.]).double(), rtol=1e-6)
    assert torch.allclose(percent[0, 0], torch.tensor([-.68114564, 4*-.16329030, 4*.18398427]).double(), atol=1e-6)

@quick
@given(rho=unit.map(lambda x: .95*x), sigma=unit.map(lambda x: .5 + 2*x), phi=unit.map(lambda x: 1.05 + 2*x))
def test_closed_form_without_smoothing(rho, sigma, phi):
    theta = {"rho_i": 0., "rho_r": rho, "rho_u": rho, "sigma": sigma, "phi_pi": phi}
    beta, kappa, phi_y = .99, .1, .125
    answer = NK.impulse_responses(theta, units="model", horizon=1)
    scale = 1/((1 - beta*rho)*(sigma*(1 - rho) + phi_y) + kappa*(phi - rho))
    x, pi = (1 - beta*rho)*scale, kappa*scale
    assert np.allclose(answer[1, 0], [x, pi, phi*pi + phi_y*x], atol=1e-10) and np.allclose(answer[1, 1], rho*answer[1, 0], atol=1e-10)
    x, pi = -(phi - rho)*scale, (sigma*(1 - rho) + phi_y)*scale           # costs: a wedge in the second equation alone
    assert np.allclose(answer[2, 0, :2], [x, pi], atol=1e-10)

# an independent solver

@pytest.mark.parametrize("world", (NK, RBC), ids=("nk", "rbc"))
def test_ordered_schur_agrees(world):
    system = world.system(inside(world, 40))
    P, Q = solve_rational(*system)
    assert residual(*system, P, Q).max() < 1e-11
    for i in range(40):
        p, q, stable = by_schur(*(m[i].numpy() for m in system))
        assert np.abs(P[i].numpy() - p).max() < 1e-9 and np.abs(Q[i].numpy() - q).max() < 1e-9
        assert stable == stable_roots(*(m[i] for m in system[:3])) == len(p)

def test_random_models_of_any_kind():
    truth, system = random_models(300)
    P, Q = solve_rational(*system)
    assert (P - truth).abs().max() < 1e-9 and (determinacy(*system[:3]) == 0).all()
    assert residual(*system, P, Q).max() < 1e-10
    one = solve_rational(*(m[7] for m in system))           # no draw depends on its neighbours
    assert torch.allclose(one[0], P[7], atol=1e-11) and torch.allclose(one[1], Q[7], atol=1e-11)
    many = solve_rational(*(m.reshape(3, 100, *m.shape[1:]) for m in system))
    assert torch.equal(many[0].reshape(P.shape), P)

def test_counts_agree_with_schur_when_there_is_no_unique_solution():
    system = [torch.randn(60, 3, 3, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in range(3)]
    counts = [by_schur(*(m[i].numpy() for m in system), np.ones((3, 1)))[2] for i in range(60)]
    assert stable_roots(*system).tolist() == counts and len(set(counts)) >= 4
    assert determinacy(*system).tolist() == np.sign(np.array(counts) - 3).tolist()
    for i in np.flatnonzero(np.array(counts) != 3)[:12]:
        with pytest.raises(IndeterminateError, match="indeterminate" if counts[i] > 3 else "explosive"): solve_rational(*(m[i] for m in system), torch.ones(3, 1).double())

def test_ten_thousand_draws_at_once(capsys):
    def best(work, times=3):
        spent = []
        for _ in range(times):
            start = time.process_time()
            work()
            spent.append(time.process_time() - start)
        return min(spent)

    theta = inside(NK, 10_000, 1)
    system = NK.system(theta)
    arrays = [m[:200].numpy() for m in system]
    everything = best(lambda: (NK.check(theta), NK.solve(theta)))
    solving = best(lambda: solve_rational(*system))
    loop = 50*best(lambda: [by_schur(*draw) for draw in zip(*arrays)])
    assert everything < 60          # a loop that comes back by mistake, on the slowest machine
    with capsys.disabled():
        print(f"\n10 000 New Keynesian draws: {solving:.2f} s to solve, {everything:.2f} s with equations and conditions; a loop over ordered QZ {loop:.1f} s, {loop/solving:.0f} times as long")

# by hand

def test_brock_and_mirman():
    theta = RBC.parameters.tensor({"delta": 1., "gamma": 1., "alpha": np.array([.25, .33, .4]), "beta": torch.tensor([.985, .99, .995]), "rho_a": .9})
    space = RBC.solve(theta)
    variables = RBC.variables
    for i, alpha in enumerate((.25, .33, .4)):
        for name in ("capital", "consumption", "output", "investment"):
            row = torch.zeros(8, dtype=torch.float64)
            row[variables.index("capital")], row[variables.index("technology")] = alpha, .9
            assert (space.transition[i, variables.index(name)] - row).abs().max() < 1e-10
            assert abs(space.impact[i, variables.index(name), 0] - 1) < 1e-10
        assert space.transition[i, variables.index("labour")].abs().max() < 1e-10
    rest = RBC.steady_state(theta)
    assert torch.allclose(rest["capital"]/rest["output"], theta[:, 1]*theta[:, 0], atol=1e-12)      # k' = alpha beta y

def test_the_law_of_the_business_cycle_is_the_derivative_of_the_model_itself():
    "The equations in levels, expectations replaced by the law: to first order nothing is left over."
    theta = inside(RBC, 20)
    beta, alpha, delta, gamma, chi, rho = theta[:, :6].unbind(-1)
    rest, space = RBC.steady_state(theta), RBC.solve(theta)
    names = "capital", "consumption", "labour", "output", "investment"

    def left_over(step):
        "Residuals of the nonlinear equations after a shock of this size, at the linear answer."
        first = space.impact[..., 0]*step
        second = (space.transition @ first[..., None])[..., 0]
        now, ahead = ({n: rest[n]*first_or[:, RBC.variables.index(n)].exp() for n in names} for first_or in (first, second))
        a, a_ahead = (s[:, RBC.variables.index("technology")].exp() for s in (first, second))
        rate = 1/beta + first[:, RBC.variables.index("rate")]
        return torch.stack([
            now["output"]/(a*rest["capital"]**alpha*now["labour"]**(1 - alpha)) - 1,
            now["labour"]**chi*now["consumption"]**gamma/((1 - alpha)*now["output"]/now["labour"]) - 1,
            (now["consumption"] + now["investment"])/now["output"] - 1,
            now["capital"]/((1 - delta)*rest["capital"] + now["investment"]) - 1,
            beta*(ahead["consumption"]/now["consumption"])**-gamma*(alpha*ahead["output"]/now["capital"] + 1 - delta) - 1,
            (alpha*ahead["output"]/now["capital"] + 1 - delta)/rate - 1,
            ahead["output"]/(a_ahead*now["capital"]**alpha*ahead["labour"]**(1 - alpha)) - 1])

    assert left_over(0.).abs().max() < 1e-12
    small, smaller = left_over(1e-3).abs().max(), left_over(1e-4).abs().max()
    assert small < 1e-4 and smaller < .02*small          # of second order

def test_resources_are_spent_and_shocks_answered_in_simulations():
    theta, rng = inside(RBC, 5), torch.Generator().manual_seed(0)
    seen, extra = RBC.simulate(theta, torch.randn(5, 60, 1, generator=rng, dtype=torch.float64), units="model")
    rest = RBC.steady_state(theta)
    levels = {n: rest[n][:, None]*(1 + extra[n]) for n in ("consumption", "investment")}
    assert torch.allclose(rest["output"][:, None]*(1 + seen[..., 0]), levels["consumption"] + levels["investment"], atol=1e-10, rtol=0)
    assert torch.allclose(seen[:, 1:, 1], extra["consumption"].diff(dim=1), atol=1e-12)
    assert set(extra) == {"capital", "consumption", "labour", "investment"} and extra["capital"].shape == (5, 60)
    delta = theta[:, 2:3]
    assert torch.allclose(extra["capital"][:, 1:], (1 - delta)*extra["capital"][:, :-1] + delta*extra["investment"][:, 1:], atol=1e-12)
    seen, extra = NK.simulate(inside(NK, 4), torch.randn(4, 30, 3, generator=rng, dtype=torch.float64))
    assert seen.shape == (4, 30, 3) and set(extra) == {"natural_rate", "cost_push"}

@pytest.mark.parametrize("world", (NK, RBC), ids=("nk", "rbc"))
def test_equations_hold_along_the_answers(world):
    "Expected paths obey the equations without shocks from the second quarter on, and with the shock in the first."
    theta = inside(world, 30, 2)
    F, G, H, M = world.system(theta)
    P, Q, _ = world.solve(theta)
    for shock in range(Q.shape[-1]):
        path = [Q[..., shock]]
        for _ in range(12): path.append((P @ path[-1][..., None])[..., 0])
        path = torch.stack(path, -1)
        at_once = F @ path[..., 1:2] + G @ path[..., :1] + M[..., shock:shock + 1]
        later = F @ path[..., 2:] + G @ path[..., 1:-1] + H @ path[..., :-2]
        assert at_once.abs().max() < 1e-11 and later.abs().max() < 1e-11

# gradients

def test_gradients_of_the_law():
    _, system = random_models(3, N=3, seed=4)
    system = [m.requires_grad_() for m in system]
    assert torch.autograd.gradcheck(solve_rational, system, atol=1e-6)
    assert torch.autograd.gradgradcheck(solve_rational, [m[:1].detach().requires_grad_() for m in system], atol=1e-5)

def with_outsiders(seed=6):
    "One random model of three variables, two more that follow nothing but themselves and matter today, tomorrow and yesterday; rows and columns shuffled."
    _, small = random_models(4, N=3, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    order, rows = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([1, 3, 0, 4, 2])
    system = []
    for k, block in enumerate(small[:3]):
        X = torch.zeros(4, 5, 5, dtype=torch.float64)
        X[:, :3, :3], X[:, :3, 3:] = block, torch.randn(4, 3, 2, generator=rng, dtype=torch.float64)
        if k: X[:, 3, 3], X[:, 4, 4] = ((1., 2.), (-.7, .5))[k - 1]
        system.append(X[:, rows][:, :, order])
    return system + [torch.randn(4, 5, 2, generator=rng, dtype=torch.float64)]

def test_variables_from_outside_are_set_aside():
    system = with_outsiders()
    assert exogenous(*system[:3]) == ([1, 3], [0, 2])
    P, Q = solve_rational(*system)
    assert residual(*system, P, Q).max() < 1e-11
    for i in range(4):
        p, q, stable = by_schur(*(m[i].numpy() for m in system))
        assert stable == 5 and np.abs(P[i].numpy() - p).max() < 1e-9 and np.abs(Q[i].numpy() - q).max() < 1e-9
    mixed = [torch.cat([m, torch.zeros_like(m)]) for m in system]             # one draw in which they are not: none is set aside
    mixed[0], mixed[1], mixed[2] = mixed[0].clone(), mixed[1].clone(), mixed[2].clone()
    mixed[0][4:], mixed[1][4:], mixed[2][4:] = .2*torch.ones(5, 5).double(), -torch.eye(5).double()*2, .1*torch.eye(5).double()
    assert exogenous(*mixed[:3]) == ([], [])
    together = solve_rational(*mixed)
    assert torch.allclose(together[0][:4], P, atol=1e-10) and torch.allclose(together[1][:4], Q, atol=1e-10)
    zeros = [torch.zeros(2, 2).double(), torch.eye(2).double()]               # nothing but such variables
    P, Q = solve_rational(zeros[0], zeros[1], -.5*zeros[1], zeros[1])
    assert torch.allclose(P, .5*zeros[1]) and torch.allclose(Q, -zeros[1])

def test_gradients_with_variables_from_outside():
    "Along directions that keep them outside, and along those that do not: the law is smooth in all entries."
    system = [m[:1].requires_grad_() for m in with_outsiders()]
    assert torch.autograd.gradcheck(solve_rational, system, atol=1e-6)

def test_slopes_by_a_double_backward():
    "Second pass through the solver: the slope along a direction, from cotangents that are zero."
    _, system = random_models(5, N=3, seed=9)
    system = [m.requires_grad_() for m in system]
    rng = torch.Generator().manual_seed(1)
    way = [torch.randn(m.shape, generator=rng, dtype=torch.float64) for m in system]
    law = solve_rational(*system)
    zero = [torch.zeros_like(x, requires_grad=True) for x in law]
    found = torch.autograd.grad(torch.autograd.grad(law, system, zero, create_graph=True), zero, way)
    for k, slope in enumerate(found):
        at = lambda h: solve_rational(*(m.detach() + h*w for m, w in zip(system, way)))[k]
        h = 1e-4*system[0].detach().abs().min().clamp(min=.1)
        expected = (8*(at(h) - at(-h)) - at(2*h) + at(-2*h))/(12*h)
        assert (slope - expected).abs().max() < 1e-6*(1 + expected.abs().max())

@pytest.mark.parametrize("world", (NK, RBC), ids=("nk", "rbc"))
def test_gradients_of_answers_are_their_slopes(world):
    theta = inside(world, 1, 3)[0]
    lower, upper = world.parameters.box()
    answer = lambda t: world.impulse_responses(t, horizon=10)
    slopes = torch.autograd.functional.jacobian(answer, theta)
    for p, name in enumerate(world.parameters.names):
        step = torch.zeros_like(theta)
        step[p] = 1e-4*(upper - lower)[p]
        expected = (8*(answer(theta + step) - answer(theta - step)) - answer(theta + 2*step) + answer(theta - 2*step))/(12*step[p])
        assert torch.allclose(slopes[..., p], expected, rtol=1e-5, atol=1e-7*expected.abs().max().item() + 1e-9), name

@pytest.mark.parametrize("world, silent", ((NK, {"r_ss"}), (RBC, set())), ids=("nk", "rbc"))
def test_every_parameter_moves_the_answers(world, silent):
    theta = inside(world, 10, 5)
    theta.requires_grad_()
    answers = world.impulse_responses(theta, horizon=20)
    found = torch.zeros(theta.shape[-1]).double()
    for shock in range(answers.shape[1]):
        for variable in range(3): found += torch.autograd.grad(answers[:, shock, :3, variable].sum(), theta, retain_graph=True)[0].abs().amin(0)
    assert {n for n, f in zip(world.parameters.names, found) if f < 1e-3} == silent

# conditions

def test_the_prior_has_one_solution_everywhere():
    for world in (NK, RBC):
        theta = inside(world, 3000, 6)
        assert world.valid(theta).all()
        corners = torch.cartesian_prod(*(torch.tensor([a, b]).double() for a, b in zip(world.parameters.lower[:8], world.parameters.upper[:8])))
        theta = world.parameters.tensor().repeat(len(corners), 1)
        theta[:, :corners.shape[1]] = corners
        assert world.valid(theta).all()
        found = world.impulse_responses(theta, horizon=5)
        assert found.isfinite().all()
        # the first candidate is kept: no draw was rejected
        assert torch.equal(world.sample(40, seed=3), torch.tensor(np.array([world.draw(rng) for rng in (draw_rng(3, world.name, i) for i in range(40))])))

def test_weak_rules_are_never_determinate_and_strong_ones_always():
    weak = NK.parameters.tensor({"phi_pi": torch.linspace(.2, .95, 60), "phi_y": 0., "rho_i": 0.})
    assert not NK.valid(weak).any()
    theta = inside(NK, 2000, 7)
    theta[:, 3] = torch.linspace(0, 2, 2000)
    beta, kappa, phi_pi, phi_y = theta[:, 1:5].unbind(-1)
    principle = kappa*(phi_pi - 1) + (1 - beta)*phi_y
    clear = principle.abs() > 1e-6
    assert torch.equal(NK.valid(theta)[clear], (principle > 0)[clear]) and 200 < (principle < 0).sum() < 1800

@pytest.mark.parametrize("phi_pi", (0., .5, .99, 1.))
def test_a_rule_that_answers_inflation_less_than_one_for_one_is_refused(phi_pi):
    with pytest.raises(IndeterminateError, match="Taylor principle"): NK.impulse_responses({"phi_pi": phi_pi, "phi_y": 0.})

@pytest.mark.parametrize("world, theta, words", (
    (NK, {"beta": 1.01}, "beta must be above 0 and at most 1"), (NK, {"sigma": 0.}, "sigma must be above 0"), (NK, {"kappa": -.1}, "kappa must be above 0"),
    (NK, {"rho_i": 1.}, "rho_i must lie"), (NK, {"rho_u": -1.1}, "rho_u must lie"), (NK, {"sigma_m": -.1}, "sigma_m must be 0 or more"), (NK, {"phi_y": -1.}, "phi_pi and phi_y"),
    (RBC, {"beta": 1.01}, "beta must be"), (RBC, {"alpha": 0.}, "alpha must lie"), (RBC, {"delta": 0.}, "delta must be"), (RBC, {"delta": 1.1}, "delta must be"),
    (RBC, {"gamma": 0.}, "gamma must be above 0"), (RBC, {"chi": -1.}, "chi must be"), (RBC, {"rho_a": 1.}, "rho_a must lie"), (RBC, {"sigma_a": -1.}, "sigma_a must be")))
def test_nonsense_is_refused_by_name_and_draw(world, theta, words):
    (name, bad), = theta.items()
    good = dict(zip(world.parameters.names, world.parameters.default))[name]
    with pytest.raises(IndeterminateError, match=words) as error: world.impulse_responses({name: torch.tensor([good, bad, good])})
    assert error.value.draws == [1]
    assert world.valid(world.parameters.tensor({name: torch.tensor([good, bad, good])})).tolist() == [True, False, True]

@pytest.mark.parametrize("world, theta", ((NK, {"beta": 1.}), (NK, {"rho_i": -.5}), (NK, {"rho_r": -.9, "rho_u": -.2}), (RBC, {"beta": 1.}), (RBC, {"rho_a": -.9})))
def test_what_has_a_solution_is_solved(world, theta):
    theta = world.parameters.tensor(theta)[None]
    found = residual(*world.system(theta), *solve_rational(*world.system(theta)))
    assert world.valid(theta).all() and found.max() < 1e-12
    assert world.impulse_responses(theta, 400)[:, :, -1].abs().max() < 1e-3

def test_a_root_at_the_edge_is_not_blamed_on_policy():
    with pytest.raises(IndeterminateError, match="so close to the unit circle") as error: NK.impulse_responses({"sigma": 1e8})
    assert "Taylor" not in str(error.value)

def test_explosive_models_are_reported_as_explosive():
    system = NK.system(NK.parameters.tensor({"rho_r": 1.1}))
    assert determinacy(*system[:3]) == -1
    with pytest.raises(IndeterminateError, match="explosive: fewer stable roots"): solve_rational(*system)
    one = torch.ones(3, 1, 1).double()
    with pytest.raises(IndeterminateError, match="explosive") as error: solve_rational(.4*one, -one, torch.tensor([.4, .9, .4]).double()[:, None, None], one)
    assert error.value.draws == [1]

@pytest.mark.parametrize("a, b, found", ((.5, .5, -1), (.6, .4, 1), (.4, .6, -1), (-.6, -.4, -1), (.5, .4999, 0), (1., -.5, 0), (.9, .9, -1)))
def test_roots_on_the_circle_belong_to_no_side(a, b, found):
    a, b = (torch.full((1, 1), x, dtype=torch.float64) for x in (a, b))
    assert determinacy(a, -torch.ones(1, 1).double(), b) == found

def test_the_right_number_of_roots_in_the_wrong_place():
    "A variable that explodes by itself beside one with two stable roots: two are stable as needed, and yet there is no solution."
    F, G, H = (torch.diag(torch.tensor(d, dtype=torch.float64)) for d in ((1.2, 0.), (-1., -1.), (.15, 2.)))
    assert np.allclose(roots(F, G, H).abs(), [(1 - .28**.5)/2.4, (1 + .28**.5)/2.4, 2.]) and determinacy(F, G, H) == 0
    with pytest.raises(IndeterminateError, match="undetermined"): solve_rational(F, G, H, torch.eye(2).double())

def test_a_variable_from_outside_that_explodes():
    "Money that grows by itself: none stable; beside a variable with many solutions the counts cancel, and the place is wrong."
    F, G, H, M = (torch.tensor(m, dtype=torch.float64) for m in ([[.5, 0.], [0., 0.]], [[-1., .5], [0., -1.]], [[0., 0.], [0., .8]], [[0.], [1.]]))
    G, H, M = G.expand(3, 2, 2), H.repeat(3, 1, 1), M.expand(3, 2, 1)
    H[1, 1, 1] = 1.2
    with pytest.raises(IndeterminateError, match="explosive") as error: solve_rational(F, G, H, M)
    assert error.value.draws == [1]
    with pytest.raises(IndeterminateError, match="undetermined") as error: solve_rational(F*torch.tensor([1., 3., 1.]).double()[:, None, None], G, H, M)
    assert error.value.draws == [1]

def test_bad_matrices_are_refused():
    one = torch.ones(1, 1).double()
    with pytest.raises(ValueError, match="H holds a number that is not finite"): solve_rational(one, one, one*torch.nan, one)
    with pytest.raises(ValueError, match=r"F has the shape \(2, 1\); with 1 variables"): solve_rational(torch.ones(2, 1).double(), one, one, one)

def test_models_without_past_or_without_future():
    eye, zero = torch.eye(2).double(), torch.zeros(2, 2).double()
    A = torch.tensor([[.5, .2], [.1, -.3]], dtype=torch.float64)
    assert torch.allclose(solve_rational(zero, -eye, A, eye)[0], A)
    P, Q = solve_rational(A, -eye, zero, eye)
    assert torch.equal(P, zero) and torch.allclose(Q, eye)
    assert [determinacy(*m).item() for m in ((zero, -eye, A), (A, -eye, zero), (zero, -eye, 3*A), (3*A, -eye, zero), (zero, -eye, zero))] == [0, 0, -1, 1, 0]

# what every answer has

@quick
@given(where=st.lists(unit, min_size=12, max_size=12), size=st.floats(-3, 3), kind=st.sampled_from(("nk", "rbc")))
def test_anywhere_in_the_box(where, size, kind):
    world = WORLDS[kind]()
    lower, upper = world.parameters.box()
    theta = lower + (upper - lower)*torch.tensor(where[:len(lower)], dtype=torch.float64)
    answer = world.impulse_responses(theta)
    assert answer.shape == (len(world.shocks), 41, 3) and answer.isfinite().all()
    assert torch.allclose(world.impulse_responses(theta, shock_size=size), size*answer, rtol=1e-10, atol=1e-12)
    assert (world.impulse_responses(theta, shock_size=0.) == 0).all()
    system = [m[None] for m in world.system(theta)]
    assert residual(*system, *world.solve(theta[None])[:2]).max() < 1e-10
    shocks = torch.zeros(41, len(world.shocks)).double()
    shocks[0, -1] = size
    assert torch.allclose(world.simulate(theta, shocks).observables, size*answer[-1], rtol=1e-9, atol=1e-11)

def test_signs_that_economists_expect():
    answer = NK.impulse_responses(inside(NK, 300, 8), horizon=0)[:, :, 0]
    output, inflation, rate = answer.unbind(-1)
    assert (output[:, 0] < 0).all() and (inflation[:, 0] < 0).all()                                 # tight money
    assert (output[:, 1] > 0).all() and (inflation[:, 1] > 0).all() and (rate[:, 1] > 0).all()      # demand
    assert (output[:, 2] < 0).all() and (inflation[:, 2] > 0).all()                                 # costs
    rbc = RBC.impulse_responses(inside(RBC, 300, 9), horizon=0)[:, 0, 0]
    assert (rbc[:, 0] > 0).all()

def test_the_matrix_sign():
    X = torch.randn(50, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values, vectors = torch.linalg.eig(X)
    expected = (vectors @ torch.diag_embed(torch.sign(values.real)).to(vectors) @ torch.linalg.inv(vectors)).real
    assert torch.allclose(matrix_sign(X), expected, atol=1e-9)
    X[7, 0, 0] = 0.         # no pivot to start with: this draw is done again
    assert not swept(X[7])[0].isfinite().all()
    values, vectors = torch.linalg.eig(X[7])
    expected[7] = (vectors @ torch.diag(torch.sign(values.real)).to(vectors) @ torch.linalg.inv(vectors)).real
    assert torch.allclose(matrix_sign(X), expected, atol=1e-9)

def test_inverses_by_two_ways():
    X = torch.randn(4, 4, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 4*torch.eye(4)[..., None]
    for found, expected in zip(swept(X), factored(X)): assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)

# a handful of draws goes another way

def test_a_model_is_judged_alike_alone_and_among_many():
    "Two hundred models of all kinds; each alone, in fours, and all at once."
    generator = torch.Generator().manual_seed(4)
    make = lambda: torch.randn(200, 3, 3, generator=generator, dtype=torch.float64)
    F, G, H = .6*make(), -torch.eye(3) + .3*make(), .6*make()
    H[:, :, 2], F[:, 2], H[:, 2, :2], G[:, 2, :2] = 0, 0, 0, 0
    together = determinacy(F, G, H)
    assert set(together.tolist()) == {-1, 0, 1}
    assert [int(determinacy(F[i], G[i], H[i])) for i in range(200)] == together.tolist()
    assert torch.equal(torch.cat([determinacy(*(x[i:i + 4] for x in (F, G, H))) for i in range(0, 200, 4)]), together)
    good = (together == 0).nonzero().flatten()
    M = torch.ones(200, 3, 1).double()
    P, Q = solve_rational(*(x[good] for x in (F, G, H, M)))
    for k, i in enumerate(good.tolist()):
        alone = solve_rational(F[i], G[i], H[i], M[i])
        assert torch.allclose(alone[0], P[k], atol=1e-9) and torch.allclose(alone[1], Q[k], atol=1e-9)
    for i in (together != 0).nonzero().flatten().tolist()[:20]:
        with pytest.raises(IndeterminateError, match="indeterminate" if together[i] > 0 else "explosive"):
            solve_rational(F[i], G[i], H[i], M[i])

def test_one_draw_has_the_slopes_of_many():
    theta = NK.parameters.tensor(None)[None].requires_grad_()
    many = theta.detach().repeat(9, 1).requires_grad_()
    alone, among = (torch.autograd.grad(NK.impulse_responses(t)[0].square().sum(), t)[0][0] for t in (theta, many))
    torch.testing.assert_close(alone, among, rtol=1e-9, atol=1e-9)

def test_numbers_that_are_none_have_no_roots():
    bad = torch.full((1, 2, 2), torch.nan).double()
    assert determinacy(bad, bad, bad).shape == (1,)
