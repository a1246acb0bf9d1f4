"""What a user hands over in Python: data without a file and a model without a plug-in. A run knows both by a hash, keeps the one and asks for the other."""
import json, os, shutil
from functools import partial
from pathlib import Path

import numpy as np, pandas as pd, pyarrow as pa, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn

from synthlab.datasets import given as memory
from synthlab.datasets.bars import BarWarning
from synthlab.datasets.fingerprint import fingerprint
from synthlab.datasets.given import GivenBars, find_given, remember
from synthlab.datasets.panels import load_panel
from synthlab.datasets.sources import MockDataSource, get_source
from synthlab.datasets.toy_events import toy_events
from synthlab.datasets.events import join_events
from synthlab.experiments import plugins
from synthlab.experiments.experiment import evaluate, load_model, predict, resume, run
from synthlab.experiments.lab import get_lab
from synthlab.experiments.reports import report_run, typed_by
from synthlab.experiments.runs import Run
from synthlab.experiments.variants import variants
from synthlab.models.emulators import Emulator
from synthlab.models.families import Family
from synthlab.models.registry import ConfigError, registry

FRAME = MockDataSource(400, "1h").load()["MOCK"]
SMALL = ["model=linear", "training.epochs=2", "training.n_paths=4", "training.batch_size=256", "evaluation.n_paths=10", "evaluation.stride=12", "evaluation.n_boot=100",
         "evaluation.baselines=[constant]", "data.engineer={name:range_volatility,windows:[1,5],estimators:[garman_klass]}", "training.horizon=4", "tracking.mode=disabled", "threads=1"]

@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    "Each test begins as a process that was given nothing."
    for module, names in ((memory, ("_given", "_kept")), (plugins, ("_written", "_loaded"))):
        for name in names: monkeypatch.setattr(module, name, {})
    yield
    for store in registry._store.values():      # nor does what it registers stay for other files of tests
        for key in [k for k, info in store.items() if info.source_module in (__name__, "synthlab_plugin_mine")]: del store[key]

def forget():
    "What a new process knows."
    for book in memory._given, memory._kept, plugins._written: book.clear()

def tensors(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*.safetensors"))}

# --- frames -----------------------------------------------------------------------------------------------------------------------

SPELT = dict(time=["time", "Date", "timestamp", "Datetime"], open=["open", "Open", "OPEN"], high=["high", "HIGH"], low=["low", "Low"], close=["close", "Close", "CLOSE"],
             volume=["volume", "Volume", "vol"])
DTYPES = "float64", "Float64", "float64[pyarrow]"

class Speaks:
    "Anything that speaks Arrow and is neither pandas nor pyarrow, as a frame of polars."
    def __init__(self, table): self.table = table
    def __arrow_c_stream__(self, schema=None): return self.table.__arrow_c_stream__(schema)

@st.composite
def frames(draw):
    "The same bars, spelt and ordered in any way; and as they are."
    n = draw(st.integers(2, 40))
    plain = FRAME.iloc[:n]
    names = {k: draw(st.sampled_from(v)) for k, v in SPELT.items()}
    table = plain.astype({c: draw(st.sampled_from(DTYPES)) for c in plain}).reset_index(names="time").rename(columns=names)
    table = table[draw(st.permutations(list(table.columns)))].iloc[draw(st.permutations(range(n)))]
    how = draw(st.sampled_from(["column", "index", "arrow", "stream", "text", "seconds"]))
    time = names["time"]
    if how == "index": table = table.set_index(time)
    if how == "text": table[time] = table[time].astype(str)
    if how == "seconds": table[time] = table[time].astype("int64")//10**9
    if how in ("arrow", "stream"): table = pa.Table.from_pandas(table, preserve_index=False)
    return plain, Speaks(table) if how == "stream" else table

@settings(max_examples=40, deadline=None, derandomize=True)
@given(frames())
@pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")
def test_however_a_frame_is_written_its_bars_are_the_same(pair):
    plain, table = pair
    assert GivenBars.of(table).word == GivenBars.of(plain).word == GivenBars.of({"bars": table}).word
    other = plain.copy(); other.iloc[-1, 3] = np.nextafter(other.iloc[-1, 3], 0)
    assert GivenBars.of(other).word != GivenBars.of(plain).word

@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.sampled_from(["UTC", "Europe/Paris", "Asia/Kolkata"]), st.lists(st.sampled_from(["rate", "n", "flag", "note"]), unique=True), st.booleans())
@pytest.mark.filterwarnings("ignore::synthlab.datasets.bars.BarWarning")
def test_what_is_kept_is_what_was_given(tmp_path_factory, n, zone, more, two):
    "Prices, volume, the zone of the times and all further numbers, of every asset; text is left out."
    columns = dict(rate=np.linspace(-1, 1, n), n=range(n), flag=np.arange(n) % 2 == 0, note=["x"]*n)
    table = FRAME.iloc[:n].tz_convert(zone).assign(**{k: columns[k] for k in more})
    folder, bars = tmp_path_factory.mktemp("kept"), GivenBars.of({"A/B": table, "C": table.iloc[:-1]} if two else table)
    bars.write(folder)
    again = GivenBars.read(folder)
    further = [k for k in more if k in ("rate", "n", "flag")]
    assert again.word == bars.word and again.names() == bars.names()
    assert fingerprint(again.load(columns=further)) == fingerprint(get_source({"A/B": table, "C": table.iloc[:-1]} if two else table).load(columns=further))
    assert {b.attrs["zone"] for b in again.load().values()} == {zone}

