"One emulator for several economies: it runs, resumes to the same bits, is rebuilt from its checkpoint alone, and learns from every shock."
import json
from pathlib import Path

import nbformat, numpy as np, pandas as pd, pytest, torch
from papermill.exceptions import PapermillExecutionError

from in_process import execute
from synthlab.experiments import experiment as bench
from synthlab.experiments.lab import get_lab
from synthlab.datasets.response_batches import ResponseBatches, load_split
from synthlab.labs.macro import experiment as macro
from synthlab.labs.macro.certificate import within_goal
from synthlab.cli.main import main
from synthlab.experiments.parts import TorchPart
from synthlab.labs.macro.experiment import judge_emulators as judge_all, network_training, networks
from synthlab.labs.macro.judging import INSIDE, answers, by_model
from synthlab.labs.macro.own_series import us_table
from synthlab.labs.macro.published import SMETS_WOUTERS
from synthlab.labs.macro.settings import MACRO_KNOBS, macro_config, macro_store
from synthlab.datasets.worlds import get_world
from synthlab.experiments.reports import MIME, findings, linked_run
from synthlab.experiments.runs import Run
from synthlab.metrics.responses import nrmse, response_scale
from synthlab.models.specialists import LinearBaseline, OracleBaseline, PerWorldGRUBaseline, PerWorldMLPBaseline, PooledMLPBaseline
from synthlab.trainers.checkpoints import CheckpointError
from synthlab.trainers.trainer import Trainer

NBS = Path(__file__).parent.parent/"nbs"
TOY = ["data.worlds=[nk,rbc]", "data.n=60", "data.T=12", "data.horizon=12", "data.processes=1", "model=small", "training.epochs=3", "training.batch_size=24",
       "evaluation.epochs=2", "evaluation.alone=[nk]", "evaluation.leave_out=[nk]", "evaluation.leave_out_epochs=1", "evaluation.timing_draws=4", "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60", "tracking.mode=disabled"]
BARE = ["evaluation.baselines=[]", "evaluation.alone=[]", "evaluation.leave_out=[]", "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60"]

@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    "A finished toy run."
    return bench.run("macro", [*TOY, f"runs={tmp_path_factory.mktemp('runs')}"], quiet=True)

