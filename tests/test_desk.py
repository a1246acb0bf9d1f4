"An estimation on data: what is refused at a terminal, what an interruption leaves, and formulas against other ways to the same numbers."
import math
import signal
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import torch
import xarray
from scipy import stats
from statsmodels.tsa.filters.hp_filter import hpfilter

from synthlab.cli.main import main
from synthlab.datasets.densities import SHAPES, Density
from synthlab.datasets.world import StateSpace
from synthlab.datasets.worlds import get_world
from synthlab.datasets.written import written_world
from synthlab.labs.macro import desk, evidence
from synthlab.labs.macro.contest import fit_minnesota, lagged, make_targets, make_vintage, vintage_draws
from synthlab.labs.macro.evidence import find_mode, log_evidence
from synthlab.labs.macro.history import as_smoother, decompose_history
from synthlab.labs.macro.observations import from_world, simulate_data
from synthlab.labs.macro.own_series import SeriesData, load_table, make_series, transformed, us_table
from synthlab.labs.macro.posterior import Likelihood, Posterior, Prior, log_posterior
from synthlab.labs.macro.published import SMETS_WOUTERS, missing_series
from synthlab.models.registry import ConfigError
from synthlab.trainers import hmc
from synthlab.trainers.hmc import fly

NK = get_world("nk")
FIXED = [f"fixed.{n}={v}" for n, v in zip(NK.parameters.names, NK.parameters.default) if n not in ("rho_r", "sigma_r")]
TOY = [*FIXED, "sampling.starts=2", "sampling.steps=6", "sampling.chains=4", "sampling.draws=8", "sampling.warmup=12", "sampling.leaps=1", "bands=10", "horizon=8", "ahead=2"]

@pytest.fixture
def own(tmp_path, monkeypatch):
    "A folder with a table of ten years."
    monkeypatch.chdir(tmp_path)
    us_table().loc["1984Q1":"1993Q4", ["realgdp", "infl", "tbilrate", "cpi"]].rename_axis("date").to_csv("my.csv")
    return tmp_path

# at a terminal

def test_a_line_leaves_a_folder_and_goes_on_where_it_was(own, capsys):
    line = ["macro", "estimate", "data.source=my.csv", "data.transform.output=log,linear", "data.transform.rate=linear", *TOY]
    with patch.object(desk, "write_estimate", side_effect=KeyboardInterrupt): assert main(line) == 130
    assert "go on with the same line" in capsys.readouterr().err
    folder, = (own/"runs").iterdir()
    assert folder.name.startswith("estimate_nk_") and (folder/"draws.zarr").is_dir() and not (folder/"parameters.csv").exists()
    with patch.object(desk, "sample_posterior", side_effect=AssertionError("sampled twice")): assert main(line) == 0
    said = capsys.readouterr().out
    assert "40 quarters" in said and f"estimate: runs/{folder.name}" in said and "log evidence" in said
    table = pd.read_csv(folder/"parameters.csv", index_col="parameter")
    assert list(table.index) == ["rho_r", "sigma_r"] and (table["mean"] > 0).all()
    assert len(list((folder/"figures").glob("*.png"))) == 5
    with open("my.csv", "a") as file: file.write("1994Q1,7.7e3,2.1,3.3,146\n")
    other = desk.estimate_folder(desk.estimate_config(line[2:]))             # another table is another folder
    assert other != folder.relative_to(own)
    assert main([*line, "--run-dir", str(folder)]) == 2 and "other data" in capsys.readouterr().err

def test_the_mode_is_not_looked_for_twice(own, capsys):
    "Told to stop after the climb, the same line goes on with its tops, and with the seconds that they took."
    line = ["macro", "estimate", "data.source=my.csv", "data.transform.output=log,linear", "data.transform.rate=linear", *TOY]
    with patch.object(desk, "about_top", side_effect=KeyboardInterrupt), patch.object(desk, "sample_posterior", side_effect=KeyboardInterrupt): assert main(line) == 130
    kept, = (own/"runs").glob("*/mode.safetensors")
    with patch.object(evidence, "ascend", side_effect=AssertionError("climbed twice")): assert main(line) == 0
    capsys.readouterr()
    ends = pd.read_csv(kept.with_name("mode.csv"), index_col="start")
    assert list(ends.columns) == ["height", "rho_r", "sigma_r"] and len(ends) == 2 and ends.height.is_monotonic_decreasing

