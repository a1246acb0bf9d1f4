"What every registered block promises, held against all of them: shapes, independence, determinism, gradients, no hidden state."
import inspect, math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import synthlab.models.synth  # noqa: F401, registers the blocks
from synthlab.models.blocks import (GRUBlock, LSTMBlock, LastStepAdapter, PatchMerging, PositionBlock, RNNBlock,
    SDEEvolutionBlock, TransformerBlock, TransformerDecoderBlock, TransformerEncoderBlock)
from synthlab.models.normalise import RevIN
from synthlab.models.patches import (ChannelRejoin, FlexiblePatchEmbed, PatchEmbedding, PatchMixerBlock, align_ends,
    extend_back)
from synthlab.models.registry import ConfigError, create, registry
from synthlab.models.synth import HybridBackbone, create_model

property_test = settings(deadline=None, derandomize=True, max_examples=40)
D, B, C = 32, 3, 2      # width, samples, channels of what is read one channel at a time

COSTS = dict(transformerblock="medium", lstmblock="medium", grublock="medium", rnnblock="low", sdeevolutionblock="low", resconvblock="low",
    bitcnblock="low", patchembedding="low", unet1dblock="medium", transformerencoder="high", transformerdecoder="high", fourierblock="medium",
    laststepadapter="low", revin="low", flexiblepatchembed="low", channelrejoin="low", multiscalepatcher="medium", dlinearblock="low",
    layernormblock="low", timesnetblock="high", timemixerblock="high", patchmixerblock="medium")
OPTIONS = dict(         # what a block cannot do without, and variants worth trying; every other block is tried with its defaults
    channelrejoin=[dict(num_channels=C), dict(num_channels=C, mode="mean")],
    patchmixerblock=[dict(seq_len=64, patch_len=8), dict(seq_len=20, patch_len=3)],
    laststepadapter=[dict(mode=m) for m in ("last", "mean", "max")],
    flexiblepatchembed=[{}, dict(patch_len=5, stride=3), dict(in_channels=D, channel_independence=False)],
    multiscalepatcher=[{}, dict(scales=[3, 8], channel_independence=False)],
    patchembedding=[{}, dict(patch_size=7)], grublock=[{}, dict(num_layers=2)], rnnblock=[{}, dict(nonlinearity="relu")],
    revin=[{}, dict(affine=False)], sdeevolutionblock=[{}, dict(noise=.1)])
BLOCKS = [i for i in registry.list_blocks("block") if i.source_module.startswith("synthlab.")]
each_block = pytest.mark.parametrize("info,options", [pytest.param(i, o, id="-".join([i.name, *(f"{k}={v}" for k, v in o.items())]))
    for i in BLOCKS for o in OPTIONS.get(i.name, [{}])])

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def count(module): return sum(p.numel() for p in module.parameters())
def build(info, options, dropout=None):
    "The block that a recipe would name, with the same weights each time."
    torch.manual_seed(0)
    if dropout is not None and "dropout" in inspect.signature(info.cls).parameters: options = options | dict(dropout=dropout)
    return create("block", {"name": info.name} | options, d_model=D)
def one_by_one(block): return getattr(block, "channel_independence", False)
def states(block, T, n=B, seed=0):
    "What the block reads, (rows, T, width); the rows of a sample are next to each other."
    rows = n*getattr(block, "num_channels", 1)
    return torch.randn(rows, T, C if one_by_one(block) else D, generator=seeded(seed))
def of_sample(y, k, n=B): return y.unflatten(0, (n, -1))[k]
def lengths(info): return [T for T in (1, 2, 3, 4, 5, 16, 63, 64, 65, 512) if T >= info.min_seq_len]

# All blocks ----------------------------------------------------------------------------------------------------------

def test_the_whole_list_is_there():
    "An installed package knows every block, not only the three that happened to be imported."
    known = {i.name for i in registry.list_blocks("block")}
    assert set(COSTS) <= known and len(COSTS) == 22
    assert {"customattention", "gatedmlp", "patchmerging"} <= {i.name for i in registry.list_blocks("component")}

