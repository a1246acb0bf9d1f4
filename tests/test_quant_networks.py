"Neural families: one contract, windows that know no future, weights of the best epoch, files that are checked before anything is built."
import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from synthlab.models.families import restore_family
from synthlab.models.registry import registry
from synthlab.models.table_networks import past_rows
from synthlab.trainers.checkpoints import CheckpointError
from synthlab.trainers.family_files import load_family, save_family
from synthlab.trainers.vae_gan import GAN, VAE, column_w1, critic_loss
from synthlab.trainers.multi_task import MultiTask
from synthlab.trainers.network_families import CNN1D, LSTM, MLP, SequenceFamily, Transformer
from synthlab.trainers.table_training import row_losses

SMALL = dict(epochs=2, batch_size=64)
KINDS = {
    "mlp": lambda **k: MLP(**dict(hidden_layers=(16, 8)) | SMALL | k),
    "lstm": lambda **k: LSTM(**dict(lookback=5, units=8) | SMALL | k),
    "cnn1d": lambda **k: CNN1D(**dict(lookback=5, filters=8) | SMALL | k),
    "transformer": lambda **k: Transformer(**dict(lookback=5, d_model=8, num_heads=2, ff_dim=16, layers=1) | SMALL | k),
    "multi_task": lambda **k: MultiTask(**dict(hidden_dim=16) | SMALL | k),
    "vae": lambda **k: VAE(**dict(latent_dim=3, encoder_layers=(16,), decoder_layers=(16,)) | SMALL | k),
    "gan": lambda **k: GAN(**dict(latent_dim=3, generator_layers=(16,), discriminator_layers=(16,), samples=16) | SMALL | k)}
SEQUENCES = "lstm", "cnn1d", "transformer"
DAYS = pd.date_range("2020-01-01", periods=130, tz="UTC")
INDEX = pd.MultiIndex.from_product([DAYS, ["A", "B"]], names=["decided_at", "asset"])

@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads(); torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

@pytest.fixture(scope="module")
def table():
    "260 rows of two assets and five columns, with holes; the outcome is the first column, a tenth of it unknown."
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(260, 5)), INDEX, list("abcde"))
    y = (.01*X.a + .002*rng.normal(size=260)).rename("fwd_ret_2d")
    return X.mask(rng.random(X.shape) < .02), y.mask(rng.random(260) < .1)

@pytest.fixture(scope="module")
def fitted(table):
    return {name: make().fit(*table) for name, make in KINDS.items()}

@pytest.mark.parametrize("name", KINDS)
def test_the_contract(name, table, fitted):
    "Finite predictions of every row, curves of both parts by epoch, the last times held out, importance by name, the same again from words and numbers."
    X, y = table
    family = fitted[name]
    said = family.predict(X)
    assert registry.get_info(name, "family").cls is type(family) and family.train is not None and family.model is family
    assert said.shape == (260,) and np.isfinite(said).all()
    curves = family.evals_result()
    assert len(curves["validation_0"]["rmse"]) == len(curves["validation_1"]["rmse"]) == 2
    held = y[y.notna()].index.get_level_values(0) >= DAYS[-20]
    assert family.held_out_["rows"] == held.sum() and family.held_out_["how"] == "last times"
    importance = family.get_feature_importance()
    assert importance.is_monotonic_decreasing and set(importance.index) == set("abcde") and importance.min() >= 0
    again = restore_family(family.about(), family.state_dict())
    assert np.array_equal(again.predict(X), said) and again.get_feature_importance().equals(importance) and again.evals_result() == curves
    assert all(isinstance(v, torch.Tensor) for v in family.state_dict().values())

@pytest.mark.parametrize("name", KINDS)
def test_a_file_says_the_same_and_a_changed_one_nothing(name, table, fitted, tmp_path):
    path = save_family(fitted[name], tmp_path, symbol="AB")
    assert path.name == f"{name}_AB_2020-05-09.safetensors" and path.with_name(f"{path.stem}_config.json").exists()
    assert np.array_equal(load_family(path).predict(table[0]), fitted[name].predict(table[0]))
    data = bytearray(path.read_bytes()); data[-5] ^= 1; path.write_bytes(data)
    with pytest.raises(CheckpointError): load_family(path)

