"Recalibration after training: what it promises by experiment, that ranks survive, and that no outcome is used before it has ended."
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.special import ndtri

from synthlab.metrics.calibration import coverage
from synthlab.metrics.crps import fair_crps_ensemble
from synthlab.models.conformal import AdaptiveConformal, SplitConformal, pooled
from synthlab.models.stretching import (LEVELS, broken_line, disjoint_windows, increasing, less_noise, normal_scores,
    over_steps, promised, score_quantiles, stretch_members)

property_test = settings(deadline=None, derandomize=True, max_examples=40)
F64 = torch.float64
Z = ndtri(np.array(LEVELS))

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def walks(rows, P, H, seed, vol=.01): return 100*(vol*torch.randn(rows, P, H, generator=seeded(seed), dtype=F64).cumsum(2)).exp()
def start(n): return torch.full((n,), 100., dtype=F64)
def crps(paths, target): return fair_crps_ensemble(paths.transpose(1, 2), target).mean().item()

def stream(n, H, seed=0, vol=None):
    "One long market: a window decided at each bar, the ensembles of a simulator that knows the usual volatility, stamps."
    vol = torch.full((n + H,), .01, dtype=F64) if vol is None else vol
    r = vol*torch.randn(n + H, generator=seeded(seed), dtype=F64)
    target = 100*torch.stack([r[i + 1:i + 1 + H].cumsum(0) for i in range(n - 1)]).exp()
    t = 1_000*np.arange(n - 1)
    return walks(n - 1, 60, H, seed + 1), target, start(n - 1), t, t + 1_000*H

def cut(data, *s): return tuple(v[slice(*s)] for v in data)

# Rulers and ranks ------------------------------------------------------------------------------------------------------

@property_test
@given(P=st.integers(2, 80), H=st.integers(1, 6), seed=st.integers(0, 1000), power=st.floats(-6, 0), ties=st.booleans(), smooth=st.sampled_from([0., .25]))
def test_every_member_keeps_its_rank_at_every_step(P, H, seed, power, ties, smooth):
    rng = np.random.default_rng(seed)
    paths = walks(3, P, H, seed, 10**power)
    if ties: paths[:, P//2:] = paths[:, :1]                 # members that fell together stay together
    table = increasing(rng.normal(0, 2, (H, len(Z))), LEVELS)
    new = stretch_members(paths, start(3), table, smooth=smooth)
    assert new.shape == paths.shape and new.isfinite().all() and (new > 0).all()
    order = paths.argsort(1)
    assert (new.gather(1, order).diff(dim=1) >= -1e-9*new.max()).all()

def test_nothing_to_do_nothing_done():
    paths = walks(5, 40, 12, 0)
    for smooth in (0., .25): torch.testing.assert_close(stretch_members(paths, start(5), np.tile(Z, (12, 1)), smooth=smooth), paths, rtol=1e-12, atol=0)

def test_other_currencies_change_nothing():
    paths, target = walks(6, 40, 5, 0), walks(6, 1, 5, 1)[:, 0]
    torch.testing.assert_close(normal_scores(paths, target, start(6)), normal_scores(1e-6*paths, 1e-6*target, 1e-6*start(6)), rtol=1e-6, atol=1e-6)
    table = np.tile(1.4*Z + .1, (5, 1))
    torch.testing.assert_close(stretch_members(1e4*paths, 1e4*start(6), table), 1e4*stretch_members(paths, start(6), table), rtol=1e-9, atol=0)

def test_windows_are_independent_and_single_precision_is_nearly_double():
    paths, table = walks(6, 40, 5, 0), np.tile(1.4*Z, (5, 1))
    together = stretch_members(paths, start(6), table, smooth=.25)
    alone = torch.cat([stretch_members(paths[i:i + 1], start(1), table, smooth=.25) for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=0)
    single = stretch_members(paths.float(), start(6).float(), table, smooth=.25)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), together, rtol=1e-5, atol=0)

