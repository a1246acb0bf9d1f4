"A program's view: every preset trains, nothing raises, and what is ranked are held-out scores on the same windows."
import functools, json

import numpy as np, pandas as pd, pytest, torch

from synthlab.labs.market.experiment import make_objective
from synthlab.experiments.runs import Run
from synthlab.experiments.comparison import compare_runs, holm
from synthlab.labs.market.session import ResearchSession, create_experiment, list_presets, quick_experiment, validate
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market
from synthlab.trainers.checkpoints import load_checkpoint

SMALL = ["training.n_paths=8", "training.batch_size=512", "evaluation.n_paths=50", "evaluation.stride=24", "evaluation.n_boot=100", "evaluation.baselines=[constant,ewma]"]
BOTH_LISTS = """baseline_gbm sde_transformer horizon_transformer mixture_density vol_term_structure revin_transformer dlinear_simple timesnet_sde
transformer_lstm pure_transformer conv_gru fourier_lstm timesnet timemixer transformer_sde_head deep_hybrid unet_transformer hybrid_with_layernorm
hybrid_manual_layernorm patchtst neural_bridge neural_sde spectral student_t_horizon parallel_fusion default linear""".split()

@functools.cache
def market(lookback): return load_market(market_config(["data=mock", f"training.lookback={lookback}", "training.batch_size=8"]))

def test_the_presets_are_all_there():
    presets = list_presets()
    assert set(presets) >= set(BOTH_LISTS) and all(len(says) > 20 for says in presets.values())

@pytest.mark.parametrize("name", sorted(list_presets()))
def test_every_preset_trains_and_simulates(name):
    "One step on bars moves weights by finite gradients, and the paths are as long as the horizon, also at 288."
    config = market_config(["data=mock", f"model={name}", "training.batch_size=8", "training.n_paths=8"])
    m = market(config.training.lookback)
    objective = make_objective(config, m)
    model, batch = objective.model.train(), m.fold.train.batch(0, 0)
    optimizer = torch.optim.AdamW(model.parameters(), config.training.lr)
    loss, _ = objective.loss(batch, "model", torch.Generator().manual_seed(0))
    loss.backward(); before = [p.detach().clone() for p in model.parameters()]
    assert loss.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    optimizer.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters()))
    with torch.inference_mode():
        paths = model.eval()(batch["history"], batch["initial_price"], 12, 4, scale=batch["scale"], generator=torch.Generator().manual_seed(0))[0]
    assert paths.shape == (8, 4, 12) and paths.isfinite().all() and (paths > 0).all()
    assert sum(p.numel() for p in model.parameters()) < 250_000
    model, errors, warned = validate(market_config(["data=mock", f"model={name}", "training.horizon=288"]))
    assert (errors, warned) == ([], []) and model is not None

def test_a_preset_is_not_nested():
    "A group file lies in its place: no model.model, no data.data, and the width of the input comes from the data."
    config = market_config(["model=transformer_lstm", "data=mock"])
    assert set(config.model) == {"backbone", "head"} and config.data.source == "mock"
    assert validate(config)[1] == []

@pytest.fixture
def session(tmp_path): return ResearchSession("mock", tmp_path/"session", SMALL)

def test_plain_things_in_and_out(session):
    "A program that knows JSON knows the session."
    for found in (session.list_blocks(), session.list_heads(), session.list_presets(), session.create_experiment(["lstmblock"]),
                  session.describe(session.create_experiment(["lstmblock"])), session.validate("linear")): json.dumps(found)
    assert {"lstmblock", "transformerblock"} <= {b["name"] for b in session.list_blocks()} and {"gbm", "student_t"} <= {h["name"] for h in session.list_heads()}

def test_the_score_is_held_out(session):
    "What is ranked is the test of a run on bars: after everything that was learnt, beside baselines, and filed."
    result = session.run(session.create_experiment(["gatedblock"], "student_t", d_model=16, lookback=1))
    assert result["status"] == "ok", result
    run = Run(result["run_dir"])
    learnt_until = load_checkpoint(run.checkpoints/"best.safetensors")[1]["about"]["learnt_until"]
    assert run.result["crps"] == result["crps"] == pytest.approx(np.mean(run.result["scores"]["model"]))
    assert pd.Timestamp(result["test_from"]) > pd.Timestamp(learnt_until)
    assert set(result["baselines"]) == {"constant", "ewma"} and result["skill_interval"][0] <= result["skill"] <= result["skill_interval"][1]

