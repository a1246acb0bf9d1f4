"One grammar for every lab: each verb explains itself, each mistake is a sentence, and what is typed is what the bench is asked."
import inspect, json, os, re, shutil, signal, subprocess, sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from scipy.io import netcdf_file
from synthlab.cli.calls import CALLS
from synthlab.cli.main import main
from synthlab.cli.parsers import FREE_VERBS, MOVED, example, house_labs, parser, verbs_of
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.worlds import get_world
from synthlab.experiments.config import settings
from synthlab.experiments.experiment import open_run, resume, run
from synthlab.experiments.lab import get_lab
from synthlab.experiments.light import columns_table
from synthlab.experiments.publish import model_card, published_about
from synthlab.experiments.runs import Run
from synthlab.experiments.settings import runs_folder
from synthlab.experiments.settings_page import list_presets, settings_table
from synthlab.experiments.terminal import write_frames
from synthlab.models.registry import ConfigError
from synthlab.trainers.checkpoints import load_checkpoint

TOY = '''
import torch, pandas as pd
from dataclasses import dataclass
from pathlib import Path
from synthlab.experiments.lab import Headline, Lab, register_lab
from synthlab.experiments.parts import EstimatorPart
from synthlab.experiments.settings import ExperimentConfig

@dataclass
class LineConfig(ExperimentConfig):
    name: str = "line"          # last part of the run's name
    rows: int = 40              # of the table
    ridge: float = 0.           # pull of the slope towards 0

class Line:
    def __init__(self, slope=0.): self.slope = torch.tensor([slope])
    def state_dict(self): return {"slope": self.slope}
    def load_state_dict(self, numbers): self.slope = numbers["slope"]

@register_lab
class LineLab(Lab):
    name, title, schema, presets = "line", "a slope from a table", LineConfig, Path(__file__).parent/"presets"
    headline, stop = Headline("error", "error", ".3f"), Path(__file__).parent/"stop"
    def load(self, config, about=None, quiet=False): return torch.linspace(-1, 1, config.rows)
    def parts(self, config, x):
        fit = lambda: Line(float(2*(x*x).sum()/((x*x).sum() + config.ridge)))
        return [EstimatorPart("line", fit, lambda numbers: Line(), dict(lab="line"))]
    def build(self, about, tensors): return Line()
    def judge(self, experiment):
        if self.stop.exists(): raise KeyboardInterrupt
        error = float((experiment.main.model.slope - 2).abs())
        return dict(metrics=dict(error=error), table=pd.DataFrame(dict(error=[error]), ["line"]))

    evidence = "error",
    def conclude(self, numbers): return f"It is off by **{numbers['error']:.3f}**."
    def tables(self, result): return {"error of the slope": result["table"]}
    def predict(self, model, about, source, assets=None, scale: float = 1.):
        return {source: pd.DataFrame(dict(y=[scale*float(model.slope)]))}
'''
TINY = dict(
    market=["data=mock", "model=linear", "training.epochs=1", "training.stride=50", "evaluation.n_paths=20", "evaluation.stride=50",
            "evaluation.baselines=[constant]", "evaluation.n_boot=100"],
    macro=["data.worlds=[rbc]", "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60", "data.n=40", "data.T=8", "data.horizon=8", "model=small", "training.epochs=1", "evaluation.baselines=[]",
           "evaluation.alone=[]", "evaluation.leave_out=[]", "evaluation.timing_draws=2"],
    signal=["model=small", "model.d_model=8", "model.dim_feedforward=16", "training.epochs=1", "training.stride=24",
            "data.lookback=16", "evaluation.random_draws=20", "evaluation.n_boot=100"])

def python(*args, **more):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, **more)

@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    "A lab of a user's, in a file."
    folder = tmp_path_factory.mktemp("plugin")
    (folder/"presets").mkdir(); (folder/"presets"/"config.yaml").write_text("defaults: [_self_]\n")
    (folder/"line_lab.py").write_text(TOY)
    return str(folder/"line_lab.py")

@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A finished run of each lab, by a line."
    root = tmp_path_factory.mktemp("runs")
    for lab, typed in TINY.items():
        line = [lab, "train", *typed, "threads=1", "tracking.mode=disabled", f"runs={root}", "--run-dir", str(root/lab), "--no-report", "--quiet"]
        assert main(line) == 0
    return root

