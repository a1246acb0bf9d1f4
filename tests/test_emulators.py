"""Emulators answer each parameter by its name, each shock by its own, each row of a batch as if it were alone, and each question only where they have learnt."""
import math
from dataclasses import replace

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st

from synthlab.datasets.responses import regions
from synthlab.datasets.world import MatrixForm, Parameters, StateSpace
from synthlab.datasets.worlds import ORDER, get_world
from synthlab.models.emulator_domain import plain_domain, read_domain, world_domain
from synthlab.models.emulators import Emulator
from synthlab.models.response_decoders import MatrixReader, PoleDecoder, cascade
from synthlab.models.universal import UniversalEmulator, token_features
from synthlab.trainers.checkpoints import load_checkpoint, save_checkpoint
from synthlab.trainers.response_losses import ResponseObjective
from synthlab.trainers.steps import TensorBatches, TrainingConfig
from synthlab.trainers.trainer import Trainer

quick = settings(derandomize=True, deadline=None, max_examples=25)
seeds = st.integers(0, 2**32 - 1)
MIXED = "rbc", "nk", "lss", "switching"         # one shock, three, two, two; without a reader and with one, of one regime and of two
H = 10

def draws(name, n, seed=0, history=0):
    "Draws of a world as an emulator is taught them."
    world = get_world(name)
    theta = world.sample(n, seed)
    part = dict(theta=theta.float(), irf=world.impulse_responses(theta, H).float())
    if history:
        eps = torch.randn(n, history, len(world.shocks), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        part["history"] = world.simulate(theta, eps).observables.float()
    return part

def mixed(data, emulator, fill=0.):
    "All draws of several worlds as one batch; `fill` is what stands in the padding."
    P, S = max(d["theta"].shape[1] for d in data.values()), emulator.max_shocks
    parts = dict(theta=[], irf=[], irf_mask=[], world=[])
    for name, d in data.items():
        n, k = len(d["theta"]), d["irf"].shape[1]
        theta, irf = torch.full((n, P), fill), torch.full((n, S, *d["irf"].shape[2:]), fill)
        theta[:, :d["theta"].shape[1]], irf[:, :k] = d["theta"], d["irf"]
        for key, value in dict(theta=theta, irf=irf, irf_mask=(torch.arange(S) < k).expand(n, S), world=torch.full((n,), emulator.index(name))).items(): parts[key].append(value)
        if "history" in d: parts.setdefault("history", []).append(d["history"])
    return {k: torch.cat(v) for k, v in parts.items()}

def network(worlds=MIXED, seed=0, **options):
    "A small network whose weights are all random, so that nothing is silent because it begins with zeros."
    torch.manual_seed(seed)
    emulator = UniversalEmulator(worlds, **dict(horizon=H, d_model=16, layers=2, poles=3) | options)
    if not emulator.held_out:
        with torch.no_grad():
            for p in emulator.parameters(): p.add_(.1*torch.randn(p.shape))
    return emulator.eval()

@pytest.fixture(scope="module")
def data(): return {name: draws(name, 12, seed=3) for name in MIXED}

@pytest.fixture(scope="module")
def emulator(data): return network().learn_scales(data)

said = lambda emulator, *a, **kw: emulator.respond(*a, **kw)[0].detach()
far = lambda a, b: ((a - b).abs().max()/a.abs().max()).item()

# names

@pytest.mark.parametrize("forms", [True, False])
@pytest.mark.parametrize("name", [n for n in ORDER])
def test_exchanging_two_parameters_changes_the_answer(name, forms):
    "The same places in the prior under other names are another economy."
    emulator, p = network([name], use_forms=forms), get_world(name).parameters
    lower, upper = p.box()
    place = torch.rand(1, len(p), generator=torch.Generator().manual_seed(1)).double()
    at = lambda place: (lower + place*(upper - lower)).float()
    answer = said(emulator, at(place), name)
    for i in range(1, len(p), 4):
        other = place.clone(); other[:, [i - 1, i]] = place[:, [i, i - 1]]
        if name == "var" and forms and i < 3: continue          # constants of a vector autoregression are in no response
        assert far(answer, said(emulator, at(other), name)) > 1e-4, (p.names[i - 1], p.names[i])

def test_a_name_means_the_same_in_two_worlds():
    "nk and zlb share their names, so they share the vectors of their tokens and shocks; only the world's own vector tells them apart."
    emulator = network(["nk", "zlb"])
    theta = get_world("nk").sample(3).float()
    assert len(emulator.tokens) == 12 and len(emulator.shocks) == 3
    assert far(said(emulator, theta, "nk"), said(emulator, theta, "zlb")) > 1e-4
    with torch.no_grad(): emulator.own[1] = emulator.own[0]
    assert torch.equal(said(emulator, theta, "nk"), said(emulator, theta, "zlb"))
    assert torch.equal(said(network(["nk", "zlb"], use_world=False), theta, "nk"), said(network(["nk", "zlb"], use_world=False), theta, "zlb"))

@given(seeds)
@quick
def test_features_stay_in_their_range(seed):
    "Inside the prior every way of telling a value lies in [-1, 1], and grows with the value."
    rng = np.random.default_rng(seed)
    lower = np.where(rng.random(6) < .5, rng.uniform(.001, .3, 6), rng.choice([-1., 0.], 6))
    upper = np.where(rng.random(6) < .5, rng.uniform(.4, .999, 6), rng.uniform(1., 5., 6))
    p = Parameters(tuple("abcdef"), tuple(lower), tuple(upper), tuple((lower + upper)/2))
    told = token_features(p, torch.linspace(0, 1, 11, dtype=torch.float64)[:, None]*torch.tensor(upper - lower) + torch.tensor(lower))
    assert told.isfinite().all() and (told.abs() <= 1 + 1e-9).all()
    assert (told.diff(dim=0) >= 0).all() and (told[..., 0].diff(dim=0) > 0).all()

# shocks

@pytest.mark.parametrize("name", ["nk", "zlb"])
def test_every_shock_is_trained(name):
    "The gradient reaches the read-out of each shock, and what is taught of one shock changes that read-out alone."
    emulator, part = network([name]), draws(name, 4, seed=1)
    emulator.learn_scales({name: part})
    def gradients(irf):
        emulator.zero_grad()
        ResponseObjective(emulator).loss(mixed({name: dict(part, irf=irf)}, emulator), "model", None)[0].backward()
        return torch.stack([emulator.read.grad.flatten(1), emulator.line.grad.flatten(1)]).clone()
    before = gradients(part["irf"])
    assert (before.abs().amax(-1) > 1e-6).all()
    for s in range(3):
        irf = part["irf"].clone(); irf[:, s] *= -2
        changed = (gradients(irf) - before).abs().amax((0, 2)) > 1e-7
        assert changed.tolist() == [s == k for k in range(3)]

def test_every_shock_is_learnt():
    "A few steps of training lower the error of each shock, not of the first alone."
    torch.manual_seed(0)
    part, emulator = draws("nk", 192, seed=1), UniversalEmulator(["nk"], horizon=H, d_model=32, layers=1)
    emulator.learn_scales({"nk": part})
    batch = mixed({"nk": part}, emulator)
    def errors():
        with torch.no_grad(): return (emulator.predict(batch)[0] - batch["irf"]/emulator.scale_of(batch)).square().mean((0, 2, 3))
    before = errors()
    batches = TensorBatches(batch, 64)
    Trainer(ResponseObjective(emulator), TrainingConfig(epochs=4, lr=1e-2, patience=0), progress=False).fit(batches, batches)
    assert (errors() < .5*before).all()

# batches

@pytest.mark.parametrize("regime", ["A", "B1", "C"])
def test_padding_changes_nothing(regime):
    "A row answers in a mixed batch as alone, with the same gradients, whatever stands in the padding."
    data = {name: draws(name, 5, seed=3, history=8 if regime != "A" else 0) for name in MIXED}
    emulator = network(regime=regime).learn_scales(data)
    objective = ResponseObjective(emulator)
    def learnt(batch, weight=1.):
        loss = objective.loss(batch, "model", None)[0]
        (weight*loss).backward()
        return loss.item()
    def gradients(): return {k: p.grad.clone() for k, p in emulator.named_parameters() if p.grad is not None}
    emulator.zero_grad(); whole = learnt(mixed(data, emulator)); together = gradients()
    emulator.zero_grad(); soiled = learnt(mixed(data, emulator, math.nan)); assert soiled == whole
    assert all(torch.equal(g, together[k]) for k, g in gradients().items())
    emulator.zero_grad(); alone = sum(learnt(mixed({n: d}, emulator), .25) for n, d in data.items())/4
    assert alone == pytest.approx(whole, rel=1e-5)
    apart = gradients()
    assert apart.keys() == together.keys() and all(torch.allclose(g, together[k], rtol=1e-4, atol=1e-6) for k, g in apart.items())
    numbers, dirty = (objective.evaluate(mixed(data, emulator, fill), None) for fill in (0., math.nan))
    assert all(torch.equal(v, dirty[k]) for k, v in numbers.items())

@given(st.permutations(range(20)))
@settings(quick, max_examples=8)
def test_a_mixed_batch_is_its_worlds_in_any_order(order):
    "`predict` gives row by row what `respond` gives world by world."
    batch = {k: v[list(order)] for k, v in BATCH.items()}
    mean, spread = FOUR.predict(batch)
    assert mean.shape == (20, 3, H + 1, 3) and spread.shape == mean.shape
    for row, (i, theta) in enumerate(zip(batch["world"].tolist(), batch["theta"])):
        world = FOUR.worlds[FOUR.names[i]]
        alone, log_spread = FOUR.respond(theta[None, :len(world.parameters)], world.name)
        S = len(world.shocks)
        assert torch.allclose(mean[row, :S], alone[0], rtol=1e-5, atol=1e-6) and torch.allclose(spread[row, :S], log_spread[0], rtol=1e-5, atol=1e-6)
        assert not mean[row, S:].any() and not spread[row, S:].any()

FOUR = network()
BATCH = mixed({name: draws(name, 5, seed=4) for name in MIXED}, FOUR)

def test_answers_in_percent_are_the_same_whoever_asks(emulator, data):
    "`forward` on a mixed batch, `forward` on one world and `impulse_responses` agree."
    batch = mixed(data, emulator)
    names = [emulator.names[i] for i in batch["world"]]
    every = emulator(batch["theta"], names)
    for name, d in data.items():
        S, rows = d["irf"].shape[1], [i for i, n in enumerate(names) if n == name]
        asked = emulator.impulse_responses(d["theta"], name, guard="off")
        assert torch.equal(asked, emulator(d["theta"], name)) and torch.allclose(every[rows, :S], asked, rtol=1e-5, atol=1e-6*asked.abs().max().item())
    lead = emulator.impulse_responses(data["nk"]["theta"].reshape(3, 4, 12), "nk", guard="off")
    assert torch.equal(lead.flatten(0, 1), emulator.impulse_responses(data["nk"]["theta"], "nk", guard="off"))

# worlds that are not taught

def test_what_only_a_held_out_world_has_says_nothing():
    "After training, tokens, shocks and the vector of a world that was never seen are exactly zero, and those it shares with others are not."
    torch.manual_seed(0)
    emulator = UniversalEmulator(["nk", "rbc", "lss"], horizon=H, d_model=16, layers=1, poles=3, held_out=["rbc"])
    taught = {name: draws(name, 32, seed=1) for name in ("nk", "lss")}
    emulator.learn_scales(taught)
    batches = TensorBatches(mixed(taught, emulator), 16)
    before = {k: v.clone() for k, v in emulator.state_dict().items()}
    Trainer(ResponseObjective(emulator), TrainingConfig(epochs=2, lr=1e-2, weight_decay=.1), progress=False).fit(batches, batches)
    only = [i for i, t in enumerate(emulator.tokens) if t in emulator.worlds["rbc"].parameters.names and t not in emulator.worlds["nk"].parameters.names]
    shared = emulator.tokens.index("beta")
    assert len(only) == 6 and not emulator.values[only].any() and not emulator.own[1].any()
    technology = emulator.shocks.index("technology")
    assert not emulator.read[technology].any() and not emulator.line[technology].any()
    moved = lambda k: not torch.equal(before[k], emulator.state_dict()[k])
    assert moved("values") and moved("own") and moved("read") and emulator.values[shared].any()
    assert not torch.equal(before["values"][shared], emulator.values[shared])
    theta, other = (get_world("rbc").sample(4, seed=s).float() for s in (0, 9))
    beta = emulator.worlds["rbc"].parameters.names.index("beta")
    other[:, beta] = theta[:, beta]
    assert torch.equal(emulator.respond(theta, "rbc")[1], emulator.respond(other, "rbc")[1])

@pytest.mark.parametrize("name", ["lss", "switching"])
def test_the_units_of_a_reader_need_no_answers(name):
    "What a held-out world's reader knows is a function of its parameters alone: other answers leave it as it is, other parameters do not."
    def unit(theta, irf):
        emulator = network([name, "nk"], held_out=[name])
        emulator.learn_scales({name: dict(theta=theta, irf=irf)})
        return emulator.readers[name].unit.clone()
    part = draws(name, 20, seed=1)
    first = unit(part["theta"], part["irf"])
    assert torch.equal(first, unit(part["theta"], -7*part["irf"] + 1)) and not torch.equal(first, torch.ones_like(first))
    assert not torch.equal(first, unit(draws(name, 20, seed=2)["theta"], part["irf"]))

# what is told

@pytest.mark.parametrize("regime,reads_theta,reads_history", [("A", True, False), ("B1", False, True), ("C", True, True)])
@pytest.mark.parametrize("name", MIXED)
def test_a_regime_reads_what_it_is_told(regime, name, reads_theta, reads_history):
    "Nothing that is hidden shows in an answer, and nothing that is told is lost."
    one, two = (draws(name, 3, seed=s, history=20) for s in (5, 6))
    emulator = network(regime=regime).learn_scales({name: one})
    answer = lambda d, past: emulator.impulse_responses(d["theta"], name, guard="off", history=past["history"]).detach()
    base = answer(one, one)
    assert (far(base, answer(two, one)) > 1e-4) == reads_theta and torch.equal(base, answer(two, one)) != reads_theta
    if name == "lss" and regime == "C": return          # a reader of one regime has nothing left to ask a history
    assert (far(base, answer(one, two)) > 1e-5) == reads_history and torch.equal(base, answer(one, two)) != reads_history

@pytest.mark.parametrize("regime", ["B1", "C"])
def test_a_missing_history_is_asked_for(regime):
    with pytest.raises(ValueError, match=f"regime {regime} reads a history"): network(regime=regime).impulse_responses({}, "nk")

def test_a_history_belongs_to_its_draw():
    "One for each draw, or one for all; whatever else is given is refused, and never cut into pieces."
    emulator = network(["nk"], regime="B1")
    past = draws("nk", 4, history=30)["history"]
    each = emulator.impulse_responses(get_world("nk").sample(4), "nk", history=past)
    assert torch.allclose(each[2], emulator.impulse_responses({}, "nk", history=past[2]), rtol=1e-5, atol=1e-6)
    for theta, history in (({}, past), ({"kappa": [.1, .2]}, past), ({"kappa": [.1, .2]}, past[0])):
        try: found = emulator.impulse_responses(theta, "nk", history=history)
        except ValueError: continue
        lead = torch.broadcast_shapes(torch.as_tensor(theta.get("kappa", 0.)).shape, history.shape[:-2])
        assert found.shape[:-3] == lead
        if lead == (4,): assert torch.allclose(found, each, rtol=1e-5, atol=1e-6)

def test_an_unknown_regime_is_refused():
    with pytest.raises(ValueError, match="use A, B1 or C"): network(regime="B2")

def test_only_the_last_quarters_are_read():
    "Whatever lies before the window of a history changes nothing."
    emulator = network(["nk"], regime="B1", history_length=12)
    past = draws("nk", 2, history=30)["history"]
    other = past.clone(); other[:, :18] = 9.
    assert torch.equal(said(emulator, None, "nk", past), said(emulator, None, "nk", other))
    other[:, 18] += 1
    assert not torch.equal(said(emulator, None, "nk", past), said(emulator, None, "nk", other))

# scales

def test_scales_come_from_training_draws_alone(data):
    "Neither training, nor validation draws a hundred times as large, nor a question changes them."
    emulator = network().learn_scales(data)
    expected = {n: d["irf"].double().square().mean((0, 2)).sqrt() for n, d in data.items()}
    buffers = {k: v.clone() for k, v in emulator.named_buffers()}
    for i, (name, d) in enumerate(data.items()):
        S = d["irf"].shape[1]
        moves = expected[name] > 1e-6*expected[name].amax(-1, keepdim=True)
        assert torch.allclose(emulator.scale[i, :S].double()[moves], expected[name][moves], rtol=1e-5) and (emulator.scale[i, S:] == 1).all()
    val = {n: dict(d, irf=100*d["irf"]) for n, d in data.items()}
    train, val = (TensorBatches(mixed(d, emulator), 16) for d in (data, val))
    Trainer(ResponseObjective(emulator), TrainingConfig(epochs=1), progress=False).fit(train, val)
    emulator.impulse_responses({}, "nk")
    assert all(torch.equal(v, buffers[k]) for k, v in emulator.named_buffers() if "band" not in k)

# the guard

def test_the_guard(emulator):
    "A draw outside the prior is refused, left out, or answered; its neighbours are answered as if it were not there."
    ask = lambda kappa, guard: emulator.impulse_responses({"kappa": kappa}, "nk", guard=guard).detach()
    with pytest.raises(ValueError, match=r"nk: kappa = 0.9 lies outside the prior, 0.01 to 0.5"): ask([.1, .9, .2], "error")
    left = ask([.1, .9, .2], "nan")
    assert left.isnan().flatten(1).all(1).tolist() == [False, True, False] and left.isnan().flatten(1).any(1).tolist() == [False, True, False]
    off = ask([.1, .9, .2], "off")
    assert off.isfinite().all() and torch.equal(off[[0, 2]], left[[0, 2]]) and torch.allclose(ask([.1, .2], "error"), off[[0, 2]], rtol=1e-5)
    solved = ask([.1, .9, .2], "solver")
    assert torch.equal(solved[[0, 2]], left[[0, 2]]) and torch.allclose(solved[1], get_world("nk").impulse_responses({"kappa": .9}, H).float(), atol=1e-6)
    assert torch.equal(emulator.impulse_responses({"kappa": [.1, .9, .2]}, "nk").detach(), solved)      # what happens unless one says otherwise
    with pytest.raises(ValueError, match="use solver, error, nan, fill or off"): ask(.1, "of")
    with pytest.raises(ValueError, match="answers in percent"): emulator.impulse_responses({}, "nk", units="model")
    with pytest.raises(ValueError, match="it knows rbc, nk, lss, switching"): emulator.impulse_responses({}, "zlb")

@pytest.mark.parametrize("name", ORDER)
def test_the_guard_lets_the_whole_prior_pass(name):
    "Draws of the world, its default and the ends of its box are inside, also when they were rounded to 32 bits; but for ends where the model has no solution."
    emulator, world, ends = network([name]), get_world(name), torch.stack(get_world(name).parameters.box())
    for theta in (world.sample(50, seed=7).float(), {}): assert emulator.impulse_responses(theta, name, guard="error").isfinite().all()
    for theta in (ends, ends.float()):
        assert emulator.outside(theta, name).tolist() == (~world.valid(ends)).tolist()
        answers = emulator.impulse_responses(theta, name, guard="nan").isfinite().flatten(1).all(1)
        assert answers.tolist() == world.valid(ends).tolist()

@pytest.mark.parametrize("name", ["nk", "rbc", "zlb", "switching"])
def test_nothing_is_answered_in_silence_where_nothing_was_taught(name):
    "Draws of a region that was kept from training, or without a solution, are solved, refused or left out; the network's own answer never comes but when it is forced."
    emulator, world = network([name]), get_world(name)
    lower, upper = world.parameters.box()
    boxed = lower + (upper - lower)*torch.rand(300, len(world.parameters), generator=torch.Generator().manual_seed(0)).double()
    theta = torch.cat([world.sample(150 if name != "zlb" else 60, seed=3), boxed[:40 if name == "zlb" else None]])
    whole, good = emulator.outside(theta, name), world.valid(theta)
    assert whole.tolist() == (~good).tolist()
    emulator.domains[name] = world_domain(world, everywhere=False)
    out, inside = emulator.outside(theta, name), regions(world, theta)
    assert out.tolist() == (~good | torch.from_numpy(inside["slice"] | inside["corner"])).tolist() and (out & good).any()
    forced, filled, left = (emulator.impulse_responses(theta, name, guard=g).detach() for g in ("off", "fill", "nan"))
    rows = lambda x: x.flatten(1)
    assert torch.allclose(filled[~out], forced[~out], rtol=1e-5, atol=1e-6) and left[out].isnan().all() and filled[~good].isnan().all()
    exact = world.impulse_responses(theta[out & good], H).float()
    assert torch.allclose(filled[out & good], exact, rtol=1e-5, atol=1e-6) and (rows(forced[out & good] - exact).abs().amax(1) > 1e-4).all()
    with pytest.raises(ValueError, match="was kept from training|there is|must be|lies outside|spiral|no path|explosive|determinate"): emulator.impulse_responses(theta[out], name, guard="error")
    if not good.all():
        with pytest.raises(ValueError, match="nor has the solver an answer"): emulator.impulse_responses(theta, name)

@pytest.mark.parametrize("name", ["nk", "rbc"])
def test_a_box_that_is_said_to_be_solvable_is(name):
    "Its corners, its edges and what lies between; so the guard need not ask."
    world = get_world(name)
    lower, upper = world.parameters.box()
    place = torch.rand(6000, len(world.parameters), generator=torch.Generator().manual_seed(0)).double()
    place[:4000] = place[:4000].round()                     # corners
    place[4000:5000] = torch.where(place[4000:5000] < .3, 0., torch.where(place[4000:5000] > .7, 1., place[4000:5000]))
    assert world.solvable and not get_world("zlb").solvable and world.valid(lower + (upper - lower)*place).all()
    wider = replace(world_domain(world), lower=tuple(v - .6 if n == "phi_pi" else v for n, v in zip(world.parameters.names, world.parameters.lower)))
    if name == "nk": assert wider.outside(world, world.parameters.tensor({"phi_pi": [.5, 1.5]})).tolist() == [True, False]

def test_gradients_pass_through_the_solver():
    "A sampler that strays from the domain is led by the slope of the solver, and stopped by nothing at all."
    emulator = network(["nk"])
    emulator.domains["nk"] = world_domain(get_world("nk"), everywhere=False)
    theta = get_world("nk").parameters.tensor({"phi_pi": [1.5, 3.45, .5]}).requires_grad_()
    emulator.impulse_responses(theta, "nk", guard="fill")[:2].sum().backward()
    assert theta.grad.isfinite().all() and (theta.grad[:2].abs().amax(1) > 0).all() and not theta.grad[2].any()
    exact = get_world("nk").parameters.tensor({"phi_pi": 3.45}).requires_grad_()
    get_world("nk").impulse_responses(exact, H).sum().backward()
    assert torch.allclose(theta.grad[1], exact.grad, rtol=1e-4)

def test_a_history_cannot_be_solved():
    "Who is told no parameters refuses where nothing was learnt."
    emulator = network(["nk"], regime="B1")
    with pytest.raises(ValueError, match="kappa = 0.9 lies outside"): emulator.impulse_responses({"kappa": .9}, "nk", history=torch.zeros(20, 3))

@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=4), lambda x: st.lists(x, max_size=8) | st.dictionaries(st.sampled_from(["lower", "upper", "regions", "taught", "slice"]), x, max_size=4), max_leaves=12))
@quick
def test_a_domain_from_a_stranger_is_read_or_refused(said):
    "Whatever stands in a checkpoint as a domain: one sentence, or a domain that can be asked."
    world = get_world("rbc")
    whole = plain_domain(world_domain(world, everywhere=False))
    for found in (said, whole | dict(regions=said), whole | dict(lower=said), whole | dict(taught=said), whole | dict(regions=dict(slice=[["rho_a", "above", said]]))):
        try: domain = read_domain(world, found)
        except ValueError as e: assert "domain of rbc" in str(e) and "\n" not in str(e); continue
        assert domain.outside(world, world.sample(2)).dtype == torch.bool

