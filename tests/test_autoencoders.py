"Autoencoders of events: what fits trains and gets better, padding is nothing, codes move once a step, and a stopped training goes on to the same bits."
import json, math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import tiny
import synthlab.trainers.normalised     # noqa: F401 (registers its loop)
from synthlab.trainers.event_batches import EventBatches
from synthlab.datasets.toy_events import simulate_toys
from synthlab.models.event_latents import VectorQuantizer, average_codes, perplexity
from synthlab.models.registry import ConfigError, registry
from synthlab.trainers.checkpoints import read_header
from synthlab.trainers.event_objectives import autoencoder_for, create_objective, default_parts, load_autoencoder
from synthlab.trainers.processes import World
from synthlab.trainers.steps import Stepper, TrainingConfig
from synthlab.trainers.trainer import Trainer

LOOPS, LATENTS = ("ae", "gan_ae", "diffusion_ae", "test_mlp"), ("none", "linear", "vq", "fsq")
ENCODERS, DECODERS = (("mlp", "gnn", "transformer", "gan", "diffusion"),)*2
SMALL = {"mlp": dict(hidden=[16, 16]), "gnn": dict(d_model=8, layers=1, neighbours=4), "gan": dict(d_model=8, layers=1, neighbours=4),
         "transformer": dict(d_model=8, nhead=2, layers=1), "diffusion": dict(d_model=8, nhead=2, layers=1)}
LATENT = {"vq": dict(codes=24, revive_every=5), "fsq": dict(levels=[5, 5])}
OPTIONS = {"gan_ae": dict(critic=dict(d_model=8, layers=1, neighbours=4)),
           "normalised_ae": dict(warmup_steps=4, latent_steps=1, walk_steps=1)}

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
    objective = create_objective(dict(name=loop, **OPTIONS.get(loop, {})), model)
    return Trainer(objective, config, folder, about=dict(recipe=model.recipe), progress=False)

def data_of(events, batch_size=32):
    return EventBatches(events.take(slice(0, 192)), batch_size), EventBatches(events.take(slice(192, 240)), 48, shuffle=False)

# what is trained

RUNS = [(loop, latent, None, None) for loop in LOOPS for latent in LATENTS]
RUNS += [("gan_ae" if name == "gan" else "ae", "none", name, None) for name in ENCODERS if name != "transformer"]
RUNS += [("ae", "vq", None, "mlp"), ("ae", "vq", None, "gnn"), ("gan_ae", "vq", "gan", "gan")]      # the other decoders are a loop's own

@pytest.mark.parametrize("loop, latent, encoder, decoder", RUNS)
def test_it_reconstructs_better_than_before(loop, latent, encoder, decoder, toys, capsys):
    "And better than the mean of all particles, whose error is 1; a denoiser takes longer to get there, so its error is only to fall by a quarter."
    trainer = trainer_of(loop, toys, epochs=6 if loop == "diffusion_ae" else 4, latent=latent, encoder=encoder, decoder=decoder)
    rows = trainer.fit(*data_of(toys, 24))
    before, after = rows[0]["val_reconstruction"], trainer.best["score"]
    used = f", {rows[-1]['val_codes_used']:.0%} of codes, perplexity {rows[-1]['val_perplexity']:.1f}" if latent in LATENT else ""
    with capsys.disabled(): print(f"\n{loop:13}{latent:7}{encoder or '-':12}{decoder or '-':12} {before:.3f} -> {after:.3f}{used}", end="")
    assert trainer.best["epoch"] > 0 and after < (.75*before if loop == "diffusion_ae" else min(.85*before, 1))
    assert latent not in LATENT or rows[-1]["val_codes_used"] > .3

# what fits

def every_pair():
    takes = lambda kind, name, loop: loop in registry.get_info(name, kind).facts["loops"]
    return [(l, e, d) for l in LOOPS for e in ENCODERS for d in DECODERS if takes("encoder", e, l) and takes("decoder", d, l)]

