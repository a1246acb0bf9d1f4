"""A store is whole or refused, whoever writes it, reads it, kills it or harms it.

R16 a store with a flipped bit, a missing or superfluous file, another manifest, half of it; R17 eight readers at once; R18 a reader while it is written
again. And a data set that is interrupted anywhere ends with the bytes of one that was left alone. `-m soak` runs the long counts; a case's number is its seed."""
import copy as copying
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import zarr
from matplotlib.colors import same_color
from scipy.io import netcdf_file

import synthlab.datasets.generate as generating
import synthlab.datasets.store as storing
from synthlab.datasets.generate import Plan, compute_block, generate_dataset
from synthlab.datasets.store import (ARRAYS, MANIFEST, ResponseStore, StoreError, array_shapes, create_arrays, files_in, open_store, publish, read_manifest,
    seal, verify_store, write_json)
from synthlab.datasets.named_arrays import Responses
from synthlab.datasets.packages import MissingPackage
from synthlab.datasets.response_batches import load_split
from synthlab.datasets.world import Parameters, StateSpace, World
from synthlab.datasets.worlds import get_world
from synthlab.models.specialists import OracleBaseline

def cases(few, many):
    "Seeds: a few always, many with `-m soak`."
    return [*range(few), *(pytest.param(i, marks=pytest.mark.soak) for i in range(few, many))]

SMALL = dict(worlds=["lss", "var"], n={"lss": 47, "var": 30}, T=12, horizon=10, block=10, progress=False)       # eight blocks
forked = multiprocessing.get_context("fork")

class Decay(World):
    "A shock that fades; with a fault at one draw, if asked."
    name, shocks, parameters = "decay", ("push",), Parameters(("rho", "sd"), (.1, .01), (.9, .02), (.5, .01))
    fault = None
    def shock_sd(self, theta): return theta[:, 1:]
    def solve(self, theta):
        share = theta.new_tensor([1., .5, .25])[:, None].expand(len(theta), 3, 1)
        return StateSpace(theta[:, :1, None], torch.ones_like(theta[:, :1, None]), share)

@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return generate_dataset(tmp_path_factory.mktemp("stores")/"whole", **SMALL).root

@pytest.fixture
def copy(root, tmp_path): return Path(shutil.copytree(root, tmp_path/"copy"))

def contents(store):
    "Everything that can be read."
    store = store if isinstance(store, ResponseStore) else open_store(store)
    arrays = {(w, k): store.read(w, k).tobytes() for w in store.worlds for k in ARRAYS}
    return arrays | {w: {k: v.tolist() for k, v in store.splits(w).items()} for w in store.worlds}

def same_bytes(one, other):
    "All files alike; the manifests too, but for the time."
    assert files_in(one) == files_in(other)
    for name in files_in(one): assert (Path(one)/name).read_bytes() == (Path(other)/name).read_bytes(), name
    a, b = ({k: v for k, v in read_manifest(p).items() if k not in ("created_at", "sha256")} for p in (one, other))
    assert a == b

# --- what is written -------------------------------------------------------------------------------------------------------

def test_layout(root):
    "Folders, shapes, types and the manifest as documented; Zarr itself reads the same numbers."
    store = open_store(root, verify="full")
    assert sorted(p.name for p in root.iterdir()) == ["lss", "manifest.json", "var", "zarr.json"] and store.worlds == ["lss", "var"]
    coords = ["default", "draw", "horizon", "lower", "parameter", "shock", "split", "time", "unit", "upper", "variable"]
    assert sorted(p.name for p in (root/"lss").iterdir()) == sorted([*ARRAYS, *coords, "splits.json", "zarr.json"])
    want = {"theta": ((47, 36), "float64"), "irfs": ((47, 2, 11, 3), "float32"), "shocks": ((47, 12, 2), "float32"), "trajectories": ((47, 12, 3), "float32")}
    for name, (shape, dtype) in want.items():
        array, mine = zarr.open_array(root/"lss"/name, mode="r"), store.read("lss", name)
        assert (mine.shape, str(mine.dtype)) == (shape, dtype) == (array.shape, str(array.dtype)) and array.metadata.zarr_format == 3
        assert mine.tobytes() == np.asarray(array[:]).tobytes()
        assert array.shards[0] == 10 and '"checksum": true' in (root/"lss"/name/"zarr.json").read_text()
        for a, b in ((0, 1), (9, 11), (4, 33), (46, 47), (5, 5), (-7, None)): assert np.array_equal(store.read("lss", name, a, b), mine[a:b])
    manifest = store.manifest
    assert manifest["version"] == "1.1.0" and manifest["seeds"]["global"] == 42 and manifest["created_at"].endswith("+00:00")
    assert manifest["worlds"]["var"]["shocks"]["names"] == ["shock_0", "shock_1", "shock_2"] and manifest["worlds"]["var"]["n"] == 30
    assert manifest["worlds"]["lss"]["parameters"]["lower"][0] == -.95 and len(manifest["worlds"]["lss"]["config_hash"]) == 16
    assert set(manifest["files"]) == set(files_in(root)) and not [f for f in files_in(root) if "tmp" in f or "partial" in f]