def test_all_that_can_be_set_is_listed(capsys):
    assert main(["macro", "estimate", "--settings"]) == 0
    said = capsys.readouterr().out
    assert all(f"{word}=" in said for word in ("world", "data.transform", "priors", "sampling.leaps", "bands", "estimate_noise")) and "uniform(low, high)" in said

def test_a_prior_without_a_solution_is_refused_before_anything_is_done(own, capsys):
    fails = lambda self, theta: {"the Taylor principle fails": torch.full((len(theta),), len(theta) in (64, 1))}      # of the prior that is typed
    with patch.object(type(NK), "failures", fails):
        assert main(["macro", "estimate"]) == 2
    assert capsys.readouterr().err.startswith("synthlab: of 64 draws of this prior none has a solution: nk: the Taylor principle fails") and not (own/"runs").exists()

def test_another_unit_is_noticed(own):
    "A series a hundred times as large, or as small, as the model has it before it has seen any."
    table = us_table().loc["1984Q1":"1993Q4", ["realgdp", "infl", "tbilrate"]]
    table["realgdp"] = np.log(table.realgdp).diff().cumsum().fillna(0)*1e4
    table.rename_axis("date").to_csv("large.csv")
    config, world, series = desk.on_data(desk.estimate_config(["data.source=large.csv", "data.columns.output=realgdp", "data.transform.output=linear", "data.transform.rate=linear", *TOY]))
    prior = desk.make_prior(config, world)
    said, = desk.tell_scale(from_world(world, 40), prior, series - series.mean())
    assert said.startswith("output deviates by ") and "in one unit?" in said
    assert desk.tell_scale(from_world(world, 40), prior, (series - series.mean())/[1e2, 1, 1]) == []

def test_too_few_quarters_are_said():
    "Three a parameter are the least that is not remarked upon."
    prior, series = Prior(NK, ("rho_r", "sigma_r")), pd.DataFrame(np.zeros((5, 3)))
    assert desk.tell_few(series, prior) == ["There are 5 quarters for 2 parameters: what is found is mostly the prior."]
    assert desk.tell_few(pd.DataFrame(np.zeros((6, 3))), prior) == []

def test_a_prior_is_printed_with_its_walls(own):
    "What the model cuts off is said behind the law, in the table and in the paper's; both ends of a uniform are typed as they are printed."
    line = ["data.source=my.csv", "data.transform.output=log,linear", "data.transform.rate=linear", "priors.rho_r=beta(0.6,0.15)", "priors.sigma_r=uniform(0.006,0.015)", *TOY]
    found = desk.estimate_economy(line)
    assert found.table.prior.to_dict() == {"rho_r": "beta(0.6, 0.15) to 0.95", "sigma_r": "uniform(0.006, 0.015)"}
    assert "beta to " in desk.latex_table(found)
    assert found.prior.densities["sigma_r"].ends() == pytest.approx((.006, .015))

def test_evidence_that_one_method_knows_is_that_of_the_other():
    "Where too few draws have moved nothing is compared, and Laplace's number is the one that is told."
    prior, y = Prior(NK, ("rho_r", "sigma_r")), simulate_data(NK, NK.parameters.tensor()[None], 40, seed=1)[0].numpy()
    likelihood, model = Likelihood(y, world=NK), from_world(NK, 40)
    mode = find_mode(model, likelihood, prior, 2, 20)
    still = mode.u.expand(2, 8, -1)
    stuck = Posterior(prior.theta(still), prior.values(still), hmc.Chains(still, torch.full((2, 8), mode.value, dtype=torch.double), torch.zeros(2), torch.zeros(2), torch.ones(())))
    table, said = log_evidence(model, likelihood, prior, stuck)
    assert table.loc["harmonic mean, 10%":, "log evidence"].isna().all() and np.isfinite(table.loc["Laplace", "log evidence"])
    assert [s.partition(":")[0] for s in said] == ["The harmonic mean is not known"]

