"""Every case of the public tests of properscoring and scoringrules (NumPy) has a counterpart here, or a reason in the table.

The table is nbs/metrics/counterparts.csv; a row without a reason has a check of its name here, beside the installed package."""
import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions as law
from torch.nn.functional import binary_cross_entropy

from synthlab.metrics.calibration import brier, central_interval, interval_score, pinball
from synthlab.metrics.closed_form import (crps_exponential, crps_laplace, crps_logistic, crps_lognormal, crps_normal, crps_normal_mixture, crps_t,
    crps_uniform)
from synthlab.metrics.counts import crps_binomial, crps_hypergeometric, crps_negative_binomial, crps_poisson
from synthlab.metrics.crps import crps_ensemble, fair_crps_ensemble, threshold_weighted_crps
from synthlab.metrics.densities import dawid_sebastiani_ensemble, error_spread_score, log_score_ensemble, region_log_score_ensemble
from synthlab.metrics.ends import (crps_censored_logistic, crps_censored_normal, crps_censored_t, crps_truncated_logistic, crps_truncated_normal,
    crps_truncated_t, crps_two_piece_normal, log_score_truncated_logistic, log_score_truncated_normal, log_score_truncated_t)
from synthlab.metrics.families import (crps_beta, crps_censored_gamma, crps_gamma, crps_generalised_pareto, crps_gev, crps_loglaplace, crps_loglogistic,
    crps_two_piece_exponential, log_score_generalised_pareto, log_score_gev, log_score_two_piece_exponential, log_score_two_piece_normal)
from synthlab.metrics.joint import (dawid_sebastiani_score, energy_score, gaussian_kernel_score, outcome_weighted_score, variogram_score,
    vertically_rescaled_score)
from synthlab.metrics.thresholds import ranked_probability_score, threshold_brier, weighted_interval_score
from synthlab.metrics.weighted_scores import outcome_weighted_crps, vertically_rescaled_crps

TABLE = Path(__file__).parents[1]/"nbs/metrics/counterparts.csv"
with open(TABLE, newline="", encoding="utf-8") as f: ROWS = list(csv.DictReader(f))
CHECKS = {}     # (function, case) -> a check, called with the package

def case(function, *cases):
    "Register a check."
    def register(check):
        for name in cases or ("values",): CHECKS[function, name] = check
        return check
    return register

def same(a, b, rtol=1e-9, atol=1e-12): np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)

def doubles(values): return [np.array(v, dtype=float) for v in values]

def agree(function, ours, *arguments, name="values"):
    "Ours, with the package's arguments in its order, says what the package says."
    def check(package):
        with np.errstate(all="ignore"):
            for a in arguments: same(ours(*doubles(a)), getattr(package, function)(*doubles(a)))
    CHECKS[function, name] = check
    series = [a for a in map(doubles, arguments) if any(v.shape == (5,) for v in a) and max(v.ndim for v in a) == 1]
    if series and name == "values": CHECKS[function, "any shape"] = lambda package: any_shape(ours, series[-1])

def any_shape(ours, values):
    "One outcome or many, beside one forecast or many."
    found, table = ours(*values), lambda v: np.broadcast_to(v, (2, 5)).copy() if v.ndim else v
    same(ours(*map(table, values)), np.broadcast_to(found, (2, 5)))
    single = [v if not v.ndim else v[2] for v in values]
    same(ours(*single), found[2]); same(ours(values[0], *single[1:])[2], found[2]); same(ours(single[0], *values[1:])[2], found[2])

def refused(function, *calls, name="refuses"):
    "What cannot be scored is an error of one sentence."
    def check(package):
        for call in calls:
            with pytest.raises(ValueError): call()
    CHECKS[function, name] = check

def proper(function, ours, arguments, narrow, name="not negative, 0 when perfect"):
    "A score of distance."
    def check(package):
        assert (ours(*doubles(arguments)) >= 0).all()
        assert (ours(*doubles(narrow)) < 1e-4).all()
    CHECKS[function, name] = check

# ---- laws: in the package's order, what happened first

y, m, s = np.array([-1.3, .2, .8, 2.1, 4.5]), np.array([.1, -.4, 1., 2., 3.]), np.array([.5, 1., 1.7, .8, 2.2])
above, share, counts, tiny = abs(y), np.array([.1, .25, .5, .7, .95]), np.array([0., 2., 3., 5., 9.]), np.full(5, 1e-6)
low, high, lmass, umass = m - 1.5*s, m + 1.2*s, np.array([0., .1, .2, .3, .05]), np.array([.2, 0., .3, .1, .15])