@pytest.mark.parametrize("info", BLOCKS, ids=lambda i: i.name)
def test_a_registration_says_something(info):
    assert info.description.endswith(".") and info.cost in ("low", "medium", "high") and info.cls.__doc__
    assert info.cost == COSTS.get(info.name, info.cost)
    assert info.min_seq_len in dict(timesnetblock=(4,), timemixerblock=(1, 4)).get(info.name, (1,))

@each_block
def test_shapes_are_as_promised(info, options):
    block = build(info, options).eval()
    for T in lengths(info):
        x = states(block, T)
        with torch.no_grad(): y = block(x)
        assert y.ndim == 3 and y.shape[1] >= 1 and y.isfinite().all() and y.dtype == x.dtype
        if block.preserves_seq_len: assert y.shape[1] == T
        if block.preserves_d_model: assert y.shape[2] == D
        assert len(y)*getattr(block, "num_channels", 1) == len(x)*(C if one_by_one(block) else 1)

@each_block
def test_a_history_that_is_too_short_is_named(info, options):
    if info.min_seq_len == 1: return
    block = build(info, options).eval()
    with pytest.raises(ValueError, match=str(info.min_seq_len)): block(states(block, info.min_seq_len - 1))

@each_block
@pytest.mark.parametrize("training", [True, False])
def test_samples_do_not_see_each_other(info, options, training):
    "A batch norm, or a median over the batch, makes a forecast depend on what it was computed together with."
    block = build(info, options, dropout=0.).train(training)
    for T in (info.min_seq_len, 16, 37):
        x, other = states(block, T), 10*states(block, T, seed=1) + 5
        other.unflatten(0, (B, -1))[1] = of_sample(x, 1)
        ys = []
        for v in (x, other): torch.manual_seed(0); ys.append(of_sample(block(v), 1))
        torch.testing.assert_close(*ys, rtol=1e-4, atol=1e-5)
        leaf = x.clone().requires_grad_()
        y = of_sample(block(leaf), 1)
        (y*torch.randn(y.shape, generator=seeded(2))).sum().backward()
        assert not of_sample(leaf.grad, 0).any() and not of_sample(leaf.grad, 2).any()

@each_block
def test_a_sample_alone_is_the_sample_in_a_batch(info, options):
    block = build(info, options).eval()
    x = states(block, 33)
    with torch.no_grad(): alone, together = block(of_sample(x, 2)), of_sample(block(x), 2)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)

@each_block
def test_evaluation_is_deterministic(info, options):
    block = build(info, options).eval()
    x, before = states(block, 37), torch.get_rng_state()
    with torch.no_grad(): assert torch.equal(block(x), block(x))
    assert torch.equal(before, torch.get_rng_state())

@each_block
def test_training_is_deterministic_given_the_seed(info, options):
    block = build(info, options).train()
    x, ys = states(block, 37), []
    for _ in range(2): torch.manual_seed(5); ys.append(block(x).detach())
    assert torch.equal(*ys)

@each_block
def test_a_call_leaves_no_trace(info, options):
    "Statistics kept in buffers change the weights file, disturb the next call, and differ between processes."
    block = build(info, options, dropout=0.).train()
    before = {k: v.clone() for k, v in block.state_dict().items()}
    torch.manual_seed(1); first = block(states(block, 37)).detach()
    block(states(block, 16, n=7)); block.eval()(states(block, 65, n=1))
    torch.manual_seed(1); again = block.train()(states(block, 37)).detach()
    after = block.state_dict()
    assert list(before) == list(after) and all(torch.equal(before[k], after[k]) for k in before)
    assert torch.equal(first, again)
    fresh = build(info, options, dropout=0.)
    fresh.load_state_dict(after)

@each_block
@pytest.mark.parametrize("T", [5, 64])
def test_gradients_are_finite(info, options, T):
    "Also where the history does not move: a spread, a norm or an amplitude of zero has no derivative."
    block = build(info, options).train()
    for x in (states(block, T), torch.zeros_like(states(block, T)), states(block, T)*1e4):
        block.zero_grad()
        leaf = x.clone().requires_grad_()
        y = block(leaf)
        (y*torch.randn(y.shape, generator=seeded(2))).sum().backward()
        assert y.isfinite().all() and leaf.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in block.parameters())
    if T == 64: assert all(p.grad is not None for p in block.parameters()), "a weight is never used"

