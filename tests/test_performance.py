"Metrics of a strategy against the numbers of two packages, loops of pandas and scipy, simulations, and what must hold for any returns."
import json
from pathlib import Path

import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from scipy import integrate, stats

import synthlab.metrics.performance as performance
from synthlab.metrics.performance import (ANNUAL, METRICS, PLAIN, average_drawdown, cagr, conditional_drawdown, cvar, deflated_sharpe, drawdown, expected_maximum_sharpe, max_drawdown, performance_metrics, probabilistic_sharpe, profit_factor, sharpe, sharpe_interval, sharpe_variance, skew, total_return, value_at_risk,
    volatility, win_rate)
from synthlab.metrics.positions import exposure
from synthlab.metrics.relative import alpha, batting_average, beta, beta_fragility, capture_ratio, down_capture, information_ratio, rolling, tracking_error, up_capture
from synthlab.metrics.risk import drawdown_at_risk, entropic_drawdown, evar, gini_mean_difference, lower_partial_moment, mean_absolute_deviation, semi_deviation, worst_return

pytestmark = pytest.mark.filterwarnings("error")
REFERENCE = Path(__file__).parents[2]/"shared/reference"
quick = settings(derandomize=True, deadline=None, max_examples=60)
seeds = st.integers(0, 2**32 - 1)
RULERS = {f.__name__: f for f in (worst_return, mean_absolute_deviation, gini_mean_difference, semi_deviation, lower_partial_moment, evar, drawdown_at_risk, entropic_drawdown)}
NAMES = dict(sharpe_ratio="sharpe", sortino_ratio="sortino", annual_return="cagr", annual_volatility="volatility", calmar_ratio="calmar", omega_ratio="omega",
    conditional_value_at_risk="cvar", sharpe_ddof1_252="sharpe", max_drawdown_from_one="max_drawdown", hit_rate_nonzero="win_rate")

def draw(seed, *shape):
    "Returns with heavy tails, some of them zero."
    rng = np.random.default_rng(seed)
    r = np.clip(.01*rng.standard_t(4, shape or (rng.integers(5, 200),)), -.9, None)
    return np.where(rng.random(r.shape) < .1, 0, r)

# known numbers

@pytest.mark.parametrize("asset", ["sp500", "goog"])
@pytest.mark.parametrize("package", ["quantstats", "empyrical", "plain_numpy"])
def test_reference(asset, package):
    if not REFERENCE.exists(): pytest.skip(f"the reference numbers are not beside this checkout: {REFERENCE}")
    with np.load(REFERENCE/"performance_returns.npz", allow_pickle=False) as z: r = z[f"{asset}__returns"]
    known = json.loads((REFERENCE/"performance_metrics.json").read_text())[asset]
    assert len(r) == known["n"]
    table, normal = performance_metrics(r), package == "quantstats"     # its tail numbers are those of a normal
    for name, value in known[package].items():
        name = NAMES.get(name, name)
        if name in ("value_at_risk", "cvar") and normal: name += "_normal"
        mine = r.mean()/r.std()*252**.5 if name == "sharpe_ddof0_252" else table[name]
        assert mine == pytest.approx(value, rel=1e-9), name

def loop(r, periods):
    "Every metric from its definition, with pandas, scipy and loops."
    s = pd.Series(r); wins, losses = s[s > 0], s[s < 0]
    wealth, peak, falls = 1., 1., []
    for x in r: wealth *= 1 + x; peak = max(peak, wealth); falls.append(wealth/peak - 1)
    mean, std, low = s.mean(), s.std(), (s.clip(upper=0)**2).mean()**.5
    growth = wealth**(periods/len(s)) - 1
    tail = np.sort(r)[:int((len(r) - 1)*.05) + 1]
    bell = stats.norm(mean, std); below = integrate.quad(lambda u: bell.ppf(u), 0, .05)[0]/.05
    return dict(total_return=wealth - 1, cagr=growth, volatility=std*periods**.5, sharpe=mean/std*periods**.5, sortino=mean/low*periods**.5, max_drawdown=min(falls),
        average_drawdown=np.mean(falls), conditional_drawdown=np.sort(falls)[:int((len(r) - 1)*.05) + 1].mean(), calmar=growth/abs(min(falls)), ulcer_index=(sum(f*f for f in falls)/(len(r) - 1))**.5, profit_factor=wins.sum()/-losses.sum(), win_rate=len(wins)/(len(wins) + len(losses)),
        avg_win=wins.mean(), avg_loss=losses.mean(), payoff_ratio=wins.mean()/-losses.mean(), omega=wins.sum()/-losses.sum(), value_at_risk=s.quantile(.05),
        value_at_risk_normal=bell.ppf(.05), cvar=tail.mean(), cvar_normal=below, skew=s.skew(), kurtosis=s.kurt(), tail_ratio=abs(s.quantile(.95)/s.quantile(.05)),
        downside_risk=low*periods**.5, stability=stats.linregress(np.arange(len(r)), np.log1p(r).cumsum()).rvalue**2)

