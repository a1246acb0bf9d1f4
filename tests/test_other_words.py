"""Words of other training scripts, those of the macro lab's first users before all, are answered by what to write here; and what is named in an answer exists.

The users' script is typed as it stood; each of its lines works, or one sentence says the word here."""
import dataclasses, inspect, re

import pytest, torch
from torch.utils.data import DataLoader

from synthlab.cli.main import main
from synthlab.datasets.generate import generate_dataset
from synthlab.datasets.response_batches import IRFDataset, ResponseBatches, collate_mixed_worlds, load_split
from synthlab.experiments.config import file_overrides, settings, to_yaml
from synthlab.experiments.experiment import data_first
from synthlab.experiments.lab import get_lab
from synthlab.metrics.other_words import FIT, HAS, PARTS, RENAMED, SAID, TRAINER, TRAINING, lab_word
from synthlab.metrics.wording import Mistake
from synthlab.models.registry import ConfigError
from synthlab.models.specialists import PerWorldMLPBaseline
from synthlab.models.universal import UniversalEmulator
from synthlab.trainers.response_losses import ResponseObjective
from synthlab.trainers.steps import TrainingConfig
from synthlab.trainers.tracking import Tracker
from synthlab.trainers.trainer import Trainer

BRIEF = dict(lr=1e-4, weight_decay=.01, batch_size=64, epochs=100, grad_clip=1., warmup_epochs=5, scheduler="cosine", patience=10, min_delta=1e-4, checkpoint_dir="runs/default",
    save_every_n_epochs=10, save_best=True, log_every_n_steps=50, use_wandb=False, wandb_project="macro-emulator", seed=42, loss_fn="mse", horizon_weights="uniform", lambda_smooth=.01)

def said(f, *also):
    "One sentence, that names what to write."
    with pytest.raises(Mistake) as error: f()
    text = str(error.value)
    assert "\n" not in text and "unexpected keyword" not in text and all(a in text for a in also), text
    return text

@pytest.fixture(scope="module")
def store(tmp_path_factory): return generate_dataset(tmp_path_factory.mktemp("words")/"v1", ["nk", "rbc"], n=40, T=6, horizon=6, block=10, progress=False)

@pytest.fixture
def trainer(store):
    torch.manual_seed(0)
    model = PerWorldMLPBaseline(param_dims={"nk": 12, "rbc": 7}, hidden_dims=[8], H=6).learn_scales({w: load_split(store, w, "train") for w in store.worlds})
    return Trainer(ResponseObjective(model), TrainingConfig(epochs=1, batch_size=16), progress=False)

@pytest.mark.parametrize("name", BRIEF)
def test_each_field_of_the_users_configuration(name):
    "Taken, or answered; and so is one that is asked for."
    if name in {f.name for f in dataclasses.fields(TrainingConfig)}: assert getattr(TrainingConfig(**{name: BRIEF[name]}), name) == BRIEF[name]
    else:
        said(lambda: TrainingConfig(**{name: BRIEF[name]}), f"TrainingConfig takes no {name} (", TRAINING[name])
        said(lambda: getattr(TrainingConfig(), name), f"has no {name}: {TRAINING[name]}")

def test_a_whole_configuration_is_answered_at_once():
    "All nine, so that a file is mended once; a number that YAML reads as text is told as that."
    text = said(lambda: TrainingConfig(**BRIEF))
    assert len([k for k in BRIEF if f"no {k} (" in text]) == 9
    with pytest.raises(ValueError, match="lr is '1e-4'; it must be a number > 0; it is text, as YAML reads .*write 1.0e-4"): TrainingConfig(lr="1e-4")
    said(lambda: TrainingConfig(warmup_epoch=3), "no warmup_epoch (did you mean warmup_epochs?)")
    assert str(inspect.signature(TrainingConfig)).startswith("(lr: float = 0.001, weight_decay: float")

def test_the_users_script(store, trainer):
    "Its trainer, its loaders and what it prints: what stands in each answer, typed, trains the model."
    datasets = {split: IRFDataset(str(store.root), ["nk", "rbc"], split) for split in ("train", "val")}
    loaders = {split: DataLoader(data, batch_size=16, collate_fn=collate_mixed_worlds) for split, data in datasets.items()}
    model, config = trainer.model, trainer.config
    said(lambda: Trainer(model=model, train_loader=loaders["train"], val_loader=loaders["val"], config=config), "no model (", "Trainer(ResponseObjective(model), config)", "no train_loader (", "trainer.fit(train, val)")
    said(lambda: Trainer(model, loaders["train"], loaders["val"], config), "PerWorldMLPBaseline", "Trainer(ResponseObjective(model), config)")
    said(lambda: trainer.fit(), "write trainer.fit(train, val)")
    said(lambda: trainer.fit(train_loader=loaders["train"], val_loader=loaders["val"]), "no train_loader (here it is train)")
    said(lambda: trainer.fit(n_epochs=3), "TrainingConfig(epochs=…)")
    said(lambda: trainer.fit(loaders["train"], loaders["val"]), "DataLoader", "give ResponseBatches(dataset, batch_size=16)")
    said(lambda: trainer.fit(ResponseBatches(datasets["train"], batch_size=16), loaders["val"]), "for validation", "ResponseBatches(dataset, batch_size=16, shuffle=False)")
    said(lambda: trainer.fit(torch.ones(3), torch.ones(3)), "a Tensor", "TensorBatches(tensors, batch_size=64)")
    said(lambda: trainer.best_val_loss, "best['score']")
    history = trainer.fit(ResponseBatches(datasets["train"], batch_size=16), ResponseBatches(datasets["val"], batch_size=16, shuffle=False))
    assert len(history) == 2 and trainer.best["score"] == min(row["val_nrmse"] for row in history)
    assert not hasattr(trainer, "best_val_loss") and not hasattr(trainer, "anything")