@each_block
def test_the_newest_bar_is_never_dropped(info, options):
    "A cut or a padding at the wrong end loses the step that the forecast starts from; it is what the head reads."
    block = build(info, options, dropout=0.).eval()
    for T in lengths(info):
        if info.name == "revin" and T == 1: continue        # of a single step nothing is left
        x = states(block, T)
        moved = x.clone(); moved[:, -1] = 10*states(block, 1, seed=1)[:, 0]
        with torch.no_grad(): change = (block(x) - block(moved))[:, -1].abs().amax(-1)
        assert (change > 1e-3).all(), T

@each_block
def test_half_precision_of_training(info, options):
    "Mixed precision feeds bfloat16 to every block after the first linear map, Fourier transforms included."
    block = build(info, options).train()
    x = states(block, 64).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16): y = block(x)
    y.float().square().mean().backward()
    assert y.isfinite().all() and x.grad.isfinite().all()

@each_block
def test_double_precision(info, options):
    block = build(info, options).eval()
    x = states(block, 37)
    with torch.no_grad(): single, double = block(x), block.double()(x.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-4)

def recipe(name, options):
    "The block in the shortest recipe that makes sense, and whether features go in as they are."
    rejoin = {"name": "channelrejoin", "num_channels": C}
    if name == "channelrejoin": return ["flexiblepatchembed", rejoin | options], True
    if name in ("flexiblepatchembed", "multiscalepatcher") and options.get("channel_independence", True): return [{"name": name} | options, rejoin], True
    return [{"name": name} | options], False

@each_block
@pytest.mark.parametrize("T", [30, 64])
def test_in_a_model(info, options, T):
    blocks, raw = recipe(info.name, options)
    model = create_model({"backbone": {"input_size": C, "d_model": D, "blocks": blocks, "skip_input_proj": raw}, "head": {"name": "gbm"}}, seed=0)
    paths, mu, sigma = model(torch.randn(B, T, C, generator=seeded()), torch.full((B,), 100.), 5, 7, scale=torch.full((B,), .01), generator=seeded(1))
    assert paths.shape == (B, 7, 5) and paths.isfinite().all() and mu.shape == sigma.shape == (B,)
    paths.log().square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())

@pytest.mark.parametrize("name", ["customattention", "gatedmlp", "patchmerging"])
def test_components(name):
    torch.manual_seed(0)
    part = create("component", name, d_model=D).eval()
    for T in (2, 7, 64, 512):
        leaf = torch.randn(B, T, D, generator=seeded()).requires_grad_()
        y = part(leaf)
        assert y.shape == (B, T//2 if name == "patchmerging" else T, D)
        (y[1, -1]*torch.randn(D, generator=seeded(2))).sum().backward()
        assert leaf.grad.isfinite().all() and leaf.grad[1, -1].any() and not leaf.grad[0].any()

# Sizes ---------------------------------------------------------------------------------------------------------------

@property_test
@given(st.integers(1, 8).map(lambda k: 4*k), st.integers(1, 3))
def test_numbers_of_weights(d, layers):
    attention, norm = 4*d*d + 4*d, 2*d
    perceptron = 2*d*128 + 128 + d
    assert count(LSTMBlock(d, layers)) == layers*(8*d*d + 8*d)
    assert count(GRUBlock(d, layers)) == layers*(6*d*d + 6*d)
    assert count(RNNBlock(d, layers)) == layers*(2*d*d + 2*d)
    assert count(TransformerEncoderBlock(d, num_layers=layers)) == layers*(attention + perceptron + 2*norm)
    assert count(TransformerDecoderBlock(d, num_layers=layers)) == layers*(2*attention + perceptron + 3*norm)
    assert count(SDEEvolutionBlock(d)) == 2*d*64 + 64 + d and count(SDEEvolutionBlock(d, noise=.1)) - count(SDEEvolutionBlock(d)) == d*d + d
    assert count(RevIN(d)) == 2*d and count(RevIN(d, affine=False)) == 0 and count(PatchMerging(d)) == d*d + d

def test_default_weights_are_what_they_were():
    "Presets and saved runs name these blocks: the same seed must give the same first weights."
    torch.manual_seed(0)
    model = nn.Sequential(TransformerBlock(8), LSTMBlock(8))
    assert list(model.state_dict())[:3] == ["0.attention.qkv.weight", "0.attention.qkv.bias", "0.attention.out.weight"]
    torch.manual_seed(0)
    qkv, out = nn.Linear(8, 24), nn.Linear(8, 8)
    mlp = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(.1), nn.Linear(32, 8))
    lstm = nn.LSTM(8, 8, batch_first=True)
    for ours, theirs in ((model[0].attention.qkv, qkv), (model[0].attention.out, out), (model[0].mlp.mlp, mlp), (model[1].lstm, lstm)):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters()))

