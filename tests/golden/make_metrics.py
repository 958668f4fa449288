"""How metrics.npz was made: by Captum 0.9 and Quantus 0.6 on PyTorch twins of mlp and cnn. Needs torch and h5py.

Quantus' baseline "black" is each row's smallest value, so it is given zero.

Attributions are the gradient of the target's logit times the input (cnn: summed over channels); what is random is drawn
here once, and stored.
"""

import copy
import io
import pathlib
import warnings
import zipfile

import h5py
import numpy as np
import quantus
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import nn

HERE = pathlib.Path(__file__).parent
warnings.simplefilter("ignore")


def twin(name):
    """A float64 PyTorch model of logits, channels first, with the weights of a Keras file."""
    with zipfile.ZipFile(HERE / f"{name}.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))["layers"]
    arrays = {
        key: [np.array(weights[key]["vars"][i]) for i in ("0", "1")] for key in weights if "1" in weights[key]["vars"]
    }
    layers = []
    for key in ["dense", "dense_1", "dense_2"] if name == "mlp" else ["conv2d", "conv2d_1", "dense", "dense_1"]:
        kernel, bias = arrays[key]
        layer = nn.Linear(*kernel.shape) if kernel.ndim == 2 else nn.Conv2d(kernel.shape[2], kernel.shape[3], 3)
        flat = key == "dense" and name == "cnn"
        if flat:  # channels last to channels first
            layers.append(nn.Flatten())
            kernel = kernel.reshape(3, 3, 8, -1).transpose(2, 0, 1, 3).reshape(72, -1)
        layer.weight.data = torch.tensor(kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1))
        layer.bias.data = torch.tensor(bias)
        layers += [layer, nn.ReLU()] + ([nn.MaxPool2d(2)] if key == "conv2d" else [])
    return nn.Sequential(*layers[:-1]).double().eval()


def channels_first(x):
    return np.moveaxis(x, -1, 1) if x.ndim > 2 else x


def main():
    found = {}
    rng = np.random.default_rng(0)
    for name in ("mlp", "cnn"):
        numbers = np.load(HERE / f"{name}.npz")
        model, x, target = twin(name), numbers["x"], numbers["target"].astype(int)
        inputs = torch.tensor(channels_first(x).copy()).double()
        classes = torch.tensor(target)
        assert np.abs(model(inputs).detach().numpy() - numbers["logits"]).max() < 1e-4

        def explain(rows, classes=classes, model=model):
            rows = rows[0] if isinstance(rows, tuple) else rows
            classes = classes.repeat_interleave(len(rows) // len(classes))
            with torch.enable_grad():
                rows = rows.detach().clone().requires_grad_()
                picked = model(rows).gather(1, classes[:, None]).sum()
                return (torch.autograd.grad(picked, rows)[0] * rows).detach().contiguous()

        phi = explain(inputs)
        moves = (rng.normal(size=(8, *x.shape)) * 0.2).astype(np.float32)

        def perturb(rows, moves=moves):
            # One draw a row for each call with repeated rows: rows of a draw stand together.
            change = torch.tensor(np.stack([channels_first(m) for m in moves])).double()
            change = change.transpose(0, 1).reshape(rows.shape)
            return change, rows - change

        found[f"{name}/moves"] = moves
        for normalize in (False, True):
            value = infidelity(model, perturb, inputs, phi, target=classes, n_perturb_samples=8,
                               max_examples_per_batch=len(x) * 8, normalize=normalize)  # fmt: skip
            found[f"{name}/captum/infidelity{'/normalized' if normalize else ''}"] = value.numpy()

        def shifted(rows, radius, moves=moves):
            change = torch.tensor(np.stack([channels_first(m) for m in moves])).double()
            return rows + change.transpose(0, 1).reshape(rows.shape)

        found[f"{name}/captum/sensitivity_max"] = sensitivity_max(
            lambda rows: (explain(rows),), inputs, shifted, n_perturb_samples=8, max_examples_per_batch=len(x) * 8,
        ).numpy()  # fmt: skip

        positions = phi.sum(1, keepdim=True).numpy() if name == "cnn" else phi.numpy()[:, None]
        mask = rng.uniform(size=positions.shape) < 0.3
        found[f"{name}/mask"] = mask[:, 0]
        single = copy.deepcopy(model).float()  # Quantus hands float32 on
        asked = {"model": single, "x_batch": inputs.numpy(), "y_batch": target, "a_batch": positions, "s_batch": mask}
        positive = {**asked, "a_batch": np.maximum(positions, 0)}
        off = {"disable_warnings": True, "normalise": False, "abs": False}
        plain = {key: asked[key] for key in ("model", "x_batch", "y_batch", "a_batch")}
        if name == "cnn":
            found["cnn/quantus/relevance_mass"] = quantus.RelevanceMassAccuracy(**off)(**positive)
            found["cnn/quantus/relevance_rank"] = quantus.RelevanceRankAccuracy(**off)(**asked)
            found["cnn/quantus/pointing_game"] = quantus.PointingGame(**off)(**asked)
        else:  # as images of one row and one channel: of more channels, Quantus flips each on its own
            plain = {**plain, "model": nn.Sequential(nn.Flatten(), single).eval(), "x_batch": inputs.numpy()[:, None]}
            flips = quantus.PixelFlipping(features_in_step=1, perturb_baseline=0.0, **off)(**plain)
            found["mlp/quantus/pixel_flipping"] = np.array(flips)
            np.random.seed(0)
            runs = quantus.FaithfulnessCorrelation(
                nr_runs=4000, subset_size=4, perturb_baseline=0.0, return_aggregate=False, **off
            )(**plain)
            found["mlp/quantus/faithfulness_correlation"] = np.array(runs)
        found[f"{name}/quantus/sparseness"] = quantus.Sparseness(**{**off, "abs": True})(**plain)
        found[f"{name}/quantus/complexity"] = quantus.Complexity(**{**off, "abs": True})(**plain)

        def again(model, inputs, targets, **_):
            rows = torch.tensor(np.asarray(inputs)).double()
            return explain(rows, torch.tensor(np.asarray(targets))).numpy()

        for metric in ("MaxSensitivity", "AvgSensitivity", "LocalLipschitzEstimate"):
            offsets = iter([channels_first(m) for m in moves])

            def moved(arr, offsets=offsets, **_):
                return arr + next(offsets).reshape(arr.shape)

            kind = getattr(quantus, metric)
            value = kind(nr_samples=8, perturb_func=moved, **off)(
                model=single, x_batch=inputs.numpy(), y_batch=target, a_batch=phi.numpy(), explain_func=again
            )
            found[f"{name}/quantus/{metric}"] = np.array(value)
    np.savez_compressed(HERE / "metrics.npz", **{key: np.asarray(value) for key, value in found.items()})
    for key, value in found.items():
        print(key, np.shape(value), np.ravel(value)[:4])


if __name__ == "__main__":
    main()