def test_ctrl_c_loses_no_draw(own, capsys):
    "Told to stop while it draws, an estimate keeps what there is; the same line goes on from there, to the same draws."
    line = ["macro", "estimate", "data.source=my.csv", "data.transform.output=log,linear", "data.transform.rate=linear", *TOY]
    assert main([*line, "--run-dir", "whole"]) == 0
    flights = []
    def stopped(*args):
        flights.append(0)
        if len(flights) == 15: signal.raise_signal(signal.SIGINT)           # three draws after the warm-up
        return fly(*args)
    with patch.object(hmc, "fly", stopped): assert main(line) == 130
    assert "after draw 15 of 20, which are kept" in capsys.readouterr().err
    folder, = (own/"runs").iterdir()
    kept = folder/"unfinished_draws.safetensors"
    assert kept.exists() and not (folder/"draws.zarr").exists()
    flights = [0]*100
    with patch.object(hmc, "fly", stopped): assert main(line) == 0
    assert len(flights) == 105 and not kept.exists() and "goes on after draw 15 of 20" in capsys.readouterr().out
    drawn = [xarray.open_zarr(f, group="posterior", consolidated=False) for f in (own/"whole"/"draws.zarr", folder/"draws.zarr")]
    assert drawn[0].equals(drawn[1])

@pytest.mark.parametrize("typed, says", [
    (["data.source=none.csv"], "there is no file none.csv"), (["data.source=my.csv"], "type data.transform.output=log,hp"),
    (["data.source=my.csv", "data.transform.output=lgo"], "did you mean log?"), (["data.source=my.csv", "data.columns.output=gdp"], "did you mean realgdp?"),
    (["data.source=my.csv", "data.columns.outptu=cpi"], "did you mean output?"), (["world=zlb"], "take nk or rbc"), (["world=nkk"], "did you mean nk?"),
    (["prior=usul"], "did you mean usual?"), (["priors.kapa=gamma(.1,.1)"], "did you mean kappa?"), (["priors.rho_i=beta(.9,.4)"], "too large"),
    (["priors.rho_i=bta(.9,.1)"], "did you mean beta?"), (["fixed.betta=.99"], "did you mean beta?"), (["fixed.kappa=5"], "fixed.kappa=5 lies outside of 0.01 … 0.5"),
    (["fixed.kappa=.1", "priors.kappa=gamma(.1,.05)"], "leave one of them out"), (["fixed.phi_pi=.9"], "outside of 1.05 … 3.5"), (["priors.kappa=uniform(.5,.1)"], "give the lower end first"),
    (["bands=4"], "synthlab: bands is 4"),
    (["sampling.draws=ten"], "sampling.draws is ten; give a whole number"), (["estimate_noise=[outptu]"], "estimate_noise is outptu; give a number"), (["sampling.drws=5"], "did you mean sampling.draws?"),
    (["data.start=2020Q1"], "0 quarters"), (["data.date=when", "data.source=my.csv"], "has no column 'when'"), (["draws=5"], "there is no setting draws"),
    (["noise=-1"], "use 0 or more"), (["data.transform.output=log,hp", "data.source=my.csv", "data.end=soon"], "data.end")])
def test_a_mistake_gets_one_sentence(own, typed, says, capsys):
    assert main(["macro", "estimate", *typed]) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("synthlab: ") and said.count("\n") == 1
    assert not (own/"runs").exists()

# economies as text, with the variables that a table has

SW = get_world("smets_wouters")
FEW = ["sampling.starts=1", "sampling.steps=2", "sampling.chains=2", "sampling.draws=4", "sampling.warmup=2", "sampling.leaps=1", "bands=10", "horizon=8", "ahead=2"]
KNOWN = [f"fixed.{n}={v}" for n, v in zip(SW.parameters.names, SW.parameters.default) if n not in ("rho_a", "pibar")]

