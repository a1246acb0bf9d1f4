"""Folders that several processes want, and names that people type.

R10 one owner a run, R11 a run stays below its root whatever it is called."""
import importlib.util, itertools, json, os, random, re, shutil, signal, socket, threading, time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from tiny import cases, dies_at, spawner
from synthlab.experiments import runs
from synthlab.experiments.runs import Lock, Run, RunLocked, list_runs

pytestmark = pytest.mark.usefixtures("warm")

# R10

def hold(folder, ready, seconds=60.):
    with Run.open(folder): Path(ready).touch(); time.sleep(seconds)

def hold_with_child(folder, ready):
    "An owner that has a child, as a data loader would be; the child lives on."
    with Run.open(folder):
        if not os.fork(): time.sleep(20); os._exit(0)
        Path(ready).touch(); time.sleep(60)

def owner_of(target, folder, ready):
    child = spawner.Process(target=target, args=(folder, ready), daemon=True); child.start()
    end = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < end and child.is_alive()
        time.sleep(.005)
    return child

@pytest.mark.parametrize("seed", cases(12, 120))
def test_one_owner(seed, tmp_path):
    "The second process is told who the first is; the lock of a dead owner is taken over."
    run = Run.create(tmp_path, "tiny", "lock"); run.close()
    child = owner_of(hold, run.folder, tmp_path/"ready")
    with pytest.raises(RunLocked, match=f"in use by process {child.pid} on .* since"): Run.open(run.folder)
    assert Run(run.folder).status == "running" and run.read_status()["owner"]["pid"] == child.pid
    os.kill(child.pid, random.Random(seed).choice([signal.SIGKILL, signal.SIGTERM])); child.join()
    assert Run(run.folder).status == "interrupted"              # though the file still says running
    with Run.open(run.folder) as again: assert again.read_status()["owner"]["pid"] == os.getpid()
    assert Run(run.folder).status == "done"

@pytest.mark.parametrize("seed", cases(4, 40))
def test_orphans_hold_nothing(seed, tmp_path):
    "A forked child that outlives its parent does not keep the run."
    run = Run.create(tmp_path, "tiny", "lock"); run.close()
    child = owner_of(hold_with_child, run.folder, tmp_path/"ready")
    child.kill(); child.join()
    with Run.open(run.folder): pass

def race(folder, start, results):
    while not os.path.exists(start): pass
    try:
        with Run.open(folder):
            Path(results, f"won-{os.getpid()}").touch()
            end = time.monotonic() + 30
            while len(list(Path(results).glob("lost-*"))) < 3 and time.monotonic() < end: time.sleep(.01)
    except RunLocked: Path(results, f"lost-{os.getpid()}").touch()

@pytest.mark.parametrize("seed", cases(4, 40))
def test_race(seed, tmp_path):
    "Of four processes that open a run at once, one gets it."
    run = Run.create(tmp_path/"runs", "tiny", "race"); run.close()
    children = [spawner.Process(target=race, args=(run.folder, tmp_path/"go", tmp_path)) for _ in range(4)]
    for c in children: c.start()
    (tmp_path/"go").touch()
    for c in children: c.join()
    assert sorted(p.name.split("-")[0] for p in tmp_path.glob("*-*")) == ["lost"]*3 + ["won"]

def owned_by(host, path, age):
    "A lock as a process of some machine leaves it, with a last sign of life so many seconds ago."
    path.write_text(json.dumps(dict(pid=os.getpid(), host=host, started="noon")))
    os.utime(path, (time.time() - age,)*2)
    return path

@pytest.mark.parametrize("age, alive", [(0, True), (11, True), (59, True), (61, False), (1e9, False)])
def test_an_owner_elsewhere_is_judged_by_its_heartbeat(age, alive, tmp_path):
    "Where `flock` does not reach, a minute without a sign of life is a death; on this machine `flock` alone decides."
    run = Run.create(tmp_path, "tiny", "far"); run.close()
    run.set_status("running")
    owned_by("elsewhere", run.folder/"lock", age)
    assert Run(run.folder).status == ("running" if alive else "interrupted")
    if alive:
        with pytest.raises(RunLocked, match=f"process {os.getpid()} on elsewhere since noon"): Run.open(run.folder)
        assert (run.folder/"lock").stat().st_mtime == pytest.approx(time.time() - age, abs=5)      # asking is no sign of life
    owned_by(socket.gethostname(), run.folder/"lock", age)
    with Run.open(run.folder) as again: assert again.lock.owner()["host"] == socket.gethostname()

def test_an_owner_gives_signs_of_life(tmp_path, monkeypatch):
    "While it lives, every few seconds; and when it lets go, none any more, so that another machine need not wait a minute."
    monkeypatch.setattr(runs, "HEARTBEAT", .05)
    monkeypatch.setattr(runs, "_beating", None)
    lock = Lock(tmp_path/"lock"); lock.acquire()
    for _ in range(3):
        os.utime(tmp_path/"lock", (5, 5))
        end = time.monotonic() + 20
        while (tmp_path/"lock").stat().st_mtime == 5:
            assert time.monotonic() < end, "no heartbeat"
            time.sleep(.01)
    lock.release()
    assert (tmp_path/"lock").stat().st_mtime == 0
    time.sleep(.2)
    assert (tmp_path/"lock").stat().st_mtime == 0

