"""The life of a run, whatever happens in it: run, killed, resumed, published, loaded, in any order that hypothesis thinks of.

Each step is a process of its own, and a fate may end it at any of its calls to the file system: killed, asked to stop, or the disk full. After each
step: a run's folder is whole or not there, its status is true, facts hold each epoch once, a published folder answers with the bits of the run's best,
and what was refused has changed nothing."""
import shutil
from functools import partial
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

import tiny
from tiny import FATES, dies_at, meets
from toy_lab import ToyLab
from synthlab.experiments import lab as lab_module
from synthlab.experiments.experiment import evaluate, open_run, predict, resume, run, run_config
from synthlab.experiments.lab import Headline
from synthlab.experiments.parts import Column, TorchPart, Training
from synthlab.experiments.publish import FILES, HubManager, find_published, load_published
from synthlab.experiments.runs import Run, list_runs
from synthlab.trainers.trainer import TrainingConfig

COUNTS = dict(lr=.03, epochs=2, batch_size=40, log_every=2, checkpoint_steps=1)
FRAME = pd.DataFrame(np.random.default_rng(7).normal(size=(9, 3)), columns=list("abc"))

class LifeLab(ToyLab):
    "The toy lab, whose model is a network that learns in two epochs; its ridge regression is a second part."
    name, title, headline = "life", "predict the last column of a table from the others", Headline("rmse", "RMSE", ".3f")
    def parts(self, config, data):
        x = torch.tensor(data.to_numpy(), dtype=torch.float32)
        train, val = (tiny.Batches(dict(x=part[:, :3], y=part[:, 3]), 40, shuffle=shuffle) for part, shuffle in ((x[:120], True), (x[120:150], False)))
        ridge, = super().parts(config, data)
        about = ridge.about | dict(lab="life")
        make = lambda: Training(tiny.Regression(noise=.1*config.training.penalty), train, val, TrainingConfig(**COUNTS), about | dict(net=True), [Column("val_squared_error", "error")])
        ridge.about = about
        return [TorchPart("net", make), ridge]
    def build(self, about, tensors): return tiny.Net() if about.get("net") else super().build(about, tensors)
    def predict(self, model, about, source, assets=None):
        x = self.table(source)[about["columns"]]
        with torch.no_grad(): said = model(torch.tensor(x.to_numpy(), dtype=torch.float32)).double().numpy()
        return {"table": pd.DataFrame(dict(prediction=said), x.index)}

TYPED = "tracking.mode=disabled", "threads=1"

def everything(root): return {p.relative_to(root).as_posix(): p.read_bytes() if p.is_file() else None for p in sorted(root.rglob("*"))}

def left_by(folder):
    "What a finished run leaves that does not depend on its life."
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".safetensors", ".csv")}
    said = predict(folder, FRAME)["table"].prediction.to_numpy().tobytes()
    return files | dict(result=Run(folder).result, prediction=said)

@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    "What runs of two settings leave when nothing happens to them."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab_module, "_labs", lab_module._labs | dict(life=LifeLab()))
        root, threads = tmp_path_factory.mktemp("whole"), torch.get_num_threads()
        torch.set_num_threads(1)
        for penalty in 1, 2: run("life", [*TYPED, f"training.penalty={penalty}", f"runs={root}"], run_dir=root/str(penalty), quiet=True)
        yield {penalty: left_by(root/str(penalty)) for penalty in (1, 2)}
        torch.set_num_threads(threads)

NAMES, PENALTIES = st.sampled_from("ab"), st.sampled_from([1, 2])
LUCK = st.one_of(st.none(), *[st.tuples(st.sampled_from(FATES), st.integers(0, 230))]*2)
AGAIN, PUBLISHING = 30, 42              # calls to the file system of a run that is done already, and of a publication; a whole run makes some 220

