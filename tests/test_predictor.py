"""Candle by candle as in one go: the same features, probabilities and trades; from the checkpoint alone, and from files that others run; and nowhere a pickle."""
import io, json, math, multiprocessing, pickle, shutil, warnings, zipfile
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from synthlab.experiments import experiment as bench
from synthlab.datasets.bars import BarError, check_values
from synthlab.datasets.sources import FrameDataSource, MockDataSource
from synthlab.datasets.features import create_engineer
from synthlab.datasets.indicators import COLUMNS, atr
from synthlab.datasets.signals import SignalLoader
from synthlab.datasets.sources import get_source
from synthlab.labs.signal.paper import PaperResult, paper_trade
from synthlab.labs.signal.predictor import SignalPredictor, check_candle
from synthlab.labs.signal.judging import Decision, decision_state, network_logits
from synthlab.labs.signal.settings import signal_config
from synthlab.labs.signal.trading import trade_strategies, traded_assets
from synthlab.metrics.recalibration import create_recalibration, restore_recalibration
from synthlab.metrics.trades import simulate_trades
from synthlab.models.price_action import create_classifier
from synthlab.models.registry import ConfigError
from synthlab.trainers.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from synthlab.trainers.exports import load_onnx, load_program
from tiny import cases, spawner

TOY = ["model=small", "training.epochs=1", "training.stride=12", "data.lookback=24", "evaluation.random_draws=20", "evaluation.n_boot=100", "tracking.mode=disabled", "threads=1"]
SIZE = 16

def no_pickle(patch):
    "Whatever would unpickle raises."
    def refuse(*_, **__): raise AssertionError("something was unpickled")
    class Refuser(pickle.Unpickler): __init__ = refuse
    for name, trap in dict(load=refuse, loads=refuse, Unpickler=Refuser).items(): patch.setattr(pickle, name, trap)
    patch.setattr(torch, "load", refuse)

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A finished toy run on the index, made while nothing may be unpickled."
    with pytest.MonkeyPatch.context() as patch:
        no_pickle(patch)
        return bench.run("signal", [*TOY, f"runs={tmp_path_factory.mktemp('runs')}"])

@pytest.fixture(scope="module")
def five_minutes():
    "Four thousand candles; two holes, and an hour in which nothing moves."
    bars = MockDataSource(length=4030, freq="5min", seed=4).load(["A"])["A"]
    bars = bars.drop(bars.index[[*range(1600, 1605), *range(2800, 2825)]])
    still = bars.index[800:812]
    bars.loc[still, ["open", "high", "low", "close"]] = bars["close"].iloc[799]
    return bars

class Sum(torch.nn.Module):
    "The quickest network there is: a weighted sum of the window."
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(.05*torch.randn(SIZE, 14, generator=torch.Generator().manual_seed(0)))
    def logits(self, history): return (history*self.weight).sum((1, 2))

def complete(bars, name="stationary", kind="platt", threshold=.5, attention=False, **options):
    "A signal that has all it needs, though it has not been taught: a network that says something else of each window."
    engineer = create_engineer(name, **options).fit([bars])
    network = create_classifier({"name": "transformer", "d_model": 8, "nhead": 2, "num_layers": 1, "dim_feedforward": 16}, 14, seed=1).eval() if attention else Sum()
    with torch.no_grad():
        if attention: network.head[3].weight.mul_(10)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=400)
    recalibration = create_recalibration(kind, 3.).fit(logits, (rng.random(400) < 1/(1 + np.exp(-logits))).astype(float))
    about = dict(lab="signal", recipe={}, engineer=engineer.state(), lookback=SIZE, horizon=4, pos_weight=3., step="0 days 00:05:00", gap_limit=None, label=dict(name="forward_atr"),
                 learnt_until="2020-01-01", assets=["A"], decision=decision_state(Decision(recalibration, threshold, pd.DataFrame(), (.01, -.01), .2)))
    return SignalPredictor(network, json.loads(json.dumps(about)))

def between(p, share):
    "A threshold that so many lie above, as far from any of them as can be."
    p = np.unique(p); at = int((1 - share)*len(p)); near = slice(max(at - 20, 0), at + 20)
    k = np.diff(p[near]).argmax() + near.start
    return float((p[k] + p[k+1])/2)

