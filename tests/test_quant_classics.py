"Lines, stacks, natural gradients, rows one at a time, regimes and breaks: beside oracles, by invariances, and blind to what comes later."
import time, warnings

import numpy as np, pandas as pd, pytest, torch
from scipy import stats
from sklearn.ensemble import StackingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.estimator_checks import check_estimator

from synthlab.datasets.purged import PurgedFolds
from synthlab.datasets.splits import SplitError
from synthlab.models.families import restore_family
from synthlab.models.ftrl import FTRL, FTRLProximal, WordFTRL
from synthlab.models.linear_families import Ensemble, MetaLearning, RewardBased, Ridge, ridge_line
from synthlab.models.ngboost import NGBoost, bin_edges, binned, grow, leaf_of
from synthlab.models.out_of_fold import out_of_fold
from synthlab.models.regime_families import ChangePoint, GMMRegime, online_changes, partition, piece_costs, since_break
from test_quant_trees import KEPT
from tiny import cases

def table(n=600, seed=0, assets=1):
    "Rows of a panel, what came, and when it was known."
    rng = np.random.default_rng(seed)
    days = pd.date_range("2020-01-01", periods=n//assets, tz="UTC")
    index = pd.MultiIndex.from_product([days, [f"A{k}" for k in range(assets)]], names=["decided_at", "asset"])
    X = pd.DataFrame(rng.standard_normal((n, 4)), index, list("abcd"))
    y = pd.Series(.01*(X["a"] - .5*X["b"] + rng.standard_normal(n)*np.where(X["c"] > 0, 2, 1)), index, name="fwd_ret_5d")
    return X, y, index.get_level_values(0) + pd.Timedelta("5D")

QUICK = dict(ensemble=dict(hgb_max_iter=8, rf_n_estimators=6, rf_max_depth=4, cv=3), meta_learning=dict(n_estimators=6, cv=3),
             ngboost=dict(n_estimators=30, learning_rate=.1, max_depth=3), gmm_regime=dict(n_components=2, n_init=1), change_point=dict(window=60))
FAMILIES = {c.name: c for c in (Ridge, RewardBased, Ensemble, MetaLearning, NGBoost, FTRLProximal, GMMRegime, ChangePoint)}
def quick(name, **more): return FAMILIES[name](**QUICK.get(name, {}) | dict(reach=5) | more)

# every family

@pytest.mark.parametrize("name", FAMILIES)
def test_units_of_outcomes_do_not_matter(name):
    "A thousand times the outcome is a thousand times the answer; columns in other units change nothing."
    X, y, _ = table()
    first = quick(name).fit(X, y).predict(X)
    if name != "reward_based": np.testing.assert_allclose(quick(name).fit(X, 1000*y).predict(X)/1000, first, rtol=1e-3, atol=2e-5)
    shifted = quick(name).fit(2*X, y).predict(2*X)
    np.testing.assert_allclose(shifted, first, rtol=1e-3, atol=2e-5)

@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_is_the_same_model(name):
    X, y, ends = table(assets=2)
    a, b = (quick(name).fit(X, y, ends_at=ends).state_dict() for _ in range(2))
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize("name", [n for n in FAMILIES if n != "reward_based"])
def test_three_classes_and_their_files(name):
    X, y, _ = table()
    side = pd.Series(np.sign(y).where(y.abs() > .008, 0), name="first_touch_5d_1.0")
    made = quick(name).fit(X, side)
    p = made.predict_proba(X)
    assert p.shape == (600, 3) and np.allclose(p.sum(1), 1) and (p >= 0).all() and (made.predict(X) == side).mean() > .5
    np.testing.assert_array_equal(restore_family(made.about(), made.state_dict()).predict_proba(X), p)

@pytest.mark.parametrize("family", [Ridge(task="regression", alpha=1e-6, validation=0), FTRLProximal(task="binary", alpha=.5, l1=0, validation=0),
    NGBoost(task="regression", n_estimators=30, learning_rate=.3, min_samples_leaf=2, max_depth=3, validation=0), GMMRegime(task="regression", n_components=1, validation=0)], ids=lambda f: f.name)
def test_scikit_learns_own_checks(family):
    kept = KEPT | {"check_sample_weight_equivalence_on_dense_data": "standardising does not know of weights"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        failed = [r for r in check_estimator(family, expected_failed_checks=kept, on_fail=None) if r["status"] == "failed"]
    assert not failed, "\n".join(f"{r['check_name']}: {r['exception']}" for r in failed)

# out of fold

class LatestSeen:
    "Says the latest row that it has learnt from."
    def fit(self, X, y): self.latest = X[:, 0].max(); return self
    def predict(self, X): return np.full(len(X), self.latest)

@pytest.mark.parametrize("seed", cases(10, 300))
def test_no_prediction_knows_a_later_row(seed):
    rng = np.random.default_rng(seed)
    rows, reach = int(rng.integers(30, 120)), int(rng.integers(0, 5))
    when = np.sort(rng.integers(0, 50, rows))
    order = rng.permutation(rows)                                       # rows in any order
    when, known = when[order], rng.random(rows) < .9
    y = np.where(known, 1., np.nan)
    said = out_of_fold(LatestSeen, when[:, None].astype(float), y, PurgedFolds(4, when, when + reach))
    met = ~np.isnan(said)
    assert (said[met] + reach < when[met]).all() and met.any()
    assert set(said[met]) <= set(when[known])

def test_scikit_learns_stack_refuses_what_this_one_does():
    X, y, _ = table()
    with pytest.raises(ValueError, match="partition"):
        StackingRegressor([("line", LinearRegression())], LinearRegression(), cv=PurgedFolds(3)).fit(X.to_numpy(), y)
    with pytest.raises(SplitError, match="not earlier"): out_of_fold(LinearRegression(), X, y, [(np.arange(300, 600), np.arange(300))])

def test_a_stack_knows_when_outcomes_end():
    "Long outcomes leave the inner folds less to learn from."
    X, y, _ = table(400)
    near, far = (MetaLearning(n_estimators=3, cv=4, validation=0).fit(X, y, ends_at=X.index.get_level_values(0) + pd.Timedelta(d, "D")) for d in (0, 150))
    assert near.unasked_ == 100 and far.unasked_ == 200                 # blocks of 100 days: the second has none whose outcome has ended
    assert MetaLearning(n_estimators=3, cv=4, validation=0, reach=150).fit(X, y).unasked_ == 200

def test_settings_of_other_methods_are_refused_in_a_sentence():
    for family, settings in ((MetaLearning, MetaLearning.refused), (RewardBased, RewardBased.refused)):
        for name in settings:
            with pytest.raises(ValueError, match=f"^{name} is a setting of"): family(**{name: 1})
    with pytest.raises(ValueError, match="RewardBased answers regression"): RewardBased().fit(np.arange(20.)[:, None], np.arange(20) % 2)

@pytest.mark.parametrize("seed", cases(5, 100))
def test_ridge_meets_its_equations(seed):
    "The slope of the loss is zero where it says."
    rng = np.random.default_rng(seed)
    X, y, w, alpha = rng.standard_normal((30, 4)), rng.standard_normal((30, 2)), rng.random(30)*(rng.random(30) < .8), rng.choice([0, .1, 10])
    coef, constant = ridge_line(X, y, alpha, w)
    rest = w[:, None]*(y - X @ coef - constant)
    np.testing.assert_allclose(X.T @ rest, alpha*coef, atol=1e-9)
    np.testing.assert_allclose(rest.sum(0), 0, atol=1e-9)

# natural gradients

@pytest.mark.parametrize("seed", cases(8, 200))
def test_a_tree_is_scikit_learns_tree(seed):
    rng = np.random.default_rng(seed)
    R, F, K, depth, least = (int(rng.integers(*r)) for r in ((5, 60), (1, 5), (1, 4), (1, 6), (1, 8)))
    X, T = rng.standard_normal((R, F)).astype(np.float32), rng.standard_normal((R, K))
    edges = bin_edges(X)
    column, cut, leaves, leaf, gains = grow(binned(X, edges), T, 64, depth, least)
    exact = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=least).fit(X, T)
    loss = lambda said: ((said.reshape(T.shape) - T)**2).sum()
    assert loss(leaves[leaf]) == pytest.approx(loss(exact.predict(X)), rel=1e-6, abs=1e-9) or depth > 1      # ties may part ways further down
    assert loss(np.tile(T.mean(0), (R, 1))) - loss(leaves[leaf]) == pytest.approx(gains.sum(), abs=1e-8)
    values = np.array([edges[f][c] if c < len(edges[f]) else np.inf for f, c in zip(column, cut)])
    np.testing.assert_array_equal(leaf_of(X, column, values), leaf)
    assert np.bincount(leaf)[np.unique(leaf)].min() >= min(least, R)

def test_ngboost_finds_the_width_and_stops():
    X, y, ends = table(2000)
    made = NGBoost(learning_rate=.05, max_depth=3).fit(X, y, ends_at=ends)
    z = stats.norm.ppf(made.predict_distribution(X).cdf(y))
    assert abs(z.std() - 1) < .1 and len(made.column_) < 500
    plain = stats.norm(y.mean(), y.std()).logpdf(y).mean()
    assert made.predict_distribution(X).frozen.logpdf(y).mean() > plain + .2
    with pytest.raises(ValueError, match="lognormal wants outcomes above 0"): NGBoost(distribution="lognormal").fit(X, y)

@pytest.mark.parametrize("seed", cases(10, 200))
def test_forged_trees_of_ngboost_are_refused_or_finite(seed):
    rng = np.random.default_rng(seed)
    X, y, _ = table(200)
    made = NGBoost(n_estimators=5, max_depth=2, min_samples_leaf=5).fit(X, y)
    tensors = {k: v.clone() for k, v in made.state_dict().items()}
    flat = tensors[f"family/{rng.choice(['column', 'cut', 'leaves', 'units', 'gains', 'start'])}"].view(-1)
    flat[rng.integers(len(flat))] = rng.choice([-3, 4, 1000]) if flat.dtype == torch.int32 else float(rng.choice([np.nan, np.inf, -1e3, 7.]))
    try: again = restore_family(made.about(), tensors)
    except ValueError: return
    assert np.isfinite(again.predict(X)).all()

# rows one at a time

def test_two_steps_of_ftrl():
    two, row = FTRL(2, alpha=.1, beta=1, l1=.5, l2=1), np.array([[1., 2]])
    two.learn(row, np.array([3.]))
    np.testing.assert_allclose([two.z[0], two.n[0], two.weights[0]], [[-3, -6], [9, 36], [.06097561, .07746479]], atol=1e-8)
    two.learn(row, np.array([3.]))
    np.testing.assert_allclose([two.z[0], two.n[0], two.weights[0]], [[-6.4504491, -13.2612926], [16.7511839, 67.0047357], [.11458991, .13743037]], atol=1e-7)

def test_ftrl_is_three_times_as_quick_as_rivers():
    "River's learner takes 12 600 rows a second (17 columns, dicts)."
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((4000, 17)), rng.standard_normal(4000)
    def took():
        start = time.process_time(); FTRL(17).learn(X, y)
        return time.process_time() - start
    assert 4000/min(took() for _ in range(3)) > 3*12_600

@pytest.mark.parametrize("more", [{}, dict(hashing=True), dict(batch_size=16)], ids=str)
def test_ftrl_goes_on_from_its_file(more):
    X, y, _ = table()
    whole = FTRLProximal(alpha=.1, **more).partial_fit(X[:300], y[:300])
    part = restore_family(whole.about(), whole.state_dict())
    whole.partial_fit(X[300:304], y[300:304]).partial_fit(X[304:], y[304:].where(np.arange(296) > 9))
    part.partial_fit(X[300:304], y[300:304]).partial_fit(X[314:], y[314:])
    np.testing.assert_array_equal(part.predict(X), whole.predict(X))
    assert (part.predict(X) != FTRLProximal(alpha=.1, **more).partial_fit(X[:300], y[:300]).predict(X)).any()

@pytest.mark.parametrize("seed", cases(5, 100))
def test_words_are_columns_of_counts(seed):
    rng = np.random.default_rng(seed)
    words, y = rng.integers(0, 12, (60, 4)), (rng.random((60, 2)) < .4).astype(float)
    counts = (words[:, :, None] == np.arange(12)).sum(1)
    how = dict(outputs=2, alpha=.3, l1=float(rng.choice([0, .5])), logistic=bool(rng.integers(2)), offset=.1)
    batch = int(rng.integers(1, 9))
    np.testing.assert_allclose(WordFTRL(12, **how).learn(words, y, batch=batch).z, FTRL(12, **how).learn(counts, y, batch=batch).z, atol=1e-10)

# regimes

@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_regimes_are_scikit_learns_in_the_order_of_volatility(kind):
    X, y, _ = table()
    X["b"] *= np.where(np.arange(600) % 3, 1, 4)
    made = quick("gmm_regime", covariance_type=kind, validation=0).fit(X, y)
    ready = made.preprocessing_.apply(X.to_numpy(np.float32)).astype(float)
    theirs = GaussianMixture(2, covariance_type=kind, random_state=7).fit(ready).predict_proba(ready)
    ours = made.regime_proba(X)
    assert min(np.abs(ours - theirs).max(), np.abs(ours - theirs[:, ::-1]).max()) < 1e-6
    assert (np.diff(made.volatility_) >= 0).all()
    for seed in range(3):                                               # numbers do not switch with the seed
        other = quick("gmm_regime", covariance_type="full", validation=0, seed=seed, n_init=5).fit(X, y)
        assert X["b"].abs()[other.regimes(X) == 1].mean() > X["b"].abs()[other.regimes(X) == 0].mean()

def test_outcomes_have_no_say_in_regimes_or_breaks():
    X, y, _ = table()
    other = pd.Series(-y.to_numpy()[::-1], y.index, name=y.name)
    a, b = (quick("gmm_regime").fit(X, v) for v in (y, other))
    np.testing.assert_array_equal(a.regime_proba(X), b.regime_proba(X))
    a, b = (quick("change_point").fit(X, v) for v in (y, other))
    np.testing.assert_array_equal(a.since(X), b.since(X))

# breaks

def brute(x, cost, penalty, least):
    "The cheapest partition by trying all."
    costs, W = piece_costs(x[None], cost, .5), len(x)
    best = {0: (-penalty, [])}
    for t in range(least, W + 1):
        best[t] = min(((best[s][0] + costs(s, t)[0, 0] + penalty, best[s][1] + ([s] if s else [])) for s in best if t - s >= least), key=lambda v: v[0])
    return best[W][1]

@pytest.mark.parametrize("seed", cases(6, 200))
@pytest.mark.parametrize("cost", ["linear", "normal", "rbf"])
def test_pruning_loses_nothing(cost, seed):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((3, 40)) + np.repeat(rng.standard_normal((3, 4))*3, 10, 1))*np.repeat(rng.choice([1, 3], (3, 2)), 20, 1)
    penalty, least = float(rng.choice([1, 5, 12])), int(rng.integers(2, 7))
    assert partition(x, cost=cost, penalty=penalty, min_size=least, gamma=.5) == [brute(row, cost, penalty, least) for row in x]
    for cuts in partition(x, "binseg", cost, penalty, least, gamma=.5, most=2):
        assert len(cuts) <= 2 and (np.diff([0, *cuts, 40]) >= least).all()

