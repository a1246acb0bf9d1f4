"""Documents whose digest is right and whose contents are not.

R25 tampered scalers and weights, R27 every field of every kind of document: of another kind, missing, negative, huge, nested, interpolated."""
import hashlib, json, random, re, shutil, struct
from pathlib import Path

import pytest, torch

import tiny
from tiny import cases
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
