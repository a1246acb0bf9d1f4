"""Regimes are told from train rows alone, by the decision bar, by a tagger of each fold's own; draws are new every epoch."""
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from synthlab.datasets.audit import audit_leaks, audit_split
from synthlab.datasets.drift import RegimeDriftMonitor, shares, symmetric_kl
from synthlab.datasets.ohlcv import aggregate_bars
from synthlab.datasets.regimes import (HOURLY_FEATURE_NAMES, STRATEGIES, GaussianMixtureStrategy, KMeansStrategy,
    OHLCVFeatureStep, RegimeTagger)
from synthlab.datasets.regime_folds import (LogReturnTarget, MultiColumnTarget, PipelineConfig, RawReturnTarget,
    RegimeAwareDataset, RegimeBalancedSampler, balanced_probabilities, generate_walk_forward_folds, run_pipeline,
    run_pipeline_from_source)
from synthlab.datasets.sources import MockDataSource

quick = settings(max_examples=40, deadline=None, derandomize=True)

def hourly(n=900, seed=0):
    "Hours whose volatility changes between three levels."
    rng = np.random.default_rng(seed)
    sd = np.repeat(np.array([.002, .005, .02])[rng.integers(0, 3, n//30 + 1)], 30)[:n]
    close = 100*np.exp((sd*rng.normal(size=n)).cumsum())
    open_ = np.append(100., close[:-1])
    spread = np.exp(.5*sd*abs(rng.normal(size=n)))
    times = pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame({"open": open_, "high": np.maximum(open_, close)*spread, "low": np.minimum(open_, close)/spread, "close": close,
        "volume": rng.uniform(1, 2, n)}, times)

def featured(hours, **kw): return OHLCVFeatureStep(**kw)(aggregate_bars(hours, "1h", intrabar=True, step="1h"))

@pytest.fixture(scope="module")
def hours(): return hourly()

@pytest.fixture(scope="module")
def features(hours): return featured(hours)

# --- features ----------------------------------------------------------------------------------------------------------

def test_thirteen_features(features):
    assert list(features) == list(HOURLY_FEATURE_NAMES) and len(HOURLY_FEATURE_NAMES) == 13
    assert features[24:].notna().all().all() and not features[:24].notna().all(axis=1).any()

def test_features_against_pandas():
    bars = MockDataSource(3000, seed=6).load("A")["A"]
    hours = aggregate_bars(bars, "1h", intrabar=True)
    f = OHLCVFeatureStep(realized_vol_window=24, parkinson_vol_window=12, smooth_window=6)(hours)
    r = np.log(hours.close).diff()
    assert np.allclose(f.realized_vol[24:], r.rolling(24).std()[24:])
    assert np.allclose(f.parkinson_vol[24:], np.sqrt((np.log(hours.high/hours.low)**2).rolling(12).mean()/(4*np.log(2)))[24:])
    assert np.allclose(f["log_ret"][1:], r[1:])
    ewm = hours.intra_vol.ewm(span=6).mean()                         # which remembers for ever; four spans are enough for three digits
    assert np.allclose(f.intra_vol[30:], ewm[30:], rtol=2e-3)

def test_features_are_causal_and_remember_a_fixed_number_of_rows(hours, features):
    audit_leaks(featured, hours, cuts=3).raise_if_leaky()
    for t in (100, 456, 899): assert featured(hours[t - 24 : t + 1]).iloc[-1].to_numpy().tobytes() == features.iloc[t].to_numpy().tobytes()

# --- clustering --------------------------------------------------------------------------------------------------------

@quick
@given(st.integers(0, 10**6), st.integers(2, 4), st.integers(1, 3))
def test_strategies_are_scikit_learns(seed, k, d):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(60, d)) + 2*rng.integers(0, k, (60, 1)), rng.normal(size=(40, d))
    assert (KMeansStrategy(k, 42, 3).fit(x).predict(y) == KMeans(k, random_state=42, n_init=3).fit(x).predict(y)).all()
    kind = ("full", "tied", "diag", "spherical")[seed % 4]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (GaussianMixtureStrategy(k, 42, kind).fit(x).predict(y) == GaussianMixture(k, random_state=42, covariance_type=kind).fit(x).predict(y)).all()

@pytest.mark.parametrize("kind", sorted(STRATEGIES))
@pytest.mark.parametrize("log", [True, False])
def test_tagger(kind, log, features):
    tagger = RegimeTagger(3, 42, clustering=kind, log=log).fit(features[:600])
    labels = tagger.predict(features)
    assert labels.dtype == np.int64 and set(labels) == {-1, 0, 1, 2} and (labels[:24] == -1).all()
    vol = features.realized_vol.groupby(labels).mean()
    assert vol[0] < vol[1] < vol[2]                                  # regime 0 is calm
    again = RegimeTagger.restore(json.loads(json.dumps(tagger.state())))
    assert (again.predict(features) == labels).all() and again.state() == tagger.state()
    assert (np.concatenate([tagger.predict(features[i : i + 7]) for i in range(0, 900, 7)]) == labels).all()

def test_without_logarithms_it_is_standard_scaler_and_k_means(features):
    cols, train = ["realized_vol", "parkinson_vol"], features[24:600]
    tagger = RegimeTagger(log=False).fit(features[:600])
    scaler = StandardScaler().fit(train[cols])
    found = KMeans(3, random_state=42, n_init=10).fit(scaler.transform(train[cols]))
    rank = found.cluster_centers_.mean(1).argsort().argsort()
    assert (tagger.predict(features[24:]) == rank[found.predict(scaler.transform(features[24:][cols]))]).all()

def test_calm_is_regime_0_in_every_fold(features):
    "A clusterer numbers its groups as it pleases; results pooled by regime must not mix calm and wild."
    for seed in range(8):
        tagger = RegimeTagger(random_state=seed).fit(features[:600])
        vol = features.realized_vol[24:600].groupby(tagger.predict(features[24:600])).mean()
        assert len(vol) == 3 and (np.diff(vol) > 0).all()

def test_predict_before_fit():
    with pytest.raises(RuntimeError, match="call fit.* before predict"): RegimeTagger().predict(featured(hourly(60)))
    with pytest.raises(RuntimeError, match="call fit"): KMeansStrategy().predict(np.zeros((2, 2)))

def test_distribution():
    tagger = RegimeTagger(4)
    assert tagger.regime_distribution([0, 0, 3, -1]).tolist() == [2/3, 0, 0, 1/3]
    assert tagger.regime_distribution([]).tolist() == [.25]*4 and np.isclose(tagger.regime_distribution([1, 2, 2]).sum(), 1)

@pytest.mark.parametrize("use,says", [
    (lambda f: RegimeTagger(clustering="kmean").fit(f), "did you mean kmeans"), (lambda f: RegimeTagger(vol_features=["realised_vol"]).fit(f), "did you mean realized_vol"),
    (lambda f: RegimeTagger().fit(f[:24]), "no train row has realized_vol and parkinson_vol"),
    (lambda f: RegimeTagger().fit(f[24:26]), "2 different values, 3 regimes need as many"),
    (lambda f: RegimeTagger.restore({"clustering": "dbscan"}), "no clustering is called 'dbscan'")])
def test_taggers_errors(use, says, features):
    with pytest.raises(ValueError, match=says): use(features)

def test_a_market_that_stands_still_has_no_regimes():
    hours = hourly(200); hours.loc[:, ["open", "high", "low", "close"]] = 100.
    with pytest.raises(ValueError, match="1 different values"): RegimeTagger().fit(featured(hours))
    mixed = hourly(400); mixed.iloc[200:, :4] = float(mixed.close.iloc[199])
    labels = RegimeTagger().fit(featured(mixed)).predict(featured(mixed))
    assert (labels[230:] == 0).all()

# --- folds -------------------------------------------------------------------------------------------------------------

def test_lengths_are_exact(features):
    folds = generate_walk_forward_folds(features, train_size=100, val_size=30, test_size=30, step_size=30)
    assert len(folds) == (900 - 160)//30 + 1
    assert all((len(f.train), len(f.val), len(f.test)) == (100, 30, 30) for f in folds)
    assert [f.rows["train"][0] for f in folds] == [*range(0, 900 - 159, 30)]

@pytest.mark.parametrize("sizes", [dict(train_size=1000, val_size=30, test_size=30, step_size=1), dict(train_size="50D", val_size="1D", test_size="1D", step_size="1D")])
def test_too_large_a_window(sizes, features):
    with pytest.raises(ValueError, match="exceeds data length"): generate_walk_forward_folds(features, **sizes)

@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(60, 200), st.integers(1, 60), st.integers(1, 60), st.integers(20, 200), st.integers(0, 20))
def test_layout(train, val, test, step, gap):
    f = featured(hourly(500, 3))
    folds = generate_walk_forward_folds(f, train_size=train, val_size=val, test_size=test, step_size=step, gap_size=gap)
    for k, fold in enumerate(folds):
        a, b, c = (fold.rows[p] for p in ("train", "val", "test"))
        assert a == (k*step, k*step + train) and b == (a[1] + gap, a[1] + gap + val) and c == (b[1] + gap, b[1] + gap + test)
    assert folds[-1].rows["test"][1] <= 500 < folds[-1].rows["test"][1] + step
    by_time = generate_walk_forward_folds(f, train_size=pd.Timedelta(hours=train), val_size=f"{val}h", test_size=f"{test}h", step_size=f"{step}h", gap_size=f"{gap}h")
    assert [x.rows for x in by_time] == [x.rows for x in folds]

def test_no_fold_refits_another(features):
    "One clusterer shared by all folds would leave every fold with the last one's regimes."
    pattern = RegimeTagger(clustering=KMeansStrategy(3, 1))
    folds = generate_walk_forward_folds(features, train_size=200, val_size=30, test_size=30, step_size=150, tagger=pattern)
    assert not pattern.fitted and not pattern.clustering.learnt
    assert len({id(f.tagger.clustering) for f in folds}) == len(folds)
    for f in folds:
        fresh = RegimeTagger(clustering=KMeansStrategy(3, 1)).fit(f.train)
        assert (f.labels == fresh.predict(features)).all() and (f.tagger.predict(features) == f.labels).all()
    assert len({json.dumps(f.tagger.state()) for f in folds}) == len(folds)
    made = run_pipeline(hourly(1100), SMALL)
    for loaders in made:
        assert (loaders.monitor.tagger.predict(loaders.fold.features) == loaders.fold.labels).all()
        assert np.allclose(loaders.monitor.train, shares(loaders.fold.labels[slice(*loaders.fold.rows["train"])], 3))

@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("clustering", sorted(STRATEGIES))
def test_regimes_are_causal(number, clustering, hours):
    "Regimes of any row, also of the train rows, do not move when what follows the train rows changes."
    def regimes(frame):
        f = featured(frame)
        fold = generate_walk_forward_folds(f, train_size=300, val_size=50, test_size=50, step_size=100, tagger=RegimeTagger(clustering=clustering))[number]
        return pd.DataFrame({"regime": fold.labels}, f.index)
    part = hours[:700]
    audit_leaks(regimes, part, cuts=3, after=part.index[300 + 100*number]).raise_if_leaky()

def test_a_tagger_that_has_seen_everything_is_caught(hours):
    def regimes(frame):
        f = featured(frame)
        return pd.DataFrame({"regime": RegimeTagger().fit(f).predict(f)}, f.index)
    assert not audit_leaks(regimes, hours[:700], cuts=3, after=hours.index[400])

# --- balance -----------------------------------------------------------------------------------------------------------

THOUSAND = np.repeat([0, 1, 2], [500, 100, 400])

@pytest.mark.parametrize("strength,want", [(1., [1/3]*3), (0., [.5, .1, .4]), (.8, [.8/3 + .1, .8/3 + .02, .8/3 + .08])])
def test_shares_of_draws(strength, want):
    s = RegimeBalancedSampler(THOUSAND, 1, balance_strength=strength)
    assert np.allclose(s.effective_distribution(), want) and np.isclose(s.probabilities.sum(), 1)
    drawn = np.bincount(THOUSAND[np.concatenate([s.order(e) for e in range(60)])])/60_000
    assert np.allclose(drawn, want, atol=.01) and np.allclose(s.summary()["drawn"], want)

@quick
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(0, 1))
def test_probabilities(labels, s):
    p, labels = balanced_probabilities(labels, s), np.array(labels)
    w = 1/np.bincount(labels)[labels]
    assert np.allclose(p, (1 - s)/len(labels) + s*w/w.sum()) and np.isclose(p.sum(), 1) and (p >= 0).all()

