"""What every lab promises, asked of all of them: the three of the house, and one of a user's that comes by a plug-in.

A lab brings a row of `TOYS`: settings that train in seconds, what is taught and cannot be changed, a setting that is misspelt, a word of another
system, data to be asked about. Its toy run is trained once; everything here looks at that one run."""
import contextlib, dataclasses, inspect, json, os, random, re, shutil, signal, subprocess, sys, time
from fnmatch import fnmatchcase
from pathlib import Path

import matplotlib.pyplot as plt, pandas as pd, pytest

from synthlab.datasets.panels import load_panel
from synthlab.datasets.sources import MockDataSource, get_source
from synthlab.datasets.worlds import get_world
from synthlab.experiments import config as config_module, lab as lab_module, plugins
from synthlab.experiments.comparison import compare_folder
from synthlab.experiments.explore import explore
from synthlab.experiments.experiment import conclusion, evaluate, load_model, open_run, predict, resume, run, run_config
from synthlab.experiments.lab import Lab, get_lab, lab_names
from synthlab.experiments.plugins import load_plugin
from synthlab.experiments.publish import HubManager, load_published
from synthlab.experiments.runs import Run, list_runs
from synthlab.experiments.view import look_at
from synthlab.models.registry import ConfigError
from tiny import PRELOAD, cases, spawner

spawner.set_forkserver_preload([*PRELOAD, *(f"synthlab.labs.{lab}.experiment" for lab in ("market", "macro", "signal", "quant", "events"))])

pytestmark = pytest.mark.usefixtures("warm")

HERE, NBS = Path(__file__).parent, Path(__file__).parent.parent/"nbs"
PLUGIN = HERE/"toy_lab.py"
TOYS = {
    "market": dict(toy=["data=mock", "model=linear", "training.epochs=2", "training.n_paths=8", "training.batch_size=512", "evaluation.n_paths=50", "evaluation.stride=24",
                        "evaluation.n_boot=100", "evaluation.baselines=[constant,ewma]"],
                   taught="training.lr=3", other="training.lr", wrong=("training.horizn=24", "training.horizon"), word="training.n_windows", varied="training.lr=0.001,0.002"),
    "macro": dict(toy=["data.worlds=[nk,rbc]", "data.n=60", "data.T=12", "data.horizon=12", "data.processes=1", "model=small", "training.epochs=2", "training.batch_size=24",
                       "evaluation.epochs=1", "evaluation.alone=[nk]", "evaluation.leave_out=[]", "evaluation.timing_draws=4",
                       "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60"],
                  taught="data.n=50", wrong=("data.world=[nk]", "data.worlds"), word="model.trunk_dim", varied="training.lr=0.001,0.002"),
    "signal": dict(toy=["model=small", "model.d_model=8", "model.dim_feedforward=16", "model.nhead=2", "training.epochs=2", "training.stride=24", "data.lookback=16",
                        "evaluation.random_draws=20", "evaluation.n_boot=100", "evaluation.trials=1"],
                   taught="data.lookback=8", wrong=("data.horizn=3", "data.horizon"), word="training.learning_rate", varied="training.lr=0.001,0.003"),
    "quant": dict(toy=["data.assets=[AAPL,JPM,XOM,PG,KO,MSFT]", "data.start=2019-06-01", "data.end=2020-12-01", "family=ridge", "others=[]", "jobs=1", "training.train_days=120", "training.test_days=60",
                       "training.step_days=60", "training.min_train_samples=100", "evaluation.n_boot=100", "evaluation.controls=2", "evaluation.trials=1"],
                  taught="training.train_days=100", wrong=("training.train_dys=100", "training.train_days"), word="data.symbols", varied="params.alpha=2,5"),
    "events": dict(toy=["data.source=toy", "data.n=120", "data.n_signal=24", "data.tokens=8", "encoder.d_model=8", "encoder.nhead=2", "encoder.layers=1", "decoder.d_model=8", "decoder.nhead=2",
                        "decoder.layers=1", "latent.codes=16", "training.epochs=2", "training.batch_size=32", "evaluation.n_boot=100", "evaluation.samples=50", "evaluation.corruptions=[gaussian_noise]", "logging=plots_minimal"],
                   taught="latent.codes=8", wrong=("training.epoch=2", "training.epochs"), word="num_epochs", varied="training.lr=0.002,0.003"),
    "toy": dict(toy=["training.penalty=2"], taught="training.penalty=3", wrong=("training.penalti=3", "training.penalty"), word="alpha", varied="training.penalty=1,5"),
}
TIMED = "seconds", "speed", "conclusion"        # what a clock decides in a result: the macro lab says in its conclusion how fast it is

