"""tfig raced against its peers: the same network, images and number of evaluations, each at its best batch size.

Every ratio is over turns (tfig, peer, tfig, peer, ...) after a first call of each: seconds of the peer over seconds of
tfig, so above 1 tfig is faster. Then integrated gradients to 1 % relative L2 error, each package by its own rule at the
fewest steps that reach it. What is not installed is passed over. Beside TensorFlow 2.21 these install by

    pip install shap saliency tf-keras-vis matplotlib einops decorator dm-tree dill spacy requests "transformers<5"
    pip install --no-deps xplique tf-explain alibi tensorflow-probability tf_keras

since three of them ask for an older TensorFlow or NumPy than they work with.

Usage: peers.py [digits|mobilenet|quadrature ...]
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import dataclasses
import importlib.metadata
import pathlib
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import keras
import numpy as np
import rivals
from rivals import COUNT, GRID, KERNEL_WIDTH, NOISE, Ask, Net, ours, pair, xplique

import tfig

sys.path.append(sys.path.pop(0))  # or transformers.py beside this file hides the package that alibi imports
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "scripts"))
import digits

GREY = 127.5
"""What tf-explain puts in place of a window, whatever the images' range."""
TURNS = 3


@dataclasses.dataclass(frozen=True)
class Entry:
    """One package's way to a map.

    Fields:
        make: (net, batch size) -> a function that explains all images: [N, ...].
        batched: whether its batch size is to be chosen.
        against: the tfig method whose map this one should be, else that of the row.
        note: what a reader must know.
    """

    package: str
    make: Callable[[Net, int], Ask]
    batched: bool = True
    against: Callable[[Net], tuple[tfig.problem.Method, dict]] | None = None
    note: str = ""


def integrated(rule: str = "midpoint") -> Callable[[Net], tuple]:
    """tfig's integrated gradients by a rule."""
    return lambda net: (tfig.IntegratedGradients(net.steps, rule), {})


def occluded(which: int, baseline: float = 0.0) -> Callable[[Net], tuple]:
    """tfig's occlusion by one of the net's windows."""
    return lambda net: (tfig.Occlusion(*net.patch[which]), {"baseline": baseline})


def xplique_occlusion(which: int, value: float = 0.0) -> Entry:
    """Xplique's occlusion by the same window."""
    size, step = (lambda net: net.patch[which][0]), (lambda net: net.patch[which][1])
    return Entry("xplique", xplique("Occlusion", patch_size=size, patch_stride=step, occlusion_value=value))


ROWS: dict[str, tuple[Callable[[Net], tuple], list[Entry]]] = {
    "integrated gradients": (
        integrated(),
        [
            Entry(
                "xplique",
                xplique("IntegratedGradients", reducer=None, steps=lambda net: net.steps),
                against=integrated("trapezoid"),
                note="trapezoid",
            ),
            Entry("saliency", pair(rivals.pair_ig), against=integrated("trapezoid"), note="mean over both ends"),
            Entry("alibi", rivals.alibi_ig("riemann_middle"), note="riemann_middle"),
            Entry(
                "alibi", rivals.alibi_ig("gausslegendre"), against=integrated("gauss_legendre"), note="gausslegendre"
            ),
            Entry(
                "tf-explain",
                rivals.explain_ig,
                batched=False,
                against=integrated("trapezoid"),
                note="mean over both ends",
            ),
            Entry("shap", rivals.shap_gradient, note="random nodes"),
        ],
    ),
    "SmoothGrad": (
        lambda net: (tfig.SmoothGrad(samples=net.draws, noise=NOISE), {}),
        [
            Entry(
                "xplique",
                xplique("SmoothGrad", reducer=None, nb_samples=lambda net: net.draws, noise=lambda net: net.sigma),
            ),
            Entry("saliency", pair(rivals.pair_smooth), batched=False, note="one gradient a call"),
            Entry("tf-keras-vis", rivals.vis_smooth(rivals.Compiled), batched=False, note="its model compiled by us"),
            Entry("tf-explain", rivals.explain_smooth, batched=False, note="of the cross-entropy"),
        ],
    ),
    "Grad-CAM": (
        lambda net: (tfig.GradCAM(), {"layer": net.layer}),
        [
            Entry("xplique", xplique("GradCAM", conv_layer=lambda net: net.layer), note="and upsampled"),
            Entry("saliency", pair(rivals.pair_cam), batched=False, note="one image a call"),
            Entry("tf-keras-vis", rivals.vis_cam, batched=False, note="eager; a model made at each call"),
            Entry("tf-explain", rivals.explain_cam, batched=False, note="eager; a model made at each call"),
        ],
    ),
    "occlusion": (occluded(0), [xplique_occlusion(0)]),
    "occlusion, every position": (
        occluded(1),
        [xplique_occlusion(1), Entry("saliency", pair(rivals.pair_occlusion), batched=False, note="one pass a call")],
    ),
    "occlusion, side by side": (
        occluded(2, GREY),
        [xplique_occlusion(2, GREY), Entry("tf-explain", rivals.explain_occlusion, note="1 - p; upsampled")],
    ),
    "RISE": (
        lambda net: (tfig.RISE(net.masks), {}),
        [Entry("xplique", xplique("Rise", nb_samples=lambda net: net.masks), note="one set of masks for all")],
    ),
    "KernelSHAP": (
        lambda net: (tfig.KernelSHAP(net.coalitions, segments=GRID), {}),
        [
            Entry(
                "xplique",
                xplique(
                    "KernelShap",
                    nb_samples=lambda net: net.coalitions,
                    map_to_interpret_space=rivals.xplique_cells,
                    ref_value=rivals.blank,
                ),
            ),
            Entry("shap", rivals.shap_kernel, note="KernelExplainer"),
            Entry("alibi", rivals.alibi_kernel, note="wraps shap"),
        ],
    ),
    "LIME": (
        lambda net: (tfig.LIME(net.masks, KERNEL_WIDTH, segments=GRID), {}),
        [
            Entry(
                "xplique",
                xplique(
                    "Lime",
                    nb_samples=lambda net: net.masks,
                    map_to_interpret_space=rivals.xplique_cells,
                    ref_value=rivals.blank,
                    similarity_kernel=rivals.near,
                    interpretable_model=rivals.ridge,
                ),
            )
        ],
    ),
}


