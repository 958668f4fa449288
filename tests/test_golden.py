"""Numbers that independent libraries computed on float64 twins of the same models (tests/golden)."""

import pytest
from conftest import error, golden_model

import tfig

OUTPUTS = {"logit": "logits", "prob": "probabilities"}
LAYERS = [
    (name, layer)
    for name in ("mlp", "cnn", "resnet")
    for layer in map(str, golden_model(name)[1]["layers"])
    if f"layer/{layer}/activation" in golden_model(name)[1]
]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("method", ["gradient", "gradient_x_input"])
def test_gradients(golden, method, output):
    model, numbers = golden
    e = tfig.explain(model, numbers["x"], method, target=numbers["target"], output=OUTPUTS[output])
    assert error(e.attributions, numbers[f"{method}/{output}"]) <= 1e-4


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("rule", "key"), [("midpoint", "riemann_middle"), ("gauss_legendre", "gausslegendre")])
def test_integrated_gradients_with_16_nodes(golden, rule, key, output):
    model, numbers = golden
    method = tfig.IntegratedGradients(steps=16, rule=rule)
    asked = {"target": numbers["target"], "output": OUTPUTS[output], "baseline": numbers["baseline"]}
    e = tfig.explain(model, numbers["x"], method, **asked)
    assert error(e.attributions, numbers[f"integrated_gradients/{output}/{key}/16"]) <= 1e-4


RULES = ["midpoint", "trapezoid", "left", "right", "gauss_legendre", "adaptive"]


ASKED = [(rule, output) for rule in RULES for output in OUTPUTS if rule in RULES[::5] or output == "prob"]


@pytest.mark.parametrize(("rule", "output"), ASKED)
def test_every_rule_reaches_the_exact_integral(golden, rule, output):
    model, numbers = golden
    method = tfig.IntegratedGradients(steps=1024, rule=rule)
    asked = {"target": numbers["target"], "output": OUTPUTS[output], "baseline": numbers["baseline"]}
    e = tfig.explain(model, numbers["x"], method, **asked)
    assert error(e.attributions, numbers[f"integrated_gradients/{output}/exact"]) <= 2e-3


def test_contrast(golden):
    model, numbers = golden
    classes = numbers["logits"].shape[1]
    contrast = tfig.Contrast(numbers["target"], (numbers["target"] + 1) % classes)
    method = tfig.IntegratedGradients(steps=1024)
    e = tfig.explain(model, numbers["x"], method, target=contrast, output="logits", baseline=numbers["baseline"])
    assert error(e.attributions, numbers["integrated_gradients/contrast/exact"]) <= 2e-3


@pytest.mark.parametrize("method", [tfig.IntegratedGradients(steps=1024), tfig.ExpectedGradients(samples=5 * 1024)])
def test_expectation_over_references(golden, method):
    model, numbers = golden
    references = tfig.baselines.Dataset(numbers["references"])
    e = tfig.explain(model, numbers["x"], method, target=numbers["target"], output="logits", baseline=references)
    assert error(e.attributions, numbers["expected_gradients/logit/exact"]) <= 2e-3


@pytest.mark.parametrize(("name", "layer"), LAYERS[:-1:3] + LAYERS[-1:])
def test_at_layers(name, layer):
    model, numbers = golden_model(name)
    asked = {"target": numbers["target"], "output": "logits", "baseline": numbers["baseline"], "layer": layer}
    for method, key, bound in [
        (tfig.GradientXInput(), "gradient_x_activation/logit", 1e-4),
        (tfig.IntegratedGradients(64, "midpoint"), "integrated_gradients/logit/64", 1e-4),
        (tfig.InternalInfluence(steps=64), "internal_influence/logit/64", 1e-4),
        (tfig.InternalInfluence(steps=1024), "internal_influence/logit/exact", 2e-3),
        (tfig.Conductance(steps=1024), "conductance/logit/exact", 2e-3),
    ]:
        e = tfig.explain(model, numbers["x"], method, **asked)
        assert error(e.attributions, numbers[f"layer/{layer}/{key}"]) <= bound, key


def test_scores(golden):
    model, numbers = golden
    rows = range(len(numbers["x"]))
    for output, key in (("logits", "logits"), ("probabilities", "probs"), (None, "probs")):
        e = tfig.explain(model, numbers["x"], "gradient", output=output)
        assert (e.target == numbers["logits"].argmax(1)).all()
        assert error(e.score, numbers[key][rows, e.target]) <= 1e-5