def source_of(name, folder):
    "New data for a lab, as a file; of events, a source by its name."
    path = Path(folder)/f"{name}.csv"
    if name == "market": MockDataSource().load("MOCK")["MOCK"].iloc[-900:].reset_index().to_csv(path, index=False)
    elif name == "macro": pd.DataFrame({k: v.numpy() for k, v in zip(get_world("nk").parameters.names, get_world("nk").sample(3, seed=3).T)}).to_csv(path, index=False)
    elif name == "signal": get_source("sp500").load()["sp500"].iloc[-500:].reset_index().to_csv(path, index=False)
    elif name == "quant": pd.concat([bars.iloc[-700:].assign(asset=asset) for asset, bars in load_panel().bars.items()]).reset_index(names="time").to_csv(path, index=False)
    elif name == "events": return "toy"
    else: pd.DataFrame(dict(a=[1., 2.], b=[0., 1.], c=[3., 4.])).to_csv(path, index=False)
    return path

def only(patch, name):
    "This process has loaded the plug-in of a lab, and no other: what it runs depends on nothing else."
    for house in set(TOYS) - {"toy"}: get_lab(house)
    patch.setattr(plugins, "_loaded", {}); patch.setattr(lab_module, "_labs", dict(lab_module._labs))
    if name == "toy": load_plugin(PLUGIN)

@pytest.fixture(scope="session", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"lab_{name}")) for name in TOYS])
def finished(request, tmp_path_factory):
    "A lab's name and its finished toy run."
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        only(patch, request.param)
        return request.param, run(request.param, settings(request.param, root), quiet=True)["run"].folder

@pytest.fixture
def toy(finished, monkeypatch):
    "The same, in a process that has the lab's plug-in."
    only(monkeypatch, finished[0])
    return finished

def settings(name, root): return [*TOYS[name]["toy"], "tracking.mode=disabled", "threads=1", f"runs={root}"]

def still(value):
    "A result without what a clock decides."
    if isinstance(value, dict): return {k: still(v) for k, v in value.items() if k not in TIMED}
    return [still(v) for v in value] if isinstance(value, list) else value

def bits(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*.safetensors"))}
def result(folder): return still(json.loads((Path(folder)/"result.json").read_text()))
def everything(folder): return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file() and p.name != "lock"}
def rows(folder): return {p.relative_to(folder).as_posix(): p.read_text() for p in sorted(Path(folder).rglob("scalars.csv"))}

def same(folder, other):
    "Weights, rows of numbers and result are those of another run."
    return bits(folder) == bits(other) and rows(folder) == rows(other) and result(folder) == result(other)

def equal(said, other):
    "Two answers are the same to the bit."
    return said.keys() == other.keys() and all(a.equals(other[k]) for k, a in said.items())

def test_every_lab_is_here():
    "A lab that is added to the house brings its row."
    assert set(TOYS) >= set(lab_names()) - {"toy"}

# --- a run ---------------------------------------------------------------------------------------------------------------------

def test_a_run_is_complete(toy):
    "Folder, facts, result and a conclusion; a checkpoint for each part, which says whose it is; the plug-in with its hash."
    name, folder = toy
    said = Run(folder).read_status()
    assert Run(folder).status == "done" and said["lab"] == name
    assert {p.name for p in folder.iterdir()} >= {"config.yaml", "overrides.yaml", "status.json", "lock", "facts", "checkpoints", "result.json"}
    found = json.loads((folder/"result.json").read_text())
    assert found[get_lab(name).headline.name] == found[get_lab(name).headline.name] and found["conclusion"]
    assert all(load_model(folder/path)[1]["lab"] == name for path in bits(folder) if path.endswith("best.safetensors"))
    assert said.get("plugins", []) == plugins.recorded_plugins() and len(plugins.recorded_plugins()) == (name == "toy")
    assert run_config(*open_run(folder)).threads == 1

