"""The same conditions everywhere, the long tests first, and what each cost said at the end.

Figures are drawn off screen, a process computes on one thread, and no account of anyone's is used. Run in parallel (`make test`),
the tests of one file stay together on one worker, so that its fixtures are made once: a group. A file can split itself with marks
of its own (`pytest.mark.xdist_group`), as `test_notebooks.py` does for each notebook.

A cost is CPU seconds, of the worker and of the processes it started: it says the same on a busy machine. `costs.json` holds the
costs of groups as they were measured last; groups start in that order, dearest first, and those that it does not know before all.
`make test ARGS=--write-costs` measures them anew, and `--write-promises suite` counts what the suite tries of each promise (`promises.py`).
A long run, of a few tests or of many, adds what it tried of each test to what earlier ones did: `pytest -m "soak or not soak" --write-promises long`."""
import gc, json, math, os, re, sys, threading, time
from collections import Counter
from multiprocessing import forkserver, spawn
from pathlib import Path
os.environ.setdefault("OMP_NUM_THREADS", "1")       # as many workers as cores, so more threads would only take turns
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
os.environ.pop("WANDB_API_KEY", None)               # a test never writes to a tracker's account

import matplotlib, pytest
from luck import draw_from
from promises import COUNTS, PROMISES, function_of, promises_of, read_counts
from tqdm import tqdm
matplotlib.use("agg")
gc.disable()                                        # until all is collected
sys.modules.setdefault("rfc3987_syntax", None)      # grammars for addresses that no notebook has: three seconds of nbformat's import

tqdm.set_lock(threading.RLock())                    # tqdm's own is shared with forks: one that a test kills while it draws a bar would keep it
tqdm.monitor_interval = 0                           # a thread that could hold the lock while a test forks

COSTS = Path(__file__).with_name("costs.json")
SHOWN = 20

def pytest_addoption(parser):
    group = parser.getgroup("costs")
    group.addoption("--write-costs", action="store_true", help="write what each group of this run cost to tests/costs.json")
    group.addoption("--write-promises", choices=["suite", "long"], help="write how many cases of each promise passed to tests/promises.json")
    group.addoption("--only", action="append", metavar="GROUP", help="run these alone, in this order: a file (test_bars) or a notebook (nbs/metrics/00_crps)")
    group.addoption("--luck", type=int, default=0, metavar="N", help="where the global generators stand before each test and each cell of a notebook")
    group.addoption("--until", type=float, metavar="SECONDS", help="skip the tests that have not begun by then, on the clock of `time.monotonic`")

def group(item): return item.get_closest_marker("xdist_group").args[0]

def known(): return json.loads(COSTS.read_text(encoding="utf-8")) if COSTS.exists() else {}

servers = []        # process ids of those that fork for the tests of this process

def forks(pid): return [int(child) for f in Path(f"/proc/{pid}/task").glob("*/children") for child in f.read_text().split()]

def spent():
    "CPU seconds of this process, of the children that it has waited for, of the servers that fork for it and of their forks."
    known = [forkserver._forkserver._forkserver_pid or 0, *servers, *(fork for pid in servers for fork in forks(pid))]
    stats = [stat.read_text() for pid in set(known) if (stat := Path(f"/proc/{pid}/stat")).exists()]
    return sum(os.times()[:4]) + sum(int(n) for s in stats for n in s.rpartition(")")[2].split()[11:15])/os.sysconf("SC_CLK_TCK")

@pytest.fixture(scope="session")
def warm_server():
    import warm
    server = warm.Warm()
    servers.append(server.process.pid)
    yield server
    server.close()

@pytest.fixture
def warm(warm_server, monkeypatch):
    "What this test starts by `sys.executable` or `multiprocessing` has its libraries loaded already."
    monkeypatch.setattr(sys, "executable", str(warm_server.executable))
    before = spawn.get_executable()
    spawn.set_executable(sys.executable)
    yield
    spawn.set_executable(before)

@pytest.fixture(scope="session")
def scoringrules():
    "Its formulas in NumPy: with Numba it would compile each of them on import, four seconds in all."
    with pytest.MonkeyPatch.context() as without:
        without.setitem(sys.modules, "numba", None)
        return pytest.importorskip("scoringrules")

@pytest.fixture(autouse=True, scope="module")
def own_plugins():
    "A plug-in that one file of tests loads is not there for the next: a run writes down all that its process has loaded."
    yield
    if plugins := sys.modules.get("synthlab.experiments.plugins"): plugins._loaded.clear()
    labs = getattr(sys.modules.get("synthlab.experiments.lab"), "_labs", {})
    for name in [n for n, lab in labs.items() if type(lab).__module__.startswith("synthlab_plugin")]: del labs[name]

# where the tests are collected and run: in the workers, or in the one process

