"""A window is asked for the label of its last candle, or of the next; both ways the counts are known, and no answer that trains lies in prices that another part is tested on."""
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st
from synthlab.datasets.audit import LeakError, audit_leaks, audit_split
from synthlab.datasets.sources import FrameDataSource, MockDataSource
from synthlab.datasets.candles import PriceActionEngineer
from synthlab.datasets.indicators import atr
from synthlab.datasets.labels import buy_label
from synthlab.datasets.signals import SignalLoader
from synthlab.datasets.splits import Split, find_windows
from synthlab.labs.signal.experiment import weight_of_buys
from synthlab.labs.signal.settings import load_signals, signal_config

CRYPTO = Path(__file__).parent.parent.parent/"shared/data/crypto_5m_usdt_2025.parquet"
ROWS = 1100

@pytest.fixture(scope="module")
def frames():
    "Two assets, one of them late and with a hole of ten candles."
    found = MockDataSource(length=ROWS, freq="5min", seed=2).load(["A", "B"])
    return {"A": found["A"], "B": found["B"].drop(found["B"].index[480:490]).iloc[50:]}

@pytest.fixture(scope="module")
def loader(frames): return SignalLoader(FrameDataSource(frames), lookback=32, atr_multiplier=1.)

def stretches(bars):
    "Rows before the hole, and after."
    at = np.flatnonzero(np.diff(bars.index.asi8) > 1.5*np.diff(bars.index.asi8).min()) + 1
    return np.split(np.arange(len(bars)), at)

def wilder(bars, n=14):
    "Average true range, one candle after the other."
    h, l, c = (bars[k].to_numpy(float) for k in ("high", "low", "close"))
    out, seen, last = np.full(len(c), math.nan), [], None
    for t in range(1, len(c)):
        x = max(h[t] - l[t], abs(h[t] - c[t-1]), abs(l[t] - c[t-1]))
        if last is None:
            seen.append(x)
            if len(seen) == n: last = out[t] = sum(seen)/n
        else: last = out[t] = last + (x - last)/n
    return out

@pytest.mark.parametrize("horizon,multiplier", [(4, 1.), (1, .5), (9, 2.)])
def test_labels_by_hand(frames, horizon, multiplier):
    "One row after the other: the close so many rows later, or the first open after a hole, against this close and its own range, which begins anew there."
    loader = SignalLoader(FrameDataSource(frames), lookback=32, horizon=horizon, atr_multiplier=multiplier)
    for name, label in zip(loader.names, loader.labels):
        bars, expected = frames[name], []
        for rows in stretches(bars):
            part = bars.iloc[rows]; c, usual = part["close"].to_numpy(), wilder(part)
            after = [bars["open"].iloc[rows[-1] + 1]]*horizon if rows[-1] + 1 < len(bars) else []      # closed at the first price after the hole
            ahead = [*c, *after]
            there = [t + horizon < len(ahead) and not math.isnan(usual[t]) for t in range(len(c))]
            expected += [float(ahead[t + horizon] - c[t] > multiplier*usual[t]) if there[t] else math.nan for t in range(len(c))]
        np.testing.assert_array_equal(label, expected)
        assert 0 < np.nanmean(label) < 1 and np.isnan(label[:14]).all() and np.isnan(label[-horizon:]).all()
        assert np.array_equal(label[:400], buy_label(bars["close"], atr(*(bars[k].to_numpy() for k in ("high", "low", "close"))), horizon, multiplier)[:400], equal_nan=True)

