"""Every checking cell of every library notebook and guide is one test.

A notebook runs once, top to bottom, in one live shell; the test of a cell runs what has not run yet up to that cell. Flags
(`skip_exec`, `#| eval: false`, `#| slow`) mean what they mean to `nbdev-test`. Each notebook imports the package anew, so
what one of them defines or registers is not seen by the next; run in parallel, all its cells stay on one worker."""
import os, re, sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from execnb.shell import CaptureShell
from matplotlib.figure import Figure
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import nb_test_cells

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted([ROOT/"index.ipynb", *nbglob(get_config(ROOT).nbs_path, as_path=True)])
CHECK = re.compile(r"^\s*(test_\w+\(|assert\b|for .*: test_\w+\(|with (ExceptionExpected|expect_fail))", re.M)

def name(path): return path.relative_to(ROOT).with_suffix("").as_posix()

@cache
def cells(path: Path) -> list: return nb_test_cells(path, skip_flags=get_config(ROOT).tst_flags.split())

def taken():
    "Take the package's modules out of `sys.modules`."
    return {k: sys.modules.pop(k) for k in list(sys.modules) if k.split(".")[0] == "synthlab"}

def drawn(figure):
    "A figure is drawn once, with its layout and its words; a page would lay it out and draw it again, and pack the picture."
    figure.canvas.draw()
    return b""

class Run:
    "One notebook's live shell with its own copy of the package, and how far it has got."
    def __init__(self, path):
        self.path, self.done, self.failed, self.main, self.modules = path, 0, None, sys.modules["__main__"], {}
        self.shell = CaptureShell(path, profile=False)      # takes the place of `__main__`
        self.shell.display_formatter.formatters["image/png"].for_type(Figure, drawn)

    @contextmanager
    def inside(self):
        here, outside = os.getcwd(), taken()
        os.chdir(self.path.parent); sys.modules.update(self.modules)
        try: yield
        finally: self.modules = taken(); sys.modules.update(outside); os.chdir(here)

    def upto(self, n):
        if self.failed is not None: pytest.skip(f"cell {self.failed} failed before this one")
        with self.inside():
            while self.done <= n:
                cell = cells(self.path)[self.done]
                self.shell.run(cell.source)
                if self.shell.exc: self.failed = cell.id; raise self.shell.exc
                self.done += 1

    def close(self):
        "Let go of all that it holds: IPython keeps every shell that there was."
        self.shell.reset(new_session=False); self.shell.close(); self.modules = {}
        sys.modules["__main__"] = self.main

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
def test_cell(path, cell, monkeypatch):
    monkeypatch.setenv("IN_TEST", "1")              # what `nbdev-test` sets: `nbdev_export()` in a notebook does nothing
    run(path).upto(cell)
