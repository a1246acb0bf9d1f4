"""Every half of the past, one after the other, and beside somebody else's library where it is installed."""
import importlib.util
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import rankdata

from synthlab.metrics.overfitting import backtest_overfitting
from synthlab.metrics.performance import sharpe

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.sampled_from([2, 4, 6]), st.integers(0, 7))
def test_halves_one_after_the_other(seed, N, blocks, extra):
    rng = np.random.default_rng(seed)
    r = rng.standard_normal((N, 3*blocks + extra)) + rng.standard_normal((N, 1))
    found, parts = backtest_overfitting(r, blocks, rows=3), np.array_split(np.arange(r.shape[1]), blocks)
    logits = []
    for k, half in enumerate(combinations(range(blocks), blocks//2)):
        inside, outside = (np.concatenate([p for b, p in enumerate(parts) if (b in half) == wanted]) for wanted in (True, False))
        best = sharpe(r[:, inside], 1).argmax()
        later = sharpe(r[:, outside], 1)
        share = rankdata(later)[best]/(N + 1)
        logits.append(np.log(share/(1 - share)))
        assert found.chosen[k] == best and np.isclose(found.inside[k], sharpe(r[best, inside], 1)) and np.isclose(found.outside[k], later[best])
    assert np.allclose(found.logits, logits)
    assert np.isclose(found.probability, np.mean([.5 if abs(x) < 1e-12 else x < 0 for x in logits]))

def test_large_means_do_not_drown_the_deviation():
    r = np.random.default_rng(0).standard_normal((5, 60))
    far = r*1e-6 + 1e3*np.arange(1, 6)[:, None]
    ours = backtest_overfitting(far, 4)
    inside = np.concatenate(np.array_split(np.arange(60), 4)[:2])
    assert np.isclose(ours.inside[0], sharpe(far[:, inside], 1).max(), rtol=1e-6)

def test_strategies_that_stand_still_are_not_chosen():
    r = np.zeros((3, 40)); r[1] = .01*np.random.default_rng(0).standard_normal(40)
    assert (backtest_overfitting(r, 4).chosen == 1).all()

@pytest.mark.skipif(not importlib.util.find_spec("purgedcv"), reason="purgedcv is not installed")
def test_beside_purgedcv():
    from purgedcv import probability_of_backtest_overfitting
    r = .01*np.random.default_rng(0).standard_normal((20, 300))
    ours, theirs = backtest_overfitting(r, 8), probability_of_backtest_overfitting(r, 8)
    assert ours.probability == theirs.pbo and np.isclose(ours.slope, theirs.slope)
    assert np.allclose(np.sort(ours.logits), np.sort(theirs.logits))
