"""Scores and losses of impulse responses, against loops in numpy and scipy, known numbers, and what must not change them."""
import math
from statistics import NormalDist

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from scipy import signal, stats

from synthlab.metrics.responses import (SCHEMES, band_coverage, conformal_factor, error_table, gap_metric, half_width, hf_ratio, horizon_weights, iae, nrmse,
    overshoot_ratio, peak_time, peak_time_error, peak_value, peak_value_error, response_scale, sign_at_impact, sign_flip_count, summarise)
from synthlab.trainers.response_losses import CombinedLoss, MultiHorizonLoss, ResponseObjective, SmoothnessRegularization, masked_mean, spread_loss
from synthlab.trainers.steps import TensorBatches, TrainingConfig
from synthlab.trainers.trainer import Trainer

quick = settings(derandomize=True, deadline=None, max_examples=40)
seeds = st.integers(0, 2**32 - 1)
h = np.arange(41.)
column = lambda y: np.asarray(y, float)[:, None]

def draw(seed, n=4, S=3, H=12, V=3):
    "Two sets of responses and a unit, of very different sizes."
    rng = np.random.default_rng(seed)
    size = 10.**rng.uniform(-4, 3, (S, V))
    shape = (n, S, H + 1, V)
    return *(rng.standard_normal(shape)*size[:, None] for _ in range(2)), size

# known numbers

@pytest.mark.parametrize("scheme,at,expected", [
    ("uniform", 0, .024390244), ("uniform", 40, .024390244), ("exponential", 0, .055976735), ("exponential", 1, .053246718), ("exponential", 40, .007575627),
    ("early", 0, .043478261), ("early", 4, .043478261), ("early", 5, .021739130), ("impact", 0, .3), ("impact", 1, .0175), ("impact", 40, .0175)])
def test_weights_of_horizons(scheme, at, expected): assert horizon_weights(40, scheme)[at].item() == pytest.approx(expected, abs=1e-9)

@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("H", [0, 1, 4, 5, 40, 200])
def test_weights_sum_to_one(scheme, H):
    w = horizon_weights(H, scheme)
    assert w.shape == (H + 1,) and w.dtype == torch.float64 and (w > 0).all() and w.sum().item() == pytest.approx(1, abs=1e-12)

@pytest.mark.parametrize("scheme,expected", [("uniform", .156173762), ("exponential", .236594030), ("early", .208514414), ("impact", math.sqrt(.3))])
def test_nrmse_of_an_error_at_impact(scheme, expected):
    assert nrmse(column(h == 0), column(0*h), 1., horizon_weights(40, scheme)).item() == pytest.approx(expected, abs=1e-9)

def test_iae_of_a_constant_error(): assert iae(np.ones((11, 1)), np.zeros((11, 1))).item() == 11

@pytest.mark.parametrize("u,s,expected", [(.4, .5, -20), (.6, .5, 20), (.3, .2, 50)])
def test_gap(u, s, expected): assert gap_metric(u, s).item() == pytest.approx(expected, abs=1e-9)

WAVES = [("sin", 4, .9974701, 20), ("cos", 5, .97005301, 15), ("sin", 3, .98522595, 26)]

