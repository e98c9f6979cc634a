"""Rows of an OMOP extract to facts of the core: what each column means, decided without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from types import MappingProxyType
from typing import NamedTuple

from deployr_core.codes import OMB_RACE_ETHNICITY, SYSTEM_OF_OMOP_VOCABULARY, Code
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Lab,
    Medication,
    Sex,
)
from deployr_core.instants import known_instant

PROBLEM_LIST_TYPE = 32840
"""OMOP type concept "EHR problem list"; a condition of any other type was recorded for an encounter."""

SEX_OF_CONCEPT = MappingProxyType({8507: Sex.MALE, 8532: Sex.FEMALE, 8521: Sex.OTHER})
RACE_OF_CONCEPT = MappingProxyType({8527: "2106-3", 8516: "2054-5", 8515: "2028-9", 8657: "1002-5", 8557: "2076-8"})
ETHNICITY_OF_CONCEPT = MappingProxyType({38003563: "2135-2", 38003564: "2186-5"})
"""OMOP standard concepts to OMB category codes. Source: OHDSI Athena, vocabularies Gender, Race and Ethnicity."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class CodeColumns(NamedTuple):
    """What one row says about its code. ``row_vocabulary`` is the OMOP vocabulary that the row itself names."""

    source_vocabulary: str | None
    source_code: str | None
    standard_vocabulary: str | None
    standard_code: str | None
    source_value: str | None
    row_vocabulary: str | None


class TimeColumns(NamedTuple):
    """When a row happened: microseconds since 1970 where a time is known, and the calendar day."""

    micros: int | None
    day: date | None


class MeasurementRow(NamedTuple):
    """One row of ``measurement`` with what its order and its unit's concept add."""

    person_id: int
    measurement_id: int
    code: CodeColumns
    time: TimeColumns
    value: float | None
    range_low: float | None
    range_high: float | None
    unit_concept_code: str | None
    unit_source_value: str | None
    order_id: int | None
    released: TimeColumns


class ConditionRow(NamedTuple):
    """One row of ``condition_occurrence``."""

    person_id: int
    condition_id: int
    code: CodeColumns
    time: TimeColumns
    type_concept_id: int | None


class DrugRow(NamedTuple):
    """One row of ``drug_exposure``."""

    person_id: int
    drug_exposure_id: int
    code: CodeColumns
    time: TimeColumns


class PersonRow(NamedTuple):
    """One row of ``person``."""

    person_id: int
    gender_concept_id: int | None
    year_of_birth: int | None
    month_of_birth: int | None
    day_of_birth: int | None
    race_concept_id: int | None
    ethnicity_concept_id: int | None


@dataclass(frozen=True, kw_only=True)
class WallClock:
    """How one time column is read: in which zone, unless it holds instants, and whether it holds dates alone."""

    zone: tzinfo
    is_aware: bool = False
    dates_only: bool = False

    def span(self, time: TimeColumns) -> tuple[datetime, datetime] | None:
        """Give the first instant that the time may stand for and the first after it; equal ends for an instant.

        A time that is not known leaves the whole day, from midnight to midnight in the zone. None if there is
        neither time nor day.
        """
        micros, day = time
        if micros is None or self.dates_only:
            if day is None and micros is not None:
                day = (_EPOCH + timedelta(microseconds=micros)).date()
            if day is None:
                return None
            start = datetime(day.year, day.month, day.day, tzinfo=self.zone)
            return start.astimezone(UTC), (start + timedelta(days=1)).astimezone(UTC)
        moment = _EPOCH + timedelta(microseconds=micros)
        if not self.is_aware:
            moment = moment.replace(tzinfo=self.zone).astimezone(UTC)
        return moment, moment


