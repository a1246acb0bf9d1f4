"Figures of events: what is drawn changes no bit of a training, each picture holds the numbers it was given, and a switch means what it says."
import random
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import same_color

import tiny
from synthlab.datasets.toy_events import simulate_toys
from synthlab.experiments.figures import MODEL, SHADES
from synthlab.labs.events import comparison_figures as comparison, figures, monitor
from synthlab.labs.events.display import draw_event, outside, plane_limits, rows_at, shown_events
from synthlab.labs.events.judging import ask_events
from synthlab.labs.events.loading import EventData
from synthlab.labs.events.settings import FAMILIES, EventsLogging, events_config
from synthlab.models.registry import registry
from synthlab.trainers.event_batches import EventBatches
from synthlab.trainers.event_objectives import autoencoder_for, create_objective
from synthlab.trainers.facts import Facts
from synthlab.trainers.steps import TrainingConfig
from synthlab.trainers.trainer import Trainer

ALL = {name: dict(enabled=True) | (dict(heavy=True) if name in ("recon", "latency") else {}) for name in FAMILIES}
NONE = {name: dict(enabled=False) for name in FAMILIES}
def only(*names): return NONE | {name: ALL[name] for name in names}
def logging_of(**given): return EventsLogging(**dict(dpi=40, families=ALL) | given)

@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    plt.close("all")

@pytest.fixture(scope="module")
def toys(): return simulate_toys(dict(one_prong=160, two_prong=40), tokens=8)

def trainer_of(toys, folder, readers=(), **config):
    model = autoencoder_for("ae", toys.layout, encoder=dict(name="mlp", hidden=[16]), decoder=dict(name="mlp", hidden=[16]),
                            latent=dict(name="vq", codes=16, revive_every=3), latent_dim=3)
    model.scaler.learn(toys)
    config = TrainingConfig(**dict(lr=1e-2, epochs=3, seed=1) | config)
    return Trainer(create_objective("ae", model), config, folder, about=dict(recipe=model.recipe), progress=False, readers=readers)

def fit(toys, folder, readers=(), resume=False, **config):
    trainer = trainer_of(toys, folder, readers, **config)
    if resume: trainer.resume()
    trainer.fit(EventBatches(toys.take(slice(0, 128)), 32), EventBatches(toys.take(slice(128, 160)), 32, shuffle=False))
    return trainer

@pytest.fixture(scope="module")
def plain(toys, tmp_path_factory):
    "A training that nobody looked at."
    folder = tmp_path_factory.mktemp("figures")/"plain"
    fit(toys, folder)
    return folder

@pytest.fixture
def run(plain, tmp_path):
    "What it left, in a folder of this test's own."
    for path in plain.glob("*/*"):
        (tmp_path/"run"/path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path/"run"/path.parent.name/path.name).write_bytes(path.read_bytes())
    return tmp_path/"run"

def names(folder): return sorted(p.name for p in (folder/"figures").iterdir()) if (folder/"figures").exists() else []
def failures(folder): return [e["reader"] for e in Facts(folder/"facts").events() if e["event"] == "reader_failed"]

# nothing changes

class Stop:
    "Interrupts a training after an epoch."
    def __init__(self, epoch): self.epoch = epoch
    def __call__(self, row, folder):
        if row["epoch"] == self.epoch: raise KeyboardInterrupt

def test_drawing_and_being_stopped_change_no_bit(toys, plain, tmp_path):
    readers = monitor.figure_readers(logging_of(every=2, families=only("losses", "recon", "codebook")), "ae", toys)
    with pytest.raises(KeyboardInterrupt): fit(toys, tmp_path, [*readers, Stop(2)])
    fit(toys, tmp_path, readers, resume=True)
    assert tiny.differs(tiny.left_by(plain), tiny.left_by(tmp_path)) == [] and not failures(tmp_path)
    assert names(tmp_path) == [f"{f}-on_epoch_end-e002.png" for f in ("codebook", "losses", "recon")] and plt.get_fignums() == []

