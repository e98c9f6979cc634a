"""What acting on scores gains, and how much work alerts make."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from deployr_core.bootstrap import Interval
from deployr_core.groups import FEW_PATIENTS, FEWEST_PATIENTS
from deployr_core.monitoring.alert_burden import AlertBurden, alert_burden
from deployr_core.monitoring.closed_form import Z_95
from deployr_core.monitoring.usefulness import NetBenefit, decision_curve, expected_utility
from deployr_dash.panels.panel import (
    NamedTable,
    Panel,
    View,
    day_starts,
    days_from_start,
    estimate,
    labelled,
    refused,
    said,
    threshold_of,
    too_few,
)
from deployr_plots.common import Row, estimates_figure
from deployr_plots.figures import Axis, Band, Bars, Figure, Kind, Level, Line, Role, numbers, round_ends
from deployr_plots.tables import Table
from deployr_plots.words import count, number, of, percent

_THRESHOLDS = tuple(each / 100 for each in range(2, 81, 2))


def usefulness(view: View) -> Panel:
    """Show the net benefit of acting on the model, against acting on everybody and on nobody."""
    name, title = "usefulness", "Usefulness"
    rows = labelled(view)
    why = refused(view, rows, name, title, of_numbers="The model predicts a number: net benefit is of probabilities.")
    if why is not None:
        return why
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


def utility(view: View) -> Panel:
    """Show what acting on the model is worth a packet, in the users' own utilities."""
    name, title = "utility", "Expected utility"
    rows, stated = labelled(view), view.utilities
    why = refused(view, rows, name, title, of_numbers="The model predicts a number: no alert of it is right or wrong.")
    if why is not None:
        return why
    if stated is None:
        return Panel(
            name=name,
            title=title,
            missing="What is a right alert worth, and what does a wrong one cost? Nobody has said so yet: put"
            " `utilities` into the model's monitoring plan (docs/dashboard.md).",
        )
    worth, own = stated.as_utilities(), threshold_of(view)
    cuts = {} if own is None else {"at the deployment's threshold": own}
    cuts["where it pays"] = worth.threshold
    found = {
        called: expected_utility(
            rows.labels, rows.scores, rows.patients, worth, rng=view.rng(), threshold=cut, resamples=view.resamples
        )
        for called, cut in cuts.items()
    }
    called, first = next(iter(found.items()))
    lines = {f"{where}, {number(cuts[where])}": each.model for where, each in found.items()}
    lines |= {"on nobody": first.none, "on everybody": first.all}
    ends = [bound for each in lines.values() if (e := estimate(each)) is not None for bound in (e.low, e.high)]
    low, high = round_ends(min([0.0, *ends]), max([0.0, *ends]))
    sentence = (
        f"Acting {called}: {said(first.gain)} {stated.unit} a packet more than the better of acting on all or on none."
    )
    if isinstance(first.gain, Interval) and first.gain.low <= 0 <= first.gain.high:
        sentence += " It cannot be told from nothing."
    return Panel(
        name=name,
        title=title,
        said=(sentence,),
        figures=(
            estimates_figure(
                [Row(name=line, shown=estimate(each) or "not measurable") for line, each in lines.items()],
                title="Utility a packet, by what one acts on",
                told="; ".join(f"{line}: {said(each)} {stated.unit}" for line, each in lines.items()) + ".",
                name="utility",
                measure="Utility a packet",
                axis=Axis(name="Mean utility a packet", unit=stated.unit, low=low, high=high),
                rows_are="Acting",
                width=620,
            ),
        ),
        tables=(
            NamedTable(
                caption=f"What a packet is worth in {stated.unit}, by the monitoring plan",
                table=Table(
                    columns=("decision", "with the outcome", "without it"),
                    rows=(
                        ("alert", worth.true_positive, worth.false_positive),
                        ("no alert", worth.false_negative, worth.true_negative),
                    ),
                ),
            ),
        ),
        notes=(
            f"By these utilities acting pays from a probability of {number(worth.threshold)} on, if probabilities are"
            " right (Pauker and Kassirer 1975). Intervals: 95 %, bootstrap of patients.",
            *too_few(rows),
        ),
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
        last_day=view.days_so_far - 1,
        rng=view.rng(),
        clinicians=scored["clinician_code"].fillna(-1).to_numpy(dtype=np.int64),
        resamples=view.resamples,
    )
    would = "would alert" if silent else "alerted"
    return Panel(
        name=name,
        title=title,
        said=(
            f"{of(found.alerts, 'packet')} {would} in {of(found.days, 'day')}: {said(found.per_day.mean, digits=1)} a"
            f" day, {said(found.share_of_inferences, as_percent=True)} of what was scored.",
        ),
        figures=(_daily(view, scored, alerts), *_by_clinician(found)),
        tables=(_distributions(found),),
        notes=(
            *(("Nothing was shown in this window: this is what the threshold would have given.",) if silent else ()),
            "Intervals: 95 %, bootstrap of days, or of clinicians with all their days. The band is what chance alone"
            " makes of the mean on a day (Poisson).",
            *_of_clinicians(found, len(scored)),
        ),
    )