agree("crps_beta", lambda y, a, b, *ends: crps_beta(a, b, y, *ends), (.3, .7, 1.1), (share, s, above))
agree("crps_beta", lambda y, a, b, *ends: crps_beta(a, b, y, *ends), (-3, .7, 1.1, -5, 4), (m, s, above, m - share, m + 2*s), name="other ends")
refused("crps_beta", lambda: crps_beta(.7, 1.1, .3, 1., 0.))
agree("crps_binomial", lambda y, n, p: crps_binomial(n, p, y), (8, 10, .9), (-8, 10, .9), (18, 10, .9), (counts, counts + 1, share), (counts, 12, share))
agree("crps_exponential", lambda y, rate: crps_exponential(rate, y), (3, .7), (above, s))
agree("crps_exponentialM", lambda y, mass, loc, scale: crps_generalised_pareto(0., loc, scale, y, mass), (.3, .1, 0, 1), (-1.2, .1, -2, 3), (m + above, lmass, m, s))
agree("crps_2pexponential", lambda y, a, b, loc: crps_two_piece_exponential(a, b, loc, y), (.3, .1, 4.3, 0), (-20.8, 7.1, 2, -25.4), (y, s, above, m))
agree("crps_gamma", lambda y, shape, rate: crps_gamma(shape, rate, y), (.2, 1.1, .7), (above, s, above + .3))
@case("crps_gamma", "scale in place of rate")
def _(sr): same(crps_gamma(s, 1/above, above), sr.crps_gamma(above, s, scale=above))
CHECKS["crps_csg0", "values"] = lambda sr: same(crps_censored_gamma(s, above + .3, share, above), sr.crps_csg0(above, shape=s, rate=above + .3, shift=share))
@case("crps_csg0", "without a shift", "scale in place of rate")
def _(sr):
    same(crps_censored_gamma(s, above, 0., above), crps_gamma(s, above, above))
    same(crps_censored_gamma(s, 1/above, share, above), sr.crps_csg0(above, shape=s, scale=above, shift=share))
agree("crps_gev", lambda y, *law: crps_gev(*law, y), *((.3, shape, mu, sigma) for shape in (0, .7, -.7) for mu, sigma in ((0, 1), (.1, .9))), (y, [-.5, .2, .4, -.2, .8], m, s))
agree("crps_gpd", lambda y, shape, loc, scale: crps_generalised_pareto(shape, loc, scale, y), (.3, .9, 0, 1), (-.3, .9, 0, 1), (.3, -.9, 0, 1), (-.3, -.9, 0, 1),
      (.4, 0, .1, 1), (m + above, [-.5, .2, .4, -.2, .8], m, s))
@case("crps_gpd", "mass at the lower end")
def _(sr): same(crps_generalised_pareto(.3, m, s, y, lmass), sr.crps_gpd(y, .3, m, s, mass=lmass))
refused("crps_gpd", lambda: crps_generalised_pareto(1., 0., 1., .3), lambda: crps_generalised_pareto(1.2, 0., 1., .3),
        lambda: crps_generalised_pareto(.9, 0., 1., .3, -.1), lambda: crps_generalised_pareto(.9, 0., 1., .3, 1.1), name="refuses (there NaN)")
ENDS = {"normal": ((), crps_truncated_normal, crps_censored_normal, crps_normal, "crps_{}normal"),
        "logistic": ((), crps_truncated_logistic, crps_censored_logistic, crps_logistic, "crps_{}logistic"),
        "t": ((np.full(5, 5.4),), crps_truncated_t, crps_censored_t, crps_t, "crps_{}t")}
def ends(df, truncated, censored, plain, name):
    "The general, the truncated and the censored form of a law."
    mine = lambda score: lambda y, *rest: score(*rest[:len(df) + 4], y, *rest[len(df) + 4:])
    free = lambda score: lambda sr: same(mine(score)(y, *df, m, s, -np.inf, np.inf), plain(*df, m, s, y))
    agree(name.format("gtc"), mine(truncated), (y, *df, m, s, low, high, lmass, umass))
    for kind, score in ("t", truncated), ("c", censored): agree(name.format(kind), mine(score), (y, *df, m, s, low, high))
    for kind, score in ("gtc", truncated), ("t", truncated), ("c", censored): CHECKS[name.format(kind), "without ends"] = free(score)
    CHECKS[name.format("gtc"), "without masses"] = lambda sr: same(mine(truncated)(y, *df, m, s, low, high), getattr(sr, name.format("t"))(y, *df, m, s, low, high))
for forms in ENDS.values(): ends(*forms)
agree("crps_hypergeometric", lambda y, *urn: crps_hypergeometric(*urn, y), (5, 7, 13, 12), (counts, [3, 7, 9, 11, 10], [12, 15, 13, 20, 14], [4, 6, 9, 8, 7]))
@case("crps_hypergeometric", "any shape")
def _(sr):
    for urn in ((7., 13., 12.), (np.full((2, 2), 7.), 13., 12.), (7., np.full((2, 2), 13.), 12.)): assert crps_hypergeometric(*urn, np.full((2, 2), 5.)).shape == (2, 2)
agree("crps_laplace", lambda y, loc, scale: crps_laplace(loc, scale, y), (-3, 0, 1), (-2.9, .1, 1), (-2.7, 0, .9), (y, m, s))
agree("crps_logistic", lambda y, loc, scale: crps_logistic(loc, scale, y), (17.1, 13.8, 3.3), (3.1, 4, .5), (y, m, s))
agree("crps_loglaplace", lambda y, loc, scale: crps_loglaplace(loc, scale, y), (3, .1, .9), (above, m, share))
agree("crps_loglogistic", lambda y, loc, scale: crps_loglogistic(loc, scale, y), (3, .1, .9), (above, m, share))
agree("crps_lognormal", lambda y, loc, scale: crps_lognormal(loc, scale, y), (above, m, s))
proper("crps_lognormal", lambda y, loc, scale: crps_lognormal(loc, scale, y), (above, m, s), (above, np.log(above), tiny))
agree("crps_mixnorm", lambda y, *rest: crps_normal_mixture(*rest, y), (.3, [0, -2.9, .9], [.5, 1.4, .7], [.3, .1, .6]), (y, np.outer(m, above[:3]), np.outer(s, s[:3]), np.tile([.2, .5, .3], (5, 1))))
@case("crps_mixnorm", "equal weights", "components on another axis")
def _(sr):
    loc, scale = np.outer(above[:3], m), np.outer(s[:3], s)
    same(crps_normal_mixture(loc.T, scale.T, np.ones(3), y), sr.crps_mixnorm(y, loc, scale, m_axis=0))