def test_the_end_touches_neither_random_state_nor_checkpoints(toys, run):
    states = lambda: (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    before, left = states(), tiny.left_by(run)
    written = monitor.draw_end(run, logging_of(families=only("latency", "recon")), "ae", toys)
    assert states() == before and tiny.differs(left, tiny.left_by(run)) == [] and plt.get_fignums() == []
    assert sorted(p.name for p in written) == names(run) == [f"{f}-on_train_end-e003{k}.png" for f in ("latency", "recon") for k in ("-1", "")]

# switches

@pytest.mark.parametrize("given", [dict(make_plots=False), dict(save_artifacts=False), dict(families=NONE)])
def test_what_is_switched_off_is_not_drawn(given, run, toys):
    assert monitor.figure_readers(logging_of(every=1, **given), "ae", toys) == [] == monitor.draw_end(run, logging_of(**given), "ae", toys)
    assert names(run) == []

@pytest.mark.parametrize("words, drawn", [((), ["losses", "metrics", "codebook", "latency"]), (("logging=plots_minimal",), ["losses"]),
    (("logging.families.losses.enabled=false", "logging.families.recon.enabled=true"), ["metrics", "recon", "codebook", "latency"]),
    (("logging=plots_full", "loop=gan_ae"), ["losses", "metrics", "recon", "codebook", "latency", "adversarial"]), (("logging.make_plots=false",), [])])
def test_what_is_typed_is_drawn(words, drawn):
    config = events_config(["data.source=toy", *words])
    assert monitor.drawn_families(config.logging, config.loop["name"]) == drawn
    assert len(monitor.figure_readers(config.logging, config.loop["name"])) == (len(drawn) if config.logging.every else 0)

def test_a_loop_draws_its_own_families_only():
    assert monitor.drawn_families(logging_of(), "test_mlp") == ["losses", "metrics", "latency"]
    for loop in ("ae", "gan_ae", "diffusion_ae"):
        assert monitor.drawn_families(logging_of(), loop) == [f for f in FAMILIES if f in registry.get_info(loop, "loop").facts["families"]]

def test_format_folder_and_size_are_used(run):
    logging = logging_of(families=only("losses"), figures_subdir="train/pictures", fig_format="svg")
    (path,) = monitor.draw_end(run, logging, "ae")
    assert path == run/"train/pictures/losses-on_train_end-e003.svg" and path.read_text().startswith("<?xml")

# failures

def test_a_family_that_fails_is_noted_and_the_others_are_drawn(run, monkeypatch):
    def broken(record, heavy, events):
        plt.figure()
        raise RuntimeError("no paint")
        yield
    monkeypatch.setitem(monitor.FIGURES, "metrics", broken)
    monitor.draw_end(run, logging_of(families=only("losses", "metrics", "codebook")), "ae")
    assert failures(run) == ["figures of metrics"] and plt.get_fignums() == []
    assert [n.partition("-")[0] for n in names(run)] == ["codebook", "losses"]

def test_a_reader_that_fails_stops_no_training(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "read_record", lambda folder: 1/0)
    trainer = fit(toys, tmp_path, monitor.figure_readers(logging_of(every=2, families=only("losses")), "ae"), epochs=2)
    assert trainer.epoch == 2 and failures(tmp_path) == ["figures of losses"] and names(tmp_path) == []

def test_a_figure_appears_whole_or_not_at_all(run, monkeypatch):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, to, **options: to.write(b"half") and 1/0)
    assert monitor.draw_end(run, logging_of(families=only("losses")), "ae") == [] and names(run) == []

def test_without_a_folder_nothing_is_drawn():
    monitor.FigureReader("losses", logging_of(every=1))(dict(epoch=1), None)

def test_a_training_that_stopped_early_is_drawn_at_its_last_epoch(toys, tmp_path):
    fit(toys, tmp_path, epochs=9, patience=1, min_delta=10.)
    (path,) = monitor.draw_end(tmp_path, logging_of(families=only("losses")), "ae")
    assert path.name == "losses-on_train_end-e001.png"

# pictures of events

def answered(model, events):
    answers = ask_events(model, events)
    return answers.back, answers.errors["reconstruction"]

def test_padding_and_the_order_of_particles_change_no_picture(toys):
    one = toys.take([3])
    order = np.argsort(np.random.default_rng(0).random(toys.layout.tokens))
    other = replace(one, continuous=one.continuous[:, order], kind=one.kind[:, order])
    dots = lambda events: [sorted(map(tuple, np.c_[c.get_offsets(), c.get_sizes()])) for c in draw_event(plt.figure().subplots(), events).collections]
    assert dots(one) == dots(other)
    plt.close("all")

def test_events_without_particles_are_never_shown(toys):
    empty = replace(toys, kind=np.where(np.arange(len(toys))[:, None] < 5, 0, toys.kind))
    model = trainer_of(toys, None).objective.autoencoder.eval()
    answers, error = answered(model, empty)
    assert np.isnan(error[:5]).all() and np.isfinite(error[5:]).all() and min(rows_at(error)) >= 5
    shown = shown_events(empty, answers, error)
    assert sum(outside(s.event, plane_limits(shown)) for s in shown) <= 2 and shown_events(empty.take(slice(0, 5)), answers, error[:5]) == []

