"""A sweep of eight over two Dask workers. One worker is killed half-way, then the driver; the next driver finishes. For every lab, and for one of a
user's that comes by a plug-in: eight runs `done`, facts once an epoch, and the bits of the same sweep in one process."""
import json, os, signal, subprocess, sys, time

import pandas as pd, pytest

from synthlab.experiments.lab import get_lab
from synthlab.experiments.runs import Lock, Run
from synthlab.experiments.sweeps import Sweep, run_sweep
from test_labs import PLUGIN, TOYS, bits, only, result, rows, settings

EIGHT = dict(market="training.seed=1,2,3,4,5,6,7,8", macro="training.seed=1,2,3,4,5,6,7,8", signal="training.seed=1,2,3,4,5,6,7,8",
             events="training.seed=1,2,3,4,5,6,7,8", quant="training.seed=1,2,3,4,5,6,7,8", toy="training.penalty=1,2,3,4,5,6,7,8")

def until(condition, what, seconds=600.):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(.02)

def statuses(folder): return [Run(folder/v.name).status if (folder/v.name/"status.json").exists() else "missing" for v in Sweep(folder).variants]
def held(folder): return [v.name for v in Sweep(folder).variants if (folder/v.name).exists() and Lock(folder/v.name/"lock").held()]

@pytest.mark.slow
@pytest.mark.parametrize("name", TOYS)
def test_eight_runs_a_worker_and_the_driver_killed(name, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    only(monkeypatch, name)
    typed, sweep = [*settings(name, tmp_path), EIGHT[name]], tmp_path/"sweep"
    plugin = ["--plugin", str(PLUGIN)] if name == "toy" else []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        words = [sys.executable, "-m", "synthlab", name, "sweep", *typed, "--run-dir", str(sweep), "--cluster", cluster.scheduler_address, *plugin]
        drives = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
        try:
            until(lambda: drives.poll() is not None or (sweep/"sweep.json").exists() and "done" in statuses(sweep) and held(sweep), "no run was done")
            assert drives.poll() is None, drives.communicate()[0]
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
            until(lambda: drives.poll() is not None or statuses(sweep).count("done") >= 4 and held(sweep), "half was not done")
            assert drives.poll() is None, drives.communicate()[0]
        finally: drives.kill(); drives.communicate()
        until(lambda: not held(sweep), "workers go on without a driver")
        left = statuses(sweep).count("done")
        assert 4 <= left < 8
        table = run_sweep(folder=sweep, cluster=cluster.scheduler_address, progress=False).table
    assert table.status.tolist() == ["done"]*8
    serial = run_sweep(name, typed, tmp_path/"serial", progress=False)
    assert serial.table.status.tolist() == ["done"]*8
    for v in serial.variants:
        one, other = tmp_path/"serial"/v.name, sweep/v.name
        assert bits(one) == bits(other) and result(one) == result(other) and rows(one) == rows(other), v.name
        for path in rows(other):
            epochs = pd.read_csv(other/path)
            assert not epochs.duplicated([c for c in epochs if c not in ("value", "time")]).any(), f"{v.name}/{path}: an epoch is written twice"
        assert sum(e["event"] == "finished" for e in Run(other).facts.events()) == 1
    headline = get_lab(name).headline.name
    assert table.set_index("name")[headline].to_dict() == serial.table.set_index("name")[headline].to_dict()
    assert json.loads((sweep/"results.json").read_text()) and not list(sweep.rglob(".*.tmp"))
