"""Labs, vital signs and demographics by a vendor's web services, scripted."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from deployr_core.codes import LOINC
from deployr_core.declared import Analyte, Statistic
from deployr_core.facts import BirthDate, Sex
from deployr_core.features import EthnicityGroup, FeatureSpec, LabGroup, SexGroup, VitalGroup
from deployr_core.packet import Subject
from deployr_serve.adapters.auth import NoCredentials
from deployr_serve.adapters.epic_client import VendorClient
from deployr_serve.adapters.epic_components import SHIPPED, read_vendor_codes
from deployr_serve.adapters.epic_reads import EpicReads, EpicSite
from deployr_serve.adapters.fhir_plan import plan
from deployr_serve.adapters.http import Response
from deployr_serve.adapters.identity import Encounters, VendorPatients
from deployr_serve.core.errors import (
    EmrBadResponse,
    EmrIncomplete,
    EmrRefused,
    EmrThrottled,
    EmrUnreachable,
    UnknownContext,
    UnknownPatient,
    WrongPatient,
)
from deployr_serve.core.ports import Budget

BASE = "https://emr.example/Interconnect"
BUDGET = Budget(deadline=1e9, correlation_id="c1")
SUBJECT = Subject(patient_id="p1", encounter_id="e1", order_id="o1")
IDS = {"FHIR": "p1", "FHIR STU3": "T1", "EPI": "E1"}
IDENTIFIERS = {"Identifiers": [{"ID": value, "IDType": kind} for kind, value in IDS.items()]}
LABS = {
    "ResultComponents": [
        {"Value": ["30"], "Units": "%", "ResultDate": "01/06/2015", "ResultTime": "7:00 PM", "ComponentID": "HCT"}
    ]
}
ROWS = {
    "FlowsheetRows": [
        {
            "FlowsheetRowID": [{"ID": "8", "Type": "EXTERNAL"}, {"ID": "99", "Type": "INTERNAL"}],
            "Unit": "bpm",
            "FlowsheetColumns": [{"Instant": "2015-01-06T18:00:00Z", "RawValue": "80"}],
        }
    ]
}
DEMOGRAPHICS = {"DateOfBirth": "3/4/1950", "Gender": "Female", "Race": "White"}
ENCOUNTER = {
    "resourceType": "Encounter",
    "id": "e1",
    "status": "in-progress",
    "subject": {"reference": "Patient/p1"},
    "identifier": [{"type": {"text": "CSN"}, "value": "42"}],
}


def measured(kind, *codes, days, name):
    analytes = tuple(Analyte(system=LOINC, code=code, name=code, unit="%") for code in codes)
    return kind(name=name, analytes=analytes, statistics=(Statistic.LAST,), lookback_days=days)


LAB_GROUP = measured(LabGroup, "4544-3", "718-7", days=14, name="labs")
VITAL_GROUP = measured(VitalGroup, "8867-4", days=1, name="vitals")
SPEC = FeatureSpec(schema_version=1, groups=(SexGroup(), LAB_GROUP, VITAL_GROUP))
EVERYTHING = frozenset({"labs", "vitals", "patient"})


def spec_of(*groups):
    return FeatureSpec(schema_version=1, groups=groups)


def site_of(*names, **changes):
    return EpicSite(
        **{
            "names": frozenset(names),
            "codes": read_vendor_codes(SHIPPED),
            "zone": UTC,
            "user_id": "bridge",
            "user_id_type": "External",
            **changes,
        }
    )


class Emr:
    """Answers each service with what is scripted for the last word of its path; a function is asked."""

    def __init__(self, page_of, **answers):
        self._answers = {
            "Identifiers": IDENTIFIERS,
            "ResultComponents": LABS,
            "FlowsheetRows": ROWS,
            "Demographics": DEMOGRAPHICS,
            "_search": page_of(ENCOUNTER, total=1),
            **answers,
        }

    def __call__(self, request):
        answer = self._answers[urlsplit(request.url).path.rpartition("/")[2]]
        return answer(request) if callable(answer) else answer


@pytest.fixture
def reader_of(clock, transport_of, client_of, page_of):
    """Give a function that makes the reads of a site that answers so, and the transport that is asked."""

    def make(*names, site=None, **answers):
        emr = Emr(page_of, **answers)

        def answer(request):
            given = emr(request)
            if isinstance(given, (Response, BaseException, bytes)):
                return given
            return json.dumps(given).encode()

        transport = transport_of(answer)
        client = VendorClient(base=BASE, transport=transport, credentials=NoCredentials(), clock=clock)
        encounters = Encounters(client_of(transport), csn_system=None)
        reads = EpicReads(client, site=site or site_of(*names), patients=VendorPatients(client), encounters=encounters)
        return reads, transport

    return make


@pytest.fixture
def read(reader_of, now):
    """Give a function that reads these names from a site that answers so."""

    async def run(*names, spec=SPEC, subject=SUBJECT, as_of=now, site=None, **answers):
        reads, transport = reader_of(*names, site=site, **answers)
        dropped = Counter()
        found = await reads.read(subject, spec, as_of=as_of, budget=BUDGET, dropped=dropped)
        return found, transport, dropped

    return run


def calls(transport):
    return Counter(urlsplit(request.url).path.rpartition("/")[2] for request in transport.requests)


def body_of(transport, service):
    [request] = [request for request in transport.requests if request.url.endswith(service)]
    return json.loads(request.body)


async def test_each_group_is_read_in_one_call_and_the_ids_it_needs_in_one_more(read):
    found, transport, dropped = await read("labs", "vitals", "patient")
    assert calls(transport) == {
        "Identifiers": 1,
        "ResultComponents": 1,
        "FlowsheetRows": 1,
        "Demographics": 1,
        "_search": 1,
    }
    assert [lab.value for lab in found.facts["labs"]] == [30.0]
    assert [vital.value for vital in found.facts["vitals"]] == [80.0]
    assert (found.demographics.sex, found.demographics.birth_date) == (
        Sex.FEMALE,
        BirthDate(year=1950, month=3, day=4),
    )
    assert dropped == {}
    assert all(request.budget is BUDGET and request.repeatable for request in transport.requests)


async def test_the_records_say_that_it_was_read_by_the_vendors_services(read, now):
    found, _, _ = await read("labs", "vitals", "patient")
    assert [(record.name, record.resource, record.resources, record.pages) for record in found.records] == [
        ("identity", "Identifiers", 1, 1),
        ("labs", "ResultComponents", 1, 1),
        ("vitals", "FlowsheetRows", 1, 1),
        ("patient", "Demographics", 1, 1),
    ]
    assert {(record.via, record.error, record.started_at) for record in found.records} == {("epic", None, now)}


async def test_only_the_groups_of_the_settings_that_the_declaration_holds_are_read(read):
    found, transport, _ = await read("labs", "vitals", spec=spec_of(SexGroup(), LAB_GROUP))
    assert (list(found.facts), found.demographics) == (["labs"], None)
    assert calls(transport) == {"Identifiers": 1, "ResultComponents": 1}
    found, transport, _ = await read("labs", spec=spec_of(SexGroup()))
    assert (found.facts, found.records, transport.requests) == ({}, (), [])


def test_the_names_are_those_of_the_plan(reader_of, now):
    reads, _ = reader_of(*EVERYTHING)
    assert reads.names - {"patient"} == set(plan(SPEC, patient_id="p1", as_of=now))


async def test_results_are_looked_for_as_far_back_as_the_longest_window_from_the_clocks_now(read, clock, now):
    longer = measured(LabGroup, "777-3", days=30, name="longer")
    _, transport, _ = await read("labs", spec=spec_of(LAB_GROUP, longer), as_of=now - timedelta(hours=30))
    sent = body_of(transport, "ResultComponents")
    # 31.25 days, and one day more.
    assert sent["NumberDaysToLookBack"] == 32
    assert [one["Value"] for one in sent["ComponentTypes"]] == ["HCT", "HGB", "PLT"]
    assert (sent["PatientID"], sent["PatientIDType"], sent["UserID"]) == ("T1", "FHIR STU3", "bridge")


async def test_flowsheets_are_read_by_contact(read):
    _, transport, _ = await read("vitals")
    assert body_of(transport, "FlowsheetRows") == {
        "PatientID": "E1",
        "PatientIDType": "EPI",
        "ContactID": "42",
        "ContactIDType": "CSN",
        "LookbackHours": 25,
        "UserID": "bridge",
        "UserIDType": "External",
        "FlowsheetRowIDs": [{"ID": "8", "Type": "EXTERNAL"}],
    }


async def test_flowsheets_without_an_encounter_or_beyond_their_reach_are_refused(read, now):
    with pytest.raises(UnknownContext):
        await read("vitals", subject=Subject(patient_id="p1"))
    with pytest.raises(EmrIncomplete):
        await read("vitals", as_of=now - timedelta(hours=49))


async def test_an_encounter_of_another_patient_is_refused(read, page_of):
    stranger = {**ENCOUNTER, "subject": {"reference": "Patient/p2"}}
    with pytest.raises(WrongPatient):
        await read("vitals", _search=page_of(stranger, total=1))
    with pytest.raises(UnknownContext):
        await read("vitals", _search=page_of({**ENCOUNTER, "identifier": []}, total=1))


async def test_flowsheet_rows_that_nobody_asked_for_are_refused(read):
    row = {**ROWS["FlowsheetRows"][0], "FlowsheetRowID": [{"ID": "5", "Type": "EXTERNAL"}]}
    with pytest.raises(EmrBadResponse):
        await read("vitals", FlowsheetRows={"FlowsheetRows": [row]})


async def test_the_newer_demographics_are_asked_for_by_the_fhir_id(read):
    newer = {"DateOfBirth": "1950-03-04", "LegalSex": {"Title": "Male"}, "Race": None}
    found, transport, _ = await read(site=site_of("patient", demographics_of_2019=True), Demographics=newer)
    assert found.demographics.sex is Sex.MALE
    url = urlsplit(transport.requests[-1].url)
    assert "/2019/" in url.path
    assert parse_qs(url.query) == {"PatientID": ["p1"], "PatientIDType": ["FHIR"]}


async def test_identifiers_of_somebody_else_end_the_read_before_anything_is_read(reader_of, now):
    others = {"Identifiers": [{"ID": "p2", "IDType": "FHIR"}, {"ID": "T2", "IDType": "FHIR STU3"}]}
    reads, transport = reader_of("labs", Identifiers=others)
    with pytest.raises(WrongPatient) as raised:
        await reads.read(SUBJECT, SPEC, as_of=now, budget=BUDGET, dropped=Counter())
    assert calls(transport) == {"Identifiers": 1}
    [record] = raised.value.fetches
    assert (record.name, record.via, record.error) == ("identity", "epic", "wrong-patient")


async def test_a_patient_without_the_id_that_a_service_needs_is_unknown_to_it(read):
    only = {"Identifiers": [{"ID": "p1", "IDType": "FHIR"}]}
    two = {"Identifiers": [*IDENTIFIERS["Identifiers"], {"ID": "T9", "IDType": "FHIR STU3"}]}
    for answer in (only, two):
        with pytest.raises(UnknownPatient):
            await read("labs", Identifiers=answer)


# -- row 118: what a service may answer instead


@pytest.mark.parametrize(
    "body",
    [
        {"ResultComponents": [], "ErrorMessage": "An error occurred"},
        {"ResultComponents": None, "Status": 0},
        {"ResultComponents": None, "Status": "0"},
        {"ResultComponents": None, "Success": False},
        {"ResultComponents": None, "Errors": ["No"]},
        {"ExceptionMessage": "An error occurred while executing the command: X."},
        {},
        [],
        None,
        b"",
        b"<html>log in</html>",
        b'{"ResultComponents": [',
        b"\xff",
    ],
)
async def test_an_error_in_a_successful_answer_is_a_failure_and_not_no_results(read, body):
    with pytest.raises(EmrBadResponse) as raised:
        await read("labs", ResultComponents=body)
    assert raised.value.__cause__ is None
    [record] = raised.value.fetches
    assert (record.name, record.error, record.resources, record.requests) == ("labs", "emr-bad-response", 0, 1)


async def test_a_status_that_says_success_is_no_error(read):
    found, _, _ = await read("labs", ResultComponents={**LABS, "Status": 1, "ErrorMessage": "", "Errors": []})
    assert len(found.facts["labs"]) == 1


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (400, "EPT_ID_RETRIEVAL_ERROR details: 2:InvalidRecord:RecordNotFound:9999999999;UID.", UnknownPatient),
        (400, "EPT_DAT_RETRIEVAL_ERROR.", UnknownPatient),
        (400, "CONTACT_IS_INVALID.", UnknownContext),
        (400, "INVALID-ID-TYPE.", EmrRefused),
        (400, "SOMETHING_ELSE.", EmrBadResponse),
        (404, None, EmrBadResponse),
        (401, None, EmrRefused),
        (403, None, EmrRefused),
        (429, None, EmrThrottled),
        (500, "DATA_NOT_SAVED.", EmrUnreachable),
        (503, None, EmrUnreachable),
    ],
)
async def test_a_refusal_is_classed_by_the_vendors_code_or_else_by_its_status(read, status, message, error):
    body = b"<html>9999999999</html>"
    if message:
        told = {"Message": "An error has occurred.", "ExceptionMessage": f"executing the command: {message}"}
        body = json.dumps(told).encode()
    response = Response(status=status, content_type="application/json", body=body)
    with pytest.raises(error) as raised:
        await read("labs", ResultComponents=response)
    assert "9999999999" not in str(raised.value)


async def test_the_first_failure_ends_the_others(read):
    unavailable = Response(status=503, content_type="text/html", body=b"")
    with pytest.raises(EmrUnreachable):
        await read("labs", "vitals", "patient", FlowsheetRows=unavailable)


async def test_a_call_that_was_not_answered_is_recorded_with_its_tries(read):
    error = EmrUnreachable("expected the EMR to take the connection")
    error.requests = 3
    with pytest.raises(EmrUnreachable) as raised:
        await read("labs", ResultComponents=error)
    [record] = raised.value.fetches
    assert (record.requests, record.pages, record.error) == (3, 0, "emr-unreachable")


# -- what cannot be read whole is not served


def test_a_test_without_a_component_cannot_be_read():
    unknown = measured(LabGroup, "4544-3", "99999-9", days=1, name="rare")
    assert site_of("labs").unreadable(spec_of(LAB_GROUP, unknown)) == ("rare",)
    assert site_of("vitals").unreadable(spec_of(LAB_GROUP, unknown)) == ()
    other = measured(VitalGroup, "8302-2", days=1, name="height")
    assert site_of("vitals").unreadable(spec_of(VITAL_GROUP, other)) == ("height",)


def test_another_code_of_the_same_test_has_a_component_too():
    analyte = Analyte(system=LOINC, code="20570-8", name="hematocrit", unit="%", also=((LOINC, "4544-3"),))
    group = msgspec.structs.replace(LAB_GROUP, analytes=(analyte,))
    assert site_of("labs").unreadable(spec_of(group)) == ()


@pytest.mark.parametrize(("days", "names"), [(1, ()), (2, ()), (3, ("vitals",)), (4, ("vitals",))])
def test_flowsheets_serve_no_window_of_72_hours_or_more(days, names):
    group = measured(VitalGroup, "8867-4", days=days, name="vitals")
    assert site_of("vitals").unreadable(spec_of(group)) == names
    assert site_of("labs").unreadable(spec_of(group)) == ()


def test_the_older_demographics_serve_no_ethnicity():
    spec = spec_of(EthnicityGroup(categories=("2135-2",)))
    assert site_of("patient").unreadable(spec) == ("ethnicity",)
    assert site_of("patient", demographics_of_2019=True).unreadable(spec) == ()
    assert site_of("labs").unreadable(spec) == ()


def test_nothing_shows_whose_facts_these_are(reader_of):
    assert "bridge" not in repr(site_of("labs"))
