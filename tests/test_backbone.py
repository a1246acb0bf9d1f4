"Backbones: covariates, windows that are normalised and given back, paths side by side, clocks; and blocks from a folder."
import subprocess, sys

import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn

from synthlab.models.backbone import HybridBackbone, ParallelFusion, discover_components
from synthlab.models.registry import ConfigError, registry
from synthlab.models.synth import change_time, create_model
from synthlab.trainers.objectives import PathObjective

def seeded(seed=0): return torch.Generator().manual_seed(seed)

def windows(B=6, L=32, F=3, K=2, S=2, H=12, seed=0):
    g = seeded(seed)
    price = 100*torch.rand(B, generator=g) + 50
    return dict(history=torch.randn(B, L, F, generator=g), initial_price=price, scale=.01 + .01*torch.rand(B, generator=g),
                target=price[:, None]*(1 + .01*torch.randn(B, H, generator=g)), future=torch.randn(B, H, K, generator=g),
                static=torch.randn(B, S, generator=g))

def recipe(blocks, head="gbm", **backbone):
    return {"backbone": {"input_size": 3, "d_model": 16, "lookback": 32, "blocks": blocks, **backbone}, "head": head}

def draw(model, batch, **more):
    keys = ("future", "static") if model.backbone.future_size else ()
    return model.eval()(batch["history"], batch["initial_price"], 12, 16, scale=batch["scale"], generator=seeded(1), **{k: batch[k] for k in keys}, **more)[0]

HEADS = [i.name for i in registry.list_blocks("head")]
BLOCKS = ["lstmblock", "transformerblock", "timesnetblock", "resconvblock"]

@pytest.mark.parametrize("head", HEADS)
def test_covariates_reach_every_head_and_only_their_own_window(head):
    torch.manual_seed(0)
    model = create_model(recipe(["lstmblock"], head, future_size=2, static_size=2), seed=0)
    nn.init.normal_(model.clock.layers[2].weight)
    batch = windows()
    one = draw(model, batch)
    for name in ("future", "static"):
        other = {**batch, name: batch[name].clone()}
        other[name][0] += 1
        two = draw(model, other)
        assert not torch.equal(one[0], two[0])
        torch.testing.assert_close(one[1:], two[1:], rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize("block", BLOCKS)
def test_every_backbone_takes_covariates_or_says_no(block):
    batch = windows()
    knowing, plain = (create_model(recipe([block], **sizes), seed=0) for sizes in (dict(future_size=2, static_size=2), {}))
    assert draw(knowing, batch).shape == (6, 16, 12)
    with pytest.raises(ValueError, match="takes none; build it with future_size=2"):
        plain(batch["history"], batch["initial_price"], 12, 4, future=batch["future"])
    with pytest.raises(ValueError, match="no future covariates are given and this backbone takes 2"):
        knowing(batch["history"], batch["initial_price"], 12, 4, static=batch["static"])

def test_a_clock_learns_the_hours():
    "Steps whose covariate is one move three times as much: the pace that is learnt says so."
    g, n = seeded(3), 512
    future = (torch.rand(n, 12, 1, generator=g) < .3).float()
    price, scale = torch.full((n,), 100.), torch.full((n,), .01)
    steps = .01*torch.randn(n, 12, generator=g)*(1 + 2*future[..., 0])
    batch = dict(history=torch.zeros(n, 4, 1), initial_price=price, scale=scale, target=price[:, None]*steps.cumsum(1).exp(), future=future)
    model = create_model({"backbone": {"input_size": 1, "d_model": 4, "blocks": ["identityblock"], "future_size": 1, "lookback": 4}, "head": "gbm"}, seed=0)
    objective = PathObjective(model, 12, 32, intervals=(1,))
    descend = torch.optim.Adam(model.parameters(), .03)
    for step in range(150):
        descend.zero_grad(); objective.loss(batch, "model", seeded(step))[0].backward(); descend.step()
    pace = model.clock(torch.tensor([[[0.], [1.]]]))[0]
    sigma = model(batch["history"], price, 12, 2, scale=scale, future=future)[2].detach()
    assert abs((pace[1]/pace[0]).item() - 3) < .5
    assert abs((sigma/scale[:, None])[future[..., 0] == 0].mean().item() - 1) < .2

@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 20), st.floats(.1, 5), st.integers(0, 99))
def test_time_change_scales_each_return(H, size, seed):
    g = seeded(seed)
    start, pace = torch.rand(3, generator=g).double()*100 + 1, (size*torch.rand(3, H, generator=g) + .1).double()
    steps = .01*torch.randn(3, 5, H, generator=g).double()
    paths = start[:, None, None]*steps.cumsum(-1).exp()
    torch.testing.assert_close(change_time(paths, start, pace), start[:, None, None]*(steps*pace[:, None]).cumsum(-1).exp())

def test_level_and_size_are_given_back():
    "Shifting and scaling a window's states before a normalisation shifts and scales what the backbone says: nothing is lost, nothing is stored."
    torch.manual_seed(0)
    backbone = HybridBackbone(3, 3, [{"name": "revin", "affine": False}, "lstmblock"], skip_input_proj=True, lookback=32).eval()
    x = torch.randn(4, 32, 3)
    a, b = backbone(x), backbone(5*x + 7)
    torch.testing.assert_close(b, 5*a + 7, rtol=1e-3, atol=1e-3)
    keep = HybridBackbone(3, 3, [{"name": "revin", "affine": False, "denormalise": False}, "lstmblock"], skip_input_proj=True, lookback=32).eval()
    torch.testing.assert_close(keep(5*x + 7), keep(x), rtol=1e-3, atol=1e-3)
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(torch.randn(9, 40, 3))
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items()) and torch.equal(backbone(x), a)

