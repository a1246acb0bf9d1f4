"""Bad bars are refused by row and column or repaired as documented, whatever is wrong with them and wherever they come from.

A case is a good table in the dress of some vendor, one fault put into it, and a way in: a frame, a CSV file or a Parquet
file. The fault knows what must come of it, so a case fails when the wrong row is blamed as well as when nothing is said."""
import gzip, os, pickle, subprocess, sys, warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings, strategies as st

from synthlab.datasets.bars import BarError, BarWarning, FIELDS, check_bars, validate_bars
from synthlab.datasets.gaps import POLICIES, bar_step, fill_gaps, find_gaps
from synthlab.datasets.given import GivenBars
from synthlab.datasets.panels import StreamedBars, arrow_batches, load_panel
from synthlab.datasets.sources import ArchDataSource, FileDataSource, FrameDataSource, MockDataSource, get_source
from synthlab.datasets.tables import DataSource
from synthlab.datasets.times import TimeError, to_times
from synthlab.models.registry import ConfigError

REAL = Path(__file__).parents[2]/"shared/data"
slowly = dict(deadline=None, derandomize=True)

def quiet(f, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BarWarning)
        return f(*args)

def assert_valid(bars):
    "The contract, written down a second time."
    t = bars.index
    assert isinstance(t, pd.DatetimeIndex) and str(t.tz) == "UTC" and t.unit == "ns" and t.name == "time"
    assert len(t) and (t[1:] > t[:-1]).all() and not t.hasnans
    assert list(bars.columns) == ["open", "high", "low", "close", "volume"] and (bars.dtypes == np.float64).all()
    assert np.isfinite(bars.to_numpy()).all() and (bars.iloc[:, :4] > 0).all().all() and (bars.volume >= 0).all()
    assert (bars.high >= bars[["open", "low", "close"]].max(axis=1)).all() and (bars.low <= bars[["open", "close"]].min(axis=1)).all()

def assert_same(got, want): pd.testing.assert_frame_equal(got, want, check_freq=False)

# ---------------------------------------------------------------- good tables in the dress of many vendors

DRESSES = (
    dict(time="time", open="open", high="high", low="low", close="close", volume="volume"),
    dict(time="Date", open="Open", high="High", low="Low", close="Close", volume="Volume"),
    dict(time="timestamp", open="1. open", high="2. high", low="3. low", close="4. close", volume="5. volume"),
    dict(time="<DATE>", open="<OPEN>", high="<HIGH>", low="<LOW>", close="<CLOSE>", volume="<TICKVOL>"),
    dict(time="Open time", open="Open", high="High", low="Low", close="Close", volume="Base Volume"),
    dict(time="ts", open="o", high="h", low="l", close="c", volume="v"),
)
CLOCKS = {
    "stamps": lambda t: t,
    "naive": lambda t: t.tz_localize(None),
    "New York": lambda t: t.tz_convert("America/New_York"),
    "coarse": lambda t: t.as_unit("ms"),
    "ISO": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "ISO naive": lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
    "ISO Berlin": lambda t: pd.Index([x.isoformat() for x in t.tz_convert("Europe/Berlin")]),
    "points": lambda t: t.strftime("%d.%m.%Y %H:%M"),
    "s": lambda t: t.asi8//10**9, "ms": lambda t: t.asi8//10**6, "us": lambda t: t.asi8//10**3, "ns": lambda t: t.asi8,
}
STEPS = ("1min", "5min", "1h", "4h", "1D", "7D")

class Case:
    "A good table, ready to be spoilt."
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        n = int(self.rng.integers(12, 60))
        self.bars = MockDataSource(n, str(self.rng.choice(STEPS)), seed).load("X")["X"]
        if seed % 3 == 0: self.bars.index += pd.Timedelta(days=84, hours=20)   # across the start of summer time in both zones
        self.names = DRESSES[self.rng.integers(len(DRESSES))]
        self.clock = str(self.rng.choice(list(CLOCKS)))
        self.row = int(self.rng.integers(1, n - 1))
        self.frame = self.dressed(self.bars)

    def dressed(self, bars, clock=None):
        frame = bars.reset_index(drop=True).rename(columns=self.names)
        frame.insert(0, self.names["time"], CLOCKS[clock or self.clock](bars.index))
        return frame

    def price(self): return self.names[str(self.rng.choice(FIELDS[:4]))]

    def put(self, column, value, row=None):
        "The table with one cell changed, and what to expect: the blame on that cell."
        row = self.row if row is None else row
        frame = self.frame.copy()
        if isinstance(value, (str, list, pd.Timestamp)) or value is pd.NaT or value is None: frame[column] = frame[column].astype(object)
        elif frame[column].dtype.kind in "fi": frame[column] = frame[column].astype(type(value))
        frame.at[row, column] = value
        return frame, Refused(row, column)

class Refused:
    def __init__(self, row=None, column=None, says=""): self.row, self.column, self.says = row, column, says

class Repaired:
    def __init__(self, bars, told=True): self.bars, self.told = bars, told

FAULTS = {}
def fault(f): FAULTS[f.__name__] = f; return f

# ---------------------------------------------------------------- cells

@fault
def missing_price(c): return c.put(c.price(), np.nan)
@fault
def infinite_price(c): return c.put(c.price(), float(c.rng.choice([np.inf, -np.inf])))
@fault
def zero_price(c): return c.put(c.price(), 0.)
@fault
def negative_price(c): return c.put(c.price(), -float(c.rng.uniform(1e-9, 1e9)))
@fault
def word_as_price(c): return c.put(c.price(), str(c.rng.choice(["halted", "-", "$10", "10 USD", "1.2.3"])))
@fault
def thousands(c): return c.put(c.price(), "1,234.5")
@fault
def list_as_price(c): return c.put(c.price(), [1., 2.])
@fault
def negative_volume(c): return c.put(c.names["volume"], -1.)
@fault
def infinite_volume(c): return c.put(c.names["volume"], np.inf)
@fault
def word_as_volume(c): return c.put(c.names["volume"], "many")
@fault
def bars_upside_down(c):
    frame, b = c.frame.copy(), c.bars.iloc[c.row]
    frame.at[c.row, c.names["high"]], frame.at[c.row, c.names["low"]] = b.low*.999, b.high
    return frame, Refused(c.row, c.names["high"], "below its low")
@fault
def high_too_low(c):
    frame, expected = c.put(c.names["close"], float(c.bars.high.iloc[c.row]*c.rng.uniform(1.03, 3)))
    expected.column = c.names["high"]
    return frame, expected
@fault
def low_too_high(c):
    frame, expected = c.put(c.names["open"], float(c.bars.low.iloc[c.row]*c.rng.uniform(.3, .97)))
    expected.column = c.names["low"]
    return frame, expected

@fault
def one_tick_outside(c):
    close = c.bars.high.iloc[c.row]*(1 + float(c.rng.uniform(1e-9, .005)))
    bars = c.bars.copy(); bars.iloc[c.row, [1, 3]] = close
    return c.put(c.names["close"], close)[0], Repaired(bars)
@fault
def unknown_volume(c):
    bars = c.bars.copy(); bars.iloc[c.row, 4] = 0.
    return c.put(c.names["volume"], np.nan)[0], Repaired(bars)
@fault
def holiday(c):
    frame = c.frame.copy()
    frame.loc[c.row, [c.names[f] for f in FIELDS]] = np.nan
    return frame, Repaired(c.bars.drop(c.bars.index[c.row]))
@fault
def no_price_but_volume(c):
    frame = c.frame.copy()
    frame.loc[c.row, [c.names[f] for f in FIELDS[:4]]] = np.nan
    return frame, Refused(c.row, c.names["open"])
@fault
def nothing_but_nan(c):
    frame = c.frame.copy(); frame[[c.names[f] for f in FIELDS]] = np.nan
    return frame, Refused()

# ---------------------------------------------------------------- times

@fault
def no_time(c): return c.put(c.names["time"], pd.NaT if c.clock in ("stamps", "naive", "New York", "coarse") else None)
@fault
def word_as_time(c):
    c.frame = c.dressed(c.bars, "ISO")
    return c.put(c.names["time"], str(c.rng.choice(["soon", "2020-13-01", "2020-01-01T25:00:00Z", "", "12:30"])))
@fault
def some_with_zone(c):
    c.frame = c.dressed(c.bars, "ISO naive")
    return c.put(c.names["time"], c.bars.index[c.row].strftime("%Y-%m-%dT%H:%M:%S") + str(c.rng.choice(["Z", "+00:00", "-05:00", " UTC"])))
@fault
def some_without_zone(c):
    c.frame = c.dressed(c.bars, "ISO")
    return c.put(c.names["time"], c.bars.index[c.row].strftime("%Y-%m-%d %H:%M:%S"))
