"Blocks that mix time by convolution, by frequency and by lag: batch members apart, an honest last step, and oracles written out step by step."
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st
from safetensors.torch import load, save
from torch import nn

from synthlab.models.convolutions import HeldConv, hold_edges
from synthlab.models.frequencies import TimesNetBlock, extend_by_phase, find_periods, rows_at, spectrum
from synthlab.models.registry import create, registry
from synthlab.models.synth import HybridBackbone
from synthlab.models.trends import DLinearBlock, TimeMixerBlock, coarsen, moving_average, refine

property_test = settings(deadline=None, derandomize=True, max_examples=60)
F64 = torch.float64
NAMES = {"resconvblock": 6_336, "bitcnblock": 3_168, "unet1dblock": 37_184, "fourierblock": 2_048, "timesnetblock": 38_112, "dlinearblock": 4_128,
         "timemixerblock": 21_024}
each_block = pytest.mark.parametrize("name", NAMES)

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def noise(*shape, seed=0, **o): return torch.randn(*shape, generator=seeded(seed), **o)
def sine(T, period, d=1, phase=0.): return torch.sin(2*math.pi*torch.arange(T, dtype=F64)/period + phase)[None, :, None].expand(1, T, d)

def make(name, d_model=32, **options):
    "A block whose weights are not those of the beginning (where some are zero and some blocks the identity), without dropout."
    if name not in ("fourierblock", "dlinearblock", "unet1dblock"): options = {"dropout": 0.} | options
    torch.manual_seed(1)
    block = create("block", {"name": name, **options}, d_model=d_model)
    with torch.no_grad():
        if name in ("fourierblock", "dlinearblock"):
            for p in block.parameters(): p.copy_(.2*torch.randn(p.shape, generator=seeded(2)))
    return block

# All of them ---------------------------------------------------------------------------------------------------------

@each_block
def test_names_sizes_and_promises(name):
    info, block = registry.get_info(name, "block"), create("block", {"name": name}, d_model=32)
    assert sum(p.numel() for p in block.parameters()) == NAMES[name] and type(block).__name__.lower() == name == info.name
    assert info.preserves_seq_len and info.preserves_d_model and info.description.endswith(".") and info.cost in ("low", "medium", "high")
    assert info.min_seq_len == (4 if name in ("timesnetblock", "timemixerblock") else 1)

@each_block
@pytest.mark.parametrize("T", [1, 2, 3, 4, 5, 7, 24, 25, 64, 65, 127, 512])
def test_any_length_odd_even_or_short(name, T):
    block = make(name, 8)
    x = noise(2, T, 8, seed=T).requires_grad_()
    if T < block.min_seq_len:
        with pytest.raises(ValueError, match=f"needs at least 4 steps of history and gets {T}"): block(x)
        return
    y = block(x)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    (y*noise(2, T, 8, seed=1)).sum().backward()
    assert all(v.grad.isfinite().all() for v in (x, *block.parameters()))

