"Publishing: only what was trained and tested, whole or not at all, and read back without running anybody's code."
import json, re, sys
from pathlib import Path

import pytest, torch

from synthlab.experiments import experiment as bench
from synthlab.cli.main import main
from synthlab.datasets.features import restore_engineer
from synthlab.experiments import publish
from synthlab.experiments.publish import FILES, HubManager, load_published
from synthlab.models.registry import ConfigError
from synthlab.trainers.checkpoints import CheckpointError, load_checkpoint, save_checkpoint

SMALL = ["training.epochs=1", "training.n_paths=8", "training.batch_size=512", "evaluation.n_paths=50", "evaluation.stride=24", "evaluation.n_boot=100",
         "evaluation.baselines=[constant,ewma]", "tracking.mode=disabled"]

@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return bench.run("market", ["model=linear", *SMALL, f"runs={tmp_path_factory.mktemp('runs')}"])

@pytest.fixture
def manager(result, tmp_path): return HubManager(result, tmp_path/"outputs")

def paths(model, engineer, about, bars):
    history = torch.from_numpy(engineer.transform(bars)[-about["training"]["lookback"]:])[None]
    price, scale = torch.tensor([bars.close.iloc[-1]]).float(), torch.tensor([engineer.scale(bars)[-1]]).float()
    with torch.inference_mode():
        return model(history, price, about["training"]["horizon"], 64, scale=scale, generator=torch.Generator().manual_seed(1))[0]

def test_round_trip(result, manager):
    "Loaded on the other side, the same noise gives the same bits."
    model, about = load_published(manager.save())
    engineer = restore_engineer(about["engineer"])
    bars = result["market"].loader.bars["sp500"]
    assert torch.equal(paths(model, engineer, about, bars), paths(result["model"].eval(), result["market"].fold.engineer, about, bars))
    assert not model.training and about["recipe"] == result["config"].model

def test_the_card_says_what_was_found(result, manager):
    "Score, every baseline with its interval, the dates, how to load, and the limits."
    card = (manager.save()/"README.md").read_text()
    for name, b in result["metrics"]["baselines"].items(): assert f"| {name} | {b['crps']:.2f} | {100*b['skill']:+.1f} %" in card
    for word in (f"**{result['metrics']['crps']:.2f}**", "2014-12-31", "2015-", "load_published", "sn50", "## Limits", "95 %", result["metrics"]["conclusion"]): assert word in card
    arch = json.loads((manager.output_root/manager.path/"architecture.json").read_text())
    assert arch["parameters"] == result["metrics"]["parameters"] and sum(arch["layers"].values()) == arch["parameters"] and len(arch["features"]) == arch["input_size"]

def test_nobodys_folders_are_published(tmp_path):
    "The path of a data file on somebody's disk stays there."
    from arch.data import sp500
    sp500.load().to_csv(tmp_path/"secret_place.csv")
    dates = ["data.split.val_start='2013-01-01'", "data.split.test_start='2015-01-01'"]
    r = bench.run("market", [f"data={tmp_path}/secret_place.csv", *dates, "model=linear", *SMALL, f"runs={tmp_path}/runs"])
    folder = HubManager(r, tmp_path/"outputs").save()
    assert "source: secret_place.csv" in (folder/"config.yaml").read_text()
    for file in folder.iterdir(): assert str(tmp_path/"secret").encode() not in file.read_bytes(), file.name

@pytest.mark.parametrize("change, why", [
    (dict(scores={}), "not been scored"), (dict(crps=None), "not been scored"), (dict(baselines={}), "without baselines"), (dict(crps=1.), "not the mean"),
    (dict(test_from="2014-06-02 00:00:00+00:00"), "has learnt from bars up to")])
def test_what_was_not_tested_is_not_published(result, change, why, tmp_path):
    "A model is never published beside a number that is not its held-out score."
    run, good = result["run"], result["run"].result
    try:
        run.write_result(good | change)
        with pytest.raises(ConfigError, match=why): HubManager(run, tmp_path)
    finally: run.write_result(good)
    assert not list(tmp_path.iterdir())

