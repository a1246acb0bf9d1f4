"""The hub and the exchanges, without a network: the client libraries run, and what would come down the line is recorded."""
import json
import os
import sys
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from synthlab.datasets import remote
from synthlab.datasets.bars import BarError, BarWarning, FIELDS
from synthlab.datasets.market import MarketDataLoader
from synthlab.datasets.remote import CcxtSource, HFOHLCVSource, HFParquetSource, fetch_file, fetch_pages, write_table
from synthlab.datasets.sources import FileDataSource, FrameDataSource, MockDataSource, get_source

if not find_spec("ccxt"): pytest.skip("ccxt is not here", allow_module_level=True)       # imported in two seconds: by the worker that needs it
hub = pytest.importorskip("huggingface_hub")
import requests  # noqa: E402

# --- further columns ---------------------------------------------------------------------------------------------------

@pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.permutations(range(12)), st.lists(st.integers(0, 11), max_size=4), st.sets(st.integers(0, 11)))
def test_further_columns_follow_their_rows(order, again, unknown):
    "Out of order, repeated, with holes: each number stays beside its bar."
    bars = MockDataSource(12).load("A")["A"]
    table = bars.reset_index().assign(Funding=[np.nan if i in unknown else float(i) for i in range(12)])
    found = FrameDataSource(table.iloc[[*order, *again]].reset_index(drop=True)).load(columns=["FUNDING"])["bars"]
    assert list(found) == [*FIELDS, "FUNDING"] and found.FUNDING.dtype == np.float64
    assert np.array_equal(found.FUNDING, table.Funding, equal_nan=True)

def test_further_columns_from_files(tmp_path):
    table = pd.concat([b.assign(symbol=k, trades=range(50)).reset_index() for k, b in MockDataSource(50).load(["A", "B"]).items()])
    for suffix in ("csv", "parquet"):
        getattr(table, f"to_{suffix}")(tmp_path/f"x.{suffix}", index=False)
        found = FileDataSource(tmp_path/f"x.{suffix}").load(["B", "A"], columns="trades")
        assert [b.trades.tolist() for b in found.values()] == [[*range(50)]]*2
    with pytest.raises(BarError, match="did you mean trades"): FileDataSource(tmp_path/"x.csv").load("A", columns=["trade"])
    table = table.reset_index(drop=True).astype({"trades": float})
    table.loc[7, "trades"] = np.inf
    with pytest.raises(BarError, match="row 7 .*column trades: inf is infinite"): FrameDataSource(table).load("A", columns=["trades"])

def test_a_flag_is_a_column_and_a_date_is_none():
    table = MockDataSource(3).load("A")["A"].reset_index().assign(halted=[True, False, True], settled=pd.Timestamp("2024-01-01"))
    assert FrameDataSource(table).load(columns=["halted"])["bars"].halted.tolist() == [1., 0., 1.]
    with pytest.raises(BarError, match="is not a number"): FrameDataSource(table).load(columns=["settled"])

# --- the hub -----------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"

@pytest.fixture(scope="module")
def truth(): return MockDataSource(400, seed=9).load(["BTC_USD", "ETH_USD"])

@pytest.fixture
def cache(tmp_path, truth):
    "A cache as the hub's client lays it out."
    root = tmp_path/"datasets--lab--bars"
    for folder in ("refs", "blobs"): (root/folder).mkdir(parents=True)
    (root/"refs"/"main").write_text(COMMIT)
    for i, (name, bars) in enumerate(truth.items()):
        bars.reset_index(names="date").to_parquet(root/"blobs"/f"{i:040x}", index=False)
        there = root/"snapshots"/COMMIT/name/"data.parquet"
        there.parent.mkdir(parents=True); there.symlink_to(root/"blobs"/f"{i:040x}")
    return tmp_path

def test_a_repository_is_a_source(cache, truth):
    source = HFOHLCVSource("lab/bars", folder=cache, offline=True)
    assert source.names() == ["BTC_USD", "ETH_USD"]
    for name, bars in source.load().items(): pd.testing.assert_frame_equal(bars, truth[name], check_freq=False)
    loader = MarketDataLoader(f"hf://lab/bars@{COMMIT}?folder={cache}&offline=1", lookback=20, horizon=5, assets=["eth_usd"])
    assert loader.names == ("ETH_USD",) and len(loader.windows) == 400 - 66 - 19 - 5

