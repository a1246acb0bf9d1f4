"Judging of event autoencoders: every number beside scikit-learn or a count by hand, every case of the conclusion, and nothing that a shuffle, a file or a weight of zero can move."
import dataclasses, json, math
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from synthlab.datasets.events import EventLayout, Events
from synthlab.datasets.toy_events import toy_events
from synthlab.labs.events.baselines import principal_errors, supervised_bound
from synthlab.labs.events.conclusion import EVIDENCE, conclude_events, say_beaten, verdict_of
from synthlab.labs.events.judging import (ask_events, event_scores, judge_events, linear_errors, numbers_kept, paired_auroc,
                                          particle_mean)
from synthlab.labs.events.loading import EventData
from synthlab.labs.events.searches import hide_signal, robustness, weakly_supervised
from synthlab.metrics.anomalies import mass_sculpting
from synthlab.trainers.event_objectives import autoencoder_for
from synthlab.trainers.facts import json_text


def asked(**given):
    usual = dict(n_boot=40, level=.9, backgrounds=[.1], corruptions=["gaussian_noise", "token_shuffle"], how="others", samples=100, seed=7)
    return SimpleNamespace(**usual | given)

def model_of(events, latent="none", dim=2, **parts):
    small = dict(encoder=dict(name="mlp", hidden=[8]), decoder=dict(name="mlp", hidden=[8])) | parts
    model = autoencoder_for("ae", events.layout, 0, latent=latent, latent_dim=dim, **small)
    model.scaler.learn(events)
    return model.eval()

@pytest.fixture(scope="module")
def jets(): return EventData(*toy_events(n=400, n_signal=40, tokens=10).values(), ("one_prong",), ("two_prong", "three_prong"))

@pytest.fixture(scope="module")
def few(jets):
    "With so little signal that no classifier is taught on labels, which would take most of the time."
    place = np.array([(jets.test.label[:i] == k).sum() for i, k in enumerate(jets.test.label)])
    return dataclasses.replace(jets, test=jets.test.take((jets.test.label == 0) | (place < 16)))

@pytest.fixture(scope="module")
def objects(): return EventData(*toy_events("objects", n=300, n_signal=60).values(), ("dijets",), ("top_pair",))

@pytest.fixture(scope="module")
def model(jets): return model_of(jets.train, dict(name="vq", codes=16, start="normal"))

@pytest.fixture(scope="module")
def result(jets, model): return judge_events(model, jets, asked())

# scores

def test_an_event_is_asked_by_itself(jets, model):
    "Another order, other events beside it, other padding, another order of its particles: the same numbers of the same event."
    whole, rng = ask_events(model, jets.test), np.random.default_rng(0)
    rows, slots = rng.permutation(len(jets.test)), rng.permutation(10)
    for events, of in ((jets.test.take(rows), rows), (jets.test.take(rows[:7]), rows[:7]),
                       (dataclasses.replace(jets.test, continuous=jets.test.continuous[:, slots], kind=jets.test.kind[:, slots]), slice(None))):
        answers = ask_events(model, events, batch_size=11)
        for name, values in answers.errors.items(): assert np.allclose(values, whole.errors[name][of], atol=1e-4), name
        assert np.allclose(answers.kept, whole.kept[of], atol=1e-4)
    frame = event_scores(model, jets.test)
    assert np.array_equal(frame["codes"], [len(set(c[m])) for c, m in zip(whole.codes, jets.test.mask)])
    assert particle_mean(whole.errors["kind_wrong"], jets.test) == pytest.approx((whole.back.kind != jets.test.kind)[jets.test.mask].mean(), abs=1e-6)

def test_linear_errors_are_scikit_learn_s(jets, model):
    "In columns that the scaler made, as one long row an event, padding at the mean."
    train, test = (e.take(np.arange(60)) for e in (jets.train, jets.test))
    scaled = []
    for e in train, test:
        x = (e.continuous - model.scaler.x_mean.numpy())/model.scaler.x_std.numpy()
        scaled.append(np.where(e.mask[..., None], x, 0).astype(float))
    middle = scaled[0][train.mask].mean(0)
    flat = [np.where(e.mask[..., None], x - middle, 0).reshape(60, -1) for e, x in zip((train, test), scaled)]
    pca = PCA(5).fit(flat[0])
    left = (flat[1] - pca.inverse_transform(pca.transform(flat[1]))).reshape(60, 10, 4)
    found = linear_errors(train, test, model.scaler, 5)
    assert found["PCA"]["reconstruction"] == pytest.approx((left[test.mask]**2).mean(), rel=1e-4)
    assert found["mean"]["delta_eta"] == pytest.approx(((scaled[1][test.mask] - middle)[:, 2]**2).mean(), rel=1e-4)
    assert numbers_kept(model, 10.) == 1 and numbers_kept(model_of(jets.train, dim=3), 10.) == 30
    assert numbers_kept(model_of(jets.train, encoder=dict(name="gnn", d_model=8, event_dim=5)), 10.) == 25

