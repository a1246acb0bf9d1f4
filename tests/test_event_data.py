"Events of a collider: the record, files, bins, corruptions, labels and batches, against oracles and whatever somebody may give."
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from synthlab.datasets.binned import BinnedTokeniser, circle_edges, which_bin
from synthlab.datasets.corruptions import CORRUPTIONS, corrupt, feature_scale
from synthlab.trainers.event_batches import EventBatches
from synthlab.datasets.event_classes import group_labels, listed, load_events
from synthlab.datasets.event_files import TOKEN_KINDS, file_events, read_root_file, read_split_file, read_token_file
from synthlab.datasets.events import OBJECTS, EventError, EventLayout, Events, join_events, leading_tokens, split_events
from synthlab.datasets.four_vectors import boost, cartesian, cylindrical, delta_r, invariant_mass, rapidity, wrap_angle
from synthlab.datasets.jets import constituent_tokens, padded
from synthlab.datasets.toy_events import simulate_toys, toy_events

SHARED = Path(__file__).parent.parent.parent/"shared"
few = settings(max_examples=40, deadline=None)

def shared(name):
    "A file that lies beside the project, not in it."
    return SHARED/name if (SHARED/name).exists() else pytest.skip(f"{name} is not here")

@pytest.fixture(scope="module")
def toys(): return simulate_toys({"dijets": 120, "top_pair": 60}, "objects")

# four-vectors

def test_four_vectors_of_the_reference():
    with np.load(shared("reference/four_vectors.npz"), allow_pickle=False) as f: ref = dict(f)
    p = cartesian(ref["pt"], ref["eta"], ref["phi"], ref["mass"])
    for k, name in enumerate(("E", "px", "py", "pz")): np.testing.assert_allclose(p[:, k], ref[name], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(rapidity(p), ref["rapidity"], rtol=1e-9, atol=1e-9)
    for name, back in zip(("pt", "eta", "phi", "mass"), cylindrical(p)): np.testing.assert_allclose(back, ref[name], rtol=1e-6, atol=1e-4)
    before = np.roll(p, 1, 0)
    np.testing.assert_allclose(invariant_mass(p + before), ref["pair_mass_prev"], rtol=1e-7)
    np.testing.assert_allclose(delta_r(ref["eta"], ref["phi"], np.roll(ref["eta"], 1), np.roll(ref["phi"], 1)), ref["delta_r_prev"], rtol=1e-9)
    np.testing.assert_allclose(np.abs(wrap_angle(ref["phi"] - np.roll(ref["phi"], 1))), np.abs(ref["delta_phi_prev"]), rtol=1e-9, atol=1e-12)

def test_boosts_are_those_of_vector():
    vector = pytest.importorskip("vector")
    rng = np.random.default_rng(0)
    parent, child = (cartesian(rng.uniform(1, 100, 50), rng.normal(0, 1, 50), rng.uniform(-3, 3, 50), rng.uniform(1, 90, 50)) for _ in range(2))
    named = [vector.array(dict(zip(("E", "px", "py", "pz"), x.T))) for x in (parent, child)]
    theirs = named[1].boost_p4(named[0])
    np.testing.assert_allclose(boost(child, parent), np.stack([theirs.E, theirs.px, theirs.py, theirs.pz], 1), rtol=1e-9, atol=1e-9)

@few
@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=2, max_side=5), elements=st.floats(-1e4, 1e4, width=32)))
def test_angles_wrap_once(x):
    wrapped = wrap_angle(x)
    assert wrapped.dtype == x.dtype and (np.abs(wrapped) <= np.pi).all() and np.array_equal(wrap_angle(wrapped), wrapped)
    np.testing.assert_allclose(np.cos(wrapped.astype(float)), np.cos(x.astype(float)), atol=2e-3)

# the record

@st.composite
def records(draw):
    n, T = draw(st.integers(0, 4)), draw(st.integers(1, 4))
    layout = EventLayout(level="any", tokens=T, features=("pt", "phi"), angles=("phi",), kinds=("padding", "a", "b"), globals=("met",))
    number = st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf])
    kind = draw(hnp.arrays(np.int64, (n, T), elements=st.integers(-1, 3)))
    return layout, draw(hnp.arrays(np.float32, (n, T, 2), elements=number)), kind, draw(hnp.arrays(np.float32, (n, 1), elements=number))

