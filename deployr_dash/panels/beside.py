"""A challenger beside the champion: paired differences with their intervals, drawn and written, on one kind of rows."""

from __future__ import annotations

import msgspec

from deployr_core.bundle import Estimate
from deployr_core.registry.comparison import Better, Compared, Comparison, Rows, Shown, Verdict, in_words
from deployr_dash.panels.panel import NamedTable, Panel
from deployr_dash.panels.people import PROPERTIES, group_name
from deployr_plots.common import Estimate as Drawn
from deployr_plots.common import Row, estimates_figure
from deployr_plots.figures import Axis, Figure, round_ends
from deployr_plots.tables import Table
from deployr_plots.words import number, of

_LEAST_REACH = 0.05
"""How far the axis goes at least, both ways: an axis cut at its data would exaggerate."""
_WIDTH = 580
_ROWS = {
    Rows.HELD_OUT: ("beside-held-out", "On held-out rows"),
    Rows.LIVE: ("beside-live", "On live requests, as a shadow"),
}


def beside(comparison: Comparison, *, against: str | None) -> Panel:
    """Show a comparison.

    Args:
        comparison: the challenger's.
        against: the run that is the champion today; None if there is none.
    """
    name, title = _ROWS[comparison.rows_are]
    comparison = _in_our_words(comparison)
    notes = [
        f"{of(comparison.rows, 'row')} of {of(comparison.patients, 'patient')}, {comparison.positives:,} with the"
        f" outcome: {comparison.outcome}. Both models scored the same rows; patients are resampled"
        f" {comparison.resamples:,} times, and the difference is measured on each draw.",
        "What is good lower, such as the Brier score, is drawn the other way round: right is always better.",
    ]
    if comparison.excluded_patients:
        notes.append(f"{of(comparison.excluded_patients, 'patient')} left out: one of the two was trained on them.")
    if comparison.unpaired_rows:
        notes.append(f"{of(comparison.unpaired_rows, 'request')} left out: only one of the two has a score for them.")
    said = list(in_words(comparison))
    if comparison.champion.name != against:
        of_today = f"today’s is {against}" if against else "there is none today"
        said.insert(0, f"This is against {comparison.champion.name}, not against today’s champion: {of_today}.")
    grouped = [(each, group) for each in comparison.groupings for group in each.groups]
    tables = [
        NamedTable(
            caption="All figures, with 95 % intervals",
            table=Table(
                columns=("figure", "champion", "challenger", "difference", "the challenger is"),
                rows=tuple((each.name, *_cells(each)) for each in comparison.figures),
            ),
        )
    ]
    if grouped:
        tables.append(
            NamedTable(
                caption="AUROC by group",
                table=Table(
                    columns=("group", "rows", "champion", "challenger", "difference", "the challenger is"),
                    rows=tuple(
                        (f"{each.name}: {group.name}", group.rows, *_cells(group.auroc)) for each, group in grouped
                    ),
                ),
            )
        )
    return Panel(
        name=name,
        title=title,
        said=tuple(said),
        figures=(
            _differences(name, "All figures", [(each.name, each) for each in comparison.figures]),
            *(
                [
                    _differences(
                        f"{name}-groups",
                        "AUROC by group",
                        [(f"{each.name}: {group.name}", group.auroc) for each, group in grouped],
                    )
                ]
                if grouped
                else []
            ),
        ),
        tables=tuple(tables),
        notes=tuple(notes),
    )


def nothing_beside(rows: Rows, why: str) -> Panel:
    """Say why there is no comparison on that kind of rows, and how to come by one."""
    name, title = _ROWS[rows]
    return Panel(name=name, title=title, missing=why)


def _in_our_words(comparison: Comparison) -> Comparison:
    """Call properties and groups what other pages call them."""
    groupings = tuple(
        msgspec.structs.replace(
            each,
            name=PROPERTIES.get(each.name, each.name),
            groups=tuple(msgspec.structs.replace(group, name=group_name(group.name)) for group in each.groups),
        )
        for each in comparison.groupings
    )
    return msgspec.structs.replace(comparison, groupings=groupings)


def _differences(name: str, title: str, rows: list[tuple[str, Compared]]) -> Figure:
    """Draw differences so that right is better, whichever way a figure is good."""
    turned = [(called, _turned(each)) for called, each in rows]
    bounds = [abs(bound) for _, each in turned if isinstance(each, Drawn) for bound in (each.low, each.high)]
    reach = round_ends(0.0, max([_LEAST_REACH, *bounds]))[1]
    return estimates_figure(
        [Row(name=called, shown=shown) for called, shown in turned],
        title=f"{title}: how far apart the two are",
        told="; ".join(f"{called}: {_written(each.difference)}, {each.verdict}" for called, each in rows) + ".",
        name=name,
        measure="the challenger’s gain",
        everybody=Drawn(value=0.0, low=0.0, high=0.0),
        everybody_name="no difference",
        axis=Axis(name="Difference with its 95 % interval; right: the challenger is better", low=-reach, high=reach),
        rows_are="Figure" if title == "All figures" else "Group",
        width=_WIDTH,
    )


def _turned(figure: Compared) -> Drawn | str:
    match figure.difference:
        case Estimate(value=value, low=low, high=high):
            if figure.better is Better.HIGHER:
                return Drawn(value=value, low=low, high=high)
            return Drawn(value=-value, low=-high, high=-low)
        case why:
            return "too small" if why.startswith("under ") else "not measurable"


def _cells(figure: Compared) -> tuple[str, str, str, str]:
    verdict = figure.verdict
    said = f"{verdict.value}" if verdict is not Verdict.NOT_MEASURED else "not measurable"
    return _written(figure.champion), _written(figure.challenger), _written(figure.difference), said


def _written(shown: Shown) -> str:
    if isinstance(shown, str):
        return shown
    return f"{number(shown.value)} ({number(shown.low)} to {number(shown.high)})"
