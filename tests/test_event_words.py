"The words of a training guide of autoencoders for events, one by one: each is understood, or answered with what to type."
import pytest

from synthlab.cli.main import main
from synthlab.cli.parsers import misplaced
from synthlab.datasets.events import EventLayout
from synthlab.experiments.experiment import evaluate, load_model
from synthlab.experiments.lab import get_lab
from synthlab.experiments.profiles import split_profile
from synthlab.experiments.runs import Run
from synthlab.experiments.sweeps import submit_run, submit_sweep
from synthlab.experiments.variants import variants
from synthlab.labs.events.conclusion import EVIDENCE
from synthlab.labs.events.experiment import layout_gap
from synthlab.models.registry import ConfigError, UnknownName, registry

LAB = get_lab("events")
SAME = {"phase1.trainer.epochs=50": "training.epochs=50", "phase1.trainer.lr=0.002": "training.lr=0.002", "phase1.trainer.seed=42": "training.seed=42",
        "general.trainer.epochs=3": "training.epochs=3", "trainer.epochs=3": "training.epochs=3", "data.batch_size=256": "training.batch_size=256",
        **{f"phase1/encoder={e}": f"encoder={e}" for e in ("mlp", "gnn")}, "phase1.encoder=mlp": "encoder=mlp", "phase1/decoder=gnn": "decoder=gnn",
        **{f"phase1/latent_space={z}": f"latent={z}" for z in ("none", "linear", "fsq")}, "phase1.latent_space=linear": "latent=linear",
        "phase1.latent_space.codebook_size=64": "latent.codes=64", "phase1.latent_space.latent_dim=4": "latent_dim=4", "phase1.latent_space.beta=.5": "latent.beta=.5",
        "phase1.decoder.globals_beta=10": "losses.globals=10", "data.limit_samples=5": "data.limit=5", "data.n_tokens=12": "data.tokens=12", "data.cont_features=[1,2]": "data.features=[1,2]",
        "general.device=cpu": "device=cpu", "hydra.job.name=x": "name=x"}

@pytest.mark.parametrize("theirs", SAME)
def test_a_word_is_ours(theirs): assert LAB.configure([theirs]) == LAB.configure([SAME[theirs]]) != LAB.configure([])

@pytest.mark.parametrize("typed", [["data.batch_size=256", "training.batch_size=128"], ["phase1/latent_space=linear", "latent=none"]])
def test_one_thing_has_one_value(typed):
    with pytest.raises(ConfigError, match="are the same setting"): LAB.configure(typed)
    assert LAB.configure([typed[0]]) == LAB.configure([typed[0], LAB.spell([typed[0]])[0]])

@pytest.mark.parametrize("loop, parts", {"ae": ("transformer", "transformer"), "gan_ae": ("transformer", "gan"), "diffusion_ae": ("transformer", "diffusion"), "test_mlp": ("mlp", "mlp")}.items())
def test_a_loop_brings_its_parts(loop, parts):
    config = LAB.configure([f"loop={loop}"])
    assert (config.encoder["name"], config.decoder["name"]) == parts

@pytest.mark.parametrize("typed, answer", {
    "phase1/encoder=gan": "use the loop gan_ae", "phase1/decoder=diffusion": "use the loop diffusion_ae", "phase1/latent_space=vqq": "did you mean vq?", "loop=my_loop": "no loop named",
    "phase1.trainer.epochs": "write name=value", "hydra=experiment": "which has a folder of its own: synthlab events sweep", "experiment=compare_vq_vs_none": "synthlab events sweep experiment=NAME",
    "phase1/experiment=compare_vq_vs_none": "synthlab events sweep experiment=NAME", "logging=plots_ful": "did you mean plots_full?", "phase1.trainer.num_epochs=3": "here it is training.epochs",
    "logging.families.recno.enabled=true": "did you mean recon?"}.items())
def test_what_is_refused_says_what_to_type(typed, answer):
    with pytest.raises(ConfigError) as said: LAB.configure([typed])
    assert answer in str(said.value)

@pytest.mark.parametrize("line, answer", {
    "events train --multirun phase1/latent_space=none,vq": "several values are a sweep: synthlab events sweep",
    "events train --config-name=phase1/experiment/compare_vq_vs_none": "synthlab events sweep experiment=compare_vq_vs_none",
    "events train --config-name phase1/experiment/compare_vq_vs_none": "synthlab events sweep experiment=NAME"}.items())
def test_lines_of_a_launcher(line, answer): assert answer in misplaced(line.split(), ["events"])

def names(*typed): return [v.name for v in variants("events", typed)]

@pytest.mark.parametrize("word", ["background", "signal"])
@pytest.mark.parametrize("value", ["other.h5", "[mine,./other.root]", "'more/other.HDF5'"])
def test_a_file_is_no_class(word, value, tmp_path):
    "Whether it is trained or tested again: what a file is given for stands in the answer, labels or none."
    file = value.strip("'[]").rpartition(",")[2]
    said = f"data.{word} names classes of events, and {file} is a file: data={file} learns from it, synthlab evaluate RUN --source {file} tests on it, and synthlab predict RUN --source {file} asks about it"
    for ask in LAB.configure, lambda typed: evaluate(begun.folder, overrides=typed):
        with Run.create(tmp_path, "events", "x") as begun: begun.write_result({})
        with pytest.raises(ConfigError) as e: ask([f"data.{word}={value}"])
        assert str(e.value).startswith(said)

