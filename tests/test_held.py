"A position is held through a gap and closed at the first price after it: label, payoff, backtest, paper and live say the same."
import numpy as np, pandas as pd, pytest, torch
from hypothesis import given, settings, strategies as st

from synthlab.datasets.audit import audit_leaks
from synthlab.datasets.labels import make_label
from synthlab.datasets.signals import SignalLoader
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.splits import whole_windows
from synthlab.metrics.trades import TradeBook, buy_and_hold, net_trade_return, simulate_trades

quick = settings(derandomize=True, deadline=None, max_examples=100)

def test_the_fall_in_the_gap_is_taken():
    o = np.array([100., 100, 100, 50, 50]); signal = np.arange(5) == 0
    got = simulate_trades(o, o, o, o, signal, 4, fee=0., segment=np.array([0, 0, 0, 1, 1]))
    assert got.equity.tolist() == [1, 1, 1, .5, .5] and got.returns.tolist() == [0, 0, 0, -.5, 0]
    assert got.trades[["entry", "exit", "exit_price", "reason"]].values.tolist() == [[1, 3, 50., "gap"]]
    assert got.equity[-1] == np.prod(1 + buy_and_hold(o, o, o, o, 0.)), "buy-and-hold takes the same fall"

def test_an_order_lapses_and_a_level_cannot_help():
    o = np.array([100., 100, 100, 50, 50]); late = np.arange(5) == 2; segment = np.array([0, 0, 0, 1, 1])
    assert simulate_trades(o, o, o, o, late, 2, fee=0., segment=segment).trades.empty
    stop = simulate_trades(o, o, o, o, np.arange(5) == 0, 4, fee=0., stop=np.full(5, 1.), segment=segment)
    assert stop.trades.exit_price.tolist() == [50.], "a stop at 99 is no promise over a gap"

def market(seed, T=60):
    rng = np.random.default_rng(seed)
    path = 100*np.exp(rng.normal(0, .01, (T, 5)).cumsum(1) + rng.normal(0, .02, T).cumsum()[:, None])
    bars = pd.DataFrame({"open": path[:, 0], "high": path.max(1), "low": path.min(1), "close": path[:, -1]})
    return bars, np.cumsum(rng.random(T) < .08), rng.uniform(.2, 2., T)

@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_payoff_is_the_trade(seed, H):
    bars, segment, _ = market(seed); prices = [bars[k].to_numpy() for k in ("open", "high", "low", "close")]
    net = net_trade_return(prices[0], prices[3], H, .002, .001, segment)
    for t in range(0, 60, 3):
        ledger = simulate_trades(*prices, np.arange(60) == t, H, .002, .001, segment=segment)
        if not len(ledger.trades): assert net[t] == 0. if t < 59 else np.isnan(net[t])
        elif ledger.trades.reason[0] == "open": assert np.isnan(net[t])
        else: assert net[t] == pytest.approx(ledger.trades.net_return[0], abs=1e-12)

@quick
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_label_ends_where_the_trade_does(seed, H):
    bars, segment, atr = market(seed); o, h, l, c = (bars[k].to_numpy() for k in ("open", "high", "low", "close"))
    buy, touch = (make_label(name, bars, atr, H, 1., segment) for name in ("forward_atr", "first_touch"))
    for t in range(60):
        gap = next((k for k in range(t + 1, min(t + H, 59) + 1) if segment[k] != segment[k - 1]), None)
        if gap is None and t + H > 59: assert np.isnan(buy[t]) and np.isnan(touch[t]); continue
        out = c[t + H] if gap is None else o[gap]
        assert buy[t] == (out - c[t] > atr[t])
        rows = [(h[k], l[k]) for k in range(t + 1, (t + H if gap is None else gap - 1) + 1)] + ([] if gap is None else [(o[gap], o[gap])])
        hit = next(((1 if high >= c[t] + atr[t] else 0)*(low > c[t] - atr[t]) for high, low in rows if high >= c[t] + atr[t] or low <= c[t] - atr[t]), 0)
        assert touch[t] == hit

def with_gaps():
    bars = MockDataSource(1200).load()["MOCK"]
    return bars.drop(bars.index[[*range(500, 520), *range(900, 905)]])

