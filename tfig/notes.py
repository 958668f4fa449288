"""What speaks against trusting an explanation, in words."""

import numpy as np

from tfig.explanation import Explanation, mapped

POLE = 100
"""How many times what it began with the relevance of a map may sum to before a note says so."""

ROUNDINGS = 8
"""Roundings of the score, in its own precision, that it may have lost on its way through a network."""


def of(e: Explanation) -> list[str]:
    """Rows without an answer, out of tolerance, off by a tenth; masks that do not move; what is not explained."""
    rows = len(e)
    notes: list[str] = []
    if not rows:
        return notes
    if not np.isfinite(e.score).all():
        notes.append(f"the model's score is NaN or infinite in {(~np.isfinite(e.score)).sum()} of {rows} rows")
    lost = ~e.trace["boundary_found"] if "boundary_found" in e.trace else np.zeros(rows, bool)
    if lost.any():
        missing = ", ".join(map(str, np.flatnonzero(lost)[:10]))
        notes.append(f"no decision boundary was found for row {missing}: widen tfig.baselines.Boundary(radii=...)")
    if e.baseline_score is not None:
        broken = ~np.isfinite(e.baseline_score) & np.isfinite(e.score) & ~lost
        if broken.any():
            notes.append(
                f"the score at the baseline is NaN or infinite in {broken.sum()} of {rows} rows: pass another one "
                "(where all tokens are padding, the id of a mask or of an unknown word)"
            )
    notes += _sums(e)
    if "absorbed" in e.trace and e.attributions is not None:
        kept = np.zeros(rows)
        mapped(e.attributions, lambda leaf: kept.__iadd__(leaf.reshape(rows, -1).sum(1)))
        beside = np.abs(kept) > POLE * np.abs(kept + e.trace["absorbed"])
        if beside.any():
            notes.append(
                f"the map sums to more than {POLE} times what it began with in {beside.sum()} of {rows} rows: "
                "relevance passed beside a pole; use a larger Epsilon, or another composite"
            )
    notes += _beside(e)
    if "drawn" in e.trace:
        notes.append("the model draws at random when it is called (a Dropout that is on?): this explains one draw")
    return notes + (_mask(e) if "moved" in e.trace else _map(e, lost))


def _map(e: Explanation, lost: np.ndarray) -> list[str]:
    """Maps without a number, without a difference, and of rows that were not cut up."""
    if e.attributions is None:
        return []
    rows, notes = len(e), []
    silent, broken = np.ones(rows, bool), np.zeros(rows, bool)
    mapped(e.attributions, lambda leaf: silent.__iand__(~leaf.reshape(rows, -1).any(1)))
    mapped(e.attributions, lambda leaf: broken.__ior__(~np.isfinite(leaf.reshape(rows, -1)).all(1)))
    broken &= np.isfinite(e.score) & ~lost
    if broken.any():
        notes.append(f"the map is NaN or infinite in {broken.sum()} of {rows} rows")
    if silent.any():
        notes.append(f"the map is zero everywhere in {silent.sum()} of {rows} rows")
    if "min_pixels" in e.parameters:
        ranked = np.asarray(e.attributions).reshape(rows, -1)
        whole = (ranked == ranked[:, :1]).all(1) & ~silent
        if whole.any():
            notes.append(
                f"the image is one region in {whole.sum()} of {rows} rows: lower min_pixels, or pass segments="
            )
    return notes


def _beside(e: Explanation) -> list[str]:
    """What is not explained of a model of several inputs."""
    if e.layer is not None or not isinstance(e.x, (dict, list, tuple)) or len(e.x) < 2:
        return []
    names = sorted(e.x) if isinstance(e.x, dict) else range(len(e.x))
    held = [repr(name) for i, name in enumerate(names) if i in e.held]
    notes = []
    if held:
        notes.append(
            f"inputs {', '.join(held)} hold no floats, or are a mask of tokens: they stay as they are in x and get "
            "nothing; explain a layer behind them (layer=), or ask a method that switches what is no float "
            "(tfig.methods() says which), a mask by a baseline of its own"
        )
    plain = [repr(name) for i, name in enumerate(names) if i not in e.held and np.ndim(e.x[name]) < 3]
    if plain and "max_sigma" in e.parameters:
        notes.append(f"inputs {', '.join(plain)} have no axes to blur: they stay as they are in x and get nothing")
    if "mask" in e.trace:
        notes.append("a mask closes one input: the others stay as they are in x and get nothing")
    return notes


def _mask(e: Explanation) -> list[str]:
    """Why masks do not change the score, or what they change of it."""
    stuck, rows = ~e.trace["moved"], len(e)
    alike = higher = np.zeros(rows, bool)
    if e.baseline_score is not None:
        larger = np.maximum(np.abs(e.score), np.abs(e.baseline_score))
        alike = stuck & (np.abs(e.score - e.baseline_score) <= 1e-6 * larger)
        higher = e.baseline_score - e.score > 0.01 * larger
    return [
        f"{which.sum()} of {rows} masks {why}"
        for which, why in (
            (stuck & ~alike, "do not change the score"),
            (alike, "have nothing to delete: the baseline scores as x does; choose one that x differs from"),
            (higher, "delete towards a baseline that scores higher than x: choose another one"),
        )
        if which.any()
    ]


def _sums(e: Explanation) -> list[str]:
    """What speaks against how the map adds up: beside the rounding of F(x) and F(x') nothing does."""
    if "converged" in e.trace and not e.trace["converged"].all():
        return [f"{(~e.trace['converged']).sum()} of {len(e)} rows are above the tolerance"]
    if e.baseline_score is None:
        return []
    difference, notes = np.abs(e.score - e.baseline_score), []
    size = np.maximum(np.abs(e.score), np.abs(e.baseline_score))
    rounding = ROUNDINGS * np.finfo(e.score.dtype).eps * size
    if e.convergence_delta is not None:
        off = np.abs(e.convergence_delta) > np.maximum(0.1 * difference, rounding)
        if off.any():
            ways = [way for way in ("samples", "steps") if way in e.parameters]
            if "max_dist" in e.parameters:  # what is flat just there moves first, by up to twice as far
                ways[0] = "max_dist and steps"
            rule = "" if e.parameters.get("rule") == "adaptive" else "rule='adaptive' or "
            more = f", or use {rule}tolerance=" if "tolerance" in e.parameters else ""
            zeros = "zeros have no length or deviation"
            advice = f": raise {ways[0]}{more}" if ways else f"; another baseline may have a sum ({zeros})"
            if not e.parameters:  # of a server
                advice = f"; export it with more steps or samples, or with another baseline ({zeros})"
            if ways:
                advice += (
                    "; where that changes nothing, F jumps at the baseline (x is masked there, or normalised: "
                    f"{zeros}): pass another one, for tokens 'vocabulary' or the id of padding or of the mask"
                )
            notes.append(f"the sum misses more than a tenth of F(x) - F(x') in {off.sum()} of {len(e)} rows{advice}")
    whole = np.zeros(len(e))
    if e.attributions is not None and "moved" not in e.trace:  # a mask is no share of a score
        mapped(e.attributions, lambda leaf: whole.__iadd__(np.abs(leaf).reshape(len(e), -1).sum(1)))
    lost = (rounding > 0.1 * np.maximum(whole, difference)) & (whole > 0)
    if lost.any():
        notes.append(
            f"F(x) is so large that its rounding, {rounding[lost].max():.2g}, is a tenth of the map in "
            f"{lost.sum()} of {len(e)} rows: use float64, or a target without the offset"
        )
    return notes
