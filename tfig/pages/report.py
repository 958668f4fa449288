"""A report: one file that needs no network, for whoever must look an explanation over."""

import base64
import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfig import naming, view
from tfig.catalogue import methods
from tfig.comparison import Comparison
from tfig.evaluation import Evaluation
from tfig.explanation import Explanation
from tfig.pages import markup
from tfig.plots import image as pictured
from tfig.plots import scores, sheet
from tfig.plots.panel import Words
from tfig.provenance import weights
from tfig.version import VERSION

TOP = 5
"""Classes shown of a row."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""Nothing may be fetched, from anywhere."""

HERE = Path(__file__).parent


def report(
    what: Explanation | Mapping[str, Explanation] | Comparison | Evaluation,
    path: str | os.PathLike,
    *,
    title: str = "Why the model said so",
    evaluation: Evaluation | None = None,
    image: Any = None,
    kind: str | Mapping[str, str] | None = None,
    class_names: Any = None,
    tokens: Any = None,
    feature_names: Any = None,
    channel_names: Any = None,
) -> Path:
    """Write explanations as one HTML file that needs nothing else, and return its path.

    For each row: the input, the classes that score highest (where the model is at hand) and one map for each method,
    with opacity, threshold and the values under the pointer; F(x), F(x'), what the sum misses, and the notes. At its
    end the question in words: model, method, paper, hyper-parameters, target, layer, baseline, seed, versions. It can
    be read by keyboard and by a screen reader, in the dark, and printed.

    Args:
        what: an explanation; several of the same rows by name; a `Comparison`; or an `Evaluation` alone.
        path: where to write, ending in ``.html``.
        title: its heading.
        evaluation: metrics of the methods, as a table that sorts.
        image: [B, H, W, C] or [H, W, C], shown below maps in place of x.
        kind, class_names, tokens, feature_names, channel_names: as in `Explanation.plot`.

    Raises:
        ValueError: there is nothing to show, or explanations are of different rows.
        ImportError: series, volumes and curves are drawn by matplotlib, which is not installed.

    >>> tfig.report(tfig.compare(model, x, ["integrated_gradients", "igos"]), "why.html", title="Four photographs")
    """
    if not isinstance(what, (Explanation, Comparison, Evaluation, Mapping)):
        raise ValueError(
            f"what is {type(what).__name__}; pass an Explanation, several by name, a Comparison or an Evaluation."
        )
    found: dict[str, Explanation] = {}
    refused: Mapping[str, str] = {}
    if isinstance(what, Evaluation):
        evaluation = what
    elif isinstance(what, Comparison):
        found, refused = dict(what.explanations), what.refused
    else:
        found = {what.method: what} if isinstance(what, Explanation) else dict(what)
    if not found and evaluation is None:
        raise ValueError(
            "there is nothing to report; pass an Explanation, several by name, a Comparison, an Evaluation."
        )
    if len({len(e) for e in found.values()}) > 1:
        counts = {name: len(e) for name, e in found.items()}
        raise ValueError(f"a report is of one set of rows, and these have {counts}; write a report for each.")
    page = _Page(found, image, kind, Words(tokens, feature_names, channel_names), class_names)
    sections = [page.contents(), *(page.row(i) for i in range(page.rows))]
    if evaluation is not None:
        sections.append(_evaluated(evaluation))
    if found or refused:
        sections.append(_question(found, refused))
    made = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    path = Path(path)
    path.write_text(_document(title, made, page.tools(), "".join(sections)), encoding="utf-8")
    return path