@pytest.mark.parametrize("name", ["lstm", "multi_task", "gan"])
def test_a_seed_is_a_network(name, table, fitted):
    X, y = table
    torch.manual_seed(99)                                   # nobody else's draws matter
    assert np.array_equal(KINDS[name]().fit(X, y).predict(X), fitted[name].predict(X))
    assert not np.array_equal(KINDS[name](seed=8).fit(X, y).predict(X), fitted[name].predict(X))

@pytest.mark.parametrize("name", KINDS)
def test_yes_or_no_and_a_table_smaller_than_a_batch(name, table):
    X, y = table
    up = (y > 0).astype(float).where(y.notna()).rename("mine")
    family = KINDS[name](batch_size=512, epochs=1).fit(X, up)
    p = family.predict_proba(X)
    assert p.shape == (260, 2) and np.allclose(p.sum(1), 1) and set(family.predict(X)) <= {0, 1}
    assert list(family.evals_result()["validation_1"])[0] == "logloss" and family.held_out_["trained_on"] < 512

@pytest.mark.parametrize("name", [k for k in KINDS if k != "multi_task"])
def test_several_classes(name, table):
    X, y = table
    side = pd.Series(np.digitize(X.a.fillna(0), [-.4, .4]) - 1., INDEX, name="first_touch_3d_1.0")
    family = KINDS[name](epochs=1).fit(X, side)
    assert family.predict_proba(X).shape == (260, 3) and set(family.predict(X)) <= {-1, 0, 1}
    assert np.array_equal(restore_family(family.about(), family.state_dict()).predict_proba(X), family.predict_proba(X))

@pytest.mark.parametrize("name", ["mlp", "vae"])
def test_the_weights_are_those_of_the_best_epoch(name, table):
    "A restored copy that shared memory with the network would show the last epoch; here the last is worse than the best."
    X, y = table
    family = KINDS[name](epochs=12, learning_rate=.05, patience=0, scheduler="none", batch_size=32, dropout=0.).fit(X, y)
    curve = family.evals_result()["validation_1"]["rmse"]
    held = y.notna() & (INDEX.get_level_values(0) >= DAYS[-20])
    now = np.sqrt(np.mean((family.predict(X)[held] - y[held].clip(*family.limits_[0]))**2))
    assert np.isclose(curve, now, rtol=1e-5).any() and not np.isclose(curve[-1], now, rtol=1e-5)
    if name == "mlp": assert np.isclose(min(curve), now, rtol=1e-5)

def test_patience_ends_a_training(table):
    X, y = table
    family = MLP(hidden_layers=(32,), epochs=60, patience=2, learning_rate=.05, scheduler="none", batch_size=32).fit(X, y)
    curve = family.evals_result()["validation_1"]["rmse"]
    assert len(curve) < 60 and len(curve) == np.argmin(curve) + 3

@pytest.mark.parametrize("rows,size", [(9, 4), (2, 512), (3, 1)])
def test_a_batch_of_one_row(rows, size, table):
    X, y = table[0], table[0].a.fillna(0)
    for name in "mlp", "lstm", "cnn1d", "vae":
        family = KINDS[name](epochs=1, batch_size=size, validation=0).fit(X[:rows], y[:rows])
        assert np.isfinite(family.predict(X)).all() and "validation_1" not in family.evals_result()

@pytest.mark.parametrize("name", ["mlp", "lstm", "cnn1d", "transformer", "vae"])
def test_checkpointing_learns_the_same_and_keeps_less(name, table, fitted):
    X, y = table
    assert np.array_equal(KINDS[name](checkpointing=True).fit(X, y).predict(X), fitted[name].predict(X))
    big = dict(batch_size=4096)
    big |= dict(mlp=dict(hidden_layers=(128,)*6), transformer=dict(layers=4), vae=dict(encoder_layers=(64,)*5)).get(name, {})
    plain, less = KINDS[name](**big).memory_estimate((5000, 40)), KINDS[name](checkpointing=True, **big).memory_estimate((5000, 40))
    assert less < plain and plain > 3*5000*40*4/2**20
    if name == "mlp": assert less < .6*plain