def test_a_world_that_is_not_proportional_refuses_other_sizes():
    "At the bound twice the shock is not twice the answer, and an emulator that has learnt one size says so; a linear world's answer is scaled."
    world = get_world("zlb")
    once, twice = (world.impulse_responses({}, H, shock_size=s) for s in (1., 2.))
    assert (twice - 2*once).abs().max() > .01*once.abs().max()
    emulator = network(["zlb", "nk"])
    with pytest.raises(ValueError, match="zlb does not answer in proportion"): emulator.impulse_responses({}, "zlb", shock_size=2.)
    assert emulator.impulse_responses({}, "zlb").shape == (3, H + 1, 3)
    assert torch.allclose(emulator.impulse_responses({}, "nk", shock_size=-2.), -2*emulator.impulse_responses({}, "nk"))

# gradients

@pytest.mark.parametrize("name,regime", [("nk", "A"), ("rbc", "A"), ("lss", "A"), ("switching", "A"), ("switching", "C")])
def test_gradients_are_those_of_finite_differences(name, regime):
    "What Hamiltonian samplers follow is the slope of the very function that they ask."
    emulator = network([name], horizon=4, regime=regime).double()
    history = draws(name, 1, history=6)["history"] if regime == "C" else None
    theta = get_world(name).sample(1, seed=2)[0].requires_grad_()
    ask = lambda theta: emulator.impulse_responses(theta, name, guard="off", history=None if history is None else history[0])
    assert ask(theta).dtype == torch.float64
    assert torch.autograd.gradcheck(ask, theta, eps=1e-7, atol=1e-6, rtol=1e-5)

