"Contests of many forecasts: what arch says of the same scores where blocks are many, a contest whose answer is known, and odd tables."
import numpy as np, pandas as pd, pytest
from arch.bootstrap import MCS, SPA
from hypothesis import given, settings, strategies as st

from synthlab.metrics.contests import model_confidence_set, superior_predictive_ability

pytestmark = pytest.mark.filterwarnings("error")
quick = settings(derandomize=True, deadline=None, max_examples=15)
NAMES = ["reference", "a", "b", "c"]

def table(seed, n=400, gain=1.):
    "Four forecasts of one outcome, the last one better by a factor."
    rng = np.random.default_rng(seed)
    return pd.DataFrame(np.abs(rng.standard_normal((n, 1)) + rng.standard_normal((n, 4))/2)*[1, 1, 1, gain], columns=NAMES)

def test_many_blocks_are_those_of_arch():
    "With 20 000 times, blocks of 28 and leads of one spread, the same p-values to within their draws."
    scores = table(0, 20_000)
    theirs = MCS(scores, .05, 300, 28, "R", "circular", seed=1); theirs.compute()
    ours = model_confidence_set(scores, n_boot=300, seed=1)
    np.testing.assert_allclose(ours["p-value"][NAMES], theirs.pvalues.Pvalue[NAMES], atol=.02)
    assert set(ours.index[ours["in the set"]]) == set(theirs.included)

def test_a_wild_forecast_hides_nobody():
    "One forecast is better, another so wild that its lead is large by chance: undivided leads, as arch takes them, show only that one."
    scores, rng = table(1, 300, .8), np.random.default_rng(2)
    scores["wild"] = scores.reference + 4*rng.standard_normal(300)
    plain = SPA(scores.reference, scores.drop(columns="reference"), 7, 300, "circular", seed=1); plain.compute()
    assert plain.pvalues["consistent"] > .05 > superior_predictive_ability(scores, "reference", n_boot=300)["p-value"]["consistent"]

@quick
@given(st.integers(0, 999), st.floats(.01, 1e4), st.permutations(NAMES))
def test_units_order_and_names_change_nothing(seed, unit, order):
    "And the p-values are probabilities, in Hansen's order; the best is always in the set."
    scores = table(seed, 60)
    found, kept = superior_predictive_ability(scores, "reference", n_boot=50), model_confidence_set(scores, n_boot=50)
    again, left = superior_predictive_ability(unit*scores[order], "reference", n_boot=50), model_confidence_set(unit*scores[order], n_boot=50)
    assert found["p-value"].is_monotonic_increasing and found["p-value"].between(0, 1).all() and kept["p-value"].iloc[0] == 1
    np.testing.assert_allclose(again, found, atol=1e-9); np.testing.assert_allclose(left["p-value"][kept.index], kept["p-value"], atol=1e-9)
    assert kept["mean"].idxmin() == kept.index[0] and kept["in the set"].iloc[0]

def test_a_lead_beyond_all_luck_is_a_number():
    "A lead of a thousand standard errors: no probability is left, and nothing is infinite."
    scores = table(5, 10_000)
    scores["far"] = scores.reference - 100 + .1*np.random.default_rng(6).standard_normal(10_000)
    assert (superior_predictive_ability(scores, "reference", n_boot=50)["p-value"] == 0).all()
    assert list(model_confidence_set(scores, n_boot=50)["in the set"]) == [True] + [False]*4

def test_overlap_widens_the_set():
    "The same scores, each written down eight times, are no more evidence."
    scores = table(3, 60, .8).loc[np.repeat(range(60), 8)]
    told, untold = (model_confidence_set(scores, h, n_boot=300)["p-value"]["reference"] for h in (8, 1))
    assert told > untold

CELLS = st.one_of(st.floats(), st.integers(-3, 3), st.none(), st.text(max_size=2))

@quick
@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=20))
def test_odd_tables_get_one_sentence(rows):
    "Whatever a table holds: a result, or one line that names what is wrong."
    for call in (lambda x: superior_predictive_ability(x, "a", n_boot=20), lambda x: model_confidence_set(x, n_boot=20)):
        try: call(pd.DataFrame(rows, columns=["a", "b"]))
        except (ValueError, TypeError) as e: assert len(str(e).splitlines()) == 1 and any(word in str(e) for word in ("scores", "forecasters", "differ by")), e

@pytest.mark.parametrize("call,words", [
    (lambda x: superior_predictive_ability(x.to_numpy(), 0), "must be a frame"), (lambda x: superior_predictive_ability(x, "referenze"), "reference"),
    (lambda x: model_confidence_set(x[["a"]]), "two forecasters"), (lambda x: model_confidence_set(x.iloc[:9]), "16 times"), (lambda x: model_confidence_set(x[["a", "b", "a"]]), "have one name"),
    (lambda x: model_confidence_set(x.assign(d=2 + x.b)), "b and d differ by the same"), (lambda x: model_confidence_set(x, 0), "overlap must be"), (lambda x: model_confidence_set(x, level=95), "between 0 and 1"),
    (lambda x: superior_predictive_ability(x.assign(c=np.inf), "a"), "the scores of c")])
def test_errors(call, words):
    with pytest.raises(ValueError, match=words): call(table(4, 40))