def rows(bars): return bars[list(COLUMNS)].itertuples(name=None)

# --- the stream ------------------------------------------------------------------------------------------------------------

def test_four_thousand_candles_one_by_one(five_minutes):
    "Features to the bit, probabilities to 1e-6, and both begin anew behind a hole."
    bars = five_minutes
    predictor = complete(bars.iloc[:1200])
    stream, said, features = predictor.stream(), [], []
    for time, *candle in rows(bars):
        said.append(stream.take(time, tuple(candle))); features.append(stream.window[-1].copy())
    features = np.stack(features)
    assert len(bars) == 4000 and stream.segment == 2
    for part in np.split(np.arange(len(bars)), [1600, 2795]): assert features[part].tobytes() == predictor.engineer.transform(bars.iloc[part]).tobytes()
    p = pd.Series([s.probability for s in said], bars.index, dtype=float).dropna()
    whole = predictor.predict(bars)
    assert p.index.equals(whole.index) and len(p) == 4000 - 3*(predictor.min_candles - 1) and predictor.min_candles == 199 + SIZE
    assert abs(p - whole["probability"]).max() < 1e-6 and p.std() > .01
    assert [s.signal for s in said if s.probability is not None] == [x >= predictor.threshold for x in p] and not any(s.signal for s in said if s.probability is None)
    assert [s.close for s in said] == bars["close"].tolist() and [s.time for s in said] == list(bars.index)

def test_stretches_are_predicted_as_if_alone(five_minutes):
    bars = five_minutes.iloc[1100:2300]
    predictor = complete(five_minutes.iloc[:1000], attention=True)
    whole = predictor.predict(bars)
    alone = pd.concat([predictor.predict(bars.iloc[:500]), predictor.predict(bars.iloc[500:])])
    pd.testing.assert_frame_equal(whole, alone, check_exact=False, atol=1e-6, rtol=0)
    assert whole.index[0] == bars.index[predictor.min_candles - 1] and bars.index[500 + predictor.min_candles - 1] in whole.index and bars.index[500 + predictor.min_candles - 2] not in whole.index

def test_what_comes_later_changes_no_probability(five_minutes):
    bars = five_minutes.iloc[:600]
    predictor = complete(five_minutes.iloc[:1000], attention=True)
    changed = bars.mul(np.where(np.arange(600) > 400, 3., 1.), axis=0)
    one, other = (predictor.predict(b).loc[:bars.index[400], "probability"] for b in (bars, changed))
    assert (one == other).all() and len(one) > 100

BAD = [("late", -1, {}), ("twice", 0, {}), ("high", 1, dict(high=1.)), ("low", 1, dict(low=1e9)), ("negative", 1, dict(low=-1.)), ("nothing", 1, dict(low=0.)), ("volume", 1, dict(volume=-1.)),
       *((f"missing {c}", 1, {c: math.nan}) for c in COLUMNS[:4]), ("infinite", 1, dict(high=math.inf))]

def test_bad_candles_are_refused_and_change_nothing(five_minutes):
    "Late, repeated, impossible, missing: the next good candle gives what it would have given."
    bars = five_minutes.iloc[:130]
    predictor = complete(five_minutes.iloc[:1000], "price_action", start="first")
    honest, tried = predictor.stream(), predictor.stream()
    for i, (time, *candle) in enumerate(rows(bars)):
        if i > 85 or i in (1, 50):
            name, step, change = BAD[i % len(BAD)]
            wrong = dict(zip(COLUMNS, candle)) | change
            with pytest.raises(BarError): tried.push(bars.index[i-1] + step*pd.Timedelta("5min"), **wrong)
            if i % 7 == 0:
                with pytest.raises(ValueError): tried.push("some day", *candle)
        assert tried.push(time, *candle) == honest.push(time, *candle)
    assert tried.window.tobytes() == honest.window.tobytes() and tried.segment == honest.segment == 0
    with pytest.raises(BarError, match="give them in order"): tried.push(time, *candle)

