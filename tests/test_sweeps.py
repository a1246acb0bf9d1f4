"""Sweeps and ablations: what is typed becomes runs, and whatever dies on the way, every run ends done once.

R19: a worker, the driver, or everything killed; resuming needs nothing but the directory."""
import json, os, random, signal, subprocess, sys, threading, time

import numpy as np, pandas as pd, pytest

from tiny import cases
from synthlab.experiments import tasks
from synthlab.cli.main import main
from synthlab.experiments.config import to_yaml
from synthlab.experiments.lab import get_lab
from synthlab.experiments.runs import Lock, Run, RunLocked
from synthlab.experiments.comparison import compare_runs
from synthlab.experiments.ablations import AblationExperiment, walk as walk_through
from synthlab.experiments.experiment import run
from synthlab.experiments.sweeps import Sweep, run_only, run_sweep, run_variant, submit_sweep
from synthlab.experiments.variants import expand, pinned, variants
from synthlab.models.registry import ConfigError

pytestmark = pytest.mark.usefixtures("warm")

SMALL = ["data=mock", "model=linear", "training.n_paths=8", "evaluation.n_paths=50", "evaluation.stride=24", "evaluation.n_boot=100",
         "evaluation.baselines=[constant,ewma]", "tracking.mode=disabled"]
QUICK = [*SMALL, "training.epochs=1", "training.batch_size=1024"]
LONG = [*SMALL, "training.seed=1,2", "training.epochs=4", "training.patience=0", "training.batch_size=64", "training.checkpoint_steps=20"]

