"Lengths of time have a unit, and a date means the same wherever it is written."
import datetime
import numpy as np, pandas as pd, pytest

from synthlab.datasets.audit import audit_split
from synthlab.datasets.bars import validate_bars
from synthlab.datasets.calendar import future_times
from synthlab.datasets.gaps import fill_gaps, find_gaps
from synthlab.datasets.mapped import MappedParquet
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.ohlcv import OHLCVEngineer, aggregate_bars
from synthlab.datasets.regime_folds import generate_walk_forward_folds
from synthlab.datasets.remote import CcxtSource
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.splits import SplitError, find_windows, static_holdout, to_stamp, walk_forward
from synthlab.datasets.times import length_words, to_length, to_times
from synthlab.experiments.settings import SplitConfig
from synthlab.experiments.setup import split_by
from synthlab.models.registry import ConfigError

BARE = (12, 12., np.int64(12), np.float32(3), "12", " 96 ", "1e3", "-5", "1.5")
mock = MockDataSource(400).load()["MOCK"]
times = mock.index.as_unit("ns").asi8
windows = find_windows([times], [np.ones(400, bool)], None, 8, 4)

@pytest.mark.parametrize("bare", BARE)
def test_a_bare_number_is_no_length(bare):
    with pytest.raises(ValueError, match=r"embargo is .*write a length of time with its unit, such as 5D or 2h"): to_length(bare, "embargo")

@pytest.mark.parametrize("odd", [True, None, "soon", "nan", "", "-1D", pd.NaT, [5], pd.Timedelta(-1, "s"), "1M"])
def test_what_is_no_length(odd):
    with pytest.raises(ValueError, match="span is |is negative"): to_length(odd, "span")

@pytest.mark.parametrize("given", ["2h", "120min", " 2 hours", "02:00:00", "PT2H", "0 days 02:00:00", pd.Timedelta("2h"), datetime.timedelta(hours=2),
    np.timedelta64(2, "h"), pd.offsets.Hour(2)])
def test_lengths(given): assert to_length(given) == pd.Timedelta("2h")

def test_nothing_needs_no_unit(): assert to_length(0) == to_length("0") == to_length("0D") == pd.Timedelta(0)

DOORS = {
    "static_holdout": lambda x: static_holdout(windows, .6, .8, embargo=x),
    "walk_forward": lambda x: walk_forward(windows, "6h", "3h", "3h", embargo=x),
    "period": lambda x: walk_forward(windows, x, "3h", "3h"),
    "find_gaps": lambda x: find_gaps(mock, x),
    "fill_gaps": lambda x: fill_gaps(mock, "segment", x),
    "loader": lambda x: MarketDataLoader(mock, "zscore", lookback=4, gap_limit=x),
    "holdout": lambda x: MarketDataLoader(mock, "zscore", lookback=4).static_holdout(.6, .8, embargo=x),
    "future_times": lambda x: future_times(mock.index, 3, x),
    "aggregate": lambda x: aggregate_bars(mock, x),
    "aggregate step": lambda x: aggregate_bars(mock, "1h", step=x),
    "engineer": lambda x: OHLCVEngineer("1h", x),
    "engineer rule": lambda x: OHLCVEngineer(x),
    "ccxt": lambda x: CcxtSource("binance", timeframe=x, client=object()),
    "audit": lambda x: audit_split(windows, static_holdout(windows, .6, .8), x),
    "regimes": lambda x: generate_walk_forward_folds(mock, train_size="1D", val_size="5h", test_size="5h", step_size=x),
    "configuration": lambda x: split_by(MarketDataLoader(mock, "zscore", lookback=4), SplitConfig(embargo=x)),
}

@pytest.mark.parametrize("door", DOORS)
def test_every_door_refuses_a_bare_number(door):
    with pytest.raises(ValueError, match="with its unit"): DOORS[door]("12")

def test_mapped(tmp_path):
    mock.reset_index().to_parquet(tmp_path/"a.parquet")
    with pytest.raises(ValueError, match="gap_limit is 96; write a length of time with its unit"): MappedParquet(tmp_path/"a.parquet", gap_limit=96)
    assert not (tmp_path/"a.parquet.maps").exists(), "refused before anything is written"

def test_a_refusal_has_the_error_of_its_room():
    with pytest.raises(SplitError): DOORS["static_holdout"](12)
    with pytest.raises(ConfigError, match="data.split.embargo is '12'"): DOORS["configuration"]("12")

def test_numbers_that_count_bars_still_do():
    assert len(walk_forward(windows, 100, 50, 50)) > 1
    assert len(generate_walk_forward_folds(mock.assign(realized_vol=1.), train_size=100, val_size=50, test_size=50, step_size=400, gap_size=0, tagger=Nothing())) == 1

class Nothing:
    def fit(self, features): return self
    def predict(self, features): return np.zeros(len(features), int)

# one date, one meaning

DATES = {"01.02.2018": "2018-02-01", "1.2.2018": "2018-02-01", "2018-02-01": "2018-02-01", "2018/2/1": "2018-02-01", "31/01/2018": "2018-01-31", "01/31/2018": "2018-01-31",
    "20180201": "2018-02-01", "2018-02-01 09:30": "2018-02-01 09:30", "2018-02-01T09:30+01:00": "2018-02-01 08:30", "2018-02": "2018-02-01"}

@pytest.mark.parametrize("text", DATES)
def test_a_date_means_the_same_in_a_file_and_as_a_boundary(text):
    assert pd.Timestamp(to_stamp(text), tz="UTC") == to_times([text])[0] == pd.Timestamp(DATES[text], tz="UTC")

@pytest.mark.parametrize("text", ["01/02/2018", "now", "today", "soon", "", "01-02-2018"])
def test_two_meanings_or_none(text):
    with pytest.raises(SplitError, match="may be day/month|is no date|is not a time"): to_stamp(text)

def test_words_of_one_meaning():
    "A year alone and a month by its name cannot be misread."
    for text, date in {"2018": "2018-01-01", "Jan 2018": "2018-01-01", "5 January 2018": "2018-01-05", "March 5, 2018": "2018-03-05"}.items():
        assert to_stamp(text) == pd.Timestamp(date).value

def test_prices_between_dates():
    days = validate_bars(pd.Series(np.arange(1., 401), pd.date_range("2018-01-01", periods=400, freq="D")))
    loader = MarketDataLoader(days, "range_volatility", lookback=4, horizon=2)
    assert loader.get_price_series("bars", "01.02.2018").index[0] == pd.Timestamp("2018-02-01", tz="UTC")
    assert loader.get_price_series("bars", "2018-02-01", "2018-02-03").tolist() == [32., 33., 34.]
    assert loader.get_price_series("bars", end="01.02.2018").tolist()[-1] == 32.
    with pytest.raises(ValueError, match="may be day/month"): loader.get_price_series("bars", "01/02/2018")

def test_lengths_are_said_as_people_say_them():
    for length, words in ("1D", "1 day"), ("5min", "5 minutes"), ("1h", "1 hour"), ("7D", "7 days"), ("90min", "90 minutes"), ("36h", "36 hours"), ("1500ms", "1.5 seconds"), ("1s", "1 second"), ("0s", "0 seconds"):
        assert length_words(pd.Timedelta(length)) == words
        if not length.endswith("ms"): assert to_length(words) == pd.Timedelta(length), "and can be typed again"
