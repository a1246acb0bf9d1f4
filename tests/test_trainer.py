"The loop: it is the plain loop, for one phase and for two, in any precision, with any kind of model."
import copy, json, math, threading, warnings

import pytest, torch
from torch import nn

import tiny
from synthlab.trainers.checkpoints import CheckpointError, load_checkpoint, read_header, save_checkpoint
from synthlab.trainers.facts import Facts
from synthlab.trainers.steps import Stepper, TrainingConfig, lr_factor, seed_draws
from synthlab.trainers.trainer import Trainer

def trained(objective=None, folder=None, data=None, **options):
    trainer = Trainer(objective or tiny.Regression(), TrainingConfig(**tiny.CONFIG | options), folder)
    trainer.fit(*(data or tiny.train_val()))
    return trainer

def weights(model): return torch.cat([v.detach().flatten().double() for v in model.state_dict().values()])

def test_is_the_plain_loop():
    "Bit for bit what one writes by hand."
    ours = trained(scheduler="none", warmup_epochs=0.)
    objective, (train, _) = tiny.Regression(), tiny.train_val()
    optimizer = torch.optim.AdamW(objective.model.parameters(), .03, weight_decay=.01, fused=True)
    generator = torch.Generator()
    for epoch in range(5):
        for position in range(len(train)):
            seed_draws(generator, 7, "train", epoch, position, 0)
            optimizer.zero_grad()
            loss, _ = objective.loss(train.batch(epoch, position), "model", generator)
            loss.backward()
            nn.utils.clip_grad_norm_(objective.model.parameters(), 1.)
            optimizer.step()
    assert weights(objective.model).equal(weights(ours.model))

def test_learning_rate_is_the_schedule():
    "The optimiser's own learning rate at each step: first, end of the warm-up, last."
    trainer, seen = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG)), []
    real = trainer.train_step
    def look(batches): seen.append(trainer.optimizers["model"].param_groups[0]["lr"]); return real(batches)
    trainer.train_step = look
    trainer.fit(*tiny.train_val())
    assert len(seen) == 50 and seen == pytest.approx([.03*lr_factor(s, 50, 10, trainer.config) for s in range(50)])
    assert (seen[0], seen[9], seen[49]) == pytest.approx((.003, .03, .0003))

# two phases

class Game:
    "A generator of numbers against a discriminator: two phases, each with its own optimiser."
    phases, monitor = ("discriminator", "generator"), "distance"
    def __init__(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = nn.ModuleDict(dict(generator=nn.Linear(1, 1), discriminator=nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))))
        self.order = []
    def parameters(self, phase): return self.model[phase].parameters()
    def loss(self, batch, phase, generator):
        self.order.append(phase)
        fake = self.model["generator"](torch.randn(len(batch["y"]), 1, generator=generator))
        judge, softplus = self.model["discriminator"], nn.functional.softplus
        if phase == "generator": return softplus(-judge(fake)).mean(), {"spread": fake.std()}
        return (softplus(judge(fake.detach())) + softplus(-judge(batch["y"][:, None]))).mean(), {}
    def evaluate(self, batch, generator):
        fake = self.model["generator"](torch.randn(len(batch["y"]), 1, generator=generator))
        return {"distance": (fake[:, 0].sort().values - batch["y"].sort().values).abs()}

def power_cut(objective, folder, at, **options):
    "Train from the newest checkpoint; fail after step `at`, if that comes."
    trainer = Trainer(objective, TrainingConfig(**tiny.CONFIG | options), folder); trainer.resume()
    advance = trainer.advance
    def die():
        advance()
        if trainer.step == at: raise RuntimeError("power cut")
    trainer.advance = die
    trainer.fit(*tiny.train_val())
    return trainer

def test_phases_take_turns(tmp_path):
    "In order on every batch, each moving only its own parameters, and resumed exactly."
    game = Game(); trainer = trained(game, tmp_path/"a")
    assert game.order[:4] == ["discriminator", "generator"]*2
    assert {"train_discriminator_loss", "train_generator_loss", "train_generator_gradient_norm", "train_spread"} <= trainer.history[-1].keys()
    assert {k.split("/")[1] for k in read_header(tmp_path/"a/checkpoints/last.safetensors")[0] if k.startswith("optimizer")} == set(Game.phases)
    step, before = Stepper(Game(), TrainingConfig()), Game().model.state_dict()
    step.descend("discriminator", [tiny.train_val()[0].batch(0, 0)])
    moved = {k.split(".")[0] for k, v in step.model.state_dict().items() if not v.equal(before[k])}
    assert moved == {"discriminator"}
    with pytest.raises(RuntimeError, match="power cut"): power_cut(Game(), tmp_path/"b", 23)
    power_cut(Game(), tmp_path/"b", None)
    assert tiny.differs(tiny.left_by(tmp_path/"a"), tiny.left_by(tmp_path/"b")) == []

