"""The trial's report: one HTML file that needs nothing else; and the reports of its models, for monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from deployr_cli.trial.models import GROUPS
from deployr_cli.trial.paper import CITATION, TABLE_1, TABLE_2
from deployr_cli.trial.tables import SIDES, Found, fall, interval, percent, published
from deployr_core.bundle import Manifest
from deployr_dev.evaluation import plots
from deployr_dev.evaluation.pages import templates, write_whole
from deployr_dev.evaluation.records import Evaluation, PrecisionRecallPoints, RocPoints
from deployr_dev.evaluation.report import FIGURES_FILE, Report

PAGE, REPORTS = "trial.html", "reports"


def write_page(found: Found, file: Path) -> None:
    """Write the tables, and per model ROC, precision-recall and calibration curves, before the trial and in it."""
    environment = templates().overlay(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader("deployr_cli.trial"), jinja2.PackageLoader("deployr_dev.evaluation")]
        )
    )
    environment.filters = {**environment.filters, "share": percent, "published": published}
    page = environment.get_template("trial.html.j2").render(
        found=found,
        cohorts=[
            (group.name, when, patients, cohort)
            for group in GROUPS
            for when, patients, cohort in zip(
                SIDES,
                (TABLE_1[group.name].retrospective, TABLE_1[group.name].prospective),
                found.cohorts[group.name],
                strict=True,
            )
        ],
        paper=TABLE_2,
        citation=CITATION,
        interval=interval,
        sides=SIDES,
        fall=fall(found.figures),
        pictures={
            task: [
                (when, _pictures(f"{task}-{when}", evaluation)) for when, evaluation in zip(SIDES, both, strict=True)
            ]
            for task, both in found.evaluations.items()
        },
    )
    write_whole(file, page.encode())


def write_reports(found: Found, manifests: Mapping[str, Manifest], folder: Path) -> None:
    """Write each model's retrospective figures as training would, for whoever draws curves in service beside them."""
    for task, (retrospective, _) in found.evaluations.items():
        if retrospective is not None:
            report = Report(manifest=manifests[task], evaluation=retrospective)
            (folder / task).mkdir(parents=True, exist_ok=True)
            write_whole(folder / task / FIGURES_FILE, msgspec.json.encode(report))


def _pictures(name: str, evaluation: Evaluation | None) -> dict[str, Any]:
    """Draw what can be drawn."""
    if evaluation is None:
        return {}
    drawn: dict[str, str] = {}
    if isinstance(evaluation.roc, RocPoints):
        drawn["ROC"] = plots.roc_plot(
            evaluation.roc, auroc=evaluation.auroc, operating=evaluation.operating, identifier=f"{name}-roc"
        )
    if isinstance(evaluation.precision_recall, PrecisionRecallPoints):
        drawn["Precision and recall"] = plots.precision_recall_plot(
            evaluation.precision_recall,
            average_precision=evaluation.average_precision,
            prevalence=evaluation.prevalence,
            operating=evaluation.operating,
            identifier=f"{name}-precision-recall",
        )
    drawn["Calibration"] = plots.calibration_plot(evaluation.calibration, identifier=f"{name}-calibration")
    return {title: Markup(text) for title, text in drawn.items()}  # noqa: S704 # the drawing escapes all words
