"""A bundle's model as plain numbers: trees or a line, how their sum ends, the calibration; and rows to try it by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from deployr_core.bundle import CALIBRATION_FILE, GOLDEN_FILE, Bundle
from deployr_core.documents import column_names
from deployr_core.golden import GoldenVector
from deployr_core.linear import LinearNumbers
from deployr_core.model_format import ModelFormat
from deployr_core.outputs import Outputs, Target
from deployr_core.scoring import CalibrationTable, ScoreInvalid, Scorer
from deployr_core.vectorize import FeatureVector

if TYPE_CHECKING:
    from deployr_serve.adapters.bundle_files import Files

Ending = Literal["identity", "sigmoid", "softmax"]

_LESS, _LESS_OR_EQUAL = 2, 3
"""treelite's numbers for the two comparisons that its imported trees have."""
_PROBES = 256


class NotForEdge(ValueError):
    """The model cannot be said in another format; the message says why and what can be done."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """A binary tree, node 0 its root; all arrays of shape (n_nodes,).

    ``feature``: of a node that splits, -1 in a leaf. A row goes left if its value is less than the ``threshold``, or
    where ``or_equal`` equal to it. ``missing_left``: where a missing value goes. ``leaf``: shape (n_nodes, n_outputs),
    what a leaf adds to each output.
    """

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    or_equal: NDArray[np.bool_]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    leaf: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trees:
    """A sum of trees, or with ``n_averaged`` their mean, on top of ``base``, shape (n_outputs,).

    Features are compared as they are, in float64. ``zero_is_missing``: 0 goes the way of a missing value. The
    ending is applied to ``steepness`` times each sum.
    """

    trees: tuple[Tree, ...] = field(repr=False)
    base: NDArray[np.float64]
    n_averaged: int | None
    ending: Ending
    steepness: float
    zero_is_missing: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """For each output, an intercept and the features times its coefficients, each first divided by its scale.

    ``coefficients``: shape (n_outputs, n_features); ``scale``: shape (n_features,), ``intercepts``: shape (n_outputs,).
    """

    coefficients: NDArray[np.float64]
    scale: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    ending: Ending


@dataclass(frozen=True, kw_only=True, eq=False)
class PlainModel:
    """All that another runtime needs, and what to hold its answers against.

    ``names``: of the features, by their places. ``about``: what travels with the file in words. ``scorer``: the model
    as deployr scores it.
    """

    names: tuple[str, ...]
    outputs: Outputs
    model: Trees | Line
    calibration: CalibrationTable | None
    about: Mapping[str, str]
    scorer: Scorer


def plain_bundle(bundle: Bundle, files: Files) -> PlainModel:
    """Read a verified bundle's numbers.

    Args:
        bundle: opened, so that every digest is right.
        files: its files.

    Raises:
        NotForEdge: the model is code, answers elsewhere, or splits by categories.
    """
    manifest = bundle.manifest
    names = column_names(bundle.spec, bundle.documents)
    outputs = manifest.task.outputs
    return plain_model(
        manifest.model,
        files.parts.get(manifest.model.file_name, b""),
        calibration=files.parts.get(CALIBRATION_FILE),
        names=names,
        outputs=outputs,
        scorer=bundle.model,
        about={
            "deployr.model_id": manifest.model_id,
            "deployr.version": manifest.version,
            "deployr.bundle_sha256": bundle.digest,
            "deployr.spec_sha256": manifest.spec_sha256,
            "deployr.label": manifest.task.label,
            "deployr.headline": outputs.headline,
            "deployr.unit": outputs.unit or "",
        },
    )


def plain_model(
    form: ModelFormat,
    content: bytes,
    *,
    calibration: bytes | None,
    names: Sequence[str],
    outputs: Outputs,
    scorer: Scorer,
    about: Mapping[str, str],
) -> PlainModel:
    """Read a model's file; see `plain_bundle`."""
    model: Trees | Line
    match form.kind:
        case "treelite":
            model = _trees(form, outputs, content)
        case "linear":
            model = _line(msgspec.json.decode(content, type=LinearNumbers))
        case kind:
            raise NotForEdge(
                f"expected trees or a linear model, got the kind {kind}, which is code or answers elsewhere; take it"
                " there as a container (docs/model-kinds.md)"
            )
    table = None if calibration is None else msgspec.json.decode(calibration, type=CalibrationTable)
    return PlainModel(names=tuple(names), outputs=outputs, model=model, calibration=table, about=about, scorer=scorer)


def golden_rows(files: Files) -> tuple[GoldenVector, ...]:
    """Give a bundle's golden vectors."""
    return msgspec.json.decode(files.parts[GOLDEN_FILE], type=tuple[GoldenVector, ...])


def rows_to_try(plain: PlainModel, golden: Sequence[GoldenVector]) -> NDArray[np.float64]:
    """Give rows to compare by, shape (n_rows, n_features): the golden ones, then made-up ones, always the same.

    The made-up ones hold 0 in most places, and else numbers at, just below and just above the model's own thresholds.
    """
    n_features = len(plain.names)
    rows = np.zeros((len(golden) + _PROBES, n_features))
    for row, vector in zip(rows, golden, strict=False):
        row[list(vector.indices)] = vector.values
    rng = np.random.default_rng(0)
    for row, number in zip(rows[len(golden) :], range(_PROBES), strict=True):
        there = rng.random(n_features) < (0.05, 0.5)[number % 2]
        row[there] = _near(plain.model, rng, np.flatnonzero(there))
    return rows


