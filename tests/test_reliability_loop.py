"""What happens inside the loop: numbers that are none, trackers that fail, the same run twice, ten thousand steps.

R8 NaN and infinity, R21 the tracker, R22 equal bits, R24 nothing left behind."""
import gc, json, math, os, sys, threading, types, warnings
from pathlib import Path

import pytest, torch

import tiny
from synthlab.trainers.checkpoints import load_checkpoint
from synthlab.trainers.processes import launch
from synthlab.trainers.tracking import Tracker
from synthlab.trainers.trainer import Trainer, TrainingConfig

def state(model): return {k: v.clone() for k, v in model.state_dict().items()}
def equal(a, b): return a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a)

# R8

class Spoilt(tiny.Regression):
    "Loss or gradient becomes `value` at one step."
    def __init__(self, where, value, at): super().__init__(); self.where, self.value, self.at, self.seen = where, value, at, 0
    def loss(self, batch, phase, generator):
        loss, numbers = super().loss(batch, phase, generator)
        now = self.seen == self.at; self.seen += 1
        if now and self.where == "loss": loss = loss*self.value
        if now and self.where == "gradient": loss.register_hook(lambda g: g*self.value)
        return loss, numbers

def spoilt(where, value, at):
    "An objective and training data that go wrong at step `at` of the first epoch, and the samples of that step."
    train, val = tiny.train_val()
    samples = train.order(0)[10*at:10*at + 10].tolist()
    if where != "data": return Spoilt(where, value, at), train, val, samples, {}
    train.data["x"][samples[3], 1] = value; train.data["y"][samples[7]] = value
    return tiny.Regression(), train, val, samples, {"x": [samples[3]], "y": [samples[7]]}

@pytest.mark.parametrize("policy", ["stop", "skip"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient", "data"])
def test_not_finite(where, value, policy, tmp_path):
    "Stop or skip, an event with step and samples, the best checkpoint kept, and nothing of it in the weights."
    at = 4
    objective, train, val, samples, values = spoilt(where, value, at)
    config = TrainingConfig(**tiny.CONFIG | dict(epochs=1, on_nonfinite=policy))
    trainer = Trainer(objective, config, tmp_path/"run")
    before = {}
    def note():
        advance()
        if trainer.step in (at, at + 1): before[trainer.step] = state(objective.model)
    advance, trainer.advance = trainer.advance, note
    if policy == "stop":
        with pytest.raises(FloatingPointError, match=f"at step {at} .epoch 0, batch {at}."): trainer.fit(train, val)
        assert equal({k: v for k, v in objective.model.named_parameters()}, {k: before[at][k] for k, _ in objective.model.named_parameters()})
    else:
        trainer.fit(train, val)
        assert trainer.step == 10 and equal(before[at], before[at + 1])     # running means too
    event, = [e for e in trainer.facts.events() if e["event"] == "nonfinite"]
    assert (event["step"], event["samples"], event["not_finite"], event["action"]) == (at, samples, values, policy)
    assert event["what"] == ("gradient_norm" if where == "gradient" else "loss")
    best = load_checkpoint(tmp_path/"run/checkpoints/best.safetensors", objective.model.state_dict())[0]
    assert all(v.isfinite().all() for v in best.values()) and all(v.isfinite().all() for v in objective.model.parameters())

def test_never_finite(tmp_path):
    "Skipping every step of an epoch is no training: it stops."
    train, val = tiny.train_val(); train.data["y"][:] = math.nan
    trainer = Trainer(tiny.Regression(), TrainingConfig(on_nonfinite="skip"), tmp_path)
    with pytest.raises(FloatingPointError, match="not finite in the data"): trainer.fit(train, val)
    assert sum(e["event"] == "nonfinite" for e in trainer.facts.events()) == len(train)

def test_validation_not_finite(tmp_path):
    "A score that is no number is never the best."
    train, val = tiny.train_val(); val.data["y"][3] = math.nan
    trainer = Trainer(tiny.Regression(), TrainingConfig(epochs=4, patience=2), tmp_path)
    trainer.fit(train, val)
    assert trainer.best is None and trainer.epoch == 2 and not (tmp_path/"checkpoints/best.safetensors").exists()

# R21

class FakeRun:
    def __init__(self, fails): self.fails, self.rows, self.summary = fails, [], {}
    def log(self, row, step):
        if self.fails == "log" and len(self.rows) == 2: raise ConnectionError("the service is gone")
        self.rows.append(row)
    def finish(self):
        if self.fails == "finish": raise TimeoutError()

def fake_wandb(fails):
    run = FakeRun(fails)
    def init(**kwargs):
        if fails == "no key": raise RuntimeError("api_key not configured (no-tty). call wandb.login(key=[your_api_key])")
        if fails == "no network": raise TimeoutError("Run initialization has timed out after 30.0 sec")
        return run
    return types.SimpleNamespace(init=init, Settings=lambda **kwargs: None), run

@pytest.mark.parametrize("fails", ["no package", "no key", "no network", "log", "finish", "nothing"])
def test_tracker_fails(fails, tmp_path, monkeypatch):
    "One warning, and the same result as without a tracker."
    module, run = fake_wandb(fails)
    monkeypatch.setitem(sys.modules, "wandb", None if fails == "no package" else module)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tracker = Tracker("online", folder=tmp_path/"wandb")
        tracked = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), tmp_path/"tracked", tracker)
        tracked.fit(*tiny.train_val()); tracker.finish(score=tracked.best["score"])
    said = [str(w.message) for w in said if "Weights & Biases" in str(w.message)]
    assert len(said) == (fails != "nothing") and all("going on without it" in s for s in said)
    if fails == "nothing": assert run.rows == tracked.history and run.summary == {"score": tracked.best["score"]}
    tiny.train(tmp_path/"alone")
    assert tiny.differs(tiny.left_by(tmp_path/"tracked"), tiny.left_by(tmp_path/"alone")) == []