@fault
def stamps_some_with_zone(c):
    c.frame = c.dressed(c.bars, "stamps")
    return c.put(c.names["time"], c.bars.index[c.row].tz_localize(None))
@fault
def other_unit(c):
    c.frame = c.dressed(c.bars, "s")
    return c.put(c.names["time"], int(c.frame.iloc[c.row, 0])*1000)
@fault
def row_numbers_as_time(c):
    frame = c.frame.copy(); frame[c.names["time"]] = np.arange(len(frame))
    return frame, Refused(0, c.names["time"])
@fault
def far_future(c):
    c.frame = c.dressed(c.bars, "s")
    return c.put(c.names["time"], 9_999_999_999)
@fault
def day_or_month(c):
    frame = c.frame.copy()
    frame[c.names["time"]] = [f"0{1 + i%9}/0{1 + i//9}/2020" for i in range(len(frame))]
    return frame, Refused(0, c.names["time"])
@fault
def same_time_other_price(c):
    frame = pd.concat([c.frame[:c.row + 1], c.frame[c.row:]], ignore_index=True)
    close = frame[c.names["close"]]
    frame.loc[c.row + 1, c.names["close"]] = (frame.loc[c.row, c.names["high"]] + frame.loc[c.row, c.names["low"]])/2
    if close[c.row] == frame.loc[c.row + 1, c.names["close"]]: frame.loc[c.row + 1, c.names["close"]] = frame.loc[c.row, c.names["low"]]
    return frame, Refused(c.row + 1, c.names["close"], f"the time of row {c.row} comes again")
@fault
def autumn_on_the_wall(c):
    times = pd.date_range("2020-10-24 22:00", periods=72, freq="10min", tz="UTC")
    frame = c.dressed(MockDataSource(72, seed=1).load("X")["X"].set_axis(times.tz_convert("Europe/Berlin").tz_localize(None)), "coarse")
    return frame, Refused(18, None, "summer time")
@fault
def spring_on_the_wall(c):
    times = pd.date_range("2020-03-28 22:00", periods=72, freq="10min", tz="UTC")
    wall = MockDataSource(72, seed=1).load("X")["X"].set_axis(times.tz_convert("Europe/Berlin").tz_localize(None))
    return c.dressed(wall, "coarse"), Repaired(wall.set_axis(wall.index.tz_localize("UTC").as_unit("ns").rename("time")), told=False)    # a gap
@fault
def two_zones(c):
    c.frame = c.dressed(c.bars, "ISO Berlin")
    return c.put(c.names["time"], c.bars.index[c.row].tz_convert("Asia/Tokyo").isoformat())[0], Repaired(c.bars, told=False)
@fault
def shuffled(c):
    order = c.rng.permutation(len(c.frame)); order[:2] = np.sort(order[:2])[::-1]
    return c.frame.iloc[order].reset_index(drop=True), Repaired(c.bars)
@fault
def newest_first(c): return c.frame[::-1].reset_index(drop=True), Repaired(c.bars)
@fault
def repeated(c):
    rows = np.sort(np.append(np.arange(len(c.frame)), c.rng.integers(0, len(c.frame), 5)))
    return c.frame.iloc[rows].reset_index(drop=True), Repaired(c.bars)
@fault
def gap(c):
    bars = c.bars.drop(c.bars.index[c.row:c.row + 3])
    return c.dressed(bars), Repaired(bars, told=False)

# ---------------------------------------------------------------- columns

@fault
def lost_column(c):
    field = str(c.rng.choice(FIELDS[:4]))
    if set(c.names.values()) >= {"o", "h"}: c.names = DRESSES[0]
    return c.dressed(c.bars).drop(columns=c.names[field]), Refused(None, field)
@fault
def misspelt_column(c):
    field = str(c.rng.choice(FIELDS[:4]))
    if set(c.names.values()) >= {"o", "h"}: c.names = DRESSES[0]
    return c.dressed(c.bars).rename(columns={c.names[field]: "prcie"}), Refused(None, field)
@fault
def lost_time(c): return c.frame.drop(columns=c.names["time"]), Refused(None, "time")
@fault
def column_twice(c):
    again = c.names["high"].swapcase()
    return c.frame.assign(**{again: 1.}), Refused(None, again, "two columns are called")
@fault
def bool_column(c): return c.frame.assign(**{c.names["low"]: True}), Refused(0, c.names["low"])
@fault
def time_as_price(c):
    frame = c.frame.copy(); frame[c.names["close"]] = c.bars.index
    return frame, Refused(0, c.names["close"])
@fault
def no_rows(c): return c.frame[:0], Refused()
@fault
def close_alone(c):
    bars = c.bars.copy(); bars["open"] = bars["high"] = bars["low"] = bars["close"]; bars["volume"] = 0.
    name = "Close" if c.names["close"] == "c" else c.names["close"]
    return c.frame[[c.names["time"], c.names["close"]]].set_axis([c.names["time"], name], axis=1), Repaired(bars)
@fault
def no_volume(c): return c.frame.drop(columns=c.names["volume"]), Repaired(c.bars.assign(volume=0.))
@fault
def more_columns(c): return c.frame.assign(**{"Adj Close": 1., "trades": 3, "note": "x"}), Repaired(c.bars, told=False)
@fault
def marked_column(c): return c.frame.rename(columns={c.frame.columns[0]: "\ufeff" + c.frame.columns[0]}), Repaired(c.bars, told=False)
@fault
def untouched(c): return c.frame, Repaired(c.bars, told=False)

# ---------------------------------------------------------------- ways in

def as_frame(frame, folder): return lambda: FrameDataSource(frame, "X")

def as_index(frame, folder): return lambda: FrameDataSource(frame.set_index(frame.columns[0]), "X")

def as_csv(frame, folder):
    path = folder/"X.csv"
    frame.to_csv(path, index=False)
    return lambda: FileDataSource(path)

def as_parquet(frame, folder):
    path = folder/"X.parquet"
    try: frame.to_parquet(path)
    except (pa.ArrowException, TypeError, ValueError): frame.astype({c: str for c in frame if frame[c].dtype == object}).to_parquet(path)
    return lambda: FileDataSource(path)

WAYS = {f.__name__: f for f in (as_frame, as_index, as_csv, as_parquet)}

def run(name, seed, folder):
    case = Case(seed)
    frame, expected = FAULTS[name](case)
    ways = [w for w in WAYS if not (w == "as_index" and (expected.__dict__.get("column") == "time" or name in ("lost_time", "marked_column")))]
    ways = [w for w in ways if not (w in ("as_csv", "as_parquet") and name in ("list_as_price", "stamps_some_with_zone"))]
    way = str(case.rng.choice(ways))
    said = f"{name}, seed {seed}, {way}, clock {case.clock}"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try: bars = WAYS[way](frame, folder)().load()
        except BarError as e: bars, error = None, e
        except Exception as e: raise AssertionError(f"{said}: {type(e).__name__}: {e}") from e
    if isinstance(expected, Refused):
        assert bars is None, f"{said}: accepted"
        assert "\n" not in str(error) and 20 < len(str(error)) < 500, f"{said}: {error}"
        if expected.row is not None: assert error.row == expected.row and f"row {error.row}" in str(error), f"{said}: {error}"
        if expected.column is not None: assert error.column == expected.column and expected.column in str(error), f"{said}: {error}"
        if way == "as_csv" and error.row is not None: assert f"line {error.row + 2}" in str(error), f"{said}: {error}"
        assert expected.says in str(error), f"{said}: {error}"
    else:
        if bars is None: raise AssertionError(f"{said}: refused") from error
        bars, = bars.values()
        assert_valid(bars); assert_same(bars, expected.bars)
        assert [w.category for w in told] == [BarWarning]*expected.told, f"{said}: {[str(w.message) for w in told]}"
        assert bool(bars.attrs["repairs"]) == expected.told, said