def test_components_are_scikit_learn_s():
    rng = np.random.default_rng(3)
    train, test = (rng.standard_normal((n, 6)) @ rng.standard_normal((6, 6)) for n in (80, 30))
    a, b = ((x - train.mean(0))/train.std(0) for x in (train, test))
    for k in 1, 3: assert np.allclose(principal_errors(train, test, k), ((b - PCA(k).fit(a).inverse_transform(PCA(k).fit(a).transform(b)))**2).mean(1))

def test_the_bound_never_sees_the_event_it_judges(jets):
    "Labels that are noise cannot be found again, weights of zero take an event out of learning, and the answer is the same every time."
    rng = np.random.default_rng(0)
    table, noise = rng.standard_normal((400, 5)), rng.integers(0, 2, 400)
    said = supervised_bound(table, noise)
    assert abs(roc_auc_score(noise, said) - .5) < .1 and np.array_equal(said, supervised_bound(table, noise))
    signal = (table[:, 0] > .5).astype(int)
    assert roc_auc_score(signal, supervised_bound(table, signal)) > .99
    lied = np.where(np.arange(400) < 200, 1 - signal, signal)           # half of the labels are wrong and weigh nothing
    said = supervised_bound(table, lied, np.r_[np.zeros(200), np.ones(200)])
    assert roc_auc_score(signal[200:], said[200:]) > .95
    assert supervised_bound(table, (np.arange(400) < 10).astype(int)) is None

# tables

def test_the_table_is_scikit_learn_s(jets, result):
    scores, test = result["scores"], result["data"].test
    for r in (r for r in result["metrics"]["anomalies"] if r["number"] == "auroc" and not r["matched"] and r["score"] != "supervised"):
        rows = np.isin(test.label, [0, test.classes.index(r["signal"])])
        assert r["value"] == pytest.approx(roc_auc_score(test.label[rows] > 0, scores[r["score"]][rows]), abs=1e-12)
        if r["score"] == "jet mass": assert (r["ahead"], r["ahead_low"], r["ahead_high"]) == (0, 0, 0)
    row = next(r for r in result["metrics"]["anomalies"] if r["score"] == "model" and r["matched"] and r["number"] == "auroc")
    w = result["matching"][row["signal"]]
    rows = w > 0
    assert row["value"] == pytest.approx(roc_auc_score(test.label[rows] > 0, scores["model"][rows], sample_weight=w[rows]), abs=1e-9)
    assert {r["signal"] for r in result["metrics"]["anomalies"]} == set(jets.signal)

def test_who_weighs_nothing_is_not_there(few, model):
    "Every number of a test in which half of the events weigh nothing is that of the other half, where drawing plays no part."
    heavy = np.arange(len(few.test)) % 2 == 0
    weighed = dataclasses.replace(few, test=dataclasses.replace(few.test, weight=heavy.astype(float)))
    half = dataclasses.replace(few, test=few.test.take(heavy))
    one, two = (judge_events(model, d, asked(n_boot=5, samples=40, corruptions=[]))["metrics"] for d in (weighed, half))
    for name in "reconstruction", "kind_wrong", "error_globals", "reconstruction_pca", "kind_wrong_commonest":
        assert one[name] == pytest.approx(two[name], rel=1e-5), name
    value = lambda m: {(r["signal"], r["score"], r["number"]): r["value"] for r in m["anomalies"] if not r["matched"] and r["score"] != "supervised"}
    assert value(one) == pytest.approx(value(two))

def test_pairs_are_counted_by_hand():
    rng = np.random.default_rng(1)
    before, after, w = rng.integers(0, 5, 30), rng.integers(1, 6, 30), rng.integers(0, 3, 30)
    by_hand = sum(a*b*((x < y) + (x == y)/2) for x, a in zip(before, w) for y, b in zip(after, w))/w.sum()**2
    value, low, high = paired_auroc(before.astype(float), after.astype(float), w.astype(float), asked(n_boot=200))
    assert value == pytest.approx(by_hand) and low < value < high
    assert paired_auroc(before*1., before*1., np.ones(30), asked()) == (.5, .5, .5)

