"""Does the warehouse see what the EMR saw: the same orders' features from both, and what a difference costs."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from typing import Any

import msgspec
import numpy as np

from deployr_core.facts import PatientFacts
from deployr_core.features import FeatureSpec
from deployr_core.layout import layout_of
from deployr_core.metrics import NotMeasurable, auroc
from deployr_core.packet import StoredVector
from deployr_core.vectorize import FeatureVector, vectorize
from deployr_dev.parity_causes import NO_CHARTS, find_causes
from deployr_dev.parity_facts import Chart
from deployr_dev.parity_kinds import Cause, CauseKind
from deployr_dev.parity_tallies import Lateness, OneSided


class NotComparable(ValueError):
    """A vector was not made by the declaration that it is compared under."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedOrder:
    """One order, seen from both sides as of the same instant.

    ``label``: 1.0 or 0.0 where the outcome is known, else None.
    """

    as_of: datetime
    emr: PatientFacts = field(repr=False)
    warehouse: PatientFacts = field(repr=False)
    label: float | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureDifference:
    """One feature that the two sides do not agree on, in ``orders`` orders.

    ``emr_larger``: in how many of them the EMR's value is the larger one. ``example_emr`` and
    ``example_warehouse``: its values in the order where they are furthest apart.
    """

    feature: str
    group: str
    orders: int
    emr_larger: int
    example_emr: float
    example_warehouse: float

    @property
    def warehouse_larger(self) -> int:
        """In how many orders the warehouse's value is the larger one."""
        return self.orders - self.emr_larger

    @property
    def largest_difference(self) -> float:
        """How far apart the two values are in the order where they are furthest apart."""
        return abs(self.example_emr - self.example_warehouse)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupParity:
    """One feature group: features compared, which is orders times features, and how many of them are equal."""

    compared: int
    equal: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreParity:
    """What the differences do to the score; a difference is the EMR's score minus the warehouse's.

    ``absolute_quantiles``: of the differences without their sign, by name (``p50``, ``p90``, ``p99``, ``max``).
    ``flipped_on``: orders that are at or over ``threshold`` with the EMR's features alone; ``flipped_off``: with the
    warehouse's alone. The AUROCs are over the ``labelled`` orders; None where these cannot carry one.
    """

    threshold: float
    orders_equal: int
    mean_difference: float
    absolute_quantiles: Mapping[str, float]
    flipped_on: int
    flipped_off: int
    labelled: int
    auroc_emr: float | None
    auroc_warehouse: float | None

    @property
    def decisions_flipped(self) -> int:
        """How many orders are decided otherwise."""
        return self.flipped_on + self.flipped_off

    @property
    def auroc_lost(self) -> float | None:
        """The warehouse's AUROC minus the EMR's; below 0 where the EMR's happens to be the better one."""
        if self.auroc_emr is None or self.auroc_warehouse is None:
            return None
        return self.auroc_warehouse - self.auroc_emr


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """``features_compared`` is orders times features. Equal means the same float64 bits; absent is 0.0.

    ``groups``: by name, in the declared order. ``differences``: the most frequent first, among equals in the order of
    the features. ``score``: None where no model was given. ``causes``, ``one_sided`` and ``lateness`` need the facts of
    both sides, and are empty where vectors alone were compared.
    """

    orders: int
    features_compared: int
    features_equal: int
    groups: Mapping[str, GroupParity]
    differences: tuple[FeatureDifference, ...]
    score: ScoreParity | None = None
    causes: tuple[Cause, ...] = ()
    one_sided: tuple[OneSided, ...] = ()
    lateness: tuple[Lateness, ...] = ()

    @property
    def mapping_patch(self) -> dict[str, Any]:
        """What the causes suggest to change in the source mapping, put together; empty if nothing."""
        patch: dict[str, Any] = {}
        for cause in self.causes:
            for key, value in cause.patch.items():
                patch[key] = {**patch.get(key, {}), **value} if isinstance(value, Mapping) else value
        return patch

    def to_json(self) -> bytes:
        """Give the report as JSON, indented, for tools."""
        score = self.score
        content = {
            "orders": self.orders,
            "features_compared": self.features_compared,
            "features_equal": self.features_equal,
            "groups": self.groups,
            "auroc_lost": None if score is None else score.auroc_lost,
            "score": None if score is None else {**_fields(score), "decisions_flipped": score.decisions_flipped},
            "differences": [
                {
                    **_fields(difference),
                    "agreement": 1.0 - difference.orders / self.orders,
                    "warehouse_larger": difference.warehouse_larger,
                    "largest_difference": difference.largest_difference,
                }
                for difference in self.differences
            ],
            "causes": self.causes,
            "mapping_patch": self.mapping_patch,
            "one_sided": self.one_sided,
            "lateness": self.lateness,
        }
        return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"


