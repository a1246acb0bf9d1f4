"""Documents whose digest is right and whose contents are not.

R25 tampered scalers and weights, R27 every field of every kind of document: of another kind, missing, negative, huge, nested, interpolated."""
import hashlib, json, random, shutil, struct, time, warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch, yaml
from torch.nn.modules.module import register_module_parameter_registration_hook

import tiny
from tiny import cases, model
from synthlab.datasets.collisions import PROCESSES as COLLISIONS, generate_collisions
from synthlab.datasets.generate import PROCESSES as SIMULATING, generate_dataset
from synthlab.datasets.regimes import STRATEGIES, RegimeTagger
from synthlab.datasets.response_batches import IRFDataset
from synthlab.datasets.sources import MockDataSource
from synthlab.datasets.store import ARRAYS, StoreError, file_facts, open_store
from synthlab.experiments.config import read_yaml, to_schema
from synthlab.experiments.experiment import open_run, run_config
from synthlab.experiments.lab import get_lab
from synthlab.experiments.moments import load_runs, run_moments, run_scalars
from synthlab.experiments.profiles import read_profiles
from synthlab.experiments.publish import load_published
from synthlab.experiments.reports import typed
from synthlab.experiments.runs import Run, list_runs
from synthlab.experiments.settings import MOST, read_value
from synthlab.experiments.tasks import run_tasks
from synthlab.experiments.sweeps import Sweep, newest_sweep
from synthlab.experiments.variants import Variant
from synthlab.labs.market.backtest import trainings
from synthlab.labs.market.experiment import simulate_on
from synthlab.labs.quant.configuration import read_plain
from synthlab.labs.signal.trading import earlier_ratios
from synthlab.models.baselines import GARCH, GJRGARCH, BlockBootstrap, ConstantVolatility, EWMAVolatility
from synthlab.models.conformal import AdaptiveConformal, SplitConformal
from synthlab.models.registry import ConfigError
from synthlab.trainers.checkpoints import CheckpointError, load_checkpoint, newest_checkpoint, save_checkpoint
from synthlab.trainers.facts import FactsError, plain
from synthlab.trainers.keeper import TRAINING
from synthlab.trainers.processes import PROCESSES

trained = tiny.trained

# headers of checkpoints

def rewritten(path, change):
    "A checkpoint with another header, sealed again; a digest that the change has set stays."
    data = path.read_bytes()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    own = json.loads(header["__metadata__"]["synthlab"])
    change(header, own)
    sealed = own.get("sha256") is not None and not own.pop("kept", False)
    if sealed: own["sha256"] = "0"*64
    header["__metadata__"]["synthlab"] = json.dumps(own)
    raw = json.dumps(header).encode()
    raw += b" "*(-len(raw) % 8)
    data = struct.pack("<Q", len(raw)) + raw + data[8 + length:]
    if sealed: data = data.replace(b"0"*64, hashlib.sha256(data).hexdigest().encode(), 1)
    path.write_bytes(data)

def first(header): return header[next(k for k in header if k.startswith("model/layers.0.weight"))]

HEADERS = {     # what is wrong, and the field that the sentence names
    "no shape": (lambda h, o: first(h).pop("shape"), "shape"),
    "dtype is a list": (lambda h, o: first(h).update(dtype=["F32"]), "dtype"),
    "an unknown dtype": (lambda h, o: first(h).update(dtype="F31"), "dtype"),
    "shape is a number": (lambda h, o: first(h).update(shape=3), "shape"),
    "shape of true": (lambda h, o: first(h).update(shape=[True, 24]), "shape"),
    "a negative shape": (lambda h, o: first(h).update(shape=[-8, -3]), "shape"),
    "offsets of text": (lambda h, o: first(h).update(data_offsets=["0", "96"]), "data_offsets"),
    "three offsets": (lambda h, o: first(h).update(data_offsets=[0, 96, 96]), "data_offsets"),
    "a tensor is a list": (lambda h, o: h.update({"model/layers.0.weight": [1]}), "layers.0.weight"),
    "lone surrogates as digest": (lambda h, o: o.update(sha256="\ud800"*64, kept=True), "sha256"),
    "digest of another kind": (lambda h, o: o.update(sha256=["0"]*64, kept=True), "sha256"),
    "a tensor called by half a character": (lambda h, o: h.update({"model/\ud800": h.pop("model/layers.0.weight")}), "ud800"),
    "about is a list": (lambda h, o: o["state"].update(about=[1]), "about"),
    "config is text": (lambda h, o: o["state"].update(config="lr"), "config"),
    "step is text": (lambda h, o: o["state"].update(step="many"), "step"),
    "epoch is true": (lambda h, o: o["state"].update(epoch=True), "epoch"),
    "position below 0": (lambda h, o: o["state"].update(position=-1), "position"),
    "best is a number": (lambda h, o: o["state"].update(best=.1), "best"),
    "best without score": (lambda h, o: o["state"]["best"].pop("score"), "best"),
    "stale is null": (lambda h, o: o["state"].update(stale=None), "stale"),
    "sums is a mapping": (lambda h, o: o["state"].update(sums={}), "sums"),
    "sums are no numbers": (lambda h, o: o["state"].update(sums=[["loss", "many"]]), "sums"),
    "facts without rows": (lambda h, o: o["state"]["facts"].pop("rows"), "facts.rows"),
    "fewer rows than none": (lambda h, o: o["state"]["facts"].update(rows=-3), "facts.rows"),
    "data is text": (lambda h, o: o["state"].update(data="much"), "data"),
    "data is null": (lambda h, o: o["state"].update(data=None), "data"),
    "data without batches": (lambda h, o: o["state"]["data"].pop("batches"), "data.batches"),
    "half a sample": (lambda h, o: o["state"]["data"].update(train=94.5), "data.train"),
    "fewer samples than none": (lambda h, o: o["state"].update(samples=-1), "samples"),
    "sums of no samples": (lambda h, o: o["state"].update(samples=0, sums=[["loss", "1.0"]]), "sums"),
    "further than its data": (lambda h, o: o["state"].update(position=10**6), "position"),
    "facts is null": (lambda h, o: o["state"].update(facts=None), "facts"),
    "a format as long as a book": (lambda h, o: o.update(format="x"*10**6), "format"),
}

