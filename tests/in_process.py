"""A report executed by papermill in the process of the test: parameters, cells and outputs as in a kernel, without starting one.

A kernel starts in some four seconds, most of them torch's import. That a report says the same in a kernel of its own is what
`test_labs.py` and the test of equal bits in `test_experiments.py` look at. The file is written when all is over, and figures are
drawn once, with their layout and their words: a kernel's page would lay each out again, draw it and pack the picture."""
import gc, sys

import papermill
from execnb.shell import CaptureShell
from matplotlib.figure import Figure
from nbformat import from_dict
from nbformat.v4.rwbase import rejoin_lines
from papermill.engines import Engine, papermill_engines

def drawn(figure):
    "What is shown of a figure: nothing, after it was drawn."
    figure.canvas.draw()
    return b""

def shell(path=None):
    "A live shell that takes the place of `__main__`, and draws figures once."
    made = CaptureShell(path, profile=False)
    made.display_formatter.formatters["image/png"].for_type(Figure, drawn)
    return made

def forget(live, main):
    "Let go of all that a shell holds. What is there after that is no garbage, and is looked through no more: a quarter of a second a notebook."
    live.displayhook.do_full_cache = False      # or IPython would look for garbage before it lets go
    live.reset(new_session=False); live.close()
    sys.modules["__main__"] = main
    gc.collect(); gc.freeze()

class InProcess(Engine):
    "Cells in a shell of their own, up to the first error."
    @classmethod
    def execute_managed_notebook(cls, manager, kernel_name, **options):
        main = sys.modules["__main__"]      # a shell takes its place
        live, file, manager.output_path = shell(), manager.output_path, None      # it would be written before and after each cell
        for n, cell in enumerate(manager.nb.cells):
            manager.cell_start(cell, n)
            if cell.cell_type == "code": cell.outputs, cell.execution_count = [from_dict(o) for o in live.run(cell.source)], n + 1
            if live.exc: manager.cell_exception(cell, n, exception=live.exc); break
            manager.cell_complete(cell, n)
        rejoin_lines(manager.nb)            # outputs come in lines, as a file keeps them
        manager.output_path = file
        forget(live, main)

papermill_engines.register("in process", InProcess)

def execute(report, folder, **parameters):
    "A report, executed inside a folder that takes the result as `out.ipynb`."
    return papermill.execute_notebook(report, folder/"out.ipynb", parameters, engine_name="in process", cwd=folder, progress_bar=False)