@few
@given(records())
def test_a_record_is_whole_or_refused_in_a_sentence(record):
    layout, continuous, kind, globals_ = record
    wrong = ((kind < 0) | (kind > 2)).any() or not np.isfinite(continuous[kind > 0]).all() or not np.isfinite(globals_).all()
    try: events = Events(layout, continuous, kind, globals_)
    except EventError as error: assert wrong and "\n" not in str(error) and ";" in str(error)
    else:
        assert not wrong and np.isfinite(events.continuous).all() and not events.continuous[kind == 0].any()
        assert np.array_equal(events.continuous[kind > 0], continuous[kind > 0])
        assert EventLayout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
        if len(events): assert len(join_events(events, events)) == 2*len(events)

@few
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=4) | st.dictionaries(st.sampled_from(["level", "tokens", "features", "kinds", "angles", "x"]), x, max_size=6), max_leaves=12))
def test_a_layout_from_anywhere_is_one_or_refused(facts):
    try: layout = EventLayout.from_dict(facts)
    except EventError: return
    assert layout.kinds[0] == "padding" and layout.tokens >= 1

@few
@given(st.lists(st.integers(0, 2), min_size=1, max_size=60), st.floats(0, .3), st.floats(.3, 1), st.integers(0, 5))
def test_no_event_is_in_two_parts(label, hidden, kept, seed):
    n = len(label)
    events = Events(OBJECTS, np.ones((n, 18, 4)), np.ones((n, 18), int), np.ones((n, 2)), label, classes=("a", "b", "c"))
    try: parts = split_events(events, "a", None, hidden, kept, seed=seed)
    except EventError as error: assert "lower" in str(error); return
    numbers = np.concatenate([p.number for p in parts.values()])
    assert len(set(numbers)) == len(numbers)
    odd = sum((p.label > 0).sum() for name, p in parts.items() if name != "test")
    usual = sum((p.label == 0).sum() for name, p in parts.items() if name != "test")
    assert abs(odd - hidden/(1 - hidden)*usual) <= 1 and not (hidden == 0 and odd)

def test_padding_counts_for_no_scale(toys):
    "Defect 6: what is learnt of particles does not know how many slots are empty, or what stood there."
    wide = Events(EventLayout.from_dict(toys.layout.to_dict() | {"tokens": 30}), np.pad(toys.continuous, ((0, 0), (0, 12), (0, 0)), constant_values=999.),
                  np.pad(toys.kind, ((0, 0), (0, 12))), toys.globals, toys.label, classes=toys.classes)
    np.testing.assert_array_equal(feature_scale(wide), feature_scale(toys))
    assert np.array_equal(BinnedTokeniser.learn(wide).encode(wide)[:, :18], BinnedTokeniser.learn(toys).encode(toys)[:, :18])

def test_leading_tokens_are_the_hardest(toys):
    eight = leading_tokens(toys, 8)
    pt = np.sort(toys.feature("pt"), 1)[:, ::-1][:, :8]
    assert np.array_equal(eight.feature("pt"), pt) and eight.layout.tokens == 8

# tokens of jets

@few
@given(st.integers(0, 3), st.integers(0, 6), st.integers(1, 5), st.integers(0, 9))
def test_jets_of_any_number_of_particles(n, m, tokens, seed):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 6, (n, m))
    p = cartesian(rng.exponential(10, (n, m)) + 1, rng.normal(0, 1, (n, m)), rng.uniform(-3, 3, (n, m)))
    seen = constituent_tokens(p, kind, tokens)
    assert seen["continuous"].shape == (n, tokens, 4) and np.isfinite(seen["continuous"]).all() and np.isfinite(seen["globals"]).all()
    assert np.array_equal((seen["kind"] > 0).sum(1), np.minimum((kind > 0).sum(1), tokens))
    assert np.array_equal(seen["truth"]["multiplicity"], (kind > 0).sum(1))