# Memories, noise, positions ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind,T", [(LSTMBlock, 8), (GRUBlock, 8), (RNNBlock, 3)])
def test_a_memory_can_learn_to_carry(kind, T):
    "The sign of the first step, read from the last state: out of reach for a block that looks at one step."
    torch.manual_seed(0)
    net = nn.Sequential(kind(16), nn.Linear(16, 1))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(400):       # 200 are enough on some processors and not on others
        x = torch.randn(64, T, 16)
        loss = nn.functional.softplus(-net(x)[:, -1, 0]*x[:, 0, 0].sign()).mean()
        optimiser.zero_grad(); loss.backward(); optimiser.step()
    x = torch.randn(1_000, T, 16)
    assert ((net(x)[:, -1, 0] > 0) == (x[:, 0, 0] > 0)).float().mean() > .85

def test_evolution_noise():
    "A block that is named after a stochastic equation has noise when asked: of the promised size, in training only, its own for each sample."
    torch.manual_seed(0)
    block, x = SDEEvolutionBlock(D, dropout=0., noise=.2), torch.randn(1, 4, D).expand(5_000, -1, -1)
    drift, shaken = block.eval()(x), block.train()(x)
    noise = (shaken - drift).detach()
    assert noise.std().item() == pytest.approx(.2, rel=.01) and noise.mean().abs() < 1e-3
    assert torch.corrcoef(noise.flatten(1)[:2])[0, 1].abs() < .3
    shaken.square().mean().backward()
    assert block.diffusion.weight.grad.abs().sum() > 0
    quiet = SDEEvolutionBlock(D, dropout=0.).train()
    assert torch.equal(quiet(x[:2]), quiet(x[:2]))

def test_evolution_noise_stays_below_twice_its_size():
    block = SDEEvolutionBlock(D, noise=.2).train()
    nn.init.constant_(block.diffusion.bias, 100.)
    x = torch.randn(4_000, 1, D)
    nn.init.zeros_(block.drift[-1].weight); nn.init.zeros_(block.drift[-1].bias)
    assert (block(x) - x).std().item() == pytest.approx(.4, rel=.02)

@property_test
@given(st.integers(1, 40), st.integers(0, 30), st.integers(1, 9))
def test_positions_are_counted_from_the_end(T, more, d):
    block = PositionBlock(d)
    a, b = block(torch.zeros(1, T, d)), block(torch.zeros(1, T + more, d))
    assert torch.equal(a, b[:, more:]) and a.abs().max() <= 1
    assert T == 1 or (a[0, 1:] != a[0, :-1]).any(-1).all()

@pytest.mark.parametrize("kind", [TransformerBlock, TransformerEncoderBlock, TransformerDecoderBlock])
def test_attention_needs_positions_to_know_the_order(kind):
    torch.manual_seed(0)
    block, x = kind(D).eval(), torch.randn(2, 9, D)
    swapped = x[:, [1, 0, *range(2, 9)]]
    torch.testing.assert_close(block(x)[:, -1], block(swapped)[:, -1], rtol=1e-4, atol=1e-5)
    with_order = nn.Sequential(PositionBlock(D), block)
    assert (with_order(x)[:, -1] - with_order(swapped)[:, -1]).abs().max() > 1e-3

def test_the_decoder_looks_at_what_entered():
    "Target and memory are the same states: torch's layer applied to (x, x)."
    torch.manual_seed(0)
    block, x = TransformerDecoderBlock(D, num_layers=1).eval(), torch.randn(2, 9, D)
    torch.testing.assert_close(block(x), block.decoder.layers[0](x, x))

@pytest.mark.parametrize("bad", [dict(name="transformerencoder", nhead=5), dict(name="transformerdecoder", nhead=0), dict(name="transformerblock", nhead=3)])
def test_heads_that_do_not_divide_the_width(bad):
    with pytest.raises(ConfigError, match="cannot be shared among nhead"): create("block", bad, d_model=D)