def test_the_conclusion_follows_from_the_numbers_of_the_file(toy):
    "Written again from `result.json` alone it is the same; no number of it comes from elsewhere."
    name, folder = toy
    found, lab = json.loads((folder/"result.json").read_text()), get_lab(name)
    assert conclusion(lab, found) == found["conclusion"] and lab.evidence
    assert " ".join([*found["notes"], lab.conclude({k: found[k] for k in lab.evidence})]) == found["conclusion"]

def test_two_runs_are_equal_to_the_bit(toy, tmp_path):
    name, folder = toy
    assert same(run(name, settings(name, folder.parent), run_dir=tmp_path/"again", quiet=True)["run"].folder, folder)

PLACES = "training", "judging", "result"

def go_on_and_die(name, typed, folder, where):
    "What another process does: begin a run or go on with it, and be killed in the middle of something."
    from synthlab.experiments import parts
    from synthlab.trainers.trainer import Trainer
    die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
    if name == "toy": load_plugin(PLUGIN)
    step, replace = Trainer.train_step, os.replace
    def step_or_die(self, batch): return die() if self.epoch >= 1 else step(self, batch)
    if where == "training": Trainer.train_step = step_or_die; parts.save_checkpoint = die       # in the second epoch, or while an estimator is written
    if where == "judging": type(get_lab(name)).judge = die
    if where == "result": os.replace = lambda a, b: die() if Path(b).name == "result.json" else replace(a, b)
    run(name, typed, run_dir=folder, quiet=True)

def test_killed_at_three_places_it_ends_with_the_same_bits(toy, tmp_path):
    "By `kill -9`, one after the other: in training, between training and test, while the result is written. The same words again go on."
    name, whole = toy
    folder, typed = tmp_path/"cut", settings(name, whole.parent)
    for where in PLACES:
        process = spawner.Process(target=go_on_and_die, args=(name, typed, folder, where))
        process.start(); process.join(120)
        assert process.exitcode == -signal.SIGKILL and Run(folder).status == "interrupted" and not (folder/"result.json").exists(), where
        assert where != "training" or bits(folder) != bits(whole)
    resume(folder, quiet=True)
    assert Run(folder).status == "done" and same(folder, whole)

TWO = {"events": ["training.processes=2", "data.n=60", "evaluation.inverse=false"]}       # labs that train one network, by two processes
BEGIN = """import sys
from synthlab.experiments.experiment import run
if __name__ == "__main__": run(sys.argv[1], sys.argv[3:], run_dir=sys.argv[2], quiet=True)"""

def begun_elsewhere(name, typed, folder, script):
    "A process that begins a run or goes on with it, with all that it starts in a group of its own."
    script.write_text(BEGIN)
    return subprocess.Popen([sys.executable, str(script), name, str(folder), *typed], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=os.environ | {"PYTHONPATH": str(HERE.parent)})

@pytest.mark.slow
@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("seed", cases(2, 50))
def test_two_processes_killed_at_any_instant(name, seed, tmp_path):
    "R2: everything that trains is killed after the first word in the facts, at a random instant; the same words again end with the bits of a run that was left alone."
    draw, typed = random.Random(seed), [*settings(name, tmp_path), *TWO[name]]
    def begun(folder):
        "A process that has written its first fact, and when."
        process, until = begun_elsewhere(name, typed, folder, tmp_path/"begin.py"), time.monotonic() + 120
        while not (folder/"facts"/"events.jsonl").exists() and process.poll() is None and time.monotonic() < until: time.sleep(.005)
        return process, time.monotonic()
    process, since = begun(tmp_path/"whole")
    assert process.wait(240) == 0
    lasts = time.monotonic() - since
    process, _ = begun(tmp_path/"cut")
    time.sleep(draw.random()*lasts*.9)          # while it trains, judges, writes, or just before it ends
    with contextlib.suppress(ProcessLookupError): os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert begun_elsewhere(name, typed, tmp_path/"cut", tmp_path/"begin.py").wait(240) == 0
    assert Run(tmp_path/"cut").status == "done" and same(tmp_path/"cut", tmp_path/"whole")