@pytest.mark.parametrize("name", FAULTS)
def test_fault(name, tmp_path):
    for seed in range(-(-500//len(FAULTS))): run(name, seed, tmp_path)      # 500 cases in all

@pytest.mark.soak
def test_faults_soak(tmp_path, record_property):
    start, n = int(os.environ.get("SYNTHLAB_SEED", np.random.SeedSequence().entropy % 10**9)), 20_000
    print("seed", start)
    for i in range(n): run(list(FAULTS)[i % len(FAULTS)], start + i, tmp_path)
    record_property("tried", n); record_property("seed", start)

# ---------------------------------------------------------------- anything at all

junk = st.one_of(st.none(), st.booleans(), st.integers(-10**30, 10**30), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=3),
    st.datetimes(), st.timedeltas(), st.lists(st.integers(), max_size=2), st.complex_numbers(), st.decimals().filter(lambda d: not d.is_snan()),
    st.sampled_from([pd.NaT, pd.NA, "2020-01-01", "1e999", "0x10", "1_000", "nan", np.datetime64("NaT"), 1e-320]))

@settings(max_examples=300, **slowly)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 5), junk), max_size=4), st.integers(0, 5), st.booleans())
def test_any_cell(cells, seed, cut):
    "Whatever stands in a few cells, bars come out valid or a BarError says why not."
    frame = Case(seed).frame.head(12).astype(object)
    for row, column, value in cells: frame.iat[row, column] = value
    if cut and cells: frame = frame.iloc[:, [0, 4]]
    try: bars = quiet(validate_bars, frame)
    except BarError: return
    assert_valid(bars)

@settings(max_examples=200, **slowly)
@given(st.lists(junk, min_size=1, max_size=5))
def test_any_times(values):
    try: times = to_times(pd.Series(values, dtype=object))
    except TimeError as e: assert 0 <= e.row < len(values); return
    assert len(times) == len(values) and str(times.tz) == "UTC" and times.unit == "ns" and not times.hasnans

@pytest.mark.parametrize("thing", [None, 3, "sp50", [1, 2], np.ones((3, 5)), pd.DataFrame(), pd.DataFrame({"a": []}),
    pd.DataFrame({"close": [1.]}), pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("close", "A"), ("close", "B")])),
    {"A": None}, {}, "/nowhere/at/all.csv", "no\0where.csv", "x"*300 + ".csv"], ids=lambda t: type(t).__name__)
def test_no_bars(thing):
    with pytest.raises(BarError): get_source(thing).load()

# ---------------------------------------------------------------- broken files

HEAD = "time,open,high,low,close,volume\n"
ROWS = [f"2020-01-0{i},1{i},1{i + 2},9,1{i + 1},100\n" for i in range(1, 7)]
GOOD = HEAD + "".join(ROWS)
LINES = GOOD.splitlines()

@pytest.mark.parametrize("raw,says,row", [
    (GOOD.replace(ROWS[3], ROWS[3].strip() + ",7\n"), "line 5 has 7 fields where the header has 6", 3),
    (GOOD.replace(ROWS[3], "2020-01-04,14\n"), "line 5 has 2 fields where the header has 6", 3),
    (GOOD.replace(ROWS[3], "\n\n" + ROWS[3].strip() + ",7\n"), "line 7 has 7 fields where the header has 6", 3),
    (GOOD.replace(",9,15", ',"9,15'), "line 5", None),
    (GOOD.replace("\n2020-01-04", "\n\ufeff2020-01-04"), "line 5", 3),
    (GOOD[:-9], "fields where the header has 6", 5),
    (GOOD.encode("utf-16")[:-1], "not UTF-8", None),
    (GOOD.encode() + b"\xff\xfe", "not UTF-8", None),
    (GOOD.encode().replace(b"14", b"\0\0"), "zero bytes", None), (GOOD.encode("latin-1").replace(b"14", b"1\xa04"), "not UTF-8", None),
    ("".join(ROWS), "the first line holds numbers", None),
    ("", "empty", None), ("\ufeff\n\n", "empty", None), ("time\n2020-01-01\n", "one column only", None), (HEAD, "no rows", None),
    (GOOD.replace(",15,", ',"1,5",'), "is not a number", 4),
    (GOOD.replace(",", ";").replace("14;16", "1.40,0;16"), "is not a number", None),
    (GOOD.replace(",", " "), "one column only", None),
    (HEAD.replace("high", "open") + "".join(ROWS), "two columns are called open", None),
    ("<html><body>404, not found</body></html>\n", "there are no rows", None),
], ids=range(20))
def test_broken_csv(raw, says, row, tmp_path):
    path = tmp_path/"X.csv"
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    with pytest.raises(BarError) as e: quiet(FileDataSource(path).load)
    assert says in str(e.value) and "X.csv" in str(e.value), e.value
    if row is not None: assert e.value.row == row

WANT = check_bars(pd.read_csv(pd.io.common.StringIO(GOOD)))[0]

@pytest.mark.parametrize("name,raw", {
    "plain.csv": GOOD.encode(),
    "mark.csv": GOOD.encode("utf-8-sig"),
    "utf16.csv": GOOD.encode("utf-16"),
    "big.csv": b"\xfe\xff" + GOOD.encode("utf-16-be"),
    "windows.csv": GOOD.replace("\n", "\r\n").encode(),
    "mac.csv": GOOD.replace("\n", "\r").encode(),
    "blank.csv": ("\n" + GOOD.replace("\n", "\n\n")).encode(),
    "quoted.csv": "\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in LINES).encode(),
    "semicolon.csv": GOOD.replace(",", ";").encode(),
    "comma.csv": "\n".join(";".join(c + ",0" if c.isdigit() else c for c in line.split(",")) for line in LINES).encode(),
    "tab.tsv": GOOD.replace(",", "\t").encode(),
    "bar.txt": GOOD.replace(",", "|").encode(),
    "packed.csv.gz": gzip.compress(GOOD.encode()),
    "trailing.csv": GOOD.replace("\n", ",\n").encode(),
    "numbered.csv": "\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate(LINES)).encode(),
    "index.csv": GOOD.replace("time,", ",").encode(),
    "metatrader.csv": "\n".join(["<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>",
        *(line.replace("-", ".").replace(",", "\t00:00:00\t", 1).replace(",", "\t") for line in LINES[1:])]).encode(),
}.items(), ids=lambda x: x if isinstance(x, str) else "")
def test_csv_dialects(name, raw, tmp_path):
    path = tmp_path/name
    path.write_bytes(raw)
    source = FileDataSource(path)
    assert source.names() == [name.split(".")[0]]
    assert_same(source.load()[source.names()[0]], WANT)

def test_broken_parquet(tmp_path):
    "Cut anywhere, one byte changed anywhere, or no Parquet at all: valid bars or a BarError that names the file."
    good, path = tmp_path/"good.parquet", tmp_path/"X.parquet"
    MockDataSource(400).load("X")["X"].to_parquet(good)
    raw, rng, refused = good.read_bytes(), np.random.default_rng(0), 0
    cuts = [raw[:n] for n in (0, 3, 4, 8, 12, len(raw)//2, len(raw) - 1, *rng.integers(0, len(raw), 20))]
    other = [b"garbage"*100, b"PAR1" + b"\xff"*100 + b"PAR1", raw[:-8] + b"\xff\xff\xff\x7fPAR1", GOOD.encode(), gzip.compress(raw)]
    for bad in cuts + other:
        path.write_bytes(bad)
        with pytest.raises(BarError, match="X.parquet"): FileDataSource(path).load()
    for at in rng.integers(0, len(raw), 60):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1 << int(rng.integers(8))]) + raw[at + 1:])
        try: bars = quiet(FileDataSource(path).load)
        except BarError as e: refused += 1; assert "X.parquet" in str(e)
        else: assert_valid(bars["X"])
    assert refused > 0

def test_other_files(tmp_path):
    for name in ("X.pkl", "X.xlsx", "X.json", "X"):
        (tmp_path/name).write_bytes(pickle.dumps(WANT))
        with pytest.raises(BarError, match="only CSV and Parquet"): FileDataSource(tmp_path/name).load()
    with pytest.raises(BarError, match="no CSV or Parquet file is in this folder"): FileDataSource(tmp_path)
    (tmp_path/"X.csv.gz").write_bytes(gzip.compress(GOOD.encode())[:-12])
    with pytest.raises(BarError, match="cannot be read"): FileDataSource(tmp_path/"X.csv.gz").load()
    (tmp_path/"X.csv").mkdir()
    with pytest.raises(BarError, match="no CSV or Parquet file is in this folder"): FileDataSource(tmp_path/"X.csv")

def test_huge_parquet(tmp_path, monkeypatch):
    import synthlab.datasets.tables as tables
    monkeypatch.setattr(tables, "MOST_ROWS", 5)
    WANT.to_parquet(tmp_path/"X.parquet")
    with pytest.raises(BarError, match="claims 6 rows"): FileDataSource(tmp_path/"X.parquet").load()

def test_error_travels():
    "Worker processes send exceptions home by pickle; none is read from a file."
    e = BarError("is wrong", "X", 3, WANT.index[3], "close")
    back = pickle.loads(pickle.dumps(e))
    assert str(back) == str(e) and (back.name, back.row, back.time, back.column) == ("X", 3, WANT.index[3], "close")
    late = pickle.loads(pickle.dumps(TimeError("is no time", 4)))
    assert (late.row, late.what, str(late)) == (4, "is no time", "row 4: is no time")