# paths

@pytest.mark.parametrize("name", ["lss", "var"])
def test_a_path_is_the_sum_of_responses(name):
    "Where a reader leaves nothing to learn, simulated paths are the world's own, up to the horizon; a draw's path does not depend on its neighbours."
    world = get_world(name)
    emulator = UniversalEmulator([name], horizon=30).double()
    theta = world.sample(6, seed=1)
    emulator.learn_scales({name: dict(theta=theta, irf=world.impulse_responses(theta, 30))})
    shocks = torch.randn(6, 31, len(world.shocks), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = emulator.simulate(theta, name, shocks)
    assert far(world.simulate(theta, shocks).observables, path.detach()) < 1e-9
    assert torch.allclose(emulator.simulate(theta[3], name, shocks[3]), path[3], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="zlb does not answer in proportion"): network(["zlb"]).simulate({}, "zlb", shocks[0])

# error bars

class Rough(Emulator):
    "A cheap emulator: the world beside the draw that is asked, and a spread that knows which half of the prior is hard."
    def respond(self, theta, world, history=None):
        known = self.worlds[world]
        hard = (known.parameters.normalise(theta)[:, 0] > 0).double()
        noise = torch.sin(1e5*theta.double().sum(-1))*(.02 + .2*hard)           # a number that looks random and belongs to the draw
        exact = known.impulse_responses(theta.double(), self.horizon)/self.scale[self.index(world), :len(known.shocks), None]
        return (exact*(1 + noise[:, None, None, None])).float(), (.1 + hard).log()[:, None, None, None].expand_as(exact).float()

def test_bands_hold_what_they_promise():
    "Calibrated on some draws, whole responses of fresh draws lie inside as often as was asked; without calibration there are none."
    emulator = Rough(["rbc", "nk"], H).learn_scales({n: draws(n, 100, seed=1) for n in ("rbc", "nk")})
    with pytest.raises(ValueError, match="the error bars of rbc are not calibrated"): emulator.bands({}, "rbc")
    emulator.calibrate(mixed({n: draws(n, 600, seed=2) for n in ("rbc", "nk")}, emulator))
    for level in (.9, .6):
        for name in "rbc", "nk":
            fresh = draws(name, 1000, seed=3)
            lower, upper = emulator.bands(fresh["theta"], name, level=level)
            inside = ((lower <= fresh["irf"]) & (fresh["irf"] <= upper)).flatten(1).all(1).float().mean().item()
            assert (lower <= upper).all() and abs(inside - level) < 4*(level*(1 - level)*(1/600 + 1/1000))**.5
            low, high = emulator.bands(fresh["theta"], name, level=level, pointwise=True)
            single = ((low <= fresh["irf"]) & (fresh["irf"] <= high)).float().mean().item()
            assert abs(single - level) < 4*(level*(1 - level)*(1/600 + 1/1000))**.5 and (high - low).median() < (upper - lower).median()
    lower, upper = emulator.bands({"kappa": [.1, .9]}, "nk", guard="nan")
    assert lower.isnan().flatten(1).all(1).tolist() == upper.isnan().flatten(1).all(1).tolist() == [False, True]
    low, high = emulator.bands({}, "nk", shock_size=-2.)
    assert (low <= high).all() and torch.allclose(high - low, 2*torch.stack(emulator.bands({}, "nk")).diff(dim=0)[0], rtol=1e-4)

def test_bands_hold_in_every_tenth_of_every_parameter():
    "Errors that grow with one parameter are held at both of its ends, and at those of all others; one width for all would hold them in the middle only."
    name, world = "rbc", get_world("rbc")
    fair = lambda theta: world.parameters.normalise(theta.double())[:, 5]           # rho_a
    class Uneven(Emulator):
        def respond(self, theta, world, history=None):
            known = self.worlds[world]
            noise = torch.randn(len(theta), 1, self.horizon + 1, 3, generator=torch.Generator().manual_seed(len(theta))).double()
            exact = known.impulse_responses(theta.double(), self.horizon)/self.scale[0, :1, None]
            return exact + .01*noise*(1.5*fair(theta)).exp()[:, None, None, None], torch.full_like(exact, math.log(.01))
    emulator, fresh = Uneven([name], H).double(), draws(name, 6000, seed=3)
    emulator.calibrate(mixed({name: draws(name, 4000, seed=2)}, emulator))
    lower, upper = emulator.bands(fresh["theta"], name, guard="off")
    held = ((lower <= fresh["irf"]) & (fresh["irf"] <= upper)).flatten(1).all(1).double()
    assert abs(held.mean() - .9) < .02
    ends = torch.stack([held[order[part]].mean() for order in fresh["theta"].argsort(0).T for part in (slice(600), slice(-600, None))])
    assert ((ends > .85) & (ends < .95)).all(), ends
    flat = (upper - lower).flatten(1).amax(1).median()/2
    plain = ((emulator.impulse_responses(fresh["theta"], name, guard="off") - fresh["irf"]).abs().flatten(1).amax(1) <= flat).double()
    assert plain[fair(fresh["theta"]).argsort()[-600:]].mean() < .5

@pytest.mark.parametrize("level", [0, 1, 90, -.1, .9999, math.nan])
def test_a_level_that_no_band_has_is_refused(level, data):
    emulator = network().learn_scales(data)
    emulator.calibrate(mixed(data, emulator))
    with pytest.raises(ValueError, match="such as .9"): emulator.bands({}, "nk", level=level)
    with pytest.raises(ValueError, match="too few calibration draws"): emulator.bands({}, "nk", level=.99)

def test_the_spread_never_touches_the_answer(data):
    "Learning error bars moves no weight that an answer depends on."
    emulator = network().learn_scales(data)
    _, spread = emulator.predict(mixed(data, emulator))
    spread.sum().backward()
    assert {k for k, p in emulator.named_parameters() if p.grad is not None and p.grad.any()} == {"unsure", "unsure_when"}

# keeping

def test_a_kept_emulator_answers_with_the_same_bits(tmp_path, data):
    "Weights, scales and error bars come back from a checkpoint, into an emulator that was made with another seed."
    first = network().learn_scales(data)
    first.calibrate(mixed(data, first))
    save_checkpoint(tmp_path/"best.safetensors", {f"model/{k}": v for k, v in first.state_dict().items()}, {})
    second = network(seed=1)
    tensors, _ = load_checkpoint(tmp_path/"best.safetensors", second.state_dict())
    second.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items()})
    for name, d in data.items():
        assert torch.equal(first(d["theta"], name), second(d["theta"], name))
        assert all(torch.equal(a, b) for a, b in zip(first.bands(d["theta"], name, guard="off"), second.bands(d["theta"], name, guard="off")))
    with pytest.raises(ValueError, match="another model"): load_checkpoint(tmp_path/"best.safetensors", network(MIXED[:3]).state_dict())

