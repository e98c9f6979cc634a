"""Answers of a vendor's reading services to facts. Pure; what cannot be used is counted, by reason, never guessed at.

None of these answers says whose it is: that it is about the right patient rests on the identifier in the request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from deployr_core.codes import OMB_RACE_ETHNICITY, Code
from deployr_core.facts import BirthDate, Demographics, Lab, Sex, Vital
from deployr_core.instants import parse_fhir_datetime
from deployr_serve.adapters.epic_components import Component, FlowsheetRow, VendorCodes
from deployr_serve.core.errors import EmrBadResponse

_NUMBER = re.compile(r"[+-]?(?:\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})", re.ASCII)
_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))? ?([AP]M)", re.ASCII | re.IGNORECASE)
_BIRTH_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?(?:T[0-9:.Z+-]*)?", re.ASCII)
_SEXES = frozenset(Sex)
_NORMAL_TITLES = {"normal", "none"}
_SECOND, _MINUTE, _DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)

Dated = tuple[datetime, datetime]
"""When something happened, and from when on it was surely known."""


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Titled(_Answer, frozen=True, kw_only=True):
    """A category of the vendor's, of which the title is read."""

    title: str | None = None


class TypedId(_Answer, frozen=True, kw_only=True):
    """An id with its type; the member is called ``IDType`` in some answers and ``Type`` in others."""

    id: str | int = msgspec.field(name="ID")
    type: str = ""


class ResultComponent(_Answer, frozen=True, kw_only=True):
    """One result.

    Source: wire formats document, section 2, GETPATIENTRESULTCOMPONENTS: all members [seen], but ``ComponentID``
    [secondary]: a public client of another hospital reads it, behind a proxy, as a scalar.
    """

    value: tuple[str, ...] | None
    units: str | None = None
    instant: str | None = None
    result_date: str | None = None
    result_time: str | None = None
    abnormality: Titled | None = None
    component_id: str | int | TypedId | tuple[TypedId, ...] | None = msgspec.field(name="ComponentID", default=None)

    @property
    def names(self) -> frozenset[str]:
        """What the result says it is of, in capitals; empty if it does not say."""
        match self.component_id:
            case None | "":
                return frozenset()
            case str() | int():
                return frozenset({str(self.component_id).upper()})
            case TypedId():
                return frozenset({str(self.component_id.id).upper()})
            case ids:
                return frozenset(str(one.id).upper() for one in ids)


class FlowsheetColumn(_Answer, frozen=True, kw_only=True):
    """One value of a row."""

    instant: str | None
    raw_value: str | None


class FlowsheetRowAnswer(_Answer, frozen=True, kw_only=True):
    """One row with its values.

    Source: [secondary]: a public client of one hospital reads these members, and a public mock of another's writes
    them; the ids there are one level lower.
    """

    row_ids: tuple[TypedId, ...] = msgspec.field(name="FlowsheetRowID")
    flowsheet_columns: tuple[FlowsheetColumn, ...]
    unit: str | None = None


class Demographics2010(_Answer, frozen=True, kw_only=True):
    """Source: wire formats document, section 2, GETPATIENTDEMOGRAPHICS of 2010 [seen]."""

    date_of_birth: str | None
    gender: str | None
    race: str | None


class Demographics2019(_Answer, frozen=True, kw_only=True):
    """Source: wire formats document, section 2, GetPatientDemographics of 2019: names [seen]; the ethnicity's shape,
    and that several of it come as a list, [assumed]."""

    date_of_birth: str | None
    legal_sex: Titled | None
    race: tuple[Titled, ...] | None
    ethnicity: Titled | tuple[Titled, ...] | None = None


def when(result: ResultComponent, *, zone: tzinfo) -> Dated | None:
    """Say when a result came; None if it carries no date. It is all that the interface tells about time.

    The Instant is taken where there is one. Date and time are the site's wall: what is dated to the minute is known
    from the end of that minute, and what has no time from the end of its day, so that a model never sees the rest of
    it too early. An hour that the clocks show twice begins with its first showing and is known after its second; one
    that they skip is read both ways likewise.

    Raises:
        EmrBadResponse: a date that is none; it may hide the newest result.

    Source: wire formats document, section 2 [seen]: ``03/04/2023``, ``1:05 PM``; month before day [assumed].
    """
    if result.instant:
        return _of_instant(result.instant, zone)
    if not result.result_date:
        return None
    return _of_wall(result.result_date, result.result_time or "", zone)


