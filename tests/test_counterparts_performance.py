"""What empyrical's public suite checks, and skfolio's public measures, each beside ours.

nbs/metrics/counterparts_performance.csv names every case: its counterpart, and why there is none or why ours says something else on purpose. Here are the
returns of each case, written anew, and what it should give by definition, in pandas, scipy or a loop."""
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from scipy import stats

from synthlab.metrics import performance, positions, relative, risk
from synthlab.metrics.performance import cagr, calmar, cumulative_return, cvar, downside_risk, max_drawdown, omega, sharpe, sortino, stability, tail_ratio, total_return, value_at_risk, volatility
from synthlab.metrics.positions import exposure
from synthlab.metrics.relative import aggregate_returns, alpha, batting_average, beta, beta_fragility, capture_ratio, down_capture, information_ratio, rolling, up_capture
from synthlab.metrics.risk import pareto_tail

pytestmark = pytest.mark.filterwarnings("error")
TABLE = pd.read_csv(Path(__file__).parents[1]/"nbs/metrics/counterparts_performance.csv", keep_default_na=False)
ROOMS = performance, positions, relative, risk

# the returns

rng = np.random.default_rng(1337)
NOISE, EVEN = rng.normal(0, .001, 40), rng.uniform(-.01, .01, 40)
SERIES = dict(empty=[], one=[.02], steady=[.01]*8, stairs=[0, .02]*4, gains=[.02, .01, .03, .01, .02, .01, .015, .02], losses=[0, -.05, -.03, -.02, -.08, -.01, -.04, -.06],
    falls=[-.01, -.05, -.03, -.02, -.08, -.01, -.04, -.06], mixed=[.02, .08, -.03, .01, .04, .025, -.01, -.12], swing=[.2, -.2, .2], yearly=[.03]*3, noise=NOISE, even=EVEN,
    flat=[0.]*40, level=[.01]*40, line=np.linspace(0, 1, 40), down=np.linspace(0, -1, 40), many=rng.standard_normal(5000), bent=np.arange(-4, 4)**2/1000 + np.arange(8)/50,
    two=[[-.002, .013, .03, -.014, -.005, .012, -.033, .018], [.018, .008, -.014, .004, -.003, .037, .015, .035]])
SERIES = {k: np.asarray(v, dtype=float) for k, v in SERIES.items()}
FORMS = dict(arrays=lambda x: x, dates=lambda x: x if x.ndim > 1 else pd.Series(x, pd.date_range("2000-01-30", periods=len(x))),
    numbers=lambda x: x if x.ndim > 1 else pd.Series(x))

# the cases: ours, what is known (a text: ours says so in an error), what either takes (names of series, or values)

CASES, THEIRS = {}, {}

def group(name, ours, known, *inputs, theirs=None):
    "Cases of one function; `theirs`, by inputs: what empyrical gives where ours is another number on purpose, NaN for an error."
    for given in inputs:
        case = f"{name}: {', '.join(map(str, given))}" if given else name
        assert case not in CASES, case
        CASES[case] = ours, known, given
        if theirs and given in theirs: THEIRS[case] = theirs[given]

def over(a, b): return a/b if b else np.nan
def grown(r, n): return (1 + r).prod()**(n/len(r)) - 1 if len(r) else np.nan
def both(f, *xs): return np.array([f(x) for x in xs])
def wealth(r): return pd.Series(np.r_[1., (1 + r).cumprod()])
def fall(r): return (wealth(r)/wealth(r).cummax() - 1).min()
def short(r, n): return np.nan if r.size == 0 else (np.minimum(r, 0)**2).mean(-1)**.5*n**.5
def line(r, b):
    "Slope, and what is left of a mean year, by scipy; nothing for a benchmark that never changes."
    if len(b) < 2 or np.ptp(b) == 0: return np.array([np.nan, np.nan])
    fit = stats.linregress(b, r); return np.array([252*fit.intercept, fit.slope])
def compounded(r, b): a, slope = line(r, b); return np.array([(1 + a/252)**252 - 1, slope])
def windows(f, *xs, n=6): return np.array([np.nan]*min(n - 1, len(xs[0])) + [f(*(x[t - n + 1:t + 1] for x in xs)) for t in range(n - 1, len(xs[0]))]) if len(xs[0]) else np.array([])
def captured(r, b): return over(grown(r, 252), grown(b, 252)) if len(r) else np.nan
def true(*_): return True

