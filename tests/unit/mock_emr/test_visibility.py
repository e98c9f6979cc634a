from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from mock_emr.dates import BEGINNING, DateError
from mock_emr.store import Store
from mock_emr.visibility import shown_from

Resource = dict[str, Any]
Make = Callable[..., Resource]
Stores = Callable[..., Store]

SECOND = timedelta(seconds=1)


def at(hour: int, *, day: int = 6) -> datetime:
    return datetime(2015, 1, day, hour, tzinfo=UTC)


def shown(store: Store, resource_type: str, resource_id: str, now: datetime) -> Resource | None:
    form = store.read(resource_type, resource_id, now=now)
    return None if form is None else msgspec.json.decode(form.body)


@pytest.mark.parametrize(
    ("elements", "instant"),
    [
        ({"resourceType": "Observation", "issued": "2015-01-06T12:00:00Z", "effectiveDateTime": "2015"}, at(12)),
        ({"resourceType": "Observation", "effectiveDateTime": "2015-01-06T07:00:00-05:00"}, at(12)),
        ({"resourceType": "Observation", "effectivePeriod": {"start": "2015-01-06T12:00:00Z"}}, at(12)),
        ({"resourceType": "Observation"}, BEGINNING),
        ({"resourceType": "Condition", "recordedDate": "2015-01-06", "onsetDateTime": "2014"}, at(0)),
        ({"resourceType": "Condition", "onsetDateTime": "2015-01-06"}, at(0)),
        ({"resourceType": "Condition", "onsetPeriod": {"start": "2015-01-06"}}, at(0)),
        ({"resourceType": "Condition", "onsetString": "as a child"}, BEGINNING),
        ({"resourceType": "MedicationRequest", "authoredOn": "2015-01-06"}, at(0)),
        ({"resourceType": "ServiceRequest", "authoredOn": "2015-01-06"}, at(0)),
        ({"resourceType": "Encounter", "period": {"start": "2015-01-06"}}, at(0)),
        ({"resourceType": "Encounter"}, BEGINNING),
        ({"resourceType": "Procedure", "performedDateTime": "2015-01-06T12:00:00Z"}, at(12)),
        ({"resourceType": "Procedure", "performedPeriod": {"start": "2015-01-06", "end": "2015-01-07"}}, at(0)),
        ({"resourceType": "Procedure", "performedString": "as a child"}, BEGINNING),
        ({"resourceType": "Patient", "birthDate": "1950"}, BEGINNING),
        ({"resourceType": "Medication", "authoredOn": "2015"}, BEGINNING),
    ],
)
def test_each_type_shows_from_its_own_date(elements: Resource, instant: datetime) -> None:
    assert shown_from(elements) == instant


def test_a_date_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(DateError):
        shown_from({"resourceType": "Observation", "issued": "soon"})
    with pytest.raises(DateError):
        shown_from({"resourceType": "Observation", "issued": 7})


def test_a_result_shows_at_its_issued_instant_and_not_a_moment_before(store_of: Stores, observation: Make) -> None:
    store = store_of(observation("l1"))
    assert shown(store, "Observation", "l1", at(12) - SECOND) is None
    assert shown(store, "Observation", "l1", at(12)) == observation("l1")


def test_an_order_is_active_until_its_last_result_shows(store_of: Stores, observation: Make, order: Make) -> None:
    based_on = [{"reference": "ServiceRequest/o1"}]
    store = store_of(
        order(),
        observation("l1", basedOn=based_on, issued="2015-01-06T12:00:00Z"),
        observation("l2", basedOn=based_on, issued="2015-01-06T13:00:00Z"),
    )
    assert shown(store, "ServiceRequest", "o1", at(9) - SECOND) is None
    assert shown(store, "ServiceRequest", "o1", at(9)) == {**order(), "status": "active"}
    assert shown(store, "ServiceRequest", "o1", at(13) - SECOND) == {**order(), "status": "active"}
    assert shown(store, "ServiceRequest", "o1", at(13)) == order()


def test_an_order_without_results_shows_as_stored(store_of: Stores, order: Make) -> None:
    assert shown(store_of(order()), "ServiceRequest", "o1", at(9)) == order()


def test_a_medication_request_shows_as_stored(store_of: Stores, order: Make) -> None:
    medication = order("m1", resource_type="MedicationRequest")
    assert shown(store_of(medication), "MedicationRequest", "m1", at(9)) == medication


