"The subnet's scoring against its published numbers, an independent loop and what must hold for any input."
import copy, json, math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

from synthlab.metrics.paths import (ASSET_COEFFICIENTS, HIGH_FREQUENCY, HOURLY_SIGMA, LOW_FREQUENCY, CRPSMultiIntervalScorer, combine_weights,
    filter_valid_intervals, format_response, generate_adaptive_intervals, get_prompt, interval_name, interval_steps, label_observed_blocks,
    multi_interval_crps, price_changes, prompt_for, reference_paths, round_significant, round_time_to_minutes, scored_increments,
    subnet_crps, subnet_prompt_scores, subnet_smoothed_scores, subnet_softmax, subnet_weights, validate_responses)

REFERENCE = Path(__file__).parents[2]/"shared/reference"
property_test = settings(deadline=None, derandomize=True, max_examples=60)
LOW, HIGH, nan = LOW_FREQUENCY.intervals, HIGH_FREQUENCY.intervals, math.nan

def reference(name):
    path = REFERENCE/name
    if not path.exists(): pytest.skip(f"the reference numbers are not beside this checkout: {path}")
    if path.suffix == ".json": return json.loads(path.read_text())
    with np.load(path, allow_pickle=False) as z: return {k: z[k] for k in z.files}

def same(a, b, rtol=1e-9, atol=0.): np.testing.assert_allclose(np.asarray(a, dtype=float), np.asarray(b, dtype=float), rtol=rtol, atol=atol)

def walks(*shape, seed=0, sigma=.001):
    "Random prices from 100 on, step 0 included."
    z = np.random.default_rng(seed).normal(0, sigma, shape)
    z[..., 0] = 0
    return 100*np.exp(z.cumsum(-1))

def slow_crps(x, y):
    "Plain CRPS from all pairs, members that are NaN left out."
    x = x[~np.isnan(x)]
    return np.abs(x - y).mean() - np.abs(x[:, None] - x).sum()/(2*len(x)**2) if len(x) else nan

def slow_score(sims, real, time_increment, intervals):
    "The rules once more, one increment after another."
    if (sims == 0).any(): return -1., {}
    found = {}
    for name, seconds in intervals.items():
        k = int(seconds/time_increment)
        if name.endswith("_abs"):
            while len(real[::k]) == 1 and k > 1: k -= 1
        columns = list(range(0, len(real), k))
        if name.endswith("_gaps"): columns = columns[:2]
        for a, b in zip(columns, columns[1:]):
            total = found.setdefault(name, [])
            if name.endswith("_abs"):
                if not math.isnan(real[b]): total.append(slow_crps(sims[:, b], real[b])/real[-1]*1e4)
            elif not math.isnan(real[a] + real[b]):
                total.append(slow_crps((sims[:, b] - sims[:, a])/sims[:, a]*1e4, (real[b] - real[a])/real[a]*1e4))
    return sum(sum(v) for v in found.values()), found

# ---- the validator's numbers

CASES = ["low_24h_300s", "low_24h_300s_gaps", "low_24h_300s_last_missing", "low_24h_300s_first_missing", "high_1h_60s", "high_1h_60s_gaps",
         "legacy_1h_300s_13pts", "legacy_1h_300s_last_missing", "abs_3h_last_missing", "abs_3h", "legacy_3h_300s", "legacy_60s_long", "single_path",
         "two_points", "zero_price", "all_missing", "increment_3600_24h"]

@pytest.mark.parametrize("case", CASES)
def test_reference_scores(case):
    "Totals, intervals and every row of the validator's own table."
    z = reference("subnet_crps.npz")
    get = lambda key: z[f"{case}__{key}"]
    total, detail = subnet_crps(get("sim"), get("real"), float(get("time_increment")), json.loads(str(get("intervals"))))
    same(total, get("total"))
    if total == -1: return
    sums, rows = detail[detail.Increment == "Total"], detail[detail.Increment != "Total"]
    expected = json.loads(str(get("per_interval")))
    assert set(sums.Interval) == set(expected)
    same(sums.CRPS, [expected[name] for name in sums.Interval])
    if not len(rows): assert list(get("detail_interval")) == [""]; return       # an empty table is stored as one empty row
    assert list(rows.Interval) == list(get("detail_interval")) and list(rows.Increment) == list(get("detail_increment"))
    same(rows.CRPS, get("detail_crps"))

def test_every_reference_case_is_used():
    assert set(reference("subnet_crps.npz")["names"]) == set(CASES)

def test_reference_scores_of_a_batch():
    "The differentiable form agrees with the validator wherever no price is missing."
    z = reference("subnet_crps.npz")
    for case in CASES:
        sim, real, dt = z[f"{case}__sim"], z[f"{case}__real"], float(z[f"{case}__time_increment"])
        if np.isnan(real).any() or (sim == 0).any(): continue
        steps = {name: interval_steps(s, dt) for name, s in json.loads(str(z[f"{case}__intervals"])).items()}
        same(multi_interval_crps(torch.from_numpy(sim)[None], torch.from_numpy(real)[None], steps), [z[f"{case}__total"]])

