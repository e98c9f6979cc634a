"""A patient's chart as a screen shows it: results and flowsheet rows over time, stays, orders, documents."""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import msgspec

from mock_emr.dates import DateError, interval_of
from mock_emr.elements import child, codings, each, reference_text
from mock_emr.emr import Emr
from mock_emr.fhir_writes import FLOWSHEET_ID
from mock_emr.screens.census import stays_of, ward_of
from mock_emr.screens.plots import Plot, Point, plot_of

Resource = Mapping[str, Any]

SPANS: Mapping[str, timedelta | None] = {
    "2 days": timedelta(days=2),
    "7 days": timedelta(days=7),
    "30 days": timedelta(days=30),
    "everything": None,
}
MOST_ORDERS = 100
_PLOT = (260, 44)
_NOTES = ("DocumentReference", "Communication", "Flag", "RiskAssessment")
_ROW_NAMES = {"5": "Blood pressure", "6": "Temperature", "8": "Pulse", "9": "Respiration", "10": "Oxygen saturation"}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One thing measured over time, oldest first; ``normal`` is its range in words."""

    name: str
    unit: str
    normal: str
    points: tuple[Point, ...] = field(repr=False)
    plot: Plot

    @property
    def latest(self) -> Point:
        """Give the latest value."""
        return self.points[-1]


@dataclass(frozen=True, kw_only=True)
class Stay:
    """One encounter. ``end`` is None while it lasts."""

    encounter_id: str = field(repr=False)
    status: str
    start: datetime | None
    end: datetime | None
    ward: str | None


@dataclass(frozen=True, kw_only=True)
class Order:
    """One order, of a test or a medication."""

    name: str
    kind: str
    status: str
    at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that was written about the patient: what it is, its lines, and when."""

    kind: str
    lines: tuple[str, ...] = field(repr=False)
    at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What the chart shows as of now, newest first where it is a list of events."""

    results: tuple[Series, ...]
    flowsheet: tuple[Series, ...]
    stays: tuple[Stay, ...]
    orders: tuple[Order, ...]
    problems: tuple[str, ...]
    notes: tuple[Note, ...]


def chart_of(emr: Emr, patient_id: str, *, span: timedelta | None) -> Chart:
    """Read a chart as of now.

    Args:
        emr: whose.
        patient_id: of a patient that shows.
        span: how far back results, flowsheet rows and orders go; None is without end.
    """
    now = emr.clock.now()
    since = None if span is None else now - span
    written = [
        each for each in emr.written.resources() if reference_text(each.get("subject")) == f"Patient/{patient_id}"
    ]
    labs: list[Resource] = []
    rows: list[Resource] = []
    measured = (held for held in written if held["resourceType"] == "Observation")
    for held in chain(_shown(emr, "Observation", patient_id, since=since), measured):
        is_lab = any(code == "laboratory" for _, code in codings(held.get("category")))
        (labs if is_lab else rows).append(held)
    window = None if since is None else (since, now)
    return Chart(
        results=_series(labs, {}, window),
        flowsheet=_series(rows, _filed(emr, patient_id, since), window),
        stays=stays_in(emr, patient_id),
        orders=_orders(emr, patient_id, since, written),
        problems=tuple(dict.fromkeys(_words(held.get("code")) for held in _shown(emr, "Condition", patient_id))),
        notes=_notes(emr, patient_id, written),
    )


def stays_in(emr: Emr, patient_id: str) -> tuple[Stay, ...]:
    """Give the patient's encounters that show now, the latest first."""
    now = emr.clock.now()
    return tuple(sorted(map(_stay, stays_of(emr, patient_id)), key=lambda stay: stay.start or now, reverse=True))


def _shown(emr: Emr, resource_type: str, patient_id: str, *, since: datetime | None = None) -> Iterator[Resource]:
    """Give what shows now of one type, and no more than is in the window: charts of years are long."""
    now = emr.clock.now()
    for record in emr.store.of_patients(resource_type, (patient_id,)):
        form = record.at(now)
        if form is None:
            continue
        dated = next(
            (form.intervals[name] for name in ("date", "authored", "authoredon") if name in form.intervals), None
        )
        if since is None or dated is None or dated.high > since:
            yield msgspec.json.decode(form.body)


def _filed(emr: Emr, patient_id: str, since: datetime | None) -> dict[str, list[Point]]:
    """Give the values that were filed in flowsheet rows, by row."""
    found: defaultdict[str, list[Point]] = defaultdict(list)
    for filed in emr.written.flowsheet:
        number = _number(filed.value)
        if filed.patient_id == patient_id and number is not None and (since is None or filed.taken_at >= since):
            found[_row_name(filed.row_id)].append(Point(at=filed.taken_at, value=number, text=filed.value))
    return found