def codes_of(columns: CodeColumns, *, table: str, local_system: str | None) -> tuple[Code, ...]:
    """Give every code of a row: its source concept's, its standard concept's, or else its source value.

    The source value's system is the one that the row names, else the mapping's for that table, else
    ``urn:omop:source-value:<table>``. A row without any of them has no code.
    """
    found = [
        Code(system_of(vocabulary), code)
        for vocabulary, code in (
            (columns.source_vocabulary, columns.source_code),
            (columns.standard_vocabulary, columns.standard_code),
        )
        if vocabulary and code
    ]
    if not found and columns.source_value:
        named = SYSTEM_OF_OMOP_VOCABULARY.get(columns.row_vocabulary or "")
        found = [Code(named or local_system or f"urn:omop:source-value:{table}", columns.source_value)]
    return tuple(dict.fromkeys(found))


def system_of(vocabulary_id: str) -> str:
    """Give the coding system's URI of an OMOP vocabulary; one of ours where FHIR has none that we know."""
    return SYSTEM_OF_OMOP_VOCABULARY.get(vocabulary_id, f"urn:omop:vocabulary:{vocabulary_id}")


def lab_of(
    row: MeasurementRow, *, taken: WallClock, released: WallClock, delay: timedelta, local_system: str | None
) -> Lab | None:
    """Give a result, or None if nobody knows when it was; ``measurement_datetime`` is when the specimen was taken.

    It was known when its order's result was released. A result without an order, or whose order has no release
    time, is NOT known when the specimen was taken: it is taken to be known ``delay`` later.
    """
    span = taken.span(row.time)
    if span is None:
        return None
    release = released.span(row.released)
    return Lab(
        fact_id=str(row.measurement_id),
        codes=codes_of(row.code, table="measurement", local_system=local_system),
        at=span[0],
        known_at=known_instant(span) + delay if release is None else known_instant(release),
        value=row.value,
        unit=row.unit_concept_code or row.unit_source_value or "",
        reference_low=row.range_low,
        reference_high=row.range_high,
        order_id=None if row.order_id is None else str(row.order_id),
    )


def diagnosis_of(row: ConditionRow, *, recorded: WallClock, local_system: str | None) -> Diagnosis | None:
    """Give a diagnosis, or None if nobody knows when it was recorded."""
    span = recorded.span(row.time)
    if span is None:
        return None
    on_problem_list = row.type_concept_id == PROBLEM_LIST_TYPE
    return Diagnosis(
        fact_id=str(row.condition_id),
        codes=codes_of(row.code, table="condition_occurrence", local_system=local_system),
        at=span[0],
        known_at=known_instant(span),
        recorded_in=DiagnosisList.PROBLEM_LIST if on_problem_list else DiagnosisList.ENCOUNTER,
    )


def medication_of(row: DrugRow, *, ordered: WallClock, local_system: str | None) -> Medication | None:
    """Give a medication order, or None if nobody knows when it was written."""
    span = ordered.span(row.time)
    if span is None:
        return None
    return Medication(
        fact_id=str(row.drug_exposure_id),
        codes=codes_of(row.code, table="drug_exposure", local_system=local_system),
        at=span[0],
        known_at=known_instant(span),
    )


def demographics_of(row: PersonRow) -> Demographics:
    """Give who the patient is; a concept that is not a known category means unknown.

    Raises:
        ValueError: the birth date does not exist.
    """
    birth_date = None
    if row.year_of_birth is not None:
        day = None if row.month_of_birth is None else row.day_of_birth
        birth_date = BirthDate(year=row.year_of_birth, month=row.month_of_birth, day=day)
    race = RACE_OF_CONCEPT.get(row.race_concept_id or 0)
    ethnicity = ETHNICITY_OF_CONCEPT.get(row.ethnicity_concept_id or 0)
    return Demographics(
        birth_date=birth_date,
        sex=SEX_OF_CONCEPT.get(row.gender_concept_id or 0, Sex.UNKNOWN),
        races=() if race is None else (Code(OMB_RACE_ETHNICITY, race),),
        ethnicities=() if ethnicity is None else (Code(OMB_RACE_ETHNICITY, ethnicity),),
    )