def test_all_metrics_against_loops():
    r = draw(0, 6, 150)
    table = performance_metrics(r, periods=365)
    assert tuple(table.columns) == METRICS == tuple(loop(r[0], 365)) and set(METRICS) == {*ANNUAL, *PLAIN}
    for i, row in enumerate(r):
        for name, value in loop(row, 365).items(): assert table[name][i] == pytest.approx(value, rel=1e-6 if name == "cvar_normal" else 1e-10), name

def test_leading_axes_and_other_inputs():
    r = draw(1, 2, 3, 80)
    for name, f in (ANNUAL | PLAIN | RULERS).items():
        each = [[f(x) for x in row] for row in r]
        got = f(r)
        assert got.shape == (2, 3) and all(np.ndim(x) == 0 for row in each for x in row), name
        np.testing.assert_allclose(got, each, rtol=1e-12, err_msg=name)
        assert f(pd.Series(r[0, 0])) == f(list(r[0, 0])) == f(r[0, 0]), name
    before = r.copy(); performance_metrics(r[0]); drawdown(r)
    assert np.array_equal(r, before), "the input was written to"
    assert drawdown(r).shape == r.shape

@quick
@given(seeds)
def test_any_returns(seed):
    r, t = draw(seed), performance_metrics(draw(seed))
    assert not np.isinf(t).any()
    fall = drawdown(r)
    assert (fall <= 0).all() and (fall > -1).all() and t.max_drawdown == fall.min(initial=0)
    assert t.cvar <= t.value_at_risk + 1e-15 and t.cvar_normal <= t.value_at_risk_normal
    assert 0 <= t.stability <= 1 + 1e-12
    assert r.min() <= evar(r) <= t.cvar + 1e-12 and fall.min() <= entropic_drawdown(r) <= t.conditional_drawdown + 1e-12 and t.conditional_drawdown <= drawdown_at_risk(r) + 1e-15
    for name in set(RULERS) - {"drawdown_at_risk", "entropic_drawdown"}: assert RULERS[name](r*.5) == pytest.approx(RULERS[name](r)/2, rel=1e-8), name
    big = performance_metrics(r*.5)
    for name in "sharpe", "sortino", "profit_factor", "omega", "win_rate", "payoff_ratio", "skew", "kurtosis", "tail_ratio": assert big[name] == pytest.approx(t[name], rel=1e-9, nan_ok=True), name
    for name in "volatility", "avg_win", "avg_loss", "value_at_risk", "cvar", "downside_risk": assert big[name] == pytest.approx(t[name]/2, rel=1e-9, nan_ok=True), name
    mirror = performance_metrics(-r)
    assert mirror.sharpe == pytest.approx(-t.sharpe, rel=1e-9) and mirror["skew"] == pytest.approx(-t["skew"], rel=1e-9)
    assert mirror.omega*t.omega == pytest.approx(1, rel=1e-9, nan_ok=True)
    idle = np.insert(r, np.random.default_rng(seed).integers(0, len(r) + 1, 7), 0.)
    for f in (total_return, max_drawdown, profit_factor, win_rate): assert f(idle) == pytest.approx(f(r), rel=1e-12, nan_ok=True)

def test_drawdowns_are_those_of_skfolio():
    "Whose tail is a share of the bars, and ours a number of them: the same where the share is whole."
    measures = pytest.importorskip("skfolio.measures")
    r = draw(6, 200)
    falls = measures.get_drawdowns(r, compounded=True)
    assert average_drawdown(r) == pytest.approx(-measures.average_drawdown(falls), rel=1e-12)
    for level in .05, .1, .5: assert conditional_drawdown(r, level) == pytest.approx(-measures.cdar(falls, beta=1 - level), rel=1e-12)

# beside a benchmark and over time

def empyrical(r, b, periods):
    "What empyrical computes, by its formulas."
    grown = lambda x: (1 + x).prod()**(periods/len(x)) - 1
    r, b = pd.Series(r), pd.Series(b)
    up, down = grown(r[b > 0])/grown(b[b > 0]), grown(r[b < 0])/grown(b[b < 0])
    return dict(beta=np.cov(r, b)[0, 1]/b.var(), alpha=(r - np.cov(r, b)[0, 1]/b.var()*b).mean()*periods, excess_sharpe=(r - b).mean()/(r - b).std(), up_capture=up,
        down_capture=down, up_down_capture=up/down)