def test_signs_of_life_outlive_their_module(tmp_path, monkeypatch):
    "A notebook that defines the module and is over leaves its names empty, and the thread goes on without a word."
    spec = importlib.util.spec_from_file_location("synthlab.experiments.own_runs", runs.__file__)
    own, failed = importlib.util.module_from_spec(spec), []
    spec.loader.exec_module(own)
    monkeypatch.setattr(own, "HEARTBEAT", .01)
    monkeypatch.setattr(threading, "excepthook", lambda said: failed.append(said.exc_value))
    lock = own.Lock(tmp_path/"lock"); lock.acquire()
    names, beating = dict(vars(own)), own._beating
    vars(own).clear()
    time.sleep(.05)
    alive = beating.is_alive()
    vars(own).update(names)                 # a fork of this process still asks for them
    lock.release()
    own._beats.acquire()                    # it rests from now on
    assert alive and not failed

def test_a_forked_child_is_no_owner(tmp_path):
    "It closes the file, and neither lets the run go nor keeps it alive."
    lock = Lock(tmp_path/"lock"); lock.acquire()
    if not (child := os.fork()): os._exit(0 if lock.handle is None and Lock(tmp_path/"lock").held() else 1)
    assert os.waitpid(child, 0)[1] == 0 and (tmp_path/"lock").stat().st_mtime > 0
    lock.release()

def test_same_second(tmp_path):
    "Runs that begin in the same second get folders of their own."
    runs = [Run.create(tmp_path, "tiny", "twin") for _ in range(5)]
    assert len({r.folder for r in runs}) == 5
    for r in runs: r.close()
    assert list_runs(tmp_path).status.tolist() == ["done"]*5

# a run's folder appears whole

@pytest.mark.parametrize("folder", [None, "mine"])
def test_killed_at_any_call_while_it_is_made(folder, tmp_path):
    "There is a run or there is none: never half of one, and the same line makes it or finds it whole."
    for n in itertools.count():
        root = tmp_path/str(n)
        killed = dies_at(n, lambda: Run.create(root, "tiny", "x", "rows: 2\n", folder=folder and root/folder))
        there = [p for p in root.glob("[!.]*")]
        assert [p.as_posix() for p in there] == list(list_runs(root)["folder"]) and len(there) <= 1
        for path in there:
            with Run.open(path) as run: assert run.config() == "rows: 2\n" and run.read_status()["lab"] == "tiny"
        if not there: Run.create(root, "tiny", "x", "rows: 2\n", folder=folder and root/folder).close()
        if folder: assert not list(root.glob(".*"))
        if not killed: break
    assert n > 25 and len(there) == 1 and not list(root.glob(".*"))

def test_a_failure_while_it_is_made_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data): raise OSError(28, "No space left on device")
    monkeypatch.setattr(runs, "atomic_write", full)
    with pytest.raises(OSError, match="No space"): Run.create(tmp_path, "tiny", "x")
    assert not list(tmp_path.iterdir())

def test_two_may_not_begin_the_same_folder(tmp_path):
    "Who comes second is told, whether the first has its name already or gets it in between."
    with Run.create(tmp_path, "tiny", "x", folder=tmp_path/"mine"):
        with pytest.raises(FileExistsError, match="go on with it: synthlab resume"): Run.create(tmp_path, "tiny", "x", folder=tmp_path/"mine")
        begun = tmp_path/"other"; begun.mkdir(); (begun/"status.json").touch()
        with pytest.raises(FileExistsError, match="go on with it: synthlab resume"): runs.name_folder(begun, tmp_path, "", tmp_path/"mine")

def test_two_begin_the_same_folder_in_the_same_instant(tmp_path, monkeypatch):
    "Who has not locked its folder yet loses it to the other, and is told."
    real = runs.make_cradle
    def slow(*place):
        made = real(*place)
        monkeypatch.setattr(runs, "make_cradle", real)
        begun.append(Run.create(tmp_path, "tiny", "x", folder=tmp_path/"mine"))
        return made
    begun = []
    monkeypatch.setattr(runs, "make_cradle", slow)
    with pytest.raises(FileExistsError, match="is being made by another process"): Run.create(tmp_path, "tiny", "x", folder=tmp_path/"mine")
    begun[0].close()
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]

# R11

NASTY = ["../x", "/etc/passwd", "a\0b", "x"*300, "..", ".", "", "~", "a/../../b", "con:", "x\ny", "-rf", "𝕏", "é", "%2e%2e%2f", "$(id)", "a\\b"]

NAMES = st.one_of(st.sampled_from(NASTY), st.text(max_size=400), st.from_regex(r"[./\\~\x00a-z-]{1,40}", fullmatch=True))

def contained(root, name):
    "Refused, or a folder directly below the root whose name any shell and system takes."
    try: run = Run.create(root, "tiny", name)
    except ValueError as error: assert "try 'baseline'" in str(error); return
    run.close()
    assert run.folder.resolve().parent == root.resolve() and re.fullmatch(r"\d{8}-\d{6}_tiny_[A-Za-z0-9_.-]+", run.folder.name)
    assert len(run.folder.name) <= 100 and json.loads((run.folder/"status.json").read_text())["name"] == name
    shutil.rmtree(run.folder)

@settings(max_examples=200, deadline=None, derandomize=True)
@given(NAMES)
def test_names_are_contained(tmp_path_factory, name): contained(tmp_path_factory.getbasetemp()/"names", name)

@pytest.mark.soak
@settings(max_examples=10_000, deadline=None, derandomize=True)
@given(NAMES)
def test_many_names_are_contained(tmp_path_factory, name): contained(tmp_path_factory.getbasetemp()/"names", name)

@pytest.mark.parametrize("lab", ["../x", "a/b", "\0x"])
def test_lab_is_contained(lab, tmp_path):
    with Run.create(tmp_path, lab, "x") as run: assert run.folder.parent == tmp_path