def test_an_economy_as_text_is_estimated_on_what_the_table_has_of_it(own, capsys):
    "Five of seven series of the package's own table, with the file's constants; a file of one's own with one series."
    assert main(["macro", "estimate", "data.source=us", "data.start=1984Q1", "world=smets_wouters", *KNOWN, *FEW]) == 0
    said = capsys.readouterr()
    assert "103 quarters of dy, dc, dinve, dinfl, drate, without hours and dw; 2 free parameters" in said.out + said.err
    folder, = (own/"runs").iterdir()
    table = pd.read_csv(folder/"parameters.csv", index_col="parameter")
    assert table["prior"].to_dict() == dict(rho_a="beta(0.5, 0.2)", pibar="gamma(0.625, 0.1)")
    assert .5 < table.loc["pibar", "mode"] < 1.1                            # quarterly inflation, by the file's own constant
    ahead = pd.read_csv(folder/"forecast.csv").set_index(["quarter", "observable"])
    assert len(ahead) == 10 and ahead.loc[("2009Q4", "dinfl"), "5%"] > -3
    parts = pd.read_csv(folder/"history.csv").groupby("quarter")[["dy", "drate"]].sum()
    off = pd.read_csv(folder/"series.csv", index_col="quarter")[["dy", "drate"]] - parts
    assert np.allclose(off, off.iloc[0]) and abs(off.iloc[0, 0] - .43) < .01            # shocks add up to what is not the model's mean
    (own/"ar.mod").write_text("var y x z; varexo e; parameters r; r = .5; model(linear); x = r*x(-1) + e; y = x; z = x; end; shocks; var e; stderr 1; end; estimated_params; r, beta_pdf, .5, .2; end; varobs y;")
    rng = np.random.default_rng(0); y = [0.]
    for e in rng.normal(size=300): y.append(.8*y[-1] + e)
    pd.DataFrame(dict(date=pd.period_range("1930Q1", periods=301, freq="Q").astype(str), Y=y)).to_csv(own/"ar.csv", index=False)
    found = desk.estimate_economy(["world=ar.mod", "data.source=ar.csv", *FEW[4:], "sampling.starts=2", "sampling.steps=40", "sampling.chains=4", "sampling.draws=40", "sampling.warmup=40"])
    assert found.series.shape == (301, 1) and found.config.means == "sample" and abs(found.mode.theta.item() - sm.OLS(y[1:], y[:-1]).fit().params[0]) < .03

@pytest.mark.parametrize("typed, says", [
    (["data.columns.dyy=realgdp"], "the model tells no dyy; did you mean dy?"), (["data.columns.dw=wages"], "data.columns.dw: us has no column 'wages'"),
    (["data.transform.hours=log"], "no column that is called as hours is"), (["means=file"], "there are no means 'file'"), (["world=nk", "means=model"], "take means=sample"),
    (["prior=writen"], "did you mean written?"), (["priors.h=beta(.7,.1) from .9 to .5"], "in the wrong order"), (["data.source=my.csv", "data.columns.dy=realgdp"], "type data.transform.dy=log,difference"),
    (["data.source=other.csv"], "no column that is called as any of dy, dc"), (["world=wild.mod"], "world: wild: explosive"), (["world=narrow.mod", "data.source=my.csv", "data.columns.b=infl", "data.columns.c=tbilrate"], "type noise=0.1")])
def test_a_mistake_about_an_economy_as_text_gets_one_sentence(own, typed, says, capsys):
    (own/"other.csv").write_text("date,m1,m2\n" + "\n".join(f"{1990 + i//4}Q{i%4 + 1},{i%3},{i%5}" for i in range(20)))
    text = "var a b c; varexo e; parameters r; r = .5; model(linear); a = r*a(-1) + e; b = a; c = a; end; shocks; var e; stderr 1; end; varobs b;"
    (own/"narrow.mod").write_text(text); (own/"wild.mod").write_text(text.replace("r = .5", "r = 1.5"))
    assert main(["macro", "estimate", "world=smets_wouters", *typed]) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("synthlab: ") and said.count("\n") == 1, said
    assert not (own/"runs").exists()

def test_the_likelihood_of_levels_is_that_of_statsmodels():
    "Of draws of Smets and Wouters' prior: the filter with the file's constants taken off by hand, at the mode's numbers and elsewhere."
    config, world, series = desk.on_data(desk.estimate_config(["world=smets_wouters", "data.start=1990Q1", "data.end=1999Q4"]))
    likelihood, theta = Likelihood(series, config.noise, world=world, levels=True), torch.cat([world.parameters.tensor()[None], world.sample(2, 3)])
    told = likelihood.under(from_world(world), theta)
    at = lambda i, name: theta[i, world.parameters.names.index(name)].item()
    for i in range(3):
        gamma, beta = 1 + at(i, "gammabar")/100, 1/(1 + at(i, "betabar")/100)
        rate = 100*((1 + at(i, "pibar")/100)*gamma**at(i, "sigma_c")/beta - 1)
        less = series - [*[at(i, "gammabar")]*3, at(i, "pibar"), rate]
        assert abs(as_smoother(world.law(theta[i]), less, 0.).filter().llf - told[i].item()) < 1e-6*abs(told[i].item())
    with pytest.raises(ValueError, match="responses tell no means"): likelihood(world.impulse_responses(theta))

