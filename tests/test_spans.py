"A test ends where it is told to, a number is read as a file's, a length has a unit at every door, and bars of several hours keep the clock of their exchange."
import numpy as np, pandas as pd, pytest

from synthlab.datasets.calendar import future_times
from synthlab.datasets.gaps import GapWatch, fill_gaps, find_gaps
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.signals import SignalLoader
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.splits import SplitError, to_stamp
from synthlab.labs.market.tournament import play
from synthlab.labs.signal.predictor import SignalPredictor
from synthlab.labs.signal.settings import signal_config
from synthlab.labs.signal.trading import strategy_returns, trade_asset, traded_assets
from synthlab.models.registry import ConfigError

# --- where a test ends

def test_nothing_is_traded_behind_the_test():
    "Neither the signal nor buying and waiting see a candle behind the last outcome that the test knows."
    bars = MockDataSource(900, seed=3).load(["A", "B"])
    loader = SignalLoader(bars, "zscore", lookback=8)
    end = bars["A"].index[700]
    fold = loader.static_holdout(.4, .5, test_end=str(end))
    assets = traded_assets(loader, fold.test)
    last = pd.to_datetime(fold.test.windows.ends_at.max(), utc=True)
    assert last < end and all(a.bars.index[-1] == last for a in assets)
    config, always = signal_config(["evaluation.fee=0", "evaluation.slippage=0"]), np.ones(len(loader.decisions(fold.test)[0].index), bool)
    returns = strategy_returns(assets, {"always": {a.name: trade_asset(a, a.per_candle(always), config) for a in assets}}, config)
    assert all(r.index[-1] == last for r in returns.values())
    crashed = {name: b.mul(np.where(b.index <= last, 1., .1), axis=0) for name, b in bars.items()}
    other = SignalLoader(crashed, "zscore", lookback=8)
    again = traded_assets(other, other.static_holdout(.4, .5, test_end=str(end)).test)
    assert all(a.bars.equals(b.bars) for a, b in zip(assets, again)), "what comes later changes nothing"

@pytest.mark.parametrize("engineer", ["zscore", "stationary"])
def test_a_gap_ends_a_trade_whatever_gaps_is_called(engineer):
    "Rows that are kept empty were no gap to the backtest of an engineer without a memory: labels, payoffs and trades are those of segments."
    bars = MockDataSource(1500, seed=3).load("A")["A"]
    bars = bars.drop(bars.index[[*range(900, 930), *range(1200, 1203)]])
    one, other = (SignalLoader(bars, engineer, lookback=8, gaps=g) for g in ("segment", "nan"))
    assert np.array_equal(one.windows.row, other.windows.row) and np.array_equal(one.labels[0], other.labels[0], equal_nan=True)
    assert np.array_equal(one.payoff()[0], other.payoff()[0], equal_nan=True)
    config, trades = signal_config(), []
    for loader in one, other:
        test = loader.static_holdout(.3, .4).test
        asset, = traded_assets(loader, test)
        trades.append(trade_asset(asset, asset.per_candle(np.ones(len(loader.decisions(test)[0].index), bool)), config).trades)
    pd.testing.assert_frame_equal(*trades)
    assert "gap" in set(trades[0].reason)

# --- numbers and lengths

@pytest.mark.parametrize("number, date", [(2018, "2018-01-01"), (20180201, "2018-02-01"), (1517443200, "2018-02-01"), (1517443200000, "2018-02-01"), (1517443200*10**9, "2018-02-01")])
def test_a_number_is_read_as_in_a_file(number, date):
    assert to_stamp(number) == to_stamp(str(number)) == to_stamp(date) == to_stamp(np.int64(to_stamp(date)))

def test_a_year_splits_where_it_begins():
    loader = MarketDataLoader("sp500", "zscore", lookback=4)
    for given in 2013, "2013", "2013-01-01": assert loader.static_holdout(given, given + 2 if isinstance(given, int) else "2015").describe().loc["val", "decides from"] == pd.Timestamp("2013-01-02", tz="UTC")
    for wrong in 12, -5, 0:
        with pytest.raises(SplitError, match="is no date"): loader.static_holdout(wrong, 2015)

