from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest

from mock_emr.query import Query, QueryError, found, query_of
from mock_emr.store import Store

Resource = dict[str, Any]
Make = Callable[..., Resource]
Stores = Callable[..., Store]

NOW = datetime(2015, 6, 1, tzinfo=UTC)


def query(text: str, resource_type: str = "Observation", *, strict: bool = False) -> Query:
    return query_of(resource_type, parse_qsl(text, keep_blank_values=True), strict=strict)


def ids(store: Store, text: str, resource_type: str = "Observation", now: datetime = NOW) -> list[str]:
    forms = found(query(text, resource_type), store=store, now=now)
    return [form.address.decode().partition("/")[2] for form in forms]


@pytest.fixture
def labs(store_of: Stores, observation: Make) -> Store:
    """Give three results of p1 and one of p2; l2 is a glucose of 7 January, l3 a pulse without a date, preliminary."""
    pulse = {"coding": [{"system": "urn:local", "code": "2160-0"}, {"code": "pulse"}]}
    return store_of(
        observation("l1", basedOn=[{"reference": "ServiceRequest/o1"}], encounter={"reference": "Encounter/e1"}),
        observation(
            "l2",
            code={"coding": [{"system": "http://loinc.org", "code": "2345-7"}]},
            effectiveDateTime="2015-01-07T11:30:00Z",
            issued="2015-01-07T12:00:00Z",
        ),
        observation(
            "l3",
            code=pulse,
            category=[{"coding": [{"system": "urn:category", "code": "vital-signs"}]}],
            status="preliminary",
            effectiveDateTime=None,
        ),
        observation("x1", patient="p2"),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("patient=p1", ["l1", "l2", "l3"]),
        ("patient=Patient/p1", ["l1", "l2", "l3"]),
        ("patient=https://emr.example/api/FHIR/R4/Patient/p1", ["l1", "l2", "l3"]),
        ("subject=Patient/p1", ["l1", "l2", "l3"]),
        ("subject=p1", ["l1", "l2", "l3"]),
        ("subject:Patient=p1", ["l1", "l2", "l3"]),
        ("patient=p2,p1", ["l1", "l2", "l3", "x1"]),
        ("patient=Group/p1", []),
        ("patient=p", []),
        ("patient=p1&patient=p2", []),
        ("_id=l2", ["l2"]),
        ("_id=l2,nobody,x1", ["l2", "x1"]),
        ("_id=x1&patient=p1", []),
        ("patient=p1&category=laboratory", ["l1", "l2"]),
        ("patient=p1&category=urn:category|laboratory", ["l1", "l2"]),
        ("patient=p1&category=urn:other|laboratory", []),
        ("patient=p1&category=laboratory,vital-signs", ["l1", "l2", "l3"]),
        ("patient=p1&category=laboratory&category=vital-signs", []),
        ("patient=p1&code=2160-0", ["l1", "l3"]),
        ("patient=p1&code=http://loinc.org|2160-0", ["l1"]),
        ("patient=p1&code=http://loinc.org|2160-0,http://loinc.org|2345-7", ["l1", "l2"]),
        ("patient=p1&code=http://loinc.org|", ["l1", "l2"]),
        ("patient=p1&code=|pulse", ["l3"]),
        ("patient=p1&code=|2160-0", []),
        ("patient=p1&status=final", ["l1", "l2"]),
        ("patient=p1&status=final,preliminary", ["l1", "l2", "l3"]),
        ("patient=p1&status=", ["l1", "l2", "l3"]),
        ("patient=p1&based-on=ServiceRequest/o1", ["l1"]),
        ("patient=p1&based-on=o1", ["l1"]),
        ("patient=p1&encounter=e1", ["l1"]),
        ("patient=p1&encounter=Encounter/e1", ["l1"]),
        ("patient=p1&encounter=Encounter/e2", []),
        ("patient=p1&date=2015-01-06", ["l1"]),
        ("patient=p1&date=ge2015-01-06T11:30Z", ["l1", "l2"]),
        ("patient=p1&date=gt2015-01-06T11:30Z", ["l2"]),
        ("patient=p1&date=ge2015-01-06&date=lt2015-01-07", ["l1"]),
        ("patient=p1&date=2015-01-06,2015-01-07", ["l1", "l2"]),
        ("patient=p1&date=ge2015-01-07T06:30:00-05:00", ["l2"]),
        ("patient=p1&_sort=date", ["l1", "l2", "l3"]),
        ("patient=p1&_sort=-date", ["l2", "l1", "l3"]),
        ("patient=p1&_sort=-_id", ["l3", "l2", "l1"]),
    ],
)
def test_a_search_finds_what_it_asks_for(labs: Store, text: str, expected: list[str]) -> None:
    assert ids(labs, text) == expected


def test_a_search_sees_nothing_that_does_not_show_yet(labs: Store) -> None:
    assert ids(labs, "patient=p1", now=datetime(2015, 1, 6, 12, tzinfo=UTC)) == ["l1", "l3"]


def test_resources_of_one_date_keep_their_order_whichever_way_they_are_sorted(
    store_of: Stores, observation: Make
) -> None:
    store = store_of(observation("b"), observation("a"))
    assert ids(store, "patient=p1&_sort=date") == ["b", "a"]
    assert ids(store, "patient=p1&_sort=-date") == ["b", "a"]