def test_batches_ask_what_the_loader_says(loader):
    "History, decision and label of each window, from the rows themselves."
    fold = loader.static_holdout(.6, .8)
    rows = fold.train.gather
    for part in fold:
        batch = rows.gather(part.asset, part.row)
        for i in (0, len(part.index)//2, len(part.index) - 1):
            a, t = int(part.asset[i]), int(part.row[i])
            name = loader.names[a]
            first = int(rows.first[a])
            assert torch.equal(batch["history"][i], rows.features[first + t - 31 : first + t + 1])
            assert batch["label"][i] == loader.labels[a][t] and batch["decided_at"][i] == loader.bars[name].index[t].value
        assert np.array_equal(loader.asked(part, loader.labels), batch["label"].numpy()) and batch["history"].isfinite().all()
        assert set(np.unique(batch["label"])) == {0, 1}

@pytest.mark.parametrize("offset", [1, 3])
def test_an_offset_asks_for_a_later_label(frames, offset):
    later = SignalLoader(FrameDataSource(frames), lookback=32, atr_multiplier=1., target_offset=offset)
    fold = later.static_holdout(.6, .8)
    for part in fold:
        asked = later.asked(part, later.labels, offset)
        assert torch.equal(part.gather.gather(part.asset, part.row)["label"], torch.from_numpy(asked).float())
        assert asked.tolist() == [later.labels[a][t + offset] for a, t in zip(part.windows.asset, part.windows.row)]
        reach = [later.times[a][t + offset + 4] for a, t in zip(part.windows.asset, part.windows.row)]
        assert part.windows.ends_at.tolist() == reach

def test_payoff_by_hand(loader, frames):
    "Bought at the next open, sold at the close of the horizon or at the first price after a hole, fee and slippage on both sides; an order lapses in a hole."
    for name, payoff, rows in zip(loader.names, loader.payoff(.001, .0003), [stretches(frames[n]) for n in loader.names]):
        o, c, expected = frames[name]["open"].to_numpy(), frames[name]["close"].to_numpy(), np.full(len(frames[name]), np.nan)
        for piece in rows:
            for t in piece[:-4]: expected[t] = c[t+4]*(1 - .0003)*(1 - .001)*(1 - .001)/(o[t+1]*(1 + .0003)) - 1
            if piece[-1] + 1 == len(o): continue
            for t in piece[-4:-1]: expected[t] = o[piece[-1] + 1]*(1 - .0003)*(1 - .001)*(1 - .001)/(o[t+1]*(1 + .0003)) - 1
            expected[piece[-1]] = 0
        np.testing.assert_allclose(payoff, expected, rtol=0, atol=1e-14)
    fold = loader.static_holdout(.6, .8)
    assert all(np.isfinite(loader.asked(part, loader.payoff())).all() for part in fold)

# --- counts ------------------------------------------------------------------------------------------------------------------

def seven_thousand():
    "As many candles as 76 days of a quarter of an hour."
    if not CRYPTO.exists(): return MockDataSource(length=7284, freq="5min", seed=3).load(["SOLUSDT"])["SOLUSDT"]
    table = pd.read_parquet(CRYPTO)
    return table[table["symbol"] == "SOLUSDT"].set_index("time").drop(columns="symbol").iloc[:7284]

def test_counts_of_rows_and_windows():
    "7 284 candles, 19 rows of warm-up and 4 of horizon: 7 261 rows, cut at 80 %, and the windows of each part."
    bars = seven_thousand()
    loader = SignalLoader(FrameDataSource({"SOLUSDT": bars}), PriceActionEngineer("span", "first", 1), smoothing="span", start="first")
    features = loader.static_holdout(.7, .85).train.gather.features.numpy()
    whole = np.isfinite(features).all(1) & np.isfinite(loader.labels[0])
    assert len(bars) == 7284 and whole.sum() == 7261 and not whole[:19].any() and whole[19:-4].all() and not whole[-4:].any()
    cut = int(.8*whole.sum())
    parts = [np.flatnonzero(whole)[s] for s in (slice(cut), slice(cut, None))]
    assert [len(p) for p in parts] == [5808, 1453]
    count = lambda part, ahead: len(find_windows([loader.times[0][part]], [np.ones(len(part), bool)], None, 64, ahead))
    assert [count(p, 1) for p in parts] == [5744, 1389]         # asked for the label of the next row
    assert [count(p, 0) for p in parts] == [5745, 1390]         # asked for the label of their last
    assert [-(-count(p, 1)//32) for p in parts] == [180, 44]    # batches

@pytest.mark.parametrize("offset", [0, 1])
def test_windows_of_a_loader_are_counted(offset):
    "All that have a past and a future: nothing else is lost but what is purged, horizon and offset, at each boundary."
    bars = MockDataSource(length=2000, freq="5min", seed=1).load(["A"])["A"]
    loader = SignalLoader(FrameDataSource({"A": bars}), atr_multiplier=1., target_offset=offset)
    warm = loader.pattern.warmup
    assert warm == 199 and len(loader.windows) == 2000 - 199 - 63 - 4 - offset
    fold = loader.static_holdout(.6, .8)
    n = [len(part.index) for part in fold]
    assert sum(n) == len(loader.windows) - 2*(4 + offset)
    rows = [part.windows.row for part in fold]
    assert rows[1][0] - rows[0].max() - 1 == rows[2][0] - rows[1][-1] - 1 == 4 + offset

def test_weight_of_buys():
    "Waits for each buy among the training windows: 5 245 and 563 make 9.316163."
    label = np.repeat([0., 1.], [5245, 563])
    counted = SimpleNamespace(labels=None, target_offset=0, asked=lambda batches, values, offset: label)
    assert weight_of_buys(signal_config(), counted, SimpleNamespace(train=None)) == pytest.approx(5245/563, rel=1e-15)
    assert round(5245/563, 6) == 9.316163
    assert weight_of_buys(signal_config(["training.pos_weight=3"]), counted, SimpleNamespace(train=None)) == 3

# --- purge ---------------------------------------------------------------------------------------------------------------------

@settings(derandomize=True, deadline=None, max_examples=25)
@given(horizon=st.integers(1, 12), offset=st.integers(0, 3), size=st.integers(1, 64), val=st.floats(.3, .6), test=st.floats(.7, .9), stride=st.integers(1, 5))
def test_no_label_of_a_part_reads_a_price_of_the_next(frames, horizon, offset, size, val, test, stride):
    "Whatever is asked and however far ahead, for each asset by itself and for both together."
    loader = SignalLoader(FrameDataSource(frames), lookback=size, horizon=horizon, target_offset=offset, atr_multiplier=.5)
    fold = loader.static_holdout(val, test, stride=stride)
    assert not audit_split(fold.windows, fold.split)
    begins = [int(part.windows.decided_at.min()) for part in fold]
    for k, part in enumerate(fold):
        w = part.windows
        last_read = np.array([loader.times[a][t + offset + horizon] for a, t in zip(w.asset, w.row)])
        assert (last_read == w.ends_at).all()
        if k < 2: assert (last_read < begins[k + 1]).all()
        label = loader.asked(part, loader.labels, offset)
        assert np.isfinite(label).all()
        segment = [loader.segments[loader.names[a]] for a in w.asset]
        assert all(s[t - size + 1] == s[t] for s, t in zip(segment, w.row)), "a history crosses a hole"
    rows = loader.train_bars(fold.split.train)
    assert max(b.index[-1].value for b in rows) < begins[1]     # the engineer was fitted on no later one

def test_an_embargo_keeps_more_away(loader):
    near, far = loader.static_holdout(.6, .8), loader.static_holdout(.6, .8, embargo=pd.Timedelta("2h"))
    assert len(far.train.index) < len(near.train.index) and not audit_split(far.windows, far.split, "2h") and audit_split(near.windows, near.split, "2h")

# --- leaks -----------------------------------------------------------------------------------------------------------------------

def pipeline(frames, **options):
    "Features, windows, split and labels of each asset, at the times of its rows."
    when = frames["A"].index
    def run(given):
        loader = SignalLoader(FrameDataSource(given), **{"lookback": 20, "atr_multiplier": .5} | options)
        fold = loader.static_holdout(when[600], when[800])
        known = {f"label_{n}": pd.Series(x, b.index) for (n, b), x in zip(loader.bars.items(), loader.labels)}
        return {"fold": fold} | known
    return run

def ahead_of(run, frames, rows):
    "Audit with labels that are known so many rows later."
    def known(given):
        found = run(given)
        for k in [k for k in found if k.startswith("label")]:
            label = pd.Series(found[k].to_numpy()[:-rows], found[k].index[rows:])
            found[k] = label[np.isfinite(label)]
        return found
    return known

@pytest.mark.parametrize("engineer,label", [("stationary", "forward_atr"), ("price_action", "first_touch")])
def test_loader_and_labels_are_causal(frames, engineer, label):
    run = pipeline(frames, engineer=engineer, label=label)
    report = audit_leaks(ahead_of(run, frames, 4), frames, cuts=2).raise_if_leaky()
    assert {"label_A", "label_B", "fold.state", "fold.train", "fold.val", "fold.test"} <= set(report.checked)

def test_labels_are_known_exactly_so_late(frames):
    "By `horizon` rows, and not by one less."
    for horizon, label in ((2, "forward_atr"), (4, "first_touch")):
        def series(frame):
            loader = SignalLoader(FrameDataSource({"A": frame}), "zscore", lookback=20, horizon=horizon, label=label, atr_multiplier=.3)
            return {"label": pd.Series(loader.labels[0], loader.bars["A"].index)}
        bars = frames["A"].iloc[:500]
        audit_leaks(series, bars, cuts=2, ahead={"label": horizon}).raise_if_leaky()
        found = audit_leaks(series, bars, cuts=4, ahead={"label": horizon - 1})
        assert not found and {f.name for f in found.findings} == {"label"}

class Clairvoyant(SignalLoader):
    "Asks for the label of the row that its label is made of."
    def rows(self, engineer):
        found = super().rows(engineer)
        c = found.close
        found.features[:-4, 0] = c[4:] - c[:-4]
        return found

def test_planted_leaks_are_caught(frames, monkeypatch):
    "A feature that is the label, a label that is called known too early, a split without a purge, an engineer fitted on everything."
    when = frames["A"].index
    def leaky(given): return Clairvoyant(FrameDataSource(given), lookback=20, atr_multiplier=.5).static_holdout(when[600], when[800])
    with pytest.raises(LeakError, match="move"): audit_leaks(leaky, frames, cuts=1).raise_if_leaky()
    early = audit_leaks(ahead_of(pipeline(frames), frames, 3), frames, cuts=4)
    assert {f.name for f in early.findings} <= {"label_A", "label_B"} and early.findings
    loader = SignalLoader(FrameDataSource(frames), lookback=20, atr_multiplier=.5)
    w, cut = loader.windows, when[600].value
    kept = Split(np.flatnonzero(w.decided_at < cut), np.flatnonzero((w.decided_at >= cut) & (w.decided_at < when[800].value)), np.flatnonzero(w.decided_at >= when[800].value))
    assert {f.name for f in audit_split(w, kept)} == {"split.train/val", "split.val/test"}
    monkeypatch.setattr(SignalLoader, "train_bars", lambda self, train: list(self.bars.values()))
    assert "state" in {f.name for f in audit_leaks(lambda given: pipeline(frames)(given)["fold"], frames, cuts=1).findings}

def test_another_future_changes_no_batch(frames):
    "The bits of what trains, with all prices after the first validation decision replaced."
    when = frames["A"].index
    make = lambda given: SignalLoader(FrameDataSource(given), lookback=20, atr_multiplier=.5).static_holdout(when[600], when[800])
    base, changed = make(frames), make({k: f.mul(np.where(f.index >= when[600], 1.7, 1.), axis=0) for k, f in frames.items()})
    for a, b in zip(*(f.train.gather.gather(f.train.asset, f.train.row).values() for f in (base, changed))): assert torch.equal(a, b)

# --- assets, gaps, refusals ---------------------------------------------------------------------------------------------------------

def test_each_asset_is_what_it_is_alone(frames, loader):
    "Labels, features and windows of one asset do not depend on the others."
    fold = loader.static_holdout(.6, .8)
    for a, name in enumerate(loader.names):
        alone = SignalLoader(FrameDataSource({name: frames[name]}), lookback=32, atr_multiplier=1.)
        assert np.array_equal(alone.labels[0], loader.labels[a], equal_nan=True)
        mine = loader.windows.row[loader.windows.asset == a]
        assert np.array_equal(alone.windows.row, mine)
        first, n = int(fold.train.gather.first[a]), int(fold.train.gather.lengths[a])
        assert alone.rows(fold.engineer).features.numpy().tobytes() == fold.train.gather.features[first:first + n].numpy().tobytes()

def test_only_a_position_crosses_a_gap(frames, loader):
    "Neither history nor range: they begin anew. A label does, as the position that it stands for, and so there are windows up to the gap."
    label, (before, after) = loader.labels[1], stretches(frames["B"])
    assert np.isfinite(label[before[-4:]]).all() and np.isnan(label[after[:14]]).all() and np.isfinite(label[after[14]])
    rows = loader.windows.row[loader.windows.asset == 1]
    assert not ((rows > before[-1]) & (rows < after[0] + loader.pattern.warmup + 31)).any() and np.isin(before[-4:], rows).all()
    assert loader.stretches("B") == [(0, len(before)), (len(before), len(frames["B"]))] and loader.stretches("A") == [(0, ROWS)]

def test_filled_gaps_are_one_stretch(frames):
    filled = SignalLoader(FrameDataSource(frames), lookback=32, atr_multiplier=.5, gaps="ffill")
    assert len(filled.labels[1]) == len(frames["B"]) + 10 and np.isfinite(filled.labels[1][14:-4]).all()
    assert filled.static_holdout(.6, .8).train.gather.features[:ROWS].isfinite().any()

def test_empty_candles_do_not_empty_what_follows(frames):
    "A hole that is kept as empty rows ends a stretch, too: averages begin anew behind it."
    kept = SignalLoader(FrameDataSource(frames), lookback=32, atr_multiplier=.5, gaps="nan")
    fold = kept.static_holdout(.6, .8)
    assert np.isfinite(kept.labels[1][-100:-4]).all()
    assert (kept.windows.asset == 1).sum() > 300
    for part in fold:
        assert np.isfinite(kept.asked(part, kept.labels)).all() and part.gather.gather(part.asset, part.row)["history"].isfinite().all()

@pytest.mark.parametrize("options,why", [(dict(horizon=0), "1 row ahead"), (dict(target_offset=-1), "0 or more"), (dict(label="forward"), "no label is called"), (dict(lookback=2000), "shorter lookback"),
                                         (dict(atr_multiplier=-1.), "multiplier"), (dict(smoothing="spam"), "span or wilder")])
def test_a_loader_that_makes_no_sense_is_refused(frames, options, why):
    with pytest.raises(ValueError, match=why): SignalLoader(FrameDataSource(frames), **options)

def test_a_source_by_configuration(frames):
    "The same loader from names, with thinned training and every test window."
    config = signal_config(["data.source=sp500", "training.stride=6", "data.lookback=32"])
    loader, fold = load_signals(config)
    assert len(fold.test.index) > 5*len(fold.val.index) and isinstance(loader, SignalLoader) and loader.label_horizon == 4
    gap = np.diff(np.sort(fold.train.windows.row))
    assert (gap == 6).all() and (np.diff(fold.test.windows.row) == 1).all()