def test_numbers_are_those_of_the_world(root):
    store = open_store(root)
    for name in store.worlds:
        world = get_world(name)
        theta = world.sample(store.info(name)["n"], seed=42)
        assert np.array_equal(store.read(name, "theta"), theta.numpy())
        np.testing.assert_allclose(store.read(name, "irfs"), world.impulse_responses(theta, 10).numpy(), rtol=1e-5, atol=1e-7)
        shocks = torch.from_numpy(store.read(name, "shocks")).double()
        np.testing.assert_allclose(store.read(name, "trajectories"), world.simulate(theta, shocks).observables.numpy(), rtol=1e-5, atol=1e-6)
        assert abs(shocks.mean()) < .1 and abs(shocks.std() - 1) < .1

@pytest.mark.parametrize("name", ["nk", "rbc", "switching", "zlb"])
def test_a_block_of_every_world(name):
    "Finite, in its shapes, and the same a second time."
    world = get_world(name)
    one, two = (compute_block(world, Plan(7, 9, 6, 4), 4, 8) for _ in range(2))
    S = len(world.shocks)
    assert {k: v.shape for k, v in one.items()} == {"theta": (4, len(world.parameters)), "irfs": (4, S, 7, 3), "shocks": (4, 9, S), "trajectories": (4, 9, 3)}
    assert all(np.isfinite(v).all() and v.tobytes() == two[k].tobytes() for k, v in one.items())
    again = world.simulate(one["theta"], torch.from_numpy(one["shocks"]).double()).observables.float().numpy()
    assert np.array_equal(again, one["trajectories"])                   # the stored shocks give the stored trajectories

def test_bytes_do_not_depend_on_the_order_of_blocks(root, tmp_path, monkeypatch):
    real = generating.do_all
    monkeypatch.setattr(generating, "do_all", lambda folder, worlds, plan, todo, processes, do: real(folder, worlds, plan, random.Random(0).sample(todo, len(todo)), 1, do))
    same_bytes(root, generate_dataset(tmp_path/"other", **SMALL).root)

def test_blocks_are_done_by_name(root, tmp_path):
    "Told as text to other processes, in any order and some twice, the bytes are the same; another world than the plan's is refused."
    def execute(folder, blocks, tell):
        for name in random.Random(0).sample(blocks, len(blocks)):
            generating.do_named(str(folder), *name); generating.do_named(str(folder), *name); tell(name)
        plan = json.loads((folder/"plan.json").read_text())
        plan["worlds"]["lss"]["config_hash"] = "0"
        (folder/"other").mkdir(); (folder/"other"/"plan.json").write_text(json.dumps(plan))
        with pytest.raises(StoreError, match="is another here"): generating.do_named(str(folder/"other"), "lss", "0")
    same_bytes(root, generate_dataset(tmp_path/"named", **SMALL, execute=execute).root)

def test_more_draws_begin_with_the_same(root, tmp_path):
    "To the bit in whole blocks; the parts they are in stay."
    more = generate_dataset(tmp_path/"more", **{**SMALL, "n": {"lss": 60, "var": 35}})
    old = open_store(root)
    for name, k in ARRAYS and [(w, k) for w in old.worlds for k in ARRAYS]: assert np.array_equal(more.read(name, k, 0, 30), old.read(name, k, 0, 30))
    for part, rows in old.splits("lss").items(): assert set(rows) <= set(more.splits("lss")[part])

def test_seeds_and_options_are_another_data_set(tmp_path):
    base = dict(worlds=["switching"], n=6, T=5, horizon=6, progress=False)
    stores = [generate_dataset(tmp_path/str(i), **base, **more) for i, more in enumerate(({}, {"seed": 43}, {"world_options": {"switching": {"start": 0}}}))]
    hashes = [s.info("switching")["config_hash"] for s in stores]
    assert len({s.manifest["config_hash"] for s in stores}) == 3 and hashes[2] not in hashes[:2]
    assert stores[2].info("switching")["options"] == {"start": 0}
    assert not np.array_equal(stores[0].read("switching", "irfs"), stores[2].read("switching", "irfs")) and np.array_equal(stores[0].read("switching", "theta"), stores[2].read("switching", "theta"))

# --- R16 -------------------------------------------------------------------------------------------------------------------

FAULTS = "flipped bit", "missing file", "extra file", "stale manifest", "half-written"

@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    "The manifest of the same worlds with another seed."
    return generate_dataset(tmp_path_factory.mktemp("elsewhere")/"other", **SMALL, seed=1).root