@pytest.mark.parametrize("case", range(6))
def test_reference_prompt_scores(case):
    c = reference("subnet_prompt_scores.json")[case]
    scores, p90, low = subnet_prompt_scores(c["total_crps"])
    same(scores, c["prompt_scores"]); same([p90, low], [c["percentile90"], c["lowest"]])
    same(subnet_softmax(scores, c["softmax_beta"]), c["softmax_weights"], atol=1e-300)

SIMS, HOLES = [50., 60, 70, 80, 90, 100, 110, 120, 130], [50., 60, nan, 80, 90, nan, nan, 120, 130]
VECTORS = [
    ([[90000, 91000, 92000]]*2, [92600, 92500, 93500], 284.1200564488584),
    ([[900, 910, 920]]*2, [926, 925, 935], 284.1200564488584),
    ([[50, 60, 70]], [50, 60, 70], 0),
    ([[90000, 91000, 92000, 92500, 92600]], [92600, 92500, 92600, 92500, 93500], 479.6904902048716),
    ([[50000, 51000, 52000]], [92600, 92500, 93500], 4737.272133130346),
    ([[50000, 51000, 52000], [10000, 70000, 50000], [90000, 70000, 50000]], [105165.69445825, 105016.21888945, 105066.94377502], 13413.599141058676),
    ([SIMS], HOLES, 0),
    ([SIMS], [nan, 60, 70, nan, 90, 100, 110, 120, nan], 0),
    ([SIMS], [nan]*9, 0),
    ([[55, 64, 70, 82.5, 89.2, 100, 110, 123.5, 131.2]], HOLES, 1103.6743957796587),
    ([[55, 64, 70, 82.5, 89.2, 100, 110, 123.5, 131.2]], SIMS, 4607.816958498454),
    ([HOLES[:5] + [92, 98, 120, 130]], [55, 64, 70, 82.5, 89.2, 100, 110, 123.5, 131.2], nan),
    ([[55, 64, 70, 82.5, 89.2, 100, 110, 123, 131]], HOLES, 1061.3650577065207),
    ([[1.3031968695231796e90, .00011997788254371478, 70, 82.5, 89.2, 100, 110, 123, 131]], HOLES, 12697.728694070156),
    ([[.00011997788254371478, 0, 70, 82.5, 89.2, 100, 110, 123, 131]], HOLES, -1),
]

@pytest.mark.parametrize("sims,real,total", VECTORS)
def test_published_totals(sims, real, total):
    same(subnet_crps(np.array(sims, dtype=float), real, 300, LOW)[0], total, atol=1e-9)

def test_published_parts():
    detail = subnet_crps(VECTORS[0][0], VECTORS[0][1], 300, LOW)[1].set_index(["Interval", "Increment"]).CRPS
    same([detail["5min", "Total"], detail["24hour_abs", "Total"]], [123.69224896222737, 160.42780748663102])
    assert len(detail) == 2 + 1 + 2 + 1
    detail = subnet_crps(VECTORS[3][0], VECTORS[3][1], 300, LOW)[1].set_index(["Interval", "Increment"]).CRPS
    same([detail["5min", "Total"], detail["24hour_abs", "Total"]], [383.433805712893, 96.25668449197862])

def test_zero_price_is_invalid_in_both_prompts():
    sims = np.full((3, 61), 100.); sims[1, 40] = 0
    for prompt in LOW_FREQUENCY, HIGH_FREQUENCY: assert subnet_crps(sims, np.full(61, 100.), 60, prompt.intervals)[0] == -1

def test_gap_intervals():
    "Three equal paths to 112 against a line to 110: the gap grows with its length, and the whole hour is as published."
    real, sims = np.linspace(100, 110, 61), np.tile(np.linspace(100, 112, 61), (3, 1))
    total, detail = subnet_crps(sims, real, 60, HIGH)
    sums = detail[detail.Increment == "Total"].set_index("Interval").CRPS
    same(total, 2399.6942021479654)
    for m in range(5, 61, 5): same(sums[f"0_{m}min_gaps"], m/60*200)
    same(sums[["1min", "2min", "5min", "15min", "30min", "60min_abs"]],
         [180.499182, 180.813858, 181.761176, 184.954545, 189.84726, 181.818182], rtol=1e-8)
    counts = {name: len(end) for name, _, end, _ in scored_increments(61, {"0_10min_gaps": 10, "10min": 10})}
    assert counts == {"0_10min_gaps": 1, "10min": 6}

def test_counts_of_the_prompts():
    z = walks(2, 289), walks(2, 61)
    assert len(subnet_crps(z[0], z[0][0], 300, LOW)[1]) == 345 + 4 + 1
    assert len(subnet_crps(z[1], z[1][0], 60, HIGH)[1]) == 121 + 18 + 1