def _is_told(found: AlertBurden) -> bool:
    return found.clinicians is not None and found.clinicians >= FEWEST_PATIENTS


def _distributions(found: AlertBurden) -> NamedTable:
    """Put days and clinicians' days side by side; clinicians are left out where they are few enough to be known."""
    shown = {"on a day": found.per_day}
    if found.per_clinician_day is not None and _is_told(found):
        shown["of a clinician on a day"] = found.per_clinician_day
    return NamedTable(
        caption="How many alerts there are",
        table=Table(
            columns=("alerts", *shown),
            rows=(
                ("mean", *(said(each.mean, digits=2) for each in shown.values())),
                ("median", *(said(each.median, digits=0) for each in shown.values())),
                ("90th percentile", *(said(each.percentile_90, digits=0) for each in shown.values())),
                ("most", *(count(each.most) for each in shown.values())),
            ),
        ),
    )


def _by_clinician(found: AlertBurden) -> tuple[Figure, ...]:
    """Draw how often a clinician has so many alerts on a day."""
    if found.per_clinician_day is None or not _is_told(found):
        return ()
    often = found.per_clinician_day.frequencies
    shares = [each / sum(often) for each in often]
    places = range(len(often))
    return (
        Figure(
            name="alerts-by-clinician",
            title="Alerts of a clinician on a day",
            told="; ".join(f"{each}: {percent(shares[each])} of clinicians' days" for each in places) + ".",
            x=Axis(name="Alerts of one clinician on one day", low=-0.6, high=len(often) - 0.4),
            y=Axis(name="Share of clinicians' days", kind=Kind.PERCENT, low=0.0),
            marks=(
                Bars(
                    name="",
                    starts=numbers(each - 0.4 for each in places),
                    ends=numbers(each + 0.4 for each in places),
                    heights=numbers(shares),
                ),
            ),
            width=520,
            height=240,
        ),
    )


def _of_clinicians(found: AlertBurden, rows: int) -> tuple[str, ...]:
    if found.clinicians is None:
        return ("No packet of this window says for whom it was asked, so alerts cannot be counted by clinician.",)
    if not _is_told(found):
        return (
            f"Packets name fewer than {FEWEST_PATIENTS} clinicians: of so few no figure is given, it could tell of a"
            " person.",
        )
    tenth = found.of_busiest_tenth
    return (
        f"{count(found.clinicians)} clinicians, each on the days on which something was scored for them."
        + ("" if tenth is None else f" The tenth of them who get most have {percent(tenth)} of these alerts.")
        + (f" {percent(1 - found.known / rows)} of what was scored names nobody." if found.known < rows else ""),
        *(
            (f"Of under {FEW_PATIENTS} clinicians, intervals are too narrow to be trusted.",)
            if found.clinicians < FEW_PATIENTS
            else ()
        ),
    )


def _daily(view: View, scored: pd.DataFrame, alerts: NDArray[np.bool_]) -> Figure:
    """Draw the alerts of each day, on a band of what chance makes of their mean."""
    counts = np.bincount(days_from_start(view, scored), weights=alerts, minlength=view.window.days)
    so_far = counts[: view.days_so_far]
    starts, mean = day_starts(view), float(so_far.mean())
    reach = Z_95 * math.sqrt(mean)
    return Figure(
        name="alerts-a-day",
        title="Alerts a day",
        told=f"On average {number(mean, digits=1)} alerts a day, at most {number(float(so_far.max()), digits=0)} and at"
        f" least {number(float(so_far.min()), digits=0)}.",
        x=Axis(name="Day of the request (UTC)", kind=Kind.TIME, low=starts[0], high=starts[-1]),
        y=Axis(name="Alerts a day", low=0.0),
        marks=(
            Bars(name="", starts=numbers(starts[:-1]), ends=numbers(starts[1:]), heights=numbers(counts)),
            Level(name="mean", at=mean, low=max(0.0, mean - reach), high=mean + reach),
        ),
        width=760,
        height=240,
    )
