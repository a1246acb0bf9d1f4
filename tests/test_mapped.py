"""A file in chunks is the file as a whole: the same bars, the same errors, the same features to the bit, in little memory."""
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st

import synthlab.datasets.asset_files as module, synthlab.datasets.mapped as mapped_module
import synthlab.datasets.ohlcv, synthlab.datasets.wavelets     # noqa: F401, so that their engineers are known
from synthlab.datasets.audit import audit_split
from synthlab.datasets.bars import BarError
from synthlab.datasets.features import ENGINEERS, create_engineer
from synthlab.datasets.mapped import MappedParquet, fit_mapped, mapped_fold, mapped_gather, mapped_windows
from synthlab.datasets.asset_files import AssetWriter, read_manifest
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.sources import FileDataSource, FrameDataSource, MockDataSource
from synthlab.datasets.splits import SplitError, find_windows

pytestmark = pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")

@pytest.fixture(scope="module")
def frames():
    "Two assets, one of them later and with two gaps."
    found = MockDataSource(3000, seed=8).load(["A", "B"])
    return {"A": found["A"], "B": found["B"].drop(found["B"].index[[*range(900, 940), *range(1500, 1503)]]).iloc[100:]}

@pytest.fixture
def path(frames, tmp_path):
    long = pd.concat([b.assign(symbol=k).reset_index() for k, b in frames.items()]).sort_values(["time", "symbol"])
    long.to_parquet(tmp_path/"coins.parquet", row_group_size=500, index=False)
    return tmp_path/"coins.parquet"

# --- bars --------------------------------------------------------------------------------------------------------------

@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(1, 4000), st.integers(1, 500), st.integers(0, 40), st.integers(0, 10**6), st.booleans())
def test_chunks_are_the_whole(chunk, group, disorder, seed, alone):
    "Any chunk, any row group; rows a little out of order, some again, some empty: what FileDataSource makes of the file."
    import tempfile
    rng = np.random.default_rng(seed)
    bars = MockDataSource(600, seed=seed).load(["A"] if alone else ["A", "B"])
    long = pd.concat([b.assign(symbol=k).reset_index() for k, b in bars.items()]).sort_values("time", kind="stable").reset_index(drop=True)
    long["funding"] = rng.normal(size=len(long))
    long.loc[rng.integers(0, len(long), 9), "funding"] = np.nan
    empty = rng.integers(0, len(long), 5)
    long.loc[empty, ["open", "high", "low", "close", "volume"]] = np.nan
    rows = np.argsort(np.arange(len(long)) + rng.uniform(0, disorder + 1e-9, len(long)), kind="stable")
    long = long.iloc[np.sort(np.append(np.arange(len(long)), rng.integers(0, len(long), 7)))].iloc[np.append(rows, np.arange(len(long), len(long) + 7))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)/"x.parquet"
        long.to_parquet(path, row_group_size=group, index=False)
        module.HELD_BACK, before = 200, module.HELD_BACK
        try: mapped = MappedParquet(path, chunk=max(chunk, 100), columns=["Funding"])
        finally: module.HELD_BACK = before
        whole = FileDataSource(path).load(columns=["Funding"])
        assert mapped.names() == sorted(whole)
        for name, want in whole.items(): pd.testing.assert_frame_equal(mapped.bars(name), want, check_freq=False, check_exact=True)
        mapped.verify()

