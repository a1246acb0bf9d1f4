"""Files that are damaged, hostile, or cannot be written.

R6 a checkpoint cut off or with a flipped bit, R7 one made to harm, R9 a disk that is full, read-only or broken."""
import errno, io, json, os, pickle, random, resource, shutil, struct, tracemalloc, zipfile

import pytest, torch

import tiny
from tiny import cases, model
from synthlab.datasets.disk import atomic_write
from synthlab.trainers import checkpoints
from synthlab.trainers.checkpoints import CheckpointError, HEADER_LIMIT, load_checkpoint, newest_checkpoint
from synthlab.trainers.trainer import Trainer, TrainingConfig

run = tiny.trained

# R6

@pytest.mark.parametrize("seed", cases(100, 2000))
def test_damaged_checkpoint(seed, run, tmp_path):
    "One bit or a lost end, anywhere: refused by name, and the other checkpoint is used."
    draw, whole = random.Random(seed), bytearray((run/"checkpoints/last.safetensors").read_bytes())
    if seed % 2: del whole[draw.randrange(len(whole)):]
    else: whole[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
    shutil.copy(run/"checkpoints/best.safetensors", tmp_path)
    damaged = tmp_path/"last.safetensors"; damaged.write_bytes(whole)
    with pytest.raises(CheckpointError, match="last.safetensors is not a whole checkpoint"): load_checkpoint(damaged, model())
    with pytest.warns(UserWarning, match="last.safetensors is not a whole checkpoint.*going on from best"):
        assert newest_checkpoint(tmp_path, model())[0].name == "best.safetensors"

def test_damaged_resume(run, tmp_path):
    "A training goes on from the other checkpoint, to the same end."
    shutil.copytree(run, tmp_path/"run")
    last = tmp_path/"run/checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="last.safetensors is not a whole checkpoint"): tiny.train(tmp_path/"run")
    assert tiny.differs(tiny.left_by(tmp_path/"run"), tiny.left_by(run)) == []

# R7

class Touch:
    "Runs a command when it is unpickled."
    def __init__(self, path): self.path = path
    def __reduce__(self): return os.system, (f"touch {self.path}",)

def with_header(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data

def own(text='{"sha256": "%s", "state": {}}' % ("0"*64)): return {"synthlab": text}
def tensor(shape=(1,), offsets=(0, 4), dtype="F32"): return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}

def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in files.items(): z.writestr(name, content)
    return out.getvalue()

def saved(data, **kwargs):
    out = io.BytesIO(); torch.save(data, out, **kwargs); return out.getvalue()

HOSTILE = {     # what the file is, made with a harmful object at hand
    "a pickle": lambda bad: pickle.dumps(bad),
    "an old pickle": lambda bad: pickle.dumps(bad, 0),
    "torch.save": lambda bad: saved({"model/w": bad}),
    "torch.save of old": lambda bad: saved({"model/w": bad}, _use_new_zipfile_serialization=False),
    "a zip with a pickle and a checkpoint": lambda bad: zipped(**{"last.safetensors": with_header({}), "data.pkl": pickle.dumps(bad)}),
    "a checkpoint before a zip": lambda bad: with_header({"__metadata__": own()}) + zipped(x=pickle.dumps(bad)),
    "a pickle as metadata": lambda bad: with_header({"__metadata__": {"synthlab": pickle.dumps(bad, 0).decode()}}),
    "a header longer than the file": lambda bad: with_header({"__metadata__": own()}, length=2**62),
    "a header of a thousand times its limit": lambda bad: with_header(b"{}", length=1000*HEADER_LIMIT),
    "a million brackets": lambda bad: with_header(b"["*1_000_000),
    "a number of a million digits": lambda bad: with_header(b'{"__metadata__": ' + b"9"*1_000_000 + b"}"),
    "eight million bytes of lists": lambda bad: with_header(b"[" + b"[],"*(HEADER_LIMIT//3 - 2) + b"[]]"),
    "a tensor of 2^60 values": lambda bad: with_header({"__metadata__": own(), "w": tensor((2**60,), (0, 2**62))}),
    "two tensors in one place": lambda bad: with_header({"__metadata__": own(), "a": tensor(), "b": tensor()}, b"\0"*4),
    "another shape": lambda bad: checkpoints.checkpoint_bytes({k: v.flatten()[:1] for k, v in own_tensors().items()}, {}),
}
def own_tensors(): return {f"model/{k}": v for k, v in model().items() if v.ndim}

@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_checkpoint(what, tmp_path):
    "Refused with its name, nothing run, memory bounded."
    path, witness = tmp_path/"last.safetensors", tmp_path/"witness"
    path.write_bytes(HOSTILE[what](Touch(witness)))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="last.safetensors is"): load_checkpoint(path, model())
        assert tracemalloc.get_traced_memory()[1] < 400*2**20
    finally: tracemalloc.stop()
    assert not witness.exists()

def test_the_harmful_object_does_harm(tmp_path):
    "What is refused above would have run."
    pickle.loads(pickle.dumps(Touch(tmp_path/"witness")))
    assert (tmp_path/"witness").exists()

# R9

def failing(monkeypatch, number, place):
    "From now on, writing below a temporary name fails."
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "replace")}
    def open_(path, flags, *more):
        if flags & os.O_CREAT and place == "open": raise OSError(number, os.strerror(number))
        return real["open"](path, flags, *more)
    def other(name):
        def call(*args):
            if name == "write" and place == "write": real["write"](args[0], bytes(args[1])[:10])
            if name == place: raise OSError(number, os.strerror(number))
            return real[name](*args)
        return call
    monkeypatch.setattr(os, "open", open_)
    for name in "write", "fsync", "replace": monkeypatch.setattr(os, name, other(name))

DISKS = [(errno.ENOSPC, "write"), (errno.ENOSPC, "fsync"), (errno.ENOSPC, "open"), (errno.EROFS, "open"), (errno.EACCES, "open"),
         (errno.EIO, "write"), (errno.EIO, "fsync"), (errno.EIO, "replace")]

@pytest.mark.parametrize("number,place", DISKS, ids=lambda x: errno.errorcode.get(x, x) if isinstance(x, int) else x)
def test_disk_fails(number, place, tmp_path, monkeypatch):
    "The error names path and free space, the checkpoint before is intact, and after the repair the end is the same."
    folder = tmp_path/"run"
    with monkeypatch.context() as patch:
        broken = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), folder)
        advance = broken.advance
        def breaks(): advance(); broken.step == 15 and failing(patch, number, place)
        broken.advance = breaks
        with pytest.raises(OSError, match="cannot write .*MiB free on that disk") as told: broken.fit(*tiny.train_val())
    assert told.value.errno == number and str(folder) in str(told.value) and os.strerror(number) in str(told.value)
    assert newest_checkpoint(folder/"checkpoints", model())[2]["step"] == 14
    assert not list((folder/"checkpoints").glob(".*"))
    tiny.train(folder); tiny.train(tmp_path/"other")
    assert tiny.differs(tiny.left_by(folder), tiny.left_by(tmp_path/"other")) == []

def test_file_too_large(tmp_path):
    "The real thing: the system refuses to let a file grow, in a process of its own."
    folder = tmp_path/"run"; tiny.train(folder); before = tiny.left_by(folder)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))     # Python ignores the signal that comes with it
            atomic_write(folder/"checkpoints/last.safetensors", b"x"*5000)
        except OSError as error: code = 0 if error.errno == errno.EFBIG and "MiB free" in str(error) else 2
        finally: os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert tiny.differs(tiny.left_by(folder), before) == []