# ---- against an independent loop and properscoring

@st.composite
def prompt_cases(draw):
    points, members = draw(st.integers(2, 30)), draw(st.integers(1, 6))
    seed, holes = draw(st.integers(0, 10**6)), draw(st.lists(st.integers(0, 29), max_size=6))
    sims, real = walks(members, points, seed=seed, sigma=.1), walks(points, seed=seed + 1, sigma=.1)
    real[[h for h in holes if h < points]] = nan
    lost = draw(st.lists(st.tuples(st.integers(0, members - 1), st.integers(0, points - 1)), max_size=3))
    for i, j in lost: sims[i, j] = nan
    scale = draw(st.sampled_from([1., 1e-4, 1e90]))
    names = draw(st.lists(st.sampled_from(["5min", "10min", "15min_abs", "25min", "0_20min_gaps", "3hour", "2hour_abs"]), min_size=1, unique=True))
    seconds = {"5min": 300, "10min": 600, "15min_abs": 900, "25min": 1500, "0_20min_gaps": 1200, "3hour": 10800, "2hour_abs": 7200}
    return sims*scale, real*scale, {name: seconds[name] for name in names}

@property_test
@given(prompt_cases())
def test_any_prompt_is_scored_by_the_rules(case):
    sims, real, intervals = case
    expected, found = slow_score(sims, real, 300, intervals)
    total, detail = subnet_crps(sims, real, 300, intervals)
    same(total, expected, atol=1e-9)
    for name, values in found.items():
        rows = detail[detail.Interval == name]
        same(rows.CRPS[rows.Increment != "Total"], values, atol=1e-9)
        assert list(rows.Increment) == [*range(1, len(values) + 1), "Total"]
    assert set(detail.Interval) == {*found, "Overall"}
    other = sims*1.01
    totals, table = subnet_crps(np.stack([sims, other]), real, 300, intervals)
    same(totals, [total, subnet_crps(other, real, 300, intervals)[0]], atol=1e-9)
    assert list(table.columns) == ["Interval", "Increment", 0, 1]

def test_properscoring_agrees():
    "Members that are NaN are dropped, and one infinite member makes the score infinite, as in the package a validator calls."
    ps = pytest.importorskip("properscoring")
    sims, real = walks(20, 13), walks(13, seed=1)
    sims[3, 4:7] = nan; sims[:, 9] = nan
    total, detail = subnet_crps(sims, real, 300, {"5min": 300})
    change, happened = price_changes(sims, 1), price_changes(real, 1)
    expected = [ps.crps_ensemble(happened[t], change[:, t]) for t in range(12)]
    assert math.isnan(total) and np.isnan(expected).sum() == 2
    same(detail.CRPS[:12], expected)

def test_huge_prices_do_not_overflow():
    sims = np.array([[1e300, 1.5e300, 1.7e300], [1e-300, 1.1e-300, 1e-300], [1., 1.01, 1.]])
    expected, _ = slow_score(sims, np.array([1e300, 1.2e300, 1.3e300]), 300, {"5min": 300})
    same(subnet_crps(sims, [1e300, 1.2e300, 1.3e300], 300, {"5min": 300})[0], expected)
    assert np.isfinite(subnet_crps(np.full((1000, 3), 1.7e308), [1., 1, 1], 300, {"5min": 300})[0])
    with np.errstate(all="raise"):
        assert subnet_crps([[1e-300, 1e300], [1e-300, 1e300]], [1., 1.], 300, {"5min": 300})[0] == math.inf

def test_float64_is_kept():
    "Prices of eight digits scored in single precision would be wrong in the fourth digit of a basis point."
    sims, real = np.round(walks(40, 289)*600, 3), np.round(walks(289, seed=3)*600, 3)
    assert subnet_crps(torch.from_numpy(sims), torch.from_numpy(real), 300, LOW)[0] == subnet_crps(sims, real, 300, LOW)[0]
    with_float32 = subnet_crps(sims.astype(np.float32), real, 300, LOW)[0]
    assert 0 < abs(with_float32/subnet_crps(sims, real, 300, LOW)[0] - 1) < 1e-3

def test_many_miners_in_threads():
    "The same numbers, whatever the number of threads, and one bad miner is nobody else's trouble."
    sims, real = walks(30, 25, 61), walks(61, seed=1)
    sims[4, 2, 7], sims[9, :, 8] = 0, nan
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1); one, table = subnet_crps(sims, real, 60, HIGH)
        torch.set_num_threads(2); two, _ = subnet_crps(sims, real, 60, HIGH)
    finally: torch.set_num_threads(before)
    np.testing.assert_array_equal(one, two)
    assert one[4] == -1 and math.isnan(one[9]) and np.isfinite(np.delete(one, [4, 9])).all()
    same(one[5], subnet_crps(sims[5], real, 60, HIGH)[0])
    assert table[4].iloc[-1] == -1 and table[4].iloc[:-1].isna().all() and len(table) == 121 + 18 + 1

