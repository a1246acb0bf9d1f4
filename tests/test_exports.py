"Files that others run: they say what the model says, are whole or absent, and neither hold nor need a pickle."
import io, json, os, pickle, pickletools, subprocess, sys, zipfile

import numpy as np, pytest, torch
from torch import nn

from synthlab.models.price_action import LSTMBaseline, PriceActionTransformer, create_classifier
from synthlab.trainers import exports
from synthlab.trainers.exports import export_onnx, export_program, load_onnx, load_program, plain_program

ORT = pytest.importorskip("onnxruntime", reason='needs pip install ".[export]"')
ABOUT = {"feature_names": "close volume rsi", "threshold": "0.4"}

def small(**options): return create_classifier({"name": "transformer", "d_model": 8, "nhead": 2, "num_layers": 1, "dim_feedforward": 16} | options, 3, seed=0)
def windows(n, T=12, F=3, seed=0): return torch.randn(n, T, F, generator=torch.Generator().manual_seed(seed))
def says(model, x):
    with torch.no_grad(): return model.eval()(x).reshape(len(x)).numpy()

class Scaled(nn.Module):
    "What a lab exports: scaling, network, recalibration, a sigmoid."
    def __init__(self, model):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.linspace(90, 110, 14)); self.register_buffer("std", torch.linspace(1, 5, 14))
    def forward(self, x): return ((self.model.logits((x - self.mean)/self.std) - 2.2)/1.3).sigmoid()

@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "A full transformer on prices, in both formats."
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    model = Scaled(PriceActionTransformer())
    with torch.no_grad(): model.model.head[3].weight.mul_(20)   # an untrained network says nearly the same of every window
    return model, export_onnx(model, folder/"a.onnx", 64, 14, ABOUT), export_program(model, folder/"a.pt2", 64, 14, ABOUT)

@pytest.fixture(scope="module")
def read(files):
    "Both files, as somebody has read them: reading a program takes seconds."
    return load_onnx(files[1]), load_program(files[2])

def test_the_same_probabilities(files, read):
    model, onnx, _ = files
    for n in (1, 2, 300):
        x = 100 + 3*windows(n, 64, 14, seed=n)
        truth = says(model, x)
        for there in read:
            said = there(x)
            assert said.shape == (n,) and said.dtype == np.float32 and np.abs(said - truth).max() < 1e-5
    assert truth.std() > .05                                    # windows that differ
    assert onnx.stat().st_size < 1.1*4*406_785 + 100_000        # numbers once, and no table of places for longer windows

@pytest.mark.slow
def test_the_recurrent_one_too(tmp_path):
    model, x = LSTMBaseline(3, 8, 2), windows(9, 4)
    truth = says(model, x)
    assert np.abs(load_onnx(export_onnx(model, tmp_path/"l.onnx", 4, 3))(x) - truth).max() < 1e-5

def test_what_a_file_says_of_itself(read):
    for there in read:
        assert there.about == {"window": "64", "features": "14"} | ABOUT and (there.window, there.features) == (64, 14)
        assert there(np.zeros((0, 64, 14))).shape == (0,)
        with pytest.raises(ValueError, match=r"reads \(B, 64, 14\), got \(2, 64, 13\)"): there(np.zeros((2, 64, 13)))
        with pytest.raises(ValueError, match=r"one window x is x\[None\]"): there(np.zeros((64, 14)))

def test_a_stranger_runs_it(files):
    "onnxruntime alone, without this package or torch."
    model, onnx, _ = files
    code = ("import sys, numpy, onnxruntime; s = onnxruntime.InferenceSession(sys.argv[1]); p, = s.run(['probability'], {'history': numpy.full((2, 64, 14), 100, 'float32')});"
            "print(p[0], s.get_modelmeta().custom_metadata_map['threshold'], 'torch' in sys.modules, 'synthlab' in sys.modules)")
    out = subprocess.run([sys.executable, "-c", code, onnx], capture_output=True, text=True, check=True, cwd=onnx.parent).stdout.split()
    assert abs(float(out[0]) - says(model, torch.full((1, 64, 14), 100.))[0]) < 1e-5 and out[1:] == ["0.4", "False", "False"]

