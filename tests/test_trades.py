"Trading a signal: against a second account written the other way round, by hand, for any market, and never with the future."
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st

from synthlab.metrics.trades import RULES, TradeBook, buy_and_hold, net_trade_return, random_entries, simulate_trades

pytestmark = pytest.mark.filterwarnings("error")
quick = settings(derandomize=True, deadline=None, max_examples=150)
seeds = st.integers(0, 2**32 - 1)
PRICES = "open", "high", "low", "close"

def candles(T, rng, jump=.01):
    "Candles whose open lies away from the last close, some of them flat."
    path = 100*np.exp(rng.normal(0, jump, (T, 5)).cumsum(1) + rng.normal(0, .01, T).cumsum()[:, None])
    path[rng.random(T) < .05] = 100.
    return dict(open=path[:, 0], high=path.max(1), low=path.min(1), close=path[:, -1])

def setting(seed):
    "A market, a signal and how it is traded, all at random."
    rng = np.random.default_rng(seed)
    T = int(rng.integers(1, 60)); market = candles(T, rng)
    distance = lambda: None if rng.random() < .4 else np.where(rng.random(T) < .2, np.nan, rng.choice([.5, 2., 5.])*rng.uniform(.5, 1.5, T))
    how = dict(signal=rng.random(T) < rng.choice([0, .05, .3, .8, 1.]), holding=int(rng.choice([1, 2, 3, 7, 90])), fee=float(rng.choice([0, .001, .02])),
        slippage=float(rng.choice([0, .0005, .01])), stop=distance(), target=distance(), segment=None if rng.random() < .4 else (rng.random(T) < .08).cumsum()%2)
    return market, how

def stream(market, how, rule):
    "One candle at a time."
    T = len(how["signal"]); none = np.full(T, np.nan)
    book = TradeBook(how["holding"], how["fee"], how["slippage"], rule)
    extra = [how["signal"], none if how["stop"] is None else how["stop"], none if how["target"] is None else how["target"], np.zeros(T, int) if how["segment"] is None else how["segment"]]
    seen = [(book.bar(*row), book.equity, book.position) for row in zip(*(market[k] for k in PRICES), *extra)]
    return [np.array(x) for x in zip(*seen)], book.trades()

# the other way round: which trades there are is found first, without money, looking freely along the rows; the money follows

def schedule(o, h, l, c, signal, H, rule, stop, target, segment):
    "(entry, exit, quotes, reason, row in which the sale is booked) of every trade, in the order of signals."
    T = len(c); level = lambda x, t: np.nan if x is None else x[t]
    gap = lambda r: segment is not None and r > 0 and segment[r] != segment[r - 1]
    found, free = [], -1
    for t in range(T - 1):
        if not signal[t] or gap(t + 1) or (rule != "slots" and t < free): continue
        entry, until, low, high = t + 1, t + H, o[t + 1] - level(stop, t), o[t + 1] + level(target, t)
        r, out = entry, None
        while out is None:
            if gap(r): out = r, o[r], "gap", r; break       # the first price after it
            if rule == "extend" and r > entry and signal[r - 1]: until, low, high = r + H - 1, o[r] - level(stop, r - 1), o[r] + level(target, r - 1)
            if o[r] <= low: out = r, o[r], "stop", r
            elif o[r] >= high: out = r, o[r], "target", r
            elif l[r] <= low: out = r, low, "stop", r
            elif h[r] >= high: out = r, high, "target", r
            elif r >= until and not (rule == "extend" and signal[r] ): out = r, c[r], "time", r
            elif r == T - 1: out = r, c[r], "open", r
            r += 1
        found.append((entry, out[0], o[entry], out[1], out[2], out[3])); free = out[0]
    return found

