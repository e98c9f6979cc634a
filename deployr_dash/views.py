"""What one model's panels are made from, out of an extract: the same for pages and for reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd

from deployr_core.bundle import Manifest
from deployr_core.monitoring.drift_reference import ReferenceInvalid, ReferenceOfAnotherBundle
from deployr_dash.filters import Filters, before, chosen, within
from deployr_dash.held_out import HeldOut
from deployr_dash.loading import load_features, load_models
from deployr_dash.panels.panel import View, Window, resamples_for
from deployr_dash.parts import Part, read_index
from deployr_dash.plan import MonitoringPlan
from deployr_dash.references import read_reference

COLUMNS = (
    *("row", "packet_id", "model_id", "version", "received_at", "latency_ms", "kind", "reason", "score", "value_unit"),
    *("outputs", "unit", "stratum", "wedge_cluster", "wedge_period", "clinician_code", "language", "insurance"),
    *("mode", "advised", "why", "threshold", "eligible", "trial_id", "trial_version", "arm", "p_arm", "unit_code"),
    *("shown_by_design", "p_shown", "patient_code", "emr_ms", "searches", "sex", "age_band", "race", "ethnicity"),
    *("shown_at", "response", "response_reason", "deliveries_pending", "deliveries_sent", "deliveries_dead"),
    *("deliveries_superseded", "deliveries_expired", "label_kind", "label_value", "label_class", "label_values"),
    *("label_ripe_at", "label_reason", "channel", "features_present", "bundle_sha256", "answered_by"),
)
"""Of `deployr_dash.frames.PACKETS`, what panels look at."""
_USUAL_DAYS = 90


class ReferenceUnusable(ValueError):
    """A model's reference period cannot be used; the message says whose, why, and how to make it anew."""

    def __init__(self, model: str, why: Exception) -> None:
        super().__init__(f"reference period of {model}: {why} {model}")
        self.model = model


def days_of(parts: Iterable[Part]) -> tuple[date, date]:
    """Give the first and the last day, in UTC, that at least one part has packets of."""
    known = tuple(parts)
    return (
        min(part.first for part in known).astimezone(UTC).date(),
        max(part.last for part in known).astimezone(UTC).date(),
    )


def usual_first(first_day: date, last_day: date) -> date:
    """Give the day from which on packets are looked at where nobody says: the last 90 days that there are."""
    return max(first_day, last_day - timedelta(days=_USUAL_DAYS - 1))


def usual_last(last_day: date, extracted: datetime) -> date:
    """Give the day up to which packets are looked at where nobody says: that of the extract, so that silence is seen.

    Of what has been silent for longer than is looked at, the last day with packets.
    """
    today = extracted.astimezone(UTC).date()
    return today if last_day < today < last_day + timedelta(days=_USUAL_DAYS) else last_day


def manifests_of(folder: Path) -> Mapping[str, Mapping[str, Manifest]]:
    """Give the manifests of the bundles that answered, by model and version."""
    found: dict[str, dict[str, Manifest]] = {}
    for each in load_models(folder):
        found.setdefault(each.manifest.model_id, {})[each.manifest.version] = each.manifest
    of_version = {version: each for versions in found.values() for version, each in versions.items()}
    for part in read_index(folder).features:
        # A shadow goes by its run's id; its bundle is its model's.
        if part.version in of_version:
            found.setdefault(part.model_id, {}).setdefault(part.version, of_version[part.version])
    return found


def view_of(
    packets: pd.DataFrame,
    *,
    model: str,
    filters: Filters,
    window: Window,
    now: datetime,
    manifests: Mapping[str, Manifest],
) -> View:
    """Give the view of a model's packets, which may be empty, without their features.

    Args:
        packets: the columns `COLUMNS`, of the window and of as long a time before it.
        model: whose they are.
        filters: whom and which version to look at.
        window: the stretch that is looked at.
        now: when the extract was made, aware UTC.
        manifests: of the model's bundles at hand, by version.
    """
    every = chosen(packets, filters)
    some = within(every, window)
    return View(
        model_id=model,
        packets=some,
        before=within(every, before(window)),
        window=window,
        now=now,
        manifests=manifests,
        only_ripe=filters.only_ripe,
        resamples=resamples_for(len(some)),
    )


def as_planned(view: View, plan: MonitoringPlan | None, held_out: Mapping[str, Mapping[str, HeldOut]]) -> View:
    """Give the view with what was planned for the model, and with its curves of those by model and version."""
    return replace(
        view,
        planned_trial=None if plan is None else plan.trial,
        utilities=None if plan is None else plan.utilities,
        held_out=held_out.get(view.model_id, {}),
    )


def with_features(view: View, folder: Path, *, filters: Filters) -> View:
    """Give the view with the features of the version that answered last, read of an extract; it holds a packet.

    Of everybody, it also has that version's reference period, where one was made: it is of everybody.

    Raises:
        ExtractMissing: there is no extract.
        ReferenceUnusable: the reference period is damaged, of another version of deployr, or of another bundle.
    """
    last = view.packets.loc[view.packets["received_at"].idxmax()]
    newest = str(last["version"])
    try:
        reference = None if filters.cohort else read_reference(folder, str(last["bundle_sha256"]))
    except (ReferenceInvalid, ReferenceOfAnotherBundle) as error:
        raise ReferenceUnusable(view.model_id, error) from error
    return replace(
        view,
        features=load_features(
            folder, model=view.model_id, version=newest, since=before(view.window).start, until=view.window.end
        ),
        reference=reference,
    )
