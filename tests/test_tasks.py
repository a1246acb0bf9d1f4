"""Named work as text: whoever does it, and whoever is killed, the folder ends the same, and nobody outlives the one he works for."""
import ast, importlib.metadata, importlib.util, os, random, re, signal, subprocess, sys, time
from functools import partial
from pathlib import Path

import pytest

from tiny import cases
from synthlab.datasets.generate import generate_dataset
from synthlab.experiments import plugins, tasks
from synthlab.experiments.plugins import load_plugin
from synthlab.experiments.runs import Lock, RunLocked
from synthlab.experiments.tasks import Task, command, get_task, run_tasks, submit_files, task_kinds
from synthlab.experiments.blocks import blocks_by_tasks
from synthlab.models.registry import ConfigError

PLUGIN = '''
import os, time
from pathlib import Path
from synthlab.experiments.tasks import register_task

@register_task("count")
def count(folder, name, to, pause):
    "Counts on from where it was; `begun` has a line a process, `done` one a task that was finished. Done twice, it does nothing."
    if Path(folder, f"{name}.done").exists(): return
    at = Path(folder, name)
    with open(Path(folder, f"{name}.begun"), "a") as f: f.write(f"{os.getpid()}\\n")
    for n in range(int(at.read_text()) if at.exists() else 0, int(to)):
        time.sleep(float(pause))
        Path(folder, f".{name}").write_text(str(n + 1)); os.replace(Path(folder, f".{name}"), at)
    with open(Path(folder, f"{name}.done"), "a") as f: f.write("done\\n")

@register_task("die")
def die(folder, name):
    with open(Path(folder, f"{name}.begun"), "a") as f: f.write(f"{os.getpid()}\\n")
    os._exit(7)

@register_task("refuse")
def refuse(folder): raise ValueError("there is\\nno such thing")
'''

@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory):
    path = tmp_path_factory.mktemp("plugin")/"counting_tasks.py"
    path.write_text(PLUGIN)
    load_plugin(path)
    yield path
    plugins._loaded.pop(path.name)                  # the next file's tests run in the same process
    for kind in "count", "die", "refuse": tasks._kinds.pop(kind)

def counts(folder, n=4, to=3, pause=.01): return [Task(f"t{k}", "count", str(folder), (f"n{k}", str(to), str(pause))) for k in range(n)]

def until(condition, seconds=300.):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(.02)

def pids(folder): return [int(p) for f in folder.glob("*.begun") for p in f.read_text().split()]

def alive(pid):
    try: return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError: return False

def finished(folder, n=4, to=3):
    assert [(folder/f"n{k}").read_text() for k in range(n)] == [str(to)]*n
    return [len((folder/f"n{k}.done").read_text().split()) for k in range(n)]

@pytest.mark.parametrize("jobs", [1, 2])
def test_all_is_done_once(jobs, tmp_path, capsys):
    "Here or in other processes: each task once, a line each, the log beside it."
    assert run_tasks(counts(tmp_path, 3), tmp_path, jobs) == {}
    assert finished(tmp_path, 3) == [1]*3 and len(pids(tmp_path)) == 3
    assert len(set(pids(tmp_path))) == (1 if jobs == 1 else 3)
    assert sorted(line.split()[-1] for line in capsys.readouterr().out.splitlines()) == ["t0", "t1", "t2"]

def test_what_fails_says_why_and_the_others_go_on(tmp_path, warm):
    "A refusal is one attempt and a sentence; a death is tried again, three times in all."
    todo = [Task("dies", "die", str(tmp_path), ("d",)), Task("refuses", "refuse", str(tmp_path)), *counts(tmp_path, 1)]
    why = run_tasks(todo, tmp_path, 2, progress=False)
    assert why == dict(dies="its process ended 3 times, the last time with code 7; see dies.txt", refuses="there is no such thing")
    assert len((tmp_path/"d.begun").read_text().split()) == 3 and finished(tmp_path, 1) == [1]
    assert "Traceback" in (tmp_path/"logs/refuses.txt").read_text()
    assert run_tasks([Task("refuses", "count", str(tmp_path), ("n0", "3", "0"))], tmp_path, progress=False) == {}       # an old reason is forgotten