def test_every_pair_that_fits_takes_a_step(objects):
    "The rest of the pairs, on events with angles: built, and one step with numbers that are finite, on a batch with an empty event."
    pairs, batch = every_pair(), EventBatches(objects, 8, shuffle=False).batch(0, 0)
    assert len(pairs) == 4*3 + 5*4 + 4 + 1
    for loop, encoder, decoder in pairs:
        trainer = trainer_of(loop, objects, encoder=encoder, decoder=decoder, latent="vq" if encoder in ("gnn", "gan") else "none")
        numbers = trainer.train_step(batch)
        assert all(math.isfinite(v) for v in numbers.values()), (loop, encoder, decoder)

@pytest.mark.parametrize("loop, encoder, decoder, better", [
    ("ae", "transformer", "gan", "gan_ae"), ("ae", "gan", "transformer", "gan_ae"), ("gan_ae", "transformer", "diffusion", "diffusion_ae"),
    ("diffusion_ae", "transformer", "mlp", "ae or gan_ae or test_mlp"), ("test_mlp", "transformer", "mlp", "ae or gan_ae or diffusion_ae")])
def test_what_does_not_fit_is_refused_by_name(loop, encoder, decoder, better, objects):
    with pytest.raises(ConfigError, match=f"the loop {loop} cannot train .*use the loop {better}"):
        create_objective(loop, model_of(loop, objects, encoder, decoder))

def test_own_parts_are_found_by_name(objects):
    "A user's encoder, loss and loop: registered, named, trained; what they do not know they are not given."
    from synthlab.trainers.event_objectives import AEObjective
    @registry.register("encoder", "two columns")
    class TwoColumns(torch.nn.Module):
        def __init__(self, width: int, latent_dim: int = 8):
            super().__init__(); self.map = torch.nn.Linear(width, latent_dim)
        def forward(self, x, kind, mask, g, noise_level=None): return self.map(x)*mask[..., None], None
    @registry.register("event_loss", "largest")
    class Largest:
        def __call__(self, output, scaled): return (output.x - scaled.x).abs().amax((1, 2))
    @registry.register("loop", "patient", like="ae")
    class Patient(AEObjective): loop = "patient"
    try:
        model = autoencoder_for("patient", objects.layout, encoder="two columns", decoder=part("mlp"), latent_dim=3)
        model.scaler.learn(objects)
        trainer = Trainer(create_objective(dict(name="patient", losses=dict(largest=1.)), model), TrainingConfig(epochs=1), progress=False)
        assert math.isfinite(trainer.fit(EventBatches(objects, 20), EventBatches(objects, 40, shuffle=False))[-1]["val_largest"])
        with pytest.raises(ConfigError, match="cannot train the decoder gan"): create_objective("patient", autoencoder_for("patient", objects.layout, decoder="gan"))
    finally:
        for kind, name in dict(encoder="two columns", event_loss="largest", loop="patient").items(): del registry._store[kind][name]

# padding

@pytest.mark.parametrize("encoder, latent, decoder", [("mlp", "none", "mlp"), ("gnn", "linear", "gnn"), ("transformer", "vq", "transformer"),
                                                      ("gan", "fsq", "gan"), ("diffusion", "vq", "diffusion")])