def test_an_encounter_is_in_progress_and_open_until_its_period_ends(store_of: Stores, encounter: Make) -> None:
    store = store_of(
        encounter(
            length={"value": 24, "unit": "h"},
            hospitalization={"admitSource": {"text": "ED"}, "dischargeDisposition": {"text": "home"}},
        )
    )
    assert shown(store, "Encounter", "e1", at(10) - SECOND) is None
    early = shown(store, "Encounter", "e1", at(10, day=7) - SECOND)
    assert early is not None
    assert early["status"] == "in-progress"
    assert early["period"] == {"start": "2015-01-06T10:00:00Z"}
    assert early["hospitalization"] == {"admitSource": {"text": "ED"}}
    assert "length" not in early
    late = shown(store, "Encounter", "e1", at(10, day=7))
    assert late is not None
    assert late["status"] == "finished"
    assert late["period"]["end"] == "2015-01-07T10:00:00Z"


def test_an_encounter_that_ends_on_a_date_is_open_all_that_day(store_of: Stores, encounter: Make) -> None:
    store = store_of(encounter(period={"start": "2015-01-06", "end": "2015-01-06"}))
    before = shown(store, "Encounter", "e1", at(23))
    after = shown(store, "Encounter", "e1", at(0, day=7))
    assert (before or {})["status"] == "in-progress"
    assert (after or {})["status"] == "finished"


def test_an_encounter_without_an_end_shows_as_stored(store_of: Stores, encounter: Make) -> None:
    store = store_of(encounter(status="in-progress", period={"start": "2015-01-06T10:00:00Z"}))
    assert (shown(store, "Encounter", "e1", at(10)) or {})["status"] == "in-progress"


@pytest.mark.parametrize("resource_type", ["ServiceRequest", "MedicationRequest"])
def test_an_encounter_shows_from_the_first_order_that_names_it(
    store_of: Stores, encounter: Make, order: Make, resource_type: str
) -> None:
    store = store_of(
        encounter(),
        order("o2", resource_type=resource_type, authoredOn="2015-01-06T09:30:00Z"),
        order("o1", resource_type=resource_type, authoredOn="2015-01-06T09:00:00Z"),
    )
    assert shown(store, "Encounter", "e1", at(9) - SECOND) is None
    assert (shown(store, "Encounter", "e1", at(9)) or {})["status"] == "in-progress"


def test_an_order_after_its_encounter_began_does_not_hide_the_encounter(
    store_of: Stores, encounter: Make, order: Make
) -> None:
    store = store_of(encounter(), order(authoredOn="2015-01-06T11:00:00Z"))
    assert shown(store, "Encounter", "e1", at(10)) is not None


def test_a_death_and_the_end_of_a_condition_are_unseen_until_they_happen(store_of: Stores) -> None:
    store = store_of(
        {"resourceType": "Patient", "id": "p1", "deceasedDateTime": "2015-01-06T12:00:00Z"},
        {
            "resourceType": "Condition",
            "id": "c1",
            "clinicalStatus": {"coding": [{"code": "resolved"}]},
            "recordedDate": "2015-01-05",
            "abatementDateTime": "2015-01-06T12:00:00Z",
        },
    )
    assert shown(store, "Patient", "p1", at(12) - SECOND) == {"resourceType": "Patient", "id": "p1"}
    assert "deceasedDateTime" in (shown(store, "Patient", "p1", at(12)) or {})
    early = shown(store, "Condition", "c1", at(12) - SECOND) or {}
    assert early["clinicalStatus"]["coding"][0]["code"] == "active"
    assert "abatementDateTime" not in early
    assert (shown(store, "Condition", "c1", at(12)) or {})["clinicalStatus"] == {"coding": [{"code": "resolved"}]}


def test_going_back_in_time_hides_what_was_shown(store_of: Stores, observation: Make) -> None:
    store = store_of(observation("l1"))
    assert [shown(store, "Observation", "l1", at(hour)) is not None for hour in (11, 12, 11)] == [False, True, False]


def test_a_procedure_is_underway_until_its_period_ends(store_of: Stores) -> None:
    period = {"start": "2015-01-06T08:00:00Z", "end": "2015-01-06T10:00:00Z"}
    procedure = {
        "resourceType": "Procedure",
        "id": "pr1",
        "status": "completed",
        "subject": {"reference": "Patient/p1"},
        "performedPeriod": period,
    }
    store = store_of(procedure)
    assert shown(store, "Procedure", "pr1", at(8) - SECOND) is None
    assert shown(store, "Procedure", "pr1", at(9)) == {
        **procedure,
        "status": "in-progress",
        "performedPeriod": {"start": period["start"]},
    }
    assert shown(store, "Procedure", "pr1", at(10)) == procedure
