"""A report executed by papermill in the process of the test: parameters, cells and outputs as in a kernel, without starting one.

A kernel starts in some four seconds, most of them torch's import. That a report says the same in a kernel of its own is what
`test_labs.py` and the test of equal bits in `test_experiments.py` look at."""
import sys

import papermill
from execnb.shell import CaptureShell
from nbformat import from_dict
from nbformat.v4.rwbase import rejoin_lines
from papermill.engines import Engine, papermill_engines

class InProcess(Engine):
    "Cells in a shell of their own, up to the first error."
    @classmethod
    def execute_managed_notebook(cls, manager, kernel_name, **options):
        main = sys.modules["__main__"]      # a shell takes its place
        shell = CaptureShell(profile=False)
        for n, cell in enumerate(manager.nb.cells):
            manager.cell_start(cell, n)
            if cell.cell_type == "code": cell.outputs, cell.execution_count = [from_dict(o) for o in shell.run(cell.source)], n + 1
            if shell.exc: manager.cell_exception(cell, n, exception=shell.exc); break
            manager.cell_complete(cell, n)
        rejoin_lines(manager.nb)            # outputs come in lines, as a file keeps them
        shell.reset(new_session=False); shell.close(); sys.modules["__main__"] = main

papermill_engines.register("in process", InProcess)

def execute(report, folder, **parameters):
    "A report, executed inside a folder that takes the result as `out.ipynb`."
    return papermill.execute_notebook(report, folder/"out.ipynb", parameters, engine_name="in process", cwd=folder, progress_bar=False)