@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_cuts_are_those_of_ruptures(kernel):
    ruptures = pytest.importorskip("ruptures")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 120)) + np.repeat(rng.standard_normal((8, 4)), 30, 1)*2
    scale = (np.diff(x)**2).mean(1)/2 if kernel == "linear" else 1 - np.exp(-.3*np.diff(x)**2).mean(1)
    for row, noise, ours in zip(x, scale, partition(x, cost=kernel, gamma=.3)):
        search = ruptures.KernelCPD(kernel=kernel, min_size=10, params=dict(gamma=.3) if kernel == "rbf" else {}).fit(row[:, None])
        assert ours == [int(c) for c in search.predict(pen=2*np.log(120)*noise)[:-1]]

@pytest.mark.parametrize("how", [dict(), dict(method="binseg", cost="normal"), dict(cost="linear", jump=3, every=7)], ids=str)
def test_later_rows_change_nothing_earlier(how):
    rng = np.random.default_rng(1)
    x = rng.standard_normal(200).cumsum()/5
    whole = since_break([x], window=50, **how)[0]
    for n in 1, 19, 50, 131: np.testing.assert_array_equal(since_break([x[:n]], window=50, **how)[0], whole[:n])
    assert list(whole[0]) == [1, x[0], 0]                               # the first row knows itself, and not the last one

def test_a_panel_is_its_assets():
    X, y, _ = table(400, assets=2)
    made = quick("change_point", signal="a", window=40).fit(X[:300], y[:300])
    told = made.since(X)
    for name in "A0", "A1":
        only = X.index.get_level_values(1) == name
        np.testing.assert_allclose(made.since(X[only]), told[only], atol=1e-9)
    late = X[300:]
    np.testing.assert_allclose(made.since(late), told[300:], atol=1e-9)
    np.testing.assert_allclose(made.since(late[::-1]), told[300:][::-1], atol=1e-9)
    np.testing.assert_array_equal(made.since(pd.concat([X, 0*late.set_index(late.index.set_levels(late.index.levels[0] + pd.Timedelta("900D"), level=0))]))[:400], told)

def test_the_online_heuristic():
    signal = np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 5, 0, 1, 0, 1, 0.])
    assert online_changes(signal, 5, 1.5) == [9] and np.append(0, signal).mean() == .6875
    assert online_changes(signal[:5], 5) == [] and online_changes(signal, 5, 1e3) == []
