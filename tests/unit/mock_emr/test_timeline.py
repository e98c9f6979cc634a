from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from mock_emr.store import Store
from mock_emr.timeline import Timeline

Make = Callable[..., dict[str, Any]]
Stores = Callable[..., Store]


def at(hour: int, *, day: int = 6) -> datetime:
    return datetime(2015, 1, day, hour, tzinfo=UTC)


def place(ward: str, start: int, end: int | None = None) -> dict[str, Any]:
    period = {"start": f"2015-01-06T{start:02}:00:00Z"} | ({"end": f"2015-01-06T{end:02}:00:00Z"} if end else {})
    return {"location": {"reference": f"Location/{ward}"}, "status": "completed", "period": period}


def wards(store: Store, now: datetime) -> list[tuple[str, bool]]:
    """Give the places of encounter e1 as they show, and whether the patient is known to have left them."""
    form = store.read("Encounter", "e1", now=now)
    assert form is not None
    shown = msgspec.json.decode(form.body)
    return [(one["location"]["reference"], "end" in one["period"]) for one in shown.get("location", [])]


def test_a_patient_is_in_each_ward_from_when_they_got_there(store_of: Stores, encounter: Make) -> None:
    moved = encounter(location=[place("ed", 10, 13), place("icu", 13, 15), place("ward", 15)])
    store = store_of(moved)
    assert wards(store, at(12)) == [("Location/ed", False)]
    assert wards(store, at(13)) == [("Location/ed", True), ("Location/icu", False)]
    assert wards(store, at(16)) == [("Location/ed", True), ("Location/icu", True), ("Location/ward", False)]
    assert store.read("Encounter", "e1", now=at(10, day=7)).body == msgspec.json.encode(  # type: ignore[union-attr]
        msgspec.json.decode(store.with_ids("Encounter", ["e1"])[0].settled.body)
    )


def test_a_stay_without_an_end_still_shows_its_moves(store_of: Stores, encounter: Make) -> None:
    here = encounter(
        status="in-progress",
        period={"start": "2015-01-06T10:00:00Z"},
        location=[place("ed", 10, 13), place("ward", 13)],
    )
    store = store_of(here)
    assert wards(store, at(12)) == [("Location/ed", False)]
    assert wards(store, at(13)) == [("Location/ed", True), ("Location/ward", False)]
    assert [event.kind for event in Timeline(store).after(at(0), until=at(0, day=8), limit=9)] == ["admission", "move"]


def test_a_day_of_a_patient_is_told_in_order_of_time(
    store_of: Stores, encounter: Make, order: Make, observation: Make
) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "deceasedDateTime": "2015-01-08T01:00:00Z"}
    vital = observation("v1", category=[{"coding": [{"code": "vital-signs"}]}], issued="2015-01-06T14:00:00Z")
    stay = encounter(location=[place("ed", 10, 13), place("ward", 13)])
    signed = order(authoredOn="2015-01-06T11:00:00Z")
    timeline = Timeline(store_of(patient, stay, signed, observation("l1"), vital))
    told = timeline.after(at(0), until=at(23, day=9), limit=99)
    assert [(event.at, event.kind, event.reference) for event in told] == [
        (at(10), "admission", "Encounter/e1"),
        (at(11), "order", "ServiceRequest/o1"),
        (at(12), "result", "Observation/l1"),
        (at(13), "move", "Encounter/e1"),
        (at(14), "measurement", "Observation/v1"),
        (at(10, day=7), "discharge", "Encounter/e1"),
        (at(1, day=8), "death", "Patient/p1"),
    ]
    assert {event.patient_id for event in told} == {"p1"}


def test_after_is_excluded_and_until_is_included(store_of: Stores, observation: Make) -> None:
    results = [observation(f"l{hour}", issued=f"2015-01-06T{hour}:00:00Z") for hour in (12, 13, 14, 15)]
    timeline = Timeline(store_of(*results))
    told = timeline.after(at(12), until=at(14), limit=9)
    assert [event.at for event in told] == [at(13), at(14)]
    assert len(timeline.after(at(0), until=at(20), limit=3)) == 3
    assert timeline.after(at(0), until=at(20), patient_id="p2", limit=9) == ()
    assert timeline.after(at(0), until=at(20), kinds=["order"], limit=9) == ()


def test_the_next_event_is_after_the_instant_and_may_be_of_one_kind(
    store_of: Stores, observation: Make, order: Make
) -> None:
    timeline = Timeline(store_of(order(authoredOn="2015-01-06T09:00:00Z"), observation("l1")))
    first = timeline.next_after(at(8))
    assert first is not None
    assert (first.kind, first.at) == ("order", at(9))
    second = timeline.next_after(at(9), kinds=["result", "order"])
    assert second is not None
    assert (second.kind, second.at) == ("result", at(12))
    assert timeline.next_after(at(12)) is None