def _series(
    observations: list[Resource], filed: Mapping[str, list[Point]], window: tuple[datetime, datetime] | None
) -> tuple[Series, ...]:
    points: defaultdict[str, list[Point]] = defaultdict(list, {name: list(held) for name, held in filed.items()})
    units: dict[str, str] = {}
    ranges: dict[str, tuple[float | None, float | None]] = {}
    for held in observations:
        at, quantity = _instant(held.get("effectiveDateTime") or held.get("issued")), child(held, "valueQuantity")
        number = _number(quantity.get("value"))
        if at is None or number is None:
            continue
        name = _observed(held)
        flag = next((code for _, code in codings(held.get("interpretation")) if code in {"L", "H", "LL", "HH"}), "")
        points[name].append(Point(at=at, value=number, text=f"{quantity['value']}", flag=flag[:1]))
        units[name] = str(quantity.get("unit") or quantity.get("code") or "")
        for limits in each(held.get("referenceRange")):
            ranges[name] = (_number(child(limits, "low").get("value")), _number(child(limits, "high").get("value")))
    made = []
    for name, unsorted in sorted(points.items()):
        ordered = tuple(sorted(unsorted, key=lambda point: point.at))
        low, high = ranges.get(name, (None, None))
        plot = plot_of(ordered, width=_PLOT[0], height=_PLOT[1], span=window, low=low, high=high)
        made.append(Series(name=name, unit=units.get(name, ""), normal=_range(low, high), points=ordered, plot=plot))
    return tuple(made)


def _observed(observation: Resource) -> str:
    rows = [code for system, code in codings(observation.get("code")) if system == FLOWSHEET_ID]
    return _row_name(rows[0]) if rows else _words(observation.get("code"))


def _row_name(row_id: str) -> str:
    return _ROW_NAMES.get(row_id, f"Row {row_id}")


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"{low:g} or more" if low is not None else f"{high:g} or less" if high is not None else ""
    return f"{low:g} to {high:g}"


def _stay(encounter: Resource) -> Stay:
    period = child(encounter, "period")
    return Stay(
        encounter_id=str(encounter["id"]),
        status=str(encounter.get("status", "")),
        start=_instant(period.get("start")),
        end=_instant(period.get("end")),
        ward=ward_of(encounter),
    )


def _orders(emr: Emr, patient_id: str, since: datetime | None, written: list[Resource]) -> tuple[Order, ...]:
    found = [
        Order(
            name=_words(held.get("code") or held.get("medicationCodeableConcept")),
            kind="Medication" if held["resourceType"] == "MedicationRequest" else "Test",
            status=str(held.get("status", "")),
            at=_instant(held.get("authoredOn")),
        )
        for kind in ("ServiceRequest", "MedicationRequest")
        for held in (
            *_shown(emr, kind, patient_id, since=since),
            *(one for one in written if one["resourceType"] == kind),
        )
    ]
    always = datetime.min.replace(tzinfo=UTC)
    return tuple(sorted(found, key=lambda order: order.at or always, reverse=True)[:MOST_ORDERS])


def _notes(emr: Emr, patient_id: str, written: list[Resource]) -> tuple[Note, ...]:
    """Give what was written: documents and the like, SmartData, comments of flowsheet values; the latest first."""
    notes = [_note(held) for held in written if held["resourceType"] in _NOTES]
    for value in emr.written.smart_data():
        if value.patient_id == patient_id:
            lines = (f"{value.element_id}: {value.value}", *value.comments)
            notes.append(Note(kind="SmartData", lines=lines, at=value.written_at))
    return tuple(reversed(notes))


def _note(held: Resource) -> Note:
    at = next((held[name] for name in ("date", "sent", "occurrenceDateTime") if name in held), None)
    lines = [_words(held.get("code") or held.get("type"))]
    for part in each(held.get("payload")):
        lines += str(part.get("contentString", "")).splitlines()
    for content in each(held.get("content")):
        lines.append(_attached(child(content, "attachment")))
    for told in each(held.get("prediction")):
        number = _number(told.get("probabilityDecimal"))
        outcome = _words(told.get("outcome"))
        lines += [outcome if number is None else f"{outcome}: {number:.0%}", str(told.get("rationale", ""))]
    lines.append(str(held.get("description", "")))
    words = tuple(line for line in dict.fromkeys(lines) if line)
    return Note(kind=str(held["resourceType"]), lines=words, at=_instant(at or child(held, "meta").get("lastUpdated")))


def _attached(attachment: Resource) -> str:
    """Give an attachment of plain text as text; any other is named."""
    media_type = str(attachment.get("contentType", ""))
    if media_type.startswith("text/plain") and isinstance(attachment.get("data"), str):
        try:
            return base64.b64decode(attachment["data"], validate=True).decode()
        except ValueError:
            return "An attachment that cannot be read"
    return str(attachment.get("title") or media_type or "An attachment")


def _words(concept: object) -> str:
    """Say a CodeableConcept in words: its text, else a display, else a code."""
    for held in each(concept):
        shown = [coding.get("display") or coding.get("code") for coding in each(held.get("coding"))]
        if text := held.get("text") or next(filter(None, shown), None):
            return str(text)
    return ""


def _instant(text: object) -> datetime | None:
    try:
        return interval_of(str(text)).low if text else None
    except DateError:
        return None


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if math.isfinite(number) else None
