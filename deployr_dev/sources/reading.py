"""The facts of the core, read from the fact tables person by person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from deployr_core.codes import Code
from deployr_core.facts import (
    BirthDate,
    Demographics,
    Diagnosis,
    DiagnosisList,
    Lab,
    Medication,
    Order,
    OrderStatus,
    Procedure,
    Sex,
    Visit,
    Vital,
)
from deployr_dev.sources.tables import ExtractInvalid

Row = tuple[Any, ...]
_T = TypeVar("_T")
_HEAD = ("person_id", "fact_id", "happened_at", "known_at")


class Reader(NamedTuple):
    """How one fact table is read: the columns beside those that all facts have, and what makes a fact of them."""

    columns: tuple[str, ...]
    make: Callable[[dict[str, Any], Row], Any]


READERS: dict[str, Reader] = {
    "labs": Reader(
        ("value", "unit", "reference_low", "reference_high", "abnormal", "order_id"),
        lambda fact, rest: Lab(
            **fact,
            value=rest[0],
            unit=rest[1] or "",
            reference_low=rest[2],
            reference_high=rest[3],
            abnormal=rest[4],
            order_id=rest[5],
        ),
    ),
    "vitals": Reader(("value", "unit"), lambda fact, rest: Vital(**fact, value=rest[0], unit=rest[1] or "")),
    "diagnoses": Reader(("recorded_in",), lambda fact, rest: Diagnosis(**fact, recorded_in=DiagnosisList(rest[0]))),
    "medications": Reader((), lambda fact, _: Medication(**fact)),
    "procedures": Reader((), lambda fact, _: Procedure(**fact)),
    "orders": Reader(
        ("visit_id", "cancelled", "resulted_at"),
        lambda fact, rest: Order(**fact, encounter_id=rest[0], status=_status(cancelled=rest[1], resulted=rest[2])),
    ),
    "visits": Reader((), lambda fact, _: Visit(**fact)),
}
"""The fact tables that become `deployr_core.facts`, each by its name in `deployr_core.facts.PatientFacts`."""

PERSONS = "SELECT person_id, birth_year, birth_month, birth_day, sex FROM persons"
CATEGORIES = "SELECT person_id, kind, system, code FROM person_categories"


def facts_query(table: str, *, where: str = "") -> str:
    """Give the query whose rows `facts_of` reads, with the condition on the table's columns, in no order."""
    columns = ", ".join([*_HEAD, "system", "code", *READERS[table].columns])
    return f"SELECT {columns} FROM {table} {where}"


def facts_of(table: str, rows: Iterable[Row]) -> Iterator[tuple[int, Any]]:
    """Give each fact with its person; rows come by person and fact, and those of one fact differ in the code alone.

    Raises:
        ExtractInvalid: they differ in more than that, so that it would not be one fact.
    """
    make = READERS[table].make
    codes: list[Code] = []
    current: Row | None = None
    for row in chain(rows, (None,)):
        if row is not None and current is not None and row[:2] == current[:2]:
            if (row[2:4], row[6:]) != (current[2:4], current[6:]):
                raise ExtractInvalid(
                    f"expected rows of {table} with one fact_id to differ in their code alone, got two facts under one"
                    " id; deployr validate counts them"
                )
            _add(codes, row)
            continue
        if current is not None:
            yield current[0], make(_common(current, codes), current[6:])
        current, codes = row, []
        if row is not None:
            _add(codes, row)


def demographics_of(row: Row, categories: Iterable[Row]) -> Demographics:
    """Give who a person is, of a row of `PERSONS` and their rows of `CATEGORIES`."""
    _, year, month, day, sex = row
    kinds: dict[str, list[Code]] = {"race": [], "ethnicity": []}
    for _, kind, system, code in categories:
        kinds[kind].append(Code(system, code))
    return Demographics(
        birth_date=None if year is None else BirthDate(year=year, month=month, day=None if month is None else day),
        sex=Sex(sex),
        races=tuple(kinds["race"]),
        ethnicities=tuple(kinds["ethnicity"]),
    )


class ByPerson:
    """Things that come ordered by person, handed out person by person in the same order."""

    def __init__(self, things: Iterator[tuple[int, _T]]) -> None:
        self._things = things
        self._next: tuple[int, Any] | None = next(things, None)

    def take(self, person_id: int) -> Iterator[Any]:
        """Give this person's things; those of persons before, whom nobody asked for, are passed over."""
        while self._next is not None and self._next[0] <= person_id:
            (owner, thing), self._next = self._next, next(self._things, None)
            if owner == person_id:
                yield thing


def utc(moment: datetime) -> datetime:
    """Give an instant of a fact table, which is UTC without saying so, as the core has it."""
    return moment.replace(tzinfo=UTC)


def _common(row: Row, codes: list[Code]) -> dict[str, Any]:
    return {"fact_id": row[1], "codes": tuple(codes), "at": utc(row[2]), "known_at": utc(row[3])}


def _add(codes: list[Code], row: Row) -> None:
    if row[4] is not None and row[5] is not None:
        code = Code(row[4], row[5])
        if code not in codes:
            codes.append(code)


def _status(*, cancelled: bool | None, resulted: datetime | None) -> OrderStatus:
    if cancelled:
        return OrderStatus.CANCELLED
    return OrderStatus.OPEN if resulted is None else OrderStatus.DONE