# --- the grammar -----------------------------------------------------------------------------------------------------------------

VERBS = [(lab, v) for lab in (*house_labs(), "line") for v in verbs_of(lab).values()] + [(None, v) for v in FREE_VERBS]

@pytest.mark.parametrize("lab, verb", VERBS, ids=lambda v: getattr(v, "name", v))
def test_every_verb_has_a_help_with_an_example_that_is_understood(lab, verb, capsys):
    whole, words = parser([*house_labs(), "line"]), [lab, verb.name] if lab else [verb.name]
    with pytest.raises(SystemExit) as e: whole.parse_args([*words, "--help"])
    said, line = capsys.readouterr().out, example(verb, lab)
    assert e.value.code == 0 and f"example:\n  {line}\n" in said and "--plugin" in said
    args, _ = whole.parse_known_args(line.split()[1:])
    assert args.call in CALLS and (lab is None or args.lab == lab)

@pytest.mark.parametrize("line, says", [
    ("mraket train", "did you mean market?"), ("trian", "did you mean train?"), ("market trian", "did you mean train?"),
    ("signal papr runs/x", "did you mean paper?"), ("market resume runs/x", "synthlab resume"), ("signal predict runs/x", "synthlab predict"),
    ("generate", "synthlab macro generate"), ("signal blocks", "synthlab market blocks"), ("sweep model=a,b", "synthlab market sweep"),
    ("train -m model=linear,default", "synthlab market sweep"), ("macro train --multirun model=small,wide", "synthlab macro sweep"),
    ("train model=linear,default", "synthlab LAB sweep"), ("train model", "write name=value"), ("market settings horizn", "did you mean"),
    ("settings markte", "did you mean market?"), ("settings market training.seq_len", "training.lookback"),
    ("line train", "no lab and no verb"), ("report nowhere.ipynb", "nowhere.ipynb"), ("report nowhere", "is not a run"),
    ("resume nowhere", "is not a run"), ("evaluate nowhere", "is not a run"), ("predict nowhere --source sp500", "no run and no checkpoint"),
    ("predict nowhere --source sp500 --output said.txt", "CSV file or, as .nc, NetCDF"), ("predict nowhere --source bars.csv --output bars.csv", "the very file"),
    ("predict nowhere --source sp500 --output no/where/said.csv", "make it first"), ("macro estimate nowhere", "is not a run"),
    ("signal paper nowhere --source sp500", "nowhere"), ("signal export nowhere", "nowhere"), ("macro worlds --worlds nkk", "did you mean nk?"),
    ("line train --plugin nowhere.py", "there is no plug-in"), ("quant train model=ridge", "here it is family"),
    ("quant walk ridge lightgbm", "is a walk already"), ("quant train training", "such as training.train_days=252"), ("quant train data.targets=return_5d", "did you mean fwd_ret_5d?"),
    ("market train name=${oc.env:HOME}", "a value is written out, not interpolated"), ("signal train data.source=${oc.env:HOME}", "not interpolated"),
    ("quant columns return_5d", "did you mean fwd_ret_5d?"), ("quant columns returns_5_rank", "did you mean return_5_rank?"),
    *((" ".join(old), new) for old, new in MOVED.items())])
