"""Processes that are killed or asked to stop, and what the next one makes of what they left.

The faults are those of a training on a shared machine: R1 killed at any instant, R3 killed inside a save, R4 one of two
processes killed, R5 asked to stop. `-m soak` runs many more cases; the number in a case's name is its seed."""
import json, os, random, signal, time
from pathlib import Path

import pytest
from jupyter_client import KernelManager

import tiny
from tiny import cases, spawner
from synthlab.experiments.runs import Run
from synthlab.trainers import keeper
from synthlab.trainers.checkpoints import newest_checkpoint
from synthlab.datasets.disk import atomic_write
from synthlab.trainers.interruption import Interrupted, StopSignals, going_on
from synthlab.trainers.trainer import Trainer, TrainingConfig

pytestmark = pytest.mark.usefixtures("warm")

def started(function, *args, **kwargs):
    child = spawner.Process(target=function, args=args, kwargs=kwargs, daemon=True)
    child.start()
    return child

def finished(function, *args, **kwargs):
    child = started(function, *args, **kwargs)
    child.join(60)
    assert child.exitcode == 0
    return child

def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(.002)

def events(folder):
    path = Path(folder)/"facts/events.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().split("\n")[:-1]] if path.exists() else []

@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")/"run"
    finished(tiny.train, folder)
    return tiny.left_by(folder)

def same(folder, undisturbed):
    left = tiny.left_by(folder)
    for k in tiny.differs(left, undisturbed): assert left.get(k) == undisturbed.get(k), k

# R1

@pytest.mark.parametrize("seed", cases(10, 200))
def test_killed_at_any_instant(seed, tmp_path, undisturbed):
    "Killed one to three times at random instants, a training ends with the bits of one that was left alone."
    draw, folder = random.Random(seed), tmp_path/"run"
    for kill in range(draw.randint(1, 3)):
        seen = len(events(folder))
        child = started(tiny.train, folder, pause=.004)         # 50 steps: some 0.3 s
        wait_for(lambda: len(events(folder)) > seen or not child.is_alive())
        time.sleep(draw.random()*.3)
        child.kill(); child.join()
    finished(tiny.train, folder)
    same(folder, undisturbed)

# R3

PLACES = "before the write", "in the write", "before the sync", "before the rename", "after the rename", "between best and last"

def killed_in_save(folder, place, name, nth):
    "Train, and die at a place inside the `nth` save of the checkpoint `name`."
    import synthlab.trainers.keeper as module
    real, saves = module.atomic_write, []
    def die(*args): os.kill(os.getpid(), signal.SIGKILL)
    def write_half(handle, data, write=os.write): write(handle, bytes(data)[:len(data)//2]); die()
    def atomic_write(path, data):
        saves.append(path.stem)
        now = path.stem == name and saves.count(name) == nth
        if now and place == "before the write": die()
        if now and place == "in the write": os.write = write_half
        if now and place == "before the sync": os.fsync = die
        if now and place == "before the rename": os.replace = die
        if now and place == "after the rename": disk.sync = die
        real(path, data)
        if now and place == "between best and last": die()
    from synthlab.datasets import disk
    module.atomic_write = atomic_write
    tiny.train(folder)

@pytest.mark.parametrize("save", cases(3, 20))
@pytest.mark.parametrize("place", PLACES)
def test_killed_inside_a_save(place, save, tmp_path, undisturbed):
    "The newest whole checkpoint is used, leftovers are swept, the end is the same."
    folder = tmp_path/"run"
    best = place == "between best and last" or save % 2
    name, nth = ("best", 1 + save % 4) if best else ("last", 1 + save)       # four epochs are better than those before
    child = started(killed_in_save, folder, place, name, nth); child.join(60)
    assert child.exitcode == -signal.SIGKILL
    left = sorted(p.name for p in (folder/"checkpoints").iterdir())
    assert any(n.endswith(".tmp") for n in left) == (place in ("in the write", "before the sync", "before the rename"))
    if place == "between best and last": assert newest_checkpoint(folder/"checkpoints")[0].name == "best.safetensors"
    finished(tiny.train, folder)
    same(folder, undisturbed)                                   # which also says that no leftover is there

def test_killed_inside_the_last_save_of_all(tmp_path, monkeypatch):
    "Between best and last, after which nothing would be saved any more: the last checkpoint is that of the end all the same."
    written, write = [], keeper.atomic_write
    def train(folder):
        trainer = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG | dict(epochs=1)), folder)
        trainer.resume()
        trainer.fit(*tiny.train_val())
    def dies(path, data):
        written.append(path.stem)
        if len(written) == at: raise OSError("the machine is off")
        return write(path, data)
    at = None
    monkeypatch.setattr(keeper, "atomic_write", dies)
    train(tmp_path/"whole")
    assert written[-2:] == ["best", "last"]
    at = len(written); written.clear()
    with pytest.raises(OSError, match="off"): train(tmp_path/"cut")
    train(tmp_path/"cut")
    same(tmp_path/"cut", tiny.left_by(tmp_path/"whole"))