@pytest.mark.parametrize("seed", range(3))
def test_beside_a_benchmark_as_empyrical(seed):
    "Its alpha is compounded over the year from a mean bar; here it is added up, and the mean is the same."
    b = draw(seed, 150); r = .5*b + draw(seed + 10, 150)
    known, table = empyrical(r, b, 252), exposure(r, pd.DataFrame({"market": b}))
    assert table.beta["market"] == pytest.approx(known["beta"], rel=1e-9) and table.beta["alpha"] == pytest.approx(known["alpha"], rel=1e-9)
    assert information_ratio(r, b, 1) == pytest.approx(known["excess_sharpe"], rel=1e-9) and tracking_error(r, b, 1) == pytest.approx((r - b).std(ddof=1), rel=1e-9)
    for f, name in (up_capture, "up_capture"), (down_capture, "down_capture"), (capture_ratio, "up_down_capture"): assert f(r, b) == pytest.approx(known[name], rel=1e-9)

BESIDE = tracking_error, information_ratio, up_capture, down_capture, capture_ratio, alpha, beta, batting_average, beta_fragility

@quick
@given(seeds)
def test_any_benchmark(seed):
    "Many strategies at once are each alone; who is the benchmark has captured all of it and added nothing; nothing is infinite."
    b = draw(seed); r = draw(seed + 1, 2, len(b)) + b
    for f in BESIDE:
        assert not np.isinf(f(r, b)).any()
        np.testing.assert_allclose(f(r, b), [f(x, b) for x in r], rtol=1e-12)
    assert tracking_error(b, b) == 0 and np.isnan(information_ratio(b, b))
    for f in up_capture, down_capture, capture_ratio, beta: assert f(b, b) == pytest.approx(1, rel=1e-12, nan_ok=True)
    for f in alpha, batting_average, beta_fragility: assert f(b, b) == pytest.approx(0, abs=1e-12)

@pytest.mark.parametrize("name", METRICS)
def test_rolling_is_each_window_alone(name):
    r, f = draw(7, 3, 40), ANNUAL.get(name) or PLAIN[name]
    found = rolling(f, r, 12)
    assert found.shape == r.shape and np.isnan(found[:, :11]).all()
    np.testing.assert_allclose(found[:, 11:], [[f(x[t - 11:t + 1]) for t in range(11, 40)] for x in r], rtol=1e-12)

@quick
@given(seeds, st.integers(1, 30))
def test_rolling_knows_nothing_of_later(seed, window):
    "Whatever comes after a bar, of the strategy or of its benchmark, what was said up to it is the same to the bit."
    b = draw(seed); r = draw(seed + 1, len(b)); t = int(np.random.default_rng(seed).integers(1, len(b)))
    other = lambda x, s: np.concatenate([x[:t], draw(s, len(x) - t)])
    for f in sharpe, max_drawdown, conditional_drawdown, cagr: np.testing.assert_array_equal(rolling(f, other(r, 5), window)[:t], rolling(f, r, window)[:t])
    for f in BESIDE: np.testing.assert_array_equal(rolling(f, other(r, 5), window, other(b, 6))[:t], rolling(f, r, window, b)[:t])

def test_rolling_in_parts_is_the_whole():
    "More windows than are held at a time, and a mark where two parts meet would show."
    r = draw(8, 16, 3000)
    np.testing.assert_allclose(rolling(total_return, r, 250)[:, [249, 1296, 1297, 1298, 2999]], [[total_return(x[t - 249:t + 1]) for t in (249, 1296, 1297, 1298, 2999)] for x in r], rtol=1e-12)

# what is not defined

ODD = dict(empty=[], one=[.01], flat=[0.]*9, constant=[.001]*9, fall=[-.001]*9, gains=[.01, .02, .03, .01, .02], losses=[-.01, -.02, -.03, -.01], ruin=[.1, -1., .1, .2], debt=[.1, -2., .1, .2],
    tiny=[1e-300, -1e-300, 2e-300, 1e-300], idle=[0., 0., .01, 0., 0.])