def parity_report(
    orders: Sequence[PairedOrder],
    spec: FeatureSpec,
    *,
    score: Callable[[FeatureVector], float] | None = None,
    threshold: float = 0.5,
    charts: Mapping[str, Chart] = NO_CHARTS,
    warehouse_zone: tzinfo | None = None,
    periods: tuple[Cause, ...] = (),
) -> ParityReport:
    """Compare orders from both sides: their features, what made them differ, and what that does to the score.

    Args:
        orders: each with the facts of both sides; the EMR's may hold no more than the windows need.
        spec: the fitted declaration.
        score: the model; None leaves the score out.
        threshold: a score at or over it is a decision to act.
        charts: by the EMR's patient id, all that it holds of these patients, so that causes can be told.
        warehouse_zone: in which zone the source mapping reads times, so that a better one can be named.
        periods: what a comparison of two periods found (`parity_periods.case_mix`).

    Raises:
        SpecNotFitted: the declaration still holds something to be learned.
    """
    vectors = [
        (vectorize(order.emr, spec, order.as_of), vectorize(order.warehouse, spec, order.as_of)) for order in orders
    ]
    report = compare_vectors(((StoredVector.of(emr), warehouse) for emr, warehouse in vectors), spec)
    findings = find_causes(
        ((order.emr, order.warehouse, order.as_of) for order in orders),
        spec,
        charts=charts,
        warehouse_zone=warehouse_zone,
    )
    differing = {name for name, group in report.groups.items() if group.equal < group.compared}
    return replace(
        report,
        # Facts that are known a little later at one side are no cause where no feature differs for it.
        causes=tuple(
            cause
            for cause in (*findings.causes, *periods)
            if cause.kind is not CauseKind.LATE_RESULTS or cause.group in differing
        ),
        one_sided=findings.one_sided,
        lateness=findings.lateness,
        score=None
        if score is None or not orders
        else compare_scores(
            [(score(emr), score(warehouse)) for emr, warehouse in vectors],
            labels=[order.label for order in orders],
            threshold=threshold,
        ),
    )


def compare_vectors(pairs: Iterable[tuple[StoredVector, FeatureVector]], spec: FeatureSpec) -> ParityReport:
    """Compare each order's vector as the EMR gave it, from its packet, with the warehouse's for the same instant.

    Args:
        pairs: per order the packet's vector and the warehouse's.
        spec: the fitted declaration that both were made by.

    Raises:
        NotComparable: a vector was made by another declaration.
        SpecNotFitted: the declaration still holds something to be learned.
    """
    layout = layout_of(spec)
    orders = 0
    found: dict[int, list[tuple[float, float]]] = {}
    for emr, warehouse in pairs:
        for side, digest, size in (
            ("EMR", emr.spec_sha256, emr.size),
            ("warehouse", warehouse.spec_digest, warehouse.size),
        ):
            if (digest, size) != (layout.spec_digest, len(layout.names)):
                raise NotComparable(f"expected vectors of the same declaration; one from the {side} is of another")
        orders += 1
        for column, values in differing_columns(emr, warehouse).items():
            found.setdefault(column, []).append(values)
    differences = [
        _difference(layout.names[column], layout.groups_of[column], found[column]) for column in sorted(found)
    ]
    unequal: Counter[str] = Counter()
    for difference in differences:
        unequal[difference.group] += difference.orders
    sizes = Counter(layout.groups_of)
    groups = {
        group.name: GroupParity(
            compared=orders * sizes[group.name], equal=orders * sizes[group.name] - unequal[group.name]
        )
        for group in spec.groups
    }
    return ParityReport(
        orders=orders,
        features_compared=sum(group.compared for group in groups.values()),
        features_equal=sum(group.equal for group in groups.values()),
        groups=groups,
        differences=tuple(sorted(differences, key=lambda difference: -difference.orders)),
    )


def differing_columns(emr: StoredVector, warehouse: FeatureVector) -> dict[int, tuple[float, float]]:
    """Give the columns where the two are not equal, each with the EMR's value and the warehouse's."""
    left = dict(zip(emr.indices, emr.values, strict=True))
    right = dict(zip(warehouse.indices.tolist(), warehouse.values.tolist(), strict=True))
    return {
        column: (left.get(column, 0.0), right.get(column, 0.0))
        for column in sorted(left.keys() | right.keys())
        if left.get(column, 0.0) != right.get(column, 0.0)
    }


def compare_scores(
    pairs: Sequence[tuple[float, float]], *, labels: Sequence[float | None], threshold: float
) -> ScoreParity:
    """Compare each order's score from the EMR's features with that from the warehouse's.

    Args:
        pairs: per order the EMR's score and the warehouse's, at least one order.
        labels: per order 1.0, 0.0, or None where the outcome is not known.
        threshold: a score at or over it is a decision to act.

    Raises:
        ValueError: no order, or not one label an order.
    """
    if not pairs or len(labels) != len(pairs):
        raise ValueError("expected at least one order, and one label an order")
    scores = np.array(pairs, dtype=np.float64)
    emr, warehouse = scores[:, 0], scores[:, 1]
    apart = np.abs(emr - warehouse)
    acts_emr, acts_warehouse = emr >= threshold, warehouse >= threshold
    known = np.array([label is not None for label in labels])
    outcomes = np.array([label for label in labels if label is not None], dtype=np.float64)
    aurocs: tuple[float | None, float | None] = (None, None)
    with contextlib.suppress(NotMeasurable):
        aurocs = auroc(outcomes, emr[known]), auroc(outcomes, warehouse[known])
    return ScoreParity(
        threshold=threshold,
        orders_equal=int((emr == warehouse).sum()),
        mean_difference=float((emr - warehouse).mean()),
        absolute_quantiles={
            "p50": float(np.quantile(apart, 0.5)),
            "p90": float(np.quantile(apart, 0.9)),
            "p99": float(np.quantile(apart, 0.99)),
            "max": float(apart.max()),
        },
        flipped_on=int((acts_emr & ~acts_warehouse).sum()),
        flipped_off=int((acts_warehouse & ~acts_emr).sum()),
        labelled=int(known.sum()),
        auroc_emr=aurocs[0],
        auroc_warehouse=aurocs[1],
    )


def _difference(feature: str, group: str, values: list[tuple[float, float]]) -> FeatureDifference:
    emr, warehouse = max(values, key=lambda pair: abs(pair[0] - pair[1]))
    return FeatureDifference(
        feature=feature,
        group=group,
        orders=len(values),
        emr_larger=sum(left > right for left, right in values),
        example_emr=emr,
        example_warehouse=warehouse,
    )


def _fields(record: object) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return fields
