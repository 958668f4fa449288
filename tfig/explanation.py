"""The answer: attributions with their provenance, their error, and ways to look at them."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tfig.layout import moved

Nest = Any
"""An array, or the list, tuple or dict of arrays that a model of several inputs takes."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What `tfig.explain` returns.

    Fields:
        attributions: in the shape of x (or of the layer's output), or [B, ..., 1] where a method hides or weighs all
            channels of a position at once (`tfig.methods` says which, ``gives``); the nest of x for several inputs.
        target: [B] int32, the class explained, after "predicted" was resolved; None for a callable target.
        score: [B], F(x).
        baseline_score: [B], F(x'); the mean over references; None where the method has no baseline.
        convergence_delta: [B], sum(attributions) - (score - baseline_score), for complete methods; else None.
        method, parameters: name of the method and its hyper-parameters.
        layer, output: where the question was posed, and what was read off the model; None as in `tfig.explain`.
        trace: per-row diagnostics by name, [B, ...] each.
        x: the rows explained; None where they were left out.
        explainer: the `tfig.Explainer` that answered, for metrics that ask on; None where it was loaded or served, or
            where rows of it were picked out that have seeds or baselines of their own.
        held: numbers of the inputs, as `tf.nest.flatten` orders them, that stayed as they are in x and have zeros.
        channels: the axis of channels, -1 or 1, of each leaf of "attributions" and "x"; {} where all are last.
        class_names: what classes are called: a list, a dict by number, or a function number -> name.
        provenance: in words: the model's name, target, baseline, seed, and the versions that answered; {} of what a
            server answered.
    """

    attributions: Nest
    target: np.ndarray | None
    score: np.ndarray
    baseline_score: np.ndarray | None
    convergence_delta: np.ndarray | None
    method: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layer: str | None = None
    output: str | None = None
    trace: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    x: Nest = None
    explainer: Any = None
    held: tuple[int, ...] = ()
    channels: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    class_names: Any = None
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.score)

    def __getitem__(self, rows: Any) -> "Explanation":
        """The explanation of some rows: an index, a slice, or an array of them. The result always has a row axis."""
        if isinstance(rows, (int, np.integer)):
            rows = [rows]

        def take(nest: Nest) -> Nest:
            return None if nest is None else mapped(nest, lambda leaf: leaf[rows])

        return dataclasses.replace(
            self,
            attributions=take(self.attributions),
            x=take(self.x),
            trace=take(dict(self.trace)),
            explainer=None if self.explainer is None or self.explainer.by_row else self.explainer,
            **{name: take(getattr(self, name)) for name in ROWS},
        )

    def __repr__(self) -> str:
        none = "left out"
        shapes = none if self.attributions is None else mapped(self.attributions, lambda leaf: list(leaf.shape))
        delta = self.convergence_delta
        worst = "" if delta is None else f", worst convergence_delta {np.abs(delta).max():.2g}"
        where = f" at {self.layer}" if self.layer else ""
        notes = "".join(f"; {note}" for note in self.notes)
        return f"<Explanation by {self.method}{where}: attributions {shapes}{worst}{notes}>"

    def _repr_html_(self) -> str:
        from tfig.pages import notebook

        return notebook.html(self)

    def _repr_png_(self) -> bytes | None:
        from tfig.pages import notebook

        return notebook.png(self)

    @property
    def notes(self) -> list[str]:
        """What speaks against trusting it, in words: rows without an answer, out of tolerance, or off by a tenth."""
        from tfig import notes

        return notes.of(self)

    def channels_last(self, name: str) -> Nest:
        """ "attributions" or "x", with the channels of models that take them first put last: [B, H, W, C]."""
        nest, axes = getattr(self, name), iter(self.channels.get(name, ()))
        return nest if nest is None or not self.channels else mapped(nest, lambda leaf: moved(leaf, next(axes)))

    def heatmap(self) -> Nest:
        """Attributions with channels summed, signed: [B, H, W] for images, [B, T] for sequences.

        Maps over images, of a layer or a mask, are enlarged linearly to the spatial size of x; others stay as they are.
        """
        from tfig import view

        if self.attributions is None and "heatmap" in self.trace:  # a server was asked for nothing else
            return self.trace["heatmap"]
        if self.attributions is None:
            raise ValueError(
                "the attributions were left out of this explanation; ask for them (server: outputs=, batch: --keep)."
            )
        return view.heatmap(self.channels_last("attributions"), self.channels_last("x"))

    def overlay(self, image: np.ndarray | None = None, alpha: float = 0.6) -> np.ndarray:
        """The heat map over the image, uint8 RGB [B, H, W, 3]: red speaks for the target, blue against it.

        Full colour is the 99th percentile of the row's map; for masks, a mask that deletes everything.

        Args:
            image: [B, H, W, C] or [H, W, C], any range and size, to which the map is enlarged; by default x. It is
                shown in grey, so that colour means the map.
            alpha: opacity of the strongest colour.

        Raises:
            ValueError: the explanation is of no image, or there are not as many images as rows.
        """
        from tfig import view

        return view.overlay(self.heatmap(), self.channels_last("x") if image is None else image, alpha, view.full(self))

    def plot(
        self,
        path: str | os.PathLike | None = None,
        image: np.ndarray | None = None,
        kind: str | Mapping[str, str] | None = None,
        *,
        class_names: Any = None,
        tokens: Any = None,
        feature_names: Any = None,
        channel_names: Any = None,
    ) -> Any:
        """A figure of each row (at most 8), one panel for each input, saved to `path` if given.

        Args:
            image: [B, H, W, C] or [H, W, C], shown below maps in place of x.
            kind: what the input is (of several: by name); by default told by its shape and type. "image" [B, H, W, C]:
                image, map, and one over the other. "tokens" [B, T]: coloured words, without padding. "series" [B, T] or
                [B, T, C]: the signal over the attribution, a band a channel; a [B, F] of more than 500 numbers is
                taken for one. "table" [B, F] and columns: the strongest 15 features and the sum of the others, from
                F(x') to F(x) where the method is complete. "volume" [B, D, H, W, C]: three cuts through the strongest
                voxel. "video" [B, T, H, W, 3]: a strip of frames.
            class_names: a list, a dict by number or a function number -> name; by default those kept here.
            tokens: a vocabulary (list or dict), a Keras `TextVectorization` (also one inside the model) or a tokenizer
                with `id_to_token`, a function ids [T] -> T words, or a list of words for each row.
            feature_names, channel_names: lists; features of several inputs a dict of lists.

        Returns:
            the matplotlib Figure.

        Raises:
            ImportError: matplotlib is not installed (``pip install tfig[plot]``).
            ValueError: `kind` or the names do not fit what is explained.
        """
        from tfig.plots import panel, sheet

        words = panel.Words(tokens, feature_names, channel_names)
        return sheet.plot(self, path, image, kind, words, class_names)

    def to_shap(self, *, tokens: Any = None, feature_names: Any = None) -> Any:
        """A `shap.Explanation`, so that ``shap.plots`` draw it: of a table, a text or an image.

        base_values are F(x'), zeros where the method has no baseline; the data of a text are its words. Its plots
        assume that values add up to F(x) - F(x'), which the complete methods' do.

        Raises:
            ImportError: shap is not installed (``pip install tfig[exchange]``).
            ValueError: of several inputs, which are not columns of one table; or names do not fit.
        """
        from tfig import exchange
        from tfig.plots.panel import Words

        return exchange.to_shap(self, Words(tokens, feature_names))

    def to_dataframe(self, *, tokens: Any = None, feature_names: Any = None) -> Any:
        """A pandas `DataFrame`.

        Of a table a row for each row of x: a column of attributions for each feature, then "class" (where classes have
        names), "target", "score", "baseline_score", "convergence_delta", as far as there are any. Of a text a row for
        each token: "row", "position", "token", "attribution", without padding.

        Raises:
            ImportError: pandas is not installed (``pip install tfig[exchange]``).
            ValueError: it is neither a table nor a text; or names do not fit.
        """
        from tfig import exchange
        from tfig.plots.panel import Words

        return exchange.to_dataframe(self, Words(tokens, feature_names))

    def to_xarray(self, *, feature_names: Any = None, channel_names: Any = None) -> Any:
        """An `xarray.Dataset`: "attributions" and "x" (of several inputs with ``_NAME``), axes named, channels last.

        Beside them, along "row", what `to_dataframe` tells of rows; as attributes method, parameters and provenance.

        Raises:
            ImportError: xarray is not installed (``pip install tfig[exchange]``).
            ValueError: names do not fit.
        """
        from tfig import exchange
        from tfig.plots.panel import Words

        return exchange.to_xarray(self, Words(None, feature_names, channel_names))

    def save(self, path: str | os.PathLike) -> Path:
        """Write everything to an ``.npz`` file, without pickle; `load` reads it back. Returns the path written."""
        from tfig import archive

        return archive.save(self, Path(path))

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Explanation":
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds no explanation.
        """
        from tfig import archive

        return archive.load(path)

    @classmethod
    def concatenate(cls, parts: "list[Explanation]") -> "Explanation":
        """The explanations of several batches of rows as one."""
        first = parts[0]
        if len(parts) == 1:
            return first

        def joined(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return None if values[0] is None else np.concatenate(values)

        return dataclasses.replace(
            first,
            attributions=_join([part.attributions for part in parts]),
            x=_join([part.x for part in parts]),
            trace={name: np.concatenate([part.trace[name] for part in parts]) for name in first.trace},
            **{name: joined(name) for name in ROWS},
        )


ROWS = ("target", "score", "baseline_score", "convergence_delta")
"""The fields that have a number for each row."""


def mapped(nest: Nest, function) -> Any:
    """A nest with what a function makes of each of its arrays."""
    if isinstance(nest, dict):
        return {name: mapped(value, function) for name, value in nest.items()}
    if isinstance(nest, (list, tuple)):
        return type(nest)(mapped(value, function) for value in nest)
    return function(nest)


def _join(nests: list[Nest]) -> Nest:
    first = nests[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {name: _join([nest[name] for nest in nests]) for name in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_join(list(leaves)) for leaves in zip(*nests, strict=True))
    return np.concatenate(nests)