def test_padding_moves_nothing(encoder, latent, decoder, objects):
    "To the bit: what comes back, what is kept, every loss and error, the gradient; and an event of padding alone is one."
    loop = {"gan": "gan_ae", "diffusion": "diffusion_ae"}.get(decoder, "ae")
    model = model_of(loop, objects, encoder, decoder, latent)
    objective = create_objective(dict(name=loop, **OPTIONS.get(loop, {})), model)
    batch = EventBatches(objects, 40, shuffle=False).batch(0, 0)
    assert (batch["kind"][3] == 0).all() and (batch["kind"] == 0).any(1).sum() > 10
    other = batch | dict(continuous=torch.where((batch["kind"] > 0)[..., None], batch["continuous"], torch.nan))
    seen, start = [], {k: v.clone() for k, v in model.latent.state_dict().items()}
    for given in batch, other:
        numbers, generator = {}, torch.Generator()
        for phase in objective.phases:
            for p in objective.model.parameters(): p.grad = None
            total, parts = objective.loss(given, phase, generator.manual_seed(0))
            total.backward()
            numbers |= {f"{phase} {k}": v for k, v in parts.items()} | {phase: total}
            numbers |= {f"{phase} {n}": p.grad for n, p in objective.model.named_parameters() if p.grad is not None}
        objective.after_step(generator.manual_seed(1))
        with torch.no_grad(): numbers |= objective.evaluate(given, generator) | model.reconstruct(given)
        seen.append(numbers)
        model.latent.load_state_dict(start)
    assert all(v.isfinite().all() for v in seen[0].values())
    assert [k for k in seen[0] if not seen[0][k].equal(seen[1][k])] == []

@pytest.mark.parametrize("latent", ["none", "vq"])
def test_walks_leave_padding_alone(latent, objects):
    "To the bit, with angles and an event of padding alone; angles end on the circle, walks differ from where they began, and only weights learn."
    model = model_of("normalised_ae", objects, latent=latent)
    objective = create_objective(dict(name="normalised_ae", **OPTIONS["normalised_ae"]), model)
    objective.model.steps.fill_(9)                                      # the walks weigh all they ever will
    batch = EventBatches(objects, 40, shuffle=False).batch(0, 0)
    other = batch | dict(continuous=torch.where((batch["kind"] > 0)[..., None], batch["continuous"], torch.nan))
    seen = []
    for given in batch, other:
        for p in objective.model.parameters(): p.grad = None
        total, parts = objective.loss(given, "model", torch.Generator().manual_seed(0))
        total.backward()
        with torch.no_grad(): numbers = objective.evaluate(given, None)
        seen.append(parts | dict(total=total) | numbers | {n: p.grad for n, p in objective.model.named_parameters() if p.grad is not None})
    assert all(v.isfinite().all() for v in seen[0].values()) and [k for k in seen[0] if not seen[0][k].equal(seen[1][k])] == []
    scaled = model.scaler(batch)
    noise, chance = torch.randn(40, 8, objective.noise_width), torch.rand(40, 3)
    end = objective.walk(scaled, noise, chance)
    assert not end.requires_grad and not end[~scaled.mask].any() and not end.equal(scaled.x)
    angle = next(c for c in model.scaler.features if c.angle)
    assert torch.allclose(end[..., angle.at].norm(dim=-1)[scaled.mask], torch.ones(int(scaled.mask.sum())), atol=1e-5)

def test_more_slots_and_another_order_change_no_answer(objects):
    "Eight more empty slots leave errors and codes as they are; particles in another order come back in that order."
    model = model_of("ae", objects, latent="vq").eval()
    batch = EventBatches(objects, 40, shuffle=False).batch(0, 0)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    wider = batch | dict(continuous=F.pad(batch["continuous"], (0, 0, 0, 8)), kind=F.pad(batch["kind"], (0, 8)))
    turned = batch | dict(continuous=batch["continuous"][:, order], kind=batch["kind"][:, order])
    with torch.no_grad():
        (plain, _), (wide, _), (other, _) = model(batch), model(wider), model(turned)
    assert torch.equal(wide.kept.indices[:, :8], plain.kept.indices) and torch.equal(other.kept.indices, plain.kept.indices[:, order])
    assert (wide.x[:, :8] - plain.x).abs().max() < 1e-5 and (other.x - plain.x[:, order]).abs().max() < 1e-5
    assert (other.globals - plain.globals).abs().max() < 1e-5

# codes

