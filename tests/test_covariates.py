"What is known besides prices: the calendar of steps to come, further columns, assets; and a holdout behind the walk."
import json
import warnings

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st

import synthlab.datasets.market as market
from synthlab.datasets.audit import audit_leaks, audit_split
from synthlab.datasets.calendar import (CALENDAR, GROUPS, calendar_features, calendar_names, future_times,
                                        register_calendar)
from synthlab.datasets.features import RangeVolatilityEngineer, ZScoreEngineer, create_engineer, restore_engineer
from synthlab.datasets.market import MarketDataLoader, static_table
from synthlab.datasets.sources import FrameDataSource, MockDataSource
from synthlab.datasets.splits import Split, SplitError, find_windows, hybrid_nested, static_holdout, walk_forward
from synthlab.datasets.windows import Batches, WindowGather

check = settings(deadline=None, derandomize=True, max_examples=40)

def bars(n=900, seed=7, **columns):
    frame = MockDataSource(n, seed=seed).load("A")["A"]
    return frame.assign(**{k: v(n) for k, v in columns.items()})

# the calendar

@check
@given(st.datetimes(min_value=pd.Timestamp("1990-01-01").to_pydatetime(), max_value=pd.Timestamp("2040-01-01").to_pydatetime()),
       st.sampled_from(["UTC", "Asia/Tokyo", "America/New_York", "Europe/Berlin"]))
def test_calendar_is_a_bounded_function_of_the_instant(moment, zone):
    stamp = pd.Timestamp(moment).tz_localize("UTC")
    here, there = (calendar_features(pd.DatetimeIndex([t]), CALENDAR) for t in (stamp, stamp.tz_convert(zone)))
    assert here.shape == (1, len(CALENDAR)) and here.dtype == np.float32 and np.abs(here).max() <= 1
    np.testing.assert_array_equal(here, there)

@pytest.mark.parametrize("zone,name,local", [("America/New_York", "us", "09:30"), ("Europe/London", "europe", "08:00"), ("Asia/Tokyo", "asia", "09:00")])
def test_sessions_open_in_local_time_all_year(zone, name, local):
    days = pd.date_range("2024-01-01", "2024-12-31", freq="1D")
    opens = pd.DatetimeIndex([pd.Timestamp(f"{d.date()} {local}") for d in days]).tz_localize(zone)
    weekday = days.day_of_week < 5
    np.testing.assert_array_equal(calendar_features(opens, name)[:, 0], weekday)
    assert calendar_features(opens - pd.Timedelta("1s"), name).sum() == 0

def test_names():
    assert calendar_names(GROUPS) == CALENDAR and calendar_names([]) == ()
    for wrong, right in (("session", "sessions"), ("day_sin9", "day_sin"), ("qqq", "there are time_of_day")):
        with pytest.raises(ValueError, match=right): calendar_names([wrong])

def test_future_stamps_go_on_from_the_last():
    times = future_times(pd.Timestamp("2025-02-28 23:50", tz="UTC"), 3, pd.Timedelta("10min"))
    assert [str(t) for t in times] == ["2025-03-01 00:00:00+00:00", "2025-03-01 00:10:00+00:00", "2025-03-01 00:20:00+00:00"]

def utc(*stamps): return pd.DatetimeIndex(stamps, tz="UTC")

@check
@given(st.integers(8100, 20000), st.sampled_from(["5min", "15min", "1h", "7min"]), st.integers(1, 60))
def test_a_market_that_never_closes_goes_on_step_by_step(n, freq, horizon):
    index = pd.date_range("2024-02-20", periods=n, freq=freq, tz="UTC")
    times = future_times(index, horizon)
    assert list(times) == list(pd.date_range(index[-1], periods=horizon + 1, freq=freq)[1:])

@check
@given(st.integers(0, 239), st.integers(1, 40), st.sampled_from(["daily", "hourly"]))
def test_a_market_that_closes_goes_on_when_it_opens(back, horizon, kind):
    "A model that never saw a Saturday is not asked about one."
    index = pd.date_range("2024-01-01", "2024-12-31 23:00", freq="1h" if kind == "hourly" else "1D", tz="UTC")
    index = index[(index.day_of_week < 5) & ((kind == "daily") | ((index.hour >= 9) & (index.hour < 16)))]
    last = len(index) - 45 - back if kind == "hourly" else max(len(index) - 45 - back, 25)
    assert list(future_times(index[:last], horizon)) == list(index[last:last + horizon])

