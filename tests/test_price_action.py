"The classifiers of price action: what they are made of, what they learn from, and what they say once the weight is out."
import math

import numpy as np, pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F

from synthlab.models.price_action import LSTMBaseline, PositionalEncoding, PriceActionTransformer, create_classifier
from synthlab.models.registry import KINDS, ConfigError, create, registry
from synthlab.trainers.classifiers import BinaryObjective, binary_loss, prior_correction
from synthlab.trainers.steps import TensorBatches, TrainingConfig
from synthlab.trainers.trainer import Trainer

def gen(seed=0): return torch.Generator().manual_seed(seed)
def small(F=3, **options): return create_classifier({"name": "transformer", "d_model": 16, "nhead": 2, "num_layers": 2, "dim_feedforward": 32} | options, F, seed=0)

# the networks

@pytest.mark.parametrize("make,count", [(PriceActionTransformer, 406_785), (lambda: PriceActionTransformer(d_model=256, num_layers=4), 2_145_281), (LSTMBaseline, 148_609)])
def test_parameter_counts(make, count):
    model = make()
    assert model.get_num_params() == count == sum(v.numel() for v in model.state_dict().values())

@pytest.mark.parametrize("name", ["transformer", "lstm"])
def test_shapes_and_probabilities(name):
    model, x = create_classifier(name, 14, seed=0).eval(), torch.randn(32, 64, 14, generator=gen())
    with torch.no_grad(): p, z = model(x), model.logits(x)
    assert p.shape == (32, 1) and z.shape == (32,) and ((0 < p) & (p < 1)).all()
    assert torch.equal(p[:, 0], z.sigmoid())
    with torch.no_grad(): assert torch.allclose(torch.cat([model.logits(x[i:i + 1]) for i in range(32)]), z, atol=1e-6)  # windows know nothing of each other

