"""What drifts in `benchmarks.drift_alarms`: knobs of the synthetic hospital, then changes of answers and requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_hospital import Model, Orders
from deployr_core.calibration import logistic, logits_of
from deployr_core.layout import layout_of
from deployr_core.monitoring.drift_cells import SparseRows
from deployr_core.monitoring.served_rows import ServedRows
from mock_emr.population.shift import OTHER_UNITS, InfrastructureShift

Keeps = Callable[[np.random.Generator, ServedRows], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Drifting:
    """One knob at one size: a shift of the hospital, a change of what is answered, or requests that no longer come."""

    knob: str
    size: str
    shift: InfrastructureShift | None = None
    changed: Callable[[Model, Orders], Orders] | None = None
    kept: Keeps | None = None

    @property
    def name(self) -> str:
        """Name it."""
        return f"{self.knob}: {self.size}"


def scores_moved(by: float) -> Callable[[Model, Orders], Orders]:
    """Move scores by so much in log odds."""
    return lambda _, orders: replace(orders, scores=logistic(logits_of(np.clip(orders.scores, 0.01, 0.99)) + by))


def labels_positive(share: float) -> Callable[[Model, Orders], Orders]:
    """Call that share of what was normal abnormal, as when a range gets narrower."""

    def changed(_: Model, orders: Orders) -> Orders:
        luck = np.random.default_rng(5).random(orders.labels.size)
        return replace(orders, labels=np.where((luck < share) & (orders.labels == 0.0), 1.0, orders.labels))

    return changed


def without_results(share: float) -> Callable[[Model, Orders], Orders]:
    """Take the features of results away from that share of requests, as when a search fails now and then."""

    def changed(model: Model, orders: Orders) -> Orders:
        groups = np.array(layout_of(model.spec).groups_of)
        gone = np.isin(groups, [name for name in orders.present if "lab" in name])
        luck = np.random.default_rng(6).random(orders.at.size) < share
        of_row = np.repeat(np.arange(orders.at.size), np.diff(orders.features.starts))
        kept = ~(gone[orders.features.indices] & luck[of_row])
        features = SparseRows(
            size=orders.features.size,
            starts=np.r_[0, np.cumsum(np.bincount(of_row[kept], minlength=orders.at.size))].astype(np.int64),
            indices=orders.features.indices[kept],
            values=orders.features.values[kept],
        )
        return replace(
            orders,
            features=features,
            scores=model.scores_of(features),
            present={name: np.where(luck & ("lab" in name), 0.0, each) for name, each in orders.present.items()},
        )

    return changed


def fewer_at_night(share: float) -> Keeps:
    """Lose that share of requests at night."""
    return lambda rng, rows: (
        ~((rng.random(rows.rows) < share) & (np.char.find(rows.calls["part of the week"], "night") >= 0))
    )


def fewer_patients(share: float) -> Keeps:
    """Lose that share of patients with all their requests."""

    def kept(rng: np.random.Generator, rows: ServedRows) -> NDArray[np.bool_]:
        _, place = np.unique(rows.patients, return_inverse=True)
        gone = rng.random(int(place.max(initial=0)) + 1) < share
        return ~gone[place]

    return kept


_S = InfrastructureShift
_UNITS = tuple(OTHER_UNITS)
DRIFTS: tuple[Drifting, ...] = (
    *(
        Drifting(knob="results come late, 24 h", size=f"{share:.0%} of them", shift=_S(late_share=share, late_hours=24))
        for share in (0.1, 0.3, 0.7)
    ),
    *(
        Drifting(knob="new code system, diagnoses", size=f"{share:.0%} of codes", shift=_S(unmapped_diagnoses=share))
        for share in (0.1, 0.4, 1.0)
    ),
    *(
        Drifting(knob="new code system, tests", size=f"{count} of 14", shift=_S(unmapped_analytes=count / 14))
        for count in (1, 3, 7)
    ),
    *(
        Drifting(
            knob="units change, unlabelled",
            size=f"{len(names)} test{'s' if len(names) > 1 else ''}",
            shift=_S(other_units=names, units_labelled=False),
        )
        for names in (("Magnesium",), ("Creatinine", "Glucose", "Magnesium"), _UNITS)
    ),
    *(
        Drifting(
            knob="analyser of one ward recalibrated",
            size=f"times {factor:g}",
            shift=_S(analyser_ward="MED", analyser_factor=factor),
        )
        for factor in (1.02, 1.08, 1.2)
    ),
    *(
        Drifting(
            knob="results without a value",
            size=f"{share:.0%} of them",
            shift=_S(missing_elements=("Observation.valueQuantity", "Observation.interpretation"), missing_share=share),
        )
        for share in (0.05, 0.2, 1.0)
    ),
    *(
        Drifting(
            knob="race and ethnicity missing",
            size=f"of {share:.0%}",
            shift=_S(missing_elements=("Patient.extension",), missing_share=share),
        )
        for share in (0.1, 0.3, 1.0)
    ),
    *(
        Drifting(knob="admissions more ill", size=f"by {severity:g} sd", shift=_S(drift_severity=severity))
        for severity in (0.1, 0.3, 1.0)
    ),
    *(
        Drifting(knob="stays shorter", size=f"times {factor:g}", shift=_S(drift_stay_factor=factor))
        for factor in (0.8, 0.6, 0.4)
    ),
    *(
        Drifting(knob="searches for results fail", size=f"{share:.0%} of them", changed=without_results(share))
        for share in (0.02, 0.1, 0.5)
    ),
    *(Drifting(knob="scores higher", size=f"{by:g} in log odds", changed=scores_moved(by)) for by in (0.1, 0.3, 1.0)),
    *(
        Drifting(knob="range of the label narrower", size=f"{share:.0%} of the normal", changed=labels_positive(share))
        for share in (0.1, 0.25, 0.6)
    ),
    *(
        Drifting(knob="no requests at night", size=f"{share:.0%} of them", kept=fewer_at_night(share))
        for share in (0.2, 0.5, 1.0)
    ),
    *(
        Drifting(knob="fewer patients", size=f"{share:.0%} fewer", kept=fewer_patients(share))
        for share in (0.1, 0.3, 0.6)
    ),
)
"""Knobs of the synthetic hospital, then changes of what is answered or asked; three sizes of each."""
