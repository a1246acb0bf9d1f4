"The smallest training with everything in it: noise, dropout, running means. Importable by processes that tests start and kill."
import errno, itertools, json, multiprocessing, os, signal, time
from pathlib import Path

import pytest, torch
from torch import nn

from synthlab.experiments.runs import Run
from synthlab.trainers.facts import Facts
from synthlab.trainers.processes import launch
from synthlab.trainers.trainer import Trainer, TrainingConfig

# torch is imported once; each process that a test starts is a fork of the one that did
spawner = multiprocessing.get_context("forkserver")
PRELOAD = ["pytest", "jupyter_client", "synthlab.trainers.trainer", "synthlab.trainers.processes", "synthlab.experiments.runs", "torch._dynamo"]
spawner.set_forkserver_preload(PRELOAD)     # and what is imported by this file and by those that use it

def cases(few, many):
    "Seeds: a few always, many with `-m soak`."
    return [*range(few), *(pytest.param(i, marks=pytest.mark.soak) for i in range(few, many))]

class Batches:
    "Batches of a dict of tensors, in an order that is a pure function of (seed, epoch, position)."
    def __init__(self, data, batch_size=10, seed=0, shuffle=True):
        self.data, self.batch_size, self.seed, self.shuffle = data, batch_size, seed, shuffle
        self.n = len(next(iter(data.values())))
    def __len__(self): return -(-self.n//self.batch_size)
    def order(self, epoch):
        if not self.shuffle: return torch.arange(self.n)
        return torch.randperm(self.n, generator=torch.Generator().manual_seed(1000*self.seed + epoch))
    def batch(self, epoch, position, rank=0, world=1):
        rows = self.order(epoch)[position*self.batch_size:][:self.batch_size][rank::world]
        return {k: v[rows] for k, v in self.data.items()}

def data(n=95, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=g)
    return {"x": x, "y": x @ torch.tensor([3., -1., .5]) + .1*torch.randn(n, generator=g)}

def train_val(): return Batches(data()), Batches(data(33, 1), shuffle=False)

class Net(nn.Module):
    def __init__(self, dropout=.1):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 1))
    def forward(self, x): return self.layers(x)[:, 0]

def plain():
    "A network without anything random and without running means."
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))

class Regression:
    "Squared error under input noise. A step or a validation batch takes a `pause`, and a file says when the pauses have begun."
    phases, monitor = ("model",), "squared_error"
    def __init__(self, noise=.1, dropout=.1, model=None, pause=0., pause_val=0., mark=None):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = Net(dropout) if model is None else model
        self.noise, self.pause, self.pause_val, self.mark, self.calls = noise, pause, pause_val, mark, 0
    def wait(self, seconds):
        if not seconds: return
        self.calls += 1
        if self.mark and self.calls == 7: Path(self.mark).touch()     # the 7th step, or the 3rd batch of the 2nd validation
        time.sleep(seconds)
    def parameters(self, phase): return self.model.parameters()
    def loss(self, batch, phase, generator):
        self.wait(self.pause)
        x = batch["x"] + self.noise*torch.randn(batch["x"].shape, generator=generator)
        error = self.model(x) - batch["y"]
        return (error**2).mean(), {"absolute_error": error.detach().abs().mean()}
    def evaluate(self, batch, generator):
        self.wait(self.pause_val)
        x = batch["x"] + self.noise*torch.randn(batch["x"].shape, generator=generator)
        return {"squared_error": (self.model(x) - batch["y"])**2}

class Account(Regression):
    "Squared error, and a moving average of the errors that is moved once a step, with a draw of its own."
    def __init__(self, **options):
        super().__init__(**options)
        for name in "seen", "average", "drawn": self.model.register_buffer(name, torch.zeros(()))
        self.order = []
    def loss(self, batch, phase, generator):
        self.order.append(phase)
        loss, numbers = super().loss(batch, phase, generator)
        self.model.seen += loss.detach()
        return loss, numbers
    def after_step(self, generator):
        assert not torch.is_grad_enabled()
        self.order.append("after")
        self.model.drawn.copy_(torch.randn((), generator=generator))
        self.model.average.lerp_(self.model.seen + .01*self.model.drawn + .01*torch.randn(()), .1)
        self.model.seen.zero_()

CONFIG = dict(lr=.03, epochs=5, batch_size=10, log_every=3, checkpoint_steps=2)

