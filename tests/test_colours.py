"Colours that stand beside each other are told apart, also by eyes that lack one of the three kinds of cones."
import itertools

import numpy as np, pytest
from matplotlib.colors import to_rgb

from synthlab.experiments.figures import KNOWN, MODEL, SHADES, TRUTH, colours
from synthlab.labs.events.figures import MORE_SCORES, SCORE_COLOURS
from synthlab.labs.signal.figures import BASELINE_COLOURS

EYES = dict(all=np.eye(3),                      # Machado, Oliveira and Fernandes 2009, at full severity, on linear light
    red=[[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]],
    green=[[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]],
    blue=[[1.255528, -.076749, -.178779], [-.078411, .930809, .147602], [.004733, .691367, .303900]])
XYZ = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]])

def lightness_and_hue(colour, eyes):
    "CIELAB, of which a distance of 2.3 is just seen."
    rgb = np.array(to_rgb(colour))
    light = np.where(rgb <= .04045, rgb/12.92, ((rgb + .055)/1.055)**2.4)
    x, y, z = XYZ@np.clip(np.array(EYES[eyes])@light, 0, 1)/[.9505, 1, 1.089]
    f = [np.cbrt(t) if t > .008856 else 7.787*t + 16/116 for t in (x, y, z)]
    return np.array([116*f[1] - 16, 500*(f[0] - f[1]), 200*(f[1] - f[2])])

def nearest(used, eyes):
    seen = [lightness_and_hue(c, eyes) for c in dict.fromkeys(map(to_rgb, used))]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))

@pytest.mark.parametrize("eyes", EYES)
def test_baselines_are_told_apart(eyes):
    "Six of them with what happened and the model far, the seventh enough."
    assert nearest([TRUTH, MODEL, *SHADES[:6]], eyes) > 20 and nearest([TRUTH, MODEL, *SHADES], eyes) > 12
    assert nearest(colours(["model", "constant", "bootstrap", "ewma", "garch", "gjr", "mine"]).values(), eyes) > 20
    assert nearest([MODEL, *BASELINE_COLOURS.values()], eyes) > 20

@pytest.mark.parametrize("eyes", EYES)
def test_scores_of_one_figure_are_told_apart(eyes):
    "The curves of a search; the pale blue of the model's second score is also dashed."
    assert nearest([MORE_SCORES[0], *(c for name, c in SCORE_COLOURS.items() if name != "model, total")], eyes) > 20

def test_a_name_has_one_colour_whoever_stands_beside_it():
    assert {colours(["a", *others, "garch"])["garch"] for others in ([], ["ewma"], ["x", "y"])} == {KNOWN["garch"]}
    assert len({*colours(["model", "x", "ewma", "y"]).values()}) == 4