@pytest.mark.parametrize("what", HEADERS)
def test_a_header_that_lies(what, trained, tmp_path):
    "File and field in one sentence, and the training goes on from the other checkpoint."
    change, field = HEADERS[what]
    shutil.copytree(trained, tmp_path/"run")
    last = tmp_path/"run/checkpoints/last.safetensors"
    rewritten(last, change)
    with pytest.warns(UserWarning, match="going on from best") as told: tiny.train(tmp_path/"run")
    said, = (str(w.message) for w in told if "going on" in str(w.message))
    assert "last.safetensors" in said and field in said and len(said) < 500 and "\n" not in said
    assert tiny.differs(tiny.left_by(tmp_path/"run"), tiny.left_by(trained)) == []

@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.bool,
                                   torch.float8_e8m0fnu, torch.complex128], ids=str)
def test_what_is_saved_can_be_loaded(dtype, tmp_path):
    "Of every type of numbers: it comes back, or it is refused when it is saved."
    tensors = {"model/w": torch.zeros(4).to(dtype)}
    try: save_checkpoint(tmp_path/"a.safetensors", tensors, {})
    except ValueError as error: assert "model/w" in str(error) and str(dtype) in str(error); return
    found, _ = load_checkpoint(tmp_path/"a.safetensors", {"w": tensors["model/w"]})
    assert found["model/w"].dtype == dtype

# configurations

DOORS = "token: ${oc.env:TOKEN}", "name: ${oc.env:TOKEN}", "name: 'a ${oc.env:TOKEN} b'", "model: {head: {name: '${oc.env:TOKEN}'}}", \
        "model: {backbone: {blocks: [a, [{b: '${oc.env:TOKEN}'}]]}}", "data: {assets: ['${oc.env:TOKEN}']}", 'name: "$\\x7boc.env:TOKEN}"', \
        "model: {'${oc.env:TOKEN}': 1}", "data: {source: '${data.assets}'}", "runs: ${name}"

def refused(call, *words):
    "The sentence with which the house refuses; nothing of the environment is in it."
    with pytest.raises((ConfigError, CheckpointError, StoreError)) as told: call()
    said = str(told.value)
    assert type(told.value) in (ConfigError, CheckpointError, FactsError, StoreError) and "s3cret" not in said and "\n" not in said and len(said) < 700, said
    for word in words: assert word in said, said
    return said

@pytest.fixture
def token(monkeypatch): monkeypatch.setenv("TOKEN", "s3cret")

@pytest.mark.parametrize("text", DOORS)
def test_nothing_is_resolved(text, token, tmp_path):
    "A run's own configuration, a published one and a family's: a value is written out."
    schema = get_lab("market").schema
    refused(lambda: read_yaml(schema, text), "written out")
    if "token" not in text: refused(lambda: to_schema(schema, yaml.safe_load(text)), "written out")
    (tmp_path/"config.yaml").write_text(text)
    (tmp_path/"status.json").write_text('{"status": "done", "lab": "market"}')
    refused(lambda: run_config(*open_run(tmp_path)), f"{tmp_path}/config.yaml", "written out")
    refused(lambda: read_plain(tmp_path/"config.yaml"), "config.yaml", "written out")
    refused(lambda: read_profiles(tmp_path/"config.yaml"), "config.yaml", "written out")

@pytest.mark.parametrize("asked", ["name=${oc.env:TOKEN}", "runs=${name}", "+name=${runs}", "data.assets=[${oc.env:TOKEN}]", "model.head.name=${oc.env:TOKEN}"])
def test_nothing_typed_is_resolved(asked, token):
    "Neither the environment, nor another setting: a preset may name one, a user writes it out."
    refused(lambda: get_lab("market").configure([asked]), "written out")

def laughs(n=9): return "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{','.join([f'*a{i}']*9)}]\n" for i in range(n))

YAMLS = {"aliases": (laughs(), "anchors"), "itself": ("name: &a [*a]", "anchors"), "brackets": ("model: " + "["*3000 + "]"*3000, "deep"),
         "brackets that stay open": ("["*200_000, "deep"), "braces": ("{a: "*3000 + "}"*3000, "deep"), "dashes": ("- "*3000, "deep"),
         "a tag": ("name: !!python/object/apply:pathlib.Path [x]", "tags"), "a long text": ("name: " + "x"*2_000_000, "bytes"),
         "many values": ("model: {a: [" + "1,"*60_000 + "]}", "values"), "a number of many digits": ("name: " + "1"*20_000, "config.yaml"),
         "a list": ("- 1", "name: value"), "nothing to read": ("\0", "config.yaml")}

@pytest.mark.parametrize("what", YAMLS)
def test_yaml_is_bounded(what, tmp_path):
    "Seconds and memory that a person would not notice, and one sentence, at every door."
    text, why = YAMLS[what]
    (tmp_path/"config.yaml").write_text(text)
    (tmp_path/"status.json").write_text('{"status": "done", "lab": "market"}')
    began = time.process_time()
    refused(lambda: run_config(*open_run(tmp_path)), "config.yaml", why)
    refused(lambda: read_plain(tmp_path/"config.yaml"), "config.yaml")
    refused(lambda: read_profiles(tmp_path/"config.yaml"), "config.yaml")
    refused(lambda: read_value(text))
    assert time.process_time() - began < 20