def test_a_folder_of_other_settings_is_left_alone(toy):
    name, folder = toy
    before = everything(folder)
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run(name, [*settings(name, folder.parent), TOYS[name]["varied"].split(",")[0]], run_dir=folder, quiet=True)
    assert everything(folder) == before

def test_a_run_opened_by_the_wrong_lab_is_named_and_left_untouched(toy):
    "Whatever is asked of it, and however far it is."
    name, folder = toy
    other = next(n for n in TOYS if n not in (name, "toy"))
    status = folder/"status.json"
    good = status.read_bytes()
    try:
        for state in "done", "interrupted":
            status.write_bytes(good.replace(b'"done"', f'"{state}"'.encode()))
            before = everything(folder)
            for ask in (lambda: resume(folder, other), lambda: evaluate(folder, lab=other), lambda: open_run(folder, other), lambda: run(other, settings(other, folder.parent), run_dir=folder)):
                with pytest.raises(ConfigError, match=f"is a run of the {name} lab, not of the {other} lab"): ask()
            assert everything(folder) == before
    finally: status.write_bytes(good)

def test_a_run_of_which_nothing_is_kept(toy, tmp_path, monkeypatch):
    "It tells how it went, and leaves nothing: not in its folder of runs, not among temporary files; also when it fails or is given a folder."
    name, folder = toy
    if name != "events": pytest.skip("the other labs keep every run")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path/"temporary")); (tmp_path/"temporary").mkdir()
    typed = [*settings(name, tmp_path/"runs"), "logging.save_artifacts=false"]
    assert run(name, typed, quiet=True)["metrics"]["reconstruction"] == json.loads((folder/"result.json").read_text())["reconstruction"]
    with monkeypatch.context() as patch:
        patch.setattr(type(get_lab(name)), "judge", lambda *_: 1/0)
        with pytest.raises(ZeroDivisionError): run(name, typed, quiet=True)
    with pytest.raises(ConfigError, match="nothing is kept"): run(name, typed, run_dir=tmp_path/"mine", quiet=True)
    assert [p.name for p in tmp_path.rglob("*")] == ["temporary"]

# --- tested again, asked ---------------------------------------------------------------------------------------------------------

def test_evaluating_again_gives_the_same_and_writes_nothing(toy):
    name, folder = toy
    before, known = everything(folder), json.loads((folder/"result.json").read_text())
    again = json.loads(json.dumps(still(evaluate(folder, quiet=True)["metrics"]), default=str).replace("NaN", "null").replace("Infinity", "null"))
    assert everything(folder) == before
    assert again == {k: v for k, v in still(known).items() if k in again} and again[get_lab(name).headline.name] == known[get_lab(name).headline.name]

def test_events_that_were_learnt_from_are_left_out(toy):
    "More events of the same seed, or the same under another simulation, hold some that the model has seen: it says how many are left out; and nothing is said of what is new."
    if toy[0] != "events": pytest.skip("data of the others have dates, or worlds of their own")
    from synthlab.labs.events.loading import load_event_data
    lab, folder = get_lab("events"), toy[1]
    run_, _ = open_run(folder)
    config = run_config(run_, lab)
    data = load_event_data(config)
    class Longer(type(lab)):
        "Its test holds the first training events, as a longer sample of the same seed may."
        def load(self, config, about=None, quiet=False):
            from synthlab.datasets.events import join_events
            known = data.train.take(slice(0, 7))
            known.number = known.number + 10_000_000
            return dataclasses.replace(data, test=join_events(data.test, known))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lab_module._labs, "events", Longer())
        found = evaluate(folder, quiet=True)
    assert "7 events are left out, because the model has learnt from them." in found["metrics"]["notes"]
    assert found["metrics"]["reconstruction"] == json.loads((folder/"result.json").read_text())["reconstruction"]
    assert not any("left out, because" in n for n in evaluate(folder, overrides=["data.seed=1"], quiet=True)["metrics"]["notes"])