def test_every_epoch_is_another_draw_and_can_be_asked_for_again():
    "A sampler that draws the same indices every epoch trains on two thirds of the windows for ever."
    a, b = RegimeBalancedSampler(THOUSAND, 1, seed=5), RegimeBalancedSampler(THOUSAND, 1, seed=5)
    epochs = [list(a) for _ in range(4)]
    assert len({tuple(e) for e in epochs}) == 4
    assert [b.order(e).tolist() for e in (3, 1, 0, 2)] == [epochs[e] for e in (3, 1, 0, 2)]
    assert RegimeBalancedSampler(THOUSAND, 1, seed=6).order(0).tolist() != epochs[0]
    assert len(set(np.concatenate(epochs))) > len(set(epochs[0]))

def test_a_window_belongs_to_its_decision_bar():
    "Not to its first bar, which is sixty hours older than the forecast."
    labels = np.array([-1]*5 + [0]*10 + [1]*10)
    s = RegimeBalancedSampler(labels, seq_len=8, pred_len=3)
    assert s.starts.tolist() == [*range(15)] and s.labels.tolist() == [int(labels[i + 7]) for i in range(15)]
    f = featured(hourly(120))
    labels = np.arange(120)
    item = RegimeAwareDataset(f, labels, 24, 6)[30]
    assert item["regime"] == 53 and item["initial_price"] == f.close.iloc[53] and item["start_idx"] == 30
    assert np.isclose(np.exp(item["target"].sum()), f.close.iloc[59]/f.close.iloc[53], rtol=1e-5)
    made = run_pipeline(hourly(1100), SMALL)[1]
    labels, stamp = made.fold.labels, made.fold.features.index.as_unit("ns").asi8
    for batches in made:
        for position in range(len(batches)):
            batch = batches.batch(1, position)
            row = np.searchsorted(stamp, batch["decided_at"].numpy())
            assert (batch["regime"].numpy() == labels[row]).all()
            assert np.allclose(batch["initial_price"], made.fold.features.close.to_numpy()[row])