def driver(lab, overrides, folder, **options):
    "A process that sweeps, as the command line does: an interruption is a line and an exit code."
    code = ("import sys\nfrom synthlab.experiments.sweeps import run_sweep\nif __name__ == '__main__':\n"
            f"    try: run_sweep({lab!r}, {overrides!r}, {str(folder)!r}, **{options!r})\n"
            "    except KeyboardInterrupt as e: print(e, file=sys.stderr); sys.exit(130)\n")
    (folder.parent/"drive.py").write_text(code)
    return subprocess.Popen([sys.executable, str(folder.parent/"drive.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def until(condition, seconds=300.):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(.02)

def left_by(folder):
    "What each run of a sweep leaves that must be equal, and how often it was finished."
    said = lambda name: {k: v for k, v in Run(folder/name).result.items() if k != "training_seconds"}
    return {v.name: dict(result=said(v.name), status=Run(folder/v.name).status,
                         rows=(folder/v.name/"facts/scalars.csv").read_bytes(),
                         weights=[(folder/v.name/f"checkpoints/{c}.safetensors").read_bytes() for c in ("best", "last")],
                         finished=sum(e["event"] == "finished" for e in Run(folder/v.name).facts.events())) for v in Sweep(folder).variants}

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "The sweep as it is when nothing goes wrong, in one process."
    folder = tmp_path_factory.mktemp("whole")/"sweep"
    run_sweep("market", LONG, folder, progress=False)
    return left_by(folder)

@pytest.mark.parametrize("victim", ["worker", "driver", "everything", "Ctrl-C"])
@pytest.mark.parametrize("seed", cases(1, 16))
def test_whatever_is_killed_every_run_ends_done_once(victim, seed, whole, tmp_path):
    "kill -9 in the middle of two trainings; the same folder is finished to the same bits, and no worker outlives its driver."
    rng, folder = random.Random(f"{victim}{seed}"), tmp_path/"sweep"
    drives = driver("market", LONG, folder, jobs=2)
    names = ["1_1", "2_2"]
    try:
        until(lambda: drives.poll() is not None or any((folder/n/"checkpoints/last.safetensors").exists() for n in names))
        assert drives.poll() is None, drives.communicate()
        time.sleep(rng.random()/2)
        owners = [Run(folder/n).read_status().get("owner") for n in names if Lock(folder/n/"lock").held()]
        workers = [owner["pid"] for owner in owners if owner]       # a lock is taken a moment before its owner is written down
        assert workers, "all was over before anything could be killed"
        if victim == "worker": os.kill(rng.choice(workers), signal.SIGKILL)
        elif victim == "Ctrl-C": drives.send_signal(signal.SIGINT)
        else:
            for pid in workers if victim == "everything" else []: os.kill(pid, signal.SIGKILL)
            drives.kill()
        out, err = drives.communicate(timeout=120)
    finally: drives.kill()
    if victim == "worker": assert drives.returncode == 0, err
    else:
        until(lambda: not any(Lock(folder/n/"lock").held() for n in names), 30)     # the workers have gone, too
        assert any(Run(folder/n).status == "interrupted" for n in names)
        if victim == "Ctrl-C": assert drives.returncode == 130 and f"go on with: synthlab resume {folder}" in err
        assert set(run_sweep(folder=folder, progress=False).table.status) == {"done"}
    found = left_by(folder)
    assert {(n, k): found[n][k] for n in whole for k in ("status", "finished")} == {(n, k): v for n in whole for k, v in dict(status="done", finished=1).items()}
    assert [(n, k) for n in whole for k in whole[n] if found[n][k] != whole[n][k]] == []
    table = json.loads((folder/"results.json").read_text())
    assert [r["status"] for r in table] == ["done", "done"] and not list(folder.rglob(".*.tmp"))

def test_a_worker_of_a_cluster_is_killed_halfway(whole, tmp_path):
    "Two Dask workers, one killed while its run is being trained: every run done once, to the bits of the serial sweep."
    distributed, folder = pytest.importorskip("distributed"), tmp_path/"sweep"
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        victim, killed = next(iter(cluster.workers.values())).pid, []
        def kill():
            until(lambda: all((folder/n/"checkpoints/last.safetensors").exists() for n in ("1_1", "2_2")))
            killed.append(sum(Lock(folder/n/"lock").held() for n in ("1_1", "2_2")))
            os.kill(victim, signal.SIGKILL)
        (killer := threading.Thread(target=kill)).start()
        sweep = run_sweep("market", LONG, folder, 2, cluster.scheduler_address, False)
        killer.join()
    assert killed[0], "all was over before anything could be killed"
    assert sweep.table.status.tolist() == ["done", "done"]
    found = left_by(folder)
    assert [(n, k) for n in whole for k in whole[n] if found[n][k] != whole[n][k]] == []

def test_a_run_that_is_done_is_not_repeated(tmp_path):
    "A finished sweep, called again by the same words or by its folder alone, touches no run."
    typed = [*QUICK, "training.lr=0.01,0.001"]
    run_sweep("market", typed, tmp_path/"s", progress=False)
    before = {p: p.stat().st_mtime_ns for v in Sweep(tmp_path/"s").variants for p in (tmp_path/"s"/v.name).rglob("*") if p.is_file() and p.name != "lock"}
    run_sweep("market", typed, tmp_path/"s", progress=False); run_sweep(folder=tmp_path/"s", progress=False)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    with pytest.raises(ConfigError, match="holds another sweep"): run_sweep("market", [*QUICK, "training.lr=0.01,0.1"], tmp_path/"s", progress=False)
    (tmp_path/"s/1_0.01/status.json").unlink()                      # what a process leaves that dies before its folder is a run
    run_sweep(folder=tmp_path/"s", progress=False)
    assert Sweep(tmp_path/"s").table.status.tolist() == ["done", "done"]

def test_one_driver(tmp_path):
    "A second driver of the same folder is told who the first is."
    sweep = Sweep.create("market", variants("market", QUICK), tmp_path/"s")
    lock = Lock(sweep.folder/"lock"); lock.acquire()
    with pytest.raises(RunLocked, match="in use by"): run_sweep(folder=tmp_path/"s")
    lock.release()

def test_a_failing_combination_is_reported_and_the_others_go_on(tmp_path, capsys):
    "Its sentence is in the table and on the screen, its traceback in the log."
    run_sweep("market", [*QUICK, "training.lr=0.01", "model.head={name: student_t,nu: 1},{name: gbm}"], tmp_path/"s")
    out = capsys.readouterr().out
    table = pd.read_csv(tmp_path/"s/results.csv").set_index("status")
    assert set(table.index) == {"done", "failed"} and "must exceed 2" in table.error["failed"] and "must exceed 2" in out
    assert "Traceback" in next((tmp_path/"s/logs").glob("1_*.txt")).read_text()

def test_a_worker_that_always_dies_is_given_up(tmp_path, monkeypatch):
    "Three processes for one combination, then its row says so; nothing hangs."
    monkeypatch.setattr(tasks.sys, "executable", "/bin/false")
    sweep = run_sweep("market", [*QUICK, "training.lr=0.01,0.001"], tmp_path/"s", jobs=2, progress=False)
    assert sweep.table.status.tolist() == ["failed", "failed"] and sweep.table.error.str.contains("ended 3 times").all()
    monkeypatch.undo()
    assert run_sweep(folder=tmp_path/"s", progress=False).table.status.tolist() == ["done", "done"]

def test_a_worker_waits_for_the_owner_of_its_run(tmp_path):
    "A run that another process still holds is not touched, and said to be in use."
    sweep = Sweep.create("market", variants("market", QUICK), tmp_path/"s")
    with Run.create(tmp_path, "market", "x", to_yaml(get_lab("market").configure(sweep.variants[0].overrides)), folder=sweep.run("1")) as owned:
        with pytest.raises(RunLocked, match="in use"): run_variant(sweep.folder, "1", patience=.2)
        assert owned.status == "running" and not (owned.folder/"result.json").exists()

@pytest.mark.parametrize("typed, count", [
    (["model=linear,default"], 2), (["model=linear,default", "training.horizon=12,24,36"], 6), (["training.horizon=range(12,37,12)"], 3),
    (["evaluation.baselines=[ewma,garch]"], 1), (["evaluation.baselines=[ewma],[ewma,garch]"], 2), (["model=choice(linear,default)"], 2),
    (["training.seed=range(5)"], 5), (["data=prices.parquet"], 1), (["model.head={name: gbm,sigma: 1}"], 1)])
def test_expand_counts(typed, count):
    "Commas outside brackets and ranges are swept, what is in brackets is one value."
    found = expand("market", typed)
    assert len(found) == count == len({tuple(f) for f in found}) and all(len(f) == len(typed) for f in found)

def test_models_that_look_back_differently_are_tested_on_the_same_windows(tmp_path):
    "A split by shares would move with the lookback, and a ranking would compare different weeks."
    sweep = run_sweep("market", [*QUICK, "training.lookback=1,64"], tmp_path/"s", progress=False)
    at = [Run(sweep.run(v.name)).result["scores"]["decided_at"] for v in sweep.variants]
    assert at[0] == at[1]
    assert compare_runs({v.name: sweep.run(v.name) for v in sweep.variants}).verdict.notna().all()

def test_a_sweep_is_nothing_but_its_runs(whole, tmp_path):
    "Every variant's overrides, run by themselves, leave the same bits."
    first = pinned("market", variants("market", LONG))[0]
    run("market", first.overrides, run_dir=tmp_path/"alone", quiet=True)
    said = whole[first.name]
    assert (tmp_path/"alone/facts/scalars.csv").read_bytes() == said["rows"]
    assert [(tmp_path/f"alone/checkpoints/{c}.safetensors").read_bytes() for c in ("best", "last")] == said["weights"]

def test_batch_jobs_need_no_driver(whole, tmp_path):
    "A sweep is written down, each job does the one that it is told, and the table is the same."
    sweep, files = submit_sweep("market", LONG, tmp_path/"s")
    assert sweep.table.status.tolist() == ["missing"]*2 and files["names"].read_text().split() == ["1_1", "2_2"]
    assert [run_only(tmp_path/"s", n) for n in ("2_2", "1_1")] == ["done", "done"]
    found = left_by(tmp_path/"s")
    assert [(n, k) for n in whole for k in whole[n] if found[n][k] != whole[n][k]] == []
    with pytest.raises(ConfigError, match="it has 1_1, 2_2"): run_only(tmp_path/"s", "3_3")

def test_a_sweep_knows_its_lab_and_its_plug_ins(tmp_path):
    "`sweep.json` names them; without the plug-in the folder is refused, and nothing is loaded because a folder says so."
    said = json.loads((Sweep.create("market", variants("market", QUICK), tmp_path/"s").folder/"sweep.json").read_text())
    assert said["lab"] == "market" and "plugins" not in said
    (tmp_path/"s/sweep.json").write_text(json.dumps(said | dict(plugins=[dict(name="mine.py", sha256="0"*64)])))
    with pytest.raises(ConfigError, match="made with the plug-in mine.py"): run_sweep(folder=tmp_path/"s")

MACRO = ["data.worlds=[rbc]", "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60", "data.n=40", "training.epochs=1", "evaluation.epochs=1", "evaluation.baselines=[linear]",
         "evaluation.timing_draws=8", "tracking.mode=disabled"]

def test_other_labs_are_swept_and_compared_too(tmp_path):
    "The economies: a headline of their own, draws that are simulated once, and a paired difference."
    sweep = run_sweep("macro", [*MACRO, "training.seed=1,2", f"runs={tmp_path/'runs'}"], tmp_path/"s", progress=False)
    assert sweep.table.status.tolist() == ["done"]*2 and sweep.table.nrmse.is_monotonic_increasing and sweep.table.test.tolist() == [1, 1]
    table = compare_runs({v.name: sweep.run(v.name) for v in sweep.variants})
    assert table.loss.notna().all() and table.verdict.iloc[1] in ("better", "worse", "not told apart", "too few windows")

# ablations

def walk(tmp_path, n=700, seed=3):
    time_ = pd.date_range("2020", periods=n, freq="1h", tz="UTC")
    close = 100*np.exp(np.random.default_rng(seed).normal(0, .002, n).cumsum())
    bars = pd.DataFrame(dict(time=time_, open=close, high=close*1.001, low=close*.999, close=close, volume=1.))
    bars.to_parquet(tmp_path/"walk.parquet")
    return tmp_path/"walk.parquet"

def test_an_ablation_of_twins_tells_nothing_apart(tmp_path):
    "The same settings twice differ by exactly nothing; a variant that is spoilt on purpose is found."
    common = [f"data={walk(tmp_path)}", "data.split.test_fraction=0.3", *SMALL[1:], "evaluation.stride=1", "training.epochs=1", "training.batch_size=1024", "training.horizon=2"]
    found = AblationExperiment("market", dict(a=[], twin=[], spoilt=["model.backbone.blocks=[identityblock]", "model.head={name: gbm,sigma: 5}", "training.lr=1e-7"]),
                               overrides=common, folder=tmp_path/"ab")
    table = found.run(progress=False)
    assert table.difference["twin"] == table.low["twin"] == table.high["twin"] == 0 and table.verdict["twin"] == "not told apart"
    assert table.verdict["spoilt"] == "worse" and table.low["spoilt"] > 0
    assert "spoilt is worse than a" in found.conclusion and "twin cannot be told apart" in found.conclusion
    assert (tmp_path/"ab/comparison.csv").exists()

def test_a_walk_scores_every_mode_it_promises(tmp_path):
    "Both modes run end to end; folds follow each other, and nothing is tested that was learnt."
    found = walk_through("market", dict(a=[], b=["training.lr=0.01"]), QUICK, folds=2, folder=tmp_path/"ab", progress=False)
    assert found.table.loss.notna().all()
    ends = []
    for part in found.names["a"]:
        result = Run(tmp_path/"ab"/part).result; ends.append((result["test_from"], result["test_to"]))
    assert ends[0][1] < ends[1][0]
    with pytest.raises(ConfigError, match="use train or walk"): AblationExperiment("market", dict(a=[], b=[]), "wlak")
    with pytest.raises(ConfigError, match="two variants"): AblationExperiment("market", dict(a=[]))
    with pytest.raises(ConfigError, match="no time to walk through"): walk_through("macro", ["small", "default"])

@pytest.mark.parametrize("typed, why", [
    (["train", "model=linear,default"], "sweep trains with each of them"),
    (["market", "sweep", "model=linear,defualt"], "did you mean default?"),
    (["market", "sweep", "training.lr=interval(0,1)"], "values with commas"),
    (["market", "sweep", "training.lr=0.1,fast"], "training.lr"),
    (["market", "sweep", "data=mock", "--jobs", "0"], "1 or more"),
    (["market", "ablate", "linear"], "two variants"),
    (["market", "ablate", "linear", "defalt"], "did you mean default?"),
    (["market", "ablate", "linear", "x:training.lr"], "write x:setting=value"),
    (["market", "ablate", "linear", "default", "--first", "lin"], "did you mean linear?"),
    (["market", "ablate", "linear", "default", "data=mock", "--mode", "walk", "--folds", "0"], "at least one fold"),
    (["publish", "nowhere"], "is not a run"),
    (["resume", "nowhere"], "nowhere"),
], ids=lambda v: " ".join(v) if isinstance(v, list) else "")
def test_a_mistake_gets_one_sentence(typed, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") <= 2 and "Traceback" not in said
    assert not list(tmp_path.glob("runs/*/*/checkpoints"))

def test_ablate_at_the_command_line(tmp_path, capsys):
    assert main(["market", "ablate", "linear", "slow:model=linear", "slow:training.lr=1e-5", *[o for o in QUICK if o != "model=linear"], "--run-dir", str(tmp_path/"ab")]) == 0
    out = capsys.readouterr().out
    assert "slow" in out and "verdict" in out and f"ablation: {tmp_path/'ab'}" in out
