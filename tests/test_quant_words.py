"Words of the quant lab: configurations by name, strategies out of fold, selections and searches over folds in time."
import json, math, os

import numpy as np, pandas as pd, pytest
from scipy.stats import spearmanr
from sklearn.feature_selection import RFECV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, KFold

from synthlab.datasets.columns import KINDS, usual_columns
from synthlab.datasets.packages import MissingPackage
from synthlab.datasets.purged import PurgedFolds
from synthlab.labs.quant import configuration as words
from synthlab.labs.quant.configuration import HOUSE, changes_of, family_document, find_family, load_model_config, make_family
from synthlab.labs.quant.search import grid_search, optuna_search, tried
from synthlab.labs.quant.selection import Selection, leaky_names, permutation_importance, recursive_elimination, strength, too_good
from synthlab.models.families import Family
from synthlab.models.registry import BlockInfo, ConfigError, registry
from synthlab.models.strategies import CascadeStrategy, Gate, MultiTaskStrategy, SingleTaskStrategy, opinion, restore_gate, restore_strategy, with_columns

PARAMETERS = {"lightgbm": "learning_rate", "quantile_lightgbm": "learning_rate", "xgboost": "eta", "ngboost": "learning_rate", "mlp": "learning_rate", "lstm": "learning_rate",
              "transformer": "learning_rate", "cnn1d": "learning_rate", "multi_task": "learning_rate", "vae": "learning_rate", "gan": "generator_lr", "ftrl_proximal": "alpha"}
ROUNDS = "n_estimators", "epochs", "max_iter", "hgb_max_iter"

class Straight(Family):
    "Least squares; a class's share by the same line."
    name = "straight"
    def __init__(self, penalty=1e-6, task="auto", seed=7, threads=1, validation=0., reach=0): self._keep(locals())
    def _fit(self, X, y, X_val, y_val, weight):
        A = np.c_[X, np.ones(len(X))].astype(float)
        Y = y.astype(float) if self.task_ == "regression" else np.eye(len(self.classes_))[y]
        if self.penalty < 0: raise ValueError(f"penalty is {self.penalty}; give 0 or more")
        self.w = np.linalg.solve(A.T@A + self.penalty*np.eye(A.shape[1]), A.T@Y)
    def _predict(self, X): return np.c_[X, np.ones(len(X))]@self.w
    def _proba(self, X): p = self._predict(X).clip(.01, .99); return p/p.sum(1, keepdims=True)
    def _importance(self): return np.abs(self.w).reshape(len(self.w), -1).mean(1)[:-1]
    def _numbers(self): return dict(w=self.w)
    def _take(self, numbers): self.w = numbers["w"]

@pytest.fixture(autouse=True)
def clean(monkeypatch):
    "The family of these tests, and an environment that says nothing."
    monkeypatch.setitem(registry._store["family"], "straight", BlockInfo("straight", Straight, "family"))
    for name in list(os.environ):
        if name.endswith("_VARIANT") or name == "MODEL_CONFIG_DIR": monkeypatch.delenv(name)

def rows(n=120, columns=4, seed=0):
    "Two assets, outcomes that take two days."
    rng = np.random.default_rng(seed)
    days = pd.date_range("2020-01-01", periods=n, tz="UTC")
    index = pd.MultiIndex.from_product([days, ["A", "B"]], names=["decided_at", "asset"])
    X = pd.DataFrame(rng.normal(size=(2*n, columns)), index, [f"x{k}" for k in range(columns)])
    return X, (X.x0 - .5*X.x1 + .5*rng.normal(size=2*n)).rename("fwd_ret_2d"), index.get_level_values(0) + pd.Timedelta("2D")

# --- configuration -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(HOUSE))
def test_a_file_says_what_the_family_takes(name):
    "Settings and defaults of the file are those of the class, in every spelling; sizes are the class's, where it has them."
    document, cls = family_document(name), find_family(name)
    plain = lambda v: list(v) if isinstance(v, tuple) else v
    theirs = {k: plain(v) for k, v in make_family(name, "balanced").get_params().items()}
    defaults = {k: plain(v) for k, v in cls().get_params().items()}
    assert theirs == defaults and set(document["hyperparameters"]) == set(defaults) - set(words.COMMON)
    assert {k: defaults[k] for k in words.COMMON} == words.COMMON
    own = getattr(cls, "sizes", None)
    called = document["other_names"] | {"balanced": "medium"}
    if own: assert document["sizes"] == {called.get(size, size): {k: plain(v) for k, v in changes.items()} for size, changes in own.items()}