def test_with_a_commit_the_cache_is_used_without_asking(cache, monkeypatch):
    "A pinned revision needs no network at all, although the source is not offline."
    import huggingface_hub.file_download as download
    def asked(*a, **kw): raise AssertionError("the hub was asked")
    for name in ("get_hf_file_metadata", "http_get"):
        if hasattr(download, name): monkeypatch.setattr(download, name, asked)
    assert fetch_file("lab/bars", "BTC_USD/data.parquet", COMMIT, folder=cache).is_file()

def _answers(error, **kw):
    "An error of the hub as its client raises it."
    import huggingface_hub.errors as errors
    kind = getattr(errors, error)
    try: return kind("404 Client Error\nmore\nlines", **kw)
    except TypeError:
        response = type("Response", (), {"headers": {}, "request": None, "status_code": 404, "text": "", "json": lambda self: {}})()
        return kind("404 Client Error\nmore\nlines", response=response)

@pytest.mark.parametrize("error,says", [
    ("GatedRepoError", "asks for consent"), ("RepositoryNotFoundError", "there is no such dataset on the hub, or it is private"),
    ("RevisionNotFoundError", "there is no revision 'v2'"), ("LocalEntryNotFoundError", "the hub cannot be reached"),
    ("EntryNotFoundError", "the repository has no such file"), ("RemoteEntryNotFoundError", "the repository has no such file"),
    ("HfHubHTTPError", "could not be fetched")])
def test_the_hubs_errors_are_one_sentence(error, says, monkeypatch):
    def fail(*a, **kw): raise _answers(error)
    monkeypatch.setattr(hub, "hf_hub_download", fail)
    with pytest.raises(BarError, match=says) as e: fetch_file("lab/bars", "x.parquet", "v2")
    assert "\n" not in str(e.value) and "lab/bars/x.parquet" in str(e.value)

def test_what_is_downloaded_is_what_is_asked_for(tmp_path, monkeypatch, truth):
    truth["BTC_USD"].to_parquet(tmp_path/"x.parquet")
    seen = {}
    def download(repo_id, filename, **kw): seen.update(kw, repo_id=repo_id, filename=filename); return str(tmp_path/"x.parquet")
    monkeypatch.setattr(hub, "hf_hub_download", download)
    bars = HFParquetSource("lab/bars", "a/b.parquet", revision=COMMIT, repo_type="model", folder=tmp_path).load()
    assert list(bars) == ["b"]
    assert seen == dict(repo_id="lab/bars", filename="a/b.parquet", revision=COMMIT, repo_type="model", cache_dir=tmp_path, local_files_only=False)

def test_columns_by_other_names(tmp_path, monkeypatch, truth):
    bars = truth["BTC_USD"]
    odd = pd.DataFrame({"when": bars.index, "coin": "BTC", "last": bars.close, "close": 1., "time": "now"})
    odd.to_parquet(tmp_path/"x.parquet", index=False)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a, **kw: str(tmp_path/"x.parquet"))
    with pytest.warns(BarWarning, match="only one price"):
        found = HFParquetSource("lab/bars", "x.parquet", timestamp_column="when", asset_column="coin", price_column="last").load()
    assert found["BTC"].close.tolist() == bars.close.tolist()
    with pytest.raises(BarError, match="timestamp_column='wen', but no column is called so; did you mean when"):
        HFParquetSource("lab/bars", "x.parquet", timestamp_column="wen").load()

def test_a_pickle_in_a_repository_is_not_read(tmp_path, monkeypatch):
    (tmp_path/"bars.pkl").write_bytes(b"\x80\x04.")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *a, **kw: str(tmp_path/"bars.pkl"))
    with pytest.raises(BarError, match="only CSV and Parquet"): HFParquetSource("lab/bars", "bars.pkl").load()

@pytest.mark.parametrize("package,use", [("huggingface_hub", lambda: fetch_file("lab/bars", "x.parquet")),
    ("ccxt", lambda: CcxtSource().load())])
def test_without_the_package_one_sentence(package, use, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'this source cannot be had without {package}; type python -m pip install "{package}>='): use()

def test_importing_the_module_imports_neither():
    import subprocess
    code = "import sys, synthlab.datasets.remote; print(any(m in sys.modules for m in ('ccxt', 'huggingface_hub')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

# --- exchanges ---------------------------------------------------------------------------------------------------------