def labs(
    results: Sequence[tuple[Component, ResultComponent]], *, codes: VendorCodes, zone: tzinfo, dropped: Counter[str]
) -> tuple[Lab, ...]:
    """Read results into facts. ``at`` is when the result came: the interface does not tell when it was drawn.

    Only a text that is a number and nothing else is one: ``5.1 H``, ``>100``, ``1,234`` and ``see note`` are results
    without a number. The interface gives no ids, so that a result which is there twice counts twice: two specimens
    that were released together look the same. No result names its order or its reference range.
    """
    facts: dict[str, Lab] = {}
    for component, result in results:
        dated = when(result, zone=zone)
        if dated is None:
            dropped["labs.no_release_time"] += 1
            continue
        texts = result.value or ()
        value = number_in(texts[0]) if len(texts) == 1 else None
        dropped["labs.not_a_number"] += bool(texts) and value is None
        unit = codes.unit_of(result.units, component.unit)
        dropped["labs.no_unit"] += value is not None and not unit
        fact_id = f"{component.base_name}@{dated[0]:%Y%m%dT%H%M%S}"
        if fact_id in facts:
            fact_id = f"{fact_id}#{len(facts)}"
        facts[fact_id] = Lab(
            fact_id=fact_id,
            codes=(component.key,),
            at=dated[0],
            known_at=dated[1],
            value=value,
            unit=unit,
            abnormal=_abnormal(result.abnormality),
        )
    _forget_zeros(dropped)
    return tuple(facts.values())


def vitals(
    rows: Sequence[tuple[FlowsheetRow, FlowsheetRowAnswer]],
    *,
    codes: VendorCodes,
    zone: tzinfo,
    dropped: Counter[str],
) -> tuple[Vital, ...]:
    """Read flowsheet values into facts; they are known from when they were taken, as the interface tells no more."""
    facts: dict[str, Vital] = {}
    for row, answer in rows:
        unit = codes.unit_of(answer.unit, row.unit)
        for column in answer.flowsheet_columns:
            if not column.instant:
                dropped["vitals.no_id_or_time"] += 1
                continue
            at, known_at = _of_instant(column.instant, zone)
            texts = _parts(column.raw_value, len(row.keys))
            dropped["vitals.not_a_number"] += bool(column.raw_value) and None in texts
            dropped["vitals.no_unit"] += not unit
            for key, value in zip(row.keys, texts, strict=True):
                fact_id = f"{row.id}/{key.value}@{at:%Y%m%dT%H%M%S}#{len(facts)}"
                facts[fact_id] = Vital(fact_id=fact_id, codes=(key,), at=at, known_at=known_at, value=value, unit=unit)
    _forget_zeros(dropped)
    return tuple(facts.values())


def demographics_of_2010(answer: Demographics2010, *, codes: VendorCodes, dropped: Counter[str]) -> Demographics:
    """Read the shape of 2010, which has no ethnicity. Of its races the titles that the site's file names are read."""
    parts = [part.strip() for part in (answer.race or "").split("^") if part.strip()]
    races = [part for part in parts if part in codes.races]
    # What follows a title may be its number, so that only a text of which nothing is known is counted.
    dropped["patient.race_not_mapped"] += bool(parts) and not races
    return _demographics(
        answer.date_of_birth, answer.gender, races=_omb(races, codes.races), ethnicities=(), dropped=dropped
    )


def demographics_of_2019(answer: Demographics2019, *, codes: VendorCodes, dropped: Counter[str]) -> Demographics:
    """Read the shape of 2019."""
    races = [one.title for one in answer.race or () if one.title]
    told = (answer.ethnicity,) if isinstance(answer.ethnicity, Titled) else answer.ethnicity or ()
    ethnicities = [one.title for one in told if one.title]
    dropped["patient.race_not_mapped"] += sum(title not in codes.races for title in races)
    dropped["patient.ethnicity_not_mapped"] += sum(title not in codes.ethnicities for title in ethnicities)
    return _demographics(
        answer.date_of_birth,
        answer.legal_sex.title if answer.legal_sex else None,
        races=_omb(races, codes.races),
        ethnicities=_omb(ethnicities, codes.ethnicities),
        dropped=dropped,
    )


