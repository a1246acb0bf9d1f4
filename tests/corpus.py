"""Small files as a version writes them, for every later version to read: `python tests/corpus.py` before a release.

They lie in `corpus/VERSION` and are never written again: a checkpoint in the middle of a training, a finished run of a lab in one file, that file, the
settings of each lab of the house, a store of responses, and `expected.json` with the numbers that must be found in them."""
import hashlib, json, shutil
from pathlib import Path

import torch

import synthlab, tiny
from synthlab.datasets.generate import generate_dataset
from synthlab.datasets.store import open_store
from synthlab.experiments.config import to_yaml
from synthlab.experiments.experiment import predict, run
from synthlab.experiments.lab import get_lab
from synthlab.experiments.plugins import load_plugin
from synthlab.experiments.runs import Run
from synthlab.trainers.trainer import Trainer, TrainingConfig

HERE = Path(__file__).parent
CORPUS, LABS = HERE/"corpus", ("market", "macro", "signal", "quant", "events")

class Half(Exception): "The training has come half way."

def half(folder):
    "A training that has been left after 25 of its 50 steps."
    trainer = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), folder)
    advance = trainer.advance
    def stop():
        advance()
        if trainer.step == 25: raise Half
    trainer.advance = stop
    try: trainer.fit(*tiny.train_val())
    except Half: pass

def digest(store):
    "Of all arrays of a store."
    found = hashlib.sha256()
    for world in store.worlds:
        for name in "theta", "irfs", "shocks", "trajectories": found.update(store.read(world, name).tobytes())
    return found.hexdigest()

def asked(folder):
    "What the run's ridge says of three rows."
    rows = folder.parent/"rows.csv"
    rows.write_text("a,b,c\n1,0,3\n2,1,4\n0,0,1\n")
    return predict(folder, str(rows))["table"].prediction.tolist()

def make(folder):
    "Write the files of this version."
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    half(folder/"half")
    load_plugin(shutil.copy(HERE/"toy_lab.py", folder))
    run("toy", ["data.rows=40", "tracking.mode=disabled", "threads=1"], run_dir=folder/"toy", quiet=True)
    for lab in LABS: (folder/f"{lab}.yaml").write_text(to_yaml(get_lab(lab).configure(["threads=1"])))
    generate_dataset(folder/"store", ["rbc"], 4, 4, 4, progress=False, block=4)
    known = dict(toy=asked(folder/"toy"), store=digest(open_store(folder/"store", "full")))
    (folder/"expected.json").write_text(json.dumps(known, indent=1) + "\n")
    for path in [*folder.rglob("figures"), *folder.rglob("meta.json"), *folder.rglob("lock"), *folder.rglob("__pycache__")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    Run(folder/"toy").set_status("done", owner={})      # the machine that wrote it is nobody's affair

if __name__ == "__main__": make(CORPUS/synthlab.__version__)
