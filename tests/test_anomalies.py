"Anomaly scores and distances between samples of events beside scikit-learn and scipy."
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from scipy import linalg
from sklearn.metrics import roc_auc_score, roc_curve

from synthlab.datasets.jets import energy_flow
from synthlab.metrics.anomalies import anomaly_table, auroc, matching_weights, signal_efficiency
from synthlab.metrics.event_samples import _frechet, frechet_physics_distance, wasserstein

events = st.integers(2, 60).flatmap(lambda n: st.tuples(
    st.lists(st.integers(-5, 5), min_size=n, max_size=n), st.lists(st.integers(0, 1), min_size=n, max_size=n),
    st.lists(st.integers(0, 3), min_size=n, max_size=n)))

@settings(max_examples=60, deadline=None)
@given(events, st.sampled_from([.01, .2, .5]))
def test_area_and_efficiency_equal_scikit_learn(rows, background):
    "Ties and weights included; the ROC curve is read as steps."
    score, signal, weight = (np.array(x, float) for x in rows)
    if not all((weight*(signal == c)).any() for c in (0, 1)): return
    assert abs(auroc(score, signal, weight) - roc_auc_score(signal, score, sample_weight=weight)) < 1e-12
    false, true, _ = roc_curve(signal, score, sample_weight=weight, drop_intermediate=False)
    assert abs(signal_efficiency(score, signal, background, weight) - true[false <= background*(1 + 1e-9)].max()) < 1e-12

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 2), st.integers(1, 30))
def test_matching_leaves_a_coin(seed, shift, bins):
    rng = np.random.default_rng(seed)
    signal = np.repeat([0, 1], 300)
    value = rng.standard_normal(600) + shift*signal
    w = matching_weights(value, signal, bins=bins)
    of_bin = np.searchsorted(np.quantile(value, np.linspace(0, 1, bins + 1)[1:-1]), value, "right")
    shares = [np.bincount(of_bin[signal == c], w[signal == c], bins) for c in (0, 1)]
    assert np.allclose(*shares) and (w >= 0).all()

def test_an_interval_needs_neither_order_nor_names():
    rng = np.random.default_rng(0)
    signal, score = np.repeat([0, 1], 200), rng.standard_normal(400)
    one = anomaly_table({"a": score, "b": -score}, signal, "b", n_boot=50)
    assert one.equals(anomaly_table({"a": 3*score + 1, "b": -score}, signal, "b", n_boot=50))
    with pytest.raises(ValueError, match="there is no score 'c'; there are a, b"): anomaly_table({"a": score, "b": score}, signal, "c")

def test_frechet_equals_the_matrix_square_root():
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((200, 5)) @ rng.standard_normal((5, 5)) for _ in range(2))
    one, two = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(one @ two).real
    assert abs(_frechet(a, b) - ((a.mean(0) - b.mean(0))**2).sum() - np.trace(one + two - 2*root)) < 1e-8
    assert frechet_physics_distance(a*100, b*100) == pytest.approx(frechet_physics_distance(a, b))

@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_a_jet_is_its_particles_in_any_order(seed, T):
    rng = np.random.default_rng(seed)
    z, eta, phi = rng.dirichlet(np.ones(T)), rng.normal(0, .3, T), rng.uniform(-np.pi, np.pi, T)
    order, pad = rng.permutation(T), lambda x: np.append(x, rng.normal(0, 1, 3))[None]
    found = energy_flow(z[None], eta[None], phi[None])
    assert np.allclose(energy_flow(z[order][None], eta[order][None], phi[order][None]), found)
    assert np.allclose(energy_flow(np.append(z, [0, 0, 0])[None], pad(eta), pad(phi)), found)
    split = energy_flow(np.append(z[0]/2, np.append(z[0]/2, z[1:]))[None], np.append(eta[0], eta)[None], np.append(phi[0], phi)[None])
    assert np.allclose(split, found)        # a particle that splits along its direction changes nothing

def test_distances_are_told_apart_from_noise():
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal(500), rng.standard_normal(500)
    near, far = wasserstein(a, b, 20), wasserstein(a + 1, b, 20)
    assert near.value < 5*near.error and far.value > 10*far.error