# ---------------------------------------------------------------- round trips

@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_round_trip(step, suffix, tmp_path):
    bars = MockDataSource(300, step).load(["A", "B"])
    long = pd.concat([b.assign(symbol=k) for k, b in bars.items()]).reset_index()
    write = lambda frame, path, **k: frame.to_parquet(path, **k) if suffix == ".parquet" else frame.to_csv(path, **k)
    for name, b in bars.items(): write(b, tmp_path/f"{name}{suffix}")
    (tmp_path/"long").mkdir(); write(long, tmp_path/f"long/all{suffix}", index=False)
    for source in (FileDataSource(tmp_path), FileDataSource(tmp_path/"long"), FileDataSource(tmp_path/f"long/all{suffix}"),
                   FrameDataSource(long), FrameDataSource(bars), FrameDataSource(long.set_index(["symbol", "time"]))):
        back = source.load()
        assert list(back) == ["A", "B"]
        for k in bars: assert_same(back[k], bars[k])

def test_wide_files(tmp_path):
    wide = pd.DataFrame({k: b.close for k, b in MockDataSource(50, "1D").load(["AAPL", "C", "V", "LOW2"]).items()})
    wide.to_csv(tmp_path/"w.csv"); wide.to_parquet(tmp_path/"w.parquet")
    for path in tmp_path.iterdir():
        back = quiet(FileDataSource(path).load)
        assert sorted(back) == ["AAPL", "C", "LOW2", "V"]
        for k in wide: assert back[k].close.tolist() == wide[k].tolist() and (back[k].high == back[k].low).all()

def test_asset_in_two_files(tmp_path):
    WANT.to_csv(tmp_path/"A.csv"); WANT.to_parquet(tmp_path/"A.parquet")
    with pytest.raises(BarError, match="A is also in A.csv"): FileDataSource(tmp_path).load()

@settings(max_examples=30, **slowly)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4, unique_by=str.casefold), st.integers(0, 3), st.randoms(use_true_random=False))
def test_mock_does_not_depend_on_company(names, seed, random):
    source = MockDataSource(40, seed=seed)
    alone = {n: source.load(n)[n] for n in names}
    random.shuffle(names)
    for n, b in source.load(names).items(): assert_valid(b); assert_same(b, alone[n])

def test_own_source():
    class Flat(DataSource):
        def names(self): return ["flat"]
        def table(self, name): return WANT, None
    assert_same(get_source(Flat()).load("FLAT")["flat"], WANT)

def test_one_warning_for_many_assets():
    with pytest.warns(BarWarning, match="and 2 more assets") as told:
        FrameDataSource({k: WANT.close for k in "abcde"}).load()
    assert len(told) == 1

def test_input_is_left_alone():
    frame = Case(1).frame[::-1]; before = frame.copy(deep=True)
    bars = quiet(validate_bars, frame); bars["close"] = 0.
    pd.testing.assert_frame_equal(frame, before)

# ---------------------------------------------------------------- gaps

@settings(max_examples=120, **slowly)
@given(st.sampled_from(STEPS + ("15s", "2h", "B")), st.sets(st.integers(1, 58)), st.integers(0, 3))
def test_gaps_against_counting(step, dropped, seed):
    "Bars taken out of a regular series are found, put back, or walled off."
    whole = MockDataSource(60, step, seed).load("X")["X"]
    if len(dropped) > 25: dropped = set(sorted(dropped)[:25])
    bars = whole.drop(whole.index[sorted(dropped)])
    if bar_step(bars) != bar_step(whole): return                # so much is gone that another step is the commonest
    daily = step in ("1D", "B")
    kept = [i for i in range(60) if i not in dropped]
    far = [(a, b) for a, b in zip(kept, kept[1:]) if (b - a > 1 if not daily else whole.index[b] - whole.index[a] > pd.Timedelta(days=10))]
    gaps = find_gaps(bars)
    assert [(whole.index.get_loc(s), whole.index.get_loc(e)) for s, e in zip(gaps.start, gaps.end)] == far
    assert gaps.missing.tolist() == [b - a - 1 for a, b in far]
    bars_, segment = fill_gaps(bars, "segment")
    assert_same(bars_, bars)
    assert np.flatnonzero(np.diff(segment)).tolist() == [kept.index(a) for a, _ in far] and segment.dtype == np.int64
    back = sorted(set(kept).union(*(range(a, b) for a, b in far)))
    for policy in ("nan", "ffill"):
        filled, segment = fill_gaps(bars, policy)
        assert (filled.index == whole.index[back]).all() and not segment.any() and len(segment) == len(filled)
        assert_same(filled.loc[bars.index], bars)
        new = filled.drop(bars.index)
        if policy == "nan": assert new.isna().all().all()
        elif len(new):
            assert_valid(filled)
            assert (new.volume == 0).all() and all(new[f].equals(bars.close.reindex(new.index, method="ffill").rename(f)) for f in FIELDS[:4])
    if far:
        with pytest.raises(BarError, match=f"the first of {len(far)} gap") as e: fill_gaps(bars, "error")
        assert e.value.row == kept.index(far[0][0])
    else: assert_same(fill_gaps(bars, "error")[0], bars)

def test_filling_is_causal():
    "What comes later never changes a row that was filled before it."
    whole = MockDataSource(400).load("X")["X"]
    bars = whole.drop(whole.index[np.random.default_rng(0).choice(np.arange(50, 399), 90, replace=False)])
    for policy in POLICIES[1:]:
        full, segment = fill_gaps(bars, policy)
        for n in (60, 100, 250):
            part, s = fill_gaps(bars[:n], policy)
            assert_same(part, full[:len(part)]); assert (s == segment[:len(s)]).all()

def test_gaps_at_the_edges():
    one = WANT[:1]
    assert len(find_gaps(one)) == 0
    for policy in POLICIES: assert_same(fill_gaps(one, policy)[0], one)
    with pytest.raises(BarError, match="one bar has no step"): bar_step(one)
    with pytest.raises(BarError, match="is shorter than the step"): find_gaps(WANT, "1h")
    lone = check_bars(pd.Series(1., pd.DatetimeIndex(["1970-01-02", *pd.date_range("2020", periods=20, freq="1min")])))[0]
    with pytest.raises(BarError, match="too many to fill"): fill_gaps(lone, "ffill")
    assert fill_gaps(lone, "segment")[1].tolist() == [0] + [1]*20

def test_weekends_by_limit():
    t = pd.date_range("2020-01-06", periods=24*28, freq="h", tz="UTC")
    bars = quiet(validate_bars, pd.Series(1., t[t.day_of_week < 5]))
    assert len(find_gaps(bars)) == 3 and len(find_gaps(bars, "3D")) == 0

# ---------------------------------------------------------------- real bars

GAPS = {    # asset: rows, gaps, bars missing in them
    "crypto_1m_btc_binanceus_2023_03": {"BTCUSDT": (30240, 0, 0), "BTCUSDC": (30240, 0, 0)},
    "crypto_1m_btcusdc_kraken_2023_sparse": {"BTCUSDC": (56717, 26746, 72883)},
    "crypto_30m_usd_2017_2023": {"BTCUSD": (78408, 394, 32112), "ETHUSD": (71877, 310, 28898), "SOLUSDT": (53746 - 28, 257, 342)},
    "crypto_5m_altbtc_2018": {"ETH/BTC": (5760, 0, 0), "XMR/BTC": (5758, None, 2), "DASH/BTC": (5758, 2, 2)},
    "crypto_5m_usdt_2025": {"BTCUSDT": (9118, 1, 223), "ETHUSDT": (9118, 1, 223), "SOLUSDT": (9341, 0, 0)},
    "equity_1d_close_20stocks": {"AAPL": (8313, 0, 0), "XOM": (8313, 0, 0)},
    "equity_1d_goog_2004_2013": {"GOOG": (2148, 0, 0)},
    "equity_1d_panel_2015_2020": {"AAL": (1259, 0, 0), "DIS": (1259, 0, 0), "DXC": (1259, 0, 0)},
    "fx_1h_eurusd_2017_2018": {"EURUSD": (5000, 42, 2063)},
    "fx_4h_majors_2007_2023": {"EURUSD": (25847, 846, 9261), "USDJPY": (25866, 856, 9366), "GBPUSD": (25847, 846, 9263)},
    "gold_4h_xauusd_2007_2023": {"XAUUSD": (26630, 877, 9760)},
    "index_1d_sp500_1999_2018": {"SP500": (5031, 0, 0)},
    "index_1h_usa500_2013_2023": {"USA500": (53257, 2366, 37065)},
    "vol_1d_vix": {"VIX": (1305 - 46, 0, 0)},
}
TOLD = {    # what is repaired in which asset
    ("crypto_30m_usd_2017_2023", "SOLUSDT"): ["rows were put in order of time (4 steps went back)", "28 exact repetitions of a row were dropped"],
    ("equity_1d_panel_2015_2020", "DIS"): ["1 bar was widened to hold its open and close"],
    ("equity_1d_panel_2015_2020", "DXC"): ["1 bar was widened to hold its open and close"],
    ("vol_1d_vix", "VIX"): ["only one price a bar: open, high and low were set to it", "no volume: it was set to 0", "46 rows without any price were dropped"],
    **{("equity_1d_close_20stocks", k): ["only one price a bar: open, high and low were set to it", "no volume: it was set to 0"] for k in ("AAPL", "XOM")},
}
REFUSED = { # what cannot be bars, and what is said
    "fx_1m_gbpusd_bidask_2012_02": "row 30117 (2012-02-01 00:00:00+00:00), column open: the time of row 0 comes again with another value; "
        "rename side, which tells them apart, to symbol",
    "macro_us_quarterly_1959_2009": "is not above 0; drop the row or mend it",
}