def test_killed_inside_any_write(tmp_path):
    "Also of a file that no run owns, a sweep's table or an exported model: the old one or the new one, and the next write leaves nothing else."
    path = tmp_path/"results.json"; path.write_text("old")
    for n in range(20):
        killed = tiny.dies_at(n, lambda: atomic_write(path, "new"))
        assert path.read_text() in ("old", "new")
        atomic_write(path, "old")
        assert list(tmp_path.iterdir()) == [path], n
        if not killed: break
    assert n > 5

# R4

def in_two(function, *args, **kwargs):
    "Run a function in two processes, started by a third; its exit code."
    child = spawner.Process(target=tiny.together, args=(function, *args), kwargs=kwargs)     # no daemon: it has children
    child.start(); child.join(120)
    return child.exitcode

@pytest.mark.parametrize("seed", cases(1, 12))
def test_one_of_two_processes_killed(seed, tmp_path):
    "The other one ends too, within seconds, and the parent with an error."
    begun = time.monotonic()
    assert in_two(tiny.train_and_die, tmp_path/"run", seed % 2, 12 + seed) == 1
    assert time.monotonic() - begun < 30

@pytest.mark.parametrize("seed", cases(1, 12))
def test_one_of_two_processes_killed_and_restarted(seed, tmp_path):
    "Both begin again from the checkpoint, and end as two that were left alone."
    assert in_two(tiny.train_and_die, tmp_path/"run", (1 + seed) % 2, 23 + seed, restarts=1) == 0
    assert {"resumed", "finished"} <= set(events(tmp_path/"run"))
    assert in_two(tiny.train_and_die, tmp_path/"alone", 1, -1) == 0
    same(tmp_path/"run", tiny.left_by(tmp_path/"alone"))

# R5

def run_in(root): return next((p.parent for p in root.glob("*/status.json")), root)

STOPS = {"SIGTERM in a step": (signal.SIGTERM, dict(pause=.2)), "SIGHUP in a step": (signal.SIGHUP, dict(pause=.2)), "Ctrl-C in a step": (signal.SIGINT, dict(pause=.2)),
         "SIGTERM in validation": (signal.SIGTERM, dict(pause_val=.2)), "Ctrl-C in validation": (signal.SIGINT, dict(pause_val=.2))}

@pytest.mark.parametrize("seed", cases(1, 12))
@pytest.mark.parametrize("stop", STOPS)
def test_asked_to_stop(stop, seed, tmp_path, undisturbed):
    "A checkpoint within one step, status interrupted, and the next process goes on from there."
    number, pauses = STOPS[stop]
    child = started(tiny.train_in_run, tmp_path, **pauses, mark=tmp_path/"mark")
    wait_for((tmp_path/"mark").exists)
    time.sleep(random.Random(seed).random()*.1)
    os.kill(child.pid, number); child.join(30)
    folder = run_in(tmp_path)
    assert child.exitcode == (1 if number == signal.SIGINT else 128 + number)
    said, saved = Run(folder).read_status()["error"], newest_checkpoint(folder/"checkpoints")[2]
    assert Run(folder).status == "interrupted" and signal.Signals(number).name in said
    assert events(folder)[-1] == "interrupted"
    assert (saved["step"], saved["epoch"], saved["position"]) == ((7, 0, 7) if "step" in stop else (10, 0, 10))
    assert f"after step {saved['step']}" in said or "in validation" in said
    finished(tiny.train_in_run, tmp_path)
    assert Run(folder).status == "done"
    same(folder, undisturbed)

