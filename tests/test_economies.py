"Files of equations: whatever is written, an economy or one sentence with its line, and nothing is executed; solutions against an independent one."
import builtins, math, re, shutil, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from scipy.linalg import solve_discrete_lyapunov
from statsmodels.datasets import macrodata
from hypothesis import given, settings, strategies as st

from synthlab.datasets.arithmetic import EconomyError, Reader, evaluate, formula, tokens
from synthlab.datasets.economies import Economy, read_economy
from synthlab.datasets.perturbation import linearise, root_count, second_order, verdict
from synthlab.datasets.rational import determinacy, residual, solve_rational
from synthlab.datasets import worlds
from synthlab.datasets.worlds import get_world
from synthlab.datasets.written import WrittenWorld, written_world
from synthlab.experiments import experiment as bench
from synthlab.labs.macro.observations import from_world, simulate_data
from synthlab.labs.macro.posterior import Likelihood, Prior, fit_data
from synthlab.labs.macro.settings import MacroConfig, MacroData, check_worlds, macro_config
from synthlab.models.registry import ConfigError
from synthlab.trainers.trainer import Trainer
from synthlab.trainers.kalman import kalman_filter, stationary_covariance
from hand_economies import BY_HAND, SW, SW_SHOCKS, kim, matrices, smets_wouters, solved

ROOT = Path(__file__).parent
quick = settings(max_examples=60, derandomize=True, deadline=None)
TEXT = """// a small economy
var y (long_name='output') pi i $i_t$;
varexo e u;
parameters beta kappa phi rho sigma;
beta = .99; kappa = .1; phi = 1.5; rho = .8; sigma = 1; /* said
in two lines */
model(linear);
  # slope = kappa/(1 + beta);
  [name='IS curve'] y = y(+1) - (i - pi(+1))/sigma + e;
  pi = beta*pi(+1) + slope*y - -u;
  i = rho*i(-1) + (1 - rho)*phi*pi^1 + 0*steady_state(y);
end;
initval; y = 0; e = 0; end;
shocks; var e; stderr .5; var u = .04; end;
estimated_params; rho, .8, .1, .95, beta_pdf, .7, .1; stderr e, inv_gamma_pdf, .1, 2; kappa, uniform_pdf, , , .05, .2; end;
varobs y pi i;
steady; check; stoch_simul(order=1, irf=0) y pi;
"""
WORDS = [t.text for t in tokens(TEXT)[:-1]] + "model end shocks corr @ ; ; , ( ) = ^ ** -1 +2 1e400 exp log steady_state_model '' $ /* \n \0 é \\ import __class__ lambda".split(" ")

@pytest.fixture
def nothing_runs(monkeypatch):
    "Any attempt to run text fails."
    def never(*_, **__): raise AssertionError("text was executed")
    def armed():
        for name in "eval", "exec", "compile", "__import__": monkeypatch.setattr(builtins, name, never)
    yield armed
    monkeypatch.undo()

def answer(text):
    "What the reader makes of a text: an economy, or a sentence with a line that the text has."
    try: return read_economy(text, "it.mod")
    except EconomyError as e:
        said = str(e)
        assert said.startswith(f"it.mod, line {e.line}: ") and len(said.splitlines()) == 1 and 1 <= e.line <= text.count("\n") + 1, said
        return said

def test_the_text_itself_is_read():
    e = answer(TEXT)
    assert isinstance(e, Economy) and (e.variables, e.shocks, e.observed) == (("y", "pi", "i"), ("e", "u"), ("y", "pi", "i"))
    assert e.labels == {"y": "output"} and e.passed == ("steady", "check", "stoch_simul") and list(e.priors) == ["rho", "stderr_e", "kappa"]
    assert (round(e.priors["kappa"].mean, 9), round(12**.5*e.priors["kappa"].sd, 9)) == (.125, .15)

