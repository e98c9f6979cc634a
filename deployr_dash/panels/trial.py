"""What clinicians do with advisories, and what a trial says of model and advisory."""

from __future__ import annotations

import numpy as np

from deployr_core.bootstrap import Figure as Measured
from deployr_core.bootstrap import NotMeasured
from deployr_core.monitoring.effects import adherence
from deployr_core.monitoring.selection import FilledIn, Occasions, UnderSelection, Weighted, performance_under_selection
from deployr_core.outputs import Target
from deployr_dash.panels.panel import (
    NamedTable,
    Panel,
    View,
    estimate,
    patients_of,
    said,
    threshold_of,
)
from deployr_dash.panels.trial_rows import independent, of_trial, ripe_outcomes
from deployr_plots.common import Estimate, Row, estimates_figure
from deployr_plots.figures import Axis, Kind
from deployr_plots.tables import Table
from deployr_plots.words import number, percent


def response(view: View) -> Panel:
    """Show what became of the advisories: shown, accepted, overridden, unanswered."""
    name, title = "response", "What clinicians did"
    packets = view.packets.loc[view.packets["kind"] == "scored"]
    shown = packets["shown_at"].notna().to_numpy(dtype=bool)
    if not packets["advised"].fillna(False).any() and not shown.any():
        return Panel(
            name=name, title=title, missing="No advisory was shown in this window: in silent mode none ever is."
        )
    answers = packets["response"].astype("object")
    found = adherence(
        packets["advised"].fillna(False).to_numpy(dtype=bool),
        shown,
        (answers == "accepted").to_numpy(dtype=bool),
        (answers == "overridden").to_numpy(dtype=bool),
        patients_of(packets),
        rng=view.rng(),
        resamples=view.resamples,
    )
    titles = {
        "shown_of_advised": "reported as shown, of those to be shown",
        "shown_of_not_advised": "reported as shown, of those not to be",
        "accepted_of_shown": "accepted, of those shown",
        "overridden_of_shown": "overridden, of those shown",
        "unanswered_of_shown": "unanswered, of those shown",
    }
    reasons = (
        packets.loc[answers == "overridden", "response_reason"].astype("object").fillna("none given").value_counts()
    )
    return Panel(
        name=name,
        title=title,
        said=(f"{said(found['accepted_of_shown'], as_percent=True)} of the advisories that were shown were accepted.",),
        figures=(
            estimates_figure(
                [Row(name=titles[key], shown=estimate(figure) or "none") for key, figure in found.items()],
                title="What became of advisories",
                told="; ".join(f"{titles[key]}: {said(figure, as_percent=True)}" for key, figure in found.items())
                + ".",
                name="adherence",
                measure="Share",
                axis=Axis(name="Share", kind=Kind.PERCENT, low=0.0, high=1.0),
                rows_are="What became of it",
                width=620,
            ),
        ),
        tables=(
            NamedTable(
                caption="Reasons given for overriding",
                table=Table(
                    columns=("reason", "advisories"), rows=tuple((str(code), int(n)) for code, n in reasons.items())
                ),
            ),
        )
        if len(reasons)
        else (),
        notes=("Intervals: 95 %, bootstrap of patients.",),
    )


def under_selection(view: View) -> Panel:
    """Show performance as the trial's randomization lets it be estimated, beside what it would seem without."""
    name, title = "selection", "Performance, design-weighted"
    packets = of_trial(view)
    own = threshold_of(view)
    if packets.empty or own is None or view.target is Target.REGRESSION:
        return Panel(
            name=name,
            title=title,
            missing="No packet of this window took part in a trial with exploration. Without randomization, performance"
            " under label selection cannot be told from the packets: see docs/trials.md.",
        )
    occasions = Occasions(
        scores=packets["score"].to_numpy(dtype=np.float64),
        labels=ripe_outcomes(view, packets),
        patients=independent(packets),
        shown=packets["shown_by_design"].to_numpy(dtype=bool),
        p_shown=packets["p_shown"].to_numpy(dtype=np.float64),
    )
    found = performance_under_selection(occasions, threshold=own, rng=view.rng(), resamples=view.resamples)
    ways = _ways(found)
    rows = [Row(name=way, shown=_estimate_of(shown, "auroc")) for way, shown in ways]
    design = found.design
    return Panel(
        name=name,
        title=title,
        said=(
            f"AUROC by the design's weights: {said(design.figures['auroc'])}, as good as"
            f" {number(design.weight.effective_rows, digits=0)} rows of equal weight."
            if isinstance(design, Weighted)
            else f"The design-weighted estimate cannot be given: {design.why}.",
            f"{percent(found.missing_in_reference)} of the outcomes that should have been seen were not.",
        ),
        figures=(
            estimates_figure(
                rows,
                title="AUROC, by how label selection is dealt with",
                told="; ".join(
                    f"{row.name}: {row.shown if isinstance(row.shown, str) else number(row.shown.value)}"
                    for row in rows
                )
                + ".",
                name="auroc-under-selection",
                measure="AUROC",
                rows_are="Estimate",
                width=620,
            ),
        ),
        tables=(
            NamedTable(
                caption="The same estimates, and how much stands behind them",
                table=Table(
                    columns=("estimate", "AUROC", "rows", "effective rows"),
                    rows=tuple(
                        (way, said(shown.figures["auroc"]), shown.weight.rows, round(shown.weight.effective_rows))
                        if not isinstance(shown, NotMeasured)
                        else (way, f"not given: {shown.why}", None, None)
                        for way, shown in ways
                    ),
                ),
            ),
        ),
        notes=(
            "Outcomes count where the advisory was not shown, weighted by the inverse of the stored chance of that. The"
            " modelled estimates are right only if what clinicians act on is in the packets; the design's does not lean"
            " on that (arXiv:2209.09188).",
        ),
    )


def _ways(found: UnderSelection) -> list[tuple[str, Weighted | FilledIn | NotMeasured]]:
    return [
        ("design-weighted", found.design),
        ("as labelled (complete case)", found.complete_case),
        ("modelled, inverse propensity", found.inverse_propensity),
        ("modelled, doubly robust", found.doubly_robust),
    ]


def _estimate_of(shown: Weighted | FilledIn | NotMeasured, figure: str) -> Estimate | str:
    if isinstance(shown, NotMeasured):
        return "not given"
    measured: Measured = shown.figures[figure]
    return estimate(measured) or "not measurable"