def test_one_holiday_and_one_outage_close_nothing():
    days = pd.bdate_range("2024-01-01", "2024-05-31", tz="UTC")                         # until a Friday
    torn = days[(days != pd.Timestamp("2024-05-27", tz="UTC")) & ~((days > "2024-04-28") & (days < "2024-05-10"))]
    assert [t.day_name() for t in future_times(torn, 6)] == ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Monday"]

def test_daily_stamps_at_local_midnight_survive_summer_time():
    "Bars of a day that open at midnight in New York move by an hour in March."
    local = pd.bdate_range("2024-01-01", "2024-03-12", tz="America/New_York")           # the clocks changed on the 10th
    assert [t.day_name() for t in future_times(local.tz_convert("UTC"), 4)] == ["Wednesday", "Thursday", "Friday", "Monday"]

def test_the_coming_stamps_depend_on_the_past_alone():
    index = pd.date_range("2024-01-01", periods=5000, freq="1h", tz="UTC")
    assert list(future_times(index[:3000], 9)) == list(future_times(index[:3000].append(index[4000:])[:3000], 9))
    assert len(future_times(index[:2], 300)) == 300 and len(future_times(index[0], 3, "1h")) == 3
    with pytest.raises(ValueError, match="no time zone"): future_times(index.tz_localize(None), 3)

def test_an_event_is_a_column_like_others(monkeypatch):
    monkeypatch.setattr("synthlab.datasets.calendar.EVENTS", {})
    register_calendar("expiry")(lambda index: (index.day_of_week == 4) & (index.day > 14) & (index.day < 22))
    third_fridays = utc("2025-03-21", "2025-06-20", "2025-03-14", "2025-03-20")
    assert calendar_features(third_fridays, ["expiry"])[:, 0].tolist() == [1, 1, 0, 0]
    for taken in ("expiry", "us", "sessions"):
        with pytest.raises(ValueError, match="choose another name"): register_calendar(taken)(len)
    register_calendar("bad")(lambda index: np.full(len(index), np.nan))
    register_calendar("short")(lambda index: np.ones(1))
    for name in ("bad", "short"):
        with pytest.raises(ValueError, match=f"{name} gave no finite number"): calendar_features(third_fridays, name)

# windows

@check
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_future_is_cut_like_the_target(lookback, horizon, seed):
    rng, lengths = np.random.default_rng(seed), (20, 17)
    rows = [[rng.normal(size=(T, 2)) for T in lengths], *([rng.random(T) + 1 for T in lengths] for _ in range(2)), [np.arange(T) for T in lengths]]
    future, static = [rng.normal(size=(T, 3)) for T in lengths], rng.normal(size=(2, 4))
    one = WindowGather(*rows, lookback, horizon, future=future, static=static)
    asset, row = torch.tensor([0, 1, 1]), torch.tensor([lookback, lookback - 1, 16 - horizon])
    batch = one.gather(asset, row)
    for b, (a, t) in enumerate(zip(asset, row)):
        np.testing.assert_array_equal(batch["future"][b], future[a][t + 1:t + 1 + horizon].astype(np.float32))
        np.testing.assert_array_equal(batch["static"][b], static[a].astype(np.float32))
    plain = WindowGather(*rows, lookback, horizon).gather(asset, row)
    assert set(plain) == set(batch) - {"future", "static"} and all(torch.equal(plain[k], batch[k]) for k in plain)

def test_of_flat_does_not_copy(tmp_path):
    features = np.lib.format.open_memmap(tmp_path/"x.npy", "w+", np.float32, (30, 2))
    close = np.ones(30, np.float32)
    gather = WindowGather.of_flat(torch.from_numpy(features), close, close, np.arange(30), [30], 4, 2)
    features[5] = 7
    assert gather.gather(torch.tensor([0]), torch.tensor([5]))["history"][0, -1].tolist() == [7, 7]

def flat(T=30, F=3, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(T, F)).astype(np.float32), rng.random(T).astype(np.float32), np.ones(T, np.float32), np.arange(T)]