@pytest.mark.parametrize("change", [dict(crps="low"), dict(scores=5), dict(scores={"model": "low"}), dict(scores={"model": [1., None]}), dict(baselines=[1]),
                                    dict(baselines={"constant": {}})], ids=str)
def test_a_result_of_another_kind_is_not_published(result, change, tmp_path):
    "Whoever wrote it: file and field in one sentence, and nothing is written."
    run, good = result["run"], result["run"].result
    try:
        run.write_result(good | change)
        with pytest.raises(ConfigError, match="result.json: ") as told: HubManager(run, tmp_path).save()
        assert type(told.value) is ConfigError and "\n" not in str(told.value)
    finally: run.write_result(good)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]

@pytest.mark.parametrize("status, why", [("interrupted", "it was not trained to the end, it was interrupted; finish it with: synthlab resume "),
    ("failed", "it has failed (ValueError: no test window is left); finish it with: synthlab resume "), ("running", "it is still running; wait for its end")])
def test_what_was_not_finished_is_not_published(result, status, why, tmp_path, capsys):
    "For the reason that there is: a run may fail after its training, and one that runs is not to be resumed."
    run = result["run"]
    try:
        if status == "running": run.lock.acquire()
        run.set_status(status, error="ValueError: no test window is left" if status == "failed" else None)
        assert main(["publish", str(run.folder), "--output", str(tmp_path/"o")]) == 2
    finally:
        run.lock.release()
        run.set_status("done", error=None)
    assert f"{run.folder} cannot be published: {why}" in capsys.readouterr().err and not (tmp_path/"o").exists()

def test_what_is_no_run_is_called_what_it_is(result, tmp_path):
    (tmp_path/"empty").mkdir()
    for folder, why in ((tmp_path/"nowhere", "it is not a run: there is no such folder"), (tmp_path/"empty", "it is not a run, it has no status.json"),
                        (result["run"].folder.parent, f"it holds runs and is none; publish one of them, such as {result['run'].folder}"),
                        (result["run"].folder.parent.parent, "it holds runs and is none")):
        with pytest.raises(ConfigError, match=re.escape(f"{folder} cannot be published: {why}")): HubManager(folder, tmp_path)

