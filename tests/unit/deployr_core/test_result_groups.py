"""Other codes of the same test, the statistics over time, and measurements at the bedside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployr_core.codes import LOINC, Code
from deployr_core.declared import Analyte, Statistic
from deployr_core.facts import Lab, PatientFacts
from deployr_core.features import LabGroup
from deployr_core.vectorize import seconds_between, vectorize

if TYPE_CHECKING:
    from tests.unit.deployr_core.conftest import Make

AS_OF = datetime.fromisoformat("2015-01-06T23:55:00+05:45").astimezone(UTC)
BARELY, SECOND, HOUR, DAY = (
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(hours=1),
    timedelta(days=1),
)
HCT, OTHER_HCT, LOCAL_HCT = Code(LOINC, "4544-3"), Code(LOINC, "20570-8"), Code("urn:local", "HCT")


def labs(make: Make, *results: tuple[float, datetime] | tuple[float, datetime, datetime]) -> tuple[Lab, ...]:
    """Give results of (value, specimen, release); released at once unless told."""
    return tuple(make.lab(value, at=at, known_at=known[0] if known else at) for value, at, *known in results)


def statistic(make: Make, name: str, results: Sequence[Lab], *, as_of: datetime = AS_OF) -> float:
    """Give one statistic of hematocrit, 0.0 where the vector has none; the same in whatever order the results come."""
    row = make.row(make.patient(labs=tuple(results)), make.lab_group(name), as_of=as_of)
    return row.get(f"labs/4544-3/{name}", 0.0)


# The first and the last


def test_first_is_the_earliest_specimen_in_the_window_and_not_the_earliest_release(make: Make) -> None:
    results = labs(
        make,
        (20.0, AS_OF - 30 * DAY - BARELY, AS_OF - 20 * DAY),
        (30.0, AS_OF - 30 * DAY, AS_OF - BARELY),
        (40.0, AS_OF - 3 * DAY, AS_OF - 3 * DAY),
    )
    assert statistic(make, "first", results) == 30.0


def test_first_of_one_specimen_is_what_was_known_earliest_and_then_the_smallest(make: Make) -> None:
    early, late = AS_OF - 2 * HOUR, AS_OF - HOUR
    corrected = labs(make, (40.0, AS_OF - DAY, early), (30.0, AS_OF - DAY, late))
    undecided = (*corrected, *labs(make, (41.0, AS_OF - DAY, early)))
    for results in (corrected, undecided):
        for order in permutations(results):
            assert statistic(make, "first", order) == 40.0


def test_first_and_last_of_a_single_result_are_that_result(make: Make) -> None:
    results = labs(make, (36.6, AS_OF - DAY))
    assert statistic(make, "first", results) == statistic(make, "last", results) == 36.6


def test_first_ignores_what_is_no_number_or_not_known_yet(make: Make) -> None:
    results = (
        make.lab(None, at=AS_OF - 5 * DAY),
        make.lab(36.6, unit="furlong", at=AS_OF - 4 * DAY),
        make.lab(50.0, at=AS_OF - 3 * DAY, known_at=AS_OF),
        make.lab(36.6, at=AS_OF - 2 * DAY),
        make.lab(40.0, at=AS_OF - DAY),
    )
    assert statistic(make, "first", results) == 36.6


def test_first_and_last_tell_instants_apart_that_share_a_second(make: Make) -> None:
    results = labs(make, (30.0, AS_OF - DAY + BARELY), (40.0, AS_OF - DAY))
    assert (statistic(make, "first", results), statistic(make, "last", results)) == (40.0, 30.0)


# Slope


@pytest.mark.parametrize(
    ("first", "last", "apart", "slope"),
    [
        pytest.param(30.0, 36.0, 2 * DAY, 3.0, id="up by 6 in 2 days"),
        pytest.param(36.0, 30.0, 2 * DAY, -3.0, id="down"),
        pytest.param(36.0, 36.0, 2 * DAY, 0.0, id="level"),
        pytest.param(30.0, 31.0, 6 * HOUR, 4.0, id="up by 1 in a quarter of a day"),
        pytest.param(30.0, 31.0, SECOND, 86_400.0, id="one second"),
        pytest.param(30.0, 31.0, timedelta(0), 0.0, id="the same instant"),
    ],
)
def test_slope_is_last_minus_first_per_day(
    first: float, last: float, apart: timedelta, slope: float, make: Make
) -> None:
    start = AS_OF - 5 * DAY
    assert statistic(make, "slope", labs(make, (first, start), (last, start + apart))) == slope


def test_slope_looks_at_nothing_between_the_first_and_the_last(make: Make) -> None:
    results = labs(make, (30.0, AS_OF - 3 * DAY), (90.0, AS_OF - 2 * DAY), (32.0, AS_OF - DAY))
    for order in permutations(results):
        assert statistic(make, "slope", order) == (32.0 - 30.0) / 2


def test_slope_of_a_single_result_is_0(make: Make) -> None:
    assert statistic(make, "slope", labs(make, (36.6, AS_OF - DAY))) == 0.0


def test_slope_is_between_the_first_and_the_last_as_their_ties_are_broken(make: Make) -> None:
    # The first specimen: 40 known first, then corrected. The last: 50, then corrected to 44.
    start, end = AS_OF - 4 * DAY, AS_OF - 2 * DAY
    results = labs(
        make,
        (40.0, start, start + HOUR),
        (10.0, start, start + 2 * HOUR),
        (50.0, end, end + HOUR),
        (44.0, end, end + 2 * HOUR),
    )
    for order in permutations(results):
        assert statistic(make, "slope", order) == (44.0 - 40.0) / 2


@pytest.mark.parametrize(
    ("start_us", "end_us", "slope"),
    [
        pytest.param(0, 999_999, 0.0, id="almost a second, within one"),
        pytest.param(999_999, 1_000_000, 86_400.0, id="a microsecond, across the turn of one"),
        pytest.param(500_000, 2_499_999, 43_200.0, id="almost 2 s, but 2 turns"),
        pytest.param(0, 1_999_999, 86_400.0, id="almost 2 s, but 1 turn"),
    ],
)
def test_times_between_are_counted_from_second_to_second_of_the_clock(
    start_us: int, end_us: int, slope: float, make: Make
) -> None:
    second = AS_OF - DAY
    results = labs(make, (30.0, second + start_us * BARELY), (31.0, second + end_us * BARELY))
    assert statistic(make, "slope", results) == slope


@pytest.mark.parametrize(
    ("earlier", "later", "seconds"),
    [
        ("2015-01-06T12:00:00.999999Z", "2015-01-06T12:00:01Z", 1),
        ("2015-01-06T12:00:00Z", "2015-01-06T12:00:00.999999Z", 0),
        ("1969-12-31T23:59:59.500000Z", "1970-01-01T00:00:00.200000Z", 1),
        ("1969-12-31T23:59:58.900000Z", "1969-12-31T23:59:59.100000Z", 1),
        ("1969-12-31T23:59:59.100000Z", "1969-12-31T23:59:59.900000Z", 0),
        ("2015-03-29T00:30:00+00:00", "2015-03-29T03:30:00+02:00", 3600),
        ("1900-01-01T00:00:00Z", "2000-01-01T00:00:00Z", 36_524 * 86_400),
    ],
)
def test_both_instants_are_cut_to_their_second(earlier: str, later: str, seconds: int) -> None:
    assert seconds_between(datetime.fromisoformat(earlier), datetime.fromisoformat(later)) == seconds


# Hours since


@pytest.mark.parametrize(
    ("ago", "hours"),
    [
        pytest.param(90 * timedelta(minutes=1), 1.5, id="an hour and a half"),
        pytest.param(30 * DAY, 720.0, id="the start of the window"),
        pytest.param(SECOND, 1 / 3600, id="a second"),
        pytest.param(BARELY, 1 / 3600, id="a microsecond before the full second of as_of"),
        pytest.param(SECOND + BARELY, 2 / 3600, id="just over a second"),
    ],
)
def test_hours_since_are_from_the_last_specimen(ago: timedelta, hours: float, make: Make) -> None:
    results = labs(make, (36.6, AS_OF - ago), (40.0, AS_OF - 30 * DAY))
    assert statistic(make, "hours_since", results) == hours


def test_hours_since_within_the_second_of_as_of_are_0(make: Make) -> None:
    as_of = AS_OF + 900_000 * BARELY
    assert statistic(make, "hours_since", labs(make, (36.6, AS_OF)), as_of=as_of) == 0.0
    assert statistic(make, "count", labs(make, (36.6, AS_OF)), as_of=as_of) == 1.0


def test_hours_since_are_from_the_specimen_and_not_from_its_release(make: Make) -> None:
    results = labs(make, (36.6, AS_OF - 6 * HOUR, AS_OF - HOUR), (40.0, AS_OF - 7 * HOUR, AS_OF - BARELY))
    assert statistic(make, "hours_since", results) == 6.0


def test_hours_since_pass_over_a_specimen_whose_result_is_not_known_or_no_number(make: Make) -> None:
    results = (*labs(make, (36.6, AS_OF - 6 * HOUR), (40.0, AS_OF - HOUR, AS_OF)), make.lab(None, at=AS_OF - 2 * HOUR))
    assert statistic(make, "hours_since", results) == 6.0


@pytest.mark.parametrize("name", ["first", "slope", "hours_since"])
def test_without_a_result_there_is_no_time_between(name: str, make: Make) -> None:
    assert make.row(make.patient(), make.lab_group(name, "missing")) == {"labs/4544-3/missing": 1.0}


def when() -> st.SearchStrategy[datetime]:
    """Give instants that often tie, to the microsecond or to the second, in and around the window."""
    return st.builds(
        lambda days, us: AS_OF - days * DAY + us * BARELY,
        st.sampled_from([0, 1, 2, 30]),
        st.sampled_from([-1_000_000, -1, 0, 1, 999_999]),
    )


@given(data=st.data())
def test_statistics_over_time_are_the_same_bits_in_any_order_and_as_defined(make: Make, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.tuples(st.sampled_from([30.0, 0.1, 0.3, 44.5]), when(), when()), max_size=7))
    spec = make.spec(make.lab_group("first", "last", "slope", "hours_since"))
    row = vectorize(make.patient(labs=labs(make, *drawn)), spec, AS_OF)
    other = vectorize(make.patient(labs=labs(make, *data.draw(st.permutations(drawn)))), spec, AS_OF)
    assert other == row

    seen = [each for each in drawn if AS_OF - 30 * DAY <= each[1] < AS_OF and each[2] < AS_OF]
    expected = [0.0] * 4
    if seen:
        by_time = sorted(seen, key=lambda each: (each[1], each[2], each[0]))
        (first, start, _), (last, end, _) = by_time[0], by_time[-1]
        start, end = start.replace(microsecond=0), end.replace(microsecond=0)
        days = (end - start).total_seconds() / 86_400
        since = (AS_OF.replace(microsecond=0) - end).total_seconds() / 3600
        expected = [first, last, (last - first) / days if days else 0.0, since]
    assert row.dense().tolist() == expected


# Other codes of the same test


def hematocrit(make: Make, *also: Code, code: Code = HCT, unit: str = "%") -> Analyte:
    return Analyte(system=code.system, code=code.value, name="", unit=unit, also=also, bins=make.edges(35, 47))


def test_results_under_any_code_of_a_test_are_its_results(make: Make) -> None:
    analyte = hematocrit(make, OTHER_HCT, LOCAL_HCT)
    results = tuple(
        make.lab(value, codes=(code,), at=AS_OF - days * DAY)
        for value, code, days in ((30.0, LOCAL_HCT, 1), (40.0, OTHER_HCT, 2), (50.0, HCT, 3))
    )
    assert make.row(make.patient(labs=results), make.lab_group("last", "first", "count", analytes=(analyte,))) == {
        "labs/4544-3/last": 30.0,
        "labs/4544-3/first": 50.0,
        "labs/4544-3/count": 3.0,
    }


@pytest.mark.parametrize("order", tuple(permutations((HCT, OTHER_HCT, LOCAL_HCT))))
def test_a_fact_with_several_codes_of_one_test_counts_once(order: tuple[Code, ...], make: Make) -> None:
    group = make.lab_group("count", "bins", "mean", analytes=(hematocrit(make, OTHER_HCT, LOCAL_HCT),))
    facts = make.patient(labs=(make.lab(36.6, codes=order),))
    assert make.row(facts, group) == {
        "labs/4544-3/count": 1.0,
        "labs/4544-3/bins[35,47)": 1.0,
        "labs/4544-3/mean": 36.6,
    }
    assert coverage(facts, make, group) == {
        "labs.results": 1,
        "labs.not_mapped": 0,
        "labs.no_number": 0,
        "labs.unit_not_convertible": 0,
        "labs.implausible": 0,
    }


@pytest.mark.parametrize("carried", [(HCT, LOCAL_HCT), (LOCAL_HCT, HCT)], ids=["as declared", "the other way round"])
@pytest.mark.parametrize("first_is_convertible", [True, False])
def test_the_first_declared_code_that_a_fact_carries_decides_the_conversion(
    carried: tuple[Code, ...], *, first_is_convertible: bool, make: Make
) -> None:
    # Only the LOINC code has a reviewed conversion from L/L to %.
    first, second = (HCT, LOCAL_HCT) if first_is_convertible else (LOCAL_HCT, HCT)
    group = make.lab_group("last", "missing", analytes=(hematocrit(make, second, code=first),))
    facts = make.patient(labs=(make.lab(0.375, unit="L/L", codes=carried),))
    last, missing = f"labs/{first.value}/last", f"labs/{first.value}/missing"
    assert make.row(facts, group) == ({last: 37.5} if first_is_convertible else {missing: 1.0})
    assert coverage(facts, make, group)["labs.unit_not_convertible"] == (0 if first_is_convertible else 1)


def test_each_code_is_converted_by_its_own_factors(make: Make) -> None:
    group = make.lab_group("count", "mean", analytes=(hematocrit(make, OTHER_HCT, LOCAL_HCT),))
    facts = make.patient(labs=tuple(make.lab(0.375, unit="L/L", codes=(c,)) for c in (HCT, OTHER_HCT, LOCAL_HCT)))
    assert make.row(facts, group) == {"labs/4544-3/count": 2.0, "labs/4544-3/mean": 37.5}
    assert coverage(facts, make, group)["labs.unit_not_convertible"] == 1


def test_a_fact_that_carries_codes_of_two_tests_counts_for_both(make: Make) -> None:
    group = make.lab_group("count", analytes=(hematocrit(make, LOCAL_HCT), hematocrit(make, code=OTHER_HCT)))
    facts = make.patient(labs=(make.lab(codes=(LOCAL_HCT, OTHER_HCT)),))
    assert make.row(facts, group) == {"labs/4544-3/count": 1.0, "labs/20570-8/count": 1.0}
    assert coverage(facts, make, group)["labs.results"] == 1


@pytest.mark.parametrize(
    "analytes",
    [
        pytest.param(((HCT, (LOCAL_HCT,)), (OTHER_HCT, (LOCAL_HCT,))), id="another code of both"),
        pytest.param(((HCT, (OTHER_HCT,)), (OTHER_HCT, ())), id="another code of one that names the other"),
        pytest.param(((HCT, (HCT,)),), id="another code that is the main one"),
    ],
)
def test_a_code_belongs_to_one_test(analytes: tuple[tuple[Code, tuple[Code, ...]], ...], make: Make) -> None:
    with pytest.raises(ValueError, match="once"):
        make.lab_group("count", analytes=tuple(hematocrit(make, *also, code=code) for code, also in analytes))


# Vitals


def test_labs_and_vitals_are_not_mixed_up(make: Make) -> None:
    facts = make.patient(labs=(make.lab(30.0),), vitals=(make.vital(40.0), make.vital(50.0)))
    assert make.row(facts, make.lab_group("last", "count"), make.vital_group("max", "count")) == {
        "labs/4544-3/last": 30.0,
        "labs/4544-3/count": 1.0,
        "vitals/4544-3/max": 50.0,
        "vitals/4544-3/count": 2.0,
    }


def test_vitals_have_every_statistic_that_labs_have(make: Make) -> None:
    dated = ((30.0, AS_OF - 3 * DAY), (45.0, AS_OF - 2 * DAY), (36.6, AS_OF - DAY))
    facts = make.patient(vitals=tuple(make.vital(value, at=at) for value, at in dated))
    names = [name.value for name in Statistic]
    as_labs = make.row(make.patient(labs=labs(make, *dated)), make.lab_group(*names))
    as_vitals = make.row(facts, make.vital_group(*names))
    assert as_vitals == {name.replace("labs/", "vitals/"): value for name, value in as_labs.items()}
    assert as_vitals["vitals/4544-3/slope"] == pytest.approx((36.6 - 30.0) / 2, rel=2**-52)
    assert as_vitals["vitals/4544-3/hours_since"] == 24.0


def test_vitals_are_converted_and_those_that_cannot_be_are_counted(make: Make) -> None:
    vitals = (
        make.vital(0.375, unit="L/L"),
        make.vital(1.0, unit="furlong"),
        make.vital(None),
        make.vital(codes=(LOCAL_HCT,)),
        make.vital(known_at=AS_OF),
    )
    facts, group = make.patient(vitals=vitals), make.vital_group("last", "count")
    assert make.row(facts, group) == {"vitals/4544-3/last": 37.5, "vitals/4544-3/count": 1.0}
    assert coverage(facts, make, group) == {
        "vitals.results": 4,
        "vitals.not_mapped": 1,
        "vitals.no_number": 1,
        "vitals.unit_not_convertible": 1,
        "vitals.implausible": 0,
    }


def test_a_result_without_number_or_known_unit_is_counted_as_without_number(make: Make) -> None:
    facts = make.patient(labs=(make.lab(None, unit="furlong"),))
    counted = coverage(facts, make, make.lab_group("last"))
    assert (counted["labs.no_number"], counted["labs.unit_not_convertible"]) == (1, 0)


def coverage(facts: PatientFacts, make: Make, group: LabGroup) -> dict[str, int]:
    return dict(vectorize(facts, make.spec(group), AS_OF).coverage)