@quick
@given(st.lists(st.tuples(st.integers(0, len(WORDS) - 1), st.integers(0, 130), st.sampled_from(["insert", "replace", "drop", "cut"])), min_size=1, max_size=4))
def test_whatever_is_changed_is_read_or_refused_in_a_sentence(changes):
    words = [t.text for t in tokens(TEXT)[:-1]]
    for word, at, how in changes:
        at %= len(words) or 1
        if how == "insert": words.insert(at, WORDS[word])
        elif how == "cut": words = words[:at]
        else: words[at:at + 1] = [WORDS[word]] if how == "replace" else []
    answer(" ".join(words)); answer("\n".join(words))

@quick
@given(st.text(max_size=200))
def test_any_text_is_refused_in_a_sentence(text):
    assert isinstance(answer(text), str)            # none of them is an economy
    answer(TEXT + text); answer(text + TEXT); answer(TEXT.replace("slope*y", text))

leaves = st.one_of(st.integers(0, 9).map(str), st.sampled_from(["x", "y"]), st.floats(.01, 99).map(lambda v: f"{v:.3f}"))
formulas = st.recursive(leaves, lambda inner: st.one_of(
    st.tuples(inner, st.sampled_from(["+", "-", "*", "/"]), inner).map("({0[0]} {0[1]} {0[2]})".format),
    st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda t: f"{t[0]}{t[1]}{t[2]}"),
    inner.map("-({})".format), inner.map("({})^2".format), inner.map("exp(-({})^2)".format)), max_leaves=12)

@quick
@given(formulas)
def test_formulas_are_arithmetic(text):
    "As Python reads the same formula, whose powers and signs bind alike."
    reader, number = Reader(text), lambda x: torch.tensor(x, dtype=torch.float64)
    ours = evaluate(formula(reader, lambda word, lead: word.text), dict(x=number(1.25), y=number(-.5)))
    try: theirs = eval(text.replace("^", "**"), {"exp": math.exp, "x": 1.25, "y": -.5})
    except (ZeroDivisionError, OverflowError): return
    assert reader.peek().kind == "end" and ours.item() == pytest.approx(theirs, rel=1e-12, abs=1e-300)

@pytest.mark.parametrize("text", ["__import__('os').system('touch /tmp/never')", "exp.__class__", "(lambda: 1)()", "[x for x in y]", "open('a')", "y; import os", "`ls`", "${y}", "f'{1}'"])
def test_no_text_is_executed(text, nothing_runs):
    nothing_runs()
    said = [answer(TEXT.replace("slope*y", text)), answer(TEXT.replace("beta = .99", f"beta = {text}")), answer(text)]
    assert all(isinstance(s, str) for s in said)

@pytest.mark.parametrize("line,words", [
    ("@#define n = 2", "line 18: '@' begins a macro"), ("predetermined_variables y;", "line 18: 'predetermined_variables' is not read here"),
    ("varexo_det z;", "line 18: 'varexo_det' is not read here; did you mean varexo?"), ("endval; y = 1; end;", "'endval' is not read here; did you mean initval?"),
    ("shocks; corr e, u = .5; end;", "line 18: 'corr' is not read here; write var e; stderr .01;"), ("shocks; var e, u = .1; end;", "shocks are independent here"),
    ("estimated_params; corr e, u, .1; end;", "corr is not read: shocks are independent here"), ("estimated_params; beta, weibull_pdf, .1, .1; end;", "'weibull_pdf' is no prior here"),
    ("options_.order = 2;", "'.' means nothing here"), ("ramsey_model(planner_discount=.99);", "'ramsey_model' is not read here"), ("var(log) x;", "'(' is no name for a variable"),
    ("beta = 1;", "'beta' has a value already"), ("varobs x;", "'x' is not declared as a variable"), ("model; y = 0; end;", "line 18: there is a second model"),
    ("parameters exp;", "'exp' is a word of the language"), ("parameters y;", "'y' is declared already, as a variable")])
def test_what_is_outside_of_the_subset_is_refused_by_line_and_word(line, words):
    assert words in answer(TEXT + line)