# --- runs -------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A run that was given a frame; it was as well given a file of the same numbers."
    root = tmp_path_factory.mktemp("runs")
    FRAME.to_parquet(root/"bars.parquet")
    own = run("market", FRAME, [*SMALL, f"runs={root}"], quiet=True)["run"].folder
    filed = run("market", root/"bars.parquet", SMALL, run_dir=root/"filed", quiet=True)["run"].folder
    return own, filed

def test_a_frame_and_a_file_of_the_same_bars_are_one_question(finished):
    own, filed = finished
    results = [{k: v for k, v in Run(f).result.items() if "second" not in k} for f in finished]
    assert results[0] == results[1]
    assert Run(own).read_status()["data"] == Run(filed).read_status()["data"] and not (filed/"data").exists()

def test_the_folder_alone_is_tested_and_goes_on(finished, tmp_path, monkeypatch):
    "Moved elsewhere, opened by a process that has never seen the frame."
    forget()
    moved = shutil.copytree(finished[0], tmp_path/"moved")
    assert evaluate(moved, quiet=True)["metrics"]["crps"] == Run(finished[0]).result["crps"]
    with monkeypatch.context() as patch:
        patch.setattr(type(get_lab("market")), "judge", lambda *_: 1/0)
        with pytest.raises(ZeroDivisionError): run("market", [*SMALL, f"runs={finished[0].parent}"], FRAME, run_dir=tmp_path/"cut", quiet=True)
    forget()
    resume(tmp_path/"cut", quiet=True)
    assert Run(tmp_path/"cut").result["crps"] == Run(finished[0]).result["crps"] and tensors(tmp_path/"cut") == tensors(finished[0])
    assert run("market", FRAME, [*SMALL, f"runs={finished[0].parent}"], run_dir=tmp_path/"cut", quiet=True)["run"].folder == tmp_path/"cut"
    with pytest.raises(ConfigError, match="other settings"): run("market", FRAME.iloc[1:], SMALL, run_dir=tmp_path/"cut", quiet=True)

def test_lost_or_harmed_data_are_asked_for(finished, tmp_path):
    forget()
    lost, harmed = (shutil.copytree(finished[0], tmp_path/name) for name in ("lost", "harmed"))
    shutil.rmtree(lost/"data")
    with pytest.raises(ValueError, match=r"lost/data: the data that the run was given are not there; give them again: resume\(RUN, data=…\)"): evaluate(lost)
    FRAME.iloc[1:].to_parquet(harmed/"data"/"00000.parquet")
    with pytest.raises(ValueError, match="this is no kept frame"): evaluate(harmed)
    GivenBars.of(FRAME.iloc[1:]).write(harmed/"data")
    with pytest.raises(ValueError, match="these are not the data that the run was given"): evaluate(harmed)
    assert resume(lost, data=FRAME, quiet=True)["metrics"]["crps"] == Run(finished[0]).result["crps"]