def test_what_was_taught_cannot_be_changed(toy):
    name, folder = toy
    with pytest.raises(ConfigError, match="cannot be changed afterwards.*train again"): evaluate(folder, overrides=[TOYS[name]["taught"]])

ASK = """import sys, pathlib
from synthlab.experiments.experiment import predict
from synthlab.experiments.plugins import load_plugin
for path in sys.argv[4:]: load_plugin(path)
for key, frame in predict(sys.argv[1], sys.argv[2]).items(): frame.to_parquet(pathlib.Path(sys.argv[3])/f"{key}.parquet")"""

def asked_elsewhere(name, checkpoint, source, folder):
    "What a new process that knows nothing but a checkpoint answers."
    folder.mkdir()
    more = [str(PLUGIN)] if name == "toy" else []
    subprocess.run([sys.executable, "-c", ASK, str(checkpoint), str(source), str(folder), *more], check=True, env=os.environ | {"PYTHONPATH": str(HERE.parent)})
    return {p.stem: pd.read_parquet(p) for p in folder.iterdir()}

def test_a_checkpoint_alone_answers_in_a_new_process(toy, tmp_path):
    "Copied away from its run, asked by a process that has seen nothing else."
    name, folder = toy
    source = source_of(name, tmp_path)
    shutil.copy(get_lab(name).given(folder), tmp_path/"alone.safetensors")
    here = predict(folder, source)
    for frame in here.values():
        columns = [*filter(None, frame.index.names), *frame]
        assert name == "toy" or not [c for c in columns if not any(fnmatchcase(c, k) for k in get_lab(name).answered)], "a column that nobody explains"
    assert here and all(len(frame) for frame in here.values()) and equal(predict(tmp_path/"alone.safetensors", source), here)
    assert equal(asked_elsewhere(name, tmp_path/"alone.safetensors", source, tmp_path/"said"), here)

# --- published ---------------------------------------------------------------------------------------------------------------------

def test_published_and_loaded_again(toy, tmp_path):
    "A whole folder with a card; what comes back answers as the run does, also as a plain checkpoint; nobody's folders are in it."
    name, folder = toy
    manager = HubManager(folder, tmp_path/"outputs")
    published = manager.save()
    assert {p.name for p in published.iterdir()} >= {"model.safetensors", "README.md", "config.yaml", "result.json"}
    card = (published/"README.md").read_text()
    assert [line for line in card.splitlines() if line.startswith("## ")] == ["## Data", "## Held-out score", "## Use", "## Limits"]
    found = json.loads((folder/"result.json").read_text())
    assert card.startswith("---\nlibrary_name: synthlab\ntags:\n- synthlab\n") and found["conclusion"] in card and f'load_published("{published.as_posix()}")' in card
    assert f"{found[get_lab(name).headline.name]:.6f}" in manager.get_shareable_report()
    assert not [p.name for p in published.iterdir() if str(folder.parent).encode() in p.read_bytes()]
    model, about = load_published(published)
    source = source_of(name, tmp_path)
    here = predict(folder, source)
    assert equal(get_lab(about["lab"]).predict(model, about, source), here) and equal(predict(published/"model.safetensors", source), here)
    if name == "macro": assert equal(asked_elsewhere(name, published/"model.safetensors", source, tmp_path/"said"), here)