def test_companions_reach_as_far_as_is_written():
    e = answer("var x y; varexo e; parameters a; a = .5; model(linear); x = a*x(-4) + e; y = x(+3); end; shocks; var e; stderr 1; end;")
    assert e.variables == ("x", "y", "x(-1)", "x(-2)", "x(-3)", "x(+1)", "x(+2)")
    assert "looks more than a quarter ahead" in answer(e.text.replace("(linear)", "")) and "further away than 24 quarters" in answer(e.text.replace("-4", "-400"))

# solutions

def paths(P, Q, horizon=40):
    "Responses (N, S) a quarter, from matrices."
    found = [Q]
    for _ in range(horizon): found.append(P @ found[-1])
    return np.stack(found)

@pytest.mark.parametrize("name", BY_HAND)
def test_published_economies_have_the_solution_of_an_independent_hand(name):
    "Steady state, determinacy and forty quarters of responses of every variable to every shock."
    economy = read_economy((ROOT/f"economies/{name}.mod").read_text(), name)
    names, shocks, rest, f = BY_HAND[name]()
    assert sorted(names.split()) == sorted(economy.variables) and sorted(shocks.split()) == sorted(economy.shocks)
    P, Q, surplus = solved(*matrices(names.split(), shocks.split(), rest, f))
    equations, found = linearise(economy)
    assert found.found.all() and found.levels[:, 0].numpy() == pytest.approx([rest.get(v, 0.) for v in economy.variables], abs=1e-8)
    assert surplus == 0 and determinacy(*equations[:3]).tolist() == [0]
    outside, ahead = root_count(equations)
    assert verdict(outside.item(), ahead).startswith("determinate") and outside.item() == ahead
    at, of = [names.split().index(v) for v in economy.variables], [shocks.split().index(s) for s in economy.shocks]
    ours = paths(*(x[0].numpy() for x in solve_rational(*equations)))
    assert abs(ours - paths(P, Q)[:, at][:, :, of]).max() < 1e-8*max(1, abs(ours).max())

@pytest.mark.parametrize("name,change,verdicts", [("gali3", {"phi_p": .9, "phi_y": 0.}, "indeterminate: 2 roots outside the unit circle for 3 variables that look ahead"),
    ("clarida", {"gp": .8}, "indeterminate"), ("lubik_schorfheide", {"psi1": .5, "psi3": 0.}, "indeterminate"), ("hansen", {"rho": 1.05}, "explosive: 4 roots outside the unit circle for 3")])
def test_what_has_no_unique_solution_is_said_as_the_independent_count_says_it(name, change, verdicts):
    text = (ROOT/f"economies/{name}.mod").read_text()
    for k, v in change.items(): text = re.sub(rf"\b{k} = [^;]+;", f"{k} = {v};", text, count=1)
    equations = linearise(read_economy(text, name)).equations
    outside, ahead = root_count(equations)
    assert verdict(outside.item(), ahead).startswith(verdicts)
    surplus = solved(*(x[0].numpy() for x in equations))[2]
    assert surplus == ahead - outside.item() and determinacy(*equations[:3]).sign().tolist() == [np.sign(surplus)]

def test_smets_and_wouters_have_the_solution_of_matrices_entered_by_hand():
    world = get_world("smets_wouters")
    P, Q, surplus = solved(*smets_wouters())
    assert surplus == 0 and world.valid(world.parameters.tensor()[None]).all()
    found = world.impulse_responses()
    theirs = paths(P, Q)[:, [SW.index(v) for v in ("dy", "dinfl", "drate")]].transpose(2, 0, 1)
    assert world.observables == ("output", "inflation", "rate") and world.shocks == tuple(SW_SHOCKS) and abs(found.numpy() - theirs).max() < 1e-8
    law = world.telling(tuple(SW)).law(world.parameters.tensor())
    ours = paths(law.transition.numpy(), law.impact.numpy())
    assert abs(ours - paths(P, Q)[:, [SW.index(v) for v in world.economy.variables]]).max() < 1e-8

