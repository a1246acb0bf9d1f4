"""Checks of chains: the numbers of ArviZ 0.23.4 on chains that anybody can make, ArviZ itself where it is installed, and what a file of draws holds."""
import warnings

import numpy as np
import pytest

from synthlab.trainers.chain_checks import chain_words, check_chains, ess, mcse, stands_still, write_inference
from synthlab.trainers.hmc import r_hat

def autoregression(rho, C, N, seed=7):
    e = np.random.default_rng(seed).standard_normal((C, N))
    x = np.zeros((C, N))
    x[:, 0] = e[:, 0]
    for t in range(1, N): x[:, t] = rho*x[:, t - 1] + e[:, t]
    return x

def ours(x):
    found = {m: ess(x, m) for m in ("bulk", "tail", "mean", "sd", "median")} | dict(q1=ess(x, "quantile", .1), rhat=r_hat(x))
    return found | {f"mcse_{m}": mcse(x, m) for m in ("mean", "sd", "median")} | dict(mcse_q1=mcse(x, "quantile", .1))

ARVIZ = {           # of az.ess, az.rhat and az.mcse, q1: of the 10 % quantile; odd lengths lose their middle draw, ten draws have no tail
    (-0.6, 4, 200): dict(bulk=2322.471989593555, tail=675.1989435741126, mean=2322.471989593555, sd=339.38785224684807, median=2322.471989593555, q1=668.6993032064238, rhat=1.0089154133601972, mcse_mean=0.024060832022916027, mcse_sd=0.04130017425580848, mcse_median=0.033254584581336455, mcse_q1=0.07209136070801558),
    (0.5, 2, 51): dict(bulk=35.383137612908826, tail=40.51772650534609, mean=34.21777607552085, sd=62.42072801949978, median=55.20026141350018, q1=34.088510841339314, rhat=1.0152807090760376, mcse_mean=0.17843920446281447, mcse_sd=0.0885460750185808, mcse_median=0.20379239441171298, mcse_q1=0.30397901077916833),
    (0.95, 4, 200): dict(bulk=13.780222990602054, tail=100.11114665528854, mean=13.38307108326035, sd=72.05801268630468, median=18.314349771555207, q1=38.598616312620265, rhat=1.2168342659099964, mcse_mean=0.8760467270680348, mcse_sd=0.2264477116037853, mcse_median=1.097684685326932, mcse_q1=0.810188061027378),
    (0.0, 3, 9): dict(bulk=33.12506980107854, tail=33.12506980107854, mean=33.12506980107854, sd=33.12506980107854, median=33.12506980107854, q1=33.12506980107854, rhat=1.0165053450590484, mcse_mean=0.15174071848538254, mcse_sd=0.1032196714241397, mcse_median=0.15263778696068764, mcse_q1=0.6136109855177685),
    (0.95, 1, 120): dict(bulk=4.755495559041929, tail=21.52302781577747, mean=3.461708167122218, sd=7.935868539031845, median=6.46415376108667, q1=11.011971111721733, mcse_mean=1.5198830367361473, mcse_sd=0.6540007846112433, mcse_median=0.9325905743722527, mcse_q1=2.2693336377226014),
}

@pytest.mark.parametrize("case", ARVIZ)
def test_numbers_are_those_of_arviz(case):
    found = ours(autoregression(*case))
    for name, value in ARVIZ[case].items(): assert found[name] == pytest.approx(value, rel=1e-9), name

@pytest.mark.parametrize("rho, C, N", [(.3, 2, 40), (.9, 4, 333), (-.9, 3, 64)])
def test_numbers_are_those_of_the_arviz_that_is_here(rho, C, N):
    az = pytest.importorskip("arviz")
    if hasattr(az, "Numba"): az.Numba.disable_numba()                       # its compiled root fails with numpy 2.4
    x = autoregression(rho, C, N, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {m: az.ess(x, method=m) for m in ("bulk", "tail", "mean", "sd", "median")} | dict(rhat=az.rhat(x), q1=az.ess(x, method="quantile", prob=.1))
        theirs |= {f"mcse_{m}": az.mcse(x, method=m) for m in ("mean", "sd", "median")} | dict(mcse_q1=az.mcse(x, method="quantile", prob=.1))
    for name, value in ours(x).items(): assert value == pytest.approx(float(theirs[name]), rel=1e-9), name

def test_many_numbers_are_each_by_itself():
    x = np.stack([autoregression(.5, 3, 41, seed) for seed in range(6)]).reshape(2, 3, 3, 41)
    for name, values in ours(x).items():
        assert np.shape(values) == (2, 3), name
        assert np.asarray(values)[1, 2] == pytest.approx(ours(x[1, 2])[name], rel=1e-12)

@pytest.mark.parametrize("shape", [(1, 4), (4, 6), (2, 8)])
def test_few_draws_have_numbers(shape):
    for name, value in ours(autoregression(.2, *shape)).items(): assert np.isfinite(value), name

def test_chains_that_say_nothing_have_no_error():
    still, holed = np.ones((3, 40)), autoregression(.5, 3, 40)
    holed[1, 5] = np.nan
    for x in (still, holed):
        for name, value in ours(x).items():
            if name != "rhat": assert np.isnan(value), name

def test_one_chain_and_a_chain_that_stands_still_are_said():
    x = autoregression(.1, 4, 3000)[..., None]
    assert chain_words(x, ["a"]) == []
    assert "agrees with itself" in chain_words(x[:1], ["a"])[0]
    stuck = x.copy(); stuck[1, 1000:2600] = stuck[1, 1000]
    assert chain_words(stuck, ["a"])[0].startswith("1 chain of 4 stood still")
    assert stands_still(stuck[..., 0]).tolist() == [False, True, False, False]
    refused = np.repeat(x[:, ::2], 2, 1)                                    # every draw twice: half of the flights are refused
    assert not stands_still(refused[..., 0]).any()
    assert list(check_chains(x, ["a"]).columns[-3:]) == ["ess_bulk", "ess_tail", "r_hat"]

def test_a_file_of_draws_is_read_by_xarray_and_arviz(tmp_path):
    xarray, rng = pytest.importorskip("xarray"), np.random.default_rng(0)
    draws = rng.normal(size=(4, 50, 2)); draws[0, 0] = 0
    groups = {"posterior": {"theta": (("chain", "draw", "name"), draws)}, "observed_data": {"y": (("quarter",), np.arange(3.))}}
    write_inference(tmp_path/"draws.zarr", groups, {"name": ["a", "b"], "quarter": ["1990Q1", "1990Q2", "1990Q3"]}, {"made": "here"})
    read = xarray.open_zarr(tmp_path/"draws.zarr", group="posterior")
    assert (read.theta.values == draws).all() and read.name.values.tolist() == ["a", "b"] and read.attrs["made"] == "here"
    tree = xarray.open_datatree(tmp_path/"draws.zarr", engine="zarr")
    assert set(tree.children) == {"posterior", "observed_data"}
    if hasattr(az := pytest.importorskip("arviz"), "InferenceData"):
        az.Numba.disable_numba()
        summary = az.summary(az.InferenceData.from_datatree(tree), round_to="none")
        table = check_chains(draws, ["a", "b"])
        assert np.allclose(summary[["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]], table[["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "ess_tail", "r_hat"]])