def test_weights_of_a_cut_are_repetitions():
    "An event that weighs three counts like three that are alike."
    rng = np.random.default_rng(2)
    mass, w = rng.lognormal(4, .5, 600), rng.integers(1, 4, 600)
    score = mass + rng.normal(0, 20, 600)
    weighed = mass_sculpting(mass, score, bins=8, n_random=1, weights=w)["divergence"]
    edges = np.quantile(mass, np.linspace(0, 1, 9)[1:-1])
    many = np.repeat(mass, w)[np.argsort(-np.repeat(score, w), kind="stable")]
    p, q = (np.bincount(np.searchsorted(edges, m, "right"), minlength=8) for m in (many, many[:round(.1*len(many))]))
    p, q = p/p.sum(), q/q.sum(); entropy = lambda x: -(x[x > 0]*np.log2(x[x > 0])).sum()
    assert weighed == pytest.approx(entropy((p + q)/2) - (entropy(p) + entropy(q))/2, abs=.01)
    with pytest.raises(ValueError, match="not all 0"): mass_sculpting(mass, score, weights=0*w)

# whole tests

def test_a_result_survives_its_file(result, jets, model):
    "Strict JSON and back: the same conclusion; judged again: the same bytes; the model is as it was."
    metrics = result["metrics"]
    reopened = json.loads(json_text(metrics))
    assert conclude_events(reopened) == conclude_events(metrics) and set(EVIDENCE) <= set(metrics)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert json_text(judge_events(model, jets, asked())["metrics"]) == json_text(metrics)
    assert all(v.equal(before[k]) for k, v in model.state_dict().items())
    n = len(result["data"].test)
    assert all(len(v) == n for v in (*result["scores"].values(), *result["matching"].values(), result["latents"], result["codes"], result["answers"]))
    assert metrics["held_out"]["number"] == jets.test.number[jets.test.label == 0].tolist()

@pytest.mark.parametrize("latent", ["linear", "fsq"])
def test_objects_are_judged_by_what_they_say(latent, objects):
    "No jet mass: the sum of momenta is the reference, and is matched, too; events of padding alone are left out and counted."
    test = dataclasses.replace(objects.test, kind=np.where(np.arange(len(objects.test))[:, None] == 3, 0, objects.test.kind))
    data = dataclasses.replace(objects, test=test)
    found = judge_events(model_of(objects.train, latent), data, asked(n_boot=10))
    metrics = found["metrics"]
    assert (metrics["reference"], metrics["matched_on"], len(found["data"].test)) == ("mass of particles", "sum of pT", len(test) - 1)
    assert any("do not say the mass of a jet" in n for n in metrics["notes"]) and any("1 event of the test has no particle" in n for n in metrics["notes"])
    assert (metrics["perplexity"] is None) == (latent == "linear") == (found["codebook"] is None)
    assert set(metrics["errors"]) == set(metrics["mean_errors"]) == set(metrics["pca_errors"]) == set(objects.train.layout.features)
    assert "no codebook" in conclude_events(metrics) if latent == "linear" else "codes (" in conclude_events(metrics)

def test_without_signal_there_is_no_table(jets, model):
    data = dataclasses.replace(jets, test=jets.test.take(jets.test.label == 0), signal=())
    found = judge_events(model, data, asked(n_boot=10))
    assert found["metrics"]["anomalies"] == [] and found["matching"] is None
    assert "**There is no signal in the test**" in conclude_events(found["metrics"])
    absent = judge_events(model, dataclasses.replace(data, signal=("two_prong",)), asked(n_boot=10))["metrics"]
    assert absent["notes"][0] == "The test has no events of two_prong." and "no signal in the test" in conclude_events(absent)

def test_a_layout_that_nobody_knows_is_judged(jets):
    layout = EventLayout(level="hits", tokens=3, features=("charge", "time"), kinds=("padding", "hit"))
    rng = np.random.default_rng(0)
    events = Events(layout, rng.standard_normal((300, 3, 2)), rng.integers(0, 2, (300, 3)), label=np.arange(300) % 2, classes=("quiet", "loud"))
    data = EventData(events.take(np.arange(200)[np.arange(200) % 2 == 0]), events.take([298]), events.take(slice(200, 298)), ("quiet",), ("loud",))
    metrics = judge_events(model_of(data.train), data, asked(n_boot=10))["metrics"]
    assert (metrics["reference"], metrics["matched_on"], metrics["sculpting"]) == ("multiplicity", None, {})
    assert any("say no momentum" in n for n in metrics["notes"]) and "(momentum not matched)" in conclude_events(metrics)