def real(name):
    path = REAL/f"{name}.parquet"
    if not path.exists(): pytest.skip(f"{path} is not here")
    return FileDataSource(path)

@pytest.mark.parametrize("name", GAPS)
def test_real(name):
    source = real(name)
    bars = quiet(source.load)
    assert set(GAPS[name]) <= set(bars)
    for b in bars.values(): assert_valid(b)
    for k, (rows, n, missing) in GAPS[name].items():
        gaps = find_gaps(bars[k])
        assert len(bars[k]) == rows and gaps.missing.sum() == missing and n in (None, len(gaps))
        assert bars[k].attrs["repairs"] == TOLD.get((name, k), [])
        segment = fill_gaps(bars[k], "segment")[1]
        assert segment[-1] == len(gaps)
        assert len(fill_gaps(bars[k], "ffill")[0]) == rows + missing

@pytest.mark.parametrize("name", REFUSED)
def test_real_refused(name):
    source = real(name)
    with pytest.raises(BarError) as e: quiet(source.load)
    assert REFUSED[name] in str(e.value) and name in str(e.value)

def test_bid_and_ask_are_two_assets():
    frame = pd.read_parquet(real("fx_1m_gbpusd_bidask_2012_02").path)
    bars = quiet(FrameDataSource(frame.rename(columns={"side": "symbol"})).load)
    assert {k: len(b) for k, b in bars.items()} == {"ask": 30117, "bid": 30117} and len(find_gaps(bars["bid"])) == 111

def test_sp500_is_the_same_from_both(): assert_same(real("index_1d_sp500_1999_2018").load()["SP500"], ArchDataSource().load()["sp500"])

def test_sources_stand_on_each_other_in_one_direction():
    "Tables need no source, remote sources need no other; the word that means a source knows both."
    def loads(module):
        code = f"import sys, synthlab.datasets.{module}; print(*(m for m in ('tables', 'remote', 'sources') if 'synthlab.datasets.' + m in sys.modules))"
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [loads(m) for m in ("tables", "remote", "sources")] == [["tables"], ["tables", "remote"], ["tables", "remote", "sources"]]
    for name in "tables", "remote":
        text = (Path(__file__).parents[1]/f"synthlab/datasets/{name}.py").read_text()
        assert "sources import" not in text and "datasets.sources" not in text

def test_importing_is_light():
    code = "import sys, synthlab.datasets.sources; print({'torch', 'arch', 'statsmodels'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"

def test_bars_passes_names_on():
    from synthlab.datasets import bars, gaps, sources, tables
    for module in (gaps, sources, tables):
        for name in bars.ELSEWHERE[module.__name__.rsplit(".")[-1]]: assert getattr(bars, name) is getattr(module, name)
    with pytest.raises(ImportError): from synthlab.datasets.bars import no_such_name  # noqa: F401


@pytest.mark.parametrize("factor", [100., .01])
def test_a_slip_of_the_decimal_point(factor):
    "One close a hundred times its neighbours is refused with row, time and column; a jump that stays, too, unless somebody knows that it is a fact."
    frame = pd.DataFrame({"close": np.linspace(100, 101, 50)}, pd.date_range("2020", periods=50, freq="D", tz="UTC"))
    slip, jump = frame.copy(), frame.copy()
    slip.iloc[20] *= factor; jump.iloc[20:] *= factor
    with pytest.raises(BarError, match="times the close before and after") as e: check_bars(slip)
    assert "20" in str(e.value) and "close" in str(e.value)
    with pytest.raises(BarError, match="multiply the prices of the rows before by") as e: check_bars(jump)
    assert e.value.row == 20 and f"by {factor:g};" in str(e.value)
    check_bars(jump, jump_limit=np.inf)

def test_later_rows_change_no_earlier_gap():
    "Neither the weekdays of a market nor its step are learnt from bars that come after."
    weekdays = pd.bdate_range("2018-01-01", periods=1200, tz="UTC")
    early = pd.Series(1., weekdays.delete(range(400, 420)))
    saturdays = pd.Series(1., pd.date_range(weekdays[-1] + pd.Timedelta(days=1), periods=30, freq="7D"))
    hours = pd.Series(1., pd.date_range(weekdays[-1] + pd.Timedelta(hours=1), periods=20_000, freq="h"))
    filled, _ = fill_gaps(quiet(validate_bars, early), "ffill")
    assert len(filled) == 1200
    for later in saturdays, hours:
        bars = quiet(validate_bars, pd.concat([early, later]))
        assert bar_step(bars) == bar_step(quiet(validate_bars, early))
        again, _ = fill_gaps(bars, "ffill")
        pd.testing.assert_frame_equal(again[again.index <= weekdays[-1]], filled, check_freq=False)

# ---------------------------------------------------------------- files as other programs write them

HEAD, DAYS = "Date,Open,High,Low,Close,Volume\n", "2024-01-02,10,11,9,10.5,100\n2024-01-03,10.5,12,10,11,50\n"
LONG = pd.DataFrame(dict(unique_id=[7203, 7203, 9984, 9984], ds=["2024-01-02", "2024-01-03"]*2, y=[10.5, 11, 10.5, 11]))
LEVELS = [("Close", 10.5, 11), ("High", 11, 12), ("Low", 9, 10), ("Open", 10, 10.5), ("Volume", 100, 50)]

class Speaks:
    "Columns by Arrow's protocol, and nothing else."
    def __init__(self, frame): self.table = pa.Table.from_pandas(frame)
    def __arrow_c_stream__(self, schema=None): return self.table.__arrow_c_stream__(schema)

def three_lines(first, second, assets):
    "As a download of several assets writes it."
    columns = [(name, asset, *values) for name, *values in LEVELS for asset in assets]
    lines = zip(*columns)
    return "\n".join(",".join([word, *map(str, line)]) for word, line in zip((first, second, "Date", "2024-01-02", "2024-01-03"), [*(next(lines) for _ in range(2)), [""]*len(columns), *lines])) + "\n"

PROGRAMS = {        # the text of a file, or a table; and its assets
    "sep": ("sep=;\n" + (HEAD + DAYS).replace(",", ";"), ["x"]), "link": ("https://www.example.com\n" + HEAD + DAYS, ["x"]), "remarks": ("# daily, adjusted\n#\n\n" + HEAD + DAYS, ["x"]),
    "title": ("Apple Inc., daily\n\n" + HEAD + DAYS, ["x"]), "facts": ("Symbol,AAPL\nCurrency,USD\n" + HEAD + DAYS, ["x"]),
    "one of three lines": (three_lines("Price", "Ticker", ["AAPL"]), ["AAPL"]), "three lines": (three_lines("Price", "Ticker", ["A", "B"]), ["A", "B"]), "three lines of old": (three_lines("", "", ["A", "B"]), ["A", "B"]),
    "date and time": ("<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>\n" + DAYS.replace("2024-01-02", "A.US,D,20240102,000000").replace("2024-01-03", "A.US,D,20240103,000000"), ["A.US"]),
    "tabs": ((HEAD.replace("Date", "<DATE>,<TIME>") + DAYS.replace("2024-01-02", "2024.01.02,00:00:00").replace("2024-01-03", "2024.01.03,00:00:00")).replace(",", "\t"), ["x"]),
    "forecasts": (LONG, ["7203", "9984"]), "forecasts with more": (LONG.set_axis(["item_id", "timestamp", "target"], axis=1).assign(covid=0.), ["7203", "9984"]), "a forecast": (LONG.iloc[:2, 1:].assign(x=1.), ["bars"]),
    "numbered": (LONG.set_axis(["symbol", "time", "close"], axis=1).astype({"symbol": float}), ["7203", "9984"]), "zeros before": ("unique_id,ds,y\n000001,2024-01-02,10.5\n000001,2024-01-03,11\n", ["000001"]),
    "arrow": (Speaks(pd.read_csv(pd.io.common.StringIO(HEAD + DAYS))), ["bars"]), "pyarrow": (pa.Table.from_pandas(pd.read_csv(pd.io.common.StringIO(HEAD + DAYS))), ["bars"]), "arrows": ({"A": Speaks(LONG.iloc[:2])}, ["A"]),
    "FRED": ("observation_date,GDP\n2024-01-01,.\n2024-01-02,10.5\n2024-01-03,11\n", ["x"]), "FRED of old": ("DATE,GDP\n2024-01-02,10.5\n2024-01-03,11\n", ["x"]),
}

