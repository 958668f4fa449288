"""Every method on six networks of keras.applications, random weights, small inputs: does it run, or say why not?

Usage: applications.py [NAME...]   (by default all six)
"""

import sys
import time
import warnings

import keras
import numpy as np

import tfig

NETWORKS = {
    "ResNet50": 64, "MobileNetV2": 64, "EfficientNetB0": 64, "DenseNet121": 64, "VGG16": 64, "ConvNeXtTiny": 64,
}  # fmt: skip
# Few samples: whether a method runs does not depend on them.
SMALL = {
    "integrated_gradients": tfig.IntegratedGradients(steps=4),
    "expected_gradients": tfig.ExpectedGradients(samples=4),
    "smoothgrad": tfig.SmoothGrad(samples=2),
    "squaregrad": tfig.SquareGrad(samples=2),
    "vargrad": tfig.VarGrad(samples=2),
    "conductance": tfig.Conductance(steps=2),
    "internal_influence": tfig.InternalInfluence(steps=2),
    "igos": tfig.IGOS(resolution=8, iterations=1, steps=2),
    "occlusion": tfig.Occlusion(window=32, strides=32),
    "feature_ablation": tfig.FeatureAblation(segments=2),
    "prediction_difference": tfig.PredictionDifference(samples=1, segments=2),
    "shapley_sampling": tfig.ShapleySampling(samples=1, segments=2),
    "kernel_shap": tfig.KernelSHAP(samples=16, segments=2),
    "lime": tfig.LIME(samples=8, segments=2),
    "rise": tfig.RISE(samples=4),
    "qii": tfig.QII(samples=1, segments=2),
    "guided_ig": tfig.GuidedIG(steps=4),
    "blur_ig": tfig.BlurIG(steps=4, max_sigma=4),
    "xrai": tfig.XRAI(steps=2, segments=np.add.outer(np.arange(64) // 8 * 8, np.arange(64) // 8)),
    "boundary_ig": tfig.IntegratedGradients(4),
    "igos_plus_plus": tfig.IGOSPlusPlus(resolution=8, iterations=1, steps=1),
    "meaningful_perturbation": tfig.MeaningfulPerturbation(resolution=8, iterations=2),
}
# A layer of each for the methods that are asked about units.
LAYERS = {
    "ResNet50": "conv5_block3_out", "MobileNetV2": "out_relu", "EfficientNetB0": "top_activation",
    "DenseNet121": "relu", "VGG16": "block5_conv3", "ConvNeXtTiny": "convnext_tiny_stage_3_block_2_identity",
}  # fmt: skip


def ask(name, model, x, key):
    """What a method says to a network: "ok", or its error."""
    method = SMALL.get(key, key)
    info = tfig.methods()[key]
    baseline = tfig.baselines.Dataset(x[::-1].copy()) if info.baseline == "dataset" else None
    if key == "boundary_ig":  # its search, not its steps, takes long
        baseline = tfig.baselines.Boundary(radii=(1.0, 8.0), steps=2)
    layer = LAYERS[name] if key in ("conductance", "internal_influence") else None
    try:
        e = tfig.explain(model, x, method, baseline=baseline, layer=layer)
    except ValueError as error:
        return str(error).splitlines()[0]
    finite = np.isfinite(e.attributions).all() or key == "boundary_ig"
    return "ok" if finite else "NOT FINITE"


def main():
    """Ask them all, and print a line for each network."""
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or NETWORKS:
        keras.utils.set_random_seed(0)
        side, begin = NETWORKS[name], time.perf_counter()
        model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=10)
        x = np.random.default_rng(0).uniform(0, 1, (1, side, side, 3)).astype("float32")
        said = {key: ask(name, model, x, key) for key in tfig.methods()}
        fine = [key for key, word in said.items() if word == "ok"]
        print(f"{name}: {len(fine)} of {len(said)} methods run ({time.perf_counter() - begin:.0f} s)", flush=True)
        for key, word in said.items():
            if word != "ok":
                print(f"    {key}: {word}", flush=True)


if __name__ == "__main__":
    main()