def name_groups(items):
    "pytest-xdist 3.8 keeps a group together by the end of its tests' names, but writes it where pytest 9.2 no longer reads."
    for item in items:
        if not item.nodeid.endswith(end := f"@{group(item)}"): item._id = type(item._id).parse(item.nodeid + end)
        if not item.nodeid.endswith(end): raise pytest.UsageError(f"{item.nodeid}: groups are torn apart, and each worker makes their fixtures")

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config, items):
    for item in items:
        if not item.get_closest_marker("xdist_group"): item.add_marker(pytest.mark.xdist_group(item.path.stem))
    if only := config.getoption("only"):
        config.hook.pytest_deselected(items=[i for i in items if group(i) not in only])
        items[:] = sorted((i for i in items if group(i) in only), key=lambda i: only.index(group(i)))
    elif hasattr(config, "workerinput"):
        costs = known()
        items.sort(key=lambda i: -costs.get(group(i), math.inf))
    yield
    if getattr(config.option, "loadgroup", False): name_groups(items)

def pytest_collection_finish():
    "What was imported and collected is never garbage: it is not looked through, then or later, and what is made is looked through more seldom."
    gc.freeze(); gc.enable(); gc.set_threshold(100_000, 50, 50)
    meeting = sys.modules.get("torch.distributed.elastic.rendezvous.dynamic_rendezvous")
    # torch notes which method calls, and looks through the stack, with all modules for each frame of it: a second a launch, among tests
    if meeting: meeting.get_method_name = lambda depth=2: "any"

def pytest_runtest_logstart(): global before; before = spent()

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    until = item.config.getoption("until")
    if until and time.monotonic() > until: pytest.skip("no time left")
    draw_from(item.config.getoption("luck"))

def tried(item):
    "How many cases a test was: as many as it says, as hypothesis has drawn, or one; and its seed, if it has one."
    drawn = re.findall(r"(\d+) passing", str(getattr(item, "hypothesis_statistics", "")))
    told = dict(item.user_properties)
    given = (item.callspec.params if hasattr(item, "callspec") else {}) | told
    return max(1, sum(map(int, drawn)), told.get("tried", 1)), next((given[name] for name in ("seed", "save") if name in given), None)

@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    global before
    report, now = (yield), spent()
    report.tried = tried(item)
    report.cpu, report.group, before = max(now - before, 0), group(item), now      # a server that has ended takes along what it spent
    return report

# where the reports come together: in the controller, or in the one process

by_test, by_group, late, kept = Counter(), Counter(), Counter(), Counter()
long, broken = {}, set()       # of each test: its cases and their seeds; those of which a case failed

def pytest_runtest_logreport(report):
    cost, name = getattr(report, "cpu", 0.), report.nodeid.rpartition("@")[0] or report.nodeid     # a worker that died has counted nothing
    by_test[name] += cost
    by_group[getattr(report, "group", name)] += cost
    if report.skipped and "no time left" in str(report.longrepr): late[report.group] += 1
    if report.failed: broken.add(function_of(report.nodeid))
    if report.when == "call" and report.passed and (keys := promises_of(report.nodeid)):
        for key in keys: kept[key] += report.tried[0]
        long.setdefault(function_of(report.nodeid), []).append(report.tried)

def counted(tries):
    "What a long run says of one test."
    seeds = [seed for _, seed in tries if seed is not None]
    return dict(day=day(), cases=sum(n for n, _ in tries)) | (dict(seeds=[min(seeds), max(seeds)]) if seeds else {})

def day(): return time.strftime("%Y-%m-%d", time.gmtime())

def pytest_terminal_summary(terminalreporter, config):
    if not by_test: return
    for what, costs in ("group", by_group), ("test", by_test):
        terminalreporter.section(f"dearest {what}s, CPU seconds of {sum(costs.values()):.0f}")
        for name, cost in costs.most_common(SHOWN):
            if cost >= .5: terminalreporter.write_line(f"{cost:7.1f}  {name.removeprefix('tests/')}")
    for name, n in late.items(): terminalreporter.write_line(f"out of time: {n} tests of {name}")
    if run := config.getoption("write_promises"):
        told = read_counts()
        if run == "suite": told[run] = dict(day=day(), cases={key: kept[key] for key in PROMISES if kept[key]})
        else: told[run] = dict(sorted((told.get(run, {}) | {name: counted(tries) for name, tries in long.items() if name not in broken}).items()))
        COUNTS.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if config.getoption("write_costs"):
        gone = {name for name in known() if "/" in name and not (COSTS.parent.parent/f"{name}.ipynb").exists()}
        table = Counter({n: c for n, c in known().items() if n not in gone} | {n: round(c, 1) for n, c in by_group.items()})
        COSTS.write_text(json.dumps(dict(table.most_common()), indent=0) + "\n", encoding="utf-8")
