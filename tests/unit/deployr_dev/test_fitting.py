"""What is learned from training rows, and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.codes import ICD10CM, Code
from deployr_core.facts import Demographics, Diagnosis, DiagnosisList, Lab, PatientFacts, Sex
from deployr_core.features import (
    Analyte,
    DiagnosisGroup,
    EdgeBins,
    FeatureSpec,
    FixedCodes,
    Group,
    LabGroup,
    LabStatistic,
    LearnedCodes,
    QuantileBins,
)
from deployr_dev.fitting import fit, is_seen, most_common, quantile_edges

NOON = datetime(2031, 3, 5, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
NOBODY = Demographics(birth_date=None, sex=Sex.UNKNOWN)
MakeResult = Callable[..., Lab]


def of_groups(*groups: Group) -> FeatureSpec:
    return FeatureSpec(schema_version=1, groups=groups)


def hematocrit(*, n: int = 2, unit: str = "%") -> FeatureSpec:
    """Give a declaration of hematocrit in ``n`` quantile bins, 7 days back."""
    analyte = Analyte(system="http://loinc.org", code="4544-3", name="Hematocrit", unit=unit, bins=QuantileBins(n=n))
    return of_groups(LabGroup(name="labs", analytes=(analyte,), statistics=(LabStatistic.BINS,), lookback_days=7))


def problems(*, prefix_length: int | None = None, min_patients: int = 1) -> FeatureSpec:
    return of_groups(
        DiagnosisGroup(
            name="problems",
            recorded_in=(DiagnosisList.PROBLEM_LIST,),
            systems=(ICD10CM,),
            codes=LearnedCodes(min_patients=min_patients),
            lookback_days=7,
            prefix_length=prefix_length,
        )
    )


def problem(code: str, at: datetime = NOON - DAY, *, system: str = ICD10CM) -> Diagnosis:
    return Diagnosis(
        fact_id=f"{code}{at}", codes=(Code(system, code),), at=at, known_at=at, recorded_in=DiagnosisList.PROBLEM_LIST
    )


def with_labs(*labs: Lab) -> PatientFacts:
    return PatientFacts(patient_id="1", demographics=NOBODY, labs=labs)


def with_problems(*diagnoses: Diagnosis) -> PatientFacts:
    return PatientFacts(patient_id="1", demographics=NOBODY, diagnoses=diagnoses)


def edges_of(spec: FeatureSpec) -> tuple[float, ...]:
    (group,) = spec.groups
    assert isinstance(group, LabGroup)
    bins = group.analytes[0].bins
    assert isinstance(bins, EdgeBins)
    return bins.edges


def codes_of(spec: FeatureSpec) -> tuple[str, ...]:
    (group,) = spec.groups
    assert isinstance(group, DiagnosisGroup)
    assert isinstance(group.codes, FixedCodes)
    return tuple(code.value for code in group.codes.codes)


def test_edges_are_the_values_that_a_share_does_not_exceed():
    # Of 1..10 the smallest value that at least 1/5 do not exceed is 2, then 4, 6 and 8.
    assert quantile_edges(np.arange(1.0, 11.0), 5) == (2.0, 4.0, 6.0, 8.0)


def test_ties_leave_each_edge_once():
    assert quantile_edges(np.array([1.0, 5.0, 5.0, 5.0, 9.0]), 5) == (1.0, 5.0)


def test_no_values_leave_no_edges_and_a_single_bin():
    assert quantile_edges(np.zeros(0), 5) == ()
    assert edges_of(fit(hematocrit(), [])) == ()


@given(
    values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    n=st.integers(2, 12),
)
def test_edges_are_ascending_values_whatever_the_order_of_the_data(values: list[float], n: int):
    edges = quantile_edges(np.array(values), n)

    assert set(edges) <= set(values)
    assert all(low < high for low, high in pairwise(edges))
    assert len(edges) <= n - 1
    assert edges == quantile_edges(np.array(values[::-1]), n)
    for k in range(1, n):
        assert any(sum(v <= edge for v in values) * n >= k * len(values) for edge in edges)


def test_a_result_counts_once_however_many_rows_see_it(result: MakeResult):
    labs = [result(str(n), NOON - DAY, value) for n, value in enumerate((30.0, 40.0, 50.0))]
    seen_once = fit(hematocrit(n=3), [(with_labs(*labs), [NOON])])
    seen_thrice = fit(hematocrit(n=3), [(with_labs(*labs), [NOON, NOON + SECOND, NOON + DAY])])

    assert edges_of(seen_once) == edges_of(seen_thrice) == (30.0, 40.0)


@pytest.mark.parametrize(
    ("at", "known_at", "seen"),
    [
        (NOON - 7 * DAY, NOON - 6 * DAY, True),
        (NOON - 7 * DAY - SECOND, NOON - 6 * DAY, False),
        (NOON - DAY, NOON - SECOND, True),
        (NOON - DAY, NOON, False),
        (NOON, NOON, False),
    ],
    ids=["start of the window", "before the window", "just known", "known at the index time", "at the index time"],
)
def test_only_results_that_a_training_row_could_see_count(
    result: MakeResult, at: datetime, known_at: datetime, seen: bool
):
    spec = fit(hematocrit(), [(with_labs(result("1", at, 40.0, known_at=known_at)), [NOON])])

    assert edges_of(spec) == ((40.0,) if seen else ())


@given(
    at=st.integers(0, 20),
    delay=st.integers(0, 10),
    rows=st.lists(st.integers(0, 40), max_size=6),
    lookback=st.integers(1, 12),
)
def test_a_fact_is_seen_exactly_if_one_of_the_rows_sees_it(at: int, delay: int, rows: list[int], lookback: int):
    fact = Diagnosis(
        fact_id="1",
        codes=(),
        at=NOON + at * DAY,
        known_at=NOON + (at + delay) * DAY,
        recorded_in=DiagnosisList.ENCOUNTER,
    )
    expected = any(row - lookback <= at < row and at + delay < row for row in rows)

    assert is_seen(fact, sorted(NOON + row * DAY for row in rows), lookback * DAY) is expected


def test_values_are_learned_in_the_declared_unit_and_those_that_cannot_be_are_left_out(result: MakeResult):
    labs = [
        result("1", NOON - DAY, 0.4, unit="1"),
        result("2", NOON - DAY, 0.5, unit="furlong"),
        result("3", NOON - DAY, None),
        result("4", NOON - DAY, float("nan")),
    ]

    assert edges_of(fit(hematocrit(), [(with_labs(*labs), [NOON])])) == (0.4 * 100.0,)


def test_codes_come_most_common_first_and_ties_by_code():
    assert most_common(Counter({"B": 2, "A": 2, "C": 3, "D": 1}), LearnedCodes(min_patients=2)) == ("C", "A", "B")
    assert most_common(Counter({"B": 2, "A": 2, "C": 3}), LearnedCodes(min_patients=1, at_most=2)) == ("C", "A")


def test_a_code_counts_patients_and_not_facts():
    first = with_problems(problem("I48"), problem("I48", NOON - 2 * DAY), problem("I48", NOON - 3 * DAY))
    second = with_problems(problem("E11"))
    third = with_problems(problem("E11"))

    spec = fit(problems(min_patients=2), [(who, [NOON]) for who in (first, second, third)])

    assert codes_of(spec) == ("E11",)


def test_codes_are_grouped_before_they_are_counted():
    people = [with_problems(problem("I48.0")), with_problems(problem("I48.91"))]

    assert codes_of(fit(problems(prefix_length=3, min_patients=2), [(who, [NOON]) for who in people])) == ("I48",)


def test_codes_of_other_systems_and_lists_and_times_are_not_learned():
    elsewhere = Diagnosis(
        fact_id="x",
        codes=(Code(ICD10CM, "X1"),),
        at=NOON - DAY,
        known_at=NOON - DAY,
        recorded_in=DiagnosisList.ENCOUNTER,
    )
    who = with_problems(problem("S1", system="urn:other"), problem("F1", NOON), elsewhere, problem("OK"))

    assert codes_of(fit(problems(), [(who, [NOON])])) == ("OK",)


def test_what_is_fixed_already_stays_as_it_is(result: MakeResult):
    fitted = fit(hematocrit(), [(with_labs(result("1", NOON - DAY, 40.0)), [NOON])])

    assert fitted.is_fitted
    assert fit(fitted, [(with_labs(result("1", NOON - DAY, 10.0)), [NOON])]) == fitted


def test_the_order_of_patients_changes_nothing(result: MakeResult):
    people = [(with_labs(result("1", NOON - DAY, value)), [NOON]) for value in (31.0, 44.0, 38.5, 29.0)]

    assert fit(hematocrit(n=3), people) == fit(hematocrit(n=3), people[::-1])