def test_a_kind_that_does_not_exist_is_refused(tmp_path):
    "Before anything is begun, with the name that was meant; by the command line too."
    with pytest.raises(ConfigError, match="did you mean count?"): run_tasks([*counts(tmp_path), Task("x", "cuont", str(tmp_path))], tmp_path/"s")
    assert not list(tmp_path.iterdir())
    for found in (subprocess.run([sys.executable, "-m", "synthlab.experiments.tasks", "varaint", "x"], capture_output=True, text=True),):
        assert found.returncode == 1 and "did you mean variant?" in found.stderr and "Traceback" not in found.stderr
    assert {"variant", "training"} <= set(task_kinds()) and callable(get_task("training"))

def test_a_plug_in_is_loaded_only_when_it_is_given(tmp_path, plugin):
    "The command names the driver's plug-ins; without them the same words are refused."
    words = command(counts(tmp_path, 1)[0])
    assert words[2:4] == ["--plugin", str(plugin)] and all(isinstance(w, str) for w in words)
    assert subprocess.run([sys.executable, *words]).returncode == 0 and finished(tmp_path, 1) == [1]
    bare = [w for w in words if w not in ("--plugin", str(plugin))]
    assert "there is no task 'count'" in subprocess.run([sys.executable, *bare], capture_output=True, text=True).stderr

def test_what_starts_a_task_does_without_torch():
    "Driver, worker of a cluster and task import this module first; torch would cost each of them seconds."
    code = "import sys, synthlab.experiments.tasks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"

def test_one_driver(tmp_path):
    lock = Lock(tmp_path/"lock"); lock.acquire()
    with pytest.raises(RunLocked, match="in use by"): run_tasks(counts(tmp_path), tmp_path)
    lock.release()
    with pytest.raises(ConfigError, match="1 or more"): run_tasks(counts(tmp_path), tmp_path, 0)