def test_samplers_errors():
    for bad, says in ((lambda: RegimeBalancedSampler([0, 1], 3), "no window of 3"), (lambda: RegimeBalancedSampler([-1]*9, 2), "with a regime"),
        (lambda: RegimeBalancedSampler([0, 1], 1, balance_strength=1.5), "between 0 and 1"), (lambda: balanced_probabilities([0, -1], .5), "needs a regime")):
        with pytest.raises(ValueError, match=says): bad()

# --- pipeline ----------------------------------------------------------------------------------------------------------

SMALL = PipelineConfig(train_size=300, val_size=60, test_size=60, step_size=200, gap_size=12, seq_len=24, pred_len=6, batch_size=16)

def test_folds_of_the_pipeline():
    folds = run_pipeline(hourly(1100), SMALL)
    assert len(folds) == 4
    for k, made in enumerate(folds):
        train, val, test = made
        assert audit_split(made.windows, made.split, "12h") == [] and (val.n, test.n) == (54, 54)
        assert train.seed == 42 + k and made.sampler is train.sampler and made.tagger is made.fold.tagger
        first, last = made.fold.rows["train"]
        stamp = made.fold.features.index.as_unit("ns").asi8
        assert (train.windows.starts_at >= stamp[first]).all() and (train.windows.ends_at < stamp[last]).all()
        assert (np.diff(val.windows.decided_at) > 0).all() and torch.equal(val.order(0), val.order(5))
        for batches in made:
            for position in range(len(batches)): assert all(torch.isfinite(v).all() for v in batches.batch(0, position).values())