class Life(RuleBasedStateMachine):
    "Two names for runs, and a folder of what is published."
    whole, place = {}, None             # what undisturbed runs leave; makes an empty folder

    @initialize()
    def born(self):
        self.root = self.place("life")
        self.runs, self.outputs, self.penalty, self.done, self.published = self.root/"runs", self.root/"outputs", {}, set(), {}
        self.runs.mkdir()

    def teardown(self): shutil.rmtree(self.root, ignore_errors=True)

    def act(self, what, luck=None, refused="", calls=231):
        "Do something that makes so many calls in a process of its own; whether it came to its end. What is to be refused is, and changes nothing."
        fate, n = luck or (None, 0)
        before, (met, said) = everything(self.root), meets(what, fate, n % calls)
        if refused and not met: assert said and refused in said and "\n" not in said, said
        elif not met: assert said == "", said
        if refused: assert everything(self.root) == before, met or said
        return not met and not refused

    def folder(self, name): return self.runs/name

    def settle(self, name, ended, penalty):
        "Note what has become of a run that was begun or gone on with."
        if ended or (self.folder(name)/"status.json").exists(): self.penalty[name] = penalty
        (self.done.add if ended else self.done.discard)(name)
        if ended: assert len(list(self.runs.glob(".run-*"))) <= len({*"ab"} - self.penalty.keys()), "a beginning that died has left something for ever"
        if ended: assert not list(self.folder(name).rglob("*.tmp"))
        if Run(self.folder(name)).status == "done": self.done.add(name)     # it was over, or not begun anew, when its fate came

    @rule(name=NAMES, penalty=PENALTIES, luck=LUCK)
    def run(self, name, penalty, luck):
        typed, known = [*TYPED, f"training.penalty={penalty}", f"runs={self.runs}"], self.penalty.get(name, penalty)
        why = "" if known == penalty else "holds a run with other settings"
        ended = self.act(lambda: run("life", typed, run_dir=self.folder(name), quiet=True), luck, why, AGAIN if name in self.done else 231)
        if known == penalty: self.settle(name, ended, penalty)

    @precondition(lambda self: self.penalty)
    @rule(name=NAMES, luck=LUCK)
    def resume(self, name, luck):
        there = name in self.penalty
        ended = self.act(lambda: resume(self.folder(name), quiet=True), luck, "" if there else "is not a run", AGAIN if name in self.done else 231)
        if there: self.settle(name, ended, self.penalty[name])

    @precondition(lambda self: self.penalty)
    @rule(name=NAMES, luck=LUCK)
    def publish(self, name, luck):
        why = "" if name in self.done else "cannot be published: it " if name in self.penalty else "it is not a run"
        ended = self.act(lambda: HubManager(self.folder(name), self.outputs).save(), luck, why, PUBLISHING)
        if ended: self.published[name] = self.penalty[name]
        if ended: assert not list(self.outputs.glob(f"*/*/.{name}.*")), "a publication that died has left something for ever"

    @precondition(lambda self: self.done)
    @rule(name=NAMES)
    def evaluate(self, name):
        "It tells what the run's own test told, and writes nothing."
        if name in self.done: self.act(lambda: check(evaluate(self.folder(name), quiet=True)["metrics"]["rmse"] == Run(self.folder(name)).result["rmse"]))

    @rule(name=NAMES)
    def mistype(self, name):
        self.act(lambda: run("life", ["training.penalti=1"], run_dir=self.folder(name), quiet=True), refused="did you mean training.penalty?")
        if name in self.done: self.act(lambda: evaluate(self.folder(name), overrides=["training.penalty=2"], quiet=True), refused="cannot be changed afterwards")

    @invariant()
    def a_run_is_whole_or_not_there(self):
        listed = [Path(folder).name for folder in list_runs(self.runs)["folder"]]
        assert sorted(p.name for p in self.runs.glob("[!.]*")) == sorted(self.penalty) == listed
        for name, penalty in self.penalty.items(): assert run_config(*open_run(self.folder(name))).training.penalty == penalty

    @invariant()
    def the_status_is_true(self):
        for name, penalty in self.penalty.items():
            here = Run(self.folder(name))
            assert (here.status == "done") == (name in self.done) and here.status != "running"
            if name not in self.done: continue
            assert left_by(here.folder) == self.whole[penalty]
            assert "error" not in {k for k, v in here.read_status().items() if v}

    @invariant()
    def facts_hold_each_epoch_once(self):
        for name in self.penalty:
            for part in self.folder(name), self.folder(name)/"parts/ridge":
                facts = Run(part).facts
                ends = [row["step"] for row in facts.rows()]
                told = [e["epoch"] for e in facts.events() if e["event"] == "epoch"]
                assert ends == sorted(set(ends)) and told == sorted(set(told)), (ends, told)
                finished = sum(e["event"] == "finished" for e in facts.events())
                assert finished == 1 if name in self.done else finished <= 1, (part, finished)

    @invariant()
    def what_is_published_answers(self):
        there = {p.name: p for p in self.outputs.glob("[!.]*/*/[!.]*")}
        assert there.keys() >= self.published.keys()
        for name, folder in there.items():
            assert {p.name for p in folder.iterdir()} >= {*FILES} - {"architecture.json"} and find_published(folder).parent == folder
            model, about = load_published(folder)
            assert lab_module.get_lab("life").predict(model, about, FRAME)["table"].prediction.to_numpy().tobytes() == self.whole[self.penalty[name]]["prediction"]

def check(truth): assert truth, "it is not so"

def live(whole, tmp_path_factory, record_property, examples, steps):
    record_property("tried", examples)
    machine = type("Life", (Life,), dict(whole=whole, place=staticmethod(partial(tmp_path_factory.mktemp))))
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True, database=None, report_multiple_bugs=False,
                                                         phases=[Phase.generate], suppress_health_check=list(HealthCheck)))

def test_whatever_happens_to_a_run(whole, tmp_path_factory, record_property): live(whole, tmp_path_factory, record_property, 5, 10)

@pytest.mark.soak
def test_whatever_happens_to_many_runs(whole, tmp_path_factory, record_property): live(whole, tmp_path_factory, record_property, 300, 20)

def test_a_publication_is_killed_at_any_call(whole, tmp_path, monkeypatch):
    "The old one answers until the new one does; what died is removed by the next."
    run("life", [*TYPED, "training.penalty=1", f"runs={tmp_path}"], run_dir=tmp_path/"a", quiet=True)
    there = HubManager(tmp_path/"a", tmp_path/"outputs").save()
    before = everything(there)
    for n in range(PUBLISHING + 10):
        if not dies_at(n, lambda: HubManager(tmp_path/"a", tmp_path/"outputs").save()): break
        assert there.exists() and everything(there) == before, n
    assert n > 30 and [p.name for p in there.parent.iterdir()] == ["a"]