# what a run, a sweep and a store say

@pytest.fixture(scope="module")
def sweep(trained, tmp_path_factory):
    "A sweep with one finished run, made by hand: every document that a run leaves."
    folder = tmp_path_factory.mktemp("sweeps")/"s"
    shutil.copytree(trained, folder/"a")
    with Run.create(folder, "market", "b", folder=folder/"b"): pass
    for name in "config.yaml", "overrides.yaml", "status.json": shutil.copy(folder/"b"/name, folder/"a")
    (folder/"a/config.yaml").write_text("name: a\n")
    (folder/"a/overrides.yaml").write_text('- "training.lr=0.1"\n')
    Run(folder/"a").write_result(dict(crps=1.5, test_from="2020-01-01", parameters=5, conclusion="It is.", notes=[], windows=3,
                                      baselines=dict(constant=dict(crps=2., skill=.1, skill_interval=[0., .2], p_value=.1))))
    Sweep.write(get_lab("market"), [Variant("a", ["training.lr=0.1"], {"training.lr": "0.1"})], folder)
    return folder

def read_run(folder):
    "All doors that read a run."
    for call in (lambda: list_runs(folder.parent), lambda: run_moments(folder), lambda: run_scalars(folder), lambda: load_runs(folder.parent),
                 lambda: run_config(*open_run(folder)), lambda: Sweep(folder.parent).table, lambda: tiny.Facts(folder/"facts").position(),
                 lambda: newest_sweep("market", folder.parents[1]), lambda: typed(folder)): call()

SAYINGS = {     # file, what it says instead, and words of the sentence
    "status is a list": ("a/status.json", "[]", ["status.json", "mapping"]),
    "status is unknown": ("a/status.json", '{"status": "fine", "lab": "market"}', ["status.json", "status", "fine"]),
    "lab is a list": ("a/status.json", '{"status": "done", "lab": ["market"]}', ["status.json", "lab"]),
    "owner is text": ("a/status.json", '{"status": "done", "lab": "market", "owner": "me"}', ["status.json", "owner"]),
    "plugins without names": ("a/status.json", '{"status": "done", "lab": "market", "plugins": [1]}', ["status.json", "plugins[0]"]),
    "half a character": ("a/status.json", '{"status": "done", "lab": "\\ud800"}', ["status.json", "lab"]),
    "status cut off": ("a/status.json", '{"status": "do', ["status.json", "no JSON"]),
    "result is a list": ("a/result.json", "[1]", ["result.json", "mapping"]),
    "result is no JSON": ("a/result.json", '{"crps": NaN}', ["result.json", "no JSON"]),
    "a huge score": ("a/result.json", '{"crps": 1' + "0"*400 + "}", ["result.json", "crps"]),
    "a score of text": ("a/result.json", '{"crps": "low"}', ["result.json"]),
    "half a character as a number": ("a/result.json", '{"crps": 1.5, "parameters": "\\ud800", "baselines": {"constant": {"crps": 2.0}}}', ["result.json", "parameters"]),
    "a baseline called by half a character": ("a/result.json", '{"crps": 1.5, "baselines": {"\\ud800": {"crps": 2.0}}}', ["result.json", "ud800"]),
    "no baselines": ("a/result.json", '{"crps": 1.5}', ["result.json", "baselines"]),
    "an event of a list": ("a/facts/events.jsonl", "[]\n", ["events.jsonl", "[0]"]),
    "an event without a name": ("a/facts/events.jsonl", '{"time": "now"}\n', ["events.jsonl", "event"]),
    "an epoch of text": ("a/facts/events.jsonl", '{"event": "epoch", "time": "now", "epoch": "one"}\n', ["events.jsonl", "epoch"]),
    "two events a line": ("a/facts/events.jsonl", '{"event": "a", "time": "b"}, {"event": "a", "time": "b"}\n', ["events.jsonl", "line"]),
    "brackets": ("a/facts/events.jsonl", "["*100_000 + "\n", ["events.jsonl"]),
    "words among numbers": ("a/facts/scalars.csv", "step,epoch,val_squared_error\n1,1,low\n", ["scalars.csv", "val_squared_error"]),
    "a short row": ("a/facts/scalars.csv", "step,epoch,val_squared_error\n1\n", ["scalars.csv", "row 1"]),
    "an endless epoch": ("a/facts/scalars.csv", "step,epoch,val_squared_error\n1,inf,1\n", ["scalars.csv", "epoch"]),
    "an endless step": ("a/facts/scalars.csv", "step,epoch,val_squared_error\ninf,1,1\n", ["scalars.csv", "step"]),
    "meta is a list": ("a/facts/meta.json", "[]", ["meta.json", "mapping"]),
    "a configuration of text": ("a/facts/meta.json", '{"config": "lr"}', ["meta.json", "config"]),
    "a recipe that is a list": ("a/facts/meta.json", '{"about": {"recipe": [1]}}', ["meta.json", "recipe"]),
    "typed is a number": ("a/overrides.yaml", "- 5\n", ["overrides.yaml"]),
    "typed is no JSON": ("a/overrides.yaml", "- {\n", ["overrides.yaml"]),
    "a sweep of a list": ("sweep.json", "[]", ["sweep.json", "mapping"]),
    "a sweep without variants": ("sweep.json", '{"lab": "market"}', ["sweep.json", "variants"]),
    "a variant without a name": ("sweep.json", '{"lab": "market", "variants": [{"overrides": [], "values": {}}]}', ["sweep.json", "variants[0].name"]),
    "a variant elsewhere": ("sweep.json", '{"lab": "market", "variants": [{"name": "../../x", "overrides": [], "values": {}}]}', ["sweep.json", "variants[0].name"]),
    "a variant of numbers": ("sweep.json", '{"lab": "market", "variants": [{"name": "a", "overrides": [1], "values": {}}]}', ["sweep.json", "overrides[0]"]),
}

