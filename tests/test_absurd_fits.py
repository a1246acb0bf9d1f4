"An optimiser's flag is no evidence: mean and implied variance are held against the sample, and a report says when no fit stands."
import warnings
import numpy as np, pandas as pd, pytest, torch

from synthlab.labs.market.experiment import judge_model
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market, build_market_model
from synthlab.models.baselines import GARCH, GJRGARCH, EWMAVolatility, log_returns

def halted(first=600, last=900, seed=0):
    rng = np.random.default_rng(seed)
    c = 100*np.exp(np.cumsum(.01*rng.standard_normal(1500)))
    c[first:last] = c[first]
    return c

@pytest.mark.parametrize("kind", [GARCH, GJRGARCH])
@pytest.mark.parametrize("errors", ["t", "normal"])
@pytest.mark.parametrize("last,seed", [(900, 0), (900, 1), (1100, 2), (750, 3)])
def test_a_halted_stock(kind, errors, last, seed):
    close = halted(last=last, seed=seed)[:1118]; r = log_returns(close)[1:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        b = kind(errors).fit(close)
    assert abs(b.mu - r.mean()) < .5*r.std() and .25 < b.variance(r).mean()/r.var() < 4
    paths = b.simulate(close, np.arange(1000, 1117, 9), 12, 500, torch.Generator().manual_seed(0))
    fit = np.abs(np.log(paths.numpy()/close[1000:1117:9, None, None])).mean()
    assert fit < 5*12**.5*r.std(), fit

@pytest.mark.parametrize("name,value", [("mu", 240.), ("omega", 1e3), ("alpha[1]", .5)])
def test_a_lie_of_the_optimiser_is_caught(name, value):
    "Whatever the flag says: a mean of 2.4 a bar, a variance a thousand times the sample's, one that explodes: no fit."
    told = []
    class Liar(GARCH):
        def take(self, p, r, unit):
            told.append(p)
            super().take({**p, name: value} if len(told) < 4 else p, r, unit)
    with pytest.warns(UserWarning, match="Liar did not converge"): b = Liar().fit(np.exp(np.cumsum(.01*np.random.default_rng(0).standard_normal(600))))
    assert len(told) == 4 and not b.converged and "did not converge" in b.caveat() and (b.omega, b.alpha, b.beta) == (0, .06, .94)

def test_a_good_fit_has_no_caveat():
    close = np.exp(np.cumsum(.01*np.random.default_rng(0).standard_normal(600)))
    assert GARCH().fit(close).caveat() == "" and EWMAVolatility().fit(close).caveat() == ""

def test_the_report_says_it(tmp_path, monkeypatch):
    monkeypatch.setattr(GJRGARCH, "max_iterations", 1)
    path = tmp_path/"a.csv"; pd.DataFrame({"close": halted()}, pd.bdate_range("2015-01-01", periods=1500)).rename_axis("time").to_csv(path)
    config = market_config(["data=file", f"data.source={path}", "data.engineer={name: zscore}", "evaluation.n_paths=20", "evaluation.n_boot=100", "evaluation.baselines=[gjr]"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        market = load_market(config)
        numbers, _, _ = judge_model(build_market_model(config, **{k: v for k, v in market.sizes().items()}), market, config, say=lambda s: None)
    assert "gjr (a) did not converge on the training prices" in " ".join(numbers["notes"])