agree("crps_negbinom", lambda y, n, p: crps_negative_binomial(n, p, y), (2, 7, .8), (1.5, 2, .5), (-1, 17, .1), (counts, s, share))
@case("crps_negbinom", "mean in place of probability")
def _(sr): same(crps_negative_binomial(11., 11/(11 + 7.3), np.float64(2.3)), sr.crps_negbinom(2.3, 11., mu=7.3))
agree("crps_normal", lambda y, loc, scale: crps_normal(loc, scale, y), (y, m, s))
proper("crps_normal", lambda y, loc, scale: crps_normal(loc, scale, y), (y, m, s), (y, y, tiny))
agree("crps_2pnormal", lambda y, a, b, loc: crps_two_piece_normal(a, b, loc, y), (y, s, above, m))
proper("crps_2pnormal", lambda y, a, b, loc: crps_two_piece_normal(a, b, loc, y), (y, s, above, m), (y, tiny, tiny, y))
agree("crps_poisson", lambda y, mean: crps_poisson(mean, y), (1, 3), (1.5, 2.3), (-1, 1.5), (counts, above))
agree("crps_t", lambda y, df, loc, scale: crps_t(df, loc, scale, y), (11.1, 5.2, 13.8, 2.3), (.7, 4, 0, 1), (y, s + 1, m, s))
agree("crps_uniform", lambda y, *ends: crps_uniform(*ends[:2], y, *ends[2:]), (.3, -1, 2.1, .3, .1), (-17.9, -15.2, -8.7, .2, 0), (2.2, .1, 3.1, 0, 0), (y, low, high, lmass, umass))

# ---- log scores

def by_torch(function, make, *arguments, outside=None):
    "Minus the log density of one of PyTorch's distributions, which refuses what cannot be."
    tensors = lambda a: [torch.from_numpy(v) for v in np.broadcast_arrays(*doubles(a))]
    def score(*a):
        at, *rest = tensors(a)
        return -make(*rest).log_prob(at)
    agree(function, score, *arguments)
    if outside is not None: refused(function, lambda: score(*outside), name="outside (there infinite)")
    refused(function, lambda: score(*arguments[0][:-1], np.nan), lambda: score(arguments[0][0], *([-1.]*(len(arguments[0]) - 1))))

of_log = lambda make: lambda loc, scale: law.TransformedDistribution(make(loc, scale), [law.ExpTransform()])
by_log = lambda loc, scale: law.TransformedDistribution(law.Uniform(torch.zeros_like(loc), torch.ones_like(loc)), [law.SigmoidTransform().inv, law.AffineTransform(loc, scale)])
stretched = lambda a, b, low=None, high=None: law.Beta(a, b) if low is None else law.TransformedDistribution(law.Beta(a, b), [law.AffineTransform(low, high - low)])
by_torch("logs_beta", stretched, (.3, .7, 1.1), (share, s, above), (-3, .7, 1.1, -5, 4), outside=(1.3, .7, 1.1))
by_torch("logs_binomial", lambda n, p: law.Binomial(n, p), (8, 10, .9), (counts, 12, share), outside=(-8, 10, .9))
by_torch("logs_exponential", lambda rate: law.Exponential(rate), (3, .7), (above, s), outside=(-3, .7))
@case("logs_exponential2")
def _(sr): same(-law.Exponential(torch.from_numpy(1/s)).log_prob(torch.from_numpy(above)), sr.logs_exponential2(m + above, m, s))
by_torch("logs_gamma", lambda shape, rate: law.Gamma(shape, rate), (.2, 1.1, .7), (above, s, above), outside=(-4.2, 1.1, .7))
by_torch("logs_laplace", lambda loc, scale: law.Laplace(loc, scale), (-3, 0, 1), (y, m, s))
by_torch("logs_loglaplace", of_log(law.Laplace), (3, .1, .9), (above, m, share))
by_torch("logs_logistic", by_log, (17.1, 13.8, 3.3), (y, m, s))
by_torch("logs_loglogistic", lambda loc, scale: law.TransformedDistribution(by_log(loc, scale), [law.ExpTransform()]), (3, .1, .9), (above, m, share))
by_torch("logs_lognormal", lambda loc, scale: law.LogNormal(loc, scale), (3, .1, .9), (above, m, s), outside=(-1, 0, 1))
by_torch("logs_negbinom", lambda n, p: law.NegativeBinomial(n, 1 - p), (2, 7, .8), (counts, [2, 3, 7, 4, 1], share), outside=(1.5, 2, .5))
by_torch("logs_normal", lambda loc, scale: law.Normal(loc, scale), (0, 0, 2), (y, m, s))
by_torch("logs_poisson", lambda mean: law.Poisson(mean), (1, 3), (counts, above), outside=(-1, 1.5))
by_torch("logs_t", lambda df, loc, scale: law.StudentT(df, loc, scale), (11.1, 5.2, 13.8, 2.3), (y, s + 1, m, s))
by_torch("logs_uniform", lambda low, high: law.Uniform(low, high), (.3, -1, 2.1), (m, low - 5, high + 5), outside=(4, 0, 1))
for name in "logistic", "loglogistic": CHECKS.pop((f"logs_{name}", "refuses"))
for name, make in ("laplace", law.Laplace), ("loglaplace", law.Laplace), ("lognormal", law.LogNormal), ("normal", law.Normal):
    refused(f"logs_{name}", lambda make=make: make(0., -1.), lambda make=make: make(0., 0.))