def test_what_was_written_is_read(sweep, store, tmp_path):
    "By all the doors that refuse what follows."
    read_run(sweep/"a")
    root = Path(shutil.copytree(store, tmp_path/"s"))
    resealed(root); read_store(root)

@pytest.mark.parametrize("what", SAYINGS)
def test_what_a_run_says(what, sweep, tmp_path):
    "File and field in one sentence."
    shutil.copytree(sweep, tmp_path/"s")
    file, text, words = SAYINGS[what]
    (tmp_path/"s"/file).write_text(text)
    refused(lambda: read_run(tmp_path/"s/a"), *words)

WALKED = dict(seconds=1., parameters=5, best_epoch=2)

@pytest.mark.parametrize("field, value", [("seconds", "long"), ("parameters", None), ("best_epoch", [1]), ("best_epoch", ...)])
def test_what_a_walk_says_of_its_trainings(field, value, tmp_path):
    folder = tmp_path/"fold_0"/"linear"
    folder.mkdir(parents=True)
    (folder/"result.json").write_text(json.dumps(WALKED))
    assert trainings(tmp_path, ["linear"], 1).loc[("linear", 0)].to_dict() == WALKED
    (folder/"result.json").write_text(json.dumps({k: v for k, v in (WALKED | {field: value}).items() if v is not ...}))
    refused(lambda: trainings(tmp_path, ["linear"], 1), "result.json", field)

@pytest.mark.parametrize("result, data", [(dict(sharpe_a_bar="high", source="x"), None), (dict(sharpe_a_bar=[.1], source="x"), None), ("[1]", None), (dict(sharpe_a_bar=.1), dict(A=3)), (dict(sharpe_a_bar=.1), dict(A=dict(rows="x")))])
def test_a_broken_try_stops_no_other(result, data, tmp_path):
    "A strategy is judged after it was trained: what an earlier run says wrongly is said, and not counted."
    with Run.create(tmp_path, "signal", "good") as run: run.write_result(dict(source="x", sharpe_a_bar=.2))
    with Run.create(tmp_path, "signal", "bad", data=data) as run: run.write_result(dict(source="x"))
    (run.folder/"result.json").write_text(result if isinstance(result, str) else json.dumps(result))
    config = get_lab("signal").configure([f"runs={tmp_path}"]); config.data.source = "x"
    with pytest.warns(UserWarning, match="bad/(result|status).json.*not counted") as told: assert earlier_ratios(config, bars=MockDataSource(50).load()) == [.2]
    assert all(len(str(w.message)) < 500 for w in told)

def test_a_broken_run_hides_no_other(sweep, tmp_path):
    "In the table of all runs, and among sweeps."
    shutil.copytree(sweep, tmp_path/"s")
    (tmp_path/"s/a/status.json").write_text("[]")
    assert list_runs(tmp_path/"s").name.tolist()[-1] == "b"
    (tmp_path/"t").mkdir(); (tmp_path/"t/sweep.json").write_text("[]")
    assert newest_sweep("market", tmp_path).name == "s"

@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return generate_dataset(tmp_path_factory.mktemp("stores")/"s", ["lss"], 20, T=4, horizon=3, block=10, progress=False).root

def resealed(root, change=lambda manifest: None, splits=None):
    "A store whose manifest, or whose splits, say something else, sealed again."
    if splits is not None: (root/"lss/splits.json").write_text(splits)
    manifest = json.loads((root/"manifest.json").read_text())
    if splits is not None: manifest["files"]["lss/splits.json"] = file_facts(root/"lss/splits.json")
    manifest = change(manifest) or manifest
    manifest.pop("sha256", None)
    said = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    (root/"manifest.json").write_text(json.dumps(manifest | dict(sha256=hashlib.sha256(said.encode()).hexdigest())))

def read_store(root):
    "Everything that a store gives."
    store = open_store(root)
    repr(store)
    for world in store.worlds:
        splits = store.splits(world)
        for name in ARRAYS: store.read(world, name)
        for split in splits: IRFDataset(store, world, split).get_world_info(world)

def put(*path, to):
    "A change that sets a field."
    def change(document):
        at = document
        for name in path[:-1]: at = at[name]
        if to is ...: del at[path[-1]]
        else: at[path[-1]] = to
    return change

SHARD = "lss/theta/c/0/0"
MANIFESTS = [("block", -2), ("block", 0), ("block", 2**40), ("block", 1.5), ("block", True), ("block", "10"), ("block", None), ("block", ...), ("block", 20), ("block", 2),
             ("worlds", "lss", "n", -1), ("worlds", "lss", "n", 2**50), ("worlds", "lss", "n", "20"), ("worlds", "lss", "n", ...), ("worlds", "lss", "n", 1000), ("worlds", ...),
             ("worlds", ["lss"]), ("worlds", "lss", 5), ("worlds", "lss", "shapes", {}), ("worlds", "lss", "shapes", "theta", [-1]), ("worlds", "lss", "shapes", "theta", [2**60]),
             ("worlds", "lss", "shapes", "theta", 36), ("worlds", "lss", "shapes", "theta", [18, 2]), ("worlds", "lss", "shapes", "irfs", [1, 1, 1]),
             ("worlds", "lss", "parameters", "names", 3), ("worlds", "lss", "parameters", "lower", ["a"]), ("worlds", "lss", "shocks", []), ("files", ...), ("files", []),
             ("files", SHARD, ...), ("files", SHARD, {}), ("files", SHARD, "bytes", "many"), ("files", SHARD, "bytes", -1), ("files", SHARD, "sha256", None), ("files", SHARD, 7),
             ("horizon", "far"), ("T", -3), ("version", [1]), ("config_hash", {})]