@pytest.mark.slow
def test_seven_series_would_tell_what_the_paper_says_that_they_tell():
    "At the published mode the widths of a normal posterior of 156 made quarters, with all seven series, are those of the published bands."
    config, world, series = desk.on_data(desk.estimate_config(["world=smets_wouters", "data.start=1966Q1", "data.end=2004Q4"]))
    prior = desk.make_prior(config, world)
    found = SimpleNamespace(world=world, config=config, prior=prior, series=series, mode=SimpleNamespace(theta=world.parameters.tensor()))
    more = missing_series(found, ["hours", "dw"])
    paper = pd.Series({n: (high - low)/3.29/prior.densities[n].sd for n, (_, low, high) in SMETS_WOUTERS.items() if n in prior.free})
    paper = paper[(paper > .2) & (paper < .9)]
    assert len(paper) > 18 and (np.log(more["7 series"][paper.index]/paper).abs() < .5).all()
    assert (more.loc[["mu_w", "rho_p", "rho_a"], "5 series"] > 2*more.loc[["mu_w", "rho_p", "rho_a"], "7 series"]).all()

# formulas

@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(3))
def test_a_prior_in_free_numbers_is_the_prior_of_the_parameter(shape, seed):
    "Of draws in free numbers, moments are those of the truncated law; its density adds up to one."
    rng = np.random.default_rng(seed)
    mean = rng.uniform(.15, .35)
    prior = Prior(NK, ("kappa",), densities={"kappa": Density(shape, mean, rng.uniform(.03, .1))})
    known = prior.densities["kappa"].frozen()
    low, high = prior.lower.item(), (prior.lower + prior.width).item()
    drawn = prior.values(prior.sample((40_000,), seed)).numpy()[:, 0]
    assert drawn.min() >= low and drawn.max() <= high
    wanted = known.expect(lambda x: x, lb=low, ub=high, conditional=True)
    assert abs(drawn.mean() - wanted) < 4*drawn.std()/200
    grid = torch.linspace(-25, 25, 20_001, dtype=torch.float64)
    assert abs(torch.trapezoid(prior.log_density(grid[:, None]).exp(), grid).item() - 1) < 1e-4

def test_a_deviation_under_type_one_is_the_root_of_an_inverse_gamma():
    "Dynare's inv_gamma by 200 000 draws whose squares are inverse gamma; its mean by the Gamma function."
    one = Density("inv_gamma", .2, .08)
    nu, scale = one.numbers()
    drawn = 1/np.sqrt(stats.gamma(nu/2, scale=2/scale**2).rvs(200_000, random_state=np.random.default_rng(0)))
    assert abs(drawn.mean() - .2) < 4*.08/447 and abs(drawn.std() - .08) < .002
    assert abs(scale/2**.5*math.gamma((nu - 1)/2)/math.gamma(nu/2) - .2) < 1e-12
    heights, edges = np.histogram(drawn, 30, (.1, .5), density=False)
    at = torch.tensor((edges[1:] + edges[:-1])/2)
    wanted = one.log_prob(at).exp().numpy()*np.diff(edges)*200_000
    assert (abs(heights - wanted) < 5*np.sqrt(wanted) + .02*wanted).all()

def test_priors_of_a_file_are_not_typed_again():
    "Smets and Wouters' table as their file has it: whole laws, not the middle that an emulator is taught; walls of a file are walls."
    world = get_world("smets_wouters")
    prior = desk.make_prior(desk.estimate_config(["world=smets_wouters"]), world)
    assert prior.densities == {n: world.economy.priors[n] for n in prior.free} and str(prior.densities["stderr_ea"]) == "inv_gamma(0.1, 2)"
    at = lambda name: prior.free.index(name)
    assert prior.lower[at("stderr_ea")] == 0 and prior.width[at("h")] == 1 and not any(map(any, map(prior.walled, prior.free)))
    assert (prior.lower + prior.width)[at("Phi")] > 1.25 + 4*.125 > world.parameters.upper[world.parameters.names.index("Phi")]
    cut = written_world(world.text.replace("r_pi, normal_pdf", "r_pi, 1.5, 1, 3, normal_pdf"), "cut")
    prior = desk.make_prior(desk.estimate_config(["world=cut"]), cut)
    assert (prior.lower[at("r_pi")], prior.walled("r_pi")) == (1, (True, True)) and prior.masses["r_pi"] < .98
    u = torch.linspace(-30, 30, 40_001, dtype=torch.float64)[:, None]*torch.eye(len(prior.free), dtype=torch.float64)[at("r_pi")]
    alone = (prior.log_density(u) - prior.log_density(u[20_000])).exp()
    known = prior.densities["r_pi"].frozen()
    mean = (prior.values(u)[:, at("r_pi")]*alone).sum()/alone.sum()
    assert abs(mean.item() - known.expect(lambda x: x, lb=1, ub=3, conditional=True)) < 1e-6
    with pytest.raises(ConfigError, match="take prior=usual"): desk.make_prior(desk.estimate_config(["prior=written"]), NK)