# after the step

class AccountedGame(Game):
    "Two phases and what is done after both."
    def __init__(self):
        super().__init__()
        for name in "steps", "drawn": self.model.register_buffer(name, torch.zeros(()))
    def after_step(self, generator):
        self.order.append("after"); self.model.steps += 1
        self.model.drawn.lerp_(torch.randn((), generator=generator), .1)

@pytest.mark.parametrize("objective, phases", [(tiny.Account, ("model",)), (AccountedGame, Game.phases)])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_after_step_is_once_a_step(objective, phases, accumulate):
    "After the last phase, and never between the parts of an accumulated batch: ten batches by three are 3, 3, 3, 1."
    trainer = trained(objective(), accumulate=accumulate, epochs=2)
    parts = [3, 3, 3, 1] if accumulate == 3 else [1]*10
    assert trainer.objective.order == [name for n in parts*2 for name in [p for p in phases for _ in range(n)] + ["after"]]

@pytest.mark.parametrize("objective", [tiny.Account, AccountedGame])
@pytest.mark.parametrize("at, accumulate", [(14, 1), (5, 3), (10, 1)])
def test_after_step_is_resumed_to_the_bit(objective, at, accumulate, tmp_path):
    with pytest.raises(RuntimeError, match="power cut"): power_cut(objective(), tmp_path/"a", at, accumulate=accumulate)
    for name in "a", "b": trainer = power_cut(objective(), tmp_path/name, None, accumulate=accumulate)
    assert tiny.differs(tiny.left_by(tmp_path/"a"), tiny.left_by(tmp_path/"b")) == []
    held = read_header(tmp_path/"b/checkpoints/last.safetensors")[0]
    assert "model/drawn" in held and trainer.model.drawn != 0

def test_after_step_does_not_move_the_other_draws():
    "An objective whose `after_step` draws is trained to the same weights as one that has none."
    plain, busy = trained(), trained(tiny.Account())
    own = {"seen", "average", "drawn"}
    assert all(v.equal(plain.model.state_dict()[k]) for k, v in busy.model.state_dict().items() if k not in own)

@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_skipped_step_has_no_after(accumulate):
    "Its draw is not made, its account is taken back, and the next step is as usual."
    train, val = tiny.train_val()
    train.data["y"][int(train.order(0)[35])] = math.nan         # the fourth batch
    trainer = trained(tiny.Account(), data=(train, val), epochs=1, on_nonfinite="skip", accumulate=accumulate)
    steps = 10//accumulate
    assert trainer.step == steps and trainer.objective.order.count("after") == steps - 1
    assert all(torch.isfinite(b).all() for b in trainer.model.buffers())