# Binance's answers: what it trades, three klines, a market that it does not have
EXCHANGE_INFO = """{"timezone":"UTC","serverTime":1704067500000,"rateLimits":[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE",
"intervalNum":1,"limit":6000}],"exchangeFilters":[],"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC",
"baseAssetPrecision":8,"quoteAsset":"USDT","quotePrecision":8,"quoteAssetPrecision":8,"baseCommissionPrecision":8,
"quoteCommissionPrecision":8,"orderTypes":["LIMIT","LIMIT_MAKER","MARKET"],"icebergAllowed":true,"ocoAllowed":true,
"quoteOrderQtyMarketAllowed":true,"isSpotTradingAllowed":true,"isMarginTradingAllowed":true,"filters":[{"filterType":"PRICE_FILTER",
"minPrice":"0.01000000","maxPrice":"1000000.00000000","tickSize":"0.01000000"},{"filterType":"LOT_SIZE","minQty":"0.00001000",
"maxQty":"9000.00000000","stepSize":"0.00001000"}],"permissions":[],"permissionSets":[["SPOT","MARGIN"]]}]}"""
KLINES = """[[1704067200000,"42283.58000000","42298.62000000","42261.02000000","42298.61000000","35.92724000",1704067259999,
"1519032.45678900",1327,"22.31000000","943291.10000000","0"],[1704067260000,"42298.62000000","42320.00000000","42298.61000000",
"42320.00000000","21.16779000",1704067319999,"895577.37123400",1348,"13.24000000","560201.90000000","0"],[1704067320000,
"42319.99000000","42331.54000000","42319.99000000","42325.50000000","21.60391000",1704067379999,"914371.52000000",1019,
"11.11000000","470200.00000000","0"]]"""
INVALID = (400, '{"code":-1121,"msg":"Invalid symbol."}')
BUSY = (429, '{"code":-1003,"msg":"Too much request weight used; current limit is 6000 request weight per 1 MINUTE."}')
FIRST, MINUTE = 1704067200000, 60_000

