"""What the nightly rules of alerts are held against: each model's figures, measured on the extract as panels do it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from deployr_core.bootstrap import Figure, Interval, NotMeasurable, NotMeasured, Ratios, measure
from deployr_core.monitoring.alert_burden import alert_burden
from deployr_core.monitoring.alert_rules import Rules
from deployr_core.monitoring.alerting_statistics import Figures, Overdue
from deployr_core.monitoring.designs import SampleRatio, sample_ratio
from deployr_core.monitoring.drift import Drift
from deployr_core.monitoring.drift_alarm import DriftAlarm, DriftLook, drift_alarm
from deployr_core.monitoring.drift_kinds import presence_drift
from deployr_core.monitoring.drift_reference import ReferenceInvalid, ReferenceOfAnotherBundle
from deployr_core.outputs import Target
from deployr_dash.loading import load_frame
from deployr_dash.panels.panel import (
    DAY,
    View,
    Window,
    auroc_name,
    auroc_of,
    days_from_start,
    labelled,
    patients_of,
    resamples_for,
    retrospective_figures,
)
from deployr_dash.panels.served import amounts_of
from deployr_dash.panels.trial_rows import chances_of, of_trial, sizes_of, units_of
from deployr_dash.parts import read_index
from deployr_dash.references import read_reference
from deployr_dash.served import NothingServed, load_served
from deployr_dash.views import COLUMNS, manifests_of

WINDOW = 28 * DAY
"""What is looked at: requests of so long, and labels that became ripe in it."""
_BACK = 400 * DAY
"""How far back labels may have been asked for, and a trial may have begun."""
_FEWEST = 50


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One model's figures, and the look at drift that the next night needs; None where there was none."""

    figures: Figures
    look: DriftLook | None


def models_of(folder: Path) -> tuple[str, ...]:
    """Give the models that the extract holds packets of.

    Raises:
        ExtractMissing: there is no extract.
    """
    return tuple(sorted({part.model_id for part in read_index(folder).packets}))


def measured(folder: Path, *, model: str, rules: Rules, looks: Sequence[DriftLook], now: datetime) -> Measured:
    """Measure one model over the days that were whole when the extract was made.

    Args:
        folder: the extract's.
        model: whose figures.
        rules: the model's.
        looks: at drift, of the nights before.
        now: aware; what the extract is taken to be of if it does not say.

    Raises:
        ExtractMissing: there is no extract.
    """
    made = read_index(folder).extracted_at or now
    end = made.replace(hour=0, minute=0, second=0, microsecond=0)
    frame = load_frame(folder, model=model, since=end - _BACK, until=end, columns=COLUMNS)
    manifests = manifests_of(folder).get(model, {})

    def view(packets: pd.DataFrame, start: datetime, end: datetime = end) -> View:
        return View(
            model_id=model,
            packets=packets.reset_index(drop=True),
            before=frame.iloc[:0],
            window=Window(start=start, end=end),
            now=made,
            manifests=manifests,
            resamples=resamples_for(len(packets)),
        )

    at = frame["received_at"]
    lately = view(frame.loc[at >= pd.Timestamp(end - WINDOW)], end - WINDOW)
    earlier = (at >= pd.Timestamp(end - 2 * WINDOW)) & (at < pd.Timestamp(end - WINDOW))
    before = view(frame.loc[earlier], end - 2 * WINDOW, end - WINDOW)
    ripened = frame["label_ripe_at"]
    of_labels = view(frame.loc[(ripened >= pd.Timestamp(end - WINDOW)) & (ripened < pd.Timestamp(made))], end - _BACK)
    of_version = replace(of_labels, packets=_of_newest(of_labels.packets, lately.packets))
    rows = labelled(of_version)
    is_number = of_version.target is Target.REGRESSION
    why = NotMeasured(why="the model predicts a number")
    positives = 0 if is_number else int(rows.labels.sum())
    drift, look = _drift(folder, model, looks, end=end)
    shown, overridden = _overridden(lately)
    return Measured(
        look=look,
        figures=Figures(
            model=model,
            scored=int((lately.packets["kind"] == "scored").sum()),
            positives=positives,
            negatives=0 if is_number else rows.labels.size - positives,
            auroc=why if is_number else auroc_of(of_version, rows),
            stated=_stated(of_version),
            calibration=why if is_number else _calibration(of_version, rows.scores - rows.labels, rows.patients),
            overdue=_overdue(of_labels.packets, made - rules.labels_overdue.days * DAY),
            coverage=_coverage(before, lately),
            drift=drift,
            sample_ratio=_sample_ratio(view(frame, end - _BACK)),
            shown=shown,
            overridden=overridden,
            burden=_burden(lately),
            burden_before=burden.value if isinstance(burden := _burden(before), Interval) else None,
        ),
    )