def test_after_step_is_alike_in_all_processes(tmp_path):
    tiny.together(tiny.train_account, tmp_path)
    first, second = (json.loads((tmp_path/f"account{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and 0 < first["average"] < 10

def test_beginning_is_chosen_once(tmp_path):
    "Before the first step of a new training, told to the facts; a training that is taken up goes on from its checkpoint."
    class Begun(tiny.Regression):
        times = 0
        def begin(self, train):
            self.times += 1
            with torch.no_grad():
                for p in self.model.parameters(): p.mul_(2)
            return dict(rows=train.n)
    plain, begun = tiny.Regression(), Begun()
    with torch.no_grad():
        for p in plain.model.parameters(): p.mul_(2)
    trained(plain, epochs=2)
    def train(objective, resume):
        trainer = Trainer(objective, TrainingConfig(**tiny.CONFIG | dict(epochs=2)), tmp_path)
        if resume: trainer.resume()
        trainer.fit(*tiny.train_val())
    train(begun, False)
    assert weights(begun.model).equal(weights(plain.model))
    again = Begun()
    train(again, True)
    assert (begun.times, again.times) == (1, 0) and weights(again.model).equal(weights(plain.model))
    assert [e["rows"] for e in Facts(tmp_path/"facts").events() if e["event"] == "begun"] == [tiny.train_val()[0].n]

# options

def test_accumulation():
    "Batches of 10 two at a time are batches of 20, also where the last is smaller."
    def run(size, k):
        objective = tiny.Regression(noise=0., model=tiny.plain())
        data = tiny.Batches(tiny.data(95), size), tiny.Batches(tiny.data(33, 1), shuffle=False)
        return trained(objective, data=data, accumulate=k, batch_size=size)
    small, large = run(10, 2), run(20, 1)
    assert small.step == large.step == 25 and (weights(small.model) - weights(large.model)).abs().max() < 1e-5

def test_bf16_is_near():
    "Autocast changes little, and keeps the weights in float32."
    low, high = trained(tiny.Regression(model=tiny.plain()), precision="bf16"), trained(tiny.Regression(model=tiny.plain()))
    assert 0 < (weights(low.model) - weights(high.model)).abs().max() < .1
    assert {p.dtype for p in low.model.parameters()} == {torch.float32}

@pytest.mark.slow
def test_compiled_is_near():
    "Compiling changes the last digits only."
    low, high = (trained(tiny.Regression(model=tiny.plain()), compile=c) for c in (True, False))
    assert (weights(low.model) - weights(high.model)).abs().max() < 1e-3

def test_early_stopping(tmp_path):
    "Stops `patience` epochs after the best, and the best weights come back."
    trainer = trained(folder=tmp_path, epochs=40, lr=.2, patience=3, scheduler="none", log_every=0)
    assert trainer.epoch == trainer.best["epoch"] + 3 < 40
    scores = [r["val_squared_error"] for r in trainer.history]
    assert trainer.best["score"] == min(scores) == scores[trainer.best["epoch"]]
    assert trainer.load_best() == trainer.best
    assert trainer.validate(tiny.train_val()[1])["val_squared_error"] == min(scores)
    assert trainer.facts.events()[-1]["early"] is True

def test_in_memory():
    "Without a folder nothing is written, and the best weights are kept all the same."
    trainer = trained(lr=.2, scheduler="none")
    trainer.load_best()
    assert trainer.validate(tiny.train_val()[1])["val_squared_error"] == trainer.best["score"]
    with pytest.raises(ValueError, match="nothing to resume: this trainer has no folder"): trainer.resume()

def test_no_epochs():
    "Zero epochs: the score of what there is."
    trainer = trained(epochs=0)
    assert [r["step"] for r in trainer.history] == [0] and trainer.best["step"] == 0

def test_frozen_and_tied_parameters(tmp_path):
    "Frozen ones stay, tied ones are one; both survive the file."
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1), nn.Flatten(0))
    model[2].weight = model[1].weight
    for p in model[0].parameters(): p.requires_grad_(False)
    class Objective(tiny.Regression):
        def parameters(self, phase): return [p for p in self.model.parameters() if p.requires_grad]
    before = model[0].weight.clone()
    trained(Objective(model=model), tmp_path)
    assert model[0].weight.equal(before) and model[2].weight is model[1].weight
    again = Trainer(Objective(model=copy.deepcopy(model)), TrainingConfig(**tiny.CONFIG), tmp_path); again.resume()
    assert weights(again.model).equal(weights(model))

def test_unused_parameter(tmp_path):
    "A parameter that no loss reaches has no gradient and no optimiser state; saving and resuming work."
    class Spare(nn.Module):
        def __init__(self): super().__init__(); self.used, self.spare = tiny.plain(), nn.Linear(2, 2)
        def forward(self, x): return self.used(x)
    trained(tiny.Regression(model=Spare()), tmp_path)
    again = Trainer(tiny.Regression(model=Spare()), TrainingConfig(**tiny.CONFIG), tmp_path)
    assert again.resume() and again.fit(*tiny.train_val())[-1]["epoch"] == 5

# resuming

def test_finished_run_stays(tmp_path):
    "Resuming what is finished changes no bit of it."
    trained(folder=tmp_path); before = tiny.left_by(tmp_path)
    tiny.train(tmp_path)
    assert tiny.differs(tiny.left_by(tmp_path), before) == []

def test_second_training_in_a_folder(tmp_path):
    trained(folder=tmp_path)
    with pytest.raises(FileExistsError, match="holds a training already: resume"): trained(folder=tmp_path)

@pytest.mark.parametrize("name,value", dict(lr=.01, epochs=6, seed=1, accumulate=2, precision="bf16", scheduler="none", processes=2).items())
def test_another_configuration(name, value, tmp_path):
    "What would change a step is refused by name."
    trained(folder=tmp_path)
    other = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG | {name: value}), tmp_path)
    with pytest.raises(ValueError, match=f"{name} is {value!r}, but .*last.safetensors was trained with"): other.resume()

