"""The same conditions everywhere: figures off screen, one thread a process, no account of anyone's.

Run in parallel (`make test`), the tests of one file stay together on one worker, so that its fixtures are made once; a
file can split itself with marks of its own (`pytest.mark.xdist_group`), as `test_notebooks.py` does for each notebook."""
import os
os.environ.setdefault("OMP_NUM_THREADS", "1")       # as many workers as cores, so more threads would only take turns
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
os.environ.pop("WANDB_API_KEY", None)               # a test never writes to a tracker's account

import matplotlib, pytest
matplotlib.use("agg")

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if not item.get_closest_marker("xdist_group"): item.add_marker(pytest.mark.xdist_group(item.path.stem))