@pytest.mark.parametrize("name", PROGRAMS)
def test_what_other_programs_write(name, tmp_path):
    given, assets = PROGRAMS[name]
    if isinstance(given, str): (tmp_path/"x.csv").write_text(given); given = tmp_path/"x.csv"
    bars = quiet(get_source(given).load)
    assert list(bars) == assets
    for b in bars.values():
        assert_valid(b)
        assert b.index.strftime("%Y-%m-%d %H:%M").tolist() == ["2024-01-02 00:00", "2024-01-03 00:00"] and b.close.tolist() == [10.5, 11]
        if "Open" in str(given if not isinstance(given, Path) else given.read_text()): assert b.iloc[0].tolist() == [10, 11, 9, 10.5, 100]

def test_two_levels_in_either_order():
    one = quiet(get_source("mock").load, ["A", "B"])
    wide = pd.concat(one, axis=1)
    for frame in wide, wide.swaplevel(axis=1), wide.swaplevel(axis=1).sort_index(axis=1).reset_index():
        for name, bars in get_source(frame).load().items(): assert_same(bars, one[name])
    assert_same(validate_bars(wide[["A"]]), one["A"])
    with pytest.raises(BarError, match="two levels, of 2 assets, A, B; choose one asset, as in frame"): validate_bars(wide)
    with pytest.raises(BarError, match="two levels, and neither holds a close"): get_source(wide.rename(columns={"close": "klose"})).load()

def test_the_line_is_counted_with_what_stands_above(tmp_path):
    for above, head, line in ("", HEAD, 3), ("https://x.example\n", HEAD, 4), ("# one\n\n# two, three\n", HEAD, 6), ("sep=,\n", HEAD, 4):
        (tmp_path/"x.csv").write_text(above + head + DAYS.replace(",12,", ",spam,"))
        with pytest.raises(BarError, match=rf"column High: spam is not a number; write it like 1234.5 \(line {line}\)"): get_source(tmp_path/"x.csv").load()
        (tmp_path/"x.csv").write_text(above + head + DAYS.replace(",12,", ",12,1,"))
        with pytest.raises(BarError, match=f"line {line} has 7 fields where the header has 6"): get_source(tmp_path/"x.csv").load()
    (tmp_path/"x.csv").write_text("date,time,close\n20240102,930,1\n20240102,945,2\n")            # half past nine, or nine minutes and a half
    with pytest.raises(BarError, match="column time"): get_source(tmp_path/"x.csv").load()

@pytest.mark.parametrize("folders", ["{m}/BTC.csv", "{y}/{n}/BTC.csv", "{y}/BTC-{m}.csv", "year={y}/{n}/BTC.csv"])
def test_months_in_folders(folders, tmp_path):
    for n in "01", "02":
        path = tmp_path/"BTC"/folders.format(m=f"2024-{n}", y="2024", n=n)
        path.parent.mkdir(parents=True, exist_ok=True); path.write_text(HEAD + DAYS.replace("2024-01", f"2024-{n}"))
    bars = get_source(tmp_path/"BTC").load()
    assert list(bars) == ["BTC"] and len(bars["BTC"]) == 4
    with pytest.raises(BarError, match="no CSV or Parquet file is in this folder; .* is below it: give .*, or call the folder symbol="):
        (tmp_path/"a"/"BTC").mkdir(parents=True); (tmp_path/"a"/"BTC"/"1.csv").write_text(HEAD + DAYS)
        get_source(tmp_path/"a")

@pytest.mark.parametrize("part", ["2024-{n}.csv", "part-{n}.csv", "2024/{n}.csv", "{symbol}-2024-{n}.csv", "year=2024/{n}/x.csv"])
def test_a_folder_a_symbol(part, tmp_path):
    "Whose files are called as parts are, or as the folder is: joined under its name."
    for symbol in "BTC", "ETH":
        for n in "01", "02":
            path = tmp_path/symbol/part.format(n=n, symbol=symbol)
            path.parent.mkdir(parents=True, exist_ok=True); path.write_text(HEAD + DAYS.replace("2024-01", f"2024-{n}"))
    bars = get_source(tmp_path).load()
    assert {name: len(b) for name, b in bars.items()} == {"BTC": 4, "ETH": 4}
    with pytest.raises(BarError, match=r"Close.*\(row 0 of .*csv, line 2\)"):
        path.write_text(HEAD + DAYS.replace("2024-01", "2024-02").replace(",10.5,100", ",x,100")); get_source(tmp_path).load("ETH")

def test_a_folder_that_may_be_anything(tmp_path):
    "A group of assets, or an asset with files of its own making: not guessed."
    for name in "stocks/AAPL.csv", "crypto/2024.csv": (tmp_path/name).parent.mkdir(); (tmp_path/name).write_text(HEAD + DAYS)
    with pytest.raises(BarError, match="no CSV or Parquet file is in this folder; .* is below it: give .*, or call the folder symbol="): get_source(tmp_path)

# ---------------------------------------------------------------- numbers as people write them

WRITTEN = {         # of the closes 1234.5 and 1040.25, with whatever else tells how they are meant
    "dollars": '"$1,234.50"\n"$1,040.25"', "a blank": '"$ 1,234.50"\n"$ 1,040.25"', "behind": "1234.50 €\n1040.25 €", "of Canada": '"C$1,234.50"\n"C$1,040.25"', "euros": '"€1.234,50"\n"€1.040,25"',
    "some without": '"1,234.5"\n"1,040.25"', "pounds without": "£1234.5\n£1040.25", "commas without": '"1.234,50"\n"1.040,25"',
}

@pytest.mark.parametrize("door", ["file", "frame", "arrow", "frames", "panel", "series"])
@pytest.mark.parametrize("name", WRITTEN)
def test_prices_with_the_sign_of_a_currency(name, door, tmp_path):
    "In every value of a column the same sign, and thousands that can be read in one way: the numbers, whatever door they come through."
    closes = WRITTEN[name].split("\n")
    text = "Date,Close/Last,Volume\n" + "".join(f"{day},{close},7\n" for day, close in zip(("2024-01-02", "2024-01-03"), closes))
    (tmp_path/"x.csv").write_text(text)
    frame = pd.read_csv(tmp_path/"x.csv")
    given = {"file": tmp_path/"x.csv", "frame": frame, "arrow": Speaks(frame), "frames": {"x": frame}, "panel": {"x": frame.assign(**{"Adj Close": frame["Close/Last"]})},
             "series": frame.set_index("Date")["Close/Last"]}[door]
    bars, = quiet(load_panel, given).bars.values() if door == "panel" else quiet(get_source(given).load).values()
    assert bars.close.tolist() == [1234.5, 1040.25]

@pytest.mark.parametrize("closes", ["$10,234|$10,040", "€1.234|€1.040", "$12.50|€12.60", "$12.50|12.60", "1,234|1,040", "$1,23.4|$2,34.5", "$1,234.50|$1.040,25", "$10.5|ten", "1,234.5|40.25"])
def test_what_may_be_two_numbers_is_neither(closes, tmp_path):
    "The sentence names the column and the line: a comma that may be either, two signs, a sign here and there, no number at all, a comma that no other row has."
    one, other = closes.split("|")
    (tmp_path/"x.csv").write_text(f'Date;Close;Open;High;Low\n2024-01-02;{one};1;2;1\n2024-01-03;{other};1;2;1\n'.replace(";", "\t"))
    with pytest.raises(BarError, match=r"x.csv: row [01] .*, column Close: .* is not a number; write it like 1234.5 \(line [23]\)"): get_source(tmp_path/"x.csv").load()