def test_filters_are_their_definitions():
    y = 100*np.log(us_table()["realgdp"])
    X = sm.add_constant(np.stack([y.shift(8 + k) for k in range(4)], 1)[11:])
    assert np.allclose(transformed(y, "hamilton").iloc[11:], sm.OLS(y.to_numpy()[11:], X).fit().resid, atol=1e-8)
    T = len(y)
    K = np.diff(np.eye(T), 2, axis=0)
    assert np.allclose(transformed(y, "hp"), y - np.linalg.solve(np.eye(T) + 1600*K.T @ K, y), atol=1e-7)
    holed = y.copy(); holed.iloc[[0, -1]] = np.nan                           # missing at the ends, not inside
    assert np.allclose(transformed(holed, "hp").iloc[1:-1], hpfilter(y.iloc[1:-1], 1600)[0]) and transformed(holed, "hp").isna().sum() == 2

def test_a_minnesota_prior_is_observations_that_nobody_made():
    "Bańbura, Giannone and Reichlin (2010): the prior as further rows of a regression by least squares."
    rng = np.random.default_rng(0)
    data, p, t = rng.normal(size=(80, 3)).cumsum(0), 2, .3
    found = fit_minnesota(data, p, t, 50.)
    X, Y = lagged(data, p)
    s = np.array([math.sqrt(sm.OLS(Y[:, i], lagged(data[:, [i]], p)[0]).fit().ssr/(len(Y) - p - 1)) for i in range(3)])
    rows = np.zeros((7, 7)); rows[0, 0] = 1/50
    for l in (1, 2): rows[1 + 3*(l - 1):1 + 3*l, 1 + 3*(l - 1):1 + 3*l] = np.diag(l*s/t)
    made = np.zeros((7, 3)); made[1:4] = np.diag(s/t)
    both, targets = np.concatenate([X, rows]), np.concatenate([Y, made])
    fitted = sm.OLS(targets, both).fit()
    assert np.allclose(found.slopes, fitted.params, atol=1e-8) and np.allclose(found.spread, np.linalg.inv(both.T @ both))
    left = targets - both @ fitted.params
    assert np.allclose(found.scale, np.diag(s**2) + left.T @ left) and found.degrees == 5 + len(Y)

def test_a_vintage_and_its_posterior_do_not_know_the_future():
    targets, solver, prior = make_targets(us_table(), SeriesData(), NK), from_world(NK), Prior(NK, ("sigma_r",))
    other = targets.series.copy(); other.loc["1980Q1":] *= 1.5
    known = lambda series, day: make_vintage(targets._replace(series=series.loc[:day]))
    for one, two in zip(known(targets.series, "1979Q4"), known(other, "1979Q4")): assert np.array_equal(np.asarray(one), np.asarray(two), equal_nan=True)
    few = dict(chains=2, draws=4, warmup=4, leaps=1, climb=2, keep=4)
    draws = [vintage_draws(solver, prior, [known(s, day).cycles for day in ("1979Q4", "1989Q4")], **few) for s in (targets.series, other)]
    assert torch.equal(draws[0][0], draws[1][0]) and not torch.equal(draws[0][1], draws[1][1])

def test_missing_quarters_in_front_change_nothing():
    data = simulate_data(NK, NK.parameters.tensor()[None], 40, seed=4)
    late = torch.cat([torch.full((1, 30, 3), torch.nan).double(), data], 1)
    told = [Likelihood(x).under(from_world(NK), NK.sample(3, 0)) for x in (data, late)]
    torch.testing.assert_close(*told)

def test_measurement_is_what_no_shock_made():
    "A law without shocks: everything is put down to measurement."
    law = NK.law(NK.parameters.tensor())
    data = simulate_data(NK, NK.parameters.tensor()[None], 20, seed=4)[0]
    quiet = StateSpace(law.transition, 1e-9*law.impact, law.observation)
    parts = decompose_history(quiet, data, .1)
    assert np.allclose(parts[-1], data, atol=1e-6) and np.allclose(parts.sum(0), data)