@pytest.mark.parametrize("seed", cases(50, 1100))
def test_a_harmed_store(seed, copy, root, elsewhere):
    "A full check refuses it and names a file; who only reads gets an error or the right numbers, never others."
    draw, fault = random.Random(seed), FAULTS[seed % len(FAULTS)]
    files = [copy/f for f in [*files_in(copy), MANIFEST]]
    victim = draw.choice(files)
    if fault == "flipped bit":
        data = bytearray(victim.read_bytes()); data[draw.randrange(len(data))] ^= 1 << draw.randrange(8); victim.write_bytes(data)
    elif fault == "missing file": victim.unlink()
    elif fault == "extra file": (draw.choice(files).parent/draw.choice(["99", ".x.tmp", "zarr.json.bak"])).write_bytes(b"x"*draw.randrange(9))
    elif fault == "stale manifest": shutil.copy(elsewhere/MANIFEST, copy)
    else:
        for path in files[draw.randrange(len(files)):]: path.write_bytes(path.read_bytes()[:-1 - draw.randrange(path.stat().st_size)])
    with pytest.raises((StoreError, FileNotFoundError), match=str(copy)): verify_store(copy)
    for verify in ("none", "size"):
        try: found = contents(ResponseStore(copy, verify))
        except (StoreError, FileNotFoundError): continue
        want = contents(root)
        assert all(found[k] == want[k] for k in want if isinstance(k, tuple)) and set(found) == set(want)
        assert verify == "none" or fault == "flipped bit" and found == want
    verify_store(root)