# R22

def test_twice_in_one_process(tmp_path):
    "The second run is not disturbed by the first, nor by draws in between; neither disturbs the draws of others."
    tiny.train(tmp_path/"one")
    torch.manual_seed(5); first = torch.rand(4)
    torch.manual_seed(5); tiny.train(tmp_path/"two"); assert torch.rand(4).equal(first)
    assert tiny.differs(tiny.left_by(tmp_path/"one"), tiny.left_by(tmp_path/"two")) == []

def test_another_seed_is_another_run(tmp_path):
    "What makes the test above say something."
    tiny.train(tmp_path/"one")
    Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG | dict(seed=1)), tmp_path/"two").fit(*tiny.train_val())
    assert "rows" in tiny.differs(tiny.left_by(tmp_path/"one"), tiny.left_by(tmp_path/"two"))

def test_one_and_two_processes(tmp_path, warm):
    "Two processes agree with one to 1e-4 relative after 50 steps (float32, no noise), also on a last batch of a single sample."
    launch(tiny.train_plain, 2, tmp_path/"two")
    tiny.train_plain(tmp_path/"one")
    one, two = (json.loads(json.dumps(tiny.rows(tmp_path/n))) for n in ("one", "two"))
    assert [r.keys() for r in one] == [r.keys() for r in two]
    worst = max(abs(a[k] - b[k])/max(abs(a[k]), 1e-3) for a, b in zip(one, two) for k in a)
    assert worst < 1e-4, worst

# R24

def test_ten_thousand_steps(tmp_path):
    "No memory, file, thread or temporary is left behind."
    def resident(): gc.collect(); return int(Path("/proc/self/statm").read_text().split()[1])*os.sysconf("SC_PAGE_SIZE")
    def open_files(): return len(os.listdir("/proc/self/fd"))
    config = TrainingConfig(epochs=1000, patience=0, checkpoint_steps=0, log_every=0)
    trainer, seen = Trainer(tiny.Regression(), config, tmp_path), {}
    def judge(val):
        if trainer.epoch % 50 == 49 or not trainer.step: real(val)      # 20 validations are enough
        else: trainer.epoch, trainer.position, trainer.sums, trainer.samples = trainer.epoch + 1, 0, {}, 0
        if trainer.epoch in (200, 1000): seen[trainer.epoch] = resident(), open_files(), threading.active_count()
    real, trainer.judge = trainer.judge, judge
    trainer.fit(*tiny.train_val())
    (memory, *rest), (memory_after, *rest_after) = seen[200], seen[1000]
    assert trainer.step == 10_000 and rest == rest_after and memory_after < 1.02*memory
    assert not list(tmp_path.rglob("*.tmp"))