def test_scores_of_a_right_ensemble_are_below_each_level_as_often_as_said():
    s = normal_scores(walks(4000, 200, 2, 0), walks(4000, 1, 2, 1)[:, 0], start(4000)).numpy()
    for p, z in zip(LEVELS, Z): np.testing.assert_allclose((s <= z).mean(0), p, atol=4*(p*(1 - p)/4000)**.5 + .004)

def test_equal_members_are_no_trouble():
    paths = torch.full((2, 5, 3), 100., dtype=F64)
    s = normal_scores(paths, torch.full((2, 3), 101., dtype=F64), start(2))
    assert s.isfinite().all() and (s > 0).all()
    assert stretch_members(paths, start(2), np.tile(2*Z, (3, 1))).sub(100).abs().max() < 1e-6

def test_paths_do_not_become_rougher_than_they_become_wider():
    "Quantiles read off between neighbouring members put new noise on every step: small moves of long paths grew by a third too much."
    paths = walks(20, 200, 288, 0)
    new = stretch_members(paths, start(20), np.tile(1.5*Z, (288, 1)), smooth=.25)
    move = lambda x: x.log().diff(dim=2)[..., -40:].std().item()
    wide = lambda x: x.div(100).log()[..., -1].std(1).mean().item()
    assert wide(new)/wide(paths) == pytest.approx(1.5, rel=.02)
    assert move(new)/move(paths) == pytest.approx(1.5, rel=.05)

def test_the_average_over_steps_keeps_constants_and_reaches_in_proportion():
    w = over_steps(288, .25)
    np.testing.assert_allclose(w.sum(1), 1)
    np.testing.assert_array_equal(over_steps(4, 0), np.eye(4))
    assert w[0, 0] > .9 and .02 > w[200].max()

def test_a_broken_line_passes_its_knots():
    x, y = torch.tensor([[0., 1, 2], [0, 5, 10]]), torch.tensor([[0., 3, 4], [-1, 0, 1]])
    assert torch.equal(broken_line(x, x, y), y)

# The promise ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n", [19, 39, 60])
def test_coverage_of_every_quantile_is_within_one_window_of_its_level(n):
    "On average over calibrations, for any model: between k/(n+1) and (k+1)/(n+1), and the level itself where it is a multiple."
    E = 1500                                                    # calibrations, side by side as steps that are independent
    draw = lambda rows, P, seed, vol: 100*(vol*torch.randn(rows, P, E, generator=seeded(seed), dtype=F64)).exp()
    levels = (.05, .2, .5, .8, .95)
    conformal = SplitConformal(levels, shift=True, smooth=0, shrink=False).fit(draw(n, 41, 1, .005), draw(n, 1, 2, .01)[:, 0], start(n))
    new = conformal.apply(draw(40, 41, 3, .005), start(40))
    s = normal_scores(new, draw(40, 1, 4, .01)[:, 0], start(40), levels).numpy()
    for p, z in zip(levels, ndtri(np.array(levels))):
        below = (s <= z).mean(0)
        noise = 4*below.std()/E**.5
        k = np.floor(p*(n + 1) + 1e-9)
        assert k/(n + 1) - noise <= below.mean() <= (k + 1)/(n + 1) + noise
        if abs(k - p*(n + 1)) < 1e-6: assert abs(below.mean() - p) < noise + 1e-3

@pytest.mark.parametrize("n", [19, 39, 60])
def test_coverage_of_every_central_interval_is_within_one_window_of_its_level(n):
    E = 1500
    draw = lambda rows, P, seed, vol, bias=0: 100*(vol*(torch.randn(rows, P, E, generator=seeded(seed), dtype=F64) + bias)).exp()
    levels = (.025, .1, .25, .5, .75, .9, .975)
    conformal = SplitConformal(levels, smooth=0, shrink=False).fit(draw(n, 41, 1, .02), draw(n, 1, 2, .01, .5)[:, 0], start(n))
    s = normal_scores(conformal.apply(draw(40, 41, 3, .02), start(40)), draw(40, 1, 4, .01, .5)[:, 0], start(40), levels).abs().numpy()
    for p in (.75, .9, .975):
        inside, c = (s <= ndtri(p)).mean(0), 2*p - 1
        noise, k = 4*inside.std()/E**.5 + 1e-3, np.floor(c*(n + 1) + 1e-9)
        assert k/(n + 1) - noise <= inside.mean() <= (k + 1)/(n + 1) + noise
        if abs(k - c*(n + 1)) < 1e-6: assert abs(inside.mean() - c) < noise