@few
@given(st.lists(st.integers(-1, 3), max_size=12))
def test_rows_side_by_side(group):
    group = np.array(group, int)
    out = padded(1 + np.arange(len(group)), group, 4)
    for g in range(4): assert out[g][out[g] > 0].tolist() == (1 + np.flatnonzero(group == g)).tolist()

# bins

def test_bins_by_the_numbers_of_the_brief():
    edge = dict.fromkeys(("pt", "eta", "phi", "met", "met_phi"), [1., 2., 3., 4.])
    words = BinnedTokeniser(edge)
    assert (words.objects, words.objects + 1, words.objects + 6, words.vocabulary) == (875, 876, 881, 886)
    values = np.arange(5) + .5
    for kind in range(1, 8):
        for a, b, c in np.ndindex(5, 5, 5):
            event = Events(OBJECTS, np.tile([[[1, values[a], values[b], values[c]]]], (1, 18, 1)), np.full((1, 18), kind), [[values[a], values[b]]])
            assert words.encode(event).tolist() == [[125*(kind - 1) + 25*a + 5*b + c + 1]*18 + [876 + a, 881 + b]]

def test_every_bin_is_used(toys):
    "Defect 8: four edges are five bins, a fifth each, and the circle is cut into equal parts."
    words = BinnedTokeniser.learn(toys)
    bins = words.decode(words.encode(toys))
    for name in "pt", "eta", "phi":
        share = np.bincount(bins[name][toys.mask], minlength=5)/toys.mask.sum()
        assert len(share) == 5 and (np.abs(share - .2) < (.002 if name != "phi" else .06)).all()
    np.testing.assert_allclose(np.diff(circle_edges(5)), 2*np.pi/5)
    assert which_bin(np.array([-np.pi, np.pi]), circle_edges(5)).tolist() == [0, 4]

