"""The report's pictures, each from the records alone."""

from __future__ import annotations

import textwrap
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
from deployr_dev.evaluation.svg import (
    CONTRAST,
    GRID,
    LINE,
    MUTED,
    Frame,
    Scale,
    area,
    bar,
    diamond,
    dot,
    line,
    picture,
    text,
)
from deployr_dev.evaluation.words import count, figure, number, percent


def roc_plot(points: RocPoints, *, auroc: Figure, operating: Threshold, identifier: str = "roc") -> str:
    """Draw the ROC curve, chance as a dashed line, the operating threshold as a diamond."""
    frame = Frame(x_name="False alerts among rows without the outcome", y_name="Sensitivity")
    curve = [(0.0, 0.0), *zip(points.false_positive_rates, points.sensitivities, strict=True)]
    shapes = [
        *frame.drawn(),
        line([frame.at((0, 0)), frame.at((1, 1))], colour=MUTED, width=1.5, dashed=True),
        text(frame.at((0.98, 0.4)), "no better than chance", anchor="end", colour=MUTED),
        line([frame.at(point) for point in curve], width=2.5),
    ]
    told = f"Area under the curve {figure(auroc)}."
    if (
        isinstance(operating, AtThreshold)
        and isinstance(operating.sensitivity, Measured)
        and isinstance(operating.specificity, Measured)
    ):
        false_alerts, found = 1 - operating.specificity.value, operating.sensitivity.value
        shapes.append(diamond(frame.at((false_alerts, found))))
        told += f" At the threshold, sensitivity {percent(found)} with {percent(false_alerts)} false alerts."
    return picture(
        identifier, title="ROC curve", description=told, width=frame.width, height=frame.height, content=shapes
    )


def precision_recall_plot(
    points: PrecisionRecallPoints,
    *,
    average_precision: Figure,
    prevalence: Figure,
    operating: Threshold,
    identifier: str = "precision-recall",
) -> str:
    """Draw the precision-recall curve in steps, the prevalence as a dashed line."""
    frame = Frame(x_name="Sensitivity (recall)", y_name="Positive predictive value (precision)")
    corners = [(0.0, points.precisions[0])]
    for recall, precision in zip(points.recalls, points.precisions, strict=True):
        corners += [(corners[-1][0], precision), (recall, precision)]
    shapes = frame.drawn()
    told = f"Average precision {figure(average_precision)}."
    if isinstance(prevalence, Measured):
        level = prevalence.value
        shapes += [
            line([frame.at((0, level)), frame.at((1, level))], colour=MUTED, width=1.5, dashed=True),
            text(
                frame.at((0.02, level - 0.06 if level > 0.1 else level + 0.03)), "no better than chance", colour=MUTED
            ),
        ]
        told += f" A model that knows nothing gets {number(level)}."
    shapes.append(line([frame.at(corner) for corner in corners], width=2.5))
    if (
        isinstance(operating, AtThreshold)
        and isinstance(operating.sensitivity, Measured)
        and isinstance(operating.ppv, Measured)
    ):
        shapes.append(diamond(frame.at((operating.sensitivity.value, operating.ppv.value))))
    return picture(
        identifier,
        title="Precision-recall curve",
        description=told,
        width=frame.width,
        height=frame.height,
        content=shapes,
    )


def calibration_plot(points: Sequence[CalibrationPoint], *, identifier: str = "calibration") -> str:
    """Draw what happened against what was said, with 95 % bands; the dashed line is where both agree."""
    frame = Frame(x_name="What the model said (mean score)", y_name="What happened (share with the outcome)")
    measured = [(point.mean_score, point.observed) for point in points if isinstance(point.observed, Measured)]
    low = [frame.at((x, observed.low)) for x, observed in measured if isinstance(observed, Measured)]
    high = [frame.at((x, observed.high)) for x, observed in measured if isinstance(observed, Measured)]
    middle = [frame.at((x, observed.value)) for x, observed in measured if isinstance(observed, Measured)]
    shapes = frame.drawn()
    if len(measured) > 1:
        shapes.append(area([*low, *reversed(high)]))
    shapes.append(line([frame.at((0, 0)), frame.at((1, 1))], colour=MUTED, width=1.5, dashed=True))
    shapes += [bar(bottom, top) for bottom, top in zip(low, high, strict=True)]
    if len(measured) > 1:
        shapes.append(line(middle))
    shapes += [dot(at) for at in middle]
    told = "; ".join(f"said {percent(x)}, happened {figure(observed, as_percent=True)}" for x, observed in measured)
    return picture(
        identifier,
        title="Calibration curve",
        description=f"In {len(points)} bins of about equally many rows: {told}.",
        width=frame.width,
        height=frame.height,
        content=shapes,
    )