@pytest.mark.parametrize("bad", [dict(name="laststepadapter", mode="first"), dict(name="sdeevolutionblock", noise=-.1), dict(name="revin", eps=0.),
    dict(name="rnnblock", nonlinearity="sine"), dict(name="patchembedding", patch_size=0), dict(name="patchembedding", in_channels="many"),
    dict(name="flexiblepatchembed", stride=17), dict(name="flexiblepatchembed", mask_ratio=1.), dict(name="flexiblepatchembed", in_channels=3),
    dict(name="channelrejoin", num_channels=0), dict(name="channelrejoin"), dict(name="channelrejoin", num_channels=2, mode="sum"),
    dict(name="multiscalepatcher", scales=[]), dict(name="multiscalepatcher", scales=[4, 4]), dict(name="multiscalepatcher", scales=[0, 4]),
    dict(name="multiscalepatcher", scales=["a", 4]), dict(name="patchmixerblock", seq_len=4, patch_len=8), dict(name="patchmixerblock")],
    ids=lambda o: "-".join(map(str, o.values())))
def test_options_that_cannot_work_are_refused(bad):
    with pytest.raises(ConfigError, match=f"{bad['name']}|takes an int"): create("block", bad, d_model=D)

# RevIN ---------------------------------------------------------------------------------------------------------------

@property_test
@given(st.floats(-1e3, 1e3), st.floats(1e-1, 1e3), st.integers(2, 40), st.booleans())
def test_there_and_back(level, size, T, affine):
    torch.manual_seed(0)
    revin, x = RevIN(4, affine), level + size*torch.randn(3, T, 4, generator=seeded(T))
    if affine: nn.init.normal_(revin.log_gain); nn.init.normal_(revin.offset)
    y, statistics = revin.normalise(x)
    back = revin.denormalise(y, statistics)
    torch.testing.assert_close(back, x, rtol=1e-4, atol=1e-3 + 1e-5*abs(level))

@property_test
@given(st.floats(-1e3, 1e3), st.floats(1, 1e3))
def test_level_and_size_of_a_sample_do_not_matter(level, size):
    x = torch.randn(3, 30, 4, generator=seeded())
    revin = RevIN(4)
    torch.testing.assert_close(revin(size*x + level), revin(x), rtol=1e-3, atol=1e-3)

def test_calls_in_between_disturb_nobody():
    "Statistics kept in the module are those of the last call, whoever made it."
    revin, x = RevIN(4), (5 + 3*torch.randn(3, 30, 4, generator=seeded())).requires_grad_()
    y, statistics = revin.normalise(x)
    revin.normalise(torch.zeros(1, 2, 4)); revin(100*torch.ones(8, 3, 4))
    torch.testing.assert_close(revin.denormalise(y, statistics), x)
    assert not list(revin.buffers()) and not statistics.mean.requires_grad and not statistics.std.requires_grad

def test_a_gain_that_training_drives_far_still_has_an_inverse():
    revin, x = RevIN(2), torch.randn(3, 30, 2, generator=seeded())
    with torch.no_grad(): revin.log_gain.copy_(torch.tensor([-6., 6.]))
    torch.testing.assert_close(revin.denormalise(*revin.normalise(x)), x, rtol=1e-4, atol=1e-5)

def test_width_is_checked_rather_than_broadcast():
    with pytest.raises(ValueError, match="set its d_model"): RevIN(D).normalise(torch.zeros(2, 5, 1))
    with pytest.raises(ConfigError, match="set its d_model"): HybridBackbone(1, D, ["revin"], skip_input_proj=True)

def test_a_model_gives_level_and_size_back():
    "States after a revin that is undone know the level of the window; after one that is not they do not."
    x = torch.randn(2, 64, 3, generator=seeded())
    def last(give_back, x): return create_backbone([{"name": "revin", "denormalise": give_back}, "identityblock"])(x)
    def create_backbone(blocks): torch.manual_seed(0); return HybridBackbone(3, D, blocks)
    assert (last(True, x + 5) - last(True, x)).abs().max() > .5
    torch.testing.assert_close(last(False, x + 5), last(False, x), rtol=1e-3, atol=1e-4)
    linear = create_backbone(["identityblock"])
    torch.testing.assert_close(last(True, x), linear(x), rtol=1e-4, atol=1e-5)

