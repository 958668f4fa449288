"""What exporter, client and server agree on: the names of signatures, tensors and files, and the statuses of rows."""

from collections.abc import Iterable, Mapping
from typing import Any

from tfig.score import NOT_FINITE, OK, TARGET_OUT_OF_RANGE

DEFAULT = "serving_default"
AT = "_at"
"""Ending of the signature of an explanation that also takes target, contrast, baseline and seed."""

TARGET, CONTRAST, BASELINE, SEED = "target", "contrast", "baseline", "seed"
ATTRIBUTIONS, HEATMAP, OVERLAY, SCORE, STATUS = "attributions", "heatmap", "overlay", "score", "status"
BASELINE_SCORE, DELTA = "baseline_score", "convergence_delta"
TRACE = "trace_"
"""Beginning of the names of a method's diagnostics."""

DESCRIPTION = "assets.extra/tfig.json"
WARM_UP = "assets.extra/tf_serving_warmup_requests"
BATCHING = "batching_params.pbtxt"

STATUSES = {
    OK: "ok",
    TARGET_OUT_OF_RANGE: "target or contrast out of range",
    NOT_FINITE: "NaN or infinite values in the input or its baseline",
}


def at(name: str) -> str:
    """The signature of explanation `name` that takes more than the model's inputs."""
    return name + AT


def pictured(name: str) -> dict[str, str]:
    """The signatures of explanation `name` that answer a picture alone, by what they answer."""
    return {word: f"{name}_{word}" for word in (HEATMAP, OVERLAY)}


def kin(name: str) -> list[str]:
    """All signatures that explanation `name` may have."""
    return [name, at(name), *pictured(name).values()]


def of(word: str, name: str | None) -> str:
    """The tensor `word` of input `name`; of the only input, where `name` is None."""
    return word if name is None else f"{word}_{name}"


def overlay(name: str | None) -> str:
    """The tensor of PNG files of input `name`; REST sends what ends in ``_bytes`` as base64."""
    return of(OVERLAY, name) + "_bytes"


def pictures(outputs: Iterable[str], word: str) -> list[str]:
    """The outputs that a signature of `word` alone answers: HEATMAP or OVERLAY, with what says of whom they are."""
    return sorted(name for name in outputs if name.split("_")[0] == word or name in (SCORE, STATUS, TARGET))


def numbers(outputs: Iterable[str]) -> list[str]:
    """The outputs of an explanation that are no pictures."""
    return sorted(name for name in outputs if not name.endswith("_bytes") and name.split("_")[0] != HEATMAP)


def asked(signatures: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """The sets of outputs that clients ask each signature for; [] stands for all of them."""
    found: dict[str, list[list[str]]] = {name: [[]] for name in signatures}
    for name, full in explanations(signatures).items():
        if len(numbers(full.outputs)) < len(full.outputs):
            found[name], found[at(name)] = ([[], numbers(signatures[key].outputs)] for key in (name, at(name)))
    return found


def explanations(signatures: Mapping[str, Any]) -> dict[str, Any]:
    """The explanations among the signatures of a model, name -> the `SignatureDef` that takes every option."""
    return {
        name: signatures[at(name)]
        for name in sorted(signatures)
        if at(name) in signatures and STATUS in signatures[name].outputs and SEED in signatures[at(name)].inputs
    }


def parts(word: str, names: Iterable[str]) -> dict[str | None, str]:
    """The tensors of `word` among `names` by input: {None: word} for one input, {input: word_input} for several."""
    found = [name for name in names if name == word or name.startswith(word + "_")]
    return {None: word} if word in found else {name[len(word) + 1 :]: name for name in sorted(found)}