refused("logs_uniform", lambda: law.Uniform(1., 0.)); refused("logs_t", lambda: law.StudentT(-1., 0., 1.), lambda: law.StudentT(4., 0., -1.))
@case("logs_mixnorm", "values", "components on another axis")
def _(sr):
    w, loc, scale = (torch.from_numpy(t) for t in (np.tile([.2, .5, .3], (5, 1)), np.outer(m, above[:3]), np.outer(s, s[:3])))
    mixture = law.MixtureSameFamily(law.Categorical(w), law.Normal(loc, scale))
    same(-mixture.log_prob(torch.from_numpy(y)), sr.logs_mixnorm(y, loc.numpy().T, scale.numpy().T, w.numpy().T, mc_axis=0))
agree("logs_2pexponential", lambda y, a, b, loc: log_score_two_piece_exponential(a, b, loc, y), (.3, .1, 4.3, 0), (-20.8, 7.1, 2, -25.4), (y, s, above, m))
refused("logs_2pexponential", lambda: log_score_two_piece_exponential(-1., 2., 2.1, 3.2), lambda: log_score_two_piece_exponential(1., 0., 2.1, 3.2))
CHECKS["logs_2pexponential", "equal scales"] = lambda sr: same(log_score_two_piece_exponential(s, s, m, y), sr.logs_laplace(y, m, s))
agree("logs_2pnormal", lambda y, a, b, loc: log_score_two_piece_normal(a, b, loc, y), (29.1, 4.6, 1.3, 27.9), (y, s, above, m))
refused("logs_2pnormal", lambda: log_score_two_piece_normal(-1., 2., 2.1, 3.2), lambda: log_score_two_piece_normal(1., 0., 2.1, 3.2))
CHECKS["logs_2pnormal", "equal scales"] = lambda sr: same(log_score_two_piece_normal(s, s, m, y), sr.logs_normal(y, m, s))
agree("logs_gev", lambda y, *law: log_score_gev(*law, y), (.3, .7, 0, 1), (.3, -.7, 0, 1), (.3, 0, 0, 1), (.7, 1.5, 0, .5), ([.9, -2.1], -.7, 0, 1.4), (m, [-.5, .2, .4, -.2, .8], m, s))
refused("logs_gev", lambda: log_score_gev(.5, 2., -.5, .7), lambda: log_score_gev(.5, 2., 0., .7))
agree("logs_gpd", lambda y, *law: log_score_generalised_pareto(*law, y), (.3, .9, 0, 1), (-.3, .9, 0, 1), (.3, -.9, 0, 1), (.4, 0, .1, 1), (m + above, [-.1, .2, .4, -.2, .8], m, s))
refused("logs_gpd", lambda: log_score_generalised_pareto(.5, 2., -.5, .7), lambda: log_score_generalised_pareto(.5, 2., 0., .7))
for name, score, df in (("tnormal", log_score_truncated_normal, ()), ("tlogistic", log_score_truncated_logistic, ()), ("tt", log_score_truncated_t, ENDS["t"][0])):
    agree(f"logs_{name}", lambda y, *rest, score=score: score(*rest, y), (m, *df, m, s, low, high))
    CHECKS[f"logs_{name}", "without ends"] = lambda sr, score=score, df=df, name=name: same(score(*df, m, s, -np.inf, np.inf, y), getattr(sr, f"logs_{name[1:]}")(y, *df, m, s))
    CHECKS[f"logs_{name}", "outside"] = lambda sr, score=score, df=df: same(score(*df, m, s, low, high, high + 1), np.full(5, np.inf))
    refused(f"logs_{name}", lambda score=score, df=df: score(*df, m, s, high, low, y), lambda score=score, df=df: score(*df, m, -s, low, high, y))
@case("logs_hypergeometric")
def _(sr):
    urn = np.array([[3, 7, 9, 11, 10], [12, 15, 13, 20, 14], [4, 6, 9, 8, 7]])
    same(-stats.hypergeom.logpmf(2, urn[0] + urn[1], urn[0], urn[2]), sr.logs_hypergeometric(np.full(5, 2), *urn))

# ---- ensembles

drawn = np.random.default_rng(0)
x, at, w = drawn.standard_normal((20, 11)), drawn.standard_normal(20), drawn.random((20, 11)) + .1
smooth = lambda z: stats.norm.cdf(np.asarray(z), .3, .7)
holes, whole, seen = np.array([.1, np.nan, .3, np.nan, .7, .9, 1.1]), np.array([.1, .3, .7, .9, 1.1]), np.float64(.5)
SCORES = {"crps": (lambda x, y, **o: crps_ensemble(x, y, **o)), "twcrps": (lambda x, y, **o: threshold_weighted_crps(x, y, .2, **o)),
          "owcrps": (lambda x, y, **o: outcome_weighted_crps(x, y, lambda z: z > .2, **o)), "vrcrps": (lambda x, y, **o: vertically_rescaled_crps(x, y, lambda z: z > .2, **o))}