class Asked(tiny.Regression):
    "Asks its own process to stop in a step."
    def __init__(self, step): super().__init__(); self.left = step
    def loss(self, batch, phase, generator):
        self.left -= 1
        if not self.left: signal.raise_signal(signal.SIGTERM)
        return super().loss(batch, phase, generator)

def test_asked_to_stop_in_any_step(tmp_path, undisturbed):
    "Also in one after which a row or a checkpoint is due, and in the last of an epoch: none is lost, none is there twice."
    for step in 2, 3, 6, 10:
        folder = tmp_path/str(step)
        with pytest.raises(Interrupted, match=f"after step {step}"): Trainer(Asked(step), TrainingConfig(**tiny.CONFIG), folder).fit(*tiny.train_val())
        tiny.train(folder)
        same(folder, undisturbed)

def test_two_processes_asked_to_stop(tmp_path):
    "Both stop after the same step, and the run is interrupted, not failed."
    child = spawner.Process(target=tiny.train_together, args=(tmp_path,), kwargs=dict(pause=.1, mark=tmp_path/"mark"))
    child.start()       # not a daemon: it has children
    wait_for((tmp_path/"mark").exists)
    os.kill(child.pid, signal.SIGTERM); child.join(60)
    run = Run(run_in(tmp_path))
    assert child.exitcode == 143 and run.status == "interrupted" and "SIGTERM" in run.read_status()["error"]
    assert events(run.folder)[-1] == "interrupted"
    assert 7 <= newest_checkpoint(run.checkpoints)[2]["step"] <= 9

def test_asked_twice(tmp_path, undisturbed):
    "The second request does not wait for the step to end."
    child = started(tiny.train_in_run, tmp_path, pause=8., mark=tmp_path/"mark")
    wait_for(lambda: "started" in events(run_in(tmp_path)))
    time.sleep(.5); os.kill(child.pid, signal.SIGTERM); time.sleep(.7); begun = time.monotonic()
    os.kill(child.pid, signal.SIGTERM); child.join(30)
    assert time.monotonic() - begun < 4 and Run(run_in(tmp_path)).status == "interrupted"
    finished(tiny.train_in_run, tmp_path)
    same(run_in(tmp_path), undisturbed)

def reply(client, asked, seconds=60):
    "The answer to one request; a kernel that was slow to start still answers those that asked whether it is there."
    while True:
        said = client.get_shell_msg(timeout=seconds)
        if said["parent_header"].get("msg_id") == asked: return said["content"]

def test_interrupted_notebook_cell(tmp_path, undisturbed):
    "The stop button: the cell ends with KeyboardInterrupt, and the same kernel can go on."
    manager = KernelManager(kernel_name="python3"); manager.start_kernel(cwd=str(Path(__file__).parent))
    client = manager.client(); client.start_channels()
    try:
        client.wait_for_ready(60)
        cell = f"import tiny; tiny.train_in_run({str(tmp_path)!r}, pause=.2, mark={str(tmp_path/'mark')!r})"
        asked = client.execute(cell)
        wait_for((tmp_path/"mark").exists)
        manager.interrupt_kernel()
        said = reply(client, asked)
        assert said["status"] == "error" and said["ename"] == "KeyboardInterrupt" and "after step 7" in said["evalue"]
        assert Run(run_in(tmp_path)).status == "interrupted"
        status = "aborted"              # what a kernel answers for a moment after an error
        while status == "aborted":
            status = reply(client, client.execute(cell.replace("pause=.2", "pause=0.")))["status"]
        assert status == "ok"
    finally:
        client.stop_channels(); manager.shutdown_kernel(now=True)
    same(run_in(tmp_path), undisturbed)

# in this process, whose main thread alone may set handlers

def test_a_terminal_that_is_closed_is_a_request_unless_one_lives_on():
    "SIGHUP is noted in a training and raised where there is a hint; after `nohup` it is nothing."
    with StopSignals() as stop: signal.raise_signal(signal.SIGHUP)
    assert (stop.name, stop.error("").code) == ("SIGHUP", 129)
    for number in signal.SIGTERM, signal.SIGHUP:
        with pytest.raises(Interrupted, match=f"stopped by {number.name}; go on with the run") as e, going_on("go on with the run"): signal.raise_signal(number)
        assert e.value.code == 128 + number and signal.getsignal(number) is signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop: signal.raise_signal(signal.SIGHUP)
        assert stop.name is None and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally: signal.signal(signal.SIGHUP, before)