def test_one_column_tells_how_another_is_meant(tmp_path):
    "Whole thousands alone may be either; beside cents they are thousands. Points that were read already are no thousands."
    (tmp_path/"x.csv").write_text('Date,Close/Last,Volume,Open,High,Low\n01/31/2024,"$1,234.50","12,345",$999.10,"$1,240.00",$990\n01/30/2024,$999.00,"9,001","$1,001.00","$1,010.00",$980\n')
    bars = quiet(get_source(tmp_path/"x.csv").load)["x"]
    assert bars.iloc[1].tolist() == [999.1, 1240, 990, 1234.5, 12345] and bars.volume.tolist() == [9001, 12345]
    with pytest.raises(BarError, match="column Close: 10,50 € is not a number"): check_bars(pd.DataFrame(dict(Date=["2024-01-02", "2024-01-03"], Close=["10,50 €", "11,25 €"], Volume=[1.234, 2.5])))

def test_a_further_column_with_a_sign():
    frame = pd.DataFrame({"date": ["2024-01-02", "2024-01-03"], "symbol": "007", "close": [1., 2.], "fees": ["-$1,000.50", "$3.25"], "note": ["$5", "n/a"]})
    bars = quiet(get_source(frame).load, None, ["fees"])
    assert list(bars) == ["007"] and bars["007"].fees.tolist() == [-1000.5, 3.25] and frame.fees[1] == "$3.25"
    with pytest.raises(BarError, match=r"column note: \$5 is not a number"): get_source(frame).load(columns=["note"])

# ---------------------------------------------------------------- files that have no end

def test_files_without_an_end(tmp_path):
    "Refused before they are read, in one sentence that fits on a screen."
    with gzip.open(tmp_path/"bomb.csv.gz", "wb", 9) as file:
        for _ in range(120): file.write(b"\n"*2**20)
    assert (tmp_path/"bomb.csv.gz").stat().st_size < 2**18
    os.mkfifo(tmp_path/"pipe.csv"); (tmp_path/"zero.csv").symlink_to("/dev/zero"); (tmp_path/"zero.parquet").symlink_to("/dev/zero")
    with open(tmp_path/"hole.csv", "wb") as file: file.truncate(2**33)
    for name, says in ("bomb.csv.gz", "bytes unpack to more than"), ("pipe.csv", "a pipe or a device"), ("zero.csv", "a pipe or a device"), ("zero.parquet", "a pipe or a device"), ("hole.csv", "more than 4,294,967,296; split it"):
        with pytest.raises(BarError, match=says) as found: get_source(tmp_path/name).load()
        assert len(str(found.value)) < 1500 and "\n" not in str(found.value)

@pytest.mark.parametrize("name", ["pipe.csv", "pipe.parquet"])
def test_a_pipe_is_refused_at_every_door(name, tmp_path):
    "Parameters of an economy, labelled tables and files that are mapped are looked at by the same function."
    from synthlab.datasets.mapped import read_chunks
    from synthlab.labs.macro.experiment import answer
    from synthlab.labs.quant.phases import source_rows
    os.mkfifo(tmp_path/name)
    for door in lambda: answer(None, tmp_path/name), lambda: next(read_chunks(tmp_path/name, 9)), lambda: source_rows(tmp_path/name):
        with pytest.raises(ValueError, match="no file but a folder, a pipe or a device"): door()

def test_what_unpacks_without_an_end_is_refused_at_every_door(tmp_path):
    "Parameters of an economy and labelled tables, packed: as bars are."
    from synthlab.labs.macro.experiment import answer
    from synthlab.labs.quant.phases import source_rows
    with gzip.open(tmp_path/"x.csv.gz", "wb", 9) as file:
        file.write(b"decided_at,asset,a,fwd_ret_2d\n")
        for _ in range(80): file.write(b"\n"*2**20)
    for door in lambda: answer(None, tmp_path/"x.csv.gz"), lambda: source_rows(tmp_path/"x.csv.gz"):
        with pytest.raises(ConfigError, match="x.csv.gz: its [0-9,]+ bytes unpack to more than"): door()

def test_a_labelled_table_may_be_packed(tmp_path):
    from synthlab.labs.quant.phases import source_rows
    days = pd.bdate_range("2020-01-01", periods=30, tz="UTC")
    table = pd.DataFrame(dict(decided_at=days, a=np.arange(30.), fwd_ret_2d=.01))
    for name in "A.B.csv", "A.B.csv.gz": table.to_csv(tmp_path/name, index=False)
    plainly, packed = (source_rows(tmp_path/name) for name in ("A.B.csv", "A.B.csv.gz"))
    pd.testing.assert_frame_equal(plainly[0].X, packed[0].X)
    assert set(packed[0].assets) == {"A.B"} and packed[1] == "fwd_ret_2d"

def test_too_many_columns(tmp_path):
    wide = ",".join(f"c{i}" for i in range(100_000))
    (tmp_path/"x.csv").write_text("time,open,high,low," + wide + "\n")
    with pytest.raises(BarError, match="there are 100,004 columns, more than 20,000; keep those"): get_source(tmp_path/"x.csv").load()
    pa.parquet.write_table(pa.table({f"c{i}": [1.] for i in range(20_001)}), tmp_path/"x.parquet")
    with pytest.raises(BarError, match="there are 20,001 columns"): get_source(tmp_path/"x.parquet").load()
    with pytest.raises(BarError, match="there are 20,001 columns"): check_bars(pd.DataFrame(np.ones((1, 20_001))))
    with pytest.raises(BarError, match="no column is called low; rename one of .* … .*, or keep close alone$") as found: check_bars(pd.DataFrame(np.ones((1, 5000))).add_prefix("column").assign(time="2024-01-02", open=1., close=1., high=1.))
    assert len(str(found.value)) < 1500

def test_a_small_parquet_with_a_large_word(tmp_path):
    "A kilobyte on the disk, ten megabytes in the sentence: cut. And a few bytes that claim seven million rows."
    table = pa.table({"time": ["x"*10_000_000], "close": [1.]})
    pa.parquet.write_table(table, tmp_path/"x.parquet", compression="zstd", write_statistics=False)
    assert (tmp_path/"x.parquet").stat().st_size < 10_000
    with pytest.raises(BarError, match="is not a time") as found: get_source(tmp_path/"x.parquet").load()
    assert len(str(found.value)) < 1500
    pa.parquet.write_table(pa.table(dict.fromkeys(FIELDS, pa.repeat(1., 7_000_000))), tmp_path/"y.parquet", compression="zstd", row_group_size=7_000_000)
    assert (tmp_path/"y.parquet").stat().st_size < 2**18
    with pytest.raises(BarError, match="bytes claim 7,000,000 rows of 5 columns"): get_source(tmp_path/"y.parquet").load()

@pytest.mark.parametrize("column", ["time", "close"])
def test_a_word_that_is_kept_once_and_said_often(column, tmp_path):
    "Ten kilobytes that would be a terabyte: a sentence at every door that reads Parquet, before anything is written out."
    from synthlab.datasets.mapped import read_chunks
    from synthlab.labs.quant.phases import source_rows
    n = 1_000_000
    columns = dict(time=pa.repeat(pd.Timestamp("2020-01-01").value, n), close=pa.repeat(1., n), fwd_ret_2d=pa.repeat(1., n)) | {column: pa.DictionaryArray.from_arrays(pa.repeat(0, n), ["x"*1_000_000])}
    pa.parquet.write_table(pa.table(columns), tmp_path/"x.parquet", compression="zstd", store_schema=False)
    assert (tmp_path/"x.parquet").stat().st_size < 12_000
    doors = {"bars": lambda: get_source(tmp_path/"x.parquet").load(), "labelled": lambda: source_rows(tmp_path/"x.parquet"), "mapped": lambda: next(read_chunks(tmp_path/"x.parquet", 65_536))}
    for name, door in doors.items():
        with pytest.raises(ValueError, match="times are text" if (name, column) == ("mapped", "time") else "bytes unpack to [0-9,]+, more than 268,435,456") as found: door()
        assert len(str(found.value)) < 500 and "\n" not in str(found.value)

STRANGE = ["a"*300_000, '"' + "a,"*100_000, "sep=\u00e9\nDate\u00e9Close\n", 'Date,Close\n2020-01-01,"1\n2020-01-02,2\n', "sep=;\n", "Price,Close\nTicker,A\nDate,\n", "\r\r", "x,y\n"]