@few
@given(hnp.arrays(np.int64, (2, 5), elements=st.integers(-2, 900)))
def test_words_from_anywhere(words):
    tokeniser = BinnedTokeniser(dict.fromkeys(("pt", "eta", "phi", "met", "met_phi"), [1., 2., 3., 4.]))
    good = ((words[:, :3] >= 0) & (words[:, :3] <= 875)).all() and (words[:, 3]//1 >= 876).all() and (words[:, 3] <= 880).all() and (words[:, 4] >= 881).all() and (words[:, 4] <= 885).all()
    if not good:
        with pytest.raises(EventError, match="no words"): tokeniser.decode(words)
    else: assert (tokeniser.decode(words)["kind"] <= 7).all()

# corruptions

@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_a_corruption_is_of_the_event_and_the_seed(name, toys):
    "Defect 9: everything random comes from the seed; whoever else is there, and in which order, changes nothing."
    if name == "scramble_globals": same = corrupt(toys, name, 5), corrupt(toys, name, 5)
    else:
        rows, more = np.random.default_rng(0).permutation(len(toys))[:20], {"scale": feature_scale(toys)} if name == "gaussian_noise" else {}
        np.random.seed(0); torch.manual_seed(0)
        same = corrupt(toys, name, 5, **more).take(rows), corrupt(toys.take(rows), name, 5, **more)
    for field in "continuous", "kind", "globals", "label", "number": assert np.array_equal(*(getattr(e, field) for e in same))
    changed = [corrupt(toys, name, seed) for seed in (5, 6)]
    assert any(not np.array_equal(*(getattr(e, field) for e in changed)) for field in ("continuous", "kind", "globals"))

@few
@given(st.floats(0, 20), st.integers(0, 99))
def test_noise_leaves_events_that_can_be(std, seed):
    "Defect 9: clamps hold in physical units, also far from the mean."
    events = simulate_toys({"dijets": 4, "top_pair": 4}, "objects", seed=seed)
    noisy = corrupt(events, "gaussian_noise", seed, std=std)
    e, pt, eta, phi = (noisy.feature(f).astype(float) for f in OBJECTS.features)
    assert (pt >= 0).all() and (np.abs(eta) <= 5).all() and (np.abs(phi) <= np.pi + 1e-6).all() and np.array_equal(noisy.kind, events.kind)
    assert (e >= pt*np.cosh(eta)*(1 - 1e-5)).all() and not noisy.continuous[noisy.kind == 0].any()
    jets = corrupt(simulate_toys({"one_prong": 3}, seed=seed), "gaussian_noise", seed, std=std)
    assert (jets.feature("log_pt_share") <= 0).all()

# labels

@pytest.mark.parametrize("text", ["1,2", "1:2", "[1,2]", [1, 2], "[1, 2]", "(1:2)"])
def test_lists_as_the_command_line_writes_them(text): assert listed(text) == [1, 2]

def test_groups_come_before_signal_and_selection(toys):
    everything = dict(label_groups={"x": 1}, signal_vs_background={"signal": 0, "background": 1}, selected_labels="0,1")
    assert group_labels(toys, **everything).classes == ("x",)
    assert group_labels(toys, **everything | {"label_groups": None}).classes == ("background", "signal")
    assert group_labels(toys, selected_labels="TOP_PAIR").classes == ("top_pair",)

@few
@given(st.one_of(st.text(max_size=12), st.integers(), st.lists(st.one_of(st.text(max_size=4), st.integers(-3, 9)), max_size=4), st.none(), st.floats()))
def test_labels_from_anywhere(given_labels):
    events = simulate_toys({"dijets": 3, "top_pair": 3}, "objects")
    try: chosen = group_labels(events, selected_labels=given_labels)
    except EventError as error: assert "\n" not in str(error).replace(repr(given_labels), "")
    else: assert set(chosen.classes) <= {"dijets", "top_pair"}

# files

@pytest.fixture
def h5():
    return pytest.importorskip("h5py", reason="h5py is not here")

def test_the_token_file_beside_the_project(h5):
    events = read_token_file(shared("data/hep_events_tokens.h5"))
    assert (len(events), events.mask.sum(), events.layout.kinds) == (2421, 6989, TOKEN_KINDS)
    assert (~events.mask.any(1)).sum() == 5 and events.layout.features == OBJECTS.features and events.layout.tokens == 16
    assert len(np.unique(events.weight)) == 38
    parts = load_events(shared("data/hep_events_tokens.h5"), seed=1)
    batches = EventBatches(parts["train"], 500)
    seen = [batches.batch(0, k) for k in range(len(batches))]
    assert sum(len(b["index"]) for b in seen) == 1937 and sum((b["kind"] == 0).all(1).sum() for b in seen) >= 1

def test_a_file_that_is_generated(h5):
    events = read_token_file(shared("data/hep_zjets_partons.h5"), limit=500)
    e, pt, eta, phi = (events.feature(f)[:, :2] for f in OBJECTS.features)
    two = events.mask.sum(1) == 2
    np.testing.assert_allclose(pt[two, 0], pt[two, 1], rtol=1e-4)
    np.testing.assert_allclose(np.cos(phi[two, 0] - phi[two, 1]), -1, atol=1e-4)

def test_root_is_the_same_as_its_tokens(h5):
    pytest.importorskip("uproot")
    root, tokens = read_root_file(shared("data/hep_events.root"), 16), read_token_file(shared("data/hep_events_tokens.h5"))
    alike = np.array([0, 1, 2, 3, 3, 4, 4, 5])          # kinds without their charge
    assert np.array_equal(np.sort(alike[root.kind], 1), np.sort(tokens.kind, 1))
    np.testing.assert_allclose(root.feature("pt"), tokens.feature("pt"), rtol=1e-5)
    np.testing.assert_allclose(root.globals, tokens.globals, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(root.weight, tokens.weight)

def split_file(h5, path, n=6, labels=("Y_train", "y_val", "y_test"), width=92):
    rng = np.random.default_rng(0)
    with h5.File(path, "w") as file:
        for part, name in zip(("train", "val", "test"), labels):
            kinds = rng.integers(0, 8, (n, 18))
            rows = np.hstack([kinds, rng.uniform(1, 3, (n, width - 18))])
            file[f"X_{part}"], file[name] = rows.astype("f4"), 1 + np.arange(n) % 5
    return path

def test_labels_of_mixed_case(h5, tmp_path):
    for labels in ("Y_train", "y_val", "y_test"), ("y_TRAIN", "Y_Val", "Y_test"):
        parts = read_split_file(split_file(h5, tmp_path/"a.h5", labels=labels))
        assert all(p.label.tolist() == [1, 2, 3, 4, 5, 1] for p in parts.values())
        assert parts["train"].classes[1:] == ("4t", "ttH", "ttW", "ttWW", "ttZ")
    bare = read_split_file(split_file(h5, tmp_path/"b.h5", width=90))
    assert bare["train"].layout.globals == ()

def test_split_files_keep_their_split(h5, tmp_path):
    path = split_file(h5, tmp_path/"a.h5", n=50)
    parts = file_events(path, background=["ttH", "ttW"], signal="4t", contamination=.2)
    counts = {k: np.bincount(v.label, minlength=6)[1:4].tolist() for k, v in parts.items()}
    assert counts == {"train": [5, 10, 10], "validation": [5, 10, 10], "test": [10, 10, 10]}
    with pytest.raises(EventError, match="need a background"): file_events(path, contamination=.1)

@pytest.mark.parametrize("spoil,said", [
    (lambda f, h5: f.__setitem__("Tokens", f["tokens"][:]), "keep one"),
    (lambda f, h5: (f.__delitem__("tokens"), f.__setitem__("tokens", h5.ExternalLink("/etc/passwd", "x"))), "points elsewhere"),
    (lambda f, h5: (f.__delitem__("tokens"), f.__setitem__("tokens", h5.SoftLink("/mask"))), "points elsewhere"),
    (lambda f, h5: (f.__delitem__("tokens"), f.create_dataset("tokens", (1 << 30, 16, 5), "f4", chunks=(64, 16, 5))), "split the file"),
    (lambda f, h5: (f.__delitem__("tokens"), f.create_dataset("tokens", (2, 16, 5), "f4", external=[("/etc/passwd", 0, 640)])), "lies in another file"),
    (lambda f, h5: (f.__delitem__("tokens"), f.__setitem__("tokens", np.array(["a"], "S1"))), "no array of numbers"),
    (lambda f, h5: f.attrs.__setitem__("token_columns", "[type"), "no JSON"),
    (lambda f, h5: f.attrs.__setitem__("type_codes", '{"a": 1}'), "number the types"),
    (lambda f, h5: f["tokens"].__setitem__((0, 0, 1), -5.), "negative pt"),
    (lambda f, h5: f["tokens"].__setitem__((0, 0, 2), np.nan), "eta is nan"),
    (lambda f, h5: f["tokens"].__setitem__((0, 0, 0), 1.5), "kind 1.5"),
    (lambda f, h5: f["mask"].__setitem__((1, 1), 1), "without a type")])
def test_what_is_wrong_with_a_file_is_said(spoil, said, h5, tmp_path):
    path, tokens = tmp_path/"a.h5", np.zeros((2, 2, 5), "f4")
    tokens[0, 0] = 1, 50, .5, 1, 60
    with h5.File(path, "w") as f:
        f["tokens"], f["mask"], f["globals"] = tokens, (tokens[..., 0] > 0).astype("u1"), np.zeros((2, 3))
        spoil(f, h5)
    with pytest.raises(EventError, match=said) as error: file_events(path)
    assert "a.h5" in str(error.value) and "\n" not in str(error.value)

@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_read(tmp_path_factory, data):
    "Any bytes in any place of a good file: events, or one sentence."
    h5 = pytest.importorskip("h5py")
    folder = tmp_path_factory.mktemp("h5")
    whole = bytearray(split_file(h5, folder/"a.h5", n=2).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))): whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    (folder/"b.h5").write_bytes(whole[:data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try: parts = file_events(folder/"b.h5")
    except EventError as error: assert "\n" not in str(error)
    else: assert all(np.isfinite(p.continuous).all() for p in parts.values())

def test_a_damaged_root_file(tmp_path):
    pytest.importorskip("uproot")
    good, rng = shared("data/hep_events.root").read_bytes(), np.random.default_rng(0)
    for k in range(6):
        bad = bytearray(good if k % 2 else good[:rng.integers(0, len(good))])
        for at in rng.integers(0, min(len(bad), 4000), 20): bad[at] = rng.integers(0, 256)
        (tmp_path/"a.root").write_bytes(bad)
        try: read_root_file(tmp_path/"a.root", limit=5)
        except EventError as error: assert "a.root" in str(error) and "\n" not in str(error)

# batches

@few
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 9), st.integers(1, 3))
def test_every_event_comes_once_an_epoch(n, size, epoch, world):
    events = simulate_toys({"dijets": n}, "objects", tokens=4).take(slice(None, None, -1))
    batches = EventBatches(events, size, seed=3)
    seen = [batches.batch(epoch, k, rank, world)["index"] for k in range(len(batches)) for rank in range(world)]
    assert sorted(torch.cat(seen).tolist()) == sorted(events.number.tolist())
    again = EventBatches(events, size, seed=3)
    assert all(torch.equal(again.batch(epoch, k)["continuous"], batches.batch(epoch, k)["continuous"]) for k in reversed(range(len(batches))))

