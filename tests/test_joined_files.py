"Several files of one asset are one asset where their times do not overlap, and a question where they do."
import re, warnings
import pandas as pd, pytest

from synthlab.datasets.bars import BarError
from synthlab.datasets.sources import FileDataSource, MockDataSource

whole = MockDataSource(3000, "1h").load()["MOCK"]
months = [part for _, part in whole.groupby(whole.index.tz_localize(None).to_period("M"))]

def write(folder, names, frames, **more):
    for name, frame in zip(names, frames):
        path = folder/name; path.parent.mkdir(parents=True, exist_ok=True)
        frame = frame.assign(**more)
        if path.suffix == ".csv": frame.to_csv(path)
        else: frame.to_parquet(path)

def load(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return FileDataSource(folder).load()

LAYOUTS = {     # file names of five parts, and the asset's name; F: the folder's
    "monthly files of an exchange": ([f"BTCUSDT-1h-2020-{m:02d}.csv" for m in range(1, 6)], "BTCUSDT-1h"),
    "days": ([f"BTCUSDT_202001{m:02d}.csv" for m in range(1, 6)], "BTCUSDT"),
    "years": ([f"AAPL_{y}.csv" for y in range(2019, 2024)], "AAPL"),
    "quarters": ([f"AAPL 2020Q{q}.parquet" for q in range(1, 5)] + ["AAPL 2021Q1.parquet"], "AAPL"),
    "months alone": ([f"2020-{m:02d}.csv" for m in range(1, 6)], "F"),
    "parts of a writer": ([f"part-{k:05d}-1b2c-c000.snappy.parquet" for k in range(5)], "F"),
    "parts, the last first": ([f"part-{k:05d}.parquet" for k in range(5)][::-1], "F"),
    "hive": ([f"year=2020/month={m}/part-0.parquet" for m in range(1, 6)], "F"),
    "hive by symbol": ([f"symbol=ETH/year=2020/month={m}/data.parquet" for m in range(1, 6)], "ETH"),
}

@pytest.mark.parametrize("name", LAYOUTS)
def test_parts_are_joined(name, tmp_path):
    names, asset = LAYOUTS[name]
    folder = tmp_path/"coins"; write(folder, names, months)
    bars = load(folder)
    assert list(bars) == ["coins" if asset == "F" else asset]
    pd.testing.assert_frame_equal(bars.popitem()[1], whole, check_freq=False)

def test_several_assets_side_by_side(tmp_path):
    write(tmp_path, [f"BTC-2020-{m:02d}.csv" for m in range(1, 6)], months); write(tmp_path, [f"ETH-2020-{m:02d}.csv" for m in range(1, 6)], [2*p for p in months])
    write(tmp_path, ["SOL.csv", "XRP-2020-01.csv"], [whole, months[0]])
    bars = load(tmp_path)
    assert {k: len(b) for k, b in bars.items()} == {"BTC": 3000, "ETH": 3000, "SOL": 3000, "XRP-2020-01": len(months[0])}, "a file alone keeps its name"

def test_a_column_of_symbols(tmp_path):
    write(tmp_path, ["jan.csv", "feb.csv"], months[:2], symbol="BTC")
    assert len(load(tmp_path)["BTC"]) == len(months[0]) + len(months[1])

@pytest.mark.parametrize("names", [["A-2020-01.csv", "A-2020-02.csv"], ["A.csv", "A.parquet"], ["part-0.parquet", "part-1.parquet"]])
def test_an_overlap_is_a_question(names, tmp_path):
    write(tmp_path, names, [whole[:500], whole[499:900]])
    with pytest.raises(BarError, match=re.escape(f"is also in {names[0]}, and both have bars from {whole.index[499]} to {whole.index[499]}; give one of the two")) as e: load(tmp_path)
    assert names[1] in str(e.value)

def test_files_that_are_no_parts(tmp_path):
    "Tickers that end in numbers, and futures by their month, stay assets of their own where nothing says otherwise."
    write(tmp_path, ["R2000.csv", "R1000.csv", "FTSE100.csv", "asset_1.csv", "asset_2.csv"], [whole]*5)
    assert list(load(tmp_path)) == ["FTSE100", "R1000", "R2000", "asset_1", "asset_2"]

def test_other_columns_are_refused(tmp_path):
    write(tmp_path, ["A-2020-01.csv", "A-2020-02.csv"], [months[0], months[1].rename(columns={"open": "price_open"})])
    with pytest.raises(BarError, match="A-2020-02.csv: its columns are .*, those of A-2020-01.csv"): load(tmp_path)

def test_an_error_names_the_file_and_its_line(tmp_path):
    bad = months[1].copy(); bad.iloc[7, 3] = -1.
    write(tmp_path, ["A-2020-01.csv", "A-2020-02.csv"], [months[0], bad])
    with pytest.raises(BarError, match=r"row 7 of A-2020-02.csv, line 9") as e: load(tmp_path)
    assert e.value.row == len(months[0]) + 7

def test_a_date_is_read_from_all_of_them(tmp_path):
    "Day or month first is settled by the asset's files together."
    for k, days in enumerate((range(1, 13), range(13, 29))):
        (tmp_path/f"A-2020-0{k + 1}.csv").write_text("date,close\n" + "".join(f"{d:02d}/02/2020,{100 + d}\n" for d in days))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert FileDataSource(tmp_path).load()["A"].index[0] == pd.Timestamp("2020-02-01", tz="UTC")
