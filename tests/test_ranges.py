"Ranges that cannot be believed: bad wicks and files stitched of two vendors cost next to nothing, are told, and clean bars keep every bit."
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthlab.datasets.bars import BarWarning
from synthlab.datasets.features import create_engineer
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.sources import MockDataSource

ENGINEERS = dict(range_volatility={}, zscore={}, ohlcv={}, wavelet={}, price_action={}, stationary={})
TRAIN, H = 6000, 12

@pytest.fixture(scope="module")
def clean(): return MockDataSource(8641, seed=3).load("A")["A"]

def wicks(bars, n=11):
    "The highs of some bars 20 % above their open and close, in training and in the test."
    bars, at = bars.copy(), np.linspace(300, len(bars) - 300, n).astype(int)
    bars.iloc[at, 1] = 1.2*bars.iloc[at][["open", "close"]].max(axis=1)
    return bars

def stitched(bars, rows):
    "Some rows have the high and low of a whole month, as another vendor gives them."
    bars = bars.copy()
    high, low = bars["high"].rolling(2000, min_periods=1).max(), bars["low"].rolling(2000, min_periods=1).min()
    bars.iloc[rows, 1], bars.iloc[rows, 2] = high.iloc[rows]*1.3, low.iloc[rows]/1.3
    return bars

def crps(scale, bars, rows):
    "Mean CRPS of normal log returns over twelve bars, 10⁻⁴: Gneiting and Raftery (2007), equation 21."
    close = np.log(bars["close"].to_numpy())
    s = scale[rows]*H**.5
    z = (close[rows + H] - close[rows])/s
    return 1e4*(s*(z*(2*stats.norm.cdf(z) - 1) + 2*stats.norm.pdf(z) - np.pi**-.5)).mean()

def scored(name, bars):
    "The score of an engineer's scale, fitted on the first rows; and of exponential smoothing."
    engineer, rows = create_engineer(name).fit([bars[:TRAIN]]), np.arange(TRAIN, len(bars) - H)
    square = np.append(0, np.diff(np.log(bars["close"].to_numpy())))**2
    return crps(engineer.scale(bars), bars, rows), crps(pd.Series(square).ewm(alpha=.06).mean().to_numpy()**.5, bars, rows)

@pytest.mark.parametrize("name", ENGINEERS)
@pytest.mark.parametrize("spoil", [wicks, lambda b: wicks(b, 83), lambda b: stitched(b, slice(7000, None)), lambda b: stitched(b, slice(0, 3000))],
                         ids=["eleven wicks", "83 wicks", "stitched in the test", "stitched in training"])
def test_a_scale_bears_what_cannot_be(name, spoil, clean):
    if name == "wavelet": pytest.importorskip("pywt")
    (own, ewma), (before, _) = scored(name, spoil(clean)), scored(name, clean)
    assert own < 1.02*before and own < 1.02*ewma, (own, before, ewma)

def test_features_bear_it_too(clean):
    "What the network sees at rows beyond the reach of a bad wick is what it would have seen."
    for name in ("range_volatility", "ohlcv"):
        engineer = create_engineer(name).fit([clean[:TRAIN]])
        a, b = engineer.transform(clean), engineer.transform(wicks(clean))
        far = np.abs(a - b)[70:].max(1)
        assert np.isfinite(b[engineer.warmup:]).all() and np.median(far) < .05, (name, np.median(far))

def test_clean_bars_keep_every_bit(clean):
    from synthlab.datasets.features import judge_ranges, overnight_return, bar_variance
    from synthlab.datasets.sources import ArchDataSource
    for bars in (clean, *ArchDataSource("sp500").load().values(), *ArchDataSource("nasdaq").load().values()):
        assert not judge_ranges(bars).any()
        plain = overnight_return(bars)**2 + (np.log(bars["high"]) - np.log(bars["low"])).to_numpy()**2/(4*np.log(2))
        assert bar_variance(bars).tobytes() == plain.tobytes()

def test_nothing_later_moves_a_bit(clean):
    "Wicks at the end change nothing before them, and the rows of `context` are all that counts."
    bad, engineer = wicks(clean, 40), create_engineer("range_volatility").fit([clean[:TRAIN]])
    x, s = engineer.transform(bad), engineer.scale(bad)
    for t in (2000, 4321, 8000):
        late = bad.copy(); late.iloc[t + 1:, 1] *= 1.5
        assert engineer.transform(late)[:t + 1].tobytes() == x[:t + 1].tobytes()
        tail = bad.iloc[t - engineer.context : t + 1]
        assert engineer.transform(tail)[-1].tobytes() == x[t].tobytes() and engineer.scale(tail)[-1] == s[t]

def test_it_is_told_with_the_row(clean):
    def told(bars):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            MarketDataLoader(bars, lookback=1)
        return [str(w.message) for w in seen if issubclass(w.category, BarWarning)]
    assert told(clean) == []
    [one] = told(wicks(clean))
    assert "11 of 8641 bars have a wick beyond 6 times the usual range" in one and "row 300 (" in one
    [two] = told(stitched(clean, slice(7000, None)))
    assert "say more than 3 times the volatility of the closes" in two and "check the file" in two