class _Page:
    """The rows of explanations, side by side."""

    def __init__(self, found: Mapping[str, Explanation], image: Any, kind: Any, words: Words, class_names: Any):
        self.found = found
        self.rows = len(next(iter(found.values()))) if found else 0
        self.parts = {name: sheet.parts(e, image, kind, words, self.rows) for name, e in found.items()}
        self.class_names = class_names
        self.outputs = next((_said(e) for e in found.values()), None)

    def contents(self) -> str:
        """Links to rows, where there are several."""
        if self.rows < 2:
            return ""
        first = next(iter(self.found.values()))
        links = "".join(
            f'<li><a href="#row-{i}">{markup.escaped(sheet.title(first, i, self.class_names))}</a></li>'
            for i in range(self.rows)
        )
        listed = f'<ol start="0">{links}</ol>'
        return f'<nav aria-label="Rows"><details><summary>{self.rows} rows</summary>{listed}</details></nav>'

    def tools(self) -> str:
        """What sets how maps are shown; nothing where there are none."""
        kinds = {part.kind for parts in self.parts.values() for part in parts}
        if not kinds & {"image", "tokens"}:
            return ""
        below = (
            '<label><input type="checkbox" id="below" checked> image below the map</label>' if "image" in kinds else ""
        )
        return (
            '<div class="tools" role="group" aria-label="How maps are shown">'
            '<label>Opacity <input type="range" id="opacity" min="0" max="100" value="80">'
            '<output id="opacity-says">80 %</output></label>'
            '<label>Hide below <input type="range" id="threshold" min="0" max="100" value="0">'
            '<output id="threshold-says">0 %</output></label>'
            f"{below if 'image' in kinds else ''}"
            '<span class="scale">against <i aria-hidden="true"></i> for</span></div>'
        )

    def row(self, i: int) -> str:
        """What there is to say of a row."""
        first = next(iter(self.found.values()))
        title = markup.escaped(sheet.title(first, i, self.class_names))
        pieces = [f'<article id="row-{i}" aria-labelledby="title-{i}"><h2 id="title-{i}">Row {i}: {title}</h2>']
        pieces.append(self._classes(i))
        pieces.append('<div class="maps">')
        seen: dict[str, str] = {}
        for m, (name, parts) in enumerate(self.parts.items()):
            e = self.found[name]
            for p, part in enumerate(parts):
                panel = part.panels[i]
                if part.kind == "image" and part.name not in seen:
                    seen[part.name] = f"image-{i}-{p}"
                    pieces.append(_picture(seen[part.name], part.name, pictured.picture(panel)))
                pieces.append(_map(f"{i}-{m}-{p}", _heading(name, part, len(parts), i), part, i, seen, view.full(e)))
        pieces.append("</div>")
        numbers = [[name, *_numbers(e, i)] for name, e in self.found.items()]
        table = markup.grid(["method", "F(x)", "F(x')", "sum less F(x) - F(x')"], numbers)
        pieces.append(f'<div class="scroll">{table}</div>')
        notes = [f"{name}: {note}" for name, e in self.found.items() for note in e[i].notes]
        if notes:
            pieces.append(f'<div class="notes" role="note" aria-label="Notes">{markup.items(notes)}</div>')
        return "".join([*pieces, "</article>"])

    def _classes(self, i: int) -> str:
        """The classes that score highest, where the model said them."""
        if self.outputs is None:
            return ""
        first, outputs = next(iter(self.found.values())), self.outputs[i]
        names = first.class_names if self.class_names is None else self.class_names
        order = np.argsort(-outputs, kind="stable")[:TOP]
        rows = [[naming.class_name(names, c), (f"{outputs[c]:.4g}", float(outputs[c]), False)] for c in order]
        return markup.grid(["class", "output"], rows, f"What the model says: the first {len(rows)}")


def _said(e: Explanation) -> np.ndarray | None:
    """The model's outputs [B, C > 1], of the output that is explained; None where it is not at hand, or no classes."""
    if e.explainer is None or e.x is None:
        return None
    outputs, target = e.explainer.outputs(e.x), e.explainer.target
    if isinstance(target, tuple) and not callable(target[0]):
        nest, head = view.named(outputs), target[0]
        outputs = nest.get(str(head), next(iter(nest.values())))
    many = isinstance(outputs, np.ndarray) and outputs.ndim == 2 and outputs.shape[1] > 1
    return outputs if many else None