def test_a_step_of_the_codebook_is_the_reference_s():
    "vector-quantize-pytorch's moving averages, codes and indices, over five steps, with padding."
    vqp = pytest.importorskip("vector_quantize_pytorch", reason="vector-quantize-pytorch, the oracle, is not installed")
    torch.manual_seed(0)
    theirs = vqp.VectorQuantize(dim=3, codebook_size=16, decay=.9, eps=1e-5, threshold_ema_dead_code=0, kmeans_init=False)
    ours = VectorQuantizer(3, codes=16, decay=.9, start="normal", revive_every=0)
    words = torch.randn(16, 3)
    theirs._codebook.embed.copy_(words[None]); theirs._codebook.embed_avg.copy_(words[None]); theirs._codebook.cluster_size.fill_(1.)
    ours.codebook.copy_(words); ours.weight.copy_(words)
    for step in range(5):
        z, mask = torch.randn(7, 9, 3), torch.rand(7, 9) < .7
        z_q, indices, _ = theirs(z, mask=mask)
        out = ours(z, mask)
        assert torch.equal(out.indices[mask], indices[mask]) and torch.allclose(out.z_q[mask], z_q[mask], atol=1e-6)
        ours.gather(z, out.indices, step); ours.after_step(torch.Generator())
        assert torch.allclose(ours.codebook, theirs._codebook.embed[0], atol=1e-5)
        assert torch.allclose(ours.count, theirs._codebook.cluster_size[0], atol=1e-5)

def test_the_hand_numbers_of_a_codebook():
    count, weight, codes = average_codes(torch.zeros(2), torch.zeros(2, 1), torch.tensor([2., 1.]), torch.tensor([[2.], [3.]]))
    assert codes[:, 0].tolist() == pytest.approx([1.00016658, 2.99900100], abs=1e-6)
    assert perplexity(torch.tensor([1., 1.])).item() == pytest.approx(2) and perplexity(torch.tensor([2., 1, 1])).item() == pytest.approx(2.8284271)

def test_codes_move_once_a_step(toys):
    "Accumulated parts are one step, equal to that of the whole batch; the critic's phase gathers nothing; a skipped step leaves nothing."
    batches = EventBatches(toys, 16, shuffle=False)
    half, whole = [batches.batch(0, 0), batches.batch(0, 1)], EventBatches(toys, 32, shuffle=False).batch(0, 0)
    def after(batch, steps=1):
        stepper = Stepper(create_objective("ae", model_of("ae", toys, latent="vq")), TrainingConfig(on_nonfinite="skip"))
        stepper.objective.autoencoder.latent.started.fill_(True)
        stepper.train_step(batch)
        return stepper
    one, two = (after(b).objective.autoencoder.latent for b in (whole, half))
    assert one.steps == two.steps == 1 and torch.allclose(one.codebook, two.codebook, atol=1e-5) and torch.allclose(one.count, two.count)
    stepper = after(whole); before = one.codebook.clone(); assert stepper.objective.autoencoder.latent.codebook.equal(before)
    broken = whole | dict(globals=torch.full_like(whole["globals"], torch.nan))
    with pytest.raises(FloatingPointError): stepper.train_step([whole, broken])
    assert stepper.objective.autoencoder.latent.codebook.equal(before)
    stepper.position = 1
    again = after(whole); again.position = 1
    for s in stepper, again: s.train_step(half[0])
    assert stepper.objective.autoencoder.latent.count.equal(again.objective.autoencoder.latent.count)
    game = Stepper(create_objective(dict(name="gan_ae", **OPTIONS["gan_ae"]), model_of("gan_ae", toys, latent="vq")), TrainingConfig())
    game.seed("train", 0, 0); game.descend("critic", [whole])
    assert game.objective.autoencoder.latent.chosen is None