@pytest.mark.parametrize("write", ["index", "named", "wide", "prices", "naive", "epoch"])
def test_layouts(write, frames, tmp_path):
    "Times in the index, one column a price, one column an asset, stamps without a zone, milliseconds."
    bars, path = frames["A"], tmp_path/"x.parquet"
    if write == "index": bars.rename_axis(None).to_parquet(path, row_group_size=300)
    elif write == "named": bars.rename_axis("Date").rename(columns=str.upper).to_parquet(path, row_group_size=300)
    elif write == "wide": pd.DataFrame({"KO": bars.close, "PEP": bars.open}).to_parquet(path, row_group_size=300)
    elif write == "prices": bars[["close"]].reset_index().to_parquet(path, row_group_size=300, index=False)
    elif write == "naive": bars.tz_localize(None).reset_index().to_parquet(path, row_group_size=300, index=False)
    else: bars.reset_index(drop=True).assign(timestamp=bars.index.asi8//10**6).to_parquet(path, row_group_size=300, index=False)
    whole, mapped = FileDataSource(path).load(), MappedParquet(path, chunk=250)
    assert mapped.names() == sorted(whole)
    for name, want in whole.items(): pd.testing.assert_frame_equal(mapped.bars(name), want, check_freq=False, check_exact=True)

DAYS = {"dates": lambda t: t.date, "numbers": lambda t: t.strftime("%Y%m%d").astype(int), "dots": lambda t: t.strftime("%Y.%m.%d"), "digits": lambda t: t.strftime("%Y%m%d")}
CLOCKS = {"times": lambda t: t.time, "numbers": lambda t: t.strftime("%H%M%S").astype(int), "colons": lambda t: t.strftime("%H:%M"), "digits": lambda t: t.strftime("%H%M%S")}

@pytest.mark.parametrize("day, clock", zip(DAYS, ("numbers", "times", "colons", "digits")))
def test_day_and_clock_in_two_columns(day, clock, frames, tmp_path):
    "As terminals write them; just after midnight a number says little, and a chunk that holds no other is read as the file is."
    bars = frames["A"].iloc[250:500]
    table = bars.assign(**{"<DATE>": DAYS[day](bars.index), "<TIME>": CLOCKS[clock](bars.index)}).rename(columns=lambda c: c if c[0] == "<" else f"<{c.upper()}>")
    table.to_parquet(tmp_path/"x.parquet", row_group_size=70, index=False)
    whole, mapped = FileDataSource(tmp_path/"x.parquet").load(), MappedParquet(tmp_path/"x.parquet", chunk=10)
    pd.testing.assert_frame_equal(mapped.bars("x"), whole["x"], check_freq=False, check_exact=True)
    assert len(whole["x"]) == 250 and whole["x"].index[0] == bars.index[0]

@pytest.mark.parametrize("columns, says", [(dict(date="%d/%m/%Y", time="%H:%M"), "column date: days are text"), (dict(date="%Y-%m-%d", time="%I %p"), "column time: times are text")])
def test_day_and_clock_that_need_the_whole_column(columns, says, frames, tmp_path):
    bars = frames["A"].iloc[:600]
    bars.assign(**{k: bars.index.strftime(v) for k, v in columns.items()}).to_parquet(tmp_path/"x.parquet", index=False)
    with pytest.raises(BarError, match=f"x.parquet: .*{says}"): MappedParquet(tmp_path/"x.parquet", chunk=100)

@pytest.mark.parametrize("change,says", [
    ((1777, "low", -1.), "x.parquet: row 1777 .*column low: -1.0 is not above 0"),
    ((1777, "high", np.inf), "row 1777 .*column high: inf is infinite"),
    ((1777, "close", np.nan), "row 1777 .*column close: nan is a missing price"),
    ((1000, "volume", -5.), "row 1000 .*column volume: -5.0 is below 0")])
def test_errors_name_the_row_of_the_file(change, says, frames, tmp_path):
    table = frames["A"].reset_index()
    table.loc[change[0], change[1]] = change[2]
    table.to_parquet(tmp_path/"x.parquet", row_group_size=400, index=False)
    with pytest.raises(BarError, match=says): MappedParquet(tmp_path/"x.parquet", chunk=400)
    with pytest.raises(BarError, match=says): FileDataSource(tmp_path/"x.parquet").load()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.parquet"]          # and nothing is left behind

@pytest.mark.parametrize("row", [398, 399, 400, 401])
@pytest.mark.parametrize("kind", ["spike", "again"])
def test_a_border_hides_nothing(row, kind, frames, tmp_path):
    "A slip of the decimal point, and a time with two values, on either side of a border between chunks."
    table = frames["A"].reset_index()
    if kind == "spike": table.loc[row, ["open", "high", "low", "close"]] *= 100.
    else: table.loc[row, "time"] = table.time[row - 1]
    table.to_parquet(tmp_path/"x.parquet", row_group_size=400, index=False)
    says = "times the close before and after" if kind == "spike" else f"the time of row {row - 1} comes again"
    with pytest.raises(BarError, match=rf"row {row} .*{says}"): MappedParquet(tmp_path/"x.parquet", chunk=400)

def test_a_file_that_is_not_sorted_is_refused(frames, tmp_path):
    table = frames["A"].reset_index()
    pd.concat([table[1500:], table[:1500]]).to_parquet(tmp_path/"x.parquet", index=False)
    with pytest.raises(BarError, match="the file goes back in time by more than a chunk; sort it"): MappedParquet(tmp_path/"x.parquet", chunk=300)
    pd.testing.assert_frame_equal(MappedParquet(tmp_path/"x.parquet", chunk=3000).bars("x"), frames["A"], check_freq=False)

def test_times_as_text_are_refused(frames, tmp_path):
    "What 01/02/2020 means is decided by a whole column; a chunk could decide otherwise."
    frames["A"].reset_index().assign(time=lambda f: f.time.astype(str)).to_parquet(tmp_path/"x.parquet", index=False)
    with pytest.raises(BarError, match="column time: times are text.*write them as timestamps"): MappedParquet(tmp_path/"x.parquet")

def test_broken_files(tmp_path, frames):
    with pytest.raises(BarError, match="no file is here"): MappedParquet(tmp_path/"none.parquet")
    with pytest.raises(BarError, match="only Parquet"): MappedParquet(tmp_path/"x.csv")
    frames["A"].to_parquet(tmp_path/"x.parquet")
    (tmp_path/"half.parquet").write_bytes((tmp_path/"x.parquet").read_bytes()[:-100])
    with pytest.raises(BarError, match="no whole Parquet file"): MappedParquet(tmp_path/"half.parquet")
    frames["A"][:0].to_parquet(tmp_path/"none.parquet")
    with pytest.raises(BarError, match="no rows|no row"): MappedParquet(tmp_path/"none.parquet")

def test_the_way_here_is_pointed_out(tmp_path, frames, monkeypatch):
    monkeypatch.setattr("synthlab.datasets.tables.MOST_ROWS", 5)
    frames["A"].to_parquet(tmp_path/"x.parquet")
    with pytest.raises(BarError, match="map it with MappedParquet of synthlab.datasets.mapped"): FileDataSource(tmp_path/"x.parquet").load()

# --- the folder --------------------------------------------------------------------------------------------------------

def test_the_folder_is_whole_or_not_there(path, monkeypatch):
    "Killed at any file that is written: no folder; killed at a second mapping: the first one."
    def fail(*a, **kw): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(AssetWriter, "finish", fail)
        with pytest.raises(KeyboardInterrupt): MappedParquet(path, chunk=500)
    assert [p.name for p in path.parent.iterdir()] == ["coins.parquet"]
    first = MappedParquet(path, chunk=500)
    facts = read_manifest(first.folder)
    os.utime(path, ns=(1, 1))                                       # another file, as far as anyone can tell
    with monkeypatch.context() as m:
        m.setattr(mapped_module, "write_manifest", fail)
        with pytest.raises(KeyboardInterrupt): MappedParquet(path, chunk=500)
    assert read_manifest(first.folder) == facts and len(list(path.parent.iterdir())) == 2
    assert MappedParquet(path).manifest["source"] != facts["source"]

def test_what_a_killed_mapping_leaves_is_removed_by_the_next(path, monkeypatch):
    "Its part of the arrays may be as large as the file, and nobody would ask for it again."
    def die(*a, **kw): os.kill(os.getpid(), signal.SIGKILL)
    if not (pid := os.fork()):
        AssetWriter.finish = die
        try: MappedParquet(path, chunk=500)
        finally: os._exit(0)
    os.waitpid(pid, 0)
    assert len(list(path.parent.iterdir())) == 2
    there = MappedParquet(path, chunk=500).folder
    assert sorted(path.parent.iterdir()) == sorted([path, there])

def test_a_stale_mapping_is_made_again(path, frames):
    old = MappedParquet(path)
    assert len(old.bars("A")) == 3000
    pd.concat([b[:2000].assign(symbol=k).reset_index() for k, b in frames.items()]).sort_values("time").to_parquet(path, index=False)
    assert len(MappedParquet(path).bars("A")) == 2000
    assert MappedParquet(path, columns=["volume"]).columns == []

def test_arrays_outlive_their_file(path):
    want = MappedParquet(path).bars("B")
    path.unlink()
    assert MappedParquet(path).bars("B").equals(want)

def test_an_array_of_the_wrong_size_is_made_again(path):
    mapped = MappedParquet(path)
    file = mapped.folder/"00000-times.npy"
    file.write_bytes(file.read_bytes()[:-8])
    MappedParquet(path).verify()
    (mapped.folder/"manifest.json").write_text("{")
    MappedParquet(path).verify()

def test_no_object_array_is_read(path):
    "NumPy's own way to hide a pickle in an array."
    mapped = MappedParquet(path)
    np.save(mapped.folder/"00000-times.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError): mapped.map("A", "times")

# --- features, windows, batches -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(ENGINEERS))
@pytest.mark.parametrize("chunk", [67, 400, 10_000])
def test_features_are_those_of_the_whole(name, chunk, path, frames):
    "Every engineer, chunks shorter and longer than its warm-up, gaps inside and at borders: bit for bit."
    engineer = create_engineer(name).fit([frames["A"][:1500]])
    mapped = MappedParquet(path, chunk=1000)
    mapped.chunk = chunk
    loader = MarketDataLoader(FrameDataSource(frames), engineer, lookback=20, horizon=6)
    whole, mine = loader.rows(engineer), mapped_gather(mapped, engineer, 20, 6)
    for k in ("features", "close", "scale", "times"):
        assert getattr(mine, k).numpy().tobytes() == getattr(whole, k).numpy().tobytes(), k

@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(80, 4000), st.integers(1, 40), st.integers(1, 20), st.integers(1, 9), st.integers(0, 70))
def test_windows_are_those_of_the_whole(chunk, lookback, horizon, stride, warmup):
    maps = _windows_case()
    maps.chunk = chunk
    mine = mapped_windows(maps, lookback, horizon, stride, warmup)
    times = [np.array(maps.map(n, "times")) for n in maps.names()]
    segments = [np.searchsorted(maps.breaks(n), np.arange(len(t)), "right") for n, t in zip(maps.names(), times)]
    whole = find_windows(times, [np.ones(len(t), bool) for t in times], segments, lookback, horizon, stride, warmup)
    for k in ("asset", "row", "starts_at", "decided_at", "ends_at"): assert np.array_equal(getattr(mine, k), getattr(whole, k)), k

def _windows_case(cache={}):
    if not cache:
        import atexit, tempfile
        folder = Path(tempfile.mkdtemp()); atexit.register(shutil.rmtree, folder, True)
        found = MockDataSource(3000, seed=8).load(["A", "B"])
        found["B"] = found["B"].drop(found["B"].index[[*range(900, 940), *range(1500, 1503)]]).iloc[100:]
        pd.concat([b.assign(symbol=k).reset_index() for k, b in found.items()]).to_parquet(folder/"x.parquet", index=False)
        cache["maps"] = MappedParquet(folder/"x.parquet")
    return cache["maps"]

def test_a_fold_is_the_loaders(path, frames):
    val, test = frames["A"].index[1800], frames["A"].index[2400]
    mapped = MappedParquet(path, chunk=500)
    options = dict(future=["sessions"], static="asset")
    fold = mapped_fold(mapped, "ohlcv", val, test, embargo="1h", lookback=20, horizon=6, eval_stride=3, seed=4, **options)
    loader = MarketDataLoader(FrameDataSource(frames), "ohlcv", lookback=20, horizon=6, seed=4, **options)
    want = loader.static_holdout(val, test, embargo="1h", eval_stride=3, engineer=fold.engineer)
    assert audit_split(fold.windows, fold.split, "1h") == []
    for one, two in zip(fold, want):
        for position in (0, len(two) - 1):
            a, b = one.batch(2, position), two.batch(2, position)
            assert set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)