def test_a_mistake_gets_one_sentence(line, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("synthlab: ") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("line, says", [
    ("market ablate", "required: VARIANT"), ("predict runs/x", "required: --source"), ("doctor a b", "unrecognized arguments: b"),
    ("train --fast", "unrecognized arguments: --fast"), ("train --no-rep", "unrecognized"), ("market sweep --jobs many", "invalid int value"),
    ("market ablate a b --mode backtest", "choose from 'train', 'walk'"), ("sweep --resume", "expected one argument")])
def test_an_option_that_is_wrong_is_named_with_where_to_look(line, says, capsys):
    with pytest.raises(SystemExit) as e: main(line.split())
    said = capsys.readouterr().err
    assert e.value.code == 2 and says in said and said.count("\n") == 1 and said.endswith(" --help\n")

@pytest.mark.parametrize("line", ["--help", "market --help", "signal train --help", "predict --help", "market predict --help", "line train --plugin line_lab.py --help"])
def test_help_is_light(line):
    "It is answered from the text of the command line alone: neither torch nor anything else that is slow is loaded."
    code = "import sys\nfrom synthlab.cli.main import main\ntry: main(sys.argv[1:])\nexcept SystemExit as e: assert not e.code\nprint('LOADED', *sys.modules)"
    out = python("-c", code, *line.split())
    assert out.returncode == 0 and out.stdout.startswith("usage: synthlab"), out.stderr
    assert not {"torch", "numpy", "pandas", "hydra", "matplotlib"} & set(out.stdout.rpartition("LOADED")[2].split())

def test_the_help_of_predict_says_what_each_lab_takes_and_answers(capsys):
    "Its own options with their defaults, and every column; within a lab those of that lab alone. Other verbs that find the lab are helped there, too."
    for line in ["predict --help"], *([f"{lab} predict --help", lab] for lab in house_labs()):
        with pytest.raises(SystemExit) as e: main(line[0].split())
        said = capsys.readouterr().out
        assert e.value.code == 0 and said.startswith("usage: synthlab predict ")
        for lab in house_labs():
            own = [p for p in list(inspect.signature(get_lab(lab).predict).parameters.values())[3:] if p.name != "assets"]
            wanted = [f"  --{p.name.replace('_', '-')} " for p in own] + [f"{column:<16} {says}" for column, says in get_lab(lab).answered.items()]
            assert {word in said for word in wanted} == {lab in line[1:] or len(line) == 1}, lab
    assert "(default: 1000)" in said or "no further options" in said
    with pytest.raises(SystemExit) as e: main(["market", "evaluate", "--help"])
    assert e.value.code == 0 and "usage: synthlab evaluate" in capsys.readouterr().out
    assert main(["market", "predict", "runs/x"]) == 2, "where nothing is asked, the verb is typed without its lab"

@pytest.mark.parametrize("lab", house_labs())
def test_the_guide_of_a_lab_shows_how_to_look_and_what_an_answer_says(lab):
    "The line that steps through a run, and the columns of what predict writes, in the words of the lab."
    guide = json.loads((Path(__file__).parents[1]/"nbs"/"guides"/f"{dict(signal='price_action').get(lab, lab)}.ipynb").read_text())
    text = "\n".join("".join(c["source"]) for c in guide["cells"])
    said = ["".join(o.get("data", {}).get("text/markdown", "")) for c in guide["cells"] for o in c.get("outputs", ())]
    assert text.count('import explore; explore("runs/NAME")') == 1 and columns_table(lab) in said
    assert 'explore("runs/NAME")' in (Path(__file__).parents[1]/"README.md").read_text()

def test_nothing_typed_shows_what_could_be(capsys):
    assert main([]) == 2 and "macro" in capsys.readouterr().out
    assert main(["signal"]) == 2 and "paper" in capsys.readouterr().out
    assert main(["--version"]) == 0

def test_python_m(tmp_path):
    out = python("-m", "synthlab", "runs", str(tmp_path))
    assert out.returncode == 0 and out.stdout == f"there is no run in {tmp_path}; start one with: synthlab train\n"
    assert python("-m", "synthlab", "trian").returncode == 2

@pytest.mark.parametrize("line, words", [("synthlab mar", {"market"}), ("synthlab signal pa", {"paper"}), ("synthlab market sweep --j", {"--jobs"})])
def test_a_shell_can_complete(line, words, tmp_path):
    to = tmp_path/"words"
    asked = dict(_ARGCOMPLETE="1", _ARGCOMPLETE_STDOUT_FILENAME=str(to), COMP_LINE=line, COMP_POINT=str(len(line)), _ARGCOMPLETE_IFS="\n")
    python("-m", "synthlab", env=os.environ | asked)
    assert {w.strip() for w in to.read_text().split("\n")} == words

# --- what the bench is asked --------------------------------------------------------------------------------------------------------

def test_sweeps_variants_and_walks_are_passed_on(monkeypatch, capsys):
    "Lab, settings, folder and machines arrive as typed, wherever options stand; what is not done ends with code 1."
    asked, table = [], pd.DataFrame(dict(name=["1_a"], status=["done"], crps=[1.]))
    found = SimpleNamespace(table=table, folder="runs/f", conclusion="It is **so**.", run=lambda: None)
    def record(*args): asked.append(args); return found
    monkeypatch.setitem(sys.modules, "synthlab.experiments.sweeps", SimpleNamespace(
        run_sweep=record, run_only=lambda folder, name: asked.append((folder, name)) or "done",
        submit_sweep=lambda *args: (asked.append(args), dict(slurm=Path("runs/f/submit/slurm.sh")))))
    monkeypatch.setitem(sys.modules, "synthlab.experiments.ablations", SimpleNamespace(AblationExperiment=record, walk=record))
    assert main("signal sweep data.horizon=4,8 --jobs 2 model=lstm,small --cluster local".split()) == 0
    assert main("market ablate default wide:model.backbone.d_model=64 --mode walk linear data=mock --first linear --run-dir ab".split()) == 0
    assert main("signal walk lstm --folds 5 small threads=1".split()) == 0
    assert main("macro sweep model=small,wide --submit --run-dir s".split()) == 0
    assert main("sweep --resume s --only 1_small".split()) == 0 and main("sweep --resume s --jobs 2".split()) == 0
    variants = dict(linear=["model=linear"], default=["model=default"], wide=["model.backbone.d_model=64"])
    assert asked == [("signal", ["data.horizon=4,8", "model=lstm,small"], None, 2, "local"),
                     ("market", variants, "walk", ["data=mock"], 3, "ab", 1, None),
                     ("signal", dict(lstm=["model=lstm"], small=["model=small"]), ["threads=1"], 5, None, 1, None),
                     ("macro", ["model=small,wide"], "s"), ("s", "1_small"), (None, (), "s", 2, None)]
    said = capsys.readouterr().out
    assert "sweep: runs/f" in said and "ablation: runs/f" in said and "walk: runs/f" in said and "slurm.sh" in said and "It is so." in said
    table.loc[0, "status"] = "failed"
    with pytest.raises(SystemExit, match="1"): main(["signal", "sweep"])

@pytest.mark.parametrize("typed, why", [
    (["linear", "defalt"], "did you mean default?"), (["linear", "x:training.lr"], "write x:setting=value"),
    (["linear", "default", "--first", "lin"], "did you mean linear?")], ids=str)
def test_a_variant_that_is_none_is_refused(typed, why, capsys):
    assert main(["market", "ablate", *typed]) == 2 and why in capsys.readouterr().err

@pytest.mark.parametrize("lab", house_labs())
def test_settings_lists_everything_with_its_meaning(lab, capsys):
    known = settings(get_lab(lab).schema)
    table = settings_table(lab)
    assert set(known) - set(table.index) == {n for n in known if any(k.startswith(f"{n}.") for k in known)}     # those with settings of their own
    assert (table.meaning.str.len() > 0).all() and (table.type.str.len() > 0).all()
    assert main(["settings", lab]) == 0
    said = capsys.readouterr().out
    for name, row in table.iterrows(): assert f"{name}={row.default}" in said and row.meaning in said
    assert main([lab, "settings", "training"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == sum(n.startswith("training.") for n in table.index) and all(line.startswith("training.") for line in lines)
    assert main([lab, "presets"]) == 0 and f"{next(iter(list_presets(lab)))}=" in capsys.readouterr().out

def test_columns_are_listed_and_found_by_a_part_of_their_names(capsys):
    assert main(["quant", "columns"]) == 0
    whole = capsys.readouterr().out
    assert all(f"  {name} " in whole for name in ("return_5", "momentum_252_21", "xdm_ret_5d", "will_valley_mdd_5d_0.03"))
    assert main(["quant", "columns", "momentum"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")] == ["momentum_252_21"]
    assert main(["quant", "columns", "return_7_z"]) == 0 and "close[t]/close[t-7] - 1, in deviations" in capsys.readouterr().out

def test_nobody_has_to_read_to_the_end(monkeypatch, capsys):
    "`synthlab settings quant | head -1`: no error, and no sentence about a pipe."
    read, write = os.pipe(); os.close(read)
    with open(write, "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        assert main(["settings", "quant"]) == 141
    assert capsys.readouterr().err == ""

# --- runs ------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("lab, figure", [("market", "fans"), ("macro", "quantiles"), ("signal", "wealth")])
def test_a_run_is_shown_listed_and_tested_again(lab, figure, runs, capsys):
    "Its figures are kept; evaluating says the conclusion of its result; the headline is its lab's."
    run = Run(runs/lab)
    assert run.status == "done" and (run.figures/f"{figure}.png").exists() and not (run.folder/"report.html").exists()
    assert main(["evaluate", str(run.folder)]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"\nrun: {run.folder}\n")
    if lab != "macro": assert run.result["conclusion"].replace("**", "") in said        # macro's tells how long it took
    assert main(["runs", str(runs)]) == 0
    line = next(row for row in capsys.readouterr().out.splitlines() if row.endswith(f"/{lab}"))
    assert line.startswith("done") and get_lab(lab).headline.show(run.result) in line

def test_what_was_typed_wrong_for_a_run_is_refused(runs, capsys):
    for line, why in {"evaluate RUN/macro --source sp500": "no bars", "evaluate RUN/market training.lr=1": "train again with it",
                      "predict RUN/market --source mock --n-pahts 5": "did you mean --n-paths?", "predict RUN/market --source mock --seed x": "like its default, 0",
                      "predict RUN/signal --source mock --seed 1": "it takes none", "predict RUN/market --source mock --levels 5,50,95": "levels is 5,50,95; give numbers between 0 and 1, such as 0.05,0.5,0.95",
                      "predict RUN/market --source mock --paths all.txt": "paths is all.txt; what is written is a CSV file or, as .parquet, Parquet", "predict RUN/market --source mock --paths 3": "--paths is 3; give text",
                      "predict RUN/market --source mock --paths": "--paths needs a value\n", "macro estimate RUN/market": "is a run of the market lab",
                      "macro estimate RUN/macro drws=5": "did you mean draws?"}.items():
        assert main(line.replace("RUN", str(runs)).split()) == 2
        assert why in capsys.readouterr().err, line

def test_predict_for_each_lab(runs, tmp_path, monkeypatch, capsys):
    "A file an asset, or a world; the lab's own options arrive."
    monkeypatch.chdir(tmp_path)
    assert main(["predict", str(runs/"market"), "--source", "mock", "--output", "paths.csv", "--n-paths", "50", "--levels=0.1,0.9"]) == 0
    files = sorted(Path().glob("paths*.csv"))
    assert files and list(pd.read_csv(files[0]).columns[1:]) == ["mean", "q10", "q90"]
    said = capsys.readouterr().out
    assert "decided at the close of the bar of 20" in said, "and the close itself"
    assert "written: paths" in said and said.splitlines()[-3:] == [f"  {column:<16} {says}" for column, says in get_lab("market").answered.items()]
    assert main(["predict", str(runs/"market"), "--source", "mock", "--output", "said.csv", "--n-paths", "50", "--levels=0.1,0.9", "--paths", "every.parquet"]) == 0
    every, said = pd.read_parquet("every.parquet"), pd.read_csv(next(Path().glob("said*.csv")))
    assert "all 50 simulated paths: every.parquet" in capsys.readouterr().out and list(every) == ["asset", "member", "time", "close"]
    one = every[every.asset == every.asset.iloc[0]].groupby("time")["close"]
    assert np.allclose(one.mean(), said["mean"]) and np.allclose(one.quantile(.9), said["q90"])
    assert main(["predict", str(runs/"signal"), "--source", "sp500", "--output", "signal.csv"]) == 0
    assert list(pd.read_csv("signal.csv")) == ["time", "close", "probability", "signal"]
    newest = pd.read_csv("signal.csv").iloc[-1]
    assert f"decided at the close of the bar of {newest['time'][:16]} UTC, which was {newest['close']:.8g}" in capsys.readouterr().out
    assert main(["predict", str(runs/"signal"), "--source", "sp500", "--output", "signal.nc"]) == 0
    with netcdf_file("signal.nc", mmap=False) as file: assert np.datetime64(int(file.variables["time"][-1]), "s") == np.datetime64(newest["time"][:19])
    world = get_world("rbc")
    names = list(world.parameters.names)
    middle = {n: [float((lo + hi)/2)] for n, lo, hi in zip(names, world.parameters.lower, world.parameters.upper)}
    pd.DataFrame(middle).to_csv("draws.csv", index=False)
    assert main(["predict", str(runs/"macro"), "--source", "draws.csv", "--output", "responses.csv"]) == 0
    assert list(pd.read_csv("responses.csv").columns[:3]) == ["draw", "shock", "quarter"]
    assert main(["predict", str(runs/"macro"), "--source", "draws.csv", "--output", "responses.nc"]) == 0
    with netcdf_file("responses.nc", mmap=False) as file:               # the same numbers, along named dimensions
        assert file.variables["rate"].dimensions == ("draw", "shock", "quarter") and file.variables["rate"].long_name.decode() == get_lab("macro").answered["rate"]
        assert np.allclose(file.variables["rate"][:].ravel(), pd.read_csv("responses.csv")["rate"])
    pd.DataFrame(middle | {names[0]: [1e6]}).to_csv("far.csv", index=False)
    capsys.readouterr()
    assert main(["predict", str(runs/"macro"), "--source", "far.csv"]) == 2 and "outside the prior" in capsys.readouterr().err
    assert main(["predict", str(runs/"macro"), "--source", "far.csv", "--guard", "nan"]) == 0

def test_a_lab_of_a_users(plugin, tmp_path, monkeypatch, capsys):
    "It has the general verbs; its file is given with every one of them, before or after, and never run because a folder names it."
    monkeypatch.chdir(tmp_path)
    def say(line, code=0):
        assert main(line.replace("FILE", plugin).split()) == code
        return capsys.readouterr()
    made = say("--plugin FILE line train ridge=1 tracking.mode=disabled --run-dir a --quiet").out
    assert "error of the slope" in made and "It is off by 0." in made
    assert say("settings line ridge --plugin FILE").out.split() == ["ridge=0.0", "float", *"pull of the slope towards 0".split()]
    assert "It is off by 0." in say("evaluate a --plugin=FILE").out
    say("predict a --source x --scale 10 --output said.csv --plugin FILE")
    assert pd.read_csv("said.csv").y[0] == pytest.approx(10*(2 - Run("a").result["error"]), abs=1e-4)
    Path(plugin).with_name("stop").touch()
    stopped = say("line train --run-dir b tracking.mode=disabled --plugin FILE", 130).err
    Path(plugin).with_name("stop").unlink()
    assert "interrupted" in stopped and "go on with: synthlab resume b" in stopped
    say("resume b --plugin FILE")
    assert Run("b").status == "done"
    assert "did you mean line?" in say("lien train --plugin FILE", 2).err
    alone = python("-c", "from synthlab.cli.main import main; print(main(['evaluate', 'a'])); main(['runs', '.'])", cwd=tmp_path)
    assert "give it again: --plugin line_lab.py" in alone.stderr and alone.stderr.count("\n") == 1
    assert alone.stdout.split()[:3] == ["2", "done", "error"]           # its numbers, without its lab

# --- killed before it was a run ----------------------------------------------------------------------------------------------------

BORN = "", "lock", "checkpoints/", "facts/", "config.yaml", "overrides.yaml", ".status.json.7.tmp"     # in the order in which they once came

@pytest.mark.parametrize("n", range(1, len(BORN)))
def test_a_folder_that_never_became_a_run_is_taken_up(n, plugin, tmp_path, monkeypatch, capsys):
    "As an earlier version left it after `kill -9`: listed, told how to go on by `resume`, and taken by the line that began it."
    monkeypatch.chdir(tmp_path)
    for name in BORN[1:n + 1]: (Path("runs/cut")/name).mkdir(parents=True) if name.endswith("/") else (Path("runs/cut").mkdir(parents=True, exist_ok=True), (Path("runs/cut")/name).touch())
    for line in "resume runs/cut", "evaluate runs/cut", "report runs/cut":
        assert main([*line.split(), "--plugin", plugin]) == 2
        said = capsys.readouterr().err
        assert "was cut off before it was one" in said and "--run-dir runs/cut" in said and said.count("\n") == 1, line
    assert main(["runs", "runs"]) == 0 and "runs/cut is not a run: it was cut off" in capsys.readouterr().out
    line = ["line", "train", "tracking.mode=disabled", "--run-dir", "runs/cut", "--quiet", "--plugin", plugin]
    assert main(line) == 0 and Run("runs/cut").status == "done" and not list(Path("runs").glob(".*"))
    assert main(line) == 0      # finished already
    Path("runs/mine").mkdir(); Path("runs/mine/letter.txt").write_text("dear")
    assert main([*line[:3], "--run-dir", "runs/mine", "--plugin", plugin]) == 2 and Path("runs/mine/letter.txt").read_text() == "dear"

# --- output that is gone, and signals ------------------------------------------------------------------------------------------------

def in_child(outside, line, folder):
    "A line in a forked process whose output was made so by `outside`; its exit code, and what it said of errors."
    if not (pid := os.fork()):
        code = 99
        try:
            os.chdir(folder)
            sys.stderr = open("errors.txt", "w")
            outside()
            code = main(line)
            sys.stderr.flush()
        finally: os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), (folder/"errors.txt").read_text()

def led_to(file, **how):
    "The standard output, as the number and as Python's stream."
    os.dup2(file, 1)
    sys.stdout = open(1, "w", **how)

def ended_pipe():
    read, write = os.pipe(); os.close(read)
    led_to(write)

def closed(*numbers):
    for number in numbers: os.close(number)
    sys.stdout = None
    if 2 in numbers: sys.stderr.close(); sys.stderr = None

GONE = {"a pipe that has ended": (ended_pipe, 141), "a pipe that ends after a line": (lambda: led_to(subprocess.Popen(["head", "-1"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL).stdin.fileno(), buffering=1), None),
        "closed": (lambda: closed(1), 0), "closed, and errors, too": (lambda: closed(0, 1, 2), 0), "a full disk": (lambda: led_to(os.open("/dev/full", os.O_WRONLY)), 1),
        "a closed stream": (lambda: (led_to(os.open("/dev/null", os.O_WRONLY)), sys.stdout.close()), 1), "ASCII": (lambda: led_to(os.open("said.txt", os.O_WRONLY | os.O_CREAT), encoding="ascii"), 0)}

@pytest.mark.parametrize("what", GONE)
def test_output_decides_nothing(what, plugin, tmp_path):
    "R30: the run is done, whatever becomes of what is printed; a full disk is told at the end."
    outside, expected = GONE[what]
    code, said = in_child(outside, ["line", "train", "tracking.mode=disabled", "--run-dir", "Größe", "--no-report", "--plugin", plugin], tmp_path)
    assert code == expected if expected is not None else code in (0, 141)
    assert Run(tmp_path/"Größe").status == "done" and Run(tmp_path/"Größe").result["error"] == 0
    assert json.loads((tmp_path/"Größe/lock").read_text()).keys() == {"host", "pid", "started"}      # and nobody printed into it
    assert "Traceback" not in said and ("could not be written" in said) == (code == 1)
    if what == "ASCII": assert "run: Gr\\xf6\\xdfe\n" in (tmp_path/"said.txt").read_text()

@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("where", ["load", "judge"])
def test_the_hint_comes_after_every_signal(where, number, plugin, tmp_path, monkeypatch, capsys):
    "Also where nothing is trained at that moment: the run is interrupted, and the line that goes on is the last one."
    monkeypatch.chdir(tmp_path)
    line = ["line", "train", "tracking.mode=disabled", "--run-dir", "a", "--quiet", "--no-report", "--plugin", plugin]
    assert main(line) == 0
    Run("a").set_status("interrupted"); capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(type(get_lab("line")), where, lambda *args, **more: signal.raise_signal(number))
        assert main(["resume", "a", "--plugin", plugin]) == 128 + number
    assert capsys.readouterr().err.endswith("go on with: synthlab resume a --plugin line_lab.py\n") and Run("a").status == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and main(["resume", "a", "--no-report", "--plugin", plugin]) == 0

# --- whatever a user can cause is a sentence -------------------------------------------------------------------------------------------

def prices(scale, path):
    "Bars of a scale, in a file."
    bars = MockDataSource(600).load("MOCK")["MOCK"]
    bars[["open", "high", "low", "close"]] *= scale/bars["close"].iloc[0]
    bars.reset_index().to_csv(path, index=False)

@pytest.mark.parametrize("line, why, begun", [
    ("market train MARKET evaluation.n_paths=2", "evaluation.n_paths is 2; use 3 or more", False), ("market train MARKET evaluation.baselines=[]", "evaluation.baselines is empty; name", False),
    ("market train MARKET data=1e300.csv", "is not between 1e-30 and 1e+30; give it in another unit", False), ("market train MARKET data=1e-300.csv", "is not between", False),
    ("signal train SIGNAL data.source=1e300.csv", "is not between", False), ("quant train data.assets=[AAPL] data.start=2019-06-01 data.end=2020-12-01 family=ridge others=[] training.train_days=120 "
     "training.test_days=60 training.min_train_samples=100", "no row tells what became of xdm_ret_5d", False),
    ("market train MARKET training.lr=1e30 training.epochs=3 training.stride=5", "a smaller lr may help", True), ("signal train SIGNAL training.lr=1e30", "a smaller lr may help", True)])
def test_what_cannot_work_is_told_before_it_is_trained(line, why, begun, tmp_path, monkeypatch, capsys):
    "One sentence of at most 400 letters and no folder, or a run that says itself that it failed."
    monkeypatch.chdir(tmp_path)
    for scale in "1e300", "1e-300": prices(float(scale), f"{scale}.csv")
    words = line.replace("MARKET", " ".join(TINY["market"])).replace("SIGNAL", " ".join(TINY["signal"])).split()
    assert main([*words, "tracking.mode=disabled", "threads=1", "--run-dir", "a", "--quiet", "--no-report"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert why in said and len(said) < 400 and Path("a").exists() == begun
    if begun: assert Run("a").status == "failed" and "a smaller lr" in Run("a").read_status()["error"]

def change(name, old, new): return lambda folder: (folder/name).write_text(re.sub(old, new, (folder/name).read_text(), count=1))

TOUCHED = {"another setting": (change("config.yaml", r"\blr: [^\n]+", "lr: 0.5"), "resume with the old value, or start a new run"),
           "an event that is none": (change("facts/events.jsonl", "{", "<"), "line 1 is no event"),
           "no rows": (lambda folder: (folder/"facts/scalars.csv").unlink(), "facts were removed, start a new run")}

@pytest.mark.parametrize("what", TOUCHED)
def test_a_run_that_was_touched_is_not_resumed(what, runs, tmp_path, capsys):
    folder, (touch, why) = tmp_path/"a", TOUCHED[what]
    shutil.copytree(runs/"market", folder)
    Run(folder).set_status("interrupted")
    touch(folder)
    assert main(["resume", str(folder), "--no-report", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1

def test_a_broken_result_hides_no_other_run(runs, tmp_path, capsys):
    for name in "macro", "signal": shutil.copytree(runs/name, tmp_path/name)
    (tmp_path/"macro/result.json").write_text('{"half": ')
    assert main(["runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("done") == 2 and get_lab("signal").headline.show(Run(tmp_path/"signal").result) in said and "macro/result.json cannot be read" in said
    assert main(["compare", str(tmp_path/"macro"), str(tmp_path/"signal")]) == 2 and "cannot be read" in capsys.readouterr().err

@pytest.mark.parametrize("line", ["line train --run-dir a\0b", "resume a\0b", "runs a\0b", "predict a\0b --source x", "line train name=a\0b"])
def test_no_name_holds_a_nul(line, plugin, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*line.split(" "), "--plugin", plugin]) == 2
    said = capsys.readouterr().err
    assert "holds a NUL" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())
    for way in lambda: run("market", run_dir="a\0b"), lambda: resume("a\0b"), lambda: runs_folder("a\0b"):
        with pytest.raises(ConfigError, match="holds a NUL"): way()

def test_names_of_assets_are_escaped_where_they_are_shown(runs, tmp_path):
    "In a card, in the name of a file, in a picture."
    run, lab = open_run(runs/"signal")
    about = published_about(run, lab, load_checkpoint(run.checkpoints/"best.safetensors")[1]) | dict(assets=["BTC/USDT", "<script>x|y</script>"])
    assert "BTC/USDT, &#60;script&#62;x&#124;y&#60;/script&#62;," in model_card(lab, about, run.result)
    frames = {name: pd.DataFrame(dict(y=[n])) for n, name in enumerate(("BTC/USDT", "BTC-USDT", "../../x", "a\0b", "n"*400))}
    files = write_frames(frames, tmp_path/"said.csv")
    assert {p.parent for p in files} == {tmp_path} and [pd.read_csv(p).y[0] for p in files] == [0, 1, 2, 3, 4]