def test_a_part_by_another_name(store):
    for name, answer in PARTS.items():
        for door in (lambda: IRFDataset(store, None, name), lambda: ResponseBatches(store, name), lambda: load_split(store, "nk", name)):
            with pytest.raises(ValueError, match=re.escape(f"there is no split '{name}': {answer}")): door()
        for part in re.findall(r"\b(?:train|test_\w+)\b", answer): load_split(store, "nk", part)

def test_what_answers_name_exists(trainer):
    "Settings, arguments, attributes: nothing in the table is made up."
    fields, made = {f.name for f in dataclasses.fields(TrainingConfig)}, dict(ResponseObjective=ResponseObjective, Tracker=Tracker, Trainer=Trainer, TrainingConfig=TrainingConfig, UniversalEmulator=UniversalEmulator)
    assert set(RENAMED.values()) <= fields and not fields & {*RENAMED, *SAID}
    for word, answer in [*TRAINING.items(), *TRAINER.items(), *FIT.items(), *HAS.items()]:
        for name, arguments in re.findall(r"(\w+)\(([^()]*(?:\([^()]*\))?[^()]*)\)", answer):
            if name in made: assert set(re.findall(r"(\w+)=", re.sub(r"\([^()]*\)", "", arguments))) <= set(inspect.signature(made[name].__init__).parameters), (word, answer)
            else: assert hasattr(trainer, name) or hasattr(trainer.model, name), (word, answer)
    for word, answer in TRAINER.items():
        if found := re.match(r"here (?:it is|they are) (\w+)$", answer): assert found[1] in inspect.signature(Trainer.__init__).parameters
    for word, answer in HAS.items():
        if found := re.match(r"here (?:it is|they are) (\w+)", answer): assert hasattr(trainer, found[1]), (word, answer)

@pytest.mark.parametrize("lab", ["market", "macro", "signal", "events", "quant"])
def test_every_lab_knows_them(lab):
    "Where it has such a setting, typed with or without its group; what is named in the answer is a setting, or an option."
    own, count = get_lab(lab), 0
    known = settings(own.schema)
    for word in (*RENAMED, *SAID):
        if f"training.{word}" in known or word in known or own.words.get(word): continue
        answer = lab_word(word, known)
        if answer is None: continue
        for typed in (f"training.{word}=1", f"{word}=1"):
            with pytest.raises(ConfigError, match=re.escape(answer)): own.configure([typed])
        for name in re.findall(r"here it is ([a-z_.]+)|write ([a-z_.]+)=|\b(training\.\w+)", answer): assert {*name} - {""} <= {*known} or lab == "quant", (word, answer)
        count += 1
    assert count > 5

# --- a file of one's own ---------------------------------------------------------------------------------------------------

def test_a_file_of_ones_own(tmp_path, monkeypatch, capsys):
    "Nested or dotted, what it says is what would be typed; typed settings win; a run's own file is one too."
    lab, file = get_lab("macro"), tmp_path/"mine.yaml"
    file.write_text("training:\n  lr: 1e-4\n  loss_fn: mae\n  horizon_weights: impact\nmodel: {d_model: 32, layers: 1}\ndata.worlds: [rbc]\nevaluation: {alone: [], leave_out: []}\n")
    config = lab.configure([*file_overrides(file), "training.epochs=3"])
    typed = "training.lr=1e-4", "training.loss_fn=mae", "training.horizon_weights=impact", "model.d_model=32", "model.layers=1", "data.worlds=[rbc]", "evaluation.alone=[]", "evaluation.leave_out=[]"
    assert config == lab.configure([*typed, "training.epochs=3"]) and config.training.lr == 1e-4
    assert data_first(lab, str(file), ["training.lr=1"]) == ([*file_overrides(file), "training.lr=1"], None) and data_first(lab, file, None)[0] == file_overrides(file)
    whole = tmp_path/"config.yml"
    whole.write_text(to_yaml(config))
    assert lab.configure(file_overrides(whole)) == config
    monkeypatch.chdir(tmp_path)
    file.write_text("training: {checkpoint_dir: runs/x}\n")
    for typed, why in ((["--config", "mine.yaml"], "training.checkpoint_dir: checkpoints lie in the run's folder"), (["mine.yaml"], "write --config mine.yaml"), (["--config", "your.yaml"], "there is no file your.yaml")):
        assert main(["macro", "train", *typed]) == 2
        out = capsys.readouterr().err
        assert why in out and "Traceback" not in out and out.count("\n") == 1
    file.write_text("lr: 1e-4\n")
    assert main(["macro", "train", "--config", "mine.yaml"]) == 2 and "did you mean training.lr?" in capsys.readouterr().err
    assert not (tmp_path/"runs").exists()
