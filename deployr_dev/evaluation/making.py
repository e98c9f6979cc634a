"""How a model was made, as its manifest knows it. What it is for, and what only people know, is in its papers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from deployr_core.bundle import Manifest
from deployr_core.features import FeatureSpec
from deployr_core.label_rules import deciding_components
from deployr_core.layout import layout_of
from deployr_core.outputs import Target
from deployr_dev.evaluation.words import count, number, of, percent


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """What is asked, and each part of the answer; none means that it was not given.

    ``exact``: the answer is a code or digest, not prose.
    """

    asked: str
    answer: tuple[str, ...]
    exact: bool = False


def manifest_lines(manifest: Manifest, *, spec: FeatureSpec | None) -> tuple[Line, ...]:
    """Give what the bundle says of its making.

    Raises:
        ValueError: ``spec`` is not the declaration that the manifest names.
    """
    training, task = manifest.training, manifest.task
    return (
        Line(asked="Model", answer=(manifest.model_id,), exact=True),
        Line(asked="Version", answer=(manifest.version,), exact=True),
        Line(asked="Column in the EMR", answer=(manifest.score_name,), exact=True),
        Line(asked="Orders it is for (LOINC)", answer=task.panels, exact=True),
        Line(asked="Results that decide the label (LOINC)", answer=deciding_components(task.rule), exact=True),
        Line(
            asked="Training rows",
            answer=(
                f"{of(training.rows, 'row')} of {of(training.patients, 'patient')},"
                f" {label_means(manifest, training.label_means)}",
            ),
        ),
        Line(asked="Features", answer=_features(manifest, spec)),
        Line(asked="Estimator", answer=(training.estimator,), exact=True),
        Line(asked="Its parameters", answer=_pairs(training.parameters), exact=True),
        Line(asked="Library versions", answer=_pairs(training.library_versions), exact=True),
        Line(
            asked="Figures in the manifest",
            answer=(
                *(
                    f"{figure_name(name)} {number(stated.value)} ({number(stated.low)} to {number(stated.high)})"
                    for name, stated in manifest.evaluation.figures.items()
                ),
                f"on {of(manifest.evaluation.rows, 'row')} of {of(manifest.evaluation.patients, 'patient')}",
            ),
        ),
    )


def label_means(manifest: Manifest, means: Mapping[str, float]) -> str:
    """Write what the labels of some rows are on average: shares with the outcome, or of each class, or a mean."""
    outputs = manifest.task.outputs
    match outputs.target:
        case Target.BINARY:
            return f"{percent(means[outputs.headline])} with the outcome"
        case Target.REGRESSION:
            return f"{number(means[outputs.headline], digits=2)} {outputs.unit} on average"
        case _:
            return ", ".join(f"{percent(means[name])} {name}" for name in outputs.names)


def figure_name(name: str) -> str:
    """Write a figure's name as people read it: ``auroc.low`` is ``AUROC of low``."""
    figure, _, of_what = name.partition(".")
    shown = {"auroc": "AUROC", "mae": "mean absolute error", "rmse": "root mean squared error", "r2": "R²"}
    return shown.get(figure, figure.replace("_", " ")) + (f" of {of_what}" if of_what else "")


def digest_lines(manifest: Manifest) -> tuple[Line, ...]:
    """Give the SHA-256 digests that tie this report to files."""
    code = manifest.code_version
    return (
        Line(asked="Feature declaration", answer=(manifest.spec_sha256,), exact=True),
        Line(asked="Training rows, labels and features", answer=(manifest.training.snapshot_sha256,), exact=True),
        Line(asked="Training code", answer=() if code is None else (code.sources_sha256,), exact=True),
        *(Line(asked=name, answer=(part.sha256,), exact=True) for name, part in sorted(manifest.parts.items())),
    )


def _features(manifest: Manifest, spec: FeatureSpec | None) -> tuple[str, ...]:
    if spec is None:
        return (f"{count(manifest.n_features)}; by group: not given",)
    if spec.digest() != manifest.spec_sha256:
        raise ValueError("expected the declaration that the manifest names, got another")
    by_group = Counter(layout_of(spec).groups_of)
    return (
        f"{count(manifest.n_features)} in all",
        *(f"{name}: {count(by_group[name])}" for name in (group.name for group in spec.groups)),
    )


def _pairs(named: Mapping[str, str | int | float | bool | None]) -> tuple[str, ...]:
    return tuple(f"{name} {value}" for name, value in sorted(named.items()))