def seconds(ask: Ask) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def best(entry: Entry, net: Net) -> int:
    """The batch size at which a peer is fastest."""
    if not entry.batched:
        return 0
    few, found = net.few(8), []
    for batch in net.batches:
        ask = entry.make(few, batch)
        seconds(ask)
        found.append((min(seconds(ask) for _ in range(2)), batch))
    return min(found)[1]


def evaluations(make: Callable[[Net], Ask], net: Net) -> float:
    """Rows that pass the model for each image, counted inside its graph."""
    ask = make(net.counted())
    ask()
    COUNT.assign(0)
    ask()
    return int(COUNT.numpy()) / len(net.x)


def counted(make: Callable[[Net], Ask], net: Net, row: str) -> str:
    """Evaluations an image, in words; Grad-CAM reads a layer, which the counted net does not show."""
    if row == "Grad-CAM":
        return "1"
    try:
        return f"{evaluations(make, net.few(2)):.0f}"
    except Exception as error:  # a figure less, not a race less
        return f"? {type(error).__name__}"


def covers(net: Net, which: int) -> np.ndarray:
    """How many windows cover each position: Xplique and PAIR sum over them, tfig takes the mean."""
    side, (window, step) = net.x.shape[1], net.patch[which]
    along = sum((np.arange(side) >= s) & (np.arange(side) < s + window) for s in range(0, side - window + 1, step))
    return np.multiply.outer(along, along)[..., np.newaxis]


def agreement(peer: np.ndarray, own: np.ndarray) -> str:
    """Mean correlation and mean relative difference over images, the peer's map scaled to fit."""
    side = max(peer.shape[1], own.shape[1])
    a, b = rivals.folded(peer, side), rivals.folded(own, side)
    moving = (a.std(1) > 0) & (b.std(1) > 0)
    correlation = np.mean([np.corrcoef(one, two)[0, 1] for one, two in zip(a[moving], b[moving], strict=True)])
    gap = np.mean(np.linalg.norm(a - b, axis=1) / np.maximum(np.linalg.norm(b, axis=1), 1e-30))
    return f"r {correlation:.4f}, off {gap:.1e}"