def _of_newest(packets: pd.DataFrame, lately: pd.DataFrame) -> pd.DataFrame:
    """Give the packets of the version that answered last: scores of two versions do not compare."""
    answered = lately.loc[lately["score"].notna()]
    if answered.empty:
        return packets
    newest = answered.loc[answered["received_at"].idxmax(), "version"]
    return packets.loc[packets["version"] == newest].reset_index(drop=True)


def _stated(view: View) -> Interval | None:
    stated = retrospective_figures(view).get(auroc_name(view))
    return stated if isinstance(stated, Interval) else None


def _calibration(view: View, differences: np.ndarray, patients: np.ndarray) -> Figure:
    if not differences.size:
        return NotMeasured(why="expected at least one row with a label")
    ratio = Ratios(
        names=("difference",),
        lacks=("at least one row",),
        numerators=differences[:, np.newaxis],
        denominators=np.ones((differences.size, 1)),
        shares=(False,),
    )
    return measure([ratio], patients, rng=view.rng(), resamples=view.resamples)["difference"]


def _overdue(packets: pd.DataFrame, due: datetime) -> Overdue:
    ripe = packets.loc[(packets["kind"] == "scored") & (packets["label_ripe_at"] < pd.Timestamp(due))]
    return Overdue(overdue=int(ripe["label_kind"].isna().sum()), ripe=len(ripe))


def _coverage(before: View, lately: View) -> tuple[Drift, ...] | str:
    """Tell of groups that every packet of both periods was looked through for: another version may not know them."""
    then, now = (_that_say(each.packets) for each in (before, lately))
    if min(len(then), len(now)) < _FEWEST:
        return (
            f"Fewer than {_FEWEST} scored packets in {WINDOW.days} days, or in those before, that say what they saw: of"
            " others the bundle is not at hand."
        )
    amounts = [amounts_of(frame["features_present"]) for frame in (then, now)]
    groups = sorted(name for name in amounts[0] if all(np.isfinite(each.get(name, np.nan)).all() for each in amounts))
    if not groups:
        return "Versions of the model in these days look at no group of features in common."
    there = [{name: each[name] > 0 for name in groups} for each in amounts]
    return presence_drift(*there, patients_before=patients_of(then), patients_now=patients_of(now)).ranked()


def _that_say(packets: pd.DataFrame) -> pd.DataFrame:
    says = (packets["kind"] == "scored") & packets["features_present"].notna()
    return packets.loc[says].reset_index(drop=True)


def _drift(
    folder: Path, model: str, looks: Sequence[DriftLook], *, end: datetime
) -> tuple[DriftAlarm | str, DriftLook | None]:
    try:
        rows, _, digest = load_served(folder, model=model, window=Window(start=end - WINDOW, end=end))
        reference = read_reference(folder, digest)
        if reference is None:
            return f"No reference period: deployr monitor reference {model}", None
        # Looked at twice a day, it would confirm itself.
        alarm = drift_alarm(reference, rows, [each for each in looks if each.until <= end - timedelta(hours=18)])
    except (NothingServed, ReferenceInvalid, ReferenceOfAnotherBundle, NotMeasurable) as error:
        return f"It cannot be told: {error}", None
    return alarm, alarm.look


def _sample_ratio(view: View) -> SampleRatio | None:
    units = units_of(of_trial(view))
    chances = chances_of(units)
    return None if chances is None else sample_ratio(sizes_of(units, chances), chances)


def _overridden(view: View) -> tuple[int, Figure]:
    shown = view.packets.loc[view.packets["shown_at"].notna()]
    if shown.empty:
        return 0, NotMeasured(why="no advisory was shown")
    overridden = (shown["response"].astype("object") == "overridden").to_numpy(dtype=np.float64)
    ratio = Ratios(
        names=("overridden",),
        lacks=("an advisory that was shown",),
        numerators=overridden[:, np.newaxis],
        denominators=np.ones((overridden.size, 1)),
        shares=(True,),
    )
    figures = measure([ratio], patients_of(shown), rng=view.rng(), resamples=view.resamples)
    return len(shown), figures["overridden"]


def _burden(view: View) -> Figure:
    shown = view.packets["shown_at"].notna().to_numpy(dtype=bool)
    if not shown.any():
        return NotMeasured(why="no advisory was shown")
    return alert_burden(
        shown,
        days_from_start(view, view.packets),
        first_day=0,
        last_day=view.window.days - 1,
        rng=view.rng(),
        resamples=view.resamples,
    ).per_day.mean