@pytest.mark.parametrize("name", SEQUENCES)
def test_a_window_knows_its_own_past_and_nothing_else(name, table, fitted):
    X, family = table[0], fitted[name]
    said = pd.Series(family.predict(X), INDEX)
    early = DAYS[:80]
    other = X.copy()
    other.loc[(slice(None), "B"), :] = 7.                   # another asset
    other.loc[(DAYS[80:], "A"), :] = -7.                    # later rows
    told = pd.Series(family.predict(other), INDEX)
    mine = [(day, "A") for day in early]
    assert np.allclose(told.loc[mine], said.loc[mine], atol=1e-6)
    shuffled = X.sample(frac=1, random_state=1)
    assert np.allclose(pd.Series(family.predict(shuffled), shuffled.index).loc[INDEX], said, atol=1e-6)
    other = X.copy(); other.loc[(DAYS[76:80], "A"), :] = 7.
    assert abs(pd.Series(family.predict(other), INDEX).loc[(DAYS[80], "A")] - said.loc[(DAYS[80], "A")]) > 1e-6

@pytest.mark.parametrize("name", SEQUENCES)
def test_every_row_is_answered_and_the_past_is_remembered(name, table):
    "Days after the training are told the same alone as among all days, also from a file; training rows of unknown outcome are part of that past."
    X, y = table
    y = y.copy(); y.loc[DAYS[96:100]] = np.nan              # purged, yet known as rows
    family = KINDS[name](epochs=1).fit(X.loc[DAYS[:100]], y.loc[DAYS[:100]])
    among = family.predict(X.loc[DAYS[80]:])[40:]
    alone = family.predict(X.loc[DAYS[100]:])
    assert len(alone) == 60 and np.allclose(alone, among, atol=1e-6)
    again = restore_family(family.about(), family.state_dict())
    assert np.array_equal(again.predict(X.loc[DAYS[100]:]), alone)
    assert not np.allclose(family.predict(X.loc[DAYS[100]:].to_numpy())[:2], alone[:2], atol=1e-6)

def test_windows_of_a_panel_by_hand():
    rng = np.random.default_rng(1)
    asset, time = rng.integers(0, 3, 40), rng.permutation(40)
    found = past_rows(asset, time, 4)
    for row in range(40):
        before = [k for k in np.argsort(time) if asset[k] == asset[row] and time[k] <= time[row]][-4:]
        assert found[row].tolist() == [-1]*(4 - len(before)) + before

@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_is_refused(name, fitted):
    words, numbers = fitted[name].about(), fitted[name].state_dict()
    weight = next(k for k in numbers if k.startswith("family/network/") and k.endswith("weight"))
    for bad in (torch.zeros(3), numbers[weight].double(), torch.full_like(numbers[weight], torch.nan), numbers[weight][:-1]):
        with pytest.raises(ValueError): restore_family(words, numbers | {weight: bad})
    with pytest.raises(ValueError): restore_family(words, {k: v for k, v in numbers.items() if k != weight})
    with pytest.raises(ValueError): restore_family(words, numbers | {"family/network/more": torch.zeros(1)})
    with pytest.raises(ValueError): restore_family(words, numbers | {"family/scale": -numbers["family/scale"]})

@pytest.mark.parametrize("name,claim", [("mlp", dict(hidden_layers=[60_000]*50)), ("lstm", dict(units=60_000)), ("transformer", dict(d_model=65_536, layers=60)),
    ("vae", dict(encoder_layers=[60_000]*50)), ("gan", dict(generator_layers=[60_000]*50)), ("multi_task", dict(hidden_dim=10**6)), ("cnn1d", dict(layers=10**6)), ("lstm", dict(lookback=-1))])
def test_a_file_that_claims_gigabytes_costs_nothing(name, claim, fitted):
    words = fitted[name].about()
    if "lookback" in claim: pytest.raises(ValueError, KINDS[name](**claim).fit, np.ones((9, 2)), np.arange(9.)); return
    with pytest.raises(ValueError): restore_family(words | dict(params=words["params"] | claim), fitted[name].state_dict())

