"""Where the EMR's vector and the warehouse's differ, by name."""

from __future__ import annotations

import numpy as np
import pytest

from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.packet import StoredVector
from deployr_core.vectorize import FeatureVector
from deployr_dev.parity import FeatureDifference, NotComparable, compare_vectors

SPEC = parse_feature_spec(
    b"""{"schema_version": 1, "groups": [
        {"kind": "sex", "name": "sex"},
        {"kind": "age", "name": "age", "bins": {"kind": "edges", "edges": [50]}}]}"""
)


def a_vector(*row: float, spec: FeatureSpec = SPEC) -> FeatureVector:
    """Give the vector whose dense row this is: female, male, under 50, 50 and over."""
    dense = np.array(row)
    indices = np.flatnonzero(dense).astype(np.int32)
    return FeatureVector(
        spec_digest=spec.digest(), size=dense.size, indices=indices, values=dense[indices], coverage={}
    )


def stored(*row: float) -> StoredVector:
    return StoredVector.of(a_vector(*row))


def test_equal_vectors_have_no_differences():
    report = compare_vectors([(stored(1, 0, 0, 1), a_vector(1, 0, 0, 1))] * 3, SPEC)

    assert (report.orders, report.features_compared, report.features_equal) == (3, 12, 12)
    assert report.differences == ()


def test_no_orders_compare_nothing():
    report = compare_vectors([], SPEC)

    assert (report.orders, report.features_compared, report.features_equal) == (0, 0, 0)


def test_each_difference_is_named_the_most_frequent_first_with_the_widest_example():
    report = compare_vectors(
        [
            (stored(1, 0, 0, 1), a_vector(0, 1, 0, 1)),
            (stored(0, 2, 0, 1), a_vector(0, 7, 0, 1)),
            (stored(0, 1, 0, 0), a_vector(0, 1, 0, 1)),
        ],
        SPEC,
    )

    assert (report.features_compared, report.features_equal) == (12, 8)
    assert report.differences == (
        FeatureDifference(
            feature="sex/male", group="sex", orders=2, emr_larger=0, example_emr=2.0, example_warehouse=7.0
        ),
        FeatureDifference(
            feature="sex/female", group="sex", orders=1, emr_larger=1, example_emr=1.0, example_warehouse=0.0
        ),
        FeatureDifference(
            feature="age/[50,inf)", group="age", orders=1, emr_larger=0, example_emr=0.0, example_warehouse=1.0
        ),
    )


def test_one_bit_is_a_difference():
    report = compare_vectors([(stored(0.1 + 0.2, 0, 0, 1), a_vector(0.3, 0, 0, 1))], SPEC)

    assert report.features_equal == 3


def test_vectors_of_another_declaration_are_refused():
    other = parse_feature_spec(b'{"schema_version": 1, "groups": [{"kind": "sex", "name": "gender"}]}')

    with pytest.raises(NotComparable, match="warehouse"):
        compare_vectors([(stored(1, 0, 0, 1), a_vector(1, 0, spec=other))], SPEC)
    with pytest.raises(NotComparable, match="EMR"):
        compare_vectors([(StoredVector.of(a_vector(1, 0, spec=other)), a_vector(1, 0, 0, 1))], SPEC)