# Patches -------------------------------------------------------------------------------------------------------------

@property_test
@given(st.integers(1, 80), st.integers(1, 20), st.integers(1, 20))
def test_patches_end_at_the_last_step(T, patch_len, stride):
    "The last token is that of the last `patch_len` steps alone, whatever the length of the history."
    torch.manual_seed(0)
    block, x = FlexiblePatchEmbed(4, patch_len, min(stride, patch_len)).eval(), torch.randn(2, T, 3, generator=seeded(T))
    y = block(x)
    assert y.shape == (6, block.n_patches(T), 4)
    torch.testing.assert_close(y[:, -1:], block(x[:, -patch_len:]), rtol=1e-4, atol=1e-5)
    for k in range(y.shape[1]):
        end = T - k*block.stride
        piece = extend_back(x[:, max(end - patch_len, 0):end], max(patch_len - end, 0))
        torch.testing.assert_close(y[:, [-1 - k]], block(piece), rtol=1e-4, atol=1e-5)
    assert end - patch_len <= 0                             # the oldest step is in the first patch

@property_test
@given(st.integers(1, 80), st.integers(1, 12))
def test_patches_without_overlap(T, size):
    torch.manual_seed(0)
    block, x = PatchEmbedding(4, size, in_channels=2), torch.randn(2, T, 2, generator=seeded(T))
    y = block(x)
    assert y.shape == (2, max(1, T//size), 4)
    if T >= size: torch.testing.assert_close(y[:, [-1]], block(x[:, -size:]), rtol=1e-4, atol=1e-5)

@property_test
@given(st.permutations(range(4)), st.sampled_from(["flatten", "stack"]))
def test_permuting_channels_permutes(order, mode):
    "Channels of one sample must not come back as another sample's, nor in another order."
    torch.manual_seed(0)
    net = nn.Sequential(FlexiblePatchEmbed(8), TransformerEncoderBlock(8, num_layers=1), ChannelRejoin(4, mode)).eval()
    x = torch.randn(3, 40, 4, generator=seeded())
    with torch.no_grad(): a, b = net(x), net(x[..., order])
    if mode == "flatten": a, b = (v.unflatten(-1, (4, 8)).transpose(1, 2) for v in (a, b))
    torch.testing.assert_close(b, a[:, order], rtol=1e-4, atol=1e-5)

def test_a_batch_that_cannot_be_shared_out_is_an_error():
    "Returning it as it came would hand one sample's channels to the head as if they were samples."
    with pytest.raises(ValueError, match="7 series cannot be shared out to num_channels=3"): ChannelRejoin(3)(torch.zeros(7, 5, 4))
    blocks = ["flexiblepatchembed", {"name": "channelrejoin", "num_channels": 2}]
    for F in (3, 4):
        with pytest.raises(ConfigError): create_model({"backbone": {"input_size": F, "d_model": 8, "blocks": blocks, "skip_input_proj": True}, "head": {"name": "gbm"}})

@pytest.mark.parametrize("mode", ["flatten", "mean"])
@pytest.mark.parametrize("patcher", ["flexiblepatchembed", "multiscalepatcher"])
def test_channel_independent_recipe(patcher, mode):
    blocks = [patcher, "transformerencoder", {"name": "channelrejoin", "num_channels": 5, "mode": mode}]
    config = {"backbone": {"input_size": 5, "d_model": D, "blocks": blocks, "skip_input_proj": True}, "head": {"name": "student_t"}}
    model = create_model(config, seed=0).eval()
    assert model.backbone.output_dim == (5*D if mode == "flatten" else D)
    x, g = torch.randn(4, 96, 5, generator=seeded()), seeded(1)
    paths, *_ = model(x, torch.ones(4), 12, 20, scale=torch.full((4,), .01), generator=g)
    assert paths.shape == (4, 20, 12) and paths.isfinite().all()
    for a, b in zip(model.distribution(x[2:3]).values(), model.distribution(x).values()):
        torch.testing.assert_close(a[0], b[2], rtol=1e-4, atol=1e-5)

def test_masks_come_from_the_seeded_state_and_spare_the_last_patch():
    torch.manual_seed(0)
    block, x = FlexiblePatchEmbed(D, mask_ratio=.6).train(), torch.randn(20, 512, 2, generator=seeded())
    def draw(seed): torch.manual_seed(seed); return block(x).detach()
    a, b, c = draw(1), draw(1), draw(2)
    blank = (a == 0).all(-1)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert blank[:, :-1].float().mean().item() == pytest.approx(.6, abs=.03) and not blank[:, -1].any()
    block.eval(); assert torch.equal(draw(1), draw(2)) and not (draw(1) == 0).all(-1).any()

@property_test
@given(st.integers(1, 30), st.sampled_from([1/2, 1/4, 1/3, 2/3, 1.]))
def test_scales_meet_at_the_last_step(n, ratio):
    "A line in time stays the line, as far back as there are coarse tokens."
    coarse = math.ceil(n*ratio) + 1
    y = torch.arange(-coarse + 1., 1.).view(1, -1, 1)
    fine = align_ends(y, n, ratio)[0, :, 0]
    torch.testing.assert_close(fine, torch.arange(-n + 1., 1.)*ratio)
    constant = align_ends(torch.ones(1, 2, 1), n, ratio)
    torch.testing.assert_close(constant, torch.ones(1, n, 1))

@property_test
@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 100))
def test_the_mixer_reads_as_far_as_it_says(seq_len, patch_len, T):
    "A mixing that is left out when the length does not fit is a silent one-step model."
    patch_len = min(patch_len, seq_len)
    torch.manual_seed(0)
    block = PatchMixerBlock(4, seq_len, patch_len).double().eval()
    leaf = torch.randn(1, T, 4, generator=seeded(T), dtype=torch.float64).requires_grad_()
    y = block(leaf)
    assert y.shape == leaf.shape
    (y[0, -1]*torch.randn(4, generator=seeded(1), dtype=torch.float64)).sum().backward()
    seen = (leaf.grad[0].abs().sum(-1) > 0).nonzero().flatten().tolist()
    assert seen == list(range(max(0, T - block.n_patches*patch_len), T))