def test_a_report_in_another_process_finds_the_data(finished):
    "`typed_by` is the first thing that a report calls."
    forget()
    typed_by("market", ["run_dir: str = ''"], dict(run_dir=str(finished[0]), overrides=[]))
    assert find_given(remember(FRAME)).word == Run(finished[0]).config().split("source: ")[1].split()[0]
    forget()
    with pytest.raises(ValueError, match="has not been opened"): get_source(remember(FRAME)[:-1] + "0")

def test_other_data_may_be_a_frame_too(finished):
    later = FRAME.set_axis(FRAME.index + pd.Timedelta("60D"))
    assert evaluate(finished[0], Speaks(pa.Table.from_pandas(later.reset_index())), quiet=True)["metrics"]["windows"] > 0
    assert len(predict(finished[0], later)["bars"]) == 4

def test_events_in_memory(tmp_path):
    "One record of events is split, learnt from and kept."
    events = join_events(*toy_events(n=120, n_signal=24, tokens=8).values())
    words = ["encoder=mlp", "decoder=mlp", "latent.codes=16", "training.batch_size=32", "evaluation.n_boot=100", "evaluation.samples=50", "evaluation.corruptions=[]",
             "evaluation.inverse=false", "logging.make_plots=false", "tracking.mode=disabled", f"runs={tmp_path}"]
    found = run("events", events, words, quiet=True, epochs=1)
    forget()
    assert evaluate(found["run"].folder, quiet=True)["metrics"]["reconstruction"] == found["metrics"]["reconstruction"]

REFUSED = {
    "no close": (lambda: run("market", FRAME.drop(columns="close")), "no column is called close"),
    "no times": (lambda: run("market", FRAME.reset_index(drop=True)), "no column is called time"),
    "a number": (lambda: run("market", 3), "a int is no source"), "a list of numbers": (lambda: run("events", [1.]), "1.0 is not an override"),
    "a path that is not": (lambda: run("market", "prices.csv"), "no file or folder is here"),
    "data twice": (lambda: run("market", FRAME, FRAME), "data are given twice"),
    "a knob that is not": (lambda: run("market", FRAME, epoch=3), "did you mean epochs?"),
    "worlds": (lambda: run("macro", FRAME), "simulates its data; name worlds"), "a frame of events": (lambda: run("events", FRAME), "a DataFrame holds no events"),
    "a model of macro": (lambda: run("macro", model=nn.Linear), "takes no model from Python"), "a model of events": (lambda: run("events", model=nn.Linear), "register its parts"),
    "no family": (lambda: run("quant", model=nn.Linear), "a subclass of Family"),
    "made already": (lambda: run("market", model=Net(1, 1)), "give its class, or a function"), "nameless": (lambda: run("market", model=lambda: 1), "with a name"),
}

@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_said_in_a_sentence(what, tmp_path, monkeypatch):
    "Before anything is written."
    monkeypatch.chdir(tmp_path)
    call, sentence = REFUSED[what]
    with pytest.raises(ValueError, match=sentence) as e: call()
    assert "\n" not in str(e.value) and not list(tmp_path.iterdir())

# --- models -----------------------------------------------------------------------------------------------------------------------

class Net(nn.Module):
    "Normal steps; their volatility is a line in the window."
    def __init__(self, input_size, lookback, size: float = 1.):
        super().__init__()
        self.line, self.size = nn.Linear(input_size*lookback, 1), size
    def forward(self, history, initial_price, horizon, n_paths, scale, generator):
        noise = torch.randn(len(history), n_paths, horizon, generator=generator)
        sigma = self.size*scale*(self.line(history.flatten(1))[:, 0]/10).exp()
        return initial_price[:, None, None]*(sigma[:, None, None]*noise).cumsum(-1).exp()

class Careless(Net):
    "Draws from the global state."
    def forward(self, history, initial_price, horizon, n_paths, scale): return super().forward(history, initial_price, horizon, n_paths, scale, None)

def wide_net(input_size, lookback): return Net(input_size, lookback, 2.)

class Shift(nn.Module):
    "A block."
    def __init__(self, d_model: int): super().__init__(); self.by = nn.Parameter(torch.zeros(d_model))
    def forward(self, x): return x + self.by