@pytest.mark.parametrize("sims,real,words", [
    (np.ones((3, 4)), np.ones(5), "do not fit real prices of shape (5,)"), (np.ones(4), np.ones(4), "give (N, T) or (M, N, T)"),
    (np.ones((0, 4)), np.ones(4), "hold no prices"), (np.ones((2, 0)), np.ones(0), "hold no prices"), (np.ones((2, 4)), np.ones((1, 4)), "do not fit")])
def test_wrong_shapes_are_named(sims, real, words):
    with pytest.raises(ValueError) as e: subnet_crps(sims, real, 300, LOW)
    assert words in str(e.value)

def test_interval_below_the_increment_is_named():
    with pytest.raises(ValueError, match="'5min' is shorter"): subnet_crps(np.ones((2, 4)), np.ones(4), 3600, LOW)

# ---- changes and intervals

def test_changes():
    same(price_changes([[100, 105, 110.25, 115.7625], [200, 210, 220.5, 231.525]], 1), np.full((2, 3), 500.))
    same(price_changes([100, 105, 110, 115], 1, absolute=True), [105, 110, 115])
    for k in 0, -1, 10: assert price_changes(np.ones((4, 2)), k).shape == (4, 0)
    regular, gap = (price_changes([100, 102, 105, 103, 108, 107, 112], 2, gaps=g) for g in (False, True))
    assert len(regular) == 3 and len(gap) == 1 and gap[0] == regular[0]
    assert price_changes(np.ones((3, 5)), 2, gaps=True).shape == (3, 1)
    assert np.isnan(price_changes([0., 5.], 1)).all()