def test_an_upload_that_fails_says_why(result, tmp_path, monkeypatch, capsys):
    "No traceback of somebody's library: what is written, what is not, and the reason; a name that cannot be is refused before."
    huggingface_hub, errors = pytest.importorskip("huggingface_hub"), pytest.importorskip("huggingface_hub.errors")
    class Away(Exception): "What carries it says no."
    Away.__module__ = "httpx"
    for error, why in ((Away("Name or service not known"), "the hub cannot be reached (Name or service not known); check the network"),
                       (errors.LocalTokenNotFoundError("Token is required, but no token found.\nLog in."), "Token is required, but no token found. Log in.")):
        class Refuses:
            def create_repo(self, *args, **options): raise error
        monkeypatch.setattr(huggingface_hub, "HfApi", Refuses)
        assert main(["publish", str(result["run"].folder), "--repo", "a/b", "--output", str(tmp_path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"synthlab: {tmp_path}") and said.endswith(f"is written, but not uploaded to a/b: {why}\n") and said.count("\n") == 1
    for name in "a b", "a/b/c", "alone", "/b":
        with pytest.raises(ConfigError, match="is no place on the hub; write OWNER/NAME"): HubManager(result, tmp_path, name)

def test_untrained_weights_are_not_published(tmp_path):
    "A run whose best epoch was none at all."
    r = bench.run("market", ["model=linear", *SMALL, "training.epochs=0", f"runs={tmp_path}/runs"])
    with pytest.raises(ConfigError, match="untrained"): HubManager(r, tmp_path)

def test_where_a_record_put_it_is_worth_sharing(tmp_path):
    "A run whose best epoch was none at all, but which began where its windows are likeliest: what it learnt there comes back."
    r = bench.run("market", ["data=mock", *SMALL, "training.epochs=0", f"runs={tmp_path}/runs"])
    begun, = (e for e in r["run"].facts.events() if e["event"] == "begun")
    assert begun["belief"] == "no leverage"                                 # a random walk has none
    model, about = load_published(HubManager(r, tmp_path/"outputs").save())
    assert all(torch.equal(v, r["model"].state_dict()[k]) for k, v in model.state_dict().items())
    assert model.head.dynamics().sign.abs().max() < .02 < .04 < model.head.sign.abs().max()

@pytest.mark.parametrize("broken", range(len(FILES)))
def test_whole_or_not_at_all(manager, broken, monkeypatch):
    "A disk that is full at any of the files leaves no folder, and an older one as it was."
    def at(n):
        count, write = [0], publish.atomic_write
        def fail(*args):
            count[0] += 1
            if count[0] > n: raise OSError(28, "No space left on device")
            return write(*args)
        return fail
    if broken == len(FILES) - 1: monkeypatch.setattr(publish, "save_checkpoint", at(0))
    else: monkeypatch.setattr(publish, "atomic_write", at(broken))
    with pytest.raises(OSError): manager.save()
    assert not [p for p in manager.output_root.rglob("*") if p.is_file()]
    monkeypatch.undo()
    folder = manager.save(); before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr(publish, "atomic_write", at(1))
    with pytest.raises(OSError): manager.save()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before and len(list(folder.parent.iterdir())) == 1

def resigned(folder, tmp_path, change):
    "A published file that somebody changed and signed again."
    tensors, state = load_checkpoint(folder/"model.safetensors")
    tensors, state["about"] = change(tensors, state["about"]) or (tensors, state["about"])
    (tmp_path/"changed").mkdir(); save_checkpoint(tmp_path/"changed/model.safetensors", tensors, state)
    return tmp_path/"changed"

@pytest.mark.parametrize("change, why", [
    (lambda t, a: a["recipe"].update(head={"name": "os.system"}), "no head named"),
    (lambda t, a: a["recipe"].update(head={"_target_": "subprocess.run", "args": ["true"]}), "subprocess.run"),
    (lambda t, a: a["recipe"]["backbone"].update(blocks=["builtins.eval"]), "eval"),
    (lambda t, a: a["recipe"].update(head={"name": "student_t"}), "another model"),
    (lambda t, a: a["recipe"]["backbone"].update(d_model=900_000), "asks for 900,000"),
    (lambda t, a: a["recipe"]["backbone"].update(d_model=32), "has shape"),
    (lambda t, a: a["config"].update(surprise=1), "no setting surprise"),
    (lambda t, a: a["engineer"].update(name="os.system"), "no engineer"),
    (lambda t, a: a["engineer"].update(fitted={"mean": [float("nan")]}), "cannot be built here"),
    (lambda t, a: (a.pop("recipe"), None)[1], "cannot be built here"),
    (lambda t, a: (a.pop("config"), None)[1], "no published model"),
    (lambda t, a: a.update(lab="os"), "no lab 'os'"),
    (lambda t, a: ({k: v for k, v in t.items() if "bias" not in k}, a), "it has no"),
    (lambda t, a: (t | {"model/extra": torch.zeros(1)}, a), "is unknown here"),
    (lambda t, a: ({k: v.double() for k, v in t.items()}, a), "float64"),
], ids=range(15))
def test_what_does_not_fit_is_refused(manager, tmp_path, change, why):
    "No name is imported, nothing is loaded in part, and the sentence says what is wrong."
    with pytest.raises(CheckpointError, match=why): load_published(resigned(manager.save(), tmp_path, change))

def test_a_changed_bit_is_refused(manager):
    path = manager.save()/"model.safetensors"
    data = bytearray(path.read_bytes())
    for at in (len(data) - 1, len(data)//2, 40):
        data[at] ^= 1; path.write_bytes(data); data[at] ^= 1
        with pytest.raises(CheckpointError, match="not a whole checkpoint"): load_published(path.parent)

def test_a_pickle_beside_it_is_not_read(manager, tmp_path):
    "A folder with model.pt in it and no tensors file is no published model."
    (tmp_path/"theirs").mkdir(); (tmp_path/"theirs/model.pt").write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(ConfigError, match="has no model.safetensors"): load_published(tmp_path/"theirs")

class Recorder:
    "An account on the hub that only writes down what it is asked."
    asked = []
    def create_repo(self, repo_id, **options): self.asked.append(("create_repo", repo_id, options))
    def upload_folder(self, *, repo_id, folder_path, path_in_repo, commit_message):
        self.asked.append(("upload_folder", repo_id, sorted(p.name for p in Path(folder_path).iterdir()), path_in_repo, commit_message))

def test_push(result, tmp_path, monkeypatch, capsys):
    "One commit with the whole folder, after the repository exists; the link is where it lies."
    huggingface_hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", Recorder); Recorder.asked.clear()
    assert main(["publish", str(result["run"].folder), "--repo", "someone/paths", "--output", str(tmp_path)]) == 0
    out, (made, sent) = capsys.readouterr().out, Recorder.asked
    path = HubManager(result, tmp_path).path
    assert made == ("create_repo", "someone/paths", dict(exist_ok=True, private=False))
    assert sent[1:4] == ("someone/paths", sorted(FILES), path) and f"{result['metrics']['crps']:.6f}" in sent[4]
    assert f"https://huggingface.co/someone/paths/tree/main/{path}" in out and f"{result['metrics']['crps']:.6f}" in out

def test_download(manager, tmp_path, monkeypatch):
    "The revision is passed on, tensors alone are asked for, and what comes back is checked like a file."
    huggingface_hub = pytest.importorskip("huggingface_hub")
    manager.save(); asked = []
    def snapshot_download(repo_id, **options): asked.append((repo_id, options)); return str(manager.output_root)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download); monkeypatch.chdir(tmp_path)
    for where in "someone/paths", f"someone/paths/{manager.path}":
        model, about = load_published(where, revision="abc")
        assert about["run"] == manager.run.folder.name
    assert asked == [("someone/paths", dict(revision="abc", allow_patterns=["*model.safetensors"])),
                     ("someone/paths", dict(revision="abc", allow_patterns=[f"{manager.path}/model.safetensors"]))]
    for where in "../x", "a/../b", "x", "https://a/b": 
        with pytest.raises(ConfigError, match="no owner/name"): load_published(where)

def test_without_the_hub_library(manager, monkeypatch):
    "What is missing is named, with what installs it."
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r'pip install "huggingface_hub>='): load_published("someone/paths")
    manager.repo_id = "someone/paths"
    with pytest.raises(ConfigError, match=r'pip install "huggingface_hub>='): manager.save_and_push()

def test_the_cards_own_lines_simulate_with_covariates(tmp_path):
    "A model that takes calendar columns and assets: the block under Use, run as it stands, gives paths; and its folder is not that of a model without them."
    import re
    from synthlab.datasets.sources import MockDataSource
    small = ["data=mock", "training.epochs=1", "training.n_paths=8", "evaluation.n_paths=50", "evaluation.stride=48", "evaluation.n_boot=100", "evaluation.baselines=[constant]",
             "tracking.mode=disabled", f"runs={tmp_path/'runs'}"]
    folders = []
    for told in ([], ["data.future=[day_sin1]", "data.static=asset"]):
        manager = HubManager(bench.run("market", [*small, *told])["run"], tmp_path/"out")
        folders.append(Path(manager.save()))
    assert folders[0].parent != folders[1].parent
    code = re.search(r"```python\n(.*?)```", (folders[1]/"README.md").read_text(), re.S)[1]
    here = {"bars": MockDataSource(900).load("MOCK")["MOCK"]}
    exec(re.sub(r'load_published\(".*?"\)', f'load_published({str(folders[1])!r})', code), here)
    assert here["paths"].shape == (1, 1000, 12) and here["batch"]["future"].shape[-1] == 1
