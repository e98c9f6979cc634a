"""What is learned from training rows, and from nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfTransformer

from deployr_core.codes import ICD10CM, Code
from deployr_core.declared import (
    Analyte,
    CountKind,
    EdgeBins,
    FixedCodes,
    Grouping,
    LearnedCodes,
    MappedCode,
    MappedCodes,
    PrefixGrouping,
    QuantileBins,
    Statistic,
)
from deployr_core.facts import (
    Demographics,
    Diagnosis,
    DiagnosisList,
    Lab,
    Medication,
    Order,
    OrderStatus,
    PatientFacts,
    Procedure,
    Sex,
    Visit,
    Vital,
)
from deployr_core.features import (
    CodeGroup,
    DiagnosisGroup,
    FeatureSpec,
    Group,
    LabGroup,
    MedicationGroup,
    OrderGroup,
    ProcedureGroup,
    VisitGroup,
    VitalGroup,
)
from deployr_core.vectorize import vectorize
from deployr_dev.fitting import fit, inverse_document_frequency, most_common, quantile_edges, rows_that_see

NOON = datetime(2031, 3, 5, 12, tzinfo=UTC)
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
NOBODY = Demographics(birth_date=None, sex=Sex.UNKNOWN)
MakeResult = Callable[..., Lab]


def of_groups(*groups: Group) -> FeatureSpec:
    return FeatureSpec(schema_version=1, groups=groups)


def hematocrit(*, n: int = 2, unit: str = "%") -> FeatureSpec:
    """Give a declaration of hematocrit in ``n`` quantile bins, 7 days back."""
    analyte = Analyte(system="http://loinc.org", code="4544-3", name="Hematocrit", unit=unit, bins=QuantileBins(n=n))
    return of_groups(LabGroup(name="labs", analytes=(analyte,), statistics=(Statistic.BINS,), lookback_days=7))


def problems(
    *, grouping: Grouping | None = None, min_patients: int = 1, count: CountKind = CountKind.COUNT
) -> FeatureSpec:
    return of_groups(
        DiagnosisGroup(
            name="problems",
            recorded_in=(DiagnosisList.PROBLEM_LIST,),
            systems=(ICD10CM,),
            codes=LearnedCodes(min_patients=min_patients),
            lookback_days=7,
            grouping=grouping,
            count=count,
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
    delay=st.integers(-3, 10),
    rows=st.lists(st.integers(0, 40), max_size=8).map(sorted),
    lookback=st.integers(1, 12),
)
def test_the_rows_that_see_a_fact_are_those_after_it_was_known_whose_window_holds_it(
    at: int, delay: int, rows: list[int], lookback: int
):
    expected = [i for i, row in enumerate(rows) if row - lookback <= at < row and at + delay < row]

    seeing = rows_that_see(
        NOON + at * DAY, NOON + (at + delay) * DAY, [NOON + row * DAY for row in rows], lookback * DAY
    )

    assert list(seeing) == expected


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

    assert codes_of(
        fit(problems(grouping=PrefixGrouping(length=3), min_patients=2), [(who, [NOON]) for who in people])
    ) == ("I48",)


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


# What a row can see, at the edges of time


@given(
    at=st.integers(0, 2_000_000),
    known_at=st.integers(0, 2_000_000),
    rows=st.lists(st.integers(0, 2_000_000), max_size=5).map(sorted),
)
def test_the_rows_that_see_a_fact_are_told_to_the_microsecond(at: int, known_at: int, rows: list[int]):
    def instant(us: int) -> datetime:
        return NOON + timedelta(microseconds=us)

    expected = [i for i, row in enumerate(rows) if row - 1_000_000 <= at < row and known_at < row]

    assert list(rows_that_see(instant(at), instant(known_at), [instant(row) for row in rows], SECOND)) == expected


def test_rows_at_the_same_instant_all_see_or_none_does():
    rows = [NOON, NOON, NOON + 7 * DAY, NOON + 7 * DAY, NOON + 7 * DAY + SECOND]

    assert rows_that_see(NOON, NOON, rows, 7 * DAY) == range(2, 4)
    assert rows_that_see(NOON - SECOND, NOON - SECOND, rows, 7 * DAY) == range(2)


def test_nobody_sees_without_rows_and_the_range_is_empty_and_not_turned_round():
    assert list(rows_that_see(NOON, NOON, [], DAY)) == []
    late = rows_that_see(NOON - 9 * DAY, NOON, [NOON - DAY, NOON + SECOND], DAY)
    assert (list(late), bool(late)) == ([], False)


def test_a_fact_dated_at_the_end_of_time_is_seen_by_nobody_and_stops_nothing():
    # 31 December 9999 stands for "no end" in many records; `vectorize` takes it as not yet happened.
    end_of_time = datetime(9999, 12, 31, tzinfo=UTC)

    assert codes_of(fit(problems(), [(with_problems(problem("X", end_of_time), problem("I48")), [NOON])])) == ("I48",)


# Weights


def weights_of(spec: FeatureSpec) -> dict[str, float]:
    (group,) = spec.groups
    assert isinstance(group, CodeGroup)
    assert isinstance(group.codes, FixedCodes)
    return dict(zip((code.value for code in group.codes.codes), group.codes.weights, strict=True))


@pytest.mark.parametrize(
    ("rows", "rows_with_code", "weight"),
    [(9, 4, log(2) + 1), (1, 0, log(2) + 1), (0, 0, 1.0), (7, 7, 1.0), (99, 0, log(100) + 1), (3, 1, log(2) + 1)],
)
def test_an_inverse_document_frequency_is_1_for_what_all_rows_have_and_grows_with_rarity(
    rows: int, rows_with_code: int, weight: float
):
    assert inverse_document_frequency(rows=rows, rows_with_code=rows_with_code) == weight


def test_weights_count_the_rows_that_see_a_code_and_not_its_facts_or_patients():
    twice = problem("I48", NOON - DAY)
    again = problem("I48", NOON - 2 * DAY)
    first = (with_problems(twice, again, problem("E11", NOON + DAY)), [NOON, NOON + 2 * DAY, NOON + 30 * DAY])
    second = (with_problems(problem("E11")), [NOON])
    third = (with_problems(), [NOON])

    spec = fit(problems(count=CountKind.TFIDF), [first, second, third])

    # 5 rows: I48 is seen by 2 of them (one patient), E11 by 1 + 1.
    assert weights_of(spec) == {"E11": log(6 / 3) + 1, "I48": log(6 / 3) + 1}
    assert codes_of(spec) == ("E11", "I48")


def test_codes_of_one_group_are_one_document_frequency():
    mapping = MappedCodes(
        name="ccs",
        sha256="",
        codes=(MappedCode(ICD10CM, "I48.0", "af"), MappedCode(ICD10CM, "I48.1", "af")),
    )
    one = with_problems(problem("I48.0"), problem("I48.1"), problem("R99"))
    people = [(one, [NOON, NOON + SECOND]), (with_problems(), [NOON])]

    by_mapping = fit(problems(count=CountKind.TFIDF, grouping=mapping), people)
    by_prefix = fit(problems(count=CountKind.TFIDF, grouping=PrefixGrouping(length=3)), people)

    assert weights_of(by_mapping) == {"af": log(4 / 3) + 1}
    assert weights_of(by_prefix) == {"I48": log(4 / 3) + 1, "R99": log(4 / 3) + 1}
    assert by_mapping.groups[0].codes.codes == (Code("urn:deployr:group:ccs", "af"),)
    assert by_mapping.is_fitted


def test_only_what_counts_tfidf_gets_weights():
    people = [(with_problems(problem("I48")), [NOON])]

    for count in (CountKind.COUNT, CountKind.BINARY):
        assert fit(problems(count=count), people).groups[0].codes.weights == ()
    assert fit(problems(count=CountKind.TFIDF), []).groups[0].codes == FixedCodes(codes=())


def test_a_code_of_too_few_patients_gets_no_weight():
    people = [(with_problems(problem("I48"), problem("E11")), [NOON]), (with_problems(problem("I48")), [NOON])]

    assert weights_of(fit(problems(count=CountKind.TFIDF, min_patients=2), people)) == {"I48": log(3 / 3) + 1}


@given(
    people=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 20)), max_size=6),
            st.lists(st.integers(0, 24), max_size=4),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_weights_and_weighted_counts_are_those_of_scikit_learn(
    people: list[tuple[list[tuple[str, int]], list[int]]],
):
    training = [
        (with_problems(*(problem(code, NOON + day * DAY) for code, day in facts)), [NOON + row * DAY for row in rows])
        for facts, rows in people
    ]
    weighted = fit(problems(count=CountKind.TFIDF), training)
    counted = fit(problems(count=CountKind.COUNT), training)
    rows = [(who, index_time) for who, index_times in training for index_time in index_times]
    assert codes_of(weighted) == codes_of(counted)
    if not codes_of(weighted):
        return
    counts = np.array([vectorize(who, counted, at).dense() for who, at in rows])
    theirs = TfidfTransformer(norm=None, smooth_idf=True).fit(counts)

    assert list(weights_of(weighted).values()) == pytest.approx(theirs.idf_, rel=1e-14)
    ours = np.array([vectorize(who, weighted, at).dense() for who, at in rows])
    np.testing.assert_allclose(ours, theirs.transform(counts).toarray(), rtol=1e-14)


# Every kind of group


def dated(kind: type[Any], code: str, **more: Any) -> Any:
    return kind(fact_id=code, codes=(Code("urn:local", code),), at=NOON - DAY, known_at=NOON - DAY, **more)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (DiagnosisGroup, "D"),
        (MedicationGroup, "M"),
        (ProcedureGroup, "P"),
        (OrderGroup, "O"),
        (VisitGroup, "V"),
    ],
)
def test_each_kind_of_group_learns_from_its_own_facts(kind: type[CodeGroup], code: str):
    who = PatientFacts(
        patient_id="1",
        demographics=NOBODY,
        diagnoses=(dated(Diagnosis, "D", recorded_in=DiagnosisList.ENCOUNTER),),
        medications=(dated(Medication, "M"),),
        procedures=(dated(Procedure, "P"),),
        orders=(dated(Order, "O", encounter_id=None, status=OrderStatus.OPEN),),
        visits=(dated(Visit, "V"),),
    )
    lists = {"recorded_in": tuple(DiagnosisList)} if kind is DiagnosisGroup else {}
    wish = kind(name="g", systems=("urn:local",), codes=LearnedCodes(min_patients=1), lookback_days=7, **lists)

    fitted = fit(of_groups(wish), [(who, [NOON])])

    assert fitted.groups[0].codes.codes == (Code("urn:local", code),)


def test_the_order_of_the_event_itself_is_not_learned():
    event = Order(
        fact_id="1",
        codes=(Code("urn:local", "EVENT"),),
        at=NOON,
        known_at=NOON - SECOND,
        encounter_id=None,
        status=OrderStatus.OPEN,
    )
    who = PatientFacts(patient_id="1", demographics=NOBODY, orders=(event,))
    wish = OrderGroup(name="g", systems=("urn:local",), codes=LearnedCodes(min_patients=1), lookback_days=7)

    assert fit(of_groups(wish), [(who, [NOON])]).groups[0].codes.codes == ()
    assert fit(of_groups(wish), [(who, [NOON, NOON + SECOND])]).groups[0].codes.codes == event.codes


def test_bins_of_vitals_are_learned_from_vitals(result: MakeResult):
    (labs,) = hematocrit().groups
    wish = VitalGroup(name="v", analytes=labs.analytes, statistics=(Statistic.BINS,), lookback_days=7)
    pulse = Vital(fact_id="1", codes=(labs.analytes[0].key,), at=NOON - DAY, known_at=NOON - DAY, value=40.0, unit="%")
    who = PatientFacts(patient_id="1", demographics=NOBODY, labs=(result("1", NOON - DAY, 30.0),), vitals=(pulse,))

    assert fit(of_groups(wish), [(who, [NOON])]).groups[0].analytes[0].bins == EdgeBins(edges=(40.0,))


# Other codes of the same test


def under_two_codes(*, n: int) -> FeatureSpec:
    (labs,) = hematocrit(n=n).groups
    analyte = Analyte(
        system="urn:local",
        code="HCT",
        name="Hematocrit",
        unit="%",
        also=(Code("http://loinc.org", "4544-3"),),
        bins=QuantileBins(n=n),
    )
    return of_groups(LabGroup(name="labs", analytes=(analyte,), statistics=labs.statistics, lookback_days=7))


def test_values_under_any_code_of_a_test_are_learned_each_by_its_own_factor(result: MakeResult):
    local = (Code("urn:local", "HCT"),)
    labs = [
        result("1", NOON - DAY, 30.0, codes=local),
        result("2", NOON - DAY, 0.4, unit="1"),
        result("3", NOON - DAY, 0.5, unit="1", codes=local),
    ]

    # 0.5 under the local code has no reviewed conversion; of 30 and 40 the thirds are 30 and 40.
    assert edges_of(fit(under_two_codes(n=3), [(with_labs(*labs), [NOON])])) == (30.0, 40.0)


def test_a_result_with_two_codes_of_a_test_is_learned_once_and_by_the_first_declared(result: MakeResult):
    both = (Code("http://loinc.org", "4544-3"), Code("urn:local", "HCT"))
    twice = [result("1", NOON - DAY, 10.0, codes=both), *(result(str(v), NOON - DAY, v) for v in (20.0, 30.0))]
    fraction = result("2", NOON - DAY, 0.4, unit="1", codes=both)

    # Of 10, 20 and 30 the median is 20; with 10 counted twice it would be 10.
    assert edges_of(fit(under_two_codes(n=2), [(with_labs(*twice), [NOON])])) == (20.0,)
    # The local code comes first and converts nothing.
    assert edges_of(fit(under_two_codes(n=2), [(with_labs(fraction), [NOON])])) == ()
