"""Every checking cell of every library notebook and guide is one test.

A notebook runs once, top to bottom, in one live shell; the test of a cell runs what has not run yet up to that cell. Flags
(`skip_exec`, `#| eval: false`, `#| slow`) mean what they mean to `nbdev-test`. Each notebook imports the package anew, so
what one of them defines or registers is not seen by the next; run in parallel, all its cells stay on one worker."""
import os, re, sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import nb_test_cells

from in_process import forget, shell
from luck import draw_from

ROOT = Path(__file__).parent.parent
CONFIG = get_config(ROOT)      # read once: every notebook asks for its flags
NOTEBOOKS = sorted([ROOT/"index.ipynb", *nbglob(CONFIG.nbs_path, as_path=True)])
SKIPPED = CONFIG.tst_flags.split()
CHECK = re.compile(r"^\s*(test_\w+\(|assert\b|for .*: test_\w+\(|with (ExceptionExpected|expect_fail))", re.M)

def name(path): return path.relative_to(ROOT).with_suffix("").as_posix()

@cache
def cells(path: Path) -> list: return nb_test_cells(path, skip_flags=SKIPPED)

def taken():
    "Take the package's modules out of `sys.modules`."
    return {k: sys.modules.pop(k) for k in [k for k in sys.modules if k.startswith("synthlab")] if k.partition(".")[0] == "synthlab"}

class Run:
    "One notebook's live shell with its own copy of the package, and how far it has got."
    def __init__(self, path):
        self.path, self.done, self.failed, self.main, self.modules = path, 0, None, sys.modules["__main__"], {}
        self.shell = shell(path)

    @contextmanager
    def inside(self):
        here, outside = os.getcwd(), taken()
        os.chdir(self.path.parent); sys.modules.update(self.modules)
        try: yield
        finally: self.modules = taken(); sys.modules.update(outside); os.chdir(here)

    def upto(self, n, luck):
        if self.failed is not None: pytest.skip(f"cell {self.failed} failed before this one")
        with self.inside():
            while self.done <= n:
                cell = cells(self.path)[self.done]
                draw_from(luck, self.done)      # each cell anew: alone or after others, it draws the same
                self.shell.run(cell.source)
                if self.shell.exc: self.failed = cell.id; raise self.shell.exc
                self.done += 1

    def close(self):
        "Let go of all that it holds: IPython keeps every shell that there was."
        self.modules = {}
        forget(self.shell, self.main)

live = []

def run(path):
    "A notebook's run. The one before it is over, and what it left would be looked through at every collection of garbage."
    if not live or live[0].path != path:
        while live: live.pop().close()
        live.append(Run(path))
    return live[0]

def checks():
    for path in NOTEBOOKS:
        found = [i for i, c in enumerate(cells(path)) if CHECK.search(c.source)]
        last = len(cells(path)) - 1
        if last >= 0 and last not in found: found.append(last)     # the cells after the last check must run as well
        for i in found: yield pytest.param(path, i, id=f"{name(path)}-{cells(path)[i].id}", marks=pytest.mark.xdist_group(name(path)))

@pytest.mark.parametrize("path,cell", list(checks()))
def test_cell(path, cell, monkeypatch, pytestconfig):
    monkeypatch.setenv("IN_TEST", "1")              # what `nbdev-test` sets: `nbdev_export()` in a notebook does nothing
    run(path).upto(cell, pytestconfig.getoption("luck"))

def test_a_notebook_stays_on_one_worker(request):
    "Torn apart, each worker would run it from its first cell: twice the time. The worker of a test is chosen by the end of its name."
    for item in request.session.items[:200]:
        if hasattr(request.config, "workerinput"): assert item.nodeid.endswith(f"@{item.get_closest_marker('xdist_group').args[0]}")