def test_a_table_that_lies_column_by_column_is_not_misread():
    "Views assume rows; a transposed table would give windows of nonsense."
    x, close, scale, times = flat()
    one, two = (WindowGather([rows], [close], [scale], [times], 4, 2, future=[rows]).gather([0], [9]) for rows in (x, np.asfortranarray(x)))
    assert np.array_equal(two["history"][0], x[6:10]) and all(torch.equal(one[k], two[k]) for k in one)
    with pytest.raises(ValueError, match="column by column"): WindowGather.of_flat(np.asfortranarray(x), close, scale, times, [30], 4, 2)

def test_read_only_maps_are_taken_without_a_warning(tmp_path):
    x, close, scale, times = flat()
    np.save(tmp_path/"x.npy", x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gather = WindowGather.of_flat(np.load(tmp_path/"x.npy", mmap_mode="r"), close, scale, times, [30], 4, 2)
    assert np.array_equal(gather.gather([0], [9])["history"][0], x[6:10])

@pytest.mark.parametrize("change,message", [
    (dict(features=np.ones((30, 3))), "features is torch.float64, not torch.float32"), (dict(times=np.arange(30, dtype=np.int32)), "times is torch.int32"),
    (dict(close=np.ones((30, 1), np.float32)), "close has shape"), (dict(future=np.ones((29, 2), np.float32)), "future has 29 rows, the lengths of the assets add up to 30"),
    (dict(future=np.ones(30, np.float32)), "future has shape"), (dict(lengths=[30, 1]), "add up to 31"), (dict(static=np.ones((2, 2))), "static has 2 rows"),
    (dict(static=np.ones(1)), "give a row an asset")])
def test_flat_rows_that_do_not_fit_are_refused(change, message):
    good = dict(zip(("features", "close", "scale", "times"), flat()), lengths=[30], lookback=4, horizon=2)
    with pytest.raises(ValueError, match=message): WindowGather.of_flat(**(good | change))

def test_a_share_of_nothing_has_its_shape():
    "A rank without a window of its own, in the last batch of an epoch."
    x, close, scale, times = flat()
    gather = WindowGather([x], [close], [scale], [times], 4, 2, future=[x], static=np.eye(1))
    windows = find_windows([times], [np.ones(30, bool)], None, 4, 2)
    share = Batches(gather, windows, [0, 1], 8).batch(0, 0, rank=5, world=8)
    assert share["future"].shape == (0, 2, 3) and share["static"].shape == (0, 1)

# further columns

@pytest.mark.parametrize("name", ["range_volatility", "zscore", "ohlcv"])
def test_further_columns_leave_the_own_features_alone(name):
    frame = bars(600).assign(x=np.random.default_rng(0).normal(3, 7, 600), y=np.arange(600.))
    own, more = (create_engineer(name, past=p).fit([frame[:400]]) for p in ((), ["x", "y"]))
    assert more.columns == (*own.columns, "x", "y") and more.transform(frame)[:, :-2].tobytes() == own.transform(frame).tobytes()
    assert more.scale(frame).tobytes() == own.scale(frame).tobytes() and "past" not in own.state()["options"]
    again = restore_engineer(json.loads(json.dumps(more.state())))
    assert again.transform(frame).tobytes() == more.transform(frame).tobytes()
    with pytest.raises(ValueError, match="options"): create_engineer(name).load_state(more.state())

@check
@given(st.floats(-12, 12), st.floats(-3, 3), st.booleans())
def test_further_columns_are_scaled_whatever_their_unit(exponent, shift, standardise):
    "Raw levels and volumes are features of a size that no network survives."
    frame, unit = bars(300), 10.**exponent
    z = np.random.default_rng(0).normal(size=300) + shift
    engineer = ZScoreEngineer(5, 20, standardise, past=["x"]).fit([frame.assign(x=z*unit)[:200]])
    x = engineer.transform(frame.assign(x=z*unit))[:, -1]
    train = z[19:200]                                                                   # from the first row whose own features are complete
    np.testing.assert_allclose(x, np.clip((z - train.mean())/train.std(), -10, 10), atol=1e-4)
    assert engineer.transform(frame.assign(x=1e100*unit))[:, -1].max() == 10            # and an absurd value is clipped

@pytest.mark.parametrize("value", [0., 1e-14, .1, 123456.789, 1e12])
def test_a_column_that_never_moves_is_zero(value):
    frame = bars(300).assign(x=value)
    assert (abs(ZScoreEngineer(past="x").fit([frame]).transform(frame)[:, -1]) < 1e-2).all()

def test_further_columns_are_fitted_on_train_rows():
    data = frames()
    changed = {k: f.assign(interest=f.interest.where(np.arange(500) < 300, 99.)) for k, f in data.items()}
    until = data["A"].index[300]
    states = [loader(f, past=["interest"]).static_holdout(until, data["A"].index[400]).engineer.state() for f in (data, changed)]
    assert states[0] == states[1]

@pytest.mark.parametrize("make", [lambda: ZScoreEngineer(past="x"), lambda: RangeVolatilityEngineer(past=["x"]), lambda: create_engineer("ohlcv", past=["x"])])
def test_a_missing_number_is_named(make):
    frame = bars(600).assign(x=1.)
    frame.iloc[450, -1] = np.nan
    with pytest.raises(ValueError, match=r"column x has no number in row 450 \(2020-01-02 13:30:00\+00:00\), the first of 1"): make().fit([frame])
    with pytest.raises(ValueError, match="no column 'x'; load them with columns="): make().fit([frame[["open", "high", "low", "close", "volume"]]])
    empty = frame.copy(); empty.iloc[450] = np.nan                                      # a gap is no missing number
    make().fit([empty])

# the loader

def loader(frames, **options):
    engineer = create_engineer("zscore", past=options.pop("past", ()), short_win=5, long_win=20)
    return MarketDataLoader(FrameDataSource(frames), engineer, **{"lookback": 4, "horizon": 6, **options})

def frames(n=500): return {"A": bars(n, 1, interest=lambda n: np.linspace(0, 1, n)), "B": bars(n, 2, interest=lambda n: np.cos(np.arange(n)))}

def test_covariates_change_nothing_else():
    "Without covariates, batches are bit for bit what they were; with them, only new entries are added."
    plain, knowing = (loader(frames(), **o).static_holdout(.6, .8)[0] for o in ({}, dict(future=["sessions"], static="asset")))
    for position in range(len(plain)):
        a, b = plain.batch(3, position), knowing.batch(3, position)
        assert set(b) - set(a) == {"future", "static"} and all(torch.equal(a[k], b[k]) for k in a)

def test_past_columns_are_features_and_survive_json():
    own = loader(frames(), past=["interest"])
    fold = own.static_holdout(.6, .8)
    assert fold[0].batch(0, 0)["history"].shape[-1] == 4
    engineer = restore_engineer(json.loads(json.dumps(fold.engineer.state())))
    assert engineer.past == ("interest",)
    again = own.static_holdout(.6, .8, engineer=engineer)
    assert torch.equal(again[0].batch(0, 0)["history"], fold[0].batch(0, 0)["history"])
    assert "past" not in create_engineer("zscore").state()["options"]          # old states stay as they were

@pytest.mark.parametrize("options,message", [
    (dict(past=["open_intrest"]), "interest"), (dict(future=["weekdays"]), "weekend|day_of_week"), (dict(static={"A": 1}), "no row for B"),
    (dict(static={"A": 1, "B": float("nan")}), "no number for B"), (dict(static=3), "give 'asset'"), (dict(feature_dim=9), "makes 3 features")])
def test_mistakes_are_sentences(options, message):
    with pytest.raises(ValueError, match=message): loader(frames(), **options)

def test_missing_past_values_are_named():
    data = frames()
    data["B"].loc[data["B"].index[300], "interest"] = np.nan
    with pytest.raises(ValueError, match="asset B: column interest has no number in row 300"): loader(data, past=["interest"])

def test_assets_with_different_holes():
    "Each asset has its own rows; no window of one crosses its hole, and the hole of one takes no window from the other."
    data = frames()
    data["A"] = data["A"].drop(data["A"].index[200:230]); data["B"] = data["B"].drop(data["B"].index[320:330])
    own = loader(data, future=["time_of_day"])
    w, step = own.windows, pd.Timedelta("5min").value
    assert (w.ends_at - w.starts_at == (4 - 1 + 6)*step).all()
    whole = loader(frames()).windows
    for a, (lost, hole) in enumerate(((30, 1), (10, 1))):
        gone = (whole.asset == a).sum() - (w.asset == a).sum()
        assert gone == lost + hole*(own.pattern.warmup + 4 + 6 - 1)

def test_the_latest_window_is_the_one_that_training_would_cut():
    data = frames()
    own = loader(data, future=["time_of_day"], static="asset", past=["interest"])
    fold = own.static_holdout(.6, .8)
    cut = {k: v.iloc[:400] for k, v in data.items()}
    short = loader(cut, future=["time_of_day"], static="asset", past=["interest"])
    now, then = short.latest_window(fold.engineer), own.rows(fold.engineer).gather(torch.tensor([0, 1]), torch.tensor([399, 399]))
    assert set(then) - set(now) == {"target"}
    for k in now: torch.testing.assert_close(now[k], then[k], rtol=0, atol=0)

@pytest.mark.parametrize("gaps,left", [("segment", 1), ("nan", 1), ("ffill", 0)])
def test_a_gap_is_no_missing_number(gaps, left):
    data = frames()
    data["A"] = data["A"].drop(data["A"].index[200:230])
    own = loader(data, past=["interest"], gaps=gaps)
    fold = own.static_holdout(.6, .8)
    assert all(torch.isfinite(b["history"]).all() for part in fold for b in part)
    assert ((own.windows.asset == 0).sum() < (own.windows.asset == 1).sum()) == bool(left)
    if gaps == "ffill": assert (own.bars["A"].interest.iloc[200:230] == own.bars["A"].interest.iloc[199]).all()

def test_columns_become_features_unless_the_engineer_has_its_own():
    data = {k: f.assign(other=1. + np.arange(500) % 3) for k, f in frames().items()}
    source = FrameDataSource(data)
    make = lambda engineer, **kw: MarketDataLoader(source, engineer, lookback=4, horizon=6, **kw).pattern
    plain = ZScoreEngineer(5, 20)
    assert make("zscore", columns="interest").past == make(plain, columns=["interest"]).past == ("interest",)
    assert plain.past == () and "past" not in plain.options                             # the pattern itself stays as it was
    assert make(ZScoreEngineer(5, 20, past="other"), columns=["interest"]).past == ("other",)
    assert make(plain) is plain and set(MarketDataLoader(source, plain, lookback=4, horizon=6).bars["A"]) == {"open", "high", "low", "close", "volume"}

@st.composite
def holes(draw, n=400):
    cuts = [draw(st.tuples(st.integers(60, n - 60), st.integers(1, 25))) for _ in range(draw(st.integers(0, 3)))]
    return np.array(sorted({i for start, size in cuts for i in range(start, start + size)}), int)

@settings(deadline=None, derandomize=True, max_examples=15)
@given(st.lists(holes(), min_size=2, max_size=3), st.sampled_from(["segment", "nan"]))
def test_no_window_crosses_a_hole_of_its_own_asset(lost, gaps):
    "And none of another asset is lost to it."
    names = [f"S{a}" for a in range(len(lost))]
    whole = MockDataSource(400, seed=3).load(names)
    own = loader({k: whole[k].drop(whole[k].index[gone]) for k, gone in zip(names, lost)}, gaps=gaps, future=["time_of_day"], static="asset")
    step, need = 300*10**9, own.pattern.warmup + 4 + 6
    for a, gone in enumerate(lost):
        runs = np.split(there := np.setdiff1d(np.arange(400), gone), np.flatnonzero(np.diff(there) > 1) + 1)
        expected = sorted(t for run in runs for t in run[own.pattern.warmup + 3 : len(run) - 6] if len(run) >= need)
        w = own.windows.take(own.windows.asset == a)
        assert [(t - whole["S0"].index[0].value)//step for t in w.decided_at] == expected
        assert (w.ends_at - w.starts_at == 9*step).all()
    batch = own.static_holdout(.6, .8).train.batch(0, 0)
    for b in range(len(batch["asset"])):
        stamps = pd.DatetimeIndex(batch["decided_at"][b].item() + step*np.arange(1, 7), tz="UTC")
        assert np.array_equal(batch["future"][b], calendar_features(stamps, ["time_of_day"])) and batch["static"][b].argmax() == batch["asset"][b]

def test_static_tables_in_any_dress():
    want, names = np.array([[3, 4], [1, 2]], np.float32), ("B", "A")
    frame = pd.DataFrame({"x": [1, 2, 3], "y": [2, 9, 4]}, ["A", "C", "B"])
    for table in (frame, frame.T.to_dict(), {k: list(v) for k, v in zip(frame.index, frame.to_numpy())}, {"A": np.array([1., 2]), "B": (3, 4)},
                  {"A": pd.Series({"x": 1, "y": 2}), "B": {"y": 4, "x": 3}}):
        assert np.array_equal(static_table(table, names), want) and static_table(table, names).dtype == np.float32
    assert np.array_equal(static_table({"A": 1, "B": 2.}, names), [[2], [1]])

@pytest.mark.parametrize("engineer", ["range_volatility", "zscore", "ohlcv"])
def test_the_latest_window_needs_the_last_bars_alone(engineer):
    data = frames()
    own = MarketDataLoader(FrameDataSource(data), engineer, lookback=5, horizon=6, columns=["interest"], future=["sessions"])
    fitted = own.static_holdout(.6, .8).engineer
    now, tail = own.latest_window(), fitted.warmup + 5 + 6
    few = {k: f.iloc[-tail:] for k, f in data.items()}
    live = MarketDataLoader(FrameDataSource(few), engineer, lookback=5, horizon=6, columns=["interest"], future=["sessions"]).latest_window(fitted)
    assert all(torch.equal(now[k], live[k]) and now[k].dtype == live[k].dtype for k in now)

def test_the_latest_window_says_how_old_it_is():
    data = frames(); data["B"] = data["B"].iloc[:-7]
    own = loader(data, future=["time_of_day"]); own.static_holdout(.6, .8)
    now = own.latest_window()
    assert [t for t in now["decided_at"].tolist()] == [data[k].index[-1].as_unit("ns").value for k in "AB"]
    for a, k in enumerate("AB"): assert np.array_equal(now["future"][a], calendar_features(future_times(data[k].index, 6), ["time_of_day"]))
    torn = frames(); torn["B"] = torn["B"].drop(torn["B"].index[-30])
    with pytest.raises(ValueError, match=r"asset B has 29 bars since its last gap, a window needs 66\+4 = 70"): loader(torn).latest_window(own.engineer)

def test_no_weekend_is_asked_of_a_model_of_business_days():
    rng, days = np.random.default_rng(0), pd.bdate_range("2018-01-01", "2020-05-29", tz="UTC", name="time")
    frame = pd.DataFrame({"close": 100*np.exp(.01*rng.normal(size=len(days)).cumsum())}, days)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = MarketDataLoader(frame, "zscore", lookback=4, horizon=12, future=["weekend", "week_sin1"])
    fold = own.static_holdout(.6, .8)
    assert max(b["future"][..., 0].max() for b in fold.train) == 0 and own.latest_window()["future"][..., 0].max() == 0
    seen = {round(float(x), 5) for b in fold.train for x in b["future"][..., 1].ravel()}
    assert {round(float(x), 5) for x in own.latest_window()["future"][..., 1].ravel()} <= seen

@pytest.mark.parametrize("stride", [1, 5])
def test_a_backtest_window_is_a_span_of_decisions(stride):
    own = loader(frames()); own.static_holdout(.6, .8)
    index = frames()["A"].index
    asked = own.get_backtest_window(index[300], index[310], eval_stride=stride)
    assert asked.n == 2*-(-10//stride) and set(asked.windows.decided_at) == set(index[300:310:stride].as_unit("ns").asi8)
    assert own.get_backtest_window(str(index[300])).windows.decided_at[-1] == index[-7].as_unit("ns").value
    with pytest.raises(SplitError, match="no window decides from 2030-01-01 to the end"): own.get_backtest_window("2030-01-01")
    with pytest.raises(ValueError, match="call static_holdout first"): loader(frames()).get_backtest_window(index[300])
    with pytest.raises(ValueError, match="no asset is called 'a'; did you mean A"): own.get_price_series("a")
    series = own.get_price_series("B", index[10], index[19])
    assert list(series.index) == list(index[10:20]) and np.array_equal(series, own.bars["B"].close.iloc[10:20])

# leaks

OPTIONS = dict(future=["time_of_day", "sessions"], static="asset", past=["interest"])

def test_covariates_leak_nothing():
    first, date = (str(bars(500).index[i]) for i in (200, 300))
    audit_leaks(lambda f: loader(f, **OPTIONS).static_holdout(first, date), frames(), cuts=3, after=date).raise_if_leaky()

def test_a_future_made_of_prices_is_caught(monkeypatch):
    "Known beforehand means known without prices: a covariate that looks at the bar it belongs to is a leak of the steps to come."
    data = frames()
    def leaky(index, names, zone="UTC"): return np.asarray(index.asi8 % 7 + closes[index], np.float32)[:, None]
    def pipeline(f):
        nonlocal closes
        closes = pd.concat([b.close for b in f.values()]).groupby(level=0).first()
        return loader(f, future=["weekend"]).static_holdout(str(bars(500).index[200]), str(bars(500).index[300]))
    closes = None
    monkeypatch.setattr(market, "calendar_features", leaky)
    report = audit_leaks(pipeline, data, cuts=3, after=str(bars(500).index[300]))
    assert any("future" in f.name for f in report.findings)

def test_events_made_of_prices_are_caught(monkeypatch):
    "The same, by the door that users have."
    events = {}
    monkeypatch.setattr("synthlab.datasets.calendar.EVENTS", events)
    def pipeline(f):
        events["move"] = lambda index: np.nan_to_num(f["A"].close.pct_change(fill_method=None).reindex(index))
        return loader(f, future=["weekend", "move"]).static_holdout(str(bars(500).index[200]), str(bars(500).index[300]))
    report = audit_leaks(pipeline, frames(), cuts=3)
    assert {f.name for f in report.findings} == {"asset 0.future 1", "asset 1.future 1"} and min(f.ahead for f in report.findings) >= 6

def test_a_further_column_that_looks_ahead_is_caught():
    def pipeline(f):
        told = {k: b.assign(interest=b.close.shift(-1).ffill(), honest=b.close.shift(1).bfill()) for k, b in f.items()}
        return loader(told, past=["honest", "interest"]).static_holdout(str(bars(500).index[200]), str(bars(500).index[300]))
    report = audit_leaks(pipeline, frames(), cuts=3)
    found = {f.name for f in report.findings}
    assert {"asset 0.interest", "asset 1.interest"} <= found and not any("honest" in name or "scale" in name for name in found)

def test_an_engineer_with_further_columns_is_audited():
    honest = lambda b: b.assign(x=b.volume.rolling(5).mean().fillna(1.))
    audit_leaks(ZScoreEngineer(5, 20, past="x"), honest(bars(500)), cuts=5).raise_if_leaky()
    class Peeking(ZScoreEngineer):
        def beside(self, frame): return super().beside(frame)[::-1].cumsum(0)[::-1]
    report = audit_leaks(Peeking(5, 20, past="x"), honest(bars(500)), cuts=5)
    assert [f.name for f in report.findings] == ["x"]

def test_a_table_of_assets_made_of_the_whole_series_is_caught():
    "How volatile an asset was, from the first to the last bar, is not known when training ends."
    dates = str(bars(500).index[200]), str(bars(500).index[300])
    def pipeline(until, f):
        table = {k: float(b.close[:until].iloc[:150 if until else None].pct_change(fill_method=None).std()) for k, b in f.items()}
        return loader(f, static=table).static_holdout(*dates)
    assert {f.name for f in audit_leaks(lambda f: pipeline(None, f), frames(), cuts=3).findings} == {"static"}
    audit_leaks(lambda f: pipeline(dates[0], f), frames(), cuts=3).raise_if_leaky()

def test_nested_folds_and_their_holdout_leak_nothing():
    begin = bars(700).index[600]
    def pipeline(f):
        folds, holdout = loader(f, future=["time_of_day"], past=["interest"]).hybrid_nested(begin, "20h", "6h", embargo="30min")
        return [*folds, holdout()]
    audit_leaks(pipeline, frames(700), cuts=2, embargo="30min").raise_if_leaky()
    def splits(b):
        time = b.index.as_unit("ns").asi8
        w = find_windows([time], [np.isfinite(b.close.to_numpy())], None, 4, 6)
        folds, last = hybrid_nested(w, begin, "20h", "6h", embargo="30min")
        return [(w, split) for split in (*folds, last)]
    audit_leaks(splits, bars(700), cuts=6, embargo="30min").raise_if_leaky()

# splits

def daily(n=400, L=5, H=3): 
    time = pd.date_range("2020-01-01", periods=n, freq="1D", tz="UTC").as_unit("ns").asi8
    return find_windows([time, time], [np.ones(n, bool)]*2, [np.zeros(n, np.int64)]*2, L, H)

@check
@given(st.floats(.1, .4), st.integers(60, 120), st.integers(10, 30), st.integers(0, 5), st.booleans())
def test_no_fold_touches_the_holdout(share, train, val, embargo, in_days):
    windows, gap = daily(), pd.Timedelta(days=embargo)
    periods = (f"{train}D", f"{val}D") if in_days else (train, val)
    try: folds, last = hybrid_nested(windows, share, *periods, embargo=gap)
    except SplitError: return
    begins = windows.decided_at[last.test].min()
    for fold in folds:
        for early, late in zip(fold, fold[1:]): assert windows.ends_at[early].max() < windows.decided_at[late].min() - gap.value
        assert max(windows.ends_at[part].max() for part in fold) < begins - gap.value
    assert windows.ends_at[last.train].max() < windows.decided_at[last.val].min() - gap.value
    assert windows.ends_at[last.val].max() < begins - gap.value

def test_validation_is_no_random_draw_from_training():
    "Validation follows training as a whole, whatever the stride: a window drawn from between would share bars with its neighbours."
    windows = daily()
    split = static_holdout(windows, .6, .8)
    assert windows.decided_at[split.train].max() < windows.decided_at[split.val].min()
    assert windows.ends_at[split.train].max() < windows.decided_at[split.val].min()

def test_thinned_training_keeps_the_test_and_the_engineer():
    own = loader(frames(), horizon=24)
    few, whole = own.static_holdout(.6, .8, stride=6), own.static_holdout(.6, .8)
    assert few.engineer.state() == whole.engineer.state() and np.array_equal(few.test.index, whole.test.index)
    assert set(few.train.index) < set(whole.train.index) and abs(few.train.n*6/whole.train.n - 1) < .05

def test_a_holdout_by_date_does_not_move_when_data_are_appended():
    "A share does."
    windows, longer = daily(400), daily(430)
    begin = pd.Timestamp(int(windows.decided_at[600]), unit="ns", tz="UTC")
    one, two = (hybrid_nested(w, begin, "90D", "20D")[1] for w in (windows, longer))
    assert all(np.array_equal(one[i], two[i]) for i in (0, 1)) and set(one.test) < set(two.test)
    shares = [hybrid_nested(w, .25, "90D", "20D")[1] for w in (windows, longer)]
    assert windows.decided_at[shares[0].test[0]] < longer.decided_at[shares[1].test[0]]

def test_numbers_count_the_calendar_in_the_last_split_too():
    grid = pd.date_range("2024-01-01", periods=60*4, freq="6h", tz="UTC")
    panel = find_windows([grid.as_unit("ns").asi8]*3, [np.ones(len(grid), bool)]*3, None, 1, 2)
    folds, last = hybrid_nested(panel, "2024-02-15", 14, 5, calendar=grid.normalize().unique())
    assert [len(part) for part in last] == [3*(40*4 - 2), 3*(5*4 - 2), 3*(15*4 - 2)]
    by_rows = hybrid_nested(panel, "2024-02-15", 14*4, 5*4)[1]
    assert all(np.array_equal(a, b) for a, b in zip(last, by_rows))

@pytest.mark.parametrize("wrong", [0, 1, 1.5, -.2, float("nan")])
def test_a_holdout_of_nothing_or_everything_is_refused(wrong):
    with pytest.raises(SplitError, match="use a share of the decisions, such as 0.2, or a date"): hybrid_nested(daily(), wrong, "90D", "20D")

def test_walking_forward_without_an_embargo_is_seen():
    "Folds that are purged but not embargoed end right before validation begins."
    windows = daily()
    for embargo, clean in (("0D", False), ("5D", True)):
        folds = walk_forward(windows, "120D", "30D", "30D", embargo=embargo)
        assert all(bool(audit_split(windows, fold, "5D")) != clean for fold in folds) and not any(audit_split(windows, fold) for fold in folds)

def test_validation_drawn_at_random_inside_training_is_seen():
    windows = daily(); split = static_holdout(windows, .6, .8)
    both = np.random.default_rng(42).permutation(np.concatenate([split.train, split.val]))
    drawn = Split(np.sort(both[:-len(split.val)]), np.sort(both[-len(split.val):]), split.test)
    assert "train windows decide after val has begun" in audit_split(windows, drawn)[0].text and not audit_split(windows, split)