class Recorded(requests.adapters.BaseAdapter):
    "Answers what would go down the line: `klines(start, limit)` gives rows, or a status and a text."
    def __init__(self, klines, now):
        super().__init__()
        self.klines, self.now, self.starts = klines, now, []
    def send(self, request, **kw):
        path, _, query = request.path_url.partition("?")
        ask, status = dict(p.split("=") for p in query.split("&") if p), 200
        if path.endswith("/exchangeInfo"): text = EXCHANGE_INFO
        elif path.endswith("/time"): text = json.dumps({"serverTime": self.now})
        elif path.endswith("/klines"):
            self.starts.append((int(ask["startTime"]) - FIRST)//MINUTE)
            text = self.klines(int(ask["startTime"]), int(ask["limit"]))
            if isinstance(text, tuple): status, text = text
            elif not isinstance(text, str): text = json.dumps(text)
        else: raise AssertionError(f"nothing is recorded for {request.url}")
        answer = requests.Response()
        answer.status_code, answer._content, answer.url, answer.request = status, text.encode(), request.url, request
        answer.headers["Content-Type"], answer.reason = "application/json", {200: "OK"}.get(status, "Bad Request")
        return answer
    def close(self): pass

def kline(i, final=True):
    p = 42000 + 10*np.sin(i)
    return [FIRST + MINUTE*i, *(f"{p + x:.8f}" for x in (0, 5, -5, 1)), "12.50000000" if final else "0.10000000",
        FIRST + MINUTE*i + 59_999, "525000.0", 321, "6.0", "252000.0", "0"]

def listed(rows, most=20): return lambda start, limit: [k for k in rows if k[0] >= start][:min(limit, most)]

def source(line, folder, **kw):
    import ccxt
    client = ccxt.binance({"enableRateLimit": False, "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}})
    client.session.mount("https://", line)
    return CcxtSource("binance", **({"symbols": "BTC/USDT", "timeframe": "1m", "since": "2024-01-01", "client": client, "folder": folder,
        "progress": False} | kw))

def test_binances_own_words(tmp_path):
    line = Recorded(lambda start, limit: KLINES if start <= FIRST else "[]", FIRST + 3*MINUTE)
    bars = source(line, tmp_path).load()["BTC/USDT"]
    assert bars.index.tolist() == list(pd.date_range("2024-01-01", periods=3, freq="min", tz="UTC"))
    assert bars.iloc[1].tolist() == [42298.62, 42320., 42298.61, 42320., 21.16779]

def test_the_unfinished_bar_is_left_out_and_comes_later_whole(tmp_path):
    "The last bar has the right time and the wrong numbers until its time is over."
    rows = [kline(i) for i in range(9)] + [kline(9, final=False)]
    line = Recorded(listed(rows), FIRST + 9*MINUTE + 59_999)
    assert len(source(line, tmp_path).load()["BTC/USDT"]) == 9
    rows[9] = kline(9); line.now += 1
    bars = source(line, tmp_path).load()["BTC/USDT"]
    assert len(bars) == 10 and bars.volume.tolist() == [12.5]*10

@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.sets(st.integers(0, 200), min_size=1), st.integers(1, 50), st.integers(0, 60), st.data())
def test_pages_are_the_list(opens, most, late, data):
    "However many bars a page has, in whatever order, with holes, and at whichever start: each bar once, in order."
    class Exchange:
        def fetch_ohlcv(self, symbol, timeframe, since, limit):
            rows = [[t, 1., 1., 1., 1., float(t)] for t in sorted(opens) if since <= t < since + 2*limit][:min(limit, most)]
            return data.draw(st.permutations(rows + rows[:2] + [[since - 1]*6]*late))
    pages = list(fetch_pages(Exchange(), "X", "1m", late, 201, 1, page=60))
    assert [r[0] for page in pages for r in page] == sorted(t for t in opens if t >= late)

def test_a_cut_line_loses_nothing(tmp_path):
    "An hour of downloading is not begun again."
    rows, answers = [kline(i) for i in range(100)], listed([kline(i) for i in range(100)])
    def cut(start, limit):
        if start >= FIRST + 60*MINUTE: raise requests.ConnectionError("reset by peer")
        return answers(start, limit)
    line = Recorded(cut, FIRST + 100*MINUTE)
    with pytest.raises(BarError, match="does not answer .NetworkError.* it goes on after the 60 bars that are kept"): source(line, tmp_path).load()
    line.klines, line.starts = listed(rows), []
    assert len(source(line, tmp_path).load()["BTC/USDT"]) == 100 and line.starts[0] == 60

def test_older_bars_that_did_not_all_come_leave_no_hole(tmp_path):
    "Asked for an earlier start, cut in the middle: the cache keeps what it had, and the next call has no gap."
    rows = [kline(i) for i in range(-100, 50)]
    line = Recorded(listed(rows), FIRST + 50*MINUTE)
    source(line, tmp_path).load()
    def cut(start, limit):
        if start >= FIRST - 60*MINUTE: raise requests.ConnectionError("reset by peer")
        return listed(rows)(start, limit)
    line.klines = cut
    early = dict(since="2023-12-31 22:20")
    with pytest.raises(BarError, match="the 50 bars that are kept"): source(line, tmp_path, **early).load()
    assert sorted(source(line, tmp_path).cached("BTC/USDT")[0])[0] == FIRST
    line.klines = listed(rows)
    bars = source(line, tmp_path, **early).load()["BTC/USDT"]
    assert len(bars) == 150 and (np.diff(bars.index.asi8) == MINUTE*10**6).all()
    line.starts = []
    assert len(source(line, tmp_path, **early).load()["BTC/USDT"]) == 150 and line.starts == []         # nothing new, nothing asked

def test_a_coin_that_was_listed_late(tmp_path):
    "Empty pages before the first bar are not the end, and are not asked for again."
    rows = [kline(i) for i in range(400, 450)]
    window = lambda start, limit: [k for k in rows if start <= k[0] < start + 100*MINUTE]               # an exchange that looks no farther
    line = Recorded(window, FIRST + 450*MINUTE)
    assert len(source(line, tmp_path).load()["BTC/USDT"]) == 50
    line.now, line.starts = line.now + MINUTE, []
    rows.append(kline(450))
    assert len(source(line, tmp_path).load()["BTC/USDT"]) == 51 and line.starts == [450]

def test_a_page_that_failed_is_no_hole(tmp_path):
    "A word of maintenance in the place of bars reads like an empty page; it must not become a gap."
    rows, left = [kline(i) for i in range(300)], ["<html>maintenance</html>"]
    def sometimes(start, limit): return left.pop() if start >= FIRST + 100*MINUTE and left else listed(rows)(start, limit)
    bars = source(Recorded(sometimes, FIRST + 300*MINUTE), tmp_path).load()["BTC/USDT"]
    assert len(bars) == 300 and not left

@pytest.mark.parametrize("answer,says", [(INVALID, "there is no such market; did you mean BTC/USDT"),
    (BUSY, "the exchange does not answer .DDoSProtection|the exchange does not answer .RateLimitExceeded"),
    ((503, "gone"), "the exchange does not answer .ExchangeNotAvailable")])
def test_the_exchanges_errors_are_one_sentence(answer, says, tmp_path):
    line = Recorded(lambda start, limit: answer, FIRST + 10*MINUTE)
    with pytest.raises(BarError, match=says) as e: source(line, tmp_path).load()
    assert "\n" not in str(e.value)

def test_bars_of_an_exchange_are_checked_like_any_others(tmp_path):
    rows = [kline(i) for i in range(10)]
    rows[4][3] = "99999.00000000"                                   # a low above the high
    with pytest.raises(BarError, match=r"binance BTC/USDT: row 4 .*is a high below its low"): source(Recorded(listed(rows), FIRST + 10*MINUTE), tmp_path).load()
    rows[4][1:6] = [None]*5
    with pytest.warns(BarWarning, match="1 rows without any price"):
        assert len(source(Recorded(listed(rows), FIRST + 10*MINUTE), tmp_path/"b").load()["BTC/USDT"]) == 9

def test_limit_and_since(tmp_path):
    line = Recorded(listed([kline(i) for i in range(100)], 1000), FIRST + 100*MINUTE)
    assert source(line, tmp_path, since=None, limit=30).load()["BTC/USDT"].index[0] == pd.Timestamp(FIRST + 70*MINUTE, unit="ms", tz="UTC")
    assert len(source(line, tmp_path, since=None, limit=60).load()["BTC/USDT"]) == 60                  # earlier ones are fetched
    assert len(source(line, tmp_path, since=None, limit=20, offline=True).load()["BTC/USDT"]) == 20
    assert len(source(line, tmp_path, since="2024-01-01 01:00", offline=True).load()["BTC/USDT"]) == 40
    with pytest.raises(BarError, match="it is not in the cache"): source(line, tmp_path/"none", offline=True).load()

@pytest.mark.parametrize("broken", ["replace", "write"])
def test_the_cache_is_the_old_file_or_the_new_one(broken, tmp_path, monkeypatch):
    line = Recorded(listed([kline(i) for i in range(30)]), FIRST + 20*MINUTE)
    source(line, tmp_path).load()
    file = source(line, tmp_path).path("BTC/USDT")
    before = file.read_bytes()
    line.now = FIRST + 30*MINUTE
    def fail(*a, **kw): raise OSError("no space left")
    monkeypatch.setattr(*((os, "replace") if broken == "replace" else (remote.pa.parquet, "write_table")), fail)
    with pytest.raises(OSError): source(line, tmp_path).load()
    assert file.read_bytes() == before and [p.name for p in file.parent.iterdir()] == [file.name]

def test_specs(tmp_path):
    s = get_source("ccxt://Kraken/btc/usd,ETH/USD?timeframe=1h&since=2024-01-01&page=500")
    assert isinstance(s, CcxtSource) and (s.exchange, s.symbols, s.step, s.page, s.since) == ("kraken", ["BTC/USD", "ETH/USD"], 3_600_000, 500, FIRST)
    s = get_source("hf://datasets/lab/bars@v1/a/b.parquet?asset_column=coin")
    assert isinstance(s, HFParquetSource) and (s.files, s.place["revision"], s.columns) == (["a/b.parquet"], "v1", {"asset_column": "coin"})
    assert isinstance(get_source("hf://lab/bars?filename_pattern={asset}.csv"), HFOHLCVSource)
    for spec in ("hf://lab", "ccxt://binance", "hf://lab/bars?asset_colum=x", "ccxt://binance/BTC/USDT?limit=many", "hf://lab/bars?name=x"):
        with pytest.raises(BarError) as e: get_source(spec)
        assert spec in str(e.value)

def test_write_table_makes_its_folder(tmp_path):
    write_table(remote.pa.table({"x": [1]}), tmp_path/"a"/"b.parquet")
    assert pd.read_parquet(tmp_path/"a"/"b.parquet").x.tolist() == [1]