# pictures of a result

@pytest.fixture(scope="module")
def result(toys):
    "What a judgement hands over, with made-up scores."
    n, rng = len(toys), np.random.default_rng(0)
    scores = {"model": rng.gamma(2, size=n) + toys.label, "jet mass": toys.truth["jet_mass"], "multiplicity": toys.truth["multiplicity"]}
    record = lambda score, **ahead: dict(signal="two_prong", matched=False, score=score, number="auroc", value=.7, low=.6, high=.8, **ahead)
    lead = lambda a, b, c: dict(ahead=a, ahead_low=b, ahead_high=c)
    metrics = dict(anomalies=[record("model", **lead(.1, .02, .2)), record("jet mass", **lead(0., 0., 0.))], reference="jet mass",
                   errors=dict(log_pt_share=.1, log_energy_share=.1, delta_eta=.2, delta_phi=.3), inverse=[], level=.95,
                   sculpting={k: dict(divergence=.1, chance=.02) for k in scores}, corrupted=[dict(corruption="drop_tokens", auroc=.6, low=.55, high=.7)],
                   distances=[dict(sample="samples", of="pt", value=3., error=1.)])
    history = pd.DataFrame(dict(epoch=[0, 1, 2], train_loss=[np.nan, 2., 1.], val_loss=[3., 2., 1.5], val_reconstruction=[1., .5, .6]))
    data = EventData(toys, toys, toys, ("one_prong",), ("two_prong",))
    model = trainer_of(toys, None).objective.autoencoder.eval()
    answers, error = answered(model, toys)
    return dict(metrics=metrics, history=history, data=data, scores=scores, matching={"two_prong": np.ones(n)}, latents=rng.normal(size=(n, 3)),
                codebook=(np.array([5., 3, 0, 0]), rng.normal(size=(4, 3))), shown=shown_events(toys, answers, error),
                spectra={"pt": {"test": rng.normal(size=n), "samples": rng.normal(size=n)}})

def test_a_whole_result_is_drawn(result):
    found = figures.events_figures(result)
    assert list(found) == ["training", "features", "roc", "anomalies", "spectra", "display", "codebook", "latents", "mass", "samples", "corrupted"]
    model = [line for line in found["roc"].axes[0].get_lines() if line.get_label() == "model"]
    assert same_color(model[0].get_color(), MODEL) and same_color(figures.score_colours(["jet mass"])["jet mass"], SHADES[2])
    assert "2 of 4" in found["codebook"].axes[0].get_title() and "samples: 3" in found["samples"].axes[0].get_title()
    plt.close("all")

@pytest.mark.parametrize("without, lost", [("scores", {"roc", "spectra", "mass"}), ("codebook", {"codebook"}), ("latents", {"latents"}),
    ("spectra", {"samples"}), ("shown", {"display"}), ("history", {"training"})])
def test_what_is_not_there_is_left_out(without, lost, result, monkeypatch):
    for name in dir(figures):
        if name.startswith("draw_"): monkeypatch.setattr(figures, name, lambda *given, **options: None)
    every, left = set(figures.events_figures(result)), set(figures.events_figures(result | {without: None}))
    assert every - left == lost

def test_without_a_signal_nothing_is_ranked(result):
    "And a latent of one number still has a map."
    alone = result | dict(data=replace(result["data"], signal=()), latents=result["latents"][:, :1],
                          metrics=result["metrics"] | dict(anomalies=[]))
    assert not {"roc", "anomalies"} & set(figures.events_figures(alone))
    plt.close("all")

# comparisons

def test_the_front_is_what_no_other_beats():
    rng = np.random.default_rng(1)
    cost, error = rng.integers(0, 6, 40), rng.integers(0, 6, 40)
    beaten = [any((c <= x and e <= y) and (c < x or e < y) for c, e in zip(cost, error)) for x, y in zip(cost, error)]
    assert comparison.pareto_front(cost, error).tolist() == [not b for b in beaten]
    assert comparison.pareto_front([1., np.nan], [np.inf, 0.]).tolist() == [False, False]

def test_a_run_that_was_never_validated_is_compared_without_it():
    own = pd.DataFrame(dict(epoch=[1, 2], val_loss=[np.nan]*2, epoch_time_s=[1., 1.]))
    assert np.isnan(comparison.common_threshold({"a": own})) and np.isnan(comparison.time_to(own, .5))
    assert comparison.time_to(own.assign(val_loss=[.7, .5]), .5) == 2