def test_smets_and_wouters_elsewhere_in_the_prior():
    world, moved = get_world("smets_wouters"), dict(h=.6, xi_p=.75, iota_w=.4, psi=.3, phi=4., sigma_c=1.1, r_pi=1.6, gammabar=.5, alpha=.25, rho_w=.9, mu_p=.5, Phi=1.4, betabar=.2)
    by_hand = dict(h=.6, xp=.75, iw=.4, psi=.3, phi=4., sc=1.1, rpi=1.6, gamma=.5, al=.25, rhos=(.95, .18, .97, .71, .12, .9, .9), mup=.5, Phi=1.4, beta=.2)
    P, Q, _ = solved(*smets_wouters(**by_hand))
    theirs = paths(P, Q)[:, [SW.index(v) for v in ("dy", "dinfl", "drate")]].transpose(2, 0, 1)
    assert abs(world.impulse_responses(moved).numpy() - theirs).max() < 1e-8

def test_smets_and_wouters_do_what_their_paper_shows():
    "Figures 2, 3 and 5: signs, sizes and timing of the peaks at the mode; table 1's priors."
    world = get_world("smets_wouters")
    state = world.simulate(None, torch.eye(7, dtype=torch.float64)[:, None]*(torch.arange(21) == 0)[:, None]).extra      # a shock a draw
    peak = lambda shock, name: (round(state[name][shock][state[name][shock].abs().argmax()].item(), 2), int(state[name][shock].abs().argmax()))
    tech, risk, spending, special, policy, price, wage = range(7)
    size, when = peak(policy, "y"); assert -.4 < size < -.25 and 2 <= when <= 5          # output falls by a third of a percent within a year
    assert peak(policy, "r")[0] == pytest.approx(.18, abs=.02) and state["infl"][policy].max() <= 1e-3
    size, when = peak(tech, "y"); assert .5 < size < .8 and 5 <= when <= 10
    assert -.4 < state["l"][tech][0] < -.15                                              # a better technology costs hours at first
    assert peak(risk, "y")[1] == 0 and .3 < peak(risk, "y")[0] < .6 and (state["c"][risk][:4] > 0).all() and (state["inve"][risk][:4] > 0).all()     # comovement
    assert (state["c"][spending] < 0).all() and state["y"][spending][0] > .4             # spending crowds consumption out
    assert state["infl"][price][0] > .15 and state["y"][price].min() < -.2 and state["y"][wage].min() < -.5 and state["w"][wage].max() > .3
    priors = world.economy.priors
    assert priors["h"].frozen().mean() == pytest.approx(.7) and priors["phi"].frozen().std() == pytest.approx(1.5) and len(priors) == 36

def test_draws_of_smets_and_wouters_have_solutions():
    world = get_world("smets_wouters")
    draws = world.sample(40)
    assert world.valid(draws).all() and not world.parameters.outside(draws).any()
    P, Q = world.law_of(draws)
    F, G, H, M = world.linearised(draws).equations
    assert residual(F, G, H, M, P, Q).max() < 1e-8

# the second order

