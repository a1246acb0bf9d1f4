"Members that are spread evenly: each alone is an honest draw, for every kind of path, and the score of all has a fraction of the noise; what is left is told."
from pathlib import Path

import pandas as pd
import pytest
import torch

from synthlab.experiments.terminal import as_text
from synthlab.labs.market.experiment import noise_note
from synthlab.labs.market.judging import model_simulator, sampling_variance, step_scores
from synthlab.models.quasirandom import QuasiGenerator
from synthlab.models.synth import create_model

HEADS = {"gbm": .3, "student_t": .35, "skew_t": .3, "stochastic_volatility": .4, "flow_matching": .4, "mixture_density": .6, "neural_bridge": .4, "sde": .3, "neural_sde": .4, "spectral": .6}
B, P, H = 24, 256, 6

@pytest.fixture(scope="module")
def batch():
    g = torch.Generator().manual_seed(1)
    price, scale = torch.full((B,), 100.), torch.full((B,), .01)
    target = price[:, None]*(.01*torch.randn(B, H, generator=g).cumsum(1)).exp()
    return dict(history=torch.randn(B, 8, 3, generator=g), initial_price=price, scale=scale, target=target)

def simulators(name):
    blocks = dict(input_size=3, d_model=8, blocks=[dict(name="identityblock")])
    model = create_model(dict(backbone=blocks, head=dict(name=name)), seed=0).eval()
    return [model_simulator(model, H, P, source) for source in (QuasiGenerator, torch.Generator)]

def drawn(simulate, batch, seeds=24):
    "Mean score and its noise as told, for several seeds; and all paths."
    with torch.inference_mode(): paths = [simulate(batch, None, seed) for seed in range(seeds)]
    scores = torch.stack([step_scores(p, batch).mean() for p in paths])
    told = torch.stack([sampling_variance(p, batch).sum() for p in paths]).mean().sqrt()/B
    return scores, told, torch.stack(paths)

@pytest.mark.parametrize("name", HEADS)
def test_members_are_even_and_honest(name, batch):
    (even, told, paths), (alone, told_alone, plain) = (drawn(s, batch) for s in simulators(name))
    assert even.std() < HEADS[name]*alone.std(), (even.std()/alone.std())
    assert .6 < told/even.std() < 1.7 and .6 < told_alone/alone.std() < 1.7
    logs = [x.log()[:, :, 5, -1] for x in (paths, plain)]     # one member, many seeds and windows
    assert abs(logs[0].std()/logs[1].std() - 1) < .2 and abs(logs[0].mean() - logs[1].mean()) < 5*logs[1].std()/logs[1].numel()**.5
    with torch.inference_mode(): again = simulators(name)[0](batch, None, 3)
    assert torch.equal(again, paths[3]) and not torch.equal(paths[3], paths[4])

def test_a_table_writes_probabilities():
    text = as_text(pd.DataFrame(dict(crps=[98.12345, 1e-5], p_value=[4.154e-75, None], rank_p_value=[.0234, .5]), ["gjr", "ewma"]))
    assert "e-75" not in text and "< 0.001" in text and "98.12" in text and "0.023" in text and "nan" not in text.lower()

def test_the_noise_of_a_score_is_told_where_it_matters():
    "The error of a mean score over 24 seeds is under a tenth of the interval's half width in the committed report, or a sentence says so."
    table = pd.DataFrame(dict(crps=[96., 97.], noise=[.05, 0.], low=[None, -.01], high=[None, .02]), ["model", "gjr"])
    assert noise_note(table) == []                              # half a width is 1.455
    assert "more than a tenth of the interval's half width, 1.5" in noise_note(table.assign(noise=[.2, 0.]))[0]
    for report in ("train", "evaluate"):
        text = (Path(__file__).parents[1]/f"nbs/{report}.ipynb").read_text()
        assert "noise" in text and "The draw of members alone" not in text, report