def test_a_patient_is_found_by_identifier_with_or_without_its_system(store_of: Stores) -> None:
    store = store_of(
        {"resourceType": "Patient", "id": "p1", "identifier": [{"system": "urn:mrn", "value": "7"}]},
        {"resourceType": "Patient", "id": "p2", "identifier": [{"system": "urn:other", "value": "7"}]},
    )
    assert ids(store, "identifier=urn:mrn|7", "Patient") == ["p1"]
    assert ids(store, "identifier=7", "Patient") == ["p1", "p2"]
    assert ids(store, "identifier=urn:mrn|8", "Patient") == []


def test_escaped_separators_belong_to_the_value(store_of: Stores) -> None:
    store = store_of({"resourceType": "Patient", "id": "p1", "identifier": [{"system": "urn:mrn", "value": "7,8|9"}]})
    assert ids(store, r"identifier=urn:mrn|7\,8\|9", "Patient") == ["p1"]


def test_an_encounter_is_found_by_what_it_shows_at_the_time(store_of: Stores, encounter: Make) -> None:
    store = store_of(encounter())
    inside, after = datetime(2015, 1, 6, 12, tzinfo=UTC), NOW
    assert ids(store, "patient=p1&status=in-progress", "Encounter", inside) == ["e1"]
    assert ids(store, "patient=p1&status=finished", "Encounter", inside) == []
    assert ids(store, "patient=p1&status=finished", "Encounter", after) == ["e1"]
    assert ids(store, "patient=p1&date=ge2020", "Encounter", inside) == ["e1"]
    assert ids(store, "patient=p1&date=ge2020", "Encounter", after) == []
    assert ids(store, "patient=p1&class=IMP", "Encounter", after) == ["e1"]


def test_conditions_and_orders_have_dates_and_states_of_their_own(store_of: Stores, order: Make) -> None:
    store = store_of(
        {
            "resourceType": "Condition",
            "id": "c1",
            "subject": {"reference": "Patient/p1"},
            "clinicalStatus": {"coding": [{"system": "urn:clinical", "code": "active"}]},
            "onsetDateTime": "2014-05",
            "recordedDate": "2015-01-06",
        },
        order("m1", resource_type="MedicationRequest"),
        order("o1"),
    )
    assert ids(store, "patient=p1&clinical-status=active,inactive", "Condition") == ["c1"]
    assert ids(store, "patient=p1&clinical-status=urn:clinical|resolved", "Condition") == []
    assert ids(store, "patient=p1&onset-date=2014", "Condition") == ["c1"]
    assert ids(store, "patient=p1&recorded-date=lt2015-01-06", "Condition") == []
    assert ids(store, "patient=p1&authoredon=2015-01-06", "MedicationRequest") == ["m1"]
    assert ids(store, "patient=p1&authored=2015-01-06", "ServiceRequest") == ["o1"]


def test_a_type_that_nobody_foresaw_can_be_searched_by_patient_and_code(store_of: Stores) -> None:
    procedure = {"resourceType": "Procedure", "subject": {"reference": "Patient/p1"}, "status": "completed"}
    store = store_of({**procedure, "id": "a", "code": {"coding": [{"code": "1"}]}}, {**procedure, "id": "b"})
    assert ids(store, "patient=p1&code=1", "Procedure") == ["a"]


@pytest.mark.parametrize(("text", "count"), [("", 100), ("&_count=7", 7), ("&_count=0", 0), ("&_count=5000", 1000)])
def test_the_page_size_is_100_unless_asked_and_1000_at_most(text: str, count: int) -> None:
    assert query("patient=p1" + text).count == count


def test_unknown_parameters_are_ignored_and_named(labs: Store) -> None:
    asked = query("patient=p1&_sort=status&favourite=blue&_format=json&favourite=red")
    assert asked.ignored == ("_sort", "favourite")
    assert asked.understood == (("patient", "p1"), ("_format", "json"))
    assert len(found(asked, store=labs, now=NOW)) == 3


def test_strict_handling_refuses_unknown_parameters() -> None:
    with pytest.raises(QueryError) as refused:
        query("patient=p1&favourite=blue", strict=True)
    assert refused.value.status == 400
    assert [issue.expression for issue in refused.value.issues] == ["favourite"]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("category=laboratory", 400),
        ("encounter=e1", 400),
        ("", 400),
        ("patient=", 400),
        ("patient=p1&date=yesterday", 400),
        ("patient=p1&date=ge", 400),
        ("patient=p1&date=ap2015", 400),
        # A plus sign that was not encoded arrives as a space.
        ("patient=p1&date=ge2015-01-06T10:00:00+01:00", 400),
        ("patient=p1&_count=-1", 400),
        ("patient=p1&_count=ten", 400),
        ("patient=p1&code:in=http://vs", 400),
        ("patient=p1&status:not=final", 400),
        ("patient=p1&date:missing=true", 400),
        ("patient:Group=p1", 400),
        ("patient=p1&code=,", 400),
        ("patient=p1&_format=csv", 406),
    ],
)
def test_what_cannot_be_carried_out_is_refused(text: str, status: int) -> None:
    with pytest.raises(QueryError) as refused:
        query(text)
    assert refused.value.status == status


def test_enumerating_without_a_patient_is_refused_as_a_missing_element() -> None:
    with pytest.raises(QueryError) as refused:
        query("category=laboratory")
    (issue,) = refused.value.issues
    assert (issue.epic_code, issue.text) == ("59108", "A required element is missing.")
    assert issue.expression == "patient/_id"


def test_a_refusal_repeats_no_value() -> None:
    with pytest.raises(QueryError) as refused:
        query("patient=canary&date=canary")
    assert "canary" not in repr(refused.value.issues)