def test_the_mixer_aligns_a_short_history_at_the_end():
    "The weight of two patches ago is that of two patches ago, however many there are."
    torch.manual_seed(0)
    long, short = (PatchMixerBlock(4, n*4, 4).eval() for n in (8, 3))
    kept = {k: v for k, v in long.state_dict().items() if not k.startswith("across")}
    short.across[0], short.across[3] = nn.Linear(3, 16), nn.Linear(16, 3)
    weights = long.across[0].weight[:, -3:], long.across[0].bias, long.across[3].weight[-3:], long.across[3].bias[-3:]
    short.load_state_dict(kept | dict(zip(("across.0.weight", "across.0.bias", "across.3.weight", "across.3.bias"), weights)))
    x = torch.randn(2, 12, 4, generator=seeded())
    torch.testing.assert_close(long(x), short(x), rtol=1e-4, atol=1e-5)

def test_pooling():
    x = torch.randn(3, 9, 4, generator=seeded())
    assert torch.equal(LastStepAdapter("mean")(x)[:, -1], x.mean(1)) and torch.equal(LastStepAdapter("max")(x)[:, -1], x.max(1).values)
    assert LastStepAdapter()(x) is x
    model = create_model({"backbone": {"input_size": 2, "d_model": 8, "blocks": ["transformerblock", {"name": "laststepadapter", "mode": "mean"}]},
        "head": {"name": "gbm"}}, seed=0).eval()
    states = model.backbone.forward_sequence(torch.randn(3, 30, 2, generator=seeded()))
    assert states.shape == (3, 1, 8)

@pytest.mark.parametrize("T", [2, 3, 8, 9])
def test_merging_keeps_the_newest_steps(T):
    "Pooling from the front drops the last of an odd number of steps."
    merge = PatchMerging(2)
    with torch.no_grad(): merge.linear.weight.copy_(torch.eye(2)); merge.linear.bias.zero_()
    x = torch.randn(1, T, 2, generator=seeded())
    torch.testing.assert_close(merge(x)[:, -1], x[:, -2:].mean(1))
    with pytest.raises(ValueError, match="two steps"): merge(x[:, :1])
