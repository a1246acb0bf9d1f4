"""Documents whose digest is right and whose contents are not.

R25 tampered scalers and weights, R27 every field of every kind of document: of another kind, missing, negative, huge, nested, interpolated."""
import hashlib, json, random, re, shutil, struct, time
from pathlib import Path

import pytest, torch, yaml

import tiny
from tiny import cases
from synthlab.datasets.store import StoreError
from synthlab.experiments.config import read_yaml, to_schema
from synthlab.experiments.experiment import open_run, run_config
from synthlab.experiments.lab import get_lab
from synthlab.experiments.profiles import read_profiles
from synthlab.experiments.settings import read_value
from synthlab.labs.quant.configuration import read_plain
from synthlab.models.registry import ConfigError
from synthlab.trainers.checkpoints import CheckpointError, load_checkpoint, newest_checkpoint, save_checkpoint

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")/"run"
    tiny.train(folder)
    return folder

def model(): return tiny.Regression().model.state_dict()

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
    assert type(told.value) in (ConfigError, CheckpointError, StoreError) and "s3cret" not in said and "\n" not in said and len(said) < 700, said
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