def test_other_data(tmp_path):
    trained(folder=tmp_path)
    other = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), tmp_path); other.resume()
    with pytest.raises(ValueError, match="the checkpoint was made with data .*'train': 95.*these are .*'train': 90"):
        other.fit(tiny.Batches(tiny.data(90)), tiny.train_val()[1])

def test_other_model(tmp_path):
    trained(folder=tmp_path)
    with pytest.raises(CheckpointError, match="a checkpoint of another model"):
        Trainer(tiny.Regression(model=tiny.plain()), TrainingConfig(**tiny.CONFIG), tmp_path).resume()

def test_more_patience_is_allowed(tmp_path):
    trained(folder=tmp_path, epochs=40, lr=.2, patience=1, scheduler="none")
    more = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG | dict(epochs=40, lr=.2, patience=4, scheduler="none")), tmp_path)
    first = more.resume() and more.epoch
    assert more.fit(*tiny.train_val())[-1]["epoch"] > first

def test_facts_removed(tmp_path):
    trained(folder=tmp_path)
    (tmp_path/"facts/scalars.csv").unlink()
    with pytest.raises(ValueError, match="facts were removed"): tiny.train(tmp_path)

# what a user sees

def test_history_is_the_facts(tmp_path):
    trainer = trained(folder=tmp_path)
    assert Facts(tmp_path/"facts").rows() == trainer.history
    means = [r["train_loss"] for r in trainer.history[1:]]
    assert all(map(math.isfinite, means)) and means[-1] < means[0]

def test_means_are_over_samples():
    "The train columns of a row are means over samples, not over batches."
    losses = []
    class Note(tiny.Regression):
        def loss(self, batch, phase, generator):
            loss, numbers = super().loss(batch, phase, generator); losses.append((len(batch["y"]), loss.item())); return loss, numbers
    trainer = trained(Note(), epochs=1, log_every=0)
    assert trainer.history[-1]["train_loss"] == pytest.approx(sum(n*v for n, v in losses)/95, rel=1e-12)

def test_monitor_must_exist():
    objective = tiny.Regression(); objective.monitor = "crps"
    with pytest.raises(ValueError, match="monitors crps, but evaluates squared_error"): trained(objective)

def test_progress_is_quiet_when_not_wanted(capsys):
    trained()
    assert capsys.readouterr() == ("", "")
    Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), progress=True).fit(*tiny.train_val())
    shown = capsys.readouterr().err
    assert "475/475" in shown.replace(" ", "") and "loss=" in shown and "best=" in shown

def test_in_a_thread():
    "Where signals cannot be handled, training works without."
    results = []
    thread = threading.Thread(target=lambda: results.append(trained().step)); thread.start(); thread.join()
    assert results == [50]

def test_checkpoint_holds_about(tmp_path):
    trainer = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), tmp_path, about={"recipe": ["lstm", "gbm"]})
    trainer.fit(*tiny.train_val())
    assert read_header(tmp_path/"checkpoints/best.safetensors")[1]["state"]["about"] == {"recipe": ["lstm", "gbm"]}

def test_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained()

def test_watched_number_is_nan(tmp_path):
    "A number that is only watched may be none: training goes on, and resuming keeps it."
    class Watch(tiny.Regression):
        def loss(self, batch, phase, generator):
            loss, numbers = super().loss(batch, phase, generator)
            return loss, numbers | {"odd": math.nan}
    with pytest.raises(RuntimeError, match="power cut"): power_cut(Watch(), tmp_path/"a", 14)
    for name in "a", "b": power_cut(Watch(), tmp_path/name, None)
    assert tiny.differs(tiny.left_by(tmp_path/"a"), tiny.left_by(tmp_path/"b")) == []

# readers of facts

class Mirror:
    def __init__(self): self.rows = []
    def log(self, row): self.rows.append(dict(row)); row.clear()