OTHER = [o for o in SMALL if not o.startswith("model=")]

def test_a_network_of_ones_own(tmp_path, monkeypatch):
    "Same seed, same bits; its hash is in run and checkpoint; without it, or with another of its name, nothing is done; with it again, everything."
    typed = [*OTHER, f"runs={tmp_path}"]
    one, two = (run("market", FRAME, typed, model=Net, run_dir=tmp_path/name, quiet=True)["run"].folder for name in "ab")
    assert tensors(one) == tensors(two)
    recorded = Run(one).read_status()["plugins"]
    assert [p["name"] for p in recorded] == ["net"] and load_model(one)[1]["plugins"] == recorded and len(recorded[0]["sha256"]) == 64
    asked = predict(one, FRAME.set_axis(FRAME.index + pd.Timedelta("60D")))["bars"]
    with monkeypatch.context() as patch:
        patch.setattr(type(get_lab("market")), "judge", lambda *_: 1/0)
        with pytest.raises(ZeroDivisionError): run("market", FRAME, typed, model=Net, run_dir=tmp_path/"cut", quiet=True)
    with pytest.raises(ConfigError, match="another process, which does not know net, given in Python; write it into a file"): report_run(one)
    forget()
    for ask in (lambda: resume(tmp_path/"cut"), lambda: evaluate(one), lambda: load_model(one)):
        with pytest.raises(ConfigError, match=r"was made with the model net, which was given in Python; give it again"): ask()
    monkeypatch.setattr(plugins, "source_of", lambda thing: "class Net: another")
    with pytest.raises(ConfigError, match="another net than the one that is given"): resume(tmp_path/"cut", model=Net)
    monkeypatch.undo(); monkeypatch.setattr(plugins, "_written", {})
    resume(tmp_path/"cut", model=Net, quiet=True)
    assert tensors(tmp_path/"cut") == tensors(one) and predict(one, FRAME.set_axis(FRAME.index + pd.Timedelta("60D")))["bars"].equals(asked)
    assert "plugins" not in Run(run("market", FRAME, [*SMALL, *typed[-1:]], quiet=True)["run"].folder).read_status()     # a run that does not name it does not need it

def test_a_block_a_function_and_options(tmp_path):
    "What is no whole network is a block; options of a partial are options of the recipe, and checked as such."
    lab = get_lab("market")
    assert lab.configure(lab.own(Shift)).model["backbone"]["blocks"] == [{"name": "shift"}]
    assert lab.configure(lab.own(partial(Net, size=2.))).model == {"name": "net", "size": 2.}
    assert lab.configure(lab.own(wide_net)).model == {"name": "wide_net"} and lab.configure(lab.own("linear")).model == lab.configure(["model=linear"]).model
    for model, said in ((partial(Net, sise=2.), "did you mean size"), (Careless, "the same seed gives other paths"), (partial(Net, size="a"), "takes a number")):
        with pytest.raises(ConfigError, match=said): run("market", FRAME, [*OTHER, f"runs={tmp_path/'no'}"], model=model)
    with pytest.raises(ConfigError, match="training.processes=2: net was given in Python"): run("market", FRAME, [*OTHER, "training.processes=2"], model=Net)
    assert not (tmp_path/"no").exists()