for estimator in "nrg", "qd", "int": CHECKS["crps_ensemble", estimator] = lambda sr, e=estimator: same(crps_ensemble(x, at), sr.crps_ensemble(at, x, estimator=e))
for estimator in "fair", "pwm": CHECKS["crps_ensemble", estimator] = lambda sr, e=estimator: same(fair_crps_ensemble(x, at), sr.crps_ensemble(at, x, estimator=e))
@case("crps_ensemble", "weights", "members on another axis", "sorted members")
def _(sr):
    same(crps_ensemble(x, at, w), sr.crps_ensemble(at, x, ens_w=w/w.sum(-1, keepdims=True)))
    same(crps_ensemble(x.T.copy().T, at), sr.crps_ensemble(at, x.T.copy(), m_axis=0))
    same(crps_ensemble(np.sort(x), at), sr.crps_ensemble(at, np.sort(x), sorted_ensemble=True))
@case("crps_ensemble", "not negative, 0 when perfect", "refuses other shapes")
def _(sr):
    assert (crps_ensemble(x, at) >= 0).all() and (crps_ensemble(at[:, None] + 1e-6*x, at) < 1e-4).all()
    with pytest.raises(ValueError): crps_ensemble(x, at[:5])
for name, score in SCORES.items():
    CHECKS[f"{name}_ensemble", "nan_policy: propagate"] = lambda sr, f=score: np.isnan(f(holes, seen)).all() or pytest.fail(name)
    CHECKS[f"{name}_ensemble", "nan_policy: omit"] = lambda sr, f=score: same(f(holes, seen, nan_policy="omit"), f(whole, seen))
    CHECKS[f"{name}_ensemble", "nan_policy: no NaN"] = lambda sr, f=score: [same(f(whole, seen, nan_policy=p), f(whole, seen)) for p in ("omit", "raise")]
    refused(f"{name}_ensemble", lambda f=score: f(holes, seen, nan_policy="raise"), name="nan_policy: raise")
@case("crps_ensemble", "nan_policy: omit, nothing left", "nan_policy: omit, different counts", "nan_policy: omit, fair", "nan_policy: NaN observed")
def _(sr):
    rows = np.array([[1., 2, 3, np.nan, np.nan], [.5, 1.5, np.nan, np.nan, np.nan], [np.nan]*5, [1., 2, 3, 4, 5], [7., np.nan, np.nan, np.nan, np.nan]])
    left = [row[~np.isnan(row)] for row in rows]
    for score, least in (crps_ensemble, 1), (fair_crps_ensemble, 2):
        same(score(rows, np.zeros(5), nan_policy="omit"), [float(score(row, np.float64(0.))) if len(row) >= least else np.nan for row in left])
    assert crps_ensemble(whole, np.float64(np.nan), nan_policy="omit").isnan()
refused("crps_ensemble", lambda: crps_ensemble(whole, np.float64(np.nan), nan_policy="raise"), lambda: crps_ensemble(whole, seen, nan_policy="other"), name="nan_policy: refuses")
@case("crps_quantile", "values", "members on another axis", "near the closed form")
def _(sr):
    level = np.linspace(.1, .9, 11)
    score = lambda q, y, level: 2*pinball(q, np.broadcast_to(y[..., None], q.shape), np.broadcast_to(level, q.shape)).mean(-1)
    same(score(x, at, level), sr.crps_quantile(at, x, level)); same(score(x, at, level), sr.crps_quantile(at, x.T, level, m_axis=0))
    many = np.arange(1, 1000)/1000
    assert abs(float(score(stats.norm.ppf(many), np.float64(.3), many))/float(crps_normal(0., 1., np.float64(.3))) - 1) < 1e-3
refused("crps_quantile", lambda: pinball(x, np.broadcast_to(at[:, None], x.shape), np.full(4, .5)))
for estimator, fair in ("nrg", False), ("fair", True), ("pwm", True), ("qd", False):
    CHECKS["twcrps_ensemble", estimator] = lambda sr, e=estimator, f=fair: same(threshold_weighted_crps(x, at, -.3, 1., fair=f), sr.twcrps_ensemble(at, x, a=-.3, b=1., estimator=e))
@case("twcrps_ensemble", "chained by a function", "weights", "without a region")
def _(sr):
    bend = lambda z: np.maximum(z, -1.)**3
    same(crps_ensemble(bend(x), bend(at)), sr.twcrps_ensemble(at, x, v_func=bend)); same(threshold_weighted_crps(x, at), sr.crps_ensemble(at, x))
    same(threshold_weighted_crps(x, at, -.3, weights=w), sr.twcrps_ensemble(at, x, a=-.3, ens_w=w/w.sum(-1, keepdims=True), estimator="nrg"))
for function, score in ("owcrps_ensemble", outcome_weighted_crps), ("vrcrps_ensemble", vertically_rescaled_crps):
    @case(function, "region", "weight function", "weights", "members on another axis", "without a region")
    def _(sr, f=function, score=score):
        theirs = getattr(sr, f)
        with np.errstate(invalid="ignore"):
            same(score(x, at, lambda z: (z > -1) & (z < 1.85)), theirs(at, x, a=-1., b=1.85)); same(score(x, at, smooth), theirs(at, x.T, w_func=smooth, m_axis=0))
        same(score(x, at, smooth, w), theirs(at, x, w_func=smooth, ens_w=w/w.sum(-1, keepdims=True)))
        same(score(x, at, lambda z: z*0 + 1), sr.crps_ensemble(at, x, estimator="nrg"))
@case("logs_ensemble", "values", "members on another axis", "far off", "bandwidth")
def _(sr):
    same(log_score_ensemble(x, at), sr.logs_ensemble(at, x.T, m_axis=0)); same(log_score_ensemble(x, at, .4), sr.logs_ensemble(at, x, bw=np.full(20, .4)))
    far = np.array([-142.7, -160.3, -179.4, -184.5])
    same(log_score_ensemble(far, np.float64(6.2)), sr.logs_ensemble(6.2, far))
