"Autoencoders of events: what fits trains and gets better, padding is nothing, codes move once a step, and a stopped training goes on to the same bits."
import json, math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tiny
from synthlab.datasets.event_batches import EventBatches
from synthlab.datasets.toy_events import simulate_toys
from synthlab.models.autoencoder import create_autoencoder, sample_events
from synthlab.models.event_latents import VectorQuantizer, average_codes, perplexity
from synthlab.models.registry import ConfigError, create, registry
from synthlab.trainers.checkpoints import read_header
from synthlab.trainers.event_losses import EventLoss
from synthlab.trainers.event_objectives import autoencoder_for, create_objective, default_parts, load_autoencoder
from synthlab.trainers.processes import World
from synthlab.trainers.steps import Stepper, TrainingConfig
from synthlab.trainers.trainer import Trainer

LOOPS, LATENTS = ("ae", "gan_ae", "diffusion_ae", "test_mlp"), ("none", "linear", "vq", "fsq")
ENCODERS, DECODERS = (("mlp", "gnn", "transformer", "gan", "diffusion"),)*2
SMALL = {"mlp": dict(hidden=[16, 16]), "gnn": dict(d_model=8, layers=1, neighbours=4), "gan": dict(d_model=8, layers=1, neighbours=4),
         "transformer": dict(d_model=8, nhead=2, layers=1), "diffusion": dict(d_model=8, nhead=2, layers=1)}
LATENT = {"vq": dict(codes=24, revive_every=5), "fsq": dict(levels=[5, 5])}
CRITIC = {"gan_ae": dict(critic=dict(d_model=8, layers=1, neighbours=4))}

@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

@pytest.fixture(scope="module")
def toys(): return simulate_toys({"one_prong": 240}, tokens=8)

@pytest.fixture(scope="module")
def objects():
    "Angles on the circle, an event of padding alone among them."
    events = simulate_toys({"top_pair": 40}, "objects", tokens=8)
    return replace(events, kind=np.where(np.arange(40)[:, None] == 3, 0, events.kind))

def part(name, decoder=False): return dict(name=name, **SMALL[name], **(dict(steps=6) if decoder and name == "diffusion" else {}))

def model_of(loop, events, encoder=None, decoder=None, latent="none", seed=0):
    names = default_parts(loop) | {k: v for k, v in dict(encoder=encoder, decoder=decoder).items() if v}
    model = autoencoder_for(loop, events.layout, seed, encoder=part(names["encoder"]), decoder=part(names["decoder"], True),
                            latent=dict(name=latent, **LATENT.get(latent, {})), latent_dim=4)
    model.scaler.learn(events)
    return model

def trainer_of(loop, events, folder=None, epochs=3, config=None, **parts):
    model = model_of(loop, events, **parts)
    config = TrainingConfig(**dict(lr=1e-2, epochs=epochs, seed=1, warmup_epochs=.5) | (config or {}))
    objective = create_objective(dict(name=loop, **CRITIC.get(loop, {})), model)
    return Trainer(objective, config, folder, about=dict(model=model.recipe), progress=False)

def data_of(events, batch_size=32):
    return EventBatches(events.take(slice(0, 192)), batch_size), EventBatches(events.take(slice(192, 240)), 48, shuffle=False)

# what is trained

RUNS = [(loop, latent, None, None) for loop in LOOPS for latent in LATENTS]
RUNS += [("gan_ae" if name == "gan" else "ae", "none", name, None) for name in ENCODERS if name != "transformer"]
RUNS += [(dict(diffusion="diffusion_ae", gan="gan_ae").get(name, "ae"), "vq", None, name) for name in DECODERS]
RUNS += [("gan_ae", "vq", "gan", "gan")]

@pytest.mark.parametrize("loop, latent, encoder, decoder", RUNS)
def test_it_reconstructs_better_than_before(loop, latent, encoder, decoder, toys, capsys):
    trainer = trainer_of(loop, toys, epochs=4, latent=latent, encoder=encoder, decoder=decoder)
    rows = trainer.fit(*data_of(toys, 24))
    before, after = rows[0]["val_reconstruction"], trainer.best["score"]
    used = f", {rows[-1]['val_codes_used']:.0%} of codes, perplexity {rows[-1]['val_perplexity']:.1f}" if latent in LATENT else ""
    with capsys.disabled(): print(f"\n{loop:13}{latent:7}{encoder or '-':12}{decoder or '-':12} {before:.3f} -> {after:.3f}{used}", end="")
    assert trainer.best["epoch"] > 0 and after < .85*before
    assert latent not in LATENT or rows[-1]["val_codes_used"] > .3