def test_what_is_not_finished_is_not_published(toy, tmp_path):
    "Cut short, without a score, or no run at all: a sentence each, and no folder."
    name, folder = toy
    here, good = Run(folder), (folder/"status.json").read_bytes()
    known = (folder/"result.json").read_bytes()
    try:
        here.set_status("interrupted")
        with pytest.raises(ConfigError, match="was not trained to the end"): HubManager(folder, tmp_path/"o")
        (folder/"status.json").write_bytes(good); here.write_result({})
        with pytest.raises(ConfigError, match="has not been scored"): HubManager(folder, tmp_path/"o")
    finally: (folder/"status.json").write_bytes(good); (folder/"result.json").write_bytes(known)
    with pytest.raises(ConfigError, match="it is not a run"): HubManager(tmp_path, tmp_path/"o")
    assert not (tmp_path/"o").exists()

# --- many runs, reports ---------------------------------------------------------------------------------------------------------------

def test_a_sweep_of_two(toy, tmp_path):
    "Two values of a setting, each a run of the lab, ordered by its headline; the runs are those that one would make alone."
    from synthlab.experiments.sweeps import run_sweep
    name, folder = toy
    setting, _, values = TOYS[name]["varied"].partition("=")
    table = run_sweep(name, [*settings(name, folder.parent), f"{setting}={values}"], tmp_path/"sweep", progress=False).table
    assert len(table) == 2 and set(table["status"]) == {"done"}
    scores = list(table[get_lab(name).headline.name])
    assert scores == sorted(scores, reverse=get_lab(name).headline.better == "higher")

def test_an_ablation(toy, tmp_path):
    "Each configuration without one thing beside the whole, on the same questions."
    from synthlab.experiments.ablations import AblationExperiment
    name, folder = toy
    setting, _, values = TOYS[name]["varied"].partition("=")
    configs = {v: [f"{setting}={v}"] for v in values.split(",")}
    found = AblationExperiment(name, configs, "train", settings(name, folder.parent), folder=tmp_path/"ablation").run(progress=False)
    assert list(found.index) == list(configs) and found["loss"].notna().all() and found["difference"].iloc[1:].notna().all()
    assert (tmp_path/"ablation"/"comparison.csv").exists()

REPORTS = dict(market="train", macro="emulate", signal="price_action", quant="walk_forward", events="autoencode")

def test_the_report_is_the_run(toy, tmp_path):
    "The same settings handed to the lab's notebook give the run bit for bit, with its conclusion on the page."
    papermill = pytest.importorskip("papermill")
    name, folder = toy
    if name not in REPORTS: pytest.skip("a user's lab has no report")
    out = papermill.execute_notebook(NBS/f"{REPORTS[name]}.ipynb", tmp_path/"out.ipynb", dict(run_dir=str(tmp_path/"run"), overrides=settings(name, folder.parent)), cwd=tmp_path, progress_bar=False)
    assert same(tmp_path/"run", folder)
    shown = [str(o.get("data", {}).get("text/markdown")) for c in out.cells for o in c.get("outputs", [])]
    assert json.loads((tmp_path/"run"/"result.json").read_text())["conclusion"] in shown

BROKEN = dict(dies="import os; os.kill(os.getpid(), 9)", fails="raise ArithmeticError('a cell that fails')",
              refused="from synthlab.experiments.config import check_parameters\ncheck_parameters(In)", hangs="import time; time.sleep(600)")
SAYS = dict(dies="[Kk]ernel", fails="ArithmeticError: a cell that fails", refused="did you mean run_dir", hangs="timed out.* 3 seconds")

def children():
    "Processes of this one."
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task/"children").read_text().split()}

