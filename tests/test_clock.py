"The exchange's clock: days, weekdays and month's ends are those of the zone that bars came with; UTC stays the order."
import warnings
import numpy as np, pandas as pd, pytest

from synthlab.datasets.bars import check_bars
from synthlab.datasets.calendar import CALENDAR, calendar_features, future_times
from synthlab.datasets.gaps import bar_step, fill_gaps, find_gaps
from synthlab.datasets.mapped import MappedParquet, mapped_gather
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.sources import FileDataSource, FrameDataSource
from synthlab.datasets.features import create_engineer

ZONES = ("Europe/Paris", "Europe/London", "Asia/Tokyo", "America/New_York", "Asia/Kolkata", "Australia/Sydney", "UTC")

def days(zone, n=400, start="2019-01-01"):
    "Daily candles that open at local midnight, Monday to Friday."
    stamps = pd.bdate_range(start, periods=n, tz=zone)
    c = 100*np.exp(.01*np.random.default_rng(0).standard_normal(n).cumsum())
    return pd.DataFrame({"open": c, "high": c*1.01, "low": c*.99, "close": c, "volume": 1.}, stamps)

@pytest.mark.parametrize("zone", ZONES)
def test_weekdays_and_months_are_local(zone):
    bars = check_bars(days(zone))[0]
    local = days(zone).index
    assert bars.index.equals(local.tz_convert("UTC")) and str(bars.index.tz) == "UTC", "UTC stays the order"
    assert bars.attrs["zone"] == zone
    weekend, ends, opens = calendar_features(bars.index, ["weekend", "month_end", "day_open"], bars.attrs["zone"]).T
    assert not weekend.any() and opens.all()
    assert (ends > 0).tolist() == (local.days_in_month - local.day < 2).tolist()
    naive = calendar_features(days("UTC").index, CALENDAR)
    own = calendar_features(bars.index, CALENDAR, zone)
    sessions = len(CALENDAR) - [CALENDAR.index(k) for k in ("asia", "europe", "us", "us_open")].__len__()
    keep = [i for i, k in enumerate(CALENDAR) if k not in ("asia", "europe", "us", "us_open")]
    assert len(keep) == sessions and np.array_equal(naive[:, keep], own[:, keep]), "the same days, whatever the zone"

@pytest.mark.parametrize("zone", ZONES)
def test_filling_invents_no_weekend(zone):
    frame = days(zone)
    hole = frame.drop(frame.index[60:75])                               # across the start of summer time
    filled, _ = fill_gaps(check_bars(hole)[0], "ffill")
    assert filled.index.equals(check_bars(frame)[0].index) and filled.attrs["zone"] == zone
    assert find_gaps(check_bars(hole)[0]).missing.tolist() == [15]

@pytest.mark.parametrize("zone", ZONES)
def test_the_days_to_come(zone):
    index = check_bars(days(zone))[0].index
    for t in (50, 61, 62, 63, 64, 200, 215, 216):
        assert list(future_times(index[:t], 25, "1D", zone)) == list(index[t:t + 25])

@pytest.mark.parametrize("zone", ZONES)
def test_hours_of_an_exchange_across_summer_time(zone):
    hours = pd.date_range("2019-01-01", "2020-01-01", freq="h", tz=zone)
    hours = hours[(hours.day_of_week < 5) & (hours.hour >= 9) & (hours.hour < 17)].tz_convert("UTC")
    for t in (480, 650, 660, 1300, 1700): assert list(future_times(hours[:t], 120, "1h", zone)) == list(hours[t:t + 120])
    always = pd.date_range("2019-03-01", periods=24*60, freq="h", tz="UTC")
    for t in (600, 700, 730): assert list(future_times(always[:t], 300, "1h", zone)) == list(always[t:t + 300])

def test_months():
    for zone in ZONES:
        index = pd.date_range("2017-01-01", periods=30, freq="MS", tz=zone)
        bars = check_bars(pd.DataFrame({"close": 1. + np.arange(30)}, index))[0]
        assert list(future_times(bars.index[:20], 10, bar_step(bars), zone)) == list(bars.index[20:])
        filled, _ = fill_gaps(bars.drop(bars.index[[7, 8]]), "ffill")
        assert filled.index.equals(bars.index)