def test_by_name_on_the_command_line(tmp_path, monkeypatch, capsys):
    "A file registers it, `model=` names it, its options stand behind `model.`"
    from synthlab.cli.main import main
    text = Path(__file__).read_text()
    body = text[text.index("class Net("):text.index("class Careless(")]
    (tmp_path/"mine.py").write_text("import torch\nfrom torch import nn\nfrom synthlab.models.registry import registry\n\n@registry.register('simulator', 'line_net')\n" + body)
    monkeypatch.chdir(tmp_path)
    FRAME.to_csv("prices.csv")
    line = ["train", "--plugin", "mine.py", "model=line_net", "data=prices.csv", *OTHER, "--no-report", "--quiet", "--run-dir", "a"]
    assert main([*line, "model.size=2"]) == 0 and load_model("a")[1]["recipe"] == {"name": "line_net", "size": 2}
    assert [p["name"] for p in Run("a").read_status()["plugins"]] == ["mine.py"]
    assert main([*line, "model.sise=2", "--run-dir", "b"]) == 2 and "did you mean size?" in capsys.readouterr().err and not Path("b").exists()
    told = []
    monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: told.append(os.environ["SYNTHLAB_PLUGINS"]) or 1/0)
    assert main(["report", "a", "--plugin", "mine.py"]) == 2 and told == [str(tmp_path/"mine.py")] and "SYNTHLAB_PLUGINS" not in os.environ     # the kernel loads it
    monkeypatch.setenv("SYNTHLAB_PLUGINS", told[0]); monkeypatch.setattr(plugins, "_loaded", {})
    typed_by("market", [], {})
    assert [p.name for p in plugins.loaded_plugins()] == ["mine.py"]
    assert main(["publish", "a", "--plugin", "mine.py", "--output", "card"]) == 0 and "line_net" in next(Path("card").rglob("README.md")).read_text()

class Last(nn.Module):
    "The last candle decides."
    def __init__(self, input_dim: int): super().__init__(); self.line = nn.Linear(input_dim, 1)
    def forward(self, x): return self.line(x[:, -1])

class Mean(Family):
    "The mean outcome, whatever the row."
    name, scaled = "mean_of_all", True
    def __init__(self, pull: float = 1., task="auto", seed=7, threads=1, validation=.15, reach=0): self._keep(locals())
    def _fit(self, X, y, X_val, y_val, weight): self.mean_ = np.array([self.pull*np.mean(y)])
    def _predict(self, X): return np.full(len(X), self.mean_[0]) + 1e-9*X[:, 0]
    def _proba(self, X): return self._predict(X).clip(0, 1)
    def _importance(self): return np.ones(int(self.preprocessing_.used.sum()))
    def _numbers(self): return dict(mean=self.mean_)
    def _take(self, numbers): self.mean_ = numbers["mean"]

def test_a_classifier_and_a_family(tmp_path):
    "On candles and a panel in memory; both come back from their checkpoints, if they are given again."
    candles = get_source("sp500").load()["sp500"].iloc[-1500:]
    words = ["training.stride=8", "data.lookback=8", "evaluation.random_draws=20", "evaluation.n_boot=100", "evaluation.trials=1", "tracking.mode=disabled", f"runs={tmp_path}", "threads=1"]
    assert get_lab("signal").own(Last) == ["model={name:last}"] and get_lab("signal").configure(["model=last"]).model == {"name": "last"}     # as of a plug-in
    signal = run("signal", candles, words, model=Last, epochs=1, quiet=True)["run"].folder
    long = pd.concat([bars.iloc[-500:].assign(asset=a) for a, bars in list(load_panel().bars.items())[:6]]).reset_index(names="time")
    words = ["others=[]", "jobs=2", "training.train_days=120", "training.test_days=60", "training.step_days=60", "training.min_train_samples=100", "evaluation.n_boot=100",
             "evaluation.controls=1", "evaluation.trials=1", "tracking.mode=disabled", f"runs={tmp_path}"]
    quant = run("quant", pa.Table.from_pandas(long, preserve_index=False), words, model=partial(Mean, pull=.5), targets=["xdm_ret_5d"], quiet=True)["run"].folder
    for folder, name, model in ((signal, "last", Last), (quant, "mean_of_all", Mean)):
        forget()
        with pytest.raises(ConfigError, match=f"was made with the model {name}, which was given in Python"): evaluate(folder)
        get_lab(Run(folder).read_status()["lab"]).own(model)
        key = get_lab(Run(folder).read_status()["lab"]).headline.name
        assert json.dumps(evaluate(folder, quiet=True)["metrics"][key]) == json.dumps(Run(folder).result[key])
    assert registry.get_info("mean_of_all", "family").cls is Mean

WORLD = ["data.worlds=[rbc]", "data.n=40", "data.T=8", "data.horizon=8", "training.epochs=1", "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60",
         "evaluation.baselines=[]", "evaluation.alone=[]", "evaluation.timing_draws=2", "tracking.mode=disabled", "threads=1"]

