"Collisions: the same bytes for any number of processes and after a kill, kept, found again, and silent."
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from synthlab.datasets import collisions as colliding
from synthlab.datasets.collisions import Collider, chunk_seed, collision_events, collision_facts, generate_collisions
from synthlab.datasets.collisions import read_collisions, simulate_chunk, store_digest
from synthlab.datasets.events import EventError
from synthlab.datasets.jets import anti_kt
from synthlab.datasets.four_vectors import cartesian
from synthlab.datasets.packages import MissingPackage
from synthlab.datasets.store import MANIFEST, StoreError

pytest.importorskip("pythia8mc", reason="the generator is not here")
pytest.importorskip("fastjet", reason="FastJet is not here")
COUNTS = {"qcd": 24, "top": 8}

@pytest.fixture(scope="module")
def small():
    "Chunks of eight events."
    before, colliding.CHUNK = colliding.CHUNK, 8
    yield
    colliding.CHUNK = before

@pytest.fixture(scope="module")
def root(tmp_path_factory, small): return generate_collisions(COUNTS, root=tmp_path_factory.mktemp("a")/"store", progress=False)

def test_found_again_and_said_in_a_line(root, capsys, monkeypatch):
    monkeypatch.setattr(colliding, "simulate_chunk", lambda *a: pytest.fail("simulated again"))
    assert generate_collisions(COUNTS, root=root) == root
    assert capsys.readouterr().out == "32 collisions are there already: store\n"

def test_stopped_anywhere_nothing_is_lost(root, tmp_path, monkeypatch):
    "Ctrl-C in any chunk: what was done is kept, and the end is the same."
    real, made = simulate_chunk, []
    def stop(process, collider, chunk, n):
        made.append((process, chunk))
        if len(made) == 3: raise KeyboardInterrupt
        return real(process, collider, chunk, n)
    monkeypatch.setattr(colliding, "simulate_chunk", stop)
    with pytest.raises(KeyboardInterrupt, match="16 of 32 events, which are kept"): generate_collisions(COUNTS, root=tmp_path/"b", progress=False)
    assert not (tmp_path/"b").exists()
    generate_collisions(COUNTS, root=tmp_path/"b", progress=False)
    assert made == [("qcd", 0), ("qcd", 1), ("qcd", 2), ("qcd", 2), ("top", 0)]
    assert store_digest(tmp_path/"b") == store_digest(root)

def test_what_is_harmed_alone_is_made_again(root, tmp_path, monkeypatch):
    shutil.copytree(root, tmp_path/"c")
    path = tmp_path/"c"/"qcd"/"objects"/"c"/"1"/"0"/"0"
    path.write_bytes(path.read_bytes()[::-1])
    real, made = simulate_chunk, []
    monkeypatch.setattr(colliding, "simulate_chunk", lambda process, collider, chunk, n: made.append((process, chunk)) or real(process, collider, chunk, n))
    generate_collisions(COUNTS, root=tmp_path/"c", progress=False)
    assert made == [("qcd", 1)] and store_digest(tmp_path/"c") == store_digest(root)

def test_another_version_is_another_store(monkeypatch):
    "What the generator would do differently is never taken for the same."
    before = collision_facts(COUNTS, Collider())["config_hash"]
    for collider in Collider(seed=1), Collider(mpi=True), Collider(tune=21), Collider(smearing=2.), Collider(least_jet_pt=500.):
        assert collision_facts(COUNTS, collider)["config_hash"] != before
    real = colliding.importlib.metadata.version
    for package in "pythia8mc", "fastjet":
        monkeypatch.setattr(colliding.importlib.metadata, "version", lambda name: "0" if name == package else real(name))
        assert collision_facts(COUNTS, Collider())["config_hash"] != before
    assert collision_facts(COUNTS | {"top": 9}, Collider())["config_hash"] != before

def test_another_folder_is_refused(root, tmp_path):
    (tmp_path/"d").mkdir(); (tmp_path/"d"/"thesis.txt").write_text("mine")
    for counts, folder in ((COUNTS, tmp_path/"d"), (COUNTS | {"top": 16}, root)):
        with pytest.raises(StoreError, match="give another"): generate_collisions(counts, root=folder, progress=False)
    assert (tmp_path/"d"/"thesis.txt").read_text() == "mine" and (root/MANIFEST).exists()

def test_seeds_are_those_that_the_generator_takes():
    seeds = {chunk_seed(p, Collider(s), k, what) for p in ("qcd", "top") for s in range(9) for k in range(9) for what in ("collisions", "detector")}
    assert len(seeds) == 2*9*9*2 and 1 <= min(seeds) and max(seeds) < 900_000_000

def test_another_detector_sees_the_same_collisions(small):
    "A perfect one, twice: what the generator made does not depend on what was measured of it."
    perfect, other = (simulate_chunk("top", Collider(smearing=s), 0, 8) for s in (0., .01))
    np.testing.assert_allclose(perfect["jets"][..., 0], other["jets"][..., 0], rtol=.02)

