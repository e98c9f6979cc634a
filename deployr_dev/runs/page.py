"""The comparison as a page for the committee: one file, which fetches nothing and runs nothing."""

from __future__ import annotations

from markupsafe import Markup

from deployr_core.bundle import Estimate as Figure
from deployr_core.groups import FEW_PATIENTS
from deployr_core.registry.comparison import Comparison, Rows, Shown, in_words
from deployr_dev.evaluation.pages import templates
from deployr_plots.common import Estimate, Row, estimates_figure
from deployr_plots.drawing import figure_svg
from deployr_plots.figures import Axis, round_ends
from deployr_plots.words import number

PAGE_FILE = "comparison.html"
_LEAST_REACH = 0.05


def comparison_html(comparison: Comparison) -> str:
    """Give the page as text; the same record gives the same text."""
    return (
        templates()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            told=in_words(comparison),
            shown=shown_in_words,
            is_live=comparison.rows_are is Rows.LIVE,
            few_patients=FEW_PATIENTS,
            picture=Markup(_differences(comparison)),  # noqa: S704 # the drawing escapes all words
        )
    )


def shown_in_words(shown: Shown) -> str:
    """Write a figure with its interval, or why there is none."""
    if isinstance(shown, str):
        return shown
    return f"{number(shown.value)} ({number(shown.low)} to {number(shown.high)})"


def _differences(comparison: Comparison) -> str:
    """Draw the challenger's AUROC less the champion's, of everybody and of each group, against no difference."""
    rows = [("everybody", comparison.figure("AUROC").difference)]
    rows += [
        (f"{grouping.name}: {group.name}", group.auroc.difference)
        for grouping in comparison.groupings
        for group in grouping.groups
    ]
    bounds = [abs(bound) for _, each in rows if isinstance(each, Figure) for bound in (each.low, each.high)]
    reach = round_ends(0.0, max([_LEAST_REACH, *bounds]))[1]
    return figure_svg(
        estimates_figure(
            [Row(name=name, shown=_drawn(each)) for name, each in rows],
            title="How far apart the two are",
            told="; ".join(f"{name}: {shown_in_words(each)}" for name, each in rows) + ".",
            name="differences",
            measure="Challenger's AUROC less the champion's",
            everybody=Estimate(value=0.0, low=0.0, high=0.0),
            everybody_name="no difference",
            axis=Axis(name="Challenger's AUROC less the champion's", low=-reach, high=reach),
            width=640,
        )
    )


def _drawn(shown: Shown) -> Estimate | str:
    if isinstance(shown, Figure):
        return Estimate(value=shown.value, low=shown.low, high=shown.high)
    return "too small" if shown.startswith("under ") else "not measurable"