def account(market, how, rule):
    "Wealth at each close and the trades, from the schedule."
    o, h, l, c = (market[k] for k in PRICES); T, fee, slip = len(c), how["fee"], how["slippage"]
    plan = schedule(o, h, l, c, how["signal"], how["holding"], rule, how["stop"], how["target"], how["segment"])
    slots = how["holding"] if rule == "slots" else 1
    cash, stake, wealth, share, rows = 1., {}, np.empty(T), np.zeros(T), []
    value = lambda i, price: stake[i]*(1 - fee)/(plan[i][2]*(1 + slip))*price
    for r in range(T):
        sales = sorted((i for i in stake if plan[i][5] == r and i not in {x[0] for x in rows}), key=lambda i: (plan[i][1], plan[i][4] in ("time", "open"), i))
        def sell(i):
            nonlocal cash
            sold = plan[i][4] != "open"                 # what is open is marked, at no cost
            price = plan[i][3]*(1 - slip*sold); money = value(i, price)*(1 - fee*sold); cash += money*sold
            rows.append((i, plan[i][0], plan[i][1], plan[i][2]*(1 + slip), price, stake[i], money/stake[i] - 1, plan[i][4]))
        for i in sales:
            if plan[i][4] == "gap": sell(i)
        for i, trade in enumerate(plan):
            if trade[0] == r: stake[i] = cash/(slots - sum(1 for j in stake if j not in {x[0] for x in rows})); cash -= stake[i]
        later = [i for i in stake if plan[i][5] == r and i not in {x[0] for x in rows}]
        for i in sorted(later, key=lambda i: (plan[i][4] in ("time", "open"), i)): sell(i)
        held = sum(value(i, c[r]) for i in stake if i not in {x[0] for x in rows} or plan[i][4] == "open" and r == T - 1)
        wealth[r] = cash + held; share[r] = held/wealth[r]
    return wealth, share, pd.DataFrame([x[1:] for x in rows], columns=["entry", "exit", "entry_price", "exit_price", "stake", "net_return", "reason"])

