"""What a comparison says in words, to somebody who has to decide and is no statistician."""

from __future__ import annotations

import pytest

from deployr_core.bundle import Estimate
from deployr_core.registry.comparison import (
    Better,
    Compared,
    Comparison,
    ComparisonInvalid,
    Group,
    Grouping,
    Model,
    Rows,
    Verdict,
    in_words,
    parse_comparison,
)

FIGURE = Estimate(value=0.8, low=0.7, high=0.9)


def of(name: str, low: float, value: float, high: float, *, better: Better = Better.HIGHER) -> Compared:
    difference = Estimate(value=value, low=low, high=high)
    return Compared(name=name, better=better, champion=FIGURE, challenger=FIGURE, difference=difference)


def a_comparison(*figures: Compared, patients: int = 312, groupings: tuple[Grouping, ...] = ()) -> Comparison:
    return Comparison(
        rows_are=Rows.HELD_OUT,
        champion=Model(name="hematocrit-aaaaaaaaaaaa", version="1", bundle_sha256="a" * 64),
        challenger=Model(name="hematocrit-bbbbbbbbbbbb", version="2", bundle_sha256="b" * 64),
        outcome="outside its reference range",
        rows=900,
        patients=patients,
        positives=300,
        threshold=None,
        resamples=1000,
        figures=figures,
        delong=None,
        groupings=groupings,
    )


def test_what_cannot_be_told_apart_says_with_how_many_patients_and_how_far_apart_it_may_be():
    (said,) = in_words(a_comparison(of("AUROC", -0.021, 0.004, 0.034)))

    assert said == (
        "By AUROC the challenger and the champion cannot be told apart with 312 patients: the challenger's may be up to"
        " 0.021 lower or 0.034 higher."
    )


def test_a_bound_of_nothing_has_no_sign():
    (said,) = in_words(a_comparison(of("AUROC", 0.0, 0.004, 0.034)))

    assert said.endswith("may be up to 0.000 lower or 0.034 higher.")


def test_what_is_better_or_worse_is_said_with_its_size_and_named_by_the_way_it_is_good():
    said = in_words(
        a_comparison(
            of("AUROC", 0.01, 0.03, 0.05),
            of("Brier score", 0.002, 0.004, 0.006, better=Better.LOWER),
            of("log loss", -0.006, -0.004, -0.002, better=Better.LOWER),
            of("average precision", -0.1, 0.0, 0.1),
        )
    )

    assert said == (
        "By AUROC the challenger is better by 0.030 (0.010 to 0.050), with 312 patients.",
        "The challenger is better in log loss.",
        "The challenger is worse in Brier score.",
        "In average precision the two cannot be told apart.",
    )


def test_groups_for_whom_it_is_worse_and_too_few_patients_are_told():
    group = Group(name="female", rows=100, patients=20, auroc=of("AUROC", -0.2, -0.1, -0.01))
    grouping = Grouping(name="sex", groups=(group,), gap=of("gap in AUROC by sex", -0.1, 0.0, 0.1, better=Better.LOWER))

    said = in_words(a_comparison(of("AUROC", -0.1, 0.0, 0.1), patients=20, groupings=(grouping,)))

    assert said[1:] == (
        "It tells outcomes apart worse for female (sex).",
        "With 20 patients every interval here is too narrow: take it as a first impression.",
    )


def test_what_could_not_be_measured_says_why():
    figure = Compared(
        name="AUROC", better=Better.HIGHER, champion=FIGURE, challenger="one class", difference="one class"
    )

    assert figure.verdict is Verdict.NOT_MEASURED
    assert in_words(a_comparison(figure)) == ("By AUROC the two cannot be compared: one class.",)


def test_a_bound_of_exactly_0_is_not_told_apart():
    assert of("AUROC", 0.0, 0.1, 0.2).verdict is Verdict.NOT_TOLD_APART


def test_a_record_is_named_by_its_digest_and_read_back():
    record = a_comparison(of("AUROC", -0.1, 0.0, 0.1))

    assert parse_comparison(record.to_json()) == record
    assert len(record.sha256) == 64
    assert record.sha256 != a_comparison(of("AUROC", -0.1, 0.01, 0.1)).sha256
    with pytest.raises(ComparisonInvalid, match=r"comparison\.json"):
        parse_comparison(b"[]")