def test_an_engineer_is_fitted_on_train_rows_alone(path, frames):
    "Stretches or all, no row after the last train target is read."
    mapped, until = MappedParquet(path), int(frames["A"].index[1500].value)
    changed = pd.concat([b.mul(np.where(b.index > frames["A"].index[1500], 3., 1.), axis=0).assign(symbol=k).reset_index() for k, b in frames.items()])
    changed.to_parquet(path.with_name("changed.parquet"), index=False)
    other = MappedParquet(path.with_name("changed.parquet"))
    for rows in (10**6, 2500):
        one, two = (fit_mapped(m, create_engineer("range_volatility"), until, rows, stretches=4).state() for m in (mapped, other))
        assert json.dumps(one) == json.dumps(two)
    exact = create_engineer("range_volatility").fit([frames["A"][:1501], *(p for p in np_split(frames["B"], until))]).state()
    assert json.dumps(fit_mapped(mapped, create_engineer("range_volatility"), until).state()) == json.dumps(exact)

def np_split(bars, until):
    "The stretches of bars up to a stamp."
    bars = bars[bars.index.as_unit("ns").asi8 <= until]
    edges = [0, *(np.flatnonzero(np.diff(bars.index.asi8) > 450*10**9) + 1), len(bars)]
    return [bars.iloc[i:j] for i, j in zip(edges, edges[1:]) if j - i > 66]