def test_lengths_of_a_tournament_have_a_unit():
    times = pd.date_range("2024", periods=30, freq="1h", tz="UTC")
    scores = pd.DataFrame([dict(decided_at=t, asset="BTC", simulator=who, total=k) for t in times for k, who in enumerate(("a", "b", "c"))])
    found = play(scores, "1d", every="12h")
    assert found.prompts["time"].min() == times[0] + pd.Timedelta("1D") and play(scores, pd.Timedelta("1D"), every="12h").table.equals(found.table)
    for bad in dict(horizon=24), dict(horizon="24"), dict(horizon="1h", every=6), dict(horizon="1h", every="6"):
        with pytest.raises(ConfigError, match="with its unit"): play(scores, **bad)

def test_a_bare_limit_in_a_checkpoint_is_refused():
    with pytest.raises(ValueError, match="gap_limit is '96'; write a length of time with its unit"): SignalPredictor.take_data(SignalPredictor.__new__(SignalPredictor), dict(step="1 days", gap_limit="96"))

# --- the clock of an exchange

def local(zone, hours, start="2024-03-20", days=20, at=0):
    "Bars that begin when the clock there shows every so-many hours."
    wall = pd.date_range(start, periods=days*24//hours, freq=f"{hours}h") + pd.Timedelta(hours=at)
    index = wall.tz_localize(zone, ambiguous=np.ones(len(wall), bool), nonexistent="shift_forward").tz_convert("UTC").as_unit("ns").rename("time").unique()
    bars = MockDataSource(len(index)).load("A")["A"].set_axis(index)
    bars.attrs["zone"] = zone
    return bars

CLOCKS = [("Europe/Paris", "2024-03-20", 9*24, 13*24), ("Europe/Paris", "2024-10-20", 5*24, 9*24), ("America/New_York", "2024-03-04", 5*24, 8*24), ("Asia/Tokyo", "2024-03-20", 9*24, 13*24)]

@pytest.mark.parametrize("hours", [2, 4, 6, 8, 12])
@pytest.mark.parametrize("zone, start, first, last", CLOCKS)
def test_hours_keep_the_clock_of_the_exchange(zone, start, first, last, hours):
    "Over the night in which it is put forward or back: filled as it was, whole or one by one, and foretold as it will be."
    bars = local(zone, hours, start)
    hole = slice(first//hours, last//hours)
    holed = bars.drop(bars.index[hole]); holed.attrs["zone"] = zone
    filled, _ = fill_gaps(holed, "ffill")
    assert filled.index.tolist() == bars.index.tolist() and find_gaps(holed).missing.tolist() == [len(bars.index[hole])]
    watch, found = GapWatch(pd.Timedelta(hours=hours), "ffill", zone=zone), []
    for t in holed.index:
        for m in [*watch.missing(t)[0], t]: watch.take(m); found.append(m)
    assert found == bars.index.tolist()
    assert future_times(bars.index[:hole.start], len(bars.index[hole]), zone=zone).tolist() == bars.index[hole].tolist()

@pytest.mark.parametrize("hours", [1, 2, 4, 12])
def test_hours_of_an_exchange_that_knows_no_summer_stay_in_utc(hours):
    "A zone is written beside them, and they do not keep its clock: then UTC it is."
    index = pd.date_range("2024-03-20", periods=20*24//hours, freq=f"{hours}h", tz="UTC", name="time").as_unit("ns")
    bars = MockDataSource(len(index)).load("A")["A"].set_axis(index); bars.attrs["zone"] = "Europe/Paris"
    hole = slice(9*24//hours, 13*24//hours)
    holed = bars.drop(index[hole]); holed.attrs["zone"] = "Europe/Paris"
    assert fill_gaps(holed, "ffill")[0].index.tolist() == index.tolist()
    later = index[index >= "2024-04-03"]
    assert future_times(index[index < "2024-04-03"], len(later), zone="Europe/Paris").tolist() == later.tolist()