def number_in(text: str) -> float | None:
    """Give the number that a text is, white space around it aside; None for any other text."""
    stripped = text.strip()
    return float(stripped) if _NUMBER.fullmatch(stripped) else None


def birth_date(text: str | None) -> BirthDate | None:
    """Read a birth date, as precise as it is: ``1950-03-04`` with or without a time after it, or ``3/4/1950``.

    Source: wire formats document, section 2: a date in many ways of writing [seen]; that a date with slashes has its
    month first [assumed].
    """
    month: int | None
    day: int | None
    if match := _DATE.fullmatch(text or ""):
        month, day, year = (int(part) for part in match.groups())
    elif match := _BIRTH_DATE.fullmatch(text or ""):
        year = int(match[1])
        month, day = (int(part) if part else None for part in (match[2], match[3]))
    else:
        return None
    try:
        return BirthDate(year=year, month=month, day=day)
    except ValueError:
        return None


def _demographics(
    born: str | None, sex: str | None, *, races: tuple[Code, ...], ethnicities: tuple[Code, ...], dropped: Counter[str]
) -> Demographics:
    birth = birth_date(born)
    told = (sex or "").strip().lower()
    dropped["patient.birth_date_unreadable"] += bool(born) and birth is None
    dropped["patient.sex_not_mapped"] += bool(told) and told not in _SEXES
    _forget_zeros(dropped)
    return Demographics(
        birth_date=birth,
        sex=Sex(told) if told in _SEXES else Sex.UNKNOWN,
        races=races,
        ethnicities=ethnicities,
    )


def _omb(titles: Sequence[str], known: Mapping[str, str]) -> tuple[Code, ...]:
    found = (Code(OMB_RACE_ETHNICITY, known[title]) for title in titles if title in known)
    return tuple(dict.fromkeys(found))


def _abnormal(abnormality: Titled | None) -> bool | None:
    """Give the laboratory's flag; None where it set none, which may mean normal, or no reference range."""
    title = (abnormality.title or "").strip().lower() if abnormality else ""
    return title not in _NORMAL_TITLES if title else None


def _parts(text: str | None, count: int) -> list[float | None]:
    parts = (text or "").split("/")
    return [number_in(part) for part in parts] if len(parts) == count else [None] * count


def _of_instant(text: str, zone: tzinfo) -> Dated:
    try:
        start, end = parse_fhir_datetime(text, zone=zone)
    except ValueError:
        raise EmrBadResponse("expected an instant as ISO 8601 writes it") from None
    return start, start if end - start <= _SECOND else end


def _of_wall(date: str, time: str, zone: tzinfo) -> Dated:
    expected = "expected dates such as 03/04/2023 and times such as 1:05 PM"
    day, clock = _DATE.fullmatch(date.strip()), _TIME.fullmatch(time.strip())
    if day is None or (clock is None and time.strip()):
        raise EmrBadResponse(expected)
    month, day_of_month, year = (int(part) for part in day.groups())
    hour, minute, second, lasts = 0, 0, 0, _DAY
    if clock is not None:
        hour, minute, second = int(clock[1]), int(clock[2]), int(clock[3] or 0)
        lasts = _SECOND if clock[3] else _MINUTE
        if not 1 <= hour <= 12:
            raise EmrBadResponse(expected)
        hour = hour % 12 + (12 if clock[4].upper() == "PM" else 0)
    try:
        wall = datetime(year, month, day_of_month, hour, minute, second, tzinfo=zone)
        ends = wall + lasts if lasts is _DAY else wall
        starts = min(wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
        known = max(ends.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    except (ValueError, OverflowError):
        raise EmrBadResponse(expected) from None
    if lasts is _DAY:
        return starts, known
    return starts, known if lasts is _SECOND else known + _MINUTE


def _forget_zeros(dropped: Counter[str]) -> None:
    """Take out the reasons that did not come up: a count of nothing is no finding."""
    for reason in [reason for reason, count in dropped.items() if not count]:
        del dropped[reason]