@pytest.mark.parametrize("name,what", [("irfs", "missing"), ("irfs", "cut"), ("theta", "flipped"), ("trajectories", "grown"), ("shocks", "emptied")])
def test_harm_after_opening(name, what, copy):
    "Also a shard that is harmed while the store is open is refused by name; the others are still read."
    store = open_store(copy)
    path = storing.shard_file(copy/"lss", name, 2, len(store.info("lss")["shapes"][name]) + 1)
    data = bytearray(path.read_bytes())
    if what == "missing": path.unlink()
    elif what == "flipped": data[len(data)//2] ^= 8; path.write_bytes(data)
    else: path.write_bytes({"cut": data[:-9], "grown": data + b"\0"*7, "emptied": b""}[what])
    with pytest.raises(StoreError, match=f"{name}/c/2.*(is missing|has \\d+ bytes|is not what was written)") as error: store.read("lss", name, 15, 35)
    assert error.value.path == str(path)
    assert len(store.read("lss", name, 0, 20)) == 20

def test_an_index_that_lies(copy):
    "Chunks exchanged in the index of a shard: refused by a full check, and by the sums of lengths if one is changed."
    path = storing.shard_file(copy/"lss", "irfs", 0, 4)
    data, size = path.read_bytes(), path.stat().st_size
    table = np.frombuffer(data[-36:-4], "<u8").reshape(2, 2)
    assert storing.shard_index(data[-36:], size, 2) == [tuple(map(int, r)) for r in table]
    for k in range(256):
        bad = bytearray(data[-36:]); bad[k//8] ^= 1 << k % 8
        with pytest.raises(ValueError, match="its index is damaged"): storing.shard_index(bytes(bad), size, 2)

def test_another_layout(copy):
    manifest = read_manifest(copy) | {"version": "2.1.0"}
    manifest.pop("sha256")
    manifest["sha256"] = storing.hashlib.sha256(storing.canonical(manifest).encode()).hexdigest()
    write_json(copy/MANIFEST, manifest)
    with pytest.raises(StoreError, match="layout 2.1.0, this program reads 1.1.0"): open_store(copy)

def test_no_store(tmp_path, root):
    with pytest.raises(FileNotFoundError, match="there is no store at .*make one with generate_dataset"): open_store(tmp_path/"nothing")
    (tmp_path/"list").mkdir(); (tmp_path/"list"/MANIFEST).write_text("[1]")
    with pytest.raises(StoreError, match="no manifest of a store"): open_store(tmp_path/"list")
    with pytest.raises(ValueError, match="there is no check 'all'; use none, size, full"): open_store(root, verify="all")
    with pytest.raises(StoreError, match="no array 'irf'; did you mean irfs"): open_store(root).read("lss", "irf")

# --- R17 -------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("seed", cases(4, 200))
def test_eight_readers(seed, root, warm):
    "Eight processes, forked or spawned, read one open store at once: equal bytes, no hang."
    store, method = open_store(root), ("fork", "fork", "fork", "spawn")[seed % 4]
    want = store.read("lss", "irfs").tobytes()                  # read here first, so that a fork inherits whatever reading leaves behind
    zarr.open_array(root/"lss"/"irfs", mode="r")[:]
    pool = ProcessPoolExecutor(8, multiprocessing.get_context(method))
    try:
        for found in [pool.submit(store.read, "lss", "irfs") for _ in range(8)]: assert found.result(timeout=150).tobytes() == want
        with pytest.raises(StoreError, match="no world 'lsd'"): pool.submit(store.read, "lsd", "irfs").result(timeout=150)
    finally: pool.shutdown(cancel_futures=True)

# --- R18 -------------------------------------------------------------------------------------------------------------------

def write_number(part, value, n=20):
    "A store of one world in which every number is the same."
    shapes = array_shapes(2, 1, 6, 4)
    create_arrays(part/"one", n, 4, shapes)
    for name in ARRAYS: zarr.open_array(part/"one"/name, mode="r+")[:] = value
    write_json(part/"one"/"splits.json", {"train": list(range(n))})
    seal(part, {"worlds": {"one": {"n": n, "shapes": {k: list(v[0]) for k, v in shapes.items()}}}, "block": 4, "value": value})

@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    for value in range(6): write_number(folder/str(value), value)
    return folder

def publish_all(folder, root, pause):
    for value in range(1, 6):
        time.sleep(pause)
        publish(folder/str(value), root)

@pytest.mark.parametrize("seed", cases(10, 200))
def test_read_during_write(seed, numbers, tmp_path, monkeypatch):
    "Opening always succeeds; what is read is one version, whole, or an error that says why. With and without an atomic exchange."
    if seed % 2: monkeypatch.setattr(storing, "exchange", lambda one, other: False)
    shutil.copytree(numbers, tmp_path/"parts")
    root = tmp_path/"store"
    publish(tmp_path/"parts"/"0", root)
    writer = forked.Process(target=publish_all, args=(tmp_path/"parts", root, random.Random(seed).uniform(.004, .03)), daemon=True)
    writer.start()
    seen, refused = [], 0
    while not seen or seen[-1] != 5:
        store = open_store(root, verify=("size", "full", "none")[len(seen) % 3])
        try:
            for name in ARRAYS:
                values = store.read("one", name)
                assert (values == store.manifest["value"]).all(), (store.manifest["value"], np.unique(values))
            store.splits("one")
        except StoreError as error:
            assert "written again while it was read; open it again" in str(error)
            refused += 1; continue
        seen.append(store.manifest["value"])
        assert writer.is_alive() or writer.exitcode == 0
    writer.join()
    assert seen == sorted(seen) and sorted(p.name for p in tmp_path.iterdir()) == ["parts", "store"] and not any((tmp_path/"parts").iterdir())

def test_an_old_reader_hears_of_it(numbers, tmp_path):
    shutil.copytree(numbers, tmp_path/"parts")
    root = tmp_path/"store"
    publish(tmp_path/"parts"/"0", root)
    store = open_store(root)
    publish(tmp_path/"parts"/"1", root)
    for run in (lambda: store.read("one", "irfs"), lambda: store.splits("one")):
        with pytest.raises(StoreError, match="written again while it was read; open it again"): run()
    shutil.rmtree(root)
    with pytest.raises(StoreError, match="written again"): store.read("one", "irfs")

# --- interrupted -----------------------------------------------------------------------------------------------------------

def run(root, **options): generate_dataset(root, **{**SMALL, **options})

@pytest.mark.parametrize("seed", cases(6, 100))
def test_killed_at_any_instant(seed, root, tmp_path, monkeypatch):
    "Killed one to three times, a data set ends with the bytes of one that was left alone, and nothing lies beside it."
    draw, to = random.Random(seed), tmp_path/"store"
    for kill in range(draw.randint(1, 3)):
        child = forked.Process(target=run, args=(to,)); child.start()
        time.sleep(draw.random()*.35)
        child.kill(); child.join()
        assert not to.exists() or verify_store(to)                      # whole or not there
    run(to)
    same_bytes(root, to)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left in (["store"], [".store.partial", "store"])             # killed after the last rename: swept by the next data set
    if len(left) > 1: run(to, overwrite=True); assert [p.name for p in tmp_path.iterdir()] == ["store"]

def test_what_is_done_is_not_done_again(root, tmp_path, monkeypatch):
    "Ctrl-C in the fourth block: the sentence says how to go on, and five blocks are left; a part that was harmed meanwhile is made again."
    real, made = generating.compute_block, []
    def count(world, plan, start, stop):
        if len(made) == 3: raise KeyboardInterrupt
        made.append((world.name, start)); return real(world, plan, start, stop)
    monkeypatch.setattr(generating, "compute_block", count)
    with pytest.raises(KeyboardInterrupt, match="stopped after 30 of 77 draws, which are kept; call generate_dataset with the same arguments to go on"): run(tmp_path/"store")
    assert made == [("lss", 0), ("lss", 10), ("lss", 20)] and [p.name for p in tmp_path.iterdir()] == [".store.partial"]
    shard = storing.shard_file(tmp_path/".store.partial"/"store"/"lss", "irfs", 1, 4)
    data = bytearray(shard.read_bytes()); data[50] ^= 1; shard.write_bytes(data)
    (tmp_path/".store.partial"/"store"/"lss"/".left-behind.tmp").write_text("half")
    made.clear()
    monkeypatch.setattr(generating, "compute_block", lambda world, plan, start, stop: made.append((world.name, start)) or real(world, plan, start, stop))
    run(tmp_path/"store")
    assert made == [("lss", 10), ("lss", 30), ("lss", 40), ("var", 0), ("var", 10), ("var", 20)]
    same_bytes(root, tmp_path/"store")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]

SCRIPT = """
import sys
from synthlab.datasets.generate import generate_dataset
if __name__ == "__main__": generate_dataset(sys.argv[1], ["lss", "var"], n={"lss": 47, "var": 30}, T=12, horizon=10, block=10, progress=False, processes=2)
"""

def children_of(pid):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try: parts = stat.read_text().rsplit(")", 1)[1].split()
        except OSError: continue
        if int(parts[1]) == pid: found.append(int(stat.parent.name))
    return found

@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are counted in /proc")
@pytest.mark.parametrize("signalled", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_two_processes_are_stopped(signalled, root, tmp_path):
    "Two workers: when their parent is killed they end too, and another call goes on to the same bytes."
    script = tmp_path/"make.py"; script.write_text(SCRIPT)
    to, notes = tmp_path/"stores"/"store", tmp_path/"stores"/".store.partial"/"done"
    parent = subprocess.Popen([sys.executable, script, to], start_new_session=True, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 150
    while not (notes.exists() and any(notes.iterdir())) and not to.exists():
        assert time.monotonic() < end and parent.poll() is None
        time.sleep(.005)
    workers = children_of(parent.pid)
    os.killpg(parent.pid, signalled) if signalled == signal.SIGINT else parent.kill()
    said = parent.communicate(timeout=60)[1]
    assert signalled == signal.SIGKILL or to.exists() or "call generate_dataset with the same arguments to go on" in said
    while any(Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z" for pid in workers):
        assert time.monotonic() < end
        time.sleep(.01)
    run(to)
    same_bytes(root, to)

# --- what is there already -------------------------------------------------------------------------------------------------

def test_an_existing_store_is_kept(root, tmp_path):
    to = Path(shutil.copytree(root, tmp_path/"store"))
    before = (to/MANIFEST).stat().st_mtime_ns
    run(to)                                                             # the same configuration: nothing to do
    assert (to/MANIFEST).stat().st_mtime_ns == before
    with pytest.raises(StoreError, match="a store of another configuration is here; give another folder, or overwrite=True"): run(to, seed=1)
    assert contents(to) == contents(root)
    run(to, seed=1, overwrite=True)
    assert read_manifest(to)["seeds"]["global"] == 1 and [p.name for p in tmp_path.iterdir()] == ["store"]
    (tmp_path/"thesis").mkdir(); (tmp_path/"thesis"/"text").write_text("…")
    with pytest.raises(StoreError, match="holds something else than a store"): run(tmp_path/"thesis", overwrite=True)
    (tmp_path/"empty").mkdir()
    run(tmp_path/"empty")

def blocks_computed(monkeypatch):
    "Which blocks are computed from now on."
    done, real = [], generating.compute_block
    def counted(world, plan, start, stop): done.append((world.name, start, stop)); return real(world, plan, start, stop)
    monkeypatch.setattr(generating, "compute_block", counted)
    return done

@pytest.mark.parametrize("harm", ("missing", "cut", "flipped"))
def test_a_harmed_block_alone_is_made_again(harm, root, tmp_path, monkeypatch):
    to = Path(shutil.copytree(root, tmp_path/"store"))
    path, done = storing.shard_file(to/"lss", "irfs", 1, 4), blocks_computed(monkeypatch)
    whole = path.read_bytes()
    if harm == "missing": path.unlink()
    elif harm == "cut": path.write_bytes(whole[:-7])
    else: path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    run(to)
    assert len(done) == 1 and done[0][0] == "lss" and done[0][1] == SMALL["block"]
    same_bytes(root, to)
    run(to)
    assert len(done) == 1 and [p.name for p in tmp_path.iterdir()] == ["store"]

@pytest.mark.parametrize("name", ("splits.json", "irfs/zarr.json", "zarr.json", "shock/c/0"))
def test_a_harmed_table_of_contents_costs_no_draw(name, root, tmp_path, monkeypatch):
    to = Path(shutil.copytree(root, tmp_path/"store"))
    (to/"lss"/name).write_text("{")
    done = blocks_computed(monkeypatch)
    run(to)
    assert not done
    same_bytes(root, to)

def test_a_store_grows(root, tmp_path, monkeypatch):
    "Full blocks are kept as they are; what comes out is what a new store would be."
    more = {"lss": 60, "var": 35}
    new = generate_dataset(tmp_path/"new", **{**SMALL, "n": more}).root
    to = Path(shutil.copytree(root, tmp_path/"store"))
    done = blocks_computed(monkeypatch)
    grown = generate_dataset(to, **{**SMALL, "n": more})
    full = {w: open_store(root).info(w)["n"]//SMALL["block"]*SMALL["block"] for w in more}
    assert done and all(start >= full[w] for w, start, _ in done)
    same_bytes(new, grown.root)
    with pytest.raises(StoreError, match="another configuration"): run(to)          # and does not shrink

def test_a_store_without_a_manifest_is_a_sentence(root, tmp_path):
    to = Path(shutil.copytree(root, tmp_path/"store"))
    (to/MANIFEST).unlink()
    with pytest.raises(FileNotFoundError, match="there is no store at .*it has no manifest.json; make one with generate_dataset"): verify_store(to)

def test_an_overwrite_that_fails_leaves_the_old_store(root, tmp_path, monkeypatch):
    to = Path(shutil.copytree(root, tmp_path/"store"))
    monkeypatch.setattr(generating, "seal", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"): run(to, seed=1, overwrite=True)
    assert contents(to) == contents(root)

def test_work_on_another_data_set(tmp_path, monkeypatch):
    def stop(*a): raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(generating, "compute_block", stop)
        with pytest.raises(KeyboardInterrupt): run(tmp_path/"store")
    with pytest.raises(StoreError, match=r"\.store\.partial: work on a data set of another configuration lies here"): run(tmp_path/"store", seed=2)
    run(tmp_path/"store", seed=2, overwrite=True)
    assert read_manifest(tmp_path/"store")["seeds"]["global"] == 2

def test_two_at_once(tmp_path):
    lock = generating.claim(tmp_path/".store.partial")
    with pytest.raises(StoreError, match=f"process {os.getpid()} is generating this data set; wait for it"): run(tmp_path/"store")
    lock.close()
    run(tmp_path/"store")

def test_a_crash_between_two_renames(root, tmp_path):
    "Where folders cannot change places, the old store may wait under another name; the next call puts it back."
    shutil.copytree(root, storing.away(tmp_path/"store"))
    run(tmp_path/"store")
    same_bytes(root, tmp_path/"store")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]

@pytest.mark.parametrize("wrong,says", [({"n": 0}, "n of lss is 0; use a whole number ≥ 1"), ({"n": {"lss": 5}}, "n of var is 0"), ({"n": {"lss": 3, "vra": 3}}, "'vra' is none of the worlds"),
    ({"T": 0}, "T is 0"), ({"horizon": -1}, "horizon is -1"), ({"seed": -1}, "seed is -1"), ({"block": 7}, "block is 7; use an even number"), ({"worlds": []}, "there are no worlds"),
    ({"worlds": ["lss", "lss"]}, "named twice"), ({"worlds": ["lsss"]}, "did you mean lss"), ({"world_options": {"nk": {}}}, "'nk' is none of the worlds"), ({"n": 2.5}, "n of lss is 2.5")])
def test_wrong_arguments(wrong, says, tmp_path):
    options = {**SMALL, **wrong}
    if "worlds" in wrong: options["n"] = 3
    with pytest.raises(ValueError, match=says): generate_dataset(tmp_path/"store", **options)
    assert not any(tmp_path.iterdir())

def test_a_world_of_ones_own(tmp_path):
    store = generate_dataset(tmp_path/"store", [Decay(), "lss"], n=13, T=5, horizon=4, block=4, progress=False)
    assert store.worlds == ["decay", "lss"] and store.read("decay", "irfs").shape == (13, 1, 5, 3)
    rho, sd = store.read("decay", "theta").T
    np.testing.assert_allclose(store.read("decay", "irfs")[:, 0, 2, 0], 100*sd*rho**2, rtol=1e-6)
    np.testing.assert_allclose(store.read("decay", "irfs")[:, 0, 0], (100*sd)[:, None]*[1, 2, 1], rtol=1e-6)

def test_numbers_that_are_none(tmp_path):
    class Broken(Decay):
        def responses(self, theta, size, horizon): return super().responses(theta, size, horizon).where(theta[:, 0, None, None, None] < .8, float("nan"))
    bad = int((Broken().sample(40, 42)[:, 0] >= .8).nonzero()[0])
    with pytest.raises(ValueError, match=f"decay: the irfs of draw {bad} are not finite"): generate_dataset(tmp_path/"store", Broken(), n=40, T=4, horizon=3, block=10, progress=False)
    assert not (tmp_path/"store").exists()

def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run(tmp_path/"store")
        assert torch.get_num_threads() == 2
    finally: torch.set_num_threads(before)

def test_no_file_stays_open(root):
    store, handles = open_store(root), lambda: len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    contents(store)
    before = handles()
    for _ in range(20): contents(open_store(root, "full"))
    assert handles() == before

# --- as a Zarr group, and as NetCDF ----------------------------------------------------------------------------------------

NAMES = dict(theta=("draw", "parameter"), irfs=("draw", "shock", "horizon", "variable"), shocks=("draw", "time", "shock"), trajectories=("draw", "time", "variable"))

def as_before(root):
    "The same store in the layout of 1.0: folders called irfs.zarr, no groups and no coordinates."
    manifest = read_manifest(root)
    for world in manifest["worlds"]:
        for path in (root/world).iterdir():
            if path.name in ARRAYS: path.rename(path.with_name(f"{path.name}.zarr"))
            elif path.is_dir(): shutil.rmtree(path)
        (root/world/"zarr.json").unlink()
    (root/"zarr.json").unlink()
    files = {f: manifest["files"][f.replace(".zarr/", "/")] for f in files_in(root)}
    manifest = {k: v for k, v in manifest.items() if k != "sha256"} | dict(version="1.0.0", files=files)
    write_json(root/MANIFEST, manifest | dict(sha256=storing.hashlib.sha256(storing.canonical(manifest).encode()).hexdigest()))
    return root

def test_a_world_is_a_zarr_group(root):
    "Zarr finds every array with the names of its dimensions, and a coordinate for each of them; the store is a group of worlds."
    store, whole = open_store(root), zarr.open_consolidated(root)
    assert sorted(whole.group_keys()) == store.worlds
    for world in store.worlds:
        about = store.info(world)
        for group in (zarr.open_consolidated(root/world), zarr.open_group(root/world, mode="r"), whole[world]):
            assert {k: group[k].metadata.dimension_names for k in ARRAYS} == NAMES
            for array in (group[k] for k in ARRAYS): assert [*(group[d].shape[0] for d in array.metadata.dimension_names)] == list(array.shape)
        assert group["shock"][:].tolist() == about["shocks"]["names"] and group["parameter"][:].tolist() == about["parameters"]["names"]
        assert group["variable"][:].tolist() == about["observables"]["names"] and group["unit"][:].tolist() == about["observables"]["units"]
        assert group["horizon"][:].tolist() == list(range(11)) and group["lower"][:].tolist() == about["parameters"]["lower"]
        part = np.array(group["split"][:].tolist())
        assert {k: np.flatnonzero(part == k).tolist() for k in store.splits(world)} == {k: v.tolist() for k, v in store.splits(world).items()}
        assert set(group.attrs["coordinates"].split()) == {"split", "unit", "lower", "upper", "default"} and group.attrs["world"] == world

def test_xarray_opens_a_world(root, copy, tmp_path):
    "Lazily, with nothing to say about it; the same numbers as ours, from a store of before at once, and from a NetCDF file."
    xarray, store = pytest.importorskip("xarray"), open_store(root)
    with warnings.catch_warnings(action="error"):
        found = xarray.open_zarr(root/"lss", chunks=None)
        assert not found.irfs.variable._in_memory and found.irfs.dims == NAMES["irfs"]
        assert found.theta.sel(parameter="A[0,0]", draw=7).item() == store.read("lss", "theta")[7, 0]
        assert found.sel(draw=found.split == "train").sizes["draw"] == len(store.splits("lss")["train"])
        assert store.to_xarray("lss").identical(xarray.open_zarr(root/"lss"))
        old = open_store(as_before(copy))
        for same in (old.to_xarray("lss"), xarray.open_dataset(old.to_netcdf("lss", tmp_path/"lss.nc"))): xarray.testing.assert_equal(same.load(), found.load())
        assert list(xarray.open_datatree(root, engine="zarr").children) == store.worlds
        answer = get_world("nk").impulse_responses({"kappa": [.1, .2]}, 8)
        assert answer.to_xarray().sel(draw=1, shock="demand", variable="rate", horizon=2).item() == answer[1, 1, 2, 2].item()
        xarray.testing.assert_equal(answer.to_xarray(), xarray.open_dataset(answer.to_netcdf(tmp_path/"nk.nc")).responses)

def test_without_xarray_a_sentence_says_how_to_get_it(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    for door in (lambda: open_store(root).to_xarray("lss"), lambda: get_world("nk").impulse_responses({}, 3).to_xarray()):
        with pytest.raises(MissingPackage, match='cannot be had without xarray; type python -m pip install "xarray"$'): door()

def test_a_world_as_netcdf(root, copy, tmp_path, monkeypatch):
    "Every number, name and unit as SciPy reads them, of both layouts; a file that is there is replaced, or left whole."
    for store in (open_store(root), open_store(as_before(copy))):
        path = store.to_netcdf("var", tmp_path/"var.nc")
        with netcdf_file(path, mmap=False) as file:
            for k in ARRAYS: assert file.variables[k].dimensions == NAMES[k] and np.array_equal(file.variables[k][:], store.read("var", k))
            words = lambda k: [b"".join(row).decode() for row in file.variables[k][:]]
            assert words("shock") == store.info("var")["shocks"]["names"] and words("parameter") == store.info("var")["parameters"]["names"]
            assert words("unit") == ["percent", "percent a year", "percent a year"] and file.variables["irfs"].units == b"percent"
            assert [words("split").count(k) for k in store.splits("var")] == [len(v) for v in store.splits("var").values()]
    before = path.read_bytes()
    monkeypatch.setattr("synthlab.datasets.disk.os.replace", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="var.nc: No space left"): store.to_netcdf("lss", path)
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["copy", "var.nc"]

def test_a_store_of_before_is_read_and_grows(root, copy, tmp_path, monkeypatch):
    "As it is, where the same is asked for; what is harmed or missing is computed, nothing else is, and then it has groups."
    old, done = open_store(as_before(copy), "full"), blocks_computed(monkeypatch)
    assert contents(old) == contents(root) and old.manifest["version"] == "1.0.0"
    run(copy)
    assert not done and open_store(copy).stamp == old.stamp
    more = {"lss": 50, "var": 30}
    grown = generate_dataset(copy, **{**SMALL, "n": more}).root
    assert {d[:2] for d in done} == {("lss", 40)}                       # the last block, which was not full, and no other
    same_bytes(generate_dataset(tmp_path/"new", **{**SMALL, "n": more}).root, grown)

def test_what_is_harmed_in_a_store_of_before(root, copy, monkeypatch):
    path, done = as_before(copy)/"lss"/"irfs.zarr"/"c"/"1"/"0"/"0"/"0", blocks_computed(monkeypatch)
    path.write_bytes(path.read_bytes()[:-3])
    run(copy)
    assert done == [("lss", 10, 20)]
    same_bytes(root, copy)

def test_work_begun_in_the_layout_of_before_is_begun_anew(root, tmp_path, monkeypatch):
    "Its arrays lie under other names; nothing of it gets into the store."
    real, to = generating.compute_block, tmp_path/"store"
    monkeypatch.setattr(generating, "compute_block", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): run(to)
    folder = tmp_path/".store.partial"
    plan = json.loads((folder/"plan.json").read_text())
    del plan["layout"]; write_json(folder/"plan.json", plan)
    for name in ARRAYS: (folder/"store"/"lss"/name).rename(folder/"store"/"lss"/f"{name}.zarr")
    monkeypatch.setattr(generating, "compute_block", real)
    run(to)
    same_bytes(root, to)

@pytest.mark.parametrize("change,said", [(dict(shocks=dict(names=["a"])), "shocks are 1, and the arrays have 2"), (dict(observables=dict(names=["a", "b", "c"], units=["x"])), "units are 1"),
    (dict(parameters=dict(names=["a"], lower=[0.], upper=[1.], default=[0.])), "parameters"), (dict(observables=dict(names=["a", "b", "c"], units=7)), "units"), (dict(description=[1]), "description")])
def test_a_manifest_that_names_what_is_not_there(change, said, copy):
    manifest = {k: v for k, v in read_manifest(copy).items() if k != "sha256"}
    manifest["worlds"]["lss"] |= change
    write_json(copy/MANIFEST, manifest | dict(sha256=storing.hashlib.sha256(storing.canonical(manifest).encode()).hexdigest()))
    with pytest.raises(StoreError, match=f"lss.*{said}"): open_store(copy)

# --- responses with names --------------------------------------------------------------------------------------------------

def test_responses_say_what_they_are(root):
    "Of a world, of a store's part; draws of them too, and what is computed from them is a plain tensor with the same numbers."
    nk, part = get_world("nk"), load_split(root, "var", "val")
    found = nk.impulse_responses({"kappa": [.1, .2, .3]}, 6)
    assert found.labels.shocks == nk.shocks and found.labels.units == nk.measures and type(found) is Responses
    assert nk.impulse_responses(horizon=2, units="model").labels.units == ("model units",)*3
    assert part["irf"].labels.draws.tolist() == part["index"].tolist() == open_store(root).splits("var")["validation"].tolist()
    assert part["irf"][1:].labels.draws.tolist() == part["index"][1:].tolist()
    plain = found.as_subclass(torch.Tensor)
    for one, other in ((found*2, plain*2), (found[:, 0], plain[:, 0]), (found.mean(0), plain.mean(0)), (torch.cat([found, found]), torch.cat([plain, plain]))):
        assert type(one) is torch.Tensor and torch.equal(one, other)
    again = pickle.loads(pickle.dumps(found))
    assert torch.equal(again, found) and again.labels == found.labels and copying.deepcopy(found).labels == found.labels

def test_responses_are_drawn():
    "A panel a shock and variable; the truth black and an emulator blue; of draws the quantiles, of one draw its band."
    nk, blue = get_world("nk"), OracleBaseline(["nk"], 8)
    draws = nk.impulse_responses(nk.sample(61, 1), 8)
    fig = draws.plot()
    assert [ax.get_title() for ax in fig.axes[:3]] == ["output, percent", "inflation, percent a year", "rate, percent a year"] and len(fig.axes) == 9
    assert [ax.get_ylabel() for ax in fig.axes[::3]] == list(nk.shocks)
    np.testing.assert_allclose(fig.axes[4].lines[-1].get_ydata(), draws[:, 1, :, 1].median(0).values)
    box = fig.axes[4].collections[0].get_paths()[0].get_extents()
    assert np.isclose(box.ymax, np.quantile(draws[:, 1, :, 1].numpy(), .95, axis=0).max())
    one = blue.impulse_responses({}, "nk").plot(beside={"world": nk.impulse_responses({}, 8)}, bands=(draws[0], draws[1]), quarters=5)
    assert [same_color(line.get_color(), c) for line, c in zip((fig.axes[0].lines[-1], one.axes[0].lines[-1]), ("black", "C0"))] == [True, True]
    assert [t.get_text() for t in one.legends[0].get_texts()] == ["error band", "world", "emulator"]
    plt.close("all")