def by_hand(model, x):
    "The transformer from its weights alone, in float64: Vaswani et al. (2017), post-norm."
    w = {k: v.double() for k, v in model.state_dict().items()}
    B, T, _ = x.shape
    h, d = model.encoder.layers[0].self_attn.num_heads, w["lift.bias"].numel()
    place, i = np.arange(T)[:, None], np.arange(d)
    waves = np.where(i % 2 == 0, np.sin(place/10_000**(2*(i//2)/d)), np.cos(place/10_000**(2*(i//2)/d)))
    x = x.double() @ w["lift.weight"].T + w["lift.bias"] + torch.from_numpy(waves)
    def norm(x, at): return (x - x.mean(-1, keepdim=True))/(x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()*w[at + ".weight"] + w[at + ".bias"]
    for l in range(len(model.encoder.layers)):
        at = f"encoder.layers.{l}."
        q, k, v = (x @ w[at + "self_attn.in_proj_weight"].T + w[at + "self_attn.in_proj_bias"]).view(B, T, 3, h, d//h).permute(2, 0, 3, 1, 4)
        seen = ((q @ k.mT/(d//h)**.5).softmax(-1) @ v).transpose(1, 2).reshape(B, T, d)
        x = norm(x + seen @ w[at + "self_attn.out_proj.weight"].T + w[at + "self_attn.out_proj.bias"], at + "norm1")
        thought = (x @ w[at + "linear1.weight"].T + w[at + "linear1.bias"]).relu() @ w[at + "linear2.weight"].T + w[at + "linear2.bias"]
        x = norm(x + thought, at + "norm2")
    x = (x.mean(1) @ w["head.0.weight"].T + w["head.0.bias"]).relu()
    return (x @ w["head.3.weight"].T + w["head.3.bias"])[:, 0]

@pytest.mark.parametrize("options", [dict(), dict(d_model=32, nhead=8, num_layers=3, dim_feedforward=20)])
def test_the_transformer_by_hand(options):
    model, x = PriceActionTransformer(**options).eval(), torch.randn(4, 64, 14, generator=gen(1))
    with torch.no_grad(): assert torch.allclose(model.logits(x).double(), by_hand(model, x), atol=1e-5)

def test_every_candle_of_its_own_window_counts():
    "No mask: the first candle sees the last. And no window sees another."
    for name in ("transformer", "lstm"):
        model, x = create_classifier(name, 14, seed=0).eval(), torch.randn(3, 20, 14, generator=gen(), requires_grad=True)
        model.logits(x)[1].backward()
        felt = x.grad.abs().sum(-1)
        assert (felt[1] > 0).all() and not felt[[0, 2]].any()

def test_dropout_is_off_in_evaluation():
    model, x = small(), torch.randn(4, 10, 3, generator=gen())
    assert not model.logits(x).equal(model.logits(x))
    model.eval(); assert model.logits(x).equal(model.logits(x))

def test_the_fused_kernel_says_the_same():
    "Inference without gradients takes another path through torch."
    model, x = small().eval(), torch.randn(16, 12, 3, generator=gen())
    slow = model.logits(x).detach()
    with torch.no_grad(): assert torch.allclose(model.logits(x), slow, atol=1e-6)

def test_matrices_start_from_xavier():
    model = PriceActionTransformer()
    for name, p in model.named_parameters():
        if p.ndim < 2: continue
        limit = math.sqrt(6/sum(p.shape))
        assert p.abs().max() <= limit and abs(p.std()/(limit/math.sqrt(3)) - 1) < (.15 if p.numel() < 2000 else .05), name

@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 200))
def test_places(pairs, longest):
    d = 2*pairs
    waves = PositionalEncoding(d, longest, 0.)(torch.zeros(1, longest, d))[0]
    t, i = np.arange(longest)[:, None], np.arange(pairs)
    want = np.stack([np.sin(t/10_000**(2*i/d)), np.cos(t/10_000**(2*i/d))], -1).reshape(longest, d)
    assert np.abs(waves.numpy() - want).max() < 1e-6

@pytest.mark.parametrize("wrong,says", [
    (lambda: PriceActionTransformer(d_model=129, nhead=3), "even number"), (lambda: PriceActionTransformer(d_model=130), "multiple of nhead"),
    (lambda: PriceActionTransformer(nhead=0), "nhead is 0"), (lambda: PriceActionTransformer(dropout=1.), "dropout is 1.0"),
    (lambda: LSTMBaseline(num_layers=0), "num_layers is 0"), (lambda: LSTMBaseline()(torch.zeros(2, 64, 13)), r"\(B, T, 14\), got \(2, 64, 13\)"),
    (lambda: PriceActionTransformer()(torch.zeros(14)), "give it 14 features"), (lambda: small(max_len=8)(torch.zeros(1, 9, 3)), "longer than max_len=8"),
    (lambda: small()(torch.zeros(2, 0, 3)), "without a candle")])
def test_errors_are_one_sentence(wrong, says):
    with pytest.raises(ValueError, match=says) as error: wrong()
    assert "\n" not in str(error.value)

def test_the_registry_has_a_kind_for_them():
    assert KINDS[-1] == "classifier" and {i.cls for i in registry.list_blocks("classifier")} >= {PriceActionTransformer, LSTMBaseline}
    model = create("classifier", {"name": "transformer", "num_layers": 4}, input_dim=14)
    assert type(model) is PriceActionTransformer and len(model.encoder.layers) == 4
    assert registry.get_info("lstm").kind == "block" and registry.get_info("lstm", "classifier").cls is LSTMBaseline    # the block keeps its name
    for bad in ("lstmm", {"name": "transformer", "depth": 2}, {"name": "transformer", "d_model": "128"}, {"name": "transformer", "d_model": 30}, {"_target_": "os.system"}, {"name": "lstm", "input_dim": 3}):
        with pytest.raises(ConfigError): create_classifier(bad)

def test_a_seed_leaves_no_trace():
    before = torch.get_rng_state()
    a, b, c = (create_classifier("transformer", 14, seed) for seed in (7, 7, 8))
    assert torch.get_rng_state().equal(before)
    assert all(u.equal(v) for u, v in zip(a.state_dict().values(), b.state_dict().values())) and not a.lift.weight.equal(c.lift.weight)
    torch.manual_seed(7); assert create_classifier("transformer", 14).lift.weight.equal(a.lift.weight)

# what they learn from

@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.floats(-30, 30), st.integers(0, 1), st.floats(.1, 20), st.floats(0, 4), st.floats(0, .9))
def test_the_loss_is_its_formula(z, y, w, gamma, s):
    p, soft = 1/(1 + math.exp(-z)), y*(1 - s) + s/2
    want = -(w*soft*(1 - p)**gamma*math.log(p) + (1 - soft)*p**gamma*math.log1p(-p) if p < 1 else w*soft*0.) if 0 < p < 1 else None
    got = binary_loss(torch.tensor([z], dtype=torch.float64), torch.tensor([float(y)], dtype=torch.float64), w, gamma, s).item()
    if want is not None: assert got == pytest.approx(want, rel=1e-3, abs=1e-9)
    assert got >= 0

@pytest.mark.parametrize("w", [1., 9.316163, .2])
def test_without_focus_it_is_torchs(w):
    z = (6*torch.randn(1000, generator=gen())).requires_grad_()
    y = (torch.rand(1000, generator=gen(1)) < .2).float()
    theirs = F.binary_cross_entropy_with_logits(z, y, pos_weight=torch.tensor(w), reduction="none")
    ours = binary_loss(z, y, w)
    assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    assert torch.allclose(*(torch.autograd.grad(v.sum(), z, retain_graph=True)[0] for v in (ours, theirs)), atol=1e-5)

def test_focal_loss_is_that_of_the_paper():
    "Lin et al. (2017), equation 4, with p_t from probabilities."
    p = torch.linspace(.01, .99, 99, dtype=torch.float64)
    z, y = (p/(1 - p)).log(), (torch.arange(99) % 2).double()
    p_t = torch.where(y == 1, p, 1 - p)
    assert torch.allclose(binary_loss(z, y, focal=2.), -(1 - p_t)**2*p_t.log(), atol=1e-10)

@pytest.mark.parametrize("gamma", [0., .5, 2.])
def test_far_logits_stay_finite(gamma):
    z, y = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True), torch.tensor([0., 0., 1., 1.])
    loss = binary_loss(z, y, 3., gamma); loss.sum().backward()
    assert loss.isfinite().all() and z.grad.isfinite().all() and loss[0] == 0 and loss[2] == 3e4

@settings(derandomize=True, deadline=None, max_examples=25)
@given(st.floats(.02, .98), st.floats(.05, 20))
def test_the_weight_comes_out(rate, w):
    "The minimum of the weighted expected loss, found by bisection of its slope, corrected."
    low, high = -20., 20.
    for _ in range(60):
        z = torch.tensor((low + high)/2, dtype=torch.float64, requires_grad=True)
        (rate*binary_loss(z[None], torch.ones(1), w) + (1 - rate)*binary_loss(z[None], torch.zeros(1), w)).sum().backward()
        low, high = (low, z.item()) if z.grad > 0 else (z.item(), high)
    assert prior_correction(torch.tensor(low, dtype=torch.float64), w).sigmoid().item() == pytest.approx(rate, abs=1e-6)

class Line(nn.Module):
    def __init__(self): super().__init__(); self.line = nn.Linear(1, 1)
    def logits(self, history): return self.line(history[:, -1])[:, 0]

def data(n, seed):
    x = torch.randn(n, 1, 1, generator=gen(seed))
    return {"history": x, "label": (torch.rand(n, generator=gen(seed + 100)) < (2*x[:, 0, 0] - 3).sigmoid()).float()}

def trained(w=1., folder=None, epochs=12, **options):
    torch.manual_seed(0)
    trainer = Trainer(BinaryObjective(Line(), w, **options), TrainingConfig(lr=.3, epochs=epochs, weight_decay=0.), folder)
    trainer.fit(TensorBatches(data(6000, 0), 400), TensorBatches(data(2000, 1), 700, shuffle=False))
    return trainer

def test_two_parameters_find_the_rate_under_any_weight():
    from sklearn.linear_model import LogisticRegression
    d = data(6000, 0); oracle = LogisticRegression(C=1e9).fit(d["history"][:, 0].numpy(), d["label"].numpy())
    for w in (1., 6.):
        trainer = trained(w)
        found = np.array([trainer.model.line.weight.item(), trainer.model.line.bias.item() - math.log(w)])
        assert np.abs(found - [oracle.coef_[0, 0], oracle.intercept_[0]]).max() < .12, (w, found)
        with torch.no_grad(): assert abs(trainer.objective.probabilities(d).mean() - d["label"].mean()) < .01

def test_evaluation_is_without_the_weight():
    model, d = Line(), data(500, 3)
    objective = BinaryObjective(model, 5., focal=1.5, smoothing=.1)
    with torch.no_grad(): z = model.logits(d["history"]); seen = objective.evaluate(d, gen())
    p = (z - math.log(5)).sigmoid()
    assert set(seen) == {"loss", "log_loss", "brier", "hit"} and all(v.shape == (500,) for v in seen.values()) and objective.monitor == "log_loss"
    assert torch.allclose(seen["log_loss"], F.binary_cross_entropy(p, d["label"], reduction="none"), atol=1e-5)
    assert torch.allclose(seen["brier"], (p - d["label"])**2, atol=1e-6) and torch.equal(seen["hit"], ((p > .5) == d["label"].bool()).float())
    assert torch.allclose(seen["loss"], binary_loss(z, d["label"], 5., 1.5, .1))
    assert torch.allclose(objective.loss(d, "model", gen())[0], seen["loss"].mean(), atol=1e-6)
    assert torch.allclose(objective.probabilities(d), p, atol=1e-6)

def test_the_best_epoch_is_the_one_with_the_least_log_loss(tmp_path):
    trainer = trained(6., tmp_path, epochs=5)
    scores = [row["val_log_loss"] for row in trainer.history]
    assert trainer.best["score"] == min(scores) and trainer.best["epoch"] == scores.index(min(scores))
    val = TensorBatches(data(2000, 1), 700, shuffle=False)
    trainer.load_best(); assert trainer.validate(val)["val_log_loss"] == min(scores)
    again = Trainer(BinaryObjective(Line(), 6.), TrainingConfig(lr=.3, epochs=5, weight_decay=0.), tmp_path)
    assert again.resume() and again.fit(TensorBatches(data(6000, 0), 400), val) == trainer.history

def test_low_precision_judges_in_float32():
    model = small(dropout=0.)
    d = {"history": torch.randn(8, 10, 3, generator=gen()), "label": torch.tensor([0., 1.]*4)}
    trainer = Trainer(BinaryObjective(model, 3.), TrainingConfig(epochs=1, precision="bf16"))
    with trainer.precision(): seen = trainer.objective.evaluate(d, gen())
    assert all(v.dtype == torch.float32 for v in seen.values())
    trainer.fit(TensorBatches(d, 4), TensorBatches(d, 8, shuffle=False))

def test_bad_labels_and_options():
    for label in ([0., 2.], [0., .5], [0., math.nan]):
        d = {"history": torch.zeros(2, 1, 1), "label": torch.tensor(label)}
        with pytest.raises(ValueError, match="leave out windows whose label is missing"): BinaryObjective(Line()).evaluate(d, gen())
    for options in (dict(pos_weight=0.), dict(pos_weight=math.nan), dict(pos_weight=math.inf), dict(focal=-.1), dict(smoothing=1.)):
        with pytest.raises(ValueError, match=next(iter(options))): BinaryObjective(Line(), **options)
    with pytest.raises(ValueError, match="no method logits"): BinaryObjective(nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"\(2, 1\)"): binary_loss(torch.zeros(2, 1), torch.zeros(2))
