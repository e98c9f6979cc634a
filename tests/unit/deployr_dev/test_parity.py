"""Where the EMR's vector and the warehouse's differ, by name, and what that does to the score."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deployr_core.features import FeatureSpec, parse_feature_spec
from deployr_core.packet import StoredVector
from deployr_core.vectorize import FeatureVector
from deployr_dev.parity import FeatureDifference, GroupParity, NotComparable, compare_scores, compare_vectors

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


def test_each_group_is_counted_for_itself():
    report = compare_vectors([(stored(1, 0, 0, 1), a_vector(0, 1, 0, 1))], SPEC)

    assert report.groups == {"sex": GroupParity(compared=2, equal=0), "age": GroupParity(compared=2, equal=2)}


def test_a_difference_says_which_side_is_larger_and_how_far_apart_they_are():
    report = compare_vectors(
        [(stored(1, 0, 0, 0), a_vector(3, 0, 0, 0)), (stored(2, 0, 0, 0), a_vector(1.5, 0, 0, 0))], SPEC
    )

    (difference,) = report.differences
    assert (difference.emr_larger, difference.warehouse_larger, difference.largest_difference) == (1, 1, 2.0)


def test_vectors_alone_tell_no_causes_and_no_score():
    report = compare_vectors([(stored(1, 0, 0, 1), a_vector(0, 1, 0, 1))], SPEC)

    assert (report.score, report.causes, report.mapping_patch) == (None, (), {})


def test_the_json_report_has_what_tools_read():
    report = json.loads(compare_vectors([(stored(1, 0, 0, 1), a_vector(0, 0, 0, 1))], SPEC).to_json())

    assert {name: report[name] for name in ("orders", "features_compared", "features_equal", "auroc_lost")} == {
        "orders": 1,
        "features_compared": 4,
        "features_equal": 3,
        "auroc_lost": None,
    }
    assert report["groups"] == {"sex": {"compared": 2, "equal": 1}, "age": {"compared": 2, "equal": 2}}
    assert report["causes"] == []
    assert report["differences"] == [
        {
            "feature": "sex/female",
            "group": "sex",
            "orders": 1,
            "agreement": 0.0,
            "emr_larger": 1,
            "warehouse_larger": 0,
            "largest_difference": 1.0,
            "example_emr": 1.0,
            "example_warehouse": 0.0,
        }
    ]


def test_scores_that_are_equal_flip_nothing_and_lose_nothing():
    parity = compare_scores([(0.2, 0.2), (0.9, 0.9)], labels=[0.0, 1.0], threshold=0.5)

    assert (parity.orders_equal, parity.decisions_flipped, parity.mean_difference) == (2, 0, 0.0)
    assert parity.absolute_quantiles == {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    assert (parity.auroc_emr, parity.auroc_warehouse, parity.auroc_lost) == (1.0, 1.0, 0.0)


def test_a_score_at_the_threshold_is_a_decision_and_each_flip_is_counted_by_its_way():
    pairs = [(0.5, 0.4), (0.4, 0.5), (0.1, 0.6), (0.5, 0.5)]
    parity = compare_scores(pairs, labels=[None] * 4, threshold=0.5)

    assert (parity.flipped_on, parity.flipped_off, parity.decisions_flipped) == (1, 2, 3)
    assert parity.mean_difference == pytest.approx((0.1 - 0.1 - 0.5 + 0.0) / 4)
    assert parity.absolute_quantiles["max"] == 0.5
    assert parity.orders_equal == 1


def test_the_auroc_lost_is_over_the_orders_whose_outcome_is_known():
    # The warehouse ranks both positives above the negative; the EMR one of two.
    pairs = [(0.1, 0.9), (0.8, 0.8), (0.5, 0.2), (0.0, 1.0)]
    parity = compare_scores(pairs, labels=[1.0, 1.0, 0.0, None], threshold=0.5)

    assert (parity.labelled, parity.auroc_emr, parity.auroc_warehouse, parity.auroc_lost) == (3, 1 / 2, 1.0, 1 / 2)


@pytest.mark.parametrize("labels", [[None, None], [1.0, 1.0], [0.0, None]])
def test_labels_that_cannot_carry_an_auroc_give_none(labels):
    parity = compare_scores([(0.1, 0.2), (0.3, 0.4)], labels=labels, threshold=0.5)

    assert (parity.auroc_emr, parity.auroc_warehouse, parity.auroc_lost) == (None, None, None)


def test_scores_without_orders_or_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="at least one order"):
        compare_scores([], labels=[], threshold=0.5)
    with pytest.raises(ValueError, match="one label an order"):
        compare_scores([(0.1, 0.1)], labels=[], threshold=0.5)