def test_normalised_widths_must_agree():
    with pytest.raises(ConfigError, match="cannot give level and size back"):
        HybridBackbone(3, 16, ["revin", {"name": "parallelfusion", "paths": ["identityblock", "identityblock"], "merge_strategy": "concat"}])

def test_patches_of_single_channels_make_a_backbone():
    patch = [{"name": "flexiblepatchembed", "patch_len": 8, "stride": 4}, "transformerencoder", {"name": "channelrejoin", "num_channels": 3}]
    model = create_model({"backbone": {"input_size": 3, "d_model": 16, "lookback": 32, "skip_input_proj": True, "blocks": patch}, "head": "gbm"}, seed=0)
    assert model.backbone.output_dim == 48 and draw(model, windows()).shape == (6, 16, 12)
    with pytest.raises(ConfigError, match="channelrejoin"):
        create_model({"backbone": {"input_size": 3, "d_model": 16, "skip_input_proj": True, "blocks": patch[:2]}, "head": "gbm"}, seed=0)

class Half(nn.Module):
    def forward(self, x): return x[:, ::2]

def test_gates_learn_and_start_equal():
    torch.manual_seed(0)
    fusion = ParallelFusion([nn.Identity(), nn.Sequential(nn.Linear(4, 4, bias=False))])
    x = torch.randn(8, 5, 4)
    torch.testing.assert_close(fusion(x), (x + fusion.paths[1](x))/2)
    (fusion(x) - x).square().mean().backward()
    assert fusion.gate.grad.abs().max() > 0
    with pytest.raises(ValueError, match="needs them equal"): ParallelFusion([nn.Identity(), nn.Linear(4, 3)])(x)
    with pytest.raises(ValueError, match="but for the features"): ParallelFusion([nn.Identity(), Half()], "concat")(x)

def test_mixture_weights_learn_through_the_objective():
    "The weights of a mixture get a gradient from the loss that the loop descends."
    model = create_model(recipe(["lstmblock"], "mixture_density"), seed=0)
    batch = {k: v for k, v in windows().items() if k not in ("future", "static")}
    objective = PathObjective(model, 12, 30, intervals=(1, 6))
    paths, weights = objective.members(batch, 30, seeded())
    torch.testing.assert_close(weights.sum(1), torch.ones(6))
    parameters = model.distribution(batch["history"])
    name = next(k for k in parameters if "weight" in k or "logit" in k)
    assert parameters[name].requires_grad
    before = [p.detach().clone() for p in model.head.parameters()]
    objective.loss(batch, "model", seeded())[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.head.parameters()) and len(before)

@pytest.mark.parametrize("head", HEADS)
def test_a_horizon_is_never_cut_short(head):
    options = {"name": head, "horizon_max": 48} if head in ("horizon", "simple_horizon") else head
    model = create_model(recipe(["lstmblock"], options), seed=0)
    batch = windows()
    if model.head.horizon_max is None:
        assert model(batch["history"], batch["initial_price"], 60, 2, generator=seeded())[0].shape == (6, 2, 60)
    else:
        with pytest.raises(ValueError, match="horizon_max"): model(batch["history"], batch["initial_price"], 60, 2, generator=seeded())

def test_a_short_history_is_refused_before_training():
    with pytest.raises(ConfigError, match="needs 4 steps of history and gets 2; take a longer lookback"):
        HybridBackbone(3, 16, ["timesnetblock"], lookback=2)

def test_own_components_are_found_from_anywhere(tmp_path):
    "The folder is the one that was given, wherever the process stands; a folder that is not there is an error, never silence."
    (tmp_path/"mine").mkdir()
    (tmp_path/"mine"/"thirds.py").write_text("from torch import nn\nfrom synthlab.models.registry import registry\n"
                                            "@registry.register_block()\nclass ThirdsBlock(nn.Module):\n    def forward(self, x): return x/3\n")
    code = f"from synthlab.models.synth import discover_components, registry\nprint(discover_components({str(tmp_path/'mine')!r}), len(registry.list_blocks('block')) > 20)"
    out = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True)
    assert out.stdout.strip() == "['thirdsblock'] True", out.stdout + out.stderr
    with pytest.raises(ValueError, match="is not a folder"): discover_components(tmp_path/"nowhere")

def test_all_blocks_and_heads_are_there():
    "Every name of both catalogues, without any call to discover them."
    blocks = {i.name for i in registry.list_blocks("block")}
    assert {"transformerblock", "lstmblock", "grublock", "rnnblock", "sdeevolutionblock", "resconvblock", "bitcnblock", "patchembedding", "unet1dblock",
            "transformerencoder", "transformerdecoder", "fourierblock", "laststepadapter", "revin", "flexiblepatchembed", "channelrejoin", "multiscalepatcher",
            "dlinearblock", "layernormblock", "timesnetblock", "timemixerblock", "patchmixerblock"} <= blocks
    assert {"customattention", "gatedmlp", "patchmerging"} <= {i.name for i in registry.list_blocks("component")}
    assert {"gbm", "sde", "neural_sde", "horizon", "simple_horizon", "mixture_density", "vol_term_structure", "neural_bridge", "student_t",
            "student_t_horizon", "spectral", "skew_t"} <= set(HEADS)
    for info in registry.list_blocks(): assert info.description and info.cost in ("low", "medium", "high")