@pytest.mark.parametrize("factor", [.6, 1.6])
def test_a_wrong_width_is_repaired(factor):
    P, H = 100, 12
    c = SplitConformal().fit(walks(300, P, H, 1, .01*factor), walks(300, 1, H, 2)[:, 0], start(300))
    raw, target = walks(1500, P, H, 3, .01*factor), walks(1500, 1, H, 4)[:, 0]
    new = c.apply(raw, start(1500))
    before, after = (coverage(x.transpose(1, 2), target, (.5, .9)).numpy() for x in (raw, new))
    assert np.abs(before - (.5, .9)).max() > .07 and np.abs(after - (.5, .9)).max() < .04
    assert crps(new, target) < .98*crps(raw, target)
    assert crps(new, target) < 1.02*crps(walks(1500, P, H, 5), target)      # about as good as the truth

def test_a_right_ensemble_is_left_nearly_as_it_is():
    "Learned from a hundred windows: a fifth of a percent of the score on average, less than half of what it costs not to shrink."
    P, H, cost = 60, 12, {True: [], False: []}
    for seed in range(10):
        raw, target = walks(400, P, H, 10*seed + 3), walks(400, 1, H, 10*seed + 4)[:, 0]
        for shrink in cost:
            c = SplitConformal(shift=True, shrink=shrink).fit(walks(100, P, H, 10*seed + 1), walks(100, 1, H, 10*seed + 2)[:, 0], start(100))
            cost[shrink].append(crps(c.apply(raw, start(400)), target)/crps(raw, target) - 1)
    assert np.mean(cost[True]) < .006 and np.mean(cost[True]) < .6*np.mean(cost[False])

def test_a_shift_is_repaired_and_not_taken_for_a_width():
    P, H = 100, 6
    moved = lambda n, seed: walks(n, 1, H, seed)[:, 0]*(.01*torch.arange(1, H + 1, dtype=F64)**.5).exp()
    c = SplitConformal(shift=True).fit(walks(300, P, H, 1), moved(300, 2), start(300))
    s = normal_scores(c.apply(walks(1000, P, H, 3), start(1000)), moved(1000, 4), start(1000))
    assert s.median(0).values.abs().max() < .2
    assert np.abs((c.table[:, -1] - c.table[:, 0])/(Z[-1] - Z[0]) - 1).max() < .15

def test_by_default_no_drift_is_learned():
    "A validation year that rose must not make every later forecast rise."
    moved = lambda n, seed: walks(n, 1, 6, seed)[:, 0]*(.005*torch.arange(1, 7, dtype=F64)).exp()
    for c in (SplitConformal(), AdaptiveConformal(gamma=.05)):
        data = walks(300, 60, 6, 1), moved(300, 2), start(300)
        t = 6*np.arange(300)
        c.fit(*data, t, t + 6)
        later = c.apply(walks(300, 60, 6, 3), start(300), t + 1800, t + 1806, moved(300, 4))
        moved_by = later.log().median(1).values - walks(300, 60, 6, 3).log().median(1).values
        assert moved_by.mean(0).abs().max() < .001              # the drift is .03
        assert np.abs(c.table + c.table[:, ::-1]).max() < 1e-9

def test_fewer_windows_keep_less():
    off = .2*Z[None]
    kept = [np.abs(less_noise(off, np.array(LEVELS), np.array([n]))).max() for n in (40, 100, 1000, 10**6)]
    assert kept == sorted(kept) and kept[-1] == pytest.approx(np.abs(off).max(), rel=1e-3)

