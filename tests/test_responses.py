"""Splits that hold out what they say, and batches that hold all of what they should."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils.data import DataLoader

from synthlab.datasets.generate import generate_dataset
from synthlab.datasets.response_batches import IRFDataset, ResponseBatches, collate_mixed_worlds, collate_single_world, load_split, split_name
from synthlab.datasets.responses import (DEALT, REGION_NAMES, SPLIT_NAMES, construct_all_splits, deal, regions, split_lowo,
    validate_splits)
from synthlab.datasets.world import Parameters, World
from synthlab.datasets.worlds import ORDER, get_world

WORLDS = ["lss", "nk", "var"]
SIZES = {"lss": (36, 2), "var": (27, 3), "nk": (12, 3)}

@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("responses")/"store"
    generate_dataset(folder, WORLDS, n={"lss": 90, "nk": 75, "var": 40}, T=16, horizon=40, block=20, progress=False)
    return folder

@pytest.fixture(scope="module")
def draws():
    "Draws of all worlds, made once."
    made = {}
    def sample(name):
        if name not in made: made[name] = get_world(name).sample(400 if name == "zlb" else 1000, seed=5)
        return made[name]
    return sample

# --- regions and splits --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ORDER)
def test_no_training_draw_lies_in_a_region(name, draws):
    "Nor one of validation or of the interpolation test; and every draw of a region is in its test."
    theta, world = draws(name), get_world(name)
    splits, inside = construct_all_splits(theta, name, seed=5), regions(name, theta)
    validate_splits(splits, len(theta))
    assert tuple(splits) == SPLIT_NAMES and tuple(inside) == REGION_NAMES
    for part in SPLIT_NAMES[:3]:
        for region in REGION_NAMES: assert not inside[region][splits[part]].any(), (part, region)
        assert not any(v.any() for v in regions(world, theta[splits[part]]).values())       # asked again of the part alone
    assert np.array_equal(splits["test_extrapolation_slice"], np.flatnonzero(inside["slice"]))
    assert np.array_equal(splits["test_extrapolation_corner"], np.flatnonzero(inside["corner"] & ~inside["slice"]))

@pytest.mark.parametrize("name", ORDER)
def test_regions_are_a_usable_part_of_the_prior(name, draws):
    splits = construct_all_splits(draws(name), name, seed=5)
    n = len(draws(name))
    for part in SPLIT_NAMES[3:]: assert .012 < len(splits[part])/n < .07, (part, len(splits[part]))
    assert len(splits["train"])/n > .7

@pytest.mark.parametrize("name", ORDER)
def test_a_region_is_a_fixed_set(name, draws):
    "What is inside does not depend on the company."
    theta = draws(name)
    whole = regions(name, theta)
    for rows in (slice(0, 7), slice(100, 200)): assert all(np.array_equal(regions(name, theta[rows])[k], whole[k][rows]) for k in whole)

@pytest.mark.parametrize("name,theta,inside", [
    ("nk", {"phi_pi": [3.39, 3.41]}, "slice"), ("nk", {"rho_r": [.75, .8], "sigma_r": .018}, "corner"), ("nk", {"rho_r": .8, "sigma_r": [.016, .018]}, "corner"),
    ("rbc", {"rho_a": [.949, .951]}, "slice"), ("rbc", {"rho_a": .9, "sigma_a": [.01, .019]}, "corner"), ("switching", {"p11": [.98, .985]}, "slice"),
    ("zlb", {"r_ss": [.7, .6]}, "slice"), ("zlb", {"rho_r": [.65, .75], "sigma_r": .016}, "corner")])
def test_both_sides_of_a_threshold(name, theta, inside):
    world = get_world(name)
    assert regions(world, world.parameters.tensor(theta))[inside].tolist() == [False, True]

def test_the_radius_of_a_companion():
    "A state space and an autoregression with a known largest eigenvalue, on both sides."
    lss, var = get_world("lss"), get_world("var")
    theta = lss.parameters.tensor().repeat(2, 1)
    theta[:, :16] = torch.stack([torch.diag(torch.tensor([r, .1, .2, .3])).flatten() for r in (.93, .94)])
    assert regions(lss, theta)["slice"].tolist() == [False, True]
    theta = var.parameters.tensor().repeat(2, 1)
    theta[:, 3:21] = 0
    for k, r in enumerate((.92, .93)): theta[k, 12] = r**2                  # y' = r² y₋₂: eigenvalues ±r
    assert regions(var, theta)["slice"].tolist() == [False, True]

def test_unknown_worlds_hold_nothing_out():
    class Own(World):
        name, shocks, parameters = "own", ("e",), Parameters(("a",), (0.,), (1.,), (.5,))
    theta = torch.rand(50, 1)
    assert not any(v.any() for v in regions(Own(), theta).values())
    splits = construct_all_splits(theta, Own())
    assert [len(v) for v in splits.values()] == [40, 5, 5, 0, 0]
    with pytest.raises(ValueError, match="there is no world 'owl'"): regions("owl", theta)

@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 10**9), st.sampled_from(ORDER))
def test_more_draws_move_none(few, more, seed, world):
    one, all_ = deal(few, world, seed), deal(few + more, world, seed)
    assert np.array_equal(one, all_[:few])
    whole = all_[:len(all_)//10*10].reshape(-1, 10)
    assert all(np.array_equal(np.bincount(row, minlength=3), DEALT) for row in whole)

def test_parts_have_their_sizes(draws):
    "Of what is not held out: .8, .1, .1."
    for name in ORDER[:4]:
        splits = construct_all_splits(draws(name), name, seed=5)
        left = sum(len(splits[k]) for k in SPLIT_NAMES[:3])
        for part, share in zip(SPLIT_NAMES, (.8, .1, .1)): assert abs(len(splits[part])/left - share) < .015, (name, part)

def test_splits_of_worlds_and_seeds_differ(draws):
    a, b, c = (construct_all_splits(draws("nk"), "nk", seed)["validation"] for seed in (5, 5, 6))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    assert not np.array_equal(deal(500, "nk", 5), deal(500, "zlb", 5))

@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.integers(2, 40), st.integers(0, 10**6), st.sampled_from(["overlap", "gap", "twice", "beyond", "negative"]))
def test_wrong_splits_are_refused(n, seed, fault):
    rng = np.random.default_rng(seed)
    where = rng.integers(0, 3, n); where[:2] = 0, 1
    splits = {k: np.flatnonzero(where == i).tolist() for i, k in enumerate(SPLIT_NAMES[:3])}
    validate_splits(splits, n)
    if fault == "overlap": splits["train"].append(splits["validation"][0]); says = "is in .* and in|in .* and in"
    elif fault == "gap": splits["train"].pop(); says = "in no part, the first is"
    elif fault == "twice": splits["train"].append(splits["train"][-1]); says = "more than once"
    elif fault == "beyond": splits["train"].append(n); says = f"has the draw {n}"
    else: splits["train"].append(-1); says = "has the draw -1"
    with pytest.raises(ValueError, match=says): validate_splits(splits, n)

def test_a_world_is_left_out():
    assert split_lowo(ORDER, "rbc") == (["lss", "var", "nk", "switching", "zlb"], ["rbc"])
    for name in ORDER: assert split_lowo(ORDER, name)[0] == [w for w in ORDER if w != name]
    with pytest.raises(ValueError, match="did you mean rbc"): split_lowo(ORDER, "rcb")

# --- samples and collating -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_of_mixed_worlds(workers, root):
    "The example of the documentation: three worlds, shuffled, in batches of 64."
    dataset = IRFDataset(zarr_root=str(root), world_ids=WORLDS, split="train")
    loader = DataLoader(dataset, batch_size=64, shuffle=True, collate_fn=collate_mixed_worlds, num_workers=workers, generator=torch.Generator().manual_seed(0))
    seen = []
    for batch in loader:
        B = len(batch["world_ids"])
        widest = [max(SIZES[w][k] for w in batch["world_ids"]) for k in (0, 1)]
        assert batch["theta"].shape == (B, widest[0]) == batch["theta_mask"].shape
        assert batch["irf"].shape == (B, widest[1], 41, 3) and batch["irf_mask"].shape == (B, widest[1])
        for i, (world, index) in enumerate(zip(batch["world_ids"], batch["sample_indices"].tolist())):
            P, S = SIZES[world]
            assert batch["theta_mask"][i].tolist() == [True]*P + [False]*(widest[0] - P) and batch["irf_mask"][i].sum() == S
            assert (batch["theta"][i, P:] == 0).all() and (batch["irf"][i, S:] == 0).all()
            assert torch.equal(batch["irf"][i, :S], torch.from_numpy(dataset.store.read(world, "irfs", index, index + 1)[0]))   # all shocks
            assert i in batch["world_groups"][world]
            seen.append((world, index))
    splits = {w: dataset.store.splits(w)["train"] for w in WORLDS}
    assert sorted(seen) == sorted((w, i) for w in WORLDS for i in splits[w].tolist())

def test_history_comes_on_request(root):
    plain, more = IRFDataset(root, "lss", "val"), IRFDataset(root, ["lss", "var"], "val", history=True)
    assert set(plain[0]) == {"theta", "irf", "world_id", "sample_idx"} and set(more[0]) == set(plain[0]) | {"history", "shocks"}
    batch = collate_mixed_worlds([more[0], more[len(more) - 1]])
    assert batch["history"].shape == (2, 16, 3) and batch["shocks"].shape == (2, 16, 3)
    assert (batch["shocks"][0, :, 2] == 0).all() and (batch["shocks"][1, :, 2] != 0).any()

def test_one_world_is_stacked(root):
    one, two = IRFDataset(root, ["lss"], "train"), IRFDataset(root, WORLDS, "train")
    batch = collate_single_world([one[i] for i in range(5)])
    assert batch["theta"].shape == (5, 36) and batch["irf"].shape == (5, 2, 41, 3) and batch["world_id"] == "lss"
    with pytest.raises(ValueError, match="samples of lss, var; use collate_mixed_worlds"): collate_single_world([two[0], two[len(two) - 1]])

def test_from_disk_as_from_memory(root):
    a, b = (IRFDataset(root, WORLDS, "train", history=True, in_memory=m) for m in (True, False))
    for i in (0, 7, 100, len(a) - 1, -1):
        assert all(torch.equal(a[i][k], b[i][k]) if isinstance(a[i][k], torch.Tensor) else a[i][k] == b[i][k] for k in a[i])
    with pytest.raises(IndexError, match=f"there are {len(a)}"): a[len(a)]

def test_what_a_dataset_says(root):
    dataset = IRFDataset(root, ["nk", "lss"], "test_interpolation")
    info = dataset.get_world_info("nk")
    assert (info["n_params"], info["n_shocks"], info["n_samples"], info["horizon"]) == (12, 3, 75, 40)
    assert info["param_names"][3] == "phi_pi" and info["param_bounds"][3] == (1.05, 3.5) and info["observable_names"] == ["output", "inflation", "rate"]
    with pytest.raises(ValueError, match="no world 'mk'; did you mean nk"): dataset.get_world_info("mk")
    for bad, says in (({"split": "test"}, "no split 'test'; did you mean test_interpolation|no split 'test'"), ({"world_ids": ["nk", "hank"]}, "no world 'hank'"), ({"world_ids": []}, "no worlds")):
        with pytest.raises(ValueError, match=says): IRFDataset(root, **{"world_ids": ["nk"], "split": "train", **bad})
    with pytest.raises(FileNotFoundError, match="there is no store at"): IRFDataset(root/"nothing", ["nk"], "train")
    assert split_name("val") == "validation"

def test_a_part_for_evaluation(root):
    "Double parameters, and the exact answers to them."
    for name in WORLDS:
        world, found = get_world(name), load_split(root, name, "train", history=True)
        assert found["theta"].dtype == torch.float64 and torch.equal(found["theta"], world.sample({"lss": 90, "nk": 75, "var": 40}[name], 42)[found["index"]])
        torch.testing.assert_close(found["irf"], world.impulse_responses(found["theta"], 40).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["history"], world.simulate(found["theta"], found["shocks"].double()).observables.float(), rtol=1e-5, atol=1e-6)

# --- batches for the trainer ---------------------------------------------------------------------------------------------

def batches_of(batches, epoch, **share): return [batches.batch(epoch, p, **share) for p in range(len(batches))]

def equal(a, b): return set(a) == set(b) and all(torch.equal(a[k], b[k]) for k in a)

@pytest.mark.parametrize("window", [1, 30, 100, 10**6])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_order_is_a_function(window, shuffle, root):
    "The same from memory, from disk, backwards, for several processes and in another object; every sample once."
    make = lambda **o: ResponseBatches(root, "train", batch_size=17, seed=3, shuffle=shuffle, window=window, history=True, **o)
    a, b = make(in_memory=True), make(in_memory=False)
    for epoch in (0, 2):
        first = batches_of(a, epoch)
        assert all(map(equal, first, batches_of(b, epoch)))
        fresh = make(in_memory=False)
        for p in reversed(range(len(a))): assert equal(fresh.batch(epoch, p), first[p])
        for p, whole in enumerate(first):
            shares = [make_share for rank in range(3) for make_share in [b.batch(epoch, p, rank, 3)]]
            for rank, share in enumerate(shares): assert equal(share, {k: v[rank::3] for k, v in whole.items()})
        rows = [(w, i) for x in first for w, i in zip(x["world"].tolist(), x["index"].tolist())]
        assert len(rows) == len(set(rows)) == a.n
    changed = a.order(0).tolist() != a.order(1).tolist()
    assert changed == shuffle and sorted(a.order(1).tolist()) == list(range(a.n))
    if shuffle: assert a.order(0).tolist() != ResponseBatches(root, "train", batch_size=17, seed=4, window=window).order(0).tolist()

def test_batches_hold_what_the_store_holds(root):
    batches = ResponseBatches(root, "train", batch_size=32, history=True, worlds=["var", "lss"])
    for x in batches_of(batches, 1):
        assert x["theta"].shape[1:] == (36,) and x["irf"].shape[1:] == (3, 41, 3) and x["eps"].shape[1:] == (16, 3) and x["history"].shape[1:] == (16, 3)
        for i, (w, index) in enumerate(zip(x["world"].tolist(), x["index"].tolist())):
            name = batches.worlds[w]
            P, S = SIZES[name]
            read = lambda what: torch.from_numpy(batches.store.read(name, what, index, index + 1)[0])
            assert torch.equal(x["theta"][i, :P], read("theta").float()) and torch.equal(x["irf"][i, :S], read("irfs"))
            assert torch.equal(x["eps"][i, :, :S], read("shocks")) and torch.equal(x["history"][i], read("trajectories"))
            assert x["theta_mask"][i].sum() == P and x["theta_mask"][i, :P].all() and x["irf_mask"][i].sum() == S and x["irf_mask"][i, :S].all()
            assert (x["theta"][i, P:] == 0).all() and (x["irf"][i, S:] == 0).all() and (x["eps"][i, :, S:] == 0).all()

def test_worlds_are_mixed(root):
    "A batch of an epoch has samples of every world, in about their shares."
    batches = ResponseBatches(root, "train", batch_size=64)
    share = np.bincount(batches.world)/batches.n
    for x in batches_of(batches, 0)[:-1]: assert (abs(np.bincount(x["world"], minlength=3)/64 - share) < .25).all()

def test_the_protocol_of_the_trainer(root):
    "What `TensorBatches` gives of the same samples, without shuffling."
    from synthlab.trainers.steps import TensorBatches
    mine = ResponseBatches(root, "validation", batch_size=7, shuffle=False)
    every = ResponseBatches(root, "validation", batch_size=10**6, shuffle=False).batch(0, 0)
    theirs = TensorBatches(every, batch_size=7, shuffle=False)
    assert (mine.n, mine.batch_size, len(mine)) == (theirs.n, theirs.batch_size, len(theirs))
    assert torch.equal(mine.order(4), theirs.order(4))
    for p in range(len(mine)): assert equal(mine.batch(4, p, 1, 2), theirs.batch(4, p, 1, 2))

def test_a_whole_window_is_read_once(root, monkeypatch):
    "An epoch from disk opens each shard of responses once."
    batches, opened = ResponseBatches(root, "train", batch_size=8, in_memory=False, window=40), []
    real = type(batches.store).read
    monkeypatch.setattr(type(batches.store), "read", lambda self, world, name, start, stop: opened.append((world, name, start//20)) or real(self, world, name, start, stop))
    batches_of(batches, 0)
    assert len(opened) == len(set(opened)) == 2*(len(batches.starts) - 1)

def test_wrong_batches_are_refused(root):
    with pytest.raises(ValueError, match="batch_size is 0"): ResponseBatches(root, "train", batch_size=0)
    with pytest.raises(IndexError, match="there is no batch 99"): ResponseBatches(root, "train").batch(0, 99)
    with pytest.raises(ValueError, match="named twice"): ResponseBatches(root, "train", worlds=["nk", "nk"])

def test_a_part_without_samples(tmp_path):
    generate_dataset(tmp_path/"tiny", ["lss"], n=4, T=4, horizon=4, progress=False)
    store = IRFDataset(tmp_path/"tiny", ["lss"], "test_extrapolation_slice")
    if len(store) == 0:
        with pytest.raises(ValueError, match="has no sample; generate more draws"): ResponseBatches(store)
    assert load_split(tmp_path/"tiny", "lss", "test_extrapolation_slice")["irf"].shape[1:] == (2, 5, 3)