def drive(folder, **options):
    "A driver of three slow counts in a process of its own: two that are worked on and one that waits."
    code = ("import sys\nfrom synthlab.experiments.plugins import load_plugin\nfrom synthlab.experiments.tasks import Task, run_tasks\n"
            f"if __name__ == '__main__':\n    load_plugin({str(folder/'counting_tasks.py')!r})\n"
            f"    try: run_tasks({counts(folder, 3, 30, .1)!r}, {str(folder)!r}, 2, hint='go on with it', **{options!r})\n"
            "    except KeyboardInterrupt as e: print(e, file=sys.stderr); sys.exit(130)\n")
    (folder/"counting_tasks.py").write_text(PLUGIN); (folder/"drive.py").write_text(code)
    return subprocess.Popen([sys.executable, str(folder/"drive.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def halfway(folder): return sum(p.read_text() not in ("", "30") for p in folder.glob("n[0-2]")) >= 2

@pytest.mark.parametrize("seed", cases(1, 8))
@pytest.mark.parametrize("victim", ["task", "driver", "Ctrl-C"])
def test_whoever_is_killed_all_is_done_once(victim, seed, tmp_path):
    "A task that dies goes on in another process; a driver that dies takes its tasks along; the next one finishes."
    driver = drive(tmp_path)
    try:
        until(lambda: driver.poll() is not None or halfway(tmp_path))
        assert driver.poll() is None, driver.communicate()
        begun = pids(tmp_path)
        if victim == "task": os.kill(random.Random(seed).choice([p for p in begun if alive(p)]), signal.SIGKILL)
        else: driver.send_signal(signal.SIGKILL if victim == "driver" else signal.SIGINT)
        _, err = driver.communicate(timeout=120)
    finally: driver.kill()
    if victim == "task": assert driver.returncode == 0, err
    else:
        until(lambda: not any(map(alive, pids(tmp_path))), 30)
        assert driver.returncode == (130 if victim == "Ctrl-C" else -9) and ("go on with it" in err) == (victim == "Ctrl-C")
        assert run_tasks([t for t in counts(tmp_path, 3, 30, .001) if not (tmp_path/f"{t.arguments[0]}.done").exists()], tmp_path, progress=False) == {}
    assert finished(tmp_path, 3, 30) == [1]*3

def test_a_store_is_simulated_by_tasks(tmp_path, warm):
    "The blocks of two worlds in two processes: the bytes of one process, and nothing left beside them."
    def files(root): return {p.relative_to(root): p.read_bytes() for p in sorted(Path(root).rglob("*")) if p.is_file() and p.name != "manifest.json"}
    wanted = dict(worlds=["lss", "var"], n=dict(lss=14, var=6), T=6, horizon=5, block=10, progress=False)
    one = generate_dataset(tmp_path/"one", **wanted)
    two = generate_dataset(tmp_path/"two", **wanted, execute=partial(blocks_by_tasks, "block", 2, None))
    assert files(one.root) == files(two.root) and len(files(one.root)) > 8 and one.manifest["config_hash"] == two.manifest["config_hash"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]

# Dask

def test_a_worker_of_a_cluster_is_killed_halfway(tmp_path, warm):
    "Two workers, one killed: what it had left is done by the other, each task is finished once."
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster:
        workers = [w.pid for w in cluster.workers.values()]
        killed = []
        def told(name):
            if not killed: killed.append(workers[0]); os.kill(workers[0], signal.SIGKILL)
            return name
        assert run_tasks(counts(tmp_path, 3, 10, .05), tmp_path, 2, cluster.scheduler_address, False, told) == {}
    assert killed and finished(tmp_path, 3, 10) == [1]*3

@pytest.mark.parametrize("cluster", ["local", "address"])
def test_the_driver_of_a_cluster_is_killed(cluster, tmp_path):
    "Its own workers go with it (they see their parent end: not warm ones, whose parent is another); those of a cluster stop working for it. The next driver finishes."
    distributed = pytest.importorskip("distributed")
    there = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) if cluster == "address" else None
    driver = drive(tmp_path, cluster=there.scheduler_address if there else "local")
    try:
        until(lambda: driver.poll() is not None or halfway(tmp_path))
        assert driver.poll() is None, driver.communicate()
        driver.kill(); driver.communicate()
        until(lambda: not any(map(alive, pids(tmp_path))), 60)
    finally:
        driver.kill()
        if there: there.close()
    left = [t for t in counts(tmp_path, 3, 30, .001) if not (tmp_path/f"{t.arguments[0]}.done").exists()]
    assert left and run_tasks(left, tmp_path, progress=False) == {} and finished(tmp_path, 3, 30) == [1]*3

def test_without_the_packages_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    "The packages by their own names: an extra of ours would be looked for where it is not."
    monkeypatch.setitem(sys.modules, "distributed", None)
    facts = ["torch>=2", 'dask>=9; extra == "cluster"', 'dask-jobqueue>=1; extra == "cluster"', 'onnx; extra == "export"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: facts)
    with pytest.raises(ConfigError) as said: run_tasks(counts(tmp_path), tmp_path, cluster="local")
    assert str(said.value).endswith('python -m pip install "dask>=9" "dask-jobqueue>=1"') and "synthlab[" not in str(said.value)

def test_an_unknown_cluster_is_refused(tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(ConfigError, match="use local, slurm, htcondor, or an address"): run_tasks(counts(tmp_path), tmp_path, cluster="slrum")

@pytest.mark.parametrize("cluster, kind, lines", [
    ("slurm", "SLURMCluster", ["#SBATCH -n 1", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G"]),
    ("htcondor", "HTCondorCluster", ["MY.DaskWorkerCores = 1", "MY.DaskWorkerMemory = 4000000000", "RequestCpus = MY.DaskWorkerCores"])])
def test_the_jobs_that_dask_submits(cluster, kind, lines):
    "One core, one process, four GB, and no more than Dask's own configuration says; Ctrl-C stays what it was."
    if not importlib.util.find_spec("dask_jobqueue"): pytest.skip("dask-jobqueue is not installed")
    before = signal.getsignal(signal.SIGINT)
    jobqueue = tasks.need_jobqueue()
    assert signal.getsignal(signal.SIGINT) is before
    job = getattr(jobqueue, kind).job_cls(scheduler="tcp://host:1", name="w", **tasks.queue_options(cluster))
    script = job.job_script()
    assert "distributed.cli.dask_worker" in script and "--nthreads 1" in script
    for line in lines: assert line in script.splitlines()

# batch systems

def test_the_slurm_file_line_by_line(tmp_path, monkeypatch):
    "As sbatch(1) reads it: options before the first command, an array from 1, SIGTERM to the batch shell before the time is over."
    monkeypatch.chdir(tmp_path)
    files = submit_files("s", ["1_a", "2_b", "3_c"], ["-m", "synthlab", "sweep", "--resume", str(tmp_path/"s")], "lab-run")
    s = tmp_path/"s"
    assert files["slurm"].read_text().splitlines() == [
        "#!/bin/bash", "#SBATCH --job-name=lab-run", "#SBATCH --array=1-3", "#SBATCH --ntasks=1", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=4G",
        "#SBATCH --time=24:00:00", "#SBATCH --requeue", "#SBATCH --open-mode=append", "#SBATCH --signal=B:TERM@120", f"#SBATCH --chdir={tmp_path}",
        f"#SBATCH --output={s}/logs/slurm-%a.txt", "export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
        f'name=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {s}/submit/names.txt)',
        f'exec {sys.executable} -m synthlab sweep --resume {s} --only "$name"']
    assert subprocess.run(["bash", "-n", str(files["slurm"])]).returncode == 0

def test_the_slurm_file_runs_the_right_line(tmp_path):
    "Each number of the array becomes the name on that line, and the job's process is the program itself."
    files = submit_files(tmp_path/"s", ["1_a", "2_b"], ["-c", "import os, sys; print(os.getppid(), sys.argv[1:])"])
    for n, name in (("1", "1_a"), ("2", "2_b")):
        shell = subprocess.Popen(["bash", str(files["slurm"])], env=os.environ | dict(SLURM_ARRAY_TASK_ID=n), stdout=subprocess.PIPE, text=True)
        assert shell.communicate()[0].split(" ", 1) == [str(os.getpid()), f"['--only', '{name}']\n"]

def test_the_htcondor_file_line_by_line(tmp_path, monkeypatch):
    "As condor_submit(1) reads it: `name = value` lines, arguments in double quotes, one job a line of the list at the end."
    monkeypatch.chdir(tmp_path)
    files = submit_files("s", ["1_a", "2_b"], ["-m", "synthlab", "sweep", "--resume", "a b", "it's"], "lab-run")
    s, lines = tmp_path/"s", files["htcondor"].read_text().splitlines()
    assert lines == [
        "universe = vanilla", f"executable = {sys.executable}", "arguments = \"-m synthlab sweep --resume 'a b' 'it''s' --only $(name)\"",
        'environment = "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"', f"initialdir = {tmp_path}",
        f"output = {s}/logs/htcondor-$(name).txt", f"error = {s}/logs/htcondor-$(name).txt", f"log = {s}/logs/htcondor.log", "getenv = True",
        "should_transfer_files = NO", "request_cpus = 1", "request_memory = 4GB", "max_retries = 2", "batch_name = lab-run",
        f"queue name from {s}/submit/names.txt"]
    assert all(re.fullmatch(r"[a-z_]+ = .+", line) for line in lines[:-1]) and files["names"].read_text() == "1_a\n2_b\n"

def test_a_folder_that_batch_systems_misread_is_refused(tmp_path):
    for bad in "two words", "50%", "a$b", "it's":
        with pytest.raises(ConfigError, match="without spaces"): submit_files(tmp_path/bad, ["1"], ["-V"])

def test_nothing_is_pickled_by_us():
    "No module of the house imports pickle or one of its kin; what is sent is a list of words."
    kin = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    for path in Path(tasks.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not kin & {n.partition(".")[0] for n in names}, path