@case("clogs_ensemble", "censored", "conditional", "without a region", "members on another axis")
def _(sr):
    for a, b in (.2, np.inf), (-np.inf, .4), (-.5, .6):
        for cens in True, False: same(region_log_score_ensemble(x, at, a, b, censored=cens), sr.clogs_ensemble(at, x.T, a=a, b=b, cens=cens, m_axis=0), rtol=1e-8)
    same(region_log_score_ensemble(x, at), sr.logs_ensemble(at, x))
for ddof in 0, 1:
    CHECKS["dssuv_ensemble", f"bias={not ddof}"] = lambda sr, d=ddof: same(dawid_sebastiani_ensemble(x, at, d), sr.dssuv_ensemble(at, x, bias=not d))
    CHECKS["dssmv_ensemble", f"bias={not ddof}"] = lambda sr, d=ddof: same(dawid_sebastiani_score(paths, path, d), sr.dssmv_ensemble(path, paths, bias=not d))
CHECKS["dssuv_ensemble", "members on another axis"] = lambda sr: same(dawid_sebastiani_ensemble(x, at, 0), sr.dssuv_ensemble(at, x.T, m_axis=0, bias=True))
CHECKS["dssmv_ensemble", "any leading shape"] = lambda sr: same(dawid_sebastiani_score(paths.reshape(2, 3, 9, 4), path.reshape(2, 3, 4)), dawid_sebastiani_score(paths, path).reshape(2, 3))
refused("dssmv_ensemble", lambda: dawid_sebastiani_score(paths[..., :3], path), name="refuses other shapes")
CHECKS["error_spread_score", "0 when perfect"] = lambda sr: same(error_spread_score(at[:, None] + 1e-5*x, at), 0, atol=1e-4)
@case("error_spread_score", "values", "refuses few members")
def _(sr):
    both = np.concatenate([x, -x], -1)
    same(error_spread_score(both, at), sr.error_spread_score(at, both))
    with pytest.raises(ValueError): error_spread_score(x[:, :2], at)

# ---- paths

paths, path, each = drawn.standard_normal((6, 9, 4)), drawn.standard_normal((6, 4)), drawn.random((6, 9)) + .1
pairs, bend, unit = drawn.random((4, 4)), (lambda z: np.maximum(z, -.2)), each/each.sum(-1, keepdims=True)
risen, kept = (lambda z: (z > -.9).all(-1)*1.), lambda z: z[..., 0]*0 + 1
ours = {"es": lambda x, y, w=None, fair=False: energy_score(x, y, fair, w), "vs": lambda x, y, w=None, fair=False: variogram_score(x, y, .5, None, fair, w),
        "gksmv": lambda x, y, w=None, fair=False: gaussian_kernel_score(x, y, fair, w)}
def of_paths(name, score):
    "The forms of a score of paths."
    their = lambda sr, kind, *a, **o: getattr(sr, f"{kind}{name}_ensemble")(path, paths, *a, **o)
    CHECKS[f"{name}_ensemble", "nrg"] = lambda sr: same(score(paths, path), their(sr, "", estimator="nrg"))
    CHECKS[f"{name}_ensemble", "fair"] = lambda sr: same(score(paths, path, fair=True), their(sr, "", estimator="fair"))
    CHECKS[f"{name}_ensemble", "weights"] = lambda sr: same(score(paths, path, each), their(sr, "", ens_w=unit))
    CHECKS[f"{name}_ensemble", "other axes"] = lambda sr: same(score(paths, path), getattr(sr, f"{name}_ensemble")(path, np.moveaxis(paths, 1, 2), m_axis=-1, v_axis=-2))
    refused(f"{name}_ensemble", lambda: score(paths[..., :3], path), name="refuses other shapes")
    CHECKS[f"tw{name}_ensemble", "values"] = lambda sr: same(score(bend(paths), bend(path)), their(sr, "tw", bend))
    CHECKS[f"ow{name}_ensemble", "values"] = lambda sr: same(outcome_weighted_score(paths, path, risen, score), their(sr, "ow", risen))
    CHECKS[f"ow{name}_ensemble", "without a region"] = lambda sr: same(outcome_weighted_score(paths, path, kept, score), score(paths, path))
    CHECKS[f"tw{name}_ensemble", "without a region"] = lambda sr: same(score(paths, path), their(sr, "tw", lambda z: z))
for name, score in ours.items(): of_paths(name, score)
for name in "es", "vs":
    CHECKS[f"vr{name}_ensemble", "values"] = lambda sr, n=name: same(vertically_rescaled_score(paths, path, risen, ours[n]), getattr(sr, f"vr{n}_ensemble")(path, paths, risen))
    CHECKS[f"vr{name}_ensemble", "without a region"] = lambda sr, n=name: same(vertically_rescaled_score(paths, path, kept, ours[n]), ours[n](paths, path))
@case("vs_ensemble", "p", "weights of pairs")
def _(sr):
    for p in .5, 1., 2.: same(variogram_score(paths, path, p, pairs), sr.vs_ensemble(path, paths, w=np.tile(pairs, (6, 1, 1)), p=p))
