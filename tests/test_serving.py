"What is deployed answers as what was trained: every data setting of signal and market, from the checkpoint's own words alone, for a file and candle by candle."
import dataclasses, json, warnings

import numpy as np, pandas as pd, pytest, torch

from synthlab.datasets.gaps import POLICIES, GapWatch, fill_gaps
from synthlab.datasets.sources import MockDataSource, get_source
from synthlab.experiments.lab import get_lab
from synthlab.experiments.setup import not_learnt
from synthlab.labs.market.settings import DataConfig
from synthlab.labs.signal.judging import Decision, decision_state, network_logits
from synthlab.labs.signal.paper import paper_trade
from synthlab.labs.signal.predictor import SignalPredictor
from synthlab.labs.signal.settings import SignalData
from synthlab.labs.signal.trading import trade_asset, traded_assets
from synthlab.metrics.recalibration import create_recalibration
from synthlab.models.registry import ConfigError
from synthlab.models.synth import covariates

@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "Hourly candles with holes and a further column; the same with a jump; daily ones of Paris."
    folder = tmp_path_factory.mktemp("files")
    bars = MockDataSource(640, "1h", seed=3).load(["A"])["A"]
    bars = bars.assign(mood=np.sin(np.arange(640)/9)).drop(bars.index[[*range(150, 156), *range(240, 243)]])
    bars.to_parquet(folder/"A.parquet")
    jump = bars.copy(); jump.iloc[400:, :4] *= 40; jump.to_parquet(folder/"jump.parquet")
    days = MockDataSource(700, "1D", seed=5).load(["A"])["A"]
    days = days[days.index.day_of_week < 5].iloc[:480].drop(days.index[[*range(202, 230)]], errors="ignore")
    days = days.set_axis(days.index.tz_localize(None).tz_localize("Europe/Paris"))
    days.to_csv(folder/"paris.csv")
    return folder

HOURS, COMMON = "{files}/A.parquet", ["tracking.mode=disabled", "threads=1"]
SIGNAL = ["model=small", "data.engineer={name: price_action, start: first}", "data.lookback=8", "data.atr_multiplier=0.3", "training.stride=5", "data.split.val_fraction=0.15", "data.split.test_fraction=0.25"]
MARKET = ["model=linear", "data.split.val_start=null", "data.split.test_start=null", "training.horizon=4", "data.split.val_fraction=0.15", "data.split.test_fraction=0.25", "data.engineer={name: zscore, long_win: 60}", "evaluation.baselines=[constant]"]

# setting -> overrides of it, each with a file
SIGNALS = {
    "source": [[f"data.source={HOURS}"]], "assets": [[f"data.source={HOURS}", "data.assets=[A]"]],
    "gaps": [[f"data.source={HOURS}", f"data.gaps={g}"] for g in ("segment", "ffill")] + [["data.source={files}/paris.csv", "data.gaps=ffill"]],
    "gap_limit": [[f"data.source={HOURS}", "data.gap_limit=5h", f"data.gaps={g}"] for g in ("segment", "ffill")],
    "jump_limit": [["data.source={files}/jump.parquet", "data.jump_limit=inf"], ["data.source={files}/jump.parquet", "data.jump_limit=50"]],
    "engineer": [[f"data.source={HOURS}", f"data.engineer={{name: {name}{more}}}"] for name, more in (
        ("price_action", ", start: first, smoothing: span"), ("stationary", ", past: [mood]"), ("range_volatility", ", windows: [1, 5], past: [mood]"), ("zscore", ", long_win: 40"), ("ohlcv", ""), ("wavelet", ""))],
    "lookback": [[f"data.source={HOURS}", "data.lookback=5"]], "label": [[f"data.source={HOURS}", "data.label=first_touch"]],
    "horizon": [[f"data.source={HOURS}", "data.horizon=7"]], "atr_multiplier": [[f"data.source={HOURS}", "data.atr_multiplier=0.5"]],
    "smoothing": [[f"data.source={HOURS}", "data.smoothing=span"]], "target_offset": [[f"data.source={HOURS}", "data.target_offset=1"]],
    "split": [[f"data.source={HOURS}", "data.split.embargo=10h"]],
}
MARKETS = {k: v for k, v in SIGNALS.items() if k in {f.name for f in dataclasses.fields(DataConfig)} and k != "engineer"} | {
    "gaps": [[f"data.source={HOURS}", f"data.gaps={g}"] for g in ("segment", "ffill", "nan")], "engineer": [[f"data.source={HOURS}", "data.engineer={name: ohlcv}"]],
    "past": [[f"data.source={HOURS}", "data.past=[mood]"]], "static": [["data.source=mock", "data.assets=[A,B]", "data.static=asset"]],
    "future": [[f"data.source={HOURS}", "data.future=[time_of_day]"], ["data.source={files}/paris.csv", "data.future=[day_of_week,month]"]],
}
cases = lambda table: [pytest.param(o, id=f"{k}{i}") for k, given in table.items() for i, o in enumerate(given)]

