"""What must hold of every method on any network: the same question, said in another way, has the same answer.

Few networks are drawn in the suite; HYPOTHESIS_PROFILE=long draws many.
"""

import os
import warnings

import drawn
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st
from keras import layers as L
from test_conformance import ATTENDING, EPS, MASKS, METHODS, SLOW

import tfig

SHARED = {"deadline": None, "database": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}
settings.register_profile("default", max_examples=1, derandomize=True, **SHARED)
settings.register_profile("long", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "40")), **SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SMALL = {
    **METHODS,
    "blur_ig": tfig.BlurIG(steps=8, max_sigma=2),
    "xrai": tfig.XRAI(
        steps=4, min_pixels=2, segments=lambda image: np.add.outer(*map(np.arange, image.shape[:2])) // 3
    ),
    "guided_ig": tfig.GuidedIG(steps=20),
    "reveal_cancel": tfig.DeepLIFT("reveal_cancel"),
    "epsilon_gamma_box": tfig.LRP("epsilon_gamma_box"),
    "alpha2_beta1": tfig.LRP("alpha2_beta1"),
    "adaptive": tfig.IntegratedGradients(steps=8, rule="adaptive"),
}
# A line search that a rounding turns is another matter, and these networks have no attention.
NAMES = [name for name in SMALL if name not in (*MASKS, *ATTENDING)]
if "HYPOTHESIS_PROFILE" not in os.environ:  # of those that share a kernel one
    NAMES = [name for name in NAMES if name not in SLOW or name in ("occlusion", "kernel_shap", "layer_cam", "qii")]
# What decides by comparing gradients or walks along them, and fits to differences of scores.
TURNING = ("guided_ig", "boundary_ig", "lime", "kernel_shap", "adaptive")
# What adds noise to each entry of x, or draws each entry.
NOISY = ("smoothgrad", "squaregrad", "vargrad")
POWER = {"gradient": 1, "smoothgrad": 1, "squaregrad": 2, "vargrad": 2, "guided_backprop": 1, "deconvnet": 1,
         "guided_grad_cam": 1}  # fmt: skip


def explained(name, model, x, references=None):
    """The explanation, or why it is refused."""
    method, arguments = SMALL[name], {}
    if method.default_baseline == "dataset":
        arguments["baseline"] = tfig.baselines.Dataset(x[:2] if references is None else references)
    if method.needs_layer and not method.picks_layer:
        arguments["layer"] = next(layer.name for layer in model.layers if isinstance(layer, L.Conv2D))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return tfig.explain(model, x, method, target=1, **arguments)
        except ValueError as error:
            note(f"{name}: {error}")
            return str(error)


def alike(name, found, expected, e, other, bound=2e-5):
    """Two maps agree to `bound` of their largest value, and to the rounding of the scores they are made of."""
    distances = [one.trace.get("boundary_distance", np.zeros(1)) for one in (e, other)]
    if not np.allclose(*distances, rtol=1e-3, equal_nan=True):
        return  # a search that a rounding turned has found another boundary
    bound = 2e-3 if name in TURNING else bound
    unit = max(np.abs(F).max() for F in (e.score, e.baseline_score) if F is not None)
    worst = np.nanmax(np.abs(found - expected), initial=0.0)
    allowed = bound * np.nanmax(np.abs(expected), initial=0.0) + 16 * EPS * unit
    note(f"{name}: {worst:.3g} apart, {allowed:.3g} allowed")
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert worst <= allowed


@pytest.mark.parametrize("name", NAMES)
@given(plan=drawn.plans(), data=st.data())
def test_the_same_network_said_otherwise(name, plan, data):
    """In one of the ways below; each way meets every method in the long run."""
    e = explained(name, drawn.build(plan), plan.x)
    assume(not isinstance(e, str))
    way = data.draw(st.sampled_from(sorted(WAYS)))
    note(f"{way}, {plan}")
    WAYS[way](name, plan, e, data)


def again(name, plan, x, references=None, **variation):
    """The explanation of the network said otherwise, which is not refused."""
    other = explained(name, drawn.build(plan, **variation), x, references)
    assert not isinstance(other, str), other
    return other


def scaled(name, plan, e, data):
    """The input and the first weights, inversely: powers of two round alike."""
    scale = 2.0 ** data.draw(st.sampled_from([-20, -8, 5, 9]))
    other = again(name, plan, plan.x * np.float32(scale), scale=scale)
    alike(name, other.attributions * scale ** POWER.get(name, 0), e.attributions, e, other)


def channels_in_another_order(name, plan, e, data):
    order = np.array(data.draw(st.permutations(range(plan.channels))))
    assume(name not in NOISY)
    other = again(name, plan, plan.x[..., order], order=order)
    of_input = e.layer is None or name == "guided_grad_cam"
    turned = e.attributions[..., order] if of_input and e.attributions.shape[-1] > 1 else e.attributions
    alike(name, other.attributions, turned, e, other)


def channels_first(name, plan, e, data):
    other = again(name, plan, plan.x.transpose(0, 3, 1, 2), first=True)
    alike(name, other.attributions.transpose(0, 2, 3, 1), e.attributions, e, other)
    alike(name, other.heatmap(), e.heatmap(), e, other)


def in_float64(name, plan, e, data):
    wide = again(name, plan, plan.x, dtype="float64")
    assert wide.attributions.dtype == np.float64
    alike(name, e.attributions, wide.attributions, e, wide, 1e-4 if name in ("vargrad", "boundary_ig") else 1e-5)


def rows_in_other_company(name, plan, e, data):
    order = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=5))
    other = again(name, plan, plan.x[order], plan.x[:2])
    alike(name, other.attributions, e.attributions[order], e[order], other)


INERT = {
    "identity": L.Identity,
    "padding": lambda: L.ZeroPadding2D(0),
    "times one": lambda: lambda z: z * 1.0,
    "plus zero": lambda: lambda z: z + 0.0,
    "twice negated": lambda: lambda z: keras.ops.negative(-z),
    "dropout": lambda: L.Dropout(0.5),
}


def an_inert_layer_more(name, plan, e, data):
    place, kind = data.draw(st.integers(0, len(plan.blocks))), data.draw(st.sampled_from(sorted(INERT)))
    note(f"{kind} at {place}")
    other = again(name, plan, plan.x, inert={place: INERT[kind]()})
    alike(name, other.attributions, e.attributions, e, other)


def a_constant_more(name, plan, e, data):
    assume(name not in ("rise", "deep_taylor"))  # these weigh by the score itself, or start with all of it
    constant = data.draw(st.sampled_from([-32.0, 8.0]))
    other = again(name, plan, plan.x, bias=constant)
    rounding = 64 * EPS * abs(constant) / max(np.abs(e.attributions).max(), 1e-9)
    alike(name, other.attributions, e.attributions, e, other, 1e-4 + rounding)
    assert other.notes == e.notes or any("rounding" in said for said in other.notes)


WAYS = {
    way.__name__: way
    for way in (
        scaled, channels_in_another_order, channels_first, in_float64, rows_in_other_company, an_inert_layer_more,
        a_constant_more,
    )
}  # fmt: skip
