"Paths that are carried from a random walk to a market, and paths whose shocks are the residuals of what was learnt from."
import numpy as np
import pytest
import torch

from synthlab.datasets.sources import MockDataSource
from synthlab.labs.market.experiment import make_objective
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market
from synthlab.models.flow import carry, turn
from synthlab.models.registry import ConfigError, create
from synthlab.models.synth import create_model
from synthlab.trainers.objectives import PathObjective
from synthlab.trainers.trainer import Trainer

F64 = torch.float64

def seeded(seed=0): return torch.Generator().manual_seed(seed)
def full(n, value): return torch.full((n,), float(value))

# Shocks that happened -------------------------------------------------------------------------------------------------

RESIDUAL = {"backbone": {"input_size": 3, "d_model": 8, "blocks": ["identityblock"]}, "head": {"name": "stochastic_volatility", "shocks": "residuals"}}

def happened(n, seed=5, horizon=6, drift=0.):
    "Windows and what followed: exponential returns, skewed and never far below the mean."
    g = seeded(seed)
    price, scale = full(n, 100), torch.rand(n, generator=g)*.01 + .005
    moves = scale[:, None]*(torch.empty(n, horizon).exponential_(generator=g) - 1) + drift
    return dict(history=torch.randn(n, 1, 3, generator=g), initial_price=price, scale=scale, target=price[:, None]*moves.cumsum(1).exp())

def test_residuals_are_those_of_the_windows_learnt_from_and_of_no_other():
    "Training counts each window's first step once, without what the model's drift explains; judging and simulating count nothing, and a copy draws the same."
    model = create_model(RESIDUAL | {"drift": .001}, seed=0)
    objective, head, batch = PathObjective(model, 6, 8, n_eval_paths=8), model.head, happened(50, drift=.001)
    before = head.residuals.clone()
    objective.evaluate(batch, seeded()); model(batch["history"], batch["initial_price"], 6, 5, scale=batch["scale"])
    assert torch.equal(head.residuals, before)
    objective.loss(batch, "model", seeded())
    said = model.distribution(batch["history"])
    sigma = said["sigma"]*batch["scale"]
    first = ((batch["target"][:, 0]/batch["initial_price"]).log() - .001)/sigma + sigma/2
    place = ((first.detach() + 16)*32).long()
    assert torch.equal(head.residuals - before, torch.bincount(place, minlength=1024).float())
    again = create_model(RESIDUAL | {"drift": .001}, seed=1)
    again.load_state_dict(model.state_dict())
    draw = lambda m: m(batch["history"], batch["initial_price"], 6, 5, scale=batch["scale"], generator=seeded())[0]
    assert torch.equal(draw(again), draw(model))
    assert "residuals" not in create_model(RESIDUAL | {"head": "stochastic_volatility"}).state_dict()
    with pytest.raises(ConfigError, match="shocks='residual' is none of fitted, residuals"): create("head", {"name": "stochastic_volatility", "shocks": "residual"}, latent_size=8)

def test_paths_have_the_shape_of_the_residuals():
    "Where volatility answers nothing, steps are the residuals that were seen: skewed, with their quantiles, whatever their mean and size were."
    still = dict.fromkeys(("sign", "size", "noise", "start"), [0., 0., 0.])
    head = create("head", {"name": "stochastic_volatility", "shocks": "residuals", **still}, latent_size=8)
    batch = happened(100_000)
    said = {k: 0*v for k, v in head(torch.zeros(1, 1, 8)).items()} | dict(sigma=full(1, 1))
    everyone = {k: v.expand(100_000, *v.shape[1:]) for k, v in said.items()}
    moves = (batch["target"]/100).log().diff(dim=1, prepend=torch.zeros(100_000, 1))
    head.learn_residuals(everyone, 3*moves, batch["scale"])
    steps = head.simulate(said, full(1, 1), 4, 100_000, scale=full(1, .01), generator=seeded())[0].log().diff(dim=1)/.01 + .005
    levels = torch.tensor([.01, .1, .5, .9, .99])
    torch.testing.assert_close(steps.flatten().quantile(levels), -(1 - levels).log() - 1, rtol=.03, atol=.03)
    assert abs(steps.std() - 1) < .02 and abs(steps.mean()) < .01

def test_residuals_of_bars_to_come_are_not_known(tmp_path):
    "Bars from the first validation decision on are changed, and after an epoch not a bit of weights and residuals has moved."
    def learnt(name, factor):
        bars = MockDataSource(length=500, freq="1D", seed=3).load(["A"])["A"]
        later = np.where(bars.index >= bars.index[300], factor, 1.)
        bars.mul(later, axis=0).to_parquet(tmp_path/f"{name}.parquet")
        config = market_config([f"data={tmp_path}/{name}.parquet", "model=stochastic_volatility", "+model.head.shocks=residuals", "data.engineer.windows=[1,5]",
                                f"data.split.val_start={bars.index[300]:%Y-%m-%d}", f"data.split.test_start={bars.index[400]:%Y-%m-%d}", "training.n_paths=8", "training.epochs=1"])
        market = load_market(config)
        trainer = Trainer(make_objective(config, market), config.training, progress=False)
        trainer.fit(market.fold.train, market.fold.val)
        return trainer.model.state_dict()
    one, two = learnt("one", 1.), learnt("two", 1.5)
    assert one["head.residuals"].sum() > 256 + 200
    for name, value in one.items(): assert torch.equal(value, two[name]), name