group("cum_returns", lambda r, start: start*(1 + cumulative_return(r)) if start else cumulative_return(r), lambda r, start: (start or 1)*wealth(r)[1:] - (not start),
      ("empty", 0), ("mixed", 0), ("mixed", 100), ("losses", 0))
group("cum_returns_final", lambda r, start: start*(1 + total_return(r)) if start else total_return(r), lambda r, start: (start or 1)*wealth(r).iloc[-1] - (not start),
      ("empty", 0), ("one", 0), ("mixed", 0), ("mixed", 100), ("losses", 0), theirs={("empty", 0): lambda r, start: np.nan})
group("cum_returns of a frame", lambda r, start: start*(1 + cumulative_return(r)) if start else cumulative_return(r), lambda r, start: np.stack([(start or 1)*wealth(x)[1:] - (not start) for x in r]),
      ("two", 0), ("two", 100))
group("cum_returns of a frame", lambda r: cumulative_return(np.reshape(r, (0, 0))).size, lambda r: 0, ("empty",))
group("cum_returns_final of a frame", lambda r, start: start*(1 + total_return(r)) if start else total_return(r), lambda r, start: np.array([(start or 1)*wealth(x).iloc[-1] - (not start) for x in r]),
      ("two", 0), ("two", 100))

def calendar(r, step, span):
    "Growth of each part of the calendar, by Python's own dates."
    of = dict(week=lambda d: d.isocalendar()[:2], month=lambda d: (d.year, d.month), quarter=lambda d: (d.year, (d.month + 2)//3), year=lambda d: d.year)[span]
    return np.array([np.prod([1 + x for _, x in part]) - 1 for _, part in groupby(zip(days(len(r), step), r), lambda p: of(p[0]))])
def days(n, step): return pd.date_range("2000-01-30", periods=n, freq=step)
group("aggregate_returns", lambda r, step, span: aggregate_returns(r, days(len(r), step), span).to_numpy(), calendar, ("stairs", "D", "week"), ("stairs", "D", "month"), ("stairs", "D", "quarter"),
      ("stairs", "D", "year"), ("mixed", "W", "month"), ("mixed", "W", "year"), ("mixed", "ME", "year"), ("mixed", "ME", "quarter"))

group("max_drawdown", max_drawdown, fall, ("empty",), ("one",), ("stairs",), ("mixed",), ("gains",), ("losses",), ("falls",), ("swing",), theirs={("empty",): lambda r: np.nan})
group("max_drawdown, raised and lowered", lambda r, c: max_drawdown(r - c) <= max_drawdown(r) <= max_drawdown(r + c), true, ("noise", .0001), ("noise", .001), ("even", .01), ("even", .1))
group("annual_return", cagr, grown, ("mixed", 252), ("mixed", 52), ("mixed", 12))
group("annual_volatility", volatility, lambda r, n: np.std(r, ddof=1)*n**.5, ("level", 252), ("mixed", 252), ("mixed", 52), ("mixed", 12))
group("calmar_ratio", calmar, lambda r, n: over(grown(r, n), -fall(r)), ("empty", 252), ("one", 252), ("mixed", 252), ("mixed", 52), ("mixed", 12))
def ratio_about(r, line): x = r - line; return over(x[x > 0].sum(), -x[x < 0].sum())
group("omega_ratio", lambda r, line: omega(r, line), ratio_about, ("empty", 0), ("one", 0), ("mixed", .01), ("gains", .01), ("gains", .011), ("gains", .03), ("losses", .01))
group("omega_ratio, 1000 % a year required", lambda r: omega(r, 11**(1/252) - 1), lambda r: ratio_about(r, 11**(1/252) - 1), ("mixed",))
group("omega_ratio falls as more is required", lambda r, a, b: omega(r, a) > omega(r, b), true, ("even", 0, .001), ("noise", .001, .002))

def mean_over_std(r, free=0): x = r - free; return over(x.mean(), x.std(ddof=1))*252**.5 if len(x) > 1 and np.ptp(x) else np.nan
group("sharpe_ratio", lambda r, free=0: sharpe(r - free), mean_over_std, ("empty",), ("one",), ("mixed", "mixed"), ("mixed",), ("mixed", "stairs"), ("gains",), ("losses",), ("steady",),
      theirs={("steady",): lambda r: np.inf})
group("sharpe_ratio, both shifted alike", lambda r, free, c: both(sharpe, r - free, r - c - (free - c), r + c - (free + c)), lambda r, free, c: np.full(3, mean_over_std(r, free)), ("even", 0, .005), ("even", .005, .005))
group("sharpe_ratio, shifted differently", lambda r, free, c, d: len({round(sharpe(r - free + s*(c - d)), 9) for s in (-1, 0, 1)}), lambda *_: 3, ("even", 0, .0002, .0001), ("even", .005, .0001, .0002))
group("sharpe_ratio falls as the rate rises", lambda r, c: sharpe(r + c) > sharpe(r) > sharpe(r - c), true, ("even", .005), ("noise", .005))
group("sharpe_ratio falls with the noise", lambda r, a, b: sharpe(.009 + a*r) > sharpe(.009 + b*r), true, ("noise", 1, 2), ("noise", 10, 20))

group("downside_risk", lambda r, target, n: downside_risk(r - target, n), lambda r, target, n: short(r - target, n), ("empty", 0, 252), ("one", 0, 252), ("mixed", "mixed", 252), ("mixed", 0, 252), ("mixed", .1, 252), ("mixed", 0, 52),
      ("mixed", .1, 52), ("mixed", 0, 12), ("mixed", .1, 12), ("two", 0, 252), ("two", 0, 52), ("two", 0, 12))
def noisy(noise, rest, share): k = int(share*len(noise)); return np.concatenate([noise[:k], rest[k:]])
group("downside_risk rises with noisy bars", lambda r, flat: downside_risk(noisy(r, flat, .25)) <= downside_risk(noisy(r, flat, .5)) <= downside_risk(noisy(r, flat, .75)), true, ("noise", "flat"), ("even", "flat"))
group("downside_risk rises as more is required", lambda r, c: downside_risk(r + c) <= downside_risk(r) <= downside_risk(r - c), true, ("noise", .005), ("even", .005))
group("downside_risk rises with the noise", lambda r, a, b: downside_risk(a*r) < downside_risk(b*r), true, ("noise", 1, 2), ("noise", 1, 10), ("noise", 0, 1))
def over_short(r, target=0, n=252):
    x = r - target
    if x.ndim > 1: return np.array([over_short(y, 0, n) for y in x])
    return over(x.mean()*n, short(x, n)) if len(x) else np.nan
group("sortino_ratio", lambda r, target=0, n=252: sortino(r - target, n), over_short, ("empty",), ("one",), ("mixed", "mixed"), ("mixed",), ("mixed", "steady"), ("gains",), ("losses",), ("stairs",), ("mixed", 0, 52), ("mixed", 0, 12),
      ("two", 0, 252), ("two", 0, 52), ("two", 0, 12), theirs={("gains",): lambda r: np.inf, ("stairs",): lambda r: np.inf})
def put(r, rows, value): x = np.array(r); x[rows] = value; return x
group("sortino_ratio falls with every loss", lambda r: sortino(r) > sortino(put(r, np.flatnonzero(r > 0)[:1], -.01)) > sortino(put(r, np.flatnonzero(r > 0)[:2], -.01)), true, ("even",), ("noise",))
group("sortino_ratio rises with every loss taken away", lambda r: sortino(r) < sortino(put(r, np.flatnonzero(r < 0)[:1], 0)) < sortino(put(r, np.flatnonzero(r < 0)[:2], 0)), true, ("even",), ("noise",))
group("sortino_ratio, both shifted alike", lambda r, free, c: both(sortino, r - free, r - c - (free - c), r + c - (free + c)), lambda r, free, c: np.full(3, over_short(r, free)), ("even", 0, .005), ("even", .005, .005))
group("sortino_ratio, shifted differently", lambda r, free, c, d: len({round(sortino(r - free + s*(c - d)), 9) for s in (-1, 0, 1)}), lambda *_: 3, ("even", 0, 0, .001), ("even", .005, .001, 0))

group("excess_sharpe", lambda r, b: information_ratio(r, b, 1), lambda r, b: mean_over_std(r, b)/252**.5, ("empty", "empty"), ("one", "one"), ("line", "line"), ("mixed", "stairs"), ("mixed", "steady"))
group("excess_sharpe grows with the bars that differ", lambda r, b: abs(information_ratio(noisy(r, b, .25), b)) < abs(information_ratio(noisy(r, b, .5), b)) < abs(information_ratio(noisy(r, b, .75), b)), true,
      ("flat", "line"), ("level", "line"), ("noise", "line"))
group("excess_sharpe, raised and lowered", lambda r, x, sign, c: information_ratio(r + sign*x - c, r) < information_ratio(r + sign*x, r) < information_ratio(r + sign*x + c, r), true,
      ("line", "noise", 1, "level"), ("line", "noise", -1, "level"), ("down", "noise", 1, "level"), ("down", "noise", -1, "level"))

# alpha and beta

def left_and_held(r, b, sign=1): return np.array([alpha(r, sign*b), beta(r, sign*b)])
def by_scipy(r, b, sign=1): return line(r, sign*b)
PAIRS = ("empty", "empty"), ("one", "one"), ("mixed", "losses"), ("mixed", "mixed"), ("mixed", "mixed", -1)
APART = "over the same bars|different times"
group("alpha_beta", left_and_held, by_scipy, *PAIRS, theirs={("mixed", "losses"): compounded})
group("alpha_beta of unequal lengths", left_and_held, APART, ("empty", "stairs"))
group("alpha_beta of other times", lambda r, b: alpha(pd.Series(np.asarray(r), days(8, "D")), pd.Series(np.asarray(b), days(9, "D")[1:])), "benchmark have different times", ("mixed", "losses"))
group("alpha", alpha, lambda r, b: line(r, b)[0], ("one", "one"), ("mixed", "mixed"))
group("alpha of unequal lengths", alpha, APART, ("empty", "stairs"))
group("alpha of the opposite", lambda r, b: alpha(r, -b), lambda r, b: 0, ("mixed", "mixed"))
def follower(mean, c, share=.8):
    b = .001 + .1*NOISE; return mean + c + 10*(share*(b - .001) + (1 - share**2)**.5*.1*np.roll(NOISE, 7)), b
group("alpha_beta, raised and lowered", lambda mean, c: np.array([left_and_held(*follower(mean, s*c)) for s in (-1, 0, 1)]), lambda mean, c: line(*follower(mean, 0)) + np.array([[-252*c, 0], [0, 0], [252*c, 0]]), (0, .001), (.01, .001))
group("alpha_beta by correlation", lambda: np.sign(left_and_held(*follower(.01, 0, .9)) - left_and_held(*follower(.01, 0, .1))), lambda: np.array([-1, 1]), ())
MISSING = r"returns holds nan at \(3,\); fill it"
group("alpha_beta with a missing return", lambda r, b: alpha(put(r, 3, np.nan), b), MISSING, ("noise", "noise"))
group("beta", lambda r, b, k=1, sign=1: beta(k*r, sign*b), lambda r, b, k=1, sign=1: k*sign*line(r, b)[1], ("one", "one"), ("noise", "noise"), ("noise", "noise", 2), ("noise", "noise", 1, -1), ("noise", "noise", 2, -1))
group("beta of unequal lengths", beta, APART, ("empty", "stairs"))
group("beta to a frame", lambda r, b: beta(r, pd.DataFrame(dict(returns=b))), "give frame.to_numpy", ("stairs", "stairs"))
group("alpha_beta is alpha and beta", lambda r, b, sign=1: exposure(r, pd.DataFrame(dict(market=sign*np.asarray(b)))).beta[["alpha", "market"]].to_numpy(), by_scipy, ("mixed", "mixed"), ("mixed", "mixed", -1))
group("alpha_beta is alpha and beta", left_and_held, by_scipy, ("one", "one"), ("empty", "empty"))
def those(f, above): return lambda r, b, sign=1: f(r[sign*b > 0], (sign*b)[sign*b > 0]) if above else f(r[sign*b < 0], (sign*b)[sign*b < 0])
for name, above in ("down_alpha_beta", False), ("up_alpha_beta", True):
    other = "gains" if above else "losses"
    group(name, those(left_and_held, above), those(line, above), ("empty", "empty"), ("one", "one"), ("mixed", other), ("mixed", "mixed"), ("mixed", "mixed", -1), theirs={("mixed", other): those(compounded, above)})

group("stability_of_timeseries", stability, lambda r: stats.linregress(np.arange(len(r)), np.log1p(r).cumsum()).rvalue**2 if len(r) > 1 else np.nan, ("empty",), ("one",), ("mixed",), ("level",))
group("tail_ratio", tail_ratio, lambda r: abs(np.percentile(r, 95)/np.percentile(r, 5)) if len(r) else np.nan, ("empty",), ("one",), ("mixed",), ("many",))
group("cagr", cagr, grown, ("empty", 252), ("one", 252), ("mixed", 252), ("level", 252), ("yearly", 1))
group("cagr, raised and lowered", lambda r, c: cagr(r - c) < cagr(r) < cagr(r + c), true, ("noise", .01), ("even", .01))
group("cagr with a missing return", lambda r: cagr(put(r, 3, np.nan)), MISSING, ("noise",))
group("cagr hardly moves with noise", lambda r, x, n: abs(both(lambda y: cagr(y, n), r + x, r - x)/cagr(r, n) - 1).max() < .1, true, ("line", "noise", 1), ("line", "even", 1), ("level", "noise", 252))

def bent(r, b):
    "The chord of lowest and highest bar less the middle one."
    if len(r) < 3: return np.nan
    low, middle, high = np.argsort(b)[[0, len(b)//2, -1]]
    return np.interp(b[middle], [b[low], b[high]], [r[low], r[high]]) - r[middle]
group("beta_fragility_heuristic", beta_fragility, bent, ("one", "one"), ("gains", "bent"), ("mixed", "bent"), ("losses", "bent"))
group("gpd_risk_estimates", pareto_tail, "a tail takes ten", ("one",), ("empty",), ("stairs",), ("gains",), ("losses",), ("mixed",), ("steady",))
group("gpd_risk_estimates of weeks", pareto_tail, "a tail takes ten", ("mixed",))
group("gpd_risk_estimates of months", pareto_tail, "a tail takes ten", ("mixed",))

# over time

group("roll_max_drawdown", lambda r: rolling(max_drawdown, r, 6), lambda r: windows(fall, r), ("empty",), ("losses",))
group("roll_sharpe_ratio", lambda r: rolling(sharpe, r, 6), lambda r: windows(mean_over_std, r), ("empty",), ("losses",), ("mixed",))
group("capture", lambda r, b: cagr(r)/cagr(b), captured, ("empty", "empty"), ("one", "one"), ("mixed", "mixed"), ("falls", "mixed"))
group("down_capture", down_capture, those(captured, False), ("empty", "empty"), ("one", "one"), ("mixed", "mixed"), ("falls", "mixed"), ("gains", "mixed"))
group("up_capture", up_capture, those(captured, True), ("empty", "empty"), ("one", "one"), ("mixed", "mixed"), ("gains", "mixed"), ("falls", "mixed"))
def up_over_down(r, b): return over(those(captured, True)(r, b), those(captured, False)(r, b))
group("up_down_capture", capture_ratio, up_over_down, ("empty", "empty"), ("one", "one"), ("mixed", "mixed"), ("gains", "mixed"), ("falls", "mixed"))
def rolled(r, b, n, sign=1): return np.array([rolling(f, r, n, sign*b) for f in (alpha, beta)])
def windowed(f): return lambda r, b, n, sign=1: np.array([f(r[t - n + 1:t + 1], sign*b[t - n + 1:t + 1]) for t in range(n - 1, len(r))]).T
group("roll_alpha_beta", lambda r, b, n, sign=1: rolled(r, b, n, sign)[:, n - 1:], windowed(line), ("one", "one", 1), ("mixed", "losses", 6), ("mixed", "mixed", 6), ("mixed", "mixed", 6, -1),
      theirs={("mixed", "losses", 6): windowed(compounded)})
group("roll_alpha_beta of unequal lengths", rolled, APART, ("empty", "stairs", 1))
for name, f, known in ("roll_up_down_capture", capture_ratio, up_over_down), ("roll_down_capture", down_capture, those(captured, False)), ("roll_up_capture", up_capture, those(captured, True)):
    group(name, lambda r, b, n, f=f: rolling(f, r, n, b), lambda r, b, n, known=known: windows(known, r, b, n=n), ("empty", "empty", 1), ("one", "one", 1), ("mixed", "mixed", 6), ("gains", "mixed", 6), ("falls", "mixed", 6))
group("roll gives a number a window", lambda r, b: np.isfinite(rolling(alpha, r, 12, b)).sum(), lambda r, b: len(r) - 11, ("noise", "even"))
group("roll gives a number a window of arrays", lambda r, b: np.isfinite(rolling(alpha, np.asarray(r), 12, np.asarray(b))).sum(), lambda r, b: len(r) - 11, ("noise", "even"))
group("roll of an array beside a Series", lambda r, b: rolling(alpha, pd.Series(r), 12, np.asarray(b))[-1], lambda r, b: line(r[-12:], b[-12:])[0], ("noise", "even"), theirs={("noise", "even"): lambda r, b: np.nan})
group("roll over more than there is", lambda r, b: np.isfinite(rolling(max_drawdown, r, 140)).sum(), lambda r, b: 0, ("noise", "even"))
group("down", lambda r, b: down_capture(r, b), those(captured, False), ("noise", "even"))
group("up", lambda r, b: up_capture(r, b), those(captured, True), ("noise", "even"))

# tails and bats

QUARTERS = .05, .2, .3, .999
group("value_at_risk", lambda r: both(lambda q: value_at_risk(r, q), *QUARTERS), lambda r: np.percentile(r, 100*np.array(QUARTERS)), ("even",))
group("value_at_risk of a few", lambda: np.array([value_at_risk([1, 2], .3), *(value_at_risk([1, 81, 82, 83, 84, 85], q) for q in (.1, .2, .3))]), lambda: np.array([1.3, 41, 81, 81.5]), ())
group("value_at_risk of a share of 0", lambda r: value_at_risk(r, 0.), "between 0 and 1", ("even",))
group("conditional_value_at_risk", lambda r: both(lambda q: cvar(r, q), *QUARTERS), lambda r: both(lambda q: r[r <= np.percentile(r, 100*q)].mean(), *QUARTERS), ("even",))
group("conditional_value_at_risk of one", lambda r: cvar(r, .5), lambda r: r[0], ("one",))
group("conditional_value_at_risk of a share of 0", lambda r: cvar(r, 0.), "between 0 and 1", ("one",))
def bats(f): return lambda r, b, x=0: np.array([f(r, b + x), f(r[b + x >= 0], (b + x)[b + x >= 0]), f(r[b + x < 0], (b + x)[b + x < 0])])
def beaten(r, b): return np.mean(np.asarray(r) > np.asarray(b)) if len(r) else np.nan
group("batting_average", bats(batting_average), bats(beaten), ("empty", "empty"), ("gains", "falls"), ("falls", "gains"), ("mixed", "mixed"), ("stairs", "stairs", .001))

# the cases are run, and the table knows them

def given(names, form): return [FORMS[form](SERIES[x].copy()) if isinstance(x, str) and x in SERIES else x for x in names]
def ours(case, form): call, _, names = CASES[case]; return call(*given(names, form))

@pytest.mark.parametrize("case", CASES)
def test_case(case):
    "Ours gives what the definition says, or says the sentence; of arrays, Series by dates and Series by numbers the same to the bit; nothing is written to."
    call, known, names = CASES[case]
    for form in FORMS:
        args = given(names, form); before = [np.array(x) for x in args]
        if isinstance(known, str):
            with pytest.raises(ValueError, match=known): call(*args)
        else:
            got = np.asarray(call(*args), dtype=float)
            if form == "arrays": first = got; np.testing.assert_allclose(got, np.asarray(known(*args), dtype=float), rtol=1e-9, atol=1e-12)
            np.testing.assert_array_equal(got, first)
        assert all(np.array_equal(a, b) for a, b in zip(args, before) if not isinstance(a, str)), "the input was written to"

@pytest.mark.parametrize("case", THEIRS)
def test_another_number_on_purpose(case):
    "What empyrical gives there is not what ours gives, so the reason in the table is needed."
    with np.errstate(all="ignore"): theirs = np.asarray(THEIRS[case](*given(CASES[case][2], "arrays")), dtype=float)
    assert not np.allclose(theirs, np.asarray(ours(case, "arrays"), dtype=float), rtol=1e-6, equal_nan=True)

def rows(package): return TABLE[TABLE.package == package].set_index("case")

def test_the_table_holds_every_case():
    "A case with a counterpart is run here, any other has its reason; a reason beside a counterpart says why it is another number or an error."
    table = rows("empyrical")
    assert table.index.is_unique and list(table.index[table.counterpart != ""]) == list(CASES)
    assert (table.note[table.counterpart == ""] != "").all()
    apart = {case for case, (_, known, _) in CASES.items() if isinstance(known, str)} | set(THEIRS)
    assert set(table.index[(table.note != "") & (table.counterpart != "")]) == apart
    for names in TABLE.counterpart[TABLE.counterpart != ""].unique():
        for name in names.split(", "): assert any(name in room.__all__ for room in ROOMS), name

# skfolio

SKFOLIO = dict(
    average_drawdown=lambda s, x: (-performance.average_drawdown(x.r), s(x.falls)),
    cdar=lambda s, x: (-performance.conditional_drawdown(x.r), s(x.falls)),
    cvar=lambda s, x: (-cvar(x.r), s(x.r)),
    deflated_sharpe_ratio=lambda s, x: (performance.deflated_sharpe(x.r, 5, np.var(x.tried, ddof=1)), s(x.r, x.tried)),
    drawdown_at_risk=lambda s, x: (-risk.drawdown_at_risk(x.r, .05), s(x.falls)),
    edar=lambda s, x: (-risk.entropic_drawdown(x.r, .05), s(x.falls)),
    evar=lambda s, x: (-risk.evar(x.r, .05), s(x.r)),
    expected_max_sharpe_ratio=lambda s, x: (performance.expected_maximum_sharpe(.04, 20), s(20, .2)),
    first_lower_partial_moment=lambda s, x: (risk.lower_partial_moment(x.r, x.r.mean()), s(x.r)),
    fourth_lower_partial_moment=lambda s, x: (risk.lower_partial_moment(x.r, x.r.mean(), 4), s(x.r)),
    get_cumulative_returns=lambda s, x: (1 + cumulative_return(x.r), s(x.r, compounded=True)),
    get_drawdowns=lambda s, x: (performance.drawdown(x.r), s(x.r, compounded=True)),
    gini_mean_difference=lambda s, x: (risk.gini_mean_difference(x.r), s(x.r)),
    kurtosis=lambda s, x: (performance.kurtosis(x.r), ((x.n + 1)*(s(x.r) - 3) + 6)*(x.n - 1)/((x.n - 2)*(x.n - 3))),
    max_drawdown=lambda s, x: (-max_drawdown(x.r), s(x.falls)),
    mean_absolute_deviation=lambda s, x: (risk.mean_absolute_deviation(x.r), s(x.r)),
    probabilistic_sharpe_ratio=lambda s, x: (performance.probabilistic_sharpe(x.r, .01), s(x.r, .01)),
    semi_deviation=lambda s, x: (risk.semi_deviation(x.r, 1), s(x.r)),
    semi_variance=lambda s, x: (risk.semi_deviation(x.r, 1)**2, s(x.r)),
    skew=lambda s, x: (performance.skew(x.r), s(x.r)*(x.n*(x.n - 1))**.5/(x.n - 2)),
    standard_deviation=lambda s, x: (volatility(x.r, 1), s(x.r)),
    ulcer_index=lambda s, x: (performance.ulcer_index(x.r), s(x.falls)*(x.n/(x.n - 1))**.5),
    value_at_risk=lambda s, x: (-value_at_risk(x.odd), s(x.odd)),
    variance=lambda s, x: (volatility(x.r, 1)**2, s(x.r)),
    worst_realization=lambda s, x: (-risk.worst_return(x.r), s(x.r)))

@pytest.mark.parametrize("name", SKFOLIO)
def test_as_skfolio(name):
    "Losses are positive there; of 200 bars the worst twentieth is ten whole ones, and of 201 a quantile is a bar."
    measures = pytest.importorskip("skfolio.measures")
    for seed in range(3):
        r = .01*np.random.default_rng(seed).standard_t(4, 201)
        x = SimpleNamespace(r=r[:200], odd=r, n=200, tried=.1*np.random.default_rng(seed).standard_normal(5))
        x.falls = measures.get_drawdowns(x.odd if name == "drawdown_at_risk" else x.r, compounded=True)
        if name == "drawdown_at_risk": x.r = x.odd
        mine, theirs = SKFOLIO[name](getattr(measures, name), x)
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, atol=1e-12)

def test_the_table_holds_every_measure_of_skfolio():
    table = rows("skfolio")
    assert table.index.is_unique and set(table.index[table.counterpart != ""]) == set(SKFOLIO) and (table.note[table.counterpart == ""] != "").all()
    modules = [pytest.importorskip(f"skfolio.{m}") for m in ("measures", "metrics")]
    public = {n for m in modules for n in m.__all__ if not isinstance(getattr(m, n), type)}
    assert public <= set(table.index), public - set(table.index)