@pytest.mark.parametrize("name", sorted(HOUSE))
def test_every_family_has_three_variants(name):
    "Aggressive steps are larger and its rounds fewer; every word, and every pair of them in either order, gives a family."
    document = family_document(name)
    assert set(document["variants"]) >= {"conservative", "balanced", "aggressive"} and document["variants"]["balanced"] == {}
    careful, usual, eager = (load_model_config(name, v) for v in ("conservative", "balanced", "aggressive"))
    assert careful != usual != eager
    if name in PARAMETERS: assert careful[PARAMETERS[name]] < usual[PARAMETERS[name]] < eager[PARAMETERS[name]]
    for key in set(ROUNDS) & set(usual): assert eager[key] < usual[key]
    for word in words.get_config_variants(name): make_family(name, word)
    for size in document["sizes"]:
        for variant in document["variants"]:
            both = changes_of(document, f"{variant}+{size}")
            assert both == changes_of(document, f"{size}+{variant}")
            assert all(both[k] == v for k, v in document["sizes"][size].items() if k in document["sizes_decide"])
            assert all(both[k] == v for k, v in document["variants"][variant].items() if k not in both or k not in document["sizes_decide"])
            make_family(name, f"{variant}+{size}")

def test_the_shipped_numbers():
    "As the families have always been set."
    usual = load_model_config("lightgbm", "balanced")
    assert usual | dict(num_leaves=96, max_depth=8, min_data_in_leaf=200, feature_fraction=.75, lambda_l1=.1, learning_rate=.03, n_estimators=1000, early_stopping_rounds=50) == usual
    careful = load_model_config("xgboost", "conservative")
    assert careful | dict(max_depth=5, eta=.01, subsample=.7, colsample_bytree=.7, reg_alpha=1., reg_lambda=1., gamma=.3) == careful
    assert load_model_config("quantile_lightgbm", "standard")["quantiles"] == [.05, .5, .95]
    assert load_model_config("mlp", "small")["hidden_layers"] == [128, 64]
    assert load_model_config("multi_task", "heavy")["hidden_dim"] == 512
    assert load_model_config("ftrl_proximal", "sparse") | dict(l1=2., l2=.5, alpha=.005) == load_model_config("ftrl_proximal", "conservative")

@pytest.mark.parametrize("said,rate", [({}, .03), (dict(MODEL_VARIANT="conservative"), .01), (dict(MODEL_VARIANT="conservative", LIGHTGBM_VARIANT="aggressive"), .05),
                                       (dict(LIGHTGBM_VARIANT="aggressive", XGBOOST_VARIANT="conservative"), .05), (dict(MODEL_VARIANT=""), .03)])
def test_who_decides_the_variant(said, rate, monkeypatch):
    "The call, the family's variable, the common one, balanced."
    for name, value in said.items(): monkeypatch.setenv(name, value)
    assert load_model_config("lightgbm")["learning_rate"] == words.LightGBMTrainer().learning_rate == rate
    assert load_model_config("lightgbm", "balanced")["learning_rate"] == .03
    assert words.LightGBMTrainer({"eta": .2}).learning_rate == .2 and words.LightGBMTrainer({"eta": .2}).num_leaves == 96

def test_seventeen_trainers_and_ridge():
    for name, short in HOUSE.items():
        trainer = getattr(words, f"{short}Trainer")()
        assert trainer.name == name and trainer.model is trainer and trainer.config == trainer.get_params()

@pytest.mark.parametrize("call,answer", [
    (lambda: load_model_config("lightgmb"), "did you mean lightgbm?"), (lambda: load_model_config("lightgbm", "agressive"), "did you mean aggressive?"),
    (lambda: load_model_config("lightgbm", overrides={"num_leafs": 3}), "did you mean num_leaves?"),
    (lambda: load_model_config("lightgbm", overrides={"reg_alpha": 1., "lambda_l1": 2.}), "one setting, with two values: 1.0 and 2.0"),
    (lambda: load_model_config("lightgbm", overrides={"n_estimators": "many"}), "give a whole number"),
    (lambda: load_model_config("ridge", "large"), "it has no sizes"), (lambda: load_model_config("reward_based", overrides={"gamma": .9}), "it discounts nothing"),
    (lambda: words.load_training_config("cores"), "did you mean core?"), (lambda: words.load_training_config("core", {"model": []}), "did you mean models?")])
