"""What was measured, by the vendor's web services: result components and flowsheet rows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from mock_emr.dates import DateError, instant_of, interval_of, wire_instant
from mock_emr.elements import child, codings, each, reference_text
from mock_emr.store import Store
from mock_emr.vendor_patients import resource_of
from mock_emr.vendor_site import VendorSite, local_date_and_time, refused, whole_in
from mock_emr.written import FlowsheetValue

Resource = Mapping[str, Any]

MOST_RESULTS = 200
MOST_HOURS = 72
_LOINC = "http://loinc.org"
_FINAL = {"final", "amended", "corrected"}
_TITLES = {
    "H": "High",
    "HH": "High Panic",
    "L": "Low",
    "LL": "Low Panic",
    "A": "Abnormal",
    "AA": "Abnormal",
    "N": "Normal",
}
FLOWSHEET_ROWS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "5": (("8480-6",), ("8462-4",)),
    "6": (("8310-5",),),
    "8": (("8867-4",),),
    "9": (("9279-1",),),
    "10": (("59408-5", "2708-6"),),
}
"""The LOINCs of each row, by its EXTERNAL id; one of two parts is written `120/80`.

Source: the ids and what they stand for, wire-formats.md section 2, GETFLOWSHEETROWS [seen]; the LOINCs are ours.
"""


@lru_cache(maxsize=1)
def base_names() -> Mapping[str, str]:
    """Give the component base name of each LOINC that has one."""
    held = (Path(__file__).parent / "base_names.json").read_bytes()
    return msgspec.json.decode(held, type=dict[str, str])


def result_components(
    store: Store, patient_id: str, sent: Mapping[str, Any], *, site: VendorSite, now: datetime
) -> dict[str, Any]:
    """Write a patient's results of the components asked for, newest first, at most 200; null where there is none.

    `FromInstant` is where looking back starts: what was released up to its minute, and at most
    `NumberDaysToLookBack` times 24 hours before it.

    Source: wire-formats.md section 2, GETPATIENTRESULTCOMPONENTS: members, date and time [seen]; `ComponentID`
    [secondary], a client of another hospital reads it behind a proxy; that it holds the base name, the order, what
    `FromInstant` means and which status shows are [assumed].
    """
    wanted = _components(sent)
    most = min(whole_in(sent, "MaxNumberOfResults", default=MOST_RESULTS), MOST_RESULTS)
    until = _from_instant(sent.get("FromInstant"), now=now)
    since = until - timedelta(days=whole_in(sent, "NumberDaysToLookBack", default=0))
    rows = sorted(
        (
            (released, row)
            for released, row in _results(store, patient_id, wanted, site=site, now=now)
            if since <= released < until + timedelta(minutes=1)
        ),
        key=lambda dated: dated[0],
        reverse=True,
    )
    return {"ResultComponents": [row for _, row in rows[:most]] or None}


def flowsheet_rows(
    store: Store,
    patient_id: str,
    encounter: Resource,
    sent: Mapping[str, Any],
    *,
    filed: Mapping[str, Sequence[FlowsheetValue]],
    now: datetime,
) -> dict[str, Any]:
    """Write what was filed for one contact in the rows asked for, in the last `LookbackHours`.

    ``filed``: what was written to this contact in rows of the site's own, by row.

    Source: request, wire-formats.md section 2, GETFLOWSHEETROWS [seen]; answer [secondary], a client and a mock of two
    other hospitals agree on its members.
    """
    hours = whole_in(sent, "LookbackHours")
    if hours > MOST_HOURS:
        raise refused(f"INVALID-PARAMETER details: LookbackHours: expected at most {MOST_HOURS}")
    since = now - timedelta(hours=hours)
    measured = [
        one
        for one in _measurements(store, patient_id, f"Encounter/{encounter['id']}", now=now)
        if since <= one.at <= now
    ]
    return {
        "FlowsheetRows": [
            _filed_row(row_id, [one for one in filed[row_id] if since <= one.taken_at <= now])
            if row_id in filed
            else _row(row_id, measured)
            for row_id in _row_ids(sent, known={*FLOWSHEET_ROWS, *filed})
        ]
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Measurement:
    at: datetime
    code: str
    value: str
    unit: str


def _components(sent: Mapping[str, Any]) -> frozenset[str]:
    asked = sent.get("ComponentTypes")
    if not isinstance(asked, list) or not asked:
        raise refused("INVALID-PARAMETER details: ComponentTypes: expected a list")
    for one in asked:
        if not isinstance(one, dict) or one.get("Type") != "base-name" or not isinstance(one.get("Value"), str):
            raise refused("INVALID-PARAMETER details: ComponentTypes: expected components by base-name")
    return frozenset(str(one["Value"]).upper() for one in asked)


def _from_instant(value: object, *, now: datetime) -> datetime:
    if value in (None, ""):
        return now
    try:
        return instant_of(str(value))
    except DateError as error:
        raise refused("INVALID-PARAMETER details: FromInstant: expected an instant") from error


def _results(
    store: Store, patient_id: str, wanted: frozenset[str], *, site: VendorSite, now: datetime
) -> Iterator[tuple[datetime, dict[str, Any]]]:
    for observation in _observations(store, patient_id, "laboratory", now=now):
        names = {base_names().get(code) for system, code in codings(observation.get("code")) if system == _LOINC}
        named = sorted(name for name in names if name in wanted and name is not None)
        released = observation.get("issued") or observation.get("effectiveDateTime")
        if not named or not isinstance(released, str) or observation.get("status") not in _FINAL:
            continue
        instant = interval_of(released).low
        date, time = local_date_and_time(instant, site.zone)
        value, units = _value(observation)
        row: dict[str, Any] = {
            "Value": None if value is None else [value],
            "Units": units,
            "ResultDate": date,
            "ResultTime": time,
            "Abnormality": _abnormality(observation),
        }
        if site.names_components:
            row["ComponentID"] = [{"ID": named[0], "Type": "base-name"}]
        if site.shows_instants:
            row["Instant"] = wire_instant(instant.astimezone(UTC))
        yield instant, row


def _observations(store: Store, patient_id: str, category: str, *, now: datetime) -> Iterator[Resource]:
    for record in store.of_patients("Observation", (patient_id,)):
        form = record.at(now)
        if form is not None and (None, category) in form.terms.get("category", ()):
            yield resource_of(form)


def _value(element: Resource) -> tuple[str | None, str]:
    quantity = child(element, "valueQuantity")
    if "value" not in quantity:
        text = element.get("valueString")
        return (text if isinstance(text, str) else None), ""
    # Without the .0 that a whole number gets in JSON by way of a float; no digit is lost.
    number = repr(quantity["value"]).removesuffix(".0")
    return str(quantity.get("comparator", "")) + number, str(quantity.get("unit", quantity.get("code", "")))


def _abnormality(observation: Resource) -> dict[str, Any] | None:
    flags = [_TITLES[code] for _, code in codings(observation.get("interpretation")) if code in _TITLES]
    return {"Title": flags[0]} if flags else None


def _row_ids(sent: Mapping[str, Any], *, known: Collection[str]) -> list[str]:
    asked = sent.get("FlowsheetRowIDs")
    if not isinstance(asked, list) or not asked:
        raise refused("INVALID-PARAMETER details: FlowsheetRowIDs: expected a list")
    for one in asked:
        if not isinstance(one, dict) or one.get("Type") != "EXTERNAL" or one.get("ID") not in known:
            raise refused("FLOWSHEET-ROW-NOT-FOUND details: FlowsheetRowIDs")
    return [str(one["ID"]) for one in asked]


def _measurements(store: Store, patient_id: str, contact: str, *, now: datetime) -> Iterator[_Measurement]:
    for observation in _observations(store, patient_id, "vital-signs", now=now):
        taken = observation.get("effectiveDateTime")
        if not isinstance(taken, str) or reference_text(observation.get("encounter")) not in {None, contact}:
            continue
        for element in (observation, *each(observation.get("component"))):
            value, unit = _value(element)
            for system, code in codings(element.get("code")):
                if value is not None and system == _LOINC:
                    yield _Measurement(at=interval_of(taken).low, code=code, value=value, unit=unit)


def _filed_row(row_id: str, values: Sequence[FlowsheetValue]) -> dict[str, Any]:
    columns = [
        {"Instant": wire_instant(one.taken_at), "RawValue": one.value, "FormattedValue": one.value} for one in values
    ]
    return {
        "FlowsheetRowID": [{"ID": row_id, "Type": "EXTERNAL"}],
        "Name": f"Row {row_id}",
        "Unit": "",
        "FlowsheetColumns": columns,
    }


def _row(row_id: str, measured: list[_Measurement]) -> dict[str, Any]:
    parts = FLOWSHEET_ROWS[row_id]
    found = [{one.at: one for one in measured if one.code in codes} for codes in parts]
    columns = [
        {
            "Instant": wire_instant(at),
            "RawValue": "/".join(by_instant[at].value for by_instant in found),
            "FormattedValue": "/".join(by_instant[at].value for by_instant in found),
        }
        for at in sorted(set.intersection(*(set(by_instant) for by_instant in found)))
    ]
    units = sorted({one.unit for by_instant in found for one in by_instant.values()})
    return {
        "FlowsheetRowID": [{"ID": row_id, "Type": "EXTERNAL"}],
        "Name": f"Row {row_id}",
        "Unit": units[0] if units else "",
        "FlowsheetColumns": columns,
    }