of_one = lambda x, y, w=None, fair=False: gaussian_kernel_score(x[..., None], y[..., None], fair, w)
for estimator, fair in ("nrg", False), ("fair", True): CHECKS["gksuv_ensemble", estimator] = lambda sr, e=estimator, f=fair: same(of_one(x, at, fair=f), sr.gksuv_ensemble(at, x, estimator=e))
@case("gksuv_ensemble", "weights", "members on another axis", "not negative, 0 when perfect")
def _(sr):
    same(of_one(x, at, w), sr.gksuv_ensemble(at, x.T, ens_w=(w/w.sum(-1, keepdims=True)).T, m_axis=0))
    assert (of_one(x, at) >= 0).all() and (of_one(at[:, None] + 1e-6*x, at) < 1e-4).all()
@case("twgksuv_ensemble", "region", "chained by a function", "without a region")
def _(sr):
    same(of_one(np.clip(x, -.5, 1), np.clip(at, -.5, 1)), sr.twgksuv_ensemble(at, x, a=-.5, b=1.)); same(of_one(bend(x), bend(at)), sr.twgksuv_ensemble(at, x, v_func=bend))
@case("owgksuv_ensemble", "region", "weight function", "without a region")
def _(sr):
    within = lambda z: (z[..., 0] > -.5)*1.
    with np.errstate(invalid="ignore"): same(outcome_weighted_score(x[..., None], at[:, None], within, ours["gksmv"]), sr.owgksuv_ensemble(at, x, a=-.5))

# ---- probabilities, quantiles, intervals

p, event, category = drawn.random(20), drawn.integers(0, 2, 20)*1., drawn.integers(0, 5, 20)
chances = drawn.dirichlet(np.ones(5), 20)
t = torch.from_numpy
CHECKS["brier_score", "values"] = lambda package: same(brier(p, event), package.brier_score(event, p))
refused("brier_score", lambda: brier(1.1, 1.), lambda: brier(-.1, 1.), lambda: brier(.5, .5))
@case("rps_score", "values", "one-hot", "categories on another axis")
def _(sr):
    for o in dict(onehot=False), dict(onehot=True): same(ranked_probability_score(chances, category), sr.rps_score(np.eye(5)[category] if o["onehot"] else category + 1, chances, **o))
    same(ranked_probability_score(chances, category), sr.rps_score(category + 1, chances.T, k_axis=0))
refused("rps_score", lambda: ranked_probability_score([1.1, -.1], 0), lambda: ranked_probability_score([.5, .6], 0))
CHECKS["log_score", "values"] = lambda sr: same(binary_cross_entropy(t(p), t(event), reduction="none"), sr.log_score(event, p))
def torch_refuses(sr):
    for wrong in 1.1, -.1:
        with pytest.raises(RuntimeError): binary_cross_entropy(torch.tensor([wrong]), torch.tensor([1.]))
CHECKS["log_score", "refuses"] = CHECKS["rls_score", "refuses"] = torch_refuses
@case("rls_score", "values", "one-hot", "categories on another axis")
def _(sr):
    below, happened = t(chances).cumsum(-1).clamp_max(1), t(np.eye(5)[category]).cumsum(-1)
    mine = binary_cross_entropy(below[:, :-1], happened[:, :-1], reduction="none").sum(-1)
    same(mine, sr.rls_score(category + 1, chances)); same(mine, sr.rls_score(np.eye(5)[category].T, chances.T, k_axis=0, onehot=True))
CHECKS["quantile_score", "values"] = lambda sr: same(pinball(x[:, 0], at, .3), sr.quantile_score(at, x[:, 0], .3))
refused("quantile_score", lambda: pinball(.5, .3, -.2), lambda: pinball(.5, .3, 1.2))
level = np.array([.3, .6, .9])
lower, upper = (np.asarray(end) for end in central_interval(x, level))
@case("interval_score", "values", "several levels")
def _(sr):
    same(interval_score(lower, upper, np.broadcast_to(at[:, None], lower.shape), level), sr.interval_score(at, lower, upper, 1 - level))
    same(interval_score(0., .4, np.float64(.1), .5), sr.interval_score(.1, 0., .4, .5))
refused("interval_score", lambda: interval_score(lower, upper[:, :2], lower, level), lambda: interval_score(lower, upper, lower, level[:2]))
@case("weighted_interval_score", "values", "near the closed form")
def _(sr):
    zero, median = np.zeros(20), np.median(x, -1) + 9   # the package takes the median for its distance from what happened
    same(weighted_interval_score(median, lower + 9, upper + 9, zero, level), sr.weighted_interval_score(zero, median, lower + 9, upper + 9, 1 - level))
    tail = (1 - np.arange(1, 100)/100)/2
    assert abs(weighted_interval_score(0., stats.norm.ppf(tail), -stats.norm.ppf(tail), 0., np.arange(1, 100)/100)/crps_normal(0., 1., 0.) - 1) < .01

# ---- properscoring

toys = [(0, [0], 0), (0, [1], 1), (-1, [0], 1), (0, [-1], 1), (0, [0, 0], 0), (0, [0, 1], .25), (0, [1, 0], .25), (0, [1, 1], 1), (2, [0, 1], 1.25), (0, [-1, 1], .5),
        (0, [0, 0, 1], 1/9), (1, [0, 0, 1], 4/9), (0, [-1, 0, 0, 1], 1/8)]