def test_levels_that_cannot_be_promised_are_not_looked_at():
    scores = np.arange(1., 20)[:, None]
    a, b = scores.copy(), scores.copy(); b[-1] = 1000           # with 19 windows, the largest is the 95 % quantile and no more
    known = promised(np.array(LEVELS), np.array([19]), shift=True)[0]
    assert promised(np.array(LEVELS), np.array([19]))[0].all() and not promised(np.array(LEVELS), np.array([18]))[0].all()
    ta, tb = (score_quantiles(x, np.array(LEVELS), np.array([19]), shift=True)[0] for x in (a, b))
    assert known.tolist() == [False] + [True]*7 + [False] and (ta[:-2] == tb[:-2]).all() and tb[-2] == 1000

# Overlap ------------------------------------------------------------------------------------------------------------------

@property_test
@given(n=st.integers(1, 60), H=st.integers(1, 12), stride=st.integers(1, 15), assets=st.integers(1, 3))
def test_disjoint_windows_by_counting(n, H, stride, assets):
    t = np.repeat(stride*np.arange(n), assets)
    found = disjoint_windows(np.random.default_rng(0).permutation(t), np.random.default_rng(0).permutation(t) + H, H)
    for k in range(1, H + 1):
        free, last = 0, -10**9
        for d in sorted(t):
            if d >= last: free, last = free + 1, d + k
        assert found[k - 1] == free

def test_overlapping_windows_are_not_taken_for_independent():
    "A year of neighbours that share their outcomes says less than as many separate windows; a right ensemble must not be bent by it."
    bent = {True: 0., False: 0.}
    for seed in range(6):
        paths, target, p0, decided, ends = stream(400, 12, 100*seed)
        for honest in bent:
            c = SplitConformal().fit(paths, target, p0, *((decided, ends) if honest else ()))
            bent[honest] += np.abs(c.table - Z).mean()
            assert c.windows[-1] == (34 if honest else 399) and c.windows[0] == 399
    assert bent[True] < .7*bent[False]

@pytest.mark.parametrize("make,message", [
    (lambda d: SplitConformal().fit(*cut(d, 0, 18)[:3]), "18 of 18 validation windows do not overlap"),
    (lambda d: SplitConformal().fit(*cut(d, 0, 100)), "9 of 100 validation windows do not overlap over 12 steps, and at least 19"),
    (lambda d: SplitConformal().fit(*d[:4]), "give both of decided_at and ends_at"),
    (lambda d: SplitConformal().fit(d[0], d[1][:, :5], d[2]), "target has the shape"),
    (lambda d: SplitConformal().fit(d[0], d[1]*np.nan, d[2]), "leave windows with gaps out"),
    (lambda d: SplitConformal().fit(d[0]*0, d[1], d[2]), "finite and positive"),
    (lambda d: SplitConformal().fit(d[0][:, :1], d[1], d[2]), "at least 2 members"),
    (lambda d: SplitConformal().fit(d[0], d[1], d[2], d[3], d[3]), "ends_at must exceed decided_at"),
    (lambda d: SplitConformal().apply(d[0], d[2]), "nothing is calibrated yet"),
    (lambda d: SplitConformal().state(), "nothing is calibrated yet"),
    (lambda d: SplitConformal().fit(*d[:3]).apply(d[0][..., :5], d[2]), "calibrated for 12 steps, the paths have 5"),
    (lambda d: SplitConformal(levels=(.1, .5, .8)), "symmetric"), (lambda d: SplitConformal(min_windows=1), "not below 2"),
    (lambda d: AdaptiveConformal(gamma=-.1), "gamma=-0.1"),
    (lambda d: AdaptiveConformal().fit(*d).apply(d[0], d[2]), "needs decided_at"),
    (lambda d: SplitConformal().load_state({"kind": "adaptive"}), "'adaptive', not of 'split'")])
def test_nonsense_is_refused_in_one_sentence(make, message):
    with pytest.raises(ValueError, match=message): make(stream(300, 12))

# No leak ------------------------------------------------------------------------------------------------------------------

H = 6
def rising(n=900, seed=0): return stream(n, H, seed, torch.where(torch.arange(n + H) < 450, .01, .02).double())
def fitted(data, kind=AdaptiveConformal, **o): return kind(**o).fit(*cut(data, 0, 300 - H))
def later(data, *s):
    "apply's arguments for the windows after the validation split."
    paths, target, p0, decided, ends = cut(data, 300, None)
    return tuple(v[slice(*s) if s else slice(None)] for v in (paths, p0, decided, ends, target))

