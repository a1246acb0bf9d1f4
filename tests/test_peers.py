"What passes between this house and other libraries: a question and an answer; their program is run here with a forecaster of its own."
import importlib.util, json
from pathlib import Path

import numpy as np, pandas as pd, pytest, torch
from papermill.exceptions import PapermillExecutionError
from scipy.stats import t

from in_process import execute
from synthlab.datasets.bars import BarError
from synthlab.labs.market.backtest import common_batches
from synthlab.labs.market.peers import PEERS, answer_simulator, peer_line, window_names, write_question
from synthlab.labs.market.settings import market_config
from synthlab.labs.market.setup import load_market
from synthlab.models.registry import ConfigError

ROOT = Path(__file__).parent.parent

@pytest.fixture
def program():
    "`peers/forecast.py` as a module, which needs none of the libraries until one of their forecasters is asked; threads as they were."
    spec = importlib.util.spec_from_file_location("peers_forecast", ROOT/"peers"/"forecast.py")
    module, threads = importlib.util.module_from_spec(spec), torch.get_num_threads()
    spec.loader.exec_module(module)
    yield module
    torch.set_num_threads(threads)

@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    "A question about a simulated market: folder, market, windows, their names."
    folder = tmp_path_factory.mktemp("question")
    market = load_market(market_config(["data=mock", "evaluation.stride=24"]))
    windows = common_batches({"it": market}, 24)["it"]
    names = window_names(market, windows)
    write_question(market, names, 12, folder)
    return folder, market, windows, names

def test_the_program_has_the_peers_of_the_report(program): assert set(program.PEERS) == set(PEERS)

@pytest.mark.parametrize("form", ["close", "log_close", "returns"])
def test_prices_come_back_from_any_form(form, program, asked, tmp_path):
    "Who says that the last close stays, in the series' own unit, is a simulator whose paths stand still."
    folder, market, windows, names = asked
    def still(series, ask):
        last = np.array([0. if form == "returns" else series[a][at] for a, at in zip(ask["asset"], ask["position"])])
        assert all(len(series[a]) > ask["learn"][a] > 0 for a in series)
        return np.broadcast_to(last[:, None, None], (len(last), ask["members"], ask["horizon"])), dict(took=3, spent=.5)
    program.PEERS["still"] = still
    program.main(["still", str(folder), str(tmp_path/"a.parquet"), "--members=5", f"--form={form}"])
    made = json.loads((tmp_path/"a.json").read_text())
    assert (made["form"], made["took"], made["digest"]) == (form, 3, json.loads((folder/"question.json").read_text())["digest"])
    batch = windows.batch(0, 0)
    paths = answer_simulator(tmp_path/"a.parquet", names, market.loader.names)(batch, windows.windows.row[:len(batch["initial_price"])], 0)
    assert paths.shape[1:] == (5, 12)
    assert torch.allclose(paths, batch["initial_price"][:, None, None].expand_as(paths), rtol=1e-6)

def test_members_are_quantiles_and_returns_are_shuffled_step_by_step(program):
    "Each step has the quantiles of its law, whichever way; only what is added up later must not rise together."
    df, loc, scale = (np.full((2, 3), x) for x in (5., .2, 1.5))
    drawn = lambda form: program.student_members(df, loc, scale, dict(members=99, seed=1, form=form))
    ordered, shuffled = drawn("close"), drawn("returns")
    assert np.allclose(np.sort(shuffled, 1), ordered) and np.allclose(ordered[0, 49], .2)
    assert np.allclose(t.cdf((ordered[1, :, 2] - .2)/1.5, 5), (np.arange(99) + .5)/99)
    assert abs(np.corrcoef(shuffled[0], rowvar=False) - np.eye(3)).max() < .35
    assert np.allclose(np.corrcoef(ordered[0], rowvar=False), 1)

def test_training_ends_when_its_cpu_is_spent(program):
    "By seconds or by steps, whichever is first, also in a library that trains with a copy of the callback."
    class Trainer: should_stop = False
    for ask, ends in (dict(seconds=1e9, steps=4), 4), (dict(seconds=0., steps=0), 1):
        callback, counted = program.allowance(object, ask)
        trainer, copy = Trainer(), type(callback)()
        copy.on_train_start(trainer, None)
        while not trainer.should_stop: copy.on_train_batch_end(trainer, None, None, None, 0)
        assert counted["took"] == ends

def test_an_answer_of_no_prices_is_refused(asked, tmp_path):
    _, market, _, names = asked
    pd.DataFrame({"step_1": np.where(np.arange(2*len(names)) == 3, np.nan, 1.)}).to_parquet(tmp_path/"a.parquet")
    with pytest.raises(BarError, match="no positive numbers"): answer_simulator(tmp_path/"a.parquet", names, market.loader.names)

def test_without_their_environment_the_report_says_what_to_type(tmp_path, monkeypatch):
    (tmp_path/"peers").symlink_to(ROOT/"peers")
    with pytest.raises(PapermillExecutionError, match="pip install -r peers/requirements.txt, and give peers_python=ENV/bin/python"):
        execute(ROOT/"nbs/peers.ipynb", tmp_path, sources=["mock"], run_dir="kept")
    with pytest.raises(ConfigError, match="in a checkout"): peer_line("", tmp_path/"forecast.py", "DeepAR", tmp_path, tmp_path)

def test_a_misspelt_parameter_of_the_report_is_refused(tmp_path):
    with pytest.raises(PapermillExecutionError, match="did you mean seconds"): execute(ROOT/"nbs/peers.ipynb", tmp_path, secnds=4)
