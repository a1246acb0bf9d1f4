"The volume is the column that has numbers, and no column that looks like one is left out without a word."
import warnings
import numpy as np, pandas as pd, pytest

from synthlab.datasets.bars import BarError, check_bars
from synthlab.datasets.mapped import MappedParquet
from synthlab.datasets.sources import FileDataSource

T = 40
BASE = pd.DataFrame({"time": pd.date_range("2020-01-01", periods=T, freq="h"), "open": 10., "high": 11., "low": 9., "close": 10.})
some, other = np.arange(1., T + 1), 1000 + np.arange(T)
zero = np.zeros(T)
CASES = {       # columns beside the prices, the volume that is meant, names that a warning must mention
    "MetaTrader 5": ({"<TICKVOL>": some, "<VOL>": zero, "<SPREAD>": 2.}, some, ["<VOL>"]),
    "MetaTrader 5 with real volume": ({"<TICKVOL>": some, "<VOL>": other}, other, ["<TICKVOL>"]),
    "CryptoDataDownload": ({"Volume BTC": some, "Volume USDT": other}, some, ["Volume USDT"]),
    "CryptoDataDownload, quote first": ({"Volume USDT": other, "Volume BTC": some}, some, ["Volume USDT"]),
    "Bitstamp": ({"Volume_(BTC)": some, "Volume_(Currency)": other}, some, ["Volume_(Currency)"]),
    "Investing": ({"Vol.": [f"{x*10:.2f}K" for x in some]}, some*10_000, []),
    "millions and nothing": ({"Vol.": ["1.5M", "-", "2B", "750"]*10}, np.array([1.5e6, 0., 2e9, 750.]*10), []),
    "millions and a blank": ({"Vol.": ["1.5M", "", " ", "750"]*10}, np.array([1.5e6, 0., 0., 750.]*10), []),
    "empty beside full": ({"volume": np.nan, "tick_volume": some}, some, ["volume"]),
    "plain": ({"Volume": some}, some, []),
    "nothing traded": ({"volume": zero}, zero, []),
    "both nothing": ({"volume": zero, "tickvol": zero}, zero, ["tickvol"]),
    "weighted price": ({"Volume": some, "VWAP": 10., "volatility": .2}, some, ["volatility"]),
}

@pytest.mark.parametrize("name", CASES)
def test_volume(name, tmp_path):
    columns, meant, mentioned = CASES[name]
    frame = BASE.assign(**columns)
    frame.to_csv(tmp_path/"a.csv", index=False); frame.to_parquet(tmp_path/"b.parquet")
    doors = [lambda: check_bars(frame)[0], lambda: FileDataSource(tmp_path/"a.csv").load()["a"], lambda: FileDataSource(tmp_path/"b.parquet").load()["b"],
             lambda: MappedParquet(tmp_path/"b.parquet", tmp_path/"maps", chunk=16).load()["b"]]
    for door in doors:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            bars = door()
        assert np.array_equal(bars.volume, meant)
        said = " ".join(str(w.message) for w in told) + " ".join(bars.attrs.get("repairs", []))
        for column in mentioned: assert f"{column}" in said and "ignored" in said
        if not mentioned: assert "ignored" not in said

def test_a_word_is_no_volume():
    with pytest.raises(BarError, match="many is not a number"): check_bars(BASE.assign(volume=["many"]*T))
    with pytest.raises(BarError, match="1.5K is not a number"): check_bars(BASE.assign(close=["1.5K"]*T))