class Waves(Emulator):
    "A line in the parameters, and one spread for all."
    def __init__(self, worlds, horizon, slope: float = 1.):
        super().__init__(worlds, horizon)
        self.slope, self.lines = slope, nn.ModuleDict({n: nn.Linear(len(w.parameters), 2*len(w.shocks)*(horizon + 1)*3) for n, w in self.worlds.items()})
    def respond(self, theta, world, history=None):
        known = self.worlds[world]
        return self.lines[world](self.slope*known.parameters.normalise(theta)).unflatten(-1, (2, len(known.shocks), self.horizon + 1, 3)).unbind(1)

class Silent(Waves):
    "Says nothing of its spread."
    def respond(self, theta, world, history=None): return super().respond(theta, world)[0]

def test_an_emulator_of_ones_own(tmp_path, monkeypatch, capsys):
    "Trained, certified and shipped as the house's is; known by its source; by name on the command line. What cannot be taught is said before there is a folder."
    typed = [*WORLD, f"runs={tmp_path}"]
    found = run("macro", typed, model=partial(Waves, slope=.5), run_dir=tmp_path/"a", quiet=True)
    assert found["config"].model == {"name": "waves", "slope": .5} and found["config"].evaluation.leave_out == []
    recorded, (model, about) = Run(tmp_path/"a").read_status()["plugins"], load_model(tmp_path/"a")
    assert [p["name"] for p in recorded] == ["waves"] and about["plugins"] == recorded and type(model) is Waves and model.slope == .5 and model.certificates["rbc"]
    with monkeypatch.context() as patch:
        patch.setattr(type(get_lab("macro")), "judge", lambda *_: 1/0)
        with pytest.raises(ZeroDivisionError): run("macro", typed, model=partial(Waves, slope=.5), run_dir=tmp_path/"cut", quiet=True)
    forget()
    for ask in (lambda: load_model(tmp_path/"a"), lambda: evaluate(tmp_path/"a"), lambda: resume(tmp_path/"cut")):
        with pytest.raises(ConfigError, match=r"was made with the model waves, which was given in Python; give it again, as in resume\(RUN, model=…\)") as e: ask()
        assert "\n" not in str(e.value)
    resume(tmp_path/"cut", model=Waves, quiet=True)
    assert tensors(tmp_path/"cut") == tensors(tmp_path/"a") and evaluate(tmp_path/"a", quiet=True)["metrics"]["nrmse"] == found["metrics"]["nrmse"]
    refused = {"respond gives Tensor; give a pair": (Silent, []), "did you mean slope": (partial(Waves, slpe=1.), []), "waves takes no held_out": (Waves, ["data.worlds=[rbc,nk]", "evaluation.leave_out=[nk]"]),
               "here it is data.horizon": (partial(Waves, horizon=3), []), "a subclass of Emulator": (nn.Linear, []), "gives Linear; subclass Emulator": (a_line, [])}
    for said, (own, more) in refused.items():
        with pytest.raises(ConfigError, match=said) as e: run("macro", [*WORLD, *more, f"runs={tmp_path/'no'}"], model=own)
        assert "\n" not in str(e.value) and not (tmp_path/"no").exists()
    from synthlab.cli.main import main
    text = Path(__file__).read_text()
    (tmp_path/"mine.py").write_text("from torch import nn\nfrom synthlab.models.emulators import Emulator\nfrom synthlab.models.registry import registry\n\n@registry.register('emulator', 'my_waves')\n"
                                    + text[text.index("class Waves("):text.index("class Silent(")])
    line = ["macro", "train", "--plugin", str(tmp_path/"mine.py"), "model=my_waves", *typed, "--no-report", "--quiet"]
    assert main([*line, "--run-dir", str(tmp_path/"b"), "model.slope=0.5"]) == 0 and load_model(tmp_path/"b")[1]["recipe"]["name"] == "my_waves"
    assert main([*line, "--run-dir", str(tmp_path/"c"), "model.slpe=0.5"]) == 2 and "did you mean slope?" in capsys.readouterr().err and not (tmp_path/"c").exists()

def a_line(worlds, horizon): return nn.Linear(1, 1)

# --- help -------------------------------------------------------------------------------------------------------------------------