@pytest.mark.slow
def test_evidence_of_one_parameter_is_an_integral():
    data = simulate_data(NK, NK.parameters.tensor()[None], 60, seed=4)[0]
    prior, solver, likelihood = Prior(NK, ("sigma_r",), densities={"sigma_r": Density("inverse_gamma", .01, .003)}), from_world(NK), Likelihood(data)
    posterior = desk.sample_posterior(solver, likelihood, prior, 8, 200, 100, 4)
    table, _ = log_evidence(solver, likelihood, prior, posterior)
    grid = torch.linspace(-14, 14, 6001, dtype=torch.float64)[:, None]
    with torch.no_grad(): known = torch.trapezoid(log_posterior(solver, likelihood, prior)(grid).exp()*math.exp(300), grid[:, 0]).log().item() - 300
    assert (table["log evidence"] - known).abs().max() < .1
    mode = find_mode(solver, likelihood, prior, 3, 40)
    assert mode.words == [] and stats.norm.sf(abs(mode.theta[9] - posterior.theta[..., 9].mean())/posterior.theta[..., 9].std()) > .1

def test_an_observable_with_a_blank_is_set_with_an_underscore():
    rbc = get_world("rbc")
    typed = ["world=rbc", "data.columns.consumption_growth=realcons", "data.transform.consumption_growth=log,difference,annualise", "data.columns.return_on_capital=tbilrate"]
    data = desk.estimate_config(typed).data
    series = make_series(us_table(), data, rbc)
    assert list(series) == list(rbc.observables) and np.allclose(series["consumption growth"].iloc[1:], (400*np.log(us_table()["realcons"]).diff()).pipe(lambda x: x - x.mean()).iloc[1:])
    assert make_targets(us_table(), data, rbc).grows == (True, False, False)

def test_series_of_another_table_are_the_same_whatever_they_are_called(tmp_path):
    asked = SeriesData("x", columns={"rate": "tbilrate", "output": "realgdp", "inflation": "infl"}, transform={"output": "log,hp"})
    assert np.allclose(make_series(us_table(), asked, NK), make_series(us_table(), SeriesData(), NK), equal_nan=True)

# a table of one's own

TEN = us_table().loc["1984Q1":"1993Q4", ["realgdp", "infl", "tbilrate", "cpi"]]
CYCLE = ["data.transform.output=log,linear", "data.transform.rate=linear"]

def as_csv(written=str, rows=slice(None), cell=None, **options):
    "Ten years as a file says them: how a quarter is written, which rows there are, one cell of the rate in 1985Q1."
    table = TEN.astype({"tbilrate": object}).rename_axis("date")
    if cell is not None: table.loc["1985Q1", "tbilrate"] = cell
    return table.set_axis([written(q) for q in table.index]).rename_axis("date").iloc[rows].to_csv(**options)

def as_years(written): return as_csv(lambda q: written.format(1900 + (q - TEN.index[0]).n))