@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: "-".join(map(str, path)))
def test_a_manifest_that_lies(path, store, tmp_path):
    "Sealed again: file and field in one sentence, before an array is allocated."
    root = Path(shutil.copytree(store, tmp_path/"s"))
    resealed(root, put(*path[:-1], to=path[-1]))
    refused(lambda: read_store(root), str(root))

@pytest.mark.parametrize("text", ["[]", "{}x", '{"train": 3}', '{"train": [-1]}', '{"train": [20]}', '{"train": [1.5]}', '{"train": ["1"]}', '{"train": [[1]]}', '{"train": [1, 1]}',
                                  '{"train": [true]}', '{"train": [99999999999999999999]}', '{"train": null}', '{"\\ud800": [1]}', "["*100_000])
def test_splits_that_lie(text, store, tmp_path):
    "Draws that are there, each once."
    root = Path(shutil.copytree(store, tmp_path/"s"))
    resealed(root, splits=text)
    refused(lambda: read_store(root), "splits.json")

# published models

def toy(name, *asked):
    "What a lab would train, before it does: the model, and the words of its checkpoint."
    lab = get_lab(name)
    config = lab.configure([*asked, "tracking.mode=disabled"])
    training = lab.parts(config, lab.load(config, quiet=True))[0].training
    about = training.about | dict(config=plain(asdict(config)), run="20260101-000000_toy")
    return training.objective.model, dict(about=plain(about), config=plain(asdict(training.config)), epoch=1)

DECISION = dict(recalibration=dict(kind="platt", pos_weight=1., rows=50, slope=1.2, intercept=.1), threshold=.5, payoffs=[.01, -.01], base_rate=.3)

@pytest.fixture(scope="module")
def published(tmp_path_factory):
    "A published file of each of three labs, untrained."
    folder, made = tmp_path_factory.mktemp("published"), {}
    for name, asked in (("market", ["data=mock", "model=linear"]), ("signal", ["data.source=mock"]), ("events", ["data.n=64"])):
        model, state = toy(name, *asked)
        if name == "signal": state["about"]["decision"] = DECISION
        (folder/name).mkdir()
        made[name] = save_checkpoint(folder/name/"model.safetensors", {f"model/{k}": v for k, v in model.state_dict().items()}, state)
        assert load_published(folder/name)[1]["lab"] == name
    return made

def republished(path, folder, change):
    "The same file with other words or numbers, sealed again."
    tensors, state = load_checkpoint(path)
    change(tensors, state)
    folder.mkdir()
    return save_checkpoint(folder/"model.safetensors", tensors, state).parent

def first_of(tensors, ending): return next(k for k in tensors if k.endswith(ending))
def spoil(ending, value):
    def change(tensors, state):
        k = first_of(tensors, ending)
        tensors[k] = tensors[k].clone(); tensors[k].view(-1)[0] = value
    return change

MANY = [0.], [-1.], [[1.]], ["1"], [None]       # as often as there are features
NAN, WIDE = float("nan"), {"backbone": {"d_model": 256, "blocks": ["lstm"]*60}}
TAMPERED = [    # lab, change, words of the sentence
    *(("market", lambda t, s, k=k, v=v: s["about"]["engineer"]["fitted"].update({k: v*len(s["about"]["engineer"]["fitted"][k]) if v in MANY else v}), [k]) for k, v in (
        ("std", [0.]), ("std", [-1.]), ("std", [1., 1.]), ("std", "wide"), ("std", None), ("std", [[1.]]), ("std", ["1"]), ("mean", [None]), ("mean", 0.),
        ("level", 0.), ("level", -1.), ("level", [1., 1.]), ("ratio", 0.), ("ratio", None), ("ratio", True))),
    *(("market", lambda t, s, k=k: s["about"]["engineer"]["fitted"].pop(k), [k]) for k in ("mean", "std", "level", "ratio")),
    ("market", lambda t, s: s["about"]["engineer"].update(fitted=[1]), ["fitted"]),
    ("market", lambda t, s: s["about"].update(engineer=None), ["engineer"]),
    ("market", lambda t, s: s["about"]["recipe"]["backbone"].update(WIDE["backbone"]), ["tensors"]),
    ("market", lambda t, s: s["about"].update(lab=["market"]), ["lab"]),
    ("market", lambda t, s: s["about"].update(plugins=[1]), ["plugins[0]"]),
    ("market", lambda t, s: s["about"].update(config=[1]), ["config"]),
    ("market", lambda t, s: s["about"]["config"]["model"].update(head={"name": "${oc.env:TOKEN}"}), ["written out"]),
    ("market", lambda t, s: s["about"]["config"].update(name="${oc.env:TOKEN}"), ["written out"]),
    ("market", lambda t, s: s["about"].update(recipe={"backbone": {"blocks": [["x"]]}}), []),
    ("market", lambda t, s: s.update(config=dict(lookback=10**9)), []),
    ("market", spoil("weight", NAN), ["weight"]), ("market", spoil("bias", float("inf")), ["bias"]), ("signal", spoil("weight", NAN), ["weight"]),
    ("events", spoil("weight", -float("inf")), ["weight"]), ("events", spoil("x_std", 0.), ["x_std"]), ("events", spoil("x_std", -1.), ["x_std"]),
    ("events", spoil("x_mean", NAN), ["x_mean"]), ("events", spoil("tokens", 0.), ["tokens"]), ("events", spoil("g_std", NAN), ["g_std"]),
    *(("signal", lambda t, s, v=v: s["about"]["decision"].update(v), [k]) for k, v in (
        ("threshold", dict(threshold="half")), ("threshold", dict(threshold=[.5])), ("payoffs", dict(payoffs=[1.])), ("payoffs", dict(payoffs="ab")), ("base_rate", dict(base_rate=3)),
        ("recalibration", dict(recalibration=[1])))),
    *(("signal", lambda t, s, v=v: s["about"]["decision"]["recalibration"].update(v), [k]) for k, v in (
        ("slope", dict(slope=-1.)), ("slope", dict(slope=None)), ("slope", dict(slope="steep")), ("intercept", dict(intercept=[1.])), ("pos_weight", dict(pos_weight="x")),
        ("pos_weight", dict(pos_weight=0)), ("recalibration", dict(kind=["platt"])), ("rows", dict(rows=-1)), ("rows", dict(rows="many")), ("temperature", dict(kind="temperature")))),
]