def test_the_list_is_whole():
    "A data setting that is added is asked about here."
    assert set(SIGNALS) == {f.name for f in dataclasses.fields(SignalData)} and set(MARKETS) == {f.name for f in dataclasses.fields(DataConfig)}

def deployed(name, typed, files, **more):
    "A model that nobody has taught, with all that its checkpoint would say, through JSON; and its data."
    lab = get_lab(name)
    config = lab.configure([*COMMON, *(SIGNAL if name == "signal" else MARKET), *(o.replace("{files}", str(files)) for o in typed)])
    market = lab.load(config)
    training = lab.parts(config, market)[0].training
    model = training.objective.model.eval()
    with torch.no_grad():
        for p in model.parameters(): p.add_(.1*torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    about = json.loads(json.dumps(training.about | more)) | dict(training=dataclasses.asdict(config.training))
    return lab, config, market, model, about

def decided(threshold=.5):
    plain = create_recalibration("none").fit(np.zeros(2), np.array([0, 1]))
    return decision_state(Decision(plain, threshold, pd.DataFrame(), (.01, -.01), .2))

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("typed", cases(SIGNALS))
def test_a_signal_answers_as_its_test_did(typed, files):
    "For a file as the windows of the test, to 1e-6; and candle by candle the same again."
    lab, config, market, network, about = deployed("signal", typed, files, decision=decided())
    test = market.fold.test
    want = pd.Series(1/(1 + np.exp(-network_logits(network, test))), pd.to_datetime(test.windows.decided_at, utc=True))
    name = market.loader.names[0]
    said = lab.predict(network, about, config.data.source, list(config.data.assets) or None)[name]
    given = want[want.index.isin(said.index)]
    filled = want.index.difference(market.loader.given[name])
    assert len(given) == len(want) - len(filled) > 40 and said.index.min() > market.learnt_until()
    assert abs(said["probability"].loc[given.index] - given).max() < 1e-6 and given.std() > .001
    predictor = SignalPredictor(network, about)
    stream, bars = predictor.stream(), predictor.load_source(config.data.source)[name]
    stream.feed(bars.iloc[:-70])
    live = {t: stream.push(t, **dict(zip(stream.features.takes, row))).probability for t, *row in bars[list(stream.features.takes)].iloc[-70:].itertuples(name=None)}
    live = pd.Series(live, dtype=float).dropna()
    assert len(live) > 40 and live.index.equals(said.loc[live.index[0]:].index) and abs(live - said["probability"].loc[live.index]).max() < 1e-6

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("typed", [pytest.param(o, id=i) for i, o in dict(segment=SIGNALS["gaps"][0], ffill=SIGNALS["gaps"][1], paris=SIGNALS["gaps"][2], limit=SIGNALS["gap_limit"][0], past=SIGNALS["engineer"][1], no_memory=SIGNALS["engineer"][2]).items()])
def test_paper_is_the_backtest(typed, files):
    "Whatever shapes a feature: the same trades, to the bit."
    lab, config, market, network, about = deployed("signal", typed, files, decision=decided())
    asset, = traded_assets(market.loader, market.fold.test)
    p = 1/(1 + np.exp(-network_logits(network, market.loader.decisions(market.fold.test)[0])))
    near = np.sort(p)[len(p)//2:-len(p)//4]                     # between two of them, as far from either as can be
    about["decision"]["threshold"] = cut = float((near[:-1] + near[1:])[np.diff(near).argmax()]/2)
    ledger = trade_asset(asset, asset.per_candle(p >= cut), config)
    predictor = SignalPredictor(network, about)
    bars = predictor.load_source(config.data.source)[asset.name]
    paper = paper_trade(predictor, bars, start=asset.bars.index[0])
    assert paper.log.index.equals(asset.bars.index) and len(ledger.trades) > 3
    assert paper.log["position"].tolist() == ledger.position.tolist() and paper.log["equity"].tolist() == ledger.equity.tolist()
    assert paper.log["signal"].tolist() == asset.per_candle(p >= cut).tolist() and paper.trades["reason"].tolist() == ledger.trades["reason"].tolist()

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("typed", cases(MARKETS))
def test_a_simulator_answers_as_it_would_in_training(typed, files):
    lab, config, market, model, about = deployed("market", typed, files)
    batch = market.loader.latest_window(market.fold.engineer)
    with torch.inference_mode():
        paths = model(batch["history"], batch["initial_price"], 4, 50, scale=batch["scale"], generator=torch.Generator().manual_seed(3), **covariates(batch))[0].double().numpy()
    said = lab.predict(model, about, config.data.source, list(config.data.assets) or None, n_paths=50, seed=3)
    for i, name in enumerate(market.loader.names): assert np.allclose(said[name]["mean"], paths[i].mean(0), rtol=1e-6), name

@pytest.fixture(scope="module")
def simulator(files):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return deployed("market", [f"data.source={HOURS}"], files)

def later(n, start="2024"):
    return {name: bars.set_axis(pd.date_range(start, periods=n, freq="1h", tz="UTC", name="time")) for name, bars in MockDataSource(n, "1h", seed=8).load(["A", "B"]).items()}

def test_the_paths_are_those_of_the_quantiles(simulator, tmp_path):
    "In Python as frames, in a file as a row an asset, member and step; the same draws for a seed."
    lab, _, _, model, about = simulator
    bars, asked = later(200), dict(n_paths=40, seed=5)
    said, paths = lab.predict(model, about, bars, **asked), lab.predict(model, about, bars, **asked, paths=True)
    for name, frame in paths.items():
        assert frame.shape == (4, 40) and (frame.index.name, frame.columns.name) == ("time", "member") and frame.attrs["note"] == said[name].attrs["note"]
        assert frame.index.equals(said[name].index) and np.allclose(frame.mean(axis=1), said[name]["mean"], rtol=1e-12)
        for q in 5, 50, 95: assert np.allclose(frame.quantile(q/100, axis=1), said[name][f"q{q}"], rtol=1e-12)
        assert (frame.nunique(axis=1) == 40).all()
    assert list(paths) == list(said) == ["A", "B"] and not np.allclose(paths["A"], lab.predict(model, about, bars, n_paths=40, seed=6, paths=True)["A"])
    for file, read in (tmp_path/"all.parquet", pd.read_parquet), (str(tmp_path/"all.csv"), lambda f: pd.read_csv(f, parse_dates=["time"])):
        told = lab.predict(model, about, bars, **asked, paths=file)
        assert all(told[name].equals(said[name]) and str(file) in told[name].attrs["note"] for name in said)
        table = read(file)
        assert list(table) == ["asset", "member", "time", "close"] and len(table) == 2*40*4
        for name, rows in table.groupby("asset"):
            wide = rows.pivot(index="time", columns="member", values="close")
            assert np.allclose(wide, paths[name], rtol=1e-14) and (wide.index == paths[name].index).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["all.csv", "all.parquet"]

def test_paths_are_refused_before_anything_is_simulated(tmp_path):
    for file, source, why in (tmp_path/"all.txt", None, "paths is .*Parquet"), (tmp_path/"no"/"all.csv", None, "make it first"), ("bars.csv", "./bars.csv", "the very file"):
        with pytest.raises(ConfigError, match=why): get_lab("market").predict(None, {}, source, paths=file)

@pytest.mark.parametrize("levels", [[5, 50, 95], [-.1], [float("nan")], ["half"], "0.5", 50, [True, None]])
def test_levels_lie_between_0_and_1(levels):
    with pytest.raises(ConfigError, match="levels is .*; give numbers between 0 and 1, such as 0.05,0.5,0.95"): get_lab("market").predict(None, {}, None, levels=levels)

def test_an_answer_takes_the_history_alone(simulator):
    "As many bars as warm-up and history; longer pasts say the same, and one bar less is refused with what can be done about it."
    lab, config, market, model, about = simulator
    need, bars = market.fold.engineer.warmup + config.training.lookback, later(300)
    tail = {name: b.iloc[-need:] for name, b in bars.items()}
    want = lab.predict(model, about, bars, n_paths=20)
    for name, said in lab.predict(model, about, tail, n_paths=20).items(): pd.testing.assert_frame_equal(said, want[name])
    ended, moved = ({name: b.iloc[:250] for name, b in bars.items()} for bars in (bars, {n: pd.concat([b.iloc[:250], 3*b.iloc[250:]]) for n, b in bars.items()}))
    for name, said in lab.predict(model, about, ended, n_paths=20).items():
        assert said.index[0] == bars[name].index[250] and said.equals(lab.predict(model, about, moved, n_paths=20)[name])
    short = tail | {"B": tail["B"].iloc[1:]}
    with pytest.raises(ConfigError, match=rf"asset B has {need - 1} bars, a window needs .* = {need} \(warm-up, history\); give more bars, or ask about other assets"): lab.predict(model, about, short)
    torn = {"A": bars["A"].drop(bars["A"].index[-9])}
    with pytest.raises(ConfigError, match=r"asset A has 8 bars since its last gap, .*; wait for more, fill the gap in the data, or ask about other assets") as e: lab.predict(model, about, torn)
    assert "ffill" not in str(e.value)

def test_training_refuses_what_cannot_be_served(files):
    for typed, words in (["data.gaps=nan"], "nobody can trade on an empty row"), (["data.gaps=spam"], "segment"):
        with pytest.raises(ConfigError, match=words): get_lab("signal").configure(typed)

@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("freq, zone", [("1h", "UTC"), ("1D", "UTC"), ("1D", "Europe/Paris"), ("7D", "UTC")])
def test_gaps_one_by_one(policy, freq, zone):
    "The same stamps and the same stretches as for a whole history, with and without a limit."
    bars = MockDataSource(300, freq, seed=1).load(["A"])["A"]
    if zone != "UTC": bars = bars.set_axis(bars.index.tz_localize(None).tz_localize(zone).tz_convert("UTC")); bars.attrs["zone"] = zone
    if freq == "1D": bars = bars[bars.index.tz_convert(zone).day_of_week < 5]
    keep = np.random.default_rng(2).random(len(bars)) > .05; keep[60:85] = False; keep[:9] = True
    bars = bars[keep]
    step = pd.Timedelta(freq)
    for limit in None, 3*step:
        watch, found, segment, now = GapWatch(step, policy, limit, zone), [], [], 0
        try: want, parts = fill_gaps(bars, policy, limit)
        except ValueError:
            with pytest.raises(ValueError, match="gaps"):
                for t in bars.index: watch.missing(t); watch.take(t)
            continue
        for t in bars.index:
            missed, anew = watch.missing(t)
            now += anew; found += [*missed, t]; segment.append(now)
            for m in [*missed, t]: watch.take(m)
        if policy == "ffill": assert found == want.index.tolist() and len(found) > len(bars)
        elif policy == "segment": assert segment == parts.tolist() and now
        else: assert now and found == bars.index.tolist()

# --- one guard for every door

@pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")
def test_no_door_answers_over_what_was_learnt(files):
    "Predicting, a stream and an account on paper say and refuse what another test would."
    lab, config, market, network, about = deployed("signal", [f"data.source={HOURS}"], files, decision=decided())
    predictor, until = SignalPredictor(network, about), market.learnt_until()
    bars = predictor.load_source(config.data.source)["A"]
    old = bars.loc[:until]
    refused = f"at or before {until:%Y-%m-%d %H:%M}, the end of what the model has learnt from; give later candles"
    for ask in lambda: predictor.predict(old), lambda: paper_trade(predictor, old), lambda: lab.predict(network, about, {"A": old}):
        with pytest.raises(ConfigError, match=refused): ask()
    with pytest.raises(ConfigError, match="begin later"): paper_trade(predictor, bars, start=old.index[-1])
    with pytest.warns(UserWarning, match="candles up to .* are left out, because the model has learnt from those times"): said = predictor.predict(bars)
    with pytest.warns(UserWarning, match="are left out"): paper = paper_trade(predictor, bars)
    assert said.index[0] == paper.log.index[0] == bars.index[bars.index > until][0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = paper_trade(predictor, bars, start=said.index[0])       # whoever knows when to begin is told nothing
    pd.testing.assert_frame_equal(later.log, paper.log)
    stream = predictor.stream()
    assert stream.feed(old).probability is None and stream.feed(bars.loc[until:].iloc[1:2]).probability is not None
    assert SignalPredictor(network, {k: v for k, v in about.items() if k != "learnt_until"}).predict(old)["probability"].notna().all(), "nobody knows"

@pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")
def test_a_simulator_too(files):
    lab, config, market, model, about = deployed("market", ["data.source=mock", "data.assets=[A,B]"], files)
    until, bars = market.learnt_until(), get_source("mock").load(["A", "B"])
    old = {name: b.loc[:until] for name, b in bars.items()}
    with pytest.raises(ConfigError, match="every last bar lies at or before .* give later bars"): lab.predict(model, about, old)
    with pytest.warns(UserWarning, match="1 assets with bars up to"): said = lab.predict(model, about, bars | {"A": old["A"]})
    assert list(said) == ["B"]

@pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")
def test_a_drift_belongs_to_its_bars_at_every_door(files):
    "`evaluate` leaves it out on other bars and says so; so does `predict`, whose steps are those of the bars."
    lab, config, market, model, about = deployed("market", [f"data.source={HOURS}", "model=default"], files)
    model.drift = .01
    days = {"A": MockDataSource(400, "1D").load(["A"])["A"].set_axis(pd.date_range("2024", periods=400, tz="UTC", name="time"))}
    with pytest.warns(UserWarning, match="drift of 0.01 a bar belongs to bars of 1 hour; these are of 1 day, so it is left out"): said = lab.predict(model, about, days, n_paths=20)["A"]
    still = dict(about); model.drift = 0.
    pd.testing.assert_frame_equal(said, lab.predict(model, still, days, n_paths=20)["A"])
    assert (said.index[1] - said.index[0]) == pd.Timedelta("1D")

def test_the_guard():
    times, until = pd.date_range("2020", periods=4, tz="UTC"), pd.Timestamp("2020-01-02", tz="UTC")
    assert not_learnt(times, until).tolist() == not_learnt(times.as_unit("ns").asi8, until).tolist() == [False, False, True, True]
    assert not_learnt(times, None).all()
    with pytest.raises(ConfigError, match="every bar lies at or before 2020-01-02 00:00"): not_learnt(times[:2], until)