def bits(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*.safetensors"))}

def test_a_run_is_complete(toy):
    "Folder, facts, result: like any other run; every world, split, shock and variable has its own row."
    folder = toy["run"].folder
    assert Run(folder).status == "done" and Run(folder).read_status()["lab"] == "macro"
    assert {p.name for p in folder.iterdir()} >= {"config.yaml", "overrides.yaml", "status.json", "lock", "facts", "checkpoints", "result.json", "parts"}
    assert {p.name for p in (folder/"parts").iterdir()} == {"shipped", "pooled", "mlp", "alone_nk", "without_nk"}
    result = json.loads((folder/"result.json").read_text())
    rows = {(r["model"], r["world"], r["split"], r["shock"], r["variable"]) for r in result["errors"]}
    for shock in ("monetary", "demand", "cost_push", "all"): assert ("universal", "nk", INSIDE, shock, "all" if shock == "all" else "rate") in rows
    assert {r[0] for r in rows} == {"universal", "linear", "pooled", "mlp", "alone"}
    assert {"p50", "p99", "max", "mean"} <= set(result["errors"][0])
    assert set(result["trainings"]) == {"universal", "shipped", "pooled", "mlp", "alone_nk", "without_nk"} and [r["world"] for r in result["left_out"]] == ["nk"]
    assert "median error" in result["conclusion"] and "Without ever having seen nk" in result["conclusion"]
    assert "oracle" not in json.dumps(result)

def test_numbers_are_what_they_say(toy):
    "The table's median is that of errors computed by hand, in units of the training responses alone."
    store, model = toy["store"], toy["model"]
    scale = response_scale(load_split(store, "nk", "train")["irf"])
    assert torch.allclose(model.scale[0].double(), scale, rtol=1e-6)
    data = load_split(store, "nk", INSIDE)
    with torch.no_grad(): said = model(data["theta"].float(), "nk")
    by_hand = (((said - data["irf"])/scale[:, None]).square().mean(2).sqrt().mean((1, 2))).median()
    n = len(data["theta"])
    found = toy["table"].query("model == 'universal' and world == 'nk' and shock == 'all'").set_index("split").loc[INSIDE, "p50"]
    assert n % 2 == 0 or abs(found - by_hand.item()) < 1e-6
    assert abs(found - np.median(nrmse(said, data["irf"], scale).mean((1, 2)).numpy())) < 1e-6

def test_the_oracle_makes_no_error_and_others_do(toy):
    "What is measured is the difference from the truth: the world itself has none."
    store, worlds = toy["store"], ["nk", "rbc"]
    oracle = OracleBaseline(worlds, 12).learn_scales({w: load_split(store, w, "train") for w in worlds})
    found = judge_all({"universal": oracle, "mlp": toy["models"]["mlp"]}, toy["config"], store)
    assert by_model(found["table"], "max")["universal"].max() < 1e-5 < by_model(found["table"], "p50")["mlp"].min()

def test_a_rebuilt_emulator_says_the_same(toy):
    "From best.safetensors alone, error bars included, bit for bit; parts too."
    for model, judged in ((toy["models"]["shipped"], False), (toy["model"], True)):
        again = bench.load_model(toy["run"].folder, judged=judged)[0]
        for world in model.names:
            theta = model.worlds[world].sample(5, seed=3)
            with torch.no_grad():
                assert torch.equal(again.impulse_responses(theta, world), model.impulse_responses(theta, world))
                assert all(torch.equal(a, b) for a, b in zip(again.bands(theta, world), model.bands(theta, world)))
        assert all(again.calibrated(w) for w in again.names) and torch.equal(again.band_single.nan_to_num(), model.band_single.nan_to_num())
        assert again.domains == model.domains and again.certificates == model.certificates
    for part, kind in dict(mlp=PerWorldMLPBaseline, pooled=PooledMLPBaseline).items():
        one = bench.load_model(toy["run"].folder/"parts"/part)[0]
        assert isinstance(one, kind) and torch.equal(one(theta.float(), "rbc"), toy["models"][part](theta.float(), "rbc"))

def test_outside_the_prior_it_refuses(toy):
    with pytest.raises(ValueError, match="phi_pi = 9 lies outside the prior"): toy["model"].impulse_responses({"phi_pi": 9.}, "nk", guard="error")
    exact = toy["model"].worlds["nk"].impulse_responses({"phi_pi": 9.}, 12)
    assert torch.allclose(toy["model"].impulse_responses({"phi_pi": 9.}, "nk").detach(), exact.float(), atol=1e-5)     # the solver, unless one refuses
    with pytest.raises(ValueError, match="nor has the solver an answer"): toy["model"].impulse_responses({"phi_pi": .5}, "nk")
    assert toy["model"].impulse_responses({"phi_pi": 9.}, "nk", guard="nan").isnan().all()
    with pytest.raises(ValueError, match="knows no world 'zlb'"): toy["model"].impulse_responses(None, "zlb")

def test_evaluating_again_gives_the_same(toy, capsys):
    again = bench.evaluate(toy["run"].folder, overrides=["evaluation.timing_draws=2"])
    assert again["metrics"]["errors"] == toy["metrics"]["errors"] and again["metrics"]["left_out"] == toy["metrics"]["left_out"]
    assert main(["evaluate", str(toy["run"].folder)]) == 0 and "median NRMSE on new draws" in capsys.readouterr().out
    assert main(["evaluate", str(toy["run"].folder), "training.lr=1"]) == 2 and "cannot be changed" in capsys.readouterr().err
    assert main(["evaluate", str(toy["run"].folder), "--source", "sp500"]) == 2 and "no bars" in capsys.readouterr().err
    assert main(["runs", str(toy["run"].folder.parent)]) == 0
    said = capsys.readouterr().out
    assert f"NRMSE % {100*toy['metrics']['nrmse']:.2f}" in said and "nan" not in said

def test_a_damaged_checkpoint_is_an_error(toy, tmp_path, capsys):
    "No fallback, least of all to the truth."
    good = (toy["run"].folder/"checkpoints/best.safetensors").read_bytes()
    (tmp_path/"bad.safetensors").write_bytes(good[:-50] + bytes([good[-50] ^ 1]) + good[-49:])
    with pytest.raises(CheckpointError, match="does not match its digest"): bench.load_model(tmp_path/"bad.safetensors")[0]
    (tmp_path/"torn.safetensors").write_bytes(good[:1000])
    with pytest.raises(CheckpointError): bench.load_model(tmp_path/"torn.safetensors")[0]
    (tmp_path/"checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="has not trained yet"): bench.load_model(tmp_path)[0]
    path, kept = toy["run"].folder/"checkpoints/best.safetensors", good
    path.write_bytes(good[:-1])
    try: assert main(["evaluate", str(toy["run"].folder)]) == 2 and "not a whole checkpoint" in capsys.readouterr().err
    finally: path.write_bytes(kept)

@pytest.mark.parametrize("where", ["universal", "shipped", "mlp", "without_nk", "test"])
def test_interrupted_anywhere_it_ends_with_the_same_bits(where, toy, tmp_path, monkeypatch):
    "Cut in the emulator's training, in a part, before the test; finished parts are not trained again."
    config, folder = [*TOY, f"runs={toy['run'].folder.parent}"], tmp_path/"cut"
    fit, steps, trained = Trainer.train_step, [0], []
    def cut(self, batch):
        if self.about["kind"] in ("universal", where) and self.folder.name == ("cut" if where == "universal" else where):
            steps[0] += 1
            if steps[0] == 4: self.save("last"); raise KeyboardInterrupt("by the test")
        return fit(self, batch)
    with monkeypatch.context() as m:
        if where == "test": m.setattr(macro, "judge_emulators", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("by the test")))
        else: m.setattr(Trainer, "train_step", cut)
        with pytest.raises(KeyboardInterrupt, match="synthlab resume"): bench.run("macro", config, run_dir=folder, quiet=True)
    assert Run(folder).status == "interrupted" and not (folder/"result.json").exists()
    with monkeypatch.context() as m:
        m.setattr(Trainer, "train_step", lambda self, batch: (trained.append(self.folder.name), fit(self, batch))[1])
        again = bench.resume(folder, quiet=True)
    assert Run(folder).status == "done"
    if where == "test": assert not trained
    if where in ("shipped", "mlp", "without_nk"): assert "cut" not in trained and trained[0] == where
    mine, theirs = bits(folder), bits(toy["run"].folder)
    assert mine.keys() == theirs.keys() and all(mine[k] == theirs[k] for k in mine)
    assert (folder/"facts/scalars.csv").read_text() == (toy["run"].folder/"facts/scalars.csv").read_text()
    assert again["metrics"]["errors"] == toy["metrics"]["errors"]

def gradients(regime="A", worlds="[nk,rbc]", root=""):
    config = macro_config([f"data.worlds={worlds}", "data.n=40", "data.T=12", "data.horizon=12", "data.processes=1", "model=small", f"model.regime={regime}", f"runs={root}", "training.epochs=6",
                           "training.batch_size=32", "training.warmup_epochs=1", *BARE, "tracking.mode=disabled"])
    store = macro_store(config)
    return config, store, networks(config, 12)[0]

def test_every_shock_is_taught(tmp_path):
    "The loss has a gradient for what each shock reads, of each world; a batch holds all of them."
    config, store, part = gradients(root=tmp_path)
    training = network_training(part, config, store)
    trainer, train = TorchPart("universal", lambda: training).trainer(None, quiet=True), training.train
    model = trainer.model
    batch = train.batch(0, 0)
    assert batch["irf_mask"].sum(0).min() > 0
    trainer.objective.loss(batch, "model", None)[0].backward()
    assert model.shocks == ["monetary", "demand", "cost_push", "technology"]
    per_shock = model.read.grad.abs().sum((1, 2))
    assert (per_shock > 0).all()
    for k in range(3):      # and the error of one shock reaches that shock's own weights alone
        model.zero_grad(); mean, _ = model.predict(batch); mean[:, k].square().sum().backward()
        reached = model.read.grad.abs().sum((1, 2)) > 0
        assert reached.tolist() == [k == 0, k == 1, k == 2, k == 0]     # technology is the first shock of rbc

@pytest.mark.parametrize("regime", ["B1", "C"])
def test_regimes_that_read_a_history_learn(regime, tmp_path):
    "The loss falls, and the history matters."
    result = bench.run("macro", gradients(regime, root=tmp_path)[0], quiet=True)
    rows, model = result["history"]["val_nrmse"], result["model"]
    assert rows.iloc[-1] < .9*rows.iloc[0]
    data = load_split(result["store"], "nk", "train", history=True)
    with torch.no_grad():
        said = model.impulse_responses(data["theta"], "nk", history=data["history"])
        assert not torch.allclose(said, model.impulse_responses(data["theta"], "nk", history=data["history"].flip(0)))
        same = torch.equal(said, model.impulse_responses(data["theta"].flip(0), "nk", history=data["history"]))
    assert same == (regime == "B1")         # B1 is not told the parameters
    with pytest.raises(ValueError, match="reads a history"): model.impulse_responses(None, "nk")
    again = bench.load_model(result["run"].folder, judged=True)[0]
    with torch.no_grad(): assert torch.equal(again.impulse_responses(data["theta"], "nk", history=data["history"]), said)

def test_a_world_that_is_left_out_teaches_nothing(toy):
    "What only it has stays as it was; batches hold none of it, and it can be asked all the same."
    without, store = toy["models"]["without_nk"], toy["store"]
    assert without.held_out == ("nk",) and set(without.names) == {"nk", "rbc"}
    batches = ResponseBatches(store, "train", 512, worlds=["rbc"], reader=without)
    batch = batches.batch(0, 0)
    assert set(batch["world"].tolist()) == {1} and batch["irf"].shape[1] == 3 and batch["irf_mask"].sum(1).max() == 1
    said, _ = answers(without, "nk", load_split(store, "nk", INSIDE))
    assert said.isfinite().all() and "unseen" in toy["left_out"] and toy["left_out"].loc["nk", "unseen"] > 0

def test_units_do_not_come_from_the_test(toy):
    "Changing test draws changes no weight and no scale: there is nothing of them in the emulator."
    store, model = toy["store"], toy["model"]
    for i, world in enumerate(model.names):
        train = response_scale(load_split(store, world, "train")["irf"])
        everything = response_scale(torch.from_numpy(store.read(world, "irfs")))
        assert torch.allclose(model.scale[i, :len(train)].double(), train, rtol=1e-6) and not torch.allclose(train, everything, rtol=1e-4)

@pytest.mark.parametrize("typed, why", [
    (["macro", "train", "data.world=[nk]"], "did you mean data.worlds?"),
    (["macro", "train", "data.worlds=[nkk]"], "did you mean nk?"),
    (["macro", "train", "model=smal"], "did you mean small?"),
    (["macro", "train", "model.dmodel=3"], "did you mean d_model?"),
    (["macro", "train", "model.d_model=wide"], "model"),
    (["macro", "train", "model.regime=B2"], "use A, B1 or C"),
    (["macro", "train", "evaluation.leave_out=[zbl]"], "did you mean zlb?"),
    (["macro", "train", "training.use_wandb=true"], "tracking.mode"),
    (["macro", "train", "training.loss_fn=huber"], "rmse"),
    (["macro", "train", "data.n=0"], "whole number"),
    (["macro", "train", "data.root=nowhere"], "nowhere"),
    (["macro", "worlds", "--worlds", "nk,rbd"], "did you mean rbc?"),
    (["macro", "generate", "--n", "0", "--root", "d"], "whole number"),
    (["evaluate", "nowhere"], "nowhere"),
], ids=lambda v: v[-1] if isinstance(v, list) else "")
def test_a_mistake_gets_one_sentence_and_leaves_no_run(typed, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(typed) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") <= 2 and "Traceback" not in said
    assert not list(tmp_path.glob("runs/*"))

def test_worlds_on_the_command_line(tmp_path, capsys):
    "Listed, simulated, and used as a store that is there."
    assert main(["macro", "worlds"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()][:6] == ["lss", "var", "nk", "rbc", "switching", "zlb"]
    assert "tells output (percent), consumption growth (percent a year), return on capital (percent a year)" in said
    made = ["macro", "generate", "--root", str(tmp_path/"store"), "--n", "40", "--worlds", "rbc", "--T", "8", "--horizon", "8", "--processes", "1"]
    assert main(made) == 0 and "rbc" in capsys.readouterr().out
    assert main([*made[:4], "--n", "30", *made[6:]]) == 2 and "overwrite" in capsys.readouterr().err
    result = bench.run("macro", [f"data.root={tmp_path/'store'}", "data.worlds=[rbc]", "model=small", "training.epochs=1", *BARE, "evaluation.timing_draws=2", "tracking.mode=disabled", f"runs={tmp_path}"], quiet=True)
    assert result["store"].root == (tmp_path/"store").resolve() and result["model"].horizon == 8

def test_a_run_of_the_other_lab_is_named(tmp_path, toy, capsys):
    run = Run.create(tmp_path, "market", "x", "name: x\n"); run.close("interrupted")
    with pytest.raises(Exception, match="is a run of the market lab"): bench.resume(run.folder, "macro")
    assert main(["macro", "train", *TOY, "training.seed=8", f"runs={tmp_path}", "--run-dir", str(toy["run"].folder)]) == 2
    assert "other settings" in capsys.readouterr().err

def test_report(tmp_path):
    "The report at toy size; its run is complete and linked."
    out = execute(NBS/"emulate.ipynb", tmp_path, worlds=["nk", "rbc"], n=60, model="small", epochs=2, overrides=TOY[2:5] + TOY[7:])
    folder = linked_run(out, tmp_path)
    assert folder.parent == (tmp_path/"runs").resolve() and Run(folder).status == "done"
    assert {p.stem for p in (folder/"figures").iterdir()} == {"training", "median", "bad", "quantiles", "horizons", "splits", "coverage", "left_out"}     # 60 draws certify nothing by slices
    assert "Without ever having seen nk" in str(out)
    assert not [o for c in out.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]

def test_what_is_given_away_keeps_its_certificate():
    "The committed report: bars of 90 % by region and tenth, tenths of 2 000 draws but for what the solver answers, and as many draws again."
    outputs = [o["data"] for c in nbformat.read(NBS/"emulate.ipynb", 4).cells for o in c.get("outputs", []) if "data" in o]
    finding = next(d[MIME]["finding"] for d in outputs if MIME in d)
    slices = pd.DataFrame(finding["slices"])
    share, least, kept = within_goal(slices)
    assert kept and share >= .95 and least >= .8 and slices[slices.end != ""].draws.min() >= 1900
    assert max(c["exceeded"] for c in finding["certificate"]) <= 7

def test_the_report_on_estimation(toy, tmp_path):
    "The other report at toy size, through the emulator of a finished run."
    small = dict(draws=6, warmup=6, chains=2, steps=20, first_forecast="", overrides=["sampling.starts=1", "bands=10"])
    out = execute(NBS/"estimate.ipynb", tmp_path, run_dir=str(toy["run"].folder), simulations=4, quarters=40, recovered=3, **small)
    assert "Simulation-based calibration with 4 data sets" in str(out) and "nk on 203 quarters" in str(out)
    assert (told := findings(out)) and all(then == now for then, now in told)
    assert not [o for c in out.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]

def test_the_report_on_smets_and_wouters(tmp_path):
    "At toy size, seven parameters; typed again it goes on from the draws that were kept."
    world, free = get_world("smets_wouters").parameters, {"lbar", "alpha", "rho_a", "stderr_ea", "r_pi", "iota_w", "psi"}
    fixed = [f"fixed.{n}={v}" for n, v in zip(world.names, world.default) if n in SMETS_WOUTERS and n not in free]
    small = dict(draws=4, pilot=4, warmup=4, chains=2, leaps=1, starts=1, steps=2, start="1994Q1", end="2000Q4", overrides=["bands=10", *fixed])
    out = execute(NBS/"smets_wouters.ipynb", tmp_path, **small)
    assert "28 quarters" in str(out) and "of lbar they can tell nothing at all" in str(out) and "Minutes of one core" in str(out)
    assert (told := findings(out)) and all(then == now for then, now in told)
    assert not [o for c in out.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]
    kept, = (tmp_path/"runs").glob("estimate_smets_wouters_*/draws.zarr")
    assert findings(execute(NBS/"smets_wouters.ipynb", tmp_path, **small)) == told

@pytest.mark.slow
def test_the_report_on_a_table_of_ones_own(tmp_path):
    "No run, so no emulator; columns by their names, forecasts out of sample."
    us_table()[["realgdp", "infl", "tbilrate"]].rename_axis("date").to_csv(tmp_path/"my.csv")
    small = dict(draws=6, warmup=6, chains=2, steps=10, first_forecast="2003Q1", refit=40, overrides=["data.transform.output=[log,hp]", "sampling.starts=1", "bands=10"])
    out = execute(NBS/"estimate.ipynb", tmp_path, source="my.csv", **small)
    assert "forecasts of the economy from 2003Q1" in str(out) and "There is no run of the macro lab" in str(out)
    assert (told := findings(out)) and all(then == now for then, now in told)
    assert not [o for c in out.cells for o in c.get("outputs", []) if o.get("name") == "stderr"]

def test_knobs_say_what_the_configuration_says():
    "The report's everyday settings default to the configuration's own defaults."
    cell = next(c for c in nbformat.read(NBS/"emulate.ipynb", 4).cells if "parameters" in c.metadata.get("tags", []))
    found = {}; exec(cell.source, found)
    declared = {k: v for k, v in found.items() if not k.startswith("__")}
    assert set(declared) == set(MACRO_KNOBS) | {"threads", "run_dir", "overrides"}
    assert macro_config(get_lab("macro").everyday(**{k: v for k, v in declared.items() if k in MACRO_KNOBS})) == macro_config()

def test_a_misspelt_parameter_of_the_report_is_refused_at_once(tmp_path):
    with pytest.raises(PapermillExecutionError, match="did you mean worlds\\?"):
        execute(NBS/"emulate.ipynb", tmp_path, worls=["nk"])
    assert not (tmp_path/"runs").exists()

@pytest.mark.parametrize("kind", [PerWorldMLPBaseline, PerWorldGRUBaseline, PooledMLPBaseline, LinearBaseline])
def test_a_mixed_batch_has_the_answers_of_its_worlds(kind):
    "Worlds of 7, 12 and 36 parameters in one padded batch, each row as if it were asked alone."
    torch.manual_seed(0)
    model, mixed = kind(["rbc", "lss", "nk"], horizon=6).eval(), ["nk", "rbc", "lss", "nk"]
    if kind is LinearBaseline:
        for p in model.planes.values(): p.data.normal_()
    theta = torch.rand(4, 36)
    with torch.no_grad():
        together = model(theta, mixed)
        for i, world in enumerate(mixed):
            w = model.worlds[world]
            alone = model(theta[i:i+1, :len(w.parameters)], world)
            assert torch.allclose(together[i, :len(w.shocks)], alone[0], atol=1e-5) and (together[i, len(w.shocks):] == 0).all()

@pytest.mark.slow
def test_the_emulator_beats_a_line(tmp_path):
    "A few hundred draws and some dozen epochs are enough on the New Keynesian world."
    result = bench.run("macro", ["data.worlds=[nk,rbc]", "data.n=600", "data.T=8", "data.processes=1", "training.epochs=20", "training.batch_size=64", "evaluation.baselines=[linear]",
                            "evaluation.alone=[]", "evaluation.leave_out=[]", "training.final_epochs=1", "evaluation.calibration_draws=40", "evaluation.certificate_draws=60", "evaluation.timing_draws=8", "tracking.mode=disabled", f"runs={tmp_path}"], quiet=True)
    seen = by_model(result["table"], "p50")
    assert (seen["universal"] < .5*seen["linear"]).all()
    assert result["promised"].met.iloc[0]
