"""Coalitions: golden numbers, literal twins, exact identities."""

import numpy as np
from conftest import error

import tfig


def asked(numbers):
    return {"target": numbers["target"], "output": "logits", "baseline": numbers["baseline"]}


def test_occlusion_golden(golden):
    model, numbers = golden
    key, window = ("1", 1) if "occlusion/logit/1" in numbers else ("3x3", 3)
    e = tfig.explain(model, numbers["x"], tfig.Occlusion(window, window), **asked(numbers))
    expected = numbers[f"occlusion/logit/{key}"]
    assert error(np.broadcast_to(e.attributions, expected.shape), expected) <= 1e-4


def test_ablation_and_shapley_golden(golden):
    model, numbers = golden
    segments = numbers["segments"]
    e = tfig.explain(model, numbers["x"], tfig.FeatureAblation(segments=segments), **asked(numbers))
    expected = numbers["feature_ablation/logit/segments"]
    assert error(np.broadcast_to(e.attributions, expected.shape), expected) <= 1e-4
    exact = numbers["shapley/logit/segments/exact"]
    e = tfig.explain(model, numbers["x"], tfig.KernelSHAP(segments=segments), **asked(numbers))
    assert error(e.trace["values"], exact) <= 1e-4
    assert np.abs(e.convergence_delta).max() <= 1e-5
    e = tfig.explain(model, numbers["x"], tfig.ShapleySampling(samples=1, segments=segments), **asked(numbers))
    assert np.abs(e.convergence_delta).max() <= 1e-5  # one order telescopes
    e = tfig.explain(model, numbers["x"], tfig.ShapleySampling(samples=2000, segments=segments), **asked(numbers))
    assert error(e.trace["values"], exact) <= 0.05
