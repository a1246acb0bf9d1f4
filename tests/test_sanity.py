"Prices that cannot be meant are refused by row: spikes, wicks, shifts of level, the last bar; whoever knows better says so."
import warnings
import numpy as np, pytest

from synthlab.datasets.bars import SPIKE, BarError, check_bars, split_factor, validate_bars
from synthlab.datasets.mapped import MappedParquet
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.signals import SignalLoader
from synthlab.datasets.sources import FrameDataSource, MockDataSource
from synthlab.experiments.config import settings
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market
from synthlab.labs.signal.settings import signal_config, signal_loader

clean = MockDataSource(600, "1D").load()["MOCK"]
PRICES = ["open", "high", "low", "close"]

def spoilt(rows, columns, factor):
    bars = clean.copy()
    bars.iloc[rows, [bars.columns.get_loc(c) for c in columns]] *= factor
    return bars

def level(row, factor): return spoilt(slice(row, None), PRICES, factor)

FAULTS = {      # frame, row and column that are named, and what is said
    "a high a hundred times off": (spoilt(300, ["high"], 100.), 300, "high", "is 100 times"),
    "a low a hundredth": (spoilt(300, ["low"], .01), 300, "low", "times below"),
    "a low of nearly nothing": (spoilt(300, ["low"], 1e-9), 300, "low", "times below"),
    "an open with its high": (spoilt(300, ["open", "high"], 50.), 300, "high", "is 50 times"),
    "a whole bar": (spoilt(300, PRICES, 100.), 300, "close", "times the close before and after"),
    "pounds after pence": (level(400, .01), 400, "close", "multiply the prices of the rows before by 0.01"),
    "pence after pounds": (level(400, 100.), 400, "close", "multiply the prices of the rows before by 100"),
    "a redenomination": (level(400, 1e-6), 400, "close", "by 1e-06"),
    "a split of thirty": (level(400, 1/30), 400, "close", "by 1/30"),
    "two bars": (spoilt([300, 301], PRICES, 100.), 300, "close", "multiply the prices"),
    "the last bar": (spoilt(-1, PRICES, 100.), 599, "close", "the last bar"),
    "the last high": (spoilt(-1, ["high"], 100.), 599, "high", "is 100 times"),
    "the first bar": (spoilt(0, PRICES, 100.), 1, "close", "the first bar"),
    "the first high": (spoilt(0, ["high"], 100.), 0, "high", "is 100 times"),
}

@pytest.mark.parametrize("name", FAULTS)
def test_fault(name, tmp_path):
    frame, row, column, says = FAULTS[name]
    frame.to_parquet(tmp_path/"a.parquet")
    for door in (lambda **o: check_bars(frame, **o), lambda **o: MarketDataLoader(frame, "zscore", lookback=4, **o), lambda **o: SignalLoader(frame, "zscore", lookback=4, **o),
                 lambda **o: FrameDataSource(frame).load(**o), lambda **o: MappedParquet(tmp_path/"a.parquet", chunk=128, **o)):
        with pytest.raises(BarError) as e: door()
        assert (e.value.row, e.value.column) == (row, column) and says in str(e.value) and "jump_limit" in str(e.value), e.value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door(jump_limit=np.inf)

@pytest.mark.parametrize("factor", [2, 3, 4, 5, 10, 1/2, 1/5, 1/10])
def test_a_likely_split_is_told_with_its_factor(factor):
    with pytest.warns(UserWarning, match="if that is a split, multiply the prices of the rows before by ") as told: bars = validate_bars(level(400, factor))
    assert f"by {split_factor(factor)}" in str(told[0].message) and str(clean.index[400]) in str(told[0].message)
    assert bars.close.iloc[400] == level(400, factor).close.iloc[400], "nothing is changed"

def test_what_is_no_split():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for frame in (clean, level(400, 1.5), level(400, .7), spoilt(300, ["high"], 3.), spoilt(300, ["low"], .2)): validate_bars(frame)
        wild = clean.copy(); wild[PRICES] *= np.exp(np.random.default_rng(0).standard_normal(600)*.5)[:, None]
        validate_bars(wild)             # doubling is daily bread there

def test_factors():
    assert [split_factor(x) for x in (.0101, 98., .249, 1e-6, 3.02, .0334, 1.3)] == ["0.01", "100", "1/4", "1e-06", "3", "1/30", "1.3"]

def test_bounds():
    check_bars(spoilt(300, ["high"], .9*SPIKE)); check_bars(level(400, .9*SPIKE))
    for limit in (1., 0, -5, np.nan):
        with pytest.raises(BarError, match="jump_limit is"): check_bars(clean, jump_limit=limit)
    with pytest.raises(BarError, match="jump_limit"): check_bars(level(400, 5.), jump_limit=4)

@pytest.mark.parametrize("lab", ["market", "signal"])
def test_a_setting(lab, tmp_path):
    path = tmp_path/"a.csv"; level(400, .01).to_csv(path)
    make = (lambda c: load_market(c)) if lab == "market" else signal_loader
    configure = market_config if lab == "market" else signal_config
    asked = ["data=file", f"data.source={path}", "data.engineer={name: zscore}"] if lab == "market" else [f"data.source={path}"]
    assert "data.jump_limit" in settings(type(configure([])))
    with pytest.raises(ValueError, match="multiply the prices of the rows before by 0.01"): make(configure(asked))
    make(configure([*asked, "data.jump_limit=inf"]))