def test_experiments_by_name():
    assert names("experiment=compare_vq_vs_none") == ["1_none", "2_vq"] == names("phase1/experiment=compare_vq_vs_none")
    assert names("experiment=compare_latent_spaces") == ["1_none", "2_linear", "3_vq", "4_fsq"] and len(names("experiment=compare_globals_heads")) == 9
    assert names("experiment=compare_vq_vs_none", "phase1/latent_space=fsq,vq") == ["1_fsq", "2_vq"]        # what is typed goes first
    assert names("hydra=experiment", "phase1/latent_space=none,vq", "phase1.trainer.epochs=10,20") == ["1_none_10", "2_none_20", "3_vq_10", "4_vq_20"]
    for name in LAB.sweeps:
        for v in variants("events", [f"experiment={name}"]): LAB.configure(v.overrides)
    with pytest.raises(ConfigError, match="did you mean compare_vq_vs_none"): names("experiment=compare_vq_vs_non")

@pytest.fixture
def profiles(tmp_path, monkeypatch):
    monkeypatch.delenv("SYNTHLAB_PROFILES", raising=False); monkeypatch.chdir(tmp_path)
    (tmp_path/"profiles.yaml").write_text("stoomboot: {device: cuda, runs: far/runs, data: {batch_size: 64, source: toy}}\n")
    return tmp_path

def test_a_profile_gives_way_to_what_is_typed(profiles):
    "Also where it calls the same thing by another word; what is kept are settings, in a sweep too."
    config = LAB.configure(["env=stoomboot", "phase1.trainer.epochs=20"])
    assert (config.device, config.runs, config.training.batch_size, config.training.epochs) == ("cuda", "far/runs", 64, 20)
    assert LAB.configure(["env=stoomboot", "training.batch_size=32"]).training.batch_size == 32
    found = variants("events", ["env=stoomboot", "latent=none,vq", "training.batch_size=32"])
    assert [v.name for v in found] == ["1_none", "2_vq"] and not any("env=" in o for v in found for o in v.overrides)
    assert {LAB.configure(v.overrides).training.batch_size for v in found} == {32}
    with pytest.raises(ConfigError, match="did you mean stoomboot"): split_profile(["env=stombot"])

TINY = ["data.n=20", "data.n_signal=10", "data.tokens=4", "evaluation.inverse=false"]

def test_one_run_for_a_batch_system(profiles, capsys):
    "A file with one job, a GPU where the profile has one, and nothing trained; on a machine without any."
    _, files = submit_run("events", ["env=stoomboot", "phase1/latent_space=vq", "phase1.trainer.epochs=50", *TINY], "job")
    condor = files["htcondor"].read_text().splitlines()
    assert f'arguments = "-m synthlab sweep --resume {profiles}/job --only $(name)"' in condor and "request_gpus = 1" in condor
    assert files["names"].read_text() == "1\n" and "#SBATCH --gres=gpu:1" in files["slurm"].read_text() and not (profiles/"job"/"1").exists()
    _, files = submit_sweep("events", ["data.source=toy", "latent=none,vq", *TINY], "jobs")
    assert "gpu" not in files["htcondor"].read_text() + files["slurm"].read_text() and files["names"].read_text() == "1_none\n2_vq\n"
    with pytest.raises(ConfigError, match="synthlab events sweep … --submit"): submit_run("events", ["latent=none,vq"])
    assert main(["events", "train", "data.source=toy", *TINY, "--submit", "--run-dir", "typed"]) == 0
    assert "typed/submit/htcondor.sub" in capsys.readouterr().out

def test_what_is_not_to_be_drawn():
    assert LAB.draws(LAB.configure([])) and not LAB.draws(LAB.configure(["logging.make_plots=false"]))
    assert LAB.keeps(LAB.configure([])) and not LAB.keeps(LAB.configure(["logging.save_artifacts=false"]))

def test_a_note_is_said_once(): assert "notes" not in EVIDENCE

def test_a_name_is_proposed_whole():
    "A loop is called my_loop, and not my_."
    registry.register("loop", "my_own_loop")(type("MyOwn", (), {}))
    try:
        with pytest.raises(UnknownName, match="did you mean my_own_loop"): registry.get_info("my_own_lop", "loop")
    finally: registry._store["loop"].pop("my_own_loop")

@pytest.mark.parametrize("typed, said", [("events train data.source=toyy", "there is no source of events 'toyy'; did you mean toy"),
    ("events train training.epochs=three", "training.epochs is three; give a whole number"), ("market blocks heda", "no kind 'heda'; did you mean head")])
def test_a_mistake_is_a_sentence(typed, said, capsys):
    "Whichever room notices it."
    assert main(typed.split()) == 2
    assert said in (text := capsys.readouterr().err) and len(text.splitlines()) == 1

def test_another_source_is_asked_in_its_own_words():
    "What was said of collisions alone is not held against a file; what differs in its events is named."
    config = LAB.elsewhere(LAB.configure(["data.tune=21", "data.n=50"]), "toy", None)
    assert (config.data.source, config.data.n, config.data.tune) == ("toy", 50, 14)
    taught = dict(level="objects", tokens=16, features=["pt", "eta", "phi"], kinds=["padding", "jet"])
    gap = layout_gap(EventLayout.from_dict(taught | dict(features=["e", "eta", "phi"])), EventLayout.from_dict(taught))
    assert gap == "the features of these events: e, eta, phi; the model was taught pt, eta, phi"

def test_a_sweep_is_not_a_run(tmp_path):
    for name in ("1_none", "2_vq"): (tmp_path/name).mkdir(); (tmp_path/name/"status.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds runs; ask one of them: 1_none, 2_vq"): load_model(tmp_path)