def test_training_reads_the_bars(tmp_path):
    "Other bars, other weights: a training that never looks at the market would not notice."
    weights = []
    for seed in 0, 1:
        close = 100*np.exp(np.random.default_rng(seed).normal(0, .002, 700).cumsum())
        pd.DataFrame(dict(time=pd.date_range("2020", periods=700, freq="1h", tz="UTC"), open=close, high=close*1.001, low=close*.999, close=close)).to_parquet(tmp_path/f"{seed}.parquet")
        result = quick_experiment(["gatedblock"], data=tmp_path/f"{seed}.parquet", folder=tmp_path/f"s{seed}", overrides=[*SMALL, "evaluation.stride=6"], lookback=1, d_model=16, horizon=4)
        assert result["status"] == "ok", result
        weights.append(load_checkpoint(Run(result["run_dir"]).checkpoints/"last.safetensors")[0])
    assert any(not torch.equal(weights[0][k], weights[1][k]) for k in weights[0] if k.startswith("model/"))

@pytest.mark.parametrize("exp, why", [
    (create_experiment(["lstmblok"]), "lstm"), (create_experiment(["lstmblock"], "gbmm"), "gbm"), (create_experiment(["lstmblock"], head_kwargs={"nu": 3}), "nu"),
    (create_experiment(["transformerblock"], d_model=30), "multiple"), (create_experiment([]), "empty"), ({"modle": {}}, "modle"),
    (create_experiment(["lstmblock"], horizon=0), "horizon"), (create_experiment(["lstmblock"], lr="fast"), "lr"), ("transfomer_lstm", "transformer_lstm"),
    (create_experiment(["lstmblock"], lookback=100_000), "")], ids=str)
def test_run_never_raises(session, exp, why):
    "A recipe that cannot work is a result with a sentence and a traceback, and the next one runs."
    result = session.run(exp)
    assert result["status"] == "error" and why in result["error"] and "Traceback" in result["traceback"]
    assert "crps" not in result and "1 failed" in session.summary() and len(session.compare()) == 1

def test_data_that_is_not_there(tmp_path):
    result = ResearchSession(tmp_path/"nowhere.parquet", tmp_path/"s", SMALL).run_preset("linear")
    assert result["status"] == "error" and "nowhere.parquet" in result["error"]

@pytest.mark.parametrize("options, why", [
    (dict(lr=.05), "lr=0.05 is large"), (dict(n_paths=4), "n_paths=4 is few"), (dict(d_model=512, block_kwargs={"transformerblock": {"nhead": 8}}), "parameters are many")])
def test_warnings(tmp_path, options, why):
    session = ResearchSession("mock", tmp_path)
    said = session.validate(session.create_experiment(["transformerblock"], **options))
    assert said["valid"] and any(why in w for w in said["warnings"]), said

def test_a_horizon_beyond_the_head_is_an_error(session):
    "Not a shorter path: a sentence that names the option."
    exp = session.create_experiment(["lstmblock"], "horizon", horizon=24, head_kwargs={"horizon_max": 12})
    said = session.validate(exp)
    assert not said["valid"] and "horizon_max" in said["errors"][0]
    assert session.create_experiment(["lstmblock"], "horizon", horizon=96)["model"]["head"]["horizon_max"] == 96

def test_presets_that_look_back_differently_share_their_windows(session):
    "The rank of two presets is a paired difference on the same windows, not two noises."
    table = session.sweep(["linear", "dlinear_simple"])
    assert table.status.tolist() == ["ok", "ok"], table.error.tolist()
    assert table.test.nunique() == 1 and table.behind_low[2] <= table.behind[2] <= table.behind_high[2]
    assert table.crps.is_monotonic_increasing and set(table.verdict) <= {"", "worse", "not told apart", "too few windows"}
    at = [Run(d).result["scores"]["decided_at"] for d in table.run_dir]
    assert at[0] == at[1]
    runs = list(table.run_dir); session.clear()
    assert session.summary() == "Nothing has been run yet." and Run(runs[0]).status == "done"
    again = session.run_preset("linear")
    assert again["run_dir"] not in runs and again["crps"] in set(table.crps)      # seeds are seeds

def test_holm_by_hand():
    np.testing.assert_allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02])

def test_a_ranking_of_equals_is_not_a_ranking(tmp_path):
    "Twenty models that differ by noise: after Holm's correction hardly ever is one declared better."
    from synthlab.experiments.config import to_yaml
    config, g = to_yaml(market_config(["data=mock"])), np.random.default_rng(0)
    times, hard, runs = pd.date_range("2020", periods=300, freq="1h", tz="UTC").astype(str).tolist(), np.exp(g.normal(size=300)), {}
    for i in range(20):
        scores = 10*hard + g.normal(size=300)
        with Run.create(tmp_path, "market", str(i), config, folder=tmp_path/str(i)) as run: run.write_result(dict(crps=scores.mean(), scores=dict(decided_at=times, asset=["0"]*300, model=scores.tolist())))
        runs[str(i)] = run.folder
    assert (compare_runs(runs).verdict.iloc[1:] == "not told apart").all()