def test_a_batch_has_no_truth(toys):
    jets = toy_events(n=10, n_signal=5)["test"]
    assert jets.truth and set(EventBatches(jets).batch(0, 0)) == {"continuous", "kind", "globals", "weight", "label", "index"}
    assert "jet_mass" not in jets.layout.globals

def test_a_missing_file_is_answered_with_a_file_of_events(tmp_path):
    for folder in "jets.h5.old", "jets": (tmp_path/folder).mkdir()
    (tmp_path/"jets_2020.hdf5").write_bytes(b""); (tmp_path/"jets.txt").write_text("")
    with pytest.raises(EventError, match="jets.h5: there is no file; did you mean jets_2020.hdf5"): file_events(tmp_path/"jets.h5")

def test_a_source_of_ones_own_is_asked_for_what_it_has_settings_for():
    "Asked for events to judge, it is told the level and the slots of the model where it takes them, and is not refused where it does not."
    from synthlab.datasets.events import EVENT_SOURCES, register_event_source
    from synthlab.datasets.toy_events import toy_events
    from synthlab.labs.events.loading import asked_events
    try:
        @register_event_source("plain")
        def plain(n: int = 12): return toy_events(n=n, n_signal=4, tokens=5)
        @register_event_source("slotted")
        def slotted(tokens: int = 9): return toy_events(n=12, n_signal=4, tokens=tokens)
        assert asked_events("plain", "constituents", 7).layout.tokens == 5 and asked_events("slotted", "constituents", 7).layout.tokens == 7
    finally: EVENT_SOURCES.pop("plain", None); EVENT_SOURCES.pop("slotted", None)

def test_a_source_that_takes_anything_is_told_what_is_set():
    "Its settings are asked for in one way everywhere: what is set is told, and nothing that it takes is refused."
    from synthlab.datasets.events import EVENT_SOURCES
    from synthlab.labs.events.loading import source_settings
    from synthlab.labs.events.settings import EventsData
    EVENT_SOURCES["anything"] = lambda **options: options
    try: assert source_settings(EventsData(source="anything", level="objects", n=50)).items() >= dict(level="objects", n=50).items()
    finally: EVENT_SOURCES.pop("anything", None)

def test_a_split_file_is_asked_with_the_slots_of_the_model(tmp_path):
    h5py = pytest.importorskip("h5py")
    from synthlab.labs.events.loading import asked_events
    rows = np.zeros((3, 5*4), "f4"); rows[:, 0], rows[:, 4:8] = 1, (60, 50, .5, 1)
    with h5py.File(tmp_path/"four.h5", "w") as file:
        for part in ("train", "val", "test"): file[f"X_{part}"], file[f"Y_{part}"] = rows, np.ones(3)
    assert asked_events(str(tmp_path/"four.h5"), "objects", 4).layout.tokens == 4
