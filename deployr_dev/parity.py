"""Does the warehouse see what the EMR saw: the same orders' vectors from both, feature by feature."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployr_core.features import FeatureSpec
from deployr_core.layout import layout_of
from deployr_core.packet import StoredVector
from deployr_core.vectorize import FeatureVector


class NotComparable(ValueError):
    """A vector was not made by the declaration that it is compared under."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityReport:
    """``features_compared`` is orders times features. Equal means the same float64 bits; absent is 0.0.

    ``differences``: the most frequent first, among equals in the order of the features.
    """

    orders: int
    features_compared: int
    features_equal: int
    differences: tuple[FeatureDifference, ...]


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
    compared = orders * len(layout.names)
    return ParityReport(
        orders=orders,
        features_compared=compared,
        features_equal=compared - sum(difference.orders for difference in differences),
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