@pytest.mark.parametrize("label", ["forward_atr", "first_touch"])
@pytest.mark.parametrize("offset", [0, 1])
def test_windows_lie_wherever_features_do(label, offset):
    loader = SignalLoader(with_gaps(), "zscore", lookback=20, label=label, horizon=6, target_offset=offset)
    every = np.ones(len(loader.times[0]), bool)
    past = whole_windows(every, every, loader.segments["bars"], 20 + loader.pattern.warmup, 0)
    past = past[past + 6 + offset < len(every)]
    missing = np.setdiff1d(past, loader.windows.row)
    assert len(missing) == (0 if offset == 0 else 2), "with an offset, the row asked has a range of its own, which begins anew"
    fold = loader.static_holdout(.4, .6)
    for part in fold:
        assert np.isfinite(loader.asked(part, loader.labels, offset)).all() and np.isfinite(loader.asked(part, loader.payoff(), offset)).all()

def decided_rows(loader, test, a=0):
    every = loader.decisions(test)[0].windows
    return every.row[every.asset == a]

@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("end", [None, 1050, 1101, 1150])       # the last gap lies at 880: up to 1050 no features again, up to 1101 features and no label
def test_signals_lie_wherever_features_do(end, offset):
    "In the last rows of a test, whose label nobody knows, and after a gap, where a label may be unknown, too."
    loader = SignalLoader(with_gaps(), "zscore", lookback=20, horizon=6, target_offset=offset)
    test = loader.static_holdout(.4, .6, test_end=end and str(loader.bars["bars"].index[end])).test
    every = np.ones(len(loader.times[0]), bool)
    past = whole_windows(every, every, loader.segments["bars"], 20 + loader.pattern.warmup, 0)
    last = (end or len(every)) - 1
    if end in (None, 1150): assert test.windows.row.max() == last - 6 - offset
    found = loader.decisions(test)[0]
    assert (found.windows.row > 880).sum() == {1050: 0, 1101: 3}.get(end, (end or len(every)) - 1098)
    assert found.windows.row.tolist() == past[(past >= test.windows.row.min()) & (past <= last)].tolist()
    assert np.isfinite(torch.cat([b["history"] for b in found])).all()

def test_decisions_of_several_assets():
    "Each asset up to its own last candle; the windows that are judged are found among them."
    a, b = (MockDataSource(900, seed=s).load(["A"])["A"] for s in (1, 2))
    loader = SignalLoader({"A": a, "B": b.iloc[:-3]}, "zscore", lookback=16)
    test = loader.static_holdout(.4, .6).test
    every, known = loader.decisions(test)
    assert [decided_rows(loader, test, k).max() for k in (0, 1)] == [899, 896]
    w = every.windows.take(known)
    assert all(np.array_equal(getattr(w, k), getattr(test.windows, k)) for k in ("asset", "row", "decided_at"))
    assert torch.equal(torch.cat([x["history"] for x in every])[known], torch.cat([x["history"] for x in test]))

def test_nothing_is_known_early():
    bars = MockDataSource(1200).load()["MOCK"]; bars = bars.drop(bars.index[300:320])
    first, second = str(bars.index[600]), str(bars.index[800])
    audit_leaks(lambda f: SignalLoader(f, lookback=16).static_holdout(first, second), bars, cuts=3, after=bars.index[605]).raise_if_leaky()
    audit_leaks(lambda f: {"label": SignalLoader(f, lookback=16).labels[0]}, bars, cuts=4, ahead={"label": 4}).raise_if_leaky()

def test_without_a_gap_nothing_changes():
    bars = MockDataSource(900).load()["MOCK"]
    loader = SignalLoader(bars, "zscore", lookback=16)
    every = np.ones(900, bool)
    assert np.array_equal(loader.windows.row, whole_windows(every, every, np.zeros(900, int), 16 + loader.pattern.warmup, 4))

@pytest.mark.parametrize("rule", ["one", "extend", "slots"])
def test_live_is_the_backtest(rule):
    bars, segment, atr = market(3); signal = np.random.default_rng(1).random(60) < .4
    want = simulate_trades(*(bars[k] for k in ("open", "high", "low", "close")), signal, 5, rule=rule, segment=segment)
    book = TradeBook(5, rule=rule)
    live = [book.bar(*row, s, segment=g) for row, s, g in zip(bars.to_numpy().tolist(), signal, segment)]
    assert live == want.returns.tolist() and "gap" in set(want.trades.reason)