@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_report_that_breaks(fault, toy, tmp_path, monkeypatch, capsys):
    "R20: what was executed stays, the run notes it and is still done, the command says it in a sentence and ends with another code than 0, and no kernel is left."
    if toy[0] not in REPORTS: pytest.skip("a user's lab has no report")
    nbformat, papermill = pytest.importorskip("nbformat"), pytest.importorskip("papermill")
    from synthlab.cli.main import main
    from synthlab.experiments import reports
    folder = shutil.copytree(toy[1], tmp_path/"run", ignore=shutil.ignore_patterns("report.*"))
    first = nbformat.v4.new_code_cell("run_dir: str = ''  # of the run\noverrides: list = []  # settings", metadata=dict(tags=["parameters"]))
    cells = [first, nbformat.v4.new_code_cell("print('this much was done')"), nbformat.v4.new_code_cell(BROKEN[fault])]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python"))), tmp_path/"broken.ipynb")
    monkeypatch.setattr(reports, "report_notebook", lambda _: tmp_path/"broken.ipynb")
    if fault == "refused":
        execute = papermill.execute_notebook
        monkeypatch.setattr(papermill, "execute_notebook", lambda a, b, given, **more: execute(a, b, {"run_dri": given["run_dir"]}, **more))
    before = children()
    more = ["--cell-seconds", "3"] if fault == "hangs" else []
    assert main(["report", str(folder), *more]) == 2 and re.search(SAYS[fault], said := capsys.readouterr().err) and len(said.splitlines()) == 1
    assert "this much was done" in (folder/"report.ipynb").read_text() and not (folder/"report.html").exists()
    assert Run(folder).status == "done" and [e["report"] for e in Run(folder).facts.events() if e["event"] == "report_failed"] == ["report.ipynb"]
    assert children() <= before

# --- listed, typed --------------------------------------------------------------------------------------------------------------------

def test_the_headline_is_in_the_list_of_runs(toy):
    name, folder = toy
    listed = list_runs(folder.parent).set_index("folder").loc[folder.as_posix()]
    headline = get_lab(name).headline
    assert listed["lab"] == name and listed[headline.name] == json.loads((folder/"result.json").read_text())[headline.name]
    assert re.fullmatch(rf"{re.escape(headline.label)} -?[\d.]+", headline.show(listed))

def test_a_page_over_runs_shows_the_headline_with_its_interval_and_the_curves(toy):
    name, folder = toy
    found, lab, seen = json.loads((folder/"result.json").read_text()), get_lab(name), look_at(folder)
    assert (seen.status, seen.lab, seen.why) == ("done", name, []) and seen.headline.startswith(lab.headline.show(found))
    ends = lab.interval(found)
    if ends and None not in ends and ends[0] == ends[0]: assert ends[0] <= found[lab.headline.name] <= ends[1] and seen.headline.endswith(")")
    assert bool(len(ends)) == (name != "toy") and (seen.curves is None) == (name in ("quant", "toy"))
    if seen.curves is not None: assert list(seen.curves["epoch"]) == [1, 2] and seen.curves[["train_loss", "val_loss"]].notna().all(axis=None)

def test_a_wrong_setting_proposes_the_nearest(toy, tmp_path):
    "And leaves no run."
    name, (typed, meant) = toy[0], TOYS[toy[0]]["wrong"]
    with pytest.raises(ConfigError, match=f"did you mean {re.escape(meant)}\\?"): run(name, [*settings(name, tmp_path), typed], quiet=True)
    assert not list(tmp_path.iterdir())

def test_every_foreign_word_is_answered(toy):
    "Words of other systems are not merely unknown: each is told what to write here, and what it is told exists."
    lab, known = get_lab(toy[0]), config_module.settings(get_lab(toy[0]).schema)
    assert lab.words
    for word, answer in lab.words.items():
        typed = word if "." in word or word in known else f"training.{word}"
        with pytest.raises(ConfigError, match=re.escape(answer)): lab.configure([f"{typed}=1"])
        named = re.search(r"here it is ([a-z_.]+)", answer)
        if named: assert named[1] in known or config_module.in_open(named[1], known), (word, answer)

def meanings(schema, prefix=""):
    "Every setting with the comment behind it, read from the source of its dataclass and of those that it grew from."
    found = {}
    for kind in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(kind): continue
        for line in inspect.getsource(kind).splitlines():
            if m := re.match(r"    (\w+): [^#]*?#\s*(\S.*)", line): found[m[1]] = m[2]
    said = {}
    for f in dataclasses.fields(schema):
        if dataclasses.is_dataclass(f.type): said |= {prefix + f.name: f.type.__doc__} | meanings(f.type, f"{prefix}{f.name}.")
        else: said[prefix + f.name] = found.get(f.name)
    return said

