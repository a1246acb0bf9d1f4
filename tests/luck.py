"""Where the global generators stand, when nobody has seeded them: a weight that a test draws is the same whatever ran before it.

A test that passes by luck passes with one luck alone: `make test ARGS=--luck=1`, and 2, and so on, tries others."""
import random, sys

import numpy as np

def draw_from(*what: int):
    "Python's, NumPy's and torch's global generators begin where these numbers say; torch is not imported for it."
    seed = int(np.random.SeedSequence(what).generate_state(1)[0])
    random.seed(seed); np.random.seed(seed)
    if torch := sys.modules.get("torch"): torch.default_generator.manual_seed(seed)   # `torch.manual_seed` notes its caller's stack for good