@pytest.mark.parametrize("case", range(len(TAMPERED)))
def test_a_tampered_model(case, published, tmp_path, token):
    "Scalers, weights, recalibrations and recipes: refused by name, before memory is taken."
    name, change, words = TAMPERED[case]
    folder, made = republished(published[name], tmp_path/"theirs", change), []
    hook = register_module_parameter_registration_hook(lambda module, key, p: made.append(0 if p is None else p.numel()))
    try: refused(lambda: load_published(folder), "model.safetensors", *words)
    finally: hook.remove()
    assert sum(made) < 12*2**20

def test_one_layer_that_fills_the_memory(published, tmp_path):
    "No number of it is above four thousand, and together they are 275 GB."
    folder = republished(published["market"], tmp_path/"theirs", lambda t, s: s["about"]["recipe"]["backbone"].update(
        d_model=4096, blocks=[{"name": "resconv", "kernel_size": 4095}]))
    refused(lambda: load_published(folder), "model.safetensors", "tensors")

# what was learnt and comes back as words: regimes, baselines, recalibrations of paths

BASELINES = dict(constant=ConstantVolatility, ewma=EWMAVolatility, garch=GARCH, gjr=GJRGARCH, bootstrap=BlockBootstrap)

@pytest.fixture(scope="module")
def learnt():
    "A state of each kind, as JSON brings it, and what takes it up again."
    rng = np.random.default_rng(0)
    r = .01*rng.normal(size=400)*np.repeat([.5, 1., 2., 1.], 100)
    close = 100*np.exp(np.cumsum(r))
    features, found = pd.DataFrame(dict(realized_vol=np.exp(rng.normal(size=60)), parkinson_vol=np.exp(rng.normal(size=60)))), {}
    for name in STRATEGIES: found[name] = RegimeTagger(2, clustering=name).fit(features).state(), RegimeTagger.restore
    for name, kind in BASELINES.items(): found[name] = kind().fit(close).state(), kind().load_state
    g = torch.Generator().manual_seed(0)
    paths, price, target = (100*torch.exp(.01*torch.randn(*size, generator=g).double()) for size in ((60, 9, 3), (60,), (60, 3)))
    decided = np.arange(60)*10
    for kind in SplitConformal, AdaptiveConformal: found[kind.kind] = kind().fit(paths, target, price, decided, decided + 5).state(), lambda state, kind=kind: kind().load_state(state)
    return {name: (json.loads(json.dumps(state)), again) for name, (state, again) in found.items()}

LEARNT = [      # whose state, which field, what it says instead; the sentence names the field
    *(("kmeans", path, to) for path, to in ((("n_clusters",), 10**9), (("n_clusters",), "2"), (("n_clusters",), 3), (("log",), 1), (("random_state",), -1), (("options",), [1]),
        (("options",), {"algorithm": "x"}), (("options", "n_init"), 10**9), (("vol_features",), "realized_vol"), (("vol_features",), []), (("vol_features",), [1, 2]), (("clustering",), ["kmeans"]),
        (("learnt",), []), (("learnt",), {}), (("learnt", "centres"), [[0., 0.]]), (("learnt", "centres"), [[0.], [1.]]), (("learnt", "centres"), [[0., 1.], [None, 1.]]), (("learnt", "centres"), [0., 1.]),
        (("fitted",), None), (("fitted",), {}), (("fitted", "least"), [0., 1.]), (("fitted", "mean"), 0.), (("fitted", "mean"), [0.]), (("fitted", "std"), [1., -1.]), (("fitted", "std"), [1., NAN]),
        (("fitted", "rank"), [0, 0]), (("fitted", "rank"), [0, 5]), (("fitted", "rank"), [0., 1.]))),
    *(("gaussian_mixture", path, to) for path, to in ((("learnt", "weights"), [1.]), (("learnt", "weights"), [1., 0.]), (("learnt", "weights"), None), (("learnt", "whiten"), [[1., 0.], [0., 1.]]),
        (("learnt", "whiten"), [[[1., 0.], [0., -1.]]]*2), (("options", "covariance_type"), "round"))),
    *((name, (k,), to) for name in BASELINES for k, to in (("mean", "x"), ("mean", None), ("mean", 10**400), ("std", 0.), ("std", -1), ("std", [1.]), ("std", True),
        ("simulate", 3), ("__class__", "x"), ("unknown", 1.))),
    *(("ewma", ("decay",), to) for to in (0., 1., 2., "x", NAN)),
    *(("garch", (k,), to) for k, to in (("errors", "cauchy"), ("errors", ["t"]), ("mu", "x"), ("mu", 1e300), ("omega", -1.), ("omega", 1e300), ("alpha", -1.), ("alpha", 3.), ("beta", 1.5), ("beta", None), ("gamma", -5.),
        ("gamma", True), ("nu", 2.), ("nu", "8"), ("backcast", -1.), ("backcast", [1.]), ("converged", 1), ("asymmetric", True), ("max_iterations", 10**9))),
    *(("bootstrap", (k,), to) for k, to in (("block", 0), ("block", 1.5), ("block", 10**12), ("window", 3), ("window", -1), ("window", "all"))),
    *((name, (k,), to) for name in ("split", "adaptive") for k, to in (("levels", "x"), ("levels", [.1, .2]), ("levels", [[.5]]), ("levels", None), ("shift", 1), ("smooth", -1.), ("smooth", "x"), ("shrink", None), ("min_windows", 1),
        ("min_windows", 2.5), ("table", [[0.]]), ("table", "x"), ("table", []), ("windows", [1.5, 1, 1]), ("windows", [1]), ("known_until", "now"), ("known_until", 2**64), ("kind", "other"))),
    *(("adaptive", (k,), to) for k, to in (("gamma", -1.), ("gamma", None), ("working", [[.5]]), ("working", 0.), ("pending", {}), ("pending", [[1, 2]]), ("pending", [[1, 2, [0.]]]), ("pending", [["a", 2, [0., 0., 0.]]]),
        ("pending", [[1, 2, [0., 0., 0.]]]), ("seen_until", .5), ("decided_until", True))),
]