@case("ps.crps_ensemble", "by hand", "degenerate ensemble", "beyond the members", "any leading shape", "refuses other shapes", "members on another axis", "sorted members")
def _(ps):
    for seen, members, expected in toys: same(crps_ensemble(np.array(members, float), np.float64(seen)), expected)
    for shift in -np.pi, 0., np.pi: same(crps_ensemble(np.full(10, .3), np.float64(.3 + shift)), abs(shift))
    inside = drawn.random(100)
    same(crps_ensemble(inside, np.float64(-.1)), .1 + crps_ensemble(inside, np.float64(0.))); same(crps_ensemble(inside, np.float64(1.1)), .1 + crps_ensemble(inside, np.float64(1.)))
    same(crps_ensemble(x.reshape(4, 5, 11), at.reshape(4, 5)), ps.crps_ensemble(at.reshape(4, 5), x.reshape(4, 5, 11)))
    same(crps_ensemble(x, at), ps.crps_ensemble(at, np.sort(x).T, axis=0, issorted=False)); same(crps_ensemble(np.sort(x), at), ps.crps_ensemble(at, np.sort(x), issorted=True))
    for members, seen in (0., [0., 1.]), ([0., 1., 2.], [0., 1.]):
        with pytest.raises(ValueError): crps_ensemble(members, seen)
@case("ps.crps_ensemble", "weights", "weights of any sum", "weights that are densities", "refuses other weights")
def _(ps):
    same(crps_ensemble(x, at, w), ps.crps_ensemble(at, x, weights=w)); same(crps_ensemble(x, at, np.full(11, .1)), crps_ensemble(x, at))
    same(crps_ensemble(np.array([0., 1, 2]), np.float64(1.5), [1., 1., 1.]), 1/9 + 4/9*.5 + 1/9*.5)
    grid = np.linspace(-6, 6, 2001)
    same(crps_ensemble(grid, np.float64(.3), stats.norm.pdf(grid)), crps_normal(0., 1., np.float64(.3)), rtol=1e-4)
    with pytest.raises(ValueError): crps_ensemble(x[0], at[0], np.ones(5))
@case("ps.crps_ensemble", "missing members left out", "missing weights left out", "all missing", "NaN observed")
def _(ps):
    gaps, lost = x.copy(), w.copy()
    gaps[drawn.random(x.shape) < .3], gaps[3], lost[5, 2] = np.nan, np.nan, np.nan
    missed = np.where(drawn.random(20) < .3, np.nan, at)
    same(crps_ensemble(gaps, missed, nan_policy="omit"), ps.crps_ensemble(missed, gaps))
    same(crps_ensemble(gaps, missed, w, nan_policy="omit"), ps.crps_ensemble(missed, gaps, weights=w))
    held = np.where(np.isnan(lost), np.nan, x)
    same(crps_ensemble(x, at, lost, nan_policy="omit"), crps_ensemble(held, at, w, nan_policy="omit"))
CHECKS["ps.crps_ensemble", "one forecast without members"] = lambda ps: same(crps_ensemble(x[:, :1], at), ps.crps_ensemble(at, x[:, 0]))
@case("ps.crps_gaussian", "values", "slopes")
def _(ps):
    expected, slopes = ps.crps_gaussian(y, m, s, grad=True)
    loc, scale = t(m.copy()).requires_grad_(), t(s.copy()).requires_grad_()
    found = crps_normal(loc, scale, y)
    same(found.detach(), expected); same(torch.stack(torch.autograd.grad(found.sum(), (loc, scale))), slopes)
CHECKS["ps.brier_score", "values"] = CHECKS["brier_score", "values"]
refused("ps.brier_score", lambda: brier(1.1, 1.), lambda: brier(-.1, 1.), lambda: brier(.5, .5))
@case("ps.threshold_brier_score", "values", "one threshold", "adds up to the CRPS", "missing members left out", "NaN observed")
def _(ps):
    thresholds = np.linspace(-2, 2, 10)
    gaps, missed = np.where(drawn.random(x.shape) < .3, np.nan, x), np.where(drawn.random(20) < .2, np.nan, at)
    gaps[4] = np.nan
    same(threshold_brier(x, at, thresholds), ps.threshold_brier_score(at, x, thresholds)); same(threshold_brier(x, at, .3), ps.threshold_brier_score(at, x, .3))
    same(threshold_brier(gaps, missed, thresholds, nan_policy="omit"), ps.threshold_brier_score(missed, gaps, thresholds))
    fine = np.linspace(-5, 5, 4001)
    same(threshold_brier(x, at, fine).sum(-1)*(fine[1] - fine[0]), crps_ensemble(x, at), rtol=.01)
refused("ps.threshold_brier_score", lambda: threshold_brier(np.array([0., 1, 2]), [1., 2.], .5), name="refuses other shapes")

# ---- the table

def key(row): return ("ps." if row["package"] == "properscoring" else "") + row["function"], row["case"]

def test_every_case_is_checked_or_has_a_reason():
    keys = [key(row) for row in ROWS]
    assert len(set(keys)) == len(keys)
    with_counterpart = {key(row) for row in ROWS if not row["reason"]}
    assert with_counterpart == set(CHECKS)
    for row in ROWS: assert bool(row["ours"]) != bool(row["reason"]), row

@pytest.mark.parametrize("package", ["properscoring", "scoringrules"])
def test_no_public_function_is_forgotten(package, scoringrules):
    module = scoringrules if package == "scoringrules" else pytest.importorskip("properscoring")
    assert set(module.__all__) <= {row["function"] for row in ROWS if row["package"] == package}

@pytest.mark.parametrize("name", CHECKS, ids=lambda name: f"{name[0]}: {name[1]}")
def test_counterpart(name, scoringrules):
    CHECKS[name](pytest.importorskip("properscoring") if name[0].startswith("ps.") else scoringrules)
