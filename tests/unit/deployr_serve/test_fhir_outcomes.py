"""What has become of a patient: asked for once, whole, about nobody else."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest

from deployr_core.codes import LOINC, Code
from deployr_core.facts import OrderStatus
from deployr_core.label_rules import FhirPathSearch
from deployr_core.visit_labels import Death
from deployr_serve.adapters.fhir_outcomes import FhirOutcomes
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrIncomplete,
    EmrUnreachable,
    ModelUnavailable,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.outcome_source import OutcomeNeeds
from tests.fake_emr import FakeEmr

NEPAL = timezone(timedelta(hours=5, minutes=45))
HEMATOCRIT = (Code(LOINC, "4544-3"),)


@pytest.fixture
def emr_of(page_of, patient, encounter, service_request, observation, condition):
    def make(**held):
        everything = {
            "Patient": [patient()],
            "Encounter": [encounter()],
            "ServiceRequest": [service_request()],
            "Observation": [observation()],
            "Condition": [condition()],
        }
        return FakeEmr(page_of, **{**everything, **held})

    return make


@pytest.fixture
def outcomes(client_of, now, clock):
    async def run(emr, *, zone=UTC, version="R4", **needs):
        source = FhirOutcomes(client_of(emr, fhir_version=version), clock=clock, zone=zone)
        return await source.outcomes("p1", OutcomeNeeds(since=now, **needs))

    return run


async def test_results_and_orders_are_read_for_the_labels(outcomes, emr_of, service_request):
    emr = emr_of(ServiceRequest=[service_request("o1", status="revoked"), service_request("o2")])
    found = await outcomes(emr, order_ids=("o1", "o2", "o3"), codes=HEMATOCRIT)
    assert {order_id: order.status for order_id, order in found.orders.items()} == {
        "o1": OrderStatus.CANCELLED,
        "o2": OrderStatus.OPEN,
    }
    assert [lab.fact_id for lab in found.labs] == ["lab1"]
    assert dict(emr.asked) == {
        "Patient": {"_id": "p1", "_count": "1000"},
        "Observation": {
            "patient": "p1",
            "category": "laboratory",
            "code": "http://loinc.org|4544-3",
            "date": "ge2015-01-06T20:55:00Z",
            "_count": "1000",
        },
        "ServiceRequest": {"patient": "p1", "_id": "o1,o2,o3", "_count": "1000"},
    }


async def test_only_what_is_needed_is_asked_for(outcomes, emr_of):
    emr = emr_of()
    await outcomes(emr)
    assert [kind for kind, _ in emr.asked] == ["Patient"]
    emr = emr_of()
    await outcomes(emr, stays=True, diagnoses=True)
    since = "ge2015-01-06T20:55:00Z"
    assert dict(emr.asked[1:]) == {
        "Encounter": {"patient": "p1", "date": since, "_count": "1000"},
        "Condition": {"patient": "p1", "recorded-date": since, "_count": "1000"},
    }


async def test_many_orders_are_asked_for_a_hundred_at_a_time(outcomes, emr_of, service_request):
    emr = emr_of(ServiceRequest=[])
    await outcomes(emr, order_ids=tuple(f"o{i}" for i in range(201)))
    assert [len(form["_id"].split(",")) for kind, form in emr.asked if kind == "ServiceRequest"] == [100, 100, 1]


async def test_visits_say_of_which_class_when_and_how_they_ended(outcomes, emr_of, encounter):
    ended = encounter(
        "e2",
        status="finished",
        period={"start": "2015-01-05T10:00:00Z", "end": "2015-01-06T12:00:00+05:45"},
        hospitalization={"dischargeDisposition": {"coding": [{"code": "exp"}]}},
    )
    to_come = encounter("e3", period={"start": "2015-01-06T10:00:00Z", "end": "2015-01-09"})
    planned = encounter("e4", status="planned")
    found = await outcomes(emr_of(Encounter=[encounter(), ended, to_come, planned]), stays=True)
    assert [(stay.visit_id, stay.classes, stay.ended_at, stay.discharged_to) for stay in found.stays] == [
        ("e2", {"IMP"}, datetime(2015, 1, 6, 6, 15, tzinfo=UTC), "exp"),
        ("e1", {"IMP"}, None, None),
        ("e3", {"IMP"}, None, None),
    ]


async def test_an_end_that_is_a_mere_date_holds_all_of_that_day_where_the_hospital_is(outcomes, emr_of, encounter):
    emr = emr_of(Encounter=[encounter(period={"start": "2015-01-04T10:00:00Z", "end": "2015-01-05"})])
    [stay] = (await outcomes(emr, zone=NEPAL, stays=True)).stays
    assert stay.ended_at == datetime(2015, 1, 5, 18, 15, tzinfo=UTC)


async def test_a_death_is_as_precise_as_the_record_says(outcomes, emr_of, patient):
    exact = datetime(2015, 1, 5, 4, 15, tzinfo=UTC)
    found = await outcomes(emr_of(Patient=[patient(deceasedDateTime="2015-01-05T10:00:00+05:45")]))
    assert (found.death, found.died_undated) == (Death(earliest=exact, latest=exact), False)
    found = await outcomes(emr_of(Patient=[patient(deceasedDateTime="2015-01-05")]), zone=NEPAL)
    day = datetime(2015, 1, 4, 18, 15, tzinfo=UTC)
    assert found.death == Death(earliest=day, latest=day + timedelta(days=1))
    found = await outcomes(emr_of(Patient=[patient(deceasedBoolean=True)]))
    assert (found.death, found.died_undated) == (None, True)
    found = await outcomes(emr_of(Patient=[patient(deceasedBoolean=False)]))
    assert (found.death, found.died_undated) == (None, False)


@pytest.mark.parametrize("said", [{"active": False}, {"link": [{"type": "replaced-by", "other": {}}]}], ids=str)
async def test_a_record_that_was_merged_into_another_says_so(outcomes, emr_of, patient, said):
    assert (await outcomes(emr_of(Patient=[patient(**said)]))).is_merged
    assert not (await outcomes(emr_of())).is_merged


@pytest.mark.parametrize("kind", ["Observation", "ServiceRequest", "Encounter", "Condition"])
async def test_an_outcome_of_another_patient_stops_the_label(
    outcomes, emr_of, observation, service_request, encounter, condition, kind
):
    makers = {
        "Observation": observation,
        "ServiceRequest": service_request,
        "Encounter": encounter,
        "Condition": condition,
    }
    emr = emr_of(**{kind: [makers[kind](subject={"reference": "Patient/p2"})]})
    with pytest.raises(WrongPatient):
        await outcomes(emr, order_ids=("o1",), codes=HEMATOCRIT, stays=True, diagnoses=True)


async def test_another_patient_than_was_asked_for_stops_the_label(outcomes, emr_of, patient):
    with pytest.raises(WrongPatient):
        await outcomes(emr_of(Patient=[patient("p2")]))
    with pytest.raises(UnknownPatient):
        await outcomes(emr_of(Patient=[]))


async def test_one_search_that_fails_fails_the_whole(outcomes, emr_of):
    with pytest.raises(EmrUnreachable):
        await outcomes(emr_of(Condition=EmrUnreachable("down")), stays=True, diagnoses=True)


async def test_an_order_without_a_time_is_not_shown_to_the_labels(outcomes, emr_of, service_request):
    emr = emr_of(ServiceRequest=[service_request(authoredOn=None)])
    assert (await outcomes(emr, order_ids=("o1",))).orders == {}


# -- whole resources

REPORTS = FhirPathSearch(resource_type="DiagnosticReport", parameters={"category": "RAD", "status": "final"})


def report(report_id="r1", **elements):
    return {
        "resourceType": "DiagnosticReport",
        "id": report_id,
        "subject": {"reference": "Patient/p1"},
        "conclusion": "clear",
        **elements,
    }


async def test_resources_of_any_type_come_as_they_are(outcomes, emr_of):
    emr = emr_of(DiagnosticReport=[report(), report("r2", presentedForm=[{"title": "x"}])])
    found = await outcomes(emr, searches=(REPORTS,))
    held = found.resources[REPORTS.key]
    assert [json.loads(body) for body in held] == [report(), report("r2", presentedForm=[{"title": "x"}])]
    assert dict(emr.asked)["DiagnosticReport"] == {
        "patient": "p1",
        "category": "RAD",
        "status": "final",
        "_count": "1000",
    }


@pytest.mark.parametrize(
    ("held", "error"),
    [
        ([report(subject={"reference": "Patient/p2"})], WrongPatient),
        ([{**report(), "resourceType": "Observation"}], EmrBadResponse),
        ([report(""), report()], EmrBadResponse),
        (b"<html>no FHIR</html>", EmrBadResponse),
        (b'{"resourceType":"Bundle","type":"collection"}', EmrBadResponse),
        (b'{"resourceType":"Bundle","type":"searchset","total":3,"entry":[]}', EmrIncomplete),
    ],
    ids=["foreign", "type", "id", "html", "collection", "incomplete"],
)
async def test_whole_resources_are_checked_as_all_others_are(outcomes, emr_of, held, error):
    with pytest.raises(error):
        await outcomes(emr_of(DiagnosticReport=held), searches=(REPORTS,))


async def test_a_resource_may_name_its_patient_as_such_and_one_that_names_nobody_is_left_out(outcomes, emr_of):
    as_patient = {"resourceType": "DiagnosticReport", "id": "r2", "patient": {"reference": "Patient/p1"}}
    of_nobody = {"resourceType": "DiagnosticReport", "id": "r3"}
    found = await outcomes(emr_of(DiagnosticReport=[as_patient, of_nobody]), searches=(REPORTS,))
    assert [json.loads(body)["id"] for body in found.resources[REPORTS.key]] == ["r2"]


async def test_expressions_are_for_r4_alone(outcomes, emr_of):
    with pytest.raises(ModelUnavailable):
        await outcomes(emr_of(), searches=(REPORTS,), version="STU3")


async def test_what_was_found_shows_nothing_of_the_patient(outcomes, emr_of):
    emr = emr_of(DiagnosticReport=[report()])
    found = await outcomes(emr, order_ids=("o1",), codes=HEMATOCRIT, stays=True, diagnoses=True, searches=(REPORTS,))
    assert Counter(kind for kind, _ in emr.asked) == dict.fromkeys(
        ("Patient", "Observation", "ServiceRequest", "Encounter", "Condition", "DiagnosticReport"), 1
    )
    for mark in ("p1", "lab1", "30.0", "o1", "e1", "c1", "clear"):
        assert mark not in repr(found)