def test_standard_operators_only(files):
    import onnx
    proto = onnx.load(files[1]); onnx.checker.check_model(proto, full_check=True)
    assert {n.domain for n in proto.graph.node} == {""} and not proto.functions
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in shape] == ["batch", 64, 14]

def test_no_trace_of_the_machine(files):
    for file in files[1:]:
        data = file.read_bytes()
        for trace in (os.getcwd(), str(os.path.dirname(exports.__file__)), sys.prefix, "site-packages", "stack_trace", 'File \\"'): assert trace.encode() not in data, trace

# no pickle

def pickles(data, at=""):
    "Where in bytes, however deep in zips, a pickle is: by name, and by content that the pickle machine would read to its end."
    found = []
    if data[:4] == b"PK\x03\x04" or zipfile.is_zipfile(io.BytesIO(data)):
        archive = zipfile.ZipFile(io.BytesIO(data))
        for info in archive.infolist(): found += pickles(archive.read(info), f"{at}/{info.filename}")
        return found
    if at.endswith((".pkl", ".pickle")): return [at]
    if data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05":
        try: found += [at] if sum(1 for _ in pickletools.genops(data)) else []
        except Exception: pass
    return found

def test_the_detector_sees_what_torch_saves_by_itself():
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(small().eval(), (windows(2),)), buffer)
    assert [p.split("/")[-1] for p in pickles(buffer.getvalue())] == ["data.pkl"] and "sample_inputs" in pickles(buffer.getvalue())[0]
    assert pickles(pickle.dumps([1, 2])) == [""]
    with pytest.raises(ValueError, match="no program of a classifier"): plain_program(buffer.getvalue())

def test_files_hold_no_pickle(files):
    for file in files[1:]: assert pickles(file.read_bytes()) == []
    archive = zipfile.ZipFile(files[2])
    assert {i.filename: i.file_size for i in archive.infolist()}["archive/data/sample_inputs/model.pt"] == 0
    for i in archive.infolist():
        if i.filename.endswith("_config.json"): assert not any(v["use_pickle"] for v in json.loads(archive.read(i))["config"].values())
    weights = sum(i.file_size for i in archive.infolist() if "/weight_" in i.filename)
    assert weights == 4*(406_785 + 28)                          # raw float32: the network, means and deviations

@pytest.fixture
def no_pickle(monkeypatch):
    "A world in which pickling and unpickling fail."
    def refuse(*args, **options): raise AssertionError("a pickle was asked for")
    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler", "_Pickler", "_Unpickler"): monkeypatch.setattr(pickle, name, refuse)
    for name in ("save", "load"): monkeypatch.setattr(torch, name, refuse); monkeypatch.setattr(torch.serialization, name, refuse)
    monkeypatch.setattr(torch._C, "_pickle_save", refuse); monkeypatch.setattr(torch._C, "_pickle_load_obj", refuse)

def test_nothing_is_pickled_or_unpickled(files, tmp_path, no_pickle):
    with pytest.raises(AssertionError, match="a pickle was asked for"): torch.export.save(torch.export.export(small().eval(), (windows(2),)), io.BytesIO())    # the guard bites
    model, x = small(), windows(5)
    truth = says(model, x)
    for export, load, name in ((export_onnx, load_onnx, "a.onnx"), (export_program, load_program, "a.pt2")):
        assert np.abs(load(export(model, tmp_path/name, 12, 3))(x) - truth).max() < 1e-5

class Bomb:
    def __reduce__(self): return exec, ("import builtins; builtins.exploded = True",)

@pytest.mark.parametrize("record", ["data/sample_inputs/model.pt", "data/constants/opaque_obj_0", "data/constants/custom_obj_0", "data/weights/model.pt", "data/constants/model.pt",
                                    "data/aotinductor/model/model.so", "models/other.json", "version", "extra/other"])
def test_a_doctored_program_is_refused_unread(files, tmp_path, record, monkeypatch):
    "Each record is one that torch would unpickle, run or take for another format."
    import builtins
    bomb = io.BytesIO(); torch.save(Bomb(), bomb)
    with zipfile.ZipFile(files[2]) as old, zipfile.ZipFile(tmp_path/"x.pt2", "w") as new:
        for i in old.infolist():
            if i.filename != f"archive/{record}": new.writestr(i.filename, old.read(i))
        new.writestr(f"archive/{record}", bomb.getvalue())
    monkeypatch.setattr(torch.export, "load", lambda *a, **k: pytest.fail("torch was given the file"))
    with pytest.raises(ValueError, match="what torch would unpickle or run"): load_program(tmp_path/"x.pt2")
    assert not hasattr(builtins, "exploded")

