"""The page of a model of several classes, of several labels, or of numbers."""

from __future__ import annotations

from typing import Any

import msgspec
from markupsafe import Markup

from deployr_core.bundle import Manifest
from deployr_core.features import FeatureSpec
from deployr_core.groups import FEW_PATIENTS, FEWEST_PATIENTS, FEWEST_ROWS
from deployr_dev.evaluation import plain_plots, plots
from deployr_dev.evaluation.making import digest_lines, label_means, manifest_lines
from deployr_dev.evaluation.pages import templates
from deployr_dev.evaluation.plain_records import ClassDetail, LabelDetail, NumberDetail, PlainEvaluation
from deployr_dev.evaluation.records import RocPoints


class PlainReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``report.json`` holds of such a model: all that the page was made from."""

    manifest: Manifest
    evaluation: PlainEvaluation


def plain_report_html(manifest: Manifest, evaluation: PlainEvaluation, *, spec: FeatureSpec | None) -> str:
    """Give the page as text; the same arguments give the same text."""
    return (
        templates()
        .get_template("plain_report.html.j2")
        .render(
            manifest=manifest,
            evaluation=evaluation,
            detail=evaluation.detail,
            kind=evaluation.detail.__struct_config__.tag,
            trained_on=label_means(manifest, manifest.training.label_means),
            measured_on=label_means(manifest, evaluation.label_means),
            pictures=_pictures(manifest, evaluation),
            made=manifest_lines(manifest, spec=spec),
            digests=digest_lines(manifest),
            few_patients=FEW_PATIENTS,
            fewest_rows=FEWEST_ROWS,
            fewest_patients=FEWEST_PATIENTS,
        )
    )


def _pictures(manifest: Manifest, evaluation: PlainEvaluation) -> list[Any]:
    """Draw what can be drawn, each with its caption."""
    drawn: list[tuple[str, str]] = []
    match evaluation.detail:
        case ClassDetail(roc=curves):
            for name in manifest.task.outputs.names:
                points = curves[name]
                if isinstance(points, RocPoints):
                    shown = plain_plots.roc_of(name, points, auroc=evaluation.figures[f"auroc.{name}"])
                    drawn.append((f"ROC curve of {name} against the rest", shown))
        case LabelDetail(by_label=labels):
            for name in manifest.task.outputs.names:
                of = labels[name]
                if isinstance(of.roc, RocPoints):
                    drawn.append((f"ROC curve of {name}", plain_plots.roc_of(name, of.roc, auroc=of.auroc)))
                curve = plots.calibration_plot(of.calibration, identifier=f"calibration-{name}")
                drawn.append((f"Calibration curve of {name}", curve))
        case NumberDetail():
            unit = manifest.task.outputs.unit or ""
            predicted = plain_plots.predicted_plot(evaluation.detail.by_predicted, unit=unit)
            drawn.append(("Predicted against observed, in bins of about equally many rows", predicted))
            error = plain_plots.magnitude_plot(evaluation.detail.by_observed, unit=unit)
            drawn.append(("Error by magnitude of what was observed", error))
    # The drawing escapes all words.
    return [(caption, Markup(svg)) for caption, svg in drawn]  # noqa: S704