MISSING = dict(flat="sharpe sortino calmar profit_factor win_rate avg_win avg_loss payoff_ratio omega skew kurtosis tail_ratio stability",
    constant="sharpe sortino calmar profit_factor avg_loss payoff_ratio omega skew kurtosis", gains="sortino calmar profit_factor avg_loss payoff_ratio omega", losses="avg_win payoff_ratio",
    one="volatility sharpe sortino calmar ulcer_index profit_factor avg_loss payoff_ratio omega value_at_risk_normal cvar_normal skew kurtosis stability")

@pytest.mark.parametrize("name", ODD)
def test_odd_series_are_silent(name, capfd):
    "No warning (they are errors here), nothing printed, never infinite; NaN exactly where it is said."
    t = performance_metrics(ODD[name])
    probabilistic_sharpe(ODD[name]); deflated_sharpe(ODD[name], 10, .01)
    others = [*(f(ODD[name]) for f in RULERS.values()), *(f(x, y) for f in BESIDE for x, y in ((ODD[name], ODD[name]), (ODD[name], [0.]*len(ODD[name]))))]
    assert not np.isinf(t).any() and not np.isinf(others).any() and capfd.readouterr() == ("", "")
    if name in MISSING: assert set(t.index[t.isna()]) == set(MISSING[name].split())
    if name == "empty": assert t.drop(["total_return", "max_drawdown"]).isna().all() and t.total_return == t.max_drawdown == 0
    if name in ("ruin", "debt"): assert np.isnan(t.stability) and t.max_drawdown <= -1 and np.isnan(t.cagr) == (name == "debt")
    assert not np.isinf(performance_metrics(ODD[name], periods=105_120)).any()
    both = performance_metrics([ODD[name]]*2)
    np.testing.assert_array_equal(both.loc[1], t)

DAYS = pd.Series([.01, .02, -.01], pd.date_range("2024-01-01", periods=3))

def test_equal_returns_have_no_deviation():
    "Whatever rounding does to their mean, there is no ratio of 1e16."
    for n in range(2, 60):
        for x in (.1, .3, -.0007, 1/3):
            assert volatility([x]*n) == 0 and np.isnan(sharpe([x]*n)) and np.isnan(skew([x]*n)) and np.isnan(probabilistic_sharpe([x]*n))

@pytest.mark.parametrize("call,words", [
    (lambda: sharpe([.1, np.nan, .2]), r"holds nan at \(1,\)"), (lambda: max_drawdown([[.1, .2], [.1, np.inf]]), r"holds inf at \(1, 1\)"),
    (lambda: sharpe([np.inf, -np.inf]), r"at \(0,\)"), (lambda: win_rate(pd.DataFrame(np.zeros((3, 2)))), "time last"), (lambda: sharpe(.1), "single number"),
    (lambda: value_at_risk([.1], level=5), "between 0 and 1"), (lambda: cvar([.1], method="t"), "there are historical, normal"), (lambda: performance_metrics(np.zeros((2, 2, 2))), "strategies by bars"),
    (lambda: sharpe_interval(np.zeros((2, 9))), "one series"), (lambda: sharpe_interval([.1, .2], level=95), "between 0 and 1"), (lambda: expected_maximum_sharpe(1., 0), "every strategy"),
    (lambda: expected_maximum_sharpe(-1., 3), "0 or more"), (lambda: information_ratio(np.zeros(3), np.zeros(4)), "over the same bars"), (lambda: up_capture([.1, .2], [.1, np.nan]), r"nan at \(1,\)"),
    (lambda: tracking_error(np.zeros((2, 3)), .1), "single number"), (lambda: information_ratio(DAYS, DAYS.shift(1, "D")), "benchmark have different times"),
    (lambda: rolling(beta, DAYS, 1, DAYS.shift(1, "D")), "different times"), (lambda: exposure(DAYS, pd.DataFrame({"market": DAYS.shift(1, "D")})), r"returns.align\(factors, join='inner', axis=0\)"), (lambda: rolling(sharpe, [.1, .2], 1.5), "1, 2, ... bars"), (lambda: rolling("sharpe", [.1], 1), "a function of returns"),
    (lambda: rolling(drawdown, [.1, .2], 2), "one number for each"), (lambda: rolling(information_ratio, [.1, .2], 2, [.1]), "over the same bars")])
def test_errors(call, words):
    with pytest.raises(ValueError, match=words): call()

# how sure

def test_interval_covers():
    "200 studies, the true ratio of a bar is .05; and a wider block widens the interval of returns that depend on each other."
    r = np.random.default_rng(0).normal(.0005, .01, (200, 400))
    hit = [a < .05*252**.5 < b for a, b in (sharpe_interval(x, n_boot=300, seed=i) for i, x in enumerate(r))]
    assert .88 < np.mean(hit) < .99
    slow = np.convolve(np.random.default_rng(1).normal(0, .01, 1010), np.ones(10)/10, "valid")
    width = lambda block: np.subtract(*sharpe_interval(slow, block=block)[::-1])
    assert width(50) > 2*width(1)