def histogram_plot(histogram: ScoreHistogram, *, operating: Threshold) -> str:
    """Draw how the scores of rows with the outcome (upwards) and without it (downwards) are spread."""
    both = (histogram.with_outcome, histogram.without_outcome)
    shares = [[each / max(1, sum(counts)) for each in counts] for counts in both]
    tallest = max(0.01, *shares[0], *shares[1])
    x = Scale(low=0, high=1, start=52, end=346)
    up = Scale(low=0, high=tallest, start=150, end=20)
    down = Scale(low=0, high=tallest, start=150, end=280)
    shapes = []
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        shapes += [
            line([(x(tick), 20), (x(tick), 280)], colour=GRID, width=1),
            text((x(tick), 306), f"{tick:g}", anchor="middle", colour=MUTED),
        ]
    for heights, scale, colour in ((shares[0], up, LINE), (shares[1], down, CONTRAST)):
        width = 1 / len(heights)
        for place, height in enumerate(heights):
            left, right = x(place * width) + 0.5, x((place + 1) * width) - 0.5
            if height > 0:
                shapes.append(
                    area([(left, 150), (right, 150), (right, scale(height)), (left, scale(height))], colour=colour)
                )
    shapes += [
        line([(52, 150), (346, 150)], colour=MUTED, width=1),
        text((26, 88), "with outcome", anchor="middle", turned=True, colour=LINE),
        text((26, 214), "without", anchor="middle", turned=True, colour=CONTRAST),
        text((199, 328), "Score", anchor="middle"),
    ]
    if isinstance(operating, AtThreshold) and 0 <= operating.threshold <= 1:
        at = x(operating.threshold)
        anchor = "end" if operating.threshold > 0.6 else "start"
        shapes += [
            line([(at, 14), (at, 286)], colour=MUTED, width=1.5, dashed=True),
            text((at - 5 if anchor == "end" else at + 5, 16), "threshold", anchor=anchor, colour=MUTED),
        ]
    return picture(
        "scores",
        title="Spread of the scores",
        description=(
            f"Share of rows per score bin, {count(sum(both[0]))} rows with the outcome upwards and"
            f" {count(sum(both[1]))} without it downwards, each side to its own total."
        ),
        width=360,
        height=340,
        content=shapes,
    )


def subgroups_plot(name: str, groups: Sequence[Group], *, auroc: Figure) -> str:
    """Draw each group's AUROC with its interval against that of everybody."""
    rows = [
        (group.name, group.figures.auroc if isinstance(group.figures, GroupFigures) else group.figures)
        for group in groups
    ]
    return _intervals_plot(f"auroc-by-{_identifier(name)}", f"AUROC by {name}", rows, everybody=auroc)


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
    bounds = [figure.low for _, figure in rows if isinstance(figure, Measured)]
    bounds += [everybody.low] if isinstance(everybody, Measured) else []
    # From the tenth below the lowest bound, at least from 0.5, up to 1: an axis cut at its data would exaggerate.
    least = min(0.5, int(10 * min(bounds, default=0.5)) / 10)
    x = Scale(low=least, high=1, start=176, end=404)
    step, top = 30, 24
    bottom = top + step * len(rows)
    ticks = [round(least + 0.1 * number_of, 1) for number_of in range(round((1 - least) * 10) + 1)]
    shapes = []
    for place, tick in enumerate(ticks):
        shapes.append(line([(x(tick), top - 8), (x(tick), bottom)], colour=GRID, width=1))
        if len(ticks) <= 6 or place % 2 == (len(ticks) - 1) % 2:
            shapes.append(text((x(tick), bottom + 18), f"{tick:g}", anchor="middle", colour=MUTED))
    if isinstance(everybody, Measured):
        at = x(everybody.value)
        shapes += [
            area(
                [
                    (x(everybody.low), top - 8),
                    (x(everybody.high), top - 8),
                    (x(everybody.high), bottom),
                    (x(everybody.low), bottom),
                ],
                colour="#e3eff6",
            ),
            line([(at, top - 8), (at, bottom)], colour=MUTED, width=1.5, dashed=True),
            text((at, top - 12), "everybody", anchor="middle", colour=MUTED),
        ]
    told = []
    for place, (name, figure_of) in enumerate(rows):
        y = top + step * (place + 0.5)
        label = _in_lines(name)
        for number_of, words in enumerate(label):
            shapes.append(text((168, y + 4 + 13 * (number_of - (len(label) - 1) / 2)), words, anchor="end"))
        told.append(f"{name}: {figure(figure_of)}")
        if isinstance(figure_of, Measured):
            shapes += [bar((x(figure_of.low), y), (x(figure_of.high), y)), dot((x(figure_of.value), y))]
        else:
            why = "too small" if isinstance(figure_of, TooSmall) else "not measurable"
            shapes.append(text((x(least) + 6, y + 4), why, colour=MUTED))
    shapes.append(text(((x(least) + x(1)) / 2, bottom + 38), "AUROC", anchor="middle"))
    return picture(
        identifier, title=title, description="; ".join(told) + ".", width=420, height=bottom + 46, content=shapes
    )


def _in_lines(name: str) -> list[str]:
    """Break a group's name into at most two lines that fit beside the picture."""
    return textwrap.wrap(name, width=24, max_lines=2, placeholder=" …") or [""]


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