@pytest.mark.parametrize("kind", [SplitConformal, AdaptiveConformal])
def test_a_decision_before_the_calibration_was_known_is_refused(kind):
    data = rising()
    c = fitted(data, kind)
    with pytest.raises(ValueError, match="that would be a leak"): c.apply(data[0][292:300], data[2][292:300], data[3][292:300])
    c.apply(data[0][299:301], data[2][299:301], data[3][299:301])

@pytest.fixture(scope="module")
def said():
    "What is said of a whole market, every outcome in its time."
    data = rising()
    return fitted(data, gamma=.05).apply(*later(data))

@pytest.mark.parametrize("now", [0, 1, 100, 400])
def test_no_outcome_counts_before_it_has_ended(now, said):
    "Changing everything that ends after a decision changes no bit of what was said at it or before."
    data = rising()
    paths, p0, decided, ends, target = later(data)
    changed = target.clone(); changed[ends > decided[now]] *= 2
    again = fitted(data, gamma=.05).apply(paths, p0, decided, ends, changed)
    assert torch.equal(said[:now + 1], again[:now + 1])
    assert not torch.equal(said[now + 1 + H:], again[now + 1 + H:])

def test_an_outcome_counts_as_soon_as_it_has_ended():
    data = rising()
    paths, p0, decided, ends, target = later(data, 0, 20)
    said = fitted(data, gamma=.05).apply(paths, p0, decided, ends, target)
    changed = target.clone(); changed[0] *= 2
    again = fitted(data, gamma=.05).apply(paths, p0, decided, ends, changed)
    first = int(np.flatnonzero(decided >= ends[0])[0])
    assert first == H and torch.equal(said[:first], again[:first]) and not torch.equal(said[first], again[first])

def test_the_order_of_a_batch_does_not_matter():
    data = rising()
    paths, p0, decided, ends, target = later(data, 0, 120)
    said = fitted(data).apply(paths, p0, decided, ends, target)
    i = torch.randperm(120, generator=seeded())
    assert torch.equal(fitted(data).apply(paths[i], p0[i], decided[i.numpy()], ends[i.numpy()], target[i]), said[i])

@pytest.mark.parametrize("size", [1, 7, 200])
def test_pieces_with_a_state_in_between_are_the_whole(size):
    data = rising()
    whole, c, parts = fitted(data).apply(*later(data, 0, 210)), fitted(data), []
    for lo in range(0, 210, size):
        parts.append(c.apply(*later(data, lo, min(lo + size, 210))))
        if size > 1: c = AdaptiveConformal(gamma=.3).load_state(json.loads(json.dumps(c.state())))
    assert torch.equal(torch.cat(parts), whole)

def test_observing_later_is_the_same():
    data = rising()
    paths, p0, decided, ends, target = later(data, 0, 60)
    whole, live, said = fitted(data).apply(paths, p0, decided, ends, target), fitted(data), []
    for i in range(60):
        if i >= H: live.observe(said[i - H], target[i - H:i - H + 1], p0[:1], decided[i - H:i - H + 1], ends[i - H:i - H + 1])
        said.append(live.apply(paths[i:i + 1], p0[:1], decided[i:i + 1]))
    assert torch.equal(torch.cat(said), whole)

def test_time_does_not_run_backwards():
    data = rising()
    c = fitted(data)
    c.apply(*later(data, 0, 60))
    with pytest.raises(ValueError, match="decisions must come in order"): c.apply(*later(data, 0, 10))
    paths, p0, decided, ends, target = later(data, 0, 5)
    with pytest.raises(ValueError, match="outcomes must come in order"): c.observe(paths, target, p0, decided, ends)