def test_help_says_what_stands_beside_arguments(capsys):
    "A function, a method, a data class, a module's name; twice the same; other packages are left alone."
    from synthlab.metrics.crps import crps_ensemble
    from synthlab.models.registry import Registry
    for thing, said in ((crps_ensemble, "simulations: simulated values, `(..., M)`, any unit"), (Registry.register, "kind: one of `kinds`, or a new one"),
                        (registry.register_block, "cost: low | medium | high"), ("synthlab.trainers.objectives.path_crps", "returns: (B, H), in units"), (get_lab("signal") and partial(run, "signal"), "knobs: everyday settings by their short names"), (json.dumps, "Serialize")):
        outs = []
        for _ in range(2): help(thing); outs.append(capsys.readouterr().out)
        assert said in outs[0] and outs[0] == outs[1]

def test_every_comment_of_the_package_is_read():
    "No source is too odd, and each parameter with a comment on its line is found."
    import ast, textwrap
    from synthlab.metrics.comments import comments_in
    for path in sorted((Path(__file__).parent.parent/"synthlab"/"metrics").glob("*.py")):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef) or node.body[0].lineno == node.lineno: continue
            found, lines = comments_in(textwrap.dedent(ast.get_source_segment(text, node, padded=True))), text.splitlines()
            told = {name for names in found for name in names.split(", ")}
            assert {a.arg for a in node.args.args if "  # " in lines[a.lineno - 1] and a.lineno > node.lineno} <= told, (path.name, node.name)

@pytest.mark.parametrize("typed", ["data=./nasdaq", "data=nasdaq/", "data.source=./nasdaq", "data.source=nasdaq/"])
@pytest.mark.parametrize("lab", ["market", "signal"])
def test_a_path_is_no_name(lab, typed, tmp_path, monkeypatch):
    "A folder may be called as a series of the package: typed as a path it is the folder, and the bare word says that both are there."
    (tmp_path/"nasdaq").mkdir(); monkeypatch.chdir(tmp_path)
    assert get_lab(lab).configure([typed]).data.source == str(tmp_path/"nasdaq")
    assert get_lab(lab).configure(["data.source=nasdaq"]).data.source == "nasdaq"
    with pytest.warns(BarWarning, match="is ./nasdaq"): get_source("nasdaq")

@pytest.mark.parametrize("lab", ["market", "signal", "quant", "events"])
def test_data_is_a_word_of_every_lab_that_reads_some(lab, tmp_path, monkeypatch):
    "`data=FILE` names the source, in quotes, with blanks, one of several in a sweep; settings of the data are still a mapping."
    monkeypatch.chdir(tmp_path)
    for name in "a.csv", "b.csv", "my prices, new.csv": Path(name).touch()
    source = lambda *typed: get_lab(lab).configure(typed).data.source
    assert source("data=a.csv") == source("data='a.csv'") == source("data={source: a.csv}") == str(tmp_path/"a.csv")
    assert source("data=my prices, new.csv") == str(tmp_path/"my prices, new.csv") and source("data=a.csv", "data=b.csv") == str(tmp_path/"b.csv")
    assert [get_lab(lab).configure(v.overrides).data.source for v in variants(lab, ["data=a.csv,b.csv"])] == [str(tmp_path/"a.csv"), str(tmp_path/"b.csv")]
    with pytest.raises(ConfigError, match="stands for several values; synthlab LAB sweep"): source("data=a.csv,b.csv")

def test_other_data_are_named_alike(finished, tmp_path):
    "`data=FILE` behind `evaluate` is its `--source`, and no setting of the test."
    FRAME.set_axis(FRAME.index + pd.Timedelta("60D")).to_csv(tmp_path/"later.csv")
    by_option, *typed = [evaluate(finished[0], *args, quiet=True) for args in [(tmp_path/"later.csv",), *((None, None, [f"{word}={tmp_path}/later.csv"]) for word in ("data", "data.source"))]]
    for found in typed: assert found["metrics"]["crps"] == by_option["metrics"]["crps"] and found["config"].data.source == str(tmp_path/"later.csv")
    with pytest.raises(ConfigError, match="data are given twice"): evaluate(finished[0], tmp_path/"later.csv", overrides=["data=other.csv"])
