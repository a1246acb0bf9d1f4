"A search proposes from seed, number and scores alone, so that a killed one goes on as if it had not been; it never looks at the test."
import json

import pytest

from synthlab.experiments.runs import Run
from synthlab.experiments.search import Between, Choice, proposal, read_space, run_search, validation_score
from synthlab.experiments.sweeps import Sweep
from synthlab.models.registry import ConfigError
from test_labs import only, settings

SPACE = ["training.lr=interval(1e-3,1e-2)", "latent=none,fsq"]

def test_the_space_is_read():
    space, fixed = read_space(["a.b=1,2", "c=interval(0.001, 1)", "d=range(1,4)", "e=[1,2]", "f=x"])
    assert {k: type(v) for k, v in space.items()} == {"a.b": Choice, "c": Between, "d": Choice} and fixed == ["e=[1,2]", "f=x"]
    assert space["d"].values == ["1", "2", "3"] and space["c"].logarithmic

def test_what_is_proposed_depends_on_what_came_before_and_on_the_seed():
    pytest.importorskip("optuna")
    space = read_space(["x=interval(0,1)", "y=a,b,c"])[0]
    done = []
    for k in range(9): done.append((proposal(space, done, 3)[0], None if k == 2 else abs(done[-1][0]["x"] - .5) if done else 1.))
    assert proposal(space, done[:6], 3)[0] == done[6][0] != proposal(space, done[:6], 4)[0]
    other = [(v, None if s is None else -s) for v, s in done]
    assert any(proposal(space, other[:k], 3)[0] != proposal(space, done[:k], 3)[0] for k in range(6, 10))

def test_a_lab_without_epochs_has_nothing_to_search_by(monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    only(monkeypatch, "toy")
    with pytest.raises(ConfigError, match="no score on validation"): run_search("toy", [*settings("toy", tmp_path), "training.penalty=1,2"], 2, tmp_path/"s")
    with pytest.raises(ConfigError, match="nothing varies"): run_search("toy", settings("toy", tmp_path), 2, tmp_path/"t")
    with pytest.raises(ConfigError, match="give 1 or more"): run_search("toy", [*settings("toy", tmp_path), "training.penalty=1,2"], 0, tmp_path/"t")

@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_it_had_not_been(monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    only(monkeypatch, "events")
    typed = [*settings("events", tmp_path), "evaluation.inverse=false", *SPACE]
    typed = [t for t in typed if not t.startswith("latent.")]
    whole = run_search("events", typed, 4, tmp_path/"whole", told=lambda _: None)
    part = run_search("events", typed, 2, tmp_path/"cut", told=lambda _: None)
    said = json.loads((tmp_path/"cut"/"search.json").read_text())
    said["tried"].append(said["tried"][0])                      # killed between the two files: the trial that nobody began is asked again
    (tmp_path/"cut"/"search.json").write_text(json.dumps(said))
    again = run_search("events", typed, 4, tmp_path/"cut", told=lambda _: None)
    assert len(part.variants) == 2 and [v.values for v in again.variants] == [v.values for v in whole.variants]
    assert all(validation_score(Run(tmp_path/"cut"/v.name)) == validation_score(Run(tmp_path/"whole"/v.name)) for v in whole.variants)
    assert set(Sweep(tmp_path/"cut").table.status) == {"done"} and len({json.dumps(v.values) for v in whole.variants}) == 4
    with pytest.raises(ConfigError, match="holds another search"): run_search("events", [*typed, "training.epochs=3"], 5, tmp_path/"cut")
