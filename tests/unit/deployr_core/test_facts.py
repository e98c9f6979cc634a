from __future__ import annotations

import traceback
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

from deployr_core.codes import Code
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Encounter,
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

NOON = datetime(2015, 1, 6, 12, tzinfo=UTC)
FACT = {"fact_id": "CANARY-id", "codes": (Code("CANARY-system", "CANARY-code"),), "at": NOON, "known_at": NOON}
BORN = BirthDate(year=1947, month=7, day=17)
WHO = Demographics(birth_date=BORN, sex=Sex.FEMALE, races=(Code("CANARY-system", "CANARY-race"),))
LAB = Lab(**FACT, value=47.11, unit="CANARY-unit", order_id="CANARY-order")
PERSONAL = [
    LAB,
    Diagnosis(**FACT, recorded_in=DiagnosisList.PROBLEM_LIST),
    Medication(**FACT),
    Vital(**FACT, value=47.11, unit="CANARY-unit"),
    Procedure(**FACT),
    Visit(**FACT),
    Order(**FACT, encounter_id="CANARY-encounter", status=OrderStatus.OPEN),
    Encounter(encounter_id="CANARY-id", start=NOON, end=NOON, contact_serial_number="CANARY-csn"),
    BORN,
    WHO,
    PatientFacts(patient_id="CANARY-id", demographics=WHO, labs=(LAB,)),
]
CANARIES = ("CANARY", "47.11", "1947", "female", "2015", "problem-list")


@dataclass(frozen=True)
class HeldByDataclass:
    held: Any


class HeldByStruct(msgspec.Struct):
    held: Any


def named(value: object) -> str:
    return type(value).__name__


def shows_a_canary(text: str) -> bool:
    return any(canary in text for canary in CANARIES)


@pytest.mark.parametrize("private", PERSONAL, ids=named)
@pytest.mark.parametrize(
    "written",
    [
        pytest.param(repr, id="repr"),
        pytest.param(str, id="str"),
        pytest.param(lambda private: f"{private}", id="f-string"),
        pytest.param(lambda private: f"{private!r:>40}", id="f-string with repr"),
        pytest.param(lambda private: "%s %r" % (private, private), id="logging's percent"),  # noqa: UP031
        pytest.param(lambda private: repr([(private,), {"x": private}]), id="containers"),
        pytest.param(lambda private: repr(HeldByDataclass(private)), id="dataclass"),
        pytest.param(lambda private: repr(HeldByStruct(private)), id="struct"),
    ],
)
def test_no_identifier_or_value_is_written(private: object, written: Any) -> None:
    assert not shows_a_canary(written(private))


@pytest.mark.parametrize("private", PERSONAL, ids=named)
def test_no_identifier_or_value_is_written_by_an_exception(private: object) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        raise ValueError("expected something else", private, {"in": private})
    with_locals = traceback.TracebackException.from_exception(raised.value, capture_locals=True)
    assert not shows_a_canary("".join(with_locals.format()))
    assert not shows_a_canary(repr(raised.value))


@pytest.mark.parametrize("private", PERSONAL, ids=named)
def test_no_identifier_or_value_is_written_by_rich(private: object) -> None:
    assert not shows_a_canary(pretty_repr(private))


def test_a_repr_still_says_what_it_is() -> None:
    assert [repr(private) for private in PERSONAL] == [f"<{named(private)}>" for private in PERSONAL]


@pytest.mark.parametrize("field", ["at", "known_at"])
@pytest.mark.parametrize(
    "instant",
    [
        pytest.param(NOON.replace(tzinfo=None), id="naive"),
        pytest.param(datetime(2015, 1, 6, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))), id="another zone"),
    ],
)
def test_a_fact_that_is_not_dated_in_utc_is_refused(field: str, instant: datetime) -> None:
    with pytest.raises(ValueError, match="expected Medication to be dated in UTC"):
        Medication(**{**FACT, field: instant})


def test_a_fact_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        LAB.value = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [
        pytest.param((1980, 7, 17), "2015-07-16", 34, id="the day before the birthday"),
        pytest.param((1980, 7, 17), "2015-07-17", 35, id="the birthday"),
        pytest.param((1980, 12, 31), "2015-01-01", 34, id="almost 35, by a day of the year"),
        pytest.param((2015, 1, 6), "2015-01-06", 0, id="newborn"),
        pytest.param((2015, 1, 7), "2015-01-06", -1, id="born tomorrow"),
        pytest.param((1980, 2, 29), "2015-02-28", 34, id="29 February, common year, the day before March"),
        pytest.param((1980, 2, 29), "2015-03-01", 35, id="29 February, common year, 1 March"),
        pytest.param((1980, 2, 29), "2016-02-28", 35, id="29 February, leap year, the day before"),
        pytest.param((1980, 2, 29), "2016-02-29", 36, id="29 February, leap year, the day"),
        pytest.param((1980,), "2015-01-01", 35, id="year only: counts as 1 January"),
        pytest.param((1980,), "2014-12-31", 34, id="year only: the day before"),
        pytest.param((1980, 7), "2015-06-30", 34, id="no day: the day before the month"),
        pytest.param((1980, 7), "2015-07-01", 35, id="no day: counts as the first"),
    ],
)
def test_age_is_in_completed_years(born: tuple[int, ...], day: str, age: int) -> None:
    birth_date = BirthDate(**dict(zip(("year", "month", "day"), born, strict=False)))
    assert birth_date.age_in_years(datetime.fromisoformat(f"{day}T00:00:00Z")) == age
    assert birth_date.age_in_years(datetime.fromisoformat(f"{day}T23:59:59.999999Z")) == age


def test_the_birthday_begins_when_the_utc_day_does() -> None:
    in_kathmandu = datetime.fromisoformat("2015-07-17T05:44:59+05:45")
    assert BORN.age_in_years(in_kathmandu) == 2015 - 1947 - 1
    assert BORN.age_in_years(in_kathmandu + timedelta(seconds=1)) == 2015 - 1947


def test_an_age_as_of_a_naive_datetime_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        BORN.age_in_years(NOON.replace(tzinfo=None))


@pytest.mark.parametrize(
    "parts",
    [
        {"year": 1980, "month": 2, "day": 30},
        {"year": 1981, "month": 2, "day": 29},
        {"year": 1980, "month": 13},
        {"year": 1980, "month": 0, "day": 32},
        {"year": 0},
        {"year": 10_000},
    ],
    ids=str,
)
def test_a_birth_date_that_is_on_no_calendar_is_refused(parts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"month|day|year"):
        BirthDate(**parts)


@pytest.mark.parametrize("parts", [{"year": 1980, "month": 0}, {"year": 1980, "month": 7, "day": 0}], ids=str)
def test_month_0_and_day_0_are_refused(parts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"month|day"):
        BirthDate(**parts)


def test_a_day_of_birth_without_its_month_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a month with the day of birth"):
        BirthDate(year=1980, day=17)


def test_a_refused_birth_date_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="year") as refused:
        BirthDate(year=19470)
    assert "19470" not in str(refused.value)


def test_nothing_found_is_an_empty_tuple() -> None:
    nothing = PatientFacts(patient_id="p", demographics=Demographics(birth_date=None, sex=Sex.UNKNOWN))
    assert (nothing.labs, nothing.diagnoses, nothing.medications) == ((), (), ())
    assert (nothing.vitals, nothing.procedures, nothing.orders, nothing.visits) == ((), (), (), ())
    assert (nothing.demographics.races, nothing.demographics.ethnicities) == ((), ())