def test_one_sentence_when_nothing_fits(path):
    mapped = MappedParquet(path)
    with pytest.raises(SplitError, match="coins.parquet has no window of 66.4000.12 rows"): mapped_fold(mapped, lookback=4000)
    with pytest.raises(ValueError, match="raise rows"): fit_mapped(mapped, create_engineer("zscore"), int(mapped.map("A", "times")[-1]), rows=100)

def test_it_is_a_source(path, frames):
    "The loader takes a mapped file like any other source."
    loader = MarketDataLoader(MappedParquet(path), lookback=20, horizon=6, assets=["b"])
    pd.testing.assert_frame_equal(loader.bars["B"], frames["B"], check_freq=False)

# --- memory, and training ----------------------------------------------------------------------------------------------

WORK = """
import sys, tracemalloc, pyarrow as pa, numpy as np
from synthlab.datasets.mapped import MappedParquet, fit_mapped, mapped_fold
from synthlab.datasets.features import create_engineer
pa.set_memory_pool(pool := pa.system_memory_pool())
tracemalloc.start()
mapped = MappedParquet(sys.argv[1], chunk=8192)
fold = mapped_fold(mapped, lookback=64, horizon=12, stride=16, fit_rows=20_000, batch_size=64)
batch = fold.train.batch(0, 0)
assert np.isfinite(batch["history"].numpy()).all() and batch["history"].shape == (64, 64, 17)
print(tracemalloc.get_traced_memory()[1] + pool.max_memory(), len(fold.windows))
"""