@pytest.mark.parametrize("kind,period,ratio,flips", WAVES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_waves(kind, period, ratio, flips, dtype):
    y = torch.as_tensor(column(getattr(np, kind)(2*np.pi*h/period)), dtype=dtype)
    assert hf_ratio(y).item() == pytest.approx(ratio, abs=1e-8 if dtype == torch.float64 else 1e-5)
    assert sign_flip_count(y, 1e-9 if dtype == torch.float64 else 1e-5).item() == flips

@pytest.mark.parametrize("rate,ratio", [(.1, .03824244), (.15, .06534456), (.2, .09248856)])
def test_decay(rate, ratio):
    y = column(np.exp(-rate*h))
    assert hf_ratio(y).item() == pytest.approx(ratio, abs=1e-8)
    assert sign_flip_count(y).item() == 0 and overshoot_ratio(y).item() == 1 and peak_time(y).item() == 0

def test_constant_and_zero():
    assert hf_ratio(np.ones((41, 1))).item() == pytest.approx(0, abs=1e-12) and hf_ratio(np.zeros((41, 1))).item() == 0
    assert overshoot_ratio(np.zeros((41, 1))).item() == 1 and sign_flip_count(np.zeros((41, 1))).item() == 0

@pytest.mark.parametrize("a,b,expected", [(1, 1, 1), (1, -1, 0), (0, 0, 1), (0, 1, 0)])
def test_signs(a, b, expected): assert sign_at_impact(np.full((41, 2), a), np.full((41, 2), b)).tolist() == [expected]*2

def test_a_hump_has_a_bounded_overshoot(): assert overshoot_ratio(column(h*np.exp(-h/6))).item() == pytest.approx(100)

def test_smoothness_numbers():
    zigzag = torch.as_tensor(np.tile(column((-1)**h), (2, 1, 3)))
    assert SmoothnessRegularization(.01)(zigzag).item() == pytest.approx(.16)
    assert SmoothnessRegularization(.03)(zigzag).item() == pytest.approx(.48)
    for flat in (0*zigzag + 3, torch.as_tensor(np.tile(column(2*h - 5), (2, 1, 3)))): assert SmoothnessRegularization()(flat).item() == pytest.approx(0, abs=1e-12)

def test_variable_weights(): assert MultiHorizonLoss(per_variable_weights=[2, 1, 1]).variable_weights.tolist() == [1.5, .75, .75]

# loops

def spectrum(y, cutoff):
    freq, power = signal.periodogram(y, detrend=False, scaling="spectrum")
    power = power.copy(); power[1:] /= 2          # the periodogram folds negative frequencies in
    if len(y) % 2 == 0: power[-1] *= 2            # but this one has no twin
    total = power.sum()
    return power[freq*cutoff >= 1 - 1e-12].sum()/total if total else 0.

def flips(y):
    steps = [np.sign(b - a) for a, b in zip(y, y[1:]) if abs(b - a) > 1e-9*abs(y).max()]
    return sum(a != b for a, b in zip(steps, steps[1:]))

@settings(quick, max_examples=12)
@given(seeds, st.integers(2, 20), st.sampled_from(SCHEMES))
def test_every_score_against_a_loop(seed, H, scheme):
    pred, true, size = draw(seed, H=H)
    w = horizon_weights(H, scheme).numpy()
    got = {f.__name__: f(pred, true) for f in (iae, peak_time_error)} | {f.__name__: f(pred) for f in (hf_ratio, overshoot_ratio, sign_flip_count, peak_time, peak_value)}
    got |= dict(nrmse=nrmse(pred, true, size, w), sign=sign_at_impact(pred, true, 3, .1*size), height=peak_value_error(pred, true, size))
    for i, s, v in np.ndindex(*pred.shape[:2], 3):
        p, t, unit = pred[i, s, :, v], true[i, s, :, v], size[s, v]
        top, at = max((abs(x), -k) for k, x in enumerate(p)); at = -at
        other = max(range(H + 1), key=lambda k: abs(t[k]))
        expected = dict(nrmse=math.sqrt(sum(w[k]*(p[k] - t[k])**2 for k in range(H + 1)))/unit, iae=sum(abs(p - t)), hf_ratio=spectrum(p, 6),
            peak_time=at, peak_value=p[at], peak_time_error=abs(at - other), height=abs(p[at] - t[other])/unit, sign_flip_count=flips(p),
            overshoot_ratio=top/max(abs(p[0]), .01*top),
            sign=np.mean([p[k]*t[k] > 0 or max(abs(p[k]), abs(t[k])) <= .1*unit for k in range(3)]))
        for name, value in expected.items(): assert got[name][i, s, v].item() == pytest.approx(value, rel=1e-9, abs=1e-12), name

def test_wave_of_exactly_the_cutoff_is_fast():
    for n in (12, 36, 60): assert hf_ratio(column(np.sin(2*np.pi*np.arange(n)/6))).item() == pytest.approx(1)

@quick
@given(seeds)
def test_scale_is_the_root_mean_square_of_training_draws(seed):
    y, other, _ = draw(seed)
    got = response_scale(y, floor=0.)
    assert np.allclose(got, [[np.linalg.norm(y[:, s, :, v])/math.sqrt(y[:, s, :, v].size) for v in range(3)] for s in range(3)], rtol=1e-12)
    assert np.allclose(nrmse(0*y, y, got).square().mean(0), 1)
    assert np.allclose(response_scale(y[::-1].copy(), floor=0.), got, rtol=1e-12)

def test_scale_of_what_does_not_move():
    y = np.zeros((5, 2, 9, 3)); y[:, 0, :, 0] = 2; y[:, 0, :, 1] = 1e-9
    assert response_scale(y).tolist() == [[2, 2, 2], [1, 1, 1]]
    assert np.allclose(response_scale(1e-5*y)[0], 2e-5)

# what changes nothing

@quick
@given(seeds, st.floats(1e-6, 1e6))
def test_units_do_not_matter(seed, c):
    pred, true, size = draw(seed)
    for of in (lambda k: nrmse(k*pred, k*true, k*size), lambda k: sign_at_impact(k*pred, k*true, 3, k*.1*size), lambda k: peak_time(k*pred), lambda k: hf_ratio(k*pred),
               lambda k: overshoot_ratio(k*pred), lambda k: sign_flip_count(k*pred), lambda k: peak_value_error(k*pred, k*true, k*size), lambda k: response_scale(k*true)/k):
        assert torch.allclose(of(c).double(), of(1.).double(), rtol=1e-9, atol=1e-12)

@quick
@given(seeds)
def test_order_of_samples_does_not_matter(seed):
    pred, true, size = draw(seed, n=7)
    order = np.random.default_rng(seed).permutation(7)
    one, two = nrmse(pred, true, size), nrmse(pred[order], true[order], size)
    assert torch.equal(two, one[order])
    for a, b in zip(summarise(one).values(), summarise(two).values()): assert np.allclose(a, b, rtol=1e-12)

@quick
@given(seeds, st.integers(0, 3), st.integers(0, 2), st.integers(0, 12), st.integers(0, 2))
def test_nrmse_is_zero_exactly_where_equal(seed, i, s, k, v):
    _, true, size = draw(seed)
    assert (nrmse(true, true, size) == 0).all()
    pred = true.copy(); pred[i, s, k, v] += .1*size[s, v]
    wrong = nrmse(pred, true, size) > 0
    assert wrong.sum() == 1 and wrong[i, s, v]

@quick
@given(seeds, st.integers(0, 15))
def test_peak_time_is_a_horizon(seed, H):
    y, _, _ = draw(seed, H=H)
    at = peak_time(y)
    assert at.dtype == torch.int64 and (at >= 0).all() and (at <= H).all()
    assert np.allclose(peak_value(y).abs(), abs(y).max(-2)) and torch.equal(peak_time(-y), at)

def test_inputs_of_any_kind():
    pred, true, size = draw(0)
    one = nrmse(pred, true, size)
    assert torch.equal(nrmse(torch.as_tensor(pred), true, torch.as_tensor(size)), one)
    assert torch.allclose(nrmse(pred.astype("float32"), true.astype("float32"), size).double(), one, rtol=1e-5)
    assert nrmse(torch.ones(3, 2).bfloat16(), torch.zeros(3, 2).bfloat16(), 1.).dtype == torch.float32
    assert nrmse(np.ones((3, 2), int), np.zeros((3, 2), int), 2).tolist() == [.5, .5]

def test_units_are_read_by_position():
    "A Series whose labels run down is the numbers that it holds."
    pred, true, unit = np.arange(12.).reshape(4, 3), np.ones((4, 3)), np.array([1., 2., 4.])
    label = pd.Series(unit, index=[2, 1, 0])
    for score in (nrmse, peak_value_error, lambda p, t, u: sign_at_impact(p, t, 3, u), lambda p, t, u: band_coverage(p, u, t, [.5, .9])):
        assert torch.equal(score(pred, true, label), score(pred, true, unit))
    assert torch.equal(gap_metric(label, unit), gap_metric(unit, unit)) and half_width(pd.Series([.5, .9], index=[1, 0])).tolist() == half_width([.5, .9]).tolist()

@pytest.mark.parametrize("call,says", [
    (lambda: nrmse(np.ones((5, 2, 41, 3)), np.ones((5, 41, 3)), 1.), "give the same responses"),
    (lambda: nrmse(np.ones((41, 3)), np.ones((41, 3)), [1., 0., 1.]), "scale must be > 0"),
    (lambda: nrmse(np.ones((41, 3)), np.ones((41, 3)), 1., np.ones(40)), "give 41 numbers"),
    (lambda: nrmse(np.ones(41), np.ones(41), 1.), r"\(…, H\+1, V\)"),
    (lambda: sign_at_impact(np.ones((2, 3)), np.ones((2, 3))), "use 1 to 2"),
    (lambda: horizon_weights(-1), "0 or more"), (lambda: horizon_weights(4, tau=0), "tau"), (lambda: horizon_weights(4, "ipmact"), "did you mean impact"),
    (lambda: hf_ratio(np.ones((4, 1)), 1), "2 quarters"), (lambda: overshoot_ratio(np.ones((4, 1)), 0), "share of the peak"),
    (lambda: gap_metric(np.ones(4), np.ones((4, 1))), "same errors"), (lambda: gap_metric([-1.], [1.]), "0 or more"), (lambda: band_coverage(np.ones((4, 3)), np.ones(4), np.ones((4, 3)), [.5]), "spread has the shape"),
    (lambda: band_coverage(np.ones(4), np.ones((4, 1)), np.ones(4), [.5]), "spread has the shape"), (lambda: band_coverage([1.], [0.], [1.], [.5]), "spread must be > 0"),
    (lambda: peak_value_error(np.ones((41, 3)), np.ones((41, 3)), 0.), "scale must be > 0"), (lambda: peak_value_error(np.ones((41, 3)), np.ones((41, 3)), [1., -1., 1.]), "scale must be > 0"),
    (lambda: nrmse(np.ones((41, 3)), np.ones((41, 3)), np.ones((2, 3))), "scale has the shape"), (lambda: sign_at_impact(np.ones((41, 3)), np.ones((41, 3)), 3, -1.), "tolerance must be"),
    (lambda: summarise([]), "one or more samples"), (lambda: conformal_factor([], .9), "one or more"), (lambda: conformal_factor([1., math.nan], .5), "none NaN"),
    (lambda: conformal_factor([1.], 1.), "between 0 and 1"), (lambda: band_coverage([1.], 1., [1., 2.], [.5]), "same responses")])
def test_wrong_input_is_refused_in_a_sentence(call, says):
    with pytest.raises(ValueError, match=says): call()

# tables and bands

def test_table_against_pandas():
    rng = np.random.default_rng(3)
    errors = {("nk", "val"): rng.random((50, 3, 3)), ("nk", "test"): rng.random((20, 3, 3)), ("rbc", "val"): rng.random((10, 1, 3))}
    table = error_table(errors, dict(nk=["monetary", "demand", "cost_push"], rbc=["technology"]))
    assert len(table) == 10 + 10 + 4 and not table.isna().any().any()
    row = table.set_index(["world", "split", "shock", "variable"]).loc
    e = errors["nk", "val"]
    for i, s in enumerate(["monetary", "demand", "cost_push"]):
        for j, v in enumerate(["output", "inflation", "rate"]):
            x = np.sort(e[:, i, j])
            at = .99*49; low = int(at)
            expected = [50, x.mean(), (x[24] + x[25])/2, x[low] + (at - low)*(x[low + 1] - x[low]), x[-1]]
            assert row["nk", "val", s, v].tolist() == pytest.approx(expected)
    assert row["rbc", "val", "all", "all"]["max"] == pytest.approx(max(x.mean() for x in errors["rbc", "val"]))

@pytest.mark.parametrize("level", [.1, .5, .9, .99])
def test_half_widths(level):
    assert half_width(level).item() == pytest.approx(NormalDist().inv_cdf((1 + level)/2), rel=1e-9)
    assert half_width(level, "laplace").item() == pytest.approx(stats.laplace.ppf((1 + level)/2), rel=1e-9)

@pytest.mark.parametrize("kind,law", [("gaussian", stats.norm), ("laplace", stats.laplace)])
def test_honest_bands_keep_their_word(kind, law):
    errors = law.rvs(size=(400, 41, 3), random_state=0)*2.5
    levels = [.1, .5, .9, .99]
    assert np.allclose(band_coverage(errors, np.full((400, 41, 3), 2.5), 0*errors, levels, kind), levels, atol=.01)
    assert (band_coverage(errors, 1., 0*errors, levels, kind) < torch.tensor(levels)).all()

@quick
@given(seeds, st.integers(1, 60), st.sampled_from([.05, .07, .5, .9, .95]))
def test_conformal_factor_is_an_order_statistic(seed, n, level):
    scores = np.random.default_rng(seed).random((n, 2))
    k = next((k for k in range(1, n + 1) if k/(n + 1) >= level - 1e-12), None)
    expected = [math.inf]*2 if k is None else np.sort(scores, 0)[k - 1]
    assert conformal_factor(scores, level).tolist() == pytest.approx(list(expected))

def test_conformal_rank_is_not_raised_by_rounding():
    assert 100*.07 > 7 and conformal_factor(np.arange(1., 100), .07).item() == 7

@pytest.mark.parametrize("level", [.5, .9])
def test_conformal_bands_hold_a_new_draw(level):
    "Over many calibrations of 19 draws the twentieth lies inside with exactly the promised probability, since 20·level is whole."
    x = np.random.default_rng(1).standard_cauchy((20, 40000))
    inside = (torch.as_tensor(abs(x[-1])) <= conformal_factor(abs(x[:-1]), level)).double().mean().item()
    assert inside == pytest.approx(level, abs=4*math.sqrt(level*(1 - level)/40000))

# losses

@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("loss_fn", ["mse", "mae"])
@pytest.mark.parametrize("H", [2, 12, 40])
def test_an_error_of_one_costs_one(scheme, loss_fn, H):
    loss, y = MultiHorizonLoss(H, scheme, [3, 1, .5], loss_fn=loss_fn), torch.randn(2, 3, H + 1, 3)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    for pred, true, m in ((y + 1, y, None), (y[:, 0] - 1, y[:, 0], None), (y + 1, y, mask), (y[0] - 1, y[0], mask[0])):
        assert loss(pred, true, m).item() == pytest.approx(1, rel=1e-5)
    assert loss(y, y).item() == 0

@quick
@given(seeds, st.sampled_from(SCHEMES), st.sampled_from(["mse", "mae"]), st.integers(0, 4))
def test_padding_does_not_exist(seed, scheme, loss_fn, extra):
    g = torch.Generator().manual_seed(seed)
    pred, true = (torch.randn(3, 2, 13, 3, generator=g, dtype=torch.float64) for _ in range(2))
    loss = CombinedLoss(12, scheme, [2, 1, 1], loss_fn=loss_fn, lambda_smooth=.1)
    pad = lambda y, what: torch.cat([y, torch.full((3, extra, 13, 3), what, dtype=y.dtype)], 1)
    mask = torch.arange(2 + extra).expand(3, -1) < 2
    for what in (0., 1e30, math.nan, math.inf):
        wide = pad(pred, what).requires_grad_()
        got, plain = loss(wide, pad(true, 1.), mask), loss(pred, true)
        assert {k: v.item() for k, v in got.items()} == pytest.approx({k: v.item() for k, v in plain.items()}, rel=1e-12)
        got["loss"].backward()
        narrow = pred.clone().requires_grad_(); loss(narrow, true)["loss"].backward()
        assert (wide.grad[:, 2:] == 0).all() and torch.allclose(wide.grad[:, :2], narrow.grad, rtol=1e-12)

@quick
@given(seeds, st.sampled_from(SCHEMES), st.sampled_from(["mse", "mae"]))
def test_masked_loss_against_a_loop(seed, scheme, loss_fn):
    rng = np.random.default_rng(seed)
    pred, true = rng.standard_normal((2, 4, 3, 9, 3))
    mask, u = rng.random((4, 3)) < .6, rng.uniform(.5, 2, 3); mask[0, 0] = True
    w, power = horizon_weights(8, scheme).numpy(), 2 if loss_fn == "mse" else 1
    total, rough = [], []
    for i, s in np.argwhere(mask):
        total.append(sum(w[k]*u[v]/u.sum()*abs(pred[i, s, k, v] - true[i, s, k, v])**power for k in range(9) for v in range(3)))
        rough.append(np.mean([(pred[i, s, k + 1, v] - 2*pred[i, s, k, v] + pred[i, s, k - 1, v])**2 for k in range(1, 8) for v in range(3)]))
    got = CombinedLoss(8, scheme, u.tolist(), loss_fn=loss_fn, lambda_smooth=.02)(*(torch.as_tensor(x) for x in (pred, true, mask)))
    assert {k: v.item() for k, v in got.items()} == pytest.approx(
        dict(loss=np.mean(total) + .02*np.mean(rough), horizon_loss=np.mean(total), smoothness_loss=.02*np.mean(rough)), rel=1e-5)

@pytest.mark.parametrize("call,says", [
    (lambda: MultiHorizonLoss(20)(torch.ones(2, 41, 3), torch.ones(2, 41, 3)), r"takes \(B, 21, 3\)"),
    (lambda: MultiHorizonLoss()(torch.ones(2, 41, 2), torch.ones(2, 41, 2)), "shape \\(2, 41, 2\\)"),
    (lambda: MultiHorizonLoss()(torch.ones(41, 3), torch.ones(41, 3)), "shape \\(41, 3\\)"),
    (lambda: MultiHorizonLoss()(torch.ones(2, 3, 41, 3), torch.ones(2, 41, 3)), "give the same responses"),
    (lambda: MultiHorizonLoss()(torch.ones(2, 41, 3), torch.ones(2, 41, 3), torch.ones(2, 3).bool()), "a bool for each response"),
    (lambda: MultiHorizonLoss()(torch.ones(2, 41, 3), torch.ones(2, 41, 3), torch.ones(2)), "a bool for each response"),
    (lambda: SmoothnessRegularization(-1), "weight ≥ 0"), (lambda: MultiHorizonLoss(loss_fn="huber"), "there are mse, mae, rmse"),
    (lambda: masked_mean(torch.ones(2), torch.ones(3).bool()), "a bool for each response")])
def test_wrong_losses_are_refused_in_a_sentence(call, says):
    with pytest.raises(ValueError, match=says): call()

def test_losses_do_not_enter_checkpoints(): assert not CombinedLoss().state_dict() and not list(CombinedLoss().parameters())

# the objective

class Free(torch.nn.Module):
    "Answers with a number of its own for every response, in units of a scale that depends on the world."
    def __init__(self, n, S=3, H=6, error_bars=False):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.y = torch.nn.Parameter(torch.randn(n, S, H + 1, 3, generator=g))
        self.s = torch.nn.Parameter(torch.zeros(n, S, H + 1, 3)) if error_bars else None
    def scale_of(self, batch): return 10.**(batch["world"].float() - 1)[:, None, None, None]*torch.ones(1, self.y.shape[1], 1, 3)
    def predict(self, batch):
        y = self.y[batch["row"]]
        return y if self.s is None else (y, self.s[batch["row"]])

def batch_of(n=11, S=3, H=6, seed=1):
    g = torch.Generator().manual_seed(seed)
    world = torch.arange(n) % 3
    mask = torch.arange(S) < (world[:, None] + 1)
    irf = torch.randn(n, S, H + 1, 3, generator=g)*10.**(world.float() - 1)[:, None, None, None]
    return dict(row=torch.arange(n), world=world, irf=torch.where(mask[..., None, None], irf, math.nan), irf_mask=mask)

def part(batch, rows): return {k: v[rows] for k, v in batch.items()}

@pytest.mark.parametrize("error_bars", [False, True])
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_objective_by_hand(loss, error_bars):
    model, batch = Free(11, error_bars=error_bars), batch_of()
    objective = ResponseObjective(model, loss, "exponential", smoothness=.1, per_variable_weights=[2, 1, 1])
    got = objective.evaluate(batch, None)
    w, u = horizon_weights(6, "exponential").numpy(), np.array([.5, .25, .25])
    for i in range(11):
        S, unit, y = i % 3 + 1, 10.**(i % 3 - 1), model.y[i].detach().double().numpy()
        e = y[:S] - batch["irf"][i, :S].double().numpy()/unit
        expected = np.mean([[math.sqrt(np.mean(e[s, :, v]**2)) for v in range(3)] for s in range(S)])
        cost = np.mean([w @ abs(e[s])**(2 if loss == "mse" else 1) @ u for s in range(S)]) + .1*np.mean(np.diff(y[:S], 2, axis=1)**2)
        if error_bars: cost += np.mean(-stats.laplace.logpdf(e))
        assert got["nrmse"][i].item() == pytest.approx(expected, rel=1e-5) and got["loss"][i].item() == pytest.approx(cost, rel=1e-5)
        if error_bars: assert got["covered_90"][i].item() == pytest.approx(np.mean(abs(e) <= math.log(10)), rel=1e-5)
    assert objective.loss(batch, "model", None)[0].item() == pytest.approx(got["loss"].mean().item(), rel=1e-6)

@quick
@given(st.integers(1, 10))
def test_a_batch_costs_what_its_parts_cost(cut):
    model, batch = Free(11, error_bars=True), batch_of()
    objective = ResponseObjective(model, smoothness=.01)
    def gradient(*parts):
        model.zero_grad()
        for rows, share in parts: (objective.loss(part(batch, rows), "model", None)[0]*share).backward()
        return torch.cat([model.y.grad.flatten(), model.s.grad.flatten()])
    whole = gradient((slice(None), 1.))
    assert torch.allclose(gradient((slice(0, cut), cut/11), (slice(cut, None), 1 - cut/11)), whole, atol=1e-7) and whole.abs().max() > 0

def test_padding_and_units_do_not_reach_the_objective():
    batch = batch_of()
    wide = batch | dict(irf=torch.cat([batch["irf"], torch.full((11, 2, 7, 3), math.nan)], 1), irf_mask=torch.cat([batch["irf_mask"], torch.zeros(11, 2).bool()], 1))
    one, two = Free(11), Free(11, S=5)
    with torch.no_grad(): two.y[:, :3] = one.y; two.y[:, 3:] = math.nan
    a, b = (ResponseObjective(m).evaluate(x, None) for m, x in ((one, batch), (two, wide)))
    assert all(torch.allclose(a[k], b[k], rtol=1e-6) for k in ("nrmse", "loss"))

def test_nan_in_the_padding_of_a_prediction_has_no_gradient():
    model, batch = Free(11, error_bars=True), batch_of()
    with torch.no_grad(): model.y[~batch["irf_mask"]] = math.nan
    ResponseObjective(model, smoothness=.1).loss(batch, "model", None)[0].backward()
    for p in (model.y, model.s): assert p.grad.isfinite().all() and (p.grad[~batch["irf_mask"]] == 0).all()

def test_error_bars_leave_the_mean_alone():
    grads = []
    for error_bars in (False, True):
        model = Free(11, error_bars=error_bars)
        ResponseObjective(model).loss(batch_of(), "model", None)[0].backward()
        grads.append(model.y.grad)
    assert torch.equal(*grads) and (model.s.grad[batch_of()["irf_mask"]] != 0).all()

@pytest.mark.parametrize("likelihood,law", [("laplace", stats.laplace), ("gaussian", stats.norm)])
def test_spread_loss_is_the_likelihood(likelihood, law):
    e, s = np.random.default_rng(0).standard_normal((2, 50))
    assert np.allclose(spread_loss(torch.as_tensor(e), torch.as_tensor(s), likelihood), -law.logpdf(e, scale=np.exp(s)))

def test_trainer_learns_every_response():
    data = batch_of(16)
    trainer = Trainer(ResponseObjective(Free(16)), TrainingConfig(lr=.2, epochs=30, weight_decay=0., grad_clip=0.), progress=False)
    rows = trainer.fit(TensorBatches(data, 8), TensorBatches(data, 7, shuffle=False))
    assert rows[0]["val_nrmse"] > 1 and rows[-1]["val_nrmse"] < .15
    model = trainer.model
    with torch.no_grad(): exact = ResponseObjective(model).evaluate(data, None)["nrmse"].double().mean().item()
    assert rows[-1]["val_nrmse"] == pytest.approx(exact, rel=1e-6)       # batches of seven and two count by their samples

def test_low_precision_is_for_the_network_alone():
    objective, batch = ResponseObjective(Free(11, error_bars=True), smoothness=.1), batch_of()
    exact = objective.evaluate(batch, None)
    with torch.autocast("cpu", torch.bfloat16): low = objective.evaluate(batch, None)
    assert all(torch.equal(exact[k], low[k]) for k in exact)

def test_model_of_other_horizons_is_refused():
    with pytest.raises(ValueError, match="horizons must agree"): ResponseObjective(Free(11, H=5)).loss(batch_of(), "model", None)


def test_the_root_is_the_score_itself():
    "loss_fn=rmse is the NRMSE of each response, mean over variables, weights of horizons included; its gradient at no error is finite."
    pred, true = torch.randn(5, 2, 41, 3, dtype=torch.float64), torch.randn(5, 2, 41, 3, dtype=torch.float64)
    for scheme in ("uniform", "exponential", "impact"):
        expected = nrmse(pred, true, 1., horizon_weights(40, scheme), per_variable=False)
        assert torch.allclose(MultiHorizonLoss(weight_scheme=scheme, loss_fn="rmse").each(pred, true), expected, atol=1e-6)
    same = true.clone().requires_grad_()
    MultiHorizonLoss(loss_fn="rmse")(same, true).backward()
    assert same.grad.isfinite().all()