# decoders

@pytest.mark.parametrize("name", ["lss", "var"])
@pytest.mark.parametrize("dtype,eps", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_reader_of_one_regime_is_the_world(name, dtype, eps):
    "Matrices read from the parameters leave nothing to learn."
    world = get_world(name)
    emulator = UniversalEmulator([name]).to(dtype)
    theta = world.sample(64, seed=1)
    exact = world.impulse_responses(theta)
    emulator.learn_scales({name: dict(theta=theta.to(dtype), irf=exact.to(dtype))})
    fresh = world.sample(64, seed=2)
    assert far(world.impulse_responses(fresh), emulator.impulse_responses(fresh, name).detach().double()) < eps

def powers(A, B, C, horizon):
    "Responses of one system, by multiplication: (S, H+1, V)."
    return np.stack([(C @ np.linalg.matrix_power(A, h) @ B).T for h in range(horizon + 1)], 1)

@given(seeds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 17))
@quick
def test_a_reader_multiplies_what_it_reads(seed, N, S, horizon):
    "Any matrices, with parameters and constants in any places, are rolled as numpy's powers are."
    rng = np.random.default_rng(seed)
    shapes = (1, N, N), (1, N, S), (1, 3, N)
    constants = StateSpace(*(rng.normal(size=s)/N for s in shapes))
    theta, places = rng.normal(size=(3, 60))/N, rng.permutation(60)
    index, at = [], 0
    for s in shapes:
        here = places[at:at + math.prod(s)].reshape(s); at += math.prod(s)
        index.append(np.where(rng.random(s) < .6, here, -1))
    reader = MatrixReader(MatrixForm(*index, constants), horizon).double()
    rolled = reader.roll(torch.tensor(theta), torch.zeros(3, 0)).numpy()
    for row, values in zip(rolled, theta):
        A, B, C = (np.where(i >= 0, values[i], c)[0] for i, c in zip(index, constants))
        np.testing.assert_allclose(row, powers(A, B, C, horizon), rtol=1e-9, atol=1e-10)

