"""Train one forecaster of another library, and write what it says of every window that is asked about.

    python peers/forecast.py DeepAR QUESTION ANSWER.parquet --seconds 100 --seed 7

QUESTION is a folder that `synthlab.labs.market.peers` wrote. It runs in an environment of its own, made from
`requirements.txt` beside it, and imports nothing of synthlab.
"""
import argparse, json, logging, random, tempfile, time, warnings
from pathlib import Path
import numpy as np
import pandas as pd
import torch
from scipy.stats import t

def percent_returns(close):
    "Log returns in percent; the first bar has none."
    return 100*np.diff(np.log(close), prepend=np.log(close[0]))

# What a series is to a peer, and what its numbers are: (N, M, H) and the close of each decision to prices over it.
FORMS = {
    "close": (lambda close: close, lambda y, close: y/close[:, None, None]),
    "log_close": (lambda close: 100*np.log(close), lambda y, close: np.exp(y/100)/close[:, None, None]),
    "returns": (percent_returns, lambda y, close: np.exp(y.cumsum(-1)/100)),
}
PEERS = {}

def peer(function):
    "A forecaster by its name: (series by asset, ask) -> members (N, M, H) in the series' unit, what training took."
    PEERS[function.__name__] = function
    return function

def allowance(base, ask):
    "A callback that ends training when so much CPU is spent, and what it counts: libraries train with copies of it."
    counted = dict(took=0, spent=0.)
    class Allowance(base):
        def on_train_start(self, trainer, module): self.began = time.process_time()
        def on_train_batch_end(self, trainer, *_):
            counted.update(took=counted["took"] + 1, spent=round(time.process_time() - self.began, 1))
            if counted["spent"] >= ask["seconds"] or counted["took"] == ask["steps"]: trainer.should_stop = True
    return Allowance(), counted

def student_members(df, loc, scale, ask):
    "As many quantiles of Student's t, (N, M, H); returns, which are added up later, are shuffled step by step."
    levels = (np.arange(ask["members"]) + .5)/ask["members"]
    drawn = t.ppf(levels[None, :, None], df[:, None], loc[:, None], scale[:, None])
    return np.random.default_rng(ask["seed"]).permuted(drawn, axis=1) if ask["form"] == "returns" else drawn

def gluonts_forecasts(kind, series, ask, **own):
    "What an estimator of GluonTS says of every window after training. All that is not named here is the library's own."
    from lightning.pytorch import Callback
    (callback, counted), start = allowance(Callback, ask), {a: pd.Period(ask["start"][a], ask["freq"]) for a in series}
    quiet = dict(enable_progress_bar=False, enable_model_summary=False, logger=False)
    trainer = quiet | dict(default_root_dir=ask["scratch"], accelerator="cpu", callbacks=[callback])
    estimator = kind(freq=ask["freq"], prediction_length=ask["horizon"], context_length=ask["context"],
                     trainer_kwargs=trainer, **own)
    entry = lambda a, end: dict(start=start[a], target=series[a][:end].astype(np.float32), item_id=a)
    ends = {a: np.linspace(ask["learn"][a] + ask["horizon"], ask["valid"][a], 40).round().astype(int) for a in series}
    chosen_by = [entry(a, end) for a in series for end in ends[a]]      # whose last windows choose the epoch
    predictor = estimator.train([entry(a, ask["learn"][a]) for a in series], chosen_by)
    windows = [entry(a, at + 1) for a, at in zip(ask["asset"], ask["position"])]
    return list(predictor.predict(windows)), counted

@peer
def DeepAR(series, ask):
    from gluonts.torch import DeepAREstimator
    said, told = gluonts_forecasts(DeepAREstimator, series, ask, num_parallel_samples=ask["members"])
    return np.stack([f.samples for f in said]), told

@peer
def TFT(series, ask):
    from gluonts.torch import TemporalFusionTransformerEstimator
    from gluonts.torch.distributions import StudentTOutput
    said, told = gluonts_forecasts(TemporalFusionTransformerEstimator, series, ask, distr_output=StudentTOutput())
    laws = [f.distribution for f in said]           # Student's t of a scaled series: scale*(loc + width*t)
    df, loc, width = (np.stack([getattr(d.base_dist, n).numpy() for d in laws]) for n in ("df", "loc", "scale"))
    moved, scale = (np.array([float(getattr(d, n)) for d in laws])[:, None] for n in ("loc", "scale"))
    return student_members(df, loc*scale + moved, width*scale, ask), told

