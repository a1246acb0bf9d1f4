"Tests of a value at risk against formulas written out, simulation of their exact laws, the cases in which likelihoods vanish, and odd input."
import warnings

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy import stats

from synthlab.metrics.exceedances import conditional_coverage_test, exceedance_tests, exceedances, independence_test, kupiec_test

pytestmark = pytest.mark.filterwarnings("error")
quick = settings(derandomize=True, deadline=None, max_examples=60)
series = st.lists(st.booleans(), min_size=2, max_size=40)
TESTS = dict(coverage=kupiec_test, independence=lambda x, level=None, law="exact": independence_test(x, law), both=conditional_coverage_test)

def written_out(x, level):
    "The three statistics as in Christoffersen (1998), pair by pair; an outcome that never came costs nothing."
    said = lambda p, n: n*np.log(p) if n else 0.
    coins = lambda p, zeros, ones: said(1 - p, zeros) + said(p, ones)
    own = lambda zeros, ones: coins(ones/(zeros + ones), zeros, ones) if zeros + ones else 0.
    n = {(a, b): sum((p, q) == (a, b) for p, q in zip(x[:-1], x[1:])) for a in (0, 1) for b in (0, 1)}
    zeros, ones = n[0, 0] + n[1, 0], n[0, 1] + n[1, 1]
    chain = own(n[0, 0], n[0, 1]) + own(n[1, 0], n[1, 1])
    return dict(coverage=2*(own(len(x) - sum(x), sum(x)) - coins(level, len(x) - sum(x), sum(x))), independence=2*(chain - own(zeros, ones)), both=2*(chain - coins(level, zeros, ones)))

@quick
@given(series, st.sampled_from([.01, .05, .5]))
def test_statistics_and_p_values_of_any_series(x, level):
    "Each statistic is the formula's, its p-value of many is the chi-squared one, that of few a probability; lists, arrays, Series and tensors say the same."
    x = np.array(x, int)
    for name, value in written_out(x.tolist(), level).items():
        f = TESTS[name]
        statistic, p = f(x, level=level)
        assert statistic == pytest.approx(value, rel=1e-9, abs=1e-9) and statistic >= 0 and 0 <= p <= 1
        assert f(x, level=level, law="chi2")[1] == pytest.approx(stats.chi2.sf(statistic, 2 if name == "both" else 1))
        for same in x.tolist(), x > 0, pd.Series(x, index=x), torch.as_tensor(x): assert f(same, level=level) == (statistic, p)

@quick
@given(series)
def test_order_counts_only_where_it_is_asked(x):
    "Kupiec's test knows nothing of order, and what is read backwards hangs together as much."
    x = np.array(x, int)
    assert kupiec_test(x) == kupiec_test(np.sort(x))
    assert independence_test(x)[1] == pytest.approx(independence_test(x[::-1])[1]) or x[0] != x[-1]

@pytest.mark.parametrize("name", TESTS)
def test_the_exact_law_is_that_of_simulated_exceedances(name):
    "10 000 series of 30 days at 10 %: the share of larger statistics, and half of the equal ones."
    f, rng = TESTS[name], np.random.default_rng(0)
    x = np.zeros(30, int); x[[3, 11, 12, 20]] = 1
    found, p = f(x, level=.1)
    drawn = (rng.random((10_000, 30)) < .1)*1
    if name == "independence": drawn = rng.permuted(np.broadcast_to(x, (10_000, 30)), axis=1)
    kinds, times = np.unique(drawn, axis=0, return_counts=True)
    values = np.array([written_out(row, .1)[name] for row in kinds.tolist()])
    same = np.isclose(values, found)
    assert p == pytest.approx((times[(values > found) & ~same].sum() + times[same].sum()/2)/10_000, abs=.02)

def test_many_exceedances_have_the_law_of_many():
    "With hundreds of them the two laws say the same."
    x = np.random.default_rng(1).random(8000) < .06
    for f in TESTS.values(): assert f(x, level=.06)[1] == pytest.approx(f(x, level=.06, law="chi2")[1], abs=.03)
    assert kupiec_test(x, .05)[1] < .001

def test_where_likelihoods_vanish():
    "No exceedance, one, none but exceedances, none twice in a row: numbers, and no warning."
    none, one, last, all_, apart = np.zeros(250), np.eye(250)[100], np.eye(250)[249], np.ones(250), np.arange(250) % 25 == 0
    for x in none, one, last, all_, apart:
        assert np.isfinite(exceedance_tests(x)).all(axis=None) and np.isfinite(exceedance_tests(x, law="chi2")).all(axis=None)
    assert independence_test(none) == independence_test(all_) == (0., .5) and independence_test(last)[0] == 0 and independence_test(last)[1] > .9 and kupiec_test(all_)[1] == 0
    assert kupiec_test(none)[0] == pytest.approx(-500*np.log(.95)) and kupiec_test(none)[1] < 1e-4 and kupiec_test(none, .01)[1] > .05
    assert independence_test(apart)[0] > 0 and independence_test(apart)[1] > .2

def test_a_known_forecast_passes_and_a_blind_one_does_not():
    "The table is the three tests; clusters are found though the number is right."
    rng = np.random.default_rng(2); size = np.repeat([.005, .03, .005], [450, 100, 450])
    returns = size*rng.standard_normal(1000)
    blind, known = (exceedance_tests(exceedances(returns, v)) for v in (np.quantile(returns, .05), size*stats.norm.ppf(.05)))
    assert list(blind.index) == list(TESTS) and tuple(blind.loc["both"]) == conditional_coverage_test(exceedances(returns, np.quantile(returns, .05)))
    assert blind["p-value"]["coverage"] > .5 and blind["p-value"]["independence"] < .05 and (known["p-value"] > .05).all()

ODD = st.one_of(st.none(), st.text(max_size=3), st.floats(), st.lists(st.floats(), max_size=4), st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), max_size=3))

@quick
@given(ODD)
def test_odd_input_gets_one_sentence(odd):
    "Whatever is handed over: a result, or one line that names what is wrong."
    for call in (kupiec_test, independence_test, conditional_coverage_test, exceedance_tests, lambda x: exceedances([.1, -.1], x), lambda x: exceedances(x, -.1),
                 lambda x: kupiec_test([0, 1], x) if isinstance(x, float) else kupiec_test(x)):
        try:
            with warnings.catch_warnings(): warnings.simplefilter("ignore", DeprecationWarning); call(odd)
        except (ValueError, TypeError) as e: assert len(str(e).splitlines()) == 1 and any(word in str(e) for word in ("exceeded", "returns", "value_at_risk", "level")), e

@pytest.mark.parametrize("call,words", [
    (lambda: kupiec_test([.01, -.02]), "make it with `exceedances"), (lambda: kupiec_test(np.zeros((3, 2))), r"got shape \(3, 2\)"), (lambda: kupiec_test([True]), "two or more"),
    (lambda: conditional_coverage_test([0, 1], 95), "between 0 and 1"), (lambda: independence_test([0, 1], "normal"), "there are exact, chi2"),
    (lambda: exceedances([.1, .2], [.1]), "over the same bars"), (lambda: exceedances([.1, np.nan], -.1), "returns holds nan at 1"), (lambda: exceedances([.1, -.3], .2), "negative number")])
def test_errors(call, words):
    with pytest.raises(ValueError, match=words): call()