@pytest.mark.parametrize("text, typed, says", [
    (as_csv(cell="inf"), CYCLE, "my.csv, column tbilrate: 'inf' in 1985Q1 is no number"),
    (as_csv(cell="-inf"), ["data.transform.output=log,hp", "data.transform.rate=hp"], "my.csv, column tbilrate: '-inf' in 1985Q1 is no number"),
    (as_csv(cell="n/k"), CYCLE, "my.csv, column tbilrate: 'n/k' in 1985Q1 is no number"),
    (as_years("{}-12-31"), CYCLE, "my.csv has a row a year, and this model takes quarters; give a row a quarter"),
    (as_years("{}"), CYCLE, "my.csv has a row a year, and this model takes quarters"),
    (as_years("{}.0"), CYCLE, "my.csv has a row a year, and this model takes quarters"),
    (as_years("{}").replace("date", "Year"), CYCLE, "my.csv has a row a year, and this model takes quarters"),
    (as_csv(rows=slice(None, None, 2)), CYCLE, "my.csv has a row every 2 quarters, and this model takes quarters"),
    (as_csv(rows=slice(0, 0)), CYCLE, "my.csv has a header and no rows; give a row a quarter"),
    ("", CYCLE, "the file is empty; give a header and rows"),
    *((as_csv(), [f"data.transform.output={steps}"], "type data.transform.output=log,hp")
      for steps in ("hp", "hamilton", "difference", "demean", "linear", "quarterly,hp", "difference,annualise")),
    (as_csv(), ["data.transform.output=log,hp", "data.columns.inflation=cpi", "data.transform.inflation=difference"], "type data.transform.inflation=log,difference,annualise"),
    (as_csv(), ["world=rbc", "data.columns.consumption_growth=cpi", "data.columns.return_on_capital=tbilrate", "data.transform.output=log,hp",
                "data.transform.consumption_growth=difference"], "type data.transform.consumption_growth=log,difference,annualise"),
    (as_csv(), ["world=smets_wouters", "data.columns.dy=realgdp", "data.transform.dy=difference"], "type data.transform.dy=log,difference"),
    (as_csv("{0.year}Q5".format), CYCLE, "row 0: '1984Q5' is not a time; write quarters as 1984Q1\n"),
    (as_csv("{0.year}.{0.quarter}".format), CYCLE, "write quarters as 1984Q1\n"),
    (as_csv("{0.quarter}Q84".format), CYCLE, "write quarters as 1984Q1\n"),
    (as_csv("{0.year}:{0.quarter}".format).replace("1984:2", "1984Q2"), CYCLE, "write quarters as 1984Q1\n"),
    (as_csv(), [*CYCLE, "data.start=soon"], "'soon' is not a time; write quarters as 1984Q1\n"),
    (as_csv(), [*CYCLE, "data.start=2006Q1", "data.end=1984Q1"], "data.start=2006Q1 lies after data.end=1984Q1"),
])
def test_a_table_that_is_no_table_of_quarters_gets_one_sentence(own, text, typed, says, capsys):
    (own/"my.csv").write_text(text)
    with patch.object(desk, "sample_posterior", side_effect=AssertionError("taken for quarters")):
        assert main(["macro", "estimate", "data.source=my.csv", *typed]) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("synthlab: ") and said.count("\n") == 1 and "T09:30" not in said
    assert not (own/"runs").exists()

def decimal_year(quarter): return f"{quarter.year + (quarter.quarter - 1)/4}"

@pytest.mark.parametrize("text", [
    *(as_csv(form.format) for form in ("Q{0.quarter} {0.year}", "Q{0.quarter}-{0.year}", "q{0.quarter}/{0.year}", "{0.quarter}Q{0.year}", "{0.year}:{0.quarter}",
                                       "{0.year}:Q{0.quarter}", "{0.year}.Q{0.quarter}", "{0.year}q{0.quarter}", "{0.year} Q{0.quarter}", "{0.end_time:%Y-%m-%d}")),
    as_csv(decimal_year), as_csv(decimal_year).replace("date", "year"), as_csv(lambda q: f"{float(decimal_year(q)):.2f}"),
    as_csv(sep=";"), as_csv(sep="\t"), as_csv(decimal_year, sep=";").replace(".", ",")])
def test_quarters_are_read_as_people_write_them(own, text):
    (own/"my.csv").write_text(text)
    found = load_table(SeriesData("my.csv"))
    assert found.index.equals(TEN.index) and np.allclose(found.astype(float), TEN)

def test_single_quarters_may_be_missing(own):
    (own/"my.csv").write_text(as_csv(rows=[i for i in range(40) if i not in (3, 9, 10)]))
    found = load_table(SeriesData("my.csv"))
    assert found.index.equals(TEN.index) and found["cpi"].isna().sum() == 3

def test_a_logarithm_and_a_rate_are_no_levels_without_log(own):
    "A column that is in percent already says so; what falls is in percent as it stands."
    falls = np.linspace(9, 3, 40) + .3*np.sin(np.arange(40))
    table = TEN.assign(realgdp=100*np.log(TEN["realgdp"]), tbilrate=falls, infl=falls - 1)
    asked = SeriesData("x", transform={"output": "percent,hp", "rate": "hp", "inflation": "hp"})
    same = SeriesData("x", transform={"output": "log,hp", "rate": "hp", "inflation": "hp"})
    series = make_series(table, asked, NK)
    assert np.allclose(series, make_series(table.assign(realgdp=TEN["realgdp"]), same, NK))
    with pytest.raises(ConfigError, match="or percent,hp if it is 100 times a logarithm"):
        make_series(table, SeriesData("x", transform={"output": "hp", "rate": "hp", "inflation": "hp"}), NK)