@given(seeds, st.integers(2, 3))
@quick
def test_a_reader_of_several_regimes_averages_over_their_paths(seed, K):
    "The response is the mean over all paths of regimes, each counted by hand with its probability."
    rng = np.random.default_rng(seed)
    N, S, horizon = 2, 2, 4
    sizes = [(K, N, N), (K, N, S), (K, 3, N)]
    starts = np.cumsum([0, *map(math.prod, sizes)])
    form = MatrixForm(*(np.arange(a, b).reshape(s) for a, b, s in zip(starts, starts[1:], sizes)))
    theta, logits = .7*rng.normal(size=starts[-1]), rng.normal(size=K*(1 + K))
    rolled = MatrixReader(form, horizon).double().roll(torch.tensor(theta)[None], torch.tensor(logits)[None])[0].numpy()
    A, B, C = (theta[i] for i in (form.transition, form.impact, form.observation))
    soft = lambda x: np.exp(x)/np.exp(x).sum(-1, keepdims=True)
    start, move = soft(logits[:K]), soft(logits[K:].reshape(K, K))
    expected = np.zeros((S, horizon + 1, 3))
    def walk(k, h, chance, state):
        expected[:, h] += chance*(C[k] @ state).T
        for j in range(K if h < horizon else 0): walk(j, h + 1, chance*move[k, j], A[j] @ state)
    for k in range(K): walk(k, 0, start[k], B[k])
    np.testing.assert_allclose(rolled, expected, rtol=1e-9, atol=1e-10)