def test_batches_are_pure_and_shared_between_processes():
    train = run_pipeline(hourly(1100), SMALL)[0].train
    whole = train.batch(3, 2)
    train.batch(0, 0)
    for world in (2, 3):
        parts = [train.batch(3, 2, rank, world) for rank in range(world)]
        for k in whole:
            for rank, part in enumerate(parts): assert torch.equal(part[k], whole[k][rank::world])
    assert not torch.equal(train.order(0), train.order(1))

def test_the_pipeline_is_causal():
    "From bars to batches: features, scales, states and windows of every fold."
    part = hourly(640, 2)
    config = PipelineConfig(train_size=240, val_size=48, test_size=48, step_size=120, gap_size=12, seq_len=24, pred_len=6)
    audit_leaks(lambda frame: run_pipeline(frame, config), part, cuts=1, after=part.index[520]).raise_if_leaky()
    last = part.index[300]                                          # rows after the first fold's train part
    one, two = (run_pipeline(f, config)[0] for f in (part, part.mul(np.where(part.index > last, 1.5, 1.), axis=0)))
    assert json.dumps([one.engineer.state(), one.tagger.state()]) == json.dumps([two.engineer.state(), two.tagger.state()])
    for p in range(len(one.train)):
        a, b = one.train.batch(1, p), two.train.batch(1, p)
        assert all(torch.equal(a[k], b[k]) for k in a)

