"""No setting is accepted and ignored (R32): each setting of every lab is set to another valid value, and what is written, said or asked of the machine
changes, or the value is refused. A lab that is added brings a value for those of its settings whose other values cannot be guessed."""
import contextlib, dataclasses, io, re, subprocess

import pytest, synthlab, torch

from synthlab.experiments.config import settings as settings_of
from synthlab.experiments.declared import refuse_misspelt
from synthlab.experiments.experiment import run
from synthlab.experiments.lab import get_lab
from synthlab.experiments.runs import Run
from synthlab.labs.events.settings import ALIASES
from synthlab.models.registry import ConfigError
from synthlab.trainers import keeper, tracking
from synthlab.trainers.facts import git_commit
from test_labs import TOYS, bits, only, result, rows, settings, source_of

# setting -> another value and, where the toy run cannot show a difference, what else is set before and after; "LAB setting" where a lab needs its own
OTHERS = {
    "name": ("other",), "device": ("cuda" if not torch.cuda.is_available() else "cpu",), "threads": ("2",), "tracking.mode": ("offline",),
    "tracking.project": ("elsewhere", "tracking.mode=offline"), "runs": ("{tmp}/elsewhere",),
    "data.source": ("{file}",), "data.assets": ("[BTC]", "data.source=mock"), "data.gaps": ("ffill", "data.source=sp500"),
    "data.gap_limit": ("20D", "data.source=sp500"), "data.past": ("[volume]",), "data.future": ("[time_of_day]",), "data.static": ("asset",),
    "data.engineer": ("{{name: zscore}}",), "signal data.engineer": ("{{name: price_action}}",), "data.split.embargo": ("3D",),
    "data.split.val_start": ("2010-01-01", "data.source=sp500", "data.split.test_start=2014-01-01"),
    "data.split.test_start": ("2014-01-01", "data.source=sp500", "data.split.val_start=2010-01-01"), "data.split.test_end": ("{late}",),
    "data.split.val_fraction": ("0.2",), "data.split.test_fraction": ("0.2",),
    "model": ("linear", "model=baseline_gbm"), "macro model": ("{{d_model: 32}}",), "signal model": ("lstm",),
    "training.warmup_epochs": ("0.5",), "macro training.warmup_epochs": ("0.05",), "training.scheduler": ("none",), "training.lr_floor": ("0.5",), "training.grad_clip": ("0.0001",),
    "training.accumulate": ("2",), "training.precision": ("bf16",), "training.compile": ("true",), "training.patience": ("1", "training.epochs=4", "training.min_delta=1000000"),
    "training.min_delta": ("1000000",), "training.on_nonfinite": ("skip", "training.lr=1e30", "training.grad_clip=0"), "training.log_every": ("1",),
    "training.checkpoint_steps": ("1",), "training.checkpoint_seconds": ("0.000001",), "training.processes": ("2",),
    "training.intervals": ("[2]",), "training.terms": ("{{levels: 1, energy: 1}}",),
    "evaluation.conformal": ("split",), "evaluation.baselines": ("[constant]",), "macro evaluation.baselines": ("[linear]",),
    "data.root": ("{tmp}/store",), "data.processes": ("2", "runs={fresh}"), "data.worlds": ("[rbc,zlb]",), "training.loss_fn": ("mse",), "training.horizon_weights": ("early",),
    "training.horizon_decay_tau": ("3", "training.horizon_weights=exponential"), "training.per_variable_weights": ("[1,2,3]",),
    "training.lambda_smooth": ("0.1",), "training.likelihood": ("gaussian",), "evaluation.alone": ("[rbc]",), "evaluation.leave_out": ("[nk]",),
    "evaluation.gru_epochs": ("2", "evaluation.baselines=[gru]", "evaluation.gru_epochs=1"),
    "evaluation.epochs": ("2", "evaluation.baselines=[mlp]", "evaluation.epochs=1"),
    "evaluation.leave_out_epochs": ("2", "evaluation.leave_out=[nk]", "evaluation.leave_out_epochs=1"),
    "data.label": ("first_touch",), "data.smoothing": ("span",), "data.target_offset": ("1",), "training.pos_weight": ("3",), "training.focal": ("2",),
    "training.label_smoothing": ("0.1",), "evaluation.recalibration": ("isotonic",), "evaluation.threshold": ("0.4",),
    "evaluation.threshold_rule": ("search",), "evaluation.rule": ("slots", "evaluation.threshold=0.3"), "evaluation.stop": ("1", "evaluation.threshold=0.3"),
    "evaluation.slow_draws": ("12", "data.worlds=[zlb]", "evaluation.alone=[]"), "evaluation.target": ("1", "evaluation.threshold=0.3"), "evaluation.trials": ("1000",),
    "quant data.assets": ("[AAPL,JPM,XOM]",), "data.start": ("2019-07-01",), "data.end": ("2020-10-01",), "data.features": ("[return_5,rsi_14]",), "data.targets": ("[fwd_ret_5d]",),
    "family": ("ftrl_proximal",), "variant": ("conservative",), "params": ("{{alpha: 5}}",), "others": ("[ftrl_proximal]",), "training.min_train_samples": ("100000",),
    "quant evaluation.rule": ("volatility",), "evaluation.top": ("0.5",), "evaluation.turnover_cap": ("0.05",), "jobs": ("2", "runs={fresh}"), "cluster": ("nowhere", "runs={fresh}"),
    "evaluation.adaptive_rate": ("0.5", "family=quantile_lightgbm", "params={n_estimators: 3}", "data.targets=[xdm_ret_5d]"), "quant evaluation.slippage": ("0.001",),
    "loop": ("gan_ae", "decoder=gan"), "encoder": ("gnn",), "latent": ("fsq",), "decoder": ("gnn",), "losses": ("{{kind: 1}}",), "events data.source": ("collisions", "data.n=20", "data.n_signal=10"),
    "data.level": ("objects",), "events data.features": ("[0, 1]",), "data.background": ("[two_prong]",), "data.signal": ("[two_prong]",), "data.label_groups": ("{{a: one_prong, b: two_prong}}",),
    "data.signal_vs_background": ("{{background: one_prong, signal: two_prong}}",), "data.selected_labels": ("[one_prong, two_prong]",), "data.options": ("{{mass: 3}}",),
    "events training.warmup_epochs": ("0.25",), "evaluation.backgrounds": ("[0.2]", "data.n=1200"), "evaluation.corruptions": ("[drop_tokens]",), "evaluation.how": ("again",),
    "evaluation.samples": ("60", "data.n=900"), "logging.figures_subdir": ("pictures",), "logging.fig_format": ("svg",), "logging.families": ("{{losses: {{enabled: false}}}}",),
}