@pytest.mark.parametrize("kind", [SplitConformal, AdaptiveConformal])
def test_state_goes_through_json(kind):
    data = rising()
    c = fitted(data, kind, smooth=.1, min_windows=20)
    copy = kind().load_state(json.loads(json.dumps(c.state())))
    assert copy.state() == c.state()
    assert torch.equal(copy.apply(*later(data, 0, 30)), c.apply(*later(data, 0, 30)))

# Adaptation ---------------------------------------------------------------------------------------------------------------

def test_without_a_step_it_is_split():
    data = rising()
    torch.testing.assert_close(fitted(data, gamma=0.).apply(*later(data)), fitted(data, SplitConformal).apply(*later(data)), rtol=1e-9, atol=0)

def test_pooling_is_isotonic_regression():
    from sklearn.isotonic import isotonic_regression
    x = np.random.default_rng(0).normal(0, 1, (50, 9)) + np.arange(9)/3
    np.testing.assert_allclose(pooled(x), [isotonic_regression(r) for r in x], atol=1e-12)

def test_it_follows_a_market_that_has_changed():
    data = rising(2000)
    paths, p0, decided, ends, target = later(data)
    inside = {c.kind: (normal_scores(c.apply(paths, p0, decided, ends, target), target, p0)[800:].abs() < ndtri(.9)).double().mean().item()
              for c in (fitted(data, SplitConformal), fitted(data, gamma=.03))}
    assert inside["split"] < .65 and inside["adaptive"] == pytest.approx(.8, abs=.05)

@pytest.mark.parametrize("shift", [False, True])
def test_coverage_in_the_long_run_whatever_the_market_does(shift):
    "The bound of Gibbs and Candès, by a market that does its worst: calm and storm in turns."
    n, gamma = 2000, .05
    vol = torch.where((torch.arange(n) // 250) % 2 == 0, .004, .03).double()
    target = 100*(vol[:, None]*torch.randn(n, 1, generator=seeded(), dtype=F64)).exp()
    paths, p0, t = walks(n, 60, 1, 1), start(n), np.arange(n)
    c = AdaptiveConformal(gamma, shift=shift, smooth=0, shrink=False).fit(paths[:200], target[:200], p0[:200], t[:200], t[:200] + 1)
    late = slice(201, None)
    s = normal_scores(c.apply(paths[late], p0[late], t[late], t[late] + 1, target[late]), target[late], p0[late]).numpy()
    T = len(s)
    bound = (1.5 + 2*gamma)/gamma/T                             # a level may have to go a quarter beyond (0, 1)
    for p, z in zip(LEVELS, Z):
        if shift: assert abs((s <= z).mean() - p) < bound
        elif p > .5: assert abs((np.abs(s) <= z).mean() - (2*p - 1)) < 2*bound

def test_assets_at_one_time_count_once():
    "Two equal assets move the levels as far as one."
    data = rising()
    paths, p0, decided, ends, target = later(data, 0, 80)
    one = fitted(data).apply(paths, p0, decided, ends, target)
    twice = lambda v: np.concatenate([v, v]) if isinstance(v, np.ndarray) else torch.cat([v, v])
    two = fitted(data).apply(*(twice(v) for v in (paths, p0, decided, ends, target)))
    torch.testing.assert_close(two[:80], one, rtol=1e-12, atol=0); torch.testing.assert_close(two[80:], one, rtol=1e-12, atol=0)

def test_a_stride_does_not_change_the_speed():
    "Twelve decisions a horizon teach no more than one: the outcome is the same."
    def moved(stride):
        data = stream(1200, 12, 5, torch.full((1212,), .02, dtype=F64))        # twice as wild as said
        c = AdaptiveConformal(.02, shrink=False, min_windows=2)
        c.fit(*(v[::stride] for v in cut(data, 0, 300)))
        c.table = np.tile(Z, (12, 1))                                           # begin with nothing known
        paths, target, p0, decided, ends = (v[320::stride] for v in data)
        c.apply(paths, p0, decided, ends, target); c.learn(10**9)
        return (c.working[-1, -1] - c.working[-1, 0]) - (LEVELS[-1] - LEVELS[0])
    often = moved(1)
    assert often == pytest.approx(moved(12), rel=.35)
    assert often > .02
