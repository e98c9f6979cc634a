"""Whether the outcome jumps where advisories begin: those just above the threshold against those just below."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import Floats, Interval, NotMeasured, Ratios, measure
from deployr_core.groups import FEWEST_PATIENTS, FEWEST_ROWS, too_small
from deployr_core.monitoring.discontinuity import DensityCheck, Discontinuity, discontinuities
from deployr_core.outputs import Target
from deployr_dash.panels.panel import Labelled, NamedTable, Panel, View, chance, labelled
from deployr_dash.panels.trial_rows import difference, written
from deployr_plots.figures import Axis, Figure, Kind, Level, Line, Points, Role, numbers, round_ends
from deployr_plots.tables import Cell, Table
from deployr_plots.words import number

_ROWS_OF_A_BIN = 40
_MOST_BINS = 8
"""On either side of the threshold within the bandwidth; as many again beyond it."""
_OFTEN_ENOUGH = 0.05
"""A density that differs less often than this by chance is told of as a difference."""

_Found = Mapping[tuple[str, float], Discontinuity | NotMeasured]


def at_the_threshold(view: View) -> Panel:
    """Show whether the outcome jumps at the threshold, for the version and the threshold that were in force last."""
    name, title = "discontinuity", "At the threshold"
    rows = labelled(view)
    packets = view.packets.iloc[rows.rows]
    known = packets["threshold"].notna().to_numpy(dtype=bool)
    if not known.any():
        return Panel(name=name, title=title, missing="It needs a threshold and outcomes in this window.")
    rows, packets = rows.of(known), packets.loc[known]
    versions = packets["version"].astype(str).to_numpy(dtype=np.str_)
    thresholds = packets["threshold"].to_numpy(dtype=np.float64)
    every = discontinuities(rows.scores, rows.labels, rows.patients, versions.tolist(), thresholds)
    last = int(np.argmax(packets["received_at"].to_numpy()))
    version, own = str(versions[last]), float(thresholds[last])
    found = every[version, own]
    if isinstance(found, NotMeasured):
        why = f"At the threshold of {number(own)} of version {version} it cannot be measured: {found.why}."
        return Panel(name=name, title=title, missing=why)
    some = rows.of((versions == version) & (thresholds == own))
    jump = found.robust
    notes = [
        f"Regression discontinuity of version {version}: a line on each side, nearer packets counting more, of"
        f" {found.below:,} packets below and {found.above:,} at or above the threshold, no farther than"
        f" {number(found.bandwidth)} from it. The interval is that of parabolas in their place, which bend where lines"
        " are biased. It tells of patients at the threshold only, and only where nothing else changes there.",
        f"Points: means of stretches of scores with 95 % intervals, bootstrap of patients; none of under {FEWEST_ROWS}"
        f" packets or {FEWEST_PATIENTS} patients.",
    ]
    if not packets["shown_at"].notna().any():
        notes.insert(0, "No advisory was shown to anybody: whatever jumps here is not what it did.")
    return Panel(
        name=name,
        title=title,
        said=(
            f"At the threshold of {number(own)} the outcome changes by"
            f" {difference(view, jump.value, jump.low, jump.high)}, {chance(jump.p_value)}.",
            _dense(found.density),
        ),
        figures=(_figure(view, some, found),),
        tables=(_table(view, every),),
        notes=tuple(notes),
    )


def _dense(check: DensityCheck | NotMeasured) -> str:
    """Say whether scores pile up on one side, which would make the two sides different people."""
    if isinstance(check, NotMeasured):
        return f"Whether scores are as dense on both sides cannot be told: {check.why}."
    if check.p_value < _OFTEN_ENOUGH:
        return (
            f"Just above it there are {number(check.ratio, digits=2)} scores for one just below"
            f" ({chance(check.p_value)}): find out why before the jump is believed."
        )
    return f"Scores are as dense just above it as just below, as far as can be told ({chance(check.p_value)})."


def _table(view: View, every: _Found) -> NamedTable:
    """Give the jump of each version and threshold; scores of two versions do not compare."""
    rows: list[tuple[Cell, ...]] = []
    for (version, threshold), found in sorted(every.items()):
        if isinstance(found, NotMeasured):
            rows.append((version, number(threshold), f"not given: {found.why}", "", None, None))
            continue
        jump = found.robust
        words = difference(view, jump.value, jump.low, jump.high)
        rows.append((version, number(threshold), words, chance(jump.p_value), found.below, found.above))
    return NamedTable(
        caption="The change at each threshold that was in force",
        table=Table(
            columns=("version", "threshold", "change at it", "p", "packets near below", "packets near above"),
            rows=tuple(rows),
        ),
    )


def _figure(view: View, rows: Labelled, found: Discontinuity) -> Figure:
    """Draw means of stretches of scores, the line on each side, and the bandwidth as a band."""
    is_number = view.target is Target.REGRESSION
    at, width = found.threshold, found.bandwidth
    lowest, highest = (-np.inf, np.inf) if is_number else (0.0, 1.0)
    bins = _bins(view, rows, found)
    above = found.left_limit + found.value
    sides = (
        ("below", (max(at - width, lowest), at), found.left_limit, found.slope_below, Role.MAIN),
        ("at or above", (at, min(at + width, highest)), above, found.slope_above, Role.THIRD),
    )
    marks: list[Line | Points] = []
    for name, ends, limit, slope, role in sides:
        line = numbers(limit + slope * (end - at) for end in ends)
        marks.append(Line(name=f"line {name}", x=numbers(ends), y=line, role=role))
        means = [(x, seen) for x, seen in bins if (x < at) == (name == "below")]
        if means:
            marks.append(
                Points(
                    name=f"mean {name}",
                    x=numbers(x for x, _ in means),
                    y=numbers(seen.value for _, seen in means),
                    low=numbers(seen.low for _, seen in means),
                    high=numbers(seen.high for _, seen in means),
                    role=role,
                )
            )
    across = [each for mark in marks for each in mark.x]
    up = [each for mark in marks for each in (*mark.y, *(mark.low + mark.high if isinstance(mark, Points) else ()))]
    left, right = round_ends(min(across), max(across))
    bottom, top = round_ends(min(up), max(up))
    return Figure(
        name="discontinuity",
        title="Outcome by score, around the threshold",
        told=f"By the lines, {written(view, found.left_limit)} just below the threshold of {number(at)} and"
        f" {written(view, above)} at it. "
        + "; ".join(f"mean score {number(x)}: {written(view, seen.value)}" for x, seen in bins)
        + ".",
        x=Axis(name="Score", unit=view.unit, low=max(left, lowest), high=min(right, highest)),
        y=Axis(
            name="Outcome, mean" if is_number else "Share with the outcome",
            unit=view.unit,
            kind=Kind.NUMBER if is_number else Kind.PERCENT,
            low=bottom,
            high=top,
        ),
        marks=(
            Level(
                name="threshold, and what is near it",
                at=at,
                low=max(at - width, left, lowest),
                high=min(at + width, right, highest),
                upright=True,
            ),
            *marks,
        ),
        width=620,
        height=340,
    )


def _bins(view: View, rows: Labelled, found: Discontinuity) -> list[tuple[float, Interval]]:
    """Give mean score and outcome of equal stretches up to two bandwidths away, but for those that are too small."""
    of_side = max(2, min(_MOST_BINS, min(found.below, found.above) // _ROWS_OF_A_BIN))
    step = found.bandwidth / of_side
    place = np.floor((rows.scores - found.threshold) / step).astype(np.int64)
    inside: dict[int, NDArray[np.bool_]] = {}
    for each in range(-2 * of_side, 2 * of_side):
        of_bin = place == each
        if too_small(rows.patients[of_bin]) is None:
            inside[each] = of_bin
    if not inside:
        return []
    weights: Floats = np.column_stack(list(inside.values())).astype(np.float64)
    means = Ratios(
        names=tuple(str(each) for each in inside),
        lacks=("at least one packet",) * len(inside),
        numerators=weights * rows.labels[:, np.newaxis],
        denominators=weights,
        shares=(view.target is not Target.REGRESSION,) * len(inside),
    )
    measured: Mapping[str, Measured] = measure([means], rows.patients, rng=view.rng(), resamples=view.resamples)
    return [
        (float(rows.scores[of_bin].mean()), seen)
        for each, of_bin in inside.items()
        if isinstance(seen := measured[str(each)], Interval)
    ]