def _heading(name: str, part: sheet.Part, parts: int, row: int) -> str:
    return f"{name}, {part.name}: {part.share[row]:.0%}" if parts > 1 else name


def _picture(key: str, name: str, image: np.ndarray | None) -> str:
    """The input; nothing where there is no picture of it."""
    if image is None:
        return ""
    shown = markup.reduced(view.pixels(image))
    small = ' class="small"' if max(shown.shape) < 128 else ""
    what = markup.escaped(f"input {name}".strip())
    return (
        f'<figure{small}><h3>{what}</h3><img id="{key}" alt="{what}, {image.shape[1]} by {image.shape[0]}" '
        f'src="{markup.png(shown)}"></figure>'
    )


def _map(key: str, heading: str, part: sheet.Part, row: int, images: Mapping[str, str], top: float | None) -> str:
    """One method's answer for one input."""
    panel, said = part.panels[row], markup.escaped(heading)
    title = f"<h3>{said}</h3>"
    if part.kind == "image":
        return _canvas(key, heading, panel, images.get(part.name, ""), top)
    if part.kind == "tokens":
        return f'<figure class="wide">{title}{markup.words(panel)}</figure>'
    if part.kind == "table":
        ends = "" if panel.ends is None else f"from F(x') = {panel.ends[0]:.4g} to F(x) = {panel.ends[1]:.4g}"
        return f'<figure class="wide">{title}{markup.bars(panel, ends)}</figure>'
    drawn = markup.figure(sheet.single(part, row), f"{heading}, drawn")
    return f'<figure class="wide">{title}{drawn}</figure>'


def _canvas(key: str, heading: str, panel: Any, image: str, top: float | None) -> str:
    """A map that is drawn when it comes into view, with what it says for those who do not see it."""
    map_ = np.nan_to_num(np.asarray(panel.map, np.float32))
    full = view.scale(map_, top)
    small = markup.reduced(map_)
    step = max(float(np.abs(small).max()), 1e-30) / 32767
    numbers = np.round(small / step).astype("<i2")
    below = pictured.picture(panel)
    height, width = (small if below is None else markup.reduced(view.pixels(below))).shape[:2]
    coded = base64.b64encode(numbers.tobytes()).decode()
    words = described(np.asarray(panel.map))
    pixelated = ' class="small"' if max(height, width) < 128 else ""
    attributes = markup.attributes({
        "tabindex": 0, "role": "img", "width": width, "height": height,
        "aria-label": f"{heading}: {words}. Arrow keys read values.", "aria-describedby": f"says-{key}",
        "data-map": f"map-{key}", "data-image": image, "data-says": f"says-{key}", "data-w": small.shape[1],
        "data-h": len(small), "data-step": f"{step:.9g}", "data-full": f"{full:.9g}",
        "data-scale": f"{len(map_) / len(small):.6g}",
    })  # fmt: skip
    return (
        f"<figure{pixelated}><h3>{markup.escaped(heading)}</h3><canvas {attributes}></canvas>"
        f'<output id="says-{key}" aria-live="polite">{markup.escaped(words)}</output>'
        f'<script type="text/plain" id="map-{key}">{coded}</script></figure>'
    )


def described(map_: np.ndarray) -> str:
    """A map [H, W] in words: how much of it speaks for the target, and where it is strongest."""
    lost = int((~np.isfinite(map_)).sum())
    if lost:
        return f"NaN or infinite in {lost} of {map_.size} positions"
    weight = float(np.abs(map_).sum())
    if not weight:
        return "nothing: zero everywhere"
    share = float(map_[map_ > 0].sum()) / weight
    h, w = np.unravel_index(int(np.abs(map_).argmax()), map_.shape)
    height, width = map_.shape
    place = f"{('top', 'middle', 'bottom')[3 * int(h) // height]} {('left', 'centre', 'right')[3 * int(w) // width]}"
    return f"{share:.0%} of it for the target, strongest in the {place} (row {h}, column {w}: {map_[h, w]:+.3g})"