def test_what_cannot_be_drawn_is_said(few):
    metrics = judge_events(model_of(few.train), few, asked(n_boot=10, how="words"))["metrics"]
    assert "There are too few events of two_prong and three_prong for a supervised bound." in metrics["notes"]
    assert "No events were drawn: latent none" in metrics["notes"][-1] and {d["sample"] for d in metrics["distances"]} == {"reconstructions", "train"}

def test_the_other_way_round_has_its_own_data(few, model):
    other = EventData(*toy_events(n=160, n_signal=30, tokens=10, background="two_prong", signal="one_prong", seed=2).values(), ("two_prong",), ("one_prong",))
    metrics = judge_events(model, dataclasses.replace(few, inverse=other), asked(n_boot=10), inverse=model_of(other.train))["metrics"]
    assert {r["signal"] for r in metrics["inverse"]} == {"one_prong"} and metrics["inverse_background"] == ["two_prong"]
    assert "Taught two_prong and asked for one_prong" in conclude_events(metrics)

# searches

def test_what_is_hidden_is_in_one_sample_alone():
    "No event twice; labels that are chance teach nothing about the events themselves, in the mixture or in the test."
    data = EventData(*toy_events(n=900, n_signal=60, tokens=8).values(), ("one_prong",), ("two_prong", "three_prong"))
    for share in 0., .05:
        mixed = hide_signal(data, "two_prong", share, 3)
        numbers = np.concatenate([e.number for e in mixed])
        assert len(set(numbers)) == len(numbers) == len(data.train) + len(data.test) and not mixed.pure.label.any()
        assert (mixed.mixture.label == 1).sum() == round(share/(1 - share)*360)
    blind = hide_signal(data, "two_prong", 0.)
    said = weakly_supervised(blind.pure, blind.mixture, blind.pure)
    assert abs(roc_auc_score(np.repeat([0, 1], 360), np.r_[weakly_supervised(blind.mixture, blind.pure, blind.test).mixture*-1, said.mixture]) - .5) < .1

def test_differences_of_variants_are_brute_force_s():
    "Two independent samples drawn anew side by side give the interval that is put together from their own."
    jets = [EventData(*toy_events(n=600, n_signal=80, tokens=5, seed=s).values(), ("one_prong",), ("three_prong",)) for s in (0, 1)]
    model = model_of(jets[0].train)
    row = robustness(model, dict(zip("ab", jets)), asked(n_boot=200)).set_index(["variant", "score"]).loc[("b", "model")]
    drawn = []
    for data, seed in zip(jets, (5, 6)):
        some, rng = data.test.take(np.isin(data.test.label, [0, 2])), np.random.default_rng(seed)
        score, y = ask_events(model, some).errors["reconstruction"], some.label > 0
        drawn.append([roc_auc_score(y, score, sample_weight=rng.multinomial(len(y), np.full(len(y), 1/len(y)))) for _ in range(120)])
    low, high = np.quantile(np.subtract(drawn[1], drawn[0]), [.05, .95])
    assert row.apart_low == pytest.approx(low, abs=.03) and row.apart_high == pytest.approx(high, abs=.03)

# words

@pytest.mark.parametrize("low,high,events,said", [(.01, .05, 200, "better"), (-.05, -.01, 200, "worse"), (-.01, .01, 200, "level"), (0., .1, 200, "level"),
                                                  (math.nan, math.nan, 200, "level"), (None, None, 200, "level"), (.1, .2, 19, "few")])
def test_a_verdict_needs_an_interval_clear_of_zero(low, high, events, said):
    assert verdict_of(dict(ahead_low=low, ahead_high=high), events) == said

def test_the_matched_table_decides(result):
    "A lead that matching takes away is no lead."
    row = lambda matched, lead: dict(signal="s", score="model", number="auroc", matched=matched, value=.8, low=.7, high=.9, ahead=lead, ahead_low=lead - .01, ahead_high=lead + .01)
    mass = lambda matched: row(matched, 0.) | dict(score="jet mass", ahead_low=0., ahead_high=0.)
    numbers = result["metrics"] | dict(signal=["s"], events=dict(test=dict(s=100)))
    said = lambda *rows: say_beaten(numbers | dict(anomalies=[*rows, mass(False), mass(True)]))[0]
    assert "on no signal" in said(row(False, .1), row(True, -.05)) and "beats jet mass on s" in said(row(False, -.1), row(True, .05))