def other(name, setting, kind, default, places):
    "Another value of a setting, and what must be set for it to matter."
    told = OTHERS.get(f"{name} {setting}", OTHERS.get(setting))
    if told: return told[0].format(**places), told[1:]
    if kind is bool or isinstance(default, bool): return str(not default).lower(), ()
    if isinstance(default, int): return str(2*default or 1), ()
    if isinstance(default, float): return repr(default/2 or .5), ()
    pytest.fail(f"{setting} of the {name} lab has no other value here: add one to OTHERS")

def effect(name, typed, patch):
    "What a run writes, says and asks of the machine; a refusal is its sentence."
    asked, lab, saves = [], get_lab(name), keeper.Keeper.save
    patch.setattr(keeper.Keeper, "save", lambda self, *names: (asked.append(f"saves {names}"), saves(self, *names))[1])
    judge = lab.judge
    patch.setattr(lab, "judge", lambda e: (asked.append(f"{torch.get_num_threads()} threads"), judge(e))[1])
    begin = subprocess.Popen.__init__
    patch.setattr(subprocess.Popen, "__init__", lambda *a, **k: (asked.append("another process"), begin(*a, **k))[1])
    patch.setattr(torch, "compile", lambda *a, **k: (_ for _ in ()).throw(ConfigError("compiles")))
    patch.setattr(tracking.Tracker, "_start", lambda self, folder, options: asked.append(f"tracks {options}"))
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said): folder = run(name, typed)["run"].folder
    except (ValueError, ArithmeticError, OSError, RuntimeError) as error: return f"{type(error).__name__}: {error}"
    lines = [re.sub(r"[0-9:.]+ ?(s|ms|min)?", "#", line) for line in said.getvalue().splitlines()]
    if not folder.exists(): return dict(kept=False, asked=asked, said=lines)        # as was asked for
    drawn = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.suffix in (".png", ".svg")}
    return dict(drawn=drawn, name=re.sub(r"^[0-9-]+_|-[0-9]+$", "", folder.name), elsewhere=folder.parent.name == "elsewhere", bits=bits(folder), rows=rows(folder), result=result(folder), asked=asked,
                said=lines, events=[e["event"] for e in Run(folder).facts.events()])

@pytest.mark.parametrize("name", [n if n == "toy" else pytest.param(n, marks=pytest.mark.slow) for n in TOYS])      # 40 to 60 seconds a lab
def test_every_setting_matters(name, tmp_path, monkeypatch):
    only(monkeypatch, name)
    base, known = settings(name, tmp_path), settings_of(get_lab(name).schema)
    config = get_lab(name).configure(base)
    places = dict(tmp=tmp_path, file=source_of(name, tmp_path), late="2016-01-01")
    git_commit(synthlab.__file__)       # the first run of a process asks git, and keeps the answer
    seen, ignored = {}, []
    def of(typed):
        key = tuple(typed)
        if key not in seen:
            typed = [o.format(fresh=tmp_path/f"fresh{len(seen)}") if "{fresh}" in o else o for o in typed]
            with pytest.MonkeyPatch.context() as patch: seen[key] = effect(name, typed, patch)
        return seen[key]
    assert of(base) == effect(name, base, monkeypatch), "two equal runs differ"
    for setting, kind in known.items():
        if dataclasses.is_dataclass(kind): continue         # a group: its settings follow
        default = config
        for part in setting.split("."): default = getattr(default, part)
        value, more = other(name, setting, kind, default, places)
        before, after = of([*base, *more]), of([*base, *more, f"{setting}={value}"])
        if isinstance(after, str): print(f"{setting}={value}: {after}")
        if before == after: ignored.append(f"{setting}={value}: {before if isinstance(before, str) else 'the same'}")
    assert not ignored

@pytest.mark.parametrize("lab", ["market", "macro", "signal", "quant", "events"])
def test_what_is_refused_before_torch_is_there_is_refused_by_the_lab_itself(lab):
    "No setting, no word of another system and no beginning of one is refused early; a misspelt name is, in the words of the lab."
    aliases = [a + "x" if a.endswith(".") else a for a in ALIASES] if lab == "events" else []
    refuse_misspelt(lab, [f"{name}=1" for name in (*settings_of(get_lab(lab).schema), *get_lab(lab).words, *aliases)])
    for name in "training.epohcs", "traning.epochs", "evaluation.n_bot", "dta", "sed":
        with pytest.raises(ConfigError) as early: refuse_misspelt(lab, [f"{name}=1"])
        with pytest.raises(ConfigError) as late: get_lab(lab).configure([f"{name}=1"])
        assert str(early.value) == str(late.value)