def test_the_pipeline_takes_sources_and_gaps():
    hours = hourly(1100)
    short = dict(A=hours, B=hours.drop(hours.index[100:130]))
    found = run_pipeline_from_source(short, ["b", "A"], PipelineConfig(**{**vars(SMALL), "clustering": "gaussian_mixture"}))
    assert list(found) == ["B", "A"] and len(found["A"]) == 4
    for made in found["B"]:
        w, gap = made.windows, hours.index[100].value
        assert not ((w.starts_at < gap) & (w.ends_at > gap)).any()
    with pytest.raises(ValueError, match="several assets, A, B; take run_pipeline_from_source"): run_pipeline(short, SMALL)
    with pytest.raises(ValueError, match="exceeds data length"): run_pipeline(hours[:200], SMALL)
    with pytest.raises(ValueError, match="has no (train|val|test) window of 24.6 rows"): run_pipeline(hours.drop(hours.index[97::98]), SMALL)
    with pytest.raises(ValueError, match="at most 59 bars between two gaps"): run_pipeline(hours.drop(hours.index[59::60]), SMALL)

def test_five_minutes_become_hours():
    folds = run_pipeline(MockDataSource(12*700, seed=2), PipelineConfig(**{**vars(SMALL), "engineer": "range_volatility"}))
    assert len(folds) == 2 and folds[0].fold.features.index[1] - folds[0].fold.features.index[0] == pd.Timedelta("1h")
    assert folds[0].train.batch(0, 0)["history"].shape == (16, 24, 17)

# --- targets -----------------------------------------------------------------------------------------------------------

def test_targets(hours):
    log = LogReturnTarget("close")
    series = log(hours)
    assert series.dtype == np.float32 and series[0] == 0 and series.shape == (900,) and log.window(series, 5, 12).shape == (1, 12)
    assert np.allclose(np.log1p(RawReturnTarget()(hours)), series, atol=1e-6) and RawReturnTarget()(hours)[0] == 0
    many = MultiColumnTarget(["open", "close", "volume"])
    assert many(hours).shape == (3, 900) and many.window(many(hours), 5, 12).shape == (3, 12) and many(hours).dtype == np.float32

def test_dataset(features):
    data = RegimeAwareDataset(features, np.zeros(900), 64, 12, MultiColumnTarget(["open", "close"]))
    assert len(data) == 900 - 75 and data[0]["inputs"].shape == (13, 64) and data[0]["target"].shape == (2, 12)
    assert (data[824]["target"][1] == features.close.to_numpy(np.float32)[-12:]).all()
    with pytest.raises(IndexError): data[825]

# --- drift -------------------------------------------------------------------------------------------------------------

def test_symmetric_kl():
    p, q = (.5, .3, .2), (.2, .3, .5)
    assert abs(symmetric_kl(p, q) - .27488722) < 1e-8 and symmetric_kl(p, p) == 0
    assert np.isclose(symmetric_kl(p, q), (np.sum(p*np.log(np.divide(p, q))) + np.sum(q*np.log(np.divide(q, p))))/2)

@quick
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_symmetric_kl_is_a_divergence(p, random):
    q = p[:]; random.shuffle(q)
    assert symmetric_kl(p, q) >= 0 and np.isfinite(symmetric_kl(p, q)) and np.isclose(symmetric_kl(p, q), symmetric_kl(q, p))

def test_monitor(features):
    tagger = RegimeTagger().fit(features[:600])
    train = tagger.regime_distribution(tagger.predict(features[:600]))
    monitor = RegimeDriftMonitor(tagger, train)
    assert monitor.update(features[24:65]) == {**monitor.status(), "rows": 41, "ready": False, "divergence": None, "should_retrain": False}
    assert monitor.update(features[65:66])["ready"] and json.dumps(monitor.status())
    assert monitor.update(features[:600])["rows"] == 168
    wild = features[tagger.predict(features) == 2]
    assert monitor.update(wild)["should_retrain"] and monitor.distribution.tolist() == [0, 0, 1]
    assert not monitor.update(features[24:600])["should_retrain"] or monitor.divergence > .5

def test_a_regime_that_is_absent_for_a_day_is_no_drift():
    "A share of 0 against one of a thousandth is not a reason to train again."
    monitor, bare = (RegimeDriftMonitor(None, [.55, .4, .05], window_size=48, prior=prior) for prior in (5., 0.))
    for m in (monitor, bare): m.update(np.repeat([0, 1], [26, 22]))
    assert not monitor.should_retrain() and bare.should_retrain()

@pytest.mark.parametrize("bad", [[.5, .3], [[.5, .5]], [1.2, -.2]])
def test_monitors_errors(bad):
    with pytest.raises(ValueError, match="give shares that sum to 1"): RegimeDriftMonitor(None, bad)