def test_the_curve_of_brock_and_mirman_is_exact_and_a_library_solves_the_same_equations():
    "Second derivatives of the exact rule; and of Kim's economy the linear system as one Kronecker product, solved by NumPy."
    a, b = .33, .95
    rule, k = second_order(read_economy((ROOT/"economies/brock_mirman.mod").read_text(), "bm")), (.33*.95)**(1/.67)
    exact = np.array([[a*(a - 1)/k**2, a*.8/k, a/k], [a*.8/k, .64, .8], [a/k, .8, 1]])*k        # of k' = a b exp(.8 z + e) k^a, at rest k' = k
    assert rule.curve[1].numpy() == pytest.approx(exact, abs=1e-8) and rule.curve[0].numpy() == pytest.approx(exact*(1 - a*b)/(a*b), abs=1e-8)
    assert abs(rule.risk).max() < 1e-9
    economy = read_economy((ROOT/"economies/kim.mod").read_text(), "kim")
    names, shocks, rest, f = kim()
    rule, (F, G, *_) = second_order(economy), matrices(names.split(), shocks.split(), rest, f)
    N, h = 7, 1e-4
    base = np.concatenate([[rest.get(n, 0.) for n in names.split()]]*3 + [[0.]]).astype(complex)
    at = lambda x: np.array(f(*(SimpleNamespace(**dict(zip(names.split(), x[i*N:(i + 1)*N]))) for i in range(3)), SimpleNamespace(e=x[21])))
    steps = np.eye(22)
    hessian = np.stack([np.stack([np.imag(at(base + h*i + 1e-30j*j) - at(base - h*i + 1e-30j*j))/1e-30/2/h for j in steps], -1) for i in steps], -2)
    P, Q, states = rule.transition.numpy(), rule.impact.numpy(), rule.states
    order = [names.split().index(v) for v in economy.variables]
    assert order == list(range(N))
    Z = np.concatenate([P[:, states], Q], 1)
    V = np.concatenate([P[:, states] @ Z[states], Z, np.zeros((N, len(Z[0]))), np.zeros((1, len(Z[0])))])
    for i, s in enumerate(states): V[2*N + s, i] = 1
    V[21, -1] = 1
    B, K, n = np.einsum("nab,ai,bj->nij", hessian, V, V), P[states][:, states], len(states)
    big = np.kron(F @ P + G, np.eye(n*n)) + np.kron(F, np.kron(K, K).T)
    assert rule.curve[:, :n, :n].numpy().ravel() == pytest.approx(np.linalg.solve(big, -B[:, :n, :n].ravel()), rel=1e-5, abs=1e-5)

def test_published_coefficients_of_schmitt_grohe_and_uribe():
    rule = second_order(read_economy((ROOT/"economies/schmitt_grohe_uribe.mod").read_text(), "sgu"))
    c, k = (rule.curve[i][[0, -1]][:, [0, -1]].numpy().round(4).tolist() for i in (0, 1))
    assert c == [[-.0051, -.0171], [-.0171, -.0569]] and k == [[-.007, -.0233], [-.0233, -.0778]] and rule.risk.numpy().round(4).tolist()[:2] == [-.1921, .482]

def test_a_linear_economy_has_no_second_order_and_pruned_paths_are_its_own():
    economy = read_economy((ROOT/"economies/clarida.mod").read_text(), "cgg")
    rule, shocks = second_order(economy), torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert abs(rule.curve).max() < 1e-12 and abs(rule.risk).max() < 1e-12 and torch.equal(rule.simulate(shocks), rule.simulate(shocks, pruned=False))
    world = WrittenWorld(economy.text, "cgg").simulate(None, shocks, units="model").extra
    assert rule.simulate(shocks).numpy() == pytest.approx(torch.stack([world[v] for v in economy.variables], -1).numpy(), abs=1e-12)