# Flows ----------------------------------------------------------------------------------------------------------------

def test_an_exact_field_carries_noise_to_correlated_returns():
    "Between two Gaussians the velocity is a matrix, known in closed form; followed, it makes the mean and the covariance of the paths."
    g = seeded()
    root = torch.randn(5, 5, dtype=F64, generator=g)
    cov, mean = root @ root.T/5 + .2*torch.eye(5, dtype=F64), torch.randn(5, 1, dtype=F64, generator=g)
    noise = torch.randn(5, 20_000, dtype=F64, generator=g)
    def field(y, angle):
        sin, cos = np.sin(angle), np.cos(angle)
        gain = sin*cos*(cov - torch.eye(5, dtype=F64)) @ torch.linalg.inv(cos*cos*torch.eye(5, dtype=F64) + sin*sin*cov)
        return mean*cos + gain @ (y - mean*sin)
    values, vectors = torch.linalg.eigh(cov)
    exact = mean + vectors @ values.sqrt().diag() @ vectors.T @ noise
    errors = [(carry(field, noise, n) - exact).abs().max() for n in (8, 16, 32)]
    assert errors[2] < .02 and 3 < errors[0]/errors[1] < 5 and 3 < errors[1]/errors[2] < 5
    path = exact[:, torch.randperm(20_000, generator=g)]            # of other noise than it is paired with
    for angle in (.4, 1.2):                                         # and it is what regression on straight lines finds
        y, velocity = turn(noise, path, torch.tensor(angle, dtype=F64))
        x = torch.cat([y, torch.ones_like(y[:1])]).T
        found = torch.linalg.lstsq(x, velocity.T).solution.T
        torch.testing.assert_close(found @ x.T, field(y, angle), rtol=0, atol=.15)

def test_a_flow_is_taught_by_its_regression_and_judged_by_paths(monkeypatch):
    still, model = (create_model(RESIDUAL | {"head": "flow_matching", "drift": drift}, seed=0) for drift in (0., .001))
    torch.nn.init.normal_(model.head.field.out.weight, std=.1, generator=seeded())
    objective, batch = PathObjective(model, 6, 8, n_eval_paths=8), happened(50, drift=.001)
    judged = objective.evaluate(batch, seeded())
    assert set(judged) == {"score", "crps", "sharpness", "log_likelihood"} and torch.equal(judged["score"], objective.evaluate(batch, seeded())["score"])
    monkeypatch.setattr(type(model.head), "simulate", None)
    loss, _ = objective.loss(batch, "model", seeded())
    assert torch.equal(loss, objective.loss(batch, "model", seeded())[0]) and not torch.equal(loss, objective.loss(batch, "model", seeded(1))[0])
    steps = torch.arange(1, 7)
    still.load_state_dict(model.state_dict())
    undrifted = batch | {"target": batch["target"]*(-.001*steps).exp()}
    torch.testing.assert_close(PathObjective(still, 6, 8).loss(undrifted, "model", seeded())[0], loss)
    fewer = PathObjective(model, 6, 2).loss(batch, "model", seeded())[0]
    assert not torch.equal(fewer, loss) and abs(fewer - loss) < .5

def test_a_clock_is_learnt_with_a_flow():
    "Hours that move three times as much: the likelihood of the random walk finds their pace."
    model = create_model({"backbone": {"input_size": 3, "d_model": 4, "blocks": ["identityblock"], "future_size": 1}, "head": "flow_matching"}, seed=0)
    g, loud = seeded(), (torch.arange(6) % 2).float().expand(2048, 6)
    moves = .01*(1 + 2*loud)*torch.randn(2048, 6, generator=g)
    batch = dict(history=torch.zeros(2048, 1, 3), initial_price=full(2048, 1), scale=full(2048, .01), target=moves.cumsum(1).exp(), future=loud[..., None])
    objective = PathObjective(model, 6, 2)
    descend = torch.optim.Adam(model.parameters(), .03)
    for step in range(60):
        descend.zero_grad(); objective.loss(batch, "model", seeded(step))[0].backward(); descend.step()
    with torch.no_grad(): paths, _, sigma = model(batch["history"][:20], batch["initial_price"][:20], 6, 500, scale=batch["scale"][:20], generator=seeded(), future=batch["future"][:20])
    spread = paths.log().diff(dim=-1, prepend=torch.zeros(20, 500, 1)).std(dim=(0, 1))
    torch.testing.assert_close(spread, .01*(1 + 2*loud[0]), rtol=.1, atol=0)
    torch.testing.assert_close(sigma.mean(0), .01*(1 + 2*loud[0]), rtol=.15, atol=0)