def test_every_setting_has_a_meaning(toy):
    "Whatever can be set says what it is, and the everyday names stand for settings that exist."
    lab = get_lab(toy[0])
    said = meanings(lab.schema)
    assert said.keys() == config_module.settings(lab.schema).keys()
    assert not [name for name, text in said.items() if not text or len(text) < 4]
    assert all(name in said or config_module.in_open(name, config_module.settings(lab.schema)) for name in lab.knobs.values())

def test_a_lab_says_what_it_is(toy):
    "A title, a headline with a direction, a report that exists."
    lab = get_lab(toy[0])
    assert isinstance(lab, Lab) and lab.name == toy[0] and len(lab.title) > 20 and lab.headline.better in ("lower", "higher")
    if lab.report: assert (NBS/f"{lab.report}.ipynb").exists()

# --- a plug-in ---------------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def plugged(tmp_path_factory, monkeypatch):
    "A run of the toy lab in a process that has since forgotten the plug-in."
    root = tmp_path_factory.mktemp("plugged")
    with pytest.MonkeyPatch.context() as patch:
        only(patch, "toy")
        folder = run("toy", settings("toy", root), quiet=True)["run"].folder
    only(monkeypatch, None); lab_module._labs.pop("toy", None)
    return folder

ASKS = dict(resume=resume, evaluate=evaluate, predict=lambda folder: predict(folder, pd.DataFrame(dict(a=[1.], b=[1.], c=[1.]))), publish=HubManager,
            compare=lambda folder: compare_folder(folder.parent), checkpoint=lambda folder: load_model(folder/"checkpoints/best.safetensors"))

@pytest.mark.parametrize("ask", ASKS)
def test_nothing_is_done_without_the_plugin_or_with_another(ask, plugged, tmp_path):
    "One sentence names the file, or both hashes; nothing is written, and no file is loaded because a folder names it."
    before = everything(plugged)
    shutil.copy(PLUGIN, plugged/"toy_lab.py")                       # lies in the run, and is not looked at
    with pytest.raises(ValueError, match=r"was made with the plug-in toy_lab\.py; give it again: --plugin toy_lab\.py"): ASKS[ask](plugged)
    assert not plugins.loaded_plugins() and "toy" not in lab_names()
    (tmp_path/"toy_lab.py").write_text(PLUGIN.read_text() + "# changed\n"); load_plugin(tmp_path/"toy_lab.py")
    with pytest.raises(ValueError, match=r"was made with another toy_lab\.py than .*its hash was [0-9a-f]{12}, this one's is [0-9a-f]{12}"): ASKS[ask](plugged)
    (plugged/"toy_lab.py").unlink()
    assert everything(plugged) == before

def test_a_published_model_says_which_plugin_it_needs(plugged, tmp_path, monkeypatch):
    "Whoever has the same file loads it; without it, the sentence is that of a run."
    with pytest.MonkeyPatch.context() as patch:
        only(patch, "toy")
        published = HubManager(plugged, tmp_path).save()
        assert load_published(published)[1]["plugins"] == plugins.recorded_plugins()
    with pytest.raises(ConfigError, match="give it again: --plugin toy_lab.py"): load_published(published)

def test_the_toy_lab_is_small():
    "What a lab costs: an estimator on a table in at most 60 lines."
    assert len(PLUGIN.read_text().splitlines()) <= 60

# --- stepped through -------------------------------------------------------------------------------------------------------------------

def test_a_run_is_stepped_through(toy):
    "Every choice draws something; what depends on another is filled anew; nothing is written; a lab without the hook says so."
    name, folder = toy
    if name == "toy":
        with pytest.raises(ConfigError, match="the toy lab has nothing to step through"): explore(folder)
        return
    before = everything(folder)
    live, seen = explore(folder), set()
    for choice, control in live.controls.items():
        live.step(choice, len(control.options)//2 or 1)
        assert bytes(live.picture.value).startswith(b"\x89PNG") or "there is no window" in live.said.value, live.said.value
        seen.add(bytes(live.picture.value))
    assert len(seen) > 1
    assert everything(folder) == before and not plt.get_fignums()
    assert "image/png" in live._repr_mimebundle_() or live.said.value