@each_block
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("T", [16, 37])
def test_members_of_a_batch_do_not_meet(name, train, T):
    "A batch norm, a median period or any other number of the batch would let them: values and gradients."
    block = make(name).train(train)
    x = noise(8, T, 32)
    other = 50*noise(8, T, 32, seed=1) + 3
    other[2] = x[2]
    with torch.no_grad():
        alone, among, elsewhere = block(x[2:3]), block(x)[2:3], block(other)[2:3]
    torch.testing.assert_close(among, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(elsewhere, alone, atol=1e-5, rtol=1e-5)
    x.requires_grad_()
    grad, = torch.autograd.grad(block(x)[2].square().mul(noise(T, 32, seed=3)).sum(), x)
    assert grad[2].abs().sum() > 0 and grad[[0, 1, 3, 4, 5, 6, 7]].abs().max() == 0

@each_block
def test_no_running_numbers(name):
    "A buffer that a forward pass writes is how a batch norm remembers; there is none."
    assert not list(make(name).buffers())

@each_block
def test_no_value_is_read_back(name):
    "On the meta device there are shapes and no values: `.item()`, a branch on a value, or a sync would raise."
    block, x = make(name).to("meta"), torch.empty(3, 33, 32, device="meta", requires_grad=True)
    block(x).sum().backward()
    assert x.grad.shape == x.shape

@each_block
def test_inference_is_deterministic_and_draws_nothing(name):
    block, x = make(name).eval(), noise(3, 33, 32)
    state = torch.get_rng_state()
    with torch.inference_mode(): first, again = block(x), block(x)
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(block(x).detach(), first, atol=1e-6, rtol=1e-6)

@each_block
def test_weights_come_back_from_a_file(name):
    block, other = make(name), create("block", {"name": name}, d_model=32).eval()
    other.load_state_dict(load(save(block.state_dict())))
    x = noise(2, 20, 32)
    with torch.no_grad(): assert torch.equal(block.eval()(x), other(x))

@each_block
def test_gradients_are_those_of_the_formula(name):
    block = make(name, 3, **({"modes": 3} if name == "fourierblock" else {"top_k": 2} if name == "timesnetblock" else {})).double().eval()
    assert torch.autograd.gradcheck(block, noise(2, 9, 3, dtype=F64).requires_grad_(), atol=1e-4)

@each_block
def test_every_weight_learns(name):
    "None is left without a gradient, as those that mix from fine to coarse would be if only the finest scale came out."
    block = make(name)
    (block(noise(4, 65, 32))*noise(4, 65, 32, seed=1)).sum().backward()
    for key, p in block.named_parameters(): assert p.grad.isfinite().all() and p.grad.abs().sum() > 0, key

@each_block
def test_half_precision(name):
    block, x = make(name), noise(4, 33, 32)
    with torch.autocast("cpu", torch.bfloat16): y = block(x)
    y.float().square().mean().backward()
    assert y.isfinite().all() and all(p.grad.isfinite().all() for p in block.parameters())
    torch.testing.assert_close(y.float(), block(x).detach(), atol=.15, rtol=.15)

@each_block
def test_extremes_stay_finite(name):
    "A history that never moves, one of zeros, one of a single spike, one a million times as large."
    block = make(name)
    spike = torch.zeros(1, 33, 32); spike[0, 16] = 1e3
    for x in (torch.zeros(1, 33, 32), torch.ones(1, 33, 32), spike, 1e6*noise(1, 33, 32)):
        x = x.clone().requires_grad_()
        block.zero_grad(); y = block(x); y.sum().backward()
        assert y.isfinite().all() and all(v.grad.isfinite().all() for v in (x, *block.parameters()))

@each_block
@pytest.mark.parametrize("T", [9, 33, 64])
def test_a_history_that_never_moves_does_not_fall_at_its_end(name, T):
    "Zeros beyond the edge would make the last step, the one that is read, unlike all before it."
    x = noise(2, 1, 32).expand(2, T, 32)
    with torch.no_grad(): y = make(name).eval()(x)
    period = 2 if name == "unet1dblock" else 1          # an up-convolution has a matrix for each step of a pair
    torch.testing.assert_close(y[:, period:], y[:, :-period], atol=2e-5, rtol=1e-5)

@each_block
@pytest.mark.parametrize("T", [20, 21])
def test_the_newest_step_is_seen(name, T):
    "Cells counted from the beginning would drop it from an odd history at the coarse rates."
    block, x = make(name), noise(1, T, 32).requires_grad_()
    grad, = torch.autograd.grad(block(x)[0, -1].mul(noise(32, seed=4)).sum(), x)
    assert grad[0, -1].abs().min() > 0

@each_block
def test_in_a_backbone(name):
    backbone = HybridBackbone(5, 16, [{"name": name}, "lstmblock"], insert_layernorm=True).eval()
    assert backbone.output_dim == 16 and backbone(noise(3, 20, 5)).shape == (3, 16)

@pytest.mark.parametrize("config,why", [
    (dict(name="resconv", kernel_size=0), "kernel_size=0"), (dict(name="bitcn", dilation=0), "dilation=0"), (dict(name="unet1d", reduction=0), "reduction=0"),
    (dict(name="fourier", modes=0), "modes=0"), (dict(name="timesnet", top_k=0), "top_k=0"), (dict(name="dlinear", lags=0), "lags=0"),
    (dict(name="timemixer", down_sampling_window=1), "down_sampling_window=1"), (dict(name="timemixer", down_sampling_layers=0), "down_sampling_layers=0"),
    (dict(name="dlinear", kernel_size=0), "kernel_size=0")])
def test_impossible_sizes_are_refused(config, why):
    with pytest.raises(ValueError, match=why): create("block", config, d_model=8)

# Convolutions --------------------------------------------------------------------------------------------------------

@property_test
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_held_convolution_by_hand(T, kernel, dilation, seed):
    torch.manual_seed(seed)
    conv, x = HeldConv(2, 3, kernel, dilation).double(), noise(1, T, 2, seed=seed, dtype=F64)
    ahead = dilation*(kernel - 1)//2
    expected = torch.stack([conv.bias + sum(conv.weight[..., j] @ x[0, min(max(t + ahead - dilation*(kernel - 1 - j), 0), T - 1)] for j in range(kernel))
                            for t in range(T)])
    torch.testing.assert_close(conv(x)[0], expected)

def reach(block, T, d=32):
    "How many steps back from the last its state depends on."
    x = noise(1, T, d).requires_grad_()
    grad, = torch.autograd.grad(block.eval()(x)[0, -1].mul(noise(d, seed=1)).sum(), x)
    return (T - 1 - (grad[0].abs().amax(-1) > 0).nonzero().flatten()).max().item()

@pytest.mark.parametrize("kernel,back", [(1, 0), (3, 2), (5, 4), (2, 2), (4, 4)])
def test_reach_of_the_residual_convolution(kernel, back): assert reach(make("resconvblock", kernel_size=kernel), 30) == back

@pytest.mark.parametrize("layers,back", [(1, 1), (3, 7), (5, 31)])
def test_reach_of_a_dilated_stack(layers, back):
    assert reach(nn.Sequential(*(make("bitcnblock", dilation=2**i) for i in range(layers))), 64) == back

@pytest.mark.parametrize("T", [40, 41])
def test_reach_of_the_unet(T): assert reach(make("unet1dblock"), T) == 6

@pytest.mark.parametrize("name", ["resconvblock", "bitcnblock", "unet1dblock"])
def test_convolutions_do_not_know_the_date(name):
    "The same shapes later, or after a longer history, give the same states: nothing is normalised over time."
    block, x = make(name).eval(), noise(1, 60, 32)
    with torch.no_grad():
        for cut in (1, 2, 15): torch.testing.assert_close(block(x)[:, -20:], block(x[:, cut:])[:, -20:], atol=1e-5, rtol=1e-5)

def test_unet_by_hand():
    "Of a fine step only the coarse one above it, two aside, and no others: written out for the last pair."
    block, x = make("unet1dblock", 4).double(), noise(1, 12, 4, dtype=F64)
    down = [F.gelu(block.down.bias + sum(block.down.weight[..., j] @ x[0, 2*c - 1 + j] for j in range(3))) for c in range(1, 6)]
    def bottom(cells, conv):
        held = [cells[0], *cells, cells[-1]]
        return [F.gelu(conv.bias + sum(conv.weight[..., j] @ held[i + j] for j in range(3))) for i in range(len(cells))]
    low = bottom(bottom(down, block.bottom[0]), block.bottom[2])[-1]
    up = torch.stack([low @ block.up.weight[..., j] + block.up.bias for j in range(2)])
    expected = block.norm(x[0, -2:] + block.join(torch.cat((up, x[0, -2:]), -1)))
    torch.testing.assert_close(block(x)[0, -2:], expected)

# Frequencies ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("T", [7, 8, 33])
def test_fourier_block_is_a_circular_convolution(T):
    block, x = make("fourierblock", 2, modes=3).double(), noise(1, T, 2, dtype=F64)
    weight = torch.view_as_complex(block.weight.detach())
    kernel = torch.fft.irfft(F.pad(weight, (0, 0, 0, T//2 + 1 - 3)), T, dim=0)
    expected = torch.stack([sum(kernel[(t - s) % T]*x[0, s] for s in range(T)) for t in range(T)])
    torch.testing.assert_close((block(x) - x)[0], expected)

def test_modes_that_a_short_history_has_not_are_not_used():
    few, many = make("fourierblock", modes=4), make("fourierblock", modes=32)
    with torch.no_grad(): many.weight[:4] = few.weight
    x = noise(2, 7, 32)
    torch.testing.assert_close(few(x), many(x))
    assert not torch.allclose(few(noise(2, 64, 32)), many(noise(2, 64, 32)))

@property_test
@given(st.integers(2, 24), st.integers(2, 6), st.floats(0, 6), st.floats(.01, 100))
def test_a_sine_is_found_by_its_period(period, turns, phase, size):
    if period == 2: phase = 1.                          # a sine of period two has only one sample that is not zero
    x = (size*sine(period*turns, period, 3, phase) + 5).float()
    periods, amplitude = find_periods(x, 1)
    assert periods.tolist() == [[period]]
    if period > 2: assert amplitude.item() == pytest.approx(size/2, rel=1e-3)

def test_periods_are_each_histories_own():
    "The median over the batch would give all three the period 9."
    x = torch.cat([sine(64, p, 4) for p in (16, 9, 4)]).float() + .01*noise(3, 64, 4)
    assert find_periods(x, 1)[0].flatten().tolist() == [16, 9, 4]
    assert find_periods(x[[2, 0]], 1)[0].flatten().tolist() == [4, 16]

def test_periods_survive_a_layer_norm():
    "Its channels sum to zero at every step, so their mean has no spectrum; their amplitudes have."
    x = F.layer_norm((sine(96, 12, 8)*torch.linspace(-1, 2, 8) + .5*sine(96, 7, 8)*noise(8, dtype=F64)).float(), (8,))
    assert x.mean(-1).abs().max() < 1e-6 and find_periods(x, 1)[0].item() == 12

def test_amplitudes_do_not_depend_on_the_length():
    for T in (24, 96, 480): assert find_periods(3*sine(T, 12, 2), 1)[1].item() == pytest.approx(1.5)

@property_test
@given(st.integers(4, 40), st.integers(2, 40), st.integers(0, 3))
def test_rows_by_hand(T, period, reach):
    period = min(period, T)
    at = rows_at(torch.tensor(period), T, reach)
    for t in range(T):
        same = range(t % period, T, period)
        for i, a in enumerate(range(-reach, reach + 1)):
            assert at[t, i] == min(max(t + a*period, same[0]), same[-1])

@property_test
@given(st.integers(4, 30), st.data())
def test_extension_by_hand(T, data):
    periods = data.draw(st.lists(st.integers(2, T), min_size=1, max_size=3))
    x, w = noise(1, T, 2, dtype=F64), torch.rand(1, len(periods), generator=seeded(1), dtype=F64)
    w = w/w.sum()
    y = extend_by_phase(x, torch.tensor([periods]), w)[0]
    assert torch.equal(y[2:-2], x[0])
    for b in range(2):
        torch.testing.assert_close(y[b], sum(v*x[0, p - 2 + b] for p, v in zip(periods, w[0])))
        torch.testing.assert_close(y[T + 2 + b], sum(v*x[0, T + b - p] for p, v in zip(periods, w[0])))

@pytest.mark.parametrize("T,top_k", [(4, 3), (11, 2), (24, 3), (31, 1)])
def test_timesnet_step_by_step(T, top_k):
    "Every sum written out: rows, steps aside, edges, weights of the periods."
    d = 3
    block, x = make("timesnetblock", d, top_k=top_k, d_ff=2).double(), noise(2, T, d, dtype=F64)
    periods, amplitude = find_periods(x, top_k)
    weights = amplitude.softmax(1)
    out = torch.zeros(2, T, d, dtype=F64)
    for n in range(2):
        def step(i): return (x[n, i] if 0 <= i < T else sum(w*x[n, i + (p if i < 0 else -p)] for p, w in zip(periods[n].tolist(), weights[n])))
        for p, w in zip(periods[n].tolist(), weights[n]):
            for t in range(T):
                y = block.point(x[n, t])
                for k, narrow, conv in zip((3, 5), block.narrow, block.wide):
                    kernel = conv.weight.view(k, d, 2, k)                       # rows, out, in, aside
                    for a in range(k):
                        at = t
                        for _ in range(abs(a - k//2)):
                            further = at + (p if a > k//2 else -p)
                            at = further if 0 <= further < T else at
                        y = y + sum(kernel[a, :, :, b] @ narrow(step(at + b - k//2)) for b in range(k))
                out[n, t] = out[n, t] + w*F.gelu(block.norm_inside(y))
    torch.testing.assert_close(block(x), block.norm(x + out))

def test_timesnet_is_a_convolution_in_two_dimensions():
    "Torch's own, on the folded history, wherever all its neighbours exist."
    block, x, p = make("timesnetblock", 4), noise(1, 60, 4), 10
    sheets = [n(x).mT.unflatten(-1, (-1, p)) for n in block.narrow]
    def conv(z, c, k): return F.conv2d(z, c.weight.view(k, 4, 4, k).permute(1, 2, 0, 3), padding=k//2)
    sheet = (block.point(x).mT.unflatten(-1, (-1, p)) + conv(sheets[0], block.wide[0], 3) + conv(sheets[1], block.wide[1], 5))[0].movedim(0, -1)
    rows = block.rows(x, torch.tensor([[p]]), torch.ones(1, 1))[0]
    helix = sum(rows[a, rows_at(torch.tensor(p), 60)[:, a]] for a in range(5)).unflatten(0, (-1, p))
    torch.testing.assert_close(helix[2:-2, 2:-2], sheet[2:-2, 2:-2], atol=1e-5, rtol=1e-5)

@pytest.mark.parametrize("period", [2, 5, 12])
def test_timesnet_keeps_a_period_to_the_last_step(period):
    x = (sine(60, period, 8, .7)*noise(8, dtype=F64))
    y = make("timesnetblock", 8, top_k=1).double()(x)
    torch.testing.assert_close(y[:, period:], y[:, :-period], atol=1e-6, rtol=1e-6)

def test_timesnet_periods_cost_no_weights():
    assert len({sum(p.numel() for p in TimesNetBlock(16, top_k=k).parameters()) for k in (1, 3, 9)}) == 1
    assert TimesNetBlock(8, top_k=99)(noise(2, 7, 8)).shape == (2, 7, 8)

def test_spectrum_widens_half_precision():
    assert spectrum(noise(1, 9, 2).bfloat16()).dtype == torch.complex64 and spectrum(noise(1, 9, 2).double()).dtype == torch.complex128

# Trends --------------------------------------------------------------------------------------------------------------

@property_test
@given(st.integers(1, 40), st.integers(1, 50))
def test_moving_average_by_hand(T, kernel):
    x = noise(1, T, 2, seed=T, dtype=F64)
    expected = [x[0, max(0, t - kernel//2):t + (kernel - 1)//2 + 1].mean(0) for t in range(T)]
    torch.testing.assert_close(moving_average(x, kernel)[0], torch.stack(expected))

@property_test
@given(st.integers(1, 64), st.integers(1, 64), st.floats(-1e3, 1e3))
def test_moving_average_keeps_a_constant(T, kernel, level):
    "Zeros beyond the edge would let the trend of every history fall to half of it at the last step."
    x = torch.full((1, T, 1), level, dtype=F64)
    torch.testing.assert_close(moving_average(x, kernel), x)

def test_the_last_remainder_is_as_large_as_any():
    "Holding the edge makes the last step half of its own trend, a calm before every forecast."
    x = noise(4000, 60, 1)
    size = (x - moving_average(x, 25)).std(0).flatten()
    assert abs(size[-1]/size[20:40].mean() - 1) < .04
    held = F.avg_pool1d(hold_edges(x, 12, 12).mT, 25, 1).mT
    assert (x - held)[:, -1].std() < .55*size[20:40].mean()

def test_dlinear_is_the_identity_before_training():
    x = noise(3, 70, 16)
    torch.testing.assert_close(DLinearBlock(16)(x), x, atol=1e-5, rtol=1e-5)

@property_test
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_dlinear_by_hand(T, lags, kernel):
    block, x = make("dlinearblock", 2, lags=lags, kernel_size=kernel).double(), noise(1, T, 2, dtype=F64)
    trend = moving_average(x, kernel)
    v, w = block.weight
    expected = [block.bias + sum(v[:, j]*trend[0, max(t - j, 0)] + w[:, j]*(x - trend)[0, max(t - j, 0)] for j in range(lags)) for t in range(T)]
    torch.testing.assert_close(block(x)[0], torch.stack(expected))

def test_dlinear_mixes_time_and_not_features():
    block, x = make("dlinearblock", 6, lags=20).double(), noise(2, 20, 6, dtype=F64)
    moved = x.clone(); moved[..., 2] += noise(2, 20, seed=5, dtype=F64)
    change = (block(moved) - block(x)).abs().amax((0, 1))
    assert change[2] > 0 and change[[0, 1, 3, 4, 5]].max() == 0
    for t in range(20):
        moved = x.clone(); moved[:, t] += 1.
        assert ((block(moved) - block(x))[:, -1].abs() > 0).all(), f"the last state does not see step {t}"

def test_dlinear_is_linear():
    block, x, y = make("dlinearblock", 4).double(), noise(1, 50, 4, dtype=F64), noise(1, 50, 4, seed=1, dtype=F64)
    zero = block(torch.zeros_like(x))
    torch.testing.assert_close(block(2*x - 3*y) - zero, 2*(block(x) - zero) - 3*(block(y) - zero))

def test_dlinear_holds_what_a_map_over_time_knows():
    "With as many lags as steps, the last state is any chosen linear forecast: here the next step of a line."
    block = DLinearBlock(1, kernel_size=1, lags=10)
    with torch.no_grad(): block.weight[0, 0, :2] = torch.tensor([2., -1.])
    line = torch.linspace(3, 12, 10)[None, :, None]
    assert block(line)[0, -1].item() == pytest.approx(13)

@property_test
@given(st.integers(1, 40), st.integers(1, 7))
def test_cells_are_counted_from_the_end(T, window):
    x = noise(1, T, 2, dtype=F64)
    cells = coarsen(x, window)
    assert cells.shape[1] == -(-T//window) and refine(cells, window, T).shape == x.shape
    for c in range(cells.shape[1]):
        end = T - c*window
        expected = torch.stack([x[0, max(i, 0)] for i in range(end - window, end)]).mean(0)
        torch.testing.assert_close(cells[0, -1 - c], expected)
        torch.testing.assert_close(refine(cells, window, T)[0, end - 1], expected)

@pytest.mark.parametrize("T", [8, 13])
def test_timemixer_written_out(T):
    block, x = make("timemixerblock", 4, d_ff=3, moving_avg_kernel=5).double(), noise(2, T, 4, dtype=F64)
    x1, n1 = coarsen(x, 2), -(-T//2)
    x2 = coarsen(x1, 2)
    t0, t1, t2 = (moving_average(s, 5) for s in (x, x1, x2))
    r0, r1, r2 = x - t0, x1 - t1, x2 - t2
    r1 = r1 + block.up[0](coarsen(r0, 2))
    r2 = r2 + block.up[1](coarsen(r1, 2))
    t1 = t1 + block.down[1](refine(t2, 2, n1))
    t0 = t0 + block.down[0](refine(t1, 2, T))
    mixed = r0 + t0 + refine(r1 + t1, 2, T) + refine(refine(r2 + t2, 2, n1), 2, T)
    torch.testing.assert_close(block(x), block.norm(x + block.out(mixed/3)))

@pytest.mark.parametrize("window,layers", [(2, 1), (2, 3), (3, 2), (5, 1)])
def test_timemixer_says_how_short_is_too_short(window, layers):
    block, need = TimeMixerBlock(8, down_sampling_window=window, down_sampling_layers=layers), window**layers
    assert block.min_seq_len == need and block(noise(1, need, 8)).shape == (1, need, 8)
    with pytest.raises(ValueError, match=f"at least {need} steps of history and gets {need - 1}"): block(noise(1, need - 1, 8))