def skewed(rng, *shape): return .3 + 1 - rng.exponential(size=shape)       # mean .3, deviation 1, skew -2, kurtosis 9

def test_the_error_of_a_ratio():
    "The deviation of simulated ratios is the root in the formula, with the moments of the distribution; a normal's would be far off."
    ratios = sharpe(skewed(np.random.default_rng(0), 4000, 400), periods=1)
    assert ratios.std()*400**.5 == pytest.approx((1 + 2*.3 + 8/4*.09)**.5, rel=.04)
    assert ratios.std()*400**.5 > 1.2*(1 + .5*.09)**.5

@pytest.mark.parametrize("what", ["normal", "heavy", "skewed"])
def test_size_of_the_probabilistic_test(what):
    "At the true ratio, 5 % of the series pass 95 %."
    rng = np.random.default_rng(1); shape = (3000, 400)
    r = dict(normal=lambda: rng.normal(.1, 1, shape), heavy=lambda: .1 + rng.standard_t(6, shape)/1.5**.5, skewed=lambda: skewed(rng, *shape))[what]()
    truth = .3 if what == "skewed" else .1
    assert .03 < (probabilistic_sharpe(r, truth) > .95).mean() < .08
    assert (probabilistic_sharpe(r, truth + .3) > .95).mean() < .001 and (probabilistic_sharpe(r, truth - .25) > .95).mean() > .95

@pytest.mark.parametrize("trials,tolerance", [(5, .035), (10, .03), (100, .01), (1000, .006)])
def test_expected_maximum(trials, tolerance):
    "Against the integral and a simulation."
    exact = integrate.quad(lambda x: x*trials*stats.norm.pdf(x)*stats.norm.cdf(x)**(trials - 1), -10, 10, limit=200)[0]
    simulated = .1*np.random.default_rng(0).standard_normal((2000, trials)).max(1).mean()
    assert expected_maximum_sharpe(.01, trials) == pytest.approx(.1*exact, rel=tolerance)
    assert simulated == pytest.approx(.1*exact, rel=.03)

def test_deflation_of_the_best():
    "The best of 20 without skill hardly ever passes, one with skill among them does, and undeflated luck would."
    r = np.random.default_rng(2).standard_normal((300, 20, 250))
    def passes(r):
        ratios = sharpe(r, periods=1); best = r[np.arange(len(r)), ratios.argmax(1)]
        return np.mean([deflated_sharpe(x, 20, v) > .95 for x, v in zip(best, ratios.var(1, ddof=1))]), np.mean(probabilistic_sharpe(best) > .95)
    lucky, naive = passes(r)
    r[:, 7] += .5
    skilled, _ = passes(r)
    assert lucky < .05 and naive > .5 and skilled > .9

def test_trials_deflate_without_their_ratios():
    "Of strategies that were tried elsewhere only the number is known: the uncertainty of one ratio stands for their spread."
    r = .1 + np.random.default_rng(4).standard_t(5, 250)
    z = (r - r.mean())/r.std(); s = r.mean()/r.std(ddof=1)
    assert sharpe_variance(r) == pytest.approx((1 - (z**3).mean()*s + ((z**4).mean() - 1)/4*s**2)/249)      # eq. 9 of the paper
    assert deflated_sharpe(r, 1000) == pytest.approx(deflated_sharpe(r, 1000, sharpe_variance(r)))
    assert deflated_sharpe(r, 1000) < deflated_sharpe(r, 10) < deflated_sharpe(r, 1) == probabilistic_sharpe(r)
    many = np.stack([r, 2*r - .1, np.zeros(250)])
    np.testing.assert_allclose(deflated_sharpe(many, 20), [deflated_sharpe(x, 20) for x in many])
    assert np.isnan(deflated_sharpe(np.zeros(5), 20))

def test_variance_of_a_sharpe_ratio_is_that_of_its_estimates():
    r = .1 + np.random.default_rng(5).standard_t(8, (4000, 300))/(8/6)**.5
    assert sharpe(r, periods=1).var() == pytest.approx(np.mean(sharpe_variance(r)), rel=.08)

def test_public_names():
    assert {"sharpe", "drawdown", "performance_metrics", "deflated_sharpe", "sharpe_interval"} <= set(performance.__all__)
