"""Purged folds beside pairs of rows compared one by one, and beside other people's splitters where those are installed."""
import importlib.util
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.feature_selection import RFECV
from sklearn.linear_model import Ridge

from synthlab.datasets.purged import CombinatorialFolds, PurgedFolds, apart, row_times
from synthlab.datasets.splits import SplitError

@st.composite
def panels(draw):
    "Rows of a panel in any order, each with a time and an end."
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n = draw(st.integers(12, 60))
    decided = rng.integers(0, draw(st.integers(8, 40)), n)
    return decided, decided + rng.integers(0, 6, n)

@settings(max_examples=60, deadline=None)
@given(panels(), st.integers(2, 6))
def test_no_pair_of_rows_shares_a_moment(panel, k):
    decided, ends = panel
    if len(np.unique(decided)) < k: return
    seen = np.zeros(len(decided), int)
    folds = PurgedFolds(k, decided, ends)
    def given():
        try: yield from folds.split(len(decided))
        except SplitError as e: assert "no block has rows" in str(e)
    for train, test in given():
        seen[test] += 1
        assert ends[train].max() < decided[test].min()
        kept = {i for i in range(len(decided)) if ends[i] < decided[test].min()}
        assert set(train) == kept
    assert (seen <= 1).all()
    if seen.any(): assert folds.get_n_splits(len(decided)) == len(list(given()))

@settings(max_examples=60, deadline=None)
@given(panels(), st.integers(3, 6), st.integers(0, 3))
def test_combinations_keep_apart_on_both_sides(panel, k, embargo):
    decided, ends = panel
    times = np.unique(decided)
    if len(times) < k: return
    blocks = np.array_split(times, k)
    try: found = list(CombinatorialFolds(k, 2, decided, ends, embargo=embargo).split(len(decided)))
    except SplitError as e:
        assert "nothing is left" in str(e)
        return
    for chosen, (train, test) in zip(combinations(range(k), 2), found):
        expected = set(range(len(decided)))
        for block in chosen:
            tested = (decided >= blocks[block][0]) & (decided <= blocks[block][-1])
            reach = ends[tested].max()
            free = [t for t in times if t > reach][:embargo]
            expected -= {i for i in range(len(decided)) if ends[i] >= blocks[block][0] and decided[i] <= reach or decided[i] in free}
        assert set(train) == expected
        assert set(test) == set(np.flatnonzero(np.isin(decided, np.concatenate([blocks[b] for b in chosen]))))

def test_numbers_worked_out_elsewhere():
    clock = pd.date_range("2020-01-01", periods=20, freq="5min")
    spans = lambda cv: [(a.min(), a.max(), b.min(), b.max()) for a, b in cv.split(20)]
    assert spans(PurgedFolds(4, clock, purge="15min")) == [(0, 2, 5, 9), (0, 7, 10, 14), (0, 12, 15, 19)]
    assert spans(PurgedFolds(4, purge=3)) == [(0, 1, 5, 9), (0, 6, 10, 14), (0, 11, 15, 19)]

@pytest.mark.skipif(not importlib.util.find_spec("skfolio"), reason="skfolio is not installed")
@pytest.mark.parametrize("n, k, test, purge, embargo", [(60, 6, 2, 0, 0), (60, 6, 2, 3, 0), (100, 10, 8, 0, 2), (96, 8, 3, 2, 4)])
def test_combinations_are_those_of_skfolio(n, k, test, purge, embargo):
    from skfolio.model_selection import CombinatorialPurgedCV
    other = CombinatorialPurgedCV(k, test, purge, embargo)
    ours = CombinatorialFolds(k, test, purge=purge, embargo=embargo)
    for (train, tested), (train2, parts) in zip(ours.split(n), other.split(np.zeros((n, 1))), strict=True):
        assert np.array_equal(tested, np.concatenate(parts))
        assert np.array_equal(train, train2)
    assert len(ours.paths()) == other.n_test_paths

def test_it_is_a_splitter_for_scikit_learn():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.standard_normal((120, 4)), pd.date_range("2020-01-01", periods=120))
    y = X[0] + .1*rng.standard_normal(120)
    found = RFECV(Ridge(), cv=PurgedFolds(4, X.index, purge="5D"), min_features_to_select=1).fit(X, y)
    assert found.support_[0] and found.cv_results_["split2_test_score"].shape == (4,) and "split3_test_score" not in found.cv_results_
    with pytest.raises(SplitError, match="takes a table's index away"): RFECV(Ridge(), cv=PurgedFolds(4, purge="5D")).fit(X, y)
    assert repr(PurgedFolds(4)).startswith("PurgedFolds(")

def test_a_panel_is_cut_between_times_and_takes_them_from_its_index():
    index = pd.MultiIndex.from_product([pd.date_range("2020-01-01", periods=30), ["a", "b", "c"]], names=["decided_at", "asset"])
    X = pd.DataFrame({"x": 0.}, index)
    for train, test in PurgedFolds(4, purge=2).split(X):
        assert len(test) % 3 == 0 and not set(index[train].get_level_values(0)) & set(index[test].get_level_values(0))
    assert np.array_equal(row_times(X), index.get_level_values(0).tz_localize("UTC").as_unit("ns").asi8)

def test_what_cannot_be_is_refused():
    for bad in (dict(n_splits=1), dict(n_splits=2.5), dict(n_splits=True)):
        with pytest.raises(SplitError, match="2 blocks or more"): PurgedFolds(**bad)
    with pytest.raises(SplitError, match="ends before its decision"): list(PurgedFolds(2, [1, 2, 3], [0, 2, 3]).split(3))
    with pytest.raises(SplitError, match="a row has no time"): row_times(2, [pd.Timestamp("2020"), pd.NaT])
    with pytest.raises(SplitError, match="nothing is left"): list(CombinatorialFolds(3, 2, purge=9).split(12))
    with pytest.raises(SplitError, match="no block has rows"): list(PurgedFolds(3, purge=20).split(12))
    assert apart(np.arange(5), None, 0, 1, after=False).sum() == 0