def test_readers_see_what_is_written(tmp_path):
    "A mirror sees every row, a function those of epochs, each after both are on the disk; what they do to a row stays theirs."
    first, second, seen = Mirror(), Mirror(), []
    def reader(row, folder):
        state = read_header(folder/"checkpoints/last.safetensors")[1]["state"]
        assert state["step"] == row["step"] and Facts(folder/"facts").rows()[-1] == row and folder == tmp_path
        seen.append(row["step"]); row.clear()
    config = TrainingConfig(**tiny.CONFIG)
    trainer = Trainer(tiny.Regression(), config, tmp_path, first, {"what": "a line"}, progress=False, readers=[second, reader])
    trainer.fit(*tiny.train_val())
    assert first.rows == second.rows == trainer.history == Facts(tmp_path/"facts").rows()
    assert seen == [r["step"] for r in trainer.history if "val_squared_error" in r] == [0, 10, 20, 30, 40, 50]

@pytest.mark.parametrize("error", [ValueError("no"), OSError(28, "No space left"), MemoryError(), AssertionError("two\nlines")])
def test_a_reader_that_fails_changes_nothing(error, tmp_path):
    def bad(row, folder): torch.manual_seed(0); raise error
    class Bad:
        def log(self, row): raise error
    late = Mirror()
    trainer = Trainer(tiny.Regression(), TrainingConfig(**tiny.CONFIG), tmp_path/"a", Bad(), readers=[bad, late]); trainer.fit(*tiny.train_val())
    trained(folder=tmp_path/"b")
    assert tiny.differs(tiny.left_by(tmp_path/"a"), tiny.left_by(tmp_path/"b")) == [] and late.rows == trainer.history
    failed = [e for e in trainer.facts.events() if e["event"] == "reader_failed"]
    assert [e["reader"] for e in failed].count("bad") == 6 and [e["reader"] for e in failed].count("Bad") == len(trainer.history)
    assert {e["error"] for e in failed} == {f"{type(error).__name__}: {error}"}

def test_a_reader_may_stop(tmp_path):
    "`KeyboardInterrupt` passes, and training goes on from there to the same bits; without a folder a reader is told None."
    def stop(row, folder):
        if row["step"] == 20: raise KeyboardInterrupt
    config = TrainingConfig(**tiny.CONFIG)
    with pytest.raises(KeyboardInterrupt): Trainer(tiny.Regression(), config, tmp_path/"a", readers=[stop]).fit(*tiny.train_val())
    assert Facts(tmp_path/"a/facts").events()[-1]["event"] == "interrupted"
    tiny.train(tmp_path/"a"); trained(folder=tmp_path/"b")
    assert tiny.differs(tiny.left_by(tmp_path/"a"), tiny.left_by(tmp_path/"b")) == []
    told = []
    Trainer(tiny.Regression(), config, readers=[lambda row, folder: told.append(folder)]).fit(*tiny.train_val())
    assert told == [None]*6

@pytest.mark.parametrize("reader", ["print", 3, None, {"log": print}])
def test_what_cannot_read_is_refused(reader):
    with pytest.raises(TypeError, match="a reader of facts is called with"): Trainer(tiny.Regression(), readers=[reader])

def forged(folder, change):
    "Change tensors or state of a checkpoint and write it with a digest that fits."
    for name in "best", "last":
        path = folder/f"checkpoints/{name}.safetensors"
        tensors, state = load_checkpoint(path)
        change(tensors, state)
        save_checkpoint(path, tensors, state)

FORGERIES = {
    "optimizer/model/0/exp_avg fits no parameter": lambda t, s: t.update({"optimizer/model/0/exp_avg": torch.zeros(7, 7)}),
    "optimizer/model/99/exp_avg fits no parameter": lambda t, s: t.update({"optimizer/model/99/exp_avg": torch.zeros(())}),
    "optimizer/model/../step fits no parameter": lambda t, s: t.update({"optimizer/model/../step": torch.zeros(())}),
    "holds no training: it has no best": lambda t, s: s.pop("best"),
    "does not say how far it is": lambda t, s: s.update(epoch="soon"),
}

@pytest.mark.parametrize("says", FORGERIES)
def test_forged(says, tmp_path):
    "A checkpoint that is whole but no continuation of this training is refused."
    trained(folder=tmp_path)
    forged(tmp_path, FORGERIES[says])
    with pytest.raises(CheckpointError, match=says): tiny.train(tmp_path)