@pytest.mark.parametrize("make,word", [(lambda: MLP(optimizer="sgd"), "adam"), (lambda: MLP(weight_decay=.1), "adamw"), (lambda: MLP(activation="x"), "relu"),
    (lambda: MLP(scheduler="step"), "cosine"), (lambda: LSTM(units=1), "units"), (lambda: Transformer(d_model=10, num_heads=4), "multiple"), (lambda: GAN(loss="wgan"), "hinge or wasserstein"),
    (lambda: GAN(loss="wasserstein", label_smoothing=.1), "wasserstein has none"), (lambda: GAN(gradient_penalty=1.), "hinge has none"), (lambda: VAE(kl_weight=-1.), "kl_weight"),
    (lambda: MultiTask(loss_weights="riskfocused"), "risk_focused"), (lambda: MultiTask(loss_weights=[1, 1]), "one for each"), (lambda: CNN1D(epochs=-1), "epochs"), (lambda: MLP(device="tpu"), "cuda")])
def test_a_setting_that_means_nothing_is_refused(make, word, table):
    with pytest.raises(ValueError, match=word): make().fit(*table)

@pytest.mark.parametrize("name", KINDS)
def test_sizes_are_settings(name):
    cls = type(KINDS[name]())
    assert len(cls.sizes) == 3 and {} in cls.sizes.values()
    for settings in cls.sizes.values(): assert cls(**settings).get_params().items() >= settings.items()

@pytest.mark.parametrize("name", ["mlp", "cnn1d"])
def test_importance_finds_what_matters(name, table):
    X, y = table
    assert KINDS[name](epochs=30, batch_size=32, learning_rate=.01).fit(X, y).get_feature_importance().index[0] == "a"

def test_an_interrupted_training_ends_where_another_does(tmp_path, table, fitted):
    X, y = table
    half = KINDS["mlp"]().resumable(tmp_path/"half")
    def unplug(trainer):
        step, taken = trainer.train_step, []
        def one(batch):
            if len(taken) == 4: raise KeyboardInterrupt
            taken.append(1); return step(batch)
        trainer.train_step, trainer.due = one, lambda: True
    half._adjust = unplug
    with pytest.raises(KeyboardInterrupt): half.fit(X, y)
    del half._adjust
    assert np.array_equal(half.fit(X, y).predict(X), fitted["mlp"].predict(X))
    with pytest.raises(ValueError, match="another table"): KINDS["mlp"]().resumable(tmp_path/"half").fit(X + 1, y)

def test_heads_of_several_targets(table):
    "A head without an outcome is not pulled at, weights count, tables come back as tables."
    X, y = table
    both = pd.DataFrame(dict(tth_3d_1=y.where(np.arange(260) % 10 == 0), will_peak_3d_1=(y > 0).astype(float).where(y.notna())), INDEX)
    family = KINDS["multi_task"]().fit(X, both)
    said = family.predict(X)
    assert list(said) == list(both) and said.index.equals(INDEX) and set(said.will_peak_3d_1) <= {0, 1}
    assert list(family.predict_proba(X)) == ["will_peak_3d_1"] and family.get_feature_importance("tth_3d_1").name == "importance"
    first = KINDS["multi_task"](loss_weights={"will_peak_3d_1": 0.}).fit(X, both).predict(X).tth_3d_1
    other = both.assign(will_peak_3d_1=both.will_peak_3d_1.map({0.: 1., 1.: 0.}))
    assert np.array_equal(first, KINDS["multi_task"](loss_weights=[1, 0]).fit(X, other).predict(X).tth_3d_1)
    out = torch.zeros(2, 2, requires_grad=True)
    row_losses(out, torch.tensor([[1., np.nan], [np.nan, 1.]]), ["regression", "binary"]).sum().backward()
    assert out.grad.tolist() == [[-2, 0], [0, -.5]]