@pytest.mark.parametrize("zone", ["Europe/Paris", "Europe/London", "Asia/Tokyo", "America/New_York"])
def test_the_zone_survives_every_way_in(zone, tmp_path):
    frame = days(zone)
    frame.rename_axis("time").reset_index().to_csv(tmp_path/"a.csv", index=False)
    frame.rename_axis("time").to_parquet(tmp_path/"b.parquet")
    (tmp_path/"c.csv").write_text(frame.rename_axis("time").to_csv(date_format="%Y-%m-%dT%H:%M:%S%z"))
    local = frame.index
    sources = [FrameDataSource(frame), FrameDataSource(frame.rename_axis("time").reset_index()), *(FileDataSource(tmp_path/n) for n in ("a.csv", "b.parquet", "c.csv"))]
    sources.append(FrameDataSource(pd.DataFrame({"time": list(local.to_pydatetime()), "close": frame.close.to_numpy()})))
    sources.append(MappedParquet(tmp_path/"b.parquet", tmp_path/"maps", chunk=100))
    for source in sources:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            bars = next(iter(source.load().values()))
        zoned = bars.index.tz_convert(bars.attrs["zone"])
        assert [t.date() for t in zoned] == [t.date() for t in local], source

@pytest.mark.parametrize("zone", ["Europe/Paris", "Asia/Tokyo"])
def test_loader_and_map_use_it(zone, tmp_path):
    frame = days(zone, 700).drop(columns="volume").assign(volume=1.)
    frame.rename_axis("time").to_parquet(tmp_path/"b.parquet")
    options = dict(lookback=4, horizon=3, future=("day_of_week", "turn_of_month"))
    loader = MarketDataLoader(frame, "range_volatility", **options)
    plain = MarketDataLoader(days("UTC", 700), "range_volatility", **options)
    fold, other = loader.static_holdout(.6, .8), plain.static_holdout(.6, .8)
    batch, same = next(iter(fold.test)), next(iter(other.test))
    assert batch["future"].equal(same["future"])
    assert loader.latest_window()["future"].equal(plain.latest_window()["future"])
    mapped = MappedParquet(tmp_path/"b.parquet", chunk=128)
    gather = mapped_gather(mapped, create_engineer("range_volatility").fit([loader.bars["bars"]]), 4, 3, future=options["future"])
    assert gather.future.equal(fold.test.gather.future)

def test_offsets_alone():
    "Text with offsets does not name its zone: one that has all of them, or the offset itself, is as good."
    for zone in ("Europe/Paris", "America/New_York"):
        text = [t.isoformat() for t in days(zone).index]
        bars = check_bars(pd.DataFrame({"time": text, "close": 1. + np.arange(400)}))[0]
        assert not calendar_features(bars.index, "weekend", bars.attrs["zone"]).any()
    bars = check_bars(pd.DataFrame({"time": ["2020-01-06T00:00+05:30", "2020-01-07T00:00+05:30"], "close": [1., 2.]}))[0]
    assert calendar_features(bars.index, "day_open", bars.attrs["zone"]).all()

def test_without_a_zone_nothing_changes():
    frame = days("UTC")
    for bars in (check_bars(frame)[0], check_bars(frame.tz_localize(None))[0]): assert bars.attrs["zone"] == "UTC"
    index = pd.date_range("2025-03-01", periods=4000, freq="17min", tz="UTC")
    assert calendar_features(index, CALENDAR).tobytes() == calendar_features(index, CALENDAR, "UTC").tobytes()

def test_longer_bars_end_when_the_exchange_says_so():
    from synthlab.datasets.ohlcv import aggregate_bars
    for zone in ("Europe/Paris", "America/New_York", "UTC"):
        hours = pd.date_range("2019-03-01", "2019-04-15", freq="h", tz=zone)[:-1]
        c = np.linspace(100, 120, len(hours))
        bars = check_bars(pd.DataFrame({"close": c}, hours))[0]
        daily = aggregate_bars(bars, "1D")
        assert list(daily.index) == list(pd.date_range("2019-03-01", "2019-04-14", tz=zone).tz_convert("UTC")) and daily.attrs["zone"] == zone
        assert daily.close.tolist() == pd.Series(c, hours).groupby(hours.date).last().tolist()