def test_what_is_refused(call, answer):
    with pytest.raises(ConfigError, match=answer.replace("?", r"\?")): call()

@pytest.mark.parametrize("text,answer", [("a: ${b}", "interpolated"), ("a: &b [1]\nc: *b", "anchors"), ("a: !!python/name:os.system x", "tags"), ("a: [", "line"), ("- 1", "list"),
                                         ("variants: 3", "variants is 3"), ("variant: {}", "did you mean variants"), ("variants: {a: {b: 1}}", "has no setting b"),
                                         ("hyperparameters: {leaves: 3}", "has no setting leaves"), ("model_family: ridge", "is about ridge"), ("a: 1\na: 2", "duplicate"),
                                         ("#" + "x"*200_000, "bytes"), ("variants: {a: {learning_rate: fast}}", "give a number")])
def test_a_file_that_is_refused(text, answer, tmp_path):
    (tmp_path/"mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=answer): load_model_config("lightgbm", config=tmp_path/"mine.yaml")

def test_layers_of_files(tmp_path, monkeypatch):
    "Package, folder, file, variant, overrides, the later over the earlier; nothing of one call is left in the next."
    before = load_model_config("lightgbm")
    (tmp_path/"lightgbm.yaml").write_text("hyperparameters: {eta: 0.2}\nvariants: {mine: {num_leaves: 7}, conservative: {max_depth: 3}}")
    (tmp_path/"more.yml").write_text("variants: {mine: {num_leaves: 9}}")
    monkeypatch.setenv("MODEL_CONFIG_DIR", str(tmp_path))
    assert load_model_config("lightgbm")["learning_rate"] == .2
    assert load_model_config("lightgbm", "mine")["num_leaves"] == 7
    assert load_model_config("lightgbm", "mine", config=tmp_path/"more.yml")["num_leaves"] == 9
    found = load_model_config("lightgbm", "conservative", {"lr": .3})
    assert (found["max_depth"], found["num_leaves"], found["learning_rate"]) == (3, 64, .3)
    monkeypatch.delenv("MODEL_CONFIG_DIR")
    assert load_model_config("lightgbm") == before

def test_a_family_of_a_plug_in():
    "It needs no file: its document is its signature."
    assert load_model_config("straight") == {"penalty": 1e-6} and make_family("straight", {"penalty": 2.}).penalty == 2.
    with pytest.raises(ConfigError, match="did you mean penalty"): load_model_config("straight", overrides={"penalti": 1})

# --- strategies ----------------------------------------------------------------------------------------------------------------

def taught(X, y, ends, **more):
    "What the second stage of a cascade of two is taught with."
    kept = {}
    class Ears(Straight):
        def fit(self, X, y, *args, **given): kept["X"] = X; return super().fit(X, y, *args, **given)
    CascadeStrategy([Straight(), Ears()], folds=4, **more).train(X, y, ends_at=ends)
    return kept["X"]

def test_a_cascade_teaches_only_what_nobody_had_seen():
    "Each row's column is made by hand: a model of the rows whose outcome was over before the row's block began."
    X, y, ends = rows()
    said = taught(X, y, ends)
    days = np.array_split(X.index.levels[0], 4)
    assert said.index.equals(X.loc[days[1][0]:].index)
    for block in days[1:]:
        past = ends < block[0]
        by_hand = Straight().fit(X[past], y[past]).predict(X.loc[block[0]:block[-1]])
        assert np.array_equal(said.loc[block[0]:block[-1], "stage1_straight"], by_hand.astype(np.float32))
    later = y.copy(); later.iloc[-60:] = 1e3
    other = taught(X, later, ends)
    assert other[:120].equals(said[:120])                           # blocks 2 and 3 know nothing of the last

def test_a_cascade_of_noise_learns_nothing():
    "A first stage that knows its training rows by heart teaches the second to trust it only if it is asked about those rows."
    class Heart(Straight):
        name = "heart"
        def _fit(self, X, y, X_val, y_val, weight): self.rows, self.said = X, y
        def _predict(self, X): return self.said[((X[:, None] - self.rows)**2).sum(2).argmin(1)]
    X, _, ends = rows(100, 2, 5)
    y = pd.Series(np.random.default_rng(6).normal(size=200), X.index, name="fwd_ret_2d")
    heart = Heart().fit(X, y)
    fooled = Straight().fit(with_columns(X, opinion(heart, X), "said"), y)
    honest = list(CascadeStrategy([Heart(), Straight()]).train(X, y, ends_at=ends).families.values())[1]
    assert abs(fooled.w[2] - 1) < 1e-4 and abs(honest.w[2]) < .25

def test_a_cascade_of_classes_and_arrays():
    "A class that an early fold has not met is one of its columns all the same; arrays do as well as tables; a file says it again."
    X, y, ends = rows()
    side = pd.Series(np.where(np.arange(240) < 100, np.sign(y).clip(0), np.sign(y.round())), X.index, name="first_touch_2d_1.0")
    chain = CascadeStrategy([Straight(), Straight()], [side.name, y.name], folds=4).train(X, pd.concat([side, y], axis=1), ends_at=ends)
    assert list(chain.families["stage2_straight"].features_)[-3:] == [f"stage1_straight_{k}" for k in range(3)]
    again = restore_strategy(json.loads(json.dumps(chain.about())), chain.state_dict())
    assert np.array_equal(again.predict(X), chain.predict(X)) and again.stages_.equals(chain.stages_)
    plain = CascadeStrategy([Straight(), Straight()], folds=4, reach=4).train(X.to_numpy(), y.to_numpy())
    assert plain.predict(X.to_numpy()).shape == (240,) and plain.stages_.dropped.tolist() == [60, 0]
    holes = y.where(np.arange(240) % 5 > 0)
    unknown = pd.Series(ends).where(holes.notna().to_numpy())
    assert np.isfinite(CascadeStrategy([Straight(), Straight()]).train(X, holes, ends_at=unknown).predict(X)).all()

def test_a_strategy_by_name():
    "Names of the house, with their variant; several targets; what fits not is said."
    X, y, ends = rows()
    table = pd.concat([y, (y > 0).astype(float).rename("will_peak_2d_1.0")], axis=1)
    each = SingleTaskStrategy("ridge", load_model_config("ridge", "conservative"))
    model = each.train(X, y, ends_at=ends)
    assert model.alpha == 100 and np.array_equal(each.predict(X), model.predict(X))
    several = SingleTaskStrategy("ridge")
    several.train(X[:200], table[:200], X[200:], table[200:])
    assert several.predict(X).shape == (240, 2) and several.predict(X).index.equals(X.index)
    with pytest.raises(ValueError, match="learns one target at a time"): MultiTaskStrategy("ridge").train(X, table)
    with pytest.raises(ConfigError, match="did you mean ridge"): SingleTaskStrategy("rigde").train(X, y)

@pytest.mark.parametrize("p,answer", [([.5, math.nan], "1 of 2 are no probabilities"), ([.5, 1.2], "no probabilities"), ([.5], "one probability a row"), ([-.1, 0], "no probabilities")])
def test_a_gate_is_never_silently_open(p, answer):
    with pytest.raises(ValueError, match=answer): Gate([("p", .5, 0.)]).apply([1., 1.], {"p": p})
    with pytest.raises(ValueError, match="has no probability among none"): Gate().apply([1., 1.], {})

@pytest.mark.parametrize("kind", ["platt", "isotonic", "temperature"])
def test_a_gate_that_recalibrates(kind):
    "It is fitted or refuses; a bold classifier no longer closes it; its words make it again."
    rng = np.random.default_rng(0)
    p = rng.random(500); happened = (rng.random(500) < .5 + .1*(p - .5)).astype(float)
    with pytest.raises(ValueError, match="call fit"): Gate([("p", .8, 0.)], kind).apply([1.], {"p": [.9]})
    gate = Gate([("p", .8, 0.)], kind).fit({"p": p}, {"p": happened})
    assert gate.apply(np.ones(500), {"p": p}).sum() > 450 > Gate([("p", .8, 0.)]).apply(np.ones(500), {"p": p}).sum()
    again = restore_gate(json.loads(json.dumps(gate.about())))
    assert np.array_equal(again.apply(np.ones(500), {"p": p}), gate.apply(np.ones(500), {"p": p}))

# --- selection -----------------------------------------------------------------------------------------------------------------

def test_strength_is_scipys_and_scikit_learns():
    X, y, _ = rows(40)
    X = X.mask(np.random.default_rng(1).random(X.shape) < .1)
    both = X.x0.notna()
    assert strength(X, y)["x0"] == pytest.approx(abs(spearmanr(X.x0[both], y[both])[0]), abs=1e-12)
    assert strength(X, y > 0)["x0"] == pytest.approx(abs(2*roc_auc_score(y[both] > 0, X.x0[both]) - 1), abs=1e-12)

def test_elimination_is_scikit_learns():
    "Given the same folds, the same columns, scores and order."
    X, y, ends = rows(60, 7, 2)
    folds = PurgedFolds(4, X.index.get_level_values(0), ends)
    theirs = RFECV(Straight(), cv=folds, scoring="neg_root_mean_squared_error").fit(X, y)
    mine = recursive_elimination(Straight(), X, y, folds, ends)
    assert mine.names == list(X.columns[theirs.support_]) and mine.ranking.tolist() == theirs.ranking_.tolist()
    assert np.allclose(mine.scores["mean"][::-1], theirs.cv_results_["mean_test_score"], atol=1e-6)

PLANTED = {"named as a target": lambda X, y: y.sample(frac=1, random_state=0).to_numpy(), "next_close": lambda X, y: X.x2, "the outcome itself": lambda X, y: y,
           "the outcome with noise": lambda X, y: y + .3*np.random.default_rng(0).normal(size=len(y)), "its sign": lambda X, y: np.sign(y), "turned round": lambda X, y: -y.rank()}

@pytest.mark.parametrize("kind", PLANTED)
def test_six_leaks_are_found(kind):
    X, y, ends = rows()
    y = (.1*X.x0 + np.random.default_rng(3).normal(size=240)).rename("fwd_ret_2d")
    name = {"named as a target": "fwd_ret_5d", "next_close": "next_close"}.get(kind, "innocent")
    chosen = Selection("importance", Straight(), min_importance=0.).fit(X.assign(**{name: PLANTED[kind](X, y)}), y, ends)
    assert list(chosen.left_out_) == [name] and name not in chosen.names_

def test_honest_names_stay():
    "No feature that the house makes is called like something to come."
    assert not leaky_names([*KINDS, *usual_columns(["open", "high", "low", "close", "volume"])])

def test_a_selection_knows_training_rows_alone():
    X, y, ends = rows()
    for way in "importance", "permutation", "elimination":
        chosen = Selection(way, Straight(), 2, leak_limit=.95).fit(X[:160], y[:160], ends[:160])
        assert sorted(chosen.names_)[:2] == ["x0", "x1"] and json.loads(json.dumps(chosen.about()))["names"] == chosen.names_
    assert too_good(X, y, .99).empty
    with pytest.raises(ValueError, match=r"give PurgedFolds\(5"): permutation_importance(Straight(), X, y, 5)
    with pytest.raises(ValueError, match=r"PurgedFolds\(3\)"): permutation_importance(Straight(), X, y, KFold(3))

# --- search --------------------------------------------------------------------------------------------------------------------

SPACE = {"penalty": {"low": .01, "high": 1e4, "log": True}}

def test_a_grid_is_scikit_learns():
    X, y, ends = rows(60)
    folds, seen = PurgedFolds(4, X.index.get_level_values(0), ends), []
    mine = grid_search("straight", {"penalty": [1., 10., 100.]}, X, y, folds, ends, on_trial=seen.append)
    theirs = GridSearchCV(Straight(), {"penalty": [1., 10., 100.]}, cv=folds, scoring="neg_root_mean_squared_error").fit(X, y)
    assert np.allclose([t.score for t in mine.trials], theirs.cv_results_["mean_test_score"], atol=1e-6) and mine.best.chosen == theirs.best_params_
    assert seen == mine.trials and all(t.seed == t.config["seed"] == 7 for t in seen)
    assert np.isfinite(seen[0].predictions).sum() == 90 and json.loads(json.dumps(mine.about()))["trials"][0]["config"]["penalty"] == 1.
    with pytest.raises(ValueError, match=r"give PurgedFolds\(4"): grid_search("straight", {"penalty": [1.]}, X, y, 4)
    with pytest.raises(ValueError, match=r"PurgedFolds\(4\)"): grid_search("straight", {"penalty": [1.]}, X, y, KFold(4))

def test_what_cannot_be_fitted_counts(tmp_path):
    "A trial that fails is reported with its reason, and chosen by nobody; if all fail the search says so."
    X, y, ends = rows(60)
    folds = PurgedFolds(4, X.index.get_level_values(0), ends)
    found = grid_search("straight", {"penalty": [-1., 1.]}, X, y, folds, ends)
    assert found.trials[0].error.startswith("penalty is -1.0") and found.best.chosen == {"penalty": 1.}
    bad = optuna_search("straight", {"penalty": [-1., -2.]}, X, y, folds, ends, n_trials=3, storage=tmp_path/"j")
    assert [t.error[:12] for t in bad.trials] == ["penalty is -"]*3
    with pytest.raises(ValueError, match="none of 3 configurations"): bad.best
    assert len(optuna_search("straight", {"penalty": [-1., -2.]}, X, y, folds, ends, n_trials=3, storage=tmp_path/"j").trials) == 3
    with pytest.raises(TypeError): tried(0, "straight", {"penalty": 1.}, {}, X, y, folds, ends, scoring=lambda *a: None)

def test_a_killed_driver_goes_on(tmp_path):
    "Killed twice, once after a trial was counted and before the journal knew, once within a line: the same trials, none uncounted."
    X, y, ends = rows(60)
    folds, journal, counted = PurgedFolds(4, X.index.get_level_values(0), ends), tmp_path/"journal", tmp_path/"counted"
    ask = lambda path, on=None, n=7: optuna_search("straight", SPACE, X, y, folds, ends, n_trials=n, storage=path, on_trial=on)
    def report(trial):
        with counted.open("a") as f: f.write(f"{trial.number}\n")
    def die(trial):
        report(trial)
        if trial.number == 2: os._exit(9)
    child = os.fork()
    if not child:
        try: ask(journal, die)
        finally: os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with journal.open("a") as f: f.write('{"op_code": 5, "worker')
    half = ask(journal, report, 4)
    assert [t.predictions is None for t in half.trials] == [True, True, False, False]
    whole, again = ask(tmp_path/"other"), ask(journal, report)
    assert [(t.chosen, t.scores) for t in again.trials] == [(t.chosen, t.scores) for t in whole.trials]
    assert set(counted.read_text().split()) == set("0123456")
    assert len(ask(journal, n=2).trials) == 2
    assert optuna_search("straight", SPACE, X, -y, folds, ends, n_trials=1, storage=journal).trials[0].predictions is not None     # another question

def test_without_optuna(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    X, y, ends = rows(60)
    with pytest.raises(MissingPackage, match="optuna"): optuna_search("straight", SPACE, X, y, PurgedFolds(4, ends_at=ends), ends, storage=tmp_path/"j")


def test_a_family_has_one_word():
    "family=NAME, on the command line, among the presets and in a walk; model=NAME, as other labs say, is told so."
    from synthlab.experiments.lab import get_lab
    from synthlab.experiments.settings_page import list_presets, settings_page
    lab = get_lab("quant")
    with pytest.raises(ConfigError, match="there is no setting model: here it is family"): lab.configure(["model=xgboost"])
    assert list(list_presets("quant")) == [lab.variants] == ["family"] and "model=" not in settings_page("quant")
    assert [lab.configure(typed).family for typed in (["family=xgboost"], ["family=lightgbm", "family=xgboost"], [])] == ["xgboost", "xgboost", "lightgbm"]
    with pytest.raises(ConfigError, match="did you mean xgboost"): lab.configure(["family=xgbost"])

def test_a_complaint_shows_an_override_of_its_own_lab():
    from synthlab.experiments.lab import get_lab
    for name in ("market", "macro", "signal", "quant"):
        with pytest.raises(ConfigError, match="write name=value, such as ") as e: get_lab(name).configure(["training 3"])
        get_lab(name).configure([str(e.value).rpartition(" ")[2]])