def test_memory_follows_the_chunk(tmp_path):
    "600 000 rows of 29 MB: mapped, features and windows found and a batch made with a fraction of that in memory."
    pieces = MockDataSource(60_000, freq="1min", seed=5).load("BIG")["BIG"]
    table = pd.concat([pieces.set_axis(pieces.index + k*pd.Timedelta("60000min")) for k in range(10)])
    table.to_parquet(tmp_path/"big.parquet", row_group_size=8192)
    size = 600_000*6*8
    out = subprocess.run([sys.executable, "-c", WORK, str(tmp_path/"big.parquet")], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    most, windows = map(int, out.stdout.split())
    assert most < size/2 and windows > 37_000, most

def test_a_model_trains_from_the_disk(path, frames):
    "The same steps, to the bit, as from memory."
    from synthlab.models.synth import create_model
    from synthlab.trainers.objectives import PathObjective
    def trained(fold):
        model = create_model({"backbone": {"input_size": 17, "d_model": 8, "blocks": ["lstmblock"]}, "head": "gbm"}, seed=0)
        objective = PathObjective(model, 6, n_paths=8)
        descend = torch.optim.Adam(model.parameters(), 1e-2)
        losses = []
        for position in range(4):
            loss = objective.loss(fold.train.batch(0, position), "model", torch.Generator().manual_seed(position))[0]
            descend.zero_grad(); loss.backward(); descend.step()
            losses.append(loss.item())
        return losses
    val, test = frames["A"].index[1800], frames["A"].index[2400]
    fold = mapped_fold(MappedParquet(path, chunk=500), "range_volatility", val, test, lookback=20, horizon=6)
    loader = MarketDataLoader(FrameDataSource(frames), lookback=20, horizon=6)
    losses = trained(fold)
    assert losses == trained(loader.static_holdout(val, test, engineer=fold.engineer)) and np.isfinite(losses).all()