@pytest.mark.skipif(importlib.util.find_spec("skfolio") is None, reason="no panel of real prices")
def test_rebuilt_rows_of_real_prices_are_nearer_than_the_mean_in_every_column():
    path = Path(importlib.util.find_spec("skfolio").origin).parent/"datasets"/"data"/"sp500_dataset.csv.gz"
    close = pd.read_csv(path, index_col=0, parse_dates=True).iloc[-900:, :6]
    r = np.log(close).diff()
    columns = {f"ret_{k}": np.log(close).diff(k) for k in (1, 2, 5, 10, 20)} | {f"vol_{k}": r.rolling(k).std() for k in (5, 10, 20)}
    columns |= {f"mean_{k}": close/close.rolling(k).mean() - 1 for k in (5, 20)} | {"ahead": r.shift(-1)}
    X = pd.DataFrame({name: table.stack() for name, table in columns.items()}).dropna()
    X.index = X.index.set_levels(X.index.levels[0].tz_localize("UTC"), level=0).set_names(["decided_at", "asset"])
    y, X = X.pop("ahead").rename("fwd_ret_1d"), X
    days = X.index.get_level_values(0)
    early, late = days < days[int(.7*len(days))], days >= days[int(.75*len(days))]
    vae = VAE(latent_dim=6, encoder_layers=(32,), decoder_layers=(32,), dropout=0., epochs=15, batch_size=128, learning_rate=5e-3)
    latent = vae.train(X[early], y[early])
    assert latent.shape == (early.sum(), 6) and np.array_equal(latent, vae.encode(X[early]))
    scaled = lambda table: (table - X[early].mean())/X[early].std()
    rebuilt = scaled(vae.decode(vae.encode(X[late])).set_index(X[late].index))
    share = ((rebuilt - scaled(X[late]))**2).mean()/(scaled(X[late])**2).mean()
    assert share.max() < .8, share
    dear = VAE(latent_dim=6, encoder_layers=(32,), decoder_layers=(32,), dropout=0., epochs=3, batch_size=128, learning_rate=5e-3, kl_weight=1000.).fit(X[early], y[early])
    assert np.abs(dear.encode(X[late])).std() < .3*np.abs(vae.encode(X[late])).std()

def test_draws(table, fitted):
    "As many as asked, repeatable, in the outcome's unit; means and quantiles of the kept draws do not depend on the company."
    X, gan = table[0], fitted["gan"]
    draws = gan.sample(7, X[:20])
    assert draws.shape == (20, 7) and np.array_equal(draws, gan.sample(7, X[:20])) and not np.array_equal(draws, gan.sample(7, X[:20], seed=1))
    many = gan.sample(400, X[:5])
    assert many.std(1).min() > 0 and np.allclose(many.mean(1), gan.predict(X[:5]), atol=4*many.std()/16**.5)
    distribution = gan.predict_distribution(X)
    assert (np.diff(distribution.quantile([.1, .5, .9]), axis=1) >= 0).all() and np.allclose(distribution.mean, gan.predict(X), atol=.1*many.std())
    assert np.allclose(gan.predict(X[5:6]), gan.predict(X)[5:6], atol=1e-7)
    with pytest.raises(ValueError): gan.sample(0, X)

def test_a_generator_learns_a_spread():
    "Outcomes on either side of zero, twice as wide where the row says so: made ones lie as far out."
    rng = np.random.default_rng(2)
    x = rng.integers(0, 2, (600, 1)).astype(np.float32)
    y = (1 + x[:, 0])*rng.normal(size=600)
    for settings in dict(), dict(loss="wasserstein", discriminator_steps=2):
        gan = GAN(latent_dim=2, generator_layers=(32,), discriminator_layers=(32, 32), discriminator_dropout=0., generator_lr=1e-3, discriminator_lr=2e-3,
                  batch_size=64, epochs=30, patience=0, **settings).fit(x, y)
        narrow, wide = np.diff(gan.predict_distribution(np.array([[0], [1]], np.float32)).quantile([.25, .75]))[:, 0]
        assert 0 < narrow < wide, settings

def test_both_losses_of_the_critic_by_hand():
    real, made = torch.tensor([1., -1.]), torch.tensor([-2., .5])
    assert critic_loss(real, made, "hinge", .1).tolist() == pytest.approx([0, 1.9 + 1.5]) and critic_loss(real, made, "wasserstein").tolist() == [-3, 1.5]
    assert np.allclose(column_w1([[0.], [2.]], [[1.], [3.]]), [1.])

def test_sequence_families_take_arrays_and_dates_of_one_asset(table):
    X, y = table[0].xs("A", level=1), table[1].fillna(0).xs("A", level=1)
    dated, plain = (KINDS["lstm"](epochs=1).fit(a, b) for a, b in ((X, y), (X.to_numpy(), y.to_numpy())))
    assert isinstance(dated, SequenceFamily) and np.array_equal(dated.predict(X), plain.predict(X.to_numpy()))