@property_test
@given(st.integers(1, 40), st.integers(1, 50), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_tensor_and_array_changes_agree(points, k, absolute, gaps, seed):
    x = walks(2, points, seed=seed)
    a, b = price_changes(x, k, absolute, gaps), price_changes(torch.from_numpy(x), k, absolute, gaps)
    assert a.shape == tuple(b.shape); same(a, b)

def test_observed_blocks():
    same(label_observed_blocks([1, 2, nan, 4, nan, nan, 7, 8]), [0, 0, -1, 1, -1, -1, 2, 2])
    same(label_observed_blocks([nan]*3), [-1]*3)
    same(label_observed_blocks([nan, 1, 2, nan, 3]), [-1, 0, 0, -1, 1])
    same(label_observed_blocks([1, nan, 2, nan, 3]), [0, -1, 1, -1, 2])
    assert len(label_observed_blocks([])) == 0

def test_steps_and_filter():
    assert (interval_steps(300, 60), interval_steps(300, 3600)) == (5, 0)
    keep = lambda points, dt: list(filter_valid_intervals(LOW, points, dt))
    assert (keep(12, 60), keep(60, 60), len(keep(288, 300)), len(keep(289, 300))) == (["5min"], ["5min", "30min"], 3, 4)

@pytest.mark.parametrize("horizon,dt,seconds", [(12, 60, [72, 180, 360, 540]), (24, 60, [144, 360, 720, 1080]), (4, 60, [120, 240]), (3, 60, [90, 180]), (1, 60, [])])
def test_adaptive_seconds(horizon, dt, seconds):
    assert list(generate_adaptive_intervals(horizon, dt).values()) == seconds

@property_test
@given(st.integers(0, 600), st.sampled_from([1, 7, 60, 300, 3600]), st.integers(0, 6), st.booleans())
def test_names_tell_the_seconds(horizon, dt, few, absolute):
    "72 seconds were called one minute, and two intervals that rounded to the same name overwrote each other."
    found = generate_adaptive_intervals(horizon, dt, few, absolute)
    units = {"hour": 3600, "min": 60, "s": 1}
    for name, seconds in found.items():
        number = name.removesuffix("_abs")
        unit = next(u for u in ("hour", "min", "s") if number.endswith(u))
        assert int(number.removesuffix(unit))*units[unit] == seconds
    plain = [s for name, s in found.items() if not name.endswith("_abs")]
    assert len(set(plain)) == len(plain) and all(dt <= s <= horizon*dt for s in plain)
    assert not absolute or horizon <= 1 or found[interval_name(plain[-1]) + "_abs"] == plain[-1]

@property_test
@given(st.integers(1, 400), st.sampled_from([1, 60, 300, 3600, 86400]))
def test_scorer_scores_every_horizon(horizon, dt):
    "Short horizons were scored on nothing and looked perfect; every interval the scorer names is whole steps and fits."
    scorer = CRPSMultiIntervalScorer(dt)
    used = scorer.intervals_for(horizon)
    assert used and all(s % dt == 0 and dt <= s <= horizon*dt for s in used.values() if used != scorer.intervals or True)
    y = walks(horizon + 1)
    total, detail = scorer(walks(3, horizon + 1, seed=1), y)
    assert total > 0 and set(detail.Interval) == {*used, "Overall"}

# ---- the scorer

def test_scorer_is_the_validator_on_a_day():
    sims, y = walks(40, 289, seed=1), walks(289)
    scorer = CRPSMultiIntervalScorer(300)
    assert scorer.intervals == LOW and scorer.intervals_for(288) == LOW
    total, detail = scorer(torch.from_numpy(sims), torch.from_numpy(y))
    expected, table = subnet_crps(sims, y, 300, LOW)
    assert total == expected
    pd.testing.assert_frame_equal(detail, table)
    assert list(detail.columns) == ["Interval", "Increment", "CRPS"]
    assert (detail.Increment == "Total").sum() == 5 and list(detail.iloc[-1])[:2] == ["Overall", "Total"]

def test_scorer_respects_the_intervals_it_is_given():
    "Custom intervals were ignored without `adaptive`."
    mine = {"10min": 600, "20min_abs": 1200}
    scorer = CRPSMultiIntervalScorer(300, mine, adaptive=False)
    sims, y = walks(8, 13, seed=1), walks(13)
    assert scorer.intervals == mine and scorer.intervals_for(5) == mine
    assert scorer(sims, y)[0] == subnet_crps(sims, y, 300, mine)[0]
    adaptive = CRPSMultiIntervalScorer(300, mine)
    assert adaptive.intervals_for(12) == mine and adaptive(sims, y)[0] == scorer(sims, y)[0]

def test_scorer_changes_nothing_outside_itself():
    "A scorer wrote its intervals into a global of the module, so two scorers in two threads mixed their intervals."
    before = copy.deepcopy([LOW_FREQUENCY, HIGH_FREQUENCY]), dict(LOW)
    mine = {"5min": 300}
    a, b = CRPSMultiIntervalScorer(300), CRPSMultiIntervalScorer(300, mine, adaptive=False)
    mine["30min"] = 1800; a.intervals_for(3)["never"] = 1; LOW_FREQUENCY.intervals["never"] = 1
    sims, y = walks(6, 13, seed=1), walks(13)
    alone = a(sims, y)[0], b(sims, y)[0]
    with ThreadPoolExecutor(4) as pool: together = list(pool.map(lambda i: (a, b)[i % 2](sims, y)[0], range(40)))
    assert together == list(alone)*20
    assert (LOW_FREQUENCY, HIGH_FREQUENCY) == tuple(before[0]) and LOW_FREQUENCY.intervals == before[1] and b.intervals == {"5min": 300}
    with pytest.raises(AttributeError): LOW_FREQUENCY.beta = 0

def test_the_first_interval_is_scored():
    "Paths without the price of step 0 lose their first interval: they are refused, and with it every step counts."
    sims, y = walks(8, 13, seed=1), walks(13)
    scorer = CRPSMultiIntervalScorer(300, {"5min": 300}, adaptive=False)
    assert (scorer(sims, y)[1].Increment != "Total").sum() == 12
    with pytest.raises(ValueError, match="do not start at the price of step 0"): scorer(sims[:, 1:], y[1:])
    with pytest.raises(ValueError, match="do not start at the price of step 0"): scorer(np.where(np.isnan(sims), 0, sims)*1.001, y)
    scorer(torch.from_numpy(sims).float(), torch.from_numpy(y))             # rounding is no other price

def test_scorer_with_missing_prices():
    y = walks(13); y[[0, 5, 12]] = nan
    sims = walks(4, 13, seed=1)
    assert CRPSMultiIntervalScorer(300)(sims, y)[0] == subnet_crps(sims, y, 300, {"5min": 300, "30min": 1800})[0]
    with pytest.raises(ValueError, match="do not start"): CRPSMultiIntervalScorer(300)(sims*np.array([[1], [1], [1], [2]]), y)

@pytest.mark.parametrize("call,words", [
    (lambda: CRPSMultiIntervalScorer(300)(np.ones((2, 13)), np.ones(12)), "give (P, N+1) beside (N+1,)"),
    (lambda: CRPSMultiIntervalScorer(300)(np.ones((0, 13)), np.ones(13)), "do not fit"),
    (lambda: CRPSMultiIntervalScorer(300)(np.ones((2, 1)), np.ones(1)), "one price is no path"),
    (lambda: CRPSMultiIntervalScorer(600, {"5min": 300}, adaptive=False), "'5min' of 300 s is shorter than time_increment, 600 s"),
    (lambda: CRPSMultiIntervalScorer(300, {"3hour": 10800}, adaptive=False)(np.ones((2, 3)), np.ones(3)), "none of the intervals ['3hour'] fits 2 steps"),
    (lambda: CRPSMultiIntervalScorer(0), "above 0 seconds")])
def test_scorer_names_what_is_wrong(call, words):
    with pytest.raises(ValueError) as e: call()
    assert words in str(e.value)

# ---- prompts

def test_prompts_by_name():
    low, high = get_prompt("low"), get_prompt("1h")
    assert (low.time_length, low.time_increment, low.horizon, low.window_days, low.beta, low.weight, len(low.assets), low.n_paths) == (86400, 300, 288, 10, -.1, .5, 12, 1000)
    assert (high.time_length, high.time_increment, high.horizon, high.window_days, high.beta, high.weight) == (3600, 60, 60, 3, -.2, .5)
    assert high.assets == ("BTC", "ETH", "XAU", "SOL", "HYPE") and get_prompt("24h") is low and get_prompt("high") is high
    assert low.intervals == {"5min": 300, "30min": 1800, "3hour": 10800, "24hour_abs": 86400}
    assert sum(name.endswith("_gaps") for name in high.intervals) == 12 and high.intervals["0_35min_gaps"] == 2100
    with pytest.raises(ValueError, match="choose from low, 24h, high, 1h"): get_prompt("daily")

@property_test
@given(st.sampled_from([60, 120, 300, 900, 3600]), st.integers(1, 400))
def test_prompts_on_other_bars(dt, horizon):
    try: prompt = prompt_for(dt, horizon)
    except ValueError as e: assert "no interval of the prompt" in str(e); return
    assert prompt.horizon == horizon and prompt.time_increment == dt
    assert prompt.name == ("high" if dt*horizon <= 3600 else "low")
    base = get_prompt(prompt.name).intervals
    assert prompt.intervals == {name: s for name, s in base.items() if s % dt == 0 and s <= dt*horizon}
    assert len(scored_increments(horizon + 1, {name: interval_steps(s, dt) for name, s in prompt.intervals.items()})) == len(prompt.intervals)

# ---- the form that trains

@pytest.mark.parametrize("alpha", [None, 0., .95, 1.])
def test_multi_interval_gradient(alpha):
    z = torch.from_numpy(walks(2, 5, 7)).requires_grad_()
    y = torch.from_numpy(walks(2, 7, seed=1))
    w = torch.rand(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    steps = {"a": 1, "b": 2, "c_abs": 3, "0_d_gaps": 4, "e": 9, "f_abs": 9}
    assert torch.autograd.gradcheck(lambda z: multi_interval_crps(z, y, steps, alpha), z)
    assert torch.autograd.gradcheck(lambda w: multi_interval_crps(z.detach(), y, steps, alpha, w + .1), w)

def test_multi_interval_weights_and_single_precision():
    z, y = torch.from_numpy(walks(3, 4, 13)).float(), torch.from_numpy(walks(3, 13, seed=1)).float()
    steps = {"5min": 1, "30min": 6, "1hour_abs": 12}
    twice = multi_interval_crps(z[:, [0, 0, 1]], y, steps)
    same(multi_interval_crps(z, y, steps, weights=torch.tensor([[2., 1, 0, 0]]).expand(3, 4)), twice, rtol=1e-4)
    z.requires_grad_()
    loss = multi_interval_crps(z, y, steps, alpha=.95)
    loss.sum().backward()
    assert loss.dtype == torch.float32 and z.grad.isfinite().all() and (z.grad[..., 1:] != 0).all()
    alone = multi_interval_crps(z[1:2].detach(), y[1:2], steps, alpha=.95)
    same(loss[1:2].detach(), alone, rtol=1e-6)                              # no sample knows of another

def test_multi_interval_names_what_is_wrong():
    with pytest.raises(ValueError, match="both from step 0 on"): multi_interval_crps(torch.ones(2, 5, 7), torch.ones(2, 6), {"a": 1})
    with pytest.raises(ValueError, match="fits 6 steps"): multi_interval_crps(torch.ones(2, 5, 7), torch.ones(2, 7), {"a": 9})
    with pytest.raises(ValueError, match="is shorter"): multi_interval_crps(torch.ones(2, 5, 7), torch.ones(2, 7), {"a": 0})

# ---- rewards

def test_prompt_scores():
    scores, p90, low = subnet_prompt_scores([1000, 1500, 2000, -1])
    assert (scores.tolist(), p90, low) == ([0, 500, 900, 900], 1900, 1000)
    assert subnet_prompt_scores([1000, -1, -1, -1])[0].tolist() == [0]*4
    assert subnet_prompt_scores([-1, -1]) == (None, 0, 0) and subnet_prompt_scores([]) == (None, 0, 0)
    assert subnet_prompt_scores([1000, nan, 1500, 2000])[0].tolist() == [0, 900, 500, 900]

@property_test
@given(st.lists(st.one_of(st.just(-1.), st.just(nan), st.just(math.inf), st.floats(0, 1e9)), min_size=1, max_size=40))
def test_prompt_scores_are_bounded(crps):
    scores, p90, low = subnet_prompt_scores(crps)
    valid = [c for c in crps if c != -1 and math.isfinite(c)]
    if not valid: assert scores is None; return
    assert scores.min() == 0 and np.isfinite(scores).all() and (scores <= p90 - low).all()
    assert all(s == p90 - low for s, c in zip(scores, crps) if c not in valid)

def frame(*rows): return pd.DataFrame([(m, a, pd.Timestamp("2026-05-01", tz="UTC") + pd.Timedelta(days=d), s, p, l) for m, a, d, s, p, l in rows],
                                      columns=["miner", "asset", "time", "score", "p90", "low"])

def test_smoothed_scores():
    same(subnet_smoothed_scores(frame(("m", "BTC", 0, .01, 1, 0), ("m", "ETH", 0, .02, 1, 0)))["m"], .014139835157608752, rtol=1e-12)
    same(subnet_smoothed_scores(frame(*(("m", a, 0, .01, 1, 0) for a in ("BTC", "XAU", "SOL", "unknown"))))["m"], .01)
    same(subnet_smoothed_scores(frame(("m", "unknown", 0, 1, 1, 0), ("m", "XAU", 0, 0, 1, 0)))["m"], 1/(1 + ASSET_COEFFICIENTS["XAU"]))

def test_new_miners_are_filled_back():
    "A late miner gets the worst score of each prompt it missed; one that was there at the start does not, and prompts without a percentile are skipped."
    rows = [("old", "BTC", 0, 1., 9, 1), ("old", "ETH", 1, 2., 7, 2), ("old", "BTC", 2, 3., nan, nan), ("old", "BTC", 3, 4., 5, 1),
            ("new", "BTC", 3, 4., 5, 1), ("gone", "BTC", 0, 6., 9, 1), ("never", "BTC", 0, nan, 9, 1)]
    found, eth = subnet_smoothed_scores(frame(*rows)), ASSET_COEFFICIENTS["ETH"]
    same(found["old"], (1 + 2*eth + 3 + 4)/(3 + eth))
    same(found["new"], (8 + 5*eth + 4)/(2 + eth))
    assert found["gone"] == 6 and found["never"] == math.inf

def test_window_of_the_smoothing():
    rows = frame(("m", "BTC", 0, 8., 9, 0), ("m", "BTC", 5, 2., 9, 0), ("m", "BTC", 11, 4., 9, 0))
    at = lambda days, **kw: subnet_smoothed_scores(rows, now=pd.Timestamp("2026-05-01", tz="UTC") + pd.Timedelta(days=days), **kw)["m"]
    assert (at(11), at(5), at(0), at(11, window_days=3)) == (3, 5, 8, 4)
    with pytest.raises(ValueError, match="lacks the columns"): subnet_smoothed_scores(rows.drop(columns="p90"))

def test_softmax_and_weights():
    same(subnet_softmax([1000, 1500, 2000], -.001), [.50648039, .30719589, .18632372], rtol=1e-7)
    same(subnet_softmax([1000, 1500, 2000, -1], -.001), [.213, .129, .078, .580], atol=6e-4)
    assert len(subnet_softmax([], -.1)) == 0
    same(subnet_softmax([1e9, 1e9], -.1), [.5, .5]); same(subnet_softmax([math.inf, 3], -.1), [0, 1]); same(subnet_softmax([math.inf]*2, -.1), [0, 0])
    same(list(subnet_weights({"a": 0, "b": 5, "c": 10}, -.1).values()), [.25324, .153598, .093162], rtol=1e-5)
    same(list(subnet_weights(pd.Series([0, 5, 10]), -.2).values()), [.33262, .122364, .045015], rtol=1e-5)
    assert subnet_weights({"a": 0, "b": 1e6}, -.1) == {"a": .5}
    with pytest.raises(ValueError, match="must not be NaN"): subnet_softmax([nan, 1], -.1)
    assert combine_weights({"m1": .3, "m2": .2}) == {"m1": .3, "m2": .2} and combine_weights() == {}
    same(combine_weights({"m1": .3}, {"m1": .2})["m1"], .5)

@property_test
@given(st.dictionaries(st.integers(0, 99), st.floats(0, 1e4), min_size=1), st.sampled_from([-.1, -.2, -.001]))
def test_a_competition_pays_its_share(smoothed, beta):
    weights = subnet_weights(smoothed, beta)
    same(sum(weights.values()), .5)
    assert set(weights) <= set(smoothed) and all(w > 0 for w in weights.values())

# ---- answers and the reference miner

def test_rounding():
    assert [round_significant(v) for v in (123456.789, .000123456789, 0)] == [123456.79, .00012345679, 0.]
    clock = lambda time, extra: round_time_to_minutes(f"2024-11-19T{time}+00:00", extra).strftime("%H:%M:%S")
    assert [clock("19:01:59.94", 0), clock("19:01:59.94", 180), clock("19:11:46", 10)] == ["19:02:00", "19:05:00", "19:12:10"]

def test_format():
    assert format_response([[45.67, 45.7]], "2024-11-19T23:00", 300) == (1732057200, 300, [45.67, 45.7])
    assert format_response([[45.67]], pd.Timestamp("2024-11-20T01:00+02:00"), 300)[0] == 1732057200
    for bad in 0., -1., nan, math.inf:
        with pytest.raises(ValueError, match="they would be invalid"): format_response([[1., bad]], 0, 300)
    with pytest.raises(ValueError, match="must have shape"): format_response(np.ones((2, 3, 4)), 0, 300)

@property_test
@given(st.lists(st.floats(1e-12, 9.9e7), min_size=1, max_size=20))
def test_every_formatted_price_is_accepted(prices):
    answer = format_response(torch.tensor([prices], dtype=torch.float64), 60, 300)
    assert validate_responses(answer, 60, 300, 300*(len(prices) - 1), 1) == "CORRECT"
    same(answer[2], prices, rtol=6e-4 if min(prices) < 1e-3 else 1e-3)
    json.dumps(answer)

def test_generated_answer():
    answer = format_response(reference_paths("BTC", 60_000., 300, 288, 100, torch.Generator().manual_seed(0)), 0, 300)
    assert isinstance(answer, tuple) and len(answer) == 102 and all(len(p) == 289 for p in answer[2:])
    assert validate_responses(answer, 0, 300, 86400, 100) == "CORRECT"

GOOD = (100, 1, [1.]*11, [2]*11)

@pytest.mark.parametrize("response,message", [
    (GOOD, "CORRECT"), (list(GOOD), "CORRECT"), ((), "Response is empty"), (None, "Response is empty"),
    ((100, 1), "Number of paths is incorrect: expected 2, got 0"), ((100, 1, [1.], [1.]), "Number of time points is incorrect: expected 11, got 1"),
    ("text", "Response format is incorrect: expected tuple or list, got str"), ((100.,), "Start time format is incorrect: expected int, got float"),
    ((101, 1), "Start time is incorrect: expected 100, got 101"), ((100,), "Time increment format is incorrect: expected int, got NoneType"),
    ((100, 2), "Time increment is incorrect: expected 1, got 2"), ((100, 1, (1.,)*11, [1.]*11), "Path format is incorrect: expected list, got tuple"),
    ((100, 1, [1.]*10 + ["1"], [1.]*11), "Price format is incorrect: expected int or float, got str"),
    ((100, 1, [1.]*10 + [123.456789], [1.]*11), "Price format is incorrect: expected at most 8 digits, got 123.456789"),
    ((100, 1, [1.]*10 + [.51234567], [1.]*11), "Price format is incorrect: expected at most 8 digits, got 0.51234567"),
    ((True, 1), "Start time format is incorrect: expected int, got bool")])
def test_validation_messages(response, message):
    assert validate_responses(response, 100, 1, 10, 2) == message

def test_an_answer_that_never_came():
    assert validate_responses(GOOD, 100, 1, 10, 2, process_time=None).startswith("Process time is missing")

def test_reference_miner():
    gen = lambda: torch.Generator().manual_seed(0)
    a = reference_paths("ETH", 3000., 300, 288, 4000, gen())
    assert a.shape == (4000, 289) and (a[:, 0] == 3000).all() and torch.equal(a, reference_paths("ETH", 3000., 300, 288, 4000, gen()))
    change = a[:, 1:]/a[:, :-1] - 1
    same(change.std(), HOURLY_SIGMA["ETH"]*(300/3600)**.5, rtol=.005)
    assert abs(float(change.mean())) < 4*float(change.std())/change.numel()**.5
    unknown, number = (reference_paths(x, torch.tensor([1., 2.]), 60, 3, 5, gen()) for x in ("DOGE", .005))
    assert torch.equal(unknown, number) and unknown.shape == (2, 5, 4) and len(HOURLY_SIGMA) == 12

def test_prices_that_are_no_tensor_are_taken_by_position():
    rng = np.random.default_rng(0)
    sim, real = 100 + rng.standard_normal((2, 5, 7)), 100 + rng.standard_normal((2, 7))
    expected = multi_interval_crps(torch.from_numpy(sim), torch.from_numpy(real), {"a": 2, "b_abs": 3})
    assert torch.equal(multi_interval_crps(sim, pd.DataFrame(real, index=[1, 0]), {"a": 2, "b_abs": 3}), expected)
    w = rng.random((2, 5)) + .1
    assert torch.equal(multi_interval_crps(sim, real, {"a": 2}, weights=w), multi_interval_crps(*map(torch.from_numpy, (sim, real)), {"a": 2}, weights=torch.from_numpy(w)))
    price = pd.Series([100., 200.], index=[1, 0])
    assert reference_paths("BTC", price, 300, 4, 3)[:, 0, 0].tolist() == [100., 200.]