def train(folder, **pauses):
    "Train in a folder, from its newest checkpoint if there is one."
    torch.set_num_threads(1)
    trainer = Trainer(Regression(**pauses), TrainingConfig(**CONFIG), folder)
    trainer.resume()
    trainer.fit(*train_val())
    return trainer

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A training that has ended, for a file of tests: `trained = tiny.trained`."
    folder = tmp_path_factory.mktemp("trained")/"run"
    train(folder)
    return folder

def model():
    "Its weights, before it."
    return Regression().model.state_dict()

def left_by(folder):
    "What a run leaves that must be bit-equal: whole checkpoints, rows, and the events of steps without their times."
    folder = Path(folder)
    events = [json.loads(line) for line in (folder/"facts/events.jsonl").read_text().splitlines()]
    timed = "time", "seconds", "samples_per_second"
    return {p.name: p.read_bytes() for p in sorted((folder/"checkpoints").iterdir())} | {
        "rows": (folder/"facts/scalars.csv").read_bytes(),
        "events": [{k: v for k, v in e.items() if k not in timed} for e in events if "step" in e]}

def differs(a, b): return [k for k in a.keys() | b.keys() if a.get(k) != b.get(k)]

# what child processes run

def train_in_run(root, **pauses):
    "Train as an experiment does, in a run of its own."
    runs = sorted(Path(root).glob("*/status.json"))
    with (Run.open(runs[0].parent) if runs else Run.create(root, "tiny", "stopped")) as run:
        train(run.folder, **pauses)

def train_and_die(folder, rank, step):
    "Train with others; the process of this rank dies by `kill -9` after a step, the first time round."
    trainer = Trainer(Regression(), TrainingConfig(**CONFIG), folder)
    trainer.resume()
    add = trainer.add
    def add_or_die(numbers):
        add(numbers)
        first = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
        if first and trainer.world.rank == rank and trainer.step == step: os.kill(os.getpid(), signal.SIGKILL)
    trainer.add = add_or_die
    trainer.fit(*train_val())

def together(function, *args, restarts=0):
    "Two processes, forked from one that has imported torch already."
    launch(function, 2, *args, restarts=restarts, start="fork")

def train_together(root, **pauses):
    "Train in a run with two processes, from its newest checkpoint if there is one."
    runs = sorted(Path(root).glob("*/status.json"))
    with (Run.open(runs[0].parent) if runs else Run.create(root, "tiny", "together")) as run:
        together(_train, run.folder, pauses)

def _train(folder, pauses): train(folder, **pauses)

def train_plain(folder):
    "Train without noise or running means, so that one and two processes compute the same; 91 samples leave a batch of one."
    torch.set_num_threads(1)
    trainer = Trainer(Regression(noise=0., model=plain()), TrainingConfig(**CONFIG), folder)
    trainer.fit(Batches(data(91)), Batches(data(33, 1), shuffle=False))

def train_account(folder):
    "Train with `after_step`; each process writes down the account that it ends with."
    torch.set_num_threads(1)
    trainer = Trainer(Account(), TrainingConfig(**CONFIG), folder)
    trainer.fit(*train_val())
    account = {name: getattr(trainer.model, name).item() for name in ("average", "drawn")}
    Path(folder, f"account{trainer.world.rank}.json").write_text(json.dumps(account))

def rows(folder): return Facts(Path(folder)/"facts").rows()

# what happens to a process at one of its calls to the file system

CALLS = "open", "write", "pwrite", "mkdir", "fsync", "replace", "rename", "ftruncate", "unlink", "rmdir"
FATES = "killed", "stopped", "full"

def full(): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

def meets(function, fate=None, n=0):
    "What a forked child met at its n-th call to the file system, if it got that far, and what it said in the end: nothing where all went well."
    heard, tells = os.pipe()
    pid = os.fork()
    if not pid:
        said, calls, write = "", itertools.count(), os.write
        def happens():
            write(tells, b"!")
            if fate == "full": full()
            os.kill(os.getpid(), signal.SIGKILL if fate == "killed" else signal.SIGTERM)
        def mortal(real):
            def call(*args, **more):
                if next(calls) == n: happens()
                return real(*args, **more)
            return call
        for name in CALLS if fate else (): setattr(os, name, mortal(getattr(os, name)))
        try: function()
        except BaseException as error: said = f"{error}" or type(error).__name__
        finally: write(tells, said.encode()[:4000]); os._exit(0)
    os.close(tells)
    with open(heard, "rb") as pipe: told = pipe.read().decode()
    os.waitpid(pid, 0)
    return told.startswith("!"), told.removeprefix("!")

def dies_at(n, function):
    "Whether a forked child was killed at its n-th call to the file system; False: it came to its end before."
    return meets(function, "killed", n)[0]
