"""The report: one HTML file that needs nothing else, and the same figures as JSON beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from markupsafe import Markup

from deployr_core.bundle import Manifest
from deployr_core.calibration import SCORE_LIMIT
from deployr_core.features import FeatureSpec
from deployr_core.groups import FEW_PATIENTS, FEWEST_OF_A_CLASS, FEWEST_PATIENTS, FEWEST_ROWS
from deployr_dev.evaluation import findings, plots, words
from deployr_dev.evaluation.making import digest_lines, label_means, manifest_lines
from deployr_dev.evaluation.pages import templates, write_whole
from deployr_dev.evaluation.plain_records import PlainEvaluation
from deployr_dev.evaluation.plain_report import PlainReport, plain_report_html
from deployr_dev.evaluation.records import (
    Evaluation,
    PrecisionRecallPoints,
    RocPoints,
)

REPORT_FILE = "report.html"
FIGURES_FILE = "report.json"
INDEX_FILE = "index.html"


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``report.json`` holds of one probability: all that the page was made from."""

    manifest: Manifest
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """One task in the table of tasks; ``link`` is where its report is, relative to the table."""

    manifest: Manifest
    evaluation: Evaluation | PlainEvaluation
    link: str


def write_report(
    folder: Path,
    *,
    manifest: Manifest,
    evaluation: Evaluation | PlainEvaluation,
    spec: FeatureSpec | None = None,
) -> Path:
    """Write ``report.html`` and ``report.json`` and give the path of the former.

    Each file appears whole or not at all; a report that is there already is replaced.

    Args:
        folder: where to; made if need be.
        manifest: of the bundle.
        evaluation: of the same bundle.
        spec: the bundle's declaration; without it, features are not counted by group.

    Raises:
        ValueError: ``spec`` is not the declaration that the manifest names.
    """
    report: Report | PlainReport
    if isinstance(evaluation, PlainEvaluation):
        page = plain_report_html(manifest, evaluation, spec=spec)
        report = PlainReport(manifest=manifest, evaluation=evaluation)
    else:
        page = report_html(manifest, evaluation, spec=spec)
        report = Report(manifest=manifest, evaluation=evaluation)
    figures = msgspec.json.format(msgspec.json.encode(report, order="sorted"), indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / FIGURES_FILE, figures + b"\n")
    write_whole(folder / REPORT_FILE, page.encode())
    return folder / REPORT_FILE


def write_index(folder: Path, entries: Sequence[IndexEntry]) -> Path:
    """Write ``index.html``, the table of tasks in the paper's layout: task, prevalence, AUROC with its interval.

    Source: Corbin et al. (2023), J. Am. Med. Inform. Assoc. 30:1532-1542, doi:10.1093/jamia/ocad114, table 2.
    """
    page = templates().get_template("index.html.j2").render(entries=entries)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / INDEX_FILE, page.encode())
    return folder / INDEX_FILE


def report_html(manifest: Manifest, evaluation: Evaluation, *, spec: FeatureSpec | None = None) -> str:
    """Give the page as text; the same arguments give the same text."""
    stated = (manifest.evaluation.rows, manifest.evaluation.patients)
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            manifest=manifest,
            trained_on=label_means(manifest, manifest.training.label_means),
            evaluation=evaluation,
            is_stated_evaluation=stated == (evaluation.rows, evaluation.patients),
            measured_groups=findings.measured_groups(evaluation),
            worse=findings.ranked_worse(evaluation),
            all_misjudged=words.misjudgement(evaluation.calibration_in_the_large),
            misjudged=findings.misjudged(evaluation),
            too_small=findings.too_small(evaluation),
            made=manifest_lines(manifest, spec=spec),
            digests=digest_lines(manifest),
            pictures=_pictures(evaluation),
            score_limit=SCORE_LIMIT,
            few_patients=FEW_PATIENTS,
            fewest_rows=FEWEST_ROWS,
            fewest_patients=FEWEST_PATIENTS,
            fewest_of_a_class=FEWEST_OF_A_CLASS,
        )
    )


def _pictures(evaluation: Evaluation) -> dict[str, Any]:
    """Draw what can be drawn; what is missing here, the page says why."""
    pictures: dict[str, Any] = {
        "calibration": Markup(plots.calibration_plot(evaluation.calibration)),  # noqa: S704 # the drawing escapes all words
        "scores": Markup(plots.histogram_plot(evaluation.histogram, operating=evaluation.operating)),  # noqa: S704
        "available": Markup(  # noqa: S704
            plots.availability_plot(evaluation.by_available_features, auroc=evaluation.auroc)
        ),
        "groupings": [
            Markup(plots.subgroups_plot(grouping.name, grouping.groups, auroc=evaluation.auroc))  # noqa: S704
            for grouping in evaluation.groupings
        ],
    }
    if isinstance(evaluation.roc, RocPoints):
        pictures["roc"] = Markup(  # noqa: S704
            plots.roc_plot(evaluation.roc, auroc=evaluation.auroc, operating=evaluation.operating)
        )
    if isinstance(evaluation.precision_recall, PrecisionRecallPoints):
        pictures["precision_recall"] = Markup(  # noqa: S704
            plots.precision_recall_plot(
                evaluation.precision_recall,
                average_precision=evaluation.average_precision,
                prevalence=evaluation.prevalence,
                operating=evaluation.operating,
            )
        )
    return pictures