def _near(model: Trees | Line, rng: np.random.Generator, features: NDArray[np.int64]) -> NDArray[np.float64]:
    if isinstance(model, Line):
        return np.round(rng.normal(0.0, 3.0, features.size), 3)
    cuts = np.concatenate([tree.threshold[tree.feature >= 0] for tree in model.trees] or [np.zeros(0)])
    if not cuts.size:
        return np.ones(features.size)
    cut = rng.choice(cuts, features.size)
    steps = rng.integers(-1, 2, features.size)
    return np.where(steps == 0, cut, np.nextafter(cut, np.where(steps < 0, -np.inf, np.inf)))


def own_answers(plain: PlainModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Score rows as deployr does, shape (n_rows, n_outputs); NaN where a row gets no score."""
    answers = np.full((rows.shape[0], len(plain.outputs.names)), np.nan)
    for place, row in enumerate(rows):
        indices = np.flatnonzero(row).astype(np.int32)
        vector = FeatureVector(
            spec_digest="",
            size=rows.shape[1],
            indices=indices,
            values=row[indices],
            coverage={},
        )
        try:
            answers[place] = plain.scorer.answer(vector)
        except ScoreInvalid:
            continue
    return answers


def _line(numbers: LinearNumbers) -> Line:
    coefficients = np.array(numbers.coefficients)
    scale = np.ones(coefficients.shape[1]) if numbers.scale is None else np.array(numbers.scale)
    endings: dict[str, Ending] = {"identity": "identity", "logit": "sigmoid", "softmax": "softmax"}
    return Line(
        coefficients=coefficients,
        scale=scale,
        intercepts=np.array(numbers.intercepts),
        ending=endings[numbers.link],
    )


def _trees(form: ModelFormat, outputs: Outputs, checkpoint: bytes) -> Trees:
    import treelite

    held = treelite.Model.deserialize_bytes(checkpoint)
    header = held.get_header_accessor()
    is_multiclass = outputs.target is Target.MULTICLASS
    n_targets = int(header.get_field("num_target")[0])
    n_classes = int(max(header.get_field("num_class")))
    targets, classes = (np.array(header.get_field(f"{name}_id")).tolist() for name in ("target", "class"))
    # The columns of treelite's (n_targets, n_classes) that are an answer; of two classes the second.
    kept = [(0, each) for each in range(n_classes)] if is_multiclass else [(t, n_classes - 1) for t in range(n_targets)]
    if is_multiclass and n_targets > 1:
        kept = [(target, n_classes - 1) for target in range(n_targets)]
    places = [target * n_classes + each for target, each in kept]
    trees = tuple(
        _tree(
            held.get_tree_accessor(number),
            kept,
            n_classes,
            target=target,
            column=column,
            is_rounded=form.input_type == "float32",
        )
        for number, (target, column) in enumerate(zip(targets, classes, strict=True))
    )
    ending = str(header.get_field("postprocessor"))
    is_averaged = bool(header.get_field("average_tree_output")[0])
    return Trees(
        trees=trees,
        base=np.array(header.get_field("base_scores"), dtype=np.float64).ravel()[places],
        n_averaged=len(trees) if is_averaged else None,
        ending="sigmoid" if ending == "sigmoid" else "softmax" if ending == "softmax" else "identity",
        steepness=float(header.get_field("sigmoid_alpha")[0]) if ending == "sigmoid" else 1.0,
        zero_is_missing=form.zero_is_missing,
    )


def _for_float64(cuts: NDArray[np.float64], or_equal: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give the cuts at which float64 numbers part, by <=, as they do by the old ones once rounded to float32.

    Rounded or not, then, every runtime takes the same turn. The cut is half-way between the last float32 that goes left
    and the one after it; half-way itself is rounded to whichever of the two is even.
    """
    last = cuts.astype(np.float32)
    goes_right = np.where(or_equal, last > cuts, last >= cuts)
    last = np.where(goes_right, np.nextafter(last, np.float32(-np.inf)), last).astype(np.float32)
    following = np.nextafter(last, np.float32(np.inf)).astype(np.float64)
    half_way = (last.astype(np.float64) + following) / 2.0
    is_even = last.view(np.uint32) % 2 == 0
    return np.where(is_even, half_way, np.nextafter(half_way, -np.inf))


def _tree(
    held: Any, kept: Sequence[tuple[int, int]], n_classes: int, *, target: int, column: int, is_rounded: bool
) -> Tree:
    # Copies: treelite lends its memory, and takes it back with the model.
    def whole(name: str) -> NDArray[np.int64]:
        return np.array(held.get_field(name), dtype=np.int64)

    def number(name: str) -> NDArray[np.float64]:
        return np.array(held.get_field(name), dtype=np.float64)

    if whole("has_categorical_split")[0]:
        raise NotForEdge("expected trees that compare numbers, got splits by category")
    left, right, compared = whole("cleft"), whole("cright"), whole("cmp")
    splits = left >= 0
    if not set(compared[splits].tolist()) <= {_LESS, _LESS_OR_EQUAL}:
        raise NotForEdge("expected trees that compare by < or <=")
    or_equal = compared == _LESS_OR_EQUAL
    leaf = np.zeros((left.size, len(kept)))
    vectors = number("leaf_vector")
    starts, ends = whole("leaf_vector_begin"), whole("leaf_vector_end")
    alone = number("leaf_value")
    for node in np.flatnonzero(~splits):
        if ends[node] > starts[node]:
            vector = vectors[starts[node] : ends[node]]
            leaf[node] = [vector[t * n_classes + c] for t, c in kept]
        else:
            leaf[node] = [alone[node] if (t, c) == (max(target, 0), max(column, 0)) else 0.0 for t, c in kept]
    return Tree(
        feature=np.where(splits, whole("split_index"), -1),
        threshold=_for_float64(number("threshold"), or_equal) if is_rounded else number("threshold"),
        or_equal=or_equal | is_rounded,
        missing_left=whole("default_left").astype(bool),
        left=left,
        right=right,
        leaf=leaf,
    )