def test_times_are_read_as_utc(five_minutes):
    predictor = complete(five_minutes.iloc[:1000])
    stream = predictor.stream()
    first = stream.push("2020-01-01 00:00", 1, 2, 1, 2, 5)
    assert first.time == pd.Timestamp("2020-01-01", tz="UTC") and first.probability is None and first.signal is False
    second = stream.push(pd.Timestamp("2020-01-01 01:05", tz="Europe/Berlin"), 2, 2, 1, 1, 5)      # the next one
    assert second.time == pd.Timestamp("2020-01-01 00:05", tz="UTC") and stream.segment == 0

# --- a stream that lives on ------------------------------------------------------------------------------------------------

def go_on(file, cut, upto):
    "In another process: the rest of the candles, from a state that lies in a file."
    bars = MockDataSource(length=4030, freq="5min", seed=4).load(["A"])["A"]
    stream = complete(bars.iloc[:1200]).stream().restore(json.loads(Path(file).read_text()))
    said = [stream.take(time, tuple(candle)) for time, *candle in rows(bars.iloc[cut:upto])]
    Path(file).with_suffix(".said").write_text(json.dumps([[str(s.time), s.probability, s.signal] for s in said] + [stream.state()]))

@pytest.mark.parametrize("start", ["fork", pytest.param("fresh", marks=pytest.mark.slow)])
def test_a_state_goes_on_in_another_process(start, tmp_path):
    "Kept as JSON, taken up elsewhere: probabilities and state to the last bit."
    bars = MockDataSource(length=4030, freq="5min", seed=4).load(["A"])["A"]
    stream, cut, upto = complete(bars.iloc[:1200]).stream(), 260, 290
    for time, *candle in rows(bars.iloc[:cut]): stream.take(time, tuple(candle))
    (tmp_path/"state.json").write_text(json.dumps(stream.state(), allow_nan=False))
    said = [stream.take(time, tuple(candle)) for time, *candle in rows(bars.iloc[cut:upto])]
    child = (spawner if start == "fresh" else multiprocessing.get_context("fork")).Process(target=go_on, args=(tmp_path/"state.json", cut, upto))
    child.start(); child.join()
    *there, state = json.loads((tmp_path/"state.said").read_text())
    assert there == [[str(s.time), s.probability, s.signal] for s in said] and sum(s.probability is not None for s in said) == 30
    assert state == json.loads(json.dumps(stream.state()))