def test_the_second_jet_and_objects(root):
    first, second, objects = read_collisions(root), read_collisions(root, jet=1), read_collisions(root, "objects")
    assert (first.truth["jet_pt"] >= second.truth["jet_pt"]).all() and (first.truth["jet_pt"] >= 450).all()
    assert objects.layout.globals == ("met", "met_phi") and (objects.feature("energy") >= objects.feature("pt")*.999).all()
    share = np.exp(first.feature("log_pt_share").astype(float))*first.mask
    assert (share.sum(1) < 1.3).all() and (share.sum(1) > .9).all()
    parts = collision_events(n=24, n_signal=8, signal="top", background="QCD", root=root, progress=False, tokens=16)
    assert {k: len(v) for k, v in parts.items()} == {"train": 19, "validation": 3, "test": 10} and not parts["train"].label.any()

@pytest.mark.slow
def test_nothing_is_printed(tmp_path):
    "Neither program writes its banner, past Python or through it."
    code = "import numpy as np; from synthlab.datasets.collisions import *; simulate_chunk('resonance', Collider(), 0, 2)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

# of each process: quantiles of the mass of the hardest jet, in GeV, and the bins of 20 GeV in which most of them may lie; median mass of both jets
MASSES = dict(qcd=({.5: 86, .95: 257}, range(0, 600, 20), None), top=({}, (160,), None), resonance=({}, (80, 100, 480, 500), 3400))

@pytest.mark.slow
@pytest.mark.parametrize("process", MASSES)
def test_jets_weigh_what_they_weighed_when_the_generator_was_first_tried(process):
    quantiles, peaks, both = MASSES[process]
    parts = [simulate_chunk(process, Collider(), chunk, 500) for chunk in range(10)]
    mass = np.concatenate([p["jets"][:, 0, 3] for p in parts])
    for share, told in quantiles.items(): assert abs(np.quantile(mass, share)/told - 1) < .05
    counts, bins = np.histogram(mass, np.arange(0, 620, 20))
    assert len(mass) == 5000 and bins[counts.argmax()] in peaks
    if both: assert abs(np.median(np.concatenate([p["event"][:, 2] for p in parts]))/both - 1) < .05

def test_events_without_particles_are_clustered():
    for counts in [0, 0], [0, 2], [2, 0], [1, 1]:
        jets, event, jet = anti_kt(cartesian(np.full(sum(counts), 50.), np.linspace(0, 2, sum(counts)), 0.), np.array(counts), .4)
        assert len(jets) == sum(counts) == len(event) == len(jet) and event.tolist() == np.repeat([0, 1], counts).tolist()

def test_without_the_packages_it_is_said_how_to_get_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    with pytest.raises(MissingPackage, match="pythia8mc"): generate_collisions(COUNTS)

def test_a_setting_that_cannot_be(monkeypatch):
    with pytest.raises(EventError, match="did you mean top"): generate_collisions({"topp": 3})
    with pytest.raises(EventError, match="from 1 on"): generate_collisions({"qcd": 0})
    monkeypatch.setattr(colliding, "PATIENCE", 2)
    with pytest.raises(EventError, match="lower least_jet_pt"): simulate_chunk("qcd", Collider(least_jet_pt=5000.), 0, 2)

KILLED = """
import sys
from synthlab.datasets import collisions as c
c.CHUNK = 8
if __name__ == "__main__":
    c.generate_collisions({"qcd": 24, "top": 8}, root=sys.argv[1], processes=int(sys.argv[2]), progress=False)
"""

@pytest.mark.slow
def test_same_bytes_with_two_processes_and_after_a_kill(root, tmp_path):
    script = tmp_path/"make.py"; script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = lambda where, processes: subprocess.Popen([sys.executable, str(script), str(where), str(processes)], env=env, start_new_session=True)
    assert run(tmp_path/"two", 2).wait() == 0
    assert store_digest(tmp_path/"two") == store_digest(root)
    for processes in 1, 2:
        where = tmp_path/f"killed{processes}"
        process, done = run(where, processes), tmp_path/f".killed{processes}.partial"/"done"
        while len(list(done.glob("*.json"))) < 2 and process.poll() is None: time.sleep(.005)
        os.killpg(process.pid, signal.SIGKILL); process.wait()
        assert not where.exists() or (where/MANIFEST).exists()
        assert run(where, processes).wait() == 0
        assert store_digest(where) == store_digest(root)

@pytest.mark.slow
def test_chunks_made_by_tasks_are_the_same_bytes(tmp_path, monkeypatch):
    "By processes that know a chunk by its name alone, as `synthlab events generate --jobs 2` has them made, and by this one."
    from functools import partial
    from synthlab.experiments.blocks import blocks_by_tasks
    monkeypatch.setattr(colliding, "CHUNK", 250)            # as another process has it
    one = generate_collisions(COUNTS, root=tmp_path/"one", progress=False)
    two = generate_collisions(COUNTS, root=tmp_path/"two", progress=False, execute=partial(blocks_by_tasks, "chunk", 2, None))
    assert store_digest(one) == store_digest(two)