def test_pruned_paths_stay_where_naive_ones_explode():
    text = (ROOT/"economies/schmitt_grohe_uribe.mod").read_text().replace("delta = 1", "delta = .1").replace("rho = 0", "rho = .95")
    rule = second_order(read_economy(text, "sgu"), {"stderr_e": .2})
    shocks = .2*torch.randn(8, 3000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert rule.simulate(shocks).isfinite().all() and not rule.simulate(shocks, pruned=False).isfinite().all()
    assert abs(rule.simulate(shocks)[:, 2000:]).max() < 3*abs(rule.simulate(shocks)[:, :1000]).max()

# worlds of files

SMALL = ["data.n=40", "data.T=4", "data.horizon=6", "data.processes=1", "model=small", "training.epochs=1", "training.batch_size=24", "training.final_epochs=0", "evaluation.baselines=[linear]", "evaluation.alone=[]",
         "evaluation.leave_out=[]", "evaluation.timing_draws=2", "evaluation.calibration_draws=10", "evaluation.certificate_draws=10", "tracking.mode=disabled"]

@pytest.fixture
def forgotten(monkeypatch):
    "Economies that were read before are not known any more, as in a new process."
    def forget():
        monkeypatch.setattr(worlds, "_texts", {})
        read_economy.cache_clear(); written_world.cache_clear()
    forget()
    yield forget
    read_economy.cache_clear(); written_world.cache_clear()

def test_what_is_trained_on_a_file_needs_no_file(tmp_path, forgotten):
    "Its text is in the settings, in the store and in the checkpoint: the run is evaluated and its emulator loaded where nobody knows the economy."
    file = tmp_path/"my-economy.mod"                        # before rbc in the alphabet, behind it in the run
    shutil.copy(ROOT/"economies/hansen.mod", file)
    assert get_world(str(ROOT/"economies/collard.mod")).description.endswith("steady and check and stoch_simul left to Dynare.")
    result = bench.run("macro", [f"data.worlds=[rbc,{file}]", *SMALL, f"runs={tmp_path}/runs"], quiet=True)
    folder, text = result["run"].folder, file.read_text()
    assert result["model"].names == ("rbc", "my_economy") and result["config"].data.texts == {"my_economy": text}
    assert result["store"].info("my_economy")["options"] == {"text": text} and result["store"].info("my_economy")["observables"]["names"] == ["y", "c", "h"]
    file.unlink(); forgotten()
    with pytest.raises(ValueError, match="there is no world 'my_economy'"): get_world("my_economy")
    model, _ = bench.load_model(folder)
    theta = result["model"].worlds["my_economy"].sample(3)
    assert model.names == ("rbc", "my_economy")             # in the order of its scales
    assert torch.equal(model.impulse_responses(theta, "my_economy"), result["model"].impulse_responses(theta, "my_economy"))
    forgotten()
    again = bench.evaluate(folder, quiet=True)
    assert again["metrics"]["median"] == result["metrics"]["median"]
    told = bench.predict(folder, pd.DataFrame({"rho": [.9, .95]}))
    assert list(told["my_economy"].columns) == ["y", "c", "h"]
    other = get_world("my_economy", text=text.replace("rho = .95", "rho = .5"))            # somebody edits the file and goes on
    assert other.parameters.tensor().tolist() != model.worlds["my_economy"].parameters.tensor().tolist()
    assert torch.equal(model.worlds["my_economy"].parameters.tensor(), result["model"].worlds["my_economy"].parameters.tensor())

def test_an_interrupted_run_goes_on_without_its_file(tmp_path, forgotten, monkeypatch):
    file, steps = tmp_path/"aa.mod", []
    shutil.copy(ROOT/"economies/hansen.mod", file)
    def step(self, batch):
        steps.append(1)
        if len(steps) > 1: raise KeyboardInterrupt
        return trained(self, batch)
    trained = Trainer.train_step
    monkeypatch.setattr(Trainer, "train_step", step)
    with pytest.raises(KeyboardInterrupt): bench.run("macro", [f"data.worlds=[{file}]", *SMALL, f"runs={tmp_path}/runs"], run_dir=tmp_path/"r", quiet=True)
    monkeypatch.setattr(Trainer, "train_step", trained)
    file.unlink(); forgotten()
    assert bench.resume(tmp_path/"r", quiet=True)["model"].names == ("aa",)

@pytest.mark.slow
def test_a_new_process_loads_it(tmp_path, forgotten):
    file = tmp_path/"mine.mod"
    shutil.copy(ROOT/"economies/gali3.mod", file)
    folder = bench.run("macro", [f"data.worlds=[{file}]", *SMALL, "data.processes=2", f"runs={tmp_path}/runs"], quiet=True)["run"].folder
    file.unlink()
    said = subprocess.run([sys.executable, "-c", f"from synthlab.experiments.experiment import load_model; print(load_model({str(folder)!r})[0].impulse_responses(None, 'mine').shape)"], capture_output=True, text=True)
    assert said.stdout.strip() == "torch.Size([2, 7, 3])", said.stderr

@pytest.mark.parametrize("typed,why", [("data.worlds=[gone.mod]", "data.worlds: there is no file gone.mod; give the path of a .mod file"), ("data.worlds=[bad.mod]", "bad, line 2: 'yy' is not declared"),
    ("data.worlds=[nk.mod]", "'nk' is the name of another world; give the file another name"), ("data.worlds=[two.mod]", "two: a world tells three variables, and 2 are declared"),
    ("data.worlds=[smets]", "did you mean smets_wouters?"), ("data.texts={a: x}", "a, line 1: 'x' is not read here"), ("data.worlds=[wild.mod]", "wild: explosive: ")])
def test_a_file_that_is_no_world_gets_one_sentence(typed, why, tmp_path, monkeypatch, forgotten):
    good = (ROOT/"economies/clarida.mod").read_text()
    for name, text in (("bad", "model(linear);\nyy = 1; end;"), ("nk", good), ("wild", good.replace("mu = .9", "mu = 1.2")),
                       ("two", "var a b; varexo e; parameters r; r = .5; model(linear); a = r*a(-1) + e; b = a; end; shocks; var e; stderr 1; end;")): (tmp_path/f"{name}.mod").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(why)): macro_config([typed])