@pytest.mark.parametrize("seed", cases(3, 80))
def test_stopped_and_corrected_anywhere(seed, five_minutes):
    "Saved and restored, and the last candle replaced, at random places, in front of and behind holes: as if nothing had been."
    rng, name = np.random.default_rng(seed), ("stationary", "price_action", "range_volatility", "zscore")[seed % 4]
    predictor = complete(five_minutes.iloc[:1000], name) if seed % 4 < 2 else None
    predictor = predictor or SignalPredictor(Last(), complete(five_minutes.iloc[:1000]).about | {"engineer": create_engineer(name).fit([five_minutes.iloc[:1000]]).state()})
    predictor.gaps = ("segment", "ffill")[seed//4 % 2]
    first = int(rng.integers(1330, 1590)); bars = five_minutes.iloc[first:1640]
    honest, tried = predictor.stream(), predictor.stream()
    for time, *candle in rows(bars):
        want = honest.take(time, tuple(candle))
        if rng.random() < .1: tried = predictor.stream().restore(json.loads(json.dumps(tried.state(), allow_nan=False)))
        if rng.random() < .8: found = tried.take(time, tuple(candle))
        else:
            tried.take(time, tuple(np.array(candle)*1.2))
            if rng.random() < .5: tried = predictor.stream().restore(json.loads(json.dumps(tried.state())))
            with pytest.raises(BarError): tried.replace(time, *np.array(candle)*[1, .5, 1, 1, 1])
            found = tried.replace(time, *candle)
        assert found == want
    assert json.dumps(tried.state()) == json.dumps(honest.state()) and honest.segment == (predictor.gaps == "segment")

class Last(torch.nn.Module):
    def logits(self, history): return history[:, -1, 0]

DAMAGE = [("now", None), ("back", 3), ("of", "0"*64), ("more", 1), *((("now", k), v) for k, v in dict(features={}, window=[[1.]], watch={"last": "spam"}, stamps={}, before=[1., 2.], segment=-1, begun="someday").items())]

@pytest.mark.parametrize("where,what", DAMAGE)
def test_a_state_that_is_none_is_refused(where, what, five_minutes):
    "In one sentence, and the stream stays as it was."
    predictor = complete(five_minutes.iloc[:600])
    stream = predictor.stream()
    for time, *candle in rows(five_minutes.iloc[:40]): stream.take(time, tuple(candle))
    state, before = stream.state(), json.dumps(stream.state())
    bad = state | {where: what} if isinstance(where, str) else state | {"now": state["now"] | {where[1]: what}}
    with pytest.raises(ConfigError, match="give what state.. gave"): stream.restore(bad)
    assert json.dumps(stream.state()) == before

def test_a_stream_refuses_what_a_file_would(five_minutes):
    "Between two stamps, by the hour, a hundred times the price, from the future; and each leaves no trace."
    bars = five_minutes.iloc[:40]
    stream = complete(five_minutes.iloc[:600]).stream()
    for time, *candle in rows(bars): stream.take(time, tuple(candle))
    before, now = json.dumps(stream.state()), stream.last
    def at(minutes, factor=1.): return now + pd.Timedelta(minutes, "min"), *np.array(candle)*[factor]*5
    for bad, words in (at(7), "begins 0 days 00:07:00 after the last one"), (at(62), "mend its time"), (at(5, 100.), "column .*: .* times the last close"), (at(5, .01), "times the last close"), \
            ((pd.Timestamp("2180-01-01", tz="UTC"), *candle), "the clock of this machine says"):
        with pytest.raises(BarError, match=words): stream.push(*bad)
        assert json.dumps(stream.state()) == before
    hourly = complete(five_minutes.iloc[:600]).stream()
    with pytest.raises(BarError, match="the last 4 candles lie 0 days 01:00:00 apart, .* taught candles of 0 days 00:05:00"):
        for k in range(4): hourly.push(*at(60*k))
    assert hourly.push(*at(125))[2] is None                 # it waits for nothing but the next one

def test_a_candle_is_repaired_as_in_a_file():
    "A volume that nobody knows, an open or close a little outside: the batch and the stream make the same of them, and refuse the same."
    rng, kinds = np.random.default_rng(0), set()
    for _ in range(300):
        o, c = 100*np.exp(.01*rng.normal(size=2))
        candle = np.array([o, max(o, c)*(1 + .01*rng.normal()), min(o, c)*(1 + .01*rng.normal()), c, rng.choice([5., 0., math.nan, -1.], p=[.5, .2, .2, .1])])
        mended = candle[None].copy()
        try:
            check_values(mended, "bars", lambda bad, what, field: (_ for _ in ()).throw(BarError(what)))
            want = tuple(mended[0])
        except BarError: want = None
        try: found = check_candle(pd.Timestamp(0, tz="UTC"), tuple(candle))
        except BarError: found = None
        assert found == want
        kinds.add("refused" if want is None else "kept" if np.array_equal(mended[0], candle, equal_nan=True) else "mended")
    assert kinds == {"refused", "kept", "mended"}

def test_an_unknown_volume_says_what_it_says_in_a_file(five_minutes):
    bars = five_minutes.iloc[1100:1400].copy()
    bars.iloc[::7, 4] = math.nan
    predictor = complete(five_minutes.iloc[:1000])
    stream = predictor.stream()
    said = pd.Series({t: stream.push(t, *candle).probability for t, *candle in rows(bars)}, dtype=float).dropna()
    with pytest.warns(UserWarning, match="unknown volumes were set to 0"): whole = predictor.predict(bars)["probability"]
    assert said.index.equals(whole.index) and abs(said - whole).max() < 1e-6

def test_so_many_candles_are_filled_in_and_silence_says_why(five_minutes):
    "As training filled them; from more on the stream begins anew."
    bars = five_minutes.iloc[1300:1700]                     # five candles are gone behind the 300th
    predictor = complete(five_minutes.iloc[:1000])
    predictor.gaps = "ffill"
    whole = predictor.predict(bars)["probability"]
    for fill, gaps in (None, 0), (5, 0), (4, 1), (0, 1):
        stream = predictor.stream(fill=fill)
        said = [stream.take(time, tuple(candle)) for time, *candle in rows(bars)]
        assert stream.segment == gaps
        silent = [s for s in said if s.probability is None]
        assert all(bool(s.why) == (s.probability is None) for s in said) and silent[0].why == f"the first probability needs {predictor.min_candles} candles, 1 so far"
        if gaps: assert said[300].why == f"the first probability needs {predictor.min_candles} candles, 1 since the gap before {bars.index[300]}"
        else: assert abs(pd.Series({s.time: s.probability for s in said}, dtype=float).dropna() - whole).max() < 1e-6
    predictor.learnt_until = bars.index[-1]
    stream = predictor.stream()
    assert [stream.take(time, tuple(candle)) for time, *candle in rows(bars)][-1].why == f"the model has learnt from candles up to {bars.index[-1]}"

@pytest.mark.parametrize("name", ["stationary", "price_action", "range_volatility"])
def test_the_history_that_is_recommended_is_enough(name):
    "A longer past changes no probability; a shorter one is told of."
    bars = MockDataSource(length=4030, freq="5min", seed=4).load(["A"])["A"]
    predictor = complete(bars.iloc[:1200], name) if name != "range_volatility" else SignalPredictor(Last(), complete(bars.iloc[:600]).about | {"engineer": create_engineer(name).fit([bars.iloc[:600]]).state()})
    whole = predictor.predict(bars)["probability"].iloc[-1]
    n = predictor.history
    found = [predictor.predict(bars.iloc[-k:])["probability"].iloc[-1] for k in (n, predictor.min_candles)]
    assert abs(found[0] - whole) < 1e-6 and abs(found[1] - whole) >= abs(found[0] - whole)
    if name != "range_volatility": return                   # a stream of thousands says no more
    with pytest.warns(UserWarning, match=f"heard {n - 1} candles; unless nothing lies before them, give {n}"): predictor.stream().feed(bars.iloc[-n + 1:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert predictor.stream().feed(bars.iloc[-n:]).probability == pytest.approx(whole, abs=1e-6)

def test_ninety_assets_go_through_the_network_together():
    "In batches that do not end with an asset, and each asset is answered as if it were alone."
    frames = {f"A{i}": MockDataSource(length=230 + i, freq="5min", seed=i).load(["A"])["A"] for i in range(30)}
    predictor = complete(frames["A9"], "price_action")
    predictor.learnt_until = None
    calls, logits = [], predictor.model.network.logits
    predictor.model.network.logits = lambda history: (calls.append(len(history)), logits(history))[1]
    said = predictor.answer(frames)
    windows = sum(map(len, said.values()))
    assert len(calls) <= windows//256 + 2*(windows//1024 + 1) and list(said) == list(frames)
    for name in ("A0", "A29"): pd.testing.assert_frame_equal(said[name], predictor.predict(frames[name]), check_exact=False, atol=1e-6, rtol=0, check_freq=False)

# --- paper trading ------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def small(): return make_small(False)

def make_small(attention):
    "A few hundred candles with a hole in training, a signal that acts on a third of them, and its decisions in the test."
    bars = MockDataSource(length=560, freq="5min", seed=8).load(["A"])["A"]
    bars = bars.drop(bars.index[130:134])
    options = dict(start="first")
    predictor = complete(bars.iloc[:300], "price_action", attention=attention, **options)
    loader = SignalLoader(FrameDataSource({"A": bars}), create_engineer("price_action", **options), lookback=SIZE, atr_multiplier=.3)
    fold = loader.static_holdout(.4, .55, engineer=predictor.engineer)
    p = predictor.model.recalibration.probability(network_logits(predictor.model.network, loader.decisions(fold.test)[0]))
    predictor.threshold = between(p, .3)
    return bars, predictor, loader, fold, p

@pytest.mark.parametrize("rule,stop,target,attention", [*((rule, *levels, False) for rule in ("one", "extend", "slots") for levels in ((None, None), (1., 1.))), ("one", None, None, True)])
def test_paper_makes_the_trades_of_the_backtest(rule, stop, target, attention, small, tmp_path):
    "Bit for bit: returns, wealth, position and every trade."
    bars, predictor, loader, fold, p = make_small(True) if attention else small
    levels = [f"evaluation.{k}={v}" for k, v in dict(stop=stop, target=target).items() if v]
    config = signal_config([f"runs={tmp_path}", f"evaluation.rule={rule}", "evaluation.random_draws=20", "evaluation.n_boot=100", *levels])
    asset, = traded_assets(loader, fold.test)
    ledger = trade_strategies([asset], {"model": p >= predictor.threshold}, config).ledgers["model"]["A"]
    paper = paper_trade(predictor, bars.loc[:asset.bars.index[-1]], config.evaluation.fee, config.evaluation.slippage, rule, stop, target, start=asset.bars.index[0])
    assert isinstance(paper, PaperResult) and paper.log.index.equals(asset.bars.index)
    assert paper.log["equity"].tolist() == ledger.equity.tolist() and paper.log["position"].tolist() == ledger.position.tolist()
    theirs = ledger.trades.assign(entry=asset.bars.index[ledger.trades["entry"]], exit=asset.bars.index[ledger.trades["exit"]])
    pd.testing.assert_frame_equal(paper.trades, theirs, check_exact=True)
    assert len(theirs) >= (3 if rule == "extend" else 8) and paper.log["signal"].tolist() == asset.per_candle(p >= predictor.threshold).tolist()
    if stop: assert {"stop", "target"} <= set(theirs["reason"])
    equity = np.append(1., paper.log["equity"])
    np.testing.assert_allclose(equity[1:]/equity[:-1] - 1, ledger.returns, rtol=0, atol=1e-15)

def test_paper_across_a_hole(small):
    "What was held is sold before it, and the signal needs its past again."
    bars, predictor, *_ = small
    hollow = bars.drop(bars.index[300:330])
    paper = paper_trade(predictor, hollow, 0., 0., stop=2.)
    said = predictor.predict(hollow)
    log = paper.log
    quiet = log["probability"].isna()
    assert log.index[0] == said.index[0] and quiet.sum() == 2*(predictor.min_candles - 1) and not log["signal"][quiet].any()
    assert abs(log["probability"].dropna() - said["probability"]).max() < 1e-6
    after = hollow.loc[log.index[0]:]
    segment, usual = np.where(after.index > bars.index[299], 1, 0), np.full(len(hollow), np.nan)
    edges = [0, 130, 300, len(hollow)]
    edges[2] = hollow.index.searchsorted(bars.index[329])
    for i, j in zip(edges, edges[1:]): usual[i:j] = atr(*(hollow[c].to_numpy()[i:j] for c in ("high", "low", "close")))
    ledger = simulate_trades(*(after[c].to_numpy() for c in COLUMNS[:4]), log["signal"].to_numpy(bool), 4, 0., 0., "one", 2*usual[-len(after):], None, segment)
    assert ledger.equity.tolist() == log["equity"].tolist() and len(ledger.trades) == len(paper.trades) > 5

def test_costs_lower_wealth_by_what_they_say(small):
    bars, predictor, *_ = small
    free, dear = (paper_trade(predictor, bars.iloc[:400], fee, 0.) for fee in (0., .01))
    assert dear.log["equity"].iloc[-1] == pytest.approx(free.log["equity"].iloc[-1]*.99**(2*len(free.trades) - (free.trades["reason"] == "open").sum()), rel=1e-12)

def test_too_little_to_trade_on(small):
    bars, predictor, *_ = small
    with pytest.raises(ConfigError, match="first probability needs"): paper_trade(predictor, bars.iloc[:60])
    with pytest.raises(ConfigError, match="first probability needs"): predictor.predict(bars.iloc[:60])
    with pytest.raises(ConfigError, match="begin earlier"): paper_trade(predictor, bars, start="2031-01-01")
    with pytest.raises(ConfigError, match="candles of 0 days 00:05:00"): predictor.predict(MockDataSource(length=400, freq="15min").load(["A"])["A"])
    with pytest.raises(ConfigError, match="longest stretch"): predictor.predict(bars.drop(bars.index[::40]))

# --- the checkpoint alone -------------------------------------------------------------------------------------------------------

def test_the_checkpoint_is_enough(trained, tmp_path, monkeypatch):
    "One file elsewhere says what the run says; nothing of it is unpickled."
    no_pickle(monkeypatch)
    shutil.copy(trained["run"].folder/"checkpoints/best.safetensors", tmp_path/"alone.safetensors")
    bars = get_source("sp500").load()["sp500"].iloc[-500:]
    mine, theirs = SignalPredictor.load(tmp_path/"alone.safetensors"), SignalPredictor.load(trained["run"].folder)
    pd.testing.assert_frame_equal(mine.predict(bars), theirs.predict(bars), check_exact=True)
    assert mine.threshold == trained["decision"].threshold and mine.lookback == 24 and mine.horizon == 4 and mine.min_candles == 199 + 24
    assert mine.engineer.state() == trained["fold"].engineer.state()
    e = trained["config"].evaluation
    assert mine.trading == {k: getattr(e, k) for k in ("fee", "slippage", "rule", "stop", "target")}       # traded on paper as it was tested

def test_paper_trades_as_the_run_was_tested(small):
    "Costs, rule and levels come with the signal; what is given goes before."
    bars, predictor, *_ = small
    about = predictor.about | {"trading": dict(fee=.002, slippage=.001, rule="slots", stop=1., target=2.)}
    signal = SignalPredictor(predictor.model.network, about); signal.threshold = predictor.threshold
    given = paper_trade(predictor, bars.iloc[:350], .002, .001, "slots", 1., 2.)
    pd.testing.assert_frame_equal(paper_trade(signal, bars.iloc[:350]).log, given.log, check_exact=True)
    pd.testing.assert_frame_equal(paper_trade(signal, bars.iloc[:350], fee=0.).log, paper_trade(predictor, bars.iloc[:350], 0., .001, "slots", 1., 2.).log, check_exact=True)
    assert len(given.trades) > 5

def test_the_checkpoint_says_what_the_test_said(trained):
    "The run's own probabilities, from its candles."
    predictor, loader = SignalPredictor.load(trained["run"].folder), trained["loader"]
    said = predictor.predict(loader.bars["sp500"])
    at = loader.bars["sp500"].index[trained["fold"].test.windows.row]
    assert abs(said.loc[at, "probability"].to_numpy() - trained["classified"]["model"].probability).max() < 1e-6
    assert (said["signal"] == (said["probability"] >= predictor.threshold)).all()

def test_a_signal_that_is_not_one(trained, tmp_path):
    good = trained["run"].folder/"checkpoints/best.safetensors"
    tensors, state = load_checkpoint(good)
    def put(name, **changes):
        save_checkpoint(tmp_path/name, tensors, state | {"about": {k: v for k, v in (state["about"] | changes).items() if v is not None}}); return tmp_path/name
    with pytest.raises(CheckpointError, match="not of the signal lab"): SignalPredictor.load(put("lab.safetensors", lab="macro"))
    with pytest.raises(ConfigError, match="not learnt how to act"): SignalPredictor.load(put("half.safetensors", decision=None))
    with pytest.raises(CheckpointError, match="cannot be built"): SignalPredictor.load(put("other.safetensors", recipe={"name": "transformr"}))
    with pytest.raises(CheckpointError, match="cannot be built"): SignalPredictor.load(put("engineer.safetensors", engineer=state["about"]["engineer"] | {"name": "spam"}))
    with pytest.raises(CheckpointError): SignalPredictor.load(put("wide.safetensors", recipe=state["about"]["recipe"] | {"d_model": 64}))
    with pytest.raises(ConfigError, match="no run and no checkpoint"): SignalPredictor.load(tmp_path/"nowhere")
    data = good.read_bytes(); (tmp_path/"torn.safetensors").write_bytes(data[:-9])
    with pytest.raises(CheckpointError): SignalPredictor.load(tmp_path/"torn.safetensors")
    never = SignalPredictor.load(put("never.safetensors", decision=state["about"]["decision"] | {"threshold": None}))
    assert math.isinf(never.threshold) and not never.predict(get_source("sp500").load()["sp500"].iloc[-300:])["signal"].any()

# --- files for others -------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    pytest.importorskip("onnx"); pytest.importorskip("onnxscript")
    predictor = SignalPredictor.load(trained["run"].folder)
    with pytest.MonkeyPatch.context() as patch:
        no_pickle(patch)
        return predictor, predictor.export(tmp_path_factory.mktemp("exports"))

def real_windows(trained):
    fold = trained["fold"]
    return fold.test.gather.gather(fold.test.asset, fold.test.row)["history"].numpy()

def test_exported_files_say_the_same(trained, exported):
    "The probabilities of the test, and all that is needed to make the features elsewhere."
    pytest.importorskip("onnxruntime")
    (predictor, paths), x = exported, real_windows(trained)
    assert [p.name for p in paths] == ["signal.onnx", "signal.pt2"]
    for load, path in zip((load_onnx, load_program), paths):
        found = load(path)
        for n in (1, 7, len(x)): assert abs(found(x[:n]) - trained["classified"]["model"].probability[:n]).max() < 1e-5
        assert json.loads(found.about["engineer"]) == predictor.engineer.state() and found.about["columns"] == ", ".join(predictor.engineer.columns)
        assert float(found.about["threshold"]) == predictor.threshold and found.about["horizon"] == "4" and json.loads(found.about["label"])["name"] == "forward_atr"

@pytest.mark.parametrize("kind", [pytest.param("none", marks=pytest.mark.slow), "temperature", "isotonic"])
def test_every_recalibration_can_be_exported(kind, five_minutes, tmp_path):
    predictor = complete(five_minutes.iloc[:600], "price_action", kind, math.inf, attention=kind == "temperature", start="first")
    x = np.random.default_rng(1).normal(size=(40, SIZE, 14)).astype(np.float32)
    if kind == "isotonic": pytest.importorskip("onnxruntime"); pytest.importorskip("onnxscript")
    for path in predictor.export(tmp_path, onnx=kind == "isotonic"):
        found = (load_onnx if path.suffix == ".onnx" else load_program)(path)
        assert abs(found(x) - predictor.probability(x)).max() < 1e-5 and np.ptp(found(x)) > .01 and found.about["threshold"] == "never"

PICKLE = tuple(bytes([0x80, v]) for v in range(2, 6))

def pickled(path):
    "Names of what a file holds that a pickle could be."
    data = Path(path).read_bytes()
    if data.startswith(PICKLE): return [str(path)]
    if not zipfile.is_zipfile(io.BytesIO(data)): return []
    archive = zipfile.ZipFile(io.BytesIO(data))
    return [i.filename for i in archive.infolist() if i.filename.endswith((".pkl", ".pickle", ".pth")) or archive.read(i)[:2] in PICKLE]

def test_no_file_is_a_pickle(trained, exported, tmp_path):
    "Of a run and its exports; and the test would find one."
    files = [*(p for p in trained["run"].folder.rglob("*") if p.is_file()), *exported[1]]
    assert len(files) >= 9 and not [name for p in files for name in pickled(p)]
    assert {p.suffix for p in files} <= {".yaml", ".json", ".jsonl", ".csv", ".safetensors", ".onnx", ".pt2", ".png", ""}
    (tmp_path/"a.bin").write_bytes(pickle.dumps({"a": 1})); torch.save({"a": torch.ones(2)}, tmp_path/"b.pth")
    assert pickled(tmp_path/"a.bin") and pickled(tmp_path/"b.pth")

def test_nothing_is_unpickled_on_the_way(trained, exported, monkeypatch):
    "Evaluating, asking, streaming and trading, and reading both files; and the trap is one."
    no_pickle(monkeypatch)
    with pytest.raises(AssertionError, match="unpickled"): torch.load("x")
    with pytest.raises(AssertionError, match="unpickled"): pickle.loads(b"")
    bench.evaluate(trained["run"].folder, overrides=["evaluation.n_boot=100"])
    model, about = bench.load_model(trained["run"].folder, "signal")
    assert restore_recalibration(about["decision"]["recalibration"]).kind == "platt"
    paper_trade(SignalPredictor(model, about), get_source("sp500").load()["sp500"].iloc[-260:])
    for load, path in zip((load_onnx, load_program), exported[1]): assert load(path)(real_windows(trained)[:2]).shape == (2,)