@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(i, marks=pytest.mark.soak) for i in range(2, 60))])
def test_headers_at_random(seed, tmp_path):
    "A sentence on one line or bars, whatever stands above the rows."
    rng, file = np.random.default_rng(seed), tmp_path/"x.csv"
    whole = [HEAD + DAYS, "sep=;\n" + (HEAD + DAYS).replace(",", ";"), three_lines("Price", "Ticker", ["A", "B"]), "https://x.example\n" + HEAD + DAYS]
    texts = STRANGE*(seed == 0) + [list(whole[k]) for k in rng.integers(len(whole), size=100)]
    for text in texts:
        if isinstance(text, list):
            for at in rng.integers(len(text), size=rng.integers(1, 5)): text[at] = str(rng.choice(['"', ",", ";", "\n", "", "sep=", "x", "9", "\u00e9", "\t", "|", "#", "\0"]))
        file.write_text("".join(text), encoding="utf-8")
        try: bars = quiet(get_source(file).load)
        except BarError as e: assert len(str(e)) < 1500 and "\n" not in str(e)
        else: [assert_valid(b) for b in bars.values()]

def test_a_missing_file_is_answered_with_a_file(tmp_path):
    "A folder of nearly that name is no file, nor is a table of another kind; without an ending a folder may be meant."
    (tmp_path/"prices").mkdir(); (tmp_path/"prices.csv.d").mkdir(); (tmp_path/"prices.xlsx").write_text(""); (tmp_path/"empty").mkdir()
    (tmp_path/"prices.parquet").write_text("")
    for typed, why in (("prices.csv", "here; there is prices.parquet"), ("prics", "did you mean prices?"), ("empty/prices.csv", f"no CSV or Parquet file is in {tmp_path/'empty'} either"),
                       ("nowhere/prices.csv", f"there is no folder {tmp_path/'nowhere'}")):
        with pytest.raises(BarError) as said: get_source(str(tmp_path/typed))
        assert why in str(said.value), said.value

def in_footer(n):
    "A number as a footer writes it: zigzag, seven bits a byte."
    n, out = 2*n, b""
    while n > 127: out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])

def tampered(path, old, new, places):
    "A Parquet file whose footer says another number in the last of the places where it said one."
    raw = path.read_bytes()
    begin = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    head, *rest = raw[begin:-8].split(in_footer(old))
    assert places <= len(rest)
    kept = len(rest) - places
    footer = head + b"".join(in_footer(old if i < kept else new) + part for i, part in enumerate(rest))
    path.write_bytes(raw[:begin] + footer + len(footer).to_bytes(4, "little") + b"PAR1")

@pytest.mark.parametrize("table,options,column,says", [
    (dict(note=["x"*2_000_000]*2), dict(use_dictionary=False), "note", "unpack to 4,000,"), (dict(note=["x"*4_000_000]*2), {}, "note", "unpack to 4,000,"),
    (dict(close=np.ones(600_011)), dict(use_dictionary=False, max_rows_per_page=2**30, write_batch_size=2**30), "close", "unpack to 4,800,")], ids=["words", "a dictionary", "numbers"])
def test_a_footer_that_belittles(table, options, column, says, tmp_path, monkeypatch):
    "What the pages unpack to counts, whatever the footer says of them: nothing is unpacked to find out."
    import synthlab.datasets.tables as tables
    monkeypatch.setattr(tables, "ROOM", 2**20)
    path = tmp_path/"x.parquet"
    pa.parquet.write_table(pa.table(table), path, **dict(compression="zstd", data_page_size=2**30, dictionary_pagesize_limit=2**30, write_statistics=False, store_schema=False) | options)
    meta = pa.parquet.ParquetFile(path).metadata
    tampered(path, meta.row_group(0).column(0).total_uncompressed_size, 800, 2)
    assert pa.parquet.ParquetFile(path).metadata.row_group(0).column(0).total_uncompressed_size == 800
    monkeypatch.setattr(pa.parquet.ParquetFile, "read", lambda *_: pytest.fail("it was unpacked"))
    doors = [lambda: FileDataSource(path).load(), lambda: next(arrow_batches(path)), lambda: StreamedBars(path), lambda: GivenBars.read(tmp_path)]
    for door in doors:
        with pytest.raises(BarError, match=f"x.parquet: its [0-9,]+ bytes {says}[0-9]+, more than [0-9,]+; see whether it holds bars"): door()

@pytest.mark.parametrize("rows", [10**12, 3])
@pytest.mark.parametrize("places", [1, 2])
def test_a_footer_that_contradicts_itself(places, rows, tmp_path):
    "A row group, or a row group and its column, of another length than the file: once ten to the twelfth rows were made room for."
    path = tmp_path/"x.parquet"
    pa.parquet.write_table(pa.table(dict(close=np.ones(12_347))), path, write_statistics=False, store_schema=False)
    tampered(path, 12_347, rows, places)
    with pytest.raises(BarError, match="x.parquet: its footer says two numbers of rows; write it again"): FileDataSource(path).load()

def test_words_that_begin_alike(tmp_path, monkeypatch):
    "Read where there is room, as other programs write them; a thousand beginnings of a megabyte are refused with the column."
    import synthlab.datasets.tables as tables
    write = lambda table: pa.parquet.write_table(table, tmp_path/"x.parquet", compression="zstd", use_dictionary=False, column_encoding={"symbol": "DELTA_BYTE_ARRAY"})
    long = pa.Table.from_pandas(pd.concat([WANT.reset_index().assign(symbol=name) for name in ("AAA", "AAB")]), preserve_index=False)
    write(long)
    for name, bars in get_source(tmp_path/"x.parquet").load().items(): assert_same(bars, WANT)
    monkeypatch.setattr(tables, "ROOM", 2**20)
    write(long.set_column(long.schema.get_field_index("symbol"), "symbol", pa.array(["A"*1_000_000]*len(long))))
    with pytest.raises(BarError, match="x.parquet: column symbol: its words may unpack to .* write the file with a dictionary"): get_source(tmp_path/"x.parquet").load()

PORTALS = {     # a table as a portal writes it: what its volumes are
    "abbreviated": ('Date,Price,Open,High,Low,Vol.,Change %\n2024-01-13,101.5,100,102,99.5,"3,442.87M",1%\n2024-01-14,102.5,101.5,103,101,1.2K,1%\n', [3442.87e6, 1200.]),
    "German": ("Datum;Eröffnung;Hoch;Tief;Schluss;Volumen\n13.01.2024;100,0;102,0;99,5;101,5;1.234\n14.01.2024;101,5;103,0;101,0;102,5;12.345.678\n", [1234., 12345678.]),
    "German, abbreviated": ("Datum;Erster;Tageshoch;Tagestief;Schlusskurs;Volumen\n13.01.2024;100,0;102,0;99,5;101,5;3,44M\n14.01.2024;101,5;103,0;101,0;102,5;1,20K\n", [3.44e6, 1200.]),
    "day and clock": ("Datum;Zeit;Eröffnung;Hoch;Tief;Schluss;Stück\n13.01.2024;00:00;100,0;102,0;99,5;101,5;7\n14.01.2024;00:00;101,5;103,0;101,0;102,5;8\n", [7., 8.]),
    "last": ("Time,Open,High,Low,Last,Volume\n2024-01-13,100,102,99.5,101.5,7\n2024-01-14,101.5,103,101,102.5,8\n", [7., 8.])}

@pytest.mark.parametrize("portal", PORTALS)
def test_a_table_as_a_portal_writes_it(portal, tmp_path):
    "The same two bars, whatever their columns are called and however their volumes are abbreviated."
    text, volumes = PORTALS[portal]
    (tmp_path/"x.csv").write_text(text, encoding="utf-8")
    bars, = FileDataSource(tmp_path/"x.csv").load().values()
    assert bars[["open", "high", "low", "close"]].to_numpy().tolist() == [[100., 102., 99.5, 101.5], [101.5, 103., 101., 102.5]]
    np.testing.assert_allclose(bars["volume"], volumes, rtol=1e-12)
    assert bars.index.strftime("%Y-%m-%d").tolist() == ["2024-01-13", "2024-01-14"]

@pytest.mark.parametrize("text,said", [("3,442M", "3,442M is not a number"), ("3.442,8.7M", "is not a number"), ("M", "M is not a number")])
def test_a_volume_that_says_two_things_is_refused(text, said):
    with pytest.raises(BarError, match=said): check_bars(pd.DataFrame(dict(time=["2024-01-13", "2024-01-14"], close=[1., 2.], volume=[text, text])))

@pytest.mark.parametrize("columns,hint", [(dict(Open=[1., 1.], High=[1., 1.], Low=[1., 1.], Last=[1., 1.], Note=["a", "b"]), "add one, as without times nothing can be tested"),
    (dict(When=["2024-01-13", "2024-01-14"], Last=[1., 1.]), "rename one of When"), (dict(Tag=[20240113, 20240114], Note=["a", "b"], Close=[1., 1.]), "rename one of Tag")])
def test_who_could_be_the_time_is_named(columns, hint):
    "A column of times under another name; a price or a note is none."
    with pytest.raises(BarError, match=f"no column is called time; {hint}$"): check_bars(pd.DataFrame(columns))