def test_a_weight_marked_as_pickled_is_refused(files, tmp_path):
    with zipfile.ZipFile(files[2]) as old, zipfile.ZipFile(tmp_path/"x.pt2", "w") as new:
        for i in old.infolist():
            data = old.read(i)
            if i.filename.endswith("model_weights_config.json"): data = data.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
            new.writestr(i.filename, data)
    with pytest.raises(ValueError, match="model_weights_config.json: model.model"): load_program(tmp_path/"x.pt2")
    with zipfile.ZipFile(tmp_path/"x.pt2", "a") as twice, pytest.warns(UserWarning): twice.writestr("archive/archive_format", "pt2")
    with pytest.raises(ValueError, match="two records of one name"): load_program(tmp_path/"x.pt2")

# whole or not at all

def test_a_full_disk_leaves_the_old_file(files, tmp_path, monkeypatch):
    (tmp_path/"a.pt2").write_bytes(b"the old one")
    with monkeypatch.context() as m:
        def full(*args): raise OSError(28, "No space left on device")
        m.setattr(os, "write", full)
        with pytest.raises(OSError, match="cannot write"): export_program(small(), tmp_path/"a.pt2", 12, 3, ABOUT)
    assert (tmp_path/"a.pt2").read_bytes() == b"the old one" and len(list(tmp_path.iterdir())) == 1

def test_the_same_model_makes_the_same_bytes(tmp_path):
    first = export_program(small(), tmp_path/"a.pt2", 12, 3, ABOUT).read_bytes()
    assert export_program(small(), tmp_path/"a.pt2", 12, 3, ABOUT).read_bytes() == first

@pytest.mark.parametrize("load,name", [(load_onnx, "a.onnx"), (load_program, "a.pt2")])
def test_torn_files(files, tmp_path, load, name):
    data = (files[1] if name == "a.onnx" else files[2]).read_bytes()
    for part in (b"", b"text", data[:len(data)//2], data[:-100]):
        (tmp_path/name).write_bytes(part)
        with pytest.raises(ValueError, match="a\\.(onnx|pt2)") as error: load(tmp_path/name)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError): load(tmp_path/"none"/name)

def test_the_model_is_left_alone(tmp_path):
    model = small(); model.encoder.layers[0].eval()
    state, modes = {k: v.clone() for k, v in model.state_dict().items()}, [m.training for m in model.modules()]
    places, fast = model.place.waves.shape, torch.backends.mha.get_fastpath_enabled()
    export_program(model, tmp_path/"a.pt2", 12, 3)
    assert [m.training for m in model.modules()] == modes and all(v.equal(model.state_dict()[k]) for k, v in state.items())
    assert model.place.waves.shape == places and all(p.requires_grad for p in model.parameters()) and torch.backends.mha.get_fastpath_enabled() == fast and torch.is_grad_enabled()

class Broken(nn.Module):
    "Can be tried and not be traced."
    def forward(self, x): return x.mean((1, 2)).sigmoid()*(1. if x.sum().item() > 1e9 else .5)

def test_a_failed_trace_puts_everything_back(tmp_path):
    fast = torch.backends.mha.get_fastpath_enabled()
    for export, name in ((export_onnx, "a.onnx"), (export_program, "a.pt2")):
        with pytest.raises(Exception): export(Broken(), tmp_path/name, 12, 3)
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.is_grad_enabled() and not list(tmp_path.iterdir())

@pytest.mark.parametrize("missing", ["onnxruntime", "onnx", "onnxscript"])
def test_without_the_extra(files, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=f'without {missing}; type python -m pip install "{missing}>='):
        load_onnx(files[1]) if missing == "onnxruntime" else export_onnx(small(), tmp_path/"a.onnx", 12, 3)
    if missing == "onnxruntime": export_program(small(), tmp_path/"a.pt2", 12, 3)       # torch alone is enough