@given(st.lists(st.floats(0, .99), min_size=1, max_size=5), st.integers(0, 30))
@quick
def test_a_cascade_is_a_chain(poles, horizon):
    "Its states are those of a bidiagonal matrix, and lie between zero and one."
    K = len(poles)
    chain = np.diag(poles) + np.diag(1 - np.array(poles[1:]), -1)
    states = cascade(torch.tensor(poles, dtype=torch.float64), horizon).numpy()
    for h in range(horizon + 1): np.testing.assert_allclose(states[h], np.linalg.matrix_power(chain, h)[:, 0], atol=1e-12)
    assert states.shape == (horizon + 1, K) and (states >= 0).all() and (states <= 1 + 1e-12).all()

@given(st.permutations([.1, .35, .6, .8, .95]))
@quick
def test_a_cascade_spans_the_powers_of_its_poles(poles):
    "Every geometric response with one of its poles is a sum of its states."
    states = cascade(torch.tensor(poles, dtype=torch.float64), 30).numpy()
    wanted = np.array(poles)[None]**np.arange(31)[:, None]
    weights = np.linalg.lstsq(states, wanted, rcond=None)[0]
    np.testing.assert_allclose(states @ weights, wanted, atol=1e-8)

@pytest.mark.parametrize("pole", [.2, .5, .9])
def test_equal_poles_make_humps(pole):
    "Where poles coincide the states are binomial, h(h-1)… times powers, and not copies of one another."
    states = cascade(torch.full((4,), pole, dtype=torch.float64), 25).numpy()
    expected = [[math.comb(h, k)*pole**(h - k)*(1 - pole)**k if h >= k else 0. for k in range(4)] for h in range(26)]
    np.testing.assert_allclose(states, expected, atol=1e-12)
    assert np.linalg.matrix_rank(states) == 4

def test_poles_never_leave_the_unit_interval():
    "Whatever the network says, a response of the pole decoder is finite and fades at last."
    decoder = PoleDecoder(400, 3)
    with torch.no_grad(): wild = decoder(1e3*torch.randn(50, decoder.width, generator=torch.Generator().manual_seed(0)))
    assert wild.isfinite().all()
    with torch.no_grad(): calm = decoder(torch.randn(50, decoder.width, generator=torch.Generator().manual_seed(0)))
    peak = calm.abs().amax(1)
    assert (calm[:, -1].abs() <= .5*peak).all()
