"Files of equations: whatever is written, an economy or one sentence with its line, and nothing is executed; solutions against an independent one."
import builtins

import pytest
from hypothesis import given, settings, strategies as st

from synthlab.datasets.arithmetic import EconomyError, Reader, evaluate, formula, tokens
from synthlab.datasets.economies import Economy, read_economy

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
    import math
    reader = Reader(text)
    ours = evaluate(formula(reader, lambda word, lead: word.text), dict(x=_number(1.25), y=_number(-.5)))
    try: theirs = eval(text.replace("^", "**"), {"exp": math.exp, "x": 1.25, "y": -.5})
    except (ZeroDivisionError, OverflowError): return
    assert reader.peek().kind == "end" and ours.item() == pytest.approx(theirs, rel=1e-12, abs=1e-300)

def _number(x):
    import torch
    return torch.tensor(x, dtype=torch.float64)

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
