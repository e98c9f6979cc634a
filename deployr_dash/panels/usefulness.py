"""What acting on scores gains, and how much work alerts make."""

from __future__ import annotations

import numpy as np

from deployr_core.bootstrap import Interval
from deployr_core.monitoring.alert_burden import alert_burden
from deployr_core.monitoring.usefulness import NetBenefit, decision_curve
from deployr_core.outputs import Target
from deployr_dash.panels.panel import (
    Panel,
    View,
    days_from_start,
    estimate,
    labelled,
    nothing_labelled,
    said,
    threshold_of,
    too_few,
)
from deployr_plots.figures import Axis, Band, Figure, Kind, Level, Line, Role, numbers
from deployr_plots.words import number, of, percent

_THRESHOLDS = tuple(each / 100 for each in range(2, 81, 2))


def usefulness(view: View) -> Panel:
    """Show the net benefit of acting on the model, against acting on everybody and on nobody."""
    name, title = "usefulness", "Usefulness"
    rows = labelled(view)
    if view.target is Target.REGRESSION:
        return Panel(name=name, title=title, missing="The model predicts a number: net benefit is of probabilities.")
    if not rows.labels.size:
        return nothing_labelled(view, name, title)
    found = decision_curve(
        rows.labels, rows.scores, rows.patients, rng=view.rng(), thresholds=_THRESHOLDS, resamples=view.resamples
    )
    own = threshold_of(view)
    at = None if own is None else min(found, key=lambda each: abs(each.threshold - own))
    better = [each.threshold for each in found if isinstance(each.over_default, Interval) and each.over_default.low > 0]
    sentence = (
        f"Acting on the model gains more than acting on all or on none at thresholds from {percent(min(better))} to"
        f" {percent(max(better))}."
        if better
        else "At no threshold can it be shown on these rows that the model gains more than acting on all or on none."
    )
    beside = () if at is None else (f"Near the deployment's threshold, net benefit {said(at.model)}.",)
    return Panel(
        name=name,
        title=title,
        said=(sentence, *beside),
        figures=(_decision_figure(found, own),),
        notes=(
            "Net benefit: right alerts in each packet, less wrong ones at the threshold's odds. Read the curve at the"
            " thresholds that reasonable people hold, not where it is highest (Vickers and Elkin 2006).",
            *too_few(rows),
        ),
    )


def _decision_figure(found: tuple[NetBenefit, ...], own: float | None) -> Figure:
    model = [(each.threshold, shown) for each in found if (shown := estimate(each.model)) is not None]
    everybody = [(each.threshold, shown.value) for each in found if (shown := estimate(each.all)) is not None]
    top = max((shown.high for _, shown in model), default=0.1) * 1.05
    bottom = -0.25 * top
    everybody = [(x, y) for x, y in everybody if y >= bottom]
    model = [(x, shown) for x, shown in model if shown.low >= bottom]
    x = numbers(at for at, _ in model)
    return Figure(
        name="decision-curve",
        title="Decision curve",
        told="Net benefit of the model by threshold: "
        + "; ".join(f"{percent(at)}: {number(shown.value)}" for at, shown in model[::4])
        + ".",
        x=Axis(name="Threshold", kind=Kind.PERCENT, low=0.0, high=0.8),
        y=Axis(name="Net benefit", unit="right alerts a packet", low=bottom, high=top),
        marks=(
            Level(name="act on nobody", at=0.0),
            Line(
                name="act on everybody",
                x=numbers(at for at, _ in everybody),
                y=numbers(y for _, y in everybody),
                role=Role.CONTRAST,
            ),
            Band(
                name="the model",
                x=x,
                low=numbers(shown.low for _, shown in model),
                high=numbers(shown.high for _, shown in model),
            ),
            Line(name="act on the model", x=x, y=numbers(shown.value for _, shown in model)),
            *(() if own is None or not own <= 0.8 else (Level(name="threshold", at=own, upright=True),)),
        ),
        width=560,
        height=320,
    )


def burden(view: View) -> Panel:
    """Show how many alerts a day there are, or would be."""
    name, title = "burden", "Alert burden"
    scored = view.packets.loc[view.packets["score"].notna()]
    own = threshold_of(view)
    if scored.empty or (own is None and not scored["advised"].fillna(False).any()):
        return Panel(name=name, title=title, missing="There is no threshold in this window, so nothing alerts.")
    advised = scored["advised"].fillna(False).to_numpy(dtype=bool)
    silent = not advised.any()
    alerts = scored["score"].to_numpy(dtype=np.float64) >= own if silent and own is not None else advised
    found = alert_burden(
        alerts,
        days_from_start(view, scored),
        first_day=0,
        last_day=view.window.days - 1,
        rng=view.rng(),
        resamples=view.resamples,
    )
    would = "would alert" if silent else "alerted"
    return Panel(
        name=name,
        title=title,
        said=(
            f"{of(found.alerts, 'packet')} {would} in {of(found.days, 'day')}: {said(found.per_day, digits=1)} a day,"
            f" {said(found.share_of_inferences, as_percent=True)} of what was scored.",
        ),
        notes=(
            *(("Nothing was shown in this window: this is what the threshold would have given.",) if silent else ()),
            "Intervals: 95 %, bootstrap of days. Alerts for each clinician cannot be counted: packets name none.",
        ),
    )