AGREE = {("n_clusters", "3"): ["centres"], ("levels", "[0.1, 0.2]"): ["table"], ("kind", "other"): ["'other'"]}      # what no longer agrees with it
MAY_LACK = "random_state", "nu", "window", "known_until", "seen_until", "decided_until"

def disbelieved(name, change, learnt, *words):
    state, again = learnt[name]
    told = json.loads(json.dumps(state))
    again(told)
    change(told)
    with pytest.raises(ValueError) as error: again(told)
    said = str(error.value)
    assert type(error.value) is ValueError and any(word in said for word in words) and len(said) < 300 and "\n" not in said, said

@pytest.mark.parametrize("case", range(len(LEARNT)))
def test_what_was_learnt_is_looked_at(case, learnt):
    "A field of a state is another: one sentence names it."
    name, path, to = LEARNT[case]
    disbelieved(name, put(*path, to=to), learnt, *path, *AGREE.get((path[0], str(to)), ()))

@pytest.mark.parametrize("name", [*STRATEGIES, *BASELINES, "split", "adaptive"])
def test_a_state_that_lacks_a_field(name, learnt):
    for k in learnt[name][0].keys() - {*MAY_LACK}: disbelieved(name, put(k, to=...), learnt, k)
    for state in None, [], "x": pytest.raises(ValueError, learnt[name][1], state)

# numbers that ask for too much

MUCH = [("market", "evaluation.n_boot=100000000"), ("market", "training.processes=1000"), ("market", "evaluation.n_paths=10000000000"), ("signal", "evaluation.n_boot=100000000"),
        ("signal", "evaluation.random_draws=1000000000"), ("signal", "training.processes=1000"), ("macro", "training.processes=1000"), ("events", "evaluation.n_boot=100000000"),
        ("events", "data.processes=1000"), ("quant", "evaluation.n_boot=100000000"), ("quant", "evaluation.controls=100000000"), ("quant", "jobs=1000"), ("market", "threads=1000000"), ("market", "training.n_paths=10000000000"), ("macro", "data.processes=1000"), ("events", "evaluation.samples=10000000000"),
        ("macro", "evaluation.timing_draws=10000000000"), ("macro", "evaluation.calibration_draws=10000000000"), ("macro", "evaluation.certificate_draws=10000000000"), ("macro", "evaluation.slow_draws=10000000000")]

@pytest.mark.parametrize("lab, asked", MUCH, ids=lambda x: x)
def test_numbers_that_ask_for_too_much(lab, asked):
    "Refused by the schema, before memory is taken or a process is started."
    refused(lambda: get_lab(lab).configure([asked]), asked.partition("=")[0].rpartition(".")[2])
    refused(lambda: read_yaml(get_lab(lab).schema, "{" + ": {".join(asked.partition("=")[0].split(".")) + ": " + asked.partition("=")[2] + "}"*(1 + asked.count("."))), "config.yaml")

def test_members_of_a_forecast_are_bounded():
    for n in 0, 10**10: refused(lambda: simulate_on(None, {}, None, n_paths=n), "n_paths", "use 1 to 100,000")

def test_one_bound_of_processes(tmp_path):
    "For trainings, for simulators and for whoever does tasks on one machine."
    assert MOST["processes"] == PROCESSES == SIMULATING
    for call in (lambda: generate_dataset(tmp_path/"s", ["nk"], n=2, processes=1000), lambda: generate_dataset(tmp_path/"s", ["nk"], n=2, processes=0),
                 lambda: generate_collisions({next(iter(COLLISIONS)): 2}, root=tmp_path/"c", processes=1000), lambda: run_tasks([], tmp_path/"t", jobs=1000)):
        with pytest.raises(ValueError, match="(processes|jobs) is (1,000|0); use 1 to 256( processes, or more on a cluster)?$"): call()
    assert not [*tmp_path.iterdir()]

# R27

DEEP = json.loads("["*40 + "]"*40)
ODD = [None, True, False, -1, 0, 1, 3, 2**40, 2**63, 10**400, -.5, 1e308, NAN, float("inf"), "", "x", "\ud800", "${oc.env:TOKEN}", "x"*5000, "../..", "a/b", "\0", [], {}, [[]], [1, 1],
       ["x"], {"a": {}}, {"name": "x"}, [0]*50, DEEP, {"name": "${oc.env:TOKEN}"}]