def settled(row: str, net: Net, maps: np.ndarray) -> np.ndarray:
    """tfig's map in the peers' convention."""
    which = {"occlusion": 0, "occlusion, every position": 1}.get(row)
    if row == "KernelSHAP":  # spread over its segment's positions, so that the map sums to F(x) - F(x')
        return maps * (net.x.shape[1] // GRID) ** 2
    return maps if which is None else maps * covers(net, which)


def version(package: str) -> str:
    """Installed version, or nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def race(row: str, net: Net) -> None:
    """Print a row of the table: tfig against each peer."""
    method, entries = ROWS[row]

    def mine(net: Net, of: Callable[[Net], tuple] = method) -> Ask:
        asked, options = of(net)
        return ours(net, asked, **options)

    own = mine(net)
    seconds(own)
    count = counted(mine, net, row)
    for entry in entries:
        if not version(entry.package):
            print(f"{row:<26} {entry.package} is not installed: passed over", flush=True)
            continue
        try:
            print(f"{row:<26} {lap(row, net, entry, own, mine)} and {count}", flush=True)
        except Exception as error:  # whatever a peer raises
            print(f"{row:<26} {entry.package:<13} {type(error).__name__}: {str(error)[:200]!r}", flush=True)


def lap(row: str, net: Net, entry: Entry, own: Ask, mine: Callable[..., Ask]) -> str:
    """One peer against tfig, in words."""
    batch = best(entry, net)
    peer = entry.make(net, batch)
    seconds(peer)
    own()  # a peer's first `model.predict` makes tfig look at the model anew
    pairs = [(seconds(own), seconds(peer)) for _ in range(TURNS)]
    reference = own() if entry.against is None else mine(net, entry.against)()
    agrees = agreement(peer(), settled(row, net, reference))
    ratios = [theirs / ours_ for ours_, theirs in pairs]
    evaluated = counted(lambda some: entry.make(some, batch), net, row)
    return (
        f"{entry.package:<13}{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  "
        f"{statistics.median(b for _, b in pairs):7.3f} s over {statistics.median(a for a, _ in pairs):7.3f}; batch "
        f"{batch or '-'}; {agrees}{'; ' + entry.note if entry.note else ''}; evaluations {evaluated}"
    )


STEPS = tuple(round(4 * 2 ** (k / 4)) for k in range(29))
RULES: dict[str, tuple[str, Callable[[Net, int], Ask], int]] = {
    "tfig, by default": ("tfig", lambda net, batch: ours(net, tfig.IntegratedGradients(net.steps)), 0),
    "xplique": ("xplique", xplique("IntegratedGradients", reducer=None, steps=lambda net: net.steps), 1024),
    "saliency": ("saliency", pair(rivals.pair_ig), 1024),
    "tf-explain": ("tf-explain", rivals.explain_ig, 0),
    "alibi": ("alibi", rivals.alibi_ig("gausslegendre"), 256),
    "shap": ("shap", rivals.shap_gradient, 1024),
}
"""By its default rule: the package, how it is asked, and at which batch size."""


def quadrature(net: Net) -> None:
    """Print how many steps each default rule needs to 1 %, and the race at that many."""
    truth = rivals.folded(ours(net, tfig.IntegratedGradients(4096, "midpoint"))())
    found: dict[str, tuple[Ask, int, float]] = {}
    for name, (package, make, batch) in RULES.items():
        if package != "tfig" and not version(package):
            continue
        for steps in STEPS:
            ask = make(dataclasses.replace(net, steps=steps), batch)
            gap = np.linalg.norm(rivals.folded(ask()) - truth, axis=1) / np.linalg.norm(truth, axis=1)
            found[name] = ask, steps, float(gap.mean())
            if gap.mean() <= 0.01:
                break
    (own, *_), rest = found["tfig, by default"], list(found.items())
    print(f"-- {net.name}, {len(net.x)} images: integrated gradients to 1 %", flush=True)
    for name, (ask, steps, gap) in rest:
        pairs = [(seconds(own), seconds(ask)) for _ in range(TURNS)]
        ratio = statistics.median(b / a for a, b in pairs)
        missed = "" if gap <= 0.01 else ", not reached"
        print(f"{name:<18}{steps:5} steps, {100 * gap:5.2f} %{missed}; time over tfig's {ratio:6.2f}", flush=True)


def functional(model: keras.Model) -> keras.Model:
    """The model as a functional one: tf-explain asks for `model.output`, which Sequential lacks in Keras 3."""
    return keras.Model(model.inputs, model.outputs[0], name=model.name)


def logits(model: keras.Model) -> keras.Model:
    """The same layers without the softmax of the last one."""
    last = model.layers[-1]
    dense = keras.layers.Dense(last.units, name="logits")
    outputs = dense(model.layers[-2].output)
    dense.set_weights(last.get_weights())
    return keras.Model(model.inputs, outputs, name=f"{model.name}_logits")


def digits_net(rows: int, by: str = "probabilities") -> Net:
    """The demo's digits."""
    trained = functional(digits.train())
    _, _, x, y = digits.load()
    model = trained if by == "probabilities" else logits(trained)
    patch = (8, 4), (8, 1), (4, 4)
    return Net(f"digits, {by}", model, trained, x[:rows], y[:rows], "parts", 64, 50, 1000, 2048, patch)


def mobilenet(rows: int) -> Net:
    """MobileNetV2 with random weights, by logits: its softmax is flat."""
    keras.utils.set_random_seed(0)
    shape = (96, 96, 3)
    softmax = keras.applications.MobileNetV2(weights=None, input_shape=shape)
    x = np.random.default_rng(0).uniform(-1, 1, (rows, *shape)).astype(np.float32)
    labels, patch = np.arange(rows, dtype=np.int32) % 4, ((24, 12), (88, 1), (12, 12))
    name, model = "MobileNetV2, logits", logits(softmax)
    return Net(name, model, softmax, x, labels, "out_relu", 64, 50, 128, 256, patch, (32, 64, 128))


NETS: dict[str, Callable[[], Net]] = {"digits": lambda: digits_net(16), "mobilenet": lambda: mobilenet(8)}


def main(names: list[str]) -> None:
    """The tables."""
    warnings.simplefilter("ignore")
    packages = ("tensorflow", "keras", "xplique", "tf-keras-vis", "tf-explain", "saliency", "alibi", "shap")
    print(", ".join(f"{one} {version(one) or 'missing'}" for one in packages), flush=True)
    for name in names:
        if name == "quadrature":
            for by in ("probabilities", "logits"):
                quadrature(digits_net(16, by))
            continue
        net = NETS[name]()
        print(f"-- {net.name}, {len(net.x)} images", flush=True)
        for row in ROWS:
            race(row, net)


if __name__ == "__main__":
    main(sys.argv[1:] or [*NETS, "quadrature"])