@pytest.mark.parametrize("rule", RULES)
def test_second_account(rule):
    reasons = set()
    @quick
    @given(seeds)
    def check(seed):
        market, how = setting(seed)
        got, (wealth, share, trades) = simulate_trades(**market, rule=rule, **how), account(market, how, rule)
        np.testing.assert_allclose(got.equity, wealth, rtol=1e-11)
        np.testing.assert_allclose(got.position, share, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(got.returns, wealth/np.r_[1, wealth[:-1]] - 1, atol=1e-11)
        assert got.trades[["entry", "exit", "reason"]].values.tolist() == trades[["entry", "exit", "reason"]].values.tolist()
        numbers = ["entry_price", "exit_price", "stake", "net_return"]
        np.testing.assert_allclose(got.trades[numbers].to_numpy(float), trades[numbers].to_numpy(float), rtol=1e-9, atol=1e-12)
        reasons.update(got.trades.reason)
    check()
    assert reasons == {"time", "stop", "target", "open", "gap"}, "the random settings do not reach every way out"

@quick
@given(seeds, st.sampled_from(RULES))
def test_one_candle_at_a_time(seed, rule):
    "The stream and the batch agree in every bit."
    market, how = setting(seed)
    batch, ((returns, equity, position), trades) = simulate_trades(**market, rule=rule, **how), stream(market, how, rule)
    assert np.array_equal(returns, batch.returns) and np.array_equal(equity, batch.equity) and np.array_equal(position, batch.position)
    pd.testing.assert_frame_equal(trades, batch.trades, check_exact=True)

@quick
@given(seeds, st.sampled_from(RULES))
def test_no_row_reads_the_future(seed, rule):
    "Other rows after t, of prices, signals, levels and segments: the rows up to t keep their bits, and so do the trades that ended before."
    market, how = setting(seed)
    T = len(how["signal"]); t = int(np.random.default_rng(seed).integers(T)); rng = np.random.default_rng([seed, 1])
    late = np.arange(T) > t
    other = {k: np.where(late, v, market[k]) for k, v in candles(T, rng).items()}
    changed = {**how, "signal": np.where(late, ~how["signal"], how["signal"])}
    for k in "stop", "target":
        if how[k] is not None: changed[k] = np.where(late, 1., how[k])
    if how["segment"] is not None: changed["segment"] = np.where(late, rng.integers(0, 3, T), how["segment"])
    a, b = simulate_trades(**market, rule=rule, **how), simulate_trades(**other, rule=rule, **changed)
    for x, y in zip((a.returns, a.equity, a.position), (b.returns, b.equity, b.position)): assert np.array_equal(x[:t + 1], y[:t + 1])
    done = lambda x: x.trades[x.trades.exit < t].reset_index(drop=True)
    pd.testing.assert_frame_equal(done(a), done(b), check_exact=True)

def test_the_future_does_matter_later():
    "The check above could fail: returns right after t do differ."
    rng = np.random.default_rng(0); a, b = candles(50, rng), candles(50, rng)
    signal = np.ones(50, bool)
    both = {k: np.where(np.arange(50) > 20, b[k], a[k]) for k in PRICES}
    assert simulate_trades(**a, signal=signal, holding=5).returns[21] != simulate_trades(**both, signal=signal, holding=5).returns[21]

@quick
@given(seeds, st.sampled_from(RULES))
def test_the_books_balance(seed, rule):
    market, how = setting(seed)
    got = simulate_trades(**market, rule=rule, **how)
    assert (got.trades.stake*got.trades.net_return).sum() == pytest.approx(got.equity[-1] - 1, abs=1e-11)
    assert (1 + got.returns).prod() == pytest.approx(got.equity[-1], rel=1e-10)
    assert (got.position >= 0).all() and (got.position <= 1 + 1e-12).all()
    trades, still = got.trades, got.trades.reason == "open"
    assert (got.position[-1] > 0) == still.any() and (trades.exit[still] == len(got.returns) - 1).all()
    np.testing.assert_allclose(trades.net_return, trades.exit_price.astype(float)/trades.entry_price*(1 - how["fee"])**np.where(still, 1, 2) - 1, atol=1e-12)
    length = trades.exit - trades.entry + 1
    assert (length >= 1).all() and (trades.entry >= 1).all() and how["signal"][trades.entry.astype(int) - 1].all()
    if rule != "extend": assert (length <= how["holding"]).all() and (length[trades.reason == "time"] == how["holding"]).all()
    if rule != "slots": assert (np.sort(trades.entry)[1:] > np.sort(trades.exit)[:-1]).all(), "two positions at once"
    else:
        segment = np.zeros(len(got.returns)) if how["segment"] is None else how["segment"]
        assert len(trades) == (how["signal"][:-1] & (segment[1:] == segment[:-1])).sum(), "under slots every signal is a trade"
    if how["segment"] is not None:
        stretch = np.r_[0, (np.diff(how["segment"]) != 0).cumsum()]
        entry, exit = stretch[trades.entry.astype(int)], stretch[trades.exit.astype(int)]
        assert ((exit - entry) == (trades.reason == "gap")).all(), "a trade that a gap ends is closed in the next stretch, no other crosses one"

# by hand

THREE = dict(open=[98, 100, 105, 110], high=[99, 106, 112, 121], low=[97, 99, 104, 110], close=[99, 105, 110, 121])
TWICE = np.array([True, True, False, False])

@pytest.mark.parametrize("rule,end", [("one", 1.1*.99**2), ("extend", 1.21*.99**2), ("slots", .5*1.1*.99**2 + .5*121/105*.99**2)])
def test_by_hand(rule, end): assert simulate_trades(**THREE, signal=TWICE, holding=2, fee=.01, rule=rule).equity[-1] == pytest.approx(end, rel=1e-12)

def test_slippage_by_hand():
    net = simulate_trades(**THREE, signal=TWICE, holding=2, fee=.01, slippage=.02).trades.net_return[0]
    assert net == pytest.approx(110*.98/(100*1.02)*.99**2 - 1, rel=1e-12)

def test_a_signal_on_the_exit_row_opens_the_next():
    flat = {k: np.full(7, 100.) for k in PRICES}; signal = np.ones(7, bool)
    assert simulate_trades(**flat, signal=signal, holding=2).trades[["entry", "exit"]].values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert simulate_trades(**flat, signal=signal, holding=2, rule="extend").trades[["entry", "exit", "reason"]].values.tolist() == [[1, 6, "open"]]
    assert simulate_trades(**flat, signal=np.arange(7) == 5, holding=1).trades[["entry", "exit", "reason"]].values.tolist() == [[6, 6, "time"]]
    assert simulate_trades(**flat, signal=np.arange(7) == 6, holding=1).trades.empty

def test_extension_costs_nothing_and_renews_the_levels():
    "The stop 5 below moves up with the open of row 2: 120 - 5."
    market = dict(open=[100, 100, 120, 119], high=[100, 121, 121, 119], low=[100, 99, 118, 110], close=[100, 120, 119, 112])
    got = simulate_trades(**market, signal=TWICE, holding=3, rule="extend", fee=.01, stop=[5., 5., np.nan, np.nan])
    assert got.trades[["entry", "exit", "exit_price", "reason"]].values.tolist() == [[1, 3, 115., "stop"]]
    assert got.equity[-1] == pytest.approx(1.15*.99**2, rel=1e-12)

def test_idle_money_in_slots():
    "One signal takes a quarter; the next three share the rest evenly, whatever the first has become."
    flat = {k: np.full(9, 100.) for k in PRICES}
    got = simulate_trades(**flat, signal=np.arange(9) < 4, holding=4, fee=.1, rule="slots")
    np.testing.assert_allclose(got.trades.stake, .25)
    np.testing.assert_allclose(got.returns[:2], [0, -.025], atol=1e-15)

def test_segments_are_accounts_of_their_own():
    "The parts do not know of each other but for the position that is held through the gap: their ends multiply."
    rng = np.random.default_rng(4); market, signal = candles(200, rng), rng.random(200) < .3
    held = simulate_trades(**market, signal=signal, holding=6).position > 0
    cut = int(np.flatnonzero(held[90:-1] & held[91:])[0]) + 91
    segment = (np.arange(200) >= cut).astype(int)
    part = lambda s: simulate_trades(**{k: v[s] for k, v in market.items()}, signal=signal[s], holding=6).equity[-1]
    whole = simulate_trades(**market, signal=signal, holding=6, segment=segment)
    through = market["open"][cut]/market["close"][cut - 1]*.999      # sold there, which costs
    assert whole.equity[-1] == pytest.approx(part(slice(0, cut))*through*part(slice(cut, 200)), rel=1e-12)
    assert "gap" in set(whole.trades.reason)

def test_buy_and_hold():
    rng = np.random.default_rng(5); market = candles(300, rng)
    r = buy_and_hold(**market, fee=.002, slippage=.001)
    assert r.shape == (300,) and r[0] == 0
    assert (1 + r).prod() == pytest.approx(market["close"][-1]/market["open"][1]*.998**2*.999/1.001, rel=1e-10)
    always = simulate_trades(**market, signal=np.ones(300, bool), holding=5, rule="extend", fee=.002, slippage=.001)
    assert np.array_equal(always.returns[:-1], r[:-1]), "who is always told to buy, holds"
    assert always.trades.reason.tolist() == ["open"] and (1 + r[-1])/(1 + always.returns[-1]) == pytest.approx(.998*.999, rel=1e-12), "and has not sold yet"
    assert buy_and_hold(*([100.],)*4).tolist() == [0.]

@pytest.mark.parametrize("segmented", [False, True])
def test_net_trade_return(segmented):
    rng = np.random.default_rng(6); market = candles(90, rng); segment = (np.arange(90)//25)%2 if segmented else None
    for H in (1, 5, 89, 90, 200):
        net = net_trade_return(market["open"], market["close"], H, .002, .001, segment)
        assert net.shape == (90,)
        for t in range(90):
            whole = t + H < 90 and (not segmented or len(set(segment[t:t + H + 1])) == 1)
            cut = segmented and len(set(segment[t:t + H + 1])) > 1
            if not whole and not cut: assert np.isnan(net[t]); continue
            alone = simulate_trades(**market, signal=np.arange(90) == t, holding=H, fee=.002, slippage=.001, segment=segment)
            if cut and segment[t + 1] != segment[t]: assert net[t] == 0 and alone.trades.empty; continue       # the order lapses
            assert alone.trades.reason.tolist() == ["gap" if cut else "time"] and net[t] == pytest.approx(alone.trades.net_return[0], abs=1e-12) == alone.equity[-1] - 1

# random entries

@settings(quick, max_examples=60)
@given(seeds, st.sampled_from(RULES))
def test_random_entries_trade_as_often(seed, rule):
    rng = np.random.default_rng(seed); T, H = int(rng.integers(2, 80)), int(rng.choice([1, 2, 3, 8, 30]))
    signal, flat = rng.random(T) < rng.choice([0, .1, .4, 1.]), {k: np.full(T, 100.) for k in PRICES}
    count = lambda s: len(simulate_trades(**flat, signal=s, holding=H, rule=rule).trades)
    draws = random_entries(signal, H, rule, n=8, seed=seed)
    assert draws.shape == (8, T) and draws.dtype == bool and {count(s) for s in draws} == {count(signal)}
    assert np.array_equal(draws, random_entries(signal, H, rule, n=8, seed=seed))
    if rule != "one": assert {int(s[:-1].sum()) for s in draws} == {int(signal[:-1].sum())}

def test_random_entries_stay_where_they_may():
    rng = np.random.default_rng(7); signal = rng.random(300) < .2; allowed = (np.arange(300) > 120) & (rng.random(300) < .8)
    for rule in RULES:
        draws = random_entries(signal, 5, rule, n=200, allowed=allowed)
        assert not draws[:, ~allowed].any() and not draws[:, -1].any()
        assert draws[:, allowed][:, :-1].any(0).all(), "some allowed row is never drawn"
    starts = [np.flatnonzero(s) for s in random_entries(signal, 5, "one", n=50, allowed=allowed)]
    assert min(np.diff(s).min() for s in starts) >= 5

def test_random_entries_are_uniform():
    "Every arrangement of two trades of three rows in eight is as likely as any other: chi-square."
    from itertools import combinations
    from scipy import stats
    ways = [w for w in combinations(range(7), 2) if w[1] - w[0] >= 3]
    draws = random_entries(np.array([1, 0, 0, 1, 0, 0, 0, 0], bool), 3, n=5000)
    found = pd.Series([tuple(np.flatnonzero(s)) for s in draws]).value_counts()
    assert set(found.index) == set(ways) and stats.chisquare(found.reindex(ways)).pvalue > .01

def test_spells_keep_their_pattern():
    "Under `extend` the distances inside a spell are drawn along."
    signal = np.zeros(100, bool); signal[[10, 12, 13, 40, 44, 80]] = True
    for s in random_entries(signal, 5, "extend", n=50):
        at = np.flatnonzero(s); cut = np.split(at, np.flatnonzero(np.diff(at) > 5) + 1)
        assert sorted(tuple(x - x[0]) for x in cut) == [(0,), (0, 2, 3), (0, 4)]

# errors

@pytest.mark.parametrize("change,words", [
    (dict(signal=[.7, .2, .1, .4]), "probability > threshold"), (dict(signal=TWICE[:3]), r"where \(4,\) is needed"), (dict(close=[99, 105, 110]), "close has the shape"),
    (dict(low=[97, 101, 104, 110]), "candle 1 has open 100.0"), (dict(close=[99, 105, np.nan, 121]), "candle 2 .* close nan"), (dict(low=[97, 99, 104, -1]), "candle 3"),
    (dict(holding=0), "1 or more"), (dict(holding=2.5), "number of rows"), (dict(fee=1.), "a tenth of a percent"), (dict(slippage=-.1), "slippage is -0.1"), (dict(rule="two"), "there are one, extend, slots"),
    (dict(stop=[0., 1, 1, 1]), "signal of row 0 has stop 0.0"), (dict(target=[1., -1, 1, 1]), "signal of row 1|positive"), (dict(stop=5.), "stop has the shape"),
    (dict(segment=[0., 0, np.nan, 1]), "an integer a row"), (dict(segment=[0, 1]), "an integer a row")])
def test_errors(change, words):
    with pytest.raises(ValueError, match=words): simulate_trades(**{**THREE, **dict(signal=TWICE, holding=2, rule="slots"), **change})

def test_a_refused_candle_changes_nothing():
    book = TradeBook(2); book.bar(100, 101, 99, 100, True)
    before = {k: v for k, v in vars(book).items()}
    for bad in ((100, 99, 98, 98), (100, 101, 99, np.nan), (0, 1, 0, 1), (100, np.inf, 99, 100), (100, 101, 99, 100, True, -1.)):
        with pytest.raises(ValueError): book.bar(*bad)
        assert vars(book) == before
    assert book.bar(100, 101, 99, 101) == pytest.approx(.999*1.01 - 1)