def step_together(folder):
    "What each of two processes ends with; and what each saw of the codebook."
    torch.set_num_threads(1)
    events = simulate_toys({"one_prong": 64}, tokens=8)
    trainer = trainer_of("gan_ae", events, epochs=2, latent="vq")
    trainer.fit(EventBatches(events, 31), EventBatches(events, 33, shuffle=False))
    latent = trainer.objective.autoencoder.latent
    facts = dict(codebook=latent.codebook.tolist(), count=latent.count.tolist(), steps=int(latent.steps), revived=int(latent.revived))
    Path(folder, f"{World().rank}.json").write_text(json.dumps(facts))

def test_codes_are_alike_in_all_processes(tmp_path):
    "Two processes share uneven batches: the same words, counted from the particles of both."
    tiny.together(step_together, tmp_path)
    first, second = (json.loads((tmp_path/f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["steps"] == 6 and all(map(math.isfinite, np.ravel(first["codebook"])))
    (tmp_path/"alone").mkdir(); step_together(tmp_path/"alone")
    alone = json.loads((tmp_path/"alone/0.json").read_text())
    assert sum(alone["count"]) == pytest.approx(sum(first["count"]), rel=.2)

# stopping

class PowerCut(RuntimeError): pass

@pytest.mark.parametrize("loop, latent", [("ae", "vq"), ("gan_ae", "vq"), ("diffusion_ae", "fsq"), ("normalised_ae", "none")])
def test_a_stopped_training_goes_on_to_the_same_bits(loop, latent, toys, tmp_path):
    "Cut inside an epoch, between checkpoints, also before a revival."
    def run(name, cut=None):
        trainer = trainer_of(loop, toys, tmp_path/name, epochs=2, latent=latent, config=dict(checkpoint_steps=2, accumulate=2))
        trainer.resume(); advance = trainer.advance
        def advance_or_fail():
            advance()
            if trainer.step == cut: raise PowerCut
        trainer.advance = advance_or_fail
        trainer.fit(*data_of(toys, 16))
    run("whole")
    with pytest.raises(PowerCut): run("cut", 9)
    run("cut")
    assert tiny.differs(tiny.left_by(tmp_path/"whole"), tiny.left_by(tmp_path/"cut")) == []
    kept = read_header(tmp_path/"cut/checkpoints/last.safetensors")[0]
    names = {k.rsplit(".", 1)[-1] for k in kept if "latent." in k}
    assert names >= {"vq": {"codebook", "count", "weight", "recent", "steps", "started"}, "fsq": {"count"}, "none": set()}[latent]
    model = load_autoencoder(tmp_path/"cut/checkpoints/last.safetensors")
    batch = EventBatches(toys, 16, shuffle=False).batch(0, 0)
    assert all(v.isfinite().all() for v in model.reconstruct(batch).values())

def test_an_event_is_judged_alike_in_every_batch(toys):
    "Whatever else is in the batch, and with the noise that belongs to its number."
    for loop in "diffusion_ae", "gan_ae":
        trainer = trainer_of(loop, toys, latent="fsq")
        each = [torch.cat([trainer.objective.evaluate(b, None)["reconstruction"] for b in map(batches.batch, [0]*len(batches), range(len(batches)))])
                for batches in (EventBatches(toys, 240, shuffle=False), EventBatches(toys, 50, shuffle=False))]
        assert torch.allclose(*each, rtol=1e-4)
        assert trainer.validate(EventBatches(toys, 240))["val_reconstruction"] == pytest.approx(trainer.validate(EventBatches(toys, 64))["val_reconstruction"], rel=1e-5)

def test_bf16_is_near(toys):
    "Under autocast codes are chosen in full precision, and a step is about the same."
    def run(precision):
        trainer = trainer_of("gan_ae", toys, latent="vq", epochs=1, config=dict(precision=precision))
        trainer.fit(*data_of(toys)); return trainer.history[-1]["val_reconstruction"]
    assert run("bf16") == pytest.approx(run("float32"), rel=.1)
