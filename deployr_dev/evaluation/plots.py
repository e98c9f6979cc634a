"""The report's pictures, each from the records alone."""

from __future__ import annotations

from collections.abc import Sequence

from deployr_dev.evaluation.records import (
    AtThreshold,
    AvailabilityFifth,
    CalibrationPoint,
    Figure,
    Group,
    GroupFigures,
    Measured,
    NotMeasured,
    PrecisionRecallPoints,
    RocPoints,
    ScoreHistogram,
    Threshold,
    TooSmall,
)
from deployr_dev.evaluation.words import count, figure, number, percent
from deployr_plots.common import (
    Curve,
    Estimate,
    Row,
    calibration_figure,
    estimates_figure,
    precision_recall_figure,
    roc_figure,
    spread_figure,
)
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import numbers, slug


def roc_plot(points: RocPoints, *, auroc: Figure, operating: Threshold, identifier: str = "roc") -> str:
    """Draw the ROC curve, chance as a dashed line, the operating threshold as a diamond."""
    told, at = f"Area under the curve {figure(auroc)}.", None
    if (
        isinstance(operating, AtThreshold)
        and isinstance(operating.sensitivity, Measured)
        and isinstance(operating.specificity, Measured)
    ):
        at = (1 - operating.specificity.value, operating.sensitivity.value)
        told += f" At the threshold, sensitivity {percent(at[1])} with {percent(at[0])} false alerts."
    curve = Curve(name="", x=numbers(points.false_positive_rates), y=numbers(points.sensitivities))
    return figure_svg(roc_figure([curve], told=told, name=identifier, operating=at))


def precision_recall_plot(
    points: PrecisionRecallPoints,
    *,
    average_precision: Figure,
    prevalence: Figure,
    operating: Threshold,
    identifier: str = "precision-recall",
) -> str:
    """Draw the precision-recall curve in steps, the prevalence as a dashed line."""
    told, level, at = f"Average precision {figure(average_precision)}.", None, None
    if isinstance(prevalence, Measured):
        level = prevalence.value
        told += f" A model that knows nothing gets {number(level)}."
    if (
        isinstance(operating, AtThreshold)
        and isinstance(operating.sensitivity, Measured)
        and isinstance(operating.ppv, Measured)
    ):
        at = (operating.sensitivity.value, operating.ppv.value)
    curve = Curve(name="", x=numbers(points.recalls), y=numbers(points.precisions))
    return figure_svg(precision_recall_figure([curve], told=told, name=identifier, prevalence=level, operating=at))


def calibration_plot(points: Sequence[CalibrationPoint], *, identifier: str = "calibration") -> str:
    """Draw what happened against what was said, with 95 % bands; the dashed line is where both agree."""
    measured = [(point.mean_score, point.observed) for point in points if isinstance(point.observed, Measured)]
    said = "; ".join(f"said {percent(x)}, happened {figure(observed, as_percent=True)}" for x, observed in measured)
    told = f"In {len(points)} bins of about equally many rows: {said}."
    shown = [(x, _estimate(observed)) for x, observed in measured]
    return figure_svg(calibration_figure([("", shown)], told=told, name=identifier))


def histogram_plot(histogram: ScoreHistogram, *, operating: Threshold) -> str:
    """Draw how the scores of rows with the outcome (upwards) and without it (downwards) are spread."""
    both = (histogram.with_outcome, histogram.without_outcome)
    shares = [tuple(each / max(1, sum(counts)) for each in counts) for counts in both]
    return figure_svg(
        spread_figure(
            ("with outcome", shares[0]),
            ("without", shares[1]),
            told=(
                f"Share of rows per score bin, {count(sum(both[0]))} rows with the outcome upwards and"
                f" {count(sum(both[1]))} without it downwards, each side to its own total."
            ),
            threshold=operating.threshold if isinstance(operating, AtThreshold) else None,
        )
    )


def subgroups_plot(name: str, groups: Sequence[Group], *, auroc: Figure) -> str:
    """Draw each group's AUROC with its interval against that of everybody."""
    rows = [
        (group.name, group.figures.auroc if isinstance(group.figures, GroupFigures) else group.figures)
        for group in groups
    ]
    return _intervals_plot(f"auroc-by-{slug(name)}", f"AUROC by {name}", rows, everybody=auroc)


def availability_plot(fifths: Sequence[AvailabilityFifth], *, auroc: Figure) -> str:
    """Draw the AUROC with its interval by how many features a row has."""
    rows = [(_features(fifth), fifth.auroc) for fifth in fifths]
    return _intervals_plot("auroc-by-available", "AUROC by number of available features", rows, everybody=auroc)


def _features(fifth: AvailabilityFifth) -> str:
    if fifth.fewest == fifth.most:
        return f"{fifth.fewest} features"
    return f"{fifth.fewest} to {fifth.most} features"


def _intervals_plot(
    identifier: str, title: str, rows: Sequence[tuple[str, Measured | NotMeasured | TooSmall]], *, everybody: Figure
) -> str:
    return figure_svg(
        estimates_figure(
            [Row(name=name, shown=_shown(figure_of)) for name, figure_of in rows],
            title=title,
            told="; ".join(f"{name}: {figure(figure_of)}" for name, figure_of in rows) + ".",
            name=identifier,
            measure="AUROC",
            everybody=_estimate(everybody) if isinstance(everybody, Measured) else None,
        )
    )


def _shown(figure_of: Measured | NotMeasured | TooSmall) -> Estimate | str:
    match figure_of:
        case Measured():
            return _estimate(figure_of)
        case TooSmall():
            return "too small"
        case NotMeasured():
            return "not measurable"


def _estimate(measured: Measured) -> Estimate:
    return Estimate(value=measured.value, low=measured.low, high=measured.high)