def _numbers(e: Explanation, i: int) -> list[Any]:
    def shown(values: np.ndarray | None, digits: str) -> Any:
        return "" if values is None else (format(float(values[i]), digits), float(values[i]), False)

    return [shown(e.score, ".5g"), shown(e.baseline_score, ".5g"), shown(e.convergence_delta, ".2g")]


def _evaluated(evaluation: Evaluation) -> str:
    """The table of methods by metrics; bold: the best, and what reaches it."""
    best = {metric: evaluation.best(metric) for metric in evaluation.metrics}

    def cell(method: str, metric: str) -> Any:
        shown = evaluation.cell(method, metric)
        return (shown, evaluation.mean(method, metric), method in best[metric]) if shown else ""

    table = markup.grid(
        ["method", *map(evaluation.heading, evaluation.metrics)],
        [[method, *(cell(method, metric) for metric in evaluation.metrics)] for method in evaluation.methods],
        "Means over rows with 95 % bootstrap intervals; bold: the best, and those whose interval reaches it.",
    )
    lost = [": ".join((", ".join(filter(None, who)), why)) for who, why in evaluation.refused.items()]
    curves = ""
    if any(evaluation.curves.values()):
        curves = markup.figure(scores.curves(evaluation), "Curves, mean over rows")
    return (
        f'<section aria-labelledby="metrics"><h2 id="metrics">Metrics</h2><div class="scroll">{table}</div>{curves}'
        f"{markup.items(lost)}</section>"
    )


def _question(found: Mapping[str, Explanation], refused: Mapping[str, str]) -> str:
    """What was asked of what, and by which means."""
    known, pieces = methods(), ['<section aria-labelledby="question"><h2 id="question">The question</h2>']
    counted: dict[int, str] = {}
    for name, e in found.items():
        info = known.get(e.method)
        pairs: list[tuple[str, Any]] = []
        if info is not None:
            pairs += [("what it is", info.summary), ("paper", info.reference)]
        pairs += [("hyper-parameters", ", ".join(f"{key}={value!r}" for key, value in e.parameters.items()) or "none")]
        pairs += [("explained", f"the output of layer {e.layer}" if e.layer else "the input")]
        pairs += [("output", e.output or "as the model emits it")]
        pairs += [(key, value) for key, value in e.provenance.items()]
        if e.explainer is not None:
            model = e.explainer.model
            if id(model) not in counted:
                counted[id(model)] = weights(model)
            pairs += [("weights", counted[id(model)])]
        if not e.provenance:
            pairs += [("model, target, baseline", "not known: a server answered, or an older file was read")]
        pieces.append(f"<h3>{markup.escaped(name)}</h3>{markup.facts(pairs)}")
    if refused:
        pieces.append(f"<h3>Refused</h3>{markup.items(f'{name}: {why}' for name, why in refused.items())}")
    return "".join([*pieces, "</section>"])


def _document(title: str, made: str, tools: str, body: str) -> str:
    style, script = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    said = markup.escaped(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{said}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="generator" content="tfig {VERSION}"><style>{style}</style></head>'
        f'<body><a class="skip" href="#rows">To the rows</a><header><h1>{said}</h1>'
        f'<p class="made">Written {made} by tfig {VERSION}. Red speaks for the target, blue against it.</p>'
        "<noscript><p>Maps over images are drawn by a script in this file; it is switched off.</p></noscript>"
        f'</header><main id="rows">{tools}{body}</main>'
        "<footer>Attributions say what the model's score depends on, not what is true of the world.</footer>"
        f"<script>{script}</script></body></html>\n"
    )