def test_a_text_of_no_world_is_not_passed_over(forgotten):
    config = MacroConfig(data=MacroData(worlds=["nk"], texts={"my": (ROOT/"economies/clarida.mod").read_text()}))
    with pytest.raises(ConfigError, match="data.texts: 'my' is none of data.worlds; name its file there"): check_worlds(config)

@pytest.mark.parametrize("name", ["hansen", "kim", "an_schorfheide", "ireland"])
def test_a_file_is_a_world_like_any_other(name):
    "Draws, gradients, simulation and likelihood; numbers without a prior move, and steady states follow."
    world = written_world((ROOT/f"economies/{name}.mod").read_text(), name)
    draws = world.sample(5)
    assert not world.parameters.outside(draws).any() and torch.equal(world.sample(2, start=3), draws[3:])
    assert world.valid(draws[:0]).shape == (0,)
    slopes = torch.autograd.functional.jacobian(lambda t: world.impulse_responses(t, horizon=8), draws[0])
    step = torch.diag(1e-6*draws[0].abs())
    up, down = world.impulse_responses(torch.cat([draws[0] + step, draws[0] - step]), horizon=8).chunk(2)
    by_hand = ((up - down)/2/step.diagonal()[:, None, None, None]).movedim(0, -1)
    assert ((slopes - by_hand).abs() < 2e-4*(1 + by_hand.abs().amax((0, 1, 2)))).all()
    shocks = torch.randn(12, len(world.shocks), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen, extra = world.simulate(None, shocks)
    assert extra.keys() == set(world.economy.variables) and torch.equal(seen[:, 0], extra[world.told[0]])
    data = seen.detach() + .01*torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert kalman_filter(world.law(world.parameters.tensor()), data, .01*data.std(0)).log_likelihood.isfinite()

def test_a_file_is_estimated():
    "On data that it made: the posterior moves from the box towards the truth, and the mode has a solution."
    world = get_world("cgg", text=(ROOT/"economies/clarida.mod").read_text() + "estimated_params; gp, 2.15, 1.1, 4; rho, .79, .3, .95; stderr er, .25, .05, .6; end;")
    truth = world.parameters.tensor({"gp": 1.6, "rho": .6})
    data = simulate_data(world, truth[None], 160, 0., seed=3)[0]
    prior, model = Prior(world), from_world(world, 8)
    fit = fit_data(model, Likelihood(pd.DataFrame(data.numpy(), columns=world.observables), 0., world=world), prior, starts=2, steps=80)
    found = dict(zip(prior.free, fit.theta.tolist()))
    assert abs(found["rho"] - .6) < .1 and abs(found["stderr_er"] - .25) < .05 and abs(found["gp"] - 1.6) < .4, found

def test_data_of_a_file_are_in_its_own_units():
    "Fractions are no mistake where the equations are written in them; where a world tells percent they are."
    world = get_world(str(ROOT/"economies/hansen.mod"))
    data = pd.DataFrame(simulate_data(world, world.parameters.tensor()[None], 100, 0., seed=1)[0].numpy(), columns=world.observables)
    data -= data.mean()
    assert (data.std() < .05).all()
    Likelihood(data, .001, world=world).check(world)
    with pytest.raises(ValueError, match="these look like fractions"): Likelihood(data.set_axis(get_world("nk").observables, axis=1), .001, world=get_world("nk"))

SERIES = ("dy", "dc", "dinve", "dinfl", "drate")

def us_growth():
    "Five of Smets and Wouters' seven series, 1966 to 2004, percent a quarter, demeaned: growth a head of output, consumption and investment, inflation, the bill rate."
    raw = macrodata.load_pandas().data
    growth = [100*np.diff(np.log(raw[c]/raw["pop"]), prepend=np.nan) for c in ("realgdp", "realcons", "realinv")]
    data = np.stack([*growth, raw["infl"]/4, raw["tbilrate"]/4], 1)[(raw.year >= 1966) & (raw.year <= 2004)]
    return torch.tensor(data - data.mean(0))

def test_the_exact_likelihood_of_five_us_series_has_a_gradient_and_prefers_the_published_mode():
    world, data = get_world("smets_wouters"), us_growth()
    def likelihood(theta): return kalman_filter(world.telling(SERIES).law(theta), data).log_likelihood
    mode = world.parameters.tensor().requires_grad_()
    value = likelihood(mode)
    slope, = torch.autograd.grad(value, mode)
    for name in ("h", "xi_p", "r_pi", "rho_a", "stderr_eg", "phi", "alpha"):
        k, h = world.parameters.names.index(name), torch.zeros(36, dtype=torch.float64)
        h[k] = 1e-5
        with torch.no_grad(): assert (likelihood(mode + h) - likelihood(mode - h)).item()/2e-5 == pytest.approx(slope[k].item(), rel=1e-4, abs=1e-3), name
    middle = world.parameters.tensor({n: p.mean for n, p in world.economy.priors.items() if not n.startswith("stderr")})     # shocks of the same size
    with torch.no_grad(): assert value > likelihood(middle) + 100
    assert slope[world.parameters.names.index("pibar")].abs() < 1e-9 and slope[world.parameters.names.index("lbar")].abs() < 1e-9        # means, which demeaned data do not tell

def test_moments_of_smets_and_wouters_are_those_of_the_hand_written_matrices_and_of_the_paper():
    "Covariances by SciPy's Lyapunov solver; figure 1 of the paper: in the long run supply moves output, mark-ups move inflation, and in the first quarter demand moves output."
    world = get_world("smets_wouters")
    P, Q, _ = solved(*smets_wouters())
    A, B, C = world.telling(tuple(SW)).law(world.parameters.tensor())
    theirs, ours = solve_discrete_lyapunov(P, Q @ Q.T), C @ stationary_covariance(A, B @ B.mT) @ C.mT
    assert abs(ours.numpy() - theirs).max() < 1e-6*abs(theirs).max()
    sd = dict(zip(SW, np.sqrt(np.diag(theirs))))
    assert .7 < sd["dy"] < 1.2 and .5 < sd["dc"] < 1. and 1.5 < sd["dinve"] < 3. and .3 < sd["dinfl"] < .9 and .3 < sd["drate"] < 1.        # those of the data: .85, .7, 2.2, .6, .8
    seen = (paths(P, Q, 100)**2).cumsum(0)
    share = lambda name, h: dict(zip(SW_SHOCKS, seen[h, SW.index(name)]/seen[h, SW.index(name)].sum()))
    far, near = share("y", 40), share("y", 0)
    assert far["ea"] + far["ewagem"] > .5 and near["erisk"] + near["eg"] + near["especial"] > .5
    assert share("infl", 40)["epricem"] + share("infl", 40)["ewagem"] > .6 and far["epolicy"] < .1