def places(document, path=()):
    "Every field of a document."
    inside = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for k, v in inside:
        yield (*path, k)
        yield from places(v, (*path, k))

def mutated(document, draw):
    "One field of another kind, missing, doubled, or new."
    document = json.loads(json.dumps(document))
    path = draw.choice([(), *places(document)])
    if not path: return draw.choice(ODD)
    at = document
    for k in path[:-1]: at = at[k]
    k, what = path[-1], draw.random()
    if what < .15: del at[k]
    elif what < .2 and isinstance(at, dict): at[draw.choice(["extra", "\ud800", "${oc.env:TOKEN}", "x"*300])] = at[k]
    elif what < .3 and isinstance(at[k], int | float): at[k] *= draw.choice([-1, 10, 1000, .1])
    else: at[k] = draw.choice(ODD)
    return document

class Documents:
    "Folders with a document of each kind, and how each is changed and read."
    def __init__(self, sweep, store, published, root):
        self.run, self.store, self.published, self.root = root/"s/a", root/"store", published, root
        shutil.copytree(sweep, root/"s"); shutil.copytree(store, self.store)
        for name in published: shutil.copytree(published[name].parent, root/name)
        self.whole = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}

    def restore(self):
        for path, data in self.whole.items():
            if path.read_bytes() != data: path.write_bytes(data)

    def json(self, file, draw):
        path = self.run/file
        path.write_text(json.dumps(mutated(json.loads(path.read_text()), draw)))
        return path, lambda: read_run(self.run)

    def status(self, draw): return self.json("status.json", draw)
    def result(self, draw): return self.json("result.json", draw)
    def meta(self, draw): return self.json("facts/meta.json", draw)
    def sweep(self, draw): return self.json("../sweep.json", draw)

    def events(self, draw):
        path = self.run/"facts/events.jsonl"
        said = mutated([json.loads(line) for line in path.read_text().splitlines()], draw)
        path.write_text("".join(json.dumps(e) + "\n" for e in (said if isinstance(said, list) else [said])))
        return path, lambda: read_run(self.run)

    def scalars(self, draw):
        path = self.run/"facts/scalars.csv"
        cells = mutated([line.split(",") for line in path.read_text().splitlines()], draw)
        lines = [",".join(map(str, c)) if isinstance(c, list) else str(c) for c in (cells if isinstance(cells, list) else [cells])]
        path.write_text("\n".join(lines) + "\n", errors="replace")
        return path, lambda: read_run(self.run)

    def config(self, draw):
        path = self.run/"config.yaml"
        said = mutated(json.loads(json.dumps(plain(asdict(get_lab("market").configure())))), draw)
        path.write_text(json.dumps(said))
        return path, lambda: run_config(*open_run(self.run))

    def typed(self, draw):
        path = self.run/"overrides.yaml"
        path.write_text(f"- {json.dumps(mutated(['training.lr=0.1'], draw))}\n")
        return path, lambda: read_run(self.run)

    def header(self, draw):
        path = self.run/"checkpoints/last.safetensors"
        data = path.read_bytes()
        length, = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + length])
        own = json.loads(header.pop("__metadata__")["synthlab"]) | dict(sha256="0"*64)
        if draw.random() < .5: header = mutated(header, draw)
        else: own = mutated(own, draw)
        if isinstance(header, dict): header["__metadata__"] = {"synthlab": json.dumps(own)}
        raw = json.dumps(header).encode()
        data = struct.pack("<Q", len(raw)) + raw + data[8 + length:]
        path.write_bytes(data.replace(b"0"*64, hashlib.sha256(data).hexdigest().encode(), 1))
        def read():
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                found = newest_checkpoint(path.parent, model(), TRAINING)[0]
            assert found == path or len(told) == 1 and len(str(told[0].message)) < 700
        return path, read

    def manifest(self, draw):
        def change(manifest):
            said = mutated(manifest, draw)
            return said if isinstance(said, dict) and said else {"version": "1.0.0", "sha256": ""}
        resealed(self.store, change)
        return self.store, lambda: read_store(self.store)

    def splits(self, draw):
        path = self.store/"lss/splits.json"
        resealed(self.store, splits=json.dumps(mutated(json.loads(path.read_text()), draw)))
        return path, lambda: read_store(self.store)

    def card(self, draw):
        name = draw.choice(sorted(self.published))
        path = self.root/name/"model.safetensors"
        tensors, state = load_checkpoint(path)
        said = mutated(state, draw)
        try: save_checkpoint(path, tensors, said)
        except (UnicodeEncodeError, RecursionError): pass
        return path, lambda: load_published(path.parent)

@pytest.fixture(scope="module")
def documents(sweep, store, published, tmp_path_factory): return Documents(sweep, store, published, tmp_path_factory.mktemp("documents"))

@pytest.mark.parametrize("kind", ["status", "result", "meta", "sweep", "events", "scalars", "config", "typed", "header", "manifest", "splits", "card"])
@pytest.mark.parametrize("seed", cases(17, 1700))
def test_any_field_of_any_document(kind, seed, documents, token):
    "One field is another, and the digest right: it is read, or one sentence names the file; nothing is resolved."
    draw = random.Random(f"{kind} {seed}")
    try:
        path, read = getattr(documents, kind)(draw)
        try: read()
        except (ConfigError, CheckpointError, StoreError) as error:
            said = str(error)
            assert type(error) in (ConfigError, CheckpointError, FactsError, StoreError) and "\n" not in said and len(said) < 1000 and "s3cret" not in said, said
            assert path.name in said or "has finished its training" in said, said
    finally: documents.restore()