def nixtla_members(kind, series, ask):
    "What a model of neuralforecast says after training: every window is asked about as a series of its own."
    from neuralforecast import NeuralForecast
    from neuralforecast.losses.pytorch import DistributionLoss
    from pytorch_lightning import Callback
    (callback, counted), context, horizon = allowance(Callback, ask), ask["context"], ask["horizon"]
    quiet = dict(enable_progress_bar=False, enable_model_summary=False, logger=False, enable_checkpointing=False)
    model = kind(h=horizon, input_size=context, scaler_type=ask["scaler"], random_seed=ask["seed"],
                 windows_batch_size=ask["windows"], loss=DistributionLoss("StudentT", return_params=True),
                 callbacks=[callback], **quiet, default_root_dir=ask["scratch"], accelerator="cpu", devices=1)
    frame = lambda name, y: pd.DataFrame(dict(unique_id=name, ds=np.arange(len(y)), y=y.astype(np.float32)))
    network = NeuralForecast([model], freq=1)
    network.fit(pd.concat([frame(a, y[:ask["learn"][a]]) for a, y in series.items()], ignore_index=True))
    windows = [frame(f"{i:06d}", series[a][at + 1 - context:at + 1])
               for i, (a, at) in enumerate(zip(ask["asset"], ask["position"]))]
    said = network.predict(pd.concat(windows, ignore_index=True)).sort_values(["unique_id", "ds"])
    law = said[[f"{kind.__name__}-{n}" for n in ("df", "loc", "scale")]].to_numpy(np.float64)
    return student_members(*law.reshape(-1, horizon, 3).transpose(2, 0, 1), ask), counted

@peer
def NHITS(series, ask):
    from neuralforecast.models import NHITS
    return nixtla_members(NHITS, series, ask)

@peer
def PatchTST(series, ask):
    from neuralforecast.models import PatchTST
    return nixtla_members(PatchTST, series, ask)

def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("question", type=Path)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--seconds", type=float, default=100., help="of CPU that training may take")
    parser.add_argument("--steps", type=int, default=0, help="of training, at most; 0: as many as the library takes")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--members", type=int, default=1000)
    parser.add_argument("--context", type=int, default=60, help="bars that a forecast looks back")
    parser.add_argument("--form", choices=FORMS, default="returns", help="what the series is given as")
    parser.add_argument("--scaler", default="identity", help="of a window, where the library asks for one")
    parser.add_argument("--windows", type=int, default=1024, help="a step of training, in neuralforecast")
    return parser.parse_args(words)

def write_answer(path, paths, made):
    "Prices over the price of the decision, a column a step, a row a member; beside it what was made, once it is whole."
    flat = paths.reshape(-1, paths.shape[-1]).astype(np.float32)
    pd.DataFrame(flat, columns=[f"step_{h}" for h in range(1, flat.shape[1] + 1)]).to_parquet(path)
    path.with_suffix(".json").write_text(json.dumps(made))

def main(words=None):
    told = arguments(words)
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "gluonts"):
        logging.getLogger(name).setLevel(logging.ERROR)
    random.seed(told.seed); np.random.seed(told.seed); torch.manual_seed(told.seed); torch.set_num_threads(1)
    ask = json.loads((told.question/"question.json").read_text()) | vars(told)
    bars, windows = (pd.read_parquet(told.question/f"{name}.parquet") for name in ("bars", "windows"))
    closes = {a: b["close"].to_numpy() for a, b in bars.groupby("asset", sort=False)}
    to, back = FORMS[told.form]
    with tempfile.TemporaryDirectory() as scratch:
        ask |= dict(asset=windows["asset"].tolist(), position=windows["position"].tolist(), scratch=scratch)
        members, training = PEERS[told.peer]({a: to(close) for a, close in closes.items()}, ask)
    decided = np.array([closes[a][at] for a, at in zip(ask["asset"], ask["position"])])
    paths = back(members.astype(np.float64), decided)
    said = {k: v for k, v in vars(told).items() if k not in ("question", "answer")}
    write_answer(told.answer, paths, said | training | dict(digest=ask["digest"]))

if __name__ == "__main__": main()
