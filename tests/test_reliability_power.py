"""A power cut: what was not synced is lost, and so is a name that its folder was not synced after.

R31 after a cut at any instant, the newest whole checkpoint and the facts agree, and a run is there or not there. The disk is a double
of `os` that keeps a second copy of everything, as a drive would find it: bytes reach it by `fsync` of their file, names by `fsync` of their folder.
What was written but not synced is lost, half of it, or kept, as a seed decides: a system promises nothing about it."""
import contextlib, os, random
from pathlib import Path

import pytest

import tiny
from tiny import cases
from synthlab.datasets import disk as on_disk
from synthlab.datasets.asset_files import file_facts, read_manifest
from synthlab.datasets.disk import atomic_write
from synthlab.datasets.generate import generate_dataset
from synthlab.datasets.mapped import MappedParquet
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.store import verify_store
from synthlab.experiments.parts import EstimatorPart
from synthlab.experiments.runs import Run, list_runs
from synthlab.trainers.checkpoints import newest_checkpoint
from synthlab.trainers.facts import Facts

class PowerCut(BaseException): "The machine is off."

class Disk:
    "What a drive holds of a folder: `synced` bytes by inode, and `names`, a dict a folder of those that its last `fsync` saw."
    def __init__(self, root, at=None):
        self.root, self.at, self.calls = Path(root), at, 0
        self.real = {name: getattr(os, name) for name in ("fsync", "replace", "rename", "write", "open", "mkdir")}
        self.synced, self.names = {}, {}

    def fsync(self, handle):
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        self.real["fsync"](handle)
        if path.is_dir(): self.names[os.fstat(handle).st_ino] = {p.name: p.stat().st_ino for p in path.iterdir()}
        else: self.synced[os.fstat(handle).st_ino] = path.read_bytes()

    def __enter__(self):
        self.patch = pytest.MonkeyPatch()
        def counted(name, call):
            def counting(*args, **more):
                self.calls += 1
                if self.calls == self.at: raise PowerCut
                return call(*args, **more)
            self.patch.setattr(os, name, counting)
        for name, real in self.real.items(): counted(name, self.fsync if name == "fsync" else real)
        return self

    def __exit__(self, *error): self.patch.undo()

    def left(self, to, draw):
        "What is found when the power is back: written to another folder."
        def restore(here, there):
            there.mkdir(parents=True)
            known = self.names.get(here.stat().st_ino, {})
            for path in sorted(here.iterdir()):
                old = known.get(path.name)                          # what the folder last synced says of this name
                ino = path.stat().st_ino
                if path.is_dir():
                    if old == ino or draw.random() < .5: restore(path, there/path.name)
                    continue
                new = old == ino or draw.random() < .5              # a rename or a new name may have reached the drive, or not
                kept = path.read_bytes() if new else None
                if new and self.synced.get(ino) != kept:            # bytes that were never synced: all, some or none
                    durable = self.synced.get(ino, b"")
                    more = kept[len(durable):] if kept.startswith(durable) else kept
                    kept = (durable if kept.startswith(durable) else b"") + more[:draw.choice([0, 0, len(more)//2, len(more)])]
                if not new: kept = self.synced.get(old) if old else None
                if kept is not None: (there/path.name).write_bytes(kept)
        restore(self.root, Path(to))
        return Path(to)

def trained(folder): return tiny.train(folder)

@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("power")/"run"
    with Disk(folder.parent) as disk: trained(folder)
    return tiny.left_by(folder), disk.calls

@pytest.mark.parametrize("seed", cases(20, 500))
def test_power_is_cut_at_any_call(seed, undisturbed, tmp_path):
    "What is left is a training that goes on to the same bits, rows and events."
    draw, (whole, calls) = random.Random(seed), undisturbed
    (tmp_path/"run").mkdir()
    with Disk(tmp_path/"run", draw.randrange(1, calls + 1)) as disk, contextlib.suppress(PowerCut): trained(tmp_path/"run")
    found = disk.left(tmp_path/"found", draw)
    newest = newest_checkpoint(found/"checkpoints") if (found/"checkpoints").exists() else None
    if newest:
        had, rows = newest[2]["facts"], Facts(found/"facts").position()
        assert had["rows"] <= rows["rows"] and had["events"] <= rows["events"]      # what a checkpoint counts on is there
    trained(found)
    assert tiny.differs(tiny.left_by(found), whole) == []

@pytest.mark.parametrize("seed", cases(6, 60))
def test_a_run_is_there_or_not_there(seed, tmp_path):
    "Of a run that was being made, nothing or all of it is found."
    draw = random.Random(seed)
    (tmp_path/"runs").mkdir()
    with Disk(tmp_path/"runs", draw.randrange(1, 40)) as disk, contextlib.suppress(PowerCut): Run.create(tmp_path/"runs", "tiny", "x", "rows: 2\n").close()
    found = disk.left(tmp_path/"found", draw)
    for folder in list_runs(found)["folder"]:
        assert (Path(folder)/"config.yaml").read_text() == "rows: 2\n" and Run(folder).read_status()["lab"] == "tiny"
    assert len(list(found.glob("[!.]*"))) == len(list_runs(found)) <= 1

@pytest.mark.parametrize("seed", cases(4, 40))
def test_a_run_that_has_begun_stays(seed, tmp_path):
    "Once `create` has answered, its folder is there after a cut, also where the folder of all runs was new."
    with Disk(tmp_path) as disk: Run.create(tmp_path/"deep/runs", "tiny", "x").close()
    disk.names[tmp_path.stat().st_ino] = {"deep": (tmp_path/"deep").stat().st_ino}      # the root of this disk has nobody above it
    assert list_runs(disk.left(tmp_path.with_name(f"found{seed}"), random.Random(seed))/"deep/runs")["name"].tolist() == ["x"]

def test_what_was_fitted_at_once_stays(tmp_path):
    "Its checkpoint is there after a cut, and so are the folders that were made for it."
    part = EstimatorPart("mean", lambda: tiny.nn.Linear(2, 1), lambda numbers: tiny.nn.Linear(2, 1), {})
    with Disk(tmp_path) as disk: part.train(tmp_path/"parts"/"mean", True)
    for seed in range(8): assert (disk.left(tmp_path.with_name(f"part{seed}"), random.Random(seed))/"parts/mean/checkpoints/best.safetensors").exists()

def test_a_store_that_is_made_stays(tmp_path):
    "Once it is there, every byte of it is: each shard, each manifest, and its name."
    with Disk(tmp_path) as disk: generate_dataset(tmp_path/"s", ["rbc"], n=8, T=20, horizon=4, block=4, progress=False)
    for seed in range(8): verify_store(disk.left(tmp_path.with_name(f"store{seed}"), random.Random(seed))/"s", "full")

def test_what_is_mapped_is_whole_or_made_again(tmp_path):
    "No array is taken for one that was written and is none."
    MockDataSource(200).load("A")["A"].to_parquet(tmp_path/"x.parquet")
    with Disk(tmp_path) as disk: MappedParquet(tmp_path/"x.parquet")
    there = 0
    for seed in range(8):
        found = disk.left(tmp_path.with_name(f"maps{seed}"), random.Random(seed))/"x.parquet.maps"
        manifest = read_manifest(found)
        if manifest is None: continue
        there += 1
        for wrote in manifest["files"]: assert file_facts(found/wrote["file"]) == wrote
    assert there > 1

LOST = {"no sync of the file": ("fsync", lambda handle: None), "no sync of the folder": ("sync", lambda path: None)}

@pytest.mark.parametrize("what", LOST)
def test_a_write_that_is_not_synced_is_noticed(what, tmp_path, monkeypatch):
    "What makes the tests above say something: without one of its two syncs, `atomic_write` loses what it said was written."
    def survives(draw):
        root = tmp_path/f"{what[-6:]}{draw}"; root.mkdir()
        with Disk(root) as disk:
            atomic_write(root/"a", "old")
            if what in LOST and broken: monkeypatch.setattr(on_disk.os if LOST[what][0] == "fsync" else on_disk, *LOST[what])
            atomic_write(root/"a", "new and longer")
        monkeypatch.undo()
        found = disk.left(tmp_path/f"found{what[-6:]}{draw}", random.Random(draw))
        return (found/"a").exists() and (found/"a").read_text() == "new and longer"
    broken = False
    assert all(survives(draw) for draw in range(8))
    broken = True
    assert not all(survives(draw) for draw in range(8, 16))
